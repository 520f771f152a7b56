/* core_batch.c - the decode core's steps: one token for each of many sequences, and a chunk of the
 * prompts that are computed here; one batch at a time.
 *
 * A batch computes at most local_chunk prompt tokens, so that no decode step takes longer than one
 * with that many tokens more, however long the prompt. */
#include "decoded/core_state.h"

#include <assert.h>
#include <stdio.h>

#define RETRY_NS 1000000u          /* after submit said AGAIN although no batch of ours runs */
#define PROBE_RETRY_NS 1000000000u /* after the engine failed the probe batch */

static bool steps(const d_seq *s)
{
    return (s->state == SEQ_DECODING || s->state == SEQ_COMPUTING) && !s->in_batch;
}

/* The pool is full in mid-decode: the youngest sequence that no batch holds goes, and R continues
 * it elsewhere or later (H5). */
static void evict_youngest(bt_decode_core *core)
{
    uint32_t youngest = NONE;
    for (uint32_t i = 0; i < core->seq_count; i++)
        if (steps(&core->seqs[i]) &&
            (youngest == NONE || core->seqs[i].serial > core->seqs[youngest].serial))
            youngest = i;
    assert(youngest != NONE);
    bt_msg msg = {.kind = BT_MSG_EVICTED, .fence = core->seqs[youngest].key};
    msg.evicted.token_count = core->seqs[youngest].next_index;
    core->stats.evicted_total++;
    bt_dcore_seq_leave(core, youngest);
    core->io.send_router(core->io.ctx, &msg);
}

/* A block for the next token, beyond the reserve if need be; the sequence may be evicted itself. A
 * prompt has all of its blocks. */
static void grow(bt_decode_core *core, uint32_t seq)
{
    d_seq *s = &core->seqs[seq];
    while (bt_dcore_blocks(core, s->kv_count + 1) > s->block_count) {
        assert(s->block_count < core->blocks_per_context);
        if (bt_kv_prefix_take(core->prefix, 1, seq, &s->blocks[s->block_count])) {
            s->block_count++;
            continue;
        }
        evict_youngest(core);
        if (!bt_dcore_live(s)) return;
    }
}

/* Prompt tokens of one batch; beside them every other sequence of it finds room for its token. */
static uint32_t prompt_budget(const bt_decode_core *core)
{
    uint32_t tokens = core->config.batch_tokens_max, seqs = core->config.batch_seqs_max;
    uint32_t room = tokens > seqs ? tokens - seqs + 1 : 1;
    return core->config.local_chunk < room ? core->config.local_chunk : room;
}

static uint32_t chunk_of(const d_seq *s, uint32_t budget)
{
    uint32_t left = s->token_count - s->kv_count;
    return left < budget ? left : budget;
}

/* The sequences that waited longest for a step, at most a batch of them. */
static uint32_t batch_choose(bt_decode_core *core, uint32_t *ret_chosen)
{
    uint32_t count = 0, budget = prompt_budget(core);
    uint64_t after = 0;
    while (count < core->config.batch_seqs_max) {
        uint32_t best = NONE;
        for (uint32_t i = 0; i < core->seq_count; i++) {
            const d_seq *s = &core->seqs[i];
            if (steps(s) && s->stepped > after && (s->state == SEQ_DECODING || budget > 0) &&
                (best == NONE || s->stepped < core->seqs[best].stepped))
                best = i;
        }
        if (best == NONE) break;
        d_seq *s = &core->seqs[best];
        after = s->stepped;
        s->chunk = s->state == SEQ_DECODING ? 1 : chunk_of(s, budget);
        if (s->state == SEQ_COMPUTING) budget -= s->chunk;
        ret_chosen[count++] = best;
    }
    return count;
}

static void batch_add(bt_decode_core *core, uint32_t seq)
{
    d_batch *batch = &core->batch;
    d_seq *s = &core->seqs[seq];
    s->in_batch = true;
    s->sampled = s->broken = false;
    s->stepped = core->serial++;
    batch->seq_index[batch->count] = seq;
    batch->tokens += s->chunk;
    batch->pairs += bt_cost_pairs(s->kv_count, s->chunk);
    uint32_t end = s->kv_count + s->chunk;
    batch->seqs[batch->count++] = (bt_engine_seq){.handle = seq,
                                                  .position = s->kv_count,
                                                  .token_count = s->chunk,
                                                  .tokens = s->tokens + s->kv_count,
                                                  .blocks = s->blocks,
                                                  .block_count = bt_dcore_blocks(core, end),
                                                  .sample = end == s->token_count,
                                                  .sampling = s->sampling,
                                                  .history = s->tokens,
                                                  .prompt_count = s->prompt_count};
}

/* All of them grow before any is added, so that the youngest of all can be the one to go. */
static void batch_fill(bt_decode_core *core)
{
    uint32_t *chosen = core->batch.seq_index;
    uint32_t count = batch_choose(core, chosen);
    for (uint32_t i = 0; i < count; i++)
        if (core->seqs[chosen[i]].state == SEQ_DECODING) grow(core, chosen[i]);
    core->batch.count = 0;
    core->batch.tokens = 0;
    core->batch.pairs = 0;
    for (uint32_t i = 0; i < count; i++) /* seq_index is overwritten only behind i */
        if (steps(&core->seqs[chosen[i]])) batch_add(core, chosen[i]);
}

static void batch_release(bt_decode_core *core)
{
    core->batch.busy = false;
    for (uint32_t i = 0; i < core->batch.count; i++) {
        uint32_t seq = core->batch.seq_index[i];
        core->seqs[seq].in_batch = false;
        bt_dcore_seq_collect(core, seq);
    }
    core->batch.count = 0;
}

static void batch_fail(bt_decode_core *core)
{
    for (uint32_t i = 0; i < core->batch.count; i++) {
        d_seq *s = &core->seqs[core->batch.seq_index[i]];
        if (!bt_dcore_live(s)) continue;
        bt_fence key = s->key;
        bt_dcore_seq_leave(core, core->batch.seq_index[i]);
        bt_dcore_refuse(core, &key, BT_REFUSE_ENGINE, "the engine failed a batch");
    }
    batch_release(core);
}

/* D's own KV of the probe tokens, computed once into blocks that stay. */
static void own_probe_fill(bt_decode_core *core)
{
    core->batch.count = 0;
    core->batch.tokens = BT_PROBE_TOKENS;
    core->batch.pairs = bt_cost_pairs(0, BT_PROBE_TOKENS);
    core->batch.seqs[0] =
        (bt_engine_seq){.handle = NONE,
                        .token_count = BT_PROBE_TOKENS,
                        .tokens = core->probe_tokens,
                        .blocks = core->probe_blocks,
                        .block_count = BT_PROBE_TOKENS / core->config.kv.block_tokens};
}

void bt_dcore_step(bt_decode_core *core)
{
    if (core->batch.busy || !core->started || core->now_ns < core->not_before_ns) return;
    core->batch.own_probe = !core->ready;
    if (core->batch.own_probe)
        own_probe_fill(core);
    else
        batch_fill(core);
    if (core->batch.count == 0 && !core->batch.own_probe) return;
    core->batch.id = core->serial++;
    bt_engine_batch batch = {.batch = core->batch.id,
                             .seq_count = core->batch.own_probe ? 1 : core->batch.count,
                             .seqs = core->batch.seqs};
    bt_status status = core->io.submit(core->io.ctx, &batch);
    if (status == BT_OK) {
        core->batch.busy = true;
    } else if (status > 0 || core->batch.own_probe) {
        batch_release(core);
        core->not_before_ns = core->now_ns + (status > 0 ? RETRY_NS : PROBE_RETRY_NS);
    } else {
        batch_fail(core);
    }
}

static bool is_eos(const bt_decode_core *core, uint32_t id)
{
    for (uint32_t i = 0; i < core->config.eos_count; i++)
        if (core->config.eos_ids[i] == id) return true;
    return false;
}

void bt_dcore_token(bt_decode_core *core, uint32_t seq, const bt_token *token)
{
    d_seq *s = &core->seqs[seq];
    bt_fence key = s->key;
    bt_msg msg = {.kind = BT_MSG_TOKENS, .fence = key};
    msg.tokens.tokens = token;
    msg.tokens.index = s->next_index++;
    msg.tokens.token_count = 1;
    s->tokens[s->token_count++] = token->id;
    core->io.send_router(core->io.ctx, &msg);
    bool stop =
        (is_eos(core, token->id) && !s->ignore_eos) || bt_sampling_stops(&s->sampling, token->id);
    /* A token that no step could follow ends the sequence as max_tokens does. */
    bool full = s->token_count > core->config.context_tokens_max;
    if (!stop && !full && s->next_index < s->max_tokens) return;
    bt_msg end = {.kind = BT_MSG_FINISHED, .fence = key};
    end.finished.reason = stop ? BT_FINISH_STOP : BT_FINISH_LENGTH;
    end.finished.token_count = s->next_index;
    bt_dcore_seq_leave(core, seq);
    core->io.send_router(core->io.ctx, &end);
}

void bt_dcore_local_seal(bt_decode_core *core, d_seq *s, uint32_t kv_count)
{
    for (; s->named_runs < kv_count / BT_RUN_TOKENS; s->named_runs++) {
        bt_kv_prefix_next(&s->name, s->tokens + (size_t)s->named_runs * BT_RUN_TOKENS,
                          BT_RUN_TOKENS, &s->name);
        bt_kv_prefix_insert(core->prefix, &s->name,
                            s->blocks + (size_t)s->named_runs * core->blocks_per_run);
    }
}

/* A chunk of a prompt is computed; true if it was the last. */
static bool prompt_done(bt_decode_core *core, d_seq *s)
{
    s->kv_count += s->chunk;
    core->stats.local_tokens_total += s->chunk;
    bt_dcore_local_seal(core, s, s->kv_count);
    return s->kv_count == s->token_count;
}

static void step_done(bt_decode_core *core, uint32_t seq)
{
    d_seq *s = &core->seqs[seq];
    if (!bt_dcore_live(s)) return;
    if (s->state == SEQ_COMPUTING && !prompt_done(core, s)) return;
    if (!s->sampled || s->sample.id >= core->config.vocab) {
        bt_fence key = s->key;
        bt_dcore_seq_leave(core, seq);
        bt_dcore_refuse(core, &key, BT_REFUSE_ENGINE,
                        s->broken ? "the model's logits are not finite"
                                  : "the engine sampled no token");
        return;
    }
    core->stats.tokens_total++;
    bt_token token = s->sample;
    if (s->state == SEQ_COMPUTING) {
        s->state = SEQ_DECODING;
        bt_dcore_accepted_send(core, seq);
    } else {
        s->kv_count++;
    }
    bt_dcore_token(core, seq, &token);
}

static void on_batch_done(bt_decode_core *core, const bt_engine_event *event)
{
    bt_status status = event->status;
    if (status == BT_OK && event->time_ns > event->started_ns)
        bt_cost_add(&core->cost, core->batch.tokens, core->batch.pairs,
                    event->time_ns - event->started_ns);
    if (core->batch.own_probe) {
        batch_release(core);
        core->ready = status == BT_OK;
        if (core->ready)
            core->stats.probe_tokens_total += BT_PROBE_TOKENS;
        else
            core->not_before_ns = core->now_ns + PROBE_RETRY_NS;
        return;
    }
    if (status != BT_OK) {
        batch_fail(core);
        return;
    }
    core->stats.steps_total++;
    for (uint32_t i = 0; i < core->batch.count; i++) step_done(core, core->batch.seq_index[i]);
    batch_release(core);
}

void bt_dcore_engine_event(bt_decode_core *core, const bt_engine_event *event)
{
    if (!core->batch.busy || event->batch != core->batch.id) {
        bt_dcore_stale(core);
        return;
    }
    if (event->kind == BT_ENGINE_BATCH_DONE) {
        on_batch_done(core, event);
    } else if (event->kind == BT_ENGINE_TOKEN && !core->batch.own_probe) {
        assert(event->handle < core->seq_count);
        d_seq *s = &core->seqs[event->handle];
        if (!s->in_batch) return;
        s->sample = event->token;
        s->sampled = event->status == BT_OK;
        s->broken = event->status != BT_OK;
    }
}
