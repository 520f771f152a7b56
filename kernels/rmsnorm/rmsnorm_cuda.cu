/* rmsnorm_cuda.cu - one block for a row; the row stays in registers between the two passes.
 *
 * SHAPE   a thread has E vectors of V values, blockDim.x vectors apart; w is loaded with x, so that a
 *         row of a small batch waits for memory once. The amax of an FP8 row is taken of x * w before
 *         the norm's factor is known, in the same barrier as the sum of squares.
 * BYTES   per element with delta: f32 stream 10 + 2 (bf16 out) or 1 (fp8); bf16 stream 6 + 2 or 1.
 * FIGURES H100 SXM, 2026-11-24, gpu-check --only rmsnorm, n 4096, cold L2, the card copies 2,836 GB/s.
 *         f32 stream: rows 2048 2,853 GB/s to bf16, 2,822 to fp8; rows 256 2,224 and 2,109. bf16 stream: 2,787,
 *         2,754; 1,992, 1,755. In a graph 1.2 us for 1 row (fp8 by token 1.7), 1.7 for 16, 2.5 for 64: one
 *         cold load, one barrier and a store, not bandwidth.
 * TRIED   Vectors of 4 or 8 values, 1, 2 or 4 a thread: within 0.2 us up to 64 rows, within 1 % at 2048.
 *         Letting the next kernel start at the top: 3.5 us for 64 rows, as waiting blocks crowd onto few
 *         SMs; after the loads: 6.4 us for 256 rows against 5.7. Without overlapping launches: 0.6 us more
 *         up to 64 rows. */
extern "C" {
#include "kernels/rmsnorm/rmsnorm_cuda.h"
}

#include "kernels/activation_cuda.cuh"
#include "kernels/cuda_launch.cuh"

#include <assert.h>

namespace
{

template <typename X, int V, int E, bt_activation_kind KIND>
__global__ void __launch_bounds__(1024) rmsnorm(bt_rmsnorm_cuda_args op)
{
    bt_raw<V, X> raw_x[E];
    bt_raw<V, __nv_bfloat16> raw_d[E], raw_w[E];
#pragma unroll
    for (int e = 0; e < E; e++) {
        unsigned at = (e * blockDim.x + threadIdx.x) * V;
        raw_w[e] = {};
        if (at < op.n) raw_w[e] = bt_load_raw<V>((const __nv_bfloat16 *)op.w + at);
    }
    bt_wait_previous();
    size_t from = (size_t)(op.pick ? op.pick[blockIdx.x] : blockIdx.x) * op.n;
    X *x = (X *)op.x + from;
    const __nv_bfloat16 *delta = (const __nv_bfloat16 *)op.delta + from;
#pragma unroll
    for (int e = 0; e < E; e++) {
        unsigned at = (e * blockDim.x + threadIdx.x) * V;
        raw_x[e] = {}, raw_d[e] = {};
        if (at < op.n) raw_x[e] = bt_load_raw<V>(x + at);
        if (at < op.n && op.delta) raw_d[e] = bt_load_raw<V>(delta + at);
    }
    bt_floats<V> v[E];
    float squares = 0, most = 0;
#pragma unroll
    for (int e = 0; e < E; e++) {
        unsigned at = (e * blockDim.x + threadIdx.x) * V;
        v[e] = bt_values(raw_x[e]);
        bt_floats<V> d = bt_values(raw_d[e]), w = bt_values(raw_w[e]);
#pragma unroll
        for (int i = 0; i < V; i++) v[e].v[i] = (float)(X)(v[e].v[i] + d.v[i]);
        if (op.delta && at < op.n) bt_store<V>(x + at, v[e]);
#pragma unroll
        for (int i = 0; i < V; i++) {
            squares += v[e].v[i] * v[e].v[i];
            v[e].v[i] *= w.v[i];
            most = fmaxf(most, fabsf(v[e].v[i]));
        }
    }
    if (KIND == BT_ACTIVATION_FP8_TOKEN)
        bt_block_sum_max(&squares, &most);
    else
        squares = bt_block_sum(squares);
    bt_start_next();
    float scale = rsqrtf(squares / op.n + op.eps), factor = 0;
    if (KIND == BT_ACTIVATION_FP8_TOKEN) {
        factor = bt_activation_factor(most * scale);
        if (threadIdx.x == 0) op.out.scales[blockIdx.x] = most * scale / 448.0f;
    } else if (KIND == BT_ACTIVATION_FP8_TENSOR) {
        factor = 1.0f / op.out.scale;
    }
#pragma unroll
    for (int e = 0; e < E; e++) {
        unsigned at = (e * blockDim.x + threadIdx.x) * V;
        if (at >= op.n) continue;
#pragma unroll
        for (int i = 0; i < V; i++) v[e].v[i] *= scale;
        bt_activation_store<KIND, V>(op.out.y, (size_t)blockIdx.x * op.n + at, v[e], factor);
    }
}

template <typename X, int V, int E> void launch(const bt_rmsnorm_cuda_args *op, cudaStream_t stream)
{
    unsigned vectors = op->n / V, threads = ((vectors + E - 1) / E + 31) / 32 * 32;
    switch (op->out.kind) {
    case BT_ACTIVATION_BF16:
        bt_launch(rmsnorm<X, V, E, BT_ACTIVATION_BF16>, op->rows, threads, 1, stream, *op);
        break;
    case BT_ACTIVATION_FP8_TOKEN:
        bt_launch(rmsnorm<X, V, E, BT_ACTIVATION_FP8_TOKEN>, op->rows, threads, 1, stream, *op);
        break;
    case BT_ACTIVATION_FP8_TENSOR:
        bt_launch(rmsnorm<X, V, E, BT_ACTIVATION_FP8_TENSOR>, op->rows, threads, 1, stream, *op);
        break;
    }
}

} // namespace

extern "C" bt_status bt_rmsnorm_cuda(const bt_rmsnorm_cuda_args *op, cudaStream_t stream,
                                     bt_err *err)
{
    assert(op->n > 0 && op->n % 8 == 0 && op->n <= 16384);
    assert(op->x_dtype == BT_DTYPE_F32 || op->x_dtype == BT_DTYPE_BF16);
    if (op->rows == 0) return BT_OK;
    if (op->x_dtype == BT_DTYPE_F32)
        op->n <= 8192 ? launch<float, 4, 2>(op, stream) : launch<float, 4, 4>(op, stream);
    else
        op->n <= 8192 ? launch<__nv_bfloat16, 8, 1>(op, stream)
                      : launch<__nv_bfloat16, 8, 2>(op, stream);
    return bt_cuda_launched("rmsnorm", err);
}
