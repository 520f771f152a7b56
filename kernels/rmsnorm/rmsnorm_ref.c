/* rmsnorm_ref.c - the oracle: the mean in f64. */
#include "kernels/rmsnorm/rmsnorm.h"

#include "kernels/weight.h"

#include <math.h>

void bt_rmsnorm_ref(const bt_rmsnorm *op, uint32_t first, uint32_t end)
{
    for (uint32_t row = first; row < end; row++) {
        float *x = op->x + (size_t)row * op->n, *y = op->y + (size_t)row * op->n;
        double squares = 0;
        for (uint32_t i = 0; i < op->n; i++) {
            if (op->delta) x[i] += op->delta[(size_t)row * op->n + i];
            squares += (double)x[i] * x[i];
        }
        double scale = 1.0 / sqrt(squares / op->n + op->eps);
        for (uint32_t i = 0; i < op->n; i++)
            y[i] = (float)(x[i] * scale) * bt_weight_at(op->w, op->w_dtype, i);
    }
}
