#include "ops/cli/http.h"

#include "common/base/clock.h"

#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define EVENTS_MAX 256
#define CONNECT_TIMEOUT_MS 10000L

/* A request in flight, or a free one that keeps its handle. */
typedef struct transfer {
    bt_client *client;
    CURL *easy;
    struct transfer *next, *previous;
    bt_client_request request;
    char error[CURL_ERROR_SIZE];
} transfer;

struct bt_client {
    CURLM *multi;
    struct curl_slist *headers, *post_headers;
    int epoll_fd, signal_fd;
    uint64_t fetch_ms;
    uint64_t timer_ns; /* libcurl's next deadline; UINT64_MAX = none */
    transfer *active, *idle;
    uint32_t in_flight;
    bool interrupted;
    bt_client_load load;
};

/* ---- libcurl's calls ---- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    (void)easy;
    bt_client *client = arg;
    struct epoll_event event = {.data.fd = fd};
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(client->epoll_fd, EPOLL_CTL_DEL, fd, &event);
        curl_multi_assign(client->multi, fd, NULL);
        return 0;
    }
    if (what & CURL_POLL_IN) event.events |= EPOLLIN;
    if (what & CURL_POLL_OUT) event.events |= EPOLLOUT;
    if (epoll_ctl(client->epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0 &&
        errno == (known ? ENOENT : EEXIST)) /* a number that was closed and came again */
        epoll_ctl(client->epoll_fd, known ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
    curl_multi_assign(client->multi, fd, client);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *arg)
{
    (void)multi;
    bt_client *client = arg;
    client->timer_ns =
        timeout_ms < 0 ? UINT64_MAX : bt_monotonic_ns() + (uint64_t)timeout_ms * BT_NS_PER_MS;
    return 0;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
    uint64_t now_ns = bt_monotonic_ns();
    transfer *t = arg;
    long status = 0;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    bool wanted = t->request.on_data(t->request.user, status, bytes, size * count, now_ns);
    return wanted ? size * count : CURL_WRITEFUNC_ERROR;
}

/* ---- life ---- */

static bt_status no_memory(bt_err *err)
{
    return BT_FAIL(err, BT_ERR_NO_MEMORY, "the HTTP client");
}

static bt_status add_header(struct curl_slist **list, const char *text, bt_err *err)
{
    struct curl_slist *longer = curl_slist_append(*list, text);
    if (!longer) return no_memory(err);
    *list = longer;
    return BT_OK;
}

static bt_status make_headers(bt_client *client, const char *authorization, bt_err *err)
{
    char line[4096];
    bt_status status = add_header(&client->post_headers, "Content-Type: application/json", err);
    /* Without the wait for 100 Continue, which is 1 s at a server that does not know it. */
    if (status == BT_OK) status = add_header(&client->post_headers, "Expect:", err);
    if (status != BT_OK || !authorization) return status;
    if (snprintf(line, sizeof(line), "Authorization: %s", authorization) >= (int)sizeof(line))
        return BT_FAIL(err, BT_ERR_LIMIT, "the API key is too long");
    status = add_header(&client->headers, line, err);
    return status == BT_OK ? add_header(&client->post_headers, line, err) : status;
}

static bt_status open_fds(bt_client *client, bt_err *err)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = client->signal_fd};
    if (client->epoll_fd < 0 || client->signal_fd < 0 ||
        epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->signal_fd, &event) != 0)
        return BT_FAIL(err, BT_ERR_OS, "epoll and signalfd: %s", strerror(errno));
    return BT_OK;
}

bt_status bt_client_create(uint32_t connections, const char *authorization, uint64_t fetch_ms,
                           bt_client **ret_client, bt_err *err)
{
    bt_client *client = calloc(1, sizeof(*client));
    if (!client) return no_memory(err);
    client->epoll_fd = client->signal_fd = -1;
    client->timer_ns = UINT64_MAX;
    client->fetch_ms = fetch_ms;
    bt_status status = open_fds(client, err);
    if (status == BT_OK) status = make_headers(client, authorization, err);
    if (status == BT_OK) {
        client->multi = curl_multi_init();
        if (!client->multi) status = no_memory(err);
    }
    if (status != BT_OK) {
        bt_client_destroy(client);
        return status;
    }
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
    curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, 2 * (long)connections + 8);
    *ret_client = client;
    return BT_OK;
}

void bt_client_destroy(bt_client *client)
{
    if (!client) return;
    for (transfer *t = client->idle; t;) {
        transfer *next = t->next;
        curl_easy_cleanup(t->easy);
        free(t);
        t = next;
    }
    if (client->multi) curl_multi_cleanup(client->multi);
    curl_slist_free_all(client->headers);
    curl_slist_free_all(client->post_headers);
    if (client->epoll_fd >= 0) close(client->epoll_fd);
    if (client->signal_fd >= 0) close(client->signal_fd);
    free(client);
}

/* ---- one request ---- */

static transfer *take_idle(bt_client *client)
{
    transfer *t = client->idle;
    if (t) {
        client->idle = t->next;
        curl_easy_reset(t->easy);
        return t;
    }
    t = calloc(1, sizeof(*t));
    if (!t) return NULL;
    t->easy = curl_easy_init();
    if (!t->easy) {
        free(t);
        return NULL;
    }
    t->client = client;
    return t;
}

static void set_options(transfer *t)
{
    const bt_client_request *request = &t->request;
    CURL *easy = t->easy;
    t->error[0] = '\0';
    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, t);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "baton-bench/" BT_VERSION);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)request->timeout_ms);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER,
                     request->body ? t->client->post_headers : t->client->headers);
    if (!request->body) return;
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_bytes);
}

static void act(bt_client *client, curl_socket_t fd, int events)
{
    int running;
    curl_multi_socket_action(client->multi, fd, events, &running);
}

bt_status bt_client_start(bt_client *client, const bt_client_request *request, bt_err *err)
{
    transfer *t = take_idle(client);
    if (!t) return no_memory(err);
    t->request = *request;
    set_options(t);
    if (curl_multi_add_handle(client->multi, t->easy) != CURLM_OK) {
        t->next = client->idle;
        client->idle = t;
        return no_memory(err);
    }
    t->previous = NULL;
    t->next = client->active;
    if (t->next) t->next->previous = t;
    client->active = t;
    client->in_flight++;
    act(client, CURL_SOCKET_TIMEOUT, 0); /* rather than after what is ready elsewhere */
    return BT_OK;
}

static void retire(transfer *t, const bt_client_end *end)
{
    bt_client *client = t->client;
    bt_client_request request = t->request;
    curl_multi_remove_handle(client->multi, t->easy);
    if (t->previous)
        t->previous->next = t->next;
    else
        client->active = t->next;
    if (t->next) t->next->previous = t->previous;
    client->in_flight--;
    request.on_done(request.user, end);
    t->next = client->idle;
    client->idle = t;
}

static bt_client_outcome outcome_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK: return BT_CLIENT_OK;
    case CURLE_OPERATION_TIMEDOUT: return BT_CLIENT_TIMEOUT;
    case CURLE_WRITE_ERROR: return BT_CLIENT_ABORTED;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION: return BT_CLIENT_CONNECT;
    default: return BT_CLIENT_DISCONNECT;
    }
}

static void take_ends(bt_client *client)
{
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(client->multi, &left)) != NULL;) {
        if (message->msg != CURLMSG_DONE) continue;
        CURL *easy = message->easy_handle;
        CURLcode code = message->data.result;
        transfer *t = NULL;
        long status = 0, connects = 0;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&t);
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects);
        const bt_client_end end = {
            .outcome = outcome_of(code),
            .status = status,
            .message = t->error[0] != '\0' ? t->error : curl_easy_strerror(code),
            .fresh = connects > 0,
            .now_ns = bt_monotonic_ns(),
        };
        retire(t, &end);
    }
}

/* ---- the loop ---- */

static int wait_events(bt_client *client, struct epoll_event *events, uint64_t until_ns)
{
    uint64_t now_ns = bt_monotonic_ns();
    uint64_t wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    if (wait_ns > 3600 * BT_NS_PER_S) wait_ns = 3600 * BT_NS_PER_S;
    const struct timespec wait = {.tv_sec = (time_t)(wait_ns / BT_NS_PER_S),
                                  .tv_nsec = (long)(wait_ns % BT_NS_PER_S)};
    int count = epoll_pwait2(client->epoll_fd, events, EVENTS_MAX, &wait, NULL);
    if (count < 0 && errno == ENOSYS) /* Linux before 5.11: whole milliseconds, rounded up */
        count = epoll_wait(client->epoll_fd, events, EVENTS_MAX,
                           (int)((wait_ns + BT_NS_PER_MS - 1) / BT_NS_PER_MS));
    return count;
}

static void handle(bt_client *client, const struct epoll_event *event)
{
    if (event->data.fd == client->signal_fd) {
        struct signalfd_siginfo info;
        while (read(client->signal_fd, &info, sizeof(info)) == sizeof(info))
            client->interrupted = true;
        return;
    }
    int what = 0;
    if (event->events & EPOLLIN) what |= CURL_CSELECT_IN;
    if (event->events & EPOLLOUT) what |= CURL_CSELECT_OUT;
    if (event->events & (EPOLLERR | EPOLLHUP)) what |= CURL_CSELECT_IN | CURL_CSELECT_ERR;
    act(client, event->data.fd, what);
}

bt_status bt_client_wait(bt_client *client, uint64_t deadline_ns, bt_err *err)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t until_ns = client->timer_ns < deadline_ns ? client->timer_ns : deadline_ns;
    int count = wait_events(client, events, until_ns);
    if (count < 0 && errno != EINTR) return BT_FAIL(err, BT_ERR_OS, "epoll: %s", strerror(errno));
    uint64_t begin_ns = bt_monotonic_ns();
    for (int i = 0; i < count; i++) handle(client, &events[i]);
    if (client->timer_ns <= begin_ns) {
        client->timer_ns = UINT64_MAX;
        act(client, CURL_SOCKET_TIMEOUT, 0);
    }
    take_ends(client);
    uint64_t busy_ns = bt_monotonic_ns() - begin_ns;
    client->load.turns++;
    client->load.busy_ns += busy_ns;
    if (busy_ns > client->load.longest_ns) client->load.longest_ns = busy_ns;
    if (busy_ns > BT_NS_PER_MS) client->load.over_1ms++;
    return BT_OK;
}

void bt_client_cancel_all(bt_client *client)
{
    while (client->active) {
        const bt_client_end end = {
            .outcome = BT_CLIENT_CANCELLED, .message = "cancelled", .now_ns = bt_monotonic_ns()};
        retire(client->active, &end);
    }
}

uint32_t bt_client_in_flight(const bt_client *client)
{
    return client->in_flight;
}

bool bt_client_interrupted(const bt_client *client)
{
    return client->interrupted;
}

bt_client_load *bt_client_load_of(bt_client *client)
{
    return &client->load;
}

/* ---- a whole answer ---- */

typedef struct {
    bt_client_answer answer;
    size_t capacity;
    bool ended, no_memory;
    bt_client_outcome outcome;
    char message[128];
} fetch;

static bool on_fetch_data(void *user, long status, const char *bytes, size_t count, uint64_t now_ns)
{
    (void)status, (void)now_ns;
    fetch *f = user;
    if (count > BT_CLIENT_ANSWER_MAX - f->answer.bytes) return false;
    if (f->answer.bytes + count + 1 > f->capacity) {
        size_t capacity = 2 * (f->answer.bytes + count) + 1024;
        char *grown = realloc(f->answer.text, capacity);
        f->no_memory = !grown;
        if (!grown) return false;
        f->answer.text = grown;
        f->capacity = capacity;
    }
    memcpy(f->answer.text + f->answer.bytes, bytes, count);
    f->answer.bytes += count;
    f->answer.text[f->answer.bytes] = '\0';
    return true;
}

static void on_fetch_done(void *user, const bt_client_end *end)
{
    fetch *f = user;
    f->ended = true;
    f->outcome = end->outcome;
    f->answer.status = end->status;
    snprintf(f->message, sizeof(f->message), "%s", end->message);
}

static bt_status fetch_status(bt_client *client, const fetch *f, const char *url, bt_err *err)
{
    if (f->no_memory || !f->answer.text) return no_memory(err);
    if (client->interrupted) return BT_FAIL(err, BT_ERR_CANCELLED, "interrupted");
    if (f->outcome == BT_CLIENT_ABORTED)
        return BT_FAIL(err, BT_ERR_LIMIT, "%.80s: an answer of more than %u bytes", url,
                       BT_CLIENT_ANSWER_MAX);
    if (f->outcome != BT_CLIENT_OK)
        return BT_FAIL(err, BT_ERR_PEER_LOST, "%.80s: %s", url, f->message);
    return BT_OK;
}

bt_status bt_client_fetch(bt_client *client, const char *url, const char *body, size_t body_bytes,
                          bt_client_answer *ret_answer, bt_err *err)
{
    fetch f = {.answer.text = calloc(1, 1), .capacity = 1};
    const bt_client_request request = {.url = url,
                                       .body = body,
                                       .body_bytes = body_bytes,
                                       .timeout_ms = client->fetch_ms,
                                       .on_data = on_fetch_data,
                                       .on_done = on_fetch_done,
                                       .user = &f};
    bt_status status = bt_client_start(client, &request, err);
    while (status == BT_OK && !f.ended && !client->interrupted)
        status = bt_client_wait(client, bt_monotonic_ns() + BT_NS_PER_S, err);
    bt_client_cancel_all(client);
    if (status == BT_OK) status = fetch_status(client, &f, url, err);
    if (status != BT_OK) {
        free(f.answer.text);
        return status;
    }
    *ret_answer = f.answer;
    return BT_OK;
}
