/* linear_avx512.c - a tile of up to 12 rows by 32 columns in 24 registers; fewer rows take up to
 * 128 columns, so that at least 8 sums hide the latency of the FMA.
 *
 * Per k and panel: 2 loads of weights, a broadcast for each row, 2 FMAs for each row. Operands in the
 * first cache, one core of a Xeon (Sapphire Rapids) at about 3.5 GHz, 2026-11-24: 228 GFLOP/s from 24
 * rows on (224 is the FMA units' rate), 221 with bf16 widened first, 210 widened in registers, 190
 * with 4 rows, 65 with one (which reads 65 GB/s of bf16: more than caches beyond the first give).
 * Lost: 4 panels for 3 rows and more, which spills; epilogues that name the sums, see tile. */
#include "kernels/linear/linear_loops.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
/* How far ahead of a stream of weights one row fetches. */
#define AHEAD_BYTES 2048u

typedef struct {
    __m512 even, odd;
} pair;

/* Columns [16 half, +16) of one panel, k and k + 1; w is at an even k. */
INLINE pair load_pair(bt_dtype dtype, const uint8_t *w, uint32_t half)
{
    if (dtype == BT_DTYPE_F32) {
        const float *at = (const float *)w + half * 16;
        return (pair){_mm512_load_ps(at), _mm512_load_ps(at + BT_LINEAR_PANEL)};
    }
    if (dtype == BT_DTYPE_F16) {
        const __m256i *at = (const __m256i *)w + half;
        return (pair){_mm512_cvtph_ps(_mm256_load_si256(at)),
                      _mm512_cvtph_ps(_mm256_load_si256(at + 2))};
    }
    __m512i words = _mm512_load_si512((const __m512i *)w + half);
    return (pair){
        _mm512_castsi512_ps(_mm512_slli_epi32(words, 16)),
        _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32((int)0xffff0000u)))};
}

/* One k alone: the last of an odd number. */
INLINE __m512 load_last(bt_dtype dtype, const uint8_t *w, uint32_t half)
{
    if (dtype == BT_DTYPE_F32) return _mm512_load_ps((const float *)w + half * 16);
    if (dtype == BT_DTYPE_F16) return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)w + half));
    return load_pair(dtype, w, half).even;
}

/* room: [rows][panels][32], the sums of this block. */
static void put(const linear_tile *t, uint32_t panels, const float *room)
{
    for (uint32_t i = 0; i < t->rows; i++, room += panels * BT_LINEAR_PANEL) {
        float *y = t->y + (size_t)i * t->y_stride;
        for (uint32_t column = 0; column < t->columns; column += 16) {
            uint32_t left = t->columns - column;
            __mmask16 mask = left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
            __m512 sum = _mm512_load_ps(room + column);
            if (t->add) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y + column), sum);
            _mm512_mask_storeu_ps(y + column, mask, sum);
        }
    }
}

/* rows, panels and dtype are constants at each use, 2 rows panels <= 24. */
INLINE void tile(const linear_tile *t, bt_dtype dtype, uint32_t rows, uint32_t panels)
{
    size_t k_bytes = BT_LINEAR_PANEL * (dtype == BT_DTYPE_F32 ? 4 : 2);
    __m512 sum[BT_LINEAR_TILE][8];
    const float *x = t->x;
    const uint8_t *w[4];
    for (uint32_t p = 0; p < panels; p++) w[p] = t->w + p * t->panel_bytes;
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < 2 * panels; c++) sum[i][c] = _mm512_setzero_ps();
    for (uint32_t l = 0; l + 2 <= t->count; l += 2) {
        pair at[8];
        for (uint32_t c = 0; c < 2 * panels; c++) at[c] = load_pair(dtype, w[c / 2], c % 2);
        for (uint32_t p = 0; p < panels; p++) {
            if (rows == 1) {
                _mm_prefetch((const char *)w[p] + AHEAD_BYTES, _MM_HINT_T0);
                _mm_prefetch((const char *)w[p] + AHEAD_BYTES + 64, _MM_HINT_T0);
            }
            w[p] += 2 * k_bytes;
        }
        for (uint32_t i = 0; i < rows; i++) {
            __m512 value = _mm512_set1_ps(x[i]);
            for (uint32_t c = 0; c < 2 * panels; c++)
                sum[i][c] = _mm512_fmadd_ps(value, at[c].even, sum[i][c]);
        }
        x += t->step;
        for (uint32_t i = 0; i < rows; i++) {
            __m512 value = _mm512_set1_ps(x[i]);
            for (uint32_t c = 0; c < 2 * panels; c++)
                sum[i][c] = _mm512_fmadd_ps(value, at[c].odd, sum[i][c]);
        }
        x += t->step;
    }
    if (t->count % 2) {
        for (uint32_t c = 0; c < 2 * panels; c++) {
            __m512 last = load_last(dtype, w[c / 2], c % 2);
            for (uint32_t i = 0; i < rows; i++)
                sum[i][c] = _mm512_fmadd_ps(_mm512_set1_ps(x[i]), last, sum[i][c]);
        }
    }
    /* A loop small enough to be unrolled: gcc 12 keeps sums in memory that a larger one names. */
    _Alignas(64) float room[24 * 16];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < 2 * panels; c++)
            _mm512_store_ps(room + (i * 2 * panels + c) * 16, sum[i][c]);
    put(t, panels, room);
}

static uint32_t panels_of(uint32_t rows)
{
    return rows <= 2 ? 4 : rows <= 6 ? 2 : 1;
}

/* panels at once if they are there, else one by one. */
INLINE void tiles(const linear_tile *t, bt_dtype dtype, uint32_t rows, uint32_t panels)
{
    if (t->panels == panels) {
        tile(t, dtype, rows, panels);
        return;
    }
    linear_tile one = *t;
    for (uint32_t p = 0; p < t->panels; p++) {
        one.columns = linear_min(t->columns - p * BT_LINEAR_PANEL, BT_LINEAR_PANEL);
        tile(&one, dtype, rows, 1);
        one.w += t->panel_bytes;
        one.y += BT_LINEAR_PANEL;
    }
}

INLINE void tile_rows(const linear_tile *t, bt_dtype dtype)
{
    switch (t->rows) {
    case 1: tiles(t, dtype, 1, 4); return;
    case 2: tiles(t, dtype, 2, 4); return;
    case 3: tiles(t, dtype, 3, 2); return;
    case 4: tiles(t, dtype, 4, 2); return;
    case 5: tiles(t, dtype, 5, 2); return;
    case 6: tiles(t, dtype, 6, 2); return;
    case 7: tile(t, dtype, 7, 1); return;
    case 8: tile(t, dtype, 8, 1); return;
    case 9: tile(t, dtype, 9, 1); return;
    case 10: tile(t, dtype, 10, 1); return;
    case 11: tile(t, dtype, 11, 1); return;
    default: tile(t, dtype, 12, 1); return;
    }
}

static void tile_f32(const linear_tile *t)
{
    tile_rows(t, BT_DTYPE_F32);
}

static void tile_f16(const linear_tile *t)
{
    tile_rows(t, BT_DTYPE_F16);
}

static void tile_bf16(const linear_tile *t)
{
    tile_rows(t, BT_DTYPE_BF16);
}

INLINE void widen(bt_dtype dtype, const uint8_t *w, uint32_t count, float *ret)
{
    for (uint32_t l = 0; l + 2 <= count; l += 2, w += 128, ret += 2 * BT_LINEAR_PANEL) {
        pair low = load_pair(dtype, w, 0), high = load_pair(dtype, w, 1);
        _mm512_store_ps(ret, low.even);
        _mm512_store_ps(ret + 16, high.even);
        _mm512_store_ps(ret + 32, low.odd);
        _mm512_store_ps(ret + 48, high.odd);
    }
    if (count % 2) {
        _mm512_store_ps(ret, load_last(dtype, w, 0));
        _mm512_store_ps(ret + 16, load_last(dtype, w, 1));
    }
}

static void widen_f16(const uint8_t *w, uint32_t count, float *ret)
{
    widen(BT_DTYPE_F16, w, count, ret);
}

static void widen_bf16(const uint8_t *w, uint32_t count, float *ret)
{
    widen(BT_DTYPE_BF16, w, count, ret);
}

static void run(const bt_linear *op, uint32_t first, uint32_t end, void *scratch)
{
    static const linear_kernel f32 = {tile_f32, tile_f32, NULL, panels_of};
    static const linear_kernel f16 = {tile_f16, tile_f32, widen_f16, panels_of};
    static const linear_kernel bf16 = {tile_bf16, tile_f32, widen_bf16, panels_of};
    switch (op->w->dtype) {
    case BT_DTYPE_F32: linear_run(op, &f32, first, end, scratch); return;
    case BT_DTYPE_F16: linear_run(op, &f16, first, end, scratch); return;
    case BT_DTYPE_BF16: linear_run(op, &bf16, first, end, scratch); return;
    default: assert(!"not a dtype of packed weights");
    }
}

const bt_linear_ops bt_linear_avx512 = {
    .tile_rows = BT_LINEAR_TILE, .x_bytes = linear_x_bytes, .pack_x = linear_pack_x, .run = run};
