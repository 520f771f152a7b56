/* gpu_embedding.cu - embedding_cuda.h against the reference. */
#include "tests/gpu/gpu.h"

extern "C" {
#include "kernels/embedding/embedding.h"
#include "kernels/embedding/embedding_cuda.h"
}

namespace
{

/* The bytes of a table: any bits, but none of NaN or infinity. */
std::vector<uint16_t> table_of(gpu *g, size_t count, bt_dtype dtype)
{
    std::vector<float> values = gpu_normals(g, count, 1);
    std::vector<uint16_t> table(count * bt_dtype_bytes(dtype) / 2);
    if (dtype == BT_DTYPE_F32) memcpy(table.data(), values.data(), count * 4);
    if (dtype == BT_DTYPE_BF16) table = gpu_to_bf16(values);
    for (size_t i = 0; dtype == BT_DTYPE_F16 && i < count; i++) table[i] = bt_f32_to_f16(values[i]);
    return table;
}

void check_one(gpu *g, uint32_t rows, uint32_t n, bt_dtype dtype, bt_dtype x_dtype, bool bad)
{
    uint32_t vocab = 97;
    size_t count = (size_t)rows * n;
    std::vector<uint16_t> table = table_of(g, (size_t)vocab * n, dtype);
    std::vector<uint32_t> tokens(rows);
    for (uint32_t &token : tokens) token = (uint32_t)bt_rng_below(&g->rng, vocab);
    tokens[rows - 1] = vocab - 1;
    std::vector<uint32_t> given(tokens), clear(1, 0);
    if (bad) {
        given[0] = rows % 2 ? vocab : UINT32_MAX;
        tokens[0] = 0;
    }
    bt_embedding_cuda_args op = {gpu_upload(g, given),
                                 gpu_upload(g, table),
                                 dtype,
                                 gpu_alloc(g, count * bt_dtype_bytes(x_dtype)),
                                 x_dtype,
                                 gpu_upload(g, clear),
                                 rows,
                                 n,
                                 vocab};
    GPU_RUN(bt_embedding_cuda(&op, g->stream, &err));
    std::vector<float> want(count);
    bt_embed(tokens.data(), rows, table.data(), dtype, n, want.data());
    std::string what = std::string("rows ") + std::to_string(rows) + " n " + std::to_string(n) +
                       " " + bt_dtype_name(dtype) + " to " + bt_dtype_name(x_dtype) +
                       (bad ? ", a bad token" : "");
    if (x_dtype == BT_DTYPE_BF16) {
        std::vector<uint16_t> codes = gpu_to_bf16(want);
        gpu_expect_equal(g, what, codes.data(), gpu_download<uint16_t>(g, op.x, count).data(),
                         count * 2);
    } else {
        gpu_expect_equal(g, what, want.data(), gpu_download<float>(g, op.x, count).data(),
                         count * 4);
    }
    gpu_expect_true(g, what + ": the flag", gpu_download<uint32_t>(g, op.ret_bad, 1)[0] == bad);
}

void check(gpu *g)
{
    for (bt_dtype dtype : {BT_DTYPE_F32, BT_DTYPE_F16, BT_DTYPE_BF16}) {
        for (bt_dtype x_dtype : {BT_DTYPE_F32, BT_DTYPE_BF16}) {
            check_one(g, 1, 4096, dtype, x_dtype, false);
            check_one(g, 65, 1032, dtype, x_dtype, false);
            check_one(g, 2, 8, dtype, x_dtype, true);
            check_one(g, 7, 3584, dtype, x_dtype, true);
        }
    }
}

void bench(gpu *g)
{
    uint32_t n = 4096, vocab = 128256;
    void *table = gpu_alloc(g, (size_t)vocab * n * 2);
    gpu_fill(g, table, BT_DTYPE_BF16, (size_t)vocab * n, 1);
    for (uint32_t rows : {1u, 16u, 64u, 2048u}) {
        size_t bytes = (size_t)rows * n * 6;
        unsigned sets = gpu_cold_sets(g, bytes);
        std::vector<bt_embedding_cuda_args> ops;
        for (unsigned i = 0; i < sets; i++) {
            std::vector<uint32_t> tokens(rows);
            for (uint32_t &token : tokens) token = (uint32_t)bt_rng_below(&g->rng, vocab);
            ops.push_back({gpu_upload(g, tokens), table, BT_DTYPE_BF16,
                           gpu_alloc(g, (size_t)rows * n * 4), BT_DTYPE_F32,
                           (uint32_t *)gpu_alloc(g, 4), rows, n, vocab});
        }
        double us = gpu_time(
            g, sets, [&](unsigned set) { GPU_RUN(bt_embedding_cuda(&ops[set], g->stream, &err)); });
        std::string what = "rows " + std::to_string(rows) + " n 4096, bf16 to f32";
        if (rows < 64)
            gpu_row_time(g, what, us, 0);
        else
            gpu_row(g, what, us, GPU_COPY, (double)bytes, 0, 0);
    }
}

} // namespace

GPU_UNIT(embedding, check, bench)
