/* bias_avx2.c - one addition per element: the same bits as the reference. */
#include "kernels/bias/bias.h"

#include "kernels/avx2.h"

#include <assert.h>

BT_INLINE void add_rows(const bt_bias *op, bt_dtype dtype, uint32_t first, uint32_t end)
{
    uint32_t tail = (end - first) & 7u, whole = end - tail;
    for (uint32_t row = 0; row < op->rows; row++) {
        float *y = op->y + (size_t)row * op->stride;
        for (uint32_t i = first; i < whole; i += 8)
            _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), load8(dtype, op->b, i)));
        if (tail) {
            __m256 sum = _mm256_add_ps(load_tail(BT_DTYPE_F32, y, whole, tail),
                                       load_tail(dtype, op->b, whole, tail));
            store_tail(y + whole, sum, tail);
        }
    }
}

void bt_bias_avx2(const bt_bias *op, uint32_t first, uint32_t end)
{
    assert(first <= end);
    switch (op->b_dtype) {
    case BT_DTYPE_F32: add_rows(op, BT_DTYPE_F32, first, end); break;
    case BT_DTYPE_F16: add_rows(op, BT_DTYPE_F16, first, end); break;
    case BT_DTYPE_BF16: add_rows(op, BT_DTYPE_BF16, first, end); break;
    default: assert(!"not a dtype of weights");
    }
}
