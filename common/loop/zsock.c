#include "common/loop/zsock.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

/* What CURVE adds to a payload on the wire: command name, nonce, box and flags. libzmq compares
 * MAXMSGSIZE with that. */
#define CURVE_OVERHEAD_BYTES 33u

struct bt_zctx {
    void *zmq;
    bt_zap *zap;
    bool has_keys, has_table;
    bt_zkeypair keys;
    unsigned sockets; /* open, or closed and not yet let go by their loop */
    unsigned monitors;
};

struct bt_zsock {
    bt_zctx *ctx;
    void *zmq;     /* NULL once closed */
    void *monitor; /* PAIR that tells a DEALER's connection events, or NULL */
    bt_loop_source *source, *monitor_source;
    unsigned open_sources;
    bool is_router, is_curve;
    bt_zsock_config config;
    bt_zsock_handler handler;
    bt_zsock_stats stats;
    char endpoint[BT_ZENDPOINT_BYTES_MAX];
};

static bt_status fail_zmq(bt_err *err, const char *what)
{
    return BT_FAIL(err, BT_ERR_OS, "%s: %s", what, zmq_strerror(zmq_errno()));
}

bt_status bt_zctx_create(const bt_zkeypair *keys, const bt_zap_table *table, bt_zctx **ret_ctx,
                         bt_err *err)
{
    bt_zctx *ctx = calloc(1, sizeof(*ctx));
    if (ctx == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "ZeroMQ context");
    ctx->zmq = zmq_ctx_new();
    if (ctx->zmq == NULL) {
        free(ctx);
        return fail_zmq(err, "ZeroMQ context");
    }
    if (keys != NULL) {
        ctx->has_keys = true;
        ctx->keys = *keys;
    }
    if (keys != NULL && table != NULL) {
        bt_status status = bt_zap_start(ctx->zmq, table, &ctx->zap, err);
        if (status != BT_OK) {
            zmq_ctx_term(ctx->zmq);
            free(ctx);
            return status;
        }
        ctx->has_table = true;
    }
    *ret_ctx = ctx;
    return BT_OK;
}

void bt_zctx_destroy(bt_zctx *ctx)
{
    if (ctx == NULL) return;
    assert(ctx->sockets == 0);
    zmq_ctx_shutdown(ctx->zmq);
    bt_zap_stop(ctx->zap);
    while (zmq_ctx_term(ctx->zmq) != 0 && zmq_errno() == EINTR) continue;
    explicit_bzero(&ctx->keys, sizeof(ctx->keys));
    free(ctx);
}

uint64_t bt_zctx_refused_total(const bt_zctx *ctx)
{
    return bt_zap_refused_total(ctx->zap);
}

void bt_zsock_config_default(bt_zsock_config *ret_config)
{
    *ret_config = (bt_zsock_config){
        .message_bytes_max = 1u << 20,
        .hwm = 10000,
        .linger_ms = 500,
        .heartbeat_ms = 1000,
        .handshake_ms = 5000,
    };
}

const char *bt_zsock_endpoint(const bt_zsock *socket)
{
    return socket->endpoint;
}

void bt_zsock_stats_get(const bt_zsock *socket, bt_zsock_stats *ret_stats)
{
    *ret_stats = socket->stats;
}

typedef struct {
    bool is_loopback;
    bool is_ipv6;
} endpoint_kind;

/* Takes literal addresses only: a name could resolve to anything at the moment of connecting. */
static bt_status check_endpoint(const char *endpoint, endpoint_kind *ret_kind, bt_err *err)
{
    char host[64];
    const char *begin = endpoint + strlen("tcp://");
    if (strncmp(endpoint, "tcp://", strlen("tcp://")) != 0 ||
        strlen(endpoint) >= BT_ZENDPOINT_BYTES_MAX) {
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%.100s': expected tcp://ADDRESS:PORT", endpoint);
    }
    const char *colon = strrchr(begin, ':');
    size_t length = colon == NULL ? 0 : (size_t)(colon - begin);
    bool is_ipv6 = length > 2 && begin[0] == '[' && begin[length - 1] == ']';
    if (is_ipv6) {
        begin += 1;
        length -= 2;
    }
    if (length == 0 || length >= sizeof(host)) {
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%.100s': expected tcp://ADDRESS:PORT", endpoint);
    }
    memcpy(host, begin, length);
    host[length] = '\0';
    struct in_addr v4;
    struct in6_addr v6;
    bool is_any;
    if (is_ipv6 && inet_pton(AF_INET6, host, &v6) == 1) {
        *ret_kind = (endpoint_kind){.is_loopback = IN6_IS_ADDR_LOOPBACK(&v6), .is_ipv6 = true};
        is_any = IN6_IS_ADDR_UNSPECIFIED(&v6);
    } else if (!is_ipv6 && inet_pton(AF_INET, host, &v4) == 1) {
        *ret_kind = (endpoint_kind){.is_loopback = (ntohl(v4.s_addr) >> 24) == 127};
        is_any = v4.s_addr == htonl(INADDR_ANY);
    } else {
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%.100s': the address must be a literal IP address",
                       endpoint);
    }
    if (is_any) {
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%.100s': name the address instead of a wildcard",
                       endpoint);
    }
    return BT_OK;
}

static bool set_int(void *zmq, int option, int value)
{
    return zmq_setsockopt(zmq, option, &value, sizeof(value)) == 0;
}

static bool set_common(bt_zsock *socket, bool is_ipv6)
{
    void *zmq = socket->zmq;
    const bt_zsock_config *config = &socket->config;
    int64_t message_bytes_max =
        (int64_t)config->message_bytes_max + (socket->is_curve ? CURVE_OVERHEAD_BYTES : 0);
    int heartbeat_ms = (int)config->heartbeat_ms;
    return zmq_setsockopt(zmq, ZMQ_MAXMSGSIZE, &message_bytes_max, sizeof(message_bytes_max)) ==
               0 &&
           set_int(zmq, ZMQ_SNDHWM, (int)config->hwm) &&
           set_int(zmq, ZMQ_RCVHWM, (int)config->hwm) &&
           set_int(zmq, ZMQ_LINGER, (int)config->linger_ms) &&
           set_int(zmq, ZMQ_HEARTBEAT_IVL, heartbeat_ms) &&
           set_int(zmq, ZMQ_HEARTBEAT_TIMEOUT, heartbeat_ms * 5) &&
           set_int(zmq, ZMQ_HEARTBEAT_TTL, heartbeat_ms * 5) &&
           set_int(zmq, ZMQ_HANDSHAKE_IVL, (int)config->handshake_ms) &&
           set_int(zmq, ZMQ_RECONNECT_IVL, 50) && set_int(zmq, ZMQ_RECONNECT_IVL_MAX, 1000) &&
           set_int(zmq, ZMQ_IMMEDIATE, 1) && (!is_ipv6 || set_int(zmq, ZMQ_IPV6, 1));
}

static bool set_router(bt_zsock *socket)
{
    const bt_zctx *ctx = socket->ctx;
    if (!set_int(socket->zmq, ZMQ_ROUTER_MANDATORY, 1) ||
        !set_int(socket->zmq, ZMQ_ROUTER_HANDOVER, 0)) {
        return false;
    }
    return !socket->is_curve || (set_int(socket->zmq, ZMQ_CURVE_SERVER, 1) &&
                                 zmq_setsockopt(socket->zmq, ZMQ_CURVE_SECRETKEY,
                                                ctx->keys.secret_key, BT_ZKEY_CHARS + 1) == 0 &&
                                 zmq_setsockopt(socket->zmq, ZMQ_ZAP_DOMAIN, "baton", 5) == 0);
}

static bool set_dealer(bt_zsock *socket, const char *server_key)
{
    const bt_zkeypair *keys = &socket->ctx->keys;
    size_t bytes = BT_ZKEY_CHARS + 1;
    return !socket->is_curve ||
           (zmq_setsockopt(socket->zmq, ZMQ_CURVE_SERVERKEY, server_key, bytes) == 0 &&
            zmq_setsockopt(socket->zmq, ZMQ_CURVE_PUBLICKEY, keys->public_key, bytes) == 0 &&
            zmq_setsockopt(socket->zmq, ZMQ_CURVE_SECRETKEY, keys->secret_key, bytes) == 0);
}

/* Also runs whatever libzmq has pending for this socket. */
static int socket_events(void *zmq)
{
    int events = 0;
    size_t bytes = sizeof(events);
    return zmq_getsockopt(zmq, ZMQ_EVENTS, &events, &bytes) == 0 ? events : 0;
}

static bool has_more(void *zmq)
{
    int more = 0;
    size_t bytes = sizeof(more);
    return zmq_getsockopt(zmq, ZMQ_RCVMORE, &more, &bytes) == 0 && more != 0;
}

static void skip_rest(void *zmq)
{
    while (has_more(zmq)) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        int rc = zmq_msg_recv(&frame, zmq, ZMQ_DONTWAIT);
        zmq_msg_close(&frame);
        if (rc < 0) return;
    }
}

/* The address frame of a ROUTER. False: nothing there. *ret_well_formed: it has a payload after it
 * and fits. */
static bool take_address(bt_zsock *socket, bt_zaddr *ret_address, bool *ret_well_formed)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, socket->zmq, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        return false;
    }
    size_t bytes = zmq_msg_size(&frame);
    *ret_well_formed = bytes <= BT_ZADDR_BYTES_MAX && zmq_msg_more(&frame);
    if (*ret_well_formed) {
        memcpy(ret_address->bytes, zmq_msg_data(&frame), bytes);
        ret_address->length = (uint8_t)bytes;
    }
    zmq_msg_close(&frame);
    return true;
}

static void deliver(bt_zsock *socket, zmq_msg_t *frame, const bt_zaddr *address)
{
    bt_zpeer peer = {0};
    if (socket->is_router && socket->is_curve) {
        const char *user = zmq_msg_gets(frame, "User-Id");
        if (user == NULL || bt_zpeer_parse(user, &peer) != BT_OK) {
            socket->stats.nameless_total++;
            return;
        }
    }
    socket->stats.received_total++;
    bt_zsock_message message = {
        .data = zmq_msg_data(frame),
        .bytes = zmq_msg_size(frame),
        .address = socket->is_router ? address : NULL,
        .peer = socket->is_router ? &peer : NULL,
    };
    socket->handler.on_message(socket->handler.arg, &message);
}

/* Takes one message; false if there is none. */
static bool take_message(bt_zsock *socket)
{
    bt_zaddr address = {0};
    bool well_formed = true;
    if (socket->is_router) {
        if (!take_address(socket, &address, &well_formed)) return false;
        if (!well_formed) {
            skip_rest(socket->zmq);
            socket->stats.malformed_total++;
            return true;
        }
    }
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, socket->zmq, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        return false;
    }
    if (zmq_msg_more(&frame)) {
        skip_rest(socket->zmq);
        socket->stats.malformed_total++;
    } else {
        deliver(socket, &frame, &address);
    }
    zmq_msg_close(&frame);
    return true;
}

static void drain_messages(void *arg, unsigned budget)
{
    bt_zsock *socket = arg;
    for (unsigned i = 0; i < budget && socket->zmq != NULL; i++) {
        if (!take_message(socket)) return;
    }
}

static bool messages_may_sleep(void *arg)
{
    bt_zsock *socket = arg;
    return (socket_events(socket->zmq) & ZMQ_POLLIN) == 0;
}

static void source_closed(void *arg)
{
    bt_zsock *socket = arg;
    assert(socket->open_sources > 0);
    if (--socket->open_sources > 0) return;
    socket->ctx->sockets--;
    free(socket);
}

static const bt_loop_source_ops message_ops = {
    .drain = drain_messages,
    .before_sleep = messages_may_sleep,
    .closed = source_closed,
};

/* One event: a frame of event number (u16) and value (u32), then a frame with the endpoint. */
static bool take_event(bt_zsock *socket)
{
    uint8_t frame[16];
    int bytes = zmq_recv(socket->monitor, frame, sizeof(frame), ZMQ_DONTWAIT);
    if (bytes < 0) return false;
    skip_rest(socket->monitor);
    uint16_t event = 0;
    if (bytes >= (int)sizeof(event)) memcpy(&event, frame, sizeof(event));
    bt_zlink link;
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: link = BT_ZLINK_UP; break;
    case ZMQ_EVENT_DISCONNECTED: link = BT_ZLINK_DOWN; break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: link = BT_ZLINK_REFUSED; break;
    default: return true;
    }
    socket->handler.on_link(socket->handler.arg, link);
    return true;
}

static void drain_events(void *arg, unsigned budget)
{
    bt_zsock *socket = arg;
    for (unsigned i = 0; i < budget && socket->zmq != NULL; i++) {
        if (!take_event(socket)) return;
    }
}

static bool events_may_sleep(void *arg)
{
    bt_zsock *socket = arg;
    return (socket_events(socket->monitor) & ZMQ_POLLIN) == 0;
}

static const bt_loop_source_ops monitor_ops = {
    .drain = drain_events,
    .before_sleep = events_may_sleep,
    .closed = source_closed,
};

static bt_status watch(bt_zsock *socket, bt_loop *loop, void *zmq, const bt_loop_source_ops *ops,
                       bt_loop_source **ret_source, bt_err *err)
{
    int fd = -1;
    size_t bytes = sizeof(fd);
    if (zmq_getsockopt(zmq, ZMQ_FD, &fd, &bytes) != 0) return fail_zmq(err, socket->endpoint);
    bt_status status = bt_loop_source_open(loop, fd, ops, socket, ret_source, err);
    if (status == BT_OK) socket->open_sources++;
    return status;
}

static bt_status open_monitor(bt_zsock *socket, bt_loop *loop, bt_err *err)
{
    static const int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                              ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                              ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    char name[48];
    snprintf(name, sizeof(name), "inproc://baton.monitor.%u", socket->ctx->monitors++);
    if (zmq_socket_monitor(socket->zmq, name, events) != 0) return fail_zmq(err, name);
    socket->monitor = zmq_socket(socket->ctx->zmq, ZMQ_PAIR);
    if (socket->monitor == NULL || !set_int(socket->monitor, ZMQ_LINGER, 0) ||
        zmq_connect(socket->monitor, name) != 0) {
        return fail_zmq(err, name);
    }
    return watch(socket, loop, socket->monitor, &monitor_ops, &socket->monitor_source, err);
}

/* A socket with its options set, neither bound nor connected nor watched. */
static bt_status make_socket(bt_zctx *ctx, const char *endpoint, const bt_zsock_config *config,
                             const bt_zsock_handler *handler, bool is_router,
                             const char *server_key, bt_zsock **ret_socket, bt_err *err)
{
    assert(config->message_bytes_max >= BT_ZMESSAGE_BYTES_MIN && handler->on_message != NULL);
    endpoint_kind kind = {0};
    bt_status status = check_endpoint(endpoint, &kind, err);
    if (status != BT_OK) return status;
    bool is_curve = is_router ? ctx->has_keys : server_key != NULL;
    if (!is_curve && !kind.is_loopback) {
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%s' is not on the loopback: keys are needed",
                       endpoint);
    }
    if (is_curve && (!ctx->has_keys || (is_router && !ctx->has_table))) {
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%s': %s", endpoint,
                       ctx->has_keys ? "no table of known keys" : "no keys of our own");
    }
    bt_zsock *socket = calloc(1, sizeof(*socket));
    if (socket == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s", endpoint);
    socket->ctx = ctx;
    socket->is_router = is_router;
    socket->is_curve = is_curve;
    socket->config = *config;
    socket->handler = *handler;
    strcpy(socket->endpoint, endpoint);
    socket->zmq = zmq_socket(ctx->zmq, is_router ? ZMQ_ROUTER : ZMQ_DEALER);
    if (socket->zmq == NULL || !set_common(socket, kind.is_ipv6) ||
        !(is_router ? set_router(socket) : set_dealer(socket, server_key))) {
        status = fail_zmq(err, endpoint);
        if (socket->zmq != NULL) zmq_close(socket->zmq);
        free(socket);
        return status;
    }
    ctx->sockets++;
    *ret_socket = socket;
    return BT_OK;
}

bt_status bt_zsock_router_open(bt_zctx *ctx, bt_loop *loop, const char *endpoint,
                               const bt_zsock_config *config, const bt_zsock_handler *handler,
                               bt_zsock **ret_socket, bt_err *err)
{
    bt_zsock *socket = NULL;
    bt_status status = make_socket(ctx, endpoint, config, handler, true, NULL, &socket, err);
    if (status != BT_OK) return status;
    size_t bytes = sizeof(socket->endpoint);
    if (zmq_bind(socket->zmq, endpoint) != 0 ||
        zmq_getsockopt(socket->zmq, ZMQ_LAST_ENDPOINT, socket->endpoint, &bytes) != 0) {
        status = fail_zmq(err, endpoint);
    } else {
        status = watch(socket, loop, socket->zmq, &message_ops, &socket->source, err);
    }
    if (status != BT_OK) {
        bt_zsock_close(socket);
        return status;
    }
    *ret_socket = socket;
    return BT_OK;
}

bt_status bt_zsock_dealer_open(bt_zctx *ctx, bt_loop *loop, const char *endpoint,
                               const char *server_key, const bt_zsock_config *config,
                               const bt_zsock_handler *handler, bt_zsock **ret_socket, bt_err *err)
{
    bt_zsock *socket = NULL;
    bt_status status = make_socket(ctx, endpoint, config, handler, false, server_key, &socket, err);
    if (status != BT_OK) return status;
    if (handler->on_link != NULL) status = open_monitor(socket, loop, err);
    if (status == BT_OK && zmq_connect(socket->zmq, endpoint) != 0) {
        status = fail_zmq(err, endpoint);
    }
    if (status == BT_OK) {
        status = watch(socket, loop, socket->zmq, &message_ops, &socket->source, err);
    }
    if (status != BT_OK) {
        bt_zsock_close(socket);
        return status;
    }
    *ret_socket = socket;
    return BT_OK;
}

void bt_zsock_close(bt_zsock *socket)
{
    if (socket == NULL || socket->zmq == NULL) return;
    bt_loop_source_close(socket->source);
    bt_loop_source_close(socket->monitor_source);
    if (socket->monitor != NULL) {
        zmq_socket_monitor(socket->zmq, NULL, 0);
        zmq_close(socket->monitor);
    }
    zmq_close(socket->zmq);
    socket->zmq = NULL;
    if (socket->open_sources > 0) return;
    socket->ctx->sockets--;
    free(socket);
}

/* One frame; AGAIN is tried once more after libzmq has done what was pending, since it looks for
 * new connections only now and then. */
static int send_frame(bt_zsock *socket, const void *data, size_t bytes, int flags)
{
    int rc = zmq_send(socket->zmq, data, bytes, flags | ZMQ_DONTWAIT);
    if (rc < 0 && zmq_errno() == EAGAIN) {
        socket_events(socket->zmq);
        rc = zmq_send(socket->zmq, data, bytes, flags | ZMQ_DONTWAIT);
    }
    return rc;
}

bt_status bt_zsock_send(bt_zsock *socket, const bt_zaddr *address, const void *data, size_t bytes,
                        bt_err *err)
{
    assert(socket->zmq != NULL && socket->is_router == (address != NULL));
    if (bytes > socket->config.message_bytes_max) {
        return BT_FAIL(err, BT_ERR_LIMIT, "a message of %zu bytes is above the limit of %u", bytes,
                       socket->config.message_bytes_max);
    }
    int rc = 0;
    if (address != NULL) rc = send_frame(socket, address->bytes, address->length, ZMQ_SNDMORE);
    if (rc >= 0) rc = send_frame(socket, data, bytes, 0);
    if (rc >= 0) {
        socket->stats.sent_total++;
        return BT_OK;
    }
    switch (zmq_errno()) {
    case EAGAIN: return BT_AGAIN;
    case EHOSTUNREACH: return BT_FAIL(err, BT_ERR_PEER_LOST, "the connection is gone");
    default: return fail_zmq(err, socket->endpoint);
    }
}
