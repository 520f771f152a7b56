/* linear.h - activations times a weight matrix that was packed once, when the model was loaded.
 *
 *     y[i][j] = sum over l of x[i][l] * w[j][l]
 *
 * WHAT    What the decoder spends its time in: one row (decode) at the speed of reading the
 *         weights, many rows (prefill) at the speed of the FMA units. A matrix that is used once
 *         and lies as rows (K in attention) goes through kernels/matmul/matmul.h.
 * FLOW    at load: bt_linear_layout -> bt_linear_pack for each tensor that makes up the matrix
 *         for each x: ops->pack_x once, shared by every matrix that takes this x
 *         for each matrix: ops->run over ranges of panels, by as many threads as there are
 *
 * PANELS  32 columns of y (rows of w) lie together, k after k, so that a panel is read from its
 *         first byte to its last:
 *           f32   [k][32] f32
 *           f16   [k][32] f16
 *           bf16  [k / 2, k rounded up to 32][32] pairs: column j's weights of k = 2l (low half)
 *                 and 2l + 1
 *           int8  for each group of 128 k: codes [32][32] of four k, each a byte w + 128, then
 *                 scales [32] f32
 *         Columns beyond n and k beyond the matrix are zero. f32, f16 and bf16 hold weights as they
 *         are; int8 holds round(w * 127 / amax) with scale amax / 127, amax over the group.
 * X       Packed in tiles of ops->tile_rows rows; the layout is between pack_x and run.
 *
 * VALUES  y[i][j] depends on row i of x, row j of w and k only: never on m, n, the range of panels,
 *         threads, or the kind of CPU: but for the reference in f32, which adds in f64, all rows of
 *         the kernel table agree bit for bit.
 *           f32   one chain of f32 FMAs over l in order for each block of 256, from zero; the sums
 *                 of the blocks are added in order. Within (256 + k / 256) * 2^-24 * sum |x * w| of
 *                 the exact sum.
 *           bf16  x and w are rounded to bf16. For each 32 k a chain of FMAs over the even l and
 *                 one over the odd l, both from zero; y = y + (even + odd), from zero; subnormal
 *                 numbers are zero. That is what TDPBF16PS of AMX computes.
 *           int8  each 128 of x have codes round(x * 127 / amax) and scale amax / 127 as the
 *                 weights have. y = fma(sum of code products, x's scale * w's scale, y) for each
 *                 group in order, from zero. The sums are integers and exact. */
#ifndef BT_KERNELS_LINEAR_LINEAR_H
#define BT_KERNELS_LINEAR_LINEAR_H

#include "common/base/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_LINEAR_PANEL 32u
#define BT_LINEAR_TILE 12u
#define BT_LINEAR_BLOCK 256u
#define BT_LINEAR_GROUP 128u /* of weights or x that share a scale in int8 */

/* What the products are computed in; see VALUES. */
typedef enum { BT_COMPUTE_F32, BT_COMPUTE_BF16, BT_COMPUTE_INT8, BT_COMPUTE_COUNT } bt_compute;

/* "f32", "bf16", "int8". */
extern const char *const bt_compute_names[BT_COMPUTE_COUNT];

/* A matrix of n columns of y and k weights each. */
typedef struct {
    const void *panels; /* 64-byte aligned, bt_linear_bytes */
    bt_dtype dtype;     /* compute f32: F32, F16, BF16; bf16: BF16; int8: INT8 */
    uint32_t n, k;
} bt_linear_weights;

typedef struct {
    const bt_linear_weights *w;
    const void *x; /* made by pack_x for m rows */
    float *y;      /* [m] rows of n f32, y_stride elements apart */
    uint32_t m, y_stride;
} bt_linear;

typedef struct {
    uint32_t tile_rows;
    size_t (*x_bytes)(uint32_t m, uint32_t k); /* of packed x; does not shrink as m or k grows */
    /* x: rows x_stride elements apart. Packs the tiles [first, end) of m rows into ret_x. */
    void (*pack_x)(const float *x, uint32_t x_stride, uint32_t m, uint32_t k, uint32_t first,
                   uint32_t end, void *ret_x);
    /* Computes the panels [first, end): the columns [32 first, 32 end) of y below n. scratch:
     * BT_LINEAR_SCRATCH_BYTES, 64-byte aligned, of this thread. */
    void (*run)(const bt_linear *op, uint32_t first, uint32_t end, void *scratch);
} bt_linear_ops;

#define BT_LINEAR_SCRATCH_BYTES (BT_LINEAR_BLOCK * BT_LINEAR_PANEL * sizeof(float))

static inline uint32_t bt_linear_panels(uint32_t n)
{
    return n / BT_LINEAR_PANEL + (n % BT_LINEAR_PANEL != 0);
}

static inline uint32_t bt_linear_tiles(const bt_linear_ops *ops, uint32_t m)
{
    return m / ops->tile_rows + (m % ops->tile_rows != 0);
}

/* The dtype of the panels of a matrix whose tensors are of this dtype. */
static inline bt_dtype bt_linear_dtype(bt_compute compute, bt_dtype tensor)
{
    return compute == BT_COMPUTE_INT8   ? BT_DTYPE_INT8
           : compute == BT_COMPUTE_BF16 ? BT_DTYPE_BF16
                                        : tensor;
}

/* Of one panel and of all; a multiple of 64. Cannot wrap: n and k are 32 bits each. */
size_t bt_linear_panel_bytes(bt_dtype dtype, uint32_t k);
size_t bt_linear_bytes(bt_dtype dtype, uint32_t n, uint32_t k);

/* Writes the part of a tensor [rows][k] (f32, f16 or bf16 row-major, any alignment) that falls in
 * the panels [first, end); its rows become the columns column, column + 1 ... of y. panels: zeroed
 * before the first tensor. */
void bt_linear_pack(void *panels, bt_dtype dtype, uint32_t k, uint32_t column, const void *tensor,
                    bt_dtype tensor_dtype, uint32_t rows, uint32_t first, uint32_t end);

extern const bt_linear_ops bt_linear_ref, bt_linear_avx2, bt_linear_avx512;
extern const bt_linear_ops bt_linear_bf16_ref, bt_linear_bf16_avx2, bt_linear_bf16_avx512;
extern const bt_linear_ops bt_linear_bf16_amx;
extern const bt_linear_ops bt_linear_int8_ref, bt_linear_int8_avx2, bt_linear_int8_avx512;

#endif
