/* attention_decode_ring.cuh - the ring of tiles in shared memory between the warp that copies and the
 * warps that compute: barriers, and the copies in two kinds.
 *
 * Every lane of the copying warp has at most one copy for a tile. From Hopper on each becomes one bulk
 * copy that counts its bytes on the tile's barrier; before, the warp moves them together by 16 bytes
 * a lane, and each lane's arrival follows its bytes. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_DECODE_RING_CUH
#define BT_KERNELS_ATTENTION_ATTENTION_DECODE_RING_CUH

#include <cstdint>

#define BT_DEVICE __device__ __forceinline__

struct ring_copy {
    const void *from;
    uint32_t to; /* shared address */
    uint32_t bytes;
};

BT_DEVICE uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

BT_DEVICE void barrier_init(uint32_t barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

BT_DEVICE void barrier_arrive(uint32_t barrier)
{
    asm volatile("{\n.reg .b64 state;\n"
                 "mbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(barrier)
                 : "memory");
}

#if __CUDA_ARCH__ >= 900

constexpr uint32_t FULL_ARRIVALS = 1;

BT_DEVICE void barrier_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

BT_DEVICE bool barrier_passed(uint32_t barrier, uint32_t parity)
{
    uint32_t passed;
    asm volatile("{\n.reg .pred p;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(passed)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return passed;
}

/* All lanes of one warp; what lane 0 wrote before is seen by those who wait. */
BT_DEVICE void ring_fill(const ring_copy &copy, uint32_t barrier)
{
    uint32_t bytes = __reduce_add_sync(~0u, copy.bytes);
    if (threadIdx.x % 32 == 0)
        asm volatile("{\n.reg .b64 state;\n"
                     "mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1;\n}" ::"r"(barrier),
                     "r"(bytes)
                     : "memory");
    __syncwarp();
    if (copy.bytes == 0) return;
    uint64_t once; /* what is read once may leave the L2 first */
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(once));
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1], %2, [%3], %4;" ::"r"(copy.to),
                 "l"(copy.from), "r"(copy.bytes), "r"(barrier), "l"(once)
                 : "memory");
}

#else

constexpr uint32_t FULL_ARRIVALS = 33; /* every lane's bytes, and what lane 0 wrote */

BT_DEVICE void barrier_fence()
{
}

BT_DEVICE bool barrier_passed(uint32_t barrier, uint32_t parity)
{
    uint32_t passed;
    asm volatile("{\n.reg .pred p;\n"
                 "mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(passed)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return passed;
}

BT_DEVICE void ring_fill(const ring_copy &copy, uint32_t barrier)
{
    uint32_t lane = threadIdx.x % 32, any = __ballot_sync(~0u, copy.bytes != 0);
    for (; any; any &= any - 1) {
        int owner = __ffs(any) - 1;
        uint64_t from = __shfl_sync(~0u, (uint64_t)copy.from, owner);
        uint32_t to = __shfl_sync(~0u, copy.to, owner);
        uint32_t bytes = __shfl_sync(~0u, copy.bytes, owner);
        for (uint32_t at = lane * 16; at < bytes; at += 32 * 16)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + at), "l"(from + at)
                         : "memory");
    }
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
    if (lane == 0) barrier_arrive(barrier);
}

#endif

BT_DEVICE void barrier_wait(uint32_t barrier, uint32_t parity)
{
    while (!barrier_passed(barrier, parity)) {
    }
}

/* Where both sides stand in the ring. */
struct ring_place {
    uint32_t stage, parity;

    BT_DEVICE void step(uint32_t stages)
    {
        if (++stage < stages) return;
        stage = 0;
        parity ^= 1;
    }
};

#endif
