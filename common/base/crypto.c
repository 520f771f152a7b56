#include "common/base/crypto.h"

#include <sodium.h>

_Static_assert(sizeof(crypto_hash_sha256_state) <= sizeof(bt_sha256_stream),
               "stream holds the state");
_Static_assert(crypto_stream_chacha20_KEYBYTES == BT_KEY_BYTES, "ChaCha20");
_Static_assert(crypto_hash_sha256_BYTES == BT_SHA256_BYTES, "SHA-256");

void bt_sha256_start(bt_sha256_stream *stream)
{
    crypto_hash_sha256_init((crypto_hash_sha256_state *)stream->opaque);
}

void bt_sha256_add(bt_sha256_stream *stream, const void *data, size_t bytes)
{
    crypto_hash_sha256_update((crypto_hash_sha256_state *)stream->opaque, data, bytes);
}

void bt_sha256_end(bt_sha256_stream *stream, bt_sha256 *ret_hash)
{
    crypto_hash_sha256_final((crypto_hash_sha256_state *)stream->opaque, ret_hash->bytes);
}

void bt_sha256_of(const void *data, size_t bytes, bt_sha256 *ret_hash)
{
    crypto_hash_sha256(ret_hash->bytes, data, bytes);
}

void bt_mac(const uint8_t key[BT_KEY_BYTES], const void *data, size_t bytes,
            uint8_t ret_mac[BT_MAC_BYTES])
{
    crypto_generichash(ret_mac, BT_MAC_BYTES, data, bytes, key, BT_KEY_BYTES);
}

void bt_key_stream(const uint8_t key[BT_KEY_BYTES], void *ret_stream, size_t bytes)
{
    static const uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
    crypto_stream_chacha20(ret_stream, bytes, nonce, key);
}

void bt_prf128(const uint8_t key[16], const void *data, size_t bytes, uint64_t ret_lanes[2])
{
    crypto_shorthash_siphashx24((unsigned char *)ret_lanes, data, bytes, key);
}

bool bt_equal_ct(const void *a, const void *b, size_t bytes)
{
    return sodium_memcmp(a, b, bytes) == 0;
}

void bt_random_bytes(void *ret_data, size_t bytes)
{
    randombytes_buf(ret_data, bytes);
}

bt_status bt_crypto_start(bt_err *err)
{
    if (sodium_init() < 0) return BT_FAIL(err, BT_ERR_OS, "libsodium did not initialise");
    return BT_OK;
}
