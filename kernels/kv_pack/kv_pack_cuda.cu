/* kv_pack_cuda.cu - see kv_pack_cuda.h.
 *
 * SHAPE   One block for a record, and then for the record a grid further on. Between two dtypes that
 *         are the same, a thread's share is 16 bytes of the record; between others it is eight codes
 *         of a row, whose row is converted by the 8, 16 or 32 lanes that hold it. UNROLL shares of a
 *         thread are loaded before the first is used.
 * DIGEST  Both lanes of NH in registers of each thread, added up by shuffles once for each record.
 *         The PRF of up to 32 records of a block is computed at the end, a record by a lane, since it
 *         is long and serial. The last block that ends writes the frame's sums.
 * COST    NH takes two 32 x 32 + 64 multiply-adds and four additions for 8 bytes: at 64 a clock and SM
 *         that is 0.3 us for each MiB on a whole H100 for the multiplications, a twentieth of the
 *         time of copying.
 * BYTES   (record bytes + pool bytes of the same rows) of all records.
 * FIGURES H100 SXM, 2026-11-24, 8,192 tokens of a layer, 8 heads of 128, cold: pack bf16 28.7 us, 2,340 GB/s;
 *         bf16 to fp8 28.2 us; fp8 18.1 us; unpack bf16 29.0 us; fp8 to bf16 24.2 us; fp8 17.6 us.
 *         512 tokens: 6.2, 7.5, 6.2; 6.2, 6.1, 5.8 us. `gpu-check --only kv_pack --bench`.
 * TRIED   More blocks than are resident: 10 % slower. Half or a quarter of the resident threads: 10 to
 *         40 % slower, as fewer loads are in flight. Blocks of 512 threads: 5 to 20 % slower. */
extern "C" {
#include "kernels/kv_pack/kv_pack_cuda.h"
}

#include "kernels/kv_pack/kv_codes.cuh"

#include <assert.h>
#include <string.h>

namespace
{

constexpr int THREADS_MAX = 512, WARPS_MAX = THREADS_MAX / 32, UNROLL = 4;
constexpr unsigned RUN = BT_RUN_TOKENS, PRF_BATCH = 32;
constexpr uint32_t RESIDENT_THREADS = 132 * 1024; /* of an H100 at 64 registers */

/* A frame as the kernels see it. */
struct frame {
    uint8_t *pool; /* of the layer */
    const uint32_t *blocks;
    uint8_t *records;
    const uint32_t *key;
    bt_kv_pack_cuda_work *work;
    uint64_t *ret_digest;
    uint64_t prf[2];
    size_t block_bytes;                         /* from block to block of the pool */
    uint32_t head_bytes, part_bytes, scales_at; /* of the pool; scales of a head */
    uint32_t count, record_bytes, codes_bytes;  /* of records */
    uint32_t layer, run_first, head_first, head_count, token_end;
    uint32_t head_dim, block_tokens, tokens_shift;
};

/* What a block works on. */
struct record {
    uint32_t head, run, part, rows;
    uint32_t blocks[RUN / 16]; /* of the pool; the last valid one again beyond it */
    uint8_t *pool;             /* its head in block 0 of the pool */
    uint8_t *wire;
};

__device__ __forceinline__ record record_at(const frame &f, uint32_t index)
{
    record r;
    r.part = index % 2;
    r.head = f.head_first + index / 2 % f.head_count;
    r.run = f.run_first + index / 2 / f.head_count;
    r.rows = min(f.token_end - r.run * RUN, RUN);
    r.pool = f.pool + r.part * (size_t)f.part_bytes + r.head * (size_t)f.head_bytes;
    r.wire = f.records + (size_t)index * f.record_bytes;
    return r;
}

__device__ __forceinline__ void load_blocks(const frame &f, record &r)
{
    const uint32_t *table = f.blocks + (r.run * RUN >> f.tokens_shift);
    uint32_t last = (r.rows - 1) >> f.tokens_shift;
#pragma unroll
    for (uint32_t i = 0; i < RUN / 16; i++) r.blocks[i] = __ldg(table + min(i, last));
}

/* The record's head in the i-th block of its run. */
__device__ __forceinline__ uint8_t *head_at(const frame &f, const record &r, uint32_t i)
{
    uint32_t block = i == 0 ? r.blocks[0] : r.blocks[1];
    block = i < 2 ? block : i == 2 ? r.blocks[2] : r.blocks[3];
    return r.pool + block * f.block_bytes;
}

/* --- memory --- */

/* Each load happens once: what a hostile peer writes meanwhile is seen by all uses or by none. */
__device__ __forceinline__ uint4 load16(const void *p)
{
    uint4 v;
    asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}

/* WORDS words, 2, 4 or 8, once as above. */
template <int WORDS> __device__ __forceinline__ void load_words(const uint8_t *p, uint32_t *w)
{
    if constexpr (WORDS == 2) {
        asm volatile("ld.relaxed.sys.global.v2.u32 {%0, %1}, [%2];"
                     : "=r"(w[0]), "=r"(w[1])
                     : "l"(p)
                     : "memory");
    } else {
#pragma unroll
        for (int i = 0; i < WORDS; i += 4) {
            uint4 v = load16(p + 4 * i);
            w[i] = v.x, w[i + 1] = v.y, w[i + 2] = v.z, w[i + 3] = v.w;
        }
    }
}

template <int WORDS> __device__ __forceinline__ void store_words(uint8_t *p, const uint32_t *w)
{
    if constexpr (WORDS == 2) {
        *(uint2 *)p = make_uint2(w[0], w[1]);
    } else {
#pragma unroll
        for (int i = 0; i < WORDS; i += 4)
            *(uint4 *)(p + 4 * i) = make_uint4(w[i], w[i + 1], w[i + 2], w[i + 3]);
    }
}

/* --- digest --- */

struct nh_sums {
    uint64_t lane[2];
};

/* A pair of the record's words; key: from its first word on. */
__device__ __forceinline__ void nh_pair(nh_sums &nh, uint32_t low, uint32_t high, uint2 key,
                                        uint2 shifted)
{
    nh.lane[0] += (uint64_t)(low + key.x) * (high + key.y);
    nh.lane[1] += (uint64_t)(low + shifted.x) * (high + shifted.y);
}

/* Word w of the record on: 2, or a multiple of 4 from a multiple of 4. */
template <int WORDS>
__device__ __forceinline__ void nh_add(nh_sums &nh, const uint32_t *v, const uint32_t *key)
{
    if constexpr (WORDS == 2) {
        uint2 a = __ldg((const uint2 *)key), b = __ldg((const uint2 *)(key + 4));
        nh_pair(nh, v[0], v[1], a, b);
    } else {
        uint4 a = __ldg((const uint4 *)key);
#pragma unroll
        for (int i = 0; i < WORDS; i += 4) {
            uint4 b = __ldg((const uint4 *)(key + i + 4));
            nh_pair(nh, v[i], v[i + 1], make_uint2(a.x, a.y), make_uint2(b.x, b.y));
            nh_pair(nh, v[i + 2], v[i + 3], make_uint2(a.z, a.w), make_uint2(b.z, b.w));
            a = b;
        }
    }
}

__device__ __forceinline__ void nh_add16(nh_sums &nh, uint4 v, const uint32_t *key)
{
    uint32_t w[4] = {v.x, v.y, v.z, v.w};
    nh_add<4>(nh, w, key);
}

__device__ __forceinline__ nh_sums lanes_add(nh_sums nh)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        nh.lane[0] += __shfl_xor_sync(~0u, nh.lane[0], step);
        nh.lane[1] += __shfl_xor_sync(~0u, nh.lane[1], step);
    }
    return nh;
}

__device__ __forceinline__ uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

struct sip_state {
    uint64_t v[4];
};

__device__ __forceinline__ void sip_rounds(sip_state &s, int count)
{
#pragma unroll 1
    for (int i = 0; i < count; i++) {
        s.v[0] += s.v[1], s.v[2] += s.v[3];
        s.v[1] = rotate(s.v[1], 13) ^ s.v[0], s.v[3] = rotate(s.v[3], 16) ^ s.v[2];
        s.v[0] = rotate(s.v[0], 32);
        s.v[2] += s.v[1], s.v[0] += s.v[3];
        s.v[1] = rotate(s.v[1], 17) ^ s.v[2], s.v[3] = rotate(s.v[3], 21) ^ s.v[0];
        s.v[2] = rotate(s.v[2], 32);
    }
}

/* SipHash-2-4 with 128 bits of the 40 bytes that bt_kv_pack ties to a record. */
__device__ nh_sums place_prf(const frame &f, uint32_t index, nh_sums nh)
{
    record r = record_at(f, index);
    uint64_t words[6] = {nh.lane[0],
                         nh.lane[1],
                         (uint64_t)f.layer << 32 | f.record_bytes,
                         (uint64_t)r.run << 32 | r.head,
                         r.part,
                         40ull << 56};
    sip_state s = {{f.prf[0] ^ 0x736f6d6570736575ull, f.prf[1] ^ 0x646f72616e646f6dull ^ 0xee,
                    f.prf[0] ^ 0x6c7967656e657261ull, f.prf[1] ^ 0x7465646279746573ull}};
#pragma unroll
    for (int i = 0; i < 6; i++) {
        s.v[3] ^= words[i];
        sip_rounds(s, 2);
        s.v[0] ^= words[i];
    }
    nh_sums out;
    s.v[2] ^= 0xee;
    sip_rounds(s, 4);
    out.lane[0] = s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
    s.v[1] ^= 0xdd;
    sip_rounds(s, 4);
    out.lane[1] = s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
    return out;
}

/* Sums of a block's records; of two records at a time, because warp 0 adds up one while the others
 * are in the next. */
struct digest_memory {
    nh_sums of_warp[2][WARPS_MAX];
    nh_sums of_record[PRF_BATCH];
    uint16_t scales[2][RUN];
};

/* In every thread, before the barrier of the record. */
__device__ __forceinline__ void digest_put(digest_memory &m, uint32_t turn, nh_sums nh)
{
    nh = lanes_add(nh);
    if (threadIdx.x % 32 == 0) m.of_warp[turn % 2][threadIdx.x / 32] = nh;
}

/* In warp 0, behind it. extra: what its lanes have more of the record. The PRF of the batch joins sum
 * when it is full or `last`. */
__device__ __forceinline__ void digest_take(const frame &f, digest_memory &m, uint32_t turn,
                                            nh_sums extra, bool last, nh_sums &sum)
{
    uint32_t lane = threadIdx.x, slot = turn % PRF_BATCH;
    if (lane < blockDim.x / 32) {
        extra.lane[0] += m.of_warp[turn % 2][lane].lane[0];
        extra.lane[1] += m.of_warp[turn % 2][lane].lane[1];
    }
    extra = lanes_add(extra);
    if (lane == 0) m.of_record[slot] = extra;
    if (!last && slot + 1 < PRF_BATCH) return;
    __syncwarp();
    if (lane > slot) return;
    nh_sums lanes = place_prf(f, blockIdx.x + (turn - slot + lane) * gridDim.x, m.of_record[lane]);
    sum.lane[0] += lanes.lane[0];
    sum.lane[1] += lanes.lane[1];
}

/* In warp 0 of each block, once: the last of all writes the frame's sums. */
__device__ void digest_end(const frame &f, nh_sums sum)
{
    sum = lanes_add(sum);
    if (threadIdx.x != 0) return;
    unsigned long long *lanes = (unsigned long long *)f.work->lane;
    atomicAdd(&lanes[0], sum.lane[0]);
    atomicAdd(&lanes[1], sum.lane[1]);
    uint32_t done;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
                 : "=r"(done)
                 : "l"(&f.work->blocks_done)
                 : "memory");
    if (done + 1 < gridDim.x) return;
    uint64_t total[2] = {atomicExch(&lanes[0], 0), atomicExch(&lanes[1], 0)};
    f.work->blocks_done = 0;
    f.ret_digest[0] = total[0];
    f.ret_digest[1] = total[1];
}

/* --- the same dtype on both sides --- */

/* Where chunk c of a record's codes lies in the pool. */
__device__ __forceinline__ uint8_t *chunk_at(const frame &f, const record &r, uint32_t c)
{
    uint32_t of_block = f.scales_at / 16; /* chunks of codes */
    uint32_t block = (c >= of_block) + (c >= 2 * of_block) + (c >= 3 * of_block);
    return head_at(f, r, block) + (c - block * of_block) * 16;
}

/* The scales of rows 8 j to 8 j + 7. */
__device__ __forceinline__ uint8_t *scales_at(const frame &f, const record &r, uint32_t j)
{
    uint32_t row = 8 * j;
    return head_at(f, r, row >> f.tokens_shift) + f.scales_at + (row & (f.block_tokens - 1)) * 2;
}

/* The first `halves` of eight, zero the others. */
__device__ __forceinline__ uint4 first_halves(uint4 v, uint32_t halves)
{
    uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        w[i] = halves >= 2 * i + 2 ? w[i] : halves == 2 * i + 1 ? w[i] & 0xffffu : 0;
    return make_uint4(w[0], w[1], w[2], w[3]);
}

/* Chunk j of eight scales of a record, by lane j of warp 0. */
template <bool PACK>
__device__ __forceinline__ void copy_scales(const frame &f, const record &r, uint32_t j,
                                            nh_sums &nh)
{
    uint32_t valid = r.rows > 8 * j ? min(r.rows - 8 * j, 8u) : 0;
    uint8_t *wire = r.wire + f.codes_bytes + 16 * j;
    uint4 v = make_uint4(0, 0, 0, 0);
    if (!PACK)
        v = load16(wire);
    else if (valid > 0)
        v = first_halves(load16(scales_at(f, r, j)), valid);
    nh_add16(nh, v, f.key + (f.codes_bytes + 16 * j) / 4);
    if (PACK) {
        *(uint4 *)wire = v;
    } else if (valid == 8) {
        *(uint4 *)scales_at(f, r, j) = v;
    } else if (valid > 0) {
        uint16_t *pool = (uint16_t *)scales_at(f, r, j);
        const uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (uint32_t i = 0; i < 8; i++)
            if (i < valid) pool[i] = (uint16_t)(w[i / 2] >> (i % 2 * 16));
    }
}

template <bool PACK>
__device__ __forceinline__ void copy_chunks(const frame &f, const record &r, uint32_t first,
                                            uint32_t end, uint32_t valid, nh_sums &nh)
{
    uint4 v[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        uint32_t c = min(first + u * blockDim.x, (PACK ? valid : end) - 1);
        v[u] = load16(PACK ? chunk_at(f, r, c) : r.wire + 16 * (size_t)c);
    }
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        uint32_t c = first + u * blockDim.x;
        if (c >= end) break;
        if (PACK && c >= valid) v[u] = make_uint4(0, 0, 0, 0);
        nh_add16(nh, v[u], f.key + 4 * c);
        if (PACK)
            *(uint4 *)(r.wire + 16 * (size_t)c) = v[u];
        else if (c < valid)
            *(uint4 *)chunk_at(f, r, c) = v[u];
    }
}

template <bool PACK> __global__ void __launch_bounds__(THREADS_MAX, 2) copy_frame(frame f)
{
    __shared__ digest_memory memory;
    nh_sums sum = {};
    uint32_t turn = 0, end = f.codes_bytes / 16;
    for (uint32_t index = blockIdx.x; index < f.count; index += gridDim.x, turn++) {
        record r = record_at(f, index);
        load_blocks(f, r);
        uint32_t valid = end / RUN * r.rows;
        nh_sums nh = {};
        if (f.codes_bytes < f.record_bytes && threadIdx.x < RUN / 8)
            copy_scales<PACK>(f, r, threadIdx.x, nh);
        for (uint32_t c = threadIdx.x; c < end; c += UNROLL * blockDim.x)
            copy_chunks<PACK>(f, r, c, end, valid, nh);
        digest_put(memory, turn, nh);
        __syncthreads();
        if (threadIdx.x < 32)
            digest_take(f, memory, turn, nh_sums{}, f.count - index <= gridDim.x, sum);
    }
    if (threadIdx.x < 32) digest_end(f, sum);
}

/* --- from one dtype to another --- */

/* Row `row` of the pool, from its value `at` on. */
template <int WORDS>
__device__ __forceinline__ uint8_t *row_at(const frame &f, const record &r, uint32_t row,
                                           uint32_t at)
{
    uint32_t in_block = row & (f.block_tokens - 1);
    return head_at(f, r, row >> f.tokens_shift) + (in_block * f.head_dim + at) * (WORDS / 2);
}

__device__ __forceinline__ uint16_t *scale_at(const frame &f, const record &r, uint32_t row)
{
    uint32_t in_block = row & (f.block_tokens - 1);
    return (uint16_t *)(head_at(f, r, row >> f.tokens_shift) + f.scales_at) + in_block;
}

/* The maximum of the lanes that share a row, 8, 16 or 32 of them. */
__device__ __forceinline__ float row_max(float x, uint32_t lanes)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 4));
    if (lanes > 8) x = fmaxf(x, __shfl_xor_sync(~0u, x, 8));
    if (lanes > 16) x = fmaxf(x, __shfl_xor_sync(~0u, x, 16));
    return x;
}

/* The share of a thread: eight values of a row. Where a row is no power of two of eights, the lanes
 * beyond its end are not active and hold its last share. */
struct share {
    uint32_t row, at;
    bool active;
};

/* Eight codes of A to eight of B; the row's scale of B to ret_scale, by all of its lanes. */
template <bt_dtype A, bt_dtype B>
__device__ __forceinline__ void convert8(const uint32_t *in, float scale, uint32_t lanes,
                                         uint32_t *out, uint16_t *ret_scale)
{
    using from = kv_codes<A>;
    using to = kv_codes<B>;
    float v[8];
    from::decode(in, scale, v);
    bool odd = from::odd(in);
    bt_divider by = {1, 1};
    *ret_scale = 0;
    if constexpr (to::SCALED) {
        *ret_scale = bt_row_scale(row_max(from::peak(in, v, odd), lanes), to::LARGEST);
        by = bt_divider_of(*ret_scale);
    }
    to::encode(v, by, odd, out);
}

/* Packs UNROLL shares; A is the pool's, B the wire's. Scales of rows go to `scales`. */
template <bt_dtype A, bt_dtype B>
__device__ __forceinline__ void pack_shares(const frame &f, const record &r, const share *s,
                                            uint32_t lanes, uint16_t *scales, nh_sums &nh)
{
    using from = kv_codes<A>;
    using to = kv_codes<B>;
    uint32_t in[UNROLL][from::WORDS];
    uint16_t scale[UNROLL] = {};
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        uint32_t row = min(s[u].row, r.rows - 1);
        load_words<from::WORDS>(row_at<from::WORDS>(f, r, row, s[u].at), in[u]);
        if (from::SCALED) scale[u] = *scale_at(f, r, row);
    }
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        if (s[u].row >= RUN) break; /* the same for the whole block */
        uint32_t out[to::WORDS];
        uint16_t row_scale;
        if (s[u].row >= r.rows) scale[u] = 0;
#pragma unroll
        for (int i = 0; i < from::WORDS; i++) in[u][i] = s[u].row < r.rows ? in[u][i] : 0;
        convert8<A, B>(in[u], bt_f16_value(scale[u]), lanes, out, &row_scale);
        if (!s[u].active) continue;
        uint32_t word = (s[u].row * f.head_dim + s[u].at) / 8 * to::WORDS;
        nh_add<to::WORDS>(nh, out, f.key + word);
        store_words<to::WORDS>(r.wire + 4 * (size_t)word, out);
        if (to::SCALED && s[u].at == 0) scales[s[u].row] = row_scale;
    }
}

/* Unpacks as many; A is the wire's, B the pool's. The first time, the scales that arrived go to
 * `scales` by warp 0 and are there behind the barrier. */
template <bt_dtype A, bt_dtype B>
__device__ __forceinline__ void unpack_shares(const frame &f, const record &r, const share *s,
                                              uint32_t lanes, bool first, uint16_t *scales,
                                              nh_sums &nh)
{
    using from = kv_codes<A>;
    using to = kv_codes<B>;
    uint32_t in[UNROLL][from::WORDS];
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        uint32_t word = (min(s[u].row, RUN - 1) * f.head_dim + s[u].at) / 8 * from::WORDS;
        load_words<from::WORDS>(r.wire + 4 * (size_t)word, in[u]);
    }
    if (from::SCALED && first) {
        if (threadIdx.x < RUN / 8) {
            uint4 v = load16(r.wire + f.codes_bytes + 16 * threadIdx.x);
            nh_add16(nh, v, f.key + f.codes_bytes / 4 + 4 * threadIdx.x);
            ((uint4 *)scales)[threadIdx.x] = v;
        }
        __syncthreads();
    }
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        if (s[u].row >= RUN) break; /* the same for the whole block */
        uint32_t out[to::WORDS];
        uint16_t row_scale;
        float scale = from::SCALED ? bt_f16_value(scales[s[u].row]) : 0;
        convert8<A, B>(in[u], scale, lanes, out, &row_scale);
        if (!s[u].active) continue;
        uint32_t word = (s[u].row * f.head_dim + s[u].at) / 8 * from::WORDS;
        nh_add<from::WORDS>(nh, in[u], f.key + word);
        if (s[u].row >= r.rows) continue;
        store_words<to::WORDS>(row_at<to::WORDS>(f, r, s[u].row, s[u].at), out);
        if (to::SCALED && s[u].at == 0) *scale_at(f, r, s[u].row) = row_scale;
    }
}

template <bt_dtype A, bt_dtype B, bool PACK>
__global__ void __launch_bounds__(THREADS_MAX, 2) convert_frame(frame f)
{
    __shared__ digest_memory memory;
    nh_sums sum = {};
    uint32_t lanes = f.head_dim <= 64 ? 8 : f.head_dim <= 128 ? 16 : 32;
    uint32_t rows = blockDim.x / lanes, at = threadIdx.x % lanes * 8, turn = 0;
    for (uint32_t index = blockIdx.x; index < f.count; index += gridDim.x, turn++) {
        record r = record_at(f, index);
        load_blocks(f, r);
        nh_sums nh = {}, extra = {};
        uint16_t *scales = memory.scales[turn % 2];
        for (uint32_t first = 0; first < RUN; first += UNROLL * rows) {
            share s[UNROLL];
#pragma unroll
            for (int u = 0; u < UNROLL; u++)
                s[u] = {first + u * rows + threadIdx.x / lanes, min(at, f.head_dim - 8),
                        at < f.head_dim};
            if (PACK)
                pack_shares<A, B>(f, r, s, lanes, scales, nh);
            else
                unpack_shares<A, B>(f, r, s, lanes, first == 0, scales, nh);
        }
        digest_put(memory, turn, nh);
        __syncthreads();
        if (threadIdx.x >= 32) continue;
        if (PACK && kv_codes<B>::SCALED && threadIdx.x < RUN / 8) {
            uint4 v = ((const uint4 *)scales)[threadIdx.x];
            nh_add16(extra, v, f.key + f.codes_bytes / 4 + 4 * threadIdx.x);
            *(uint4 *)(r.wire + f.codes_bytes + 16 * threadIdx.x) = v;
        }
        digest_take(f, memory, turn, extra, f.count - index <= gridDim.x, sum);
    }
    if (threadIdx.x < 32) digest_end(f, sum);
}

/* --- the host's side --- */

typedef void (*kernel)(frame);

template <bt_dtype A, bool PACK> kernel kernel_to(bt_dtype b)
{
    switch (b) {
    case BT_DTYPE_F32:
        if constexpr (A != BT_DTYPE_F32) return convert_frame<A, BT_DTYPE_F32, PACK>;
        break;
    case BT_DTYPE_BF16:
        if constexpr (A != BT_DTYPE_BF16) return convert_frame<A, BT_DTYPE_BF16, PACK>;
        break;
    case BT_DTYPE_FP8_E4M3:
        if constexpr (A != BT_DTYPE_FP8_E4M3) return convert_frame<A, BT_DTYPE_FP8_E4M3, PACK>;
        break;
    case BT_DTYPE_INT8:
        if constexpr (A != BT_DTYPE_INT8) return convert_frame<A, BT_DTYPE_INT8, PACK>;
        break;
    default: break;
    }
    return copy_frame<PACK>;
}

template <bool PACK> kernel kernel_of(bt_dtype from, bt_dtype to)
{
    switch (from) {
    case BT_DTYPE_F32: return kernel_to<BT_DTYPE_F32, PACK>(to);
    case BT_DTYPE_BF16: return kernel_to<BT_DTYPE_BF16, PACK>(to);
    case BT_DTYPE_FP8_E4M3: return kernel_to<BT_DTYPE_FP8_E4M3, PACK>(to);
    case BT_DTYPE_INT8: return kernel_to<BT_DTYPE_INT8, PACK>(to);
    default: return NULL;
    }
}

void check(const bt_kv_frame_cuda *op)
{
    const bt_kv_shape *shape = &op->kv.shape;
    assert(shape->head_dim % 16 == 0 && shape->head_dim > 0 && shape->head_dim <= BT_HEAD_DIM_MAX);
    assert(shape->block_tokens == 16 || shape->block_tokens == 32 || shape->block_tokens == 64);
    assert(op->layer < shape->layers && op->head_count > 0 && op->run_count > 0);
    assert(op->head_first + op->head_count <= shape->kv_heads);
    assert(op->token_end > (op->run_first + op->run_count - 1) * RUN);
    assert(op->token_end <= (op->run_first + op->run_count) * RUN);
    (void)shape;
}

frame frame_of(const bt_kv_frame_cuda *op)
{
    const bt_kv_shape *shape = &op->kv.shape;
    frame f = {};
    f.pool = bt_kv_at(&op->kv, 0, op->layer, BT_KV_K, 0);
    f.blocks = op->blocks;
    f.records = op->records;
    f.key = op->key_words;
    f.work = op->work;
    f.ret_digest = op->ret_digest;
    memcpy(f.prf, op->key_prf, sizeof(f.prf));
    f.block_bytes = bt_kv_block_bytes(shape);
    f.scales_at = (uint32_t)bt_kv_codes_bytes(shape);
    f.head_bytes = f.scales_at + (uint32_t)bt_kv_scales_bytes(shape);
    f.part_bytes = f.head_bytes * shape->kv_heads;
    f.count = op->run_count * op->head_count * 2;
    f.record_bytes = (uint32_t)bt_kv_record_bytes(op->wire, shape->head_dim);
    f.codes_bytes = RUN * shape->head_dim * (uint32_t)bt_dtype_bytes(op->wire);
    f.layer = op->layer;
    f.run_first = op->run_first;
    f.head_first = op->head_first;
    f.head_count = op->head_count;
    f.token_end = op->token_end;
    f.head_dim = shape->head_dim;
    f.block_tokens = shape->block_tokens;
    f.tokens_shift = shape->block_tokens == 16 ? 4 : shape->block_tokens == 32 ? 5 : 6;
    return f;
}

/* So many that UNROLL shares of each make a record, if that is possible. */
uint32_t threads_of(const bt_kv_frame_cuda *op, const frame &f)
{
    uint32_t shares = RUN * (f.head_dim <= 64 ? 8 : f.head_dim <= 128 ? 16 : 32);
    if (op->kv.shape.dtype == op->wire) shares = f.codes_bytes / 16;
    uint32_t threads = (shares / UNROLL + 31) & ~31u;
    return threads < 64 ? 64 : threads > THREADS_MAX ? THREADS_MAX : threads;
}

bt_status launch(kernel run, const bt_kv_frame_cuda *op, const char *what, cudaStream_t stream,
                 bt_err *err)
{
    check(op);
    assert(run);
    frame f = frame_of(op);
    uint32_t threads = threads_of(op, f), blocks = RESIDENT_THREADS / threads;
    if (blocks > f.count) blocks = f.count;
    run<<<blocks, threads, 0, stream>>>(f);
    return bt_cuda_launched(what, err);
}

} // namespace

extern "C" bt_status bt_kv_pack_cuda(const bt_kv_frame_cuda *op, cudaStream_t stream, bt_err *err)
{
    return launch(kernel_of<true>(op->kv.shape.dtype, op->wire), op, "kv_pack", stream, err);
}

extern "C" bt_status bt_kv_unpack_cuda(const bt_kv_frame_cuda *op, cudaStream_t stream, bt_err *err)
{
    return launch(kernel_of<false>(op->wire, op->kv.shape.dtype), op, "kv_unpack", stream, err);
}
