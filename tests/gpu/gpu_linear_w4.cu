/* gpu_linear_w4.cu - linear_w4_cuda.h against the reference. */
#include "tests/gpu/gpu.h"

extern "C" {
#include "kernels/linear/linear_w4.h"
#include "kernels/linear/linear_w4_kernels.h"
}

#include <algorithm>
#include <cstring>

#include <cublasLt.h>

namespace
{

/* y is rounded to bf16: 2^-8 of each value at most, 1.7e-3 of the norm. Up to 16 rows only f32 sums are rounded besides. */
const double BOUND = 4e-3;
/* Of INT4 and more rows of x w is rounded too, the scale and the product: three times independently, 2.9e-3 of the norm. */
const double BOUND_ROUNDED = 6e-3;

struct matrix {
    std::vector<uint8_t> codes, zeros, e4m3;
    std::vector<uint16_t> scales;
    bt_w4_format format;
    bt_w4 host;
    bt_nvfp4 nvfp4; /* n and k are in host for either */
    void *packed;
};

std::vector<uint8_t> bytes_of(gpu *g, size_t count, uint8_t mask)
{
    std::vector<uint8_t> bytes(count);
    for (uint8_t &b : bytes) b = (uint8_t)(bt_rng_u64(&g->rng) >> 40) & mask;
    return bytes;
}

/* Every scale but NaN, so also 0 and subnormals. */
matrix make_nvfp4(gpu *g, uint32_t n, uint32_t k)
{
    matrix w = {};
    w.format = BT_W4_NVFP4;
    w.codes = bytes_of(g, (size_t)n * k / 2, 0xff);
    w.e4m3 = bytes_of(g, (size_t)n * k / BT_NVFP4_GROUP, 0x7f);
    for (uint8_t &scale : w.e4m3) scale %= 127;
    w.host = {NULL, NULL, NULL, BT_DTYPE_NONE, n, k};
    w.nvfp4 = {w.codes.data(), w.e4m3.data(), 0.0013f, n, k};
    bt_nvfp4 device = {gpu_upload(g, w.codes), gpu_upload(g, w.e4m3), 0, n, k};
    w.packed = gpu_alloc(g, bt_w4_nvfp4_bytes(n, k));
    GPU_RUN(bt_w4_pack_nvfp4_cuda(&device, w.packed, g->stream, &err));
    GPU_OK(cudaStreamSynchronize(g->stream));
    return w;
}

/* Column j of y, for all m rows of x. */
std::vector<float> column_of(const matrix &w, const float *x, uint32_t m, uint32_t j)
{
    uint32_t k = w.host.k;
    std::vector<float> row(k), y(m);
    if (w.format == BT_W4_NVFP4) {
        bt_nvfp4 one = {w.codes.data() + (size_t)j * k / 2,
                        w.e4m3.data() + (size_t)j * k / BT_NVFP4_GROUP, w.nvfp4.global, 1, k};
        bt_nvfp4_decode(&one, row.data());
    } else {
        bt_w4_row(&w.host, j, row.data());
    }
    for (uint32_t i = 0; i < m; i++) {
        double sum[4] = {};
        for (uint32_t l = 0; l < k; l += 4)
            for (uint32_t c = 0; c < 4; c++)
                sum[c] += (double)x[(size_t)i * k + l + c] * row[l + c];
        y[i] = (float)(sum[0] + sum[1] + (sum[2] + sum[3]));
    }
    return y;
}

/* Scales of either sign, zeros random or none. Packed on the device. */
matrix make(gpu *g, uint32_t n, uint32_t k, bt_dtype dtype, bool zeros)
{
    matrix w = {};
    w.format = BT_W4_INT4;
    size_t groups = (size_t)n * (k / BT_W4_GROUP);
    w.codes = bytes_of(g, (size_t)n * k / 2, 0xff);
    if (zeros) w.zeros = bytes_of(g, groups, 15);
    for (float scale : gpu_normals(g, groups, 0.02f))
        w.scales.push_back(dtype == BT_DTYPE_F16 ? bt_f32_to_f16(scale) : bt_f32_to_bf16(scale));
    w.host = {w.codes.data(), w.scales.data(), zeros ? w.zeros.data() : NULL, dtype, n, k};
    bt_w4 device = {gpu_upload(g, w.codes),
                    gpu_upload(g, w.scales),
                    zeros ? gpu_upload(g, w.zeros) : NULL,
                    dtype,
                    n,
                    k};
    w.packed = gpu_alloc(g, bt_w4_bytes(n, k));
    GPU_RUN(bt_w4_pack_cuda(&device, w.packed, g->stream, &err));
    GPU_OK(cudaStreamSynchronize(g->stream));
    return w;
}

bt_linear_w4_args args_of(gpu *g, const matrix &w, uint32_t m, const void *x)
{
    bt_linear_w4_args op = {};
    op.w = w.packed, op.x = x, op.y = gpu_alloc(g, (size_t)m * w.host.n * 2);
    op.format = w.format;
    op.factor = w.format == BT_W4_NVFP4 ? w.nvfp4.global : 1;
    op.m = m, op.n = w.host.n, op.k = w.host.k;
    op.sms = (uint32_t)g->card.multiProcessorCount, op.arch = g->arch;
    return op;
}

typedef std::function<void(const bt_linear_w4_args &op)> runner;

/* All of y for at most 80 columns, spread over n; the other columns of y must be finite. */
void compare(gpu *g, const std::string &what, const matrix &w, const bt_linear_w4_args &op,
             const std::vector<float> &x, double bound)
{
    uint32_t n = op.n, m = op.m;
    std::vector<float> all = gpu_from_bf16(gpu_download<uint16_t>(g, op.y, (size_t)m * n));
    std::vector<float> expected, got;
    bool finite = true;
    for (float v : all) finite = finite && v - v == 0;
    uint32_t step = (uint64_t)m * n * op.k <= 40000000 ? 1 : n / 37 | 1, worst_m = 0, worst_j = 0;
    double worst = 0, worst_y = 0;
    for (uint32_t j = 0; j < n; j += step) {
        std::vector<float> y = column_of(w, x.data(), m, j);
        for (uint32_t i = 0; i < m; i++) {
            expected.push_back(y[i]);
            got.push_back(all[(size_t)i * n + j]);
            double d = std::abs((double)expected.back() - got.back());
            if (!(d <= worst)) worst = d, worst_m = i, worst_j = j, worst_y = y[i];
        }
    }
    char where[160];
    snprintf(where, sizeof(where), " [worst at row %u column %u: %g, got %g]", worst_m, worst_j,
             worst_y, all[(size_t)worst_m * n + worst_j]);
    gpu_expect(g, what + (finite ? "" : " NOT ALL FINITE") + where, expected, got,
               finite ? bound : -1);
}

/* Twice: the second run must give the same bits. */
void check_with(gpu *g, const matrix &w, uint32_t m, const std::string &name, double bound,
                const runner &run)
{
    uint32_t n = w.host.n, k = w.host.k;
    std::vector<uint16_t> codes = gpu_to_bf16(gpu_normals(g, (size_t)m * k, 1));
    bt_linear_w4_args op = args_of(g, w, m, gpu_upload(g, codes));
    run(op);
    std::string what =
        name + " m " + std::to_string(m) + " n " + std::to_string(n) + " k " + std::to_string(k);
    compare(g, what, w, op, gpu_from_bf16(codes), bound);
    std::vector<uint16_t> once = gpu_download<uint16_t>(g, op.y, (size_t)m * n);
    GPU_OK(cudaMemsetAsync(op.y, 0xff, (size_t)m * n * 2, g->stream));
    run(op);
    std::vector<uint16_t> again = gpu_download<uint16_t>(g, op.y, (size_t)m * n);
    if (once != again)
        gpu_expect_equal(g, what + " again", once.data(), again.data(), once.size() * 2);
}

void check_pack(gpu *g, uint32_t n, uint32_t k, bt_dtype dtype, bool zeros)
{
    matrix w = make(g, n, k, dtype, zeros);
    std::vector<uint8_t> expected(bt_w4_bytes(n, k));
    bt_w4_pack_ref(&w.host, expected.data());
    std::vector<uint8_t> got = gpu_download<uint8_t>(g, w.packed, expected.size());
    gpu_expect_equal(g, "pack n " + std::to_string(n) + " k " + std::to_string(k), expected.data(),
                     got.data(), expected.size());
}

void check_pack_nvfp4(gpu *g, uint32_t n, uint32_t k)
{
    matrix w = make_nvfp4(g, n, k);
    std::vector<uint8_t> expected(bt_w4_nvfp4_bytes(n, k));
    bt_w4_pack_nvfp4_ref(&w.nvfp4, expected.data());
    std::vector<uint8_t> got = gpu_download<uint8_t>(g, w.packed, expected.size());
    gpu_expect_equal(g, "pack nvfp4 n " + std::to_string(n) + " k " + std::to_string(k),
                     expected.data(), got.data(), expected.size());
}

runner any_runner(gpu *g)
{
    return [=](const bt_linear_w4_args &op) { GPU_RUN(bt_linear_w4_cuda(&op, g->stream, &err)); };
}

runner mma_runner(gpu *g)
{
    return [=](const bt_linear_w4_args &op) { GPU_RUN(bt_w4_mma_cuda(&op, g->stream, &err)); };
}

runner few_runner(gpu *g, uint32_t kind, uint32_t blocks_sm)
{
    return [=](const bt_linear_w4_args &op) {
        GPU_RUN(bt_w4_few_sm90_cuda(&op, kind, blocks_sm, g->stream, &err));
    };
}

runner some_runner(gpu *g, uint32_t split)
{
    return [=](const bt_linear_w4_args &op) {
        GPU_RUN(bt_w4_some_sm90_cuda(&op, split, g->stream, &err));
    };
}

runner many_runner(gpu *g)
{
    return
        [=](const bt_linear_w4_args &op) { GPU_RUN(bt_w4_many_sm90_cuda(&op, g->stream, &err)); };
}

struct check_shape {
    uint32_t m, n, k;
};

void check_mma(gpu *g)
{
    const check_shape shapes[] = {{1, 64, 128}, {5, 1000, 1152}, {16, 200, 384}, {70, 136, 640}};
    for (check_shape s : shapes) {
        check_with(g, make(g, s.n, s.k, BT_DTYPE_F16, true), s.m, "mma", BOUND, mma_runner(g));
        check_with(g, make_nvfp4(g, s.n, s.k), s.m, "mma", BOUND, mma_runner(g));
    }
}

void check_few(gpu *g)
{
    const check_shape shapes[] = {
        {1, 64, 2048}, {3, 200, 2304}, {8, 1000, 3072}, {8, 6144, 4096}, {1, 4096, 14336}};
    for (check_shape s : shapes) {
        bt_dtype dtype = s.m == 1 ? BT_DTYPE_F16 : BT_DTYPE_BF16;
        matrix w = make(g, s.n, s.k, dtype, s.m != 3), f = make_nvfp4(g, s.n, s.k);
        for (uint32_t kind = 0; kind < BT_W4_FEW_KINDS; kind++)
            for (uint32_t blocks : {1u, 3u}) {
                if (!bt_w4_few_sm90_takes(kind, s.m, s.k)) continue;
                std::string name =
                    "few " + std::to_string(kind) + " blocks " + std::to_string(blocks);
                check_with(g, w, s.m, name, BOUND, few_runner(g, kind, blocks));
                if (s.n < 2000) check_with(g, f, s.m, name, BOUND, few_runner(g, kind, blocks));
            }
    }
}

void check_some(gpu *g)
{
    const check_shape shapes[] = {{64, 256, 128},   {1, 264, 256},    {9, 200, 1152},
                                  {17, 1000, 1152}, {64, 4096, 4096}, {16, 6144, 4096},
                                  {33, 136, 384}};
    for (check_shape s : shapes) {
        matrix w = make(g, s.n, s.k, BT_DTYPE_F16, true), f = make_nvfp4(g, s.n, s.k);
        for (uint32_t split : {1u, 3u, 6u, 8u}) {
            if (split > s.k / BT_W4_GROUP) continue;
            std::string name = "some split " + std::to_string(split);
            check_with(g, w, s.m, name, s.m > 16 ? BOUND_ROUNDED : BOUND, some_runner(g, split));
            check_with(g, f, s.m, name, BOUND, some_runner(g, split));
        }
    }
}

void check_many(gpu *g)
{
    const check_shape shapes[] = {{64, 128, 128},   {128, 256, 128},   {64, 128, 256},
                                  {33, 200, 384},   {300, 1000, 1152}, {2, 72, 1280},
                                  {400, 4096, 4096}};
    for (check_shape s : shapes) {
        check_with(g, make(g, s.n, s.k, BT_DTYPE_F16, true), s.m, "many", BOUND_ROUNDED,
                   many_runner(g));
        check_with(g, make_nvfp4(g, s.n, s.k), s.m, "many", BOUND, many_runner(g));
    }
}

void check(gpu *g)
{
    check_pack(g, 64, 128, BT_DTYPE_F16, true);
    check_pack(g, 136, 640, BT_DTYPE_BF16, false);
    check_pack(g, 1024, 4096, BT_DTYPE_F16, true);
    check_pack_nvfp4(g, 136, 640);
    check_pack_nvfp4(g, 1024, 1152);
    check_mma(g);
    if (g->arch >= 90) check_few(g);
    if (g->arch == 90) check_some(g), check_many(g);
    const uint32_t shapes[][2] = {{136, 640}, {1032, 1152}, {4096, 4096}};
    for (auto s : shapes) {
        matrix w = make(g, s[0], s[1], BT_DTYPE_F16, true), f = make_nvfp4(g, s[0], s[1]);
        for (uint32_t m : {1u, 2u, 7u, 16u, 17u, 33u, 64u, 65u, 130u, 2048u}) {
            check_with(g, w, m, "", m > 16 && g->arch == 90 ? BOUND_ROUNDED : BOUND, any_runner(g));
            if (m % 2) check_with(g, f, m, "", BOUND, any_runner(g));
        }
    }
}

/* ---- bench ---- */

struct shape {
    uint32_t n, k;
};

const shape SHAPES[] = {{6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}};

struct bench_set {
    std::vector<bt_linear_w4_args> ops;
    double bytes;
};

/* Random codes and scales, packed as a checkpoint's would be. */
void *random_packed(gpu *g, bt_w4_format format, shape s)
{
    size_t codes = (size_t)s.n * s.k / 2;
    void *from = gpu_alloc(g, codes), *scales = gpu_alloc(g, codes / 4);
    gpu_fill(g, from, BT_DTYPE_INT8, codes, 0);
    if (format == BT_W4_NVFP4) {
        void *packed = gpu_alloc(g, bt_w4_nvfp4_bytes(s.n, s.k));
        bt_nvfp4 w = {(uint8_t *)from, (uint8_t *)scales, 1, s.n, s.k};
        gpu_fill(g, scales, BT_DTYPE_FP8_E4M3, (size_t)s.n * s.k / BT_NVFP4_GROUP, 50);
        GPU_RUN(bt_w4_pack_nvfp4_cuda(&w, packed, g->stream, &err));
        return packed;
    }
    void *packed = gpu_alloc(g, bt_w4_bytes(s.n, s.k));
    bt_w4 w = {(uint8_t *)from, (uint16_t *)scales, NULL, BT_DTYPE_F16, s.n, s.k};
    gpu_fill(g, scales, BT_DTYPE_F16, (size_t)s.n * s.k / BT_W4_GROUP, 0.02f);
    GPU_RUN(bt_w4_pack_cuda(&w, packed, g->stream, &err));
    return packed;
}

/* As many matrices as do not fit in the L2. */
bench_set sets_of(gpu *g, bt_w4_format format, uint32_t m, shape s)
{
    bench_set set;
    size_t w_bytes = format == BT_W4_NVFP4 ? bt_w4_nvfp4_bytes(s.n, s.k) : bt_w4_bytes(s.n, s.k);
    set.bytes = (double)w_bytes + (double)m * (s.k + s.n) * 2;
    unsigned count = gpu_cold_sets(g, w_bytes);
    for (unsigned i = 0; i < count; i++) {
        matrix w = {};
        w.format = format, w.nvfp4.global = 1;
        w.host.n = s.n, w.host.k = s.k, w.packed = random_packed(g, format, s);
        void *x = gpu_alloc(g, (size_t)m * s.k * 2);
        gpu_fill(g, x, BT_DTYPE_BF16, (size_t)m * s.k, 1);
        set.ops.push_back(args_of(g, w, m, x));
    }
    GPU_OK(cudaStreamSynchronize(g->stream));
    return set;
}

std::string name_of(bt_w4_format format, uint32_t m, shape s)
{
    return std::string(format == BT_W4_NVFP4 ? "nvfp4" : "int4") + " m " + std::to_string(m) +
           " n " + std::to_string(s.n) + " k " + std::to_string(s.k);
}

double time_of(gpu *g, const bench_set &set)
{
    return gpu_time(g, (unsigned)set.ops.size(),
                    [&](unsigned i) { GPU_RUN(bt_linear_w4_cuda(&set.ops[i], g->stream, &err)); });
}

void bench_read(gpu *g, bt_w4_format format, uint32_t m, double target)
{
    for (shape s : SHAPES) {
        bench_set set = sets_of(g, format, m, s);
        gpu_row(g, name_of(format, m, s), time_of(g, set), GPU_READ, set.bytes, 0, target);
    }
}

struct bf16_product {
    cublasLtHandle_t lt;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    std::vector<void *> ws, xs;
    void *out, *workspace;
};

const size_t BF16_WORKSPACE = (size_t)32 << 20;

/* y = x * w of bf16 by cuBLASLt. */
bf16_product bf16_of(gpu *g, uint32_t m, shape s)
{
    bf16_product p = {};
    cublasLtMatmulPreference_t preference;
    cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtCreate(&p.lt);
    cublasLtMatmulDescCreate(&p.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                   sizeof(transposed));
    cublasLtMatrixLayoutCreate(&p.w, CUDA_R_16BF, s.k, s.n, s.k);
    cublasLtMatrixLayoutCreate(&p.x, CUDA_R_16BF, s.k, m, s.k);
    cublasLtMatrixLayoutCreate(&p.y, CUDA_R_16BF, s.n, m, s.n);
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &BF16_WORKSPACE, sizeof(BF16_WORKSPACE));
    cublasLtMatmulHeuristicResult_t found[8];
    int count = 0;
    cublasLtMatmulAlgoGetHeuristic(p.lt, p.desc, p.w, p.x, p.y, p.y, preference, 8, found, &count);
    for (int i = 0; i < count; i++) p.algorithms.push_back(found[i].algo);
    unsigned sets = gpu_cold_sets(g, (size_t)s.n * s.k * 2);
    for (unsigned i = 0; i < sets; i++) {
        p.ws.push_back(gpu_alloc(g, (size_t)s.n * s.k * 2));
        p.xs.push_back(gpu_alloc(g, (size_t)m * s.k * 2));
        gpu_fill(g, p.ws[i], BT_DTYPE_BF16, (size_t)s.n * s.k, 0.02f);
        gpu_fill(g, p.xs[i], BT_DTYPE_BF16, (size_t)m * s.k, 1);
    }
    p.out = gpu_alloc(g, (size_t)m * s.n * 2), p.workspace = gpu_alloc(g, BF16_WORKSPACE);
    return p;
}

double bf16_time(gpu *g, const bf16_product &p, size_t algorithm)
{
    float one = 1, zero = 0;
    return gpu_time(g, (unsigned)p.ws.size(), [&](unsigned i) {
        cublasLtMatmul(p.lt, p.desc, &one, p.ws[i], p.w, p.xs[i], p.x, &zero, p.out, p.y, p.out,
                       p.y, &p.algorithms[algorithm], p.workspace, BF16_WORKSPACE, g->stream);
    });
}

double median_of_3(double a, double b, double c)
{
    return std::max(std::min(a, b), std::min(std::max(a, b), c));
}

/* Beside cuBLASLt's best of eight algorithms, by turns: the clock falls as the card gets warm. */
void bench_flops(gpu *g, bt_w4_format format, uint32_t m, double target)
{
    for (shape s : SHAPES) {
        bench_set set = sets_of(g, format, m, s);
        bf16_product p = bf16_of(g, m, s);
        size_t best = 0;
        double least = 1e30, bf16[3], ours[3], flops = 2.0 * m * s.n * s.k;
        for (size_t i = 0; i < p.algorithms.size(); i++) {
            double us = bf16_time(g, p, i);
            if (us < least) least = us, best = i;
        }
        for (int i = 0; i < 3; i++) {
            bf16[i] = bf16_time(g, p, best);
            ours[i] = time_of(g, set);
        }
        double reference = flops / median_of_3(bf16[0], bf16[1], bf16[2]) * 1e6;
        gpu_row(g, name_of(format, m, s) + ", bf16 " + std::to_string((int)(reference * 1e-12)),
                median_of_3(ours[0], ours[1], ours[2]), GPU_FLOPS, flops, reference, target);
    }
}

void bench(gpu *g)
{
    bench_read(g, BT_W4_INT4, 1, 80);
    bench_read(g, BT_W4_INT4, 8, 0);
    bench_read(g, BT_W4_INT4, 16, 70);
    bench_read(g, BT_W4_INT4, 32, 0);
    bench_read(g, BT_W4_INT4, 64, 60);
    bench_read(g, BT_W4_NVFP4, 1, 0);
    bench_read(g, BT_W4_NVFP4, 16, 0);
    bench_read(g, BT_W4_NVFP4, 64, 0);
    bench_flops(g, BT_W4_INT4, 2048, 85);
    bench_flops(g, BT_W4_NVFP4, 2048, 0);
}

} // namespace

GPU_UNIT(linear_w4, check, bench)
