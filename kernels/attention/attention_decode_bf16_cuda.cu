/* attention_decode_bf16_cuda.cu - the kernels of attention_decode_kernel.cuh for pools of bf16. */
#include "kernels/attention/attention_decode_kernel.cuh"

decode_kernel *decode_kernel_bf16(uint32_t head_dim, uint32_t group)
{
    return decode_kernel_of<bf16_pool>(head_dim, group);
}
