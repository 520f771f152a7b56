/* bench_client.c - what `baton bench` itself adds: many streams from a server that does nothing else,
 * as the server wrote them and as the client read them.
 *
 *     bench_client [STREAMS TOKENS GAP_MS]       default 1000 50 20: 50,000 events a second
 *
 * The server is a child: one thread, one event for each token, all streams of a turn of 1 ms written
 * in that turn. It notes when it wrote each token. The client is build/bin/baton, run as anybody
 * would. Printed: gaps and times to first token as written and as read, the client's share of a core
 * and the longest turn of its loop. On a machine where both share the cores, both are late; what
 * counts is the difference. */
#include "common/base/clock.h"
#include "ops/cli/bench/samples.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define STREAMS_MAX 4096u
#define REQUEST_BYTES 65536u
#define PROBE_TOKENS 4u

typedef struct {
    int fd;
    char request[REQUEST_BYTES];
    size_t bytes;
    uint64_t asked_ns, written_ns, due_ns;
    unsigned left; /* tokens to write; 0 = idle */
    bool probe;
} stream;

typedef struct {
    int listener, epoll, out;
    unsigned tokens;
    uint64_t gap_ns;
    stream *streams[STREAMS_MAX];
    unsigned count;
    bt_samples first, gaps;
} server;

static void put(int fd, const char *text)
{
    size_t bytes = strlen(text);
    if (send(fd, text, bytes, MSG_NOSIGNAL) != (ssize_t)bytes) abort(); /* a few hundred bytes */
}

static void put_chunk(int fd, const char *data)
{
    char chunk[512];
    snprintf(chunk, sizeof(chunk), "%zx\r\n%s\r\n", strlen(data), data);
    put(fd, chunk);
}

static void answer_get(const stream *s)
{
    static const char models[] = "{\"data\": [{\"id\": \"stub\"}]}";
    char text[256];
    if (strncmp(s->request, "GET /v1/models ", 15) == 0)
        snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
                 strlen(models), models);
    else
        snprintf(text, sizeof(text), "HTTP/1.1 404 x\r\nContent-Length: 2\r\n\r\n{}");
    put(s->fd, text);
}

/* A whole request is there. */
static void begin(server *server, stream *s)
{
    s->bytes = 0;
    if (strncmp(s->request, "GET ", 4) == 0) {
        answer_get(s);
        return;
    }
    char wanted[32];
    snprintf(wanted, sizeof(wanted), "\"max_tokens\": %u,", PROBE_TOKENS);
    s->probe = strstr(s->request, wanted) != NULL;
    s->left = s->probe ? PROBE_TOKENS : server->tokens;
    s->asked_ns = bt_monotonic_ns();
    s->due_ns = s->asked_ns + (s->probe ? 0 : server->gap_ns);
    put(s->fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
               "Transfer-Encoding: chunked\r\n\r\n");
}

static void read_some(server *server, stream *s)
{
    ssize_t got = recv(s->fd, s->request + s->bytes, REQUEST_BYTES - 1 - s->bytes, 0);
    if (got <= 0) {
        if (got < 0 && errno == EAGAIN) return;
        epoll_ctl(server->epoll, EPOLL_CTL_DEL, s->fd, NULL);
        close(s->fd);
        s->fd = -1;
        s->left = 0;
        return;
    }
    s->bytes += (size_t)got;
    s->request[s->bytes] = '\0';
    char *body = strstr(s->request, "\r\n\r\n"), *length = strstr(s->request, "Content-Length: ");
    size_t wanted = length ? strtoul(length + 16, NULL, 10) : 0;
    if (body && s->bytes - (size_t)(body + 4 - s->request) >= wanted) begin(server, s);
}

static void write_token(server *server, stream *s, uint64_t now_ns)
{
    char event[256];
    bool first = s->written_ns == 0;
    if (!s->probe)
        bt_samples_add(first ? &server->first : &server->gaps,
                       now_ns - (first ? s->asked_ns : s->written_ns), NULL);
    s->written_ns = now_ns;
    s->due_ns += s->probe ? 0 : server->gap_ns;
    put_chunk(s->fd, "data: {\"choices\": [{\"index\": 0, \"text\": \" x\", \"logprobs\": null, "
                     "\"finish_reason\": null, \"token_ids\": [7]}], \"usage\": null}\n\n");
    if (--s->left > 0) return;
    s->written_ns = 0;
    snprintf(
        event, sizeof(event),
        "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 16, \"completion_tokens\": %u}}"
        "\n\ndata: [DONE]\n\n",
        s->probe ? PROBE_TOKENS : server->tokens);
    put_chunk(s->fd, event);
    put(s->fd, "0\r\n\r\n");
}

static void take_connections(server *server)
{
    for (int fd; (fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        stream *s = calloc(1, sizeof(*s));
        if (!s || server->count == STREAMS_MAX) abort();
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        s->fd = fd;
        server->streams[server->count++] = s;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
        epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static volatile sig_atomic_t stopped; /* of the child alone */

static void on_stop(int signo)
{
    (void)signo;
    stopped = 1;
}

/* Until SIGTERM; then the summaries go to the parent as they lie in memory. */
static void serve(server *server)
{
    struct epoll_event events[256], listen_event = {.events = EPOLLIN, .data.ptr = NULL};
    signal(SIGTERM, on_stop);
    server->epoll = epoll_create1(0);
    epoll_ctl(server->epoll, EPOLL_CTL_ADD, server->listener, &listen_event);
    while (!stopped) {
        int count = epoll_wait(server->epoll, events, 256, 1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr)
                read_some(server, events[i].data.ptr);
            else
                take_connections(server);
        }
        for (unsigned i = 0; i < server->count; i++) {
            stream *s = server->streams[i];
            for (uint64_t now; s->left > 0 && (now = bt_monotonic_ns()) >= s->due_ns;)
                write_token(server, s, now);
        }
    }
    bt_sample_summary told[2] = {bt_samples_summary(&server->first),
                                 bt_samples_summary(&server->gaps)};
    if (write(server->out, told, sizeof(told)) != sizeof(told)) abort();
    _exit(0);
}

static uint16_t listen_somewhere(int *ret_fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    *ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(*ret_fd, (struct sockaddr *)&address, length) != 0 || listen(*ret_fd, 4096) != 0)
        abort();
    getsockname(*ret_fd, (struct sockaddr *)&address, &length);
    return ntohs(address.sin_port);
}

/* Runs the client against the port; its JSON document. */
static json_t *run_client(uint16_t port, unsigned streams, unsigned tokens)
{
    char command[1024], self[512], file[] = "/tmp/bench-client-XXXXXX";
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[length > 0 ? length : 0] = '\0';
    *strrchr(self, '/') = '\0';
    close(mkstemp(file));
    snprintf(command, sizeof(command),
             "%s/../bin/baton bench --url http://127.0.0.1:%u --token-ids 100-999 --concurrency %u "
             "--requests %u --input-tokens 16 --output-tokens %u --warmup 0 --quiet --json %s "
             ">/dev/null",
             self, port, streams, 2 * streams, tokens, file);
    int code = system(command);
    json_t *document = json_load_file(file, 0, NULL);
    unlink(file);
    if (code != 0 || !document) {
        fprintf(stderr, "bench_client: the client failed\n");
        exit(1);
    }
    return document;
}

static void print_row(const char *what, const bt_sample_summary *wrote, const json_t *read)
{
    static const char *const keys[] = {"mean", "p50", "p90", "p99", "max"};
    const double values[] = {wrote->mean, wrote->p50, wrote->p90, wrote->p99, wrote->max};
    printf("%-16s written", what);
    for (unsigned i = 0; i < 5; i++) printf(" %10.3f", values[i] / 1e6);
    printf("\n%-16s read   ", "");
    for (unsigned i = 0; i < 5; i++)
        printf(" %10.3f", json_number_value(json_object_get(read, keys[i])) * 1e3);
    putchar('\n');
}

int main(int argc, char **argv)
{
    unsigned streams = argc > 3 ? (unsigned)atoi(argv[1]) : 1000;
    unsigned tokens = argc > 3 ? (unsigned)atoi(argv[2]) : 50;
    unsigned gap_ms = argc > 3 ? (unsigned)atoi(argv[3]) : 20;
    if (streams < 1 || streams > STREAMS_MAX / 2 || tokens <= PROBE_TOKENS || gap_ms < 1) {
        fputs("usage: bench_client [STREAMS TOKENS GAP_MS]\n", stderr);
        return 2;
    }
    int channel[2], listener;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    uint16_t port = listen_somewhere(&listener);
    if (pipe(channel) != 0) return 1;
    pid_t child = fork();
    if (child == 0) {
        static server s;
        s = (server){.listener = listener,
                     .out = channel[1],
                     .tokens = tokens,
                     .gap_ns = gap_ms * BT_NS_PER_MS};
        serve(&s);
    }
    json_t *document = run_client(port, streams, tokens);
    bt_sample_summary wrote[2];
    kill(child, SIGTERM);
    if (read(channel[0], wrote, sizeof(wrote)) != sizeof(wrote)) return 1;
    waitpid(child, NULL, 0);
    const json_t *client = json_object_get(document, "client");
    const json_t *told = json_array_get(json_object_get(document, "servers"), 0);
    printf("%u streams at once, %u tokens each, one each %u ms; ms\n", streams, tokens, gap_ms);
    printf("%-24s %10s %10s %10s %10s %10s\n", "", "mean", "p50", "p90", "p99", "max");
    print_row("first token", &wrote[0], json_object_get(told, "ttft_sent"));
    print_row("gap", &wrote[1], json_object_get(told, "itl"));
    printf("client: %.0f %% of a core, longest turn of its loop %.3f ms\n",
           100 * json_number_value(json_object_get(client, "cpu_share_of_a_core")),
           1e3 * json_number_value(json_object_get(client, "loop_longest_turn_s")));
    json_decref(document);
    return 0;
}
