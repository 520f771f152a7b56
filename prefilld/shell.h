/* shell.h - the prefill daemon: its core connected to libuv, ZeroMQ, UCX and the engine.
 *
 * FLOW    create (loads the model) -> run (until a signal and the drain) -> destroy */
#ifndef BT_PREFILLD_SHELL_H
#define BT_PREFILLD_SHELL_H

#include "common/base/status.h"
#include "common/daemon/reload.h"
#include "prefilld/config.h"

typedef struct bt_prefilld bt_prefilld;

/* config and reload (NULL = SIGHUP does nothing) must outlive the daemon. On failure *ret_daemon may be half built: destroy takes it. */
bt_status bt_prefilld_create(const bt_prefilld_config *config, const bt_reload *reload,
                             bt_prefilld **ret_daemon, bt_err *err);
bt_status bt_prefilld_run(bt_prefilld *daemon, bt_err *err);
void bt_prefilld_destroy(bt_prefilld *daemon);

#endif
