#include "ops/cli/bench/trace.h"

#include "common/base/parse.h"
#include "ops/cli/bench/draw.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One line of a file; at_ns of requests is absolute until sort_and_rebase. */
typedef bt_status (*read_line)(bt_trace *trace, const char *line, size_t bytes,
                               bt_trace_request *ret_request, bt_err *err);

typedef struct {
    const char *name;
    bool (*is)(const char *first_line, size_t bytes);
    bool header; /* the first line is no request */
    read_line read;
} trace_format;

static const char azure_header[] = "TIMESTAMP,ContextTokens,GeneratedTokens";

static bool is_azure(const char *line, size_t bytes)
{
    return bytes == strlen(azure_header) && memcmp(line, azure_header, bytes) == 0;
}

static bool is_mooncake(const char *line, size_t bytes)
{
    return bytes > 0 && line[0] == '{';
}

/* Reads exactly `digits` digits at *at. */
static bool take_digits(const char **at, const char *end, unsigned digits, uint64_t *ret_value)
{
    uint64_t value = 0;
    if ((size_t)(end - *at) < digits) return false;
    for (unsigned i = 0; i < digits; i++) {
        char c = (*at)[i];
        if (c < '0' || c > '9') return false;
        value = 10 * value + (uint64_t)(c - '0');
    }
    *at += digits;
    *ret_value = value;
    return true;
}

static bool take_char(const char **at, const char *end, char c)
{
    if (*at == end || **at != c) return false;
    ++*at;
    return true;
}

/* Days since 1970-01-01 in the Gregorian calendar, for years from 1970 on. Source: the rule of leap
 * years (every 4th but not every 100th but every 400th). */
static uint64_t days_since_1970(uint64_t year, uint64_t month, uint64_t day)
{
    static const uint16_t before[12] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    uint64_t past = year - 1;
    uint64_t leaps = past / 4 - past / 100 + past / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    return (year - 1970) * 365 + leaps + before[month - 1] + (leap && month > 2) + day - 1;
}

/* ".6805900" up to 9 digits. */
static bool take_fraction(const char **at, const char *end, uint64_t *ret_ns)
{
    *ret_ns = 0;
    if (!take_char(at, end, '.')) return true;
    uint64_t unit = 100000000;
    unsigned digits = 0;
    for (; *at < end && **at >= '0' && **at <= '9'; ++*at, digits++) {
        if (digits == 9) return false;
        *ret_ns += unit * (uint64_t)(**at - '0');
        unit /= 10;
    }
    return digits > 0;
}

static bool take_time(const char **at, const char *end, uint64_t *ret_ns)
{
    uint64_t year, month, day, hour, minute, second, ns;
    if (!take_digits(at, end, 4, &year) || !take_char(at, end, '-') ||
        !take_digits(at, end, 2, &month) || !take_char(at, end, '-') ||
        !take_digits(at, end, 2, &day) || !(take_char(at, end, ' ') || take_char(at, end, 'T')) ||
        !take_digits(at, end, 2, &hour) || !take_char(at, end, ':') ||
        !take_digits(at, end, 2, &minute) || !take_char(at, end, ':') ||
        !take_digits(at, end, 2, &second) || !take_fraction(at, end, &ns))
        return false;
    if (year < 1970 || year > 2200 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 ||
        minute > 59 || second > 60)
        return false;
    if (!take_char(at, end, 'Z') && (size_t)(end - *at) >= 6 && memcmp(*at, "+00:00", 6) == 0)
        *at += 6;
    uint64_t seconds =
        ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    *ret_ns = seconds * 1000000000 + ns;
    return true;
}

static bool take_tokens(const char **at, const char *end, uint32_t *ret_tokens)
{
    uint64_t value = 0;
    const char *first = *at;
    for (; *at < end && **at >= '0' && **at <= '9'; ++*at) {
        value = 10 * value + (uint64_t)(**at - '0');
        if (value > BT_DRAW_TOKENS_MAX) return false;
    }
    *ret_tokens = value > 0 ? (uint32_t)value : 1;
    return *at > first;
}

static bt_status read_azure(bt_trace *trace, const char *line, size_t bytes,
                            bt_trace_request *ret_request, bt_err *err)
{
    (void)trace;
    const char *at = line, *end = line + bytes;
    if (!take_time(&at, end, &ret_request->at_ns))
        return BT_FAIL(err, BT_ERR_FORMAT, "no time like 2023-11-16 18:15:46.6805900");
    if (!take_char(&at, end, ',') || !take_tokens(&at, end, &ret_request->input_tokens) ||
        !take_char(&at, end, ',') || !take_tokens(&at, end, &ret_request->output_tokens) ||
        at != end)
        return BT_FAIL(err, BT_ERR_FORMAT, "not TIME,TOKENS,TOKENS with at most %u tokens",
                       BT_DRAW_TOKENS_MAX);
    return BT_OK;
}

static bool json_tokens(const json_t *object, const char *key, uint32_t *ret_tokens)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) return false;
    json_int_t tokens = json_integer_value(value);
    if (tokens < 0 || tokens > (json_int_t)BT_DRAW_TOKENS_MAX) return false;
    *ret_tokens = tokens > 0 ? (uint32_t)tokens : 1;
    return true;
}

static bt_status add_hashes(bt_trace *trace, const json_t *list, bt_trace_request *request,
                            bt_err *err)
{
    size_t count = json_array_size(list);
    size_t blocks = (request->input_tokens + BT_TRACE_BLOCK_TOKENS - 1) / BT_TRACE_BLOCK_TOKENS;
    if (!json_is_array(list) || count != blocks)
        return BT_FAIL(err, BT_ERR_FORMAT, "hash_ids is no array of %zu, one for each %u tokens",
                       blocks, BT_TRACE_BLOCK_TOKENS);
    if (trace->hash_count + count > trace->hash_capacity) {
        size_t capacity = 2 * (trace->hash_count + count);
        uint64_t *grown = realloc(trace->hashes, capacity * sizeof(*grown));
        if (!grown) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%zu hashes", capacity);
        trace->hashes = grown;
        trace->hash_capacity = capacity;
    }
    request->first_hash = trace->hash_count;
    for (size_t i = 0; i < count; i++) {
        const json_t *hash = json_array_get(list, i);
        if (!json_is_integer(hash))
            return BT_FAIL(err, BT_ERR_FORMAT, "hash_ids[%zu] is no whole number", i);
        trace->hashes[request->first_hash + i] = (uint64_t)json_integer_value(hash);
    }
    request->hash_count = (uint32_t)count;
    trace->hash_count += count;
    return BT_OK;
}

static bt_status read_mooncake_object(bt_trace *trace, const json_t *object,
                                      bt_trace_request *ret_request, bt_err *err)
{
    const json_t *time = json_object_get(object, "timestamp");
    double ms = json_is_number(time) ? json_number_value(time) : -1;
    if (!(ms >= 0 && ms <= 9e12))
        return BT_FAIL(err, BT_ERR_FORMAT, "timestamp is no number of ms from 0 to 9e12");
    ret_request->at_ns = (uint64_t)(ms * 1e6);
    if (!json_tokens(object, "input_length", &ret_request->input_tokens) ||
        !json_tokens(object, "output_length", &ret_request->output_tokens))
        return BT_FAIL(err, BT_ERR_FORMAT, "input_length and output_length: 0 to %u tokens",
                       BT_DRAW_TOKENS_MAX);
    const json_t *hashes = json_object_get(object, "hash_ids");
    return hashes ? add_hashes(trace, hashes, ret_request, err) : BT_OK;
}

static bt_status read_mooncake(bt_trace *trace, const char *line, size_t bytes,
                               bt_trace_request *ret_request, bt_err *err)
{
    json_error_t error;
    json_t *object = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(object)) {
        json_decref(object);
        return BT_FAIL(err, BT_ERR_FORMAT, "not a JSON object: %.80s", object ? "" : error.text);
    }
    bt_status status = read_mooncake_object(trace, object, ret_request, err);
    json_decref(object);
    return status;
}

static const trace_format formats[] = {
    {"azure", is_azure, true, read_azure},
    {"mooncake", is_mooncake, false, read_mooncake},
};

static int earlier(const void *a, const void *b)
{
    const bt_trace_request *x = a, *y = b;
    if (x->at_ns != y->at_ns) return x->at_ns < y->at_ns ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static void sort_and_rebase(bt_trace *trace)
{
    if (trace->count == 0) return;
    qsort(trace->requests, trace->count, sizeof(*trace->requests), earlier);
    uint64_t first = trace->requests[0].at_ns;
    for (uint32_t i = 0; i < trace->count; i++) trace->requests[i].at_ns -= first;
}

static bt_status add_request(bt_trace *trace, const bt_trace_request *request, bt_err *err)
{
    if (trace->count == trace->capacity) {
        uint32_t capacity = trace->capacity > 0 ? 2 * trace->capacity : 1024;
        bt_trace_request *grown = realloc(trace->requests, capacity * sizeof(*grown));
        if (!grown) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%u requests", capacity);
        trace->requests = grown;
        trace->capacity = capacity;
    }
    trace->requests[trace->count++] = *request;
    return BT_OK;
}

/* The line at *at without its end, and *at behind it. */
static const char *next_line(const char **at, const char *end, size_t *ret_bytes)
{
    const char *line = *at;
    const char *lf = memchr(line, '\n', (size_t)(end - line));
    size_t bytes = (size_t)((lf ? lf : end) - line);
    *at = lf ? lf + 1 : end;
    if (bytes > 0 && line[bytes - 1] == '\r') bytes--;
    *ret_bytes = bytes;
    return line;
}

static bt_status parse_lines(const char *text, size_t bytes, const char *label, uint32_t limit,
                             bt_trace *trace, bt_err *err)
{
    const char *at = text, *end = text + bytes;
    const trace_format *format = NULL;
    for (uint32_t number = 1; at < end && trace->count < limit; number++) {
        size_t length;
        const char *line = next_line(&at, end, &length);
        if (!format) {
            for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]) && !format; i++)
                if (formats[i].is(line, length)) format = &formats[i];
            if (!format) break;
            trace->format = format->name;
            if (format->header) continue;
        }
        if (length == 0) continue;
        if (trace->count >= BT_TRACE_REQUESTS_MAX)
            return BT_FAIL(err, BT_ERR_LIMIT, "%.60s: more than %u requests", label,
                           BT_TRACE_REQUESTS_MAX);
        bt_trace_request request = {.order = trace->count};
        bt_err inner = {0};
        bt_status status = format->read(trace, line, length, &request, &inner);
        if (status != BT_OK)
            return BT_FAIL(err, status, "%.60s:%u: %.110s", label, number, inner.message);
        status = add_request(trace, &request, err);
        if (status != BT_OK) return status;
    }
    if (!format)
        return BT_FAIL(err, BT_ERR_FORMAT,
                       "%.60s: neither '%s' nor JSON lines with timestamp, input_length", label,
                       azure_header);
    if (trace->count == 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "%.60s: there is no request in it", label);
    return BT_OK;
}

bt_status bt_trace_parse(const char *text, size_t bytes, const char *label, uint32_t limit,
                         bt_trace *ret_trace, bt_err *err)
{
    bt_trace trace = {0};
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        bytes -= 3;
    }
    bt_status status = parse_lines(text, bytes, label, limit, &trace, err);
    if (status != BT_OK) {
        bt_trace_finish(&trace);
        return status;
    }
    sort_and_rebase(&trace);
    *ret_trace = trace;
    return BT_OK;
}

static bt_status read_all(FILE *file, const char *path, size_t bytes_max, char **ret_text,
                          size_t *ret_bytes, bt_err *err)
{
    size_t bytes = 0, capacity = 65536;
    char *text = malloc(capacity);
    while (text) {
        bytes += fread(text + bytes, 1, capacity - bytes - 1, file);
        if (bytes + 1 < capacity) break;
        if (bytes > bytes_max) break;
        capacity *= 2;
        char *grown = realloc(text, capacity);
        if (!grown) free(text);
        text = grown;
    }
    if (!text) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%.120s", path);
    if (ferror(file) || bytes > bytes_max) {
        int code = errno;
        free(text);
        if (bytes > bytes_max)
            return BT_FAIL(err, BT_ERR_LIMIT, "%.120s: more than %zu bytes", path, bytes_max);
        return BT_FAIL(err, BT_ERR_OS, "%.120s: %s", path, strerror(code));
    }
    text[bytes] = '\0';
    *ret_text = text;
    *ret_bytes = bytes;
    return BT_OK;
}

bt_status bt_bench_read_file(const char *path, size_t bytes_max, char **ret_text, size_t *ret_bytes,
                             bt_err *err)
{
    FILE *file = fopen(path, "rbe");
    if (!file) return BT_FAIL(err, BT_ERR_OS, "%.120s: %s", path, strerror(errno));
    bt_status status = read_all(file, path, bytes_max, ret_text, ret_bytes, err);
    fclose(file);
    return status;
}

bt_status bt_trace_read(const char *path, uint32_t limit, bt_trace *ret_trace, bt_err *err)
{
    char *text;
    size_t bytes;
    bt_status status = bt_bench_read_file(path, BT_TRACE_BYTES_MAX, &text, &bytes, err);
    if (status != BT_OK) return status;
    status = bt_trace_parse(text, bytes, path, limit, ret_trace, err);
    free(text);
    return status;
}

void bt_trace_finish(bt_trace *trace)
{
    free(trace->requests);
    free(trace->hashes);
    *trace = (bt_trace){0};
}
