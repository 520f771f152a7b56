/* bench.c - `baton bench`: asks the servers what they understand, runs the load, reports.
 *
 * The steps in order: options.h -> server.h (ask, probe) and vocab.h (what prompts are made of) ->
 * load.h (which requests, when) -> run.h over http.h (sends them, reads stream.h) -> summary.h ->
 * report.h. docs/bench.md is the method. */
#include "common/base/clock.h"
#include "common/base/parse.h"
#include "ops/cli/bench/options.h"
#include "ops/cli/bench/progress.h"
#include "ops/cli/bench/report.h"
#include "ops/cli/command.h"

#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define DAEMONS_MAX 128u
#define KEY_BYTES_MAX 4096u

typedef struct {
    bt_bench_options options;
    int argc;
    char **argv;
    bt_client *http;
    bt_json_out json; /* scratch of the probes */
    bt_server servers[BT_RUN_SERVERS_MAX];
    unsigned server_count;
    bt_vocab vocab;
    bt_trace trace;
    bt_prompts prompts;
    bt_load load;
    bt_run *run;
    bt_scrape before, handoff;
    char *daemons[DAEMONS_MAX]; /* metrics URLs of the fleet */
    unsigned daemon_count, unreachable;
    bool scraped;
    double load_before, cpu_s;
    uint64_t began_wall_ns, began_ns, measured_ns;
    char load_text[512];
    bt_progress progress;
} bench;

static double load_average(void)
{
    double average = 0;
    return getloadavg(&average, 1) == 1 ? average : 0;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* ---- before the run ---- */

/* From now on http.h reads them. Files are read before: one may be a pipe that nobody writes to. */
static void block_signals(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
}

static bt_status open_http(bench *b, bt_err *err)
{
    char authorization[KEY_BYTES_MAX] = "";
    if (b->options.api_key_file) {
        char *key;
        size_t bytes;
        bt_status status =
            bt_bench_read_file(b->options.api_key_file, KEY_BYTES_MAX - 32, &key, &bytes, err);
        if (status != BT_OK) return status;
        key[strcspn(key, "\r\n")] = '\0';
        snprintf(authorization, sizeof(authorization), "Bearer %s", key);
        free(key);
    }
    block_signals();
    uint32_t connections = b->options.concurrency > 0 ? b->options.concurrency : 1024;
    return bt_client_create(b->server_count * connections,
                            authorization[0] != '\0' ? authorization : NULL,
                            b->options.timeout_ns / BT_NS_PER_MS, &b->http, err);
}

static bt_status ask_servers(bench *b, bt_err *err)
{
    const bt_bench_options *o = &b->options;
    const char *urls[] = {o->url, o->against}, *models[] = {o->model, o->against_model};
    for (unsigned i = 0; i < b->server_count; i++) {
        bt_server *server = &b->servers[i];
        bt_status status = bt_server_init(server, urls[i], models[i], o->chat, err);
        server->body.temperature = o->temperature;
        if (status == BT_OK) status = bt_server_ask(server, b->http, err);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

/* Prompts come from a file, a range or a tokenizer (open_load), else from the words that /tokenize or
 * the usage of short requests knows. */
static bt_status make_vocab(bench *b, bt_err *err)
{
    const bt_bench_options *o = &b->options;
    if (o->prompts) return BT_OK;
    if (b->vocab.id_count > 0) return BT_OK;
    bt_server_counter counter = {&b->servers[0], b->http, &b->json};
    uint32_t tokens, ids;
    b->servers[0].tokenizes = true; /* until it turns out not to */
    bt_status status = bt_server_count(&counter, " the", &tokens, NULL, 0, &ids, err);
    return status == BT_OK ? bt_vocab_words(&b->vocab, bt_server_count, &counter, err) : status;
}

/* The same form for both servers, so that they get the same prompts. */
static bt_status probe_servers(bench *b, bt_err *err)
{
    const bt_bench_options *o = &b->options;
    bool ids = !o->prompt_form || strcmp(o->prompt_form, "ids") == 0;
    for (unsigned i = 0; i < b->server_count; i++) {
        bt_server *server = &b->servers[i];
        bt_status status =
            bt_server_probe(server, b->http, &b->vocab, ids, !o->respect_eos, &b->json, err);
        if (status != BT_OK) return status;
        if (ids && !server->body.ids) {
            if (i > 0) b->servers[0].body.ids = false;
            ids = false;
        }
    }
    if (o->prompt_form && strcmp(o->prompt_form, "ids") == 0 && !ids)
        return BT_FAIL(err, BT_ERR_PEER_LOST, "a server takes no token ids as prompt");
    if (!o->prompts && !b->servers[0].body.ids && b->vocab.word_count == 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "a server takes no token ids, and no words are known: give --tokenizer DIR");
    return BT_OK;
}

static bt_status check_context(const bench *b, bt_err *err)
{
    const bt_bench_options *o = &b->options;
    uint32_t context = b->servers[0].context_tokens;
    if (context == 0 || o->prompts || o->trace) return BT_OK;
    if (o->input_length.kind == BT_LENGTH_LOGNORMAL || o->output_length.kind == BT_LENGTH_LOGNORMAL)
        return BT_OK;
    uint64_t most =
        (uint64_t)bt_length_likely_max(&o->input_length) + bt_length_likely_max(&o->output_length);
    if (most <= context) return BT_OK;
    return BT_FAIL(err, BT_ERR_ARGUMENT,
                   "up to %llu tokens in and out, but the server's context is %u: lower "
                   "--input-tokens or --output-tokens",
                   (unsigned long long)most, context);
}

static bt_status open_load(bench *b, bt_err *err)
{
    const bt_bench_options *o = &b->options;
    bt_status status = BT_OK;
    if (o->trace) status = bt_trace_read(o->trace, o->limit, &b->trace, err);
    if (status == BT_OK && o->prompts)
        status = bt_prompts_read(o->prompts, o->chat, &b->prompts, err);
    if (status == BT_OK && o->token_ids) status = bt_vocab_range(&b->vocab, o->token_ids, err);
    if (status == BT_OK && o->tokenizer) status = bt_vocab_tokenizer(&b->vocab, o->tokenizer, err);
    if (status != BT_OK) return status;
    const bt_load_options load = {
        .seed = o->seed,
        .input = o->input_length,
        .output = o->output_length,
        .prefix_tokens = o->prefix_tokens,
        .prefixes = o->prefixes,
        .rate = o->rate,
        .burstiness = o->burstiness,
        .speed = o->speed,
        .trace = o->trace ? &b->trace : NULL,
        .prompts = o->prompts ? &b->prompts : NULL,
    };
    return bt_load_open(&load, o->open_loop, o->requests,
                        o->duration_ns > 0 ? o->duration_ns : UINT64_MAX, &b->load, err);
}

/* Enough requests for each block that its beginning and end are a small part of it. */
static uint32_t choose_blocks(const bench *b)
{
    const bt_bench_options *o = &b->options;
    if (o->blocks > 0) return o->blocks;
    if (b->server_count == 1 || o->together) return 1;
    if (o->requests == UINT32_MAX && !o->open_loop) return 8;
    uint32_t total = o->open_loop ? b->load.arrival_count : o->requests;
    uint32_t width = o->concurrency > 0 ? 4 * o->concurrency : 8;
    uint32_t blocks = total / width;
    return blocks < 2 ? (total >= 2 ? 2 : 1) : blocks > 8 ? 8 : blocks;
}

static void describe_load(bench *b, uint32_t blocks)
{
    const bt_bench_options *o = &b->options;
    char *at = b->load_text, *end = at + sizeof(b->load_text), time[BT_UNIT_TEXT_BYTES];
#define SAY(...) at += at < end ? snprintf(at, (size_t)(end - at), __VA_ARGS__) : 0
    if (o->trace)
        SAY("open loop, trace of format %s at %g times its speed", b->trace.format, o->speed);
    else if (o->open_loop)
        SAY("open loop, %g requests/s, burstiness %g", o->rate, o->burstiness);
    else
        SAY("closed loop, %u in flight", o->concurrency);
    if (o->open_loop && o->concurrency > 0) SAY(", at most %u in flight", o->concurrency);
    if (o->open_loop)
        SAY("; %u requests", b->load.arrival_count);
    else if (o->requests != UINT32_MAX)
        SAY("; %u requests", o->requests);
    else
        SAY("; %s", bt_format_duration_ns(o->duration_ns, time));
    if (o->prompts)
        SAY(" of %u prompts from a file, %s tokens out", b->prompts.count, o->output);
    else if (!o->trace)
        SAY(" of %s tokens in, %s out", o->input, o->output);
    if (o->prefix_tokens > 0)
        SAY(", %u of them of one of %u prefixes", o->prefix_tokens, o->prefixes);
    if (blocks > 1)
        SAY("; %u blocks, %s", blocks,
            b->server_count == 1 ? "one after the other"
            : o->together        ? "both servers at once"
                                 : "the servers in turn (A B, B A, …)");
    SAY("; seed %llu", (unsigned long long)o->seed);
#undef SAY
}

/* ---- metrics of a Baton fleet ---- */

/* The daemons that the router knows, by their metrics URLs (GET /fleet, docs/api.md). */
static bt_status ask_fleet(bench *b, bt_err *err)
{
    char url[BT_SERVER_URL_BYTES + 16];
    snprintf(url, sizeof(url), "%s/fleet", b->servers[0].base);
    bt_client_answer answer;
    bt_status status = bt_client_fetch(b->http, url, NULL, 0, &answer, err);
    if (status != BT_OK) return status;
    json_t *fleet = json_loadb(answer.text, answer.bytes, 0, NULL);
    free(answer.text);
    const json_t *daemons = json_object_get(fleet, "daemons");
    for (size_t i = 0; i < json_array_size(daemons); i++) {
        const json_t *daemon = json_array_get(daemons, i);
        const char *metrics = json_string_value(json_object_get(daemon, "metrics"));
        bool up = json_is_true(json_object_get(daemon, "up"));
        if (!up || !metrics || metrics[0] == '\0' || b->daemon_count == DAEMONS_MAX) continue;
        char *copy = strdup(metrics);
        if (copy) b->daemons[b->daemon_count++] = copy;
    }
    json_decref(fleet);
    return BT_OK;
}

static bt_status scrape_one(bench *b, const char *url, bt_scrape *scrape, bt_err *err)
{
    bt_client_answer answer;
    bt_status status = bt_client_fetch(b->http, url, NULL, 0, &answer, err);
    if (status != BT_OK) return status;
    if (answer.status == 200)
        status = bt_scrape_add(scrape, answer.text, answer.bytes, "baton_", err);
    else
        status = BT_FAIL(err, BT_ERR_PEER_LOST, "%.100s: HTTP %ld", url, answer.status);
    free(answer.text);
    return status;
}

/* A daemon whose metrics cannot be reached from here is left out, and counted; one that the user
 * named is an error. */
static bt_status scrape_all(bench *b, bt_scrape *scrape, bt_err *err)
{
    const bt_option_texts *named = &b->options.metrics;
    bt_status status = BT_OK;
    memset(scrape, 0, sizeof(*scrape));
    b->unreachable = 0;
    if (b->servers[0].baton) {
        char url[BT_SERVER_URL_BYTES + 16];
        snprintf(url, sizeof(url), "%s/metrics", b->servers[0].base);
        status = scrape_one(b, url, scrape, err);
    }
    for (unsigned i = 0; i < named->count && status == BT_OK; i++)
        status = scrape_one(b, named->items[i], scrape, err);
    for (unsigned i = 0; i < b->daemon_count && named->count == 0 && status == BT_OK; i++) {
        bt_err inner;
        status = scrape_one(b, b->daemons[i], scrape, &inner);
        if (status == BT_OK || bt_client_interrupted(b->http)) continue;
        b->unreachable++;
        status = BT_OK;
    }
    b->scraped = b->servers[0].baton || named->count > 0;
    return status;
}

/* ---- the run ---- */

static bt_status measure(bench *b, bt_err *err)
{
    bt_status status = bt_run_warm(b->run, err);
    if (status == BT_OK && !bt_client_interrupted(b->http)) status = scrape_all(b, &b->before, err);
    if (status != BT_OK) return status;
    *bt_client_load_of(b->http) = (bt_client_load){0};
    b->load_before = load_average();
    b->cpu_s = cpu_seconds();
    b->began_wall_ns = bt_wall_ns();
    b->began_ns = bt_monotonic_ns();
    bt_progress_begin(&b->progress, b->began_ns);
    status = bt_run_measure(b->run, err);
    bt_progress_end(&b->progress);
    b->measured_ns = bt_monotonic_ns() - b->began_ns;
    b->cpu_s = cpu_seconds() - b->cpu_s;
    return status;
}

static bt_status report(bench *b, uint32_t blocks, bt_report *r, bt_err *err)
{
    const bt_bench_options *o = &b->options;
    bool interrupted = bt_client_interrupted(b->http);
    *r = (bt_report){
        .argc = b->argc,
        .argv = b->argv,
        .load_text = b->load_text,
        .seed = o->seed,
        .slo = &o->slo,
        .open_loop = o->open_loop,
        .together = o->together,
        .interrupted = interrupted,
        .samples = o->samples,
        .blocks = blocks,
        .warmup = o->warmup,
        .client_cpu_share = b->measured_ns > 0 ? b->cpu_s * 1e9 / (double)b->measured_ns : 0,
        .client_load = *bt_client_load_of(b->http),
        .load_before = b->load_before,
        .load_after = load_average(),
        .began_wall_ns = b->began_wall_ns,
        .servers = b->servers,
        .server_count = b->server_count,
        .handoff = b->scraped && !interrupted ? &b->handoff : NULL,
        .daemons_unreachable = b->unreachable,
    };
    for (unsigned i = 0; i < b->server_count; i++) {
        r->results[i] = bt_run_result(b->run, i);
        bt_status status = bt_summary_make(r->results[i], o->open_loop, &o->slo, 0,
                                           r->results[i]->block_count, &r->summaries[i], err);
        if (status != BT_OK) return status;
    }
    bt_report_table(r, stdout);
    return o->json ? bt_report_json(r, o->json, err) : BT_OK;
}

/* What a run that went to its end has to say beyond its figures. */
static bt_status verdict(const bench *b, const bt_report *r, bt_err *err)
{
    uint32_t ok = 0, failed = 0;
    for (unsigned i = 0; i < b->server_count; i++) {
        ok += r->summaries[i].ok;
        failed += r->summaries[i].failed;
        if (r->summaries[i].ok == 0 && !r->interrupted)
            return BT_FAIL(err, BT_ERR_PEER_LOST, "%.100s answered no request", b->servers[i].base);
    }
    if (r->interrupted)
        return BT_FAIL(err, BT_ERR_CANCELLED, "interrupted after %u requests", ok + failed);
    if (failed > 0 && !b->options.allow_errors)
        return BT_FAIL(err, BT_ERR_PEER_LOST, "%u of %u requests failed", failed, ok + failed);
    return BT_OK;
}

static bt_status run_and_report(bench *b, bt_err *err)
{
    const bt_bench_options *o = &b->options;
    uint32_t blocks = choose_blocks(b);
    describe_load(b, blocks);
    uint64_t total = o->open_loop ? b->load.arrival_count : o->requests;
    bt_progress_init(&b->progress, b->server_count, total == UINT32_MAX ? 0 : total, o->duration_ns,
                     o->quiet);
    const bt_run_options options = {
        .servers = b->servers,
        .server_count = b->server_count,
        .load = &b->load,
        .vocab = &b->vocab,
        .open_loop = o->open_loop,
        .together = o->together,
        .concurrency = o->concurrency,
        .requests = o->requests,
        .duration_ns = o->duration_ns,
        .blocks = blocks,
        .warmup = o->warmup,
        .timeout_ms = o->timeout_ns / BT_NS_PER_MS,
        .on_progress = bt_progress_show,
        .arg = &b->progress,
    };
    bt_status status = bt_run_create(&options, b->http, &b->run, err);
    if (status == BT_OK) status = measure(b, err);
    if (status == BT_OK && b->scraped && !bt_client_interrupted(b->http)) {
        status = scrape_all(b, &b->handoff, err);
        bt_scrape_subtract(&b->handoff, &b->before);
    }
    if (status != BT_OK) return status;
    bt_report r;
    status = report(b, blocks, &r, err);
    if (status == BT_OK) status = verdict(b, &r, err);
    for (unsigned i = 0; i < b->server_count; i++) bt_summary_finish(&r.summaries[i]);
    return status;
}

/* A run is not to end with figures that have nowhere to go. */
static bt_status check_json(const char *path, bt_err *err)
{
    FILE *file = path ? fopen(path, "ae") : NULL;
    if (path && !file) return BT_FAIL(err, BT_ERR_OS, "%.120s: %s", path, strerror(errno));
    if (file) fclose(file);
    return BT_OK;
}

static bt_status bench_all(bench *b, bt_err *err)
{
    bt_status status = check_json(b->options.json, err);
    if (status == BT_OK) status = open_load(b, err);
    if (status == BT_OK) status = open_http(b, err);
    if (status == BT_OK) status = ask_servers(b, err);
    if (status == BT_OK) status = check_context(b, err);
    if (status == BT_OK && b->servers[0].baton) status = ask_fleet(b, err);
    if (status == BT_OK) status = make_vocab(b, err);
    if (status == BT_OK) status = probe_servers(b, err);
    if (status == BT_OK) status = run_and_report(b, err);
    return status;
}

static void close_all(bench *b)
{
    bt_run_destroy(b->run);
    bt_client_destroy(b->http);
    bt_load_close(&b->load);
    bt_vocab_finish(&b->vocab);
    bt_trace_finish(&b->trace);
    bt_prompts_finish(&b->prompts);
    bt_json_finish(&b->json);
    for (unsigned i = 0; i < b->daemon_count; i++) free(b->daemons[i]);
}

/* A broken connection is an error of its request, no SIGPIPE. Each request in flight is a descriptor. */
static void prepare_process(void)
{
    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int run_bench(int argc, char **argv)
{
    bench *b = calloc(1, sizeof(*b));
    if (!b) return BT_EXIT_FAILURE;
    int code = bt_bench_options_parse(argc, argv, &b->options);
    if (code != BT_EXIT_OK) {
        free(b);
        return code;
    }
    bt_err err = {0};
    b->argc = argc;
    b->argv = argv;
    b->server_count = b->options.against ? 2 : 1;
    bt_json_init(&b->json, BT_LOAD_BODY_MAX);
    prepare_process();
    curl_global_init(CURL_GLOBAL_DEFAULT);
    bt_status status = bench_all(b, &err);
    close_all(b);
    free(b);
    curl_global_cleanup();
    if (status == BT_OK) return fflush(stdout) == 0 ? BT_EXIT_OK : BT_EXIT_FAILURE;
    fflush(stdout);
    fprintf(stderr, "baton bench: %s\n", err.message);
    return BT_EXIT_FAILURE;
}

const bt_cli_command bt_cli_bench = {
    .name = "bench",
    .summary = "measure a server under load, or two side by side",
    .help = bt_bench_help,
    .run = run_bench,
};
