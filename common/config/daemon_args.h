/* daemon_args.h - the command line that all daemons share, and what it leads to.
 *
 *     --config FILE            read FILE and FILE.d/<name>.conf
 *     --set SECTION.KEY=VALUE  override a key; may be repeated
 *     --KEY                    of a BOOL key, hyphens for underscores: --set SECTION.KEY=yes
 *     --check-config           say whether the configuration is right, and exit
 *     --dump-config            print the configuration in effect, with its documentation, and exit
 *     --config-reference       print every key as a Markdown table, and exit
 *     --help, --version
 *
 *     int main(int argc, char **argv)
 *     {
 *         router_config config;
 *         int exit_code;
 *         if (!bt_daemon_args(argc, argv, &spec, &config, &exit_code)) return exit_code;
 *         ...
 *
 * Answers go to stdout, complaints to stderr, exit codes are those of exit_code.h. */
#ifndef BT_COMMON_CONFIG_DAEMON_ARGS_H
#define BT_COMMON_CONFIG_DAEMON_ARGS_H

#include "common/config/config.h"

#define BT_DAEMON_SETS_MAX 64u /* --set on one command line */

typedef struct {
    const char *name;    /* "baton-router" */
    const char *summary; /* what it does, whole lines */
    const bt_config_table *table;
} bt_daemon_spec;

/* True: *ret_config is loaded and the daemon goes on. False: it exits with *ret_exit_code. */
bool bt_daemon_args(int argc, char **argv, const bt_daemon_spec *spec, void *ret_config,
                    int *ret_exit_code);

/* The configuration again, from the same command line: for a reload. */
bt_status bt_daemon_reload(int argc, char **argv, const bt_daemon_spec *spec, void *ret_config,
                           bt_err *err);

#endif
