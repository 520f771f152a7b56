/* completion.c - the body of POST /v1/completions. */
#include "router/request/parts.h"

#include <stdlib.h>
#include <string.h>

/* What the answer begins with, and the decoder that goes on after it. */
static bool take_echo(const bt_request_context *context, const json_t *item, uint32_t flags,
                      bt_request_prompt *prompt, bt_api_error *error)
{
    if (json_is_string(item)) {
        prompt->echo_bytes = json_string_length(item);
        prompt->echo = malloc(prompt->echo_bytes + 1);
        if (prompt->echo == NULL) return bt_api_no_memory(error);
        memcpy(prompt->echo, json_string_value(item), prompt->echo_bytes);
        return true;
    }
    const bt_token_list list = {prompt->tokens, prompt->token_count};
    bt_prompt_chars chars;
    if (!bt_prompt_text(context->tokenizer, &list, flags, "prompt", &chars, error)) return false;
    prompt->echo = chars.text;
    prompt->echo_bytes = chars.bytes;
    prompt->detok = chars.detok;
    return true;
}

/* The prompt's tokens as entries that wait for their logprobs. What the tokenizer normalized away is in
 * the echo and not in the tokens: no offset is beyond the echo. */
static bool take_entries(const bt_request_context *context, uint32_t flags,
                         bt_request_prompt *prompt, bt_api_error *error)
{
    prompt->entries = calloc(prompt->token_count, sizeof(bt_choice_entry));
    if (prompt->entries == NULL) return bt_api_no_memory(error);
    uint64_t echo_chars = bt_count_chars(prompt->echo, prompt->echo_bytes), chars = 0;
    bt_detok detok;
    bt_detok_init(&detok, context->tokenizer, flags);
    for (uint32_t i = 0; i < prompt->token_count; i++) {
        char text[BT_DETOK_BYTES_MAX];
        prompt->entries[i] = (bt_choice_entry){.token.id = prompt->tokens[i],
                                               .offset = chars < echo_chars ? chars : echo_chars,
                                               .unscored = true};
        size_t bytes = bt_detok_push(&detok, prompt->tokens[i], text);
        chars += bt_count_chars(text, bytes);
    }
    return true;
}

/* A text or an array of ids. */
static bool add_prompt(const bt_request_context *context, const json_t *item,
                       bt_api_request *request, bt_api_error *error)
{
    uint32_t scored = 0;
    for (uint32_t i = 0; i < request->prompt_count; i++)
        scored += request->prompts[i].entries != NULL ? request->prompts[i].token_count : 0;
    if (scored > BT_SCORED_TOKENS_MAX)
        return bt_api_refuse(error, "prompt",
                             "prompts of more than %u tokens to echo with logprobs",
                             BT_SCORED_TOKENS_MAX);
    if (request->prompt_count == BT_PROMPTS_MAX)
        return bt_api_refuse(error, "prompt", "'prompt' may hold %u prompts at most",
                             BT_PROMPTS_MAX);
    bool text = json_is_string(item);
    uint32_t capacity = context->context_tokens_max;
    bt_token_list list;
    const bt_prompt_source source = {
        .text = json_string_value(item), .bytes = json_string_length(item), .param = "prompt"};
    bt_status status = text ? bt_prompt_of_text(context, &source, capacity, &list, error)
                            : bt_prompt_of_ids(context, item, capacity, "prompt", &list, error);
    if (status == BT_ERR_LIMIT)
        return bt_too_long(context, text ? capacity + 1 : json_array_size(item),
                           request->max_tokens, "prompt", error);
    if (status != BT_OK) return false;
    bt_request_prompt *prompt = &request->prompts[request->prompt_count++];
    *prompt = (bt_request_prompt){.tokens = list.ids, .token_count = list.count};
    if (list.count == 0) return bt_api_refuse(error, "prompt", "'prompt' must not be empty");
    uint32_t flags = request->keep_special ? BT_DETOK_SPECIAL : 0;
    bt_detok_init(&prompt->detok, context->tokenizer, flags | BT_DETOK_CONTINUES);
    if (!request->echo) return true;
    return take_echo(context, item, flags, prompt, error) &&
           (!request->sampling.logprobs || take_entries(context, flags, prompt, error));
}

/* string | [string] | [int] | [[int]] */
static bool take_prompts(const bt_request_context *context, const bt_fields *body,
                         bt_api_request *request)
{
    const json_t *prompt = bt_field(body, "prompt");
    if (prompt == NULL) return bt_api_refuse(body->error, "prompt", "you must provide a prompt");
    if (json_is_string(prompt)) return add_prompt(context, prompt, request, body->error);
    if (!json_is_array(prompt))
        return bt_api_refuse(
            body->error, "prompt",
            "'prompt' must be a string, an array of strings, of token ids or of arrays of them");
    if (json_array_size(prompt) == 0 || json_is_integer(json_array_get(prompt, 0)))
        return add_prompt(context, prompt, request, body->error);
    for (size_t i = 0; i < json_array_size(prompt); i++) {
        const json_t *item = json_array_get(prompt, i);
        if (!json_is_string(item) && !json_is_array(item))
            return bt_api_refuse(
                body->error, "prompt",
                "item %zu of 'prompt' is neither a string nor an array of token ids", i);
        if (!add_prompt(context, item, request, body->error)) return false;
    }
    return true;
}

static bool take_own(const bt_fields *body, bt_api_request *request)
{
    static const bt_neutral neutrals[] = {{"suffix", BT_NEUTRAL_EMPTY_TEXT, 0}};
    int64_t max_tokens = BT_MAX_TOKENS_DEFAULT, logprobs = 0;
    if (!bt_take_bool(body, "echo", &request->echo) ||
        !bt_take_integer(body, "max_tokens", 0, INT32_MAX, &max_tokens) ||
        !bt_take_integer(body, "logprobs", 0, BT_TOP_LOGPROBS_MAX, &logprobs) ||
        !bt_refuse_unsupported(body, neutrals, 1))
        return false;
    if (max_tokens == 0 && !request->echo)
        return bt_api_refuse(body->error, "max_tokens", "'max_tokens' may be 0 only with 'echo'");
    request->max_tokens = (uint32_t)max_tokens;
    request->sampling.logprobs = bt_field(body, "logprobs") != NULL;
    request->sampling.top_logprobs = (uint32_t)logprobs;
    return true;
}

bool bt_completion_parse(const bt_request_context *context, const char *body, size_t bytes,
                         bt_api_request *ret_request, bt_api_error *ret_error)
{
    memset(ret_request, 0, sizeof(*ret_request));
    json_t *root;
    if (!bt_body_parse(body, bytes, &root, ret_error)) return false;
    const bt_fields fields = {root, "", ret_error};
    bool ok = bt_take_model(context, &fields, true) && take_own(&fields, ret_request) &&
              bt_take_switches(&fields, ret_request) &&
              bt_take_common(context, &fields, ret_request) &&
              take_prompts(context, &fields, ret_request) &&
              bt_check_sizes(context, &fields, ret_request);
    json_decref(root);
    if (!ok) bt_api_request_finish(ret_request);
    return ok;
}
