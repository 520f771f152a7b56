/* engine.c - the owner's side of the engine and its thread; what computes is a backend.
 *
 * OWNS    A copy of the batch in flight, the ring of its events, the engine thread.
 * RING    One writer (engine thread), one reader (owner). A batch makes at most layers + 2 sequences
 *         + 1 events and the next one is refused until BATCH_DONE was polled, so the ring holds a
 *         batch and is never full.
 * MEMORY  Everything is allocated in create. */
#include "common/engine/engine.h"

#include "common/base/arena.h"
#include "common/base/clock.h"
#include "common/engine/backend.h"
#include "common/engine/futex.h"
#include "kernels/numerics.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_SEQS_MAX 4096u
#define BATCH_TOKENS_MAX 65536u

struct bt_engine {
    const bt_backend *backend;
    void *self; /* the backend's */
    bt_engine_config config;
    bt_model_config model;
    void *memory; /* of the arena that holds the arrays below */

    bt_engine_batch batch; /* seqs, tokens and tables point to the copies */
    bt_engine_seq *seqs;
    uint32_t *tokens; /* [batch_tokens_max] */
    uint32_t *blocks; /* [batch_seqs_max][table_blocks_max] */
    uint32_t table_blocks_max;
    bool in_flight; /* the owner's view: from submit until BATCH_DONE was polled */

    bt_engine_event *ring;
    uint32_t ring_capacity;
    _Atomic uint32_t written; /* events ever written; the reader's futex */
    _Atomic uint32_t reader_sleeps;
    uint32_t read;

    void (*wake)(void *arg);
    void *wake_arg;

    pthread_t thread;
    bool started;
    _Atomic uint32_t submitted; /* batches ever submitted; the engine thread's futex */
    _Atomic bool stopping;
};

/* --- the engine thread --- */

static void push(bt_engine *engine, const bt_engine_event *event)
{
    uint32_t at = atomic_load_explicit(&engine->written, memory_order_relaxed);
    bt_engine_event *slot = &engine->ring[at % engine->ring_capacity];
    *slot = *event;
    slot->batch = engine->batch.batch;
    slot->time_ns = bt_monotonic_ns();
    atomic_store(&engine->written, at + 1);
    if (atomic_load(&engine->reader_sleeps)) bt_futex_wake(&engine->written, 1);
    if (engine->wake) engine->wake(engine->wake_arg);
}

static void on_layer_done(void *arg, uint32_t layer)
{
    push(arg, &(bt_engine_event){.kind = BT_ENGINE_LAYER_DONE, .layer = layer});
}

static void on_token(void *arg, uint32_t seq, const bt_token *token)
{
    bt_engine *engine = arg;
    bt_engine_event event = {.kind = BT_ENGINE_TOKEN,
                             .handle = engine->seqs[seq].handle,
                             .status = token ? BT_OK : BT_ERR_FORMAT};
    if (token) event.token = *token;
    push(engine, &event);
}

static void on_scores(void *arg, uint32_t seq, const bt_token *scores)
{
    bt_engine *engine = arg;
    push(engine, &(bt_engine_event){.kind = BT_ENGINE_SCORES,
                                    .handle = engine->seqs[seq].handle,
                                    .scores = scores,
                                    .score_count = engine->seqs[seq].score_count,
                                    .status = scores ? BT_OK : BT_ERR_FORMAT});
}

static void *engine_main(void *arg)
{
    bt_engine *engine = arg;
    const bt_backend_sink sink = {
        .layer_done = on_layer_done, .token = on_token, .scores = on_scores, .arg = engine};
    uint32_t seen = 0;
    for (;;) {
        while (atomic_load(&engine->submitted) == seen) bt_futex_wait(&engine->submitted, seen);
        if (atomic_load(&engine->stopping)) return NULL;
        seen++;
        uint64_t started_ns = bt_monotonic_ns();
        bt_status status = engine->backend->run(engine->self, &engine->batch, &sink);
        push(engine, &(bt_engine_event){
                         .kind = BT_ENGINE_BATCH_DONE, .status = status, .started_ns = started_ns});
    }
}

/* --- create and destroy --- */

static const bt_backend *find_backend(const char *name)
{
    for (unsigned i = 0; i < bt_backend_count; i++)
        if (strcmp(bt_backends[i]->name, name) == 0) return bt_backends[i];
    return NULL;
}

/* Checks what an operator may have configured and fills in the defaults. */
static bt_status complete_config(const bt_backend *backend, const bt_model_config *model,
                                 bt_engine_config *config, bt_err *err)
{
    if (config->kv_dtype == BT_DTYPE_NONE) config->kv_dtype = backend->kv_dtype_default(model);
    if (config->context_tokens_max == 0) config->context_tokens_max = model->context_tokens_max;
    if (config->kv_dtype != BT_DTYPE_F32 && config->kv_dtype != BT_DTYPE_BF16 &&
        !bt_dtype_scaled(config->kv_dtype))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "KV dtype %s: allowed are f32, bf16, fp8 and int8",
                       bt_dtype_name(config->kv_dtype));
    if (config->block_tokens != 16 && config->block_tokens != 32 && config->block_tokens != 64)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "blocks of %u tokens: allowed are 16, 32 and 64",
                       config->block_tokens);
    if (config->context_tokens_max > model->context_tokens_max ||
        config->context_tokens_max > BT_CONTEXT_TOKENS_MAX)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "a context of %u tokens: the model's is %u",
                       config->context_tokens_max, model->context_tokens_max);
    if (config->batch_seqs_max < 1 || config->batch_seqs_max > BATCH_SEQS_MAX)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "batches of %u sequences: allowed are 1 to %u",
                       config->batch_seqs_max, BATCH_SEQS_MAX);
    if (config->batch_tokens_max < 1 || config->batch_tokens_max > BATCH_TOKENS_MAX)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "batches of %u tokens: allowed are 1 to %u",
                       config->batch_tokens_max, BATCH_TOKENS_MAX);
    if ((unsigned)config->compute >= BT_COMPUTE_COUNT)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "there is no compute %d", (int)config->compute);
    if (config->pool_blocks < 1)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "a KV pool needs at least one block");
    return BT_OK;
}

static void carve(bt_engine *engine, bt_arena *arena)
{
    const bt_engine_config *config = &engine->config;
    engine->seqs = BT_ARENA_NEW(arena, bt_engine_seq, config->batch_seqs_max);
    engine->tokens = BT_ARENA_NEW(arena, uint32_t, config->batch_tokens_max);
    engine->blocks =
        BT_ARENA_NEW(arena, uint32_t, (size_t)config->batch_seqs_max * engine->table_blocks_max);
    engine->ring = BT_ARENA_NEW(arena, bt_engine_event, engine->ring_capacity);
}

static bt_status start(bt_engine *engine, const bt_model *model, bt_err *err)
{
    const bt_engine_config *config = &engine->config;
    engine->table_blocks_max =
        (config->context_tokens_max + config->block_tokens - 1) / config->block_tokens;
    engine->ring_capacity = 1;
    while (engine->ring_capacity < engine->model.layers + 2 * config->batch_seqs_max + 1)
        engine->ring_capacity *= 2; /* a power of two, so that positions may wrap */
    bt_arena arena;
    bt_arena_init(&arena, NULL, 0);
    carve(engine, &arena);
    engine->memory = aligned_alloc(BT_ARENA_ALIGN,
                                   (arena.used_bytes + BT_ARENA_ALIGN) & ~(BT_ARENA_ALIGN - 1ul));
    if (!engine->memory)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%zu bytes for batches", arena.used_bytes);
    bt_arena_init(&arena, engine->memory, arena.used_bytes);
    carve(engine, &arena);

    bt_status status = engine->backend->create(model, config, &engine->self, err);
    if (status != BT_OK) return status;
    int error = pthread_create(&engine->thread, NULL, engine_main, engine);
    if (error) return BT_FAIL(err, BT_ERR_OS, "cannot start a thread: %s", strerror(error));
    engine->started = true;
    return BT_OK;
}

bt_status bt_engine_create(const bt_model *model, const bt_engine_config *config,
                           bt_engine **ret_engine, bt_err *err)
{
    const bt_backend *backend = find_backend(config->backend);
    if (!backend) return BT_FAIL(err, BT_ERR_ARGUMENT, "there is no backend '%s'", config->backend);
    bt_engine *engine = calloc(1, sizeof(*engine));
    if (!engine) return BT_FAIL(err, BT_ERR_NO_MEMORY, "an engine");
    engine->backend = backend;
    engine->config = *config;
    engine->model = *bt_model_config_of(model);
    bt_status status = complete_config(backend, &engine->model, &engine->config, err);
    if (status == BT_OK) status = start(engine, model, err);
    if (status != BT_OK) {
        bt_engine_destroy(engine);
        return status;
    }
    *ret_engine = engine;
    return BT_OK;
}

void bt_engine_destroy(bt_engine *engine)
{
    if (!engine) return;
    if (engine->started) {
        atomic_store(&engine->stopping, true);
        atomic_fetch_add(&engine->submitted, 1);
        bt_futex_wake(&engine->submitted, 1);
        pthread_join(engine->thread, NULL);
    }
    if (engine->self) engine->backend->destroy(engine->self);
    free(engine->memory);
    free(engine);
}

void bt_engine_on_wake(bt_engine *engine, void (*wake)(void *arg), void *arg)
{
    assert(!engine->in_flight);
    engine->wake = wake;
    engine->wake_arg = arg;
}

/* --- submit and poll --- */

static void check_tables(const bt_engine *engine, const bt_engine_seq *seq)
{
    uint32_t end = seq->position + seq->token_count;
    uint32_t needed = (end + engine->config.block_tokens - 1) / engine->config.block_tokens;
    assert(seq->block_count >= needed);
    for (uint32_t i = 0; i < needed; i++) assert(seq->blocks[i] < engine->config.pool_blocks);
}

static bt_status check_seq(const bt_engine *engine, const bt_engine_seq *seq, bt_err *err)
{
    uint64_t end = (uint64_t)seq->position + seq->token_count;
    if (seq->token_count == 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "sequence %u has no new tokens", seq->handle);
    if (end > engine->config.context_tokens_max)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "sequence %u: %llu tokens, the context is %u",
                       seq->handle, (unsigned long long)end, engine->config.context_tokens_max);
    for (uint32_t i = 0; i < seq->token_count; i++)
        if (seq->tokens[i] >= engine->model.vocab)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "token id %u: the vocabulary has %u",
                           seq->tokens[i], engine->model.vocab);
    for (uint32_t i = 0; i < seq->score_count; i++)
        if (seq->score_next[i] >= engine->model.vocab)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "token id %u: the vocabulary has %u",
                           seq->score_next[i], engine->model.vocab);
    assert(seq->score_count <= seq->token_count);
    if (!seq->sample && seq->score_count == 0) return BT_OK;
    const char *fault = bt_sampling_fault(&seq->sampling, engine->model.vocab);
    if (fault)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "sequence %u: %s is out of range", seq->handle, fault);
    assert(!seq->sample || seq->prompt_count <= end); /* a chunk before may end in the prompt */
    assert(!seq->sample || seq->history || !bt_sampling_needs_history(&seq->sampling));
    return BT_OK;
}

static bt_status check_batch(const bt_engine *engine, const bt_engine_batch *batch, bt_err *err)
{
    uint64_t tokens = 0;
    if (batch->seq_count == 0 || batch->seq_count > engine->config.batch_seqs_max)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "a batch of %u sequences: allowed are 1 to %u",
                       batch->seq_count, engine->config.batch_seqs_max);
    for (uint32_t i = 0; i < batch->seq_count; i++) {
        bt_status status = check_seq(engine, &batch->seqs[i], err);
        if (status != BT_OK) return status;
        check_tables(engine, &batch->seqs[i]);
        tokens += batch->seqs[i].token_count;
    }
    if (tokens > engine->config.batch_tokens_max)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "a batch of %llu tokens: at most %u",
                       (unsigned long long)tokens, engine->config.batch_tokens_max);
    return BT_OK;
}

bt_status bt_engine_submit(bt_engine *engine, const bt_engine_batch *batch, bt_err *err)
{
    if (engine->in_flight) return BT_AGAIN;
    bt_status status = check_batch(engine, batch, err);
    if (status != BT_OK) return status;
    uint32_t used = 0;
    for (uint32_t i = 0; i < batch->seq_count; i++) {
        bt_engine_seq *seq = &engine->seqs[i];
        uint32_t *table = engine->blocks + (size_t)i * engine->table_blocks_max;
        *seq = batch->seqs[i];
        if (seq->block_count > engine->table_blocks_max)
            seq->block_count = engine->table_blocks_max;
        memcpy(engine->tokens + used, seq->tokens, seq->token_count * sizeof(uint32_t));
        memcpy(table, seq->blocks, seq->block_count * sizeof(uint32_t));
        seq->tokens = engine->tokens + used;
        seq->blocks = table;
        used += seq->token_count;
    }
    engine->batch = (bt_engine_batch){
        .batch = batch->batch, .seq_count = batch->seq_count, .seqs = engine->seqs};
    engine->in_flight = true;
    atomic_fetch_add(&engine->submitted, 1);
    bt_futex_wake(&engine->submitted, 1);
    return BT_OK;
}

uint32_t bt_engine_poll(bt_engine *engine, bt_engine_event *ret_events, uint32_t capacity)
{
    uint32_t written = atomic_load_explicit(&engine->written, memory_order_acquire), count = 0;
    while (engine->read != written && count < capacity) {
        ret_events[count] = engine->ring[engine->read++ % engine->ring_capacity];
        if (ret_events[count++].kind == BT_ENGINE_BATCH_DONE) engine->in_flight = false;
    }
    return count;
}

void bt_engine_wait(bt_engine *engine)
{
    assert(engine->in_flight || engine->read != atomic_load(&engine->written));
    atomic_store(&engine->reader_sleeps, 1);
    while (atomic_load(&engine->written) == engine->read)
        bt_futex_wait(&engine->written, engine->read);
    atomic_store(&engine->reader_sleeps, 0);
}

/* --- the pool --- */

const bt_kv_view *bt_engine_kv(const bt_engine *engine)
{
    return engine->backend->kv(engine->self);
}

const float *bt_engine_logits(const bt_engine *engine, uint32_t handle)
{
    uint32_t sampled = 0;
    for (uint32_t i = 0; i < engine->batch.seq_count; i++) {
        if (!engine->seqs[i].sample) continue;
        if (engine->seqs[i].handle == handle) return engine->backend->logits(engine->self, sampled);
        sampled++;
    }
    return NULL;
}

bt_status bt_engine_pack(bt_engine *engine, const bt_wire_shape *wire, const bt_frame *frame,
                         const uint32_t *blocks, const uint8_t key[BT_KEY_BYTES], void *dst,
                         bt_kv_digest *ret_digest, bt_err *err)
{
    (void)err; /* on a CPU nothing can fail */
    bt_wire_pack(bt_engine_kv(engine), wire, frame, blocks, key, dst, ret_digest);
    return BT_OK;
}

bt_status bt_engine_unpack(bt_engine *engine, const bt_wire_shape *wire, const bt_frame *frame,
                           const uint32_t *blocks, const uint8_t key[BT_KEY_BYTES], const void *src,
                           bt_kv_digest *ret_digest, bt_err *err)
{
    (void)err;
    bt_wire_unpack(bt_engine_kv(engine), wire, frame, blocks, key, src, ret_digest);
    return BT_OK;
}

static void read_row(const bt_kv_view *kv, const uint32_t *blocks, uint32_t token, uint32_t layer,
                     bt_kv_part part, uint32_t head, float *ret_x)
{
    const bt_kv_shape *shape = &kv->shape;
    uint32_t row = token % shape->block_tokens;
    const uint8_t *codes = bt_kv_at(kv, blocks[token / shape->block_tokens], layer, part, head);
    const uint16_t *scales = (const uint16_t *)(codes + bt_kv_codes_bytes(shape));
    bt_row_decode(shape->dtype,
                  codes + (size_t)row * shape->head_dim * bt_dtype_bytes(shape->dtype),
                  bt_dtype_scaled(shape->dtype) ? scales[row] : 0, shape->head_dim, ret_x);
}

static double head_distance(const bt_kv_view *kv, const uint32_t *blocks_a,
                            const uint32_t *blocks_b, uint32_t token_count, uint32_t layer,
                            bt_kv_part part, uint32_t head)
{
    float a[BT_HEAD_DIM_MAX], b[BT_HEAD_DIM_MAX];
    double difference = 0, norm = 0;
    for (uint32_t token = 0; token < token_count; token++) {
        read_row(kv, blocks_a, token, layer, part, head, a);
        read_row(kv, blocks_b, token, layer, part, head, b);
        for (uint32_t i = 0; i < kv->shape.head_dim; i++) {
            difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
            norm += (double)a[i] * a[i];
        }
    }
    if (difference == 0) return 0;
    double error = sqrt(difference / norm);
    return isnan(error) ? INFINITY : error; /* a NaN anywhere is as wrong as can be */
}

void bt_engine_kv_distance(bt_engine *engine, const uint32_t *blocks_a, const uint32_t *blocks_b,
                           uint32_t token_count, bt_kv_part *ret_part, uint32_t *ret_layer,
                           uint32_t *ret_head, double *ret_error)
{
    const bt_kv_view *kv = bt_engine_kv(engine);
    *ret_part = BT_KV_K;
    *ret_layer = *ret_head = 0;
    *ret_error = 0;
    for (uint32_t layer = 0; layer < kv->shape.layers; layer++) {
        for (uint32_t at = 0; at < 2 * kv->shape.kv_heads; at++) {
            bt_kv_part part = at % 2 ? BT_KV_V : BT_KV_K;
            double error = head_distance(kv, blocks_a, blocks_b, token_count, layer, part, at / 2);
            if (!(error > *ret_error)) continue;
            *ret_error = error;
            *ret_part = part;
            *ret_layer = layer;
            *ret_head = at / 2;
        }
    }
}
