/* gpu_attention_prefill.cu - attention_prefill_cuda.h against the reference: every head dim, dtype and block
 * size over ragged chunks behind cached prefixes; tables shuffled; every row of the pool that a query must
 * not use is NaN. */
#include "tests/gpu/gpu.h"

extern "C" {
#include "kernels/attention/attention.h"
#include "kernels/attention/attention_prefill_cuda.h"
}

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>

namespace
{

/* Weights are rounded to bf16, and so is the output: each adds a relative error of 2^-9 at most, 1.1e-3 in
 * the mean square; codes of fp8 and int8 are exact, so the dtype adds none. */
constexpr double BOUND = 3e-3;

struct shape {
    uint32_t head_dim;
    bt_dtype dtype;
    uint32_t block_tokens, kv_heads, group, window;
};

struct batch {
    shape s;
    std::vector<bt_attention_seq> seqs;
    uint32_t tokens = 0;
    std::vector<uint32_t> blocks;
    bt_kv_view host, device;
    std::vector<uint8_t> pool;
    std::vector<uint16_t> q;
    bt_attention_prefill_cuda_args op;
    bt_attention_prefill_pool prepared;
    size_t values() const
    {
        return (size_t)tokens * s.kv_heads * s.group * s.head_dim;
    }
};

constexpr uint32_t LAYERS = 2, LAYER = 1;

void add_seq(batch *b, uint32_t position, uint32_t count)
{
    b->seqs.push_back({b->tokens, count, position, 0});
    b->tokens += count;
}

void make_tables(gpu *g, batch *b)
{
    uint32_t used = 0, bt = b->s.block_tokens;
    for (bt_attention_seq &seq : b->seqs) {
        seq.table = used;
        used += (seq.position + seq.count + bt - 1) / bt;
    }
    b->blocks = gpu_shuffled(g, used + 3);
    b->host.shape = {b->s.dtype, LAYERS, b->s.kv_heads, b->s.head_dim, bt, used + 3};
    b->device.shape = b->host.shape;
}

/* Rows are cut out of one long row of random values, each at a random place. */
constexpr uint32_t NORMALS = 1 << 18;

void make_q(gpu *g, batch *b)
{
    std::vector<uint16_t> normals = gpu_to_bf16(gpu_normals(g, NORMALS, 1.5f));
    b->q.resize(b->values());
    for (size_t at = 0; at < b->q.size(); at += b->s.head_dim) {
        size_t from = bt_rng_below(&g->rng, NORMALS - b->s.head_dim);
        memcpy(&b->q[at], &normals[from], b->s.head_dim * 2);
    }
}

/* Rows that some query may see get values; the rest of the pool stays 0xff. */
void make_pool(gpu *g, batch *b)
{
    b->pool.assign(bt_kv_pool_bytes(&b->host.shape), 0xff);
    b->host.base = b->pool.data();
    uint32_t bt = b->s.block_tokens, d = b->s.head_dim;
    std::vector<float> normals = gpu_normals(g, NORMALS, 1);
    for (const bt_attention_seq &seq : b->seqs) {
        uint32_t begin =
            b->s.window && seq.position + 1 > b->s.window ? seq.position + 1 - b->s.window : 0;
        for (uint32_t token = begin; token < seq.position + seq.count; token++)
            for (uint32_t part = 0; part < 2; part++)
                for (uint32_t head = 0; head < b->s.kv_heads; head++) {
                    uint8_t *codes = bt_kv_at(&b->host, b->blocks[seq.table + token / bt], LAYER,
                                              (bt_kv_part)part, head);
                    uint16_t *scales = (uint16_t *)(codes + bt_kv_codes_bytes(&b->host.shape));
                    size_t from = bt_rng_below(&g->rng, NORMALS - d);
                    bt_row_encode(b->s.dtype, &normals[from], d,
                                  codes + token % bt * d * bt_dtype_bytes(b->s.dtype),
                                  bt_dtype_scaled(b->s.dtype) ? &scales[token % bt] : NULL);
                }
    }
}

void upload(gpu *g, batch *b)
{
    const shape &s = b->s;
    b->device.base = gpu_upload(g, b->pool);
    std::vector<uint8_t> plan(bt_attention_plan_bytes(b->seqs.size(), b->tokens, s.group));
    bt_attention_plan *p = (bt_attention_plan *)plan.data();
    bt_attention_plan_make(b->seqs.data(), b->seqs.size(), s.group, s.window, p);
    b->op = {};
    b->op.kv = b->device;
    b->op.q = gpu_upload(g, b->q);
    b->op.blocks = gpu_upload(g, b->blocks);
    b->op.plan = (const bt_attention_plan *)gpu_upload(g, plan);
    b->op.tiles_most = p->tiles + 5;
    b->op.layer = LAYER;
    b->op.q_heads = s.kv_heads * s.group;
    b->op.window = s.window;
    b->op.processors = g->card.multiProcessorCount;
}

std::vector<float> run(gpu *g, batch *b, int arch)
{
    GPU_RUN(bt_attention_prefill_pool_init(&b->device, arch, &b->prepared, &err));
    b->op.pool = &b->prepared;
    b->op.out = gpu_alloc(g, b->values() * 2);
    GPU_RUN(bt_attention_prefill_cuda(&b->op, g->stream, &err));
    return gpu_from_bf16(gpu_download<uint16_t>(g, b->op.out, b->values()));
}

/* Up to 16 queries of one sequence and KV head. */
struct piece {
    uint32_t seq, head, begin, count;
};

/* The first and last of every sequence and head, and some between. */
std::vector<piece> choose(gpu *g, const batch &b)
{
    std::vector<piece> pieces;
    for (uint32_t i = 0; i < b.seqs.size(); i++)
        for (uint32_t head = 0; head < b.s.kv_heads; head++)
            for (uint32_t at = 0; at < b.seqs[i].count; at += 16) {
                uint32_t count = std::min(16u, b.seqs[i].count - at);
                bool edge = at == 0 || at + count == b.seqs[i].count;
                if (edge || bt_rng_below(&g->rng, 6) == 0) pieces.push_back({i, head, at, count});
            }
    return pieces;
}

void reference(const batch &b, const std::vector<float> &q, const piece &p, float *out)
{
    const bt_attention_seq &seq = b.seqs[p.seq];
    uint32_t row = b.s.kv_heads * b.s.group * b.s.head_dim;
    size_t at = (size_t)(seq.first + p.begin) * row + p.head * b.s.group * b.s.head_dim;
    bt_attention op = {};
    op.kv = &b.host;
    op.blocks = b.blocks.data() + seq.table;
    op.q = q.data() + at;
    op.o = out + at;
    op.layer = LAYER;
    op.kv_head = p.head;
    op.group = b.s.group;
    op.position = seq.position + p.begin;
    op.count = p.count;
    op.window = b.s.window;
    op.q_stride = op.o_stride = row;
    bt_attention_ref(&op, NULL);
}

std::vector<float> references(const batch &b, const std::vector<piece> &pieces)
{
    std::vector<float> q = gpu_from_bf16(b.q), out(b.values());
    std::atomic<size_t> next(0);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); i++)
        threads.emplace_back([&] {
            for (size_t at; (at = next++) < pieces.size();) reference(b, q, pieces[at], out.data());
        });
    for (std::thread &thread : threads) thread.join();
    return out;
}

/* The chosen pieces, one after another. */
std::vector<float> only(const batch &b, const std::vector<piece> &pieces,
                        const std::vector<float> &all)
{
    std::vector<float> some;
    size_t head = (size_t)b.s.group * b.s.head_dim, row = head * b.s.kv_heads;
    for (const piece &p : pieces)
        for (uint32_t i = 0; i < p.count; i++) {
            size_t at = (b.seqs[p.seq].first + p.begin + i) * row + p.head * head;
            some.insert(some.end(), all.begin() + at, all.begin() + at + head);
        }
    return some;
}

/* Where the error is, for whoever mends it: the worst sequence, head and query. */
void explain(const batch &b, const std::vector<piece> &pieces, const std::vector<float> &expected,
             const std::vector<float> &got)
{
    size_t head = (size_t)b.s.group * b.s.head_dim, row = head * b.s.kv_heads;
    int told = 0;
    for (const piece &p : pieces) {
        for (uint32_t i = 0; i < p.count && told < 6; i++)
            for (uint32_t h = 0; h < b.s.group && told < 6; h++) {
                const bt_attention_seq &seq = b.seqs[p.seq];
                size_t at = (seq.first + p.begin + i) * row + p.head * head + h * b.s.head_dim;
                double bad = 0, norm = 0;
                uint32_t worst = 0;
                for (uint32_t d = 0; d < b.s.head_dim; d++) {
                    double e = std::fabs((double)got[at + d] - expected[at + d]);
                    norm += std::fabs(expected[at + d]);
                    if (!(e <= bad)) {
                        bad = e;
                        worst = d;
                    }
                }
                if (bad < 0.1 * norm / b.s.head_dim + 0.01) continue;
                told++;
                printf("     position %u count %u: query %u kv head %u head %u dim %u: %g, "
                       "expected %g\n",
                       seq.position, seq.count, p.begin + i, p.head, h, worst, got[at + worst],
                       expected[at + worst]);
            }
    }
}

void compare(gpu *g, const std::string &what, const batch &b, const std::vector<piece> &pieces,
             const std::vector<float> &expected, const std::vector<float> &got)
{
    size_t broken = 0;
    for (float x : got) broken += !std::isfinite(x);
    gpu_expect(g, what, only(b, pieces, expected), only(b, pieces, got), BOUND);
    if (broken) gpu_expect_true(g, what + ": every value is written and finite", false);
    explain(b, pieces, expected, got);
}

std::string name(const shape &s)
{
    return "d " + std::to_string(s.head_dim) + " " + bt_dtype_name(s.dtype) + " blocks of " +
           std::to_string(s.block_tokens) + " group " + std::to_string(s.group) +
           (s.window ? " window " + std::to_string(s.window) : "");
}

bool has_wgmma(gpu *g, const batch &b)
{
    bt_attention_prefill_pool pool;
    GPU_RUN(bt_attention_prefill_pool_init(&b.device, g->arch, &pool, &err));
    return pool.arch == 90;
}

void check_batch(gpu *g, batch *b)
{
    make_tables(g, b);
    make_pool(g, b);
    make_q(g, b);
    upload(g, b);
    std::vector<piece> pieces = choose(g, *b);
    std::vector<float> expected = references(*b, pieces);
    compare(g, name(b->s) + " mma", *b, pieces, expected, run(g, b, 80));
    if (has_wgmma(g, *b))
        compare(g, name(b->s) + " wgmma", *b, pieces, expected, run(g, b, g->arch));
}

void check_shape(gpu *g, const shape &s)
{
    batch b;
    b.s = s;
    for (uint32_t position : {0u, 1u, 100u, 777u})
        for (uint32_t count : {1u, 17u, 63u, 64u, 65u, 300u}) add_seq(&b, position, count);
    std::swap(b.seqs[2].count, b.seqs[9].count);
    b.seqs[4].count = 0; /* a sequence with nothing to do, between others */
    for (uint32_t i = 0, first = 0; i < b.seqs.size(); first += b.seqs[i++].count)
        b.seqs[i].first = first;
    b.tokens = b.seqs.back().first + b.seqs.back().count;
    check_batch(g, &b);
}

/* No reference on the CPU: the two kernels with each other. */
void check_large(gpu *g)
{
    batch b;
    b.s = {128, BT_DTYPE_BF16, 32, 8, 4, 0};
    add_seq(&b, 3000, 3001);
    add_seq(&b, 0, 2048);
    make_tables(g, &b);
    make_pool(g, &b);
    make_q(g, &b);
    upload(g, &b);
    if (!has_wgmma(g, b)) return;
    std::vector<float> mma = run(g, &b, 80), wgmma = run(g, &b, g->arch), again;
    gpu_expect(g, "3001 tokens behind 3000, and 2048: wgmma and mma", mma, wgmma, BOUND);
    again = run(g, &b, g->arch);
    gpu_expect_equal(g, "the same twice", wgmma.data(), again.data(), again.size() * 4);
}

void check(gpu *g)
{
    const uint32_t groups[] = {1, 4, 7, 8}, block_tokens[] = {16, 32, 64};
    unsigned turn = 0;
    for (uint32_t d : {64u, 96u, 128u, 256u})
        for (bt_dtype dtype : {BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3, BT_DTYPE_INT8})
            for (uint32_t bt : block_tokens) {
                uint32_t group = groups[turn++ % 4];
                check_shape(g, {d, dtype, bt, group > 4 ? 1u : 2u, group, 0});
                if (bt == 32 || (dtype == BT_DTYPE_BF16 && d == 128))
                    check_shape(g, {d, dtype, bt, 1, groups[turn % 4], 200});
            }
    check_large(g);
}

/* ---- time ---- */
double flops(const batch &b)
{
    double pairs = 0;
    for (const bt_attention_seq &seq : b.seqs)
        pairs += (double)seq.count * seq.position + (double)seq.count * (seq.count + 1) / 2;
    return 4.0 * b.s.head_dim * b.s.kv_heads * b.s.group * pairs;
}

struct timed {
    const char *what;
    shape s;
    uint32_t seqs, position, count;
    double reference; /* TFLOP/s to reach, or 0 */
};

void bench_one(gpu *g, const timed &t, int arch)
{
    batch b;
    b.s = t.s;
    for (uint32_t i = 0; i < t.seqs; i++) add_seq(&b, t.position, t.count);
    make_tables(g, &b);
    b.pool.assign(16, 0);
    b.q.assign(16, 0);
    upload(g, &b);
    size_t pool_bytes = bt_kv_pool_bytes(&b.device.shape), q_bytes = b.values() * 2;
    std::vector<bt_attention_prefill_cuda_args> ops;
    unsigned sets = std::min(4u, gpu_cold_sets(g, pool_bytes / LAYERS + 2 * q_bytes));
    std::vector<bt_attention_prefill_pool> pools(sets);
    for (unsigned i = 0; i < sets; i++) {
        b.device.base = (uint8_t *)gpu_alloc(g, pool_bytes);
        void *q = gpu_alloc(g, q_bytes);
        gpu_fill(g, b.device.base, t.s.dtype, pool_bytes / bt_dtype_bytes(t.s.dtype), 1);
        gpu_fill(g, q, BT_DTYPE_BF16, b.values(), 1);
        GPU_RUN(bt_attention_prefill_pool_init(&b.device, arch, &pools[i], &err));
        bt_attention_prefill_cuda_args op = b.op;
        op.pool = &pools[i];
        op.kv = b.device;
        op.q = q;
        op.out = gpu_alloc(g, q_bytes);
        ops.push_back(op);
    }
    double us = gpu_time(g, sets, [&](unsigned set) {
        GPU_RUN(bt_attention_prefill_cuda(&ops[set], g->stream, &err));
    });
    gpu_row(g, std::string(t.what) + " " + name(t.s) + (arch == 80 ? " (mma)" : ""), us, GPU_FLOPS,
            flops(b), t.reference * 1e12, t.reference > 0 ? 100 : 0);
}

void bench(gpu *g)
{
    const timed rows[] = {
        {"1 x 2048,", {128, BT_DTYPE_BF16, 32, 8, 4, 0}, 1, 0, 2048, 400},
        {"1 x 8192,", {128, BT_DTYPE_BF16, 32, 8, 4, 0}, 1, 0, 8192, 560},
        {"1 x 8192,", {128, BT_DTYPE_BF16, 16, 8, 4, 0}, 1, 0, 8192, 0},
        {"8 x 2048,", {128, BT_DTYPE_BF16, 32, 8, 4, 0}, 8, 0, 2048, 0},
        {"512 behind 7680,", {128, BT_DTYPE_BF16, 32, 8, 4, 0}, 1, 7680, 512, 0},
        {"1 x 8192,", {64, BT_DTYPE_BF16, 32, 8, 4, 0}, 1, 0, 8192, 0},
        {"1 x 8192,", {96, BT_DTYPE_BF16, 32, 8, 4, 0}, 1, 0, 8192, 0},
        {"1 x 8192,", {256, BT_DTYPE_BF16, 32, 8, 2, 0}, 1, 0, 8192, 0},
        {"1 x 8192,", {128, BT_DTYPE_FP8_E4M3, 32, 8, 4, 0}, 1, 0, 8192, 0},
        {"1 x 8192,", {128, BT_DTYPE_INT8, 32, 8, 4, 0}, 1, 0, 8192, 0},
    };
    for (const timed &t : rows) bench_one(g, t, g->arch);
    timed portable = rows[1];
    portable.reference = 0;
    bench_one(g, portable, 80);
}

} // namespace

GPU_UNIT(attention_prefill, check, bench)
