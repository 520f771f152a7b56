/* test_handoff.c - one handoff in one process: both real cores, two real engines, real frames and sealed messages; only
 * sockets and shared memory are replaced, by an array that is the landing arena and two queues. What is broken on the way,
 * one byte at a time, must end in Refused or be dropped, and never reach a token.
 *
 * The wire is int8, so that records have scales; the prompt is three chunks and two and a half runs; a cell
 * holds one run of one layer, so a handoff is LAYERS x RUNS frames. */
#include "common/engine/generate.h"
#include "decoded/core.h"
#include "decoded/probe_bounds.h"
#include "prefilld/core.h"
#include "proto/seal.h"
#include "tests/unit/core_fixture.h"
#include "tests/unit/tiny_model.h"

#define SEED 20261123u
#define PROMPT 150u
#define TOKENS 12u
#define RUNS 3u
#define FRAMES (TINY_LAYERS * RUNS)
#define PEER 3u /* index of the other side, on both */
#define SLOTS 2u
#define CELLS 4u
#define STAGING 4u
#define CELL_BYTES_MAX 16384u
#define QUEUE 256u

typedef struct {
    uint32_t bytes;
    uint8_t data[BT_SEAL_BYTES_MAX];
} sealed;

typedef struct {
    sealed messages[QUEUE];
    uint32_t written, read; /* from 0 with every request; what was read stays, to look back at */
    msg_log log;            /* of the same messages, before they were sealed */
} channel;

/* What goes wrong, in the first push of a request and, if twice, in the second too. */
typedef struct {
    enum { NOTHING, FLIPPED_BYTE, OTHER_KEY, MANIFEST } kind;
    bool twice;
    uint32_t frame, byte;
    void (*change)(bt_msg *manifest);
} fault;

typedef struct {
    bt_engine *p_engine, *d_engine;
    bt_prefill_core *p;
    bt_decode_core *d;
    void *p_memory, *d_memory;
    bt_seal p_seal, d_seal;
    bt_codec *codec;
    bt_wire_shape wire;
    size_t frame_bytes;
    uint8_t arena[SLOTS][CELLS][CELL_BYTES_MAX];
    channel to_d, to_p;
    msg_log p_router, d_router;
    bool p_busy, d_busy; /* the engines */
    uint64_t put_tags[STAGING * 4];
    uint32_t put_written, put_read;
    struct {
        uint64_t tag;
        bt_kv_digest digest;
    } unpacked[QUEUE];
    uint32_t unpack_written, unpack_read;
    fault fault;
    uint32_t pushes; /* Tickets of this request */
    bool deliver_twice;
    uint64_t now_ns;
    uint8_t request;
} world;

static bt_model *model;
static uint32_t prompt[PROMPT];

/* ---- what the cores ask for ---- */

static void p_send_router(void *ctx, const bt_msg *msg)
{
    log_add(&((world *)ctx)->p_router, PEER, msg);
}

static void d_send_router(void *ctx, const bt_msg *msg)
{
    log_add(&((world *)ctx)->d_router, PEER, msg);
}

static void channel_send(channel *c, const bt_seal *seal, const bt_msg *msg)
{
    assert_true(c->written < QUEUE);
    sealed *s = &c->messages[c->written++];
    size_t bytes;
    assert_int_equal(bt_seal_write(seal, msg, s->data, sizeof(s->data), &bytes, NULL), BT_OK);
    s->bytes = (uint32_t)bytes;
    log_add(&c->log, PEER, msg);
}

static bool fault_now(const world *w)
{
    return w->fault.kind != NOTHING && (w->pushes == 1 || w->fault.twice);
}

static void p_send_peer(void *ctx, uint32_t peer, const bt_msg *msg)
{
    world *w = ctx;
    assert_int_equal(peer, PEER);
    bt_msg sent = *msg;
    if (msg->kind == BT_MSG_MANIFEST && fault_now(w) && w->fault.kind == MANIFEST)
        w->fault.change(&sent);
    channel_send(&w->to_d, &w->p_seal, &sent);
}

static void d_send_peer(void *ctx, uint32_t peer, const bt_msg *msg)
{
    world *w = ctx;
    assert_int_equal(peer, PEER);
    w->pushes += msg->kind == BT_MSG_TICKET;
    channel_send(&w->to_p, &w->d_seal, msg);
}

static bt_status p_submit(void *ctx, const bt_engine_batch *batch)
{
    world *w = ctx;
    bt_status status = bt_engine_submit(w->p_engine, batch, NULL);
    w->p_busy |= status == BT_OK;
    return status;
}

static bt_status d_submit(void *ctx, const bt_engine_batch *batch)
{
    world *w = ctx;
    bt_status status = bt_engine_submit(w->d_engine, batch, NULL);
    w->d_busy |= status == BT_OK;
    return status;
}

/* Packs, lands, and then breaks what landed. */
static bt_status p_put(void *ctx, const bt_prefill_put *put, bt_kv_digest *ret_digest)
{
    world *w = ctx;
    static uint8_t staging[CELL_BYTES_MAX];
    uint8_t key[BT_KEY_BYTES];
    assert_true(put->slot < SLOTS && put->frame.cell < CELLS && put->frame.run_count == 1);
    bool hit = fault_now(w) && put->frame.frame == w->fault.frame;
    memcpy(key, w->p_seal.digest_key, sizeof(key));
    if (hit && w->fault.kind == OTHER_KEY) key[0] ^= 1;
    assert_int_equal(bt_engine_pack(w->p_engine, &put->wire, &put->frame, put->blocks, key, staging,
                                    ret_digest, NULL),
                     BT_OK);
    uint8_t *cell = w->arena[put->slot][put->frame.cell];
    memcpy(cell, staging, w->frame_bytes);
    if (hit && w->fault.kind == FLIPPED_BYTE) cell[w->fault.byte] ^= 1u << (w->fault.byte % 8);
    assert_true(w->put_written - w->put_read < STAGING * 4);
    w->put_tags[w->put_written++ % (STAGING * 4)] = put->tag;
    return BT_OK;
}

static void d_unpack(void *ctx, const bt_decode_unpack *unpack)
{
    world *w = ctx;
    assert_true(w->unpack_written - w->unpack_read < QUEUE);
    bt_kv_digest digest;
    const uint8_t *cell = w->arena[unpack->slot][unpack->frame.cell];
    assert_int_equal(bt_engine_unpack(w->d_engine, &unpack->wire, &unpack->frame, unpack->blocks,
                                      w->d_seal.digest_key, cell, &digest, NULL),
                     BT_OK);
    w->unpacked[w->unpack_written % QUEUE].tag = unpack->tag;
    w->unpacked[w->unpack_written++ % QUEUE].digest = digest;
}

static void d_probe_distance(void *ctx, uint32_t peer, const uint32_t *own, const uint32_t *pushed,
                             double *ret_error, double *ret_bound, char where[BT_REASON_BYTES_MAX])
{
    world *w = ctx;
    bt_kv_part part;
    uint32_t layer, head;
    (void)peer;
    bt_engine_kv_distance(w->d_engine, own, pushed, BT_PROBE_TOKENS, &part, &layer, &head,
                          ret_error);
    *ret_bound = bt_probe_bound(BT_DTYPE_INT8, w->wire.dtype, BT_DTYPE_INT8);
    snprintf(where, BT_REASON_BYTES_MAX, "layer %u", layer);
}

/* ---- what happens ---- */

static void deliver(world *w, bool to_d, const sealed *s)
{
    bt_msg msg;
    bt_err err;
    if (bt_seal_open(to_d ? &w->d_seal : &w->p_seal, s->data, s->bytes, w->codec, &msg, &err) !=
        BT_OK)
        fail_msg("a sealed message does not open: %s", err.message);
    if (to_d)
        bt_decode_core_peer_message(w->d, PEER, &msg, w->now_ns);
    else
        bt_prefill_core_peer_message(w->p, PEER, &msg, w->now_ns);
}

static bool channel_step(world *w, bool to_d)
{
    channel *c = to_d ? &w->to_d : &w->to_p;
    if (c->read == c->written) return false;
    const sealed *s = &c->messages[c->read++];
    deliver(w, to_d, s);
    if (w->deliver_twice) deliver(w, to_d, s);
    return true;
}

static bool engine_step(world *w, bool prefill)
{
    bool *busy = prefill ? &w->p_busy : &w->d_busy;
    bt_engine *engine = prefill ? w->p_engine : w->d_engine;
    bt_engine_event event;
    if (!*busy) return false;
    bt_engine_wait(engine);
    if (bt_engine_poll(engine, &event, 1) == 0) return true;
    if (event.kind == BT_ENGINE_BATCH_DONE) *busy = false;
    if (prefill)
        bt_prefill_core_engine_event(w->p, &event, w->now_ns);
    else
        bt_decode_core_engine_event(w->d, &event, w->now_ns);
    return true;
}

/* One thing happens; false if nothing is left to happen. */
static bool step(world *w)
{
    w->now_ns += 1000;
    if (w->put_read < w->put_written) {
        uint64_t tag = w->put_tags[w->put_read++ % (STAGING * 4)];
        bt_prefill_core_put_done(w->p, tag, BT_OK, w->now_ns);
        return true;
    }
    if (w->unpack_read < w->unpack_written) {
        uint32_t i = w->unpack_read++ % QUEUE;
        bt_decode_core_unpack_done(w->d, w->unpacked[i].tag, &w->unpacked[i].digest, w->now_ns);
        return true;
    }
    return channel_step(w, true) || channel_step(w, false) || engine_step(w, true) ||
           engine_step(w, false);
}

/* ---- the world ---- */

static bt_engine *engine_of(uint32_t block_tokens)
{
    const bt_engine_config config = {.backend = "cpu",
                                     .kv_dtype = BT_DTYPE_INT8,
                                     .block_tokens = block_tokens,
                                     .pool_blocks = 1024 / block_tokens,
                                     .batch_seqs_max = 4,
                                     .batch_tokens_max = BT_RUN_TOKENS,
                                     .threads = 1};
    bt_engine *engine = NULL;
    assert_int_equal(bt_engine_create(model, &config, &engine, NULL), BT_OK);
    return engine;
}

static void open_cores(world *w, const uint32_t *probe_tokens)
{
    const bt_prefill_config p = {.incarnation = P_INC,
                                 .kv = bt_engine_kv(w->p_engine)->shape,
                                 .vocab = TINY_VOCAB,
                                 .context_tokens_max = TINY_CONTEXT,
                                 .requests_max = 4,
                                 .batch_tokens_max = BT_RUN_TOKENS,
                                 .batch_seqs_max = 4,
                                 .staging_bytes = CELL_BYTES_MAX,
                                 .staging_count = STAGING,
                                 .pin_lease_ns = 1000000 * MS,
                                 .tombstone_ns = 1000000 * MS,
                                 .router_timeout_ns = 1000000 * MS,
                                 .probe_tokens = probe_tokens};
    const bt_prefill_io p_io = {w, p_send_router, p_send_peer, p_submit, p_put};
    w->p_memory = aligned_block(bt_prefill_core_bytes(&p));
    w->p = bt_prefill_core_init(w->p_memory, &p, &p_io, w->now_ns);
    const bt_decode_config d = {.incarnation = D_INC,
                                .kv = bt_engine_kv(w->d_engine)->shape,
                                .vocab = TINY_VOCAB,
                                .context_tokens_max = TINY_CONTEXT,
                                .seqs_max = 4,
                                .batch_seqs_max = 4,
                                .slot_count = SLOTS,
                                .cell_count = CELLS,
                                .cell_bytes = (uint32_t)w->frame_bytes,
                                .quarantine_max = SLOTS,
                                .reserve_tokens = 16,
                                .lease_ns = 1000000 * MS,
                                .cancel_repeat_ns = 1000000 * MS,
                                .router_timeout_ns = 1000000 * MS,
                                .probe_tokens = probe_tokens};
    const bt_decode_io d_io = {w, d_send_router, d_send_peer, d_submit, d_unpack, d_probe_distance};
    w->d_memory = aligned_block(bt_decode_core_bytes(&d));
    w->d = bt_decode_core_init(w->d_memory, &d, &d_io, w->now_ns);
}

/* Both sides up and paired: the probe has gone the way of every other handoff. */
static world *world_open(void)
{
    world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    static const uint8_t secret[BT_KEY_BYTES] = {7};
    uint32_t probe_tokens[BT_PROBE_TOKENS];
    bt_probe_tokens(TINY_VOCAB, probe_tokens);
    bt_seal_init(&w->p_seal, secret, BT_ROLE_PREFILL);
    bt_seal_init(&w->d_seal, secret, BT_ROLE_DECODE);
    w->codec = bt_codec_init(aligned_block(bt_codec_bytes()));
    w->wire = (bt_wire_shape){.dtype = BT_DTYPE_INT8, .head_dim = TINY_HEAD_DIM};
    w->frame_bytes = bt_wire_frame_bytes(&w->wire, 1, TINY_KV_HEADS);
    assert_true(w->frame_bytes <= CELL_BYTES_MAX);
    w->now_ns = MS;
    w->p_engine = engine_of(16);
    w->d_engine = engine_of(64);
    open_cores(w, probe_tokens);
    bt_decode_core_start(w->d, w->now_ns);
    while (step(w)) continue;
    assert_true(bt_decode_core_ready(w->d));
    const bt_prefill_peer d_info = {.d_incarnation = D_INC,
                                    .wire = w->wire.dtype,
                                    .slot_count = SLOTS,
                                    .cell_count = CELLS,
                                    .cell_bytes = (uint32_t)w->frame_bytes};
    const bt_decode_peer p_info = {
        .p_incarnation = P_INC, .wire = w->wire.dtype, .kv_dtype = BT_DTYPE_INT8};
    bt_prefill_core_peer_up(w->p, PEER, &d_info, w->now_ns);
    bt_decode_core_peer_up(w->d, PEER, &p_info, w->now_ns);
    while (step(w)) continue;
    const char *reason;
    assert_int_equal(bt_prefill_core_probe(w->p, PEER, &reason), BT_PROBE_READY);
    return w;
}

/* Nothing may be held when a test ends. */
static void world_close(world *w)
{
    bt_prefill_stats p;
    bt_decode_stats d;
    bt_prefill_core_stats(w->p, &p);
    bt_decode_core_stats(w->d, &d);
    assert_int_equal(p.blocks_held + p.blocks_quarantined, 0);
    assert_int_equal(d.blocks_held, 0);
    assert_int_equal(d.slots_free, SLOTS);
    bt_engine_destroy(w->p_engine);
    bt_engine_destroy(w->d_engine);
    free(w->codec);
    free(w->p_memory);
    free(w->d_memory);
    free(w);
}

static const bt_sampling greedy = {.top_p = 1, .logprobs = true};
static const bt_sampling seeded = {
    .temperature = 1.5f, .top_p = 0.95f, .logprobs = true, .seed = 99};

/* All that looks at the tokens so far: greedy, so that any of it that is lost shows. */
static const bt_logit_bias rows[] = {{3, -4}, {17, 2.5f}, {40, 6}};
static const bt_sampling penalized = {.top_p = 1,
                                      .repetition_penalty = 1.3f,
                                      .presence_penalty = 0.5f,
                                      .frequency_penalty = 0.4f,
                                      .min_tokens = TOKENS / 2,
                                      .logprobs = true,
                                      .bias = rows,
                                      .bias_count = 3};

/* R asks both for one request that shares no prefix with another: its salt is its own. */
static void request_start(world *w, const bt_sampling *sampling, bool prompt_logprobs)
{
    w->to_d.written = w->to_d.read = w->to_p.written = w->to_p.read = 0;
    w->to_d.log.count = w->to_d.log.next = w->to_p.log.count = w->to_p.log.next = 0;
    w->p_router.count = w->p_router.next = w->d_router.count = w->d_router.next = 0;
    w->pushes = 0;
    w->request++;
    bt_msg msg = work_of(BT_MSG_RESERVE, w->request, 1, PROMPT, TOKENS);
    msg.reserve.tokens = prompt;
    msg.reserve.ignore_eos = true;
    msg.reserve.prompt_logprobs = prompt_logprobs;
    msg.reserve.sampling = *sampling;
    msg.reserve.tenant_salt[0] = w->request;
    bt_decode_core_router_message(w->d, &msg, w->now_ns);
    msg.kind = BT_MSG_PREFILL;
    bt_prefill_core_router_message(w->p, &msg, w->now_ns);
}

/* The oracle: the same formats in one process. */
static void expect_tokens(const bt_sampling *sampling, bt_token ret_tokens[TOKENS])
{
    const bt_generator_config config = {.kv_dtype = BT_DTYPE_INT8,
                                        .block_tokens = 32,
                                        .threads = 1,
                                        .handoff = true,
                                        .prefill_kv_dtype = BT_DTYPE_INT8,
                                        .prefill_block_tokens = 64,
                                        .wire = BT_DTYPE_INT8};
    const bt_prompt ids = {.ids = prompt, .count = PROMPT};
    const bt_generate_options options = {
        .sampling = *sampling, .max_tokens = TOKENS, .ignore_eos = true};
    bt_generator *generator = NULL;
    uint32_t count = 0;
    assert_int_equal(bt_generator_create(model, &config, &generator, NULL), BT_OK);
    assert_int_equal(bt_generate(generator, &ids, &options, ret_tokens, &count, NULL), BT_OK);
    assert_int_equal(count, TOKENS);
    bt_generator_destroy(generator);
}

static uint32_t sent(const msg_log *log, bt_msg_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < log->count; i++) count += log->entries[i].msg.kind == kind;
    return count;
}

static const bt_msg *sent_at(const msg_log *log, bt_msg_kind kind, uint32_t nth)
{
    for (uint32_t i = 0; i < log->count; i++)
        if (log->entries[i].msg.kind == kind && nth-- == 0) return &log->entries[i].msg;
    fail_msg("no such %s was sent", bt_msg_name(kind));
    return NULL;
}

/* What R hears of a request that went well: from P the first token, from D Accepted, then every
 * token once and in order, then the end. */
static void assert_answer(world *w, const bt_token expected[TOKENS])
{
    const bt_msg *msg = log_expect(&w->p_router, BT_MSG_FIRST_TOKEN);
    assert_true(bt_token_equal(&msg->first_token.token, &expected[0]));
    /* Refused after all was computed: without a ticket the KV is pinned, until the next one. */
    if (sent(&w->p_router, BT_MSG_PINNED) > 0) log_expect(&w->p_router, BT_MSG_PINNED);
    log_expect_none(&w->p_router);
    log_expect(&w->d_router, BT_MSG_ACCEPTED);
    for (uint32_t i = 0; i < TOKENS; i++) {
        msg = log_expect(&w->d_router, BT_MSG_TOKENS);
        assert_int_equal(msg->tokens.index, i);
        assert_true(bt_token_equal(&msg->tokens.tokens[0], &expected[i]));
    }
    msg = log_expect(&w->d_router, BT_MSG_FINISHED);
    assert_int_equal(msg->finished.token_count, TOKENS);
    log_expect_none(&w->d_router);
}

/* The first push was refused for this reason, quiesced, granted again and pushed again. */
static void assert_second_push(world *w, bt_refuse_reason reason, const char *text)
{
    const bt_msg *refused = sent_at(&w->to_p.log, BT_MSG_REFUSED, 0);
    const bt_msg *first = sent_at(&w->to_p.log, BT_MSG_TICKET, 0);
    const bt_msg *second = sent_at(&w->to_p.log, BT_MSG_TICKET, 1);
    const bt_msg *quiesced = sent_at(&w->to_d.log, BT_MSG_QUIESCED, 0);
    assert_int_equal(refused->refused.reason, reason);
    assert_string_equal(refused->refused.text, text);
    assert_true(refused->refused.retry);
    assert_true(bt_fence_equal(&refused->fence, &first->fence));
    assert_true(bt_fence_equal(&quiesced->fence, &first->fence));
    assert_int_equal(second->fence.slot, first->fence.slot);
    assert_int_equal(second->fence.generation, first->fence.generation + 1);
    assert_int_equal(sent(&w->to_p.log, BT_MSG_REFUSED), 1);
    assert_int_equal(sent(&w->to_p.log, BT_MSG_TICKET), 2);
    assert_int_equal(sent(&w->to_d.log, BT_MSG_QUIESCED), 1);
    assert_int_equal(sent(&w->to_p.log, BT_MSG_ACCEPTED), 1);
    const bt_msg *accepted = sent_at(&w->to_p.log, BT_MSG_ACCEPTED, 0);
    assert_true(bt_fence_equal(&accepted->fence, &second->fence));
}

/* ---- the tests ---- */

/* Found at the frame, and not only when the Manifest's sum tells. */
#define BAD_FRAME "a frame's digest does not agree"

static void test_equals_one_process(void **state)
{
    (void)state;
    const bt_sampling *samplings[] = {&greedy, &seeded, &penalized};
    world *w = world_open();
    for (int i = 0; i < 3; i++) {
        bt_token expected[TOKENS];
        expect_tokens(samplings[i], expected);
        request_start(w, samplings[i], false);
        while (step(w)) continue;
        assert_answer(w, expected);
        assert_int_equal(sent(&w->to_d.log, BT_MSG_SEALED), FRAMES);
        assert_int_equal(sent(&w->to_d.log, BT_MSG_MANIFEST), 1);
        assert_int_equal(w->to_d.log.entries[w->to_d.log.count - 1].msg.kind, BT_MSG_MANIFEST);
        assert_int_equal(sent(&w->to_p.log, BT_MSG_TICKET), 1);
        assert_int_equal(sent(&w->to_p.log, BT_MSG_REFUSED), 0);
        assert_int_equal(sent(&w->to_p.log, BT_MSG_ACCEPTED), 1);
    }
    world_close(w);
}

/* What P tells R of the prompt is what one process says of it; then all goes on as without. */
static void test_prompt_logprobs_equal_one_process(void **state)
{
    (void)state;
    static bt_token scores[PROMPT], expected[TOKENS];
    bt_sampling sampling = greedy;
    sampling.top_logprobs = 2;
    const bt_generator_config config = {
        .kv_dtype = BT_DTYPE_INT8, .block_tokens = 64, .threads = 1};
    const bt_prompt ids = {.ids = prompt, .count = PROMPT};
    bt_generator *generator = NULL;
    assert_int_equal(bt_generator_create(model, &config, &generator, NULL), BT_OK);
    assert_int_equal(bt_generate_scores(generator, &ids, 2, scores, NULL), BT_OK);
    bt_generator_destroy(generator);
    expect_tokens(&sampling, expected);
    world *w = world_open();
    request_start(w, &sampling, true);
    while (step(w)) continue;
    for (uint32_t next = 1; next < PROMPT;) {
        const bt_msg *msg = log_expect(&w->p_router, BT_MSG_PROMPT_LOGPROBS);
        const bt_token *first = &w->p_router.entries[w->p_router.next - 1].token;
        assert_int_equal(msg->tokens.index, next);
        assert_true(bt_token_equal(first, &scores[next - 1]));
        next += msg->tokens.token_count;
        assert_true(next <= PROMPT);
    }
    assert_answer(w, expected);
    world_close(w);
}

/* First byte, codes of a row that the last run does not have, first scale, a middle record's codes
 * and its scales, last byte. */
static uint32_t byte_position(const world *w, uint32_t which)
{
    uint32_t record = (uint32_t)bt_wire_record_bytes(&w->wire), codes = 64 * TINY_HEAD_DIM;
    const uint32_t positions[] = {0,
                                  63 * TINY_HEAD_DIM + 5,
                                  codes,
                                  2 * record + 7,
                                  2 * record + codes + 3,
                                  (uint32_t)w->frame_bytes - 1};
    return positions[which];
}

#define POSITIONS 6u

static void test_a_flipped_byte_is_pushed_again(void **state)
{
    (void)state;
    bt_token expected[TOKENS];
    expect_tokens(&seeded, expected);
    world *w = world_open();
    for (uint32_t frame = 0; frame < FRAMES; frame++) {
        for (uint32_t i = 0; i < POSITIONS; i++) {
            w->fault = (fault){.kind = FLIPPED_BYTE, .frame = frame, .byte = byte_position(w, i)};
            request_start(w, &seeded, false);
            while (step(w)) continue;
            assert_second_push(w, BT_REFUSE_DIGEST, BAD_FRAME);
            assert_answer(w, expected);
        }
    }
    world_close(w);
}

static void test_a_byte_that_stays_flipped_ends_the_attempt(void **state)
{
    (void)state;
    world *w = world_open();
    for (uint32_t frame = 0; frame < FRAMES; frame++) {
        for (uint32_t i = 0; i < POSITIONS; i++) {
            bt_decode_stats before, after;
            bt_decode_core_stats(w->d, &before);
            w->fault = (fault){
                .kind = FLIPPED_BYTE, .twice = true, .frame = frame, .byte = byte_position(w, i)};
            request_start(w, &seeded, false);
            while (sent(&w->d_router, BT_MSG_REFUSED) == 0) assert_true(step(w));
            bt_fence fence;
            const bt_msg *second = sent_at(&w->to_p.log, BT_MSG_TICKET, 1);
            assert_int_equal(bt_decode_core_slot(w->d, second->fence.slot, &fence),
                             BT_SLOT_QUARANTINED); /* H1: until P's Quiesced */
            assert_true(bt_fence_equal(&fence, &second->fence));
            while (step(w)) continue;
            assert_int_equal(bt_decode_core_slot(w->d, second->fence.slot, &fence), BT_SLOT_FREE);
            bt_decode_core_stats(w->d, &after);
            assert_int_equal(after.quarantines_total, before.quarantines_total + 1);
            assert_int_equal(after.frames_bad_total, before.frames_bad_total + 2);
            assert_int_equal(after.blocks_held, before.blocks_held);
            const bt_msg *refused = log_expect(&w->d_router, BT_MSG_REFUSED);
            assert_int_equal(refused->refused.reason, BT_REFUSE_DIGEST);
            assert_string_equal(refused->refused.text, BAD_FRAME);
            log_expect_none(&w->d_router); /* no Accepted, no Tokens */
            assert_int_equal(sent(&w->to_p.log, BT_MSG_TICKET), 2);
            assert_int_equal(sent(&w->to_p.log, BT_MSG_ACCEPTED), 0);
            bt_msg cancel = {.kind = BT_MSG_CANCEL, .fence = fence_of(w->request, 1)};
            bt_prefill_core_router_message(w->p, &cancel, w->now_ns);
        }
    }
    world_close(w);
}

static void test_a_frame_of_another_pair_is_refused(void **state)
{
    (void)state;
    bt_token expected[TOKENS];
    expect_tokens(&greedy, expected);
    world *w = world_open();
    w->fault = (fault){.kind = OTHER_KEY, .frame = 4};
    request_start(w, &greedy, false);
    while (step(w)) continue;
    assert_second_push(w, BT_REFUSE_DIGEST, BAD_FRAME);
    assert_answer(w, expected);
    world_close(w);
}

/* Every byte of every message that crossed, in either direction; and a whole message under the key
 * of another pair, or sent back to its author. */
static void test_a_flipped_byte_in_a_message_is_dropped(void **state)
{
    (void)state;
    static const uint8_t other_secret[BT_KEY_BYTES] = {8};
    world *w = world_open();
    bt_seal other[2];
    bt_seal_init(&other[0], other_secret, BT_ROLE_PREFILL);
    bt_seal_init(&other[1], other_secret, BT_ROLE_DECODE);
    request_start(w, &greedy, false);
    while (step(w)) continue;
    uint32_t opened = 0, flipped = 0;
    for (int to_d = 0; to_d < 2; to_d++) {
        const channel *c = to_d ? &w->to_d : &w->to_p;
        const bt_seal *receiver = to_d ? &w->d_seal : &w->p_seal;
        const bt_seal *author = to_d ? &w->p_seal : &w->d_seal;
        assert_true(c->written > FRAMES / 2);
        for (uint32_t i = 0; i < c->written; i++) {
            sealed s = c->messages[i];
            bt_msg msg;
            for (uint32_t b = 0; b < s.bytes; b++, flipped++) {
                s.data[b] ^= 1u << (b % 8);
                opened += bt_seal_open(receiver, s.data, s.bytes, w->codec, &msg, NULL) == BT_OK;
                s.data[b] ^= 1u << (b % 8);
            }
            for (uint32_t bytes = 0; bytes < s.bytes; bytes++)
                opened += bt_seal_open(receiver, s.data, bytes, w->codec, &msg, NULL) == BT_OK;
            opened += bt_seal_open(author, s.data, s.bytes, w->codec, &msg, NULL) == BT_OK;
            opened += bt_seal_open(&other[to_d], s.data, s.bytes, w->codec, &msg, NULL) == BT_OK;
            assert_int_equal(bt_seal_open(receiver, s.data, s.bytes, w->codec, &msg, NULL), BT_OK);
        }
    }
    assert_int_equal(opened, 0);
    assert_true(flipped > 1000);
    world_close(w);
}

/* Every message twice; then all of one request again in the middle of the next. */
static void test_replays_change_nothing(void **state)
{
    (void)state;
    bt_token expected[TOKENS];
    expect_tokens(&seeded, expected);
    world *w = world_open();
    w->deliver_twice = true;
    request_start(w, &seeded, false);
    while (step(w)) continue;
    assert_answer(w, expected);
    assert_int_equal(sent(&w->to_p.log, BT_MSG_REFUSED), 0);
    assert_int_equal(sent(&w->to_p.log, BT_MSG_TICKET), 1);

    channel *old = malloc(sizeof(*old));
    assert_non_null(old);
    *old = w->to_d;
    w->deliver_twice = false;
    request_start(w, &seeded, false);
    while (sent(&w->to_d.log, BT_MSG_SEALED) < FRAMES / 2) assert_true(step(w));
    bt_decode_stats before, after;
    bt_decode_core_stats(w->d, &before);
    for (uint32_t i = 0; i < old->written; i++) deliver(w, true, &old->messages[i]);
    bt_decode_core_stats(w->d, &after);
    assert_int_equal(after.stale_total, before.stale_total + old->written);
    assert_int_equal(after.frames_total, before.frames_total);
    while (step(w)) continue;
    assert_answer(w, expected);
    free(old);
    world_close(w);
}

static void wrong_token_count(bt_msg *m)
{
    m->manifest.token_count--;
}

static void wrong_frame_count(bt_msg *m)
{
    m->manifest.frame_count++;
}

static void wrong_hash(bt_msg *m)
{
    m->manifest.prefix_hash.bytes[31] ^= 1;
}

static void wrong_sum(bt_msg *m)
{
    m->manifest.digest_sum.lane[1]++;
}

static void wrong_base(bt_msg *m)
{
    m->manifest.base++;
}

static void wrong_token(bt_msg *m)
{
    m->manifest.first_token.id = TINY_VOCAB;
}

static void test_a_wrong_manifest_is_refused(void **state)
{
    (void)state;
    static const struct {
        void (*change)(bt_msg *manifest);
        bt_refuse_reason reason;
    } cases[] = {{wrong_token_count, BT_REFUSE_DIGEST}, {wrong_frame_count, BT_REFUSE_MISSING},
                 {wrong_hash, BT_REFUSE_DIGEST},        {wrong_sum, BT_REFUSE_DIGEST},
                 {wrong_base, BT_REFUSE_DIGEST},        {wrong_token, BT_REFUSE_DIGEST}};
    bt_token expected[TOKENS];
    expect_tokens(&greedy, expected);
    world *w = world_open();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        w->fault = (fault){.kind = MANIFEST, .change = cases[i].change};
        request_start(w, &greedy, false);
        while (step(w)) continue;
        assert_second_push(w, cases[i].reason,
                           cases[i].reason == BT_REFUSE_MISSING
                               ? "frames are missing at the Manifest"
                               : "the Manifest contradicts the frames");
        assert_answer(w, expected);
    }
    world_close(w);
}

static int open_model(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (uint32_t i = 0; i < PROMPT; i++) prompt[i] = (uint32_t)bt_rng_below(&rng, TINY_VOCAB);
    model = tiny_model(&(tiny_options){.seed = 8, .dtype = BT_DTYPE_BF16, .tied = true});
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    bt_model_close(model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_one_process),
        cmocka_unit_test(test_prompt_logprobs_equal_one_process),
        cmocka_unit_test(test_a_flipped_byte_is_pushed_again),
        cmocka_unit_test(test_a_byte_that_stays_flipped_ends_the_attempt),
        cmocka_unit_test(test_a_frame_of_another_pair_is_refused),
        cmocka_unit_test(test_a_flipped_byte_in_a_message_is_dropped),
        cmocka_unit_test(test_replays_change_nothing),
        cmocka_unit_test(test_a_wrong_manifest_is_refused),
    };
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, open_model, close_model);
}
