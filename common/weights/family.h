/* family.h - the families of models as rows: how each one's config.json is read, and which ones are
 * known and refused.
 *
 * A row says what the family always has, which members it reads, and what an absent member means,
 * as the family's class in Hugging Face transformers has it. Where its tensors are says a row of
 * common/engine/arch.c. ADD ONE: a row in both; an option of the decoder that is new is a field
 * here, one of bt_model_config, and a step of the backends. */
#ifndef BT_COMMON_WEIGHTS_FAMILY_H
#define BT_COMMON_WEIGHTS_FAMILY_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    BT_WINDOW_NEVER,    /* a window is refused: transformers ignores it, others do not */
    BT_WINDOW_GIVEN,    /* sliding_window is the window of every layer */
    BT_WINDOW_SWITCHED, /* use_sliding_window switches it on, from layer max_window_layers on */
    BT_WINDOW_NO_ROPE,  /* use_sliding_window switches it on, in the layers without RoPE */
} bt_window_rule;

typedef struct {
    const char *architecture; /* of config.json's "architectures" */
    const char *model_type;
    bool qkv_bias;       /* always */
    bool attention_bias; /* reads attention_bias: of q, k, v and o */
    bool mlp_bias;       /* reads mlp_bias */
    bool qk_norm;        /* q and k of each head are normalized before RoPE */
    bool no_rope_layers; /* reads no_rope_layers and no_rope_layer_interval */
    bt_window_rule window_rule;

    /* Of members that are absent: */
    uint32_t window;   /* 0 = none */
    uint32_t kv_heads; /* 0 = as many as query heads */
    uint32_t head_dim; /* 0 = hidden_size / heads */
    double rope_theta, rms_eps;
    bool tied;
} bt_family;

/* By the architecture's name; by the model type if architecture is NULL. NULL if not one we run. */
const bt_family *bt_family_find(const char *architecture, const char *model_type);

/* Why a name that we do not run is refused, NULL if nothing is known about it. */
const char *bt_family_refusal(const char *architecture, const char *model_type);

#endif
