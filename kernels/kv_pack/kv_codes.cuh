/* kv_codes.cuh - eight codes of a KV row in one thread's registers: bt_row_decode and bt_row_encode,
 * bit for bit, NaNs with their signs included, as long as the row's scale is finite (bt_row_encode
 * makes no other). Private to kernels/kv_pack.
 *
 *   decode   values of eight codes; scale is ignored by unscaled dtypes
 *   odd      one of the codes is a NaN or infinite: encode must then be told
 *   peak     the largest magnitude of the values that is no NaN
 *   encode   values to codes; by is ignored by unscaled dtypes */
#ifndef BT_KERNELS_KV_PACK_KV_CODES_CUH
#define BT_KERNELS_KV_PACK_KV_CODES_CUH

#include "kernels/cuda_device.cuh"

extern "C" {
#include "common/base/dtype.h"
#include "kernels/numerics.h"
}

template <bt_dtype D> struct kv_codes;

/* A row's scale and what its values are multiplied by. */
struct kv_scale {
    uint16_t code;
    float value, inverse;
};

static __device__ __forceinline__ float kv_peak(const float v[8])
{
    float peak = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) peak = fmaxf(peak, fabsf(v[i])); /* fmaxf drops a NaN */
    return peak;
}

static __device__ __noinline__ float kv_any_quotient(float x, float by)
{
    return __fdiv_rn(x, by);
}

/* v / by.value rounded once, if odd for any v: cuda_device.cuh says why three operations suffice for
 * finite ones. A zero may lose its sign. */
static __device__ __forceinline__ void kv_quotients(const float v[8], kv_scale by, bool odd,
                                                    float ret_q[8])
{
    if (odd) {
#pragma unroll
        for (int i = 0; i < 8; i++) ret_q[i] = kv_any_quotient(v[i], by.value);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float q = __fmul_rn(v[i], by.inverse);
        ret_q[i] = __fmaf_rn(__fmaf_rn(-q, by.value, v[i]), by.inverse, q);
    }
}

/* 1 / x rounded once, for x an f16 above 0: one step of Newton's from the card's approximation, as the
 * library has it for numbers of this range. */
static __device__ __forceinline__ float kv_reciprocal(float x)
{
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return __fmaf_rn(r, __fmaf_rn(-x, r, 1.0f), r);
}

/* bt_row_encode's scale. */
template <bt_dtype D> static __device__ __forceinline__ kv_scale kv_scale_of(float amax)
{
    constexpr float LARGEST = D == BT_DTYPE_INT8 ? BT_INT8_MAX : BT_E4M3_MAX;
    constexpr float INVERSE = 1 / LARGEST;
    kv_scale by;
    float x = __fmul_rn(amax, INVERSE);
    x = __fmaf_rn(__fmaf_rn(-x, LARGEST, amax), INVERSE, x);
    if (!(amax > 1e-30f && amax < 1e30f)) x = __fdiv_rn(amax, LARGEST);
    by.code = bt_f16_up(x);
    by.value = by.code ? bt_f16_value(by.code) : 1.0f;
    by.inverse = kv_reciprocal(by.value);
    return by;
}

template <> struct kv_codes<BT_DTYPE_F32> {
    static constexpr int WORDS = 8;
    static constexpr bool SCALED = false;
    static __device__ __forceinline__ void decode(const uint32_t w[8], float, float v[8])
    {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = __uint_as_float(w[i]);
    }
    static __device__ __forceinline__ bool odd(const uint32_t w[8])
    {
        bool any = false;
#pragma unroll
        for (int i = 0; i < 8; i++) any |= (w[i] & 0x7f800000u) == 0x7f800000u;
        return any;
    }
    static __device__ __forceinline__ float peak(const uint32_t w[8], float, bool)
    {
        float v[8];
        decode(w, 1, v);
        return kv_peak(v);
    }
    static __device__ __forceinline__ void encode(const float v[8], kv_scale, bool, uint32_t w[8])
    {
#pragma unroll
        for (int i = 0; i < 8; i++) w[i] = __float_as_uint(v[i]);
    }
};

template <> struct kv_codes<BT_DTYPE_BF16> {
    static constexpr int WORDS = 4;
    static constexpr bool SCALED = false;
    static __device__ __forceinline__ void decode(const uint32_t w[4], float, float v[8])
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[2 * i] = __uint_as_float(w[i] << 16);
            v[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
        }
    }
    static __device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b)
    {
        uint32_t most; /* of each half; NaN if either is */
        asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(most) : "r"(a & 0x7fff7fffu), "r"(b & 0x7fff7fffu));
        return most;
    }
    static __device__ __forceinline__ uint32_t most(const uint32_t w[4])
    {
        return larger(larger(w[0], w[1]), larger(w[2], w[3]));
    }
    static __device__ __forceinline__ bool odd(const uint32_t w[4])
    {
        uint32_t m = most(w);
        return (m & 0x7f80u) == 0x7f80u || (m & 0x7f800000u) == 0x7f800000u;
    }
    static __device__ __forceinline__ float peak(const uint32_t w[4], float, bool odd)
    {
        if (odd) {
            float v[8];
            decode(w, 1, v);
            return kv_peak(v);
        }
        uint32_t m = most(w);
        return fmaxf(__uint_as_float(m << 16), __uint_as_float(m & 0xffff0000u));
    }
    static __device__ __forceinline__ uint32_t one(float x) /* bt_f32_to_bf16 */
    {
        uint32_t bits = __float_as_uint(x);
        if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x0040u;
        return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    }
    static __device__ __forceinline__ void encode(const float v[8], kv_scale, bool odd,
                                                  uint32_t w[4])
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            __nv_bfloat162 pair = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
            w[i] = *(uint32_t *)&pair;
        }
        if (!odd) return;
#pragma unroll
        for (int i = 0; i < 4; i++) w[i] = one(v[2 * i]) | one(v[2 * i + 1]) << 16;
    }
};

template <> struct kv_codes<BT_DTYPE_FP8_E4M3> {
    static constexpr int WORDS = 2;
    static constexpr bool SCALED = true;
    static __device__ __forceinline__ bool odd(const uint32_t w[2])
    {
        uint32_t a = (w[0] & 0x7f7f7f7fu) + 0x01010101u, b = (w[1] & 0x7f7f7f7fu) + 0x01010101u;
        return ((a | b) & 0x80808080u) != 0;
    }
    static __device__ __forceinline__ void decode(const uint32_t w[2], float scale, float v[8])
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            bt_floats<4> x = bt_e4m3x4_values(w[i]);
#pragma unroll
            for (int j = 0; j < 4; j++) v[4 * i + j] = x.v[j] * scale;
        }
        if (!odd(w)) return;
#pragma unroll
        for (int i = 0; i < 8; i++) { /* a NaN of the code's sign */
            uint32_t code = w[i / 4] >> (i % 4 * 8) & 0xffu;
            if ((code & 0x7fu) == 0x7fu) v[i] = __uint_as_float((code & 0x80u) << 24 | 0x7fc00000u);
        }
    }
    static __device__ __forceinline__ float peak(const uint32_t w[2], float scale, bool)
    {
        float v[8];
        decode(w, scale, v);
        return kv_peak(v);
    }
    static __device__ __forceinline__ void encode(const float v[8], kv_scale by, bool odd,
                                                  uint32_t w[2])
    {
        float q[8];
        kv_quotients(v, by, odd, q);
        w[0] = bt_e4m3x4_signed(q, v);
        w[1] = bt_e4m3x4_signed(q + 4, v + 4);
    }
};

template <> struct kv_codes<BT_DTYPE_INT8> {
    static constexpr int WORDS = 2;
    static constexpr bool SCALED = true;
    static __device__ __forceinline__ bool odd(const uint32_t[2])
    {
        return false;
    }
    static __device__ __forceinline__ void decode(const uint32_t w[2], float scale, float v[8])
    {
#pragma unroll
        for (int i = 0; i < 8; i++) { /* code + 128 as the low bits of 2^23 */
            uint32_t bits = __byte_perm(w[i / 4] ^ 0x80808080u, 0x4b000000u, 0x7440 | (i % 4));
            v[i] = (__uint_as_float(bits) - 8388736.0f) * scale;
        }
    }
    static __device__ __forceinline__ float peak(const uint32_t w[2], float scale, bool)
    {
        float v[8];
        decode(w, scale, v);
        return kv_peak(v);
    }
    static __device__ __forceinline__ void encode(const float v[8], kv_scale by, bool odd,
                                                  uint32_t w[2])
    {
        float q[8];
        kv_quotients(v, by, odd, q);
        w[0] = bt_int8x4(q);
        w[1] = bt_int8x4(q + 4);
    }
};

#endif
