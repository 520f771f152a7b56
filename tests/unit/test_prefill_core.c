/* The prefill core driven row by row (side P of HANDOFF): the test is router, decode daemon, engine
 * and lane at once. */
#include "tests/unit/core_fixture.h"

#include "prefilld/core.h"

#define PEER 3u
#define BLOCK_TOKENS 16u
#define POOL_BLOCKS 40u
#define CELL_BYTES (2u * 64u * 8u * 4u) /* one run: K and V, 64 rows of 8 f32 */
#define STAGING 3u

typedef struct {
    void *memory;
    bt_prefill_core *core;
    uint64_t now;
    msg_log router, peer;
    bool batch_busy;
    bt_engine_batch batch;
    bt_engine_seq seqs[8];
    uint32_t batch_tokens[8];
    uint32_t sampled; /* the token that the engine answers */
    uint32_t broken;  /* handle + 1 of the sequence whose logits are not finite */
    bt_prefill_put puts[256];
    bt_kv_digest digests[256];
    uint32_t put_count, put_done;
    bt_status put_answer;
} fixture;

static uint32_t probe_tokens[64];

static void on_router(void *ctx, const bt_msg *msg)
{
    log_add(&((fixture *)ctx)->router, 0, msg);
}

static void on_peer(void *ctx, uint32_t peer, const bt_msg *msg)
{
    log_add(&((fixture *)ctx)->peer, peer, msg);
}

static bt_status on_submit(void *ctx, const bt_engine_batch *batch)
{
    fixture *f = ctx;
    assert_false(f->batch_busy);
    assert_true(batch->seq_count <= 8);
    f->batch_busy = true;
    f->batch = *batch;
    memcpy(f->seqs, batch->seqs, batch->seq_count * sizeof(f->seqs[0]));
    for (uint32_t i = 0; i < batch->seq_count; i++) f->batch_tokens[i] = batch->seqs[i].tokens[0];
    return BT_OK;
}

static bt_status on_put(void *ctx, const bt_prefill_put *put, bt_kv_digest *ret_digest)
{
    fixture *f = ctx;
    if (f->put_answer != BT_OK) return f->put_answer;
    assert_true(f->put_count < 256 && put->staging < STAGING);
    *ret_digest = (bt_kv_digest){{put->frame.layer * 1000 + put->frame.run_first + 1, put->tag}};
    f->puts[f->put_count] = *put;
    f->digests[f->put_count++] = *ret_digest;
    return BT_OK;
}

static bt_prefill_config config_default(void)
{
    return (bt_prefill_config){.incarnation = P_INC,
                               .weights_digest = {{9}},
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
                               .requests_max = 4,
                               .batch_tokens_max = 128,
                               .batch_seqs_max = 4,
                               .staging_bytes = CELL_BYTES,
                               .staging_count = STAGING,
                               .pin_lease_ns = 1000 * MS,
                               .tombstone_ns = 5000 * MS,
                               .router_timeout_ns = 3000 * MS,
                               .probe_tokens = probe_tokens};
}

static void peer_say(fixture *f, const bt_msg *msg)
{
    bt_prefill_core_peer_message(f->core, PEER, msg, f->now);
}

static void router_say(fixture *f, const bt_msg *msg)
{
    bt_prefill_core_router_message(f->core, msg, f->now);
}

static void say(fixture *f, bt_msg_kind kind, bt_fence fence)
{
    bt_msg msg = {.kind = kind, .fence = fence};
    peer_say(f, &msg);
}

static bt_fence ticket_fence(uint8_t n, uint32_t attempt, uint32_t slot, uint32_t generation)
{
    bt_fence fence = fence_of(n, attempt);
    fence.slot = slot;
    fence.generation = generation;
    return fence;
}

static bt_fence ticket(fixture *f, bt_fence fence, uint32_t run_first, uint32_t cells)
{
    bt_msg msg = {.kind = BT_MSG_TICKET, .fence = fence};
    msg.ticket.wire = BT_DTYPE_F32;
    msg.ticket.run_first = run_first;
    msg.ticket.cell_count = cells;
    msg.ticket.lease_ms = 300;
    msg.ticket.probe = bt_request_id_equal(&fence.request, &bt_probe_request_id);
    peer_say(f, &msg);
    return fence;
}

static void layer_done(fixture *f, uint32_t layer)
{
    bt_engine_event event = {.kind = BT_ENGINE_LAYER_DONE, .batch = f->batch.batch, .layer = layer};
    bt_prefill_core_engine_event(f->core, &event, f->now);
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
                                 .status = seqs[i].handle + 1 == f->broken ? BT_ERR_FORMAT : BT_OK,
                                 .token = {.id = f->sampled, .logprob = -1}};
        if (seqs[i].sample) bt_prefill_core_engine_event(f->core, &event, f->now);
    }
    f->batch_busy = false;
    bt_engine_event event = {.kind = BT_ENGINE_BATCH_DONE, .batch = batch.batch, .status = status};
    bt_prefill_core_engine_event(f->core, &event, f->now);
}

static void compute(fixture *f)
{
    while (f->batch_busy) {
        for (uint32_t layer = 0; layer < LAYERS; layer++) layer_done(f, layer);
        batch_end(f, BT_OK);
    }
}

static void put_finish(fixture *f, bt_status status)
{
    assert_true(f->put_done < f->put_count);
    bt_prefill_core_put_done(f->core, f->puts[f->put_done++].tag, status, f->now);
}

static void at(fixture *f, uint64_t now)
{
    f->now = now;
    bt_prefill_core_tick(f->core, now);
}

/* Finishes puts, answering every Sealed with a Credit; returns how many there were. */
static uint32_t transfer(fixture *f)
{
    uint32_t sealed = 0;
    while (f->put_done < f->put_count) {
        bt_prefill_put put = f->puts[f->put_done];
        bt_kv_digest digest = f->digests[f->put_done];
        put_finish(f, BT_OK);
        const bt_msg *msg = log_expect(&f->peer, BT_MSG_SEALED);
        assert_memory_equal(&msg->sealed.digest, &digest, sizeof(digest));
        assert_int_equal(msg->sealed.frame.frame, put.frame.frame);
        bt_msg credit = {.kind = BT_MSG_CREDIT, .fence = msg->fence};
        credit.credit.cell = put.frame.cell;
        sealed++;
        peer_say(f, &credit);
    }
    return sealed;
}

static bt_prefill_stats stats(fixture *f)
{
    bt_prefill_stats s;
    bt_prefill_core_stats(f->core, &s);
    assert_int_equal(s.blocks_free + s.blocks_cached + s.blocks_held + s.blocks_quarantined,
                     POOL_BLOCKS);
    return s;
}

static void expect_empty(fixture *f)
{
    bt_prefill_stats s = stats(f);
    assert_int_equal(s.blocks_held, 0);
    assert_int_equal(s.blocks_quarantined, 0);
    assert_int_equal(s.running + s.waiting, 0);
    assert_true(bt_prefill_core_idle(f->core));
    log_expect_none(&f->router);
    log_expect_none(&f->peer);
}

static bt_fence probe_fence(uint32_t generation)
{
    bt_fence fence = ticket_fence(0, 1, 0, generation);
    fence.request = bt_probe_request_id;
    return fence;
}

static void make(fixture *f, const bt_prefill_config *config)
{
    memset(f, 0, sizeof(*f));
    bt_prefill_io io = {.ctx = f,
                        .send_router = on_router,
                        .send_peer = on_peer,
                        .submit = on_submit,
                        .put = on_put};
    f->memory = aligned_block(bt_prefill_core_bytes(config));
    f->now = 1000 * MS;
    f->sampled = 5;
    f->core = bt_prefill_core_init(f->memory, config, &io, f->now);
    assert_true(bt_prefill_core_next_deadline(f->core) == UINT64_MAX);
}

/* Up, paired and through its probe. */
static void make_ready(fixture *f, const bt_prefill_config *config)
{
    make(f, config);
    bt_prefill_peer info = {.d_incarnation = D_INC,
                            .wire = BT_DTYPE_F32,
                            .slot_count = 4,
                            .cell_count = 4,
                            .cell_bytes = CELL_BYTES};
    bt_prefill_core_peer_up(f->core, PEER, &info, f->now);
    const char *reason;
    assert_int_equal(bt_prefill_core_probe(f->core, PEER, &reason), BT_PROBE_PENDING);
    bt_fence fence = ticket(f, probe_fence(1), 0, 4);
    compute(f);
    assert_int_equal(transfer(f), LAYERS);
    log_expect(&f->peer, BT_MSG_MANIFEST);
    say(f, BT_MSG_ACCEPTED, fence);
    assert_int_equal(bt_prefill_core_probe(f->core, PEER, &reason), BT_PROBE_READY);
    bt_prefill_stats s = stats(f);
    assert_int_equal(s.probe_tokens_total, 64);
    assert_int_equal(s.prefill_tokens_total, 0);
    assert_int_equal(s.blocks_cached, 0); /* the probe leaves nothing behind */
    expect_empty(f);
}

static int setup(void **state)
{
    fixture *f = malloc(sizeof(*f));
    bt_prefill_config config = config_default();
    make_ready(f, &config);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    free(f->memory);
    free(f);
    return 0;
}

static void prefill(fixture *f, uint8_t n, uint32_t attempt, uint32_t tokens, uint32_t max_tokens)
{
    bt_msg msg = work_of(BT_MSG_PREFILL, n, attempt, tokens, max_tokens);
    router_say(f, &msg);
}

static void expect_refused(fixture *f, bt_refuse_reason reason)
{
    assert_int_equal(log_expect(&f->router, BT_MSG_REFUSED)->refused.reason, reason);
}

static void router_cancel(fixture *f, uint8_t n, uint32_t attempt)
{
    bt_msg cancel = {.kind = BT_MSG_CANCEL, .fence = fence_of(n, attempt)};
    router_say(f, &cancel);
}

static void test_happy_path(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 200, 10); /* runs 0..3, the last partial; chunks of 128 and 72 */
    bt_fence fence = ticket(f, ticket_fence(1, 1, 2, 1), 0, 2);
    assert_int_equal(f->seqs[0].token_count, 128);
    assert_false(f->seqs[0].sample);
    uint32_t before = f->put_count;
    layer_done(f, 0); /* two whole runs of layer 0, while layer 1 computes */
    assert_int_equal(f->put_count - before, 2);
    assert_int_equal(f->puts[before].frame.layer, 0);
    assert_int_equal(f->puts[before].slot, 2);
    assert_int_equal(f->puts[before].generation, 1);
    compute(f);
    /* FirstToken goes before the transfer ends, and before the Manifest (H8). */
    const bt_msg *first = log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    assert_int_equal(first->first_token.token.id, 5);
    assert_int_equal(first->first_token.index, 0);
    assert_false(first->first_token.final);
    log_expect_none(&f->peer);
    assert_int_equal(transfer(f), LAYERS * 4);
    const bt_msg *manifest = log_expect(&f->peer, BT_MSG_MANIFEST);
    assert_true(bt_fence_equal(&manifest->fence, &fence));
    assert_int_equal(manifest->manifest.token_count, 200);
    assert_int_equal(manifest->manifest.frame_count, LAYERS * 4);
    bt_kv_digest sum = {{0}};
    for (uint32_t i = before; i < f->put_count; i++) {
        sum.lane[0] += f->digests[i].lane[0];
        sum.lane[1] += f->digests[i].lane[1];
        assert_int_equal(f->puts[i].frame.token_end, f->puts[i].frame.run_first == 3
                                                         ? 200
                                                         : (f->puts[i].frame.run_first + 1) * 64);
    }
    assert_memory_equal(&manifest->manifest.digest_sum, &sum, sizeof(sum));
    assert_int_equal(stats(f).blocks_held, 13);
    say(f, BT_MSG_ACCEPTED, fence);
    assert_int_equal(stats(f).blocks_cached, 12); /* whole runs stay findable */
    assert_int_equal(stats(f).prefill_tokens_total, 200);
    assert_int_equal(stats(f).stale_total, 0);
    expect_empty(f);
}

static void test_ticket_before_prefill_is_held(void **state)
{
    fixture *f = *state;
    bt_fence fence = ticket(f, ticket_fence(1, 1, 0, 5), 0, 4);
    assert_false(f->batch_busy);
    prefill(f, 1, 1, 64, 10);
    compute(f);
    log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    assert_int_equal(transfer(f), LAYERS);
    log_expect(&f->peer, BT_MSG_MANIFEST);
    say(f, BT_MSG_ACCEPTED, fence);
    expect_empty(f);
    /* Held in vain: it ends with its lease. */
    ticket(f, ticket_fence(2, 1, 0, 6), 0, 4);
    assert_true(bt_prefill_core_next_deadline(f->core) == f->now + 300 * MS);
    at(f, f->now + 300 * MS);
    assert_int_equal(stats(f).leases_ended_total, 1);
    prefill(f, 2, 1, 64, 10);
    compute(f);
    log_expect(&f->router, BT_MSG_PINNED);
}

static void test_late_ticket_gets_everything_at_once(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 100, 10);
    compute(f);
    log_expect(&f->router, BT_MSG_PINNED); /* no FirstToken without a Ticket (H8) */
    log_expect_none(&f->router);
    bt_fence fence = ticket(f, ticket_fence(1, 1, 0, 2), 0, 1);
    log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    assert_int_equal(f->put_count - f->put_done, 1); /* one credit, one put */
    assert_int_equal(transfer(f), LAYERS * 2);
    log_expect(&f->peer, BT_MSG_MANIFEST);
    say(f, BT_MSG_ACCEPTED, fence);
    expect_empty(f);
}

static void test_cached_runs_are_skipped(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 200, 10);
    bt_fence fence = ticket(f, ticket_fence(1, 1, 0, 2), 2, 4); /* D holds two runs */
    compute(f);
    assert_int_equal(transfer(f), LAYERS * 2);
    log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    log_expect(&f->peer, BT_MSG_MANIFEST);
    say(f, BT_MSG_ACCEPTED, fence);
    /* The same prompt again: P's own cache holds three runs, and D all of a multiple of 64. */
    prefill(f, 1, 2, 192, 10);
    assert_int_equal(f->seqs[0].position, 128); /* the last run is computed again, for a logit */
    fence = ticket(f, ticket_fence(1, 2, 0, 3), 3, 4);
    compute(f);
    const bt_msg *first = log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    assert_int_equal(first->first_token.cached_tokens, 128);
    assert_int_equal(log_expect(&f->peer, BT_MSG_MANIFEST)->manifest.frame_count, 0);
    say(f, BT_MSG_ACCEPTED, fence);
    /* Cached runs travel before anything is computed. */
    prefill(f, 1, 3, 200, 10);
    uint32_t before = f->put_count;
    fence = ticket(f, ticket_fence(1, 3, 0, 4), 0, 4);
    assert_int_equal(f->put_count - before, STAGING);
    assert_int_equal(transfer(f), LAYERS * 3);
    compute(f);
    transfer(f);
    log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    log_expect(&f->peer, BT_MSG_MANIFEST);
    say(f, BT_MSG_ACCEPTED, fence);
    expect_empty(f);
    assert_int_equal(stats(f).cached_tokens_total, 128 + 192);
    /* A run_first beyond the prompt is nonsense. */
    prefill(f, 2, 1, 64, 10);
    ticket(f, ticket_fence(2, 1, 0, 5), 2, 4);
    compute(f);
    log_expect(&f->router, BT_MSG_PINNED);
}

static void test_retarget(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 100, 10);
    compute(f);
    log_expect(&f->router, BT_MSG_PINNED);
    bt_fence early = ticket(f, ticket_fence(1, 2, 1, 1), 0, 4); /* before its Retarget: held */
    log_expect_none(&f->router);
    bt_msg retarget = {.kind = BT_MSG_RETARGET, .fence = fence_of(1, 2)};
    router_say(f, &retarget);
    assert_int_equal(log_expect(&f->router, BT_MSG_FIRST_TOKEN)->fence.attempt, 2);
    transfer(f);
    log_expect(&f->peer, BT_MSG_MANIFEST);
    uint64_t stale = stats(f).stale_total;
    router_say(f, &retarget);                  /* a duplicate changes nothing */
    ticket(f, ticket_fence(1, 1, 2, 1), 0, 4); /* nor does a Ticket of the older attempt */
    assert_int_equal(stats(f).stale_total, stale + 2);
    say(f, BT_MSG_ACCEPTED, early);
    expect_empty(f);
    retarget.fence.attempt = 3; /* no longer held */
    router_say(f, &retarget);
    expect_refused(f, BT_REFUSE_UNKNOWN);
    ticket(f, ticket_fence(1, 3, 2, 2), 0, 4); /* and dead with it */
    prefill(f, 1, 3, 100, 10);
    expect_empty(f);
    prefill(f, 1, 4, 100, 10);
    assert_true(f->batch_busy);
}

/* A paired D that R did not name gets nothing, whether its Ticket is first or last. */
static void test_ticket_of_another_decode(void **state)
{
    fixture *f = *state;
    bt_prefill_peer info = {.d_incarnation = D_INC + 1,
                            .wire = BT_DTYPE_F32,
                            .slot_count = 4,
                            .cell_count = 4,
                            .cell_bytes = CELL_BYTES};
    bt_prefill_core_peer_up(f->core, PEER + 1, &info, f->now);
    compute(f); /* its probe */
    bt_msg foreign = {.kind = BT_MSG_TICKET, .fence = ticket_fence(1, 1, 0, 1)};
    foreign.fence.d_incarnation = D_INC + 1;
    foreign.ticket.wire = BT_DTYPE_F32;
    foreign.ticket.cell_count = 4;
    foreign.ticket.lease_ms = 300;
    bt_prefill_core_peer_message(f->core, PEER + 1, &foreign, f->now);
    uint32_t before = f->put_count;
    prefill(f, 1, 1, 64, 10);
    foreign.fence.slot = 1;
    bt_prefill_core_peer_message(f->core, PEER + 1, &foreign, f->now);
    assert_int_equal(stats(f).stale_total, 1);
    compute(f);
    log_expect(&f->router, BT_MSG_PINNED); /* no FirstToken: its own Ticket is not here */
    assert_int_equal(f->put_count, before);
    bt_fence fence = ticket(f, ticket_fence(1, 1, 0, 2), 0, 4);
    log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    assert_int_equal(transfer(f), LAYERS);
    log_expect(&f->peer, BT_MSG_MANIFEST);
    say(f, BT_MSG_ACCEPTED, fence);
    log_expect_none(&f->router);
}

static void test_stale_prefills(void **state)
{
    fixture *f = *state;
    bt_msg msg = work_of(BT_MSG_PREFILL, 1, 2, 64, 10);
    msg.fence.p_incarnation = 77;
    router_say(f, &msg);
    msg = work_of(BT_MSG_PREFILL, 1, 2, 64, 10);
    msg.fence.request = bt_probe_request_id;
    router_say(f, &msg);
    assert_int_equal(stats(f).stale_total, 2);
    assert_false(f->batch_busy);
    prefill(f, 1, 2, 64, 10);
    prefill(f, 1, 2, 64, 10);
    prefill(f, 1, 1, 64, 10);
    assert_int_equal(stats(f).stale_total, 4);
    assert_int_equal(stats(f).running, 1);
    /* A newer attempt replaces it while its chunk computes: those blocks wait for the engine. */
    prefill(f, 1, 3, 64, 10);
    assert_int_equal(stats(f).blocks_quarantined, 4);
    assert_int_equal(stats(f).running, 1);
    compute(f);
    assert_int_equal(log_expect(&f->router, BT_MSG_PINNED)->fence.attempt, 3);
    assert_int_equal(stats(f).blocks_quarantined, 0);
    router_cancel(f, 1, 3);
    expect_empty(f);
    prefill(f, 1, 3, 64, 10); /* tombstone */
    assert_false(f->batch_busy);
    at(f, f->now + 6000 * MS); /* forgotten after one maximum lease */
    prefill(f, 1, 3, 64, 10);
    assert_true(f->batch_busy);
}

static void test_stale_tickets(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 200, 10);
    bt_fence good = ticket_fence(1, 1, 1, 4);
    bt_fence wrong[4] = {good, good, good, good};
    wrong[0].p_incarnation++;
    wrong[1].d_incarnation++;
    wrong[2].slot = 4;
    wrong[3].generation = 0;
    for (uint32_t i = 0; i < 4; i++) ticket(f, wrong[i], 0, 4);
    ticket(f, good, 0, 5); /* more cells than agreed */
    ticket(f, good, 0, 0);
    assert_int_equal(stats(f).stale_total, 6);
    ticket(f, good, 0, 4);
    ticket(f, good, 0, 4); /* each generation once */
    bt_fence older = good;
    older.generation = 3;
    ticket(f, older, 0, 4);
    assert_int_equal(stats(f).stale_total, 8);
    /* Messages of a fence that is not current. */
    bt_fence other = good;
    other.attempt = 9;
    say(f, BT_MSG_ACCEPTED, other);
    say(f, BT_MSG_ACCEPTED, good); /* too early: nothing was sent yet */
    say(f, BT_MSG_CREDIT, other);
    say(f, BT_MSG_SEALED, good); /* not a message to P at all */
    assert_int_equal(stats(f).stale_total, 12);
    assert_int_equal(stats(f).running, 1);
    compute(f);
    assert_int_equal(transfer(f), LAYERS * 4);
    log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    log_expect(&f->peer, BT_MSG_MANIFEST);
    say(f, BT_MSG_ACCEPTED, good);
    say(f, BT_MSG_ACCEPTED, good); /* and a duplicate of the last */
    expect_empty(f);
}

static void test_cancel_before_ticket_burns_it(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 64, 10);
    bt_fence fence = ticket_fence(1, 1, 1, 4);
    say(f, BT_MSG_CANCEL, fence);
    assert_true(bt_fence_equal(&log_expect(&f->peer, BT_MSG_QUIESCED)->fence, &fence));
    ticket(f, fence, 0, 4);
    compute(f);
    log_expect(&f->router, BT_MSG_PINNED);
    assert_int_equal(stats(f).stale_total, 1);
    assert_int_equal(stats(f).blocks_held, 4); /* D's Cancel leaves the KV pinned */
    /* R's Cancel of what has not come yet. */
    router_cancel(f, 2, 1);
    ticket(f, ticket_fence(2, 1, 2, 1), 0, 4);
    prefill(f, 2, 1, 64, 10);
    assert_int_equal(stats(f).running, 1);
}

static void test_quiesced_waits_for_puts(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 128, 10);
    bt_fence fence = ticket(f, ticket_fence(1, 1, 1, 4), 0, 2);
    compute(f);
    log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    assert_int_equal(f->put_count - f->put_done, 2);
    say(f, BT_MSG_CANCEL, fence);
    log_expect_none(&f->peer);    /* H1 */
    say(f, BT_MSG_CANCEL, fence); /* repeated */
    put_finish(f, BT_OK);
    log_expect_none(&f->peer); /* nor Sealed: the ticket is gone */
    put_finish(f, BT_OK);
    assert_true(bt_fence_equal(&log_expect(&f->peer, BT_MSG_QUIESCED)->fence, &fence));
    log_expect(&f->router, BT_MSG_PINNED);
    say(f, BT_MSG_CANCEL, fence); /* an answer that was lost is given again */
    log_expect(&f->peer, BT_MSG_QUIESCED);
    bt_prefill_core_put_done(f->core, f->puts[f->put_done - 1].tag, BT_OK, f->now);
    assert_int_equal(stats(f).stale_total, 1);
    /* R's Cancel: source memory waits for the puts too. */
    ticket(f, ticket_fence(1, 1, 1, 5), 0, 2);
    router_cancel(f, 1, 1);
    assert_int_equal(stats(f).blocks_held, 0);
    assert_int_equal(stats(f).blocks_quarantined, 8);
    assert_false(bt_prefill_core_idle(f->core));
    put_finish(f, BT_OK);
    put_finish(f, BT_OK);
    expect_empty(f);
}

static void test_push_again_after_bad_digest(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 128, 10);
    bt_fence fence = ticket(f, ticket_fence(1, 1, 1, 4), 0, 4);
    compute(f);
    log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    put_finish(f, BT_OK);
    log_expect(&f->peer, BT_MSG_SEALED);
    bt_msg refused = {.kind = BT_MSG_REFUSED, .fence = fence};
    refused.refused.reason = BT_REFUSE_DIGEST;
    refused.refused.retry = true;
    uint32_t puts = f->put_count;
    peer_say(f, &refused);
    assert_int_equal(f->put_count, puts); /* it stopped */
    while (f->put_done < f->put_count) put_finish(f, BT_OK);
    log_expect(&f->peer, BT_MSG_QUIESCED);
    log_expect(&f->router, BT_MSG_PINNED);
    fence = ticket(f, ticket_fence(1, 1, 1, 5), 0, 4);
    assert_int_equal(transfer(f), LAYERS * 2); /* everything again */
    log_expect_none(&f->router);               /* but the token only once */
    log_expect(&f->peer, BT_MSG_MANIFEST);
    /* The Manifest may be refused as well. */
    refused.fence = fence;
    peer_say(f, &refused);
    log_expect(&f->peer, BT_MSG_QUIESCED);
    say(f, BT_MSG_ACCEPTED, fence);
    assert_int_equal(stats(f).stale_total, 1);
    assert_int_equal(stats(f).blocks_held, 8);
}

static void test_final_first_token(void **state)
{
    fixture *f = *state;
    f->sampled = EOS;
    prefill(f, 1, 1, 128, 10);
    bt_fence fence = ticket(f, ticket_fence(1, 1, 1, 4), 0, 4);
    layer_done(f, 0);
    assert_int_equal(f->put_count - f->put_done, 2);
    batch_end(f, BT_OK);
    const bt_msg *first = log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    assert_true(first->first_token.final);
    assert_int_equal(first->first_token.finish, BT_FINISH_STOP);
    log_expect_none(&f->peer); /* Abandon is a Quiesced: not while puts are in flight */
    put_finish(f, BT_OK);
    log_expect(&f->peer, BT_MSG_SEALED);
    put_finish(f, BT_OK);
    log_expect(&f->peer, BT_MSG_SEALED);
    assert_true(bt_fence_equal(&log_expect(&f->peer, BT_MSG_ABANDON)->fence, &fence));
    expect_empty(f);
    ticket(f, ticket_fence(1, 1, 2, 4), 0, 4); /* late: the attempt is over */
    expect_empty(f);
    f->sampled = 5; /* max_tokens 1 */
    prefill(f, 2, 1, 128, 1);
    compute(f);
    first = log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    assert_true(first->first_token.final);
    assert_int_equal(first->first_token.finish, BT_FINISH_LENGTH);
    expect_empty(f);
    f->sampled = EOS; /* ignored when asked to */
    bt_msg msg = work_of(BT_MSG_PREFILL, 3, 1, 128, 10);
    msg.prefill.ignore_eos = true;
    router_say(f, &msg);
    compute(f);
    log_expect(&f->router, BT_MSG_PINNED);
}

static void test_admission(void **state)
{
    fixture *f = *state;
    prefill(f, 9, 1, 513, 10);
    expect_refused(f, BT_REFUSE_TOO_LONG);
    bt_msg msg = work_of(BT_MSG_PREFILL, 9, 2, 64, 10);
    uint32_t bad[64] = {[5] = VOCAB};
    msg.prefill.tokens = bad;
    router_say(f, &msg);
    expect_refused(f, BT_REFUSE_TOO_LONG);
    prefill(f, 1, 1, 400, 10); /* 25 of 40 blocks */
    msg = work_of(BT_MSG_PREFILL, 2, 1, 400, 10);
    msg.prefill.deadline_ms = 50;
    router_say(f, &msg);      /* waits for blocks */
    prefill(f, 3, 1, 64, 10); /* and nobody overtakes it */
    prefill(f, 4, 1, 64, 10);
    prefill(f, 5, 1, 64, 10);
    expect_refused(f, BT_REFUSE_FULL); /* H8 */
    ticket(f, ticket_fence(5, 1, 0, 3), 0, 4);
    assert_int_equal(stats(f).stale_total, 1);
    assert_int_equal(stats(f).waiting, 3);
    at(f, f->now + 50 * MS);
    expect_refused(f, BT_REFUSE_FULL); /* its deadline; the others get their turn */
    assert_int_equal(stats(f).waiting, 0);
    compute(f);
    for (uint32_t i = 0; i < 3; i++) log_expect(&f->router, BT_MSG_PINNED);
    prefill(f, 6, 1, 400, 10);
    assert_int_equal(stats(f).waiting, 1);
    router_cancel(f, 1, 1); /* its blocks, cached ones evicted, are enough */
    assert_int_equal(stats(f).waiting, 0);
    compute(f);
    log_expect(&f->router, BT_MSG_PINNED);
}

static void test_batches_by_priority(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 200, 10); /* alone: 128 tokens in flight */
    bt_msg urgent = work_of(BT_MSG_PREFILL, 2, 1, 30, 10);
    urgent.prefill.priority = 5;
    prefill(f, 3, 1, 100, 10);
    router_say(f, &urgent);
    for (uint32_t layer = 0; layer < LAYERS; layer++) layer_done(f, layer);
    batch_end(f, BT_OK);
    /* Urgent first, the rest of the oldest next; of the third only whole runs would fit: none. */
    assert_int_equal(f->batch.seq_count, 2);
    assert_int_equal(f->seqs[0].token_count, 30);
    assert_int_equal(f->seqs[1].token_count, 72);
    assert_int_equal(f->seqs[1].position, 128);
    assert_true(f->seqs[1].sample);
    compute(f);
    assert_int_equal(stats(f).prefill_tokens_total, 330);
}

static void test_leases(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 64, 10);
    bt_fence fence = ticket(f, ticket_fence(1, 1, 1, 4), 0, 4);
    assert_true(bt_prefill_core_next_deadline(f->core) == f->now + 100 * MS);
    for (uint32_t i = 0; i < 3; i++) {
        at(f, f->now + 100 * MS); /* still computing: D is told so (H3) */
        assert_true(bt_fence_equal(&log_expect(&f->peer, BT_MSG_LEASE_RENEW)->fence, &fence));
    }
    compute(f);
    transfer(f);
    log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    log_expect(&f->peer, BT_MSG_MANIFEST);
    assert_true(bt_prefill_core_next_deadline(f->core) == f->now + 1000 * MS);
    at(f, f->now + 1000 * MS); /* nobody accepted: the pin's lease ends, and R hears it */
    expect_refused(f, BT_REFUSE_LEASE);
    assert_int_equal(stats(f).leases_ended_total, 1);
    expect_empty(f);
    /* The router's heartbeats stop. */
    prefill(f, 2, 1, 64, 10);
    ticket(f, ticket_fence(2, 1, 1, 5), 0, 4);
    bt_msg heartbeat = {.kind = BT_MSG_HEARTBEAT};
    at(f, f->now + 2999 * MS);
    router_say(f, &heartbeat);
    at(f, f->now + 2999 * MS);
    assert_int_equal(stats(f).running, 1);
    assert_true(bt_prefill_core_next_deadline(f->core) <= f->now + MS);
    at(f, f->now + MS);
    assert_int_equal(stats(f).running, 0);
    expect_refused(f, BT_REFUSE_LEASE); /* R may have lost its heartbeats only */
    compute(f);
    while (f->put_done < f->put_count) put_finish(f, BT_OK);
    f->peer.next = f->peer.count;
    expect_empty(f);
    /* Another life of the router owns nothing of the old one's. */
    bt_msg welcome = {.kind = BT_MSG_WELCOME};
    welcome.welcome.router_incarnation = 1;
    router_say(f, &welcome);
    prefill(f, 3, 1, 64, 10);
    router_say(f, &welcome);
    assert_int_equal(stats(f).running, 1);
    welcome.welcome.router_incarnation = 2;
    router_say(f, &welcome);
    assert_int_equal(stats(f).running, 0);
    compute(f);
    expect_empty(f);
}

static void test_engine_failure(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 64, 10);
    ticket(f, ticket_fence(1, 1, 1, 4), 0, 4);
    layer_done(f, 0);
    uint32_t in_flight = f->put_count - f->put_done;
    assert_int_equal(in_flight, 1);
    batch_end(f, BT_ERR_DEVICE);
    expect_refused(f, BT_REFUSE_ENGINE);
    assert_int_equal(stats(f).blocks_quarantined, 4);
    put_finish(f, BT_OK);
    expect_empty(f);
    assert_int_equal(stats(f).blocks_cached, 0); /* nothing of it is findable */
    bt_engine_event late = {.kind = BT_ENGINE_BATCH_DONE, .batch = f->batch.batch};
    bt_prefill_core_engine_event(f->core, &late, f->now);
    assert_int_equal(stats(f).stale_total, 1);
}

/* One request of a batch fails, and its KV is not findable; its neighbour is not touched. */
static void test_broken_logits_fail_alone(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 64, 10);
    prefill(f, 2, 1, 64, 10);
    prefill(f, 3, 1, 60, 10);
    batch_end(f, BT_OK);
    log_expect(&f->router, BT_MSG_PINNED);
    assert_int_equal(f->batch.seq_count, 2);
    uint32_t cached = stats(f).blocks_cached;
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(f->seqs[i].prompt_count, f->seqs[i].token_count);
        assert_ptr_equal(f->seqs[i].history, f->seqs[i].tokens);
        if (f->seqs[i].token_count == 64) f->broken = f->seqs[i].handle + 1;
    }
    batch_end(f, BT_OK);
    const bt_msg *refused = log_expect(&f->router, BT_MSG_REFUSED);
    assert_int_equal(refused->fence.request.bytes[0], 2);
    assert_int_equal(refused->refused.reason, BT_REFUSE_ENGINE);
    assert_non_null(strstr(refused->refused.text, "not finite"));
    assert_int_equal(log_expect(&f->router, BT_MSG_PINNED)->fence.request.bytes[0], 3);
    assert_int_equal(stats(f).blocks_cached, cached);
    router_cancel(f, 1, 1);
    router_cancel(f, 3, 1);
    expect_empty(f);
}

/* Ends the batch as the engine does with sequences that are scored: the logprob of token id is -id. */
static void scored_batch_end(fixture *f, bt_status status)
{
    static bt_token scores[8][256];
    for (uint32_t i = 0; i < f->batch.seq_count; i++) {
        const bt_engine_seq *seq = &f->seqs[i];
        for (uint32_t k = 0; k < seq->score_count; k++)
            scores[i][k] =
                (bt_token){.id = seq->score_next[k], .logprob = -(float)seq->score_next[k]};
        bt_engine_event event = {.kind = BT_ENGINE_SCORES,
                                 .batch = f->batch.batch,
                                 .handle = seq->handle,
                                 .scores = scores[i],
                                 .score_count = seq->score_count,
                                 .status = status};
        if (seq->score_count > 0) bt_prefill_core_engine_event(f->core, &event, f->now);
    }
    batch_end(f, BT_OK);
}

static void prefill_scored(fixture *f, uint8_t n, uint32_t attempt, uint32_t tokens, uint32_t base)
{
    bt_msg msg = work_of(BT_MSG_PREFILL, n, attempt, tokens, base + 10);
    msg.prefill.base = base;
    msg.prefill.prompt_logprobs = true;
    router_say(f, &msg);
}

/* Every token of the prompt but the first is told once, in order, 64 at a time, before the first
 * token; committed ones are not of the prompt. */
static void test_prompt_logprobs(void **state)
{
    fixture *f = *state;
    const uint32_t bases[] = {0, 3};
    for (uint32_t round = 0; round < 2; round++) {
        uint32_t tokens = 200, prompt = tokens - bases[round], next = 1;
        prefill_scored(f, 1, round + 1, tokens, bases[round]);
        assert_int_equal(f->seqs[0].position, 0); /* although the cache has it by the second time */
        ticket(f, ticket_fence(1, round + 1, 1, 4 + round), 0, 4);
        while (f->batch_busy) scored_batch_end(f, BT_OK);
        while (next < prompt) {
            const bt_msg *msg = log_expect(&f->router, BT_MSG_PROMPT_LOGPROBS);
            assert_int_equal(msg->tokens.index, next);
            assert_in_range(msg->tokens.token_count, 1, BT_MSG_TOKENS_MAX);
            assert_int_equal(f->router.entries[f->router.next - 1].token.id,
                             (next * 7 + 1) % (VOCAB - 1));
            next += msg->tokens.token_count;
        }
        assert_int_equal(next, prompt);
        assert_int_equal(log_expect(&f->router, BT_MSG_FIRST_TOKEN)->first_token.cached_tokens, 0);
        router_cancel(f, 1, round + 1);
        while (f->put_done < f->put_count) put_finish(f, BT_OK);
        f->peer.next = f->peer.count;
    }
    expect_empty(f);
}

static void test_broken_scores_fail_the_request(void **state)
{
    fixture *f = *state;
    prefill_scored(f, 1, 1, 200, 0);
    scored_batch_end(f, BT_ERR_FORMAT); /* of the first chunk */
    const bt_msg *refused = log_expect(&f->router, BT_MSG_REFUSED);
    assert_int_equal(refused->refused.reason, BT_REFUSE_ENGINE);
    assert_non_null(strstr(refused->refused.text, "not finite"));
    assert_int_equal(stats(f).blocks_cached, 0);
    expect_empty(f);
}

static void test_put_again_and_failed(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 64, 10);
    ticket(f, ticket_fence(1, 1, 1, 4), 0, 4);
    f->put_answer = BT_AGAIN;
    uint32_t before = f->put_count;
    compute(f);
    log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    f->put_answer = BT_OK;
    at(f, bt_prefill_core_next_deadline(f->core));
    assert_int_equal(f->put_count - before, LAYERS);
    put_finish(f, BT_ERR_PEER_LOST); /* a lane that failed once is not trusted with the rest */
    put_finish(f, BT_OK);
    log_expect_none(&f->peer);
    assert_int_equal(stats(f).tickets_dropped_total, 1);
    at(f, f->now + MS);
    log_expect(&f->router, BT_MSG_PINNED);
}

static void test_peer_down_and_up(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 64, 10);
    bt_fence fence = ticket(f, ticket_fence(1, 1, 1, 4), 0, 4);
    compute(f);
    log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    bt_prefill_core_peer_down(f->core, PEER, f->now);
    log_expect(&f->router, BT_MSG_PINNED); /* KV stays for a Retarget */
    const char *reason;
    assert_int_equal(bt_prefill_core_probe(f->core, PEER, &reason), BT_PROBE_FAILED);
    ticket(f, ticket_fence(1, 1, 1, 5), 0, 4);
    assert_int_equal(stats(f).stale_total, 1);
    /* The same incarnation over a new endpoint: generations are not accepted twice, and what is
     * still in flight counts. */
    bt_prefill_peer info = {.d_incarnation = D_INC,
                            .wire = BT_DTYPE_F32,
                            .slot_count = 4,
                            .cell_count = 4,
                            .cell_bytes = CELL_BYTES};
    bt_prefill_core_peer_up(f->core, PEER + 1, &info, f->now);
    bt_msg cancel = {.kind = BT_MSG_CANCEL, .fence = fence};
    bt_prefill_core_peer_message(f->core, PEER + 1, &cancel, f->now);
    log_expect_none(&f->peer);
    while (f->put_done < f->put_count) put_finish(f, BT_OK);
    bt_prefill_core_peer_message(f->core, PEER + 1, &cancel, f->now);
    assert_int_equal(f->peer.entries[f->peer.next].peer, PEER + 1);
    log_expect(&f->peer, BT_MSG_QUIESCED);
    compute(f);
}

/* H1: a put that failed with its endpoint may still land, so its slot is never said to be quiet. */
static void test_failed_put_is_never_quiesced(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 64, 10);
    bt_fence fence = ticket(f, ticket_fence(1, 1, 1, 4), 0, 4);
    compute(f);
    bt_prefill_core_peer_down(f->core, PEER, f->now);
    while (f->put_done < f->put_count) put_finish(f, BT_ERR_PEER_LOST);
    bt_prefill_peer info = {.d_incarnation = D_INC,
                            .wire = BT_DTYPE_F32,
                            .slot_count = 4,
                            .cell_count = 4,
                            .cell_bytes = CELL_BYTES};
    bt_prefill_core_peer_up(f->core, PEER, &info, f->now);
    compute(f); /* its probe */
    for (uint32_t i = 0; i < 3; i++) {
        say(f, BT_MSG_CANCEL, fence);
        at(f, f->now + MS);
    }
    log_expect_none(&f->peer);
    fence.slot = 2; /* another slot is as good as before */
    say(f, BT_MSG_CANCEL, fence);
    assert_int_equal(log_expect(&f->peer, BT_MSG_QUIESCED)->fence.slot, 2);
    /* Another incarnation has another arena. */
    info.d_incarnation = fence.d_incarnation = D_INC + 1;
    fence.slot = 1;
    bt_prefill_core_peer_up(f->core, PEER, &info, f->now);
    say(f, BT_MSG_CANCEL, fence);
    log_expect(&f->peer, BT_MSG_QUIESCED);
}

static void test_probe_ends(void **state)
{
    (void)state;
    bt_prefill_config config = config_default();
    bt_prefill_peer info = {.d_incarnation = D_INC,
                            .wire = BT_DTYPE_F32,
                            .slot_count = 4,
                            .cell_count = 4,
                            .cell_bytes = CELL_BYTES};
    fixture *f = malloc(sizeof(*f));
    const char *reason;
    make(f, &config);
    bt_prefill_core_peer_up(f->core, PEER, &info, f->now);
    compute(f);
    at(f, bt_prefill_core_next_deadline(f->core)); /* no Ticket ever came */
    assert_int_equal(bt_prefill_core_probe(f->core, PEER, &reason), BT_PROBE_FAILED);
    assert_string_equal(reason, "probe: no Ticket came from the peer");
    expect_empty(f);
    bt_prefill_core_peer_up(f->core, PEER, &info, f->now);
    bt_fence fence = ticket(f, probe_fence(1), 0, 4);
    ticket(f, fence, 0, 4); /* D repeats it until it hears us */
    compute(f);
    transfer(f);
    log_expect(&f->peer, BT_MSG_MANIFEST);
    bt_msg refused = {.kind = BT_MSG_REFUSED, .fence = fence};
    refused.refused.reason = BT_REFUSE_INCOMPATIBLE;
    strcpy(refused.refused.text, "probe: layer 1 head 0 K error 0.9 > bound 0.1");
    peer_say(f, &refused);
    log_expect(&f->peer, BT_MSG_QUIESCED);
    assert_int_equal(bt_prefill_core_probe(f->core, PEER, &reason), BT_PROBE_REFUSED);
    assert_string_equal(reason, refused.refused.text);
    expect_empty(f);
    info.slot_count = BT_SLOTS_MAX + 1;
    bt_prefill_core_peer_up(f->core, PEER, &info, f->now);
    assert_int_equal(bt_prefill_core_probe(f->core, PEER, &reason), BT_PROBE_REFUSED);
    free(f->memory);
    free(f);
}

static void test_drain(void **state)
{
    fixture *f = *state;
    prefill(f, 1, 1, 64, 10);
    bt_prefill_core_drain(f->core, f->now);
    prefill(f, 2, 1, 64, 10);
    expect_refused(f, BT_REFUSE_DRAINING);
    assert_false(bt_prefill_core_idle(f->core));
    compute(f);
    log_expect(&f->router, BT_MSG_PINNED);
    bt_msg retarget = {.kind = BT_MSG_RETARGET, .fence = fence_of(1, 2)};
    router_say(f, &retarget); /* honoured (H7) */
    log_expect(&f->router, BT_MSG_PINNED);
    bt_fence fence = ticket(f, ticket_fence(1, 2, 0, 9), 0, 4);
    log_expect(&f->router, BT_MSG_FIRST_TOKEN);
    transfer(f);
    log_expect(&f->peer, BT_MSG_MANIFEST);
    say(f, BT_MSG_ACCEPTED, fence);
    expect_empty(f);
}

#define CORE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CORE_TEST(test_happy_path),
        CORE_TEST(test_ticket_before_prefill_is_held),
        CORE_TEST(test_late_ticket_gets_everything_at_once),
        CORE_TEST(test_cached_runs_are_skipped),
        CORE_TEST(test_retarget),
        CORE_TEST(test_ticket_of_another_decode),
        CORE_TEST(test_stale_prefills),
        CORE_TEST(test_stale_tickets),
        CORE_TEST(test_cancel_before_ticket_burns_it),
        CORE_TEST(test_quiesced_waits_for_puts),
        CORE_TEST(test_push_again_after_bad_digest),
        CORE_TEST(test_final_first_token),
        CORE_TEST(test_admission),
        CORE_TEST(test_batches_by_priority),
        CORE_TEST(test_leases),
        CORE_TEST(test_engine_failure),
        CORE_TEST(test_broken_logits_fail_alone),
        CORE_TEST(test_prompt_logprobs),
        CORE_TEST(test_broken_scores_fail_the_request),
        CORE_TEST(test_put_again_and_failed),
        CORE_TEST(test_peer_down_and_up),
        CORE_TEST(test_failed_put_is_never_quiesced),
        cmocka_unit_test(test_probe_ends),
        CORE_TEST(test_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
