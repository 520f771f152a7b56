/* embedding_ref.c - copies and widens; memory-bound and a thousandth of a step, so there is no
 * vector version. */
#include "kernels/embedding/embedding.h"

#include "kernels/weight.h"

void bt_embed(const uint32_t *tokens, uint32_t rows, const void *table, bt_dtype dtype, uint32_t n,
              float *ret_x)
{
    for (uint32_t row = 0; row < rows; row++) {
        size_t first = (size_t)tokens[row] * n;
        for (uint32_t i = 0; i < n; i++)
            ret_x[(size_t)row * n + i] = bt_weight_at(table, dtype, first + i);
    }
}
