/* utf8.h - UTF-8 as RFC 3629 defines it: no surrogates, no overlong forms, nothing above U+10FFFF;
 * and the three classes of code points that pre-tokenizer patterns ask for. */
#ifndef BT_COMMON_TEXT_UTF8_H
#define BT_COMMON_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at text (1 to 4) and its code point; 0 if these bytes are not one. */
unsigned bt_utf8_decode(const char *text, size_t bytes, uint32_t *ret_code);

/* Writes a code point, which must be valid, and returns its bytes. */
unsigned bt_utf8_encode(uint32_t code, char ret_text[4]);

/* How far the bytes at text are the beginning of one character, for text that arrives in pieces. */
typedef enum {
    BT_UTF8_WHOLE,  /* *ret_bytes is a character */
    BT_UTF8_PREFIX, /* all bytes, *ret_bytes of them, could still become one */
    BT_UTF8_BAD     /* the first *ret_bytes (1 to 3) can never become one: one U+FFFD */
} bt_utf8_state;
bt_utf8_state bt_utf8_probe(const char *text, size_t bytes, unsigned *ret_bytes);

/* \p{L}, \p{N} and \s of the usual patterns, as Unicode 15 has them. */
typedef enum { BT_CHAR_OTHER, BT_CHAR_LETTER, BT_CHAR_NUMBER, BT_CHAR_SPACE } bt_char_class;
bt_char_class bt_char_class_of(uint32_t code);

#endif
