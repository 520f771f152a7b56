#include "proto/seal.h"

#include <assert.h>
#include <string.h>

static const char p_to_d[] = "baton seal, prefill to decode";
static const char d_to_p[] = "baton seal, decode to prefill";
static const char digests[] = "baton KV digests";

static void derive(const uint8_t secret[BT_KEY_BYTES], const char *label,
                   uint8_t ret_key[BT_KEY_BYTES])
{
    bt_sha256_stream stream;
    bt_sha256 hash;
    bt_sha256_start(&stream);
    bt_sha256_add(&stream, secret, BT_KEY_BYTES);
    bt_sha256_add(&stream, label, strlen(label));
    bt_sha256_end(&stream, &hash);
    memcpy(ret_key, hash.bytes, BT_KEY_BYTES);
}

void bt_seal_init(bt_seal *seal, const uint8_t secret[BT_KEY_BYTES], bt_role role)
{
    assert(role == BT_ROLE_PREFILL || role == BT_ROLE_DECODE);
    seal->role = role;
    derive(secret, role == BT_ROLE_PREFILL ? p_to_d : d_to_p, seal->send_key);
    derive(secret, role == BT_ROLE_PREFILL ? d_to_p : p_to_d, seal->open_key);
    derive(secret, digests, seal->digest_key);
}

bool bt_seal_allows(bt_role sender, bt_msg_kind kind)
{
    switch (kind) {
    case BT_MSG_TICKET:
    case BT_MSG_CREDIT:
    case BT_MSG_ACCEPTED:
    case BT_MSG_REFUSED:
    case BT_MSG_CANCEL: return sender == BT_ROLE_DECODE;
    case BT_MSG_SEALED:
    case BT_MSG_MANIFEST:
    case BT_MSG_ABANDON:
    case BT_MSG_QUIESCED:
    case BT_MSG_LEASE_RENEW: return sender == BT_ROLE_PREFILL;
    default: return false;
    }
}

bt_status bt_seal_write(const bt_seal *seal, const bt_msg *msg, uint8_t *buf, size_t capacity,
                        size_t *ret_bytes, bt_err *err)
{
    assert(bt_seal_allows(seal->role, msg->kind));
    if (capacity < BT_MAC_BYTES)
        return BT_FAIL(err, BT_ERR_LIMIT, "no room for a MAC in %zu bytes", capacity);
    size_t bytes;
    bt_status status = bt_codec_encode(msg, buf, capacity - BT_MAC_BYTES, &bytes, err);
    if (status != BT_OK) return status;
    bt_mac(seal->send_key, buf, bytes, buf + bytes);
    *ret_bytes = bytes + BT_MAC_BYTES;
    return BT_OK;
}

bt_status bt_seal_open(const bt_seal *seal, const void *data, size_t bytes, bt_codec *codec,
                       bt_msg *ret_msg, bt_err *err)
{
    if (bytes <= BT_MAC_BYTES || bytes > BT_SEAL_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "a sealed message of %zu bytes", bytes);
    const uint8_t *inner = data;
    size_t inner_bytes = bytes - BT_MAC_BYTES;
    uint8_t mac[BT_MAC_BYTES];
    bt_mac(seal->open_key, inner, inner_bytes, mac);
    if (!bt_equal_ct(mac, inner + inner_bytes, BT_MAC_BYTES))
        return BT_FAIL(err, BT_ERR_FORMAT, "the MAC of a sealed message is wrong");
    bt_msg msg;
    bt_status status = bt_codec_decode(inner, inner_bytes, codec, &msg, err);
    if (status != BT_OK) return status;
    bt_role peer = seal->role == BT_ROLE_PREFILL ? BT_ROLE_DECODE : BT_ROLE_PREFILL;
    if (!bt_seal_allows(peer, msg.kind))
        return BT_FAIL(err, BT_ERR_FORMAT, "%s does not belong on this channel",
                       bt_msg_name(msg.kind));
    *ret_msg = msg;
    return BT_OK;
}
