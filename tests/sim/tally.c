/* tally.c - what the worlds met: how often each kind of message met each fault, and how often the corners of the handoff were
 * reached. What stands at 0 is not tested, whatever the checkers say. */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* clang-format off */
static const char *const fault_names[FAULT_COUNT] = {
    [FAULT_SENT] = "sent", [FAULT_LOST] = "lost", [FAULT_DOUBLED] = "doubled", [FAULT_REORDERED] = "reordered",
    [FAULT_SLOW] = "slow", [FAULT_SUCCESSOR] = "successor", [FAULT_FROZEN] = "frozen",
};

static const char *const corner_names[CORNER_COUNT] = {
    [CORNER_QUIESCED_OWED] = "Quiesced waited for a put in flight (H1)",
    [CORNER_LATE_LANDING] = "a put landed in a quarantined slot (H1)",
    [CORNER_PUT_FAILED] = "a put failed and landed all the same (H1)",
    [CORNER_IN_DOUBT] = "a slot stayed in quarantine for a put in doubt (H1)",
    [CORNER_SHARE_FULL] = "a peer's share of quarantine was full (H3)",
    [CORNER_LEASE_P] = "a lease ended at P (H3)",
    [CORNER_LEASE_D] = "a lease ended at D (H3)",
    [CORNER_ROUTER_SILENT] = "the router's heartbeats stopped (H3)",
    [CORNER_ROUTER_RESTART] = "the router was started again with work in flight (H3)",
    [CORNER_OLD_ROUTER] = "a message of an old router incarnation came (H3)",
    [CORNER_GAP] = "a token came beyond a gap (H5)",
    [CORNER_FINISHED_GAP] = "Finished came with a gap (H5)",
    [CORNER_CONTINUED] = "an attempt began with committed tokens (H5)",
    [CORNER_DRAIN_REFUSED] = "a draining daemon refused (H7)",
    [CORNER_DRAINED] = "a daemon drained with work and left (H7)",
    [CORNER_DRAIN_RETARGET] = "a draining P was retargeted (H7)",
    [CORNER_FULL] = "a daemon said that it is full (H8)",
    [CORNER_NO_RESERVE] = "one token: no Reserve (H8)",
    [CORNER_HELD_TICKET] = "a Ticket came before its Prefill or Retarget",
    [CORNER_TOMBSTONE] = "a Prefill, Reserve or Ticket came after its Cancel",
    [CORNER_PUSHED_AGAIN] = "bad frames, pushed again, accepted",
    [CORNER_DIGEST_FINAL] = "bad frames twice: final",
    [CORNER_RETARGETED] = "a retargeted attempt was accepted",
    [CORNER_RETARGET_UNKNOWN] = "Retarget of KV that is gone",
    [CORNER_CACHED_P] = "P had a part of the prompt",
    [CORNER_CACHED_D] = "D had a part of the prompt",
    [CORNER_CACHED_ALL] = "D had all of the prompt: a handoff without frames",
    [CORNER_CREDITS] = "more frames than cells: credits counted",
    [CORNER_ENGINE_FAILED] = "the engine failed a batch",
    [CORNER_BROKEN_LOGITS] = "the engine failed one sequence of a batch",
    [CORNER_CONTINUED_PENALTIES] = "an attempt with penalties began with committed tokens (H5)",
    [CORNER_CONTINUED_MIN_TOKENS] = "an attempt began below its min_tokens, with committed tokens (H5)",
    [CORNER_STOP_ID] = "a stop id ended a request",
    [CORNER_SCORES_LOST] = "a FirstToken came before all logprobs of the prompt",
    [CORNER_SCORES_AGAIN] = "logprobs of the prompt came again",
    [CORNER_AGAIN] = "the engine or the lane said AGAIN",
    [CORNER_LOCAL] = "a prompt that D computed itself was accepted",
    [CORNER_LOCAL_CHUNKS] = "… in several chunks",
    [CORNER_LOCAL_CACHED] = "… of which D had a part",
    [CORNER_LOCAL_CANCELLED] = "… cancelled while D computed it",
    [CORNER_LOCAL_RETRIED] = "an attempt through P followed one without",
    [CORNER_LOCAL_CONTINUED] = "… and without P followed one through P (H5)",
    [CORNER_LOCAL_ALONE] = "D computed a prompt, no P being up",
};
/* clang-format on */

void tally_message(world *w, bt_msg_kind kind, sim_fault fault)
{
    w->tally.messages[kind][fault]++;
}

void tally_corner(world *w, sim_corner corner)
{
    w->tally.corners[corner]++;
}

static int request_of(const world *w, const bt_fence *fence)
{
    for (uint32_t i = 0; i < w->sc.requests; i++)
        if (bt_request_id_equal(&w->requests[i].id, &fence->request)) return (int)i;
    return -1;
}

static void sent_by_prefill(world *w, const bt_msg *msg)
{
    if (msg->kind == BT_MSG_QUIESCED && w->event == EV_PUT_DONE)
        tally_corner(w, CORNER_QUIESCED_OWED);
    if (msg->kind == BT_MSG_FIRST_TOKEN && msg->first_token.cached_tokens > 0)
        tally_corner(w, CORNER_CACHED_P);
    if (msg->kind == BT_MSG_MANIFEST && msg->manifest.frame_count > SIM_CELLS)
        tally_corner(w, CORNER_CREDITS);
    if (msg->kind == BT_MSG_MANIFEST && msg->manifest.frame_count == 0)
        tally_corner(w, CORNER_CACHED_ALL);
}

static void sent_by_decode(world *w, uint32_t from, uint32_t to, const bt_msg *msg)
{
    int request = request_of(w, &msg->fence);
    if (request < 0) return;
    if (msg->kind == BT_MSG_TICKET && msg->ticket.run_first > 0) tally_corner(w, CORNER_CACHED_D);
    uint32_t *pushed = &w->pushed_again[request][from];
    uint32_t *retargeted = &w->retargeted[request];
    if (msg->kind == BT_MSG_REFUSED && msg->refused.retry) *pushed = msg->fence.attempt;
    if (to != SIM_ROUTER) return;
    bool local = msg->fence.p_incarnation == 0;
    if (msg->kind == BT_MSG_ACCEPTED && local) {
        uint32_t cached = msg->accepted.cached_tokens;
        tally_corner(w, CORNER_LOCAL);
        if (cached > 0) tally_corner(w, CORNER_LOCAL_CACHED);
        if (w->requests[request].prompt_count - cached > w->sc.local_chunk)
            tally_corner(w, CORNER_LOCAL_CHUNKS);
    }
    if (msg->kind == BT_MSG_ACCEPTED && *pushed == msg->fence.attempt)
        tally_corner(w, CORNER_PUSHED_AGAIN);
    if (msg->kind == BT_MSG_ACCEPTED && *retargeted == msg->fence.attempt)
        tally_corner(w, CORNER_RETARGETED);
    if (msg->kind == BT_MSG_REFUSED &&
        (msg->refused.reason == BT_REFUSE_DIGEST || msg->refused.reason == BT_REFUSE_MISSING))
        tally_corner(w, CORNER_DIGEST_FINAL);
}

static void refused(world *w, const bt_msg *msg)
{
    switch (msg->refused.reason) {
    case BT_REFUSE_FULL: tally_corner(w, CORNER_FULL); break;
    case BT_REFUSE_DRAINING: tally_corner(w, CORNER_DRAIN_REFUSED); break;
    case BT_REFUSE_UNKNOWN: tally_corner(w, CORNER_RETARGET_UNKNOWN); break;
    case BT_REFUSE_ENGINE:
        tally_corner(w, strstr(msg->refused.text, "not finite") != NULL ? CORNER_BROKEN_LOGITS
                                                                        : CORNER_ENGINE_FAILED);
        break;
    default: break;
    }
    if (strstr(msg->refused.text, "in quarantine") != NULL) tally_corner(w, CORNER_SHARE_FULL);
    if (strstr(msg->refused.text, "heartbeats") != NULL) tally_corner(w, CORNER_ROUTER_SILENT);
}

/* A Prefill, or a Reserve of either kind. */
static void sent_attempt(world *w, const bt_msg *msg)
{
    int request = request_of(w, &msg->fence);
    if (request < 0) return;
    bool *was_local = &w->was_local[request];
    bool local = msg->kind == BT_MSG_RESERVE && msg->reserve.local;
    bool first = msg->fence.attempt == 1;
    if (!first && *was_local && !local) tally_corner(w, CORNER_LOCAL_RETRIED);
    if (!first && !*was_local && local) tally_corner(w, CORNER_LOCAL_CONTINUED);
    if (local && !bt_router_core_paired(w->router)) tally_corner(w, CORNER_LOCAL_ALONE);
    *was_local = local;
}

static void sent_by_router(world *w, const bt_msg *msg)
{
    if (msg->kind == BT_MSG_PREFILL || msg->kind == BT_MSG_RESERVE) sent_attempt(w, msg);
    if (msg->kind == BT_MSG_PREFILL && msg->prefill.base > 0) {
        tally_corner(w, CORNER_CONTINUED);
        if (bt_sampling_needs_history(&msg->prefill.sampling))
            tally_corner(w, CORNER_CONTINUED_PENALTIES);
        if (msg->prefill.base < msg->prefill.sampling.min_tokens)
            tally_corner(w, CORNER_CONTINUED_MIN_TOKENS);
    }
    if (msg->kind == BT_MSG_PREFILL && msg->prefill.no_reserve) tally_corner(w, CORNER_NO_RESERVE);
    int request = request_of(w, &msg->fence);
    if (msg->kind == BT_MSG_RETARGET && request >= 0) w->retargeted[request] = msg->fence.attempt;
}

void tally_sent(world *w, uint32_t from, uint32_t to, const bt_msg *msg)
{
    tally_message(w, msg->kind, FAULT_SENT);
    if (msg->kind == BT_MSG_REFUSED && to == SIM_ROUTER) refused(w, msg);
    if (from == SIM_ROUTER)
        sent_by_router(w, msg);
    else if (w->nodes[from].role == BT_ROLE_PREFILL)
        sent_by_prefill(w, msg);
    else
        sent_by_decode(w, from, to, msg);
}

void tally_delivered(world *w, const sim_node *node, const bt_msg *msg)
{
    int request = request_of(w, &msg->fence);
    if (request < 0) return;
    bool of_router = msg->fence.generation == 0;
    uint32_t *cancelled = &w->cancelled[request][node->index];
    uint32_t *reached = &w->reached[request][node->index];
    switch (msg->kind) {
    case BT_MSG_CANCEL:
        if (of_router && msg->fence.p_incarnation == 0 && w->requests[request].got_count == 0)
            tally_corner(w, CORNER_LOCAL_CANCELLED);
        if (of_router && msg->fence.attempt > *cancelled) *cancelled = msg->fence.attempt;
        break;
    case BT_MSG_PREFILL:
    case BT_MSG_RESERVE:
    case BT_MSG_RETARGET:
        if (msg->fence.attempt <= *cancelled) tally_corner(w, CORNER_TOMBSTONE);
        if (msg->kind == BT_MSG_RETARGET && node->draining) tally_corner(w, CORNER_DRAIN_RETARGET);
        break;
    case BT_MSG_TICKET:
        if (msg->fence.attempt <= *cancelled)
            tally_corner(w, CORNER_TOMBSTONE);
        else if (msg->fence.attempt > *reached)
            tally_corner(w, CORNER_HELD_TICKET);
        break;
    default: break;
    }
}

void tally_to_router(world *w, const bt_msg *msg)
{
    int request = request_of(w, &msg->fence);
    if (request < 0) return;
    uint32_t got = w->requests[request].got_count, scored = w->requests[request].scored;
    bool missing = w->requests[request].score && scored + 1 < w->requests[request].prompt_count;
    if (msg->kind == BT_MSG_FIRST_TOKEN && missing) tally_corner(w, CORNER_SCORES_LOST);
    if (msg->kind == BT_MSG_PROMPT_LOGPROBS && msg->tokens.index <= scored)
        tally_corner(w, CORNER_SCORES_AGAIN);
    if (msg->kind == BT_MSG_TOKENS && msg->tokens.index > got) tally_corner(w, CORNER_GAP);
    if (msg->kind == BT_MSG_FINISHED && msg->finished.token_count > got)
        tally_corner(w, CORNER_FINISHED_GAP);
}

void tally_node_end(world *w, const sim_node *node)
{
    if (node->role == BT_ROLE_PREFILL) {
        bt_prefill_stats s;
        bt_prefill_core_stats(node->prefill, &s);
        w->tally.corners[CORNER_LEASE_P] += s.leases_ended_total;
    } else {
        bt_decode_stats s;
        bt_decode_core_stats(node->decode, &s);
        w->tally.corners[CORNER_LEASE_D] += s.leases_ended_total;
    }
}

void tally_add(sim_tally *sum, const sim_tally *tally)
{
    for (uint32_t k = 0; k < BT_MSG_KIND_END; k++)
        for (uint32_t f = 0; f < FAULT_COUNT; f++) sum->messages[k][f] += tally->messages[k][f];
    for (uint32_t c = 0; c < CORNER_COUNT; c++) sum->corners[c] += tally->corners[c];
}

/* The pairing exchange is one step here (node.c), so its messages are never sent. */
static bool in_the_world(uint32_t kind)
{
    return kind != BT_MSG_PAIR_HELLO && kind != BT_MSG_PAIR_ACCEPT && kind != BT_MSG_PAIR_REFUSE;
}

uint32_t tally_print(const sim_tally *tally)
{
    uint32_t holes = 0;
    printf("%-12s", "message");
    for (uint32_t f = 0; f < FAULT_COUNT; f++) printf(" %11s", fault_names[f]);
    putchar('\n');
    for (uint32_t k = 1; k < BT_MSG_KIND_END; k++) {
        if (!in_the_world(k)) continue;
        printf("%-12s", bt_msg_name(k));
        for (uint32_t f = 0; f < FAULT_COUNT; f++) {
            printf(" %11" PRIu64, tally->messages[k][f]);
            holes += tally->messages[k][f] == 0;
        }
        putchar('\n');
    }
    for (uint32_t c = 0; c < CORNER_COUNT; c++) {
        printf("%11" PRIu64 " %s\n", tally->corners[c], corner_names[c]);
        holes += tally->corners[c] == 0;
    }
    printf("%u holes\n", holes);
    return holes;
}
