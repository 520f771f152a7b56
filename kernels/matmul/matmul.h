/* matmul.h - activations times a weight matrix, as checkpoints store it.
 *
 *     y[i][j] = sum over l of x[i][l] * w[j][l]
 *
 *   x  [m] rows of k f32, x_stride elements apart
 *   w  [n][k]  f32 | f16 | bf16, row-major, any alignment
 *   y  [m] rows of n f32, y_stride elements apart; must not overlap x
 * Computes the columns [n_first, n_end) only, so that threads can share one product.
 * VALUES  y[i][j] depends on row i of x, row j of w and k: never on m, n or the range of columns.
 *         The reference adds in f64. AVX2 adds f32 in the lanes kernels/avx2.h states; it stays
 *         within k * 2^-24 * sum |x * w| of the reference. */
#ifndef BT_KERNELS_MATMUL_MATMUL_H
#define BT_KERNELS_MATMUL_MATMUL_H

#include "common/base/dtype.h"

#include <stdint.h>

typedef struct {
    const float *x;
    const void *w;
    float *y;
    bt_dtype w_dtype;
    uint32_t m, n, k;
    uint32_t x_stride, y_stride;
} bt_matmul;

typedef void bt_matmul_fn(const bt_matmul *op, uint32_t n_first, uint32_t n_end);

bt_matmul_fn bt_matmul_ref, bt_matmul_avx2;

#endif
