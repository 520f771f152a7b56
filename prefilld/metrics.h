/* metrics.h - the prefill daemon's series, filled from its core's stats. */
#ifndef BT_PREFILLD_METRICS_H
#define BT_PREFILLD_METRICS_H

#include "common/daemon/kv_metrics.h"
#include "prefilld/core.h"

typedef struct {
    bt_kv_metrics kv;
    bt_gauge *running, *waiting;
    bt_counter *requests, *refused, *prefill_tokens, *cached_tokens, *probe_tokens, *frames,
        *frame_bytes, *stale, *pinned, *tickets_dropped, *leases_ended, *foreign_messages;
} bt_prefill_metrics;

void bt_prefill_metrics_open(bt_prefill_metrics *metrics, bt_metrics *registry,
                             const bt_kv_shape *kv);
void bt_prefill_metrics_update(bt_prefill_metrics *metrics, const bt_prefill_stats *stats);

#endif
