#include "ops/cli/bench/report.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

void bt_report_cpu(char *ret_text, size_t capacity)
{
    char line[512];
    snprintf(ret_text, capacity, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file && fgets(line, sizeof(line), file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(ret_text, capacity, "%s", colon + 1 + (colon[1] == ' '));
        break;
    }
    if (file) fclose(file);
}

static void print_server(const bt_report *report, unsigned i, FILE *out)
{
    const bt_server *server = &report->servers[i];
    const char *counted[] = {"events with text", "running usage", "token ids"};
    fprintf(out, "%-12s%s  model %s",
            report->server_count == 1 ? "server"
            : i == 0                  ? "A"
                                      : "B",
            server->base, server->model);
    if (server->owner[0] != '\0') fprintf(out, "  of %s", server->owner);
    if (server->version[0] != '\0') fprintf(out, " %s", server->version);
    fprintf(out, "\n%-12sprompts as %s, tokens counted by %s\n", "",
            report->results[i]->record_count > 0 && server->body.ids ? "token ids" : "text",
            counted[report->results[i]->counted]);
}

static void print_lengths(const bt_summary *s, FILE *out)
{
    double n = s->ok > 0 ? s->ok : 1;
    if (s->output_off > 0)
        fprintf(out,
                "%-12sWARNING: %u of %u answers have another length than was asked (%u to %u "
                "tokens)\n",
                "", s->output_off, s->ok, s->output_low, s->output_high);
    if (s->input_off > 0)
        fprintf(out,
                "%-12sWARNING: %u of %u prompts have another length than was asked, as the server "
                "counts (%u to %u tokens)\n",
                "", s->input_off, s->ok, s->input_low, s->input_high);
    if (s->input_unknown > 0)
        fprintf(out, "%-12sthe server gave no usage for %u answers: their prompts count as asked\n",
                "", s->input_unknown);
    if (s->gaps_inexact > 0)
        fprintf(out,
                "%-12sin %u of %u answers only events with text could be counted: ITL is between "
                "those\n",
                "", s->gaps_inexact, s->ok);
    if (s->token_events > 0 && (double)s->output_tokens / (double)s->token_events > 1.02)
        fprintf(out, "%-12s%.2f tokens an event: those after its first have a gap of 0\n", "",
                (double)s->output_tokens / (double)s->token_events);
    fprintf(out, "%-12s%.1f tokens in (%.1f of them cached), %.1f out, on average\n", "",
            (double)s->input_tokens / n, (double)s->cached_tokens / n,
            (double)s->output_tokens / n);
}

static void print_counts(const bt_report *report, unsigned i, FILE *out)
{
    const bt_summary *s = &report->summaries[i];
    const bt_result *result = report->results[i];
    fprintf(out, "%-12s%u ok, %u failed", "", s->ok, s->failed);
    if (s->cancelled > 0) fprintf(out, ", %u cut off by the end", s->cancelled);
    fprintf(out, " in %.2f s", s->window_s);
    if (report->blocks > 1) fprintf(out, " of %u blocks", result->block_count);
    fprintf(out, ", %u connections made\n", result->fresh_connections);
    for (uint32_t e = 0; e < result->error_kinds; e++) {
        const bt_run_error *error = &result->errors[e];
        char status[16] = "";
        if (error->outcome == BT_OUTCOME_HTTP)
            snprintf(status, sizeof(status), "_%d", error->http_status);
        fprintf(out, "%-12s%u x %s%s: %s\n", "", error->count, bt_outcome_name(error->outcome),
                status, error->message);
    }
    if (s->ok > 0) print_lengths(s, out);
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : NAN;
}

/* A rate of each server, and their ratio. */
static void print_rate(const bt_report *report, const char *name, const double *rates, FILE *out)
{
    fprintf(out, "%-20s", name);
    for (unsigned i = 0; i < report->server_count; i++) fprintf(out, " %12.2f", rates[i]);
    if (report->server_count > 1) fprintf(out, " %12.3f", ratio(rates[0], rates[1]));
    fputc('\n', out);
}

static void print_rates(const bt_report *report, FILE *out)
{
    double rates[4][BT_RUN_SERVERS_MAX];
    for (unsigned i = 0; i < report->server_count; i++) {
        const bt_summary *s = &report->summaries[i];
        rates[0][i] = bt_summary_rate(s, s->ok);
        rates[1][i] = bt_summary_rate(s, (double)s->input_tokens);
        rates[2][i] = bt_summary_rate(s, (double)s->output_tokens);
        rates[3][i] = bt_summary_rate(s, s->good);
    }
    fprintf(out, "\n%-20s", "per second");
    if (report->server_count > 1) fprintf(out, " %12s %12s %12s", "A", "B", "A / B");
    fputc('\n', out);
    print_rate(report, "requests", rates[0], out);
    print_rate(report, "input tokens", rates[1], out);
    print_rate(report, "output tokens", rates[2], out);
    if (report->slo->any) print_rate(report, "goodput, requests", rates[3], out);
}

static void row(const bt_sample_summary *s, double ret_values[5])
{
    const double values[5] = {s->mean, s->p50, s->p90, s->p99, s->max};
    memcpy(ret_values, values, sizeof(values));
}

static void print_measure(const bt_report *report, bt_measure measure, FILE *out)
{
    double values[BT_RUN_SERVERS_MAX][5];
    for (unsigned i = 0; i < report->server_count; i++) {
        row(&report->summaries[i].measures[measure], values[i]);
        fprintf(out, "%-14s %-5s", i == 0 ? bt_measure_title(measure) : "",
                report->server_count == 1 ? ""
                : i == 0                  ? "A"
                                          : "B");
        for (unsigned k = 0; k < 5; k++) fprintf(out, " %12.3f", values[i][k] / 1e6);
        fputc('\n', out);
    }
    if (report->server_count == 1) return;
    fprintf(out, "%-14s %-5s", "", "A / B");
    for (unsigned k = 0; k < 5; k++) fprintf(out, " %12.3f", ratio(values[0][k], values[1][k]));
    fputc('\n', out);
}

/* The smallest and the largest ratio of the medians in one block. False without two blocks. */
static bool ratio_range(bt_report *report, bt_measure measure, double *ret_low, double *ret_high)
{
    uint32_t blocks = report->results[0]->block_count;
    if (report->results[1]->block_count < blocks) blocks = report->results[1]->block_count;
    bool any = false;
    for (uint32_t b = 0; b < blocks && blocks > 1; b++) {
        double p50[2] = {0, 0};
        for (unsigned i = 0; i < 2; i++) {
            bt_summary s;
            if (bt_summary_make(report->results[i], report->open_loop, report->slo, b, 1, &s,
                                NULL) != BT_OK)
                return false;
            p50[i] = s.measures[measure].p50;
            bt_summary_finish(&s);
        }
        double r = ratio(p50[0], p50[1]);
        if (!(r > 0)) continue;
        if (!any || r < *ret_low) *ret_low = r;
        if (!any || r > *ret_high) *ret_high = r;
        any = true;
    }
    return any;
}

static void print_measures(bt_report *report, FILE *out)
{
    fprintf(out, "\n%-20s %12s %12s %12s %12s %12s\n", "ms", "mean", "p50", "p90", "p99", "max");
    for (unsigned m = 0; m < BT_MEASURES; m++) {
        if (m == BT_MEASURE_TTFT_SENT && !report->open_loop) continue;
        print_measure(report, m, out);
    }
    if (report->server_count == 1 || report->blocks == 1) return;
    fputs("\nA / B of the p50 in each block, smallest to largest:", out);
    static const bt_measure of[] = {BT_MEASURE_TTFT, BT_MEASURE_TPOT, BT_MEASURE_ITL,
                                    BT_MEASURE_E2E};
    for (unsigned i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
        double low, high;
        if (ratio_range(report, of[i], &low, &high))
            fprintf(out, "%s %s %.3f to %.3f", i > 0 ? "," : "", bt_measure_title(of[i]), low,
                    high);
    }
    fputc('\n', out);
}

/* What a row of the servers' own histograms is called, or NULL for one that is not shown. */
static const char *histogram_title(const bt_scrape_histogram *h, char *buffer, size_t capacity)
{
    if (strcmp(h->name, "baton_time_to_first_token_seconds") == 0) return "router: TTFT";
    if (strcmp(h->name, "baton_inter_token_latency_seconds") == 0) return "router: ITL";
    if (strcmp(h->name, "baton_handoff_seconds") != 0) return NULL;
    char phase[32] = "";
    sscanf(h->labels, "phase=\"%31[^\"]\"", phase);
    snprintf(buffer, capacity, "handoff: %s", phase);
    return buffer;
}

static void print_server_histograms(const bt_report *report, FILE *out)
{
    if (!report->handoff) return;
    fprintf(out, "\n%-20s %12s %12s %12s %12s %12s\n", "the fleet's own, ms", "mean", "p50", "p90",
            "p99", "count");
    for (uint32_t i = 0; i < report->handoff->count; i++) {
        const bt_scrape_histogram *h = &report->handoff->list[i];
        char buffer[64];
        double count = bt_scrape_count(h);
        const char *title = histogram_title(h, buffer, sizeof(buffer));
        if (count < 1 || !title) continue;
        fprintf(out, "%-20s %12.3f %12.3f %12.3f %12.3f %12.0f\n", title, h->sum / count * 1e3,
                bt_scrape_percentile(h, 50) * 1e3, bt_scrape_percentile(h, 90) * 1e3,
                bt_scrape_percentile(h, 99) * 1e3, count);
    }
    if (report->daemons_unreachable > 0)
        fprintf(out, "%u daemons are missing: their metrics cannot be reached from here\n",
                report->daemons_unreachable);
}

static void print_client(const bt_report *report, FILE *out)
{
    const bt_client_load *load = &report->client_load;
    fprintf(out,
            "\nclient: %.0f %% of a core; longest turn of its loop %.3f ms, %.2f %% of the turns "
            "above 1 ms; load of this machine %.1f before, %.1f after\n",
            report->client_cpu_share * 100, (double)load->longest_ns / 1e6,
            load->turns > 0 ? 100.0 * (double)load->over_1ms / (double)load->turns : 0,
            report->load_before, report->load_after);
    if (report->client_cpu_share > 0.8)
        fputs("WARNING: the client used more than 80 % of a core: it may have measured itself\n",
              out);
    if (report->interrupted)
        fputs("INTERRUPTED: these are the requests that had ended by then\n", out);
}

void bt_report_table(bt_report *report, FILE *out)
{
    fprintf(out, "%-12s%s\n", "load", report->load_text);
    for (unsigned i = 0; i < report->server_count; i++) {
        print_server(report, i, out);
        print_counts(report, i, out);
    }
    print_rates(report, out);
    print_measures(report, out);
    print_server_histograms(report, out);
    print_client(report, out);
}
