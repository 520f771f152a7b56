/* linear_bf16_avx512.c - what AMX computes, with FMAs of f32: for CPUs that have none, so that a
 * fleet agrees. 4 rows by 32 columns, a sum of even and one of odd k for each. VDPBF16PS adds in
 * another order (odd, then even, in one chain) and was no faster than two FMAs where it was tried
 * (Sapphire Rapids). */
#include "kernels/linear/linear_bf16.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* The columns of the panel's half that y has. */
INLINE __mmask16 mask_of(const bf16_tile *t, uint32_t half)
{
    uint32_t left = t->columns > half * 16 ? t->columns - half * 16 : 0;
    return left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
}

/* rows is a constant at each use. */
INLINE void columns(const bf16_tile *t, uint32_t rows)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
    const __m512i *w = (const __m512i *)t->w;
    const float *x = t->x;
    __m512 total[4][2];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < 2; c++)
            total[i][c] = _mm512_maskz_loadu_ps(t->add ? mask_of(t, c) : 0,
                                                t->y + (size_t)i * t->y_stride + c * 16);
    for (uint32_t first = 0; first < t->count; first += BF16_STEP) {
        __m512 even[4][2], odd[4][2];
        for (uint32_t i = 0; i < rows; i++)
            even[i][0] = even[i][1] = odd[i][0] = odd[i][1] = _mm512_setzero_ps();
        for (uint32_t l = 0; l < BF16_STEP; l += 2, w += 2, x += 2 * t->step) {
            __m512i low = _mm512_load_si512(w), high = _mm512_load_si512(w + 1);
            _mm_prefetch((const char *)w + 2048, _MM_HINT_T0);
            _mm_prefetch((const char *)w + 2048 + 64, _MM_HINT_T0);
            __m512 w_even[2] = {_mm512_castsi512_ps(_mm512_slli_epi32(low, 16)),
                                _mm512_castsi512_ps(_mm512_slli_epi32(high, 16))};
            __m512 w_odd[2] = {_mm512_castsi512_ps(_mm512_and_si512(low, upper)),
                               _mm512_castsi512_ps(_mm512_and_si512(high, upper))};
            for (uint32_t i = 0; i < rows; i++) {
                __m512 x_even = _mm512_set1_ps(x[i]), x_odd = _mm512_set1_ps(x[t->step + i]);
                for (uint32_t c = 0; c < 2; c++) {
                    even[i][c] = _mm512_fmadd_ps(x_even, w_even[c], even[i][c]);
                    odd[i][c] = _mm512_fmadd_ps(x_odd, w_odd[c], odd[i][c]);
                }
            }
        }
        for (uint32_t i = 0; i < rows; i++)
            for (uint32_t c = 0; c < 2; c++)
                total[i][c] = _mm512_add_ps(total[i][c], _mm512_add_ps(even[i][c], odd[i][c]));
    }
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < 2; c++)
            _mm512_mask_storeu_ps(t->y + (size_t)i * t->y_stride + c * 16, mask_of(t, c),
                                  total[i][c]);
}

static void tile(const bf16_tile *t, uint32_t rows)
{
    switch (rows) {
    case 1: columns(t, 1); return;
    case 2: columns(t, 2); return;
    case 3: columns(t, 3); return;
    default: columns(t, 4); return;
    }
}

static void run(const bt_linear *op, uint32_t first, uint32_t end, void *scratch)
{
    (void)scratch;
    bf16_run(op, first, end, tile);
}

const bt_linear_ops bt_linear_bf16_avx512 = {
    .tile_rows = BT_LINEAR_TILE, .x_bytes = bf16_x_bytes, .pack_x = bf16_pack_x, .run = run};
