/* stop.h - finds stop strings in text that arrives in pieces, wherever the borders fall.
 *
 * FLOW    init -> push each piece of text, send what it returns -> after a match: done
 *         -> at the end without a match: flush
 * HOLDS   What could be the beginning of a stop string is held back, at most the longest stop
 *         string less one byte. The text sent ends before the match.
 * WHICH   The match that ends first wins; of two that end at the same byte, the longer one.
 * COST    A few steps for each byte (Knuth-Morris-Pratt for each string).
 * BORDER  With valid UTF-8 in text and strings, each output is whole characters. */
#ifndef BT_COMMON_TEXT_STOP_H
#define BT_COMMON_TEXT_STOP_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_STOP_STRINGS_MAX 16u
#define BT_STOP_BYTES_MAX 256u /* of one string */

typedef struct {
    const char *text;
    size_t bytes;
} bt_stop_string;

typedef struct {
    uint32_t count;
    bool matched;
    uint32_t matched_index;
    struct {
        uint32_t bytes;
        uint32_t state; /* bytes of this string that the text now ends with */
        char text[BT_STOP_BYTES_MAX];
        uint16_t fail[BT_STOP_BYTES_MAX]; /* KMP: longest border of the first i + 1 bytes */
    } strings[BT_STOP_STRINGS_MAX];
    uint32_t held_bytes;
    char held[BT_STOP_BYTES_MAX];
} bt_stop;

/* Copies the strings. Errors: ERR_ARGUMENT (an empty string), ERR_LIMIT (too many, too long). */
bt_status bt_stop_init(bt_stop *stop, const bt_stop_string *strings, uint32_t count, bt_err *err);

/* Returns the bytes written to ret_text, which holds BT_STOP_BYTES_MAX + bytes. Must not be called
 * after a match. */
size_t bt_stop_push(bt_stop *stop, const char *text, size_t bytes, char *ret_text);

/* What is held back, when the text ends without a match. ret_text holds BT_STOP_BYTES_MAX. */
size_t bt_stop_flush(bt_stop *stop, char *ret_text);

#endif
