/* qkv_cuda.h - all that lies between the fused QKV product and attention, on a GPU.
 *
 *     q, k = rope(norm_of_head(qkv + bias)),   v = qkv + bias;   q to attention, k and v into the pool
 *
 *   qkv        [rows][(q_heads + 2 kv_heads) * head_dim]  bf16 or f32: the heads of q, of k, of v
 *   bias       [(q_heads + 2 kv_heads) * head_dim]        bf16, or NULL
 *   q_norm     [head_dim]                                 bf16, or NULL; so k_norm
 *   table      [rows][2][rope_dims / 2]                   f32 of rope_cuda.h, or NULL: a layer without RoPE
 *   positions  [rows]                                     u32; BT_POSITION_NONE: a row that only fills up
 *   sequences  [rows]                                     u32, the row of `blocks`, or NULL: row i is i's
 *   blocks     [sequences][blocks_max]                    u32, block tables
 *   q          [rows][q_heads][head_dim]                  bf16
 *   kv         the pool (kernels/kv.h), its base in device memory: f32 | bf16 | fp8 e4m3 | int8
 * head_dim and rope_dims are multiples of 8, head_dim at most 256; block_tokens is a power of two;
 * everything is device memory, pointers 16-byte aligned.
 *
 * EXACT   Codes and scales are bt_row_encode's of the same f32 row; without a norm of heads the row itself
 *         is bit for bit what the CPU's bias, bt_rope_apply and bt_kv_append make of the same table.
 * GUARD   A row whose position is NONE or past its block table, or whose block is not in the pool, is not
 *         appended; its q is written. */
#ifndef BT_KERNELS_QKV_QKV_CUDA_H
#define BT_KERNELS_QKV_QKV_CUDA_H

#include "kernels/cuda.h"
#include "kernels/kv.h"
#include "kernels/rope/rope_cuda.h"

typedef struct {
    const void *qkv;
    bt_dtype qkv_dtype;
    const void *bias;
    const void *q_norm, *k_norm;
    float eps;
    const float *table;
    uint32_t rope_dims;
    const uint32_t *positions, *sequences, *blocks;
    uint32_t blocks_max;
    uint32_t rows, q_heads;
    bt_kv_view kv;
    uint32_t layer;
    void *q;
} bt_qkv_cuda_args;

bt_status bt_qkv_cuda(const bt_qkv_cuda_args *op, cudaStream_t stream, bt_err *err);

#endif
