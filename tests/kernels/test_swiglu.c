/* test_swiglu.c - every row of the kernel table against the reference, far tails included, and the
 * same bits whatever range of columns an element is computed in. */
#include "tests/kernels/shapes.h"

#define ROWS 2u

static void fill(bt_rng *rng, float *gate, size_t count)
{
    static const float special[] = {0, -0.0f, 1e-30f, 88, -88, 100, -100, 1e9f, -1e9f};
    for (size_t i = 0; i < count; i++)
        gate[i] = i % 5 == 0 ? special[bt_rng_below(rng, COUNT(special))] : 20 * random_float(rng);
}

static void test_variants_agree_with_the_reference(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t w = 0; w < COUNT(shape_widths); w++) {
        uint32_t n = shape_widths[w];
        size_t count = (size_t)ROWS * n;
        float *start = random_floats(&rng, count), *up = random_floats(&rng, count);
        float *gate = random_floats(&rng, count), *expected = random_floats(&rng, count);
        fill(&rng, start, count);
        memcpy(expected, start, count * sizeof(float));
        bt_swiglu_ref(&(bt_swiglu){.gate = expected, .up = up, .rows = ROWS, .stride = n}, 0, n);
        float *first = NULL; /* all rows but the reference give the same bits */
        for (unsigned v = 0; v < bt_kernels_row_count; v++) {
            if (!bt_kernels_rows[v]->supported()) continue;
            const bt_swiglu op = {.gate = gate, .up = up, .rows = ROWS, .stride = n};
            uint32_t cut = (uint32_t)bt_rng_below(&rng, n + 1);
            memcpy(gate, start, count * sizeof(float));
            bt_kernels_rows[v]->swiglu(&op, 0, n);
            for (size_t i = 0; i < count; i++)
                assert_near(gate[i], expected[i], 1e-6 * fabsf(expected[i]) + 1e-28);
            float *parts = random_floats(&rng, count);
            memcpy(parts, start, count * sizeof(float));
            const bt_swiglu split = {.gate = parts, .up = up, .rows = ROWS, .stride = n};
            bt_kernels_rows[v]->swiglu(&split, cut, n);
            bt_kernels_rows[v]->swiglu(&split, 0, cut);
            assert_memory_equal(parts, gate, count * sizeof(float));
            if (first && bt_kernels_rows[v]->swiglu != bt_swiglu_ref)
                assert_memory_equal(parts, first, count * sizeof(float));
            if (first)
                free(parts);
            else
                first = parts;
        }
        free(first);
        free(start);
        free(up);
        free(gate);
        free(expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_variants_agree_with_the_reference)};
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
