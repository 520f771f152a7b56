/* rope_cuda.cu - a thread for each cosine and its sine, in f64.
 *
 * BYTES   rows * dims * 4; a thousandth of a step.
 * FIGURES H100 SXM, 2026-11-24, gpu-check --only rope, dims 128: 0.9 us in a graph for 1 and 64 rows, 1.6
 *         for 2048. */
extern "C" {
#include "kernels/rope/rope_cuda.h"
}

#include "kernels/cuda_launch.cuh"

#include <assert.h>

namespace
{

constexpr unsigned THREADS = 128;

__global__ void __launch_bounds__(THREADS) table(bt_rope_table_cuda_args op)
{
    unsigned at = blockIdx.x * THREADS + threadIdx.x, half = op.rope.dims / 2;
    unsigned row = at / half, i = at % half;
    bt_start_next();
    bt_wait_previous();
    if (row >= op.rows) return;
    uint32_t position = op.positions[row];
    if (position == BT_POSITION_NONE) position = 0;
    double frequency = op.frequencies[i], length = position + 1.0;
    if (op.rope.kind == BT_ROPE_DYNAMIC && length > op.rope.original_tokens) {
        double dims = op.rope.dims, factor = op.rope.factor;
        double stretch = factor * length / op.rope.original_tokens - factor + 1;
        frequency = pow(op.rope.theta * pow(stretch, dims / (dims - 2)), -2.0 * i / dims);
    }
    double cosine, sine;
    sincos(position * frequency, &sine, &cosine);
    float *out = op.ret_table + (size_t)row * op.rope.dims + i;
    out[0] = (float)(cosine * op.rope.magnitude);
    out[half] = (float)(sine * op.rope.magnitude);
}

} // namespace

extern "C" bt_status bt_rope_table_cuda(const bt_rope_table_cuda_args *op, cudaStream_t stream,
                                        bt_err *err)
{
    assert(op->rope.dims > 0 && op->rope.dims % 2 == 0);
    uint64_t threads = (uint64_t)op->rows * (op->rope.dims / 2);
    if (threads == 0) return BT_OK;
    assert(threads <= UINT32_MAX - THREADS);
    bt_launch(table, (unsigned)((threads + THREADS - 1) / THREADS), THREADS, 1, stream, *op);
    return bt_cuda_launched("rope table", err);
}
