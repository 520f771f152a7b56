/* shell.h - the router: its core connected to HTTP, ZeroMQ, the tokenizer and the clock.
 *
 * FLOW    create -> run (until a signal and the drain) -> destroy */
#ifndef BT_ROUTER_SHELL_H
#define BT_ROUTER_SHELL_H

#include "common/base/status.h"
#include "common/daemon/reload.h"
#include "router/config.h"

typedef struct bt_router bt_router;

/* options and reload (NULL = SIGHUP does nothing) must outlive the router. On failure *ret_router may be half built: destroy takes it. */
bt_status bt_router_create(const bt_router_options *options, const bt_reload *reload,
                           bt_router **ret_router, bt_err *err);
bt_status bt_router_run(bt_router *router, bt_err *err);
void bt_router_destroy(bt_router *router);

#endif
