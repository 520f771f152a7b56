/* routes.c - HTTP requests to their handlers, by one table of paths and methods.
 *
 * ADD ONE a handler and a row. A path that ends in "/" stands for every path that begins with it. */
#include "common/base/parse.h"
#include "router/fleet.h"
#include "router/openai_json.h"
#include "router/policies/policy.h"
#include "router/shell_state.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void reply_json(bt_http_exchange *exchange, int status, const bt_json_out *json)
{
    bt_http_reply(exchange, status, "application/json", NULL, json->data, json->bytes);
}

static void reply_not_found(bt_router *router, bt_http_exchange *exchange,
                            const bt_http_request *http)
{
    bt_api_error error = {.http_status = 404, .type = "invalid_request_error"};
    char path[128], method[32];
    bt_escape(http->head->path.data, http->head->path.bytes, path, sizeof(path));
    bt_escape(http->head->method.data, http->head->method.bytes, method, sizeof(method));
    snprintf(error.message, sizeof(error.message), "there is no %s %s", method, path);
    bt_api_error_reply(exchange, &router->completions.json, &error);
}

/* ---- what there is to see ---- */

static void write_model(const bt_router *router, bt_json_out *json)
{
    bt_json_begin(json, '{');
    bt_json_key(json, "id");
    bt_json_text(json, router->model_name);
    bt_json_key(json, "object");
    bt_json_text(json, "model");
    bt_json_key(json, "created");
    bt_json_u64(json, (uint64_t)router->created);
    bt_json_key(json, "owned_by");
    bt_json_text(json, "baton");
    bt_json_key(json, "max_model_len");
    bt_json_u64(json, router->context.context_tokens_max);
    bt_json_end(json, '}');
}

static void serve_models(bt_router *router, bt_http_exchange *exchange, const bt_http_request *http)
{
    (void)http;
    bt_json_out *json = &router->completions.json;
    bt_json_reset(json);
    bt_json_begin(json, '{');
    bt_json_key(json, "object");
    bt_json_text(json, "list");
    bt_json_key(json, "data");
    bt_json_begin(json, '[');
    write_model(router, json);
    bt_json_end(json, ']');
    bt_json_end(json, '}');
    reply_json(exchange, 200, json);
}

/* The text with %XX decoded, or false: clients may send a "/" in a name as %2F. */
static bool decode_path(bt_text text, char *ret_name, size_t capacity)
{
    size_t used = 0;
    for (size_t i = 0; i < text.bytes; i++) {
        unsigned value = (unsigned char)text.data[i];
        if (value == '%') {
            if (i + 2 >= text.bytes || !isxdigit((unsigned char)text.data[i + 1]) ||
                !isxdigit((unsigned char)text.data[i + 2]))
                return false;
            char hex[3] = {text.data[i + 1], text.data[i + 2], '\0'};
            value = (unsigned)strtoul(hex, NULL, 16);
            i += 2;
        }
        if (value == 0 || used + 1 >= capacity) return false;
        ret_name[used++] = (char)value;
    }
    ret_name[used] = '\0';
    return true;
}

static void serve_model(bt_router *router, bt_http_exchange *exchange, const bt_http_request *http)
{
    size_t prefix = strlen("/v1/models/");
    const bt_text rest = {http->head->path.data + prefix, http->head->path.bytes - prefix};
    char name[BT_NAME_BYTES_MAX];
    bt_json_out *json = &router->completions.json;
    if (decode_path(rest, name, sizeof(name)) && strcmp(name, router->model_name) == 0) {
        bt_json_reset(json);
        write_model(router, json);
        reply_json(exchange, 200, json);
        return;
    }
    bt_api_error error = {
        .http_status = 404, .type = "invalid_request_error", .code = "model_not_found"};
    snprintf(error.param, sizeof(error.param), "model");
    char shown[96];
    bt_escape(rest.data, rest.bytes, shown, sizeof(shown));
    snprintf(error.message, sizeof(error.message),
             "The model '%s' does not exist; this server has '%s'", shown, router->model_name);
    bt_api_error_reply(exchange, json, &error);
}

static void serve_health(bt_router *router, bt_http_exchange *exchange, const bt_http_request *http)
{
    (void)http;
    bool serving = bt_router_core_serving(router->core) && !router->draining;
    const char *text = serving ? "{\"status\": \"ok\"}"
                               : "{\"status\": \"no prefill and decode daemons are paired\"}";
    bt_http_reply(exchange, serving ? 200 : 503, "application/json",
                  serving ? NULL : "Retry-After: 1\r\n", text, strlen(text));
}

static void serve_metrics(bt_router *router, bt_http_exchange *exchange,
                          const bt_http_request *http)
{
    (void)http;
    size_t bytes = 0;
    bt_err err;
    if (bt_router_series_write(&router->series, router->core,
                               bt_link_server_malformed_total(router->server), &bytes,
                               &err) == BT_OK)
        bt_http_reply(exchange, 200, BT_METRICS_CONTENT_TYPE, NULL, router->series.text, bytes);
    else
        bt_http_reply(exchange, 500, "text/plain", NULL, err.message, strlen(err.message));
}

static void serve_fleet(bt_router *router, bt_http_exchange *exchange, const bt_http_request *http)
{
    (void)http;
    const bt_router_self self = {.name = router->options->name,
                                 .model = router->model_name,
                                 .policy = bt_router_policies[router->options->policy]->name,
                                 .http = bt_http_server_address(router->http),
                                 .control = bt_link_server_endpoint(router->server),
                                 .incarnation = router->incarnation,
                                 .context_tokens_max = router->context.context_tokens_max,
                                 .draining = router->draining};
    bt_json_out json;
    bt_json_init(&json, BT_ROUTER_FLEET_BYTES_MAX);
    bt_router_fleet_write(&self, router->core, bt_loop_now_ns(), &json);
    reply_json(exchange, json.overflow ? 503 : 200, &json); /* overflow: memory is short */
    bt_json_finish(&json);
}

/* ---- work ---- */

/* Up to ";" and without blanks, in any case. */
static bool is_json_type(const bt_text *value)
{
    static const char json[] = "application/json";
    size_t bytes = 0;
    while (bytes < value->bytes && value->data[bytes] != ';') bytes++;
    while (bytes > 0 && (value->data[bytes - 1] == ' ' || value->data[bytes - 1] == '\t')) bytes--;
    return bytes == strlen(json) && strncasecmp(value->data, json, bytes) == 0;
}

/* What a browser sends for another site without asking is refused with it. */
static bool check_type(const bt_http_request *http, bt_api_error *error)
{
    const bt_text *type = bt_http1_find(http->head, "content-type"),
                  *encoding = bt_http1_find(http->head, "content-encoding");
    bool identity = encoding == NULL || bt_text_is(*encoding, "identity");
    if (identity && (type == NULL || is_json_type(type))) return true;
    *error = (bt_api_error){.http_status = 415, .type = "invalid_request_error"};
    const bt_text *wrong = identity ? type : encoding;
    char shown[96];
    bt_escape(wrong->data, wrong->bytes, shown, sizeof(shown));
    snprintf(error->message, sizeof(error->message), "%s '%s' is not supported: send %s",
             identity ? "Content-Type" : "Content-Encoding", shown,
             identity ? "application/json" : "the body as it is");
    return false;
}

static void serve_request(bt_router *router, bt_http_exchange *exchange,
                          const bt_http_request *http, bool chat)
{
    bt_api_request request;
    bt_api_error error;
    bool ok = check_type(http, &error);
    if (ok && router->draining) {
        ok = false;
        error = (bt_api_error){.http_status = 503,
                               .type = "server_error",
                               .code = "draining",
                               .message = "shutting down"};
    }
    if (ok)
        ok = (chat ? bt_chat_parse : bt_completion_parse)(&router->context, http->body,
                                                          http->body_bytes, &request, &error);
    if (!ok) {
        bt_api_error_reply(exchange, &router->completions.json, &error);
        return;
    }
    bt_completion_start(&router->completions, exchange, &request);
    bt_router_arm(router);
}

static void serve_chat(bt_router *router, bt_http_exchange *exchange, const bt_http_request *http)
{
    serve_request(router, exchange, http, true);
}

static void serve_completions(bt_router *router, bt_http_exchange *exchange,
                              const bt_http_request *http)
{
    serve_request(router, exchange, http, false);
}

static void write_tokens(const bt_router *router, bt_json_out *json,
                         const bt_tokenize_request *request)
{
    bt_json_begin(json, '{');
    bt_json_key(json, "count");
    bt_json_u64(json, request->count);
    bt_json_key(json, "max_model_len");
    bt_json_u64(json, router->context.context_tokens_max);
    bt_json_key(json, "tokens");
    bt_json_begin(json, '[');
    for (uint32_t i = 0; i < request->count; i++) bt_json_u64(json, request->tokens[i]);
    bt_json_end(json, ']');
    bt_json_key(json, "token_strs");
    if (request->return_strings) {
        char text[BT_TOKEN_TEXT_BYTES_MAX];
        bt_json_begin(json, '[');
        for (uint32_t i = 0; i < request->count; i++)
            bt_json_string(json, text,
                           bt_openai_token_text(router->tokenizer, request->tokens[i], "", text));
        bt_json_end(json, ']');
    } else {
        bt_json_null(json);
    }
    bt_json_end(json, '}');
}

/* The scratch, or an error if it did not fit. */
static void reply_scratch(bt_router *router, bt_http_exchange *exchange)
{
    bt_json_out *json = &router->completions.json;
    if (!json->overflow) {
        reply_json(exchange, 200, json);
        return;
    }
    bt_api_error error = {.http_status = 500, .type = "server_error", .code = "answer_too_large"};
    snprintf(error.message, sizeof(error.message), "the answer has more than %u bytes",
             BT_COMPLETION_ANSWER_MAX);
    bt_api_error_reply(exchange, json, &error);
}

static void serve_tokenize(bt_router *router, bt_http_exchange *exchange,
                           const bt_http_request *http)
{
    bt_json_out *json = &router->completions.json;
    bt_tokenize_request request;
    bt_api_error error;
    if (!check_type(http, &error) ||
        !bt_tokenize_parse(&router->context, http->body, http->body_bytes, &request, &error)) {
        bt_api_error_reply(exchange, json, &error);
        return;
    }
    bt_json_reset(json);
    write_tokens(router, json, &request);
    free(request.tokens);
    reply_scratch(router, exchange);
}

static void serve_detokenize(bt_router *router, bt_http_exchange *exchange,
                             const bt_http_request *http)
{
    bt_json_out *json = &router->completions.json;
    char *text;
    size_t bytes;
    bt_api_error error;
    if (!check_type(http, &error) ||
        !bt_detokenize_parse(&router->context, http->body, http->body_bytes, &text, &bytes,
                             &error)) {
        bt_api_error_reply(exchange, json, &error);
        return;
    }
    bt_json_reset(json);
    bt_json_begin(json, '{');
    bt_json_key(json, "prompt");
    bt_json_string(json, text, bytes);
    bt_json_end(json, '}');
    free(text);
    reply_scratch(router, exchange);
}

/* ---- the table ---- */

static const struct {
    const char *path, *method;
    void (*serve)(bt_router *router, bt_http_exchange *exchange, const bt_http_request *http);
} routes[] = {
    {"/v1/chat/completions", "POST", serve_chat},
    {"/v1/completions", "POST", serve_completions},
    {"/tokenize", "POST", serve_tokenize},
    {"/detokenize", "POST", serve_detokenize},
    {"/v1/models", "GET", serve_models},
    {"/v1/models/", "GET", serve_model},
    {"/fleet", "GET", serve_fleet},
    {"/health", "GET", serve_health},
    {"/metrics", "GET", serve_metrics},
};

static bool is_path(bt_text path, const char *route)
{
    size_t bytes = strlen(route);
    if (route[bytes - 1] != '/') return bt_text_is(path, route);
    return path.bytes > bytes && memcmp(path.data, route, bytes) == 0;
}

static void reply_not_allowed(bt_router *router, bt_http_exchange *exchange,
                              const bt_http_request *http, const char *allow)
{
    bt_api_error error = {.http_status = 405, .allow = allow, .type = "invalid_request_error"};
    char path[128], method[32];
    bt_escape(http->head->path.data, http->head->path.bytes, path, sizeof(path));
    bt_escape(http->head->method.data, http->head->method.bytes, method, sizeof(method));
    snprintf(error.message, sizeof(error.message), "%s is not allowed on %s", method, path);
    bt_api_error_reply(exchange, &router->completions.json, &error);
}

void bt_router_on_http(void *arg, bt_http_exchange *exchange, const bt_http_request *http)
{
    bt_router *router = arg;
    const char *allow = NULL; /* every path has one method */
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (!is_path(http->head->path, routes[i].path)) continue;
        if (bt_text_is(http->head->method, routes[i].method)) {
            routes[i].serve(router, exchange, http);
            return;
        }
        allow = routes[i].method;
    }
    if (allow != NULL)
        reply_not_allowed(router, exchange, http, allow);
    else
        reply_not_found(router, exchange, http);
}
