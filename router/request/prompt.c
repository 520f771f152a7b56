/* prompt.c - text and token ids of a request to checked tokens, and back. */
#include "router/request/parts.h"

#include <stdlib.h>
#include <string.h>

bool bt_too_long(const bt_request_context *context, uint64_t tokens, uint32_t max_tokens,
                 const char *param, bt_api_error *error)
{
    bt_api_refuse(
        error, param,
        "This model's maximum context length is %u tokens. However, you requested %llu "
        "tokens (%llu in your prompt; %u for the completion). Please reduce your prompt or "
        "completion length.",
        context->context_tokens_max, (unsigned long long)tokens + max_tokens,
        (unsigned long long)tokens, max_tokens);
    error->code = "context_length_exceeded";
    return false;
}

static bt_status no_memory(bt_api_error *error)
{
    bt_api_no_memory(error);
    return BT_ERR_NO_MEMORY;
}

/* A tokenizer may know added tokens that the weights have no row for. */
static bt_status check_ids(const bt_request_context *context, const bt_tokens *tokens,
                           const char *param, bt_api_error *error)
{
    for (size_t i = 0; i < tokens->count; i++) {
        if (tokens->ids[i] < context->vocab) continue;
        bt_api_refuse(error, param, "'%s' has token %u, which the model does not know", param,
                      tokens->ids[i]);
        return BT_ERR_ARGUMENT;
    }
    return BT_OK;
}

bt_status bt_prompt_of_text(const bt_request_context *context, const bt_prompt_source *source,
                            uint32_t capacity, bt_token_list *ret_list, bt_api_error *error)
{
    bt_tokens tokens = {.ids = malloc(((size_t)capacity + 1) * sizeof(uint32_t)),
                        .capacity = capacity};
    if (tokens.ids == NULL) return no_memory(error);
    bt_err err;
    bt_status status =
        bt_tokenizer_encode_marked(context->tokenizer, source->text, source->bytes, source->plain,
                                   source->plain_count, source->flags, &tokens, &err);
    if (status == BT_OK)
        status = check_ids(context, &tokens, source->param, error);
    else if (status == BT_ERR_NO_MEMORY)
        no_memory(error);
    else
        bt_api_refuse(error, source->param, "%s", err.message);
    if (status != BT_OK) {
        free(tokens.ids);
        return status;
    }
    uint32_t *fitting = realloc(tokens.ids, (tokens.count + 1) * sizeof(uint32_t));
    *ret_list = (bt_token_list){fitting != NULL ? fitting : tokens.ids, (uint32_t)tokens.count};
    return BT_OK;
}

bt_status bt_prompt_of_ids(const bt_request_context *context, const json_t *ids, uint32_t capacity,
                           const char *param, bt_token_list *ret_list, bt_api_error *error)
{
    size_t count = json_array_size(ids);
    if (count > capacity) return BT_ERR_LIMIT;
    uint32_t *tokens = malloc((count + 1) * sizeof(uint32_t));
    if (tokens == NULL) return no_memory(error);
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= context->vocab) {
            free(tokens);
            bt_api_refuse(error, param, "token %zu of '%s' is not an id below %u", i, param,
                          context->vocab);
            return BT_ERR_ARGUMENT;
        }
        tokens[i] = (uint32_t)json_integer_value(id);
    }
    *ret_list = (bt_token_list){tokens, (uint32_t)count};
    return BT_OK;
}

bool bt_prompt_text(const bt_tokenizer *tokenizer, const bt_token_list *list, uint32_t detok_flags,
                    const char *param, bt_prompt_chars *ret_chars, bt_api_error *error)
{
    *ret_chars = (bt_prompt_chars){0};
    size_t capacity = 0;
    bt_detok_init(&ret_chars->detok, tokenizer, detok_flags);
    /* Room for a flush is left after the last. */
    for (uint32_t i = 0; i <= list->count; i++) {
        if (ret_chars->bytes + BT_DETOK_BYTES_MAX > capacity) {
            capacity = 2 * (ret_chars->bytes + BT_DETOK_BYTES_MAX);
            char *grown = realloc(ret_chars->text, capacity);
            if (grown == NULL || ret_chars->bytes > BT_PROMPT_TEXT_BYTES_MAX) {
                free(grown != NULL ? grown : ret_chars->text);
                return grown == NULL
                           ? bt_api_no_memory(error)
                           : bt_api_refuse(error, param, "the text of '%s' is above %u bytes",
                                           param, BT_PROMPT_TEXT_BYTES_MAX);
            }
            ret_chars->text = grown;
        }
        if (i < list->count)
            ret_chars->bytes +=
                bt_detok_push(&ret_chars->detok, list->ids[i], ret_chars->text + ret_chars->bytes);
    }
    return true;
}
