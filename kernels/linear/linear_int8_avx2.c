/* linear_int8_avx2.c - VPMADDWD on bytes widened to 16 bits: VPMADDUBSW would saturate.
 *
 * The even and the odd bytes of four k are multiplied apart; x is packed as the pairs that they
 * meet, two words for each four k. A tile of 4 rows by 16 columns in 8 registers of integers. */
#include "kernels/linear/linear_int8.h"

#include "kernels/avx2.h"

#define WORDS 2u
#define AHEAD_BYTES 2048u

/* The rows of a tile of `step` rows, from `first` on. */
typedef struct {
    const int32_t *tile;
    uint32_t step, first;
} x_rows;

/* One group of k of up to 4 rows and a panel. */
typedef struct {
    const uint8_t *w;                 /* at the group */
    x_rows x;                         /* at the group */
    float total[4 * BT_LINEAR_PANEL]; /* [rows][32] */
} int8_tile;

/* room: [rows][vectors][8], the sums of this group from column 8 eighth on. */
static void add_scaled(int8_tile *t, uint32_t rows, uint32_t eighth, uint32_t vectors,
                       const int32_t *room)
{
    const float *w_scales = (const float *)(t->w + BT_LINEAR_GROUP * BT_LINEAR_PANEL);
    const float *x_scales = (const float *)(t->x.tile + (size_t)INT8_QUADS * WORDS * t->x.step);
    for (uint32_t i = 0; i < rows; i++) {
        __m256 x_scale = _mm256_set1_ps(x_scales[t->x.first + i]);
        for (uint32_t c = 0; c < vectors; c++, room += 8) {
            float *total = t->total + i * BT_LINEAR_PANEL + (eighth + c) * 8;
            __m256 scale = _mm256_mul_ps(x_scale, _mm256_load_ps(w_scales + (eighth + c) * 8));
            __m256 sum = _mm256_cvtepi32_ps(_mm256_load_si256((const __m256i *)room));
            _mm256_storeu_ps(total, _mm256_fmadd_ps(sum, scale, _mm256_loadu_ps(total)));
        }
    }
}

/* `vectors` of 8 columns from column 8 eighth on; rows and vectors are constants at each use. */
BT_INLINE void take_group(int8_tile *t, uint32_t rows, uint32_t eighth, uint32_t vectors)
{
    const __m256i low = _mm256_set1_epi16(0xff);
    uint32_t step = t->x.step;
    const int32_t *x = t->x.tile + (size_t)t->x.first * WORDS;
    const int32_t *offsets = t->x.tile + ((size_t)INT8_QUADS * WORDS + 1) * step + t->x.first;
    const __m256i *w = (const __m256i *)t->w + eighth;
    __m256i sum[4][4];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < vectors; c++) sum[i][c] = _mm256_set1_epi32(-offsets[i]);
    for (uint32_t quad = 0; quad < INT8_QUADS; quad++, w += 4, x += (size_t)WORDS * step) {
        if (rows == 1) {
            _mm_prefetch((const char *)w + AHEAD_BYTES, _MM_HINT_T0);
            _mm_prefetch((const char *)w + AHEAD_BYTES + 64, _MM_HINT_T0);
        }
        for (uint32_t c = 0; c < vectors; c++) {
            __m256i codes = _mm256_load_si256(w + c);
            __m256i even = _mm256_and_si256(codes, low), odd = _mm256_srli_epi16(codes, 8);
            for (uint32_t i = 0; i < rows; i++) {
                __m256i x_even = _mm256_set1_epi32(x[i * WORDS]);
                __m256i x_odd = _mm256_set1_epi32(x[i * WORDS + 1]);
                sum[i][c] = _mm256_add_epi32(sum[i][c], _mm256_madd_epi16(even, x_even));
                sum[i][c] = _mm256_add_epi32(sum[i][c], _mm256_madd_epi16(odd, x_odd));
            }
        }
    }
    /* A loop small enough to be unrolled: gcc 12 keeps sums in memory that a larger one names. */
    _Alignas(32) int32_t room[8 * 8];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t c = 0; c < vectors; c++)
            _mm256_store_si256((__m256i *)room + i * vectors + c, sum[i][c]);
    add_scaled(t, rows, eighth, vectors, room);
}

static void take_any_group(int8_tile *t, uint32_t rows)
{
    switch (rows) {
    case 1: take_group(t, 1, 0, 4); return;
    case 2: take_group(t, 2, 0, 4); return;
    case 3:
        take_group(t, 3, 0, 2);
        take_group(t, 3, 2, 2);
        return;
    default:
        take_group(t, 4, 0, 2);
        take_group(t, 4, 2, 2);
        return;
    }
}

/* Up to 4 rows of one panel. */
static void rows4(const bt_linear *op, const uint8_t *w, x_rows x, uint32_t rows, float *y,
                  uint32_t columns)
{
    int8_tile t = {.w = w, .x = x};
    for (uint32_t group = int8_groups(op->w->k); group > 0; group--) {
        take_any_group(&t, rows);
        t.w += INT8_GROUP_BYTES;
        t.x.tile += int8_group_words(x.step, WORDS);
    }
    for (uint32_t i = 0; i < rows; i++)
        memcpy(y + (size_t)i * op->y_stride, t.total + i * BT_LINEAR_PANEL,
               columns * sizeof(float));
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Up to 12 rows of one panel. */
static void one_tile(const bt_linear *op, const uint8_t *w, uint32_t row, float *y,
                     uint32_t columns)
{
    x_rows x = {int8_tile_at(op, row, WORDS), min_u32(op->m - row, BT_LINEAR_TILE), 0};
    for (; x.first < x.step; x.first += 4, y += 4 * (size_t)op->y_stride)
        rows4(op, w, x, min_u32(x.step - x.first, 4), y, columns);
}

static void run(const bt_linear *op, uint32_t first, uint32_t end, void *scratch)
{
    (void)scratch;
    assert(first <= end && end <= bt_linear_panels(op->w->n));
    const bt_linear_weights *w = op->w;
    size_t panel_bytes = bt_linear_panel_bytes(BT_DTYPE_INT8, w->k);
    uint32_t rows = (uint32_t)(INT8_X_BYTES / int8_x_bytes(BT_LINEAR_TILE, w->k, WORDS) + 1);
    rows *= BT_LINEAR_TILE;
    for (uint32_t block = 0; block < op->m; block += rows) {
        uint32_t block_end = min_u32(op->m, block + rows);
        for (uint32_t panel = first; panel < end; panel++) {
            uint32_t column = panel * BT_LINEAR_PANEL;
            for (uint32_t row = block; row < block_end; row += BT_LINEAR_TILE)
                one_tile(op, (const uint8_t *)w->panels + panel * panel_bytes, row,
                         op->y + (size_t)row * op->y_stride + column,
                         min_u32(BT_LINEAR_PANEL, w->n - column));
        }
    }
}

static size_t x_bytes(uint32_t m, uint32_t k)
{
    return int8_x_bytes(m, k, WORDS);
}

/* 128 values, those from `count` on zero, to codes, scale and offset. */
BT_INLINE void encode_group(const float *x, uint32_t count, int16_t ret_codes[BT_LINEAR_GROUP],
                            float *ret_scale, int32_t *ret_offset)
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    float padded[BT_LINEAR_GROUP] = {0};
    memcpy(padded, x, count * sizeof(float));
    __m256 amax = _mm256_setzero_ps(), broken = _mm256_setzero_ps();
    for (uint32_t i = 0; i < BT_LINEAR_GROUP; i += 8) {
        __m256 v = _mm256_loadu_ps(padded + i);
        broken = _mm256_or_ps(broken, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        amax = _mm256_max_ps(_mm256_and_ps(v, magnitude), amax); /* a NaN leaves amax */
    }
    float most = max1(amax);
    bool no_number = _mm256_movemask_ps(broken) != 0;
    __m256 inverse = _mm256_set1_ps(most > 0 && !no_number ? BT_INT8_MAX / most : 0);
    int32_t sum = 0;
    for (uint32_t i = 0; i < BT_LINEAR_GROUP; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(padded + i), inverse);
        v = _mm256_and_ps(v, _mm256_cmp_ps(v, v, _CMP_ORD_Q));
        __m256i codes = _mm256_cvtps_epi32(v);
        __m128i half =
            _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
        _mm_storeu_si128((__m128i *)(ret_codes + i), half);
    }
    for (uint32_t l = 0; l < BT_LINEAR_GROUP; l++) sum += ret_codes[l];
    *ret_scale = no_number ? NAN : most / BT_INT8_MAX;
    *ret_offset = 128 * sum;
}

static void pack_x(const float *x, uint32_t x_stride, uint32_t m, uint32_t k, uint32_t first,
                   uint32_t end, void *ret_x)
{
    uint32_t groups = int8_groups(k);
    for (uint32_t row = first * BT_LINEAR_TILE; row < end * BT_LINEAR_TILE && row < m; row++) {
        uint32_t tile_row = row / BT_LINEAR_TILE * BT_LINEAR_TILE, i = row - tile_row;
        uint32_t rows = min_u32(m - tile_row, BT_LINEAR_TILE);
        int32_t *at = (int32_t *)ret_x + groups * int8_group_words(tile_row, WORDS);
        for (uint32_t l = 0; l < k; l += BT_LINEAR_GROUP, at += int8_group_words(rows, WORDS)) {
            int16_t codes[BT_LINEAR_GROUP];
            float scale;
            int32_t *ends = at + (size_t)INT8_QUADS * WORDS * rows;
            encode_group(x + (size_t)row * x_stride + l, min_u32(k - l, BT_LINEAR_GROUP), codes,
                         &scale, ends + rows + i);
            memcpy(ends + i, &scale, sizeof(scale));
            for (uint32_t quad = 0; quad < INT8_QUADS; quad++) {
                const int16_t *c = codes + quad * 4;
                const int16_t pairs[4] = {c[0], c[2], c[1], c[3]};
                memcpy(at + ((size_t)quad * rows + i) * WORDS, pairs, sizeof(pairs));
            }
        }
    }
}

const bt_linear_ops bt_linear_int8_avx2 = {
    .tile_rows = BT_LINEAR_TILE, .x_bytes = x_bytes, .pack_x = pack_x, .run = run};
