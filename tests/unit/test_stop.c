/* common/text/stop.h: matches are found wherever the borders of the pieces fall, and nothing is held
 * longer than it must be. */
#include "common/text/stop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void init(bt_stop *stop, const char *const *texts, uint32_t count)
{
    bt_stop_string strings[BT_STOP_STRINGS_MAX] = {0};
    for (uint32_t i = 0; i < count; i++) strings[i] = (bt_stop_string){texts[i], strlen(texts[i])};
    assert_int_equal(bt_stop_init(stop, strings, count, NULL), BT_OK);
}

/* Pushes one piece and compares what is released. */
static void push(bt_stop *stop, const char *piece, const char *expected)
{
    char out[2 * BT_STOP_BYTES_MAX];
    size_t bytes = bt_stop_push(stop, piece, strlen(piece), out);
    if (bytes != strlen(expected) || memcmp(out, expected, bytes) != 0)
        fail_msg("'%s' released '%.*s', not '%s'", piece, (int)bytes, out, expected);
}

static void test_a_match_across_pieces(void **state)
{
    (void)state;
    bt_stop stop;
    init(&stop, (const char *const[]){"\n\nQ:"}, 1);
    push(&stop, "yes.\n", "yes.");
    push(&stop, "\n", "");
    push(&stop, "Q", "");
    assert_false(stop.matched);
    push(&stop, ": more", "");
    assert_true(stop.matched);
    assert_int_equal(stop.matched_index, 0);
}

static void test_a_false_start_is_released(void **state)
{
    (void)state;
    bt_stop stop;
    init(&stop, (const char *const[]){"aab"}, 1);
    push(&stop, "aa", "");
    push(&stop, "a", "a"); /* the last two may still begin the string */
    push(&stop, "c", "aac");
    push(&stop, "a", "");
    char out[BT_STOP_BYTES_MAX];
    assert_int_equal(bt_stop_flush(&stop, out), 1);
    assert_int_equal(out[0], 'a');
    assert_int_equal(bt_stop_flush(&stop, out), 0);
}

static void test_which_of_several(void **state)
{
    (void)state;
    bt_stop stop;
    init(&stop, (const char *const[]){"END", "ND", "THE END"}, 3);
    push(&stop, "to THE EN", "to ");
    push(&stop, "D.", "");
    assert_true(stop.matched);
    assert_int_equal(stop.matched_index, 2);
    init(&stop, (const char *const[]){"abcd", "bc"}, 2);
    push(&stop, "xabcd", "xa");
    assert_int_equal(stop.matched_index, 1);
}

static void test_no_strings(void **state)
{
    (void)state;
    bt_stop stop;
    init(&stop, NULL, 0);
    push(&stop, "all of it", "all of it");
    push(&stop, "", "");
}

static void test_limits(void **state)
{
    (void)state;
    static char text[BT_STOP_BYTES_MAX + 1];
    memset(text, 'x', sizeof(text));
    bt_stop stop;
    bt_err err;
    bt_stop_string one = {text, 0};
    assert_int_equal(bt_stop_init(&stop, &one, 1, &err), BT_ERR_ARGUMENT);
    one.bytes = BT_STOP_BYTES_MAX + 1;
    assert_int_equal(bt_stop_init(&stop, &one, 1, &err), BT_ERR_LIMIT);
    one.bytes = BT_STOP_BYTES_MAX;
    assert_int_equal(bt_stop_init(&stop, &one, 1, &err), BT_OK);
    bt_stop_string many[BT_STOP_STRINGS_MAX + 1];
    for (unsigned i = 0; i <= BT_STOP_STRINGS_MAX; i++) many[i] = (bt_stop_string){"x", 1};
    assert_int_equal(bt_stop_init(&stop, many, BT_STOP_STRINGS_MAX + 1, &err), BT_ERR_LIMIT);
    /* The longest string, one byte at a time: all of it is held, none of it is sent. */
    assert_int_equal(bt_stop_init(&stop, &one, 1, &err), BT_OK);
    for (unsigned i = 0; i < BT_STOP_BYTES_MAX; i++) push(&stop, "x", "");
    assert_true(stop.matched);
}

/* The plain definition: the first end of any string, the longest of those that end there. */
static size_t slow_match(const char *text, size_t bytes, const char *const *strings, uint32_t count,
                         uint32_t *ret_index)
{
    for (size_t end = 1; end <= bytes; end++) {
        size_t longest = 0;
        for (uint32_t s = 0; s < count; s++) {
            size_t length = strlen(strings[s]);
            if (length > end || length <= longest) continue;
            if (memcmp(text + end - length, strings[s], length) != 0) continue;
            longest = length;
            *ret_index = s;
        }
        if (longest > 0) return end - longest;
    }
    return SIZE_MAX;
}

static void test_random_against_the_definition(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    printf("seed %u\n", seed);
    srand(seed);
    for (int round = 0; round < 3000; round++) {
        char text[64], strings[3][6], sent[256];
        const char *list[3] = {strings[0], strings[1], strings[2]};
        uint32_t count = 1 + (uint32_t)rand() % 3, expected_index = 0;
        size_t bytes = (size_t)rand() % sizeof(text), at = 0, out = 0;
        for (size_t i = 0; i < bytes; i++) text[i] = (char)('a' + rand() % 2);
        for (uint32_t s = 0; s < count; s++) {
            int length = 1 + rand() % 5;
            for (int i = 0; i < length; i++) strings[s][i] = (char)('a' + rand() % 2);
            strings[s][length] = '\0';
        }
        bt_stop stop;
        init(&stop, list, count);
        while (at < bytes && !stop.matched) {
            size_t piece = 1 + (size_t)rand() % 5;
            if (piece > bytes - at) piece = bytes - at;
            char released[BT_STOP_BYTES_MAX + 8];
            size_t size = bt_stop_push(&stop, text + at, piece, released);
            memcpy(sent + out, released, size);
            out += size;
            at += piece;
        }
        size_t expected = slow_match(text, bytes, list, count, &expected_index);
        assert_int_equal(stop.matched, expected != SIZE_MAX);
        if (stop.matched) {
            assert_int_equal(stop.matched_index, expected_index);
        } else {
            char released[BT_STOP_BYTES_MAX];
            size_t size = bt_stop_flush(&stop, released);
            memcpy(sent + out, released, size);
            out += size;
            expected = bytes;
        }
        assert_int_equal(out, expected);
        if (out > 0) assert_memory_equal(sent, text, out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_match_across_pieces),
        cmocka_unit_test(test_a_false_start_is_released),
        cmocka_unit_test(test_which_of_several),
        cmocka_unit_test(test_no_strings),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_random_against_the_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
