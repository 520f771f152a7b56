/* zsock.h - ZeroMQ ROUTER and DEALER sockets on a bt_loop: authenticated, bounded, none lost.
 *
 * MESSAGE One frame of payload. A ROUTER also learns a reply address (bt_zaddr) and who sent it
 *         (bt_zpeer, from the CURVE key by way of zap.h: a peer cannot choose it). A message with
 *         more frames, or on a CURVE socket without User-Id, is dropped and counted.
 * FLOW
 *     bt_zctx_create(&keys, table, &ctx, err);           after any fork: libzmq threads do not
 *     bt_zsock_config config;                            survive one
 *     bt_zsock_config_default(&config);
 *     bt_zsock_handler handler = {.arg = me, .on_message = take};
 *     bt_zsock_router_open(ctx, loop, "tcp://127.0.0.1:0", &config, &handler, &server, err);
 *     puts(bt_zsock_endpoint(server));                   tcp://127.0.0.1:41234
 *     bt_zsock_dealer_open(ctx, loop, endpoint, server_public_key, &config, &handler, &client, err);
 *     bt_zsock_send(client, NULL, data, bytes, err);     AGAIN: queue full or not connected
 *     static void take(void *arg, const bt_zsock_message *m) {
 *         if (strcmp(m->peer->role, "prefill") == 0)
 *             bt_zsock_send(server, m->address, reply, reply_bytes, err);
 *     }
 *     bt_zsock_close(client); bt_zsock_close(server);
 *     bt_loop_destroy(loop);                             lets go of the descriptors
 *     bt_zctx_destroy(ctx);                              flushes for linger_ms, then stops
 * LOOP    ZMQ_FD is an edge that any call may swallow, so before every sleep ZMQ_EVENTS is asked;
 *         at most BT_LOOP_DRAIN_BUDGET messages are taken each turn, so timers stay on time.
 * CHOICES IMMEDIATE=1: a DEALER without a connection says AGAIN instead of queueing for a peer that
 *         may never come; in return, a connection that breaks takes with it what its DEALER had
 *         not read yet, as it takes what was on its way.
 *         ROUTER_MANDATORY=1: an address that is gone is ERR_PEER_LOST, a full queue AGAIN; nothing
 *         is dropped in silence.
 *         ROUTER_HANDOVER=0: a second connection cannot take over the address of a living one;
 *         addresses are drawn by the ROUTER and told to nobody.
 *         HEARTBEAT every second closes half-dead TCP connections after 5 s; HANDSHAKE_IVL 5 s.
 *         The owner's own heartbeats still decide who lives. Sockets reconnect by themselves after
 *         50 ms, doubling up to 1 s.
 * KEYS    Off loopback, opening without keys is ERR_ARGUMENT, and so is a wildcard address. A
 *         ROUTER with keys needs the table. Plain sockets on loopback trust every local user.
 * THREAD  The loop's. Handlers may send and may close their own socket.
 * BOUNDS  message_bytes_max for each message: libzmq closes the connection of one that sends more.
 *         hwm messages each way for each peer. A peer that is let in could still make libzmq gather
 *         frames of a message that never ends; known keys are trusted that far. */
#ifndef BT_COMMON_LOOP_ZSOCK_H
#define BT_COMMON_LOOP_ZSOCK_H

#include "common/loop/loop.h"
#include "common/loop/zap.h"

#include <stddef.h>

#define BT_ZADDR_BYTES_MAX 16u
#define BT_ZENDPOINT_BYTES_MAX 128u
#define BT_ZMESSAGE_BYTES_MIN 512u /* the CURVE handshake itself must pass */

typedef struct bt_zctx bt_zctx;
typedef struct bt_zsock bt_zsock;

/* A ROUTER's name for one connection. */
typedef struct {
    uint8_t bytes[BT_ZADDR_BYTES_MAX];
    uint8_t length;
} bt_zaddr;

typedef struct {
    const void *data; /* borrowed for the call */
    size_t bytes;
    const bt_zaddr *address; /* ROUTER only, else NULL */
    const bt_zpeer *peer;    /* ROUTER only, else NULL; all empty on a plain socket */
} bt_zsock_message;

typedef enum {
    BT_ZLINK_UP,     /* connected and let in */
    BT_ZLINK_DOWN,   /* the connection ended; libzmq tries again by itself */
    BT_ZLINK_REFUSED /* the server does not know our key, or is not who we expect */
} bt_zlink;

typedef struct {
    void *arg;
    void (*on_message)(void *arg, const bt_zsock_message *message);
    void (*on_link)(void *arg, bt_zlink link); /* DEALER only; NULL = not wanted */
} bt_zsock_handler;

typedef struct {
    uint32_t message_bytes_max; /* of payload; at least BT_ZMESSAGE_BYTES_MIN */
    uint32_t hwm;               /* messages queued for each peer, each way */
    uint32_t linger_ms;
    uint32_t heartbeat_ms; /* 0 = none */
    uint32_t handshake_ms;
} bt_zsock_config;

typedef struct {
    uint64_t received_total, sent_total;
    uint64_t malformed_total; /* wrong number of frames, or an address that is too long */
    uint64_t nameless_total;  /* CURVE message without User-Id: never expected */
} bt_zsock_stats;

/* keys NULL: plain sockets, loopback only. table NULL: no ROUTER with these keys. Both borrowed
 * until destroy; keys are copied. */
bt_status bt_zctx_create(const bt_zkeypair *keys, const bt_zap_table *table, bt_zctx **ret_ctx,
                         bt_err *err);
/* Every socket must be closed and its loop destroyed (or run until its handles closed). */
void bt_zctx_destroy(bt_zctx *ctx);
/* Handshakes refused for an unknown key. */
uint64_t bt_zctx_refused_total(const bt_zctx *ctx);

void bt_zsock_config_default(bt_zsock_config *ret_config);

/* endpoint "tcp://ADDRESS:PORT" with a literal IPv4 or [IPv6] address; port 0 = any free one.
 * ERR_OS with the endpoint in the message if it cannot be bound. */
bt_status bt_zsock_router_open(bt_zctx *ctx, bt_loop *loop, const char *endpoint,
                               const bt_zsock_config *config, const bt_zsock_handler *handler,
                               bt_zsock **ret_socket, bt_err *err);
/* server_key NULL = plain. A connection is made in the background: see on_link. */
bt_status bt_zsock_dealer_open(bt_zctx *ctx, bt_loop *loop, const char *endpoint,
                               const char *server_key, const bt_zsock_config *config,
                               const bt_zsock_handler *handler, bt_zsock **ret_socket, bt_err *err);
void bt_zsock_close(bt_zsock *socket);

/* What was bound, with the real port; or what is connected to. */
const char *bt_zsock_endpoint(const bt_zsock *socket);

/* Copies data. address: ROUTER, else NULL. AGAIN: full or not connected now. ERR_PEER_LOST: nobody
 * has that address any more. ERR_LIMIT: above message_bytes_max. */
bt_status bt_zsock_send(bt_zsock *socket, const bt_zaddr *address, const void *data, size_t bytes,
                        bt_err *err);
void bt_zsock_stats_get(const bt_zsock *socket, bt_zsock_stats *ret_stats);

#endif
