#include "common/base/utf8.h"

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

size_t bt_utf8_char(const char *text, size_t bytes, uint32_t *ret_code)
{
    const uint8_t *s = (const uint8_t *)text;
    unsigned length;
    if (bytes == 0 || bt_utf8_probe(text, bytes, &length) != BT_UTF8_WHOLE) return 0;
    if (ret_code == NULL) return length;
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

bool bt_utf8_valid(const char *text, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        size_t length = bt_utf8_char(text + at, bytes - at, NULL);
        if (length == 0) return false;
        at += length;
    }
    return true;
}
