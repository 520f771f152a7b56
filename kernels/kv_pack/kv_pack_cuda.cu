/* kv_pack_cuda.cu - see kv_pack_cuda.h.
 *
 * SHAPE   A tile is what a warp loads at once: UNROLL shares of each lane. Between two dtypes that are the
 *         same a share is 16 bytes of the record; between others it is eight codes of a row, whose row is
 *         converted by the 8, 16 or 32 lanes that hold it. Warps take the tiles of their block's records
 *         in turn and wait for nobody, so that some load while others store.
 * DIGEST  Both lanes of NH in registers of each thread, added up by shuffles for each tile and kept in
 *         shared memory. For each BATCH of records, their PRFs are computed together, a record by a
 *         lane, since a PRF is long and serial. The last block that ends writes the frame's sums.
 * KEY     In shared memory, fetched by the copy engine while the first tiles are on their way.
 * EARLY   With arch >= 90 a block may start while the launch before still ends, and waits for it.
 * COST    NH takes two 32 x 32 + 64 multiply-adds and four additions for 8 bytes: at 64 a clock and SM
 *         that is 0.3 us for each 16 MiB of an H100's multiplier, a hundredth of the time of copying.
 * BYTES   (record bytes + pool bytes of the same rows) of all records.
 * FIGURES H100 SXM, 2026-11-24, copying 2,842 GB/s. A layer, 8 heads of 128, cold, in us and % of copying:
 *                          8,192 tokens   16,384 tokens   512 tokens
 *         pack bf16          28.6   83      53.7   88        5.6
 *         pack bf16 to fp8   23.2   77      41.3   86        5.9
 *         pack fp8           17.1   70      30.1   80        5.0
 *         unpack bf16        29.5   80      54.5   87        5.7
 *         unpack fp8 to bf16 24.2   74      43.9   81        4.9
 *         unpack fp8         16.8   71      30.7   78        4.9
 *         About 4 us of each are start and end of a launch, and 1.4 us the digest's: 0.6 the PRF, 0.3 the
 *         frame's sums, the rest NH. 12 to 14 us from the launch of 512 tokens to the digest at the host.
 *         `gpu-check --only kv_pack --bench`.
 * TRIED   A barrier for each record instead of tiles that wait for nobody: 8 % slower where scales are
 *         made. A scale made by each lane for its own row, 64 more instructions a share: 10 % slower. Keys
 *         read through the first cache, and scales loaded before the tile: 0.6 us more. More blocks than are resident: 3 to 90 % slower.
 *         Atomics without a fence: 0.1 us less, not worth an argument about order. */
extern "C" {
#include "kernels/kv_pack/kv_pack_cuda.h"
}

#include "kernels/kv_pack/kv_codes.cuh"
#include "kernels/kv_pack/kv_frame.cuh"

#include <assert.h>
#include <string.h>

namespace
{

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

/* Eight scales of a record from chunk j of them on. */
template <bool PACK>
__device__ __forceinline__ uint4 load_scales(const frame &f, const record &r, uint32_t j)
{
    if (!PACK) return load16(r.wire + f.codes_bytes + 16 * j);
    if (r.rows <= 8 * j) return make_uint4(0, 0, 0, 0);
    return first_halves(load16(scales_at(f, r, j)), min(r.rows - 8 * j, 8u));
}

template <bool PACK>
__device__ __forceinline__ void copy_scales(const frame &f, const record &r, uint32_t j, uint4 v,
                                            nh_sums &nh)
{
    nh_add16(nh, v, key_memory + (f.codes_bytes + 16 * j) / 4);
    if (PACK) {
        *(uint4 *)(r.wire + f.codes_bytes + 16 * j) = v;
    } else if (r.rows >= 8 * j + 8) {
        *(uint4 *)scales_at(f, r, j) = v;
    } else if (r.rows > 8 * j) {
        uint16_t *pool = (uint16_t *)scales_at(f, r, j);
        const uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (uint32_t i = 0; i < 8; i++)
            if (8 * j + i < r.rows) pool[i] = (uint16_t)(w[i / 2] >> (i % 2 * 16));
    }
}

template <bool PACK>
__device__ __forceinline__ nh_sums copy_tile(const frame &f, const digest_memory &m,
                                             const record &r, uint32_t tile)
{
    uint32_t end = f.codes_bytes / 16, valid = end / RUN * r.rows, lane = threadIdx.x % 32;
    uint32_t first = tile * UNROLL * 32 + lane;
    bool scales = tile == 0 && f.codes_bytes < f.record_bytes && lane < RUN / 8;
    uint4 v[UNROLL], of_scales;
    uint8_t *pool[UNROLL];
    nh_sums nh = {};
#pragma unroll
    for (int u = 0; u < UNROLL; u++) pool[u] = chunk_at(f, r, min(first + 32 * u, valid - 1));
#pragma unroll
    for (int u = 0; u < UNROLL; u++)
        v[u] = load16(PACK ? pool[u] : r.wire + 16 * min(first + 32 * u, end - 1));
    if (scales) of_scales = load_scales<PACK>(f, r, lane);
    key_wait(m);
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        uint32_t c = first + 32 * u;
        if (c >= end) break;
        if (PACK && c >= valid) v[u] = make_uint4(0, 0, 0, 0);
        nh_add16(nh, v[u], key_memory + 4 * c);
        if (PACK)
            *(uint4 *)(r.wire + 16 * c) = v[u];
        else if (c < valid)
            *(uint4 *)pool[u] = v[u];
    }
    if (scales) copy_scales<PACK>(f, r, lane, of_scales, nh);
    return nh;
}

template <bool PACK> __global__ void __launch_bounds__(THREADS, 2) copy_frame(frame f)
{
    __shared__ digest_memory memory;
    walk(f, memory,
         [&](const record &r, uint32_t tile) { return copy_tile<PACK>(f, memory, r, tile); });
}

/* --- from one dtype to another --- */

/* A warp's tile of rows and this lane's place in it. Tiles lie within a block of the pool. Where a row
 * is no power of two of eights, the lanes beyond its end are not active and hold its last share. */
struct tile_of_rows {
    uint32_t lanes;         /* of a row, 8, 16 or 32 */
    uint32_t first, rows;   /* of the run; how many of the tile are valid, 0 too */
    uint32_t row, row_step; /* of the first share, in the tile; to the next share */
    uint32_t at;            /* value in the row */
    bool active;
    uint8_t *pool;        /* first row of the tile, if one is valid */
    uint16_t *pool_scale; /* the same */
    uint16_t *scales;     /* [TILE_ROWS_MAX] of the warp */
};

template <int POOL_WORDS>
__device__ __forceinline__ tile_of_rows rows_of(const frame &f, digest_memory &m, const record &r,
                                                uint32_t tile)
{
    tile_of_rows t;
    uint32_t lane = threadIdx.x % 32;
    t.lanes = f.head_dim <= 64 ? 8 : f.head_dim <= 128 ? 16 : 32;
    t.row_step = 32 / t.lanes;
    t.first = tile * UNROLL * t.row_step;
    t.rows = r.rows > t.first ? min(r.rows - t.first, UNROLL * t.row_step) : 0;
    t.row = lane / t.lanes;
    uint32_t at = lane % t.lanes * 8;
    t.active = at < f.head_dim;
    t.at = min(at, f.head_dim - 8);
    t.scales = m.scales[threadIdx.x / 32];
    t.pool = NULL;
    t.pool_scale = NULL;
    if (t.rows == 0) return t;
    uint8_t *head = head_at(f, r, t.first >> f.tokens_shift);
    uint32_t in_block = t.first & (f.block_tokens - 1);
    t.pool = head + in_block * f.head_dim * (POOL_WORDS / 2);
    t.pool_scale = (uint16_t *)(head + f.scales_at) + in_block;
    return t;
}

/* Lanes that hold four rows' scales each. */
__device__ __forceinline__ bool has_scales(const tile_of_rows &t)
{
    return threadIdx.x % 32 < t.row_step;
}

__device__ __forceinline__ uint32_t scales_word(const frame &f, const tile_of_rows &t)
{
    return f.codes_bytes / 4 + t.first / 2 + threadIdx.x % 32 * 2;
}

/* The scales of UNROLL rows, the one of share u in ret_by[u], from the peaks of this lane's shares. The
 * lanes of a row share the work: each makes the scale of one row, whose share is returned; `owner`: one
 * lane of those that made the same. */
template <bt_dtype B>
__device__ __forceinline__ uint32_t scales_of_rows(const tile_of_rows &t, const float *peak,
                                                   kv_scale *ret_by, uint16_t *ret_code,
                                                   bool *ret_owner)
{
    static_assert(UNROLL == 4, "two halvings");
    uint32_t lane = threadIdx.x % 32, half = t.lanes / 2, quarter = t.lanes / 4;
    bool up = lane & half, mid = lane & quarter;
    float a = up ? peak[2] : peak[0], b = up ? peak[3] : peak[1];
    a = fmaxf(a, __shfl_xor_sync(~0u, up ? peak[0] : peak[2], half));
    b = fmaxf(b, __shfl_xor_sync(~0u, up ? peak[1] : peak[3], half));
    float most = fmaxf(mid ? b : a, __shfl_xor_sync(~0u, mid ? a : b, quarter));
    for (uint32_t step = quarter / 2; step > 0; step /= 2)
        most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    kv_scale mine = kv_scale_of<B>(most);
    uint32_t group = lane & ~(t.lanes - 1);
#pragma unroll
    for (uint32_t u = 0; u < UNROLL; u++) {
        uint32_t from = group + (u & 2 ? half : 0) + (u & 1 ? quarter : 0);
        ret_by[u].value = __shfl_sync(~0u, mine.value, from);
        ret_by[u].inverse = __shfl_sync(~0u, mine.inverse, from);
    }
    *ret_code = mine.code;
    *ret_owner = (lane & (quarter - 1)) == 0;
    return 2 * up + mid;
}

/* What converts the shares of a tile: all at once to scales, then one by one to codes. */
template <bt_dtype A, bt_dtype B> struct converter {
    kv_scale by[UNROLL];
    uint16_t code; /* of the row `row` of the tile, if owner */
    uint32_t row;
    bool owner, odd;

    __device__ __forceinline__ converter(const tile_of_rows &t,
                                         const uint32_t in[UNROLL][kv_codes<A>::WORDS],
                                         const float *scale)
    {
        owner = false;
        if constexpr (!kv_codes<B>::SCALED) {
            odd = false;
#pragma unroll
            for (int u = 0; u < UNROLL; u++) odd |= kv_codes<A>::odd(in[u]);
        } else {
            float peak[UNROLL], most = 0;
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
                peak[u] = kv_codes<A>::peak(in[u], scale[u]);
                most = kv_larger(most, peak[u]);
            }
            odd = !(most < __uint_as_float(0x7f800000u));
            if (odd) {
#pragma unroll
                for (int u = 0; u < UNROLL; u++) {
                    float v[8];
                    kv_codes<A>::template decode<true>(in[u], scale[u], v);
                    peak[u] = kv_any_peak(v);
                }
            }
            row = t.row + scales_of_rows<B>(t, peak, by, &code, &owner) * t.row_step;
        }
    }

    template <bool ODD>
    __device__ __forceinline__ void encode(const uint32_t *in, float scale, int u, uint32_t *out)
    {
        float v[8];
        kv_codes<A>::template decode<ODD>(in, scale, v);
        kv_codes<B>::template encode<ODD>(v, by[u], out);
    }
};

/* Converts, digests and stores the shares; `word`: of the first in the record. */
template <bool ODD, bt_dtype A, bt_dtype B>
__device__ __forceinline__ void
pack_shares(const frame &f, const record &r, const tile_of_rows &t, converter<A, B> &c,
            const uint32_t in[UNROLL][kv_codes<A>::WORDS], const float *scale, nh_sums &nh)
{
    constexpr int OUT = kv_codes<B>::WORDS;
    uint32_t word = ((t.first + t.row) * f.head_dim + t.at) / 8 * OUT;
    uint32_t step = t.row_step * f.head_dim / 8 * OUT;
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        uint32_t out[OUT];
        c.template encode<ODD>(in[u], scale[u], u, out);
        nh_add<OUT>(nh, out, key_memory + word + u * step);
        store_words<OUT>(r.wire + 4 * (word + u * step), out);
    }
}

/* The tile's scales to the record. */
template <bt_dtype A, bt_dtype B>
__device__ __forceinline__ void pack_scales(const frame &f, const record &r, const tile_of_rows &t,
                                            const converter<A, B> &c, nh_sums &nh)
{
    if (c.owner) t.scales[c.row] = c.code;
    __syncwarp();
    if (has_scales(t)) {
        uint2 v = ((const uint2 *)t.scales)[threadIdx.x % 32];
        uint32_t word = scales_word(f, t), w[2] = {v.x, v.y};
        nh_add<2>(nh, w, key_memory + word);
        *(uint2 *)(r.wire + 4 * word) = v;
    }
    __syncwarp(); /* before the next tile's */
}

/* A is the pool's dtype, B the wire's. */
template <bt_dtype A, bt_dtype B>
__device__ __forceinline__ nh_sums pack_tile(const frame &f, const digest_memory &m,
                                             const record &r, const tile_of_rows &t)
{
    constexpr int IN = kv_codes<A>::WORDS;
    uint32_t in[UNROLL][IN] = {};
    float scale[UNROLL] = {};
    if (t.rows > 0) {
        const uint8_t *pool = t.pool + t.at * (IN / 2);
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            uint32_t row = min(t.row + u * t.row_step, t.rows - 1);
            load_words<IN>(pool + row * f.head_dim * (IN / 2), in[u]);
            if (kv_codes<A>::SCALED) scale[u] = bt_f16_value(t.pool_scale[row]);
        }
    }
    if (t.rows < UNROLL * t.row_step) {
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            if (t.row + u * t.row_step < t.rows) continue;
            scale[u] = 0;
#pragma unroll
            for (int i = 0; i < IN; i++) in[u][i] = 0;
        }
    }
    converter<A, B> c(t, in, scale);
    nh_sums nh = {};
    key_wait(m);
    if (kv_codes<B>::SCALED) pack_scales(f, r, t, c, nh);
    if (!t.active) return nh;
    if (c.odd)
        pack_shares<true>(f, r, t, c, in, scale, nh);
    else
        pack_shares<false>(f, r, t, c, in, scale, nh);
    return nh;
}

/* Converts the shares and stores those of valid rows. */
template <bool ODD, bt_dtype A, bt_dtype B>
__device__ __forceinline__ void
unpack_shares(const frame &f, const tile_of_rows &t, converter<A, B> &c,
              const uint32_t in[UNROLL][kv_codes<A>::WORDS], const float *scale)
{
    constexpr int OUT = kv_codes<B>::WORDS;
    uint8_t *pool = t.pool + t.at * (OUT / 2);
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        uint32_t out[OUT], row = t.row + u * t.row_step;
        c.template encode<ODD>(in[u], scale[u], u, out);
        if (row < t.rows) store_words<OUT>(pool + row * f.head_dim * (OUT / 2), out);
    }
}

/* The scales that arrived, `four` of them in some lanes, to those of this lane's shares. */
__device__ __forceinline__ void spread_scales(const tile_of_rows &t, const uint32_t *four,
                                              float *ret_scale)
{
    if (has_scales(t)) ((uint2 *)t.scales)[threadIdx.x % 32] = make_uint2(four[0], four[1]);
    __syncwarp();
#pragma unroll
    for (int u = 0; u < UNROLL; u++) ret_scale[u] = bt_f16_value(t.scales[t.row + u * t.row_step]);
    __syncwarp(); /* before the next tile's */
}

/* A is the wire's dtype, B the pool's. */
template <bt_dtype A, bt_dtype B>
__device__ __forceinline__ nh_sums unpack_tile(const frame &f, const digest_memory &m,
                                               const record &r, const tile_of_rows &t)
{
    constexpr int IN = kv_codes<A>::WORDS;
    uint32_t in[UNROLL][IN], four[2];
    float scale[UNROLL] = {};
    nh_sums nh = {};
    uint32_t word = ((t.first + t.row) * f.head_dim + t.at) / 8 * IN;
    uint32_t step = t.row_step * f.head_dim / 8 * IN;
    if (kv_codes<A>::SCALED && has_scales(t)) load_words<2>(r.wire + 4 * scales_word(f, t), four);
#pragma unroll
    for (int u = 0; u < UNROLL; u++) load_words<IN>(r.wire + 4 * (word + u * step), in[u]);
    key_wait(m);
    if (kv_codes<A>::SCALED) {
        if (has_scales(t)) nh_add<2>(nh, four, key_memory + scales_word(f, t));
        spread_scales(t, four, scale);
    }
    if (t.active) {
#pragma unroll
        for (int u = 0; u < UNROLL; u++) nh_add<IN>(nh, in[u], key_memory + word + u * step);
    }
    if (t.rows == 0) return nh;
    converter<A, B> c(t, in, scale);
    if (c.owner && c.row < t.rows) t.pool_scale[c.row] = c.code;
    if (!t.active) return nh;
    if (c.odd)
        unpack_shares<true>(f, t, c, in, scale);
    else
        unpack_shares<false>(f, t, c, in, scale);
    return nh;
}

template <bt_dtype A, bt_dtype B, bool PACK>
__global__ void __launch_bounds__(THREADS, 2) convert_frame(frame f)
{
    __shared__ digest_memory memory;
    walk(f, memory, [&](const record &r, uint32_t tile) {
        tile_of_rows t = rows_of<kv_codes<PACK ? A : B>::WORDS>(f, memory, r, tile);
        return PACK ? pack_tile<A, B>(f, memory, r, t) : unpack_tile<A, B>(f, memory, r, t);
    });
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

uint32_t reciprocal(uint32_t n)
{
    return ((1u << 31) + n - 1) / n;
}

/* Tiles of a record. */
uint32_t tiles_of(const bt_kv_frame_cuda *op, uint32_t codes_bytes)
{
    uint32_t dim = op->kv.shape.head_dim;
    if (op->kv.shape.dtype == op->wire) return (codes_bytes / 16 + UNROLL * 32 - 1) / (UNROLL * 32);
    return RUN / (UNROLL * (dim <= 64 ? 4 : dim <= 128 ? 2 : 1));
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
    f.heads_reciprocal = reciprocal(op->head_count);
    f.tiles = tiles_of(op, f.codes_bytes);
    f.tiles_reciprocal = reciprocal(f.tiles);
    f.head_dim = shape->head_dim;
    f.block_tokens = shape->block_tokens;
    f.tokens_shift = shape->block_tokens == 16 ? 4 : shape->block_tokens == 32 ? 5 : 6;
    return f;
}

bt_status launch(kernel run, const bt_kv_frame_cuda *op, const char *what, cudaStream_t stream,
                 bt_err *err)
{
    check(op);
    assert(run);
    frame f = frame_of(op);
    uint32_t blocks = RESIDENT_THREADS / THREADS;
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks < f.count ? blocks : f.count;
    config.blockDim = THREADS;
    config.dynamicSmemBytes = f.record_bytes + 16;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = op->arch >= 90;
    cudaError_t error = cudaSuccess;
    if (config.dynamicSmemBytes > SHARED_BYTES_ALWAYS)
        error = cudaFuncSetAttribute((const void *)run, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     (int)config.dynamicSmemBytes);
    return bt_cuda_status(error ? error : cudaLaunchKernelEx(&config, run, f), what, err);
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
