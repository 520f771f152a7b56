#include "kernels/bias/bias.h"

#include "kernels/weight.h"

void bt_bias_ref(const bt_bias *op, uint32_t first, uint32_t end)
{
    for (uint32_t row = 0; row < op->rows; row++) {
        float *y = op->y + (size_t)row * op->stride;
        for (uint32_t i = first; i < end; i++) y[i] += bt_weight_at(op->b, op->b_dtype, i);
    }
}
