/* sse.h - server-sent events out of bytes that arrive in any pieces (WHATWG HTML, section 9.2.6).
 *
 * FLOW    init -> feed … -> end -> finish; reset to begin another stream
 * LINES   end with LF, CR LF or CR. A blank line ends an event; an event without data is none. Data
 *         lines of one event are joined by LF. A byte order mark at the beginning is dropped.
 * STRICT  Fields are data, event, id and retry; a colon begins a comment. The standard would ignore
 *         any other line: here it is an error, since it says that the server sends something else.
 *         So are bytes that are not UTF-8, NUL, and a stream that ends inside an event.
 * BOUNDS  BT_SSE_EVENT_BYTES_MAX for a line and for an event's data. Memory grows to that.
 * SPEED   A line that lies whole in what was fed is not copied before its data is. */
#ifndef BT_OPS_CLI_BENCH_SSE_H
#define BT_OPS_CLI_BENCH_SSE_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define BT_SSE_EVENT_BYTES_MAX (4u << 20)

/* Of one event; data is not NUL-terminated and valid during the call. What it returns if not BT_OK
 * ends the feeding. */
typedef bt_status (*bt_sse_on_event)(void *arg, const char *data, size_t bytes, bt_err *err);

typedef struct {
    char *data;
    size_t bytes, capacity;
} bt_sse_buffer;

typedef struct {
    bt_sse_on_event on_event;
    void *arg;
    bt_sse_buffer line, data; /* of the line and the event that are not complete */
    bool has_data;            /* a data line was seen, perhaps an empty one */
    bool skip_lf;             /* the byte before was a CR */
    bool begun;               /* the first line is over */
} bt_sse;

void bt_sse_init(bt_sse *sse, bt_sse_on_event on_event, void *arg);
void bt_sse_reset(bt_sse *sse); /* keeps the memory */
void bt_sse_finish(bt_sse *sse);

/* Errors: ERR_FORMAT, ERR_LIMIT, ERR_NO_MEMORY, and what on_event returns. After one, only reset
 * and finish may follow. */
bt_status bt_sse_feed(bt_sse *sse, const char *bytes, size_t count, bt_err *err);

/* The stream is over. Errors: ERR_FORMAT if it is so inside a line or an event. */
bt_status bt_sse_end(const bt_sse *sse, bt_err *err);

#endif
