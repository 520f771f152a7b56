/* test_rope.c - the rotation against its definition, and what makes it a position embedding. */
#include "kernels/rope/rope.h"
#include "tests/kernels/shapes.h"

static void turn(uint32_t position, uint32_t head_dim, float *x)
{
    double frequencies[128];
    float table[256];
    bt_rope_frequencies(10000.0, head_dim, frequencies);
    bt_rope_table(&position, 1, frequencies, head_dim, table);
    bt_rope_apply(table, 1, head_dim, x);
}

static void test_pairs_turn_by_the_stated_angle(void **state)
{
    (void)state;
    static const uint32_t positions[] = {0, 1, 17, 1023, 131071};
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t h = 0; h < COUNT(shape_head_dims); h++) {
        for (size_t p = 0; p < COUNT(positions); p++) {
            uint32_t head_dim = shape_head_dims[h], half = head_dim / 2;
            float *x = random_floats(&rng, head_dim), *y = random_floats(&rng, head_dim);
            memcpy(y, x, head_dim * sizeof(float));
            turn(positions[p], head_dim, y);
            for (uint32_t i = 0; i < half; i++) {
                double angle = positions[p] / pow(10000.0, 2.0 * i / head_dim);
                assert_near(y[i], (float)(x[i] * cos(angle) - x[i + half] * sin(angle)), 1e-6);
                assert_near(y[i + half], (float)(x[i + half] * cos(angle) + x[i] * sin(angle)),
                            1e-6);
            }
            free(x);
            free(y);
        }
    }
}

/* The product of a query and a key depends on how far apart they are only. */
static void test_products_depend_on_distance(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    float *q = random_floats(&rng, 64), *k = random_floats(&rng, 64), a[64], b[64];
    double products[2];
    for (int i = 0; i < 2; i++) {
        memcpy(a, q, sizeof(a));
        memcpy(b, k, sizeof(b));
        turn(i ? 900 : 12, 64, a);
        turn(i ? 893 : 5, 64, b);
        products[i] = 0;
        for (int j = 0; j < 64; j++) products[i] += (double)a[j] * b[j];
    }
    assert_near((float)products[0], (float)products[1], 1e-5);
    free(q);
    free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs_turn_by_the_stated_angle),
        cmocka_unit_test(test_products_depend_on_distance),
    };
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
