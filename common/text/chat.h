/* chat.h - the messages of a chat to the text of a prompt, by the model folder's chat template.
 *
 * FLOW    open once -> render from any thread -> close
 * FINDS   chat_template.jinja, else chat_template.json, else tokenizer_config.json's
 *         "chat_template": a text, or a list of {name, template} of which "tool_use" serves requests
 *         with tools and "default" the others. Never a request's.
 * SEES    messages, tools, add_generation_prompt, the special tokens of tokenizer_config.json (or
 *         special_tokens_map.json) by their names (bos_token, …), and the request's own variables.
 * MARKS   Every string of messages, tools and variables is the user's, but a message's role if it is
 *         one of the usual ones: templates put roles inside special tokens ("<|user|>").
 * PARTS   Content is a text, null, or a list of {"type": "text", "text": …}. If the template walks
 *         over content, lists go to it as they are, and texts become lists unless the template asks
 *         whether content is a string; else lists are joined with newlines.
 * CALLS   The arguments of tool calls, a JSON text in the API, go to the template as the object they
 *         spell, as templates expect; as text if the template only ever prints or adds them. */
#ifndef BT_COMMON_TEXT_CHAT_H
#define BT_COMMON_TEXT_CHAT_H

#include "common/text/template.h"

typedef struct bt_chat_template bt_chat_template;

/* *ret_chat is NULL, and the answer OK, if the model has no template. Errors: ERR_OS (a file that is
 * there cannot be read), ERR_FORMAT (JSON or template, with file and line), ERR_LIMIT,
 * ERR_NO_MEMORY. */
bt_status bt_chat_template_open(const char *model_dir, bt_chat_template **ret_chat, bt_err *err);
/* The same with the template from a file of the operator's. model_dir gives the special tokens and
 * may be NULL. */
bt_status bt_chat_template_open_file(const char *path, const char *model_dir,
                                     bt_chat_template **ret_chat, bt_err *err);
void bt_chat_template_close(bt_chat_template *chat);

typedef struct {
    bool add_generation_prompt;       /* end with the head of an answer */
    bool continue_final_message;      /* end within the last message, for the model to go on with */
    const json_t *variables;          /* "chat_template_kwargs" of a request: an object, or NULL */
    const bt_template_limits *limits; /* NULL: the defaults */
} bt_chat_options;

/* messages: the array of a chat request; tools: its array, or NULL. Neither is changed.
 * Errors: ERR_ARGUMENT (messages, tools or variables are not what they must be, or the template
 * refused them, with its own words), ERR_LIMIT, ERR_NO_MEMORY. */
bt_status bt_chat_render(const bt_chat_template *chat, const json_t *messages, const json_t *tools,
                         const bt_chat_options *options, bt_template_output *ret_output,
                         bt_err *err);

#endif
