/* linear_case.h - operands of a matrix product on the device and the sums they should give, for the
 * units of linear_lt.h and linear_cuda.h. Include gpu.h first. */
#ifndef BT_TESTS_GPU_LINEAR_CASE_H
#define BT_TESTS_GPU_LINEAR_CASE_H

extern "C" {
#include "kernels/linear/linear_lt.h"
}

#include <cuda_bf16.h>
#include <cuda_fp8.h>

namespace
{

const char *const kind_names[] = {"", "bf16", "fp8 tensor", "fp8 outer", "nvfp4"};

std::string name_of(const bt_lt_shape &s)
{
    std::string text = kind_names[s.kind];
    text += s.y == BT_DTYPE_F32 ? " -> f32" : " -> bf16";
    if (s.flags & BT_LT_BIAS) text += " bias";
    if (s.flags & BT_LT_ADD) text += " add";
    if (s.flags & BT_LT_FAST_SUM) text += " fast";
    if (s.flags & BT_LT_NO_SPLIT) text += " nosplit";
    return text;
}

std::string size_of(uint32_t m, const bt_lt_shape &s)
{
    return std::to_string(m) + " x " + std::to_string(s.n) + " x " + std::to_string(s.k);
}

/* Everything one product needs on the device. */
struct operands {
    bt_lt_shape shape;
    uint32_t m;
    void *w, *x, *y;
    float *w_scale, *x_scale; /* [n] and [m] if outer, else one */
    void *bias;
    void *y_before; /* what ADD adds to: bytes of y */
};

size_t y_bytes(const operands &o)
{
    return (size_t)o.m * o.shape.n * bt_dtype_bytes(o.shape.y);
}

float *make_scales(gpu *g, bt_lt_kind kind, uint32_t rows, float middle)
{
    std::vector<float> scales(kind == BT_LT_FP8_OUTER ? rows : 1);
    for (float &s : scales) s = middle * (float)(0.5 + bt_rng_double(&g->rng));
    return gpu_upload(g, scales);
}

operands make(gpu *g, const bt_lt_shape &shape, uint32_t m)
{
    operands o = {};
    o.shape = shape;
    o.m = m;
    bool bf16 = shape.kind == BT_LT_BF16;
    bt_dtype dtype = bf16 ? BT_DTYPE_BF16 : BT_DTYPE_FP8_E4M3;
    size_t w = (size_t)shape.n * shape.k, x = (size_t)m * shape.k, y = (size_t)m * shape.n;
    o.w = gpu_alloc(g, w * (bf16 ? 2 : 1));
    o.x = gpu_alloc(g, x * (bf16 ? 2 : 1));
    gpu_fill(g, o.w, dtype, w, bf16 ? 0.05f : 20.0f);
    gpu_fill(g, o.x, dtype, x, bf16 ? 1.0f : 20.0f);
    if (!bf16) {
        o.w_scale = make_scales(g, shape.kind, shape.n, 0.0025f);
        o.x_scale = make_scales(g, shape.kind, m, 0.05f);
    }
    if (shape.flags & BT_LT_BIAS) {
        o.bias = gpu_alloc(g, shape.n * 2);
        gpu_fill(g, o.bias, BT_DTYPE_BF16, shape.n, 1);
    }
    o.y = gpu_alloc(g, y_bytes(o));
    if (shape.flags & BT_LT_ADD) {
        o.y_before = gpu_alloc(g, y_bytes(o));
        gpu_fill(g, o.y_before, shape.y, y, 1);
        GPU_OK(cudaMemcpyAsync(o.y, o.y_before, y_bytes(o), cudaMemcpyDeviceToDevice, g->stream));
    }
    return o;
}

__device__ double value_at(const void *data, bool bf16, size_t i)
{
    if (bf16) return __bfloat162float(((const __nv_bfloat16 *)data)[i]);
    __nv_fp8_e4m3 code;
    code.__x = ((const uint8_t *)data)[i];
    return (double)(float)code;
}

/* The definition: one thread for one y, sums in f64. */
__global__ void reference(operands o, float *ret_y)
{
    uint32_t j = blockIdx.x * blockDim.x + threadIdx.x, i = blockIdx.y;
    if (j >= o.shape.n) return;
    bool bf16 = o.shape.kind == BT_LT_BF16;
    double sum = 0;
    for (uint32_t l = 0; l < o.shape.k; l++)
        sum += value_at(o.x, bf16, (size_t)i * o.shape.k + l) *
               value_at(o.w, bf16, (size_t)j * o.shape.k + l);
    bool outer = o.shape.kind == BT_LT_FP8_OUTER;
    if (o.w_scale) sum *= (double)o.w_scale[outer ? j : 0] * o.x_scale[outer ? i : 0];
    if (o.bias) sum += value_at(o.bias, true, j);
    size_t at = (size_t)i * o.shape.n + j;
    if (o.y_before)
        sum += o.shape.y == BT_DTYPE_F32 ? (double)((float *)o.y_before)[at]
                                         : value_at(o.y_before, true, at);
    ret_y[at] = (float)sum;
}

std::vector<float> expected_of(gpu *g, const operands &o)
{
    size_t count = (size_t)o.m * o.shape.n;
    float *y = (float *)gpu_alloc(g, count * 4);
    reference<<<dim3((o.shape.n + 127) / 128, o.m), 128, 0, g->stream>>>(o, y);
    GPU_OK(cudaGetLastError());
    return gpu_download<float>(g, y, count);
}

std::vector<float> output_of(gpu *g, const operands &o)
{
    size_t count = (size_t)o.m * o.shape.n;
    if (o.shape.y == BT_DTYPE_F32) return gpu_download<float>(g, o.y, count);
    return gpu_from_bf16(gpu_download<uint16_t>(g, o.y, count));
}

} // namespace

#endif
