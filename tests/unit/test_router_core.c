/* The router core against scripted daemons: every row of table R, retries, deaths, admission, and
 * the suite that every policy of the registry must pass. */
#include "router/core.h"
#include "router/policies/predict.h"
#include "router/prefix_index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* After the above: cmocka.h needs them. */
#include <cmocka.h>

#define SENT_MAX 4096
#define MS UINT64_C(1000000)
#define EOS 2u
#define PROMPT 5u

/* Indexes of the daemons: any will do. */
enum { P0 = 3, P1 = 7, D0 = 4, D1 = 90 };

typedef struct {
    uint32_t daemon;
    bt_msg msg;
    uint32_t tokens[64]; /* of PREFILL and RESERVE */
} sent_msg;

typedef struct {
    bt_router_core *core;
    uint64_t now_ns;
    uint32_t sent_count, read;
    sent_msg sent[SENT_MAX];
    uint32_t token_count, tokens[256];
    uint32_t scored; /* prompt tokens 1 .. scored have logprobs */
    uint64_t token_user;
    uint32_t ended_count;
    uint64_t ended_user;
    bt_router_end end;
    void (*in_token)(bt_router_core *core, uint64_t user,
                     uint64_t now_ns); /* what the text stage does … */
    uint32_t in_token_at;              /* … with this token */
} fixture;

static void on_send(void *ctx, uint32_t daemon, const bt_msg *msg)
{
    fixture *f = ctx;
    assert_true(f->sent_count < SENT_MAX);
    sent_msg *s = &f->sent[f->sent_count++];
    s->daemon = daemon;
    s->msg = *msg;
    if (msg->kind == BT_MSG_PREFILL || msg->kind == BT_MSG_RESERVE)
        memcpy(s->tokens, msg->prefill.tokens, msg->prefill.token_count * sizeof(uint32_t));
}

static void on_token(void *ctx, uint64_t user, uint32_t index, const bt_token *token, bool eos)
{
    fixture *f = ctx;
    assert_int_equal(index, f->token_count); /* in order, each once */
    assert_int_equal(eos, token->id == EOS);
    f->tokens[f->token_count++] = token->id;
    f->token_user = user;
    if (f->in_token != NULL && f->in_token_at == index) f->in_token(f->core, user, f->now_ns);
}

static void on_scores(void *ctx, uint64_t user, uint32_t index, const bt_token *tokens,
                      uint32_t token_count)
{
    fixture *f = ctx;
    (void)user;
    assert_int_equal(index, f->scored + 1); /* in order, each once */
    assert_int_equal(f->token_count, 0);    /* and before any token */
    for (uint32_t i = 0; i < token_count; i++) assert_int_equal(tokens[i].id, 10 + index + i);
    f->scored += token_count;
}

static void on_ended(void *ctx, uint64_t user, const bt_router_end *end)
{
    fixture *f = ctx;
    f->ended_count++;
    f->ended_user = user;
    f->end = *end;
}

static bt_router_config base_config(void)
{
    return (bt_router_config){.incarnation = 99,
                              .policy = "round_robin",
                              .requests_max = 4,
                              .attempts_max = 3,
                              .tokens_max = 64,
                              .eos_ids = {EOS},
                              .eos_count = 1,
                              .progress_ns = 1000 * MS,
                              .heartbeat_ns = 100 * MS,
                              .daemon_timeout_ns = 500 * MS,
                              .renew_ns = 200 * MS,
                              .retry_wait_ns = 0};
}

static fixture *make(const bt_router_config *config)
{
    fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->now_ns = 5000 * MS;
    bt_router_io io = {.ctx = f,
                       .send = on_send,
                       .token = on_token,
                       .ended = on_ended,
                       .prompt_logprobs = on_scores};
    void *memory = aligned_alloc(64, bt_router_core_bytes(config));
    assert_non_null(memory);
    f->core = bt_router_core_init(memory, config, &io, f->now_ns);
    return f;
}

static void drop(fixture *f)
{
    free(f->core);
    free(f);
}

/* -- what daemons say -------------------------------------------------------------------------- */

static bool is_prefill(uint32_t daemon)
{
    return daemon == P0 || daemon == P1;
}

static uint64_t incarnation_of(const fixture *f, uint32_t daemon)
{
    return bt_router_core_daemon(f->core, daemon)->hello.incarnation;
}

static void hello_of_pool(fixture *f, uint32_t daemon, uint32_t pool_blocks)
{
    bt_msg msg = {.kind = BT_MSG_HELLO};
    msg.hello.proto_major = BT_PROTO_MAJOR;
    msg.hello.role = is_prefill(daemon) ? BT_ROLE_PREFILL : BT_ROLE_DECODE;
    msg.hello.incarnation = daemon;
    msg.hello.block_tokens = 16;
    msg.hello.pool_blocks = pool_blocks;
    bt_router_core_message(f->core, daemon, &msg, f->now_ns);
}

static void hello_of_minor(fixture *f, uint32_t daemon, uint64_t incarnation, uint32_t minor)
{
    bt_msg msg = {.kind = BT_MSG_HELLO};
    msg.hello.proto_major = BT_PROTO_MAJOR;
    msg.hello.proto_minor = minor;
    msg.hello.role = is_prefill(daemon) ? BT_ROLE_PREFILL : BT_ROLE_DECODE;
    msg.hello.incarnation = incarnation;
    msg.hello.block_tokens = 16;
    msg.hello.pool_blocks = 3;
    snprintf(msg.hello.name, sizeof(msg.hello.name), "daemon%u", daemon);
    snprintf(msg.hello.pair_endpoint, sizeof(msg.hello.pair_endpoint), "tcp://%u", daemon);
    bt_router_core_message(f->core, daemon, &msg, f->now_ns);
}

static void hello_from(fixture *f, uint32_t daemon, uint64_t incarnation)
{
    hello_of_minor(f, daemon, incarnation, BT_PROTO_MINOR);
}

static void heartbeat_from(fixture *f, uint32_t daemon, bool draining)
{
    bt_msg msg = {.kind = BT_MSG_HEARTBEAT};
    msg.heartbeat.incarnation = incarnation_of(f, daemon);
    msg.heartbeat.draining = draining;
    bt_router_core_message(f->core, daemon, &msg, f->now_ns);
}

static void pair_status_from(fixture *f, uint32_t p, uint32_t d, bool ready)
{
    bt_msg msg = {.kind = BT_MSG_PAIR_STATUS};
    msg.pair_status.d_incarnation = incarnation_of(f, d);
    msg.pair_status.ready = ready;
    msg.pair_status.wire = BT_DTYPE_BF16;
    msg.pair_status.mb_per_s = 1234;
    snprintf(msg.pair_status.transport, sizeof(msg.pair_status.transport), "posix/memory");
    if (!ready) snprintf(msg.pair_status.reason, sizeof(msg.pair_status.reason), "no such layer");
    bt_router_core_message(f->core, p, &msg, f->now_ns);
}

static bt_token token_of(uint32_t id)
{
    return (bt_token){.id = id, .logprob = -1};
}

static bt_msg answer(const bt_fence *fence, bt_msg_kind kind)
{
    return (bt_msg){.kind = kind, .fence = *fence};
}

static void first_token(fixture *f, uint32_t p, const bt_fence *fence, uint32_t index, uint32_t id)
{
    bt_msg msg = answer(fence, BT_MSG_FIRST_TOKEN);
    msg.first_token.token = token_of(id);
    msg.first_token.index = index;
    msg.first_token.cached_tokens = 3;
    bt_router_core_message(f->core, p, &msg, f->now_ns);
}

/* Tokens index .. index + count - 1; the token at index i has the id 100 + i. */
static void tokens(fixture *f, uint32_t d, const bt_fence *fence, uint32_t index, uint32_t count)
{
    bt_token list[BT_MSG_TOKENS_MAX];
    for (uint32_t i = 0; i < count; i++) list[i] = token_of(100 + index + i);
    bt_msg msg = answer(fence, BT_MSG_TOKENS);
    msg.tokens.tokens = list;
    msg.tokens.index = index;
    msg.tokens.token_count = count;
    bt_router_core_message(f->core, d, &msg, f->now_ns);
}

static void finished(fixture *f, uint32_t d, const bt_fence *fence, uint32_t count)
{
    bt_msg msg = answer(fence, BT_MSG_FINISHED);
    msg.finished.reason = BT_FINISH_LENGTH;
    msg.finished.token_count = count;
    bt_router_core_message(f->core, d, &msg, f->now_ns);
}

static void refused(fixture *f, uint32_t daemon, const bt_fence *fence, bt_refuse_reason reason)
{
    bt_msg msg = answer(fence, BT_MSG_REFUSED);
    msg.refused.reason = reason;
    bt_router_core_message(f->core, daemon, &msg, f->now_ns);
}

static void plain(fixture *f, uint32_t daemon, const bt_fence *fence, bt_msg_kind kind)
{
    bt_msg msg = answer(fence, kind);
    bt_router_core_message(f->core, daemon, &msg, f->now_ns);
}

/* -- expectations ------------------------------------------------------------------------------ */

/* Heartbeats, pairing and renewals: not about one request. */
static bool is_housekeeping(const fixture *f, uint32_t i)
{
    return f->sent[i].msg.kind < BT_MSG_PREFILL || f->sent[i].msg.kind == BT_MSG_RENEW;
}

/* The next message of this kind to this daemon, skipping no other about requests. */
static const sent_msg *expect_sent(fixture *f, bt_msg_kind kind, uint32_t daemon)
{
    while (f->read < f->sent_count && is_housekeeping(f, f->read)) f->read++;
    if (f->read == f->sent_count)
        fail_msg("nothing more was sent, expected %s to %u", bt_msg_name(kind), daemon);
    const sent_msg *s = &f->sent[f->read++];
    if (s->msg.kind != kind || s->daemon != daemon)
        fail_msg("%s to %u was sent, expected %s to %u", bt_msg_name(s->msg.kind), s->daemon,
                 bt_msg_name(kind), daemon);
    return s;
}

static void expect_silence(fixture *f)
{
    while (f->read < f->sent_count && is_housekeeping(f, f->read)) f->read++;
    if (f->read < f->sent_count)
        fail_msg("%s to %u was sent", bt_msg_name(f->sent[f->read].msg.kind),
                 f->sent[f->read].daemon);
}

static uint32_t count_sent(const fixture *f, uint32_t from, bt_msg_kind kind, uint32_t daemon)
{
    uint32_t count = 0;
    for (uint32_t i = from; i < f->sent_count; i++)
        count += f->sent[i].msg.kind == kind && f->sent[i].daemon == daemon;
    return count;
}

static void expect_cancels(fixture *f, uint32_t p, uint32_t d, uint32_t attempt)
{
    assert_int_equal(expect_sent(f, BT_MSG_CANCEL, p)->msg.fence.attempt, attempt);
    assert_int_equal(expect_sent(f, BT_MSG_CANCEL, d)->msg.fence.attempt, attempt);
}

/* A Prefill and a Reserve of the same fence and work. */
static bt_fence expect_attempt(fixture *f, uint32_t p, uint32_t d, uint32_t attempt, uint32_t base)
{
    const sent_msg *prefill = expect_sent(f, BT_MSG_PREFILL, p);
    const sent_msg *reserve = expect_sent(f, BT_MSG_RESERVE, d);
    assert_true(bt_fence_equal(&prefill->msg.fence, &reserve->msg.fence));
    assert_int_equal(prefill->msg.fence.attempt, attempt);
    assert_int_equal(prefill->msg.fence.p_incarnation, incarnation_of(f, p));
    assert_int_equal(prefill->msg.fence.d_incarnation, incarnation_of(f, d));
    assert_int_equal(prefill->msg.prefill.base, base);
    assert_int_equal(prefill->msg.prefill.token_count, PROMPT + base);
    assert_memory_equal(prefill->tokens, reserve->tokens, (PROMPT + base) * sizeof(uint32_t));
    for (uint32_t i = 0; i < PROMPT; i++) assert_int_equal(prefill->tokens[i], 10 + i);
    for (uint32_t i = 0; i < base; i++) assert_int_equal(prefill->tokens[PROMPT + i], f->tokens[i]);
    assert_false(prefill->msg.prefill.no_reserve);
    assert_true(prefill->msg.prefill.deadline_ms > 0); /* H3: a wait for blocks at P ends */
    return prefill->msg.fence;
}

static void expect_end(fixture *f, bt_finish_reason reason, uint32_t output, uint32_t attempts)
{
    assert_int_equal(f->ended_count, 1);
    assert_int_equal(f->end.reason, reason);
    assert_int_equal(f->end.prompt_tokens, PROMPT);
    assert_int_equal(f->end.output_tokens, output);
    assert_int_equal(f->token_count, output);
    assert_int_equal(f->end.attempts, attempts);
    bt_router_stats stats;
    bt_router_core_stats(f->core, &stats);
    assert_int_equal(stats.requests, 0);
    const uint32_t daemons[] = {P0, P1, D0, D1};
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(bt_router_core_daemon(f->core, daemons[i])->assigned, 0);
        assert_int_equal(bt_router_core_daemon(f->core, daemons[i])->assigned_tokens, 0);
    }
    expect_silence(f);
}

static bt_status submit_as(fixture *f, uint64_t user, uint32_t max_tokens, bool reserved)
{
    static const uint32_t prompt[64] = {10, 11, 12, 13, 14};
    bt_router_request request = {.tokens = prompt,
                                 .token_count = PROMPT,
                                 .max_tokens = max_tokens,
                                 .sampling = {.top_p = 1},
                                 .user = user,
                                 .reserved = reserved};
    memcpy(request.id.bytes, &user, sizeof(user));
    return bt_router_core_submit(f->core, &request, f->now_ns, NULL);
}

static bt_status submit(fixture *f, uint64_t user, uint32_t max_tokens)
{
    return submit_as(f, user, max_tokens, false);
}

static void fleet(fixture *f, uint32_t prefills, uint32_t decodes)
{
    const uint32_t p[] = {P0, P1}, d[] = {D0, D1};
    for (uint32_t i = 0; i < prefills; i++) hello_from(f, p[i], 1000 + p[i]);
    for (uint32_t i = 0; i < decodes; i++) hello_from(f, d[i], 1000 + d[i]);
    for (uint32_t i = 0; i < prefills; i++)
        for (uint32_t k = 0; k < decodes; k++) pair_status_from(f, p[i], d[k], true);
    assert_true(bt_router_core_serving(f->core));
    assert_true(bt_router_core_settled(f->core));
}

static fixture *start_fleet(uint32_t prefills, uint32_t decodes)
{
    bt_router_config config = base_config();
    fixture *f = make(&config);
    fleet(f, prefills, decodes);
    return f;
}

/* Time passes while the daemons of the fleet beat. */
static void pass(fixture *f, uint64_t ns)
{
    const uint32_t daemons[] = {P0, P1, D0, D1};
    for (uint64_t end = f->now_ns + ns; f->now_ns < end;) {
        f->now_ns += 50 * MS;
        for (uint32_t i = 0; i < 4; i++)
            if (bt_router_core_daemon(f->core, daemons[i])->up)
                heartbeat_from(f, daemons[i], false);
        bt_router_core_tick(f->core, f->now_ns);
    }
}

/* -- the straight way -------------------------------------------------------------------------- */

static void until_length(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    assert_int_equal(submit(f, 42, 4), BT_OK);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    assert_int_equal(bt_router_core_daemon(f->core, P0)->assigned_tokens, PROMPT);
    plain(f, P0, &fence, BT_MSG_PINNED);
    first_token(f, P0, &fence, 0, 100);
    assert_int_equal(bt_router_core_daemon(f->core, P0)->assigned_tokens, 0);
    plain(f, D0, &fence, BT_MSG_ACCEPTED);
    assert_int_equal(bt_router_core_daemon(f->core, P0)->assigned, 0);
    assert_int_equal(bt_router_core_daemon(f->core, D0)->assigned, 1);
    tokens(f, D0, &fence, 0, 1);
    tokens(f, D0, &fence, 1, 2);
    assert_int_equal(f->ended_count, 0);
    tokens(f, D0, &fence, 3, 1);
    expect_cancels(f, P0, D0, 1);
    expect_end(f, BT_FINISH_LENGTH, 4, 1);
    assert_int_equal(f->end.cached_tokens, 3);
    assert_int_equal(f->ended_user, 42);
    /* END: whatever comes is dropped. */
    finished(f, D0, &fence, 4);
    tokens(f, D0, &fence, 4, 1);
    refused(f, D0, &fence, BT_REFUSE_LEASE);
    first_token(f, P0, &fence, 0, 100);
    bt_router_core_cancel(f->core, 42, f->now_ns);
    expect_end(f, BT_FINISH_LENGTH, 4, 1);
    bt_router_stats stats;
    bt_router_core_stats(f->core, &stats);
    assert_int_equal(stats.stale_total, 4);
    assert_int_equal(stats.duplicate_tokens_total, 1);
    assert_int_equal(stats.tokens_total, 4);
    assert_int_equal(stats.finished_total, 1);
    drop(f);
}

static void until_eos(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 1, 30);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    first_token(f, P0, &fence, 0, 100);
    bt_token list[3] = {token_of(101), token_of(EOS), token_of(103)};
    bt_msg msg = answer(&fence, BT_MSG_TOKENS);
    msg.tokens.tokens = list;
    msg.tokens.index = 1;
    msg.tokens.token_count = 3;
    bt_router_core_message(f->core, D0, &msg, f->now_ns);
    expect_cancels(f, P0, D0, 1);
    expect_end(f, BT_FINISH_STOP, 3, 1);
    drop(f);
}

static void first_token_ends(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 1, 30); /* EOS at once */
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    first_token(f, P0, &fence, 0, EOS);
    expect_cancels(f, P0, D0, 1);
    expect_end(f, BT_FINISH_STOP, 1, 1);
    drop(f);
    f = start_fleet(1, 1);
    submit(f, 1, 30); /* P says final of a token that is no EOS to us */
    fence = expect_attempt(f, P0, D0, 1, 0);
    bt_msg msg = answer(&fence, BT_MSG_FIRST_TOKEN);
    msg.first_token.token = token_of(77);
    msg.first_token.final = true;
    msg.first_token.finish = BT_FINISH_STOP;
    bt_router_core_message(f->core, P0, &msg, f->now_ns);
    expect_cancels(f, P0, D0, 1);
    expect_end(f, BT_FINISH_STOP, 1, 1);
    drop(f);
}

static void one_token_needs_no_decode(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 1, 1);
    const sent_msg *s = expect_sent(f, BT_MSG_PREFILL, P0);
    bt_fence fence = s->msg.fence;
    assert_true(s->msg.prefill.no_reserve);
    assert_int_equal(fence.d_incarnation, 0);
    expect_silence(f);
    first_token(f, P0, &fence, 0, 100);
    expect_sent(f, BT_MSG_CANCEL, P0);
    expect_end(f, BT_FINISH_LENGTH, 1, 1);
    drop(f);
}

static void ignored_eos(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    uint32_t prompt[PROMPT] = {10, 11, 12, 13, 14};
    bt_router_request request = {
        .tokens = prompt, .token_count = PROMPT, .max_tokens = 2, .ignore_eos = true, .user = 1};
    request.sampling.top_p = 1;
    assert_int_equal(bt_router_core_submit(f->core, &request, f->now_ns, NULL), BT_OK);
    memset(prompt, 0, sizeof(prompt)); /* copied */
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    first_token(f, P0, &fence, 0, EOS);
    assert_int_equal(f->ended_count, 0);
    tokens(f, D0, &fence, 1, 1);
    expect_cancels(f, P0, D0, 1);
    expect_end(f, BT_FINISH_LENGTH, 2, 1);
    drop(f);
}

static bt_status submit_sampling(fixture *f, uint64_t user, const bt_sampling *sampling)
{
    static const uint32_t prompt[PROMPT] = {10, 11, 12, 13, 14};
    bt_router_request request = {.tokens = prompt,
                                 .token_count = PROMPT,
                                 .max_tokens = 10,
                                 .sampling = *sampling,
                                 .user = user};
    memcpy(request.id.bytes, &user, sizeof(user));
    return bt_router_core_submit(f->core, &request, f->now_ns, NULL);
}

static void submit_scored(fixture *f)
{
    static const uint32_t prompt[PROMPT] = {10, 11, 12, 13, 14};
    bt_router_request request = {.tokens = prompt,
                                 .token_count = PROMPT,
                                 .max_tokens = 10,
                                 .sampling = {.top_p = 1},
                                 .prompt_logprobs = true,
                                 .user = 1};
    assert_int_equal(bt_router_core_submit(f->core, &request, f->now_ns, NULL), BT_OK);
}

static void scores(fixture *f, uint32_t p, const bt_fence *fence, uint32_t index, uint32_t count)
{
    bt_token list[PROMPT];
    for (uint32_t i = 0; i < count; i++) list[i] = token_of(10 + index + i);
    bt_msg msg = answer(fence, BT_MSG_PROMPT_LOGPROBS);
    msg.tokens.tokens = list;
    msg.tokens.index = index;
    msg.tokens.token_count = count;
    bt_router_core_message(f->core, p, &msg, f->now_ns);
}

/* A token of D may overtake them on the other link: it waits. */
static void prompt_logprobs_come_first(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit_scored(f);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    scores(f, P0, &fence, 1, 2);
    tokens(f, D0, &fence, 0, 2);
    assert_int_equal(f->token_count, 0);
    scores(f, D0, &fence, 3, 2); /* of the wrong daemon */
    assert_int_equal(f->scored, 2);
    scores(f, P0, &fence, 1, 3); /* again, and one more */
    assert_int_equal(f->scored, 3);
    scores(f, P0, &fence, 4, 1);
    assert_int_equal(f->scored, 4);
    assert_int_equal(f->token_count, 2);
    first_token(f, P0, &fence, 0, 100); /* a duplicate by now */
    assert_int_equal(f->token_count, 2);
    expect_silence(f);
    drop(f);
}

/* D may even finish before P's link is read. */
static void prompt_logprobs_come_after_the_end(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit_scored(f);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    tokens(f, D0, &fence, 0, 10);
    finished(f, D0, &fence, 10);
    expect_silence(f);
    assert_int_equal(f->ended_count, 0);
    scores(f, P0, &fence, 1, 4);
    assert_int_equal(f->token_count, 10);
    assert_int_equal(f->ended_count, 1);
    assert_int_equal(f->end.reason, BT_FINISH_LENGTH);
    drop(f);
    f = start_fleet(1, 1);
    submit_scored(f);
    fence = expect_attempt(f, P0, D0, 1, 0);
    tokens(f, D0, &fence, 0, 9); /* one is missing, and that is no matter of time */
    finished(f, D0, &fence, 10);
    expect_cancels(f, P0, D0, 1);
    drop(f);
}

/* Lost, skipped or of other tokens: another attempt, which tells what is missing. */
static void missing_prompt_logprobs_fail_the_attempt(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit_scored(f);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    assert_true(f->sent[f->read - 2].msg.prefill.prompt_logprobs);
    scores(f, P0, &fence, 1, 2);
    first_token(f, P0, &fence, 0, 100);
    assert_int_equal(f->token_count, 0);
    expect_cancels(f, P0, D0, 1);
    fence = expect_attempt(f, P0, D0, 2, 0);
    scores(f, P0, &fence, 4, 1);
    expect_cancels(f, P0, D0, 2);
    fence = expect_attempt(f, P0, D0, 3, 0);
    assert_true(f->sent[f->read - 2].msg.prefill.prompt_logprobs);
    scores(f, P0, &fence, 1, 4);
    first_token(f, P0, &fence, 0, 100);
    assert_int_equal(f->scored, 4);
    assert_int_equal(f->token_count, 1);
    drop(f);
}

/* With all of them here, an attempt that continues does not ask again. */
static void prompt_logprobs_are_asked_for_once(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit_scored(f);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    scores(f, P0, &fence, 1, 4);
    tokens(f, D0, &fence, 0, 2);
    refused(f, D0, &fence, BT_REFUSE_ENGINE);
    expect_cancels(f, P0, D0, 1);
    expect_attempt(f, P0, D0, 2, 2);
    assert_false(f->sent[f->read - 2].msg.prefill.prompt_logprobs);
    drop(f);
}

static void stop_ids_end_the_output(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    const bt_sampling sampling = {.top_p = 1, .stop_ids = {777, 101}, .stop_count = 2};
    assert_int_equal(submit_sampling(f, 1, &sampling), BT_OK);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    first_token(f, P0, &fence, 0, 100);
    assert_int_equal(f->ended_count, 0);
    tokens(f, D0, &fence, 1, 1); /* 101 */
    expect_cancels(f, P0, D0, 1);
    expect_end(f, BT_FINISH_STOP, 2, 1);
    drop(f);
}

static void bias_rows_are_copied(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    bt_logit_bias rows[2] = {{5, 1.5f}, {900, -100}};
    const bt_sampling sampling = {.top_p = 1, .bias = rows, .bias_count = 2};
    assert_int_equal(submit_sampling(f, 1, &sampling), BT_OK);
    memset(rows, 0, sizeof(rows));
    const bt_sampling *sent = &expect_sent(f, BT_MSG_PREFILL, P0)->msg.prefill.sampling;
    assert_int_equal(sent->bias_count, 2);
    assert_int_equal(sent->bias[1].id, 900);
    assert_true(sent->bias[1].bias == -100);
    const bt_sampling bad = {.top_p = 1, .bias = rows, .bias_count = 2}; /* an id twice */
    assert_int_equal(submit_sampling(f, 2, &bad), BT_ERR_ARGUMENT);
    drop(f);
}

/* What an older daemon would silently ignore goes to others, or to nobody. */
static void older_daemons_get_no_newer_work(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    const bt_sampling plain = {.top_p = 1, .logprobs = true, .top_logprobs = 3};
    const bt_sampling newer[] = {{.top_p = 1, .min_p = 0.1f},
                                 {.top_p = 1, .repetition_penalty = 1.1f},
                                 {.top_p = 1, .presence_penalty = -1},
                                 {.top_p = 1, .frequency_penalty = 1},
                                 {.top_p = 1, .min_tokens = 1},
                                 {.top_p = 1, .stop_ids = {3}, .stop_count = 1},
                                 {.top_p = 1, .bias = (bt_logit_bias[]){{1, 1}}, .bias_count = 1}};
    hello_of_minor(f, D0, 2000, 0);
    pair_status_from(f, P0, D0, true);
    for (uint32_t i = 0; i < sizeof(newer) / sizeof(newer[0]); i++)
        assert_int_equal(submit_sampling(f, 10 + i, &newer[i]), BT_ERR_PEER_LOST);
    assert_int_equal(submit_sampling(f, 1, &plain), BT_OK);
    expect_attempt(f, P0, D0, 1, 0);
    hello_from(f, D1, 3000);
    pair_status_from(f, P0, D1, true);
    for (uint32_t i = 0; i < sizeof(newer) / sizeof(newer[0]); i++) {
        assert_int_equal(submit_sampling(f, 10 + i, &newer[i]), BT_OK);
        expect_attempt(f, P0, D1, 1, 0);
        bt_router_core_cancel(f->core, 10 + i, f->now_ns);
        expect_cancels(f, P0, D1, 1);
    }
    drop(f);
}

static void finished_confirms(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 1, 30);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    tokens(f, D0, &fence, 0, 3); /* FirstToken was overtaken */
    first_token(f, P0, &fence, 0, 100);
    finished(f, D0, &fence, 3);
    expect_cancels(f, P0, D0, 1);
    expect_end(f, BT_FINISH_LENGTH, 3, 1);
    drop(f);
}

/* -- order and duplicates (H5) ------------------------------------------------------------------ */

static void out_of_order(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 1, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    tokens(f, D0, &fence, 3, 1);
    tokens(f, D0, &fence, 1, 1);
    tokens(f, D0, &fence, 1, 1);
    assert_int_equal(f->token_count, 0);
    first_token(f, P0, &fence, 0, 100);
    assert_int_equal(f->token_count, 2);
    tokens(f, D0, &fence, 2, 1);
    assert_int_equal(f->token_count, 4);
    tokens(f, D0, &fence, 0, 4);
    tokens(f, D0, &fence, 9, 1); /* beyond max_tokens */
    assert_int_equal(f->token_count, 4);
    tokens(f, D0, &fence, 4, 2);
    expect_cancels(f, P0, D0, 1);
    expect_end(f, BT_FINISH_LENGTH, 6, 1);
    for (uint32_t i = 0; i < 6; i++) assert_int_equal(f->tokens[i], 100 + i);
    drop(f);
}

static void finished_with_a_gap(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 1, 6);
    bt_fence old = expect_attempt(f, P0, D0, 1, 0);
    first_token(f, P0, &old, 0, 100);
    tokens(f, D0, &old, 2, 1); /* 1 is lost */
    finished(f, D0, &old, 3);
    expect_cancels(f, P0, D0, 1);
    bt_fence fence = expect_attempt(f, P0, D0, 2, 1);
    /* The token beyond the gap died with its attempt, and the old attempt is not heard. */
    tokens(f, D0, &old, 1, 1);
    assert_int_equal(f->token_count, 1);
    first_token(f, P0, &fence, 1, 101);
    assert_int_equal(f->token_count, 2);
    tokens(f, D0, &fence, 1, 5);
    expect_cancels(f, P0, D0, 2);
    expect_end(f, BT_FINISH_LENGTH, 6, 2);
    assert_int_equal(f->end.cached_tokens, 3);
    drop(f);
}

static void gap_too_wide(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 1, 40);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    tokens(f, D0, &fence, 1, 31);
    expect_silence(f);
    tokens(f, D0, &fence, 32, 1);
    expect_cancels(f, P0, D0, 1);
    expect_attempt(f, P0, D0, 2, 0);
    drop(f);
}

static void committed_token_changes(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 1, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    first_token(f, P0, &fence, 0, 55);
    tokens(f, D0, &fence, 0, 1); /* says 100 */
    expect_cancels(f, P0, D0, 1);
    expect_attempt(f, P0, D0, 2, 1);
    assert_int_equal(f->tokens[0], 55);
    drop(f);
}

/* -- NEXT ---------------------------------------------------------------------------------------- */

static void refused_by_prefill(void **state)
{
    (void)state;
    fixture *f = start_fleet(2, 1);
    submit(f, 1, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    refused(f, P0, &fence, BT_REFUSE_DRAINING);
    expect_cancels(f, P0, D0, 1);
    expect_attempt(f, P1, D0, 2, 0); /* another than the one that failed */
    drop(f);
}

static void refused_by_decode_retargets(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 2);
    submit(f, 1, 6);
    bt_fence old = expect_attempt(f, P0, D0, 1, 0);
    first_token(f, P0, &old, 0, 100);
    refused(f, D0, &old, BT_REFUSE_LEASE);
    expect_sent(f, BT_MSG_CANCEL, D0); /* and none to P: it keeps its KV */
    const sent_msg *s = expect_sent(f, BT_MSG_RETARGET, P0);
    assert_int_equal(s->msg.fence.attempt, 2);
    assert_int_equal(s->msg.fence.d_incarnation, 1000 + D1);
    s = expect_sent(f, BT_MSG_RESERVE, D1);
    assert_int_equal(s->msg.reserve.base, 0); /* kept: the manifest brings token 0 again */
    assert_int_equal(s->msg.reserve.token_count, PROMPT);
    bt_fence fence = s->msg.fence;
    first_token(f, P0, &fence, 0, 100);
    tokens(f, D1, &fence, 0, 6);
    expect_cancels(f, P0, D1, 2);
    expect_end(f, BT_FINISH_LENGTH, 6, 2);
    drop(f);
}

static void retarget_refused(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 2);
    submit(f, 1, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    refused(f, D0, &fence, BT_REFUSE_TOO_LONG);
    expect_sent(f, BT_MSG_CANCEL, D0);
    expect_sent(f, BT_MSG_RETARGET, P0);
    fence = expect_sent(f, BT_MSG_RESERVE, D1)->msg.fence;
    refused(f, P0, &fence, BT_REFUSE_UNKNOWN);
    expect_cancels(f, P0, D1, 2);
    expect_attempt(f, P0, D1, 3, 0);
    drop(f);
}

static void no_retarget_after_accepted(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 2);
    submit(f, 1, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    first_token(f, P0, &fence, 0, 100);
    plain(f, D0, &fence, BT_MSG_ACCEPTED);
    refused(f, P0, &fence, BT_REFUSE_LEASE); /* of no interest any more */
    expect_silence(f);
    refused(f, D0, &fence, BT_REFUSE_ENGINE);
    expect_cancels(f, P0, D0, 1);
    expect_attempt(f, P0, D1, 2, 1);
    drop(f);
}

static void evicted(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 2);
    submit(f, 1, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    tokens(f, D0, &fence, 0, 3);
    bt_msg msg = answer(&fence, BT_MSG_EVICTED);
    msg.evicted.token_count = 3;
    bt_router_core_message(f->core, D0, &msg, f->now_ns);
    expect_cancels(f, P0, D0, 1);
    fence = expect_attempt(f, P0, D1, 2, 3);
    first_token(f, P0, &fence, 3, 103);
    tokens(f, D1, &fence, 3, 3);
    expect_cancels(f, P0, D1, 2);
    expect_end(f, BT_FINISH_LENGTH, 6, 2);
    drop(f);
}

/* With one token left the retry needs no D either. */
static void retry_of_the_last_token(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 2);
    submit(f, 1, 3);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    tokens(f, D0, &fence, 0, 2);
    bt_router_core_daemon_lost(f->core, D0, f->now_ns);
    expect_sent(f, BT_MSG_CANCEL, P0);
    const sent_msg *s = expect_sent(f, BT_MSG_PREFILL, P0);
    assert_true(s->msg.prefill.no_reserve);
    assert_int_equal(s->msg.prefill.base, 2);
    fence = s->msg.fence;
    first_token(f, P0, &fence, 2, 102);
    expect_sent(f, BT_MSG_CANCEL, P0);
    expect_end(f, BT_FINISH_LENGTH, 3, 2);
    drop(f);
}

static void attempts_are_bounded(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 1, 6);
    for (uint32_t attempt = 1; attempt <= 3; attempt++) {
        bt_fence fence = expect_attempt(f, P0, D0, attempt, 0);
        refused(f, P0, &fence, BT_REFUSE_ENGINE);
        expect_cancels(f, P0, D0, attempt);
    }
    expect_end(f, BT_FINISH_FAILED, 0, 3);
    assert_int_equal(f->end.refused, BT_REFUSE_ENGINE);
    assert_string_equal(f->end.text, "prefill: engine");
    drop(f);
}

static void full_is_said_at_once(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 1, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    refused(f, D0, &fence, BT_REFUSE_FULL);
    expect_cancels(f, P0, D0, 1);
    expect_end(f, BT_FINISH_FAILED, 0, 1);
    assert_int_equal(f->end.refused, BT_REFUSE_FULL);
    drop(f);
}

/* Given time, a full fleet is asked again, more often than attempts_max, and then given up. */
static void full_may_wait(void **state)
{
    (void)state;
    bt_router_config config = base_config();
    config.retry_wait_ns = 2000 * MS;
    fixture *f = make(&config);
    fleet(f, 1, 1);
    submit(f, 1, 6);
    uint32_t attempts = 0;
    uint64_t start_ns = f->now_ns;
    while (f->ended_count == 0 && f->now_ns < start_ns + 10000 * MS) {
        while (f->read < f->sent_count) {
            const sent_msg *s = &f->sent[f->read++];
            if (s->msg.kind != BT_MSG_RESERVE) continue;
            attempts++;
            bt_fence fence = s->msg.fence;
            refused(f, D0, &fence, BT_REFUSE_FULL);
        }
        pass(f, 50 * MS);
    }
    assert_true(attempts > config.attempts_max);
    assert_true(f->now_ns - start_ns < 3000 * MS);
    f->read = f->sent_count;
    expect_end(f, BT_FINISH_FAILED, 0, attempts);
    drop(f);
}

/* A pair that is being probed again refuses for a while; that spends time, not attempts. */
static void refusals_that_pass(void **state)
{
    (void)state;
    bt_router_config config = base_config();
    config.retry_wait_ns = 3000 * MS;
    fixture *f = make(&config);
    fleet(f, 1, 1);
    submit(f, 1, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    for (uint32_t attempt = 1; attempt <= 4; attempt++) {
        refused(f, D0, &fence, BT_REFUSE_INCOMPATIBLE);
        expect_cancels(f, P0, D0, attempt);
        expect_silence(f); /* not at once */
        pass(f, 500 * MS);
        fence = expect_attempt(f, P0, D0, attempt + 1, 0);
    }
    tokens(f, D0, &fence, 0, 6);
    expect_cancels(f, P0, D0, 5);
    expect_end(f, BT_FINISH_LENGTH, 6, 5);
    drop(f);
}

/* A request that kills every daemon it meets is given up, however patient the operator is. */
static void deaths_are_counted(void **state)
{
    (void)state;
    bt_router_config config = base_config();
    config.retry_wait_ns = 3000 * MS;
    fixture *f = make(&config);
    fleet(f, 1, 1);
    submit(f, 1, 6);
    for (uint32_t attempt = 1; attempt <= 3; attempt++) {
        bt_fence fence = expect_attempt(f, P0, D0, attempt, attempt - 1);
        tokens(f, D0, &fence, attempt - 1, 1);
        bt_router_core_daemon_lost(f->core, D0, f->now_ns);
        expect_sent(f, BT_MSG_CANCEL, P0);
        if (attempt == 3) break;
        hello_from(f, D0, 2000 + attempt);
        pair_status_from(f, P0, D0, true);
    }
    expect_end(f, BT_FINISH_FAILED, 3, 3);
    assert_int_equal(f->end.refused, BT_REFUSE_PEER_LOST);
    drop(f);
}

static void progress_timer(void **state)
{
    (void)state;
    fixture *f = start_fleet(2, 2);
    submit(f, 1, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    pass(f, 900 * MS);
    first_token(f, P0, &fence, 0, 100); /* starts the timer again, and clears P of blame */
    uint32_t before = f->sent_count;
    pass(f, 900 * MS);
    assert_int_equal(count_sent(f, before, BT_MSG_RETARGET, P0), 0);
    pass(f, 100 * MS);
    assert_int_equal(count_sent(f, before, BT_MSG_CANCEL, D0), 1);
    assert_int_equal(count_sent(f, before, BT_MSG_CANCEL, P0), 0);
    assert_int_equal(count_sent(f, before, BT_MSG_RETARGET, P0), 1);
    assert_int_equal(count_sent(f, before, BT_MSG_RESERVE, D1), 1);
    /* Without any answer the request fails in the end, and says so once. */
    pass(f, 3000 * MS);
    assert_int_equal(f->ended_count, 1);
    assert_int_equal(f->end.reason, BT_FINISH_FAILED);
    assert_non_null(strstr(f->end.text, "no progress"));
    drop(f);
}

/* -- clients ------------------------------------------------------------------------------------- */

static void cancel_in_each_state(void **state)
{
    (void)state;
    for (uint32_t when = 0; when < 4; when++) {
        fixture *f = start_fleet(1, 1);
        submit(f, 9, 6);
        bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
        if (when >= 1) first_token(f, P0, &fence, 0, 100);
        if (when >= 2) plain(f, D0, &fence, BT_MSG_ACCEPTED);
        if (when >= 3) tokens(f, D0, &fence, 0, 3);
        bt_router_core_cancel(f->core, 8, f->now_ns); /* unknown */
        assert_int_equal(f->ended_count, 0);
        bt_router_core_cancel(f->core, 9, f->now_ns);
        expect_cancels(f, P0, D0, 1);
        expect_end(f, BT_FINISH_CANCELLED, when == 0 ? 0 : when == 3 ? 3 : 1, 1);
        bt_router_core_cancel(f->core, 9, f->now_ns);
        bt_router_core_stop(f->core, 9, f->now_ns);
        assert_int_equal(f->ended_count, 1);
        drop(f);
    }
}

static void cancel_while_waiting(void **state)
{
    (void)state;
    bt_router_config config = base_config();
    config.retry_wait_ns = 3000 * MS;
    fixture *f = make(&config);
    fleet(f, 1, 1);
    submit(f, 9, 6);
    expect_attempt(f, P0, D0, 1, 0);
    bt_router_core_daemon_lost(f->core, D0, f->now_ns);
    expect_sent(f, BT_MSG_CANCEL, P0);
    assert_int_equal(f->ended_count, 0);
    bt_router_core_cancel(f->core, 9, f->now_ns);
    expect_end(f, BT_FINISH_CANCELLED, 0, 1);
    drop(f);
}

static void stop_string(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 9, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    tokens(f, D0, &fence, 0, 2);
    bt_router_core_stop(f->core, 9, f->now_ns);
    expect_cancels(f, P0, D0, 1);
    expect_end(f, BT_FINISH_STOP, 2, 1);
    drop(f);
}

/* The text stage ends the request from within io.token, be the token the first, one in the middle or
 * the last, or an end of sequence. */
static void end_within_a_token(void **state)
{
    (void)state;
    for (uint32_t at = 0; at < 6; at++) {
        for (uint32_t cancel = 0; cancel < 2; cancel++) {
            fixture *f = start_fleet(1, 1);
            f->in_token = cancel ? bt_router_core_cancel : bt_router_core_stop;
            f->in_token_at = at;
            submit(f, 9, 6);
            bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
            if (at == 0)
                first_token(f, P0, &fence, 0, EOS);
            else
                tokens(f, D0, &fence, 0, 6);
            expect_cancels(f, P0, D0, 1);
            expect_end(f, cancel ? BT_FINISH_CANCELLED : BT_FINISH_STOP, at + 1, 1);
            drop(f);
        }
    }
}

static void admission(void **state)
{
    (void)state;
    bt_router_config config = base_config();
    fixture *f = make(&config);
    assert_int_equal(submit(f, 1, 6), BT_ERR_PEER_LOST);
    fleet(f, 1, 1);
    assert_int_equal(submit(f, 1, 0), BT_ERR_ARGUMENT);
    assert_int_equal(submit(f, 1, UINT32_MAX), BT_ERR_LIMIT);
    assert_int_equal(submit(f, 1, 60), BT_ERR_LIMIT); /* tokens_max */
    assert_int_equal(submit(f, 1, 44), BT_ERR_LIMIT); /* the pools hold 48 */
    assert_int_equal(submit(f, 1, 43), BT_OK);
    for (uint64_t user = 2; user <= 4; user++) assert_int_equal(submit(f, user, 6), BT_OK);
    assert_int_equal(submit(f, 5, 6), BT_AGAIN);
    bt_router_core_cancel(f->core, 3, f->now_ns);
    assert_int_equal(submit(f, 5, 6), BT_OK);
    bt_router_stats stats;
    bt_router_core_stats(f->core, &stats);
    assert_int_equal(stats.requests, 4);
    assert_int_equal(stats.accepted_total, 5);
    assert_int_equal(stats.refused_total, 6);
    heartbeat_from(f, P0, true);
    bt_router_core_cancel(f->core, 5, f->now_ns);
    assert_int_equal(submit(f, 6, 6), BT_ERR_PEER_LOST); /* draining */
    drop(f);
}

/* -- daemons ------------------------------------------------------------------------------------- */

static void decode_death_retargets(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 2);
    submit(f, 1, 6);
    expect_attempt(f, P0, D0, 1, 0);
    uint32_t before = f->sent_count;
    bt_router_core_daemon_lost(f->core, D0, f->now_ns);
    assert_int_equal(count_sent(f, before, BT_MSG_UNPAIR, P0), 1);
    expect_sent(f, BT_MSG_RETARGET, P0);
    expect_sent(f, BT_MSG_RESERVE, D1);
    expect_silence(f);
    drop(f);
}

static void decode_death_is_a_pause(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 2);
    submit(f, 1, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    tokens(f, D0, &fence, 0, 3);
    hello_from(f, D0, 5555); /* started again: the death of the one before */
    expect_sent(f, BT_MSG_CANCEL, P0);
    fence = expect_attempt(f, P0, D1, 2, 3);
    tokens(f, D1, &fence, 3, 3);
    expect_cancels(f, P0, D1, 2);
    expect_end(f, BT_FINISH_LENGTH, 6, 2);
    assert_int_equal(bt_router_core_pair(f->core, P0, D0)->state, BT_PAIR_ASKED);
    drop(f);
}

static void prefill_death(void **state)
{
    (void)state;
    fixture *f = start_fleet(2, 1);
    submit(f, 1, 6);
    expect_attempt(f, P0, D0, 1, 0);
    bt_router_core_daemon_lost(f->core, P0, f->now_ns);
    expect_sent(f, BT_MSG_CANCEL, D0); /* before the new Reserve */
    bt_fence fence = expect_attempt(f, P1, D0, 2, 0);
    plain(f, D0, &fence, BT_MSG_ACCEPTED);
    bt_router_core_daemon_lost(f->core, P1, f->now_ns); /* changes nothing (H6) */
    expect_silence(f);
    tokens(f, D0, &fence, 0, 6);
    expect_sent(f, BT_MSG_CANCEL, D0);
    expect_end(f, BT_FINISH_LENGTH, 6, 2);
    drop(f);
}

/* The only D dies in mid-stream: within retry_wait a new one goes on, else a clear error. */
static void waits_for_a_restart(void **state)
{
    (void)state;
    for (uint32_t comes_back = 0; comes_back < 2; comes_back++) {
        bt_router_config config = base_config();
        config.retry_wait_ns = 3000 * MS;
        fixture *f = make(&config);
        fleet(f, 1, 1);
        submit(f, 1, 6);
        bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
        tokens(f, D0, &fence, 0, 3);
        bt_router_core_daemon_lost(f->core, D0, f->now_ns);
        expect_sent(f, BT_MSG_CANCEL, P0);
        pass(f, 1000 * MS);
        expect_silence(f);
        if (comes_back) {
            hello_from(f, D0, 7777);
            pair_status_from(f, P0, D0, true);
            fence = expect_attempt(f, P0, D0, 2, 3);
            tokens(f, D0, &fence, 3, 3);
            expect_cancels(f, P0, D0, 2);
            expect_end(f, BT_FINISH_LENGTH, 6, 2);
        } else {
            pass(f, 2100 * MS);
            expect_end(f, BT_FINISH_FAILED, 3, 1);
            assert_string_equal(f->end.text, "decode: the daemon is gone");
        }
        drop(f);
    }
}

static void silent_daemon(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 1, 6);
    for (int i = 0; i < 20; i++) { /* D falls silent */
        f->now_ns = bt_router_core_next_deadline(f->core);
        heartbeat_from(f, P0, false);
        bt_router_core_tick(f->core, f->now_ns);
    }
    assert_false(bt_router_core_daemon(f->core, D0)->up);
    assert_true(bt_router_core_daemon(f->core, P0)->up);
    assert_int_equal(f->ended_count, 1);
    assert_int_equal(f->end.reason, BT_FINISH_FAILED);
    assert_false(bt_router_core_serving(f->core));
    assert_true(count_sent(f, 0, BT_MSG_HEARTBEAT, P0) >= 3);
    /* It was only slow: its next heartbeat brings it back, and the pair is asked for again. */
    uint32_t before = f->sent_count;
    heartbeat_from(f, D0, false);
    assert_true(bt_router_core_daemon(f->core, D0)->up);
    assert_int_equal(count_sent(f, before, BT_MSG_PAIR, P0), 1);
    drop(f);
}

static void pairing(void **state)
{
    (void)state;
    bt_router_config config = base_config();
    fixture *f = make(&config);
    assert_true(bt_router_core_settled(f->core));
    hello_from(f, D0, 1);
    assert_int_equal(count_sent(f, 0, BT_MSG_WELCOME, D0), 1);
    hello_from(f, P0, 2);
    hello_from(f, P1, 3);
    assert_int_equal(count_sent(f, 0, BT_MSG_PAIR, P0), 1);
    assert_int_equal(count_sent(f, 0, BT_MSG_PAIR, P1), 1);
    const bt_msg *last = &f->sent[f->sent_count - 1].msg;
    assert_int_equal(last->pair.d_incarnation, 1);
    assert_string_equal(last->pair.endpoint, "tcp://4");
    assert_false(bt_router_core_settled(f->core));
    pair_status_from(f, P0, D0, true);
    assert_true(bt_router_core_serving(f->core));
    assert_false(bt_router_core_settled(f->core));
    pass(f, 400 * MS); /* the answer of P1 is missing: asked again */
    assert_true(count_sent(f, 0, BT_MSG_PAIR, P1) > 1);
    assert_int_equal(count_sent(f, 0, BT_MSG_PAIR, P0), 1);
    uint32_t before =
        f->sent_count; /* ever later, since a probe may take long: not at each renewal */
    pass(f, 4000 * MS);
    assert_in_range(count_sent(f, before, BT_MSG_PAIR, P1), 1, 5);
    before = f->sent_count;
    hello_from(f, P1, 3); /* it connected again */
    assert_int_equal(count_sent(f, before, BT_MSG_PAIR, P1), 1);
    pair_status_from(f, P1, D0, false);
    assert_true(bt_router_core_settled(f->core));
    const bt_router_pair *pair = bt_router_core_pair(f->core, P1, D0);
    assert_int_equal(pair->state, BT_PAIR_REFUSED);
    assert_string_equal(pair->reason, "no such layer");
    pair = bt_router_core_pair(f->core, P0, D0);
    assert_int_equal(pair->mb_per_s, 1234);
    assert_string_equal(pair->transport, "posix/memory");
    assert_null(bt_router_core_pair(f->core, BT_DAEMONS_MAX, 0));
    assert_null(bt_router_core_daemon(f->core, BT_DAEMONS_MAX));
    drop(f);
}

static void pair_breaks(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 2);
    submit(f, 1, 6);
    expect_attempt(f, P0, D0, 1, 0);
    pair_status_from(f, P0, D0, false);
    expect_sent(f, BT_MSG_CANCEL, D0);
    expect_sent(f, BT_MSG_RETARGET, P0);
    expect_sent(f, BT_MSG_RESERVE, D1);
    uint32_t before = f->sent_count;
    pass(f, 300 * MS);
    assert_true(count_sent(f, before, BT_MSG_PAIR, P0) >= 1);
    drop(f);
}

static void renewals(void **state)
{
    (void)state;
    fixture *f = start_fleet(1, 1);
    submit(f, 1, 6);
    submit(f, 2, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0);
    uint32_t before = f->sent_count;
    pass(f, 250 * MS);
    assert_int_equal(count_sent(f, before, BT_MSG_RENEW, P0), 1);
    assert_int_equal(count_sent(f, before, BT_MSG_RENEW, D0), 1);
    plain(f, D0, &fence, BT_MSG_ACCEPTED);
    for (uint32_t i = before; i < f->sent_count; i++)
        if (f->sent[i].msg.kind == BT_MSG_RENEW)
            assert_int_equal(f->sent[i].msg.renew.request_count, 2);
    before = f->sent_count;
    pass(f, 200 * MS);
    for (uint32_t i = before; i < f->sent_count; i++)
        if (f->sent[i].msg.kind == BT_MSG_RENEW)
            assert_int_equal(f->sent[i].msg.renew.request_count, f->sent[i].daemon == P0 ? 1 : 2);
    drop(f);
}

static void draining_daemons(void **state)
{
    (void)state;
    fixture *f = start_fleet(2, 2);
    heartbeat_from(f, P0, true);
    heartbeat_from(f, D1, true);
    for (uint64_t user = 1; user <= 4; user++) {
        submit(f, user, 6);
        expect_attempt(f, P1, D0, 1, 0);
    }
    /* A draining P honours Retarget. */
    heartbeat_from(f, D1, false);
    heartbeat_from(f, P1, true);
    bt_fence fence = f->sent[f->sent_count - 1].msg.fence;
    refused(f, D0, &fence, BT_REFUSE_LEASE);
    expect_sent(f, BT_MSG_CANCEL, D0);
    expect_sent(f, BT_MSG_RETARGET, P1);
    expect_sent(f, BT_MSG_RESERVE, D1);
    drop(f);
}

/* What is not about this attempt, or from somebody else, changes nothing. */
static void foreign_messages(void **state)
{
    (void)state;
    fixture *f = start_fleet(2, 2);
    submit(f, 1, 6);
    bt_fence fence = expect_attempt(f, P0, D0, 1, 0), bad;
    tokens(f, D1, &fence, 0, 6);
    tokens(f, P0, &fence, 0, 6);
    first_token(f, P1, &fence, 0, 100);
    first_token(f, D0, &fence, 0, 100);
    first_token(f, P0, &fence, 1, 100); /* not the base */
    bad = fence;
    bad.attempt = 2;
    tokens(f, D0, &bad, 0, 6);
    bad = fence;
    bad.d_incarnation++;
    tokens(f, D0, &bad, 0, 6);
    bad = fence;
    bad.p_incarnation++;
    refused(f, P0, &bad, BT_REFUSE_FULL);
    bad = fence;
    bad.request.bytes[0]++;
    refused(f, P0, &bad, BT_REFUSE_FULL);
    plain(f, D0, &fence, BT_MSG_TICKET);
    bt_router_stats stats;
    bt_router_core_stats(f->core, &stats);
    assert_int_equal(stats.stale_total, 10);
    assert_int_equal(f->token_count, 0);
    expect_silence(f);
    drop(f);
}

/* -- policies ------------------------------------------------------------------------------------ */

/* Two prefill and two decode daemons, all pairs; costs of a token differ tenfold if uneven. */
typedef struct {
    bt_router_daemon daemons[4];
    bt_router_choice choices[4];
    bt_router_view view;
    bt_router_policy_state state;
} policy_fixture;

static void policy_open(policy_fixture *f)
{
    *f = (policy_fixture){0};
    for (uint32_t i = 0; i < 4; i++)
        f->choices[i] = (bt_router_choice){.prefill = i / 2, .decode = 2 + i % 2};
    f->view = (bt_router_view){.daemons = f->daemons,
                               .choices = f->choices,
                               .choice_count = 4,
                               .prompt_tokens = 100,
                               .affinity_tokens = 1000,
                               .now_ns = 5000 * MS};
    bt_rng_init(&f->state.rng, 1);
}

static uint32_t pick(policy_fixture *f, const bt_router_policy *policy)
{
    uint32_t choice = policy->choose(&f->view, &f->state);
    assert_in_range(choice, 0, f->view.choice_count - 1);
    return choice;
}

/* Every row of the registry. */
static void policy_suite(void **state)
{
    (void)state;
    assert_ptr_equal(bt_router_policy_find(NULL), bt_router_policies[0]);
    assert_null(bt_router_policy_find("no_such_policy"));
    assert_null(bt_router_policy_choices[bt_router_policy_count]);
    for (uint32_t i = 0; i < bt_router_policy_count; i++) {
        const bt_router_policy *policy = bt_router_policies[i];
        assert_ptr_equal(bt_router_policy_find(policy->name), policy);
        assert_string_equal(bt_router_policy_choices[i], policy->name);
        policy_fixture f, again;
        policy_open(&f);
        for (f.view.choice_count = 1; f.view.choice_count < 4; f.view.choice_count++)
            (void)pick(&f, policy);
        f.view.choice_count = 4;
        /* Equal daemons get equal shares. */
        uint32_t picked[4] = {0};
        for (uint32_t k = 0; k < 4000; k++) picked[pick(&f, policy)]++;
        for (uint32_t k = 0; k < 4; k++) assert_in_range(picked[k], 900, 1100);
        /* The same state and view give the same answers. */
        policy_open(&f);
        policy_open(&again);
        for (uint32_t k = 0; k < 100; k++) assert_int_equal(pick(&f, policy), pick(&again, policy));
    }
}

static void least_loaded(void **state)
{
    (void)state;
    policy_fixture f;
    policy_open(&f);
    f.daemons[0].assigned_tokens = 1000;
    f.daemons[3].running = 5;
    for (int i = 0; i < 8; i++) assert_int_equal(pick(&f, &bt_router_least_loaded), 2);
}

/* Of two daemons of a role the two drawn are both: never the busier. Of three the busiest never. */
static void power_of_two(void **state)
{
    (void)state;
    policy_fixture f;
    policy_open(&f);
    f.daemons[0].queued_tokens = 1000; /* as another router sent them */
    f.daemons[3].running = 5;
    for (int i = 0; i < 50; i++) assert_int_equal(pick(&f, &bt_router_power_of_two), 2);
    policy_open(&f);
    for (uint32_t i = 0; i < 3; i++) f.choices[i] = (bt_router_choice){.prefill = i, .decode = 3};
    f.view.choice_count = 3;
    f.daemons[0].assigned_tokens = 10;
    f.daemons[1].assigned_tokens = 20;
    f.daemons[2].assigned_tokens = 30;
    uint32_t picked[3] = {0};
    for (int i = 0; i < 3000; i++) picked[pick(&f, &bt_router_power_of_two)]++;
    assert_in_range(picked[0], 1900, 2100); /* wins two of the three pairs that may be drawn */
    assert_in_range(picked[1], 900, 1100);
    assert_int_equal(picked[2], 0);
}

static void prefix_affinity(void **state)
{
    (void)state;
    policy_fixture f;
    policy_open(&f);
    f.choices[2].p_cached = f.choices[3].p_cached = 64;
    f.choices[1].d_cached = f.choices[3].d_cached = 64;
    f.choices[0].d_cached = 6400; /* saves a transfer, but P's cache saves computing */
    f.daemons[1].assigned_tokens = 1000;
    f.daemons[3].running = 8;
    for (int i = 0; i < 8; i++) assert_int_equal(pick(&f, &bt_router_prefix_affinity), 3);
    /* Beyond the bound affinity gives way: of P, and of D. */
    f.daemons[3].running = 9;
    for (int i = 0; i < 8; i++) assert_int_equal(pick(&f, &bt_router_prefix_affinity), 2);
    f.daemons[1].assigned_tokens = 1001;
    for (int i = 0; i < 8; i++) assert_int_equal(pick(&f, &bt_router_prefix_affinity), 0);
}

static void predicted_ttft(void **state)
{
    (void)state;
    const bt_router_policy *policy = &bt_router_predicted_ttft;
    policy_fixture f;
    policy_open(&f);
    for (uint32_t i = 0; i < 4; i++) {
        f.daemons[i].cost = (bt_cost){1000000, 100000, 0};
        f.daemons[i].hello.chunk_tokens = 512;
    }
    /* P0 is ten times slower, but nothing waits there: 101 ms against 11 + 200 of the queue. */
    f.daemons[0].cost.token_ns = 1000000;
    f.daemons[1].work_ns = 200e6;
    f.daemons[1].work_since_ns = f.view.now_ns;
    f.daemons[1].assigned_tokens = 2000;
    f.daemons[3].running = 50;
    for (int i = 0; i < 8; i++) assert_int_equal(pick(&f, policy), 0);
    /* What was sent 150 ms ago is mostly done. */
    f.daemons[1].work_since_ns = f.view.now_ns - 150 * MS;
    for (int i = 0; i < 8; i++) assert_int_equal(pick(&f, policy), 2);
    /* P0 holds most of the prompt: 5 ms. */
    f.choices[0].p_cached = f.choices[1].p_cached = 96;
    for (int i = 0; i < 8; i++) assert_int_equal(pick(&f, policy), 0);
    /* … and another router's work is in its way, told just now. */
    f.daemons[0].queued_tokens = 100;
    f.daemons[0].told_ns = f.view.now_ns;
    for (int i = 0; i < 8; i++) assert_int_equal(pick(&f, policy), 2);
    /* A slow link counts like a slow P. */
    f.choices[2].handoff_ns = 90e6;
    for (int i = 0; i < 8; i++) assert_int_equal(pick(&f, policy), 3);
    /* One that is not measured counts as the mean of the others; the prediction is exact. */
    f.daemons[0].cost = (bt_cost){0};
    f.daemons[0].queued_tokens = 0;
    double ns = bt_predict_ttft_ns(&f.view, &f.choices[0]);
    assert_true(ns > 1.39e6 && ns < 1.41e6);
}

/* A fleet under each policy: every request ends, and both daemons of a role get work. */
static void policies_in_the_core(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < bt_router_policy_count; i++) {
        bt_router_config config = base_config();
        config.policy = bt_router_policies[i]->name;
        fixture *f = make(&config);
        fleet(f, 2, 2);
        for (uint64_t user = 1; user <= 4; user++) assert_int_equal(submit(f, user, 6), BT_OK);
        assert_true(count_sent(f, 0, BT_MSG_PREFILL, P0) >= 2);
        assert_true(count_sent(f, 0, BT_MSG_PREFILL, P1) >= 1);
        assert_true(count_sent(f, 0, BT_MSG_RESERVE, D0) >= 1);
        assert_true(count_sent(f, 0, BT_MSG_RESERVE, D1) >= 1);
        for (uint64_t user = 1; user <= 4; user++) bt_router_core_cancel(f->core, user, f->now_ns);
        assert_int_equal(f->ended_count, 4);
        drop(f);
    }
}

/* The roomiest ready pair whose P takes the prompt; D's probe has 64 tokens of its pool. */
static void room_of_the_fleet(void **state)
{
    (void)state;
    bt_router_config config = base_config();
    fixture *f = make(&config);
    assert_int_equal(bt_router_core_room(f->core, 1), 0);
    hello_of_pool(f, P0, 10); /* 160 tokens */
    hello_of_pool(f, P1, 2);
    hello_of_pool(f, D0, 8);   /* 128 - 64 */
    hello_of_pool(f, D1, 100); /* 1,600 - 64 */
    assert_int_equal(bt_router_core_room(f->core, 1), 0);
    pair_status_from(f, P0, D0, true);
    assert_int_equal(bt_router_core_room(f->core, 1), 64);
    pair_status_from(f, P1, D1, true);
    assert_int_equal(bt_router_core_room(f->core, 32), 1536);
    assert_int_equal(bt_router_core_room(f->core, 33), 64); /* P1 cannot take it */
    assert_int_equal(bt_router_core_room(f->core, 161), 0);
    pair_status_from(f, P0, D1, true);
    assert_int_equal(bt_router_core_room(f->core, 160), 1536);
    bt_router_core_daemon_lost(f->core, D1, f->now_ns);
    assert_int_equal(bt_router_core_room(f->core, 1), 64);
    drop(f);
}

/* Places kept for requests to come are nobody else's, and each is used or given back. */
static void reserved_places(void **state)
{
    (void)state;
    bt_router_config config = base_config(); /* 4 requests */
    fixture *f = make(&config);
    fleet(f, 1, 1);
    bt_err err;
    assert_int_equal(bt_router_core_reserve(f->core, 5, &err), BT_AGAIN);
    assert_int_equal(bt_router_core_reserve(f->core, 3, &err), BT_OK);
    assert_int_equal(bt_router_core_reserve(f->core, 2, &err), BT_AGAIN);
    assert_int_equal(submit(f, 1, 4), BT_OK);
    assert_int_equal(submit(f, 2, 4), BT_AGAIN);
    assert_int_equal(submit_as(f, 3, 4, true), BT_OK);
    assert_int_equal(submit(f, 4, 4), BT_AGAIN);
    bt_router_core_unreserve(f->core, 1);
    assert_int_equal(submit(f, 4, 4), BT_OK);
    bt_router_core_cancel(f->core, 1, f->now_ns); /* frees a place; one is still kept */
    assert_int_equal(submit(f, 5, 4), BT_OK);
    assert_int_equal(submit(f, 6, 4), BT_AGAIN);
    bt_router_core_unreserve(f->core, 1);
    drop(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(until_length),
        cmocka_unit_test(until_eos),
        cmocka_unit_test(first_token_ends),
        cmocka_unit_test(one_token_needs_no_decode),
        cmocka_unit_test(ignored_eos),
        cmocka_unit_test(prompt_logprobs_come_first),
        cmocka_unit_test(prompt_logprobs_come_after_the_end),
        cmocka_unit_test(missing_prompt_logprobs_fail_the_attempt),
        cmocka_unit_test(prompt_logprobs_are_asked_for_once),
        cmocka_unit_test(stop_ids_end_the_output),
        cmocka_unit_test(bias_rows_are_copied),
        cmocka_unit_test(older_daemons_get_no_newer_work),
        cmocka_unit_test(finished_confirms),
        cmocka_unit_test(out_of_order),
        cmocka_unit_test(finished_with_a_gap),
        cmocka_unit_test(gap_too_wide),
        cmocka_unit_test(committed_token_changes),
        cmocka_unit_test(refused_by_prefill),
        cmocka_unit_test(refused_by_decode_retargets),
        cmocka_unit_test(retarget_refused),
        cmocka_unit_test(no_retarget_after_accepted),
        cmocka_unit_test(evicted),
        cmocka_unit_test(retry_of_the_last_token),
        cmocka_unit_test(attempts_are_bounded),
        cmocka_unit_test(full_is_said_at_once),
        cmocka_unit_test(full_may_wait),
        cmocka_unit_test(refusals_that_pass),
        cmocka_unit_test(deaths_are_counted),
        cmocka_unit_test(progress_timer),
        cmocka_unit_test(cancel_in_each_state),
        cmocka_unit_test(cancel_while_waiting),
        cmocka_unit_test(stop_string),
        cmocka_unit_test(end_within_a_token),
        cmocka_unit_test(admission),
        cmocka_unit_test(decode_death_retargets),
        cmocka_unit_test(decode_death_is_a_pause),
        cmocka_unit_test(prefill_death),
        cmocka_unit_test(waits_for_a_restart),
        cmocka_unit_test(silent_daemon),
        cmocka_unit_test(pairing),
        cmocka_unit_test(pair_breaks),
        cmocka_unit_test(renewals),
        cmocka_unit_test(draining_daemons),
        cmocka_unit_test(foreign_messages),
        cmocka_unit_test(policy_suite),
        cmocka_unit_test(least_loaded),
        cmocka_unit_test(power_of_two),
        cmocka_unit_test(prefix_affinity),
        cmocka_unit_test(predicted_ttft),
        cmocka_unit_test(policies_in_the_core),
        cmocka_unit_test(room_of_the_fleet),
        cmocka_unit_test(reserved_places),
    };
    return cmocka_run_group_tests_name("router_core", tests, NULL, NULL);
}
