/* shell_state.h - what the router's shell is made of, shared by its parts. Private to router/.
 *
 * shell.c      life, daemons, timers, what the core asks for.
 * routes.c     HTTP: which path and method is served by what.
 * series.c     metrics.
 * fleet.c      daemons and pairs as JSON.
 * completion.c requests from accepted to answered. */
#ifndef BT_ROUTER_SHELL_STATE_H
#define BT_ROUTER_SHELL_STATE_H

#include "common/daemon/control.h"
#include "common/daemon/process.h"
#include "common/net/link.h"
#include "common/weights/model.h"
#include "router/completion.h"
#include "router/series.h"
#include "router/shell.h"

#include <time.h>

typedef struct {
    bt_router *router;
    uint32_t daemon;
    uint64_t incarnation;
} bt_router_watch;

struct bt_router {
    const bt_router_options *options;
    const bt_reload *reload;
    bt_control control;
    bt_loop *loop;
    bt_model *model;
    bt_tokenizer *tokenizer;
    bt_chat_template *chat; /* NULL: the model has none */
    char model_name[BT_NAME_BYTES_MAX];
    char fingerprint_text[16]; /* "fp_0011223344" */
    time_t created;            /* of the model, as the API has it: our start */
    bt_sha256 fingerprint;     /* of our model folder: what the daemons must have too */
    uint64_t incarnation;
    void *core_memory;
    bt_router_core *core;
    bt_link_server *server;
    bt_http_server *http;
    bt_completions completions;
    bt_request_context context;
    bt_router_series series;
    bt_loop_timer *deadline, *drain, *status;
    uint64_t drain_end_ns;
    bool draining;
    /* A message could not be sent: the core hears of it later. */
    bool any_lost, lost[BT_DAEMONS_MAX];
    char status_text[768]; /* the last notification */
    bt_process_watch *watches[BT_DAEMONS_MAX];
    bt_router_watch watch_args[BT_DAEMONS_MAX];
};

/* -- shell.c: after everything that calls the core ------------------------------------------- */
void bt_router_arm(bt_router *router);

/* -- routes.c: the handler of the HTTP server; arg is the router ------------------------------ */
void bt_router_on_http(void *arg, bt_http_exchange *exchange, const bt_http_request *http);

#endif
