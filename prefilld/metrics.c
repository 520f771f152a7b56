#include "prefilld/metrics.h"

void bt_prefill_metrics_open(bt_prefill_metrics *metrics, bt_metrics *registry,
                             const bt_kv_shape *kv)
{
    bt_kv_metrics_open(&metrics->kv, registry, "prefill", kv);
    metrics->running =
        bt_metrics_gauge(registry, "baton_requests_running", "Requests being computed.", NULL, 0);
    metrics->waiting = bt_metrics_gauge(registry, "baton_requests_waiting",
                                        "Requests accepted and not computing.", NULL, 0);
#define COUNTER(field, name, help)                                                                 \
    metrics->field = bt_metrics_counter(registry, "baton_" name "_total", help, NULL, 0)
    COUNTER(requests, "requests", "Prefills taken.");
    COUNTER(refused, "refused", "Prefills refused.");
    COUNTER(prefill_tokens, "prefill_tokens", "Prompt tokens computed for requests.");
    COUNTER(cached_tokens, "cached_tokens", "Prompt tokens found in the prefix cache.");
    COUNTER(probe_tokens, "probe_tokens", "Tokens computed for pairing probes.");
    COUNTER(frames, "frames", "KV frames put.");
    COUNTER(frame_bytes, "frame_bytes", "Bytes of KV frames put.");
    COUNTER(stale, "stale_messages", "Messages whose fence was not current.");
    COUNTER(pinned, "pinned", "Requests prefilled before their ticket came.");
    COUNTER(tickets_dropped, "tickets_dropped",
            "Tickets dropped: cancelled, refused or superseded.");
    COUNTER(leases_ended, "leases_ended", "Leases that ended without renewal.");
    COUNTER(foreign_messages, "foreign_messages",
            "UCX messages from nobody we are paired with, or with a wrong MAC.");
#undef COUNTER
}

void bt_prefill_metrics_update(bt_prefill_metrics *metrics, const bt_prefill_stats *stats)
{
    const uint32_t blocks[BT_KV_BLOCK_STATES] = {stats->blocks_free, stats->blocks_cached,
                                                 stats->blocks_held, stats->blocks_quarantined};
    bt_kv_metrics_update(&metrics->kv, blocks);
    bt_gauge_set(metrics->running, stats->running);
    bt_gauge_set(metrics->waiting, stats->waiting);
    bt_counter_set(metrics->requests, stats->requests_total);
    bt_counter_set(metrics->refused, stats->refused_total);
    bt_counter_set(metrics->prefill_tokens, stats->prefill_tokens_total);
    bt_counter_set(metrics->cached_tokens, stats->cached_tokens_total);
    bt_counter_set(metrics->probe_tokens, stats->probe_tokens_total);
    bt_counter_set(metrics->frames, stats->frames_total);
    bt_counter_set(metrics->frame_bytes, stats->frame_bytes_total);
    bt_counter_set(metrics->stale, stats->stale_total);
    bt_counter_set(metrics->pinned, stats->pinned_total);
    bt_counter_set(metrics->tickets_dropped, stats->tickets_dropped_total);
    bt_counter_set(metrics->leases_ended, stats->leases_ended_total);
}
