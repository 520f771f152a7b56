#include "common/text/unicode.h"

#include <stdbool.h>
#include <utf8proc.h>

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
