/* unicode.h - code points: their bytes, and the classes that the stages of a tokenizer ask for.
 * Bytes to code points: common/base/utf8.h.
 *
 * VERSION Classes are those of Unicode 15 (utf8proc 2.8). The few characters that came later have
 *         none, where Hugging Face's newer tables may know them. */
#ifndef BT_COMMON_TEXT_UNICODE_H
#define BT_COMMON_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes a code point, which must be valid, and returns its bytes. */
unsigned bt_utf8_encode(uint32_t code, char ret_text[4]);

/* Writes the lower case of a code point (Unicode's, without regard to language or neighbours) and
 * returns its bytes. */
unsigned bt_utf8_lower(uint32_t code, char ret_text[8]);

/* A set of classes; a code point is in exactly one class. */
typedef uint32_t bt_char_set;
#define BT_CHAR_UPPER (1u << 0)        /* \p{Lu} \p{Lt} */
#define BT_CHAR_LOWER (1u << 1)        /* \p{Ll} */
#define BT_CHAR_CASELESS (1u << 2)     /* \p{Lm} \p{Lo} */
#define BT_CHAR_MARK (1u << 3)         /* \p{M} */
#define BT_CHAR_DIGIT (1u << 4)        /* \p{Nd} */
#define BT_CHAR_NUMERAL (1u << 5)      /* \p{Nl} */
#define BT_CHAR_NUMBER_OTHER (1u << 6) /* \p{No} */
#define BT_CHAR_NEWLINE (1u << 7)      /* CR and LF */
#define BT_CHAR_BLANK (1u << 8)        /* other white space */
#define BT_CHAR_CONNECTOR (1u << 9)    /* \p{Pc} */
#define BT_CHAR_PUNCTUATION (1u << 10) /* other \p{P}, and ASCII's symbols */
#define BT_CHAR_JOINER (1u << 11)      /* what else \w has: zero-width joiners, encircled letters */
#define BT_CHAR_OTHER (1u << 12)

#define BT_CHAR_LETTER (BT_CHAR_UPPER | BT_CHAR_LOWER | BT_CHAR_CASELESS)       /* \p{L} */
#define BT_CHAR_NUMBER (BT_CHAR_DIGIT | BT_CHAR_NUMERAL | BT_CHAR_NUMBER_OTHER) /* \p{N} */
#define BT_CHAR_SPACE (BT_CHAR_NEWLINE | BT_CHAR_BLANK)                         /* \s */
#define BT_CHAR_VISIBLE (~(BT_CHAR_LETTER | BT_CHAR_NUMBER | BT_CHAR_SPACE)) /* [^\s\p{L}\p{N}] */
#define BT_CHAR_PUNCT (BT_CHAR_CONNECTOR | BT_CHAR_PUNCTUATION)
#define BT_CHAR_WORD                                                                               \
    (BT_CHAR_LETTER | BT_CHAR_MARK | BT_CHAR_DIGIT | BT_CHAR_NUMERAL | BT_CHAR_CONNECTOR |         \
     BT_CHAR_JOINER) /* \w */

/* The class of a code point, a set of one. */
bt_char_set bt_char_class_of(uint32_t code);

/* The class of the character that begins at text[at], and where it ends. text[0 … bytes - 1] is
 * valid UTF-8 and at is less than bytes. */
bt_char_set bt_char_class_at(const char *text, size_t bytes, size_t at, size_t *ret_end);

#endif
