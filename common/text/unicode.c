#include "common/text/unicode.h"

#include "common/base/utf8.h"

#include <assert.h>
#include <string.h>
#include <utf8proc.h>

unsigned bt_utf8_encode(uint32_t code, char ret_text[4])
{
    return (unsigned)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)ret_text);
}

unsigned bt_utf8_lower(uint32_t code, char ret_text[8])
{
    /* The one character whose lower case is two. */
    if (code == 0x130) return (unsigned)(stpcpy(ret_text, "i\xCC\x87") - ret_text);
    return bt_utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)code), ret_text);
}

#define BL BT_CHAR_BLANK
#define NL BT_CHAR_NEWLINE
#define PU BT_CHAR_PUNCTUATION
#define PC BT_CHAR_CONNECTOR
#define DI BT_CHAR_DIGIT
#define UP BT_CHAR_UPPER
#define LO BT_CHAR_LOWER
#define OT BT_CHAR_OTHER
static const uint16_t ascii_classes[128] = {
    OT, OT, OT, OT, OT, OT, OT, OT, OT, BL, NL, BL, BL, NL, OT, OT, /* 00 */
    OT, OT, OT, OT, OT, OT, OT, OT, OT, OT, OT, OT, OT, OT, OT, OT, /* 10 */
    BL, PU, PU, PU, PU, PU, PU, PU, PU, PU, PU, PU, PU, PU, PU, PU, /* 20 */
    DI, DI, DI, DI, DI, DI, DI, DI, DI, DI, PU, PU, PU, PU, PU, PU, /* 30 */
    PU, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, /* 40 */
    UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, PU, PU, PU, PU, PC, /* 50 */
    PU, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, /* 60 */
    LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, PU, PU, PU, PU, OT, /* 70 */
};
#undef BL
#undef NL
#undef PU
#undef PC
#undef DI
#undef UP
#undef LO
#undef OT

static bool joins(uint32_t code)
{
    return code == 0x200C || code == 0x200D || (code >= 0x24B6 && code <= 0x24E9) ||
           (code >= 0x1F130 && code <= 0x1F149) || (code >= 0x1F150 && code <= 0x1F169) ||
           (code >= 0x1F170 && code <= 0x1F189);
}

bt_char_set bt_char_class_of(uint32_t code)
{
    if (code < 0x80) return ascii_classes[code];
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT: return BT_CHAR_UPPER;
    case UTF8PROC_CATEGORY_LL: return BT_CHAR_LOWER;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return BT_CHAR_CASELESS;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return BT_CHAR_MARK;
    case UTF8PROC_CATEGORY_ND: return BT_CHAR_DIGIT;
    case UTF8PROC_CATEGORY_NL: return BT_CHAR_NUMERAL;
    case UTF8PROC_CATEGORY_NO: return BT_CHAR_NUMBER_OTHER;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return BT_CHAR_BLANK;
    case UTF8PROC_CATEGORY_PC: return BT_CHAR_CONNECTOR;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: return BT_CHAR_PUNCTUATION;
    default: break;
    }
    if (code == 0x85) return BT_CHAR_BLANK; /* NEL, the one control that is white space */
    return joins(code) ? BT_CHAR_JOINER : BT_CHAR_OTHER;
}

bt_char_set bt_char_class_at(const char *text, size_t bytes, size_t at, size_t *ret_end)
{
    uint8_t byte = (uint8_t)text[at];
    if (byte < 0x80) {
        *ret_end = at + 1;
        return ascii_classes[byte];
    }
    uint32_t code = 0;
    size_t length = bt_utf8_char(text + at, bytes - at, &code);
    assert(length > 0);
    *ret_end = at + length;
    return bt_char_class_of(code);
}
