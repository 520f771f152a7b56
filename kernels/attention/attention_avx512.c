/* attention_avx512.c - tiles of 16 tokens, one to a lane.
 *
 * From four query rows on a tile of K is turned, so that a score is eight sums over d = i mod 8 in
 * one lane, added as kernels/avx2.h says: the bits of a dot product there, without its shuffles.
 * Fewer rows take the dot products. Rows that see the whole tile take V four at a time, each load
 * serving all. The results are those of attention_avx2.c to the bit.
 *
 * 16 queries after 500 tokens, head_dim 64, one core of a Xeon (Sapphire Rapids), 2026-11-24: groups
 * of 4 over bf16 91 GFLOP/s (AVX2 53), over fp8 85 (51); one query 48 (40) and 30 (26). Not tried:
 * turning a tile while it is widened. */
#include "kernels/attention/attention_loops.h"

#include "kernels/avx512.h"

/* 16 rows of 16 floats, `stride` floats apart, to columns. */
BT_INLINE void turn16(const float *rows, uint32_t stride, float *ret)
{
    __m512 a[16], b[16];
    for (uint32_t i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(rows + (size_t)i * stride);
    for (uint32_t i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (uint32_t i = 0; i < 16; i += 4) {
        __m512d low[2] = {_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 1])};
        __m512d high[2] = {_mm512_castps_pd(b[i + 2]), _mm512_castps_pd(b[i + 3])};
        a[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(low[0], high[0]));
        a[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low[0], high[0]));
        a[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(low[1], high[1]));
        a[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(low[1], high[1]));
    }
    for (uint32_t i = 0; i < 4; i++) {
        b[i] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88);
        b[i + 4] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
        b[i + 8] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88);
        b[i + 12] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
    }
    for (uint32_t i = 0; i < 4; i++) {
        _mm512_store_ps(ret + (size_t)i * 16, _mm512_shuffle_f32x4(b[i], b[i + 8], 0x88));
        _mm512_store_ps(ret + (size_t)(i + 8) * 16, _mm512_shuffle_f32x4(b[i], b[i + 8], 0xdd));
        _mm512_store_ps(ret + (size_t)(i + 4) * 16,
                        _mm512_shuffle_f32x4(b[i + 4], b[i + 12], 0x88));
        _mm512_store_ps(ret + (size_t)(i + 12) * 16,
                        _mm512_shuffle_f32x4(b[i + 4], b[i + 12], 0xdd));
    }
}

/* A tile [16][head_dim] to [head_dim][16]. */
static void turn(const float *rows, uint32_t head_dim, float *ret)
{
    uint32_t i = 0;
    for (; i + 16 <= head_dim; i += 16) turn16(rows + i, head_dim, ret + (size_t)i * TILE);
    for (; i < head_dim; i++)
        for (uint32_t token = 0; token < TILE; token++)
            ret[(size_t)i * TILE + token] = rows[(size_t)token * head_dim + i];
}

/* Scores of `rows` rows with the turned tile; rows is a constant at each use. */
BT_INLINE void score_rows(const float *q, const float *turned, uint32_t head_dim, uint32_t rows,
                          float *ret_scores)
{
    __m512 sum[3][8];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t lane = 0; lane < 8; lane++) sum[i][lane] = _mm512_setzero_ps();
    for (uint32_t d = 0; d < head_dim; d += 8) {
        for (uint32_t lane = 0; lane < 8; lane++) {
            __m512 k = _mm512_load_ps(turned + (size_t)(d + lane) * TILE);
            for (uint32_t i = 0; i < rows; i++)
                sum[i][lane] = _mm512_fmadd_ps(_mm512_set1_ps(q[(size_t)i * head_dim + d + lane]),
                                               k, sum[i][lane]);
        }
    }
    for (uint32_t i = 0; i < rows; i++) {
        __m512 low =
            _mm512_add_ps(_mm512_add_ps(sum[i][0], sum[i][1]), _mm512_add_ps(sum[i][2], sum[i][3]));
        __m512 high =
            _mm512_add_ps(_mm512_add_ps(sum[i][4], sum[i][5]), _mm512_add_ps(sum[i][6], sum[i][7]));
        _mm512_storeu_ps(ret_scores + (size_t)i * TILE, _mm512_add_ps(low, high));
    }
}

static void score_turned(const float *q, const float *turned, uint32_t head_dim, uint32_t rows,
                         float *ret_scores)
{
    uint32_t row = 0;
    for (; row + 3 <= rows; row += 3)
        score_rows(q + (size_t)row * head_dim, turned, head_dim, 3,
                   ret_scores + (size_t)row * TILE);
    for (; row < rows; row++)
        score_rows(q + (size_t)row * head_dim, turned, head_dim, 1,
                   ret_scores + (size_t)row * TILE);
}

/* Scores to weights of the tokens [hidden, seen), 0 for the others; returns what the older sums must
 * be scaled by. */
static float soften(state *at, uint32_t row, uint32_t hidden, uint32_t seen, float scale)
{
    float *scores = at->scores + (size_t)row * TILE;
    __mmask16 visible = (__mmask16)((unsigned)lanes16(seen) & ~(unsigned)lanes16(hidden));
    __m512 x = _mm512_mul_ps(_mm512_loadu_ps(scores), _mm512_set1_ps(scale));
    x = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), visible, x);
    __m256 a = _mm512_castps512_ps256(x), b = _mm512_extractf32x8_ps(x, 1);
    float highest = fmaxf(at->highest[row], max1(_mm256_max_ps(a, b)));
    x = exp16(_mm512_sub_ps(x, _mm512_set1_ps(highest)));
    _mm512_storeu_ps(scores, x);
    float shrink = 1.0f; /* what exp8 makes of 0 */
    if (highest != at->highest[row])
        shrink = _mm256_cvtss_f32(exp8(_mm256_set1_ps(at->highest[row] - highest)));
    at->highest[row] = highest;
    a = _mm512_castps512_ps256(x);
    b = _mm512_extractf32x8_ps(x, 1);
    at->total[row] = at->total[row] * shrink + sum1(_mm256_add_ps(a, b));
    return shrink;
}

/* Sixteen of a row of V. */
BT_INLINE __m512 load16(bt_dtype dtype, const void *row, size_t index, __mmask16 mask)
{
    if (dtype == BT_DTYPE_F32) return _mm512_maskz_loadu_ps(mask, (const float *)row + index);
    __m256i halves = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)row + index);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

/* For each of `rows` rows: o = o * shrink + sum over tokens, in order, of weight * V, over `vectors`
 * times 16 values from `first` on, the last of them under a mask. rows, vectors: constants. */
BT_INLINE void add_part(bt_dtype dtype, const void *values, uint32_t head_dim, uint32_t first,
                        const float *weights, uint32_t tokens, const float *shrink, float *const *o,
                        uint32_t rows, uint32_t vectors, __mmask16 mask)
{
    __m512 sum[4][4];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t v = 0; v < vectors; v++)
            sum[i][v] = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, o[i] + first + v * 16),
                                      _mm512_set1_ps(shrink[i]));
    for (uint32_t token = 0; token < tokens; token++) {
        for (uint32_t v = 0; v < vectors; v++) {
            __m512 value = load16(dtype, values, (size_t)token * head_dim + first + v * 16, mask);
            for (uint32_t i = 0; i < rows; i++)
                sum[i][v] = _mm512_fmadd_ps(_mm512_set1_ps(weights[(size_t)i * TILE + token]),
                                            value, sum[i][v]);
        }
    }
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t v = 0; v < vectors; v++)
            _mm512_mask_storeu_ps(o[i] + first + v * 16, mask, sum[i][v]);
}

BT_INLINE void add_values(bt_dtype dtype, const void *values, uint32_t head_dim,
                          const float *weights, uint32_t tokens, const float *shrink,
                          float *const *o, uint32_t rows)
{
    uint32_t first = 0;
    for (; first + 64 <= head_dim; first += 64)
        add_part(dtype, values, head_dim, first, weights, tokens, shrink, o, rows, 4, 0xffff);
    for (; first < head_dim; first += 16)
        add_part(dtype, values, head_dim, first, weights, tokens, shrink, o, rows, 1,
                 lanes16(head_dim - first));
}

static float *output(const bt_attention *op, uint32_t row)
{
    return op->o + (size_t)(row / op->group) * op->o_stride +
           (size_t)(row % op->group) * op->kv->shape.head_dim;
}

/* Tokens of the tile that the row sees: [*ret_hidden, return). */
static uint32_t seen_by(const bt_attention *op, uint32_t row, uint32_t token, uint32_t *ret_hidden)
{
    uint32_t query = row / op->group, seen = op->position + query + 1 - token;
    uint32_t start = window_start(op, query);
    *ret_hidden = start > token ? start - token : 0;
    return seen < TILE ? seen : TILE;
}

/* Weights of the rows [row, +rows), 1 or 4, and their part of V. Several see the whole tile. */
static void take_rows(const bt_attention *op, state *at, tile_view v, uint32_t token, uint32_t row,
                      uint32_t rows)
{
    uint32_t head_dim = op->kv->shape.head_dim, hidden, seen = seen_by(op, row, token, &hidden);
    float shrink[4], *o[4], scale = 1.0f / sqrtf((float)head_dim);
    for (uint32_t i = 0; i < rows; i++) {
        shrink[i] = soften(at, row + i, hidden, seen, scale);
        o[i] = output(op, row + i);
    }
    const float *weights = at->scores + (size_t)row * TILE + hidden;
    const void *values =
        (const uint8_t *)v.rows + (size_t)hidden * head_dim * bt_dtype_bytes(v.dtype);
    if (v.dtype == BT_DTYPE_BF16)
        for (uint32_t i = 0; i < rows; i++)
            add_values(BT_DTYPE_BF16, values, head_dim, weights + i * TILE, seen - hidden,
                       shrink + i, o + i, 1);
    else if (rows == 4)
        add_values(BT_DTYPE_F32, values, head_dim, weights, seen - hidden, shrink, o, 4);
    else
        add_values(BT_DTYPE_F32, values, head_dim, weights, seen - hidden, shrink, o, 1);
}

static bool sees_all(const bt_attention *op, uint32_t row, uint32_t token)
{
    uint32_t hidden, seen = seen_by(op, row, token, &hidden);
    return hidden == 0 && seen == TILE;
}

static void take_tile(const bt_attention *op, state *at, uint32_t token)
{
    uint32_t head_dim = op->kv->shape.head_dim, rows = op->count * op->group;
    uint32_t first_query = token > op->position ? token - op->position : 0;
    uint32_t end = op->position + op->count; /* tokens that the last query sees */
    uint32_t tokens = end - token < TILE ? end - token : TILE, row = first_query * op->group;
    while (window_start(op, rows / op->group - 1) >= token + TILE) rows -= op->group;
    tile_view k = tile_of(op, BT_KV_K, token, tokens, at->k);
    tile_view v = tile_of(op, BT_KV_V, token, tokens, at->v);
    const float *q = at->q + (size_t)row * head_dim;
    float *scores = at->scores + (size_t)row * TILE;
    if (k.dtype == BT_DTYPE_F32 && rows - row >= WIDEN_ROWS_MIN) {
        turn(k.rows, head_dim, at->turned);
        score_turned(q, at->turned, head_dim, rows - row, scores);
    } else {
        const bt_matmul products = {.x = q,
                                    .w = k.rows,
                                    .y = scores,
                                    .w_dtype = k.dtype,
                                    .m = rows - row,
                                    .n = TILE,
                                    .k = head_dim,
                                    .x_stride = head_dim,
                                    .y_stride = TILE};
        bt_matmul_avx2(&products, 0, TILE);
    }
    while (row < rows) {
        bool four = row + 4 <= rows && sees_all(op, row, token) && sees_all(op, row + 3, token);
        take_rows(op, at, v, token, row, four ? 4 : 1);
        row += four ? 4 : 1;
    }
}

void bt_attention_avx512(const bt_attention *op, void *scratch)
{
    attend(op, scratch, take_tile);
}
