/* fuzz_tokenizer_json.c - any bytes as a tokenizer.json and, after a NUL byte, a text: refused, or
 * ids within the vocabulary that decode to valid UTF-8. */
#include "common/base/utf8.h"
#include "common/text/detok.h"

#include <assert.h>
#include <string.h>

#define IDS_MAX 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static bool encode(const bt_tokenizer *tokenizer, const char *text, size_t bytes,
                   bt_text_range plain, uint32_t flags, bt_tokens *tokens)
{
    static uint32_t ids[2][IDS_MAX];
    static int turn;
    turn = !turn;
    *tokens = (bt_tokens){.ids = ids[turn], .capacity = IDS_MAX};
    bt_err err;
    return bt_tokenizer_encode_marked(tokenizer, text, bytes, &plain, 1, flags, tokens, &err) ==
           BT_OK;
}

static void encode_and_decode(const bt_tokenizer *tokenizer, const char *text, size_t bytes,
                              bt_text_range plain, uint32_t flags)
{
    bt_tokens tokens, same;
    if (!encode(tokenizer, text, bytes, plain, flags, &tokens)) return;
    const uint32_t *ids = tokens.ids;
    /* All of it plain is what no special tokens gives. */
    if (plain.first == 0 && plain.end == bytes) {
        assert(encode(tokenizer, text, bytes, (bt_text_range){0, 0}, flags & ~BT_ENCODE_SPECIAL,
                      &same));
        assert(same.count == tokens.count &&
               memcmp(same.ids, ids, same.count * sizeof(ids[0])) == 0);
    }
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
    const bt_text_range ranges[] = {{0, 0}, {0, text_bytes}, {text_bytes / 3, text_bytes / 2}};
    encode_and_decode(tokenizer, text, text_bytes, ranges[0], 0);
    for (int i = 0; i < 3; i++)
        encode_and_decode(tokenizer, text, text_bytes, ranges[i],
                          BT_ENCODE_SPECIAL | BT_ENCODE_BARE);
    bt_tokenizer_close(tokenizer);
    return 0;
}
