#include "router/request.h"

#include "common/base/parse.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool refuse(bt_api_error *error, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static bool refuse(bt_api_error *error, const char *param, const char *fmt, ...)
{
    *error = (bt_api_error){.http_status = 400, .type = "invalid_request_error"};
    snprintf(error->param, sizeof(error->param), "%s", param);
    va_list args;
    va_start(args, fmt);
    vsnprintf(error->message, sizeof(error->message), fmt, args);
    va_end(args);
    return false;
}

/* ---- fields ---- */

/* null counts as absent, as in OpenAI's API. */
static const json_t *field(const json_t *root, const char *name)
{
    const json_t *value = json_object_get(root, name);
    return json_is_null(value) ? NULL : value;
}

static bool take_number(const json_t *root, const char *name, const double range[2],
                        double *ret_value, bt_api_error *error)
{
    const json_t *value = field(root, name);
    if (value == NULL) return true;
    if (!json_is_number(value)) return refuse(error, name, "'%s' must be a number", name);
    double number = json_number_value(value);
    if (!(number >= range[0] && number <= range[1]))
        return refuse(error, name, "'%s' must be between %g and %g, not %g", name, range[0],
                      range[1], number);
    *ret_value = number;
    return true;
}

static bool take_integer(const json_t *root, const char *name, const int64_t range[2],
                         int64_t *ret_value, bt_api_error *error)
{
    const json_t *value = field(root, name);
    if (value == NULL) return true;
    if (!json_is_integer(value)) return refuse(error, name, "'%s' must be an integer", name);
    int64_t number = json_integer_value(value);
    if (number < range[0] || number > range[1])
        return refuse(error, name, "'%s' must be between %lld and %lld, not %lld", name,
                      (long long)range[0], (long long)range[1], (long long)number);
    *ret_value = number;
    return true;
}

static bool take_bool(const json_t *root, const char *name, bool *ret_value, bt_api_error *error)
{
    const json_t *value = field(root, name);
    if (value == NULL) return true;
    if (!json_is_boolean(value)) return refuse(error, name, "'%s' must be true or false", name);
    *ret_value = json_is_true(value);
    return true;
}

static bool take_model(const bt_request_context *context, const json_t *root, bt_api_error *error)
{
    const json_t *model = field(root, "model");
    if (model == NULL) return refuse(error, "model", "you must provide a model parameter");
    if (!json_is_string(model)) return refuse(error, "model", "'model' must be a string");
    if (strcmp(json_string_value(model), context->model) == 0) return true;
    char name[96];
    bt_escape(json_string_value(model), json_string_length(model), name, sizeof(name));
    refuse(error, "model", "The model '%s' does not exist; this server has '%s'", name,
           context->model);
    error->http_status = 404;
    error->code = "model_not_found";
    return false;
}

/* Fields whose effect we do not have: refused unless they ask for what happens anyway. */
static bool check_unsupported(const json_t *root, bt_api_error *error)
{
    static const struct {
        const char *name;
        double neutral;
    } numbers[] = {{"n", 1},
                   {"best_of", 1},
                   {"presence_penalty", 0},
                   {"frequency_penalty", 0},
                   {"logprobs", 0},
                   {"repetition_penalty", 1},
                   {"min_p", 0},
                   {"min_tokens", 0}};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        const json_t *value = field(root, numbers[i].name);
        if (value == NULL) continue;
        if (!json_is_number(value))
            return refuse(error, numbers[i].name, "'%s' must be a number", numbers[i].name);
        if (json_number_value(value) != numbers[i].neutral)
            return refuse(error, numbers[i].name, "'%s' other than %g is not supported yet",
                          numbers[i].name, numbers[i].neutral);
    }
    bool echo = false;
    if (!take_bool(root, "echo", &echo, error)) return false;
    if (echo) return refuse(error, "echo", "'echo' is not supported yet");
    const json_t *suffix = field(root, "suffix");
    if (suffix != NULL && (!json_is_string(suffix) || json_string_length(suffix) > 0))
        return refuse(error, "suffix", "'suffix' is not supported");
    const json_t *bias = field(root, "logit_bias");
    if (bias != NULL && (!json_is_object(bias) || json_object_size(bias) > 0))
        return refuse(error, "logit_bias", "'logit_bias' is not supported yet");
    return true;
}

/* ---- prompts ---- */

static bool add_prompt(bt_completion_request *request, uint32_t capacity,
                       bt_request_prompt **ret_prompt, bt_api_error *error)
{
    if (request->prompt_count == BT_PROMPTS_MAX)
        return refuse(error, "prompt", "'prompt' may hold %u prompts at most", BT_PROMPTS_MAX);
    bt_request_prompt *prompt = &request->prompts[request->prompt_count];
    prompt->tokens = malloc(capacity * sizeof(uint32_t));
    if (prompt->tokens == NULL) {
        refuse(error, "prompt", "out of memory");
        error->http_status = 503;
        return false;
    }
    request->prompt_count++;
    *ret_prompt = prompt;
    return true;
}

static bool too_long(const bt_request_context *context, const bt_completion_request *request,
                     uint64_t tokens, bt_api_error *error)
{
    refuse(error, "prompt",
           "This model's maximum context length is %u tokens. However, you requested %llu tokens "
           "(%llu in your prompt; %u "
           "for the completion). Please reduce your prompt or completion length.",
           context->context_tokens_max, (unsigned long long)tokens + request->max_tokens,
           (unsigned long long)tokens, request->max_tokens);
    error->code = "context_length_exceeded";
    return false;
}

static bool add_text(const bt_request_context *context, const json_t *text,
                     bt_completion_request *request, bt_api_error *error)
{
    size_t bytes = json_string_length(text);
    uint32_t capacity = context->context_tokens_max + 1;
    bt_request_prompt *prompt;
    if (!add_prompt(request, capacity, &prompt, error)) return false;
    bt_tokens tokens = {.ids = prompt->tokens, .capacity = capacity};
    bt_err err;
    bt_status status =
        bt_tokenizer_encode(context->tokenizer, json_string_value(text), bytes, 0, &tokens, &err);
    if (status == BT_ERR_LIMIT) return too_long(context, request, capacity, error);
    if (status != BT_OK) return refuse(error, "prompt", "%s", err.message);
    if (tokens.count == 0) return refuse(error, "prompt", "'prompt' must not be empty");
    /* A tokenizer may know added tokens that the weights have no row for. */
    for (size_t i = 0; i < tokens.count; i++)
        if (tokens.ids[i] >= context->vocab)
            return refuse(error, "prompt", "'prompt' has token %u, which the model does not know",
                          tokens.ids[i]);
    prompt->token_count = (uint32_t)tokens.count;
    return true;
}

static bool add_ids(const bt_request_context *context, const json_t *ids,
                    bt_completion_request *request, bt_api_error *error)
{
    size_t count = json_array_size(ids);
    if (count == 0) return refuse(error, "prompt", "'prompt' must not be empty");
    if (count > context->context_tokens_max) return too_long(context, request, count, error);
    bt_request_prompt *prompt;
    if (!add_prompt(request, (uint32_t)count, &prompt, error)) return false;
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= context->vocab)
            return refuse(error, "prompt", "token %zu of 'prompt' is not an id below %u", i,
                          context->vocab);
        prompt->tokens[i] = (uint32_t)json_integer_value(id);
    }
    prompt->token_count = (uint32_t)count;
    return true;
}

/* string | [string] | [int] | [[int]] */
static bool take_prompts(const bt_request_context *context, const json_t *root,
                         bt_completion_request *request, bt_api_error *error)
{
    const json_t *prompt = field(root, "prompt");
    if (prompt == NULL) return refuse(error, "prompt", "you must provide a prompt");
    if (json_is_string(prompt)) return add_text(context, prompt, request, error);
    if (!json_is_array(prompt))
        return refuse(
            error, "prompt",
            "'prompt' must be a string, an array of strings, of token ids or of arrays of them");
    if (json_array_size(prompt) == 0 || json_is_integer(json_array_get(prompt, 0)))
        return add_ids(context, prompt, request, error);
    for (size_t i = 0; i < json_array_size(prompt); i++) {
        const json_t *item = json_array_get(prompt, i);
        if (!json_is_string(item) && !json_is_array(item))
            return refuse(error, "prompt",
                          "item %zu of 'prompt' is neither a string nor an array of token ids", i);
        bool ok = json_is_string(item) ? add_text(context, item, request, error)
                                       : add_ids(context, item, request, error);
        if (!ok) return false;
    }
    return true;
}

static bool take_stop(const json_t *root, bt_completion_request *request, bt_api_error *error)
{
    const json_t *stop = field(root, "stop");
    bt_stop_string strings[BT_REQUEST_STOPS];
    uint32_t count = 0;
    if (json_is_string(stop)) {
        if (json_string_length(stop) > 0)
            strings[count++] = (bt_stop_string){json_string_value(stop), json_string_length(stop)};
    } else if (stop != NULL) {
        if (!json_is_array(stop) || json_array_size(stop) > BT_REQUEST_STOPS)
            return refuse(error, "stop",
                          "'stop' must be a string or an array of at most %u strings",
                          BT_REQUEST_STOPS);
        for (size_t i = 0; i < json_array_size(stop); i++) {
            const json_t *item = json_array_get(stop, i);
            if (!json_is_string(item))
                return refuse(error, "stop", "'stop' must hold strings only");
            strings[count++] = (bt_stop_string){json_string_value(item), json_string_length(item)};
        }
    }
    bt_err err;
    if (bt_stop_init(&request->stop, strings, count, &err) != BT_OK)
        return refuse(error, "stop", "%s", err.message);
    return true;
}

static bool take_sampling(const bt_request_context *context, const json_t *root,
                          bt_completion_request *request, bt_api_error *error)
{
    int64_t max_tokens = BT_MAX_TOKENS_DEFAULT, top_k = 0, seed = 0;
    double temperature = 1, top_p = 1;
    const int64_t token_range[2] = {1, INT32_MAX}, k_range[2] = {-1, INT32_MAX},
                  seed_range[2] = {INT64_MIN, INT64_MAX};
    const double temperature_range[2] = {0, 2}, p_range[2] = {0, 1};
    if (!take_integer(root, "max_tokens", token_range, &max_tokens, error) ||
        !take_integer(root, "top_k", k_range, &top_k, error) ||
        !take_integer(root, "seed", seed_range, &seed, error) ||
        !take_number(root, "temperature", temperature_range, &temperature, error) ||
        !take_number(root, "top_p", p_range, &top_p, error))
        return false;
    if (top_p < 1e-6) top_p = 1e-6; /* the most likely token alone; less is 0 as a float */
    request->max_tokens =
        (uint32_t)max_tokens; /* checked against the context with each prompt's length */
    request->seeded = field(root, "seed") != NULL;
    request->sampling =
        (bt_sampling){.temperature = (float)temperature,
                      .top_p = (float)top_p,
                      /* As many as there are is no limit, and what daemons take ends there. */
                      .top_k = top_k > 0 && top_k < context->vocab ? (uint32_t)top_k : 0,
                      .seed = (uint64_t)seed};
    return true;
}

static bool take_switches(const json_t *root, bt_completion_request *request, bt_api_error *error)
{
    if (!take_bool(root, "stream", &request->stream, error) ||
        !take_bool(root, "ignore_eos", &request->ignore_eos, error) ||
        !take_bool(root, "return_token_ids", &request->return_token_ids, error))
        return false;
    const json_t *options = field(root, "stream_options");
    if (options == NULL) return true;
    if (!json_is_object(options))
        return refuse(error, "stream_options", "'stream_options' must be an object");
    if (!request->stream)
        return refuse(error, "stream_options", "'stream_options' needs 'stream': true");
    return take_bool(options, "include_usage", &request->include_usage, error);
}

static bool take_all(const bt_request_context *context, const json_t *root,
                     bt_completion_request *request, bt_api_error *error)
{
    if (!json_is_object(root)) return refuse(error, "", "the body must be a JSON object");
    if (!take_model(context, root, error) || !check_unsupported(root, error) ||
        !take_sampling(context, root, request, error) || !take_switches(root, request, error) ||
        !take_stop(root, request, error) || !take_prompts(context, root, request, error))
        return false;
    for (uint32_t i = 0; i < request->prompt_count; i++) {
        uint64_t tokens = request->prompts[i].token_count;
        if (tokens + request->max_tokens > context->context_tokens_max)
            return too_long(context, request, tokens, error);
    }
    return true;
}

bool bt_completion_request_parse(const bt_request_context *context, const char *body, size_t bytes,
                                 bt_completion_request *ret_request, bt_api_error *ret_error)
{
    memset(ret_request, 0, sizeof(*ret_request));
    json_error_t where;
    json_t *root = json_loadb(body, bytes, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL)
        return refuse(ret_error, "", "the body is not valid JSON: line %d: %s", where.line,
                      where.text);
    bool ok = take_all(context, root, ret_request, ret_error);
    json_decref(root);
    if (!ok) bt_completion_request_finish(ret_request);
    return ok;
}

void bt_completion_request_finish(bt_completion_request *request)
{
    for (uint32_t i = 0; i < request->prompt_count; i++) {
        free(request->prompts[i].tokens);
        request->prompts[i].tokens = NULL;
    }
    request->prompt_count = 0;
}
