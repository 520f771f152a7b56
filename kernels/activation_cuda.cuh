/* activation_cuda.cuh - one vector of an activation's row, written as activation_cuda.h says. */
#ifndef BT_KERNELS_ACTIVATION_CUDA_CUH
#define BT_KERNELS_ACTIVATION_CUDA_CUH

#include "kernels/activation_cuda.h"
#include "kernels/cuda_device.cuh"

/* V values at element `at` of y, each times `factor` before it becomes a code; factor is ignored for bf16. */
template <bt_activation_kind KIND, int V>
static __device__ __forceinline__ void bt_activation_store(void *y, size_t at, bt_floats<V> value,
                                                           float factor)
{
    if constexpr (KIND == BT_ACTIVATION_BF16) {
        bt_store<V>((__nv_bfloat16 *)y + at, value);
    } else {
        uint32_t codes[V / 4];
#pragma unroll
        for (int i = 0; i < V; i++) value.v[i] *= factor;
#pragma unroll
        for (int i = 0; i < V / 4; i++) codes[i] = bt_e4m3x4(value.v + 4 * i);
        if constexpr (V == 8)
            *(uint2 *)((uint8_t *)y + at) = make_uint2(codes[0], codes[1]);
        else
            *(uint32_t *)((uint8_t *)y + at) = codes[0];
    }
}

/* What codes are multiplied by, of a row whose largest magnitude is amax; 0 for a row of zeros. */
static __device__ __forceinline__ float bt_activation_factor(float amax)
{
    /* Below 2^-118 the quotient would overflow; such a row's codes are of its scale's last bits anyway. */
    return amax > 0 ? fminf(448.0f / amax, 0x1p126f) : 0.0f;
}

#endif
