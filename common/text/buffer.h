/* buffer.h - a text that grows, and can have a mark on each of its bytes.
 *
 * MARKS   say of each byte of a text what its writer knew of it (tokenizer.h: no special token
 *         begins here). What is made of some bytes is marked if one of them was. */
#ifndef BT_COMMON_TEXT_BUFFER_H
#define BT_COMMON_TEXT_BUFFER_H

#include "common/base/status.h"
#include "common/text/tokenizer.h"

#define BT_BUFFER_BYTES_MAX (4u * BT_TEXT_BYTES_MAX)

/* Zero is empty; release gives its memory back. */
typedef struct {
    char *data;
    uint8_t *marks; /* 0 or 1 of each byte; NULL unless marked */
    size_t bytes;
    size_t capacity;
    bool marked;
} bt_buffer;

/* Adds bytes that come from nowhere. This and the next two: ERR_LIMIT, ERR_NO_MEMORY. */
bt_status bt_buffer_add(bt_buffer *buffer, const char *data, size_t bytes, bt_err *err);
/* Adds bytes that come from bytes at … at + taken - 1 of another buffer. */
bt_status bt_buffer_put(bt_buffer *buffer, const char *data, size_t bytes, const bt_buffer *from,
                        size_t at, size_t taken, bt_err *err);
/* Adds bytes of another buffer as they are, with their marks. */
bt_status bt_buffer_copy(bt_buffer *buffer, const bt_buffer *from, size_t at, size_t bytes,
                         bt_err *err);
void bt_buffer_release(bt_buffer *buffer);

#endif
