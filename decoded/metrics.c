#include "decoded/metrics.h"

void bt_decode_metrics_open(bt_decode_metrics *metrics, bt_metrics *registry, const bt_kv_shape *kv,
                            uint64_t arena_bytes)
{
    static const char *const slot_states[] = {"free", "held", "quarantined"};
    bt_kv_metrics_open(&metrics->kv, registry, "decode", kv);
    for (uint32_t i = 0; i < 3; i++) {
        const bt_label slots[] = {{"role", "decode"}, {"state", slot_states[i]}};
        metrics->slots[i] =
            bt_metrics_gauge(registry, "baton_landing_slots", "Landing slots by state.", slots, 2);
    }
    bt_gauge_set(
        bt_metrics_gauge(registry, "baton_landing_bytes", "Bytes of the landing arena.", NULL, 0),
        (double)arena_bytes);
    metrics->running =
        bt_metrics_gauge(registry, "baton_requests_running", "Sequences decoding.", NULL, 0);
    metrics->waiting = bt_metrics_gauge(registry, "baton_requests_waiting",
                                        "Grants whose KV has not all come.", NULL, 0);
#define COUNTER(field, name, help)                                                                 \
    metrics->field = bt_metrics_counter(registry, "baton_" name "_total", help, NULL, 0)
    COUNTER(requests, "requests", "Reserves taken.");
    COUNTER(refused, "refused", "Reserves and handoffs refused.");
    COUNTER(tokens, "tokens", "Tokens decoded.");
    COUNTER(steps, "steps", "Decode steps.");
    COUNTER(prefill_tokens, "decode_prefill_tokens",
            "Prompt tokens computed here instead of by a prefill daemon.");
    COUNTER(local_requests, "decode_local_requests", "Reserves whose prompt is computed here.");
    COUNTER(probe_tokens, "probe_tokens", "Tokens computed for pairing probes.");
    COUNTER(cached_tokens, "cached_tokens", "Prompt tokens whose KV was here already.");
    COUNTER(frames, "frames", "KV frames verified and unpacked.");
    COUNTER(frames_bad, "frames_bad", "KV frames refused: digest, shape or place.");
    COUNTER(stale, "stale_messages", "Messages whose fence was not current.");
    COUNTER(quarantines, "quarantines", "Landing slots put into quarantine.");
    COUNTER(evicted, "evicted", "Sequences evicted in mid-decode.");
    COUNTER(leases_ended, "leases_ended", "Leases that ended without renewal.");
    COUNTER(foreign_messages, "foreign_messages",
            "UCX messages from nobody we are paired with, or with a wrong MAC.");
#undef COUNTER
}

void bt_decode_metrics_update(bt_decode_metrics *metrics, const bt_decode_stats *stats)
{
    const uint32_t blocks[BT_KV_BLOCK_STATES] = {stats->blocks_free, stats->blocks_cached,
                                                 stats->blocks_held, stats->blocks_quarantined};
    bt_kv_metrics_update(&metrics->kv, blocks);
    bt_gauge_set(metrics->slots[0], stats->slots_free);
    bt_gauge_set(metrics->slots[1], stats->slots_held);
    bt_gauge_set(metrics->slots[2], stats->slots_quarantined);
    bt_gauge_set(metrics->running, stats->running);
    bt_gauge_set(metrics->waiting, stats->waiting);
    bt_counter_set(metrics->requests, stats->requests_total);
    bt_counter_set(metrics->refused, stats->refused_total);
    bt_counter_set(metrics->tokens, stats->tokens_total);
    bt_counter_set(metrics->steps, stats->steps_total);
    bt_counter_set(metrics->prefill_tokens, stats->local_tokens_total);
    bt_counter_set(metrics->local_requests, stats->local_total);
    bt_counter_set(metrics->probe_tokens, stats->probe_tokens_total);
    bt_counter_set(metrics->cached_tokens, stats->cached_tokens_total);
    bt_counter_set(metrics->frames, stats->frames_total);
    bt_counter_set(metrics->frames_bad, stats->frames_bad_total);
    bt_counter_set(metrics->stale, stats->stale_total);
    bt_counter_set(metrics->quarantines, stats->quarantines_total);
    bt_counter_set(metrics->evicted, stats->evicted_total);
    bt_counter_set(metrics->leases_ended, stats->leases_ended_total);
}
