/* series.h - the router's metrics: what it exports at /metrics, and how each figure comes about.
 *
 * Gauges and totals are read from the core when somebody asks; latencies are observed as they happen.
 * ADD ONE a field here, its registration in open, its update; docs/metrics.md must name it. */
#ifndef BT_ROUTER_SERIES_H
#define BT_ROUTER_SERIES_H

#include "common/base/metrics.h"
#include "router/core.h"

typedef struct {
    bt_metrics *metrics;
    char *text; /* [bt_metrics_text_bytes_max] */
    bt_gauge *in_flight, *pairs_ready, *pairs_refused, *daemons[2];
    bt_counter *accepted, *finished, *cancelled, *failed, *refused, *retries, *tokens, *stale,
        *duplicates, *malformed;
    bt_counter *prompt_tokens;
    bt_counter *decided[BT_DECIDED_COUNT], *predictions, *believed, *cached;
    bt_gauge *prediction_seconds[3], *prefix_entries;
    bt_histogram *ttft, *itl, *e2e;
} bt_router_series;

/* Pairs of daemons that are up. */
typedef struct {
    uint32_t ready, refused;
    char refusal[BT_REASON_BYTES_MAX + 2 * BT_NAME_BYTES_MAX + 8]; /* why, of the last; one line */
} bt_pair_counts;
void bt_router_count_pairs(const bt_router_core *core, bt_pair_counts *ret_counts);

bt_status bt_router_series_open(bt_router_series *series, bt_err *err);
void bt_router_series_close(bt_router_series *series);
/* Brings the figures up to now and writes all series; the text is series->text. */
bt_status bt_router_series_write(bt_router_series *series, const bt_router_core *core,
                                 uint64_t malformed_total, size_t *ret_bytes, bt_err *err);

#endif
