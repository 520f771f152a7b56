/* check.c - the rules of HANDOFF as checks: H1 at each landing, H2 and H5 at each committed token, H4 at each ending, H8 at
 * each FirstToken and Manifest, conservation of blocks and slots and the leases of grants (H3) after every event, and that
 * nothing is held at the end. */
#include "tests/sim/world.h"

#include <string.h>

/* H1: no put hits a slot that is free or granted to another fence. */
void check_landing(world *w, sim_node *d, uint32_t slot, const bt_fence *fence)
{
    bt_fence now;
    bt_slot_state state = bt_decode_core_slot(d->decode, slot, &now);
    if (state == BT_SLOT_QUARANTINED) {
        tally_corner(w, CORNER_LATE_LANDING);
        return;
    }
    if (state == BT_SLOT_FREE) {
        world_fail(w,
                   "H1: a put of incarnation %llu generation %u lands in free slot %u of node %u",
                   (unsigned long long)fence->p_incarnation, fence->generation, slot, d->index);
    } else if (now.generation != fence->generation || now.p_incarnation != fence->p_incarnation) {
        world_fail(w,
                   "H1: a put of incarnation %llu generation %u lands in slot %u of node %u, "
                   "granted to %llu generation %u",
                   (unsigned long long)fence->p_incarnation, fence->generation, slot, d->index,
                   (unsigned long long)now.p_incarnation, now.generation);
    }
}

static int find_request(const world *w, const bt_request_id *id)
{
    for (uint32_t i = 0; i < w->sc.requests; i++) {
        if (bt_request_id_equal(&w->requests[i].id, id)) return (int)i;
    }
    return -1; /* the probe */
}

/* Each start of a daemon begins with a clean slate. */
void check_born(world *w, const sim_node *node)
{
    for (uint32_t i = 0; node->role == BT_ROLE_PREFILL && i < SIM_REQUESTS_MAX; i++)
        memset(&w->attempts[i][node->index], 0, sizeof(w->attempts[i][node->index]));
    memset(w->grants[node->index], 0, sizeof(w->grants[node->index]));
    memset(w->doubt[node->index], 0, sizeof(w->doubt[node->index]));
    for (uint32_t i = 0; i < SIM_REQUESTS_MAX; i++)
        w->reached[i][node->index] = w->before_drain[i][node->index] =
            w->cancelled[i][node->index] = w->pushed_again[i][node->index] = 0;
}

/* What came before a drain is finished, what comes after it is refused (H7). */
static void drain_news(world *w, const sim_node *node, const bt_msg *msg)
{
    int request = find_request(w, &msg->fence.request);
    if (request < 0 || msg->fence.generation != 0) return;
    uint32_t *reached = &w->reached[request][node->index];
    if (msg->fence.attempt > *reached) *reached = msg->fence.attempt;
    bool taken = !node->draining || msg->kind == BT_MSG_RETARGET;
    uint32_t *before = &w->before_drain[request][node->index];
    if (taken && msg->fence.attempt > *before) *before = msg->fence.attempt;
}

/* H7: a draining daemon works for nothing that came to it after the drain began. */
static void check_drained(world *w, uint32_t from, const bt_msg *msg)
{
    if (!w->nodes[from].draining) return;
    int request = find_request(w, &msg->fence.request);
    if (request >= 0 && msg->fence.attempt > w->before_drain[request][from])
        world_fail(w, "H7: node %u drains and sends a %s of request %02x attempt %u", from,
                   bt_msg_name(msg->kind), msg->fence.request.bytes[0], msg->fence.attempt);
}

static uint64_t attempt_bit(uint32_t attempt)
{
    return 1ull << (attempt < 64 ? attempt : 63);
}

/* What P was told of an attempt: it holds a ticket until D takes it back. */
static void ticket_news(world *w, uint32_t p, const bt_msg *msg)
{
    int request = find_request(w, &msg->fence.request);
    if (request < 0 || msg->fence.p_incarnation != w->nodes[p].incarnation) return;
    uint64_t bit = attempt_bit(msg->fence.attempt);
    if (msg->kind == BT_MSG_TICKET)
        w->attempts[request][p].tickets |= bit;
    else
        w->attempts[request][p].tickets &= ~bit;
}

/* What D was told of a grant: any of these extends its lease. */
static void lease_news(world *w, uint32_t d, const bt_msg *msg)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        bool all = msg->kind == BT_MSG_RENEW;
        if (all || msg->fence.slot == slot) w->grants[d][slot].renewed_ns = w->now_ns;
    }
}

void check_delivered(world *w, sim_node *node, const bt_msg *msg)
{
    tally_delivered(w, node, msg);
    switch (msg->kind) {
    case BT_MSG_PREFILL:
    case BT_MSG_RESERVE:
    case BT_MSG_RETARGET: drain_news(w, node, msg); break;
    case BT_MSG_TICKET:
    case BT_MSG_REFUSED:
    case BT_MSG_CANCEL:
        if (node->role == BT_ROLE_PREFILL && msg->fence.generation != 0)
            ticket_news(w, node->index, msg);
        break;
    case BT_MSG_RENEW:
    case BT_MSG_LEASE_RENEW:
    case BT_MSG_SEALED:
        if (node->role == BT_ROLE_DECODE) lease_news(w, node->index, msg);
        break;
    default: break;
    }
}

/* H8: a FirstToken that does not end the request needs this attempt's ticket; and it goes before the Manifest. */
void check_sent(world *w, uint32_t from, uint32_t to, const bt_msg *msg)
{
    (void)to;
    if (msg->kind == BT_MSG_REFUSED && msg->refused.reason == BT_REFUSE_DIGEST)
        w->refused_digests++;
    if (from != SIM_ROUTER && (msg->kind == BT_MSG_TICKET || msg->kind == BT_MSG_FIRST_TOKEN ||
                               msg->kind == BT_MSG_PINNED || msg->kind == BT_MSG_TOKENS ||
                               msg->kind == BT_MSG_PROMPT_LOGPROBS))
        check_drained(w, from, msg);
    if (from == SIM_ROUTER || w->nodes[from].role != BT_ROLE_PREFILL) return;
    if (msg->kind != BT_MSG_FIRST_TOKEN && msg->kind != BT_MSG_MANIFEST) return;
    if (msg->fence.p_incarnation != w->nodes[from].incarnation)
        world_fail(w, "node %u names incarnation %llu in a %s", from,
                   (unsigned long long)msg->fence.p_incarnation, bt_msg_name(msg->kind));
    int request = find_request(w, &msg->fence.request);
    if (request < 0) return;
    uint64_t bit = attempt_bit(msg->fence.attempt);
    if (msg->kind == BT_MSG_MANIFEST) {
        if (!(w->attempts[request][from].firsts & bit))
            world_fail(
                w,
                "H8: node %u sends the Manifest of request %02x attempt %u before its FirstToken",
                from, msg->fence.request.bytes[0], msg->fence.attempt);
        return;
    }
    if (!msg->first_token.final && !(w->attempts[request][from].tickets & bit))
        world_fail(w,
                   "H8: node %u sends the FirstToken of request %02x attempt %u without its ticket",
                   from, msg->fence.request.bytes[0], msg->fence.attempt);
    w->attempts[request][from].firsts |= bit;
}

/* H3: no grant outlives its lease by more than a second. A stopped daemon is looked at once it goes on. */
static void check_leases(world *w, const sim_node *node)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        bt_fence fence;
        bool granted = bt_decode_core_slot(node->decode, slot, &fence) == BT_SLOT_GRANTED;
        bool known = granted && w->grants[node->index][slot].generation == fence.generation &&
                     w->grants[node->index][slot].p_incarnation == fence.p_incarnation;
        if (!granted) continue;
        if (!known || node->frozen_until_ns + 100 * MS > w->now_ns) {
            w->grants[node->index][slot].generation = fence.generation;
            w->grants[node->index][slot].p_incarnation = fence.p_incarnation;
            w->grants[node->index][slot].renewed_ns = w->now_ns;
        }
        if (w->now_ns - w->grants[node->index][slot].renewed_ns > sim_lease_ns(&w->sc) + 1 * SEC)
            world_fail(w,
                       "H3: slot %u of node %u is granted to generation %u, unrenewed for %.1f s",
                       slot, node->index, fence.generation,
                       (double)(w->now_ns - w->grants[node->index][slot].renewed_ns) / 1e9);
    }
}

/* H2, H5: every committed token is the one an undisturbed run commits, once, in order. */
void check_token(world *w, sim_request *request, uint32_t index, uint32_t id)
{
    if (request->endings > 0 || request->orphaned) world_fail(w, "H4: a token after the end");
    if (request->score && request->scored + 1 < request->prompt_count)
        world_fail(w, "H5: token %u is committed before the logprobs of the prompt", index);
    if (index != request->got_count) {
        world_fail(w, "H5: token %u committed, %u expected next", index, request->got_count);
    } else if (index >= request->expected_count) {
        world_fail(w, "H5: token %u is beyond the end of the request (%u)", index,
                   request->expected_count);
    } else if (request->expected[index] != id) {
        world_fail(w, "H2: request %02x token %u is %u, an undisturbed run says %u",
                   request->id.bytes[0], index, id, request->expected[index]);
    }
    request->got_count++;
}

/* The prompt's logprobs are those of an undisturbed run, each once, in order, before any token. */
void check_scores(world *w, sim_request *request, uint32_t index, const bt_token *tokens,
                  uint32_t token_count)
{
    if (!request->score || request->got_count > 0 || request->endings > 0)
        world_fail(w, "H4: logprobs of the prompt of request %02x at the wrong time",
                   request->id.bytes[0]);
    if (index != request->scored + 1 || index + token_count > request->prompt_count)
        world_fail(w, "H5: logprobs of prompt tokens %u to %u, %u expected next", index,
                   index + token_count - 1, request->scored + 1);
    for (uint32_t i = 0; i < token_count && !w->failed; i++)
        if (tokens[i].id != request->prompt[index + i] ||
            tokens[i].logprob != request->expected_scores[index + i])
            world_fail(w, "H2: request %02x: the logprob of prompt token %u is %g, not %g",
                       request->id.bytes[0], index + i, (double)tokens[i].logprob,
                       (double)request->expected_scores[index + i]);
    request->scored += token_count;
}

void check_ended(world *w, sim_request *request, const bt_router_end *end)
{
    if (++request->endings > 1) world_fail(w, "H4: request %02x ended twice", request->id.bytes[0]);
    request->reason = end->reason;
    if (end->output_tokens != request->got_count)
        world_fail(w, "H5: usage says %u tokens, %u were committed", end->output_tokens,
                   request->got_count);
    bool complete = end->reason == BT_FINISH_STOP || end->reason == BT_FINISH_LENGTH;
    if (complete && request->got_count != request->expected_count)
        world_fail(w, "H4: finished after %u of %u tokens", request->got_count,
                   request->expected_count);
    if (end->reason == BT_FINISH_FAILED && scenario_undisturbed(&w->sc))
        world_fail(w, "H4: request %02x failed in an undisturbed world: %s", request->id.bytes[0],
                   end->text);
}

static void check_node(world *w, const sim_node *node)
{
    if (node->role == BT_ROLE_PREFILL) {
        bt_prefill_stats s;
        bt_prefill_core_stats(node->prefill, &s);
        if (s.blocks_free + s.blocks_cached + s.blocks_held + s.blocks_quarantined !=
            w->sc.p_blocks)
            world_fail(w,
                       "node %u: %u free + %u cached + %u held + %u quarantined blocks are not %u",
                       node->index, s.blocks_free, s.blocks_cached, s.blocks_held,
                       s.blocks_quarantined, w->sc.p_blocks);
        return;
    }
    bt_decode_stats s;
    bt_decode_core_stats(node->decode, &s);
    uint32_t probe = (BT_RUN_TOKENS + w->sc.d_block_tokens - 1) / w->sc.d_block_tokens;
    if (s.blocks_free + s.blocks_cached + s.blocks_held + s.blocks_quarantined + probe !=
        w->sc.d_blocks)
        world_fail(w, "node %u: %u free + %u cached + %u held + %u probe blocks are not %u",
                   node->index, s.blocks_free, s.blocks_cached, s.blocks_held, probe,
                   w->sc.d_blocks);
    if (s.slots_free + s.slots_held + s.slots_quarantined != SIM_SLOTS)
        world_fail(w, "node %u: %u free + %u held + %u quarantined slots are not %u", node->index,
                   s.slots_free, s.slots_held, s.slots_quarantined, SIM_SLOTS);
}

void check_after_event(world *w)
{
    for (uint32_t i = 0; i < SIM_NODES_MAX && !w->failed; i++) {
        if (!w->nodes[i].up) continue;
        check_node(w, &w->nodes[i]);
        if (w->nodes[i].role == BT_ROLE_DECODE) check_leases(w, &w->nodes[i]);
    }
}

/* Slots that only P's death may free: a put into them failed (H1). */
static uint32_t slots_in_doubt(world *w, const sim_node *node)
{
    uint32_t count = 0;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        bt_fence fence;
        if (bt_decode_core_slot(node->decode, slot, &fence) != BT_SLOT_QUARANTINED) continue;
        if (w->doubt[node->index][slot] != fence.p_incarnation) continue;
        tally_corner(w, CORNER_IN_DOUBT);
        count++;
    }
    return count;
}

/* H3: long after the last request ended nothing is held anywhere. */
void check_final(world *w)
{
    for (uint32_t i = 0; i < w->sc.requests; i++) {
        const sim_request *request = &w->requests[i];
        if (!request->refused && request->endings != 1)
            world_fail(w, "H4: request %02x has %u endings", request->id.bytes[0],
                       request->endings);
    }
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++) {
        sim_node *node = &w->nodes[i];
        if (!node->up) continue;
        tally_node_end(w, node);
        if (node->role == BT_ROLE_PREFILL) {
            bt_prefill_stats s;
            bt_prefill_core_stats(node->prefill, &s);
            w->stale += s.stale_total;
            if (s.blocks_held + s.blocks_quarantined + s.running + s.waiting != 0)
                world_fail(
                    w, "H3: idle node %u holds %u blocks, %u quarantined, %u running, %u waiting",
                    i, s.blocks_held, s.blocks_quarantined, s.running, s.waiting);
        } else {
            bt_decode_stats s;
            bt_decode_core_stats(node->decode, &s);
            w->stale += s.stale_total;
            w->quarantines += s.quarantines_total;
            if (s.blocks_held + s.blocks_quarantined + s.slots_held + s.slots_quarantined +
                    s.running + s.waiting !=
                slots_in_doubt(w, node))
                world_fail(w,
                           "H3: idle node %u holds %u blocks, %u slots, %u quarantined, %u "
                           "running, %u waiting",
                           i, s.blocks_held, s.slots_held, s.slots_quarantined, s.running,
                           s.waiting);
        }
    }
    bt_router_stats stats;
    bt_router_core_stats(w->router, &stats);
    if (stats.requests != 0) world_fail(w, "H4: the router still has %u requests", stats.requests);
}
