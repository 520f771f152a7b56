/* gpu_linear.cu - linear_cuda.h: every kind of matrix in every form, with rows on both sides of each
 * limit, against sums in f64; and from how many rows cuBLASLt is faster than the kernels for few. */
#include "tests/gpu/gpu.h"

#include "tests/gpu/linear_case.h"

extern "C" {
#include "kernels/linear/linear_cuda.h"
}

#include <algorithm>

namespace
{

struct kind_of {
    bt_linear_cuda_kind kind;
    bt_lt_kind lt;
};
const kind_of kinds[] = {{BT_LINEAR_CUDA_BF16, BT_LT_BF16},
                         {BT_LINEAR_CUDA_FP8_TENSOR, BT_LT_FP8_TENSOR},
                         {BT_LINEAR_CUDA_FP8_OUTER, BT_LT_FP8_OUTER}};

enum { ROWS = 1, PACKED = 2 };
const char *const form_names[] = {"", "rows", "packed", "both forms"};

bt_linear_cuda create(gpu *g)
{
    bt_linear_cuda linear = {};
    GPU_RUN(bt_lt_create(gpu_alloc(g, BT_LT_WORKSPACE_BYTES), &linear.lt, &err));
    GPU_RUN(bt_linear_skinny_init(&err));
    linear.arch = g->arch;
    linear.sms = (uint32_t)g->card.multiProcessorCount;
    return linear;
}

void *pack(gpu *g, const operands &o)
{
    bt_dtype dtype = o.shape.kind == BT_LT_BF16 ? BT_DTYPE_BF16 : BT_DTYPE_FP8_E4M3;
    size_t bytes = bt_linear_skinny_bytes(dtype, o.shape.n, o.shape.k);
    void *packed = gpu_alloc(g, bytes);
    GPU_OK(cudaMemsetAsync(packed, 0, bytes, g->stream));
    GPU_RUN(bt_linear_skinny_pack(packed, o.w, dtype, 0, o.shape.n, o.shape.k, g->stream, &err));
    return packed;
}

bt_linear_cuda_weight weight_of(gpu *g, const operands &o, bt_linear_cuda_kind kind, int forms)
{
    bt_linear_cuda_weight w = {};
    w.kind = kind;
    w.n = o.shape.n;
    w.k = o.shape.k;
    w.y = o.shape.y;
    w.flags = o.shape.flags;
    w.rows = forms & ROWS ? o.w : NULL;
    w.packed = forms & PACKED ? pack(g, o) : NULL;
    w.scale = o.w_scale;
    w.bias = o.bias;
    return w;
}

void check_one(gpu *g, const bt_linear_cuda &linear, const kind_of &kind, int forms, uint32_t m,
               uint32_t flags)
{
    bt_lt_shape shape = {kind.lt, flags & BT_LT_ADD ? BT_DTYPE_F32 : BT_DTYPE_BF16, flags, 272,
                         576};
    operands o = make(g, shape, m);
    bt_linear_cuda_weight w = weight_of(g, o, kind.kind, forms);
    bt_err err = {};
    bt_status status = bt_linear_cuda_prepare(&linear, &w, 64, 64, &err);
    std::string what = name_of(shape) + ", " + form_names[forms] + ", " + size_of(m, shape);
    gpu_expect_true(g, what + " prepared " + err.message, status == BT_OK);
    if (status != BT_OK) return;
    bt_linear_cuda_args op = {&w, o.x, o.x_scale, o.y, m};
    GPU_RUN(bt_linear_cuda_run(&linear, &op, g->stream, &err));
    gpu_expect(g, what, expected_of(g, o), output_of(g, o), shape.y == BT_DTYPE_F32 ? 5e-4 : 3e-3);
}

/* What the front gives is what linear_w4_cuda.h gives, whose own unit compares it with sums in f64. */
void check_int4(gpu *g, const bt_linear_cuda &linear, uint32_t m)
{
    uint32_t n = 136, k = 512;
    size_t codes = (size_t)n * k / 2, groups = (size_t)n * k / BT_W4_GROUP;
    void *raw = gpu_alloc(g, codes), *scales = gpu_alloc(g, groups * 2);
    gpu_fill(g, raw, BT_DTYPE_INT8, codes, 0);
    gpu_fill(g, scales, BT_DTYPE_F16, groups, 0.01f);
    bt_w4 from = {};
    from.codes = (const uint8_t *)raw;
    from.scales = (const uint16_t *)scales;
    from.scale_dtype = BT_DTYPE_F16;
    from.n = n;
    from.k = k;
    void *packed = gpu_alloc(g, bt_w4_bytes(n, k)), *x = gpu_alloc(g, (size_t)m * k * 2);
    gpu_fill(g, x, BT_DTYPE_BF16, (size_t)m * k, 1);
    GPU_RUN(bt_w4_pack_cuda(&from, packed, g->stream, &err));
    GPU_OK(cudaStreamSynchronize(g->stream));
    size_t bytes = (size_t)m * n * 2;
    void *y[2] = {gpu_alloc(g, bytes), gpu_alloc(g, bytes)};
    bt_linear_w4_args direct = {packed, x, y[0], BT_W4_INT4, 1, m, n, k, linear.sms, linear.arch};
    GPU_RUN(bt_linear_w4_cuda(&direct, g->stream, &err));
    bt_linear_cuda_weight w = {};
    w.kind = BT_LINEAR_CUDA_INT4;
    w.n = n;
    w.k = k;
    w.y = BT_DTYPE_BF16;
    w.packed = packed;
    GPU_RUN(bt_linear_cuda_prepare(&linear, &w, m, m, &err));
    bt_linear_cuda_args op = {&w, x, NULL, y[1], m};
    GPU_RUN(bt_linear_cuda_run(&linear, &op, g->stream, &err));
    std::vector<uint8_t> expected = gpu_download<uint8_t>(g, y[0], bytes);
    std::vector<uint8_t> got = gpu_download<uint8_t>(g, y[1], bytes);
    gpu_expect_equal(g, "int4, " + std::to_string(m) + " rows", expected.data(), got.data(), bytes);
    w.flags = BT_LT_BIAS;
    gpu_expect_true(g, "int4 with a bias refused",
                    bt_linear_cuda_prepare(&linear, &w, m, m, NULL) == BT_ERR_ARGUMENT);
}

void check(gpu *g)
{
    bt_linear_cuda linear = create(g);
    for (const kind_of &kind : kinds) {
        if (bt_lt_supports(linear.lt, kind.lt, NULL) != BT_OK) continue;
        for (int forms : {(int)ROWS, (int)PACKED, ROWS | PACKED})
            for (uint32_t m : {1u, 16u, 17u, 64u, 65u, 150u})
                check_one(g, linear, kind, forms, m,
                          m == 17   ? BT_LT_BIAS
                          : m == 65 ? BT_LT_ADD
                                    : 0);
    }
    for (uint32_t m : {1u, 17u, 100u}) check_int4(g, linear, m);
    bt_lt_destroy(linear.lt);
}

/* Microseconds of one launch, weights from a cold L2. */
double time_one(gpu *g, const bt_linear_cuda &linear, const kind_of &kind, int forms,
                const bt_lt_shape &shape, uint32_t m)
{
    size_t bytes = (size_t)shape.n * shape.k * (kind.kind == BT_LINEAR_CUDA_BF16 ? 2 : 1);
    unsigned sets = std::min(gpu_cold_sets(g, bytes), 16u);
    std::vector<operands> all;
    std::vector<bt_linear_cuda_weight> weights;
    for (unsigned i = 0; i < sets; i++) {
        all.push_back(make(g, shape, m));
        weights.push_back(weight_of(g, all[i], kind.kind, forms));
        GPU_RUN(bt_linear_cuda_prepare(&linear, &weights[i], m, m, &err));
    }
    return gpu_time(g, sets, [&](unsigned set) {
        bt_linear_cuda_args op = {&weights[set], all[set].x, all[set].x_scale, all[set].y, m};
        GPU_RUN(bt_linear_cuda_run(&linear, &op, g->stream, &err));
    });
}

/* The four matrices of a layer of an 8B model: in rows, and in the form that both would be run in. */
void bench_layer(gpu *g, const bt_linear_cuda &linear, const kind_of &kind, uint32_t m,
                 double target)
{
    static const uint32_t weights[][2] = {{6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}};
    bool bf16 = kind.kind == BT_LINEAR_CUDA_BF16;
    for (int forms : {(int)ROWS, ROWS | PACKED}) {
        if (forms == (ROWS | PACKED) && m > BT_LINEAR_CUDA_FEW) break; /* rows again */
        double us = 0, bytes = 0;
        for (const uint32_t *w : weights) {
            uint32_t flags = bf16 ? 0u : (uint32_t)BT_LT_FAST_SUM;
            us += time_one(g, linear, kind, forms, {kind.lt, BT_DTYPE_BF16, flags, w[0], w[1]}, m);
            bytes += (double)w[0] * w[1] * (bf16 ? 2 : 1);
        }
        bool chosen = forms != ROWS || m > BT_LINEAR_CUDA_FEW;
        gpu_row(g,
                std::string(kind_names[kind.lt]) + ", m " + std::to_string(m) +
                    ", a layer of 8B, " + form_names[forms],
                us, GPU_READ, bytes, 0, chosen ? target : 0);
    }
}

void bench(gpu *g)
{
    bt_linear_cuda linear = create(g);
    for (uint32_t m : {1u, 16u, 64u}) {
        bench_layer(g, linear, kinds[0], m, m == 1 ? 90 : m == 16 ? 85 : 0);
        bench_layer(g, linear, kinds[1], m, m == 1 ? 85 : m == 16 ? 75 : 70);
    }
    bt_lt_destroy(linear.lt);
}

} // namespace

GPU_UNIT(linear, check, bench)
