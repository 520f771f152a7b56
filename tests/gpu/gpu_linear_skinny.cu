/* gpu_linear_skinny.cu - linear_skinny_cuda.h against linear_ref.c and against sums in f64 made on the GPU. */
#include "tests/gpu/gpu.h"

extern "C" {
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_skinny_cuda.h"
}

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <cuda_fp8.h>

namespace
{

struct pair_of {
    const char *name;
    bt_dtype w, x;
};
const pair_of BF16 = {"bf16", BT_DTYPE_BF16, BT_DTYPE_BF16};
const pair_of FP8 = {"fp8", BT_DTYPE_FP8_E4M3, BT_DTYPE_FP8_E4M3};
const pair_of W8A16 = {"fp8 x bf16", BT_DTYPE_FP8_E4M3, BT_DTYPE_BF16};

__device__ double value_at(const void *p, int dtype, size_t at)
{
    if (dtype == BT_DTYPE_BF16) return __uint_as_float((uint32_t)((const uint16_t *)p)[at] << 16);
    __half_raw half = __nv_cvt_fp8_to_halfraw(((const uint8_t *)p)[at], __NV_E4M3);
    return __half2float(*(__half *)&half);
}

/* One warp for a value of y; w row-major. */
__global__ void reference(bt_linear_skinny_args op, const void *w, float *y)
{
    size_t at = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (at >= (size_t)op.m * op.n) return;
    size_t i = at / op.n, j = at % op.n;
    double sum = 0;
    for (uint32_t l = threadIdx.x % 32; l < op.k; l += 32)
        sum += value_at(op.x, op.x_dtype, i * op.k + l) * value_at(w, op.w_dtype, j * op.k + l);
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (op.x_scale) sum *= op.x_scale[op.per_token ? i : 0];
    if (op.w_scale) sum *= op.w_scale[op.per_channel ? j : 0];
    if (op.bias) sum += value_at(op.bias, BT_DTYPE_BF16, j);
    if (op.residual) sum += op.residual[at];
    if (threadIdx.x % 32 == 0) y[at] = (float)sum;
}

struct product {
    bt_linear_skinny_args op;
    void *w; /* row-major */
};

product make(gpu *g, pair_of types, uint32_t m, uint32_t n, uint32_t k, unsigned extras)
{
    product p = {};
    size_t w_bytes = bt_dtype_bytes(types.w), x_bytes = bt_dtype_bytes(types.x);
    size_t packed_bytes = bt_linear_skinny_bytes(types.w, n, k);
    p.w = gpu_alloc(g, (size_t)n * k * w_bytes);
    void *x = gpu_alloc(g, (size_t)m * k * x_bytes), *packed = gpu_alloc(g, packed_bytes);
    gpu_fill(g, p.w, types.w, (size_t)n * k, 1);
    gpu_fill(g, x, types.x, (size_t)m * k, 1);
    GPU_OK(cudaMemsetAsync(packed, 0, packed_bytes, g->stream));
    uint32_t first = n / 3; /* two tensors make the matrix */
    GPU_RUN(bt_linear_skinny_pack(packed, p.w, types.w, 0, first, k, g->stream, &err));
    GPU_RUN(bt_linear_skinny_pack(packed, (char *)p.w + (size_t)first * k * w_bytes, types.w, first,
                                  n - first, k, g->stream, &err));
    p.op.w = packed;
    p.op.x = x;
    p.op.m = m, p.op.n = n, p.op.k = k;
    p.op.w_dtype = types.w, p.op.x_dtype = types.x;
    p.op.y_dtype = extras & 1 ? BT_DTYPE_F32 : BT_DTYPE_BF16;
    p.op.y = gpu_alloc(g, (size_t)m * n * bt_dtype_bytes(p.op.y_dtype));
    if (types.w == BT_DTYPE_FP8_E4M3) {
        p.op.per_channel = p.op.per_token = extras & 2;
        p.op.w_scale = (float *)gpu_alloc(g, n * 4);
        gpu_fill(g, (void *)p.op.w_scale, BT_DTYPE_F32, n, 0.1f);
        if (types.x == BT_DTYPE_FP8_E4M3) {
            p.op.x_scale = (float *)gpu_alloc(g, m * 4);
            gpu_fill(g, (void *)p.op.x_scale, BT_DTYPE_F32, m, 0.1f);
        }
    }
    if (extras & 4) {
        p.op.bias = gpu_alloc(g, n * 2);
        gpu_fill(g, (void *)p.op.bias, BT_DTYPE_BF16, n, 1);
    }
    if (extras & 8) {
        p.op.residual = (float *)gpu_alloc(g, (size_t)m * n * 4);
        gpu_fill(g, (void *)p.op.residual, BT_DTYPE_F32, (size_t)m * n, 1);
    }
    return p;
}

std::string plan_name(const bt_linear_skinny_plan &p)
{
    char name[96];
    if (p.stage_blocks == 0) {
        snprintf(name, sizeof(name), "direct c%u p%u k%u d%u%s", p.token_tiles, p.panels, p.warps_k,
                 p.depth, p.overlap ? " overlap" : "");
        return name;
    }
    snprintf(name, sizeof(name), "c%u p%u n%u k%u b%u s%u g%u %uK%s%s", p.token_tiles, p.panels,
             p.warps_n, p.warps_k, p.stage_blocks, p.splits, p.grid, p.shared_bytes >> 10,
             p.groups ? " groups" : "", p.overlap ? " overlap" : "");
    return name;
}

/* f32: sums of products that are exact. Each addition of the tensor cores loses at most 2^-23 of its result
 * or of its largest term, and there are k / 16 in a chain: 14336 / 16 * 2^-23 = 1e-4 of the sum of |x w|
 * at worst, and a root of that, with random signs; 2e-5 allowed. By groups: wgmma keeps 13 bits after the
 * first of the largest product, and 64 k are added so: 2^-13, and a root of 64 less against the norm of their
 * sum; 2e-4 allowed. bf16: half a unit in the last place, 2^-8 of a value. */
void compare(gpu *g, const product &p, const bt_linear_skinny_plan &plan, const std::string &name)
{
    size_t count = (size_t)p.op.m * p.op.n;
    float *expected = (float *)gpu_alloc(g, count * 4);
    reference<<<(unsigned)((count * 32 + 255) / 256), 256, 0, g->stream>>>(p.op, p.w, expected);
    GPU_OK(cudaMemsetAsync(p.op.y, 0xff, count * bt_dtype_bytes(p.op.y_dtype), g->stream));
    GPU_RUN(bt_linear_skinny_cuda(&p.op, &plan, g->stream, &err));
    std::vector<float> want = gpu_download<float>(g, expected, count), got;
    bool wide = p.op.y_dtype == BT_DTYPE_F32;
    got = wide ? gpu_download<float>(g, p.op.y, count)
               : gpu_from_bf16(gpu_download<uint16_t>(g, p.op.y, count));
    double bound = !wide ? 4e-3 : plan.groups ? 2e-4 : 2e-5;
    gpu_expect(g, name, want, got, bound);
    double largest = 0;
    for (float v : want) largest = std::max(largest, (double)std::abs(v));
    for (size_t at = 0, told = 0; at < count && told < 4; at++) {
        if (std::abs(got[at] - want[at]) <= 20 * bound * largest) continue;
        printf("     row %zu column %zu: %g, expected %g\n", at / p.op.n, at % p.op.n, got[at],
               want[at]);
        told++;
    }
    std::vector<uint8_t> once = gpu_download<uint8_t>(g, p.op.y, count * (wide ? 4 : 2));
    GPU_RUN(bt_linear_skinny_cuda(&p.op, &plan, g->stream, &err));
    std::vector<uint8_t> twice = gpu_download<uint8_t>(g, p.op.y, once.size());
    if (once != twice) gpu_expect_true(g, name + " repeats bit for bit", false);
}

std::string title(pair_of t, uint32_t m, uint32_t n, uint32_t k)
{
    return std::string(t.name) + " m " + std::to_string(m) + " n " + std::to_string(n) + " k " +
           std::to_string(k);
}

/* Every plan that the shapes may take. */
void compare_plans(gpu *g, pair_of types, uint32_t m, uint32_t n, uint32_t k, unsigned extras)
{
    product p = make(g, types, m, n, k, extras);
    bt_linear_skinny_plan plans[BT_SKINNY_PLANS];
    unsigned count = bt_linear_skinny_plans(&p.op, g->arch, g->card.multiProcessorCount, plans);
    for (unsigned i = 0; i < count; i++) {
        compare(g, p, plans[i], title(types, m, n, k) + " " + plan_name(plans[i]));
    }
}

void check_layout(gpu *g, bt_dtype dtype)
{
    uint32_t n = 37, k = 192, bytes = (uint32_t)bt_dtype_bytes(dtype);
    std::vector<uint8_t> tensor((size_t)n * k * bytes);
    for (uint8_t &b : tensor) b = (uint8_t)bt_rng_u64(&g->rng);
    std::vector<uint8_t> expected(bt_linear_skinny_bytes(dtype, n, k), 0);
    for (uint32_t j = 0; j < n; j++)
        for (uint32_t l = 0; l < k; l++)
            memcpy(&expected[bt_linear_skinny_offset(dtype, k, j, l)],
                   &tensor[((size_t)j * k + l) * bytes], bytes);
    uint8_t *from = gpu_upload(g, tensor), *packed = (uint8_t *)gpu_alloc(g, expected.size());
    GPU_OK(cudaMemsetAsync(packed, 0, expected.size(), g->stream));
    GPU_RUN(bt_linear_skinny_pack(packed, from, dtype, 0, 20, k, g->stream, &err));
    GPU_RUN(bt_linear_skinny_pack(packed, from + (size_t)20 * k * bytes, dtype, 20, n - 20, k,
                                  g->stream, &err));
    std::vector<uint8_t> got = gpu_download<uint8_t>(g, packed, expected.size());
    gpu_expect_equal(g, std::string("layout of ") + bt_dtype_name(dtype), expected.data(),
                     got.data(), got.size());
}

/* Against the reference of the CPU, which packs the same tensor in its own layout. */
void check_cpu(gpu *g)
{
    uint32_t m = 5, n = 100, k = 256;
    product p = make(g, BF16, m, n, k, 1);
    std::vector<uint16_t> w = gpu_download<uint16_t>(g, p.w, (size_t)n * k);
    std::vector<float> x = gpu_from_bf16(gpu_download<uint16_t>(g, p.op.x, (size_t)m * k));
    std::vector<float> y((size_t)m * n);
    size_t bytes = bt_linear_bytes(BT_DTYPE_BF16, n, k);
    void *panels = aligned_alloc(64, bytes), *packed_x = malloc(bt_linear_ref.x_bytes(m, k));
    memset(panels, 0, bytes);
    bt_linear_pack(panels, BT_DTYPE_BF16, k, 0, w.data(), BT_DTYPE_BF16, n, 0, bt_linear_panels(n));
    bt_linear_weights weights = {panels, BT_DTYPE_BF16, n, k};
    bt_linear_ref.pack_x(x.data(), k, m, k, 0, bt_linear_tiles(&bt_linear_ref, m), packed_x);
    bt_linear ref = {&weights, packed_x, y.data(), m, n};
    bt_linear_ref.run(&ref, 0, bt_linear_panels(n), NULL);
    free(panels);
    free(packed_x);
    bt_linear_skinny_plan plans[BT_SKINNY_PLANS];
    bt_linear_skinny_plans(&p.op, g->arch, g->card.multiProcessorCount, plans);
    GPU_RUN(bt_linear_skinny_cuda(&p.op, &plans[0], g->stream, &err));
    gpu_expect(g, "linear_ref.c bf16 m 5 n 100 k 256", y,
               gpu_download<float>(g, p.op.y, (size_t)m * n), 2e-5);
}

/* The ring with few thread blocks, so that each has several tiles, and with splits. */
void check_ring(gpu *g)
{
    struct {
        unsigned c, p, n, k, b;
        bool groups;
        pair_of types;
    } shapes[] = {{1, 1, 1, 8, 8, false, BF16},  {1, 1, 1, 8, 8, false, FP8},
                  {1, 1, 1, 8, 8, false, W8A16}, {8, 2, 4, 1, 2, false, FP8},
                  {8, 1, 4, 1, 2, true, FP8},    {8, 1, 8, 1, 4, true, FP8}};
    for (auto &s : shapes) {
        for (unsigned splits : {1u, 2u, 4u}) {
            unsigned m = s.c * 8 - (splits == 2 ? 3 : 0);
            product p = make(g, s.types, m, 1000 + s.c, 1088, (splits * 5 + s.k) % 16);
            bt_linear_skinny_plan plan = {};
            plan.token_tiles = (uint16_t)s.c, plan.panels = (uint16_t)s.p;
            plan.warps_n = (uint16_t)s.n, plan.warps_k = (uint16_t)s.k;
            plan.stage_blocks = (uint16_t)s.b, plan.splits = (uint16_t)splits;
            plan.groups = s.groups, plan.overlap = splits == 4;
            plan.grid = 8, plan.shared_bytes = 200 << 10;
            compare(g, p, plan, title(s.types, m, p.op.n, p.op.k) + " " + plan_name(plan));
        }
    }
}

void check(gpu *g)
{
    GPU_RUN(bt_linear_skinny_init(&err));
    for (bt_dtype dtype : {BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3}) check_layout(g, dtype);
    check_cpu(g);
    unsigned extras = 0;
    for (pair_of types : {BF16, FP8, W8A16}) {
        for (uint32_t m : {1u, 2u, 3u, 5u, 8u, 15u, 16u, 17u, 33u, 64u}) {
            uint32_t n = 272 + m % 5, k = m % 2 ? 576 : 896;
            compare_plans(g, types, m, n, k, extras++);
        }
    }
    if (g->arch == 90) check_ring(g);
}

void check_large(gpu *g)
{
    GPU_RUN(bt_linear_skinny_init(&err));
    unsigned extras = 1;
    for (pair_of types : {BF16, FP8, W8A16}) {
        for (uint32_t m : {1u, 16u, 64u}) {
            compare_plans(g, types, m, 4096, 14336, extras += 5);
        }
    }
}

/* ---- bench ---- */

struct shape {
    const char *name;
    uint32_t n, k;
};
const shape SHAPES[] = {{"qkv", 6144, 4096},
                        {"o", 4096, 4096},
                        {"gate+up", 28672, 4096},
                        {"down", 4096, 14336},
                        {"head", 128256, 4096}};

/* Weights and x as many times over as the cache cannot hold, in one allocation. */
std::vector<bt_linear_skinny_args> sets_of(gpu *g, pair_of types, uint32_t m, const shape &s,
                                           char *memory, char *small)
{
    size_t bytes = bt_linear_skinny_bytes(types.w, s.n, s.k);
    std::vector<bt_linear_skinny_args> ops;
    for (unsigned i = 0; i < gpu_cold_sets(g, bytes); i++) {
        bt_linear_skinny_args op = {};
        op.w = memory + i * bytes;
        op.x = small;
        op.y = small + (4 << 20);
        op.m = m, op.n = s.n, op.k = s.k;
        op.w_dtype = types.w, op.x_dtype = types.x, op.y_dtype = BT_DTYPE_BF16;
        if (types.w == BT_DTYPE_FP8_E4M3) {
            op.w_scale = (float *)(small + (32 << 20));
            op.x_scale = types.x == BT_DTYPE_FP8_E4M3 ? (float *)(small + (36 << 20)) : NULL;
            op.per_channel = op.per_token = true;
        }
        ops.push_back(op);
    }
    return ops;
}

double time_plan(gpu *g, const std::vector<bt_linear_skinny_args> &ops,
                 const bt_linear_skinny_plan &plan)
{
    return gpu_time(g, (unsigned)ops.size(), [&](unsigned set) {
        GPU_RUN(bt_linear_skinny_cuda(&ops[set], &plan, g->stream, &err));
    });
}

/* Each product behind another of its kind, by the best of its plans. Overlapped, as plans are, it streams its
 * weights while the one before ends, as it does behind any kernel of a decode step that lets it; "alone"
 * has that plan without the overlap. */
void bench_one(gpu *g, pair_of types, uint32_t m, double target, char *memory, char *small)
{
    double layer_us = 0, layer_bytes = 0;
    std::string name = std::string(types.name) + " m " + std::to_string(m) + " ";
    for (const shape &s : SHAPES) {
        std::vector<bt_linear_skinny_args> ops = sets_of(g, types, m, s, memory, small);
        double bytes = (double)bt_linear_skinny_bytes(types.w, s.n, s.k), least = 0;
        bt_linear_skinny_plan plans[BT_SKINNY_PLANS], best = {};
        unsigned count =
            bt_linear_skinny_plans(&ops[0], g->arch, g->card.multiProcessorCount, plans);
        std::string all;
        for (unsigned i = 0; i < count; i++) {
            double us = time_plan(g, ops, plans[i]);
            char text[160];
            snprintf(text, sizeof(text), "     %-50s %9.2f us\n", plan_name(plans[i]).c_str(), us);
            all += text;
            if (i == 0 || us < least) least = us, best = plans[i];
        }
        gpu_row(g, name + s.name, least, GPU_READ, bytes, 0, target);
        fputs(all.c_str(), stdout);
        best.overlap = false;
        gpu_row(g, name + s.name + ", alone", time_plan(g, ops, best), GPU_READ, bytes, 0, 0);
        if (s.n > 100000) continue;
        layer_us += least;
        layer_bytes += bytes;
    }
    gpu_row(g, name + "one layer", layer_us, GPU_READ, layer_bytes, 0, target);
}

void bench(gpu *g)
{
    GPU_RUN(bt_linear_skinny_init(&err));
    size_t bytes = (size_t)9 << 28;
    char *memory = (char *)gpu_alloc(g, bytes), *small = (char *)gpu_alloc(g, (size_t)40 << 20);
    gpu_fill(g, small + (32 << 20), BT_DTYPE_F32, 2 << 20, 0.1f);
    gpu_fill(g, memory, BT_DTYPE_BF16, bytes / 2, 1);
    gpu_fill(g, small, BT_DTYPE_BF16, 1 << 21, 1);
    bench_one(g, BF16, 1, 90, memory, small);
    bench_one(g, BF16, 16, 85, memory, small);
    gpu_fill(g, memory, BT_DTYPE_FP8_E4M3, bytes, 1);
    bench_one(g, W8A16, 1, 85, memory, small);
    gpu_fill(g, small, BT_DTYPE_FP8_E4M3, 1 << 22, 1);
    bench_one(g, FP8, 1, 85, memory, small);
    bench_one(g, FP8, 16, 75, memory, small);
    bench_one(g, FP8, 64, 70, memory, small);
}

} // namespace

GPU_UNIT(linear_skinny, check, bench)
GPU_UNIT(linear_skinny_large, check_large, NULL)
