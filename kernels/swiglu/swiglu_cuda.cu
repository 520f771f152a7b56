/* swiglu_cuda.cu - 8 outputs of a thread from 16 inputs, two loads of 16 bytes in either layout.
 *
 * SHAPE   bf16 and fp8 by tensor: blocks of 128 threads, as many as a row takes. fp8 by token: one
 *         block for a row, E vectors of 8 a thread, kept in registers until the row's amax is known.
 * BYTES   rows * n * (4 + 2 or 1).
 * FIGURES none yet. */
extern "C" {
#include "kernels/swiglu/swiglu_cuda.h"
}

#include "kernels/activation_cuda.cuh"

#include <assert.h>

namespace
{

constexpr unsigned THREADS = 128;

/* Within 2^-20 or so of the true value: e^-g is off by 2 units, the quotient by 2. */
__device__ __forceinline__ float silu(float g)
{
    return __fdividef(g, 1.0f + __expf(-g));
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
    for (int i = 0; i < 4; i++) {
        out.v[i] = PAIRS ? silu(a.v[2 * i]) * a.v[2 * i + 1] : silu(a.v[i]) * b.v[i];
        out.v[4 + i] = PAIRS ? silu(b.v[2 * i]) * b.v[2 * i + 1] : silu(a.v[4 + i]) * b.v[4 + i];
    }
    return out;
}

template <bool PAIRS, bt_activation_kind KIND>
__global__ void __launch_bounds__(THREADS) swiglu(bt_swiglu_cuda_args op)
{
    unsigned at = (blockIdx.y * THREADS + threadIdx.x) * 8;
    if (at >= op.n) return;
    size_t row = (size_t)blockIdx.x * op.n;
    inputs in = load<PAIRS>((const __nv_bfloat16 *)op.gate_up + 2 * row, at, op.group);
    bt_activation_store<KIND, 8>(op.out.y, row + at, outputs<PAIRS>(in), 1.0f / op.out.scale);
}

template <bool PAIRS, int E>
__global__ void __launch_bounds__(1024) swiglu_by_token(bt_swiglu_cuda_args op)
{
    size_t row = (size_t)blockIdx.x * op.n;
    inputs in[E];
#pragma unroll
    for (int e = 0; e < E; e++) {
        unsigned at = (e * blockDim.x + threadIdx.x) * 8;
        in[e] = {};
        if (at < op.n)
            in[e] = load<PAIRS>((const __nv_bfloat16 *)op.gate_up + 2 * row, at, op.group);
    }
    bt_floats<8> out[E];
    float most = 0;
#pragma unroll
    for (int e = 0; e < E; e++) {
        out[e] = outputs<PAIRS>(in[e]);
#pragma unroll
        for (int i = 0; i < 8; i++) most = fmaxf(most, fabsf(out[e].v[i]));
    }
    most = bt_block_max(most);
    float factor = bt_activation_factor(most);
    if (threadIdx.x == 0) op.out.scales[blockIdx.x] = most / 448.0f;
#pragma unroll
    for (int e = 0; e < E; e++) {
        unsigned at = (e * blockDim.x + threadIdx.x) * 8;
        if (at < op.n)
            bt_activation_store<BT_ACTIVATION_FP8_TOKEN, 8>(op.out.y, row + at, out[e], factor);
    }
}

template <bool PAIRS, int E>
void launch_by_token(const bt_swiglu_cuda_args *op, cudaStream_t stream)
{
    unsigned threads = ((op->n / 8 + E - 1) / E + 31) / 32 * 32;
    swiglu_by_token<PAIRS, E><<<op->rows, threads, 0, stream>>>(*op);
}

template <bool PAIRS> void launch(const bt_swiglu_cuda_args *op, cudaStream_t stream)
{
    dim3 grid(op->rows, (op->n / 8 + THREADS - 1) / THREADS);
    switch (op->out.kind) {
    case BT_ACTIVATION_BF16:
        swiglu<PAIRS, BT_ACTIVATION_BF16><<<grid, THREADS, 0, stream>>>(*op);
        break;
    case BT_ACTIVATION_FP8_TENSOR:
        swiglu<PAIRS, BT_ACTIVATION_FP8_TENSOR><<<grid, THREADS, 0, stream>>>(*op);
        break;
    case BT_ACTIVATION_FP8_TOKEN:
        if (op->n <= 8192)
            launch_by_token<PAIRS, 1>(op, stream);
        else if (op->n <= 16384)
            launch_by_token<PAIRS, 2>(op, stream);
        else
            launch_by_token<PAIRS, 4>(op, stream);
        break;
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
