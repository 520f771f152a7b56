#include "common/text/added.h"

#include "common/base/utf8.h"
#include "common/text/unicode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

bt_status bt_added_add(bt_added *added, bt_added_token token, bt_err *err)
{
    assert(token.bytes > 0);
    if (added->count == added->capacity) {
        uint32_t capacity = added->capacity > 0 ? 2 * added->capacity : 16;
        bt_added_token *grown = realloc(added->tokens, capacity * sizeof(*grown));
        if (grown == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for added tokens");
        added->tokens = grown;
        added->capacity = capacity;
    }
    char *copy = malloc(token.bytes);
    if (copy == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for added tokens");
    memcpy(copy, token.pattern, token.bytes);
    token.pattern = copy;
    added->tokens[added->count++] = token;
    return BT_OK;
}

static int compare(const void *a, const void *b)
{
    const bt_added_token *x = a, *y = b;
    uint32_t common = x->bytes < y->bytes ? x->bytes : y->bytes;
    int order = memcmp(x->pattern, y->pattern, common);
    if (order != 0) return order;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

void bt_added_sort(bt_added *added)
{
    if (added->count > 0) qsort(added->tokens, added->count, sizeof(added->tokens[0]), compare);
    uint32_t at = 0;
    for (uint32_t byte = 0; byte < 256; byte++) {
        added->first[byte] = at;
        while (at < added->count && (uint8_t)added->tokens[at].pattern[0] == byte) at++;
    }
    added->first[256] = at;
}

void bt_added_release(bt_added *added)
{
    for (uint32_t i = 0; i < added->count; i++) free(added->tokens[i].pattern);
    free(added->tokens);
    *added = (bt_added){0};
}

/* First of the sorted tokens lo … hi - 1, all longer than depth, whose byte there is >= byte. */
static uint32_t lower(const bt_added *added, uint32_t lo, uint32_t hi, uint32_t depth,
                      uint32_t byte)
{
    while (lo < hi) {
        uint32_t middle = lo + (hi - lo) / 2;
        if ((uint8_t)added->tokens[middle].pattern[depth] < byte)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo;
}

/* The longest token here, and whether it is to be passed over. */
typedef struct {
    const bt_added_token *token;
    bool pass;
} sighting;

static sighting longest_at(const bt_added *added, const bt_added_text *t, size_t at,
                           uint64_t *steps)
{
    const char *text = t->text + at;
    uint32_t lo = added->first[(uint8_t)text[0]], hi = added->first[(uint8_t)text[0] + 1u];
    sighting longest = {NULL, false};
    bool some_marked = false, all_marked = true;
    for (uint32_t depth = 1; lo < hi; depth++) {
        (*steps)++;
        bool marked = t->marks != NULL && t->marks[at + depth - 1] != 0;
        some_marked = some_marked || marked;
        all_marked = all_marked && marked;
        for (; lo < hi && added->tokens[lo].bytes == depth; lo++) {
            const bt_added_token *token = &added->tokens[lo];
            bool pass = token->special && (!t->special || all_marked);
            if (!token->special || pass || !some_marked) longest = (sighting){token, pass};
        }
        if (at + depth == t->bytes) break;
        uint32_t byte = (uint8_t)text[depth];
        lo = lower(added, lo, hi, depth, byte);
        hi = lower(added, lo, hi, depth, byte + 1);
    }
    return longest;
}

static size_t spaces_after(const char *text, size_t bytes, size_t at)
{
    uint32_t code = 0;
    size_t length;
    while ((length = bt_utf8_char(text + at, bytes - at, &code)) > 0 &&
           (bt_char_class_of(code) & BT_CHAR_SPACE) != 0)
        at += length;
    return at;
}

static size_t spaces_before(const char *text, size_t from, size_t at)
{
    while (at > from) {
        size_t start = at - 1;
        while (start > from && ((uint8_t)text[start] & 0xC0) == 0x80) start--;
        uint32_t code = 0;
        if (bt_utf8_char(text + start, at - start, &code) == 0 ||
            (bt_char_class_of(code) & BT_CHAR_SPACE) == 0)
            break;
        at = start;
    }
    return at;
}

bt_added_match bt_added_find(const bt_added *added, const bt_added_text *text, size_t from,
                             uint64_t *steps)
{
    bt_added_match none = {text->bytes, text->bytes, NULL};
    if (added->count == 0) return none;
    for (size_t at = from; at < text->bytes;) {
        sighting found = longest_at(added, text, at, steps);
        const bt_added_token *token = found.token;
        (*steps)++;
        if (token == NULL) {
            at++;
        } else if (found.pass) {
            at += token->bytes;
        } else {
            bt_added_match match = {at, at + token->bytes, token};
            if (token->takes_left) match.begin = spaces_before(text->text, from, at);
            if (token->takes_right) match.end = spaces_after(text->text, text->bytes, match.end);
            return match;
        }
    }
    return none;
}
