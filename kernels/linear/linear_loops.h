/* linear_loops.h - the loops around a register tile, shared by the linear_*.c files of x86; only
 * they may include it.
 *
 * FEW   Up to 12 rows are one tile: panel after panel, so that the weights stream through once and
 *       are widened in registers.
 * MANY  Blocks of 240 rows and 256 k of x stay in the second-level cache while every panel passes;
 *       a panel's block is widened once into scratch, which stays in the first-level cache while
 *       the tiles pass (from 37 rows on). y is read and written once for each 256 k.
 * Neither changes a sum: see VALUES in linear.h.
 *
 * X     Tiles of 12 rows: [k][tile's rows] f32, tile t at x + 12 t k. The last tile is as wide as it
 *       has rows, so one row alone is itself. */
#ifndef BT_KERNELS_LINEAR_LINEAR_LOOPS_H
#define BT_KERNELS_LINEAR_LINEAR_LOOPS_H

#include "kernels/linear/linear.h"

#include <assert.h>
#include <immintrin.h>

#define LINEAR_ROWS_BLOCK (20u * BT_LINEAR_TILE)
/* Up to so many rows widen weights in registers, for each tile again. */
#define LINEAR_WIDEN_ROWS (3u * BT_LINEAR_TILE)

/* Up to 12 rows of x, some panels side by side and up to 256 k. */
typedef struct {
    const uint8_t *w; /* the first panel, at the block's first k */
    size_t panel_bytes;
    const float *x; /* [count][step], at the tile's first row */
    float *y;
    uint32_t step, y_stride;
    uint32_t rows, panels, count;
    uint32_t columns; /* of y, 32 panels at most */
    bool add;         /* to y, which holds the blocks before */
} linear_tile;

typedef void linear_tile_fn(const linear_tile *tile);

typedef struct {
    linear_tile_fn *tile; /* of the weights' dtype */
    linear_tile_fn *tile_f32;
    /* [count] k of one panel to f32 [count][32]; NULL if the weights are f32 */
    void (*widen)(const uint8_t *w, uint32_t count, float *ret);
    uint32_t (*panels)(uint32_t rows); /* that a tile takes at once */
} linear_kernel;

static inline uint32_t linear_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline size_t linear_x_bytes(uint32_t m, uint32_t k)
{
    return (size_t)m * k * sizeof(float);
}

/* Four rows by four k at a time. */
static inline void linear_pack_rows4(const float *x, uint32_t x_stride, uint32_t k, uint32_t rows,
                                     float *ret)
{
    uint32_t l = 0;
    for (; l + 4 <= k; l += 4) {
        __m128 r0 = _mm_loadu_ps(x + l), r1 = _mm_loadu_ps(x + x_stride + l);
        __m128 r2 = _mm_loadu_ps(x + 2 * (size_t)x_stride + l);
        __m128 r3 = _mm_loadu_ps(x + 3 * (size_t)x_stride + l);
        _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
        float *at = ret + (size_t)l * rows;
        _mm_storeu_ps(at, r0);
        _mm_storeu_ps(at + rows, r1);
        _mm_storeu_ps(at + 2 * (size_t)rows, r2);
        _mm_storeu_ps(at + 3 * (size_t)rows, r3);
    }
    for (; l < k; l++)
        for (uint32_t i = 0; i < 4; i++) ret[(size_t)l * rows + i] = x[(size_t)i * x_stride + l];
}

static inline void linear_pack_x(const float *x, uint32_t x_stride, uint32_t m, uint32_t k,
                                 uint32_t first, uint32_t end, void *ret_x)
{
    for (uint32_t tile = first; tile < end; tile++) {
        uint32_t row = tile * BT_LINEAR_TILE, rows = linear_min(m - row, BT_LINEAR_TILE), i = 0;
        float *at = (float *)ret_x + (size_t)row * k;
        for (; i + 4 <= rows; i += 4)
            linear_pack_rows4(x + (size_t)(row + i) * x_stride, x_stride, k, rows, at + i);
        for (; i < rows; i++)
            for (uint32_t l = 0; l < k; l++)
                at[(size_t)l * rows + i] = x[(size_t)(row + i) * x_stride + l];
    }
}

/* Bytes of one k of a panel: a block begins at an even k. */
static inline size_t linear_k_bytes(bt_dtype dtype)
{
    return BT_LINEAR_PANEL * (dtype == BT_DTYPE_F32 ? 4 : 2);
}

static inline void linear_few(const bt_linear *op, const linear_kernel *kernel, uint32_t first,
                              uint32_t end)
{
    const bt_linear_weights *w = op->w;
    size_t panel_bytes = bt_linear_panel_bytes(w->dtype, w->k);
    linear_tile tile = {
        .panel_bytes = panel_bytes, .step = op->m, .y_stride = op->y_stride, .rows = op->m};
    uint32_t group = kernel->panels(op->m);
    for (uint32_t panel = first; panel < end; panel += group) {
        tile.panels = linear_min(group, end - panel);
        uint32_t column = panel * BT_LINEAR_PANEL;
        tile.columns = linear_min(tile.panels * BT_LINEAR_PANEL, w->n - column);
        tile.y = op->y + column;
        for (uint32_t l = 0; l < w->k; l += BT_LINEAR_BLOCK) {
            tile.w =
                (const uint8_t *)w->panels + panel * panel_bytes + l * linear_k_bytes(w->dtype);
            tile.x = (const float *)op->x + (size_t)l * op->m;
            tile.count = linear_min(w->k - l, BT_LINEAR_BLOCK);
            tile.add = l > 0;
            kernel->tile(&tile);
        }
    }
}

/* The rows [row, row_end) against one block of one panel. */
static inline void linear_column(const bt_linear *op, linear_tile_fn *fn, linear_tile *tile,
                                 uint32_t l, uint32_t row, uint32_t row_end)
{
    for (; row < row_end; row += BT_LINEAR_TILE) {
        tile->rows = linear_min(op->m - row, BT_LINEAR_TILE);
        tile->step = tile->rows;
        tile->x = (const float *)op->x + (size_t)row * op->w->k + (size_t)l * tile->rows;
        tile->y += (size_t)row * op->y_stride;
        fn(tile);
        tile->y -= (size_t)row * op->y_stride;
    }
}

static inline void linear_many(const bt_linear *op, const linear_kernel *kernel, uint32_t first,
                               uint32_t end, float *scratch)
{
    const bt_linear_weights *w = op->w;
    size_t panel_bytes = bt_linear_panel_bytes(w->dtype, w->k);
    linear_tile tile = {.panel_bytes = panel_bytes, .y_stride = op->y_stride, .panels = 1};
    bool widen = kernel->widen && op->m > LINEAR_WIDEN_ROWS;
    linear_tile_fn *fn = widen ? kernel->tile_f32 : kernel->tile;
    for (uint32_t row = 0; row < op->m; row += LINEAR_ROWS_BLOCK) {
        uint32_t row_end = linear_min(op->m, row + LINEAR_ROWS_BLOCK);
        for (uint32_t l = 0; l < w->k; l += BT_LINEAR_BLOCK) {
            tile.count = linear_min(w->k - l, BT_LINEAR_BLOCK);
            tile.add = l > 0;
            for (uint32_t panel = first; panel < end; panel++) {
                uint32_t column = panel * BT_LINEAR_PANEL;
                tile.columns = linear_min(BT_LINEAR_PANEL, w->n - column);
                tile.y = op->y + column;
                tile.w =
                    (const uint8_t *)w->panels + panel * panel_bytes + l * linear_k_bytes(w->dtype);
                if (widen) {
                    kernel->widen(tile.w, tile.count, scratch);
                    tile.w = (const uint8_t *)scratch;
                }
                linear_column(op, fn, &tile, l, row, row_end);
            }
        }
    }
}

static inline void linear_run(const bt_linear *op, const linear_kernel *kernel, uint32_t first,
                              uint32_t end, void *scratch)
{
    assert(first <= end && end <= bt_linear_panels(op->w->n));
    if (op->m <= BT_LINEAR_TILE)
        linear_few(op, kernel, first, end);
    else
        linear_many(op, kernel, first, end, scratch);
}

#endif
