/* http1_trace.h - what the HTTP/1.1 parser says about a byte string, as one text that does not
 * depend on how the bytes were cut. For test_http1, the fuzz target and the h11 comparison. */
#ifndef BT_TESTS_UNIT_HTTP1_TRACE_H
#define BT_TESTS_UNIT_HTTP1_TRACE_H

#include "common/net/http1.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    bt_http1 parser;
    char *text;
    size_t bytes, capacity;
    bool in_body, failed;
} http1_trace;

static inline void trace_add(http1_trace *t, const char *data, size_t bytes)
{
    if (t->bytes + bytes + 1 > t->capacity) {
        t->capacity = (t->bytes + bytes + 1) * 2;
        t->text = realloc(t->text, t->capacity);
        if (t->text == NULL) abort();
    }
    if (bytes > 0) memcpy(t->text + t->bytes, data, bytes);
    t->bytes += bytes;
    t->text[t->bytes] = '\0';
}

static inline void trace_word(http1_trace *t, const char *word)
{
    trace_add(t, word, strlen(word));
}

static inline void trace_part(http1_trace *t, const char *label, bt_text value)
{
    trace_word(t, label);
    trace_add(t, value.data, value.bytes);
    trace_word(t, "|");
}

static inline void trace_head(http1_trace *t)
{
    const bt_http1_request *r = &t->parser.request;
    char flags[64];
    trace_part(t, "HEAD ", r->method);
    trace_part(t, "", r->target);
    trace_part(t, "path=", r->path);
    trace_part(t, "query=", r->query);
    snprintf(flags, sizeof(flags), "1.%u keep=%d expect=%d body=%d|", r->minor, r->keep_alive,
             r->expect_continue, r->has_body);
    trace_word(t, flags);
    for (uint32_t i = 0; i < r->field_count; i++) {
        trace_part(t, "", r->fields[i].name);
        trace_part(t, "=", r->fields[i].value);
    }
    trace_word(t, "\n");
}

static inline void trace_init(http1_trace *t, uint64_t body_bytes_max)
{
    memset(t, 0, sizeof(*t));
    bt_http1_init(&t->parser, body_bytes_max);
    trace_add(t, "", 0);
}

/* Feeds one piece as the server does: until the parser needs more. */
static inline void trace_feed(http1_trace *t, const char *data, size_t bytes)
{
    while (!t->failed) {
        size_t used = 0;
        bt_text piece = {0};
        bt_http1_event event = bt_http1_feed(&t->parser, data, bytes, &used, &piece);
        if (used > bytes) abort();
        data += used;
        bytes -= used;
        switch (event) {
        case BT_HTTP1_NEED:
            if (bytes != 0) abort();
            return;
        case BT_HTTP1_HEAD: trace_head(t); break;
        case BT_HTTP1_BODY:
            if (piece.bytes == 0) abort();
            if (!t->in_body) trace_word(t, "BODY ");
            t->in_body = true;
            trace_add(t, piece.data, piece.bytes);
            break;
        case BT_HTTP1_END:
            if (t->in_body) trace_word(t, "\n");
            t->in_body = false;
            trace_word(t, "END\n");
            break;
        case BT_HTTP1_ERROR: {
            char line[128];
            bt_http1_error error = bt_http1_error_get(&t->parser);
            snprintf(line, sizeof(line), "\nERROR %d %s\n", error.status, error.text);
            trace_word(t, line);
            t->failed = true;
        }
        }
    }
}

static inline void trace_free(http1_trace *t)
{
    free(t->text);
    t->text = NULL;
}

#endif
