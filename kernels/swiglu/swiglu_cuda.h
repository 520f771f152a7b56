/* swiglu_cuda.h - swiglu.h on a GPU, from the fused gate and up product to the next product's input dtype.
 *
 *     out = gate / (1 + e^-gate) * up
 *
 *   gate_up  [rows][2 n]  bf16; groups of `group` gates and as many ups take turns:
 *              group n    all gates, then all ups: the product of [gate; up] as checkpoints have them
 *              group 1    gate 0, up 0, gate 1, up 1, …: rows of the weights interleaved
 *              group 8 k  in between: rows of the weights interleaved by tiles
 *   out      [rows][n]    bf16 or e4m3 (kernels/activation_cuda.h)
 * n is a multiple of 8 and at most 32768, and a multiple of group; pointers are 16-byte aligned device
 * memory. A row depends on itself and n only. */
#ifndef BT_KERNELS_SWIGLU_SWIGLU_CUDA_H
#define BT_KERNELS_SWIGLU_SWIGLU_CUDA_H

#include "kernels/activation_cuda.h"
#include "kernels/cuda.h"

#include <stdint.h>

typedef struct {
    const void *gate_up;
    bt_activation out;
    uint32_t rows, n, group;
} bt_swiglu_cuda_args;

bt_status bt_swiglu_cuda(const bt_swiglu_cuda_args *op, cudaStream_t stream, bt_err *err);

#endif
