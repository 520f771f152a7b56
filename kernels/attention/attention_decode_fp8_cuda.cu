/* attention_decode_fp8_cuda.cu - the kernels of attention_decode_kernel.cuh for pools of fp8. */
#include "kernels/attention/attention_decode_kernel.cuh"

decode_kernel *decode_kernel_fp8(uint32_t head_dim, uint32_t group)
{
    return decode_kernel_of<e4m3_pool>(head_dim, group);
}
