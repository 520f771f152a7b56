/* core_frames.c - frames of the decode core: checked, verified, counted; the Manifest; Accepted
 * (H2: no sequence decodes before all of it). */
#include "common/kv/mutate.h"
#include "decoded/core_state.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void bt_dcore_arrival_reset(bt_decode_core *core, d_seq *seq)
{
    uint64_t *covered = seq->arrival.covered, *known = seq->arrival.known;
    memset(covered, 0, core->arrival_words * sizeof(covered[0]));
    memset(known, 0, core->arrival_words * sizeof(known[0]));
    seq->arrival = (d_arrival){.covered = covered, .known = known};
}

static bool bit_test(const uint64_t *bits, uint32_t bit)
{
    return bits[bit / 64] >> (bit % 64) & 1;
}

static void bit_set(uint64_t *bits, uint32_t bit)
{
    bits[bit / 64] |= (uint64_t)1 << (bit % 64);
}

static uint32_t runs_of_context(const bt_decode_core *core)
{
    return bt_dcore_runs(core->config.context_tokens_max);
}

/* A new Ticket once P puts no more and our own unpacks of the old frames are through. */
static void repush(bt_decode_core *core, uint32_t seq)
{
    const d_seq *s = &core->seqs[seq];
    if (s->repush && s->quiesced && s->unpacks == 0) bt_dcore_ticket_send(core, seq);
}

/* The first time P may push again, after its Quiesced; the second is final (HANDOFF). The frames
 * so far are forgotten either way. */
static void frames_refuse(bt_decode_core *core, uint32_t seq, bt_refuse_reason reason,
                          const char *text)
{
    d_seq *s = &core->seqs[seq];
    core->stats.frames_bad_total++;
    if (s->failures++ > 0) {
        bt_dcore_grant_fail(core, seq, reason, text);
        return;
    }
    bt_dcore_arrival_reset(core, s);
    s->repush = true;
    s->quiesced = bt_mutate_no_quiesce_wait();
    s->repeat_ns = core->now_ns + core->config.cancel_repeat_ns;
    bt_dcore_refuse_peer(core, &core->slots[s->slot], reason, true, text);
    repush(core, seq);
}

/* NULL if the frame is one that this grant still lacks. */
static const char *frame_fault(const bt_decode_core *core, const d_seq *s,
                               const bt_wire_shape *wire, const bt_frame *f)
{
    if (bt_wire_frame_check(wire, &core->config.kv, f, core->config.cell_count,
                            core->config.cell_bytes, NULL) != BT_OK)
        return "a frame is outside its cell or the model";
    if (f->head_first != 0 || f->head_count != core->config.kv.kv_heads)
        return "a frame lacks heads";
    if (f->run_first < s->run_first || f->run_first + f->run_count > s->run_count)
        return "a frame is outside the prompt";
    uint32_t end = (f->run_first + f->run_count) * BT_RUN_TOKENS;
    if (f->token_end != (end < s->token_count ? end : s->token_count))
        return "a frame's end is not the prompt's";
    if (core->cells[s->slot * BT_CELLS_MAX + f->cell].busy)
        return "a frame was put into a cell without credit";
    for (uint32_t r = f->run_first; r < f->run_first + f->run_count; r++)
        if (bit_test(s->arrival.covered, f->layer * runs_of_context(core) + r))
            return "a run was sent twice";
    return NULL;
}

/* What was pushed becomes findable for later prompts (K3). */
static void runs_seal(bt_decode_core *core, const d_seq *s)
{
    bt_sha256 name = s->root;
    for (uint32_t run = 0; run < s->token_count / BT_RUN_TOKENS; run++) {
        bt_kv_prefix_next(&name, s->tokens + (size_t)run * BT_RUN_TOKENS, BT_RUN_TOKENS, &name);
        bt_kv_prefix_insert(core->prefix, &name, s->blocks + (size_t)run * core->blocks_per_run);
    }
}

static void unpack_start(bt_decode_core *core, uint32_t seq, const bt_wire_shape *wire,
                         const bt_msg *msg)
{
    d_seq *s = &core->seqs[seq];
    const bt_frame *f = &msg->sealed.frame;
    uint32_t index = s->slot * BT_CELLS_MAX + f->cell;
    for (uint32_t r = f->run_first; r < f->run_first + f->run_count; r++)
        bit_set(s->arrival.covered, f->layer * runs_of_context(core) + r);
    s->arrival.covered_count += f->run_count;
    s->arrival.sealed_count++;
    s->unpacks++;
    core->slots[s->slot].unpacks++;
    core->cells[index] = (d_cell){.busy = true,
                                  .tag = (core->serial++ << 16) | index,
                                  .seq = seq,
                                  .fence = core->slots[s->slot].fence,
                                  .frame = *f,
                                  .digest = msg->sealed.digest};
    bt_decode_unpack unpack = {.tag = core->cells[index].tag,
                               .peer = s->peer,
                               .slot = s->slot,
                               .wire = *wire,
                               .frame = *f,
                               .blocks = s->blocks};
    core->stats.frames_total++;
    if (bt_mutate_early_publish() && !s->probe) runs_seal(core, s);
    core->io.unpack(core->io.ctx, &unpack);
}

static void on_sealed(bt_decode_core *core, uint32_t seq, const bt_msg *msg)
{
    d_seq *s = &core->seqs[seq];
    const bt_frame *f = &msg->sealed.frame;
    bt_wire_shape wire = {.dtype = core->peers[s->peer].info.wire,
                          .head_dim = core->config.kv.head_dim};
    if (s->repush || s->arrival.manifest_here) {
        bt_dcore_stale(core);
        return;
    }
    bt_dcore_lease_extend(core, s);
    uint32_t frames_max = core->config.kv.layers * runs_of_context(core);
    if (f->frame < frames_max && bit_test(s->arrival.known, f->frame)) {
        bt_dcore_stale(core); /* the same message twice */
        return;
    }
    const char *fault = f->frame < frames_max ? frame_fault(core, s, &wire, f)
                                              : "a frame's number is beyond the handoff";
    if (fault != NULL) {
        frames_refuse(core, seq, BT_REFUSE_DIGEST, fault);
        return;
    }
    bit_set(s->arrival.known, f->frame);
    unpack_start(core, seq, &wire, msg);
}

void bt_dcore_accepted_send(bt_decode_core *core, uint32_t seq)
{
    const d_seq *s = &core->seqs[seq];
    bt_msg msg = {.kind = BT_MSG_ACCEPTED};
    msg.accepted.cached_tokens = s->run_first * BT_RUN_TOKENS;
    if (!s->local) {
        const d_slot *slot = &core->slots[s->slot];
        msg.fence = slot->fence;
        core->io.send_peer(core->io.ctx, slot->peer, &msg);
    }
    if (s->probe) return;
    msg.fence = s->key;
    core->io.send_router(core->io.ctx, &msg);
}

/* Compares what P pushed with D's own KV of the same tokens: beyond the bound the weights differ.
 */
static void probe_judge(bt_decode_core *core, uint32_t seq)
{
    d_seq *s = &core->seqs[seq];
    uint32_t peer = s->peer;
    double error = 0, bound = 0;
    char where[BT_REASON_BYTES_MAX] = "", text[BT_REASON_BYTES_MAX];
    core->io.probe_distance(core->io.ctx, peer, core->probe_blocks, s->blocks, &error, &bound,
                            where);
    where[sizeof(where) - 1] = '\0';
    bool passed = error <= bound; /* false for NaN too */
    if (passed) {
        bt_dcore_accepted_send(core, seq);
    } else {
        snprintf(text, sizeof(text), "probe: %.100s error %.4g > bound %.4g", where, error, bound);
        bt_dcore_refuse_peer(core, &core->slots[s->slot], BT_REFUSE_INCOMPATIBLE, false, text);
    }
    bt_dcore_probe_settle(core, peer, passed);
    bt_dcore_slot_free(core, s->slot);
    bt_dcore_seq_leave(core, seq);
}

/* A complete Manifest is a Quiesced (H1): the slot is free. */
static void join(bt_decode_core *core, uint32_t seq)
{
    d_seq *s = &core->seqs[seq];
    bt_dcore_accepted_send(core, seq);
    bt_dcore_slot_free(core, s->slot);
    runs_seal(core, s);
    s->state = SEQ_DECODING;
    s->kv_count = s->token_count;
    s->stepped = core->serial++;
    bt_dcore_lease_extend(core, s);
    bt_token first = s->first_token;
    bt_dcore_token(core, seq, &first);
}

/* Accepts or refuses once the Manifest is here and every sealed frame is verified. */
static void judge(bt_decode_core *core, uint32_t seq)
{
    d_seq *s = &core->seqs[seq];
    const d_arrival *a = &s->arrival;
    if (s->repush || !a->manifest_here || a->verified_count < a->sealed_count) return;
    uint32_t wanted = core->config.kv.layers * (s->run_count - s->run_first);
    if (a->covered_count != wanted || a->sealed_count != a->manifest_frames) {
        frames_refuse(core, seq, BT_REFUSE_MISSING, "frames are missing at the Manifest");
    } else if (a->bad || memcmp(&a->sum, &a->manifest_sum, sizeof(a->sum)) != 0) {
        frames_refuse(core, seq, BT_REFUSE_DIGEST, "the Manifest contradicts the frames");
    } else if (s->probe) {
        probe_judge(core, seq);
    } else {
        join(core, seq);
    }
}

static void on_manifest(bt_decode_core *core, uint32_t seq, const bt_msg *msg)
{
    d_seq *s = &core->seqs[seq];
    d_arrival *a = &s->arrival;
    if (s->repush || a->manifest_here) {
        bt_dcore_stale(core);
        return;
    }
    a->manifest_here = true;
    a->manifest_frames = msg->manifest.frame_count;
    a->manifest_sum = msg->manifest.digest_sum;
    a->bad = msg->manifest.token_count != s->token_count || msg->manifest.base != s->base ||
             msg->manifest.first_token.id >= core->config.vocab ||
             memcmp(&msg->manifest.prefix_hash, &s->prefix_hash, sizeof(s->prefix_hash)) != 0;
    s->first_token = msg->manifest.first_token;
    bt_dcore_lease_extend(core, s);
    judge(core, seq);
}

void bt_dcore_unpack_done(bt_decode_core *core, uint64_t tag, const bt_kv_digest *digest)
{
    uint32_t index = (uint32_t)(tag & 0xffff);
    if (index >= core->config.slot_count * BT_CELLS_MAX || !core->cells[index].busy ||
        core->cells[index].tag != tag) {
        bt_dcore_stale(core);
        return;
    }
    d_cell cell = core->cells[index];
    core->cells[index].busy = false;
    d_slot *slot = &core->slots[cell.fence.slot];
    d_seq *s = &core->seqs[cell.seq];
    assert(slot->unpacks > 0 && s->unpacks > 0);
    slot->unpacks--;
    s->unpacks--;
    bt_dcore_seq_collect(core, cell.seq);
    if (slot->seq != cell.seq || !bt_fence_equal(&slot->fence, &cell.fence)) return;
    if (s->repush) {
        repush(core, cell.seq);
        return;
    }
    if (memcmp(digest, &cell.digest, sizeof(*digest)) != 0) {
        frames_refuse(core, cell.seq, BT_REFUSE_DIGEST, "a frame's digest does not agree");
        return;
    }
    s->arrival.verified_count++;
    s->arrival.sum.lane[0] += digest->lane[0];
    s->arrival.sum.lane[1] += digest->lane[1];
    bt_msg credit = {.kind = BT_MSG_CREDIT, .fence = cell.fence};
    credit.credit.cell = cell.frame.cell;
    if (!s->arrival.manifest_here) core->io.send_peer(core->io.ctx, slot->peer, &credit);
    judge(core, cell.seq);
}

static void on_quiesced(bt_decode_core *core, uint32_t slot)
{
    d_slot *l = &core->slots[slot];
    if (l->state == BT_SLOT_QUARANTINED) {
        bt_dcore_slot_free(core, slot);
        return;
    }
    d_seq *s = l->seq == NONE ? NULL : &core->seqs[l->seq];
    if (s == NULL || !s->repush) {
        bt_dcore_stale(core);
        return;
    }
    s->quiesced = true;
    repush(core, l->seq);
}

/* The first token ended the request, and P puts no more (H1). */
static void on_abandon(bt_decode_core *core, uint32_t slot)
{
    uint32_t seq = core->slots[slot].seq;
    uint32_t peer = core->slots[slot].peer;
    bt_dcore_slot_free(core, slot);
    if (seq == NONE) return;
    if (core->seqs[seq].probe) bt_dcore_probe_settle(core, peer, false);
    bt_dcore_seq_leave(core, seq);
}

/* A message of P is for the grant or the quarantined slot that its whole fence names, or for
 * nobody. */
void bt_dcore_peer_message(bt_decode_core *core, uint32_t peer, const bt_msg *msg)
{
    const bt_fence *fence = &msg->fence;
    if (core->peers[peer].state != PEER_UP || fence->slot >= core->config.slot_count) {
        bt_dcore_stale(core);
        return;
    }
    const d_slot *slot = &core->slots[fence->slot];
    bool current = bt_fence_equal(&slot->fence, fence) || bt_mutate_no_fence_check();
    if (slot->state == BT_SLOT_FREE || slot->peer != peer || !current) {
        bt_dcore_stale(core);
        return;
    }
    uint32_t seq = slot->seq;
    if (seq != NONE) core->seqs[seq].heard = true;
    if (msg->kind == BT_MSG_QUIESCED) {
        on_quiesced(core, fence->slot);
    } else if (msg->kind == BT_MSG_ABANDON) {
        on_abandon(core, fence->slot);
    } else if (seq == NONE) {
        bt_dcore_stale(core); /* in quarantine nothing else counts */
    } else if (msg->kind == BT_MSG_SEALED) {
        on_sealed(core, seq, msg);
    } else if (msg->kind == BT_MSG_MANIFEST) {
        on_manifest(core, seq, msg);
    } else if (msg->kind == BT_MSG_LEASE_RENEW && !core->seqs[seq].repush) {
        bt_dcore_lease_extend(core, &core->seqs[seq]);
    } else {
        bt_dcore_stale(core);
    }
}
