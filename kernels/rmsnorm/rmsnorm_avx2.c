/* rmsnorm_avx2.c - two passes over a row that is in the first-level cache. */
#include "kernels/rmsnorm/rmsnorm.h"

#include "kernels/avx2.h"

#include <assert.h>
#include <math.h>

BT_INLINE float add_and_square(float *x, const float *delta, uint32_t n)
{
    __m256 squares = _mm256_setzero_ps();
    uint32_t whole = n & ~7u, tail = n & 7u;
    for (uint32_t i = 0; i < whole; i += 8) {
        __m256 value = _mm256_loadu_ps(x + i);
        if (delta) {
            value = _mm256_add_ps(value, _mm256_loadu_ps(delta + i));
            _mm256_storeu_ps(x + i, value);
        }
        squares = _mm256_fmadd_ps(value, value, squares);
    }
    if (tail) {
        __m256 value = load_tail(BT_DTYPE_F32, x, whole, tail);
        if (delta) {
            value = _mm256_add_ps(value, load_tail(BT_DTYPE_F32, delta, whole, tail));
            store_tail(x + whole, value, tail);
        }
        squares = _mm256_fmadd_ps(value, value, squares);
    }
    return sum1(squares);
}

BT_INLINE void scale_row(const bt_rmsnorm *op, bt_dtype dtype, const float *x, float scale,
                         float *ret_y)
{
    __m256 factor = _mm256_set1_ps(scale);
    uint32_t whole = op->n & ~7u, tail = op->n & 7u;
    for (uint32_t i = 0; i < whole; i += 8) {
        __m256 value = _mm256_mul_ps(_mm256_loadu_ps(x + i), factor);
        _mm256_storeu_ps(ret_y + i, _mm256_mul_ps(value, load8(dtype, op->w, i)));
    }
    if (tail) {
        __m256 value = _mm256_mul_ps(load_tail(BT_DTYPE_F32, x, whole, tail), factor);
        value = _mm256_mul_ps(value, load_tail(dtype, op->w, whole, tail));
        store_tail(ret_y + whole, value, tail);
    }
}

void bt_rmsnorm_avx2(const bt_rmsnorm *op, uint32_t first, uint32_t end)
{
    for (uint32_t row = first; row < end; row++) {
        size_t at = (size_t)row * op->n;
        float squares = add_and_square(op->x + at, op->delta ? op->delta + at : NULL, op->n);
        float scale = 1.0f / sqrtf(squares / (float)op->n + op->eps);
        switch (op->w_dtype) {
        case BT_DTYPE_F32: scale_row(op, BT_DTYPE_F32, op->x + at, scale, op->y + at); break;
        case BT_DTYPE_F16: scale_row(op, BT_DTYPE_F16, op->x + at, scale, op->y + at); break;
        case BT_DTYPE_BF16: scale_row(op, BT_DTYPE_BF16, op->x + at, scale, op->y + at); break;
        default: assert(!"not a dtype of weights");
        }
    }
}
