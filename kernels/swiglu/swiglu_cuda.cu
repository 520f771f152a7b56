/* swiglu_cuda.cu - 8 outputs of a thread from 16 inputs, two loads of 16 bytes in either layout.
 *
 * SHAPE   bf16 and fp8 by tensor: blocks of 128 threads, as many as a row takes. fp8 by token: E vectors
 *         of 8 a thread, kept in registers until the row's amax is known; a row is a cluster of up to 8
 *         blocks while the rows leave SMs free, since one SM takes a microsecond for 14336 gates.
 * BYTES   rows * n * (4 + 2 or 1).
 * FIGURES H100 SXM, 2026-11-24, gpu-check --only swiglu, n 14336, cold L2, the card copies 2,836 GB/s:
 *         rows 2048 2,870 GB/s to bf16, 2,930 to fp8; rows 256 2,500 to bf16, 2,250 to fp8 by token; in a
 *         graph 0.8 us for 1 row, 1.7 for 16, 3.1 for 64; fp8 by token 1.9, 2.9, 4.3. There it is latency:
 *         a cold load and, by token, 1 us for the cluster's launch and barriers.
 * TRIED   Blocks of 256 and 512: the same at 64 rows and more, 0.1 and 0.2 us more for one. By token one
 *         block a row: 2.5 us for one row, 4.9 for 64; clusters of 2 and 4 for one row: 2.7 and 2.3, of 8
 *         for 2048 rows: 62.8 us against 50.1; 512 threads with E 4 for 256 rows: 8.9 us against 8.2.
 *         Letting the next kernel start before the loads: 0.1 us more for 1 row, by token 0.6 for 16.
 *         Without overlapping launches: 0.4 to 0.7 us more up to 64 rows. */
extern "C" {
#include "kernels/swiglu/swiglu_cuda.h"
}

#include "kernels/activation_cuda.cuh"
#include "kernels/cuda_launch.cuh"

#include <assert.h>

namespace
{

constexpr unsigned THREADS = 128, MOST_THREADS = 1024;
constexpr unsigned CLUSTERED = 264; /* blocks: two for each of an H100's 132 SMs */

/* 1 + e^-g, at most 2^60: below -41 a gate counts as 2^-60 instead of less. */
__device__ __forceinline__ float divisor(float g)
{
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(g * -1.44269504f));
    return 1.0f + fminf(power, 0x1p60f);
}

/* silu(a) * c and silu(b) * d with one reciprocal of both divisors: the special functions are a sixteenth as
 * fast as the rest. Off by some 2^-21, and 2^-24 of a gate for each of its units in e^x. */
__device__ __forceinline__ void gate_two(float a, float b, float c, float d, float *ret)
{
    float of_a = divisor(a), of_b = divisor(b), inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(of_a * of_b));
    ret[0] = a * (inverse * of_b) * c;
    ret[1] = b * (inverse * of_a) * d;
}

/* What the outputs at .. at + 8 of a row are made of. */
struct inputs {
    bt_raw<8, __nv_bfloat16> a, b;
};

template <bool PAIRS>
__device__ __forceinline__ inputs load(const __nv_bfloat16 *row, unsigned at, unsigned group)
{
    /* Of groups: at / group * 2 * group + at % group. */
    const __nv_bfloat16 *first = row + (PAIRS ? 2 * at : at / group * group + at);
    return {bt_load_raw<8>(first), bt_load_raw<8>(first + (PAIRS ? 8 : group))};
}

template <bool PAIRS> __device__ __forceinline__ bt_floats<8> outputs(const inputs &in)
{
    bt_floats<8> a = bt_values(in.a), b = bt_values(in.b), out;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        if (PAIRS) {
            gate_two(a.v[2 * i], a.v[2 * i + 2], a.v[2 * i + 1], a.v[2 * i + 3], out.v + i);
            gate_two(b.v[2 * i], b.v[2 * i + 2], b.v[2 * i + 1], b.v[2 * i + 3], out.v + 4 + i);
        } else {
            gate_two(a.v[i], a.v[i + 1], b.v[i], b.v[i + 1], out.v + i);
            gate_two(a.v[4 + i], a.v[5 + i], b.v[4 + i], b.v[5 + i], out.v + 4 + i);
        }
    }
    return out;
}

template <bool PAIRS, bt_activation_kind KIND>
__global__ void __launch_bounds__(THREADS) swiglu(bt_swiglu_cuda_args op)
{
    unsigned at = (blockIdx.y * THREADS + threadIdx.x) * 8;
    bt_wait_previous();
    if (at >= op.n) return;
    size_t row = (size_t)blockIdx.x * op.n;
    inputs in = load<PAIRS>((const __nv_bfloat16 *)op.gate_up + 2 * row, at, op.group);
    bt_floats<8> out = outputs<PAIRS>(in);
    bt_start_next();
    bt_activation_store<KIND, 8>(op.out.y, row + at, out, 1.0f / op.out.scale);
}

template <bool PAIRS, int E>
__global__ void __launch_bounds__(MOST_THREADS) swiglu_by_token(bt_swiglu_cuda_args op)
{
    unsigned blocks = bt_cluster_blocks(), rank = bt_cluster_rank(), row = blockIdx.x / blocks;
    size_t from = (size_t)row * op.n;
    inputs in[E];
    bt_cluster_arrive();
    bt_wait_previous();
#pragma unroll
    for (int e = 0; e < E; e++) {
        unsigned at = ((e * blocks + rank) * blockDim.x + threadIdx.x) * 8;
        in[e] = {};
        if (at < op.n)
            in[e] = load<PAIRS>((const __nv_bfloat16 *)op.gate_up + 2 * from, at, op.group);
    }
    bt_floats<8> out[E];
    float most = 0;
#pragma unroll
    for (int e = 0; e < E; e++) {
        out[e] = outputs<PAIRS>(in[e]);
#pragma unroll
        for (int i = 0; i < 8; i++) most = fmaxf(most, fabsf(out[e].v[i]));
    }
    most = bt_cluster_max(most);
    bt_start_next();
    float factor = bt_activation_factor(most);
    if (threadIdx.x == 0 && rank == 0) op.out.scales[row] = most / 448.0f;
#pragma unroll
    for (int e = 0; e < E; e++) {
        unsigned at = ((e * blocks + rank) * blockDim.x + threadIdx.x) * 8;
        if (at < op.n)
            bt_activation_store<BT_ACTIVATION_FP8_TOKEN, 8>(op.out.y, from + at, out[e], factor);
    }
}

/* Blocks of a row's cluster: as many as fill the card together with the other rows', as long as each has
 * two warps' work. */
unsigned cluster_of(const bt_swiglu_cuda_args *op)
{
    unsigned cluster = bt_launch_arch() < 90 ? 1 : 8;
    while (cluster > 1 && (cluster * op->rows > CLUSTERED || cluster * 64 * 8 > op->n))
        cluster /= 2;
    return cluster;
}

template <bool PAIRS> void launch_by_token(const bt_swiglu_cuda_args *op, cudaStream_t stream)
{
    unsigned cluster = cluster_of(op), vectors = (op->n / 8 + cluster - 1) / cluster, e = 1;
    while (vectors > MOST_THREADS * e) e *= 2;
    unsigned threads = ((vectors + e - 1) / e + 31) / 32 * 32, blocks = op->rows * cluster;
    if (e == 1)
        bt_launch(swiglu_by_token<PAIRS, 1>, blocks, threads, cluster, stream, *op);
    else if (e == 2)
        bt_launch(swiglu_by_token<PAIRS, 2>, blocks, threads, cluster, stream, *op);
    else
        bt_launch(swiglu_by_token<PAIRS, 4>, blocks, threads, cluster, stream, *op);
}

template <bool PAIRS> void launch(const bt_swiglu_cuda_args *op, cudaStream_t stream)
{
    dim3 grid(op->rows, (op->n / 8 + THREADS - 1) / THREADS);
    switch (op->out.kind) {
    case BT_ACTIVATION_BF16:
        bt_launch(swiglu<PAIRS, BT_ACTIVATION_BF16>, grid, THREADS, 1, stream, *op);
        break;
    case BT_ACTIVATION_FP8_TENSOR:
        bt_launch(swiglu<PAIRS, BT_ACTIVATION_FP8_TENSOR>, grid, THREADS, 1, stream, *op);
        break;
    case BT_ACTIVATION_FP8_TOKEN: launch_by_token<PAIRS>(op, stream); break;
    }
}

} // namespace

extern "C" bt_status bt_swiglu_cuda(const bt_swiglu_cuda_args *op, cudaStream_t stream, bt_err *err)
{
    assert(op->n > 0 && op->n % 8 == 0 && op->n <= 32768);
    assert(op->group == 1 || (op->group > 0 && op->group % 8 == 0 && op->n % op->group == 0));
    if (op->rows == 0) return BT_OK;
    if (op->group == 1)
        launch<true>(op, stream);
    else
        launch<false>(op, stream);
    return bt_cuda_launched("swiglu", err);
}
