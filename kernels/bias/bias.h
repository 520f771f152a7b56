/* bias.h - adds a bias to the rows of a product.
 *
 *     y[i][j] = y[i][j] + b[j]
 *
 *   y  [rows] of n f32, stride elements apart, updated in place
 *   b  [n]  f32 | f16 | bf16, any alignment
 * Computes the columns [first, end) of every row. Each element depends on its two inputs only. */
#ifndef BT_KERNELS_BIAS_BIAS_H
#define BT_KERNELS_BIAS_BIAS_H

#include "common/base/dtype.h"

typedef struct {
    float *y;
    const void *b;
    bt_dtype b_dtype;
    uint32_t rows, stride;
} bt_bias;

typedef void bt_bias_fn(const bt_bias *op, uint32_t first, uint32_t end);

bt_bias_fn bt_bias_ref, bt_bias_avx2;

#endif
