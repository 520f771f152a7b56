/* linear_skinny.c - the layout as arithmetic: the oracle of the kernel that packs. */
#include "kernels/linear/linear_skinny.h"

uint32_t bt_linear_skinny_block_k(bt_dtype w_dtype)
{
    return w_dtype == BT_DTYPE_BF16 ? 32 : 64;
}

size_t bt_linear_skinny_bytes(bt_dtype w_dtype, uint32_t n, uint32_t k)
{
    size_t panels = n / BT_SKINNY_ROWS + (n % BT_SKINNY_ROWS != 0);
    return panels * (k / bt_linear_skinny_block_k(w_dtype)) * BT_SKINNY_BLOCK_BYTES;
}

size_t bt_linear_skinny_offset(bt_dtype w_dtype, uint32_t k, uint32_t j, uint32_t l)
{
    uint32_t bytes = (uint32_t)bt_dtype_bytes(w_dtype), e = 4 / bytes;
    uint32_t block_k = bt_linear_skinny_block_k(w_dtype), in = l % block_k;
    size_t block = (size_t)(j / BT_SKINNY_ROWS) * (k / block_k) + l / block_k;
    uint32_t t = in / (4 * e), h = in / (2 * e) % 2, high = in / e % 2;
    uint32_t lane = j % 8 * 4 + t, q = high * 2 + j % 16 / 8;
    return block * BT_SKINNY_BLOCK_BYTES + h * 512 + lane * 16 + q * 4 + in % e * bytes;
}
