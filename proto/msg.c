#include "proto/msg.h"

#include <string.h>

const char *bt_msg_name(bt_msg_kind kind)
{
    switch (kind) {
#define X(name, value)                                                                             \
    case BT_MSG_##name: return #name;
        BT_MSG_LIST(X)
#undef X
    case BT_MSG_NONE:
    case BT_MSG_KIND_END: break;
    }
    return "?";
}

const char *bt_refuse_name(bt_refuse_reason reason)
{
    switch (reason) {
    case BT_REFUSE_NONE: return "none";
    case BT_REFUSE_DRAINING: return "draining";
    case BT_REFUSE_FULL: return "full";
    case BT_REFUSE_DIGEST: return "digest";
    case BT_REFUSE_MISSING: return "missing";
    case BT_REFUSE_LEASE: return "lease";
    case BT_REFUSE_PEER_LOST: return "peer_lost";
    case BT_REFUSE_INCOMPATIBLE: return "incompatible";
    case BT_REFUSE_TOO_LONG: return "too_long";
    case BT_REFUSE_UNKNOWN: return "unknown";
    case BT_REFUSE_ENGINE: return "engine";
    case BT_REFUSE_COUNT: break;
    }
    return "?";
}

bool bt_request_id_equal(const bt_request_id *a, const bt_request_id *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool bt_fence_equal(const bt_fence *a, const bt_fence *b)
{
    return bt_request_id_equal(&a->request, &b->request) && a->attempt == b->attempt &&
           a->branch == b->branch && a->tp_rank == b->tp_rank && a->slot == b->slot &&
           a->generation == b->generation && a->p_incarnation == b->p_incarnation &&
           a->d_incarnation == b->d_incarnation;
}

bool bt_token_equal(const bt_token *a, const bt_token *b)
{
    if (a->id != b->id || a->logprob != b->logprob || a->top_count != b->top_count) return false;
    for (uint32_t i = 0; i < a->top_count; i++)
        if (a->top[i].id != b->top[i].id || a->top[i].logprob != b->top[i].logprob) return false;
    return true;
}

uint32_t bt_sampling_minor(const bt_sampling *s)
{
    /* Older daemons always tell the logprob, so that asking for it needs nothing new. */
    bool since_1 = s->min_p != 0 || s->min_tokens != 0 || s->stop_count > 0 || s->bias_count > 0 ||
                   bt_sampling_needs_history(s);
    return since_1 ? 1 : 0;
}

#define SAME(field) (a->field == b->field)
#define SAME_TEXT(field) (strcmp(a->field, b->field) == 0)
#define SAME_BYTES(field) (memcmp(&a->field, &b->field, sizeof(a->field)) == 0)
#define SAME_RANGE(field, count) (SAME(count) && same_bytes(a->field, b->field, a->count))

static bool same_bytes(const uint8_t *a, const uint8_t *b, size_t bytes)
{
    return bytes == 0 || memcmp(a, b, bytes) == 0;
}

static bool hello_equal(const bt_hello *a, const bt_hello *b)
{
    return SAME(proto_major) && SAME(proto_minor) && SAME(role) && SAME_TEXT(name) &&
           SAME_TEXT(model) && SAME(incarnation) && SAME_BYTES(fingerprint) &&
           SAME_BYTES(weights_digest) && SAME(kv_dtype) && SAME(wire_formats) &&
           SAME(block_tokens) && SAME(pool_blocks) && SAME(context_tokens_max) && SAME(layers) &&
           SAME(kv_heads) && SAME(head_dim) && SAME(vocab) && SAME(tp_size) && SAME(ucx_major) &&
           SAME(ucx_minor) && SAME_TEXT(pair_endpoint) && SAME_BYTES(curve_public) &&
           SAME_TEXT(metrics_url) && SAME(process_host) && SAME(process_start) &&
           SAME(process_pid) && SAME(chunk_tokens);
}

static bool work_equal(const bt_msg_work *a, const bt_msg_work *b)
{
    if (a->token_count != b->token_count) return false;
    for (uint32_t i = 0; i < a->token_count; i++)
        if (a->tokens[i] != b->tokens[i]) return false;
    return SAME(base) && SAME(max_tokens) && SAME(priority) && SAME(ignore_eos) &&
           SAME(no_reserve) && SAME(prompt_logprobs) && SAME(local) && SAME(deadline_ms) &&
           SAME_BYTES(tenant_salt) && bt_sampling_equal(&a->sampling, &b->sampling);
}

static bool tokens_equal(const bt_msg *a, const bt_msg *b)
{
    if (!SAME(tokens.token_count) || !SAME(tokens.index)) return false;
    for (uint32_t i = 0; i < a->tokens.token_count; i++)
        if (!bt_token_equal(&a->tokens.tokens[i], &b->tokens.tokens[i])) return false;
    return true;
}

static bool renew_equal(const bt_msg *a, const bt_msg *b)
{
    if (!SAME(renew.request_count)) return false;
    for (uint32_t i = 0; i < a->renew.request_count; i++)
        if (!bt_request_id_equal(&a->renew.requests[i], &b->renew.requests[i])) return false;
    return true;
}

static bool pairing_equal(const bt_msg *a, const bt_msg *b)
{
    switch (a->kind) {
    case BT_MSG_PAIR:
    case BT_MSG_UNPAIR:
        return SAME(pair.d_incarnation) && SAME_TEXT(pair.name) && SAME_TEXT(pair.endpoint) &&
               SAME_BYTES(pair.curve_public);
    case BT_MSG_PAIR_STATUS:
        return SAME(pair_status.d_incarnation) && SAME(pair_status.ready) &&
               SAME_TEXT(pair_status.transport) && SAME(pair_status.mb_per_s) &&
               SAME(pair_status.wire) && SAME_TEXT(pair_status.reason);
    case BT_MSG_PAIR_HELLO:
        return hello_equal(&a->pair_hello.hello, &b->pair_hello.hello) &&
               SAME(pair_hello.wire_wanted) &&
               SAME_RANGE(pair_hello.worker_address, pair_hello.worker_address_bytes);
    case BT_MSG_PAIR_ACCEPT:
        return hello_equal(&a->pair_accept.hello, &b->pair_accept.hello) &&
               SAME(pair_accept.wire) && SAME(pair_accept.slot_count) &&
               SAME(pair_accept.cell_count) && SAME(pair_accept.cell_bytes) &&
               SAME(pair_accept.arena_address) && SAME_BYTES(pair_accept.secret) &&
               SAME_RANGE(pair_accept.worker_address, pair_accept.worker_address_bytes) &&
               SAME_RANGE(pair_accept.rkey, pair_accept.rkey_bytes);
    case BT_MSG_PAIR_REFUSE: return SAME_TEXT(pair_refuse.reason);
    default: return false;
    }
}

static bool handoff_equal(const bt_msg *a, const bt_msg *b)
{
    switch (a->kind) {
    case BT_MSG_TICKET:
        return SAME(ticket.wire) && SAME(ticket.run_first) && SAME(ticket.cell_count) &&
               SAME(ticket.lease_ms) && SAME(ticket.probe);
    case BT_MSG_SEALED: return SAME_BYTES(sealed.frame) && SAME_BYTES(sealed.digest);
    case BT_MSG_CREDIT: return SAME(credit.cell);
    case BT_MSG_MANIFEST:
        return SAME(manifest.token_count) && SAME(manifest.frame_count) &&
               SAME_BYTES(manifest.digest_sum) && SAME_BYTES(manifest.prefix_hash) &&
               SAME(manifest.base) &&
               bt_token_equal(&a->manifest.first_token, &b->manifest.first_token);
    default: return false;
    }
}

bool bt_msg_equal(const bt_msg *a, const bt_msg *b)
{
    if (a->kind != b->kind || !bt_fence_equal(&a->fence, &b->fence)) return false;
    switch (a->kind) {
    case BT_MSG_HELLO: return hello_equal(&a->hello, &b->hello);
    case BT_MSG_WELCOME: return SAME(welcome.router_incarnation) && SAME(welcome.heartbeat_ms);
    case BT_MSG_HEARTBEAT:
        return SAME(heartbeat.incarnation) && SAME(heartbeat.running) && SAME(heartbeat.waiting) &&
               SAME(heartbeat.blocks_free) && SAME(heartbeat.slots_free) &&
               SAME(heartbeat.draining) && SAME(heartbeat.queued_tokens) &&
               SAME(heartbeat.context_tokens) && SAME_BYTES(heartbeat.cost);
    case BT_MSG_PREFILL: return work_equal(&a->prefill, &b->prefill);
    case BT_MSG_RESERVE: return work_equal(&a->reserve, &b->reserve);
    case BT_MSG_FIRST_TOKEN:
        return bt_token_equal(&a->first_token.token, &b->first_token.token) &&
               SAME(first_token.index) && SAME(first_token.final) && SAME(first_token.finish) &&
               SAME(first_token.cached_tokens);
    case BT_MSG_ACCEPTED: return SAME(accepted.cached_tokens);
    case BT_MSG_REFUSED:
        return SAME(refused.reason) && SAME(refused.retry) && SAME_TEXT(refused.text);
    case BT_MSG_TOKENS:
    case BT_MSG_PROMPT_LOGPROBS: return tokens_equal(a, b);
    case BT_MSG_FINISHED: return SAME(finished.reason) && SAME(finished.token_count);
    case BT_MSG_EVICTED: return SAME(evicted.token_count);
    case BT_MSG_RENEW: return renew_equal(a, b);
    case BT_MSG_TICKET:
    case BT_MSG_SEALED:
    case BT_MSG_CREDIT:
    case BT_MSG_MANIFEST: return handoff_equal(a, b);
    case BT_MSG_PAIR:
    case BT_MSG_UNPAIR:
    case BT_MSG_PAIR_STATUS:
    case BT_MSG_PAIR_HELLO:
    case BT_MSG_PAIR_ACCEPT:
    case BT_MSG_PAIR_REFUSE: return pairing_equal(a, b);
    default: return true; /* no body */
    }
}
