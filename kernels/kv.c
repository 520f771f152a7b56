#include "kernels/kv.h"

#include <assert.h>

static size_t pad16(size_t bytes)
{
    return (bytes + 15) & ~(size_t)15;
}

size_t bt_kv_codes_bytes(const bt_kv_shape *shape)
{
    return pad16((size_t)shape->block_tokens * shape->head_dim * bt_dtype_bytes(shape->dtype));
}

size_t bt_kv_scales_bytes(const bt_kv_shape *shape)
{
    if (!bt_dtype_scaled(shape->dtype)) return 0;
    return pad16((size_t)shape->block_tokens * sizeof(uint16_t));
}

/* Codes and scales of one (block, layer, part, head). */
static size_t head_bytes(const bt_kv_shape *shape)
{
    return bt_kv_codes_bytes(shape) + bt_kv_scales_bytes(shape);
}

size_t bt_kv_block_bytes(const bt_kv_shape *shape)
{
    size_t bytes = head_bytes(shape);
    if (__builtin_mul_overflow(bytes, (size_t)shape->kv_heads * 2, &bytes)) return 0;
    if (__builtin_mul_overflow(bytes, (size_t)shape->layers, &bytes)) return 0;
    return bytes;
}

size_t bt_kv_token_bytes(const bt_kv_shape *shape)
{
    return bt_kv_block_bytes(shape) / shape->block_tokens;
}

size_t bt_kv_pool_bytes(const bt_kv_shape *shape)
{
    size_t bytes;
    if (__builtin_mul_overflow(bt_kv_block_bytes(shape), (size_t)shape->pool_blocks, &bytes))
        return 0;
    return bytes;
}

uint8_t *bt_kv_at(const bt_kv_view *kv, uint32_t block, uint32_t layer, bt_kv_part part,
                  uint32_t head)
{
    const bt_kv_shape *shape = &kv->shape;
    assert(block < shape->pool_blocks && layer < shape->layers && head < shape->kv_heads);
    size_t index = ((size_t)block * shape->layers + layer) * 2 + (size_t)part;
    return kv->base + (index * shape->kv_heads + head) * head_bytes(shape);
}
