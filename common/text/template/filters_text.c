/* filters_text.c - filters of texts and numbers. */
#include "common/text/template/filters.h"
#include "common/text/template/methods.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* str(self) through a method of strings, with the filter's arguments. */
static bool by_method(bt_tpl_run *run, bt_tpl_value self, const char *method, bt_tpl_value *args,
                      size_t count, bt_tpl_value *ret)
{
    bt_tpl_str *text;
    bt_tpl_args given = {.args = args, .count = count};
    return bt_tpl_to_str(run, self, &text) &&
           bt_tpl_native_call(run, bt_tpl_str_method(method, strlen(method)), BT_TPL_V_STR(text),
                              &given, ret);
}

BT_TPL_NATIVE(do_upper)
{
    return by_method(run, self, "upper", NULL, 0, ret);
}

BT_TPL_NATIVE(do_lower)
{
    return by_method(run, self, "lower", NULL, 0, ret);
}

BT_TPL_NATIVE(do_capitalize)
{
    return by_method(run, self, "capitalize", NULL, 0, ret);
}

BT_TPL_NATIVE(do_trim)
{
    bt_tpl_value chars = args[0];
    return by_method(run, self, "strip", &chars, chars.type != BT_TPL_MISSING, ret);
}

BT_TPL_NATIVE(do_center)
{
    bt_tpl_value width = args[0].type != BT_TPL_MISSING ? args[0] : BT_TPL_V_INT(80);
    return by_method(run, self, "center", &width, 1, ret);
}

/* Jinja's own title: words begin after blanks and after - ( { [ <. */
BT_TPL_NATIVE(do_title)
{
    bt_tpl_str *str;
    bt_tpl_builder builder;
    if (!bt_tpl_to_str(run, self, &str)) return false;
    bt_tpl_build(run, &builder);
    bool begins = true;
    for (size_t at = 0, bytes; at < str->bytes; at += bytes) {
        uint32_t code = bt_tpl_char_at(str, at, &bytes);
        bool between = bt_tpl_is_space(code) || code == '-' || code == '(' || code == '{' ||
                       code == '[' || code == '<';
        if (!bt_tpl_put_case(run, &builder, str, at, at + bytes,
                             begins ? BT_TPL_UPPER : BT_TPL_LOWER))
            return false;
        begins = between;
    }
    return bt_tpl_built(run, &builder, ret);
}

BT_TPL_NATIVE(do_replace)
{
    bt_tpl_str *str, *old, *new;
    int64_t count = -1;
    if (!bt_tpl_to_str(run, self, &str) || !bt_tpl_to_str(run, args[0], &old) ||
        !bt_tpl_to_str(run, args[1], &new))
        return false;
    if (args[2].type != BT_TPL_NONE && !bt_tpl_arg_int(run, args[2], -1, &count)) return false;
    if (!bt_tpl_replace(run, str, old, new, count, ret)) return false;
    ret->str->markup = false;
    return true;
}

BT_TPL_NATIVE(do_string)
{
    bt_tpl_str *str;
    if (!bt_tpl_to_str(run, self, &str)) return false;
    *ret = BT_TPL_V_STR(str);
    return true;
}

static bool with_markup(bt_tpl_run *run, bt_tpl_value self, bool markup, bt_tpl_value *ret)
{
    bt_tpl_str *str;
    if (!bt_tpl_to_str(run, self, &str) || !bt_tpl_str_slice(run, str, 0, str->bytes, ret))
        return false;
    ret->str->markup = markup;
    return true;
}

BT_TPL_NATIVE(do_safe)
{
    return with_markup(run, self, true, ret);
}

BT_TPL_NATIVE(do_escape)
{
    bt_tpl_str *str;
    bt_tpl_builder builder;
    if (!bt_tpl_to_str(run, self, &str)) return false;
    if (str->markup) return with_markup(run, self, true, ret);
    bt_tpl_build(run, &builder);
    builder.markup = true;
    bt_tpl_marks marks = {.str = str};
    static const struct {
        char code;
        const char *text;
    } rows[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
    size_t plain = 0;
    for (size_t at = 0; at < str->bytes; at++) {
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            if (str->data[at] != rows[i].code) continue;
            if (!bt_tpl_put_slice(run, &builder, str, plain, at) ||
                !bt_tpl_put(run, &builder, rows[i].text, strlen(rows[i].text),
                            bt_tpl_marked(&marks, at)))
                return false;
            plain = at + 1;
        }
    }
    return bt_tpl_put_slice(run, &builder, str, plain, str->bytes) &&
           bt_tpl_built(run, &builder, ret);
}

/* Every line but the first (unless asked) moved right; empty ones only if asked. */
static bool indent_lines(bt_tpl_run *run, const bt_tpl_items *lines, const bt_tpl_str *indent,
                         bool first, bool blank, bt_tpl_value *ret)
{
    bt_tpl_builder builder;
    bt_tpl_build(run, &builder);
    for (size_t i = 0; i < lines->list.count; i++) {
        const bt_tpl_str *line = lines->list.items[i].str;
        bool indented = i == 0 ? first : blank || line->bytes > 0;
        if ((i > 0 && !bt_tpl_put_text(run, &builder, "\n")) ||
            (indented && !bt_tpl_put_str(run, &builder, indent)) ||
            !bt_tpl_put_str(run, &builder, line))
            return false;
    }
    return bt_tpl_built(run, &builder, ret);
}

BT_TPL_NATIVE(do_indent)
{
    bt_tpl_value indent = args[0], space;
    bt_tpl_items lines = {0};
    int64_t width = 4;
    if (indent.type != BT_TPL_STR) {
        if (!bt_tpl_arg_int(run, indent, 4, &width) || !bt_tpl_str_text(run, " ", &space) ||
            !bt_tpl_binary(run, '*', space, BT_TPL_V_INT(width), &indent))
            return false;
    }
    /* Jinja adds a newline, so that a text has one line at least, and one at its end stays. */
    bt_tpl_value newline, whole;
    if (!bt_tpl_str_text(run, "\n", &newline) || !bt_tpl_binary(run, '+', self, newline, &whole))
        return false;
    return bt_tpl_split_lines(run, whole.str, false, &lines) &&
           indent_lines(run, &lines, indent.str, bt_tpl_true(args[1]), bt_tpl_true(args[2]), ret);
}

BT_TPL_NATIVE(do_truncate)
{
    int64_t length, leeway = 5, most;
    size_t size;
    bt_tpl_value end = args[2];
    if (end.type == BT_TPL_MISSING && !bt_tpl_str_text(run, "...", &end)) return false;
    if (end.type != BT_TPL_STR) return BT_TPL_RAISE(run, "truncate needs a text for its end");
    if (!bt_tpl_arg_int(run, args[0], 255, &length)) return false;
    if (args[3].type != BT_TPL_NONE && !bt_tpl_arg_int(run, args[3], 5, &leeway)) return false;
    int64_t kept = length - (int64_t)bt_tpl_chars(end.str);
    if (kept < 0 || leeway < 0) return BT_TPL_RAISE(run, "truncate needs a greater length");
    if (!bt_tpl_length(self, &size))
        return BT_TPL_RAISE(run, "object of type '%s' has no len()", bt_tpl_type_name(self));
    *ret = self;
    if (__builtin_add_overflow(length, leeway, &most) || (int64_t)size <= most) return true;
    bt_tpl_str *str;
    if (!bt_tpl_arg_str(run, self, &str)) return false;
    size_t cut = bt_tpl_char_offset(str, (size_t)kept);
    if (args[1].type == BT_TPL_MISSING || !bt_tpl_true(args[1])) {
        const bt_tpl_str space = {.data = " ", .bytes = 1};
        size_t at = bt_tpl_rfind(str, &space, 0, cut);
        if (at != SIZE_MAX) cut = at;
    }
    return bt_tpl_str_slice(run, str, 0, cut, ret) && bt_tpl_binary(run, '+', *ret, end, ret);
}

BT_TPL_NATIVE(do_wordcount)
{
    bt_tpl_str *str;
    if (!bt_tpl_to_str(run, self, &str)) return false;
    int64_t words = 0;
    bool within = false;
    for (size_t at = 0, bytes; at < str->bytes; at += bytes) {
        uint32_t code = bt_tpl_char_at(str, at, &bytes);
        utf8proc_category_t kind = utf8proc_category((utf8proc_int32_t)code);
        bool word = code == '_' || (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) ||
                    (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO);
        words += word && !within;
        within = word;
    }
    *ret = BT_TPL_V_INT(words);
    return bt_tpl_steps_bytes(run, 8 * str->bytes);
}

BT_TPL_NATIVE(do_format)
{
    bt_tpl_str *str;
    bt_tpl_value values;
    if (!bt_tpl_to_str(run, self, &str)) return false;
    if (rest->count > 0 && rest->named_count > 0)
        return BT_TPL_RAISE(run, "can't handle positional and keyword arguments at the same time");
    if (rest->named_count > 0) {
        bt_tpl_dict *dict;
        if (!bt_tpl_dict_new(run, rest->named_count, &dict)) return false;
        for (size_t i = 0; i < rest->named_count; i++) {
            bt_tpl_value key = BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)rest->names[i]);
            if (!bt_tpl_dict_put(run, dict, key, rest->named[i])) return false;
        }
        values = (bt_tpl_value){.type = BT_TPL_DICT, .dict = dict};
    } else {
        bt_tpl_list *list = BT_TPL_NEW(run, bt_tpl_list);
        if (list == NULL) return false;
        *list = (bt_tpl_list){.items = rest->args, .count = rest->count};
        values = (bt_tpl_value){.type = BT_TPL_TUPLE, .list = list};
    }
    return bt_tpl_percent(run, str, values, ret);
}

/* json.dumps with the defaults of Hugging Face's filter. */
BT_TPL_NATIVE(do_tojson)
{
    bt_tpl_json_style style = {.ascii = bt_tpl_true(args[0]), .sort_keys = bt_tpl_true(args[3])};
    bt_tpl_value indent = args[1], space;
    int64_t width;
    if (indent.type != BT_TPL_MISSING && indent.type != BT_TPL_NONE) {
        if (indent.type != BT_TPL_STR) {
            if (!bt_tpl_arg_int(run, indent, 0, &width) || !bt_tpl_str_text(run, " ", &space) ||
                !bt_tpl_binary(run, '*', space, BT_TPL_V_INT(width), &indent))
                return false;
        }
        style.pretty = true;
        style.indent = indent.str;
    }
    if (args[2].type != BT_TPL_MISSING && args[2].type != BT_TPL_NONE) {
        bt_tpl_list *pair;
        if (!bt_tpl_walk(run, args[2], &pair)) return false;
        if (pair->count != 2 || pair->items[0].type != BT_TPL_STR ||
            pair->items[1].type != BT_TPL_STR)
            return BT_TPL_RAISE(run, "separators must be two texts");
        style.item_separator = pair->items[0].str;
        style.key_separator = pair->items[1].str;
    }
    bt_tpl_builder builder;
    bt_tpl_build(run, &builder);
    return bt_tpl_json(run, &builder, self, &style, 0) && bt_tpl_built(run, &builder, ret);
}

/* Numbers. */

/* Python's int(text, base) and float(text): blanks around, underscores between digits. The text
 * without them, or false. */
static bool bare_number(const bt_tpl_str *str, char *ret_text, size_t room)
{
    size_t first = 0, end = str->bytes, bytes, count = 0;
    while (first < end && bt_tpl_is_space(bt_tpl_char_at(str, first, &bytes))) first += bytes;
    while (end > first && bt_tpl_is_space(bt_tpl_char_before(str, end, &bytes))) end -= bytes;
    for (size_t i = first; i < end; i++) {
        if (str->data[i] == '_') {
            bool between = i > first && i + 1 < end && str->data[i - 1] != '_' &&
                           str->data[i + 1] != '_' && strchr("+-.eE", str->data[i - 1]) == NULL &&
                           strchr("+-.eE", str->data[i + 1]) == NULL;
            if (!between) return false;
            continue;
        }
        if (count + 1 >= room || str->data[i] == '\0' ||
            bt_tpl_is_space((unsigned char)str->data[i]))
            return false;
        ret_text[count++] = str->data[i];
    }
    ret_text[count] = '\0';
    return count > 0;
}

static bool parse_real(bt_tpl_value value, double *ret_real)
{
    char text[512], *end;
    if (value.type != BT_TPL_STR) return bt_tpl_as_real(value, ret_real);
    if (!bare_number(value.str, text, sizeof(text))) return false;
    /* strtod knows hexadecimal, Python's float() does not. */
    if (strpbrk(text, "xXpP(") != NULL) return false;
    *ret_real = strtod(text, &end);
    return *end == '\0';
}

static bool parse_int(bt_tpl_value value, int base, int64_t *ret_number, bool *ret_too_large)
{
    char text[512], *end;
    *ret_too_large = false;
    if (!bare_number(value.str, text, sizeof(text))) return false;
    const char *digits = text + (text[0] == '+' || text[0] == '-');
    bool prefixed = digits[0] == '0' && digits[1] != '\0' && strchr("xXoObB", digits[1]) != NULL;
    int kind = prefixed ? (digits[1] | 0x20) : 0;
    int implied = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
    char bare[512];
    snprintf(bare, sizeof(bare), "%s%s", text[0] == '-' ? "-" : "",
             implied != 0 && (base == implied || base == 0) ? digits + 2 : digits);
    if (base == 0) base = implied != 0 ? implied : 10;
    const char *first = bare + (bare[0] == '-');
    if (*first == '\0' || *first == '+' || *first == '-') return false;
    if ((base == 16 || base == 0) && first[0] == '0' && (first[1] | 0x20) == 'x') return false;
    errno = 0;
    *ret_number = strtoll(bare, &end, base);
    *ret_too_large = errno == ERANGE;
    return *end == '\0';
}

static bool real_to_int(bt_tpl_run *run, double real, int64_t *ret_number)
{
    if (!(real >= -0x1p63 && real < 0x1p63))
        return bt_tpl_fail(run, BT_ERR_LIMIT, "an integer does not fit into 64 bits");
    *ret_number = (int64_t)real;
    return true;
}

BT_TPL_NATIVE(do_int)
{
    int64_t base, number = 0;
    double real;
    bool too_large = false;
    *ret = args[0].type == BT_TPL_MISSING ? BT_TPL_V_INT(0) : args[0];
    if (self.type == BT_TPL_UNDEFINED) return bt_tpl_undefined_fail(run, self);
    if (!bt_tpl_arg_int(run, args[1], 10, &base)) return false;
    bool known = base == 0 || (base >= 2 && base <= 36);
    if (self.type == BT_TPL_STR && known && parse_int(self, (int)base, &number, &too_large)) {
        if (too_large)
            return bt_tpl_fail(run, BT_ERR_LIMIT, "an integer does not fit into 64 bits");
        *ret = BT_TPL_V_INT(number);
        return true;
    }
    if (bt_tpl_as_int(self, &number)) {
        *ret = BT_TPL_V_INT(number);
        return true;
    }
    if (!parse_real(self, &real)) return true;
    if (isinf(real) && self.type == BT_TPL_FLOAT)
        return BT_TPL_RAISE(run, "cannot convert float infinity to integer");
    if (!isfinite(real)) return true;
    if (!real_to_int(run, real, &number)) return false;
    *ret = BT_TPL_V_INT(number);
    return true;
}

BT_TPL_NATIVE(do_float)
{
    double real;
    *ret = args[0].type == BT_TPL_MISSING ? BT_TPL_V_FLOAT(0) : args[0];
    if (self.type == BT_TPL_UNDEFINED) return bt_tpl_undefined_fail(run, self);
    if (parse_real(self, &real)) *ret = BT_TPL_V_FLOAT(real);
    return true;
}

BT_TPL_NATIVE(do_abs)
{
    int64_t number;
    if (self.type == BT_TPL_UNDEFINED)
        return BT_TPL_RAISE(run, "bad operand type for abs(): 'Undefined'");
    if (self.type == BT_TPL_FLOAT) {
        *ret = BT_TPL_V_FLOAT(fabs(self.real));
        return true;
    }
    if (!bt_tpl_as_int(self, &number))
        return BT_TPL_RAISE(run, "bad operand type for abs(): '%s'", bt_tpl_type_name(self));
    if (number == INT64_MIN)
        return bt_tpl_fail(run, BT_ERR_LIMIT, "an integer does not fit into 64 bits");
    *ret = BT_TPL_V_INT(number < 0 ? -number : number);
    return true;
}

/* Half to even, of the exact binary value, as Python's round(). */
static double round_real(double real, int64_t digits)
{
    char text[400];
    if (!isfinite(real) || digits > 300) return real;
    if (digits < -308) return copysign(0, real);
    if (digits >= 0) {
        snprintf(text, sizeof(text), "%.*f", (int)(digits > 60 ? 60 : digits), real);
        return digits > 60 && fabs(real) < 1e15 ? real : strtod(text, NULL);
    }
    double power = pow(10, (double)-digits);
    return nearbyint(real / power) * power;
}

static bool round_int(bt_tpl_run *run, int64_t number, int64_t digits, bt_tpl_value *ret)
{
    *ret = BT_TPL_V_INT(number);
    if (digits >= 0) return true;
    int64_t power = 1;
    for (int64_t i = digits; i < 0; i++) {
        if (__builtin_mul_overflow(power, (int64_t)10, &power)) {
            *ret = BT_TPL_V_INT(0);
            return true;
        }
    }
    int64_t down = number / power, rest = number % power;
    if (rest < 0) {
        rest += power;
        down--;
    }
    if (rest > power / 2 || (rest == power / 2 && (down & 1) != 0)) down++;
    if (__builtin_mul_overflow(down, power, &number))
        return bt_tpl_fail(run, BT_ERR_LIMIT, "an integer does not fit into 64 bits");
    *ret = BT_TPL_V_INT(number);
    return true;
}

BT_TPL_NATIVE(do_round)
{
    int64_t digits, number;
    double real;
    bt_tpl_value method = args[1];
    if (!bt_tpl_arg_int(run, args[0], 0, &digits)) return false;
    bool ceiling = bt_tpl_is_text(method, "ceil"), flooring = bt_tpl_is_text(method, "floor");
    if (method.type != BT_TPL_MISSING && !ceiling && !flooring && !bt_tpl_is_text(method, "common"))
        return BT_TPL_RAISE(run, "method must be common, ceil or floor");
    if (self.type == BT_TPL_UNDEFINED) return bt_tpl_undefined_fail(run, self);
    if (!bt_tpl_as_real(self, &real))
        return BT_TPL_RAISE(run, "type %s doesn't define __round__ method", bt_tpl_type_name(self));
    if (!ceiling && !flooring) {
        if (bt_tpl_as_int(self, &number)) return round_int(run, number, digits, ret);
        *ret = BT_TPL_V_FLOAT(round_real(real, digits));
        return true;
    }
    double power = pow(10, (double)digits);
    if (!isfinite(real * power)) return BT_TPL_RAISE(run, "cannot convert float to integer");
    /* Python's ceil() and floor() give integers: no -0.0. */
    double whole = (ceiling ? ceil(real * power) : floor(real * power)) + 0.0;
    *ret = BT_TPL_V_FLOAT(whole / power);
    return true;
}

BT_TPL_NATIVE(do_default)
{
    *ret = self;
    bool boolean = args[1].type != BT_TPL_MISSING && bt_tpl_true(args[1]);
    if (self.type != BT_TPL_UNDEFINED && !(boolean && !bt_tpl_true(self))) return true;
    *ret = args[0];
    return args[0].type != BT_TPL_MISSING || bt_tpl_str_text(run, "", ret);
}

const bt_tpl_native bt_tpl_text_filters[] = {
    {"upper", "", do_upper},
    {"lower", "", do_lower},
    {"capitalize", "", do_capitalize},
    {"title", "", do_title},
    {"trim", "chars=", do_trim},
    {"center", "width=", do_center},
    {"replace", "old,new,count=", do_replace},
    {"string", "", do_string},
    {"safe", "", do_safe},
    {"escape", "", do_escape},
    {"e", "", do_escape},
    {"indent", "width=,first=,blank=", do_indent},
    {"truncate", "length=,killwords=,end=,leeway=", do_truncate},
    {"wordcount", "", do_wordcount},
    {"format", "*", do_format},
    {"tojson", "ensure_ascii=,indent=,separators=,sort_keys=", do_tojson},
    {"int", "default=,base=", do_int},
    {"float", "default=", do_float},
    {"abs", "", do_abs},
    {"round", "precision=,method=", do_round},
    {"default", "default_value=,boolean=", do_default},
    {"d", "default_value=,boolean=", do_default},
};
const size_t bt_tpl_text_filter_count = sizeof(bt_tpl_text_filters) / sizeof(bt_tpl_native);
