/* main.c - `baton COMMAND …`: finds the command and runs it. */
#include "ops/cli/command.h"

#include <stdio.h>
#include <string.h>

static void print_usage(FILE *out)
{
    fputs("usage: baton COMMAND [options]\n\ncommands:\n", out);
    for (unsigned i = 0; i < bt_cli_command_count; i++)
        fprintf(out, "  %-10s %s\n", bt_cli_commands[i]->name, bt_cli_commands[i]->summary);
    fputs("\n`baton COMMAND --help` tells the options of one.\n", out);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return BT_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return BT_EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("baton " BT_VERSION);
        return BT_EXIT_OK;
    }
    for (unsigned i = 0; i < bt_cli_command_count; i++) {
        const bt_cli_command *command = bt_cli_commands[i];
        if (strcmp(argv[1], command->name) != 0) continue;
        for (int arg = 2; arg < argc; arg++) {
            if (strcmp(argv[arg], "--help") == 0) {
                fputs(command->help, stdout);
                return BT_EXIT_OK;
            }
        }
        return command->run(argc - 1, argv + 1);
    }
    fprintf(stderr, "baton: there is no command '%s'; `baton help` lists them\n", argv[1]);
    return BT_EXIT_USAGE;
}
