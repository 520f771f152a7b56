/* linear_bf16_avx2.c - what AMX computes, with FMAs of f32, as linear_bf16_avx512.c: one row by 32
 * columns, two by 16, four by 8. On such a CPU the products in f32 are faster and nearer: this is for
 * fleets that agree. */
#include "kernels/linear/linear_bf16.h"

#include "kernels/avx2.h"

BT_INLINE __m256 load_y(const bf16_tile *t, uint32_t row, uint32_t eighth)
{
    const float *y = t->y + (size_t)row * t->y_stride;
    if (t->columns >= eighth * 8 + 8) return _mm256_loadu_ps(y + eighth * 8);
    return load_tail(BT_DTYPE_F32, y, eighth * 8, t->columns - eighth * 8);
}

BT_INLINE void store_y(const bf16_tile *t, uint32_t row, uint32_t eighth, __m256 total)
{
    float *y = t->y + (size_t)row * t->y_stride + eighth * 8;
    if (t->columns >= eighth * 8 + 8)
        _mm256_storeu_ps(y, total);
    else
        store_tail(y, total, t->columns - eighth * 8);
}

/* One step of k: its two sums, of even and of odd k, are added to total. */
BT_INLINE void step(const __m256i *w, const float *x, uint32_t x_step, uint32_t rows, uint32_t wide,
                    __m256 (*total)[4])
{
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
    __m256 even[4][4], odd[4][4];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < wide; c++) even[i][c] = odd[i][c] = _mm256_setzero_ps();
    for (uint32_t l = 0; l < BF16_STEP; l += 2, w += 4, x += 2 * x_step) {
        for (uint32_t c = 0; c < wide; c++) {
            __m256i words = _mm256_load_si256(w + c);
            __m256 w_even = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
            __m256 w_odd = _mm256_castsi256_ps(_mm256_and_si256(words, upper));
            for (uint32_t i = 0; i < rows; i++) {
                even[i][c] = _mm256_fmadd_ps(_mm256_broadcast_ss(x + i), w_even, even[i][c]);
                odd[i][c] = _mm256_fmadd_ps(_mm256_broadcast_ss(x + x_step + i), w_odd, odd[i][c]);
            }
        }
    }
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < wide; c++)
            total[i][c] = _mm256_add_ps(total[i][c], _mm256_add_ps(even[i][c], odd[i][c]));
}

/* Columns [8 eighth, 8 (eighth + wide)); rows and wide are constants at each use. */
BT_INLINE void columns(const bf16_tile *t, uint32_t eighth, uint32_t rows, uint32_t wide)
{
    __m256 total[4][4];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < wide; c++)
            total[i][c] = t->add && (eighth + c) * 8 < t->columns ? load_y(t, i, eighth + c)
                                                                  : _mm256_setzero_ps();
    const __m256i *w = (const __m256i *)t->w + eighth;
    for (uint32_t l = 0; l < t->count; l += BF16_STEP)
        step(w + 2 * l, t->x + (size_t)l * t->step, t->step, rows, wide, total);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < wide && (eighth + c) * 8 < t->columns; c++)
            store_y(t, i, eighth + c, total[i][c]);
}

static void tile(const bf16_tile *t, uint32_t rows)
{
    if (rows == 1) {
        columns(t, 0, 1, 4);
        return;
    }
    for (uint32_t eighth = 0; eighth < 4 && eighth * 8 < t->columns; eighth++) {
        switch (rows) {
        case 2:
            columns(t, eighth, 2, 2);
            eighth++;
            break;
        case 3: columns(t, eighth, 3, 1); break;
        default: columns(t, eighth, 4, 1); break;
        }
    }
}

static void run(const bt_linear *op, uint32_t first, uint32_t end, void *scratch)
{
    (void)scratch;
    bf16_run(op, first, end, tile);
}

const bt_linear_ops bt_linear_bf16_avx2 = {
    .tile_rows = BT_LINEAR_TILE, .x_bytes = bf16_x_bytes, .pack_x = bf16_pack_x, .run = run};
