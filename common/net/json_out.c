#include "common/net/json_out.h"

#include "common/base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_FIRST 1024u

void bt_json_init(bt_json_out *json, size_t capacity_max)
{
    *json = (bt_json_out){.capacity_max = capacity_max};
}

void bt_json_reset(bt_json_out *json)
{
    json->bytes = 0;
    json->comma = json->overflow = false;
}

void bt_json_finish(bt_json_out *json)
{
    free(json->data);
    *json = (bt_json_out){0};
}

static bool reserve(bt_json_out *json, size_t more)
{
    if (json->overflow || more > json->capacity_max - json->bytes) {
        json->overflow = true;
        return false;
    }
    size_t need = json->bytes + more;
    if (need <= json->capacity) return true;
    size_t capacity = json->capacity > 0 ? json->capacity : CAPACITY_FIRST;
    while (capacity < need) capacity *= 2;
    char *data = realloc(json->data, capacity);
    if (data == NULL) {
        json->overflow = true;
        return false;
    }
    json->data = data;
    json->capacity = capacity;
    return true;
}

static void put(bt_json_out *json, const char *text, size_t bytes)
{
    if (bytes == 0 || !reserve(json, bytes)) return;
    memcpy(json->data + json->bytes, text, bytes);
    json->bytes += bytes;
}

static void before_value(bt_json_out *json)
{
    if (json->comma) put(json, ", ", 2);
    json->comma = true;
}

void bt_json_begin(bt_json_out *json, char bracket)
{
    before_value(json);
    put(json, &bracket, 1);
    json->comma = false;
}

void bt_json_end(bt_json_out *json, char bracket)
{
    put(json, &bracket, 1);
    json->comma = true;
}

void bt_json_key(bt_json_out *json, const char *key)
{
    before_value(json);
    put(json, "\"", 1);
    put(json, key, strlen(key));
    put(json, "\": ", 3);
    json->comma = false;
}

static size_t put_escaped(bt_json_out *json, const char *text, size_t bytes)
{
    unsigned char c = (unsigned char)text[0];
    static const char named[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *at = c != '\0' ? strchr(named, c) : NULL;
    char escape[8];
    if (at != NULL) {
        escape[0] = '\\';
        escape[1] = letters[at - named];
        put(json, escape, 2);
        return 1;
    }
    if (c < 0x20 || c == 0x7f) {
        put(json, escape, (size_t)snprintf(escape, sizeof(escape), "\\u%04x", c));
        return 1;
    }
    size_t length = bt_utf8_char(text, bytes, NULL);
    if (length == 0) {
        put(json, "\xef\xbf\xbd", 3);
        return 1;
    }
    put(json, text, length);
    return length;
}

void bt_json_string(bt_json_out *json, const char *text, size_t bytes)
{
    before_value(json);
    put(json, "\"", 1);
    for (size_t i = 0; i < bytes;) {
        size_t plain = i;
        while (plain < bytes && (unsigned char)text[plain] >= 0x20 &&
               (unsigned char)text[plain] < 0x7f && text[plain] != '"' && text[plain] != '\\')
            plain++;
        put(json, text + i, plain - i);
        i = plain;
        if (i < bytes) i += put_escaped(json, text + i, bytes - i);
    }
    put(json, "\"", 1);
}

void bt_json_key_string(bt_json_out *json, const char *key, size_t bytes)
{
    bt_json_string(json, key, bytes);
    put(json, ": ", 2);
    json->comma = false;
}

void bt_json_text(bt_json_out *json, const char *text)
{
    if (text == NULL)
        bt_json_null(json);
    else
        bt_json_string(json, text, strlen(text));
}

void bt_json_u64(bt_json_out *json, uint64_t value)
{
    char text[24];
    before_value(json);
    put(json, text, (size_t)snprintf(text, sizeof(text), "%" PRIu64, value));
}

void bt_json_double(bt_json_out *json, double value)
{
    if (!isfinite(value)) {
        bt_json_null(json);
        return;
    }
    char text[32];
    before_value(json);
    put(json, text, (size_t)snprintf(text, sizeof(text), "%.9g", value));
}

void bt_json_bool(bt_json_out *json, bool value)
{
    before_value(json);
    put(json, value ? "true" : "false", value ? 4 : 5);
}

void bt_json_null(bt_json_out *json)
{
    before_value(json);
    put(json, "null", 4);
}

void bt_json_raw(bt_json_out *json, const char *text)
{
    put(json, text, strlen(text));
    json->comma = false;
}
