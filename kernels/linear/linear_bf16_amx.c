/* linear_bf16_amx.c - TDPBF16PS: 16 rows by 16 columns by 32 k in one instruction.
 *
 * Two tiles of rows by a panel (two tiles of columns) are four accumulators; one tile of rows, as
 * decode has, takes two panels. 512 k of a panel (32 KiB) stay in the first-level cache while the
 * rows pass; between blocks of k the accumulators rest in y, which keeps one chain of additions.
 *
 * 2 cores of a Xeon (Sapphire Rapids), other work on it, 2026-11-23: 0.8 to 1.7 TFLOP/s for 64 to
 * 1,000 rows, 4 to 10 times sgemm of OpenBLAS in the same run; the unit itself does 1.8 a core. Not
 * tried: prefetching the next panel while the rows pass.
 *
 * X  Tiles of 16 rows: for each 32 k [16][32] bf16, zeros beyond m and k. */
#include "kernels/linear/linear.h"

#include "kernels/avx2.h"

#include <assert.h>

#define ROWS 16u
#define STEP 32u
#define STEP_BYTES (ROWS * STEP * sizeof(uint16_t)) /* of x, and of half a panel */
#define BLOCK_STEPS 16u
/* Of packed x that stays in the second-level cache while all panels pass. */
#define BLOCK_ROWS 512u

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

_Static_assert(sizeof(tile_config) == 64, "the layout that LDTILECFG reads");

/* Where one accumulator of 16 x 16 lies in y. */
typedef struct {
    float *y;
    uint32_t stride, rows, columns; /* that exist: 0 .. 16 */
} corner;

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static corner corner_at(const bt_linear *op, uint32_t row, uint32_t column)
{
    return (corner){.y = op->y + (size_t)row * op->y_stride + column,
                    .stride = op->y_stride,
                    .rows = row < op->m ? min_u32(op->m - row, ROWS) : 0,
                    .columns = column < op->w->n ? min_u32(op->w->n - column, 16) : 0};
}

static bool is_whole(const corner *c)
{
    return c->rows == ROWS && c->columns == 16;
}

/* An accumulator at the edge of y goes through room [16][16]. */
static void *fetch(const corner *c, float *room, size_t *ret_stride)
{
    *ret_stride = (size_t)c->stride * sizeof(float);
    if (is_whole(c)) return c->y;
    *ret_stride = 16 * sizeof(float);
    for (uint32_t i = 0; i < c->rows; i++)
        memcpy(room + (size_t)i * 16, c->y + (size_t)i * c->stride, c->columns * sizeof(float));
    return room;
}

static void put_back(const corner *c, const float *room)
{
    if (is_whole(c)) return;
    for (uint32_t i = 0; i < c->rows; i++)
        memcpy(c->y + (size_t)i * c->stride, room + (size_t)i * 16, c->columns * sizeof(float));
}

static void *target(const corner *c, float *room, size_t *ret_stride)
{
    *ret_stride = is_whole(c) ? (size_t)c->stride * sizeof(float) : 16 * sizeof(float);
    return is_whole(c) ? (void *)c->y : room;
}

/* A tile's number is part of the instruction. */
#define BEGIN(number, c)                                                                           \
    do {                                                                                           \
        if (add) {                                                                                 \
            const void *from = fetch(&(c), room, &stride);                                         \
            _tile_loadd(number, from, stride);                                                     \
        } else {                                                                                   \
            _tile_zero(number);                                                                    \
        }                                                                                          \
    } while (0)
#define END(number, c)                                                                             \
    do {                                                                                           \
        void *to = target(&(c), room, &stride);                                                    \
        _tile_stored(number, to, stride);                                                          \
        put_back(&(c), room);                                                                      \
    } while (0)

/* Two tiles of rows by one panel. */
static void block_2x2(const corner c[4], const uint8_t *a0, const uint8_t *a1, const uint8_t *b,
                      uint32_t steps, bool add)
{
    _Alignas(64) float room[256];
    size_t stride;
    BEGIN(0, c[0]);
    BEGIN(1, c[1]);
    BEGIN(2, c[2]);
    BEGIN(3, c[3]);
    for (uint32_t s = 0; s < steps; s++) {
        _tile_loadd(4, a0, 64);
        _tile_loadd(6, b, 128);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + 64, 128);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a1, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        a0 += STEP_BYTES;
        a1 += STEP_BYTES;
        b += 2 * STEP_BYTES;
    }
    END(0, c[0]);
    END(1, c[1]);
    END(2, c[2]);
    END(3, c[3]);
}

/* One tile of rows by two panels, or by one: then b1 is b0 and c[2], c[3] are empty. */
static void block_1x4(const corner c[4], const uint8_t *a, const uint8_t *b0, const uint8_t *b1,
                      uint32_t steps, bool add)
{
    _Alignas(64) float room[256];
    size_t stride;
    BEGIN(0, c[0]);
    BEGIN(1, c[1]);
    BEGIN(2, c[2]);
    BEGIN(3, c[3]);
    for (uint32_t s = 0; s < steps; s++) {
        for (uint32_t line = 0; line < 2 * STEP_BYTES; line += 64) {
            _mm_prefetch((const char *)b0 + 4096 + line, _MM_HINT_T0);
            if (b1 != b0) _mm_prefetch((const char *)b1 + 4096 + line, _MM_HINT_T0);
        }
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b0, 128);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b0 + 64, 128);
        _tile_dpbf16ps(1, 4, 7);
        if (b1 != b0) {
            _tile_loadd(6, b1, 128);
            _tile_dpbf16ps(2, 4, 6);
            _tile_loadd(7, b1 + 64, 128);
            _tile_dpbf16ps(3, 4, 7);
        }
        a += STEP_BYTES;
        b0 += 2 * STEP_BYTES;
        b1 += 2 * STEP_BYTES;
    }
    END(0, c[0]);
    END(1, c[1]);
    END(2, c[2]);
    END(3, c[3]);
}

/* The panels [panel, +panels) in front of one tile of rows, whole k. */
static void few(const bt_linear *op, uint32_t panel, uint32_t panels)
{
    const bt_linear_weights *w = op->w;
    size_t panel_bytes = bt_linear_panel_bytes(BT_DTYPE_BF16, w->k);
    const uint8_t *b0 = (const uint8_t *)w->panels + panel * panel_bytes;
    corner c[4];
    for (uint32_t i = 0; i < 4; i++) {
        c[i] = corner_at(op, 0, panel * BT_LINEAR_PANEL + 16 * i);
        if (i / 2 >= panels) c[i].rows = 0;
    }
    block_1x4(c, op->x, b0, panels == 2 ? b0 + panel_bytes : b0, (w->k + STEP - 1) / STEP, false);
}

/* The rows [row, end) against the steps [step, +steps) of one panel. */
static void rows_of_panel(const bt_linear *op, uint32_t row, uint32_t end, uint32_t panel,
                          uint32_t step, uint32_t steps)
{
    const bt_linear_weights *w = op->w;
    uint32_t all_steps = (w->k + STEP - 1) / STEP, column = panel * BT_LINEAR_PANEL;
    const uint8_t *b = (const uint8_t *)w->panels +
                       panel * bt_linear_panel_bytes(BT_DTYPE_BF16, w->k) + step * 2 * STEP_BYTES;
    for (; row < end; row += 2 * ROWS) {
        const uint8_t *a0 =
            (const uint8_t *)op->x + ((size_t)(row / ROWS) * all_steps + step) * STEP_BYTES;
        corner c[4] = {corner_at(op, row, column), corner_at(op, row, column + 16),
                       corner_at(op, row + ROWS, column), corner_at(op, row + ROWS, column + 16)};
        if (row + ROWS < end) {
            block_2x2(c, a0, a0 + (size_t)all_steps * STEP_BYTES, b, steps, step > 0);
        } else {
            c[2].rows = c[3].rows = 0;
            block_1x4(c, a0, b, b, steps, step > 0);
        }
    }
}

static void many(const bt_linear *op, uint32_t first, uint32_t end)
{
    uint32_t all_steps = (op->w->k + STEP - 1) / STEP;
    for (uint32_t row = 0; row < op->m; row += BLOCK_ROWS) {
        uint32_t row_end = min_u32(op->m, row + BLOCK_ROWS);
        for (uint32_t step = 0; step < all_steps; step += BLOCK_STEPS)
            for (uint32_t panel = first; panel < end; panel++)
                rows_of_panel(op, row, row_end, panel, step,
                              min_u32(all_steps - step, BLOCK_STEPS));
    }
}

static void run(const bt_linear *op, uint32_t first, uint32_t end, void *scratch)
{
    (void)scratch;
    assert(first <= end && end <= bt_linear_panels(op->w->n));
    tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = ROWS;
    }
    _tile_loadconfig(&config);
    if (op->m <= ROWS)
        for (uint32_t panel = first; panel < end; panel += 2)
            few(op, panel, min_u32(end - panel, 2));
    else
        many(op, first, end);
    _tile_release();
}

static size_t x_bytes(uint32_t m, uint32_t k)
{
    size_t tiles = m / ROWS + (m % ROWS != 0), steps = k / STEP + (k % STEP != 0);
    return tiles * steps * STEP_BYTES;
}

/* bt_f32_to_bf16 of 16 values. */
BT_INLINE __m256i round16(__m512 x)
{
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    __m512i nan = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    rounded = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), nan);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

/* One row of up to 32 k of x, zeros after them. */
BT_INLINE void pack_step(const float *x, uint32_t count, uint16_t *ret)
{
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t left = count > half * 16 ? count - half * 16 : 0;
        __mmask16 mask = left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
        _mm256_store_si256((__m256i *)ret + half,
                           round16(_mm512_maskz_loadu_ps(mask, x + half * 16)));
    }
}

static void pack_x(const float *x, uint32_t x_stride, uint32_t m, uint32_t k, uint32_t first,
                   uint32_t end, void *ret_x)
{
    uint32_t steps = (k + STEP - 1) / STEP;
    for (uint32_t row = first * ROWS; row < end * ROWS; row++) {
        uint16_t *at = (uint16_t *)((uint8_t *)ret_x + (size_t)(row / ROWS) * steps * STEP_BYTES) +
                       row % ROWS * STEP;
        for (uint32_t step = 0; step < steps; step++, at += ROWS * STEP) {
            uint32_t l = step * STEP;
            if (row < m)
                pack_step(x + (size_t)row * x_stride + l, min_u32(k - l, STEP), at);
            else
                memset(at, 0, STEP * sizeof(uint16_t));
        }
    }
}

const bt_linear_ops bt_linear_bf16_amx = {
    .tile_rows = ROWS, .x_bytes = x_bytes, .pack_x = pack_x, .run = run};
