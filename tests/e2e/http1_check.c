/* http1_check.c - what common/net/http1 makes of byte strings, for tests/e2e/test_http1_h11.py.
 *
 * stdin   for each input: its length (u32, little endian), then its bytes.
 * stdout  for each input a line: a JSON array of the complete requests in it, up to the first error
 *         or the end; every text as hexadecimal digits. */
#include "common/net/http1.h"
#include "common/net/json_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_BYTES_MAX (1u << 16)

typedef struct {
    bt_http1 parser;
    char body[INPUT_BYTES_MAX];
    size_t body_bytes;
} checker;

static void put_hex(bt_json_out *json, bt_text text)
{
    static char hex[2 * INPUT_BYTES_MAX];
    for (size_t i = 0; i < text.bytes; i++) {
        static const char digits[] = "0123456789abcdef";
        hex[2 * i] = digits[(unsigned char)text.data[i] >> 4];
        hex[2 * i + 1] = digits[(unsigned char)text.data[i] & 15];
    }
    bt_json_string(json, hex, 2 * text.bytes);
}

static void put_request(bt_json_out *json, const checker *c)
{
    const bt_http1_request *r = &c->parser.request;
    bt_json_begin(json, '{');
    bt_json_key(json, "method");
    put_hex(json, r->method);
    bt_json_key(json, "target");
    put_hex(json, r->target);
    bt_json_key(json, "minor");
    bt_json_u64(json, r->minor);
    bt_json_key(json, "fields");
    bt_json_begin(json, '[');
    for (uint32_t i = 0; i < r->field_count; i++) {
        bt_json_begin(json, '[');
        put_hex(json, r->fields[i].name);
        put_hex(json, r->fields[i].value);
        bt_json_end(json, ']');
    }
    bt_json_end(json, ']');
    bt_json_key(json, "body");
    put_hex(json, (bt_text){.data = c->body, .bytes = c->body_bytes});
    bt_json_end(json, '}');
}

static void check(checker *c, const char *data, size_t bytes, bt_json_out *json)
{
    bt_http1_init(&c->parser, sizeof(c->body));
    bt_json_begin(json, '[');
    for (;;) {
        size_t used = 0;
        bt_text piece = {0};
        bt_http1_event event = bt_http1_feed(&c->parser, data, bytes, &used, &piece);
        data += used;
        bytes -= used;
        if (event == BT_HTTP1_NEED || event == BT_HTTP1_ERROR) break;
        if (event == BT_HTTP1_HEAD) c->body_bytes = 0;
        if (event == BT_HTTP1_BODY) {
            memcpy(c->body + c->body_bytes, piece.data, piece.bytes);
            c->body_bytes += piece.bytes;
        }
        if (event == BT_HTTP1_END) put_request(json, c);
    }
    bt_json_end(json, ']');
    bt_json_raw(json, "\n");
}

int main(void)
{
    static checker c;
    static char input[INPUT_BYTES_MAX];
    bt_json_out json;
    unsigned char length[4];
    bt_json_init(&json, 16u << 20);
    while (fread(length, 1, sizeof(length), stdin) == sizeof(length)) {
        size_t bytes =
            length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16 | (size_t)length[3] << 24;
        if (bytes > sizeof(input) || fread(input, 1, bytes, stdin) != bytes) {
            fprintf(stderr, "http1_check: input of %zu bytes is too long or cut short\n", bytes);
            return EXIT_FAILURE;
        }
        bt_json_reset(&json);
        check(&c, input, bytes, &json);
        if (json.overflow) return EXIT_FAILURE;
        fwrite(json.data, 1, json.bytes, stdout);
    }
    bt_json_finish(&json);
    return EXIT_SUCCESS;
}
