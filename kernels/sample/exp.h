/* exp.h - the exponential of the sampler: the same operations in scalar code and in vectors, so the
 * same bits. Private to kernels/sample. */
#ifndef BT_KERNELS_SAMPLE_EXP_H
#define BT_KERNELS_SAMPLE_EXP_H

#include <stdint.h>
#include <string.h>

#define BT_EXP_LOW (-87.0f) /* below: 0 */
#define BT_EXP_LOG2E 1.44269504089f
#define BT_EXP_ROUND 12582912.0f /* 1.5 * 2^23: adding and taking it away rounds to an integer */
#define BT_EXP_LN2_HIGH 0.693359375f /* of few bits, so that n * this is exact */
#define BT_EXP_LN2_LOW (-2.12194440e-4f)

/* Taylor's coefficients of e^r: |r| <= ln 2 / 2 leaves an error of 5e-9. */
#define BT_EXP_C7 (1.0f / 5040)
#define BT_EXP_C6 (1.0f / 720)
#define BT_EXP_C5 (1.0f / 120)
#define BT_EXP_C4 (1.0f / 24)
#define BT_EXP_C3 (1.0f / 6)

/* e^x within 3 units in the last place for -87 <= x <= 0; 0 below, and for NaN. */
static inline float bt_sample_exp(float x)
{
    if (!(x >= BT_EXP_LOW)) return 0;
    float n = (x * BT_EXP_LOG2E + BT_EXP_ROUND) - BT_EXP_ROUND;
    float r = (x - n * BT_EXP_LN2_HIGH) - n * BT_EXP_LN2_LOW;
    float p = BT_EXP_C7;
    p = p * r + BT_EXP_C6;
    p = p * r + BT_EXP_C5;
    p = p * r + BT_EXP_C4;
    p = p * r + BT_EXP_C3;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof(power));
    return p * power;
}

#endif
