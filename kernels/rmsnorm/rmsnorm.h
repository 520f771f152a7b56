/* rmsnorm.h - adds what the last block computed to the residual stream, then normalizes it.
 *
 *     x = x + delta;   y = x / sqrt(mean(x^2) + eps) * w
 *
 *   x      [rows][n]  f32, updated in place
 *   delta  [rows][n]  f32, or NULL for none
 *   w      [n]        f32 | f16 | bf16, any alignment
 *   y      [rows][n]  f32; may be x
 * Computes the rows [first, end). A row depends on itself and n only.
 * Source: Zhang and Sennrich 2019, as in Llama. */
#ifndef BT_KERNELS_RMSNORM_RMSNORM_H
#define BT_KERNELS_RMSNORM_RMSNORM_H

#include "common/base/dtype.h"

#include <stdint.h>

typedef struct {
    float *x;
    const float *delta;
    const void *w;
    float *y;
    bt_dtype w_dtype;
    uint32_t n;
    float eps;
} bt_rmsnorm;

typedef void bt_rmsnorm_fn(const bt_rmsnorm *op, uint32_t first, uint32_t end);

bt_rmsnorm_fn bt_rmsnorm_ref, bt_rmsnorm_avx2;

#endif
