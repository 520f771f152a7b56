/* ops/cli/bench: percentiles (samples.h), lengths and arrivals (draw.h), histograms of a metrics page
 * (scrape.h), objectives and summaries (summary.h). */
#include "ops/cli/bench/draw.h"
#include "ops/cli/bench/samples.h"
#include "ops/cli/bench/scrape.h"
#include "ops/cli/bench/summary.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void assert_near(double value, double expected, double relative)
{
    if (!(fabs(value - expected) <= relative * fabs(expected)))
        fail_msg("%.17g is not %.17g within %g", value, expected, relative);
}

/* Against numpy.percentile of the same values. */
static void test_percentiles(void **state)
{
    (void)state;
    static const uint64_t values[] = {15, 20, 35, 40, 50, 1000, 3, 3, 77, 8};
    static const struct {
        double percent, value;
    } expected[] = {{0, 3},      {1, 3},       {25, 9.75},      {50, 27.5}, {75, 47.5},
                    {90, 169.3}, {99, 916.93}, {99.9, 991.693}, {100, 1000}};
    bt_samples samples = {0};
    assert_true(bt_samples_percentile(&samples, 50) == 0);
    assert_true(bt_samples_summary(&samples).count == 0);
    for (size_t i = 0; i < COUNT(values); i++)
        assert_int_equal(bt_samples_add(&samples, values[i], NULL), BT_OK);
    for (size_t i = 0; i < COUNT(expected); i++)
        assert_near(bt_samples_percentile(&samples, expected[i].percent), expected[i].value, 1e-12);
    bt_sample_summary s = bt_samples_summary(&samples);
    assert_near(s.mean, 125.1, 1e-12);
    assert_true(s.count == 10 && s.min == 3 && s.max == 1000);
    assert_int_equal(bt_samples_add(&samples, 1, NULL), BT_OK); /* sorts anew */
    assert_true(bt_samples_percentile(&samples, 0) == 1);
    bt_samples_finish(&samples);
}

static void test_histogram(void **state)
{
    (void)state;
    bt_samples samples = {0};
    const uint64_t values[] = {0, 10000, 10001, 12589, 12590, 1000000000, UINT64_MAX};
    uint64_t counts[BT_SAMPLE_BINS], sum = 0;
    for (size_t i = 0; i < COUNT(values); i++) bt_samples_add(&samples, values[i], NULL);
    bt_samples_histogram(&samples, counts);
    for (unsigned i = 0; i < BT_SAMPLE_BINS; i++) sum += counts[i];
    assert_int_equal(sum, COUNT(values));
    assert_int_equal(counts[0], 2); /* up to 10 us */
    assert_int_equal(counts[1], 2); /* up to 12.589… us */
    assert_int_equal(counts[2], 1);
    assert_int_equal(counts[50], 1); /* 1 s, its own upper bound */
    assert_int_equal(counts[BT_SAMPLE_BINS - 1], 1);
    assert_true(bt_samples_bin_seconds(BT_SAMPLE_BINS - 1) == HUGE_VAL);
    assert_near(bt_samples_bin_seconds(BT_SAMPLE_BINS - 2), 1000, 1e-9);
    bt_samples_finish(&samples);
}

static void test_lengths(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "0",
                                      "-1",
                                      "1.5",
                                      "2000001",
                                      "uniform:",
                                      "uniform:5",
                                      "uniform:9-5",
                                      "uniform:0-5",
                                      "uniform:1.5-3",
                                      "uniform:1-2000001",
                                      "lognormal:512",
                                      "lognormal:0,1",
                                      "lognormal:512,-1",
                                      "lognormal:nan,1",
                                      "gauss:1,2",
                                      "512 "};
    bt_length length;
    bt_err err;
    bt_rng rng;
    for (size_t i = 0; i < COUNT(bad); i++)
        if (bt_length_parse(bad[i], &length, &err) != BT_ERR_ARGUMENT)
            fail_msg("'%s' is taken", bad[i]);
    bt_rng_init(&rng, 7);
    assert_int_equal(bt_length_parse("512", &length, &err), BT_OK);
    assert_int_equal(bt_length_draw(&length, &rng), 512);
    assert_int_equal(bt_length_parse("uniform:100-103", &length, &err), BT_OK);
    unsigned seen[4] = {0};
    for (unsigned i = 0; i < 4000; i++) {
        uint32_t drawn = bt_length_draw(&length, &rng);
        assert_in_range(drawn, 100, 103);
        seen[drawn - 100]++;
    }
    for (unsigned i = 0; i < 4; i++) assert_near(seen[i], 1000, 0.15);
    assert_int_equal(bt_length_likely_max(&length), 103);
}

/* Mean and deviation of the drawn lengths themselves, within 5 standard errors. */
static void test_lognormal(void **state)
{
    (void)state;
    bt_length length;
    bt_rng rng;
    enum { N = 200000 };
    assert_int_equal(bt_length_parse("lognormal:512,200", &length, NULL), BT_OK);
    bt_rng_init(&rng, 11);
    double sum = 0, squares = 0;
    for (unsigned i = 0; i < N; i++) {
        double drawn = bt_length_draw(&length, &rng);
        sum += drawn;
        squares += drawn * drawn;
    }
    double mean = sum / N, sd = sqrt(squares / N - mean * mean);
    assert_near(mean, 512, 5 * 200 / sqrt(N) / 512);
    assert_near(sd, 200, 0.02);
    assert_int_equal(bt_length_parse("lognormal:1,1000000", &length, NULL), BT_OK);
    for (unsigned i = 0; i < 10000; i++)
        assert_in_range(bt_length_draw(&length, &rng), 1, BT_DRAW_TOKENS_MAX);
}

/* Gamma with shape k and mean 1/rate: the variance of the gaps is 1 / (k rate^2). */
static void test_arrivals(void **state)
{
    (void)state;
    static const double shapes[] = {0.25, 0.999, 1, 4, 100};
    enum { N = 200000 };
    for (size_t i = 0; i < COUNT(shapes); i++) {
        bt_arrivals arrivals, again;
        bt_arrivals_init(&arrivals, 50, shapes[i], 3);
        bt_arrivals_init(&again, 50, shapes[i], 3);
        uint64_t before = 0;
        double squares = 0;
        for (unsigned n = 0; n < N; n++) {
            uint64_t at = bt_arrivals_next_ns(&arrivals);
            assert_true(at >= before && at == bt_arrivals_next_ns(&again));
            squares += pow((double)(at - before) / 1e9, 2);
            before = at;
        }
        double mean = (double)before / 1e9 / N, variance = squares / N - mean * mean;
        assert_near(mean, 0.02, 5 / sqrt(shapes[i] * N));
        assert_near(variance, 0.02 * 0.02 / shapes[i], 0.05);
    }
}

/* A Poisson process: gaps are exponential, so 1/e of them are above the mean. */
static void test_poisson(void **state)
{
    (void)state;
    bt_arrivals arrivals;
    bt_arrivals_init(&arrivals, 1000, 1, 5);
    unsigned above = 0;
    uint64_t before = 0;
    enum { N = 100000 };
    for (unsigned n = 0; n < N; n++) {
        uint64_t at = bt_arrivals_next_ns(&arrivals);
        above += at - before > 1000000;
        before = at;
    }
    assert_near((double)above / N, exp(-1), 0.02);
}

static const char page_before[] = "# HELP baton_handoff_seconds x\n"
                                  "# TYPE baton_handoff_seconds histogram\n"
                                  "baton_handoff_seconds_bucket{phase=\"put\",le=\"0.001\"} 5\n"
                                  "baton_handoff_seconds_bucket{phase=\"put\",le=\"0.002\"} 6\n"
                                  "baton_handoff_seconds_bucket{phase=\"put\",le=\"+Inf\"} 6\n"
                                  "baton_handoff_seconds_sum{phase=\"put\"} 0.005\n"
                                  "baton_handoff_seconds_count{phase=\"put\"} 6\n"
                                  "baton_up 1\n"
                                  "other_metric{broken\n";

static const char page_after[] = "baton_handoff_seconds_bucket{phase=\"put\",le=\"0.001\"} 55\n"
                                 "baton_handoff_seconds_bucket{phase=\"put\",le=\"0.002\"} 96\n"
                                 "baton_handoff_seconds_bucket{phase=\"put\",le=\"+Inf\"} 106\n"
                                 "baton_handoff_seconds_sum{phase=\"put\"} 0.205\n"
                                 "baton_new_seconds_bucket{a=\"x\\\"y\",le=\"1\"} 2\n"
                                 "baton_new_seconds_bucket{a=\"x\\\"y\",le=\"+Inf\"} 2\n";

static void test_scrape(void **state)
{
    (void)state;
    static bt_scrape before, after;
    bt_err err;
    memset(&before, 0, sizeof(before));
    memset(&after, 0, sizeof(after));
    assert_int_equal(bt_scrape_add(&before, page_before, strlen(page_before), "baton_", &err),
                     BT_OK);
    assert_int_equal(bt_scrape_add(&after, page_after, strlen(page_after), "baton_", &err), BT_OK);
    assert_int_equal(before.count, 1);
    assert_int_equal(after.count, 2);
    assert_string_equal(after.list[1].labels, "a=\"x\\\"y\"");
    bt_scrape_subtract(&after, &before);
    const bt_scrape_histogram *h = &after.list[0];
    assert_string_equal(h->name, "baton_handoff_seconds");
    assert_string_equal(h->labels, "phase=\"put\"");
    assert_true(bt_scrape_count(h) == 100);
    assert_near(h->sum, 0.2, 1e-12);
    /* 50 up to 1 ms, 40 up to 2 ms, 10 above. */
    assert_near(bt_scrape_percentile(h, 25), 0.0005, 1e-12);
    assert_near(bt_scrape_percentile(h, 50), 0.001, 1e-12);
    assert_near(bt_scrape_percentile(h, 70), 0.0015, 1e-12);
    assert_near(bt_scrape_percentile(h, 99), 0.002, 1e-12);
    /* The pages of two daemons are one. */
    assert_int_equal(bt_scrape_add(&before, page_before, strlen(page_before), "baton_", &err),
                     BT_OK);
    assert_int_equal(before.count, 1);
    assert_true(bt_scrape_count(&before.list[0]) == 12);
}

static void test_scrape_refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "baton_x\n",
        "baton_x{le=\"1\" 5\n",
        "baton_x{le=1} 5\n",
        "baton_x{le=\"1} 5\n",
        "baton_x five\n",
        "baton_x_bucket{le=\"one\"} 5\n",
        "baton_x_bucket{le=\"2\"} 5\nbaton_x_bucket{le=\"1\"} 5\n",
        "baton_x{le=\"1\"}5\n",
    };
    static bt_scrape scrape;
    bt_err err;
    for (size_t i = 0; i < COUNT(bad); i++) {
        memset(&scrape, 0, sizeof(scrape));
        if (bt_scrape_add(&scrape, bad[i], strlen(bad[i]), "baton_", &err) != BT_ERR_FORMAT)
            fail_msg("'%s' is taken", bad[i]);
        assert_true(err.message[0] != '\0');
    }
    char many[64];
    bt_status status = BT_OK;
    memset(&scrape, 0, sizeof(scrape));
    for (unsigned i = 0; i < 100 && status == BT_OK; i++) {
        int bytes = snprintf(many, sizeof(many), "baton_h%u_sum 1\n", i);
        status = bt_scrape_add(&scrape, many, (size_t)bytes, "baton_", &err);
    }
    assert_int_equal(status, BT_ERR_LIMIT);
}

static void test_slo(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",         "ttft",    "ttft=",           "ttft=0ms",        "ttft=5",  "ttft=1s,",
        ",ttft=1s", "itl=5ms", "tpot=1s,tpot=2s", "ttft=1s tpot=2s", "ttft=-1s"};
    bt_slo slo;
    bt_err err;
    for (size_t i = 0; i < COUNT(bad); i++)
        if (bt_slo_parse(bad[i], &slo, &err) != BT_ERR_ARGUMENT) fail_msg("'%s' is taken", bad[i]);
    assert_int_equal(bt_slo_parse("e2e=5s,ttft=200ms", &slo, &err), BT_OK);
    assert_true(slo.any && slo.ttft_ns == 200000000 && slo.tpot_ns == 0 &&
                slo.e2e_ns == 5000000000);
}

/* Two requests in one block: what each measure is, and from when it counts. */
static void test_summary(void **state)
{
    (void)state;
    const uint64_t ms = 1000000;
    bt_record records[] = {
        /* due at 10, sent at 30, tokens at 40, 50, 50, 70 */
        {.due_ns = 10 * ms,
         .sent_ns = 30 * ms,
         .first_ns = 40 * ms,
         .last_ns = 70 * ms,
         .end_ns = 71 * ms,
         .input_asked = 100,
         .output_asked = 4,
         .input_tokens = 101,
         .output_tokens = 4,
         .token_events = 3,
         .gap_count = 3,
         .first_gap = 0},
        {.due_ns = 20 * ms, .sent_ns = 20 * ms, .end_ns = 90 * ms, .outcome = BT_OUTCOME_TIMEOUT},
        {.due_ns = 20 * ms,
         .sent_ns = 20 * ms,
         .first_ns = 25 * ms,
         .last_ns = 25 * ms,
         .end_ns = 26 * ms,
         .input_asked = 100,
         .output_asked = 4,
         .output_tokens = 1,
         .token_events = 1},
    };
    uint64_t gaps[] = {10 * ms, 0, 20 * ms};
    bt_result result = {.records = records,
                        .record_count = 3,
                        .gaps = {.values = gaps, .count = 3},
                        .blocks = {{.begin_ns = 0, .end_ns = 100 * ms, .record_count = 3}},
                        .block_count = 1};
    bt_slo slo = {.ttft_ns = 20 * ms, .any = true};
    bt_summary s;
    assert_int_equal(bt_summary_make(&result, true, &slo, 0, 1, &s, NULL), BT_OK);
    assert_true(s.ok == 2 && s.failed == 1 && s.good == 1);
    assert_true(s.input_off == 1 && s.input_unknown == 1 && s.output_off == 1);
    assert_true(s.input_tokens == 201 && s.output_tokens == 5 && s.token_events == 4);
    assert_true(s.output_low == 1 && s.output_high == 4);
    assert_near(bt_summary_rate(&s, s.ok), 20, 1e-9);
    assert_near(s.measures[BT_MEASURE_TTFT].max, 30e6, 1e-9); /* from due */
    assert_near(s.measures[BT_MEASURE_TTFT_SENT].max, 10e6, 1e-9);
    assert_near(s.measures[BT_MEASURE_E2E].max, 60e6, 1e-9);
    assert_near(s.measures[BT_MEASURE_DELAY].max, 20e6, 1e-9);
    assert_int_equal(s.measures[BT_MEASURE_TPOT].count, 1); /* one token has none */
    assert_near(s.measures[BT_MEASURE_TPOT].mean, 10e6, 1e-9);
    assert_int_equal(s.measures[BT_MEASURE_ITL].count, 3);
    assert_near(s.measures[BT_MEASURE_ITL].mean, 10e6, 1e-9);
    bt_summary_finish(&s);
    assert_int_equal(bt_summary_make(&result, false, &slo, 0, 1, &s, NULL), BT_OK);
    assert_near(s.measures[BT_MEASURE_TTFT].max, 10e6, 1e-9); /* from sent */
    assert_true(s.good == 2);
    bt_summary_finish(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentiles), cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_lengths),     cmocka_unit_test(test_lognormal),
        cmocka_unit_test(test_arrivals),    cmocka_unit_test(test_poisson),
        cmocka_unit_test(test_scrape),      cmocka_unit_test(test_scrape_refuses),
        cmocka_unit_test(test_slo),         cmocka_unit_test(test_summary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
