/* generate.h - one sequence from prompt to end in one process: what every way of serving must equal
 * token for token.
 *
 * FLOW    create -> generate | logits, any number of times -> destroy
 * HANDOFF With `handoff` there are two engines, as in a fleet: one with the prefill daemon's KV
 *         dtype and block size computes the prompt and samples the first token; its KV then goes
 *         through bt_engine_pack and bt_engine_unpack, in the wire dtype, into the other, which
 *         decodes. Only the network and the daemons are missing.
 * END     After max_tokens, after an EOS id of the model unless ignore_eos, after a stop id, or when
 *         the context is full. The id that ended it is part of the ids; text leaves it out.
 * THREAD  One at a time. Blocks until done. */
#ifndef BT_COMMON_ENGINE_GENERATE_H
#define BT_COMMON_ENGINE_GENERATE_H

#include "common/engine/engine.h"

typedef struct {
    const char *backend;         /* NULL = "cpu" */
    const char *kernels;         /* as in bt_engine_config */
    bt_compute compute;          /* of both engines */
    bt_dtype kv_dtype;           /* of the engine that decodes; NONE = the backend's default */
    uint32_t block_tokens;       /* of the same */
    uint32_t threads;            /* of each engine; 0 = one for each core */
    uint32_t chunk_tokens;       /* prefill chunk; 0 = 256 */
    uint32_t context_tokens_max; /* prompt + output that the pools must hold; 0 = the model's */

    bool handoff;
    bt_dtype prefill_kv_dtype; /* NONE = kv_dtype */
    uint32_t prefill_block_tokens;
    bt_dtype wire; /* NONE = what the decode pool stores */
} bt_generator_config;

typedef struct {
    const uint32_t *ids; /* [count] */
    uint32_t count;
} bt_prompt;

typedef struct {
    bt_sampling sampling;
    uint32_t max_tokens;
    bool ignore_eos;
} bt_generate_options;

typedef struct bt_generator bt_generator;

/* model is borrowed until destroy. */
bt_status bt_generator_create(const bt_model *model, const bt_generator_config *config,
                              bt_generator **ret_generator, bt_err *err);
void bt_generator_destroy(bt_generator *generator);

/* ret_tokens [options->max_tokens]. Errors: ERR_ARGUMENT for an empty or too long prompt, an id
 * beyond the vocabulary or sampling out of range; ERR_FORMAT if the weights make no finite logits. */
bt_status bt_generate(bt_generator *generator, const bt_prompt *prompt,
                      const bt_generate_options *options, bt_token *ret_tokens, uint32_t *ret_count,
                      bt_err *err);

/* Scores of the tokens 1 .. count - 1 of the prompt, into ret_scores [count - 1]: the logprob of each
 * after those before it, and top_logprobs alternatives. Errors: as bt_generate. */
bt_status bt_generate_scores(bt_generator *generator, const bt_prompt *prompt,
                             uint32_t top_logprobs, bt_token *ret_scores, bt_err *err);

/* Logits [vocab] after the last token of the prompt, in the generator's memory until the next call. */
bt_status bt_generate_logits(bt_generator *generator, const bt_prompt *prompt,
                             const float **ret_logits, bt_err *err);

#endif
