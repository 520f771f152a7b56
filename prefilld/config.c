#include "prefilld/config.h"

#include "prefilld/core.h"

#define FIELD(field) BT_CONFIG_FIELD(bt_prefilld_config, field)

/* clang-format off */
static const bt_config_key keys[] = {
    BT_WORKER_KEYS("prefill"),
    {"prefill", "wire", BT_CONFIG_ENUM, FIELD(wire), .default_text = "auto", .choices = bt_wire_dtype_choices,
     .doc = "KV on the wire; auto: what the decode daemon stores; raw: what our own pool stores."},
    {"prefill", "requests", BT_CONFIG_U32, FIELD(requests_max), .default_text = "128", .min = 1, .max = 4096,
     .doc = "Requests accepted at once, those that wait for their Accepted included."},
    {"prefill", "staging_count", BT_CONFIG_U32, FIELD(staging_count), .default_text = "16", .min = 1, .max = BT_PREFILL_STAGING_MAX,
     .doc = "Frames that may be packed or on their way at once."},
    {"prefill", "staging_bytes", BT_CONFIG_BYTES, FIELD(staging_bytes), .default_text = "1MiB", .min = 16384,
     .max = 1u << 30, .doc = "Largest frame that is packed; a decode daemon's cells bound it too."},
    {"prefill", "pin_lease", BT_CONFIG_DURATION, FIELD(pin_lease_ns), .default_text = "30s", .min = 1000000000,
     .max = 3600000000000, .doc = "KV that nobody has accepted is held for so long after its computation."},
};
/* clang-format on */

static bt_status check(const void *config, bt_err *err)
{
    return bt_worker_options_check(&((const bt_prefilld_config *)config)->worker, err);
}

static const bt_config_table table = {.keys = keys,
                                      .key_count = sizeof(keys) / sizeof(keys[0]),
                                      .struct_bytes = sizeof(bt_prefilld_config),
                                      .check = check};

const bt_daemon_spec bt_prefilld_spec = {
    .name = "baton-prefilld",
    .summary = "Computes the KV cache of prompts and pushes it to decode daemons.",
    .table = &table,
};
