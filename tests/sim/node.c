/* node.c - what the shells are to the cores, in the simulated world: birth, death, pairing and the
 * io tables.
 *
 * Node names double as peer indices and router link indices. */
#include "tests/sim/world.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t probe_tokens[BT_RUN_TOKENS];

uint32_t node_block_tokens(const sim_node *node)
{
    const scenario *s = &node->world->sc;
    return node->role == BT_ROLE_PREFILL ? s->p_block_tokens : s->d_block_tokens;
}

static bt_kv_shape kv_shape(const sim_node *node)
{
    const scenario *s = &node->world->sc;
    return (bt_kv_shape){.dtype = BT_DTYPE_F32,
                         .layers = SIM_LAYERS,
                         .kv_heads = 1,
                         .head_dim = 8,
                         .block_tokens = node_block_tokens(node),
                         .pool_blocks = node->role == BT_ROLE_PREFILL ? s->p_blocks : s->d_blocks};
}

static uint32_t cell_bytes(const world *w)
{
    bt_wire_shape wire = {.dtype = BT_DTYPE_F32, .head_dim = 8};
    return (uint32_t)bt_wire_frame_bytes(&wire, w->sc.cell_runs, 1);
}

/* ---- io of the daemons ---- */

static void io_send_router(void *ctx, const bt_msg *msg)
{
    sim_node *node = ctx;
    net_send(node->world, node->index, SIM_ROUTER, false, msg);
}

static void io_send_peer(void *ctx, uint32_t peer, const bt_msg *msg)
{
    sim_node *node = ctx;
    assert(peer < SIM_NODES_MAX);
    if (node->peer[peer].up && node->world->nodes[peer].incarnation == node->peer[peer].incarnation)
        net_send(node->world, node->index, peer, true, msg);
}

static bt_status io_submit(void *ctx, const bt_engine_batch *batch)
{
    return engine_submit(ctx, batch);
}

static bt_status io_put(void *ctx, const bt_prefill_put *put, bt_kv_digest *ret_digest)
{
    return land_put(ctx, put, ret_digest);
}

static void io_unpack(void *ctx, const bt_decode_unpack *unpack)
{
    land_unpack(ctx, unpack);
}

static void io_probe_distance(void *ctx, uint32_t peer, const uint32_t *own_blocks,
                              const uint32_t *pushed_blocks, double *ret_error, double *ret_bound,
                              char ret_where[BT_REASON_BYTES_MAX])
{
    (void)peer;
    sim_node *node = ctx;
    *ret_error = 0;
    *ret_bound = 0.5;
    snprintf(ret_where, BT_REASON_BYTES_MAX, "nowhere");
    for (uint32_t layer = 0; layer < SIM_LAYERS; layer++) {
        for (uint32_t t = 0; t < BT_RUN_TOKENS; t++) {
            if (*engine_value(node, own_blocks, layer, t) ==
                *engine_value(node, pushed_blocks, layer, t))
                continue;
            *ret_error = 1;
            snprintf(ret_where, BT_REASON_BYTES_MAX, "layer %u token %u", layer, t);
            return;
        }
    }
}

static void start_prefill(sim_node *node)
{
    world *w = node->world;
    bt_prefill_config config = {.incarnation = node->incarnation,
                                .kv = kv_shape(node),
                                .vocab = SIM_VOCAB,
                                .context_tokens_max = SIM_TOKENS_MAX,
                                .eos_ids = {SIM_EOS},
                                .eos_count = 1,
                                .requests_max = 8,
                                .batch_tokens_max = w->sc.batch_tokens,
                                .batch_seqs_max = 4,
                                .staging_bytes = cell_bytes(w),
                                .staging_count = 4,
                                .pin_lease_ns = 8 * SEC,
                                .tombstone_ns = 30 * SEC,
                                .router_timeout_ns = 3 * SEC,
                                .probe_tokens = probe_tokens};
    bt_prefill_io io = {node, io_send_router, io_send_peer, io_submit, io_put};
    size_t bytes = (bt_prefill_core_bytes(&config) + 63) & ~(size_t)63;
    free(node->memory);
    node->memory = aligned_alloc(64, bytes);
    assert(node->memory != NULL);
    node->prefill = bt_prefill_core_init(node->memory, &config, &io, w->now_ns);
}

static void start_decode(sim_node *node)
{
    world *w = node->world;
    bt_decode_config config = {.incarnation = node->incarnation,
                               .kv = kv_shape(node),
                               .vocab = SIM_VOCAB,
                               .context_tokens_max = SIM_TOKENS_MAX,
                               .eos_ids = {SIM_EOS},
                               .eos_count = 1,
                               .seqs_max = 8,
                               .batch_seqs_max = 8,
                               .batch_tokens_max = w->sc.batch_tokens,
                               .local_chunk = w->sc.local_chunk,
                               .slot_count = SIM_SLOTS,
                               .cell_count = SIM_CELLS,
                               .cell_bytes = cell_bytes(w),
                               .quarantine_max = 3,
                               .reserve_tokens = w->sc.tight ? 1 : 8,
                               .lease_ns = sim_lease_ns(&w->sc),
                               .cancel_repeat_ns = 300 * MS,
                               .router_timeout_ns = 3 * SEC,
                               .probe_tokens = probe_tokens};
    bt_decode_io io = {node, io_send_router, io_send_peer, io_submit, io_unpack, io_probe_distance};
    size_t bytes = (bt_decode_core_bytes(&config) + 63) & ~(size_t)63;
    free(node->memory);
    node->memory = aligned_alloc(64, bytes);
    assert(node->memory != NULL);
    node->decode = bt_decode_core_init(node->memory, &config, &io, w->now_ns);
    bt_decode_core_start(node->decode, w->now_ns);
}

void node_hello(sim_node *node)
{
    bt_kv_shape kv = kv_shape(node);
    bt_msg msg = {.kind = BT_MSG_HELLO};
    bt_hello *hello = &msg.hello;
    hello->proto_major = BT_PROTO_MAJOR;
    hello->proto_minor = BT_PROTO_MINOR;
    hello->role = node->role;
    snprintf(hello->name, sizeof(hello->name), "node%u", node->index);
    snprintf(hello->model, sizeof(hello->model), "sim");
    hello->incarnation = node->incarnation;
    hello->kv_dtype = kv.dtype;
    hello->wire_formats = 1u << BT_DTYPE_F32;
    hello->block_tokens = kv.block_tokens;
    hello->pool_blocks = kv.pool_blocks;
    hello->context_tokens_max = SIM_TOKENS_MAX;
    hello->layers = kv.layers;
    hello->kv_heads = kv.kv_heads;
    hello->head_dim = kv.head_dim;
    hello->vocab = SIM_VOCAB;
    hello->tp_size = 1;
    hello->ucx_major = 1;
    hello->chunk_tokens =
        node->role == BT_ROLE_PREFILL ? node->world->sc.batch_tokens : node->world->sc.local_chunk;
    snprintf(hello->pair_endpoint, sizeof(hello->pair_endpoint), "tcp://127.0.0.1:%u",
             1000 + node->index);
    net_send(node->world, node->index, SIM_ROUTER, false, &msg);
}

void node_start(sim_node *node)
{
    world *w = node->world;
    for (uint32_t t = 0; t < BT_RUN_TOKENS; t++) probe_tokens[t] = 10 + t;
    node->up = true;
    node->draining = false;
    node->incarnation = w->next_incarnation++;
    check_born(w, node);
    node->frozen_until_ns = 0;
    memset(node->peer, 0, sizeof(node->peer));
    node->drain_worked = false;
    memset(&node->engine, 0, sizeof(node->engine));
    memset(node->cells, 0xee, sizeof(node->cells));
    memset(node->pool, 0xdd, sizeof(node->pool));
    w->node_wake_ns[node->index] = UINT64_MAX;
    if (node->role == BT_ROLE_PREFILL)
        start_prefill(node);
    else
        start_decode(node);
    world_trace(w, "node %u starts as incarnation %llu", node->index,
                (unsigned long long)node->incarnation);
    node_hello(node);
    sim_event *beat = world_schedule(w, 100 * MS, EV_HEARTBEAT, node->index, 0);
    beat->a_incarnation = node->incarnation;
}

void node_crash(sim_node *node)
{
    world *w = node->world;
    world_trace(w, "node %u (incarnation %llu) is killed", node->index,
                (unsigned long long)node->incarnation);
    tally_node_end(w, node);
    node->up = false;
    sim_event *told =
        world_schedule(w, 1 * MS + world_random(w, 300 * MS), EV_TOLD_DEAD, node->index, 0);
    told->arg = node->incarnation;
    world_schedule(w, 50 * MS + world_random(w, 1 * SEC), EV_RESTART, node->index, 0);
}

/* The others learn of a death: D by the pidfd of P (proof), P by R's Unpair or its own watch, R by
 * the broken link. */
static void tell_dead(world *w, uint32_t dead, uint64_t incarnation)
{
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++) {
        sim_node *node = &w->nodes[i];
        if (!node->up || !node->peer[dead].up || node->peer[dead].incarnation != incarnation)
            continue;
        node->peer[dead].up = false;
        if (node->role == BT_ROLE_PREFILL)
            bt_prefill_core_peer_down(node->prefill, dead, w->now_ns);
        else
            bt_decode_core_peer_dead(node->decode, dead, w->now_ns);
    }
    const bt_router_daemon *daemon = bt_router_core_daemon(w->router, dead);
    if (daemon != NULL && daemon->up && daemon->hello.incarnation == incarnation)
        bt_router_core_daemon_lost(w->router, dead, w->now_ns);
}

/* The pairing exchange of the two shells, in one step: it is between processes that both live, or
 * it does not happen. */
static void pair(world *w, uint32_t p, uint32_t d)
{
    sim_node *prefill = &w->nodes[p], *decode = &w->nodes[d];
    if (!prefill->up || !decode->up || !bt_decode_core_ready(decode->decode)) {
        if (prefill->up && decode->up) {
            sim_event *again = world_schedule(w, 20 * MS, EV_PAIR, p, d);
            again->a_incarnation = prefill->incarnation;
            again->b_incarnation = decode->incarnation;
        }
        return;
    }
    /* PAIR came twice before the first was followed: a shell has one pairing with each peer. */
    if (decode->peer[p].up && decode->peer[p].incarnation == prefill->incarnation &&
        prefill->peer[d].up && prefill->peer[d].incarnation == decode->incarnation) {
        prefill->peer[d].reported = false;
        return;
    }
    if (decode->peer[p].up && decode->peer[p].incarnation != prefill->incarnation)
        tell_dead(w, p, decode->peer[p].incarnation);
    if (decode->peer[p].up) bt_decode_core_peer_lost(decode->decode, p, w->now_ns);
    if (prefill->peer[d].up) bt_prefill_core_peer_down(prefill->prefill, d, w->now_ns);
    decode->peer[p].up = prefill->peer[d].up = true;
    prefill->peer[d].epoch++;
    decode->peer[p].incarnation = prefill->incarnation;
    prefill->peer[d].incarnation = decode->incarnation;
    prefill->peer[d].reported = false;
    bt_prefill_peer to_d = {.d_incarnation = decode->incarnation,
                            .wire = BT_DTYPE_F32,
                            .slot_count = SIM_SLOTS,
                            .cell_count = SIM_CELLS,
                            .cell_bytes = cell_bytes(w)};
    bt_decode_peer to_p = {
        .p_incarnation = prefill->incarnation, .wire = BT_DTYPE_F32, .kv_dtype = BT_DTYPE_F32};
    bt_prefill_core_peer_up(prefill->prefill, d, &to_d, w->now_ns);
    bt_decode_core_peer_up(decode->decode, p, &to_p, w->now_ns);
}

static void node_message(world *w, sim_event *event, sim_node *node, const bt_msg *msg)
{
    check_delivered(w, node, msg);
    if (event->ucx) {
        bool paired =
            node->peer[event->a].up && node->peer[event->a].incarnation == event->a_incarnation;
        if (!paired || node->incarnation != event->b_incarnation) return;
        if (node->role == BT_ROLE_PREFILL)
            bt_prefill_core_peer_message(node->prefill, event->a, msg, w->now_ns);
        else
            bt_decode_core_peer_message(node->decode, event->a, msg, w->now_ns);
        return;
    }
    if (msg->kind == BT_MSG_PAIR || msg->kind == BT_MSG_UNPAIR) {
        for (uint32_t d = SIM_PREFILL_MAX; d < SIM_NODES_MAX; d++) {
            if (w->nodes[d].incarnation != msg->pair.d_incarnation) continue;
            bool paired = node->peer[d].up && node->peer[d].incarnation == msg->pair.d_incarnation;
            if (msg->kind == BT_MSG_PAIR && paired) {
                node->peer[d].reported = false; /* asked again: tell again, once it is decided */
            } else if (msg->kind == BT_MSG_PAIR) {
                sim_event *pairing =
                    world_schedule(w, 1 * MS + world_random(w, 5 * MS), EV_PAIR, node->index, d);
                pairing->a_incarnation = node->incarnation;
                pairing->b_incarnation = msg->pair.d_incarnation;
            } else if (node->peer[d].up && node->peer[d].incarnation == msg->pair.d_incarnation) {
                node->peer[d].up = false;
                bt_prefill_core_peer_down(node->prefill, d, w->now_ns);
            }
        }
        return;
    }
    if (node->role == BT_ROLE_PREFILL)
        bt_prefill_core_router_message(node->prefill, msg, w->now_ns);
    else
        bt_decode_core_router_message(node->decode, msg, w->now_ns);
}

static void heartbeat(sim_node *node)
{
    world *w = node->world;
    bt_msg msg = {.kind = BT_MSG_HEARTBEAT};
    msg.heartbeat.incarnation = node->incarnation;
    msg.heartbeat.draining = node->draining;
    if (node->role == BT_ROLE_PREFILL) {
        bt_prefill_core_heartbeat(node->prefill, &msg);
    } else {
        bt_decode_core_heartbeat(node->decode, &msg);
    }
    net_send(w, node->index, SIM_ROUTER, false, &msg);
    const bt_router_daemon *daemon = bt_router_core_daemon(w->router, node->index);
    if (daemon == NULL || !daemon->up || daemon->hello.incarnation != node->incarnation)
        node_hello(node);
    world_schedule(w, 200 * MS, EV_HEARTBEAT, node->index, 0)->a_incarnation = node->incarnation;
}

static void report_pair(sim_node *node, uint32_t d, bool ready, const char *reason)
{
    bt_msg msg = {.kind = BT_MSG_PAIR_STATUS};
    msg.pair_status.d_incarnation = node->peer[d].incarnation;
    msg.pair_status.ready = ready;
    msg.pair_status.wire = BT_DTYPE_F32;
    snprintf(msg.pair_status.transport, sizeof(msg.pair_status.transport), "virtual");
    snprintf(msg.pair_status.reason, sizeof(msg.pair_status.reason), "%s", ready ? "" : reason);
    node->peer[d].told_ready = ready ? node->peer[d].incarnation : 0;
    net_send(node->world, node->index, SIM_ROUTER, false, &msg);
}

static void report_probes(sim_node *node)
{
    for (uint32_t d = SIM_PREFILL_MAX; d < SIM_NODES_MAX; d++) {
        if (!node->peer[d].up || node->peer[d].reported) continue;
        const char *reason = "";
        bt_probe_state state = bt_prefill_core_probe(node->prefill, d, &reason);
        if (state == BT_PROBE_PENDING) continue;
        if (state == BT_PROBE_FAILED) { /* R has had no answer and asks again … */
            /* … but if a doubled PAIR made this pair anew after it had been ready */
            if (node->peer[d].told_ready == node->peer[d].incarnation)
                report_pair(node, d, false, "broken");
            node->peer[d].up = false;
            bt_prefill_core_peer_down(node->prefill, d, node->world->now_ns);
            continue;
        }
        node->peer[d].reported = true;
        report_pair(node, d, state == BT_PROBE_READY, reason);
    }
}

static void postpone(world *w, sim_event *event, uint64_t until_ns)
{
    sim_event *later = world_schedule(w, until_ns - w->now_ns, event->kind, event->a, event->b);
    uint64_t time = later->time_ns, order = later->order;
    *later = *event;
    later->time_ns = time;
    later->order = order;
    event->data = NULL;
    if (event->kind == EV_MESSAGE) tally_message(w, event->msg_kind, FAULT_FROZEN);
}

/* A second stop within the first does not end it sooner: what came meanwhile waits for its end. */
static void freeze(const world *w, uint64_t *until_ns, uint64_t for_ns)
{
    if (w->now_ns + for_ns > *until_ns) *until_ns = w->now_ns + for_ns;
}

/* A stopped process sees nothing; what arrives meanwhile waits for it. */
static bool postponed(world *w, sim_event *event, sim_node *node)
{
    if (!node->up || node->frozen_until_ns <= w->now_ns) return false;
    if (event->kind != EV_MESSAGE && event->kind != EV_ENGINE && event->kind != EV_UNPACK &&
        event->kind != EV_HEARTBEAT && event->kind != EV_WAKE && event->kind != EV_PAIR &&
        event->kind != EV_DRAIN)
        return false;
    postpone(w, event, node->frozen_until_ns);
    return true;
}

static void wake(world *w, sim_node *node)
{
    if (w->node_wake_ns[node->index] > w->now_ns) return;
    w->node_wake_ns[node->index] = UINT64_MAX;
    if (node->role == BT_ROLE_PREFILL)
        bt_prefill_core_tick(node->prefill, w->now_ns);
    else
        bt_decode_core_tick(node->decode, w->now_ns);
}

static void tally_successor(world *w, const sim_event *event)
{
    uint64_t from = event->a == SIM_ROUTER ? w->router_incarnation : w->nodes[event->a].incarnation;
    uint64_t to = event->b == SIM_ROUTER ? w->router_incarnation : w->nodes[event->b].incarnation;
    if (from != event->a_incarnation || to != event->sent_to)
        tally_message(w, event->msg_kind, FAULT_SUCCESSOR);
    if (event->a == SIM_ROUTER && from != event->a_incarnation) tally_corner(w, CORNER_OLD_ROUTER);
}

static void decode_and_deliver(world *w, sim_event *event, sim_node *node)
{
    bt_msg msg;
    bt_err err;
    tally_successor(w, event);
    if (bt_codec_decode(event->data, event->bytes, w->codec, &msg, &err) != BT_OK) {
        world_fail(w, "a message that was encoded does not decode: %s", err.message);
        return;
    }
    if (node != NULL) {
        node_message(w, event, node, &msg);
        return;
    }
    tally_to_router(w, &msg);
    bt_router_core_message(w->router, event->a, &msg, w->now_ns);
}

/* SIGTERM: no new work, the rest is finished, then the process leaves; `drain_timeout` bounds it. */
static void drain(world *w, sim_node *node)
{
    if (!node->up || node->draining) return;
    world_trace(w, "node %u drains", node->index);
    node->draining = true;
    if (node->role == BT_ROLE_PREFILL) {
        node->drain_worked = !bt_prefill_core_idle(node->prefill);
        bt_prefill_core_drain(node->prefill, w->now_ns);
    } else {
        node->drain_worked = !bt_decode_core_idle(node->decode);
        bt_decode_core_drain(node->decode, w->now_ns);
    }
    world_schedule(w, 20 * SEC, EV_DRAIN_END, node->index, 0)->a_incarnation = node->incarnation;
}

/* Asked at heartbeats only, so that the router hears of the drain and may still retarget. */
static void drained(world *w, sim_node *node)
{
    bool idle = node->role == BT_ROLE_PREFILL ? bt_prefill_core_idle(node->prefill)
                                              : bt_decode_core_idle(node->decode);
    if (!idle) return;
    if (node->drain_worked) tally_corner(w, CORNER_DRAINED);
    node_crash(node);
}

void node_event(world *w, sim_event *event)
{
    uint32_t subject = event->kind == EV_MESSAGE ? event->b : event->a;
    sim_node *node = &w->nodes[subject];
    if (postponed(w, event, node)) return;
    bool same =
        node->up && (event->a_incarnation == 0 || event->a_incarnation == node->incarnation);
    switch (event->kind) {
    case EV_MESSAGE:
        if (node->up) decode_and_deliver(w, event, node);
        break;
    case EV_WAKE:
        if (node->up) wake(w, node);
        break;
    case EV_ENGINE:
        if (same) engine_step(node, event);
        break;
    case EV_LAND: land_arrive(w, event); break;
    case EV_PUT_DONE: land_done(w, event); break;
    case EV_UNPACK:
        if (same) land_unpacked(w, event);
        break;
    case EV_HEARTBEAT:
        if (same) heartbeat(node);
        break;
    case EV_PAIR:
        if (same && w->nodes[event->b].incarnation == event->b_incarnation)
            pair(w, event->a, event->b);
        break;
    case EV_CRASH:
        if (node->up && w->now_ns < w->sc.calm_ns) node_crash(node);
        break;
    case EV_RESTART:
        if (!node->up) node_start(node);
        break;
    case EV_TOLD_DEAD: tell_dead(w, event->a, event->arg); break;
    case EV_FREEZE:
        if (node->up) {
            freeze(w, &node->frozen_until_ns, event->arg);
            world_trace(w, "node %u stops for %.0f ms", node->index, (double)event->arg / 1e6);
        }
        break;
    case EV_DRAIN: drain(w, node); break;
    case EV_DRAIN_END:
        if (same) node_crash(node);
        break;
    case EV_SUBMIT:
    case EV_ROUTER_RESTART:
    case EV_CANCEL: break;
    }
    if (node->up && node->draining && event->kind == EV_HEARTBEAT) drained(w, node);
    if (node->up && node->role == BT_ROLE_PREFILL) report_probes(node);
}

/* ---- the router's shell ---- */

static void io_send(void *ctx, uint32_t daemon, const bt_msg *msg)
{
    net_send(ctx, SIM_ROUTER, daemon, false, msg);
}

static void io_token(void *ctx, uint64_t user, uint32_t index, const bt_token *token, bool eos)
{
    world *w = ctx;
    sim_request *request = &w->requests[user];
    request->eos_seen |= eos;
    if (bt_sampling_stops(&request->sampling, token->id)) tally_corner(w, CORNER_STOP_ID);
    check_token(w, request, index, token->id);
}

static void io_prompt_logprobs(void *ctx, uint64_t user, uint32_t index, const bt_token *tokens,
                               uint32_t token_count)
{
    world *w = ctx;
    check_scores(w, &w->requests[user], index, tokens, token_count);
}

static void io_ended(void *ctx, uint64_t user, const bt_router_end *end)
{
    world *w = ctx;
    world_trace(w, "request %llu ended: reason %d, %u tokens, %u attempts, %s",
                (unsigned long long)user, end->reason, end->output_tokens, end->attempts,
                end->text);
    if (end->attempts > 1) w->retries++;
    check_ended(w, &w->requests[user], end);
}

void router_start(world *w)
{
    w->router_incarnation = w->next_incarnation++;
    bt_router_config config = {.incarnation = w->router_incarnation,
                               .policy = w->sc.policy,
                               .requests_max = 16,
                               .attempts_max = 6,
                               .tokens_max = SIM_TOKENS_MAX,
                               .progress_ns = w->sc.slow_engine ? 60 * SEC : 4 * SEC,
                               .heartbeat_ns = 500 * MS,
                               .daemon_timeout_ns = 2 * SEC,
                               .renew_ns = 1 * SEC,
                               .retry_wait_ns = w->sc.slow_engine ? 60 * SEC : 10 * SEC,
                               .prefix_entries = 64,
                               .affinity_tokens = 256,
                               .local_prefill_max = w->sc.local_max,
                               .local_when_no_prefill = w->sc.local_alone,
                               .eos_ids = {SIM_EOS},
                               .eos_count = 1};
    bt_router_io io = {w, io_send, io_token, io_ended, io_prompt_logprobs};
    size_t bytes = (bt_router_core_bytes(&config) + 63) & ~(size_t)63;
    w->router_memory = aligned_alloc(64, bytes);
    assert(w->router_memory != NULL);
    w->router = bt_router_core_init(w->router_memory, &config, &io, w->now_ns);
}

/* The simplest death of a router: its clients lose their connections, its daemons say Hello to the
 * next one, and what it had in flight has no owner any more (H3). */
static void router_restart(world *w)
{
    world_trace(w, "the router (incarnation %llu) is killed and started again",
                (unsigned long long)w->router_incarnation);
    for (uint32_t i = 0; i < w->sc.requests; i++) {
        sim_request *request = &w->requests[i];
        if (!request->submitted || request->refused || request->endings > 0) continue;
        request->orphaned = true;
        request->endings = 1;
        request->reason = BT_FINISH_NONE;
        tally_corner(w, CORNER_ROUTER_RESTART);
    }
    free(w->router_memory);
    w->router_frozen_until_ns = 0;
    w->router_wake_ns = UINT64_MAX;
    router_start(w);
}

static void submit(world *w, uint64_t i)
{
    sim_request *request = &w->requests[i];
    bt_router_request r = {.id = request->id,
                           .tokens = request->prompt,
                           .token_count = request->prompt_count,
                           .max_tokens = request->max_tokens,
                           .ignore_eos = request->ignore_eos,
                           .sampling = request->sampling,
                           .prompt_logprobs = request->score,
                           .user = i};
    bt_err err = {0};
    bt_status status = bt_router_core_submit(w->router, &r, w->now_ns, &err);
    world_trace(w, "request %llu (%02x): %u + %u tokens: %s", (unsigned long long)i,
                request->id.bytes[0], request->prompt_count, request->max_tokens,
                bt_status_name(status));
    if (status == BT_ERR_PEER_LOST && request->endings == 0 &&
        w->now_ns < w->sc.calm_ns + 30 * SEC) {
        world_schedule(w, 100 * MS, EV_SUBMIT, SIM_ROUTER, 0)->arg =
            i; /* the client heeds Retry-After */
        return;
    }
    request->submitted = true;
    request->refused = status != BT_OK;
    if (request->refused && scenario_undisturbed(&w->sc))
        world_fail(w, "H8: request %llu refused in an undisturbed world: %s", (unsigned long long)i,
                   err.message);
}

void router_event(world *w, sim_event *event)
{
    bool frozen = w->router_frozen_until_ns > w->now_ns;
    if (frozen && event->kind != EV_ROUTER_RESTART && event->kind != EV_FREEZE) {
        postpone(w, event, w->router_frozen_until_ns);
        return;
    }
    switch (event->kind) {
    case EV_ROUTER_RESTART: router_restart(w); break;
    case EV_FREEZE:
        freeze(w, &w->router_frozen_until_ns, event->arg);
        world_trace(w, "the router stops for %.0f ms", (double)event->arg / 1e6);
        break;
    case EV_SUBMIT: submit(w, event->arg); break;
    case EV_CANCEL:
        if (w->requests[event->arg].submitted)
            bt_router_core_cancel(w->router, event->arg, w->now_ns);
        break;
    case EV_MESSAGE: decode_and_deliver(w, event, NULL); break;
    case EV_WAKE:
        if (w->router_wake_ns <= w->now_ns) {
            w->router_wake_ns = UINT64_MAX;
            bt_router_core_tick(w->router, w->now_ns);
        }
        break;
    default: break;
    }
}
