/* linear.c - how packed matrices lie in memory; runs once for each weight, at load. */
#include "kernels/linear/linear.h"

#include "kernels/weight.h"

#include <assert.h>
#include <string.h>

#define PANEL BT_LINEAR_PANEL

size_t bt_linear_panel_bytes(bt_dtype dtype, uint32_t k)
{
    if (dtype == BT_DTYPE_BF16) return ((size_t)k + 1) / 2 * PANEL * sizeof(uint32_t);
    return (size_t)k * PANEL * bt_dtype_bytes(dtype);
}

size_t bt_linear_bytes(bt_dtype dtype, uint32_t n, uint32_t k)
{
    return bt_linear_panels(n) * bt_linear_panel_bytes(dtype, k);
}

size_t bt_linear_x_bytes(uint32_t m, uint32_t k)
{
    return (size_t)m * k * sizeof(float);
}

/* One row of a tensor into its column of a panel. */
static void pack_f32(float *column, const void *row, bt_dtype dtype, uint32_t k)
{
    for (uint32_t l = 0; l < k; l++) column[(size_t)l * PANEL] = bt_weight_at(row, dtype, l);
}

static void pack_f16(uint16_t *column, const void *row, uint32_t k)
{
    for (uint32_t l = 0; l < k; l++)
        memcpy(&column[(size_t)l * PANEL], (const uint8_t *)row + l * 2, 2);
}

static void pack_bf16(uint32_t *column, const void *row, uint32_t k)
{
    for (uint32_t l = 0; l < k / 2; l++)
        memcpy(&column[(size_t)l * PANEL], (const uint8_t *)row + l * 4, 4);
    if (k % 2) {
        uint16_t last;
        memcpy(&last, (const uint8_t *)row + (k - 1) * 2, 2);
        column[(size_t)(k / 2) * PANEL] = last;
    }
}

void bt_linear_pack(void *panels, bt_dtype dtype, uint32_t k, uint32_t column, const void *tensor,
                    bt_dtype tensor_dtype, uint32_t rows, uint32_t first, uint32_t end)
{
    assert(dtype == tensor_dtype || dtype == BT_DTYPE_F32);
    size_t panel_bytes = bt_linear_panel_bytes(dtype, k);
    uint64_t from = (uint64_t)first * PANEL, to = (uint64_t)end * PANEL;
    if (from < column) from = column;
    if (to > (uint64_t)column + rows) to = (uint64_t)column + rows;
    for (uint64_t j = from; j < to; j++) {
        uint8_t *base = (uint8_t *)panels + j / PANEL * panel_bytes;
        const uint8_t *row =
            (const uint8_t *)tensor + (j - column) * k * bt_dtype_bytes(tensor_dtype);
        switch (dtype) {
        case BT_DTYPE_F32: pack_f32((float *)base + j % PANEL, row, tensor_dtype, k); break;
        case BT_DTYPE_F16: pack_f16((uint16_t *)base + j % PANEL, row, k); break;
        case BT_DTYPE_BF16: pack_bf16((uint32_t *)base + j % PANEL, row, k); break;
        default: assert(!"not a dtype of packed weights");
        }
    }
}
