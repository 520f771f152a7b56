/* config.h - config.json and generation_config.json of a Hugging Face checkpoint as numbers.
 *
 * TRUST   Hostile input: every number is checked for type and range (common/base/limits.h and
 *         below) before anybody computes with it. A wrong value is ERR_FORMAT; a value that says
 *         something we do not run (another architecture, RoPE scaling, an active sliding window,
 *         biases, quantized weights …) is ERR_ARGUMENT and named, so that no model is ever run as
 *         if it were another.
 * DEFAULT Only where Hugging Face's Llama has the same: num_key_value_heads, head_dim, rms_norm_eps
 *         1e-6, rope_theta 10,000, hidden_act silu, tie_word_embeddings false.
 *         Mistral differs: an absent window is 4,096, an absent num_key_value_heads is 8.
 * CONTEXT A model's max_position_embeddings above BT_CONTEXT_TOKENS_MAX is served up to the limit.
 * ADD     An architecture that needs nothing new is one row in config.c. */
#ifndef BT_COMMON_WEIGHTS_CONFIG_H
#define BT_COMMON_WEIGHTS_CONFIG_H

#include "common/weights/model.h"

#include <stddef.h>

#define BT_CONFIG_BYTES_MAX (1u << 20)
#define BT_HIDDEN_MAX 65536u
#define BT_MLP_MAX 1048576u
#define BT_Q_HEADS_MAX 1024u

/* config: the bytes of config.json. generation: the bytes of generation_config.json, whose
 * eos_token_id is joined to the config's; NULL if there is none. Leaves dtype NONE: the weights
 * say that. */
bt_status bt_config_parse(const char *config, size_t config_bytes, const char *generation,
                          size_t generation_bytes, bt_model_config *ret_config, bt_err *err);

#endif
