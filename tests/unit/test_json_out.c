/* common/net/json_out.h: commas, escapes, UTF-8, numbers, the cap. Read back by jansson. */
#include "common/net/json_out.h"

#include "common/base/utf8.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect(const bt_json_out *json, const char *text)
{
    assert_false(json->overflow);
    assert_int_equal(json->bytes, strlen(text));
    assert_memory_equal(json->data, text, json->bytes);
}

static void commas_are_where_they_belong(void **state)
{
    (void)state;
    bt_json_out j;
    bt_json_init(&j, 1 << 16);
    bt_json_begin(&j, '{');
    bt_json_key(&j, "empty");
    bt_json_begin(&j, '[');
    bt_json_end(&j, ']');
    bt_json_key(&j, "ids");
    bt_json_begin(&j, '[');
    bt_json_u64(&j, 0);
    bt_json_u64(&j, UINT64_MAX);
    bt_json_begin(&j, '{');
    bt_json_end(&j, '}');
    bt_json_end(&j, ']');
    bt_json_key(&j, "a");
    bt_json_text(&j, "x");
    bt_json_key(&j, "b");
    bt_json_text(&j, NULL);
    bt_json_key(&j, "c");
    bt_json_bool(&j, true);
    bt_json_key(&j, "d");
    bt_json_bool(&j, false);
    bt_json_key_string(&j, "a \"key\"\n", 8);
    bt_json_u64(&j, 1);
    bt_json_key_string(&j, "", 0);
    bt_json_u64(&j, 2);
    bt_json_end(&j, '}');
    expect(&j, "{\"empty\": [], \"ids\": [0, 18446744073709551615, {}], \"a\": \"x\", \"b\": null, "
               "\"c\": true, \"d\": false, \"a \\\"key\\\"\\n\": 1, \"\": 2}");
    bt_json_reset(&j);
    bt_json_raw(&j, "data: ");
    bt_json_begin(&j, '[');
    bt_json_null(&j);
    bt_json_end(&j, ']');
    bt_json_raw(&j, "\n\ndata: ");
    bt_json_u64(&j, 1);
    expect(&j, "data: [null]\n\ndata: 1");
    bt_json_finish(&j);
}

static void numbers_are_json(void **state)
{
    (void)state;
    bt_json_out j;
    bt_json_init(&j, 1 << 16);
    bt_json_begin(&j, '[');
    bt_json_double(&j, 0.1f);
    bt_json_double(&j, -1.5);
    bt_json_double(&j, 1e30);
    bt_json_double(&j, NAN);
    bt_json_double(&j, INFINITY);
    bt_json_double(&j, -INFINITY);
    bt_json_end(&j, ']');
    expect(&j, "[0.100000001, -1.5, 1e+30, null, null, null]");
    bt_json_finish(&j);
}

static void text_is_escaped_and_repaired(void **state)
{
    (void)state;
    static const struct {
        const char *text, *json;
        size_t bytes;
    } rows[] = {
        {"", "\"\"", 0},
        {"a\"b\\c/", "\"a\\\"b\\\\c/\"", 6},
        {"\b\f\n\r\t", "\"\\b\\f\\n\\r\\t\"", 5},
        {"\0\x01\x1f\x7f", "\"\\u0000\\u0001\\u001f\\u007f\"", 4},
        {"h\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\"h\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", 10},
        {"\xff", "\"\xef\xbf\xbd\"", 1},
        {"a\xc3", "\"a\xef\xbf\xbd\"", 2},
        {"\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\"", 2},
        {"\xed\xa0\x80z", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\"", 4},
        {"\xf0\x9f\x98", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"", 3},
    };
    bt_json_out j;
    bt_json_init(&j, 1 << 16);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bt_json_reset(&j);
        bt_json_string(&j, rows[i].text, rows[i].bytes);
        expect(&j, rows[i].json);
    }
    bt_json_reset(&j);
    bt_json_string(&j, NULL, 0);
    expect(&j, "\"\"");
    bt_json_finish(&j);
}

static void random_bytes_come_back_through_jansson(void **state)
{
    (void)state;
    unsigned seed = 20261123;
    bt_json_out j;
    bt_json_init(&j, 1 << 16);
    for (unsigned round = 0; round < 2000; round++) {
        char text[64];
        size_t bytes = (size_t)rand_r(&seed) % sizeof(text);
        for (size_t i = 0; i < bytes; i++) text[i] = (char)(rand_r(&seed) >> 7);
        bt_json_reset(&j);
        bt_json_begin(&j, '[');
        bt_json_string(&j, text, bytes);
        bt_json_end(&j, ']');
        json_t *back = json_loadb(j.data, j.bytes, JSON_ALLOW_NUL, NULL);
        assert_non_null(back);
        const json_t *value = json_array_get(back, 0);
        assert_true(json_is_string(value));
        if (bt_utf8_valid(text, bytes)) {
            assert_int_equal(json_string_length(value), bytes);
            assert_memory_equal(json_string_value(value), text, bytes);
        }
        json_decref(back);
    }
    bt_json_finish(&j);
}

static void beyond_the_cap_everything_is_dropped_and_told(void **state)
{
    (void)state;
    static const char text[] = "0123456789";
    for (size_t cap = 0; cap < 20; cap++) {
        bt_json_out j;
        bt_json_init(&j, cap);
        bt_json_begin(&j, '[');
        bt_json_string(&j, text, 10);
        bt_json_end(&j, ']');
        assert_int_equal(j.overflow, cap < 14);
        assert_true(j.bytes <= cap);
        bt_json_reset(&j);
        assert_false(j.overflow);
        bt_json_finish(&j);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas_are_where_they_belong),
        cmocka_unit_test(numbers_are_json),
        cmocka_unit_test(text_is_escaped_and_repaired),
        cmocka_unit_test(random_bytes_come_back_through_jansson),
        cmocka_unit_test(beyond_the_cap_everything_is_dropped_and_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
