/* matmul_ref.c - the oracle: one sum after the other, in f64. */
#include "kernels/matmul/matmul.h"

#include "kernels/weight.h"

#include <assert.h>

void bt_matmul_ref(const bt_matmul *op, uint32_t n_first, uint32_t n_end)
{
    assert(n_first <= n_end && n_end <= op->n);
    for (uint32_t i = 0; i < op->m; i++) {
        const float *x = op->x + (size_t)i * op->x_stride;
        for (uint32_t j = n_first; j < n_end; j++) {
            double sum = 0;
            for (uint32_t l = 0; l < op->k; l++)
                sum += (double)x[l] * bt_weight_at(op->w, op->w_dtype, (size_t)j * op->k + l);
            op->y[(size_t)i * op->y_stride + j] = (float)sum;
        }
    }
}
