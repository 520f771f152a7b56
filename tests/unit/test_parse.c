/* common/base/parse.h: what is taken, what is refused, and that nothing is written on refusal. */
#include "common/base/parse.h"
#include "common/base/utf8.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define UNTOUCHED 77u

typedef bt_status (*parser)(const char *text, uint64_t *ret_value, bt_err *err);

static void assert_takes(parser parse, const char *text, uint64_t expected)
{
    uint64_t value = UNTOUCHED;
    bt_err err;
    if (parse(text, &value, &err) != BT_OK) fail_msg("'%s': %s", text, err.message);
    if (value != expected) fail_msg("'%s' is read as %llu", text, (unsigned long long)value);
}

static void assert_refuses(parser parse, const char *text)
{
    uint64_t value = UNTOUCHED;
    bt_err err = {0};
    if (parse(text, &value, &err) != BT_ERR_ARGUMENT) fail_msg("'%s' is taken", text);
    assert_true(value == UNTOUCHED);
    assert_true(err.message[0] != '\0');
}

static void test_u64(void **state)
{
    (void)state;
    assert_takes(bt_parse_u64, "0", 0);
    assert_takes(bt_parse_u64, "007", 7);
    assert_takes(bt_parse_u64, "18446744073709551615", UINT64_MAX);
    static const char *const bad[] = {"",    " 1",
                                      "1 ",  "+1",
                                      "-1",  "1x",
                                      "0x1", "1.",
                                      "１",  "18446744073709551616",
                                      "1e3", "99999999999999999999999",
                                      "1\n"};
    for (size_t i = 0; i < COUNT(bad); i++) assert_refuses(bt_parse_u64, bad[i]);
}

static void test_u32(void **state)
{
    (void)state;
    uint32_t value = UNTOUCHED;
    bt_err err;
    assert_int_equal(bt_parse_u32("65535", 65535, &value, NULL), BT_OK);
    assert_int_equal(value, 65535);
    assert_int_equal(bt_parse_u32("65536", 65535, &value, &err), BT_ERR_ARGUMENT);
    assert_string_equal(err.message, "'65536' is not a whole number from 0 to 65535");
    assert_int_equal(bt_parse_u32("4294967296", UINT32_MAX, &value, NULL), BT_ERR_ARGUMENT);
    assert_int_equal(value, 65535);
}

static void test_double(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double value;
    } good[] = {{"0", 0}, {"-1.5", -1.5}, {"+.5", .5}, {"1e-3", .001}, {"2.", 2}};
    for (size_t i = 0; i < COUNT(good); i++) {
        double value = NAN;
        assert_int_equal(bt_parse_double(good[i].text, &value, NULL), BT_OK);
        assert_true(value == good[i].value);
    }
    static const char *const bad[] = {"",    " 1", "1 ", "inf",   "nan", "0x1p3", "1e999", "-1e999",
                                      "1,5", "1e", "e1", "1.2.3", ".",   "-",     "--1",   "1f"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        double value = 5;
        assert_int_equal(bt_parse_double(bad[i], &value, NULL), BT_ERR_ARGUMENT);
        assert_true(value == 5);
    }
    char text[200];
    memset(text, '1', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    double value;
    assert_int_equal(bt_parse_double(text, &value, NULL), BT_ERR_ARGUMENT);
}

static void test_bytes(void **state)
{
    (void)state;
    assert_takes(bt_parse_bytes, "0", 0);
    assert_takes(bt_parse_bytes, "4096", 4096);
    assert_takes(bt_parse_bytes, "1B", 1);
    assert_takes(bt_parse_bytes, "64KiB", 65536);
    assert_takes(bt_parse_bytes, "64MiB", 67108864);
    assert_takes(bt_parse_bytes, "2GiB", 2147483648u);
    assert_takes(bt_parse_bytes, "16777215TiB", 16777215ull << 40);
    static const char *const bad[] = {
        "",       "MiB",    "64MB", "64M",         "64mib",
        "1.5GiB", "64 MiB", "-1B",  "16777216TiB", "18446744073709551616",
        "64MiBs"};
    for (size_t i = 0; i < COUNT(bad); i++) assert_refuses(bt_parse_bytes, bad[i]);
}

static void test_duration(void **state)
{
    (void)state;
    assert_takes(bt_parse_duration_ns, "0", 0);
    assert_takes(bt_parse_duration_ns, "7ns", 7);
    assert_takes(bt_parse_duration_ns, "500us", 500000);
    assert_takes(bt_parse_duration_ns, "20ms", 20000000);
    assert_takes(bt_parse_duration_ns, "10s", 10000000000u);
    assert_takes(bt_parse_duration_ns, "5min", 300000000000u);
    assert_takes(bt_parse_duration_ns, "2h", 7200000000000u);
    assert_takes(bt_parse_duration_ns, "1d", 86400000000000u);
    static const char *const bad[] = {"",       "10",  "10 s", "1.5s",    "10sec",
                                      "s",      "-1s", "5m",   "1min30s", "18446744073710s",
                                      "213504d"};
    for (size_t i = 0; i < COUNT(bad); i++) assert_refuses(bt_parse_duration_ns, bad[i]);
}

static void test_bool(void **state)
{
    (void)state;
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    static const char *const bad[] = {"", "True", "y", "2", "on "};
    bool value = false;
    for (size_t i = 0; i < COUNT(yes); i++) {
        assert_int_equal(bt_parse_bool(yes[i], &value, NULL), BT_OK);
        assert_true(value);
        assert_int_equal(bt_parse_bool(no[i], &value, NULL), BT_OK);
        assert_false(value);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(bt_parse_bool(bad[i], &value, NULL), BT_ERR_ARGUMENT);
}

static void test_formats_are_read_back(void **state)
{
    (void)state;
    static const uint64_t values[] = {0,          1,
                                      1023,       1024,
                                      1536,       1000,
                                      1000000,    60000000000u,
                                      3ull << 40, 90 * 1000000000ull,
                                      UINT64_MAX, 86400000000000u};
    char text[BT_UNIT_TEXT_BYTES];
    for (size_t i = 0; i < COUNT(values); i++) {
        assert_takes(bt_parse_bytes, bt_format_bytes(values[i], text), values[i]);
        assert_takes(bt_parse_duration_ns, bt_format_duration_ns(values[i], text), values[i]);
    }
    assert_string_equal(bt_format_bytes(1536, text), "1536B");
    assert_string_equal(bt_format_bytes(64 << 20, text), "64MiB");
    assert_string_equal(bt_format_duration_ns(90000000000, text), "90s");
    assert_string_equal(bt_format_duration_ns(120000000000, text), "2min");
}

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t length;
        uint32_t code;
    } good[] = {
        {"a", 1, 'a'},
        {"\xc2\x80", 2, 0x80},
        {"\xdf\xbf", 2, 0x7ff},
        {"\xe0\xa0\x80", 3, 0x800},
        {"\xed\x9f\xbf", 3, 0xd7ff},
        {"\xee\x80\x80", 3, 0xe000},
        {"\xef\xbf\xbf", 3, 0xffff},
        {"\xf0\x90\x80\x80", 4, 0x10000},
        {"\xf4\x8f\xbf\xbf", 4, 0x10ffff},
    };
    for (size_t i = 0; i < COUNT(good); i++) {
        uint32_t code = 0;
        size_t bytes = strlen(good[i].text);
        assert_int_equal(bt_utf8_char(good[i].text, bytes, &code), good[i].length);
        assert_int_equal(code, good[i].code);
        assert_true(bt_utf8_valid(good[i].text, bytes));
        if (bytes > 1) assert_int_equal(bt_utf8_char(good[i].text, bytes - 1, NULL), 0);
    }
    /* Overlong, surrogates, beyond Unicode, stray and missing continuation, never-bytes. */
    static const char *const bad[] = {
        "\x80",
        "\xc0\x80",
        "\xc1\xbf",
        "\xe0\x9f\xbf",
        "\xf0\x8f\xbf\xbf",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "\xe2\x82"
        "a",
        "\xc3"
        "(",
    };
    for (size_t i = 0; i < COUNT(bad); i++) assert_false(bt_utf8_valid(bad[i], strlen(bad[i])));
    assert_true(bt_utf8_valid("", 0));
}

static void test_escape(void **state)
{
    (void)state;
    static const struct {
        const char *text, *escaped;
    } cases[] = {
        {"plain \xc3\xa9 \xe6\xbc\xa2", "plain \xc3\xa9 \xe6\xbc\xa2"},
        {"a\nb\tc\\d", "a\\nb\\tc\\\\d"},
        {"\x1b[31mred\r", "\\x1b[31mred\\x0d"},
        {"\x7f\xc2\x9b\xff", "\\x7f\\xc2\\x9b\\xff"},
        {"\xe2\x80\xa8\xe2\x80\xae", "\\xe2\\x80\\xa8\\xe2\\x80\\xae"},
    };
    char text[100];
    for (size_t i = 0; i < COUNT(cases); i++) {
        bt_escape(cases[i].text, strlen(cases[i].text), text, sizeof(text));
        assert_string_equal(text, cases[i].escaped);
    }
    /* Cut between characters and between escapes, never inside one. */
    assert_string_equal(bt_escape("ab\xe6\xbc\xa2", 5, text, 5), "ab");
    assert_string_equal(bt_escape("a\x01z", 3, text, 5), "a");
    assert_string_equal(bt_escape("a\0z", 3, text, sizeof(text)), "a\\x00z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_u64),
        cmocka_unit_test(test_u32),
        cmocka_unit_test(test_double),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_duration),
        cmocka_unit_test(test_bool),
        cmocka_unit_test(test_formats_are_read_back),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_escape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
