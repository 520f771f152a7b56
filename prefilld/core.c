/* core.c - the prefill core's frame: memory, peers, dispatch, clock and figures. */
#include "prefilld/core_state.h"

#include <assert.h>
#include <string.h>

#define ARENAS_EXTRA 16u /* arenas remembered beyond those of the peers that are up */

static void carve_tables(bt_arena *arena, bt_prefill_core *core)
{
    const bt_kv_shape *kv = &core->config.kv;
    core->pool = bt_kv_pool_carve(arena, kv->pool_blocks);
    core->prefix = bt_kv_prefix_carve(arena, core->pool, kv->pool_blocks, kv->block_tokens);
    core->dead = bt_attempts_carve(arena, 1024 + core->config.requests_max * 4);
    core->requests = BT_ARENA_NEW(arena, p_request, core->request_count);
    core->live = BT_ARENA_NEW(arena, uint32_t, core->request_count);
    core->tickets = BT_ARENA_NEW(arena, p_ticket, core->ticket_count);
    core->arenas = BT_ARENA_NEW(arena, p_arena, core->arena_count);
    core->peers = BT_ARENA_NEW(arena, p_peer, BT_PEERS_MAX);
    core->puts = BT_ARENA_NEW(arena, p_put, core->config.staging_count);
    core->probe_tokens = BT_ARENA_NEW(arena, uint32_t, BT_PROBE_TOKENS);
    core->batch.requests = BT_ARENA_NEW(arena, uint32_t, core->config.batch_seqs_max);
    core->batch.seqs = BT_ARENA_NEW(arena, bt_engine_seq, core->config.batch_seqs_max);
}

/* The rows of the tables; one piece of memory for each kind. */
static void carve_rows(bt_arena *arena, bt_prefill_core *core)
{
    size_t context = core->config.context_tokens_max, layers = core->config.kv.layers;
    uint32_t *tokens = BT_ARENA_NEW(arena, uint32_t, core->request_count * context);
    uint32_t *blocks =
        BT_ARENA_NEW(arena, uint32_t, (size_t)core->request_count * core->blocks_per_context);
    bt_logit_bias *bias =
        BT_ARENA_NEW(arena, bt_logit_bias, (size_t)core->request_count * BT_LOGIT_BIAS_MAX);
    uint32_t *runs = BT_ARENA_NEW(arena, uint32_t, core->ticket_count * layers);
    p_slot *slots = BT_ARENA_NEW(arena, p_slot, (size_t)core->arena_count * BT_SLOTS_MAX);
    if (tokens == NULL) return;
    for (uint32_t i = 0; i < core->request_count; i++) {
        core->requests[i].tokens = tokens + i * context;
        core->requests[i].blocks = blocks + (size_t)i * core->blocks_per_context;
        core->requests[i].bias = bias + (size_t)i * BT_LOGIT_BIAS_MAX;
        core->requests[i].ticket = NONE;
        core->requests[i].probe_peer = NONE;
    }
    for (uint32_t i = 0; i < core->ticket_count; i++) core->tickets[i].next_run = runs + i * layers;
    for (uint32_t i = 0; i < core->arena_count; i++) {
        core->arenas[i].slots = slots + (size_t)i * BT_SLOTS_MAX;
        for (uint32_t s = 0; s < BT_SLOTS_MAX; s++) core->arenas[i].slots[s].ticket = NONE;
    }
}

/* Sizes that follow from the config, into core. */
static void derive(bt_prefill_core *core, const bt_prefill_config *config)
{
    assert(config->requests_max > 0 && config->batch_seqs_max > 0);
    assert(config->batch_tokens_max >= BT_RUN_TOKENS);
    assert(config->context_tokens_max >= BT_PROBE_TOKENS);
    assert(config->context_tokens_max <= BT_CONTEXT_TOKENS_MAX);
    assert(config->kv.layers > 0 && config->kv.layers <= BT_LAYERS_MAX);
    assert(config->staging_count > 0 && config->staging_count <= BT_PREFILL_STAGING_MAX);
    assert(config->eos_count <= BT_EOS_IDS_MAX);
    *core = (bt_prefill_core){.config = *config};
    core->blocks_per_run = BT_RUN_TOKENS / config->kv.block_tokens;
    core->blocks_per_context = bt_pcore_runs(config->context_tokens_max) * core->blocks_per_run;
    core->request_count = config->requests_max + BT_PEERS_MAX;
    core->ticket_count = 2 * config->requests_max + BT_PEERS_MAX;
    core->arena_count = BT_PEERS_MAX + ARENAS_EXTRA;
}

size_t bt_prefill_core_bytes(const bt_prefill_config *config)
{
    bt_arena arena;
    bt_prefill_core sizes;
    bt_arena_init(&arena, NULL, 0);
    derive(&sizes, config);
    (void)BT_ARENA_NEW(&arena, bt_prefill_core, 1);
    carve_tables(&arena, &sizes);
    carve_rows(&arena, &sizes);
    return arena.used_bytes;
}

bt_prefill_core *bt_prefill_core_init(void *memory, const bt_prefill_config *config,
                                      const bt_prefill_io *io, uint64_t now_ns)
{
    bt_arena arena;
    bt_arena_init(&arena, memory, bt_prefill_core_bytes(config));
    bt_prefill_core *core = BT_ARENA_NEW(&arena, bt_prefill_core, 1);
    derive(core, config);
    core->io = *io;
    core->now_ns = now_ns;
    core->serial = 1;
    core->retry_ns = UINT64_MAX;
    carve_tables(&arena, core);
    carve_rows(&arena, core);
    memcpy(core->probe_tokens, config->probe_tokens, BT_PROBE_TOKENS * sizeof(uint32_t));
    core->config.probe_tokens = core->probe_tokens;
    return core;
}

static bt_msg request_message(const p_request *r, bt_msg_kind kind)
{
    bt_msg msg = {.kind = kind, .fence = r->fence};
    return msg;
}

/* FirstToken only while the ticket of this attempt is held, or when the token ends the request
 * (H8). */
static void first_token_send(bt_prefill_core *core, p_request *r)
{
    bt_msg msg = request_message(r, BT_MSG_FIRST_TOKEN);
    msg.first_token.token = r->token;
    msg.first_token.index = r->base;
    msg.first_token.final = r->finish != BT_FINISH_NONE;
    msg.first_token.finish = r->finish;
    msg.first_token.cached_tokens = r->cached_tokens;
    r->first_sent = true;
    if (r->probe_peer == NONE) core->io.send_router(core->io.ctx, &msg);
}

static void manifest_send(bt_prefill_core *core, const p_request *r, p_ticket *t)
{
    bt_msg msg = {.kind = BT_MSG_MANIFEST, .fence = t->fence};
    msg.manifest.token_count = r->token_count;
    msg.manifest.frame_count = t->frames_put;
    msg.manifest.digest_sum = t->sum;
    msg.manifest.prefix_hash = t->prefix_hash;
    msg.manifest.base = r->base;
    msg.manifest.first_token = r->token;
    t->manifest_sent = true;
    core->io.send_peer(core->io.ctx, t->peer, &msg);
}

/* The first token ended the request: Abandon is a Quiesced (H1), so no put may be in flight. */
static void settle_final(bt_prefill_core *core, uint32_t request)
{
    p_request *r = &core->requests[request];
    if (r->ticket != NONE) {
        const p_ticket *t = &core->tickets[r->ticket];
        uint32_t arena = core->peers[t->peer].arena;
        if (bt_pcore_slot(core, arena, t->fence.slot)->in_flight > 0) return;
        bt_msg msg = {.kind = BT_MSG_ABANDON, .fence = t->fence};
        core->io.send_peer(core->io.ctx, t->peer, &msg);
    }
    bt_pcore_request_end(core, request);
}

/* The rows DONE of the state table. */
static void settle(bt_prefill_core *core, uint32_t request)
{
    p_request *r = &core->requests[request];
    if (r->state != REQUEST_DONE) return;
    bool final = r->finish != BT_FINISH_NONE;
    if (!r->first_sent && (r->ticket != NONE || final)) first_token_send(core, r);
    if (final) {
        settle_final(core, request);
        return;
    }
    if (r->ticket == NONE) {
        if (r->pinned_said || r->probe_peer != NONE) return;
        r->pinned_said = true;
        core->stats.pinned_total++;
        bt_msg msg = request_message(r, BT_MSG_PINNED);
        core->io.send_router(core->io.ctx, &msg);
        return;
    }
    p_ticket *t = &core->tickets[r->ticket];
    if (!t->manifest_sent && bt_pcore_all_sealed(core, r, t)) manifest_send(core, r, t);
}

static void settle_all(bt_prefill_core *core)
{
    for (uint32_t i = 0; i < core->live_count; i++) settle(core, core->live[i]);
}

/* Does everything that the event before made possible: first what costs nothing and is waited for
 * (tokens, the engine), then packing. */
static void advance(bt_prefill_core *core)
{
    settle_all(core);
    bt_pcore_requests_admit(core);
    bt_pcore_batch_submit(core);
    bt_pcore_puts_pump(core);
    settle_all(core); /* a handoff without frames, or one whose lane broke */
    bt_pcore_requests_sweep(core);
}

static void enter(bt_prefill_core *core, uint64_t now_ns)
{
    assert(now_ns >= core->now_ns);
    core->now_ns = now_ns;
}

static void on_welcome(bt_prefill_core *core, const bt_msg *msg)
{
    uint64_t incarnation = msg->welcome.router_incarnation;
    /* Another router life: what the old one owned has no owner any more (H3). */
    if (core->router_incarnation != 0 && core->router_incarnation != incarnation)
        bt_pcore_all_end(core);
    core->router_incarnation = incarnation;
}

void bt_prefill_core_router_message(bt_prefill_core *core, const bt_msg *msg, uint64_t now_ns)
{
    enter(core, now_ns);
    core->router_heard_ns = now_ns > 0 ? now_ns : 1;
    switch (msg->kind) {
    case BT_MSG_WELCOME: on_welcome(core, msg); break;
    case BT_MSG_HEARTBEAT: break;
    case BT_MSG_RENEW: break; /* pins end by their own lease; hearing R is what counts */
    case BT_MSG_PREFILL: bt_pcore_prefill(core, msg); break;
    case BT_MSG_RETARGET: bt_pcore_retarget(core, msg); break;
    case BT_MSG_CANCEL: bt_pcore_cancel(core, &msg->fence); break;
    default: bt_pcore_stale(core); break;
    }
    advance(core);
}

/* The arena of this incarnation as remembered, or the longest unused one, emptied. */
static uint32_t arena_for(bt_prefill_core *core, uint64_t d_incarnation)
{
    uint32_t chosen = NONE;
    for (uint32_t i = 0; i < core->arena_count; i++) {
        const p_arena *a = &core->arenas[i];
        if (a->d_incarnation == d_incarnation) return i;
        bool in_use = a->in_flight > 0;
        for (uint32_t p = 0; p < BT_PEERS_MAX; p++)
            in_use |= core->peers[p].up && core->peers[p].arena == i;
        if (!in_use && (chosen == NONE || a->serial < core->arenas[chosen].serial)) chosen = i;
    }
    if (chosen == NONE) return NONE;
    p_arena *a = &core->arenas[chosen];
    a->d_incarnation = d_incarnation;
    for (uint32_t s = 0; s < BT_SLOTS_MAX; s++) a->slots[s] = (p_slot){.ticket = NONE};
    return chosen;
}

void bt_prefill_core_peer_up(bt_prefill_core *core, uint32_t peer, const bt_prefill_peer *info,
                             uint64_t now_ns)
{
    assert(peer < BT_PEERS_MAX && info->d_incarnation != 0);
    if (core->peers[peer].up) bt_prefill_core_peer_down(core, peer, now_ns);
    enter(core, now_ns);
    p_peer *p = &core->peers[peer];
    uint32_t arena = arena_for(core, info->d_incarnation);
    *p = (p_peer){.up = true, .info = *info, .arena = arena};
    if (arena == NONE || info->slot_count > BT_SLOTS_MAX || info->cell_count > BT_CELLS_MAX) {
        p->up = false;
        bt_pcore_probe_end(core, peer, BT_PROBE_REFUSED,
                           "the peer's landing slots or cells are beyond what we can track");
        return;
    }
    core->arenas[arena].serial = core->serial++;
    bt_pcore_probe_start(core, peer);
    advance(core);
}

void bt_prefill_core_peer_down(bt_prefill_core *core, uint32_t peer, uint64_t now_ns)
{
    assert(peer < BT_PEERS_MAX);
    enter(core, now_ns);
    p_peer *p = &core->peers[peer];
    if (!p->up) return;
    for (uint32_t i = 0; i < core->ticket_count; i++) {
        if (!core->tickets[i].used || core->tickets[i].peer != peer) continue;
        core->stats.tickets_dropped_total++;
        bt_pcore_ticket_drop(core, i);
    }
    for (uint32_t i = 0; i < core->live_count; i++) {
        const p_request *r = &core->requests[core->live[i]];
        if (bt_pcore_alive(r) && r->probe_peer == peer) bt_pcore_request_end(core, core->live[i]);
    }
    for (uint32_t s = 0; s < BT_SLOTS_MAX; s++)
        core->arenas[p->arena].slots[s].owed = false; /* D asks again if it lives */
    p->up = false;
    bt_pcore_probe_end(core, peer, BT_PROBE_FAILED, "the peer is gone");
    advance(core);
}

void bt_prefill_core_peer_message(bt_prefill_core *core, uint32_t peer, const bt_msg *msg,
                                  uint64_t now_ns)
{
    assert(peer < BT_PEERS_MAX);
    enter(core, now_ns);
    bt_pcore_peer_message(core, peer, msg);
    advance(core);
}

void bt_prefill_core_engine_event(bt_prefill_core *core, const bt_engine_event *event,
                                  uint64_t now_ns)
{
    enter(core, now_ns);
    bt_pcore_engine_event(core, event);
    advance(core);
}

void bt_prefill_core_put_done(bt_prefill_core *core, uint64_t tag, bt_status status,
                              uint64_t now_ns)
{
    enter(core, now_ns);
    bt_pcore_put_done(core, tag, status);
    advance(core);
}

void bt_prefill_core_tick(bt_prefill_core *core, uint64_t now_ns)
{
    enter(core, now_ns);
    if (now_ns >= core->retry_ns) core->retry_ns = UINT64_MAX;
    bt_pcore_requests_tick(core);
    bt_pcore_tickets_tick(core);
    advance(core);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t bt_prefill_core_next_deadline(const bt_prefill_core *core)
{
    uint64_t next = core->retry_ns;
    bool owned = false;
    for (uint32_t i = 0; i < core->live_count; i++) {
        const p_request *r = &core->requests[core->live[i]];
        if (!bt_pcore_alive(r)) continue;
        next = earlier(next, r->expires_ns);
        owned |= r->probe_peer == NONE;
    }
    for (uint32_t i = 0; i < core->ticket_count; i++) {
        const p_ticket *t = &core->tickets[i];
        if (!t->used) continue;
        if (t->request == NONE)
            next = earlier(next, t->expires_ns);
        else if (!t->manifest_sent)
            next = earlier(next, t->renew_ns);
    }
    if (owned && core->router_heard_ns > 0)
        next = earlier(next, core->router_heard_ns + core->config.router_timeout_ns);
    return next;
}

void bt_prefill_core_drain(bt_prefill_core *core, uint64_t now_ns)
{
    enter(core, now_ns);
    core->draining = true;
}

bool bt_prefill_core_idle(const bt_prefill_core *core)
{
    for (uint32_t i = 0; i < core->request_count; i++)
        if (core->requests[i].state != REQUEST_FREE) return false;
    return !core->batch.busy;
}

bt_probe_state bt_prefill_core_probe(const bt_prefill_core *core, uint32_t peer,
                                     const char **ret_reason)
{
    assert(peer < BT_PEERS_MAX);
    *ret_reason = core->peers[peer].reason;
    return core->peers[peer].probe;
}

/* Of accepted requests: all of a prompt that waits for blocks, since its cached part is not known. */
static uint32_t queued_tokens(const bt_prefill_core *core)
{
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < core->live_count; i++) {
        const p_request *r = &core->requests[core->live[i]];
        if (r->state == REQUEST_WAITING || r->state == REQUEST_COMPUTING)
            tokens += r->token_count - r->computed;
    }
    return tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
}

void bt_prefill_core_heartbeat(const bt_prefill_core *core, bt_msg *ret_msg)
{
    bt_prefill_stats stats;
    bt_prefill_core_stats(core, &stats);
    ret_msg->heartbeat.running = stats.running;
    ret_msg->heartbeat.waiting = stats.waiting;
    ret_msg->heartbeat.blocks_free = stats.blocks_free + stats.blocks_cached;
    ret_msg->heartbeat.queued_tokens = queued_tokens(core);
    ret_msg->heartbeat.cost = bt_cost_solve(&core->cost);
}

void bt_prefill_core_stats(const bt_prefill_core *core, bt_prefill_stats *ret_stats)
{
    *ret_stats = core->stats;
    for (uint32_t i = 0; i < core->request_count; i++) {
        request_state state = core->requests[i].state;
        ret_stats->running += state == REQUEST_COMPUTING || state == REQUEST_DONE;
        ret_stats->waiting += state == REQUEST_WAITING;
    }
    bt_kv_pool_counts counts;
    bt_kv_pool_recount(core->pool, &counts);
    ret_stats->blocks_free = counts.free;
    ret_stats->blocks_cached = counts.cached;
    ret_stats->blocks_held = counts.held;
    ret_stats->blocks_quarantined = counts.quarantined;
}
