/* The decode core driven row by row (side D of HANDOFF): the test is router, prefill daemon, engine
 * and unpacker at once. */
#include "tests/unit/core_fixture.h"

#include "common/kv/prefix.h"
#include "decoded/core.h"

#define PEER 3u
#define BLOCK_TOKENS 16u
#define POOL_BLOCKS 44u /* four are the daemon's own probe */
#define USABLE (POOL_BLOCKS - 4u)
#define SLOTS 4u
#define CELLS 4u
#define CELL_BYTES (5u * 2u * 64u * 8u * 4u) /* five runs */
#define LEASE (400 * MS)
#define REPEAT (50 * MS)

typedef struct {
    void *memory;
    bt_decode_core *core;
    uint64_t now;
    msg_log router, peer;
    bool batch_busy;
    bt_engine_batch batch;
    bt_engine_seq seqs[8];
    uint32_t fed[8]; /* the token that each sequence of the batch was given */
    uint32_t sampled;
    uint32_t broken; /* handle + 1 of the sequence whose logits are not finite */
    bt_decode_unpack unpacks[256];
    uint32_t unpack_count, unpack_done;
    double probe_error;
} fixture;

static uint32_t probe_tokens[64];
static const bt_sha256 weights = {{9}};

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
    assert_true(batch->seq_count >= 1 && batch->seq_count <= 8);
    f->batch_busy = true;
    f->batch = *batch;
    memcpy(f->seqs, batch->seqs, batch->seq_count * sizeof(f->seqs[0]));
    for (uint32_t i = 0; i < batch->seq_count; i++) {
        const bt_engine_seq *s = &batch->seqs[i];
        f->fed[i] = s->tokens[0];
        assert_true(s->block_count * BLOCK_TOKENS >= s->position + s->token_count);
    }
    return BT_OK;
}

static void on_unpack(void *ctx, const bt_decode_unpack *unpack)
{
    fixture *f = ctx;
    assert_true(f->unpack_count < 256);
    f->unpacks[f->unpack_count++] = *unpack;
}

static void on_distance(void *ctx, uint32_t peer, const uint32_t *own, const uint32_t *pushed,
                        double *ret_error, double *ret_bound, char ret_where[BT_REASON_BYTES_MAX])
{
    assert_int_equal(peer, PEER);
    assert_int_not_equal(own[0], pushed[0]);
    *ret_error = ((fixture *)ctx)->probe_error;
    *ret_bound = 0.1;
    strcpy(ret_where, "layer 1 head 0 K");
}

static bt_decode_config config_default(void)
{
    return (bt_decode_config){.incarnation = D_INC,
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
                              .slot_count = SLOTS,
                              .cell_count = CELLS,
                              .cell_bytes = CELL_BYTES,
                              .quarantine_max = 2,
                              .reserve_tokens = 16,
                              .lease_ns = LEASE,
                              .cancel_repeat_ns = REPEAT,
                              .router_timeout_ns = 3000 * MS,
                              .probe_tokens = probe_tokens};
}

static const bt_decode_peer peer_info = {.p_incarnation = P_INC,
                                         .weights_digest = {{9}},
                                         .wire = BT_DTYPE_F32,
                                         .kv_dtype = BT_DTYPE_F32};

static void peer_say(fixture *f, const bt_msg *msg)
{
    bt_decode_core_peer_message(f->core, PEER, msg, f->now);
}

static void router_say(fixture *f, const bt_msg *msg)
{
    bt_decode_core_router_message(f->core, msg, f->now);
}

static void say(fixture *f, bt_msg_kind kind, bt_fence fence)
{
    bt_msg msg = {.kind = kind, .fence = fence};
    peer_say(f, &msg);
}

static void at(fixture *f, uint64_t now)
{
    f->now = now;
    bt_decode_core_tick(f->core, now);
}

static bt_decode_stats stats(fixture *f)
{
    bt_decode_stats s;
    bt_decode_core_stats(f->core, &s);
    assert_int_equal(s.blocks_free + s.blocks_cached + s.blocks_held + s.blocks_quarantined,
                     USABLE);
    assert_int_equal(s.slots_free + s.slots_held + s.slots_quarantined, SLOTS);
    return s;
}

static void expect_empty(fixture *f)
{
    bt_decode_stats s = stats(f);
    assert_int_equal(s.blocks_held, 0);
    assert_int_equal(s.slots_free, SLOTS);
    assert_int_equal(s.running + s.waiting, 0);
    assert_true(bt_decode_core_idle(f->core));
    log_expect_none(&f->router);
    log_expect_none(&f->peer);
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
        if (seqs[i].sample) bt_decode_core_engine_event(f->core, &event, f->now);
    }
    f->batch_busy = false;
    bt_engine_event event = {.kind = BT_ENGINE_BATCH_DONE, .batch = batch.batch, .status = status};
    bt_decode_core_engine_event(f->core, &event, f->now);
}

/* What unpacking a good frame yields. */
static bt_kv_digest digest_of(const bt_frame *frame)
{
    return (bt_kv_digest){{frame->layer * 1000 + frame->run_first + 1, frame->run_count}};
}

static void unpack_finish(fixture *f, bool good)
{
    assert_true(f->unpack_done < f->unpack_count);
    const bt_decode_unpack *u = &f->unpacks[f->unpack_done++];
    bt_kv_digest digest = digest_of(&u->frame);
    if (!good) digest.lane[1]++;
    bt_decode_core_unpack_done(f->core, u->tag, &digest, f->now);
}

static void reserve(fixture *f, uint8_t n, uint32_t attempt, uint32_t tokens, uint32_t max_tokens)
{
    bt_msg msg = work_of(BT_MSG_RESERVE, n, attempt, tokens, max_tokens);
    router_say(f, &msg);
}

/* One frame of a layer: runs [first, first + count) of a prompt. */
static bt_msg sealed(bt_fence fence, uint32_t frame, uint32_t layer, uint32_t first, uint32_t count,
                     uint32_t tokens)
{
    bt_msg msg = {.kind = BT_MSG_SEALED, .fence = fence};
    uint32_t end = (first + count) * 64;
    msg.sealed.frame = (bt_frame){.frame = frame,
                                  .cell = frame % CELLS,
                                  .layer = layer,
                                  .run_first = first,
                                  .run_count = count,
                                  .head_count = 1,
                                  .token_end = end < tokens ? end : tokens};
    msg.sealed.digest = digest_of(&msg.sealed.frame);
    return msg;
}

/* The Manifest of work n over the frames that push() sends. */
static bt_msg manifest_of(bt_fence fence, uint8_t n, uint32_t tokens, uint32_t first,
                          uint32_t frames)
{
    bt_msg work = work_of(BT_MSG_RESERVE, n, 1, tokens, 10);
    bt_kv_path path = {.tenant_salt = work.reserve.tenant_salt,
                       .weights_digest = &weights,
                       .producer = BT_DTYPE_F32,
                       .wire = BT_DTYPE_F32};
    bt_msg msg = {.kind = BT_MSG_MANIFEST, .fence = fence};
    msg.manifest.token_count = tokens;
    msg.manifest.frame_count = frames;
    msg.manifest.first_token = (bt_token){.id = 7, .logprob = -2};
    for (uint32_t layer = 0; layer < frames; layer++) {
        bt_msg s = sealed(fence, layer, layer, first, (tokens + 63) / 64 - first, tokens);
        msg.manifest.digest_sum.lane[0] += s.sealed.digest.lane[0];
        msg.manifest.digest_sum.lane[1] += s.sealed.digest.lane[1];
    }
    const uint32_t *list = bt_request_id_equal(&fence.request, &bt_probe_request_id)
                               ? probe_tokens
                               : work.reserve.tokens;
    bt_kv_prefix_hash(&path, list, tokens, &msg.manifest.prefix_hash);
    return msg;
}

/* All frames, one a layer, verified. */
static void push(fixture *f, bt_fence fence, uint32_t tokens, uint32_t first)
{
    uint32_t runs = (tokens + 63) / 64;
    for (uint32_t layer = 0; first < runs && layer < LAYERS; layer++) {
        bt_msg msg = sealed(fence, layer, layer, first, runs - first, tokens);
        peer_say(f, &msg);
        unpack_finish(f, true);
        assert_int_equal(log_expect(&f->peer, BT_MSG_CREDIT)->credit.cell, layer % CELLS);
    }
}

static void manifest(fixture *f, bt_fence fence, uint8_t n, uint32_t tokens, uint32_t first)
{
    bt_msg msg = manifest_of(fence, n, tokens, first, first * 64 < tokens ? LAYERS : 0);
    peer_say(f, &msg);
}

static void expect_token(fixture *f, uint32_t index, uint32_t id)
{
    const bt_msg *msg = log_expect(&f->router, BT_MSG_TOKENS);
    assert_int_equal(msg->tokens.index, index);
    assert_int_equal(msg->tokens.tokens[0].id, id);
}

static bt_fence granted(fixture *f)
{
    const bt_msg *msg = log_expect(&f->peer, BT_MSG_TICKET);
    assert_true(msg->fence.generation > 0);
    return msg->fence;
}

/* Reserve, push, Accepted, first token: decoding. */
static bt_fence start(fixture *f, uint8_t n, uint32_t tokens, uint32_t max_tokens)
{
    reserve(f, n, 1, tokens, max_tokens);
    bt_fence fence = granted(f);
    uint32_t first = f->peer.entries[f->peer.next - 1].msg.ticket.run_first;
    push(f, fence, tokens, first);
    manifest(f, fence, n, tokens, first);
    log_expect(&f->peer, BT_MSG_ACCEPTED);
    log_expect(&f->router, BT_MSG_ACCEPTED);
    expect_token(f, 0, 7);
    return fence;
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

static void renew(fixture *f, uint8_t n)
{
    bt_fence fence = fence_of(n, 1);
    bt_msg msg = {.kind = BT_MSG_RENEW};
    msg.renew.requests = &fence.request;
    msg.renew.request_count = 1;
    router_say(f, &msg);
}

static void make(fixture *f)
{
    memset(f, 0, sizeof(*f));
    bt_decode_config config = config_default();
    bt_decode_io io = {.ctx = f,
                       .send_router = on_router,
                       .send_peer = on_peer,
                       .submit = on_submit,
                       .unpack = on_unpack,
                       .probe_distance = on_distance};
    f->memory = aligned_block(bt_decode_core_bytes(&config));
    f->now = 1000 * MS;
    f->sampled = 5;
    f->core = bt_decode_core_init(f->memory, &config, &io, f->now);
    bt_decode_core_start(f->core, f->now);
    assert_false(bt_decode_core_ready(f->core));
    batch_end(f, BT_OK);
    assert_true(bt_decode_core_ready(f->core));
    assert_int_equal(stats(f).probe_tokens_total, 64);
    assert_int_equal(stats(f).blocks_free, USABLE); /* an idle daemon holds nothing */
    assert_true(bt_decode_core_next_deadline(f->core) == UINT64_MAX);
}

static void probe_pass(fixture *f)
{
    bt_decode_core_peer_up(f->core, PEER, &peer_info, f->now);
    bt_fence fence = granted(f);
    push(f, fence, 64, 0);
    manifest(f, fence, 0, 64, 0);
    log_expect(&f->peer, BT_MSG_ACCEPTED);
}

static int setup(void **state)
{
    fixture *f = malloc(sizeof(*f));
    make(f);
    probe_pass(f);
    expect_empty(f);
    assert_int_equal(stats(f).blocks_cached, 0);
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

static void test_happy_path(void **state)
{
    fixture *f = *state;
    reserve(f, 1, 1, 100, 4);
    const bt_msg *ticket = log_expect(&f->peer, BT_MSG_TICKET);
    bt_fence fence = ticket->fence, shown;
    assert_int_equal(ticket->ticket.lease_ms, 400);
    assert_int_equal(ticket->ticket.cell_count, CELLS);
    assert_false(ticket->ticket.probe);
    assert_int_equal(bt_decode_core_slot(f->core, fence.slot, &shown), BT_SLOT_GRANTED);
    assert_true(bt_fence_equal(&shown, &fence));
    assert_int_equal(stats(f).blocks_held, 7); /* 100 + 4 tokens */
    push(f, fence, 100, 0);
    assert_false(f->batch_busy); /* H2 */
    manifest(f, fence, 1, 100, 0);
    assert_true(bt_fence_equal(&log_expect(&f->peer, BT_MSG_ACCEPTED)->fence, &fence));
    log_expect(&f->router, BT_MSG_ACCEPTED);
    expect_token(f, 0, 7);
    assert_int_equal(bt_decode_core_slot(f->core, fence.slot, &shown), BT_SLOT_FREE);
    assert_int_equal(f->seqs[0].position, 100);
    assert_int_equal(f->fed[0], 7);
    for (uint32_t i = 1; i < 4; i++) {
        f->sampled = 10 + i;
        batch_end(f, BT_OK);
        expect_token(f, i, 10 + i);
        if (i < 3) assert_int_equal(f->fed[0], 10 + i);
    }
    const bt_msg *end = log_expect(&f->router, BT_MSG_FINISHED);
    assert_int_equal(end->finished.reason, BT_FINISH_LENGTH);
    assert_int_equal(end->finished.token_count, 4);
    assert_false(f->batch_busy);
    assert_int_equal(stats(f).blocks_cached, 4);
    assert_int_equal(stats(f).tokens_total, 3);
    assert_int_equal(stats(f).stale_total, 0);
    expect_empty(f);
    f->sampled = EOS; /* the end of a sequence */
    start(f, 2, 64, 10);
    batch_end(f, BT_OK);
    expect_token(f, 1, EOS);
    assert_int_equal(log_expect(&f->router, BT_MSG_FINISHED)->finished.reason, BT_FINISH_STOP);
    expect_empty(f);
}

static void test_continuation_keeps_indices(void **state)
{
    fixture *f = *state;
    bt_msg msg = work_of(BT_MSG_RESERVE, 1, 2, 70, 10);
    msg.reserve.base = 6; /* six tokens of the 70 were committed by an attempt before */
    router_say(f, &msg);
    bt_fence fence = granted(f);
    push(f, fence, 70, 0);
    bt_msg wrong = manifest_of(fence, 1, 70, 0, LAYERS);
    wrong.manifest.base = 6;
    peer_say(f, &wrong);
    log_expect(&f->peer, BT_MSG_ACCEPTED);
    log_expect(&f->router, BT_MSG_ACCEPTED);
    expect_token(f, 6, 7);
    batch_end(f, BT_OK);
    expect_token(f, 7, 5);
    router_cancel(f, 1, 2);
    batch_end(f, BT_OK);
    expect_empty(f);
}

static void test_cached_prefix(void **state)
{
    fixture *f = *state;
    start(f, 1, 140, 2);
    batch_end(f, BT_OK);
    expect_token(f, 1, 5);
    log_expect(&f->router, BT_MSG_FINISHED);
    assert_int_equal(stats(f).blocks_cached, 8);
    reserve(f, 1, 2, 140, 2); /* two whole runs are here; P sends the tail */
    const bt_msg *ticket = log_expect(&f->peer, BT_MSG_TICKET);
    assert_int_equal(ticket->ticket.run_first, 2);
    bt_fence fence = ticket->fence;
    bt_msg twice = sealed(fence, 0, 0, 1, 2, 140); /* not what the Ticket asked for */
    peer_say(f, &twice);
    assert_true(log_expect(&f->peer, BT_MSG_REFUSED)->refused.retry);
    say(f, BT_MSG_QUIESCED, fence);
    fence = granted(f);
    push(f, fence, 140, 2);
    manifest(f, fence, 1, 140, 2);
    log_expect(&f->peer, BT_MSG_ACCEPTED);
    log_expect(&f->router, BT_MSG_ACCEPTED);
    expect_token(f, 0, 7);
    router_cancel(f, 1, 2);
    batch_end(f, BT_OK);
    reserve(f, 1, 3, 128, 2); /* all of it is here: no frame at all */
    ticket = log_expect(&f->peer, BT_MSG_TICKET);
    assert_int_equal(ticket->ticket.run_first, 2);
    manifest(f, ticket->fence, 1, 128, 2);
    log_expect(&f->peer, BT_MSG_ACCEPTED);
    log_expect(&f->router, BT_MSG_ACCEPTED);
    expect_token(f, 0, 7);
    batch_end(f, BT_OK);
    expect_token(f, 1, 5);
    log_expect(&f->router, BT_MSG_FINISHED);
    assert_int_equal(stats(f).cached_tokens_total, 256);
    bt_msg other = work_of(BT_MSG_RESERVE, 1, 4, 128, 2); /* another tenant sees nothing */
    other.reserve.tenant_salt[0] = 1;
    router_say(f, &other);
    assert_int_equal(log_expect(&f->peer, BT_MSG_TICKET)->ticket.run_first, 0);
}

static void test_bad_digest_once_then_good(void **state)
{
    fixture *f = *state;
    reserve(f, 1, 1, 64, 2);
    bt_fence old = granted(f);
    bt_msg first = sealed(old, 0, 0, 0, 1, 64), second = sealed(old, 1, 1, 0, 1, 64);
    peer_say(f, &first);
    peer_say(f, &second);
    unpack_finish(f, false);
    const bt_msg *refused = log_expect(&f->peer, BT_MSG_REFUSED);
    assert_true(refused->refused.retry);
    assert_int_equal(refused->refused.reason, BT_REFUSE_DIGEST);
    log_expect_none(&f->router);
    /* Until Quiesced nothing of the old fence counts, and no new Ticket goes out (H1). */
    peer_say(f, &second);
    manifest(f, old, 1, 64, 0);
    at(f, f->now + REPEAT);
    log_expect(&f->peer, BT_MSG_REFUSED); /* said again */
    say(f, BT_MSG_QUIESCED, old);
    log_expect_none(&f->peer); /* our own unpack of an old frame still runs */
    unpack_finish(f, true);
    bt_fence fence = granted(f);
    assert_int_equal(fence.slot, old.slot);
    assert_int_equal(fence.generation, old.generation + 1);
    peer_say(f, &first); /* late, of the old fence */
    say(f, BT_MSG_QUIESCED, old);
    assert_int_equal(stats(f).stale_total, 4);
    push(f, fence, 64, 0);
    manifest(f, fence, 1, 64, 0);
    log_expect(&f->peer, BT_MSG_ACCEPTED);
    log_expect(&f->router, BT_MSG_ACCEPTED);
    expect_token(f, 0, 7);
    assert_int_equal(stats(f).frames_bad_total, 1);
}

static void test_bad_digest_twice_is_final(void **state)
{
    fixture *f = *state;
    reserve(f, 1, 1, 64, 2);
    bt_fence fence = granted(f), shown;
    for (uint32_t i = 0; i < 2; i++) {
        bt_msg msg = sealed(fence, 0, 0, 0, 1, 64);
        peer_say(f, &msg);
        unpack_finish(f, false);
        if (i == 1) break;
        log_expect(&f->peer, BT_MSG_REFUSED);
        say(f, BT_MSG_QUIESCED, fence);
        fence = granted(f);
    }
    expect_refused(f, BT_REFUSE_DIGEST);
    assert_true(bt_fence_equal(&log_expect(&f->peer, BT_MSG_CANCEL)->fence, &fence));
    assert_int_equal(bt_decode_core_slot(f->core, fence.slot, &shown), BT_SLOT_QUARANTINED);
    assert_int_equal(stats(f).blocks_held, 0); /* pool blocks are back at once */
    assert_int_equal(stats(f).quarantines_total, 1);
    for (uint32_t i = 0; i < 3; i++) {
        at(f, f->now + REPEAT);
        assert_true(bt_fence_equal(&log_expect(&f->peer, BT_MSG_CANCEL)->fence, &fence));
    }
    bt_fence other = fence;
    other.generation--;
    say(f, BT_MSG_QUIESCED, other);
    assert_int_equal(stats(f).slots_quarantined, 1);
    say(f, BT_MSG_QUIESCED, fence);
    expect_empty(f);
}

static void test_incomplete_manifest(void **state)
{
    fixture *f = *state;
    reserve(f, 1, 1, 64, 2);
    bt_fence fence = granted(f);
    bt_msg msg = sealed(fence, 0, 0, 0, 1, 64);
    peer_say(f, &msg);
    unpack_finish(f, true);
    log_expect(&f->peer, BT_MSG_CREDIT);
    manifest(f, fence, 1, 64, 0);
    assert_int_equal(log_expect(&f->peer, BT_MSG_REFUSED)->refused.reason, BT_REFUSE_MISSING);
    say(f, BT_MSG_QUIESCED, fence);
    fence = granted(f);
    push(f, fence, 64, 0);
    bt_msg wrong = manifest_of(fence, 1, 64, 0, LAYERS);
    wrong.manifest.prefix_hash.bytes[0]++; /* KV of other tokens */
    peer_say(f, &wrong);
    expect_refused(f, BT_REFUSE_DIGEST);
    log_expect(&f->peer, BT_MSG_CANCEL);
    say(f, BT_MSG_QUIESCED, fence);
    /* The Manifest may come while frames are still being verified. */
    reserve(f, 2, 1, 64, 2);
    fence = granted(f);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        msg = sealed(fence, layer, layer, 0, 1, 64);
        peer_say(f, &msg);
    }
    manifest(f, fence, 2, 64, 0);
    log_expect_none(&f->peer);
    unpack_finish(f, true);
    log_expect_none(&f->peer);
    log_expect_none(&f->router);
    unpack_finish(f, true);
    log_expect(&f->peer, BT_MSG_ACCEPTED);
    log_expect(&f->router, BT_MSG_ACCEPTED);
}

/* Every way in which a Manifest or a frame can contradict the Reserve. */
static void test_hostile_peer(void **state)
{
    fixture *f = *state;
    for (uint32_t kind = 0; kind < 9; kind++) {
        uint8_t n = (uint8_t)(kind + 1);
        reserve(f, n, 1, 100, 10);
        bt_fence fence = granted(f);
        bt_msg msg = sealed(fence, 0, 0, 0, 2, 100);
        switch (kind) {
        case 0: msg.sealed.frame.layer = LAYERS; break;
        case 1: msg.sealed.frame.run_count = 3; break;
        case 2: msg.sealed.frame.token_end = 99; break;
        case 3: msg.sealed.frame.cell = CELLS; break;
        case 4: msg.sealed.frame.head_first = 1; break;
        case 5: msg.sealed.frame.frame = 1u << 30; break;
        case 6: /* a run twice */
            peer_say(f, &msg);
            msg.sealed.frame.frame = 1;
            msg.sealed.frame.cell = 1;
            break;
        case 7: /* a cell that was not credited */
            peer_say(f, &msg);
            msg.sealed.frame.frame = 1;
            msg.sealed.frame.layer = 1;
            break;
        default:
            push(f, fence, 100, 0);
            msg = manifest_of(fence, n, 100, 0, LAYERS);
            msg.manifest.first_token.id = VOCAB;
        }
        peer_say(f, &msg);
        assert_true(log_expect(&f->peer, BT_MSG_REFUSED)->refused.retry);
        while (f->unpack_done < f->unpack_count) unpack_finish(f, true);
        router_cancel(f, n, 1);
        log_expect(&f->peer, BT_MSG_CANCEL);
        say(f, BT_MSG_QUIESCED, fence);
    }
    expect_empty(f);
    assert_int_equal(stats(f).frames_bad_total, 9);
}

static void test_duplicates_and_stale_fences(void **state)
{
    fixture *f = *state;
    reserve(f, 1, 1, 64, 3);
    bt_fence fence = granted(f);
    reserve(f, 1, 1, 64, 3); /* attempts count up */
    bt_msg foreign = work_of(BT_MSG_RESERVE, 2, 1, 64, 3);
    foreign.fence.d_incarnation++;
    router_say(f, &foreign);
    assert_int_equal(stats(f).stale_total, 2);
    bt_msg msg = sealed(fence, 0, 0, 0, 1, 64);
    peer_say(f, &msg);
    peer_say(f, &msg); /* the same message twice is not a second delivery */
    unpack_finish(f, true);
    peer_say(f, &msg);
    log_expect(&f->peer, BT_MSG_CREDIT);
    assert_int_equal(stats(f).stale_total, 4);
    bt_decode_core_unpack_done(f->core, f->unpacks[f->unpack_done - 1].tag, &msg.sealed.digest,
                               f->now);
    assert_int_equal(stats(f).stale_total, 5);
    bt_fence wrong[6] = {fence, fence, fence, fence, fence, fence};
    wrong[0].generation++;
    wrong[1].attempt++;
    wrong[2].p_incarnation++;
    wrong[3].d_incarnation++;
    wrong[4].slot = SLOTS;
    wrong[5].request.bytes[3]++;
    static const bt_msg_kind kinds[5] = {BT_MSG_SEALED, BT_MSG_MANIFEST, BT_MSG_ABANDON,
                                         BT_MSG_QUIESCED, BT_MSG_LEASE_RENEW};
    for (uint32_t i = 0; i < 6; i++)
        for (uint32_t k = 0; k < 5; k++) say(f, kinds[k], wrong[i]);
    assert_int_equal(stats(f).stale_total, 35);
    say(f, BT_MSG_QUIESCED, fence);                               /* nobody asked */
    bt_decode_core_peer_message(f->core, PEER + 1, &msg, f->now); /* no such peer */
    assert_int_equal(stats(f).stale_total, 37);
    msg = sealed(fence, 1, 1, 0, 1, 64);
    peer_say(f, &msg);
    unpack_finish(f, true);
    log_expect(&f->peer, BT_MSG_CREDIT);
    manifest(f, fence, 1, 64, 0);
    log_expect(&f->peer, BT_MSG_ACCEPTED);
    manifest(f, fence, 1, 64, 0);
    peer_say(f, &msg);
    assert_int_equal(stats(f).stale_total, 39);
    log_expect(&f->router, BT_MSG_ACCEPTED);
    expect_token(f, 0, 7);
    log_expect_none(&f->router);
    log_expect_none(&f->peer);
}

static void test_grant_lease(void **state)
{
    fixture *f = *state;
    reserve(f, 1, 1, 64, 3);
    bt_fence fence = granted(f);
    at(f, f->now + 300 * MS);
    say(f, BT_MSG_LEASE_RENEW, fence);
    at(f, f->now + 300 * MS);
    bt_msg msg = sealed(fence, 0, 0, 0, 1, 64); /* renews as well */
    peer_say(f, &msg);
    at(f, f->now + 300 * MS);
    renew(f, 1); /* and so does R */
    at(f, f->now + 399 * MS);
    log_expect_none(&f->router);
    assert_true(bt_decode_core_next_deadline(f->core) == f->now + MS);
    at(f, f->now + MS);
    expect_refused(f, BT_REFUSE_LEASE);
    log_expect(&f->peer, BT_MSG_CANCEL);
    /* The unpack in flight still writes: its blocks and its slot wait for it. */
    assert_int_equal(stats(f).blocks_quarantined, 5);
    say(f, BT_MSG_QUIESCED, fence);
    assert_int_equal(stats(f).slots_free, SLOTS - 1);
    unpack_finish(f, true);
    expect_empty(f);
    assert_int_equal(stats(f).leases_ended_total, 1);
}

static void test_decode_lease(void **state)
{
    fixture *f = *state;
    start(f, 1, 64, 100);
    for (uint32_t i = 1; i < 6; i++) {
        at(f, f->now + 300 * MS);
        renew(f, 1);
        batch_end(f, BT_OK);
        expect_token(f, i, 5);
    }
    at(f, f->now + LEASE);
    expect_refused(f, BT_REFUSE_LEASE);
    assert_int_equal(stats(f).blocks_quarantined, 5); /* the step in flight writes to them */
    batch_end(f, BT_OK);
    expect_empty(f);
    /* The router's heartbeats stop. */
    start(f, 2, 64, 100);
    reserve(f, 3, 1, 64, 100);
    bt_fence fence = granted(f);
    bt_msg heartbeat = {.kind = BT_MSG_HEARTBEAT};
    router_say(f, &heartbeat);
    for (uint32_t i = 1; i <= 9; i++) {
        f->now += 300 * MS;
        say(f, BT_MSG_LEASE_RENEW, fence);
    }
    start(f, 4, 64, 100); /* also a sign of life */
    f->now += 2999 * MS;
    assert_int_equal(stats(f).running, 2);
    f->now += MS;
    bt_decode_core_tick(f->core, f->now);
    assert_int_equal(stats(f).running + stats(f).waiting, 0);
    while (f->router.next + 2 < f->router.count) f->router.next++;
    expect_refused(f, BT_REFUSE_LEASE); /* R may have lost its heartbeats only */
    expect_refused(f, BT_REFUSE_LEASE);
}

static void test_quarantine_is_bounded(void **state)
{
    fixture *f = *state;
    bt_fence fences[2];
    for (uint8_t n = 0; n < 2; n++) {
        reserve(f, n, 1, 64, 3);
        fences[n] = granted(f);
        router_cancel(f, n, 1);
        assert_true(bt_fence_equal(&log_expect(&f->peer, BT_MSG_CANCEL)->fence, &fences[n]));
    }
    assert_int_equal(stats(f).slots_quarantined, 2);
    reserve(f, 3, 1, 64, 3); /* two slots are free, but this peer's share is full */
    expect_refused(f, BT_REFUSE_FULL);
    say(f, BT_MSG_QUIESCED, fences[0]);
    reserve(f, 4, 1, 64, 3);
    bt_fence fence = granted(f);
    assert_int_equal(fence.slot, fences[0].slot);
    assert_int_equal(fence.generation, fences[0].generation + 1);
    say(f, BT_MSG_QUIESCED, fences[0]); /* a duplicate does not end the new grant */
    assert_int_equal(stats(f).waiting, 1);
}

/* H3: a P that pairs again and again and never answers gets no more than its share, probes included. */
static void test_probes_are_bounded_too(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 0; i < 6; i++) {
        bt_decode_core_peer_lost(f->core, PEER, f->now);
        bt_decode_core_peer_up(f->core, PEER, &peer_info, f->now);
    }
    bt_fence fence = granted(f);
    granted(f);
    log_expect_none(&f->peer); /* the others wait for a Quiesced */
    assert_int_equal(stats(f).slots_quarantined, 2);
    say(f, BT_MSG_QUIESCED, fence);
    assert_int_equal(granted(f).slot, fence.slot);
}

static void test_peer_lost_then_dead(void **state)
{
    fixture *f = *state;
    start(f, 1, 64, 100);
    reserve(f, 2, 1, 64, 3);
    bt_fence fence = granted(f), shown;
    bt_decode_core_peer_lost(f->core, PEER, f->now);
    expect_refused(f, BT_REFUSE_PEER_LOST);
    log_expect_none(&f->peer); /* no endpoint to say Cancel on */
    assert_int_equal(bt_decode_core_slot(f->core, fence.slot, &shown), BT_SLOT_QUARANTINED);
    reserve(f, 3, 1, 64, 3);
    expect_refused(f, BT_REFUSE_PEER_LOST);
    batch_end(f, BT_OK); /* H6: what was accepted goes on */
    expect_token(f, 1, 5);
    say(f, BT_MSG_QUIESCED, fence); /* not over a lost endpoint */
    assert_int_equal(stats(f).slots_quarantined, 1);
    bt_decode_core_peer_dead(f->core, PEER, f->now);
    assert_int_equal(stats(f).slots_free, SLOTS);
    bt_decode_core_peer_dead(f->core, PEER, f->now);
    /* Dead without having been lost: grants end, their slots are free at once. */
    probe_pass(f);
    reserve(f, 4, 1, 64, 3);
    granted(f);
    bt_decode_core_peer_dead(f->core, PEER, f->now);
    expect_refused(f, BT_REFUSE_PEER_LOST);
    assert_int_equal(stats(f).slots_free, SLOTS);
}

static void test_peer_back_is_asked_again(void **state)
{
    fixture *f = *state;
    reserve(f, 2, 1, 64, 3);
    bt_fence fence = granted(f);
    bt_decode_core_peer_lost(f->core, PEER, f->now);
    expect_refused(f, BT_REFUSE_PEER_LOST);
    at(f, f->now + REPEAT);
    log_expect_none(&f->peer);
    probe_pass(f); /* the same incarnation over a new endpoint */
    at(f, f->now + REPEAT);
    assert_true(bt_fence_equal(&log_expect(&f->peer, BT_MSG_CANCEL)->fence, &fence));
    say(f, BT_MSG_QUIESCED, fence);
    expect_empty(f);
}

static void test_abandon(void **state)
{
    fixture *f = *state;
    reserve(f, 1, 1, 64, 3);
    bt_fence fence = granted(f);
    say(f, BT_MSG_ABANDON, fence);
    expect_empty(f);
    reserve(f, 2, 1, 64, 3); /* in quarantine it frees the slot as well */
    fence = granted(f);
    router_cancel(f, 2, 1);
    log_expect(&f->peer, BT_MSG_CANCEL);
    say(f, BT_MSG_ABANDON, fence);
    expect_empty(f);
}

static void test_full_and_drain(void **state)
{
    fixture *f = *state;
    reserve(f, 1, 1, 400, 113); /* 512 tokens need KV, of a context of 512 */
    granted(f);
    reserve(f, 2, 1, 400, 114);
    expect_refused(f, BT_REFUSE_TOO_LONG);
    reserve(f, 3, 1, 300, 20); /* 26 blocks are held, 14 left */
    expect_refused(f, BT_REFUSE_FULL);
    assert_int_equal(stats(f).slots_free, SLOTS - 1);
    for (uint8_t n = 4; n < 7; n++) {
        reserve(f, n, 1, 16, 2);
        granted(f);
    }
    reserve(f, 7, 1, 16, 2);
    expect_refused(f, BT_REFUSE_FULL);
    bt_decode_core_drain(f->core, f->now);
    reserve(f, 8, 1, 16, 2);
    expect_refused(f, BT_REFUSE_DRAINING);
    assert_false(bt_decode_core_idle(f->core));
    assert_int_equal(stats(f).refused_total, 4);
}

static void test_evicts_the_youngest(void **state)
{
    fixture *f = *state;
    start(f, 1, 272, 200); /* 18 blocks with the reserve of 16 */
    start(f, 2, 272, 200); /* 36 of 40 */
    uint32_t old = 0, young = 0;
    for (uint32_t step = 0; step < 200; step++) {
        batch_end(f, BT_OK);
        for (; f->router.next < f->router.count; f->router.next++) {
            const bt_msg *msg = &f->router.entries[f->router.next].msg;
            if (msg->kind == BT_MSG_EVICTED) {
                assert_int_equal(msg->fence.request.bytes[0], 2);
                assert_int_equal(msg->evicted.token_count, young + 1);
                goto evicted;
            }
            assert_int_equal(msg->kind, BT_MSG_TOKENS);
            uint32_t *index = msg->fence.request.bytes[0] == 1 ? &old : &young;
            assert_int_equal(msg->tokens.index, ++*index);
        }
    }
    fail_msg("the pool never got full");
evicted:
    assert_true(old >= 40);
    assert_int_equal(stats(f).evicted_total, 1);
    assert_int_equal(stats(f).running, 1);
    while (f->batch_busy) batch_end(f, BT_OK);
    assert_int_equal(f->router.entries[f->router.count - 1].msg.kind, BT_MSG_FINISHED);
    assert_int_equal(f->router.entries[f->router.count - 1].msg.finished.token_count, 200);
    f->router.next = f->router.count;
    expect_empty(f);
}

static void test_engine_failure(void **state)
{
    fixture *f = *state;
    start(f, 1, 64, 10);
    batch_end(f, BT_ERR_DEVICE);
    expect_refused(f, BT_REFUSE_ENGINE);
    expect_empty(f);
    assert_false(f->batch_busy);
}

/* One sequence of a batch fails; its neighbour, and what the sampler is told of it, is not touched. */
static void test_broken_logits_fail_alone(void **state)
{
    fixture *f = *state;
    start(f, 1, 64, 10);
    start(f, 2, 50, 3);
    batch_end(f, BT_OK);
    expect_token(f, 1, f->sampled);
    assert_int_equal(f->batch.seq_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        bool first = f->seqs[i].position > 60;
        assert_int_equal(f->seqs[i].prompt_count, first ? 64 : 50);
        assert_int_equal(f->seqs[i].history[first ? 64 : 50], 7); /* the first token, of P */
        assert_int_equal(f->seqs[i].history[f->seqs[i].position], first ? f->sampled : 7);
        if (first) f->broken = f->seqs[i].handle + 1;
    }
    batch_end(f, BT_OK);
    uint32_t refused = 0, tokens = 0;
    for (uint32_t i = 0; i < 2; i++) {
        const bt_msg *msg = &f->router.entries[f->router.next++].msg;
        bool first = msg->fence.request.bytes[0] == 1;
        assert_int_equal(msg->kind, first ? BT_MSG_REFUSED : BT_MSG_TOKENS);
        refused += first;
        tokens += !first;
        if (!first) continue;
        assert_int_equal(msg->refused.reason, BT_REFUSE_ENGINE);
        assert_non_null(strstr(msg->refused.text, "not finite"));
    }
    assert_int_equal(refused, 1);
    assert_int_equal(tokens, 1);
    assert_int_equal(stats(f).running, 1);
    batch_end(f, BT_OK);
    expect_token(f, 2, f->sampled);
    log_expect(&f->router, BT_MSG_FINISHED);
    expect_empty(f);
}

static void test_newer_attempt_replaces(void **state)
{
    fixture *f = *state;
    reserve(f, 1, 1, 64, 10);
    bt_fence fence = granted(f);
    reserve(f, 1, 2, 64, 10);
    assert_true(bt_fence_equal(&log_expect(&f->peer, BT_MSG_CANCEL)->fence, &fence));
    bt_fence newer = granted(f);
    assert_int_not_equal(newer.slot, fence.slot); /* H6: another slot */
    router_cancel(f, 1, 1);                       /* late: of the older attempt only */
    assert_int_equal(stats(f).waiting, 1);
    reserve(f, 1, 1, 64, 10);
    assert_int_equal(stats(f).stale_total, 1);
    push(f, newer, 64, 0);
    manifest(f, newer, 1, 64, 0);
    log_expect(&f->peer, BT_MSG_ACCEPTED);
    log_expect(&f->router, BT_MSG_ACCEPTED);
    expect_token(f, 0, 7);
    reserve(f, 1, 3, 64, 10); /* and a newer one stops its decode */
    granted(f);
    assert_int_equal(stats(f).running, 0);
    batch_end(f, BT_OK);
    log_expect_none(&f->router);
    router_cancel(f, 1, 9);
    log_expect(&f->peer, BT_MSG_CANCEL);
    reserve(f, 1, 9, 64, 10);
    assert_int_equal(stats(f).stale_total, 2);
    assert_int_equal(stats(f).waiting, 0);
}

static void test_probe(void **state)
{
    (void)state;
    fixture *f = malloc(sizeof(*f));
    make(f);
    bt_decode_core_peer_up(f->core, PEER, &peer_info, f->now);
    bt_fence fence = granted(f);
    reserve(f, 1, 1, 64, 10);
    expect_refused(f, BT_REFUSE_INCOMPATIBLE); /* not before the pair has proven itself */
    at(f, f->now + REPEAT);
    assert_true(bt_fence_equal(&log_expect(&f->peer, BT_MSG_TICKET)->fence, &fence)); /* again */
    push(f, fence, 64, 0);
    at(f, f->now + REPEAT);
    log_expect_none(&f->peer);
    f->probe_error = 0.5;
    manifest(f, fence, 0, 64, 0);
    const bt_msg *refused = log_expect(&f->peer, BT_MSG_REFUSED);
    assert_int_equal(refused->refused.reason, BT_REFUSE_INCOMPATIBLE);
    assert_false(refused->refused.retry);
    assert_string_equal(refused->refused.text, "probe: layer 1 head 0 K error 0.5 > bound 0.1");
    expect_empty(f);
    reserve(f, 1, 2, 64, 10);
    expect_refused(f, BT_REFUSE_INCOMPATIBLE);
    /* Paired anew; a probe that never comes ends with its lease, and P is told. */
    bt_decode_core_peer_up(f->core, PEER, &peer_info, f->now);
    fence = granted(f);
    say(f, BT_MSG_LEASE_RENEW, fence);
    at(f, f->now + LEASE);
    log_expect(&f->peer, BT_MSG_REFUSED);
    log_expect(&f->peer, BT_MSG_CANCEL);
    say(f, BT_MSG_QUIESCED, fence);
    log_expect_none(&f->router);
    expect_empty(f);
    assert_int_equal(stats(f).probe_tokens_total, 64);
    free(f->memory);
    free(f);
}

#define CORE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CORE_TEST(test_happy_path),
        CORE_TEST(test_continuation_keeps_indices),
        CORE_TEST(test_cached_prefix),
        CORE_TEST(test_bad_digest_once_then_good),
        CORE_TEST(test_bad_digest_twice_is_final),
        CORE_TEST(test_incomplete_manifest),
        CORE_TEST(test_hostile_peer),
        CORE_TEST(test_duplicates_and_stale_fences),
        CORE_TEST(test_grant_lease),
        CORE_TEST(test_decode_lease),
        CORE_TEST(test_quarantine_is_bounded),
        CORE_TEST(test_probes_are_bounded_too),
        CORE_TEST(test_peer_lost_then_dead),
        CORE_TEST(test_peer_back_is_asked_again),
        CORE_TEST(test_abandon),
        CORE_TEST(test_full_and_drain),
        CORE_TEST(test_evicts_the_youngest),
        CORE_TEST(test_engine_failure),
        CORE_TEST(test_broken_logits_fail_alone),
        CORE_TEST(test_newer_attempt_replaces),
        cmocka_unit_test(test_probe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
