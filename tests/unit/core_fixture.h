/* core_fixture.h - what the tests of the two daemon cores share: a log of the messages that a core
 * sends, and small builders. */
#ifndef BT_TESTS_UNIT_CORE_FIXTURE_H
#define BT_TESTS_UNIT_CORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/msg.h"

#define MS 1000000ull
#define LOG_MAX 512u
#define P_INC 0x1111ull
#define D_INC 0x2222ull
#define VOCAB 100u
#define EOS 99u
#define LAYERS 2u

typedef struct {
    bt_msg msg;
    uint32_t peer;
    bt_token token; /* of TOKENS, whose pointer dies with the call */
} logged;

typedef struct {
    logged entries[LOG_MAX];
    uint32_t count, next;
} msg_log;

static inline void log_add(msg_log *log, uint32_t peer, const bt_msg *msg)
{
    assert_true(log->count < LOG_MAX);
    logged *l = &log->entries[log->count++];
    *l = (logged){.msg = *msg, .peer = peer};
    if (msg->kind != BT_MSG_TOKENS && msg->kind != BT_MSG_PROMPT_LOGPROBS) return;
    assert_true(msg->kind == BT_MSG_PROMPT_LOGPROBS || msg->tokens.token_count == 1);
    l->token = msg->tokens.tokens[0];
    l->msg.tokens.tokens = &l->token;
}

/* The next message, which must be of this kind. */
static inline const bt_msg *log_expect(msg_log *log, bt_msg_kind kind)
{
    if (log->next == log->count) fail_msg("no %s came", bt_msg_name(kind));
    const bt_msg *msg = &log->entries[log->next++].msg;
    if (msg->kind != kind) fail_msg("%s came, not %s", bt_msg_name(msg->kind), bt_msg_name(kind));
    return msg;
}

static inline void log_expect_none(const msg_log *log)
{
    if (log->next < log->count)
        fail_msg("unexpected %s", bt_msg_name(log->entries[log->next].msg.kind));
}

/* Request number n, any attempt. Router messages: slot and generation 0. */
static inline bt_fence fence_of(uint8_t n, uint32_t attempt)
{
    bt_fence fence = {.attempt = attempt, .p_incarnation = P_INC, .d_incarnation = D_INC};
    memset(fence.request.bytes, n, sizeof(fence.request.bytes));
    return fence;
}

/* token_count tokens that depend on n; max_tokens output tokens. */
static inline bt_msg work_of(bt_msg_kind kind, uint8_t n, uint32_t attempt, uint32_t token_count,
                             uint32_t max_tokens)
{
    static uint32_t tokens[4096];
    assert_true(token_count <= 4096);
    for (uint32_t i = 0; i < token_count; i++) tokens[i] = (i * 7 + n) % (VOCAB - 1);
    bt_msg msg = {.kind = kind, .fence = fence_of(n, attempt)};
    msg.prefill.tokens = tokens;
    msg.prefill.token_count = token_count;
    msg.prefill.max_tokens = max_tokens;
    msg.prefill.sampling.top_p = 1;
    return msg;
}

static inline void *aligned_block(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(memory);
    return memory;
}

#endif
