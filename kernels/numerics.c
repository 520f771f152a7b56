/* numerics.c - see numerics.h. f16 is converted with integer operations only, so that the result
 * does not depend on F16C being there. */
#include "kernels/numerics.h"

#include <assert.h>
#include <math.h>

/* clang-format off */
const float bt_e4m3_table[256] = {
    0x0.0p+0f, 0x1p-9f, 0x1p-8f, 0x1.8p-8f, 0x1p-7f, 0x1.4p-7f, 0x1.8p-7f, 0x1.cp-7f,
    0x1p-6f, 0x1.2p-6f, 0x1.4p-6f, 0x1.6p-6f, 0x1.8p-6f, 0x1.ap-6f, 0x1.cp-6f, 0x1.ep-6f,
    0x1p-5f, 0x1.2p-5f, 0x1.4p-5f, 0x1.6p-5f, 0x1.8p-5f, 0x1.ap-5f, 0x1.cp-5f, 0x1.ep-5f,
    0x1p-4f, 0x1.2p-4f, 0x1.4p-4f, 0x1.6p-4f, 0x1.8p-4f, 0x1.ap-4f, 0x1.cp-4f, 0x1.ep-4f,
    0x1p-3f, 0x1.2p-3f, 0x1.4p-3f, 0x1.6p-3f, 0x1.8p-3f, 0x1.ap-3f, 0x1.cp-3f, 0x1.ep-3f,
    0x1p-2f, 0x1.2p-2f, 0x1.4p-2f, 0x1.6p-2f, 0x1.8p-2f, 0x1.ap-2f, 0x1.cp-2f, 0x1.ep-2f,
    0x1p-1f, 0x1.2p-1f, 0x1.4p-1f, 0x1.6p-1f, 0x1.8p-1f, 0x1.ap-1f, 0x1.cp-1f, 0x1.ep-1f,
    0x1p+0f, 0x1.2p+0f, 0x1.4p+0f, 0x1.6p+0f, 0x1.8p+0f, 0x1.ap+0f, 0x1.cp+0f, 0x1.ep+0f,
    0x1p+1f, 0x1.2p+1f, 0x1.4p+1f, 0x1.6p+1f, 0x1.8p+1f, 0x1.ap+1f, 0x1.cp+1f, 0x1.ep+1f,
    0x1p+2f, 0x1.2p+2f, 0x1.4p+2f, 0x1.6p+2f, 0x1.8p+2f, 0x1.ap+2f, 0x1.cp+2f, 0x1.ep+2f,
    0x1p+3f, 0x1.2p+3f, 0x1.4p+3f, 0x1.6p+3f, 0x1.8p+3f, 0x1.ap+3f, 0x1.cp+3f, 0x1.ep+3f,
    0x1p+4f, 0x1.2p+4f, 0x1.4p+4f, 0x1.6p+4f, 0x1.8p+4f, 0x1.ap+4f, 0x1.cp+4f, 0x1.ep+4f,
    0x1p+5f, 0x1.2p+5f, 0x1.4p+5f, 0x1.6p+5f, 0x1.8p+5f, 0x1.ap+5f, 0x1.cp+5f, 0x1.ep+5f,
    0x1p+6f, 0x1.2p+6f, 0x1.4p+6f, 0x1.6p+6f, 0x1.8p+6f, 0x1.ap+6f, 0x1.cp+6f, 0x1.ep+6f,
    0x1p+7f, 0x1.2p+7f, 0x1.4p+7f, 0x1.6p+7f, 0x1.8p+7f, 0x1.ap+7f, 0x1.cp+7f, 0x1.ep+7f,
    0x1p+8f, 0x1.2p+8f, 0x1.4p+8f, 0x1.6p+8f, 0x1.8p+8f, 0x1.ap+8f, 0x1.cp+8f, NAN,
    -0x0p+0f, -0x1p-9f, -0x1p-8f, -0x1.8p-8f, -0x1p-7f, -0x1.4p-7f, -0x1.8p-7f, -0x1.cp-7f,
    -0x1p-6f, -0x1.2p-6f, -0x1.4p-6f, -0x1.6p-6f, -0x1.8p-6f, -0x1.ap-6f, -0x1.cp-6f, -0x1.ep-6f,
    -0x1p-5f, -0x1.2p-5f, -0x1.4p-5f, -0x1.6p-5f, -0x1.8p-5f, -0x1.ap-5f, -0x1.cp-5f, -0x1.ep-5f,
    -0x1p-4f, -0x1.2p-4f, -0x1.4p-4f, -0x1.6p-4f, -0x1.8p-4f, -0x1.ap-4f, -0x1.cp-4f, -0x1.ep-4f,
    -0x1p-3f, -0x1.2p-3f, -0x1.4p-3f, -0x1.6p-3f, -0x1.8p-3f, -0x1.ap-3f, -0x1.cp-3f, -0x1.ep-3f,
    -0x1p-2f, -0x1.2p-2f, -0x1.4p-2f, -0x1.6p-2f, -0x1.8p-2f, -0x1.ap-2f, -0x1.cp-2f, -0x1.ep-2f,
    -0x1p-1f, -0x1.2p-1f, -0x1.4p-1f, -0x1.6p-1f, -0x1.8p-1f, -0x1.ap-1f, -0x1.cp-1f, -0x1.ep-1f,
    -0x1p+0f, -0x1.2p+0f, -0x1.4p+0f, -0x1.6p+0f, -0x1.8p+0f, -0x1.ap+0f, -0x1.cp+0f, -0x1.ep+0f,
    -0x1p+1f, -0x1.2p+1f, -0x1.4p+1f, -0x1.6p+1f, -0x1.8p+1f, -0x1.ap+1f, -0x1.cp+1f, -0x1.ep+1f,
    -0x1p+2f, -0x1.2p+2f, -0x1.4p+2f, -0x1.6p+2f, -0x1.8p+2f, -0x1.ap+2f, -0x1.cp+2f, -0x1.ep+2f,
    -0x1p+3f, -0x1.2p+3f, -0x1.4p+3f, -0x1.6p+3f, -0x1.8p+3f, -0x1.ap+3f, -0x1.cp+3f, -0x1.ep+3f,
    -0x1p+4f, -0x1.2p+4f, -0x1.4p+4f, -0x1.6p+4f, -0x1.8p+4f, -0x1.ap+4f, -0x1.cp+4f, -0x1.ep+4f,
    -0x1p+5f, -0x1.2p+5f, -0x1.4p+5f, -0x1.6p+5f, -0x1.8p+5f, -0x1.ap+5f, -0x1.cp+5f, -0x1.ep+5f,
    -0x1p+6f, -0x1.2p+6f, -0x1.4p+6f, -0x1.6p+6f, -0x1.8p+6f, -0x1.ap+6f, -0x1.cp+6f, -0x1.ep+6f,
    -0x1p+7f, -0x1.2p+7f, -0x1.4p+7f, -0x1.6p+7f, -0x1.8p+7f, -0x1.ap+7f, -0x1.cp+7f, -0x1.ep+7f,
    -0x1p+8f, -0x1.2p+8f, -0x1.4p+8f, -0x1.6p+8f, -0x1.8p+8f, -0x1.ap+8f, -0x1.cp+8f, -NAN,
};
/* clang-format on */

float bt_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu,
             mantissa = h & 0x3ffu;
    if (exponent == 31) {
        uint32_t quiet = mantissa ? 0x400000u : 0;
        return bt_f32_of_bits(sign | 0x7f800000u | quiet | (mantissa << 13));
    }
    if (exponent == 0) {
        float x = (float)mantissa * 0x1p-24f; /* exact: ten bits times a power of two */
        return bt_f32_of_bits(sign | bt_f32_bits(x));
    }
    return bt_f32_of_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

uint16_t bt_f32_to_f16(float x)
{
    uint32_t bits = bt_f32_bits(x);
    uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds beyond 65504 */
    if (magnitude < 0x38800000u) {
        /* Below 2^-14 values are multiples of 2^-24, which is one unit in the last place of 0.5. */
        float sum = bt_f32_of_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (bt_f32_bits(sum) - 0x3f000000u));
    }
    uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((rounded >> 13) - (112u << 10)));
}

uint16_t bt_f32_to_f16_up(float x)
{
    if (x != x) return 0x7e00u;
    assert(x >= 0);
    if (x >= BT_F16_MAX) return 0x7bffu;
    uint16_t h = bt_f32_to_f16(x);
    return bt_f16_to_f32(h) < x ? (uint16_t)(h + 1u) : h;
}

static float row_amax(const float *x, uint32_t count)
{
    float amax = 0.0f;
    for (uint32_t i = 0; i < count; i++) {
        float magnitude = fabsf(x[i]);
        if (magnitude > amax) amax = magnitude; /* a NaN compares false */
    }
    return amax;
}

static void encode_e4m3(const float *x, uint32_t count, uint8_t *ret_codes, uint16_t *ret_scale)
{
    *ret_scale = bt_f32_to_f16_up(row_amax(x, count) / BT_E4M3_MAX);
    float scale = *ret_scale ? bt_f16_to_f32(*ret_scale) : 1.0f;
    for (uint32_t i = 0; i < count; i++) ret_codes[i] = bt_f32_to_e4m3(x[i] / scale);
}

static void encode_int8(const float *x, uint32_t count, int8_t *ret_codes, uint16_t *ret_scale)
{
    *ret_scale = bt_f32_to_f16_up(row_amax(x, count) / BT_INT8_MAX);
    float scale = *ret_scale ? bt_f16_to_f32(*ret_scale) : 1.0f;
    for (uint32_t i = 0; i < count; i++) ret_codes[i] = bt_f32_to_int8(x[i] / scale);
}

void bt_row_encode(bt_dtype dtype, const float *x, uint32_t count, void *ret_codes,
                   uint16_t *ret_scale)
{
    switch (dtype) {
    case BT_DTYPE_F32: memcpy(ret_codes, x, count * sizeof(float)); return;
    case BT_DTYPE_F16:
        for (uint32_t i = 0; i < count; i++) ((uint16_t *)ret_codes)[i] = bt_f32_to_f16(x[i]);
        return;
    case BT_DTYPE_BF16:
        for (uint32_t i = 0; i < count; i++) ((uint16_t *)ret_codes)[i] = bt_f32_to_bf16(x[i]);
        return;
    case BT_DTYPE_FP8_E4M3: encode_e4m3(x, count, ret_codes, ret_scale); return;
    case BT_DTYPE_INT8: encode_int8(x, count, ret_codes, ret_scale); return;
    default: assert(!"not a dtype of KV rows");
    }
}

void bt_row_decode(bt_dtype dtype, const void *codes, uint16_t scale, uint32_t count, float *ret_x)
{
    float unit = bt_dtype_scaled(dtype) ? bt_f16_to_f32(scale) : 1.0f;
    switch (dtype) {
    case BT_DTYPE_F32: memcpy(ret_x, codes, count * sizeof(float)); return;
    case BT_DTYPE_F16:
        for (uint32_t i = 0; i < count; i++) ret_x[i] = bt_f16_to_f32(((const uint16_t *)codes)[i]);
        return;
    case BT_DTYPE_BF16:
        for (uint32_t i = 0; i < count; i++)
            ret_x[i] = bt_bf16_to_f32(((const uint16_t *)codes)[i]);
        return;
    case BT_DTYPE_FP8_E4M3:
        for (uint32_t i = 0; i < count; i++)
            ret_x[i] = bt_e4m3_to_f32(((const uint8_t *)codes)[i]) * unit;
        return;
    case BT_DTYPE_INT8:
        for (uint32_t i = 0; i < count; i++) ret_x[i] = (float)((const int8_t *)codes)[i] * unit;
        return;
    default: assert(!"not a dtype of KV rows");
    }
}
