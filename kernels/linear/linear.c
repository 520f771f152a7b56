/* linear.c - how packed matrices lie in memory; runs once for each weight, at load. */
#include "kernels/linear/linear.h"

#include "kernels/weight.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define PANEL BT_LINEAR_PANEL
#define GROUP BT_LINEAR_GROUP
#define GROUP_BYTES (GROUP * PANEL + PANEL * sizeof(float))

const char *const bt_compute_names[BT_COMPUTE_COUNT] = {"f32", "bf16", "int8"};

size_t bt_linear_panel_bytes(bt_dtype dtype, uint32_t k)
{
    switch (dtype) {
    case BT_DTYPE_BF16: return ((size_t)k + 31) / 32 * 32 * PANEL * sizeof(uint16_t);
    case BT_DTYPE_INT8: return ((size_t)k + GROUP - 1) / GROUP * GROUP_BYTES;
    default: return (size_t)k * PANEL * bt_dtype_bytes(dtype);
    }
}

size_t bt_linear_bytes(bt_dtype dtype, uint32_t n, uint32_t k)
{
    return bt_linear_panels(n) * bt_linear_panel_bytes(dtype, k);
}

/* One row of a tensor into its column of a panel. */
static void pack_f32(uint8_t *panel, uint32_t lane, const void *row, bt_dtype dtype, uint32_t k)
{
    float *column = (float *)panel + lane;
    for (uint32_t l = 0; l < k; l++) column[(size_t)l * PANEL] = bt_weight_at(row, dtype, l);
}

static void pack_f16(uint8_t *panel, uint32_t lane, const void *row, bt_dtype dtype, uint32_t k)
{
    assert(dtype == BT_DTYPE_F16);
    uint16_t *column = (uint16_t *)panel + lane;
    for (uint32_t l = 0; l < k; l++)
        memcpy(&column[(size_t)l * PANEL], (const uint8_t *)row + (size_t)l * 2, 2);
}

static uint16_t bf16_at(const void *row, bt_dtype dtype, uint32_t l)
{
    uint16_t code;
    if (dtype != BT_DTYPE_BF16) return bt_f32_to_bf16(bt_weight_at(row, dtype, l));
    memcpy(&code, (const uint8_t *)row + (size_t)l * 2, 2);
    return code;
}

static void pack_bf16(uint8_t *panel, uint32_t lane, const void *row, bt_dtype dtype, uint32_t k)
{
    uint32_t *column = (uint32_t *)panel + lane;
    for (uint32_t l = 0; l + 2 <= k; l += 2)
        column[(size_t)(l / 2) * PANEL] =
            bf16_at(row, dtype, l) | (uint32_t)bf16_at(row, dtype, l + 1) << 16;
    if (k % 2) column[(size_t)(k / 2) * PANEL] = bf16_at(row, dtype, k - 1);
}

/* One group of a column; the k from `count` on are zero. */
static void pack_int8_group(uint8_t *group, uint32_t lane, const float *values, uint32_t count)
{
    float amax = 0;
    bool broken = false;
    for (uint32_t l = 0; l < count; l++) {
        if (fabsf(values[l]) > amax) amax = fabsf(values[l]);
        broken |= isnan(values[l]);
    }
    float inverse = amax > 0 && !broken ? BT_INT8_MAX / amax : 0;
    for (uint32_t l = 0; l < GROUP; l++) {
        float code = l < count ? rintf(values[l] * inverse) : 0;
        group[(l / 4 * PANEL + lane) * 4 + l % 4] = (uint8_t)(isnan(code) ? 128 : (int)code + 128);
    }
    ((float *)(group + GROUP * PANEL))[lane] = broken ? NAN : amax / BT_INT8_MAX;
}

static void pack_int8(uint8_t *panel, uint32_t lane, const void *row, bt_dtype dtype, uint32_t k)
{
    float values[GROUP];
    for (uint32_t first = 0; first < k; first += GROUP, panel += GROUP_BYTES) {
        uint32_t count = k - first < GROUP ? k - first : GROUP;
        for (uint32_t l = 0; l < count; l++) values[l] = bt_weight_at(row, dtype, first + l);
        pack_int8_group(panel, lane, values, count);
    }
}

void bt_linear_pack(void *panels, bt_dtype dtype, uint32_t k, uint32_t column, const void *tensor,
                    bt_dtype tensor_dtype, uint32_t rows, uint32_t first, uint32_t end)
{
    void (*pack)(uint8_t * panel, uint32_t lane, const void *row, bt_dtype dtype, uint32_t k) =
        dtype == BT_DTYPE_F32    ? pack_f32
        : dtype == BT_DTYPE_F16  ? pack_f16
        : dtype == BT_DTYPE_BF16 ? pack_bf16
                                 : pack_int8;
    size_t panel_bytes = bt_linear_panel_bytes(dtype, k);
    uint64_t from = (uint64_t)first * PANEL, to = (uint64_t)end * PANEL;
    if (from < column) from = column;
    if (to > (uint64_t)column + rows) to = (uint64_t)column + rows;
    for (uint64_t j = from; j < to; j++) {
        const uint8_t *row =
            (const uint8_t *)tensor + (j - column) * k * bt_dtype_bytes(tensor_dtype);
        pack((uint8_t *)panels + j / PANEL * panel_bytes, j % PANEL, row, tensor_dtype, k);
    }
}
