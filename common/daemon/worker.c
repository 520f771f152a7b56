#include "common/daemon/worker.h"

#include "common/base/crypto.h"
#include "common/base/log.h"
#include "common/daemon/listen.h"
#include "common/daemon/notify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define METRICS_SERIES_MAX 512u
#define DRAIN_POLL_MS 20u
#define XFER_DRAIN_BUDGET 8u /* rounds of progress after an engine event */

const char *bt_request_text(const bt_request_id *id, char ret_text[BT_REQUEST_TEXT_BYTES])
{
    for (size_t i = 0; i < sizeof(id->bytes); i++)
        snprintf(ret_text + 2 * i, 3, "%02x", id->bytes[i]);
    return ret_text;
}

void bt_worker_trace(bt_worker *worker, const bt_request_id *request, const char *fmt, ...)
{
    if (worker->trace == NULL) return;
    char id[BT_REQUEST_TEXT_BYTES];
    fprintf(worker->trace, "{\"request\": \"%s\", ", bt_request_text(request, id));
    va_list args;
    va_start(args, fmt);
    vfprintf(worker->trace, fmt, args);
    va_end(args);
    fputs("}\n", worker->trace);
}

void bt_worker_arm(bt_worker *worker)
{
    bt_loop_timer_at(worker->deadline, worker->ops->next_deadline(worker->shell));
}

static void on_deadline(void *arg)
{
    bt_worker *worker = arg;
    worker->ops->on_tick(worker->shell);
    bt_worker_arm(worker);
}

static void xfer_drain(void *arg, unsigned budget)
{
    bt_worker *worker = arg;
    for (unsigned i = 0; i < budget && bt_xfer_progress(worker->xfer) > 0; i++) continue;
}

static void on_engine_wake(void *arg)
{
    bt_worker *worker = arg;
    bt_engine_event events[32];
    for (uint32_t count; (count = bt_engine_poll(worker->engine, events, 32)) > 0;) {
        for (uint32_t i = 0; i < count; i++) {
            worker->ops->on_engine_event(worker->shell, &events[i]);
            /* A put that the event began is mostly done at once, and its Sealed need not wait for the events
             * behind this one, which may begin the next batch. */
            xfer_drain(worker, XFER_DRAIN_BUDGET);
        }
    }
    bt_worker_arm(worker);
}

static void wake_loop(void *arg)
{
    bt_loop_wake_send(arg);
}

/* ---- UCX on the loop ---- */

static bool xfer_before_sleep(void *arg)
{
    bt_worker *worker = arg;
    return bt_xfer_arm(worker->xfer) == BT_OK;
}

static const bt_loop_source_ops xfer_source_ops = {.drain = xfer_drain,
                                                   .before_sleep = xfer_before_sleep};

static void on_xfer_message(void *arg, uint64_t sender, const void *data, size_t bytes)
{
    bt_worker *worker = arg;
    worker->ops->on_peer_message(worker->shell, sender, data, bytes);
    bt_worker_arm(worker);
}

static void on_xfer_put(void *arg, bt_xfer_peer *peer, uint64_t tag, bt_status status)
{
    bt_worker *worker = arg;
    if (worker->ops->on_put != NULL) worker->ops->on_put(worker->shell, peer, tag, status);
    bt_worker_arm(worker);
}

static void on_xfer_error(void *arg, bt_xfer_peer *peer, const char *why)
{
    bt_worker *worker = arg;
    worker->ops->on_peer_error(worker->shell, peer, why);
    bt_worker_arm(worker);
}

static bt_status open_xfer(bt_worker *worker, bt_err *err)
{
    const bt_worker_options *o = worker->options;
    bt_xfer_config config = {.transports = o->transports,
                             .net_devices = o->net_devices[0] != '\0' ? o->net_devices : NULL,
                             .allow_tcp = o->allow_tcp};
    bt_xfer_handler handler = {worker, on_xfer_message, on_xfer_put, on_xfer_error};
    bt_status status = bt_xfer_create(&config, &handler, &worker->xfer, err);
    if (status != BT_OK) return status;
    bt_xfer_version(&worker->hello.ucx_major, &worker->hello.ucx_minor);
    return bt_loop_source_open(worker->loop, bt_xfer_fd(worker->xfer), &xfer_source_ops, worker,
                               &worker->xfer_source, err);
}

/* ---- model and engine ---- */

static bt_status open_engine(bt_worker *worker, bt_err *err)
{
    const bt_worker_options *o = worker->options;
    bt_status status = bt_model_open(o->model, &worker->model, err);
    if (status != BT_OK) return status;
    bt_engine_config config = {.backend = "cpu",
                               .kv_dtype = bt_dtype_find(bt_kv_dtype_choices[o->kv_dtype]),
                               .block_tokens = o->block_size,
                               .pool_blocks = o->pool_tokens / o->block_size,
                               .batch_seqs_max = o->batch_seqs,
                               .batch_tokens_max = o->batch_tokens > o->batch_seqs ? o->batch_tokens
                                                                                   : o->batch_seqs,
                               .context_tokens_max = o->context_tokens,
                               .threads = o->threads,
                               .compute = (bt_compute)o->compute};
    status = bt_engine_create(worker->model, &config, &worker->engine, err);
    if (status != BT_OK) return status;
    status = bt_loop_wake_open(worker->loop, on_engine_wake, worker, &worker->engine_wake, err);
    if (status == BT_OK) bt_engine_on_wake(worker->engine, wake_loop, worker->engine_wake);
    return status;
}

/* KV is named by what computed it: the weights, and the compute if it rounds them. */
static bt_status digest_weights(bt_worker *worker, bt_sha256 *ret_digest, bt_err *err)
{
    bt_status status = bt_model_weights_digest(worker->model, ret_digest, err);
    if (status != BT_OK || worker->options->compute == BT_COMPUTE_F32) return status;
    const char *name = bt_compute_names[worker->options->compute];
    bt_sha256_stream stream;
    bt_sha256_start(&stream);
    bt_sha256_add(&stream, ret_digest->bytes, sizeof(ret_digest->bytes));
    bt_sha256_add(&stream, name, strlen(name));
    bt_sha256_end(&stream, ret_digest);
    return BT_OK;
}

static bt_status fill_hello(bt_worker *worker, bt_err *err)
{
    const bt_model_config *model = bt_model_config_of(worker->model);
    const bt_kv_shape *kv = &bt_engine_kv(worker->engine)->shape;
    bt_hello *hello = &worker->hello;
    hello->proto_major = BT_PROTO_MAJOR;
    hello->proto_minor = BT_PROTO_MINOR;
    hello->role = worker->role;
    snprintf(hello->name, sizeof(hello->name), "%s", worker->options->name);
    const char *name = worker->options->model_name;
    snprintf(hello->model, sizeof(hello->model), "%s",
             name[0] != '\0' ? name : bt_model_name(worker->model));
    bt_random_bytes(&hello->incarnation, sizeof(hello->incarnation));
    hello->incarnation |= 1; /* 0 means none */
    hello->kv_dtype = kv->dtype;
    hello->wire_formats =
        1u << BT_DTYPE_F32 | 1u << BT_DTYPE_BF16 | 1u << BT_DTYPE_FP8_E4M3 | 1u << BT_DTYPE_INT8;
    hello->block_tokens = kv->block_tokens;
    hello->pool_blocks = kv->pool_blocks;
    uint32_t context = worker->options->context_tokens;
    hello->context_tokens_max =
        context != 0 && context < model->context_tokens_max ? context : model->context_tokens_max;
    hello->layers = kv->layers;
    hello->kv_heads = kv->kv_heads;
    hello->head_dim = kv->head_dim;
    hello->vocab = model->vocab;
    hello->tp_size = 1;
    bt_process self;
    bt_process_self(&self);
    hello->process_host = self.host;
    hello->process_start = self.start;
    hello->process_pid = self.pid;
    bt_status status = bt_model_fingerprint(worker->model, &hello->fingerprint, err);
    if (status != BT_OK) return status;
    return digest_weights(worker, &hello->weights_digest, err);
}

void bt_worker_send_peer(bt_xfer_peer *peer, const bt_seal *seal, const char *name,
                         const bt_msg *msg)
{
    uint8_t sealed[BT_SEAL_BYTES_MAX];
    size_t bytes;
    bt_err err;
    bt_status status = bt_seal_write(seal, msg, sealed, sizeof(sealed), &bytes, &err);
    if (status == BT_OK) status = bt_xfer_send(peer, sealed, bytes, &err);
    if (status < BT_OK)
        bt_log_warning(NULL, "%s to %s was not sent: %s", bt_msg_name(msg->kind), name,
                       err.message);
}

/* ---- the router ---- */

void bt_worker_send_router(bt_worker *worker, const bt_msg *msg)
{
    bt_err err;
    bt_status status = bt_link_send(worker->router, msg, &err);
    bool repeated = msg->kind == BT_MSG_HELLO || msg->kind == BT_MSG_HEARTBEAT;
    if (status != BT_OK && !repeated)
        bt_log_warning(NULL, "%s to the router was not sent: %s", bt_msg_name(msg->kind),
                       err.message);
}

static void say_hello(bt_worker *worker)
{
    if (!worker->ops->joinable(worker->shell)) return; /* the next heartbeat asks again */
    bt_msg msg = {.kind = BT_MSG_HELLO, .hello = worker->hello};
    bt_worker_send_router(worker, &msg);
}

static void on_heartbeat(void *arg)
{
    bt_worker *worker = arg;
    if (!worker->welcomed) {
        say_hello(worker);
        return;
    }
    bt_msg msg = {.kind = BT_MSG_HEARTBEAT};
    msg.heartbeat.incarnation = worker->hello.incarnation;
    msg.heartbeat.draining = worker->draining;
    worker->ops->fill_heartbeat(worker->shell, &msg);
    bt_worker_send_router(worker, &msg);
}

static void on_router_message(void *arg, const bt_msg *msg)
{
    bt_worker *worker = arg;
    if (msg->kind == BT_MSG_WELCOME) {
        if (!worker->welcomed) {
            bt_log_info(NULL, "the router knows us");
            bt_notify("READY=1\nSTATUS=serving\nX_BATON_METRICS=%s", worker->hello.metrics_url);
        }
        worker->welcomed = true;
    }
    worker->ops->on_router_message(worker->shell, msg);
    bt_worker_arm(worker);
}

static void on_router_link(void *arg, bt_zlink link)
{
    bt_worker *worker = arg;
    if (link == BT_ZLINK_REFUSED)
        bt_log_error(NULL, "the router at %s refuses our key, or does not answer in time",
                     worker->options->router);
    if (link == BT_ZLINK_DOWN)
        bt_log_warning(NULL, "the connection to the router at %s is down", worker->options->router);
    worker->welcomed = false; /* a router that comes back must hear who we are */
    if (link == BT_ZLINK_UP) say_hello(worker);
}

/* ---- /metrics and /health ---- */

static void on_http(void *arg, bt_http_exchange *exchange, const bt_http_request *request)
{
    bt_worker *worker = arg;
    if (bt_text_is(request->head->path, "/health")) {
        const char *text = worker->draining ? "draining\n" : "ok\n";
        bt_http_reply(exchange, worker->draining ? 503 : 200, "text/plain", NULL, text,
                      strlen(text));
        return;
    }
    if (!bt_text_is(request->head->path, "/metrics")) {
        bt_http_reply(exchange, 404, "text/plain", NULL, "not found\n", 10);
        return;
    }
    worker->ops->update_metrics(worker->shell);
    size_t bytes = 0;
    bt_err err;
    size_t capacity =
        bt_metrics_text_bytes_max(worker->metrics); /* series may have come since the last scrape */
    char *text = realloc(worker->metrics_text, capacity);
    if (text != NULL) worker->metrics_text = text;
    if (text == NULL || bt_metrics_write(worker->metrics, text, capacity, &bytes, &err) != BT_OK)
        bt_http_reply(exchange, 500, "text/plain", NULL, "no room\n", 8);
    else
        bt_http_reply(exchange, 200, BT_METRICS_CONTENT_TYPE, NULL, text, bytes);
}

/* Nothing is streamed here, so a client that leaves leaves nothing behind. */
static void on_http_gone(void *arg, bt_http_exchange *exchange)
{
    (void)arg;
    (void)exchange;
}

static bt_status open_metrics(bt_worker *worker, bt_err *err)
{
    bt_status status = bt_metrics_create(METRICS_SERIES_MAX, &worker->metrics, err);
    if (status != BT_OK) return status;
    bt_listen listen;
    status = bt_listen_parse(worker->options->metrics_listen, &listen, err);
    if (status != BT_OK) return status;
    bt_http_config config;
    bt_http_config_default(&config);
    config.address = listen.address;
    config.port = listen.port;
    bt_http_handler handler = {.arg = worker, .on_request = on_http, .on_gone = on_http_gone};
    status = bt_http_server_open(worker->loop, &config, &handler, &worker->http, err);
    if (status != BT_OK) return status;
    snprintf(worker->hello.metrics_url, sizeof(worker->hello.metrics_url), "http://%s/metrics",
             bt_http_server_address(worker->http));
    return BT_OK;
}

/* ---- life ---- */

static void on_drain_poll(void *arg)
{
    bt_worker *worker = arg;
    bool idle = worker->ops->idle(worker->shell);
    if (!idle && bt_loop_now_ns() < worker->drain_end_ns) return;
    if (!idle) bt_log_warning(NULL, "the drain timeout ended with work in flight");
    bt_loop_stop(worker->loop);
}

static void on_stop(void *arg)
{
    bt_worker *worker = arg;
    if (worker->draining) { /* the second signal does not wait */
        bt_loop_stop(worker->loop);
        return;
    }
    bt_log_info(NULL, "draining");
    bt_notify("STOPPING=1\nSTATUS=draining");
    worker->draining = true;
    worker->drain_end_ns = bt_loop_now_ns() + worker->options->drain_ns;
    worker->ops->on_drain(worker->shell);
    on_heartbeat(worker);
    bt_loop_timer_set(worker->drain, 0, DRAIN_POLL_MS);
}

static void on_reload(void *arg)
{
    bt_reload_run(((bt_worker *)arg)->reload);
}

static bt_status open_timers(bt_worker *worker, bt_err *err)
{
    bt_status status =
        bt_loop_timer_open(worker->loop, 1000000, 0, on_deadline, worker, &worker->deadline, err);
    if (status == BT_OK)
        status = bt_loop_timer_open(worker->loop, 1000000, 0, on_drain_poll, worker, &worker->drain,
                                    err);
    if (status == BT_OK)
        status = bt_loop_timer_open(worker->loop, 0, worker->options->heartbeat_ns / 1000000,
                                    on_heartbeat, worker, &worker->heartbeat, err);
    if (status != BT_OK) return status;
    bt_loop_timer_stop(worker->deadline);
    bt_loop_timer_stop(worker->drain);
    bt_loop_timer_stop(worker->heartbeat);
    return bt_loop_signals_open(worker->loop, on_stop, on_reload, worker, err);
}

bt_status bt_worker_open(bt_worker *worker, const bt_worker_options *options, bt_role role,
                         const bt_worker_ops *ops, void *shell, bt_err *err)
{
    const bt_reload *reload = worker->reload;
    memset(worker, 0, sizeof(*worker));
    worker->reload = reload;
    worker->options = options;
    worker->role = role;
    worker->ops = ops;
    worker->shell = shell;
    bt_log_config log = {.name = options->name,
                         .level = bt_log_level_at(options->log_level),
                         .style = BT_LOG_AUTO,
                         .fd = STDERR_FILENO};
    bt_log_start(&log);
    if (options->trace_file[0] != '\0') {
        worker->trace = fopen(options->trace_file, "ae");
        if (worker->trace == NULL)
            return BT_FAIL(err, BT_ERR_OS, "trace file %s cannot be opened", options->trace_file);
    }
    bt_status status = bt_crypto_start(err);
    if (status == BT_OK)
        status = bt_control_open(&worker->control, options->key_file, options->keys_file, err);
    if (status == BT_OK) status = bt_loop_create(&worker->loop, err);
    if (status == BT_OK) status = open_timers(worker, err);
    if (status == BT_OK) status = open_engine(worker, err);
    if (status == BT_OK) status = fill_hello(worker, err);
    if (status == BT_OK) status = open_metrics(worker, err);
    if (status == BT_OK) status = open_xfer(worker, err);
    return status;
}

bt_status bt_worker_run(bt_worker *worker, bt_err *err)
{
    const bt_worker_options *o = worker->options;
    bt_link_handler handler = {
        .arg = worker, .on_message = on_router_message, .on_link = on_router_link};
    bt_status status = bt_link_dial(worker->control.zctx, worker->loop, o->router,
                                    o->router_key[0] != '\0' ? o->router_key : NULL, &handler,
                                    &worker->router, err);
    if (status != BT_OK) return status;
    bt_loop_timer_set(worker->heartbeat, worker->options->heartbeat_ns / 1000000,
                      worker->options->heartbeat_ns / 1000000);
    bt_worker_arm(worker);
    bt_log_info(NULL,
                "incarnation %016" PRIx64
                ", model %s computed in %s, KV %s, %zu bytes a token, %u tokens in the pool, router %s",
                worker->hello.incarnation, worker->hello.model, bt_compute_names[o->compute],
                bt_dtype_name(worker->hello.kv_dtype),
                bt_kv_token_bytes(&bt_engine_kv(worker->engine)->shape),
                worker->hello.pool_blocks * worker->hello.block_tokens, o->router);
    bt_loop_run(worker->loop);
    return BT_OK;
}

void bt_worker_close(bt_worker *worker)
{
    bt_engine_destroy(worker->engine); /* joins its thread: no wake comes any more */
    bt_link_close(worker->router);
    bt_http_server_close(worker->http);
    bt_loop_source_close(worker->xfer_source);
    bt_loop_wake_close(worker->engine_wake);
    bt_loop_timer_close(worker->heartbeat);
    bt_loop_timer_close(worker->deadline);
    bt_loop_timer_close(worker->drain);
    bt_loop_destroy(worker->loop);
    bt_xfer_destroy(worker->xfer);
    bt_control_close(&worker->control);
    bt_model_close(worker->model);
    bt_metrics_destroy(worker->metrics);
    free(worker->metrics_text);
    if (worker->trace != NULL) fclose(worker->trace);
}
