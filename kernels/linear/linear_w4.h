/* linear_w4.h - a weight matrix of 4-bit codes, 128 along k to a scale and a zero point.
 *
 *     y[i][j] = sum over l of x[i][l] * w[j][l],    w[j][l] = (code[j][l] - zero[j][l / 128]) * scale[j][l / 128]
 *
 * WHAT    The form that checkpoint readers make (AWQ, GPTQ and compressed-tensors differ only in how they
 *         lay out these same numbers) and that the packers of each backend take. Symmetric
 *         quantization is zero 8.
 * PACKED  What the CUDA kernels read (linear_w4_cuda.h): blocks of 16 rows of w by 128 k, those of the same 16 rows
 *         one after the other along k. Within a block of 1088 bytes:
 *           offset                                    size  meaning
 *           k % 128 / 64 * 512 + lane * 16 + step * 4    4  eight codes of a lane
 *           1024 + row % 8 * 8 + row % 16 / 8 * 4        4  scale and zero of a row
 *         Lane and step are those of mma m16n8k16 and of wgmma m64k16, whose A fragments agree: in
 *         step s of 16 k a lane holds the rows r = lane / 4 and r + 8, and of each the k
 *         c, c + 1, c + 8, c + 9 with c = 16 s + 2 (lane % 4). The word's eight nibbles from the low
 *         one: (r, c) (r + 8, c) (r, c + 8) (r + 8, c + 8), then the same with c + 1. A shift, an and
 *         and an or make two bf16 at once.
 *         A scale is f32, whose low four bits (zero for any that was f16 or bf16) hold the zero point.
 *         Rows are padded to a multiple of 64 with code 0, scale 0.
 * NVFP4   linear_nvfp4.h's weights in blocks of the same kind, 1152 bytes each: of a half word's four codes the
 *         three bits of magnitude lie at 0, 3, 6 and 9, the signs at 12 .. 15; 1024 + row % 8 * 16 +
 *         step * 2 + row % 16 / 8 is the scale of a row and 16 k, a byte of 5 bits of exponent with
 *         bias 10 and 3 of mantissa, which has no subnormals: E4M3's are normal here, and where its
 *         scale is 0 the codes are. */
#ifndef BT_KERNELS_LINEAR_LINEAR_W4_H
#define BT_KERNELS_LINEAR_LINEAR_W4_H

#include "common/base/dtype.h"
#include "kernels/linear/linear_nvfp4.h"

#include <stddef.h>
#include <stdint.h>

#define BT_W4_GROUP 128u
#define BT_W4_ROWS 64u          /* rows are padded to a multiple of it */
#define BT_W4_BLOCK_ROWS 16u    /* of a block, whose k are a group */
#define BT_W4_BLOCK_CODES 1024u /* bytes */
#define BT_W4_BLOCK_BYTES 1088u
#define BT_W4_NVFP4_BLOCK_BYTES 1152u

typedef struct {
    const uint8_t *codes;   /* [n][k / 2], even k in the low nibble */
    const uint16_t *scales; /* [n][k / 128] */
    const uint8_t *zeros;   /* [n][k / 128], 0 .. 15; NULL: 8 everywhere */
    bt_dtype scale_dtype;   /* F16 or BF16 */
    uint32_t n, k;          /* k is a multiple of 128 */
} bt_w4;

/* What a word of packed weights is. Of codes, nibble i is row + 8 (i & 1), k + 8 (i >> 1 & 1) + (i >> 2); of NVFP4's
 * scales, byte i is row + 8 (i & 1), k + 16 (i >> 1). */
typedef struct {
    uint32_t row, k;
    uint32_t is_scale;
} bt_w4_word;

#ifdef __CUDACC__
#define BT_W4_INLINE static inline __host__ __device__
#else
#define BT_W4_INLINE static inline
#endif

BT_W4_INLINE uint32_t bt_w4_rows(uint32_t n)
{
    return (n + BT_W4_ROWS - 1) / BT_W4_ROWS * BT_W4_ROWS;
}

BT_W4_INLINE size_t bt_w4_blocks(uint32_t n, uint32_t k)
{
    return (size_t)(bt_w4_rows(n) / BT_W4_BLOCK_ROWS) * (k / BT_W4_GROUP);
}

BT_W4_INLINE size_t bt_w4_bytes(uint32_t n, uint32_t k)
{
    return bt_w4_blocks(n, k) * BT_W4_BLOCK_BYTES;
}

BT_W4_INLINE size_t bt_w4_nvfp4_bytes(uint32_t n, uint32_t k)
{
    return bt_w4_blocks(n, k) * BT_W4_NVFP4_BLOCK_BYTES;
}

/* block_bytes: BT_W4_BLOCK_BYTES or BT_W4_NVFP4_BLOCK_BYTES. */
BT_W4_INLINE bt_w4_word bt_w4_word_at(size_t index, uint32_t k, uint32_t block_bytes)
{
    uint32_t at = (uint32_t)(index % (block_bytes / 4)), groups = k / BT_W4_GROUP;
    size_t block = index / (block_bytes / 4);
    uint32_t row = (uint32_t)(block / groups) * BT_W4_BLOCK_ROWS;
    uint32_t first = (uint32_t)(block % groups) * BT_W4_GROUP;
    uint32_t lane = at / 4 % 32, scale = at - BT_W4_BLOCK_CODES / 4;
    bt_w4_word codes = {row + lane / 4, first + at / 128 * 64 + at % 4 * 16 + lane % 4 * 2, 0};
    bt_w4_word one = {row + scale / 2 + scale % 2 * 8, first, 1};
    bt_w4_word four = {row + scale / 4, first + scale % 4 * 32, 1};
    return at < BT_W4_BLOCK_CODES / 4 ? codes : block_bytes == BT_W4_BLOCK_BYTES ? one : four;
}

/* An E2M1 code as the i-th nibble of a word. */
BT_W4_INLINE uint32_t bt_w4_nvfp4_code(uint32_t code, uint32_t i)
{
    return ((code & 7) << 3 * (i & 3) | (code >> 3 & 1) << (12 + (i & 3))) << (i & 4) * 4;
}

/* An E4M3 scale as NVFP4 above has it; 0 only for 0. */
BT_W4_INLINE uint32_t bt_w4_nvfp4_scale(uint32_t e4m3)
{
    uint32_t exponent = e4m3 >> 3 & 15, mantissa = e4m3 & 7;
    if (exponent) return (exponent + 3) << 3 | mantissa;
    if (mantissa >= 4) return 3 << 3 | (mantissa - 4) * 2;
    if (mantissa >= 2) return 2 << 3 | (mantissa - 2) * 4;
    return mantissa << 3;
}

/* The weights of one row as f32, exact: ret_w [k]. */
void bt_w4_row(const bt_w4 *w, uint32_t row, float *ret_w);

/* As PACKED: ret, bt_w4_bytes(n, k). */
void bt_w4_pack_ref(const bt_w4 *w, void *ret);

/* As NVFP4: ret, bt_w4_nvfp4_bytes(rows, k). */
void bt_w4_pack_nvfp4_ref(const bt_nvfp4 *w, void *ret);

#endif
