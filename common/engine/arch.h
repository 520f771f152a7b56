/* arch.h - model architectures as rows, and a checkpoint's tensors bound to the decoder graph.
 *
 * One graph serves the Llama family; a row says where its tensors are, and so which options it can
 * have: a bias or a norm of q and k that the row does not name is one it never has. Which of them a
 * model has says its config (common/weights/family.h). Slots of a row with the same name are one
 * tensor in the file, whose rows are theirs in the order of the slots (Phi-3's qkv_proj).
 * ADD ONE: a row here and one in common/weights/family.c. */
#ifndef BT_COMMON_ENGINE_ARCH_H
#define BT_COMMON_ENGINE_ARCH_H

#include "common/weights/model.h"

/* The matrices and vectors of one layer. */
enum {
    BT_LAYER_ATTN_NORM,
    BT_LAYER_Q,
    BT_LAYER_K,
    BT_LAYER_V,
    BT_LAYER_O,
    BT_LAYER_MLP_NORM,
    BT_LAYER_GATE,
    BT_LAYER_UP,
    BT_LAYER_DOWN,
    BT_LAYER_Q_BIAS,
    BT_LAYER_K_BIAS,
    BT_LAYER_V_BIAS,
    BT_LAYER_O_BIAS,
    BT_LAYER_GATE_BIAS,
    BT_LAYER_UP_BIAS,
    BT_LAYER_DOWN_BIAS,
    BT_LAYER_Q_NORM, /* [head_dim], of every head */
    BT_LAYER_K_NORM,
    BT_LAYER_TENSORS
};

typedef struct {
    const char *name; /* of config.json's "architectures" */
    const char *embedding, *norm, *head;
    const char *layer[BT_LAYER_TENSORS]; /* with %u for the layer; NULL: it never has one */
} bt_arch;

typedef struct {
    bt_tensor tensor[BT_LAYER_TENSORS]; /* data NULL: the model has none */
} bt_layer;

typedef struct {
    bt_tensor embedding; /* [vocab][hidden] */
    bt_tensor norm;      /* [hidden] */
    bt_tensor head;      /* [vocab][hidden]; the embedding if tied */
    bt_layer *layers;    /* owned */
} bt_weights;

extern const bt_arch bt_archs[];
extern const unsigned bt_arch_count;

/* Finds the model's row and every tensor it names, with its exact shape and a dtype the kernels
 * read (f32, f16, bf16). The tensors stay in the model's file mapping. Errors: ERR_ARGUMENT
 * (architecture, head_dim or dtype we do not run), ERR_FORMAT (a tensor is missing or has another
 * shape). */
bt_status bt_weights_bind(const bt_model *model, bt_weights *ret_weights, bt_err *err);
void bt_weights_release(bt_weights *weights);

#endif
