/* test_sample.c - processors, greedy, filters, ties, log-probabilities and the random number, each
 * against its definition; frequencies against the distribution they are drawn from. */
#include "kernels/sample/exp.h"
#include "tests/kernels/shapes.h"

#define VOCAB 50u
#define VOCAB_MAX 5000u

static double scratch[VOCAB_MAX * 5];
static const bt_sample_passes *passes; /* of the row under test */

static bt_token sample_op(const bt_sample_op *op)
{
    bt_token token;
    static float before[VOCAB_MAX];
    assert_true(bt_sample_scratch_bytes(op->vocab) <= sizeof(scratch));
    memcpy(before, op->logits, op->vocab * sizeof(float));
    assert_true(bt_sample(passes, op, scratch, &token));
    assert_memory_equal(before, op->logits,
                        op->vocab * sizeof(float)); /* given back as they were */
    return token;
}

static bt_token sample(float *logits, bt_sampling sampling, uint32_t position)
{
    if (sampling.top_p == 0) sampling.top_p = 1;
    return sample_op(&(bt_sample_op){
        .logits = logits, .vocab = VOCAB, .sampling = &sampling, .position = position});
}

static bool samples(float *logits, const bt_sampling *sampling)
{
    bt_token token;
    const bt_sample_op op = {.logits = logits, .vocab = VOCAB, .sampling = sampling};
    return bt_sample(passes, &op, scratch, &token);
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
    bt_token token =
        sample(logits, (bt_sampling){.top_k = 3, .top_p = 0.1f, .seed = 9, .logprobs = true}, 5);
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
    const bt_sampling greedy = {.top_p = 1};
    for (uint32_t i = 0; i < VOCAB; i++) logits[i] = NAN;
    assert_false(samples(logits, &greedy));
    for (uint32_t i = 0; i < VOCAB; i++) logits[i] = -INFINITY;
    assert_false(samples(logits, &greedy));
    logits[3] = INFINITY;
    assert_false(samples(logits, &greedy));
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
static void count_draws(float *logits, bt_sampling sampling, uint32_t draws, uint32_t counts[VOCAB])
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

/* --- the processors, by hand --- */

static float chosen(const float *logits, const bt_sample_op *op)
{
    bt_token token = sample_op(op);
    return logits[token.id];
}

/* One token at a time against vectors computed by hand: which token is the highest tells what each
 * processor made of the logits, and equal ones go to the lower id. */
static void test_processors_by_hand(void **state)
{
    (void)state;
    float logits[6] = {2, 1, -1, -2, 0.5f, 0};
    const uint32_t history[] = {0, 2, 0, 0, 1}; /* prompt 0 2, output 0 0 1 */
    const struct {
        bt_sampling sampling;
        uint32_t expected;
        const char *why;
    } cases[] = {
        {{.top_p = 1}, 0, "2 1 -1 -2 .5 0"},
        {{.top_p = 1, .repetition_penalty = 1.5f}, 0, "1.33 .67 -1.5 -2 .5 0"},
        {{.top_p = 1, .repetition_penalty = 4}, 0, ".5 .25 -4 -2 .5 0: the tie to the lower id"},
        {{.top_p = 1, .repetition_penalty = 5}, 4, ".4 .2 -5 -2 .5 0"},
        {{.top_p = 1, .presence_penalty = 1.25f}, 0, ".75 -.25 -1 -2 .5 0: once, however often"},
        {{.top_p = 1, .presence_penalty = 2}, 4, "0 -1 -1 -2 .5 0: the prompt does not count"},
        {{.top_p = 1, .frequency_penalty = 0.5f}, 0, "1 .5 -1 -2 .5 0"},
        {{.top_p = 1, .frequency_penalty = 0.8f}, 4, ".4 .2 -1 -2 .5 0: twice"},
        {{.top_p = 1, .frequency_penalty = -1}, 0, "4 2 -1 -2 .5 0"},
        {{.top_p = 1, .repetition_penalty = 2, .frequency_penalty = 0.25f},
         0,
         ".5 .25 -2 -2 .5 0: repetition first, else .75"},
        {{.top_p = 1, .repetition_penalty = 0.5f, .presence_penalty = 2}, 0, "2 0 -.5 -2 .5 0"},
        {{.top_p = 1, .bias = (bt_logit_bias[]){{3, 5}}, .bias_count = 1}, 3, "2 1 -1 3 .5 0"},
        {{.top_p = 1, .bias = (bt_logit_bias[]){{0, -100}, {1, -100}}, .bias_count = 2},
         4,
         "-98 -99 -1 -2 .5 0"},
        {{.top_p = 1,
          .repetition_penalty = 2,
          .bias = (bt_logit_bias[]){{2, 3.5f}, {4, 0.625f}},
          .bias_count = 2},
         2,
         "1 .5 1.25 -2 1.125 0: bias before the penalty, else 1.5"},
        {{.top_p = 1, .min_tokens = 3}, 0, "enough output"},
        {{.top_p = 1, .min_tokens = 4}, 1, "EOS 0 is banned"},
        {{.top_p = 1, .min_tokens = 4, .stop_ids = {1, 5}, .stop_count = 2}, 4, "and 1 and 5"},
        {{.top_p = 1,
          .min_tokens = 4,
          .bias = (bt_logit_bias[]){{0, 100}},
          .bias_count = 1,
          .presence_penalty = -2},
         1,
         "nothing lifts a ban"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const bt_sample_op op = {.logits = logits,
                                 .vocab = 6,
                                 .sampling = &cases[i].sampling,
                                 .position = 5,
                                 .prompt_count = 2,
                                 .history = history,
                                 .eos_ids = (const uint32_t[]){0},
                                 .eos_count = 1};
        if (chosen(logits, &op) != logits[cases[i].expected])
            fail_msg("case %zu (%s): token of logit %g", i, cases[i].why,
                     (double)chosen(logits, &op));
    }
}

/* Only what a processor may have touched differs, and logprobs stay those of the raw logits. */
static void test_logprobs_do_not_see_processors(void **state)
{
    (void)state;
    float logits[VOCAB];
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    random_logits(&rng, logits);
    const uint32_t history[] = {3, 4, 5};
    const bt_logit_bias rows[] = {{9, 50}, {17, -3}};
    const bt_sampling sampling = {.top_p = 1,
                                  .bias = rows,
                                  .bias_count = 2,
                                  .repetition_penalty = 3,
                                  .logprobs = true,
                                  .top_logprobs = 5};
    const bt_sample_op op = {
        .logits = logits, .vocab = VOCAB, .sampling = &sampling, .position = 3, .history = history};
    bt_token token = sample_op(&op);
    assert_int_equal(token.id, 9);
    assert_near(token.logprob, (float)log(probability(logits, 9, 1)), 1e-5);
    for (uint32_t i = 0; i < 5; i++)
        assert_near(token.top[i].logprob, (float)log(probability(logits, token.top[i].id, 1)),
                    1e-5);
}

/* Bans and biases may leave nothing: said, not guessed. */
static void test_nothing_left_is_reported(void **state)
{
    (void)state;
    float logits[VOCAB];
    for (uint32_t i = 0; i < VOCAB; i++) logits[i] = i == 7 ? 1 : -INFINITY;
    const uint32_t eos[] = {7};
    const bt_sampling sampling = {.top_p = 1, .min_tokens = 1};
    bt_sample_op op = {
        .logits = logits, .vocab = VOCAB, .sampling = &sampling, .eos_ids = eos, .eos_count = 1};
    bt_token token;
    assert_false(bt_sample(passes, &op, scratch, &token));
    assert_true(logits[7] == 1);
    op.position = 1; /* one token is there */
    assert_true(bt_sample(passes, &op, scratch, &token));
    assert_int_equal(token.id, 7);
}

/* --- sets and frequencies by brute force --- */

typedef struct {
    float logit;
    uint32_t id;
} ranked;

static int by_rank(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Probability of each id after temperature, min_p, top_k and top_p, from their definitions. */
static void brute_force(const float *logits, uint32_t vocab, const bt_sampling *s, double *ret_p)
{
    static ranked list[VOCAB_MAX];
    for (uint32_t i = 0; i < vocab; i++) list[i] = (ranked){logits[i], i};
    qsort(list, vocab, sizeof(list[0]), by_rank);
    static double weight[VOCAB_MAX];
    uint32_t kept = vocab;
    for (uint32_t i = 0; i < vocab; i++)
        weight[i] = exp(((double)list[i].logit - (double)list[0].logit) / (double)s->temperature);
    while (s->min_p > 0 && kept > 1 && weight[kept - 1] < (double)s->min_p) kept--;
    if (s->top_k > 0 && s->top_k < kept) kept = s->top_k;
    double total = 0, passed = 0;
    for (uint32_t i = 0; i < kept; i++) total += weight[i];
    uint32_t count = 0;
    while (count < kept && (s->top_p >= 1 || passed < (double)s->top_p * total))
        passed += weight[count++];
    for (uint32_t i = 0; i < vocab; i++) ret_p[list[i].id] = i < count ? weight[i] / passed : 0;
}

/* Chi-square of some thousand draws, cells of small expectation put together. With the seeds fixed it is one
 * number: far beyond its mean (the degrees of freedom) only if the distribution is another. */
static void check_distribution(float *logits, uint32_t vocab, const bt_sampling *s)
{
    const uint32_t draws = vocab > 1000 ? 1000 : 3000;
    static double p[VOCAB_MAX];
    static uint32_t counts[VOCAB_MAX];
    brute_force(logits, vocab, s, p);
    memset(scratch, 0xa5, sizeof(scratch));
    memset(counts, 0, sizeof(counts));
    for (uint32_t i = 0; i < draws; i++) {
        const bt_sample_op op = {.logits = logits, .vocab = vocab, .sampling = s, .position = i};
        counts[sample_op(&op).id]++;
    }
    double chi = 0, rest_p = 0, rest_count = 0;
    uint32_t cells = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        if (p[i] == 0 && counts[i] > 0)
            fail_msg("temperature %g min_p %g top_k %u top_p %g: token %u of %u is out",
                     (double)s->temperature, (double)s->min_p, s->top_k, (double)s->top_p, i,
                     vocab);
        rest_p += p[i] * draws;
        rest_count += counts[i];
        if (rest_p < 5) continue;
        chi += (rest_count - rest_p) * (rest_count - rest_p) / rest_p;
        cells++;
        rest_p = rest_count = 0;
    }
    double freedom = cells > 1 ? cells - 1 : 1;
    if (!(chi <= freedom + 4.5 * sqrt(2 * freedom) + 8))
        fail_msg("temperature %g min_p %g top_k %u top_p %g: chi-square %g of %g degrees",
                 (double)s->temperature, (double)s->min_p, s->top_k, (double)s->top_p, chi,
                 freedom);
}

static void test_combined_filters_follow_brute_force(void **state)
{
    (void)state;
    static const uint32_t vocabs[] = {1, 50, 1500, VOCAB_MAX};
    static float logits[VOCAB_MAX];
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (int round = 0; round < 48; round++) {
        uint32_t vocab = vocabs[round % 4];
        float spread = (float)(round % 3 == 0 ? 1 : round % 3 == 1 ? 6 : 30);
        for (uint32_t i = 0; i < vocab; i++) logits[i] = spread * random_float(&rng);
        for (uint32_t i = 0; i < vocab; i += 9) /* ties */
            logits[i] = roundf(logits[i]);
        bt_sampling s = {.temperature = (float)(0.4 + 1.2 * bt_rng_double(&rng)),
                         .top_p = 1,
                         .seed = (uint64_t)round};
        if (round & 4) s.top_p = (float)(0.05 + 0.94 * bt_rng_double(&rng));
        if (round & 8) s.top_k = 1 + (uint32_t)bt_rng_below(&rng, round & 1 ? vocab : 30);
        if (round & 16) s.min_p = (float)(0.3 * bt_rng_double(&rng) * bt_rng_double(&rng));
        check_distribution(logits, vocab, &s);
    }
}

/* A test that could not fail would be none. */
static void test_chi_square_sees_a_difference(void **state)
{
    (void)state;
    double p[VOCAB], q[VOCAB], chi = 0;
    float logits[VOCAB];
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    random_logits(&rng, logits);
    brute_force(logits, VOCAB, &(bt_sampling){.temperature = 1, .top_p = 1}, p);
    brute_force(logits, VOCAB, &(bt_sampling){.temperature = 1.4f, .top_p = 1}, q);
    for (uint32_t i = 0; i < VOCAB; i++) chi += 3000 * (p[i] - q[i]) * (p[i] - q[i]) / p[i];
    assert_true(chi > VOCAB - 1 + 4.5 * sqrt(2.0 * (VOCAB - 1)) + 8);
}

/* --- the passes --- */

static void test_exponential(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (uint32_t i = 0; i < 200000; i++) {
        float x = (float)(-87 * bt_rng_double(&rng));
        double exact = exp((double)x);
        if (fabs((double)bt_sample_exp(x) - exact) > 3.6e-7 * exact)
            fail_msg("e^%.9g is %.9g, not %.9g", (double)x, (double)bt_sample_exp(x), exact);
    }
    assert_true(bt_sample_exp(0) == 1);
    assert_true(bt_sample_exp(-INFINITY) == 0 && bt_sample_exp(NAN) == 0);
    assert_true(bt_sample_exp(-88) == 0);
}

/* Every row of the dispatch table against the reference, bit for bit. */
static void test_passes_give_the_same_bits(void **state)
{
    (void)state;
    static float x[VOCAB_MAX];
    static const float temperatures[] = {1, 0.7f, 100, 1e-6f, 1e-45f};
    const bt_sample_passes *ref = &bt_sample_passes_ref;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (int round = 0; round < 200; round++) {
        uint32_t n = 1 + (uint32_t)bt_rng_below(&rng, round % 2 ? 100 : VOCAB_MAX);
        for (uint32_t i = 0; i < n; i++) {
            x[i] = 40 * random_float(&rng);
            uint64_t kind = bt_rng_below(&rng, 40);
            if (kind == 0) x[i] = NAN;
            if (kind == 1) x[i] = -INFINITY;
        }
        float top = passes->highest(x, n);
        assert_true(top == ref->highest(x, n));
        if (top == -INFINITY) continue;
        for (size_t t = 0; t < COUNT(temperatures); t++)
            assert_true(passes->exp_sum(x, n, top, temperatures[t]) ==
                        ref->exp_sum(x, n, top, temperatures[t]));
        for (float bar = -50; bar < 50; bar += 3.7f) {
            uint32_t from = (uint32_t)bt_rng_below(&rng, n + 1);
            assert_int_equal(passes->above(x, n, from, bar), ref->above(x, n, from, bar));
        }
        assert_int_equal(passes->above(x, n, 0, top), n);
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

static int run_row(const char *name, const bt_sample_passes *row)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_takes_the_first_of_the_highest),
        cmocka_unit_test(test_broken_logits_are_reported),
        cmocka_unit_test(test_top_logprobs_are_of_the_unmodified_distribution),
        cmocka_unit_test(test_impossible_tokens_are_not_listed),
        cmocka_unit_test(test_processors_by_hand),
        cmocka_unit_test(test_logprobs_do_not_see_processors),
        cmocka_unit_test(test_nothing_left_is_reported),
        cmocka_unit_test(test_frequencies_follow_temperature),
        cmocka_unit_test(test_filters_leave_exactly_their_set),
        cmocka_unit_test(test_combined_filters_follow_brute_force),
        cmocka_unit_test(test_passes_give_the_same_bits),
    };
    passes = row;
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chi_square_sees_a_difference),
        cmocka_unit_test(test_exponential),
        cmocka_unit_test(test_the_random_number_is_fixed),
    };
    int failed = cmocka_run_group_tests_name("sample", tests, NULL, NULL);
    for (unsigned i = 0; i < bt_kernels_row_count; i++)
        if (bt_kernels_rows[i]->supported())
            failed += run_row(bt_kernels_rows[i]->name, bt_kernels_rows[i]->sample);
    return failed;
}
