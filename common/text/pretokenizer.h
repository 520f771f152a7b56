/* pretokenizer.h - the second stage of a tokenizer: normalized text to words, which BPE never
 * merges across.
 *
 * ADD ONE  a row in pretokenizer.c: its type, how its members are read, how it splits a span.
 * PATTERN The patterns are scanners written by hand over the classes of unicode.h: one pass, no
 *         backtracking beyond one character, so hostile text costs what other text does. */
#ifndef BT_COMMON_TEXT_PRETOKENIZER_H
#define BT_COMMON_TEXT_PRETOKENIZER_H

#include "common/text/json.h"

#include <stddef.h>
#include <stdint.h>

typedef struct bt_pretokenizer_kind bt_pretokenizer_kind;

typedef enum { BT_PREPEND_NEVER, BT_PREPEND_FIRST, BT_PREPEND_ALWAYS } bt_prepend;

typedef struct {
    uint32_t count;
    bool byte_level; /* words are bytes to BPE, not characters */
    struct bt_pretokenizer_step {
        const bt_pretokenizer_kind *kind;
        bt_prepend prepend;
        bool split;
        char replacement[BT_STAGE_TEXT_BYTES_MAX + 1];
    } steps[BT_STAGE_STEPS_MAX];
} bt_pretokenizer;

typedef struct {
    const char *text;
    size_t bytes;
    bool first;           /* begins where the whole text begins */
    const uint8_t *marks; /* for added.h, of each byte; NULL: none */
} bt_span;

/* Who gets the words, in order. steps counts the characters looked at. */
typedef struct {
    bt_status (*word)(void *context, bt_span word, bt_err *err);
    void *context;
    uint64_t steps;
} bt_word_sink;

/* "always", "first", "never", or the older add_prefix_space: Metaspace, here and as a decoder. */
bt_status bt_prepend_read(const json_t *stage, bt_prepend *ret_prepend, bt_err *err);

/* stage NULL: the whole text is one word. */
bt_status bt_pretokenizer_read(const json_t *stage, bt_pretokenizer *ret_pretokenizer, bt_err *err);

/* span is valid UTF-8. Words are never empty. */
bt_status bt_pretokenizer_run(const bt_pretokenizer *pretokenizer, bt_span span, bt_word_sink *sink,
                              bt_err *err);

#endif
