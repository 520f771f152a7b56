/* sample.h - logits to one token, with its probability in the unmodified distribution.
 *
 * FLOW    raw logits: are they broken, log of the sum of exponentials, alternatives -> processors
 *         (common/base/sampling.h says which and in what order) -> the highest, or filters and the
 *         draw. The passes over all of the vocabulary are those of a bt_sample_passes; what is left
 *         after a filter is small.
 * COST    Over the vocabulary: one pass for the highest; one for logprobs, if asked for; one or two
 *         for the draw. Penalties cost what the history is long, not the vocabulary.
 * TIES    go to the lower id, everywhere. A logit of NaN or -inf is never chosen or listed, so every
 *         logprob is finite.
 * DRAW    over the tokens that the filters leave, in order of their ids. */
#ifndef BT_KERNELS_SAMPLE_SAMPLE_H
#define BT_KERNELS_SAMPLE_SAMPLE_H

#include "common/base/sampling.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Passes over x [n]. Every variant gives the same bits: a token depends on its logits, not on the
 * kernels that sampled it. */
typedef struct {
    /* The highest that is no NaN; -inf if there is none. */
    float (*highest)(const float *x, uint32_t n);
    /* Sum of bt_sample_exp((x - top) / temperature), NaN left out. top is finite and none is higher,
     * temperature > 0. In f64: lane i of eight takes i, i + 8, …, and the lanes are added as
     * ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)). */
    double (*exp_sum)(const float *x, uint32_t n, float top, float temperature);
    /* The first index from `from` on with x > bar, n if there is none. */
    uint32_t (*above)(const float *x, uint32_t n, uint32_t from, float bar);
} bt_sample_passes;

extern const bt_sample_passes bt_sample_passes_ref, bt_sample_passes_avx2;

typedef struct {
    float *logits; /* [vocab] f32; changed while it runs, as before on return */
    uint32_t vocab;
    const bt_sampling *sampling;
    /* Of the sampled token in its sequence = tokens before it. The random number is a function of
     * (seed, position) only, so any engine continues a sequence where another stopped. */
    uint32_t position;
    uint32_t prompt_count;   /* of those tokens, the rest is output; <= position */
    const uint32_t *history; /* [position] those tokens; NULL unless bt_sampling_needs_history */
    const uint32_t *eos_ids; /* [eos_count] of the model, for min_tokens */
    uint32_t eos_count;
} bt_sample_op;

size_t bt_sample_scratch_bytes(uint32_t vocab);

/* scratch: bt_sample_scratch_bytes(vocab), 8-byte aligned, of this thread. Returns false if no logit
 * is finite or one is +inf, before or after the processors: the model or its input is broken. */
bool bt_sample(const bt_sample_passes *passes, const bt_sample_op *op, void *scratch,
               bt_token *ret_token);

/* The logprob of token id, which is chosen already, and of the top_count most likely, in the
 * distribution of logits [vocab]; BT_LOGPROB_NONE if the model gives it no probability at all. Returns
 * false as bt_sample does. */
bool bt_sample_score(const bt_sample_passes *passes, const float *logits, uint32_t vocab,
                     uint32_t id, uint32_t top_count, bt_token *ret_token);

/* Uniform in [0, 1): 53 bits of two rounds of the SplitMix64 finalizer over seed and position. */
double bt_sample_uniform(uint64_t seed, uint32_t position);

#endif
