/* samples.h - every measured duration kept, and exact statistics of them.
 *
 * PERCENTILE  Linear interpolation between the two nearest ranks (Hyndman and Fan's type 7, NumPy's
 *             default): the p-th of n sorted values is at rank p/100 * (n - 1), counted from 0.
 * MEMORY      8 bytes a sample, BT_SAMPLES_MAX of them at most. */
#ifndef BT_OPS_CLI_BENCH_SAMPLES_H
#define BT_OPS_CLI_BENCH_SAMPLES_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_SAMPLES_MAX (1u << 27)

typedef struct {
    uint64_t *values; /* ns */
    size_t count, capacity;
    bool sorted;
} bt_samples;

/* In ns; all 0 if there are no samples. */
typedef struct {
    size_t count;
    double mean, min, p50, p90, p95, p99, max;
} bt_sample_summary;

void bt_samples_finish(bt_samples *samples);
/* Errors: ERR_LIMIT, ERR_NO_MEMORY. */
bt_status bt_samples_add(bt_samples *samples, uint64_t value, bt_err *err);
/* percent in [0, 100]; sorts. 0 without samples. */
double bt_samples_percentile(bt_samples *samples, double percent);
bt_sample_summary bt_samples_summary(bt_samples *samples);

/* Counts of samples in bins whose upper bounds grow by 10^(1/10) from 10 us to 1000 s; the first
 * bin holds everything below, the last everything above. Source: no standard, chosen to be within
 * 26 % everywhere. */
#define BT_SAMPLE_BINS 82u
void bt_samples_histogram(bt_samples *samples, uint64_t ret_counts[BT_SAMPLE_BINS]);
/* Upper bound of a bin in seconds; the last has none (HUGE_VAL). */
double bt_samples_bin_seconds(unsigned bin);

#endif
