/* gpu_rmsnorm.cu - rmsnorm_cuda.h against the reference. */
#include "tests/gpu/gpu.h"

extern "C" {
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/rmsnorm/rmsnorm_cuda.h"
}

static void check_one(gpu *g, uint32_t rows, uint32_t n, bool with_delta)
{
    size_t count = (size_t)rows * n;
    std::vector<float> x = gpu_normals(g, count, 1), y(count);
    std::vector<uint16_t> delta = gpu_to_bf16(gpu_normals(g, count, 1)),
                          w = gpu_to_bf16(gpu_normals(g, n, 1));
    std::vector<float> delta_values = gpu_from_bf16(delta);
    bt_rmsnorm_cuda_args op = {gpu_upload(g, x),
                               with_delta ? gpu_upload(g, delta) : NULL,
                               gpu_upload(g, w),
                               gpu_alloc(g, count * 2),
                               rows,
                               n,
                               1e-5f};
    GPU_RUN(bt_rmsnorm_cuda(&op, g->stream, &err));
    bt_rmsnorm ref = {
        x.data(), with_delta ? delta_values.data() : NULL, w.data(), y.data(), BT_DTYPE_BF16, n,
        op.eps};
    bt_rmsnorm_ref(&ref, 0, rows);
    std::string what =
        "rows " + std::to_string(rows) + " n " + std::to_string(n) + (with_delta ? " delta" : "");
    gpu_expect(g, what + " y bf16", y, gpu_from_bf16(gpu_download<uint16_t>(g, op.y, count)), 3e-3);
    std::vector<float> sum = gpu_download<float>(g, op.x, count);
    gpu_expect_equal(g, what + " x", x.data(), sum.data(), count * sizeof(float));
}

static void check(gpu *g)
{
    for (uint32_t n : {8u, 64u, 1032u, 4096u, 16384u})
        for (uint32_t rows : {1u, 3u, 257u}) check_one(g, rows, n, rows != 3);
}

static void bench(gpu *g)
{
    for (uint32_t rows : {1u, 64u, 2048u}) {
        uint32_t n = 4096;
        size_t count = (size_t)rows * n, bytes = count * 12;
        unsigned sets = gpu_cold_sets(g, bytes);
        std::vector<bt_rmsnorm_cuda_args> ops;
        for (unsigned i = 0; i < sets; i++) {
            bt_rmsnorm_cuda_args op = {(float *)gpu_alloc(g, count * 4),
                                       gpu_alloc(g, count * 2),
                                       gpu_alloc(g, n * 2),
                                       gpu_alloc(g, count * 2),
                                       rows,
                                       n,
                                       1e-5f};
            gpu_fill(g, op.x, BT_DTYPE_F32, count, 1);
            gpu_fill(g, (void *)op.delta, BT_DTYPE_BF16, count, 1);
            gpu_fill(g, (void *)op.w, BT_DTYPE_BF16, n, 1);
            ops.push_back(op);
        }
        double us = gpu_time(
            g, sets, [&](unsigned set) { GPU_RUN(bt_rmsnorm_cuda(&ops[set], g->stream, &err)); });
        gpu_row(g, "rows " + std::to_string(rows) + " n 4096, residual added", us, GPU_COPY,
                (double)bytes, 0, 0);
    }
}

GPU_UNIT(rmsnorm, check, bench)
