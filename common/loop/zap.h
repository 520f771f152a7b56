/* zap.h - who may talk to us: CURVE key pairs, the table of known public keys, and the ZAP handler
 * that lets in those and nobody else.
 *
 * FILES   Key pair, the output of `baton keygen`:     public=<Z85> and secret=<Z85>, a line each.
 *         Known peers, a line each:                   <Z85 public key> <role> <name>
 *         Blank lines and lines that begin with # are skipped in both.
 * ROLE    A peer's role and name follow from its key, never from what it says: libzmq asks the
 *         handler at each CURVE handshake, and the answer travels as User-Id with every message of
 *         that connection (zsock.h hands it out as bt_zpeer).
 * THREAD  The handler is a thread of its own that reads the table and never writes it. The table
 *         must live until bt_zap_stop.
 * BOUNDS  BT_ZAP_PEERS_MAX peers; a longer file, a malformed line, a repeated key or a repeated
 *         name is an error naming file and line. */
#ifndef BT_COMMON_LOOP_ZAP_H
#define BT_COMMON_LOOP_ZAP_H

#include "common/base/limits.h"
#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define BT_ZKEY_CHARS 40u /* Z85 of 32 bytes */
#define BT_ZROLE_BYTES_MAX 16u
#define BT_ZAP_PEERS_MAX 256u

typedef struct {
    char public_key[BT_ZKEY_CHARS + 1];
    char secret_key[BT_ZKEY_CHARS + 1];
} bt_zkeypair;

typedef struct {
    char public_key[BT_ZKEY_CHARS + 1]; /* empty if the connection has no CURVE */
    char role[BT_ZROLE_BYTES_MAX];
    char name[BT_NAME_BYTES_MAX];
} bt_zpeer;

typedef struct bt_zap_table bt_zap_table;
typedef struct bt_zap bt_zap;

bt_status bt_zkeypair_generate(bt_zkeypair *ret_pair, bt_err *err);
/* ERR_FORMAT if the two do not belong together; ERR_ARGUMENT if others may read the file. */
bt_status bt_zkeypair_load(const char *path, bt_zkeypair *ret_pair, bt_err *err);

bt_status bt_zap_table_create(bt_zap_table **ret_table, bt_err *err);
void bt_zap_table_destroy(bt_zap_table *table);
bt_status bt_zap_table_load(const char *path, bt_zap_table **ret_table, bt_err *err);
/* role and name: 1 or more of A-Z a-z 0-9 . _ - */
bt_status bt_zap_table_add(bt_zap_table *table, const char *public_key, const char *role,
                           const char *name, bt_err *err);
size_t bt_zap_table_count(const bt_zap_table *table);
/* NULL if the key is unknown. */
const bt_zpeer *bt_zap_table_find(const bt_zap_table *table, const char *public_key);
const bt_zpeer *bt_zap_table_at(const bt_zap_table *table, size_t index);

/* The User-Id text of a peer and back. ERR_FORMAT if it is none of ours. */
#define BT_ZPEER_TEXT_BYTES_MAX 160u
void bt_zpeer_format(const bt_zpeer *peer, char ret_text[BT_ZPEER_TEXT_BYTES_MAX]);
bt_status bt_zpeer_parse(const char *text, bt_zpeer *ret_peer);

/* Binds inproc://zeromq.zap.01 before it returns, so that no handshake can miss it. */
bt_status bt_zap_start(void *zmq_ctx, const bt_zap_table *table, bt_zap **ret_zap, bt_err *err);
/* Joins the thread: zmq_ctx_shutdown must have been called, and every other socket closed, since
 * libzmq lets everyone in while no handler is bound. NULL is allowed. */
void bt_zap_stop(bt_zap *zap);
/* Handshakes refused so far. Any thread. */
uint64_t bt_zap_refused_total(const bt_zap *zap);

#endif
