#include "common/net/link.h"

#include "common/base/log.h"

#include <stdlib.h>
#include <string.h>
#include <zmq.h>

/* Codec and encode buffer of one socket. */
typedef struct {
    bt_codec *codec;
    uint8_t *buffer; /* [BT_CODEC_BYTES_MAX] */
} wire;

struct bt_link {
    bt_zsock *socket;
    wire wire;
    bt_link_handler handler;
    uint64_t malformed_total;
};

typedef struct {
    bool used;
    bt_zaddr address;
    bt_zaddr replaced; /* of the connection before */
    bt_zpeer peer;
    uint64_t heard; /* order of the last message, to find the quietest */
} link_peer;

struct bt_link_server {
    bt_zsock *socket;
    wire wire;
    bt_link_server_handler handler;
    link_peer peers[BT_DAEMONS_MAX];
    uint64_t clock, malformed_total, unwelcome_total;
};

static bt_status wire_init(wire *w, bt_err *err)
{
    size_t bytes = (bt_codec_bytes() + 63) & ~(size_t)63;
    void *memory = aligned_alloc(64, bytes);
    w->buffer = malloc(BT_CODEC_BYTES_MAX);
    if (memory == NULL || w->buffer == NULL) {
        free(memory);
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "control link");
    }
    w->codec = bt_codec_init(memory);
    return BT_OK;
}

static void wire_finish(wire *w)
{
    free(w->codec);
    free(w->buffer);
}

static bt_status wire_send(wire *w, bt_zsock *socket, const bt_zaddr *address, const bt_msg *msg,
                           bt_err *err)
{
    size_t bytes;
    bt_status status = bt_codec_encode(msg, w->buffer, BT_CODEC_BYTES_MAX, &bytes, err);
    if (status != BT_OK) return status;
    status = bt_zsock_send(socket, address, w->buffer, bytes, err);
    if (status == BT_AGAIN) BT_FAIL(err, BT_AGAIN, "not connected, or the queue is full");
    return status;
}

/* ---- client ---- */

static void on_client_message(void *arg, const bt_zsock_message *message)
{
    bt_link *link = arg;
    bt_msg msg;
    bt_err err;
    if (bt_codec_decode(message->data, message->bytes, link->wire.codec, &msg, &err) != BT_OK) {
        link->malformed_total++;
        bt_log_debug(NULL, "a message from %s was dropped: %s", bt_zsock_endpoint(link->socket),
                     err.message);
        return;
    }
    link->handler.on_message(link->handler.arg, &msg);
}

static void on_client_link(void *arg, bt_zlink state)
{
    bt_link *link = arg;
    if (link->handler.on_link != NULL) link->handler.on_link(link->handler.arg, state);
}

static void socket_config(bt_zsock_config *config)
{
    bt_zsock_config_default(config);
    config->message_bytes_max = BT_CODEC_BYTES_MAX;
}

bt_status bt_link_dial(bt_zctx *ctx, bt_loop *loop, const char *endpoint, const char *server_key,
                       const bt_link_handler *handler, bt_link **ret_link, bt_err *err)
{
    bt_link *link = calloc(1, sizeof(*link));
    if (link == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "control link");
    link->handler = *handler;
    bt_status status = wire_init(&link->wire, err);
    bt_zsock_config config;
    socket_config(&config);
    bt_zsock_handler socket_handler = {
        .arg = link, .on_message = on_client_message, .on_link = on_client_link};
    if (status == BT_OK)
        status = bt_zsock_dealer_open(ctx, loop, endpoint, server_key, &config, &socket_handler,
                                      &link->socket, err);
    if (status != BT_OK) {
        bt_link_close(link);
        return status;
    }
    *ret_link = link;
    return BT_OK;
}

void bt_link_close(bt_link *link)
{
    if (link == NULL) return;
    if (link->socket != NULL) bt_zsock_close(link->socket);
    wire_finish(&link->wire);
    free(link);
}

bt_status bt_link_send(bt_link *link, const bt_msg *msg, bt_err *err)
{
    return wire_send(&link->wire, link->socket, NULL, msg, err);
}

uint64_t bt_link_malformed_total(const bt_link *link)
{
    return link->malformed_total;
}

/* ---- server ---- */

static bool same_address(const bt_zaddr *a, const bt_zaddr *b)
{
    return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

/* The peer of this connection; else the one of this key, which has connected anew; else a free one. Without keys, when
 * all are used, the quietest gives way: connections that are gone are not told to us. NULL if there is none left, or if
 * the connection was replaced: what it still had on its way comes after the new one's Hello and would be misplaced. */
static link_peer *peer_of(bt_link_server *server, const bt_zsock_message *message)
{
    link_peer *same_key = NULL, *unused = NULL, *quietest = NULL;
    bool keyed = message->peer->public_key[0] != '\0';
    for (uint32_t i = 0; i < BT_DAEMONS_MAX; i++) {
        link_peer *peer = &server->peers[i];
        if (!peer->used) {
            if (unused == NULL) unused = peer;
            continue;
        }
        if (same_address(&peer->address, message->address)) return peer;
        if (same_address(&peer->replaced, message->address)) return NULL;
        if (keyed && strcmp(peer->peer.public_key, message->peer->public_key) == 0) same_key = peer;
        if (quietest == NULL || peer->heard < quietest->heard) quietest = peer;
    }
    link_peer *peer = same_key != NULL ? same_key
                      : unused != NULL ? unused
                      : keyed          ? NULL
                                       : quietest;
    if (peer == NULL) return NULL;
    /* The index goes on with the new connection; a peer that had it before leaves nothing behind. */
    bt_zaddr replaced = peer == same_key ? peer->address : (bt_zaddr){0};
    *peer = (link_peer){
        .used = true, .address = *message->address, .replaced = replaced, .peer = *message->peer};
    return peer;
}

static void on_server_message(void *arg, const bt_zsock_message *message)
{
    bt_link_server *server = arg;
    bt_msg msg;
    bt_err err;
    if (bt_codec_decode(message->data, message->bytes, server->wire.codec, &msg, &err) != BT_OK) {
        server->malformed_total++;
        bt_log_debug(NULL, "a message from '%s' was dropped: %s", message->peer->name, err.message);
        return;
    }
    link_peer *peer = peer_of(server, message);
    if (peer == NULL) {
        server->unwelcome_total++;
        return;
    }
    peer->heard = ++server->clock;
    server->handler.on_message(server->handler.arg, (uint32_t)(peer - server->peers), &msg);
}

bt_status bt_link_server_open(bt_zctx *ctx, bt_loop *loop, const char *endpoint,
                              const bt_link_server_handler *handler, bt_link_server **ret_server,
                              bt_err *err)
{
    bt_link_server *server = calloc(1, sizeof(*server));
    if (server == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "control server");
    server->handler = *handler;
    bt_status status = wire_init(&server->wire, err);
    bt_zsock_config config;
    socket_config(&config);
    bt_zsock_handler socket_handler = {.arg = server, .on_message = on_server_message};
    if (status == BT_OK)
        status = bt_zsock_router_open(ctx, loop, endpoint, &config, &socket_handler,
                                      &server->socket, err);
    if (status != BT_OK) {
        bt_link_server_close(server);
        return status;
    }
    *ret_server = server;
    return BT_OK;
}

void bt_link_server_close(bt_link_server *server)
{
    if (server == NULL) return;
    if (server->socket != NULL) bt_zsock_close(server->socket);
    wire_finish(&server->wire);
    free(server);
}

const char *bt_link_server_endpoint(const bt_link_server *server)
{
    return bt_zsock_endpoint(server->socket);
}

bt_role bt_link_server_role(const bt_link_server *server, uint32_t index)
{
    static const char *const names[] = {
        [BT_ROLE_ROUTER] = "router", [BT_ROLE_PREFILL] = "prefill", [BT_ROLE_DECODE] = "decode"};
    if (index >= BT_DAEMONS_MAX || !server->peers[index].used) return BT_ROLE_NONE;
    for (int role = BT_ROLE_ROUTER; role <= BT_ROLE_DECODE; role++) {
        if (strcmp(server->peers[index].peer.role, names[role]) == 0) return (bt_role)role;
    }
    return BT_ROLE_NONE;
}

const char *bt_link_server_name(const bt_link_server *server, uint32_t index)
{
    return index < BT_DAEMONS_MAX ? server->peers[index].peer.name : "";
}

bt_status bt_link_server_send(bt_link_server *server, uint32_t index, const bt_msg *msg,
                              bt_err *err)
{
    if (index >= BT_DAEMONS_MAX || !server->peers[index].used)
        return BT_FAIL(err, BT_ERR_PEER_LOST, "there is no peer %u", index);
    return wire_send(&server->wire, server->socket, &server->peers[index].address, msg, err);
}

uint64_t bt_link_server_malformed_total(const bt_link_server *server)
{
    return server->malformed_total;
}

uint64_t bt_link_server_unwelcome_total(const bt_link_server *server)
{
    return server->unwelcome_total;
}

/* ---- keys ---- */

void bt_link_key_text(const uint8_t key[32], char ret_text[BT_ZKEY_CHARS + 1])
{
    zmq_z85_encode(ret_text, key, 32);
}

bool bt_link_key_bytes(const char *text, uint8_t ret_key[32])
{
    return strlen(text) == BT_ZKEY_CHARS && zmq_z85_decode(ret_key, text) != NULL;
}
