/* embedding_cuda.h - embedding.h on a GPU: token ids to rows of the table, which begin the residual stream.
 *   tokens   [rows]      u32, device
 *   table    [vocab][n]  f32 | f16 | bf16
 *   x        [rows][n]   f32 or bf16
 *   ret_bad  one u32     set to 1 if a token is not below vocab, never cleared; such a row is token 0's
 * Tokens that come from a sampler on the device were never seen by the host, hence the flag: nothing is
 * read outside the table. Exact, but for an f32 or f16 table into a bf16 stream, which rounds to nearest.
 * n is a multiple of 8; table and x are 16-byte aligned device memory. */
#ifndef BT_KERNELS_EMBEDDING_EMBEDDING_CUDA_H
#define BT_KERNELS_EMBEDDING_EMBEDDING_CUDA_H

#include "common/base/dtype.h"
#include "kernels/cuda.h"

#include <stdint.h>

typedef struct {
    const uint32_t *tokens;
    const void *table;
    bt_dtype table_dtype;
    void *x;
    bt_dtype x_dtype;
    uint32_t *ret_bad;
    uint32_t rows, n, vocab;
} bt_embedding_cuda_args;

bt_status bt_embedding_cuda(const bt_embedding_cuda_args *op, cudaStream_t stream, bt_err *err);

#endif
