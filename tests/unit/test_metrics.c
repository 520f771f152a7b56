/* common/base/metrics.h: the text, its bounds, the checks at registration, a reading thread.
 * With an argument it writes its sample exposition to that file instead: tests/e2e parses it with
 * another implementation. */
#include "common/base/metrics.h"
#include "tests/aborts.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double bounds[] = {0.5, 1, 2.5};
static const bt_buckets buckets = {.bounds = bounds, .count = 3};

static const char sample_text[] =
    "# HELP baton_requests_total Requests by outcome.\n"
    "# TYPE baton_requests_total counter\n"
    "baton_requests_total{outcome=\"finished\"} 18446744073709551615\n"
    "baton_requests_total{outcome=\"a \\\"quoted\\\\\\n\xc3\xa9\"} 2\n"
    "# HELP baton_kv_blocks Blocks of the pool by state.\n"
    "# TYPE baton_kv_blocks gauge\n"
    "baton_kv_blocks{role=\"decode\",state=\"free\"} 0.1\n"
    "baton_kv_blocks{role=\"decode\",state=\"held\"} 1e+300\n"
    "# HELP baton_busy_seconds_total Time in steps.\n"
    "# TYPE baton_busy_seconds_total counter\n"
    "baton_busy_seconds_total 1.5\n"
    "# HELP baton_odd A gauge of no number.\n"
    "# TYPE baton_odd gauge\n"
    "baton_odd NaN\n"
    "# HELP baton_ttft_seconds Time to the first token.\n"
    "# TYPE baton_ttft_seconds histogram\n"
    "baton_ttft_seconds_bucket{model=\"m\",le=\"0.5\"} 2\n"
    "baton_ttft_seconds_bucket{model=\"m\",le=\"1\"} 2\n"
    "baton_ttft_seconds_bucket{model=\"m\",le=\"2.5\"} 3\n"
    "baton_ttft_seconds_bucket{model=\"m\",le=\"+Inf\"} 4\n"
    "baton_ttft_seconds_sum{model=\"m\"} 12.75\n"
    "baton_ttft_seconds_count{model=\"m\"} 4\n";

static bt_metrics *make_sample(void)
{
    bt_metrics *metrics;
    assert_int_equal(bt_metrics_create(16, &metrics, NULL), BT_OK);
    bt_label finished = {"outcome", "finished"}, odd = {"outcome", "a \"quoted\\\n\xc3\xa9"};
    bt_label states[2][2] = {{{"role", "decode"}, {"state", "free"}},
                             {{"role", "decode"}, {"state", "held"}}};
    const char *name = "baton_requests_total", *help = "Requests by outcome.";
    bt_counter_add(bt_metrics_counter(metrics, name, help, &finished, 1), UINT64_MAX);
    const char *kv = "baton_kv_blocks", *kv_help = "Blocks of the pool by state.";
    bt_gauge_set(bt_metrics_gauge(metrics, kv, kv_help, states[0], 2), 0.1);
    bt_counter_add(
        bt_metrics_counter_ns(metrics, "baton_busy_seconds_total", "Time in steps.", NULL, 0),
        1500000000);
    bt_gauge_set(bt_metrics_gauge(metrics, "baton_odd", "A gauge of no number.", NULL, 0), NAN);
    /* Registered later, shown with its family. */
    bt_counter_add(bt_metrics_counter(metrics, name, help, &odd, 1), 2);
    bt_gauge_set(bt_metrics_gauge(metrics, kv, kv_help, states[1], 2), 1e300);
    bt_label model = {"model", "m"};
    bt_histogram *ttft = bt_metrics_histogram(metrics, "baton_ttft_seconds",
                                              "Time to the first token.", buckets, &model, 1);
    static const double values[] = {0.25, 0.5, 2, 10};
    for (int i = 0; i < 4; i++) bt_histogram_observe(ttft, values[i]);
    bt_histogram_observe(ttft, NAN);
    assert_int_equal(bt_histogram_count(ttft), 4);
    return metrics;
}

static void test_text(void **state)
{
    (void)state;
    bt_metrics *metrics = make_sample();
    char text[4096];
    size_t bytes;
    assert_int_equal(bt_metrics_write(metrics, text, sizeof(text), &bytes, NULL), BT_OK);
    text[bytes] = '\0';
    assert_string_equal(text, sample_text);
    bt_metrics_destroy(metrics);
}

static void test_too_small_a_buffer(void **state)
{
    (void)state;
    bt_metrics *metrics = make_sample();
    size_t needed = strlen(sample_text), bytes = 0;
    assert_true(bt_metrics_text_bytes_max(metrics) >= needed);
    for (size_t capacity = 0; capacity < needed; capacity += 37) {
        char *text = malloc(capacity + 1); /* of that very size: ASan sees a byte too many */
        assert_int_equal(bt_metrics_write(metrics, text, capacity, &bytes, NULL), BT_ERR_LIMIT);
        free(text);
    }
    char *text = malloc(needed);
    assert_int_equal(bt_metrics_write(metrics, text, needed, &bytes, NULL), BT_OK);
    assert_int_equal(bytes, needed);
    free(text);
    bt_metrics_destroy(metrics);
}

static void test_same_series_again(void **state)
{
    (void)state;
    bt_metrics *metrics;
    assert_int_equal(bt_metrics_create(2, &metrics, NULL), BT_OK);
    bt_label peer = {"peer", "d0"}, other = {"peer", "d1"};
    bt_counter *counter = bt_metrics_counter(metrics, "baton_x_total", "X.", &peer, 1);
    assert_ptr_equal(bt_metrics_counter(metrics, "baton_x_total", "X.", &peer, 1), counter);
    assert_ptr_not_equal(bt_metrics_counter(metrics, "baton_x_total", "X.", &other, 1), counter);
    bt_counter_set(counter, 7);
    bt_counter_add(counter, 1);
    assert_int_equal(bt_counter_value(counter), 8);
    bt_metrics_destroy(metrics);
    bt_metrics_destroy(NULL);
}

/* A registration that must assert. */
typedef struct {
    const char *name;
    bool gauge;
    bt_label label;
} bad_series;

static void register_bad(void *ctx)
{
    const bad_series *bad = ctx;
    bt_metrics *metrics = NULL;
    if (bt_metrics_create(4, &metrics, NULL) != BT_OK) return;
    uint32_t label_count = bad->label.name != NULL;
    bt_metrics_counter(metrics, "baton_known_total", "Known.", NULL, 0);
    if (bad->gauge) {
        bt_metrics_gauge(metrics, bad->name, "Bad.", &bad->label, label_count);
    } else {
        bt_metrics_counter(metrics, bad->name, "Bad.", &bad->label, label_count);
    }
}

static void test_bad_names_assert(void **state)
{
    (void)state;
    static bad_series bad[] = {
        {"requests_total", false, {0}},
        {"baton_requests", false, {0}},
        {"baton_Requests_total", false, {0}},
        {"baton_a-b_total", false, {0}},
        {"baton_x_total", true, {0}},
        {"baton_x_count", true, {0}},
        {"baton_known_total", true, {0}},
        {"baton_known_total", false, {"role", "decode"}},
        {"baton_x_total", false, {"Role", "decode"}},
        {"baton_x_total", false, {"le", "1"}},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_true(bt_test_aborts(register_bad, &bad[i]));
    bad_series good = {"baton_x_total", false, {"role", "decode"}};
    assert_false(bt_test_aborts(register_bad, &good));
}

static void register_too_many(void *ctx)
{
    bt_metrics *metrics = ctx;
    bt_metrics_gauge(metrics, "baton_b", "B.", NULL, 0);
}

static void go_down(void *ctx)
{
    bt_counter_set(ctx, 1);
}

static void test_bounds_assert(void **state)
{
    (void)state;
    bt_metrics *metrics;
    assert_int_equal(bt_metrics_create(1, &metrics, NULL), BT_OK);
    bt_counter *counter = bt_metrics_counter(metrics, "baton_a_total", "A.", NULL, 0);
    assert_true(bt_test_aborts(register_too_many, metrics));
    bt_counter_set(counter, 2);
    assert_true(bt_test_aborts(go_down, counter));
    bt_metrics_destroy(metrics);
}

#define UPDATES 100000u

typedef struct {
    bt_counter *counter;
    bt_histogram *histogram;
} owned;

static void *update(void *arg)
{
    owned *mine = arg;
    for (unsigned i = 0; i < UPDATES; i++) {
        bt_counter_add(mine->counter, 1);
        bt_histogram_observe(mine->histogram, i % 4);
    }
    return NULL;
}

static void test_read_while_updated(void **state)
{
    (void)state;
    bt_metrics *metrics;
    assert_int_equal(bt_metrics_create(4, &metrics, NULL), BT_OK);
    owned mine = {
        .counter = bt_metrics_counter(metrics, "baton_a_total", "A.", NULL, 0),
        .histogram = bt_metrics_histogram(metrics, "baton_h", "H.", buckets, NULL, 0),
    };
    pthread_t owner;
    assert_int_equal(pthread_create(&owner, NULL, update, &mine), 0);
    uint64_t last = 0;
    for (unsigned i = 0; i < 50; i++) {
        char text[2048];
        size_t bytes;
        assert_int_equal(bt_metrics_write(metrics, text, sizeof(text), &bytes, NULL), BT_OK);
        assert_true(bt_counter_value(mine.counter) >= last);
        last = bt_counter_value(mine.counter);
    }
    pthread_join(owner, NULL);
    assert_int_equal(bt_counter_value(mine.counter), UPDATES);
    assert_int_equal(bt_histogram_count(mine.histogram), UPDATES);
    bt_metrics_destroy(metrics);
}

static int write_sample(const char *path)
{
    bt_metrics *metrics = make_sample();
    char text[4096];
    size_t bytes;
    if (bt_metrics_write(metrics, text, sizeof(text), &bytes, NULL) != BT_OK) return 1;
    bt_metrics_destroy(metrics);
    FILE *out = fopen(path, "w");
    if (out == NULL) return 1;
    fwrite(text, 1, bytes, out);
    return fclose(out) == 0 ? 0 : 1;
}

static void test_room(void **state)
{
    (void)state;
    bt_metrics *metrics;
    assert_int_equal(bt_metrics_create(2, &metrics, NULL), BT_OK);
    assert_int_equal(bt_metrics_room(metrics), 2);
    bt_label a = {"peer", "a"}, b = {"peer", "b"};
    for (int again = 0; again < 2; again++) {
        bt_metrics_gauge(metrics, "baton_x", "X.", &a, 1);
        assert_int_equal(bt_metrics_room(metrics), 1);
    }
    bt_metrics_gauge(metrics, "baton_x", "X.", &b, 1);
    assert_int_equal(bt_metrics_room(metrics), 0);
    bt_metrics_destroy(metrics);
}

int main(int argc, char **argv)
{
    if (argc > 1) return write_sample(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_too_small_a_buffer),
        cmocka_unit_test(test_same_series_again),
        cmocka_unit_test(test_bad_names_assert),
        cmocka_unit_test(test_bounds_assert),
        cmocka_unit_test(test_read_while_updated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
