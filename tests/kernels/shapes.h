/* shapes.h - the shapes and numbers every kernel test runs over: small, ragged and real ones. */
#ifndef BT_TESTS_KERNELS_SHAPES_H
#define BT_TESTS_KERNELS_SHAPES_H

#include "common/base/rng.h"
#include "kernels/dispatch.h"
#include "kernels/numerics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SEED 20261123u

/* Row lengths: below, at and beyond a vector, no multiple of it, the widths of real models. */
static const uint32_t shape_widths[] = {1, 7, 8, 9, 64, 172, 256, 767, 768};
static const uint32_t shape_rows[] = {1, 2, 3, 4, 7, 16};
static const uint32_t shape_head_dims[] = {8, 64, 80, 96, 128, 256};
static const bt_dtype shape_weight_dtypes[] = {BT_DTYPE_F32, BT_DTYPE_F16, BT_DTYPE_BF16};
static const bt_dtype shape_kv_dtypes[] = {BT_DTYPE_F32, BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3,
                                           BT_DTYPE_INT8};

static inline float random_float(bt_rng *rng)
{
    return (float)(2 * bt_rng_double(rng) - 1);
}

static inline float *random_floats(bt_rng *rng, size_t count)
{
    float *x = malloc((count + 1) * sizeof(float));
    assert_non_null(x);
    for (size_t i = 0; i < count; i++) x[i] = random_float(rng);
    return x;
}

/* Weights of a dtype at an address that is not aligned, as a file mapping may have them. *ret_room
 * is to be freed. */
static inline const void *random_weights(bt_rng *rng, bt_dtype dtype, size_t count, void **ret_room)
{
    size_t bytes = bt_dtype_bytes(dtype);
    uint8_t *room = malloc(count * bytes + 1);
    assert_non_null(room);
    for (size_t i = 0; i < count; i++) {
        float x = random_float(rng);
        uint16_t half = dtype == BT_DTYPE_F16 ? bt_f32_to_f16(x) : bt_f32_to_bf16(x);
        memcpy(room + 1 + i * bytes, dtype == BT_DTYPE_F32 ? (void *)&x : (void *)&half, bytes);
    }
    *ret_room = room;
    return room + 1;
}

static inline void assert_near(float value, float expected, double bound)
{
    if (!(fabs((double)value - expected) <= bound))
        fail_msg("%.9g is not within %.3g of %.9g", value, bound, expected);
}

#endif
