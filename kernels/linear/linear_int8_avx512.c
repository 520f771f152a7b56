/* linear_int8_avx512.c - VPDPBUSD: four products a lane, bytes w + 128 of the weights by signed
 * bytes of x, summed in 32 bits without saturation; the 128 too many come off with the offset.
 *
 * A tile of 12 rows by 32 columns in 24 registers of integers; its f32 sums are in memory, which
 * is touched once for each 128 k. Fewer rows take up to 128 columns. */
#include "kernels/linear/linear_int8.h"

#include "kernels/avx2.h"

#define AHEAD_BYTES 2048u

/* A tile of rows against some panels, one group of k after the other. */
typedef struct {
    const uint8_t *w; /* the first panel, at the group */
    size_t panel_bytes;
    const int32_t *x; /* the tile, at the group */
    uint32_t rows, panels;
    float total[24 * 16]; /* [rows][panels][32] */
} int8_tile;

/* room: [rows][panels][32], the sums of this group. */
static void add_scaled(int8_tile *t, uint32_t panels, const int32_t *room)
{
    const float *x_scales = (const float *)(t->x + (size_t)INT8_QUADS * t->rows);
    float *total = t->total;
    for (uint32_t i = 0; i < t->rows; i++) {
        __m512 x_scale = _mm512_set1_ps(x_scales[i]);
        for (uint32_t c = 0; c < 2 * panels; c++, room += 16, total += 16) {
            const uint8_t *w = t->w + c / 2 * t->panel_bytes + BT_LINEAR_GROUP * BT_LINEAR_PANEL;
            __m512 scale = _mm512_mul_ps(x_scale, _mm512_load_ps((const float *)w + c % 2 * 16));
            __m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(room));
            _mm512_storeu_ps(total, _mm512_fmadd_ps(sum, scale, _mm512_loadu_ps(total)));
        }
    }
}

/* _mm512_dpbusd_epi32 in place: of the intrinsic gcc 12 makes a copy of each sum, and runs out of
 * registers (400 GFLOP/s against 700, 2 cores of a Sapphire Rapids). */
BT_INLINE __m512i dot4(__m512i sum, __m512i codes, __m512i four)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(four));
    return sum;
}

/* rows and panels are constants at each use. */
BT_INLINE void take_group(int8_tile *t, uint32_t rows, uint32_t panels)
{
    __m512i sum[BT_LINEAR_TILE][8];
    const int32_t *x = t->x, *ends = x + (size_t)INT8_QUADS * rows; /* scales, then offsets */
    const uint8_t *w[4];
    for (uint32_t p = 0; p < panels; p++) w[p] = t->w + p * t->panel_bytes;
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < 2 * panels; c++) sum[i][c] = _mm512_set1_epi32(-ends[rows + i]);
    for (uint32_t quad = 0; quad < INT8_QUADS; quad++) {
        __m512i codes[8];
        for (uint32_t c = 0; c < 2 * panels; c++)
            codes[c] = _mm512_load_si512((const __m512i *)w[c / 2] + c % 2);
        for (uint32_t p = 0; p < panels; p++) {
            if (rows == 1) {
                _mm_prefetch((const char *)w[p] + AHEAD_BYTES, _MM_HINT_T0);
                _mm_prefetch((const char *)w[p] + AHEAD_BYTES + 64, _MM_HINT_T0);
            }
            w[p] += 2 * sizeof(__m512i);
        }
        for (uint32_t i = 0; i < rows; i++) {
            __m512i four = _mm512_set1_epi32(x[i]);
            for (uint32_t c = 0; c < 2 * panels; c++) sum[i][c] = dot4(sum[i][c], codes[c], four);
        }
        x += rows;
    }
    /* A loop small enough to be unrolled: gcc 12 keeps sums in memory that a larger one names. */
    _Alignas(64) int32_t room[24 * 16];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < 2 * panels; c++)
            _mm512_store_si512(room + (i * 2 * panels + c) * 16, sum[i][c]);
    add_scaled(t, panels, room);
}

/* Rows and panels as tiles_of says, or one panel. */
static void take_any_group(int8_tile *t)
{
    bool one = t->panels == 1;
    switch (t->rows) {
    case 1: one ? take_group(t, 1, 1) : take_group(t, 1, 4); return;
    case 2: one ? take_group(t, 2, 1) : take_group(t, 2, 4); return;
    case 3: one ? take_group(t, 3, 1) : take_group(t, 3, 2); return;
    case 4: one ? take_group(t, 4, 1) : take_group(t, 4, 2); return;
    case 5: one ? take_group(t, 5, 1) : take_group(t, 5, 2); return;
    case 6: one ? take_group(t, 6, 1) : take_group(t, 6, 2); return;
    case 7: take_group(t, 7, 1); return;
    case 8: take_group(t, 8, 1); return;
    case 9: take_group(t, 9, 1); return;
    case 10: take_group(t, 10, 1); return;
    case 11: take_group(t, 11, 1); return;
    default: take_group(t, 12, 1); return;
    }
}

/* Panels that a tile takes at once, if so many are there. */
static uint32_t panels_of(uint32_t rows)
{
    return rows <= 2 ? 4 : rows <= 6 ? 2 : 1;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* One tile of rows against the panels [panel, +panels). */
static void take_tile(const bt_linear *op, uint32_t row, uint32_t panel, uint32_t panels)
{
    const bt_linear_weights *w = op->w;
    size_t panel_bytes = bt_linear_panel_bytes(BT_DTYPE_INT8, w->k);
    int8_tile t = {.w = (const uint8_t *)w->panels + panel * panel_bytes,
                   .panel_bytes = panel_bytes,
                   .x = int8_tile_at(op, row, 1),
                   .rows = min_u32(op->m - row, BT_LINEAR_TILE),
                   .panels = panels};
    for (uint32_t group = int8_groups(w->k); group > 0; group--) {
        take_any_group(&t);
        t.w += INT8_GROUP_BYTES;
        t.x += int8_group_words(t.rows, 1);
    }
    uint32_t first = panel * BT_LINEAR_PANEL, end = first + panels * BT_LINEAR_PANEL;
    const float *total = t.total;
    for (uint32_t i = 0; i < t.rows; i++) {
        for (uint32_t column = first; column < end; column += 16, total += 16) {
            if (column >= w->n) continue;
            uint32_t left = w->n - column;
            __mmask16 mask = left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
            _mm512_mask_storeu_ps(op->y + (size_t)(row + i) * op->y_stride + column, mask,
                                  _mm512_loadu_ps(total));
        }
    }
}

/* The rows [row, end) against the panels [first, last). */
static void rows_block(const bt_linear *op, uint32_t row, uint32_t end, uint32_t first,
                       uint32_t last)
{
    uint32_t group = panels_of(op->m);
    for (uint32_t panel = first; panel < last;) {
        uint32_t panels = last - panel >= group ? group : 1;
        for (uint32_t at = row; at < end; at += BT_LINEAR_TILE) take_tile(op, at, panel, panels);
        panel += panels;
    }
}

static void run(const bt_linear *op, uint32_t first, uint32_t end, void *scratch)
{
    (void)scratch;
    assert(first <= end && end <= bt_linear_panels(op->w->n));
    uint32_t rows = (uint32_t)(INT8_X_BYTES / int8_x_bytes(BT_LINEAR_TILE, op->w->k, 1) + 1);
    rows *= BT_LINEAR_TILE;
    for (uint32_t row = 0; row < op->m; row += rows)
        rows_block(op, row, min_u32(op->m, row + rows), first, end);
}

static size_t x_bytes(uint32_t m, uint32_t k)
{
    return int8_x_bytes(m, k, 1);
}

/* 128 values, those from `count` on zero, to codes, scale and offset. */
BT_INLINE void encode_group(const float *x, uint32_t count, int32_t ret_codes[INT8_QUADS],
                            float *ret_scale, int32_t *ret_offset)
{
    __m512 v[8], amax = _mm512_setzero_ps();
    __mmask16 broken = 0;
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t at = i * 16, left = count > at ? count - at : 0;
        __mmask16 mask = left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
        v[i] = _mm512_maskz_loadu_ps(mask, x + at);
        broken |= _mm512_cmp_ps_mask(v[i], v[i], _CMP_UNORD_Q);
        amax = _mm512_max_ps(_mm512_abs_ps(v[i]), amax); /* a NaN leaves amax */
    }
    float most = _mm512_reduce_max_ps(amax);
    __m512 inverse = _mm512_set1_ps(most > 0 && !broken ? BT_INT8_MAX / most : 0);
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t i = 0; i < 8; i++) {
        __m512 scaled = _mm512_mul_ps(v[i], inverse);
        __mmask16 number = _mm512_cmp_ps_mask(scaled, scaled, _CMP_ORD_Q);
        __m512i codes = _mm512_maskz_cvtps_epi32(number, scaled);
        sum = _mm512_add_epi32(sum, codes);
        _mm_storeu_si128((__m128i *)(ret_codes + i * 4), _mm512_cvtepi32_epi8(codes));
    }
    *ret_scale = broken ? NAN : most / BT_INT8_MAX;
    *ret_offset = 128 * _mm512_reduce_add_epi32(sum);
}

static void pack_x(const float *x, uint32_t x_stride, uint32_t m, uint32_t k, uint32_t first,
                   uint32_t end, void *ret_x)
{
    uint32_t groups = int8_groups(k);
    for (uint32_t row = first * BT_LINEAR_TILE; row < end * BT_LINEAR_TILE && row < m; row++) {
        uint32_t tile_row = row / BT_LINEAR_TILE * BT_LINEAR_TILE, i = row - tile_row;
        uint32_t rows = min_u32(m - tile_row, BT_LINEAR_TILE);
        int32_t *at = (int32_t *)ret_x + groups * int8_group_words(tile_row, 1);
        for (uint32_t l = 0; l < k; l += BT_LINEAR_GROUP, at += int8_group_words(rows, 1)) {
            int32_t codes[INT8_QUADS];
            float scale;
            encode_group(x + (size_t)row * x_stride + l, min_u32(k - l, BT_LINEAR_GROUP), codes,
                         &scale, at + (INT8_QUADS + 1) * rows + i);
            memcpy(at + INT8_QUADS * rows + i, &scale, sizeof(scale));
            for (uint32_t quad = 0; quad < INT8_QUADS; quad++) at[quad * rows + i] = codes[quad];
        }
    }
}

const bt_linear_ops bt_linear_int8_avx512 = {
    .tile_rows = BT_LINEAR_TILE, .x_bytes = x_bytes, .pack_x = pack_x, .run = run};
