/* fuzz_msg.c - any bytes into the message codec. What decodes must encode, and decode to the same. */
#include "proto/codec.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static bt_codec *new_codec(void)
{
    void *memory = aligned_alloc(64, (bt_codec_bytes() + 63) & ~(size_t)63);
    if (memory == NULL) abort();
    return bt_codec_init(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static bt_codec *first, *second;
    static uint8_t encoded[BT_CODEC_BYTES_MAX];
    if (first == NULL) {
        first = new_codec();
        second = new_codec();
    }
    bt_msg msg, again;
    bt_err err;
    size_t encoded_bytes;
    if (bt_codec_decode(data, bytes, first, &msg, &err) != BT_OK) return 0;
    if (bt_codec_encode(&msg, encoded, sizeof(encoded), &encoded_bytes, &err) != BT_OK) abort();
    if (bt_codec_decode(encoded, encoded_bytes, second, &again, &err) != BT_OK) abort();
    if (!bt_msg_equal(&msg, &again)) abort();
    return 0;
}
