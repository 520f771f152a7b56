#include "common/text/template/lexer.h"

#include "common/base/utf8.h"
#include "common/text/template/str.h"
#include "common/text/unicode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define BRACKETS_MAX 200u
#define NUMBER_BYTES_MAX 400u

typedef struct {
    const char *text; /* newlines are \n */
    size_t bytes, at;
    uint32_t line;
    bool line_starting; /* the last match ended with a newline */
    const char *label;
    bt_tpl_arena *arena;
    bt_tpl_tokens *tokens;
    char brackets[BRACKETS_MAX];
    unsigned depth;
    bt_err *err;
} lexer;

static bt_status fail(const lexer *lex, const char *why)
{
    return BT_FAIL(lex->err, BT_ERR_FORMAT, "%.60s:%u: %s", lex->label, lex->line, why);
}

static bt_status no_room(const lexer *lex)
{
    return bt_tpl_arena_fail(lex->arena, lex->label, lex->err);
}

static bt_status push(lexer *lex, bt_tpl_token token)
{
    bt_tpl_tokens *list = lex->tokens;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 256 : list->capacity * 2;
        bt_tpl_token *grown = bt_tpl_arena_take(lex->arena, capacity, sizeof(grown[0]));
        if (grown == NULL) return no_room(lex);
        if (list->count > 0) memcpy(grown, list->tokens, list->count * sizeof(grown[0]));
        list->tokens = grown;
        list->capacity = capacity;
    }
    token.line = lex->line;
    list->tokens[list->count++] = token;
    return BT_OK;
}

static uint32_t code_at(const lexer *lex, size_t at, size_t *ret_bytes)
{
    uint32_t code = 0;
    *ret_bytes = bt_utf8_char(lex->text + at, lex->bytes - at, &code);
    return code;
}

static bool looking_at(const lexer *lex, size_t at, const char *text)
{
    size_t bytes = strlen(text);
    return bytes <= lex->bytes - at && memcmp(lex->text + at, text, bytes) == 0;
}

/* Where the blanks at `at` end. */
static size_t blanks(const lexer *lex, size_t at)
{
    size_t bytes;
    while (at < lex->bytes && bt_tpl_is_space(code_at(lex, at, &bytes))) at += bytes;
    return at;
}

static void advance(lexer *lex, size_t to)
{
    for (; lex->at < to; lex->at++) lex->line += lex->text[lex->at] == '\n';
    lex->line_starting = to > 0 && lex->text[to - 1] == '\n';
}

/* Text up to a tag that begins at end: without its last blanks if the tag has a minus, without
 * those of its line if it is alone there (not for "{{"). */
static bt_status data(lexer *lex, size_t end, char sign, bool print)
{
    size_t first = lex->at, last = end;
    if (sign == '-') {
        const bt_tpl_str text = {.data = lex->text, .bytes = lex->bytes};
        size_t bytes;
        while (last > first && bt_tpl_is_space(bt_tpl_char_before(&text, last, &bytes)))
            last -= bytes;
    } else if (sign != '+' && !print) {
        size_t line = end;
        while (line > first && lex->text[line - 1] != '\n') line--;
        if ((line > first || lex->line_starting) && line < end && blanks(lex, line) >= end)
            last = line;
    }
    if (last == first) return BT_OK;
    return push(lex, (bt_tpl_token){
                         .type = BT_TPL_T_DATA, .text = lex->text + first, .bytes = last - first});
}

/* The end of a tag "%}" or "#}" at `at` with its sign: how far it reaches, or 0 if it is none. With
 * a minus it takes the blanks behind it, with nothing one newline (of trim_blocks). */
static size_t tag_end(const lexer *lex, size_t at, const char *end, bool trim)
{
    char sign = at < lex->bytes ? lex->text[at] : '\0';
    bool signed_end = sign == '-' || (sign == '+' && trim);
    if (!looking_at(lex, signed_end ? at + 1 : at, end)) return 0;
    at += 2 + signed_end;
    if (sign == '-') return blanks(lex, at);
    if (!signed_end && trim && at < lex->bytes && lex->text[at] == '\n') at++;
    return at;
}

static bt_status comment(lexer *lex, size_t first)
{
    size_t at = first;
    for (; at < lex->bytes; at++) {
        size_t end = tag_end(lex, at, "#}", true);
        if (end > 0) {
            advance(lex, end);
            return BT_OK;
        }
    }
    /* One that the source ends with is none, to Jinja. */
    return at == first ? BT_OK : fail(lex, "a comment is not closed");
}

static size_t word(const lexer *lex, size_t at, const char *name)
{
    at = blanks(lex, at);
    return looking_at(lex, at, name) ? blanks(lex, at + strlen(name)) : 0;
}

/* "{% raw %}" at the tag whose name would begin at `at`: how far it reaches, or 0. */
static size_t raw_begin(const lexer *lex, size_t at)
{
    at = word(lex, at, "raw");
    if (at == 0) return 0;
    if (looking_at(lex, at, "-%}")) return blanks(lex, at + 3);
    return looking_at(lex, at, "%}") ? at + 2 : 0;
}

static bt_status raw(lexer *lex, size_t begin)
{
    advance(lex, begin);
    lex->line_starting = lex->text[begin - 1] == '\n';
    for (size_t at = begin; at + 1 < lex->bytes; at++) {
        if (!looking_at(lex, at, "{%")) continue;
        char sign = at + 2 < lex->bytes ? lex->text[at + 2] : '\0';
        bool with_sign = sign == '-' || sign == '+';
        size_t end = word(lex, at + 2 + with_sign, "endraw");
        if (end > 0) end = tag_end(lex, end, "%}", true);
        if (end == 0) continue;
        bt_status status = data(lex, at, with_sign ? sign : '\0', false);
        advance(lex, end);
        return status;
    }
    return begin == lex->bytes ? BT_OK : fail(lex, "a raw block is not closed");
}

/* Names and numbers. */

static bool is_word(uint32_t code)
{
    if (code < 0x80)
        return (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') ||
               (code >= 'A' && code <= 'Z') || code == '_';
    utf8proc_category_t kind = utf8proc_category((utf8proc_int32_t)code);
    return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_ND;
}

static bt_status name(lexer *lex)
{
    size_t end = lex->at, bytes;
    while (end < lex->bytes && is_word(code_at(lex, end, &bytes))) end += bytes;
    bt_status status = push(
        lex,
        (bt_tpl_token){.type = BT_TPL_T_NAME, .text = lex->text + lex->at, .bytes = end - lex->at});
    advance(lex, end);
    return status;
}

/* Digits with single underscores between them, from `at`; returns where they end. */
static size_t digits(const lexer *lex, size_t at, const char *allowed)
{
    while (at < lex->bytes) {
        bool under = lex->text[at] == '_' && at + 1 < lex->bytes;
        char digit = lex->text[at + under];
        if (digit == '\0' || strchr(allowed, digit) == NULL) break;
        at += 1 + under;
    }
    return at;
}

static bool is_digit(const lexer *lex, size_t at)
{
    return at < lex->bytes && lex->text[at] >= '0' && lex->text[at] <= '9';
}

static size_t float_end(const lexer *lex)
{
    if (lex->at > 0 && lex->text[lex->at - 1] == '.') return 0;
    size_t at = digits(lex, lex->at, "0123456789");
    bool real = false;
    if (at < lex->bytes && lex->text[at] == '.' && is_digit(lex, at + 1)) {
        at = digits(lex, at + 1, "0123456789");
        real = true;
    }
    if (at < lex->bytes && (lex->text[at] == 'e' || lex->text[at] == 'E')) {
        size_t exponent = at + 1;
        if (exponent < lex->bytes && (lex->text[exponent] == '+' || lex->text[exponent] == '-'))
            exponent++;
        if (is_digit(lex, exponent)) {
            at = digits(lex, exponent, "0123456789");
            real = true;
        }
    }
    return real ? at : 0;
}

static size_t int_end(const lexer *lex, int *ret_base)
{
    size_t at = lex->at;
    *ret_base = 10;
    if (lex->text[at] != '0') return digits(lex, at, "0123456789");
    static const struct {
        char letter;
        int base;
        const char *digits;
    } kinds[] = {{'x', 16, "0123456789abcdefABCDEF"}, {'o', 8, "01234567"}, {'b', 2, "01"}};
    for (size_t i = 0; i < 3 && at + 1 < lex->bytes; i++) {
        if ((lex->text[at + 1] | 0x20) != kinds[i].letter) continue;
        size_t end = digits(lex, at + 2, kinds[i].digits);
        if (end == at + 2) continue;
        *ret_base = kinds[i].base;
        return end;
    }
    return digits(lex, at, "0");
}

static bt_status number(lexer *lex)
{
    int base = 10;
    size_t end = float_end(lex);
    bool real = end > 0;
    if (!real) end = int_end(lex, &base);
    char bare[NUMBER_BYTES_MAX];
    size_t count = 0;
    for (size_t i = lex->at + (base != 10 ? 2 : 0); i < end; i++) {
        if (lex->text[i] == '_') continue;
        if (count + 1 == sizeof(bare)) return fail(lex, "a number is too long");
        bare[count++] = lex->text[i];
    }
    bare[count] = '\0';
    bt_tpl_token token = {.type = real ? BT_TPL_T_FLOAT : BT_TPL_T_INT};
    errno = 0;
    if (real)
        token.real = strtod(bare, NULL);
    else
        token.number = strtoll(bare, NULL, base);
    if (!real && errno == ERANGE) return fail(lex, "an integer does not fit into 64 bits");
    bt_status status = push(lex, token);
    advance(lex, end);
    return status;
}

/* Strings. */

static int hex_value(const char *text, size_t digits)
{
    int value = 0;
    for (size_t i = 0; i < digits; i++) {
        int digit = text[i] >= '0' && text[i] <= '9'   ? text[i] - '0'
                    : text[i] >= 'a' && text[i] <= 'f' ? text[i] - 'a' + 10
                    : text[i] >= 'A' && text[i] <= 'F' ? text[i] - 'A' + 10
                                                       : -1;
        if (digit < 0 || value > 0x10FFFF) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The escape whose backslash is at text[0]. Returns the bytes it takes, or 0 if it is not valid;
 * ret_code is -1 for an escaped newline and -2 if Python leaves it as it stands. */
static size_t escape(const char *text, size_t bytes, int *ret_code)
{
    static const char plain[] = "\\'\"abfnrtv", codes[] = "\\'\"\a\b\f\n\r\t\v";
    char kind = bytes > 1 ? text[1] : '\0';
    const char *known = kind != '\0' ? strchr(plain, kind) : NULL;
    if (known != NULL) {
        *ret_code = codes[known - plain];
        return 2;
    }
    if (kind == '\n') {
        *ret_code = -1;
        return 2;
    }
    if (kind >= '0' && kind <= '7') {
        size_t end = 1;
        *ret_code = 0;
        for (; end < 4 && end < bytes && text[end] >= '0' && text[end] <= '7'; end++)
            *ret_code = *ret_code * 8 + text[end] - '0';
        return end;
    }
    size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
    if (digits > 0) {
        *ret_code = bytes >= 2 + digits ? hex_value(text + 2, digits) : -1;
        bool surrogate = *ret_code >= 0xD800 && *ret_code <= 0xDFFF;
        return *ret_code < 0 || *ret_code > 0x10FFFF || surrogate ? 0 : 2 + digits;
    }
    *ret_code = -2;
    return kind == 'N' ? 0 : 1;
}

static bt_status unescape(lexer *lex, const char *text, size_t bytes, bt_tpl_token *token)
{
    token->text = text;
    token->bytes = bytes;
    if (bytes == 0 || memchr(text, '\\', bytes) == NULL) return BT_OK;
    char *out = bt_tpl_arena_text(lex->arena, bytes + 1); /* an escape never gets longer */
    if (out == NULL) return no_room(lex);
    size_t count = 0;
    for (size_t at = 0; at < bytes;) {
        if (text[at] != '\\') {
            out[count++] = text[at++];
            continue;
        }
        int code;
        size_t taken = escape(text + at, bytes - at, &code);
        if (taken == 0) return fail(lex, "an escape in a string is not supported");
        if (code == -2)
            out[count++] = '\\';
        else if (code >= 0)
            count += bt_utf8_encode((uint32_t)code, out + count);
        at += taken;
    }
    token->text = out;
    token->bytes = count;
    return BT_OK;
}

static bt_status string(lexer *lex)
{
    char quote = lex->text[lex->at];
    size_t end = lex->at + 1;
    while (end < lex->bytes && lex->text[end] != quote) end += lex->text[end] == '\\' ? 2 : 1;
    if (end >= lex->bytes) return fail(lex, "a string is not closed");
    bt_tpl_token token = {.type = BT_TPL_T_STRING};
    bt_status status = unescape(lex, lex->text + lex->at + 1, end - lex->at - 1, &token);
    if (status == BT_OK) status = push(lex, token);
    advance(lex, end + 1);
    return status;
}

/* Operators, longest first, and the balance of brackets. */
static bt_status operator(lexer *lex)
{
    static const char *const operators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                            "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                            ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    static const char open[] = "([{", close[] = ")]}";
    for (size_t i = 0; i < sizeof(operators) / sizeof(operators[0]); i++) {
        const char *text = operators[i];
        if (!looking_at(lex, lex->at, text)) continue;
        const char *opens = strchr(open, text[0]), *closes = strchr(close, text[0]);
        if (opens != NULL) {
            if (lex->depth == BRACKETS_MAX) return fail(lex, "brackets are nested too deeply");
            lex->brackets[lex->depth++] = close[opens - open];
        }
        if (closes != NULL && (lex->depth == 0 || lex->brackets[--lex->depth] != text[0]))
            return fail(lex, "a bracket is closed that was not opened");
        bt_status status = push(lex, (bt_tpl_token){.type = BT_TPL_T_OPERATOR, .text = text});
        advance(lex, lex->at + strlen(text));
        return status;
    }
    return fail(lex, "there is a character that means nothing here");
}

/* What stands between "{%" and "%}", or "{{" and "}}". */
static bt_status expression(lexer *lex, bool print)
{
    lex->depth = 0;
    for (;;) {
        if (lex->depth == 0) {
            size_t end = tag_end(lex, lex->at, print ? "}}" : "%}", !print);
            if (end > 0) {
                bt_status status = push(
                    lex, (bt_tpl_token){.type = print ? BT_TPL_T_PRINT_END : BT_TPL_T_BLOCK_END});
                advance(lex, end);
                return status;
            }
        }
        if (lex->at >= lex->bytes) return fail(lex, "a tag is not closed");
        size_t bytes;
        uint32_t code = code_at(lex, lex->at, &bytes);
        bt_status status = BT_OK;
        if (bt_tpl_is_space(code))
            advance(lex, blanks(lex, lex->at));
        else if (code >= '0' && code <= '9')
            status = number(lex);
        else if (is_word(code))
            status = name(lex);
        else if (code == '"' || code == '\'')
            status = string(lex);
        else
            status = operator(lex);
        if (status != BT_OK) return status;
    }
}

/* Text up to the next tag, and the tag. */
static bt_status next(lexer *lex)
{
    size_t at = lex->at;
    while (at + 1 < lex->bytes &&
           !(lex->text[at] == '{' && strchr("%{#", lex->text[at + 1]) && lex->text[at + 1] != '\0'))
        at++;
    if (at + 1 >= lex->bytes) {
        bt_status status = data(lex, lex->bytes, '+', false);
        advance(lex, lex->bytes);
        return status;
    }
    char kind = lex->text[at + 1];
    char sign = at + 2 < lex->bytes ? lex->text[at + 2] : '\0';
    bool with_sign = sign == '-' || sign == '+';
    size_t inside = at + 2 + with_sign;
    bt_status status = data(lex, at, with_sign ? sign : '\0', kind == '{');
    if (status != BT_OK) return status;
    size_t raw_end = kind == '%' ? raw_begin(lex, inside) : 0;
    if (raw_end > 0) return raw(lex, raw_end);
    advance(lex, inside);
    if (kind == '#') return comment(lex, inside);
    status = push(
        lex, (bt_tpl_token){.type = kind == '{' ? BT_TPL_T_PRINT_BEGIN : BT_TPL_T_BLOCK_BEGIN});
    return status == BT_OK ? expression(lex, kind == '{') : status;
}

/* \r\n and \r become \n; one newline at the end is dropped. */
static bt_status normalize(lexer *lex, const char *text, size_t bytes)
{
    char *out = bt_tpl_arena_text(lex->arena, bytes + 1);
    if (out == NULL) return no_room(lex);
    size_t count = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '\r' && i + 1 < bytes && text[i + 1] == '\n') continue;
        out[count++] = text[i] == '\r' ? '\n' : text[i];
    }
    if (count > 0 && out[count - 1] == '\n') count--;
    lex->text = out;
    lex->bytes = count;
    return BT_OK;
}

bt_status bt_tpl_lex(const char *text, size_t bytes, const char *label, bt_tpl_arena *arena,
                     bt_tpl_tokens *ret_tokens, bt_err *err)
{
    *ret_tokens = (bt_tpl_tokens){0};
    lexer lex = {.line = 1,
                 .line_starting = true,
                 .label = label,
                 .arena = arena,
                 .tokens = ret_tokens,
                 .err = err};
    if (!bt_utf8_valid(text, bytes))
        return BT_FAIL(err, BT_ERR_FORMAT, "%.60s is not UTF-8", label);
    bt_status status = normalize(&lex, text, bytes);
    while (status == BT_OK && lex.at < lex.bytes) status = next(&lex);
    if (status == BT_OK) status = push(&lex, (bt_tpl_token){.type = BT_TPL_T_EOF});
    return status;
}
