/* rope.h - rotary position embedding, the half-split layout of Hugging Face Llama (GPT-NeoX).
 *
 *     angle(p, i) = p * theta^(-2 i / head_dim),   i < head_dim / 2
 *     (x[i], x[i + head_dim/2])  is turned by angle(position, i)
 *
 * The table of a batch is made once and serves every layer and head:
 *   ret_table  [rows][2][head_dim / 2]  f32: cosines, then sines of the row's position
 *   x          [heads][head_dim]        f32 of one row, updated in place
 * Angles are computed in f64: at position 100,000 an f32 angle is already off by 0.004.
 * Source: Su et al. 2021. */
#ifndef BT_KERNELS_ROPE_ROPE_H
#define BT_KERNELS_ROPE_ROPE_H

#include <stdint.h>

void bt_rope_frequencies(double theta, uint32_t head_dim, double *ret_frequencies);
void bt_rope_table(const uint32_t *positions, uint32_t rows, const double *frequencies,
                   uint32_t head_dim, float *ret_table);
void bt_rope_apply(const float *table_row, uint32_t heads, uint32_t head_dim, float *x);

#endif
