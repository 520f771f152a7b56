/* seal.h - the form of every UCX message: encoded message, then a MAC of BT_MAC_BYTES.
 *
 * WHY     UCX authenticates nobody. The secret of a pair travels once, in PAIR_ACCEPT over CURVE,
 *         and keys every message of that pair; each direction has a key of its own, so a message
 *         cannot be sent back to its author.
 * FLOW    bt_seal_init at pairing; bt_seal_write -> bt_xfer_send; on_message -> bt_seal_open.
 * CHECKS  Length, MAC in constant time, codec, and that the kind belongs on UCX in that direction.
 *         Replays are the fence's business: a generation is accepted once. */
#ifndef BT_PROTO_SEAL_H
#define BT_PROTO_SEAL_H

#include "proto/codec.h"

typedef struct {
    bt_role role; /* ours: PREFILL or DECODE */
    uint8_t send_key[BT_KEY_BYTES];
    uint8_t open_key[BT_KEY_BYTES];
    uint8_t digest_key[BT_KEY_BYTES]; /* of the pair's KV digests, the same on both sides */
} bt_seal;

/* Room for any sealed message. */
#define BT_SEAL_BYTES_MAX (1024u + BT_MAC_BYTES)

void bt_seal_init(bt_seal *seal, const uint8_t secret[BT_KEY_BYTES], bt_role role);

/* True if `sender` may send this kind over UCX. */
bool bt_seal_allows(bt_role sender, bt_msg_kind kind);

/* Asserts that the kind is ours to send. Errors: those of bt_codec_encode. */
bt_status bt_seal_write(const bt_seal *seal, const bt_msg *msg, uint8_t *buf, size_t capacity,
                        size_t *ret_bytes, bt_err *err);

/* ret_msg borrows from codec. Errors: ERR_FORMAT (too short, a wrong MAC, a kind that does not
 * belong here), those of bt_codec_decode. */
bt_status bt_seal_open(const bt_seal *seal, const void *data, size_t bytes, bt_codec *codec,
                       bt_msg *ret_msg, bt_err *err);

#endif
