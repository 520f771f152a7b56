/* linear_bf16.h - what the linear_bf16_*.c files that have no AMX share; only they may include it.
 *
 * X  Tiles of 12 rows: [k rounded up to 32][tile's rows] f32 that hold bf16, zeros beyond k. */
#ifndef BT_KERNELS_LINEAR_LINEAR_BF16_H
#define BT_KERNELS_LINEAR_LINEAR_BF16_H

#include "kernels/linear/linear.h"

#include "kernels/numerics.h"

#include <assert.h>
#include <xmmintrin.h>

#define BF16_STEP 32u      /* k of one step of the tile unit */
#define BF16_FLUSH 0x8040u /* MXCSR: subnormal operands and results are zero */

static inline uint32_t bf16_k(uint32_t k)
{
    return (k + BF16_STEP - 1) / BF16_STEP * BF16_STEP;
}

static inline size_t bf16_x_bytes(uint32_t m, uint32_t k)
{
    return (size_t)m * bf16_k(k) * sizeof(float);
}

static inline void bf16_pack_x(const float *x, uint32_t x_stride, uint32_t m, uint32_t k,
                               uint32_t first, uint32_t end, void *ret_x)
{
    for (uint32_t tile = first; tile < end; tile++) {
        uint32_t row = tile * BT_LINEAR_TILE;
        uint32_t rows = m - row < BT_LINEAR_TILE ? m - row : BT_LINEAR_TILE;
        float *at = (float *)ret_x + (size_t)row * bf16_k(k);
        for (uint32_t i = 0; i < rows; i++) {
            const float *from = x + (size_t)(row + i) * x_stride;
            for (uint32_t l = 0; l < k; l++)
                at[(size_t)l * rows + i] = bt_bf16_to_f32(bt_f32_to_bf16(from[l]));
            for (uint32_t l = k; l < bf16_k(k); l++) at[(size_t)l * rows + i] = 0;
        }
    }
}

#endif
