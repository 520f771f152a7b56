#include "common/base/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABELS_BYTES_MAX 512u  /* of one series, as text */
#define NUMBER_BYTES_MAX 32u   /* any u64, and any double in %.17g */
#define BUCKET_LABEL_BYTES 40u /* {le="…"} around a bound */

typedef enum { KIND_COUNTER, KIND_COUNTER_NS, KIND_GAUGE, KIND_HISTOGRAM } kind;

struct bt_counter {
    _Atomic uint64_t value;
};

struct bt_gauge {
    _Atomic uint64_t bits; /* of a double */
};

struct bt_histogram {
    bt_buckets buckets;
    _Atomic uint64_t sum_bits;
    _Atomic uint64_t counts[BT_METRICS_BUCKETS_MAX + 1]; /* each its own bucket only; last: +Inf */
};

/* One line of the exposition, or one histogram. Series of a family are a list in order of
 * registration. */
typedef struct series {
    struct series *next;
    char labels[LABELS_BYTES_MAX]; /* `a="b",c="d"`, without braces */
    union {
        bt_counter counter;
        bt_gauge gauge;
        bt_histogram histogram;
    };
} series;

typedef struct {
    const char *name;
    const char *help;
    kind kind;
    const char *label_names[BT_METRICS_LABELS_MAX];
    uint32_t label_count;
    series *first, *last;
} family;

struct bt_metrics {
    uint32_t series_max;
    uint32_t series_count;
    uint32_t family_count;
    series *series;   /* [series_max] */
    family *families; /* [series_max]: there are never more families than series */
};

static const double seconds_bounds[] = {
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1,    0.25,    0.5,    1,     2.5,    5,     10,   25,    60,
};
const bt_buckets bt_buckets_seconds = {
    .bounds = seconds_bounds,
    .count = sizeof(seconds_bounds) / sizeof(seconds_bounds[0]),
};

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* The owner alone writes, so a load and a store are an increment; readers see old or new. */
static void owner_add(_Atomic uint64_t *cell, uint64_t amount)
{
    uint64_t value = atomic_load_explicit(cell, memory_order_relaxed);
    atomic_store_explicit(cell, value + amount, memory_order_relaxed);
}

static uint64_t peek(const _Atomic uint64_t *cell)
{
    return atomic_load_explicit(cell, memory_order_relaxed);
}

bt_status bt_metrics_create(uint32_t series_max, bt_metrics **ret_metrics, bt_err *err)
{
    assert(series_max > 0);
    bt_metrics *metrics = calloc(1, sizeof(*metrics));
    if (metrics != NULL) {
        metrics->series_max = series_max;
        metrics->series = calloc(series_max, sizeof(series));
        metrics->families = calloc(series_max, sizeof(family));
    }
    if (metrics == NULL || metrics->series == NULL || metrics->families == NULL) {
        bt_metrics_destroy(metrics);
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for %u metrics", series_max);
    }
    *ret_metrics = metrics;
    return BT_OK;
}

void bt_metrics_destroy(bt_metrics *metrics)
{
    if (metrics == NULL) return;
    free(metrics->families);
    free(metrics->series);
    free(metrics);
}

uint32_t bt_metrics_room(const bt_metrics *metrics)
{
    return metrics->series_max - metrics->series_count;
}

static bool ends_with(const char *text, const char *end)
{
    size_t bytes = strlen(text), end_bytes = strlen(end);
    return bytes > end_bytes && strcmp(text + bytes - end_bytes, end) == 0;
}

static bool is_snake(const char *text)
{
    if (text[0] < 'a' || text[0] > 'z') return false;
    return text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

static bool name_fits(const char *name, kind of)
{
    if (strncmp(name, "baton_", 6) != 0 || !is_snake(name)) return false;
    if (of == KIND_COUNTER_NS) return ends_with(name, "_seconds_total");
    if (of == KIND_COUNTER) return ends_with(name, "_total");
    return !ends_with(name, "_total") && !ends_with(name, "_bucket") && !ends_with(name, "_sum") &&
           !ends_with(name, "_count");
}

/* `a="b",c="d"` with backslash, quote and newline escaped as the format wants. */
static void render_labels(const bt_label *labels, uint32_t count, char *ret_text)
{
    size_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        int head = snprintf(ret_text + used, LABELS_BYTES_MAX - used, "%s%s=\"", i > 0 ? "," : "",
                            labels[i].name);
        assert(head > 0 && used + (size_t)head < LABELS_BYTES_MAX);
        used += (size_t)head;
        for (const char *at = labels[i].value; *at != '\0'; at++) {
            assert(used + 4 < LABELS_BYTES_MAX);
            if (*at == '\\' || *at == '"' || *at == '\n') ret_text[used++] = '\\';
            ret_text[used++] = *at == '\n' ? 'n' : *at;
        }
        ret_text[used++] = '"';
    }
    ret_text[used] = '\0';
}

static family *find_family(bt_metrics *metrics, const char *name, const char *help, kind of,
                           const bt_label *labels, uint32_t label_count)
{
    for (uint32_t i = 0; i < metrics->family_count; i++) {
        family *known = &metrics->families[i];
        if (strcmp(known->name, name) != 0) continue;
        assert(known->kind == of && known->label_count == label_count);
        for (uint32_t l = 0; l < label_count; l++)
            assert(strcmp(known->label_names[l], labels[l].name) == 0);
        return known;
    }
    assert(metrics->family_count < metrics->series_max);
    assert(name_fits(name, of) && label_count <= BT_METRICS_LABELS_MAX);
    assert(help[0] != '\0' && strpbrk(help, "\\\n") == NULL);
    family *made = &metrics->families[metrics->family_count++];
    *made = (family){.name = name, .help = help, .kind = of, .label_count = label_count};
    for (uint32_t l = 0; l < label_count; l++) {
        assert(is_snake(labels[l].name) && strcmp(labels[l].name, "le") != 0);
        made->label_names[l] = labels[l].name;
    }
    return made;
}

static series *find_series(bt_metrics *metrics, const char *name, const char *help, kind of,
                           const bt_label *labels, uint32_t label_count)
{
    family *owner = find_family(metrics, name, help, of, labels, label_count);
    char text[LABELS_BYTES_MAX];
    render_labels(labels, label_count, text);
    for (series *s = owner->first; s != NULL; s = s->next) {
        if (strcmp(s->labels, text) == 0) return s;
    }
    assert(metrics->series_count < metrics->series_max);
    series *made = &metrics->series[metrics->series_count++];
    memcpy(made->labels, text, strlen(text) + 1);
    if (owner->last != NULL) {
        owner->last->next = made;
    } else {
        owner->first = made;
    }
    owner->last = made;
    return made;
}

bt_counter *bt_metrics_counter(bt_metrics *metrics, const char *name, const char *help,
                               const bt_label *labels, uint32_t label_count)
{
    return &find_series(metrics, name, help, KIND_COUNTER, labels, label_count)->counter;
}

bt_counter *bt_metrics_counter_ns(bt_metrics *metrics, const char *name, const char *help,
                                  const bt_label *labels, uint32_t label_count)
{
    return &find_series(metrics, name, help, KIND_COUNTER_NS, labels, label_count)->counter;
}

bt_gauge *bt_metrics_gauge(bt_metrics *metrics, const char *name, const char *help,
                           const bt_label *labels, uint32_t label_count)
{
    return &find_series(metrics, name, help, KIND_GAUGE, labels, label_count)->gauge;
}

bt_histogram *bt_metrics_histogram(bt_metrics *metrics, const char *name, const char *help,
                                   bt_buckets buckets, const bt_label *labels, uint32_t label_count)
{
    assert(buckets.count > 0 && buckets.count <= BT_METRICS_BUCKETS_MAX);
    for (uint32_t i = 0; i < buckets.count; i++) {
        assert(isfinite(buckets.bounds[i]));
        assert(i == 0 || buckets.bounds[i - 1] < buckets.bounds[i]);
    }
    series *s = find_series(metrics, name, help, KIND_HISTOGRAM, labels, label_count);
    if (s->histogram.buckets.bounds == NULL) s->histogram.buckets = buckets;
    assert(s->histogram.buckets.bounds == buckets.bounds);
    return &s->histogram;
}

void bt_counter_add(bt_counter *counter, uint64_t amount)
{
    owner_add(&counter->value, amount);
}

uint64_t bt_counter_value(const bt_counter *counter)
{
    return peek(&counter->value);
}

void bt_counter_set(bt_counter *counter, uint64_t value)
{
    assert(value >= peek(&counter->value));
    atomic_store_explicit(&counter->value, value, memory_order_relaxed);
}

void bt_gauge_set(bt_gauge *gauge, double value)
{
    atomic_store_explicit(&gauge->bits, bits_of(value), memory_order_relaxed);
}

double bt_gauge_value(const bt_gauge *gauge)
{
    return double_of(peek(&gauge->bits));
}

void bt_histogram_observe(bt_histogram *histogram, double value)
{
    if (isnan(value)) return;
    uint32_t bucket = 0;
    while (bucket < histogram->buckets.count && value > histogram->buckets.bounds[bucket]) bucket++;
    owner_add(&histogram->counts[bucket], 1);
    double sum = double_of(peek(&histogram->sum_bits)) + value;
    atomic_store_explicit(&histogram->sum_bits, bits_of(sum), memory_order_relaxed);
}

uint64_t bt_histogram_count(const bt_histogram *histogram)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i <= histogram->buckets.count; i++) count += peek(&histogram->counts[i]);
    return count;
}

/* ---- text ---- */

typedef struct {
    char *text;
    size_t capacity;
    size_t used;
    bool full;
} writer;

static void put(writer *out, const char *text)
{
    size_t bytes = strlen(text);
    if (out->full || bytes > out->capacity - out->used) {
        out->full = true;
        return;
    }
    memcpy(out->text + out->used, text, bytes);
    out->used += bytes;
}

static void put_double(writer *out, double value)
{
    char text[NUMBER_BYTES_MAX];
    if (isnan(value)) {
        put(out, "NaN");
    } else if (isinf(value)) {
        put(out, value > 0 ? "+Inf" : "-Inf");
    } else {
        /* The shortest of the two that reads back as the same number. */
        snprintf(text, sizeof(text), "%.15g", value);
        if (strtod(text, NULL) != value) snprintf(text, sizeof(text), "%.17g", value);
        put(out, text);
    }
}

static void put_u64(writer *out, uint64_t value)
{
    char text[NUMBER_BYTES_MAX];
    snprintf(text, sizeof(text), "%" PRIu64, value);
    put(out, text);
}

/* name + suffix {labels, extra} and the blank before the value. */
static void put_key(writer *out, const char *name, const char *suffix, const char *labels,
                    const char *extra)
{
    put(out, name);
    put(out, suffix);
    if (labels[0] != '\0' || extra[0] != '\0') {
        put(out, "{");
        put(out, labels);
        if (labels[0] != '\0' && extra[0] != '\0') put(out, ",");
        put(out, extra);
        put(out, "}");
    }
    put(out, " ");
}

static void put_histogram(writer *out, const char *name, const series *s)
{
    const bt_histogram *histogram = &s->histogram;
    uint64_t count = 0;
    for (uint32_t i = 0; i <= histogram->buckets.count; i++) {
        count += peek(&histogram->counts[i]);
        char extra[BUCKET_LABEL_BYTES] = "le=\"+Inf\"";
        if (i < histogram->buckets.count)
            snprintf(extra, sizeof(extra), "le=\"%.15g\"", histogram->buckets.bounds[i]);
        put_key(out, name, "_bucket", s->labels, extra);
        put_u64(out, count);
        put(out, "\n");
    }
    put_key(out, name, "_sum", s->labels, "");
    put_double(out, double_of(peek(&histogram->sum_bits)));
    put(out, "\n");
    put_key(out, name, "_count", s->labels, "");
    put_u64(out, count);
    put(out, "\n");
}

static void put_series(writer *out, const family *owner, const series *s)
{
    if (owner->kind == KIND_HISTOGRAM) {
        put_histogram(out, owner->name, s);
        return;
    }
    put_key(out, owner->name, "", s->labels, "");
    switch (owner->kind) {
    case KIND_COUNTER: put_u64(out, peek(&s->counter.value)); break;
    case KIND_COUNTER_NS: put_double(out, (double)peek(&s->counter.value) / 1e9); break;
    default: put_double(out, bt_gauge_value(&s->gauge)); break;
    }
    put(out, "\n");
}

static void put_family(writer *out, const family *owner)
{
    static const char *const types[] = {
        [KIND_COUNTER] = "counter",
        [KIND_COUNTER_NS] = "counter",
        [KIND_GAUGE] = "gauge",
        [KIND_HISTOGRAM] = "histogram",
    };
    put(out, "# HELP ");
    put(out, owner->name);
    put(out, " ");
    put(out, owner->help);
    put(out, "\n# TYPE ");
    put(out, owner->name);
    put(out, " ");
    put(out, types[owner->kind]);
    put(out, "\n");
    for (const series *s = owner->first; s != NULL; s = s->next) put_series(out, owner, s);
}

size_t bt_metrics_text_bytes_max(const bt_metrics *metrics)
{
    size_t bytes = 0;
    for (uint32_t f = 0; f < metrics->family_count; f++) {
        const family *owner = &metrics->families[f];
        size_t name_bytes = strlen(owner->name);
        bytes += 2 * name_bytes + strlen(owner->help) + 64;
        for (const series *s = owner->first; s != NULL; s = s->next) {
            size_t lines = owner->kind == KIND_HISTOGRAM ? s->histogram.buckets.count + 3u : 1u;
            bytes += lines *
                     (name_bytes + strlen(s->labels) + BUCKET_LABEL_BYTES + NUMBER_BYTES_MAX + 16);
        }
    }
    return bytes;
}

bt_status bt_metrics_write(const bt_metrics *metrics, char *ret_text, size_t capacity,
                           size_t *ret_bytes, bt_err *err)
{
    writer out = {.text = ret_text, .capacity = capacity};
    for (uint32_t f = 0; f < metrics->family_count; f++) put_family(&out, &metrics->families[f]);
    if (out.full)
        return BT_FAIL(err, BT_ERR_LIMIT, "the metrics do not fit into %zu bytes", capacity);
    *ret_bytes = out.used;
    return BT_OK;
}
