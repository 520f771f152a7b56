/* quantize_cuda.h - rows of bf16 to the e4m3 rows that an FP8 product takes, where no norm or gate is on the
 * way: what attention gives the O projection.
 *   x    [rows][n]  bf16
 *   out  [rows][n]  e4m3, by token or by tensor (kernels/activation_cuda.h); never bf16
 * n is a multiple of 8 and at most 32768; pointers are 16-byte aligned device memory. */
#ifndef BT_KERNELS_QUANTIZE_QUANTIZE_CUDA_H
#define BT_KERNELS_QUANTIZE_QUANTIZE_CUDA_H

#include "kernels/activation_cuda.h"
#include "kernels/cuda.h"

#include <stdint.h>

typedef struct {
    const void *x;
    bt_activation out;
    uint32_t rows, n;
} bt_quantize_cuda_args;

bt_status bt_quantize_cuda(const bt_quantize_cuda_args *op, cudaStream_t stream, bt_err *err);

#endif
