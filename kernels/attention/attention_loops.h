/* attention_loops.h - what the attention_*.c files of x86 share; only they may include it.
 *
 * Query rows gathered side by side, tiles of the pool widened to f32, and the walk over the tiles
 * that the queries see. What a file adds is what becomes of a tile. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_LOOPS_H
#define BT_KERNELS_ATTENTION_ATTENTION_LOOPS_H

#include "kernels/attention/attention.h"

#include "kernels/avx2.h"
#include "kernels/matmul/matmul.h"
#include "kernels/numerics.h"

#include <assert.h>
#include <math.h>

#define TILE BT_ATTENTION_TILE_TOKENS
/* From so many rows on a tile of bf16 is better widened once than by every row. */
#define WIDEN_ROWS_MIN 4u

/* A row is one query head: row i * group + head is query i. */
typedef struct {
    float *q;       /* [rows][head_dim] */
    float *scores;  /* [rows][16]: scores, then weights */
    float *highest; /* [rows] */
    float *total;   /* [rows] */
    float *k, *v;   /* [16][head_dim] a widened tile */
    float *turned;  /* [head_dim][16] a tile of K, token by token */
} state;

/* A tile of K or V as rows of f32 or bf16. */
typedef struct {
    const void *rows;
    bt_dtype dtype;
} tile_view;

static inline float *carve(uint8_t **at, size_t count)
{
    float *piece = (float *)(((uintptr_t)*at + 63) & ~(uintptr_t)63);
    *at = (uint8_t *)(piece + count);
    return piece;
}

static inline void prepare(const bt_attention *op, void *scratch, state *ret)
{
    uint32_t head_dim = op->kv->shape.head_dim, rows = op->count * op->group;
    uint8_t *at = scratch;
    ret->q = carve(&at, (size_t)rows * head_dim);
    ret->scores = carve(&at, (size_t)rows * TILE);
    ret->k = carve(&at, (size_t)TILE * head_dim);
    ret->v = carve(&at, (size_t)TILE * head_dim);
    ret->turned = carve(&at, (size_t)TILE * head_dim);
    ret->highest = (float *)at;
    ret->total = ret->highest + rows;
    for (uint32_t i = 0; i < op->count; i++) {
        size_t bytes = (size_t)op->group * head_dim * sizeof(float);
        memcpy(ret->q + (size_t)i * op->group * head_dim, op->q + (size_t)i * op->q_stride, bytes);
        memset(op->o + (size_t)i * op->o_stride, 0, bytes);
    }
    for (uint32_t row = 0; row < rows; row++) {
        ret->highest[row] = -INFINITY;
        ret->total[row] = 0;
    }
}

static inline void widen_e4m3(const uint8_t *codes, const uint16_t *scales, uint32_t tokens,
                              uint32_t head_dim, float *ret)
{
    for (uint32_t token = 0; token < tokens; token++) {
        __m256 scale = _mm256_set1_ps(256.0f * bt_f16_to_f32(scales[token]));
        for (uint32_t i = 0; i < head_dim; i += 8, codes += 8, ret += 8)
            _mm256_storeu_ps(ret, _mm256_mul_ps(load8_e4m3(codes), scale));
    }
}

static inline void widen_int8(const uint8_t *codes, const uint16_t *scales, uint32_t tokens,
                              uint32_t head_dim, float *ret)
{
    for (uint32_t token = 0; token < tokens; token++) {
        __m256 scale = _mm256_set1_ps(bt_f16_to_f32(scales[token]));
        for (uint32_t i = 0; i < head_dim; i += 8, codes += 8, ret += 8) {
            __m256i code = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)codes));
            _mm256_storeu_ps(ret, _mm256_mul_ps(_mm256_cvtepi32_ps(code), scale));
        }
    }
}

static inline void widen_bf16(const uint8_t *codes, size_t count, float *ret)
{
    for (size_t i = 0; i < count; i += 8) _mm256_storeu_ps(ret + i, load8(BT_DTYPE_BF16, codes, i));
}

/* The tile that begins at `token`, of which the first `tokens` are wanted. */
static inline tile_view tile_of(const bt_attention *op, bt_kv_part part, uint32_t token,
                                uint32_t tokens, float *room)
{
    const bt_kv_shape *shape = &op->kv->shape;
    uint32_t row = token % shape->block_tokens;
    const uint8_t *codes =
        bt_kv_at(op->kv, op->blocks[token / shape->block_tokens], op->layer, part, op->kv_head);
    const uint16_t *scales = (const uint16_t *)(codes + bt_kv_codes_bytes(shape)) + row;
    codes += (size_t)row * shape->head_dim * bt_dtype_bytes(shape->dtype);
    switch (shape->dtype) {
    case BT_DTYPE_F32: return (tile_view){codes, BT_DTYPE_F32};
    case BT_DTYPE_BF16:
        if (op->count * op->group < WIDEN_ROWS_MIN) return (tile_view){codes, BT_DTYPE_BF16};
        widen_bf16(codes, (size_t)tokens * shape->head_dim, room);
        break;
    case BT_DTYPE_FP8_E4M3: widen_e4m3(codes, scales, tokens, shape->head_dim, room); break;
    case BT_DTYPE_INT8: widen_int8(codes, scales, tokens, shape->head_dim, room); break;
    default: assert(!"not a dtype of KV pools");
    }
    return (tile_view){room, BT_DTYPE_F32};
}

/* The first token that the query sees. */
static inline uint32_t window_start(const bt_attention *op, uint32_t query)
{
    uint32_t position = op->position + query;
    return op->window && position >= op->window ? position - op->window + 1 : 0;
}

/* Takes the tokens [token, +16) into the rows of every query that sees one of them at least. */
typedef void take_tile_fn(const bt_attention *op, state *at, uint32_t token);

BT_INLINE void attend(const bt_attention *op, void *scratch, take_tile_fn *take_tile)
{
    uint32_t head_dim = op->kv->shape.head_dim;
    assert(head_dim % 8 == 0 && op->kv->shape.block_tokens % TILE == 0);
    assert(op->count > 0 && op->count <= BT_ATTENTION_QUERIES_MAX);
    state at;
    prepare(op, scratch, &at);
    uint32_t token = window_start(op, 0) / TILE * TILE;
    for (; token < op->position + op->count; token += TILE) take_tile(op, &at, token);
    for (uint32_t row = 0; row < op->count * op->group; row++) {
        float *o = op->o + (size_t)(row / op->group) * op->o_stride + row % op->group * head_dim;
        __m256 inverse = _mm256_set1_ps(1.0f / at.total[row]);
        for (uint32_t i = 0; i < head_dim; i += 8)
            _mm256_storeu_ps(o + i, _mm256_mul_ps(_mm256_loadu_ps(o + i), inverse));
    }
}

#endif
