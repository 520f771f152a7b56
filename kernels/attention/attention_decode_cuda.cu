/* attention_decode_cuda.cu - plan and launch of decode attention; the kernel is in attention_decode_*.cuh.
 *
 *   attention_decode_kernel.cuh  the warps that compute, and how results meet
 *   attention_decode_copy.cuh    the warp that copies
 *   attention_decode_plan.cuh    parameters, shared memory, splits
 *   attention_decode_tile.cuh    fragments out of rows of codes
 *   attention_decode_ring.cuh    barriers and copies
 *
 * SHAPE   A persistent grid, one to three blocks for each multiprocessor, of 4 warps that compute and one
 *         that copies tiles of 64 tokens, K and V of one KV head, ahead of them: 200 KB in all on each
 *         multiprocessor. What a block computes at the ends of items hides behind these copies.
 * BYTES   seqs * kv_heads * context * 2 * (head_dim * bytes of a code + 2 if scaled), and 2 * 4 * head_dim
 *         bytes written and read for each query head and split, which stay in the L2.
 * FLOPS   seqs * q_heads * context * 4 * head_dim; on the tensor cores 8 or 16 columns for each group.
 * FIGURES H100 SXM, 2026-11-24, gpu-check --only attention_decode; 32 query and 8 KV heads of 128, blocks of
 *         16 tokens, shuffled; percent of the 3,142 GB/s that reading reaches.
 *             sequences x tokens      bf16 pool            fp8 pool
 *             64 x 4096               370 us, 92.3 %       202 us, 86.1 %
 *             256 x 32768             11.5 ms, 95.2 %      6.05 ms, 91.7 %
 *             16 x 4096               102 us, 83.6 %       61 us, 71.1 %
 *             1 x 32768               52 us, 82.3 %        32 us, 67.2 %
 *             1 x 1024                10.1 us              10.2 us
 *         A launch takes some 7 us besides the bytes: lengths, table and first tile one after the other at
 *         its start, at its end the count of splits and their sums.
 * TRIED   Splits of 256 tokens rather than 512: bf16 88.0 %, fp8 79.5 % (but one sequence of 1024 tokens in
 *         8.3 us, and of 128 tokens in 7.7 us); of 1024 tokens: 93.6 and 86.7 %, one sequence slower.
 *         Every blocks-th split rather than as they come: bf16 89.7 %, fp8 81.1 %: multiprocessors differ
 *         in speed. One block for each multiprocessor with twice the stages: fp8 81.4 %. Copies without
 *         evict_first: 4 to 5 % slower. 16 tokens of every tile
 *         for each warp rather than 32 of every second: a fifth more instructions, the same time. Counts of
 *         splits put off until the next split is done, so that no warp waits for their fence: no gain. */
extern "C" {
#include "kernels/attention/attention_decode_cuda.h"

#include "common/base/limits.h"
}

#include "kernels/attention/attention_decode_plan.cuh"

#include <assert.h>
#include <math.h>

namespace
{

constexpr uint32_t ITEMS_WANTED = 128; /* of one long sequence: about as many as multiprocessors */
constexpr uint32_t RESERVED_BYTES = 1024; /* of shared memory, by the system for each block */

size_t up(size_t value, size_t unit)
{
    return (value + unit - 1) / unit * unit;
}

uint32_t stage_bytes(const bt_attention_decode_plan *plan)
{
    const bt_kv_shape *shape = &plan->shape;
    uint32_t piece = PIECE_TOKENS * shape->head_dim * (uint32_t)bt_dtype_bytes(shape->dtype);
    uint32_t group = plan->q_heads / shape->kv_heads;
    return (uint32_t)up(2 * PIECES * (piece + PIECE_GAP) + group * shape->head_dim * 2, 128);
}

uint32_t shared_bytes(const bt_attention_decode_plan *plan, uint32_t stages)
{
    return decode_shared_of(stages, stage_bytes(plan), plan->shape.head_dim, plan->seqs_max).bytes;
}

decode_kernel *kernel_of(const bt_kv_shape *shape, uint32_t group)
{
    switch (shape->dtype) {
    case BT_DTYPE_BF16: return decode_kernel_bf16(shape->head_dim, group);
    case BT_DTYPE_FP8_E4M3: return decode_kernel_fp8(shape->head_dim, group);
    case BT_DTYPE_INT8: return decode_kernel_int8(shape->head_dim, group);
    default: return NULL;
    }
}

uint32_t most_splits(const bt_attention_decode_plan *plan, uint32_t context_max)
{
    uint32_t tiles = (context_max + TILE_TOKENS - 1) / TILE_TOKENS;
    uint32_t least = (tiles + plan->split_tiles_max - 1) / plan->split_tiles_max;
    return least > plan->splits_wanted ? least : plan->splits_wanted;
}

/* Workspace: counters of arrived splits, the two of `taken`, then the splits' weights and sums. */
size_t counters_bytes(const bt_attention_decode_plan *plan)
{
    return up(((size_t)plan->seqs_max * plan->shape.kv_heads + 2) * 4, 256);
}

size_t weights_bytes(const bt_attention_decode_plan *plan)
{
    return up((size_t)plan->seqs_max * plan->splits_most * plan->q_heads * 8, 256);
}

} // namespace

extern "C" uint32_t bt_attention_decode_cuda_stages(const bt_attention_decode_plan *plan,
                                                    uint32_t blocks_per_sm)
{
    int device = 0, per_sm = 0, per_block = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&per_sm, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device) !=
            cudaSuccess ||
        cudaDeviceGetAttribute(&per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
            cudaSuccess)
        return 0;
    uint32_t room = (uint32_t)per_sm / blocks_per_sm - RESERVED_BYTES;
    if (room > (uint32_t)per_block) room = (uint32_t)per_block;
    uint32_t stages = 0;
    while (stages < 32 && shared_bytes(plan, stages + 1) <= room) stages++;
    return stages;
}

extern "C" bt_status bt_attention_decode_cuda_plan(const bt_kv_shape *shape, uint32_t q_heads,
                                                   uint32_t seqs_max, uint32_t context_max,
                                                   bt_attention_decode_plan *ret_plan, bt_err *err)
{
    bt_attention_decode_plan plan = {};
    uint32_t group = shape->kv_heads ? q_heads / shape->kv_heads : 0;
    if (group == 0 || group > BT_ATTENTION_DECODE_GROUP_MAX || q_heads % shape->kv_heads != 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "decode attention: %u query heads on %u KV heads",
                       q_heads, shape->kv_heads);
    decode_kernel *kernel = kernel_of(shape, group);
    if (!kernel)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "decode attention: no kernel for %s of head_dim %u",
                       bt_dtype_name(shape->dtype), shape->head_dim);
    if (context_max == 0 || context_max > BT_CONTEXT_TOKENS_MAX || seqs_max == 0 ||
        seqs_max > BT_ATTENTION_DECODE_SEQS_MAX)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "decode attention: %u sequences of up to %u tokens",
                       seqs_max, context_max);
    plan.shape = *shape;
    plan.q_heads = q_heads;
    plan.seqs_max = seqs_max;
    plan.kernel = (const void *)kernel;
    plan.splits_wanted = ITEMS_WANTED / shape->kv_heads;
    if (plan.splits_wanted < 16) plan.splits_wanted = 16;
    if (plan.splits_wanted > BT_ATTENTION_DECODE_SPLITS_MAX)
        plan.splits_wanted = BT_ATTENTION_DECODE_SPLITS_MAX;
    plan.split_tiles_min = 8;
    plan.split_tiles_max = 32;
    plan.splits_most = most_splits(&plan, context_max);
    assert(plan.splits_most <= BT_ATTENTION_DECODE_SPLITS_MAX);
    plan.workspace_bytes = counters_bytes(&plan) + weights_bytes(&plan) * (1 + shape->head_dim / 2);
    int device = 0, sms = 0, blocks_per_sm = 0, per_block = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (!error) error = cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
    if (!error)
        error = cudaDeviceGetAttribute(&per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (!error)
        error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, per_block);
    if (!error)
        error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_per_sm, kernel,
                                                              DECODE_THREADS, 16384);
    if (error) return bt_cuda_status(error, "decode attention", err);
    /* As many blocks as the registers have room for, if each has enough stages to copy ahead. */
    while (blocks_per_sm > 1 && bt_attention_decode_cuda_stages(&plan, (uint32_t)blocks_per_sm) < 3)
        blocks_per_sm--;
    if (blocks_per_sm > 0)
        plan.stages = bt_attention_decode_cuda_stages(&plan, (uint32_t)blocks_per_sm);
    if (plan.stages < 2)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "decode attention: %u sequences are too many",
                       seqs_max);
    plan.blocks = (uint32_t)(sms * blocks_per_sm);
    plan.dynamic = true;
    *ret_plan = plan;
    return BT_OK;
}

extern "C" bt_status bt_attention_decode_cuda(const bt_attention_decode_cuda_args *op,
                                              cudaStream_t stream, bt_err *err)
{
    const bt_attention_decode_plan *plan = op->plan;
    const bt_kv_shape *shape = &plan->shape;
    assert(op->seqs <= plan->seqs_max && op->layer < shape->layers);
    assert(op->q_stride % 8 == 0 && op->o_stride % 8 == 0);
    if (op->seqs == 0) return BT_OK;
    uint8_t *workspace = (uint8_t *)op->workspace;
    decode_params p = {};
    p.head_bytes = (uint32_t)(bt_kv_codes_bytes(shape) + bt_kv_scales_bytes(shape));
    p.part_bytes = p.head_bytes * shape->kv_heads;
    p.block_bytes = bt_kv_block_bytes(shape);
    p.codes_bytes = (uint32_t)bt_kv_codes_bytes(shape);
    p.kv = op->kv + (size_t)op->layer * 2 * p.part_bytes;
    p.tables = op->tables;
    p.lengths = op->lengths;
    p.q = (const uint16_t *)op->q;
    p.o = (uint16_t *)op->o;
    p.arrived = (uint32_t *)workspace;
    p.taken = p.arrived + (size_t)plan->seqs_max * shape->kv_heads;
    p.weights = (float2 *)(workspace + counters_bytes(plan));
    p.sums = (float *)(workspace + counters_bytes(plan) + weights_bytes(plan));
    p.seqs = op->seqs;
    p.blocks_max = op->blocks_max;
    p.kv_heads = shape->kv_heads;
    p.kv_heads_inverse = (((uint64_t)1 << 32) + p.kv_heads - 1) / p.kv_heads;
    p.group = plan->q_heads / shape->kv_heads;
    p.q_stride = op->q_stride;
    p.o_stride = op->o_stride;
    p.window = op->window;
    p.block_shift = (uint32_t)__builtin_ctz(shape->block_tokens);
    p.stages = plan->stages;
    p.stage_bytes = stage_bytes(plan);
    p.splits_wanted = plan->splits_wanted;
    p.split_tiles_min = plan->split_tiles_min;
    p.split_tiles_max = plan->split_tiles_max;
    p.dynamic = plan->dynamic;
    p.scale = (float)(M_LOG2E / sqrt((double)shape->head_dim));
    void *arguments[] = {&p};
    cudaError_t error = cudaLaunchKernel(plan->kernel, dim3(plan->blocks), dim3(DECODE_THREADS),
                                         arguments, shared_bytes(plan, plan->stages), stream);
    return bt_cuda_status(error, "decode attention", err);
}
