#include "common/engine/arch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ATTN "model.layers.%u.self_attn."
#define MLP "model.layers.%u.mlp."

/* Parts of rows. */
#define OUTER                                                                                      \
    .embedding = "model.embed_tokens.weight", .norm = "model.norm.weight", .head = "lm_head.weight"
#define NORMS                                                                                      \
    [BT_LAYER_ATTN_NORM] = "model.layers.%u.input_layernorm.weight",                               \
    [BT_LAYER_MLP_NORM] = "model.layers.%u.post_attention_layernorm.weight"
#define OUTPUTS [BT_LAYER_O] = ATTN "o_proj.weight", [BT_LAYER_DOWN] = MLP "down_proj.weight"
#define INPUTS                                                                                     \
    [BT_LAYER_Q] = ATTN "q_proj.weight", [BT_LAYER_K] = ATTN "k_proj.weight",                      \
    [BT_LAYER_V] = ATTN "v_proj.weight", [BT_LAYER_GATE] = MLP "gate_proj.weight",                 \
    [BT_LAYER_UP] = MLP "up_proj.weight"
#define QKV_BIAS                                                                                   \
    [BT_LAYER_Q_BIAS] = ATTN "q_proj.bias", [BT_LAYER_K_BIAS] = ATTN "k_proj.bias",                \
    [BT_LAYER_V_BIAS] = ATTN "v_proj.bias"
#define O_BIAS [BT_LAYER_O_BIAS] = ATTN "o_proj.bias"
#define MLP_BIAS                                                                                   \
    [BT_LAYER_GATE_BIAS] = MLP "gate_proj.bias", [BT_LAYER_UP_BIAS] = MLP "up_proj.bias",          \
    [BT_LAYER_DOWN_BIAS] = MLP "down_proj.bias"
#define QK_NORM [BT_LAYER_Q_NORM] = ATTN "q_norm.weight", [BT_LAYER_K_NORM] = ATTN "k_norm.weight"
#define FUSED_INPUTS                                                                               \
    [BT_LAYER_Q] = ATTN "qkv_proj.weight", [BT_LAYER_K] = ATTN "qkv_proj.weight",                  \
    [BT_LAYER_V] = ATTN "qkv_proj.weight", [BT_LAYER_GATE] = MLP "gate_up_proj.weight",            \
    [BT_LAYER_UP] = MLP "gate_up_proj.weight"

/* clang-format off */
const bt_arch bt_archs[] = {
    {.name = "LlamaForCausalLM", OUTER,
     .layer = {NORMS, INPUTS, OUTPUTS, QKV_BIAS, O_BIAS, MLP_BIAS}},
    {.name = "MistralForCausalLM", OUTER,
     .layer = {NORMS, INPUTS, OUTPUTS}},
    {.name = "Qwen2ForCausalLM", OUTER,
     .layer = {NORMS, INPUTS, OUTPUTS, QKV_BIAS}},
    {.name = "Qwen3ForCausalLM", OUTER,
     .layer = {NORMS, INPUTS, OUTPUTS, QKV_BIAS, O_BIAS, QK_NORM}},
    {.name = "Phi3ForCausalLM", OUTER,
     .layer = {NORMS, FUSED_INPUTS, OUTPUTS}},
    {.name = "SmolLM3ForCausalLM", OUTER,
     .layer = {NORMS, INPUTS, OUTPUTS, QKV_BIAS, O_BIAS, MLP_BIAS}},
};
/* clang-format on */

const unsigned bt_arch_count = sizeof(bt_archs) / sizeof(bt_archs[0]);

static const bt_arch *find_arch(const char *name)
{
    for (unsigned i = 0; i < bt_arch_count; i++)
        if (strcmp(bt_archs[i].name, name) == 0) return &bt_archs[i];
    return NULL;
}

/* columns of 0 is a vector. */
static bt_status bind(const bt_model *model, const char *name, uint64_t rows, uint64_t columns,
                      bt_tensor *ret_tensor, bt_err *err)
{
    const uint64_t shape[4] = {rows, columns};
    bt_tensor tensor;
    bt_status status = bt_model_tensor(model, name, columns ? 2 : 1, shape, &tensor, err);
    if (status != BT_OK) return status;
    if (tensor.dtype != BT_DTYPE_F32 && tensor.dtype != BT_DTYPE_F16 &&
        tensor.dtype != BT_DTYPE_BF16)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%s/%s: weights of %s are not supported",
                       bt_model_dir(model), name, bt_dtype_name(tensor.dtype));
    *ret_tensor = tensor;
    return BT_OK;
}

/* Rows and columns of each slot; columns of 0 is a vector, rows of 0 what the model does not have. */
static void layer_shapes(const bt_model_config *c, uint64_t ret_shapes[BT_LAYER_TENSORS][2])
{
    uint64_t q = (uint64_t)c->q_heads * c->head_dim, kv = (uint64_t)c->kv_heads * c->head_dim;
    uint64_t qk_norm = c->qk_norm ? c->head_dim : 0, mlp_bias = c->mlp_bias ? c->mlp : 0;
    const uint64_t shapes[BT_LAYER_TENSORS][2] = {
        [BT_LAYER_ATTN_NORM] = {c->hidden, 0},
        [BT_LAYER_Q] = {q, c->hidden},
        [BT_LAYER_K] = {kv, c->hidden},
        [BT_LAYER_V] = {kv, c->hidden},
        [BT_LAYER_O] = {c->hidden, q},
        [BT_LAYER_MLP_NORM] = {c->hidden, 0},
        [BT_LAYER_GATE] = {c->mlp, c->hidden},
        [BT_LAYER_UP] = {c->mlp, c->hidden},
        [BT_LAYER_DOWN] = {c->hidden, c->mlp},
        [BT_LAYER_Q_BIAS] = {c->qkv_bias ? q : 0, 0},
        [BT_LAYER_K_BIAS] = {c->qkv_bias ? kv : 0, 0},
        [BT_LAYER_V_BIAS] = {c->qkv_bias ? kv : 0, 0},
        [BT_LAYER_O_BIAS] = {c->o_bias ? c->hidden : 0, 0},
        [BT_LAYER_GATE_BIAS] = {mlp_bias, 0},
        [BT_LAYER_UP_BIAS] = {mlp_bias, 0},
        [BT_LAYER_DOWN_BIAS] = {c->mlp_bias ? c->hidden : 0, 0},
        [BT_LAYER_Q_NORM] = {qk_norm, 0},
        [BT_LAYER_K_NORM] = {qk_norm, 0},
    };
    memcpy(ret_shapes, shapes, sizeof(shapes));
}

/* The tensor of a slot: a whole one, or its rows of one that it shares with other slots. */
static bt_status bind_slot(const bt_model *model, const bt_arch *arch, int slot, uint32_t layer,
                           bt_tensor *ret_tensor, bt_err *err)
{
    uint64_t shapes[BT_LAYER_TENSORS][2], rows = 0, first = 0;
    layer_shapes(bt_model_config_of(model), shapes);
    if (shapes[slot][0] == 0) return BT_OK;
    if (!arch->layer[slot])
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%s: a bias or norm that %s does not have",
                       bt_model_dir(model), arch->name);
    for (int i = 0; i < BT_LAYER_TENSORS; i++) {
        if (!arch->layer[i] || strcmp(arch->layer[i], arch->layer[slot]) != 0) continue;
        if (i < slot) first += shapes[i][0];
        rows += shapes[i][0];
    }
    char name[128];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, sizeof(name), arch->layer[slot], layer); /* a format of the table above */
#pragma GCC diagnostic pop
    bt_tensor tensor;
    bt_status status = bind(model, name, rows, shapes[slot][1], &tensor, err);
    if (status != BT_OK) return status;
    uint64_t columns = shapes[slot][1] ? shapes[slot][1] : 1;
    tensor.data = (const uint8_t *)tensor.data + first * columns * bt_dtype_bytes(tensor.dtype);
    tensor.shape[0] = shapes[slot][0];
    *ret_tensor = tensor;
    return BT_OK;
}

static bt_status bind_all(const bt_model *model, const bt_arch *arch, bt_weights *weights,
                          bt_err *err)
{
    const bt_model_config *c = bt_model_config_of(model);
    bt_status status = bind(model, arch->embedding, c->vocab, c->hidden, &weights->embedding, err);
    if (status != BT_OK) return status;
    status = bind(model, arch->norm, c->hidden, 0, &weights->norm, err);
    if (status != BT_OK) return status;
    weights->head = weights->embedding;
    if (!c->tied_embeddings) {
        status = bind(model, arch->head, c->vocab, c->hidden, &weights->head, err);
        if (status != BT_OK) return status;
    }
    for (uint32_t layer = 0; layer < c->layers; layer++) {
        for (int slot = 0; slot < BT_LAYER_TENSORS; slot++) {
            bt_tensor *tensor = &weights->layers[layer].tensor[slot];
            status = bind_slot(model, arch, slot, layer, tensor, err);
            if (status != BT_OK) return status;
        }
    }
    return BT_OK;
}

/* What the kernels ask of shapes beyond what a config.json may say. */
static bt_status check_shapes(const bt_model *model, bt_err *err)
{
    const bt_model_config *m = bt_model_config_of(model);
    if (m->head_dim == 0 || m->head_dim % 8 != 0 || m->head_dim > BT_HEAD_DIM_MAX)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%s: head_dim %u: allowed are multiples of 8 up to %u",
                       bt_model_dir(model), m->head_dim, BT_HEAD_DIM_MAX);
    if (m->kv_heads == 0 || m->q_heads % m->kv_heads != 0 || m->layers == 0 || m->vocab == 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%s: %u query heads cannot share %u KV heads",
                       bt_model_dir(model), m->q_heads, m->kv_heads);
    return BT_OK;
}

bt_status bt_weights_bind(const bt_model *model, bt_weights *ret_weights, bt_err *err)
{
    const bt_model_config *c = bt_model_config_of(model);
    const bt_arch *arch = find_arch(c->architecture);
    if (!arch)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%s: architecture %s is not supported",
                       bt_model_dir(model), c->architecture);
    bt_status status = check_shapes(model, err);
    if (status != BT_OK) return status;
    bt_weights weights = {.layers = calloc(c->layers, sizeof(bt_layer))};
    if (!weights.layers) return BT_FAIL(err, BT_ERR_NO_MEMORY, "table of %u layers", c->layers);
    status = bind_all(model, arch, &weights, err);
    if (status != BT_OK) {
        bt_weights_release(&weights);
        return status;
    }
    *ret_weights = weights;
    return BT_OK;
}

void bt_weights_release(bt_weights *weights)
{
    free(weights->layers);
    weights->layers = NULL;
}
