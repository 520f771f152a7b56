/* fuzz_tokenizer_json.c - any bytes as a tokenizer.json and, after a NUL byte, a text: refused, or
 * ids within the vocabulary that decode to valid UTF-8. */
#include "common/base/utf8.h"
#include "common/text/detok.h"

#include <assert.h>
#include <string.h>

#define IDS_MAX 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void encode_and_decode(const bt_tokenizer *tokenizer, const char *text, size_t bytes,
                              uint32_t flags)
{
    static uint32_t ids[IDS_MAX];
    bt_tokens tokens = {.ids = ids, .capacity = IDS_MAX};
    bt_err err;
    if (bt_tokenizer_encode(tokenizer, text, bytes, flags, &tokens, &err) != BT_OK) return;
    bt_detok detok;
    char out[BT_DETOK_BYTES_MAX];
    bt_detok_init(&detok, tokenizer, BT_DETOK_SPECIAL);
    for (size_t i = 0; i < tokens.count; i++) {
        assert(ids[i] < bt_tokenizer_vocab(tokenizer));
        assert(bt_utf8_valid(out, bt_detok_push(&detok, ids[i], out)));
    }
    bt_detok_flush(&detok, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *json = (const char *)data;
    const char *nul = bytes > 0 ? memchr(json, '\0', bytes) : NULL;
    size_t first = nul != NULL ? (size_t)(nul - json) : bytes;
    bt_tokenizer *tokenizer;
    bt_err err;
    if (bt_tokenizer_parse(json, first, "fuzz", &tokenizer, &err) != BT_OK) {
        assert(err.message[0] != '\0');
        return 0;
    }
    const char *text = nul != NULL ? nul + 1 : "a b";
    size_t text_bytes = nul != NULL ? bytes - first - 1 : 3;
    encode_and_decode(tokenizer, text, text_bytes, 0);
    encode_and_decode(tokenizer, text, text_bytes, BT_ENCODE_SPECIAL | BT_ENCODE_BARE);
    bt_tokenizer_close(tokenizer);
    return 0;
}
