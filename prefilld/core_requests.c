/* core_requests.c - requests of the prefill core: accepted, waiting for blocks, ended. */
#include "prefilld/core_state.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

uint32_t bt_pcore_request_find(const bt_prefill_core *core, const bt_request_id *id)
{
    for (uint32_t i = 0; i < core->live_count; i++) {
        const p_request *r = &core->requests[core->live[i]];
        if (bt_pcore_alive(r) && r->probe_peer == NONE &&
            bt_request_id_equal(&r->fence.request, id))
            return core->live[i];
    }
    return NONE;
}

void bt_pcore_refuse(bt_prefill_core *core, const bt_fence *fence, bt_refuse_reason reason,
                     const char *text)
{
    bt_msg msg = {.kind = BT_MSG_REFUSED, .fence = *fence};
    msg.refused.reason = reason;
    snprintf(msg.refused.text, sizeof(msg.refused.text), "%s", text);
    core->stats.refused_total++;
    core->io.send_router(core->io.ctx, &msg);
}

void bt_pcore_probe_end(bt_prefill_core *core, uint32_t peer, bt_probe_state state,
                        const char *reason)
{
    p_peer *p = &core->peers[peer];
    p->probe = state;
    snprintf(p->reason, sizeof(p->reason), "%s", reason);
}

static void bury(bt_prefill_core *core, const bt_fence *fence)
{
    bt_attempts_raise(core->dead, &fence->request, fence->attempt,
                      core->now_ns + core->config.tombstone_ns, core->now_ns);
}

/* Frees the blocks of an ended request once neither the engine nor a put touches them. From the
 * last to the first, so that the end of a cached prefix is evicted before its beginning (K6). */
void bt_pcore_request_collect(bt_prefill_core *core, uint32_t request)
{
    p_request *r = &core->requests[request];
    if (r->state != REQUEST_LEAVING || r->chunk > 0 || r->puts > 0) return;
    for (uint32_t i = r->block_count; i > 0; i--) bt_kv_pool_return(core->pool, r->blocks[i - 1]);
    r->block_count = 0;
    r->state = REQUEST_FREE;
}

void bt_pcore_request_end(bt_prefill_core *core, uint32_t request)
{
    p_request *r = &core->requests[request];
    assert(r->state != REQUEST_FREE && r->state != REQUEST_LEAVING);
    if (r->probe_peer == NONE) bury(core, &r->fence);
    if (r->ticket != NONE) bt_pcore_ticket_drop(core, r->ticket);
    for (uint32_t i = 0; i < r->block_count; i++) bt_kv_pool_lend(core->pool, r->blocks[i]);
    r->state = REQUEST_LEAVING;
    bt_pcore_request_collect(core, request);
}

void bt_pcore_request_fail(bt_prefill_core *core, uint32_t request, bt_refuse_reason reason,
                           const char *text)
{
    p_request *r = &core->requests[request];
    bt_fence fence = r->fence;
    uint32_t probe_peer = r->probe_peer;
    bt_pcore_request_end(core, request);
    if (probe_peer == NONE)
        bt_pcore_refuse(core, &fence, reason, text);
    else
        bt_pcore_probe_end(core, probe_peer, BT_PROBE_FAILED, text);
}

void bt_pcore_all_end(bt_prefill_core *core)
{
    for (uint32_t i = 0; i < core->live_count; i++) {
        const p_request *r = &core->requests[core->live[i]];
        if (bt_pcore_alive(r) && r->probe_peer == NONE) bt_pcore_request_end(core, core->live[i]);
    }
    for (uint32_t i = 0; i < core->ticket_count; i++) {
        p_ticket *t = &core->tickets[i];
        if (t->used && !t->probe) bt_pcore_ticket_drop(core, i);
    }
}

/* H3: R is told, in case only its heartbeats were lost. */
static void router_silent(bt_prefill_core *core)
{
    core->router_heard_ns = 0;
    for (uint32_t i = 0; i < core->live_count; i++) {
        const p_request *r = &core->requests[core->live[i]];
        if (!bt_pcore_alive(r) || r->probe_peer != NONE) continue;
        core->stats.leases_ended_total++;
        bt_pcore_request_fail(core, core->live[i], BT_REFUSE_LEASE,
                              "the router's heartbeats stopped");
    }
    bt_pcore_all_end(core);
}

void bt_pcore_requests_sweep(bt_prefill_core *core)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < core->live_count; i++)
        if (core->requests[core->live[i]].state != REQUEST_FREE) core->live[kept++] = core->live[i];
    core->live_count = kept;
}

/* An unused entry, reset and last on the live list. Entries beyond requests_max are for probes, so
 * that a busy daemon can still pair. */
static uint32_t request_take(bt_prefill_core *core, bool probe)
{
    uint32_t used = 0, request = 0;
    bt_pcore_requests_sweep(core);
    for (uint32_t i = 0; i < core->live_count; i++)
        used += core->requests[core->live[i]].probe_peer == NONE;
    if (!probe && used >= core->config.requests_max) return NONE;
    while (request < core->request_count && core->requests[request].state != REQUEST_FREE)
        request++;
    if (request == core->request_count) return NONE;
    p_request *r = &core->requests[request];
    uint32_t *tokens = r->tokens, *blocks = r->blocks;
    bt_logit_bias *bias = r->bias;
    *r = (p_request){.state = REQUEST_WAITING,
                     .serial = core->serial++,
                     .tokens = tokens,
                     .blocks = blocks,
                     .bias = bias,
                     .ticket = NONE,
                     .probe_peer = NONE,
                     .expires_ns = UINT64_MAX};
    core->live[core->live_count++] = request;
    return request;
}

/* What no wait can cure. NULL if the work is fine. */
static const char *work_fault(const bt_prefill_core *core, const bt_msg_work *work)
{
    if (work->token_count == 0 || work->token_count > core->config.context_tokens_max)
        return "the prompt is longer than the context";
    if (work->base >= work->token_count || work->max_tokens <= work->base)
        return "base and max_tokens contradict each other";
    if (bt_pcore_blocks(core, work->token_count) > core->config.kv.pool_blocks)
        return "the prompt is longer than the KV pool";
    for (uint32_t i = 0; i < work->token_count; i++)
        if (work->tokens[i] >= core->config.vocab) return "a token is outside the vocabulary";
    if (bt_sampling_fault(&work->sampling, core->config.vocab) != NULL)
        return "a stop or logit_bias id is outside the vocabulary";
    return NULL;
}

static void refuse_new(bt_prefill_core *core, const bt_fence *fence, bt_refuse_reason reason,
                       const char *text)
{
    bury(core, fence);
    bt_pcore_tickets_forget(core, &fence->request, fence->attempt);
    bt_pcore_refuse(core, fence, reason, text);
}

static void request_fill(bt_prefill_core *core, p_request *r, const bt_msg *msg)
{
    const bt_msg_work *work = &msg->prefill;
    r->fence = msg->fence;
    r->fence.slot = 0;
    r->fence.generation = 0;
    r->base = work->base;
    r->max_tokens = work->max_tokens;
    r->priority = work->priority;
    r->ignore_eos = work->ignore_eos;
    r->no_reserve = work->no_reserve;
    r->score = work->prompt_logprobs;
    r->sampling = bt_sampling_copy(&work->sampling, r->bias);
    r->token_count = work->token_count;
    memcpy(r->tokens, work->tokens, work->token_count * sizeof(r->tokens[0]));
    bt_kv_path path = {.tenant_salt = work->tenant_salt,
                       .weights_digest = &core->config.weights_digest,
                       .producer = core->config.kv.dtype};
    bt_kv_prefix_root(&path, &r->root);
    /* Kept for the Manifest's prefix hash, which names the wire format too. */
    memcpy(r->tenant_salt, work->tenant_salt, sizeof(r->tenant_salt));
    if (work->deadline_ms > 0 && work->deadline_ms < UINT64_MAX / 2000000)
        r->expires_ns = core->now_ns + work->deadline_ms * 1000000;
}

void bt_pcore_prefill(bt_prefill_core *core, const bt_msg *msg)
{
    const bt_fence *fence = &msg->fence;
    uint32_t old = bt_pcore_request_find(core, &fence->request);
    if (fence->p_incarnation != core->config.incarnation || fence->attempt == 0 ||
        bt_request_id_equal(&fence->request, &bt_probe_request_id) ||
        fence->attempt <= bt_attempts_seen(core->dead, &fence->request, core->now_ns) ||
        (old != NONE && fence->attempt <= core->requests[old].fence.attempt)) {
        bt_pcore_stale(core);
        return;
    }
    if (old != NONE) bt_pcore_request_end(core, old);
    if (core->draining) {
        refuse_new(core, fence, BT_REFUSE_DRAINING, "the prefill daemon is draining"); /* H7 */
        return;
    }
    const char *fault = work_fault(core, &msg->prefill);
    if (fault != NULL) {
        refuse_new(core, fence, BT_REFUSE_TOO_LONG, fault);
        return;
    }
    uint32_t request = request_take(core, false);
    if (request == NONE) {
        refuse_new(core, fence, BT_REFUSE_FULL, "the prefill daemon is full"); /* H8 */
        return;
    }
    request_fill(core, &core->requests[request], msg);
    core->stats.requests_total++;
    /* Tickets of older attempts died with them; one of this attempt may have come first. */
    bt_pcore_tickets_forget(core, &fence->request, fence->attempt - 1);
    bt_pcore_ticket_attach(core, request);
}

void bt_pcore_probe_start(bt_prefill_core *core, uint32_t peer)
{
    bt_pcore_probe_end(core, peer, BT_PROBE_PENDING, "");
    uint32_t request = request_take(core, true);
    if (request == NONE) {
        bt_pcore_probe_end(core, peer, BT_PROBE_FAILED, "probe: no room for one more request");
        return;
    }
    p_request *r = &core->requests[request];
    r->probe_peer = peer;
    r->priority = UINT32_MAX;
    r->max_tokens = 2;
    r->ignore_eos = true;
    r->sampling = (bt_sampling){.top_p = 1};
    r->token_count = BT_PROBE_TOKENS;
    r->fence = (bt_fence){.request = bt_probe_request_id,
                          .attempt = ++core->probe_attempt,
                          .p_incarnation = core->config.incarnation,
                          .d_incarnation = core->peers[peer].info.d_incarnation};
    memcpy(r->tokens, core->probe_tokens, BT_PROBE_TOKENS * sizeof(r->tokens[0]));
    r->expires_ns = core->now_ns + core->config.pin_lease_ns;
}

/* Retarget is a new attempt on KV that is still here; anything else is refused, and dead. */
void bt_pcore_retarget(bt_prefill_core *core, const bt_msg *msg)
{
    const bt_fence *fence = &msg->fence;
    if (fence->p_incarnation != core->config.incarnation || fence->attempt == 0) {
        bt_pcore_stale(core);
        return;
    }
    uint32_t request = bt_pcore_request_find(core, &fence->request);
    if (request != NONE && fence->attempt <= core->requests[request].fence.attempt) {
        bt_pcore_stale(core); /* a duplicate of one already followed */
        return;
    }
    uint32_t dead = bt_attempts_seen(core->dead, &fence->request, core->now_ns);
    if (request == NONE || fence->attempt <= dead ||
        fence->attempt != core->requests[request].fence.attempt + 1) {
        refuse_new(core, fence, BT_REFUSE_UNKNOWN, "this KV is not held here");
        return;
    }
    p_request *r = &core->requests[request];
    bt_pcore_tickets_forget(core, &fence->request, fence->attempt - 1);
    r->fence = *fence;
    r->fence.slot = 0;
    r->fence.generation = 0;
    r->first_sent = false;
    r->pinned_said = false;
    if (r->state == REQUEST_DONE) r->expires_ns = core->now_ns + core->config.pin_lease_ns;
    bt_pcore_ticket_attach(core, request);
}

/* From R: nothing of this request up to this attempt is wanted any more. */
void bt_pcore_cancel(bt_prefill_core *core, const bt_fence *fence)
{
    if (fence->p_incarnation != core->config.incarnation) {
        bt_pcore_stale(core);
        return;
    }
    uint32_t request = bt_pcore_request_find(core, &fence->request);
    if (request != NONE && core->requests[request].fence.attempt <= fence->attempt)
        bt_pcore_request_end(core, request);
    bury(core, fence);
    bt_pcore_tickets_forget(core, &fence->request, fence->attempt);
}

/* Gives a waiting request its blocks: the cached beginning pinned, the rest taken. The last token
 * is always computed, so that there is a logit to sample from; all are if all are scored. */
static bool admit(bt_prefill_core *core, uint32_t request)
{
    p_request *r = &core->requests[request];
    uint32_t runs = 0;
    if (r->probe_peer == NONE && !r->score)
        runs = bt_kv_prefix_pin(core->prefix, &r->root, r->tokens,
                                (r->token_count - 1) / BT_RUN_TOKENS, request, r->blocks);
    uint32_t pinned = runs * core->blocks_per_run;
    uint32_t needed = bt_pcore_blocks(core, r->token_count);
    if (!bt_kv_prefix_take(core->prefix, needed - pinned, request, r->blocks + pinned)) {
        for (uint32_t i = pinned; i > 0; i--) bt_kv_pool_unpin(core->pool, r->blocks[i - 1]);
        return false;
    }
    r->block_count = needed;
    r->cached_tokens = runs * BT_RUN_TOKENS;
    r->computed = r->cached_tokens;
    r->name = r->root;
    for (; r->named_runs < runs; r->named_runs++)
        bt_kv_prefix_next(&r->name, r->tokens + (size_t)r->named_runs * BT_RUN_TOKENS,
                          BT_RUN_TOKENS, &r->name);
    r->state = REQUEST_COMPUTING;
    if (r->probe_peer == NONE) r->expires_ns = UINT64_MAX;
    core->stats.cached_tokens_total += r->cached_tokens;
    return true;
}

/* Highest priority first, then first come; nobody overtakes the one whose turn it is. */
static uint32_t next_waiting(const bt_prefill_core *core)
{
    uint32_t best = NONE;
    for (uint32_t i = 0; i < core->live_count; i++) { /* in order of arrival */
        const p_request *r = &core->requests[core->live[i]];
        if (r->state == REQUEST_WAITING &&
            (best == NONE || r->priority > core->requests[best].priority))
            best = core->live[i];
    }
    return best;
}

/* Looking a prompt up in the index costs a hash for each run, so one that did not fit is only tried
 * again when the pool has more to give or the index has changed. */
void bt_pcore_requests_admit(bt_prefill_core *core)
{
    uint32_t request;
    while ((request = next_waiting(core)) != NONE) {
        p_blocked now = {.serial = core->requests[request].serial,
                         .available = bt_kv_pool_free_count(core->pool) +
                                      bt_kv_pool_cached_count(core->pool),
                         .entries = bt_kv_prefix_entries(core->prefix)};
        if (now.serial == core->blocked.serial && now.entries == core->blocked.entries &&
            now.available <= core->blocked.available)
            return;
        if (admit(core, request)) continue;
        core->blocked = now;
        return;
    }
}

void bt_pcore_requests_tick(bt_prefill_core *core)
{
    for (uint32_t i = 0; i < core->live_count; i++) {
        uint32_t request = core->live[i];
        const p_request *r = &core->requests[request];
        if (!bt_pcore_alive(r) || core->now_ns < r->expires_ns) continue;
        core->stats.leases_ended_total++;
        if (r->probe_peer != NONE)
            bt_pcore_request_fail(core, request, BT_REFUSE_LEASE,
                                  r->ticket == NONE ? "probe: no Ticket came from the peer"
                                                    : "probe: the peer never accepted it");
        else if (r->state == REQUEST_WAITING)
            bt_pcore_request_fail(core, request, BT_REFUSE_FULL, "no KV blocks came free in time");
        else
            bt_pcore_request_fail(core, request, BT_REFUSE_LEASE,
                                  "the pinned KV's lease ended"); /* H3 */
    }
    bool heard = core->router_heard_ns > 0;
    if (heard && core->now_ns >= core->router_heard_ns + core->config.router_timeout_ns)
        router_silent(core);
}
