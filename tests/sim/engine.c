/* engine.c - the virtual engine: a "model" whose KV word of (layer, token) is a hash of the token,
 * its place and every KV word before it on that layer, and whose next token is a hash of the last
 * token's KV words and of all that the sampler was given.
 *
 * So one stale, torn, foreign or missing KV word anywhere in a sequence changes every later token,
 * and the checker that compares tokens with the undisturbed run sees what a real model would only
 * show as bad prose. Likewise one lost or foreign row of logit_bias, and, of requests with penalties,
 * one lost, foreign or misplaced token of the history, or a prompt that ends elsewhere. */
#include "tests/sim/world.h"

#include <assert.h>
#include <string.h>

static uint64_t attention_term(uint64_t value, uint32_t token)
{
    return sim_mix(value, token);
}

static uint64_t kv_word(uint32_t layer, uint32_t position, uint32_t token, uint64_t attention)
{
    return sim_mix(sim_mix(layer + 1, position), sim_mix(token, attention));
}

static uint32_t sampled_token(const uint64_t last[SIM_LAYERS], const bt_sampling *s,
                              uint32_t position, uint32_t prompt_count, const uint32_t *history)
{
    uint64_t x = sim_mix(s->seed, position);
    for (uint32_t layer = 0; layer < SIM_LAYERS; layer++) x = sim_mix(x, last[layer]);
    for (uint32_t i = 0; i < s->bias_count; i++)
        x = sim_mix(x, s->bias[i].id + (s->bias[i].bias > 0 ? SIM_VOCAB : 0));
    if (bt_sampling_needs_history(s)) {
        x = sim_mix(x, prompt_count);
        for (uint32_t i = 0; i < position; i++) x = sim_mix(x, history[i]);
    }
    uint32_t token = x % 24 == 0 ? SIM_EOS : 10 + (uint32_t)(x % (SIM_VOCAB - 10));
    bool stops = token == SIM_EOS || bt_sampling_stops(s, token);
    return stops && position - prompt_count < s->min_tokens ? SIM_UNSTOPPED : token;
}

/* Of `next` after a token with these KV words. */
static float score_of(const uint64_t last[SIM_LAYERS], uint32_t next)
{
    uint64_t x = next;
    for (uint32_t layer = 0; layer < SIM_LAYERS; layer++) x = sim_mix(x, last[layer]);
    return -(float)(x % 4096) / 64;
}

void engine_expect(sim_request *request)
{
    uint64_t attention[SIM_LAYERS] = {0}, last[SIM_LAYERS] = {0};
    request->expected_count = 0;
    uint32_t position = 0, token = 0, history[SIM_TOKENS_MAX];
    for (;;) {
        if (position < request->prompt_count) token = request->prompt[position];
        history[position] = token;
        for (uint32_t layer = 0; layer < SIM_LAYERS; layer++) {
            last[layer] = kv_word(layer, position, token, attention[layer]);
            attention[layer] += attention_term(last[layer], position);
        }
        position++;
        if (position < request->prompt_count) {
            request->expected_scores[position] = score_of(last, request->prompt[position]);
            continue;
        }
        token = sampled_token(last, &request->sampling, position, request->prompt_count, history);
        request->expected[request->expected_count++] = token;
        if (request->expected_count == request->max_tokens) return;
        if (token == SIM_EOS && !request->ignore_eos) return;
        if (bt_sampling_stops(&request->sampling, token)) return;
    }
}

uint64_t *engine_value(sim_node *node, const uint32_t *blocks, uint32_t layer, uint32_t token)
{
    uint32_t block_tokens = node_block_tokens(node);
    uint32_t block = blocks[token / block_tokens];
    assert(block < SIM_POOL_MAX);
    return &node->pool[block].value[layer][token % block_tokens];
}

bt_status engine_submit(sim_node *node, const bt_engine_batch *batch)
{
    world *w = node->world;
    sim_engine *engine = &node->engine;
    if (engine->busy) return BT_AGAIN;
    assert(batch->seq_count > 0 && batch->seq_count <= 8);
    if (world_chance(w, w->sc.again)) {
        tally_corner(w, CORNER_AGAIN);
        return BT_AGAIN;
    }
    if (world_chance(w, w->sc.engine_fail)) return BT_ERR_NO_MEMORY;
    engine->busy = true;
    engine->batch = batch->batch;
    engine->started_ns = w->now_ns;
    engine->seq_count = batch->seq_count;
    uint32_t tokens = 0;
    for (uint32_t i = 0; i < batch->seq_count; i++) {
        const bt_engine_seq *seq = &batch->seqs[i];
        uint32_t end = seq->position + seq->token_count;
        assert(seq->token_count > 0 && end <= SIM_TOKENS_MAX + BT_RUN_TOKENS);
        assert(seq->block_count * node_block_tokens(node) >= end &&
               seq->block_count <= SIM_TOKENS_MAX);
        engine->seqs[i] = *seq;
        memcpy(engine->tokens[i], seq->tokens, seq->token_count * sizeof(uint32_t));
        memcpy(engine->blocks[i], seq->blocks, seq->block_count * sizeof(uint32_t));
        tokens += seq->token_count;
    }
    sim_event *event =
        world_schedule(w, 200000 + tokens * (w->sc.slow_engine ? 10000000ull : 20000ull), EV_ENGINE,
                       node->index, 0);
    event->a_incarnation = node->incarnation;
    return BT_OK;
}

static void compute_layer(sim_node *node, uint32_t i, uint32_t layer)
{
    const bt_engine_seq *seq = &node->engine.seqs[i];
    const uint32_t *blocks = node->engine.blocks[i];
    uint64_t attention = 0;
    for (uint32_t s = 0; s < seq->position; s++)
        attention += attention_term(*engine_value(node, blocks, layer, s), s);
    for (uint32_t t = 0; t < seq->token_count; t++) {
        uint32_t position = seq->position + t;
        uint64_t word = kv_word(layer, position, node->engine.tokens[i][t], attention);
        *engine_value(node, blocks, layer, position) = word;
        attention += attention_term(word, position);
    }
}

static void tell(sim_node *node, const bt_engine_event *event)
{
    if (node->role == BT_ROLE_PREFILL)
        bt_prefill_core_engine_event(node->prefill, event, node->world->now_ns);
    else
        bt_decode_core_engine_event(node->decode, event, node->world->now_ns);
}

/* The scores of sequence i, as the real engine tells them: from its own memory. */
static bt_engine_event score_event(sim_node *node, uint32_t i, const bt_engine_event *base)
{
    sim_engine *engine = &node->engine;
    const bt_engine_seq *seq = &engine->seqs[i];
    bt_engine_event event = *base;
    event.kind = BT_ENGINE_SCORES;
    event.handle = seq->handle;
    event.scores = engine->scores[i];
    event.score_count = seq->score_count;
    for (uint32_t k = 0; k < seq->score_count; k++) {
        uint64_t words[SIM_LAYERS];
        for (uint32_t l = 0; l < SIM_LAYERS; l++)
            words[l] = *engine_value(node, engine->blocks[i], l, seq->position + k);
        engine->scores[i][k] =
            (bt_token){.id = seq->score_next[k], .logprob = score_of(words, seq->score_next[k])};
    }
    if (world_chance(node->world, node->world->sc.broken_logits)) event.status = BT_ERR_FORMAT;
    return event;
}

/* Step l < SIM_LAYERS computes layer l of every sequence; the step after the last samples and ends
 * the batch. Reading and writing the pool only now, not at submit, is the point: a core that frees
 * blocks under a running batch is seen. */
void engine_step(sim_node *node, const sim_event *event)
{
    world *w = node->world;
    sim_engine *engine = &node->engine;
    bt_engine_event out = {
        .batch = engine->batch, .time_ns = w->now_ns, .started_ns = engine->started_ns};
    uint32_t layer = (uint32_t)event->arg;
    if (layer < SIM_LAYERS) {
        for (uint32_t i = 0; i < engine->seq_count; i++) compute_layer(node, i, layer);
        sim_event *next = world_schedule(w, 100000, EV_ENGINE, node->index, 0);
        next->arg = layer + 1;
        next->a_incarnation = node->incarnation;
        out.kind = BT_ENGINE_LAYER_DONE;
        out.layer = layer;
        tell(node, &out);
        return;
    }
    /* The results leave the engine before the core hears of them: the core may submit from inside
     * the last event. */
    uint32_t count = engine->seq_count;
    bt_engine_event tokens[8], scores[8];
    for (uint32_t i = 0; i < count; i++) {
        const bt_engine_seq *seq = &engine->seqs[i];
        if (seq->score_count > 0) scores[i] = score_event(node, i, &out);
        tokens[i] = out;
        tokens[i].kind = BT_ENGINE_TOKEN;
        tokens[i].handle = seq->handle;
        uint32_t last = seq->position + seq->token_count - 1;
        uint64_t words[SIM_LAYERS];
        for (uint32_t l = 0; l < SIM_LAYERS; l++)
            words[l] = *engine_value(node, engine->blocks[i], l, last);
        tokens[i].status = seq->sample ? BT_OK : BT_AGAIN;
        if (!seq->sample) continue;
        /* History and rows are the core's memory, read as late as the real engine may. */
        uint32_t id =
            sampled_token(words, &seq->sampling, last + 1, seq->prompt_count, seq->history);
        tokens[i].token = (bt_token){.id = id, .logprob = -1.0f};
        if (world_chance(w, w->sc.broken_logits)) tokens[i].status = BT_ERR_FORMAT;
    }
    engine->busy = false;
    out.kind = BT_ENGINE_BATCH_DONE;
    if (world_chance(w, w->sc.engine_fail)) {
        out.status = BT_ERR_NO_MEMORY;
        tell(node, &out);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        if (engine->seqs[i].score_count > 0) tell(node, &scores[i]);
    for (uint32_t i = 0; i < count; i++) {
        if (tokens[i].status != BT_AGAIN) tell(node, &tokens[i]);
    }
    tell(node, &out);
}
