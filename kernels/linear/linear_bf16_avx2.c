/* linear_bf16_avx2.c - what AMX computes, with FMAs of f32, as linear_bf16_avx512.c: 4 rows by 8
 * columns. On such a CPU the products in f32 are faster and nearer: this is for fleets that agree. */
#include "kernels/linear/linear_bf16.h"

#include "kernels/avx2.h"

typedef struct {
    const uint8_t *w; /* a panel */
    const float *x;   /* [k][step], at the first row */
    float *y;
    uint32_t k, step, y_stride, columns;
} bf16_tile;

/* Columns [8 eighth, +8); rows is a constant at each use. */
BT_INLINE void tile(const bf16_tile *t, uint32_t eighth, uint32_t rows)
{
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
    const __m256i *w = (const __m256i *)t->w + eighth;
    const float *x = t->x;
    __m256 total[4];
    for (uint32_t i = 0; i < rows; i++) total[i] = _mm256_setzero_ps();
    for (uint32_t first = 0; first < t->k; first += BF16_STEP) {
        __m256 even[4], odd[4];
        for (uint32_t i = 0; i < rows; i++) even[i] = odd[i] = _mm256_setzero_ps();
        for (uint32_t l = 0; l < BF16_STEP; l += 2, w += 4, x += 2 * t->step) {
            __m256i words = _mm256_load_si256(w);
            __m256 w_even = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
            __m256 w_odd = _mm256_castsi256_ps(_mm256_and_si256(words, upper));
            for (uint32_t i = 0; i < rows; i++) {
                even[i] = _mm256_fmadd_ps(_mm256_broadcast_ss(x + i), w_even, even[i]);
                odd[i] = _mm256_fmadd_ps(_mm256_broadcast_ss(x + t->step + i), w_odd, odd[i]);
            }
        }
        for (uint32_t i = 0; i < rows; i++)
            total[i] = _mm256_add_ps(total[i], _mm256_add_ps(even[i], odd[i]));
    }
    for (uint32_t i = 0; i < rows; i++) {
        float *y = t->y + (size_t)i * t->y_stride + eighth * 8;
        if (t->columns - eighth * 8 >= 8)
            _mm256_storeu_ps(y, total[i]);
        else
            store_tail(y, total[i], t->columns - eighth * 8);
    }
}

static void tile_rows(const bf16_tile *t, uint32_t rows)
{
    for (uint32_t eighth = 0; eighth < 4 && eighth * 8 < t->columns; eighth++) {
        switch (rows) {
        case 1: tile(t, eighth, 1); break;
        case 2: tile(t, eighth, 2); break;
        case 3: tile(t, eighth, 3); break;
        default: tile(t, eighth, 4); break;
        }
    }
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void panels(const bt_linear *op, uint32_t first, uint32_t end)
{
    const bt_linear_weights *w = op->w;
    bf16_tile t = {.k = bf16_k(w->k), .y_stride = op->y_stride};
    for (uint32_t panel = first; panel < end; panel++) {
        uint32_t column = panel * BT_LINEAR_PANEL;
        t.columns = min_u32(BT_LINEAR_PANEL, w->n - column);
        t.w = (const uint8_t *)w->panels + panel * bt_linear_panel_bytes(BT_DTYPE_BF16, w->k);
        for (uint32_t row = 0; row < op->m; row += BT_LINEAR_TILE) {
            t.step = min_u32(op->m - row, BT_LINEAR_TILE);
            for (uint32_t i = 0; i < t.step; i += 4) {
                t.x = (const float *)op->x + (size_t)row * t.k + i;
                t.y = op->y + (size_t)(row + i) * op->y_stride + column;
                tile_rows(&t, min_u32(t.step - i, 4));
            }
        }
    }
}

static void run(const bt_linear *op, uint32_t first, uint32_t end, void *scratch)
{
    (void)scratch;
    assert(first <= end && end <= bt_linear_panels(op->w->n));
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | BF16_FLUSH);
    panels(op, first, end);
    _mm_setcsr(mode);
}

const bt_linear_ops bt_linear_bf16_avx2 = {
    .tile_rows = BT_LINEAR_TILE, .x_bytes = bf16_x_bytes, .pack_x = bf16_pack_x, .run = run};
