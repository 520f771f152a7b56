/* config.h - the router's options. */
#ifndef BT_ROUTER_CONFIG_H
#define BT_ROUTER_CONFIG_H

#include "common/base/limits.h"
#include "common/config/daemon_args.h"

typedef struct {
    char name[BT_NAME_BYTES_MAX];
    char model[BT_CONFIG_PATH_BYTES_MAX];
    char model_name[BT_NAME_BYTES_MAX];
    char chat_template[BT_CONFIG_PATH_BYTES_MAX];
    char http_listen[64];
    char control_listen[128];
    char key_file[BT_CONFIG_PATH_BYTES_MAX];
    char keys_file[BT_CONFIG_PATH_BYTES_MAX];
    uint32_t policy; /* index into bt_router_policies */
    uint32_t requests_max, attempts_max, choices_max;
    uint32_t context_tokens, chat_tokens;
    uint32_t prefix_entries, affinity_tokens, local_prefill_max;
    bool local_when_no_prefill;
    uint32_t connections_max;
    uint32_t log_level;
    uint64_t body_bytes_max, streams_bytes_max;
    uint64_t progress_ns, heartbeat_ns, daemon_timeout_ns, renew_ns, retry_wait_ns, drain_ns;
} bt_router_options;

extern const bt_daemon_spec bt_router_spec;

#endif
