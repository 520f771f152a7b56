/* unicode.h - code points: their bytes, and the three classes that pre-tokenizer patterns ask for.
 * Bytes to code points: common/base/utf8.h. */
#ifndef BT_COMMON_TEXT_UNICODE_H
#define BT_COMMON_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

/* Writes a code point, which must be valid, and returns its bytes. */
unsigned bt_utf8_encode(uint32_t code, char ret_text[4]);

/* \p{L}, \p{N} and \s of the usual patterns, as Unicode 15 has them. */
typedef enum { BT_CHAR_OTHER, BT_CHAR_LETTER, BT_CHAR_NUMBER, BT_CHAR_SPACE } bt_char_class;
bt_char_class bt_char_class_of(uint32_t code);

#endif
