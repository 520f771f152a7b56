/* test_rope.c - the rotation against its definition, and what makes it a position embedding; each
 * scaling against numbers worked out apart (tests/golden compares whole models with transformers). */
#include "kernels/rope/rope.h"
#include "tests/kernels/shapes.h"

static bt_rope plain_rope(uint32_t dims)
{
    return (bt_rope){.dims = dims, .theta = 10000.0, .magnitude = 1};
}

static void turn(const bt_rope *rope, uint32_t position, uint32_t head_dim, float *x)
{
    double frequencies[128];
    float table[256];
    bt_rope_frequencies(rope, 0, frequencies);
    bt_rope_table(rope, frequencies, &position, 1, table);
    bt_rope_apply(table, rope->dims, 1, head_dim, x);
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
            bt_rope rope = plain_rope(head_dim);
            float *x = random_floats(&rng, head_dim), *y = random_floats(&rng, head_dim);
            memcpy(y, x, head_dim * sizeof(float));
            turn(&rope, positions[p], head_dim, y);
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
    bt_rope rope = plain_rope(64);
    float *q = random_floats(&rng, 64), *k = random_floats(&rng, 64), a[64], b[64];
    double products[2];
    for (int i = 0; i < 2; i++) {
        memcpy(a, q, sizeof(a));
        memcpy(b, k, sizeof(b));
        turn(&rope, i ? 900 : 12, 64, a);
        turn(&rope, i ? 893 : 5, 64, b);
        products[i] = 0;
        for (int j = 0; j < 64; j++) products[i] += (double)a[j] * b[j];
    }
    assert_near((float)products[0], (float)products[1], 1e-5);
    free(q);
    free(k);
}

/* A part of each head turns as a head of that size would; the rest stays. */
static void test_a_part_of_each_head(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    bt_rope rope = plain_rope(24);
    float *x = random_floats(&rng, 64), *y = random_floats(&rng, 64), part[24];
    memcpy(y, x, 64 * sizeof(float));
    memcpy(part, x, sizeof(part));
    turn(&rope, 77, 64, y);
    turn(&rope, 77, 24, part);
    assert_memory_equal(y, part, sizeof(part));
    assert_memory_equal(y + 24, x + 24, 40 * sizeof(float));
    free(x);
    free(y);
}

static void assert_frequencies(const bt_rope *rope, uint32_t position, const double *expected)
{
    double frequencies[128];
    bt_rope_frequencies(rope, position, frequencies);
    for (uint32_t i = 0; i < rope->dims / 2; i++)
        if (!(fabs(frequencies[i] / expected[i] - 1) < 1e-12))
            fail_msg("pair %u: %.17g is not %.17g", i, frequencies[i], expected[i]);
}

static void test_linear_and_dynamic(void **state)
{
    (void)state;
    bt_rope rope = {.kind = BT_ROPE_LINEAR, .dims = 4, .theta = 100, .factor = 4, .magnitude = 1};
    assert_frequencies(&rope, 9, (const double[]){0.25, 0.025});
    /* Within the original 10 tokens nothing changes; at the 15th the stretch is 4 * 15 / 10 - 3 = 3
     * and theta 100 * 3^(4 / 2) = 900. */
    rope.kind = BT_ROPE_DYNAMIC;
    rope.original_tokens = 10;
    assert_frequencies(&rope, 9, (const double[]){1, 0.1});
    assert_frequencies(&rope, 14, (const double[]){1, 1.0 / 30});
    /* The table follows each row's own position. */
    static const uint32_t positions[] = {14, 9};
    static const double usual[] = {1, 0.1};
    float table[2][4];
    bt_rope_table(&rope, usual, positions, 2, &table[0][0]);
    assert_near(table[0][1], (float)cos(14.0 / 30), 1e-7);
    assert_near(table[1][3], (float)sin(0.9), 1e-7);
}

/* Pairs that turn 20, 2 and 0.2 times in the original context: kept, in between, divided. */
static void test_llama3(void **state)
{
    (void)state;
    const bt_rope rope = {.kind = BT_ROPE_LLAMA3,
                          .dims = 6,
                          .theta = 1000,
                          .factor = 8,
                          .original_tokens = 40 * M_PI,
                          .low_freq_factor = 1,
                          .high_freq_factor = 4,
                          .magnitude = 1};
    const double keep = (2.0 - 1) / (4 - 1);
    assert_frequencies(&rope, 1000, (const double[]){1, 0.1 * (keep + (1 - keep) / 8), 0.01 / 8});
}

/* A pair of theta 100 and 8 dims turns 10^-(i / 2) of 100 times in 200 pi tokens: 10 times is pair 2,
 * once is pair 4, beyond the last one. Pair 3 is half way. */
static void test_yarn(void **state)
{
    (void)state;
    bt_rope rope = {.kind = BT_ROPE_YARN,
                    .dims = 8,
                    .theta = 100,
                    .factor = 4,
                    .original_tokens = 200 * M_PI,
                    .beta_fast = 10,
                    .beta_slow = 1,
                    .magnitude = 1.5};
    const double half = sqrt(0.1);
    assert_frequencies(&rope, 1000, (const double[]){1, half, 0.1, 0.1 * half * (0.5 + 0.5 / 4)});
    /* Ends of 2.2 and 3.4 become 2 and 4. */
    rope.beta_fast = 100 * pow(10, -1.1);
    rope.beta_slow = 100 * pow(10, -1.7);
    rope.truncate = true;
    assert_frequencies(&rope, 1000, (const double[]){1, half, 0.1, 0.1 * half * (0.5 + 0.5 / 4)});
    rope.truncate = false;
    const double stretch = (3 - 2.2) / (3.4 - 2.2);
    assert_frequencies(&rope, 1000,
                       (const double[]){1, half, 0.1, 0.1 * half * (1 - stretch + stretch / 4)});
    /* Cosines and sines carry the attention factor. */
    float x[8] = {1, 0, 0, 0, 0, 0, 0, 0};
    turn(&rope, 2, 8, x);
    assert_near(x[0], (float)(1.5 * cos(2)), 1e-6);
    assert_near(x[4], (float)(1.5 * sin(2)), 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs_turn_by_the_stated_angle),
        cmocka_unit_test(test_products_depend_on_distance),
        cmocka_unit_test(test_a_part_of_each_head),
        cmocka_unit_test(test_linear_and_dynamic),
        cmocka_unit_test(test_llama3),
        cmocka_unit_test(test_yarn),
    };
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
