/* core_grants.c - grants of the decode core: Reserve, Ticket, leases, quarantine, and how each
 * ends. */
#include "common/kv/mutate.h"
#include "decoded/core_state.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void bt_dcore_refuse(bt_decode_core *core, const bt_fence *key, bt_refuse_reason reason,
                     const char *text)
{
    bt_msg msg = {.kind = BT_MSG_REFUSED, .fence = *key};
    msg.refused.reason = reason;
    snprintf(msg.refused.text, sizeof(msg.refused.text), "%s", text);
    core->stats.refused_total++;
    core->io.send_router(core->io.ctx, &msg);
}

static bool reachable(const bt_decode_core *core, const d_slot *slot)
{
    return slot->peer != NONE && core->peers[slot->peer].state == PEER_UP;
}

void bt_dcore_refuse_peer(bt_decode_core *core, const d_slot *slot, bt_refuse_reason reason,
                          bool retry, const char *text)
{
    if (!reachable(core, slot)) return;
    bt_msg msg = {.kind = BT_MSG_REFUSED, .fence = slot->fence};
    msg.refused.reason = reason;
    msg.refused.retry = retry;
    snprintf(msg.refused.text, sizeof(msg.refused.text), "%s", text);
    core->io.send_peer(core->io.ctx, slot->peer, &msg);
}

static void cancel_peer(bt_decode_core *core, d_slot *slot)
{
    slot->repeat_ns = core->now_ns + core->config.cancel_repeat_ns;
    if (!reachable(core, slot)) return;
    bt_msg msg = {.kind = BT_MSG_CANCEL, .fence = slot->fence};
    core->io.send_peer(core->io.ctx, slot->peer, &msg);
}

/* From the last block to the first, so that the end of a cached prefix is evicted first (K6). */
void bt_dcore_seq_collect(bt_decode_core *core, uint32_t seq)
{
    d_seq *s = &core->seqs[seq];
    if (s->state != SEQ_LEAVING || s->in_batch || s->unpacks > 0) return;
    for (uint32_t i = s->block_count; i > 0; i--) bt_kv_pool_return(core->pool, s->blocks[i - 1]);
    s->block_count = 0;
    s->state = SEQ_FREE;
}

void bt_dcore_seq_leave(bt_decode_core *core, uint32_t seq)
{
    d_seq *s = &core->seqs[seq];
    assert(bt_dcore_live(s) && s->slot == NONE);
    for (uint32_t i = 0; i < s->block_count; i++) bt_kv_pool_lend(core->pool, s->blocks[i]);
    s->state = SEQ_LEAVING;
    bt_dcore_seq_collect(core, seq);
}

/* Parts a sequence from its slot. */
static d_slot *slot_part(bt_decode_core *core, uint32_t seq)
{
    d_seq *s = &core->seqs[seq];
    assert(s->state == SEQ_GRANTED && s->slot < core->config.slot_count);
    d_slot *slot = &core->slots[s->slot];
    assert(slot->state == BT_SLOT_GRANTED && slot->seq == seq);
    slot->seq = NONE;
    s->slot = NONE;
    return slot;
}

/* P has said that it puts no more, or is proven dead (H1). */
void bt_dcore_slot_free(bt_decode_core *core, uint32_t slot)
{
    d_slot *s = &core->slots[slot];
    if (s->seq != NONE) (void)slot_part(core, s->seq);
    s->state = BT_SLOT_FREE;
}

void bt_dcore_grant_end(bt_decode_core *core, uint32_t seq)
{
    d_slot *slot = slot_part(core, seq);
    slot->state = bt_mutate_no_quiesce_wait() ? BT_SLOT_FREE : BT_SLOT_QUARANTINED;
    core->stats.quarantines_total++;
    cancel_peer(core, slot);
    bt_dcore_seq_leave(core, seq);
}

void bt_dcore_probe_settle(bt_decode_core *core, uint32_t peer, bool passed)
{
    core->peers[peer].probe = passed ? PROBE_PASSED : PROBE_FAILED;
}

void bt_dcore_grant_fail(bt_decode_core *core, uint32_t seq, bt_refuse_reason reason,
                         const char *text)
{
    d_seq *s = &core->seqs[seq];
    bt_fence key = s->key;
    if (s->probe) {
        char why[BT_REASON_BYTES_MAX];
        snprintf(why, sizeof(why), "probe: %s", text);
        bt_dcore_refuse_peer(core, &core->slots[s->slot], reason, false, why);
        bt_dcore_probe_settle(core, s->peer, false);
        bt_dcore_grant_end(core, seq);
        return;
    }
    bt_dcore_grant_end(core, seq);
    bt_dcore_refuse(core, &key, reason, text);
}

void bt_dcore_seq_end(bt_decode_core *core, uint32_t seq)
{
    if (core->seqs[seq].state == SEQ_GRANTED)
        bt_dcore_grant_end(core, seq);
    else
        bt_dcore_seq_leave(core, seq);
}

void bt_dcore_all_end(bt_decode_core *core)
{
    for (uint32_t i = 0; i < core->seq_count; i++)
        if (bt_dcore_live(&core->seqs[i]) && !core->seqs[i].probe) bt_dcore_seq_end(core, i);
}

static void raise_seen(bt_decode_core *core, const bt_fence *fence)
{
    uint64_t expires_ns = core->now_ns + 4 * core->config.lease_ns;
    bt_attempts_raise(core->seen, &fence->request, fence->attempt, expires_ns, core->now_ns);
}

/* Ends what this attempt and older ones of its request hold. */
static void end_older(bt_decode_core *core, const bt_fence *fence)
{
    for (uint32_t i = 0; i < core->seq_count; i++) {
        const d_seq *s = &core->seqs[i];
        if (bt_dcore_live(s) && !s->probe && s->key.attempt <= fence->attempt &&
            bt_request_id_equal(&s->key.request, &fence->request))
            bt_dcore_seq_end(core, i);
    }
}

void bt_dcore_cancel(bt_decode_core *core, const bt_fence *fence)
{
    if (fence->d_incarnation != core->config.incarnation) {
        bt_dcore_stale(core);
        return;
    }
    raise_seen(core, fence);
    end_older(core, fence);
}

void bt_dcore_lease_extend(bt_decode_core *core, d_seq *seq)
{
    if (!bt_mutate_no_lease_renew()) seq->lease_ends_ns = core->now_ns + core->config.lease_ns;
}

/* R still wants these: their leases start anew, unless the grant waits for P's Quiesced. */
void bt_dcore_renew(bt_decode_core *core, const bt_msg *msg)
{
    for (uint32_t r = 0; r < msg->renew.request_count; r++)
        for (uint32_t i = 0; i < core->seq_count; i++) {
            d_seq *s = &core->seqs[i];
            if (bt_dcore_live(s) && !s->probe && !s->repush &&
                bt_request_id_equal(&s->key.request, &msg->renew.requests[r]))
                bt_dcore_lease_extend(core, s);
        }
}

/* A slot that nobody can put into and nothing reads from, or NONE. */
static uint32_t slot_find(const bt_decode_core *core)
{
    for (uint32_t i = 0; i < core->config.slot_count; i++) {
        const d_slot *slot = &core->slots[i];
        if (slot->state == BT_SLOT_FREE && slot->unpacks == 0 && slot->generation < UINT32_MAX)
            return i;
    }
    return NONE;
}

static uint32_t peer_find(const bt_decode_core *core, uint64_t p_incarnation)
{
    for (uint32_t i = 0; i < BT_PEERS_MAX; i++)
        if (core->peers[i].state == PEER_UP && core->peers[i].info.p_incarnation == p_incarnation)
            return i;
    return NONE;
}

/* The share of quarantined slots of that peer, counted from the slots (H3). */
static bool peer_share_full(const bt_decode_core *core, uint64_t p_incarnation)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < core->config.slot_count; i++)
        count += core->slots[i].state == BT_SLOT_QUARANTINED &&
                 core->slots[i].fence.p_incarnation == p_incarnation;
    return count >= core->config.quarantine_max;
}

/* Entries of the table beyond seqs_max are for probes. */
static uint32_t seq_find(const bt_decode_core *core, bool probe)
{
    uint32_t used = 0, unused = NONE;
    for (uint32_t i = 0; i < core->seq_count; i++) {
        if (core->seqs[i].state == SEQ_FREE)
            unused = i;
        else if (!core->seqs[i].probe)
            used++;
    }
    return !probe && used >= core->config.seqs_max ? NONE : unused;
}

static void seq_reset(bt_decode_core *core, uint32_t seq, uint32_t peer)
{
    d_seq *s = &core->seqs[seq];
    uint32_t *tokens = s->tokens, *blocks = s->blocks;
    bt_logit_bias *bias = s->bias;
    d_arrival arrival = {.covered = s->arrival.covered, .known = s->arrival.known};
    *s = (d_seq){.state = SEQ_GRANTED,
                 .serial = core->serial++,
                 .peer = peer,
                 .slot = NONE,
                 .lease_ends_ns = core->now_ns + core->config.lease_ns,
                 .repeat_ns = core->now_ns + core->config.cancel_repeat_ns,
                 .arrival = arrival,
                 .tokens = tokens,
                 .blocks = blocks,
                 .bias = bias};
    bt_dcore_arrival_reset(core, s);
}

static void slot_take(bt_decode_core *core, uint32_t seq, uint32_t slot)
{
    core->seqs[seq].slot = slot;
    d_slot *l = &core->slots[slot];
    l->state = BT_SLOT_GRANTED;
    l->peer = core->seqs[seq].peer;
    l->seq = seq;
}

void bt_dcore_ticket_send(bt_decode_core *core, uint32_t seq)
{
    d_seq *s = &core->seqs[seq];
    d_slot *slot = &core->slots[s->slot];
    slot->generation++;
    slot->fence = s->key;
    slot->fence.slot = s->slot;
    slot->fence.generation = slot->generation;
    s->repush = false;
    s->quiesced = false;
    s->heard = false;
    s->repeat_ns = core->now_ns + core->config.cancel_repeat_ns;
    bt_msg msg = {.kind = BT_MSG_TICKET, .fence = slot->fence};
    msg.ticket.wire = core->peers[s->peer].info.wire;
    msg.ticket.run_first = s->run_first;
    msg.ticket.cell_count = core->config.cell_count;
    msg.ticket.lease_ms = (uint32_t)(core->config.lease_ns / 1000000);
    msg.ticket.probe = s->probe;
    core->io.send_peer(core->io.ctx, s->peer, &msg);
}

/* Blocks of a new grant: cached runs pinned, the rest taken. */
static bool blocks_take(bt_decode_core *core, uint32_t seq, uint32_t tokens)
{
    d_seq *s = &core->seqs[seq];
    uint32_t needed = bt_dcore_blocks(core, tokens);
    /* Of a local prompt the last token is always computed, so that there is a logit to sample. */
    uint32_t runs_max = s->probe ? 0 : (s->token_count - s->local) / BT_RUN_TOKENS;
    uint32_t runs = bt_kv_prefix_pin(core->prefix, &s->root, s->tokens, runs_max, seq, s->blocks);
    uint32_t pinned = runs * core->blocks_per_run;
    if (!bt_kv_prefix_take(core->prefix, needed - pinned, seq, s->blocks + pinned)) {
        for (uint32_t i = pinned; i > 0; i--) bt_kv_pool_unpin(core->pool, s->blocks[i - 1]);
        return false;
    }
    s->block_count = needed;
    s->run_first = runs;
    s->run_count = bt_dcore_runs(s->token_count);
    core->stats.cached_tokens_total += (uint64_t)runs * BT_RUN_TOKENS;
    return true;
}

/* What no wait can cure; NULL if the work is fine. */
static const char *work_fault(const bt_decode_core *core, const bt_msg_work *work)
{
    uint64_t context = core->config.context_tokens_max;
    if (work->token_count == 0 || work->token_count > context)
        return "the prompt is longer than the context";
    if (work->base >= work->token_count || work->max_tokens <= work->base)
        return "base and max_tokens contradict each other";
    /* The KV of the last token is never needed. */
    uint64_t tokens = (uint64_t)work->token_count - work->base + work->max_tokens - 1;
    if (tokens > context) return "prompt and output are longer than the context";
    uint32_t pool = core->config.kv.pool_blocks - BT_PROBE_TOKENS / core->config.kv.block_tokens;
    if (bt_dcore_blocks(core, (uint32_t)tokens) > pool)
        return "prompt and output are longer than the KV pool";
    for (uint32_t i = 0; i < work->token_count; i++)
        if (work->tokens[i] >= core->config.vocab) return "a token is outside the vocabulary";
    if (bt_sampling_fault(&work->sampling, core->config.vocab) != NULL)
        return "a stop or logit_bias id is outside the vocabulary";
    return NULL;
}

static void seq_fill(d_seq *s, const bt_msg *msg)
{
    const bt_msg_work *work = &msg->reserve;
    s->key = msg->fence;
    s->key.slot = 0;
    s->key.generation = 0;
    s->base = work->base;
    s->next_index = work->base;
    s->max_tokens = work->max_tokens;
    s->ignore_eos = work->ignore_eos;
    s->sampling = bt_sampling_copy(&work->sampling, s->bias);
    s->token_count = work->token_count;
    s->prompt_count = work->token_count - (bt_mutate_committed_is_prompt() ? 0 : work->base);
    memcpy(s->tokens, work->tokens, work->token_count * sizeof(s->tokens[0]));
}

/* KV that came over the wire without a conversion, from the same weights, is what D would have
 * computed itself, bit for bit: it goes by the same name, so that either is found for the other. */
static bool as_own(const bt_decode_core *core, const bt_decode_peer *peer)
{
    return memcmp(&peer->weights_digest, &core->config.weights_digest,
                  sizeof(peer->weights_digest)) == 0 &&
           peer->kv_dtype == core->config.kv.dtype && peer->wire == core->config.kv.dtype;
}

static void name_pushed(bt_decode_core *core, d_seq *s, const uint8_t *tenant_salt)
{
    const bt_decode_peer *peer = &core->peers[s->peer].info;
    bt_kv_path path = {.tenant_salt = tenant_salt,
                       .weights_digest = &peer->weights_digest,
                       .producer = peer->kv_dtype,
                       .wire = peer->wire};
    bt_kv_prefix_hash(&path, s->tokens, s->token_count, &s->prefix_hash);
    if (as_own(core, peer)) path.wire = BT_DTYPE_NONE;
    bt_kv_prefix_root(&path, &s->root);
}

static void name_own(bt_decode_core *core, d_seq *s, const uint8_t *tenant_salt)
{
    bt_kv_path path = {.tenant_salt = tenant_salt,
                       .weights_digest = &core->config.weights_digest,
                       .producer = core->config.kv.dtype};
    bt_kv_prefix_root(&path, &s->root);
}

/* Pool space of a new sequence: its prompt and the first of its output. */
static uint32_t tokens_reserved(const bt_decode_core *core, const bt_msg_work *work)
{
    uint32_t output = work->max_tokens - work->base;
    if (output > core->config.reserve_tokens) output = core->config.reserve_tokens;
    uint64_t tokens = (uint64_t)work->token_count + output;
    uint32_t context = core->config.context_tokens_max;
    return tokens < context ? (uint32_t)tokens : context;
}

/* Grants, or says at once why not (H8). */
static void grant(bt_decode_core *core, const bt_msg *msg, uint32_t peer)
{
    const bt_msg_work *work = &msg->reserve;
    uint32_t slot = slot_find(core), seq = seq_find(core, false);
    if (slot == NONE || seq == NONE || peer_share_full(core, msg->fence.p_incarnation)) {
        bt_dcore_refuse(core, &msg->fence, BT_REFUSE_FULL,
                        slot == NONE  ? "no landing slot is free"
                        : seq == NONE ? "the decode daemon is full"
                                      : "too many landing slots of that peer are in quarantine");
        return;
    }
    seq_reset(core, seq, peer);
    slot_take(core, seq, slot);
    seq_fill(&core->seqs[seq], msg);
    name_pushed(core, &core->seqs[seq], work->tenant_salt);
    if (!blocks_take(core, seq, tokens_reserved(core, work))) {
        bt_dcore_slot_free(core, slot);
        core->seqs[seq].state = SEQ_FREE;
        bt_dcore_refuse(core, &msg->fence, BT_REFUSE_FULL, "no KV blocks are free");
        return;
    }
    core->stats.requests_total++;
    bt_dcore_ticket_send(core, seq);
}

/* A Reserve with `local`: no P, no slot; the prompt is computed here (core_batch.c). */
static void compute(bt_decode_core *core, const bt_msg *msg)
{
    const bt_msg_work *work = &msg->reserve;
    if (core->config.local_chunk == 0) {
        bt_dcore_refuse(core, &msg->fence, BT_REFUSE_UNKNOWN,
                        "this decode daemon computes no prompts");
        return;
    }
    uint32_t seq = seq_find(core, false);
    if (seq == NONE) {
        bt_dcore_refuse(core, &msg->fence, BT_REFUSE_FULL, "the decode daemon is full");
        return;
    }
    seq_reset(core, seq, NONE);
    d_seq *s = &core->seqs[seq];
    s->local = true;
    seq_fill(s, msg);
    name_own(core, s, work->tenant_salt);
    if (!blocks_take(core, seq, tokens_reserved(core, work))) {
        s->state = SEQ_FREE;
        bt_dcore_refuse(core, &msg->fence, BT_REFUSE_FULL, "no KV blocks are free");
        return;
    }
    s->state = SEQ_COMPUTING;
    s->kv_count = s->run_first * BT_RUN_TOKENS;
    s->stepped = core->serial++;
    s->name = s->root;
    for (; s->named_runs < s->run_first; s->named_runs++)
        bt_kv_prefix_next(&s->name, s->tokens + (size_t)s->named_runs * BT_RUN_TOKENS,
                          BT_RUN_TOKENS, &s->name);
    core->stats.requests_total++;
    core->stats.local_total++;
    if (bt_mutate_local_publish()) bt_dcore_local_seal(core, s, s->token_count);
}

/* The highest attempt of this request that holds something: its memory in `seen` may be gone. */
static uint32_t attempt_here(const bt_decode_core *core, const bt_request_id *request)
{
    uint32_t highest = 0;
    for (uint32_t i = 0; i < core->seq_count; i++) {
        const d_seq *s = &core->seqs[i];
        if (bt_dcore_live(s) && !s->probe && s->key.attempt > highest &&
            bt_request_id_equal(&s->key.request, request))
            highest = s->key.attempt;
    }
    return highest;
}

void bt_dcore_reserve(bt_decode_core *core, const bt_msg *msg)
{
    const bt_fence *fence = &msg->fence;
    if (fence->d_incarnation != core->config.incarnation || fence->attempt == 0 ||
        bt_request_id_equal(&fence->request, &bt_probe_request_id) ||
        fence->attempt <= bt_attempts_seen(core->seen, &fence->request, core->now_ns) ||
        fence->attempt <= attempt_here(core, &fence->request)) {
        bt_dcore_stale(core);
        return;
    }
    end_older(core, fence);
    raise_seen(core, fence);
    if (core->draining) {
        bt_dcore_refuse(core, fence, BT_REFUSE_DRAINING, "the decode daemon is draining"); /* H7 */
        return;
    }
    const char *fault = work_fault(core, &msg->reserve);
    if (fault != NULL) {
        bt_dcore_refuse(core, fence, BT_REFUSE_TOO_LONG, fault);
        return;
    }
    if (msg->reserve.local) {
        compute(core, msg);
        return;
    }
    uint32_t peer = peer_find(core, fence->p_incarnation);
    if (peer == NONE) {
        bt_dcore_refuse(core, fence, BT_REFUSE_PEER_LOST, "not paired with that prefill daemon");
        return;
    }
    if (core->peers[peer].probe != PROBE_PASSED) {
        bt_dcore_refuse(core, fence, BT_REFUSE_INCOMPATIBLE, "the pair has not passed its probe");
        return;
    }
    grant(core, msg, peer);
}

/* The pairing probe takes the way of every other grant: slot, Ticket, frames, Manifest. Without a
 * free slot or blocks, or while the peer's share of quarantine is full, it waits. */
void bt_dcore_probe_grant(bt_decode_core *core, uint32_t peer)
{
    const d_peer *p = &core->peers[peer];
    uint32_t slot = slot_find(core), seq = seq_find(core, true);
    if (slot == NONE || seq == NONE || peer_share_full(core, p->info.p_incarnation)) return;
    seq_reset(core, seq, peer);
    slot_take(core, seq, slot);
    d_seq *s = &core->seqs[seq];
    s->probe = true;
    s->key = (bt_fence){.request = bt_probe_request_id,
                        .attempt = ++core->probe_attempt,
                        .p_incarnation = p->info.p_incarnation,
                        .d_incarnation = core->config.incarnation};
    s->max_tokens = 2;
    s->token_count = BT_PROBE_TOKENS;
    memcpy(s->tokens, core->probe_tokens, BT_PROBE_TOKENS * sizeof(s->tokens[0]));
    if (!blocks_take(core, seq, BT_PROBE_TOKENS)) {
        bt_dcore_slot_free(core, slot);
        s->state = SEQ_FREE;
        return;
    }
    static const uint8_t no_salt[BT_SHA256_BYTES];
    bt_kv_path path = {.tenant_salt = no_salt,
                       .weights_digest = &p->info.weights_digest,
                       .producer = p->info.kv_dtype,
                       .wire = p->info.wire};
    bt_kv_prefix_hash(&path, s->tokens, s->token_count, &s->prefix_hash);
    core->peers[peer].probe = PROBE_GRANTED;
    bt_dcore_ticket_send(core, seq);
}

/* A message to P that must be heard is said again: the probe's Ticket, which may come before P
 * knows this endpoint, and Refused(retry). P drops what it has heard already. */
static void repeat(bt_decode_core *core, d_seq *s)
{
    d_slot *slot = &core->slots[s->slot];
    s->repeat_ns = core->now_ns + core->config.cancel_repeat_ns;
    if (s->repush && !s->quiesced) {
        bt_dcore_refuse_peer(core, slot, BT_REFUSE_DIGEST, true, "push again");
    } else if (s->probe && !s->heard && !s->repush && reachable(core, slot)) {
        bt_msg msg = {.kind = BT_MSG_TICKET, .fence = slot->fence};
        msg.ticket.wire = core->peers[s->peer].info.wire;
        msg.ticket.cell_count = core->config.cell_count;
        msg.ticket.lease_ms = (uint32_t)(core->config.lease_ns / 1000000);
        msg.ticket.probe = true;
        core->io.send_peer(core->io.ctx, slot->peer, &msg);
    }
}

/* H3: whatever ends by time is said to R (or, of a probe, to P). */
static void lease_end(bt_decode_core *core, uint32_t seq, const char *text)
{
    bt_fence key = core->seqs[seq].key;
    core->stats.leases_ended_total++;
    if (core->seqs[seq].state == SEQ_GRANTED) {
        bt_dcore_grant_fail(core, seq, BT_REFUSE_LEASE, text);
        return;
    }
    bt_dcore_seq_end(core, seq);
    bt_dcore_refuse(core, &key, BT_REFUSE_LEASE, text);
}

/* R is told, in case only its heartbeats were lost. */
static void router_silent(bt_decode_core *core)
{
    core->router_heard_ns = 0;
    for (uint32_t i = 0; i < core->seq_count; i++)
        if (bt_dcore_live(&core->seqs[i]) && !core->seqs[i].probe)
            lease_end(core, i, "the router's heartbeats stopped");
}

void bt_dcore_grants_tick(bt_decode_core *core)
{
    for (uint32_t i = 0; i < core->seq_count; i++) {
        d_seq *s = &core->seqs[i];
        if (!bt_dcore_live(s)) continue;
        if (core->now_ns >= s->lease_ends_ns) {
            lease_end(core, i,
                      s->state == SEQ_GRANTED ? "the grant's lease ended"
                                              : "the sequence's lease ended");
        } else if (s->state == SEQ_GRANTED && core->now_ns >= s->repeat_ns) {
            repeat(core, s);
        }
    }
    for (uint32_t i = 0; i < core->config.slot_count; i++) {
        d_slot *slot = &core->slots[i];
        if (slot->state == BT_SLOT_QUARANTINED && core->now_ns >= slot->repeat_ns)
            cancel_peer(core, slot); /* H1: until Quiesced or proven death */
    }
    bool heard = core->router_heard_ns > 0;
    if (heard && core->now_ns >= core->router_heard_ns + core->config.router_timeout_ns)
        router_silent(core);
}
