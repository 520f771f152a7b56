/* sample_filters.cuh - what top-k, min-p and top-p leave of a row, and a draw from it: by a short list in
 * block 0, or over all slices. Private to kernels/sample; sample_cuda.cu says how it goes together. */
#ifndef BT_KERNELS_SAMPLE_SAMPLE_FILTERS_CUH
#define BT_KERNELS_SAMPLE_SAMPLE_FILTERS_CUH

#include "kernels/sample/sample_row.cuh"

namespace
{

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
    if (ret_total) {
        row_sums<1>(c, &sum);
        *ret_total = c.m->total[0];
    } else {
        row_sync();
    }
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

} // namespace

#endif
