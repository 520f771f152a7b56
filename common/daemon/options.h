/* options.h - the configuration keys that prefill and decode daemons share, as rows for their tables.
 *
 * A daemon's own struct begins with a bt_worker_options; its table begins with BT_WORKER_KEYS(section). One section
 * for each role, named as the role, so that ROLE.KEY names a key everywhere. */
#ifndef BT_COMMON_DAEMON_OPTIONS_H
#define BT_COMMON_DAEMON_OPTIONS_H

#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/config/config.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    char name[BT_NAME_BYTES_MAX];
    char model[BT_CONFIG_PATH_BYTES_MAX];
    char model_name[BT_NAME_BYTES_MAX];
    char router[128];
    char router_key[48];
    char key_file[BT_CONFIG_PATH_BYTES_MAX];
    char keys_file[BT_CONFIG_PATH_BYTES_MAX];
    char metrics_listen[64];
    char transports[64];
    char net_devices[64];
    char trace_file[BT_CONFIG_PATH_BYTES_MAX];
    uint32_t kv_dtype; /* index into bt_kv_dtype_choices */
    uint32_t compute;  /* bt_compute */
    uint32_t block_size;
    uint32_t pool_tokens;
    uint32_t context_tokens;
    uint32_t threads;
    uint32_t batch_tokens, batch_seqs;
    uint32_t log_level;
    uint64_t heartbeat_ns, router_timeout_ns, drain_ns;
    bool allow_tcp;
} bt_worker_options;

extern const char *const bt_kv_dtype_choices[];   /* auto, f32, bf16, fp8, int8 */
extern const char *const bt_compute_choices[];    /* in the order of bt_compute */
extern const char *const bt_wire_dtype_choices[]; /* auto, raw, f32, bf16, fp8, int8 */

#define BT_WORKER_FIELD(field) BT_CONFIG_FIELD(bt_worker_options, field)

/* clang-format off */
#define BT_WORKER_KEYS(section)                                                                                        \
    {section, "name", BT_CONFIG_STRING, BT_WORKER_FIELD(name), .default_text = section,                                \
     .doc = "Name of this daemon in logs, in the keys file and in `baton ps`."},                                       \
    {section, "model", BT_CONFIG_PATH, BT_WORKER_FIELD(model), .doc = "Hugging Face checkpoint folder."},              \
    {section, "model_name", BT_CONFIG_STRING, BT_WORKER_FIELD(model_name), .default_text = "",                         \
     .doc = "Name of the model in the API; empty: the folder's."},                                                     \
    {section, "router", BT_CONFIG_STRING, BT_WORKER_FIELD(router),                                                     \
     .doc = "ZeroMQ endpoint of the router, tcp://ADDRESS:PORT."},                                                     \
    {section, "router_key", BT_CONFIG_STRING, BT_WORKER_FIELD(router_key), .default_text = "",                         \
     .doc = "CURVE public key of the router (Z85); may be empty on loopback only."},                                   \
    {section, "key_file", BT_CONFIG_SECRET, BT_WORKER_FIELD(key_file), .default_text = "",                             \
     .doc = "Our own CURVE key pair, as `baton keygen` prints it."},                                                   \
    {section, "keys_file", BT_CONFIG_PATH, BT_WORKER_FIELD(keys_file), .default_text = "",                             \
     .doc = "Who may talk to us: lines of public key, role, name."},                                                   \
    {section, "metrics_listen", BT_CONFIG_STRING, BT_WORKER_FIELD(metrics_listen), .default_text = "127.0.0.1:0",      \
     .doc = "Address of /metrics and /health; port 0: any free one."},                                                 \
    {section, "transports", BT_CONFIG_STRING, BT_WORKER_FIELD(transports), .default_text = "posix,cma,tcp",            \
     .doc = "UCX transports that may be used."},                                                                       \
    {section, "net_devices", BT_CONFIG_STRING, BT_WORKER_FIELD(net_devices), .default_text = "",                       \
     .doc = "UCX network devices; empty: UCX chooses."},                                                               \
    {section, "allow_tcp", BT_CONFIG_BOOL, BT_WORKER_FIELD(allow_tcp), .default_text = "no",                           \
     .doc = "Pair even if only TCP connects the two."},                                                                \
    {section, "trace_file", BT_CONFIG_PATH, BT_WORKER_FIELD(trace_file), .default_text = "",                           \
     .doc = "Append the moments of each handoff to this file (JSON lines); empty: do not."},                           \
    {section, "kv_dtype", BT_CONFIG_ENUM, BT_WORKER_FIELD(kv_dtype), .default_text = "auto",                           \
     .choices = bt_kv_dtype_choices, .doc = "What the KV pool stores; auto: f32 for F32 weights, else bf16."},         \
    {section, "compute", BT_CONFIG_ENUM, BT_WORKER_FIELD(compute), .default_text = "f32",                               \
     .choices = bt_compute_choices,                                                                                    \
     .doc = "What matrix products are computed in: f32 (weights as the checkpoint has them), bf16, int8."},            \
    {section, "block_size", BT_CONFIG_U32, BT_WORKER_FIELD(block_size), .default_text = "16", .min = 16, .max = 64,    \
     .doc = "Tokens of a KV block: 16, 32 or 64."},                                                                    \
    {section, "pool_tokens", BT_CONFIG_U32, BT_WORKER_FIELD(pool_tokens), .default_text = "32768", .min = 256,         \
     .max = 1u << 28, .doc = "Tokens that the KV pool holds."},                                                        \
    {section, "context_tokens", BT_CONFIG_U32, BT_WORKER_FIELD(context_tokens), .default_text = "0",                   \
     .max = BT_CONTEXT_TOKENS_MAX, .doc = "Longest sequence; 0: as long as the model allows."},                        \
    {section, "threads", BT_CONFIG_U32, BT_WORKER_FIELD(threads), .default_text = "0", .max = 1024,                    \
     .doc = "Threads of the CPU engine; 0: one for each core."},                                                       \
    {section, "batch_tokens", BT_CONFIG_U32, BT_WORKER_FIELD(batch_tokens), .default_text = "512", .min = 64,          \
     .max = 65536, .doc = "Most tokens of one engine step."},                                                          \
    {section, "batch_seqs", BT_CONFIG_U32, BT_WORKER_FIELD(batch_seqs), .default_text = "64", .min = 1, .max = 1024,   \
     .doc = "Most sequences of one engine step."},                                                                     \
    {section, "log_level", BT_CONFIG_ENUM, BT_WORKER_FIELD(log_level), .default_text = "info",                         \
     .choices = bt_log_level_names, .reloadable = true, .doc = "Least important lines that are logged."},              \
    {section, "heartbeat", BT_CONFIG_DURATION, BT_WORKER_FIELD(heartbeat_ns), .default_text = "250ms",                 \
     .min = 10000000, .max = 60000000000, .doc = "Period of our heartbeat to the router."},                            \
    {section, "router_timeout", BT_CONFIG_DURATION, BT_WORKER_FIELD(router_timeout_ns), .default_text = "10s",         \
     .min = 100000000, .max = 3600000000000,                                                                           \
     .doc = "Heartbeats of the router missing for so long: drop all work it gave."},                                   \
    {section, "drain_timeout", BT_CONFIG_DURATION, BT_WORKER_FIELD(drain_ns), .default_text = "2s",                    \
     .max = 3600000000000, .doc = "On SIGTERM, time for the work in flight to end."}
/* clang-format on */

/* What no single key can tell. */
bt_status bt_worker_options_check(const bt_worker_options *options, bt_err *err);

#endif
