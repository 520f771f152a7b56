#include "common/daemon/reload.h"

#include "common/base/log.h"
#include "common/daemon/notify.h"

#include <stdlib.h>
#include <string.h>

static bt_status load(const bt_reload *reload, void *next, bt_err *err)
{
    bt_status status = bt_daemon_reload(reload->argc, reload->argv, reload->spec, next, err);
    if (status != BT_OK) return status;
    return bt_config_check_reload(reload->spec->table, reload->config, next, err);
}

void bt_reload_run(const bt_reload *reload)
{
    if (reload == NULL) return;
    size_t bytes = reload->spec->table->struct_bytes;
    void *next = calloc(1, bytes);
    bt_err err = {0};
    if (next == NULL) {
        bt_log_error(NULL, "reload: out of memory");
        return;
    }
    bt_notify("RELOADING=1");
    if (load(reload, next, &err) != BT_OK) {
        bt_log_error(NULL, "reload refused, the old configuration stays: %s", err.message);
    } else {
        memcpy(reload->config, next, bytes);
        bt_log_set_level(bt_log_level_at(*reload->log_level));
        bt_log_info(NULL, "configuration reloaded");
    }
    bt_notify("READY=1");
    free(next);
}
