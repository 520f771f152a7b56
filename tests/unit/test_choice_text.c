/* router/choice_text.h: what is released when, entries beside their text, the cut of a stop string. */
#include "router/choice_text.h"

#include "common/base/rng.h"
#include "tests/unit/byte_tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static bt_tokenizer *tokenizer;

static int open_tokenizer(void **state)
{
    (void)state;
    tokenizer = byte_tokenizer();
    return 0;
}

static int close_tokenizer(void **state)
{
    (void)state;
    bt_tokenizer_close(tokenizer);
    return 0;
}

static void init(bt_choice_text *text, const char *stop, bool include_stop)
{
    bt_detok detok;
    bt_detok_init(&detok, tokenizer, BT_DETOK_CONTINUES);
    const bt_stop_string string = {stop, stop != NULL ? strlen(stop) : 0};
    bt_stop strings;
    bt_err err;
    assert_int_equal(bt_stop_init(&strings, &string, stop != NULL, &err), BT_OK);
    bt_choice_text_init(text, &detok, &strings, 0);
    text->include_stop = include_stop;
    text->entries_wanted = true;
}

/* Pushes and expects this text and so many entries to be ready, the last one with this offset. */
static void push(bt_choice_text *text, uint32_t id, bt_push_kind kind, const char *expected,
                 uint32_t ready)
{
    const bt_token token = {.id = id};
    char out[BT_CHOICE_TEXT_BYTES_MAX];
    size_t bytes;
    assert_true(bt_choice_text_push(text, &token, kind, out, &bytes));
    if (bytes != strlen(expected) || memcmp(out, expected, bytes) != 0)
        fail_msg("id %u gave '%.*s', not '%s'", id, (int)bytes, out, expected);
    assert_int_equal(text->ready, ready);
}

static void finish(bt_choice_text *text, const char *expected, uint32_t ready)
{
    char out[BT_CHOICE_TEXT_BYTES_MAX];
    size_t bytes;
    bt_choice_text_finish(text, out, &bytes);
    if (bytes != strlen(expected) || memcmp(out, expected, bytes) != 0)
        fail_msg("the end gave '%.*s', not '%s'", (int)bytes, out, expected);
    assert_int_equal(text->ready, ready);
}

static void entries_wait_for_their_text(void **state)
{
    (void)state;
    bt_choice_text text;
    init(&text, "stop", false);
    push(&text, ID_HELLO, BT_PUSH_TEXT, "hello", 1);
    push(&text, ID_STO, BT_PUSH_TEXT, "", 1);
    push(&text, ID_BOS, BT_PUSH_TEXT, "", 1); /* no text, but its turn has not come */
    push(&text, 'k', BT_PUSH_TEXT, "stok", 4);
    assert_int_equal(text.entries[1].offset, 5);
    assert_int_equal(text.entries[2].offset, 8);
    assert_int_equal(text.entries[3].offset, 8);
    bt_choice_text_took(&text);
    push(&text, ID_STO, BT_PUSH_TEXT, "", 0);
    finish(&text, "sto", 1);
    bt_choice_text_close(&text);
}

static void a_stop_string_cuts_text_and_entries(void **state)
{
    (void)state;
    bt_choice_text text;
    init(&text, "lostop", false);
    push(&text, ID_HELLO, BT_PUSH_TEXT, "hel", 0); /* its text goes on into the cut */
    push(&text, ID_STO, BT_PUSH_TEXT, "", 0);
    push(&text, 'p', BT_PUSH_TEXT, "", 1);
    assert_true(text.stop.matched);
    finish(&text, "", 1);
    assert_int_equal(text.entries[0].token.id, ID_HELLO);
    bt_choice_text_close(&text);
    init(&text, "lostop", true);
    push(&text, ID_HELLO, BT_PUSH_TEXT, "hel", 0);
    push(&text, ID_STO, BT_PUSH_TEXT, "", 0);
    push(&text, 'p', BT_PUSH_TEXT, "lostop", 3);
    bt_choice_text_close(&text);
}

static void parts_of_a_character_have_one_offset(void **state)
{
    (void)state;
    bt_choice_text text;
    init(&text, NULL, false);
    push(&text, 0xE2, BT_PUSH_TEXT, "", 0);
    push(&text, 0x82, BT_PUSH_TEXT, "", 0);
    push(&text, 0xAC, BT_PUSH_TEXT, "\xE2\x82\xAC", 3);
    push(&text, 'a', BT_PUSH_TEXT, "a", 4);
    push(&text, 0xE2, BT_PUSH_TEXT, "", 4);
    push(&text, ID_EOS, BT_PUSH_HIDDEN, "", 4);
    finish(&text, "\xEF\xBF\xBD", 6);
    const uint64_t offsets[] = {0, 0, 0, 1, 2, 2};
    for (uint32_t i = 0; i < 6; i++) assert_int_equal(text.entries[i].offset, offsets[i]);
    bt_choice_text_close(&text);
}

static void kinds_of_push(void **state)
{
    (void)state;
    bt_choice_text text;
    init(&text, "hello", false);
    push(&text, ID_HELLO, BT_PUSH_UNSTOPPED, "hello", 1);
    push(&text, 'x', BT_PUSH_HIDDEN, "", 2);
    push(&text, 'y', BT_PUSH_SILENT, "", 2);
    push(&text, ID_HELLO, BT_PUSH_TEXT, "", 2);
    assert_true(text.stop.matched);
    bt_choice_text_close(&text);
}

/* Random tokens and stop strings: what is released together is the text up to the stop string, every
 * entry is released once and in order, never before its text, and all entries whose text begins
 * before the cut are. */
static void random_streams(void **state)
{
    (void)state;
    const uint64_t seed = (uint64_t)time(NULL);
    print_message("seed %llu\n", (unsigned long long)seed);
    bt_rng rng;
    bt_rng_init(&rng, seed);
    static const char *const stops[] = {"ab", "aab", "hello", "a\xE2\x82\xAC", "b", "bab"};
    for (int round = 0; round < 20000; round++) {
        const char *stop = stops[bt_rng_below(&rng, 6)];
        bool include = bt_rng_below(&rng, 2) == 0;
        bt_choice_text text;
        init(&text, stop, include);
        bt_detok plain;
        bt_detok_init(&plain, tokenizer, BT_DETOK_CONTINUES);
        char all[8192], out[8192];
        size_t all_bytes = 0, out_bytes = 0, bytes, begins[64];
        bool textless[64];
        uint32_t released = 0, count = 0, tokens = 1 + bt_rng_below(&rng, 24);
        for (; count < tokens && !text.stop.matched; count++) {
            static const uint32_t ids[] = {'a',  'b',    0xE2,       0x82,
                                           0xAC, ID_BOS, ID_SPACE_A, ID_HELLO};
            const bt_token token = {.id = ids[bt_rng_below(&rng, 8)]};
            begins[count] = all_bytes;
            textless[count] = token.id == ID_BOS;
            all_bytes += bt_detok_push(&plain, token.id, all + all_bytes);
            assert_true(bt_choice_text_push(&text, &token, BT_PUSH_TEXT, out + out_bytes, &bytes));
            out_bytes += bytes;
            for (uint32_t i = 0; i < text.ready; i++) {
                assert_int_equal(text.entries[i].begin, begins[released++]);
                assert_true(text.stop.matched || text.entries[i].end <= out_bytes);
            }
            bt_choice_text_took(&text);
        }
        if (!text.stop.matched) all_bytes += bt_detok_flush(&plain, all + all_bytes);
        bt_choice_text_finish(&text, out + out_bytes, &bytes);
        out_bytes += bytes;
        released += text.ready;
        const char *found = memmem(all, all_bytes, stop, strlen(stop));
        size_t cut =
            found == NULL ? all_bytes : (size_t)(found - all) + (include ? strlen(stop) : 0);
        assert_int_equal(out_bytes, cut);
        assert_memory_equal(out, all, cut);
        uint32_t expected = 0;
        while (expected < count && begins[expected] < cut + textless[expected]) expected++;
        if (found == NULL) expected = count;
        assert_int_equal(released, expected);
        bt_choice_text_close(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_wait_for_their_text),
        cmocka_unit_test(a_stop_string_cuts_text_and_entries),
        cmocka_unit_test(parts_of_a_character_have_one_offset),
        cmocka_unit_test(kinds_of_push),
        cmocka_unit_test(random_streams),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
