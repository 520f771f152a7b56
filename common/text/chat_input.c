#include "common/text/chat_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where in the request a value is, for errors. */
typedef struct {
    size_t message;
    const bt_chat_shape *shape;
    const char *tail; /* of the last message only */
    bt_err *err;
} place;

static bt_status no_memory(const place *at)
{
    return BT_FAIL(at->err, BT_ERR_NO_MEMORY, "out of memory");
}

/* Takes value. */
static bt_status put(const place *at, json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0 ? BT_OK : no_memory(at);
}

static json_t *joined(const char *first, size_t first_bytes, const char *second,
                      size_t second_bytes)
{
    char *text = malloc(first_bytes + second_bytes + 1);
    if (text == NULL) return NULL;
    if (first_bytes > 0) memcpy(text, first, first_bytes);
    memcpy(text + first_bytes, second, second_bytes);
    json_t *made = json_stringn_nocheck(text, first_bytes + second_bytes);
    free(text);
    return made;
}

static json_t *with_tail(const place *at, const json_t *text)
{
    if (at->tail == NULL) return json_incref((json_t *)(uintptr_t)text);
    return joined(json_string_value(text), json_string_length(text), at->tail, strlen(at->tail));
}

/* Content. */

/* The text of a part, borrowed. */
static bt_status part_text(const place *at, const json_t *part, size_t index, const json_t **ret)
{
    if (json_is_string(part)) {
        *ret = part;
        return BT_OK;
    }
    const char *type = json_string_value(json_object_get(part, "type"));
    if (type == NULL)
        return BT_FAIL(at->err, BT_ERR_ARGUMENT, "messages[%zu].content[%zu] has no type",
                       at->message, index);
    if (strcmp(type, "text") != 0 && strcmp(type, "input_text") != 0 &&
        strcmp(type, "output_text") != 0)
        return BT_FAIL(at->err, BT_ERR_ARGUMENT,
                       "messages[%zu].content[%zu] is of type '%.40s'; only text is supported",
                       at->message, index, type);
    *ret = json_object_get(part, "text");
    if (json_is_string(*ret)) return BT_OK;
    return BT_FAIL(at->err, BT_ERR_ARGUMENT, "messages[%zu].content[%zu].text is not a string",
                   at->message, index);
}

static bt_status join_parts(const place *at, const json_t *parts, json_t **ret_text)
{
    size_t bytes = 0, count = json_array_size(parts), filled = 0;
    const json_t *text;
    for (size_t i = 0; i < count; i++) {
        bt_status status = part_text(at, json_array_get(parts, i), i, &text);
        if (status != BT_OK) return status;
        bytes += json_string_length(text) + 1;
    }
    char *all = malloc(bytes + 1);
    if (all == NULL) return no_memory(at);
    for (size_t i = 0; i < count; i++) {
        part_text(at, json_array_get(parts, i), i, &text);
        if (i > 0) all[filled++] = '\n';
        memcpy(all + filled, json_string_value(text), json_string_length(text));
        filled += json_string_length(text);
    }
    const char *tail = at->tail != NULL ? at->tail : "";
    *ret_text = joined(all, filled, tail, strlen(tail));
    free(all);
    return *ret_text != NULL ? BT_OK : no_memory(at);
}

/* Takes text. */
static bt_status append_part(const place *at, json_t *list, json_t *text)
{
    json_t *part = json_pack("{s:s, s:o}", "type", "text", "text", text);
    return json_array_append_new(list, part) == 0 ? BT_OK : no_memory(at);
}

static bt_status copy_parts(const place *at, const json_t *parts, json_t **ret_list)
{
    size_t count = json_array_size(parts);
    json_t *list = json_array();
    bt_status status = list != NULL ? BT_OK : no_memory(at);
    place inner = *at;
    for (size_t i = 0; i < count && status == BT_OK; i++) {
        const json_t *text;
        inner.tail = i + 1 == count ? at->tail : NULL;
        status = part_text(at, json_array_get(parts, i), i, &text);
        if (status == BT_OK) status = append_part(at, list, with_tail(&inner, text));
    }
    if (status == BT_OK)
        *ret_list = list;
    else
        json_decref(list);
    return status;
}

static bt_status shape_content(const place *at, json_t *message)
{
    const json_t *content = json_object_get(message, "content");
    json_t *made = NULL;
    bt_status status = BT_OK;
    if (content == NULL || json_is_null(content)) {
        if (at->tail == NULL) return BT_OK;
        return BT_FAIL(at->err, BT_ERR_ARGUMENT,
                       "messages[%zu].content is empty: there is no message to continue",
                       at->message);
    }
    if (json_is_array(content)) {
        status = at->shape->lists ? copy_parts(at, content, &made) : join_parts(at, content, &made);
    } else if (!json_is_string(content)) {
        status =
            BT_FAIL(at->err, BT_ERR_ARGUMENT,
                    "messages[%zu].content is not a string, a list of parts or null", at->message);
    } else if (at->shape->wrap) {
        made = json_array();
        status = append_part(at, made, with_tail(at, content));
        if (status != BT_OK) json_decref(made);
    } else {
        made = with_tail(at, content);
        if (made == NULL) status = no_memory(at);
    }
    return status == BT_OK ? put(at, message, "content", made) : status;
}

/* Tool calls. */

static bt_status shape_arguments(const place *at, size_t index, const json_t *arguments,
                                 json_t **ret)
{
    if (json_is_string(arguments) != at->shape->arguments) {
        *ret = json_incref((json_t *)(uintptr_t)arguments);
        return BT_OK;
    }
    if (!json_is_string(arguments)) {
        char *text = json_dumps(arguments, JSON_ENCODE_ANY);
        *ret = text != NULL ? json_string(text) : NULL;
        free(text);
        return *ret != NULL ? BT_OK : no_memory(at);
    }
    *ret = json_string_length(arguments) == 0
               ? json_object()
               : json_loadb(json_string_value(arguments), json_string_length(arguments),
                            JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    if (*ret != NULL) return BT_OK;
    return BT_FAIL(at->err, BT_ERR_ARGUMENT,
                   "messages[%zu].tool_calls[%zu].function.arguments is not JSON", at->message,
                   index);
}

static bt_status shape_call(const place *at, size_t index, const json_t *call, json_t **ret_call)
{
    const json_t *function = json_object_get(call, "function");
    if (!json_is_object(function) || !json_is_string(json_object_get(function, "name")))
        return BT_FAIL(at->err, BT_ERR_ARGUMENT,
                       "messages[%zu].tool_calls[%zu].function has no name", at->message, index);
    const json_t *arguments = json_object_get(function, "arguments");
    json_t *made = json_copy((json_t *)(uintptr_t)call);
    json_t *inner = json_copy((json_t *)(uintptr_t)function);
    bt_status status = made != NULL && inner != NULL ? BT_OK : no_memory(at);
    if (status == BT_OK && arguments != NULL) {
        json_t *value = NULL;
        status = shape_arguments(at, index, arguments, &value);
        if (status == BT_OK) status = put(at, inner, "arguments", value);
    }
    if (status == BT_OK)
        status = put(at, made, "function", inner);
    else
        json_decref(inner);
    if (status == BT_OK)
        *ret_call = made;
    else
        json_decref(made);
    return status;
}

static bt_status shape_calls(const place *at, json_t *message)
{
    const json_t *calls = json_object_get(message, "tool_calls");
    if (calls == NULL || json_is_null(calls)) return BT_OK;
    if (!json_is_array(calls))
        return BT_FAIL(at->err, BT_ERR_ARGUMENT, "messages[%zu].tool_calls is not a list",
                       at->message);
    json_t *list = json_array();
    bt_status status = list != NULL ? BT_OK : no_memory(at);
    for (size_t i = 0; i < json_array_size(calls) && status == BT_OK; i++) {
        json_t *call = NULL;
        status = shape_call(at, i, json_array_get(calls, i), &call);
        if (status == BT_OK && json_array_append_new(list, call) != 0) status = no_memory(at);
    }
    if (status == BT_OK) return put(at, message, "tool_calls", list);
    json_decref(list);
    return status;
}

static bt_status shape_message(const place *at, const json_t *message, json_t *list)
{
    if (!json_is_object(message))
        return BT_FAIL(at->err, BT_ERR_ARGUMENT, "messages[%zu] is not an object", at->message);
    if (!json_is_string(json_object_get(message, "role")))
        return BT_FAIL(at->err, BT_ERR_ARGUMENT, "messages[%zu].role is not a string", at->message);
    json_t *made = json_copy((json_t *)(uintptr_t)message);
    bt_status status = made != NULL ? shape_content(at, made) : no_memory(at);
    if (status == BT_OK) status = shape_calls(at, made);
    if (status != BT_OK) {
        json_decref(made);
        return status;
    }
    return json_array_append_new(list, made) == 0 ? BT_OK : no_memory(at);
}

bt_status bt_chat_messages(const json_t *messages, const bt_chat_shape *shape, const char *tail,
                           json_t **ret_messages, bt_err *err)
{
    size_t count = json_array_size(messages);
    if (!json_is_array(messages) || count == 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "messages is not a list of at least one message");
    place at = {.shape = shape, .err = err};
    json_t *list = json_array();
    bt_status status = list != NULL ? BT_OK : no_memory(&at);
    for (size_t i = 0; i < count && status == BT_OK; i++) {
        at.message = i;
        at.tail = i + 1 == count ? tail : NULL;
        status = shape_message(&at, json_array_get(messages, i), list);
    }
    if (status == BT_OK)
        *ret_messages = list;
    else
        json_decref(list);
    return status;
}
