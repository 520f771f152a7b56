/* linear_w4_sm90.cuh - Hopper's instructions as functions, for linear_w4_many_sm90.cu alone. */
#ifndef BT_KERNELS_LINEAR_LINEAR_W4_SM90_CUH
#define BT_KERNELS_LINEAR_LINEAR_W4_SM90_CUH

#include "kernels/linear/linear_w4.cuh"

#include <cuda.h>

/* x as a matrix whose tiles are 64 k of that many tokens. */
bt_status bt_w4_map_x(const bt_linear_w4_args *op, uint32_t tokens, CUtensorMap *ret_map,
                      bt_err *err);

namespace bt_w4_device
{

/* Among the 128 threads of a warpgroup. */
__device__ inline void warpgroup_sync(int id)
{
    asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory");
}

/* Four 8 x 8 of 16 bits, each transposed. */
__device__ inline void store_matrices(uint32_t address, const uint32_t (&v)[4])
{
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
        "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
        : "memory");
}

__device__ inline void wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ inline void wgmma_end_group()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int PENDING> __device__ inline void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* Keeps the compiler from moving a use of the sums over the wait before it. */
template <int COUNT> __device__ inline void settle(float (&d)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/* B: rows of 64 k, 128 bytes each, swizzled, eight rows to 1024 bytes. */
__device__ inline uint64_t operand_b(uint32_t address)
{
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 |
           (address & 0x3ffff) >> 4;
}

/* d = a * b (+ d if add): 64 rows, as many columns as d has registers times two, 16 k. */
__device__ inline void wgmma(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int add)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0; "
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "
                 "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                   "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                   "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
                   "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
                   "+f"(d[30]), "+f"(d[31])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

__device__ inline void wgmma(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %69, 0; "
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "
                 "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, "
                 "%47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
                 "%62, %63}, "
                 "{%64, %65, %66, %67}, %68, p, 1, 1, 0; }"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                   "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                   "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
                   "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
                   "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
                   "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
                   "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
                   "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]),
                   "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),
                   "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

__device__ inline void wgmma(float (&d)[8], const uint32_t (&a)[4], uint64_t b, int add)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %13, 0; "
                 "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7}, "
                 "{%8, %9, %10, %11}, %12, p, 1, 1, 0; }"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                   "+f"(d[6]), "+f"(d[7])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

__device__ inline void wgmma(float (&d)[16], const uint32_t (&a)[4], uint64_t b, int add)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %21, 0; "
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
                 "{%16, %17, %18, %19}, %20, p, 1, 1, 0; }"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                   "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                   "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

__device__ inline void wgmma(float (&d)[4], const uint32_t (&a)[4], uint64_t b, int add)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %9, 0; "
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, %8, p, 1, 1, 0; }"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

__device__ inline uint32_t cluster_rank()
{
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/* Every thread of every block of the cluster. */
__device__ inline void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

/* A tile of x, from column k and row token on, as the tensor map's box has it. */
__device__ inline void copy_tile(uint32_t to, const CUtensorMap *map, uint32_t k, uint32_t token,
                                 uint32_t barrier)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(map), "r"(k), "r"(token), "r"(barrier)
                 : "memory");
}

__device__ inline void prefetch_tile(const CUtensorMap *map, uint32_t k, uint32_t token)
{
    asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];" ::"l"(map),
                 "r"(k), "r"(token)
                 : "memory");
}

/* The ring in shared memory through which blocks get their operands, a group of 128 k in each stage: x as two
 * times [TOKENS][64 k] with the 128-byte swizzle, then the packed blocks of 16 rows of w.
 * `full` counts one arrival and bytes, `empty` one arrival of each warp that computes. */
template <class F, int ROWS, int TOKENS, int STAGES> struct ring {
    static constexpr uint32_t HALF_BYTES = TOKENS * 128, X_BYTES = 2 * HALF_BYTES;
    static constexpr uint32_t W_BYTES = ROWS / 16 * F::BLOCK_BYTES;
    static constexpr uint32_t STAGE_BYTES = (X_BYTES + W_BYTES + 1023) / 1024 * 1024;
    static constexpr uint32_t BYTES = STAGES * (STAGE_BYTES + 16);

    uint32_t base, full, empty;

    /* memory: shared, 1024-byte aligned. */
    __device__ ring(uint32_t memory)
        : base(memory), full(memory + STAGES * STAGE_BYTES), empty(full + STAGES * 8)
    {
    }

    __device__ void init(uint32_t computing_warps) const
    {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(full + s * 8, 1);
            barrier_init(empty + s * 8, computing_warps);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }

    __device__ uint32_t stage(uint32_t index) const
    {
        return base + index * STAGE_BYTES;
    }

    /* By a whole warp, as all that follows; first of all for a stage. blocks: of w. Addresses must not depend on the lane,
     * or each lane's copy becomes a loop over the warp. */
    __device__ void expect(uint32_t index, uint32_t blocks) const
    {
        if (elected()) barrier_expect(full + index * 8, X_BYTES + blocks * F::BLOCK_BYTES);
    }

    /* w: the first of the blocks of a group, stride bytes apart. */
    __device__ void fetch_w(uint32_t index, const uint8_t *w, uint32_t blocks, size_t stride) const
    {
        if (!elected()) return;
        for (uint32_t i = 0; i < blocks; i++)
            copy_bulk(stage(index) + X_BYTES + i * F::BLOCK_BYTES, w + i * stride, F::BLOCK_BYTES,
                      full + index * 8);
    }

    __device__ void fetch_x(uint32_t index, const CUtensorMap *map, uint32_t group,
                            uint32_t token) const
    {
        if (!elected()) return;
        copy_tile(stage(index), map, group * BT_W4_GROUP, token, full + index * 8);
        copy_tile(stage(index) + HALF_BYTES, map, group * BT_W4_GROUP + 64, token,
                  full + index * 8);
    }

    /* To the L2; whoever writes x later does so there. */
    __device__ void prefetch_x(const CUtensorMap *map, uint32_t group, uint32_t token) const
    {
        if (!elected()) return;
        prefetch_tile(map, group * BT_W4_GROUP, token);
        prefetch_tile(map, group * BT_W4_GROUP + 64, token);
    }

    /* This lane's codes of 64 k, and its scales, of the block. */
    __device__ uint4 codes(uint32_t index, uint32_t block, int half) const
    {
        return load_shared_16(stage(index) + X_BYTES + block * F::BLOCK_BYTES +
                              half * (BT_W4_BLOCK_CODES / 2) + threadIdx.x % 32 * 16);
    }

    __device__ typename F::scales scales(uint32_t index, uint32_t block) const
    {
        return F::load_shared(stage(index) + X_BYTES + block * F::BLOCK_BYTES + BT_W4_BLOCK_CODES,
                              threadIdx.x % 32);
    }

    __device__ uint64_t x(uint32_t index, int half) const
    {
        return operand_b(stage(index) + half * HALF_BYTES);
    }
};

/* A place in a ring, and how often it has been around. */
template <int STAGES> struct place {
    uint32_t stage = 0, phase = 0;

    __device__ void next()
    {
        if (++stage == STAGES) stage = 0, phase ^= 1;
    }
};

} // namespace bt_w4_device

#endif
