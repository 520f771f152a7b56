/* parts.h - what the parsers of request.h share. Private to router/request/. */
#ifndef BT_ROUTER_REQUEST_PARTS_H
#define BT_ROUTER_REQUEST_PARTS_H

#include "router/request.h"
#include "router/request/fields.h"

/* -- common.c -------------------------------------------------------------------------------- */

/* "model": required, or checked if it is there. */
bool bt_take_model(const bt_request_context *context, const bt_fields *body, bool required);
/* stream, stream_options and what else is a switch. */
bool bt_take_switches(const bt_fields *body, bt_api_request *request);
/* Everything else that completions and chat have in common but for max_tokens, whose default differs:
 * request->max_tokens is set before. bt_take_switches
 * comes earlier. */
bool bt_take_common(const bt_request_context *context, const bt_fields *body,
                    bt_api_request *request);
/* Prompts and max_tokens fit the context, prompts and n the choices. */
bool bt_check_sizes(const bt_request_context *context, const bt_fields *body,
                    const bt_api_request *request);

/* -- prompt.c -------------------------------------------------------------------------------- */

/* Tokens that the caller frees. capacity is the most that are taken; more is ERR_LIMIT, for the
 * caller to word. param names the field in errors. */
typedef struct {
    uint32_t *ids;
    uint32_t count;
} bt_token_list;
typedef struct {
    const char *text;
    size_t bytes;
    const bt_text_range *plain; /* where special tokens stay text */
    size_t plain_count;
    uint32_t flags; /* of the tokenizer */
    const char *param;
} bt_prompt_source;
bt_status bt_prompt_of_text(const bt_request_context *context, const bt_prompt_source *source,
                            uint32_t capacity, bt_token_list *ret_list, bt_api_error *error);
bt_status bt_prompt_of_ids(const bt_request_context *context, const json_t *ids, uint32_t capacity,
                           const char *param, bt_token_list *ret_list, bt_api_error *error);
/* The text of ids that begin a text, and the decoder as the next token finds it. */
typedef struct {
    char *text; /* the caller's to free; room for a flush of detok is left after bytes */
    size_t bytes;
    bt_detok detok;
} bt_prompt_chars;
bool bt_prompt_text(const bt_tokenizer *tokenizer, const bt_token_list *list, uint32_t detok_flags,
                    const char *param, bt_prompt_chars *ret_chars, bt_api_error *error);
bool bt_too_long(const bt_request_context *context, uint64_t tokens, uint32_t max_tokens,
                 const char *param, bt_api_error *error);

/* -- chat.c ---------------------------------------------------------------------------------- */

/* "messages", "tools" and what else the template sees, to tokens. ERR_LIMIT: more than capacity. */
bt_status bt_prompt_of_chat(const bt_request_context *context, const bt_fields *body,
                            uint32_t capacity, bt_token_list *ret_list);

#endif
