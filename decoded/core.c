/* core.c - the decode core's frame: memory, peers, dispatch, clock and figures. */
#include "decoded/core_state.h"

#include <assert.h>
#include <string.h>

static void carve_tables(bt_arena *arena, bt_decode_core *core)
{
    const bt_kv_shape *kv = &core->config.kv;
    core->pool = bt_kv_pool_carve(arena, kv->pool_blocks);
    core->prefix = bt_kv_prefix_carve(arena, core->pool, kv->pool_blocks, kv->block_tokens);
    core->seen = bt_attempts_carve(arena, 1024 + core->config.seqs_max * 4);
    core->seqs = BT_ARENA_NEW(arena, d_seq, core->seq_count);
    core->slots = BT_ARENA_NEW(arena, d_slot, core->config.slot_count);
    core->cells = BT_ARENA_NEW(arena, d_cell, (size_t)core->config.slot_count * BT_CELLS_MAX);
    core->peers = BT_ARENA_NEW(arena, d_peer, BT_PEERS_MAX);
    core->probe_tokens = BT_ARENA_NEW(arena, uint32_t, BT_PROBE_TOKENS);
    core->batch.seq_index = BT_ARENA_NEW(arena, uint32_t, core->config.batch_seqs_max);
    core->batch.seqs = BT_ARENA_NEW(arena, bt_engine_seq, core->config.batch_seqs_max);
}

/* The rows of the tables; one piece of memory for each kind. */
static void carve_rows(bt_arena *arena, bt_decode_core *core)
{
    size_t count = core->seq_count, words = core->arrival_words;
    size_t context = (size_t)core->config.context_tokens_max + 1;
    uint32_t *tokens = BT_ARENA_NEW(arena, uint32_t, count * context);
    uint32_t *blocks = BT_ARENA_NEW(arena, uint32_t, count * core->blocks_per_context);
    uint64_t *bits = BT_ARENA_NEW(arena, uint64_t, count * 2 * words);
    bt_logit_bias *bias = BT_ARENA_NEW(arena, bt_logit_bias, count * BT_LOGIT_BIAS_MAX);
    if (tokens == NULL) return;
    for (size_t i = 0; i < count; i++) {
        core->seqs[i].tokens = tokens + i * context;
        core->seqs[i].blocks = blocks + i * core->blocks_per_context;
        core->seqs[i].bias = bias + i * BT_LOGIT_BIAS_MAX;
        core->seqs[i].arrival.covered = bits + i * 2 * words;
        core->seqs[i].arrival.known = bits + (i * 2 + 1) * words;
        core->seqs[i].slot = NONE;
    }
    for (uint32_t i = 0; i < core->config.slot_count; i++) {
        core->slots[i].peer = NONE;
        core->slots[i].seq = NONE;
    }
}

static void derive(bt_decode_core *core, const bt_decode_config *config)
{
    const bt_kv_shape *kv = &config->kv;
    assert(config->seqs_max > 0 && config->batch_seqs_max > 0);
    assert(config->slot_count > 0 && config->slot_count <= BT_SLOTS_MAX);
    assert(config->cell_count > 0 && config->cell_count <= BT_CELLS_MAX);
    assert(config->context_tokens_max >= BT_PROBE_TOKENS);
    assert(config->context_tokens_max <= BT_CONTEXT_TOKENS_MAX);
    assert(kv->layers > 0 && kv->layers <= BT_LAYERS_MAX);
    assert(kv->pool_blocks > 2 * (BT_PROBE_TOKENS / kv->block_tokens));
    assert(config->eos_count <= BT_EOS_IDS_MAX && config->lease_ns >= 1000000);
    assert(config->local_chunk <= config->batch_tokens_max);
    *core = (bt_decode_core){.config = *config};
    uint32_t runs = bt_dcore_runs(config->context_tokens_max);
    core->blocks_per_run = BT_RUN_TOKENS / kv->block_tokens;
    core->blocks_per_context = runs * core->blocks_per_run;
    core->seq_count = config->seqs_max + BT_PEERS_MAX;
    core->arrival_words = (kv->layers * runs + 63) / 64;
}

size_t bt_decode_core_bytes(const bt_decode_config *config)
{
    bt_arena arena;
    bt_decode_core sizes;
    bt_arena_init(&arena, NULL, 0);
    derive(&sizes, config);
    (void)BT_ARENA_NEW(&arena, bt_decode_core, 1);
    carve_tables(&arena, &sizes);
    carve_rows(&arena, &sizes);
    return arena.used_bytes;
}

bt_decode_core *bt_decode_core_init(void *memory, const bt_decode_config *config,
                                    const bt_decode_io *io, uint64_t now_ns)
{
    bt_arena arena;
    bt_arena_init(&arena, memory, bt_decode_core_bytes(config));
    bt_decode_core *core = BT_ARENA_NEW(&arena, bt_decode_core, 1);
    derive(core, config);
    core->io = *io;
    core->now_ns = now_ns;
    core->serial = 1;
    carve_tables(&arena, core);
    carve_rows(&arena, core);
    memcpy(core->probe_tokens, config->probe_tokens, BT_PROBE_TOKENS * sizeof(uint32_t));
    core->config.probe_tokens = core->probe_tokens;
    uint32_t own = BT_PROBE_TOKENS / config->kv.block_tokens;
    bool taken = bt_kv_pool_take(core->pool, own, NONE, core->probe_blocks);
    assert(taken);
    bt_kv_pool_keep(core->pool, core->probe_blocks, taken ? own : 0);
    return core;
}

/* Does everything that the event before made possible. */
static void advance(bt_decode_core *core)
{
    for (uint32_t i = 0; core->ready && i < BT_PEERS_MAX; i++)
        if (core->peers[i].state == PEER_UP && core->peers[i].probe == PROBE_WANTED)
            bt_dcore_probe_grant(core, i);
    bt_dcore_step(core);
}

static void enter(bt_decode_core *core, uint64_t now_ns)
{
    assert(now_ns >= core->now_ns);
    core->now_ns = now_ns;
}

void bt_decode_core_start(bt_decode_core *core, uint64_t now_ns)
{
    enter(core, now_ns);
    core->started = true;
    advance(core);
}

bool bt_decode_core_ready(const bt_decode_core *core)
{
    return core->ready;
}

static void on_welcome(bt_decode_core *core, const bt_msg *msg)
{
    uint64_t incarnation = msg->welcome.router_incarnation;
    /* Another router life: what the old one owned has no owner any more (H3). */
    if (core->router_incarnation != 0 && core->router_incarnation != incarnation)
        bt_dcore_all_end(core);
    core->router_incarnation = incarnation;
}

void bt_decode_core_router_message(bt_decode_core *core, const bt_msg *msg, uint64_t now_ns)
{
    enter(core, now_ns);
    core->router_heard_ns = now_ns > 0 ? now_ns : 1;
    switch (msg->kind) {
    case BT_MSG_WELCOME: on_welcome(core, msg); break;
    case BT_MSG_HEARTBEAT: break;
    case BT_MSG_RENEW: bt_dcore_renew(core, msg); break;
    case BT_MSG_RESERVE: bt_dcore_reserve(core, msg); break;
    case BT_MSG_CANCEL: bt_dcore_cancel(core, &msg->fence); break;
    default: bt_dcore_stale(core); break;
    }
    advance(core);
}

void bt_decode_core_peer_up(bt_decode_core *core, uint32_t peer, const bt_decode_peer *info,
                            uint64_t now_ns)
{
    assert(peer < BT_PEERS_MAX && info->p_incarnation != 0);
    if (core->peers[peer].state == PEER_UP) bt_decode_core_peer_lost(core, peer, now_ns);
    enter(core, now_ns);
    /* Quarantined slots of a P that comes back are asked for over its new endpoint; those of
     * another P stay out of reach, for ever if need be (H1). */
    for (uint32_t i = 0; i < core->config.slot_count; i++) {
        d_slot *slot = &core->slots[i];
        if (slot->state != BT_SLOT_QUARANTINED) continue;
        if (slot->fence.p_incarnation == info->p_incarnation)
            slot->peer = peer;
        else if (slot->peer == peer)
            slot->peer = NONE;
    }
    core->peers[peer] = (d_peer){.state = PEER_UP, .info = *info, .probe = PROBE_WANTED};
    advance(core);
}

/* Ends the grants of a peer that is gone. Probes have nobody left to tell. */
static void peer_grants_end(bt_decode_core *core, uint32_t peer)
{
    for (uint32_t i = 0; i < core->seq_count; i++) {
        d_seq *s = &core->seqs[i];
        if (s->state != SEQ_GRANTED || s->peer != peer) continue;
        bt_dcore_grant_fail(core, i, BT_REFUSE_PEER_LOST, "the prefill daemon is gone"); /* H6 */
    }
}

void bt_decode_core_peer_lost(bt_decode_core *core, uint32_t peer, uint64_t now_ns)
{
    assert(peer < BT_PEERS_MAX);
    enter(core, now_ns);
    if (core->peers[peer].state != PEER_UP) return;
    core->peers[peer].state = PEER_LOST;
    peer_grants_end(core, peer);
    advance(core);
}

void bt_decode_core_peer_dead(bt_decode_core *core, uint32_t peer, uint64_t now_ns)
{
    assert(peer < BT_PEERS_MAX);
    enter(core, now_ns);
    if (core->peers[peer].state == PEER_NONE) return;
    core->peers[peer].state = PEER_LOST;
    peer_grants_end(core, peer);
    uint64_t incarnation = core->peers[peer].info.p_incarnation;
    for (uint32_t i = 0; i < core->config.slot_count; i++)
        if (core->slots[i].state == BT_SLOT_QUARANTINED &&
            core->slots[i].fence.p_incarnation == incarnation)
            bt_dcore_slot_free(core, i);
    core->peers[peer].state = PEER_NONE;
    advance(core);
}

void bt_decode_core_peer_message(bt_decode_core *core, uint32_t peer, const bt_msg *msg,
                                 uint64_t now_ns)
{
    assert(peer < BT_PEERS_MAX);
    enter(core, now_ns);
    bt_dcore_peer_message(core, peer, msg);
    advance(core);
}

void bt_decode_core_unpack_done(bt_decode_core *core, uint64_t tag, const bt_kv_digest *digest,
                                uint64_t now_ns)
{
    enter(core, now_ns);
    bt_dcore_unpack_done(core, tag, digest);
    advance(core);
}

void bt_decode_core_engine_event(bt_decode_core *core, const bt_engine_event *event,
                                 uint64_t now_ns)
{
    enter(core, now_ns);
    bt_dcore_engine_event(core, event);
    advance(core);
}

void bt_decode_core_tick(bt_decode_core *core, uint64_t now_ns)
{
    enter(core, now_ns);
    if (now_ns >= core->not_before_ns) core->not_before_ns = 0;
    bt_dcore_grants_tick(core);
    advance(core);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t bt_decode_core_next_deadline(const bt_decode_core *core)
{
    uint64_t next = core->not_before_ns > 0 ? core->not_before_ns : UINT64_MAX;
    bool owned = false;
    for (uint32_t i = 0; i < core->seq_count; i++) {
        const d_seq *s = &core->seqs[i];
        if (!bt_dcore_live(s)) continue;
        owned |= !s->probe;
        next = earlier(next, s->lease_ends_ns);
        if (s->state == SEQ_GRANTED && (s->repush || (s->probe && !s->heard)))
            next = earlier(next, s->repeat_ns);
    }
    for (uint32_t i = 0; i < core->config.slot_count; i++)
        if (core->slots[i].state == BT_SLOT_QUARANTINED)
            next = earlier(next, core->slots[i].repeat_ns);
    if (owned && core->router_heard_ns > 0)
        next = earlier(next, core->router_heard_ns + core->config.router_timeout_ns);
    return next;
}

void bt_decode_core_drain(bt_decode_core *core, uint64_t now_ns)
{
    enter(core, now_ns);
    core->draining = true;
}

bool bt_decode_core_idle(const bt_decode_core *core)
{
    for (uint32_t i = 0; i < core->seq_count; i++)
        if (core->seqs[i].state != SEQ_FREE) return false;
    return !core->batch.busy;
}

void bt_decode_core_stats(const bt_decode_core *core, bt_decode_stats *ret_stats)
{
    *ret_stats = core->stats;
    for (uint32_t i = 0; i < core->seq_count; i++) {
        ret_stats->running += core->seqs[i].state == SEQ_DECODING;
        ret_stats->waiting +=
            core->seqs[i].state == SEQ_GRANTED || core->seqs[i].state == SEQ_COMPUTING;
    }
    for (uint32_t i = 0; i < core->config.slot_count; i++) {
        const d_slot *slot = &core->slots[i];
        bool idle = slot->state == BT_SLOT_FREE && slot->unpacks == 0;
        ret_stats->slots_free += idle;
        ret_stats->slots_quarantined += slot->state == BT_SLOT_QUARANTINED;
        ret_stats->slots_held += !idle && slot->state != BT_SLOT_QUARANTINED;
    }
    bt_kv_pool_counts counts;
    bt_kv_pool_recount(core->pool, &counts);
    ret_stats->blocks_free = counts.free;
    ret_stats->blocks_cached = counts.cached;
    ret_stats->blocks_held = counts.held;
    ret_stats->blocks_quarantined = counts.quarantined;
}

void bt_decode_core_heartbeat(const bt_decode_core *core, bt_msg *ret_msg)
{
    bt_decode_stats stats;
    bt_decode_core_stats(core, &stats);
    ret_msg->heartbeat.running = stats.running;
    ret_msg->heartbeat.waiting = stats.waiting;
    ret_msg->heartbeat.blocks_free = stats.blocks_free + stats.blocks_cached;
    ret_msg->heartbeat.slots_free = stats.slots_free;
    for (uint32_t i = 0; i < core->seq_count; i++) {
        const d_seq *s = &core->seqs[i];
        if (s->state == SEQ_COMPUTING)
            ret_msg->heartbeat.queued_tokens += s->token_count - s->kv_count;
        if (s->state == SEQ_DECODING) ret_msg->heartbeat.context_tokens += s->kv_count;
    }
    ret_msg->heartbeat.cost = bt_cost_solve(&core->cost);
}

bt_slot_state bt_decode_core_slot(const bt_decode_core *core, uint32_t slot, bt_fence *ret_fence)
{
    assert(slot < core->config.slot_count);
    *ret_fence = core->slots[slot].fence;
    return core->slots[slot].state;
}
