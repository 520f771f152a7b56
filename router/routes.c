/* routes.c - HTTP requests to their handlers, by one table of paths and methods.
 *
 * ADD ONE a handler and a row. A path that ends in "/" stands for every path that begins with it. */
#include "common/base/parse.h"
#include "router/fleet.h"
#include "router/shell_state.h"

#include <stdio.h>
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
    bt_json_u64(json, 0);
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

static void serve_model(bt_router *router, bt_http_exchange *exchange, const bt_http_request *http)
{
    size_t prefix = strlen("/v1/models/"), name = strlen(router->model_name);
    if (http->head->path.bytes != prefix + name ||
        memcmp(http->head->path.data + prefix, router->model_name, name) != 0) {
        reply_not_found(router, exchange, http);
        return;
    }
    bt_json_reset(&router->completions.json);
    write_model(router, &router->completions.json);
    reply_json(exchange, 200, &router->completions.json);
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
                                 .policy = router->options->policy,
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

static void serve_completions(bt_router *router, bt_http_exchange *exchange,
                              const bt_http_request *http)
{
    bt_completion_request request;
    bt_api_error error;
    if (router->draining) {
        error = (bt_api_error){.http_status = 503,
                               .type = "server_error",
                               .code = "draining",
                               .message = "shutting down"};
        bt_api_error_reply(exchange, &router->completions.json, &error);
    } else if (!bt_completion_request_parse(&router->context, http->body, http->body_bytes,
                                            &request, &error)) {
        bt_api_error_reply(exchange, &router->completions.json, &error);
    } else {
        bt_completion_start(&router->completions, exchange, router->tokenizer, &request);
        bt_router_arm(router);
    }
}

/* ---- the table ---- */

static const struct {
    const char *path, *method;
    void (*serve)(bt_router *router, bt_http_exchange *exchange, const bt_http_request *http);
} routes[] = {
    {"/v1/completions", "POST", serve_completions},
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
