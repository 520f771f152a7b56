/* linear_avx2.c - a tile of 4 rows by 16 columns in 8 registers, 6 rows in 12 where weights are
 * widened in registers; fewer rows take up to 64 columns.
 *
 * Per k and 16 columns: 2 loads of weights, a broadcast for each row, 2 FMAs for each row. Measured as
 * linear_avx512.c says: 106 GFLOP/s of 112 from 24 rows on, 103 with bf16 widened first, 112 widened
 * in registers, 65 with one row of f32 and 53 of bf16. Lost: 6 rows of f32 (78), see tile_rows. */
#include "kernels/linear/linear_loops.h"

#include "kernels/avx2.h"

#define AHEAD_BYTES 2048u

/* Columns [8 eighth, +8) of one panel, k + odd; w is at an even k. */
BT_INLINE __m256 load_columns(bt_dtype dtype, const uint8_t *w, uint32_t eighth, uint32_t odd)
{
    if (dtype == BT_DTYPE_F32)
        return _mm256_load_ps((const float *)w + odd * BT_LINEAR_PANEL + eighth * 8);
    if (dtype == BT_DTYPE_F16)
        return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)w + odd * 4 + eighth));
    __m256i words = _mm256_load_si256((const __m256i *)w + eighth);
    return _mm256_castsi256_ps(odd ? _mm256_and_si256(words, _mm256_set1_epi32((int)0xffff0000u))
                                   : _mm256_slli_epi32(words, 16));
}

/* room: [rows][vectors][8], the sums of this block from column 8 eighth on. */
static void put(const linear_tile *t, uint32_t first_row, uint32_t rows, uint32_t eighth,
                uint32_t vectors, const float *room)
{
    for (uint32_t i = 0; i < rows; i++) {
        float *y = t->y + (size_t)(first_row + i) * t->y_stride;
        for (uint32_t c = 0; c < vectors && (eighth + c) * 8 < t->columns; c++) {
            uint32_t column = (eighth + c) * 8, left = t->columns - column;
            __m256 sum = _mm256_load_ps(room + (i * vectors + c) * 8);
            if (left >= 8) {
                if (t->add) sum = _mm256_add_ps(_mm256_loadu_ps(y + column), sum);
                _mm256_storeu_ps(y + column, sum);
                continue;
            }
            if (t->add) sum = _mm256_add_ps(load_tail(BT_DTYPE_F32, y, column, left), sum);
            store_tail(y + column, sum, left);
        }
    }
}

/* `vectors` of 8 columns from column 8 eighth on, which may run into the next panels; all but
 * the tile, the first row and eighth are constants. rows * vectors <= 12. */
BT_INLINE void tile(const linear_tile *t, bt_dtype dtype, uint32_t first_row, uint32_t rows,
                    uint32_t eighth, uint32_t vectors)
{
    size_t k_bytes = BT_LINEAR_PANEL * (dtype == BT_DTYPE_F32 ? 4 : 2);
    __m256 sum[6][8];
    const float *x = t->x + first_row;
    const uint8_t *w[2] = {t->w, t->w + (vectors == 8 ? t->panel_bytes : 0)};
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < vectors; c++) sum[i][c] = _mm256_setzero_ps();
    for (uint32_t l = 0; l + 2 <= t->count; l += 2) {
        if (rows == 1 && vectors == 8) {
            _mm_prefetch((const char *)w[0] + AHEAD_BYTES, _MM_HINT_T0);
            _mm_prefetch((const char *)w[0] + AHEAD_BYTES + 64, _MM_HINT_T0);
            _mm_prefetch((const char *)w[1] + AHEAD_BYTES, _MM_HINT_T0);
            _mm_prefetch((const char *)w[1] + AHEAD_BYTES + 64, _MM_HINT_T0);
        }
        for (uint32_t odd = 0; odd < 2; odd++, x += t->step) {
            __m256 at[8];
            for (uint32_t c = 0; c < vectors; c++) {
                at[c] = load_columns(dtype, w[c / 4], (eighth + c) % 4, odd);
                /* In a register: else gcc 12 loads f32 weights again for every row. */
                if (rows > 1) __asm__("" : "+x"(at[c]));
            }
            for (uint32_t i = 0; i < rows; i++) {
                __m256 value = _mm256_broadcast_ss(x + i);
                for (uint32_t c = 0; c < vectors; c++)
                    sum[i][c] = _mm256_fmadd_ps(value, at[c], sum[i][c]);
            }
        }
        w[0] += 2 * k_bytes;
        w[1] += 2 * k_bytes;
    }
    if (t->count % 2) {
        for (uint32_t c = 0; c < vectors; c++) {
            __m256 last = load_columns(dtype, w[c / 4], (eighth + c) % 4, 0);
            for (uint32_t i = 0; i < rows; i++)
                sum[i][c] = _mm256_fmadd_ps(_mm256_broadcast_ss(x + i), last, sum[i][c]);
        }
    }
    /* A loop small enough to be unrolled: gcc 12 keeps sums in memory that a larger one names. */
    _Alignas(32) float room[12 * 8];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < vectors; c++)
            _mm256_store_ps(room + (i * vectors + c) * 8, sum[i][c]);
    put(t, first_row, rows, eighth, vectors, room);
}

/* Rows [first_row, +rows) of one panel. */
BT_INLINE void panel_rows(const linear_tile *t, bt_dtype dtype, uint32_t first_row, uint32_t rows)
{
    switch (rows) {
    case 1: tile(t, dtype, first_row, 1, 0, 4); return;
    case 2: tile(t, dtype, first_row, 2, 0, 4); return;
    case 3: tile(t, dtype, first_row, 3, 0, 4); return;
    default: break;
    }
    for (uint32_t eighth = 0; eighth < 4; eighth += 2) {
        switch (rows) {
        case 4: tile(t, dtype, first_row, 4, eighth, 2); break;
        case 5: tile(t, dtype, first_row, 5, eighth, 2); break;
        default: tile(t, dtype, first_row, 6, eighth, 2); break;
        }
    }
}

BT_INLINE void tile_rows(const linear_tile *t, bt_dtype dtype)
{
    if (t->rows == 1 && t->panels == 2) {
        tile(t, dtype, 0, 1, 0, 8);
        return;
    }
    linear_tile one = *t;
    for (uint32_t p = 0; p < t->panels; p++) {
        one.columns = linear_min(t->columns - p * BT_LINEAR_PANEL, BT_LINEAR_PANEL);
        /* 4 rows of f32 have full speed; with 6 gcc 12 spills a sum and waits for it. */
        uint32_t most = dtype == BT_DTYPE_F32 ? 4 : 6;
        for (uint32_t row = 0; row < t->rows; row += most)
            panel_rows(&one, dtype, row, linear_min(t->rows - row, most));
        one.w += t->panel_bytes;
        one.y += BT_LINEAR_PANEL;
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

static uint32_t panels_of(uint32_t rows)
{
    return rows == 1 ? 2 : 1;
}

BT_INLINE void widen(bt_dtype dtype, const uint8_t *w, uint32_t count, float *ret)
{
    for (uint32_t l = 0; l + 2 <= count; l += 2, w += 128, ret += 2 * BT_LINEAR_PANEL) {
        for (uint32_t eighth = 0; eighth < 4; eighth++) {
            _mm256_store_ps(ret + eighth * 8, load_columns(dtype, w, eighth, 0));
            _mm256_store_ps(ret + BT_LINEAR_PANEL + eighth * 8, load_columns(dtype, w, eighth, 1));
        }
    }
    if (count % 2)
        for (uint32_t eighth = 0; eighth < 4; eighth++)
            _mm256_store_ps(ret + eighth * 8, load_columns(dtype, w, eighth, 0));
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

const bt_linear_ops bt_linear_avx2 = {
    .tile_rows = BT_LINEAR_TILE, .x_bytes = linear_x_bytes, .pack_x = linear_pack_x, .run = run};
