/* sample_avx2.c - the passes with eight lanes. The sum of exponentials does what the reference does,
 * operation by operation; multiplications and additions are not contracted (-ffp-contract=off). */
#include "kernels/avx2.h"
#include "kernels/sample/exp.h"
#include "kernels/sample/sample.h"

#include <math.h>

/* The last n < 8 of x, -inf after them: no pass counts those. */
BT_INLINE __m256 tail8(const float *x, uint32_t n)
{
    float padded[8] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY,
                       -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    memcpy(padded, x, n * sizeof(float));
    return _mm256_loadu_ps(padded);
}

/* max of (x, top) is top where x is NaN. */
static float highest(const float *x, uint32_t n)
{
    __m256 a = _mm256_set1_ps(-INFINITY), b = a, c = a, d = a;
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32) {
        a = _mm256_max_ps(_mm256_loadu_ps(x + i), a);
        b = _mm256_max_ps(_mm256_loadu_ps(x + i + 8), b);
        c = _mm256_max_ps(_mm256_loadu_ps(x + i + 16), c);
        d = _mm256_max_ps(_mm256_loadu_ps(x + i + 24), d);
    }
    for (; i + 8 <= n; i += 8) a = _mm256_max_ps(_mm256_loadu_ps(x + i), a);
    if (i < n) a = _mm256_max_ps(tail8(x + i, n - i), a);
    return max1(_mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, d)));
}

/* bt_sample_exp of eight. */
BT_INLINE __m256 sample_exp8(__m256 x)
{
    __m256 counts = _mm256_cmp_ps(x, _mm256_set1_ps(BT_EXP_LOW), _CMP_GE_OQ); /* false for NaN */
    __m256 round = _mm256_set1_ps(BT_EXP_ROUND);
    x = _mm256_and_ps(x, counts);
    __m256 n =
        _mm256_sub_ps(_mm256_add_ps(_mm256_mul_ps(x, _mm256_set1_ps(BT_EXP_LOG2E)), round), round);
    __m256 r = _mm256_sub_ps(x, _mm256_mul_ps(n, _mm256_set1_ps(BT_EXP_LN2_HIGH)));
    r = _mm256_sub_ps(r, _mm256_mul_ps(n, _mm256_set1_ps(BT_EXP_LN2_LOW)));
    const float steps[] = {BT_EXP_C6, BT_EXP_C5, BT_EXP_C4, BT_EXP_C3, 0.5f, 1.0f, 1.0f};
    __m256 p = _mm256_set1_ps(BT_EXP_C7);
    for (int i = 0; i < 7; i++) p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(steps[i]));
    __m256i power =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(power)), counts);
}

static double exp_sum(const float *x, uint32_t n, float top, float temperature)
{
    __m256 top8 = _mm256_set1_ps(top), temperature8 = _mm256_set1_ps(temperature);
    __m256d low = _mm256_setzero_pd(), high = low;
    for (uint32_t i = 0; i < n; i += 8) {
        __m256 x8 = n - i >= 8 ? _mm256_loadu_ps(x + i) : tail8(x + i, n - i);
        __m256 e = sample_exp8(_mm256_div_ps(_mm256_sub_ps(x8, top8), temperature8));
        low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
        high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
    }
    double lane[8];
    _mm256_storeu_pd(lane, low);
    _mm256_storeu_pd(lane + 4, high);
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static uint32_t above(const float *x, uint32_t n, uint32_t from, float bar)
{
    __m256 bar8 = _mm256_set1_ps(bar);
    for (; from + 32 <= n; from += 32) {
        __m256 a = _mm256_cmp_ps(_mm256_loadu_ps(x + from), bar8, _CMP_GT_OQ);
        __m256 b = _mm256_cmp_ps(_mm256_loadu_ps(x + from + 8), bar8, _CMP_GT_OQ);
        __m256 c = _mm256_cmp_ps(_mm256_loadu_ps(x + from + 16), bar8, _CMP_GT_OQ);
        __m256 d = _mm256_cmp_ps(_mm256_loadu_ps(x + from + 24), bar8, _CMP_GT_OQ);
        unsigned found = (unsigned)_mm256_movemask_ps(a) | (unsigned)_mm256_movemask_ps(b) << 8 |
                         (unsigned)_mm256_movemask_ps(c) << 16 |
                         (unsigned)_mm256_movemask_ps(d) << 24;
        if (found) return from + (uint32_t)__builtin_ctz(found);
    }
    while (from < n && !(x[from] > bar)) from++;
    return from;
}

const bt_sample_passes bt_sample_passes_avx2 = {
    .highest = highest, .exp_sum = exp_sum, .above = above};
