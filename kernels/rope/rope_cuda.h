/* rope_cuda.h - the cosines and sines of a batch (rope.h), from positions that are on the device. Once a
 * step; every layer and head reads the table (kernels/qkv).
 *   frequencies  [dims / 2]           f64, device: bt_rope_frequencies for position 0
 *   positions    [rows]               u32, device; BT_POSITION_NONE has the table of position 0
 *   ret_table    [rows][2][dims / 2]  f32, device
 * Equal to bt_rope_table but for the last bit of few values: angles are f64 in both, and the two libraries'
 * cosines differ by a unit of f64. */
#ifndef BT_KERNELS_ROPE_ROPE_CUDA_H
#define BT_KERNELS_ROPE_ROPE_CUDA_H

#include "common/base/rope.h"
#include "kernels/cuda.h"

#include <stdint.h>

/* The position of a row that fills a batch up to the size its graph was captured for. */
#define BT_POSITION_NONE UINT32_MAX

typedef struct {
    bt_rope rope;
    const double *frequencies;
    const uint32_t *positions;
    float *ret_table;
    uint32_t rows;
} bt_rope_table_cuda_args;

bt_status bt_rope_table_cuda(const bt_rope_table_cuda_args *op, cudaStream_t stream, bt_err *err);

#endif
