/* cuda_device.cuh - device helpers of the CUDA kernels: vectors of values, sums of a block, and the
 * conversions of numerics.h with the same bits.
 *
 * EXACT   bt_e4m3x4, bt_int8x4, bt_row_scale and bt_quotient give bit for bit what bt_row_encode gives:
 *         a code made on a GPU is the code made on a CPU. tests/gpu/gpu_device.cu holds them to it.
 * DIVIDE  bt_quotient is the correctly rounded x / scale in three operations where the scale has at most 11
 *         bits, as an f16: the remainder of q = x * inverse is a multiple of the product of both units
 *         and a few of them at most, so it is exact; and such a quotient is never nearer than 2^-12 of a
 *         unit to the middle of two f32, while the corrected q is 2^-21 of a unit off, though the inverse
 *         be 2 units off.
 * Only .cu files include this. Every pointer given to a load or store is aligned to the access. */
#ifndef BT_KERNELS_CUDA_DEVICE_CUH
#define BT_KERNELS_CUDA_DEVICE_CUH

#include <stdint.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

/* ---- vectors ---- */
template <int N> struct bt_floats {
    float v[N];
};

/* N values of T (float, __half or __nv_bfloat16) as they lie in memory. Where a load stands under a
 * condition and its conversion after it, the loads of a loop are all under way before the first is waited
 * for. */
template <int N, typename T> struct bt_raw {
    static constexpr int BYTES = N * (int)sizeof(T), WIDTH = BYTES < 16 ? BYTES : 16;
    static_assert(WIDTH == 16 || WIDTH == 8 || WIDTH == 4, "a vector of 4, 8 or 16 bytes");
    uint32_t word[BYTES / 4];
};

/* Accesses of 16 bytes, of 8 or 4 if the N values are no more. */
template <int N, typename T> static __device__ __forceinline__ bt_raw<N, T> bt_load_raw(const T *p)
{
    bt_raw<N, T> raw;
    if constexpr (raw.WIDTH == 16) {
#pragma unroll
        for (int i = 0; i < raw.BYTES / 16; i++) {
            uint4 words = ((const uint4 *)p)[i];
            raw.word[4 * i] = words.x, raw.word[4 * i + 1] = words.y;
            raw.word[4 * i + 2] = words.z, raw.word[4 * i + 3] = words.w;
        }
    } else if constexpr (raw.WIDTH == 8) {
        uint2 words = *(const uint2 *)p;
        raw.word[0] = words.x, raw.word[1] = words.y;
    } else {
        raw.word[0] = *(const uint32_t *)p;
    }
    return raw;
}

template <int N, typename T>
static __device__ __forceinline__ void bt_store_raw(T *p, const bt_raw<N, T> &raw)
{
    if constexpr (raw.WIDTH == 16) {
#pragma unroll
        for (int i = 0; i < raw.BYTES / 16; i++)
            ((uint4 *)p)[i] = make_uint4(raw.word[4 * i], raw.word[4 * i + 1], raw.word[4 * i + 2],
                                         raw.word[4 * i + 3]);
    } else if constexpr (raw.WIDTH == 8) {
        *(uint2 *)p = make_uint2(raw.word[0], raw.word[1]);
    } else {
        *(uint32_t *)p = raw.word[0];
    }
}

static __device__ __forceinline__ float2 bt_widen(uint32_t two, const __half *)
{
    return __half22float2(*(__half2 *)&two);
}

static __device__ __forceinline__ float2 bt_widen(uint32_t two, const __nv_bfloat16 *)
{
    return make_float2(__uint_as_float(two << 16), __uint_as_float(two & 0xffff0000u));
}

/* The same values as f32. */
template <int N, typename T>
static __device__ __forceinline__ bt_floats<N> bt_values(const bt_raw<N, T> &raw)
{
    bt_floats<N> x;
    if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int i = 0; i < N; i++) x.v[i] = __uint_as_float(raw.word[i]);
    } else {
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            float2 two = bt_widen(raw.word[i], (const T *)0);
            x.v[2 * i] = two.x, x.v[2 * i + 1] = two.y;
        }
    }
    return x;
}

template <int N, typename T> static __device__ __forceinline__ bt_floats<N> bt_load(const T *p)
{
    return bt_values(bt_load_raw<N>(p));
}

static __device__ __forceinline__ uint32_t bt_narrow(float a, float b, const __half *)
{
    __half2 two = __floats2half2_rn(a, b);
    return *(uint32_t *)&two;
}

static __device__ __forceinline__ uint32_t bt_narrow(float a, float b, const __nv_bfloat16 *)
{
    __nv_bfloat162 two = __floats2bfloat162_rn(a, b);
    return *(uint32_t *)&two;
}

/* N values to p, rounded to the nearest T, ties to even; a NaN becomes 0x7fff, whatever its payload. */
template <int N, typename T>
static __device__ __forceinline__ void bt_store(T *p, const bt_floats<N> &x)
{
    bt_raw<N, T> raw;
    if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int i = 0; i < N; i++) raw.word[i] = __float_as_uint(x.v[i]);
    } else {
#pragma unroll
        for (int i = 0; i < N / 2; i++)
            raw.word[i] = bt_narrow(x.v[2 * i], x.v[2 * i + 1], (const T *)0);
    }
    bt_store_raw<N>(p, raw);
}

/* ---- reductions ---- */
/* Over aligned groups of width lanes, a power of two; every lane of the group gets the result. */
static __device__ __forceinline__ float bt_lanes_sum(float x, int width = 32)
{
    for (int step = width / 2; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

static __device__ __forceinline__ float bt_lanes_max(float x, int width = 32)
{
    for (int step = width / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
    return x;
}

/* Over a block of whole warps, the same in every thread and every run: the sum of x and the maximum of
 * y >= 0. One barrier; once in a kernel, since nothing waits until the shared memory is read. */
static __device__ __forceinline__ void bt_block_sum_max(float *x, float *y)
{
    __shared__ float2 of_warp[32];
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    *x = bt_lanes_sum(*x);
    *y = bt_lanes_max(*y);
    if (lane == 0) of_warp[warp] = make_float2(*x, *y);
    __syncthreads();
    float2 mine = lane < warps ? of_warp[lane] : make_float2(0, 0);
    *x = bt_lanes_sum(mine.x);
    *y = bt_lanes_max(mine.y);
}

/* The sum, or the maximum, alone; the same conditions. */
static __device__ __forceinline__ float bt_block_sum(float x)
{
    __shared__ float of_warp[32];
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    x = bt_lanes_sum(x);
    if (lane == 0) of_warp[warp] = x;
    __syncthreads();
    return bt_lanes_sum(lane < warps ? of_warp[lane] : 0);
}

static __device__ __forceinline__ float bt_block_max(float y)
{
    __shared__ float of_warp[32];
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    y = bt_lanes_max(y);
    if (lane == 0) of_warp[warp] = y;
    __syncthreads();
    return bt_lanes_max(lane < warps ? of_warp[lane] : 0);
}

/* ---- codes ---- */
/* bt_f32_to_e4m3 of four values, the first in the low byte, with the signs of four others: the
 * instruction makes 0x7f of every NaN, where numerics.h keeps the sign. */
static __device__ __forceinline__ uint32_t bt_e4m3x4_signed(const float *x, const float *signs)
{
    uint32_t codes;
#if __CUDA_ARCH__ >= 890
    asm("{\n .reg .b16 low, high;\n"
        " cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
        " cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
        " mov.b32 %0, {low, high};\n}"
        : "=r"(codes)
        : "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3]));
#else
    codes = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t magnitude = __float_as_uint(x[i]) & 0x7fffffffu, code;
        if (magnitude > 0x7f800000u)
            code = 0x7fu;
        else if (magnitude >= 0x43e00000u)
            code = 0x7eu;
        else if (magnitude < 0x3c800000u)
            code = __float_as_uint(__fadd_rn(__uint_as_float(magnitude), 16384.0f)) - 0x46800000u;
        else
            code = ((magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20) - (120u << 3);
        codes |= code << (8 * i);
    }
#endif
    uint32_t low = __byte_perm(__float_as_uint(signs[0]), __float_as_uint(signs[1]), 0x0073);
    uint32_t high = __byte_perm(__float_as_uint(signs[2]), __float_as_uint(signs[3]), 0x0073);
    return codes | (__byte_perm(low, high, 0x5410) & 0x80808080u);
}

/* bt_f32_to_e4m3 of four values, the first in the low byte. */
static __device__ __forceinline__ uint32_t bt_e4m3x4(const float *x)
{
    return bt_e4m3x4_signed(x, x);
}

/* The values of four e4m3 codes, the first from the low byte. Exact. */
static __device__ __forceinline__ bt_floats<4> bt_e4m3x4_values(uint32_t codes)
{
    bt_floats<4> x;
#if __CUDA_ARCH__ >= 890
    uint32_t low, high;
    asm("{\n .reg .b16 a, b;\n mov.b32 {a, b}, %2;\n"
        " cvt.rn.f16x2.e4m3x2 %0, a;\n cvt.rn.f16x2.e4m3x2 %1, b;\n}"
        : "=r"(low), "=r"(high)
        : "r"(codes));
    float2 ab = __half22float2(*(__half2 *)&low), cd = __half22float2(*(__half2 *)&high);
    x.v[0] = ab.x, x.v[1] = ab.y, x.v[2] = cd.x, x.v[3] = cd.y;
#else
    /* Exponent and mantissa in the place of an f16's, whose bias is larger by 8. */
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t code = (codes >> (8 * i)) & 0xffu;
        uint32_t half = (code & 0x80u) << 8 | (code & 0x7fu) << 7;
        x.v[i] = __half2float(__ushort_as_half((unsigned short)half)) * 256.0f;
        if ((code & 0x7fu) == 0x7fu) x.v[i] = __uint_as_float(0x7fc00000u);
    }
#endif
    return x;
}

/* bt_f32_to_int8 of four values, the first in the low byte. */
static __device__ __forceinline__ uint32_t bt_int8x4(const float *x)
{
    uint32_t bits[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float within = fminf(fmaxf(x[i], -127.0f), 127.0f);
        within = x[i] == x[i] ? within : 0.0f;
        bits[i] = __float_as_uint(__fadd_rn(within, 12582912.0f)); /* 1.5 * 2^23: low byte = code */
    }
    return __byte_perm(__byte_perm(bits[0], bits[1], 0x0040), __byte_perm(bits[2], bits[3], 0x0040),
                       0x5410);
}

static __device__ __forceinline__ bt_floats<4> bt_int8x4_values(uint32_t codes)
{
    bt_floats<4> x;
#pragma unroll
    for (int i = 0; i < 4; i++) x.v[i] = (float)(int8_t)(codes >> (8 * i));
    return x;
}

/* bt_f32_to_f16_up, for x >= 0. */
static __device__ __forceinline__ uint16_t bt_f16_up(float x)
{
    return x >= 65504.0f ? (uint16_t)0x7bffu : __half_as_ushort(__float2half_ru(x));
}

static __device__ __forceinline__ float bt_f16_value(uint16_t h)
{
    return __half2float(__ushort_as_half(h));
}

/* Divides by a row's f16 scale; by 1 if the scale is 0, as bt_row_encode does. */
struct bt_divider {
    float scale, inverse;
};

static __device__ __forceinline__ bt_divider bt_divider_of(uint16_t row_scale)
{
    bt_divider by;
    by.scale = row_scale ? bt_f16_value(row_scale) : 1.0f;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(by.inverse) : "f"(by.scale));
    return by;
}

/* x / scale, correctly rounded (DIVIDE); a zero may lose its sign. */
static __device__ __forceinline__ float bt_quotient(float x, bt_divider by)
{
    float q = __fmul_rn(x, by.inverse), rest = __fmaf_rn(-q, by.scale, x);
    return fabsf(q) < __uint_as_float(0x7f800000u) ? __fmaf_rn(rest, by.inverse, q) : q;
}

/* The f16 scale of a KV row whose largest magnitude is amax; largest is the largest code, 448 or 127.
 * Where the quotient is subnormal it may be a unit off, but not the scale. */
static __device__ __forceinline__ uint16_t bt_row_scale(float amax, float largest)
{
    bt_divider by = {largest, largest == 448.0f ? 1.0f / 448.0f : 1.0f / 127.0f};
    return bt_f16_up(bt_quotient(amax, by));
}

/* Four codes of a scaled KV row, as bt_row_encode makes them. */
static __device__ __forceinline__ uint32_t bt_row_codes_e4m3(const float *x, bt_divider by)
{
    float q[4];
#pragma unroll
    for (int i = 0; i < 4; i++) q[i] = bt_quotient(x[i], by);
    return bt_e4m3x4_signed(q, x);
}

static __device__ __forceinline__ uint32_t bt_row_codes_int8(const float *x, bt_divider by)
{
    float q[4];
#pragma unroll
    for (int i = 0; i < 4; i++) q[i] = bt_quotient(x[i], by);
    return bt_int8x4(q);
}

#endif
