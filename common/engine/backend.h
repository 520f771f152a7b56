/* backend.h - what a kind of device does behind engine.h.
 *
 * engine.c owns the thread, the copy of the batch, all checks of it and the ring of events; a
 * backend only computes. ADD ONE: a file with one `const bt_backend`, one line in registry.c. */
#ifndef BT_COMMON_ENGINE_BACKEND_H
#define BT_COMMON_ENGINE_BACKEND_H

#include "common/engine/engine.h"

/* Where a backend reports from inside run, on the engine thread. */
typedef struct {
    void (*layer_done)(void *arg, uint32_t layer);
    /* token is NULL if the logits of that sequence are broken (bt_sample). */
    void (*token)(void *arg, uint32_t seq, const bt_token *token);
    /* The same, [score_count] of the sequence; in the backend's memory until the next run. */
    void (*scores)(void *arg, uint32_t seq, const bt_token *scores);
    void *arg;
} bt_backend_sink;

typedef struct {
    const char *name;

    /* config is complete: no field means "default" any more. All memory is taken here. */
    bt_status (*create)(const bt_model *model, const bt_engine_config *config, void **ret_self,
                        bt_err *err);
    void (*destroy)(void *self);
    bt_dtype (*kv_dtype_default)(const bt_model_config *model);
    const bt_kv_view *(*kv)(const void *self);

    /* Computes one checked batch: layer_done for each layer in order, then a token for each
     * sequence that samples. A failure is reported instead of, or after, some tokens. */
    bt_status (*run)(void *self, const bt_engine_batch *batch, const bt_backend_sink *sink);

    /* Logits [vocab] of the n-th sampled sequence of the last batch, in memory a CPU can read. */
    const float *(*logits)(const void *self, uint32_t sampled);
} bt_backend;

extern const bt_backend *const bt_backends[];
extern const unsigned bt_backend_count;

#endif
