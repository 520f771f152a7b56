/* attention_ref.c - the oracle: one query head at a time, three passes over its tokens in f64. */
#include "kernels/attention/attention.h"

#include "common/base/limits.h"
#include "kernels/numerics.h"

#include <assert.h>
#include <math.h>

size_t bt_attention_scratch_bytes(uint32_t group, uint32_t head_dim)
{
    size_t rows = (size_t)BT_ATTENTION_QUERIES_MAX * group;
    /* Queries, scores, maximum and sum of each row; a tile of K, one of V, one turned; padding. */
    size_t floats = rows * (head_dim + BT_ATTENTION_TILE_TOKENS + 2) +
                    3 * (size_t)BT_ATTENTION_TILE_TOKENS * head_dim;
    return floats * sizeof(float) + 5 * 64;
}

static void token_row(const bt_attention *op, bt_kv_part part, uint32_t token, float *ret_x)
{
    const bt_kv_shape *shape = &op->kv->shape;
    uint32_t row = token % shape->block_tokens;
    uint8_t *codes =
        bt_kv_at(op->kv, op->blocks[token / shape->block_tokens], op->layer, part, op->kv_head);
    const uint16_t *scales = (const uint16_t *)(codes + bt_kv_codes_bytes(shape));
    bt_row_decode(shape->dtype, codes + row * shape->head_dim * bt_dtype_bytes(shape->dtype),
                  bt_dtype_scaled(shape->dtype) ? scales[row] : 0, shape->head_dim, ret_x);
}

static double score(const bt_attention *op, const float *q, uint32_t token)
{
    float k[BT_HEAD_DIM_MAX];
    uint32_t head_dim = op->kv->shape.head_dim;
    double sum = 0;
    token_row(op, BT_KV_K, token, k);
    for (uint32_t i = 0; i < head_dim; i++) sum += (double)q[i] * k[i];
    return sum / sqrt(head_dim);
}

static void one_query(const bt_attention *op, const float *q, uint32_t position, float *ret_o)
{
    uint32_t head_dim = op->kv->shape.head_dim;
    double sums[BT_HEAD_DIM_MAX] = {0}, total = 0, highest = -INFINITY;
    uint32_t first = op->window && position >= op->window ? position - op->window + 1 : 0;
    for (uint32_t token = first; token <= position; token++)
        highest = fmax(highest, score(op, q, token));
    for (uint32_t token = first; token <= position; token++) {
        float v[BT_HEAD_DIM_MAX];
        double weight = exp(score(op, q, token) - highest);
        token_row(op, BT_KV_V, token, v);
        total += weight;
        for (uint32_t i = 0; i < head_dim; i++) sums[i] += weight * v[i];
    }
    for (uint32_t i = 0; i < head_dim; i++) ret_o[i] = (float)(sums[i] / total);
}

void bt_attention_ref(const bt_attention *op, void *scratch)
{
    (void)scratch;
    uint32_t head_dim = op->kv->shape.head_dim;
    assert(head_dim <= BT_HEAD_DIM_MAX && op->count <= BT_ATTENTION_QUERIES_MAX);
    for (uint32_t i = 0; i < op->count; i++)
        for (uint32_t head = 0; head < op->group; head++)
            one_query(op, op->q + (size_t)i * op->q_stride + head * head_dim, op->position + i,
                      op->o + (size_t)i * op->o_stride + head * head_dim);
}
