/* crypto.h - the few primitives Baton needs, by libsodium: SHA-256 for names of content, keyed
 * BLAKE2b as MAC, random bytes, and a compare that takes the same time wherever the difference is.
 *
 * Everything but bt_random_bytes is pure, so the cores may use it. */
#ifndef BT_COMMON_BASE_CRYPTO_H
#define BT_COMMON_BASE_CRYPTO_H

#include "common/base/status.h"

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_SHA256_BYTES 32u
#define BT_MAC_BYTES 16u
#define BT_KEY_BYTES 32u

typedef struct {
    uint8_t bytes[BT_SHA256_BYTES];
} bt_sha256;

typedef struct {
    alignas(16) uint8_t opaque[128];
} bt_sha256_stream;

void bt_sha256_start(bt_sha256_stream *stream);
void bt_sha256_add(bt_sha256_stream *stream, const void *data, size_t bytes);
void bt_sha256_end(bt_sha256_stream *stream, bt_sha256 *ret_hash);
void bt_sha256_of(const void *data, size_t bytes, bt_sha256 *ret_hash);

void bt_mac(const uint8_t key[BT_KEY_BYTES], const void *data, size_t bytes,
            uint8_t ret_mac[BT_MAC_BYTES]);
bool bt_equal_ct(const void *a, const void *b, size_t bytes);

/* The first bytes of the pseudo-random stream that key names (ChaCha20, nonce 0). A key used here
 * is used for nothing else that is a stream. */
void bt_key_stream(const uint8_t key[BT_KEY_BYTES], void *ret_stream, size_t bytes);

/* Keyed pseudo-random function for short input, tens of nanoseconds (SipHash-2-4, 128-bit). */
void bt_prf128(const uint8_t key[16], const void *data, size_t bytes, uint64_t ret_lanes[2]);

/* From the kernel. Never fails after a successful bt_crypto_start. */
void bt_random_bytes(void *ret_data, size_t bytes);

/* Once for each process, before anything above. Idempotent. */
bt_status bt_crypto_start(bt_err *err);

#endif
