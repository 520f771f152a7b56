/* summary.h - the figures of one server out of its records.
 *
 * WINDOW  of a server: the sum of its blocks, each from its beginning to the end of its last
 *         answer. Rates are per second of that.
 * TTFT    from when the request was due (open loop) or sent (closed loop) to its first token;
 *         ttft_sent always from when it was sent, delay from due to sent: the client's own part.
 * TPOT    of a request with more than one token: (last - first token) / (tokens - 1).
 * ITL     each token after the first of a request: time since the one before it.
 * E2E     from the same beginning as TTFT to the last token.
 * GOODPUT requests per second that met every limit of the SLO; a failed one did not. */
#ifndef BT_OPS_CLI_BENCH_SUMMARY_H
#define BT_OPS_CLI_BENCH_SUMMARY_H

#include "ops/cli/bench/run.h"

/* Limits in ns; 0 = none. */
typedef struct {
    uint64_t ttft_ns, tpot_ns, e2e_ns;
    bool any;
} bt_slo;

/* "ttft=200ms,tpot=20ms,e2e=5s". Errors: ERR_ARGUMENT. */
bt_status bt_slo_parse(const char *text, bt_slo *ret_slo, bt_err *err);

typedef enum {
    BT_MEASURE_TTFT,
    BT_MEASURE_TTFT_SENT,
    BT_MEASURE_TPOT,
    BT_MEASURE_ITL,
    BT_MEASURE_E2E,
    BT_MEASURE_DELAY,
    BT_MEASURES
} bt_measure;

/* Its key in JSON, and its name in the table. */
const char *bt_measure_key(bt_measure measure);
const char *bt_measure_title(bt_measure measure);

typedef struct {
    bt_samples samples[BT_MEASURES];
    bt_sample_summary measures[BT_MEASURES];
    double window_s;
    uint32_t ok, failed, cancelled, good;
    uint64_t input_tokens, output_tokens, cached_tokens, token_events;
    uint32_t input_unknown;         /* requests without a usage */
    uint32_t input_off, output_off; /* requests whose lengths are not what was asked */
    uint32_t input_low, input_high; /* of what the server counted */
    uint32_t output_low, output_high;
    uint32_t gaps_inexact;
} bt_summary;

/* Of the records of the blocks [first_block, first_block + block_count). Errors: ERR_NO_MEMORY. */
bt_status bt_summary_make(const bt_result *result, bool open_loop, const bt_slo *slo,
                          uint32_t first_block, uint32_t block_count, bt_summary *ret_summary,
                          bt_err *err);
void bt_summary_finish(bt_summary *summary);

/* amount per second of the window; 0 without one. */
double bt_summary_rate(const bt_summary *summary, double amount);

#endif
