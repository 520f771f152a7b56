/* format.c - "…" % values and "…".format(…). */
#include "common/text/template/native.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH_MAX 100000
#define PRECISION_MAX 100

/* How one value is written. */
typedef struct {
    bool left, plus, space, alternate, zero, comma;
    char align;           /* of format(): <, >, ^, =, or 0 */
    bt_tpl_str fill;      /* one character */
    int width, precision; /* -1: none */
    char type;
} spec;

static const spec no_spec = {
    .fill = {.data = " ", .bytes = 1, .chars = 1}, .width = -1, .precision = -1};

/* text, of which the first `head` bytes are a sign or prefix, padded to the width. */
static bool put_padded(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_str *text, size_t head,
                       const spec *how)
{
    size_t chars = bt_tpl_chars(text);
    size_t missing = how->width > 0 && (size_t)how->width > chars ? (size_t)how->width - chars : 0;
    size_t before = how->align == '<' ? 0 : how->align == '^' ? missing / 2 : missing;
    if (how->align == '=') {
        return bt_tpl_put_slice(run, builder, text, 0, head) &&
               bt_tpl_put_repeat(run, builder, &how->fill, missing) &&
               bt_tpl_put_slice(run, builder, text, head, text->bytes);
    }
    return bt_tpl_put_repeat(run, builder, &how->fill, before) &&
           bt_tpl_put_str(run, builder, text) &&
           bt_tpl_put_repeat(run, builder, &how->fill, missing - before);
}

static bool put_text(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_str *str, const spec *how)
{
    bt_tpl_value cut = BT_TPL_V_STR(str);
    if (how->precision >= 0 &&
        !bt_tpl_str_slice(run, str, 0, bt_tpl_char_offset(str, (size_t)how->precision), &cut))
        return false;
    return put_padded(run, builder, cut.str, 0, how);
}

/* Commas between thousands, in place; the digits begin at head. */
static size_t add_commas(char *text, size_t head, size_t room)
{
    size_t digits = strspn(text + head, "0123456789"), commas = digits > 0 ? (digits - 1) / 3 : 0;
    size_t bytes = strlen(text);
    if (bytes + commas + 1 > room) return bytes;
    memmove(text + head + digits + commas, text + head + digits, bytes - head - digits + 1);
    for (size_t from = digits, to = digits + commas, since = 0; commas > 0; since++) {
        if (since == 3) {
            text[head + --to] = ',';
            since = 0;
            if (--commas == 0) break;
        }
        text[head + --to] = text[head + --from];
    }
    return strlen(text);
}

static bool put_digits(bt_tpl_run *run, bt_tpl_builder *builder, char *text, size_t room,
                       bool negative, const char *prefix, const spec *how)
{
    char whole[512];
    const char *sign = negative ? "-" : how->plus ? "+" : how->space ? " " : "";
    size_t head = strlen(sign) + strlen(prefix);
    if (how->comma) add_commas(text, 0, room);
    int bytes = snprintf(whole, sizeof(whole), "%s%s%s", sign, prefix, text);
    bt_tpl_str str = {.data = whole, .bytes = (size_t)bytes, .chars = (size_t)bytes};
    return put_padded(run, builder, &str, head, how);
}

static bool put_int(bt_tpl_run *run, bt_tpl_builder *builder, int64_t number, const spec *how)
{
    char text[160];
    uint64_t size = number < 0 ? -(uint64_t)number : (uint64_t)number;
    const char *prefix = "";
    if (how->type == 'x' || how->type == 'X') {
        snprintf(text, sizeof(text), how->type == 'x' ? "%llx" : "%llX", (unsigned long long)size);
        if (how->alternate) prefix = how->type == 'x' ? "0x" : "0X";
    } else if (how->type == 'o') {
        snprintf(text, sizeof(text), "%llo", (unsigned long long)size);
        if (how->alternate) prefix = "0o";
    } else if (how->type == 'b') {
        size_t bits = 0;
        for (int i = 63; i >= 0; i--) {
            if (bits > 0 || i == 0 || (size >> i & 1) != 0)
                text[bits++] = (char)('0' + (size >> i & 1));
        }
        text[bits] = '\0';
        if (how->alternate) prefix = "0b";
    } else {
        int digits = how->precision > 0 && how->precision <= PRECISION_MAX ? how->precision : 1;
        snprintf(text, sizeof(text), "%0*llu", digits, (unsigned long long)size);
    }
    return put_digits(run, builder, text, sizeof(text), number < 0, prefix, how);
}

static bool put_real(bt_tpl_run *run, bt_tpl_builder *builder, double real, const spec *how)
{
    char text[480], format[8];
    bool percent = how->type == '%';
    double size = fabs(real) * (percent ? 100 : 1);
    int precision = how->precision < 0 ? 6 : how->precision;
    if (isnan(real) || isinf(real)) {
        snprintf(text, sizeof(text), "%s", isnan(real) ? "nan" : "inf");
    } else if (how->type == '\0') {
        if (how->precision >= 0)
            snprintf(text, sizeof(text), "%.*g", precision, size);
        else
            bt_tpl_float_text(size, text);
    } else {
        snprintf(format, sizeof(format), how->alternate ? "%%#.*%c" : "%%.*%c",
                 percent ? 'f' : how->type);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof(text), format, precision, size);
#pragma GCC diagnostic pop
        if (percent) strcat(text, "%");
    }
    return put_digits(run, builder, text, sizeof(text), signbit(real) && !isnan(real), "", how);
}

static bool number_wanted(bt_tpl_run *run, const spec *how, bt_tpl_value value)
{
    return BT_TPL_RAISE(run, "%%%c format: a number is required, not %s", how->type,
                        bt_tpl_type_name(value));
}

/* % formatting. */

typedef struct {
    const bt_tpl_str *format;
    size_t at;
    bt_tpl_value values;
    size_t next; /* of a tuple */
    bool named;
} percent;

static bool next_value(bt_tpl_run *run, percent *state, bt_tpl_value *ret)
{
    bool tuple = state->values.type == BT_TPL_TUPLE;
    size_t count = tuple ? state->values.list->count : 1;
    if (state->next >= count) return BT_TPL_RAISE(run, "not enough arguments for format string");
    *ret = tuple ? state->values.list->items[state->next] : state->values;
    state->next++;
    return true;
}

static char peek(const percent *state)
{
    return state->at < state->format->bytes ? state->format->data[state->at] : '\0';
}

static bool read_number(bt_tpl_run *run, percent *state, int most, int *ret_number)
{
    if (peek(state) == '*') {
        bt_tpl_value value;
        int64_t number;
        state->at++;
        if (!next_value(run, state, &value) || !bt_tpl_arg_int(run, value, 0, &number))
            return false;
        *ret_number = number < 0 ? 0 : number > most ? most : (int)number;
        return true;
    }
    int number = -1;
    while (peek(state) >= '0' && peek(state) <= '9') {
        number = (number < 0 ? 0 : number) * 10 + state->format->data[state->at++] - '0';
        if (number > most) return bt_tpl_fail(run, BT_ERR_LIMIT, "a format is too wide");
    }
    *ret_number = number;
    return true;
}

static bool read_percent_spec(bt_tpl_run *run, percent *state, spec *how)
{
    for (;; state->at++) {
        char flag = peek(state);
        if (flag == '-')
            how->left = true;
        else if (flag == '+')
            how->plus = true;
        else if (flag == ' ')
            how->space = true;
        else if (flag == '#')
            how->alternate = true;
        else if (flag == '0')
            how->zero = true;
        else
            break;
    }
    if (!read_number(run, state, WIDTH_MAX, &how->width)) return false;
    if (peek(state) == '.') {
        state->at++;
        if (!read_number(run, state, PRECISION_MAX, &how->precision)) return false;
        if (how->precision < 0) how->precision = 0;
    }
    while (peek(state) == 'l' || peek(state) == 'h' || peek(state) == 'L') state->at++;
    how->type = peek(state);
    if (how->type == '\0') return BT_TPL_RAISE(run, "incomplete format");
    state->at++;
    how->align = how->left ? '<' : '>';
    if (how->zero && !how->left && strchr("diuoxXeEfFgG", how->type) != NULL) {
        how->align = '=';
        how->fill.data = "0";
    }
    return true;
}

static bool percent_number(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value, spec *how)
{
    double real;
    int64_t number;
    if (strchr("eEfFgG", how->type) != NULL) {
        if (!bt_tpl_as_real(value, &real))
            return BT_TPL_RAISE(run, "must be real number, not %s", bt_tpl_type_name(value));
        return put_real(run, builder, real, how);
    }
    bool decimal = strchr("diu", how->type) != NULL;
    if (!bt_tpl_as_int(value, &number)) {
        if (!decimal || value.type != BT_TPL_FLOAT) return number_wanted(run, how, value);
        if (!(fabs(value.real) < 9.2e18))
            return bt_tpl_fail(run, BT_ERR_LIMIT, "an integer does not fit into 64 bits");
        number = (int64_t)value.real;
    }
    if (decimal) how->type = 'd';
    return put_int(run, builder, number, how);
}

static bool put_percent(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value, spec *how)
{
    bt_tpl_builder text;
    bt_tpl_value made;
    int64_t code;
    switch (how->type) {
    case 's':
    case 'r':
    case 'a':
        bt_tpl_build(run, &text);
        return (how->type == 's' ? bt_tpl_print(run, &text, value)
                                 : bt_tpl_repr(run, &text, value)) &&
               bt_tpl_built(run, &text, &made) && put_text(run, builder, made.str, how);
    case 'c':
        if (value.type == BT_TPL_STR && bt_tpl_chars(value.str) == 1)
            return put_padded(run, builder, value.str, 0, how);
        if (!bt_tpl_as_int(value, &code) || code < 0 || code > 0x10FFFF ||
            (code >= 0xD800 && code <= 0xDFFF))
            return BT_TPL_RAISE(run, "%%c requires int or char");
        bt_tpl_build(run, &text);
        return bt_tpl_put_code(run, &text, (uint32_t)code, false) &&
               bt_tpl_built(run, &text, &made) && put_padded(run, builder, made.str, 0, how);
    case 'd':
    case 'i':
    case 'u':
    case 'o':
    case 'x':
    case 'X':
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G': return percent_number(run, builder, value, how);
    default: return BT_TPL_RAISE(run, "unsupported format character '%c'", how->type);
    }
}

/* The value of "%(name)…". */
static bool named_value(bt_tpl_run *run, percent *state, bt_tpl_value *ret)
{
    const bt_tpl_str *format = state->format;
    size_t first = ++state->at;
    int depth = 1;
    while (state->at < format->bytes && depth > 0) {
        char byte = format->data[state->at++];
        depth += (byte == '(') - (byte == ')');
    }
    if (depth > 0) return BT_TPL_RAISE(run, "incomplete format key");
    if (state->values.type != BT_TPL_DICT) return BT_TPL_RAISE(run, "format requires a mapping");
    state->named = true;
    bt_tpl_value key;
    if (!bt_tpl_str_slice(run, format, first, state->at - 1, &key) ||
        !bt_tpl_dict_get(run, state->values.dict, key, ret))
        return false;
    return ret->type != BT_TPL_MISSING || BT_TPL_RAISE(run, "a key of the format is not there");
}

bool bt_tpl_percent(bt_tpl_run *run, const bt_tpl_str *format, bt_tpl_value values,
                    bt_tpl_value *ret)
{
    percent state = {.format = format, .values = values};
    bt_tpl_builder builder;
    bt_tpl_build(run, &builder);
    while (state.at < format->bytes) {
        const char *mark = memchr(format->data + state.at, '%', format->bytes - state.at);
        size_t end = mark != NULL ? (size_t)(mark - format->data) : format->bytes;
        if (!bt_tpl_put_slice(run, &builder, format, state.at, end)) return false;
        state.at = end + 1;
        if (mark == NULL) break;
        spec how = no_spec;
        bt_tpl_value value = {.type = BT_TPL_MISSING};
        if (peek(&state) == '(' && !named_value(run, &state, &value)) return false;
        if (!read_percent_spec(run, &state, &how)) return false;
        if (how.type == '%') {
            if (!bt_tpl_put_text(run, &builder, "%")) return false;
            continue;
        }
        if (value.type == BT_TPL_MISSING && !next_value(run, &state, &value)) return false;
        if (!bt_tpl_steps(run, 1) || !put_percent(run, &builder, value, &how)) return false;
    }
    bool tuple = values.type == BT_TPL_TUPLE;
    /* What has a [] is a mapping to Python, which then does not ask for all of it. */
    bool mapping = values.type == BT_TPL_DICT || values.type == BT_TPL_LIST ||
                   values.type == BT_TPL_RANGE || values.type == BT_TPL_UNDEFINED;
    if (!mapping && state.next < (tuple ? values.list->count : 1))
        return BT_TPL_RAISE(run, "not all arguments converted during string formatting");
    return bt_tpl_built(run, &builder, ret);
}

/* str.format. */

static bool read_spec(bt_tpl_run *run, const char *text, size_t bytes, spec *how)
{
    bt_tpl_str whole = {.data = text, .bytes = bytes};
    percent state = {.format = &whole};
    size_t fill = 0;
    if (bytes > 0) bt_tpl_char_at(&whole, 0, &fill);
    if (bytes > fill && fill > 0 && strchr("<>^=", text[fill]) != NULL && text[fill] != '\0') {
        how->fill = (bt_tpl_str){.data = text, .bytes = fill, .chars = 1};
        how->align = text[fill];
        state.at = fill + 1;
    } else if (bytes > 0 && text[0] != '\0' && strchr("<>^=", text[0]) != NULL) {
        how->align = text[0];
        state.at = 1;
    }
    if (peek(&state) == '+' || peek(&state) == '-' || peek(&state) == ' ') {
        how->plus = peek(&state) == '+';
        how->space = peek(&state) == ' ';
        state.at++;
    }
    if (peek(&state) == '#') {
        how->alternate = true;
        state.at++;
    }
    if (peek(&state) == '0') {
        state.at++;
        if (how->align == '\0') {
            how->align = '=';
            how->fill = (bt_tpl_str){.data = "0", .bytes = 1, .chars = 1};
        }
    }
    if (peek(&state) == '*' || !read_number(run, &state, WIDTH_MAX, &how->width)) return false;
    if (peek(&state) == ',') {
        how->comma = true;
        state.at++;
    }
    if (peek(&state) == '.') {
        state.at++;
        if (peek(&state) == '*' || !read_number(run, &state, PRECISION_MAX, &how->precision))
            return BT_TPL_RAISE(run, "invalid format specifier");
    }
    if (state.at < bytes) how->type = text[state.at++];
    return state.at == bytes || BT_TPL_RAISE(run, "invalid format specifier");
}

static bool put_formatted(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value, spec *how,
                          bool plain)
{
    bt_tpl_str *text;
    int64_t number;
    double real;
    bool text_type = how->type == '\0' || how->type == 's';
    if (plain) return bt_tpl_print(run, builder, value);
    if (value.type == BT_TPL_STR) {
        if (!text_type || how->align == '=')
            return BT_TPL_RAISE(run, "Unknown format code '%c' for object of type 'str'",
                                how->type);
        if (how->align == '\0') how->align = '<';
        return put_text(run, builder, value.str, how);
    }
    if (how->align == '\0') how->align = '>';
    bool integer = bt_tpl_as_int(value, &number);
    if (integer && how->precision < 0 && strchr("dxXob", how->type) != NULL)
        return put_int(run, builder, number, how);
    if (bt_tpl_as_real(value, &real) && strchr("eEfFgG%", how->type) != NULL &&
        !(integer && how->type == '\0'))
        return put_real(run, builder, real, how);
    if (!text_type || !bt_tpl_to_str(run, value, &text))
        return BT_TPL_RAISE(run, "unsupported format string passed to %s.__format__",
                            bt_tpl_type_name(value));
    return put_text(run, builder, text, how);
}

/* Fields that say "" count from 0. */
typedef struct {
    const bt_tpl_args *args;
    int64_t next; /* -1: fields are numbered */
} fields;

static bool field_start(bt_tpl_run *run, fields *state, const char *name, size_t bytes,
                        bt_tpl_value *ret)
{
    int64_t index = 0;
    bool digits = bytes > 0 && bytes < 10;
    for (size_t i = 0; i < bytes && digits; i++) {
        digits = name[i] >= '0' && name[i] <= '9';
        index = index * 10 + name[i] - '0';
    }
    if (bytes == 0) {
        if (state->next < 0) return BT_TPL_RAISE(run, "cannot switch to automatic field numbering");
        index = state->next++;
    } else if (digits) {
        if (state->next > 0) return BT_TPL_RAISE(run, "cannot switch to manual field numbering");
        state->next = -1;
    } else {
        for (size_t i = 0; i < state->args->named_count; i++) {
            const bt_tpl_str *known = state->args->names[i];
            if (known->bytes != bytes || memcmp(known->data, name, bytes) != 0) continue;
            *ret = state->args->named[i];
            return true;
        }
        return BT_TPL_RAISE(run, "no argument '%.*s' for the format",
                            (int)(bytes > 60 ? 60 : bytes), name);
    }
    if ((size_t)index >= state->args->count)
        return BT_TPL_RAISE(run, "Replacement index %lld out of range for positional args tuple",
                            (long long)index);
    *ret = state->args->args[index];
    return true;
}

/* "name.attribute[key]" of a field. */
static bool field_value(bt_tpl_run *run, fields *state, const char *text, size_t bytes,
                        bt_tpl_value *ret)
{
    size_t at = 0;
    while (at < bytes && text[at] != '.' && text[at] != '[') at++;
    if (at == 0 && bytes > 0) return BT_TPL_RAISE(run, "a field of the format has no name");
    if (!field_start(run, state, text, at, ret)) return false;
    while (at < bytes) {
        bool item = text[at++] == '[';
        size_t first = at;
        while (at < bytes && (item ? text[at] != ']' : text[at] != '.' && text[at] != '[')) at++;
        bt_tpl_value key;
        if (at == first || (item && at == bytes))
            return BT_TPL_RAISE(run, "Empty attribute in format string");
        if (!bt_tpl_str_new(run, text + first, at - first, &key)) return false;
        int64_t index = 0;
        bool digits = item && at - first < 10;
        for (size_t i = first; i < at && digits; i++) {
            digits = text[i] >= '0' && text[i] <= '9';
            index = index * 10 + text[i] - '0';
        }
        bool fine = item ? bt_tpl_get_item(run, *ret, digits ? BT_TPL_V_INT(index) : key, ret)
                         : bt_tpl_get_attr(run, *ret, key.str, ret);
        if (!fine) return false;
        at += item;
    }
    return true;
}

/* One field, without its braces. */
static bool put_field(bt_tpl_run *run, bt_tpl_builder *builder, fields *state, const char *text,
                      size_t bytes)
{
    size_t name = 0;
    while (name < bytes && text[name] != '!' && text[name] != ':') name++;
    bt_tpl_value value;
    spec how = no_spec;
    size_t at = name;
    if (!field_value(run, state, text, name, &value)) return false;
    if (at < bytes && text[at] == '!') {
        char to = at + 1 < bytes ? text[at + 1] : '\0';
        bt_tpl_builder made;
        bt_tpl_build(run, &made);
        if ((to != 'r' && to != 's') ||
            !(to == 'r' ? bt_tpl_repr(run, &made, value) : bt_tpl_print(run, &made, value)) ||
            !bt_tpl_built(run, &made, &value))
            return BT_TPL_RAISE(run, "Unknown conversion specifier");
        at += 2;
    }
    bool plain = at >= bytes || at + 1 == bytes;
    if (at < bytes && text[at] != ':')
        return BT_TPL_RAISE(run, "expected ':' after conversion specifier");
    if (!plain && memchr(text + at, '{', bytes - at) != NULL)
        return BT_TPL_RAISE(run, "fields within format specifiers are not supported");
    if (!plain && !read_spec(run, text + at + 1, bytes - at - 1, &how)) return false;
    return bt_tpl_steps(run, 1) && put_formatted(run, builder, value, &how, plain);
}

bool bt_tpl_str_format(bt_tpl_run *run, const bt_tpl_str *format, const bt_tpl_args *args,
                       bt_tpl_value *ret)
{
    fields state = {.args = args};
    bt_tpl_builder builder;
    bt_tpl_build(run, &builder);
    builder.markup = format->markup;
    for (size_t at = 0; at < format->bytes;) {
        size_t end = at;
        while (end < format->bytes && format->data[end] != '{' && format->data[end] != '}') end++;
        if (!bt_tpl_put_slice(run, &builder, format, at, end)) return false;
        if (end == format->bytes) break;
        bool twice = end + 1 < format->bytes && format->data[end + 1] == format->data[end];
        if (twice) {
            if (!bt_tpl_put_slice(run, &builder, format, end, end + 1)) return false;
            at = end + 2;
            continue;
        }
        const char *close =
            format->data[end] == '{' ? memchr(format->data + end, '}', format->bytes - end) : NULL;
        if (close == NULL)
            return BT_TPL_RAISE(run, "Single '%c' encountered in format string", format->data[end]);
        const char *field = format->data + end + 1;
        if (!put_field(run, &builder, &state, field, (size_t)(close - field))) return false;
        at = (size_t)(close - format->data) + 1;
    }
    return bt_tpl_built(run, &builder, ret);
}
