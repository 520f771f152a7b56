/* scrape.h - the histograms of a /metrics page (Prometheus text format 0.0.4), their difference over
 * a run, and percentiles of that.
 *
 * PERCENTILE  Linear inside the bucket that holds the rank, from 0 in the first; what is above the
 *             last bound counts as that bound. So it is as exact as the buckets are narrow.
 * TRUST       The page is hostile: a line that is none of the format is an error, numbers are
 *             checked, BT_SCRAPE_HISTOGRAMS_MAX and BT_SCRAPE_BUCKETS_MAX bound it. */
#ifndef BT_OPS_CLI_BENCH_SCRAPE_H
#define BT_OPS_CLI_BENCH_SCRAPE_H

#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define BT_SCRAPE_HISTOGRAMS_MAX 64u
#define BT_SCRAPE_BUCKETS_MAX 40u

typedef struct {
    char name[64];   /* without _bucket */
    char labels[64]; /* `phase="put"`, without le */
    uint32_t bucket_count;
    double bounds[BT_SCRAPE_BUCKETS_MAX]; /* ascending; the last may be HUGE_VAL */
    double counts[BT_SCRAPE_BUCKETS_MAX]; /* cumulative, as the page has them */
    double sum;
} bt_scrape_histogram;

typedef struct {
    bt_scrape_histogram list[BT_SCRAPE_HISTOGRAMS_MAX];
    uint32_t count;
} bt_scrape;

/* Adds the page's histograms whose names begin with prefix to *scrape (the same histogram of
 * several daemons is one). Errors: ERR_FORMAT, ERR_LIMIT. */
bt_status bt_scrape_add(bt_scrape *scrape, const char *text, size_t bytes, const char *prefix,
                        bt_err *err);
/* after - before; what fell (a daemon was restarted) becomes 0. */
void bt_scrape_subtract(bt_scrape *after, const bt_scrape *before);

double bt_scrape_count(const bt_scrape_histogram *histogram);
/* percent in [0, 100]; 0 without observations. */
double bt_scrape_percentile(const bt_scrape_histogram *histogram, double percent);

#endif
