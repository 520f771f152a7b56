/* subcommand.h - one `baton model` subcommand: a row of model.c.
 *
 * ADD ONE <name>.c here with one `const bt_model_subcommand`, a line in model.c's table and its part
 *         of the help text there. */
#ifndef BT_OPS_CLI_MODEL_SUBCOMMAND_H
#define BT_OPS_CLI_MODEL_SUBCOMMAND_H

typedef struct {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the subcommand's name; returns an exit code */
} bt_model_subcommand;

#endif
