/* metrics.h - the decode daemon's series, filled from its core's stats. */
#ifndef BT_DECODED_METRICS_H
#define BT_DECODED_METRICS_H

#include "common/daemon/kv_metrics.h"
#include "decoded/core.h"

typedef struct {
    bt_kv_metrics kv;
    bt_gauge *slots[3]; /* free, held, quarantined */
    bt_gauge *running, *waiting;
    bt_counter *requests, *refused, *tokens, *steps, *prefill_tokens, *local_requests,
        *probe_tokens, *cached_tokens, *frames, *frames_bad, *stale, *quarantines, *evicted,
        *leases_ended, *foreign_messages;
} bt_decode_metrics;

void bt_decode_metrics_open(bt_decode_metrics *metrics, bt_metrics *registry, const bt_kv_shape *kv,
                            uint64_t arena_bytes);
void bt_decode_metrics_update(bt_decode_metrics *metrics, const bt_decode_stats *stats);

#endif
