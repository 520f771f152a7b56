/* linear_w4_many_sm90.cu - many rows of x on Hopper: weights are widened in registers and are the A of wgmma.
 *
 * SHAPE   A block has two warpgroups that compute, 128 rows of w each times 128 tokens, and a warp that fetches, by bulk
 *         copies into a ring in shared memory, 128 k at a time. 256 rows of w by 128 tokens because a row
 *         of w is a quarter of the bytes of a row of x. While the tensor cores work on 64 k, a warpgroup widens the next
 *         64. Sums go through shared memory to y, whose rows are tokens. The grid is persistent: the ring
 *         fills for the next tile while the last is stored.
 * VALUES  w = bf16((code - zero) * bf16(scale)).
 * BYTES   n * k / 2 * (1 + 1 / 16) of weights, m * k * 2 of x, m * n * 2 of y. FLOPS 2 * m * n * k.
 * FIGURES H100 SXM, 2026-11-24, m 2048, beside cuBLASLt's best of eight algorithms in bf16 in the same minute:
 *         n 6144, k 4096 676 TFLOP/s (98 %); n 4096, k 4096 662 (92 %); n 28672, k 4096 645 (90 %);
 *         n 4096, k 14336 676 (92 %): gpu-check --bench --only linear_w4. m 256 is 37 to 93 % of bf16: tiles are
 *         too few where n is small.
 * TRIED   Fetching by cp.async of a whole warpgroup: 48 to 57 % of bf16, because its address arithmetic took
 *         longer than the products. Bands of 8 and 16 tiles of tokens: within the noise, or slower for n 28672. */
#include "kernels/linear/linear_w4_sm90.cuh"

extern "C" {
#include "kernels/linear/linear_w4_kernels.h"
}

#include <assert.h>

namespace
{

using namespace bt_w4_device;

constexpr int ROWS64 = 2, WARPGROUP_ROWS = ROWS64 * 64, ROWS = 2 * WARPGROUP_ROWS;
constexpr int TOKENS = 128, THREADS = 384;
constexpr uint32_t OUT_ROW = (WARPGROUP_ROWS + 8) * 2;
constexpr uint32_t OUT_BYTES = TOKENS * OUT_ROW; /* of a warpgroup */

struct many {
    const uint8_t *w;
    __nv_bfloat16 *y;
    uint32_t m, n, groups;
    uint32_t blocks16; /* rows of packed blocks */
    uint32_t row_tiles, token_tiles;
    float factor; /* of the sums */
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int SUMS = TOKENS / 2; /* registers of 64 rows */
constexpr uint32_t BAND = 4;     /* tiles of tokens */

struct tile_place {
    uint32_t row, token; /* in tiles */
};

/* Tiles go in bands of BAND tiles of tokens, row after row within a band, so that the blocks that run at a time
 * need few bytes of both operands. */
__device__ tile_place place_of(const many &op, uint32_t tile)
{
    uint32_t first = tile / (op.row_tiles * BAND) * BAND;
    uint32_t width = min(op.token_tiles - first, BAND), in_band = tile - first * op.row_tiles;
    tile_place place = {in_band / width, first + in_band % width};
    return place;
}

__device__ uint32_t all_tiles(const many &op)
{
    return op.row_tiles * op.token_tiles;
}

template <class F, int STAGES>
__device__ void fetch(const many &op, const CUtensorMap *map,
                      const ring<F, ROWS, TOKENS, STAGES> &r)
{
    size_t stride = (size_t)op.groups * F::BLOCK_BYTES;
    place<STAGES> at;
    uint32_t done = 0;
    for (uint32_t tile = blockIdx.x; tile < all_tiles(op); tile += gridDim.x) {
        tile_place place = place_of(op, tile);
        uint32_t row = place.row * (ROWS / 16), token = place.token * TOKENS;
        uint32_t blocks = min(op.blocks16 - row, ROWS / 16u);
        const uint8_t *w = op.w + row * stride;
        for (uint32_t g = 0; g < op.groups; g++, done++, at.next()) {
            if (done >= STAGES) barrier_wait(r.empty + at.stage * 8, at.phase ^ 1);
            r.expect(at.stage, blocks);
            r.fetch_w(at.stage, w + g * F::BLOCK_BYTES, blocks, stride);
            if (done == 0) wait_for_kernel_ahead(); /* which has no part in the weights */
            r.fetch_x(at.stage, map, g, token);
        }
    }
}

template <class F, int STAGES> struct computer {
    const many &op;
    const ring<F, ROWS, TOKENS, STAGES> &r;
    uint32_t out; /* shared memory of this warpgroup */
    uint32_t warpgroup, warp, lane;
    place<STAGES> at;

    __device__ void release(uint32_t stage) const
    {
        if (lane == 0) barrier_arrive(r.empty + stage * 8);
    }

    /* 64 k; a: registers that the tensor cores do not read now. */
    __device__ void begin_half(float (&sum)[ROWS64][SUMS], uint32_t (&a)[4][ROWS64][4],
                               const typename F::scales (&scales)[ROWS64], int half, bool first)
    {
#pragma unroll
        for (int i = 0; i < ROWS64; i++) {
            uint4 codes = r.codes(at.stage, (warpgroup * ROWS64 + i) * 4 + warp, half);
            const uint32_t word[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
            for (int step = 0; step < 4; step++)
                F::widen_all(a[step][i], word[step], scales[i], half * 4 + step);
        }
        wgmma_begin();
        uint64_t b = r.x(at.stage, half);
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int i = 0; i < ROWS64; i++)
                wgmma(sum[i], a[step][i], b + step * 2, !first || step > 0);
        wgmma_end_group();
    }

    __device__ void multiply(float (&sum)[ROWS64][SUMS])
    {
        uint32_t a[2][4][ROWS64][4], before = 0;
        for (uint32_t group = 0; group < op.groups; group++) {
            typename F::scales scales[ROWS64];
            barrier_wait(r.full + at.stage * 8, at.phase);
#pragma unroll
            for (int i = 0; i < ROWS64; i++)
                scales[i] = r.scales(at.stage, (warpgroup * ROWS64 + i) * 4 + warp);
            begin_half(sum, a[0], scales, 0, group == 0);
            wgmma_wait<1>();
            if (group > 0) release(before);
            begin_half(sum, a[1], scales, 1, false);
            wgmma_wait<1>();
            before = at.stage;
            at.next();
        }
        wgmma_wait<0>();
        release(before);
#pragma unroll
        for (int i = 0; i < ROWS64; i++) settle(sum[i]);
    }

    /* Sums of 64 rows to shared memory. */
    __device__ void leave_sums(const float (&sum)[SUMS], int i) const
    {
        uint32_t matrix = lane / 8, column = i * 64 + warp * 16 + matrix % 2 * 8;
#pragma unroll
        for (int e = 0; e < TOKENS / 8; e += 2) {
            uint32_t v[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float *two = sum + (e + j / 2) * 4 + j % 2 * 2;
                __nv_bfloat162 pair = __floats2bfloat162_rn(two[0] * op.factor, two[1] * op.factor);
                v[j] = *(uint32_t *)&pair;
            }
            store_matrices(out + (e * 8 + matrix / 2 * 8 + lane % 8) * OUT_ROW + column * 2, v);
        }
    }

    __device__ void store_tile(const float (&sum)[ROWS64][SUMS], tile_place place) const
    {
        constexpr uint32_t PIECES = WARPGROUP_ROWS / 8;
        warpgroup_sync(1 + warpgroup); /* the tile before was read */
#pragma unroll
        for (int i = 0; i < ROWS64; i++) leave_sums(sum[i], i);
        warpgroup_sync(1 + warpgroup);
        uint32_t piece = lane % PIECES;
        uint32_t column = place.row * ROWS + warpgroup * WARPGROUP_ROWS + piece * 8;
        uint32_t first = place.token * TOKENS;
        if (column >= op.n) return;
#pragma unroll 4
        for (uint32_t row = warp * 2 + lane / PIECES; row < TOKENS; row += 8) {
            uint4 v = load_shared_16(out + row * OUT_ROW + piece * 16);
            if (first + row < op.m) *(uint4 *)(op.y + (size_t)(first + row) * op.n + column) = v;
        }
    }
};

#endif

/* The first warp of the third warpgroup fetches. */
template <class F, int STAGES>
__global__ void __launch_bounds__(THREADS, 1)
    multiply_many(const __grid_constant__ many op, const __grid_constant__ CUtensorMap map)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t raw[];
    uint32_t memory = (shared_address(raw) + 1023) & ~1023u;
    ring<F, ROWS, TOKENS, STAGES> r(memory);
    uint32_t warpgroup = threadIdx.x / 128, warp = threadIdx.x / 32 % 4;
    let_next_begin();
    if (threadIdx.x == 0) r.init(8);
    __syncthreads();
    if (warpgroup == 2) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (warp == 0) fetch<F, STAGES>(op, &map, r);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        uint32_t out = memory + r.BYTES + warpgroup * OUT_BYTES;
        computer<F, STAGES> c = {op, r, out, warpgroup, warp, threadIdx.x % 32};
        for (uint32_t tile = blockIdx.x; tile < all_tiles(op); tile += gridDim.x) {
            float sum[ROWS64][SUMS];
            c.multiply(sum);
            if (tile == blockIdx.x) wait_for_kernel_ahead();
            c.store_tile(sum, place_of(op, tile));
        }
    }
#else
    __trap();
#endif
}

template <class F>
cudaError_t launch(const many &op, const CUtensorMap &map, uint32_t blocks, cudaStream_t stream)
{
    constexpr int STAGES = 3;
    constexpr int BYTES = 1024 + ring<F, ROWS, TOKENS, STAGES>::BYTES + 2 * OUT_BYTES;
    static_assert(BYTES <= 227 * 1024, "shared memory of a multiprocessor");
    auto kernel = multiply_many<F, STAGES>;
    static cudaError_t ready =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (ready != cudaSuccess) return ready;
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    uint32_t tiles = op.row_tiles * op.token_tiles;
    config.gridDim = dim3(tiles < blocks ? tiles : blocks);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = BYTES, config.stream = stream;
    config.attrs = &overlap, config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, kernel, op, map);
}

} // namespace

extern "C" bt_status bt_w4_many_sm90_cuda(const bt_linear_w4_args *args, cudaStream_t stream,
                                          bt_err *err)
{
    assert(args->arch == 90);
    CUtensorMap map;
    bt_status status = bt_w4_map_x(args, TOKENS, &map, err);
    if (status != BT_OK) return status;
    uint32_t blocks16 = bt_w4_rows(args->n) / BT_W4_BLOCK_ROWS;
    many op = {(const uint8_t *)args->w,
               (__nv_bfloat16 *)args->y,
               args->m,
               args->n,
               args->k / BT_W4_GROUP,
               blocks16,
               (blocks16 + ROWS / 16 - 1) / (ROWS / 16),
               (args->m + TOKENS - 1) / TOKENS,
               factor_of(args)};
    cudaError_t error = args->format == BT_W4_NVFP4
                            ? launch<format_nvfp4>(op, map, args->sms, stream)
                            : launch<format_w4>(op, map, args->sms, stream);
    return bt_cuda_status(error, "linear_w4", err);
}
