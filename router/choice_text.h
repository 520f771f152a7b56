/* choice_text.h - the tokens of one choice to the text and the logprobs that may be sent now.
 *
 * FLOW    init -> (push -> send the text and entries [0, ready) -> took) … -> finish -> the same
 *         After a match of a stop string nothing more is pushed; finish still releases entries.
 * TEXT    token -> detok.h (whole characters only) -> stop.h (nothing that may become a stop string)
 * ENTRIES One for each token, if asked for, in order. An entry is ready when all of its token's text
 *         has been released, so that entries and text go out side by side; a token that is part of a
 *         character waits for the rest. A token whose text begins where a stop string cut the text
 *         off, or later, never gets ready: it is not in the answer.
 * OFFSET  Of an entry: characters (code points) of the choice's text before the token's.
 * MEMORY  Entries that wait: as many as tokens are held back, at most those of the request. */
#ifndef BT_ROUTER_CHOICE_TEXT_H
#define BT_ROUTER_CHOICE_TEXT_H

#include "common/base/sampling.h"
#include "common/text/detok.h"
#include "common/text/stop.h"

/* Of one push or finish: what was held back, what the token gives, and a stop string. */
#define BT_CHOICE_TEXT_BYTES_MAX (BT_DETOK_BYTES_MAX + 2u * BT_STOP_BYTES_MAX)

typedef struct {
    bt_token token;
    uint64_t begin, end; /* of its text, in bytes of all text; end is known once settled */
    uint64_t offset;
    bool unscored; /* it has no logprob: the first token of a prompt */
} bt_choice_entry;

typedef struct {
    bt_detok detok;
    bt_stop stop;
    bool include_stop; /* the text ends after the stop string */
    bool entries_wanted;
    uint64_t decoded_bytes, decoded_chars; /* of detok's output; chars with those before it */
    uint64_t released_bytes;               /* of stop's */
    bt_choice_entry *entries;
    uint32_t count, capacity;
    uint32_t settled; /* entries [0, settled) have an end */
    uint32_t ready;
} bt_choice_text;

/* Characters of valid UTF-8. */
uint64_t bt_count_chars(const char *text, size_t bytes);

/* stop is fresh; detok may have decoded the prompt. chars_before: of what the answer begins with. */
void bt_choice_text_init(bt_choice_text *text, const bt_detok *detok, const bt_stop *stop,
                         uint64_t chars_before);
void bt_choice_text_close(bt_choice_text *text);

typedef enum {
    BT_PUSH_TEXT,
    BT_PUSH_UNSTOPPED, /* its text is not searched for stop strings */
    BT_PUSH_HIDDEN,    /* it has no text: the token that ends the choice */
    BT_PUSH_SILENT     /* nor an entry */
} bt_push_kind;

/* Writes the text that is released now. False: no memory for an entry. */
bool bt_choice_text_push(bt_choice_text *text, const bt_token *token, bt_push_kind kind,
                         char ret_text[BT_CHOICE_TEXT_BYTES_MAX], size_t *ret_bytes);
/* The choice has ended: what is held back is released. Once. */
void bt_choice_text_finish(bt_choice_text *text, char ret_text[BT_CHOICE_TEXT_BYTES_MAX],
                           size_t *ret_bytes);
/* Entries [0, ready) are done with. */
void bt_choice_text_took(bt_choice_text *text);

#endif
