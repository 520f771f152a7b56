/* core_tickets.c - tickets, landing slots and Quiesced of the prefill core: everything a decode
 * daemon says. */
#include "common/kv/mutate.h"
#include "prefilld/core_state.h"

#include <assert.h>
#include <string.h>

#define RENEW_MIN_NS 10000000u /* whatever lease D names */

p_slot *bt_pcore_slot(bt_prefill_core *core, uint32_t arena, uint32_t slot)
{
    assert(arena < core->arena_count && slot < BT_SLOTS_MAX);
    return &core->arenas[arena].slots[slot];
}

static p_slot *ticket_slot(bt_prefill_core *core, const p_ticket *ticket)
{
    return bt_pcore_slot(core, core->peers[ticket->peer].arena, ticket->fence.slot);
}

/* Forgets a ticket without a word; KV stays with its request. */
void bt_pcore_ticket_drop(bt_prefill_core *core, uint32_t ticket)
{
    p_ticket *t = &core->tickets[ticket];
    assert(t->used);
    p_slot *slot = ticket_slot(core, t);
    if (slot->ticket == ticket) slot->ticket = NONE;
    if (t->request != NONE) core->requests[t->request].ticket = NONE;
    t->used = false;
}

void bt_pcore_tickets_forget(bt_prefill_core *core, const bt_request_id *id, uint32_t attempt)
{
    for (uint32_t i = 0; i < core->ticket_count; i++) {
        p_ticket *t = &core->tickets[i];
        if (!t->used || t->probe || t->fence.attempt > attempt ||
            !bt_request_id_equal(&t->fence.request, id))
            continue;
        core->stats.tickets_dropped_total++;
        bt_pcore_ticket_drop(core, i);
    }
}

static void ticket_drop_counted(bt_prefill_core *core, uint32_t ticket)
{
    core->stats.tickets_dropped_total++;
    bt_pcore_ticket_drop(core, ticket);
}

/* Joins a request and the ticket of its attempt, whichever came first. */
static void join(bt_prefill_core *core, uint32_t request, uint32_t ticket)
{
    p_request *r = &core->requests[request];
    p_ticket *t = &core->tickets[ticket];
    if (t->run_first > r->token_count / BT_RUN_TOKENS) {
        bt_pcore_stale(core); /* D claims runs that the prompt does not have */
        ticket_drop_counted(core, ticket);
        return;
    }
    if (r->ticket != NONE) ticket_drop_counted(core, r->ticket);
    r->ticket = ticket;
    t->request = request;
    bt_kv_path path = {.tenant_salt = r->tenant_salt,
                       .weights_digest = &core->config.weights_digest,
                       .producer = core->config.kv.dtype,
                       .wire = t->wire.dtype};
    bt_kv_prefix_hash(&path, r->tokens, r->token_count,
                      &t->prefix_hash); /* not at the end, which is waited for */
    t->renew_ns = core->now_ns + t->renew_every_ns;
}

/* Whether a ticket is the one that R's fence of the request names: of this attempt, and of the D
 * that R chose. Another D, paired or not, gets no KV by naming an attempt. */
static bool names_same(const bt_fence *request, const bt_fence *ticket)
{
    return ticket->attempt == request->attempt && ticket->branch == request->branch &&
           ticket->tp_rank == request->tp_rank && ticket->d_incarnation == request->d_incarnation &&
           bt_request_id_equal(&ticket->request, &request->request);
}

void bt_pcore_ticket_attach(bt_prefill_core *core, uint32_t request)
{
    const p_request *r = &core->requests[request];
    for (uint32_t i = 0; i < core->ticket_count; i++) {
        const p_ticket *t = &core->tickets[i];
        if (t->used && !t->probe && t->request == NONE && names_same(&r->fence, &t->fence)) {
            join(core, request, i);
            return;
        }
    }
}

static uint32_t probe_of(const bt_prefill_core *core, uint32_t peer)
{
    for (uint32_t i = 0; i < core->live_count; i++) {
        const p_request *r = &core->requests[core->live[i]];
        if (bt_pcore_alive(r) && r->probe_peer == peer) return core->live[i];
    }
    return NONE;
}

/* A peer's numbers must make sense here before anything is indexed by them. */
static bool ticket_plausible(const bt_prefill_core *core, const p_peer *peer, const bt_msg *msg)
{
    return msg->ticket.wire == peer->info.wire && msg->ticket.cell_count > 0 &&
           msg->ticket.cell_count <= peer->info.cell_count && msg->ticket.lease_ms > 0 &&
           msg->ticket.run_first <= core->config.context_tokens_max / BT_RUN_TOKENS &&
           msg->ticket.probe == bt_request_id_equal(&msg->fence.request, &bt_probe_request_id);
}

static uint32_t ticket_take(bt_prefill_core *core, uint32_t peer, const bt_msg *msg)
{
    uint32_t ticket = 0;
    while (ticket < core->ticket_count && core->tickets[ticket].used) ticket++;
    if (ticket == core->ticket_count) return NONE;
    p_ticket *t = &core->tickets[ticket];
    uint32_t *next_run = t->next_run;
    size_t cell_bytes = core->peers[peer].info.cell_bytes;
    size_t piece_bytes = core->config.staging_bytes;
    *t = (p_ticket){.used = true,
                    .probe = msg->ticket.probe,
                    .fence = msg->fence,
                    .peer = peer,
                    .request = NONE,
                    .run_first = msg->ticket.run_first,
                    .wire = {.dtype = msg->ticket.wire, .head_dim = core->config.kv.head_dim},
                    .cells_free = (1u << msg->ticket.cell_count) - 1,
                    .next_run = next_run};
    t->runs_per_cell = bt_wire_runs_per_cell(&t->wire, core->config.kv.kv_heads,
                                             cell_bytes < piece_bytes ? cell_bytes : piece_bytes);
    uint64_t lease_ns = (uint64_t)msg->ticket.lease_ms * 1000000;
    uint64_t held_ns = lease_ns < core->config.tombstone_ns ? lease_ns : core->config.tombstone_ns;
    t->renew_every_ns = lease_ns / 3 > RENEW_MIN_NS ? lease_ns / 3 : RENEW_MIN_NS;
    t->expires_ns = core->now_ns + held_ns;
    for (uint32_t layer = 0; layer < core->config.kv.layers; layer++)
        next_run[layer] = t->run_first;
    return ticket;
}

/* Each (D incarnation, slot, generation) is accepted once; a duplicate, and one that a Cancel
 * burnt, is dropped. A Ticket before its Prefill is held. */
static void on_ticket(bt_prefill_core *core, uint32_t peer, const bt_msg *msg)
{
    const bt_fence *fence = &msg->fence;
    p_peer *p = &core->peers[peer];
    p_slot *slot = bt_pcore_slot(core, p->arena, fence->slot);
    uint32_t request =
        msg->ticket.probe ? probe_of(core, peer) : bt_pcore_request_find(core, &fence->request);
    bool stale = fence->generation <= slot->generation && !bt_mutate_no_fence_check() &&
                 !bt_mutate_no_generation_check();
    bool dead =
        msg->ticket.probe
            ? request == NONE
            : fence->attempt <= bt_attempts_seen(core->dead, &fence->request, core->now_ns) ||
                  (request != NONE && fence->attempt < core->requests[request].fence.attempt) ||
                  (request != NONE && fence->attempt == core->requests[request].fence.attempt &&
                   !names_same(&core->requests[request].fence, fence));
    if (stale || dead || !ticket_plausible(core, p, msg)) {
        bt_pcore_stale(core);
        return;
    }
    uint32_t ticket = ticket_take(core, peer, msg);
    if (ticket == NONE) {
        /* Full: the lease at D ends the grant. */
        bt_pcore_stale(core);
        core->stats.tickets_dropped_total++;
        return;
    }
    if (slot->ticket != NONE) ticket_drop_counted(core, slot->ticket);
    slot->generation = fence->generation;
    slot->ticket = ticket;
    if (core->tickets[ticket].runs_per_cell == 0) {
        ticket_drop_counted(core, ticket); /* no run fits a cell: pairing should have said so */
        return;
    }
    if (request != NONE && (msg->ticket.probe || names_same(&core->requests[request].fence, fence)))
        join(core, request, ticket);
}

static void send_quiesced(bt_prefill_core *core, uint32_t peer, const bt_fence *fence)
{
    bt_msg msg = {.kind = BT_MSG_QUIESCED, .fence = *fence};
    core->io.send_peer(core->io.ctx, peer, &msg);
}

void bt_pcore_slot_settle(bt_prefill_core *core, uint32_t peer, uint32_t slot)
{
    p_slot *s = bt_pcore_slot(core, core->peers[peer].arena, slot);
    bool quiet = s->in_flight == 0 && !s->in_doubt; /* H1 */
    if (!s->owed || (!quiet && !bt_mutate_no_quiesce_wait())) return;
    s->owed = false;
    send_quiesced(core, peer, &s->owed_fence);
}

/* Cancel(fence) or Refused(fence) of D: the generation is burnt even if its Ticket never came, and
 * Quiesced is owed until no put of it can be in flight (H1). */
static void quiesce(bt_prefill_core *core, uint32_t peer, const bt_fence *fence)
{
    p_slot *slot = bt_pcore_slot(core, core->peers[peer].arena, fence->slot);
    if (slot->ticket != NONE &&
        (bt_mutate_no_fence_check() || bt_fence_equal(&core->tickets[slot->ticket].fence, fence)))
        ticket_drop_counted(core, slot->ticket);
    if (fence->generation > slot->generation) slot->generation = fence->generation;
    slot->owed = true;
    slot->owed_fence = *fence;
    bt_pcore_slot_settle(core, peer, fence->slot);
}

/* The ticket this fence names, or NONE. */
static uint32_t current(bt_prefill_core *core, uint32_t peer, const bt_fence *fence)
{
    const p_slot *slot = bt_pcore_slot(core, core->peers[peer].arena, fence->slot);
    if (slot->ticket == NONE) return NONE;
    const p_ticket *t = &core->tickets[slot->ticket];
    if (t->request == NONE) return NONE;
    bool same = bt_fence_equal(&t->fence, fence) || bt_mutate_no_fence_check();
    return same ? slot->ticket : NONE;
}

static void on_refused(bt_prefill_core *core, uint32_t peer, const bt_msg *msg)
{
    uint32_t ticket = current(core, peer, &msg->fence);
    uint32_t request = ticket == NONE ? NONE : core->tickets[ticket].request;
    quiesce(core, peer, &msg->fence);
    if (request == NONE || core->requests[request].probe_peer == NONE || msg->refused.retry) return;
    char text[BT_REASON_BYTES_MAX];
    memcpy(text, msg->refused.text, sizeof(text));
    text[sizeof(text) - 1] = '\0';
    bt_pcore_request_end(core, request);
    bool verdict = msg->refused.reason == BT_REFUSE_INCOMPATIBLE;
    bt_pcore_probe_end(core, peer, verdict ? BT_PROBE_REFUSED : BT_PROBE_FAILED,
                       text[0] != '\0' ? text : "probe: refused by the peer");
}

static void on_accepted(bt_prefill_core *core, uint32_t peer, const bt_fence *fence)
{
    uint32_t ticket = current(core, peer, fence);
    if (ticket == NONE || !core->tickets[ticket].manifest_sent) {
        bt_pcore_stale(core);
        return;
    }
    uint32_t request = core->tickets[ticket].request;
    bool probe = core->requests[request].probe_peer != NONE;
    bt_pcore_request_end(core, request);
    if (probe) bt_pcore_probe_end(core, peer, BT_PROBE_READY, "");
}

static void on_credit(bt_prefill_core *core, uint32_t peer, const bt_msg *msg)
{
    uint32_t ticket = current(core, peer, &msg->fence);
    if (ticket == NONE || msg->credit.cell >= core->peers[peer].info.cell_count) {
        bt_pcore_stale(core);
        return;
    }
    core->tickets[ticket].cells_free |= 1u << msg->credit.cell;
}

void bt_pcore_peer_message(bt_prefill_core *core, uint32_t peer, const bt_msg *msg)
{
    const p_peer *p = &core->peers[peer];
    const bt_fence *fence = &msg->fence;
    if (!p->up || fence->p_incarnation != core->config.incarnation ||
        fence->d_incarnation != p->info.d_incarnation || fence->slot >= p->info.slot_count ||
        fence->generation == 0) {
        bt_pcore_stale(core);
        return;
    }
    switch (msg->kind) {
    case BT_MSG_TICKET: on_ticket(core, peer, msg); break;
    case BT_MSG_CREDIT: on_credit(core, peer, msg); break;
    case BT_MSG_CANCEL: quiesce(core, peer, fence); break;
    case BT_MSG_REFUSED: on_refused(core, peer, msg); break;
    case BT_MSG_ACCEPTED: on_accepted(core, peer, fence); break;
    default: bt_pcore_stale(core); break;
    }
}

/* LEASE_RENEW while a grant waits for us (H3); held tickets that nobody came for end. */
void bt_pcore_tickets_tick(bt_prefill_core *core)
{
    for (uint32_t i = 0; i < core->ticket_count; i++) {
        p_ticket *t = &core->tickets[i];
        if (!t->used) continue;
        if (t->request == NONE && core->now_ns >= t->expires_ns) {
            core->stats.leases_ended_total++;
            ticket_drop_counted(core, i);
        } else if (t->request != NONE && !t->manifest_sent && core->now_ns >= t->renew_ns) {
            t->renew_ns = core->now_ns + t->renew_every_ns;
            bt_msg msg = {.kind = BT_MSG_LEASE_RENEW, .fence = t->fence};
            if (!bt_mutate_no_lease_renew()) core->io.send_peer(core->io.ctx, t->peer, &msg);
        }
    }
}
