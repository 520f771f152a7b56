#include "prefilld/metrics.h"

void bt_prefill_metrics_open(bt_prefill_metrics *metrics, bt_metrics *registry,
                             const bt_kv_shape *kv)
{
    static const char *const states[] = {"free", "cached", "held", "quarantined"};
    for (uint32_t i = 0; i < 4; i++) {
        const bt_label labels[] = {{"role", "prefill"}, {"state", states[i]}};
        metrics->blocks[i] = bt_metrics_gauge(registry, "baton_kv_blocks",
                                              "KV blocks by state, recounted.", labels, 2);
    }
    bt_gauge_set(bt_metrics_gauge(registry, "baton_kv_bytes_per_token",
                                  "KV bytes of one token in the pool.", NULL, 0),
                 (double)bt_kv_token_bytes(kv));
    bt_gauge_set(bt_metrics_gauge(registry, "baton_kv_pool_tokens",
                                  "Tokens that the KV pool holds.", NULL, 0),
                 (double)kv->pool_blocks * kv->block_tokens);
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
    bt_gauge_set(metrics->blocks[0], stats->blocks_free);
    bt_gauge_set(metrics->blocks[1], stats->blocks_cached);
    bt_gauge_set(metrics->blocks[2], stats->blocks_held);
    bt_gauge_set(metrics->blocks[3], stats->blocks_quarantined);
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
