/* up.c - `baton up`: a whole fleet on one machine in the foreground.
 *
 * Writes keys and one config file for each daemon into a private folder and hands the processes to
 * fleet.c. Everything runs as it would on many machines: CURVE keys, roles by key, pairing, probes.
 */
#include "common/base/parse.h"
#include "ops/cli/command.h"
#include "ops/cli/fleet.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#define SETS_MAX 64

typedef struct {
    char model[PATH_MAX];
    const char *name, *kv_dtype, *prefill_kv_dtype, *wire, *block_size, *prefill_block_size, *state,
        *policy;
    unsigned prefills, decodes, port;
    const char *sets[SETS_MAX];
    unsigned set_count;
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
    "  --name NAME               model name in the API (default: the folder's name, baton-demo for "
    "the demo)\n"
    "  --prefill N, --decode M   how many daemons of each role (default 1 and 1, at most 16)\n"
    "  --port P                  HTTP port on 127.0.0.1 (default: a free one)\n"
    "  --policy NAME             routing policy: round_robin, least_loaded\n"
    "  --kv-dtype T              KV pool of the decode daemons: f32, bf16, fp8, int8\n"
    "  --prefill-kv-dtype T      KV pool of the prefill daemons (default: as --kv-dtype)\n"
    "  --wire T                  KV between them: raw (what the prefill pool stores), f32, bf16, "
    "fp8, int8\n"
    "                            (default: what the decode pool stores)\n"
    "  --block-size B            tokens of a KV block: 16, 32, 64\n"
    "  --prefill-block-size B    the same for the prefill daemons (default: as --block-size)\n"
    "  --set ROLE.KEY=VALUE      any key of router, prefill or decode; may be repeated\n"
    "  --state FILE              JSON: url, and role, name, pid and metrics URL of each daemon\n"
    "  --no-restart              a daemon that dies stays dead\n\n"
    "Exit codes: 0 ended by a signal, 1 the fleet could not serve, 2 wrong usage.\n";

static int usage_error(const char *fmt, const char *value)
{
    char text[128];
    bt_escape(value, strlen(value), text, sizeof(text));
    fputs("baton up: ", stderr);
    fprintf(stderr, fmt, text);
    fputs("; `baton up --help` tells the options\n", stderr);
    return BT_EXIT_USAGE;
}

static bool parse_number(const char *text, unsigned low, unsigned high, unsigned *ret_value)
{
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value < low || value > high)
        return false;
    *ret_value = (unsigned)value;
    return true;
}

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
    enum {
        MODEL = 1,
        NAME,
        PREFILL,
        DECODE,
        PORT,
        POLICY,
        KV,
        PKV,
        WIRE,
        BLOCK,
        PBLOCK,
        SET,
        STATE,
        NO_RESTART
    };
    static const struct option table[] = {{"model", 1, NULL, MODEL},
                                          {"name", 1, NULL, NAME},
                                          {"prefill", 1, NULL, PREFILL},
                                          {"decode", 1, NULL, DECODE},
                                          {"port", 1, NULL, PORT},
                                          {"policy", 1, NULL, POLICY},
                                          {"kv-dtype", 1, NULL, KV},
                                          {"prefill-kv-dtype", 1, NULL, PKV},
                                          {"wire", 1, NULL, WIRE},
                                          {"block-size", 1, NULL, BLOCK},
                                          {"prefill-block-size", 1, NULL, PBLOCK},
                                          {"set", 1, NULL, SET},
                                          {"state", 1, NULL, STATE},
                                          {"no-restart", 0, NULL, NO_RESTART},
                                          {NULL, 0, NULL, 0}};
    *o = (up_options){.prefills = 1, .decodes = 1, .restart = true, .name = "baton-demo"};
    default_model(o->model);
    bool named = false;
    opterr = 0;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, ":", table, NULL)) != -1;) {
        switch (c) {
        case MODEL:
            snprintf(o->model, sizeof(o->model), "%s", optarg);
            if (!named) o->name = NULL;
            break;
        case NAME:
            o->name = optarg;
            named = true;
            break;
        case PREFILL:
            if (!parse_number(optarg, 1, 16, &o->prefills))
                return usage_error("--prefill is 1 to 16, not '%s'", optarg);
            break;
        case DECODE:
            if (!parse_number(optarg, 1, 16, &o->decodes))
                return usage_error("--decode is 1 to 16, not '%s'", optarg);
            break;
        case PORT:
            if (!parse_number(optarg, 0, 65535, &o->port))
                return usage_error("--port is 0 to 65535, not '%s'", optarg);
            break;
        case POLICY: o->policy = optarg; break;
        case KV: o->kv_dtype = optarg; break;
        case PKV: o->prefill_kv_dtype = optarg; break;
        case WIRE: o->wire = optarg; break;
        case BLOCK: o->block_size = optarg; break;
        case PBLOCK: o->prefill_block_size = optarg; break;
        case SET:
            if (!valid_set(optarg))
                return usage_error(
                    "--set takes ROLE.KEY=VALUE with ROLE router, prefill or decode, not '%s'",
                    optarg);
            if (o->set_count == SETS_MAX)
                return usage_error("too many --set, '%s' is one too many", optarg);
            o->sets[o->set_count++] = optarg;
            break;
        case STATE: o->state = optarg; break;
        case NO_RESTART: o->restart = false; break;
        case ':': return usage_error("%s needs a value", argv[optind - 1]);
        default: return usage_error("unknown option '%s'", argv[optind - 1]);
        }
    }
    if (optind < argc) return usage_error("unexpected argument '%s'", argv[optind]);
    if (o->prefill_kv_dtype == NULL) o->prefill_kv_dtype = o->kv_dtype;
    if (o->prefill_block_size == NULL) o->prefill_block_size = o->block_size;
    return BT_EXIT_OK;
}

static FILE *open_private(const char *path, bt_err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (out == NULL) BT_FAIL(err, BT_ERR_OS, "%s: %s", path, strerror(errno));
    return out;
}

static bt_status write_keys(const bt_fleet *fleet, key_pair *keys, bt_err *err)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/keys", fleet->dir);
    FILE *list = open_private(path, err);
    if (list == NULL) return BT_ERR_OS;
    for (uint32_t i = 0; i < fleet->member_count; i++) {
        const bt_fleet_member *member = &fleet->members[i];
        if (zmq_curve_keypair(keys[i].public_key, keys[i].secret_key) != 0) {
            fclose(list);
            return BT_FAIL(err, BT_ERR_OS, "CURVE keys: %s", zmq_strerror(zmq_errno()));
        }
        fprintf(list, "%s %s %s\n", keys[i].public_key, member->role, member->name);
        snprintf(path, sizeof(path), "%s/%s.key", fleet->dir, member->name);
        FILE *secret = open_private(path, err);
        if (secret == NULL) {
            fclose(list);
            return BT_ERR_OS;
        }
        fprintf(secret, "public=%s\nsecret=%s\n", keys[i].public_key, keys[i].secret_key);
        fclose(secret);
    }
    fclose(list);
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
    for (unsigned i = 0; i < o->set_count; i++) {
        if (strncmp(o->sets[i], prefix, (size_t)length) == 0) return true;
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
    char port[32], keys_file[300], key_file[340];
    snprintf(port, sizeof(port), "127.0.0.1:%u", o->port);
    snprintf(keys_file, sizeof(keys_file), "%s/keys", fleet->dir);
    snprintf(key_file, sizeof(key_file), "%s/%s.key", fleet->dir, member->name);
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
    for (unsigned s = 0; s < o->set_count; s++) {
        if (strncmp(o->sets[s], member->role, role_length) == 0 && o->sets[s][role_length] == '.')
            fprintf(out, "%s\n", o->sets[s] + role_length + 1);
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
