/* linear_cuda.cu - see linear_cuda.h.
 *
 * FIGURES us for the four matrices of a layer of an 8B model, n x k = 6144x4096, 4096x4096, 28672x4096,
 *         4096x14336, and the share of the read rate, 3,141 GB/s; weights from a cold L2; H100 80GB HBM3,
 *         2026-11-24, `ops/gpu/check --only linear --bench`:
 *           m                  1            8           16           32           64
 *           bf16 rows     159.5 87.0   159.5 87.1   159.5 87.0   161.7 85.9   164.6 84.4
 *           fp8 rows       86.0 80.8    85.3 81.4    87.7 79.1    88.7 78.3    89.9 77.3
 *         packed is measured in linear_skinny_cuda.cu. */
extern "C" {
#include "kernels/linear/linear_cuda.h"
}

#include <assert.h>

namespace
{

bool four_bits(bt_linear_cuda_kind kind)
{
    return kind == BT_LINEAR_CUDA_INT4 || kind == BT_LINEAR_CUDA_NVFP4;
}

bt_lt_shape lt_shape(const bt_linear_cuda_weight *w)
{
    bt_lt_shape shape = {};
    shape.kind = w->kind == BT_LINEAR_CUDA_BF16         ? BT_LT_BF16
                 : w->kind == BT_LINEAR_CUDA_FP8_TENSOR ? BT_LT_FP8_TENSOR
                                                        : BT_LT_FP8_OUTER;
    shape.y = w->y;
    shape.flags = w->kind == BT_LINEAR_CUDA_BF16 ? w->flags & ~BT_LT_FAST_SUM : w->flags;
    shape.n = w->n;
    shape.k = w->k;
    return shape;
}

bt_status check_packed(const bt_linear_cuda_weight *w, bt_err *err)
{
    unsigned step = four_bits(w->kind) ? BT_W4_GROUP : 64;
    if (w->k % step != 0 || (four_bits(w->kind) && w->n % 8 != 0))
        return BT_FAIL(
            err, BT_ERR_ARGUMENT,
            "a packed weight of %u x %u: k must be a multiple of %u, and n of 8 with 4 bits", w->n,
            w->k, step);
    if (four_bits(w->kind) && (w->y != BT_DTYPE_BF16 || (w->flags & (BT_LT_BIAS | BT_LT_ADD))))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "4-bit products give bf16 and add nothing to it");
    return BT_OK;
}

bt_status run_w4(const bt_linear_cuda *linear, const bt_linear_cuda_args *op, cudaStream_t stream,
                 bt_err *err)
{
    const bt_linear_cuda_weight *w = op->weight;
    bt_linear_w4_args args = {};
    args.w = w->packed;
    args.x = op->x;
    args.y = op->y;
    args.format = w->kind == BT_LINEAR_CUDA_NVFP4 ? BT_W4_NVFP4 : BT_W4_INT4;
    args.factor = w->kind == BT_LINEAR_CUDA_NVFP4 ? w->factor : 1;
    args.m = op->m;
    args.n = w->n;
    args.k = w->k;
    args.sms = linear->sms;
    args.arch = linear->arch;
    return bt_linear_w4_cuda(&args, stream, err);
}

/* Rows [first, first + m) of x. */
bt_status run_skinny(const bt_linear_cuda *linear, const bt_linear_cuda_args *op, uint32_t first,
                     uint32_t m, cudaStream_t stream, bt_err *err)
{
    const bt_linear_cuda_weight *w = op->weight;
    bool outer = w->kind == BT_LINEAR_CUDA_FP8_OUTER;
    bt_linear_skinny_args args = {};
    args.w_dtype = args.x_dtype =
        w->kind == BT_LINEAR_CUDA_BF16 ? BT_DTYPE_BF16 : BT_DTYPE_FP8_E4M3;
    args.y_dtype = w->y;
    args.w = w->packed;
    args.x = (const uint8_t *)op->x + (size_t)first * w->k * bt_dtype_bytes(args.x_dtype);
    args.y = (uint8_t *)op->y + (size_t)first * w->n * bt_dtype_bytes(w->y);
    args.w_scale = w->scale;
    args.x_scale = op->x_scale && outer ? op->x_scale + first : op->x_scale;
    args.per_channel = args.per_token = outer;
    args.bias = w->flags & BT_LT_BIAS ? w->bias : NULL;
    args.residual = w->flags & BT_LT_ADD ? (const float *)args.y : NULL;
    args.m = m;
    args.n = w->n;
    args.k = w->k;
    bt_linear_skinny_plan plans[BT_SKINNY_PLANS]; /* the first is the likeliest best */
    bt_linear_skinny_plans(&args, linear->arch, (int)linear->sms, plans);
    return bt_linear_skinny_cuda(&args, &plans[0], stream, err);
}

bt_status run_lt(const bt_linear_cuda *linear, const bt_linear_cuda_args *op, cudaStream_t stream,
                 bt_err *err)
{
    const bt_linear_cuda_weight *w = op->weight;
    bt_lt_args args = {};
    args.plan = w->plan;
    args.w = w->rows;
    args.x = op->x;
    args.y = op->y;
    args.w_scale = w->scale;
    args.x_scale = op->x_scale;
    args.bias = w->flags & BT_LT_BIAS ? w->bias : NULL;
    args.global = 1;
    args.m = op->m;
    return bt_linear_lt(linear->lt, &args, stream, err);
}

} // namespace

extern "C" bt_status bt_linear_cuda_prepare(const bt_linear_cuda *linear,
                                            bt_linear_cuda_weight *weight, uint32_t m_min,
                                            uint32_t m_max, bt_err *err)
{
    assert(four_bits(weight->kind) ? weight->packed && !weight->rows
                                   : weight->packed || weight->rows);
    assert(!(weight->flags & BT_LT_ADD) || weight->y == BT_DTYPE_F32);
    bt_status status = weight->packed ? check_packed(weight, err) : BT_OK;
    if (status != BT_OK || !weight->rows) return status;
    bt_lt_shape shape = lt_shape(weight);
    return bt_lt_prepare(linear->lt, &shape, m_min, m_max, &weight->plan, err);
}

extern "C" bt_status bt_linear_cuda_run(const bt_linear_cuda *linear, const bt_linear_cuda_args *op,
                                        cudaStream_t stream, bt_err *err)
{
    const bt_linear_cuda_weight *w = op->weight;
    if (op->m == 0) return BT_OK;
    if (four_bits(w->kind)) return run_w4(linear, op, stream, err);
    if (w->rows && (!w->packed || op->m > BT_LINEAR_CUDA_FEW))
        return run_lt(linear, op, stream, err);
    bt_status status = BT_OK;
    for (uint32_t first = 0; status == BT_OK && first < op->m; first += BT_SKINNY_MAX) {
        uint32_t m = op->m - first < BT_SKINNY_MAX ? op->m - first : BT_SKINNY_MAX;
        status = run_skinny(linear, op, first, m, stream, err);
    }
    return status;
}
