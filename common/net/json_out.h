/* json_out.h - writes JSON piece by piece into a buffer that grows to a cap.
 *
 * FLOW    init -> begin/key/string/… -> data, bytes -> reset for the next, or finish
 * COMMAS  are put by the writer: a value after a value at the same depth gets one.
 * TEXT    Valid UTF-8 passes; a byte that is none becomes U+FFFD, so the output is always JSON.
 * BOUNDS  Above capacity_max everything is dropped and `overflow` is set: check it once, at the end. */
#ifndef BT_COMMON_NET_JSON_OUT_H
#define BT_COMMON_NET_JSON_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char *data; /* not NUL-terminated */
    size_t bytes, capacity, capacity_max;
    bool comma; /* the next value needs one before it */
    bool overflow;
} bt_json_out;

void bt_json_init(bt_json_out *json, size_t capacity_max);
void bt_json_reset(bt_json_out *json);
void bt_json_finish(bt_json_out *json);

void bt_json_begin(bt_json_out *json, char bracket);  /* '{' or '[' */
void bt_json_end(bt_json_out *json, char bracket);    /* '}' or ']' */
void bt_json_key(bt_json_out *json, const char *key); /* a literal that needs no escape */
/* A key that is text from elsewhere. */
void bt_json_key_string(bt_json_out *json, const char *key, size_t bytes);
void bt_json_string(bt_json_out *json, const char *text, size_t bytes);
void bt_json_text(bt_json_out *json, const char *text); /* NUL-terminated; NULL = null */
void bt_json_u64(bt_json_out *json, uint64_t value);
void bt_json_double(bt_json_out *json, double value); /* %.9g; not finite = null */
void bt_json_bool(bt_json_out *json, bool value);
void bt_json_null(bt_json_out *json);
/* Bytes as they are: "data: ", newlines between documents. */
void bt_json_raw(bt_json_out *json, const char *text);

#endif
