#include "ops/cli/bench/sse.h"

#include "common/base/parse.h"
#include "common/base/utf8.h"

#include <stdlib.h>
#include <string.h>

void bt_sse_init(bt_sse *sse, bt_sse_on_event on_event, void *arg)
{
    *sse = (bt_sse){.on_event = on_event, .arg = arg};
}

void bt_sse_reset(bt_sse *sse)
{
    sse->line.bytes = sse->data.bytes = 0;
    sse->has_data = sse->skip_lf = sse->begun = false;
}

void bt_sse_finish(bt_sse *sse)
{
    free(sse->line.data);
    free(sse->data.data);
    *sse = (bt_sse){0};
}

static bt_status append(bt_sse_buffer *buffer, const char *bytes, size_t count, bt_err *err)
{
    if (count > BT_SSE_EVENT_BYTES_MAX - buffer->bytes)
        return BT_FAIL(err, BT_ERR_LIMIT, "an event of more than %u bytes", BT_SSE_EVENT_BYTES_MAX);
    if (buffer->bytes + count > buffer->capacity) {
        size_t capacity = 2 * (buffer->bytes + count) + 256;
        char *grown = realloc(buffer->data, capacity);
        if (!grown) return BT_FAIL(err, BT_ERR_NO_MEMORY, "an event of %zu bytes", capacity);
        buffer->data = grown;
        buffer->capacity = capacity;
    }
    if (count > 0) memcpy(buffer->data + buffer->bytes, bytes, count);
    buffer->bytes += count;
    return BT_OK;
}

static bt_status dispatch(bt_sse *sse, bt_err *err)
{
    if (!sse->has_data) return BT_OK;
    bt_status status = sse->on_event(sse->arg, sse->data.data, sse->data.bytes, err);
    sse->data.bytes = 0;
    sse->has_data = false;
    return status;
}

static bool is_field(const char *line, size_t name_bytes, const char *field)
{
    return name_bytes == strlen(field) && memcmp(line, field, name_bytes) == 0;
}

static bt_status refuse(const char *line, size_t bytes, const char *what, bt_err *err)
{
    char shown[64];
    bt_escape(line, bytes < 48 ? bytes : 48, shown, sizeof(shown));
    return BT_FAIL(err, BT_ERR_FORMAT, "%s: '%s'", what, shown);
}

/* One whole line, without its end. */
static bt_status take_line(bt_sse *sse, const char *line, size_t bytes, bt_err *err)
{
    if (!sse->begun && bytes >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
        line += 3;
        bytes -= 3;
    }
    sse->begun = true;
    if (bytes == 0) return dispatch(sse, err);
    if (!bt_utf8_valid(line, bytes) || memchr(line, '\0', bytes))
        return refuse(line, bytes, "a line of the event stream is not text", err);
    if (line[0] == ':') return BT_OK;
    const char *colon = memchr(line, ':', bytes);
    size_t name = colon ? (size_t)(colon - line) : bytes;
    if (is_field(line, name, "event") || is_field(line, name, "id") ||
        is_field(line, name, "retry"))
        return BT_OK;
    if (!is_field(line, name, "data"))
        return refuse(line, bytes, "a line of the event stream is no field", err);
    const char *value = colon ? colon + 1 : line + bytes;
    if (value < line + bytes && *value == ' ') value++;
    bt_status status = sse->has_data ? append(&sse->data, "\n", 1, err) : BT_OK;
    sse->has_data = true;
    return status == BT_OK ? append(&sse->data, value, (size_t)(line + bytes - value), err)
                           : status;
}

/* The first CR or LF of [at, end), or NULL. */
static const char *line_end(const char *at, const char *end)
{
    const char *lf = memchr(at, '\n', (size_t)(end - at));
    const char *cr = memchr(at, '\r', (size_t)((lf ? lf : end) - at));
    return cr ? cr : lf;
}

bt_status bt_sse_feed(bt_sse *sse, const char *bytes, size_t count, bt_err *err)
{
    const char *at = bytes, *end = bytes + count;
    while (at < end) {
        if (sse->skip_lf && *at == '\n') at++;
        sse->skip_lf = false;
        const char *stop = at < end ? line_end(at, end) : NULL;
        if (!stop) return append(&sse->line, at, (size_t)(end - at), err);
        const char *line = at;
        size_t length = (size_t)(stop - at);
        if (sse->line.bytes > 0) {
            bt_status status = append(&sse->line, at, length, err);
            if (status != BT_OK) return status;
            line = sse->line.data;
            length = sse->line.bytes;
        }
        sse->skip_lf = *stop == '\r';
        at = stop + 1;
        sse->line.bytes = 0;
        bt_status status = take_line(sse, line, length, err);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

bt_status bt_sse_end(const bt_sse *sse, bt_err *err)
{
    if (sse->line.bytes > 0 || sse->has_data)
        return BT_FAIL(err, BT_ERR_FORMAT, "the event stream ended inside an event");
    return BT_OK;
}
