/* chat.c - the body of POST /v1/chat/completions, and the messages of POST /tokenize.
 *
 * Messages are checked as OpenAI's API has them and handed to the chat template, which must make sense
 * of the rest: fields of messages and tools that no table of docs/api.md names reach it as they are. */
#include "common/base/parse.h"
#include "router/request/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOOLS_MAX 128u /* as OpenAI's API */

static bool is_one_of(const char *text, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(text, list[i]) == 0) return true;
    return false;
}

/* A text field that must be there; its path in the error if not. */
static bool need_text(const bt_fields *fields, const char *name, const char **ret_text)
{
    size_t bytes = 0;
    *ret_text = NULL;
    if (!bt_take_text(fields, name, ret_text, &bytes)) return false;
    if (*ret_text != NULL) return true;
    bt_field_path path = bt_path_of(fields, name);
    return bt_api_refuse(fields->error, path.text, "'%s' is missing", path.text);
}

/* The type of a part, a tool or a call, which must be this one. */
static bool need_type(const bt_fields *fields, const char *type)
{
    const char *text;
    if (!need_text(fields, "type", &text)) return false;
    if (strcmp(text, type) == 0) return true;
    bt_field_path path = bt_path_of(fields, "type");
    char shown[48];
    bt_escape(text, strlen(text), shown, sizeof(shown));
    return bt_api_refuse(fields->error, path.text, "'%s' may be '%s' only: '%s' is not supported",
                         path.text, type, shown);
}

/* Items of an array as fields of objects, each handed to check. */
static bool each_object(const bt_fields *fields, const char *name, const json_t *array,
                        bool (*check)(const bt_fields *item))
{
    bt_field_path path = bt_path_of(fields, name);
    for (size_t i = 0; i < json_array_size(array); i++) {
        bt_field_path at = bt_path_at(path.text, i);
        const bt_fields item = {json_array_get(array, i), at.text, fields->error};
        if (!json_is_object(item.object))
            return bt_api_refuse(fields->error, at.text, "'%s' must be an object", at.text);
        if (!check(&item)) return false;
    }
    return true;
}

/* ---- messages ---- */

static bool check_part(const bt_fields *part)
{
    const char *text;
    return need_type(part, "text") && need_text(part, "text", &text);
}

/* Text or text parts; absent only where may_lack. */
static bool check_content(const bt_fields *message, bool may_lack)
{
    const json_t *content = bt_field(message, "content");
    if (json_is_string(content) || (content == NULL && may_lack)) return true;
    if (json_array_size(content) > 0) return each_object(message, "content", content, check_part);
    bt_field_path path = bt_path_of(message, "content");
    return bt_api_refuse(message->error, path.text,
                         "'%s' must be a string or an array of text parts", path.text);
}

static bool check_call(const bt_fields *call)
{
    const json_t *function;
    const char *text;
    if (!need_text(call, "id", &text) || !need_type(call, "function") ||
        !bt_take_object(call, "function", &function))
        return false;
    bt_field_path path = bt_path_of(call, "function");
    const bt_fields fields = {function, path.text, call->error};
    if (function == NULL)
        return bt_api_refuse(call->error, path.text, "'%s' is missing", path.text);
    return need_text(&fields, "name", &text) && need_text(&fields, "arguments", &text);
}

static bool check_message(const bt_fields *message)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    const char *role, *text = NULL;
    size_t bytes = 0;
    const json_t *calls;
    if (!need_text(message, "role", &role) || !bt_take_text(message, "name", &text, &bytes) ||
        !bt_take_array(message, "tool_calls", &calls))
        return false;
    if (!is_one_of(role, roles, sizeof(roles) / sizeof(roles[0]))) {
        bt_field_path path = bt_path_of(message, "role");
        return bt_api_refuse(message->error, path.text,
                             "'%s' must be system, developer, user, assistant or tool", path.text);
    }
    bool assistant = strcmp(role, "assistant") == 0;
    if (calls != NULL && !assistant) {
        bt_field_path path = bt_path_of(message, "tool_calls");
        return bt_api_refuse(message->error, path.text, "'%s' is for the assistant only",
                             path.text);
    }
    if (strcmp(role, "tool") == 0 && !need_text(message, "tool_call_id", &text)) return false;
    const bt_neutral neutrals[] = {{"function_call", BT_NEUTRAL_NULL, 0},
                                   {"audio", BT_NEUTRAL_NULL, 0}};
    return bt_refuse_unsupported(message, neutrals, 2) &&
           check_content(message, json_array_size(calls) > 0) &&
           each_object(message, "tool_calls", calls, check_call);
}

/* Arguments of calls are JSON in a text, which the template may get parsed. */
static bool check_arguments(const bt_fields *body, const json_t *messages)
{
    uint32_t containers = 0;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *calls = json_object_get(json_array_get(messages, i), "tool_calls");
        for (size_t k = 0; k < json_array_size(calls); k++) {
            const json_t *function = json_object_get(json_array_get(calls, k), "function");
            const json_t *text = json_object_get(function, "arguments");
            char param[BT_API_PARAM_BYTES_MAX];
            snprintf(param, sizeof(param), "messages[%zu].tool_calls[%zu].function.arguments", i,
                     k);
            if (!bt_check_shape(json_string_value(text), json_string_length(text), param,
                                &containers, body->error))
                return false;
        }
    }
    return true;
}

/* The messages as templates expect them: developer is what OpenAI calls system now, and templates
 * know only that. The caller frees them. */
static bool take_messages(const bt_fields *body, json_t **ret_messages)
{
    const json_t *messages;
    if (!bt_take_array(body, "messages", &messages)) return false;
    if (json_array_size(messages) == 0)
        return bt_api_refuse(body->error, "messages",
                             messages == NULL ? "you must provide messages"
                                              : "'messages' must not be empty");
    if (!each_object(body, "messages", messages, check_message) || !check_arguments(body, messages))
        return false;
    json_t *copy = json_array();
    bool ok = copy != NULL;
    for (size_t i = 0; i < json_array_size(messages) && ok; i++) {
        json_t *message = json_copy(json_array_get(messages, i));
        const char *role = json_string_value(json_object_get(message, "role"));
        if (role != NULL && strcmp(role, "developer") == 0)
            ok = json_object_set_new(message, "role", json_string("system")) == 0;
        ok = json_array_append_new(copy, message) == 0 && ok;
    }
    if (!ok) {
        json_decref(copy);
        return bt_api_no_memory(body->error);
    }
    *ret_messages = copy;
    return true;
}

/* ---- tools and variables ---- */

static bool check_tool(const bt_fields *tool)
{
    const json_t *function;
    const char *name;
    if (!need_type(tool, "function") || !bt_take_object(tool, "function", &function)) return false;
    bt_field_path path = bt_path_of(tool, "function");
    const bt_fields fields = {function, path.text, tool->error};
    if (function == NULL)
        return bt_api_refuse(tool->error, path.text, "'%s' is missing", path.text);
    return need_text(&fields, "name", &name);
}

/* NULL if there are none. Borrowed from the body. */
static bool take_tools(const bt_fields *body, const json_t **ret_tools)
{
    static const char *const choices[] = {"none", "auto"};
    if (!bt_take_array(body, "tools", ret_tools)) return false;
    if (json_array_size(*ret_tools) > TOOLS_MAX)
        return bt_api_refuse(body->error, "tools", "'tools' may hold %u tools at most", TOOLS_MAX);
    if (!each_object(body, "tools", *ret_tools, check_tool)) return false;
    if (json_array_size(*ret_tools) == 0) *ret_tools = NULL;
    const json_t *choice = bt_field(body, "tool_choice");
    if (choice == NULL ||
        (json_is_string(choice) && is_one_of(json_string_value(choice), choices, 2)))
        return true;
    return bt_api_refuse(body->error, "tool_choice",
                         "'tool_choice' may be 'none' or 'auto': others are not supported");
}

/* What the request adds to the template's variables. Names that are the router's are not the client's:
 * <|im_start|> as a bos_token would be no user's text any more. */
static bool take_variables(const bt_fields *body, const json_t **ret_variables)
{
    static const char *const ours[] = {"messages",
                                       "tools",
                                       "add_generation_prompt",
                                       "continue_final_message",
                                       "chat_template",
                                       "additional_special_tokens"};
    if (!bt_take_object(body, "chat_template_kwargs", ret_variables)) return false;
    const char *name;
    const json_t *value;
    json_object_foreach((json_t *)*ret_variables, name, value)
    {
        size_t length = strlen(name), ending = strlen("_token");
        bool token = length >= ending && strcmp(name + length - ending, "_token") == 0;
        if (!token && !is_one_of(name, ours, sizeof(ours) / sizeof(ours[0]))) continue;
        char shown[48];
        bt_escape(name, length, shown, sizeof(shown));
        return bt_api_refuse(body->error, "chat_template_kwargs",
                             "'chat_template_kwargs' must not set '%s'", shown);
    }
    return true;
}

/* ---- the prompt ---- */

static bool render(const bt_request_context *context, const bt_fields *body,
                   bt_template_output *output)
{
    const json_t *tools;
    json_t *messages = NULL;
    bt_chat_options options = {.add_generation_prompt = true};
    const bt_neutral template = {"chat_template", BT_NEUTRAL_NULL, 0};
    if (!bt_refuse_unsupported(body, &template, 1) || !take_tools(body, &tools) ||
        !take_variables(body, &options.variables) ||
        !bt_take_bool(body, "continue_final_message", &options.continue_final_message))
        return false;
    options.add_generation_prompt = !options.continue_final_message;
    if (!bt_take_bool(body, "add_generation_prompt", &options.add_generation_prompt)) return false;
    if (options.add_generation_prompt && options.continue_final_message)
        return bt_api_refuse(body->error, "continue_final_message",
                             "'continue_final_message' and 'add_generation_prompt' exclude each "
                             "other");
    if (!take_messages(body, &messages)) return false;
    bt_err err;
    bt_status status = bt_chat_render(context->chat, messages, tools, &options, output, &err);
    json_decref(messages);
    if (status == BT_ERR_NO_MEMORY) return bt_api_no_memory(body->error);
    return status == BT_OK || bt_api_refuse(body->error, "messages", "%s", err.message);
}

bt_status bt_prompt_of_chat(const bt_request_context *context, const bt_fields *body,
                            uint32_t capacity, bt_token_list *ret_list)
{
    bool special = false; /* the template has them */
    if (context->chat == NULL) {
        bt_api_refuse(body->error, "messages",
                      "the model '%s' has no chat template: use /v1/completions, or set "
                      "router.chat_template",
                      context->model);
        return BT_ERR_ARGUMENT;
    }
    if (!bt_take_bool(body, "add_special_tokens", &special)) return BT_ERR_ARGUMENT;
    bt_template_output output = {0};
    bt_status status = BT_ERR_ARGUMENT;
    if (render(context, body, &output)) {
        const bt_prompt_source source = {.text = output.text,
                                         .bytes = output.bytes,
                                         .plain = output.plain,
                                         .plain_count = output.plain_count,
                                         .flags =
                                             BT_ENCODE_SPECIAL | (special ? 0 : BT_ENCODE_BARE),
                                         .param = "messages"};
        status = bt_prompt_of_text(context, &source, capacity, ret_list, body->error);
    }
    bt_template_output_finish(&output);
    return status;
}

/* ---- the request ---- */

static bool take_prompt(const bt_request_context *context, const bt_fields *body,
                        bt_api_request *request)
{
    uint32_t capacity = context->context_tokens_max;
    bt_token_list list;
    bt_status status = bt_prompt_of_chat(context, body, capacity, &list);
    if (status == BT_ERR_LIMIT)
        return bt_too_long(context, capacity + 1, request->max_tokens, "messages", body->error);
    if (status != BT_OK) return false;
    request->prompts[0] = (bt_request_prompt){.tokens = list.ids, .token_count = list.count};
    request->prompt_count = 1;
    if (list.count == 0)
        return bt_api_refuse(body->error, "messages", "the chat template made an empty prompt");
    bt_detok_init(&request->prompts[0].detok, context->tokenizer,
                  BT_DETOK_CONTINUES | (request->keep_special ? BT_DETOK_SPECIAL : 0));
    return true;
}

/* What is left of the context, if the request does not say. */
static void fill_max_tokens(const bt_request_context *context, bt_api_request *request)
{
    uint32_t prompt = request->prompts[0].token_count, left = 1;
    request->max_tokens_default = request->max_tokens == 0;
    if (!request->max_tokens_default) return;
    if (prompt < context->context_tokens_max) left = context->context_tokens_max - prompt;
    uint32_t most = context->chat_tokens_default;
    request->max_tokens = most > 0 && most < left ? most : left;
}

static bool take_own(const bt_fields *body, bt_api_request *request)
{
    static const bt_neutral neutrals[] = {
        {"functions", BT_NEUTRAL_EMPTY_ARRAY, 0},
        {"function_call", BT_NEUTRAL_NULL, 0},
        {"audio", BT_NEUTRAL_NULL, 0},
        {"prediction", BT_NEUTRAL_NULL, 0},
        {"echo", BT_NEUTRAL_FALSE, 0},
        {"web_search_options", BT_NEUTRAL_NULL, 0},
    };
    int64_t max_tokens = 0, top_logprobs = 0;
    bt_sampling *s = &request->sampling;
    if (!bt_refuse_unsupported(body, neutrals, sizeof(neutrals) / sizeof(neutrals[0])) ||
        !bt_take_integer(body, "max_tokens", 1, INT32_MAX, &max_tokens) ||
        !bt_take_integer(body, "max_completion_tokens", 1, INT32_MAX, &max_tokens) ||
        !bt_take_bool(body, "logprobs", &s->logprobs) ||
        !bt_take_integer(body, "top_logprobs", 0, BT_TOP_LOGPROBS_MAX, &top_logprobs))
        return false;
    if (top_logprobs > 0 && !s->logprobs)
        return bt_api_refuse(body->error, "top_logprobs", "'top_logprobs' needs 'logprobs': true");
    s->top_logprobs = (uint32_t)top_logprobs;
    request->max_tokens = (uint32_t)max_tokens;
    const json_t *modalities;
    if (!bt_take_array(body, "modalities", &modalities)) return false;
    for (size_t i = 0; i < json_array_size(modalities); i++) {
        const char *modality = json_string_value(json_array_get(modalities, i));
        if (modality == NULL || strcmp(modality, "text") != 0)
            return bt_api_refuse(body->error, "modalities",
                                 "'modalities' other than text are not supported");
    }
    return true;
}

bool bt_chat_parse(const bt_request_context *context, const char *body, size_t bytes,
                   bt_api_request *ret_request, bt_api_error *ret_error)
{
    memset(ret_request, 0, sizeof(*ret_request));
    ret_request->chat = true;
    json_t *root;
    if (!bt_body_parse(body, bytes, &root, ret_error)) return false;
    const bt_fields fields = {root, "", ret_error};
    bool ok = bt_take_model(context, &fields, true) && take_own(&fields, ret_request) &&
              bt_take_switches(&fields, ret_request) && take_prompt(context, &fields, ret_request);
    if (ok) {
        fill_max_tokens(context, ret_request);
        ok = bt_take_common(context, &fields, ret_request) &&
             bt_check_sizes(context, &fields, ret_request);
    }
    json_decref(root);
    if (!ok) bt_api_request_finish(ret_request);
    return ok;
}
