#include "common/text/detok.h"

#include "common/base/utf8.h"

#include <assert.h>
#include <string.h>

void bt_detok_init(bt_detok *detok, const bt_tokenizer *tokenizer, uint32_t flags)
{
    *detok = (bt_detok){.tokenizer = tokenizer, .flags = flags};
    if ((flags & BT_DETOK_CONTINUES) == 0)
        detok->drop_spaces = bt_tokenizer_text_start(tokenizer).first_spaces;
}

/* Copies whole characters, replaces what can be none, and keeps an unfinished one. */
static size_t settle(bt_detok *detok, const char *bytes, size_t count, char *text)
{
    size_t written = 0;
    for (size_t at = 0; at < count;) {
        unsigned length;
        bt_utf8_state state = bt_utf8_probe(bytes + at, count - at, &length);
        if (state == BT_UTF8_PREFIX) {
            memcpy(detok->held, bytes + at, length);
            detok->held_bytes = length;
            break;
        }
        const char *from = state == BT_UTF8_WHOLE ? bytes + at : "\xEF\xBF\xBD";
        size_t size = state == BT_UTF8_WHOLE ? length : 3;
        memcpy(text + written, from, size);
        written += size;
        at += length;
    }
    return written;
}

/* Spaces to drop from the front of a piece that is the next of the text. */
static size_t dropped_spaces(bt_detok *detok, const char *piece, size_t bytes)
{
    bool continues = (detok->flags & BT_DETOK_CONTINUES) != 0;
    bool all = !continues && !detok->started &&
               bt_tokenizer_text_start(detok->tokenizer).first_token_spaces;
    size_t spaces = 0;
    while (spaces < bytes && piece[spaces] == ' ' && (all || detok->drop_spaces > 0)) {
        if (detok->drop_spaces > 0) detok->drop_spaces--;
        spaces++;
    }
    if (spaces < bytes) detok->drop_spaces = 0;
    detok->started = true;
    return spaces;
}

size_t bt_detok_push(bt_detok *detok, uint32_t id, char ret_text[BT_DETOK_BYTES_MAX])
{
    size_t bytes;
    const char *piece = bt_tokenizer_piece(detok->tokenizer, id, &bytes);
    bool hidden =
        (detok->flags & BT_DETOK_SPECIAL) == 0 && bt_tokenizer_special(detok->tokenizer, id);
    if (piece == NULL || hidden) return 0;
    assert(bytes <= BT_PIECE_BYTES_MAX && detok->held_bytes <= 3);
    size_t spaces = dropped_spaces(detok, piece, bytes);
    char joined[3 + BT_PIECE_BYTES_MAX];
    size_t count = detok->held_bytes;
    memcpy(joined, detok->held, count);
    memcpy(joined + count, piece + spaces, bytes - spaces);
    detok->held_bytes = 0;
    return settle(detok, joined, count + bytes - spaces, ret_text);
}

size_t bt_detok_flush(bt_detok *detok, char ret_text[BT_DETOK_BYTES_MAX])
{
    if (detok->held_bytes == 0) return 0;
    detok->held_bytes = 0;
    memcpy(ret_text, "\xEF\xBF\xBD", 3);
    return 3;
}

size_t bt_detok_clean_up(char *text, size_t bytes)
{
    static const char *const exchanges[][2] = {
        {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
        {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    for (size_t i = 0; i < sizeof(exchanges) / sizeof(exchanges[0]); i++) {
        size_t from_bytes = strlen(exchanges[i][0]), to_bytes = strlen(exchanges[i][1]), out = 0;
        for (size_t at = 0; at < bytes;) {
            if (bytes - at >= from_bytes && memcmp(text + at, exchanges[i][0], from_bytes) == 0) {
                memcpy(text + out, exchanges[i][1], to_bytes);
                out += to_bytes;
                at += from_bytes;
            } else {
                text[out++] = text[at++];
            }
        }
        bytes = out;
    }
    return bytes;
}
