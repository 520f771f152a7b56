/* rmsnorm_cuda.h - rmsnorm.h on a GPU: residual add, norm, and the matrix product's input dtype at once.
 *
 *     x = x + delta;   y = x / sqrt(mean(x^2) + eps) * w
 *
 *   x      [rows][n]  f32, updated in place if delta is not NULL
 *   delta  [rows][n]  bf16, or NULL for none
 *   w      [n]        bf16
 *   y      [rows][n]  bf16
 * n is a multiple of 8 and at most 16384; all pointers are 16-byte aligned device memory. */
#ifndef BT_KERNELS_RMSNORM_RMSNORM_CUDA_H
#define BT_KERNELS_RMSNORM_RMSNORM_CUDA_H

#include "kernels/cuda.h"

#include <stdint.h>

typedef struct {
    float *x;
    const void *delta;
    const void *w;
    void *y;
    uint32_t rows, n;
    float eps;
} bt_rmsnorm_cuda_args;

bt_status bt_rmsnorm_cuda(const bt_rmsnorm_cuda_args *op, cudaStream_t stream, bt_err *err);

#endif
