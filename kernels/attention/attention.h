/* attention.h - causal attention over the paged KV of one sequence, for the query heads that share
 * one KV head. Prefill chunks and decodes take the same path: a decode is a chunk of one.
 *
 *   kv        pool view, f32 | bf16 | fp8 e4m3 | int8; block_tokens a multiple of 16
 *   blocks    table covering position + count tokens, all of them appended already
 *   q         [count] rows, q_stride elements apart, of [group][head_dim] f32
 *   o         [count] rows, o_stride elements apart, of [group][head_dim] f32
 *   position  of the first query: query i sees the tokens up to position + i …
 *   window    … and of those only the last `window`, itself included; 0 = all of them
 *   scratch   bt_attention_scratch_bytes, 64-byte aligned, of this thread
 * Scale is 1/sqrt(head_dim). head_dim is a multiple of 8, count <= BT_ATTENTION_QUERIES_MAX.
 *
 * VALUES  A query's result depends on itself, its position and the stored KV: never on count, block
 *         size or what else is in the batch. The fast version goes over tiles of 16 tokens counted
 *         from token 0, with a running maximum (Milakov and Gimelshein 2018, online softmax); the
 *         reference takes the whole row in f64. Rows of the pool beyond the query's position are
 *         never used, even multiplied by 0: they may hold another sequence's NaN; nor are those before its
 *         window. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_H
#define BT_KERNELS_ATTENTION_ATTENTION_H

#include "kernels/kv.h"

#define BT_ATTENTION_QUERIES_MAX 16u
#define BT_ATTENTION_TILE_TOKENS 16u

typedef struct {
    const bt_kv_view *kv;
    const uint32_t *blocks;
    const float *q;
    float *o;
    uint32_t layer, kv_head, group;
    uint32_t position, count;
    uint32_t window;
    uint32_t q_stride, o_stride;
} bt_attention;

typedef void bt_attention_fn(const bt_attention *op, void *scratch);

size_t bt_attention_scratch_bytes(uint32_t group, uint32_t head_dim);

bt_attention_fn bt_attention_ref, bt_attention_avx2, bt_attention_avx512;

#endif
