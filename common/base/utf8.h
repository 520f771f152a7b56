/* utf8.h - UTF-8 as RFC 3629 defines it: no surrogates, no overlong forms, nothing above U+10FFFF.
 * Pure. */
#ifndef BT_COMMON_BASE_UTF8_H
#define BT_COMMON_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How far the bytes at text are the beginning of one character, for text that arrives in pieces. */
typedef enum {
    BT_UTF8_WHOLE,  /* *ret_bytes is a character */
    BT_UTF8_PREFIX, /* all bytes, *ret_bytes of them, could still become one */
    BT_UTF8_BAD     /* the first *ret_bytes (1 to 3) can never become one: one U+FFFD */
} bt_utf8_state;
bt_utf8_state bt_utf8_probe(const char *text, size_t bytes, unsigned *ret_bytes);

/* Bytes of the character at text (1 to 4), or 0 if these bytes do not begin with one, as when there
 * are none. *ret_code (may be NULL) gets the code point. */
size_t bt_utf8_char(const char *text, size_t bytes, uint32_t *ret_code);

/* All of text is UTF-8. NUL bytes are: look for them apart where they matter. */
bool bt_utf8_valid(const char *text, size_t bytes);

#endif
