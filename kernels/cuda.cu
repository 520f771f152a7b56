/* cuda.cu - errors of the CUDA runtime as ours, and which code this card runs. */
extern "C" {
#include "kernels/cuda.h"
}

extern "C" bt_status bt_cuda_status(cudaError_t error, const char *what, bt_err *err)
{
    if (error == cudaSuccess) return BT_OK;
    bt_status status = BT_FAIL(err, BT_ERR_DEVICE, "%s: %s", what, cudaGetErrorString(error));
    if (err) err->cuda_error = (int)error;
    return status;
}

extern "C" bt_status bt_cuda_launched(const char *what, bt_err *err)
{
    return bt_cuda_status(cudaGetLastError(), what, err);
}

__global__ static void marker()
{
}

extern "C" int bt_cuda_arch(void)
{
    cudaFuncAttributes attributes;
    if (cudaFuncGetAttributes(&attributes, marker) != cudaSuccess) {
        cudaGetLastError();
        return 0;
    }
    return attributes.ptxVersion; /* of the code loaded: binaryVersion is the card's after JIT */
}
