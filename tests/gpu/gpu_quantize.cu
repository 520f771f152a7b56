/* gpu_quantize.cu - quantize_cuda.h against its definition. */
#include "tests/gpu/activation.h"

extern "C" {
#include "kernels/quantize/quantize_cuda.h"
}

namespace
{

void check_one(gpu *g, uint32_t rows, uint32_t n, bt_activation_kind kind)
{
    std::vector<float> x = gpu_normals(g, (size_t)rows * n, 3);
    if (rows > 1) std::fill(x.begin(), x.begin() + n, 0.0f);
    std::vector<uint16_t> codes = gpu_to_bf16(x);
    bt_quantize_cuda_args op = {gpu_upload(g, codes), activation_alloc(g, kind, rows, n), rows, n};
    GPU_RUN(bt_quantize_cuda(&op, g->stream, &err));
    std::string what = "rows " + std::to_string(rows) + " n " + std::to_string(n);
    activation_expect(g, what, op.out, gpu_from_bf16(codes), rows, n);
}

void check(gpu *g)
{
    for (bt_activation_kind kind : {BT_ACTIVATION_FP8_TOKEN, BT_ACTIVATION_FP8_TENSOR})
        for (uint32_t n : {8u, 1032u, 4096u, 10240u, 32768u})
            for (uint32_t rows : {1u, 9u}) check_one(g, rows, n, kind);
}

void bench(gpu *g)
{
    const uint32_t n = 4096;
    for (uint32_t rows : {1u, 16u, 64u, 256u, 2048u}) {
        size_t count = (size_t)rows * n;
        std::vector<bt_quantize_cuda_args> ops(gpu_cold_sets(g, count * 3));
        for (bt_quantize_cuda_args &op : ops) {
            void *x = gpu_alloc(g, count * 2);
            gpu_fill(g, x, BT_DTYPE_BF16, count, 1);
            op = {x, activation_alloc(g, BT_ACTIVATION_FP8_TOKEN, rows, n), rows, n};
        }
        double us = gpu_time(g, (unsigned)ops.size(), [&](unsigned set) {
            GPU_RUN(bt_quantize_cuda(&ops[set], g->stream, &err));
        });
        std::string what = "rows " + std::to_string(rows) + " n 4096, bf16 to fp8 by token";
        if (rows < 64)
            gpu_row_time(g, what, us, 0);
        else
            gpu_row(g, what, us, GPU_COPY, (double)count * 3, 0, 0);
    }
}

} // namespace

GPU_UNIT(quantize, check, bench)
