/* avx2.h - what the *_avx2.c files share; only they may include it.
 *
 * VALUES  The order of a sum is part of every kernel's contract: eight lanes, lane i takes the
 *         elements i, i + 8, i + 16 … in order, a tail is padded with zeros into the same lanes,
 *         and the lanes are added as ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)). Whoever sums over a
 *         row uses this pattern, whatever else it tiles, so that a result depends on the row alone.
 */
#ifndef BT_KERNELS_AVX2_H
#define BT_KERNELS_AVX2_H

#include "common/base/dtype.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define BT_INLINE static inline __attribute__((always_inline))

/* Elements [index, index + 8) of a row of weights; dtype is a constant at each use. */
BT_INLINE __m256 load8(bt_dtype dtype, const void *row, size_t index)
{
    if (dtype == BT_DTYPE_F32) return _mm256_loadu_ps((const float *)row + index);
    __m128i half = _mm_loadu_si128((const __m128i *)((const uint8_t *)row + index * 2));
    if (dtype == BT_DTYPE_F16) return _mm256_cvtph_ps(half);
    /* The eight halves in both lanes (a load alone), then one shuffle moves four of each lane to
     * the upper bytes: a shift would take a slot that the FMAs want. */
    const __m256i upper =
        _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7, -1, -1, 8, 9, -1,
                         -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(half), upper));
}

/* bt_e4m3_to_f32 of eight codes, divided by 256: an e4m3 moved up by 7 bits is an f16 with an
 * exponent that is 8 too small, subnormals too. */
BT_INLINE __m256 load8_e4m3(const uint8_t *codes)
{
    __m128i wide = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)codes));
    __m128i magnitude = _mm_and_si128(_mm_slli_epi16(wide, 7), _mm_set1_epi16(0x3f80));
    __m128i is_nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x3f80));
    magnitude = _mm_blendv_epi8(magnitude, _mm_set1_epi16(0x7e00), is_nan);
    __m128i sign = _mm_and_si128(wide, _mm_set1_epi16((short)0x8000));
    return _mm256_cvtph_ps(_mm_or_si128(magnitude, sign));
}

/* The same of the last `count` < 8 elements, zeros after them. */
BT_INLINE __m256 load_tail(bt_dtype dtype, const void *row, size_t index, uint32_t count)
{
    uint8_t padded[32] = {0};
    size_t bytes = dtype == BT_DTYPE_F32 ? 4 : 2;
    memcpy(padded, (const uint8_t *)row + index * bytes, count * bytes);
    return load8(dtype, padded, 0);
}

BT_INLINE void store_tail(float *ret, __m256 x, uint32_t count)
{
    float padded[8];
    _mm256_storeu_ps(padded, x);
    memcpy(ret, padded, count * sizeof(float));
}

/* The lane sums of four accumulators, in the order the file top states. */
BT_INLINE __m128 sum4(__m256 a, __m256 b, __m256 c, __m256 d)
{
    __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

BT_INLINE float sum1(__m256 a)
{
    __m256 zero = _mm256_setzero_ps();
    return _mm_cvtss_f32(sum4(a, zero, zero, zero));
}

BT_INLINE float max1(__m256 a)
{
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

/* e^x within 2 units in the last place for x <= 88; exactly 0 below -87 (-inf too); NaN stays.
 * x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial for e^r (Cephes). */
BT_INLINE __m256 exp8(__m256 x)
{
    __m256 low = _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_LT_OQ);
    x = _mm256_min_ps(_mm256_set1_ps(88.0f), x);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    __m256i power =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(low, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

#endif
