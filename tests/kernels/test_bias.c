/* test_bias.c - every row of the kernel table gives the reference's bits, over dtypes, widths, rows
 * and ranges of columns. */
#include "tests/kernels/shapes.h"

#define STRIDE_EXTRA 3u

static void check(bt_rng *rng, bt_dtype dtype, uint32_t n, uint32_t rows)
{
    void *room;
    size_t stride = n + STRIDE_EXTRA, count = rows * stride;
    const void *b = random_weights(rng, dtype, n, &room);
    float *start = random_floats(rng, count), *y = random_floats(rng, count);
    float *expected = random_floats(rng, count);
    uint32_t first = (uint32_t)bt_rng_below(rng, n), end = first + 1;
    end += (uint32_t)bt_rng_below(rng, n - first);
    bt_bias op = {.b = b, .b_dtype = dtype, .rows = rows, .stride = (uint32_t)stride};
    memcpy(expected, start, count * sizeof(float));
    op.y = expected;
    bt_bias_ref(&op, first, end);
    for (size_t i = 0; i < count; i++) {
        uint32_t column = (uint32_t)(i % stride);
        bool within = column >= first && column < end;
        assert_true(within || expected[i] == start[i]);
    }
    for (unsigned v = 0; v < bt_kernels_row_count; v++) {
        if (!bt_kernels_rows[v]->supported()) continue;
        memcpy(y, start, count * sizeof(float));
        op.y = y;
        bt_kernels_rows[v]->bias(&op, first, end);
        assert_memory_equal(y, expected, count * sizeof(float));
    }
    free(room);
    free(start);
    free(y);
    free(expected);
}

static void test_rows_give_the_same_bits(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t d = 0; d < COUNT(shape_weight_dtypes); d++)
        for (size_t w = 0; w < COUNT(shape_widths); w++)
            for (size_t r = 0; r < COUNT(shape_rows); r++)
                check(&rng, shape_weight_dtypes[d], shape_widths[w], shape_rows[r]);
}

static void test_the_reference_adds(void **state)
{
    (void)state;
    float y[4] = {1, 2, 3, 4};
    static const float b[2] = {10, 20};
    bt_bias_ref(&(bt_bias){.y = y, .b = b, .b_dtype = BT_DTYPE_F32, .rows = 2, .stride = 2}, 0, 2);
    static const float sums[4] = {11, 22, 13, 24};
    assert_memory_equal(y, sums, sizeof(sums));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_reference_adds),
        cmocka_unit_test(test_rows_give_the_same_bits),
    };
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
