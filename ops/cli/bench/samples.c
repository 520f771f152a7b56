#include "ops/cli/bench/samples.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void bt_samples_finish(bt_samples *samples)
{
    free(samples->values);
    *samples = (bt_samples){0};
}

bt_status bt_samples_add(bt_samples *samples, uint64_t value, bt_err *err)
{
    if (samples->count == samples->capacity) {
        if (samples->count >= BT_SAMPLES_MAX)
            return BT_FAIL(err, BT_ERR_LIMIT, "more than %u samples", BT_SAMPLES_MAX);
        size_t capacity = samples->capacity > 0 ? 2 * samples->capacity : 1024;
        uint64_t *grown = realloc(samples->values, capacity * sizeof(*grown));
        if (!grown) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%zu samples", capacity);
        samples->values = grown;
        samples->capacity = capacity;
    }
    samples->values[samples->count++] = value;
    samples->sorted = false;
    return BT_OK;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void sort(bt_samples *samples)
{
    if (!samples->sorted && samples->count > 1)
        qsort(samples->values, samples->count, sizeof(uint64_t), ascending);
    samples->sorted = true;
}

double bt_samples_percentile(bt_samples *samples, double percent)
{
    if (samples->count == 0) return 0;
    sort(samples);
    double rank = percent / 100 * (double)(samples->count - 1);
    size_t below = (size_t)rank;
    if (below + 1 >= samples->count) return (double)samples->values[samples->count - 1];
    double low = (double)samples->values[below], high = (double)samples->values[below + 1];
    return low + (high - low) * (rank - (double)below);
}

bt_sample_summary bt_samples_summary(bt_samples *samples)
{
    if (samples->count == 0) return (bt_sample_summary){0};
    sort(samples);
    double sum = 0;
    for (size_t i = 0; i < samples->count; i++) sum += (double)samples->values[i];
    return (bt_sample_summary){
        .count = samples->count,
        .mean = sum / (double)samples->count,
        .min = (double)samples->values[0],
        .p50 = bt_samples_percentile(samples, 50),
        .p90 = bt_samples_percentile(samples, 90),
        .p95 = bt_samples_percentile(samples, 95),
        .p99 = bt_samples_percentile(samples, 99),
        .max = (double)samples->values[samples->count - 1],
    };
}

double bt_samples_bin_seconds(unsigned bin)
{
    return bin + 1 < BT_SAMPLE_BINS ? pow(10, -5 + (double)bin / 10) : HUGE_VAL;
}

void bt_samples_histogram(bt_samples *samples, uint64_t ret_counts[BT_SAMPLE_BINS])
{
    memset(ret_counts, 0, BT_SAMPLE_BINS * sizeof(*ret_counts));
    sort(samples);
    unsigned bin = 0;
    double bound_ns = bt_samples_bin_seconds(0) * 1e9;
    for (size_t i = 0; i < samples->count; i++) {
        while ((double)samples->values[i] > bound_ns)
            bound_ns = bt_samples_bin_seconds(++bin) * 1e9;
        ret_counts[bin]++;
    }
}
