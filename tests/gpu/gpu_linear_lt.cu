/* gpu_linear_lt.cu - linear_lt.h against sums in f64, and its choice of algorithm against the best of
 * all that cuBLASLt proposes, timed here one by one. */
#include "tests/gpu/gpu.h"

#include <cublasLt.h>

#include "tests/gpu/linear_case.h"

extern "C" {
#include "kernels/linear/linear_nvfp4.h"
}

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <unistd.h>

namespace
{

bt_lt *create(gpu *g)
{
    bt_lt *lt = NULL;
    void *workspace = gpu_alloc(g, BT_LT_WORKSPACE_BYTES);
    GPU_RUN(bt_lt_create(workspace, &lt, &err));
    return lt;
}

double prepare_seconds;

const bt_lt_plan *prepare(bt_lt *lt, const bt_lt_shape &shape, uint32_t m_min, uint32_t m_max)
{
    const bt_lt_plan *plan = NULL;
    auto from = std::chrono::steady_clock::now();
    GPU_RUN(bt_lt_prepare(lt, &shape, m_min, m_max, &plan, &err));
    prepare_seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
    return plan;
}

bt_lt_args args_of(const operands &o, const bt_lt_plan *plan)
{
    bt_lt_args op = {};
    op.plan = plan;
    op.w = o.w;
    op.x = o.x;
    op.y = o.y;
    op.w_scale = o.w_scale;
    op.x_scale = o.x_scale;
    op.bias = o.bias;
    op.global = 1;
    op.m = o.m;
    return op;
}

/* Rounding to bf16 is 1.7e-3 of the value in the mean square at most. In f32 a tensor core drops what
 * falls below 2^-23 of the partial sum, k / 16 times: 3e-5 at k = 4096. Hopper's FP8 sums keep about 13
 * bits: moved to f32 every 128 k, 4 additions of an error below 2^-13; left there, k / 32 additions whose
 * errors, all downwards, can reach k / 32 * 2^-14 of the mean partial sum. */
double bound_of(const bt_lt_shape &s)
{
    double sums = 5e-5;
    if (s.kind != BT_LT_BF16)
        sums = s.flags & BT_LT_FAST_SUM ? std::max(1e-3, s.k / 32 * 0x1p-14) : 5e-4;
    return s.y == BT_DTYPE_F32 ? sums : 2.5e-3 + sums;
}

void check_one(gpu *g, bt_lt *lt, const bt_lt_plan *plan, const bt_lt_shape &shape, uint32_t m)
{
    operands o = make(g, shape, m);
    bt_lt_args op = args_of(o, plan);
    GPU_RUN(bt_linear_lt(lt, &op, g->stream, &err));
    gpu_expect(g, name_of(shape) + ", " + size_of(m, shape), expected_of(g, o), output_of(g, o),
               bound_of(shape));
}

std::vector<bt_lt_shape> shapes_of(uint32_t n, uint32_t k)
{
    return {{BT_LT_BF16, BT_DTYPE_BF16, 0, n, k},
            {BT_LT_BF16, BT_DTYPE_BF16, BT_LT_BIAS, n, k},
            {BT_LT_BF16, BT_DTYPE_F32, BT_LT_ADD, n, k},
            {BT_LT_BF16, BT_DTYPE_BF16, BT_LT_ADD | BT_LT_NO_SPLIT, n, k},
            {BT_LT_FP8_TENSOR, BT_DTYPE_BF16, 0, n, k},
            {BT_LT_FP8_TENSOR, BT_DTYPE_BF16, BT_LT_BIAS | BT_LT_FAST_SUM, n, k},
            {BT_LT_FP8_TENSOR, BT_DTYPE_F32, BT_LT_FAST_SUM, n, k},
            {BT_LT_FP8_TENSOR, BT_DTYPE_F32, BT_LT_ADD, n, k},
            {BT_LT_FP8_OUTER, BT_DTYPE_BF16, 0, n, k},
            {BT_LT_FP8_OUTER, BT_DTYPE_BF16, BT_LT_BIAS | BT_LT_FAST_SUM, n, k},
            {BT_LT_FP8_OUTER, BT_DTYPE_F32, BT_LT_FAST_SUM, n, k},
            {BT_LT_FP8_OUTER, BT_DTYPE_F32, BT_LT_ADD, n, k}};
}

/* The plan, or NULL and a line with the reason. */
const bt_lt_plan *try_prepare(bt_lt *lt, const bt_lt_shape &shape, uint32_t m_min, uint32_t m_max)
{
    const bt_lt_plan *plan = NULL;
    bt_err err = {};
    if (bt_lt_prepare(lt, &shape, m_min, m_max, &plan, &err) == BT_OK) return plan;
    printf("     %s: %s\n", name_of(shape).c_str(), err.message);
    return NULL;
}

void check_kinds(gpu *g, bt_lt *lt)
{
    for (const bt_lt_shape &shape : shapes_of(176, 272)) {
        const bt_lt_plan *plan = try_prepare(lt, shape, 16, 16);
        gpu_expect_true(g, name_of(shape) + " has algorithms", plan != NULL);
        if (!plan) continue;
        for (uint32_t m : {1u, 5u, 16u, 17u, 31u, 100u}) check_one(g, lt, plan, shape, m);
    }
    for (const bt_lt_shape &shape : shapes_of(4096, 4096)) {
        const bt_lt_plan *plan = try_prepare(lt, shape, 512, 512);
        if (plan) check_one(g, lt, plan, shape, 391);
    }
    bt_lt_shape longest = {BT_LT_FP8_TENSOR, BT_DTYPE_F32, BT_LT_FAST_SUM, 1024, 14336};
    check_one(g, lt, prepare(lt, longest, 256, 256), longest, 256);
    longest.flags = 0;
    check_one(g, lt, prepare(lt, longest, 256, 256), longest, 256);
}

/* FP8 of every small m: cuBLASLt documents multiples of 16 for its own m, which is our n. */
void check_fp8_small(gpu *g, bt_lt *lt)
{
    for (bt_lt_kind kind : {BT_LT_FP8_TENSOR, BT_LT_FP8_OUTER}) {
        bt_lt_shape shape = {kind, BT_DTYPE_BF16, 0, 512, 1024};
        const bt_lt_plan *plan = try_prepare(lt, shape, 1, 16);
        if (!plan) continue;
        for (uint32_t m = 1; m <= 17; m++) check_one(g, lt, plan, shape, m);
    }
}

void check_same_bits(gpu *g, bt_lt *lt)
{
    for (const bt_lt_shape &shape : shapes_of(512, 14336)) {
        if (shape.flags & (BT_LT_ADD | BT_LT_BIAS)) continue;
        const bt_lt_plan *plan = try_prepare(lt, shape, 64, 64);
        if (!plan) continue;
        operands o = make(g, shape, 64);
        bt_lt_args op = args_of(o, plan);
        GPU_RUN(bt_linear_lt(lt, &op, g->stream, &err));
        std::vector<uint8_t> first = gpu_download<uint8_t>(g, o.y, y_bytes(o));
        for (int i = 0; i < 5; i++) {
            GPU_OK(cudaMemsetAsync(o.y, 0xff, y_bytes(o), g->stream));
            GPU_RUN(bt_linear_lt(lt, &op, g->stream, &err));
        }
        std::vector<uint8_t> last = gpu_download<uint8_t>(g, o.y, y_bytes(o));
        gpu_expect_equal(g, name_of(shape) + ", the same bits again", first.data(), last.data(),
                         first.size());
    }
}

/* One tensor as NVFP4, on the host, and its codes and tiled scales on the device. */
struct fp4_tensor {
    std::vector<uint8_t> codes, scales;
    bt_nvfp4 host;
    void *device_codes, *device_tiles;
};

void make_fp4(gpu *g, uint32_t rows, uint32_t k, fp4_tensor *ret)
{
    std::vector<float> values = gpu_normals(g, (size_t)rows * k, 1);
    ret->codes.resize(values.size() / 2);
    ret->scales.resize(values.size() / BT_NVFP4_GROUP);
    float global = bt_nvfp4_global(values.data(), values.size());
    bt_nvfp4_encode(values.data(), rows, k, global, ret->codes.data(), ret->scales.data());
    ret->host = {ret->codes.data(), ret->scales.data(), global, rows, k};
    std::vector<uint8_t> tiles(bt_nvfp4_tiles_bytes(rows, k));
    bt_nvfp4_tile(ret->scales.data(), rows, k, tiles.data());
    ret->device_codes = gpu_upload(g, ret->codes);
    ret->device_tiles = gpu_upload(g, tiles);
}

/* Against its emulation where the card has FP4 products; elsewhere the refusal. */
void check_fp4(gpu *g, bt_lt *lt)
{
    bt_lt_shape shape = {BT_LT_NVFP4, BT_DTYPE_BF16, 0, 272, 576};
    const bt_lt_plan *plan = NULL;
    bt_err err = {};
    bt_status status = bt_lt_prepare(lt, &shape, 16, 64, &plan, &err);
    if (g->card.major < 10) {
        gpu_expect_true(g, std::string("refused: ") + err.message,
                        status == BT_ERR_ARGUMENT && strstr(err.message, "10.0") && !plan);
        return;
    }
    gpu_expect_true(g, std::string("nvfp4 has algorithms ") + err.message, status == BT_OK);
    for (uint32_t m : {1u, 16u, 33u, 150u}) {
        if (status != BT_OK) return;
        fp4_tensor w, x;
        make_fp4(g, shape.n, shape.k, &w);
        make_fp4(g, m, shape.k, &x);
        bt_lt_args op = {plan, w.device_codes, x.device_codes, w.device_tiles, x.device_tiles};
        op.y = gpu_alloc(g, (size_t)m * shape.n * 2);
        op.global = w.host.global * x.host.global;
        op.m = m;
        GPU_RUN(bt_linear_lt(lt, &op, g->stream, &err));
        std::vector<float> y((size_t)m * shape.n);
        bt_linear_nvfp4_ref(&x.host, &w.host, y.data());
        gpu_expect(g, "nvfp4, " + size_of(m, shape), y,
                   gpu_from_bf16(gpu_download<uint16_t>(g, op.y, y.size())), 3e-3);
    }
}

void check_refusals(gpu *g, bt_lt *lt)
{
    bt_err err = {};
    const bt_lt_plan *plan = NULL;
    bt_lt_shape odd = {BT_LT_BF16, BT_DTYPE_BF16, 0, 512, 1000};
    gpu_expect_true(g, "k of 1000 refused",
                    bt_lt_prepare(lt, &odd, 16, 16, &plan, &err) == BT_ERR_ARGUMENT && !plan);
}

void check_file(gpu *g, bt_lt *lt)
{
    char path[] = "/tmp/baton-lt-XXXXXX";
    int fd = mkstemp(path);
    if (fd >= 0) close(fd);
    bt_lt_shape shape = {BT_LT_BF16, BT_DTYPE_BF16, 0, 512, 1024};
    prepare(lt, shape, 16, 64);
    GPU_RUN(bt_lt_save(lt, path, &err));
    bt_lt *other = create(g);
    GPU_RUN(bt_lt_load(other, path, &err));
    const bt_lt_plan *plan = prepare(other, shape, 16, 64);
    gpu_expect_true(g, "an algorithm from a file is not measured again",
                    bt_lt_count(other).measured == 0);
    check_one(g, other, plan, shape, 33);
    if (truncate(path, 200) != 0) perror(path);
    bt_err err = {};
    gpu_expect_true(g, "a torn file is refused", bt_lt_load(other, path, &err) == BT_ERR_FORMAT);
    bt_lt_destroy(other);
    unlink(path);
}

/* In a captured graph, run twice with other inputs in the same memory. */
void check_graph(gpu *g, bt_lt *lt)
{
    bt_lt_shape shape = {BT_LT_FP8_OUTER, BT_DTYPE_BF16, 0, 1024, 2048};
    if (bt_lt_supports(lt, shape.kind, NULL) != BT_OK) shape.kind = BT_LT_BF16;
    operands o = make(g, shape, 300);
    bt_lt_args op = args_of(o, prepare(lt, shape, 300, 300));
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    GPU_OK(cudaStreamBeginCapture(g->stream, cudaStreamCaptureModeThreadLocal));
    GPU_RUN(bt_linear_lt(lt, &op, g->stream, &err));
    GPU_OK(cudaStreamEndCapture(g->stream, &graph));
    GPU_OK(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 2; i++) {
        bool bf16 = shape.kind == BT_LT_BF16;
        gpu_fill(g, o.x, bf16 ? BT_DTYPE_BF16 : BT_DTYPE_FP8_E4M3, (size_t)o.m * shape.k, 3);
        GPU_OK(cudaMemsetAsync(o.y, 0xff, y_bytes(o), g->stream));
        GPU_OK(cudaGraphLaunch(exec, g->stream));
        gpu_expect(g, "in a graph, " + name_of(shape), expected_of(g, o), output_of(g, o),
                   bound_of(shape));
    }
    GPU_OK(cudaGraphExecDestroy(exec));
    GPU_OK(cudaGraphDestroy(graph));
}

void check(gpu *g)
{
    printf("     cuBLASLt %zu\n", cublasLtGetVersion());
    bt_lt *lt = create(g);
    check_refusals(g, lt);
    check_fp4(g, lt);
    check_fp8_small(g, lt);
    check_kinds(g, lt);
    check_same_bits(g, lt);
    check_file(g, lt);
    check_graph(g, lt);
    bt_lt_counts counts = bt_lt_count(lt);
    printf("     %llu measured, %llu calls asked anew\n", (unsigned long long)counts.measured,
           (unsigned long long)counts.asked_anew);
    bt_lt_destroy(lt);
}

/* ---- bench ---- */

/* The bench's own cuBLASLt, which shares nothing with ours: everything proposed under the widest
 * preferences (any reduction, 256-byte alignment, 256 MiB of workspace). */
struct rival {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
    void *workspace;
    std::vector<cublasLtMatmulHeuristicResult_t> results;
};

constexpr size_t RIVAL_WORKSPACE = (size_t)256 << 20;

void lt_must(cublasStatus_t status, int line)
{
    if (status == CUBLAS_STATUS_SUCCESS) return;
    printf("gpu_linear_lt.cu:%d: %s\n", line, cublasLtGetStatusString(status));
    exit(1);
}
#define LT_OK(call) lt_must((call), __LINE__)

template <typename T> void attribute(rival *r, cublasLtMatmulDescAttributes_t which, const T &value)
{
    LT_OK(cublasLtMatmulDescSetAttribute(r->desc, which, &value, sizeof(value)));
}

void describe(rival *r, const operands &o)
{
    const bt_lt_shape &s = o.shape;
    cudaDataType in = s.kind == BT_LT_BF16 ? CUDA_R_16BF : CUDA_R_8F_E4M3;
    cudaDataType out = s.y == BT_DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
    LT_OK(cublasLtMatmulDescCreate(&r->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT_OK(cublasLtMatrixLayoutCreate(&r->w, in, s.k, s.n, s.k));
    LT_OK(cublasLtMatrixLayoutCreate(&r->x, in, s.k, o.m, s.k));
    LT_OK(cublasLtMatrixLayoutCreate(&r->y, out, s.n, o.m, s.n));
    attribute(r, CUBLASLT_MATMUL_DESC_TRANSA, (int32_t)CUBLAS_OP_T);
    if (s.kind == BT_LT_BF16) return;
    attribute(r, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, (const void *)o.w_scale);
    attribute(r, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, (const void *)o.x_scale);
    attribute(r, CUBLASLT_MATMUL_DESC_FAST_ACCUM, (int8_t)(s.flags & BT_LT_FAST_SUM ? 1 : 0));
    if (s.kind != BT_LT_FP8_OUTER) return;
    attribute(r, CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
              (int32_t)CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
    attribute(r, CUBLASLT_MATMUL_DESC_B_SCALE_MODE,
              (int32_t)CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
}

void propose(rival *r)
{
    cublasLtMatmulPreference_t preference;
    uint64_t workspace = RIVAL_WORKSPACE;
    int count = 0;
    r->results.resize(512);
    LT_OK(cublasLtMatmulPreferenceCreate(&preference));
    LT_OK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &workspace, sizeof(workspace)));
    LT_OK(cublasLtMatmulAlgoGetHeuristic(r->handle, r->desc, r->w, r->x, r->y, r->y, preference,
                                         (int)r->results.size(), r->results.data(), &count));
    LT_OK(cublasLtMatmulPreferenceDestroy(preference));
    r->results.resize((size_t)count);
}

cublasStatus_t run(gpu *g, const rival &r, const operands &o,
                   const cublasLtMatmulHeuristicResult_t &result)
{
    float one = 1, zero = 0;
    return cublasLtMatmul(r.handle, r.desc, &one, o.w, r.w, o.x, r.x, &zero, o.y, r.y, o.y, r.y,
                          &result.algo, r.workspace, RIVAL_WORKSPACE, g->stream);
}

/* Microseconds of one launch of each of `all`, in each of `turns`: in turns of some 200 us, one right after
 * the other, because under load the clock sinks by a tenth and figures taken at different moments do not
 * compare. Each turn begins with another, and the first with WARM_UP_US that are not timed. One that cannot
 * be launched counts as very slow. */
typedef std::vector<std::vector<double>> turn_times;

turn_times time_in_turns(gpu *g, const std::vector<std::function<bool(unsigned)>> &all,
                         size_t turns, double about_us)
{
    constexpr double TURN_US = 200, WARM_UP_US = 30000;
    int launches = std::max(1, (int)(TURN_US / about_us));
    std::vector<cudaEvent_t> events(turns * all.size() + 1);
    for (cudaEvent_t &event : events) GPU_OK(cudaEventCreate(&event));
    std::vector<bool> ran(all.size(), true);
    unsigned set = 0;
    for (int j = 0; j < (int)(WARM_UP_US / about_us); j++) all[0](set++);
    size_t at = 0;
    GPU_OK(cudaEventRecord(events[at++], g->stream));
    for (size_t turn = 0; turn < turns; turn++)
        for (size_t i = 0; i < all.size(); i++) {
            size_t which = (turn + i) % all.size();
            for (int j = 0; j < launches && ran[which]; j++) ran[which] = all[which](set++);
            GPU_OK(cudaEventRecord(events[at++], g->stream));
        }
    GPU_OK(cudaStreamSynchronize(g->stream));
    turn_times times(all.size());
    for (at = 0; at + 1 < events.size(); at++) {
        size_t which = (at / all.size() + at % all.size()) % all.size();
        float ms;
        GPU_OK(cudaEventElapsedTime(&ms, events[at], events[at + 1]));
        times[which].push_back(ran[which] ? ms * 1e3 / launches : 1e30);
    }
    for (cudaEvent_t &event : events) GPU_OK(cudaEventDestroy(event));
    return times;
}

double median(std::vector<double> values)
{
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

/* How much longer a launch takes than one of `than`, turn by turn: a clock that falls between two turns
 * changes nothing. */
double ratio(const std::vector<double> &times, const std::vector<double> &than)
{
    std::vector<double> ratios;
    for (size_t turn = 0; turn < times.size(); turn++) ratios.push_back(times[turn] / than[turn]);
    return median(ratios);
}

std::function<bool(unsigned)> launcher(gpu *g, const rival &r, const std::vector<operands> &sets,
                                       size_t which)
{
    return [g, &r, &sets, which](unsigned set) {
        return run(g, r, sets[set % sets.size()], r.results[which]) == CUBLAS_STATUS_SUCCESS;
    };
}

/* Orders r->results by their times, best first. */
void rank(gpu *g, rival *r, const std::vector<operands> &sets, double about_us)
{
    std::vector<std::function<bool(unsigned)>> all;
    for (size_t i = 0; i < r->results.size(); i++) all.push_back(launcher(g, *r, sets, i));
    turn_times times = time_in_turns(g, all, about_us > 500 ? 4 : 8, about_us);
    std::vector<std::pair<double, size_t>> order;
    for (size_t i = 0; i < times.size(); i++) order.push_back({ratio(times[i], times[0]), i});
    std::sort(order.begin(), order.end());
    std::vector<cublasLtMatmulHeuristicResult_t> ranked;
    for (const auto &one : order) ranked.push_back(r->results[one.second]);
    r->results = ranked;
}

struct bench_memory {
    bt_lt *lt;
    cublasLtHandle_t handle;
    void *workspace;
    uint8_t *slab; /* operands of every row, made anew in it */
    size_t slab_bytes;
};

std::vector<operands> make_sets(gpu *g, bench_memory *b, const bt_lt_shape &shape, uint32_t m)
{
    bool bf16 = shape.kind == BT_LT_BF16;
    bt_dtype dtype = bf16 ? BT_DTYPE_BF16 : BT_DTYPE_FP8_E4M3;
    size_t each = bf16 ? 2 : 1, w = (size_t)shape.n * shape.k, x = (size_t)m * shape.k;
    size_t y = (size_t)m * shape.n * 2, bytes = (w + x) * each + y;
    unsigned sets = std::min<unsigned>(gpu_cold_sets(g, bytes), 8);
    while (sets > 1 && sets * bytes > b->slab_bytes) sets--;
    float *scales = gpu_upload(g, std::vector<float>(std::max(shape.n, m), 0.01f));
    std::vector<operands> all;
    uint8_t *at = b->slab;
    for (unsigned i = 0; i < sets; i++, at += bytes) {
        operands o = {};
        o.shape = shape;
        o.m = m;
        o.w = at;
        o.x = at + w * each;
        o.y = at + (w + x) * each;
        o.w_scale = o.x_scale = bf16 ? NULL : scales;
        gpu_fill(g, o.w, dtype, w + x, 1);
        all.push_back(o);
    }
    return all;
}

/* Ours, with the plan's algorithm, beside the FINALISTS best of the rival's and its first guess. */
void bench_one(gpu *g, bench_memory *b, const bt_lt_plan *plan, const bt_lt_shape &shape,
               uint32_t m, double target)
{
    constexpr size_t FINALISTS = 4;
    std::vector<operands> sets = make_sets(g, b, shape, m);
    rival r = {};
    r.handle = b->handle;
    r.workspace = b->workspace;
    describe(&r, sets[0]);
    propose(&r);
    cublasLtMatmulHeuristicResult_t guess = r.results[0];
    double flops = 2.0 * m * shape.n * shape.k;
    double about_us = flops / (shape.kind == BT_LT_BF16 ? 700e6 : 1300e6);
    rank(g, &r, sets, about_us);
    size_t proposed = r.results.size();
    if (r.results.size() > FINALISTS) r.results.resize(FINALISTS);
    r.results.push_back(guess);
    std::vector<std::function<bool(unsigned)>> all;
    all.push_back([&](unsigned set) {
        bt_lt_args op = args_of(sets[set % sets.size()], plan);
        GPU_RUN(bt_linear_lt(b->lt, &op, g->stream, &err));
        return true;
    });
    for (size_t i = 0; i < r.results.size(); i++) all.push_back(launcher(g, r, sets, i));
    turn_times times = time_in_turns(g, all, about_us > 500 ? 13 : 41, about_us);
    double us = median(times[0]), best = 1e30;
    for (size_t i = 1; i + 1 < times.size(); i++) best = std::min(best, ratio(times[i], times[0]));
    double rate = flops / us * 1e6, guessed = ratio(times.back(), times[0]);
    char tail[80];
    snprintf(tail, sizeof(tail), " (best of %zu %.0f, first %.0f)", proposed, rate / best * 1e-12,
             rate / guessed * 1e-12);
    gpu_row(g, name_of(shape) + " " + size_of(m, shape) + tail, us, GPU_FLOPS, flops, rate / best,
            target);
    cublasLtMatmulDescDestroy(r.desc);
    cublasLtMatrixLayoutDestroy(r.w);
    cublasLtMatrixLayoutDestroy(r.x);
    cublasLtMatrixLayoutDestroy(r.y);
}

void bench(gpu *g)
{
    static const uint32_t weights[][2] = {
        {6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}, {8192, 8192}};
    bench_memory b = {};
    b.lt = create(g);
    b.workspace = gpu_alloc(g, RIVAL_WORKSPACE);
    b.slab_bytes = (size_t)3 << 30;
    b.slab = (uint8_t *)gpu_alloc(g, b.slab_bytes);
    LT_OK(cublasLtCreate(&b.handle));
    for (uint32_t m : {2048u, 8192u})
        for (bt_lt_kind kind : {BT_LT_BF16, BT_LT_FP8_TENSOR, BT_LT_FP8_OUTER})
            for (const uint32_t *w : weights) {
                if (kind == BT_LT_FP8_OUTER && w[0] == w[1]) continue;
                uint32_t flags = kind == BT_LT_BF16 ? 0u : (uint32_t)BT_LT_FAST_SUM;
                bt_lt_shape shape = {kind, BT_DTYPE_BF16, flags, w[0], w[1]};
                bench_one(g, &b, prepare(b.lt, shape, m, m), shape, m, 98);
            }
    printf("     %llu algorithms measured in %.1f s\n",
           (unsigned long long)bt_lt_count(b.lt).measured, prepare_seconds);
    cublasLtDestroy(b.handle);
    bt_lt_destroy(b.lt);
}

} // namespace

GPU_UNIT(linear_lt, check, bench)
