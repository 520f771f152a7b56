/* linear_w4_ref.c - linear_w4.h in plain C. */
#include "kernels/linear/linear_w4.h"

#include "kernels/numerics.h"

static uint8_t code_of(const bt_w4 *w, uint32_t row, uint32_t k)
{
    uint8_t pair = w->codes[((size_t)row * w->k + k) / 2];
    return k % 2 ? pair >> 4 : pair & 15;
}

static float scale_of(const bt_w4 *w, uint32_t row, uint32_t group)
{
    uint16_t scale = w->scales[(size_t)row * (w->k / BT_W4_GROUP) + group];
    return w->scale_dtype == BT_DTYPE_F16 ? bt_f16_to_f32(scale) : bt_bf16_to_f32(scale);
}

static uint8_t zero_of(const bt_w4 *w, uint32_t row, uint32_t group)
{
    return w->zeros ? w->zeros[(size_t)row * (w->k / BT_W4_GROUP) + group] : 8;
}

void bt_w4_row(const bt_w4 *w, uint32_t row, float *ret_w)
{
    for (uint32_t k = 0; k < w->k; k++) {
        uint32_t group = k / BT_W4_GROUP;
        ret_w[k] = (float)(code_of(w, row, k) - zero_of(w, row, group)) * scale_of(w, row, group);
    }
}

static uint32_t codes_of(const bt_w4 *w, bt_w4_word at)
{
    uint32_t word = 0;
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t row = at.row + 8 * (i & 1), k = at.k + 8 * (i >> 1 & 1) + (i >> 2);
        if (row < w->n) word |= (uint32_t)code_of(w, row, k) << (4 * i);
    }
    return word;
}

static uint32_t scale_word_of(const bt_w4 *w, bt_w4_word at)
{
    uint32_t group = at.k / BT_W4_GROUP;
    if (at.row >= w->n) return 0;
    return (bt_f32_bits(scale_of(w, at.row, group)) & ~15u) | zero_of(w, at.row, group);
}

void bt_w4_pack_ref(const bt_w4 *w, void *ret)
{
    uint32_t *words = ret;
    for (size_t i = 0; i < bt_w4_bytes(w->n, w->k) / 4; i++) {
        bt_w4_word at = bt_w4_word_at(i, w->k, BT_W4_BLOCK_BYTES);
        words[i] = at.is_scale ? scale_word_of(w, at) : codes_of(w, at);
    }
}

static uint32_t nvfp4_codes_of(const bt_nvfp4 *w, bt_w4_word at)
{
    uint32_t word = 0;
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t row = at.row + 8 * (i & 1), k = at.k + 8 * (i >> 1 & 1) + (i >> 2);
        size_t index = (size_t)row * w->k + k;
        if (row >= w->rows || w->scales[index / BT_NVFP4_GROUP] == 0) continue;
        word |= bt_w4_nvfp4_code(w->codes[index / 2] >> k % 2 * 4 & 15u, i);
    }
    return word;
}

static uint32_t nvfp4_scales_of(const bt_nvfp4 *w, bt_w4_word at)
{
    uint32_t word = 0;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t row = at.row + 8 * (i & 1), k = at.k + 16 * (i >> 1);
        if (row < w->rows)
            word |= bt_w4_nvfp4_scale(w->scales[((size_t)row * w->k + k) / BT_NVFP4_GROUP])
                    << 8 * i;
    }
    return word;
}

void bt_w4_pack_nvfp4_ref(const bt_nvfp4 *w, void *ret)
{
    uint32_t *words = ret;
    for (size_t i = 0; i < bt_w4_nvfp4_bytes(w->rows, w->k) / 4; i++) {
        bt_w4_word at = bt_w4_word_at(i, w->k, BT_W4_NVFP4_BLOCK_BYTES);
        words[i] = at.is_scale ? nvfp4_scales_of(w, at) : nvfp4_codes_of(w, at);
    }
}
