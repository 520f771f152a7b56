/* Plain C: the oracle of every other variant, and what runs where none of them does. */
#include "kernels/kv_pack/kv_pack.h"
#include "kernels/numerics.h"

#include <string.h>

static bool runs_here(void)
{
    return true;
}

static void nh_add(uint64_t pair, const uint32_t *key, uint64_t nh[2])
{
    uint32_t low = (uint32_t)pair, high = (uint32_t)(pair >> 32);
    nh[0] += (uint64_t)(uint32_t)(low + key[0]) * (uint32_t)(high + key[1]);
    nh[1] += (uint64_t)(uint32_t)(low + key[4]) * (uint32_t)(high + key[5]);
}

static void copy_ref(const uint8_t *src, size_t bytes, const uint32_t *key, uint8_t *dst,
                     uint64_t ret_nh[2])
{
    /* Volatile, because the peer may write src meanwhile: one load, no second look. */
    const volatile uint64_t *pairs = (const volatile uint64_t *)src;
    for (size_t i = 0; i < bytes / sizeof(uint64_t); i++) {
        uint64_t pair = pairs[i];
        nh_add(pair, key + 2 * i, ret_nh);
        memcpy(dst + i * sizeof(pair), &pair, sizeof(pair));
    }
}

static void settle_ref(void)
{
}

static void sum_ref(const uint8_t *src, size_t bytes, const uint32_t *key, uint64_t ret_nh[2])
{
    for (size_t i = 0; i < bytes / sizeof(uint64_t); i++) {
        uint64_t pair;
        memcpy(&pair, src + i * sizeof(pair), sizeof(pair));
        nh_add(pair, key + 2 * i, ret_nh);
    }
}

static void decode_ref(bt_dtype dtype, const uint8_t *codes, const uint16_t *scales, uint32_t rows,
                       uint32_t head_dim, float *ret_values)
{
    size_t row_bytes = head_dim * bt_dtype_bytes(dtype);
    for (uint32_t row = 0; row < rows; row++)
        bt_row_decode(dtype, codes + row * row_bytes, scales != NULL ? scales[row] : 0, head_dim,
                      ret_values + (size_t)row * head_dim);
}

static void encode_ref(bt_dtype dtype, const float *values, uint32_t rows, uint32_t head_dim,
                       uint8_t *ret_codes, uint16_t *ret_scales)
{
    size_t row_bytes = head_dim * bt_dtype_bytes(dtype);
    for (uint32_t row = 0; row < rows; row++)
        bt_row_encode(dtype, values + (size_t)row * head_dim, head_dim, ret_codes + row * row_bytes,
                      ret_scales != NULL ? ret_scales + row : NULL);
}

const bt_kv_pack_ops bt_kv_pack_ref = {
    .name = "ref",
    .runs_here = runs_here,
    .copy = copy_ref,
    .land = copy_ref,
    .settle = settle_ref,
    .sum = sum_ref,
    .decode = decode_ref,
    .encode = encode_ref,
};
