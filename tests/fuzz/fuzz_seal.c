/* fuzz_seal.c - any bytes as a UCX message, under a fixed key: as they are, and with a fresh MAC of
 * each direction put behind them, so that the inside is reached. */
#include "proto/seal.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void open_one(const bt_seal *seal, bt_role peer, const void *data, size_t bytes)
{
    static bt_codec *codec;
    if (codec == NULL) {
        void *memory = aligned_alloc(64, (bt_codec_bytes() + 63) & ~(size_t)63);
        if (memory == NULL) abort();
        codec = bt_codec_init(memory);
    }
    bt_msg msg;
    bt_err err;
    if (bt_seal_open(seal, data, bytes, codec, &msg, &err) != BT_OK) return;
    if (!bt_seal_allows(peer, msg.kind)) abort();
    /* Its author could have sent it, and it opens to the same again. */
    static const uint8_t secret[BT_KEY_BYTES] = {1, 2, 3};
    uint8_t sealed[BT_SEAL_BYTES_MAX];
    size_t sealed_bytes;
    bt_seal author;
    bt_seal_init(&author, secret, peer);
    if (bt_seal_write(&author, &msg, sealed, sizeof(sealed), &sealed_bytes, &err) != BT_OK) abort();
    bt_msg again;
    if (bt_seal_open(seal, sealed, sealed_bytes, codec, &again, &err) != BT_OK) abort();
    if (!bt_msg_equal(&msg, &again)) abort(); /* no UCX message borrows from the codec */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const uint8_t secret[BT_KEY_BYTES] = {1, 2, 3};
    static const bt_role roles[] = {BT_ROLE_PREFILL, BT_ROLE_DECODE};
    if (bt_crypto_start(NULL) != BT_OK) abort();
    for (int i = 0; i < 2; i++) {
        bt_seal seal;
        bt_role peer = roles[1 - i];
        bt_seal_init(&seal, secret, roles[i]);
        open_one(&seal, peer, data, bytes);
        if (bytes > BT_SEAL_BYTES_MAX) continue;
        uint8_t *sealed = malloc(bytes + BT_MAC_BYTES);
        if (sealed == NULL) abort();
        if (bytes > 0) memcpy(sealed, data, bytes);
        bt_mac(seal.open_key, sealed, bytes, sealed + bytes);
        open_one(&seal, peer, sealed, bytes + BT_MAC_BYTES);
        free(sealed);
    }
    return 0;
}
