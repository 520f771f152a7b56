/* embedding.h - token ids to rows of the embedding table.
 *   tokens  [rows]          u32, each below the table's rows (the caller checks)
 *   table   [vocab][n]      f32 | f16 | bf16, row-major, any alignment
 *   ret_x   [rows][n]       f32
 * Exact: a conversion only. */
#ifndef BT_KERNELS_EMBEDDING_EMBEDDING_H
#define BT_KERNELS_EMBEDDING_EMBEDDING_H

#include "common/base/dtype.h"

#include <stdint.h>

void bt_embed(const uint32_t *tokens, uint32_t rows, const void *table, bt_dtype dtype, uint32_t n,
              float *ret_x);

#endif
