/* http1.h - a strict HTTP/1.1 request parser: bytes in, events out.
 *
 * WHAT    RFC 9112 without its leniencies. It knows no sockets and allocates nothing. Whatever two
 *         implementations could read differently is an error: Content-Length with Transfer-Encoding,
 *         repeated, signed or listed lengths, folded fields, bare CR or LF, blanks before a colon,
 *         codings other than chunked, underscores in names, HTTP/0.9.
 * FLOW    init -> feed … -> HEAD -> BODY … -> END -> feed … (the next request of the connection)
 *         feed returns one event and how much it used; call it again with the rest, with no bytes
 *         left too, until it says NEED. ERROR is final.
 *         How the input is cut does not change the events, but for where BODY pieces begin and end.
 * OWNS    The request view borrows from the parser: from HEAD until the feed after END. Field names
 *         are in lower case, values without surrounding blanks.
 * BOUNDS  The constants below, and body_bytes_max of init (413). Trailer fields are checked and
 *         dropped; framing fields among them are an error.
 * SOURCE  RFC 9112, RFC 9110. Compared with h11 by tests/e2e/test_http1_h11.py. */
#ifndef BT_COMMON_NET_HTTP1_H
#define BT_COMMON_NET_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_HTTP1_HEAD_BYTES_MAX 16384u    /* request line and fields with their line ends */
#define BT_HTTP1_TARGET_BYTES_MAX 8192u   /* 414 */
#define BT_HTTP1_METHOD_BYTES_MAX 32u     /* 501 */
#define BT_HTTP1_FIELDS_MAX 100u          /* 431 */
#define BT_HTTP1_CHUNK_EXT_BYTES_MAX 256u /* of one chunk */
#define BT_HTTP1_TRAILER_BYTES_MAX 4096u  /* trailer fields, and chunk extensions, of one request */

typedef struct {
    const char *data; /* not terminated */
    size_t bytes;
} bt_text;

/* True if text is exactly that literal. */
bool bt_text_is(bt_text text, const char *literal);

typedef struct {
    bt_text name, value;
} bt_http1_field;

typedef struct {
    bt_text method;
    bt_text target; /* as sent */
    bt_text path;   /* without scheme and authority, from the first "/"; "*" of OPTIONS */
    bt_text query;  /* after "?", or empty */
    unsigned minor; /* HTTP/1.minor: 0 or 1 */
    bool keep_alive;
    bool expect_continue; /* the client waits for 100 before it sends the body */
    bool has_body;        /* a length above 0, or chunked */
    uint32_t field_count;
    bt_http1_field fields[BT_HTTP1_FIELDS_MAX];
} bt_http1_request;

typedef enum {
    BT_HTTP1_NEED,  /* everything is used, more is needed */
    BT_HTTP1_HEAD,  /* the request view is complete but for the body */
    BT_HTTP1_BODY,  /* *ret_body is the next piece, within data */
    BT_HTTP1_END,   /* the request is complete */
    BT_HTTP1_ERROR, /* see bt_http1_error */
} bt_http1_event;

typedef struct {
    int status;       /* what to answer: 400, 413, 414, 417, 431, 501, 505 */
    const char *text; /* static */
} bt_http1_error;

typedef struct {
    bt_http1_request request;
    /* The rest is the parser's own. */
    uint8_t state;
    bool chunked, has_length, has_host, expect_unknown, connection_close, connection_keep;
    uint64_t length; /* Content-Length, or what is left of it or of the chunk */
    uint64_t body_bytes, body_bytes_max;
    uint32_t chunk_digits, chunk_ext_bytes, overhead_bytes, trailer_fields;
    uint32_t used, line_begin;
    bt_http1_error error;
    char head[BT_HTTP1_HEAD_BYTES_MAX + BT_HTTP1_TRAILER_BYTES_MAX];
} bt_http1;

void bt_http1_init(bt_http1 *parser, uint64_t body_bytes_max);

bt_http1_event bt_http1_feed(bt_http1 *parser, const char *data, size_t bytes, size_t *ret_used,
                             bt_text *ret_body);

/* After ERROR. */
bt_http1_error bt_http1_error_get(const bt_http1 *parser);

/* Nothing of a next request has been seen: the connection is between two requests. */
bool bt_http1_is_idle(const bt_http1 *parser);

/* The value of the first field of that name (lower case), or NULL. */
const bt_text *bt_http1_find(const bt_http1_request *request, const char *name);

#endif
