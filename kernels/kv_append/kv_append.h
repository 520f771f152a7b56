/* kv_append.h - writes the K and V of one new token of a layer into the paged pool.
 *   kv      pool view (kernels/kv.h), f32 | bf16 | fp8 e4m3 | int8
 *   block   the pool block of the token, row the token's place in it
 *   k, v    [kv_heads][head_dim] f32, K after RoPE
 * Codes and scales are those of bt_row_encode (kernels/numerics.h): one row for each head. */
#ifndef BT_KERNELS_KV_APPEND_KV_APPEND_H
#define BT_KERNELS_KV_APPEND_KV_APPEND_H

#include "kernels/kv.h"

void bt_kv_append(const bt_kv_view *kv, uint32_t layer, uint32_t block, uint32_t row,
                  const float *k, const float *v);

#endif
