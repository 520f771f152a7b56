/* rmsnorm_cuda.h - rmsnorm.h on a GPU: residual add, norm, and the matrix product's input dtype at once.
 *
 *     x = x + delta;   out = x / sqrt(mean(x^2) + eps) * w
 *
 *   x      [rows][n]  f32 or bf16, updated in place if delta is not NULL
 *   delta  [rows][n]  bf16, or NULL for none
 *   w      [n]        bf16
 *   pick   [rows]     u32, the row of x and delta that each row of out is made of, all different; NULL:
 *                     row i of row i. For the last norm, of only the tokens whose logits are wanted
 *   out    [rows][n]  bf16 or e4m3 (kernels/activation_cuda.h)
 * n is a multiple of 8 and at most 16384; all pointers are 16-byte aligned device memory. A row depends on
 * itself and n only.
 *
 * STREAM  x of f32 is what the CPU engine has, and what makes logits agree with a reference in f32: a
 *         bf16 stream is rounded to 8 bits at each of 2 * layers additions. It costs 4 bytes more of 12 per
 *         element: measured, 1.4 us of a norm of 256 rows and 11 of one of 2048, so in a model of 32 layers
 *         0.1 ms of a decode step of batch 256 and 0.7 ms of 2,048 tokens' prefill. x of bf16 is rounded
 *         after the addition and the norm is of the rounded x, as in transformers. */
#ifndef BT_KERNELS_RMSNORM_RMSNORM_CUDA_H
#define BT_KERNELS_RMSNORM_RMSNORM_CUDA_H

#include "common/base/dtype.h"
#include "kernels/activation_cuda.h"
#include "kernels/cuda.h"

#include <stdint.h>

typedef struct {
    void *x;
    bt_dtype x_dtype;
    const void *delta;
    const void *w;
    const uint32_t *pick;
    bt_activation out;
    uint32_t rows, n;
    float eps;
} bt_rmsnorm_cuda_args;

bt_status bt_rmsnorm_cuda(const bt_rmsnorm_cuda_args *op, cudaStream_t stream, bt_err *err);

#endif
