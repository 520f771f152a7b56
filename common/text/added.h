/* added.h - the tokens that are found in a text as they stand, before BPE sees it.
 *
 * FIND    Leftmost, then longest. The patterns are sorted, and a search narrows the range of those
 *         that agree byte by byte: a position costs at most the longest pattern's bytes.
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

typedef struct {
    size_t begin, end;           /* bytes of the text that the match takes */
    const bt_added_token *token; /* NULL: no match, begin = end = bytes of the text */
} bt_added_match;

/* What is searched. */
typedef struct {
    const char *text;
    const uint8_t *marks; /* of each byte, 1: no special token here; NULL: all 0 */
    size_t bytes;
    bool special; /* special tokens are found where they are not marked */
} bt_added_text;

/* The first match at or after from. A special token that is not to be found is passed over as a
 * whole; one that is marked in part is as if it were not in the file. */
bt_added_match bt_added_find(const bt_added *added, const bt_added_text *text, size_t from,
                             uint64_t *steps);

#endif
