/* linear_bf16.h - what the linear_bf16_*.c files that have no AMX share; only they may include it.
 *
 * X      Tiles of 12 rows: [k rounded up to 32][tile's rows] f32 that hold bf16, zeros beyond k.
 * LOOPS  Panel after panel, 256 k of it at a time: those 16 KiB stay in the first-level cache while
 *        every row passes. y holds the sums between two blocks, so blocks change no sum. */
#ifndef BT_KERNELS_LINEAR_LINEAR_BF16_H
#define BT_KERNELS_LINEAR_LINEAR_BF16_H

#include "kernels/linear/linear.h"

#include "kernels/numerics.h"

#include <assert.h>
#include <xmmintrin.h>

#define BF16_STEP 32u      /* k of one step of the tile unit */
#define BF16_BLOCK 256u    /* k that stay in the first-level cache */
#define BF16_FLUSH 0x8040u /* MXCSR: subnormal operands and results are zero */

/* Up to 4 rows against one panel and one block. */
typedef struct {
    const uint8_t *w; /* the panel, at the block's first k */
    const float *x;   /* [count][step], at the first row */
    float *y;
    uint32_t count; /* of k, a multiple of 32 */
    uint32_t step, y_stride;
    uint32_t columns; /* of the panel, 1 .. 32 */
    bool add;         /* to y, which holds the blocks before */
} bf16_tile;

typedef void bf16_tile_fn(const bf16_tile *tile, uint32_t rows);

static inline uint32_t bf16_k(uint32_t k)
{
    return (k + BF16_STEP - 1) / BF16_STEP * BF16_STEP;
}

static inline size_t bf16_x_bytes(uint32_t m, uint32_t k)
{
    return (size_t)m * bf16_k(k) * sizeof(float);
}

static inline void bf16_pack_x(const float *x, uint32_t x_stride, uint32_t m, uint32_t k,
                               uint32_t first, uint32_t end, void *ret_x)
{
    for (uint32_t tile = first; tile < end; tile++) {
        uint32_t row = tile * BT_LINEAR_TILE;
        uint32_t rows = m - row < BT_LINEAR_TILE ? m - row : BT_LINEAR_TILE;
        float *at = (float *)ret_x + (size_t)row * bf16_k(k);
        for (uint32_t i = 0; i < rows; i++) {
            const float *from = x + (size_t)(row + i) * x_stride;
            for (uint32_t l = 0; l < k; l++)
                at[(size_t)l * rows + i] = bt_bf16_to_f32(bt_f32_to_bf16(from[l]));
            for (uint32_t l = k; l < bf16_k(k); l++) at[(size_t)l * rows + i] = 0;
        }
    }
}

static inline uint32_t bf16_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline void bf16_panels(const bt_linear *op, uint32_t first, uint32_t end, bf16_tile_fn *fn)
{
    const bt_linear_weights *w = op->w;
    uint32_t k = bf16_k(w->k);
    size_t panel_bytes = bt_linear_panel_bytes(BT_DTYPE_BF16, w->k);
    bf16_tile t = {.y_stride = op->y_stride};
    for (uint32_t panel = first; panel < end; panel++) {
        uint32_t column = panel * BT_LINEAR_PANEL;
        t.columns = bf16_min(BT_LINEAR_PANEL, w->n - column);
        for (uint32_t l = 0; l < k; l += BF16_BLOCK) {
            t.w = (const uint8_t *)w->panels + panel * panel_bytes +
                  (size_t)l * BT_LINEAR_PANEL * sizeof(uint16_t);
            t.count = bf16_min(k - l, BF16_BLOCK);
            t.add = l > 0;
            for (uint32_t row = 0; row < op->m; row += 4) {
                uint32_t top = row / BT_LINEAR_TILE * BT_LINEAR_TILE;
                t.step = bf16_min(op->m - top, BT_LINEAR_TILE);
                t.x = (const float *)op->x + (size_t)top * k + (size_t)l * t.step + (row - top);
                t.y = op->y + (size_t)row * op->y_stride + column;
                fn(&t, bf16_min(op->m - row, 4));
            }
        }
    }
}

static inline void bf16_run(const bt_linear *op, uint32_t first, uint32_t end, bf16_tile_fn *fn)
{
    assert(first <= end && end <= bt_linear_panels(op->w->n));
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | BF16_FLUSH);
    bf16_panels(op, first, end, fn);
    _mm_setcsr(mode);
}

#endif
