/* linear_int8.h - what the linear_int8_*.c files share; only they may include it.
 *
 * X  Tiles of 12 rows. For each group of 128 k: codes [32][rows] of four k, a signed byte each, in
 *    `words` words of 32 bits; then scales [rows] f32; then offsets [rows] i32: 128 * the sum of the
 *    codes, which the bytes w + 128 of the weights add to every sum too much. */
#ifndef BT_KERNELS_LINEAR_LINEAR_INT8_H
#define BT_KERNELS_LINEAR_LINEAR_INT8_H

#include "kernels/linear/linear.h"

#include "kernels/numerics.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define INT8_QUADS (BT_LINEAR_GROUP / 4)
#define INT8_GROUP_BYTES (BT_LINEAR_GROUP * BT_LINEAR_PANEL + BT_LINEAR_PANEL * sizeof(float))
/* Rows whose x stays in the second-level cache while all panels pass. */
#define INT8_X_BYTES ((size_t)1 << 20)

static inline uint32_t int8_groups(uint32_t k)
{
    return k / BT_LINEAR_GROUP + (k % BT_LINEAR_GROUP != 0);
}

/* Words of 32 bits of one group of a tile, `words` for each quad. */
static inline size_t int8_group_words(uint32_t rows, uint32_t words)
{
    return (size_t)rows * (INT8_QUADS * words + 2);
}

static inline size_t int8_x_bytes(uint32_t m, uint32_t k, uint32_t words)
{
    return int8_groups(k) * int8_group_words(m, words) * sizeof(uint32_t);
}

static inline const int32_t *int8_tile_at(const bt_linear *op, uint32_t row, uint32_t words)
{
    return (const int32_t *)op->x + int8_groups(op->w->k) * int8_group_words(row, words);
}

#endif
