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
 *         greedy                     4.7 /  7.6 /  15.8 /   54.5, which is 77 % of reading
 *         top-p 0.9 and top-k 50    13.8 / 21.0 /  49.3 /  155
 *         the same, 20 logprobs     22.6 / 38.8 /  90.7 /  293
 *         temperature alone         12.2 / 24.7 /  55.5 /  179
 *         top-p 0.9, 20,000 tokens  71.5 /  148 /   356 / 1205
 *         `gpu-check --only sample --bench`.
 * TRIED   Clusters of 4 and 16 blocks and blocks of 256 and 1024 threads for more than a few rows: the same
 *         to 70 % slower. Blocks that stay until block 0 ends: 5 % slower. A nucleus narrowed as integers
 *         from the start and down to one token: 20 to 50 % slower. */
#include "kernels/sample/sample_filters.cuh"
#include "kernels/sample/sample_row.cuh"

extern "C" {
#include "kernels/sample/sample_cuda.h"
}

#include <assert.h>
#include <math.h>

namespace
{

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
    uint64_t bound = groups_bound(c, wanted);
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
    uint64_t bound = max(groups_bound(c, by_k ? row.top_k : FAST_K), kept);
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
