/* detok.h - token ids, one at a time, to text that is valid UTF-8 after every call.
 *
 * FLOW    init -> push for each token -> flush at the end
 * OUTPUT  The concatenation of all outputs is what Hugging Face decodes from all ids at once, for
 *         ids that make valid text. Bytes that can still become a character are held back (3 at
 *         most); bytes that no longer can become U+FFFD, one for each maximal part, at once.
 * START   A decoder that drops the first space of a text does so only at the beginning of a text:
 *         a completion that continues a prompt is in the middle of one (BT_DETOK_CONTINUES).
 * IDS     An id without a token gives nothing, as in Hugging Face; so does a special token, unless
 *         BT_DETOK_SPECIAL. */
#ifndef BT_COMMON_TEXT_DETOK_H
#define BT_COMMON_TEXT_DETOK_H

#include "common/text/tokenizer.h"

#define BT_DETOK_CONTINUES 1u
#define BT_DETOK_SPECIAL 2u

/* Of one push: each byte of a piece and each held back can become a U+FFFD. */
#define BT_DETOK_BYTES_MAX (3u * (BT_PIECE_BYTES_MAX + 3u))

typedef struct {
    const bt_tokenizer *tokenizer; /* borrowed */
    uint32_t flags;
    bool started; /* a token was pushed that counts */
    uint32_t drop_spaces;
    uint32_t held_bytes;
    char held[4];
} bt_detok;

void bt_detok_init(bt_detok *detok, const bt_tokenizer *tokenizer, uint32_t flags);

/* Return the bytes written to ret_text. */
size_t bt_detok_push(bt_detok *detok, uint32_t id, char ret_text[BT_DETOK_BYTES_MAX]);
size_t bt_detok_flush(bt_detok *detok, char ret_text[BT_DETOK_BYTES_MAX]);

/* What transformers does to a decoded text where tokenizer_config.json says
 * clean_up_tokenization_spaces: takes the space before some English punctuation and contractions
 * ("a ." -> "a."). Changes text, returns its bytes. Only for a whole text: served text is streamed,
 * and is never cleaned up. */
size_t bt_detok_clean_up(char *text, size_t bytes);

#endif
