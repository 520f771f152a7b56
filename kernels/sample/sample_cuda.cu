/* sample_cuda.cu - see sample_cuda.h.
 *
 * SHAPE   A row of logits is split over the blocks of a cluster, each of which keeps its slice in shared
 *         memory: logits are read once, and every pass after that is over shared memory. Where there are
 *         no clusters (or a slice does not fit) one block has the row, and its slice lies in `work`.
 * ORDER   A token is a u64: its logit as an ordered integer above its inverted id. The larger of two is
 *         the more likely, or at equal logits the one of the lower id, and no two are equal.
 * FAST    While loading, groups of threads find their maxima, 256 in the cluster. The k-th largest of
 *         them is no larger than the k-th largest token, and not many tokens are as large: they are
 *         listed in the first block, which ranks them by comparing each with each, and there finds what
 *         top-k, min-p and top-p leave, and draws. Without top-k the 128th maximum is taken: where
 *         top-p ends in the list, the same.
 * SLOW    If the list does not do (a large k, or a nucleus of many tokens) the edge is narrowed by passes
 *         that divide what is left in eight, by weight or count, until what is left can be listed; the
 *         draw is then from slices, blocks, warps, lanes in order of ids.
 * BYTES   vocab * (4 or 2) of a sequence.
 * FIGURES H100 SXM, 2026-11-24, vocabulary 128,256 in f32, batch 1 / 16 / 64 / 256, in us:
 *         greedy                     4.7 /  7.8 /  15.7 /   54.6, which is 77 % of reading
 *         top-p 0.9 and top-k 50    15.8 / 21.7 /  52.1 /  163
 *         the same, 20 logprobs     25.7 / 40.0 /  94.8 /  307
 *         temperature alone         12.2 / 25.3 /  57.4 /  183
 *         top-p 0.9, 20,000 tokens  74.1 /  152 /   363 / 1225
 *         `gpu-check --only sample --bench`.
 * TRIED   Clusters of 4 and 16 blocks and blocks of 256 and 1024 threads for more than a few rows: the same
 *         to 70 % slower. Blocks that stay until block 0 ends: 5 % slower. A nucleus narrowed as integers
 *         from the start and down to one token: 20 to 50 % slower. */
extern "C" {
#include "kernels/sample/exp.h"
#include "kernels/sample/sample_cuda.h"
}

#include <assert.h>
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
__device__ uint64_t groups_bound(const context &c, uint32_t k, uint32_t which)
{
    memory *m = c.m;
    const uint64_t *groups = m->groups[which];
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

/* --- the list of block 0 --- */

/* Tokens from `bound` on to a list in block 0, in any order; more than fit are only counted. If total
 * is not NULL, the weights of all tokens from `kept` on are summed up. Returns how many were listed. */
__device__ uint32_t list_tokens(context &c, uint64_t bound, uint32_t which, uint64_t kept,
                                double *ret_total)
{
    uint32_t *count = at_rank(&c.m->list_count[which], 0);
    uint64_t *list = at_rank(c.m->list[which], 0);
    float least = bound > ANY_TOKEN ? logit_of(bound) : -INFINITY;
    double sum = 0;
    for (uint32_t i = threadIdx.x; i < c.count; i += blockDim.x) {
        float x = c.x[i];
        if (ret_total && token_of(x, c.first + i) >= kept)
            sum += weight_of(x, c.top, c.temperature);
        if (!(x >= least)) continue;
        uint64_t token = token_of(x, c.first + i);
        if (token < bound) continue;
        uint32_t at = atomicAdd(count, 1);
        if (at < LIST_MAX) list[at] = token;
    }
    row_sums<1>(c, &sum); /* and so the list is complete */
    if (ret_total) *ret_total = c.m->total[0];
    uint32_t listed = *at_rank(&c.m->list_count[which], 0);
    return listed;
}

/* list [n] into m->sorted, the largest first. */
__device__ void sort_list(memory *m, const uint64_t *list, uint32_t n)
{
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
        uint64_t token = list[i];
        uint32_t larger = 0;
        for (uint32_t j = 0; j < n; j++) larger += list[j] > token;
        m->sorted[larger] = token;
    }
    __syncthreads();
}

/* Running sums of m->weight [n] to m->sum. */
__device__ void sum_list(memory *m, uint32_t n)
{
    if (threadIdx.x < 32) {
        double passed = 0;
        for (uint32_t first = 0; first < n; first += 32) {
            uint32_t i = first + threadIdx.x;
            double v = i < n ? m->weight[i] : 0;
            for (uint32_t step = 1; step < 32; step *= 2) {
                double before = __shfl_up_sync(~0u, v, step);
                if (threadIdx.x >= step) v += before;
            }
            if (i < n) m->sum[i] = passed + v;
            passed += __shfl_sync(~0u, v, 31);
        }
    }
    if (threadIdx.x == 0) m->found = m->last = n;
    __syncthreads();
}

/* What the filters leave of the sorted n: min-p from its edge on, top-k, then top-p of `total` (0: of
 * what is left). Returns n + 1 if top-p ends beyond the list. */
__device__ uint32_t filter_list(const context &c, const bt_sample_cuda_row &row, uint64_t kept,
                                uint32_t n, double total)
{
    memory *m = c.m;
    uint32_t k = row.top_k > 0 && row.top_k < c.vocab ? row.top_k : UINT32_MAX, inside = 0;
    for (uint32_t first = 0; first < n; first += blockDim.x) {
        uint32_t i = first + threadIdx.x;
        inside += __syncthreads_count(i < n && i < k && m->sorted[i] >= kept);
    }
    for (uint32_t i = threadIdx.x; i < inside; i += blockDim.x)
        m->weight[i] = weight_of(logit_of(m->sorted[i]), c.top, c.temperature);
    __syncthreads();
    if (row.top_p >= 1) return inside;
    sum_list(m, inside);
    bool complete = total == 0;
    double wanted = (double)row.top_p * (complete ? m->sum[inside - 1] : total);
    for (uint32_t i = threadIdx.x; i < inside; i += blockDim.x)
        if (m->sum[i] >= wanted) atomicMin(&m->found, i);
    __syncthreads();
    if (m->found < inside) return m->found + 1;
    return complete ? inside : n + 1;
}

/* Draws from the first n sorted, whose weights are made, in order of their ids. */
__device__ uint32_t draw_list(memory *m, uint32_t n, double uniform)
{
    uint64_t *by_id = m->list[0]; /* the alternatives are told by now */
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
        by_id[i] = m->sorted[i] << 32 | i; /* inverted ids: the largest is the first */
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
        uint32_t larger = 0;
        for (uint32_t j = 0; j < n; j++) larger += by_id[j] > by_id[i];
        m->sum[larger] = m->weight[i];
        m->list[1][larger] = m->sorted[i];
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) m->weight[i] = m->sum[i];
    __syncthreads();
    sum_list(m, n);
    if (threadIdx.x == 0) m->last = 0;
    __syncthreads();
    double target = uniform * m->sum[n - 1];
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
        if (m->sum[i] > target) atomicMin(&m->found, i);
        if (m->weight[i] > 0) atomicMax(&m->last, i);
    }
    __syncthreads();
    return id_of(m->list[1][m->found < n ? m->found : m->last]);
}

/* --- any number of tokens --- */

/* All tokens of logit x and above. */
__device__ __forceinline__ uint64_t tokens_from(float x)
{
    return token_of(x + 0.0f, UINT32_MAX);
}

/* What one pass divides into BINS, the most likely first: at first evenly by logits, then evenly as
 * integers, which ends at single tokens even where logits are the same. */
struct division {
    uint64_t low, end; /* tokens in question */
    float upper, step; /* logits: of the first bin, of each */
    bool by_logit;
    uint32_t shift; /* of tokens, otherwise */
};

__device__ __forceinline__ float edge_of(const division &d, uint32_t bin)
{
    return __fsub_rn(d.upper, __fmul_rn((float)bin, d.step));
}

/* Weights (or counts) of the bins, and counts behind them, to m->total. */
__device__ void sum_bins(context &c, const division &d, bool counting)
{
    double sums[2 * BINS] = {};
    uint32_t counts[BINS] = {};
    float edge[BINS];
#pragma unroll
    for (uint32_t b = 0; b < BINS; b++) edge[b] = edge_of(d, b);
    for (uint32_t i = threadIdx.x; i < c.count; i += blockDim.x) {
        float x = c.x[i];
        uint64_t token = token_of(x, c.first + i);
        if (token < d.low || token >= d.end) continue;
        uint32_t bin = 0;
        if (d.by_logit) {
#pragma unroll
            for (uint32_t b = 1; b < BINS; b++) bin += x < edge[b];
        } else {
            bin = BINS - 1 - (uint32_t)((token - d.low) >> d.shift);
        }
        double weight = counting ? 0 : (double)weight_of(x, c.top, c.temperature);
#pragma unroll
        for (uint32_t b = 0; b < BINS; b++) {
            counts[b] += b == bin;
            if (!counting && b == bin) sums[b] += weight;
        }
    }
#pragma unroll
    for (uint32_t b = 0; b < BINS; b++) {
        sums[BINS + b] = counts[b];
        if (counting) sums[b] = counts[b];
    }
    row_sums<2 * BINS>(c, sums);
}

/* To one bin of its own. */
__device__ __forceinline__ void descend(division &d, uint32_t bin)
{
    if (d.by_logit) {
        if (bin > 0) d.end = min(d.end, tokens_from(edge_of(d, bin)));
        if (bin < BINS - 1) d.low = max(d.low, tokens_from(edge_of(d, bin + 1)));
        d.upper = edge_of(d, bin);
        d.step /= BINS;
        return;
    }
    d.low += (uint64_t)(BINS - 1 - bin) << d.shift;
    d.end = min(d.end, d.low + ((uint64_t)1 << d.shift));
}

/* The token of d's at which `above` and what comes before it reach `wanted`, by the list of block 0. */
__device__ uint64_t settle_bound(context &c, const division &d, double above, double wanted,
                                 bool counting)
{
    memory *m = c.m;
    if (c.rank == 0 && threadIdx.x == 0) m->list_count[1] = 0; /* it may have been too long */
    row_sync();
    uint32_t *count = at_rank(&m->list_count[1], 0);
    uint64_t *list = at_rank(m->list[1], 0);
    for (uint32_t i = threadIdx.x; i < c.count; i += blockDim.x) {
        uint64_t token = token_of(c.x[i], c.first + i);
        if (token >= d.low && token < d.end) list[atomicAdd(count, 1)] = token;
    }
    row_sync();
    if (c.rank == 0) {
        uint32_t n = m->list_count[1];
        sort_list(m, m->list[1], n);
        for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
            m->weight[i] = counting ? 1 : weight_of(logit_of(m->sorted[i]), c.top, c.temperature);
        __syncthreads();
        sum_list(m, n);
        for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
            if (above + m->sum[i] >= wanted) atomicMin(&m->found, i);
        __syncthreads();
        if (threadIdx.x == 0) {
            m->edge = m->found < n ? m->sorted[m->found] : d.low;
            m->list_count[1] = 0;
        }
    }
    row_sync();
    return *at_rank(&m->edge, 0);
}

/* The largest bound, not below `bound`, so that the tokens from it on weigh (or count) `wanted`;
 * `bound` if all do not. */
__device__ uint64_t raise_bound(context &c, uint64_t bound, uint64_t top, double wanted,
                                bool counting)
{
    constexpr uint32_t ROUNDS_BY_LOGIT = 2;
    division d = {bound, top + 1, c.top, counting ? 3.0f : 3.0f * c.temperature, true, 0};
    double above = 0;
    for (uint32_t round = 0;; round++) {
        d.by_logit = d.by_logit && round < ROUNDS_BY_LOGIT;
        d.shift = 0;
        while (!d.by_logit && (d.end - d.low - 1) >> d.shift >= BINS) d.shift++;
        sum_bins(c, d, counting);
        uint32_t bin = 0;
        while (bin < BINS && above + c.m->total[bin] < wanted) above += c.m->total[bin++];
        if (bin == BINS) return d.low;
        double count = c.m->total[BINS + bin];
        bool last = !d.by_logit && d.shift == 0;
        descend(d, bin);
        if (bin == BINS - 1) d.by_logit = false; /* which is open below */
        if (last || count == 1) return d.low;
        if (count <= LIST_MAX) return settle_bound(c, d, above, wanted, counting);
    }
}

__device__ double weights_from(context &c, uint64_t bound)
{
    double sum = 0;
    for (uint32_t i = threadIdx.x; i < c.count; i += blockDim.x)
        if (token_of(c.x[i], c.first + i) >= bound) sum += weight_of(c.x[i], c.top, c.temperature);
    row_sums<1>(c, &sum);
    return c.m->total[0];
}

/* Weight of value i of the slice if the bound leaves it. */
__device__ __forceinline__ double weight_at(const context &c, uint32_t i, uint32_t end,
                                            uint64_t bound)
{
    if (i >= end || token_of(c.x[i], c.first + i) < bound) return 0;
    return weight_of(c.x[i], c.top, c.temperature);
}

/* By one warp: the first of [first, end) at which the running sum passes `target`, or the last that
 * weighs something. */
__device__ uint32_t warp_find(const context &c, uint32_t first, uint32_t end, uint64_t bound,
                              double target)
{
    uint32_t lane = threadIdx.x % 32, last = first;
    double passed = 0;
    for (uint32_t from = first; from < end; from += 32) {
        double weight = weight_at(c, from + lane, end, bound), v = weight;
        for (uint32_t step = 1; step < 32; step *= 2) {
            double before = __shfl_up_sync(~0u, v, step);
            if (lane >= step) v += before;
        }
        unsigned hit = __ballot_sync(~0u, passed + v > target && weight > 0);
        if (hit) return from + __ffs(hit) - 1;
        unsigned some = __ballot_sync(~0u, weight > 0);
        if (some) last = from + 31 - __clz(some);
        passed += __shfl_sync(~0u, v, 31);
    }
    return last;
}

/* The first of parts [count] at which the running sum passes target, or the last that weighs something;
 * what went before is taken from target. */
__device__ uint32_t part_of(const double *parts, uint32_t stride, uint32_t count, double *target)
{
    double passed = 0, before_last = 0;
    uint32_t last = 0;
    for (uint32_t i = 0; i < count; i++) {
        double part = parts[i * stride];
        if (part > 0) last = i, before_last = passed;
        if (passed + part > *target) break;
        passed += part;
    }
    *target -= before_last;
    return last;
}

/* Draws from the tokens that the bound leaves, in order of ids. True in the threads of one warp. */
__device__ bool draw_slices(context &c, uint64_t bound, double uniform, uint32_t *ret_id)
{
    uint32_t warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t each = ((c.count + warps - 1) / warps + 31) & ~31u;
    uint32_t first = min(warp * each, c.count), end = min(first + each, c.count);
    double sum = 0;
    for (uint32_t i = first + lane; i < end; i += 32) sum += weight_at(c, i, end, bound);
    row_sums<1>(c, &sum);
    double target = uniform * c.m->total[0];
    uint32_t rank = part_of(&c.m->box[(c.turn - 1) % 2][0][0], 2 * BINS, c.ranks, &target);
    if (rank != c.rank) return false;
    if (warp != part_of(&c.m->of_warp[0][0], 2 * BINS, warps, &target)) return false;
    *ret_id = c.first + warp_find(c, first, end, bound, target);
    return true;
}

/* --- processors --- */

__device__ float penalized(const bt_sample_cuda_row &row, float logit, uint32_t output_count)
{
    if (row.repetition_penalty != 0)
        logit = logit > 0 ? __fdiv_rn(logit, row.repetition_penalty)
                          : __fmul_rn(logit, row.repetition_penalty);
    if (output_count == 0) return logit;
    logit = __fsub_rn(logit, __fmul_rn(row.frequency_penalty, (float)output_count));
    return __fsub_rn(logit, row.presence_penalty);
}

constexpr uint32_t SEEN = 0x80000000u;

/* counts [count] of the slice: how often in the output, and SEEN. */
__device__ void penalize(const context &c, const bt_sample_cuda_row &row, uint32_t *counts)
{
    bool repetition = row.repetition_penalty != 0 && row.repetition_penalty != 1;
    for (uint32_t i = threadIdx.x; i < c.count; i += blockDim.x) counts[i] = 0;
    __syncthreads();
    for (uint32_t t = (repetition ? 0 : row.prompt_count) + threadIdx.x; t < row.position;
         t += blockDim.x) {
        uint32_t i = row.history[t] - c.first;
        if (i >= c.count) continue;
        if (t >= row.prompt_count)
            atomicAdd(&counts[i], 1);
        else
            atomicOr(&counts[i], SEEN);
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < c.count; i += blockDim.x) {
        uint32_t seen = __ldcg(&counts[i]);
        if (seen) c.x[i] = penalized(row, c.x[i], seen & ~SEEN);
    }
    __syncthreads();
}

__device__ bool has_edits(const bt_sample_cuda_row &row)
{
    bool banned = row.position - row.prompt_count < row.min_tokens && row.ban_count > 0;
    return banned || row.bias_count > 0 || row.history;
}

/* In the order of common/base/sampling.h; returns this thread's most likely token. */
__device__ uint64_t process(const context &c, const bt_sample_cuda_row &row, uint32_t *counts)
{
    if (row.position - row.prompt_count < row.min_tokens)
        for (uint32_t b = threadIdx.x; b < row.ban_count; b += blockDim.x) {
            uint32_t i = row.bans[b] - c.first;
            if (i < c.count) c.x[i] = -INFINITY;
        }
    __syncthreads();
    for (uint32_t b = threadIdx.x; b < row.bias_count; b += blockDim.x) {
        uint32_t i = row.bias[b].id - c.first;
        if (i < c.count) c.x[i] = __fadd_rn(c.x[i], row.bias[b].bias);
    }
    __syncthreads();
    if (row.history) penalize(c, row, counts);
    uint64_t best = NO_TOKEN;
    for (uint32_t i = threadIdx.x; i < c.count; i += blockDim.x) {
        c.x[i] = c.x[i] + 0.0f;
        best = max(best, token_of(c.x[i], c.first + i));
    }
    __syncthreads();
    return best;
}

/* --- a row --- */

template <typename T> struct job {
    const T *logits; /* of the row */
    bt_token *token;
    double log_total;
};

template <typename T> __device__ void tell(const job<T> &j, bool logprobs, uint32_t id)
{
    float logprob = 0;
    if (logprobs && id != BT_SAMPLE_BROKEN)
        logprob = (float)((double)(float)j.logits[id] - j.log_total);
    j.token->id = id;
    j.token->logprob = logprob;
}

/* The most likely tokens of the unmodified distribution. */
template <typename T>
__device__ void list_top(context &c, const bt_sample_cuda_row &row, uint64_t top, const job<T> &j)
{
    uint32_t wanted = min(row.top_logprobs, c.vocab);
    uint64_t bound = groups_bound(c, wanted, 0);
    uint32_t listed = list_tokens(c, bound, 0, NO_TOKEN, NULL);
    if (listed > LIST_MAX) {
        bound = raise_bound(c, ANY_TOKEN, top, wanted, true);
        if (c.rank == 0 && threadIdx.x == 0) c.m->list_count[0] = 0;
        row_sync();
        listed = list_tokens(c, bound, 0, NO_TOKEN, NULL);
    }
    if (c.rank != 0) return;
    sort_list(c.m, c.m->list[0], listed);
    uint32_t count = min(listed, wanted);
    if (threadIdx.x == 0) j.token->top_count = count;
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        uint64_t token = c.m->sorted[i];
        j.token->top[i].id = id_of(token);
        j.token->top[i].logprob = (float)((double)logit_of(token) - j.log_total);
    }
    __syncthreads();
}

/* By the list of block 0 alone; false, to all blocks, if it does not do. */
template <typename T>
__device__ bool draw_fast(context &c, const bt_sample_cuda_row &row, uint64_t kept, const job<T> &j,
                          double uniform)
{
    bool by_k = row.top_k > 0 && row.top_k < c.vocab, by_p = row.top_p < 1;
    if (by_k ? row.top_k > FAST_K : !by_p && kept == ANY_TOKEN) return false;
    uint64_t bound = max(groups_bound(c, by_k ? row.top_k : FAST_K, 1), kept);
    bool complete = by_k || bound == kept; /* nothing that stays is missing in the list */
    if (!complete && !by_p) return false;
    double total = 0;
    uint32_t listed = list_tokens(c, bound, 1, kept, complete ? NULL : &total);
    if (listed > LIST_MAX) return false;
    memory *m = c.m;
    if (c.rank == 0) {
        sort_list(m, m->list[1], listed);
        uint32_t n = filter_list(c, row, kept, listed, total);
        if (threadIdx.x == 0) m->done = n <= listed;
        if (n <= listed) {
            uint32_t id = draw_list(m, n, uniform);
            if (threadIdx.x == 0) tell(j, row.logprobs, id);
        }
    }
    if (complete) return true;
    row_sync();
    return *at_rank(&m->done, 0);
}

template <typename T>
__device__ void draw(context &c, const bt_sample_cuda_row &row, uint64_t top, const job<T> &j)
{
    uint64_t kept = ANY_TOKEN;
    if (row.min_p_depth > -INFINITY) {
        float least = (float)((double)c.top + row.min_p_depth) + 0.0f;
        if (least > -INFINITY) kept = token_of(least, UINT32_MAX);
    }
    double uniform = uniform_of(row.seed, row.position);
    if (draw_fast(c, row, kept, j, uniform)) return;
    if (row.top_k > 0 && row.top_k < c.vocab) kept = raise_bound(c, kept, top, row.top_k, true);
    if (row.top_p < 1) {
        double wanted = (double)row.top_p * weights_from(c, kept);
        kept = raise_bound(c, kept, top, wanted, false);
    }
    uint32_t id;
    if (draw_slices(c, kept, uniform, &id) && threadIdx.x % 32 == 0) tell(j, row.logprobs, id);
}

template <typename T>
__device__ void sample_row(context &c, const bt_sample_cuda_row &row, job<T> &j, uint32_t *counts)
{
    uint64_t best = load_slice(c, j.logits);
    row_wait(); /* all blocks have begun */
    uint64_t top = row_top(c, best, 0);
    bool speaks = c.rank == 0 && threadIdx.x == 0;
    if (speaks) j.token->top_count = 0;
    if (broken(top)) {
        if (speaks) tell(j, false, BT_SAMPLE_BROKEN);
        return;
    }
    if (row.logprobs || row.top_logprobs > 0) {
        c.top = logit_of(top);
        c.temperature = 1;
        j.log_total = (double)c.top + log(weights_from(c, ANY_TOKEN));
        if (row.top_logprobs > 0) list_top(c, row, top, j);
    }
    if (has_edits(row)) {
        best = process(c, row, counts);
        top = row_top(c, best, 1);
    } else if (row.temperature > 0) {
        for (uint32_t i = threadIdx.x; i < GROUPS; i += blockDim.x)
            c.m->groups[1][i] = c.m->groups[0][i];
        __syncthreads();
    }
    if (broken(top) || row.temperature == 0) {
        if (speaks) tell(j, row.logprobs, broken(top) ? BT_SAMPLE_BROKEN : id_of(top));
        return;
    }
    c.top = logit_of(top);
    c.temperature = row.temperature;
    draw(c, row, top, j);
}

struct args {
    bt_sample_cuda_args op;
    uint32_t ranks, threads, slice; /* blocks of a row; of each: threads, logits */
    float *rows_memory;             /* [seqs][slice] if slices lie there, else NULL */
    uint32_t *counts;               /* [seqs][vocab rounded up] */
};

__device__ context context_of(const args &a, memory *m, float *x)
{
    context c = {};
    c.m = m;
    c.x = x;
    c.rank = blockIdx.x % a.ranks;
    c.ranks = a.ranks;
    c.first = min(c.rank * a.slice, a.op.vocab);
    c.count = min(a.slice, a.op.vocab - c.first);
    c.vocab = a.op.vocab;
    return c;
}

template <typename T> __global__ void __launch_bounds__(1024) sample(args a)
{
    extern __shared__ __align__(16) float slice[];
    __shared__ memory m;
    uint32_t index = blockIdx.x / a.ranks;
    float *x = a.rows_memory ? a.rows_memory + (size_t)index * a.slice : slice;
    context c = context_of(a, &m, x);
    if (threadIdx.x < 2) m.list_count[threadIdx.x] = 0;
    row_arrive();
    bt_sample_cuda_row row = a.op.rows[index];
    job<T> j = {(const T *)a.op.logits + index * a.op.stride, a.op.ret_tokens + index, 0};
    uint32_t *counts = a.counts + (size_t)index * a.slice * a.ranks + c.first;
    sample_row(c, row, j, counts);
    /* Others look only into block 0, which waits for those that have not ended. */
    if (c.rank == 0) row_sync();
}

/* Rows that want nothing but the highest. */
template <typename T> __global__ void __launch_bounds__(1024) highest(args a)
{
    __shared__ memory m;
    row_arrive();
    uint32_t index = blockIdx.x / a.ranks;
    context c = context_of(a, &m, NULL);
    job<T> j = {(const T *)a.op.logits + index * a.op.stride, a.op.ret_tokens + index, 0};
    uint64_t best = load_slice(c, j.logits);
    row_wait();
    uint64_t top = row_top(c, best, 0);
    if (c.rank != 0 || threadIdx.x != 0) return;
    j.token->top_count = 0;
    tell(j, false, broken(top) ? BT_SAMPLE_BROKEN : id_of(top));
}

/* --- the host's side --- */

constexpr uint32_t FEW_ROWS = 8;
constexpr size_t SLICE_BYTES_MAX = 160 * 1024;

uint32_t round8(uint32_t n)
{
    return (n + 7) & ~7u;
}

args args_of(const bt_sample_cuda_args *op)
{
    args a = {};
    a.op = *op;
    /* Few rows are spread as far as a cluster goes, which makes up for its longer barriers. */
    a.ranks = op->arch < 90 ? 1 : op->seqs <= FEW_ROWS ? 16 : 8;
    a.threads = op->arch < 90 ? 1024 : op->greedy && op->seqs > 4 * FEW_ROWS ? 256 : 512;
    a.slice = round8((op->vocab + a.ranks - 1) / a.ranks);
    a.counts = (uint32_t *)op->work;
    if (op->arch < 90 && !op->greedy)
        a.rows_memory = (float *)op->work + (size_t)op->seqs * a.slice * a.ranks;
    return a;
}

cudaError_t launch(const args &a, cudaStream_t stream)
{
    bool f32 = a.op.dtype == BT_DTYPE_F32;
    void (*run)(args) = a.op.greedy ? (f32 ? highest<float> : highest<__nv_bfloat16>)
                                    : (f32 ? sample<float> : sample<__nv_bfloat16>);
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute cluster = {};
    config.gridDim = a.op.seqs * a.ranks;
    config.blockDim = a.threads;
    config.stream = stream;
    if (!a.rows_memory && !a.op.greedy) config.dynamicSmemBytes = a.slice * sizeof(float);
    if (a.ranks > 1) {
        cluster.id = cudaLaunchAttributeClusterDimension;
        cluster.val.clusterDim.x = a.ranks;
        cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
        config.attrs = &cluster;
        config.numAttrs = 1;
    }
    cudaError_t error = cudaSuccess;
    if (config.dynamicSmemBytes > 0)
        error = cudaFuncSetAttribute((const void *)run, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     (int)config.dynamicSmemBytes);
    if (!error && a.ranks > 8)
        error = cudaFuncSetAttribute((const void *)run,
                                     cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    return error ? error : cudaLaunchKernelEx(&config, run, a);
}

} // namespace

extern "C" bt_sample_cuda_row bt_sample_cuda_row_of(const bt_sampling *s, uint32_t vocab)
{
    bt_sample_cuda_row row = {};
    row.seed = s->seed;
    row.min_p_depth =
        s->min_p > 0 ? (double)s->temperature * log((double)s->min_p) : -(double)INFINITY;
    row.temperature = s->temperature;
    row.top_p = s->top_p;
    row.top_k = s->top_k < vocab ? s->top_k : 0;
    row.repetition_penalty = s->repetition_penalty;
    row.presence_penalty = s->presence_penalty;
    row.frequency_penalty = s->frequency_penalty;
    row.logprobs = s->logprobs || s->top_logprobs > 0;
    row.top_logprobs = s->top_logprobs;
    row.min_tokens = s->min_tokens;
    return row;
}

extern "C" size_t bt_sample_cuda_work_bytes(uint32_t seqs, uint32_t vocab, int arch)
{
    size_t row = ((size_t)vocab + 8 * RANKS_MAX) * sizeof(uint32_t);
    return seqs * row * (arch >= 90 ? 1 : 2);
}

extern "C" bt_status bt_sample_cuda(const bt_sample_cuda_args *op, cudaStream_t stream, bt_err *err)
{
    assert(op->dtype == BT_DTYPE_F32 || op->dtype == BT_DTYPE_BF16);
    assert(op->vocab > 0 && op->stride >= op->vocab && op->stride % 8 == 0);
    if (op->seqs == 0) return BT_OK;
    args a = args_of(op);
    assert(a.rows_memory || op->greedy || a.slice * sizeof(float) <= SLICE_BYTES_MAX);
    return bt_cuda_status(launch(a, stream), "sample", err);
}
