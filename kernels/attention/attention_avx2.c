/* attention_avx2.c - tiles of 16 tokens, all query rows of the group at once.
 *
 * For each tile: scores of all rows that see it by the matmul kernel (K as the weight matrix, in
 * place if f32, or if bf16 and few rows), softmax with a running maximum, then V is added row by row
 * in token order. Other codes are widened into scratch once for a tile and serve every row: with 32
 * rows over 500 tokens of bf16 that gives 52 GFLOP/s, against 47 in place (head_dim 64, one core of
 * a Xeon, Sapphire Rapids, 2026-11-23). A gather from a table of e4m3 lost to load8_e4m3: 18.5 us
 * against 14.1 for one query of two heads over 500 tokens.
 * Flops per query head and token: 4 head_dim; bytes per KV head and token: 2 rows of codes. The demo
 * model spends 17 % of a prefill of 1,000 tokens here (perf, same machine). */
#include "kernels/attention/attention_loops.h"

/* Scores to weights of the tokens [hidden, seen), 0 for the others; returns what the older sums must
 * be scaled by. */
static float soften(state *at, uint32_t row, uint32_t hidden, uint32_t seen, float scale)
{
    static const float lane[TILE] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    float *scores = at->scores + (size_t)row * TILE;
    __m256 limit = _mm256_set1_ps((float)seen), minus = _mm256_set1_ps(-INFINITY);
    __m256 least = _mm256_set1_ps((float)hidden);
    __m256 unit = _mm256_set1_ps(scale);
    __m256 a = _mm256_mul_ps(_mm256_loadu_ps(scores), unit);
    __m256 b = _mm256_mul_ps(_mm256_loadu_ps(scores + 8), unit);
    a = _mm256_blendv_ps(minus, a, _mm256_cmp_ps(_mm256_loadu_ps(lane), limit, _CMP_LT_OQ));
    b = _mm256_blendv_ps(minus, b, _mm256_cmp_ps(_mm256_loadu_ps(lane + 8), limit, _CMP_LT_OQ));
    a = _mm256_blendv_ps(minus, a, _mm256_cmp_ps(_mm256_loadu_ps(lane), least, _CMP_GE_OQ));
    b = _mm256_blendv_ps(minus, b, _mm256_cmp_ps(_mm256_loadu_ps(lane + 8), least, _CMP_GE_OQ));

    float highest = fmaxf(at->highest[row], max1(_mm256_max_ps(a, b)));
    __m256 top = _mm256_set1_ps(highest);
    a = exp8(_mm256_sub_ps(a, top));
    b = exp8(_mm256_sub_ps(b, top));
    _mm256_storeu_ps(scores, a);
    _mm256_storeu_ps(scores + 8, b);
    float shrink = 1.0f; /* what exp8 makes of 0 */
    if (highest != at->highest[row])
        shrink = _mm256_cvtss_f32(exp8(_mm256_set1_ps(at->highest[row] - highest)));
    at->highest[row] = highest;
    at->total[row] = at->total[row] * shrink + sum1(_mm256_add_ps(a, b));
    return shrink;
}

/* o[0 .. width) = o * shrink + sum over tokens, in order, of weight * V; width is a constant. */
BT_INLINE void add_values_of(uint32_t width, bt_dtype dtype, const void *rows, uint32_t head_dim,
                             uint32_t first, const float *weights, uint32_t seen, float shrink,
                             float *o)
{
    __m256 sum[8];
    __m256 factor = _mm256_set1_ps(shrink);
    for (uint32_t i = 0; i < width / 8; i++)
        sum[i] = _mm256_mul_ps(_mm256_loadu_ps(o + i * 8), factor);
    for (uint32_t token = 0; token < seen; token++) {
        __m256 weight = _mm256_broadcast_ss(weights + token);
        size_t at = (size_t)token * head_dim + first;
        for (uint32_t i = 0; i < width / 8; i++)
            sum[i] = _mm256_fmadd_ps(weight, load8(dtype, rows, at + i * 8), sum[i]);
    }
    for (uint32_t i = 0; i < width / 8; i++) _mm256_storeu_ps(o + i * 8, sum[i]);
}

BT_INLINE void add_values(bt_dtype dtype, const void *rows, uint32_t head_dim, const float *weights,
                          uint32_t seen, float shrink, float *o)
{
    uint32_t i = 0;
    for (; i + 64 <= head_dim; i += 64)
        add_values_of(64, dtype, rows, head_dim, i, weights, seen, shrink, o + i);
    for (; i + 32 <= head_dim; i += 32)
        add_values_of(32, dtype, rows, head_dim, i, weights, seen, shrink, o + i);
    for (; i < head_dim; i += 8)
        add_values_of(8, dtype, rows, head_dim, i, weights, seen, shrink, o + i);
}

/* Takes the tokens [token, +16) into the rows of every query that sees one of them at least. */
static void take_tile(const bt_attention *op, state *at, uint32_t token)
{
    uint32_t head_dim = op->kv->shape.head_dim, rows = op->count * op->group;
    uint32_t first_query = token > op->position ? token - op->position : 0;
    uint32_t end = op->position + op->count; /* tokens that the last query sees */
    uint32_t tokens = end - token < TILE ? end - token : TILE;
    uint32_t row = first_query * op->group;
    while (window_start(op, rows / op->group - 1) >= token + TILE) rows -= op->group;
    float scale = 1.0f / sqrtf((float)head_dim);

    tile_view k = tile_of(op, BT_KV_K, token, tokens, at->k);
    tile_view v = tile_of(op, BT_KV_V, token, tokens, at->v);
    const bt_matmul scores = {.x = at->q + (size_t)row * head_dim,
                              .w = k.rows,
                              .y = at->scores + (size_t)row * TILE,
                              .w_dtype = k.dtype,
                              .m = rows - row,
                              .n = TILE,
                              .k = head_dim,
                              .x_stride = head_dim,
                              .y_stride = TILE};
    bt_matmul_avx2(&scores, 0, TILE);
    for (; row < rows; row++) {
        uint32_t query = row / op->group, head = row % op->group;
        uint32_t seen = op->position + query + 1 - token;
        if (seen > TILE) seen = TILE;
        uint32_t start = window_start(op, query), hidden = start > token ? start - token : 0;
        float *o = op->o + (size_t)query * op->o_stride + head * head_dim;
        const float *weights = at->scores + (size_t)row * TILE + hidden;
        const void *values =
            (const uint8_t *)v.rows + (size_t)hidden * head_dim * bt_dtype_bytes(v.dtype);
        float shrink = soften(at, row, hidden, seen, scale);
        if (v.dtype == BT_DTYPE_F32)
            add_values(BT_DTYPE_F32, values, head_dim, weights, seen - hidden, shrink, o);
        else
            add_values(BT_DTYPE_BF16, values, head_dim, weights, seen - hidden, shrink, o);
    }
}

void bt_attention_avx2(const bt_attention *op, void *scratch)
{
    attend(op, scratch, take_tile);
}
