/* gpu_attention_decode.cu - attention_decode_cuda.h against the reference.
 *
 * ERRORS  The reference widens the same codes, so what differs is rounding: of the result to bf16, at most
 *         2^-8, in the mean square at most 2^-8 / sqrt(3) = 2.3e-3; and of the weights, to bf16 by as much
 *         again, independently, or to f16 by an eighth. Together 3.2e-3 and 2.3e-3; the bounds are 4e-3
 *         and 3e-3. */
#include "tests/gpu/gpu.h"

extern "C" {
#include "kernels/attention/attention.h"
#include "kernels/attention/attention_decode_cuda.h"
}

#include <algorithm>

namespace
{

struct batch {
    bt_kv_shape shape;
    uint32_t q_heads, window, blocks_max, q_stride, o_stride;
    std::vector<uint32_t> lengths, tables;
    std::vector<uint8_t> pool;
    std::vector<uint16_t> q;
};

std::string name_of(const batch &b)
{
    return std::string(bt_dtype_name(b.shape.dtype)) + " d " + std::to_string(b.shape.head_dim) +
           " block " + std::to_string(b.shape.block_tokens) + " heads " +
           std::to_string(b.q_heads) + "/" + std::to_string(b.shape.kv_heads) +
           (b.window ? " window " + std::to_string(b.window) : "");
}

/* Tokens that some query sees get values; every other byte of the pool is 0xff, NaN or near it. */
void write_token(gpu *g, batch *b, const std::vector<float> &normals, uint32_t seq, uint32_t token)
{
    const bt_kv_shape *s = &b->shape;
    bt_kv_view view = {*s, b->pool.data()};
    uint32_t block = b->tables[seq * b->blocks_max + token / s->block_tokens];
    uint32_t row = token % s->block_tokens;
    for (uint32_t head = 0; head < s->kv_heads; head++)
        for (bt_kv_part part : {BT_KV_K, BT_KV_V}) {
            uint8_t *codes = bt_kv_at(&view, block, s->layers - 1, part, head);
            uint16_t *scales = (uint16_t *)(codes + bt_kv_codes_bytes(s)) + row;
            /* Rows of V differ in size, as those of models do: scales from 2^-9 to 2^2. */
            float size = part == BT_KV_V ? exp2f((float)bt_rng_below(&g->rng, 6) - 3) : 1;
            std::vector<float> x(s->head_dim);
            size_t from = bt_rng_below(&g->rng, (uint32_t)(normals.size() - x.size()));
            for (size_t i = 0; i < x.size(); i++) x[i] = size * normals[from + i];
            bt_row_encode(s->dtype, x.data(), s->head_dim,
                          codes + row * s->head_dim * bt_dtype_bytes(s->dtype), scales);
        }
}

batch make_batch(gpu *g, const bt_kv_shape &shape, uint32_t group, uint32_t window,
                 const std::vector<uint32_t> &lengths)
{
    batch b = {};
    b.shape = shape;
    b.q_heads = shape.kv_heads * group;
    b.window = window;
    b.lengths = lengths;
    uint32_t longest = *std::max_element(lengths.begin(), lengths.end());
    b.blocks_max = (longest + shape.block_tokens - 1) / shape.block_tokens + 1;
    uint32_t seqs = (uint32_t)lengths.size();
    std::vector<float> normals = gpu_normals(g, 100000, 1);
    b.shape.pool_blocks = seqs * b.blocks_max;
    b.tables = gpu_shuffled(g, b.shape.pool_blocks);
    b.pool.assign(bt_kv_pool_bytes(&b.shape), 0xff);
    for (uint32_t seq = 0; seq < seqs; seq++) {
        uint32_t length = lengths[seq];
        uint32_t first = window && length > window ? length - window : 0;
        for (uint32_t token = first; token < length; token++)
            write_token(g, &b, normals, seq, token);
        uint32_t used = (length + shape.block_tokens - 1) / shape.block_tokens;
        for (uint32_t i = used; i < b.blocks_max; i++) b.tables[seq * b.blocks_max + i] = ~0u;
    }
    b.q_stride = b.q_heads * shape.head_dim + 64;
    b.o_stride = b.q_heads * shape.head_dim + 8;
    b.q = gpu_to_bf16(gpu_normals(g, (size_t)seqs * b.q_stride, 1.5f));
    return b;
}

std::vector<float> reference(batch *b)
{
    bt_kv_view view = {b->shape, b->pool.data()};
    uint32_t group = b->q_heads / b->shape.kv_heads, d = b->shape.head_dim;
    std::vector<float> q = gpu_from_bf16(b->q), o(b->lengths.size() * b->q_heads * d);
    for (uint32_t seq = 0; seq < b->lengths.size(); seq++) {
        if (b->lengths[seq] == 0) continue;
        for (uint32_t head = 0; head < b->shape.kv_heads; head++) {
            bt_attention op = {};
            op.kv = &view;
            op.blocks = b->tables.data() + seq * b->blocks_max;
            op.q = q.data() + (size_t)seq * b->q_stride + head * group * d;
            op.o = o.data() + ((size_t)seq * b->q_heads + head * group) * d;
            op.layer = b->shape.layers - 1;
            op.kv_head = head;
            op.group = group;
            op.position = b->lengths[seq] - 1;
            op.count = 1;
            op.window = b->window;
            bt_attention_ref(&op, NULL);
        }
    }
    return o;
}

/* What is on the device, and the arguments of a launch over all sequences. */
struct loaded {
    bt_attention_decode_plan plan;
    bt_attention_decode_cuda_args op;
};

void load(gpu *g, const batch &b, loaded *ret)
{
    uint32_t seqs = (uint32_t)b.lengths.size();
    GPU_RUN(bt_attention_decode_cuda_plan(&b.shape, b.q_heads, seqs,
                                          b.blocks_max * b.shape.block_tokens, &ret->plan, &err));
    bt_attention_decode_cuda_args &op = ret->op;
    op = {};
    op.plan = &ret->plan;
    op.kv = gpu_upload(g, b.pool);
    op.layer = b.shape.layers - 1;
    op.tables = gpu_upload(g, b.tables);
    op.lengths = gpu_upload(g, b.lengths);
    op.q = gpu_upload(g, b.q);
    op.o = gpu_alloc(g, (size_t)seqs * b.o_stride * 2);
    op.workspace = gpu_alloc(g, ret->plan.workspace_bytes);
    GPU_OK(cudaMemsetAsync(op.workspace, 0, ret->plan.workspace_bytes, g->stream));
    op.seqs = seqs;
    op.blocks_max = b.blocks_max;
    op.q_stride = b.q_stride;
    op.o_stride = b.o_stride;
    op.window = b.window;
}

/* All of o, gaps between rows included; poisoned first. */
std::vector<uint16_t> run(gpu *g, const bt_attention_decode_cuda_args &op)
{
    size_t count = (size_t)op.seqs * op.o_stride;
    GPU_OK(cudaMemsetAsync(op.o, 0xff, count * 2, g->stream));
    GPU_RUN(bt_attention_decode_cuda(&op, g->stream, &err));
    return gpu_download<uint16_t>(g, op.o, count);
}

std::vector<float> rows_of(const batch &b, const std::vector<uint16_t> &o)
{
    size_t row = (size_t)b.q_heads * b.shape.head_dim;
    std::vector<float> values(b.lengths.size() * row);
    for (size_t seq = 0; seq < b.lengths.size(); seq++)
        for (size_t i = 0; i < row && b.lengths[seq]; i++)
            values[seq * row + i] = bt_bf16_to_f32(o[seq * b.o_stride + i]);
    return values;
}

double bound_of(bt_dtype dtype)
{
    return dtype == BT_DTYPE_BF16 ? 4e-3 : 3e-3;
}

/* Where and how the worst sequence is wrong: what one needs to find out why. */
void explain(const batch &b, const std::vector<float> &expected, const std::vector<float> &got)
{
    size_t row = (size_t)b.q_heads * b.shape.head_dim;
    for (size_t seq = 0; seq < b.lengths.size(); seq++) {
        double difference = 0, norm = 0;
        size_t worst = 0;
        for (size_t i = seq * row; i < (seq + 1) * row; i++) {
            double d = std::fabs((double)got[i] - expected[i]);
            difference += d * d;
            norm += (double)expected[i] * expected[i];
            if (!(d <= std::fabs((double)got[worst] - expected[worst])) || worst == 0) worst = i;
        }
        double error = std::sqrt(difference / std::max(norm, 1e-30));
        if (error <= bound_of(b.shape.dtype)) continue;
        printf("       length %u: error %.2e; head %zu d %zu is %g, expected %g\n", b.lengths[seq],
               error, worst % row / b.shape.head_dim, worst % b.shape.head_dim, got[worst],
               expected[worst]);
    }
}

void check_batch(gpu *g, const bt_kv_shape &shape, uint32_t group, uint32_t window,
                 const std::vector<uint32_t> &lengths)
{
    batch b = make_batch(g, shape, group, window, lengths);
    std::vector<float> expected = reference(&b);
    loaded on;
    load(g, b, &on);
    std::vector<uint16_t> first = run(g, on.op);
    std::vector<float> got = rows_of(b, first);
    gpu_expect(g, name_of(b), expected, got, bound_of(shape.dtype));
    explain(b, expected, got);
    bool untouched = true;
    size_t row = (size_t)b.q_heads * shape.head_dim;
    for (size_t i = 0; i < first.size(); i++)
        if (i % b.o_stride >= row || lengths[i / b.o_stride] == 0) untouched &= first[i] == 0xffff;
    if (!untouched) gpu_expect_true(g, name_of(b) + " writes only its rows", false);

    uint32_t tiles_min = on.plan.split_tiles_min;
    on.plan.split_tiles_min = 1; /* as many splits as can be */
    got = rows_of(b, run(g, on.op));
    gpu_expect(g, name_of(b) + " short splits", expected, got, bound_of(shape.dtype));
    explain(b, expected, got);
    on.plan.split_tiles_min = tiles_min;
    std::vector<uint16_t> again = run(g, on.op);
    if (again != first)
        gpu_expect_equal(g, name_of(b) + " twice", first.data(), again.data(), first.size() * 2);
}

const std::vector<uint32_t> RAGGED = {1, 15, 16, 17, 63, 0, 64, 65, 500, 1025};

/* The same bits alone and in the batch, whoever takes which split, and however far copies run ahead. */
void check_invariance(gpu *g, const bt_kv_shape &shape, uint32_t group, uint32_t window)
{
    batch b = make_batch(g, shape, group, window, RAGGED);
    loaded on;
    load(g, b, &on);
    std::vector<uint16_t> whole = run(g, on.op), alone(whole.size(), 0xffff);
    for (uint32_t seq = 0; seq < RAGGED.size(); seq++) {
        bt_attention_decode_cuda_args op = on.op;
        op.seqs = 1;
        op.tables += seq * b.blocks_max;
        op.lengths += seq;
        op.q = (const uint16_t *)op.q + seq * b.q_stride;
        std::vector<uint16_t> o = run(g, op);
        std::copy(o.begin(), o.end(), alone.begin() + seq * b.o_stride);
    }
    gpu_expect_equal(g, name_of(b) + " alone as in a batch", whole.data(), alone.data(),
                     whole.size() * 2);
    for (uint32_t blocks : {1u, 3u, 50u})
        for (uint32_t stages : {2u, 3u})
            for (bool dynamic : {false, true}) {
                bt_attention_decode_plan plan = on.plan;
                plan.blocks = blocks;
                plan.stages = stages;
                plan.dynamic = dynamic;
                bt_attention_decode_cuda_args op = on.op;
                op.plan = &plan;
                std::vector<uint16_t> o = run(g, op);
                gpu_expect_equal(g,
                                 name_of(b) + " blocks " + std::to_string(blocks) + " stages " +
                                     std::to_string(stages) + (dynamic ? " dynamic" : ""),
                                 whole.data(), o.data(), whole.size() * 2);
            }
}

const bt_dtype DTYPES[] = {BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3, BT_DTYPE_INT8};

void check(gpu *g)
{
    const uint32_t blocks[] = {16, 32, 64};
    unsigned turn = 0;
    for (bt_dtype dtype : DTYPES)
        for (uint32_t d : {128u, 64u, 96u, 256u}) {
            for (uint32_t group : {1u, 2u, 4u, 7u, 8u, 16u}) {
                bt_kv_shape shape = {dtype, 2, group == 1 ? 3u : 2u, d, blocks[turn++ % 3], 0};
                check_batch(g, shape, group, 0, RAGGED);
            }
            bt_kv_shape shape = {dtype, 2, 2, d, blocks[turn++ % 3], 0};
            check_batch(g, shape, 4, 100, RAGGED);
            turn++;
        }
    for (bt_dtype dtype : DTYPES) {
        check_batch(g, {dtype, 1, 8, 128, 16, 0}, 4, 0, {5000, 3, 2049});
        check_invariance(g, {dtype, 2, 2, 128, 16, 0}, 4, 0);
    }
    check_invariance(g, {BT_DTYPE_BF16, 2, 2, 96, 32, 0}, 12, 200);
}

/* ---- time ---- */

__global__ void set_scales(uint8_t *pool, size_t rows, size_t codes_bytes, size_t scales_bytes)
{
    size_t stride = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * (scales_bytes / 2);
         i += stride) {
        size_t row = i / (scales_bytes / 2), at = i % (scales_bytes / 2);
        uint16_t *scale = (uint16_t *)(pool + row * (codes_bytes + scales_bytes) + codes_bytes);
        scale[at] = (uint16_t)(0x2c00 + i * 2654435761u % 0x400); /* 1/16 .. 1/8 */
    }
}

constexpr size_t ARENA_BYTES = (size_t)5 << 30;

struct bench_shape {
    bt_dtype dtype;
    uint32_t seqs, context, head_dim, block_tokens;
    bool ragged;
    double target;
};

void bench_one(gpu *g, uint8_t *arena, void *workspace, const bench_shape &b)
{
    bt_kv_shape shape = {b.dtype, 1, 8, b.head_dim, b.block_tokens, 0};
    uint32_t q_heads = 32, blocks_max = (b.context + b.block_tokens - 1) / b.block_tokens;
    std::vector<uint32_t> lengths(b.seqs, b.context);
    size_t tokens = 0;
    for (uint32_t &length : lengths) {
        if (b.ragged) length = 1 + (uint32_t)bt_rng_below(&g->rng, b.context);
        tokens += length;
    }
    shape.pool_blocks = b.seqs * blocks_max;
    double bytes = (double)tokens * shape.kv_heads * 2 *
                   (b.head_dim * bt_dtype_bytes(b.dtype) + (bt_dtype_scaled(b.dtype) ? 2 : 0));
    unsigned sets = bytes > 4.0 * g->card.l2CacheSize ? 1 : gpu_cold_sets(g, (size_t)bytes);
    shape.layers = sets;
    size_t pool_bytes = bt_kv_pool_bytes(&shape);
    if (pool_bytes > ARENA_BYTES) return;
    size_t codes = bt_kv_codes_bytes(&shape), scales = bt_kv_scales_bytes(&shape);
    gpu_fill(g, arena, b.dtype, pool_bytes / bt_dtype_bytes(b.dtype), 1);
    if (scales)
        set_scales<<<1024, 256, 0, g->stream>>>(arena, pool_bytes / (codes + scales), codes,
                                                scales);
    GPU_OK(cudaGetLastError());
    bt_attention_decode_plan plan;
    GPU_RUN(bt_attention_decode_cuda_plan(&shape, q_heads, b.seqs, b.context, &plan, &err));
    bt_attention_decode_cuda_args op = {};
    op.plan = &plan;
    op.kv = arena;
    op.tables = gpu_upload(g, gpu_shuffled(g, shape.pool_blocks));
    op.lengths = gpu_upload(g, lengths);
    op.q_stride = op.o_stride = q_heads * b.head_dim;
    size_t count = (size_t)b.seqs * op.q_stride;
    void *q = gpu_alloc(g, count * 2);
    gpu_fill(g, q, BT_DTYPE_BF16, count, 1);
    op.q = q;
    op.o = gpu_alloc(g, count * 2);
    op.workspace = workspace;
    GPU_OK(cudaMemsetAsync(workspace, 0, plan.workspace_bytes, g->stream));
    op.seqs = b.seqs;
    op.blocks_max = blocks_max;
    double us = gpu_time(g, sets, [&](unsigned set) {
        op.layer = set;
        GPU_RUN(bt_attention_decode_cuda(&op, g->stream, &err));
    });
    gpu_row(g,
            std::string(bt_dtype_name(b.dtype)) + " batch " + std::to_string(b.seqs) +
                (b.ragged ? " ragged to " : " x ") + std::to_string(b.context) +
                ", 32/8 heads of " + std::to_string(b.head_dim) + ", block " +
                std::to_string(b.block_tokens),
            us, GPU_READ, bytes, 0, b.target);
}

void bench(gpu *g)
{
    uint8_t *arena = (uint8_t *)gpu_alloc(g, ARENA_BYTES);
    void *workspace = gpu_alloc(g, (size_t)256 << 20);
    for (bt_dtype dtype : DTYPES) {
        double target = dtype == BT_DTYPE_BF16 ? 88 : dtype == BT_DTYPE_FP8_E4M3 ? 80 : 0;
        bench_one(g, arena, workspace, {dtype, 64, 4096, 128, 16, false, target});
        if (dtype == BT_DTYPE_INT8) continue;
        bench_one(g, arena, workspace, {dtype, 64, 8192, 128, 16, true, 0});
        bench_one(g, arena, workspace, {dtype, 64, 4096, 64, 16, false, 0});
        bench_one(g, arena, workspace, {dtype, 256, 4096, 128, 16, false, 0});
        bench_one(g, arena, workspace, {dtype, 16, 4096, 128, 16, false, 0});
        bench_one(g, arena, workspace, {dtype, 1, 1024, 128, 16, false, 0});
        bench_one(g, arena, workspace, {dtype, 1, 32768, 128, 16, false, 0});
    }
}

} // namespace

GPU_UNIT(attention_decode, check, bench)
