/* weight.h - one element of a weight tensor, as the reference kernels read it: in place from a
 * file mapping, so at any alignment. */
#ifndef BT_KERNELS_WEIGHT_H
#define BT_KERNELS_WEIGHT_H

#include "kernels/numerics.h"

#include <stddef.h>

/* dtype is F32, F16 or BF16. */
static inline float bt_weight_at(const void *w, bt_dtype dtype, size_t index)
{
    if (dtype == BT_DTYPE_F32) {
        float x;
        memcpy(&x, (const uint8_t *)w + index * 4, 4);
        return x;
    }
    uint16_t h;
    memcpy(&h, (const uint8_t *)w + index * 2, 2);
    return dtype == BT_DTYPE_BF16 ? bt_bf16_to_f32(h) : bt_f16_to_f32(h);
}

#endif
