/* common/net/http_server.h over real sockets: the server's loop runs in a thread of its own, the
 * test is the client. */
#include "common/net/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define FLOOD_BYTES (8u << 20)
#define PATIENCE_MS 20000u

typedef struct {
    pthread_t thread;
    bt_loop *loop;
    bt_http_server *server;
    bt_loop_wake *command;
    bt_loop_timer *later;
    bt_http_config config;
    bt_http_exchange *waiting; /* of /later or /stream, or of /flood */
    unsigned waiting_ticks;
    size_t flooded;
    bool is_stream;
    atomic_uint gone, agains, requests;
    atomic_bool wants_stop, wants_drain, drained;
} fixture;

/* ---- the server's side ---- */

static void flood(fixture *f, bt_http_exchange *x)
{
    char block[1024];
    memset(block, 'x', sizeof(block));
    while (f->flooded < FLOOD_BYTES) {
        bt_status status = bt_http_stream_write(x, block, sizeof(block));
        if (status == BT_AGAIN) atomic_fetch_add(&f->agains, 1);
        if (status != BT_OK) return;
        f->flooded += sizeof(block);
    }
    bt_http_stream_end(x);
}

static void serve(void *arg, bt_http_exchange *x, const bt_http_request *r)
{
    fixture *f = arg;
    bt_text path = r->head->path;
    bt_http_exchange_set_user(x, f);
    atomic_fetch_add(&f->requests, 1);
    if (bt_text_is(path, "/fixed")) {
        bt_http_reply(x, 200, "text/plain", "X-Extra: yes\r\n", "hello", 5);
    } else if (bt_text_is(path, "/echo")) {
        bt_http_reply(x, 200, "text/plain", NULL, r->body, r->body_bytes);
    } else if (bt_text_is(path, "/later") || bt_text_is(path, "/stream")) {
        assert_null(f->waiting);
        f->waiting = x;
        f->waiting_ticks = 0;
        f->is_stream = bt_text_is(path, "/stream");
        if (f->is_stream) bt_http_stream_begin(x, 200, "text/event-stream", NULL);
    } else if (bt_text_is(path, "/flood")) {
        bt_http_stream_begin(x, 200, "text/plain", NULL);
        flood(f, x);
    } else if (bt_text_is(path, "/abort")) {
        bt_http_stream_begin(x, 200, "text/plain", NULL);
        bt_http_stream_write(x, "part", 4);
        bt_http_abort(x);
    } else if (!bt_text_is(path, "/hang")) {
        bt_http_reply(x, 404, "text/plain", NULL, "", 0);
    }
}

static void client_gone(void *arg, bt_http_exchange *x)
{
    fixture *f = arg;
    assert_ptr_equal(bt_http_exchange_user(x), f);
    if (f->waiting == x) f->waiting = NULL;
    atomic_fetch_add(&f->gone, 1);
}

static void client_reads_again(void *arg, bt_http_exchange *x)
{
    flood(arg, x);
}

static void later(void *arg)
{
    fixture *f = arg;
    bt_http_exchange *x = f->waiting;
    if (x == NULL) return;
    if (!f->is_stream) {
        f->waiting = NULL;
        bt_http_reply(x, 200, "text/plain", NULL, "late", 4);
    } else if (++f->waiting_ticks <= 3) {
        char event[32];
        int bytes = snprintf(event, sizeof(event), "data: %u\n\n", f->waiting_ticks);
        bt_http_stream_write(x, event, (size_t)bytes);
    } else {
        f->waiting = NULL;
        bt_http_stream_end(x);
    }
}

static void take_command(void *arg)
{
    fixture *f = arg;
    if (atomic_load(&f->wants_drain)) {
        bt_http_server_drain(f->server);
        atomic_store(&f->drained, bt_http_server_is_drained(f->server));
    }
    if (atomic_load(&f->wants_stop)) bt_loop_stop(f->loop);
}

static void *run_server(void *arg)
{
    fixture *f = arg;
    bt_loop_run(f->loop);
    bt_http_server_close(f->server);
    bt_loop_wake_close(f->command);
    bt_loop_timer_close(f->later);
    bt_loop_destroy(f->loop);
    return NULL;
}

static void start(fixture *f)
{
    bt_http_handler handler = {
        .arg = f, .on_request = serve, .on_gone = client_gone, .on_writable = client_reads_again};
    assert_int_equal(bt_loop_create(&f->loop, NULL), BT_OK);
    assert_int_equal(bt_http_server_open(f->loop, &f->config, &handler, &f->server, NULL), BT_OK);
    assert_int_equal(bt_loop_wake_open(f->loop, take_command, f, &f->command, NULL), BT_OK);
    assert_int_equal(bt_loop_timer_open(f->loop, 5, 5, later, f, &f->later, NULL), BT_OK);
    assert_int_equal(pthread_create(&f->thread, NULL, run_server, f), 0);
}

static void stop(fixture *f)
{
    atomic_store(&f->wants_stop, true);
    bt_loop_wake_send(f->command);
    pthread_join(f->thread, NULL);
}

static void prepare(fixture *f)
{
    memset(f, 0, sizeof(*f));
    bt_http_config_default(&f->config);
}

/* ---- the client's side ---- */

static int dial(const fixture *f)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(bt_http_server_port(f->server))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void put(int fd, const char *text)
{
    size_t bytes = strlen(text);
    assert_int_equal(send(fd, text, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

/* Reads until text contains `end`; the server closing first or being silent fails the test. */
static void expect(int fd, char *text, size_t capacity, const char *end)
{
    size_t used = 0;
    text[0] = '\0';
    while (strstr(text, end) == NULL) {
        ssize_t count = recv(fd, text + used, capacity - used - 1, 0);
        if (count <= 0) fail_msg("got '%s' and then %zd instead of '%s'", text, count, end);
        used += (size_t)count;
        text[used] = '\0';
    }
}

/* Reads to the end of the connection; *ret_clean: it was closed and not reset. */
static size_t read_all(int fd, char *text, size_t capacity, bool *ret_clean)
{
    size_t used = 0;
    ssize_t count;
    while ((count = recv(fd, text + used, capacity - used - 1, 0)) > 0) used += (size_t)count;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) fail_msg("the server is silent");
    text[used] = '\0';
    if (ret_clean != NULL) *ret_clean = count == 0;
    return used;
}

static void pause_ms(unsigned ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

/* Waits until counter has reached value; returns the milliseconds it took. */
static unsigned await(atomic_uint *counter, unsigned value)
{
    uint64_t begin_ns = bt_loop_now_ns();
    for (unsigned waited = 0; atomic_load(counter) < value; waited += 2) {
        if (waited > PATIENCE_MS) fail_msg("waited in vain");
        pause_ms(2);
    }
    return (unsigned)((bt_loop_now_ns() - begin_ns) / 1000000u);
}

static unsigned count_of(const char *text, const char *word)
{
    unsigned count = 0;
    for (; (text = strstr(text, word)) != NULL; text += strlen(word)) count++;
    return count;
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define GET_CLOSE(path) "GET " path " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

static void connection_is_kept_for_the_next_request(void **state)
{
    (void)state;
    fixture f;
    char text[4096];
    prepare(&f);
    start(&f);
    int fd = dial(&f);
    for (unsigned i = 0; i < 3; i++) {
        put(fd, GET("/fixed"));
        expect(fd, text, sizeof(text), "\r\n\r\nhello");
        assert_non_null(strstr(text, "HTTP/1.1 200 OK\r\n"));
        assert_non_null(strstr(text, "Content-Length: 5\r\n"));
        assert_non_null(strstr(text, "X-Extra: yes\r\n"));
        assert_non_null(strstr(text, "Connection: keep-alive\r\n"));
        assert_non_null(strstr(text, "Date: "));
    }
    put(fd, "HEAD /fixed HTTP/1.1\r\nHost: a\r\n\r\n");
    expect(fd, text, sizeof(text), "\r\n\r\n");
    assert_null(strstr(text, "hello"));
    assert_non_null(strstr(text, "Content-Length: 5\r\n"));
    bool clean;
    put(fd, GET_CLOSE("/fixed"));
    read_all(fd, text, sizeof(text), &clean);
    assert_true(clean);
    assert_non_null(strstr(text, "Connection: close\r\n"));
    close(fd);
    fd = dial(&f);
    put(fd, "GET /fixed HTTP/1.0\r\n\r\n");
    read_all(fd, text, sizeof(text), &clean);
    assert_non_null(strstr(text, "\r\n\r\nhello"));
    close(fd);
    stop(&f);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    fixture f;
    static char text[65536];
    char requests[16384] = "", expected[64];
    prepare(&f);
    start(&f);
    for (unsigned i = 0; i < 40; i++) {
        char one[128];
        snprintf(one, sizeof(one),
                 "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n<%02u>%s", i,
                 i % 8 == 7 ? GET("/later") : "");
        strcat(requests, one);
    }
    strcat(requests, GET_CLOSE("/fixed"));
    int fd = dial(&f);
    put(fd, requests);
    read_all(fd, text, sizeof(text), NULL);
    const char *at = text;
    for (unsigned i = 0; i < 40; i++) {
        snprintf(expected, sizeof(expected), "\r\n\r\n<%02u>", i);
        at = strstr(at, expected);
        assert_non_null(at);
    }
    assert_int_equal(count_of(text, "HTTP/1.1 200 OK"), 46);
    assert_int_equal(count_of(text, "late"), 5);
    assert_non_null(strstr(at, "hello"));
    close(fd);
    stop(&f);
}

static void half_closed_client_gets_what_was_answered(void **state)
{
    (void)state;
    fixture f;
    char text[4096];
    prepare(&f);
    start(&f);
    int fd = dial(&f);
    put(fd, GET("/fixed") GET("/fixed"));
    shutdown(fd, SHUT_WR);
    read_all(fd, text, sizeof(text), NULL);
    assert_int_equal(count_of(text, "hello"), 2);
    close(fd);
    stop(&f);
}

static void continue_is_sent_before_the_body(void **state)
{
    (void)state;
    fixture f;
    char text[4096];
    prepare(&f);
    start(&f);
    int fd = dial(&f);
    put(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    expect(fd, text, sizeof(text), "HTTP/1.1 100 Continue\r\n\r\n");
    put(fd, "body");
    expect(fd, text, sizeof(text), "\r\n\r\nbody");
    /* A body that is too long is refused before it is sent. */
    put(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
            "Content-Length: 999999999\r\n\r\n");
    read_all(fd, text, sizeof(text), NULL);
    assert_null(strstr(text, "100 Continue"));
    assert_non_null(strstr(text, "HTTP/1.1 413 "));
    close(fd);
    stop(&f);
}

static void stream_is_chunked_or_ends_with_the_connection(void **state)
{
    (void)state;
    fixture f;
    char text[4096];
    prepare(&f);
    start(&f);
    int fd = dial(&f);
    put(fd, GET("/stream"));
    expect(fd, text, sizeof(text), "\r\n0\r\n\r\n");
    assert_non_null(strstr(text, "Transfer-Encoding: chunked\r\n"));
    assert_non_null(strstr(text, "Content-Type: text/event-stream\r\n"));
    assert_non_null(strstr(text, "9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n9\r\ndata: 3\n\n\r\n"));
    put(fd, GET("/fixed"));
    expect(fd, text, sizeof(text), "hello");
    close(fd);
    fd = dial(&f);
    put(fd, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    read_all(fd, text, sizeof(text), NULL);
    assert_null(strstr(text, "chunked"));
    assert_non_null(strstr(text, "\r\n\r\ndata: 1\n\ndata: 2\n\ndata: 3\n\n"));
    close(fd);
    stop(&f);
}

static void aborted_response_is_visibly_incomplete(void **state)
{
    (void)state;
    fixture f;
    char text[4096];
    bool clean = true;
    prepare(&f);
    start(&f);
    int fd = dial(&f);
    put(fd, "GET /abort HTTP/1.0\r\n\r\n");
    read_all(fd, text, sizeof(text), &clean);
    assert_false(clean);
    close(fd);
    stop(&f);
    assert_int_equal(atomic_load(&f.gone), 0);
}

static void slow_reader_meets_back_pressure_and_gets_everything(void **state)
{
    (void)state;
    fixture f;
    prepare(&f);
    start(&f);
    int fd = dial(&f);
    put(fd, GET_CLOSE("/flood"));
    await(&f.agains, 1);
    size_t capacity = FLOOD_BYTES * 2;
    char *text = malloc(capacity);
    assert_non_null(text);
    read_all(fd, text, capacity, NULL);
    assert_int_equal(count_of(text, "\r\n400\r\n"), FLOOD_BYTES / 1024);
    assert_non_null(strstr(text, "\r\n0\r\n\r\n"));
    free(text);
    close(fd);
    stop(&f);
    assert_true(f.flooded == FLOOD_BYTES);
}

static void client_that_reads_nothing_is_gone_after_the_stall(void **state)
{
    (void)state;
    fixture f;
    prepare(&f);
    f.config.stall_ms = 300;
    start(&f);
    int fd = dial(&f);
    put(fd, GET("/flood"));
    await(&f.gone, 1);
    assert_true(atomic_load(&f.agains) > 0);
    close(fd);
    stop(&f);
    assert_int_equal(atomic_load(&f.gone), 1);
}

static void client_that_leaves_is_noticed_while_nothing_is_written(void **state)
{
    (void)state;
    fixture f;
    prepare(&f);
    start(&f);
    int fd = dial(&f);
    put(fd, GET("/hang"));
    await(&f.requests, 1);
    assert_int_equal(atomic_load(&f.gone), 0);
    close(fd);
    printf("noticed after %u ms\n", await(&f.gone, 1));
    /* A reset is noticed as well. */
    fd = dial(&f);
    put(fd, GET("/hang"));
    await(&f.requests, 2);
    struct linger reset = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
    await(&f.gone, 2);
    stop(&f);
    assert_int_equal(atomic_load(&f.gone), 2);
}

static void bodies_have_a_maximum(void **state)
{
    (void)state;
    fixture f;
    char text[4096];
    prepare(&f);
    f.config.body_bytes_max = 10;
    start(&f);
    static const char *const too_long[] = {
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n12345678901",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n5\r\n"
        "12345\r\n0\r\n\r\n",
    };
    for (size_t i = 0; i < 2; i++) {
        bool clean;
        int fd = dial(&f);
        put(fd, too_long[i]);
        read_all(fd, text, sizeof(text), &clean);
        assert_true(clean);
        assert_non_null(strstr(text, "HTTP/1.1 413 "));
        assert_non_null(strstr(text, "{\"error\":{\"message\":\"the body is too long\""));
        close(fd);
    }
    int fd = dial(&f);
    put(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1234567890");
    expect(fd, text, sizeof(text), "\r\n\r\n1234567890");
    close(fd);
    assert_int_equal(atomic_load(&f.requests), 1);
    stop(&f);
}

static void bodies_have_a_maximum_together(void **state)
{
    (void)state;
    fixture f;
    char text[4096];
    prepare(&f);
    f.config.bodies_bytes_max = 1500;
    start(&f);
    int first = dial(&f), second = dial(&f);
    put(first,
        "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    expect(first, text, sizeof(text), "100 Continue");
    put(first, "123");
    put(first, "");
    /* The first must have been read before the second comes. */
    pause_ms(50);
    put(second, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n1234");
    read_all(second, text, sizeof(text), NULL);
    assert_non_null(strstr(text, "HTTP/1.1 503 "));
    put(first, "4");
    expect(first, text, sizeof(text), "\r\n\r\n1234");
    close(first);
    close(second);
    stop(&f);
}

static void requests_that_do_not_come_are_given_up(void **state)
{
    (void)state;
    fixture f;
    char text[4096];
    prepare(&f);
    f.config.head_ms = f.config.body_ms = f.config.idle_ms = 200;
    start(&f);
    int head = dial(&f), body = dial(&f), silent = dial(&f), idle = dial(&f);
    put(head, "GET / HT");
    put(body, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n12");
    put(idle, GET("/fixed"));
    read_all(head, text, sizeof(text), NULL);
    assert_non_null(strstr(text, "HTTP/1.1 408 "));
    read_all(body, text, sizeof(text), NULL);
    assert_non_null(strstr(text, "HTTP/1.1 408 "));
    assert_int_equal(read_all(silent, text, sizeof(text), NULL), 0);
    read_all(idle, text, sizeof(text), NULL);
    assert_non_null(strstr(text, "hello"));
    close(head);
    close(body);
    close(silent);
    close(idle);
    stop(&f);
}

static void connections_have_a_maximum(void **state)
{
    (void)state;
    fixture f;
    char text[4096];
    prepare(&f);
    f.config.connections_max = 2;
    start(&f);
    int first = dial(&f), second = dial(&f);
    put(first, GET("/fixed"));
    expect(first, text, sizeof(text), "hello");
    put(second, GET("/fixed"));
    expect(second, text, sizeof(text), "hello");
    int third = dial(&f);
    read_all(third, text, sizeof(text), NULL);
    assert_non_null(strstr(text, "HTTP/1.1 503 "));
    put(first, GET("/fixed"));
    expect(first, text, sizeof(text), "hello");
    close(first);
    close(second);
    close(third);
    stop(&f);
}

static void malformed_request_is_answered_and_closed(void **state)
{
    (void)state;
    fixture f;
    char text[4096];
    prepare(&f);
    start(&f);
    int fd = dial(&f);
    put(fd, GET("/fixed") "GET / HTTP/1.1\r\nHost : a\r\n\r\n" GET("/fixed"));
    read_all(fd, text, sizeof(text), NULL);
    assert_int_equal(count_of(text, "HTTP/1.1 200 "), 1);
    assert_int_equal(count_of(text, "HTTP/1.1 400 "), 1);
    assert_non_null(strstr(text, "malformed field name"));
    close(fd);
    stop(&f);
}

static void drain_finishes_what_is_in_flight(void **state)
{
    (void)state;
    fixture f;
    char text[4096];
    prepare(&f);
    start(&f);
    int idle = dial(&f), busy = dial(&f);
    put(idle, GET("/fixed"));
    expect(idle, text, sizeof(text), "hello");
    put(busy, GET("/stream"));
    expect(busy, text, sizeof(text), "\r\n\r\n");
    atomic_store(&f.wants_drain, true);
    bt_loop_wake_send(f.command);
    assert_int_equal(read_all(idle, text, sizeof(text), NULL), 0);
    read_all(busy, text, sizeof(text), NULL);
    assert_non_null(strstr(text, "data: 3"));
    assert_non_null(strstr(text, "\r\n0\r\n\r\n"));
    assert_int_equal(dial(&f), -1);
    close(idle);
    close(busy);
    for (unsigned i = 0; !atomic_load(&f.drained); i++) {
        assert_true(i < 1000);
        pause_ms(5);
        bt_loop_wake_send(f.command);
    }
    stop(&f);
}

static void close_tells_every_exchange(void **state)
{
    (void)state;
    fixture f;
    prepare(&f);
    start(&f);
    int first = dial(&f), second = dial(&f);
    put(first, GET("/hang"));
    put(second, GET("/hang"));
    await(&f.requests, 2);
    stop(&f);
    assert_int_equal(atomic_load(&f.gone), 2);
    close(first);
    close(second);
}

static void address_that_cannot_be_bound_is_named(void **state)
{
    (void)state;
    fixture f;
    prepare(&f);
    start(&f);
    bt_http_handler handler = {.on_request = serve, .on_gone = client_gone};
    bt_http_config config = f.config;
    bt_loop *loop = NULL;
    bt_http_server *server = NULL;
    bt_err err = {0};
    char port[16];
    config.port = bt_http_server_port(f.server);
    snprintf(port, sizeof(port), "port %u", config.port);
    assert_int_equal(bt_loop_create(&loop, NULL), BT_OK);
    assert_int_equal(bt_http_server_open(loop, &config, &handler, &server, &err), BT_ERR_OS);
    assert_non_null(strstr(err.message, "127.0.0.1"));
    assert_non_null(strstr(err.message, port));
    assert_non_null(strstr(err.message, "in use"));
    config.address = "nowhere";
    assert_int_equal(bt_http_server_open(loop, &config, &handler, &server, &err), BT_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "nowhere"));
    assert_null(server);
    bt_loop_destroy(loop);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connection_is_kept_for_the_next_request),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(half_closed_client_gets_what_was_answered),
        cmocka_unit_test(continue_is_sent_before_the_body),
        cmocka_unit_test(stream_is_chunked_or_ends_with_the_connection),
        cmocka_unit_test(aborted_response_is_visibly_incomplete),
        cmocka_unit_test(slow_reader_meets_back_pressure_and_gets_everything),
        cmocka_unit_test(client_that_reads_nothing_is_gone_after_the_stall),
        cmocka_unit_test(client_that_leaves_is_noticed_while_nothing_is_written),
        cmocka_unit_test(bodies_have_a_maximum),
        cmocka_unit_test(bodies_have_a_maximum_together),
        cmocka_unit_test(requests_that_do_not_come_are_given_up),
        cmocka_unit_test(connections_have_a_maximum),
        cmocka_unit_test(malformed_request_is_answered_and_closed),
        cmocka_unit_test(drain_finishes_what_is_in_flight),
        cmocka_unit_test(close_tells_every_exchange),
        cmocka_unit_test(address_that_cannot_be_bound_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
