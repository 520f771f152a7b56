#include "common/base/clock.h"
#include "common/net/json_out.h"
#include "ops/cli/bench/report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define JSON_BYTES_MAX ((size_t)4 << 30)

static void put_double(bt_json_out *json, const char *key, double value)
{
    bt_json_key(json, key);
    bt_json_double(json, value);
}

static void put_count(bt_json_out *json, const char *key, uint64_t value)
{
    bt_json_key(json, key);
    bt_json_u64(json, value);
}

static void put_text(bt_json_out *json, const char *key, const char *value)
{
    bt_json_key(json, key);
    bt_json_text(json, value);
}

static void put_bool(bt_json_out *json, const char *key, bool value)
{
    bt_json_key(json, key);
    bt_json_bool(json, value);
}

static void begin(bt_json_out *json, const char *key, char bracket)
{
    bt_json_key(json, key);
    bt_json_begin(json, bracket);
}

static void write_environment(const bt_report *report, bt_json_out *json)
{
    char date[32], cpu[128], host[65] = "";
    time_t seconds = (time_t)(report->began_wall_ns / BT_NS_PER_S);
    struct tm utc;
    struct utsname name;
    gmtime_r(&seconds, &utc);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &utc);
    bt_report_cpu(cpu, sizeof(cpu));
    gethostname(host, sizeof(host) - 1);
    begin(json, "environment", '{');
    put_text(json, "date", date);
    put_text(json, "host", host);
    put_text(json, "cpu", cpu);
    put_count(json, "cpus", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    put_text(json, "kernel", uname(&name) == 0 ? name.release : "");
    put_text(json, "client", "baton " BT_VERSION);
    put_double(json, "load_average_before", report->load_before);
    put_double(json, "load_average_after", report->load_after);
    bt_json_end(json, '}');
}

static void write_configuration(const bt_report *report, bt_json_out *json)
{
    begin(json, "configuration", '{');
    begin(json, "arguments", '[');
    for (int i = 1; i < report->argc; i++) bt_json_text(json, report->argv[i]);
    bt_json_end(json, ']');
    put_text(json, "load", report->load_text);
    put_count(json, "seed", report->seed);
    put_text(json, "loop", report->open_loop ? "open" : "closed");
    put_text(json, "order", report->together ? "together" : "alternate");
    put_count(json, "blocks", report->blocks);
    put_count(json, "warmup_requests", report->warmup);
    put_double(json, "slo_ttft_s", (double)report->slo->ttft_ns / 1e9);
    put_double(json, "slo_tpot_s", (double)report->slo->tpot_ns / 1e9);
    put_double(json, "slo_e2e_s", (double)report->slo->e2e_ns / 1e9);
    put_text(json, "percentiles", "linear interpolation between ranks (type 7)");
    bt_json_end(json, '}');
}

static void write_measure(bt_samples *samples, const bt_sample_summary *s, bt_json_out *json)
{
    put_count(json, "count", s->count);
    put_double(json, "mean", s->mean / 1e9);
    put_double(json, "min", s->min / 1e9);
    static const double percents[] = {1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9};
    for (unsigned i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
        char key[16];
        snprintf(key, sizeof(key), "p%g", percents[i]);
        put_double(json, key, bt_samples_percentile(samples, percents[i]) / 1e9);
    }
    put_double(json, "max", s->max / 1e9);
    uint64_t counts[BT_SAMPLE_BINS];
    bt_samples_histogram(samples, counts);
    begin(json, "histogram", '[');
    for (unsigned bin = 0; bin < BT_SAMPLE_BINS; bin++) {
        if (counts[bin] == 0) continue;
        bt_json_begin(json, '{');
        put_double(json, "le", bt_samples_bin_seconds(bin)); /* null: no bound */
        put_count(json, "count", counts[bin]);
        bt_json_end(json, '}');
    }
    bt_json_end(json, ']');
}

static void write_rates(const bt_summary *s, bt_json_out *json)
{
    put_double(json, "window_s", s->window_s);
    put_double(json, "requests_per_s", bt_summary_rate(s, s->ok));
    put_double(json, "input_tokens_per_s", bt_summary_rate(s, (double)s->input_tokens));
    put_double(json, "output_tokens_per_s", bt_summary_rate(s, (double)s->output_tokens));
}

static void write_counts(const bt_result *result, const bt_summary *s, bt_json_out *json)
{
    put_count(json, "requests_ok", s->ok);
    put_count(json, "requests_failed", s->failed);
    put_count(json, "requests_cut_off", s->cancelled);
    put_count(json, "input_tokens", s->input_tokens);
    put_count(json, "output_tokens", s->output_tokens);
    put_count(json, "cached_tokens", s->cached_tokens);
    put_count(json, "token_events", s->token_events);
    put_count(json, "input_lengths_off", s->input_off);
    put_count(json, "output_lengths_off", s->output_off);
    put_count(json, "inexact_gaps", s->gaps_inexact);
    put_count(json, "connections_made", result->fresh_connections);
    begin(json, "errors", '[');
    for (uint32_t i = 0; i < result->error_kinds; i++) {
        const bt_run_error *error = &result->errors[i];
        bt_json_begin(json, '{');
        put_text(json, "kind", bt_outcome_name(error->outcome));
        put_count(json, "http_status", (uint64_t)error->http_status);
        put_count(json, "count", error->count);
        put_text(json, "message", error->message);
        bt_json_end(json, '}');
    }
    bt_json_end(json, ']');
}

static void write_blocks(const bt_report *report, const bt_result *result, bt_json_out *json)
{
    begin(json, "blocks", '[');
    for (uint32_t b = 0; b < result->block_count; b++) {
        bt_summary s;
        if (bt_summary_make(result, report->open_loop, report->slo, b, 1, &s, NULL) != BT_OK) break;
        bt_json_begin(json, '{');
        put_count(json, "requests_ok", s.ok);
        write_rates(&s, json);
        for (unsigned m = 0; m < BT_MEASURES; m++) {
            char key[32];
            snprintf(key, sizeof(key), "%s_p50", bt_measure_key(m));
            put_double(json, key, s.measures[m].p50 / 1e9);
        }
        bt_json_end(json, '}');
        bt_summary_finish(&s);
    }
    bt_json_end(json, ']');
}

/* Times of one request count from the beginning of its block. */
static void write_record(const bt_result *result, const bt_record *r, bt_json_out *json)
{
    uint64_t zero = result->blocks[r->block].begin_ns;
    bt_json_begin(json, '{');
    put_count(json, "index", r->index);
    put_count(json, "block", r->block);
    put_text(json, "outcome", bt_outcome_name(r->outcome));
    put_count(json, "http_status", (uint64_t)r->http_status);
    put_double(json, "due_s", (double)(r->due_ns - zero) / 1e9);
    put_double(json, "sent_s", (double)(r->sent_ns - zero) / 1e9);
    put_double(json, "end_s", (double)(r->end_ns - zero) / 1e9);
    put_count(json, "input_asked", r->input_asked);
    put_count(json, "output_asked", r->output_asked);
    if (r->outcome == BT_OUTCOME_OK) {
        put_double(json, "first_token_s", (double)(r->first_ns - zero) / 1e9);
        put_double(json, "last_token_s", (double)(r->last_ns - zero) / 1e9);
        put_count(json, "input_tokens", r->input_tokens);
        put_count(json, "output_tokens", r->output_tokens);
        put_count(json, "cached_tokens", r->cached_tokens);
        begin(json, "gaps_s", '[');
        for (uint32_t i = 0; i < r->gap_count; i++)
            bt_json_double(json, (double)result->gaps.values[r->first_gap + i] / 1e9);
        bt_json_end(json, ']');
    }
    bt_json_end(json, '}');
}

static void write_server(bt_report *report, unsigned i, bt_json_out *json)
{
    static const char *const counted[] = {"events", "usage", "ids"};
    const bt_server *server = &report->servers[i];
    const bt_result *result = report->results[i];
    bt_summary *s = &report->summaries[i];
    bt_json_begin(json, '{');
    put_text(json, "url", server->base);
    put_text(json, "model", server->model);
    put_text(json, "owned_by", server->owner);
    put_text(json, "version", server->version);
    put_text(json, "prompts", server->body.ids ? "ids" : "text");
    put_text(json, "tokens_counted_by", counted[result->counted]);
    put_count(json, "text_overhead_tokens", server->text_overhead);
    put_bool(json, "ignore_eos", server->body.ignore_eos);
    write_counts(result, s, json);
    write_rates(s, json);
    if (report->slo->any) put_double(json, "goodput_requests_per_s", bt_summary_rate(s, s->good));
    for (unsigned m = 0; m < BT_MEASURES; m++) {
        begin(json, bt_measure_key(m), '{');
        write_measure(&s->samples[m], &s->measures[m], json);
        bt_json_end(json, '}');
    }
    write_blocks(report, result, json);
    if (report->samples) {
        begin(json, "samples", '[');
        for (uint32_t r = 0; r < result->record_count; r++)
            write_record(result, &result->records[r], json);
        bt_json_end(json, ']');
    }
    bt_json_end(json, '}');
}

static void write_histograms(const bt_scrape *scrape, bt_json_out *json)
{
    begin(json, "server_histograms", '[');
    for (uint32_t i = 0; scrape && i < scrape->count; i++) {
        const bt_scrape_histogram *h = &scrape->list[i];
        double count = bt_scrape_count(h);
        bt_json_begin(json, '{');
        put_text(json, "name", h->name);
        put_text(json, "labels", h->labels);
        put_double(json, "count", count);
        put_double(json, "mean", count > 0 ? h->sum / count : 0);
        put_double(json, "p50", bt_scrape_percentile(h, 50));
        put_double(json, "p90", bt_scrape_percentile(h, 90));
        put_double(json, "p99", bt_scrape_percentile(h, 99));
        bt_json_end(json, '}');
    }
    bt_json_end(json, ']');
}

static void write_client(const bt_report *report, bt_json_out *json)
{
    const bt_client_load *load = &report->client_load;
    begin(json, "client", '{');
    put_double(json, "cpu_share_of_a_core", report->client_cpu_share);
    put_count(json, "loop_turns", load->turns);
    put_double(json, "loop_busy_s", (double)load->busy_ns / 1e9);
    put_double(json, "loop_longest_turn_s", (double)load->longest_ns / 1e9);
    put_count(json, "loop_turns_over_1ms", load->over_1ms);
    bt_json_end(json, '}');
}

static bt_status write_file(const bt_json_out *json, const char *path, bt_err *err)
{
    if (json->overflow) return BT_FAIL(err, BT_ERR_LIMIT, "%.120s: too long, or no memory", path);
    FILE *file = fopen(path, "we");
    if (!file) return BT_FAIL(err, BT_ERR_OS, "%.120s: %s", path, strerror(errno));
    bool ok = fwrite(json->data, 1, json->bytes, file) == json->bytes;
    ok = fclose(file) == 0 && ok;
    return ok ? BT_OK : BT_FAIL(err, BT_ERR_OS, "%.120s: %s", path, strerror(errno));
}

bt_status bt_report_json(bt_report *report, const char *path, bt_err *err)
{
    bt_json_out json;
    bt_json_init(&json, JSON_BYTES_MAX);
    bt_json_begin(&json, '{');
    put_text(&json, "schema", BT_REPORT_SCHEMA);
    put_bool(&json, "interrupted", report->interrupted);
    write_environment(report, &json);
    write_configuration(report, &json);
    write_client(report, &json);
    begin(&json, "servers", '[');
    for (unsigned i = 0; i < report->server_count; i++) write_server(report, i, &json);
    bt_json_end(&json, ']');
    write_histograms(report->handoff, &json);
    bt_json_end(&json, '}');
    bt_json_raw(&json, "\n");
    bt_status status = write_file(&json, path, err);
    bt_json_finish(&json);
    return status;
}
