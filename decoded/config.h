/* config.h - the decode daemon's options. */
#ifndef BT_DECODED_CONFIG_H
#define BT_DECODED_CONFIG_H

#include "common/config/daemon_args.h"
#include "common/daemon/options.h"

typedef struct {
    bt_worker_options worker; /* first: see common/daemon/options.h */
    char pair_listen[128];
    uint32_t seqs_max;
    uint32_t slots, cells;
    uint64_t cell_bytes;
    uint32_t quarantine_max;
    uint32_t reserve_tokens;
    uint32_t local_chunk;
    uint64_t lease_ns;
    bool refuse_prefill;
} bt_decoded_config;

extern const bt_daemon_spec bt_decoded_spec;

#endif
