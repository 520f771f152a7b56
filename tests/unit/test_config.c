/* common/config: the syntax, the types, where values come from, and what errors say. */
#include "common/base/clock.h"
#include "common/config/config.h"
#include "common/config/daemon_args.h"
#include "common/config/ini.h"
#include "tests/aborts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

typedef struct {
    char name[16];
    char model[64];
    char key_file[64];
    uint32_t port;
    uint64_t seed;
    uint64_t pool_bytes;
    uint64_t lease_ns;
    double share;
    bool deterministic;
    uint32_t dtype;
    bt_config_list wires;
} test_config;

static const char *const dtypes[] = {"f32", "bf16", "fp8", NULL};

static const bt_config_key keys[] = {
    {"daemon", "name", BT_CONFIG_STRING, BT_CONFIG_FIELD(test_config, name), .default_text = "d0",
     .doc = "Name."},
    {"daemon", "model", BT_CONFIG_PATH, BT_CONFIG_FIELD(test_config, model), .doc = "Model."},
    {"daemon", "key_file", BT_CONFIG_SECRET, BT_CONFIG_FIELD(test_config, key_file),
     .default_text = "", .doc = "Key."},
    {"listen", "port", BT_CONFIG_U32, BT_CONFIG_FIELD(test_config, port), .default_text = "8000",
     .max = 65535, .doc = "Port."},
    {"daemon", "seed", BT_CONFIG_U64, BT_CONFIG_FIELD(test_config, seed), .default_text = "0",
     .doc = "Seed."},
    {"kv", "pool", BT_CONFIG_BYTES, BT_CONFIG_FIELD(test_config, pool_bytes),
     .default_text = "64MiB", .min = 1 << 20, .max = 1ull << 40, .doc = "Pool."},
    {"kv", "lease", BT_CONFIG_DURATION, BT_CONFIG_FIELD(test_config, lease_ns),
     .default_text = "10s", .min = BT_NS_PER_MS, .reloadable = true, .doc = "Lease."},
    {"kv", "share", BT_CONFIG_DOUBLE, BT_CONFIG_FIELD(test_config, share), .default_text = "0.1",
     .min_double = 0, .max_double = 1, .reloadable = true, .doc = "Share."},
    {"kv", "deterministic", BT_CONFIG_BOOL, BT_CONFIG_FIELD(test_config, deterministic),
     .default_text = "yes", .doc = "Deterministic."},
    {"kv", "dtype", BT_CONFIG_ENUM, BT_CONFIG_FIELD(test_config, dtype), .default_text = "bf16",
     .choices = dtypes, .doc = "Dtype."},
    {"kv", "wires", BT_CONFIG_LIST, BT_CONFIG_FIELD(test_config, wires),
     .default_text = "fp8, bf16", .choices = dtypes, .doc = "Wires."},
};

static bt_status check_relations(const void *config, bt_err *err)
{
    const test_config *c = config;
    if (c->seed == 13) return BT_FAIL(err, BT_ERR_ARGUMENT, "daemon.seed 13 needs a daemon.name");
    return BT_OK;
}

static const bt_config_table table = {
    .keys = keys,
    .key_count = sizeof(keys) / sizeof(keys[0]),
    .struct_bytes = sizeof(test_config),
    .check = check_relations,
};

static const bt_config_source no_source = {.credentials_dir = "/run/credentials/d0"};

static bt_status load(const char *text, test_config *ret_config, bt_err *err)
{
    return bt_config_load_text(&table, &no_source, "d.conf", text, strlen(text), ret_config, err);
}

static void assert_error(const char *text, const char *message)
{
    test_config config;
    memset(&config, 0x55, sizeof(config));
    test_config before = config;
    bt_err err = {0};
    if (load(text, &config, &err) == BT_OK) fail_msg("taken: %s", text);
    assert_string_equal(err.message, message);
    assert_memory_equal(&config, &before, sizeof(config)); /* untouched */
}

static void test_defaults(void **state)
{
    (void)state;
    test_config c;
    assert_int_equal(load("[daemon]\nmodel=/m", &c, NULL), BT_OK);
    assert_string_equal(c.name, "d0");
    assert_string_equal(c.model, "/m");
    assert_string_equal(c.key_file, "");
    assert_int_equal(c.port, 8000);
    assert_int_equal(c.pool_bytes, 64 << 20);
    assert_true(c.lease_ns == 10 * BT_NS_PER_S);
    assert_true(c.share == 0.1 && c.deterministic);
    assert_int_equal(c.dtype, 1);
    assert_int_equal(c.wires.count, 2);
    assert_int_equal(c.wires.index[0], 2);
    assert_int_equal(c.wires.index[1], 1);
}

static void test_syntax(void **state)
{
    (void)state;
    test_config c;
    bt_err err = {0};
    bt_status status = load("# comment\n"
                            "  ; comment too\n"
                            "\n"
                            "\t[daemon]  \n"
                            "  name =  a b = \"c\" # d \t\n"
                            "model=/m\xc3\xa9\n"
                            "[listen]\n"
                            "port=0\n"
                            "[daemon]\n"
                            "seed=18446744073709551615",
                            &c, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(status, BT_OK);
    assert_string_equal(c.name, "a b = \"c\" # d");
    assert_string_equal(c.model, "/m\xc3\xa9");
    assert_int_equal(c.port, 0);
    assert_true(c.seed == UINT64_MAX);
}

static void test_errors_name_file_and_line(void **state)
{
    (void)state;
    assert_error("", "d.conf: 'model' in [daemon] is required");
    assert_error("[daemon]\nmodle=/m", "d.conf:2: unknown key 'modle' in [daemon]");
    assert_error("\n[deamon]\nmodel=/m", "d.conf:3: unknown section [deamon]");
    assert_error("model=/m", "d.conf:1: 'model' stands before any [section]");
    assert_error("[daemon]\nmodel=/m\n\nmodel=/n", "d.conf:4: 'model' is already set in line 2");
    assert_error("[daemon\nmodel=/m", "d.conf:1: the section has no closing ]");
    assert_error("[]\n", "d.conf:1: a section is named with a-z, 0-9, _ and -");
    assert_error("[Daemon]\n", "d.conf:1: a section is named with a-z, 0-9, _ and -");
    assert_error("[daemon]\nmodel", "d.conf:2: neither [section] nor key=value");
    assert_error("[daemon]\n=x", "d.conf:2: a key is named with a-z, 0-9, _ and -");
    assert_error("[daemon]\nmodel=/m\\\n", "d.conf:2: lines do not continue with a backslash");
    assert_error("[daemon]\nmodel=/m\\ \t\n", "d.conf:2: lines do not continue with a backslash");
    assert_error("[daemon]\r\n", "d.conf:1: control character 0x0d in column 9");
    assert_error("[daemon]\nname=\xff\n", "d.conf:2: the line is not UTF-8");
    assert_error("[daemon]\nseed=13\nmodel=/m", "d.conf: daemon.seed 13 needs a daemon.name");
}

static void test_errors_name_the_value(void **state)
{
    (void)state;
    assert_error("[listen]\nport=65536", "d.conf:2: listen.port: '65536' is not from 0 to 65535");
    assert_error("[kv]\npool=64MB",
                 "d.conf:2: kv.pool: '64MB' is not a size like 4096, 64KiB, 16MiB or 2GiB");
    assert_error("[kv]\npool=1KiB", "d.conf:2: kv.pool: '1KiB' is not from 1MiB to 1TiB");
    assert_error("[kv]\nlease=10",
                 "d.conf:2: kv.lease: '10' is not a duration like 500us, 20ms, 10s, 5min or 1h");
    assert_error("[kv]\nshare=1.5", "d.conf:2: kv.share: '1.5' is not from 0 to 1");
    assert_error("[kv]\ndeterministic=maybe",
                 "d.conf:2: kv.deterministic: 'maybe' is not true or false");
    assert_error("[kv]\ndtype=fp4", "d.conf:2: kv.dtype: 'fp4' is none of f32, bf16, fp8");
    assert_error("[kv]\nwires=fp8,int4", "d.conf:2: kv.wires: 'int4' is none of f32, bf16, fp8");
    assert_error("[kv]\nwires=fp8 fp8", "d.conf:2: kv.wires: 'fp8' is listed twice");
    assert_error("[kv]\nwires=", "d.conf:2: kv.wires: the list is empty");
    assert_error("[daemon]\nname=sixteen letters.",
                 "d.conf:2: daemon.name: the value is longer than 15 bytes");
}

static void test_bounds(void **state)
{
    (void)state;
    size_t bytes = BT_CONFIG_FILE_BYTES_MAX;
    char *text = malloc(bytes + 2);
    assert_non_null(text);
    memset(text, '\n', bytes + 1);
    text[bytes + 1] = '\0';
    bt_err err;
    test_config c;
    assert_int_equal(load(text, &c, &err), BT_ERR_LIMIT);
    text[bytes] = '\0';
    assert_int_equal(load(text, &c, &err), BT_ERR_ARGUMENT); /* read; model is missing */
    memset(text, '#', BT_INI_LINE_BYTES_MAX + 1);
    assert_int_equal(load(text, &c, &err), BT_ERR_FORMAT);
    assert_string_equal(err.message, "d.conf:1: the line is longer than 4096 bytes");
    text[BT_INI_LINE_BYTES_MAX] = '\n';
    assert_int_equal(load(text, &c, &err), BT_ERR_ARGUMENT);
    text[5] = '\0';
    assert_int_equal(bt_config_load_text(&table, &no_source, "d.conf", text, 20, &c, &err),
                     BT_ERR_FORMAT); /* a NUL does not hide what follows */
    free(text);
}

static void test_credentials(void **state)
{
    (void)state;
    test_config c;
    assert_int_equal(load("[daemon]\nmodel=/m\nkey_file=${CREDENTIALS_DIRECTORY}/key\n"
                          "name=${x}",
                          &c, NULL),
                     BT_OK);
    assert_string_equal(c.key_file, "/run/credentials/d0/key");
    assert_string_equal(c.name, "${x}"); /* a STRING is never substituted */
    assert_error("[daemon]\nmodel=${HOME}/m",
                 "d.conf:2: daemon.model: only ${CREDENTIALS_DIRECTORY} at the start is "
                 "substituted");
    bt_config_source outside = {0};
    bt_err err;
    const char *text = "[daemon]\nmodel=${CREDENTIALS_DIRECTORY}/m";
    assert_int_equal(bt_config_load_text(&table, &outside, "d.conf", text, strlen(text), &c, &err),
                     BT_ERR_ARGUMENT);
}

/* ---- files ---- */

static char folder[] = "/tmp/baton-test-config-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

/* The path of a file in the folder; valid until the next but one call. */
static const char *in_folder(const char *name)
{
    static char paths[2][128];
    static unsigned turn;
    turn ^= 1;
    snprintf(paths[turn], sizeof(paths[turn]), "%s/%s", folder, name);
    return paths[turn];
}

static void write_file(const char *name, const char *text, mode_t mode)
{
    FILE *out = fopen(in_folder(name), "w");
    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(chmod(in_folder(name), mode), 0);
}

static void test_dropins_and_sets(void **state)
{
    (void)state;
    write_file("d.conf", "[daemon]\nmodel=/m\nname=file\nseed=1\n[listen]\nport=1\n", 0644);
    assert_int_equal(mkdir(in_folder("d.conf.d"), 0755), 0);
    write_file("d.conf.d/20-b.conf", "[daemon]\nname=twenty\n", 0644);
    write_file("d.conf.d/10-a.conf", "[daemon]\nname=ten\nseed=10\n", 0644);
    write_file("d.conf.d/30-c.conf.bak", "[nonsense]\n", 0644);
    write_file("d.conf.d/.40-d.conf", "[nonsense]\n", 0644);
    static const char *const sets[] = {"listen.port= 99", "kv.dtype=f32", "kv.dtype=fp8"};
    bt_config_source source = {.file = in_folder("d.conf"), .sets = sets, .set_count = 3};
    test_config c;
    bt_err err = {0};
    bt_status status = bt_config_load(&table, &source, &c, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(status, BT_OK);
    assert_string_equal(c.name, "twenty");
    assert_int_equal(c.seed, 10);
    assert_int_equal(c.port, 99);
    assert_int_equal(c.dtype, 2);

    write_file("d.conf.d/30-bad.conf", "[daemon]\n\nnmae=x\n", 0644);
    source.file = in_folder("d.conf");
    assert_int_equal(bt_config_load(&table, &source, &c, &err), BT_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "d.conf.d/30-bad.conf:3: unknown key 'nmae' in [daemon]"));
    remove(in_folder("d.conf.d/30-bad.conf"));
}

static void test_bad_sets(void **state)
{
    (void)state;
    static const struct {
        const char *set, *message;
    } cases[] = {
        {"port", "--set port: write section.key=value"},
        {"port=1", "--set port: write section.key=value"},
        {"listen.prot=1", "--set listen.prot: unknown key 'prot' in [listen]"},
        {"listen.port=x", "--set listen.port: listen.port: 'x' is not a whole number below 2^64"},
        {"listen.#=x", "--set listen.#: write section.key=value"},
        {"listen.port=1\n[kv]", "--set listen.port: write section.key=value"},
        {"a]\n[kv.pool=1", "--set a]\\n[kv.pool: write section.key=value"},
        {".port=1", "--set .port: a section is named with a-z, 0-9, _ and -"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_config_source source = {.sets = &cases[i].set, .set_count = 1};
        test_config c;
        bt_err err = {0};
        assert_int_not_equal(bt_config_load(&table, &source, &c, &err), BT_OK);
        assert_string_equal(err.message, cases[i].message);
    }
}

static void test_file_errors(void **state)
{
    (void)state;
    test_config c;
    bt_err err;
    bt_config_source source = {.file = in_folder("absent.conf")};
    assert_int_equal(bt_config_load(&table, &source, &c, &err), BT_ERR_OS);
    assert_non_null(strstr(err.message, "absent.conf: No such file"));
    source.file = folder;
    assert_int_equal(bt_config_load(&table, &source, &c, &err), BT_ERR_OS);

    char long_path[400];
    memset(long_path, 'p', sizeof(long_path) - 1);
    long_path[sizeof(long_path) - 1] = '\0';
    source.file = long_path;
    assert_int_equal(bt_config_load(&table, &source, &c, &err), BT_ERR_OS);
    assert_non_null(strstr(err.message, "ppp: File name too long")); /* the reason is not cut off */
}

static void test_secrets(void **state)
{
    (void)state;
    char secret[16];
    bt_err err;
    write_file("secret", "hush\n", 0600);
    assert_int_equal(bt_config_read_secret(in_folder("secret"), secret, sizeof(secret), NULL),
                     BT_OK);
    assert_string_equal(secret, "hush");
    write_file("open", "hush", 0604);
    assert_int_equal(bt_config_read_secret(in_folder("open"), secret, sizeof(secret), &err),
                     BT_ERR_ARGUMENT);
    assert_null(strstr(err.message, "hush"));
    assert_int_equal(secret[0], 0);
    write_file("empty", "\n", 0600);
    assert_int_equal(bt_config_read_secret(in_folder("empty"), secret, sizeof(secret), NULL),
                     BT_ERR_ARGUMENT);
    write_file("long", "0123456789abcdef", 0600);
    assert_int_equal(bt_config_read_secret(in_folder("long"), secret, sizeof(secret), NULL),
                     BT_ERR_LIMIT);
    assert_int_equal(bt_config_read_secret(in_folder("absent"), secret, sizeof(secret), NULL),
                     BT_ERR_OS);
}

/* ---- dump and reload ---- */

static char printed[16 * 1024];

static FILE *print_begin(void)
{
    FILE *out = fmemopen(printed, sizeof(printed), "w");
    assert_non_null(out);
    return out;
}

/* What was printed; valid until the next print_begin. */
static const char *print_end(FILE *out)
{
    assert_false(ferror(out));
    fclose(out);
    return printed;
}

static const char *dump(const void *config)
{
    FILE *out = print_begin();
    bt_config_dump(&table, config, out);
    return print_end(out);
}

static void test_markdown_reference(void **state)
{
    (void)state;
    const bt_config_key few[] = {
        {"b", "share", BT_CONFIG_DOUBLE, BT_CONFIG_FIELD(test_config, share), .default_text = "0.5",
         .max_double = 1, .reloadable = true, .doc = "a|b."},
        {"a", "model", BT_CONFIG_PATH, BT_CONFIG_FIELD(test_config, model), .doc = "Model."},
        {"b", "name", BT_CONFIG_STRING, BT_CONFIG_FIELD(test_config, name), .default_text = "",
         .doc = "Name."},
    };
    const bt_config_table some = {few, 3, sizeof(test_config), NULL};
    FILE *out = print_begin();
    bt_config_reference(&some, out);
    assert_string_equal(
        print_end(out),
        "\n## [b]\n| key | value | default | meaning |\n|---|---|---|---|\n"
        "| `share` | decimal number, 0 to 1 | `0.5` | a\\|b. Taken over on reload. |\n"
        "| `name` | text | empty | Name. |\n"
        "\n## [a]\n| key | value | default | meaning |\n|---|---|---|---|\n"
        "| `model` | path | required | Model. |\n");
}

static void test_dump_is_read_back(void **state)
{
    (void)state;
    test_config c, again;
    assert_int_equal(load("[daemon]\nmodel=/m\nname=x\nseed=9\n[kv]\npool=3MiB\nlease=1500ms\n"
                          "share=0.123456789012345678\ndeterministic=off\ndtype=f32\n"
                          "wires=f32,fp8\n",
                          &c, NULL),
                     BT_OK);
    const char *text = dump(&c);
    assert_non_null(strstr(text, "lease=1500ms\n"));
    assert_non_null(strstr(text, "wires=f32, fp8\n"));
    bt_err err = {0};
    bt_status status = load(text, &again, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(status, BT_OK);
    assert_memory_equal(&c, &again, sizeof(c));
}

static void test_reference(void **state)
{
    (void)state;
    const char *text = dump(NULL);
    assert_non_null(strstr(text, "# Model.\n# (path; required)\n#model=\n"));
    assert_non_null(strstr(text, "# Port.\n# (number, 0 to 65535; default: 8000)\nport=8000\n"));
    assert_non_null(
        strstr(text, "# (duration, 1ms or more; default: 10s; taken over on reload)\nlease=10s\n"));
    assert_non_null(strstr(text, "# (decimal number, 0 to 1; default: 0.1; taken"));
    /* [daemon] stands once, with all its keys, although the table has another between them. */
    assert_null(strstr(strstr(text, "[daemon]") + 1, "[daemon]"));
}

static void test_reload(void **state)
{
    (void)state;
    test_config present, next;
    assert_int_equal(load("[daemon]\nmodel=/m", &present, NULL), BT_OK);
    assert_int_equal(load("[daemon]\nmodel=/m\n[kv]\nlease=1s\nshare=1", &next, NULL), BT_OK);
    assert_int_equal(bt_config_check_reload(&table, &present, &next, NULL), BT_OK);
    assert_int_equal(load("[daemon]\nmodel=/other", &next, NULL), BT_OK);
    bt_err err;
    assert_int_equal(bt_config_check_reload(&table, &present, &next, &err), BT_ERR_ARGUMENT);
    assert_string_equal(err.message, "'model' in [daemon] changes at a restart only");
}

static void load_bad_default(void *ctx)
{
    (void)ctx;
    static const bt_config_key bad = {"a",
                                      "b",
                                      BT_CONFIG_U32,
                                      BT_CONFIG_FIELD(test_config, port),
                                      .default_text = "9",
                                      .max = 8,
                                      .doc = "Bad."};
    bt_config_table bad_table = {.keys = &bad, .key_count = 1, .struct_bytes = sizeof(test_config)};
    test_config c;
    bt_config_load(&bad_table, &no_source, &c, NULL);
}

static void test_a_bad_default_is_a_bug(void **state)
{
    (void)state;
    assert_true(bt_test_aborts(load_bad_default, NULL));
}

/* ---- command line ---- */

static const bt_daemon_spec spec = {.name = "baton-testd", .summary = "Tests.\n", .table = &table};

#define ARGS_MAX 8
#define RAN 100 /* bt_daemon_args said that the daemon goes on */

/* Exit code of a daemon with this command line (blanks between arguments), and what it printed. */
static int run(const char *line, char *ret_text, size_t capacity)
{
    char copy[256], *argv[ARGS_MAX + 1] = {"baton-testd"};
    snprintf(copy, sizeof(copy), "%s", line);
    int argc = 1;
    for (char *at = strtok(copy, " "); at != NULL && argc < ARGS_MAX; at = strtok(NULL, " "))
        argv[argc++] = at;
    FILE *out = tmpfile();
    assert_non_null(out);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(fileno(out), STDOUT_FILENO);
        dup2(fileno(out), STDERR_FILENO);
        test_config c;
        int code;
        if (!bt_daemon_args(argc, argv, &spec, &c, &code)) _exit(code);
        bt_err err;
        _exit(bt_daemon_reload(argc, argv, &spec, &c, &err) == BT_OK ? RAN : RAN + 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    ssize_t bytes = pread(fileno(out), ret_text, capacity - 1, 0);
    ret_text[bytes > 0 ? bytes : 0] = '\0';
    fclose(out);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_command_line(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int code;
        const char *said;
    } cases[] = {
        {"--help", 0, "usage: baton-testd [--config FILE]"},
        {"--help", 0, "  3  the configuration is wrong"},
        {"--help", 0, "\n[listen]\n\n# Port.\n"},
        {"--version", 0, "baton-testd " BT_VERSION "\n"},
        {"--check-config --set daemon.model=/m", 0, "the configuration is right\n"},
        {"--dump-config --set daemon.model=/m", 0, "\nmodel=/m\n"},
        {"--set daemon.model=/m", RAN, ""},
        {"", 3, "baton-testd: command line: 'model' in [daemon] is required\n"},
        {"--config /nonexistent/x.conf", 3, "/nonexistent/x.conf: No such file"},
        {"--nonsense", 2, "unknown option --nonsense; see baton-testd --help\n"},
        {"--config", 2, "a value is missing after --config"},
        {"--config a --config b", 2, "--config is given twice"},
        {"--check-config extra", 2, "unexpected argument extra"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static char text[16 * 1024];
        int code = run(cases[i].line, text, sizeof(text));
        if (code != cases[i].code || strstr(text, cases[i].said) == NULL)
            fail_msg("'%s': exit %d, said: %s", cases[i].line, code, text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_syntax),
        cmocka_unit_test(test_errors_name_file_and_line),
        cmocka_unit_test(test_errors_name_the_value),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_credentials),
        cmocka_unit_test(test_dropins_and_sets),
        cmocka_unit_test(test_bad_sets),
        cmocka_unit_test(test_file_errors),
        cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_dump_is_read_back),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_markdown_reference),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_a_bad_default_is_a_bug),
        cmocka_unit_test(test_command_line),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
