/* rmsnorm_cuda.cu - one block for a row; the row stays in registers between the two passes.
 *
 * BYTES   rows * n * (4 + 2 + 4 + 2) with delta: x read and written, delta read, y written.
 * FIGURES none yet. */
extern "C" {
#include "kernels/rmsnorm/rmsnorm_cuda.h"
}

#include <assert.h>

#include <cuda_bf16.h>

namespace
{

constexpr int THREADS = 512, EIGHTS = 4; /* 512 threads of 4 times 8 values: n <= 16384 */

__device__ float sum_of_block(float value)
{
    __shared__ float sums[THREADS / 32];
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    float total = 0;
    for (int i = 0; i < THREADS / 32; i++) total += sums[i];
    return total;
}

__global__ void __launch_bounds__(THREADS) rmsnorm(bt_rmsnorm_cuda_args op)
{
    size_t row = (size_t)blockIdx.x * op.n;
    float v[EIGHTS][8];
    float squares = 0;
#pragma unroll
    for (int e = 0; e < EIGHTS; e++) {
        unsigned at = (e * THREADS + threadIdx.x) * 8;
        if (at >= op.n) break;
        *(float4 *)&v[e][0] = *(const float4 *)(op.x + row + at);
        *(float4 *)&v[e][4] = *(const float4 *)(op.x + row + at + 4);
        if (op.delta) {
            uint4 raw = *(const uint4 *)((const __nv_bfloat16 *)op.delta + row + at);
            const __nv_bfloat16 *d = (const __nv_bfloat16 *)&raw;
            for (int i = 0; i < 8; i++) v[e][i] += __bfloat162float(d[i]);
            *(float4 *)(op.x + row + at) = *(float4 *)&v[e][0];
            *(float4 *)(op.x + row + at + 4) = *(float4 *)&v[e][4];
        }
        for (int i = 0; i < 8; i++) squares += v[e][i] * v[e][i];
    }
    float scale = rsqrtf(sum_of_block(squares) / op.n + op.eps);
#pragma unroll
    for (int e = 0; e < EIGHTS; e++) {
        unsigned at = (e * THREADS + threadIdx.x) * 8;
        if (at >= op.n) break;
        uint4 raw = *(const uint4 *)((const __nv_bfloat16 *)op.w + at), out;
        const __nv_bfloat16 *w = (const __nv_bfloat16 *)&raw;
        __nv_bfloat16 *y = (__nv_bfloat16 *)&out;
        for (int i = 0; i < 8; i++)
            y[i] = __float2bfloat16(v[e][i] * scale * __bfloat162float(w[i]));
        *(uint4 *)((__nv_bfloat16 *)op.y + row + at) = out;
    }
}

} // namespace

extern "C" bt_status bt_rmsnorm_cuda(const bt_rmsnorm_cuda_args *op, cudaStream_t stream,
                                     bt_err *err)
{
    assert(op->n % 8 == 0 && op->n <= THREADS * EIGHTS * 8);
    if (op->rows == 0) return BT_OK;
    rmsnorm<<<op->rows, THREADS, 0, stream>>>(*op);
    return bt_cuda_launched("rmsnorm", err);
}
