/* attention_decode_tile.cuh - one warp, sixteen tokens and the query heads of one KV head: fragments of
 * mma.m16n8k16 out of rows of codes that lie in shared memory just as they do in the pool.
 *
 * LAYOUT  A tile is 4 pieces of 16 tokens; a piece is its rows of codes, then 32 bytes, the scales if
 *         it has any. Rows are not padded: a bulk copy keeps them as they are. But pieces lie 32 bytes
 *         off a multiple of 128, so lanes that go to one row each of different pieces meet different
 *         banks; hence a warp takes 4 rows of each piece rather than 16 of one.
 * PRODUCTS Both with the heads as columns, of which there are few:
 *             scores  [16 tokens][8 heads] = K [16 tokens][d] * Q^T [d][8 heads]
 *             out     [d][8 heads]        += V^T [d][16 tokens] * weights [16 tokens][8 heads]
 *         Head 2t and 2t + 1 then belong to the lanes of the same t = lane % 4 in both results, so the
 *         maximum and the corrections need no exchange between the products.
 * ORDER   A product may sum in any order, so the 16 bytes a lane reads of a row are the elements that
 *         the fragments want of it: K's order of d is that of Q (key_column), rows of V^T are columns
 *         of the output in the order of value_column. Which token is which row of K is token_row. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_DECODE_TILE_CUH
#define BT_KERNELS_ATTENTION_ATTENTION_DECODE_TILE_CUH

#include "kernels/attention/attention_decode_ring.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

constexpr uint32_t TILE_TOKENS = 64, PIECE_TOKENS = 16, PIECES = 4, PIECE_GAP = 32;

/* ---- rows cut among lanes: as many 16-byte pieces for each as there are, then 8 bytes, then 4 ---- */

/* The first byte in the row of what lane `index` of LANES holds as byte `at` of its LANE_BYTES. */
template <int LANE_BYTES, int LANES>
__host__ __device__ constexpr uint32_t row_byte(uint32_t index, uint32_t at)
{
    constexpr int SIXTEENS = LANE_BYTES / 16 * 16, EIGHTS = LANE_BYTES / 8 * 8;
    uint32_t width = (int)at < SIXTEENS ? 16 : (int)at < EIGHTS ? 8 : 4;
    uint32_t start = at / width * width; /* of the piece in what a lane holds */
    return start * LANES + index * width + at % width;
}

template <int LANE_BYTES, int LANES>
BT_DEVICE void row_load(uint32_t row, uint32_t index, uint32_t *ret_words)
{
#pragma unroll
    for (int at = 0; at + 16 <= LANE_BYTES; at += 16)
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(ret_words[at / 4]), "=r"(ret_words[at / 4 + 1]),
                       "=r"(ret_words[at / 4 + 2]), "=r"(ret_words[at / 4 + 3])
                     : "r"(row + at * LANES + index * 16));
    if constexpr (LANE_BYTES % 16 >= 8) {
        constexpr int at = LANE_BYTES / 16 * 16;
        asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];"
                     : "=r"(ret_words[at / 4]), "=r"(ret_words[at / 4 + 1])
                     : "r"(row + at * LANES + index * 8));
    }
    if constexpr (LANE_BYTES % 8 >= 4) {
        constexpr int at = LANE_BYTES / 8 * 8;
        asm volatile("ld.shared.b32 %0, [%1];"
                     : "=r"(ret_words[at / 4])
                     : "r"(row + at * LANES + index * 4));
    }
}

BT_DEVICE float load_scale(uint32_t address)
{
    uint16_t bits;
    asm volatile("ld.shared.b16 %0, [%1];" : "=h"(bits) : "r"(address));
    return __half2float(__ushort_as_half(bits));
}

/* ---- a tile's tokens as rows of fragments ---- */

/* Row `group` (0 .. 7) of the upper or lower half of the fragment of one warp (0 .. 3): its token in
 * the tile. Even rows 2p and odd rows after them are two pieces apart, rows of one parity in four. */
__host__ __device__ constexpr uint32_t row_piece(uint32_t group)
{
    return ((group >> 1) + 2 * (group & 1)) & 3;
}

__host__ __device__ constexpr uint32_t row_in_piece(uint32_t warp, uint32_t group, uint32_t lower)
{
    return 4 * warp + 2 * lower + (group >> 2);
}

/* ---- arithmetic of the two kinds of pools ---- */

struct bf16_arithmetic {
    static constexpr int CODE_BYTES = 2;
    static constexpr bool SCALED = false;

    static BT_DEVICE void mma(float *c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                              uint32_t b0, uint32_t b1)
    {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    }

    static BT_DEVICE uint32_t pack(float low, float high)
    {
        __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        return *(uint32_t *)&pair;
    }
};

struct f16_arithmetic {
    static constexpr int CODE_BYTES = 1;
    static constexpr bool SCALED = true;

    static BT_DEVICE void mma(float *c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                              uint32_t b0, uint32_t b1)
    {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    }

    static BT_DEVICE uint32_t pack(float low, float high)
    {
        __half2 pair = __floats2half2_rn(low, high);
        return *(uint32_t *)&pair;
    }
};

/* widen: four codes as two pairs of f16, each code times 1 / WORTH. */
struct e4m3_pool : f16_arithmetic {
#if __CUDA_ARCH__ >= 890
    static constexpr float WORTH = 1;

    static BT_DEVICE void widen(uint32_t codes, uint32_t *ret_pairs)
    {
        asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\n"
            "cvt.rn.f16x2.e4m3x2 %0, low;\ncvt.rn.f16x2.e4m3x2 %1, high;\n}"
            : "=r"(ret_pairs[0]), "=r"(ret_pairs[1])
            : "r"(codes));
    }
#else
    /* The bits of e4m3 in the place of f16's: all but the bias is right. NaN is not kept. */
    static constexpr float WORTH = 256;

    static BT_DEVICE uint32_t moved(uint32_t bytes)
    {
        return (bytes & 0x80008000u) | ((bytes & 0x7f007f00u) >> 1);
    }
    static BT_DEVICE void widen(uint32_t codes, uint32_t *ret_pairs)
    {
        ret_pairs[0] = moved(__byte_perm(codes, 0, 0x1404));
        ret_pairs[1] = moved(__byte_perm(codes, 0, 0x3424));
    }
#endif
};

struct int8_pool : f16_arithmetic {
    static constexpr float WORTH = 1;

    /* 0x6400 + byte is 1024 + byte. */
    static BT_DEVICE void widen(uint32_t codes, uint32_t *ret_pairs)
    {
        uint32_t biased = codes ^ 0x80808080u, less = 0x64806480u;
        uint32_t low = __byte_perm(biased, 0x64646464u, 0x4140);
        uint32_t high = __byte_perm(biased, 0x64646464u, 0x4342);
        __half2 a = __hsub2(*(__half2 *)&low, *(__half2 *)&less);
        __half2 b = __hsub2(*(__half2 *)&high, *(__half2 *)&less);
        ret_pairs[0] = *(uint32_t *)&a;
        ret_pairs[1] = *(uint32_t *)&b;
    }
};

struct bf16_pool : bf16_arithmetic {
    static constexpr float WORTH = 1;
};

/* An 8 x 8 tile of 16-bit values, two of a row in each lane, turned. */
BT_DEVICE uint32_t turned(uint32_t pair)
{
    uint32_t result;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
    return result;
}

BT_DEVICE float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Over the lanes of the same lane % 4. */
BT_DEVICE float highest_of_tokens(float x)
{
#pragma unroll
    for (int step = 4; step < 32; step *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
    return x;
}

BT_DEVICE float sum_of_tokens(float x)
{
#pragma unroll
    for (int step = 4; step < 32; step *= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

/* The power of two that x >= 0 is between once and twice of; 0 for subnormals. */
BT_DEVICE float power_below(float x)
{
    return __uint_as_float(__float_as_uint(x) & 0x7f800000u);
}

/* 1 / x of a power of two between 2^-126 and 2^126. */
BT_DEVICE float inverse_power(float x)
{
    return __uint_as_float((254u << 23) - __float_as_uint(x));
}

#endif
