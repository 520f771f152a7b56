/* up.c - `baton up`: a whole fleet on one machine in the foreground.
 *
 * Makes keys, in memory, and one config file for each daemon in a private folder, and hands the
 * processes to fleet.c. Everything runs as it would on many machines: CURVE keys, roles by key, pairing, probes.
 */
#include "common/daemon/options.h"
#include "ops/cli/command.h"
#include "ops/cli/fleet.h"
#include "ops/cli/options.h"
#include "router/policies/policy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#define ROLE_MAX 16

typedef struct {
    char model[PATH_MAX];
    const char *name, *kv_dtype, *prefill_kv_dtype, *wire, *block_size, *prefill_block_size, *state,
        *policy;
    uint32_t prefills, decodes, port;
    bt_option_texts sets;
    bool restart;
} up_options;

typedef struct {
    char public_key[41], secret_key[41];
} key_pair;

static const char help[] =
    "usage: baton up [options]\n\n"
    "Runs a router, prefill daemons and decode daemons on this machine in the foreground and "
    "prints\n"
    "`ready http://127.0.0.1:PORT` once every pair has passed its probe. SIGTERM or Ctrl-C ends "
    "it.\n\n"
    "  --model DIR               Hugging Face checkpoint folder (default: the demo model)\n"
    "  --name NAME               model name in the API (default: the folder's name; baton-demo "
    "for\n"
    "                            the demo model)\n"
    "  --prefill N, --decode M   how many daemons of each role (default 1 and 1, at most 16)\n"
    "  --port P                  HTTP port on 127.0.0.1 (default: a free one)\n"
    "  --policy NAME             routing policy: least_loaded, round_robin, power_of_two,\n"
    "                            prefix_affinity, predicted_ttft\n"
    "  --kv-dtype T              KV pool of the decode daemons: f32, bf16, fp8, int8\n"
    "  --prefill-kv-dtype T      KV pool of the prefill daemons (default: as --kv-dtype)\n"
    "  --wire T                  KV between them: raw (what the prefill pool stores), f32, bf16,\n"
    "                            fp8, int8 (default: what the decode pool stores)\n"
    "  --block-size B            tokens of a KV block: 16, 32, 64\n"
    "  --prefill-block-size B    the same for the prefill daemons (default: as --block-size)\n"
    "  --set ROLE.KEY=VALUE      any key of router, prefill or decode; may be repeated\n"
    "  --state FILE              JSON: url, and role, name, pid and metrics URL of each daemon\n"
    "  --no-restart              a daemon that dies stays dead\n\n"
    "Exit codes: 0 ended by a signal, 1 the fleet could not serve, 2 wrong usage.\n\n"
    "Example: baton up --model ops/model --prefill 2 --decode 2 --kv-dtype fp8 --wire int8\n";

/* The demo model lies in the source tree beside build/, or below the install prefix. */
static void default_model(char path[PATH_MAX])
{
    static const char *const places[] = {"../../ops/model", "../share/baton/model"};
    char self[PATH_MAX - 64];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL) *slash = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(path, PATH_MAX, "%s/%s", self, places[i]);
        if (access(path, R_OK) == 0) return;
    }
}

/* Checks ROLE.KEY=VALUE; the key itself is checked by the daemon, which knows its keys. */
static bool valid_set(const char *text)
{
    static const char *const roles[] = {"router.", "prefill.", "decode."};
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
        size_t length = strlen(roles[i]);
        if (strncmp(text, roles[i], length) != 0) continue;
        const char *equals = strchr(text, '=');
        return equals != NULL && equals > text + length && strchr(text, '\n') == NULL;
    }
    return false;
}

static int parse_options(int argc, char **argv, up_options *o)
{
    static const char *const block_sizes[] = {"16", "32", "64", NULL};
    const char *model = NULL;
    bt_option_choice kv = {bt_kv_dtype_choices, NULL}, prefill_kv = kv,
                     wire = {bt_wire_dtype_choices, NULL}, block = {block_sizes, NULL},
                     prefill_block = block, policy = {bt_router_policy_choices, NULL};
    *o = (up_options){.prefills = 1, .decodes = 1};
    bool no_restart = false;
    const bt_option table[] = {
        {.name = "--model", .kind = BT_OPTION_TEXT, .value = &model},
        {.name = "--name", .kind = BT_OPTION_TEXT, .value = &o->name},
        {"--prefill", BT_OPTION_U32, &o->prefills, 1, ROLE_MAX},
        {"--decode", BT_OPTION_U32, &o->decodes, 1, ROLE_MAX},
        {"--port", BT_OPTION_U32, &o->port, 0, 65535},
        {"--policy", BT_OPTION_CHOICE, &policy, 0, 0},
        {"--kv-dtype", BT_OPTION_CHOICE, &kv, 0, 0},
        {"--prefill-kv-dtype", BT_OPTION_CHOICE, &prefill_kv, 0, 0},
        {"--wire", BT_OPTION_CHOICE, &wire, 0, 0},
        {"--block-size", BT_OPTION_CHOICE, &block, 0, 0},
        {"--prefill-block-size", BT_OPTION_CHOICE, &prefill_block, 0, 0},
        {.name = "--set", .kind = BT_OPTION_TEXTS, .value = &o->sets},
        {.name = "--state", .kind = BT_OPTION_TEXT, .value = &o->state},
        {.name = "--no-restart", .kind = BT_OPTION_FLAG, .value = &no_restart},
    };
    int code = bt_options_parse(argc, argv, table, sizeof(table) / sizeof(table[0]));
    if (code != BT_EXIT_OK) return code;
    for (unsigned i = 0; i < o->sets.count; i++)
        if (!valid_set(o->sets.items[i]))
            return bt_options_fail(
                "up", "--set takes ROLE.KEY=VALUE with ROLE router, prefill or decode, not '%s'",
                o->sets.items[i]);
    o->restart = !no_restart;
    if (model == NULL) {
        default_model(o->model);
        if (o->name == NULL) o->name = "baton-demo";
    } else if (snprintf(o->model, sizeof(o->model), "%s", model) >= (int)sizeof(o->model)) {
        return bt_options_fail("up", "the path of --model is too long");
    }
    o->kv_dtype = kv.value;
    o->prefill_kv_dtype = prefill_kv.value != NULL ? prefill_kv.value : kv.value;
    o->wire = wire.value;
    o->policy = policy.value;
    o->block_size = block.value;
    o->prefill_block_size = prefill_block.value != NULL ? prefill_block.value : block.value;
    return BT_EXIT_OK;
}

static FILE *open_private(const char *path, bt_err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (out == NULL) BT_FAIL(err, BT_ERR_OS, "%s: %s", path, strerror(errno));
    return out;
}

/* A file in memory that only our children can open, as /proc/self/fd/N: secrets are never on a disk,
 * whatever ends us. */
static FILE *open_secret(const char *name, int *ret_fd, bt_err *err)
{
    *ret_fd = memfd_create(name, MFD_CLOEXEC);
    int copy = *ret_fd >= 0 && fchmod(*ret_fd, 0600) == 0 ? fcntl(*ret_fd, F_DUPFD_CLOEXEC, 3) : -1;
    FILE *out = copy >= 0 ? fdopen(copy, "w") : NULL;
    if (out == NULL) BT_FAIL(err, BT_ERR_OS, "memory for %s: %s", name, strerror(errno));
    return out;
}

static bt_status write_keys(bt_fleet *fleet, key_pair *keys, bt_err *err)
{
    FILE *list = open_secret("baton-keys", &fleet->keys_fd, err);
    if (list == NULL) return BT_ERR_OS;
    for (uint32_t i = 0; i < fleet->member_count; i++) {
        bt_fleet_member *member = &fleet->members[i];
        if (zmq_curve_keypair(keys[i].public_key, keys[i].secret_key) != 0) {
            fclose(list);
            return BT_FAIL(err, BT_ERR_OS, "CURVE keys: %s", zmq_strerror(zmq_errno()));
        }
        fprintf(list, "%s %s %s\n", keys[i].public_key, member->role, member->name);
        FILE *secret = open_secret("baton-key", &member->key_fd, err);
        if (secret == NULL) {
            fclose(list);
            return BT_ERR_OS;
        }
        fprintf(secret, "public=%s\nsecret=%s\n", keys[i].public_key, keys[i].secret_key);
        if (fclose(secret) != 0) {
            fclose(list);
            return BT_FAIL(err, BT_ERR_OS, "key of %s: %s", member->name, strerror(errno));
        }
    }
    if (fclose(list) != 0) return BT_FAIL(err, BT_ERR_OS, "keys: %s", strerror(errno));
    return BT_OK;
}

static void write_if(FILE *out, const char *key, const char *value)
{
    if (value != NULL) fprintf(out, "%s=%s\n", key, value);
}

/* A --set replaces the key's line rather than standing beside it, since a key twice in one file is
 * an error. */
static bool overridden(const up_options *o, const char *role, const char *key)
{
    char prefix[96];
    int length = snprintf(prefix, sizeof(prefix), "%s.%s=", role, key);
    for (unsigned i = 0; i < o->sets.count; i++) {
        if (strncmp(o->sets.items[i], prefix, (size_t)length) == 0) return true;
    }
    return false;
}

typedef struct {
    const char *key, *value;
} setting;

static bt_status write_config(const up_options *o, const bt_fleet *fleet, uint32_t i,
                              const key_pair *keys, bt_err *err)
{
    const bt_fleet_member *member = &fleet->members[i];
    char port[32], keys_file[32], key_file[32];
    snprintf(port, sizeof(port), "127.0.0.1:%u", o->port);
    snprintf(keys_file, sizeof(keys_file), "/proc/self/fd/%d", fleet->keys_fd);
    snprintf(key_file, sizeof(key_file), "/proc/self/fd/%d", member->key_fd);
    bool router = strcmp(member->role, "router") == 0,
         prefill = strcmp(member->role, "prefill") == 0;
    const setting settings[] = {
        {"name", member->name},
        {"model", o->model},
        {"model_name", o->name},
        {"key_file", key_file},
        {"keys_file", keys_file},
        {router ? "http_listen" : "router_key", router ? port : keys[0].public_key},
        {"policy", router ? o->policy : NULL},
        {"kv_dtype", router    ? NULL
                     : prefill ? o->prefill_kv_dtype
                               : o->kv_dtype},
        {"block_size", router    ? NULL
                       : prefill ? o->prefill_block_size
                                 : o->block_size},
        {"wire", prefill ? o->wire : NULL},
        {"net_devices", router ? NULL : "lo"},
    };
    FILE *out = open_private(member->config, err);
    if (out == NULL) return BT_ERR_OS;
    fprintf(out, "[%s]\n", member->role);
    for (size_t s = 0; s < sizeof(settings) / sizeof(settings[0]); s++) {
        if (!overridden(o, member->role, settings[s].key))
            write_if(out, settings[s].key, settings[s].value);
    }
    size_t role_length = strlen(member->role);
    for (unsigned s = 0; s < o->sets.count; s++) {
        if (strncmp(o->sets.items[s], member->role, role_length) == 0 &&
            o->sets.items[s][role_length] == '.')
            fprintf(out, "%s\n", o->sets.items[s] + role_length + 1);
    }
    if (fclose(out) != 0) return BT_FAIL(err, BT_ERR_OS, "%s: %s", member->config, strerror(errno));
    return BT_OK;
}

static bt_status start(const up_options *o, bt_fleet *fleet, bt_err *err)
{
    key_pair keys[BT_FLEET_MAX];
    bt_fleet_add(fleet, "router", 0, "baton-router");
    for (unsigned i = 0; i < o->decodes; i++) bt_fleet_add(fleet, "decode", i, "baton-decoded");
    for (unsigned i = 0; i < o->prefills; i++) bt_fleet_add(fleet, "prefill", i, "baton-prefilld");
    fleet->pairs_wanted = o->prefills * o->decodes;
    fleet->restart = o->restart;
    fleet->state_file = o->state;
    bt_status status = write_keys(fleet, keys, err);
    for (uint32_t i = 0; status == BT_OK && i < fleet->member_count; i++)
        status = write_config(o, fleet, i, keys, err);
    return status == BT_OK ? bt_fleet_run(fleet, err) : status;
}

static int run_up(int argc, char **argv)
{
    up_options options;
    int code = parse_options(argc, argv, &options);
    if (code != BT_EXIT_OK) return code;
    char config[PATH_MAX + 16];
    snprintf(config, sizeof(config), "%s/config.json", options.model);
    if (access(config, R_OK) != 0) {
        fprintf(stderr, "baton up: model %s: %s\n", config, strerror(errno));
        return BT_EXIT_FAILURE;
    }
    bt_fleet fleet;
    bt_err err = {0};
    bt_status status = bt_fleet_open(&fleet, &err);
    if (status == BT_OK) status = start(&options, &fleet, &err);
    bt_fleet_close(&fleet);
    if (status == BT_OK) return BT_EXIT_OK;
    fprintf(stderr, "baton up: %s\n", err.message);
    return BT_EXIT_FAILURE;
}

const bt_cli_command bt_cli_up = {
    .name = "up",
    .summary = "run a fleet on this machine",
    .help = help,
    .run = run_up,
};
