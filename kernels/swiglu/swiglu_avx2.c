/* swiglu_avx2.c - eight at a time; a tail is padded, so that every element takes the same steps. */
#include "kernels/swiglu/swiglu.h"

#include "kernels/avx2.h"

BT_INLINE __m256 swiglu8(__m256 gate, __m256 up)
{
    __m256 one = _mm256_set1_ps(1.0f);
    __m256 below = exp8(_mm256_sub_ps(_mm256_setzero_ps(), gate));
    return _mm256_mul_ps(_mm256_div_ps(gate, _mm256_add_ps(one, below)), up);
}

void bt_swiglu_avx2(const bt_swiglu *op, uint32_t first, uint32_t end)
{
    for (uint32_t row = 0; row < op->rows; row++) {
        float *gate = op->gate + (size_t)row * op->stride;
        const float *up = op->up + (size_t)row * op->stride;
        uint32_t i = first;
        for (; i + 8 <= end; i += 8)
            _mm256_storeu_ps(gate + i, swiglu8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
        if (i < end) {
            __m256 value = swiglu8(load_tail(BT_DTYPE_F32, gate, i, end - i),
                                   load_tail(BT_DTYPE_F32, up, i, end - i));
            store_tail(gate + i, value, end - i);
        }
    }
}
