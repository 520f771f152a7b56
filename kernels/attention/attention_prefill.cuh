/* attention_prefill.cuh - what the two kernels of attention_prefill_cuda.h share: their argument, where a
 * tile's rows lie, which tokens it sees, and how results leave the registers. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_PREFILL_CUH
#define BT_KERNELS_ATTENTION_ATTENTION_PREFILL_CUH

extern "C" {
#include "kernels/attention/attention_prefill_cuda.h"
}

#include <cuda_bf16.h>
#include <cuda_fp16.h>

struct prefill_op {
    const uint8_t *pool;
    const __nv_bfloat16 *q;
    __nv_bfloat16 *out;
    const uint32_t *blocks;
    const bt_attention_plan *plan;
    size_t head_bytes; /* codes and scales of one (block, layer, part, head) */
    size_t codes_bytes;
    uint32_t layer, layers, kv_heads, group, window;
    uint32_t block_shift; /* log2(block_tokens) */
    float scale_log2;     /* log2(e) / sqrt(head_dim) */
};

/* Runs the wgmma kernel on up to `processors` blocks; it takes head_dim 64, 128 and 256. */
bt_status prefill_sm90(const prefill_op *op, const bt_attention_prefill_pool *pool,
                       uint32_t head_dim, uint32_t items_most, uint32_t processors,
                       cudaStream_t stream, bt_err *err);
bool prefill_sm90_takes(const bt_kv_shape *shape);
bt_status prefill_sm90_map(const bt_kv_view *kv, void *ret_map, bt_err *err);

/* A tile and what it sees. Tokens are counted from the sequence's first. */
struct prefill_tile {
    uint32_t first, position, table;
    uint32_t row, rows;  /* first packed row; packed rows of the sequence */
    uint32_t begin, end; /* tokens that any row of the tile sees */
    uint32_t stored;     /* tokens of the sequence in the pool */
};

__device__ inline prefill_tile prefill_tile_at(const prefill_op &op, uint32_t index)
{
    const uint4 *words = (const uint4 *)&op.plan->tile[index];
    uint4 seq = __ldg(words);
    prefill_tile t;
    t.first = seq.x;
    t.position = seq.z;
    t.table = seq.w;
    t.row = __ldg((const uint32_t *)(words + 1));
    t.rows = seq.y * op.group;
    t.stored = seq.z + seq.y;
    uint32_t last = min(t.row + BT_ATTENTION_TILE_ROWS, t.rows) - 1;
    t.end = t.position + last / op.group + 1;
    uint32_t seen = t.position + t.row / op.group + 1;
    t.begin = op.window && seen > op.window ? seen - op.window : 0;
    return t;
}

/* Position of a packed row; rows past the end count as the last. */
__device__ inline uint32_t prefill_position(const prefill_op &op, const prefill_tile &t,
                                            uint32_t row)
{
    return t.position + min(row, t.rows - 1) / op.group;
}

/* Where packed row `row` of a KV head begins in q and out. */
__device__ inline size_t prefill_row_at(const prefill_op &op, const prefill_tile &t, uint32_t head,
                                        uint32_t row, uint32_t head_dim)
{
    uint32_t token = row / op.group;
    size_t q_head = (size_t)(t.first + token) * op.kv_heads * op.group + head * op.group;
    return (q_head + (row - token * op.group)) * head_dim;
}

/* 2^x; 0 for what would be subnormal. */
__device__ inline float prefill_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ inline uint32_t prefill_pack(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *(uint32_t *)&pair;
}

__device__ inline __nv_bfloat162 prefill_pair(uint32_t bits)
{
    return *(__nv_bfloat162 *)&bits;
}

/* Two of the four codes of a word as two bf16, which is exact; no conversion instructions, since those share
 * a unit with the exponentials. The NaN of e4m3 becomes 480.
 * e4m3: its exponent and fraction, put where bf16 has them, are 2^120 times too small (subnormals too).
 * int8: 0x4300 is 128 in bf16, and the last place 1: (128 + low 7 bits) - (128, or 256 if negative). */
template <bt_dtype POOL, bool HIGH> __device__ uint32_t prefill_decode_2(uint32_t codes)
{
    __nv_bfloat162 pair;
    if (POOL == BT_DTYPE_INT8) {
        uint32_t y = __byte_perm(codes, 0, HIGH ? 0x4342 : 0x4140);
        pair = __hsub2(prefill_pair((y & 0x007f007f) | 0x43004300),
                       prefill_pair((y & 0x00800080) | 0x43004300));
    } else {
        uint32_t y = __byte_perm(codes, 0, HIGH ? 0x3424 : 0x1404);
        pair = __hmul2(prefill_pair((y >> 4 & 0x07f007f0) | (y & 0x80008000)),
                       prefill_pair(0x7b807b80));
    }
    return *(uint32_t *)&pair;
}

template <bt_dtype POOL> __device__ uint4 prefill_decode_8(uint32_t first, uint32_t second)
{
    return make_uint4(prefill_decode_2<POOL, false>(first), prefill_decode_2<POOL, true>(first),
                      prefill_decode_2<POOL, false>(second), prefill_decode_2<POOL, true>(second));
}

/* Four lanes (a quad) hold four words each; afterwards lane i holds word i of every lane. */
__device__ inline void prefill_turn(uint32_t (&w)[4])
{
    bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
    uint32_t x = __shfl_xor_sync(~0u, odd ? w[0] : w[1], 1);
    uint32_t y = __shfl_xor_sync(~0u, odd ? w[2] : w[3], 1);
    if (odd) {
        w[0] = x;
        w[2] = y;
    } else {
        w[1] = x;
        w[3] = y;
    }
    x = __shfl_xor_sync(~0u, high ? w[0] : w[2], 2);
    y = __shfl_xor_sync(~0u, high ? w[1] : w[3], 2);
    if (high) {
        w[0] = x;
        w[1] = y;
    } else {
        w[2] = x;
        w[3] = y;
    }
}

/* Accumulators of one row in the m16n8 layout, o[4 * j + at] and o[4 * j + at + 1] for columns
 * 8 * j + 2 * (lane % 4) and the next, times `scale`, to bf16 in memory: 64 bytes of a quad at once. */
template <int D, int AT>
__device__ inline void prefill_store_row(const float (&o)[D / 2], float scale, __nv_bfloat16 *row,
                                         bool exists)
{
#pragma unroll
    for (int j = 0; j < D / 8; j += 4) {
        uint32_t w[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            w[i] = prefill_pack(o[4 * (j + i) + AT] * scale, o[4 * (j + i) + AT + 1] * scale);
        prefill_turn(w);
        uint32_t column = (j + threadIdx.x % 4) * 8;
        if (exists) *(uint4 *)(row + column) = make_uint4(w[0], w[1], w[2], w[3]);
    }
}

#endif
