#include "ops/cli/bench/scrape.h"

#include "common/base/parse.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define LINE_BYTES_MAX 1024u

/* One sample line, cut into its parts. */
typedef struct {
    char name[128];
    char labels[256]; /* without le */
    char le[32];
    double value;
} sample;

static bt_status bad(const char *line, const char *what, bt_err *err)
{
    char shown[80];
    bt_escape(line, strlen(line), shown, sizeof(shown));
    return BT_FAIL(err, BT_ERR_FORMAT, "/metrics: %s: '%s'", what, shown);
}

/* One `name="value"` at *at into the parts of s. */
static bool take_label(const char **at, sample *s)
{
    const char *name = *at;
    while (isalnum((unsigned char)**at) || **at == '_') ++*at;
    size_t name_bytes = (size_t)(*at - name);
    if (name_bytes == 0 || (*at)[0] != '=' || (*at)[1] != '"') return false;
    const char *value = *at += 2;
    while (**at != '\0' && **at != '"') *at += **at == '\\' && (*at)[1] != '\0' ? 2 : 1;
    if (**at != '"') return false;
    size_t bytes = (size_t)(*at - value);
    ++*at;
    if (name_bytes == 2 && memcmp(name, "le", 2) == 0) {
        if (bytes >= sizeof(s->le)) return false;
        memcpy(s->le, value, bytes);
        s->le[bytes] = '\0';
        return true;
    }
    size_t used = strlen(s->labels);
    int more = snprintf(s->labels + used, sizeof(s->labels) - used, "%s%.*s", used > 0 ? "," : "",
                        (int)(*at - name), name);
    return more > 0 && (size_t)more < sizeof(s->labels) - used;
}

static bool take_labels(const char **at, sample *s)
{
    if (**at != '{') return true;
    ++*at;
    while (**at != '}') {
        if (!take_label(at, s)) return false;
        if (**at == ',')
            ++*at;
        else if (**at != '}')
            return false;
    }
    ++*at;
    return true;
}

/* line is NUL-terminated. */
static bt_status parse_line(const char *line, sample *ret_sample, bt_err *err)
{
    sample s = {0};
    const char *at = line;
    while (isalnum((unsigned char)*at) || *at == '_' || *at == ':') at++;
    size_t bytes = (size_t)(at - line);
    if (bytes == 0 || bytes >= sizeof(s.name)) return bad(line, "no name", err);
    memcpy(s.name, line, bytes);
    if (!take_labels(&at, &s)) return bad(line, "labels are wrong or too long", err);
    if (*at != ' ') return bad(line, "no value", err);
    while (*at == ' ') at++;
    char number[48];
    size_t length = strcspn(at, " ");
    if (length >= sizeof(number)) return bad(line, "no value", err);
    memcpy(number, at, length);
    number[length] = '\0';
    if (bt_parse_double(number, &s.value, NULL) != BT_OK) {
        if (strcmp(number, "NaN") != 0 && strcmp(number, "+Inf") != 0 &&
            strcmp(number, "-Inf") != 0)
            return bad(line, "no value", err);
        s.value = 0;
    }
    *ret_sample = s;
    return BT_OK;
}

/* The histogram of this name and these labels, or a new one; NULL if there is no room. */
static bt_scrape_histogram *find(bt_scrape *scrape, const char *name, size_t name_bytes,
                                 const char *labels)
{
    for (uint32_t i = 0; i < scrape->count; i++) {
        bt_scrape_histogram *h = &scrape->list[i];
        if (strlen(h->name) == name_bytes && memcmp(h->name, name, name_bytes) == 0 &&
            strcmp(h->labels, labels) == 0)
            return h;
    }
    if (scrape->count == BT_SCRAPE_HISTOGRAMS_MAX || name_bytes >= sizeof(scrape->list[0].name) ||
        strlen(labels) >= sizeof(scrape->list[0].labels))
        return NULL;
    bt_scrape_histogram *h = &scrape->list[scrape->count++];
    memset(h, 0, sizeof(*h));
    memcpy(h->name, name, name_bytes);
    memcpy(h->labels, labels, strlen(labels) + 1);
    return h;
}

static bt_status take_bucket(bt_scrape_histogram *h, const sample *s, bt_err *err)
{
    double bound = HUGE_VAL;
    if (strcmp(s->le, "+Inf") != 0 && bt_parse_double(s->le, &bound, NULL) != BT_OK)
        return bad(s->le, "a bucket without a bound", err);
    for (uint32_t i = 0; i < h->bucket_count; i++) {
        if (h->bounds[i] != bound) continue;
        h->counts[i] += s->value;
        return BT_OK;
    }
    if (h->bucket_count == BT_SCRAPE_BUCKETS_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "/metrics: more than %u buckets", BT_SCRAPE_BUCKETS_MAX);
    if (h->bucket_count > 0 && bound <= h->bounds[h->bucket_count - 1])
        return bad(s->le, "buckets out of order", err);
    h->bounds[h->bucket_count] = bound;
    h->counts[h->bucket_count++] = s->value;
    return BT_OK;
}

static bt_status take_sample(bt_scrape *scrape, const sample *s, bt_err *err)
{
    size_t bytes = strlen(s->name);
    bool bucket = bytes > 7 && strcmp(s->name + bytes - 7, "_bucket") == 0 && s->le[0] != '\0';
    bool sum = bytes > 4 && strcmp(s->name + bytes - 4, "_sum") == 0;
    if (!bucket && !sum) return BT_OK;
    bt_scrape_histogram *h = find(scrape, s->name, bytes - (bucket ? 7 : 4), s->labels);
    if (!h)
        return BT_FAIL(err, BT_ERR_LIMIT, "/metrics: more than %u histograms, or a long name",
                       BT_SCRAPE_HISTOGRAMS_MAX);
    if (bucket) return take_bucket(h, s, err);
    h->sum += s->value;
    return BT_OK;
}

bt_status bt_scrape_add(bt_scrape *scrape, const char *text, size_t bytes, const char *prefix,
                        bt_err *err)
{
    size_t prefix_bytes = strlen(prefix);
    for (const char *at = text, *end = text + bytes; at < end;) {
        const char *lf = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((lf ? lf : end) - at);
        const char *line = at;
        at = lf ? lf + 1 : end;
        if (length < prefix_bytes || memcmp(line, prefix, prefix_bytes) != 0) continue;
        char copy[LINE_BYTES_MAX];
        if (length >= sizeof(copy)) return BT_FAIL(err, BT_ERR_LIMIT, "/metrics: a long line");
        memcpy(copy, line, length);
        copy[length] = '\0';
        sample s;
        bt_status status = parse_line(copy, &s, err);
        if (status == BT_OK) status = take_sample(scrape, &s, err);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

void bt_scrape_subtract(bt_scrape *after, const bt_scrape *before)
{
    for (uint32_t i = 0; i < after->count; i++) {
        bt_scrape_histogram *h = &after->list[i];
        for (uint32_t k = 0; k < before->count; k++) {
            const bt_scrape_histogram *b = &before->list[k];
            if (strcmp(h->name, b->name) != 0 || strcmp(h->labels, b->labels) != 0) continue;
            h->sum = fmax(0, h->sum - b->sum);
            for (uint32_t j = 0; j < h->bucket_count && j < b->bucket_count; j++)
                if (h->bounds[j] == b->bounds[j])
                    h->counts[j] = fmax(0, h->counts[j] - b->counts[j]);
        }
    }
}

double bt_scrape_count(const bt_scrape_histogram *histogram)
{
    return histogram->bucket_count > 0 ? histogram->counts[histogram->bucket_count - 1] : 0;
}

double bt_scrape_percentile(const bt_scrape_histogram *histogram, double percent)
{
    double total = bt_scrape_count(histogram), rank = percent / 100 * total, below = 0, low = 0;
    if (!(total > 0)) return 0;
    for (uint32_t i = 0; i < histogram->bucket_count; i++) {
        double bound = histogram->bounds[i], count = histogram->counts[i];
        if (count >= rank && count > below)
            return bound == HUGE_VAL ? low : low + (bound - low) * (rank - below) / (count - below);
        if (bound != HUGE_VAL) low = bound;
        below = fmax(below, count);
    }
    return low;
}
