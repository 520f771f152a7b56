/* gpu_rope.cu - the table of rope_cuda.h against the reference. */
#include "tests/gpu/gpu.h"

extern "C" {
#include "kernels/rope/rope.h"
#include "kernels/rope/rope_cuda.h"
}

namespace
{

struct table {
    bt_rope_table_cuda_args op;
    std::vector<double> frequencies;
};

table upload(gpu *g, const bt_rope &rope, const std::vector<uint32_t> &positions)
{
    table t = {};
    t.frequencies.resize(rope.dims / 2);
    bt_rope_frequencies(&rope, 0, t.frequencies.data());
    uint32_t rows = (uint32_t)positions.size();
    t.op = {rope, gpu_upload(g, t.frequencies), gpu_upload(g, positions),
            (float *)gpu_alloc(g, (size_t)rows * rope.dims * 4), rows};
    return t;
}

/* A cosine next to 0 of an angle of 10^5 is good to 2^-53 of the angle: 2e-11. */
void check_one(gpu *g, const char *name, const bt_rope &rope)
{
    std::vector<uint32_t> positions = {0, 1, 4095, 8192, 131071, BT_POSITION_NONE};
    for (int i = 0; i < 40; i++) positions.push_back((uint32_t)bt_rng_below(&g->rng, 200000));
    table t = upload(g, rope, positions);
    GPU_RUN(bt_rope_table_cuda(&t.op, g->stream, &err));
    positions[5] = 0;
    size_t count = positions.size() * rope.dims;
    std::vector<float> want(count), got = gpu_download<float>(g, t.op.ret_table, count);
    bt_rope_table(&rope, t.frequencies.data(), positions.data(), t.op.rows, want.data());
    double most = 0;
    for (size_t i = 0; i < count; i++) {
        double allowed = std::fabs(want[i]) * 0x1p-23 + 1e-9;
        double off = std::fabs((double)got[i] - want[i]) / allowed;
        most = off > most || off != off ? off : most; /* NaN fails */
    }
    char text[96];
    snprintf(text, sizeof(text), "%s: %.2f of one unit + 1e-9", name, most);
    gpu_expect_true(g, text, most <= 1);
}

void check(gpu *g)
{
    bt_rope rope = {};
    rope.dims = 128;
    rope.theta = 500000;
    rope.magnitude = 1;
    check_one(g, "default", rope);
    rope.kind = BT_ROPE_LLAMA3;
    rope.factor = 8;
    rope.original_tokens = 8192;
    rope.low_freq_factor = 1;
    rope.high_freq_factor = 4;
    check_one(g, "llama3", rope);
    rope.kind = BT_ROPE_YARN;
    rope.beta_fast = 32;
    rope.beta_slow = 1;
    rope.magnitude = 1.2;
    rope.dims = 64;
    check_one(g, "yarn", rope);
    rope.kind = BT_ROPE_DYNAMIC;
    rope.magnitude = 1;
    rope.dims = 80;
    check_one(g, "dynamic", rope);
}

void bench(gpu *g)
{
    for (uint32_t rows : {1u, 64u, 2048u}) {
        bt_rope rope = {};
        rope.dims = 128;
        rope.theta = 500000;
        rope.magnitude = 1;
        std::vector<uint32_t> positions(rows);
        for (uint32_t &position : positions) position = (uint32_t)bt_rng_below(&g->rng, 131072);
        table t = upload(g, rope, positions);
        double us =
            gpu_time(g, 2, [&](unsigned) { GPU_RUN(bt_rope_table_cuda(&t.op, g->stream, &err)); });
        gpu_row_time(g, "rows " + std::to_string(rows) + " dims 128, once a step", us, 0);
    }
}

} // namespace

GPU_UNIT(rope, check, bench)
