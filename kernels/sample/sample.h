/* sample.h - logits to one token, with its probability in the unmodified distribution.
 *
 *   logits    [vocab] f32, not changed
 *   sampling  see common/base/sampling.h; temperature 0 is greedy and ignores the filters
 *   position  of the sampled token in its sequence: the random number is a function of (seed,
 *             position) only, so any engine continues a sequence where another stopped
 *   scratch   bt_sample_scratch_bytes(vocab), 8-byte aligned, of this thread
 * FILTERS In this order: divide by temperature; keep the top_k highest; of those keep the smallest
 *         set, most likely first, whose probability reaches top_p; draw from what is left.
 * TIES    go to the lower id, everywhere. A logit of NaN or -inf is never chosen or listed, so every
 *         logprob is finite.
 * Returns false if no logit is finite or one is +inf: the model or its input is broken. */
#ifndef BT_KERNELS_SAMPLE_SAMPLE_H
#define BT_KERNELS_SAMPLE_SAMPLE_H

#include "common/base/sampling.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

size_t bt_sample_scratch_bytes(uint32_t vocab);

bool bt_sample(const float *logits, uint32_t vocab, const bt_sampling *sampling, uint32_t position,
               void *scratch, bt_token *ret_token);

/* Uniform in [0, 1): 53 bits of two rounds of the SplitMix64 finalizer over seed and position. */
double bt_sample_uniform(uint64_t seed, uint32_t position);

#endif
