/* worker.h - what the shells of prefill and decode daemons have in common: one loop thread that runs the core, ZeroMQ, UCX
 * and the timers, one engine thread beside it.
 *
 * WHAT    Opens everything a worker needs from its options, says Hello to the router, keeps the heartbeat, serves
 *         /metrics and /health, wakes the core at its deadlines, drains on SIGTERM. What happens is handed to the shell
 *         through bt_worker_ops; the shell hands it to its core.
 * FLOW    open -> shell makes its core -> run (until a signal and the drain) -> close
 * THREAD  All of it on the loop thread. One thread for core, ZeroMQ and UCX costs a handoff no hop between them
 *         (docs/decisions/0001). */
#ifndef BT_COMMON_DAEMON_WORKER_H
#define BT_COMMON_DAEMON_WORKER_H

#include "common/base/metrics.h"
#include "common/daemon/control.h"
#include "common/daemon/options.h"
#include "common/daemon/process.h"
#include "common/daemon/reload.h"
#include "common/engine/engine.h"
#include "common/net/http_server.h"
#include "common/net/link.h"
#include "common/xfer/xfer.h"
#include "proto/seal.h"

#include <stdio.h>

typedef struct {
    void (*on_router_message)(void *shell, const bt_msg *msg);
    void (*on_engine_event)(void *shell, const bt_engine_event *event);
    void (*on_peer_message)(void *shell, uint64_t sender, const void *data, size_t bytes);
    void (*on_put)(void *shell, bt_xfer_peer *peer, uint64_t tag, bt_status status);
    void (*on_peer_error)(void *shell, bt_xfer_peer *peer, const char *why);
    void (*on_tick)(void *shell);
    uint64_t (*next_deadline)(void *shell);
    void (*fill_heartbeat)(void *shell, bt_msg *msg);
    void (*update_metrics)(void *shell);
    void (*on_drain)(void *shell);
    bool (*idle)(void *shell);
    bool (*joinable)(void *shell); /* may the router know us yet? */
} bt_worker_ops;

typedef struct {
    const bt_worker_options *options;
    bt_role role;
    const bt_worker_ops *ops;
    const bt_reload *reload; /* SIGHUP; set by the shell before open, kept by it */
    void *shell;

    bt_loop *loop;
    bt_control control;
    bt_link *router;
    bt_model *model;
    bt_engine *engine;
    bt_loop_wake *engine_wake;
    bt_xfer *xfer;
    bt_loop_source *xfer_source;
    bt_loop_timer *heartbeat, *deadline, *drain;
    bt_metrics *metrics;
    bt_http_server *http;
    char *metrics_text;
    FILE *trace;
    bt_hello hello;
    uint64_t drain_end_ns;
    bool welcomed, draining;
} bt_worker;

/* Engine, model, sockets and timers; the hello is filled but for pair_endpoint and wire_formats. batch seqs and threads
 * come from the options. shell is passed to ops. */
bt_status bt_worker_open(bt_worker *worker, const bt_worker_options *options, bt_role role,
                         const bt_worker_ops *ops, void *shell, bt_err *err);
/* Dials the router and runs the loop until a signal and the drain that follows it. */
bt_status bt_worker_run(bt_worker *worker, bt_err *err);
/* Half-opened is fine. */
void bt_worker_close(bt_worker *worker);

/* After every call into the core: sets the timer to the core's next deadline. */
void bt_worker_arm(bt_worker *worker);

void bt_worker_send_router(bt_worker *worker, const bt_msg *msg);
/* Seals and sends; what cannot be sent is logged, and the leases and timers of the cores make up for it. */
void bt_worker_send_peer(bt_xfer_peer *peer, const bt_seal *seal, const char *name,
                         const bt_msg *msg);

/* One JSON line of trace_file: what happened to a request when, in ns of the monotonic clock. */
void bt_worker_trace(bt_worker *worker, const bt_request_id *request, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* "4f1d…": the form of a request id in logs. */
#define BT_REQUEST_TEXT_BYTES 33u
const char *bt_request_text(const bt_request_id *id, char ret_text[BT_REQUEST_TEXT_BYTES]);

#endif
