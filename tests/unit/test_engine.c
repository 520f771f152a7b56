/* test_engine.c - the engine's promises: values that depend on the sequence alone, the order of
 * events, refusals, and the distance between two copies of KV. */
#include "common/engine/engine.h"

#include "common/base/crypto.h"
#include "tests/unit/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>

#define SEED 20261123u
#define SEQS 5u
#define POOL_TOKENS 1024u
#define DECODES 5u
#define TOKENS_MAX 128u

static const uint32_t prompt_tokens[SEQS] = {1, 15, 16, 37, 100};

static bt_engine *engine_of(const bt_model *model, const char *backend, bt_dtype kv_dtype,
                            uint32_t block_tokens, uint32_t threads)
{
    const bt_engine_config config = {.backend = backend,
                                     .kv_dtype = kv_dtype,
                                     .block_tokens = block_tokens,
                                     .pool_blocks = POOL_TOKENS / block_tokens,
                                     .batch_seqs_max = SEQS,
                                     .batch_tokens_max = 256,
                                     .threads = threads};
    bt_engine *engine = NULL;
    bt_err err;
    if (bt_engine_create(model, &config, &engine, &err) != BT_OK) fail_msg("%s", err.message);
    return engine;
}

/* Waits for the end of the batch; tokens go to ret_tokens by handle. The status of the batch, or of
 * a sequence that failed in it. */
static bt_status finish(bt_engine *engine, bt_token *ret_tokens)
{
    bt_status status = BT_OK;
    for (;;) {
        bt_engine_event event;
        bt_engine_wait(engine);
        while (bt_engine_poll(engine, &event, 1) == 1) {
            if (event.status != BT_OK) status = event.status;
            if (event.kind == BT_ENGINE_TOKEN) ret_tokens[event.handle] = event.token;
            if (event.kind == BT_ENGINE_BATCH_DONE) return status;
        }
    }
}

/* --- values --- */

/* What one sequence must give: its tokens, and logits at each sampled position. */
typedef struct {
    uint32_t tokens[TOKENS_MAX + DECODES + 1];
    bt_token sampled[DECODES + 1];
    float logits[DECODES + 1][TINY_VOCAB];
} history;

typedef struct {
    history seqs[SEQS];
} run_result;

static bt_sampling sampling_of(uint32_t seq)
{
    return (bt_sampling){.temperature = seq % 2 ? 0.9f : 0,
                         .top_p = seq == 3 ? 0.8f : 1,
                         .top_k = seq == 1 ? 20 : 0,
                         .top_logprobs = 3,
                         .seed = 1000 + seq};
}

/* A random table over the whole pool, cut among the sequences. */
static void make_tables(bt_rng *rng, uint32_t block_tokens, uint32_t *table)
{
    uint32_t blocks = POOL_TOKENS / block_tokens;
    for (uint32_t i = 0; i < blocks; i++) table[i] = i;
    for (uint32_t i = blocks - 1; i > 0; i--) {
        uint32_t j = (uint32_t)bt_rng_below(rng, i + 1), swap = table[i];
        table[i] = table[j];
        table[j] = swap;
    }
}

/* Runs all sequences to DECODES tokens after their prompt. chunk_max 0: each sequence alone and its
 * prompt at once; else random mixes of random chunks. */
static void run_all(bt_engine *engine, bt_rng *rng, uint32_t chunk_max, run_result *ret)
{
    static bt_token tokens[SEQS];
    uint32_t block_tokens = bt_engine_kv(engine)->shape.block_tokens;
    uint32_t table[POOL_TOKENS / 16], done[SEQS] = {0}, share = POOL_TOKENS / block_tokens / SEQS;
    bt_rng prompts;
    bt_rng_init(&prompts, SEED);
    memset(ret, 0, sizeof(*ret));
    for (uint32_t s = 0; s < SEQS; s++)
        for (uint32_t i = 0; i < prompt_tokens[s]; i++)
            ret->seqs[s].tokens[i] = (uint32_t)bt_rng_below(&prompts, TINY_VOCAB);
    make_tables(rng, block_tokens, table);

    for (uint32_t left = SEQS; left > 0;) {
        bt_engine_seq seqs[SEQS];
        uint32_t count = 0;
        for (uint32_t s = 0; s < SEQS; s++) {
            uint32_t end = prompt_tokens[s] + DECODES;
            if (done[s] == end) continue;
            if (chunk_max == 0 && count == 1) break;
            if (chunk_max > 0 && bt_rng_below(rng, 3) == 0) continue;
            uint32_t chunk = done[s] >= prompt_tokens[s] ? 1 : prompt_tokens[s] - done[s];
            if (chunk_max > 0 && chunk > chunk_max)
                chunk = 1 + (uint32_t)bt_rng_below(rng, chunk_max);
            seqs[count++] = (bt_engine_seq){.handle = s,
                                            .position = done[s],
                                            .token_count = chunk,
                                            .tokens = ret->seqs[s].tokens + done[s],
                                            .blocks = table + s * share,
                                            .block_count = share,
                                            .sample = done[s] + chunk >= prompt_tokens[s],
                                            .sampling = sampling_of(s)};
        }
        if (count == 0) continue;
        const bt_engine_batch batch = {.seq_count = count, .seqs = seqs};
        assert_int_equal(bt_engine_submit(engine, &batch, NULL), BT_OK);
        assert_int_equal(finish(engine, tokens), BT_OK);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t s = seqs[i].handle;
            done[s] += seqs[i].token_count;
            if (done[s] == prompt_tokens[s] + DECODES) left--;
            if (!seqs[i].sample) continue;
            uint32_t at = done[s] - prompt_tokens[s];
            ret->seqs[s].sampled[at] = tokens[s];
            ret->seqs[s].tokens[done[s]] = tokens[s].id;
            memcpy(ret->seqs[s].logits[at], bt_engine_logits(engine, s),
                   sizeof(float) * TINY_VOCAB);
        }
    }
}

static void assert_same(const run_result *a, const run_result *b)
{
    for (uint32_t s = 0; s < SEQS; s++) {
        assert_memory_equal(a->seqs[s].tokens, b->seqs[s].tokens, sizeof(a->seqs[s].tokens));
        assert_memory_equal(a->seqs[s].logits, b->seqs[s].logits, sizeof(a->seqs[s].logits));
        for (uint32_t i = 0; i <= DECODES; i++) {
            const bt_token *x = &a->seqs[s].sampled[i], *y = &b->seqs[s].sampled[i];
            assert_int_equal(x->id, y->id);
            assert_true(x->logprob == y->logprob && x->top_count == y->top_count);
            for (uint32_t k = 0; k < x->top_count; k++)
                assert_true(x->top[k].id == y->top[k].id && x->top[k].logprob == y->top[k].logprob);
        }
    }
}

/* Chunks, mixes of sequences, order of blocks, block size and threads: not one bit may change. */
static void test_values_depend_on_the_sequence_only(void **state)
{
    (void)state;
    static const bt_dtype kv_dtypes[] = {BT_DTYPE_F32, BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3,
                                         BT_DTYPE_INT8};
    static const bt_dtype weights[] = {BT_DTYPE_F32, BT_DTYPE_F16, BT_DTYPE_BF16, BT_DTYPE_BF16};
    static const uint32_t blocks[] = {16, 32, 64}, chunks[] = {1, 9, 64};
    static run_result expected, result;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (int d = 0; d < 4; d++) {
        bt_model *model =
            tiny_model(&(tiny_options){.seed = 5, .dtype = weights[d], .tied = d % 2});
        bt_engine *alone = engine_of(model, "cpu", kv_dtypes[d], 16, 1);
        run_all(alone, &rng, 0, &expected);
        bt_engine_destroy(alone);
        for (uint32_t threads = 1; threads <= 3; threads++) {
            bt_engine *engine = engine_of(model, "cpu", kv_dtypes[d], blocks[threads - 1], threads);
            for (int c = 0; c < 3; c++) {
                run_all(engine, &rng, chunks[c], &result);
                assert_same(&expected, &result);
            }
            bt_engine_destroy(engine);
        }
        bt_model_close(model);
    }
}

/* The fast kernels stay near the reference ones; so do the smaller KV dtypes near f32. */
static void test_backends_and_kv_dtypes_agree(void **state)
{
    (void)state;
    static const struct {
        const char *backend;
        bt_dtype kv_dtype;
        double bound;
    } cases[] = {{"cpu", BT_DTYPE_F32, 1e-5},
                 {"cpu", BT_DTYPE_BF16, 0.05},
                 {"cpu", BT_DTYPE_INT8, 0.1},
                 {"cpu", BT_DTYPE_FP8_E4M3, 0.4}};
    static run_result expected, result;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    bt_model *model = tiny_model(&(tiny_options){.seed = 6, .dtype = BT_DTYPE_F32});
    bt_engine *oracle = engine_of(model, "cpu-ref", BT_DTYPE_F32, 16, 1);
    run_all(oracle, &rng, 0, &expected);
    bt_engine_destroy(oracle);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_engine *engine = engine_of(model, cases[i].backend, cases[i].kv_dtype, 32, 2);
        run_all(engine, &rng, 0, &result);
        double worst = 0;
        for (uint32_t s = 0; s < SEQS; s++)
            for (uint32_t v = 0; v < TINY_VOCAB; v++)
                worst = fmax(worst, fabs((double)result.seqs[s].logits[0][v] -
                                         expected.seqs[s].logits[0][v]));
        printf("%s, KV %s: largest difference of a logit %.2g\n", cases[i].backend,
               bt_dtype_name(cases[i].kv_dtype), worst);
        assert_true(worst <= cases[i].bound);
        bt_engine_destroy(engine);
    }
    bt_model_close(model);
}

/* --- events --- */

static _Atomic uint32_t wakes;

static void count_wake(void *arg)
{
    (void)arg;
    atomic_fetch_add(&wakes, 1);
}

static void test_events_come_in_order(void **state)
{
    (void)state;
    const uint32_t tokens[4] = {3, 4, 5, 6}, blocks[2] = {7, 9};
    bt_model *model = tiny_model(&(tiny_options){.seed = 7, .dtype = BT_DTYPE_BF16});
    bt_engine *engine = engine_of(model, "cpu", BT_DTYPE_NONE, 16, 2);
    assert_int_equal(bt_engine_kv(engine)->shape.dtype, BT_DTYPE_BF16);
    bt_engine_on_wake(engine, count_wake, NULL);
    const bt_engine_seq seqs[3] = {
        {.handle = 11, .token_count = 4, .tokens = tokens, .blocks = blocks, .block_count = 1},
        {.handle = 12,
         .token_count = 2,
         .tokens = tokens,
         .blocks = blocks + 1,
         .block_count = 1,
         .sample = true,
         .sampling = {.top_p = 1}},
        {.handle = 13,
         .token_count = 1,
         .tokens = tokens,
         .blocks = (const uint32_t[]){0},
         .block_count = 1,
         .sample = true,
         .sampling = {.top_p = 1}},
    };
    const bt_engine_batch batch = {.batch = 77, .seq_count = 3, .seqs = seqs};
    bt_engine_event events[16];
    uint32_t count = 0;
    atomic_store(&wakes, 0);
    assert_int_equal(bt_engine_poll(engine, events, 16), 0);
    assert_int_equal(bt_engine_submit(engine, &batch, NULL), BT_OK);
    assert_int_equal(bt_engine_submit(engine, &batch, NULL), BT_AGAIN);
    while (count < TINY_LAYERS + 3) {
        bt_engine_wait(engine);
        count += bt_engine_poll(engine, events + count, 1);
        if (count == TINY_LAYERS)
            assert_int_equal(bt_engine_submit(engine, &batch, NULL), BT_AGAIN);
    }
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(events[i].batch, 77);
        if (i > 0) assert_true(events[i].time_ns >= events[i - 1].time_ns);
    }
    for (uint32_t i = 0; i < TINY_LAYERS; i++) {
        assert_int_equal(events[i].kind, BT_ENGINE_LAYER_DONE);
        assert_int_equal(events[i].layer, i);
    }
    assert_int_equal(events[TINY_LAYERS].kind, BT_ENGINE_TOKEN);
    assert_int_equal(events[TINY_LAYERS].handle, 12);
    assert_int_equal(events[TINY_LAYERS + 1].handle, 13);
    assert_int_equal(events[TINY_LAYERS + 2].kind, BT_ENGINE_BATCH_DONE);
    assert_int_equal(events[TINY_LAYERS + 2].status, BT_OK);
    assert_true(events[TINY_LAYERS + 2].started_ns <= events[0].time_ns);
    assert_int_equal(bt_engine_poll(engine, events, 16), 0);
    assert_null(bt_engine_logits(engine, 11));
    assert_non_null(bt_engine_logits(engine, 13));
    bt_engine_destroy(engine);
    assert_int_equal(atomic_load(&wakes), TINY_LAYERS + 3);
    bt_model_close(model);
}

/* An engine may be destroyed with a batch in flight. */
static void test_destroy_waits_for_the_batch(void **state)
{
    (void)state;
    uint32_t tokens[200] = {0}, blocks[13];
    for (uint32_t i = 0; i < 13; i++) blocks[i] = i;
    bt_model *model = tiny_model(&(tiny_options){.seed = 7, .dtype = BT_DTYPE_F32});
    bt_engine *engine = engine_of(model, "cpu", BT_DTYPE_NONE, 16, 3);
    const bt_engine_seq seq = {
        .token_count = 200, .tokens = tokens, .blocks = blocks, .block_count = 13};
    assert_int_equal(
        bt_engine_submit(engine, &(bt_engine_batch){.seq_count = 1, .seqs = &seq}, NULL), BT_OK);
    bt_engine_destroy(engine);
    bt_engine_destroy(NULL);
    bt_model_close(model);
}

/* --- refusals --- */

static void test_configs_that_cannot_run_are_refused(void **state)
{
    (void)state;
    bt_model *model = tiny_model(&(tiny_options){.seed = 7, .dtype = BT_DTYPE_F32});
    const bt_engine_config good = {.backend = "cpu",
                                   .block_tokens = 16,
                                   .pool_blocks = 4,
                                   .batch_seqs_max = 1,
                                   .batch_tokens_max = 16,
                                   .threads = 1};
    bt_engine_config bad[10];
    for (int i = 0; i < 10; i++) bad[i] = good;
    bad[0].backend = "tpu";
    bad[1].block_tokens = 24;
    bad[2].pool_blocks = 0;
    bad[3].batch_seqs_max = 0;
    bad[4].batch_tokens_max = 0;
    bad[5].kv_dtype = BT_DTYPE_F16;
    bad[6].context_tokens_max = TINY_CONTEXT + 1;
    bad[7].threads = 10000;
    bad[8].compute = BT_COMPUTE_COUNT;
    bad[9].kernels = "abacus";
    for (int i = 0; i < 10; i++) {
        bt_engine *engine = NULL;
        bt_err err = {0};
        assert_int_equal(bt_engine_create(model, &bad[i], &engine, &err), BT_ERR_ARGUMENT);
        assert_null(engine);
        assert_true(strlen(err.message) > 0);
    }
    bt_model_close(model);
}

static void test_batches_from_outside_are_checked(void **state)
{
    (void)state;
    static uint32_t tokens[300];
    uint32_t blocks[20] = {0}, wrong = TINY_VOCAB;
    for (uint32_t i = 0; i < 20; i++) blocks[i] = i;
    bt_model *model = tiny_model(&(tiny_options){.seed = 7, .dtype = BT_DTYPE_F32});
    bt_engine *engine = engine_of(model, "cpu", BT_DTYPE_NONE, 16, 1);
    const bt_engine_seq good = {.token_count = 1,
                                .tokens = tokens,
                                .blocks = blocks,
                                .block_count = 20,
                                .sample = true,
                                .sampling = {.top_p = 1}};
    bt_engine_seq bad[8];
    for (int i = 0; i < 8; i++) bad[i] = good;
    bad[0].tokens = &wrong;
    bad[1].position = TINY_CONTEXT;
    bad[2].position = UINT32_MAX;
    bad[3].token_count = 0;
    bad[4].token_count = 257; /* more than the context; the batch's tokens are checked below */
    bad[5].sampling.temperature = NAN;
    bad[6].sampling.top_p = 0;
    bad[7].sampling.top_logprobs = BT_TOP_LOGPROBS_MAX + 1;
    for (int i = 0; i < 8; i++) {
        const bt_engine_batch batch = {.seq_count = 1, .seqs = &bad[i]};
        assert_int_equal(bt_engine_submit(engine, &batch, NULL), BT_ERR_ARGUMENT);
    }
    bt_engine_seq many[SEQS + 1];
    for (uint32_t i = 0; i <= SEQS; i++) many[i] = good;
    assert_int_equal(
        bt_engine_submit(engine, &(bt_engine_batch){.seq_count = SEQS + 1, .seqs = many}, NULL),
        BT_ERR_ARGUMENT);
    many[0].token_count = many[1].token_count = 129;
    assert_int_equal(
        bt_engine_submit(engine, &(bt_engine_batch){.seq_count = 2, .seqs = many}, NULL),
        BT_ERR_ARGUMENT);
    bt_token token;
    assert_int_equal(
        bt_engine_submit(engine, &(bt_engine_batch){.seq_count = 1, .seqs = &good}, NULL), BT_OK);
    assert_int_equal(finish(engine, &token), BT_OK);
    bt_engine_destroy(engine);
    bt_model_close(model);
}

static void test_weights_that_make_nan_fail_the_sequence(void **state)
{
    (void)state;
    const uint32_t token = 1, block = 0;
    bt_model *model = tiny_model(&(tiny_options){.seed = 7, .dtype = BT_DTYPE_F32, .broken = true});
    bt_engine *engine = engine_of(model, "cpu", BT_DTYPE_NONE, 16, 1);
    const bt_engine_seq seq = {.token_count = 1,
                               .tokens = &token,
                               .blocks = &block,
                               .block_count = 1,
                               .sample = true,
                               .sampling = {.top_p = 1}};
    bt_token sampled;
    assert_int_equal(
        bt_engine_submit(engine, &(bt_engine_batch){.seq_count = 1, .seqs = &seq}, NULL), BT_OK);
    assert_int_equal(finish(engine, &sampled), BT_ERR_FORMAT);
    bt_engine_destroy(engine);
    bt_model_close(model);
}

/* Three sequences in a batch, the second with a token whose embedding is NaN. */
static void test_one_broken_sequence_fails_alone(void **state)
{
    (void)state;
    enum { BROKEN = 55 };
    const uint32_t tokens[3][2] = {{1, 2}, {3, BROKEN}, {4, 5}}, blocks[] = {0, 1, 2};
    bt_token alone[3], together[3];
    bt_status status[3] = {BT_AGAIN, BT_AGAIN, BT_AGAIN};
    bt_engine_seq seqs[3];
    bt_model *model =
        tiny_model(&(tiny_options){.seed = 7, .dtype = BT_DTYPE_F32, .broken_token = BROKEN});
    bt_engine *engine = engine_of(model, "cpu", BT_DTYPE_NONE, 16, 1);
    for (uint32_t i = 0; i < 3; i++) {
        seqs[i] = (bt_engine_seq){.handle = i,
                                  .token_count = 2,
                                  .tokens = tokens[i],
                                  .blocks = &blocks[i],
                                  .block_count = 1,
                                  .sample = true,
                                  .sampling = {.top_p = 1, .logprobs = true}};
        assert_int_equal(
            bt_engine_submit(engine, &(bt_engine_batch){.seq_count = 1, .seqs = &seqs[i]}, NULL),
            BT_OK);
        assert_int_equal(finish(engine, alone), i == 1 ? BT_ERR_FORMAT : BT_OK);
    }
    assert_int_equal(
        bt_engine_submit(engine, &(bt_engine_batch){.seq_count = 3, .seqs = seqs}, NULL), BT_OK);
    for (bool done = false; !done;) {
        bt_engine_event event;
        bt_engine_wait(engine);
        while (bt_engine_poll(engine, &event, 1) == 1) {
            done = event.kind == BT_ENGINE_BATCH_DONE;
            if (done) assert_int_equal(event.status, BT_OK);
            if (event.kind != BT_ENGINE_TOKEN) continue;
            status[event.handle] = event.status;
            together[event.handle] = event.token;
        }
    }
    assert_int_equal(status[0], BT_OK);
    assert_int_equal(status[1], BT_ERR_FORMAT);
    assert_int_equal(status[2], BT_OK);
    for (uint32_t i = 0; i < 3; i += 2) {
        assert_int_equal(together[i].id, alone[i].id);
        assert_true(together[i].logprob == alone[i].logprob);
    }
    seqs[0].blocks = &blocks[1]; /* where the broken one's KV still lies, beyond the new end too */
    seqs[0].token_count = 1;
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(
            bt_engine_submit(engine, &(bt_engine_batch){.seq_count = 1, .seqs = seqs}, NULL),
            BT_OK);
        assert_int_equal(finish(engine, &together[i]), BT_OK);
        seqs[0].blocks = &blocks[2];
    }
    assert_int_equal(together[0].id, together[1].id);
    assert_true(together[0].logprob == together[1].logprob);
    bt_engine_destroy(engine);
    bt_model_close(model);
}

/* The history and where its prompt ends reach the sampler: what was said once is not said again. */
static void test_penalties_read_the_history(void **state)
{
    (void)state;
    enum { STEPS = 20 };
    const uint32_t blocks[] = {0, 1, 2, 3};
    uint32_t history[STEPS + 1] = {1};
    bt_token token;
    bt_model *model = tiny_model(&(tiny_options){.seed = 7, .dtype = BT_DTYPE_F32});
    bt_engine *engine = engine_of(model, "cpu", BT_DTYPE_NONE, 16, 1);
    bt_logit_bias rows[1] = {{42, 100}};
    for (uint32_t i = 0; i < STEPS; i++) {
        const bt_engine_seq seq = {.position = i,
                                   .token_count = 1,
                                   .tokens = &history[i],
                                   .blocks = blocks,
                                   .block_count = 4,
                                   .sample = true,
                                   .sampling = {.top_p = 1,
                                                .presence_penalty = 2,
                                                .frequency_penalty = 2,
                                                .repetition_penalty = 100,
                                                .bias = rows,
                                                .bias_count = 1},
                                   .history = history,
                                   .prompt_count = 1};
        assert_int_equal(
            bt_engine_submit(engine, &(bt_engine_batch){.seq_count = 1, .seqs = &seq}, NULL),
            BT_OK);
        assert_int_equal(finish(engine, &token), BT_OK);
        history[i + 1] = token.id;
        for (uint32_t j = 0; j <= i; j++) assert_int_not_equal(history[j], token.id);
    }
    assert_int_equal(history[1], 42); /* the bias; then 100 / 100 - 4 */
    bt_engine_destroy(engine);
    bt_model_close(model);
}

/* --- the distance between two copies of KV --- */

static void prefill(bt_engine *engine, const uint32_t *blocks, uint32_t tokens)
{
    uint32_t ids[TOKENS_MAX];
    bt_token unused;
    for (uint32_t i = 0; i < tokens; i++) ids[i] = i;
    const bt_engine_seq seq = {
        .token_count = tokens, .tokens = ids, .blocks = blocks, .block_count = (tokens + 15) / 16};
    assert_int_equal(
        bt_engine_submit(engine, &(bt_engine_batch){.seq_count = 1, .seqs = &seq}, NULL), BT_OK);
    assert_int_equal(finish(engine, &unused), BT_OK);
}

static void test_kv_distance_names_the_worst(void **state)
{
    (void)state;
    const uint32_t a[4] = {0, 1, 2, 3}, b[4] = {9, 8, 7, 6};
    bt_kv_part part;
    uint32_t layer, head;
    double error;
    bt_model *model = tiny_model(&(tiny_options){.seed = 7, .dtype = BT_DTYPE_F32});
    bt_engine *engine = engine_of(model, "cpu", BT_DTYPE_F32, 16, 1);
    prefill(engine, a, 50);
    prefill(engine, b, 50);
    bt_engine_kv_distance(engine, a, b, 50, &part, &layer, &head, &error);
    assert_true(error == 0);

    /* Doubling one head's K is an error of exactly 1; beyond the tokens nothing counts. */
    const bt_kv_view *kv = bt_engine_kv(engine);
    float *rows = (float *)bt_kv_at(kv, b[3], 2, BT_KV_V, 1);
    rows[5 * TINY_HEAD_DIM] += 100; /* token 53 */
    for (uint32_t i = 0; i < 4; i++) {
        rows = (float *)bt_kv_at(kv, b[i], 1, BT_KV_K, 1);
        for (uint32_t j = 0; j < 16 * TINY_HEAD_DIM; j++) rows[j] *= 2;
    }
    bt_engine_kv_distance(engine, a, b, 50, &part, &layer, &head, &error);
    assert_int_equal(part, BT_KV_K);
    assert_int_equal(layer, 1);
    assert_int_equal(head, 1);
    assert_true(error == 1);

    rows = (float *)bt_kv_at(kv, b[0], 2, BT_KV_V, 0);
    rows[3] = NAN;
    bt_engine_kv_distance(engine, a, b, 50, &part, &layer, &head, &error);
    assert_true(isinf(error) && layer == 2 && part == BT_KV_V && head == 0);
    bt_engine_destroy(engine);
    bt_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_depend_on_the_sequence_only),
        cmocka_unit_test(test_backends_and_kv_dtypes_agree),
        cmocka_unit_test(test_events_come_in_order),
        cmocka_unit_test(test_destroy_waits_for_the_batch),
        cmocka_unit_test(test_configs_that_cannot_run_are_refused),
        cmocka_unit_test(test_batches_from_outside_are_checked),
        cmocka_unit_test(test_weights_that_make_nan_fail_the_sequence),
        cmocka_unit_test(test_one_broken_sequence_fails_alone),
        cmocka_unit_test(test_penalties_read_the_history),
        cmocka_unit_test(test_kv_distance_names_the_worst),
    };
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
