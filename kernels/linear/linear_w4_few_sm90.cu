/* linear_w4_few_sm90.cu - up to 8 rows of x on Hopper: the time is that of reading the weights.
 *
 * SHAPE   A block takes tiles of 16 or 32 rows of w, all of k; its warps share k, each a range of groups, and add up
 *         through shared memory at the end of a tile. A warp works alone meanwhile: bulk copies bring its blocks of w
 *         to a ring of its own, DEPTH groups ahead, across tiles; its range of x stays in shared memory. Products are
 *         mma m16n8k16, w being A: it is widened to 128 + code, in one instruction for two, and
 *             sum of x * (code - zero) = sum of x * (128 + code) - (128 + zero) * sum of x
 *         in f32 for each group, whose sum of x is made once.
 * ORDER   What a multiprocessor asks of memory comes in the order in which it asked. So before x only `early` groups
 *         of w are asked for: the rest would keep x waiting, and with it everything.
 * BYTES   n * k / 2 * (1 + 1 / 16) of weights, m * k * 2 of x, m * n * 2 of y. FLOPS 2 * m * n * k.
 * FIGURES H100 SXM (reading 3143 GB/s), 2026-11-24, m 1, x and weights cold: n 28672, k 4096 2946 GB/s (94 %); n 4096,
 *         k 14336 2508 GB/s (80 %); n 6144, k 4096 2133 GB/s (68 %); n 4096, k 4096 1777 GB/s (57 %): 13 and 9 MB are
 *         read in 4.3 and 2.9 us, but from the end of one kernel to the end of the next it takes 0.8 us to begin, 1 to 2
 *         for x to come through the queue of weights, 2 to multiply, 0.2 to add up.
 * TRIED   Weights from memory to registers: the loads sank below the wait for the kernel ahead. The sums of x by an mma
 *         with ones: as fast. 8 warps: slower. Two or three blocks for each multiprocessor: slower. */
#include "kernels/linear/linear_w4.cuh"

extern "C" {
#include "kernels/linear/linear_w4_kernels.h"
}

#include <assert.h>

namespace
{

using namespace bt_w4_device;

constexpr int TOKENS = 8, MOST_BYTES = 227 * 1024;

struct few {
    const uint8_t *w, *x;
    __nv_bfloat16 *y;
    uint32_t m, n, k, groups, tiles;
    uint32_t x_row; /* bytes of a warp's range of x of a token; 16 more put tokens in other banks */
    uint32_t x_sums; /* bytes of a warp's sums of x */
    uint32_t sums;   /* bytes of all warps' sums of a tile, [warp][token][SUM_ROW] f32 */
    uint32_t early;  /* groups of w that a warp asks for before x */
    float factor;    /* of the sums */
};

/* Shared memory: rings, barriers, two times the sums of a tile; then of each warp sums of x of each group and
 * token; then x. */
template <class F_, int WARPS_, int TILES_, int DEPTH_, int BLOCKS_> struct layout {
    typedef F_ F;
    static constexpr int WARPS = WARPS_, TILES = TILES_, DEPTH = DEPTH_, BLOCKS = BLOCKS_;
    static constexpr int THREADS = WARPS * 32;
    static constexpr int ROWS = TILES * 16, SUM_ROW = ROWS + 4;
    static constexpr uint32_t SLOT = TILES * F::BLOCK_BYTES, RING = DEPTH * SLOT;
    static constexpr uint32_t BARRIERS = WARPS * RING, SUMS = BARRIERS + WARPS * DEPTH * 8;
};

#if __CUDA_ARCH__ >= 900

/* The groups of k that fall to this warp, and where its things lie. */
template <class L> struct streamer {
    typedef typename L::F F;
    static constexpr int WARPS = L::WARPS, TILES = L::TILES, DEPTH = L::DEPTH;

    const few &op;
    uint32_t memory, lane, warp, first, count; /* groups */

    __device__ streamer(const few &op_, const void *shared) : op(op_)
    {
        memory = shared_address(shared);
        lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
        first = warp * op.groups / WARPS;
        count = (warp + 1) * op.groups / WARPS - first;
    }

    __device__ uint32_t slot(uint32_t index) const
    {
        return memory + warp * L::RING + index * L::SLOT;
    }

    __device__ uint32_t barrier(uint32_t index) const
    {
        return memory + L::BARRIERS + (warp * DEPTH + index) * 8;
    }

    __device__ uint32_t x() const
    {
        return memory + L::SUMS + 2 * op.sums + WARPS * op.x_sums + warp * op.m * op.x_row;
    }

    /* [group][TOKENS] f32 */
    __device__ uint32_t x_sums() const
    {
        return memory + L::SUMS + 2 * op.sums + warp * op.x_sums;
    }

    __device__ void init() const
    {
        if (lane == 0)
            for (int i = 0; i < DEPTH; i++) barrier_init(barrier(i), 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        __syncwarp();
    }

    __device__ void fetch(uint32_t index, uint32_t tile, uint32_t group) const
    {
        if (tile >= op.tiles) return;
        if (!elected()) return;
        barrier_expect(barrier(index), L::SLOT);
#pragma unroll
        for (int t = 0; t < TILES; t++)
            copy_bulk(slot(index) + t * F::BLOCK_BYTES,
                      op.w +
                          ((size_t)(tile * TILES + t) * op.groups + first + group) * F::BLOCK_BYTES,
                      F::BLOCK_BYTES, barrier(index));
    }

    /* x to the L2; whoever writes it later does so there. */
    __device__ void prefetch_x() const
    {
        uint32_t lines = count * (BT_W4_GROUP * 2 / 128);
        for (uint32_t i = lane; i < lines * op.m; i += 32)
            asm volatile("prefetch.global.L2 [%0];" ::"l"(
                op.x + ((size_t)(i / lines) * op.k + first * BT_W4_GROUP) * 2 + i % lines * 128));
    }

    __device__ void begin_x() const
    {
        uint32_t pieces = count * (BT_W4_GROUP * 2 / 16);
        for (uint32_t token = 0; token < op.m; token++)
            for (uint32_t piece = lane; piece < pieces; piece += 32)
                copy_16(x() + token * op.x_row + piece * 16,
                        op.x + ((size_t)token * op.k + first * BT_W4_GROUP) * 2 + piece * 16);
        copies_end_group();
    }

    __device__ void end_x() const
    {
        copies_wait<0>();
        __syncwarp();
        if constexpr (F::GROUP_SUMS) sum_x(count * (BT_W4_GROUP * 2 / 16));
    }

    /* The 16 pieces of a group are with 16 lanes, which this lane copied itself. */
    __device__ void sum_x(uint32_t pieces) const
    {
        for (uint32_t token = 0; token < op.m; token++)
            for (uint32_t piece = lane; piece < (pieces + 31) / 32 * 32; piece += 32) {
                float sum = 0;
                if (piece < pieces) {
                    uint4 v = load_shared_16(x() + token * op.x_row + piece * 16);
                    sum = pair_sum(v.x) + pair_sum(v.y) + (pair_sum(v.z) + pair_sum(v.w));
                }
#pragma unroll
                for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
                if (lane % 16 == 0 && piece < pieces)
                    asm volatile("st.shared.f32 [%0], %1;" ::"r"(x_sums() +
                                                                 (piece / 16 * TOKENS + token) * 4),
                                 "f"(sum)
                                 : "memory");
            }
        __syncwarp();
    }

    __device__ static float pair_sum(uint32_t pair)
    {
        return __uint_as_float(pair << 16) + __uint_as_float(pair & 0xffff0000u);
    }

    /* sum += the group in the slot; x_group: its x, where this lane addresses a row of a matrix. */
    __device__ void multiply(float (&sum)[TILES][4], uint32_t index, uint32_t x_group,
                             uint32_t group) const
    {
        float part[TILES][2][4] = {};
        uint4 codes[TILES][2];
        typename F::scales scales[TILES];
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            uint32_t block = slot(index) + t * F::BLOCK_BYTES;
            codes[t][0] = load_shared_16(block + lane * 16);
            codes[t][1] = load_shared_16(block + BT_W4_BLOCK_CODES / 2 + lane * 16);
            scales[t] = F::load_shared(block + BT_W4_BLOCK_CODES, lane);
        }
#pragma unroll
        for (int quarter = 0; quarter < 4; quarter++) {
            uint32_t b[4];
            load_matrices(b, x_group + quarter * 64);
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    const uint4 &c = codes[t][quarter / 2];
                    uint32_t a[4], word = quarter % 2 ? (half ? c.w : c.z) : (half ? c.y : c.x);
                    F::widen_biased(a, word, scales[t], quarter * 2 + half);
                    mma(part[t][half], a, b[half * 2], b[half * 2 + 1]);
                }
        }
        float2 x_sum = make_float2(0, 0);
        if constexpr (F::GROUP_SUMS)
            asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                         : "=f"(x_sum.x), "=f"(x_sum.y)
                         : "r"(x_sums() + (group * TOKENS + lane % 4 * 2) * 4)
                         : "memory");
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                F::add_biased(sum[t][i], part[t][0][i] + part[t][1][i], i % 2 ? x_sum.y : x_sum.x,
                              scales[t], i / 2);
    }

    /* This warp's sums of a tile to shared memory, the block's to y. */
    __device__ void finish(const float (&sum)[TILES][4], uint32_t tile, uint32_t parity) const
    {
        uint32_t all = memory + L::SUMS + parity * op.sums;
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t token = lane % 4 * 2 + i % 2, row = t * 16 + lane / 4 + i / 2 * 8;
                if (token < op.m)
                    asm volatile("st.shared.f32 [%0], %1;" ::"r"(
                                     all + ((warp * op.m + token) * L::SUM_ROW + row) * 4),
                                 "f"(sum[t][i])
                                 : "memory");
            }
        __syncthreads();
        uint32_t token = threadIdx.x / (L::ROWS / 2), row = threadIdx.x % (L::ROWS / 2) * 2;
        uint32_t column = tile * L::ROWS + row;
        if (token >= op.m || column >= op.n) return;
        float2 total = make_float2(0, 0);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            uint32_t from = all + ((w * op.m + token) * L::SUM_ROW + row) * 4;
            float2 v;
            asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                         : "=f"(v.x), "=f"(v.y)
                         : "r"(from)
                         : "memory");
            total.x += v.x, total.y += v.y;
        }
        *(__nv_bfloat162 *)(op.y + (size_t)token * op.n + column) =
            __floats2bfloat162_rn(total.x * op.factor, total.y * op.factor);
    }
};

#endif

template <class L>
__global__ void __launch_bounds__(L::THREADS, L::BLOCKS)
    multiply_few_sm90(const __grid_constant__ few op)
{
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(128) uint8_t shared[];
    streamer<L> s(op, shared);
    s.init();
    s.prefetch_x();
    uint32_t ahead_tile = blockIdx.x, ahead_group = 0, ahead = 0;
    auto fetch_until = [&](uint32_t end) {
        for (; ahead < end; ahead++) {
            s.fetch(ahead, ahead_tile, ahead_group);
            if (++ahead_group >= s.count) ahead_group = 0, ahead_tile += gridDim.x;
        }
    };
    fetch_until(op.early);
    let_next_begin();
    wait_for_kernel_ahead();
    s.begin_x(); /* before the rest of the weights, or it would come after them */
    fetch_until(L::DEPTH);
    s.end_x();
    uint32_t row = min(s.lane % 8, op.m - 1); /* tokens beyond m: columns that are not stored */
    uint32_t x_row = s.x() + row * op.x_row + s.lane / 8 * 16;
    uint32_t slot = 0, phase = 0, parity = 0;
    for (uint32_t tile = blockIdx.x; tile < op.tiles; tile += gridDim.x, parity ^= 1) {
        float sum[L::TILES][4] = {};
        for (uint32_t group = 0; group < s.count; group++) {
            barrier_wait(s.barrier(slot), phase);
            s.multiply(sum, slot, x_row + group * (BT_W4_GROUP * 2), group);
            __syncwarp();
            s.fetch(slot, ahead_tile, ahead_group);
            if (++ahead_group >= s.count) ahead_group = 0, ahead_tile += gridDim.x;
            if (++slot == L::DEPTH) slot = 0, phase ^= 1;
        }
        s.finish(sum, tile, parity);
    }
#else
    __trap();
#endif
}

typedef cudaError_t launch_fn(const few &op, uint32_t blocks, cudaStream_t stream);

template <class L> uint32_t block_bytes(few &op)
{
    uint32_t most = (op.groups + L::WARPS - 1) / L::WARPS; /* groups of a warp */
    op.x_row = most * BT_W4_GROUP * 2 + 16, op.x_sums = most * TOKENS * 4;
    op.sums = L::WARPS * op.m * L::SUM_ROW * 4;
    return L::SUMS + 2 * op.sums + L::WARPS * (op.x_sums + op.m * op.x_row);
}

template <class L> cudaError_t launch(const few &of, uint32_t blocks, cudaStream_t stream)
{
    static cudaError_t ready = cudaFuncSetAttribute(
        multiply_few_sm90<L>, cudaFuncAttributeMaxDynamicSharedMemorySize, MOST_BYTES);
    if (ready != cudaSuccess) return ready;
    few op = of;
    op.tiles = of.tiles / L::TILES;
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(op.tiles < blocks ? op.tiles : blocks);
    config.blockDim = dim3(L::THREADS);
    config.dynamicSmemBytes = block_bytes<L>(op);
    config.stream = stream, config.attrs = &overlap, config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, multiply_few_sm90<L>, op);
}

struct kind {
    uint32_t warps, early;
    uint32_t (*bytes)(few &op);
    launch_fn *launch, *launch_nvfp4;
};

template <int WARPS, int TILES, int DEPTH, int BLOCKS> constexpr kind kind_of(uint32_t early)
{
    typedef layout<format_w4, WARPS, TILES, DEPTH, BLOCKS> int4;
    typedef layout<format_nvfp4, WARPS, TILES, DEPTH, BLOCKS> nvfp4;
    return {WARPS, early, block_bytes<nvfp4>, launch<int4>, launch<nvfp4>};
}

/* For small matrices, which are all beginning and end; for large ones; for long k. */
const kind kinds[] = {
    kind_of<16, 1, 2, 2>(1),
    kind_of<16, 2, 4, 1>(4),
    kind_of<16, 2, 5, 1>(2),
};

} // namespace

static_assert(sizeof(kinds) / sizeof(kinds[0]) == BT_W4_FEW_KINDS, "kinds");

extern "C" bool bt_w4_few_sm90_takes(uint32_t kind, uint32_t m, uint32_t k)
{
    few op = {};
    op.m = m, op.groups = k / BT_W4_GROUP;
    return m <= TOKENS && op.groups >= kinds[kind].warps && kinds[kind].bytes(op) <= MOST_BYTES;
}

extern "C" bt_status bt_w4_few_sm90_cuda(const bt_linear_w4_args *args, uint32_t kind,
                                         uint32_t blocks_sm, cudaStream_t stream, bt_err *err)
{
    assert(args->arch >= 90 && bt_w4_few_sm90_takes(kind, args->m, args->k));
    few op = {};
    op.w = (const uint8_t *)args->w, op.x = (const uint8_t *)args->x;
    op.y = (__nv_bfloat16 *)args->y;
    op.m = args->m, op.n = args->n, op.k = args->k, op.groups = args->k / BT_W4_GROUP;
    op.tiles = bt_w4_rows(args->n) / BT_W4_BLOCK_ROWS;
    op.early = kinds[kind].early, op.factor = factor_of(args);
    launch_fn *launch = args->format == BT_W4_NVFP4 ? kinds[kind].launch_nvfp4 : kinds[kind].launch;
    return bt_cuda_status(launch(op, args->sms * blocks_sm, stream), "linear_w4", err);
}
