/* rope.h - rotary position embedding, the half-split layout of Hugging Face Llama (GPT-NeoX).
 *
 *     angle(p, i) = p * frequency(p, i),   i < dims / 2
 *     (x[i], x[i + dims/2])  is turned by angle(position, i) and multiplied by rope->magnitude;
 *     x[dims …] stays as it is
 *
 * Frequencies, with plain(i) = theta^(-2 i / dims):
 *   default  plain(i)
 *   linear   plain(i) / factor                                       (Chen et al. 2023)
 *   dynamic  plain(i) with theta * (factor * n / original - factor + 1)^(dims / (dims - 2)), where
 *            n = max(p + 1, original)                                (bloc97 and emozilla 2023)
 *   llama3   between plain(i) and plain(i) / factor: by how often the pair turns in the original
 *            context, in proportion from low_freq_factor to high_freq_factor turns (Llama 3.1)
 *   yarn     the same, in proportion to the pair's index from the one that turns beta_fast times to
 *            the one that turns beta_slow times                      (Peng et al. 2023)
 *
 * DYNAMIC A frequency follows from the token's own position, as if tokens had come one at a time.
 *         Hugging Face takes the length of the call instead, so its keys depend on how a prompt is
 *         cut; ours must not, or cached and handed-over KV would be worth nothing. Both agree for
 *         prompts within the original context and for what is decoded after them.
 *
 * The table of a batch is made once and serves every layer and head:
 *   frequencies [dims / 2]           f64, of bt_rope_frequencies for position 0
 *   ret_table   [rows][2][dims / 2]  f32: cosines, then sines of the row's position
 *   x           [heads][head_dim]    f32 of one row, updated in place
 * Angles are computed in f64: at position 100,000 an f32 angle is already off by 0.004.
 * Source: Su et al. 2021. */
#ifndef BT_KERNELS_ROPE_ROPE_H
#define BT_KERNELS_ROPE_ROPE_H

#include "common/base/rope.h"

/* Radians per token of each pair, for a token at this position. */
void bt_rope_frequencies(const bt_rope *rope, uint32_t position, double *ret_frequencies);
void bt_rope_table(const bt_rope *rope, const double *frequencies, const uint32_t *positions,
                   uint32_t rows, float *ret_table);
void bt_rope_apply(const float *table_row, uint32_t dims, uint32_t heads, uint32_t head_dim,
                   float *x);

#endif
