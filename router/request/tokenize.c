/* tokenize.c - the bodies of POST /tokenize and POST /detokenize. */
#include "common/base/limits.h"
#include "router/request/parts.h"

#include <stdlib.h>
#include <string.h>

/* A token is at least a byte of normalized text, which may be three times as long; beside them stand
 * a few of the post-processor. What is more is refused like too long a text. */
static uint32_t capacity_of(size_t text_bytes)
{
    uint64_t capacity = 4 * (uint64_t)text_bytes + 64, max = 4 * (uint64_t)BT_TEXT_BYTES_MAX;
    return (uint32_t)(capacity < max ? capacity : max);
}

static bool take_prompt(const bt_request_context *context, const bt_fields *body,
                        bt_token_list *ret_list)
{
    bt_prompt_source source = {.param = "prompt"};
    bool special = true;
    if (!bt_take_text(body, "prompt", &source.text, &source.bytes) ||
        !bt_take_bool(body, "add_special_tokens", &special))
        return false;
    if (source.text != NULL && bt_field(body, "messages") != NULL)
        return bt_api_refuse(body->error, "messages", "give 'prompt' or 'messages', not both");
    source.flags = special ? 0 : BT_ENCODE_BARE;
    if (source.text != NULL)
        return bt_prompt_of_text(context, &source, capacity_of(source.bytes), ret_list,
                                 body->error) == BT_OK;
    if (bt_field(body, "messages") == NULL)
        return bt_api_refuse(body->error, "prompt", "you must provide a prompt or messages");
    return bt_prompt_of_chat(context, body, capacity_of(BT_TEXT_BYTES_MAX), ret_list) == BT_OK;
}

bool bt_tokenize_parse(const bt_request_context *context, const char *body, size_t bytes,
                       bt_tokenize_request *ret_request, bt_api_error *ret_error)
{
    memset(ret_request, 0, sizeof(*ret_request));
    json_t *root;
    if (!bt_body_parse(body, bytes, &root, ret_error)) return false;
    const bt_fields fields = {root, "", ret_error};
    bt_token_list list;
    bool ok = bt_take_model(context, &fields, false) &&
              bt_take_bool(&fields, "return_token_strs", &ret_request->return_strings) &&
              take_prompt(context, &fields, &list);
    json_decref(root);
    if (!ok) return false;
    ret_request->tokens = list.ids;
    ret_request->count = list.count;
    return true;
}

bool bt_detokenize_parse(const bt_request_context *context, const char *body, size_t bytes,
                         char **ret_text, size_t *ret_bytes, bt_api_error *ret_error)
{
    json_t *root;
    if (!bt_body_parse(body, bytes, &root, ret_error)) return false;
    const bt_fields fields = {root, "", ret_error};
    const json_t *tokens = NULL;
    bt_token_list list = {0};
    bool ok = bt_take_model(context, &fields, false) && bt_take_array(&fields, "tokens", &tokens);
    if (ok && tokens == NULL) ok = bt_api_refuse(ret_error, "tokens", "you must provide tokens");
    if (ok && bt_prompt_of_ids(context, tokens, BT_CONTEXT_TOKENS_MAX, "tokens", &list,
                               ret_error) == BT_ERR_LIMIT)
        bt_api_refuse(ret_error, "tokens", "'tokens' has %zu tokens, the limit is %u",
                      json_array_size(tokens), BT_CONTEXT_TOKENS_MAX);
    json_decref(root);
    if (list.ids == NULL) return false;
    bt_prompt_chars chars;
    ok = bt_prompt_text(context->tokenizer, &list, BT_DETOK_SPECIAL, "tokens", &chars, ret_error);
    free(list.ids);
    if (!ok) return false;
    *ret_text = chars.text;
    *ret_bytes = chars.bytes + bt_detok_flush(&chars.detok, chars.text + chars.bytes);
    return true;
}
