/* attention_prefill_sm90.cu - Hopper: bf16 pools, head_dim 64, 128, 256.
 *
 * WORK    Persistent blocks of three warpgroups; each takes the tiles of the plan in its turn. Warp 0
 *         brings K and V through the block table with the copy engine, one copy for each pool block
 *         and 64 columns, into two stages each; warps 1 to 3 gather the packed rows of Q; warpgroups 1
 *         and 2 have 64 rows each. Scores are wgmma of Q and K in shared memory; weights stay in
 *         registers as the A operand of the second product. Within a warpgroup the scores of the next
 *         tile and the values of this one are in flight together while the softmax of the next waits
 *         only for the former; between the two, named barriers let one's products run during the
 *         other's softmax (Shah et al. 2024, FlashAttention-3).
 * MASKS   Latest tokens first, so masked tiles are the first few; the unmasked loop has no compares.
 *         Rows of V outside of the sequence are zeroed in shared memory: the copy engine knows only
 *         whole blocks.
 * FLOPS, BYTES as in attention_prefill_cuda.cu.
 * FIGURES H100 SXM, 2026-11-24, `gpu-check --only attention_prefill --bench`, blocks of 32, cold L2, 32
 *         query and 8 KV heads of 128: 1 x 2048 466 TFLOP/s, 1 x 8192 634, 512 behind 7680 562; head_dim
 *         256 (16 query heads) 1 x 8192 670, head_dim 64 388. Blocks of 16: 495 instead of 634, since
 *         each copy is half as large.
 * TRIED   Without the named barriers: the same for 128, 7 % less for 64. One block for each tile instead
 *         of persistent ones: 403 and 616. Without sm90::after, the compiler waits for the values before
 *         it begins the exponentials: 413 and 602. */
#include "kernels/attention/attention_prefill_sm90.cuh"

#include <math.h>

namespace
{

/* ---- warpgroups 1 and 2: the arithmetic ---- */
template <int D, bool CODES, bool TURNS> struct consumer {
    using T = tiling<D, CODES>;
    static constexpr int N = T::TOKENS;
    const prefill_op &op;
    places<D, CODES> place;
    uint32_t group;     /* 0 or 1: which warpgroup of the two */
    uint32_t count = 0; /* tiles of K taken since the start, not counting the one in hand */
    float o[D / 2];
    uint32_t p[N / 4];
    float highest[2], sum[2];
    uint32_t position[2], low, high; /* as in prefill_mma */

    __device__ consumer(const prefill_op &o, places<D, CODES> p, uint32_t g)
        : op(o), place(p), group(g)
    {
    }
    __device__ __forceinline__ void issue_scores(float (&s)[N / 2], uint32_t stage)
    {
        uint64_t q = sm90::descriptor(place.q() + group * 64 * COLUMN_ROW_BYTES, 16, 1024);
        uint64_t k = sm90::descriptor(place.kv(0, stage), 16, 1024);
#pragma unroll
        for (int d = 0; d < D / 16; d++) {
            uint64_t q_at = q + (d / 4 * T::Q_COLUMN + d % 4 * 32) / 16;
            uint64_t k_at = k + (d / 4 * T::KV_COLUMN + d % 4 * 32) / 16;
            if (d == 0)
                sm90::mma_scores<false>(s, q_at, k_at);
            else
                sm90::mma_scores<true>(s, q_at, k_at);
        }
        sm90::mma_commit();
    }
    __device__ __forceinline__ void issue_values(uint32_t stage)
    {
        uint64_t v = sm90::descriptor(place.kv(1, stage), T::KV_COLUMN, 1024);
#pragma unroll
        for (int k = 0; k < N / 16; k++) sm90::mma_values(o, p + 4 * k, v + k * 2048 / 16);
        sm90::mma_commit();
    }
    __device__ __forceinline__ void release(uint32_t barrier)
    {
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
    /* By the scales of the tokens of the tile in hand. */
    __device__ __forceinline__ void times(float (&s)[N / 2], int part)
    {
        uint32_t at = place.scales(count, part) + threadIdx.x % 4 * 8;
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            float2 pair = sm90::load_8(at + i * 32);
            s[4 * i] *= pair.x;
            s[4 * i + 1] *= pair.y;
            s[4 * i + 2] *= pair.x;
            s[4 * i + 3] *= pair.y;
        }
    }
    __device__ __forceinline__ void pack(const float (&s)[N / 2])
    {
#pragma unroll
        for (int i = 0; i < N / 4; i++) p[i] = prefill_pack(s[2 * i], s[2 * i + 1]);
    }
    /* Scores of the next tile and values of the one whose weights are in p. */
    template <bool MASKED> __device__ __forceinline__ void step(uint32_t n)
    {
        float s[N / 2], shrink[2];
        uint32_t v_stage = count % STAGES, v_parity = count / STAGES & 1;
        count++;
        uint32_t k_stage = count % STAGES, k_parity = count / STAGES & 1;
        sm90::wait(place.full(0, k_stage), k_parity);
        if (TURNS) sm90::turn_wait(1 + group);
        sm90::mma_begin();
        issue_scores(s, k_stage);
        sm90::wait(place.full(1, v_stage), v_parity);
        sm90::mma_begin();
        issue_values(v_stage);
        if (TURNS) sm90::turn_give(2 - group);
        sm90::mma_wait<1>();
        sm90::pin(s);
        release(place.empty(0, k_stage));
        if (CODES) times(s, 0);
        if (MASKED) mask(s, n * N);
        weigh(s, shrink);
        if (CODES) times(s, 1);
        sm90::after(sum[0] + sum[1], place.base);
        sm90::mma_wait<0>();
        sm90::pin(o);
        release(place.empty(1, v_stage));
#pragma unroll
        for (int i = 0; i < D / 2; i++) o[i] *= shrink[i % 4 / 2];
        pack(s);
    }
    __device__ __forceinline__ void first_tile(uint32_t n)
    {
        float s[N / 2], shrink[2];
        uint32_t stage = count % STAGES, parity = count / STAGES & 1;
        sm90::wait(place.full(0, stage), parity);
        sm90::mma_begin();
        issue_scores(s, stage);
        sm90::mma_wait<0>();
        sm90::pin(s);
        release(place.empty(0, stage));
        if (CODES) times(s, 0);
        mask(s, n * N);
        weigh(s, shrink);
        if (CODES) times(s, 1);
        pack(s);
    }
    __device__ __forceinline__ void last_values()
    {
        uint32_t stage = count % STAGES, parity = count / STAGES & 1;
        count++;
        sm90::wait(place.full(1, stage), parity);
        sm90::mma_begin();
        issue_values(stage);
        sm90::mma_wait<0>();
        sm90::pin(o);
        release(place.empty(1, stage));
    }
    __device__ __forceinline__ void store(const prefill_tile &tile, uint32_t head, uint32_t row)
    {
#pragma unroll
        for (int r = 0; r < 2; r++)
            for (int step = 1; step < 4; step *= 2) sum[r] += __shfl_xor_sync(~0u, sum[r], step);
        prefill_store_row<D, 0>(o, 1 / sum[0], op.out + prefill_row_at(op, tile, head, row, D),
                                row < tile.rows);
        prefill_store_row<D, 2>(o, 1 / sum[1], op.out + prefill_row_at(op, tile, head, row + 8, D),
                                row + 8 < tile.rows);
    }
    __device__ __forceinline__ void run(const prefill_tile &tile, uint32_t head, uint32_t round)
    {
        uint32_t group_row = tile.row + group * 64;
        uint32_t row = group_row + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
        position[0] = prefill_position(op, tile, row);
        position[1] = prefill_position(op, tile, row + 8);
        low = __shfl_sync(~0u, prefill_position(op, tile, group_row), 0);
        high = __shfl_sync(~0u, prefill_position(op, tile, group_row + 63), 0);
        highest[0] = highest[1] = -INFINITY;
        sum[0] = sum[1] = 0;
#pragma unroll
        for (int i = 0; i < D / 2; i++) o[i] = 0;

        int n = (tile.end - 1) / N, last = tile.begin / N;
        /* The tiles whose every token every row of this warpgroup sees: [clear, …] below the diagonal. */
        int clear = op.window && high >= op.window ? (high - op.window) / N + 1 : last;
        sm90::wait(place.q_full(), round & 1);
        first_tile(n--);
        for (; n >= last && n * N + N - 1 > (int)low; n--) step<true>(n);
        for (; n >= clear && n >= last; n--) step<false>(n);
        for (; n >= last; n--) step<true>(n);
        release(place.q_empty());
        last_values();
        store(tile, head, row);
    }
};

template <int D, bt_dtype POOL, bool TURNS>
__global__ void __launch_bounds__(THREADS, 1)
    prefill_wgmma(prefill_op op, const __grid_constant__ CUtensorMap map)
{
    if constexpr (sm90::PRESENT) {
        constexpr bool CODES = POOL != BT_DTYPE_BF16;
        extern __shared__ uint8_t shared[];
        places<D, CODES> place = {(sm90::shared_address(shared) + 1023) & ~1023u};
        if (threadIdx.x == 0) place.init();
        __syncthreads();
        uint32_t items = __ldg(&op.plan->tiles) * op.kv_heads, item;
        uint32_t warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
        if (warpgroup == 0) {
            sm90::registers_fewer<CODES ? 56 : 40>();
            produce<D, POOL>(op, &map, place, items);
        } else {
            sm90::registers_more<CODES ? 224 : 232>();
            consumer<D, CODES, TURNS> work(op, place, warpgroup - 1);
            if (TURNS && warpgroup == 2) sm90::turn_give(1);
            for (uint32_t round = 0; (item = item_at(round)) < items; round++)
                work.run(prefill_tile_at(op, item / op.kv_heads), item % op.kv_heads, round);
        }
    }
}

template <int D, bt_dtype POOL, bool TURNS>
bt_status launch(const prefill_op *op, const bt_attention_prefill_pool *pool, uint32_t blocks,
                 cudaStream_t stream, bt_err *err)
{
    constexpr int BYTES = tiling<D, POOL != BT_DTYPE_BF16>::SHARED_BYTES;
    cudaError_t error = cudaFuncSetAttribute(prefill_wgmma<D, POOL, TURNS>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (error != cudaSuccess) return bt_cuda_status(error, "attention_prefill", err);
    prefill_wgmma<D, POOL, TURNS>
        <<<blocks, THREADS, BYTES, stream>>>(*op, *(const CUtensorMap *)pool->map);
    return bt_cuda_launched("attention_prefill", err);
}

} // namespace

bool prefill_sm90_takes(const bt_kv_shape *shape)
{
    return shape->dtype == BT_DTYPE_BF16 &&
           (shape->head_dim == 64 || shape->head_dim == 128 || shape->head_dim == 256);
}

/* The pool as rows of head_dim values: without scales nothing lies between the rows. */
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
    cuuint64_t sizes[2] = {shape->head_dim, rows}, strides[1] = {shape->head_dim * 2ull};
    cuuint32_t box[2] = {COLUMN, shape->block_tokens}, steps[2] = {1, 1};
    CUresult result = ((decltype(&cuTensorMapEncodeTiled))entry)(
        (CUtensorMap *)ret_map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, kv->base, sizes, strides, box,
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
    case 64: return launch<64, BT_DTYPE_BF16, true>(op, pool, blocks, stream, err);
    case 128: return launch<128, BT_DTYPE_BF16, true>(op, pool, blocks, stream, err);
    case 256: return launch<256, BT_DTYPE_BF16, true>(op, pool, blocks, stream, err);
    default: return BT_FAIL(err, BT_ERR_ARGUMENT, "attention_prefill: head_dim %u", head_dim);
    }
}
