#include "common/text/buffer.h"

#include <stdlib.h>
#include <string.h>

static bt_status reserve(bt_buffer *buffer, size_t bytes, bt_err *err)
{
    if (bytes > BT_BUFFER_BYTES_MAX - buffer->bytes)
        return BT_FAIL(err, BT_ERR_LIMIT, "the normalized text has more than %u bytes",
                       BT_BUFFER_BYTES_MAX);
    if (buffer->bytes + bytes <= buffer->capacity) return BT_OK;
    size_t capacity = 2 * (buffer->bytes + bytes) + 64;
    char *grown = realloc(buffer->data, capacity);
    if (grown == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for normalized text");
    buffer->data = grown;
    if (buffer->marked) {
        uint8_t *marks = realloc(buffer->marks, capacity);
        if (marks == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for normalized text");
        buffer->marks = marks;
    }
    buffer->capacity = capacity;
    return BT_OK;
}

bt_status bt_buffer_put(bt_buffer *buffer, const char *data, size_t bytes, const bt_buffer *from,
                        size_t at, size_t taken, bt_err *err)
{
    bt_status status = reserve(buffer, bytes, err);
    if (status != BT_OK || bytes == 0) return status;
    memcpy(buffer->data + buffer->bytes, data, bytes);
    if (buffer->marked) {
        bool mark = from != NULL && from->marked && memchr(from->marks + at, 1, taken) != NULL;
        memset(buffer->marks + buffer->bytes, mark, bytes);
    }
    buffer->bytes += bytes;
    return BT_OK;
}

bt_status bt_buffer_copy(bt_buffer *buffer, const bt_buffer *from, size_t at, size_t bytes,
                         bt_err *err)
{
    if (bytes == 0) return BT_OK;
    bt_status status = bt_buffer_put(buffer, from->data + at, bytes, NULL, 0, 0, err);
    if (status == BT_OK && buffer->marked && from->marked)
        memcpy(buffer->marks + buffer->bytes - bytes, from->marks + at, bytes);
    return status;
}

bt_status bt_buffer_add(bt_buffer *buffer, const char *data, size_t bytes, bt_err *err)
{
    return bt_buffer_put(buffer, data, bytes, NULL, 0, 0, err);
}

void bt_buffer_release(bt_buffer *buffer)
{
    free(buffer->data);
    free(buffer->marks);
    *buffer = (bt_buffer){0};
}
