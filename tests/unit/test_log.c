/* common/base/log.h: one call is one line, whatever it holds, from any thread, and not too many. */
#include "common/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define THREADS 4u
#define LINES_EACH 200u

static FILE *file; /* what the logger writes to */
static uint64_t now_ns;

static uint64_t test_now(void *ctx)
{
    (void)ctx;
    return now_ns;
}

static int open_log(void **state)
{
    (void)state;
    file = tmpfile();
    if (file == NULL) return -1;
    bt_log_start(&(bt_log_config){
        .name = "decoded-0", .level = BT_LOG_INFO, .style = BT_LOG_AUTO, .fd = fileno(file)});
    now_ns = 1000 * BT_NS_PER_S;
    bt_clock clock = {.now = test_now};
    bt_log_set_clock(&clock);
    return 0;
}

static int close_log(void **state)
{
    (void)state;
    bt_log_set_clock(NULL);
    fclose(file);
    return 0;
}

/* Everything logged so far; valid until the next call. */
static const char *logged(void)
{
    static char text[512 * 1024];
    ssize_t bytes = pread(fileno(file), text, sizeof(text) - 1, 0);
    assert_true(bytes >= 0);
    text[bytes] = '\0';
    return text;
}

static unsigned count_lines(const char *text)
{
    unsigned lines = 0;
    for (; *text != '\0'; text++) lines += *text == '\n';
    return lines;
}

static void test_line(void **state)
{
    (void)state;
    bt_log_info("4f1d", "accepted, %d tokens", 512);
    bt_log_warning(NULL, "slow");
    const char *text = logged();
    unsigned year, micro;
    char month[3], rest[200];
    assert_int_equal(
        sscanf(text, "%4u-%2[0-9]-%*2uT%*2u:%*2u:%*2u.%6uZ %199[^\n]", &year, month, &micro, rest),
        4);
    assert_true(year >= 2024);
    assert_string_equal(rest, "info decoded-0 [req 4f1d] accepted, 512 tokens");
    assert_non_null(strstr(text, "Z warning decoded-0 slow\n"));
    assert_int_equal(count_lines(text), 2);
}

static void test_levels(void **state)
{
    (void)state;
    bt_log_debug(NULL, "not shown");
    assert_string_equal(logged(), "");
    bt_log_set_level(BT_LOG_DEBUG);
    bt_log_debug(NULL, "shown");
    bt_log_set_level(BT_LOG_ERROR);
    bt_log_warning(NULL, "not shown");
    bt_log_error(NULL, "shown too");
    assert_int_equal(count_lines(logged()), 2);
    assert_null(strstr(logged(), "not shown"));
    for (unsigned i = 0; bt_log_level_names[i] != NULL; i++) bt_log_level_at(i);
    assert_int_equal(bt_log_level_at(0), BT_LOG_ERROR);
    assert_int_equal(bt_log_level_at(3), BT_LOG_DEBUG);
}

static void test_nothing_forges_a_line(void **state)
{
    (void)state;
    bt_log_info("id\n<0>2026 error root", "%s", "a\nb\r\x1b[2J\xff");
    const char *text = logged();
    assert_int_equal(count_lines(text), 1);
    assert_non_null(strstr(text, "[req id\\n<0>2026 error root] a\\nb\\x0d\\x1b[2J\\xff\n"));
}

static void test_long_line_is_cut(void **state)
{
    (void)state;
    static char message[3 * BT_LOG_LINE_BYTES_MAX];
    memset(message, 1, sizeof(message) - 1); /* becomes four times as long */
    bt_log_info(message, "%s", message);
    const char *text = logged();
    assert_int_equal(count_lines(text), 1);
    assert_true(strlen(text) <= BT_LOG_LINE_BYTES_MAX);
    assert_int_equal(text[strlen(text) - 1], '\n');
}

static void repeat(unsigned number)
{
    bt_log_info(NULL, "again %u", number);
}

static void test_repeated_lines_are_capped(void **state)
{
    (void)state;
    for (unsigned i = 0; i < BT_LOG_BURST + 30; i++) repeat(i);
    bt_log_info(NULL, "another place is not capped");
    assert_int_equal(count_lines(logged()), BT_LOG_BURST + 1);
    now_ns += BT_NS_PER_S;
    repeat(1000);
    assert_non_null(strstr(logged(), "again 1000 [30 more like this left out]\n"));
    repeat(1001);
    assert_non_null(strstr(logged(), "again 1001\n"));
}

static void test_debug_is_not_capped(void **state)
{
    (void)state;
    bt_log_set_level(BT_LOG_DEBUG);
    for (unsigned i = 0; i < 3 * BT_LOG_BURST; i++) bt_log_debug(NULL, "%u", i);
    assert_int_equal(count_lines(logged()), 3 * BT_LOG_BURST);
}

static void test_errno_is_kept(void **state)
{
    (void)state;
    errno = ENOENT;
    bt_log_info(NULL, "%m");
    assert_int_equal(errno, ENOENT);
    assert_non_null(strstr(logged(), strerror(ENOENT)));
}

/* On a pipe the journal reads, so lines carry their priority. */
static void test_priority_on_a_pipe(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    bt_log_config config = {.name = "r", .level = BT_LOG_INFO, .fd = ends[1]};
    bt_log_start(&config);
    bt_log_error(NULL, "bad");
    config.style = BT_LOG_PLAIN;
    bt_log_start(&config);
    bt_log_error(NULL, "bad");
    close(ends[1]);
    char text[400];
    ssize_t bytes = read(ends[0], text, sizeof(text) - 1);
    close(ends[0]);
    assert_true(bytes > 0);
    text[bytes] = '\0';
    assert_memory_equal(text, "<3>2", 4);
    assert_memory_equal(strchr(text, '\n') + 1, "20", 2);
}

static void *log_lines(void *arg)
{
    unsigned thread = *(unsigned *)arg;
    char marks[80];
    memset(marks, 'a' + (int)thread, sizeof(marks) - 1);
    marks[sizeof(marks) - 1] = '\0';
    for (unsigned i = 0; i < LINES_EACH; i++) bt_log_debug("r", "<%s>", marks);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    bt_log_set_level(BT_LOG_DEBUG);
    pthread_t threads[THREADS];
    unsigned numbers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, log_lines, &numbers[i]), 0);
    }
    for (unsigned i = 0; i < 100; i++) repeat(i); /* the cap is used meanwhile */
    for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    const char *text = logged();
    assert_int_equal(count_lines(text), THREADS * LINES_EACH + BT_LOG_BURST);
    /* No line is mixed with another: between < and > all marks are the same. */
    for (const char *at = strchr(text, '<'); at != NULL; at = strchr(at + 1, '<')) {
        const char *end = strchr(at, '>');
        assert_non_null(end);
        assert_int_equal(end - at, 80);
        for (const char *mark = at + 1; mark < end; mark++) assert_int_equal(*mark, at[1]);
    }
}

int main(void)
{
#define LOG_TEST(name) cmocka_unit_test_setup_teardown(name, open_log, close_log)
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_line),
        LOG_TEST(test_levels),
        LOG_TEST(test_nothing_forges_a_line),
        LOG_TEST(test_long_line_is_cut),
        LOG_TEST(test_repeated_lines_are_capped),
        LOG_TEST(test_debug_is_not_capped),
        LOG_TEST(test_errno_is_kept),
        LOG_TEST(test_priority_on_a_pipe),
        LOG_TEST(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
