/* linear_bf16_ref.c - the oracle, and bit for bit what every other row gives. */
#include "kernels/linear/linear_bf16.h"

#include <math.h>

static float dot(const bt_linear *op, uint32_t i, uint32_t j)
{
    uint32_t tile = i / BT_LINEAR_TILE * BT_LINEAR_TILE, k = bf16_k(op->w->k);
    uint32_t rows = op->m - tile < BT_LINEAR_TILE ? op->m - tile : BT_LINEAR_TILE;
    const float *x = (const float *)op->x + (size_t)tile * k + (i - tile);
    const uint16_t *w = (const uint16_t *)op->w->panels +
                        j / BT_LINEAR_PANEL * (bt_linear_panel_bytes(BT_DTYPE_BF16, op->w->k) / 2) +
                        j % BT_LINEAR_PANEL * 2;
    float y = 0;
    for (uint32_t first = 0; first < k; first += BF16_STEP) {
        float sum[2] = {0, 0};
        for (uint32_t l = first; l < first + BF16_STEP; l++)
            sum[l % 2] =
                fmaf(x[(size_t)l * rows],
                     bt_bf16_to_f32(w[(size_t)(l / 2) * BT_LINEAR_PANEL * 2 + l % 2]), sum[l % 2]);
        y += sum[0] + sum[1];
    }
    return y;
}

static void run(const bt_linear *op, uint32_t first, uint32_t end, void *scratch)
{
    (void)scratch;
    assert(first <= end && end <= bt_linear_panels(op->w->n));
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | BF16_FLUSH);
    for (uint32_t j = first * BT_LINEAR_PANEL; j < end * BT_LINEAR_PANEL && j < op->w->n; j++)
        for (uint32_t i = 0; i < op->m; i++) op->y[(size_t)i * op->y_stride + j] = dot(op, i, j);
    _mm_setcsr(mode);
}

const bt_linear_ops bt_linear_bf16_ref = {
    .tile_rows = BT_LINEAR_TILE, .x_bytes = bf16_x_bytes, .pack_x = bf16_pack_x, .run = run};
