/* linear_lt_tune.cu - which of cuBLASLt's algorithms is fastest for one product on this card.
 *
 * CANDIDATES  What cuBLASLt proposes for the product itself (8 at most, often 1) and for products like
 *             it, of other m, n, k and multiprocessors, and what was best for other m, as far as it
 *             takes those here too.
 * ROUNDS      All of them; the ROUND2 best; the ROUND3 best of those, warmed up. In turns and without a
 *             pause between two candidates: under load the clock sinks by a tenth and whoever comes
 *             first is favoured, or punished where it is first after a pause. Medians, because now
 *             and then a launch is late.
 * TRIED       Every cluster and custom option of the four best tiles, 170 candidates more for each
 *             product: as fast as what is proposed, within 1 %. Each candidate alone in a burst: the
 *             order of the candidates decided, by up to 10 %. */
#include <cublasLt.h>

extern "C" {
#include "kernels/linear/linear_lt_problem.h"
}

#include <algorithm>
#include <new>
#include <string.h>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp8.h>

namespace
{

constexpr int PROPOSED_MAX = 64, ROUND2 = 16, ROUND3 = 6, SETS_MAX = 16;
constexpr size_t TURN_MAX = 64; /* candidates between two waits */
constexpr float WARM_UP_US = 60000, FAILED = 1e30f;

struct candidate {
    bt_lt_config config;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
    float us;
    std::vector<float> times;
};

struct tuner {
    bt_lt *lt;
    const bt_lt_shape *shape;
    cudaStream_t stream;
    cudaEvent_t events[TURN_MAX + 1];
    uint8_t *slab;
    size_t set_bytes, w_bytes, x_bytes, y_bytes;
    unsigned sets, next;
    bt_lt_args op;
    bt_lt_problem problem;
};

__device__ uint32_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)(x >> 32);
}

/* Random numbers near the normal distribution in the dtype of kind, 16 bytes a thread and step; zeros or
 * plain bits would use less power than real data do, and so run faster. */
__global__ void fill(uint4 *out, size_t count, bt_lt_kind kind)
{
    size_t stride = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        uint8_t bytes[16];
        for (int j = 0; j < 16; j++) {
            uint32_t r = mix(i * 16 + j);
            float sum = (float)(r & 255) + (float)(r >> 8 & 255) + (float)(r >> 16 & 255) +
                        (float)(r >> 24);
            float x = (sum - 510.0f) * (1.0f / 148.0f);
            if (kind == BT_LT_BF16) {
                __nv_bfloat16 h = __float2bfloat16(x);
                memcpy(bytes + (j & ~1), &h, 2);
            } else if (kind == BT_LT_NVFP4) {
                bytes[j] = (uint8_t)r;
            } else {
                bytes[j] = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
            }
        }
        memcpy(out + i, bytes, 16);
    }
}

__global__ void fill_ones(float *scales, size_t count, bool fp4)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t four_ones = 0x38383838; /* 1 as E4M3 */
    if (i < count) scales[i] = fp4 ? __uint_as_float(four_ones) : 1.0f;
}

__global__ void pause_for(unsigned nanoseconds)
{
    uint64_t now, end;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    end = now + nanoseconds;
    while (now < end) asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
}

size_t padded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

size_t rounded(size_t x, size_t step)
{
    return (x + step - 1) / step * step;
}

/* Of w's or x's scales, whichever kind. */
size_t scale_bytes(const bt_lt_shape *shape, size_t rows)
{
    if (shape->kind == BT_LT_NVFP4) return rounded(rows, 128) * rounded(shape->k / 16, 4);
    return rows * sizeof(float);
}

void size_up(tuner *t, uint32_t m, size_t l2_bytes)
{
    const bt_lt_shape *s = t->shape;
    size_t bits = s->kind == BT_LT_BF16 ? 16 : s->kind == BT_LT_NVFP4 ? 4 : 8;
    t->w_bytes = padded((size_t)s->n * s->k * bits / 8);
    t->x_bytes = padded((size_t)m * s->k * bits / 8);
    t->y_bytes = padded((size_t)m * s->n * bt_dtype_bytes(s->y));
    t->set_bytes = t->w_bytes + t->x_bytes + t->y_bytes;
    size_t sets = 3 * l2_bytes / t->set_bytes + 1;
    t->sets = (unsigned)std::min<size_t>(std::max<size_t>(sets, 2), SETS_MAX);
}

cudaError_t allocate(tuner *t, uint32_t m)
{
    const bt_lt_shape *s = t->shape;
    size_t scales = padded(std::max(scale_bytes(s, s->n), scale_bytes(s, m)));
    size_t bias = padded((size_t)s->n * 2);
    size_t bytes = t->sets * t->set_bytes;
    cudaError_t error = cudaMalloc((void **)&t->slab, bytes + scales + bias);
    if (error != cudaSuccess) {
        cudaGetLastError();
        return error;
    }
    fill<<<1024, 256, 0, t->stream>>>((uint4 *)t->slab, bytes / 16, s->kind);
    float *ones = (float *)(t->slab + bytes);
    fill_ones<<<(unsigned)((scales / 4 + 255) / 256), 256, 0, t->stream>>>(ones, scales / 4,
                                                                           s->kind == BT_LT_NVFP4);
    t->op.w_scale = t->op.x_scale = s->kind == BT_LT_BF16 ? NULL : ones;
    t->op.bias = s->flags & BT_LT_BIAS ? t->slab + bytes + scales : NULL;
    t->op.global = 1;
    t->op.m = m;
    error = cudaMemsetAsync(t->slab + bytes + scales, 0, bias, t->stream);
    return error != cudaSuccess ? error : cudaGetLastError();
}

cudaError_t open(tuner *t, uint32_t m)
{
    int device, l2 = 0;
    cudaError_t error = cudaStreamCreateWithFlags(&t->stream, cudaStreamNonBlocking);
    for (cudaEvent_t &event : t->events)
        if (error == cudaSuccess) error = cudaEventCreate(&event);
    if (error == cudaSuccess) error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, device);
    if (error != cudaSuccess) return error;
    size_up(t, m, (size_t)l2);
    return allocate(t, m);
}

void close(tuner *t)
{
    if (t->stream) cudaStreamSynchronize(t->stream);
    if (t->slab) cudaFree(t->slab);
    for (cudaEvent_t event : t->events)
        if (event) cudaEventDestroy(event);
    if (t->stream) cudaStreamDestroy(t->stream);
}

/* NOT_SUPPORTED and the like mean that this candidate is none. */
cublasStatus_t launch(tuner *t, const candidate *c)
{
    uint8_t *set = t->slab + t->next * t->set_bytes;
    t->next = (t->next + 1) % t->sets;
    t->op.w = set;
    t->op.x = set + t->w_bytes;
    t->op.y = set + t->w_bytes + t->x_bytes;
    return bt_lt_run(t->lt, &t->problem, t->shape, &t->op, &c->algorithm, t->stream);
}

/* So many launches that they take about that long. */
unsigned launches_for(float us, float each)
{
    return (unsigned)std::min(20.0f, std::max(1.0f, us / std::max(each, 1.0f)));
}

/* Runs each of up to TURN_MAX candidates for about us microseconds, one after the other, and appends
 * the time of a launch to its times. What comes first after a pause is slower by a tenth, so the turn
 * begins with another candidate each time, and that one's first launches are not timed. Short kernels
 * wait until the host is ahead. */
bt_status take_turn(tuner *t, candidate *first, size_t count, size_t start, float us, bt_err *err)
{
    unsigned total = 0;
    bool ran[TURN_MAX];
    for (size_t i = 0; i < count; i++) total += launches_for(us, first[i].us);
    if (total > 2 * count) pause_for<<<1, 1, 0, t->stream>>>(std::min(total * 5000u, 10000000u));
    for (unsigned j = launches_for(us, first[start].us); j > 0; j--) launch(t, &first[start]);
    cudaError_t error = cudaEventRecord(t->events[0], t->stream);
    for (size_t i = 0; i < count && error == cudaSuccess; i++) {
        candidate *c = &first[(start + i) % count];
        ran[i] = true;
        unsigned launches = launches_for(us, c->us);
        for (unsigned j = 0; j < launches && ran[i]; j++)
            ran[i] = launch(t, c) == CUBLAS_STATUS_SUCCESS;
        error = cudaEventRecord(t->events[i + 1], t->stream);
    }
    if (error == cudaSuccess) error = cudaStreamSynchronize(t->stream);
    for (size_t i = 0; i < count && error == cudaSuccess; i++) {
        candidate *c = &first[(start + i) % count];
        float ms = 0;
        error = cudaEventElapsedTime(&ms, t->events[i], t->events[i + 1]);
        c->times.push_back(ran[i] ? ms * 1e3f / launches_for(us, c->us) : FAILED);
    }
    return error == cudaSuccess ? BT_OK : bt_cuda_status(error, "measuring a product", err);
}

float median(std::vector<float> times)
{
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

/* Times every candidate `turns` times and sorts them by the medians. */
bt_status round_of(tuner *t, std::vector<candidate> *all, unsigned turns, float us, bt_err *err)
{
    for (candidate &c : *all) c.times.clear();
    for (unsigned turn = 0; turn < turns; turn++)
        for (size_t i = 0; i < all->size(); i += TURN_MAX) {
            size_t count = std::min(TURN_MAX, all->size() - i);
            bt_status status = take_turn(t, &(*all)[i], count, count * turn / turns, us, err);
            if (status != BT_OK) return status;
        }
    for (candidate &c : *all) c.us = median(c.times);
    std::sort(all->begin(), all->end(),
              [](const candidate &a, const candidate &b) { return a.us < b.us; });
    return BT_OK;
}

/* Leaves the `most` best of those that ran and took at most `within` times the best one's time. */
void keep(std::vector<candidate> *all, size_t most, float within)
{
    size_t kept = 0;
    while (kept < all->size() && kept < most && (*all)[kept].us < FAILED &&
           (*all)[kept].us <= within * (*all)[0].us)
        kept++;
    all->erase(all->begin() + (ptrdiff_t)kept, all->end());
}

/* Serving runs where the power limit holds the clock down, which takes some time to set in and favours
 * other algorithms than a burst does. Products that only read memory do not get there. */
bt_status warm_up(tuner *t, const candidate *c, bt_err *err)
{
    if (c->us < 30) return BT_OK;
    for (float us = 0; us < WARM_UP_US; us += c->us) launch(t, c);
    return bt_cuda_status(cudaGetLastError(), "measuring a product", err);
}

/* Turns of some 300 us for each candidate, fewer where one launch takes longer. */
unsigned turns_for(unsigned most, float us)
{
    return std::max(most / 3, std::min(most, (unsigned)(most * 300 / std::max(us, 300.0f))));
}

bt_status measure(tuner *t, std::vector<candidate> *all, bt_err *err)
{
    /* The first launch of each loads its kernel; the second says how long it takes, roughly. */
    bt_status status = round_of(t, all, 1, 0, err);
    if (status == BT_OK) status = round_of(t, all, 1, 0, err);
    keep(all, all->size(), 1.3f);
    if (status == BT_OK) status = round_of(t, all, 2, 200, err);
    keep(all, ROUND2, 1.1f);
    if (status != BT_OK || all->size() < 2) return status;
    status = round_of(t, all, turns_for(6, (*all)[0].us), 300, err);
    keep(all, ROUND3, 1.06f);
    if (status != BT_OK || all->size() < 2) return status;
    status = warm_up(t, &(*all)[0], err);
    if (status == BT_OK) status = round_of(t, all, turns_for(18, (*all)[0].us), 300, err);
    return status;
}

void add(tuner *t, const bt_lt_config &config, std::vector<candidate> *all)
{
    for (const candidate &c : *all)
        if (memcmp(&c.config, &config, sizeof(config)) == 0) return;
    candidate c = {};
    c.config = config;
    if (bt_lt_build(t->lt, &t->problem, t->shape, &config, &c.algorithm, &c.workspace_bytes))
        all->push_back(c);
}

/* What is proposed for a product of this m, n and k on so many multiprocessors, 0 for all. */
void ask(tuner *t, uint32_t m, uint32_t n, uint32_t k, int32_t sms, std::vector<candidate> *all)
{
    bt_lt_shape shape = *t->shape;
    shape.n = n;
    shape.k = k;
    bt_lt_args op = t->op;
    op.m = m;
    bt_lt_problem problem;
    if (m == 0 || k == 0 || bt_lt_describe(&shape, &op, &problem) != CUBLAS_STATUS_SUCCESS) return;
    cublasLtMatmulDescSetAttribute(&problem.desc, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, &sms,
                                   sizeof(sms));
    cublasLtMatmulHeuristicResult_t results[PROPOSED_MAX];
    int count = bt_lt_propose(t->lt, &problem, &shape, PROPOSED_MAX, results);
    for (int i = 0; i < count; i++) {
        bt_lt_config config;
        bt_lt_config_of(&results[i].algo, &config);
        add(t, config, all);
    }
}

/* What was best for other m of this shape. */
void add_known(tuner *t, std::vector<candidate> *all)
{
    const bt_lt_cache *cache = t->lt->cache;
    const bt_lt_shape *s = t->shape;
    for (uint32_t i = 0; i < cache->count; i++) {
        const bt_lt_key *key = &cache->entries[i].key;
        if (key->kind == (uint32_t)s->kind && key->y == (uint32_t)s->y && key->flags == s->flags &&
            key->n == s->n && key->k == s->k)
            add(t, cache->entries[i].config, all);
    }
}

void propose(tuner *t, uint32_t m, std::vector<candidate> *ret_all)
{
    uint32_t n = t->shape->n, k = t->shape->k;
    int32_t sms = (int32_t)t->lt->cache->card.multiprocessors;
    ask(t, m, n, k, 0, ret_all);
    uint32_t bucket = bt_lt_bucket(m), below = bucket > 0 ? bt_lt_bucket_m[bucket - 1] : 0;
    for (uint32_t near : {below + 1, (below + m) / 2, m / 4, m / 2, m / 2 * 3, m * 2, m * 4})
        ask(t, near, n, k, 0, ret_all);
    for (uint32_t near : {n * 2, n * 3, n * 4}) ask(t, m, near, k, 0, ret_all);
    for (uint32_t near : {k / 64 * 16, k * 2, k * 4}) ask(t, m, n, near, 0, ret_all);
    for (int32_t near : {sms * 3 / 4, sms / 2}) ask(t, m, n, k, near, ret_all);
    add_known(t, ret_all);
}

bt_status tune(tuner *t, uint32_t m, bt_lt_entry *ret_entry, bt_err *err)
{
    const bt_lt_shape *s = t->shape;
    cudaError_t error = open(t, m);
    if (error == cudaErrorMemoryAllocation)
        return BT_FAIL(err, BT_ERR_NO_MEMORY,
                       "measuring products of %u x %u x %u needs %zu MiB of device memory", m, s->n,
                       s->k, t->sets * t->set_bytes >> 20);
    if (error != cudaSuccess) return bt_cuda_status(error, "measuring a product", err);
    std::vector<candidate> all;
    if (bt_lt_describe(s, &t->op, &t->problem) == CUBLAS_STATUS_SUCCESS) propose(t, m, &all);
    bt_status status = measure(t, &all, err);
    if (status != BT_OK) return status;
    if (all.empty())
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "cuBLASLt has no algorithm for products of %u x %u x %u, kind %d, flags %u",
                       m, s->n, s->k, (int)s->kind, s->flags);
    memset(ret_entry, 0, sizeof(*ret_entry));
    ret_entry->key = {(uint32_t)s->kind, (uint32_t)s->y, s->flags, m, s->n, s->k};
    ret_entry->us = all[0].us;
    ret_entry->workspace_bytes = all[0].workspace_bytes;
    ret_entry->config = all[0].config;
    return BT_OK;
}

} // namespace

extern "C" bt_status bt_lt_tune(bt_lt *lt, const bt_lt_shape *shape, uint32_t m,
                                bt_lt_entry *ret_entry, bt_err *err)
{
    tuner t = {};
    t.lt = lt;
    t.shape = shape;
    bt_status status;
    try {
        status = tune(&t, m, ret_entry, err);
    } catch (const std::bad_alloc &) {
        status = BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory to measure products");
    }
    close(&t);
    if (status == BT_OK) lt->counts.measured++;
    return status;
}
