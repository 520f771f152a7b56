/* gpu_rmsnorm.cu - rmsnorm_cuda.h against the reference. */
#include "tests/gpu/activation.h"

extern "C" {
#include "kernels/quantize/quantize_cuda.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/rmsnorm/rmsnorm_cuda.h"
}

namespace
{

struct shape {
    uint32_t rows, n;
    bt_dtype x_dtype;
    bool delta;
};

/* A stream of bf16 is rounded after the addition; the norm is of what was rounded. */
void check_one(gpu *g, const shape &s, bt_activation_kind kind)
{
    size_t count = (size_t)s.rows * s.n;
    bool narrow = s.x_dtype == BT_DTYPE_BF16;
    std::vector<float> x = gpu_normals(g, count, 2), y(count);
    if (s.rows > 1) std::fill(x.begin(), x.begin() + s.n, 0.0f); /* with no delta, a row of zeros */
    if (narrow) x = gpu_from_bf16(gpu_to_bf16(x));
    std::vector<uint16_t> delta = gpu_to_bf16(gpu_normals(g, count, 1)),
                          w = gpu_to_bf16(gpu_normals(g, s.n, 1));
    std::vector<float> delta_values = gpu_from_bf16(delta);
    bt_rmsnorm_cuda_args op = {narrow ? (void *)gpu_upload(g, gpu_to_bf16(x)) : gpu_upload(g, x),
                               s.x_dtype,
                               s.delta ? gpu_upload(g, delta) : NULL,
                               gpu_upload(g, w),
                               NULL,
                               activation_alloc(g, kind, s.rows, s.n),
                               s.rows,
                               s.n,
                               1e-5f};
    GPU_RUN(bt_rmsnorm_cuda(&op, g->stream, &err));
    if (s.delta)
        for (size_t i = 0; i < count; i++) x[i] += delta_values[i];
    if (narrow) x = gpu_from_bf16(gpu_to_bf16(x));
    bt_rmsnorm ref = {x.data(), NULL, w.data(), y.data(), BT_DTYPE_BF16, s.n, op.eps};
    bt_rmsnorm_ref(&ref, 0, s.rows);
    std::string what = "rows " + std::to_string(s.rows) + " n " + std::to_string(s.n) + " " +
                       bt_dtype_name(s.x_dtype) + (s.delta ? " delta" : "");
    activation_expect(g, what, op.out, y, s.rows, s.n);
    std::vector<float> sum = narrow ? gpu_from_bf16(gpu_download<uint16_t>(g, op.x, count))
                                    : gpu_download<float>(g, op.x, count);
    gpu_expect_equal(g, what + " x", x.data(), sum.data(), count * sizeof(float));
}

/* Every other row, from the last on: each as when all are computed, the rest of x untouched. */
void check_pick(gpu *g)
{
    const uint32_t rows = 10, picked = 5, n = 1032;
    std::vector<float> x = gpu_normals(g, rows * n, 1);
    std::vector<uint16_t> delta = gpu_to_bf16(gpu_normals(g, rows * n, 1)),
                          w = gpu_to_bf16(gpu_normals(g, n, 1));
    bt_rmsnorm_cuda_args all = {gpu_upload(g, x),
                                BT_DTYPE_F32,
                                gpu_upload(g, delta),
                                gpu_upload(g, w),
                                NULL,
                                activation_alloc(g, BT_ACTIVATION_FP8_TOKEN, rows, n),
                                rows,
                                n,
                                1e-5f};
    bt_rmsnorm_cuda_args some = all;
    some.x = gpu_upload(g, x);
    some.pick = gpu_upload(g, std::vector<uint32_t>{9, 7, 5, 3, 1});
    some.out = activation_alloc(g, BT_ACTIVATION_FP8_TOKEN, picked, n);
    some.rows = picked;
    GPU_RUN(bt_rmsnorm_cuda(&all, g->stream, &err));
    GPU_RUN(bt_rmsnorm_cuda(&some, g->stream, &err));
    std::vector<float> sums = gpu_download<float>(g, all.x, rows * n),
                       some_sums = gpu_download<float>(g, some.x, rows * n),
                       scales = gpu_download<float>(g, all.out.scales, rows),
                       some_scales = gpu_download<float>(g, some.out.scales, picked);
    std::vector<uint8_t> codes = gpu_download<uint8_t>(g, all.out.y, rows * n),
                         some_codes = gpu_download<uint8_t>(g, some.out.y, picked * n);
    bool same = true;
    for (uint32_t i = 0; i < picked; i++) {
        uint32_t row = 9 - 2 * i;
        same = same && memcmp(&codes[row * n], &some_codes[i * n], n) == 0;
        same = same && scales[row] == some_scales[i];
        same = same && memcmp(&sums[row * n], &some_sums[row * n], n * 4) == 0;
        same = same && memcmp(&x[(row - 1) * n], &some_sums[(row - 1) * n], n * 4) == 0;
    }
    gpu_expect_true(g, "picked rows", same);
}

/* Launches that overlap (kernels/cuda_launch.cuh) still see all that those before them wrote: the sum of
 * many in-place additions, and the codes of the last norm. */
void check_chain(gpu *g)
{
    const uint32_t rows = 70, n = 4096, launches = 50;
    std::vector<float> x = gpu_normals(g, rows * n, 1);
    std::vector<uint16_t> delta = gpu_to_bf16(gpu_normals(g, rows * n, 1)),
                          w = gpu_to_bf16(gpu_normals(g, n, 1));
    bt_rmsnorm_cuda_args norm = {};
    norm.x = gpu_upload(g, x), norm.x_dtype = BT_DTYPE_F32;
    norm.delta = gpu_upload(g, delta), norm.w = gpu_upload(g, w);
    norm.out = activation_alloc(g, BT_ACTIVATION_BF16, rows, n);
    norm.rows = rows, norm.n = n, norm.eps = 1e-5f;
    bt_quantize_cuda_args quantize = {
        norm.out.y, activation_alloc(g, BT_ACTIVATION_FP8_TOKEN, rows, n), rows, n};
    for (uint32_t i = 0; i < launches; i++) {
        GPU_RUN(bt_rmsnorm_cuda(&norm, g->stream, &err));
        GPU_RUN(bt_quantize_cuda(&quantize, g->stream, &err));
    }
    std::vector<uint8_t> codes = gpu_download<uint8_t>(g, quantize.out.y, rows * n);
    std::vector<float> sum = gpu_download<float>(g, norm.x, rows * n);
    std::vector<float> added = gpu_from_bf16(delta);
    for (uint32_t i = 0; i < launches; i++)
        for (size_t k = 0; k < x.size(); k++) x[k] += added[k];
    gpu_expect_equal(g, "x after 50 overlapping launches", x.data(), sum.data(), x.size() * 4);
    GPU_RUN(bt_quantize_cuda(&quantize, g->stream, &err));
    gpu_expect_equal(g, "codes after 50 overlapping launches",
                     gpu_download<uint8_t>(g, quantize.out.y, rows * n).data(), codes.data(),
                     codes.size());
}

void check(gpu *g)
{
    check_pick(g);
    check_chain(g);
    for (bt_activation_kind kind : activation_kinds)
        for (bt_dtype dtype : {BT_DTYPE_F32, BT_DTYPE_BF16})
            for (uint32_t n : {8u, 64u, 1032u, 3584u, 4096u, 8192u, 16384u})
                for (uint32_t rows : {1u, 3u, 130u})
                    if (rows < 100 || n < 5000) check_one(g, {rows, n, dtype, rows != 3}, kind);
}

void bench_one(gpu *g, uint32_t rows, bt_dtype x_dtype, bt_activation_kind kind)
{
    uint32_t n = 4096;
    size_t count = (size_t)rows * n, x_bytes = bt_dtype_bytes(x_dtype);
    size_t bytes = count * (2 * x_bytes + 2 + activation_bytes(kind)) + n * 2;
    unsigned sets = gpu_cold_sets(g, bytes);
    std::vector<bt_rmsnorm_cuda_args> ops;
    for (unsigned i = 0; i < sets; i++) {
        bt_rmsnorm_cuda_args op = {gpu_alloc(g, count * x_bytes),
                                   x_dtype,
                                   gpu_alloc(g, count * 2),
                                   gpu_alloc(g, n * 2),
                                   NULL,
                                   activation_alloc(g, kind, rows, n),
                                   rows,
                                   n,
                                   1e-5f};
        gpu_fill(g, op.x, x_dtype, count, 1);
        gpu_fill(g, (void *)op.delta, BT_DTYPE_BF16, count, 1);
        gpu_fill(g, (void *)op.w, BT_DTYPE_BF16, n, 1);
        ops.push_back(op);
    }
    double us = gpu_time(
        g, sets, [&](unsigned set) { GPU_RUN(bt_rmsnorm_cuda(&ops[set], g->stream, &err)); });
    std::string what = "rows " + std::to_string(rows) + " n 4096, " + bt_dtype_name(x_dtype) +
                       " stream to " + activation_name(kind);
    if (rows < 64)
        gpu_row_time(g, what, us, 0);
    else
        gpu_row(g, what, us, GPU_COPY, (double)bytes, 0, 0);
}

void bench(gpu *g)
{
    for (uint32_t rows : {1u, 16u, 64u, 256u, 2048u})
        for (bt_dtype dtype : {BT_DTYPE_F32, BT_DTYPE_BF16})
            for (bt_activation_kind kind : {BT_ACTIVATION_BF16, BT_ACTIVATION_FP8_TOKEN})
                bench_one(g, rows, dtype, kind);
}

} // namespace

GPU_UNIT(rmsnorm, check, bench)
