/* attention_prefill_sm90.cu - Hopper, head_dim 64, 128 and 256.
 *
 * WORK    Persistent blocks, one on each SM, take the plan's tiles in turns. Of warpgroup 0 one warp brings
 *         K and one V (of codes one warp both) through the block table with the copy engine, a lane for
 *         each block of the pool, into a ring in shared memory; two gather the packed rows of Q. Codes come
 *         as they are, and warpgroup 1 makes them bf16. The last two warpgroups have 64 rows each: scores
 *         are wgmma of Q and K in shared memory; weights stay in registers as the A operand of the second
 *         product. Within a warpgroup the scores of the next tile and the values of this one are in flight
 *         together, and the softmax of the next waits for the former only; between the two, named barriers
 *         let one's products run during the other's softmax (Shah et al. 2024, FlashAttention-3).
 * MASKS   Latest tokens first, so the masked tiles are the first few, and the unmasked loop has no compares.
 *         Rows of V outside of the sequence become zeros in shared memory: copies know only whole blocks.
 * FLOPS, BYTES as in attention_prefill_cuda.cu.
 * FIGURES H100 SXM, 2026-11-24, `gpu-check --only attention_prefill --bench`, cold L2, TFLOP/s. Blocks of 32, 32
 *         query and 8 KV heads of 128, bf16: 1 x 2048 520, 1 x 8192 654, 8 x 2048 481, 512 behind 7680 522;
 *         blocks of 16 and 64: 619 and 622; head_dim 64 382, 256 (16 query heads) 692; fp8 404, int8 380
 *         (of 1 x 8192). Runs differ by 5 %.
 * TRIED   On the same card. Without the named barriers: at most 2 % less for head_dim 128, 7 % for 64. One block for
 *         each tile instead of persistent ones: 403 instead of 466, 616 instead of 634. Without sm90::after
 *         the compiler waits for the values before it begins the exponentials: 413 and 602. One buffer for
 *         Q, a copy for each 64 columns: 466 and 634 instead of 509 and 668; blocks of 16: 495 instead of
 *         626. Items drawn from a counter, some ahead of need: 460 instead of 509 for 2048 tokens. Scores of
 *         an item's first tile in flight with the last values of the item before: nothing for 128, 5 % for
 *         64. Not rescaling o while the maximum grows by less than 2^8: nothing. Codes converted by the
 *         warps that also fetch: 250. */
#include "kernels/attention/attention_prefill_sm90.cuh"

#include <math.h>

namespace
{

/* ---- the last two warpgroups: the arithmetic ---- */
template <int D, bool CODES> struct consumer {
    using T = tiling<D, CODES>;
    static constexpr int N = T::TOKENS;
    const prefill_op &op;
    places<D, CODES> place;
    uint32_t group; /* 0 or 1: which warpgroup of the two */
    float o[D / 2];
    uint32_t p[N / 4];
    float highest[2], sum[2];
    uint32_t position[2], low, high; /* as in prefill_mma */

    __device__ consumer(const prefill_op &o, places<D, CODES> p, uint32_t g)
        : op(o), place(p), group(g)
    {
    }
    __device__ __forceinline__ void issue_scores(float (&s)[N / 2], uint32_t round, uint32_t tile)
    {
        uint64_t q = sm90::descriptor(place.q(round) + group * 64 * ROW_BYTES, 16, SQUARE_BYTES);
        uint64_t k = sm90::descriptor(place.kv(tile), 16, T::COLUMNS * SQUARE_BYTES);
#pragma unroll
        for (int d = 0; d < D / 16; d++) {
            uint64_t q_at = q + (d / 4 * T::Q_COLUMN + d % 4 * 32) / 16;
            uint64_t k_at = k + (d / 4 * SQUARE_BYTES + d % 4 * 32) / 16;
            if (d == 0)
                sm90::mma_scores<false>(s, q_at, k_at);
            else
                sm90::mma_scores<true>(s, q_at, k_at);
        }
        sm90::mma_commit();
    }
    __device__ __forceinline__ void issue_values(uint32_t tile)
    {
        constexpr int STEP = 2 * T::COLUMNS * SQUARE_BYTES; /* 16 tokens */
        uint64_t v = sm90::descriptor(place.kv(tile), SQUARE_BYTES, T::COLUMNS * SQUARE_BYTES);
#pragma unroll
        for (int k = 0; k < N / 16; k++) {
            if constexpr (D == 256 &&
                          CODES) { /* 512 threads begin with 128 registers: no room for all of o */
                sm90::mma_values(*(float(*)[64])o, p + 4 * k, v + k * STEP / 16);
                sm90::mma_values(*(float(*)[64])(o + 64), p + 4 * k,
                                 v + (k * STEP + 2 * SQUARE_BYTES) / 16);
            } else {
                sm90::mma_values(o, p + 4 * k, v + k * STEP / 16);
            }
        }
        sm90::mma_commit();
    }
    __device__ __forceinline__ void release(uint32_t barrier)
    {
        if (CODES)
            __syncwarp(); /* every lane has read its scales; wgmma's own reads are the warp's as one */
        if (threadIdx.x % 32 == 0) sm90::arrive(barrier);
    }
    __device__ __forceinline__ void mask(float (&s)[N / 2], uint32_t begin)
    {
        uint32_t mine = begin + threadIdx.x % 4 * 2;
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            uint32_t token = mine + i / 4 * 8 + i % 2, at = position[i % 4 / 2];
            if (token > at || (op.window && token + op.window <= at)) s[i] = -INFINITY;
        }
    }
    /* Scores become weights in place; returns by how much what was summed before shrinks. */
    __device__ __forceinline__ void weigh(float (&s)[N / 2], float (&shrink)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float most = fmaxf(s[2 * r], s[2 * r + 1]);
#pragma unroll
            for (int i = 1; i < N / 8; i++)
                most = fmaxf(most, fmaxf(s[4 * i + 2 * r], s[4 * i + 2 * r + 1]));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
            most = fmaxf(most, highest[r]);
            float base = most == -INFINITY ? 0 : most * op.scale_log2;
            shrink[r] = prefill_exp2(highest[r] * op.scale_log2 - base);
            highest[r] = most;
            float total = 0;
#pragma unroll
            for (int i = 0; i < N / 8; i++)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; e++) {
                    s[4 * i + e] = prefill_exp2(s[4 * i + e] * op.scale_log2 - base);
                    total += s[4 * i + e];
                }
            sum[r] = sum[r] * shrink[r] + total;
        }
    }
    /* By the scales of the tokens of the launch's tile `count`. */
    __device__ __forceinline__ void times(float (&s)[N / 2], uint32_t count, int part)
    {
        uint32_t at = place.scales(count, part) + threadIdx.x % 4 * 8;
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            uint2 pair = sm90::load_8(at + i * 32);
            s[4 * i] *= __uint_as_float(pair.x);
            s[4 * i + 1] *= __uint_as_float(pair.y);
            s[4 * i + 2] *= __uint_as_float(pair.x);
            s[4 * i + 3] *= __uint_as_float(pair.y);
        }
    }
    __device__ __forceinline__ void pack(const float (&s)[N / 2])
    {
#pragma unroll
        for (int i = 0; i < N / 4; i++) p[i] = prefill_pack(s[2 * i], s[2 * i + 1]);
    }
    /* Scores of tile i and values of the one before, whose weights are in p. */
    template <bool MASKED>
    __device__ __forceinline__ void step(const tile_range &range, int i, uint32_t round)
    {
        float s[N / 2], shrink[2];
        uint32_t k = range.number + 2 * i - 1, v = range.number + 2 * i; /* k(i), v(i - 1) */
        place.wait_full(k);
        sm90::turn_wait(1 + group);
        sm90::mma_begin();
        issue_scores(s, round, k);
        place.wait_full(v);
        sm90::mma_begin();
        issue_values(v);
        sm90::turn_give(2 - group);
        sm90::mma_wait<1>();
        sm90::pin(s);
        release(place.empty(k));
        if (CODES) times(s, range.number / 2 + i, 0);
        if (MASKED) mask(s, (range.first - i) * N);
        weigh(s, shrink);
        if (CODES) times(s, range.number / 2 + i, 1);
        sm90::after(sum[0] + sum[1], place.base);
        sm90::mma_wait<0>();
        sm90::pin(o);
        release(place.empty(v));
#pragma unroll
        for (int j = 0; j < D / 2; j++) o[j] *= shrink[j % 4 / 2];
        pack(s);
    }
    __device__ __forceinline__ void first_tile(const tile_range &range, uint32_t round)
    {
        float s[N / 2], shrink[2];
        place.wait_full(range.number);
        sm90::mma_begin();
        issue_scores(s, round, range.number);
        sm90::mma_wait<0>();
        sm90::pin(s);
        release(place.empty(range.number));
        if (CODES) times(s, range.number / 2, 0);
        mask(s, range.first * N);
        weigh(s, shrink);
        if (CODES) times(s, range.number / 2, 1);
        pack(s);
    }
    __device__ __forceinline__ void last_values(uint32_t v)
    {
        place.wait_full(v);
        sm90::mma_begin();
        issue_values(v);
        sm90::mma_wait<0>();
        sm90::pin(o);
        release(place.empty(v));
    }
    /* The row of this thread in a tile; the other is 8 below. */
    __device__ uint32_t row_in(const prefill_tile &tile) const
    {
        return tile.row + group * 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
    }
    __device__ __forceinline__ void begin(const prefill_tile &tile)
    {
        uint32_t row = row_in(tile), group_row = tile.row + group * 64;
        position[0] = prefill_position(op, tile, row);
        position[1] = prefill_position(op, tile, row + 8);
        low = __shfl_sync(~0u, prefill_position(op, tile, group_row), 0);
        high = __shfl_sync(~0u, prefill_position(op, tile, group_row + 63), 0);
        highest[0] = highest[1] = -INFINITY;
        sum[0] = sum[1] = 0;
#pragma unroll
        for (int i = 0; i < D / 2; i++) o[i] = 0;
    }
    __device__ __forceinline__ void store(const prefill_tile &tile, uint32_t head)
    {
        uint32_t row = row_in(tile);
#pragma unroll
        for (int r = 0; r < 2; r++)
            for (int step = 1; step < 4; step *= 2) sum[r] += __shfl_xor_sync(~0u, sum[r], step);
        prefill_store_row<D, 0>(o, 1 / sum[0], op.out + prefill_row_at(op, tile, head, row, D),
                                row < tile.rows);
        prefill_store_row<D, 2>(o, 1 / sum[1], op.out + prefill_row_at(op, tile, head, row + 8, D),
                                row + 8 < tile.rows);
    }
    /* All tiles of the item but the first, whose weights are in p. */
    __device__ __forceinline__ void middle(const tile_range &range, uint32_t round)
    {
        /* Masked: those that reach beyond the first row's position, and those that begin before the last
         * row's window: [inside, tiles). */
        int from = op.window && high >= op.window ? (high - op.window) / N + 1 : 0;
        int inside = min(range.tiles, range.first - from + 1);
        int diagonal = min(range.tiles, range.first - (int)((low + 1) / N) + 1), i = 1;
        for (; i < diagonal; i++) step<true>(range, i, round);
        for (; i < inside; i++) step<false>(range, i, round);
        for (; i < range.tiles; i++) step<true>(range, i, round);
        release(place.q_empty(round));
    }
    __device__ __forceinline__ void run(uint32_t items)
    {
        uint32_t number = 0, item;
        if (group == 1) sm90::turn_give(1);
        for (uint32_t round = 0; (item = item_at(round)) < items; round++) {
            prefill_tile tile = prefill_tile_at(op, item / op.kv_heads);
            tile_range range(tile, N, number);
            number = range.after();
            begin(tile);
            place.wait_q_full(round);
            first_tile(range, round);
            middle(range, round);
            last_values(range.after() - 1);
            store(tile, item % op.kv_heads);
        }
    }
};

constexpr int threads(bt_dtype pool)
{
    return WARPGROUP * (pool == BT_DTYPE_BF16 ? 3 : 4);
}

template <int D, bt_dtype POOL>
__global__ void __launch_bounds__(threads(POOL), 1)
    prefill_wgmma(prefill_op op, const __grid_constant__ CUtensorMap map)
{
    if constexpr (sm90::PRESENT) {
        constexpr bool CODES = POOL != BT_DTYPE_BF16;
        extern __shared__ __align__(1024) uint8_t shared[];
        places<D, CODES> place = {sm90::shared_address(shared)};
        if (threadIdx.x == 0) place.init();
        __syncthreads();
        uint32_t items = __ldg(&op.plan->tiles) * op.kv_heads;
        int warpgroup = __shfl_sync(~0u, threadIdx.x / WARPGROUP, 0);
        if (warpgroup == 0) {
            sm90::registers_fewer<40>();
            move_all<D, CODES>(op, &map, place, items);
        } else if (CODES && warpgroup == 1) {
            sm90::registers_fewer<56>();
            if constexpr (CODES) converter<D, POOL>(op, place).run(items);
        } else {
            sm90::registers_more<CODES ? 208 : 232>();
            consumer<D, CODES>(op, place, warpgroup - (CODES ? 2 : 1)).run(items);
        }
    }
}

template <int D, bt_dtype POOL>
bt_status launch(const prefill_op *op, const bt_attention_prefill_pool *pool, uint32_t blocks,
                 cudaStream_t stream, bt_err *err)
{
    constexpr int BYTES = tiling<D, POOL != BT_DTYPE_BF16>::SHARED_BYTES;
    cudaError_t error = cudaFuncSetAttribute(prefill_wgmma<D, POOL>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (error != cudaSuccess) return bt_cuda_status(error, "attention_prefill", err);
    prefill_wgmma<D, POOL>
        <<<blocks, threads(POOL), BYTES, stream>>>(*op, *(const CUtensorMap *)pool->map);
    return bt_cuda_launched("attention_prefill", err);
}

template <int D>
bt_status launch_dtype(const prefill_op *op, const bt_attention_prefill_pool *pool, uint32_t blocks,
                       cudaStream_t stream, bt_err *err)
{
    switch (pool->dtype) {
    case BT_DTYPE_FP8_E4M3: return launch<D, BT_DTYPE_FP8_E4M3>(op, pool, blocks, stream, err);
    case BT_DTYPE_INT8: return launch<D, BT_DTYPE_INT8>(op, pool, blocks, stream, err);
    default: return launch<D, BT_DTYPE_BF16>(op, pool, blocks, stream, err);
    }
}

} // namespace

bool prefill_sm90_takes(const bt_kv_shape *shape)
{
    return shape->head_dim == 64 || shape->head_dim == 128 || shape->head_dim == 256;
}

/* Without scales the pool is rows of head_dim values with nothing between them. A block is copied as its
 * squares: 64 columns of 8 rows, the columns of the same rows, the next 8 rows. */
bt_status prefill_sm90_map(const bt_kv_view *kv, void *ret_map, bt_err *err)
{
    const bt_kv_shape *shape = &kv->shape;
    void *entry = NULL;
    cudaDriverEntryPointQueryResult found;
    cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                         cudaEnableDefault, &found);
    if (error != cudaSuccess) return bt_cuda_status(error, "cuTensorMapEncodeTiled", err);
    if (found != cudaDriverEntryPointSuccess)
        return BT_FAIL(err, BT_ERR_DEVICE, "the driver has no cuTensorMapEncodeTiled");
    cuuint64_t rows =
        (cuuint64_t)shape->pool_blocks * shape->layers * 2 * shape->kv_heads * shape->block_tokens;
    cuuint64_t row_bytes = shape->head_dim * 2ull;
    cuuint64_t sizes[4] = {COLUMN, SQUARE, shape->head_dim / COLUMN, rows / SQUARE};
    cuuint64_t strides[3] = {row_bytes, ROW_BYTES, SQUARE * row_bytes};
    cuuint32_t box[4] = {COLUMN, SQUARE, shape->head_dim / COLUMN, shape->block_tokens / SQUARE};
    cuuint32_t steps[4] = {1, 1, 1, 1};
    CUresult result = ((decltype(&cuTensorMapEncodeTiled))entry)(
        (CUtensorMap *)ret_map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, kv->base, sizes, strides, box,
        steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return BT_FAIL(err, BT_ERR_DEVICE, "cuTensorMapEncodeTiled: error %d", (int)result);
    return BT_OK;
}

bt_status prefill_sm90(const prefill_op *op, const bt_attention_prefill_pool *pool,
                       uint32_t head_dim, uint32_t items_most, uint32_t processors,
                       cudaStream_t stream, bt_err *err)
{
    uint32_t blocks = items_most < processors ? items_most : processors;
    switch (head_dim) {
    case 64: return launch_dtype<64>(op, pool, blocks, stream, err);
    case 128: return launch_dtype<128>(op, pool, blocks, stream, err);
    case 256: return launch_dtype<256>(op, pool, blocks, stream, err);
    default: return BT_FAIL(err, BT_ERR_ARGUMENT, "attention_prefill: head_dim %u", head_dim);
    }
}
