/* chat_input.h - the messages of a request in the shape that a template expects.
 *
 * The request's own JSON is not changed; what is new is made of shallow copies. */
#ifndef BT_COMMON_TEXT_CHAT_INPUT_H
#define BT_COMMON_TEXT_CHAT_INPUT_H

#include "common/base/status.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct {
    bool lists;     /* content may be a list of parts; else parts are joined with newlines */
    bool wrap;      /* content that is a text becomes a list of one part */
    bool arguments; /* of tool calls: the object that the text spells */
} bt_chat_shape;

/* *ret_messages is the caller's. tail, if not NULL, is put behind the last message's text. Errors:
 * ERR_ARGUMENT with the path of what is wrong ("messages[2].content[0]"), ERR_NO_MEMORY. */
bt_status bt_chat_messages(const json_t *messages, const bt_chat_shape *shape, const char *tail,
                           json_t **ret_messages, bt_err *err);

#endif
