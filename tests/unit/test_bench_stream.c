/* ops/cli/bench/stream.h: how the tokens of an answer are counted and timed. */
#include "ops/cli/bench/stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Feeds each text at 100, 110, 120, … */
static bt_status feed_all(bt_stream *stream, const char *const *texts, unsigned count, bt_err *err)
{
    bt_stream_begin(stream);
    for (unsigned i = 0; i < count; i++) {
        bt_status status = bt_stream_feed(stream, texts[i], strlen(texts[i]), 100 + 10 * i, err);
        if (status != BT_OK) return status;
    }
    return bt_stream_end(stream, err);
}

#define EVENT(choice) "data: {\"choices\": [{" choice "}]}\n\n"
#define USAGE(n) "\"usage\": {\"prompt_tokens\": 5, \"completion_tokens\": " #n "}"
#define LAST(n) "data: {\"choices\": [], " USAGE(n) "}\n\ndata: [DONE]\n\n"

static void test_ids(void **state)
{
    (void)state;
    static const char *const texts[] = {
        EVENT("\"text\": \"a\", \"token_ids\": [1]"),
        EVENT("\"text\": \"\", \"token_ids\": [2]"), /* half a character: a token all the same */
        EVENT("\"text\": \"b\", \"token_ids\": [3, 4, 5]"),
        EVENT("\"text\": \"c\", \"token_ids\": []"), /* text that waited: no token */
        LAST(5),
    };
    bt_stream stream;
    bt_err err;
    bt_stream_init(&stream);
    for (unsigned round = 0; round < 2; round++) {
        if (feed_all(&stream, texts, COUNT(texts), &err) != BT_OK) fail_msg("%s", err.message);
        assert_int_equal(stream.counted, BT_COUNTED_IDS);
        assert_true(stream.tokens == 5 && stream.output_tokens == 5 && stream.prompt_tokens == 5);
        assert_true(stream.token_events == 3 && !stream.gaps_inexact);
        assert_true(stream.first_ns == 100 && stream.last_ns == 120);
        const uint64_t gaps[] = {10, 10, 0, 0};
        assert_int_equal(stream.gaps.count, 4);
        assert_memory_equal(stream.gaps.values, gaps, sizeof(gaps));
    }
    bt_stream_finish(&stream);
}

static void test_running_usage(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "data: {\"choices\": [{\"delta\": {\"role\": \"assistant\", \"content\": \"\"}}], " USAGE(
            0) "}\n\n",
        "data: {\"choices\": [{\"delta\": {\"content\": \"ab\"}}], " USAGE(2) "}\n\n",
        "data: {\"choices\": [{\"delta\": {\"content\": \"\"}}], " USAGE(3) "}\n\n",
        LAST(3),
    };
    bt_stream stream;
    bt_err err;
    bt_stream_init(&stream);
    if (feed_all(&stream, texts, COUNT(texts), &err) != BT_OK) fail_msg("%s", err.message);
    assert_int_equal(stream.counted, BT_COUNTED_USAGE);
    assert_true(stream.tokens == 3 && stream.first_ns == 110 && stream.last_ns == 120);
    assert_false(stream.gaps_inexact);
    bt_stream_finish(&stream);
}

static void test_events(void **state)
{
    (void)state;
    static const char *const chat[] = {
        EVENT("\"delta\": {\"role\": \"assistant\"}"),
        EVENT("\"delta\": {\"reasoning_content\": \"hm\"}"),
        EVENT("\"delta\": {\"content\": \"a\"}"),
        EVENT("\"delta\": {}, \"finish_reason\": \"length\""),
    };
    bt_stream stream;
    bt_err err;
    bt_stream_init(&stream);
    static const struct {
        const char *end;
        uint32_t output;
        bool inexact;
    } cases[] = {{LAST(2), 2, false}, {LAST(3), 3, true}, {"data: [DONE]\n\n", 2, true}};
    for (unsigned i = 0; i < COUNT(cases); i++) {
        const char *texts[] = {chat[0], chat[1], chat[2], chat[3], cases[i].end};
        if (feed_all(&stream, texts, COUNT(texts), &err) != BT_OK) fail_msg("%s", err.message);
        assert_int_equal(stream.counted, BT_COUNTED_EVENTS);
        assert_int_equal(stream.output_tokens, cases[i].output);
        assert_int_equal(stream.gaps_inexact, cases[i].inexact);
        assert_true(stream.first_ns == 110 && stream.last_ns == 120);
    }
    bt_stream_finish(&stream);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bt_status status;
    } cases[] = {
        {"data: {\"error\": {\"message\": \"full\\u001b[31m\"}}\n\n", BT_ERR_PEER_LOST},
        {"data: {\"error\": \"full\"}\n\n", BT_ERR_PEER_LOST},
        {"data: {\"choices\": 5}\n\n", BT_ERR_FORMAT},
        {"data: {\"object\": \"x\"}\n\n", BT_ERR_FORMAT},
        {"data: [1]\n\n", BT_ERR_FORMAT},
        {"data: {\n\n", BT_ERR_FORMAT},
        {"<html>\n\n", BT_ERR_FORMAT},
        {"data: {\"choices\": [], \"usage\": {\"prompt_tokens\": -1, \"completion_tokens\": "
         "1}}\n\n",
         BT_ERR_FORMAT},
        {"data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 1}}\n\n", BT_ERR_FORMAT},
        {"data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 1, \"completion_tokens\": "
         "99999999999}}\n\n",
         BT_ERR_FORMAT},
        {EVENT("\"text\": \"a\""), BT_ERR_FORMAT}, /* no [DONE] */
        {"data: [DONE]\n\n", BT_ERR_FORMAT},       /* no token */
        {EVENT("\"text\": \"a\"") "data: [DONE]\n\n" EVENT("\"text\": \"b\""), BT_ERR_FORMAT},
        {"", BT_ERR_FORMAT},
    };
    bt_stream stream;
    bt_stream_init(&stream);
    for (unsigned i = 0; i < COUNT(cases); i++) {
        bt_err err = {0};
        if (feed_all(&stream, &cases[i].text, 1, &err) != cases[i].status)
            fail_msg("'%s': %s", cases[i].text, err.message);
        assert_true(err.message[0] != '\0' && !strchr(err.message, 27));
        assert_int_equal(stream.refused, cases[i].status == BT_ERR_PEER_LOST);
    }
    bt_stream_finish(&stream);
}

static void test_error_texts(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *text;
    } cases[] = {{"{\"error\": {\"message\": \"too long\"}}", "too long"},
                 {"{\"error\": \"bad\"}", "bad"},
                 {"{\"object\": \"error\", \"message\": \"old\"}", "old"},
                 {"{\"detail\": 1}", "{\"detail\": 1}"},
                 {"<html>\n", "<html>\\n"},
                 {"", ""}};
    char text[64];
    for (unsigned i = 0; i < COUNT(cases); i++) {
        bt_openai_error_text(cases[i].answer, strlen(cases[i].answer), text, sizeof(text));
        assert_string_equal(text, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),         cmocka_unit_test(test_running_usage),
        cmocka_unit_test(test_events),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_error_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
