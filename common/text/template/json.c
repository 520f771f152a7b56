/* json.c - Python's json.dumps. */
#include "common/text/template/native.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static size_t escaped(uint32_t code, bool ascii, char ret_text[16])
{
    static const struct {
        char code;
        const char *text;
    } rows[] = {{'"', "\\\""}, {'\\', "\\\\"}, {'\n', "\\n"}, {'\r', "\\r"},
                {'\t', "\\t"}, {'\b', "\\b"},  {'\f', "\\f"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (code == (uint32_t)rows[i].code) return (size_t)sprintf(ret_text, "%s", rows[i].text);
    }
    if (code >= 0x20 && (!ascii || code < 0x7F)) return 0;
    if (code == 0x7F) return 0;
    if (code < 0x10000) return (size_t)sprintf(ret_text, "\\u%04x", code);
    code -= 0x10000;
    return (size_t)sprintf(ret_text, "\\u%04x\\u%04x", 0xD800 + (code >> 10),
                           0xDC00 + (code & 0x3FF));
}

static bool put_string(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_str *str, bool ascii)
{
    bt_tpl_marks marks = {.str = str};
    size_t plain = 0, at = 0, bytes;
    if (!bt_tpl_put_text(run, builder, "\"")) return false;
    for (; at < str->bytes; at += bytes) {
        char text[16];
        size_t count = escaped(bt_tpl_char_at(str, at, &bytes), ascii, text);
        if (count == 0) continue;
        if (!bt_tpl_put_slice(run, builder, str, plain, at) ||
            !bt_tpl_put(run, builder, text, count, bt_tpl_marked(&marks, at)))
            return false;
        plain = at + bytes;
    }
    return bt_tpl_put_slice(run, builder, str, plain, at) && bt_tpl_put_text(run, builder, "\"");
}

static bool put_number(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value)
{
    char text[32];
    if (value.type == BT_TPL_INT) {
        size_t bytes = (size_t)snprintf(text, sizeof(text), "%lld", (long long)value.number);
        return bt_tpl_put(run, builder, text, bytes, false);
    }
    if (isnan(value.real)) return bt_tpl_put_text(run, builder, "NaN");
    if (isinf(value.real))
        return bt_tpl_put_text(run, builder, value.real < 0 ? "-Infinity" : "Infinity");
    return bt_tpl_put(run, builder, text, bt_tpl_float_text(value.real, text), false);
}

static bool put_newline(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_json_style *style,
                        unsigned level)
{
    if (!style->pretty) return true;
    return bt_tpl_put_text(run, builder, "\n") &&
           bt_tpl_put_repeat(run, builder, style->indent, level);
}

static bool put_between(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_json_style *style)
{
    if (style->item_separator != NULL) return bt_tpl_put_str(run, builder, style->item_separator);
    return bt_tpl_put_text(run, builder, style->pretty ? "," : ", ");
}

static bool put_list(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_list *list,
                     const bt_tpl_json_style *style, unsigned level)
{
    if (list->count == 0) return bt_tpl_put_text(run, builder, "[]");
    if (!bt_tpl_put_text(run, builder, "[")) return false;
    for (size_t i = 0; i < list->count; i++) {
        if ((i > 0 && !put_between(run, builder, style)) ||
            !put_newline(run, builder, style, level + 1) ||
            !bt_tpl_json(run, builder, list->items[i], style, level + 1))
            return false;
    }
    return put_newline(run, builder, style, level) && bt_tpl_put_text(run, builder, "]");
}

static bool put_key(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value key,
                    const bt_tpl_json_style *style)
{
    if (key.type == BT_TPL_STR) return put_string(run, builder, key.str, style->ascii);
    if (key.type > BT_TPL_STR || key.type < BT_TPL_NONE)
        return BT_TPL_RAISE(run, "keys must be str, int, float, bool or None, not %s",
                            bt_tpl_type_name(key));
    return bt_tpl_put_text(run, builder, "\"") && bt_tpl_json(run, builder, key, style, 0) &&
           bt_tpl_put_text(run, builder, "\"");
}

/* sorted() of the keys: an order of entries, or a failure where Python cannot compare them. */
typedef struct {
    bt_tpl_run *run;
    const bt_tpl_entry *entries;
} key_order;

static int by_key(const void *left, const void *right, void *context)
{
    const key_order *order = context;
    int result = 0;
    bt_tpl_compare(order->run, order->entries[*(const uint32_t *)left].key,
                   order->entries[*(const uint32_t *)right].key, "<", &result);
    return result;
}

static bool sorted_keys(bt_tpl_run *run, const bt_tpl_dict *dict, uint32_t **ret_order)
{
    uint32_t *order = bt_tpl_take(run, dict->count, sizeof(order[0]));
    if (order == NULL) return false;
    for (size_t i = 0; i < dict->count; i++) order[i] = (uint32_t)i;
    key_order context = {.run = run, .entries = dict->entries};
    qsort_r(order, dict->count, sizeof(order[0]), by_key, &context);
    *ret_order = order;
    return run->status == BT_OK;
}

static bool put_dict(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_dict *dict,
                     const bt_tpl_json_style *style, unsigned level)
{
    uint32_t *order = NULL;
    if (dict->count == 0) return bt_tpl_put_text(run, builder, "{}");
    if (style->sort_keys && !sorted_keys(run, dict, &order)) return false;
    if (!bt_tpl_put_text(run, builder, "{")) return false;
    for (size_t i = 0; i < dict->count; i++) {
        const bt_tpl_entry *entry = &dict->entries[order != NULL ? order[i] : i];
        if ((i > 0 && !put_between(run, builder, style)) ||
            !put_newline(run, builder, style, level + 1) ||
            !put_key(run, builder, entry->key, style) ||
            !(style->key_separator != NULL ? bt_tpl_put_str(run, builder, style->key_separator)
                                           : bt_tpl_put_text(run, builder, ": ")) ||
            !bt_tpl_json(run, builder, entry->value, style, level + 1))
            return false;
    }
    return put_newline(run, builder, style, level) && bt_tpl_put_text(run, builder, "}");
}

bool bt_tpl_json(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value,
                 const bt_tpl_json_style *style, unsigned level)
{
    bool fine;
    if (!bt_tpl_steps(run, 1)) return false;
    switch (value.type) {
    case BT_TPL_NONE: return bt_tpl_put_text(run, builder, "null");
    case BT_TPL_BOOL: return bt_tpl_put_text(run, builder, value.flag ? "true" : "false");
    case BT_TPL_INT:
    case BT_TPL_FLOAT: return put_number(run, builder, value);
    case BT_TPL_STR: return put_string(run, builder, value.str, style->ascii);
    case BT_TPL_LIST:
    case BT_TPL_TUPLE:
    case BT_TPL_DICT: break;
    default:
        return BT_TPL_RAISE(run, "Object of type %s is not JSON serializable",
                            bt_tpl_type_name(value));
    }
    if (!bt_tpl_enter(run)) return false;
    fine = value.type == BT_TPL_DICT ? put_dict(run, builder, value.dict, style, level)
                                     : put_list(run, builder, value.list, style, level);
    bt_tpl_leave(run);
    return fine;
}
