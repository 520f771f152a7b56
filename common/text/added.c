#include "common/text/added.h"

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

static sighting longest_at(bt_added_search *s, size_t at)
{
    const bt_added *added = s->added;
    uint8_t byte = (uint8_t)s->text[at];
    uint32_t lo = added->first[byte], hi = added->first[byte + 1u];
    sighting longest = {NULL, false};
    bool some_marked = false, all_marked = true;
    for (uint32_t depth = 1; lo < hi; depth++) {
        s->steps++;
        bool marked = s->marks != NULL && s->marks[at + depth - 1] != 0;
        some_marked = some_marked || marked;
        all_marked = all_marked && marked;
        for (; lo < hi && added->tokens[lo].bytes == depth; lo++) {
            const bt_added_token *token = &added->tokens[lo];
            bool pass = token->special && (!s->special || all_marked);
            if (!token->special || pass || !some_marked) longest = (sighting){token, pass};
        }
        if (at + depth == s->bytes) break;
        byte = (uint8_t)s->text[at + depth];
        lo = lower(added, lo, hi, depth, byte);
        hi = lower(added, lo, hi, depth, byte + 1u);
    }
    return longest;
}

/* Where the character begins that ends at `at`, which is not 0. */
static size_t character_before(const char *text, size_t at)
{
    do at--;
    while (at > 0 && ((uint8_t)text[at] & 0xC0) == 0x80);
    return at;
}

static bool stands_alone(const bt_added_search *s, size_t begin, size_t end)
{
    size_t next;
    if (begin > 0 && (bt_char_class_at(s->text, s->bytes, character_before(s->text, begin), &next) &
                      BT_CHAR_WORD) != 0)
        return false;
    return end == s->bytes || (bt_char_class_at(s->text, s->bytes, end, &next) & BT_CHAR_WORD) == 0;
}

static size_t spaces_after(bt_added_search *s, size_t at)
{
    size_t next;
    /* Tokens that are white space themselves would look at the same white space again and again. */
    if (at < s->spaces_end) return s->spaces_end;
    while (at < s->bytes && (bt_char_class_at(s->text, s->bytes, at, &next) & BT_CHAR_SPACE) != 0) {
        at = next;
        s->steps++;
    }
    s->spaces_end = at;
    return at;
}

static size_t spaces_before(bt_added_search *s, size_t taken, size_t at)
{
    size_t next;
    while (at > taken) {
        size_t before = character_before(s->text, at);
        if ((bt_char_class_at(s->text, s->bytes, before, &next) & BT_CHAR_SPACE) == 0) break;
        at = before;
        s->steps++;
    }
    return at > taken ? at : taken;
}

bt_added_match bt_added_next(bt_added_search *s, size_t taken)
{
    const uint32_t *first = s->added->first;
    if (s->added->count == 0) s->at = s->bytes;
    while (s->at < s->bytes) {
        size_t at = s->at;
        uint8_t byte = (uint8_t)s->text[at];
        s->steps++;
        s->at++;
        if (first[byte] == first[byte + 1u]) continue;
        sighting found = longest_at(s, at);
        if (found.token == NULL) continue;
        bt_added_match match = {at, at + found.token->bytes, found.token};
        s->at = match.end;
        if (found.pass || (found.token->alone && !stands_alone(s, at, match.end))) continue;
        if (found.token->takes_left) match.begin = spaces_before(s, taken, at);
        if (found.token->takes_right) match.end = spaces_after(s, match.end);
        return match;
    }
    return (bt_added_match){s->bytes, s->bytes, NULL};
}
