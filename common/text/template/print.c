/* print.c - Python's str() and repr(). */
#include "common/text/template/eval.h"
#include "common/text/template/native.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* The fewest digits that read back as the same number, as in Python: an exponent if it is below -4
 * or above 15. */
size_t bt_tpl_float_text(double value, char ret_text[32])
{
    if (isnan(value)) return (size_t)sprintf(ret_text, "nan");
    if (isinf(value)) return (size_t)sprintf(ret_text, value < 0 ? "-inf" : "inf");
    char digits[40];
    int precision = 0;
    do {
        snprintf(digits, sizeof(digits), "%.*e", precision, value);
    } while (strtod(digits, NULL) != value && ++precision < 17);
    int exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        char *mark = strchr(digits, 'e');
        *mark = '\0';
        return (size_t)snprintf(ret_text, 32, "%.20se%c%02d", digits, exponent < 0 ? '-' : '+',
                                abs(exponent));
    }
    int decimals = precision - exponent;
    return (size_t)snprintf(ret_text, 32, "%.*f", decimals < 1 ? 1 : decimals, value);
}

static bool put_number(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value)
{
    char text[32];
    size_t bytes = value.type == BT_TPL_INT
                       ? (size_t)snprintf(text, sizeof(text), "%lld", (long long)value.number)
                       : bt_tpl_float_text(value.real, text);
    return bt_tpl_put(run, builder, text, bytes, false);
}

static bool printable(uint32_t code)
{
    if (code < 0x7F) return code >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

/* One character of a repr between quotes. */
static size_t repr_char(uint32_t code, char quote, char ret_text[16])
{
    switch (code) {
    case '\n': return (size_t)sprintf(ret_text, "\\n");
    case '\r': return (size_t)sprintf(ret_text, "\\r");
    case '\t': return (size_t)sprintf(ret_text, "\\t");
    case '\\': return (size_t)sprintf(ret_text, "\\\\");
    default: break;
    }
    if (code == (uint32_t)quote) return (size_t)sprintf(ret_text, "\\%c", quote);
    if (printable(code)) return 0;
    if (code < 0x100) return (size_t)sprintf(ret_text, "\\x%02x", code);
    if (code < 0x10000) return (size_t)sprintf(ret_text, "\\u%04x", code);
    return (size_t)sprintf(ret_text, "\\U%08x", code);
}

static bool repr_str(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_str *str)
{
    bool single = memchr(str->data, '\'', str->bytes) != NULL;
    bool twice = memchr(str->data, '"', str->bytes) != NULL;
    const char quote[2] = {single && !twice ? '"' : '\'', '\0'};
    if (str->markup && !bt_tpl_put_text(run, builder, "Markup(")) return false;
    if (!bt_tpl_put_text(run, builder, quote)) return false;
    bt_tpl_marks marks = {.str = str};
    size_t plain = 0, at = 0, bytes;
    for (; at < str->bytes; at += bytes) {
        char text[16];
        size_t count = repr_char(bt_tpl_char_at(str, at, &bytes), quote[0], text);
        if (count == 0) continue;
        if (!bt_tpl_put_slice(run, builder, str, plain, at) ||
            !bt_tpl_put(run, builder, text, count, bt_tpl_marked(&marks, at)))
            return false;
        plain = at + bytes;
    }
    return bt_tpl_put_slice(run, builder, str, plain, at) && bt_tpl_put_text(run, builder, quote) &&
           (!str->markup || bt_tpl_put_text(run, builder, ")"));
}

static bool repr_items(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_list *list,
                       const char *open, const char *close)
{
    if (!bt_tpl_put_text(run, builder, open)) return false;
    for (size_t i = 0; i < list->count; i++) {
        if ((i > 0 && !bt_tpl_put_text(run, builder, ", ")) ||
            !bt_tpl_repr(run, builder, list->items[i]))
            return false;
    }
    return bt_tpl_put_text(run, builder, close);
}

static bool repr_dict(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_dict *dict)
{
    if (!bt_tpl_put_text(run, builder, "{")) return false;
    for (size_t i = 0; i < dict->count; i++) {
        if ((i > 0 && !bt_tpl_put_text(run, builder, ", ")) ||
            !bt_tpl_repr(run, builder, dict->entries[i].key) ||
            !bt_tpl_put_text(run, builder, ": ") ||
            !bt_tpl_repr(run, builder, dict->entries[i].value))
            return false;
    }
    return bt_tpl_put_text(run, builder, "}");
}

static bool repr_view(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value view)
{
    bt_tpl_list *list;
    return bt_tpl_walk(run, view, &list) && bt_tpl_put_text(run, builder, bt_tpl_type_name(view)) &&
           repr_items(run, builder, list, "([", "])");
}

static bool repr_range(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_range *range)
{
    char text[96];
    int bytes = snprintf(text, sizeof(text), "range(%lld, %lld", (long long)range->start,
                         (long long)range->stop);
    if (range->step != 1)
        bytes +=
            snprintf(text + bytes, sizeof(text) - (size_t)bytes, ", %lld", (long long)range->step);
    return bt_tpl_put(run, builder, text, (size_t)bytes, false) &&
           bt_tpl_put_text(run, builder, ")");
}

static bool repr_macro(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_macro *macro)
{
    if (macro->name == NULL) return bt_tpl_put_text(run, builder, "<Macro anonymous>");
    return bt_tpl_put_text(run, builder, "<Macro ") && repr_str(run, builder, macro->name) &&
           bt_tpl_put_text(run, builder, ">");
}

static bool repr_loop(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_loop *loop)
{
    char text[80];
    int bytes = snprintf(text, sizeof(text), "<LoopContext %zu/%zu>", loop->index + 1, loop->count);
    return bt_tpl_put(run, builder, text, (size_t)bytes, false);
}

/* Python shows an address in these; we have none to show. */
static bool repr_object(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value)
{
    char text[160];
    int bytes;
    if (value.type == BT_TPL_METHOD)
        bytes = snprintf(text, sizeof(text), "<built-in method %s of %s object>",
                         value.method->native->name, bt_tpl_type_name(value.method->self));
    else if (value.type == BT_TPL_FUNCTION)
        bytes = snprintf(text, sizeof(text), "<function %s>", value.function->name);
    else if (value.type == BT_TPL_ITERATOR)
        bytes = snprintf(text, sizeof(text), "<%s object>", value.iterator->repr);
    else
        bytes = snprintf(text, sizeof(text), "<%s object>", bt_tpl_type_name(value));
    return bt_tpl_put(run, builder, text, (size_t)bytes, false);
}

static bool repr_nested(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value)
{
    switch (value.type) {
    case BT_TPL_LIST: return repr_items(run, builder, value.list, "[", "]");
    case BT_TPL_TUPLE:
        return repr_items(run, builder, value.list, "(", value.list->count == 1 ? ",)" : ")");
    case BT_TPL_DICT: return repr_dict(run, builder, value.dict);
    case BT_TPL_VIEW: return repr_view(run, builder, value);
    default:
        return bt_tpl_put_text(run, builder, "<Namespace ") &&
               repr_dict(run, builder, value.dict) && bt_tpl_put_text(run, builder, ">");
    }
}

bool bt_tpl_repr(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value)
{
    if (!bt_tpl_steps(run, 1)) return false;
    switch (value.type) {
    case BT_TPL_MISSING: return bt_tpl_put_text(run, builder, "missing");
    case BT_TPL_UNDEFINED: return bt_tpl_put_text(run, builder, "Undefined");
    case BT_TPL_NONE: return bt_tpl_put_text(run, builder, "None");
    case BT_TPL_BOOL: return bt_tpl_put_text(run, builder, value.flag ? "True" : "False");
    case BT_TPL_INT:
    case BT_TPL_FLOAT: return put_number(run, builder, value);
    case BT_TPL_STR: return repr_str(run, builder, value.str);
    case BT_TPL_RANGE: return repr_range(run, builder, value.range);
    case BT_TPL_MACRO: return repr_macro(run, builder, value.macro);
    case BT_TPL_LOOP: return repr_loop(run, builder, value.loop);
    case BT_TPL_LIST:
    case BT_TPL_TUPLE:
    case BT_TPL_DICT:
    case BT_TPL_VIEW:
    case BT_TPL_NAMESPACE: {
        bool fine = bt_tpl_enter(run) && repr_nested(run, builder, value);
        if (fine) bt_tpl_leave(run);
        return fine;
    }
    default: return repr_object(run, builder, value);
    }
}

bool bt_tpl_print(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value)
{
    if (value.type == BT_TPL_STR) return bt_tpl_put_str(run, builder, value.str);
    if (value.type == BT_TPL_UNDEFINED) return true;
    return bt_tpl_repr(run, builder, value);
}
