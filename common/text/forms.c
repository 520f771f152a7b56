#include "common/text/forms.h"

#include "common/base/utf8.h"
#include "common/text/unicode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define CODES_OF_ONE_MAX 32   /* decomposed; Unicode has 18 at most */
#define SORT_BY_INSERTION 16u /* marks in a row; more are sorted by counting */
#define HANGUL_FIRST 0xAC00u  /* syllables, which decompose by rule, not by table */
#define HANGUL_LAST 0xD7A3u

typedef struct {
    utf8proc_int32_t *codes;
    utf8proc_int32_t *sorted; /* scratch of as many */
    size_t count, capacity;
} code_list;

static unsigned combining_class(utf8proc_int32_t code)
{
    return utf8proc_get_property(code)->combining_class;
}

/* Fully decomposes one code point; returns how many it becomes. */
static size_t decompose(uint32_t form, uint32_t code, utf8proc_int32_t codes[CODES_OF_ONE_MAX])
{
    int bounds = 0;
    utf8proc_option_t options =
        UTF8PROC_DECOMPOSE | ((form & BT_FORM_COMPATIBLE) != 0 ? UTF8PROC_COMPAT : 0);
    utf8proc_ssize_t count =
        utf8proc_decompose_char((utf8proc_int32_t)code, codes, CODES_OF_ONE_MAX, options, &bounds);
    assert(count > 0 && count <= CODES_OF_ONE_MAX);
    return (size_t)count;
}

/* What normalization may do where a code point stands. */
typedef struct {
    bool begins;  /* nothing before it changes with what follows */
    bool changes; /* it may change, alone or with what is before it */
} behavior;

static behavior behavior_of(uint32_t form, uint32_t code)
{
    utf8proc_int32_t codes[CODES_OF_ONE_MAX] = {(utf8proc_int32_t)code};
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)code);
    bool decomposes = p->decomp_seqindex != UINT16_MAX &&
                      (p->decomp_type == 0 || (form & BT_FORM_COMPATIBLE) != 0);
    if (decomposes) {
        decompose(form, code, codes);
        p = utf8proc_get_property(codes[0]);
    }
    /* What composes with a character before it is a mark, or a vowel or final of Hangul. */
    bool mark = p->category == UTF8PROC_CATEGORY_MN || p->category == UTF8PROC_CATEGORY_MC ||
                p->category == UTF8PROC_CATEGORY_ME;
    bool joins = mark || p->combining_class != 0 || (codes[0] >= 0x1160 && codes[0] <= 0x11FF);
    bool syllable = code >= HANGUL_FIRST && code <= HANGUL_LAST && (form & BT_FORM_COMPOSED) == 0;
    return (behavior){.begins = !joins, .changes = decomposes || joins || syllable};
}

static bt_status reserve(code_list *list, size_t count, bt_err *err)
{
    if (list->count + count <= list->capacity) return BT_OK;
    size_t capacity = 2 * (list->count + count) + 64;
    utf8proc_int32_t *codes = realloc(list->codes, capacity * sizeof(*codes));
    if (codes != NULL) list->codes = codes;
    utf8proc_int32_t *sorted = realloc(list->sorted, capacity * sizeof(*sorted));
    if (sorted != NULL) list->sorted = sorted;
    if (codes == NULL || sorted == NULL)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory to normalize a text");
    list->capacity = capacity;
    return BT_OK;
}

static void sort_by_insertion(utf8proc_int32_t *codes, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        utf8proc_int32_t code = codes[i];
        size_t at = i;
        for (; at > 0 && combining_class(codes[at - 1]) > combining_class(code); at--)
            codes[at] = codes[at - 1];
        codes[at] = code;
    }
}

static void sort_by_counting(utf8proc_int32_t *codes, utf8proc_int32_t *sorted, size_t count)
{
    size_t places[257] = {0};
    for (size_t i = 0; i < count; i++) places[combining_class(codes[i]) + 1]++;
    for (size_t i = 1; i < 257; i++) places[i] += places[i - 1];
    for (size_t i = 0; i < count; i++) sorted[places[combining_class(codes[i])]++] = codes[i];
    memcpy(codes, sorted, count * sizeof(codes[0]));
}

/* Puts the marks between two starters in the order of their classes, equals as they were. */
static void sort_marks(code_list *list)
{
    for (size_t at = 0, end; at < list->count; at = end + 1) {
        for (end = at; end < list->count && combining_class(list->codes[end]) > 0;) end++;
        if (end - at > SORT_BY_INSERTION)
            sort_by_counting(list->codes + at, list->sorted, end - at);
        else
            sort_by_insertion(list->codes + at, end - at);
    }
}

/* Adds the form of bytes begin … end - 1, which depend on nothing else. */
static bt_status add_part(uint32_t form, code_list *list, const bt_buffer *from, size_t begin,
                          size_t end, bt_buffer *to, bt_err *err)
{
    list->count = 0;
    bt_status status = BT_OK;
    for (size_t at = begin; at < end;) {
        uint32_t code = 0;
        size_t length = bt_utf8_char(from->data + at, end - at, &code);
        assert(length > 0);
        at += length;
        if ((status = reserve(list, CODES_OF_ONE_MAX, err)) != BT_OK) return status;
        list->count += decompose(form, code, list->codes + list->count);
    }
    sort_marks(list);
    if ((form & BT_FORM_COMPOSED) != 0) {
        utf8proc_ssize_t count = utf8proc_normalize_utf32(
            list->codes, (utf8proc_ssize_t)list->count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        assert(count > 0 && (size_t)count <= list->count);
        list->count = (size_t)count;
    }
    char *text = (char *)list->sorted; /* done with; it has 4 bytes for each code */
    size_t bytes = 0;
    for (size_t i = 0; i < list->count; i++)
        bytes += bt_utf8_encode((uint32_t)list->codes[i], text + bytes);
    return bt_buffer_put(to, text, bytes, from, begin, end - begin, err);
}

static bt_status run(uint32_t form, code_list *list, const bt_buffer *from, bt_buffer *to,
                     bt_err *err)
{
    /* Below this, no character changes and each one begins a part. */
    uint32_t settled = form == BT_FORM_COMPOSED ? 0x300 : (form & BT_FORM_COMPATIBLE) ? 0xA0 : 0xC0;
    size_t copied = 0, part = 0; /* bytes in `to`; where the current part begins */
    bool changes = false;        /* it may */
    bt_status status = BT_OK;
    for (size_t at = 0, length; at <= from->bytes && status == BT_OK; at += length) {
        behavior b = {.begins = true};
        uint32_t code = 0;
        length = 1;
        if (at < from->bytes && (uint8_t)from->data[at] >= 0x80) {
            length = bt_utf8_char(from->data + at, from->bytes - at, &code);
            assert(length > 0);
            if (code >= settled) b = behavior_of(form, code);
        }
        if (b.begins) {
            if (changes) {
                status = bt_buffer_copy(to, from, copied, part - copied, err);
                if (status == BT_OK) status = add_part(form, list, from, part, at, to, err);
                copied = at;
            }
            part = at;
            changes = false;
        }
        changes = changes || b.changes;
    }
    if (status != BT_OK) return status;
    return bt_buffer_copy(to, from, copied, from->bytes - copied, err);
}

bt_status bt_form_run(uint32_t form, const bt_buffer *from, bt_buffer *to, bt_err *err)
{
    code_list list = {0};
    bt_status status = run(form, &list, from, to, err);
    free(list.codes);
    free(list.sorted);
    return status;
}
