/* link.h - the control plane between daemons: bt_msg over a zsock.
 *
 * WHAT    A server (ROUTER) names each authenticated peer by a small index; a client (DEALER) has one server. Messages
 *         pass the codec both ways: what on_message gets has been checked, what does not decode is dropped and counted,
 *         never fatal.
 * FLOW
 *     bt_link_server_handler h = {.arg = me, .on_message = take};
 *     bt_link_server_open(ctx, loop, "tcp://127.0.0.1:0", &h, &server, err);
 *     static void take(void *arg, uint32_t index, const bt_msg *msg) {
 *         if (bt_link_server_role(server, index) != BT_ROLE_PREFILL) return;
 *         bt_decode_core_message(core, index, msg, now_ns);
 *     }
 *     bt_link_server_send(server, index, &msg, err);      ERR_PEER_LOST: gone; AGAIN: full
 *     bt_link_handler c = {.arg = me, .on_message = heard, .on_link = changed};
 *     bt_link_dial(ctx, loop, bt_link_server_endpoint(server), server_key, &c, &link, err);
 *     static void changed(void *arg, bt_zlink state) { if (state == BT_ZLINK_UP) say_hello(); }
 *     bt_link_send(link, &msg, err);                      AGAIN: not connected now, or full
 *     bt_link_close(link); bt_link_server_close(server);
 * WHO     A server peer is its connection: the same key from a new connection (a daemon that restarted) takes over the
 *         index of the old one, and what the old one still had on its way is dropped. Role and name come from the key
 *         (zap.h); without keys (loopback) the role is NONE and each connection has an index of its own: the message
 *         says who it is.
 * LOSS    Nobody tells a server that a peer left: heartbeats do, and a send that gives ERR_PEER_LOST. A send that is not
 *         OK was not queued; the sender decides what that means.
 * OWNS    A message is borrowed for the call: it points into the link's codec.
 * THREAD  The loop's.
 * BOUNDS  BT_DAEMONS_MAX peers; one more is dropped and counted. */
#ifndef BT_COMMON_NET_LINK_H
#define BT_COMMON_NET_LINK_H

#include "common/loop/zsock.h"
#include "proto/codec.h"

typedef struct bt_link bt_link;
typedef struct bt_link_server bt_link_server;

typedef struct {
    void *arg;
    void (*on_message)(void *arg, const bt_msg *msg);
    void (*on_link)(void *arg, bt_zlink link);
} bt_link_handler;

typedef struct {
    void *arg;
    void (*on_message)(void *arg, uint32_t index, const bt_msg *msg);
} bt_link_server_handler;

/* server_key: Z85, or NULL on loopback. */
bt_status bt_link_dial(bt_zctx *ctx, bt_loop *loop, const char *endpoint, const char *server_key,
                       const bt_link_handler *handler, bt_link **ret_link, bt_err *err);
/* NULL is allowed; also from within the handler. */
void bt_link_close(bt_link *link);
uint64_t bt_link_malformed_total(const bt_link *link);
bt_status bt_link_send(bt_link *link, const bt_msg *msg, bt_err *err);

bt_status bt_link_server_open(bt_zctx *ctx, bt_loop *loop, const char *endpoint,
                              const bt_link_server_handler *handler, bt_link_server **ret_server,
                              bt_err *err);
void bt_link_server_close(bt_link_server *server);
/* What was bound, with the real port. */
const char *bt_link_server_endpoint(const bt_link_server *server);
/* Role and name of the key; NONE and "" without keys. */
bt_role bt_link_server_role(const bt_link_server *server, uint32_t index);
const char *bt_link_server_name(const bt_link_server *server, uint32_t index);
bt_status bt_link_server_send(bt_link_server *server, uint32_t index, const bt_msg *msg,
                              bt_err *err);
uint64_t bt_link_server_malformed_total(const bt_link_server *server);
/* Messages of one peer too many, or of a connection that was replaced. */
uint64_t bt_link_server_unwelcome_total(const bt_link_server *server);

/* A CURVE key between its Z85 text and the 32 bytes of bt_hello. False if the text is no key. */
void bt_link_key_text(const uint8_t key[32], char ret_text[BT_ZKEY_CHARS + 1]);
bool bt_link_key_bytes(const char *text, uint8_t ret_key[32]);

#endif
