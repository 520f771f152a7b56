/* linear_nvfp4.h - tensors of 4-bit floats: what their bytes mean, how they are made, and the product
 * of two of them as a card of compute capability 10.0 should give it.
 *
 *     x[i][l] = e2m1 code * e4m3 scale of its 16 along k * global
 *
 * CODES   [rows][k / 2] bytes, the even l in the low half. A code is sign, 2 bits of exponent with bias
 *         1, 1 of mantissa: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
 * SCALES  One E4M3 byte for each row and 16 of k; its sign bit is never set. Checkpoints have them as
 *         rows, [rows][k / 16]; cuBLASLt reads tiles of 128 rows by 4 groups, one after the other along
 *         k, zeros beyond the tensor: within a tile the byte of (row, group) is
 *             row % 32 * 16 + row / 32 * 4 + group
 * GLOBAL  f32, one for a tensor: amax / (6 * 448). ModelOpt calls it weight_scale_2 and input_scale;
 *         compressed-tensors stores 1 / global.
 * ENCODE  scale = e4m3(amax of the 16 / 6 / global), code = e2m1(x / (scale * global)), each rounded to
 *         nearest, ties to even, saturating. A group whose scale is 0 has codes 0.
 * PRODUCT The sum of 16 products of codes is a multiple of 1/4 below 2^10 and its product with both
 *         scales is exact in f32; only the sum over the groups rounds, here in f64. */
#ifndef BT_KERNELS_LINEAR_LINEAR_NVFP4_H
#define BT_KERNELS_LINEAR_LINEAR_NVFP4_H

#include "kernels/numerics.h"

#include <stddef.h>
#include <stdint.h>

#define BT_NVFP4_GROUP 16u
#define BT_E2M1_MAX 6.0f
#define BT_NVFP4_TILE_ROWS 128u
#define BT_NVFP4_TILE_GROUPS 4u

/* Only the low four bits count. */
static inline float bt_e2m1_to_f32(uint8_t code)
{
    uint32_t exponent = code >> 1 & 3u, mantissa = code & 1u;
    float magnitude = exponent ? bt_f32_of_bits((126u + exponent) << 23 | mantissa << 22)
                               : 0.5f * (float)mantissa;
    return code & 8u ? -magnitude : magnitude;
}

/* To nearest, ties to even. Saturates to +-6, infinities too; NaN is 6, as CUDA has it. */
static inline uint8_t bt_f32_to_e2m1(float x)
{
    uint32_t bits = bt_f32_bits(x);
    uint32_t sign = bits >> 28 & 8u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 7;
    if (magnitude >= 0x40c00000u) return (uint8_t)(sign | 7u); /* 6 and above */
    if (magnitude < 0x3f800000u) {
        /* Below 1 codes are multiples of 1/2, which is one unit in the last place of 2^22. */
        float sum = bt_f32_of_bits(magnitude) + 4194304.0f;
        return (uint8_t)(sign | (bt_f32_bits(sum) - 0x4a800000u));
    }
    uint32_t rounded = magnitude + 0x1fffffu + (magnitude >> 22 & 1u);
    return (uint8_t)(sign | ((rounded >> 22) - (126u << 1)));
}

/* One tensor; scales as rows. k is a multiple of 16. */
typedef struct {
    const uint8_t *codes, *scales;
    float global;
    uint32_t rows, k;
} bt_nvfp4;

/* amax / (6 * 448) of the finite values, 1 if all are 0. */
float bt_nvfp4_global(const float *x, size_t count);

/* x: [rows][k]. ret_codes: rows * k / 2 bytes; ret_scales: rows * k / 16. */
void bt_nvfp4_encode(const float *x, uint32_t rows, uint32_t k, float global, uint8_t *ret_codes,
                     uint8_t *ret_scales);

/* ret_x: [rows][k] */
void bt_nvfp4_decode(const bt_nvfp4 *tensor, float *ret_x);

/* Of the scales in tiles. */
size_t bt_nvfp4_tiles_bytes(uint32_t rows, uint32_t k);

/* Where the scale of (row, group) lies among them. */
size_t bt_nvfp4_tiles_at(uint32_t k, uint32_t row, uint32_t group);

/* scales as rows into tiles; ret_tiles: bt_nvfp4_tiles_bytes. */
void bt_nvfp4_tile(const uint8_t *scales, uint32_t rows, uint32_t k, uint8_t *ret_tiles);

/* y[i][j] = sum over l of x[i][l] * w[j][l]; y: [x's rows][w's rows]. */
void bt_linear_nvfp4_ref(const bt_nvfp4 *x, const bt_nvfp4 *w, float *ret_y);

#endif
