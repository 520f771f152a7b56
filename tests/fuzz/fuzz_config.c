/* fuzz_config.c - any bytes as a config file, against a table with a key of every type. What is
 * taken must survive being dumped and read again, to the byte. */
#include "common/base/clock.h"
#include "common/config/config.h"

#include <assert.h>
#include <string.h>

typedef struct {
    char name[16];
    char model[64];
    char key_file[64];
    uint32_t port;
    uint32_t dtype;
    uint64_t seed;
    uint64_t pool_bytes;
    uint64_t lease_ns;
    double share;
    bt_config_list wires;
    bool deterministic;
} fuzz_config;

static const char *const dtypes[] = {"f32", "bf16", "fp8", NULL};

static const bt_config_key keys[] = {
    {"daemon", "name", BT_CONFIG_STRING, BT_CONFIG_FIELD(fuzz_config, name), .default_text = "d0",
     .doc = "Name."},
    {"daemon", "model", BT_CONFIG_PATH, BT_CONFIG_FIELD(fuzz_config, model), .doc = "Model."},
    {"daemon", "key_file", BT_CONFIG_SECRET, BT_CONFIG_FIELD(fuzz_config, key_file),
     .default_text = "", .doc = "Key."},
    {"daemon", "seed", BT_CONFIG_U64, BT_CONFIG_FIELD(fuzz_config, seed), .default_text = "0",
     .doc = "Seed."},
    {"listen", "port", BT_CONFIG_U32, BT_CONFIG_FIELD(fuzz_config, port), .default_text = "8000",
     .max = 65535, .doc = "Port."},
    {"kv", "pool", BT_CONFIG_BYTES, BT_CONFIG_FIELD(fuzz_config, pool_bytes),
     .default_text = "64MiB", .doc = "Pool."},
    {"kv", "lease", BT_CONFIG_DURATION, BT_CONFIG_FIELD(fuzz_config, lease_ns),
     .default_text = "10s", .min = BT_NS_PER_MS, .doc = "Lease."},
    {"kv", "share", BT_CONFIG_DOUBLE, BT_CONFIG_FIELD(fuzz_config, share), .default_text = "0.1",
     .doc = "Share."},
    {"kv", "deterministic", BT_CONFIG_BOOL, BT_CONFIG_FIELD(fuzz_config, deterministic),
     .default_text = "yes", .doc = "Deterministic."},
    {"kv", "dtype", BT_CONFIG_ENUM, BT_CONFIG_FIELD(fuzz_config, dtype), .default_text = "bf16",
     .choices = dtypes, .doc = "Dtype."},
    {"kv", "wires", BT_CONFIG_LIST, BT_CONFIG_FIELD(fuzz_config, wires), .default_text = "fp8",
     .choices = dtypes, .doc = "Wires."},
};

static const bt_config_table table = {
    .keys = keys,
    .key_count = sizeof(keys) / sizeof(keys[0]),
    .struct_bytes = sizeof(fuzz_config),
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    bt_config_source source = {.credentials_dir = "/run/credentials"};
    fuzz_config config, again;
    bt_err err;
    bt_status status =
        bt_config_load_text(&table, &source, "fuzz.conf", (const char *)data, bytes, &config, &err);
    if (status != BT_OK) {
        assert(strncmp(err.message, "fuzz.conf:", 10) == 0);
        return 0;
    }
    static char text[16 * 1024];
    FILE *out = fmemopen(text, sizeof(text), "w");
    if (out == NULL) return 0;
    bt_config_dump(&table, &config, out);
    long dumped = ftell(out);
    assert(dumped > 0 && (size_t)dumped < sizeof(text));
    fclose(out);
    status = bt_config_load_text(&table, &source, "dump.conf", text, (size_t)dumped, &again, &err);
    assert(status == BT_OK);
    assert(memcmp(&config, &again, sizeof(config)) == 0);
    return 0;
}
