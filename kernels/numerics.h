/* numerics.h - f32 to and from the narrow formats, one value or one row at a time.
 *
 * Every conversion is a pure function of the bits: round to nearest, ties to even, unless its name
 * says otherwise, with the default rounding mode of the FPU. The same input gives the same code in
 * the KV pool, on the wire and on every machine, so vector versions must agree bit for bit.
 *
 * E4M3 is the OCP "FN" kind: bias 7, no infinities, 0x7f and 0xff are NaN, the largest value is
 * 448. We saturate, unlike ml_dtypes and CUDA's default, which make NaN of what overflows.
 *
 * ROW     One KV row is head_dim values of one token and head. For the scaled dtypes
 *             scale = f16_up(max |x| / largest code),   code = round(x / scale)
 *         with the rounded scale, so no code can exceed its range; a row of zeros has scale 0.
 *         A NaN does not count for the scale; it stays NaN as e4m3 and becomes 0 as int8. */
#ifndef BT_KERNELS_NUMERICS_H
#define BT_KERNELS_NUMERICS_H

#include "common/base/dtype.h"

#include <stdint.h>
#include <string.h>

#define BT_E4M3_MAX 448.0f
#define BT_INT8_MAX 127.0f
#define BT_F16_MAX 65504.0f

extern const float bt_e4m3_table[256];

static inline uint32_t bt_f32_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static inline float bt_f32_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static inline float bt_bf16_to_f32(uint16_t h)
{
    return bt_f32_of_bits((uint32_t)h << 16);
}

/* Overflows to infinity; NaN stays NaN. */
static inline uint16_t bt_f32_to_bf16(float x)
{
    uint32_t bits = bt_f32_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x0040u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float bt_f16_to_f32(uint16_t h);

/* Overflows to infinity; NaN stays NaN. */
uint16_t bt_f32_to_f16(float x);

/* The smallest f16 that is not below x, for x >= 0; BT_F16_MAX if x is beyond it, so that a scale
 * is always finite. NaN stays NaN. */
uint16_t bt_f32_to_f16_up(float x);

static inline float bt_e4m3_to_f32(uint8_t code)
{
    return bt_e4m3_table[code];
}

/* Saturates to +-448, infinities too; NaN stays NaN. */
static inline uint8_t bt_f32_to_e4m3(float x)
{
    uint32_t bits = bt_f32_bits(x);
    uint32_t sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint8_t)(sign | 0x7fu);
    if (magnitude >= 0x43e00000u) return (uint8_t)(sign | 0x7eu); /* 448 and above */
    if (magnitude < 0x3c800000u) {
        /* Below 2^-6 codes are multiples of 2^-9, which is one unit in the last place of 2^14. */
        float sum = bt_f32_of_bits(magnitude) + 16384.0f;
        return (uint8_t)(sign | (bt_f32_bits(sum) - 0x46800000u));
    }
    uint32_t rounded = magnitude + 0x7ffffu + ((magnitude >> 20) & 1u);
    return (uint8_t)(sign | ((rounded >> 20) - (120u << 3)));
}

/* Saturates to +-127; NaN is 0. */
static inline int8_t bt_f32_to_int8(float x)
{
    if (!(x > -BT_INT8_MAX)) return x == x ? -127 : 0;
    if (x > BT_INT8_MAX) return 127;
    /* Adding 1.5 * 2^23 leaves the integer, rounded to even, in the low bits. */
    return (int8_t)(int32_t)(bt_f32_bits(x + 12582912.0f) - 0x4b400000u);
}

/* One KV row to codes.
 *   dtype      F32, F16, BF16, FP8_E4M3 or INT8
 *   x          [count] f32
 *   ret_codes  [count] of dtype
 *   ret_scale  f16 of the row, written only for a scaled dtype; may be NULL for the others */
void bt_row_encode(bt_dtype dtype, const float *x, uint32_t count, void *ret_codes,
                   uint16_t *ret_scale);

/* One KV row back to f32; scale is the row's f16, ignored for unscaled dtypes. */
void bt_row_decode(bt_dtype dtype, const void *codes, uint16_t scale, uint32_t count, float *ret_x);

#endif
