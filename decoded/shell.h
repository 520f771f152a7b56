/* shell.h - the decode daemon: its core connected to libuv, ZeroMQ, UCX and the engine.
 *
 * FLOW    create (loads the model) -> run (until a signal and the drain) -> destroy */
#ifndef BT_DECODED_SHELL_H
#define BT_DECODED_SHELL_H

#include "common/base/status.h"
#include "common/daemon/reload.h"
#include "decoded/config.h"

typedef struct bt_decoded bt_decoded;

/* config and reload (NULL = SIGHUP does nothing) must outlive the daemon. On failure *ret_daemon may be half built: destroy takes it. */
bt_status bt_decoded_create(const bt_decoded_config *config, const bt_reload *reload,
                            bt_decoded **ret_daemon, bt_err *err);
bt_status bt_decoded_run(bt_decoded *daemon, bt_err *err);
void bt_decoded_destroy(bt_decoded *daemon);

#endif
