/* ops/cli/bench/sse.h: events whatever the pieces, and what is refused. */
#include "ops/cli/bench/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

typedef struct {
    char text[4096]; /* the events, each between < and > */
    size_t bytes;
    bt_status answer;
} events;

static bt_status on_event(void *arg, const char *data, size_t bytes, bt_err *err)
{
    events *e = arg;
    assert_true(e->bytes + bytes + 2 < sizeof(e->text));
    e->bytes += (size_t)sprintf(e->text + e->bytes, "<%.*s>", (int)bytes, data);
    return e->answer == BT_OK ? BT_OK : BT_FAIL(err, e->answer, "enough");
}

/* Feeds text cut into pieces at the two places; "" of a status that is not OK. */
static bt_status read_events(const char *text, size_t bytes, size_t cut, size_t cut2, events *e)
{
    bt_sse sse;
    bt_err err;
    *e = (events){0};
    bt_sse_init(&sse, on_event, e);
    const size_t ends[] = {cut, cut2, bytes};
    size_t from = 0;
    bt_status status = BT_OK;
    for (unsigned i = 0; i < 3 && status == BT_OK; i++) {
        /* In a block of its own size, so that a sanitizer sees a read past it. */
        char *piece = malloc(ends[i] - from + 1);
        memcpy(piece, text + from, ends[i] - from);
        piece = realloc(piece, ends[i] - from > 0 ? ends[i] - from : 1);
        status = bt_sse_feed(&sse, piece, ends[i] - from, &err);
        free(piece);
        from = ends[i];
    }
    if (status == BT_OK) status = bt_sse_end(&sse, &err);
    if (status != BT_OK) assert_true(err.message[0] != '\0');
    bt_sse_finish(&sse);
    return status;
}

static const struct {
    const char *text, *events;
} good[] = {
    {"", ""},
    {"\n\n\n", ""},
    {"data: a\n\n", "<a>"},
    {"data:a\n\ndata:  b\n\n", "<a>< b>"},
    {"data: a\r\n\r\ndata: b\r\rdata: c\n\n", "<a><b><c>"},
    {"data: a\ndata: b\ndata\n\n", "<a\nb\n>"},
    {"data\n\n", "<>"},
    {"data:\n\n", "<>"},
    {": ping\n\ndata: x\n: more\n\n", "<x>"},
    {"event: e\nid: 1\nretry: 5\ndata: x\n\n", "<x>"},
    {"event: alone\n\n", ""},
    {"\357\273\277data: bom\n\n", "<bom>"},
    {"data: \xe6\xbc\xa2\xe5\xad\x97 \xf0\x9f\x98\x80\n\n",
     "<\xe6\xbc\xa2\xe5\xad\x97 \xf0\x9f\x98\x80>"},
    {"data: {\"a\": \"b:c\"}\n\ndata: [DONE]\n\n", "<{\"a\": \"b:c\"}><[DONE]>"},
    {"\r\n\r\ndata: x\r\n\r\n", "<x>"},
};

static const char *const bad[] = {
    "data: a\n",          /* ends inside an event */
    "data: a",            /* and inside a line */
    "{\"error\": 1}\n\n", /* not a stream at all */
    "Data: a\n\n",        /* names are as they are */
    " data: a\n\n",
    "data : a\n\n",
    "data: \xff\n\n",
    "data: \xc0\xaf\n\n",
    ": \xed\xa0\x80\n\n",
    "data: a\n\n\357\273\277data: late mark\n\n",
};

static void test_good_at_every_cut(void **state)
{
    (void)state;
    events e;
    for (size_t i = 0; i < COUNT(good); i++) {
        size_t bytes = strlen(good[i].text);
        for (size_t cut = 0; cut <= bytes; cut++) {
            for (size_t cut2 = cut; cut2 <= bytes; cut2++) {
                assert_int_equal(read_events(good[i].text, bytes, cut, cut2, &e), BT_OK);
                assert_string_equal(e.text, good[i].events);
            }
        }
    }
}

static void test_bad_at_every_cut(void **state)
{
    (void)state;
    events e;
    for (size_t i = 0; i < COUNT(bad); i++) {
        size_t bytes = strlen(bad[i]);
        for (size_t cut = 0; cut <= bytes; cut++)
            if (read_events(bad[i], bytes, cut, bytes, &e) != BT_ERR_FORMAT)
                fail_msg("'%s' is taken, cut at %zu", bad[i], cut);
    }
    assert_int_equal(read_events("data: a\0b\n\n", 12, 3, 12, &e), BT_ERR_FORMAT);
}

static void test_the_receiver_may_refuse(void **state)
{
    (void)state;
    bt_sse sse;
    bt_err err;
    events e = {.answer = BT_ERR_PEER_LOST};
    bt_sse_init(&sse, on_event, &e);
    assert_int_equal(bt_sse_feed(&sse, "data: a\n\ndata: b\n\n", 18, &err), BT_ERR_PEER_LOST);
    assert_string_equal(e.text, "<a>");
    bt_sse_reset(&sse);
    e = (events){0};
    assert_int_equal(bt_sse_feed(&sse, "data: c\n\n", 9, &err), BT_OK);
    assert_string_equal(e.text, "<c>");
    bt_sse_finish(&sse);
}

static size_t longest;

static bt_status on_long_event(void *arg, const char *data, size_t bytes, bt_err *err)
{
    (void)arg, (void)data, (void)err;
    longest = bytes;
    return BT_OK;
}

/* A line without an end, and an event of many lines. */
static void test_bounds(void **state)
{
    (void)state;
    static char piece[65536];
    memset(piece, 'a', sizeof(piece));
    bt_sse sse;
    bt_err err;
    bt_status status = BT_OK;
    bt_sse_init(&sse, on_long_event, NULL);
    assert_int_equal(bt_sse_feed(&sse, "data: ", 6, &err), BT_OK);
    for (unsigned i = 0; i < 63; i++)
        assert_int_equal(bt_sse_feed(&sse, piece, sizeof(piece), &err), BT_OK);
    assert_int_equal(bt_sse_feed(&sse, "\n\n", 2, &err), BT_OK);
    assert_int_equal(longest, 63 * sizeof(piece));
    for (unsigned i = 0; i < 65 && status == BT_OK; i++)
        status = bt_sse_feed(&sse, piece, sizeof(piece), &err);
    assert_int_equal(status, BT_ERR_LIMIT);
    bt_sse_reset(&sse);
    status = BT_OK;
    memcpy(piece, "data: ", 6);
    piece[sizeof(piece) - 1] = '\n';
    for (unsigned i = 0; i < 66 && status == BT_OK; i++)
        status = bt_sse_feed(&sse, piece, sizeof(piece), &err);
    assert_int_equal(status, BT_ERR_LIMIT);
    bt_sse_finish(&sse);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_at_every_cut),
        cmocka_unit_test(test_bad_at_every_cut),
        cmocka_unit_test(test_the_receiver_may_refuse),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
