#include "common/text/template/str.h"

#include "common/base/utf8.h"
#include "common/text/template/run.h"
#include "common/text/unicode.h"

#include <assert.h>
#include <string.h>

#define BUILDER_BYTES_MIN 64u
#define BUILDER_MARKS_MIN 4u

void bt_tpl_build(const bt_tpl_run *run, bt_tpl_builder *builder)
{
    *builder = (bt_tpl_builder){.bytes_max = run->limits.string_bytes};
}

static bool grow_bytes(bt_tpl_run *run, bt_tpl_builder *builder, size_t bytes)
{
    if (bytes > builder->bytes_max - builder->bytes)
        return bt_tpl_fail(run, BT_ERR_LIMIT, "a text is longer than %zu bytes",
                           builder->bytes_max);
    size_t want = builder->bytes + bytes;
    if (want <= builder->capacity) return true;
    size_t capacity = builder->capacity < BUILDER_BYTES_MIN ? BUILDER_BYTES_MIN : builder->capacity;
    while (capacity < want) capacity *= 2;
    if (builder->data != NULL && bt_tpl_arena_extend(&run->text, builder->data + builder->capacity,
                                                     capacity - builder->capacity)) {
        builder->capacity = capacity;
        return true;
    }
    char *data = bt_tpl_arena_text(&run->text, capacity);
    if (data == NULL) return bt_tpl_no_room(run);
    if (builder->bytes > 0) memcpy(data, builder->data, builder->bytes);
    builder->data = data;
    builder->capacity = capacity;
    return true;
}

static bool add_mark(bt_tpl_run *run, bt_tpl_builder *builder, size_t first, size_t end)
{
    if (first == end) return true;
    if (builder->mark_count > 0 && builder->marks[builder->mark_count - 1].end == first) {
        builder->marks[builder->mark_count - 1].end = end;
        return true;
    }
    if (builder->mark_count == builder->mark_capacity) {
        size_t capacity =
            builder->mark_capacity == 0 ? BUILDER_MARKS_MIN : builder->mark_capacity * 2;
        bt_text_range *marks = bt_tpl_take(run, capacity, sizeof(marks[0]));
        if (marks == NULL) return false;
        if (builder->mark_count > 0)
            memcpy(marks, builder->marks, builder->mark_count * sizeof(marks[0]));
        builder->marks = marks;
        builder->mark_capacity = capacity;
    }
    builder->marks[builder->mark_count++] = (bt_text_range){first, end};
    return true;
}

bool bt_tpl_put(bt_tpl_run *run, bt_tpl_builder *builder, const char *data, size_t bytes,
                bool marked)
{
    if (bytes == 0) return true;
    if (!bt_tpl_steps_bytes(run, bytes) || !grow_bytes(run, builder, bytes)) return false;
    memcpy(builder->data + builder->bytes, data, bytes);
    builder->bytes += bytes;
    return !marked || add_mark(run, builder, builder->bytes - bytes, builder->bytes);
}

bool bt_tpl_put_text(bt_tpl_run *run, bt_tpl_builder *builder, const char *text)
{
    return bt_tpl_put(run, builder, text, strlen(text), false);
}

bool bt_tpl_put_code(bt_tpl_run *run, bt_tpl_builder *builder, uint32_t code, bool marked)
{
    char bytes[4];
    return bt_tpl_put(run, builder, bytes, bt_utf8_encode(code, bytes), marked);
}

bool bt_tpl_put_slice(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_str *str, size_t first,
                      size_t end)
{
    assert(first <= end && end <= str->bytes);
    size_t base = builder->bytes;
    if (!bt_tpl_put(run, builder, str->data + first, end - first, false)) return false;
    for (size_t i = 0; i < str->mark_count; i++) {
        bt_text_range mark = str->marks[i];
        if (mark.end <= first) continue;
        if (mark.first >= end) break;
        size_t from = mark.first < first ? first : mark.first;
        size_t to = mark.end > end ? end : mark.end;
        if (!add_mark(run, builder, base + from - first, base + to - first)) return false;
    }
    return bt_tpl_steps_items(run, str->mark_count);
}

bool bt_tpl_put_str(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_str *str)
{
    return bt_tpl_put_slice(run, builder, str, 0, str->bytes);
}

bool bt_tpl_put_repeat(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_str *str,
                       size_t times)
{
    size_t bytes;
    if (__builtin_mul_overflow(str->bytes, times, &bytes) ||
        bytes > builder->bytes_max - builder->bytes)
        return bt_tpl_fail(run, BT_ERR_LIMIT, "a text is longer than %zu bytes",
                           builder->bytes_max);
    for (size_t i = 0; i < times && str->bytes > 0; i++) {
        if (!bt_tpl_put_str(run, builder, str)) return false;
    }
    return true;
}

bool bt_tpl_built(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value *ret)
{
    bt_tpl_str *str = BT_TPL_NEW(run, bt_tpl_str);
    if (str == NULL) return false;
    if (builder->data != NULL)
        bt_tpl_arena_trim(&run->text, builder->data + builder->capacity,
                          builder->capacity - builder->bytes);
    builder->capacity = builder->bytes;
    *str = (bt_tpl_str){.data = builder->data != NULL ? builder->data : "",
                        .bytes = builder->bytes,
                        .chars = SIZE_MAX,
                        .marks = builder->marks,
                        .mark_count = builder->mark_count,
                        .markup = builder->markup};
    *ret = BT_TPL_V_STR(str);
    return true;
}

bool bt_tpl_str_new(bt_tpl_run *run, const char *data, size_t bytes, bt_tpl_value *ret)
{
    bt_tpl_str *str = BT_TPL_NEW(run, bt_tpl_str);
    if (str == NULL) return false;
    *str = (bt_tpl_str){.data = data, .bytes = bytes, .chars = SIZE_MAX};
    *ret = BT_TPL_V_STR(str);
    return true;
}

bool bt_tpl_str_text(bt_tpl_run *run, const char *text, bt_tpl_value *ret)
{
    return bt_tpl_str_new(run, text, strlen(text), ret);
}

bool bt_tpl_str_slice(bt_tpl_run *run, const bt_tpl_str *str, size_t first, size_t end,
                      bt_tpl_value *ret)
{
    assert(first <= end && end <= str->bytes);
    if (!bt_tpl_str_new(run, str->data + first, end - first, ret)) return false;
    ret->str->markup = str->markup;
    size_t from = 0, to = str->mark_count;
    while (from < to && str->marks[from].end <= first) from++;
    while (to > from && str->marks[to - 1].first >= end) to--;
    if (!bt_tpl_steps_items(run, str->mark_count)) return false;
    if (from == to) return true;
    bt_text_range *marks = bt_tpl_take(run, to - from, sizeof(marks[0]));
    if (marks == NULL) return false;
    for (size_t i = from; i < to; i++) {
        bt_text_range mark = str->marks[i];
        marks[i - from].first = mark.first < first ? 0 : mark.first - first;
        marks[i - from].end = (mark.end > end ? end : mark.end) - first;
    }
    ret->str->marks = marks;
    ret->str->mark_count = to - from;
    return true;
}

bool bt_tpl_str_char(bt_tpl_run *run, const bt_tpl_str *str, size_t offset, bool marked,
                     bt_tpl_value *ret)
{
    size_t bytes;
    uint32_t code = bt_tpl_char_at(str, offset, &bytes);
    if (code < 128 && run->ascii[marked][code] != NULL) {
        *ret = BT_TPL_V_STR(run->ascii[marked][code]);
        return true;
    }
    if (!bt_tpl_str_new(run, str->data + offset, bytes, ret)) return false;
    ret->str->chars = 1;
    if (marked) {
        bt_text_range *mark = BT_TPL_NEW(run, bt_text_range);
        if (mark == NULL) return false;
        *mark = (bt_text_range){0, bytes};
        ret->str->marks = mark;
        ret->str->mark_count = 1;
    }
    if (code < 128) run->ascii[marked][code] = ret->str;
    return true;
}

/* The result begins with left's own bytes if they are the last of the arena, so that a template
 * that adds to one text again and again does not copy it each time. */
bool bt_tpl_str_concat(bt_tpl_run *run, const bt_tpl_str *left, const bt_tpl_str *right,
                       bt_tpl_value *ret)
{
    bt_tpl_builder builder;
    bt_tpl_build(run, &builder);
    builder.markup = left->markup;
    if (right->bytes <= builder.bytes_max - left->bytes && left->bytes > 0 &&
        bt_tpl_arena_extend(&run->text, left->data + left->bytes, right->bytes)) {
        builder.data = (char *)(uintptr_t)left->data;
        builder.bytes = left->bytes;
        builder.capacity = left->bytes + right->bytes;
        for (size_t i = 0; i < left->mark_count; i++) {
            if (!add_mark(run, &builder, left->marks[i].first, left->marks[i].end)) return false;
        }
        if (!bt_tpl_steps_items(run, left->mark_count)) return false;
    } else if (!bt_tpl_put_str(run, &builder, left)) {
        return false;
    }
    return bt_tpl_put_str(run, &builder, right) && bt_tpl_built(run, &builder, ret);
}

bool bt_tpl_marked(bt_tpl_marks *marks, size_t offset)
{
    const bt_tpl_str *str = marks->str;
    while (marks->mark < str->mark_count && str->marks[marks->mark].end <= offset) marks->mark++;
    return marks->mark < str->mark_count && str->marks[marks->mark].first <= offset;
}

size_t bt_tpl_chars(bt_tpl_str *str)
{
    if (str->chars == SIZE_MAX) str->chars = bt_tpl_char_index(str, str->bytes);
    return str->chars;
}

size_t bt_tpl_char_index(const bt_tpl_str *str, size_t offset)
{
    size_t chars = 0;
    for (size_t i = 0; i < offset; i++) chars += ((unsigned char)str->data[i] & 0xC0) != 0x80;
    return chars;
}

size_t bt_tpl_char_offset(bt_tpl_str *str, size_t index)
{
    size_t chars = bt_tpl_chars(str);
    if (index >= chars) return str->bytes;
    if (chars == str->bytes) return index;
    size_t offset = 0;
    for (size_t i = 0; i <= index; offset++) {
        if (((unsigned char)str->data[offset] & 0xC0) != 0x80 && i++ == index) break;
    }
    return offset;
}

uint32_t bt_tpl_char_at(const bt_tpl_str *str, size_t offset, size_t *ret_bytes)
{
    assert(offset < str->bytes);
    uint32_t code;
    *ret_bytes = bt_utf8_char(str->data + offset, str->bytes - offset, &code);
    assert(*ret_bytes > 0);
    return code;
}

uint32_t bt_tpl_char_before(const bt_tpl_str *str, size_t offset, size_t *ret_bytes)
{
    assert(offset > 0);
    size_t first = offset - 1;
    while (first > 0 && ((unsigned char)str->data[first] & 0xC0) == 0x80) first--;
    return bt_tpl_char_at(str, first, ret_bytes);
}

size_t bt_tpl_find(const bt_tpl_str *str, const bt_tpl_str *needle, size_t first, size_t end)
{
    if (end < first || needle->bytes > end - first) return SIZE_MAX;
    if (needle->bytes == 0) return first;
    const char *at = memmem(str->data + first, end - first, needle->data, needle->bytes);
    return at != NULL ? (size_t)(at - str->data) : SIZE_MAX;
}

size_t bt_tpl_rfind(const bt_tpl_str *str, const bt_tpl_str *needle, size_t first, size_t end)
{
    if (end < first || needle->bytes > end - first) return SIZE_MAX;
    for (size_t at = end - needle->bytes + 1; at-- > first;) {
        if (memcmp(str->data + at, needle->data, needle->bytes) == 0) return at;
    }
    return SIZE_MAX;
}

bool bt_tpl_str_equal(const bt_tpl_str *left, const bt_tpl_str *right)
{
    return left->bytes == right->bytes && memcmp(left->data, right->data, left->bytes) == 0;
}

/* The order of UTF-8 bytes is that of code points. */
int bt_tpl_str_compare(const bt_tpl_str *left, const bt_tpl_str *right)
{
    size_t common = left->bytes < right->bytes ? left->bytes : right->bytes;
    int order = memcmp(left->data, right->data, common);
    if (order != 0) return order;
    return (left->bytes > right->bytes) - (left->bytes < right->bytes);
}

bool bt_tpl_is_space(uint32_t code)
{
    return (code >= 9 && code <= 13) || (code >= 28 && code <= 32) || code == 0x85 ||
           code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

static bool stripped(const bt_tpl_str *chars, const char *data, size_t bytes, uint32_t code)
{
    if (chars == NULL) return bt_tpl_is_space(code);
    /* UTF-8 synchronises itself: a whole character is found only where it is one. */
    return memmem(chars->data, chars->bytes, data, bytes) != NULL;
}

bool bt_tpl_strip(bt_tpl_run *run, const bt_tpl_str *str, const bt_tpl_str *chars, bool left,
                  bool right, bt_tpl_value *ret)
{
    size_t first = 0, end = str->bytes, bytes;
    while (left && first < end) {
        uint32_t code = bt_tpl_char_at(str, first, &bytes);
        if (!stripped(chars, str->data + first, bytes, code)) break;
        first += bytes;
        if (!bt_tpl_steps_bytes(run, chars != NULL ? chars->bytes : 1)) return false;
    }
    while (right && end > first) {
        uint32_t code = bt_tpl_char_before(str, end, &bytes);
        if (!stripped(chars, str->data + end - bytes, bytes, code)) break;
        end -= bytes;
        if (!bt_tpl_steps_bytes(run, chars != NULL ? chars->bytes : 1)) return false;
    }
    return bt_tpl_str_slice(run, str, first, end, ret);
}
