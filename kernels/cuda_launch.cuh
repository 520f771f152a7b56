/* cuda_launch.cuh - launches that overlap with the kernel before, and blocks that work as a cluster.
 *
 * OVERLAP  (programmatic dependent launch) A kernel launched by bt_launch may start while the one before it in
 *          the stream still runs. Until bt_wait_previous() it may read what no kernel writes (weights) and
 *          nothing else; from there on everything before it is complete and visible. It calls
 *          bt_start_next() first of all, so that the next one's blocks come up beside its last ones.
 *          A kernel that does neither, launched as usual, may stand before or after: it is waited for
 *          whole, and waits for the whole. Every kernel launched by bt_launch calls bt_wait_previous(), or
 *          the one after next could start too early.
 * CLUSTER  of 1, 2, 4 or 8 blocks that follow each other in x, which share the largest value of a row.
 * Before sm_90 there is neither: launches are plain, clusters are of 1, the calls do nothing. */
#ifndef BT_KERNELS_CUDA_LAUNCH_CUH
#define BT_KERNELS_CUDA_LAUNCH_CUH

#include "kernels/cuda_device.cuh"

extern "C" {
#include "kernels/cuda.h"
}

/* bt_cuda_arch(), asked once. */
static inline int bt_launch_arch()
{
    static const int arch = bt_cuda_arch();
    return arch;
}

template <typename... P, typename... A>
static inline void bt_launch(void (*kernel)(P...), dim3 grid, unsigned threads, unsigned cluster,
                             cudaStream_t stream, A... args)
{
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = cluster;
    attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = bt_launch_arch() < 90 ? 0 : cluster > 1 ? 2 : 1;
    cudaLaunchKernelEx(&config, kernel, P(args)...);
}

static __device__ __forceinline__ void bt_start_next()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

static __device__ __forceinline__ void bt_wait_previous()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Blocks of this block's cluster, and which of them it is. */
static __device__ __forceinline__ unsigned bt_cluster_blocks()
{
    unsigned blocks = 1;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
#endif
    return blocks;
}

static __device__ __forceinline__ unsigned bt_cluster_rank()
{
    unsigned rank = 0;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
    return rank;
}

/* First of all in a kernel that calls bt_cluster_max: another block's shared memory may be written only
 * once that block runs. */
static __device__ __forceinline__ void bt_cluster_arrive()
{
#if __CUDA_ARCH__ >= 900
    if (bt_cluster_blocks() > 1)
        asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}

/* The maximum of y >= 0 over the cluster's blocks of whole warps, in every thread; once in a kernel. Each
 * block writes its maximum into all of them, so that after the barrier a block needs no other. */
static __device__ __forceinline__ float bt_cluster_max(float y)
{
    y = bt_block_max(y);
#if __CUDA_ARCH__ >= 900
    __shared__ float of_block[8];
    unsigned blocks = bt_cluster_blocks();
    if (blocks == 1) return y;
    asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
    if (threadIdx.x < blocks) {
        uint32_t mine = (uint32_t)__cvta_generic_to_shared(&of_block[bt_cluster_rank()]), theirs;
        asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(theirs) : "r"(mine), "r"(threadIdx.x));
        asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(theirs), "f"(y) : "memory");
    }
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    for (unsigned i = 0; i < blocks; i++) y = fmaxf(y, of_block[i]);
#endif
    return y;
}

#endif
