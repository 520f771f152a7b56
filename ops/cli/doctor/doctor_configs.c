/* doctor_configs.c - each --config as its own daemon reads it: right or not, and what it says, for
 * the checks that follow.
 *
 * The daemon itself is asked (--check-config, --dump-config), so that doctor knows no key twice. */
#include "common/base/parse.h"
#include "ops/cli/doctor/doctor.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DUMP_BYTES_MAX (256u * 1024u)

static const struct {
    const char *role, *program;
} roles[] = {
    {"router", "baton-router"}, {"prefill", "baton-prefilld"}, {"decode", "baton-decoded"}};
enum { ROLES = sizeof(roles) / sizeof(roles[0]) };

/* The role is the file's first section. Returns an index into roles, or ROLES with the reason said. */
static size_t role_of(bt_doctor *doctor, const char *file)
{
    char line[256];
    FILE *in = fopen(file, "re");
    if (in == NULL) {
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, file,
                      errno == EACCES ? "run doctor as the daemon's user, or let it read the file"
                                      : "name a file that exists",
                      "%s", strerror(errno));
        return ROLES;
    }
    size_t role = ROLES;
    while (role == ROLES && fgets(line, sizeof(line), in) != NULL) {
        char *section = line + strspn(line, " \t");
        for (size_t i = 0; *section == '[' && i < ROLES; i++) {
            size_t bytes = strlen(roles[i].role);
            if (strncmp(section + 1, roles[i].role, bytes) == 0 && section[1 + bytes] == ']')
                role = i;
        }
    }
    fclose(in);
    if (role == ROLES)
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, file,
                      "a configuration begins with [router], [prefill] or [decode]",
                      "no section that says which daemon it is for");
    return role;
}

static void take_listen(bt_doctor_config *config, const char *value)
{
    static const char scheme[] = "tcp://";
    if (strncmp(value, scheme, strlen(scheme)) == 0) value += strlen(scheme);
    if (value[0] == '\0' || config->listen_count == 3) return;
    snprintf(config->listen[config->listen_count++], sizeof(config->listen[0]), "%s", value);
}

typedef struct {
    uint64_t slots, cells, cell_bytes;
} landing;

static void take_key(bt_doctor_config *config, const char *name, const char *value, landing *land)
{
#define TEXT(field)                                                                                \
    {                                                                                              \
#field, offsetof(bt_doctor_config, field), sizeof(((bt_doctor_config *)NULL)->field)       \
    }
    static const struct {
        const char *name;
        size_t offset, bytes;
    } texts[] = {TEXT(name),   TEXT(model),      TEXT(key_file),  TEXT(keys_file),
                 TEXT(router), TEXT(router_key), TEXT(transports)};
#undef TEXT
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (strcmp(name, texts[i].name) == 0)
            snprintf((char *)config + texts[i].offset, texts[i].bytes, "%s", value);
    size_t length = strlen(name);
    if (length > 7 && strcmp(name + length - 7, "_listen") == 0) take_listen(config, value);
    if (strcmp(name, "slots") == 0) bt_parse_u64(value, &land->slots, NULL);
    if (strcmp(name, "cells") == 0) bt_parse_u64(value, &land->cells, NULL);
    if (strcmp(name, "cell_bytes") == 0) bt_parse_bytes(value, &land->cell_bytes, NULL);
}

/* dump: "key=value" lines, comments and sections between them. */
static void take_dump(bt_doctor_config *config, char *dump)
{
    landing land = {0};
    char *rest = NULL;
    for (char *line = strtok_r(dump, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char *equals = strchr(line, '=');
        if (line[0] == '#' || line[0] == '[' || equals == NULL) continue;
        *equals = '\0';
        take_key(config, line, equals + 1, &land);
    }
    config->landing_bytes = (land.slots + 1) * land.cells * land.cell_bytes;
}

static void read_config(bt_doctor *doctor, bt_doctor_config *config, char *text)
{
    size_t role = role_of(doctor, config->file);
    if (role == ROLES) return;
    const char *const check[] = {"--config", config->file, "--check-config", NULL};
    const char *const dump[] = {"--config", config->file, "--dump-config", NULL};
    int code = bt_doctor_capture(roles[role].program, check, text, DUMP_BYTES_MAX);
    text[strcspn(text, "\n")] = '\0';
    if (code != 0) {
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, config->file,
                      "the line names file, line and key; --help of the daemon lists every key",
                      "%s", text);
        return;
    }
    code = bt_doctor_capture(roles[role].program, dump, text, DUMP_BYTES_MAX);
    if (code != 0) {
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, config->file, "run it by hand with --dump-config",
                      "%s", text);
        return;
    }
    snprintf(config->role, sizeof(config->role), "%s", roles[role].role);
    take_dump(config, text);
    bt_doctor_say(doctor, BT_DOCTOR_OK, config->file, NULL, "right, of %s %s", config->role,
                  config->name);
}

static void run(bt_doctor *doctor)
{
    char *text = malloc(DUMP_BYTES_MAX);
    if (text == NULL) return;
    for (uint32_t i = 0; i < doctor->config_count; i++)
        read_config(doctor, &doctor->configs[i], text);
    free(text);
}

const bt_doctor_check bt_doctor_configs = {"configurations", run};
