/* sampling.h - what a request asks of the sampler, and what the sampler answers.
 *
 * The sampler is counter-based: the random number of a token depends on (seed, position) only, and
 * penalties are computed from the tokens themselves. So any daemon continues a sequence exactly
 * where another stopped, and no sampler state ever moves between machines.
 *
 * ORDER   of what happens to the logits of one token, as vLLM documents it:
 *           1 min_tokens              EOS ids of the model and stop_ids cannot be chosen while fewer
 *                                     than min_tokens output tokens exist, ignore_eos or not
 *           2 logit_bias              logit + bias
 *           3 repetition_penalty r    tokens of prompt and output: logit > 0 ? logit / r : logit * r
 *           4 frequency_penalty f     output tokens: logit - f * how often
 *           5 presence_penalty p      output tokens: logit - p
 *           6 temperature             0 is greedy: the highest of 5, and the rest is ignored
 *           7 min_p                   keeps probability >= min_p * that of the most likely
 *           8 top_k, top_p            keep the k most likely; of those the smallest set, most likely
 *                                     first, whose share of them reaches p
 *           9 the draw
 *         Output is what this request generated so far, committed tokens of earlier attempts
 *         included; the rest is prompt.
 * LOGPROBS are of the logits before 1: the unmodified distribution (vLLM's raw_logprobs).
 * ZERO    {.top_p = 1} is greedy with everything off: 0 is off in every other field, on the wire too. */
#ifndef BT_COMMON_BASE_SAMPLING_H
#define BT_COMMON_BASE_SAMPLING_H

#include <stdbool.h>
#include <stdint.h>

#define BT_TOP_LOGPROBS_MAX 20u
#define BT_LOGPROB_NONE (-9999.0f) /* of a prompt token that the model holds impossible */
#define BT_LOGIT_BIAS_MAX 300u /* rows, as OpenAI's API */
#define BT_STOP_IDS_MAX 16u
#define BT_TEMPERATURE_MAX 100.0f
#define BT_BIAS_MAX 100.0f  /* either sign */
#define BT_PENALTY_MAX 2.0f /* presence and frequency, either sign */
#define BT_REPETITION_PENALTY_MIN 0.01f
#define BT_REPETITION_PENALTY_MAX 100.0f

typedef struct {
    uint32_t id;
    float bias; /* -BT_BIAS_MAX .. BT_BIAS_MAX */
} bt_logit_bias;

typedef struct {
    float temperature;        /* 0 is greedy .. BT_TEMPERATURE_MAX */
    float top_p;              /* (0, 1], 1 is off */
    float min_p;              /* [0, 1], 0 is off */
    uint32_t top_k;           /* 0 is off */
    float repetition_penalty; /* BT_REPETITION_PENALTY_MIN .. _MAX; 0 and 1 are off */
    float presence_penalty;   /* -BT_PENALTY_MAX .. BT_PENALTY_MAX */
    float frequency_penalty;  /* the same */
    uint32_t min_tokens;      /* output tokens before EOS and stop_ids may come */
    bool logprobs;            /* report the token's logprob; without it, it may be 0 */
    uint32_t top_logprobs;    /* alternatives to report, 0 .. BT_TOP_LOGPROBS_MAX; needs logprobs */
    uint64_t seed;
    uint32_t stop_count;
    uint32_t stop_ids[BT_STOP_IDS_MAX]; /* end the output as EOS does, with ignore_eos too */
    uint32_t bias_count;
    const bt_logit_bias *bias; /* [bias_count], ascending ids, none twice; borrowed */
} bt_sampling;

typedef struct {
    uint32_t id;
    float logprob; /* natural log, of the unmodified distribution (temperature 1, no filters) */
} bt_token_alternative;

typedef struct {
    uint32_t id;
    float logprob;
    uint32_t top_count; /* as asked, most likely first */
    bt_token_alternative top[BT_TOP_LOGPROBS_MAX];
} bt_token;

/* NULL if every field is in range and every id is below vocab, else the name of one that is not. */
const char *bt_sampling_fault(const bt_sampling *sampling, uint32_t vocab);

/* True if tokens so far change the logits: the engine then needs the sequence's history. */
bool bt_sampling_needs_history(const bt_sampling *sampling);

/* True if id is one of stop_ids. */
bool bt_sampling_stops(const bt_sampling *sampling, uint32_t id);

/* Field by field, what bias points to included. */
bool bt_sampling_equal(const bt_sampling *a, const bt_sampling *b);

/* A copy that borrows rows[BT_LOGIT_BIAS_MAX] of the caller instead of the original's rows. */
bt_sampling bt_sampling_copy(const bt_sampling *sampling, bt_logit_bias *rows);

#endif
