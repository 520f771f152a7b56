/* common/net/http1.h: good and bad requests, fed whole, byte by byte and at every cut. */
#include "tests/unit/http1_trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define BODY_MAX 100u

typedef struct {
    const char *input;
    const char *expected; /* the whole trace, or NULL */
    int status;           /* expected error */
} example;

#define HOST "Host: a\r\n"
#define GOOD_GET "HEAD GET|/|path=/|query=|1.1 keep=1 expect=0 body=0|host|=a|\nEND\n"
#define GOOD_POST_HEAD "HEAD POST|/|path=/|query=|1.1 keep=1 expect=0 body=1|host|=a|"
#define CHUNKED "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
#define CHUNKED_HEAD GOOD_POST_HEAD "transfer-encoding|=chunked|\n"
#define LENGTH(n) "POST / HTTP/1.1\r\n" HOST "Content-Length: " n "\r\n\r\n"

static const example good[] = {
    {"GET / HTTP/1.1\r\n" HOST "\r\n", GOOD_GET, 0},
    {"GET / HTTP/1.1\r\n" HOST "\r\nGET / HTTP/1.1\r\n" HOST "\r\n", GOOD_GET GOOD_GET, 0},
    {"GET /a/b?c=d&e=%20? HTTP/1.1\r\n" HOST "\r\n",
     "HEAD GET|/a/b?c=d&e=%20?|path=/a/b|query=c=d&e=%20?|1.1 keep=1 expect=0 body=0|host|=a|\n"
     "END\n",
     0},
    {"GET http://x:1/y?z HTTP/1.1\r\n" HOST "\r\n",
     "HEAD GET|http://x:1/y?z|path=/y|query=z|1.1 keep=1 expect=0 body=0|host|=a|\nEND\n", 0},
    {"OPTIONS * HTTP/1.1\r\n" HOST "\r\n",
     "HEAD OPTIONS|*|path=*|query=|1.1 keep=1 expect=0 body=0|host|=a|\nEND\n", 0},
    {"GET / HTTP/1.0\r\n\r\n", "HEAD GET|/|path=/|query=|1.0 keep=0 expect=0 body=0|\nEND\n", 0},
    {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
     "HEAD GET|/|path=/|query=|1.0 keep=1 expect=0 body=0|connection|=Keep-Alive|\nEND\n", 0},
    {"GET / HTTP/1.1\r\n" HOST "Connection: x , CLOSE\r\n\r\n",
     "HEAD GET|/|path=/|query=|1.1 keep=0 expect=0 body=0|host|=a|connection|=x , CLOSE|\nEND\n",
     0},
    {"GET / HTTP/1.1\r\nHOST:\t a \t\r\nX-Y:\r\nX:b \t c\xc3\xa9\r\n\r\n",
     "HEAD GET|/|path=/|query=|1.1 keep=1 expect=0 body=0|host|=a|x-y|=|x|=b \t c\xc3\xa9|\nEND\n",
     0},
    {LENGTH("5") "helloGET / HTTP/1.1\r\n" HOST "\r\n",
     GOOD_POST_HEAD "content-length|=5|\nBODY hello\nEND\n" GOOD_GET, 0},
    {LENGTH("0"),
     "HEAD POST|/|path=/|query=|1.1 keep=1 expect=0 body=0|host|=a|content-length|=0|\nEND\n", 0},
    {LENGTH("005") "hello", GOOD_POST_HEAD "content-length|=005|\nBODY hello\nEND\n", 0},
    {"POST / HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
     "HEAD POST|/|path=/|query=|1.1 keep=1 expect=1 body=1|host|=a|expect|=100-Continue|"
     "content-length|=1|\nBODY x\nEND\n",
     0},
    {"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
     "HEAD POST|/|path=/|query=|1.0 keep=0 expect=0 body=1|expect|=100-continue|"
     "content-length|=1|\nBODY x\nEND\n",
     0},
    {CHUNKED "5\r\nhello\r\n0\r\n\r\n", CHUNKED_HEAD "BODY hello\nEND\n", 0},
    {CHUNKED "0\r\n\r\n" CHUNKED "1\r\nx\r\n0\r\n\r\n",
     CHUNKED_HEAD "END\n" CHUNKED_HEAD "BODY x\nEND\n", 0},
    {CHUNKED "A;x=\"y z\"\r\n0123456789\r\n00b\r\n0123456789a\r\n000;\r\nT-1: v\r\nT2:\r\n\r\n",
     CHUNKED_HEAD "BODY 01234567890123456789a\nEND\n", 0},
};

#define GET(fields) "GET / HTTP/1.1\r\n" HOST fields "\r\n"

static const example bad[] = {
    {"\r\nGET / HTTP/1.1\r\n" HOST "\r\n", NULL, 400},
    {"GET /\r\n\r\n", NULL, 400},
    {"GET / HTTP/0.9\r\n\r\n", NULL, 505},
    {"GET / HTTP/2.0\r\n\r\n", NULL, 505},
    {"GET / HTTP/1.2\r\n\r\n", NULL, 505},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NULL, 505},
    {"GET / http/1.1\r\n\r\n", NULL, 400},
    {"GET / HTTP/1.1 \r\n\r\n", NULL, 400},
    {"GET / HTTP/1.10\r\n\r\n", NULL, 400},
    {"GET  / HTTP/1.1\r\n\r\n", NULL, 400},
    {"GET /  HTTP/1.1\r\n\r\n", NULL, 400},
    {"GET\t/ HTTP/1.1\r\n\r\n", NULL, 400},
    {" GET / HTTP/1.1\r\n\r\n", NULL, 400},
    {"G(T / HTTP/1.1\r\n\r\n", NULL, 400},
    {"GETGETGETGETGETGETGETGETGETGETGETGET / HTTP/1.1\r\n\r\n", NULL, 501},
    {"GET /\xc3\xa9 HTTP/1.1\r\n" HOST "\r\n", NULL, 400},
    {"GET /#x HTTP/1.1\r\n" HOST "\r\n", NULL, 400},
    {"GET x HTTP/1.1\r\n" HOST "\r\n", NULL, 400},
    {"GET * HTTP/1.1\r\n" HOST "\r\n", NULL, 400},
    {"CONNECT a:1 HTTP/1.1\r\n" HOST "\r\n", NULL, 400},
    {"GET http://x HTTP/1.1\r\n" HOST "\r\n", NULL, 400},
    {"GET / HTTP/1.1\n" HOST "\r\n", NULL, 400},
    {"GET / HTTP/1.1\r" HOST "\r\n", NULL, 400},
    {"GET / HTTP/1.1\r\nHost: a\n\r\n", NULL, 400},
    {"GET / HTTP/1.1\r\nHost: a\r\n\n", NULL, 400},
    {"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", NULL, 400},
    {GET("X: a\rb\r\n"), NULL, 400},
    {GET("X: a\x01\r\n"), NULL, 400},
    {GET("X: a\x7f\r\n"), NULL, 400},
    {GET("X: a\r\n b\r\n"), NULL, 400},
    {GET(" X: a\r\n"), NULL, 400},
    {GET("X : a\r\n"), NULL, 400},
    {GET("X Y: a\r\n"), NULL, 400},
    {GET("X_Y: a\r\n"), NULL, 400},
    {GET("X\r\n"), NULL, 400},
    {GET(": a\r\n"), NULL, 400},
    {GET("\xc3\xa9: a\r\n"), NULL, 400},
    {GET("Host: b\r\n"), NULL, 400},
    {"GET / HTTP/1.1\r\n\r\n", NULL, 400},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", NULL, 400},
    {"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", NULL, 400},
    {"GET / HTTP/1.1\r\nHost: u@a/\r\n\r\n", NULL, 400},
    {GET("Content-Length: 5\r\nContent-Length: 5\r\n"), NULL, 400},
    {GET("Content-Length: 5, 5\r\n"), NULL, 400},
    {GET("Content-Length: +5\r\n"), NULL, 400},
    {GET("Content-Length: -5\r\n"), NULL, 400},
    {GET("Content-Length: 5 5\r\n"), NULL, 400},
    {GET("Content-Length: 0x5\r\n"), NULL, 400},
    {GET("Content-Length:\r\n"), NULL, 400},
    {GET("Content-Length: 18446744073709551617\r\n"), NULL, 413},
    {GET("Content-Length: 101\r\n"), NULL, 413},
    {GET("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), NULL, 400},
    {GET("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), NULL, 400},
    {GET("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), NULL, 400},
    {GET("Transfer-Encoding: gzip, chunked\r\n"), NULL, 501},
    {GET("Transfer-Encoding: identity\r\n"), NULL, 501},
    {GET("Transfer-Encoding: xchunked\r\n"), NULL, 501},
    {GET("Transfer-Encoding: chunked;x\r\n"), NULL, 501},
    {GET("Transfer-Encoding:\r\n"), NULL, 501},
    {"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", NULL, 400},
    {GET("Expect: 200-ok\r\n"), NULL, 417},
    {CHUNKED "\r\n", NULL, 400},
    {CHUNKED "g\r\n", NULL, 400},
    {CHUNKED "-1\r\n", NULL, 400},
    {CHUNKED " 1\r\nx\r\n", NULL, 400},
    {CHUNKED "1 \r\nx\r\n", NULL, 400},
    {CHUNKED "1\nx\r\n", NULL, 400},
    {CHUNKED "1\rx", NULL, 400},
    {CHUNKED "0x1\r\nx\r\n", NULL, 400},
    {CHUNKED "1;a\nb\r\nx\r\n", NULL, 400},
    {CHUNKED "1;a\x01\r\nx\r\n", NULL, 400},
    {CHUNKED "1\r\nxy\r\n", NULL, 400},
    {CHUNKED "1\r\nx\ny", NULL, 400},
    {CHUNKED "1\r\nx\rz", NULL, 400},
    {CHUNKED "65\r\n", NULL, 413},
    {CHUNKED "64\r\n"
             "0123456789012345678901234567890123456789012345678901234567890123456789012345678901"
             "234567890123456789\r\n1\r\nx\r\n",
     NULL, 413},
    {CHUNKED "fffffffffffffff\r\n", NULL, 413},
    {CHUNKED "ffffffffffffffffffffff\r\n", NULL, 413},
    {CHUNKED "0\r\nContent-Length: 5\r\n\r\n", NULL, 400},
    {CHUNKED "0\r\nTransfer-Encoding: chunked\r\n\r\n", NULL, 400},
    {CHUNKED "0\r\nX_Y: 5\r\n\r\n", NULL, 400},
    {CHUNKED "0\r\nX: 5\r\n Y\r\n\r\n", NULL, 400},
    {CHUNKED "0\r\nX\r\n\r\n", NULL, 400},
};

static char *trace_cut(const char *input, size_t bytes, size_t cut)
{
    http1_trace trace;
    trace_init(&trace, BODY_MAX);
    trace_feed(&trace, input, cut);
    trace_feed(&trace, input + cut, bytes - cut);
    return trace.text;
}

static char *trace_bytes(const char *input, size_t bytes)
{
    http1_trace trace;
    trace_init(&trace, BODY_MAX);
    for (size_t i = 0; i < bytes; i++) trace_feed(&trace, input + i, 1);
    return trace.text;
}

/* The trace of the whole input, after every other way to feed it gave the same. */
static char *trace_every_way(const char *input, size_t bytes)
{
    char *whole = trace_cut(input, bytes, bytes);
    char *single = trace_bytes(input, bytes);
    assert_string_equal(single, whole);
    free(single);
    for (size_t cut = 0; cut < bytes; cut++) {
        char *other = trace_cut(input, bytes, cut);
        if (strcmp(other, whole) != 0) {
            fail_msg("cut at %zu of '%s': '%s' instead of '%s'", cut, input, other, whole);
        }
        free(other);
    }
    return whole;
}

static void good_requests_are_read_however_they_are_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        char *trace = trace_every_way(good[i].input, strlen(good[i].input));
        assert_string_equal(trace, good[i].expected);
        free(trace);
    }
}

static void bad_requests_are_refused_however_they_are_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char expected[32];
        snprintf(expected, sizeof(expected), "\nERROR %d ", bad[i].status);
        char *trace = trace_every_way(bad[i].input, strlen(bad[i].input));
        if (strstr(trace, expected) == NULL) {
            fail_msg("'%s' gave '%s' instead of %s", bad[i].input, trace, expected);
        }
        free(trace);
    }
}

static void a_nul_byte_is_refused_everywhere(void **state)
{
    (void)state;
    static const char request[] = "GET / HTTP/1.1\r\nHost: abc\r\nX: y\r\n\r\n";
    size_t bytes = sizeof(request) - 1;
    for (size_t i = 0; i < bytes; i++) {
        char copy[sizeof(request)];
        memcpy(copy, request, sizeof(request));
        copy[i] = '\0';
        char *trace = trace_cut(copy, bytes, bytes);
        assert_non_null(strstr(trace, "\nERROR "));
        free(trace);
    }
}

/* Grows one part of a request until it is refused; the answer at the bound and one beyond. */
static void expect_bound(const char *before, const char *unit, size_t count, const char *after,
                         int status)
{
    size_t unit_bytes = strlen(unit);
    size_t capacity = strlen(before) + (count + 1) * unit_bytes + strlen(after) + 1;
    char *input = malloc(capacity);
    assert_non_null(input);
    for (size_t extra = 0; extra < 2; extra++) {
        size_t used = strlen(before);
        memcpy(input, before, used);
        for (size_t i = 0; i < count + extra; i++, used += unit_bytes) {
            memcpy(input + used, unit, unit_bytes);
        }
        memcpy(input + used, after, strlen(after) + 1);
        char *whole = trace_cut(input, strlen(input), strlen(input));
        char *single = trace_bytes(input, strlen(input));
        char expected[32];
        snprintf(expected, sizeof(expected), "\nERROR %d ", status);
        assert_string_equal(single, whole);
        if (extra == 0)
            assert_non_null(strstr(whole, "END\n"));
        else
            assert_non_null(strstr(whole, expected));
        free(whole);
        free(single);
    }
    free(input);
}

static void limits_hold_to_the_byte(void **state)
{
    (void)state;
    static const char start[] = "GET / HTTP/1.1\r\n" HOST;
    expect_bound(start, "X: y\r\n", BT_HTTP1_FIELDS_MAX - 1, "\r\n", 431);
    static const char field[] = "GET / HTTP/1.1\r\n" HOST "X: ";
    expect_bound(field, "y", BT_HTTP1_HEAD_BYTES_MAX - (sizeof(field) - 1) - 4, "\r\n\r\n", 431);
    expect_bound("GET /", "y", BT_HTTP1_TARGET_BYTES_MAX - 1, " HTTP/1.1\r\n" HOST "\r\n", 414);
    expect_bound("", "G", BT_HTTP1_METHOD_BYTES_MAX, " / HTTP/1.1\r\n" HOST "\r\n", 501);
    expect_bound(CHUNKED "1;", "y", BT_HTTP1_CHUNK_EXT_BYTES_MAX, "\r\nx\r\n0\r\n\r\n", 400);
    expect_bound(CHUNKED, "1;yyyyyyyy\r\nx\r\n", BODY_MAX, "0\r\n\r\n", 413);
    expect_bound(CHUNKED "0\r\nX:", "y", BT_HTTP1_TRAILER_BYTES_MAX - 6, "\r\n\r\n", 431);
    expect_bound(CHUNKED "0\r\n", "X:\r\n", BT_HTTP1_FIELDS_MAX, "\r\n", 431);
    expect_bound(LENGTH("100"), "x", 100, "\r\n", 400);
    /* Extensions of many small chunks are bounded together. */
    char many[BODY_MAX * 64 + 512] = CHUNKED;
    for (unsigned i = 0; i < BODY_MAX; i++) {
        strcat(many, "1;0123456789012345678901234567890123456789012345\r\nx\r\n");
    }
    char *trace = trace_every_way(many, strlen(many));
    assert_non_null(strstr(trace, "\nERROR 400 the chunk extension is too long"));
    free(trace);
}

static void idle_is_told_between_requests_only(void **state)
{
    (void)state;
    static const char request[] = "GET / HTTP/1.1\r\n" HOST "\r\n";
    http1_trace trace;
    trace_init(&trace, BODY_MAX);
    assert_true(bt_http1_is_idle(&trace.parser));
    for (size_t i = 0; i + 1 < sizeof(request) - 1; i++) {
        trace_feed(&trace, request + i, 1);
        assert_false(bt_http1_is_idle(&trace.parser));
    }
    trace_feed(&trace, "\n", 1);
    assert_true(bt_http1_is_idle(&trace.parser));
    trace_free(&trace);
}

static void fields_are_found_by_name(void **state)
{
    (void)state;
    http1_trace trace;
    static const char request[] = "GET / HTTP/1.1\r\n" HOST "X-A: 1\r\nx-a: 2\r\n\r\n";
    trace_init(&trace, BODY_MAX);
    trace_feed(&trace, request, sizeof(request) - 1);
    const bt_text *value = bt_http1_find(&trace.parser.request, "x-a");
    assert_non_null(value);
    assert_true(bt_text_is(*value, "1"));
    assert_false(bt_text_is(*value, "10"));
    assert_null(bt_http1_find(&trace.parser.request, "x"));
    trace_free(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_requests_are_read_however_they_are_cut),
        cmocka_unit_test(bad_requests_are_refused_however_they_are_cut),
        cmocka_unit_test(a_nul_byte_is_refused_everywhere),
        cmocka_unit_test(limits_hold_to_the_byte),
        cmocka_unit_test(idle_is_told_between_requests_only),
        cmocka_unit_test(fields_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
