/* linear_w4.cuh - what the linear_w4_*.cu files share; only they may include it. */
#ifndef BT_KERNELS_LINEAR_LINEAR_W4_CUH
#define BT_KERNELS_LINEAR_LINEAR_W4_CUH

extern "C" {
#include "kernels/linear/linear_w4_cuda.h"
}

#include <cuda_bf16.h>

namespace bt_w4_device
{

/* NVFP4's sums are of weights times 2^-8, see format_nvfp4. */
inline float factor_of(const bt_linear_w4_args *op)
{
    return op->format == BT_W4_NVFP4 ? op->factor * 256 : op->factor;
}

__device__ inline uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* 16 bytes that are read once: they shall not push anything out of L1. */
__device__ inline uint4 load_once(const void *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

__device__ inline uint4 load_shared_16(uint32_t address)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(address)
                 : "memory");
    return v;
}

__device__ inline void copy_16(uint32_t to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ inline void copies_end_group()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int PENDING> __device__ inline void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* Of Hopper and later, as all to the next note: not to be used elsewhere. */
__device__ inline void barrier_init(uint32_t barrier, uint32_t count)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

__device__ inline void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ inline void barrier_wait(uint32_t barrier, uint32_t phase)
{
    asm volatile("{ .reg .pred p;\n"
                 "again: mbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n"
                 "@!p bra again; }" ::"r"(barrier),
                 "r"(phase)
                 : "memory");
}

/* One arrival, and so many bytes to come by copies that name the barrier. */
__device__ inline void barrier_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

/* True for one lane of a whole warp, always the same. */
__device__ inline bool elected()
{
    uint32_t yes;
    asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p; }" : "=r"(yes));
    return yes;
}

/* A multiple of 16 bytes, by one thread. */
__device__ inline void copy_bulk(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], "
                 "%2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

/* See OVERLAP in linear_w4_cuda.h. */
__device__ inline void let_next_begin()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ inline void wait_for_kernel_ahead()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline void load_matrices(uint32_t (&b)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(address)
                 : "memory");
}

__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline uint32_t sub_bf16x2(uint32_t a, uint32_t b)
{
    __nv_bfloat162 r = __hsub2(*(__nv_bfloat162 *)&a, *(__nv_bfloat162 *)&b);
    return *(uint32_t *)&r;
}

__device__ inline uint32_t mul_bf16x2(uint32_t a, uint32_t b)
{
    __nv_bfloat162 r = __hmul2(*(__nv_bfloat162 *)&a, *(__nv_bfloat162 *)&b);
    return *(uint32_t *)&r;
}

/* a & b | c, one instruction also where b and c are constants. */
__device__ inline uint32_t and_or(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

/* A format: the scales that a lane needs of a group of 128 k (its rows r and r + 8), and how the word of a step
 * (16 k, 0 .. 7 of the group) becomes the A fragment.
 *   widen       exact. GROUP_SUMS: without the scale, which multiplies the group's sums.
 *   widen_all   with the scale, in bf16 */
struct format_w4 {
    typedef uint2 scales;
    static constexpr uint32_t BLOCK_BYTES = BT_W4_BLOCK_BYTES;
    static constexpr bool GROUP_SUMS = true;
    static constexpr uint32_t BIAS =
        0x43004300; /* twice 128 in bf16: the mantissa's units are ones */

    static __device__ inline scales load(const uint8_t *group, unsigned lane)
    {
        uint2 v;
        asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
                     : "=r"(v.x), "=r"(v.y)
                     : "l"(group + lane / 4 * 8));
        return v;
    }

    static __device__ inline scales load_shared(uint32_t group, unsigned lane)
    {
        uint2 v;
        asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                     : "=r"(v.x), "=r"(v.y)
                     : "r"(group + lane / 4 * 8)
                     : "memory");
        return v;
    }

    static __device__ inline float scale_of(uint32_t word)
    {
        return __uint_as_float(word & ~15u);
    }

    static __device__ inline uint32_t zero_pair(uint32_t word)
    {
        return (word & 15) * 0x00010001u | BIAS;
    }

    static __device__ inline uint32_t scale_pair(uint32_t word)
    {
        __nv_bfloat162 pair = __float2bfloat162_rn(scale_of(word));
        return *(uint32_t *)&pair;
    }

    static __device__ inline void widen(uint32_t (&a)[4], uint32_t word, scales s, int)
    {
        const uint32_t zero[2] = {zero_pair(s.x), zero_pair(s.y)};
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = sub_bf16x2(and_or(word >> 4 * i, 0x000f000fu, BIAS), zero[i & 1]);
    }

    static __device__ inline void widen_all(uint32_t (&a)[4], uint32_t word, scales s, int step)
    {
        const uint32_t scale[2] = {scale_pair(s.x), scale_pair(s.y)};
        widen(a, word, s, step);
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = mul_bf16x2(a[i], scale[i & 1]);
    }

    static __device__ inline float2 group_scale(scales s)
    {
        return make_float2(scale_of(s.x), scale_of(s.y));
    }

    /* 128 + code; add_biased makes of the group's sums of that what they are without the 128. half: row r or r + 8. */
    static __device__ inline void widen_biased(uint32_t (&a)[4], uint32_t word, scales, int)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = and_or(word >> 4 * i, 0x000f000fu, BIAS);
    }

    static __device__ inline void add_biased(float &sum, float part, float x_sum, scales s,
                                             int half)
    {
        uint32_t word = half ? s.y : s.x;
        sum += scale_of(word) * (part - (float)(128 + (word & 15)) * x_sum);
    }
};

/* A code's three bits of magnitude, moved to the bits 8 .. 6 of a bf16, are the value times 2^-126; a scale's byte
 * times 16, with 235 added to its exponent, is the scale times 2^118: every product is exact, times 2^-8. */
struct format_nvfp4 {
    typedef uint4 scales;
    static constexpr uint32_t BLOCK_BYTES = BT_W4_NVFP4_BLOCK_BYTES;
    static constexpr bool GROUP_SUMS = false;
    static constexpr uint32_t MAGNITUDE = 0x01c001c0, SIGN = 0x80008000;

    static __device__ inline scales load(const uint8_t *group, unsigned lane)
    {
        return load_once(group + lane / 4 * 16);
    }

    static __device__ inline scales load_shared(uint32_t group, unsigned lane)
    {
        return load_shared_16(group + lane / 4 * 16);
    }

    static __device__ inline uint32_t scale_pair(uint32_t word, int byte)
    {
        return (word >> 8 * byte & 255) * 0x00100010u + 235 * 0x00800080u;
    }

    static __device__ inline void widen(uint32_t (&a)[4], uint32_t word, scales s, int step)
    {
        const uint32_t two = step / 2 == 0 ? s.x : step / 2 == 1 ? s.y : step / 2 == 2 ? s.z : s.w;
        const uint32_t scale[2] = {scale_pair(two, step % 2 * 2),
                                   scale_pair(two, step % 2 * 2 + 1)};
        const uint32_t by_3 = word << 3;
        a[0] = and_or(by_3, SIGN, word << 6 & MAGNITUDE);
        a[1] = and_or(word << 2, SIGN, by_3 & MAGNITUDE);
        a[2] = and_or(word << 1, SIGN, word & MAGNITUDE);
        a[3] = and_or(word, SIGN, word >> 3 & MAGNITUDE);
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = mul_bf16x2(a[i], scale[i & 1]);
    }

    static __device__ inline float2 group_scale(scales)
    {
        return make_float2(1, 1);
    }

    static __device__ inline void widen_biased(uint32_t (&a)[4], uint32_t word, scales s, int step)
    {
        widen(a, word, s, step);
    }

    static __device__ inline void add_biased(float &sum, float part, float, scales, int)
    {
        sum += part;
    }

    static __device__ inline void widen_all(uint32_t (&a)[4], uint32_t word, scales s, int step)
    {
        widen(a, word, s, step);
    }
};

} // namespace bt_w4_device

#endif
