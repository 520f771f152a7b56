/* test_rmsnorm.c - every row of the kernel table against the reference. */
#include "tests/kernels/shapes.h"

#define ROWS 3u

static void check(bt_rng *rng, bt_dtype dtype, uint32_t n, bool with_delta)
{
    void *room;
    const void *w = random_weights(rng, dtype, n, &room);
    float *start = random_floats(rng, (size_t)ROWS * n),
          *delta = random_floats(rng, (size_t)ROWS * n);
    float *x = random_floats(rng, (size_t)ROWS * n), *y = random_floats(rng, (size_t)ROWS * n);
    float *x_ref = random_floats(rng, (size_t)ROWS * n),
          *y_ref = random_floats(rng, (size_t)ROWS * n);
    size_t bytes = (size_t)ROWS * n * sizeof(float);
    bt_rmsnorm op = {.x = x_ref,
                     .delta = with_delta ? delta : NULL,
                     .w = w,
                     .y = y_ref,
                     .w_dtype = dtype,
                     .n = n,
                     .eps = 1e-5f};
    memcpy(x_ref, start, bytes);
    bt_rmsnorm_ref(&op, 0, ROWS);
    op.x = x;
    op.y = y;
    for (unsigned v = 0; v < bt_kernels_row_count; v++) {
        if (!bt_kernels_rows[v]->supported()) continue;
        memcpy(x, start, bytes);
        bt_kernels_rows[v]->rmsnorm(&op, 0, 1);
        bt_kernels_rows[v]->rmsnorm(&op, 1, ROWS);
        assert_memory_equal(x, x_ref, bytes); /* the sum is exact in any order of elements */
        for (size_t i = 0; i < (size_t)ROWS * n; i++)
            assert_near(y[i], y_ref[i], 1e-6 * (1 + fabsf(y_ref[i])));
    }
    free(room);
    free(start);
    free(delta);
    free(x);
    free(y);
    free(x_ref);
    free(y_ref);
}

static void test_variants_agree_with_the_reference(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t d = 0; d < COUNT(shape_weight_dtypes); d++) {
        for (size_t w = 0; w < COUNT(shape_widths); w++) {
            check(&rng, shape_weight_dtypes[d], shape_widths[w], false);
            check(&rng, shape_weight_dtypes[d], shape_widths[w], true);
        }
    }
}

static void test_known_row(void **state)
{
    (void)state;
    const float w[2] = {1, 2};
    float x[2] = {3, 4}, delta[2] = {0, 0}, y[2];
    const bt_rmsnorm op = {
        .x = x, .delta = delta, .w = w, .y = y, .w_dtype = BT_DTYPE_F32, .n = 2, .eps = 0};
    bt_kernels_best()->rmsnorm(&op, 0, 1);
    assert_near(y[0], 3 / sqrtf(12.5f), 1e-6);
    assert_near(y[1], 8 / sqrtf(12.5f), 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variants_agree_with_the_reference),
        cmocka_unit_test(test_known_row),
    };
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
