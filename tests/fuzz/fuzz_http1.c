/* fuzz_http1.c - any bytes as HTTP/1.1 requests: whatever the cut, the parser says the same.
 *
 * INPUT   byte 0: how to cut; the rest is fed once whole and once in pieces of pseudo-random
 *         lengths that follow from it. */
#include "tests/unit/http1_trace.h"

#include <assert.h>

#define BODY_MAX 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Every slice a request hands out lies in the parser's own memory. */
static void check_request(const bt_http1 *parser)
{
    const bt_http1_request *r = &parser->request;
    const char *begin = parser->head, *end = parser->head + sizeof(parser->head);
    assert(r->field_count <= BT_HTTP1_FIELDS_MAX);
    for (uint32_t i = 0; i < r->field_count; i++) {
        const bt_http1_field *field = &r->fields[i];
        assert(field->name.bytes > 0);
        assert(field->name.data >= begin && field->value.data >= field->name.data);
        assert(field->value.data + field->value.bytes <= end);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0) return 0;
    http1_trace whole, pieces;
    uint32_t state = data[0];
    const char *text = (const char *)data + 1;
    bytes--;
    trace_init(&whole, BODY_MAX);
    trace_feed(&whole, text, bytes);
    check_request(&whole.parser);
    trace_init(&pieces, BODY_MAX);
    for (size_t at = 0; at < bytes;) {
        state = state * 1664525u + 1013904223u;
        size_t piece = (state >> 24) % 7 == 0 ? 1 + (state >> 16) % 64 : 1 + (state >> 28) % 4;
        if (piece > bytes - at) piece = bytes - at;
        trace_feed(&pieces, text + at, piece);
        at += piece;
    }
    assert(whole.bytes == pieces.bytes && memcmp(whole.text, pieces.text, whole.bytes) == 0);
    trace_free(&whole);
    trace_free(&pieces);
    return 0;
}
