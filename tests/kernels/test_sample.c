/* test_sample.c - greedy, filters, ties, log-probabilities and the random number, each against its
 * definition; frequencies against the distribution they are drawn from. */
#include "kernels/sample/sample.h"
#include "tests/kernels/shapes.h"

#define VOCAB 50u

static uint8_t scratch[VOCAB * 32] __attribute__((aligned(16)));

static bt_token sample(const float *logits, bt_sampling sampling, uint32_t position)
{
    bt_token token;
    if (sampling.top_p == 0) sampling.top_p = 1;
    assert_true(bt_sample_scratch_bytes(VOCAB) <= sizeof(scratch));
    assert_true(bt_sample(logits, VOCAB, &sampling, position, scratch, &token));
    return token;
}

static void random_logits(bt_rng *rng, float logits[VOCAB])
{
    for (uint32_t i = 0; i < VOCAB; i++) logits[i] = 3 * random_float(rng);
}

static double probability(const float *logits, uint32_t id, double temperature)
{
    double total = 0;
    for (uint32_t i = 0; i < VOCAB; i++) total += exp((logits[i] - logits[id]) / temperature);
    return 1 / total;
}

static void test_greedy_takes_the_first_of_the_highest(void **state)
{
    (void)state;
    float logits[VOCAB] = {0};
    assert_int_equal(sample(logits, (bt_sampling){0}, 0).id, 0);
    logits[7] = logits[9] = 1;
    bt_token token = sample(logits, (bt_sampling){.top_k = 3, .top_p = 0.1f, .seed = 9}, 5);
    assert_int_equal(token.id, 7);
    assert_near(token.logprob, (float)log(probability(logits, 7, 1)), 1e-6);
    logits[3] = NAN;
    logits[4] = -INFINITY;
    assert_int_equal(sample(logits, (bt_sampling){0}, 0).id, 7);
}

static void test_broken_logits_are_reported(void **state)
{
    (void)state;
    float logits[VOCAB];
    bt_token token;
    const bt_sampling greedy = {.top_p = 1};
    for (uint32_t i = 0; i < VOCAB; i++) logits[i] = NAN;
    assert_false(bt_sample(logits, VOCAB, &greedy, 0, scratch, &token));
    for (uint32_t i = 0; i < VOCAB; i++) logits[i] = -INFINITY;
    assert_false(bt_sample(logits, VOCAB, &greedy, 0, scratch, &token));
    logits[3] = INFINITY;
    assert_false(bt_sample(logits, VOCAB, &greedy, 0, scratch, &token));
}

static void test_top_logprobs_are_of_the_unmodified_distribution(void **state)
{
    (void)state;
    bt_rng rng;
    float logits[VOCAB];
    bt_rng_init(&rng, SEED);
    random_logits(&rng, logits);
    logits[20] = logits[30] = 5;
    const bt_sampling sampling = {.temperature = 2, .top_k = 1, .top_logprobs = 20, .seed = 3};
    bt_token token = sample(logits, sampling, 11);
    assert_int_equal(token.id, 20); /* top_k of 1, tie to the lower id */
    assert_int_equal(token.top_count, 20);
    assert_int_equal(token.top[0].id, 20);
    assert_int_equal(token.top[1].id, 30);
    for (uint32_t i = 0; i < 20; i++) {
        uint32_t better = 0;
        for (uint32_t j = 0; j < VOCAB; j++) better += logits[j] > logits[token.top[i].id];
        assert_in_range(i, better, better + 1);
        assert_near(token.top[i].logprob, (float)log(probability(logits, token.top[i].id, 1)),
                    1e-5);
    }
}

/* Sizes of the sets the filters leave, by drawing often. */
static void count_draws(const float *logits, bt_sampling sampling, uint32_t draws,
                        uint32_t counts[VOCAB])
{
    memset(counts, 0, VOCAB * sizeof(uint32_t));
    for (uint32_t i = 0; i < draws; i++) counts[sample(logits, sampling, i).id]++;
}

/* What has no probability is no alternative: every logprob listed is finite. */
static void test_impossible_tokens_are_not_listed(void **state)
{
    (void)state;
    float logits[VOCAB];
    for (uint32_t i = 0; i < VOCAB; i++) logits[i] = i % 2 ? -INFINITY : NAN;
    logits[11] = 1;
    logits[17] = 2;
    const float temperatures[] = {0, 1e-45f, 1e-6f, 1, 1000};
    for (size_t t = 0; t < COUNT(temperatures); t++) {
        const bt_sampling sampling = {.temperature = temperatures[t],
                                      .top_k = 5,
                                      .top_p = t % 2 ? 1e-6f : 1,
                                      .top_logprobs = 20,
                                      .seed = t};
        bt_token token = sample(logits, sampling, 3);
        assert_true(token.id == 17 || (token.id == 11 && temperatures[t] >= 1));
        assert_true(isfinite(token.logprob));
        assert_int_equal(token.top_count, 2);
        assert_int_equal(token.top[0].id, 17);
        assert_int_equal(token.top[1].id, 11);
        assert_true(isfinite(token.top[1].logprob));
    }
}

static void test_frequencies_follow_temperature(void **state)
{
    (void)state;
    bt_rng rng;
    float logits[VOCAB];
    uint32_t counts[VOCAB];
    bt_rng_init(&rng, SEED);
    random_logits(&rng, logits);
    count_draws(logits, (bt_sampling){.temperature = 0.7f, .seed = 1}, 100000, counts);
    for (uint32_t i = 0; i < VOCAB; i++) {
        double p = probability(logits, i, 0.7);
        assert_near((float)counts[i], (float)(p * 100000), 5 * sqrt(p * 100000) + 5);
    }
}

/* rank[i] = how many ids come before i: a higher logit, or the same and a lower id. */
static void rank_ids(const float *logits, uint32_t ranks[VOCAB])
{
    for (uint32_t i = 0; i < VOCAB; i++) {
        ranks[i] = 0;
        for (uint32_t j = 0; j < VOCAB; j++)
            ranks[i] += logits[j] > logits[i] || (logits[j] == logits[i] && j < i);
    }
}

static void test_filters_leave_exactly_their_set(void **state)
{
    (void)state;
    bt_rng rng;
    float logits[VOCAB];
    uint32_t counts[VOCAB], ranks[VOCAB];
    bt_rng_init(&rng, SEED);
    for (int round = 0; round < 30; round++) {
        random_logits(&rng, logits);
        logits[5] = logits[40] = logits[41] = 2.5f; /* ties at the edge of a set */
        rank_ids(logits, ranks);
        uint32_t top_k = round % 3 ? (uint32_t)bt_rng_below(&rng, 12) : 0;
        float top_p = round % 2 ? 1.0f : (float)(0.2 + 0.7 * bt_rng_double(&rng));
        double weight_of_rank[VOCAB], total = 0, passed = 0;
        for (uint32_t i = 0; i < VOCAB; i++) weight_of_rank[ranks[i]] = exp((double)logits[i]);
        uint32_t limit = top_k ? top_k : VOCAB, kept = 0;
        for (uint32_t r = 0; r < limit; r++) total += weight_of_rank[r];
        while (kept < limit && (top_p >= 1 || passed < top_p * total))
            passed += weight_of_rank[kept++];
        const bt_sampling sampling = {
            .temperature = 1, .top_k = top_k, .top_p = top_p, .seed = (uint64_t)round};
        count_draws(logits, sampling, 4000, counts);
        for (uint32_t i = 0; i < VOCAB; i++) {
            double p = weight_of_rank[ranks[i]] / passed;
            if (ranks[i] >= kept)
                assert_int_equal(counts[i], 0);
            else
                assert_near((float)counts[i], (float)(4000 * p), 6 * sqrt(4000 * p) + 6);
        }
    }
}

/* The stream is part of the contract: another engine must continue it. */
static void test_the_random_number_is_fixed(void **state)
{
    (void)state;
    double sum = 0;
    assert_true(bt_sample_uniform(1, 2) == bt_sample_uniform(1, 2));
    assert_true(bt_sample_uniform(1, 2) != bt_sample_uniform(2, 1));
    assert_true(bt_sample_uniform(1, 2) != bt_sample_uniform(1, 3));
    for (uint32_t i = 0; i < 100000; i++) {
        double u = bt_sample_uniform(42, i);
        assert_true(u >= 0 && u < 1);
        sum += u;
    }
    assert_near((float)(sum / 100000), 0.5f, 0.005);
    assert_true(bt_sample_uniform(0, 0) == 0x1.4e0dba5e9a32fp-1);
    assert_true(bt_sample_uniform(UINT64_MAX, 131071) == 0x1.a6d8f50b9bf08p-1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_takes_the_first_of_the_highest),
        cmocka_unit_test(test_broken_logits_are_reported),
        cmocka_unit_test(test_top_logprobs_are_of_the_unmodified_distribution),
        cmocka_unit_test(test_impossible_tokens_are_not_listed),
        cmocka_unit_test(test_frequencies_follow_temperature),
        cmocka_unit_test(test_filters_leave_exactly_their_set),
        cmocka_unit_test(test_the_random_number_is_fixed),
    };
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
