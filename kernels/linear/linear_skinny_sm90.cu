/* linear_skinny_sm90.cu - the kernel with a ring: the copy engine streams w through shared memory.
 *
 * LAUNCH  A thread block has warps_n * warps_k warps that multiply and one that copies. It takes tiles of
 *         panels * warps_n * 16 rows of w one after the other; the ring runs on across tiles. A stage
 *         holds stage_blocks blocks of k of every panel of the tile, by bulk copies, and the same k of x,
 *         by 16-byte copies; the warps along k share the blocks of a stage. With splits > 1 the thread
 *         blocks of a cluster share the k of a tile, and each sums a part of it from the memory of all.
 * GROUPS  With plan.groups the products are wgmma's, w from registers (its fragments are those of
 *         mma.sync), x from shared memory, where X_WARPS more warps put it in the order of w's k.
 * OVERLAP The ring fills with w before the wait for the kernel before: w never depends on it.
 * BYTES   n * k * (2 or 1) of w from memory; m * k * (2 or 1) of x for each tile, from the L2.
 * FLOPS   2 * m * n * k.
 * FIGURES beside those of its rival, in linear_skinny_cuda.cu.
 * TRIED   H100, 2026-11-24. x by a bulk copy for each row: the engine takes 50 ns for each, and m = 16 of
 *         4096x4096 took 28 us with rows of 256 bytes, 15 us with 512. By 16-byte copies with addresses
 *         worked out for each: 19 us; as here, 15 us; still behind the kernel without a ring, so from m = 9 to
 *         16 there is none. One thread block for each SM instead of two: 2 to 10 % more time. 4 warps instead
 *         of 8: 1 to 10 % more. Smaller stages: 1 to 5 % more. w not marked as first to leave the L2: no difference. m = 64: 8 warps
 *         of one panel 106 us where 4 of two panels take 61 (gate+up): conversions of x to f16 are not shared.
 *         wgmma with x written by all X_WARPS together, one stage at a time: 91 us, as here 48. */
#include "kernels/linear/linear_ring.cuh"
#include "kernels/linear/linear_skinny.cuh"
#include "kernels/linear/linear_wgmma.cuh"

#include <assert.h>

#include <initializer_list>

namespace skinny_ring
{

using namespace skinny;
using namespace bt_ring;

constexpr int STAGES_MAX = 32;
[[maybe_unused]] constexpr uint64_t W_POLICY =
    0x12F0000000000000;    /* w is the first to leave the L2 */
constexpr int X_WARPS = 3; /* that rearrange x for wgmma */

struct ring {
    bt_linear_skinny_args op;
    uint32_t tiles, blocks; /* of n; of k */
    uint32_t stage_blocks, stages, stage_bytes;
    uint32_t x_offset; /* of x in a stage */
    uint32_t x_stride; /* of its rows */
    uint32_t sums_offset;
};

struct barriers {
    uint64_t full[STAGES_MAX], empty[STAGES_MAX];
    uint64_t ready, done; /* of a cluster: sums are written; sums have been read */
};

/* x: arrivals that say a stage's x is there. */
__device__ inline void init_barriers(barriers *bar, uint32_t stages, uint32_t x, uint32_t warps,
                                     uint32_t size)
{
    for (uint32_t s = 0; s < stages; s++) {
        barrier_init(&bar->full[s], 1 + x);
        barrier_init(&bar->empty[s], warps);
    }
    barrier_init(&bar->ready, size);
    barrier_init(&bar->done, size);
    barrier_init_done();
}

/* Where in its work a thread block is: the chunk of a tile, and the stage of the ring that takes it. */
struct cursor {
    uint32_t tile, tile_step, tiles;
    uint32_t from, to, block, step; /* of k */
    uint32_t stage, stages, round;

    __device__ cursor(const ring &r, uint32_t rank, uint32_t size)
        : tile(blockIdx.x / size), tile_step(gridDim.x / size), tiles(r.tiles),
          from(r.blocks * rank / size), to(r.blocks * (rank + 1) / size), block(from),
          step(r.stage_blocks), stage(0), stages(r.stages), round(0)
    {
    }
    __device__ bool more() const
    {
        return tile < tiles;
    }
    __device__ uint32_t count() const
    {
        return min(step, to - block);
    }
    /* True if the chunk before was the last of its tile. */
    __device__ bool next()
    {
        if (++stage == stages) stage = 0, round++;
        block += step;
        if (block < to) return false;
        block = from;
        tile += tile_step;
        return true;
    }
};

template <typename T, int PANELS_OF_TILE> struct producer {
    const ring &r;
    uint8_t *shared;
    barriers *bar;
    uint32_t lane;

    __device__ void expect(const cursor &at) const
    {
        uint32_t panels =
            min((uint32_t)PANELS_OF_TILE, (r.op.n + 15) / 16 - at.tile * (uint32_t)PANELS_OF_TILE);
        if (lane == 0) barrier_expect(&bar->full[at.stage], at.count() * panels * 1024);
        __syncwarp();
    }
    __device__ void copy_w(const cursor &at) const
    {
        uint32_t panel = at.tile * PANELS_OF_TILE + lane;
        if (lane < PANELS_OF_TILE && panel < (r.op.n + 15) / 16)
            copy(shared + at.stage * r.stage_bytes + lane * r.stage_blocks * 1024,
                 (const uint8_t *)r.op.w + ((size_t)panel * r.blocks + at.block) * 1024,
                 at.count() * 1024, &bar->full[at.stage], W_POLICY);
    }
    /* By 16 bytes: rows of x are short, and each bulk copy takes the engine 50 ns. As many lanes as fit
     * take a row together, the same of each row, so that a step is two additions. */
    __device__ void copy_x(const cursor &at) const
    {
        constexpr uint32_t BYTES = T::BLOCK_K * T::X_BYTES;
        uint32_t words = at.count() * (BYTES / 16), row_bytes = r.op.k * T::X_BYTES;
        uint32_t width = min(words, 32u), rows = 32 / width, row = lane / width;
        uint32_t word = lane % width * 16;
        uint8_t *to = shared + at.stage * r.stage_bytes + r.x_offset + row * r.x_stride + word;
        const uint8_t *from =
            (const uint8_t *)r.op.x + (size_t)row * row_bytes + at.block * BYTES + word;
        if (row >= rows) row = r.op.m; /* lanes left over */
#pragma unroll 4
        for (; row < r.op.m; row += rows, to += rows * r.x_stride, from += rows * row_bytes) {
            copy_16(to, from);
            for (uint32_t q = 512; q + word < words * 16; q += 512) copy_16(to + q, from + q);
        }
        barrier_arrive_copied(&bar->full[at.stage]);
    }
    /* Fills the ring with w for the first time: nothing else has to be there yet. */
    __device__ void start(cursor at) const
    {
        for (; at.more() && at.round == 0; at.next()) {
            expect(at);
            copy_w(at);
        }
    }
    __device__ void run(cursor at) const
    {
        if (!T::GROUPS) wait_for_kernel_before();
        for (; at.more() && at.round == 0; at.next())
            if (!T::GROUPS) copy_x(at);
        for (; at.more(); at.next()) {
            barrier_wait(&bar->empty[at.stage], (at.round - 1) & 1);
            expect(at);
            copy_w(at);
            if (!T::GROUPS) copy_x(at);
        }
    }
};

/* X_WARPS warps, each for every X_WARPS-th stage, that write x as wgmma reads it: for each block of k its
 * two halves as linear_wgmma.cuh says, with k in the order of w's registers. */
struct rearranger {
    static constexpr int MOST = 16; /* loads on their way */
    const ring &r;
    uint8_t *shared;
    barriers *bar;
    uint32_t warp, lane;

    /* A piece is 8 rows of a block: a lane has 16 bytes of a row, a word of each half of each half. */
    __device__ void load(const cursor &at, uint32_t first, uint32_t count, uint4 (&v)[MOST]) const
    {
        const uint8_t *from = (const uint8_t *)r.op.x + at.block * 64 + lane % 4 * 16;
#pragma unroll
        for (int p = 0; p < MOST; p++) {
            uint32_t piece = first + p, row = min(piece / count * 8 + lane / 4, r.op.m - 1);
            v[p] = *(const uint4 *)(from + (size_t)row * r.op.k + piece % count * 64);
        }
    }
    __device__ void store(const cursor &at, uint32_t first, uint32_t count,
                          const uint4 (&v)[MOST]) const
    {
        uint8_t *to = shared + at.stage * r.stage_bytes + r.x_offset + lane * 4;
#pragma unroll
        for (int p = 0; p < MOST; p++) {
            uint32_t piece = first + p;
            if (piece >= 8 * count) break;
            uint8_t *there =
                to + piece % count * 2 * bt_wgmma::B_BYTES + piece / count * bt_wgmma::B_CORE;
            *(uint32_t *)(there) = v[p].x;
            *(uint32_t *)(there + bt_wgmma::B_HALF) = v[p].y;
            *(uint32_t *)(there + bt_wgmma::B_BYTES) = v[p].z;
            *(uint32_t *)(there + bt_wgmma::B_BYTES + bt_wgmma::B_HALF) = v[p].w;
        }
    }
    __device__ void run(cursor at) const
    {
        wait_for_kernel_before();
        for (uint32_t turn = 0; at.more(); at.next(), turn++) {
            if (turn % X_WARPS != warp) continue;
            uint32_t count = at.count(), pieces = (r.op.m + 7) / 8 * count;
            uint4 v[MOST];
            load(at, 0, count, v);
            if (at.round > 0) barrier_wait(&bar->empty[at.stage], (at.round - 1) & 1);
            store(at, 0, count, v);
            for (uint32_t first = MOST; first < pieces; first += MOST) {
                load(at, first, count, v);
                store(at, first, count, v);
            }
            publish_stores();
            __syncwarp();
            if (lane == 0) barrier_arrive(&bar->full[at.stage]);
        }
    }
};

template <typename T, int TOKEN_TILES, int PANELS, int WARPS_N, int WARPS_K> struct consumer {
    static constexpr int ROWS = PANELS * WARPS_N * 16, STRIDE = sum_stride(ROWS);
    static constexpr int WARPS = WARPS_N * WARPS_K, ALL = TOKEN_TILES * 8 * STRIDE;
    const ring &r;
    const uint8_t *shared;
    float *sums; /* [WARPS_K][columns of x][STRIDE] */
    barriers *bar;
    uint32_t rank, size;

    __device__ static void sync()
    {
        asm volatile("bar.sync 1, %0;" ::"n"(WARPS * 32) : "memory");
    }
    /* Sums leave the tensor cores after each block of 64 k. */
    __device__ void multiply_stage_group(const cursor &at,
                                         float (&acc)[PANELS][TOKEN_TILES][4]) const
    {
        uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, count = at.count();
        const uint8_t *stage = shared + at.stage * r.stage_bytes, *x_at = stage + r.x_offset;
        const uint8_t *w_at = stage + warp * r.stage_blocks * 1024 + lane * 16;
        for (uint32_t b = 0; b < count; b++, w_at += 1024, x_at += 2 * bt_wgmma::B_BYTES) {
            float sums_of_block[32];
            uint4 low = *(const uint4 *)w_at, high = *(const uint4 *)(w_at + 512);
            bt_wgmma::begin();
            bt_wgmma::multiply(sums_of_block, low, bt_wgmma::describe(x_at), 0);
            bt_wgmma::multiply(sums_of_block, high, bt_wgmma::describe(x_at + bt_wgmma::B_BYTES),
                               1);
            bt_wgmma::finish(sums_of_block);
#pragma unroll
            for (int i = 0; i < TOKEN_TILES * 4; i++) acc[0][i / 4][i % 4] += sums_of_block[i];
        }
    }
    __device__ void multiply_stage(const cursor &at, float (&acc)[PANELS][TOKEN_TILES][4]) const
    {
        uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        uint32_t warp_n = warp % WARPS_N, warp_k = warp / WARPS_N, count = at.count();
        const uint8_t *stage = shared + at.stage * r.stage_bytes;
        const uint8_t *w_at = stage + warp_n * PANELS * r.stage_blocks * 1024 + lane * 16;
        uint32_t g = TOKEN_TILES == 1 ? min(lane / 4, r.op.m - 1) : lane / 4; /* x has no more */
        const uint8_t *x_at = stage + r.x_offset + g * r.x_stride + lane % 4 * 16 * T::X_WORDS;
#pragma unroll 2
        for (uint32_t b = warp_k; b < count; b += WARPS_K) {
            uint4 w[PANELS][2], x[TOKEN_TILES][T::X_WORDS];
#pragma unroll
            for (int p = 0; p < PANELS; p++)
                for (int h = 0; h < 2; h++)
                    w[p][h] = *(const uint4 *)(w_at + (p * r.stage_blocks + b) * 1024 + h * 512);
#pragma unroll
            for (int c = 0; c < TOKEN_TILES; c++)
                for (int i = 0; i < T::X_WORDS; i++)
                    x[c][i] = *(const uint4 *)(x_at + c * 8 * r.x_stride +
                                               b * T::BLOCK_K * T::X_BYTES + i * 16);
            multiply_block<T, TOKEN_TILES, PANELS>(acc, w, x);
        }
    }
    /* When nobody shares the k of a tile. */
    __device__ void finish_alone(uint32_t tile, const float (&acc)[PANELS][TOKEN_TILES][4]) const
    {
        uint32_t warp = threadIdx.x / 32;
        finish_warp<TOKEN_TILES, PANELS>(r.op, tile * ROWS + warp * PANELS * 16,
                                         sums + warp * 16 * sum_stride(PANELS * 16), acc);
    }
    /* Of the sums of a tile, in fours down the columns, which this thread finishes first; the others
     * are multiples of its thread block further, and of the same columns of y. */
    __device__ uint32_t first_sum() const
    {
        return r.op.m * (ROWS / 4) * rank / size + threadIdx.x;
    }
    /* Adds what the warps along k and the thread blocks of the cluster hold, in a fixed order. */
    __device__ void finish_tile(uint32_t tile, uint32_t turn,
                                const float (&acc)[PANELS][TOKEN_TILES][4],
                                const columns &mine) const
    {
        uint32_t warp = threadIdx.x / 32, end = r.op.m * (ROWS / 4) * (rank + 1) / size;
        if (r.sums_offset == 0) sync(); /* the ring is over, and its memory takes the sums */
        if (size > 1 && turn > 0) barrier_wait_cluster(&bar->done, (turn - 1) & 1);
        store_sums<TOKEN_TILES, PANELS>(sums + warp / WARPS_N * ALL, STRIDE,
                                        warp % WARPS_N * PANELS * 16, r.op.m, acc);
        sync();
        if (size > 1) {
            if (threadIdx.x < size) barrier_arrive_at(&bar->ready, threadIdx.x);
            barrier_wait_cluster(&bar->ready, turn & 1);
        }
        for (uint32_t at = first_sum(); at < end; at += WARPS * 32) {
            uint32_t i = at / (ROWS / 4), row = at % (ROWS / 4) * 4;
            float x_scale = x_scale_at(r.op, i);
            float4 sum = {};
            for (uint32_t other = 0; other < size; other++) {
#pragma unroll
                for (int k = 0; k < WARPS_K; k++) {
                    const float *from = sums + k * ALL + i * STRIDE + row;
                    float4 v = size > 1 ? load_at(from, other) : *(const float4 *)from;
                    sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
                }
            }
            finish_four(r.op, i, tile * ROWS + row, sum, x_scale, mine);
        }
        sync();
        if (size > 1 && threadIdx.x < size) barrier_arrive_at(&bar->done, threadIdx.x);
    }
    __device__ void run(cursor at) const
    {
        wait_for_kernel_before();
        for (uint32_t turn = 0; at.more(); turn++) {
            float acc[PANELS][TOKEN_TILES][4] = {};
            uint32_t tile = at.tile;
            bool last;
            columns mine = load_columns(r.op, tile * ROWS + first_sum() % (ROWS / 4) * 4);
            do {
                barrier_wait(&bar->full[at.stage], at.round & 1);
                if constexpr (T::GROUPS)
                    multiply_stage_group(at, acc);
                else
                    multiply_stage(at, acc);
                __syncwarp();
                if (threadIdx.x % 32 == 0) barrier_arrive(&bar->empty[at.stage]);
                last = at.next();
            } while (!last);
            if constexpr (WARPS_K == 1) {
                if (size == 1) {
                    finish_alone(tile, acc);
                    continue;
                }
            }
            finish_tile(tile, turn, acc, mine);
        }
    }
};

template <typename T> constexpr int warps_beside(int warps)
{
    return warps + 1 + (T::GROUPS ? X_WARPS : 0);
}

template <typename T, int TOKEN_TILES, int PANELS, int WARPS_N, int WARPS_K>
__device__ inline void work(const ring &r, uint8_t *shared, barriers *bar)
{
    using consumer = consumer<T, TOKEN_TILES, PANELS, WARPS_N, WARPS_K>;
    uint32_t rank = cluster_rank(), size = cluster_size(), warp = threadIdx.x / 32;
    bool copies = warp == consumer::WARPS;
    producer<T, PANELS * WARPS_N> from{r, shared, bar, threadIdx.x % 32};
    cursor at(r, rank, size);
    let_next_kernel_start();
    if (copies) {
        if (from.lane == 0) init_barriers(bar, r.stages, T::GROUPS ? 1 : 32, consumer::WARPS, size);
        __syncwarp();
        from.start(at);
    }
    if (size > 1)
        cluster_sync();
    else
        __syncthreads();
    if (copies)
        from.run(at);
    else if (warp < consumer::WARPS)
        consumer{r, shared, (float *)(shared + r.sums_offset), bar, rank, size}.run(at);
    else
        rearranger{r, shared, bar, warp - consumer::WARPS - 1, threadIdx.x % 32}.run(at);
    if (size > 1) cluster_sync(); /* nobody leaves while others read its sums */
}

template <typename T, int TOKEN_TILES, int PANELS, int WARPS_N, int WARPS_K>
__global__ void __launch_bounds__(warps_beside<T>(WARPS_N *WARPS_K) * 32,
                                  TOKEN_TILES == 8 && WARPS_N * WARPS_K == 8 ? 1 : 2)
    multiply_ring(const __grid_constant__ ring r)
{
#if __CUDA_ARCH__ >= 900
#ifndef __CUDA_ARCH_FEAT_SM90_ALL
    if constexpr (!T::GROUPS)
#endif
    {
        extern __shared__ __align__(128) uint8_t shared[];
        __shared__ barriers bar;
        work<T, TOKEN_TILES, PANELS, WARPS_N, WARPS_K>(r, shared, &bar);
    }
#endif
}

/* ---- launching ---- */

using kernel = void (*)(ring);

struct variant {
    uint16_t token_tiles, panels, warps_n, warps_k;
    kernel of[4]; /* bf16 bf16, fp8 fp8, fp8 bf16, fp8 fp8 by groups */
};

const variant variants[] = {
    {1,
     1,
     1,
     8,
     {multiply_ring<bf16_bf16, 1, 1, 1, 8>, multiply_ring<fp8_fp8, 1, 1, 1, 8>,
      multiply_ring<fp8_bf16, 1, 1, 1, 8>, nullptr}},
    {8, 2, 4, 1, {nullptr, multiply_ring<fp8_fp8, 8, 2, 4, 1>, nullptr, nullptr}},
    {8, 1, 4, 1, {nullptr, nullptr, nullptr, multiply_ring<fp8_groups, 8, 1, 4, 1>}},
    {8, 1, 8, 1, {nullptr, nullptr, nullptr, multiply_ring<fp8_groups, 8, 1, 8, 1>}},
};

constexpr uint32_t BARRIERS = sizeof(barriers) + 1024; /* and what the system takes */

kernel find(const bt_linear_skinny_plan *plan, int pair)
{
    for (const variant &v : variants)
        if (v.token_tiles == plan->token_tiles && v.panels == plan->panels &&
            v.warps_n == plan->warps_n && v.warps_k == plan->warps_k && v.of[pair])
            return v.of[pair];
    return nullptr;
}

/* Bytes between rows of x in a stage: the two rows that 8 lanes load from together share no bank. */
uint32_t x_stride(uint32_t row_bytes, int x_words)
{
    uint32_t rest = x_words == 1 ? 64 : 16;
    return row_bytes + (rest + 128 - row_bytes % 128) % 128;
}

/* Of the memory that sums go through: all of a tile, or sixteen rows of y of each warp. */
uint32_t sums_bytes(const bt_linear_skinny_plan *plan, bool alone)
{
    uint32_t of_warp = 16 * (uint32_t)sum_stride(plan->panels * 16);
    uint32_t of_tile =
        plan->token_tiles * 8 * (uint32_t)sum_stride(plan->panels * plan->warps_n * 16);
    return 4 * (alone ? plan->warps_n * of_warp : plan->warps_k * of_tile);
}

} // namespace skinny_ring

using namespace skinny_ring;

bt_status linear_skinny_ring_init(bt_err *err)
{
    int device, most;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    for (const variant &v : variants)
        for (kernel k : v.of)
            if (k && error == cudaSuccess)
                error = cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             most - (int)BARRIERS);
    return bt_cuda_status(error, "linear_skinny init", err);
}

void linear_skinny_ring(const bt_linear_skinny_args *op, const bt_linear_skinny_plan *plan,
                        cudaStream_t stream)
{
    int pair = op->w_dtype == BT_DTYPE_BF16 ? 0 : op->x_dtype == BT_DTYPE_BF16 ? 2 : 1;
    if (plan->groups) pair = 3;
    kernel k = find(plan, pair);
    assert(k && op->m <= plan->token_tiles * 8u && plan->splits > 0);
    uint32_t block_k = bt_linear_skinny_block_k(op->w_dtype), x_bytes = pair % 2 ? 1 : 2;
    uint32_t panels = plan->panels * plan->warps_n, rows = panels * 16;
    ring r = {*op, (op->n + rows - 1) / rows, op->k / block_k};
    assert(r.blocks >= plan->splits);
    uint32_t warps = plan->warps_n * plan->warps_k;
    uint32_t clusters = plan->grid / plan->splits;
    if (clusters > r.tiles) clusters = r.tiles;
    assert(clusters > 0);
    bool alone = plan->warps_k == 1 && plan->splits == 1, alias = !alone && clusters == r.tiles;
    uint32_t sums = sums_bytes(plan, alone);
    r.stage_blocks = plan->stage_blocks;
    r.x_offset = panels * r.stage_blocks * 1024;
    r.x_stride = x_stride(r.stage_blocks * block_k * x_bytes, pair == 2 ? 2 : 1);
    /* Loads of columns beyond m read on in the stage: whatever lies there goes nowhere. */
    if (plan->groups) r.x_stride = r.stage_blocks * 64;
    uint32_t x_rows = plan->token_tiles == 1 ? op->m : plan->token_tiles * 8;
    r.stage_bytes = (r.x_offset + x_rows * r.x_stride + 127) / 128 * 128;
    uint32_t left = plan->shared_bytes - BARRIERS - (alias ? 0 : sums);
    assert(plan->shared_bytes > BARRIERS + sums && left >= 2 * r.stage_bytes);
    r.stages = left / r.stage_bytes;
    if (r.stages > STAGES_MAX) r.stages = STAGES_MAX;
    r.sums_offset = alias ? 0 : r.stages * r.stage_bytes;
    uint32_t bytes = r.stages * r.stage_bytes + (alias ? 0 : sums);
    if (bytes < sums) bytes = sums;

    cudaLaunchAttribute attributes[2] = {};
    unsigned count = 0;
    if (plan->splits > 1) {
        attributes[count].id = cudaLaunchAttributeClusterDimension;
        attributes[count++].val.clusterDim = {plan->splits, 1, 1};
    }
    if (plan->overlap) {
        attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(clusters * plan->splits);
    config.blockDim = dim3((warps + 1 + (plan->groups ? X_WARPS : 0)) * 32);
    config.dynamicSmemBytes = bytes;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = count;
    (void)cudaLaunchKernelEx(&config, k, r);
}
