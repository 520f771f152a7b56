/* swiglu.h - the gate of a Llama MLP.
 *
 *     gate = gate / (1 + e^-gate) * up
 *
 *   gate  [rows][stride]  f32, updated in place
 *   up    [rows][stride]  f32
 * Computes the columns [first, end) of every row. Each element depends on its two inputs only.
 * Source: Shazeer 2020. */
#ifndef BT_KERNELS_SWIGLU_SWIGLU_H
#define BT_KERNELS_SWIGLU_SWIGLU_H

#include <stdint.h>

typedef struct {
    float *gate;
    const float *up;
    uint32_t rows, stride;
} bt_swiglu;

typedef void bt_swiglu_fn(const bt_swiglu *op, uint32_t first, uint32_t end);

bt_swiglu_fn bt_swiglu_ref, bt_swiglu_avx2, bt_swiglu_avx512;

#endif
