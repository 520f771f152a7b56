/* kv_codes.cuh - eight codes of a KV row in one thread's registers: bt_row_decode and bt_row_encode,
 * bit for bit, NaNs with their signs included, as long as the row's scale is finite (bt_row_encode
 * makes no other). Private to kernels/kv_pack.
 *
 * ODD     Values that are NaN or infinite take slower code: whoever converts asks first and then calls
 *         the variant. A row has one answer for each thread, not one for all.
 *   odd      one of the codes is a NaN or infinite
 *   peak     the largest magnitude of the values; NaN or infinite if they are odd
 *   any_peak the largest that is no NaN
 *   decode   codes to values; scale is ignored by unscaled dtypes
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

static __device__ __forceinline__ float kv_any_peak(const float v[8])
{
    float peak = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) peak = fmaxf(peak, fabsf(v[i])); /* fmaxf drops a NaN */
    return peak;
}

/* NaN if either is. */
static __device__ __forceinline__ float kv_larger(float a, float b)
{
    float larger;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
    return larger;
}

static __device__ __noinline__ float kv_any_quotient(float x, float by)
{
    return __fdiv_rn(x, by);
}

/* x / by.value rounded once, for finite x: cuda_device.cuh says why three operations suffice. A zero
 * keeps its sign, as its remainder is +0 and is taken away. */
static __device__ __forceinline__ float kv_quotient(float x, kv_scale by)
{
    float q = __fmul_rn(x, by.inverse);
    return __fmaf_rn(__fmaf_rn(q, by.value, -x), -by.inverse, q);
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
    if (!(amax > 1e-30f && amax < 1e30f)) x = kv_any_quotient(amax, LARGEST);
    by.code = bt_f16_up(x);
    by.value = by.code ? bt_f16_value(by.code) : 1.0f;
    by.inverse = kv_reciprocal(by.value);
    return by;
}

template <> struct kv_codes<BT_DTYPE_F32> {
    static constexpr int WORDS = 8;
    static constexpr bool SCALED = false;
    template <bool ODD>
    static __device__ __forceinline__ void decode(const uint32_t w[8], float, float v[8])
    {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = __uint_as_float(w[i]);
    }
    static __device__ __forceinline__ float peak(const uint32_t w[8], float)
    {
        float most = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) most = kv_larger(most, fabsf(__uint_as_float(w[i])));
        return most;
    }
    static __device__ __forceinline__ bool odd(const uint32_t w[8])
    {
        return !(peak(w, 1) < __uint_as_float(0x7f800000u));
    }
    template <bool ODD>
    static __device__ __forceinline__ void encode(const float v[8], kv_scale, uint32_t w[8])
    {
#pragma unroll
        for (int i = 0; i < 8; i++) w[i] = __float_as_uint(v[i]);
    }
};

template <> struct kv_codes<BT_DTYPE_BF16> {
    static constexpr int WORDS = 4;
    static constexpr bool SCALED = false;
    template <bool ODD>
    static __device__ __forceinline__ void decode(const uint32_t w[4], float, float v[8])
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[2 * i] = __uint_as_float(w[i] << 16);
            v[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
        }
    }
    /* Of each half. */
    static __device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b)
    {
        uint32_t most;
        asm("{\n .reg .b32 x, y;\n abs.bf16x2 x, %1;\n abs.bf16x2 y, %2;\n"
            " max.NaN.bf16x2 %0, x, y;\n}"
            : "=r"(most)
            : "r"(a), "r"(b));
        return most;
    }
    static __device__ __forceinline__ float peak(const uint32_t w[4], float)
    {
        uint32_t m = larger(larger(w[0], w[1]), larger(w[2], w[3]));
        return kv_larger(__uint_as_float(m << 16), __uint_as_float(m & 0xffff0000u));
    }
    static __device__ __forceinline__ bool odd(const uint32_t w[4])
    {
        return !(peak(w, 1) < __uint_as_float(0x7f800000u));
    }
    static __device__ __forceinline__ uint32_t one(float x) /* bt_f32_to_bf16 */
    {
        uint32_t bits = __float_as_uint(x);
        if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x0040u;
        return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    }
    template <bool ODD>
    static __device__ __forceinline__ void encode(const float v[8], kv_scale, uint32_t w[4])
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            __nv_bfloat162 pair = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
            w[i] = ODD ? one(v[2 * i]) | one(v[2 * i + 1]) << 16 : *(uint32_t *)&pair;
        }
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
    template <bool ODD>
    static __device__ __forceinline__ void decode(const uint32_t w[2], float scale, float v[8])
    {
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            bt_floats<4> x = bt_e4m3x4_values(w[i / 4]);
#pragma unroll
            for (int j = 0; j < 4; j++) v[i + j] = x.v[j] * scale;
        }
        if constexpr (ODD) {
#pragma unroll
            for (int i = 0; i < 8; i++) { /* a NaN of the code's sign */
                uint32_t code = w[i / 4] >> (i % 4 * 8) & 0xffu;
                if ((code & 0x7fu) == 0x7fu)
                    v[i] = __uint_as_float((code & 0x80u) << 24 | 0x7fc00000u);
            }
        }
    }
    static __device__ __forceinline__ float peak(const uint32_t w[2], float scale)
    {
        float v[8];
        decode<false>(w, scale, v);
        return odd(w) ? __uint_as_float(0x7fc00000u) : kv_any_peak(v);
    }
    static __device__ __forceinline__ uint32_t four(const float q[4])
    {
#if __CUDA_ARCH__ >= 890
        uint32_t codes;
        asm("{\n .reg .b16 low, high;\n"
            " cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
            " cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
            " mov.b32 %0, {low, high};\n}"
            : "=r"(codes)
            : "f"(q[0]), "f"(q[1]), "f"(q[2]), "f"(q[3]));
        return codes;
#else
        return bt_e4m3x4(q);
#endif
    }
    template <bool ODD>
    static __device__ __forceinline__ void encode(const float v[8], kv_scale by, uint32_t w[2])
    {
        float q[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            q[i] = ODD ? kv_any_quotient(v[i], by.value) : kv_quotient(v[i], by);
        w[0] = ODD ? bt_e4m3x4_signed(q, v) : four(q);
        w[1] = ODD ? bt_e4m3x4_signed(q + 4, v + 4) : four(q + 4);
    }
};

template <> struct kv_codes<BT_DTYPE_INT8> {
    static constexpr int WORDS = 2;
    static constexpr bool SCALED = true;
    static __device__ __forceinline__ bool odd(const uint32_t[2])
    {
        return false;
    }
    template <bool ODD>
    static __device__ __forceinline__ void decode(const uint32_t w[2], float scale, float v[8])
    {
#pragma unroll
        for (int i = 0; i < 8; i++) { /* code + 128 as the low bits of 2^23 */
            uint32_t bits = __byte_perm(w[i / 4] ^ 0x80808080u, 0x4b000000u, 0x7440 | (i % 4));
            v[i] = (__uint_as_float(bits) - 8388736.0f) * scale;
        }
    }
    static __device__ __forceinline__ float peak(const uint32_t w[2], float scale)
    {
        float v[8];
        decode<false>(w, scale, v);
        return kv_any_peak(v);
    }
    static __device__ __forceinline__ uint32_t four(const float q[4])
    {
        uint32_t bits[4];
#pragma unroll
        for (int i = 0; i < 4; i++) /* the code as the low byte of 1.5 * 2^23 */
            bits[i] = __float_as_uint(fminf(fmaxf(q[i], -BT_INT8_MAX), BT_INT8_MAX) + 12582912.0f);
        return __byte_perm(__byte_perm(bits[0], bits[1], 0x0040),
                           __byte_perm(bits[2], bits[3], 0x0040), 0x5410);
    }
    template <bool ODD>
    static __device__ __forceinline__ void encode(const float v[8], kv_scale by, uint32_t w[2])
    {
        float q[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            q[i] = ODD ? kv_any_quotient(v[i], by.value) : kv_quotient(v[i], by);
        w[0] = ODD ? bt_int8x4(q) : four(q);
        w[1] = ODD ? bt_int8x4(q + 4) : four(q + 4);
    }
};

#endif
