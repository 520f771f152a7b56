#include "router/series.h"

#include "common/base/parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERIES_MAX 64u

void bt_router_count_pairs(const bt_router_core *core, bt_pair_counts *ret_counts)
{
    *ret_counts = (bt_pair_counts){0};
    for (uint32_t p = 0; p < BT_DAEMONS_MAX; p++) {
        const bt_router_daemon *prefill = bt_router_core_daemon(core, p);
        if (prefill == NULL || !prefill->up || prefill->hello.role != BT_ROLE_PREFILL) continue;
        for (uint32_t d = 0; d < BT_DAEMONS_MAX; d++) {
            const bt_router_daemon *decode = bt_router_core_daemon(core, d);
            if (decode == NULL || !decode->up || decode->hello.role != BT_ROLE_DECODE) continue;
            const bt_router_pair *pair = bt_router_core_pair(core, p, d);
            if (pair == NULL) continue;
            ret_counts->ready += pair->state == BT_PAIR_READY;
            if (pair->state != BT_PAIR_REFUSED) continue;
            ret_counts->refused++;
            /* What daemons say must not become a line of its own in a notification. */
            char text[sizeof(ret_counts->refusal)];
            snprintf(text, sizeof(text), "%s and %s: %s", prefill->hello.name, decode->hello.name,
                     pair->reason);
            bt_escape(text, strlen(text), ret_counts->refusal, sizeof(ret_counts->refusal));
        }
    }
}

static void open_choices(bt_router_series *series)
{
    static const char *const kinds[BT_DECIDED_COUNT] = {[BT_DECIDED_PAIR] = "pair",
                                                        [BT_DECIDED_PREFILL_ONLY] = "prefill_only",
                                                        [BT_DECIDED_LOCAL] = "local",
                                                        [BT_DECIDED_ALONE] = "local_no_prefill",
                                                        [BT_DECIDED_RETARGET] = "retarget"};
    static const char *const sums[3] = {"predicted", "actual", "error"};
    bt_metrics *m = series->metrics;
    for (uint32_t i = 0; i < BT_DECIDED_COUNT; i++) {
        const bt_label kind = {"kind", kinds[i]};
        series->decided[i] = bt_metrics_counter(m, "baton_decisions_total",
                                                "Attempts by where they went.", &kind, 1);
    }
    series->predictions = bt_metrics_counter(
        m, "baton_ttft_predictions_total", "First tokens whose time had been predicted.", NULL, 0);
    for (uint32_t i = 0; i < 3; i++) {
        const bt_label sum = {"sum", sums[i]};
        series->prediction_seconds[i] = bt_metrics_gauge(
            m, "baton_ttft_prediction_seconds",
            "Sums over them: predicted, actual, difference without sign.", &sum, 1);
    }
    series->believed = bt_metrics_counter(m, "baton_prefix_believed_tokens_total",
                                          "Prompt tokens that were thought to be cached.", NULL, 0);
    series->cached = bt_metrics_counter(m, "baton_prefix_cached_tokens_total",
                                        "Prompt tokens that daemons said were cached.", NULL, 0);
    series->prefix_entries =
        bt_metrics_gauge(m, "baton_prefix_entries", "Runs in the router's prefix index.", NULL, 0);
}

bt_status bt_router_series_open(bt_router_series *series, bt_err *err)
{
    bt_status status = bt_metrics_create(SERIES_MAX, &series->metrics, err);
    if (status != BT_OK) return status;
    bt_metrics *m = series->metrics;
    const bt_label prefill = {"role", "prefill"}, decode = {"role", "decode"};
    series->daemons[0] = bt_metrics_gauge(m, "baton_daemons", "Daemons that are up.", &prefill, 1);
    series->daemons[1] = bt_metrics_gauge(m, "baton_daemons", "Daemons that are up.", &decode, 1);
    series->in_flight = bt_metrics_gauge(m, "baton_requests_in_flight",
                                         "Requests accepted and not ended.", NULL, 0);
    series->pairs_ready =
        bt_metrics_gauge(m, "baton_pairs_ready", "Pairs that passed their probe.", NULL, 0);
    series->pairs_refused =
        bt_metrics_gauge(m, "baton_pairs_refused", "Pairs that were refused.", NULL, 0);
#define COUNTER(field, name, help)                                                                 \
    series->field = bt_metrics_counter(m, "baton_" name "_total", help, NULL, 0)
    COUNTER(accepted, "requests_accepted", "Requests accepted.");
    COUNTER(finished, "requests_finished", "Requests that finished.");
    COUNTER(cancelled, "requests_cancelled", "Requests whose client left.");
    COUNTER(failed, "requests_failed", "Requests that failed.");
    COUNTER(refused, "requests_refused", "Requests refused at once.");
    COUNTER(retries, "retries", "Attempts after the first.");
    COUNTER(tokens, "tokens_committed", "Output tokens committed.");
    COUNTER(prompt_tokens, "prompt_tokens", "Prompt tokens of ended requests.");
    COUNTER(stale, "stale_messages", "Messages of attempts that had ended.");
    COUNTER(duplicates, "duplicate_tokens", "Tokens that had been committed before.");
    COUNTER(malformed, "malformed_messages", "Control messages that did not decode.");
#undef COUNTER
    series->ttft =
        bt_metrics_histogram(m, "baton_time_to_first_token_seconds",
                             "From accepted to the first token.", bt_buckets_seconds, NULL, 0);
    series->itl =
        bt_metrics_histogram(m, "baton_inter_token_latency_seconds",
                             "Between two tokens of a request.", bt_buckets_seconds, NULL, 0);
    series->e2e = bt_metrics_histogram(m, "baton_request_seconds", "From accepted to finished.",
                                       bt_buckets_seconds, NULL, 0);
    open_choices(series);
    series->text = malloc(bt_metrics_text_bytes_max(m));
    return series->text != NULL ? BT_OK : BT_FAIL(err, BT_ERR_NO_MEMORY, "metrics text");
}

void bt_router_series_close(bt_router_series *series)
{
    bt_metrics_destroy(series->metrics);
    free(series->text);
}

static void update_choices(bt_router_series *series, const bt_router_stats *stats)
{
    for (uint32_t i = 0; i < BT_DECIDED_COUNT; i++)
        bt_counter_set(series->decided[i], stats->decided_total[i]);
    bt_counter_set(series->predictions, stats->predictions_total);
    bt_gauge_set(series->prediction_seconds[0], (double)stats->predicted_ns_total / 1e9);
    bt_gauge_set(series->prediction_seconds[1], (double)stats->actual_ns_total / 1e9);
    bt_gauge_set(series->prediction_seconds[2], (double)stats->error_ns_total / 1e9);
    bt_counter_set(series->believed, stats->believed_tokens_total);
    bt_counter_set(series->cached, stats->cached_tokens_total);
    bt_gauge_set(series->prefix_entries, stats->prefix_entries);
}

static void update(bt_router_series *series, const bt_router_core *core, uint64_t malformed_total)
{
    bt_router_stats stats;
    bt_router_core_stats(core, &stats);
    bt_pair_counts pairs;
    bt_router_count_pairs(core, &pairs);
    uint32_t up[2] = {0, 0};
    for (uint32_t i = 0; i < BT_DAEMONS_MAX; i++) {
        const bt_router_daemon *daemon = bt_router_core_daemon(core, i);
        if (daemon != NULL && daemon->up) up[daemon->hello.role == BT_ROLE_DECODE]++;
    }
    bt_gauge_set(series->daemons[0], up[0]);
    bt_gauge_set(series->daemons[1], up[1]);
    bt_gauge_set(series->in_flight, stats.requests);
    bt_gauge_set(series->pairs_ready, pairs.ready);
    bt_gauge_set(series->pairs_refused, pairs.refused);
    bt_counter_set(series->accepted, stats.accepted_total);
    bt_counter_set(series->finished, stats.finished_total);
    bt_counter_set(series->cancelled, stats.cancelled_total);
    bt_counter_set(series->failed, stats.failed_total);
    bt_counter_set(series->refused, stats.refused_total);
    bt_counter_set(series->retries, stats.retries_total);
    bt_counter_set(series->tokens, stats.tokens_total);
    bt_counter_set(series->stale, stats.stale_total);
    bt_counter_set(series->duplicates, stats.duplicate_tokens_total);
    bt_counter_set(series->malformed, malformed_total);
    update_choices(series, &stats);
}

bt_status bt_router_series_write(bt_router_series *series, const bt_router_core *core,
                                 uint64_t malformed_total, size_t *ret_bytes, bt_err *err)
{
    update(series, core, malformed_total);
    return bt_metrics_write(series->metrics, series->text,
                            bt_metrics_text_bytes_max(series->metrics), ret_bytes, err);
}
