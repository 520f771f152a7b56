#include "common/base/parse.h"

#include "common/base/clock.h"
#include "common/base/utf8.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUOTE_BYTES 48u       /* of a refused text, in messages */
#define DOUBLE_TEXT_BYTES 64u /* longer texts are refused */

typedef struct {
    const char *name;
    uint64_t scale;
} unit;

/* Largest first: the format functions take the first that divides. */
static const unit byte_units[] = {
    {"TiB", 1ull << 40}, {"GiB", 1ull << 30}, {"MiB", 1ull << 20}, {"KiB", 1ull << 10}, {"B", 1},
};
static const unit time_units[] = {
    {"d", 86400 * BT_NS_PER_S},
    {"h", 3600 * BT_NS_PER_S},
    {"min", 60 * BT_NS_PER_S},
    {"s", BT_NS_PER_S},
    {"ms", BT_NS_PER_MS},
    {"us", BT_NS_PER_US},
    {"ns", 1},
};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bt_status refuse(const char *text, const char *why, bt_err *err)
{
    char quoted[QUOTE_BYTES];
    bt_escape(text, strlen(text), quoted, sizeof(quoted));
    return BT_FAIL(err, BT_ERR_ARGUMENT, "'%s' %s", quoted, why);
}

/* Digits at *text into *ret_value, moving *text behind them. False on none or on overflow. */
static bool take_digits(const char **text, uint64_t *ret_value)
{
    const char *at = *text;
    uint64_t value = 0;
    if (*at < '0' || *at > '9') return false;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(value, 10u, &value)) return false;
        if (__builtin_add_overflow(value, (uint64_t)(*at - '0'), &value)) return false;
    }
    *text = at;
    *ret_value = value;
    return true;
}

bt_status bt_parse_u64(const char *text, uint64_t *ret_value, bt_err *err)
{
    const char *at = text;
    uint64_t value;
    if (!take_digits(&at, &value) || *at != '\0')
        return refuse(text, "is not a whole number below 2^64", err);
    *ret_value = value;
    return BT_OK;
}

bt_status bt_parse_u32(const char *text, uint32_t max, uint32_t *ret_value, bt_err *err)
{
    const char *at = text;
    uint64_t value;
    if (!take_digits(&at, &value) || *at != '\0' || value > max) {
        char why[64];
        snprintf(why, sizeof(why), "is not a whole number from 0 to %" PRIu32, max);
        return refuse(text, why, err);
    }
    *ret_value = (uint32_t)value;
    return BT_OK;
}

bt_status bt_parse_double(const char *text, double *ret_value, bt_err *err)
{
    /* strtod alone would also take blanks, hexadecimal, inf and nan. */
    size_t bytes = strlen(text);
    if (bytes > 0 && bytes < DOUBLE_TEXT_BYTES && strspn(text, "+-.0123456789eE") == bytes) {
        char *end;
        double value = strtod(text, &end);
        if (*end == '\0' && isfinite(value)) {
            *ret_value = value;
            return BT_OK;
        }
    }
    return refuse(text, "is not a finite decimal number", err);
}

/* A number and one of the units. bare_max: the largest number that may go without a unit. */
static bool parse_scaled(const char *text, const unit *units, size_t unit_count, uint64_t bare_max,
                         uint64_t *ret_value)
{
    uint64_t number;
    if (!take_digits(&text, &number)) return false;
    if (*text == '\0') {
        *ret_value = number;
        return number <= bare_max;
    }
    for (size_t i = 0; i < unit_count; i++) {
        if (strcmp(text, units[i].name) == 0)
            return !__builtin_mul_overflow(number, units[i].scale, ret_value);
    }
    return false;
}

bt_status bt_parse_bytes(const char *text, uint64_t *ret_bytes, bt_err *err)
{
    uint64_t bytes;
    if (!parse_scaled(text, byte_units, COUNT(byte_units), UINT64_MAX, &bytes))
        return refuse(text, "is not a size like 4096, 64KiB, 16MiB or 2GiB", err);
    *ret_bytes = bytes;
    return BT_OK;
}

bt_status bt_parse_duration_ns(const char *text, uint64_t *ret_ns, bt_err *err)
{
    uint64_t ns;
    if (!parse_scaled(text, time_units, COUNT(time_units), 0, &ns))
        return refuse(text, "is not a duration like 500us, 20ms, 10s, 5min or 1h", err);
    *ret_ns = ns;
    return BT_OK;
}

bt_status bt_parse_bool(const char *text, bool *ret_value, bt_err *err)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    for (size_t i = 0; i < COUNT(words); i++) {
        if (strcmp(text, words[i]) == 0) {
            *ret_value = i % 2 == 1;
            return BT_OK;
        }
    }
    return refuse(text, "is not true or false", err);
}

static const char *format_scaled(uint64_t value, const unit *units, size_t unit_count, char *text)
{
    size_t i = unit_count - 1;
    for (size_t larger = 0; value != 0 && larger < unit_count; larger++) {
        if (value % units[larger].scale != 0) continue;
        i = larger;
        break;
    }
    snprintf(text, BT_UNIT_TEXT_BYTES, "%" PRIu64 "%s", value / units[i].scale, units[i].name);
    return text;
}

const char *bt_format_bytes(uint64_t bytes, char ret_text[BT_UNIT_TEXT_BYTES])
{
    return format_scaled(bytes, byte_units, COUNT(byte_units), ret_text);
}

const char *bt_format_duration_ns(uint64_t ns, char ret_text[BT_UNIT_TEXT_BYTES])
{
    return format_scaled(ns, time_units, COUNT(time_units), ret_text);
}

/* Characters that end a line, move the cursor or turn the direction of the text around them. */
static bool is_unsafe(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 ||
           (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) ||
           code == 0x200e || code == 0x200f || code == 0xfeff;
}

const char *bt_escape(const char *text, size_t bytes, char *ret_text, size_t capacity)
{
    assert(capacity > 4);
    size_t used = 0;
    for (size_t at = 0; at < bytes;) {
        uint32_t code = 0;
        size_t length = bt_utf8_char(text + at, bytes - at, &code);
        char piece[8];
        size_t piece_bytes = length;
        if (length == 0 || is_unsafe(code)) {
            /* Byte by byte: the second byte of an unsafe character is unsafe by itself. */
            length = 1;
            uint8_t byte = (uint8_t)text[at];
            const char *format = byte == '\n' ? "\\n" : byte == '\t' ? "\\t" : "\\x%02x";
            piece_bytes = (size_t)snprintf(piece, sizeof(piece), format, byte);
        } else if (code == '\\') {
            memcpy(piece, "\\\\", piece_bytes = 2);
        } else {
            memcpy(piece, text + at, length);
        }
        if (used + piece_bytes >= capacity) break;
        memcpy(ret_text + used, piece, piece_bytes);
        used += piece_bytes;
        at += length;
    }
    ret_text[used] = '\0';
    return ret_text;
}
