/* reload.h - SIGHUP: the configuration again from the same command line, and what a running daemon can take of it.
 *
 * Keys marked reloadable are taken over; a change of any other key refuses the whole new configuration and names the key, so
 * that a daemon never runs half of it. Reloadable so far: log_level. */
#ifndef BT_COMMON_DAEMON_RELOAD_H
#define BT_COMMON_DAEMON_RELOAD_H

#include "common/config/daemon_args.h"

typedef struct {
    int argc;
    char **argv;
    const bt_daemon_spec *spec;
    void *config; /* in force, of the spec's table; overwritten by a reload that is taken */
    const uint32_t *log_level; /* within config: index into bt_log_level_names */
} bt_reload;

/* Logs what came of it. NULL is allowed: nothing to do. */
void bt_reload_run(const bt_reload *reload);

#endif
