/* linear_w4_some_sm90.cu - up to 64 rows of x on Hopper: still the time of reading the weights, but by wgmma.
 *
 * SHAPE   A block has warpgroups that compute, 64 rows of w each times 8, 16, 32 or 64 tokens, and a warp that fetches, by
 *         bulk copies into a ring in shared memory, 128 k at a time. Four warpgroups take 64 tokens, because x is read
 *         again by each block and 64 rows of x are as many bytes as 256 of w; two take fewer tokens, in two blocks
 *         for each multiprocessor.
 * SPLIT   A cluster of blocks shares the k of a tile. Each leaves its sums in its own shared memory, and then
 *         adds its part of the tokens over all blocks, in order.
 * VALUES  Up to 16 tokens exact: a group has its own sums, scaled in f32 while the next group is multiplied. For more,
 *         w = bf16((code - zero) * bf16(scale)).
 * BYTES   n * k / 2 * (1 + 1 / 16) of weights, m * k * 2 of x, m * n * 2 of y. FLOPS 2 * m * n * k.
 * FIGURES H100 SXM (reading 3143 GB/s), 2026-11-24, x and weights cold: m 16, n 28672, k 4096 2303 GB/s (73 %); m 16,
 *         n 4096, k 14336 1760 GB/s (56 %); m 64: n 28672 1649 GB/s (52 %), k 14336 1252 GB/s (40 %), n 6144 1027 GB/s
 *         (33 %), n 4096, k 4096 784 GB/s (25 %). A warpgroup needs 1.2 us for 64 rows, 64 tokens and 128 k where the
 *         tensor cores would take 0.55: widening and multiplying do not overlap as they do with 128 tokens; and a
 *         cluster costs some 4 us to begin, add up and end, and fills three quarters of the card.
 * TRIED   Fetching by cp.async of a whole warpgroup: up to three times slower. Two warpgroups taking turns at groups of
 *         the same rows; four side by side with 16 tokens; clusters of 5 and of 8: slower. Pairs of blocks that share
 *         x by multicast, with mma.sync: half as fast. */
#include "kernels/linear/linear_w4_sm90.cuh"

extern "C" {
#include "kernels/linear/linear_w4_kernels.h"
}

#include <assert.h>

#include <initializer_list>

namespace
{

using namespace bt_w4_device;

/* WARPGROUPS compute, 64 rows each, and one more fetches. */
template <class F_, int WARPGROUPS, int TOKENS_, int STAGES_, int BLOCKS_SM_> struct shape {
    typedef F_ F;
    static constexpr int STAGES = STAGES_, BLOCKS_SM = BLOCKS_SM_;
    static constexpr int TOKENS = TOKENS_, ROWS = WARPGROUPS * 64;
    static constexpr int COMPUTING = WARPGROUPS * 128, THREADS = COMPUTING + 128;
    static constexpr uint32_t SUM_ROW = ROWS + 4; /* floats of a token */
    static constexpr uint32_t SUM_BYTES = TOKENS * SUM_ROW * 4;
    typedef bt_w4_device::ring<F, ROWS, TOKENS, STAGES> ring;
};

struct some {
    const uint8_t *w;
    __nv_bfloat16 *y;
    uint32_t m, n, groups;
    uint32_t blocks16; /* rows of packed blocks */
    uint32_t split;    /* blocks of a cluster */
    float factor;      /* of the sums */
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* For each thread: at its start, of one that fetches, of one that computes. */
template <class T> struct registers {
    static constexpr int START = 65536 / T::BLOCKS_SM / T::THREADS / 8 * 8, FETCHING = 24;
    static constexpr int COMPUTING = (START * T::THREADS - FETCHING * 128) / T::COMPUTING / 8 * 8;
};

__device__ float4 load_of_block(uint32_t address, uint32_t rank)
{
    float4 v;
    asm volatile("{ .reg .u32 there;\n"
                 "mapa.shared::cluster.u32 there, %4, %5;\n"
                 "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there]; }"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(address), "r"(rank)
                 : "memory");
    return v;
}

/* What this block does: the rows from row16 * 16, the groups [first, end). */
template <class T> struct work {
    typedef typename T::F F;
    /* For more tokens there are not enough registers to scale one group while the next is multiplied. */
    static constexpr bool GROUP_SUMS = F::GROUP_SUMS && T::TOKENS <= 16;
    static constexpr int SUMS = T::TOKENS / 2, STAGES = T::STAGES, ROWS = T::ROWS;

    const some &op;
    typename T::ring r;
    uint32_t rank, row16, first, end;

    __device__ work(const some &op_, uint32_t memory) : op(op_), r(memory)
    {
        rank = cluster_rank();
        row16 = blockIdx.x / op.split * (ROWS / 16);
        first = rank * op.groups / op.split;
        end = (rank + 1) * op.groups / op.split;
    }

    __device__ void fetch(const CUtensorMap *map) const
    {
        uint32_t blocks = min(op.blocks16 - row16, ROWS / 16u), all = end - first;
        size_t stride = (size_t)op.groups * F::BLOCK_BYTES;
        const uint8_t *w = op.w + row16 * stride + first * F::BLOCK_BYTES;
        place<STAGES> at;
        /* What is asked for before x comes before x: if there is little work, that would be felt. */
        uint32_t early = min(op.split == 1 ? (uint32_t)STAGES : 1, all);
        for (uint32_t g = 0; g < min((uint32_t)STAGES, all); g++) r.prefetch_x(map, first + g, 0);
        for (uint32_t g = 0; g < early; g++) {
            r.expect(g, blocks);
            r.fetch_w(g, w + g * F::BLOCK_BYTES, blocks, stride);
        }
        wait_for_kernel_ahead();
        for (uint32_t g = 0; g < all; g++, at.next()) {
            if (g >= STAGES) barrier_wait(r.empty + at.stage * 8, at.phase ^ 1);
            if (g >= early) r.expect(at.stage, blocks);
            r.fetch_x(at.stage, map, first + g, 0);
            if (g >= early) r.fetch_w(at.stage, w + g * F::BLOCK_BYTES, blocks, stride);
        }
    }

    /* The block of 16 rows of this warp, of those in a stage. */
    __device__ uint32_t block() const
    {
        return threadIdx.x / 32;
    }

    __device__ void release(uint32_t stage) const
    {
        if (threadIdx.x % 32 == 0) barrier_arrive(r.empty + stage * 8);
    }

    /* 64 k to fragments; a: registers that the tensor cores do not read now. */
    __device__ void widen(uint32_t (&a)[4][4], const typename F::scales &scales, uint32_t stage,
                          int half) const
    {
        uint4 codes = r.codes(stage, block(), half);
        const uint32_t word[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
        for (int step = 0; step < 4; step++)
            if constexpr (GROUP_SUMS)
                F::widen(a[step], word[step], scales, half * 4 + step);
            else
                F::widen_all(a[step], word[step], scales, half * 4 + step);
    }

    __device__ void begin(float (&part)[SUMS], uint32_t (&a)[4][4], uint32_t stage, int half,
                          bool add) const
    {
        wgmma_begin();
        uint64_t b = r.x(stage, half);
#pragma unroll
        for (int step = 0; step < 4; step++) wgmma(part, a[step], b + step * 2, add || step > 0);
        wgmma_end_group();
    }

    __device__ void compute(float (&sum)[SUMS]) const
    {
        if constexpr (GROUP_SUMS)
            compute_groups(sum);
        else
            compute_all(sum);
    }

    /* The group at `at` begins in part; when the group before has ended, in `ended`, it is scaled. */
    __device__ void group_of_two(float (&sum)[SUMS], float (&part)[SUMS], float (&ended)[SUMS],
                                 uint32_t (&a)[2][4][4], place<STAGES> &at, uint32_t &before,
                                 float2 &scale) const
    {
        barrier_wait(r.full + at.stage * 8, at.phase);
        typename F::scales scales = r.scales(at.stage, block());
        widen(a[0], scales, at.stage, 0);
        begin(part, a[0], at.stage, 0, false);
        wgmma_wait<1>();
        settle(ended);
        release(before);
#pragma unroll
        for (int i = 0; i < SUMS; i++) sum[i] += (i & 2 ? scale.y : scale.x) * ended[i];
        widen(a[1], scales, at.stage, 1);
        begin(part, a[1], at.stage, 1, true);
        scale = F::group_scale(scales), before = at.stage;
        at.next();
    }

    /* Groups have their own sums, which are scaled while the next group is multiplied. */
    __device__ void compute_groups(float (&sum)[SUMS]) const
    {
        place<STAGES> at;
        float even[SUMS], odd[SUMS];
        uint32_t a[2][4][4], group = first + 1, before = at.stage;
#pragma unroll
        for (int i = 0; i < SUMS; i++) sum[i] = 0;
        barrier_wait(r.full + at.stage * 8, at.phase);
        typename F::scales scales = r.scales(at.stage, block());
        widen(a[0], scales, at.stage, 0);
        begin(even, a[0], at.stage, 0, false);
        widen(a[1], scales, at.stage, 1);
        begin(even, a[1], at.stage, 1, true);
        float2 scale = F::group_scale(scales);
        at.next();
        for (; group + 1 < end; group += 2) {
            wgmma_wait<1>();
            group_of_two(sum, odd, even, a, at, before, scale);
            wgmma_wait<1>();
            group_of_two(sum, even, odd, a, at, before, scale);
        }
        if (group < end) {
            wgmma_wait<1>();
            group_of_two(sum, odd, even, a, at, before, scale);
            wgmma_wait<0>();
            settle(odd);
#pragma unroll
            for (int i = 0; i < SUMS; i++) sum[i] += (i & 2 ? scale.y : scale.x) * odd[i];
        } else {
            wgmma_wait<0>();
            settle(even);
#pragma unroll
            for (int i = 0; i < SUMS; i++) sum[i] += (i & 2 ? scale.y : scale.x) * even[i];
        }
    }

    /* 64 k are widened while the 64 before are multiplied. */
    __device__ void compute_all(float (&sum)[SUMS]) const
    {
        place<STAGES> at;
        uint32_t a[2][4][4], before = 0;
        bool add = false;
        for (uint32_t group = first; group < end; group++) {
            barrier_wait(r.full + at.stage * 8, at.phase);
            typename F::scales scales = r.scales(at.stage, block());
            widen(a[0], scales, at.stage, 0);
            begin(sum, a[0], at.stage, 0, add);
            wgmma_wait<1>();
            if (add) release(before);
            add = true;
            widen(a[1], scales, at.stage, 1);
            begin(sum, a[1], at.stage, 1, true);
            wgmma_wait<1>();
            before = at.stage;
            at.next();
        }
        wgmma_wait<0>();
        settle(sum);
    }

    /* Sums as [token][row] to shared memory, where the ring was. */
    __device__ void leave_sums(const float (&sum)[SUMS]) const
    {
        unsigned lane = threadIdx.x % 32, row = block() * 16 + lane / 4;
        asm volatile("bar.sync 1, %0;" ::"n"(T::COMPUTING) : "memory"); /* all have done with it */
#pragma unroll
        for (int i = 0; i < SUMS; i++) {
            uint32_t token = i / 4 * 8 + lane % 4 * 2 + i % 2;
            uint32_t to = r.base + (token * T::SUM_ROW + row + i / 2 % 2 * 8) * 4;
            asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(sum[i]) : "memory");
        }
    }

    /* Four sums of all blocks of the cluster, added in order. */
    __device__ float4 total(uint32_t address) const
    {
        float4 v[8], sum = make_float4(0, 0, 0, 0);
#pragma unroll
        for (uint32_t b = 0; b < 8; b++)
            if (b < op.split) v[b] = load_of_block(address, b);
#pragma unroll
        for (uint32_t b = 0; b < 8; b++)
            if (b < op.split) sum.x += v[b].x, sum.y += v[b].y, sum.z += v[b].z, sum.w += v[b].w;
        return sum;
    }

    /* This block's part of y, four rows of w at a time. */
    __device__ void store_y() const
    {
        uint32_t fours = op.m * (ROWS / 4), column = row16 * 16;
        uint32_t to = (rank + 1) * fours / op.split;
        for (uint32_t i = rank * fours / op.split + threadIdx.x; i < to; i += T::COMPUTING) {
            uint32_t token = i / (ROWS / 4), row = i % (ROWS / 4) * 4;
            float4 sum = total(r.base + (token * T::SUM_ROW + row) * 4);
            if (column + row >= op.n) continue;
            __nv_bfloat162 pair[2] = {__floats2bfloat162_rn(sum.x * op.factor, sum.y * op.factor),
                                      __floats2bfloat162_rn(sum.z * op.factor, sum.w * op.factor)};
            *(uint2 *)(op.y + (size_t)token * op.n + column + row) = *(uint2 *)pair;
        }
    }
};

#endif

/* The first warp of the last warpgroup fetches. */
template <class T>
__global__ void __launch_bounds__(T::THREADS, T::BLOCKS_SM)
    multiply_some(const __grid_constant__ some op, const __grid_constant__ CUtensorMap map)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t raw[];
    work<T> w(op, (shared_address(raw) + 1023) & ~1023u);
    let_next_begin();
    if (threadIdx.x == 0) w.r.init(T::COMPUTING / 32);
    __syncthreads();
    if (threadIdx.x >= T::COMPUTING) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers<T>::FETCHING));
        if (threadIdx.x < T::COMPUTING + 32) w.fetch(&map);
        __syncwarp();
        cluster_sync();
        cluster_sync();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers<T>::COMPUTING));
        float sum[T::TOKENS / 2];
        w.compute(sum);
        w.leave_sums(sum);
        cluster_sync();
        wait_for_kernel_ahead();
        w.store_y();
        cluster_sync(); /* the others may still read this block's sums */
    }
#else
    __trap();
#endif
}

template <class T> cudaError_t launch(const some &op, const CUtensorMap &map, cudaStream_t stream)
{
    constexpr int BYTES = 1024 + T::ring::BYTES;
    static_assert(T::BLOCKS_SM * (BYTES + 1024) <= 228 * 1024, "shared memory of a multiprocessor");
    static_assert(T::STAGES * T::ring::STAGE_BYTES >= T::SUM_BYTES,
                  "the sums lie where the ring was");
    static cudaError_t ready =
        cudaFuncSetAttribute(multiply_some<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (ready != cudaSuccess) return ready;
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = op.split;
    attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((op.blocks16 + T::ROWS / 16 - 1) / (T::ROWS / 16) * op.split);
    config.blockDim = dim3(T::THREADS);
    config.dynamicSmemBytes = BYTES, config.stream = stream;
    config.attrs = attributes, config.numAttrs = 2;
    return cudaLaunchKernelEx(&config, multiply_some<T>, op, map);
}

template <class F>
cudaError_t launch_tokens(const some &op, const CUtensorMap &map, cudaStream_t stream)
{
    if (op.m <= 8) return launch<shape<F, 2, 8, 9, 2>>(op, map, stream);
    if (op.m <= 16) return launch<shape<F, 2, 16, 8, 2>>(op, map, stream);
    if (op.m <= 32) return launch<shape<F, 2, 32, 6, 2>>(op, map, stream);
    return launch<shape<F, 4, 64, 6, 1>>(op, map, stream);
}

/* As many blocks sharing k as make the fewest rounds of groups. Clusters leave some multiprocessors empty: those
 * of 4 and 6 fill three quarters of an H100, those of 5 and 8 fewer. */
uint32_t split_of(const bt_linear_w4_args *op)
{
    uint32_t groups = op->k / BT_W4_GROUP, rows = op->m <= 32 ? 128 : 256, best = 1;
    uint32_t tiles = (op->n + rows - 1) / rows, room = op->sms * (op->m <= 32 ? 2 : 1);
    double least = 1e30;
    for (uint32_t split : {1u, 2u, 3u, 4u, 6u}) {
        if (split > groups) break;
        uint32_t fit = split == 1 ? room : room * 3 / 4;
        uint32_t rounds = (tiles * split + fit - 1) / fit, each = (groups + split - 1) / split;
        double cost = rounds * (each + 4.0); /* to begin and to end take as long as four groups */
        if (cost < least) least = cost, best = split;
    }
    return best;
}

} // namespace

extern "C" bt_status bt_w4_some_sm90_cuda(const bt_linear_w4_args *args, uint32_t split,
                                          cudaStream_t stream, bt_err *err)
{
    uint32_t groups = args->k / BT_W4_GROUP;
    assert(args->arch == 90 && args->m <= 64 && split <= 8 && split <= groups);
    CUtensorMap map;
    uint32_t tokens = args->m <= 8 ? 8 : args->m <= 16 ? 16 : args->m <= 32 ? 32 : 64;
    bt_status status = bt_w4_map_x(args, tokens, &map, err);
    if (status != BT_OK) return status;
    some op = {(const uint8_t *)args->w,
               (__nv_bfloat16 *)args->y,
               args->m,
               args->n,
               groups,
               bt_w4_rows(args->n) / BT_W4_BLOCK_ROWS,
               split ? split : split_of(args),
               factor_of(args)};
    cudaError_t error = args->format == BT_W4_NVFP4 ? launch_tokens<format_nvfp4>(op, map, stream)
                                                    : launch_tokens<format_w4>(op, map, stream);
    return bt_cuda_status(error, "linear_w4", err);
}
