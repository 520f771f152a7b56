#include "common/net/http1.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

enum {
    AT_REQUEST_LINE,
    AT_FIELDS,
    AT_LENGTH_BODY,
    AT_CHUNK_SIZE,
    AT_CHUNK_EXT,
    AT_CHUNK_SIZE_LF,
    AT_CHUNK_DATA,
    AT_CHUNK_DATA_CR,
    AT_CHUNK_DATA_LF,
    AT_TRAILER,
    AT_END,   /* END is the next event */
    AT_RESET, /* END was told: the next byte begins a new request */
    AT_ERROR,
};

/* 15 hexadecimal digits cannot overflow 64 bits, even when added up to body_bytes_max. */
#define CHUNK_DIGITS_MAX 15u
#define LENGTH_DIGITS_MAX 18u

static const bt_http1_error no_error;

static bool is_token_char(char c)
{
    /* RFC 9110 tchar without "_", which some gateways take for "-". */
    static const char others[] = "!#$%&'*+-.^`|~";
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && strchr(others, c) != NULL);
}

static bool is_visible(char c)
{
    return c > 0x20 && c < 0x7f;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* VCHAR, obs-text, blank. */
static bool is_value_char(char c)
{
    unsigned char u = (unsigned char)c;
    return u == '\t' || (u >= 0x20 && u != 0x7f);
}

static char to_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool bt_text_is(bt_text text, const char *literal)
{
    return text.bytes == strlen(literal) && memcmp(text.data, literal, text.bytes) == 0;
}

static bool text_is_nocase(bt_text text, const char *literal)
{
    return text.bytes == strlen(literal) && strncasecmp(text.data, literal, text.bytes) == 0;
}

static void begin_request(bt_http1 *p)
{
    p->request.field_count = 0;
    p->request.expect_continue = p->request.has_body = p->request.keep_alive = false;
    p->chunked = p->has_length = p->has_host = p->expect_unknown = false;
    p->connection_close = p->connection_keep = false;
    p->length = p->body_bytes = 0;
    p->overhead_bytes = p->trailer_fields = 0;
    p->used = p->line_begin = 0;
    p->state = AT_REQUEST_LINE;
}

void bt_http1_init(bt_http1 *parser, uint64_t body_bytes_max)
{
    assert(body_bytes_max <= UINT64_MAX / 2);
    parser->body_bytes_max = body_bytes_max;
    parser->error = no_error;
    begin_request(parser);
}

bt_http1_error bt_http1_error_get(const bt_http1 *parser)
{
    assert(parser->state == AT_ERROR);
    return parser->error;
}

bool bt_http1_is_idle(const bt_http1 *parser)
{
    return parser->state == AT_RESET || (parser->state == AT_REQUEST_LINE && parser->used == 0);
}

const bt_text *bt_http1_find(const bt_http1_request *request, const char *name)
{
    for (uint32_t i = 0; i < request->field_count; i++) {
        if (bt_text_is(request->fields[i].name, name)) return &request->fields[i].value;
    }
    return NULL;
}

static bool fail(bt_http1 *p, int status, const char *text)
{
    p->state = AT_ERROR;
    p->error = (bt_http1_error){.status = status, .text = text};
    return false;
}

/* Splits origin-form, absolute-form and "*" into path and query. */
static bool split_target(bt_http1 *p)
{
    bt_http1_request *r = &p->request;
    bt_text rest = r->target;
    if (memchr(rest.data, '#', rest.bytes) != NULL) {
        return fail(p, 400, "the request target has a fragment");
    }
    if (bt_text_is(rest, "*") && bt_text_is(r->method, "OPTIONS")) {
        r->path = rest;
        r->query = (bt_text){.data = rest.data + rest.bytes};
        return true;
    }
    static const char scheme[] = "http://";
    size_t scheme_bytes = sizeof(scheme) - 1;
    if (rest.bytes > scheme_bytes && strncasecmp(rest.data, scheme, scheme_bytes) == 0) {
        const char *slash = memchr(rest.data + scheme_bytes, '/', rest.bytes - scheme_bytes);
        if (slash == NULL) return fail(p, 400, "the request target has no path");
        rest.bytes -= (size_t)(slash - rest.data);
        rest.data = slash;
    }
    if (rest.data[0] != '/') return fail(p, 400, "the request target is not a path");
    const char *mark = memchr(rest.data, '?', rest.bytes);
    size_t path_bytes = mark == NULL ? rest.bytes : (size_t)(mark - rest.data);
    r->path = (bt_text){.data = rest.data, .bytes = path_bytes};
    r->query = (bt_text){.data = rest.data + path_bytes};
    if (mark != NULL) {
        r->query = (bt_text){.data = mark + 1, .bytes = rest.bytes - path_bytes - 1};
    }
    return true;
}

static bool take_request_line(bt_http1 *p, bt_text line)
{
    size_t method_bytes = 0;
    while (method_bytes < line.bytes && is_token_char(line.data[method_bytes])) method_bytes++;
    if (method_bytes == 0 || method_bytes == line.bytes || line.data[method_bytes] != ' ') {
        return fail(p, 400, "malformed request line");
    }
    if (method_bytes > BT_HTTP1_METHOD_BYTES_MAX) return fail(p, 501, "unknown method");
    p->request.method = (bt_text){.data = line.data, .bytes = method_bytes};
    const char *target = line.data + method_bytes + 1;
    size_t rest = line.bytes - method_bytes - 1, target_bytes = 0;
    while (target_bytes < rest && is_visible(target[target_bytes])) target_bytes++;
    if (target_bytes == 0 || target_bytes == rest || target[target_bytes] != ' ') {
        return fail(p, 400, "malformed request line");
    }
    if (target_bytes > BT_HTTP1_TARGET_BYTES_MAX) {
        return fail(p, 414, "the request target is too long");
    }
    p->request.target = (bt_text){.data = target, .bytes = target_bytes};
    bt_text version = {.data = target + target_bytes + 1, .bytes = rest - target_bytes - 1};
    if (version.bytes != 8 || memcmp(version.data, "HTTP/", 5) != 0 || version.data[6] != '.') {
        return fail(p, 400, "malformed request line");
    }
    if (version.data[5] != '1' || (version.data[7] != '0' && version.data[7] != '1')) {
        return fail(p, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    }
    p->request.minor = version.data[7] == '1';
    return split_target(p);
}

static bool take_length(bt_http1 *p, bt_text value)
{
    if (p->has_length) return fail(p, 400, "Content-Length is given twice");
    if (value.bytes == 0) return fail(p, 400, "malformed Content-Length");
    for (size_t i = 0; i < value.bytes; i++) {
        if (value.data[i] < '0' || value.data[i] > '9') {
            return fail(p, 400, "malformed Content-Length");
        }
    }
    if (value.bytes > LENGTH_DIGITS_MAX) return fail(p, 413, "the body is too long");
    for (size_t i = 0; i < value.bytes; i++) {
        p->length = p->length * 10 + (uint64_t)(value.data[i] - '0');
    }
    p->has_length = true;
    return true;
}

static bool take_transfer_encoding(bt_http1 *p, bt_text value)
{
    if (p->chunked) return fail(p, 400, "Transfer-Encoding is given twice");
    if (!text_is_nocase(value, "chunked")) {
        return fail(p, 501, "the only transfer coding spoken here is chunked");
    }
    p->chunked = true;
    return true;
}

static bool take_host(bt_http1 *p, bt_text value)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "-._~%!$&'()*+;=:[]";
    if (p->has_host) return fail(p, 400, "Host is given twice");
    for (size_t i = 0; i < value.bytes; i++) {
        if (value.data[i] == '\0' || strchr(allowed, value.data[i]) == NULL) {
            return fail(p, 400, "malformed Host");
        }
    }
    p->has_host = true;
    return true;
}

/* A list of tokens; what is neither close nor keep-alive does not concern us. */
static void take_connection(bt_http1 *p, bt_text value)
{
    size_t at = 0;
    while (at < value.bytes) {
        size_t begin = at;
        while (at < value.bytes && value.data[at] != ',') at++;
        size_t end = at++;
        while (begin < end && is_blank(value.data[begin])) begin++;
        while (end > begin && is_blank(value.data[end - 1])) end--;
        bt_text option = {.data = value.data + begin, .bytes = end - begin};
        if (text_is_nocase(option, "close")) p->connection_close = true;
        if (text_is_nocase(option, "keep-alive")) p->connection_keep = true;
    }
}

static bool is_framing(bt_text name)
{
    return bt_text_is(name, "content-length") || bt_text_is(name, "transfer-encoding") ||
           bt_text_is(name, "host");
}

static bool take_meaning(bt_http1 *p, bt_http1_field field)
{
    if (bt_text_is(field.name, "content-length")) return take_length(p, field.value);
    if (bt_text_is(field.name, "transfer-encoding")) return take_transfer_encoding(p, field.value);
    if (bt_text_is(field.name, "host")) return take_host(p, field.value);
    if (bt_text_is(field.name, "connection")) take_connection(p, field.value);
    if (bt_text_is(field.name, "expect")) {
        if (text_is_nocase(field.value, "100-continue"))
            p->request.expect_continue = true;
        else
            p->expect_unknown = true;
    }
    return true;
}

/* Cuts a line at its colon; puts the name into lower case where it stands. */
static bool split_field(bt_http1 *p, char *line, size_t bytes, bt_http1_field *ret_field)
{
    if (is_blank(line[0])) return fail(p, 400, "folded field");
    size_t name_bytes = 0;
    for (; name_bytes < bytes && is_token_char(line[name_bytes]); name_bytes++) {
        line[name_bytes] = to_lower(line[name_bytes]);
    }
    if (name_bytes == 0 || name_bytes == bytes || line[name_bytes] != ':') {
        return fail(p, 400, "malformed field name");
    }
    size_t begin = name_bytes + 1, end = bytes;
    while (begin < end && is_blank(line[begin])) begin++;
    while (end > begin && is_blank(line[end - 1])) end--;
    for (size_t i = begin; i < end; i++) {
        if (!is_value_char(line[i])) return fail(p, 400, "control character in a field");
    }
    *ret_field = (bt_http1_field){
        .name = {.data = line, .bytes = name_bytes},
        .value = {.data = line + begin, .bytes = end - begin},
    };
    return true;
}

/* What can only be judged when every field is known; decides how the body is framed. */
static bool finish_head(bt_http1 *p)
{
    bt_http1_request *r = &p->request;
    if (r->minor == 1 && !p->has_host) return fail(p, 400, "Host is missing");
    if (p->chunked && p->has_length) {
        return fail(p, 400, "both Content-Length and Transfer-Encoding");
    }
    if (p->chunked && r->minor == 0) return fail(p, 400, "Transfer-Encoding in HTTP/1.0");
    if (p->expect_unknown && r->minor == 1) return fail(p, 417, "unknown expectation");
    if (p->length > p->body_bytes_max) return fail(p, 413, "the body is too long");
    r->has_body = p->chunked || p->length > 0;
    r->keep_alive = !p->connection_close && (r->minor == 1 || p->connection_keep);
    if (r->minor == 0 || !r->has_body) r->expect_continue = false;
    p->chunk_digits = 0;
    p->state = p->chunked ? AT_CHUNK_SIZE : p->length > 0 ? AT_LENGTH_BODY : AT_END;
    return true;
}

/* A whole line of the head, without CRLF. *ret_done: it was the empty line that ends the head. */
static bool take_head_line(bt_http1 *p, char *line, size_t bytes, bool *ret_done)
{
    if (p->state == AT_REQUEST_LINE) {
        p->state = AT_FIELDS;
        return take_request_line(p, (bt_text){.data = line, .bytes = bytes});
    }
    if (bytes == 0) {
        *ret_done = true;
        return finish_head(p);
    }
    bt_http1_field field;
    if (p->request.field_count == BT_HTTP1_FIELDS_MAX) return fail(p, 431, "too many fields");
    if (!split_field(p, line, bytes, &field) || !take_meaning(p, field)) return false;
    p->request.fields[p->request.field_count++] = field;
    return true;
}

static bool take_trailer_line(bt_http1 *p, char *line, size_t bytes)
{
    if (bytes == 0) {
        p->state = AT_END;
        return true;
    }
    bt_http1_field field;
    if (++p->trailer_fields > BT_HTTP1_FIELDS_MAX) return fail(p, 431, "too many trailer fields");
    if (!split_field(p, line, bytes, &field)) return false;
    if (is_framing(field.name)) return fail(p, 400, "framing field in the trailer");
    p->used = p->line_begin;
    return true;
}

/* Adds one byte to the line being gathered. *ret_line: a whole line is there. */
static bool gather(bt_http1 *p, char c, bool *ret_line)
{
    bool after_cr = p->used > p->line_begin && p->head[p->used - 1] == '\r';
    if (c == '\n' && !after_cr) return fail(p, 400, "line feed without carriage return");
    if (c != '\n' && after_cr) return fail(p, 400, "carriage return without line feed");
    if (p->state == AT_TRAILER) {
        if (++p->overhead_bytes > BT_HTTP1_TRAILER_BYTES_MAX) {
            return fail(p, 431, "the trailer is too long");
        }
    } else if (p->used == BT_HTTP1_HEAD_BYTES_MAX) {
        return p->state == AT_REQUEST_LINE ? fail(p, 414, "the request target is too long")
                                           : fail(p, 431, "the head is too long");
    }
    assert(p->used < sizeof(p->head));
    p->head[p->used++] = c;
    *ret_line = c == '\n';
    return true;
}

/* Consumes head or trailer bytes up to the end of the section. */
static bt_http1_event feed_lines(bt_http1 *p, const char *data, size_t bytes, size_t *ret_used)
{
    for (size_t i = 0; i < bytes; i++) {
        bool has_line = false, head_done = false;
        *ret_used = i + 1;
        if (!gather(p, data[i], &has_line)) return BT_HTTP1_ERROR;
        if (!has_line) continue;
        char *line = p->head + p->line_begin;
        size_t line_bytes = p->used - p->line_begin - 2;
        bool is_trailer = p->state == AT_TRAILER;
        if (is_trailer ? !take_trailer_line(p, line, line_bytes)
                       : !take_head_line(p, line, line_bytes, &head_done)) {
            return BT_HTTP1_ERROR;
        }
        p->line_begin = p->used;
        if (head_done) return BT_HTTP1_HEAD;
        if (p->state == AT_END) {
            p->state = AT_RESET;
            return BT_HTTP1_END;
        }
    }
    return BT_HTTP1_NEED;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = to_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool finish_chunk_size(bt_http1 *p)
{
    if (p->length > p->body_bytes_max - p->body_bytes) return fail(p, 413, "the body is too long");
    p->state = p->length > 0 ? AT_CHUNK_DATA : AT_TRAILER;
    p->line_begin = p->used;
    return true;
}

static bool take_chunk_size(bt_http1 *p, char c)
{
    int digit = hex_digit(c);
    if (p->chunk_digits == 0) p->length = p->chunk_ext_bytes = 0;
    if (digit >= 0) {
        if (++p->chunk_digits > CHUNK_DIGITS_MAX) return fail(p, 413, "the chunk is too long");
        p->length = p->length * 16 + (uint64_t)digit;
        return true;
    }
    if (p->chunk_digits == 0) return fail(p, 400, "malformed chunk size");
    if (c != '\r' && c != ';') return fail(p, 400, "malformed chunk size");
    p->state = c == '\r' ? AT_CHUNK_SIZE_LF : AT_CHUNK_EXT;
    return true;
}

static bool take_chunk_ext(bt_http1 *p, char c)
{
    if (c == '\r') {
        p->state = AT_CHUNK_SIZE_LF;
        return true;
    }
    if (!is_blank(c) && !is_visible(c)) return fail(p, 400, "malformed chunk extension");
    if (++p->chunk_ext_bytes > BT_HTTP1_CHUNK_EXT_BYTES_MAX ||
        ++p->overhead_bytes > BT_HTTP1_TRAILER_BYTES_MAX) {
        return fail(p, 400, "the chunk extension is too long");
    }
    return true;
}

/* One byte of the framing between chunks. */
static bool take_chunk_byte(bt_http1 *p, char c)
{
    switch (p->state) {
    case AT_CHUNK_SIZE: return take_chunk_size(p, c);
    case AT_CHUNK_EXT: return take_chunk_ext(p, c);
    case AT_CHUNK_SIZE_LF:
        return c == '\n' ? finish_chunk_size(p) : fail(p, 400, "malformed chunk size");
    case AT_CHUNK_DATA_CR:
        if (c != '\r') return fail(p, 400, "the chunk does not end where its size says");
        p->state = AT_CHUNK_DATA_LF;
        return true;
    default:
        assert(p->state == AT_CHUNK_DATA_LF);
        if (c != '\n') return fail(p, 400, "the chunk does not end where its size says");
        p->state = AT_CHUNK_SIZE;
        p->chunk_digits = 0;
        return true;
    }
}

static bt_http1_event feed_body(bt_http1 *p, const char *data, size_t bytes, size_t *ret_used,
                                bt_text *ret_body)
{
    size_t take = bytes < p->length ? bytes : (size_t)p->length;
    *ret_body = (bt_text){.data = data, .bytes = take};
    *ret_used = take;
    p->length -= take;
    p->body_bytes += take;
    if (p->length == 0) p->state = p->chunked ? AT_CHUNK_DATA_CR : AT_END;
    return BT_HTTP1_BODY;
}

bt_http1_event bt_http1_feed(bt_http1 *parser, const char *data, size_t bytes, size_t *ret_used,
                             bt_text *ret_body)
{
    bt_http1 *p = parser;
    *ret_used = 0;
    if (p->state == AT_ERROR) return BT_HTTP1_ERROR;
    if (p->state == AT_END) {
        p->state = AT_RESET;
        return BT_HTTP1_END;
    }
    if (bytes == 0) return BT_HTTP1_NEED;
    if (p->state == AT_RESET) begin_request(p);
    size_t at = 0;
    while (at < bytes) {
        switch (p->state) {
        case AT_REQUEST_LINE:
        case AT_FIELDS:
        case AT_TRAILER: {
            size_t used = 0;
            bt_http1_event event = feed_lines(p, data + at, bytes - at, &used);
            *ret_used = at + used;
            return event;
        }
        case AT_LENGTH_BODY:
        case AT_CHUNK_DATA: {
            size_t used = 0;
            bt_http1_event event = feed_body(p, data + at, bytes - at, &used, ret_body);
            *ret_used = at + used;
            return event;
        }
        default:
            *ret_used = at + 1;
            if (!take_chunk_byte(p, data[at++])) return BT_HTTP1_ERROR;
        }
    }
    return BT_HTTP1_NEED;
}
