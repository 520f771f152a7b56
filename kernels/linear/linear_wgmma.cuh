/* linear_wgmma.cuh - Hopper's wgmma with 64 rows of e4m3 from registers and 64 columns from shared memory.
 *
 * Only where __CUDA_ARCH_FEAT_SM90_ALL is defined. The 4 warps of a group hold 16 rows of A each, as the
 * fragments of mma.sync m16n8k32; so are the sums, d[4 * tile + i] as tile's d[i] of m16n8. The rows of B, 32
 * bytes each, lie in cores of 8 rows by 16 bytes, row after row: cores of the same bytes one after the
 * other, those of the second 16 bytes B_HALF further.
 * PRECISION  Hopper aligns the products of one wgmma and the sum so far to their largest and keeps about
 *            14 bits: sums over many k must be taken out and added in f32. */
#ifndef BT_KERNELS_LINEAR_LINEAR_WGMMA_CUH
#define BT_KERNELS_LINEAR_LINEAR_WGMMA_CUH

#include <stdint.h>

namespace bt_wgmma
{

constexpr uint32_t B_CORE = 128, B_HALF = 8 * B_CORE, B_BYTES = 2 * B_HALF;

/* For B at this address of shared memory, a multiple of 16. */
__device__ inline uint64_t describe(const void *b)
{
    uint64_t at = (uint32_t)__cvta_generic_to_shared(b) >> 4 & 0x3fff;
    return at | (uint64_t)(B_HALF >> 4) << 16 | (uint64_t)(B_CORE >> 4) << 32;
}

/* Before the first multiply after registers of A or sums were written. */
__device__ inline void begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* Starts d = a b, or d = d + a b if add. */
__device__ inline void multiply(float (&d)[32], uint4 a, uint64_t b, int add)
{
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.ne.b32 add, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, "
                 "%8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, add, 1, 1;\n"
                 "}\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                   "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                   "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
                   "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
                   "+f"(d[30]), "+f"(d[31])
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "r"(add)
                 : "memory");
}

/* Waits for all that was started; d is then what they made. */
__device__ inline void finish(float (&d)[32])
{
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < 32; i++) asm volatile("" : "+f"(d[i])::"memory");
}

} // namespace bt_wgmma

#endif
