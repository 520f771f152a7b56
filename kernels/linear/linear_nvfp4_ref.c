/* linear_nvfp4_ref.c - see linear_nvfp4.h. */
#include "kernels/linear/linear_nvfp4.h"

#include <assert.h>
#include <math.h>

float bt_nvfp4_global(const float *x, size_t count)
{
    float most = 0;
    for (size_t i = 0; i < count; i++)
        if (isfinite(x[i])) most = fmaxf(most, fabsf(x[i]));
    return most > 0 ? most / (BT_E2M1_MAX * BT_E4M3_MAX) : 1;
}

static void encode_group(const float *x, float global, uint8_t *ret_codes, uint8_t *ret_scale)
{
    float most = 0;
    for (uint32_t i = 0; i < BT_NVFP4_GROUP; i++) most = fmaxf(most, fabsf(x[i]));
    *ret_scale = bt_f32_to_e4m3(most / BT_E2M1_MAX / global);
    float unit = bt_e4m3_to_f32(*ret_scale) * global;
    for (uint32_t i = 0; i < BT_NVFP4_GROUP; i += 2) {
        uint8_t low = unit > 0 ? bt_f32_to_e2m1(x[i] / unit) : 0;
        uint8_t high = unit > 0 ? bt_f32_to_e2m1(x[i + 1] / unit) : 0;
        ret_codes[i / 2] = (uint8_t)(low | high << 4);
    }
}

void bt_nvfp4_encode(const float *x, uint32_t rows, uint32_t k, float global, uint8_t *ret_codes,
                     uint8_t *ret_scales)
{
    assert(k % BT_NVFP4_GROUP == 0 && global > 0);
    size_t groups = (size_t)rows * (k / BT_NVFP4_GROUP);
    for (size_t i = 0; i < groups; i++)
        encode_group(x + i * BT_NVFP4_GROUP, global, ret_codes + i * (BT_NVFP4_GROUP / 2),
                     ret_scales + i);
}

void bt_nvfp4_decode(const bt_nvfp4 *tensor, float *ret_x)
{
    size_t count = (size_t)tensor->rows * tensor->k;
    for (size_t i = 0; i < count; i++) {
        uint8_t code = (uint8_t)(tensor->codes[i / 2] >> (i % 2 ? 4 : 0));
        float unit = bt_e4m3_to_f32(tensor->scales[i / BT_NVFP4_GROUP]) * tensor->global;
        ret_x[i] = bt_e2m1_to_f32(code) * unit;
    }
}

static size_t rounded_up(size_t x, size_t step)
{
    return (x + step - 1) / step * step;
}

size_t bt_nvfp4_tiles_bytes(uint32_t rows, uint32_t k)
{
    return rounded_up(rows, BT_NVFP4_TILE_ROWS) *
           rounded_up(k / BT_NVFP4_GROUP, BT_NVFP4_TILE_GROUPS);
}

size_t bt_nvfp4_tiles_at(uint32_t k, uint32_t row, uint32_t group)
{
    size_t across = rounded_up(k / BT_NVFP4_GROUP, BT_NVFP4_TILE_GROUPS) / BT_NVFP4_TILE_GROUPS;
    size_t tile = row / BT_NVFP4_TILE_ROWS * across + group / BT_NVFP4_TILE_GROUPS;
    uint32_t inner = row % BT_NVFP4_TILE_ROWS;
    return tile * (BT_NVFP4_TILE_ROWS * BT_NVFP4_TILE_GROUPS) + inner % 32 * 16 + inner / 32 * 4 +
           group % BT_NVFP4_TILE_GROUPS;
}

void bt_nvfp4_tile(const uint8_t *scales, uint32_t rows, uint32_t k, uint8_t *ret_tiles)
{
    memset(ret_tiles, 0, bt_nvfp4_tiles_bytes(rows, k));
    uint32_t groups = k / BT_NVFP4_GROUP;
    for (uint32_t row = 0; row < rows; row++)
        for (uint32_t group = 0; group < groups; group++)
            ret_tiles[bt_nvfp4_tiles_at(k, row, group)] = scales[(size_t)row * groups + group];
}

/* Sixteen products of codes, summed: exact. */
static float group_sum(const uint8_t *x, const uint8_t *w)
{
    float sum = 0;
    for (uint32_t i = 0; i < BT_NVFP4_GROUP / 2; i++)
        sum += bt_e2m1_to_f32(x[i]) * bt_e2m1_to_f32(w[i]) +
               bt_e2m1_to_f32(x[i] >> 4) * bt_e2m1_to_f32(w[i] >> 4);
    return sum;
}

void bt_linear_nvfp4_ref(const bt_nvfp4 *x, const bt_nvfp4 *w, float *ret_y)
{
    assert(x->k == w->k && x->k % BT_NVFP4_GROUP == 0);
    size_t groups = x->k / BT_NVFP4_GROUP;
    for (uint32_t i = 0; i < x->rows; i++)
        for (uint32_t j = 0; j < w->rows; j++) {
            double sum = 0;
            for (size_t g = 0; g < groups; g++) {
                size_t gx = i * groups + g, gw = j * groups + g;
                float scale = bt_e4m3_to_f32(x->scales[gx]) * bt_e4m3_to_f32(w->scales[gw]);
                sum += (double)(group_sum(x->codes + gx * 8, w->codes + gw * 8) * scale);
            }
            ret_y[(size_t)i * w->rows + j] = (float)(sum * x->global * w->global);
        }
}
