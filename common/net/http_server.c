#include "common/net/http_server.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#define READ_BYTES 16384u
#define SWEEP_MS 100u
#define LINGER_MS 2000u
#define RESPONSE_HEAD_BYTES_MAX 2048u
#define BACKLOG 511

typedef struct {
    char *data;
    size_t bytes, capacity;
} buffer;

typedef enum {
    CONN_IDLE,    /* between requests, or none yet */
    CONN_HEAD,    /* a request has begun */
    CONN_BODY,    /* its head is complete */
    CONN_BUSY,    /* the owner has the exchange */
    CONN_LINGER,  /* the last response is out; reads and drops until the client closes */
    CONN_CLOSING, /* uv_close was called */
} conn_state;

typedef enum { EXCHANGE_NONE, EXCHANGE_OPEN, EXCHANGE_STREAMING } exchange_state;

typedef struct conn conn;

struct bt_http_exchange {
    conn *conn;
    void *user;
    exchange_state state;
    bool is_head, is_chunked, wants_writable;
};

/* One connection. Its memory goes in the close callback of tcp. */
struct conn {
    uv_tcp_t tcp;
    uv_write_t write;
    uv_shutdown_t shutdown;
    bt_http_server *server;
    conn *next, *previous;
    conn_state state;
    bool keep_alive; /* after the current response */
    bool broken;     /* reading or writing failed, or the client closed */
    bool resume;     /* the pump has something to do for this connection */
    bool reset;      /* close by a reset, which no client takes for the end of a response */
    bool is_reading, is_writing;
    uint64_t deadline_ms;       /* of the state; UINT64_MAX = none */
    uint64_t write_progress_ms; /* when output last moved */
    size_t write_queue_bytes;   /* and what was left of it then */
    bt_http_exchange exchange;
    bt_http1 parser;
    buffer body;
    buffer out;    /* gathered */
    buffer flying; /* with libuv */
    size_t pending_begin, pending_bytes;
    char pending[READ_BYTES]; /* read, not yet parsed */
};

struct bt_http_server {
    uv_tcp_t listener;
    uv_timer_t sweep;
    uv_idle_t pump; /* runs only while a connection has resume set */
    bt_loop *loop;
    bt_http_config config;
    bt_http_handler handler;
    bt_http_stats stats;
    conn *connections;
    size_t bodies_bytes;
    unsigned open_handles;
    bool is_draining, is_closing, accept_again;
    uint16_t port;
    char address[80];
};

static void process(conn *c);

void bt_http_config_default(bt_http_config *ret_config)
{
    *ret_config = (bt_http_config){
        .address = "127.0.0.1",
        .connections_max = 1024,
        .head_ms = 10000,
        .body_ms = 30000,
        .idle_ms = 75000,
        .stall_ms = 30000,
        .body_bytes_max = 4u << 20,
        .bodies_bytes_max = 256u << 20,
        .out_bytes_max = 256u << 10,
    };
}

static uint64_t now_ms(const bt_http_server *server)
{
    return uv_now(bt_loop_uv(server->loop));
}

/* ---- buffers ---- */

/* False if memory is out. */
static bool buffer_reserve(buffer *b, size_t more)
{
    size_t need = b->bytes + more;
    if (need <= b->capacity) return true;
    size_t capacity = b->capacity < 1024 ? 1024 : b->capacity;
    while (capacity < need) capacity *= 2;
    char *data = realloc(b->data, capacity);
    if (data == NULL) return false;
    b->data = data;
    b->capacity = capacity;
    return true;
}

static void buffer_free(buffer *b)
{
    free(b->data);
    *b = (buffer){0};
}

static void drop_body(conn *c)
{
    c->server->bodies_bytes -= c->body.capacity;
    buffer_free(&c->body);
}

/* ---- the end of a connection ---- */

static void server_handle_closed(uv_handle_t *handle)
{
    bt_http_server *server = handle->data;
    if (--server->open_handles == 0) free(server);
}

static void conn_closed(uv_handle_t *handle)
{
    conn *c = handle->data;
    bt_http_server *server = c->server;
    drop_body(c);
    buffer_free(&c->out);
    buffer_free(&c->flying);
    free(c);
    if (--server->open_handles == 0) free(server);
}

static void close_conn(conn *c)
{
    assert(c->exchange.state == EXCHANGE_NONE);
    if (c->state == CONN_CLOSING) return;
    c->state = CONN_CLOSING;
    bt_http_server *server = c->server;
    if (c->previous != NULL)
        c->previous->next = c->next;
    else
        server->connections = c->next;
    if (c->next != NULL) c->next->previous = c->previous;
    server->stats.connections--;
    if (!c->reset || uv_tcp_close_reset(&c->tcp, conn_closed) != 0) {
        uv_close((uv_handle_t *)&c->tcp, conn_closed);
    }
}

static void end_exchange(conn *c)
{
    assert(c->exchange.state != EXCHANGE_NONE);
    c->exchange.state = EXCHANGE_NONE;
    c->server->stats.exchanges--;
}

/* Only from libuv callbacks of ours, never from within a call of the owner. */
static void lose_conn(conn *c)
{
    if (c->state == CONN_CLOSING) return;
    if (c->exchange.state != EXCHANGE_NONE) {
        c->server->stats.gone_total++;
        c->server->handler.on_gone(c->server->handler.arg, &c->exchange);
        end_exchange(c);
    }
    close_conn(c);
}

static void pump(uv_idle_t *idle)
{
    bt_http_server *server = idle->data;
    uv_idle_stop(idle);
    for (conn *c = server->connections, *next; c != NULL; c = next) {
        next = c->next;
        if (!c->resume) continue;
        c->resume = false;
        if (c->broken)
            lose_conn(c);
        else
            process(c);
    }
}

/* Goes on with this connection in the next turn of the loop. */
static void resume_later(conn *c)
{
    c->resume = true;
    uv_idle_start(&c->server->pump, pump);
}

/* ---- output ---- */

static void flush_out(conn *c);

static void shutdown_done(uv_shutdown_t *request, int status)
{
    (void)request, (void)status;
}

/* Everything is out: half-close, then let the client close first, so that no reset overtakes the
 * response. */
static void begin_linger(conn *c)
{
    if (c->state == CONN_LINGER) return;
    c->state = CONN_LINGER;
    c->deadline_ms = now_ms(c->server) + LINGER_MS;
    if (uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, shutdown_done) != 0) {
        c->broken = true;
        resume_later(c);
    }
}

static void tell_writable(conn *c)
{
    bt_http_exchange *x = &c->exchange;
    size_t waiting = c->out.bytes + c->flying.bytes;
    if (!x->wants_writable || waiting >= c->server->config.out_bytes_max / 2) return;
    x->wants_writable = false;
    const bt_http_handler *handler = &c->server->handler;
    if (handler->on_writable != NULL) handler->on_writable(handler->arg, x);
}

static void write_done(uv_write_t *request, int status)
{
    conn *c = request->data;
    c->is_writing = false;
    if (c->state == CONN_CLOSING) return;
    if (status != 0) {
        lose_conn(c);
        return;
    }
    c->write_progress_ms = now_ms(c->server);
    c->flying.bytes = 0;
    flush_out(c);
    if (c->exchange.state == EXCHANGE_STREAMING) tell_writable(c);
}

/* Hands what was gathered to libuv, unless it still has something. */
static void flush_out(conn *c)
{
    if (c->is_writing || c->broken) return;
    if (c->out.bytes == 0) {
        bool last = c->exchange.state == EXCHANGE_NONE && !c->keep_alive;
        if (last && c->state == CONN_BUSY) begin_linger(c);
        return;
    }
    buffer swap = c->flying;
    c->flying = c->out;
    c->out = swap;
    uv_buf_t piece = uv_buf_init(c->flying.data, (unsigned)c->flying.bytes);
    c->write.data = c;
    int rc = uv_write(&c->write, (uv_stream_t *)&c->tcp, &piece, 1, write_done);
    c->is_writing = rc == 0;
    if (rc != 0) {
        c->broken = true;
        resume_later(c);
    }
}

/* Copies. What the kernel takes at once is not queued. */
static void put_out(conn *c, const char *data, size_t bytes)
{
    if (c->broken || c->state == CONN_CLOSING) return;
    if (!c->is_writing && c->out.bytes == 0) {
        uv_buf_t piece = uv_buf_init((char *)data, (unsigned)bytes);
        int taken = uv_try_write((uv_stream_t *)&c->tcp, &piece, 1);
        if (taken < 0 && taken != UV_EAGAIN) {
            c->broken = true;
            resume_later(c);
            return;
        }
        if (taken > 0) {
            data += taken;
            bytes -= (size_t)taken;
        }
        c->write_progress_ms = now_ms(c->server);
    }
    if (bytes == 0) return;
    if (!buffer_reserve(&c->out, bytes)) {
        c->broken = true;
        resume_later(c);
        return;
    }
    memcpy(c->out.data + c->out.bytes, data, bytes);
    c->out.bytes += bytes;
    flush_out(c);
}

/* ---- responses ---- */

static const char *reason_of(int status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default: return "";
    }
}

/* Status line and fields; framing is "Content-Length: n", "Transfer-Encoding: chunked" or empty. */
static size_t format_head(char *text, int status, const char *content_type, const char *framing,
                          const char *fields, bool keep_alive)
{
    char date[48];
    time_t seconds = time(NULL);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &parts);
    int bytes = snprintf(
        text, RESPONSE_HEAD_BYTES_MAX,
        "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\n%s%s%sConnection: %s\r\n"
        "\r\n",
        status, reason_of(status), date, content_type, framing, framing[0] != '\0' ? "\r\n" : "",
        fields != NULL ? fields : "", keep_alive ? "keep-alive" : "close");
    assert(bytes > 0 && (unsigned)bytes < RESPONSE_HEAD_BYTES_MAX);
    return (size_t)bytes;
}

/* Head and body in one piece, so that a small response is one segment. */
static void put_response(conn *c, int status, const char *content_type, const char *fields,
                         const void *body, size_t bytes, bool is_head)
{
    char head[RESPONSE_HEAD_BYTES_MAX + 1024], framing[64];
    snprintf(framing, sizeof(framing), "Content-Length: %zu", bytes);
    size_t used = format_head(head, status, content_type, framing, fields, c->keep_alive);
    if (is_head) bytes = 0;
    if (bytes <= sizeof(head) - used) {
        if (bytes > 0) memcpy(head + used, body, bytes);
        put_out(c, head, used + bytes);
    } else {
        put_out(c, head, used);
        put_out(c, body, bytes);
    }
}

/* The response is handed over: what comes next on this connection? */
static void response_done(conn *c)
{
    if (c->exchange.state != EXCHANGE_NONE) end_exchange(c);
    drop_body(c);
    if (c->server->is_draining) c->keep_alive = false;
    if (!c->keep_alive) {
        c->state = CONN_BUSY;
        c->deadline_ms = UINT64_MAX;
        flush_out(c);
        return;
    }
    c->state = CONN_IDLE;
    c->deadline_ms = now_ms(c->server) + c->server->config.idle_ms;
    if (c->pending_bytes > 0) resume_later(c);
}

/* What the server itself refuses, in the error form of the OpenAI API. */
static void refuse(conn *c, int status, const char *text)
{
    char body[256];
    int bytes = snprintf(body, sizeof(body),
                         "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,"
                         "\"code\":null}}\n",
                         text, status < 500 ? "invalid_request_error" : "server_error");
    assert(bytes > 0 && (unsigned)bytes < sizeof(body));
    c->keep_alive = false;
    c->pending_bytes = 0;
    put_response(c, status, "application/json", status == 503 ? "Retry-After: 1\r\n" : NULL, body,
                 (size_t)bytes, false);
    response_done(c);
}

void bt_http_exchange_set_user(bt_http_exchange *exchange, void *user)
{
    exchange->user = user;
}

void *bt_http_exchange_user(const bt_http_exchange *exchange)
{
    return exchange->user;
}

void bt_http_reply(bt_http_exchange *exchange, int status, const char *content_type,
                   const char *fields, const void *body, size_t bytes)
{
    conn *c = exchange->conn;
    assert(exchange->state == EXCHANGE_OPEN);
    if (c->server->is_draining) c->keep_alive = false;
    put_response(c, status, content_type, fields, body, bytes, exchange->is_head);
    response_done(c);
}

void bt_http_stream_begin(bt_http_exchange *exchange, int status, const char *content_type,
                          const char *fields)
{
    conn *c = exchange->conn;
    assert(exchange->state == EXCHANGE_OPEN);
    exchange->state = EXCHANGE_STREAMING;
    exchange->is_chunked = c->parser.request.minor == 1;
    if (!exchange->is_chunked || c->server->is_draining) c->keep_alive = false;
    char head[RESPONSE_HEAD_BYTES_MAX];
    size_t bytes = format_head(head, status, content_type,
                               exchange->is_chunked ? "Transfer-Encoding: chunked" : "", fields,
                               c->keep_alive);
    put_out(c, head, bytes);
}

/* One chunk, framed in the buffer it is sent from. */
static void put_chunk(conn *c, const char *data, size_t bytes)
{
    char small[4096], size[24];
    int size_bytes = snprintf(size, sizeof(size), "%zx\r\n", bytes);
    if (bytes + sizeof(size) + 2 <= sizeof(small)) {
        memcpy(small, size, (size_t)size_bytes);
        memcpy(small + size_bytes, data, bytes);
        memcpy(small + size_bytes + bytes, "\r\n", 2);
        put_out(c, small, (size_t)size_bytes + bytes + 2);
        return;
    }
    put_out(c, size, (size_t)size_bytes);
    put_out(c, data, bytes);
    put_out(c, "\r\n", 2);
}

bt_status bt_http_stream_write(bt_http_exchange *exchange, const void *data, size_t bytes)
{
    conn *c = exchange->conn;
    size_t out_bytes_max = c->server->config.out_bytes_max;
    assert(exchange->state == EXCHANGE_STREAMING && bytes <= out_bytes_max);
    if (c->broken) return BT_ERR_PEER_LOST;
    if (bytes == 0 || exchange->is_head) return BT_OK;
    if (c->out.bytes + c->flying.bytes + bytes > out_bytes_max) {
        exchange->wants_writable = true;
        return BT_AGAIN;
    }
    if (exchange->is_chunked)
        put_chunk(c, data, bytes);
    else
        put_out(c, data, bytes);
    return c->broken ? BT_ERR_PEER_LOST : BT_OK;
}

void bt_http_stream_end(bt_http_exchange *exchange)
{
    conn *c = exchange->conn;
    assert(exchange->state == EXCHANGE_STREAMING);
    if (exchange->is_chunked && !exchange->is_head) put_out(c, "0\r\n\r\n", 5);
    response_done(c);
}

void bt_http_abort(bt_http_exchange *exchange)
{
    conn *c = exchange->conn;
    assert(exchange->state != EXCHANGE_NONE);
    end_exchange(c);
    c->broken = c->reset = true;
    resume_later(c);
}

/* ---- input ---- */

static void begin_exchange(conn *c)
{
    bt_http_server *server = c->server;
    c->state = CONN_BUSY;
    c->deadline_ms = UINT64_MAX;
    c->keep_alive = c->parser.request.keep_alive;
    c->exchange = (bt_http_exchange){
        .conn = c,
        .state = EXCHANGE_OPEN,
        .is_head = bt_text_is(c->parser.request.method, "HEAD"),
    };
    server->stats.exchanges++;
    server->stats.requests_total++;
    bt_http_request request = {
        .head = &c->parser.request, .body = c->body.data, .body_bytes = c->body.bytes};
    server->handler.on_request(server->handler.arg, &c->exchange, &request);
}

static void head_complete(conn *c)
{
    c->state = CONN_BODY;
    c->deadline_ms = now_ms(c->server) + c->server->config.body_ms;
    if (c->parser.request.expect_continue) put_out(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

/* The parser has held it to body_bytes_max already. */
static void take_body(conn *c, bt_text piece)
{
    bt_http_server *server = c->server;
    size_t before = c->body.capacity;
    bool has_memory = buffer_reserve(&c->body, piece.bytes);
    server->bodies_bytes += c->body.capacity - before;
    if (!has_memory || server->bodies_bytes > server->config.bodies_bytes_max) {
        server->stats.rejected_total++;
        refuse(c, 503, "too many requests are being read");
        return;
    }
    memcpy(c->body.data + c->body.bytes, piece.data, piece.bytes);
    c->body.bytes += piece.bytes;
}

static bool can_parse(const conn *c)
{
    return !c->broken && (c->state == CONN_IDLE || c->state == CONN_HEAD || c->state == CONN_BODY);
}

static void take_event(conn *c, bt_http1_event event, bt_text piece)
{
    switch (event) {
    case BT_HTTP1_NEED: return;
    case BT_HTTP1_HEAD: head_complete(c); return;
    case BT_HTTP1_BODY: take_body(c, piece); return;
    case BT_HTTP1_END: begin_exchange(c); return;
    case BT_HTTP1_ERROR: {
        bt_http1_error error = bt_http1_error_get(&c->parser);
        c->server->stats.bad_requests_total++;
        refuse(c, error.status, error.text);
        return;
    }
    }
}

static void alloc_read(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buf)
{
    (void)suggested;
    conn *c = handle->data;
    if (c->pending_begin > 0) {
        memmove(c->pending, c->pending + c->pending_begin, c->pending_bytes);
        c->pending_begin = 0;
    }
    *ret_buf = uv_buf_init(c->pending + c->pending_bytes,
                           (unsigned)(sizeof(c->pending) - c->pending_bytes));
}

static void read_done(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf);

/* Reads as long as there is room, in the middle of a response too: that is how a client that left
 * is noticed. */
static void set_reading(conn *c)
{
    bool wanted = !c->broken && c->state != CONN_CLOSING && c->pending_bytes < sizeof(c->pending);
    if (wanted == c->is_reading) return;
    c->is_reading = wanted;
    if (wanted)
        uv_read_start((uv_stream_t *)&c->tcp, alloc_read, read_done);
    else
        uv_read_stop((uv_stream_t *)&c->tcp);
}

/* No more requests: closes once the responses are out. */
static void finish_conn(conn *c)
{
    if (!c->is_writing) {
        lose_conn(c);
        return;
    }
    c->keep_alive = false;
    c->state = CONN_BUSY;
    c->deadline_ms = UINT64_MAX;
}

/* Parses what has been read, until more is needed or the owner has a request to answer. */
static void process(conn *c)
{
    while (can_parse(c)) {
        size_t used = 0;
        bt_text piece = {0};
        bt_http1_event event = bt_http1_feed(&c->parser, c->pending + c->pending_begin,
                                             c->pending_bytes, &used, &piece);
        c->pending_begin += used;
        c->pending_bytes -= used;
        if (c->state == CONN_IDLE && !bt_http1_is_idle(&c->parser)) {
            c->state = CONN_HEAD;
            c->deadline_ms = now_ms(c->server) + c->server->config.head_ms;
        }
        take_event(c, event, piece);
        if (event == BT_HTTP1_NEED) break;
    }
    if (c->state == CONN_LINGER) c->pending_bytes = 0;
    if (c->state == CONN_IDLE && c->server->is_draining)
        finish_conn(c);
    else
        set_reading(c);
}

static void read_done(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf)
{
    (void)buf;
    conn *c = stream->data;
    if (c->state == CONN_CLOSING || count == 0) return;
    if (count < 0) {
        c->is_reading = false;
        uv_read_stop(stream);
        /* A client that half-closed can still read the responses it was given. */
        if (count == UV_EOF && c->exchange.state == EXCHANGE_NONE && c->state != CONN_LINGER)
            finish_conn(c);
        else
            lose_conn(c);
        return;
    }
    c->pending_bytes += (size_t)count;
    process(c);
}

/* ---- server ---- */

static void refuse_connection(bt_http_server *server, conn *c)
{
    static const char response[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
                                   "Retry-After: 1\r\nConnection: close\r\n\r\n";
    uv_buf_t piece = uv_buf_init((char *)response, sizeof(response) - 1);
    server->stats.rejected_total++;
    uv_try_write((uv_stream_t *)&c->tcp, &piece, 1);
}

static void connection_came(uv_stream_t *listener, int status)
{
    bt_http_server *server = listener->data;
    if (status != 0 || server->is_draining) return;
    conn *c = calloc(1, sizeof(*c));
    /* libuv offers no other connection until this one is accepted. */
    server->accept_again = c == NULL;
    if (c == NULL) return;
    c->server = server;
    uv_tcp_init(bt_loop_uv(server->loop), &c->tcp);
    c->tcp.data = c;
    server->open_handles++;
    server->stats.connections++;
    c->next = server->connections;
    if (c->next != NULL) c->next->previous = c;
    server->connections = c;
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) != 0) {
        close_conn(c);
        return;
    }
    if (server->stats.connections > server->config.connections_max) {
        refuse_connection(server, c);
        close_conn(c);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
    bt_http1_init(&c->parser, server->config.body_bytes_max);
    c->state = CONN_IDLE;
    c->deadline_ms = now_ms(server) + server->config.head_ms;
    set_reading(c);
}

static void deadline_passed(conn *c)
{
    if (c->state == CONN_HEAD || c->state == CONN_BODY) {
        c->server->stats.timeouts_total++;
        refuse(c, 408, "the request did not come in time");
    } else {
        lose_conn(c);
    }
}

/* The client has taken nothing for stall_ms. */
static bool is_stalled(conn *c, uint64_t now)
{
    size_t left = uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp);
    if (!c->is_writing || left != c->write_queue_bytes) c->write_progress_ms = now;
    c->write_queue_bytes = left;
    return now - c->write_progress_ms >= c->server->config.stall_ms;
}

static void sweep(uv_timer_t *timer)
{
    bt_http_server *server = timer->data;
    if (server->accept_again) connection_came((uv_stream_t *)&server->listener, 0);
    uint64_t now = now_ms(server);
    for (conn *c = server->connections, *next; c != NULL; c = next) {
        next = c->next;
        if (now >= c->deadline_ms) {
            deadline_passed(c);
        } else if (is_stalled(c, now)) {
            server->stats.timeouts_total++;
            lose_conn(c);
        }
    }
}

static bt_status bind_listener(bt_http_server *server, bt_err *err)
{
    const bt_http_config *config = &server->config;
    struct sockaddr_storage address;
    if (uv_ip4_addr(config->address, config->port, (struct sockaddr_in *)&address) != 0 &&
        uv_ip6_addr(config->address, config->port, (struct sockaddr_in6 *)&address) != 0) {
        return BT_FAIL(err, BT_ERR_ARGUMENT, "HTTP address '%.64s' is not an IP address",
                       config->address);
    }
    int rc = uv_tcp_bind(&server->listener, (struct sockaddr *)&address, 0);
    if (rc == 0) rc = uv_listen((uv_stream_t *)&server->listener, BACKLOG, connection_came);
    if (rc != 0) {
        return BT_FAIL(err, BT_ERR_OS, "HTTP on %s port %u: %s", config->address, config->port,
                       uv_strerror(rc));
    }
    int bytes = sizeof(address);
    uv_tcp_getsockname(&server->listener, (struct sockaddr *)&address, &bytes);
    bool is_ipv6 = address.ss_family == AF_INET6;
    server->port = ntohs(is_ipv6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                 : ((struct sockaddr_in *)&address)->sin_port);
    snprintf(server->address, sizeof(server->address), is_ipv6 ? "[%s]:%u" : "%s:%u",
             config->address, server->port);
    return BT_OK;
}

bt_status bt_http_server_open(bt_loop *loop, const bt_http_config *config,
                              const bt_http_handler *handler, bt_http_server **ret_server,
                              bt_err *err)
{
    assert(handler->on_request != NULL && handler->on_gone != NULL);
    bt_http_server *server = calloc(1, sizeof(*server));
    if (server == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "HTTP server");
    uv_loop_t *uv = bt_loop_uv(loop);
    server->loop = loop;
    server->config = *config;
    server->handler = *handler;
    uv_tcp_init(uv, &server->listener);
    uv_timer_init(uv, &server->sweep);
    uv_idle_init(uv, &server->pump);
    server->listener.data = server->sweep.data = server->pump.data = server;
    server->open_handles = 3;
    bt_status status = bind_listener(server, err);
    server->config.address = NULL;
    if (status != BT_OK) {
        bt_http_server_close(server);
        return status;
    }
    uv_timer_start(&server->sweep, sweep, SWEEP_MS, SWEEP_MS);
    *ret_server = server;
    return BT_OK;
}

const char *bt_http_server_address(const bt_http_server *server)
{
    return server->address;
}

uint16_t bt_http_server_port(const bt_http_server *server)
{
    return server->port;
}

void bt_http_server_stats(const bt_http_server *server, bt_http_stats *ret_stats)
{
    *ret_stats = server->stats;
}

void bt_http_server_drain(bt_http_server *server)
{
    if (server->is_draining) return;
    server->is_draining = true;
    uv_close((uv_handle_t *)&server->listener, server_handle_closed);
    for (conn *c = server->connections; c != NULL; c = c->next) {
        if (c->state == CONN_IDLE) resume_later(c);
    }
}

bool bt_http_server_is_drained(const bt_http_server *server)
{
    return server->is_draining && server->stats.connections == 0;
}

void bt_http_server_close(bt_http_server *server)
{
    if (server == NULL) return;
    assert(!server->is_closing);
    server->is_closing = true;
    while (server->connections != NULL) lose_conn(server->connections);
    if (!server->is_draining) uv_close((uv_handle_t *)&server->listener, server_handle_closed);
    uv_close((uv_handle_t *)&server->sweep, server_handle_closed);
    uv_close((uv_handle_t *)&server->pump, server_handle_closed);
}
