/* config.h - the prefill daemon's options. */
#ifndef BT_PREFILLD_CONFIG_H
#define BT_PREFILLD_CONFIG_H

#include "common/config/daemon_args.h"
#include "common/daemon/options.h"

typedef struct {
    bt_worker_options worker; /* first: see common/daemon/options.h */
    uint32_t wire;            /* index into bt_wire_dtype_choices */
    uint32_t requests_max;
    uint32_t staging_count;
    uint64_t staging_bytes;
    uint64_t pin_lease_ns;
} bt_prefilld_config;

extern const bt_daemon_spec bt_prefilld_spec;

#endif
