/* http_server.h - HTTP/1.1 on a bt_loop: connections, limits, fixed and streamed responses.
 *
 * WHAT    It reads a whole request and hands it to on_request; routing is the owner's. One request
 *         at a time for each connection: pipelined ones wait for the response before them.
 * FLOW
 *     bt_http_config config;
 *     bt_http_config_default(&config);                          127.0.0.1, any free port
 *     bt_http_handler handler = {.arg = me, .on_request = serve, .on_gone = gone};
 *     bt_http_server_open(loop, &config, &handler, &server, err);
 *     printf("%s\n", bt_http_server_address(server));           127.0.0.1:40123
 *     static void serve(void *arg, bt_http_exchange *x, const bt_http_request *r) {
 *         if (bt_text_is(r->head->path, "/health"))
 *             bt_http_reply(x, 200, "text/plain", NULL, "ok\n", 3);            x is over
 *         else {
 *             bt_http_exchange_set_user(x, job_of(r));
 *             bt_http_stream_begin(x, 200, "text/event-stream", NULL);         x lives on
 *         }
 *     }
 *     if (bt_http_stream_write(x, event, bytes) == BT_AGAIN) …  the client reads too slowly: wait
 *                                                               for on_writable, or bt_http_abort
 *     bt_http_stream_end(x);                                    x is over
 *     bt_http_server_drain(server); … bt_http_server_close(server);
 * EXCHANGE A request and its response. It lives from on_request until exactly one of: reply,
 *         stream_end or abort has returned, or on_gone has returned. on_gone never comes from within
 *         a call of the owner, and nothing comes after it. A client that closes its sending side
 *         before the response ended is gone.
 * OWNS    The request view is borrowed for the call of on_request; what is kept must be copied.
 *         Bytes given to reply and write are copied.
 * THREAD  The loop's.
 * BOUNDS  In bt_http_config, and http1.h for heads. Above connections_max: 503 and closed. Body
 *         above body_bytes_max: 413. Bodies of all connections above bodies_bytes_max: 503. Head or
 *         body that does not come in time: 408. More output than out_bytes_max: AGAIN, nothing is
 *         taken. A client that takes nothing for stall_ms is gone. */
#ifndef BT_COMMON_NET_HTTP_SERVER_H
#define BT_COMMON_NET_HTTP_SERVER_H

#include "common/base/status.h"
#include "common/loop/loop.h"
#include "common/net/http1.h"

typedef struct bt_http_server bt_http_server;
typedef struct bt_http_exchange bt_http_exchange;

typedef struct {
    const char *address; /* literal IPv4 or IPv6; borrowed during open */
    uint16_t port;       /* 0 = any free one */
    uint32_t connections_max;
    uint32_t head_ms, body_ms, idle_ms, stall_ms;
    size_t body_bytes_max, bodies_bytes_max;
    size_t out_bytes_max; /* waiting for one client; a fixed reply may exceed it */
} bt_http_config;

typedef struct {
    const bt_http1_request *head;
    const char *body; /* not terminated; NULL if empty */
    size_t body_bytes;
} bt_http_request;

typedef struct {
    void *arg;
    void (*on_request)(void *arg, bt_http_exchange *exchange, const bt_http_request *request);
    /* The client left before its response was complete. */
    void (*on_gone)(void *arg, bt_http_exchange *exchange);
    /* After an AGAIN: less than half of out_bytes_max waits now. NULL = not wanted. */
    void (*on_writable)(void *arg, bt_http_exchange *exchange);
} bt_http_handler;

typedef struct {
    uint32_t connections, exchanges; /* now */
    uint64_t requests_total, bad_requests_total, gone_total, rejected_total, timeouts_total;
} bt_http_stats;

/* 1,024 connections; head 10 s, body 30 s, idle 75 s, stall 30 s; bodies 4 MiB each and 256 MiB in
 * all; output 256 KiB. */
void bt_http_config_default(bt_http_config *ret_config);

/* ERR_OS naming the address if it cannot be bound, ERR_ARGUMENT if it is no address. */
bt_status bt_http_server_open(bt_loop *loop, const bt_http_config *config,
                              const bt_http_handler *handler, bt_http_server **ret_server,
                              bt_err *err);
/* "127.0.0.1:40123", "[::1]:40123"; owned by server. */
const char *bt_http_server_address(const bt_http_server *server);
uint16_t bt_http_server_port(const bt_http_server *server);

/* Takes no new connections; closes those without a request at once and the others after the
 * response they wait for. */
void bt_http_server_drain(bt_http_server *server);
/* No connection is left. */
bool bt_http_server_is_drained(const bt_http_server *server);
/* Ends everything: on_gone for each exchange, then nothing more. NULL is allowed. Not from within
 * on_request, on_gone or on_writable. */
void bt_http_server_close(bt_http_server *server);
void bt_http_server_stats(const bt_http_server *server, bt_http_stats *ret_stats);

void bt_http_exchange_set_user(bt_http_exchange *exchange, void *user);
void *bt_http_exchange_user(const bt_http_exchange *exchange);

/* fields: NULL, or whole lines, as "Retry-After: 1\r\n". Ends the exchange. */
void bt_http_reply(bt_http_exchange *exchange, int status, const char *content_type,
                   const char *fields, const void *body, size_t bytes);

/* A response whose length is not known: chunked, or up to the close for an HTTP/1.0 client. */
void bt_http_stream_begin(bt_http_exchange *exchange, int status, const char *content_type,
                          const char *fields);
/* OK; AGAIN: nothing was taken; ERR_PEER_LOST: on_gone follows. bytes 0 is OK and sends nothing.
 * A piece above out_bytes_max asserts. */
bt_status bt_http_stream_write(bt_http_exchange *exchange, const void *data, size_t bytes);
void bt_http_stream_end(bt_http_exchange *exchange);

/* Cuts the connection in mid-response, so that the client cannot take it for complete. */
void bt_http_abort(bt_http_exchange *exchange);

#endif
