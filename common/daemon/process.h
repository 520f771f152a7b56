/* process.h - which process a peer is, and the proof that it died.
 *
 * WHY     H1: a landing slot may be reused when the process that could still write into it is dead.
 *         On one host a pidfd proves that at once; heartbeats only suspect. A peer names its
 *         process in its hello; we can watch it if it is of our host and pid namespace and its
 *         start time is what it says (a pid alone may be somebody else by now).
 * TRUST   The name comes over the authenticated control plane. A peer that lies about it frees
 *         slots that it writes into itself; the digests stand between that and a wrong token. */
#ifndef BT_COMMON_DAEMON_PROCESS_H
#define BT_COMMON_DAEMON_PROCESS_H

#include "common/loop/loop.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint64_t host;  /* hash of boot id and pid namespace */
    uint64_t start; /* start time in clock ticks since boot */
    uint32_t pid;
} bt_process;

/* Ourselves. Zero fields if /proc is not readable: nobody can watch us then. */
void bt_process_self(bt_process *ret_process);

typedef struct bt_process_watch bt_process_watch;

/* on_death comes once, on the loop; at once (next turn) if the process is already gone.
 * ERR_ARGUMENT if the process is not of this host: its death cannot be proven from here. */
bt_status bt_process_watch_open(bt_loop *loop, const bt_process *process, bt_loop_fn on_death,
                                void *arg, bt_process_watch **ret_watch, bt_err *err);
/* NULL is allowed. */
void bt_process_watch_close(bt_process_watch *watch);

#endif
