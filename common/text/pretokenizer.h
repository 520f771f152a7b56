/* pretokenizer.h - the second stage of a tokenizer: normalized text to words, which BPE never
 * merges across.
 *
 * STEP    Every kind is a rewriting (a space before, spaces made visible) and a cut: a pattern, and
 *         what becomes of the text that matches it. The kinds differ in how they say so.
 * ADD ONE  a row in pretokenizer.c: its type, and how its members are read. Patterns: pattern.h. */
#ifndef BT_COMMON_TEXT_PRETOKENIZER_H
#define BT_COMMON_TEXT_PRETOKENIZER_H

#include "common/text/json.h"
#include "common/text/pattern.h"

#include <stddef.h>
#include <stdint.h>

typedef enum { BT_PREPEND_NEVER, BT_PREPEND_FIRST, BT_PREPEND_ALWAYS } bt_prepend;

/* What becomes of a match: a word; nothing; a part of the words beside it. */
typedef enum {
    BT_CUT_NEVER, /* the span is one word */
    BT_CUT_ISOLATED,
    BT_CUT_REMOVED,
    BT_CUT_WITH_PREVIOUS,
    BT_CUT_WITH_NEXT,
    BT_CUT_CONTIGUOUS /* matches side by side are one word */
} bt_cut;

typedef struct {
    uint32_t count;
    bool byte_level; /* words are bytes to BPE, not characters */
    struct bt_pretokenizer_step {
        bt_prepend prepend;
        char prefix[BT_STAGE_TEXT_BYTES_MAX + 1]; /* what is prepended */
        bool replace;                             /* spaces become the prefix */
        bt_cut cut;
        bool invert; /* what does not match is what matches */
        bt_pattern pattern;
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
