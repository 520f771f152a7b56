/* swiglu_avx512.c - sixteen at a time by the steps of swiglu_avx2.c; a tail under a mask. */
#include "kernels/swiglu/swiglu.h"

#include "kernels/avx512.h"

void bt_swiglu_avx512(const bt_swiglu *op, uint32_t first, uint32_t end)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    for (uint32_t row = 0; row < op->rows; row++) {
        float *gate = op->gate + (size_t)row * op->stride;
        const float *up = op->up + (size_t)row * op->stride;
        for (uint32_t i = first; i < end; i += 16) {
            __mmask16 mask = lanes16(end - i);
            __m512 x = _mm512_maskz_loadu_ps(mask, gate + i);
            __m512 below = exp16(_mm512_sub_ps(_mm512_setzero_ps(), x));
            __m512 y = _mm512_mul_ps(_mm512_div_ps(x, _mm512_add_ps(one, below)),
                                     _mm512_maskz_loadu_ps(mask, up + i));
            _mm512_mask_storeu_ps(gate + i, mask, y);
        }
    }
}
