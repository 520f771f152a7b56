/* linear_w4_cuda.cu - which kernel takes a product, and the packing of the weights. */
#include "kernels/linear/linear_w4_sm90.cuh"

extern "C" {
#include "kernels/linear/linear_w4_kernels.h"
}

#include <assert.h>

#include <cuda_fp16.h>

namespace
{

__device__ uint32_t pack_codes(const bt_w4 &w, bt_w4_word at)
{
    uint32_t word = 0;
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t row = at.row + 8 * (i & 1), k = at.k + 8 * (i >> 1 & 1) + (i >> 2);
        if (row < w.n) word |= (w.codes[((size_t)row * w.k + k) / 2] >> k % 2 * 4 & 15u) << (4 * i);
    }
    return word;
}

__device__ uint32_t pack_scale(const bt_w4 &w, bt_w4_word at)
{
    if (at.row >= w.n) return 0;
    size_t index = (size_t)at.row * (w.k / BT_W4_GROUP) + at.k / BT_W4_GROUP;
    float scale = w.scale_dtype == BT_DTYPE_F16 ? __half2float(((const __half *)w.scales)[index])
                                                : __uint_as_float((uint32_t)w.scales[index] << 16);
    return (__float_as_uint(scale) & ~15u) | (w.zeros ? w.zeros[index] : 8u);
}

__device__ uint32_t pack_nvfp4_codes(const bt_nvfp4 &w, bt_w4_word at)
{
    uint32_t word = 0;
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t row = at.row + 8 * (i & 1), k = at.k + 8 * (i >> 1 & 1) + (i >> 2);
        size_t index = (size_t)row * w.k + k;
        if (row >= w.rows || w.scales[index / BT_NVFP4_GROUP] == 0) continue;
        word |= bt_w4_nvfp4_code(w.codes[index / 2] >> k % 2 * 4 & 15u, i);
    }
    return word;
}

__device__ uint32_t pack_nvfp4_scales(const bt_nvfp4 &w, bt_w4_word at)
{
    uint32_t word = 0;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t row = at.row + 8 * (i & 1), k = at.k + 16 * (i >> 1);
        if (row < w.rows)
            word |= bt_w4_nvfp4_scale(w.scales[((size_t)row * w.k + k) / BT_NVFP4_GROUP]) << 8 * i;
    }
    return word;
}

__global__ void pack_nvfp4(bt_nvfp4 w, uint32_t *ret)
{
    size_t words = bt_w4_nvfp4_bytes(w.rows, w.k) / 4;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < words;
         i += (size_t)gridDim.x * blockDim.x) {
        bt_w4_word at = bt_w4_word_at(i, w.k, BT_W4_NVFP4_BLOCK_BYTES);
        ret[i] = at.is_scale ? pack_nvfp4_scales(w, at) : pack_nvfp4_codes(w, at);
    }
}

__global__ void pack(bt_w4 w, uint32_t *ret)
{
    size_t words = bt_w4_bytes(w.n, w.k) / 4;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < words;
         i += (size_t)gridDim.x * blockDim.x) {
        bt_w4_word at = bt_w4_word_at(i, w.k, BT_W4_BLOCK_BYTES);
        ret[i] = at.is_scale ? pack_scale(w, at) : pack_codes(w, at);
    }
}

} // namespace

extern "C" bt_status bt_w4_pack_cuda(const bt_w4 *w, void *ret, cudaStream_t stream, bt_err *err)
{
    assert(w->k % BT_W4_GROUP == 0 &&
           (w->scale_dtype == BT_DTYPE_F16 || w->scale_dtype == BT_DTYPE_BF16));
    pack<<<1024, 256, 0, stream>>>(*w, (uint32_t *)ret);
    return bt_cuda_launched("w4_pack", err);
}

extern "C" bt_status bt_w4_pack_nvfp4_cuda(const bt_nvfp4 *w, void *ret, cudaStream_t stream,
                                           bt_err *err)
{
    assert(w->k % BT_W4_GROUP == 0);
    pack_nvfp4<<<1024, 256, 0, stream>>>(*w, (uint32_t *)ret);
    return bt_cuda_launched("w4_pack", err);
}

bt_status bt_w4_map_x(const bt_linear_w4_args *op, uint32_t tokens, CUtensorMap *ret_map,
                      bt_err *err)
{
    static void *entry; /* of the driver's: it fills the struct and asks the device nothing */
    if (!entry) {
        cudaDriverEntryPointQueryResult found;
        cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry,
                                                             12000, cudaEnableDefault, &found);
        if (error != cudaSuccess) return bt_cuda_status(error, "cuTensorMapEncodeTiled", err);
    }
    cuuint64_t sizes[2] = {op->k, op->m}, strides[1] = {op->k * 2ull};
    cuuint32_t box[2] = {64, tokens}, steps[2] = {1, 1};
    CUresult result = ((decltype(&cuTensorMapEncodeTiled))entry)(
        ret_map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)op->x, sizes, strides, box, steps,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return BT_FAIL(err, BT_ERR_DEVICE, "linear_w4: no tensor map: error %d", (int)result);
    return BT_OK;
}

/* Matrices of fewer weights are read so fast that beginning and end count most. */
static const uint64_t SMALL = (uint64_t)40 << 20;

/* Up to 8 rows: which kind of block, or BT_W4_FEW_KINDS if none takes it. */
static uint32_t few_kind(const bt_linear_w4_args *op)
{
    uint32_t first = (uint64_t)op->n * op->k < SMALL ? 0 : op->k < 8192 ? 1 : 2;
    for (uint32_t i = 0; i < BT_W4_FEW_KINDS; i++) {
        uint32_t kind = (first + BT_W4_FEW_KINDS - i) % BT_W4_FEW_KINDS; /* then a smaller one */
        if (bt_w4_few_sm90_takes(kind, op->m, op->k)) return kind;
    }
    return BT_W4_FEW_KINDS;
}

extern "C" bt_status bt_linear_w4_cuda(const bt_linear_w4_args *op, cudaStream_t stream,
                                       bt_err *err)
{
    assert(op->n % 8 == 0 && op->k % BT_W4_GROUP == 0 && op->sms > 0);
    if (op->m == 0 || op->n == 0) return BT_OK;
    uint32_t kind = op->arch >= 90 && op->m <= 8 ? few_kind(op) : BT_W4_FEW_KINDS;
    if (kind < BT_W4_FEW_KINDS) return bt_w4_few_sm90_cuda(op, kind, 1, stream, err);
    if (op->arch != 90) return bt_w4_mma_cuda(op, stream, err);
    if (op->m > 64) return bt_w4_many_sm90_cuda(op, stream, err);
    if (op->m <= 16 && (uint64_t)op->n * op->k < SMALL) return bt_w4_mma_cuda(op, stream, err);
    return bt_w4_some_sm90_cuda(op, 0, stream, err);
}
