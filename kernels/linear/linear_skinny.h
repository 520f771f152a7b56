/* linear_skinny.h - how weights lie in memory for products with few rows on a GPU; pure.
 *
 * LAYOUT  Blocks of 16 rows j (of y's columns) by 64 bytes of k: 32 k of bf16, 64 k of fp8. All blocks of
 *         16 rows lie together, k after k. A block is 1024 bytes: 2 halves h of 32 lanes of 16 bytes;
 *         lane 4 g + t holds 4 registers q of E elements each, E = 2 for bf16 and 4 for fp8:
 *             row g + 8 (q % 2),   k = 4 E t + 2 E h + E (q / 2) + element
 *         These are the fragments of mma.sync m16n8k16 with the weights as its 16-row operand. Which k
 *         stands where in an mma is free as long as both operands agree; so chosen, a lane's
 *         elements of a row are 4 E consecutive k, and it reads the same span of a row-major x with
 *         16-byte loads. Rows beyond n are zero.
 * SIZES   k is a multiple of 64, n any. In all supported checkpoints every matrix has such a k (hidden
 *         576 .. 8192, intermediate 1536 .. 29568 = 462 * 64). Under tensor parallelism cuts of k fall on
 *         multiples of 64; 29568 / 4 (Qwen2.5-72B) does not. */
#ifndef BT_KERNELS_LINEAR_LINEAR_SKINNY_H
#define BT_KERNELS_LINEAR_LINEAR_SKINNY_H

#include "common/base/dtype.h"

#include <stddef.h>
#include <stdint.h>

#define BT_SKINNY_ROWS 16u          /* of a block */
#define BT_SKINNY_BLOCK_BYTES 1024u /* of a block */

/* k in one block of BF16 or FP8_E4M3. */
uint32_t bt_linear_skinny_block_k(bt_dtype w_dtype);

/* Of the packed matrix of n rows; n is rounded up to 16. */
size_t bt_linear_skinny_bytes(bt_dtype w_dtype, uint32_t n, uint32_t k);

/* The byte where element l of row j begins. */
size_t bt_linear_skinny_offset(bt_dtype w_dtype, uint32_t k, uint32_t j, uint32_t l);

#endif
