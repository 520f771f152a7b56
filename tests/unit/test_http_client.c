/* ops/cli/http.h against a server of a thread whose path says what it does. */
#include "ops/cli/http.h"

#include "common/base/clock.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    int listener;
    uint16_t port;
    pthread_t thread;
} server;

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Reads one request of at most 4 KiB: its head, and the body that Content-Length tells. */
static bool read_request(int fd, char *ret_text, size_t capacity)
{
    size_t bytes = 0;
    for (;;) {
        ssize_t got = recv(fd, ret_text + bytes, capacity - 1 - bytes, 0);
        if (got <= 0) return false;
        bytes += (size_t)got;
        ret_text[bytes] = '\0';
        char *body = strstr(ret_text, "\r\n\r\n");
        if (!body) continue;
        char *length = strstr(ret_text, "Content-Length: ");
        size_t wanted = length ? strtoul(length + 16, NULL, 10) : 0;
        if (bytes - (size_t)(body + 4 - ret_text) >= wanted) return true;
    }
}

static void *serve_connection(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char request[4096], answer[8192];
    while (read_request(fd, request, sizeof(request))) {
        if (strstr(request, " /cut ")) {
            say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            break;
        }
        if (strstr(request, " /silent ")) continue;
        if (strstr(request, " /endless ")) {
            say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
            continue;
        }
        if (strstr(request, " /refused ")) {
            say(fd, "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nbusy");
            continue;
        }
        snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
                 strlen(request), request);
        say(fd, answer);
    }
    close(fd);
    return NULL;
}

static void *serve(void *arg)
{
    server *s = arg;
    for (int fd; (fd = accept(s->listener, NULL, NULL)) >= 0;) {
        pthread_t thread;
        pthread_create(&thread, NULL, serve_connection, (void *)(intptr_t)fd);
        pthread_detach(thread);
    }
    return NULL;
}

static int start(void **state)
{
    static server s;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    s.listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(s.listener, (struct sockaddr *)&address, length) != 0 || listen(s.listener, 64) != 0)
        return -1;
    getsockname(s.listener, (struct sockaddr *)&address, &length);
    s.port = ntohs(address.sin_port);
    *state = &s;
    return pthread_create(&s.thread, NULL, serve, &s);
}

static int stop(void **state)
{
    server *s = *state;
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    return 0;
}

static const char *url_of(const server *s, const char *path)
{
    static char url[128];
    snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", s->port, path);
    return url;
}

static bt_client *client_of(const char *authorization)
{
    bt_client *client = NULL;
    bt_err err;
    if (bt_client_create(8, authorization, 30000, &client, &err) != BT_OK)
        fail_msg("%s", err.message);
    return client;
}

static void test_fetch(void **state)
{
    bt_client *client = client_of("Bearer sesame");
    bt_client_answer answer;
    bt_err err;
    setenv("http_proxy", "http://127.0.0.1:1", 1); /* must not be looked at */
    if (bt_client_fetch(client, url_of(*state, "/get"), NULL, 0, &answer, &err) != BT_OK)
        fail_msg("%s", err.message);
    unsetenv("http_proxy");
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.bytes, strlen(answer.text));
    assert_non_null(strstr(answer.text, "GET /get HTTP/1.1\r\n"));
    assert_non_null(strstr(answer.text, "\r\nAuthorization: Bearer sesame\r\n"));
    free(answer.text);
    assert_int_equal(
        bt_client_fetch(client, url_of(*state, "/post"), "{\"a\": 1}", 8, &answer, &err), BT_OK);
    assert_non_null(strstr(answer.text, "POST /post HTTP/1.1\r\n"));
    assert_non_null(strstr(answer.text, "\r\nContent-Type: application/json\r\n"));
    assert_null(strstr(answer.text, "Expect"));
    assert_non_null(strstr(answer.text, "\r\n\r\n{\"a\": 1}"));
    free(answer.text);
    assert_int_equal(bt_client_fetch(client, url_of(*state, "/refused"), NULL, 0, &answer, &err),
                     BT_OK);
    assert_int_equal(answer.status, 429);
    assert_string_equal(answer.text, "busy");
    free(answer.text);
    bt_client_destroy(client);
}

static void test_fetch_failures(void **state)
{
    bt_client *client = client_of(NULL);
    bt_client_answer answer;
    bt_err err;
    assert_int_equal(bt_client_fetch(client, url_of(*state, "/cut"), NULL, 0, &answer, &err),
                     BT_ERR_PEER_LOST);
    assert_non_null(strstr(err.message, "/cut: "));
    assert_int_equal(bt_client_fetch(client, "http://127.0.0.1:1/", NULL, 0, &answer, &err),
                     BT_ERR_PEER_LOST);
    assert_int_equal(bt_client_fetch(client, "file:///etc/hostname", NULL, 0, &answer, &err),
                     BT_ERR_PEER_LOST);
    assert_int_equal(bt_client_in_flight(client), 0);
    bt_client_destroy(client);
}

typedef struct {
    char text[8192];
    size_t bytes;
    uint64_t data_ns;
    bool want, ended;
    bt_client_end end;
} exchange;

static bool on_data(void *user, long status, const char *bytes, size_t count, uint64_t now_ns)
{
    exchange *e = user;
    assert_int_equal(status, 200);
    assert_true(e->bytes + count < sizeof(e->text));
    memcpy(e->text + e->bytes, bytes, count);
    e->bytes += count;
    e->data_ns = now_ns;
    return e->want;
}

static void on_done(void *user, const bt_client_end *end)
{
    exchange *e = user;
    assert_false(e->ended);
    e->ended = true;
    e->end = *end;
}

static void begin(bt_client *client, const server *s, const char *path, exchange *e,
                  uint64_t timeout_ms)
{
    const bt_client_request request = {.url = url_of(s, path),
                                       .timeout_ms = timeout_ms,
                                       .on_data = on_data,
                                       .on_done = on_done,
                                       .user = e};
    assert_int_equal(bt_client_start(client, &request, NULL), BT_OK);
}

static void wait_end(bt_client *client, const exchange *e)
{
    while (!e->ended)
        assert_int_equal(bt_client_wait(client, bt_monotonic_ns() + BT_NS_PER_S, NULL), BT_OK);
}

/* Many at once; connections are kept and used again. */
static void test_many(void **state)
{
    bt_client *client = client_of(NULL);
    enum { COUNT = 200 };
    exchange *e = calloc(COUNT, sizeof(*e));
    unsigned fresh = 0;
    for (unsigned round = 0; round < 2; round++) {
        uint64_t before_ns = bt_monotonic_ns();
        memset(e, 0, COUNT * sizeof(*e));
        for (unsigned i = 0; i < COUNT; i++) {
            char path[32];
            snprintf(path, sizeof(path), "/r%u-%u", round, i);
            e[i].want = true;
            begin(client, *state, path, &e[i], 0);
        }
        assert_int_equal(bt_client_in_flight(client), COUNT);
        for (unsigned i = 0; i < COUNT; i++) {
            char line[48];
            wait_end(client, &e[i]);
            snprintf(line, sizeof(line), "GET /r%u-%u HTTP", round, i);
            assert_int_equal(e[i].end.outcome, BT_CLIENT_OK);
            assert_memory_equal(e[i].text, line, strlen(line));
            assert_true(e[i].data_ns >= before_ns && e[i].data_ns <= e[i].end.now_ns);
            fresh += round == 1 && e[i].end.fresh;
        }
    }
    assert_true(fresh < COUNT); /* 24 are kept for 8 that were promised */
    assert_int_equal(bt_client_in_flight(client), 0);
    assert_true(bt_client_load_of(client)->turns > 0);
    free(e);
    bt_client_destroy(client);
}

static void test_outcomes(void **state)
{
    bt_client *client = client_of(NULL);
    exchange cut = {.want = true}, slow = {.want = true}, aborted = {0}, endless = {.want = true};
    begin(client, *state, "/cut", &cut, 0);
    begin(client, *state, "/silent", &slow, 50);
    begin(client, *state, "/get", &aborted, 0);
    wait_end(client, &cut);
    wait_end(client, &slow);
    wait_end(client, &aborted);
    assert_int_equal(cut.end.outcome, BT_CLIENT_DISCONNECT);
    assert_int_equal(cut.bytes, 4);
    assert_int_equal(slow.end.outcome, BT_CLIENT_TIMEOUT);
    assert_int_equal(slow.end.status, 0);
    assert_int_equal(aborted.end.outcome, BT_CLIENT_ABORTED);
    begin(client, *state, "/endless", &endless, 0);
    while (endless.bytes == 0)
        assert_int_equal(bt_client_wait(client, bt_monotonic_ns() + BT_NS_PER_S, NULL), BT_OK);
    assert_memory_equal(endless.text, "abc", 3);
    bt_client_cancel_all(client);
    assert_true(endless.ended);
    assert_int_equal(endless.end.outcome, BT_CLIENT_CANCELLED);
    bt_client_destroy(client);
}

static void test_deadline_and_interrupt(void **state)
{
    (void)state;
    bt_client *client = client_of(NULL);
    uint64_t deadline_ns = bt_monotonic_ns() + 2 * BT_NS_PER_MS;
    assert_int_equal(bt_client_wait(client, deadline_ns, NULL), BT_OK);
    assert_true(bt_monotonic_ns() >= deadline_ns);
    assert_false(bt_client_interrupted(client));
    kill(getpid(), SIGINT);
    assert_int_equal(bt_client_wait(client, UINT64_MAX, NULL), BT_OK);
    assert_true(bt_client_interrupted(client));
    bt_client_destroy(client);
}

int main(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_fetch_failures),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_outcomes),
        cmocka_unit_test(test_deadline_and_interrupt),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
