/* command.h - one `baton` command: a row of registry.c.
 *
 * ADD ONE ops/cli/<name>.c with one `const bt_cli_command`, and one line in registry.c; help,
 *         `baton help` and the command suite of the tests then cover it. */
#ifndef BT_OPS_CLI_COMMAND_H
#define BT_OPS_CLI_COMMAND_H

#include "common/base/exit_code.h"

typedef struct {
    const char *name;
    const char *summary;               /* one line */
    const char *help;                  /* whole text of --help */
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns an exit code */
} bt_cli_command;

extern const bt_cli_command *const bt_cli_commands[];
extern const unsigned bt_cli_command_count;

#endif
