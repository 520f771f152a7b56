#include "common/engine/arch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LLAMA_TENSORS                                                                              \
    .embedding = "model.embed_tokens.weight", .norm = "model.norm.weight",                         \
    .head = "lm_head.weight",                                                                      \
    .layer = {                                                                                     \
        [BT_LAYER_ATTN_NORM] = "model.layers.%u.input_layernorm.weight",                           \
        [BT_LAYER_Q] = "model.layers.%u.self_attn.q_proj.weight",                                  \
        [BT_LAYER_K] = "model.layers.%u.self_attn.k_proj.weight",                                  \
        [BT_LAYER_V] = "model.layers.%u.self_attn.v_proj.weight",                                  \
        [BT_LAYER_O] = "model.layers.%u.self_attn.o_proj.weight",                                  \
        [BT_LAYER_MLP_NORM] = "model.layers.%u.post_attention_layernorm.weight",                   \
        [BT_LAYER_GATE] = "model.layers.%u.mlp.gate_proj.weight",                                  \
        [BT_LAYER_UP] = "model.layers.%u.mlp.up_proj.weight",                                      \
        [BT_LAYER_DOWN] = "model.layers.%u.mlp.down_proj.weight",                                  \
    }

const bt_arch bt_archs[] = {
    {.name = "LlamaForCausalLM", LLAMA_TENSORS},
    {.name = "MistralForCausalLM", LLAMA_TENSORS}, /* an active sliding window ends in model_open */
};

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

static bt_status bind_layer(const bt_model *model, const bt_arch *arch, uint32_t layer,
                            bt_layer *ret_layer, bt_err *err)
{
    const bt_model_config *c = bt_model_config_of(model);
    uint64_t q = (uint64_t)c->q_heads * c->head_dim, kv = (uint64_t)c->kv_heads * c->head_dim;
    const uint64_t shapes[BT_LAYER_TENSORS][2] = {
        [BT_LAYER_ATTN_NORM] = {c->hidden, 0}, [BT_LAYER_Q] = {q, c->hidden},
        [BT_LAYER_K] = {kv, c->hidden},        [BT_LAYER_V] = {kv, c->hidden},
        [BT_LAYER_O] = {c->hidden, q},         [BT_LAYER_MLP_NORM] = {c->hidden, 0},
        [BT_LAYER_GATE] = {c->mlp, c->hidden}, [BT_LAYER_UP] = {c->mlp, c->hidden},
        [BT_LAYER_DOWN] = {c->hidden, c->mlp},
    };
    for (int i = 0; i < BT_LAYER_TENSORS; i++) {
        char name[128];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(name, sizeof(name), arch->layer[i], layer); /* a format of the table above */
#pragma GCC diagnostic pop
        bt_status status =
            bind(model, name, shapes[i][0], shapes[i][1], &ret_layer->tensor[i], err);
        if (status != BT_OK) return status;
    }
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
        status = bind_layer(model, arch, layer, &weights->layers[layer], err);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

bt_status bt_weights_bind(const bt_model *model, bt_weights *ret_weights, bt_err *err)
{
    const bt_model_config *c = bt_model_config_of(model);
    const bt_arch *arch = find_arch(c->architecture);
    if (!arch)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%s: architecture %s is not supported",
                       bt_model_dir(model), c->architecture);
    bt_weights weights = {.layers = calloc(c->layers, sizeof(bt_layer))};
    if (!weights.layers) return BT_FAIL(err, BT_ERR_NO_MEMORY, "table of %u layers", c->layers);
    bt_status status = bind_all(model, arch, &weights, err);
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
