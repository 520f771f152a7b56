/* linear_ref.c - the oracle: plain loops over the packed forms, sums in f64. */
#include "kernels/linear/linear.h"

#include "kernels/weight.h"

#include <assert.h>

static size_t x_bytes(uint32_t m, uint32_t k)
{
    return (size_t)m * k * sizeof(float);
}

static void pack_x(const float *x, uint32_t x_stride, uint32_t m, uint32_t k, uint32_t first,
                   uint32_t end, void *ret_x)
{
    float *at = (float *)ret_x + (size_t)first * BT_LINEAR_TILE * k;
    for (uint32_t tile = first; tile < end; tile++) {
        uint32_t row = tile * BT_LINEAR_TILE;
        uint32_t rows = m - row < BT_LINEAR_TILE ? m - row : BT_LINEAR_TILE;
        for (uint32_t l = 0; l < k; l++)
            for (uint32_t i = 0; i < rows; i++) *at++ = x[(size_t)(row + i) * x_stride + l];
    }
}

static float x_at(const bt_linear *op, uint32_t i, uint32_t l)
{
    uint32_t row = i / BT_LINEAR_TILE * BT_LINEAR_TILE;
    uint32_t rows = op->m - row < BT_LINEAR_TILE ? op->m - row : BT_LINEAR_TILE;
    return ((const float *)op->x)[(size_t)row * op->w->k + (size_t)l * rows + (i - row)];
}

static float w_at(const bt_linear_weights *w, uint32_t j, uint32_t l)
{
    const uint8_t *panel =
        (const uint8_t *)w->panels + j / BT_LINEAR_PANEL * bt_linear_panel_bytes(w->dtype, w->k);
    uint32_t lane = j % BT_LINEAR_PANEL;
    if (w->dtype == BT_DTYPE_BF16)
        return bt_weight_at(panel, w->dtype,
                            ((size_t)(l / 2) * BT_LINEAR_PANEL + lane) * 2 + l % 2);
    return bt_weight_at(panel, w->dtype, (size_t)l * BT_LINEAR_PANEL + lane);
}

static void run(const bt_linear *op, uint32_t first, uint32_t end, void *scratch)
{
    (void)scratch;
    assert(first <= end && end <= bt_linear_panels(op->w->n));
    for (uint32_t j = first * BT_LINEAR_PANEL; j < end * BT_LINEAR_PANEL && j < op->w->n; j++) {
        for (uint32_t i = 0; i < op->m; i++) {
            double sum = 0;
            for (uint32_t l = 0; l < op->w->k; l++)
                sum += (double)x_at(op, i, l) * w_at(op->w, j, l);
            op->y[(size_t)i * op->y_stride + j] = (float)sum;
        }
    }
}

const bt_linear_ops bt_linear_ref = {
    .tile_rows = BT_LINEAR_TILE, .x_bytes = x_bytes, .pack_x = pack_x, .run = run};
