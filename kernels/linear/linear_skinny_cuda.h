/* linear_skinny_cuda.h - products of few rows with a large matrix on a GPU, at the speed of reading it.
 *
 *     y[i][j] = (sum over l of x[i][l] * w[j][l]) * x_scale[i] * w_scale[j] + bias[j] + residual[i][j]
 *
 * WHAT    Decode: m = 1 .. BT_SKINNY_MAX rows. More rows are for linear products by cuBLASLt. The weights
 *         are packed once, at load, into the fragments of the tensor cores' mma.sync, with the
 *         weights as its 16-row operand and the rows of x as its 8 columns; x stays row-major.
 * FLOW    at load: bt_linear_skinny_init once; for each matrix bt_linear_skinny_bytes,
 *                  bt_linear_skinny_pack for each tensor that makes it up
 *                  bt_linear_skinny_plans for each n, k and m in use, and the best of them by a trial
 *         each step: bt_linear_skinny_cuda
 *
 * DTYPES  w         x         products
 *         bf16      bf16      exact, summed in f32
 *         fp8 e4m3  fp8 e4m3  exact (both become f16: mma.sync of e4m3 does no better on Hopper), summed in f32;
 *                             with plan.groups by wgmma, whose sums of 64 k keep 13 bits, those in f32
 *         fp8 e4m3  bf16      exact (w becomes bf16), summed in f32: for m = 1 it reads as fast as fp8
 *                             with fp8, and needs no quantized x
 *         A NaN code of w or x is NaN from sm_89 on and 480 before.
 * LAYOUT  of w, and what n and k may be: linear_skinny.h.
 * OVERLAP With plan.overlap the launch is programmatic: the kernel asks for weights while the one before
 *         it in the stream still runs, and waits for its end before it reads or writes anything else. It lets
 *         its own successor start at once, so a kernel launched so behind it must wait likewise.
 * ORDER   Sums are in a fixed order for given m, n, k and plan: results repeat bit for bit.
 * MEMORY  Pointers to w, x and y are 16-byte aligned device memory. No workspace. */
#ifndef BT_KERNELS_LINEAR_LINEAR_SKINNY_CUDA_H
#define BT_KERNELS_LINEAR_LINEAR_SKINNY_CUDA_H

#include "kernels/cuda.h"
#include "kernels/linear/linear_skinny.h"

#include <stdbool.h>
#include <stdint.h>

#define BT_SKINNY_MAX 64u

typedef struct {
    const void *w;         /* packed, bt_linear_skinny_bytes */
    const void *x;         /* [m][k] */
    void *y;               /* [m][n] */
    const float *w_scale;  /* fp8: [n] if per_channel, else [1]; NULL for 1 */
    const float *x_scale;  /* [m] if per_token, else [1]; NULL for 1 */
    const void *bias;      /* [n] bf16, or NULL */
    const float *residual; /* [m][n] f32, or NULL; may be y */
    uint32_t m, n, k;
    bt_dtype w_dtype, x_dtype; /* BF16 or FP8_E4M3, as DTYPES says */
    bt_dtype y_dtype;          /* BF16 or F32 */
    bool per_channel, per_token;
} bt_linear_skinny_args;

/* How a product is spread over the card. Made by bt_linear_skinny_plans. */
typedef struct {
    uint16_t token_tiles;  /* columns of x, in eights: 1, 2, 4 or 8 */
    uint16_t panels;       /* 16-row panels of one warp */
    uint16_t warps_n;      /* warps beside each other along n */
    uint16_t warps_k;      /* warps that share the k of a tile */
    uint16_t stage_blocks; /* blocks of k in one stage of the ring; 0: the kernel without a ring */
    uint16_t depth;        /* blocks of k that a warp loads ahead, without a ring */
    uint16_t splits;       /* blocks of a cluster that share the k of a tile: 1, 2, 4 or 8 */
    uint32_t grid;         /* thread blocks at most */
    uint32_t shared_bytes; /* of one thread block at most */
    bool groups;           /* products by wgmma; Hopper, fp8 and fp8, with a ring */
    bool overlap; /* start while the kernel before it in the stream ends (programmatic launch) */
} bt_linear_skinny_plan;

/* Raises the limits of shared memory; once for each device, before the first launch. */
bt_status bt_linear_skinny_init(bt_err *err);

/* Plans worth a trial for these shapes and dtypes, the one most likely best first; returns how many, at
 * least one. An engine that does not time them takes the first. sms: multiprocessors of the card; arch:
 * bt_cuda_arch(). */
#define BT_SKINNY_PLANS 6u
unsigned bt_linear_skinny_plans(const bt_linear_skinny_args *op, int arch, int sms,
                                bt_linear_skinny_plan ret_plans[BT_SKINNY_PLANS]);

/* Asynchronous on stream. Errors: ERR_DEVICE. */
bt_status bt_linear_skinny_cuda(const bt_linear_skinny_args *op, const bt_linear_skinny_plan *plan,
                                cudaStream_t stream, bt_err *err);

/* Rows [row, row + rows) of the matrix from a row-major tensor [rows][k] of w_dtype, on the device.
 * The memory of packed is zeroed before the first tensor. Asynchronous on stream. */
bt_status bt_linear_skinny_pack(void *packed, const void *tensor, bt_dtype w_dtype, uint32_t row,
                                uint32_t rows, uint32_t k, cudaStream_t stream, bt_err *err);

#endif
