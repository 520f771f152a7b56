/* gpu_swiglu.cu - swiglu_cuda.h against the reference. */
#include "tests/gpu/activation.h"

extern "C" {
#include "kernels/swiglu/swiglu.h"
#include "kernels/swiglu/swiglu_cuda.h"
}

namespace
{

void check_one(gpu *g, uint32_t rows, uint32_t n, uint32_t group, bt_activation_kind kind)
{
    size_t count = (size_t)rows * n;
    std::vector<float> both = gpu_normals(g, 2 * count, 2), gate(count), up(count);
    for (float &x : both)
        if (bt_rng_below(&g->rng, 50) == 0) x *= 50; /* e^-gate overflows at -88 */
    if (rows > 1) std::fill(both.begin(), both.begin() + 2 * n, 0.0f);
    std::vector<uint16_t> codes = gpu_to_bf16(both);
    both = gpu_from_bf16(codes);
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = 0; i < n; i++) {
            size_t at = row * 2 * n + i / group * 2 * group + i % group;
            gate[row * n + i] = both[at];
            up[row * n + i] = both[at + group];
        }
    }
    bt_swiglu_cuda_args op = {gpu_upload(g, codes), activation_alloc(g, kind, rows, n), rows, n,
                              group};
    GPU_RUN(bt_swiglu_cuda(&op, g->stream, &err));
    bt_swiglu ref = {gate.data(), up.data(), rows, n};
    bt_swiglu_ref(&ref, 0, n);
    std::string what = "rows " + std::to_string(rows) + " n " + std::to_string(n) + " groups of " +
                       std::to_string(group);
    activation_expect(g, what, op.out, gate, rows, n);
}

void check(gpu *g)
{
    for (bt_activation_kind kind : activation_kinds) {
        for (uint32_t rows : {1u, 3u, 65u}) {
            check_one(g, rows, 8, 8, kind);
            check_one(g, rows, 1032, 1032, kind);
            check_one(g, rows, 1032, 1, kind);
            check_one(g, rows, 1536, 8, kind);
            check_one(g, rows, 1536, 64, kind);
        }
        for (uint32_t rows : {40u, 90u, 150u, 300u}) check_one(g, rows, 4096, 1, kind);
        check_one(g, 2, 14336, 14336, kind);
        check_one(g, 2, 14336, 1, kind);
        check_one(g, 2, 18944, 18944, kind);
        check_one(g, 2, 28672, 1, kind);
    }
}

void bench_one(gpu *g, uint32_t rows, uint32_t group, bt_activation_kind kind)
{
    uint32_t n = 14336;
    size_t count = (size_t)rows * n, bytes = count * (4 + activation_bytes(kind));
    unsigned sets = gpu_cold_sets(g, bytes);
    std::vector<bt_swiglu_cuda_args> ops;
    for (unsigned i = 0; i < sets; i++) {
        bt_swiglu_cuda_args op = {gpu_alloc(g, count * 4), activation_alloc(g, kind, rows, n), rows,
                                  n, group};
        gpu_fill(g, (void *)op.gate_up, BT_DTYPE_BF16, 2 * count, 2);
        ops.push_back(op);
    }
    double us = gpu_time(
        g, sets, [&](unsigned set) { GPU_RUN(bt_swiglu_cuda(&ops[set], g->stream, &err)); });
    std::string what = "rows " + std::to_string(rows) + " n 14336, groups of " +
                       std::to_string(group) + " to " + activation_name(kind);
    if (rows < 64)
        gpu_row_time(g, what, us, 0);
    else
        gpu_row(g, what, us, GPU_COPY, (double)bytes, 0, 0);
}

void bench(gpu *g)
{
    for (uint32_t rows : {1u, 16u, 64u, 256u, 2048u})
        for (uint32_t group : {14336u, 1u})
            for (bt_activation_kind kind : activation_kinds) bench_one(g, rows, group, kind);
}

} // namespace

GPU_UNIT(swiglu, check, bench)
