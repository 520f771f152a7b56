/* generate.c - see generate.h. A sequence owns all blocks of its pool, in order. */
#include "common/engine/generate.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_TOKENS_DEFAULT 256u
#define SEQUENCE 1u

struct bt_generator {
    bt_model_config model;
    bt_engine *prefill; /* the same as decode without a handoff */
    bt_engine *decode;
    bt_wire_shape wire;
    uint32_t chunk_tokens, context_tokens;
    uint32_t *blocks;  /* 0, 1, 2 …: the table of either engine */
    uint32_t *history; /* [context_tokens] prompt and output */
    uint8_t *frame;    /* room for one layer of a whole context in wire form */
};

static uint32_t table_blocks(const bt_engine *engine, uint32_t tokens)
{
    uint32_t block_tokens = bt_engine_kv(engine)->shape.block_tokens;
    return (tokens + block_tokens - 1) / block_tokens;
}

static uint32_t context_of(const bt_model *model, const bt_generator_config *config)
{
    uint32_t context = bt_model_config_of(model)->context_tokens_max;
    if (context > BT_CONTEXT_TOKENS_MAX) context = BT_CONTEXT_TOKENS_MAX;
    uint32_t wanted = config->context_tokens_max;
    return wanted > 0 && wanted < context ? wanted : context;
}

static bt_status create_engine(const bt_model *model, const bt_generator_config *config,
                               bt_dtype kv_dtype, uint32_t block_tokens, bt_engine **ret_engine,
                               bt_err *err)
{
    uint32_t context = context_of(model, config);
    uint32_t chunk = config->chunk_tokens ? config->chunk_tokens : CHUNK_TOKENS_DEFAULT;
    if (block_tokens == 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "blocks of 0 tokens: allowed are 16, 32 and 64");
    const bt_engine_config engine_config = {
        .backend = config->backend ? config->backend : "cpu",
        .kv_dtype = kv_dtype,
        .block_tokens = block_tokens,
        .pool_blocks = (context + block_tokens - 1) / block_tokens,
        .batch_seqs_max = 1,
        .batch_tokens_max = chunk,
        .context_tokens_max = context,
        .threads = config->threads,
        .compute = config->compute,
        .kernels = config->kernels,
    };
    return bt_engine_create(model, &engine_config, ret_engine, err);
}

static bt_status create_engines(const bt_model *model, const bt_generator_config *config,
                                bt_generator *self, bt_err *err)
{
    bt_status status =
        create_engine(model, config, config->kv_dtype, config->block_tokens, &self->decode, err);
    if (status != BT_OK) return status;
    const bt_kv_shape *shape = &bt_engine_kv(self->decode)->shape;
    self->prefill = self->decode;
    if (!config->handoff) return BT_OK;
    self->prefill = NULL;
    bt_dtype kv_dtype = config->prefill_kv_dtype ? config->prefill_kv_dtype : shape->dtype;
    status =
        create_engine(model, config, kv_dtype, config->prefill_block_tokens, &self->prefill, err);
    if (status != BT_OK) return status;
    self->wire = (bt_wire_shape){.dtype = config->wire ? config->wire : shape->dtype,
                                 .head_dim = shape->head_dim};
    return BT_OK;
}

bt_status bt_generator_create(const bt_model *model, const bt_generator_config *config,
                              bt_generator **ret_generator, bt_err *err)
{
    bt_generator *self = calloc(1, sizeof(*self));
    if (!self) return BT_FAIL(err, BT_ERR_NO_MEMORY, "a generator");
    self->model = *bt_model_config_of(model);
    self->chunk_tokens = config->chunk_tokens ? config->chunk_tokens : CHUNK_TOKENS_DEFAULT;
    bt_status status = create_engines(model, config, self, err);
    if (status != BT_OK) {
        bt_generator_destroy(self);
        return status;
    }
    uint32_t context = self->context_tokens = context_of(model, config);
    uint32_t blocks = context / 16 + 1, runs = (context + BT_RUN_TOKENS - 1) / BT_RUN_TOKENS;
    self->blocks = malloc(blocks * sizeof(uint32_t));
    self->history = malloc(context * sizeof(uint32_t));
    size_t frame_bytes =
        config->handoff ? bt_wire_frame_bytes(&self->wire, runs, self->model.kv_heads) : 1;
    self->frame = frame_bytes ? aligned_alloc(64, (frame_bytes + 63) & ~(size_t)63) : NULL;
    if (!self->blocks || !self->history || !self->frame) {
        bt_generator_destroy(self);
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%zu bytes for a frame", frame_bytes);
    }
    for (uint32_t i = 0; i < blocks; i++) self->blocks[i] = i;
    *ret_generator = self;
    return BT_OK;
}

void bt_generator_destroy(bt_generator *self)
{
    if (!self) return;
    if (self->prefill != self->decode) bt_engine_destroy(self->prefill);
    bt_engine_destroy(self->decode);
    free(self->blocks);
    free(self->history);
    free(self->frame);
    free(self);
}

/* Submits one batch of one sequence and waits for its end; ret_token if it samples, ret_scores
 * [score_count] if it scores. */
static bt_status run_batch(bt_engine *engine, const bt_engine_seq *seq, bt_token *ret_token,
                           bt_token *ret_scores, bt_err *err)
{
    const bt_engine_batch batch = {.seq_count = 1, .seqs = seq};
    bt_status status = bt_engine_submit(engine, &batch, err);
    if (status != BT_OK) return status;
    for (;;) {
        bt_engine_event event;
        bt_engine_wait(engine);
        while (bt_engine_poll(engine, &event, 1) == 1) {
            if (event.status != BT_OK) status = event.status;
            if (event.kind == BT_ENGINE_TOKEN) *ret_token = event.token;
            if (event.kind == BT_ENGINE_SCORES && event.status == BT_OK)
                memcpy(ret_scores, event.scores, event.score_count * sizeof(bt_token));
            if (event.kind != BT_ENGINE_BATCH_DONE) continue;
            if (status == BT_OK) return BT_OK;
            return BT_FAIL(err, status, "the model's logits are not finite");
        }
    }
}

/* Computes the prompt in chunks and samples once after it; ret_scores NULL = without scores. */
static bt_status run_prompt(bt_generator *self, const bt_prompt *prompt,
                            const bt_sampling *sampling, bt_token *ret_token, bt_token *ret_scores,
                            bt_err *err)
{
    if (prompt->count == 0) return BT_FAIL(err, BT_ERR_ARGUMENT, "the prompt has no tokens");
    if (prompt->count > self->context_tokens)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "a prompt of %u tokens: the context is %u",
                       prompt->count, self->context_tokens);
    for (uint32_t done = 0; done < prompt->count;) {
        uint32_t left = prompt->count - done;
        uint32_t count = left < self->chunk_tokens ? left : self->chunk_tokens;
        const bt_engine_seq seq = {.handle = SEQUENCE,
                                   .position = done,
                                   .token_count = count,
                                   .tokens = prompt->ids + done,
                                   .blocks = self->blocks,
                                   .block_count = table_blocks(self->prefill, done + count),
                                   .sample = count == left,
                                   .sampling = *sampling,
                                   .history = prompt->ids,
                                   .prompt_count = prompt->count,
                                   .score_next = prompt->ids + done + 1,
                                   .score_count = !ret_scores ? 0 : count - (count == left)};
        bt_status status =
            run_batch(self->prefill, &seq, ret_token, ret_scores ? ret_scores + done : NULL, err);
        if (status != BT_OK) return status;
        done += count;
    }
    return BT_OK;
}

/* Moves the KV of the prompt from the prefill engine into the decode engine, layer by layer. */
static bt_status hand_off(bt_generator *self, uint32_t tokens, bt_err *err)
{
    static const uint8_t key[BT_KEY_BYTES] = {1};
    for (uint32_t layer = 0; layer < self->model.layers; layer++) {
        const bt_frame frame = {.frame = layer,
                                .layer = layer,
                                .run_count = (tokens + BT_RUN_TOKENS - 1) / BT_RUN_TOKENS,
                                .head_count = self->model.kv_heads,
                                .token_end = tokens};
        bt_kv_digest packed, unpacked;
        bt_status status = bt_engine_pack(self->prefill, &self->wire, &frame, self->blocks, key,
                                          self->frame, &packed, err);
        if (status != BT_OK) return status;
        status = bt_engine_unpack(self->decode, &self->wire, &frame, self->blocks, key, self->frame,
                                  &unpacked, err);
        if (status != BT_OK) return status;
        assert(packed.lane[0] == unpacked.lane[0] && packed.lane[1] == unpacked.lane[1]);
    }
    return BT_OK;
}

static bool is_eos(const bt_model_config *model, uint32_t id)
{
    for (uint32_t i = 0; i < model->eos_count; i++)
        if (model->eos_ids[i] == id) return true;
    return false;
}

bt_status bt_generate(bt_generator *self, const bt_prompt *prompt,
                      const bt_generate_options *options, bt_token *ret_tokens, uint32_t *ret_count,
                      bt_err *err)
{
    if (options->max_tokens == 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "max_tokens must be at least 1");
    bt_status status = run_prompt(self, prompt, &options->sampling, &ret_tokens[0], NULL, err);
    if (status != BT_OK) return status;
    if (self->prefill != self->decode) {
        status = hand_off(self, prompt->count, err);
        if (status != BT_OK) return status;
    }
    memcpy(self->history, prompt->ids, prompt->count * sizeof(uint32_t));
    uint32_t count = 1;
    while (count < options->max_tokens) {
        const bt_token *last = &ret_tokens[count - 1];
        uint32_t position = prompt->count + count - 1;
        if (!options->ignore_eos && is_eos(&self->model, last->id)) break;
        if (bt_sampling_stops(&options->sampling, last->id)) break;
        if (position >= self->context_tokens) break;
        self->history[position] = last->id;
        const bt_engine_seq seq = {.handle = SEQUENCE,
                                   .position = position,
                                   .token_count = 1,
                                   .tokens = &self->history[position],
                                   .blocks = self->blocks,
                                   .block_count = table_blocks(self->decode, position + 1),
                                   .sample = true,
                                   .sampling = options->sampling,
                                   .history = self->history,
                                   .prompt_count = prompt->count};
        status = run_batch(self->decode, &seq, &ret_tokens[count], NULL, err);
        if (status != BT_OK) return status;
        count++;
    }
    *ret_count = count;
    return BT_OK;
}

bt_status bt_generate_logits(bt_generator *self, const bt_prompt *prompt, const float **ret_logits,
                             bt_err *err)
{
    bt_token token;
    const bt_sampling greedy = {.top_p = 1};
    bt_status status = run_prompt(self, prompt, &greedy, &token, NULL, err);
    if (status != BT_OK) return status;
    *ret_logits = bt_engine_logits(self->prefill, SEQUENCE);
    return BT_OK;
}

bt_status bt_generate_scores(bt_generator *self, const bt_prompt *prompt, uint32_t top_logprobs,
                             bt_token *ret_scores, bt_err *err)
{
    bt_token token;
    const bt_sampling sampling = {.top_p = 1, .top_logprobs = top_logprobs};
    return run_prompt(self, prompt, &sampling, &token, ret_scores, err);
}
