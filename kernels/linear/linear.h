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
 *           bf16  [(k + 1) / 2][32] pairs: column j's weights of k = 2l (low half) and 2l + 1
 *         Columns beyond n, and the k beyond an odd one, are zero. Weights keep their dtype.
 * X       Tiles of BT_LINEAR_TILE rows: [k][tile's rows], tile t at x + 12 t k. The last tile is as
 *         wide as it has rows, so one row alone is itself.
 *
 * VALUES  Every y[i][j] is one chain of f32 FMAs over l in order for each block of 256, from zero;
 *         the sums of the blocks are added in order. So it depends on row i of x, row j of w and k
 *         only: never on m, n, the range of panels, threads, or the kind of CPU: the rows "avx2"
 *         and "avx512" agree bit for bit. It stays within (256 + k / 256) * 2^-24 * sum |x * w| of
 *         the exact sum. The reference adds in f64. */
#ifndef BT_KERNELS_LINEAR_LINEAR_H
#define BT_KERNELS_LINEAR_LINEAR_H

#include "common/base/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_LINEAR_PANEL 32u
#define BT_LINEAR_TILE 12u
#define BT_LINEAR_BLOCK 256u

/* A matrix of n columns of y and k weights each. */
typedef struct {
    const void *panels; /* 64-byte aligned, bt_linear_bytes */
    bt_dtype dtype;     /* F32, F16, BF16 */
    uint32_t n, k;
} bt_linear_weights;

typedef struct {
    const bt_linear_weights *w;
    const void *x; /* made by pack_x for m rows */
    float *y;      /* [m] rows of n f32, y_stride elements apart */
    uint32_t m, y_stride;
} bt_linear;

typedef struct {
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

static inline uint32_t bt_linear_tiles(uint32_t m)
{
    return (m + BT_LINEAR_TILE - 1) / BT_LINEAR_TILE;
}

/* Of one panel and of all; a multiple of 64. Cannot wrap: n and k are 32 bits each. */
size_t bt_linear_panel_bytes(bt_dtype dtype, uint32_t k);
size_t bt_linear_bytes(bt_dtype dtype, uint32_t n, uint32_t k);

/* Bytes of packed x. */
size_t bt_linear_x_bytes(uint32_t m, uint32_t k);

/* Writes the part of a tensor [rows][k] (f32, f16 or bf16 row-major, any alignment) that falls in
 * the panels [first, end); its rows become the columns column, column + 1 ... of y. panels: zeroed
 * before the first tensor. dtype of the panels: the tensor's, or f32, which holds every weight
 * exactly. */
void bt_linear_pack(void *panels, bt_dtype dtype, uint32_t k, uint32_t column, const void *tensor,
                    bt_dtype tensor_dtype, uint32_t rows, uint32_t first, uint32_t end);

/* pack_x of the rows "avx2" and "avx512": bt_linear_ref.pack_x, faster. */
void bt_linear_pack_x(const float *x, uint32_t x_stride, uint32_t m, uint32_t k, uint32_t first,
                      uint32_t end, void *ret_x);

extern const bt_linear_ops bt_linear_ref, bt_linear_avx2, bt_linear_avx512;

#endif
