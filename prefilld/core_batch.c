/* core_batch.c - the prefill core's engine batches: chunks of several requests, one batch at a
 * time. */
#include "common/kv/mutate.h"
#include "prefilld/core_state.h"

#include <assert.h>

#define RETRY_NS 1000000u /* after submit said AGAIN although no batch of ours is in flight */

/* Highest priority first, then first come. */
static uint32_t next_request(const bt_prefill_core *core)
{
    uint32_t best = NONE;
    for (uint32_t i = 0; i < core->live_count; i++) { /* in order of arrival */
        const p_request *r = &core->requests[core->live[i]];
        if (r->state == REQUEST_COMPUTING && r->chunk == 0 &&
            (best == NONE || r->priority > core->requests[best].priority))
            best = core->live[i];
    }
    return best;
}

/* Tokens of the next chunk that are followed by one of the prompt: where that is scored. */
static uint32_t score_count(const p_request *r, uint32_t chunk)
{
    uint32_t last = r->token_count - r->base - 1;
    if (!r->score || r->computed >= last) return 0;
    return r->computed + chunk <= last ? chunk : last - r->computed;
}

static void batch_add(bt_prefill_core *core, uint32_t request, uint32_t chunk)
{
    p_request *r = &core->requests[request];
    p_batch *batch = &core->batch;
    r->chunk = chunk;
    batch->requests[batch->count] = request;
    batch->seqs[batch->count] = (bt_engine_seq){
        .handle = request,
        .position = r->computed,
        .token_count = chunk,
        .tokens = r->tokens + r->computed,
        .blocks = r->blocks,
        .block_count = bt_pcore_blocks(core, r->computed + chunk),
        .sample = r->computed + chunk == r->token_count,
        .sampling = r->sampling,
        .history = r->tokens,
        .prompt_count = r->token_count - (bt_mutate_committed_is_prompt() ? 0 : r->base),
        .score_next = r->tokens + r->computed + 1,
        .score_count = score_count(r, chunk)};
    batch->count++;
    batch->tokens += chunk;
    batch->pairs += bt_cost_pairs(r->computed, chunk);
}

/* Chunks other than a prompt's last are multiples of a run, so that frames hold whole runs. */
static void batch_fill(bt_prefill_core *core)
{
    uint32_t budget = core->config.batch_tokens_max;
    core->batch.count = 0;
    core->batch.tokens = 0;
    core->batch.pairs = 0;
    while (core->batch.count < core->config.batch_seqs_max) {
        uint32_t request = next_request(core);
        if (request == NONE) return;
        uint32_t left = core->requests[request].token_count - core->requests[request].computed;
        uint32_t chunk = left <= budget ? left : budget - budget % BT_RUN_TOKENS;
        if (chunk == 0) return;
        batch_add(core, request, chunk);
        budget -= chunk;
    }
}

static void batch_release(bt_prefill_core *core)
{
    for (uint32_t i = 0; i < core->batch.count; i++) {
        core->requests[core->batch.requests[i]].chunk = 0;
        bt_pcore_request_collect(core, core->batch.requests[i]);
    }
    core->batch.busy = false;
    core->batch.count = 0;
}

static void batch_fail(bt_prefill_core *core)
{
    for (uint32_t i = 0; i < core->batch.count; i++)
        if (core->requests[core->batch.requests[i]].state == REQUEST_COMPUTING)
            bt_pcore_request_fail(core, core->batch.requests[i], BT_REFUSE_ENGINE,
                                  "the engine failed a prefill batch");
    batch_release(core);
}

void bt_pcore_batch_submit(bt_prefill_core *core)
{
    if (core->batch.busy) return;
    batch_fill(core);
    if (core->batch.count == 0) return;
    core->batch.id = core->serial++;
    core->batch.layers_done = 0;
    bt_engine_batch batch = {
        .batch = core->batch.id, .seq_count = core->batch.count, .seqs = core->batch.seqs};
    bt_status status = core->io.submit(core->io.ctx, &batch);
    if (status == BT_OK) {
        core->batch.busy = true;
    } else if (status > 0) {
        batch_release(core);
        core->retry_ns = core->now_ns + RETRY_NS;
    } else {
        batch_fail(core);
    }
}

/* Whole runs that a chunk completed become findable for later prompts (K3). */
static void runs_seal(bt_prefill_core *core, p_request *r)
{
    for (; r->named_runs < r->computed / BT_RUN_TOKENS; r->named_runs++) {
        bt_kv_prefix_next(&r->name, r->tokens + (size_t)r->named_runs * BT_RUN_TOKENS,
                          BT_RUN_TOKENS, &r->name);
        bt_kv_prefix_insert(core->prefix, &r->name,
                            r->blocks + (size_t)r->named_runs * core->blocks_per_run);
    }
}

static bool token_ends(const bt_prefill_core *core, const p_request *r, bt_finish_reason *ret_why)
{
    if (r->probe_peer != NONE) return false;
    for (uint32_t i = 0; i < core->config.eos_count; i++) {
        if (core->config.eos_ids[i] == r->token.id && !r->ignore_eos) {
            *ret_why = BT_FINISH_STOP;
            return true;
        }
    }
    *ret_why = BT_FINISH_STOP;
    if (bt_sampling_stops(&r->sampling, r->token.id)) return true;
    *ret_why = BT_FINISH_LENGTH;
    return r->no_reserve || r->base + 1 == r->max_tokens;
}

static void chunk_done(bt_prefill_core *core, uint32_t request)
{
    p_request *r = &core->requests[request];
    r->computed += r->chunk;
    uint64_t *total =
        r->probe_peer == NONE ? &core->stats.prefill_tokens_total : &core->stats.probe_tokens_total;
    *total += r->chunk;
    r->chunk = 0;
    bool last = r->computed == r->token_count;
    if (r->broken || (last && !r->sampled)) {
        bt_pcore_request_fail(core, request, BT_REFUSE_ENGINE,
                              r->broken ? "the model's logits are not finite"
                                        : "the engine sampled no token");
        return;
    }
    if (r->probe_peer == NONE) runs_seal(core, r);
    if (!last) return;
    r->state = REQUEST_DONE;
    bt_finish_reason why;
    if (token_ends(core, r, &why)) r->finish = why;
    if (r->probe_peer == NONE) r->expires_ns = core->now_ns + core->config.pin_lease_ns;
}

static void on_batch_done(bt_prefill_core *core, const bt_engine_event *event)
{
    if (event->status != BT_OK) {
        batch_fail(core);
        return;
    }
    if (event->time_ns > event->started_ns)
        bt_cost_add(&core->cost, core->batch.tokens, core->batch.pairs,
                    event->time_ns - event->started_ns);
    for (uint32_t i = 0; i < core->batch.count; i++) {
        uint32_t request = core->batch.requests[i];
        if (core->requests[request].state == REQUEST_COMPUTING) chunk_done(core, request);
    }
    batch_release(core);
}

/* The scores of a chunk go to R at once, so they come before the first token. */
static void on_scores(bt_prefill_core *core, const bt_engine_event *event)
{
    assert(event->handle < core->request_count);
    p_request *r = &core->requests[event->handle];
    if (r->state != REQUEST_COMPUTING || r->chunk == 0) return; /* ended meanwhile */
    if (event->status != BT_OK) {
        r->broken = true;
        return;
    }
    bt_msg msg = {.kind = BT_MSG_PROMPT_LOGPROBS, .fence = r->fence};
    for (uint32_t sent = 0; sent < event->score_count; sent += msg.tokens.token_count) {
        uint32_t left = event->score_count - sent;
        msg.tokens.tokens = event->scores + sent;
        msg.tokens.index = r->computed + 1 + sent;
        msg.tokens.token_count = left < BT_MSG_TOKENS_MAX ? left : BT_MSG_TOKENS_MAX;
        core->io.send_router(core->io.ctx, &msg);
    }
}

void bt_pcore_engine_event(bt_prefill_core *core, const bt_engine_event *event)
{
    if (!core->batch.busy || event->batch != core->batch.id) {
        bt_pcore_stale(core);
        return;
    }
    switch (event->kind) {
    case BT_ENGINE_LAYER_DONE: core->batch.layers_done = event->layer + 1; break;
    case BT_ENGINE_TOKEN: {
        assert(event->handle < core->request_count);
        p_request *r = &core->requests[event->handle];
        if (r->state != REQUEST_COMPUTING || r->chunk == 0) break; /* ended meanwhile */
        r->token = event->token;
        r->sampled = event->status == BT_OK && event->token.id < core->config.vocab;
        r->broken |= event->status != BT_OK;
        break;
    }
    case BT_ENGINE_SCORES: on_scores(core, event); break;
    case BT_ENGINE_BATCH_DONE: on_batch_done(core, event); break;
    }
}
