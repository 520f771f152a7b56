/* http.h - many HTTP requests at once from one thread: libcurl's multi interface on our epoll
 * (decision 0009).
 *
 * FLOW    create -> start … -> wait … -> destroy. on_data and on_done are called from wait (and
 *         on_done from cancel_all); they may call start.
 * TIME    now_ns of on_data is read when libcurl hands over what it has just received, before
 *         anything is parsed. How long the loop kept other sockets waiting is in bt_client_load.
 * ENV     Proxies and other settings of the environment are not looked at; no redirect is followed.
 * SIGNALS SIGINT and SIGTERM, which the caller has blocked, are taken by wait: interrupted. */
#ifndef BT_OPS_CLI_HTTP_H
#define BT_OPS_CLI_HTTP_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bt_client bt_client;

typedef enum {
    BT_CLIENT_OK, /* an answer came whole, whatever its status */
    BT_CLIENT_CONNECT,
    BT_CLIENT_TIMEOUT,
    BT_CLIENT_DISCONNECT, /* the connection ended or broke before the answer did */
    BT_CLIENT_ABORTED,    /* on_data did not want more */
    BT_CLIENT_CANCELLED,  /* cancel_all */
} bt_client_outcome;

typedef struct {
    bt_client_outcome outcome;
    long status;         /* of HTTP; 0 = no answer */
    const char *message; /* of a failure */
    bool fresh;          /* a connection was made for it */
    uint64_t now_ns;
} bt_client_end;

typedef struct {
    const char *url;
    const char *body; /* NULL = GET; the caller's until on_done */
    size_t body_bytes;
    uint64_t timeout_ms; /* of all of it; 0 = none */
    /* Bytes of a body; false aborts. */
    bool (*on_data)(void *user, long status, const char *bytes, size_t count, uint64_t now_ns);
    void (*on_done)(void *user, const bt_client_end *end);
    void *user;
} bt_client_request;

/* How busy the loop was since create or the last reset. While one turn of the loop runs, what
 * arrives on other sockets waits: the longest turn bounds the error of a time. */
typedef struct {
    uint64_t turns, busy_ns, longest_ns, over_1ms;
} bt_client_load;

/* connections: so many at once are expected, and kept open. authorization: "Bearer …", or NULL.
 * fetch_ms: the most that one bt_client_fetch takes. */
bt_status bt_client_create(uint32_t connections, const char *authorization, uint64_t fetch_ms,
                           bt_client **ret_client, bt_err *err);
/* Nothing may be in flight. Accepts NULL. */
void bt_client_destroy(bt_client *client);

/* The request goes out at once, as far as the socket takes it. */
bt_status bt_client_start(bt_client *client, const bt_client_request *request, bt_err *err);
/* Until something happened or deadline_ns of the monotonic clock passed. */
bt_status bt_client_wait(bt_client *client, uint64_t deadline_ns, bt_err *err);
void bt_client_cancel_all(bt_client *client);
uint32_t bt_client_in_flight(const bt_client *client);
bool bt_client_interrupted(const bt_client *client);
bt_client_load *bt_client_load_of(bt_client *client);

/* One request and its whole answer, of BT_CLIENT_ANSWER_MAX bytes at most, NUL-terminated, to be
 * freed. Nothing else may be in flight. Errors: ERR_PEER_LOST (no answer), ERR_LIMIT, ERR_CANCELLED
 * (interrupted), ERR_NO_MEMORY. An answer of any status is no error. */
#define BT_CLIENT_ANSWER_MAX (16u << 20)
typedef struct {
    long status;
    char *text;
    size_t bytes;
} bt_client_answer;
bt_status bt_client_fetch(bt_client *client, const char *url, const char *body, size_t body_bytes,
                          bt_client_answer *ret_answer, bt_err *err);

#endif
