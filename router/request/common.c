/* common.c - what completions and chat take alike: model, sampling, stops, streaming, n. */
#include "common/base/parse.h"
#include "router/request/parts.h"

#include <stdlib.h>
#include <string.h>

#define REPETITION_MIN 0.01 /* BT_REPETITION_PENALTY_MIN as clients write it */

bool bt_take_model(const bt_request_context *context, const bt_fields *body, bool required)
{
    const char *model = NULL;
    size_t bytes = 0;
    if (!bt_take_text(body, "model", &model, &bytes)) return false;
    if (model == NULL)
        return !required ||
               bt_api_refuse(body->error, "model", "you must provide a model parameter");
    if (strcmp(model, context->model) == 0) return true;
    char name[96];
    bt_escape(model, bytes, name, sizeof(name));
    bt_api_refuse(body->error, "model", "The model '%s' does not exist; this server has '%s'", name,
                  context->model);
    body->error->http_status = 404;
    body->error->code = "model_not_found";
    return false;
}

static bool check_unsupported(const bt_fields *body)
{
    static const bt_neutral neutrals[] = {
        {"length_penalty", BT_NEUTRAL_NUMBER, 1},
        {"use_beam_search", BT_NEUTRAL_FALSE, 0},
        {"allowed_token_ids", BT_NEUTRAL_EMPTY_ARRAY, 0},
        {"bad_words", BT_NEUTRAL_EMPTY_ARRAY, 0},
        {"logits_processors", BT_NEUTRAL_EMPTY_ARRAY, 0},
        {"prompt_logprobs", BT_NEUTRAL_NULL, 0},
        {"prompt_embeds", BT_NEUTRAL_NULL, 0},
        {"truncate_prompt_tokens", BT_NEUTRAL_NULL, 0},
        {"structured_outputs", BT_NEUTRAL_NULL, 0},
        {"guided_json", BT_NEUTRAL_NULL, 0},
        {"guided_regex", BT_NEUTRAL_NULL, 0},
        {"guided_choice", BT_NEUTRAL_NULL, 0},
        {"guided_grammar", BT_NEUTRAL_NULL, 0},
    };
    if (!bt_refuse_unsupported(body, neutrals, sizeof(neutrals) / sizeof(neutrals[0])))
        return false;
    const json_t *format;
    if (!bt_take_object(body, "response_format", &format)) return false;
    if (format == NULL) return true;
    const bt_fields fields = {format, "response_format", body->error};
    const char *type = NULL;
    size_t bytes = 0;
    if (!bt_take_text(&fields, "type", &type, &bytes)) return false;
    return (type != NULL && strcmp(type, "text") == 0) ||
           bt_api_refuse(body->error, "response_format",
                         "'response_format' other than {\"type\": \"text\"} is not supported");
}

/* An id as the key of an object: decimal digits in the one way to write it. */
static bool read_id(const char *key, uint32_t vocab, uint32_t *ret_id)
{
    bt_err err;
    return (key[0] != '0' || key[1] == '\0') && bt_parse_u32(key, vocab - 1, ret_id, &err) == BT_OK;
}

static int compare_bias(const void *a, const void *b)
{
    uint32_t first = ((const bt_logit_bias *)a)->id, second = ((const bt_logit_bias *)b)->id;
    return first < second ? -1 : first > second;
}

static bool take_bias(const bt_request_context *context, const bt_fields *body,
                      bt_api_request *request)
{
    const json_t *object, *value;
    const char *key;
    if (!bt_take_object(body, "logit_bias", &object)) return false;
    if (json_object_size(object) > BT_LOGIT_BIAS_MAX)
        return bt_api_refuse(body->error, "logit_bias", "'logit_bias' may have %u tokens at most",
                             BT_LOGIT_BIAS_MAX);
    request->sampling.bias = request->bias;
    json_object_foreach((json_t *)object, key, value)
    {
        char shown[32];
        bt_escape(key, strlen(key), shown, sizeof(shown));
        bt_logit_bias *row = &request->bias[request->sampling.bias_count];
        if (!read_id(key, context->vocab, &row->id))
            return bt_api_refuse(body->error, "logit_bias",
                                 "the key '%s' of 'logit_bias' is not an id below %u", shown,
                                 context->vocab);
        double bias = json_number_value(value); /* 0 if it is none */
        if (!json_is_number(value) || !(bias >= -BT_BIAS_MAX && bias <= BT_BIAS_MAX))
            return bt_api_refuse(body->error, "logit_bias",
                                 "'logit_bias' of token %s must be a number from %g to %g", shown,
                                 (double)-BT_BIAS_MAX, (double)BT_BIAS_MAX);
        row->bias = (float)bias;
        request->sampling.bias_count++;
    }
    qsort(request->bias, request->sampling.bias_count, sizeof(*request->bias), compare_bias);
    return true;
}

static bool take_float(const bt_fields *body, const char *name, double min, double max,
                       float *ret_value)
{
    double value = *ret_value;
    if (!bt_take_number(body, name, min, max, &value)) return false;
    *ret_value = (float)value;
    return true;
}

static bool take_sampling(const bt_request_context *context, const bt_fields *body,
                          bt_api_request *request)
{
    bt_sampling *s = &request->sampling;
    int64_t top_k = 0, seed = 0, min_tokens = 0;
    s->temperature = 1;
    s->top_p = 1;
    s->repetition_penalty = 1;
    if (!bt_take_integer(body, "top_k", -1, INT32_MAX, &top_k) ||
        !bt_take_integer(body, "seed", INT64_MIN, INT64_MAX, &seed) ||
        !bt_take_integer(body, "min_tokens", 0, INT32_MAX, &min_tokens) ||
        !take_float(body, "temperature", 0, 2, &s->temperature) ||
        !take_float(body, "top_p", 0, 1, &s->top_p) ||
        !take_float(body, "min_p", 0, 1, &s->min_p) ||
        !take_float(body, "presence_penalty", -BT_PENALTY_MAX, BT_PENALTY_MAX,
                    &s->presence_penalty) ||
        !take_float(body, "frequency_penalty", -BT_PENALTY_MAX, BT_PENALTY_MAX,
                    &s->frequency_penalty) ||
        !take_float(body, "repetition_penalty", REPETITION_MIN, BT_REPETITION_PENALTY_MAX,
                    &s->repetition_penalty) ||
        !take_bias(context, body, request))
        return false;
    if (s->top_p < 1e-6f) s->top_p = 1e-6f; /* the most likely token alone; less is 0 as a float */
    if (s->repetition_penalty < BT_REPETITION_PENALTY_MIN)
        s->repetition_penalty = BT_REPETITION_PENALTY_MIN; /* it was rounded */
    if (min_tokens > request->max_tokens)
        return bt_api_refuse(body->error, "min_tokens",
                             "'min_tokens' %lld is more than the %u tokens at most",
                             (long long)min_tokens, request->max_tokens);
    /* As many as there are is no limit, and what daemons take ends there. */
    s->top_k = top_k > 0 && top_k < context->vocab ? (uint32_t)top_k : 0;
    s->min_tokens = (uint32_t)min_tokens;
    s->seed = (uint64_t)seed;
    request->seeded = bt_field(body, "seed") != NULL;
    return true;
}

/* ---- where it ends ---- */

static bool take_stop(const bt_fields *body, bt_api_request *request)
{
    const json_t *stop = bt_field(body, "stop");
    bt_stop_string strings[BT_STOP_STRINGS_MAX];
    uint32_t count = 0;
    if (json_is_string(stop)) {
        if (json_string_length(stop) > 0)
            strings[count++] = (bt_stop_string){json_string_value(stop), json_string_length(stop)};
    } else if (stop != NULL) {
        if (!json_is_array(stop) || json_array_size(stop) > BT_STOP_STRINGS_MAX)
            return bt_api_refuse(body->error, "stop",
                                 "'stop' must be a string or an array of at most %u strings",
                                 BT_STOP_STRINGS_MAX);
        for (size_t i = 0; i < json_array_size(stop); i++) {
            const json_t *item = json_array_get(stop, i);
            if (!json_is_string(item))
                return bt_api_refuse(body->error, "stop", "'stop' must hold strings only");
            strings[count++] = (bt_stop_string){json_string_value(item), json_string_length(item)};
        }
    }
    bt_err err;
    if (bt_stop_init(&request->stop, strings, count, &err) != BT_OK)
        return bt_api_refuse(body->error, "stop", "%s", err.message);
    return true;
}

static bool take_stop_ids(const bt_request_context *context, const bt_fields *body,
                          bt_api_request *request)
{
    const json_t *ids;
    if (!bt_take_array(body, "stop_token_ids", &ids)) return false;
    if (json_array_size(ids) > BT_STOP_IDS_MAX)
        return bt_api_refuse(body->error, "stop_token_ids",
                             "'stop_token_ids' may hold %u ids at most", BT_STOP_IDS_MAX);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= context->vocab)
            return bt_api_refuse(body->error, "stop_token_ids",
                                 "item %zu of 'stop_token_ids' is not an id below %u", i,
                                 context->vocab);
        request->sampling.stop_ids[request->sampling.stop_count++] =
            (uint32_t)json_integer_value(id);
    }
    return true;
}

/* ---- how it is answered ---- */

bool bt_take_switches(const bt_fields *body, bt_api_request *request)
{
    bool skip_special = true;
    if (!bt_take_bool(body, "stream", &request->stream) ||
        !bt_take_bool(body, "ignore_eos", &request->ignore_eos) ||
        !bt_take_bool(body, "return_token_ids", &request->return_token_ids) ||
        !bt_take_bool(body, "include_stop_str_in_output", &request->include_stop) ||
        !bt_take_bool(body, "skip_special_tokens", &skip_special))
        return false;
    request->keep_special = !skip_special;
    const json_t *options;
    if (!bt_take_object(body, "stream_options", &options)) return false;
    if (options == NULL) return true;
    if (!request->stream)
        return bt_api_refuse(body->error, "stream_options",
                             "'stream_options' needs 'stream': true");
    const bt_fields fields = {options, "stream_options", body->error};
    return bt_take_bool(&fields, "include_usage", &request->include_usage) &&
           bt_take_bool(&fields, "continuous_usage_stats", &request->continuous_usage);
}

static bool take_n(const bt_request_context *context, const bt_fields *body,
                   bt_api_request *request)
{
    int64_t n = 1, best_of;
    if (!bt_take_integer(body, "n", 1, context->choices_max, &n)) return false;
    best_of = n;
    if (!bt_take_integer(body, "best_of", 1, INT32_MAX, &best_of)) return false;
    if (best_of != n)
        return bt_api_refuse(body->error, "best_of", "'best_of' other than 'n' is not supported");
    request->n = (uint32_t)n;
    return true;
}

static bool take_salt(const bt_fields *body, bt_api_request *request)
{
    const char *salt = NULL;
    size_t bytes = 0;
    if (!bt_take_text(body, "cache_salt", &salt, &bytes)) return false;
    if (salt == NULL) return true;
    if (bytes == 0)
        return bt_api_refuse(body->error, "cache_salt", "'cache_salt' must not be empty");
    bt_sha256_of(salt, bytes, &request->salt);
    request->salted = true;
    return true;
}

bool bt_take_common(const bt_request_context *context, const bt_fields *body,
                    bt_api_request *request)
{
    return check_unsupported(body) && take_n(context, body, request) &&
           take_sampling(context, body, request) && take_stop(body, request) &&
           take_stop_ids(context, body, request) && take_salt(body, request);
}

bool bt_check_sizes(const bt_request_context *context, const bt_fields *body,
                    const bt_api_request *request)
{
    uint64_t echo_bytes = 0;
    for (uint32_t i = 0; i < request->prompt_count; i++) {
        uint64_t tokens = request->prompts[i].token_count;
        uint32_t output = request->max_tokens > 0 ? request->max_tokens : 1;
        if (tokens + output > context->context_tokens_max)
            return bt_too_long(context, tokens, request->max_tokens,
                               request->chat ? "messages" : "prompt", body->error);
        echo_bytes += (uint64_t)request->n * request->prompts[i].echo_bytes;
    }
    if (echo_bytes > BT_PROMPT_TEXT_BYTES_MAX)
        return bt_api_refuse(body->error, "echo",
                             "the prompts to echo have %llu bytes, the limit is %u",
                             (unsigned long long)echo_bytes, BT_PROMPT_TEXT_BYTES_MAX);
    if ((uint64_t)request->prompt_count * request->n > context->choices_max)
        return bt_api_refuse(body->error, "n", "%u prompts times 'n' = %u are more than %u choices",
                             request->prompt_count, request->n, context->choices_max);
    return true;
}

void bt_api_request_finish(bt_api_request *request)
{
    for (uint32_t i = 0; i < request->prompt_count; i++) {
        free(request->prompts[i].tokens);
        free(request->prompts[i].echo);
        free(request->prompts[i].entries);
    }
    request->prompt_count = 0;
}
