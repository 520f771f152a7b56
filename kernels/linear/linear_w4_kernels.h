/* linear_w4_kernels.h - the kernels behind linear_w4_cuda.h, for its dispatch, and for tests that want one of them. */
#ifndef BT_KERNELS_LINEAR_LINEAR_W4_KERNELS_H
#define BT_KERNELS_LINEAR_LINEAR_W4_KERNELS_H

#include "kernels/linear/linear_w4_cuda.h"

#include <stdbool.h>

/* Any rows of x, any card. */
bt_status bt_w4_mma_cuda(const bt_linear_w4_args *op, cudaStream_t stream, bt_err *err);

/* Up to 8 rows of x, Hopper and later.
 *   kind       how a block is made: below BT_W4_FEW_KINDS; which m and k it takes: _takes
 *   blocks_sm  blocks for each multiprocessor, which take tiles in turn */
#define BT_W4_FEW_KINDS 3u
bool bt_w4_few_sm90_takes(uint32_t kind, uint32_t m, uint32_t k);
bt_status bt_w4_few_sm90_cuda(const bt_linear_w4_args *op, uint32_t kind, uint32_t blocks_sm,
                              cudaStream_t stream, bt_err *err);

/* Up to 64 rows of x, Hopper only. split: blocks that share k, up to 8 and k / 128; 0: as many as fit the card. */
bt_status bt_w4_some_sm90_cuda(const bt_linear_w4_args *op, uint32_t split, cudaStream_t stream,
                               bt_err *err);

/* Any rows of x, Hopper only: w rounded to bf16. */
bt_status bt_w4_many_sm90_cuda(const bt_linear_w4_args *op, cudaStream_t stream, bt_err *err);

#endif
