#include "common/text/utf8.h"

#include <stdbool.h>
#include <utf8proc.h>

bt_utf8_state bt_utf8_probe(const char *text, size_t bytes, unsigned *ret_bytes)
{
    const uint8_t *s = (const uint8_t *)text;
    /* The second byte's range excludes overlong forms, surrogates and what is above U+10FFFF. */
    uint8_t low = 0x80, high = 0xBF;
    unsigned need;
    *ret_bytes = 1;
    if (s[0] < 0x80) return BT_UTF8_WHOLE;
    if (s[0] >= 0xC2 && s[0] <= 0xDF) {
        need = 2;
    } else if (s[0] >= 0xE0 && s[0] <= 0xEF) {
        need = 3;
        if (s[0] == 0xE0) low = 0xA0;
        if (s[0] == 0xED) high = 0x9F;
    } else if (s[0] >= 0xF0 && s[0] <= 0xF4) {
        need = 4;
        if (s[0] == 0xF0) low = 0x90;
        if (s[0] == 0xF4) high = 0x8F;
    } else {
        return BT_UTF8_BAD;
    }
    for (unsigned i = 1; i < need; i++) {
        *ret_bytes = i;
        if (i == bytes) return BT_UTF8_PREFIX;
        if (s[i] < low || s[i] > high) return BT_UTF8_BAD;
        low = 0x80;
        high = 0xBF;
    }
    *ret_bytes = need;
    return BT_UTF8_WHOLE;
}

unsigned bt_utf8_decode(const char *text, size_t bytes, uint32_t *ret_code)
{
    const uint8_t *s = (const uint8_t *)text;
    unsigned length;
    if (bytes == 0 || bt_utf8_probe(text, bytes, &length) != BT_UTF8_WHOLE) return 0;
    switch (length) {
    case 1: *ret_code = s[0]; break;
    case 2: *ret_code = (s[0] & 0x1Fu) << 6 | (s[1] & 0x3Fu); break;
    case 3: *ret_code = (s[0] & 0x0Fu) << 12 | (s[1] & 0x3Fu) << 6 | (s[2] & 0x3Fu); break;
    default:
        *ret_code =
            (s[0] & 0x07u) << 18 | (s[1] & 0x3Fu) << 12 | (s[2] & 0x3Fu) << 6 | (s[3] & 0x3Fu);
    }
    return length;
}

unsigned bt_utf8_encode(uint32_t code, char ret_text[4])
{
    return (unsigned)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)ret_text);
}

static bool is_space(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bt_char_class bt_char_class_of(uint32_t code)
{
    if (code < 0x80) {
        if ((code | 0x20) >= 'a' && (code | 0x20) <= 'z') return BT_CHAR_LETTER;
        if (code >= '0' && code <= '9') return BT_CHAR_NUMBER;
        return is_space(code) ? BT_CHAR_SPACE : BT_CHAR_OTHER;
    }
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return BT_CHAR_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return BT_CHAR_NUMBER;
    default: return is_space(code) ? BT_CHAR_SPACE : BT_CHAR_OTHER;
    }
}
