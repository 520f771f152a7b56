/* core_puts.c - frames of the prefill core: which are final, packed and put, sealed. */
#include "common/kv/mutate.h"
#include "prefilld/core_state.h"

#include <assert.h>

#define RETRY_NS 200000u /* after io.put said AGAIN */

/* Tokens of the request whose KV is final in this layer: those of finished batches, and of the
 * batch in flight once it is past the layer. */
static uint32_t tokens_final(const bt_prefill_core *core, const p_request *r, uint32_t layer)
{
    if (r->chunk > 0 && layer < core->batch.layers_done) return r->computed + r->chunk;
    return r->computed;
}

/* Runs that may be sent: whole ones, and the partial one at the prompt's end. */
static uint32_t runs_final(const bt_prefill_core *core, const p_request *r, uint32_t layer)
{
    uint32_t tokens = tokens_final(core, r, layer);
    return tokens == r->token_count ? bt_pcore_runs(tokens) : tokens / BT_RUN_TOKENS;
}

bool bt_pcore_all_sealed(const bt_prefill_core *core, const p_request *request,
                         const p_ticket *ticket)
{
    uint32_t runs = bt_pcore_runs(request->token_count);
    for (uint32_t layer = 0; layer < core->config.kv.layers; layer++)
        if (ticket->next_run[layer] < runs) return false;
    return ticket->frames_sealed == ticket->frames_put;
}

static uint32_t staging_free(const bt_prefill_core *core)
{
    for (uint32_t i = 0; i < core->config.staging_count; i++)
        if (!core->puts[i].busy) return i;
    return NONE;
}

static void put_record(bt_prefill_core *core, uint32_t staging, const bt_prefill_put *put,
                       uint32_t ticket, const bt_kv_digest *digest)
{
    p_ticket *t = &core->tickets[ticket];
    uint32_t arena = core->peers[t->peer].arena;
    core->puts[staging] = (p_put){.busy = true,
                                  .tag = put->tag,
                                  .request = t->request,
                                  .ticket = ticket,
                                  .peer = t->peer,
                                  .arena = arena,
                                  .fence = t->fence,
                                  .frame = put->frame,
                                  .digest = *digest};
    t->cells_free &= ~(1u << put->frame.cell);
    t->next_run[put->frame.layer] = put->frame.run_first + put->frame.run_count;
    t->frames_put++;
    t->sum.lane[0] += digest->lane[0];
    t->sum.lane[1] += digest->lane[1];
    core->requests[t->request].puts++;
    bt_pcore_slot(core, arena, t->fence.slot)->in_flight++;
    core->arenas[arena].in_flight++;
    core->stats.frames_total++;
    core->stats.frame_bytes_total +=
        bt_wire_frame_bytes(&t->wire, put->frame.run_count, put->frame.head_count);
}

/* Puts the next frame of this layer. AGAIN: no frame, cell or staging piece, or io is full. */
static bt_status put_next(bt_prefill_core *core, uint32_t ticket, uint32_t layer)
{
    p_ticket *t = &core->tickets[ticket];
    const p_request *r = &core->requests[t->request];
    uint32_t ready = runs_final(core, r, layer), first = t->next_run[layer];
    if (first >= ready) return BT_OK;
    uint32_t staging = staging_free(core);
    if (staging == NONE || t->cells_free == 0) return BT_AGAIN;
    uint32_t count = ready - first < t->runs_per_cell ? ready - first : t->runs_per_cell;
    uint64_t token_end = (uint64_t)(first + count) * BT_RUN_TOKENS;
    bt_prefill_put put = {
        .tag = (core->serial++ << 16) | staging,
        .peer = t->peer,
        .request = t->fence.request,
        .slot = t->fence.slot,
        .generation = t->fence.generation,
        .staging = staging,
        .wire = t->wire,
        .frame = {.frame = t->frames_put,
                  .cell = (uint32_t)__builtin_ctz(t->cells_free),
                  .layer = layer,
                  .run_first = first,
                  .run_count = count,
                  .head_first = 0,
                  .head_count = core->config.kv.kv_heads,
                  .token_end = token_end < r->token_count ? (uint32_t)token_end : r->token_count},
        .blocks = r->blocks};
    bt_kv_digest digest;
    bt_status status = core->io.put(core->io.ctx, &put, &digest);
    if (status == BT_OK) {
        put_record(core, staging, &put, ticket, &digest);
        return BT_IN_PROGRESS;
    }
    if (status > 0) core->retry_ns = core->now_ns + RETRY_NS;
    return status;
}

static void pump_ticket(bt_prefill_core *core, uint32_t ticket)
{
    for (uint32_t layer = 0; layer < core->config.kv.layers; layer++) {
        bt_status status;
        do {
            status = put_next(core, ticket, layer);
        } while (status == BT_IN_PROGRESS);
        if (status == BT_OK) continue;
        if (status < 0) {
            /* The lane is broken: D's Cancel or the pair's end settles the slot. */
            core->stats.tickets_dropped_total++;
            bt_pcore_ticket_drop(core, ticket);
        }
        return;
    }
}

/* Oldest request first, so that handoffs end one after the other. */
void bt_pcore_puts_pump(bt_prefill_core *core)
{
    for (uint32_t i = 0; i < core->live_count && staging_free(core) != NONE; i++) {
        const p_request *r = &core->requests[core->live[i]];
        if (r->ticket == NONE || r->finish != BT_FINISH_NONE) continue;
        const p_ticket *t = &core->tickets[r->ticket];
        if (!t->manifest_sent && t->cells_free != 0) pump_ticket(core, r->ticket);
    }
}

static void seal(bt_prefill_core *core, const p_put *put)
{
    p_ticket *t = &core->tickets[put->ticket];
    if (!t->used || !bt_fence_equal(&t->fence, &put->fence)) return;
    t->frames_sealed++;
    bt_msg msg = {.kind = BT_MSG_SEALED, .fence = put->fence};
    msg.sealed.frame = put->frame;
    msg.sealed.digest = put->digest;
    core->io.send_peer(core->io.ctx, put->peer, &msg);
}

void bt_pcore_put_done(bt_prefill_core *core, uint64_t tag, bt_status status)
{
    uint32_t staging = bt_prefill_put_staging(tag);
    if (staging >= core->config.staging_count || !core->puts[staging].busy ||
        core->puts[staging].tag != tag) {
        bt_pcore_stale(core);
        return;
    }
    p_put put = core->puts[staging];
    core->puts[staging].busy = false;
    p_slot *slot = bt_pcore_slot(core, put.arena, put.fence.slot);
    assert(slot->in_flight > 0 && core->requests[put.request].puts > 0);
    slot->in_flight--;
    core->arenas[put.arena].in_flight--;
    core->requests[put.request].puts--;
    if (status != BT_OK && !bt_mutate_failed_is_quiet())
        slot->in_doubt = true; /* tearing its endpoint down proves nothing (H1) */
    if (status == BT_OK) {
        seal(core, &put);
    } else if (core->tickets[put.ticket].used &&
               bt_fence_equal(&core->tickets[put.ticket].fence, &put.fence)) {
        core->stats.tickets_dropped_total++;
        bt_pcore_ticket_drop(core, put.ticket);
    }
    if (core->peers[put.peer].up && core->peers[put.peer].arena == put.arena)
        bt_pcore_slot_settle(core, put.peer, put.fence.slot);
    bt_pcore_request_collect(core, put.request);
}
