/* engine.h - the narrow waist: a loaded model and its paged KV pool behind submit and poll.
 *
 * WHAT    Runs batches of sequences through the decoder and samples. Knows blocks and tokens; not
 *         requests, sockets, leases or who owns a block: block tables come from the caller
 *         (common/kv/pool.h does the accounting).
 * FLOW    create -> (submit -> LAYER_DONE events -> TOKEN events -> BATCH_DONE)* -> destroy
 * THREAD  submit, poll, pack, unpack: the thread that created it. One engine thread (plus workers)
 *         computes. wake is called from the engine thread whenever poll has something new.
 * ORDER   One batch is in flight at a time, from submit until its BATCH_DONE was polled; submit
 *         answers AGAIN meanwhile. Results of a batch: LAYER_DONE 0 .. L-1, SCORES for each scored
 *         sequence, TOKEN for each sampled one, in the batch's order, BATCH_DONE.
 * VALUES  A row's result depends on its tokens, position, weights and KV dtype only: never on
 *         batch, chunk, block size or thread count. Attention reads K and V as the pool stores
 *         them, the current chunk's own included.
 * MEMORY  All of it is taken in create.
 * ADD ONE Backends are rows of common/engine/registry.c: "cpu", its oracle "cpu-ref" over the
 *         reference kernels; "cuda" later. */
#ifndef BT_COMMON_ENGINE_ENGINE_H
#define BT_COMMON_ENGINE_ENGINE_H

#include "common/base/sampling.h"
#include "common/base/status.h"
#include "common/kv/wire.h"
#include "common/weights/model.h"
#include "kernels/kv.h"
#include "kernels/linear/linear.h"

typedef struct bt_engine bt_engine;

typedef struct {
    const char *backend;   /* "cpu" */
    bt_dtype kv_dtype;     /* NONE = the backend's default (cpu: F32 for F32 weights, else BF16) */
    uint32_t block_tokens; /* 16, 32, 64 */
    uint32_t pool_blocks;
    uint32_t batch_seqs_max;
    uint32_t batch_tokens_max;
    uint32_t context_tokens_max; /* 0 = the model's */
    uint32_t threads;            /* 0 = one for each core */
    bt_compute compute;          /* of matrix products; weights are held in what it needs */
    const char *kernels;         /* cpu: a row of kernels/dispatch.h; NULL = the best that runs */
} bt_engine_config;

typedef struct {
    uint32_t handle;        /* the caller's name for the sequence, given back in events */
    uint32_t position;      /* tokens of it already in the pool */
    uint32_t token_count;   /* new tokens of this batch: 1 for decode, a chunk for prefill */
    const uint32_t *tokens; /* [token_count] */
    const uint32_t *blocks; /* table covering position + token_count tokens */
    uint32_t block_count;
    bool sample; /* sample after the last of these tokens */
    /* The random number is a function of (seed, position of the sampled token). Its rows of
     * logit_bias, and history, are not copied: the caller keeps them until BATCH_DONE was polled. */
    bt_sampling sampling;
    const uint32_t *history; /* [position + token_count] all tokens so far, these included; may be
                                NULL unless bt_sampling_needs_history */
    uint32_t prompt_count;   /* of those, the prompt; the rest is output */
    /* To score: the token that follows each of the first score_count of `tokens`; its logprob, and
     * sampling.top_logprobs alternatives, come in one SCORES event. Not copied either. */
    const uint32_t *score_next; /* [score_count] */
    uint32_t score_count;       /* 0 = no scores; <= token_count */
} bt_engine_seq;

typedef struct {
    uint64_t batch; /* the caller's name, given back in events */
    uint32_t seq_count;
    const bt_engine_seq
        *seqs; /* copied by submit, with tokens and tables; not what sampling needs */
} bt_engine_batch;

typedef enum {
    BT_ENGINE_LAYER_DONE,
    BT_ENGINE_SCORES,
    BT_ENGINE_TOKEN,
    BT_ENGINE_BATCH_DONE
} bt_engine_event_kind;

typedef struct {
    bt_engine_event_kind kind;
    uint64_t batch;
    uint32_t
        layer; /* LAYER_DONE: this layer's KV of every sequence of the batch is final in the pool */
    uint32_t handle;        /* SCORES, TOKEN */
    const bt_token *scores; /* SCORES, if status is OK: [score_count] of the sequence, the engine's
                               memory, until the next submit */
    uint32_t score_count;   /* SCORES */
    bt_token token;         /* TOKEN, if status is OK */
    bt_status status;       /* BATCH_DONE: OK, or why the batch failed (then no TOKEN is valid).
                            SCORES, TOKEN: OK, or ERR_FORMAT: the model makes no finite logits for this
                            sequence; the others of its batch are fine */
    uint64_t time_ns;       /* monotonic, when it happened on the engine thread */
    uint64_t started_ns;    /* BATCH_DONE: when the engine began the batch */
} bt_engine_event;

bt_status bt_engine_create(const bt_model *model, const bt_engine_config *config,
                           bt_engine **ret_engine, bt_err *err);
void bt_engine_destroy(bt_engine *engine);
void bt_engine_on_wake(bt_engine *engine, void (*wake)(void *arg), void *arg);

/* AGAIN while a batch is in flight. ERR_ARGUMENT for what a caller may get wrong from outside
 * (token id >= vocabulary, position + count beyond the context, too many tokens). */
bt_status bt_engine_submit(bt_engine *engine, const bt_engine_batch *batch, bt_err *err);
uint32_t bt_engine_poll(bt_engine *engine, bt_engine_event *ret_events, uint32_t capacity);
/* Blocks until poll has something; for tools without a loop. */
void bt_engine_wait(bt_engine *engine);

const bt_kv_view *bt_engine_kv(const bt_engine *engine);

/* Logits [vocab] of a sequence that sampled in the last batch, NULL if it did not. Valid from its
 * TOKEN event to the next submit. */
const float *bt_engine_logits(const bt_engine *engine, uint32_t handle);

/* Pool <-> wire, on memory the engine can reach. OK = done on return (cpu); IN_PROGRESS = poll
 * `ret_digest` owner later (cuda, later). See common/kv/wire.h for the meaning of the arguments. */
bt_status bt_engine_pack(bt_engine *engine, const bt_wire_shape *wire, const bt_frame *frame,
                         const uint32_t *blocks, const uint8_t key[BT_KEY_BYTES], void *dst,
                         bt_kv_digest *ret_digest, bt_err *err);
bt_status bt_engine_unpack(bt_engine *engine, const bt_wire_shape *wire, const bt_frame *frame,
                           const uint32_t *blocks, const uint8_t key[BT_KEY_BYTES], const void *src,
                           bt_kv_digest *ret_digest, bt_err *err);

/* Relative L2 distance of the KV of token_count tokens under table a and under table b,
 * dequantized, for each part, layer and head; the worst is returned. The pairing probe compares D's
 * own KV with what came from P. error = ||a - b|| / ||a||  over [token_count][head_dim] */
void bt_engine_kv_distance(bt_engine *engine, const uint32_t *blocks_a, const uint32_t *blocks_b,
                           uint32_t token_count, bt_kv_part *ret_part, uint32_t *ret_layer,
                           uint32_t *ret_head, double *ret_error);

#endif
