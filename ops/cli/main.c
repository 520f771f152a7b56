/* main.c - `baton COMMAND …`: finds the command and runs it. */
#include "common/base/parse.h"
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

static const bt_cli_command *find(const char *name)
{
    for (unsigned i = 0; i < bt_cli_command_count; i++)
        if (strcmp(name, bt_cli_commands[i]->name) == 0) return bt_cli_commands[i];
    return NULL;
}

static int no_command(const char *name)
{
    char shown[128];
    bt_escape(name, strlen(name), shown, sizeof(shown));
    fprintf(stderr, "baton: there is no command '%s'; `baton help` lists them\n", shown);
    return BT_EXIT_USAGE;
}

/* `baton help` or `baton help COMMAND`. */
static int help(int argc, char **argv)
{
    if (argc < 3) {
        print_usage(stdout);
        return BT_EXIT_OK;
    }
    const bt_cli_command *command = find(argv[2]);
    if (command == NULL) return no_command(argv[2]);
    fputs(command->help, stdout);
    return BT_EXIT_OK;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return BT_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) return help(argc, argv);
    if (strcmp(argv[1], "--version") == 0) {
        puts("baton " BT_VERSION);
        return BT_EXIT_OK;
    }
    const bt_cli_command *command = find(argv[1]);
    if (command == NULL) return no_command(argv[1]);
    for (int arg = 2; arg < argc; arg++) {
        if (strcmp(argv[arg], "--help") != 0) continue;
        fputs(command->help, stdout);
        return BT_EXIT_OK;
    }
    return command->run(argc - 1, argv + 1);
}
