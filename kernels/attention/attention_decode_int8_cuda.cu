/* attention_decode_int8_cuda.cu - the kernels of attention_decode_kernel.cuh for pools of int8. */
#include "kernels/attention/attention_decode_kernel.cuh"

decode_kernel *decode_kernel_int8(uint32_t head_dim, uint32_t group)
{
    return decode_kernel_of<int8_pool>(head_dim, group);
}
