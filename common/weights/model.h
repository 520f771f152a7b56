/* model.h - a checkpoint folder opened: config.json as numbers, safetensors as named read-only
 * tensors.
 *
 * FLOW    bt_model_open(dir) -> bt_model_config / bt_model_tensor -> bt_model_close
 * OWNS    The model owns its file mappings; tensors point into them and live as long as the model.
 * TRUST   The folder is hostile input: every size, offset and shape is checked (safetensors.h), and
 *         a wrong one is an error that names file, tensor and reason. */
#ifndef BT_COMMON_WEIGHTS_MODEL_H
#define BT_COMMON_WEIGHTS_MODEL_H

#include "common/base/crypto.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/base/rope.h"
#include "common/base/status.h"
#include "common/weights/checkpoint.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct bt_model bt_model;

/* What layers differ in: bits of layer_options. */
enum { BT_LAYER_WINDOWED = 1, BT_LAYER_NO_ROPE = 2 };

typedef struct {
    char architecture[64]; /* "LlamaForCausalLM": a row of the architecture registry */
    uint32_t hidden, layers, q_heads, kv_heads, head_dim, mlp, vocab;
    uint32_t context_tokens_max;
    float rms_eps;
    bt_rope rope;
    uint32_t window_tokens; /* that a token sees in a windowed layer; 0 = no layer has a window */
    uint8_t layer_options[BT_LAYERS_MAX]; /* [layers] */
    bool qkv_bias, o_bias, mlp_bias;
    bool qk_norm; /* of each head of q and k, before RoPE */
    bool tied_embeddings;
    uint32_t bos_id; /* UINT32_MAX = none */
    uint32_t eos_ids[BT_EOS_IDS_MAX];
    uint32_t eos_count;
    bt_dtype dtype; /* of the weights as stored */
} bt_model_config;

typedef struct {
    const void *data; /* row-major, read-only */
    bt_dtype dtype;
    uint32_t rank;
    uint64_t shape[4];
    bool mapped; /* data lies in a mapping of the file */
} bt_tensor;

/* Errors: ERR_OS (file missing, unreadable), ERR_FORMAT (bytes wrong), ERR_ARGUMENT (a model we do
 * not run: unknown architecture, quantized weights …, named in the message). */
bt_status bt_model_open(const char *dir, bt_model **ret_model, bt_err *err);
void bt_model_close(bt_model *model);

const bt_model_config *bt_model_config_of(const bt_model *model);
const char *bt_model_dir(const bt_model *model);
/* bt_folder_name of the folder's real path. */
const char *bt_model_name(const bt_model *model);
const bt_checkpoint *bt_model_checkpoint(const bt_model *model);

/* What to call the model in a folder: the last component of its path, or <name> for a snapshot in a
 * hub cache (…/models--<org>--<name>/snapshots/<revision>); cleaned to [A-Za-z0-9._-]. */
void bt_folder_name(const char *dir, char ret_name[BT_NAME_BYTES_MAX]);

/* ERR_FORMAT if absent, or if its rank or shape is not the expected one (dims of 0 = any). */
bt_status bt_model_tensor(const bt_model *model, const char *name, uint32_t rank,
                          const uint64_t shape[4], bt_tensor *ret_tensor, bt_err *err);

/* Nobody reads these rows (of the first dimension) soon: gives their pages of the file's mapping
 * back, if it is mapped. They come again when read. */
void bt_tensor_cold(const bt_tensor *tensor, uint64_t first, uint64_t end);

/* SHA-256 over every tensor's name, dtype, shape and bytes, in name order. Reads the whole
 * checkpoint once; its pages do not stay. */
bt_status bt_model_weights_digest(const bt_model *model, bt_sha256 *ret_digest, bt_err *err);

/* Architecture, shapes, RoPE, windows, biases, QK norm, vocabulary and the tokenizer file's hash: what
 * must agree for KV to make sense. How config.json spells it does not matter. */
bt_status bt_model_fingerprint(const bt_model *model, bt_sha256 *ret_fingerprint, bt_err *err);

#endif
