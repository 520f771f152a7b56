/* methods_str.c - the methods of strings. */
#include "common/text/template/methods.h"

#include <string.h>
#include <utf8proc.h>

static bool optional_str(bt_tpl_run *run, bt_tpl_value value, bt_tpl_str **ret)
{
    *ret = NULL;
    return value.type == BT_TPL_MISSING || value.type == BT_TPL_NONE ||
           bt_tpl_arg_str(run, value, ret);
}

/* Stripping. */

static bool strip_sides(bt_tpl_run *run, bt_tpl_value self, bt_tpl_value chars, bool left,
                        bool right, bt_tpl_value *ret)
{
    bt_tpl_str *set;
    return optional_str(run, chars, &set) && bt_tpl_strip(run, self.str, set, left, right, ret);
}

BT_TPL_NATIVE(str_strip)
{
    return strip_sides(run, self, args[0], true, true, ret);
}

BT_TPL_NATIVE(str_lstrip)
{
    return strip_sides(run, self, args[0], true, false, ret);
}

BT_TPL_NATIVE(str_rstrip)
{
    return strip_sides(run, self, args[0], false, true, ret);
}

static bool remove_affix(bt_tpl_run *run, bt_tpl_value self, bt_tpl_value affix, bool prefix,
                         bt_tpl_value *ret)
{
    bt_tpl_str *text;
    if (!bt_tpl_arg_str(run, affix, &text)) return false;
    size_t first = 0, end = self.str->bytes;
    bool there = text->bytes <= end && memcmp(self.str->data + (prefix ? 0 : end - text->bytes),
                                              text->data, text->bytes) == 0;
    if (there && prefix) first = text->bytes;
    if (there && !prefix) end -= text->bytes;
    return bt_tpl_str_slice(run, self.str, first, end, ret);
}

BT_TPL_NATIVE(str_removeprefix)
{
    return remove_affix(run, self, args[0], true, ret);
}

BT_TPL_NATIVE(str_removesuffix)
{
    return remove_affix(run, self, args[0], false, ret);
}

/* Splitting. */

static bool push_slice(bt_tpl_run *run, bt_tpl_items *items, const bt_tpl_str *str, size_t first,
                       size_t end)
{
    bt_tpl_value part;
    return bt_tpl_str_slice(run, str, first, end, &part) && bt_tpl_items_push(run, items, part);
}

static bool split_blanks(bt_tpl_run *run, const bt_tpl_str *str, int64_t most, bt_tpl_items *items)
{
    size_t at = 0, bytes;
    for (;;) {
        while (at < str->bytes && bt_tpl_is_space(bt_tpl_char_at(str, at, &bytes))) at += bytes;
        if (at == str->bytes) return true;
        size_t first = at;
        if (most-- == 0) return push_slice(run, items, str, first, str->bytes);
        while (at < str->bytes && !bt_tpl_is_space(bt_tpl_char_at(str, at, &bytes))) at += bytes;
        if (!push_slice(run, items, str, first, at)) return false;
    }
}

static bool rsplit_blanks(bt_tpl_run *run, const bt_tpl_str *str, int64_t most, bt_tpl_items *items)
{
    size_t at = str->bytes, bytes;
    for (;;) {
        while (at > 0 && bt_tpl_is_space(bt_tpl_char_before(str, at, &bytes))) at -= bytes;
        if (at == 0) return true;
        size_t end = at;
        if (most-- == 0) return push_slice(run, items, str, 0, end);
        while (at > 0 && !bt_tpl_is_space(bt_tpl_char_before(str, at, &bytes))) at -= bytes;
        if (!push_slice(run, items, str, at, end)) return false;
    }
}

static bool split_at(bt_tpl_run *run, const bt_tpl_str *str, const bt_tpl_str *separator,
                     int64_t most, bt_tpl_items *items)
{
    size_t at = 0, found;
    while (most-- != 0 && (found = bt_tpl_find(str, separator, at, str->bytes)) != SIZE_MAX) {
        if (!push_slice(run, items, str, at, found)) return false;
        at = found + separator->bytes;
    }
    return push_slice(run, items, str, at, str->bytes);
}

static bool rsplit_at(bt_tpl_run *run, const bt_tpl_str *str, const bt_tpl_str *separator,
                      int64_t most, bt_tpl_items *items)
{
    size_t end = str->bytes, found;
    if (!bt_tpl_steps_bytes(run, str->bytes * separator->bytes)) return false;
    while (most-- != 0 && (found = bt_tpl_rfind(str, separator, 0, end)) != SIZE_MAX) {
        if (!push_slice(run, items, str, found + separator->bytes, end)) return false;
        end = found;
    }
    return push_slice(run, items, str, 0, end);
}

static bool split_any(bt_tpl_run *run, bt_tpl_value self, const bt_tpl_value *args, bool right,
                      bt_tpl_value *ret)
{
    bt_tpl_str *separator;
    int64_t most;
    bt_tpl_items items = {0};
    if (!optional_str(run, args[0], &separator) || !bt_tpl_arg_int(run, args[1], -1, &most) ||
        !bt_tpl_steps_bytes(run, self.str->bytes))
        return false;
    if (separator != NULL && separator->bytes == 0) return BT_TPL_RAISE(run, "empty separator");
    bool fine;
    if (separator == NULL)
        fine = right ? rsplit_blanks(run, self.str, most, &items)
                     : split_blanks(run, self.str, most, &items);
    else
        fine = right ? rsplit_at(run, self.str, separator, most, &items)
                     : split_at(run, self.str, separator, most, &items);
    for (size_t i = 0; fine && right && i < items.list.count / 2; i++) {
        bt_tpl_value *other = &items.list.items[items.list.count - 1 - i], swap = *other;
        *other = items.list.items[i];
        items.list.items[i] = swap;
    }
    return fine && bt_tpl_items_done(run, &items, BT_TPL_LIST, ret);
}

BT_TPL_NATIVE(str_split)
{
    return split_any(run, self, args, false, ret);
}

BT_TPL_NATIVE(str_rsplit)
{
    return split_any(run, self, args, true, ret);
}

static bool is_line_end(uint32_t code)
{
    return (code >= 10 && code <= 13) || (code >= 0x1C && code <= 0x1E) || code == 0x85 ||
           code == 0x2028 || code == 0x2029;
}

bool bt_tpl_split_lines(bt_tpl_run *run, const bt_tpl_str *str, bool keep_ends, bt_tpl_items *lines)
{
    size_t first = 0, at = 0, bytes;
    if (!bt_tpl_steps_bytes(run, str->bytes)) return false;
    while (at < str->bytes) {
        uint32_t code = bt_tpl_char_at(str, at, &bytes);
        size_t end = at;
        at += bytes;
        if (!is_line_end(code)) continue;
        if (code == '\r' && at < str->bytes && str->data[at] == '\n') at++;
        if (!push_slice(run, lines, str, first, keep_ends ? at : end)) return false;
        first = at;
    }
    return first == at || push_slice(run, lines, str, first, at);
}

BT_TPL_NATIVE(str_splitlines)
{
    bt_tpl_items items = {0};
    return bt_tpl_split_lines(run, self.str, bt_tpl_true(args[0]), &items) &&
           bt_tpl_items_done(run, &items, BT_TPL_LIST, ret);
}

static bool cut(bt_tpl_run *run, bt_tpl_value self, bt_tpl_value separator, bool right,
                bt_tpl_value *ret)
{
    bt_tpl_str *text;
    bt_tpl_list *list;
    const bt_tpl_str *str = self.str;
    if (!bt_tpl_arg_str(run, separator, &text)) return false;
    if (text->bytes == 0) return BT_TPL_RAISE(run, "empty separator");
    if (!bt_tpl_list_new(run, 3, &list) ||
        !bt_tpl_steps_bytes(run, str->bytes * (right ? text->bytes : 1)))
        return false;
    size_t at =
        right ? bt_tpl_rfind(str, text, 0, str->bytes) : bt_tpl_find(str, text, 0, str->bytes);
    size_t first = at, end = at + text->bytes;
    if (at == SIZE_MAX) first = end = right ? 0 : str->bytes;
    list->count = 3;
    return bt_tpl_str_slice(run, str, 0, first, &list->items[0]) &&
           bt_tpl_str_slice(run, str, first, end, &list->items[1]) &&
           bt_tpl_str_slice(run, str, end, str->bytes, &list->items[2]) &&
           bt_tpl_list_value(run, list, BT_TPL_TUPLE, ret);
}

BT_TPL_NATIVE(str_partition)
{
    return cut(run, self, args[0], false, ret);
}

BT_TPL_NATIVE(str_rpartition)
{
    return cut(run, self, args[0], true, ret);
}

BT_TPL_NATIVE(str_join)
{
    bt_tpl_list *list;
    bt_tpl_builder builder;
    if (!bt_tpl_iterable(args[0])) return BT_TPL_RAISE(run, "can only join an iterable");
    if (!bt_tpl_walk(run, args[0], &list)) return false;
    bt_tpl_build(run, &builder);
    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i].type != BT_TPL_STR)
            return BT_TPL_RAISE(run, "sequence item %zu: expected str instance, %s found", i,
                                bt_tpl_type_name(list->items[i]));
        if ((i > 0 && !bt_tpl_put_str(run, &builder, self.str)) ||
            !bt_tpl_put_str(run, &builder, list->items[i].str))
            return false;
    }
    return bt_tpl_built(run, &builder, ret);
}

/* Searching. */

/* [start, stop) in characters, as Python clips them, to bytes. *ret_valid: start is within. */
static bool clip_range(bt_tpl_run *run, bt_tpl_str *str, const bt_tpl_value *bounds,
                       size_t *ret_first, size_t *ret_end, bool *ret_valid)
{
    int64_t size = (int64_t)bt_tpl_chars(str), numbers[2] = {0, size};
    for (int i = 0; i < 2; i++) {
        if (bounds[i].type == BT_TPL_NONE) continue;
        if (!bt_tpl_arg_int(run, bounds[i], numbers[i], &numbers[i])) return false;
        if (numbers[i] < 0) numbers[i] = numbers[i] < -size ? 0 : numbers[i] + size;
    }
    *ret_valid = numbers[0] <= size && numbers[0] <= numbers[1];
    *ret_first = bt_tpl_char_offset(str, (size_t)numbers[0]);
    *ret_end = bt_tpl_char_offset(str, (size_t)numbers[1]);
    return bt_tpl_steps_bytes(run, str->bytes);
}

static bool find_any(bt_tpl_run *run, bt_tpl_value self, const bt_tpl_value *args, bool right,
                     bool raises, bt_tpl_value *ret)
{
    bt_tpl_str *needle;
    size_t first, end;
    bool valid;
    if (!bt_tpl_arg_str(run, args[0], &needle) ||
        !clip_range(run, self.str, args + 1, &first, &end, &valid))
        return false;
    if (right && !bt_tpl_steps_bytes(run, needle->bytes * self.str->bytes)) return false;
    size_t at = !valid  ? SIZE_MAX
                : right ? bt_tpl_rfind(self.str, needle, first, end)
                        : bt_tpl_find(self.str, needle, first, end);
    if (at == SIZE_MAX && raises) return BT_TPL_RAISE(run, "substring not found");
    *ret = BT_TPL_V_INT(at == SIZE_MAX ? -1 : (int64_t)bt_tpl_char_index(self.str, at));
    return true;
}

BT_TPL_NATIVE(str_find)
{
    return find_any(run, self, args, false, false, ret);
}

BT_TPL_NATIVE(str_rfind)
{
    return find_any(run, self, args, true, false, ret);
}

BT_TPL_NATIVE(str_index)
{
    return find_any(run, self, args, false, true, ret);
}

BT_TPL_NATIVE(str_rindex)
{
    return find_any(run, self, args, true, true, ret);
}

BT_TPL_NATIVE(str_count)
{
    bt_tpl_str *needle;
    size_t first, end, at;
    bool valid;
    int64_t count = 0;
    if (!bt_tpl_arg_str(run, args[0], &needle) ||
        !clip_range(run, self.str, args + 1, &first, &end, &valid))
        return false;
    if (valid && needle->bytes == 0) {
        count = 1 + (int64_t)bt_tpl_char_index(self.str, end) -
                (int64_t)bt_tpl_char_index(self.str, first);
    } else if (valid) {
        for (; (at = bt_tpl_find(self.str, needle, first, end)) != SIZE_MAX; count++)
            first = at + needle->bytes;
    }
    *ret = BT_TPL_V_INT(count);
    return true;
}

static bool affix_is(const bt_tpl_str *str, const bt_tpl_str *affix, size_t first, size_t end,
                     bool prefix)
{
    if (affix->bytes > end - first) return false;
    size_t at = prefix ? first : end - affix->bytes;
    return memcmp(str->data + at, affix->data, affix->bytes) == 0;
}

/* The affix may be a tuple of them. */
static bool has_affix(bt_tpl_run *run, bt_tpl_value self, const bt_tpl_value *args, bool prefix,
                      bt_tpl_value *ret)
{
    size_t first, end;
    bool valid;
    bt_tpl_value one = args[0];
    bt_tpl_list single = {.items = &one, .count = 1};
    const bt_tpl_list *affixes = args[0].type == BT_TPL_TUPLE ? args[0].list : &single;
    if (!clip_range(run, self.str, args + 1, &first, &end, &valid)) return false;
    *ret = BT_TPL_V_BOOL(false);
    for (size_t i = 0; i < affixes->count; i++) {
        bt_tpl_str *affix;
        if (!bt_tpl_arg_str(run, affixes->items[i], &affix)) return false;
        ret->flag |= valid && affix_is(self.str, affix, first, end, prefix);
    }
    return true;
}

BT_TPL_NATIVE(str_startswith)
{
    return has_affix(run, self, args, true, ret);
}

BT_TPL_NATIVE(str_endswith)
{
    return has_affix(run, self, args, false, ret);
}

/* Replacing. */

bool bt_tpl_replace(bt_tpl_run *run, const bt_tpl_str *str, const bt_tpl_str *old,
                    const bt_tpl_str *new, int64_t count, bt_tpl_value *ret)
{
    bt_tpl_builder builder;
    bt_tpl_build(run, &builder);
    builder.markup = str->markup;
    size_t at = 0;
    if (!bt_tpl_steps_bytes(run, str->bytes)) return false;
    while (count != 0) {
        size_t found = bt_tpl_find(str, old, at, str->bytes), bytes = 0;
        if (found == SIZE_MAX) break;
        if (count > 0) count--;
        /* An empty text is found before every character, and at the end. */
        if (old->bytes == 0 && at < str->bytes) bt_tpl_char_at(str, at, &bytes);
        if (!bt_tpl_put_slice(run, &builder, str, at, found) ||
            !bt_tpl_put_str(run, &builder, new) ||
            (bytes > 0 && !bt_tpl_put_slice(run, &builder, str, at, at + bytes)))
            return false;
        at = found + old->bytes + bytes;
        if (old->bytes == 0 && bytes == 0) break;
    }
    return bt_tpl_put_slice(run, &builder, str, at, str->bytes) && bt_tpl_built(run, &builder, ret);
}

BT_TPL_NATIVE(str_replace)
{
    bt_tpl_str *old, *new;
    int64_t count;
    return bt_tpl_arg_str(run, args[0], &old) && bt_tpl_arg_str(run, args[1], &new) &&
           bt_tpl_arg_int(run, args[2], -1, &count) &&
           bt_tpl_replace(run, self.str, old, new, count, ret);
}

/* Case. */

static bool change_case(bt_tpl_run *run, bt_tpl_value self, bt_tpl_case to, bt_tpl_value *ret)
{
    bt_tpl_builder builder;
    bt_tpl_build(run, &builder);
    builder.markup = self.str->markup;
    return bt_tpl_put_case(run, &builder, self.str, 0, self.str->bytes, to) &&
           bt_tpl_built(run, &builder, ret);
}

BT_TPL_NATIVE(str_upper)
{
    return change_case(run, self, BT_TPL_UPPER, ret);
}

BT_TPL_NATIVE(str_lower)
{
    return change_case(run, self, BT_TPL_LOWER, ret);
}

BT_TPL_NATIVE(str_swapcase)
{
    return change_case(run, self, BT_TPL_SWAP, ret);
}

BT_TPL_NATIVE(str_capitalize)
{
    bt_tpl_builder builder;
    bt_tpl_build(run, &builder);
    builder.markup = self.str->markup;
    size_t first = 0;
    if (self.str->bytes > 0) bt_tpl_char_at(self.str, 0, &first);
    return bt_tpl_put_case(run, &builder, self.str, 0, first, BT_TPL_TITLE) &&
           bt_tpl_put_case(run, &builder, self.str, first, self.str->bytes, BT_TPL_LOWER) &&
           bt_tpl_built(run, &builder, ret);
}

static bool is_cased(uint32_t code)
{
    utf8proc_int32_t c = (utf8proc_int32_t)code;
    return utf8proc_toupper(c) != c || utf8proc_tolower(c) != c;
}

BT_TPL_NATIVE(str_title)
{
    bt_tpl_builder builder;
    bt_tpl_build(run, &builder);
    builder.markup = self.str->markup;
    bool within = false;
    for (size_t at = 0, bytes; at < self.str->bytes; at += bytes) {
        uint32_t code = bt_tpl_char_at(self.str, at, &bytes);
        if (!bt_tpl_put_case(run, &builder, self.str, at, at + bytes,
                             within ? BT_TPL_LOWER : BT_TPL_TITLE))
            return false;
        within = is_cased(code);
    }
    return bt_tpl_built(run, &builder, ret);
}

/* What a string is made of. */

typedef enum { ALPHA, ALNUM, DIGIT, DECIMAL, NUMERIC, SPACE } class_kind;

static bool in_class(uint32_t code, class_kind kind)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    bool alpha = category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
    bool decimal = category == UTF8PROC_CATEGORY_ND;
    bool superscript = code == 0xB2 || code == 0xB3 || code == 0xB9 || code == 0x2070 ||
                       (code >= 0x2074 && code <= 0x2079) || (code >= 0x2080 && code <= 0x2089);
    bool numeric = decimal || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
    switch (kind) {
    case ALPHA: return alpha;
    case ALNUM: return alpha || numeric;
    case DECIMAL: return decimal;
    case DIGIT: return decimal || superscript;
    case NUMERIC: return numeric;
    case SPACE: return bt_tpl_is_space(code);
    }
    return false;
}

static bool all_in_class(bt_tpl_run *run, bt_tpl_value self, class_kind kind, bt_tpl_value *ret)
{
    bool all = self.str->bytes > 0;
    for (size_t at = 0, bytes; all && at < self.str->bytes; at += bytes)
        all = in_class(bt_tpl_char_at(self.str, at, &bytes), kind);
    *ret = BT_TPL_V_BOOL(all);
    return bt_tpl_steps_bytes(run, 8 * self.str->bytes);
}

BT_TPL_NATIVE(str_isalpha)
{
    return all_in_class(run, self, ALPHA, ret);
}

BT_TPL_NATIVE(str_isalnum)
{
    return all_in_class(run, self, ALNUM, ret);
}

BT_TPL_NATIVE(str_isdigit)
{
    return all_in_class(run, self, DIGIT, ret);
}

BT_TPL_NATIVE(str_isdecimal)
{
    return all_in_class(run, self, DECIMAL, ret);
}

BT_TPL_NATIVE(str_isnumeric)
{
    return all_in_class(run, self, NUMERIC, ret);
}

BT_TPL_NATIVE(str_isspace)
{
    return all_in_class(run, self, SPACE, ret);
}

BT_TPL_NATIVE(str_isascii)
{
    *ret = BT_TPL_V_BOOL(bt_tpl_chars(self.str) == self.str->bytes);
    return true;
}

/* Some letter has a case, and none has the other one. */
static bool all_one_case(bt_tpl_value self, bool upper, bt_tpl_value *ret)
{
    bool some = false, other = false;
    for (size_t at = 0, bytes; at < self.str->bytes; at += bytes) {
        utf8proc_int32_t code = (utf8proc_int32_t)bt_tpl_char_at(self.str, at, &bytes);
        utf8proc_category_t category = utf8proc_category(code);
        bool is_upper = category == UTF8PROC_CATEGORY_LU ||
                        (category != UTF8PROC_CATEGORY_LT && utf8proc_tolower(code) != code);
        bool is_lower = category == UTF8PROC_CATEGORY_LL ||
                        (category != UTF8PROC_CATEGORY_LT && utf8proc_toupper(code) != code);
        bool is_title = category == UTF8PROC_CATEGORY_LT;
        some |= upper ? is_upper : is_lower;
        other |= is_title || (upper ? is_lower : is_upper);
    }
    *ret = BT_TPL_V_BOOL(some && !other);
    return true;
}

BT_TPL_NATIVE(str_isupper)
{
    return bt_tpl_steps_bytes(run, 8 * self.str->bytes) && all_one_case(self, true, ret);
}

BT_TPL_NATIVE(str_islower)
{
    return bt_tpl_steps_bytes(run, 8 * self.str->bytes) && all_one_case(self, false, ret);
}

/* Padding. */

static bool pad(bt_tpl_run *run, bt_tpl_value self, const bt_tpl_value *args, int side,
                bt_tpl_value *ret)
{
    bt_tpl_str space = {.data = " ", .bytes = 1, .chars = 1}, *fill = &space;
    int64_t width, chars = (int64_t)bt_tpl_chars(self.str);
    if (!bt_tpl_arg_int(run, args[0], 0, &width)) return false;
    if (args[1].type != BT_TPL_MISSING && !bt_tpl_arg_str(run, args[1], &fill)) return false;
    if (bt_tpl_chars(fill) != 1)
        return BT_TPL_RAISE(run, "the fill character must be exactly one character long");
    size_t missing = width > chars ? (size_t)(width - chars) : 0;
    /* CPython's centre: the odd one goes left if both the gap and the width are odd. */
    size_t left = side < 0 ? 0 : side > 0 ? missing : missing / 2 + (missing & (size_t)width & 1);
    bt_tpl_builder builder;
    bt_tpl_build(run, &builder);
    builder.markup = self.str->markup;
    return bt_tpl_put_repeat(run, &builder, fill, left) &&
           bt_tpl_put_str(run, &builder, self.str) &&
           bt_tpl_put_repeat(run, &builder, fill, missing - left) &&
           bt_tpl_built(run, &builder, ret);
}

BT_TPL_NATIVE(str_ljust)
{
    return pad(run, self, args, -1, ret);
}

BT_TPL_NATIVE(str_rjust)
{
    return pad(run, self, args, 1, ret);
}

BT_TPL_NATIVE(str_center)
{
    return pad(run, self, args, 0, ret);
}

BT_TPL_NATIVE(str_zfill)
{
    bt_tpl_str zero = {.data = "0", .bytes = 1, .chars = 1};
    int64_t width, chars = (int64_t)bt_tpl_chars(self.str);
    if (!bt_tpl_arg_int(run, args[0], 0, &width)) return false;
    size_t sign = self.str->bytes > 0 && (self.str->data[0] == '+' || self.str->data[0] == '-');
    bt_tpl_builder builder;
    bt_tpl_build(run, &builder);
    return bt_tpl_put_slice(run, &builder, self.str, 0, sign) &&
           bt_tpl_put_repeat(run, &builder, &zero, width > chars ? (size_t)(width - chars) : 0) &&
           bt_tpl_put_slice(run, &builder, self.str, sign, self.str->bytes) &&
           bt_tpl_built(run, &builder, ret);
}

BT_TPL_NATIVE(str_format)
{
    return bt_tpl_str_format(run, self.str, rest, ret);
}

static const bt_tpl_native methods[] = {
    {"strip", "/chars=", str_strip},
    {"lstrip", "/chars=", str_lstrip},
    {"rstrip", "/chars=", str_rstrip},
    {"removeprefix", "/prefix", str_removeprefix},
    {"removesuffix", "/suffix", str_removesuffix},
    {"split", "sep=,maxsplit=", str_split},
    {"rsplit", "sep=,maxsplit=", str_rsplit},
    {"splitlines", "keepends=", str_splitlines},
    {"partition", "/sep", str_partition},
    {"rpartition", "/sep", str_rpartition},
    {"join", "/iterable", str_join},
    {"find", "/sub,start=,end=", str_find},
    {"rfind", "/sub,start=,end=", str_rfind},
    {"index", "/sub,start=,end=", str_index},
    {"rindex", "/sub,start=,end=", str_rindex},
    {"count", "/sub,start=,end=", str_count},
    {"startswith", "/prefix,start=,end=", str_startswith},
    {"endswith", "/suffix,start=,end=", str_endswith},
    {"replace", "/old,new,count=", str_replace},
    {"upper", "", str_upper},
    {"lower", "", str_lower},
    {"swapcase", "", str_swapcase},
    {"capitalize", "", str_capitalize},
    {"title", "", str_title},
    {"isalpha", "", str_isalpha},
    {"isalnum", "", str_isalnum},
    {"isdigit", "", str_isdigit},
    {"isdecimal", "", str_isdecimal},
    {"isnumeric", "", str_isnumeric},
    {"isspace", "", str_isspace},
    {"isascii", "", str_isascii},
    {"isupper", "", str_isupper},
    {"islower", "", str_islower},
    {"ljust", "/width,fill=", str_ljust},
    {"rjust", "/width,fill=", str_rjust},
    {"center", "/width,fill=", str_center},
    {"zfill", "/width", str_zfill},
    {"format", "*", str_format},
};

const bt_tpl_native *bt_tpl_str_method(const char *name, size_t bytes)
{
    return bt_tpl_native_find(methods, sizeof(methods) / sizeof(methods[0]), name, bytes);
}
