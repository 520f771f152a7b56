/* test_linear.c - packed matrices: every row of the kernel table against the reference, the same
 * bits whatever is computed beside an element, and the same bits from every kind of CPU. */
#include "tests/kernels/shapes.h"

static const uint32_t widths[] = {1, 2, 7, 9, 64, 172, 255, 256, 257, 767, 1024};
static const uint32_t rows_of[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 24, 31};
static const uint32_t columns_of[] = {1, 16, 31, 32, 37, 64, 129, 300};

typedef struct {
    float *x, *y;
    void *room, *panels, *packed_x, *scratch;
    const void *rows; /* the matrix as a checkpoint has it */
    bt_linear_weights w;
    uint32_t m;
} fixture;

static void *aligned(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 127) & ~(size_t)63);
    assert_non_null(memory);
    memset(memory, 0, (bytes + 127) & ~(size_t)63);
    return memory;
}

static void pack_all(fixture *f, bt_dtype from)
{
    uint32_t panels = bt_linear_panels(f->w.n), half = panels / 2;
    bt_linear_pack(f->panels, f->w.dtype, f->w.k, 0, f->rows, from, f->w.n, 0, half);
    bt_linear_pack(f->panels, f->w.dtype, f->w.k, 0, f->rows, from, f->w.n, half, panels);
}

/* The most that any row of the table packs m rows into. */
static size_t x_bytes(bt_compute compute, uint32_t m, uint32_t k)
{
    size_t most = 0;
    for (unsigned v = 0; v < bt_kernels_row_count; v++) {
        const bt_linear_ops *ops = bt_kernels_rows[v]->linear[compute];
        if (ops && ops->x_bytes(m, k) > most) most = ops->x_bytes(m, k);
    }
    return most;
}

static fixture fixture_make(bt_rng *rng, bt_compute compute, bt_dtype from, bt_dtype dtype,
                            uint32_t m, uint32_t n, uint32_t k)
{
    fixture f = {.x = random_floats(rng, (size_t)m * k),
                 .y = random_floats(rng, (size_t)m * n),
                 .panels = aligned(bt_linear_bytes(dtype, n, k)),
                 .packed_x = aligned(x_bytes(compute, m, k)),
                 .scratch = aligned(BT_LINEAR_SCRATCH_BYTES),
                 .m = m};
    f.rows = random_weights(rng, from, (size_t)n * k, &f.room);
    f.w = (bt_linear_weights){.panels = f.panels, .dtype = dtype, .n = n, .k = k};
    pack_all(&f, from);
    return f;
}

static void fixture_free(fixture *f)
{
    free(f->x);
    free(f->y);
    free(f->room);
    free(f->panels);
    free(f->packed_x);
    free(f->scratch);
}

/* m rows of x from `row` on, the panels [first, end), into y with rows of n. */
static void run(fixture *f, const bt_linear_ops *ops, uint32_t row, uint32_t m, uint32_t first,
                uint32_t end, float *y)
{
    uint32_t tiles = bt_linear_tiles(ops, m);
    const float *x = f->x + (size_t)row * f->w.k;
    ops->pack_x(x, f->w.k, m, f->w.k, tiles / 2, tiles, f->packed_x);
    ops->pack_x(x, f->w.k, m, f->w.k, 0, tiles / 2, f->packed_x);
    const bt_linear op = {.w = &f->w, .x = f->packed_x, .y = y, .m = m, .y_stride = f->w.n};
    ops->run(&op, first, end, f->scratch);
}

/* Every row of the table over one shape: in f32 near the reference and one another's bits, else
 * the reference's bits. */
static void check_shape(bt_rng *rng, bt_compute compute, bt_dtype from, bt_dtype dtype, uint32_t m,
                        uint32_t n, uint32_t k)
{
    fixture f = fixture_make(rng, compute, from, dtype, m, n, k);
    size_t count = (size_t)m * n;
    float *expected = random_floats(rng, count), *bits = NULL;
    run(&f, bt_kernels_find("ref")->linear[compute], 0, m, 0, bt_linear_panels(n), expected);
    if (compute != BT_COMPUTE_F32) bits = expected;
    for (unsigned v = 0; v < bt_kernels_row_count; v++) {
        const bt_kernels *row = bt_kernels_rows[v];
        if (!row->supported() || strcmp(row->name, "ref") == 0) continue;
        float *y = random_floats(rng, count);
        run(&f, row->linear[compute], 0, m, 0, bt_linear_panels(n), y);
        if (compute == BT_COMPUTE_F32)
            for (size_t i = 0; i < count; i++) assert_near(y[i], expected[i], k * 0x1p-24 * 4);
        if (bits && memcmp(y, bits, count * sizeof(float)) != 0)
            fail_msg("%s, %s, m %u n %u k %u: not the same bits", row->name,
                     bt_compute_names[compute], m, n, k);
        if (bits != expected) free(bits);
        if (bits == expected)
            free(y);
        else
            bits = y;
    }
    if (bits != expected) free(bits);
    free(expected);
    fixture_free(&f);
}

static void test_variants_agree_with_the_reference_and_bitwise(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t d = 0; d < COUNT(shape_weight_dtypes); d++)
        for (size_t w = 0; w < COUNT(widths); w++)
            for (size_t r = 0; r < COUNT(rows_of); r++) {
                bt_dtype from = shape_weight_dtypes[d];
                uint32_t n = columns_of[(w + r) % COUNT(columns_of)];
                for (int compute = 0; compute < BT_COMPUTE_COUNT; compute++) {
                    bt_dtype dtype = bt_linear_dtype((bt_compute)compute, from);
                    check_shape(&rng, (bt_compute)compute, from, dtype, rows_of[r], n, widths[w]);
                }
                if (r % 4 == 0) /* tensors of two dtypes meet in f32 */
                    check_shape(&rng, BT_COMPUTE_F32, from, BT_DTYPE_F32, rows_of[r], n, widths[w]);
            }
}

/* The reference against products of the tensor's own numbers. */
static void test_the_reference_is_near_the_exact_product(void **state)
{
    (void)state;
    enum { M = 5, N = 37, K = 300 };
    /* Per product: none; half a unit of bf16 on either side; half a step of 127 on either side. */
    static const double bounds[] = {0, 2 * 0x1p-8, 2 / 254.0};
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (int compute = 0; compute < BT_COMPUTE_COUNT; compute++) {
        bt_dtype dtype = bt_linear_dtype((bt_compute)compute, BT_DTYPE_F32);
        fixture f = fixture_make(&rng, (bt_compute)compute, BT_DTYPE_F32, dtype, M, N, K);
        run(&f, bt_kernels_find("ref")->linear[compute], 0, M, 0, bt_linear_panels(N), f.y);
        float *expected = random_floats(&rng, (size_t)M * N);
        const bt_matmul op = {.x = f.x,
                              .w = f.rows,
                              .y = expected,
                              .w_dtype = BT_DTYPE_F32,
                              .m = M,
                              .n = N,
                              .k = K,
                              .x_stride = K,
                              .y_stride = N};
        bt_matmul_ref(&op, 0, N);
        /* Errors have both signs: over 300 products their sum is far below 300 of them. */
        for (size_t i = 0; i < (size_t)M * N; i++)
            assert_near(f.y[i], expected[i], bounds[compute] * K / 8 + 1e-5);
        free(expected);
        fixture_free(&f);
    }
}

/* Numbers that are none may not turn into numbers: the engine looks for them in the logits. */
static void test_nan_and_infinity_stay(void **state)
{
    (void)state;
    enum { M = 3, N = 33, K = 140 };
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (int compute = 0; compute < BT_COMPUTE_COUNT; compute++) {
        for (unsigned v = 0; v < bt_kernels_row_count; v++) {
            if (!bt_kernels_rows[v]->supported()) continue;
            bt_dtype dtype = bt_linear_dtype((bt_compute)compute, BT_DTYPE_F32);
            fixture f = fixture_make(&rng, (bt_compute)compute, BT_DTYPE_F32, dtype, M, N, K);
            f.x[7] = NAN;
            f.x[2 * K + 131] = -INFINITY;
            run(&f, bt_kernels_rows[v]->linear[compute], 0, M, 0, bt_linear_panels(N), f.y);
            for (uint32_t j = 0; j < N; j++) {
                assert_true(isnan(f.y[j]) && isfinite(f.y[N + j]) && !isfinite(f.y[2 * N + j]));
            }
            fixture_free(&f);
        }
    }
}

/* Any rows, any panels, beside any others, give the bits that all at once give. */
static void check_tiling(bt_rng *rng, const bt_kernels *row, bt_compute compute, bt_dtype from)
{
    enum { M = 509, N = 137, K = 523 };
    bool slow = strcmp(row->name, "ref") == 0;
    const bt_linear_ops *ops = row->linear[compute];
    uint32_t all = slow ? 40 : M;
    fixture f = fixture_make(rng, compute, from, bt_linear_dtype(compute, from), M, N, K);
    float *part = random_floats(rng, (size_t)M * N);
    run(&f, ops, 0, all, 0, bt_linear_panels(N), f.y);
    for (int round = 0; round < (slow ? 5 : 40); round++) {
        uint32_t at = (uint32_t)bt_rng_below(rng, all), most = round % 2 ? 26 : all;
        uint32_t m = 1 + (uint32_t)bt_rng_below(rng, all - at < most ? all - at : most);
        uint32_t first = (uint32_t)bt_rng_below(rng, bt_linear_panels(N));
        uint32_t end = first + 1 + (uint32_t)bt_rng_below(rng, bt_linear_panels(N) - first);
        uint32_t column = first * BT_LINEAR_PANEL;
        uint32_t column_end = end * BT_LINEAR_PANEL < N ? end * BT_LINEAR_PANEL : N;
        run(&f, ops, at, m, first, end, part);
        for (uint32_t i = 0; i < m; i++)
            assert_memory_equal(part + (size_t)i * N + column, f.y + (size_t)(at + i) * N + column,
                                (column_end - column) * sizeof(float));
    }
    free(part);
    fixture_free(&f);
}

static void test_tiling_changes_no_bit(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t d = 0; d < COUNT(shape_weight_dtypes); d++)
        for (unsigned v = 0; v < bt_kernels_row_count; v++)
            for (int compute = 0; compute < BT_COMPUTE_COUNT; compute++)
                if (bt_kernels_rows[v]->supported())
                    check_tiling(&rng, bt_kernels_rows[v], (bt_compute)compute,
                                 shape_weight_dtypes[d]);
}

static void test_nothing_outside_the_panels_is_written(void **state)
{
    (void)state;
    enum { M = 14, N = 70, K = 40 };
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    fixture f = fixture_make(&rng, BT_COMPUTE_F32, BT_DTYPE_BF16, BT_DTYPE_BF16, M, N, K);
    float *y = random_floats(&rng, (size_t)M * N), *before = random_floats(&rng, (size_t)M * N);
    for (unsigned v = 0; v < bt_kernels_row_count; v++) {
        if (!bt_kernels_rows[v]->supported()) continue;
        for (uint32_t m = 1; m < M; m++) {
            memcpy(before, y, (size_t)M * N * sizeof(float));
            run(&f, bt_kernels_rows[v]->linear[0], 0, m, 2, 3, y); /* the 6 columns 64 .. 69 */
            for (uint32_t i = 0; i < M; i++)
                assert_memory_equal(y + (size_t)i * N, before + (size_t)i * N,
                                    (i < m ? 64 : N) * sizeof(float));
        }
    }
    free(y);
    free(before);
    fixture_free(&f);
}

/* Two tensors side by side in one matrix, the second from the middle of a panel on. */
static void test_tensors_lie_side_by_side(void **state)
{
    (void)state;
    enum { FIRST = 40, SECOND = 50, K = 33, N = FIRST + SECOND };
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    void *room[2], *panels = aligned(bt_linear_bytes(BT_DTYPE_BF16, N, K));
    const uint8_t *first = random_weights(&rng, BT_DTYPE_BF16, FIRST * K, &room[0]);
    const uint8_t *second = random_weights(&rng, BT_DTYPE_BF16, SECOND * K, &room[1]);
    for (uint32_t panel = 0; panel < 3; panel++) {
        bt_linear_pack(panels, BT_DTYPE_BF16, K, 0, first, BT_DTYPE_BF16, FIRST, panel, panel + 1);
        bt_linear_pack(panels, BT_DTYPE_BF16, K, FIRST, second, BT_DTYPE_BF16, SECOND, panel,
                       panel + 1);
    }
    for (uint32_t column = 0; column < 96; column++) {
        const uint16_t *panel =
            (const uint16_t *)panels + column / 32 * bt_linear_panel_bytes(BT_DTYPE_BF16, K) / 2;
        for (uint32_t l = 0; l < K; l++) {
            uint16_t expected = 0;
            if (column < FIRST)
                memcpy(&expected, first + (column * K + l) * 2, 2);
            else if (column < N)
                memcpy(&expected, second + ((column - FIRST) * K + l) * 2, 2);
            assert_int_equal(panel[(l / 2 * 32 + column % 32) * 2 + l % 2], expected);
        }
    }
    free(room[0]);
    free(room[1]);
    free(panels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variants_agree_with_the_reference_and_bitwise),
        cmocka_unit_test(test_the_reference_is_near_the_exact_product),
        cmocka_unit_test(test_nan_and_infinity_stay),
        cmocka_unit_test(test_tiling_changes_no_bit),
        cmocka_unit_test(test_nothing_outside_the_panels_is_written),
        cmocka_unit_test(test_tensors_lie_side_by_side),
    };
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
