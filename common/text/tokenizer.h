/* tokenizer.h - text to token ids and back, as a Hugging Face tokenizer.json states it.
 *
 * FLOW    open once -> encode / piece from any thread -> close
 * STEPS   text -> split at added tokens -> normalizer -> pre-tokenizer -> BPE -> post-processor.
 *         Each stage comes in kinds, one row each in normalizer.c, pretokenizer.c, decoder.c and
 *         postprocessor.c. A file that asks for a kind without a row is refused by name: a
 *         tokenizer that is nearly right is worse than none.
 * FAMILIES  Byte-level BPE (GPT-2 and its kin) and sentencepiece-style BPE with byte fallback.
 * TRUST   The file is hostile input: every id, index and length is checked on opening. The text is
 *         any valid UTF-8; the work is O(n log n) whatever it says, and n has a limit.
 * MEMORY  encode allocates and frees scratch of at most about 60 bytes for each byte of normalized
 *         text.
 * SPECIAL Special tokens spelled out in the text stay text, unless the caller vouches for the text
 *         with BT_ENCODE_SPECIAL. Added tokens that the file does not call special are ordinary
 *         vocabulary and always found, as in Hugging Face.
 * PLAIN   A text that is vouched for but for some parts (a rendered chat: the template's words are
 *         the operator's, a message's are the user's) names those parts as ranges. A special token
 *         that has a byte in one is no token there; else the text is encoded as one, so words and
 *         merges cross the borders. Ranges that cover all of the text make BT_ENCODE_SPECIAL
 *         without effect. White space that a special token swallows (lstrip, rstrip) may lie in a
 *         range. */
#ifndef BT_COMMON_TEXT_TOKENIZER_H
#define BT_COMMON_TEXT_TOKENIZER_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_TEXT_BYTES_MAX (2u << 20) /* of one call of encode */
#define BT_PIECE_BYTES_MAX 1024u     /* of one token */
#define BT_TOKENIZER_BYTES_MAX (96u << 20)

typedef struct bt_tokenizer bt_tokenizer;

#define BT_ENCODE_SPECIAL 1u /* special tokens in the text become their ids */
#define BT_ENCODE_BARE 2u    /* no post-processor: no BOS or the like added */

typedef struct {
    uint32_t *ids; /* the caller's */
    size_t capacity;
    size_t count;   /* set by encode */
    uint64_t steps; /* set by encode: characters looked at and merges tried, for tests of bounds */
} bt_tokens;

/* Errors: ERR_OS, ERR_FORMAT (not what a tokenizer.json may say), ERR_ARGUMENT (a kind that is not
 * supported, named), ERR_LIMIT, ERR_NO_MEMORY. */
bt_status bt_tokenizer_open(const char *path, bt_tokenizer **ret_tokenizer, bt_err *err);
/* The same from the file's bytes. label names them in errors. */
bt_status bt_tokenizer_parse(const char *json, size_t bytes, const char *label,
                             bt_tokenizer **ret_tokenizer, bt_err *err);
void bt_tokenizer_close(bt_tokenizer *tokenizer);

/* Bytes first … end - 1 of a text. */
typedef struct {
    size_t first, end;
} bt_text_range;

/* Fills tokens->ids. plain lists the ranges of the text in which no special token is found; they
 * are in order and disjoint, and may be empty. Errors: ERR_ARGUMENT (text is not UTF-8, ranges are
 * out of order or beyond the text), ERR_LIMIT (more than capacity tokens, or text above
 * BT_TEXT_BYTES_MAX), ERR_NO_MEMORY. */
bt_status bt_tokenizer_encode_marked(const bt_tokenizer *tokenizer, const char *text, size_t bytes,
                                     const bt_text_range *plain, size_t plain_count, uint32_t flags,
                                     bt_tokens *tokens, bt_err *err);

/* The same without ranges. */
bt_status bt_tokenizer_encode(const bt_tokenizer *tokenizer, const char *text, size_t bytes,
                              uint32_t flags, bt_tokens *tokens, bt_err *err);

/* One more than the largest id. There may be ids without a token. */
uint32_t bt_tokenizer_vocab(const bt_tokenizer *tokenizer);

/* True for an id that the file calls special (BOS, EOS, …). */
bool bt_tokenizer_special(const bt_tokenizer *tokenizer, uint32_t id);

/* The id of a token as the file spells it ("<s>", "Ġthe"), or UINT32_MAX. */
uint32_t bt_tokenizer_id(const bt_tokenizer *tokenizer, const char *token, size_t bytes);

/* The token as the file spells it, which is UTF-8; NULL and 0 for an id without a token. */
const char *bt_tokenizer_spelling(const bt_tokenizer *tokenizer, uint32_t id, size_t *ret_bytes);

/* The bytes a token stands for, which need not be whole characters; NULL and 0 for an id without a
 * token. What holds for a whole text only (leading space, U+FFFD) is detok.h's work. */
const char *bt_tokenizer_piece(const bt_tokenizer *tokenizer, uint32_t id, size_t *ret_bytes);

/* What a decoder of the file drops at the beginning of a text. */
typedef struct {
    uint32_t first_spaces;   /* so many of the first spaces, at most */
    bool first_token_spaces; /* every space of the first token */
} bt_text_start;
bt_text_start bt_tokenizer_text_start(const bt_tokenizer *tokenizer);

#endif
