/* linear_int8_ref.c - the oracle, and bit for bit what every other row gives: integers are exact. */
#include "kernels/linear/linear_int8.h"

static size_t x_bytes(uint32_t m, uint32_t k)
{
    return int8_x_bytes(m, k, 1);
}

/* count <= 128 values of one row and group. */
static void encode_group(const float *x, uint32_t count, int8_t ret_codes[BT_LINEAR_GROUP],
                         float *ret_scale, int32_t *ret_offset)
{
    float amax = 0;
    bool broken = false;
    int32_t sum = 0;
    for (uint32_t l = 0; l < count; l++) {
        if (fabsf(x[l]) > amax) amax = fabsf(x[l]);
        broken |= isnan(x[l]);
    }
    float inverse = amax > 0 && !broken ? BT_INT8_MAX / amax : 0;
    for (uint32_t l = 0; l < BT_LINEAR_GROUP; l++) {
        float code = l < count ? rintf(x[l] * inverse) : 0;
        ret_codes[l] = (int8_t)(isnan(code) ? 0 : (int)code);
        sum += ret_codes[l];
    }
    *ret_scale = broken ? NAN : amax / BT_INT8_MAX;
    *ret_offset = 128 * sum;
}

static void pack_x(const float *x, uint32_t x_stride, uint32_t m, uint32_t k, uint32_t first,
                   uint32_t end, void *ret_x)
{
    uint32_t groups = int8_groups(k);
    for (uint32_t row = first * BT_LINEAR_TILE; row < end * BT_LINEAR_TILE && row < m; row++) {
        uint32_t tile = row / BT_LINEAR_TILE * BT_LINEAR_TILE, i = row - tile;
        uint32_t rows = m - tile < BT_LINEAR_TILE ? m - tile : BT_LINEAR_TILE;
        int32_t *at = (int32_t *)ret_x + groups * int8_group_words(tile, 1);
        for (uint32_t l = 0; l < k; l += BT_LINEAR_GROUP, at += int8_group_words(rows, 1)) {
            int8_t codes[BT_LINEAR_GROUP];
            uint32_t count = k - l < BT_LINEAR_GROUP ? k - l : BT_LINEAR_GROUP;
            float *scales = (float *)(at + INT8_QUADS * rows);
            encode_group(x + (size_t)row * x_stride + l, count, codes, &scales[i],
                         at + (INT8_QUADS + 1) * rows + i);
            for (uint32_t quad = 0; quad < INT8_QUADS; quad++)
                memcpy(at + (size_t)quad * rows + i, codes + quad * 4, 4);
        }
    }
}

static float dot(const bt_linear *op, uint32_t i, uint32_t j)
{
    uint32_t tile = i / BT_LINEAR_TILE * BT_LINEAR_TILE, lane = j % BT_LINEAR_PANEL;
    uint32_t rows = op->m - tile < BT_LINEAR_TILE ? op->m - tile : BT_LINEAR_TILE;
    const int32_t *x = int8_tile_at(op, tile, 1);
    const uint8_t *w = (const uint8_t *)op->w->panels +
                       j / BT_LINEAR_PANEL * bt_linear_panel_bytes(BT_DTYPE_INT8, op->w->k);
    float y = 0;
    for (uint32_t group = 0; group < int8_groups(op->w->k); group++) {
        int32_t sum = -x[(INT8_QUADS + 1) * rows + i - tile];
        for (uint32_t l = 0; l < BT_LINEAR_GROUP; l++) {
            const int8_t *codes = (const int8_t *)(x + (size_t)(l / 4) * rows + i - tile);
            sum += codes[l % 4] * w[(l / 4 * BT_LINEAR_PANEL + lane) * 4 + l % 4];
        }
        float x_scale = ((const float *)x)[INT8_QUADS * rows + i - tile];
        float w_scale = ((const float *)(w + BT_LINEAR_GROUP * BT_LINEAR_PANEL))[lane];
        y = fmaf((float)sum, x_scale * w_scale, y);
        x += int8_group_words(rows, 1);
        w += INT8_GROUP_BYTES;
    }
    return y;
}

static void run(const bt_linear *op, uint32_t first, uint32_t end, void *scratch)
{
    (void)scratch;
    assert(first <= end && end <= bt_linear_panels(op->w->n));
    for (uint32_t j = first * BT_LINEAR_PANEL; j < end * BT_LINEAR_PANEL && j < op->w->n; j++)
        for (uint32_t i = 0; i < op->m; i++) op->y[(size_t)i * op->y_stride + j] = dot(op, i, j);
}

const bt_linear_ops bt_linear_int8_ref = {
    .tile_rows = BT_LINEAR_TILE, .x_bytes = x_bytes, .pack_x = pack_x, .run = run};
