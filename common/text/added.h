/* added.h - the tokens that are found in a text as they stand, before BPE sees it.
 *
 * FLOW    add … sort, then for a text: a bt_added_search, next until it finds no token
 * FIND    Leftmost, then longest. The patterns are sorted, and a search narrows the range of those
 *         that agree byte by byte: a position costs at most the longest pattern's bytes.
 * SPACES  White space that a token swallows on its right is searched for tokens all the same, as in
 *         Hugging Face: such a token ends there again.
 * TWICE   A file says of each added token whether it is looked for in the text as given or in the
 *         normalized text; there is one bt_added of each sort. */
#ifndef BT_COMMON_TEXT_ADDED_H
#define BT_COMMON_TEXT_ADDED_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_ADDED_BYTES_MAX 256u /* of one added token */

typedef struct {
    char *pattern;
    uint32_t bytes;
    uint32_t id;
    bool special;
    bool takes_left, takes_right; /* swallows white space on that side (lstrip, rstrip) */
    bool alone;                   /* only with no word character beside it (single_word) */
} bt_added_token;

typedef struct {
    bt_added_token *tokens; /* sorted by pattern after bt_added_sort */
    uint32_t count;
    uint32_t capacity;
    uint32_t first[257]; /* tokens whose pattern begins with byte b are first[b] … first[b+1]-1 */
} bt_added;

/* Copies token and its pattern, which is not empty. */
bt_status bt_added_add(bt_added *added, bt_added_token token, bt_err *err);
void bt_added_sort(bt_added *added);
void bt_added_release(bt_added *added);

/* A search through a text. The caller sets the first part, the rest is zero. */
typedef struct {
    const bt_added *added;
    const char *text;     /* valid UTF-8 */
    const uint8_t *marks; /* of each byte, 1: no special token here; NULL: all 0 */
    size_t bytes;
    bool special; /* special tokens are found where they are not marked */
    /* the search's own */
    size_t at;         /* where it goes on */
    size_t spaces_end; /* where the white space ends that was last looked at */
    uint64_t steps;
} bt_added_search;

typedef struct {
    size_t begin, end;           /* bytes of the text that the match takes */
    const bt_added_token *token; /* NULL: there is none, begin = end = bytes of the text */
} bt_added_match;

/* The next match; taken is the end of the one before. A special token that is not to be found is
 * passed over as a whole; one that is marked in part is as if it were not in the file. */
bt_added_match bt_added_next(bt_added_search *search, size_t taken);

#endif
