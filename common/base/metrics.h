/* metrics.h - the numbers a daemon shows at /metrics, in the Prometheus text format 0.0.4.
 *
 * FLOW    create; register every series at start and keep the pointer; update; write on a scrape.
 * NAMES   `baton_` prefix, snake case, base units in the name (_seconds, _bytes); a counter ends in
 *         _total and nothing else does. Checked by assert at registration, so a bad name never
 *         ships. The same name and labels give the same series again (a peer that reconnects);
 *         one name has one kind, one help and one set of label names.
 * LABELS  A set fixed at registration. Names are literals; values are copied and escaped, and must
 *         come from a bounded set (roles, states, peers), never from requests.
 * THREADS One thread registers and writes. Each series is updated by one thread, its owner, which
 *         may be another: values are relaxed atomics without locked instructions. A histogram that
 *         is read while it is updated may be one observation apart in its parts.
 * BOUNDS  series_max at create. Its owner knows how many it registers: one more asserts. */
#ifndef BT_COMMON_BASE_METRICS_H
#define BT_COMMON_BASE_METRICS_H

#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define BT_METRICS_LABELS_MAX 6u
#define BT_METRICS_BUCKETS_MAX 32u
#define BT_METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

typedef struct bt_metrics bt_metrics;
typedef struct bt_counter bt_counter;
typedef struct bt_gauge bt_gauge;
typedef struct bt_histogram bt_histogram;

typedef struct {
    const char *name;  /* static storage */
    const char *value; /* copied; UTF-8 */
} bt_label;

/* Errors: ERR_NO_MEMORY. destroy accepts NULL. Series live as long as their registry. */
bt_status bt_metrics_create(uint32_t series_max, bt_metrics **ret_metrics, bt_err *err);
void bt_metrics_destroy(bt_metrics *metrics);
/* Series that may still be registered. Ask before one whose labels come from outside: one too many
 * asserts. */
uint32_t bt_metrics_room(const bt_metrics *metrics);

/* labels is an array of label_count, or NULL with 0. name and help are static storage. The series
 * start at 0 and are shown from now on. Never NULL. */
bt_counter *bt_metrics_counter(bt_metrics *metrics, const char *name, const char *help,
                               const bt_label *labels, uint32_t label_count);

/* A counter in nanoseconds, shown in seconds: its name ends in _seconds_total. */
bt_counter *bt_metrics_counter_ns(bt_metrics *metrics, const char *name, const char *help,
                                  const bt_label *labels, uint32_t label_count);

bt_gauge *bt_metrics_gauge(bt_metrics *metrics, const char *name, const char *help,
                           const bt_label *labels, uint32_t label_count);

/* Upper bounds of the buckets, ascending, finite, without the +Inf one, which is always there. */
typedef struct {
    const double *bounds; /* static storage */
    uint32_t count;       /* 1 .. BT_METRICS_BUCKETS_MAX */
} bt_buckets;

/* 100 us to 60 s in steps of 1, 2.5, 5: for latencies in seconds. */
extern const bt_buckets bt_buckets_seconds;

bt_histogram *bt_metrics_histogram(bt_metrics *metrics, const char *name, const char *help,
                                   bt_buckets buckets, const bt_label *labels,
                                   uint32_t label_count);

void bt_counter_add(bt_counter *counter, uint64_t amount);
uint64_t bt_counter_value(const bt_counter *counter);

/* Takes over a count that is kept elsewhere (a core's stats): value must not be below the present
 * one. */
void bt_counter_set(bt_counter *counter, uint64_t value);

void bt_gauge_set(bt_gauge *gauge, double value);
double bt_gauge_value(const bt_gauge *gauge);

/* A value that is not a number is not observed. */
void bt_histogram_observe(bt_histogram *histogram, double value);
uint64_t bt_histogram_count(const bt_histogram *histogram);

/* A buffer of so many bytes holds the present series whatever their values. */
size_t bt_metrics_text_bytes_max(const bt_metrics *metrics);

/* The whole exposition, without a NUL. Errors: ERR_LIMIT if buffer is too small. */
bt_status bt_metrics_write(const bt_metrics *metrics, char *ret_text, size_t capacity,
                           size_t *ret_bytes, bt_err *err);

#endif
