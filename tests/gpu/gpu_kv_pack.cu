/* gpu_kv_pack.cu - kv_pack_cuda.h against the reference, bit for bit: records, pools and digests. */
#include "tests/gpu/gpu.h"

#include <algorithm>
#include <cstring>

extern "C" {
#include "kernels/kv_pack/kv_pack.h"
#include "kernels/kv_pack/kv_pack_cuda.h"
}

namespace
{

struct shape {
    uint32_t head_dim, block_tokens, run_first, run_count, head_first, head_count, token_end;
};

const bt_dtype dtypes[] = {BT_DTYPE_F32, BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3, BT_DTYPE_INT8};
constexpr uint32_t LAYERS = 2, LAYER = 1, HEADS = 3, SPARE_BLOCKS = 3;

struct fixture {
    bt_kv_digest_key key;
    bt_kv_frame_cuda op;
    std::vector<uint32_t> blocks;
};

/* Values of a row that tell conversions apart: usual ones, ones of all magnitudes, zeros of both signs,
 * and, if odd, any bits, with NaNs and infinities among them. */
std::vector<float> row_values(gpu *g, uint32_t head_dim, bool odd)
{
    static const std::vector<float> normals = gpu_normals(g, 1 << 16, 1);
    uint64_t kind = bt_rng_below(&g->rng, 8);
    auto from = normals.begin() + (ptrdiff_t)bt_rng_below(&g->rng, normals.size() - head_dim);
    std::vector<float> x(from, from + head_dim);
    for (float &v : x) {
        if (kind == 1 || kind == 2) v *= kind == 1 ? 1e6f : 1e-7f;
        if (kind == 3) v = bt_rng_below(&g->rng, 2) ? -0.0f : 0.0f;
        if (kind == 4) v = ldexpf(v, (int)bt_rng_below(&g->rng, 280) - 150);
        if (kind >= 6 && odd && bt_rng_below(&g->rng, 9) == 0)
            v = bt_f32_of_bits((uint32_t)bt_rng_u64(&g->rng));
        if (kind == 7 && odd && bt_rng_below(&g->rng, 9) == 0)
            v = bt_f32_of_bits(0x7f800000u | (uint32_t)bt_rng_u64(&g->rng));
        if (kind == 5 && bt_rng_below(&g->rng, 3) == 0) v = -0.0f;
    }
    return x;
}

/* Rows of `stride` codes from `codes` on; every third of random codes. */
void fill_rows(gpu *g, bt_dtype dtype, uint32_t rows, uint32_t head_dim, uint8_t *codes,
               uint16_t *scales)
{
    size_t row_bytes = head_dim * bt_dtype_bytes(dtype);
    for (uint32_t row = 0; row < rows; row++) {
        bt_row_encode(dtype, row_values(g, head_dim, true).data(), head_dim,
                      codes + row * row_bytes, scales ? scales + row : NULL);
        if (row % 3 != 0) continue;
        for (size_t i = 0; dtype != BT_DTYPE_F32 && i < row_bytes; i++)
            codes[row * row_bytes + i] = (uint8_t)bt_rng_u64(&g->rng);
    }
}

std::vector<uint8_t> random_pool(gpu *g, const bt_kv_shape *kv)
{
    std::vector<uint8_t> pool(bt_kv_pool_bytes(kv));
    bt_kv_view view = {*kv, pool.data()};
    for (uint32_t block = 0; block < kv->pool_blocks; block++)
        for (uint32_t part = 0; part < 2; part++)
            for (uint32_t head = 0; head < kv->kv_heads; head++) {
                uint8_t *codes = bt_kv_at(&view, block, LAYER, (bt_kv_part)part, head);
                fill_rows(g, kv->dtype, kv->block_tokens, kv->head_dim, codes,
                          bt_dtype_scaled(kv->dtype) ? (uint16_t *)(codes + bt_kv_codes_bytes(kv))
                                                     : NULL);
            }
    return pool;
}

fixture make(gpu *g, bt_dtype pool, bt_dtype wire, const shape &s)
{
    fixture f = {};
    uint8_t key[BT_KEY_BYTES];
    for (uint8_t &byte : key) byte = (uint8_t)bt_rng_u64(&g->rng);
    bt_kv_digest_key_make(key, bt_kv_record_bytes(wire, s.head_dim), &f.key);
    uint32_t table = (s.token_end + s.block_tokens - 1) / s.block_tokens;
    f.blocks = gpu_shuffled(g, table + SPARE_BLOCKS);
    f.blocks.resize(table);
    bt_kv_frame_cuda *op = &f.op;
    op->kv.shape = {pool, LAYERS, HEADS, s.head_dim, s.block_tokens, table + SPARE_BLOCKS};
    op->wire = wire;
    op->layer = LAYER;
    op->run_first = s.run_first;
    op->run_count = s.run_count;
    op->head_first = s.head_first;
    op->head_count = s.head_count;
    op->token_end = s.token_end;
    op->blocks = gpu_upload(g, f.blocks);
    std::vector<uint32_t> words(f.key.words, f.key.words + f.key.bytes / 4 + 4);
    op->key_words = gpu_upload(g, words);
    memcpy(op->key_prf, f.key.prf, sizeof(op->key_prf));
    op->work = gpu_upload(g, std::vector<bt_kv_pack_cuda_work>(1, bt_kv_pack_cuda_work{}));
    op->ret_digest = (uint64_t *)gpu_alloc(g, 16);
    op->arch = g->arch;
    return f;
}

size_t frame_bytes(const fixture &f)
{
    return (size_t)f.key.bytes * f.op.run_count * f.op.head_count * 2;
}

bt_kv_record record_at(const fixture &f, const bt_kv_view *kv, uint32_t index)
{
    const bt_kv_frame_cuda *op = &f.op;
    bt_kv_record r = {};
    r.kv = kv;
    r.blocks = f.blocks.data();
    r.wire = op->wire;
    r.layer = op->layer;
    r.part = (bt_kv_part)(index % 2);
    r.head = op->head_first + index / 2 % op->head_count;
    r.run = op->run_first + index / 2 / op->head_count;
    r.rows = std::min(op->token_end - r.run * BT_RUN_TOKENS, BT_RUN_TOKENS);
    return r;
}

std::string text_of(const char *verb, bt_dtype from, bt_dtype to, const shape &s)
{
    return std::string(verb) + " " + bt_dtype_name(from) + " to " + bt_dtype_name(to) + " dim " +
           std::to_string(s.head_dim) + " block " + std::to_string(s.block_tokens) + " runs " +
           std::to_string(s.run_first) + "+" + std::to_string(s.run_count) + " end " +
           std::to_string(s.token_end);
}

/* Digest behind the bytes: one verdict for both. */
void append(std::vector<uint8_t> &bytes, const uint64_t sum[2])
{
    bytes.insert(bytes.end(), (const uint8_t *)sum, (const uint8_t *)sum + 16);
}

void check_pack(gpu *g, bt_dtype pool, bt_dtype wire, const shape &s)
{
    fixture f = make(g, pool, wire, s);
    std::vector<uint8_t> host = random_pool(g, &f.op.kv.shape), expected(frame_bytes(f));
    f.op.kv.base = gpu_upload(g, host);
    f.op.records = (uint8_t *)gpu_alloc(g, expected.size());
    GPU_RUN(bt_kv_pack_cuda(&f.op, g->stream, &err));
    bt_kv_view view = {f.op.kv.shape, host.data()};
    uint64_t sum[2] = {};
    for (uint32_t i = 0; i < expected.size() / f.key.bytes; i++) {
        bt_kv_record r = record_at(f, &view, i);
        bt_kv_pack(&bt_kv_pack_ref, &r, &f.key, expected.data() + (size_t)i * f.key.bytes, sum);
    }
    std::vector<uint8_t> got = gpu_download<uint8_t>(g, f.op.records, expected.size());
    append(expected, sum);
    append(got, gpu_download<uint64_t>(g, f.op.ret_digest, 2).data());
    gpu_expect_equal(g, text_of("pack", pool, wire, s), expected.data(), got.data(), got.size());
}

void check_unpack(gpu *g, bt_dtype wire, bt_dtype pool, const shape &s)
{
    fixture f = make(g, pool, wire, s);
    std::vector<uint8_t> frame(frame_bytes(f)),
        expected(bt_kv_pool_bytes(&f.op.kv.shape), (uint8_t)0xff);
    size_t codes_bytes = BT_RUN_TOKENS * s.head_dim * bt_dtype_bytes(wire);
    for (size_t at = 0; at < frame.size(); at += f.key.bytes)
        fill_rows(g, wire, BT_RUN_TOKENS, s.head_dim, frame.data() + at,
                  bt_dtype_scaled(wire) ? (uint16_t *)(frame.data() + at + codes_bytes) : NULL);
    f.op.kv.base = (uint8_t *)gpu_alloc(g, expected.size());
    f.op.records = gpu_upload(g, frame);
    /* Twice into the same: the work is as it was, the pool too. */
    GPU_RUN(bt_kv_unpack_cuda(&f.op, g->stream, &err));
    GPU_RUN(bt_kv_unpack_cuda(&f.op, g->stream, &err));
    bt_kv_view view = {f.op.kv.shape, expected.data()};
    uint64_t sum[2] = {};
    for (uint32_t i = 0; i < frame.size() / f.key.bytes; i++) {
        bt_kv_record r = record_at(f, &view, i);
        bt_kv_unpack(&bt_kv_pack_ref, &r, &f.key, frame.data() + (size_t)i * f.key.bytes, sum);
    }
    std::vector<uint8_t> got = gpu_download<uint8_t>(g, f.op.kv.base, expected.size());
    append(expected, sum);
    append(got, gpu_download<uint64_t>(g, f.op.ret_digest, 2).data());
    gpu_expect_equal(g, text_of("unpack", wire, pool, s), expected.data(), got.data(), got.size());
}

void check(gpu *g)
{
    bt_err err = {};
    gpu_must_run(bt_crypto_start(&err), &err, "bt_crypto_start", __FILE__, __LINE__);
    const shape shapes[] = {
        {128, 16, 0, 3, 0, 3, 129}, {64, 32, 1, 2, 1, 2, 192},  {96, 64, 0, 2, 0, 1, 101},
        {256, 16, 2, 1, 2, 1, 150}, {80, 16, 0, 5, 0, 3, 311},  {128, 64, 3, 17, 0, 3, 1280},
        {16, 16, 0, 1, 0, 3, 1},    {128, 32, 0, 2, 1, 1, 100},
    };
    for (const shape &s : shapes)
        for (bt_dtype pool : dtypes)
            for (bt_dtype wire : dtypes) {
                check_pack(g, pool, wire, s);
                check_unpack(g, wire, pool, s);
            }
    /* More records than blocks in the grid: a block has many. */
    shape long_one = {64, 16, 0, 400, 0, 3, 400 * 64 - 9};
    for (bt_dtype wire : {BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3}) {
        check_pack(g, BT_DTYPE_BF16, wire, long_one);
        check_unpack(g, wire, BT_DTYPE_BF16, long_one);
    }
}

/* --- time --- */

struct bench_case {
    bool pack;
    bt_dtype pool, wire;
};

constexpr uint32_t BENCH_HEADS = 8, BENCH_DIM = 128, BENCH_LAYERS = 32;

/* A pool of 32 layers and a frame of each layer: the sets. */
std::vector<bt_kv_frame_cuda> bench_frames(gpu *g, const bench_case &c, uint32_t tokens,
                                           size_t *ret_bytes)
{
    shape s = {BENCH_DIM, 16, 0, tokens / 64, 0, BENCH_HEADS, tokens};
    fixture f = make(g, c.pool, c.wire, s);
    f.op.kv.shape.layers = BENCH_LAYERS;
    f.op.kv.shape.kv_heads = BENCH_HEADS;
    size_t pool_bytes = bt_kv_pool_bytes(&f.op.kv.shape), records = frame_bytes(f);
    f.op.kv.base = (uint8_t *)gpu_alloc(g, pool_bytes);
    bt_dtype fill = c.pool == BT_DTYPE_BF16 ? BT_DTYPE_BF16 : BT_DTYPE_FP8_E4M3;
    gpu_fill(g, f.op.kv.base, fill, pool_bytes / bt_dtype_bytes(fill), 1);
    *ret_bytes = records + (size_t)tokens * bt_kv_token_bytes(&f.op.kv.shape) / BENCH_LAYERS;
    unsigned sets = std::min(gpu_cold_sets(g, *ret_bytes), BENCH_LAYERS);
    std::vector<bt_kv_frame_cuda> ops;
    for (unsigned i = 0; i < sets; i++) {
        f.op.layer = i;
        f.op.records = (uint8_t *)gpu_alloc(g, records);
        fill = c.wire == BT_DTYPE_BF16 ? BT_DTYPE_BF16 : BT_DTYPE_FP8_E4M3;
        gpu_fill(g, f.op.records, fill, records / bt_dtype_bytes(fill), 1);
        ops.push_back(f.op);
    }
    return ops;
}

bt_status run(const bench_case &c, const bt_kv_frame_cuda *op, gpu *g, bt_err *err)
{
    return c.pack ? bt_kv_pack_cuda(op, g->stream, err) : bt_kv_unpack_cuda(op, g->stream, err);
}

void bench_case_at(gpu *g, const bench_case &c, uint32_t tokens)
{
    size_t bytes;
    std::vector<bt_kv_frame_cuda> ops = bench_frames(g, c, tokens, &bytes);
    std::string what = std::string(c.pack ? "pack " : "unpack ") +
                       bt_dtype_name(c.pack ? c.pool : c.wire) + " to " +
                       bt_dtype_name(c.pack ? c.wire : c.pool) + ", " + std::to_string(tokens) +
                       " tokens";
    double us = gpu_time(g, (unsigned)ops.size(),
                         [&](unsigned set) { GPU_RUN(run(c, &ops[set], g, &err)); });
    gpu_row(g, what, us, GPU_COPY, (double)bytes, 0, tokens >= 8192 ? 80 : 0);
}

/* From the launch of one frame to its digest read by the host: 1 MiB of bf16 is 256 tokens. */
void bench_latency(gpu *g, const bench_case &c, uint32_t tokens)
{
    size_t bytes;
    std::vector<bt_kv_frame_cuda> ops = bench_frames(g, c, tokens, &bytes);
    uint64_t *digest;
    GPU_OK(cudaMallocHost(&digest, 16));
    cudaEvent_t from, to;
    GPU_OK(cudaEventCreate(&from));
    GPU_OK(cudaEventCreate(&to));
    std::vector<double> host, device;
    for (unsigned i = 0; i < 64; i++) {
        bt_kv_frame_cuda op = ops[i % ops.size()];
        op.ret_digest = digest;
        digest[0] = digest[1] = 0;
        GPU_OK(cudaStreamSynchronize(g->stream));
        timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        GPU_RUN(run(c, &op, g, &err));
        volatile uint64_t *seen = digest;
        while (seen[0] == 0 || seen[1] == 0) {
        }
        clock_gettime(CLOCK_MONOTONIC, &b);
        host.push_back((b.tv_sec - a.tv_sec) * 1e6 + (b.tv_nsec - a.tv_nsec) * 1e-3);
        GPU_OK(cudaEventRecord(from, g->stream));
        GPU_RUN(run(c, &op, g, &err));
        GPU_OK(cudaEventRecord(to, g->stream));
        GPU_OK(cudaStreamSynchronize(g->stream));
        float ms;
        GPU_OK(cudaEventElapsedTime(&ms, from, to));
        device.push_back(ms * 1e3);
    }
    std::sort(host.begin(), host.end());
    std::sort(device.begin(), device.end());
    std::string what = std::string(c.pack ? "pack " : "unpack ") + bt_dtype_name(c.pool) + "/" +
                       bt_dtype_name(c.wire) + " " + std::to_string(tokens) + " tokens";
    gpu_row_time(g, what + ", launch to digest at the host", host[host.size() / 2], 0);
    gpu_row_time(g, what + ", between events around it", device[device.size() / 2], 0);
    GPU_OK(cudaFreeHost(digest));
    GPU_OK(cudaEventDestroy(from));
    GPU_OK(cudaEventDestroy(to));
}

void bench(gpu *g)
{
    bt_err err = {};
    gpu_must_run(bt_crypto_start(&err), &err, "bt_crypto_start", __FILE__, __LINE__);
    const bench_case cases[] = {
        {true, BT_DTYPE_BF16, BT_DTYPE_BF16},         {true, BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3},
        {true, BT_DTYPE_FP8_E4M3, BT_DTYPE_FP8_E4M3}, {false, BT_DTYPE_BF16, BT_DTYPE_BF16},
        {false, BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3},    {false, BT_DTYPE_FP8_E4M3, BT_DTYPE_FP8_E4M3},
    };
    for (const bench_case &c : cases) bench_case_at(g, c, 8192);
    for (const bench_case &c : cases) bench_case_at(g, c, 16384);
    for (const bench_case &c : cases) bench_case_at(g, c, 512);
    for (bool pack : {true, false}) {
        bench_latency(g, {pack, BT_DTYPE_BF16, BT_DTYPE_BF16}, 256);
        bench_latency(g, {pack, BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3}, 512);
    }
}

} // namespace

GPU_UNIT(kv_pack, check, bench)
