/* Whether the router lets D compute a prompt: the cost decides, within the bounds, and a failure leads
 * through a pair. */
#include "router/core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)
#define SENT_MAX 256u
#define PROMPT 130u

enum { P = 1, D0 = 2, D1 = 3 };

typedef struct {
    bt_router_core *core;
    uint64_t now_ns;
    uint32_t count, next;
    struct {
        uint32_t daemon;
        bt_msg msg;
    } sent[SENT_MAX];
    uint32_t tokens, ended, scores;
    bt_router_end end;
} fixture;

static void on_send(void *ctx, uint32_t daemon, const bt_msg *msg)
{
    fixture *f = ctx;
    if (msg->kind < BT_MSG_PREFILL || msg->kind == BT_MSG_RENEW) return;
    assert_true(f->count < SENT_MAX);
    f->sent[f->count].daemon = daemon;
    f->sent[f->count++].msg = *msg;
}

static void on_token(void *ctx, uint64_t user, uint32_t index, const bt_token *token, bool eos)
{
    (void)user, (void)token, (void)eos;
    fixture *f = ctx;
    assert_int_equal(index, f->tokens++);
}

static void on_ended(void *ctx, uint64_t user, const bt_router_end *end)
{
    (void)user;
    fixture *f = ctx;
    f->ended++;
    f->end = *end;
}

static bt_router_config config_default(void)
{
    return (bt_router_config){.incarnation = 9,
                              .policy = "least_loaded",
                              .prefix_entries = 100,
                              .local_prefill_max = 200,
                              .requests_max = 8,
                              .attempts_max = 4,
                              .tokens_max = 1024,
                              .progress_ns = 1000 * MS,
                              .heartbeat_ns = 100 * MS,
                              .daemon_timeout_ns = 100000 * MS,
                              .renew_ns = 200 * MS};
}

static void hello(fixture *f, uint32_t daemon)
{
    bt_msg msg = {.kind = BT_MSG_HELLO};
    msg.hello = (bt_hello){.proto_major = BT_PROTO_MAJOR,
                           .proto_minor = BT_PROTO_MINOR,
                           .role = daemon == P ? BT_ROLE_PREFILL : BT_ROLE_DECODE,
                           .incarnation = 100 + daemon,
                           .block_tokens = 16,
                           .pool_blocks = 60,
                           .kv_heads = 1,
                           .head_dim = 64,
                           .chunk_tokens = 64};
    snprintf(msg.hello.name, sizeof(msg.hello.name), "daemon%u", daemon);
    bt_router_core_message(f->core, daemon, &msg, f->now_ns);
}

/* Costs of the same machine at both: 1 ms a batch, 0.1 ms a token. */
static bt_msg beat_of(uint32_t daemon)
{
    bt_msg msg = {.kind = BT_MSG_HEARTBEAT};
    msg.heartbeat.incarnation = 100 + daemon;
    msg.heartbeat.blocks_free = 60;
    msg.heartbeat.cost = (bt_cost){1e6f, 1e5f, 0};
    return msg;
}

static void beat(fixture *f, uint32_t daemon)
{
    bt_msg msg = beat_of(daemon);
    bt_router_core_message(f->core, daemon, &msg, f->now_ns);
}

static void ready(fixture *f, uint32_t d, bool is)
{
    bt_msg msg = {.kind = BT_MSG_PAIR_STATUS};
    msg.pair_status.d_incarnation = 100 + d;
    msg.pair_status.ready = is;
    msg.pair_status.wire = BT_DTYPE_BF16;
    msg.pair_status.mb_per_s = 1000;
    bt_router_core_message(f->core, P, &msg, f->now_ns);
}

static void make(fixture *f, const bt_router_config *config)
{
    memset(f, 0, sizeof(*f));
    f->now_ns = 5000 * MS;
    bt_router_io io = {.ctx = f, .send = on_send, .token = on_token, .ended = on_ended};
    void *memory = aligned_alloc(64, (bt_router_core_bytes(config) + 63) & ~(size_t)63);
    assert_non_null(memory);
    f->core = bt_router_core_init(memory, config, &io, f->now_ns);
}

/* One P and one D, measured; the pair is ready. */
static void start(fixture *f, const bt_router_config *config)
{
    make(f, config);
    hello(f, P);
    hello(f, D0);
    ready(f, D0, true);
    beat(f, P);
    beat(f, D0);
}

static bt_status submit_more(fixture *f, uint64_t user, uint32_t count, uint32_t max_tokens,
                             bool scores)
{
    static uint32_t prompt[512];
    for (uint32_t i = 0; i < 512; i++) prompt[i] = i;
    bt_router_request request = {.tokens = prompt,
                                 .token_count = count,
                                 .max_tokens = max_tokens,
                                 .sampling = {.top_p = 1},
                                 .prompt_logprobs = scores,
                                 .user = user};
    memcpy(request.id.bytes, &user, sizeof(user));
    return bt_router_core_submit(f->core, &request, f->now_ns, NULL);
}

static bt_status submit(fixture *f, uint64_t user)
{
    return submit_more(f, user, PROMPT, 4, false);
}

static const bt_msg *expect(fixture *f, bt_msg_kind kind, uint32_t daemon)
{
    assert_true(f->next < f->count);
    assert_string_equal(bt_msg_name(f->sent[f->next].msg.kind), bt_msg_name(kind));
    assert_int_equal(f->sent[f->next].daemon, daemon);
    return &f->sent[f->next++].msg;
}

static bt_fence expect_local(fixture *f, uint32_t daemon)
{
    const bt_msg *msg = expect(f, BT_MSG_RESERVE, daemon);
    assert_true(msg->reserve.local);
    assert_int_equal(msg->fence.p_incarnation, 0);
    assert_int_equal(msg->fence.d_incarnation, 100 + daemon);
    return msg->fence;
}

static bt_fence expect_pair(fixture *f, uint32_t daemon)
{
    expect(f, BT_MSG_PREFILL, P);
    const bt_msg *msg = expect(f, BT_MSG_RESERVE, daemon);
    assert_false(msg->reserve.local);
    return msg->fence;
}

static uint64_t decided(const fixture *f, bt_router_decision kind)
{
    bt_router_stats stats;
    bt_router_core_stats(f->core, &stats);
    return stats.decided_total[kind];
}

static void say(fixture *f, uint32_t daemon, bt_msg_kind kind, const bt_fence *fence,
                uint32_t value)
{
    bt_msg msg = {.kind = kind, .fence = *fence};
    bt_token token = {.id = 5, .logprob = -1};
    if (kind == BT_MSG_REFUSED) msg.refused.reason = (bt_refuse_reason)value;
    if (kind == BT_MSG_ACCEPTED) msg.accepted.cached_tokens = value;
    if (kind == BT_MSG_FIRST_TOKEN) {
        msg.first_token.token = token;
        msg.first_token.cached_tokens = value;
    }
    if (kind == BT_MSG_TOKENS) {
        msg.tokens.tokens = &token;
        msg.tokens.index = value;
        msg.tokens.token_count = 1;
    }
    bt_router_core_message(f->core, daemon, &msg, f->now_ns);
}

/* 130 tokens: 15 ms at P in three chunks, as much at D with nothing running, plus the handoff. */
static void cheaper_at_an_idle_decode_daemon(void **state)
{
    (void)state;
    fixture f;
    bt_router_config config = config_default();
    start(&f, &config);
    assert_int_equal(submit(&f, 1), BT_OK);
    bt_fence fence = expect_local(&f, D0);
    assert_int_equal(bt_router_core_daemon(f.core, D0)->assigned_tokens, PROMPT);
    f.now_ns += 16 * MS;
    say(&f, P, BT_MSG_FIRST_TOKEN, &fence, 0); /* of nobody */
    say(&f, D0, BT_MSG_ACCEPTED, &fence, 64);
    assert_int_equal(bt_router_core_daemon(f.core, D0)->assigned_tokens, 0);
    for (uint32_t i = 0; i < 4; i++) say(&f, D0, BT_MSG_TOKENS, &fence, i);
    assert_int_equal(f.tokens, 4);
    assert_int_equal(f.ended, 1);
    assert_int_equal(f.end.reason, BT_FINISH_LENGTH);
    assert_int_equal(f.end.cached_tokens, 64);
    expect(&f, BT_MSG_CANCEL, D0);
    assert_int_equal(f.next, f.count);
    assert_int_equal(bt_router_core_daemon(f.core, D0)->assigned, 0);
    bt_router_stats stats;
    bt_router_core_stats(f.core, &stats);
    assert_int_equal(stats.stale_total, 1);
    assert_int_equal(stats.predictions_total, 1);
    assert_int_equal(stats.predicted_ns_total / MS, 16);
    assert_int_equal(stats.actual_ns_total / MS, 16);
    free(f.core);
}

static void dearer_beside_running_sequences(void **state)
{
    (void)state;
    fixture f;
    bt_router_config config = config_default();
    start(&f, &config);
    bt_msg busy = beat_of(D0);
    busy.heartbeat.running = 2;
    bt_router_core_message(f.core, D0, &busy, f.now_ns);
    submit(&f, 1);
    expect_pair(&f, D0);
    /* Until P has more in its queue than the two would lose. */
    submit(&f, 2);
    expect_pair(&f, D0);
    submit(&f, 3);
    expect_local(&f, D0);
    assert_int_equal(decided(&f, BT_DECIDED_PAIR), 2);
    assert_int_equal(decided(&f, BT_DECIDED_LOCAL), 1);
    free(f.core);
}

static void bounds(void **state)
{
    (void)state;
    fixture f;
    bt_router_config config = config_default();
    config.local_prefill_max = PROMPT - 1;
    start(&f, &config);
    submit(&f, 1);
    bt_fence fence = expect_pair(&f, D0);
    say(&f, P, BT_MSG_FIRST_TOKEN, &fence, 0);
    say(&f, D0, BT_MSG_ACCEPTED, &fence, 0);
    bt_router_core_cancel(f.core, 1, f.now_ns);
    f.next = f.count;
    submit(&f, 2);
    /* What D got over the wire in another dtype than its own is not the KV it would compute. */
    assert_int_equal(f.sent[f.next].msg.kind, BT_MSG_PREFILL);
    free(f.core);
    config.local_prefill_max = 0;
    start(&f, &config);
    submit(&f, 1);
    expect_pair(&f, D0);
    free(f.core);
    config.local_prefill_max = 200;
    start(&f, &config);
    submit_more(&f, 1, PROMPT, 4, true); /* P alone tells the prompt's logprobs */
    expect_pair(&f, D0);
    submit_more(&f, 2, PROMPT, 1, false); /* no D at all */
    expect(&f, BT_MSG_PREFILL, P);
    assert_int_equal(f.next, f.count);
    bt_msg full = beat_of(D0);
    full.heartbeat.blocks_free = 4;
    bt_router_core_message(f.core, D0, &full, f.now_ns);
    submit(&f, 3);
    expect_pair(&f, D0);
    free(f.core);
    config.fingerprint.bytes[0] = 1; /* D is of another model than ours says */
    start(&f, &config);
    submit(&f, 1);
    expect_pair(&f, D0);
    free(f.core);
}

/* Whatever ends a local attempt, the next one goes through the pair; committed tokens stay. */
static void failures(void **state)
{
    (void)state;
    static const bt_refuse_reason reasons[] = {BT_REFUSE_UNKNOWN, BT_REFUSE_ENGINE,
                                               BT_REFUSE_LEASE};
    bt_router_config config = config_default();
    for (uint32_t i = 0; i < 5; i++) {
        fixture f;
        start(&f, &config);
        submit(&f, 1);
        bt_fence fence = expect_local(&f, D0);
        if (i < 3) {
            say(&f, D0, BT_MSG_REFUSED, &fence, reasons[i]);
        } else if (i == 3) { /* a timer: D is to blame, and there is no other */
            f.now_ns += 1000 * MS;
            bt_router_core_tick(f.core, f.now_ns);
        } else {
            say(&f, D0, BT_MSG_TOKENS, &fence, 0);
            say(&f, D0, BT_MSG_REFUSED, &fence, BT_REFUSE_ENGINE);
        }
        expect(&f, BT_MSG_CANCEL, D0);
        const bt_msg *prefill = expect(&f, BT_MSG_PREFILL, P);
        assert_int_equal(prefill->fence.attempt, 2);
        assert_int_equal(prefill->prefill.base, i == 4);
        assert_false(expect(&f, BT_MSG_RESERVE, D0)->reserve.local);
        assert_int_equal(bt_router_core_daemon(f.core, D0)->assigned_tokens, 0);
        free(f.core);
    }
}

static void no_pair_is_ready(void **state)
{
    (void)state;
    fixture f;
    bt_router_config config = config_default();
    config.local_prefill_max = 0;
    make(&f, &config);
    hello(&f, D0);
    assert_false(bt_router_core_serving(f.core));
    assert_int_equal(submit(&f, 1), BT_ERR_PEER_LOST);
    free(f.core);
    config.local_when_no_prefill = true;
    make(&f, &config);
    hello(&f, D0);
    assert_true(bt_router_core_serving(f.core));
    assert_false(bt_router_core_paired(f.core));
    assert_int_equal(submit_more(&f, 1, 400, 4, false), BT_OK); /* of any length */
    expect_local(&f, D0);
    hello(&f, D1);                                             /* turns by load */
    assert_int_equal(submit_more(&f, 2, 10, 1, false), BT_OK); /* one token, too */
    expect_local(&f, D1);
    assert_int_equal(submit_more(&f, 3, 10, 4, true), BT_ERR_PEER_LOST);
    /* P comes: from now on pairs. And it goes: its attempts go on alone. */
    hello(&f, P);
    ready(&f, D0, true);
    ready(&f, D1, false);
    assert_int_equal(submit(&f, 4), BT_OK);
    expect_pair(&f, D0);
    bt_router_core_daemon_lost(f.core, P, f.now_ns);
    f.next = f.count - 1;
    assert_int_equal(f.sent[f.next].msg.kind, BT_MSG_RESERVE);
    assert_true(f.sent[f.next].msg.reserve.local);
    assert_int_equal(decided(&f, BT_DECIDED_ALONE), 3);
    free(f.core);
}

/* D's Tokens may overtake P's FirstToken: the index learns all the same, once for each. */
static void learns_in_any_order(void **state)
{
    (void)state;
    bt_router_config config = config_default();
    config.policy = "prefix_affinity";
    config.local_prefill_max = 0;
    for (uint32_t first = 0; first < 2; first++) {
        fixture f;
        start(&f, &config);
        submit(&f, 1);
        bt_fence fence = expect_pair(&f, D0);
        if (first) say(&f, P, BT_MSG_FIRST_TOKEN, &fence, 64);
        say(&f, D0, BT_MSG_ACCEPTED, &fence, 0);
        say(&f, D0, BT_MSG_TOKENS, &fence, 0);
        if (!first) say(&f, P, BT_MSG_FIRST_TOKEN, &fence, 64);
        bt_router_stats stats;
        bt_router_core_stats(f.core, &stats);
        assert_int_equal(stats.prefix_entries, 2 * (PROMPT / 64)); /* of P and of D */
        assert_int_equal(f.tokens, 1);
        /* The next one is known to be cached but for its last token. */
        submit(&f, 2);
        assert_int_equal(bt_router_core_daemon(f.core, P)->assigned_tokens, PROMPT % 64);
        free(f.core);
    }
}

/* A decode daemon whose pair was refused may have other weights: it computes nothing. */
static void refused_pairs(void **state)
{
    (void)state;
    fixture f;
    bt_router_config config = config_default();
    config.local_when_no_prefill = true;
    make(&f, &config);
    hello(&f, P);
    hello(&f, D0);
    ready(&f, D0, false);
    beat(&f, D0);
    assert_false(bt_router_core_serving(f.core));
    assert_int_equal(submit(&f, 1), BT_ERR_PEER_LOST);
    free(f.core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cheaper_at_an_idle_decode_daemon),
        cmocka_unit_test(dearer_beside_running_sequences),
        cmocka_unit_test(bounds),
        cmocka_unit_test(failures),
        cmocka_unit_test(no_pair_is_ready),
        cmocka_unit_test(learns_in_any_order),
        cmocka_unit_test(refused_pairs),
    };
    return cmocka_run_group_tests_name("router_local", tests, NULL, NULL);
}
