/* swiglu_ref.c - the oracle, in f64. */
#include "kernels/swiglu/swiglu.h"

#include <math.h>
#include <stddef.h>

void bt_swiglu_ref(const bt_swiglu *op, uint32_t first, uint32_t end)
{
    for (uint32_t row = 0; row < op->rows; row++) {
        size_t at = (size_t)row * op->stride;
        for (uint32_t i = first; i < end; i++) {
            double gate = op->gate[at + i];
            op->gate[at + i] = (float)(gate / (1.0 + exp(-gate)) * op->up[at + i]);
        }
    }
}
