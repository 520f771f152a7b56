/* test_matmul.c - every row of the kernel table against the reference, and the promise that a result
 * depends on its row and column only. */
#include "tests/kernels/shapes.h"

#define N 37u          /* columns: whole tiles and every remainder */
#define MANY_ROWS 181u /* of 767: more than the variants take through all columns at once */

typedef struct {
    float *x, *expected, *y;
    void *room;
    bt_matmul op;
} fixture;

static fixture fixture_make(bt_rng *rng, bt_dtype dtype, uint32_t rows, uint32_t width)
{
    fixture f = {.x = random_floats(rng, (size_t)rows * width),
                 .expected = random_floats(rng, (size_t)rows * N),
                 .y = random_floats(rng, (size_t)rows * N)};
    const void *w = random_weights(rng, dtype, (size_t)N * width, &f.room);
    f.op = (bt_matmul){.x = f.x,
                       .w = w,
                       .y = f.y,
                       .w_dtype = dtype,
                       .m = rows,
                       .n = N,
                       .k = width,
                       .x_stride = width,
                       .y_stride = N};
    return f;
}

static void fixture_free(fixture *f)
{
    free(f->x);
    free(f->expected);
    free(f->y);
    free(f->room);
}

static void test_variants_agree_with_the_reference(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t d = 0; d < COUNT(shape_weight_dtypes); d++) {
        for (size_t r = 0; r < COUNT(shape_rows); r++) {
            for (size_t w = 0; w < COUNT(shape_widths); w++) {
                fixture f =
                    fixture_make(&rng, shape_weight_dtypes[d], shape_rows[r], shape_widths[w]);
                bt_matmul reference = f.op;
                reference.y = f.expected;
                bt_matmul_ref(&reference, 0, N);
                for (unsigned v = 0; v < bt_kernels_row_count; v++) {
                    if (!bt_kernels_rows[v]->supported()) continue;
                    bt_kernels_rows[v]->matmul(&f.op, 0, N);
                    for (size_t i = 0; i < (size_t)shape_rows[r] * N; i++)
                        assert_near(f.y[i], f.expected[i], shape_widths[w] * 0x1p-24 * 4);
                }
                fixture_free(&f);
            }
        }
    }
}

/* One row alone, any range of columns, and all at once give the same bits. */
static void test_tiling_changes_no_bit(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t d = 0; d < COUNT(shape_weight_dtypes); d++) {
        fixture f = fixture_make(&rng, shape_weight_dtypes[d], MANY_ROWS, 767);
        for (unsigned v = 0; v < bt_kernels_row_count; v++) {
            if (!bt_kernels_rows[v]->supported()) continue;
            bt_matmul_fn *matmul = bt_kernels_rows[v]->matmul;
            matmul(&f.op, 0, N);
            for (int round = 0; round < 20; round++) {
                uint32_t row = (uint32_t)bt_rng_below(&rng, MANY_ROWS);
                uint32_t rows = 1 + (uint32_t)bt_rng_below(&rng, MANY_ROWS - row);
                uint32_t first = (uint32_t)bt_rng_below(&rng, N);
                uint32_t end = first + 1 + (uint32_t)bt_rng_below(&rng, N - first);
                bt_matmul part = f.op;
                part.x += (size_t)row * 767;
                part.y = f.expected;
                part.m = rows;
                matmul(&part, first, end);
                for (uint32_t i = 0; i < rows; i++)
                    assert_memory_equal(f.expected + (size_t)i * N + first,
                                        f.y + (size_t)(row + i) * N + first,
                                        (end - first) * sizeof(float));
            }
        }
        fixture_free(&f);
    }
}

static void test_columns_outside_the_range_stay(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    fixture f = fixture_make(&rng, BT_DTYPE_BF16, 3, 64);
    for (unsigned v = 0; v < bt_kernels_row_count; v++) {
        if (!bt_kernels_rows[v]->supported()) continue;
        memcpy(f.expected, f.y, 3 * N * sizeof(float));
        bt_kernels_rows[v]->matmul(&f.op, 5, 18);
        for (uint32_t i = 0; i < 3; i++) {
            assert_memory_equal(f.y + (size_t)i * N, f.expected + (size_t)i * N, 5 * 4);
            assert_memory_equal(f.y + (size_t)i * N + 18, f.expected + (size_t)i * N + 18,
                                (N - 18) * 4);
        }
    }
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variants_agree_with_the_reference),
        cmocka_unit_test(test_tiling_changes_no_bit),
        cmocka_unit_test(test_columns_outside_the_range_stay),
    };
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
