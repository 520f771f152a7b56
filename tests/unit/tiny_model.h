/* tiny_model.h - a checkpoint folder with random weights, small enough for a unit test: GQA, a head
 * dim and an MLP that fill no vector, F32, F16 or BF16, tied or not. */
#ifndef BT_TESTS_UNIT_TINY_MODEL_H
#define BT_TESTS_UNIT_TINY_MODEL_H

#include "common/base/rng.h"
#include "common/weights/model.h"
#include "kernels/numerics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TINY_HIDDEN = 40,
    TINY_LAYERS = 3,
    TINY_Q_HEADS = 4,
    TINY_KV_HEADS = 2,
    TINY_HEAD_DIM = 16,
    TINY_MLP = 52,
    TINY_VOCAB = 101,
    TINY_CONTEXT = 256,
    TINY_EOS = 2,
    TINY_TENSORS_MAX = 3 + 9 * TINY_LAYERS
};

typedef struct {
    uint64_t seed;
    bt_dtype dtype;
    bool tied;
    bool broken;           /* a NaN in the last norm */
    uint32_t broken_token; /* a NaN in the embedding of this one; 0 = of none */
} tiny_options;

typedef struct {
    char name[80];
    uint32_t rows, columns; /* columns 0: a vector */
} tiny_tensor;

static inline uint32_t tiny_tensors(bool tied, tiny_tensor ret[TINY_TENSORS_MAX])
{
    static const struct {
        const char *name;
        uint32_t rows, columns;
    } layer[] = {
        {"input_layernorm", TINY_HIDDEN, 0},
        {"self_attn.q_proj", TINY_Q_HEADS * TINY_HEAD_DIM, TINY_HIDDEN},
        {"self_attn.k_proj", TINY_KV_HEADS * TINY_HEAD_DIM, TINY_HIDDEN},
        {"self_attn.v_proj", TINY_KV_HEADS * TINY_HEAD_DIM, TINY_HIDDEN},
        {"self_attn.o_proj", TINY_HIDDEN, TINY_Q_HEADS * TINY_HEAD_DIM},
        {"post_attention_layernorm", TINY_HIDDEN, 0},
        {"mlp.gate_proj", TINY_MLP, TINY_HIDDEN},
        {"mlp.up_proj", TINY_MLP, TINY_HIDDEN},
        {"mlp.down_proj", TINY_HIDDEN, TINY_MLP},
    };
    uint32_t count = 0;
    ret[count++] = (tiny_tensor){"model.embed_tokens.weight", TINY_VOCAB, TINY_HIDDEN};
    if (!tied) ret[count++] = (tiny_tensor){"lm_head.weight", TINY_VOCAB, TINY_HIDDEN};
    for (uint32_t l = 0; l < TINY_LAYERS; l++) {
        for (size_t i = 0; i < sizeof(layer) / sizeof(layer[0]); i++) {
            tiny_tensor *t = &ret[count++];
            *t = (tiny_tensor){.rows = layer[i].rows, .columns = layer[i].columns};
            snprintf(t->name, sizeof(t->name), "model.layers.%u.%s.weight", l, layer[i].name);
        }
    }
    ret[count++] = (tiny_tensor){"model.norm.weight", TINY_HIDDEN, 0};
    return count;
}

static inline void tiny_write_weights(FILE *file, const tiny_options *o)
{
    tiny_tensor tensors[TINY_TENSORS_MAX];
    static char header[16384];
    uint32_t count = tiny_tensors(o->tied, tensors);
    size_t used = 0, offset = 0, element = bt_dtype_bytes(o->dtype);
    const char *dtype = o->dtype == BT_DTYPE_F32   ? "F32"
                        : o->dtype == BT_DTYPE_F16 ? "F16"
                                                   : "BF16";
    bt_rng rng;
    bt_rng_init(&rng, o->seed);
    for (uint32_t i = 0; i < count; i++) {
        const tiny_tensor *t = &tensors[i];
        char shape[32];
        size_t bytes = (size_t)t->rows * (t->columns ? t->columns : 1) * element;
        snprintf(shape, sizeof(shape), t->columns ? "%u,%u" : "%u", t->rows, t->columns);
        used += (size_t)snprintf(
            header + used, sizeof(header) - used,
            "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", i ? "," : "{",
            t->name, dtype, shape, offset, offset + bytes);
        offset += bytes;
    }
    used += (size_t)snprintf(header + used, sizeof(header) - used, "}");
    while (used % 8) header[used++] = ' ';
    uint64_t header_bytes = used;
    fwrite(&header_bytes, 8, 1, file);
    fwrite(header, 1, used, file);
    for (uint32_t i = 0; i < count; i++) {
        const tiny_tensor *t = &tensors[i];
        uint32_t total = t->rows * (t->columns ? t->columns : 1);
        double scale = t->columns ? 1.8 / sqrt(t->columns) : 0.2, base = t->columns ? 0 : 1;
        for (uint32_t j = 0; j < total; j++) {
            float x = (float)(base + scale * (2 * bt_rng_double(&rng) - 1));
            if (o->broken && i + 1 == count) x = NAN;
            if (o->broken_token && i == 0 && j == o->broken_token * TINY_HIDDEN) x = NAN;
            uint16_t half = o->dtype == BT_DTYPE_F16 ? bt_f32_to_f16(x) : bt_f32_to_bf16(x);
            fwrite(o->dtype == BT_DTYPE_F32 ? (void *)&x : (void *)&half, element, 1, file);
        }
    }
}

static inline void tiny_write_config(FILE *file, const tiny_options *o)
{
    fprintf(file,
            "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\","
            "\"hidden_size\":%d,\"intermediate_size\":%d,\"num_hidden_layers\":%d,"
            "\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,"
            "\"vocab_size\":%d,\"max_position_embeddings\":%d,\"rms_norm_eps\":1e-05,"
            "\"rope_theta\":10000.0,\"hidden_act\":\"silu\",\"tie_word_embeddings\":%s,"
            "\"attention_bias\":false,\"mlp_bias\":false,\"bos_token_id\":1,\"eos_token_id\":%d,"
            "\"torch_dtype\":\"%s\"}",
            TINY_HIDDEN, TINY_MLP, TINY_LAYERS, TINY_Q_HEADS, TINY_KV_HEADS, TINY_HEAD_DIM,
            TINY_VOCAB, TINY_CONTEXT, o->tied ? "true" : "false", TINY_EOS,
            o->dtype == BT_DTYPE_F32   ? "float32"
            : o->dtype == BT_DTYPE_F16 ? "float16"
                                       : "bfloat16");
}

/* Writes the folder, opens it and removes its files again: the mapping keeps what it needs. */
static inline bt_model *tiny_model(const tiny_options *o)
{
    char dir[] = "/tmp/baton-tiny-XXXXXX", weights[64], config[64];
    if (!mkdtemp(dir)) abort();
    snprintf(weights, sizeof(weights), "%s/model.safetensors", dir);
    snprintf(config, sizeof(config), "%s/config.json", dir);
    FILE *file = fopen(weights, "wb");
    if (!file) abort();
    tiny_write_weights(file, o);
    fclose(file);
    file = fopen(config, "w");
    if (!file) abort();
    tiny_write_config(file, o);
    fclose(file);
    bt_model *model = NULL;
    bt_err err;
    if (bt_model_open(dir, &model, &err) != BT_OK) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    unlink(weights);
    unlink(config);
    rmdir(dir);
    return model;
}

#endif
