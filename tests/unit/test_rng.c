/* common/base/rng.h and clock.h: the numbers that seeds in bug reports depend on. */
#include "common/base/clock.h"
#include "common/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* splitmix64 from the seed, then xoshiro256**: the published reference code, run in Python. */
static void test_sequences(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed, numbers[3];
    } vectors[] = {
        {0, {0x99ec5f36cb75f2b4, 0xbf6e1f784956452a, 0x1a5f849d4933e6e0}},
        {1, {0xb3f2af6d0fc710c5, 0x853b559647364cea, 0x92f89756082a4514}},
        {UINT64_MAX, {0x8f5520d52a7ead08, 0xc476a018caa1802d, 0x81de31c0d260469e}},
    };
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        bt_rng rng;
        bt_rng_init(&rng, vectors[i].seed);
        for (int n = 0; n < 3; n++) assert_true(bt_rng_u64(&rng) == vectors[i].numbers[n]);
    }
}

static void test_xoshiro_vector(void **state)
{
    (void)state;
    bt_rng rng = {.state = {1, 2, 3, 4}};
    static const uint64_t expected[] = {11520, 0, 1509978240, 1215971899390074240};
    for (int n = 0; n < 4; n++) assert_true(bt_rng_u64(&rng) == expected[n]);
}

static void test_below(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, 42);
    uint32_t seen[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint64_t value = bt_rng_below(&rng, 7);
        assert_true(value < 7);
        seen[value]++;
    }
    /* Fixed seed: 10,000 each within 4 standard deviations (93). */
    for (int i = 0; i < 7; i++) assert_in_range(seen[i], 9628, 10372);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(bt_rng_below(&rng, 1), 0);
        assert_true(bt_rng_below(&rng, UINT64_MAX) < UINT64_MAX);
    }
}

static void test_double(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, 7);
    double sum = 0;
    for (int i = 0; i < 10000; i++) {
        double value = bt_rng_double(&rng);
        assert_true(value >= 0 && value < 1);
        sum += value;
    }
    assert_true(sum > 4900 && sum < 5100);
}

static uint64_t fixed_now(void *ctx)
{
    return *(uint64_t *)ctx;
}

static void test_clock_seam(void **state)
{
    (void)state;
    uint64_t at_ns = 12 * BT_NS_PER_S;
    bt_clock clock = {.now = fixed_now, .ctx = &at_ns};
    assert_true(bt_clock_now_ns(&clock) == 12 * BT_NS_PER_S);
    clock = bt_clock_real();
    uint64_t before_ns = bt_monotonic_ns();
    uint64_t now_ns = bt_clock_now_ns(&clock);
    assert_true(before_ns <= now_ns && now_ns <= bt_monotonic_ns());
    assert_true(bt_wall_s() > 1700000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequences),  cmocka_unit_test(test_xoshiro_vector),
        cmocka_unit_test(test_below),      cmocka_unit_test(test_double),
        cmocka_unit_test(test_clock_seam),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
