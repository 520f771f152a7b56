/* linear_w4_cuda.h - linear_w4.h on a GPU.
 *
 *     y[i][j] = sum over l of x[i][l] * w[j][l]
 *
 *   x  [m][k]  bf16, row-major, 16-byte aligned
 *   w          made by bt_w4_pack_cuda, 256-byte aligned
 *   y  [m][n]  bf16, row-major, 16-byte aligned
 * n is a multiple of 8, k of 128: so are those of Llama, Mistral and Qwen from 0.5 B up, and of their shards as
 * long as k / shards is a multiple of 128. Any m.
 *
 * FLOW    at load: bt_w4_pack_cuda once for each matrix, then synchronize
 *         for each product: bt_linear_w4_cuda
 * VALUES  INT4, up to 16 rows of x: a group's sum of x * (code - zero) in f32, times the scale as it was stored, added
 *         in f32. Beyond, on Hopper, w is rounded to bf16 (the scale and the product, each by 2^-9 of itself
 *         at most) before it meets the tensor cores. NVFP4's weights are exact in bf16 for any m. The same
 *         call gives the same bits each time.
 * OVERLAP A launch may begin before the kernel ahead of it in the stream has ended (programmatic dependent
 *         launch): weights are fetched at once, x is read and y written when it has ended. So weights must not be
 *         written by the stream that is running: synchronize after packing. */
#ifndef BT_KERNELS_LINEAR_LINEAR_W4_CUDA_H
#define BT_KERNELS_LINEAR_LINEAR_W4_CUDA_H

#include "kernels/cuda.h"
#include "kernels/linear/linear_w4.h"

/* What bt_w4_pack_cuda or bt_w4_pack_nvfp4_cuda made. */
typedef enum { BT_W4_INT4, BT_W4_NVFP4 } bt_w4_format;

typedef struct {
    const void *w;
    const void *x;
    void *y;
    bt_w4_format format;
    float factor; /* of every y: NVFP4's global; 1 for INT4 */
    uint32_t m, n, k;
    uint32_t sms; /* multiprocessors of the card */
    int arch;     /* bt_cuda_arch() */
} bt_linear_w4_args;

bt_status bt_linear_w4_cuda(const bt_linear_w4_args *op, cudaStream_t stream, bt_err *err);

/* w: its pointers are device memory. ret: bt_w4_bytes(n, k). */
bt_status bt_w4_pack_cuda(const bt_w4 *w, void *ret, cudaStream_t stream, bt_err *err);

/* The same of NVFP4. ret: bt_w4_nvfp4_bytes(rows, k). k is a multiple of 128. */
bt_status bt_w4_pack_nvfp4_cuda(const bt_nvfp4 *w, void *ret, cudaStream_t stream, bt_err *err);

#endif
