/* matmul_avx2.c - dot products of eight lanes, tiled so that the FMA units are busy.
 *
 * A tile of 3 rows x 4 columns keeps 12 accumulators and 4 columns in registers; one row alone
 * takes 8 columns, so that 8 independent sums hide the latency of the FMA. 16-bit weights are
 * widened in registers. Tiling never changes a sum: each (row, column) has one accumulator that
 * goes over k in steps of 8. The columns of a tile stay in the first-level cache while the rows
 * pass; no more rows at once than the second-level cache holds.
 *
 * Per call 2 m n k flops and n k weights. Best measured on one core of a Xeon (Sapphire Rapids) at
 * about 2.9 GHz, k 256 and 768, 2026-11-23: f32 86 GFLOP/s (92 is what the FMA units give) from 3
 * rows on and 50 with one; bf16 80 and 62. 1,000 rows of 768: 76 in bf16, against 60 without the
 * blocks of rows. Not tried: widening a tile's columns once for all rows. */
#include "kernels/matmul/matmul.h"

#include "kernels/avx2.h"

#include <assert.h>

#define TILE_ROWS 3
#define TILE_COLUMNS 8
/* Of the rows of x that all columns see before the next rows come. */
#define BLOCK_BYTES (512u << 10)

typedef struct {
    const float *x[TILE_ROWS];
    const uint8_t *w[TILE_COLUMNS];
} tile_rows;

/* rows <= 3, columns 1, 4 or 8, rows * columns <= 12; all constants at each use. */
BT_INLINE void tile(const bt_matmul *op, bt_dtype dtype, uint32_t rows, uint32_t columns,
                    uint32_t row, uint32_t column)
{
    size_t w_bytes = (size_t)op->k * (dtype == BT_DTYPE_F32 ? 4 : 2);
    tile_rows at;
    for (uint32_t i = 0; i < rows; i++) at.x[i] = op->x + (size_t)(row + i) * op->x_stride;
    for (uint32_t j = 0; j < columns; j++)
        at.w[j] = (const uint8_t *)op->w + (column + j) * w_bytes;

    __m256 sum[TILE_ROWS][TILE_COLUMNS];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < columns; j++) sum[i][j] = _mm256_setzero_ps();

    uint32_t k_whole = op->k & ~7u, tail = op->k & 7u;
    for (uint32_t l = 0; l < k_whole; l += 8) {
        __m256 w[TILE_COLUMNS];
        for (uint32_t j = 0; j < columns; j++) w[j] = load8(dtype, at.w[j], l);
        for (uint32_t i = 0; i < rows; i++) {
            __m256 x = _mm256_loadu_ps(at.x[i] + l);
            for (uint32_t j = 0; j < columns; j++) sum[i][j] = _mm256_fmadd_ps(x, w[j], sum[i][j]);
        }
    }
    if (tail) {
        for (uint32_t i = 0; i < rows; i++) {
            __m256 x = load_tail(BT_DTYPE_F32, at.x[i], k_whole, tail);
            for (uint32_t j = 0; j < columns; j++)
                sum[i][j] = _mm256_fmadd_ps(x, load_tail(dtype, at.w[j], k_whole, tail), sum[i][j]);
        }
    }
    for (uint32_t i = 0; i < rows; i++) {
        float *y = op->y + (size_t)(row + i) * op->y_stride + column;
        if (columns == 1) y[0] = sum1(sum[i][0]);
        for (uint32_t j = 0; j + 4 <= columns; j += 4)
            _mm_storeu_ps(y + j, sum4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]));
    }
}

/* The rows [row, end) of a block of columns. */
BT_INLINE void columns4(const bt_matmul *op, bt_dtype dtype, uint32_t row, uint32_t end,
                        uint32_t column)
{
    for (; row + 3 <= end; row += 3) tile(op, dtype, 3, 4, row, column);
    if (end - row == 2) tile(op, dtype, 2, 4, row, column);
    if (end - row == 1) tile(op, dtype, 1, 4, row, column);
}

BT_INLINE void columns_all(const bt_matmul *op, bt_dtype dtype, uint32_t first, uint32_t end)
{
    uint32_t column = first;
    if (op->m == 1)
        for (; column + 8 <= end; column += 8) tile(op, dtype, 1, 8, 0, column);
    uint32_t rows = BLOCK_BYTES / (op->k * (uint32_t)sizeof(float)) / TILE_ROWS * TILE_ROWS;
    if (rows < TILE_ROWS) rows = TILE_ROWS;
    for (uint32_t row = 0; row < op->m; row += rows) {
        uint32_t row_end = op->m - row < rows ? op->m : row + rows, at = column;
        for (; at + 4 <= end; at += 4) columns4(op, dtype, row, row_end, at);
        for (; at < end; at++)
            for (uint32_t i = row; i < row_end; i++) tile(op, dtype, 1, 1, i, at);
    }
}

void bt_matmul_avx2(const bt_matmul *op, uint32_t n_first, uint32_t n_end)
{
    assert(n_first <= n_end && n_end <= op->n);
    switch (op->w_dtype) {
    case BT_DTYPE_F32: columns_all(op, BT_DTYPE_F32, n_first, n_end); return;
    case BT_DTYPE_F16: columns_all(op, BT_DTYPE_F16, n_first, n_end); return;
    case BT_DTYPE_BF16: columns_all(op, BT_DTYPE_BF16, n_first, n_end); return;
    default: assert(!"not a dtype of weights");
    }
}
