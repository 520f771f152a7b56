/* config.h - config.json and generation_config.json of a Hugging Face checkpoint as numbers.
 *
 * TRUST   Hostile input: every number is checked for type and range (common/base/limits.h and
 *         below) before anybody computes with it. A wrong value is ERR_FORMAT; a value that says
 *         something we do not run (another architecture, a RoPE scaling we do not have, quantized
 *         weights …) is ERR_ARGUMENT and named, so that no model is ever run as if it were another.
 * FAMILY  What an absent member means, and which ones count, is a row of common/weights/family.c.
 *         RoPE: common/weights/rope_config.h. Names of quantized formats: quantized.h.
 * WINDOW  transformers' meaning: a token sees itself and the window - 1 before it. It is a mask: KV
 *         is kept whole. A window that the context fits in is none. layer_types, where given, must
 *         agree with the family's rule, or decides where the rule leaves it open.
 * CONTEXT A model's positions, stretched by linear, dynamic or yarn RoPE, are served up to
 *         BT_CONTEXT_TOKENS_MAX. */
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
