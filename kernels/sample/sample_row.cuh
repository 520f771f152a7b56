/* sample_row.cuh - what the steps of sampling a row share: tokens as integers, weights, the cluster that
 * holds the row, reading it. Private to kernels/sample; sample_cuda.cu says how it goes together. */
#ifndef BT_KERNELS_SAMPLE_SAMPLE_ROW_CUH
#define BT_KERNELS_SAMPLE_SAMPLE_ROW_CUH

extern "C" {
#include "kernels/sample/exp.h"
#include "kernels/sample/sample_cuda.h"
}

#include <math.h>

#include <cooperative_groups.h>
#include <cuda_bf16.h>

namespace
{

constexpr uint32_t RANKS_MAX = 16, GROUPS = 256, LIST_MAX = 512, UNROLL = 4, BINS = 8;
constexpr uint32_t FAST_K = 128; /* largest k for which the maxima of groups are a good bound */
constexpr uint64_t NO_TOKEN = 0, ANY_TOKEN = 1ull << 32;

struct memory {
    uint64_t groups[2][GROUPS]; /* maxima of all blocks: of the logits, of the processed ones */
    double box[2][RANKS_MAX][2 * BINS]; /* what blocks tell each other, in turns */
    double total[2 * BINS];
    double of_warp[32][2 * BINS];
    uint64_t list[2][LIST_MAX]; /* in block 0: alternatives, candidates */
    uint32_t list_count[2];
    uint64_t sorted[LIST_MAX];
    double weight[LIST_MAX], sum[LIST_MAX];
    uint32_t group_rank[GROUPS];
    uint64_t threshold, edge;
    uint32_t found, last, done;
};

struct context {
    memory *m;
    float *x; /* [count] of the slice: no NaN, no -0 */
    uint32_t first, count;
    uint32_t rank, ranks, turn;
    uint32_t vocab;
    float top, temperature;
    const uint64_t *maxima; /* [GROUPS] of the logits as they are now */
};

/* --- tokens as integers --- */

__device__ __forceinline__ uint64_t token_of(float x, uint32_t id)
{
    uint32_t bits = __float_as_uint(x);
    uint32_t key = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return x > -INFINITY ? (uint64_t)key << 32 | (uint32_t)~id : NO_TOKEN;
}

__device__ __forceinline__ float logit_of(uint64_t token)
{
    uint32_t key = (uint32_t)(token >> 32);
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

__device__ __forceinline__ uint32_t id_of(uint64_t token)
{
    return ~(uint32_t)token;
}

__device__ __forceinline__ bool broken(uint64_t top)
{
    return top == NO_TOKEN || !(logit_of(top) < INFINITY);
}

/* --- bt_sample_exp and bt_sample_uniform --- */

__device__ __forceinline__ float exp_of(float x)
{
    float n = __fsub_rn(__fadd_rn(__fmul_rn(x, BT_EXP_LOG2E), BT_EXP_ROUND), BT_EXP_ROUND);
    float r = __fsub_rn(__fsub_rn(x, __fmul_rn(n, BT_EXP_LN2_HIGH)), __fmul_rn(n, BT_EXP_LN2_LOW));
    float p = BT_EXP_C7;
    p = __fadd_rn(__fmul_rn(p, r), BT_EXP_C6);
    p = __fadd_rn(__fmul_rn(p, r), BT_EXP_C5);
    p = __fadd_rn(__fmul_rn(p, r), BT_EXP_C4);
    p = __fadd_rn(__fmul_rn(p, r), BT_EXP_C3);
    p = __fadd_rn(__fmul_rn(p, r), 0.5f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f);
    float power = __uint_as_float((uint32_t)((int32_t)n + 127) << 23);
    return x >= BT_EXP_LOW ? __fmul_rn(p, power) : 0;
}

/* Relative to the most likely token; 0 for one that cannot be. */
__device__ __forceinline__ float weight_of(float x, float top, float temperature)
{
    float depth = __fsub_rn(x, top);
    return exp_of(temperature == 1 ? depth : __fdiv_rn(depth, temperature));
}

__device__ __forceinline__ uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

__device__ double uniform_of(uint64_t seed, uint32_t position)
{
    uint64_t x = mix(seed + 0x9e3779b97f4a7c15ull);
    x = mix(x + (position + 1ull) * 0x9e3779b97f4a7c15ull);
    return (double)(x >> 11) * 0x1p-53;
}

/* --- the cluster --- */

template <typename T> __device__ __forceinline__ T *at_rank(T *p, uint32_t rank)
{
#if __CUDA_ARCH__ >= 900
    return cooperative_groups::this_cluster().map_shared_rank(p, rank);
#else
    return p;
#endif
}

/* All threads of all blocks of the row; what they wrote before arriving is seen behind the wait. */
__device__ __forceinline__ void row_arrive()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void row_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
#else
    __syncthreads();
#endif
}

__device__ __forceinline__ void row_sync()
{
    row_arrive();
    row_wait();
}

/* Sums of `count` values of each thread over the row, to m->total, in a fixed order; those of each
 * block stay in the box of this turn. */
template <int COUNT> __device__ void row_sums(context &c, const double *values)
{
    memory *m = c.m;
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        double v = values[i];
        for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(~0u, v, step);
        if (lane == 0) m->of_warp[warp][i] = v;
    }
    __syncthreads();
    double(*box)[2 * BINS] = m->box[c.turn++ % 2];
    if (threadIdx.x < COUNT) {
        double v = 0;
        for (uint32_t w = 0; w < warps; w++) v += m->of_warp[w][threadIdx.x];
        for (uint32_t r = 0; r < c.ranks; r++) *at_rank(&box[c.rank][threadIdx.x], r) = v;
    }
    row_sync();
    if (threadIdx.x < COUNT) {
        double v = 0;
        for (uint32_t r = 0; r < c.ranks; r++) v += box[r][threadIdx.x];
        m->total[threadIdx.x] = v;
    }
    __syncthreads();
}

/* --- reading, and maxima --- */

/* The slice to c.x (unless NULL); returns this thread's most likely token. */
template <typename T> __device__ uint64_t load_slice(const context &c, const T *row)
{
    constexpr uint32_t EACH = 16 / sizeof(T);
    uint32_t chunks = (c.count + EACH - 1) / EACH, best_id = 0;
    float best = -INFINITY;
    for (uint32_t at = threadIdx.x; at < chunks; at += blockDim.x * UNROLL) {
        uint4 raw[UNROLL];
#pragma unroll
        for (uint32_t u = 0; u < UNROLL; u++) {
            uint32_t chunk = min(at + u * blockDim.x, chunks - 1);
            raw[u] = __ldcs((const uint4 *)(row + c.first) + chunk);
        }
#pragma unroll
        for (uint32_t u = 0; u < UNROLL; u++) {
            uint32_t chunk = at + u * blockDim.x;
            if (chunk >= chunks) break;
            float v[EACH];
#pragma unroll
            for (uint32_t i = 0; i < EACH; i++) {
                v[i] = (float)((const T *)&raw[u])[i];
                v[i] = chunk * EACH + i < c.count ? fmaxf(v[i], -INFINITY) + 0.0f : -INFINITY;
                if (v[i] > best) best = v[i], best_id = c.first + chunk * EACH + i;
            }
            if (!c.x) continue;
#pragma unroll
            for (uint32_t i = 0; i < EACH; i += 4)
                *(float4 *)(c.x + chunk * EACH + i) =
                    make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
        }
    }
    return token_of(best, best_id);
}

/* Maxima of groups of threads to all blocks; returns the highest of all, to every thread. */
__device__ uint64_t row_top(context &c, uint64_t best, uint32_t which)
{
    uint32_t lanes = c.ranks * blockDim.x / GROUPS, of_block = blockDim.x / lanes;
    for (uint32_t step = lanes / 2; step > 0; step /= 2) {
        uint64_t other = __shfl_xor_sync(~0u, best, step);
        best = other > best ? other : best;
    }
    uint64_t *groups = c.m->groups[which];
    c.maxima = groups;
    uint32_t mine = c.rank * of_block + threadIdx.x / lanes;
    for (uint32_t r = threadIdx.x % lanes; r < c.ranks; r += lanes)
        *at_rank(&groups[mine], r) = best;
    row_sync();
    uint64_t top = groups[threadIdx.x % 32];
    for (uint32_t i = threadIdx.x % 32; i < GROUPS; i += 32) top = max(top, groups[i]);
    for (int step = 16; step > 0; step /= 2) top = max(top, __shfl_xor_sync(~0u, top, step));
    return top;
}

/* The k-th largest of the maxima, ANY_TOKEN if there are fewer: no more than k tokens are larger. */
__device__ uint64_t groups_bound(const context &c, uint32_t k)
{
    memory *m = c.m;
    const uint64_t *groups = c.maxima;
    for (uint32_t i = threadIdx.x; i < GROUPS; i += blockDim.x) m->group_rank[i] = 0;
    if (threadIdx.x == 0) m->threshold = ANY_TOKEN;
    __syncthreads();
    uint32_t parts = blockDim.x / GROUPS, mine = threadIdx.x % GROUPS, part = threadIdx.x / GROUPS;
    uint64_t token = groups[mine];
    uint32_t larger = 0;
#pragma unroll 8
    for (uint32_t i = part * (GROUPS / parts); i < (part + 1) * (GROUPS / parts); i++)
        larger += groups[i] > token;
    atomicAdd(&m->group_rank[mine], larger);
    __syncthreads();
    if (part == 0 && token != NO_TOKEN && m->group_rank[mine] == k - 1) m->threshold = token;
    __syncthreads();
    return m->threshold;
}

} // namespace

#endif
