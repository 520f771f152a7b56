#include "router/shell.h"

#include "common/base/crypto.h"
#include "common/base/log.h"
#include "common/base/metrics.h"
#include "common/base/parse.h"
#include "common/daemon/control.h"
#include "common/daemon/listen.h"
#include "common/daemon/notify.h"
#include "common/daemon/process.h"
#include "common/net/link.h"
#include "common/weights/model.h"
#include "router/completion.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define METRICS_SERIES_MAX 64u
#define DRAIN_POLL_MS 20u
#define FLUSH_NS 200000000u /* after the drain, for the last bytes to leave */
#define STATUS_POLL_MS 20u

struct bt_router {
    const bt_router_options *options;
    const bt_reload *reload;
    bt_control control;
    bt_loop *loop;
    bt_model *model;
    bt_tokenizer *tokenizer;
    char model_name[BT_NAME_BYTES_MAX];
    bt_sha256 fingerprint; /* of our model folder: what the daemons must have too */
    void *core_memory;
    bt_router_core *core;
    bt_link_server *server;
    bt_http_server *http;
    bt_completions completions;
    bt_request_context context;
    bt_loop_timer *deadline, *drain, *status;
    uint64_t drain_end_ns;
    bool draining;
    bool any_lost,
        lost[BT_DAEMONS_MAX]; /* a message could not be sent: the core hears of it later */
    char status_text[768];    /* the last notification */
    bt_process_watch *watches[BT_DAEMONS_MAX];
    struct watch_arg {
        bt_router *router;
        uint32_t daemon;
        uint64_t incarnation;
    } watch_args[BT_DAEMONS_MAX];

    bt_metrics *metrics;
    char *metrics_text;
    bt_gauge *in_flight, *pairs_ready, *pairs_refused, *daemons[2];
    bt_counter *accepted, *finished, *cancelled, *failed, *refused, *retries, *tokens, *stale,
        *duplicates, *malformed;
    bt_counter *prompt_tokens;
    bt_histogram *ttft, *itl, *e2e;
};

/* Not from within the core's own calls, which is where sends fail. Losing one may show the next. */
static void settle_lost(bt_router *router)
{
    while (router->any_lost) {
        router->any_lost = false;
        for (uint32_t i = 0; i < BT_DAEMONS_MAX; i++) {
            if (!router->lost[i]) continue;
            router->lost[i] = false;
            bt_router_core_daemon_lost(router->core, i, bt_loop_now_ns());
        }
    }
}

/* After everything that calls the core. */
static void arm(bt_router *router)
{
    settle_lost(router);
    bt_loop_timer_at(router->deadline, bt_router_core_next_deadline(router->core));
}

static void on_deadline(void *arg)
{
    bt_router *router = arg;
    bt_router_core_tick(router->core, bt_loop_now_ns());
    arm(router);
}

/* ---- what the core asks for ---- */

/* What was not queued will not come, and its attempt would wait for the progress timer in vain: a connection that is gone
 * or takes nothing more is a lost daemon. If it lives, its next Hello or heartbeat brings it back. */
static void io_send(void *ctx, uint32_t daemon, const bt_msg *msg)
{
    bt_router *router = ctx;
    bt_err err;
    bt_status status = bt_link_server_send(router->server, daemon, msg, &err);
    if (status == BT_OK) return;
    bt_log_warning(NULL, "%s to %s was not sent: %s", bt_msg_name(msg->kind),
                   bt_link_server_name(router->server, daemon), err.message);
    bool full = status == BT_AGAIN && msg->kind >= BT_MSG_PREFILL;
    if (status == BT_ERR_PEER_LOST || full) router->any_lost = router->lost[daemon] = true;
}

static void io_token(void *ctx, uint64_t user, uint32_t index, const bt_token *token, bool eos)
{
    (void)ctx;
    bt_completion_token(user, index, token, eos);
}

static void io_ended(void *ctx, uint64_t user, const bt_router_end *end)
{
    (void)ctx;
    bt_completion_ended(user, end);
}

/* ---- daemons ---- */

static void on_death(void *arg)
{
    struct watch_arg *watch = arg;
    bt_router *router = watch->router;
    const bt_router_daemon *daemon = bt_router_core_daemon(router->core, watch->daemon);
    bt_process_watch_close(router->watches[watch->daemon]);
    router->watches[watch->daemon] = NULL;
    if (daemon == NULL || !daemon->up || daemon->hello.incarnation != watch->incarnation) return;
    bt_log_warning(NULL, "%s (process %u) is dead", daemon->hello.name, daemon->hello.process_pid);
    bt_router_core_daemon_lost(router->core, watch->daemon, bt_loop_now_ns());
    arm(router);
}

static void watch_daemon(bt_router *router, uint32_t index, const bt_hello *hello)
{
    struct watch_arg *arg = &router->watch_args[index];
    if (router->watches[index] != NULL && arg->incarnation == hello->incarnation) return;
    bt_process_watch_close(router->watches[index]);
    router->watches[index] = NULL;
    *arg = (struct watch_arg){.router = router, .daemon = index, .incarnation = hello->incarnation};
    bt_process process = {
        .host = hello->process_host, .start = hello->process_start, .pid = hello->process_pid};
    bt_err err;
    bt_log_info(NULL, "%s joins: incarnation %016" PRIx64 ", KV %s, %u tokens", hello->name,
                hello->incarnation, bt_dtype_name(hello->kv_dtype),
                hello->pool_blocks * hello->block_tokens);
    if (bt_process_watch_open(router->loop, &process, on_death, arg, &router->watches[index],
                              &err) != BT_OK)
        bt_log_info(NULL, "the death of %s will show by heartbeats only: %s", hello->name,
                    err.message);
}

/* With keys, a daemon is who its key says: of that role, under that name, in an incarnation that nobody else has. */
static bool check_hello(const bt_router *router, uint32_t index, bt_msg *msg)
{
    bt_hello *hello = &msg->hello;
    const char *name = bt_link_server_name(router->server, index);
    bt_role role = bt_link_server_role(router->server, index);
    if (router->control.table == NULL) return true;
    if (role != hello->role) {
        bt_log_error(NULL, "%s says it is of role %d, its key says %d", name, hello->role, role);
        return false;
    }
    for (uint32_t i = 0; i < BT_DAEMONS_MAX; i++) {
        const bt_router_daemon *other = bt_router_core_daemon(router->core, i);
        if (i == index || !other->up || other->hello.incarnation != hello->incarnation) continue;
        bt_log_error(NULL, "%s says it is %s", name, other->hello.name);
        return false;
    }
    snprintf(hello->name, sizeof(hello->name), "%s", name);
    return true;
}

/* A pair that agrees with itself and not with us would be served garbage: other ids for the same text. */
static void check_pair(const bt_router *router, uint32_t index, bt_msg *msg)
{
    const bt_router_daemon *daemon = bt_router_core_daemon(router->core, index);
    if (daemon == NULL || !daemon->up || !msg->pair_status.ready) return;
    const uint8_t *theirs = daemon->hello.fingerprint.bytes, *ours = router->fingerprint.bytes;
    if (memcmp(theirs, ours, BT_SHA256_BYTES) == 0) return;
    msg->pair_status.ready = false;
    snprintf(msg->pair_status.reason, sizeof(msg->pair_status.reason),
             "fingerprint: the router has %02x%02x%02x%02x and the pair %02x%02x%02x%02x "
             "(architecture, tokenizer, RoPE, "
             "vocabulary)",
             ours[0], ours[1], ours[2], ours[3], theirs[0], theirs[1], theirs[2], theirs[3]);
    bt_log_error(NULL, "pair of %s refused: %s", daemon->hello.name, msg->pair_status.reason);
}

static void on_daemon_message(void *arg, uint32_t index, const bt_msg *msg)
{
    bt_router *router = arg;
    bt_msg named;
    if (msg->kind == BT_MSG_HELLO) {
        named = *msg;
        if (!check_hello(router, index, &named)) return;
        msg = &named;
        watch_daemon(router, index, &msg->hello);
    }
    if (msg->kind == BT_MSG_PAIR_STATUS) {
        named = *msg;
        check_pair(router, index, &named);
        msg = &named;
    }
    bt_router_core_message(router->core, index, msg, bt_loop_now_ns());
    arm(router);
}

/* ---- what we tell who started us ---- */

typedef struct {
    uint32_t ready, refused;
    char refusal[BT_REASON_BYTES_MAX + 2 * BT_NAME_BYTES_MAX + 8];
} pair_counts;

static void count_pairs(const bt_router *router, pair_counts *ret_counts)
{
    *ret_counts = (pair_counts){0};
    for (uint32_t p = 0; p < BT_DAEMONS_MAX; p++) {
        const bt_router_daemon *prefill = bt_router_core_daemon(router->core, p);
        if (prefill == NULL || !prefill->up || prefill->hello.role != BT_ROLE_PREFILL) continue;
        for (uint32_t d = 0; d < BT_DAEMONS_MAX; d++) {
            const bt_router_daemon *decode = bt_router_core_daemon(router->core, d);
            if (decode == NULL || !decode->up || decode->hello.role != BT_ROLE_DECODE) continue;
            const bt_router_pair *pair = bt_router_core_pair(router->core, p, d);
            if (pair == NULL) continue;
            ret_counts->ready += pair->state == BT_PAIR_READY;
            if (pair->state != BT_PAIR_REFUSED) continue;
            ret_counts->refused++;
            /* What daemons say must not become a line of its own in a notification. */
            char text[sizeof(ret_counts->refusal)];
            snprintf(text, sizeof(text), "%s and %s: %s", prefill->hello.name, decode->hello.name,
                     pair->reason);
            bt_escape(text, strlen(text), ret_counts->refusal, sizeof(ret_counts->refusal));
        }
    }
}

static void on_status(void *arg)
{
    bt_router *router = arg;
    pair_counts pairs;
    count_pairs(router, &pairs);
    char text[sizeof(router->status_text)];
    snprintf(text, sizeof(text),
             "STATUS=%u pairs ready, %u "
             "refused\nX_BATON_PAIRS_READY=%u\nX_BATON_PAIRS_REFUSED=%u\nX_BATON_REFUSAL=%s",
             pairs.ready, pairs.refused, pairs.ready, pairs.refused, pairs.refusal);
    if (strcmp(text, router->status_text) == 0) return;
    memcpy(router->status_text, text, sizeof(text));
    bt_notify("%s", text);
}

/* ---- HTTP ---- */

static void reply_json(bt_http_exchange *exchange, int status, const bt_json_out *json)
{
    bt_http_reply(exchange, status, "application/json", NULL, json->data, json->bytes);
}

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

static void serve_models(bt_router *router, bt_http_exchange *exchange)
{
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

static void serve_health(bt_router *router, bt_http_exchange *exchange)
{
    bool serving = bt_router_core_serving(router->core) && !router->draining;
    const char *text = serving ? "{\"status\": \"ok\"}"
                               : "{\"status\": \"no prefill and decode daemons are paired\"}";
    bt_http_reply(exchange, serving ? 200 : 503, "application/json",
                  serving ? NULL : "Retry-After: 1\r\n", text, strlen(text));
}

static void update_metrics(bt_router *router)
{
    bt_router_stats stats;
    bt_router_core_stats(router->core, &stats);
    pair_counts pairs;
    count_pairs(router, &pairs);
    uint32_t up[2] = {0, 0};
    for (uint32_t i = 0; i < BT_DAEMONS_MAX; i++) {
        const bt_router_daemon *daemon = bt_router_core_daemon(router->core, i);
        if (daemon != NULL && daemon->up) up[daemon->hello.role == BT_ROLE_DECODE]++;
    }
    bt_gauge_set(router->daemons[0], up[0]);
    bt_gauge_set(router->daemons[1], up[1]);
    bt_gauge_set(router->in_flight, stats.requests);
    bt_gauge_set(router->pairs_ready, pairs.ready);
    bt_gauge_set(router->pairs_refused, pairs.refused);
    bt_counter_set(router->accepted, stats.accepted_total);
    bt_counter_set(router->finished, stats.finished_total);
    bt_counter_set(router->cancelled, stats.cancelled_total);
    bt_counter_set(router->failed, stats.failed_total);
    bt_counter_set(router->refused, stats.refused_total);
    bt_counter_set(router->retries, stats.retries_total);
    bt_counter_set(router->tokens, stats.tokens_total);
    bt_counter_set(router->stale, stats.stale_total);
    bt_counter_set(router->duplicates, stats.duplicate_tokens_total);
    bt_counter_set(router->malformed, bt_link_server_malformed_total(router->server));
}

static void serve_metrics(bt_router *router, bt_http_exchange *exchange)
{
    update_metrics(router);
    size_t bytes = 0;
    bt_err err;
    if (bt_metrics_write(router->metrics, router->metrics_text,
                         bt_metrics_text_bytes_max(router->metrics), &bytes, &err) == BT_OK)
        bt_http_reply(exchange, 200, BT_METRICS_CONTENT_TYPE, NULL, router->metrics_text, bytes);
    else
        bt_http_reply(exchange, 500, "text/plain", NULL, err.message, strlen(err.message));
}

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
        arm(router);
    }
}

/* 404, or 405 with the method that the path allows. */
static void reply_error(bt_router *router, bt_http_exchange *exchange, const bt_http_request *http,
                        const char *allow)
{
    bt_api_error error = {
        .http_status = allow != NULL ? 405 : 404, .allow = allow, .type = "invalid_request_error"};
    char path[128], method[32];
    bt_escape(http->head->path.data, http->head->path.bytes, path, sizeof(path));
    bt_escape(http->head->method.data, http->head->method.bytes, method, sizeof(method));
    snprintf(error.message, sizeof(error.message),
             allow != NULL ? "%s is not allowed on %s" : "there is no %s %s", method, path);
    bt_api_error_reply(exchange, &router->completions.json, &error);
}

static bool is_model_path(const bt_router *router, const bt_http_request *http)
{
    static const char prefix[] = "/v1/models/";
    size_t length = sizeof(prefix) - 1, name = strlen(router->model_name);
    return http->head->path.bytes == length + name &&
           memcmp(http->head->path.data, prefix, length) == 0 &&
           memcmp(http->head->path.data + length, router->model_name, name) == 0;
}

static void on_http(void *arg, bt_http_exchange *exchange, const bt_http_request *http)
{
    bt_router *router = arg;
    bool get = bt_text_is(http->head->method, "GET"), post = bt_text_is(http->head->method, "POST");
    bool completions = bt_text_is(http->head->path, "/v1/completions");
    bool models = bt_text_is(http->head->path, "/v1/models"), model = is_model_path(router, http);
    bool health = bt_text_is(http->head->path, "/health"),
         metrics = bt_text_is(http->head->path, "/metrics");
    if (!completions && !models && !model && !health && !metrics)
        reply_error(router, exchange, http, NULL);
    else if (completions ? !post : !get)
        reply_error(router, exchange, http, completions ? "POST" : "GET");
    else if (completions)
        serve_completions(router, exchange, http);
    else if (models)
        serve_models(router, exchange);
    else if (health)
        serve_health(router, exchange);
    else if (metrics)
        serve_metrics(router, exchange);
    else {
        bt_json_reset(&router->completions.json);
        write_model(router, &router->completions.json);
        reply_json(exchange, 200, &router->completions.json);
    }
}

static void on_http_gone(void *arg, bt_http_exchange *exchange)
{
    bt_router *router = arg;
    bt_completion *job = bt_http_exchange_user(exchange);
    if (job == NULL) return;
    bt_completion_gone(job);
    arm(router);
}

static void on_http_writable(void *arg, bt_http_exchange *exchange)
{
    (void)arg;
    bt_completion *job = bt_http_exchange_user(exchange);
    if (job != NULL) bt_completion_writable(job);
}

/* ---- metrics ---- */

static void on_first_token(void *arg, uint64_t since_ns)
{
    bt_histogram_observe(((bt_router *)arg)->ttft, (double)since_ns / 1e9);
}

static void on_next_token(void *arg, uint64_t since_ns)
{
    bt_histogram_observe(((bt_router *)arg)->itl, (double)since_ns / 1e9);
}

static void on_end(void *arg, const bt_router_end *end, uint64_t since_ns)
{
    bt_router *router = arg;
    bt_counter_add(router->prompt_tokens, end->prompt_tokens);
    if (end->reason == BT_FINISH_STOP || end->reason == BT_FINISH_LENGTH)
        bt_histogram_observe(router->e2e, (double)since_ns / 1e9);
    if (end->reason == BT_FINISH_FAILED) bt_log_warning(NULL, "a request failed: %s", end->text);
}

static bt_status open_metrics(bt_router *router, bt_err *err)
{
    bt_status status = bt_metrics_create(METRICS_SERIES_MAX, &router->metrics, err);
    if (status != BT_OK) return status;
    bt_metrics *m = router->metrics;
    const bt_label prefill = {"role", "prefill"}, decode = {"role", "decode"};
    router->daemons[0] = bt_metrics_gauge(m, "baton_daemons", "Daemons that are up.", &prefill, 1);
    router->daemons[1] = bt_metrics_gauge(m, "baton_daemons", "Daemons that are up.", &decode, 1);
    router->in_flight = bt_metrics_gauge(m, "baton_requests_in_flight",
                                         "Requests accepted and not ended.", NULL, 0);
    router->pairs_ready =
        bt_metrics_gauge(m, "baton_pairs_ready", "Pairs that passed their probe.", NULL, 0);
    router->pairs_refused =
        bt_metrics_gauge(m, "baton_pairs_refused", "Pairs that were refused.", NULL, 0);
#define COUNTER(field, name, help)                                                                 \
    router->field = bt_metrics_counter(m, "baton_" name "_total", help, NULL, 0)
    COUNTER(accepted, "requests_accepted", "Requests accepted.");
    COUNTER(finished, "requests_finished", "Requests that finished.");
    COUNTER(cancelled, "requests_cancelled", "Requests whose client left.");
    COUNTER(failed, "requests_failed", "Requests that failed.");
    COUNTER(refused, "requests_refused", "Requests refused at once.");
    COUNTER(retries, "retries", "Attempts after the first.");
    COUNTER(tokens, "tokens_committed", "Output tokens committed.");
    COUNTER(prompt_tokens, "prompt_tokens", "Prompt tokens of ended requests.");
    COUNTER(stale, "stale_messages", "Messages of attempts that had ended.");
    COUNTER(duplicates, "duplicate_tokens", "Tokens that had been committed before.");
    COUNTER(malformed, "malformed_messages", "Control messages that did not decode.");
#undef COUNTER
    router->ttft =
        bt_metrics_histogram(m, "baton_time_to_first_token_seconds",
                             "From accepted to the first token.", bt_buckets_seconds, NULL, 0);
    router->itl =
        bt_metrics_histogram(m, "baton_inter_token_latency_seconds",
                             "Between two tokens of a request.", bt_buckets_seconds, NULL, 0);
    router->e2e = bt_metrics_histogram(m, "baton_request_seconds", "From accepted to finished.",
                                       bt_buckets_seconds, NULL, 0);
    router->metrics_text = malloc(bt_metrics_text_bytes_max(m));
    return router->metrics_text != NULL ? BT_OK : BT_FAIL(err, BT_ERR_NO_MEMORY, "metrics text");
}

/* ---- life ---- */

static void on_drain_poll(void *arg)
{
    bt_router *router = arg;
    uint64_t now = bt_loop_now_ns();
    if (now >= router->drain_end_ns)
        bt_completions_fail_all(&router->completions, "the router is shutting down");
    bool idle = router->completions.jobs == 0 && bt_http_server_is_drained(router->http);
    if (idle || now >= router->drain_end_ns + FLUSH_NS) bt_loop_stop(router->loop);
}

static void on_stop(void *arg)
{
    bt_router *router = arg;
    if (router->draining) {
        bt_loop_stop(router->loop);
        return;
    }
    bt_log_info(NULL, "draining");
    bt_notify("STOPPING=1\nSTATUS=draining");
    router->draining = true;
    router->drain_end_ns = bt_loop_now_ns() + router->options->drain_ns;
    bt_http_server_drain(router->http);
    bt_loop_timer_set(router->drain, 0, DRAIN_POLL_MS);
}

static void on_reload(void *arg)
{
    bt_reload_run(((bt_router *)arg)->reload);
}

static bt_status open_model(bt_router *router, bt_err *err)
{
    const bt_router_options *o = router->options;
    bt_status status = bt_model_open(o->model, &router->model, err);
    if (status != BT_OK) return status;
    char path[BT_CONFIG_PATH_BYTES_MAX + 32];
    snprintf(path, sizeof(path), "%s/tokenizer.json", o->model);
    status = bt_tokenizer_open(path, &router->tokenizer, err);
    if (status == BT_OK) status = bt_model_fingerprint(router->model, &router->fingerprint, err);
    if (status != BT_OK) return status;
    const bt_model_config *model = bt_model_config_of(router->model);
    snprintf(router->model_name, sizeof(router->model_name), "%s",
             o->model_name[0] != '\0' ? o->model_name : bt_model_name(router->model));
    uint32_t context = o->context_tokens;
    router->context = (bt_request_context){.tokenizer = router->tokenizer,
                                           .model = router->model_name,
                                           .vocab = model->vocab,
                                           .context_tokens_max =
                                               context != 0 && context < model->context_tokens_max
                                                   ? context
                                                   : model->context_tokens_max};
    return BT_OK;
}

static bt_status create_core(bt_router *router, bt_err *err)
{
    const bt_router_options *o = router->options;
    const bt_model_config *model = bt_model_config_of(router->model);
    bt_router_config config = {.policy = o->policy,
                               .requests_max = o->requests_max,
                               .attempts_max = o->attempts_max,
                               .tokens_max = router->context.context_tokens_max,
                               .progress_ns = o->progress_ns,
                               .heartbeat_ns = o->heartbeat_ns,
                               .daemon_timeout_ns = o->daemon_timeout_ns,
                               .renew_ns = o->renew_ns,
                               .retry_wait_ns = o->retry_wait_ns,
                               .eos_count = model->eos_count};
    memcpy(config.eos_ids, model->eos_ids, sizeof(config.eos_ids));
    bt_random_bytes(&config.incarnation, sizeof(config.incarnation));
    config.incarnation |= 1;
    bt_router_io io = {router, io_send, io_token, io_ended};
    size_t bytes = (bt_router_core_bytes(&config) + 63) & ~(size_t)63;
    router->core_memory = aligned_alloc(64, bytes);
    if (router->core_memory == NULL)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "core state, %zu bytes", bytes);
    router->core = bt_router_core_init(router->core_memory, &config, &io, bt_loop_now_ns());
    return BT_OK;
}

static bt_status open_sockets(bt_router *router, bt_err *err)
{
    const bt_router_options *o = router->options;
    bt_link_server_handler control = {.arg = router, .on_message = on_daemon_message};
    bt_status status = bt_link_server_open(router->control.zctx, router->loop, o->control_listen,
                                           &control, &router->server, err);
    if (status != BT_OK) return status;
    bt_listen listen;
    status = bt_listen_parse(o->http_listen, &listen, err);
    if (status != BT_OK) return status;
    bt_http_config config;
    bt_http_config_default(&config);
    config.address = listen.address;
    config.port = listen.port;
    config.connections_max = o->connections_max;
    config.body_bytes_max = o->body_bytes_max;
    bt_http_handler handler = {.arg = router,
                               .on_request = on_http,
                               .on_gone = on_http_gone,
                               .on_writable = on_http_writable};
    return bt_http_server_open(router->loop, &config, &handler, &router->http, err);
}

static bt_status open_timers(bt_router *router, bt_err *err)
{
    bt_status status =
        bt_loop_timer_open(router->loop, 0, 0, on_deadline, router, &router->deadline, err);
    if (status == BT_OK)
        status = bt_loop_timer_open(router->loop, 1, 0, on_drain_poll, router, &router->drain, err);
    if (status == BT_OK)
        status = bt_loop_timer_open(router->loop, 0, STATUS_POLL_MS, on_status, router,
                                    &router->status, err);
    if (status != BT_OK) return status;
    bt_loop_timer_stop(router->drain);
    return bt_loop_signals_open(router->loop, on_stop, on_reload, router, err);
}

bt_status bt_router_create(const bt_router_options *options, const bt_reload *reload,
                           bt_router **ret_router, bt_err *err)
{
    bt_router *router = calloc(1, sizeof(*router));
    if (router == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "router");
    *ret_router = router;
    router->options = options;
    router->reload = reload;
    bt_log_config log = {.name = options->name,
                         .level = bt_log_level_at(options->log_level),
                         .style = BT_LOG_AUTO,
                         .fd = STDERR_FILENO};
    bt_log_start(&log);
    bt_status status = bt_crypto_start(err);
    if (status == BT_OK)
        status = bt_control_open(&router->control, options->key_file, options->keys_file, err);
    if (status == BT_OK) status = open_model(router, err);
    if (status == BT_OK) status = bt_loop_create(&router->loop, err);
    if (status == BT_OK) status = open_metrics(router, err);
    if (status == BT_OK) status = create_core(router, err);
    if (status == BT_OK) status = open_timers(router, err);
    if (status == BT_OK) status = open_sockets(router, err);
    if (status != BT_OK) return status;
    bt_json_init(&router->completions.json, BT_COMPLETION_PENDING_MAX);
    router->completions.core = router->core;
    router->completions.model = router->model_name;
    router->completions.now_ns = bt_loop_now_ns;
    router->completions.arg = router;
    router->completions.on_first_token = on_first_token;
    router->completions.on_token = on_next_token;
    router->completions.on_end = on_end;
    return BT_OK;
}

bt_status bt_router_run(bt_router *router, bt_err *err)
{
    (void)err;
    const char *address = bt_http_server_address(router->http),
               *control = bt_link_server_endpoint(router->server);
    bt_log_info(NULL, "http://%s, control %s, model %s, policy %s", address, control,
                router->model_name, router->options->policy);
    bt_notify(
        "READY=1\nX_BATON_URL=http://%s\nX_BATON_CONTROL=%s\nX_BATON_METRICS=http://%s/metrics",
        address, control, address);
    arm(router);
    bt_loop_run(router->loop);
    return BT_OK;
}

void bt_router_destroy(bt_router *router)
{
    if (router == NULL) return;
    bt_http_server_close(router->http);
    bt_link_server_close(router->server);
    for (uint32_t i = 0; i < BT_DAEMONS_MAX; i++) bt_process_watch_close(router->watches[i]);
    bt_loop_timer_close(router->deadline);
    bt_loop_timer_close(router->drain);
    bt_loop_timer_close(router->status);
    bt_loop_destroy(router->loop);
    bt_control_close(&router->control);
    bt_tokenizer_close(router->tokenizer);
    bt_model_close(router->model);
    bt_json_finish(&router->completions.json);
    bt_metrics_destroy(router->metrics);
    free(router->metrics_text);
    free(router->core_memory);
    free(router);
}
