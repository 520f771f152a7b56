/* kv_append_ref.c - see kv_append.h. */
#include "kernels/kv_append/kv_append.h"

#include "kernels/numerics.h"

#include <assert.h>

static void append_part(const bt_kv_view *kv, uint8_t *codes, uint32_t row, const float *x)
{
    const bt_kv_shape *shape = &kv->shape;
    size_t row_bytes = shape->head_dim * bt_dtype_bytes(shape->dtype);
    uint16_t *scales = (uint16_t *)(codes + bt_kv_codes_bytes(shape));
    bt_row_encode(shape->dtype, x, shape->head_dim, codes + row * row_bytes,
                  bt_dtype_scaled(shape->dtype) ? &scales[row] : NULL);
}

void bt_kv_append(const bt_kv_view *kv, uint32_t layer, uint32_t block, uint32_t row,
                  const float *k, const float *v)
{
    assert(row < kv->shape.block_tokens);
    for (uint32_t head = 0; head < kv->shape.kv_heads; head++) {
        size_t at = (size_t)head * kv->shape.head_dim;
        append_part(kv, bt_kv_at(kv, block, layer, BT_KV_K, head), row, k + at);
        append_part(kv, bt_kv_at(kv, block, layer, BT_KV_V, head), row, v + at);
    }
}
