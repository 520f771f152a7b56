/* pattern.h - what a stage of a tokenizer looks for in a text: a string, or one of the regular
 * expressions that published tokenizers ask for.
 *
 * SCAN    Each expression is a scanner written by hand, found by the expression's exact text. A
 *         scanner looks at a character a few times at most, whatever the text: none backtracks
 *         over more than the run of characters that it then takes.
 * REFUSED Any other expression, by its text. A general engine would not help: its tables of
 *         characters, its case folding and its syntax would have to be those of the engine that
 *         the tokenizer was trained with, or be nearly right, which is worse than none; and it
 *         would have to bound its backtracking.
 * ADD ONE a row in pattern.c. */
#ifndef BT_COMMON_TEXT_PATTERN_H
#define BT_COMMON_TEXT_PATTERN_H

#include "common/text/json.h"

#include <stddef.h>
#include <stdint.h>

typedef struct bt_pattern_kind bt_pattern_kind;

typedef struct {
    const bt_pattern_kind *kind; /* NULL: the string */
    uint32_t bytes;
    char string[BT_STAGE_TEXT_BYTES_MAX + 1];
} bt_pattern;

/* The stage's member {"pattern": {"String": …} or {"Regex": …}}. Errors: ERR_FORMAT; ERR_ARGUMENT
 * (an expression without a row). */
bt_status bt_pattern_read(const json_t *stage, bt_pattern *ret_pattern, bt_err *err);

/* A pattern by the text of its expression, which has a row. */
bt_pattern bt_pattern_of(const char *regex);
/* A string of 1 to BT_STAGE_TEXT_BYTES_MAX bytes. */
bt_pattern bt_pattern_of_string(const char *string);

/* What the pre-tokenizers of these names look for. */
#define BT_PATTERN_GPT2                                                                            \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define BT_PATTERN_NUMBER "\\p{N}"
#define BT_PATTERN_SPACE "\\s"
/* These two are no expressions a file can ask for: its engine has another \w and \p{P}. */
#define BT_PATTERN_PUNCTUATION "(*PUNCTUATION)"
#define BT_PATTERN_WORD "(*WORD)" /* \w+|[^\w\s]+ */

typedef struct {
    size_t begin, end; /* bytes of the text; none is empty */
} bt_pattern_match;

/* The first match at or after from; begin = end = bytes if there is none. The text is valid UTF-8,
 * and from is on the border of a character. *steps grows by the characters looked at. */
bt_pattern_match bt_pattern_find(const bt_pattern *pattern, const char *text, size_t bytes,
                                 size_t from, uint64_t *steps);

#endif
