/* msg_random.h - a valid message of any kind with random contents from a seed.
 *
 * Shared by the round-trip tests and the corpus generator. What pointers point to lies in a
 * bt_random_msg. */
#ifndef BT_TESTS_FUZZ_MSG_RANDOM_H
#define BT_TESTS_FUZZ_MSG_RANDOM_H

#include "proto/msg.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    uint64_t state;
    uint32_t tokens_max; /* of a prompt */
    bt_msg msg;
    uint32_t tokens[BT_CONTEXT_TOKENS_MAX];
    bt_token outputs[BT_MSG_TOKENS_MAX];
    bt_logit_bias bias[BT_LOGIT_BIAS_MAX];
    bt_request_id requests[BT_MSG_RENEW_MAX];
    uint8_t addresses[2][BT_MSG_ADDRESS_BYTES_MAX];
} bt_random_msg;

/* splitmix64 */
static inline uint64_t random_u64(bt_random_msg *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint32_t random_below(bt_random_msg *r, uint32_t bound)
{
    return (uint32_t)(random_u64(r) % bound);
}

static inline void random_fill(bt_random_msg *r, void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) ((uint8_t *)data)[i] = (uint8_t)random_u64(r);
}

static inline void random_text(bt_random_msg *r, char *text, size_t capacity)
{
    static const char *const pieces[] = {
        "a", "Z", "0", "-", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x99\x82"};
    size_t want = 1 + random_below(r, (uint32_t)capacity - 5), used = 0;
    while (used < want) {
        const char *piece = pieces[random_below(r, 7)];
        size_t n = strlen(piece);
        if (used + n + 1 > capacity) break;
        memcpy(text + used, piece, n);
        used += n;
    }
    text[used] = 0;
}

static inline bt_dtype random_dtype(bt_random_msg *r)
{
    return (bt_dtype)(1 + random_below(r, BT_DTYPE_COUNT - 1));
}

static inline float random_logprob(bt_random_msg *r)
{
    return -(float)random_below(r, 1u << 24) / 65536.0f;
}

static inline void random_token(bt_random_msg *r, bt_token *token)
{
    memset(token, 0, sizeof(*token));
    token->id = random_below(r, BT_VOCAB_MAX);
    token->logprob = random_logprob(r);
    token->top_count = random_below(r, BT_TOP_LOGPROBS_MAX + 1);
    for (uint32_t i = 0; i < token->top_count; i++) {
        token->top[i].id = random_below(r, BT_VOCAB_MAX);
        token->top[i].logprob = random_logprob(r);
    }
}

static inline void random_fence(bt_random_msg *r, bt_fence *fence)
{
    random_fill(r, fence->request.bytes, sizeof(fence->request.bytes));
    fence->attempt = 1 + random_below(r, 9);
    fence->branch = random_below(r, 4);
    fence->tp_rank = random_below(r, 8);
    fence->slot = random_below(r, 64);
    fence->generation = 1 + random_below(r, 1000);
    fence->p_incarnation = random_u64(r) | 1;
    fence->d_incarnation = random_u64(r) | 1;
}

static inline void random_hello(bt_random_msg *r, bt_hello *h)
{
    memset(h, 0, sizeof(*h));
    h->proto_major = BT_PROTO_MAJOR;
    h->proto_minor = random_below(r, 9);
    h->role = random_below(r, 2) ? BT_ROLE_PREFILL : BT_ROLE_DECODE;
    random_text(r, h->name, sizeof(h->name));
    random_text(r, h->model, sizeof(h->model));
    h->incarnation = random_u64(r) | 1;
    random_fill(r, &h->fingerprint, sizeof(h->fingerprint));
    random_fill(r, &h->weights_digest, sizeof(h->weights_digest));
    h->kv_dtype = random_dtype(r);
    h->wire_formats = random_below(r, 1u << BT_DTYPE_COUNT) & ~1u;
    h->block_tokens = 16u << random_below(r, 3);
    h->pool_blocks = random_below(r, 100000);
    h->context_tokens_max = random_below(r, BT_CONTEXT_TOKENS_MAX + 1);
    h->layers = 1 + random_below(r, BT_LAYERS_MAX);
    h->kv_heads = 1 + random_below(r, BT_KV_HEADS_MAX);
    h->head_dim = 1 + random_below(r, BT_HEAD_DIM_MAX);
    h->vocab = 1 + random_below(r, BT_VOCAB_MAX);
    h->tp_size = 1 + random_below(r, 8);
    h->ucx_major = 1;
    h->ucx_minor = random_below(r, 30);
    random_text(r, h->pair_endpoint, sizeof(h->pair_endpoint));
    random_fill(r, h->curve_public, sizeof(h->curve_public));
    random_text(r, h->metrics_url, sizeof(h->metrics_url));
    random_fill(r, &h->process_host, sizeof(h->process_host));
    random_fill(r, &h->process_start, sizeof(h->process_start));
    h->process_pid = random_below(r, 4194304);
    h->chunk_tokens = random_below(r, 4096);
}

/* From -range to range in steps that a float holds. */
static inline float random_signed(bt_random_msg *r, uint32_t range)
{
    return ((float)random_below(r, 256 * range + 1) - 128.0f * (float)range) / 128.0f;
}

static inline void random_sampling(bt_random_msg *r, bt_sampling *s, uint32_t max_tokens)
{
    s->temperature = (float)random_below(r, 200) / 100.0f;
    s->top_p = (float)(1 + random_below(r, 100)) / 100.0f;
    s->top_k = random_below(r, 100);
    s->top_logprobs = random_below(r, BT_TOP_LOGPROBS_MAX + 1);
    s->seed = random_u64(r);
    if (random_below(r, 4) == 0) return; /* as a peer of minor 0 says it */
    s->logprobs = random_below(r, 2);
    s->min_p = (float)random_below(r, 101) / 100.0f;
    s->repetition_penalty = (float)(1 + random_below(r, 200)) / 100.0f;
    s->presence_penalty = random_signed(r, 2);
    s->frequency_penalty = random_signed(r, 2);
    s->min_tokens = random_below(r, max_tokens + 1);
    s->stop_count = random_below(r, BT_STOP_IDS_MAX + 1);
    for (uint32_t i = 0; i < s->stop_count; i++) s->stop_ids[i] = random_below(r, BT_VOCAB_MAX);
    s->bias_count = random_below(r, r->tokens_max < 100 ? 10 : BT_LOGIT_BIAS_MAX + 1);
    for (uint32_t i = 0; i < s->bias_count; i++) {
        uint32_t step = BT_VOCAB_MAX / BT_LOGIT_BIAS_MAX;
        r->bias[i] = (bt_logit_bias){i * step + random_below(r, step), random_signed(r, 100)};
    }
    s->bias = s->bias_count > 0 ? r->bias : NULL;
}

static inline void random_work(bt_random_msg *r, bt_msg_work *w, bool reserve)
{
    memset(w, 0, sizeof(*w));
    w->token_count = 1 + random_below(r, r->tokens_max);
    for (uint32_t i = 0; i < w->token_count; i++) r->tokens[i] = random_below(r, BT_VOCAB_MAX);
    w->tokens = r->tokens;
    w->base = random_below(r, w->token_count < 100 ? w->token_count : 100);
    w->max_tokens = w->base + 1;
    w->priority = random_below(r, 10);
    w->ignore_eos = random_below(r, 2);
    w->no_reserve = !reserve && random_below(r, 2);
    w->prompt_logprobs = random_below(r, 2);
    w->deadline_ms = random_below(r, 100000);
    random_sampling(r, &w->sampling, w->max_tokens);
    random_fill(r, w->tenant_salt, sizeof(w->tenant_salt));
}

static inline const uint8_t *random_address(bt_random_msg *r, uint32_t which, uint32_t *ret_bytes)
{
    *ret_bytes = random_below(r, BT_MSG_ADDRESS_BYTES_MAX / 8);
    random_fill(r, r->addresses[which], *ret_bytes);
    return *ret_bytes > 0 ? r->addresses[which] : NULL;
}

static inline void random_pairing(bt_random_msg *r, bt_msg *m)
{
    switch (m->kind) {
    case BT_MSG_PAIR:
    case BT_MSG_UNPAIR:
        m->pair.d_incarnation = random_u64(r) | 1;
        random_text(r, m->pair.name, sizeof(m->pair.name));
        random_text(r, m->pair.endpoint, sizeof(m->pair.endpoint));
        random_fill(r, m->pair.curve_public, sizeof(m->pair.curve_public));
        break;
    case BT_MSG_PAIR_STATUS:
        m->pair_status.d_incarnation = random_u64(r) | 1;
        m->pair_status.ready = random_below(r, 2);
        m->pair_status.mb_per_s = random_below(r, 100000);
        m->pair_status.wire = random_dtype(r);
        random_text(r, m->pair_status.transport, sizeof(m->pair_status.transport));
        random_text(r, m->pair_status.reason, sizeof(m->pair_status.reason));
        break;
    case BT_MSG_PAIR_HELLO:
        random_hello(r, &m->pair_hello.hello);
        m->pair_hello.wire_wanted = random_dtype(r);
        m->pair_hello.worker_address = random_address(r, 0, &m->pair_hello.worker_address_bytes);
        break;
    case BT_MSG_PAIR_ACCEPT:
        random_hello(r, &m->pair_accept.hello);
        m->pair_accept.wire = random_dtype(r);
        m->pair_accept.slot_count = 1 + random_below(r, 64);
        m->pair_accept.cell_count = 1 + random_below(r, BT_CELLS_MAX);
        m->pair_accept.cell_bytes = 1 + random_below(r, 1u << 20);
        m->pair_accept.arena_address = random_u64(r);
        random_fill(r, m->pair_accept.secret, sizeof(m->pair_accept.secret));
        m->pair_accept.worker_address = random_address(r, 0, &m->pair_accept.worker_address_bytes);
        m->pair_accept.rkey = random_address(r, 1, &m->pair_accept.rkey_bytes);
        break;
    default: random_text(r, m->pair_refuse.reason, sizeof(m->pair_refuse.reason)); break;
    }
}

static inline void random_handoff(bt_random_msg *r, bt_msg *m)
{
    bt_frame *f = &m->sealed.frame;
    switch (m->kind) {
    case BT_MSG_TICKET:
        m->ticket.wire = random_dtype(r);
        m->ticket.run_first = random_below(r, 100);
        m->ticket.cell_count = 1 + random_below(r, BT_CELLS_MAX);
        m->ticket.lease_ms = random_below(r, 60000);
        m->ticket.probe = random_below(r, 2);
        break;
    case BT_MSG_SEALED:
        f->frame = random_below(r, 1000);
        f->cell = random_below(r, BT_CELLS_MAX);
        f->layer = random_below(r, BT_LAYERS_MAX);
        f->run_first = random_below(r, 100);
        f->run_count = 1 + random_below(r, 100);
        f->head_count = 1 + random_below(r, 8);
        f->head_first = random_below(r, 8);
        f->token_end = BT_RUN_TOKENS * (f->run_first + f->run_count) - random_below(r, 64);
        random_fill(r, &m->sealed.digest, sizeof(m->sealed.digest));
        break;
    case BT_MSG_CREDIT: m->credit.cell = random_below(r, BT_CELLS_MAX); break;
    case BT_MSG_MANIFEST:
        m->manifest.token_count = 1 + random_below(r, BT_CONTEXT_TOKENS_MAX);
        m->manifest.frame_count = random_below(r, 1000);
        random_fill(r, &m->manifest.digest_sum, sizeof(m->manifest.digest_sum));
        random_fill(r, &m->manifest.prefix_hash, sizeof(m->manifest.prefix_hash));
        m->manifest.base = random_below(r, 1000);
        random_token(r, &m->manifest.first_token);
        break;
    default: break;
    }
}

static inline void random_answer(bt_random_msg *r, bt_msg *m)
{
    switch (m->kind) {
    case BT_MSG_FIRST_TOKEN:
        random_token(r, &m->first_token.token);
        m->first_token.index = random_below(r, 1000);
        m->first_token.final = random_below(r, 2);
        m->first_token.finish = m->first_token.final ? BT_FINISH_STOP : BT_FINISH_NONE;
        m->first_token.cached_tokens = random_below(r, 1000);
        break;
    case BT_MSG_ACCEPTED: m->accepted.cached_tokens = random_below(r, 1000); break;
    case BT_MSG_REFUSED:
        m->refused.reason = (bt_refuse_reason)(1 + random_below(r, BT_REFUSE_COUNT - 1));
        m->refused.retry = random_below(r, 2);
        random_text(r, m->refused.text, sizeof(m->refused.text));
        break;
    case BT_MSG_TOKENS:
    case BT_MSG_PROMPT_LOGPROBS:
        m->tokens.token_count = 1 + random_below(r, BT_MSG_TOKENS_MAX);
        for (uint32_t i = 0; i < m->tokens.token_count; i++) random_token(r, &r->outputs[i]);
        m->tokens.tokens = r->outputs;
        m->tokens.index = 1 + random_below(r, 1000);
        break;
    case BT_MSG_FINISHED:
        m->finished.reason = (bt_finish_reason)(1 + random_below(r, BT_FINISH_FAILED));
        m->finished.token_count = random_below(r, 1000);
        break;
    case BT_MSG_EVICTED: m->evicted.token_count = random_below(r, 1000); break;
    case BT_MSG_RENEW:
        m->renew.request_count = random_below(r, 40);
        random_fill(r, r->requests, m->renew.request_count * sizeof(bt_request_id));
        m->renew.requests = m->renew.request_count > 0 ? r->requests : NULL;
        break;
    default: random_handoff(r, m); break;
    }
}

/* The message is r->msg and valid until the next call. r->state and r->tokens_max are the caller's.
 */
static inline const bt_msg *random_msg(bt_random_msg *r, bt_msg_kind kind)
{
    bt_msg *m = &r->msg;
    memset(m, 0, sizeof(*m));
    m->kind = kind;
    if (kind >= BT_MSG_PREFILL && kind != BT_MSG_RENEW) random_fence(r, &m->fence);
    switch (kind) {
    case BT_MSG_HELLO: random_hello(r, &m->hello); break;
    case BT_MSG_WELCOME:
        m->welcome.router_incarnation = random_u64(r) | 1;
        m->welcome.heartbeat_ms = random_below(r, 10000);
        break;
    case BT_MSG_HEARTBEAT:
        m->heartbeat.incarnation = random_u64(r);
        m->heartbeat.running = random_below(r, 100);
        m->heartbeat.waiting = random_below(r, 100);
        m->heartbeat.blocks_free = random_below(r, 100000);
        m->heartbeat.slots_free = random_below(r, 100);
        m->heartbeat.draining = random_below(r, 2);
        m->heartbeat.queued_tokens = random_below(r, 1000000);
        m->heartbeat.context_tokens = random_u64(r) >> 24;
        m->heartbeat.cost = (bt_cost){(float)random_below(r, 1u << 30),
                                      (float)random_below(r, 1u << 20) / 16, 0.125f};
        break;
    case BT_MSG_PAIR:
    case BT_MSG_UNPAIR:
    case BT_MSG_PAIR_STATUS:
    case BT_MSG_PAIR_HELLO:
    case BT_MSG_PAIR_ACCEPT:
    case BT_MSG_PAIR_REFUSE: random_pairing(r, m); break;
    case BT_MSG_PREFILL: random_work(r, &m->prefill, false); break;
    case BT_MSG_RESERVE:
        random_work(r, &m->reserve, true);
        m->reserve.local = random_below(r, 2);
        if (m->reserve.local) m->fence.p_incarnation = 0;
        break;
    default: random_answer(r, m); break;
    }
    return m;
}

#endif
