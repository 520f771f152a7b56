/* check.c - the ranges of every field of every message (bt_msg_check).
 *
 * Checked on both sides: by encode, so that a daemon cannot send what its peer refuses, and by
 * decode, so that a core may trust what reaches it to be in range (not to be true). */
#include "common/base/utf8.h"
#include "proto/codec.h"

#include <math.h>
#include <string.h>

#define RUNS_MAX (BT_CONTEXT_TOKENS_MAX / BT_RUN_TOKENS)
#define FRAMES_MAX (BT_LAYERS_MAX * RUNS_MAX)
#define BRANCHES_MAX 128u
#define RANKS_MAX 64u
#define SLOTS_MAX 65536u
#define BLOCK_TOKENS_MAX 64u
#define CELL_BYTES_MAX (1u << 30)
#define LEASE_MS_MAX 3600000u
#define DEADLINE_MS_MAX 86400000u
#define CONTEXTS_MAX (UINT64_C(1) << 40) /* tokens of all sequences of a daemon */
#define LOGPROB_MIN (-1e9f)
#define LOGPROB_MAX 1e-2f /* rounding may lift log(1) a little above zero */

/* Which parts of the fence a kind needs. */
enum {
    NEED_KEY = 1,  /* attempt */
    NEED_P = 2,    /* P's incarnation */
    NEED_D = 4,    /* D's incarnation */
    NEED_SLOT = 8, /* the generation of a slot */
    NEED_GRANT = NEED_KEY | NEED_P | NEED_D | NEED_SLOT
};

static const uint8_t fence_needs[BT_MSG_KIND_END] = {
    [BT_MSG_PREFILL] = NEED_KEY | NEED_P,
    [BT_MSG_RESERVE] = NEED_KEY | NEED_D, /* and P's, but for a local one: check_work */
    [BT_MSG_RETARGET] = NEED_KEY | NEED_P | NEED_D,
    [BT_MSG_CANCEL] = NEED_KEY,
    [BT_MSG_FIRST_TOKEN] = NEED_KEY | NEED_P,
    [BT_MSG_PINNED] = NEED_KEY | NEED_P,
    [BT_MSG_ACCEPTED] = NEED_KEY | NEED_D,
    [BT_MSG_REFUSED] = NEED_KEY,
    [BT_MSG_TOKENS] = NEED_KEY | NEED_D, /* these four: of a local attempt too, without P */
    [BT_MSG_FINISHED] = NEED_KEY | NEED_D,
    [BT_MSG_EVICTED] = NEED_KEY | NEED_D,
    [BT_MSG_TICKET] = NEED_GRANT,
    [BT_MSG_SEALED] = NEED_GRANT,
    [BT_MSG_CREDIT] = NEED_GRANT,
    [BT_MSG_MANIFEST] = NEED_GRANT,
    [BT_MSG_ABANDON] = NEED_GRANT,
    [BT_MSG_QUIESCED] = NEED_GRANT,
    [BT_MSG_LEASE_RENEW] = NEED_GRANT,
    [BT_MSG_PROMPT_LOGPROBS] = NEED_KEY | NEED_P,
};

#define REQUIRE(cond, field)                                                                       \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            *ret_field = (field);                                                                  \
            return false;                                                                          \
        }                                                                                          \
    } while (0)

/* Valid UTF-8 with its NUL inside the array. */
static bool text_valid(const char *text, size_t capacity)
{
    size_t bytes = strnlen(text, capacity);
    return bytes < capacity && bt_utf8_valid(text, bytes);
}

#define TEXT_VALID(array) text_valid((array), sizeof(array))

static bool dtype_valid(bt_dtype dtype)
{
    return (unsigned)dtype > BT_DTYPE_NONE && (unsigned)dtype < BT_DTYPE_COUNT;
}

static bool logprob_valid(float logprob)
{
    return isfinite(logprob) && logprob >= LOGPROB_MIN && logprob <= LOGPROB_MAX;
}

static bool token_valid(const bt_token *token)
{
    if (token->id >= BT_VOCAB_MAX || !logprob_valid(token->logprob)) return false;
    if (token->top_count > BT_TOP_LOGPROBS_MAX) return false;
    for (uint32_t i = 0; i < token->top_count; i++)
        if (token->top[i].id >= BT_VOCAB_MAX || !logprob_valid(token->top[i].logprob)) return false;
    return true;
}

static bool check_fence(const bt_msg *msg, const char **ret_field)
{
    const bt_fence *f = &msg->fence;
    uint8_t needs = fence_needs[msg->kind];
    if (needs == 0) {
        static const bt_fence none;
        REQUIRE(bt_fence_equal(f, &none), "fence (this kind has none)");
        return true;
    }
    REQUIRE(f->attempt >= 1, "fence.attempt");
    REQUIRE(f->branch < BRANCHES_MAX, "fence.branch");
    REQUIRE(f->tp_rank < RANKS_MAX, "fence.tp_rank");
    REQUIRE(f->slot < SLOTS_MAX, "fence.slot");
    REQUIRE(!(needs & NEED_P) || f->p_incarnation != 0, "fence.p_incarnation");
    REQUIRE(!(needs & NEED_D) || f->d_incarnation != 0, "fence.d_incarnation");
    REQUIRE(!(needs & NEED_SLOT) || f->generation >= 1, "fence.generation");
    return true;
}

static bool check_hello(const bt_hello *h, const char **ret_field)
{
    REQUIRE(h->role == BT_ROLE_PREFILL || h->role == BT_ROLE_DECODE, "role");
    REQUIRE(TEXT_VALID(h->name) && h->name[0] != 0, "name");
    REQUIRE(TEXT_VALID(h->model), "model");
    REQUIRE(h->incarnation != 0, "incarnation");
    REQUIRE(dtype_valid(h->kv_dtype), "kv_dtype");
    REQUIRE((h->wire_formats & ~((1u << BT_DTYPE_COUNT) - 2u)) == 0, "wire_formats");
    REQUIRE(h->block_tokens >= 1 && h->block_tokens <= BLOCK_TOKENS_MAX, "block_tokens");
    REQUIRE(h->context_tokens_max <= BT_CONTEXT_TOKENS_MAX, "context_tokens_max");
    REQUIRE(h->chunk_tokens <= BT_CONTEXT_TOKENS_MAX, "chunk_tokens");
    REQUIRE(h->layers >= 1 && h->layers <= BT_LAYERS_MAX, "layers");
    REQUIRE(h->kv_heads >= 1 && h->kv_heads <= BT_KV_HEADS_MAX, "kv_heads");
    REQUIRE(h->head_dim >= 1 && h->head_dim <= BT_HEAD_DIM_MAX, "head_dim");
    REQUIRE(h->vocab >= 1 && h->vocab <= BT_VOCAB_MAX, "vocab");
    REQUIRE(h->tp_size >= 1 && h->tp_size <= RANKS_MAX, "tp_size");
    REQUIRE(TEXT_VALID(h->pair_endpoint), "pair_endpoint");
    REQUIRE(TEXT_VALID(h->metrics_url), "metrics_url");
    return true;
}

static bool check_pairing(const bt_msg *m, const char **ret_field)
{
    switch (m->kind) {
    case BT_MSG_HELLO: return check_hello(&m->hello, ret_field);
    case BT_MSG_PAIR:
    case BT_MSG_UNPAIR:
        REQUIRE(m->pair.d_incarnation != 0, "d_incarnation");
        REQUIRE(TEXT_VALID(m->pair.name), "name");
        REQUIRE(TEXT_VALID(m->pair.endpoint), "endpoint");
        return true;
    case BT_MSG_PAIR_STATUS:
        REQUIRE(m->pair_status.d_incarnation != 0, "d_incarnation");
        REQUIRE(TEXT_VALID(m->pair_status.transport), "transport");
        REQUIRE(TEXT_VALID(m->pair_status.reason), "reason");
        REQUIRE((unsigned)m->pair_status.wire < BT_DTYPE_COUNT, "wire");
        REQUIRE(!m->pair_status.ready || dtype_valid(m->pair_status.wire), "wire");
        return true;
    case BT_MSG_PAIR_HELLO:
        REQUIRE((unsigned)m->pair_hello.wire_wanted < BT_DTYPE_COUNT, "wire_wanted");
        REQUIRE(m->pair_hello.worker_address_bytes <= BT_MSG_ADDRESS_BYTES_MAX, "worker_address");
        return check_hello(&m->pair_hello.hello, ret_field);
    case BT_MSG_PAIR_ACCEPT:
        REQUIRE(dtype_valid(m->pair_accept.wire), "wire");
        REQUIRE(m->pair_accept.slot_count >= 1 && m->pair_accept.slot_count <= SLOTS_MAX,
                "slot_count");
        REQUIRE(m->pair_accept.cell_count >= 1 && m->pair_accept.cell_count <= BT_CELLS_MAX,
                "cell_count");
        REQUIRE(m->pair_accept.cell_bytes >= 1 && m->pair_accept.cell_bytes <= CELL_BYTES_MAX,
                "cell_bytes");
        REQUIRE(m->pair_accept.worker_address_bytes <= BT_MSG_ADDRESS_BYTES_MAX, "worker_address");
        REQUIRE(m->pair_accept.rkey_bytes <= BT_MSG_ADDRESS_BYTES_MAX, "rkey");
        return check_hello(&m->pair_accept.hello, ret_field);
    case BT_MSG_PAIR_REFUSE: REQUIRE(TEXT_VALID(m->pair_refuse.reason), "reason"); return true;
    default: return true;
    }
}

static bool check_work(const bt_msg *m, const char **ret_field)
{
    const bt_msg_work *w = m->kind == BT_MSG_PREFILL ? &m->prefill : &m->reserve;
    REQUIRE(w->token_count >= 1 && w->token_count <= BT_CONTEXT_TOKENS_MAX, "tokens");
    for (uint32_t i = 0; i < w->token_count; i++) REQUIRE(w->tokens[i] < BT_VOCAB_MAX, "tokens");
    REQUIRE(w->base < w->token_count, "base");
    REQUIRE(w->max_tokens > w->base && w->max_tokens <= BT_CONTEXT_TOKENS_MAX, "max_tokens");
    REQUIRE(w->token_count - w->base + w->max_tokens <= BT_CONTEXT_TOKENS_MAX, "max_tokens");
    REQUIRE(w->deadline_ms <= DEADLINE_MS_MAX, "deadline_ms");
    REQUIRE(m->kind == BT_MSG_PREFILL || !w->no_reserve, "no_reserve");
    REQUIRE(w->no_reserve || m->fence.d_incarnation != 0, "fence.d_incarnation");
    REQUIRE(m->kind == BT_MSG_RESERVE || !w->local, "local");
    REQUIRE(m->kind == BT_MSG_PREFILL || w->local == (m->fence.p_incarnation == 0),
            "fence.p_incarnation");
    const char *fault = bt_sampling_fault(&w->sampling, BT_VOCAB_MAX);
    REQUIRE(fault == NULL, fault);
    REQUIRE(w->sampling.min_tokens <= w->max_tokens, "min_tokens");
    return true;
}

static bool check_answer(const bt_msg *m, const char **ret_field)
{
    switch (m->kind) {
    case BT_MSG_FIRST_TOKEN:
        REQUIRE(token_valid(&m->first_token.token), "token");
        REQUIRE(m->first_token.index < BT_CONTEXT_TOKENS_MAX, "index");
        REQUIRE((unsigned)m->first_token.finish <= BT_FINISH_FAILED, "finish");
        REQUIRE(m->first_token.cached_tokens <= BT_CONTEXT_TOKENS_MAX, "cached_tokens");
        return true;
    case BT_MSG_ACCEPTED:
        REQUIRE(m->accepted.cached_tokens <= BT_CONTEXT_TOKENS_MAX, "cached_tokens");
        return true;
    case BT_MSG_REFUSED:
        REQUIRE((unsigned)m->refused.reason > BT_REFUSE_NONE &&
                    (unsigned)m->refused.reason < BT_REFUSE_COUNT,
                "reason");
        REQUIRE(TEXT_VALID(m->refused.text), "text");
        return true;
    case BT_MSG_TOKENS:
    case BT_MSG_PROMPT_LOGPROBS:
        REQUIRE(m->kind == BT_MSG_TOKENS || m->tokens.index >= 1, "index");
        REQUIRE(m->tokens.token_count >= 1 && m->tokens.token_count <= BT_MSG_TOKENS_MAX, "tokens");
        REQUIRE(m->tokens.index <= BT_CONTEXT_TOKENS_MAX - m->tokens.token_count, "index");
        for (uint32_t i = 0; i < m->tokens.token_count; i++)
            REQUIRE(token_valid(&m->tokens.tokens[i]), "tokens");
        return true;
    case BT_MSG_FINISHED:
        REQUIRE((unsigned)m->finished.reason > BT_FINISH_NONE &&
                    (unsigned)m->finished.reason <= BT_FINISH_FAILED,
                "reason");
        REQUIRE(m->finished.token_count <= BT_CONTEXT_TOKENS_MAX, "token_count");
        return true;
    case BT_MSG_EVICTED:
        REQUIRE(m->evicted.token_count <= BT_CONTEXT_TOKENS_MAX, "token_count");
        return true;
    case BT_MSG_RENEW: REQUIRE(m->renew.request_count <= BT_MSG_RENEW_MAX, "requests"); return true;
    default: return true;
    }
}

static bool check_frame(const bt_frame *f, const char **ret_field)
{
    REQUIRE(f->frame < FRAMES_MAX, "frame.frame");
    REQUIRE(f->cell < BT_CELLS_MAX, "frame.cell");
    REQUIRE(f->layer < BT_LAYERS_MAX, "frame.layer");
    REQUIRE(f->run_count >= 1 && f->run_count <= RUNS_MAX, "frame.run_count");
    REQUIRE(f->run_first <= RUNS_MAX - f->run_count, "frame.run_first");
    REQUIRE(f->head_count >= 1 && f->head_count <= BT_KV_HEADS_MAX, "frame.head_count");
    REQUIRE(f->head_first <= BT_KV_HEADS_MAX - f->head_count, "frame.head_first");
    REQUIRE(f->token_end > BT_RUN_TOKENS * f->run_first &&
                f->token_end <= BT_RUN_TOKENS * (f->run_first + f->run_count),
            "frame.token_end");
    return true;
}

static bool check_handoff(const bt_msg *m, const char **ret_field)
{
    switch (m->kind) {
    case BT_MSG_TICKET:
        REQUIRE(dtype_valid(m->ticket.wire), "wire");
        REQUIRE(m->ticket.run_first <= RUNS_MAX, "run_first");
        REQUIRE(m->ticket.cell_count >= 1 && m->ticket.cell_count <= BT_CELLS_MAX, "cell_count");
        REQUIRE(m->ticket.lease_ms <= LEASE_MS_MAX, "lease_ms");
        return true;
    case BT_MSG_SEALED: return check_frame(&m->sealed.frame, ret_field);
    case BT_MSG_CREDIT: REQUIRE(m->credit.cell < BT_CELLS_MAX, "cell"); return true;
    case BT_MSG_MANIFEST:
        REQUIRE(m->manifest.token_count >= 1 && m->manifest.token_count <= BT_CONTEXT_TOKENS_MAX,
                "token_count");
        REQUIRE(m->manifest.frame_count <= FRAMES_MAX, "frame_count");
        REQUIRE(m->manifest.base < BT_CONTEXT_TOKENS_MAX, "base");
        REQUIRE(token_valid(&m->manifest.first_token), "first_token");
        return true;
    default: return true;
    }
}

static bool check_body(const bt_msg *m, const char **ret_field)
{
    switch (m->kind) {
    case BT_MSG_WELCOME:
        REQUIRE(m->welcome.router_incarnation != 0, "router_incarnation");
        REQUIRE(m->welcome.heartbeat_ms <= LEASE_MS_MAX, "heartbeat_ms");
        return true;
    case BT_MSG_HEARTBEAT:
        REQUIRE(bt_cost_valid(&m->heartbeat.cost), "cost");
        REQUIRE(m->heartbeat.context_tokens < CONTEXTS_MAX, "context_tokens");
        return true;
    case BT_MSG_PREFILL:
    case BT_MSG_RESERVE: return check_work(m, ret_field);
    case BT_MSG_TICKET:
    case BT_MSG_SEALED:
    case BT_MSG_CREDIT:
    case BT_MSG_MANIFEST: return check_handoff(m, ret_field);
    default: return check_pairing(m, ret_field) && check_answer(m, ret_field);
    }
}

bt_status bt_msg_check(const bt_msg *msg, bt_err *err)
{
    if ((unsigned)msg->kind <= BT_MSG_NONE || (unsigned)msg->kind >= BT_MSG_KIND_END)
        return BT_FAIL(err, BT_ERR_FORMAT, "message kind %u is unknown", (unsigned)msg->kind);
    const char *field = NULL;
    if (check_fence(msg, &field) && check_body(msg, &field)) return BT_OK;
    return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s is out of range", bt_msg_name(msg->kind), field);
}
