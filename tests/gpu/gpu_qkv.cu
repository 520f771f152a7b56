/* gpu_qkv.cu - qkv_cuda.h against the CPU's bias, norm of heads, RoPE and append. */
#include "tests/gpu/gpu.h"

extern "C" {
#include "kernels/bias/bias.h"
#include "kernels/kv_append/kv_append.h"
#include "kernels/qkv/qkv_cuda.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/rope/rope.h"
}

namespace
{

struct shape {
    uint32_t head_dim, rope_dims, q_heads, kv_heads, block_tokens;
    bt_dtype in, pool;
    bool bias, norm;
    uint32_t sequences, rows;
};

/* Everything of one call, on the host; pointers of op are to the device. */
struct call {
    std::vector<float> qkv;
    std::vector<uint16_t> bias, q_norm, k_norm;
    std::vector<uint32_t> positions, sequences, blocks;
    std::vector<float> table;
    bt_qkv_cuda_args op;
};

std::string name_of(const shape &s)
{
    return "rows " + std::to_string(s.rows) + " heads " + std::to_string(s.q_heads) + "+" +
           std::to_string(s.kv_heads) + " of " + std::to_string(s.head_dim) + "/" +
           std::to_string(s.rope_dims) + " " + bt_dtype_name(s.in) + " to " +
           bt_dtype_name(s.pool) + (s.bias ? " bias" : "") + (s.norm ? " norm" : "");
}

/* Sequences begin anywhere and their new tokens follow each other; the last but one row only fills up,
 * the last row's block is not in the pool. */
void place_rows(gpu *g, const shape &s, call *c)
{
    uint32_t each = (s.rows + s.sequences - 1) / s.sequences;
    c->op.blocks_max = (100 + each) / s.block_tokens + 2;
    c->blocks = gpu_shuffled(g, c->op.blocks_max * s.sequences);
    std::vector<uint32_t> starts(s.sequences);
    for (uint32_t &start : starts) start = (uint32_t)bt_rng_below(&g->rng, 100);
    for (uint32_t row = 0; row < s.rows; row++) {
        uint32_t sequence = row % s.sequences;
        c->sequences.push_back(sequence);
        c->positions.push_back(starts[sequence] + row / s.sequences);
    }
    if (s.rows < 3) return;
    c->positions[s.rows - 2] = BT_POSITION_NONE;
    uint32_t last =
        c->sequences[s.rows - 1] * c->op.blocks_max + c->positions[s.rows - 1] / s.block_tokens;
    c->blocks[last] = s.rows % 2 ? UINT32_MAX : c->op.blocks_max * s.sequences;
}

bool appended(const call &c, uint32_t row)
{
    if (c.positions[row] == BT_POSITION_NONE) return false;
    uint32_t index = c.positions[row] / c.op.kv.shape.block_tokens;
    return c.blocks[c.sequences[row] * c.op.blocks_max + index] < c.op.kv.shape.pool_blocks;
}

void upload(gpu *g, const shape &s, call *c)
{
    bt_qkv_cuda_args *op = &c->op;
    uint32_t width = (s.q_heads + 2 * s.kv_heads) * s.head_dim;
    op->qkv_dtype = s.in;
    op->eps = 1e-6f;
    op->rope_dims = s.rope_dims;
    op->rows = s.rows;
    op->q_heads = s.q_heads;
    op->layer = 1;
    c->qkv = gpu_normals(g, (size_t)s.rows * width, 1);
    if (s.in == BT_DTYPE_BF16) {
        std::vector<uint16_t> codes = gpu_to_bf16(c->qkv);
        c->qkv = gpu_from_bf16(codes);
        op->qkv = gpu_upload(g, codes);
    } else {
        op->qkv = gpu_upload(g, c->qkv);
    }
    place_rows(g, s, c);
    c->bias = gpu_to_bf16(gpu_normals(g, width, 3));
    c->q_norm = gpu_to_bf16(gpu_normals(g, s.head_dim, 1));
    c->k_norm = gpu_to_bf16(gpu_normals(g, s.head_dim, 1));
    c->table = gpu_normals(g, (size_t)s.rows * s.rope_dims, 1);
    if (s.bias) op->bias = gpu_upload(g, c->bias);
    if (s.norm) op->q_norm = gpu_upload(g, c->q_norm);
    if (s.norm) op->k_norm = gpu_upload(g, c->k_norm);
    if (s.rope_dims) op->table = gpu_upload(g, c->table);
    op->positions = gpu_upload(g, c->positions);
    if (s.sequences < s.rows) op->sequences = gpu_upload(g, c->sequences);
    op->blocks = gpu_upload(g, c->blocks);
    op->kv.shape = {
        s.pool, 2, s.kv_heads, s.head_dim, s.block_tokens, op->blocks_max * s.sequences};
    op->kv.base = (uint8_t *)gpu_alloc(g, bt_kv_pool_bytes(&op->kv.shape));
    op->q = gpu_alloc(g, (size_t)s.rows * s.q_heads * s.head_dim * 2);
}

/* What the CPU makes: q, and a pool of the same poison with the rows appended. */
void compute(const shape &s, call *c, std::vector<float> *ret_q, std::vector<uint8_t> *ret_pool)
{
    uint32_t width = (s.q_heads + 2 * s.kv_heads) * s.head_dim, q = s.q_heads * s.head_dim,
             kv = s.kv_heads * s.head_dim;
    bt_kv_view pool = c->op.kv;
    ret_pool->assign(bt_kv_pool_bytes(&pool.shape), 0xff);
    pool.base = ret_pool->data();
    for (uint32_t row = 0; row < s.rows; row++) {
        float *x = &c->qkv[(size_t)row * width];
        const bt_bias bias = {x, c->bias.data(), BT_DTYPE_BF16, 1, width};
        if (s.bias) bt_bias_ref(&bias, 0, width);
        const bt_rmsnorm q_norm = {x,          NULL,     c->q_norm.data(), x, BT_DTYPE_BF16,
                                   s.head_dim, c->op.eps},
                         k_norm = {x + q,         NULL,       c->k_norm.data(), x + q,
                                   BT_DTYPE_BF16, s.head_dim, c->op.eps};
        if (s.norm) bt_rmsnorm_ref(&q_norm, 0, s.q_heads);
        if (s.norm) bt_rmsnorm_ref(&k_norm, 0, s.kv_heads);
        if (s.rope_dims)
            bt_rope_apply(&c->table[(size_t)row * s.rope_dims], s.rope_dims, s.q_heads + s.kv_heads,
                          s.head_dim, x);
        ret_q->insert(ret_q->end(), x, x + q);
        if (!appended(*c, row)) continue;
        uint32_t at = c->positions[row];
        uint32_t block = c->blocks[c->sequences[row] * c->op.blocks_max + at / s.block_tokens];
        bt_kv_append(&pool, 1, block, at % s.block_tokens, x + q, x + q + kv);
    }
}

/* The values of all rows that were appended. */
std::vector<float> decode(const call &c, const std::vector<uint8_t> &bytes)
{
    bt_kv_view pool = c.op.kv;
    pool.base = (uint8_t *)bytes.data();
    const bt_kv_shape *shape = &pool.shape;
    std::vector<float> values, one(shape->head_dim);
    for (uint32_t row = 0; row < c.op.rows; row++) {
        if (!appended(c, row)) continue;
        uint32_t at = c.positions[row] % shape->block_tokens;
        uint32_t block =
            c.blocks[c.sequences[row] * c.op.blocks_max + c.positions[row] / shape->block_tokens];
        for (uint32_t i = 0; i < 2 * shape->kv_heads; i++) {
            const uint8_t *codes = bt_kv_at(&pool, block, 1, (bt_kv_part)(i % 2), i / 2);
            const uint16_t *scales = (const uint16_t *)(codes + bt_kv_codes_bytes(shape));
            bt_row_decode(shape->dtype, codes + at * shape->head_dim * bt_dtype_bytes(shape->dtype),
                          bt_dtype_scaled(shape->dtype) ? scales[at] : 0, shape->head_dim,
                          one.data());
            values.insert(values.end(), one.begin(), one.end());
        }
    }
    return values;
}

void check_one(gpu *g, const shape &s)
{
    call c = {};
    upload(g, s, &c);
    GPU_RUN(bt_qkv_cuda(&c.op, g->stream, &err));
    std::vector<float> q;
    std::vector<uint8_t> want;
    compute(s, &c, &q, &want);
    std::vector<uint8_t> pool = gpu_download<uint8_t>(g, c.op.kv.base, want.size());
    std::vector<uint16_t> codes = gpu_download<uint16_t>(g, c.op.q, q.size());
    std::string name = name_of(s);
    if (!s.norm) {
        std::vector<uint16_t> exact = gpu_to_bf16(q);
        gpu_expect_equal(g, name + ": q", exact.data(), codes.data(), codes.size() * 2);
        gpu_expect_equal(g, name + ": pool", want.data(), pool.data(), pool.size());
        return;
    }
    /* The norm's f32 is 2^-22 off, which moves a code where the value lies between two: one in 10^4. */
    gpu_expect(g, name + ": q", q, gpu_from_bf16(codes), 0x1p-8); /* the most of one value */
    gpu_expect(g, name + ": pool", decode(c, want), decode(c, pool), 1e-3);
}

void check(gpu *g)
{
    const bt_dtype pools[] = {BT_DTYPE_F32, BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3, BT_DTYPE_INT8};
    const uint32_t dims[] = {64, 80, 96, 128, 256};
    for (bt_dtype pool : pools) {
        for (uint32_t dim : dims) {
            check_one(g, {dim, dim, 4, 2, 16, BT_DTYPE_BF16, pool, false, false, 5, 5});
            check_one(g, {dim, dim, 7, 1, 32, BT_DTYPE_F32, pool, true, false, 3, 20});
            check_one(g, {dim, dim, 4, 2, 64, BT_DTYPE_BF16, pool, false, true, 1, 1});
        }
        check_one(g, {128, 128, 32, 8, 16, BT_DTYPE_BF16, pool, false, false, 1, 1});
        check_one(g, {128, 128, 4, 2, 16, BT_DTYPE_BF16, pool, true, false, 7, 300});
        check_one(g, {96, 72, 4, 2, 16, BT_DTYPE_BF16, pool, true, false, 4, 12});
        check_one(g, {64, 0, 6, 2, 16, BT_DTYPE_F32, pool, false, false, 4, 12});
        check_one(g, {24, 8, 5, 5, 16, BT_DTYPE_BF16, pool, false, false, 4, 290});
        check_one(g, {256, 64, 4, 2, 16, BT_DTYPE_BF16, pool, true, true, 4, 258});
    }
}

/* All sets share one pool, whose blocks they divide among them in random order. */
void bench_one(gpu *g, uint32_t rows, bt_dtype pool)
{
    const uint32_t q_heads = 32, kv_heads = 8, dim = 128, block_tokens = 16;
    uint32_t sequences = rows > 256 ? 1 : rows, each = rows / sequences;
    uint32_t blocks_max = each / block_tokens + 1, width = (q_heads + 2 * kv_heads) * dim;
    size_t kv_row = dim * bt_dtype_bytes(pool) + (bt_dtype_scaled(pool) ? 2 : 0);
    size_t bytes = rows * (width * 2 + q_heads * dim * 2 + 2 * kv_heads * kv_row + dim * 4);
    unsigned sets = gpu_cold_sets(g, bytes);
    bt_kv_view kv = {{pool, 1, kv_heads, dim, block_tokens, sets * sequences * blocks_max}, NULL};
    kv.base = (uint8_t *)gpu_alloc(g, bt_kv_pool_bytes(&kv.shape));
    const uint32_t *blocks = gpu_upload(g, gpu_shuffled(g, kv.shape.pool_blocks));
    std::vector<uint32_t> positions(rows), of_one(rows, 0);
    for (uint32_t row = 0; row < rows; row++)
        positions[row] = sequences == 1 ? row : (uint32_t)bt_rng_below(&g->rng, block_tokens);
    std::vector<bt_qkv_cuda_args> ops(sets);
    for (unsigned set = 0; set < sets; set++) {
        bt_qkv_cuda_args *op = &ops[set];
        *op = {};
        void *qkv = gpu_alloc(g, (size_t)rows * width * 2), *table = gpu_alloc(g, rows * dim * 4);
        gpu_fill(g, qkv, BT_DTYPE_BF16, (size_t)rows * width, 1);
        gpu_fill(g, table, BT_DTYPE_F32, (size_t)rows * dim, 0.5f);
        op->qkv = qkv, op->table = (float *)table, op->rope_dims = dim;
        op->qkv_dtype = BT_DTYPE_BF16;
        op->positions = gpu_upload(g, positions);
        op->sequences = sequences == 1 ? gpu_upload(g, of_one) : NULL;
        op->blocks = blocks + (size_t)set * sequences * blocks_max, op->blocks_max = blocks_max;
        op->rows = rows, op->q_heads = q_heads, op->kv = kv;
        op->q = gpu_alloc(g, (size_t)rows * q_heads * dim * 2);
    }
    double us =
        gpu_time(g, sets, [&](unsigned set) { GPU_RUN(bt_qkv_cuda(&ops[set], g->stream, &err)); });
    std::string what =
        "rows " + std::to_string(rows) + ", 32 + 8 heads of 128, pool " + bt_dtype_name(pool);
    if (rows < 64)
        gpu_row_time(g, what, us, 0);
    else
        gpu_row(g, what, us, GPU_COPY, (double)bytes, 0, 0);
}

void bench(gpu *g)
{
    for (uint32_t rows : {1u, 16u, 64u, 256u, 2048u})
        for (bt_dtype pool : {BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3}) bench_one(g, rows, pool);
}

} // namespace

GPU_UNIT(qkv, check, bench)
