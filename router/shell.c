#include "router/shell.h"

#include "common/base/crypto.h"
#include "common/base/log.h"
#include "common/base/parse.h"
#include "common/daemon/listen.h"
#include "common/daemon/notify.h"
#include "router/policies/policy.h"
#include "router/shell_state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DRAIN_POLL_MS 20u
#define FLUSH_NS 200000000u /* after the drain, for the last bytes to leave */
#define STATUS_POLL_MS 20u

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
void bt_router_arm(bt_router *router)
{
    bt_completions_submit_due(&router->completions);
    settle_lost(router);
    bt_loop_timer_at(router->deadline, bt_router_core_next_deadline(router->core));
}

static void on_deadline(void *arg)
{
    bt_router *router = arg;
    bt_router_core_tick(router->core, bt_loop_now_ns());
    bt_router_arm(router);
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

static void io_prompt_logprobs(void *ctx, uint64_t user, uint32_t index, const bt_token *tokens,
                               uint32_t token_count)
{
    (void)ctx;
    bt_completion_prompt_logprobs(user, index, tokens, token_count);
}

/* ---- daemons ---- */

static void on_death(void *arg)
{
    bt_router_watch *watch = arg;
    bt_router *router = watch->router;
    const bt_router_daemon *daemon = bt_router_core_daemon(router->core, watch->daemon);
    bt_process_watch_close(router->watches[watch->daemon]);
    router->watches[watch->daemon] = NULL;
    if (daemon == NULL || !daemon->up || daemon->hello.incarnation != watch->incarnation) return;
    bt_log_warning(NULL, "%s (process %u) is dead", daemon->hello.name, daemon->hello.process_pid);
    bt_router_core_daemon_lost(router->core, watch->daemon, bt_loop_now_ns());
    bt_router_arm(router);
}

static void watch_daemon(bt_router *router, uint32_t index, const bt_hello *hello)
{
    bt_router_watch *arg = &router->watch_args[index];
    if (router->watches[index] != NULL && arg->incarnation == hello->incarnation) return;
    bt_process_watch_close(router->watches[index]);
    router->watches[index] = NULL;
    *arg = (bt_router_watch){.router = router, .daemon = index, .incarnation = hello->incarnation};
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
    bt_router_arm(router);
}

/* ---- what we tell who started us ---- */

static void on_status(void *arg)
{
    bt_router *router = arg;
    bt_pair_counts pairs;
    bt_router_count_pairs(router->core, &pairs);
    char text[sizeof(router->status_text)];
    snprintf(text, sizeof(text),
             "STATUS=%u pairs ready, %u "
             "refused\nX_BATON_PAIRS_READY=%u\nX_BATON_PAIRS_REFUSED=%u\nX_BATON_REFUSAL=%s",
             pairs.ready, pairs.refused, pairs.ready, pairs.refused, pairs.refusal);
    if (strcmp(text, router->status_text) == 0) return;
    memcpy(router->status_text, text, sizeof(text));
    bt_notify("%s", text);
}

/* ---- clients ---- */

static void on_http_gone(void *arg, bt_http_exchange *exchange)
{
    bt_router *router = arg;
    bt_completion *job = bt_http_exchange_user(exchange);
    if (job == NULL) return;
    bt_completion_gone(job);
    bt_router_arm(router);
}

static void on_http_writable(void *arg, bt_http_exchange *exchange)
{
    (void)arg;
    bt_completion *job = bt_http_exchange_user(exchange);
    if (job != NULL) bt_completion_writable(job);
}

/* ---- latencies ---- */

static void on_first_token(void *arg, uint64_t since_ns)
{
    bt_histogram_observe(((bt_router *)arg)->series.ttft, (double)since_ns / 1e9);
}

static void on_next_token(void *arg, uint64_t since_ns)
{
    bt_histogram_observe(((bt_router *)arg)->series.itl, (double)since_ns / 1e9);
}

static void on_end(void *arg, const bt_router_end *end, uint64_t since_ns)
{
    bt_router *router = arg;
    bt_counter_add(router->series.prompt_tokens, end->prompt_tokens);
    if (end->reason == BT_FINISH_STOP || end->reason == BT_FINISH_LENGTH)
        bt_histogram_observe(router->series.e2e, (double)since_ns / 1e9);
    if (end->reason == BT_FINISH_FAILED) bt_log_warning(NULL, "a request failed: %s", end->text);
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
    status = o->chat_template[0] != '\0'
                 ? bt_chat_template_open_file(o->chat_template, o->model, &router->chat, err)
                 : bt_chat_template_open(o->model, &router->chat, err);
    if (status != BT_OK) return status;
    const bt_model_config *model = bt_model_config_of(router->model);
    snprintf(router->model_name, sizeof(router->model_name), "%s",
             o->model_name[0] != '\0' ? o->model_name : bt_model_name(router->model));
    /* Answers of the same model, by the same tokenizer, have the same. */
    const uint8_t *f = router->fingerprint.bytes;
    snprintf(router->fingerprint_text, sizeof(router->fingerprint_text), "fp_%02x%02x%02x%02x%02x",
             f[0], f[1], f[2], f[3], f[4]);
    router->created = time(NULL);
    uint32_t context = o->context_tokens;
    router->context = (bt_request_context){
        .tokenizer = router->tokenizer,
        .chat = router->chat,
        .chat_tokens_default = o->chat_tokens,
        .model = router->model_name,
        .vocab = model->vocab,
        .choices_max = o->choices_max < o->requests_max ? o->choices_max : o->requests_max,
        .context_tokens_max = context != 0 && context < model->context_tokens_max
                                  ? context
                                  : model->context_tokens_max};
    return BT_OK;
}

static bt_status create_core(bt_router *router, bt_err *err)
{
    const bt_router_options *o = router->options;
    const bt_model_config *model = bt_model_config_of(router->model);
    bt_router_config config = {.policy = bt_router_policies[o->policy]->name,
                               .fingerprint = router->fingerprint,
                               .prefix_entries = o->prefix_entries,
                               .affinity_tokens = o->affinity_tokens,
                               .local_prefill_max = o->local_prefill_max,
                               .local_when_no_prefill = o->local_when_no_prefill,
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
    router->incarnation = config.incarnation;
    bt_router_io io = {router, io_send, io_token, io_ended, io_prompt_logprobs};
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
                               .on_request = bt_router_on_http,
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
    if (status == BT_OK) status = bt_router_series_open(&router->series, err);
    if (status == BT_OK) status = create_core(router, err);
    if (status == BT_OK) status = open_timers(router, err);
    if (status == BT_OK) status = open_sockets(router, err);
    if (status != BT_OK) return status;
    bt_json_init(&router->completions.json, BT_COMPLETION_ANSWER_MAX);
    router->completions.core = router->core;
    router->completions.tokenizer = router->tokenizer;
    router->completions.model = router->model_name;
    router->completions.fingerprint = router->fingerprint_text;
    router->completions.waiting_max = router->options->streams_bytes_max;
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
                router->model_name, bt_router_policies[router->options->policy]->name);
    bt_notify(
        "READY=1\nX_BATON_URL=http://%s\nX_BATON_CONTROL=%s\nX_BATON_METRICS=http://%s/metrics",
        address, control, address);
    bt_router_arm(router);
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
    bt_chat_template_close(router->chat);
    bt_tokenizer_close(router->tokenizer);
    bt_model_close(router->model);
    bt_json_finish(&router->completions.json);
    bt_router_series_close(&router->series);
    free(router->core_memory);
    free(router);
}
