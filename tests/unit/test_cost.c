/* The online cost model: it finds the coefficients that made its samples, keeps its head with few of
 * them, and follows a machine that changes. */
#include "common/base/cost.h"
#include "common/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static double truth_ns(const bt_cost *c, uint32_t tokens, double pairs)
{
    return (double)c->batch_ns + (double)c->token_ns * tokens + (double)c->pair_ns * pairs;
}

static void feed(bt_cost_fit *fit, const bt_cost *truth, bt_rng *rng, uint32_t known,
                 uint32_t tokens, double noise)
{
    double pairs = bt_cost_pairs(known, tokens);
    double ns = truth_ns(truth, tokens, pairs) * (1 + noise * (2 * bt_rng_double(rng) - 1));
    bt_cost_add(fit, tokens, pairs, (uint64_t)ns);
}

static void assert_near(double got, double want, double relative)
{
    if (fabs(got - want) > relative * want) fail_msg("%g is not near %g", got, want);
}

static void empty(void **state)
{
    (void)state;
    bt_cost_fit fit = {0};
    bt_cost_add(&fit, 0, 0, 5);
    bt_cost_add(&fit, 5, 0, 0);
    bt_cost cost = bt_cost_solve(&fit);
    assert_false(bt_cost_known(&cost));
    assert_true(bt_cost_valid(&cost));
}

/* One probe of 64 tokens: its own time is predicted, and twice as many tokens take twice as long. */
static void one_size(void **state)
{
    (void)state;
    bt_cost_fit fit = {0};
    bt_cost_add(&fit, 64, bt_cost_pairs(0, 64), 6400000);
    bt_cost cost = bt_cost_solve(&fit);
    assert_near(bt_cost_prompt_ns(&cost, 0, 64, 0), 6400000, 0.001);
    assert_near(bt_cost_prompt_ns(&cost, 0, 128, 0), 12800000, 0.001);
}

static void finds_the_truth(void **state)
{
    (void)state;
    const bt_cost truth = {900000, 110000, 45};
    bt_rng rng;
    bt_rng_init(&rng, 7);
    bt_cost_fit fit = {0};
    for (uint32_t i = 0; i < 2000; i++)
        feed(&fit, &truth, &rng, (uint32_t)bt_rng_below(&rng, 8000),
             1 + (uint32_t)bt_rng_below(&rng, 512), 0.1);
    bt_cost cost = bt_cost_solve(&fit);
    printf("batch %g of %g, token %g of %g, pair %g of %g\n", (double)cost.batch_ns,
           (double)truth.batch_ns, (double)cost.token_ns, (double)truth.token_ns,
           (double)cost.pair_ns, (double)truth.pair_ns);
    for (uint32_t known = 0; known <= 4096; known += 1024) {
        for (uint32_t tokens = 1; tokens <= 512; tokens *= 4) {
            double pairs = bt_cost_pairs(known, tokens);
            assert_near(truth_ns(&cost, tokens, pairs), truth_ns(&truth, tokens, pairs), 0.15);
        }
    }
}

/* Steps of one sequence say nothing of prompts; the one prompt before them is not forgotten. */
static void decode_does_not_drown_prefill(void **state)
{
    (void)state;
    const bt_cost truth = {900000, 110000, 0};
    bt_rng rng;
    bt_rng_init(&rng, 8);
    bt_cost_fit fit = {0};
    feed(&fit, &truth, &rng, 0, 64, 0);
    for (uint32_t i = 0; i < 100000; i++) feed(&fit, &truth, &rng, 100 + i % 50, 1, 0);
    bt_cost cost = bt_cost_solve(&fit);
    assert_near(cost.batch_ns, truth.batch_ns, 0.01);
    assert_near(cost.token_ns, truth.token_ns, 0.01);
}

/* A machine that gets three times slower is followed within the cell's mean. */
static void follows_a_change(void **state)
{
    (void)state;
    bt_cost truth = {1000000, 100000, 0};
    bt_rng rng;
    bt_rng_init(&rng, 9);
    bt_cost_fit fit = {0};
    for (uint32_t i = 0; i < 200; i++) feed(&fit, &truth, &rng, 0, 128u << (i % 2), 0.05);
    truth = (bt_cost){3000000, 300000, 0};
    for (uint32_t i = 0; i < 200; i++) feed(&fit, &truth, &rng, 0, 128u << (i % 2), 0.05);
    bt_cost cost = bt_cost_solve(&fit);
    assert_near(bt_cost_prompt_ns(&cost, 0, 256, 0), truth_ns(&truth, 256, 0), 0.05);
}

/* No sample, however odd, makes a prediction negative or not a number. */
static void never_negative(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, 10);
    for (uint32_t round = 0; round < 300; round++) {
        bt_cost_fit fit = {0};
        uint64_t samples = 1 + bt_rng_below(&rng, 30);
        for (uint64_t i = 0; i < samples; i++) {
            uint32_t tokens = (uint32_t)(bt_rng_u64(&rng) >> (32 + bt_rng_below(&rng, 32)));
            uint32_t known = (uint32_t)(bt_rng_u64(&rng) >> (32 + bt_rng_below(&rng, 32)));
            uint64_t ns = bt_rng_u64(&rng) >> bt_rng_below(&rng, 64);
            bt_cost_add(&fit, tokens, bt_cost_pairs(known, tokens), ns);
        }
        bt_cost cost = bt_cost_solve(&fit);
        assert_true(bt_cost_valid(&cost));
    }
    bt_cost bad = {1, -1, 0};
    assert_false(bt_cost_valid(&bad));
    bad = (bt_cost){1, NAN, 0};
    assert_false(bt_cost_valid(&bad));
    bad = (bt_cost){1, 0, INFINITY};
    assert_false(bt_cost_valid(&bad));
}

static void predictions(void **state)
{
    (void)state;
    const bt_cost cost = {1000, 10, 1};
    assert_near(bt_cost_prompt_ns(&cost, 0, 0, 64) + 1, 1, 0);
    assert_near(bt_cost_prompt_ns(&cost, 10, 100, 64), 2000 + 1000 + 100 * 60, 1e-9);
    assert_near(bt_cost_prompt_ns(&cost, 10, 100, 0), 1000 + 1000 + 100 * 60, 1e-9);
    assert_near(bt_cost_step_ns(&cost, 3, 500), 1000 + 30 + 500, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty),
        cmocka_unit_test(one_size),
        cmocka_unit_test(finds_the_truth),
        cmocka_unit_test(decode_does_not_drown_prefill),
        cmocka_unit_test(follows_a_change),
        cmocka_unit_test(never_negative),
        cmocka_unit_test(predictions),
    };
    return cmocka_run_group_tests_name("cost", tests, NULL, NULL);
}
