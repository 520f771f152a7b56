/* attention_sm90.cuh - the Hopper instructions that the wgmma attention uses, one function each.
 *
 * Shared memory of every operand is in the 128-byte swizzle: squares of 8 rows of 64 bf16 (128 bytes), at
 * multiples of 1024 bytes, with the 16-byte word w of row r at word w ^ (r % 8).
 *   Q and K, multiplied along the row ("K-major"): the stride offset leads to the square of the next 8
 *     rows; 16 more along the row are 32 bytes further, then in the next square.
 *   V, multiplied down the column ("MN-major"): the leading offset leads to the square of the next 64 of
 *     the row, the stride offset to that of the next 8 rows. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_SM90_CUH
#define BT_KERNELS_ATTENTION_ATTENTION_SM90_CUH

#include <stdint.h>

#include <cuda_fp16.h>

namespace sm90
{

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr bool PRESENT = true;
#else
constexpr bool PRESENT = false; /* on the host, and in code for other architectures */
#endif

__device__ inline uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- mbarriers ---- */
__device__ inline void barrier_init(uint32_t barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

__device__ inline void barriers_seen()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ inline void arrive_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

__device__ inline bool passed(uint32_t barrier, uint32_t parity)
{
    uint32_t done;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n"
                 "}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return done;
}

__device__ inline void wait(uint32_t barrier, uint32_t parity)
{
    while (!passed(barrier, parity)) continue;
}

/* ---- named barriers: two warpgroups take turns ---- */
__device__ inline void turn_wait(uint32_t id)
{
    asm volatile("bar.sync %0, 256;" ::"r"(id) : "memory");
}

__device__ inline void turn_give(uint32_t id)
{
    asm volatile("bar.arrive %0, 256;" ::"r"(id) : "memory");
}

/* ---- copies ---- */
__device__ inline void copy_box(uint32_t to, const void *map, int a, int b, int c, int d,
                                uint32_t barrier)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(to),
                 "l"(map), "r"(a), "r"(b), "r"(c), "r"(d), "r"(barrier)
                 : "memory");
}

__device__ inline void copy_bulk(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier)
{
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
        "[%3];" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier)
        : "memory");
}

__device__ inline void copy_16(uint32_t to, const void *from, bool exists)
{
    int bytes = exists ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}

/* For all that this thread began. */
__device__ inline void copies_wait()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

__device__ inline uint2 load_8(uint32_t from)
{
    uint2 x;
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(x.x), "=r"(x.y) : "r"(from) : "memory");
    return x;
}

__device__ inline float load_half(uint32_t from)
{
    uint16_t x;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(x) : "r"(from) : "memory");
    return __half2float(__ushort_as_half(x));
}

__device__ inline void store_16(uint32_t to, uint4 x)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z),
                 "r"(x.w)
                 : "memory");
}

__device__ inline void store_4(uint32_t to, float x)
{
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(x) : "memory");
}

__device__ inline void store_zeros(uint32_t to)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
}

/* What this thread wrote to shared memory, for wgmma to see. */
__device__ inline void fence_async()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- registers ---- */
template <int COUNT> __device__ inline void registers_fewer()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> __device__ inline void registers_more()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/* ---- wgmma ---- */
/* Offsets in bytes. */
__device__ inline uint64_t descriptor(uint32_t address, uint32_t leading, uint32_t stride)
{
    return (uint64_t)(address >> 4 & 0x3fff) | (uint64_t)(leading >> 4) << 16 |
           (uint64_t)(stride >> 4) << 32 | (uint64_t)1 << 62;
}

__device__ inline void mma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ inline void mma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int LEFT> __device__ inline void mma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

/* The compiler may not move uses of these across this point. */
template <int COUNT> __device__ inline void pin(float (&x)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(x[i])::"memory");
}

/* What follows starts when x is there: ptxas would wait for the products of the values first, and only then
 * begin with the exponentials that should hide them. x is not negative: nothing is stored. */
__device__ inline void after(float x, uint32_t address)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.lt.f32 p, %0, 0f00000000;\n"
                 "@p st.shared.f32 [%1], %0;\n"
                 "}" ::"f"(x),
                 "r"(address)
                 : "memory");
}

#define F8(c, i)                                                                                   \
    "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]),    \
        "+f"(c[i + 6]), "+f"(c[i + 7])
#define F32(c, i) F8(c, i), F8(c, i + 8), F8(c, i + 16), F8(c, i + 24)
#define WGMMA_D64                                                                                  \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "       \
    "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
#define WGMMA_D128                                                                                 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "       \
    "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "        \
    "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "        \
    "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
#define WGMMA_D256                                                                                 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "       \
    "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "        \
    "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "        \
    "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "        \
    "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, "        \
    "%87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, "          \
    "%103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, "         \
    "%117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "

/* c = (KEEP ? c : 0) + a b^T for 64 rows of a and 2 * COUNT of b, 16 along each. */
template <bool KEEP> __device__ inline void mma_scores(float (&c)[32], uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " WGMMA_D64
                 "%32, %33, %34, 1, 1, 0, 0;"
                 : F32(c, 0)
                 : "l"(a), "l"(b), "n"((int)KEEP));
}

template <bool KEEP> __device__ inline void mma_scores(float (&c)[64], uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " WGMMA_D128
                 "%64, %65, %66, 1, 1, 0, 0;"
                 : F32(c, 0), F32(c, 32)
                 : "l"(a), "l"(b), "n"((int)KEEP));
}

/* c += a b for 64 rows of a, 16 along each, in registers, and 16 rows of b, 2 * COUNT along each. */
__device__ inline void mma_values(float (&c)[32], const uint32_t *a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " WGMMA_D64
                 "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : F32(c, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ inline void mma_values(float (&c)[64], const uint32_t *a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " WGMMA_D128
                 "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : F32(c, 0), F32(c, 32)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ inline void mma_values(float (&c)[128], const uint32_t *a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " WGMMA_D256
                 "{%128, %129, %130, %131}, %132, 1, 1, 1, 1;"
                 : F32(c, 0), F32(c, 32), F32(c, 64), F32(c, 96)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef F32
#undef F8
#undef WGMMA_D64
#undef WGMMA_D128
#undef WGMMA_D256

} // namespace sm90

#endif
