/* codec.h - bt_msg <-> the bytes of baton.proto, with every cap and range check in between.
 *
 * WHAT    Encode refuses what a peer would refuse, so a bug shows at its origin. Decode takes bytes
 *         from anyone: protocol version first, then the size cap of the kind, then a scan of the
 *         wire bytes against the schema (field count, depth, lengths, wire types, no field twice),
 *         and only then protobuf-c, whose allocator is a fixed arena, and the range of every value.
 *         What decode returns OK for has passed bt_msg_check.
 * ORDER   bt_codec_init once; then decode as often as wanted, each decode ends the borrowed
 *         pointers of the one before.
 * OWNS    The codec outlives every pointer in the messages it decoded. One for each thread.
 * LIMITS  BT_CODEC_BYTES_MAX for a message; bt_codec_cap for each kind; the arena is the budget of
 *         one decode. The data path calls no malloc.
 * ADD ONE a message: its row in caps[] (codec.c), its check (check.c), both directions (convert.c).
 */
#ifndef BT_PROTO_CODEC_H
#define BT_PROTO_CODEC_H

#include "common/base/status.h"
#include "proto/msg.h"

typedef struct bt_codec bt_codec;

/* The largest encoding of any kind: a Prefill of BT_CONTEXT_TOKENS_MAX tokens. */
#define BT_CODEC_BYTES_MAX (512u * 1024u)

/* Memory of one codec, and the codec in it; memory is 64-byte aligned and the caller's. */
size_t bt_codec_bytes(void);
bt_codec *bt_codec_init(void *memory);

/* The largest encoding of this kind; 0 for what is no kind. */
size_t bt_codec_cap(bt_msg_kind kind);

/* Every range, count, index, length, text and float of a message, and whether its fence is as
 * complete as its kind needs. Errors: ERR_FORMAT naming kind and field. */
bt_status bt_msg_check(const bt_msg *msg, bt_err *err);

/* Errors: ERR_FORMAT if bt_msg_check refuses it; ERR_LIMIT if it does not fit. */
bt_status bt_codec_encode(const bt_msg *msg, uint8_t *buf, size_t capacity, size_t *ret_bytes,
                          bt_err *err);

/* ret_msg borrows from codec, never from data. Errors: ERR_VERSION (another major; both in the
 * message), ERR_LIMIT (a cap or the memory budget), ERR_FORMAT (anything else). */
bt_status bt_codec_decode(const void *data, size_t bytes, bt_codec *codec, bt_msg *ret_msg,
                          bt_err *err);

#endif
