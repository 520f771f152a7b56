/* fleet.h - the processes of `baton up`: started together, told apart by their notifications,
 * restarted, ended together.
 *
 * FLOW    fleet_open -> fleet_add … -> fleet_run -> fleet_close
 * READY   A daemon tells its state by systemd's notification protocol: READY=1, STATUS=…,
 *         X_BATON_…=….
 * FOLDER  If we are killed with -9 it stays, without secrets, and the next fleet_open removes it: a
 *         folder whose lock nobody holds has no owner.
 * KEYS    are files in memory that fleet_add's caller makes. A child inherits its own key and the
 *         list, as the same descriptors, and no other.
 * DEATH   Children carry PR_SET_PDEATHSIG, so that they die with us even on kill -9. Who spawns,
 *         reaps at once: a zombie looks alive to its peers. */
#ifndef BT_OPS_CLI_FLEET_H
#define BT_OPS_CLI_FLEET_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BT_FLEET_MAX 65u

typedef struct {
    char role[16]; /* "router", "prefill", "decode" */
    char name[32]; /* "decode-0" */
    char program[512];
    char config[512];
    int key_fd; /* its CURVE key, in memory; -1 = none */
    pid_t pid;  /* 0 = not running */
    bool ready;
    char metrics_url[128];
    char status[256];
    unsigned restarts;    /* all of them */
    unsigned short_lives; /* in a row: a daemon that cannot live is started ever slower */
    uint64_t started_ns;
    uint64_t restart_at_ns; /* 0 = not waiting */
} bt_fleet_member;

typedef struct {
    char dir[256]; /* configs, the socket and a lock; removed at the end */
    int lock_fd, notify_fd, signal_fd;
    int keys_fd; /* public keys of all, in memory; -1 = none */
    bt_fleet_member members[BT_FLEET_MAX];
    uint32_t member_count;
    uint32_t pairs_wanted;
    bool restart;
    const char *state_file; /* NULL = none */
    char url[128];          /* the router's, once known */
    char control[128];      /* the router's ZeroMQ endpoint, once known: the others start then */
    uint32_t pairs_ready, pairs_refused;
    char refusal[256];
    bool announced, changed; /* changed: a child ended, and the state file does not say so yet */
} bt_fleet;

bt_status bt_fleet_open(bt_fleet *fleet, bt_err *err);
/* The program must lie beside the running `baton`. */
bt_fleet_member *bt_fleet_add(bt_fleet *fleet, const char *role, uint32_t index,
                              const char *program);
/* Until SIGTERM or SIGINT (OK), or until the fleet cannot serve (an error that says why). */
bt_status bt_fleet_run(bt_fleet *fleet, bt_err *err);
/* Ends and reaps every child, removes the folder. */
void bt_fleet_close(bt_fleet *fleet);

#endif
