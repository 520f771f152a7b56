/* Prompts that the decode core computes itself (RESERVE with local): chunks beside decoding, caches,
 * and every way to end. The test is router and engine at once. */
#include "tests/unit/core_fixture.h"

#include "decoded/core.h"

#define BLOCK_TOKENS 16u
#define POOL_BLOCKS 44u
#define USABLE (POOL_BLOCKS - 4u)
#define CHUNK 32u
#define LEASE (400 * MS)

typedef struct {
    void *memory;
    bt_decode_core *core;
    uint64_t now;
    msg_log router;
    bool batch_busy;
    bt_engine_batch batch;
    bt_engine_seq seqs[8];
} fixture;

static uint32_t probe_tokens[64];

static void on_router(void *ctx, const bt_msg *msg)
{
    log_add(&((fixture *)ctx)->router, 0, msg);
}

static void on_peer(void *ctx, uint32_t peer, const bt_msg *msg)
{
    (void)ctx;
    fail_msg("%s to peer %u: a local prompt has no P", bt_msg_name(msg->kind), peer);
}

static bt_status on_submit(void *ctx, const bt_engine_batch *batch)
{
    fixture *f = ctx;
    assert_false(f->batch_busy);
    assert_in_range(batch->seq_count, 1, 8);
    f->batch_busy = true;
    f->batch = *batch;
    memcpy(f->seqs, batch->seqs, batch->seq_count * sizeof(f->seqs[0]));
    uint32_t prompt = 0;
    for (uint32_t i = 0; i < batch->seq_count; i++) {
        const bt_engine_seq *s = &batch->seqs[i];
        assert_true(s->block_count * BLOCK_TOKENS >= s->position + s->token_count);
        if (s->handle != UINT32_MAX && s->token_count > 1) prompt += s->token_count;
    }
    assert_in_range(prompt, 0, CHUNK); /* whatever waits */
    return BT_OK;
}

static void batch_end(fixture *f, bt_status status)
{
    assert_true(f->batch_busy);
    bt_engine_batch batch = f->batch;
    bt_engine_seq seqs[8];
    memcpy(seqs, f->seqs, sizeof(seqs));
    for (uint32_t i = 0; i < batch.seq_count; i++) {
        bt_engine_event event = {.kind = BT_ENGINE_TOKEN,
                                 .batch = batch.batch,
                                 .handle = seqs[i].handle,
                                 .token = {.id = 5, .logprob = -1}};
        if (seqs[i].sample) bt_decode_core_engine_event(f->core, &event, f->now);
    }
    f->batch_busy = false;
    bt_engine_event event = {.kind = BT_ENGINE_BATCH_DONE,
                             .batch = batch.batch,
                             .status = status,
                             .started_ns = f->now,
                             .time_ns = f->now + 1 * MS};
    bt_decode_core_engine_event(f->core, &event, f->now);
}

static void make_with(fixture *f, uint32_t chunk)
{
    memset(f, 0, sizeof(*f));
    bt_decode_config config = {.incarnation = D_INC,
                               .kv = {.dtype = BT_DTYPE_F32,
                                      .layers = LAYERS,
                                      .kv_heads = 1,
                                      .head_dim = 8,
                                      .block_tokens = BLOCK_TOKENS,
                                      .pool_blocks = POOL_BLOCKS},
                               .vocab = VOCAB,
                               .context_tokens_max = 512,
                               .eos_ids = {EOS},
                               .eos_count = 1,
                               .seqs_max = 4,
                               .batch_seqs_max = 4,
                               .batch_tokens_max = 64,
                               .local_chunk = chunk,
                               .slot_count = 1,
                               .cell_count = 1,
                               .cell_bytes = 2 * 64 * 8 * 4,
                               .quarantine_max = 1,
                               .reserve_tokens = 16,
                               .lease_ns = LEASE,
                               .cancel_repeat_ns = 50 * MS,
                               .router_timeout_ns = 3000 * MS,
                               .probe_tokens = probe_tokens};
    bt_decode_io io = {
        .ctx = f, .send_router = on_router, .send_peer = on_peer, .submit = on_submit};
    f->memory = aligned_block(bt_decode_core_bytes(&config));
    f->now = 1000 * MS;
    f->core = bt_decode_core_init(f->memory, &config, &io, f->now);
    bt_decode_core_start(f->core, f->now);
    batch_end(f, BT_OK);
}

static void make(fixture *f)
{
    make_with(f, CHUNK);
}

static void at(fixture *f, uint64_t now)
{
    f->now = now;
    bt_decode_core_tick(f->core, now);
}

static bt_fence local_fence(uint8_t n, uint32_t attempt)
{
    bt_fence fence = fence_of(n, attempt);
    fence.p_incarnation = 0;
    return fence;
}

static void reserve(fixture *f, uint8_t n, uint32_t attempt, uint32_t tokens, uint32_t max_tokens)
{
    bt_msg msg = work_of(BT_MSG_RESERVE, n, attempt, tokens, max_tokens);
    msg.fence = local_fence(n, attempt);
    msg.reserve.local = true;
    bt_decode_core_router_message(f->core, &msg, f->now);
}

static void say(fixture *f, bt_msg_kind kind, uint8_t n)
{
    bt_fence fence = local_fence(n, 1);
    bt_msg msg = {.kind = kind};
    if (kind == BT_MSG_RENEW) {
        msg.renew.requests = &fence.request;
        msg.renew.request_count = 1;
    } else {
        msg.fence = fence;
    }
    bt_decode_core_router_message(f->core, &msg, f->now);
}

static bt_decode_stats stats(fixture *f)
{
    bt_decode_stats s;
    bt_decode_core_stats(f->core, &s);
    assert_int_equal(s.blocks_free + s.blocks_cached + s.blocks_held + s.blocks_quarantined,
                     USABLE);
    return s;
}

static void expect_empty(fixture *f)
{
    assert_true(bt_decode_core_idle(f->core));
    assert_int_equal(stats(f).blocks_held + stats(f).blocks_quarantined, 0);
    log_expect_none(&f->router);
    free(f->memory);
}

static void expect_accepted(fixture *f, uint8_t n, uint32_t cached)
{
    const bt_msg *msg = log_expect(&f->router, BT_MSG_ACCEPTED);
    bt_fence fence = local_fence(n, 1);
    assert_true(bt_fence_equal(&msg->fence, &fence));
    assert_int_equal(msg->accepted.cached_tokens, cached);
    assert_int_equal(log_expect(&f->router, BT_MSG_TOKENS)->tokens.index, 0);
}

static void expect_refused(fixture *f, bt_refuse_reason reason)
{
    assert_int_equal(log_expect(&f->router, BT_MSG_REFUSED)->refused.reason, reason);
}

/* 100 tokens in chunks of 32, sampled at the last; then decoding as ever. */
static void in_chunks(void **state)
{
    (void)state;
    fixture f;
    make(&f);
    reserve(&f, 1, 1, 100, 3);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(f.batch.seq_count, 1);
        assert_int_equal(f.seqs[0].position, 32 * i);
        assert_int_equal(f.seqs[0].token_count, i < 3 ? 32 : 4);
        assert_int_equal(f.seqs[0].sample, i == 3);
        log_expect_none(&f.router); /* H2 */
        bt_msg beat = {.kind = BT_MSG_HEARTBEAT};
        bt_decode_core_heartbeat(f.core, &beat);
        assert_int_equal(beat.heartbeat.queued_tokens, 100 - 32 * i);
        assert_int_equal(beat.heartbeat.waiting, 1);
        assert_true(bt_cost_known(&beat.heartbeat.cost));
        batch_end(&f, BT_OK);
    }
    expect_accepted(&f, 1, 0);
    assert_int_equal(f.seqs[0].position, 100);
    assert_int_equal(f.seqs[0].token_count, 1);
    batch_end(&f, BT_OK);
    log_expect(&f.router, BT_MSG_TOKENS);
    batch_end(&f, BT_OK);
    assert_int_equal(log_expect(&f.router, BT_MSG_TOKENS)->tokens.index, 2);
    assert_int_equal(log_expect(&f.router, BT_MSG_FINISHED)->finished.reason, BT_FINISH_LENGTH);
    assert_int_equal(stats(&f).local_tokens_total, 100);
    assert_int_equal(stats(&f).local_total, 1);
    expect_empty(&f);
}

/* A sequence that decodes is in every batch, however many prompts wait; on_submit holds the bound. */
static void beside_decoding(void **state)
{
    (void)state;
    fixture f;
    make(&f);
    reserve(&f, 1, 1, 10, 100);
    batch_end(&f, BT_OK);
    expect_accepted(&f, 1, 0);
    for (uint8_t n = 2; n <= 4; n++) reserve(&f, n, 1, 80, 1);
    batch_end(&f, BT_OK); /* of before they came */
    uint32_t steps = 1, finished = 0;
    while (finished < 3 && steps < 40) {
        bool decodes = false;
        for (uint32_t i = 0; i < f.batch.seq_count; i++)
            decodes |= f.seqs[i].position == 10 + steps;
        assert_true(decodes);
        batch_end(&f, BT_OK);
        steps++;
    }
    for (; f.router.next < f.router.count; f.router.next++)
        finished += f.router.entries[f.router.next].msg.kind == BT_MSG_FINISHED;
    assert_int_equal(finished, 3);
    say(&f, BT_MSG_CANCEL, 1);
    batch_end(&f, BT_OK);
    expect_empty(&f);
}

/* Whole runs that were computed are found by the next, but never the last token's. */
static void cached(void **state)
{
    (void)state;
    fixture f;
    make(&f);
    for (uint32_t attempt = 0; attempt < 2; attempt++) {
        reserve(&f, 1, attempt + 1, 128, 1);
        /* The second of the same request: another attempt, with one run cached. */
        for (uint32_t i = 0; i < (attempt == 0 ? 4 : 2); i++) batch_end(&f, BT_OK);
        const bt_msg *msg = log_expect(&f.router, BT_MSG_ACCEPTED);
        assert_int_equal(msg->accepted.cached_tokens, attempt * 64);
        log_expect(&f.router, BT_MSG_TOKENS);
        log_expect(&f.router, BT_MSG_FINISHED);
    }
    assert_int_equal(stats(&f).cached_tokens_total, 64);
    assert_int_equal(stats(&f).blocks_cached, 8);
    expect_empty(&f);
}

/* No other prompt finds a run before it is computed. */
static void not_before_it_is_computed(void **state)
{
    (void)state;
    fixture f;
    make(&f);
    reserve(&f, 1, 1, 200, 1);
    batch_end(&f, BT_OK); /* half of the first run */
    bt_fence other = local_fence(2, 1);
    bt_msg msg = work_of(BT_MSG_RESERVE, 1, 1, 200, 1); /* the same tokens */
    msg.fence = other;
    msg.reserve.local = true;
    bt_decode_core_router_message(f.core, &msg, f.now);
    assert_int_equal(stats(&f).cached_tokens_total, 0);
    say(&f, BT_MSG_CANCEL, 1);
    say(&f, BT_MSG_CANCEL, 2);
    assert_int_equal(stats(&f).blocks_quarantined, 13); /* of the one in the batch (K5) */
    batch_end(&f, BT_OK);
    assert_int_equal(stats(&f).blocks_cached, 0);
    expect_empty(&f);
}

static void ends(void **state)
{
    (void)state;
    fixture f;
    make(&f);
    /* Its lease, which RENEW extends. */
    reserve(&f, 1, 1, 100, 3);
    at(&f, f.now + LEASE - 1);
    say(&f, BT_MSG_RENEW, 1);
    at(&f, f.now + LEASE - 1);
    log_expect_none(&f.router);
    assert_true(bt_decode_core_next_deadline(f.core) == f.now + 1);
    at(&f, f.now + 1);
    expect_refused(&f, BT_REFUSE_LEASE);
    batch_end(&f, BT_OK);
    /* The engine. */
    reserve(&f, 2, 1, 100, 3);
    batch_end(&f, BT_ERR_NO_MEMORY);
    expect_refused(&f, BT_REFUSE_ENGINE);
    /* A newer attempt; a late one is dropped. */
    reserve(&f, 3, 2, 100, 3);
    reserve(&f, 3, 1, 100, 3);
    assert_int_equal(stats(&f).stale_total, 1);
    reserve(&f, 3, 3, 20, 1);
    batch_end(&f, BT_OK);
    batch_end(&f, BT_OK);
    log_expect(&f.router, BT_MSG_ACCEPTED);
    log_expect(&f.router, BT_MSG_TOKENS);
    log_expect(&f.router, BT_MSG_FINISHED);
    /* Another life of the router. */
    bt_msg welcome = {.kind = BT_MSG_WELCOME, .welcome = {.router_incarnation = 1}};
    bt_decode_core_router_message(f.core, &welcome, f.now);
    reserve(&f, 4, 1, 100, 3);
    welcome.welcome.router_incarnation = 2;
    bt_decode_core_router_message(f.core, &welcome, f.now);
    batch_end(&f, BT_OK);
    expect_empty(&f);
}

static void refused(void **state)
{
    (void)state;
    fixture f;
    make(&f);
    reserve(&f, 1, 1, 400, 200);
    expect_refused(&f, BT_REFUSE_TOO_LONG);
    for (uint8_t n = 2; n <= 5; n++) reserve(&f, n, 1, 120, 9); /* 9 blocks each */
    reserve(&f, 6, 1, 10, 2);
    expect_refused(&f, BT_REFUSE_FULL); /* sequences */
    say(&f, BT_MSG_CANCEL, 5);
    reserve(&f, 7, 1, 400, 2);
    expect_refused(&f, BT_REFUSE_FULL); /* blocks */
    for (uint8_t n = 2; n <= 4; n++) say(&f, BT_MSG_CANCEL, n);
    batch_end(&f, BT_OK);
    bt_decode_core_drain(f.core, f.now);
    reserve(&f, 8, 1, 10, 2);
    expect_refused(&f, BT_REFUSE_DRAINING);
    expect_empty(&f);
    make_with(&f, 0);
    reserve(&f, 1, 1, 10, 2);
    expect_refused(&f, BT_REFUSE_UNKNOWN);
    expect_empty(&f);
}

/* The pool is full in mid-decode: the youngest goes, and that is the prompt. */
static void evicted(void **state)
{
    (void)state;
    fixture f;
    make(&f);
    reserve(&f, 1, 1, 240, 200); /* 16 of 40 blocks, reserve included: 256 tokens */
    for (uint32_t i = 0; i < 8; i++) batch_end(&f, BT_OK);
    expect_accepted(&f, 1, 0);
    for (uint32_t i = 0; i < 12; i++) {
        batch_end(&f, BT_OK);
        log_expect(&f.router, BT_MSG_TOKENS);
    }
    reserve(&f, 2, 1, 360, 16); /* the other 24 */
    uint32_t tokens = 13;
    do {
        assert_true(tokens++ <= 17);
        batch_end(&f, BT_OK);
        log_expect(&f.router, BT_MSG_TOKENS);
    } while (f.router.next == f.router.count);
    const bt_msg *msg = log_expect(&f.router, BT_MSG_EVICTED);
    bt_fence fence = local_fence(2, 1);
    assert_true(bt_fence_equal(&msg->fence, &fence));
    assert_int_equal(msg->evicted.token_count, 0);
    assert_int_equal(stats(&f).evicted_total, 1);
    assert_in_range(stats(&f).local_tokens_total, 240 + 64, 240 + 359); /* in the midst of it */
    say(&f, BT_MSG_CANCEL, 1);
    batch_end(&f, BT_OK);
    expect_empty(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_chunks), cmocka_unit_test(beside_decoding),
        cmocka_unit_test(cached),    cmocka_unit_test(not_before_it_is_computed),
        cmocka_unit_test(ends),      cmocka_unit_test(refused),
        cmocka_unit_test(evicted),
    };
    return cmocka_run_group_tests_name("decode_local", tests, NULL, NULL);
}
