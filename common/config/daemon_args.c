#include "common/config/daemon_args.h"
#include "common/base/exit_code.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define FLAGS_MAX 16u
#define FLAG_BYTES_MAX 128u

typedef enum { DO_RUN, DO_CHECK, DO_DUMP, DO_REFERENCE, DO_HELP, DO_VERSION, DO_COMPLAIN } action;

typedef struct {
    action action;
    const char *file;
    const char *sets[BT_DAEMON_SETS_MAX];
    uint32_t set_count;
    char flags[FLAGS_MAX][FLAG_BYTES_MAX]; /* what --some-key stands for, as a --set */
    uint32_t flag_count;
    const char *complaint; /* what is wrong with the command line */
    const char *about;     /* the argument it is about, or NULL */
} command_line;

enum { OPT_CONFIG = 1, OPT_SET, OPT_CHECK, OPT_DUMP, OPT_REFERENCE, OPT_HELP, OPT_VERSION };

static const struct option options[] = {
    {"config", required_argument, NULL, OPT_CONFIG},
    {"set", required_argument, NULL, OPT_SET},
    {"check-config", no_argument, NULL, OPT_CHECK},
    {"dump-config", no_argument, NULL, OPT_DUMP},
    {"config-reference", no_argument, NULL, OPT_REFERENCE},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {0},
};

static void complain(command_line *line, const char *complaint, const char *about)
{
    if (line->action == DO_COMPLAIN) return;
    line->action = DO_COMPLAIN;
    line->complaint = complaint;
    line->about = about;
}

/* --refuse-prefill is --set decode.refuse_prefill=yes: so for every key that is yes or no. */
static bool take_flag(const bt_config_table *table, const char *argument, command_line *line)
{
    if (strncmp(argument, "--", 2) != 0 || line->set_count == BT_DAEMON_SETS_MAX ||
        line->flag_count == FLAGS_MAX)
        return false;
    char name[FLAG_BYTES_MAX / 2] = {0};
    for (size_t i = 0; argument[2 + i] != '\0' && i + 1 < sizeof(name); i++)
        name[i] = argument[2 + i] == '-' ? '_' : argument[2 + i];
    for (uint32_t i = 0; i < table->key_count; i++) {
        const bt_config_key *key = &table->keys[i];
        if (key->type != BT_CONFIG_BOOL || strcmp(key->name, name) != 0) continue;
        char *flag = line->flags[line->flag_count++];
        snprintf(flag, FLAG_BYTES_MAX, "%s.%s=yes", key->section, key->name);
        line->sets[line->set_count++] = flag;
        return true;
    }
    return false;
}

/* The sets of a line point into it: it is read where it stays. */
static void read_command_line(int argc, char **argv, const bt_config_table *table,
                              command_line *ret_line)
{
    command_line *line = ret_line;
    *line = (command_line){0};
    optind = 0; /* starts getopt anew: a reload reads the same arguments again */
    opterr = 0;
    for (;;) {
        int at = optind > 0 ? optind : 1;
        int option = getopt_long(argc, argv, ":", options, NULL);
        if (option < 0) break;
        switch (option) {
        case OPT_CONFIG:
            if (line->file != NULL) complain(line, "--config is given twice", NULL);
            line->file = optarg;
            break;
        case OPT_SET:
            if (line->set_count == BT_DAEMON_SETS_MAX) {
                complain(line, "too many --set", NULL);
            } else {
                line->sets[line->set_count++] = optarg;
            }
            break;
        case OPT_CHECK: line->action = DO_CHECK; break;
        case OPT_DUMP: line->action = DO_DUMP; break;
        case OPT_REFERENCE: line->action = DO_REFERENCE; return;
        case OPT_HELP: line->action = DO_HELP; return;
        case OPT_VERSION: line->action = DO_VERSION; return;
        case ':': complain(line, "a value is missing after", argv[at]); return;
        default:
            if (take_flag(table, argv[at], line)) break;
            complain(line, "unknown option", argv[at]);
            return;
        }
    }
    if (optind < argc) complain(line, "unexpected argument", argv[optind]);
}

static bt_status load(const command_line *line, const bt_daemon_spec *spec, void *ret_config,
                      bt_err *err)
{
    bt_config_source source = {
        .file = line->file,
        .sets = line->sets,
        .set_count = line->set_count,
        /* systemd's interface to a service, not a way to configure Baton. */
        .credentials_dir = getenv("CREDENTIALS_DIRECTORY"),
    };
    return bt_config_load(spec->table, &source, ret_config, err);
}

static void print_help(const bt_daemon_spec *spec)
{
    printf("usage: %s [--config FILE] [--set SECTION.KEY=VALUE]...\n\n%s\n"
           "  --config FILE            read FILE, then FILE.d/*.conf in the order of their names\n"
           "  --set SECTION.KEY=VALUE  override one key; may be repeated\n"
           "  --KEY                    of a yes-or-no key, with hyphens: --set SECTION.KEY=yes\n"
           "  --check-config           say whether the configuration is right, and exit\n"
           "  --dump-config            print the configuration in effect with the documentation\n"
           "                           of every key, and exit; it is a valid config file\n"
           "  --config-reference       print every key as a Markdown table, and exit\n"
           "  --help                   print this\n"
           "  --version                print the version\n\n" BT_EXIT_CODES_HELP
           "\nconfiguration:\n\n",
           spec->name, spec->summary);
    bt_config_dump(spec->table, NULL, stdout);
}

/* What was printed has reached its reader, or the exit code says that it has not. */
static int flush_stdout(void)
{
    return fflush(stdout) == 0 && !ferror(stdout) ? BT_EXIT_OK : BT_EXIT_FAILURE;
}

bool bt_daemon_args(int argc, char **argv, const bt_daemon_spec *spec, void *ret_config,
                    int *ret_exit_code)
{
    command_line line;
    read_command_line(argc, argv, spec->table, &line);
    switch (line.action) {
    case DO_HELP:
        print_help(spec);
        *ret_exit_code = flush_stdout();
        return false;
    case DO_REFERENCE:
        bt_config_reference(spec->table, stdout);
        *ret_exit_code = flush_stdout();
        return false;
    case DO_VERSION:
        printf("%s %s\n", spec->name, BT_VERSION);
        *ret_exit_code = flush_stdout();
        return false;
    case DO_COMPLAIN:
        fprintf(stderr, "%s: %s%s%s; see %s --help\n", spec->name, line.complaint,
                line.about != NULL ? " " : "", line.about != NULL ? line.about : "", spec->name);
        *ret_exit_code = BT_EXIT_USAGE;
        return false;
    default: break;
    }
    bt_err err;
    if (load(&line, spec, ret_config, &err) != BT_OK) {
        fprintf(stderr, "%s: %s\n", spec->name, err.message);
        *ret_exit_code = BT_EXIT_CONFIG;
        return false;
    }
    if (line.action == DO_RUN) return true;
    if (line.action == DO_CHECK) puts("the configuration is right");
    if (line.action == DO_DUMP) bt_config_dump(spec->table, ret_config, stdout);
    *ret_exit_code = flush_stdout();
    return false;
}

bt_status bt_daemon_reload(int argc, char **argv, const bt_daemon_spec *spec, void *ret_config,
                           bt_err *err)
{
    command_line line;
    read_command_line(argc, argv, spec->table, &line);
    return load(&line, spec, ret_config, err);
}
