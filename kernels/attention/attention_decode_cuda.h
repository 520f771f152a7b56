/* attention_decode_cuda.h - attention.h on a GPU for one new query of each of many sequences.
 *
 *   kv       pool on the device: bf16 | fp8 e4m3 | int8; head_dim 64, 96, 128 or 256
 *   tables   [seqs][blocks_max] u32, device: the blocks of each sequence
 *   lengths  [seqs] u32, device: tokens the query sees, its own included (its position + 1); of a
 *            sequence of length 0, a hole in the batch, neither q nor o is touched
 *   q        [seqs][q_heads][head_dim] bf16, rows of sequences q_stride elements apart
 *   o        the same of the results, rows o_stride elements apart
 *   window   as in attention.h: only the last `window` tokens, 0 for all
 * Query head h reads KV head h / (q_heads / kv_heads); that ratio is 1 .. 16. Scale is
 * 1/sqrt(head_dim). All pointers are device memory, 16-byte aligned; the strides are multiples of 8.
 *
 * PLAN     Made once for a pool, its numbers of heads and the largest batch; it asks the device. The
 *          launcher then only launches, with everything that changes from step to step in device
 *          memory, so that a captured graph stays good.
 * SPLITS   A long context is cut in pieces, each attended to by one block of threads; the one that
 *          ends last adds the pieces up, in their order. How a sequence is cut depends on its own
 *          length and the number of KV heads alone: a result is the same bits alone or in any batch,
 *          and in every run.
 * VALUES   As attention.h says: rows beyond the length or before the window are never used, whatever
 *          they hold. Weights are rounded to bf16 for a bf16 pool, to f16 for the others, of which
 *          the codes are exact in f16 and the scales applied in f32.
 * WORKSPACE plan.workspace_bytes of device memory, zeroed once by the caller, left zeroed where it
 *          must be; one launch at a time may use it. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_DECODE_CUDA_H
#define BT_KERNELS_ATTENTION_ATTENTION_DECODE_CUDA_H

#include "kernels/cuda.h"
#include "kernels/kv.h"

#define BT_ATTENTION_DECODE_GROUP_MAX 16u
#define BT_ATTENTION_DECODE_SPLITS_MAX 64u
#define BT_ATTENTION_DECODE_SEQS_MAX 1024u

typedef struct {
    bt_kv_shape shape;
    uint32_t q_heads, seqs_max;
    size_t workspace_bytes;
    uint32_t splits_most; /* of one sequence: what the workspace has room for */
    const void *kernel;
    /* What the plan chose; a bench may vary it. A split is a number of tiles of 64 tokens. */
    uint32_t blocks;          /* thread blocks of the persistent grid */
    uint32_t stages;          /* of the ring in shared memory, a tile each */
    uint32_t splits_wanted;   /* so many splits at most, if they need not be ... */
    uint32_t split_tiles_max; /* ... longer than this; and ... */
    uint32_t split_tiles_min; /* ... none of several is shorter than this, but the last */
    bool dynamic;             /* blocks take splits as they come, else every blocks-th */
} bt_attention_decode_plan;

typedef struct {
    const bt_attention_decode_plan *plan;
    const uint8_t *kv; /* base of the pool */
    uint32_t layer;
    const uint32_t *tables;
    const uint32_t *lengths;
    const void *q;
    void *o;
    void *workspace;
    uint32_t seqs, blocks_max;
    uint32_t q_stride, o_stride;
    uint32_t window;
} bt_attention_decode_cuda_args;

/* context_max: the longest length that will be asked for.
 * Errors: ERR_ARGUMENT for a shape there is no kernel for; ERR_DEVICE. */
bt_status bt_attention_decode_cuda_plan(const bt_kv_shape *shape, uint32_t q_heads,
                                        uint32_t seqs_max, uint32_t context_max,
                                        bt_attention_decode_plan *ret_plan, bt_err *err);

/* The most stages for which `blocks_per_sm` blocks of threads fit on one multiprocessor; 0 if none. */
uint32_t bt_attention_decode_cuda_stages(const bt_attention_decode_plan *plan,
                                         uint32_t blocks_per_sm);

bt_status bt_attention_decode_cuda(const bt_attention_decode_cuda_args *op, cudaStream_t stream,
                                   bt_err *err);

#endif
