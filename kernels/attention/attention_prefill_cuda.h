/* attention_prefill_cuda.h - attention.h on a GPU for chunks of prompts: a ragged batch of sequences, each
 * with `count` new tokens whose K and V were appended to the pool already.
 *
 *   kv      pool view, base in device memory         bf16 | fp8 e4m3 | int8, head_dim 64, 96, 128 or 256
 *   q, out  [tokens][q_heads][head_dim]              bf16, 16-byte aligned
 *   blocks  block tables, one after another          u32; tile.seq.table says where each begins
 *   plan    bt_attention_plan_make's, uploaded       see attention_plan.h
 *
 * Query i of a sequence sees the tokens up to position + i, and of those the last `window` (0: all).
 * Scale is 1/sqrt(head_dim). q_heads is a multiple of the pool's kv_heads; heads that share a KV head
 * are neighbours. block_tokens is 16, 32 or 64.
 *
 * VALUES  Scores and sums in f32; weights are rounded to bf16 before they meet V. Codes of fp8 and int8 are
 *         exact in bf16, but that a NaN of e4m3 counts as 480; scales are applied to scores and weights in
 *         f32. Tiles of KV are counted from token 0, so a row's result depends on its query, its position
 *         and the stored KV, not on count, block size or what else is in the batch. Rows of the pool at
 *         and after the end of a sequence, and before the window of a tile's first row, are not used even
 *         multiplied by 0; other tokens that a row does not see are, so a NaN in V of a later token of the
 *         same chunk reaches the rows of its tile.
 * ARCH    arch is bt_cuda_arch(), or less to keep away from what that architecture alone has: 80 takes the
 *         mma.sync kernel everywhere. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_PREFILL_CUDA_H
#define BT_KERNELS_ATTENTION_ATTENTION_PREFILL_CUDA_H

#include "kernels/attention/attention_plan.h"
#include "kernels/cuda.h"
#include "kernels/kv.h"

#include <stdalign.h>

/* What Hopper's copy engine wants to know of a pool; made once. */
typedef struct {
    alignas(64) uint8_t map[128];
    int arch; /* the kernel that takes it: 90 or 80 */
    bt_dtype dtype;
} bt_attention_prefill_pool;

/* Host only. ERR_DEVICE if the driver lacks or refuses the description. */
bt_status bt_attention_prefill_pool_init(const bt_kv_view *kv, int arch,
                                         bt_attention_prefill_pool *ret_pool, bt_err *err);

typedef struct {
    const bt_attention_prefill_pool *pool; /* borrowed for the call */
    bt_kv_view kv;
    const void *q;
    void *out;
    const uint32_t *blocks;
    const bt_attention_plan *plan; /* device */
    uint32_t tiles_most;           /* what the plan may hold when the launch runs: sizes the grid */
    uint32_t layer, q_heads, window;
    uint32_t processors; /* multiProcessorCount */
} bt_attention_prefill_cuda_args;

bt_status bt_attention_prefill_cuda(const bt_attention_prefill_cuda_args *op, cudaStream_t stream,
                                    bt_err *err);

#endif
