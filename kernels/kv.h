/* kv.h - how a paged KV pool lies in memory: what attention reads, append writes, pack and unpack
 * convert.
 *
 * One pool of one daemon:
 *
 *     block[pool_blocks] of layer[layers] of part[K, V] of head[kv_heads] of
 *         codes  [block_tokens][head_dim]  of dtype
 *         scales [block_tokens]            of f16, only if bt_dtype_scaled(dtype)
 *
 * Codes and scales are each padded to 16 bytes. The token t of a sequence lies in block
 * table[t / block_tokens] at row t % block_tokens. A code is worth code * scale; scales are rounded
 * up to f16, and codes are made with the rounded scale. */
#ifndef BT_KERNELS_KV_H
#define BT_KERNELS_KV_H

#include "common/base/dtype.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    bt_dtype dtype; /* F32, BF16, FP8_E4M3 or INT8 */
    uint32_t layers, kv_heads, head_dim;
    uint32_t block_tokens; /* 16, 32 or 64 */
    uint32_t pool_blocks;
} bt_kv_shape;

typedef struct {
    bt_kv_shape shape;
    uint8_t *base; /* bt_kv_pool_bytes(&shape), 64-byte aligned */
} bt_kv_view;

size_t
bt_kv_codes_bytes(const bt_kv_shape *shape); /* codes of one (block, layer, part, head), padded */
size_t bt_kv_scales_bytes(const bt_kv_shape *shape); /* scales of the same, padded; 0 if unscaled */
size_t bt_kv_block_bytes(const bt_kv_shape *shape);
size_t
bt_kv_token_bytes(const bt_kv_shape *shape); /* block bytes / block_tokens: what planners count */
size_t bt_kv_pool_bytes(const bt_kv_shape *shape); /* 0 on overflow */

typedef enum { BT_KV_K = 0, BT_KV_V = 1 } bt_kv_part;

/* First code of (block, layer, part, head); its scales follow at + bt_kv_codes_bytes. */
uint8_t *bt_kv_at(const bt_kv_view *kv, uint32_t block, uint32_t layer, bt_kv_part part,
                  uint32_t head);

#endif
