/* test_embedding.c - rows of a table, exactly, from every dtype and at any alignment. */
#include "kernels/embedding/embedding.h"
#include "kernels/weight.h"
#include "tests/kernels/shapes.h"

#define VOCAB 11u

static void test_rows_are_copied_and_widened(void **state)
{
    (void)state;
    static const uint32_t tokens[] = {3, 0, 10, 3};
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t d = 0; d < COUNT(shape_weight_dtypes); d++) {
        for (size_t w = 0; w < COUNT(shape_widths); w++) {
            uint32_t n = shape_widths[w];
            void *room;
            const void *weights = random_weights(&rng, shape_weight_dtypes[d], VOCAB * n, &room);
            float *x = random_floats(&rng, COUNT(tokens) * n);
            bt_embed(tokens, COUNT(tokens), weights, shape_weight_dtypes[d], n, x);
            for (size_t row = 0; row < COUNT(tokens); row++)
                for (uint32_t i = 0; i < n; i++)
                    assert_true(x[row * n + i] == bt_weight_at(weights, shape_weight_dtypes[d],
                                                               (size_t)tokens[row] * n + i));
            free(room);
            free(x);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows_are_copied_and_widened)};
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
