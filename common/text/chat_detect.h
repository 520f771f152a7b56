/* chat_detect.h - what a chat template does with the parts of a message that come in two shapes:
 * content (a text, or a list of parts) and the arguments of tool calls (a JSON text, or what it
 * spells). A look at the template's tree, once, when it is opened. */
#ifndef BT_COMMON_TEXT_CHAT_DETECT_H
#define BT_COMMON_TEXT_CHAT_DETECT_H

#include "common/text/template.h"

typedef struct {
    bool walks;  /* loops over it, or asks for its items */
    bool asks;   /* tests whether it is a string or a mapping */
    bool prints; /* prints it, adds it to a text, strips it, … */
    bool dumps;  /* turns it to JSON */
} bt_chat_use;

/* name: "content" or "arguments", as a member of anything or as a variable. */
bt_chat_use bt_chat_detect(const bt_template *tpl, const char *name);

#endif
