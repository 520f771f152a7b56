#include "ops/cli/bench/options.h"

#include "common/base/exit_code.h"

#include <stdio.h>
#include <string.h>

#define UNSET UINT32_MAX

const char bt_bench_help[] =
    "usage: baton bench [--url URL] (--concurrency N | --rate R | --trace FILE) [options]\n\n"
    "Sends a load to an OpenAI-compatible server and measures what comes back: time to first\n"
    "token, time between tokens, end to end, rates. Stops with what it has at Ctrl-C.\n\n"
    "where to\n"
    "  --url URL              the server (default http://127.0.0.1:8000, a local router)\n"
    "  --model NAME           (default: the first of its /v1/models)\n"
    "  --endpoint E           completions (default) or chat\n"
    "  --api-key-file FILE    sent as Authorization: Bearer\n"
    "  --against URL          the same load on another server too, and the ratio of the figures\n"
    "  --against-model NAME   its name of the model\n"
    "  --order O              alternate (default): blocks of the load on the one, then on the "
    "other;\n"
    "                         together: both at once, for servers on machines of their own\n"
    "  --blocks N             blocks of the load (default: 8 with --against, fewer for short "
    "runs;\n"
    "                         else 1)\n\n"
    "when\n"
    "  --concurrency N        closed loop: N requests in flight (default 1); with --rate or "
    "--trace\n"
    "                         no more than N\n"
    "  --rate R               open loop: R requests a second, Poisson by the seed\n"
    "  --burstiness B         shape of the gamma distribution of the times between requests\n"
    "                         (default 1: Poisson; less is burstier)\n"
    "  --requests N           so many are measured (default 100, or the whole trace)\n"
    "  --duration T           or so long: 60s, 5min\n"
    "  --warmup N             requests before that are not measured (default: --concurrency, at\n"
    "                         most 16; 4 in an open loop)\n"
    "  --timeout T            of one request (default 10min)\n\n"
    "what\n"
    "  --input-tokens L       length of prompts: 512 (default), uniform:100-900 or\n"
    "                         lognormal:MEAN,SD\n"
    "  --output-tokens L      length of answers, the same (default 128)\n"
    "  --prefix-tokens N      so many tokens at the beginning of a prompt are shared\n"
    "  --prefixes K           among this many prefixes (default 1)\n"
    "  --trace FILE           times and lengths of Azure's CSV or Mooncake's JSON lines\n"
    "  --speed F              a trace F times as fast (default 1)\n"
    "  --limit N              the first N requests of the trace\n"
    "  --prompts FILE         prompts of JSON lines: {\"prompt\": …} or {\"messages\": …}\n"
    "  --respect-eos          answers may end early (else ignore_eos is asked for)\n"
    "  --temperature T        (default 0)\n"
    "  --prompt-form F        ids or text (default: ids where the server takes them)\n"
    "  --tokenizer DIR        folder with the model's tokenizer.json: what prompts are made of\n"
    "                         (default: the server's /tokenize, else words that it counts as one)\n"
    "  --token-ids A-B        or: prompts of ids from this range\n"
    "  --seed S               of lengths, prompts and times (default 1)\n\n"
    "figures\n"
    "  --slo LIST             goodput: requests within ttft=200ms,tpot=20ms,e2e=5s\n"
    "  --metrics URL          of a daemon, for the phases of the handoff; may be repeated "
    "(default:\n"
    "                         those of a Baton router's fleet)\n"
    "  --json FILE            configuration, environment, percentiles and histograms\n"
    "  --samples              each request and each gap too\n"
    "  --allow-errors         failed requests are figures, not a failure\n"
    "  --quiet                no progress\n\n"
    "Exit codes: 0 ok, 1 no figures, an interrupted run, or failed requests, 2 wrong usage.\n\n"
    "Example: baton bench --concurrency 4 --requests 40 --input-tokens 256 --output-tokens 32\n";

static int fail(const char *what)
{
    return bt_options_fail("bench", "%s", what);
}

static int one_of(const char *option, const char *value, const char *a, const char *b)
{
    if (!value || strcmp(value, a) == 0 || strcmp(value, b) == 0) return BT_EXIT_OK;
    return bt_options_fail("bench", "%s is %s or %s, not '%s'", option, a, b, value);
}

static int check_combinations(const bt_bench_options *o)
{
    if (o->trace && o->rate > 0) return fail("--rate and --trace exclude each other");
    if (o->trace && o->prompts) return fail("--trace and --prompts exclude each other");
    if (!o->trace && (o->speed != 1 || o->limit != UNSET))
        return fail("--speed and --limit need --trace");
    if (o->rate == 0 && o->burstiness != 1) return fail("--burstiness needs --rate");
    if (o->requests != UNSET && o->duration_ns > 0)
        return fail("--requests and --duration exclude each other");
    if (o->prefixes != 1 && o->prefix_tokens == 0) return fail("--prefixes needs --prefix-tokens");
    if (o->prompts && o->prefix_tokens > 0)
        return fail("--prompts and --prefix-tokens exclude each other");
    if (o->tokenizer && o->token_ids) return fail("--tokenizer and --token-ids exclude each other");
    if (!o->against && (o->against_model || o->order))
        return fail("--against-model and --order need --against");
    if (o->samples && !o->json) return fail("--samples needs --json");
    if (o->chat && o->prompt_form && strcmp(o->prompt_form, "ids") == 0)
        return fail("--endpoint chat takes no ids");
    return BT_EXIT_OK;
}

static int check_texts(bt_bench_options *o)
{
    bt_err err;
    int code = one_of("--endpoint", o->endpoint, "completions", "chat");
    if (code == BT_EXIT_OK) code = one_of("--order", o->order, "alternate", "together");
    if (code == BT_EXIT_OK) code = one_of("--prompt-form", o->prompt_form, "ids", "text");
    if (code != BT_EXIT_OK) return code;
    o->chat = o->endpoint && strcmp(o->endpoint, "chat") == 0;
    o->together = o->order && strcmp(o->order, "together") == 0;
    o->open_loop = o->rate > 0 || o->trace;
    if (bt_length_parse(o->input, &o->input_length, &err) != BT_OK)
        return bt_options_fail("bench", "--input-tokens: %s", err.message);
    if (bt_length_parse(o->output, &o->output_length, &err) != BT_OK)
        return bt_options_fail("bench", "--output-tokens: %s", err.message);
    if (o->slo_text && bt_slo_parse(o->slo_text, &o->slo, &err) != BT_OK)
        return bt_options_fail("bench", "--slo: %s", err.message);
    bt_server server;
    if (bt_server_init(&server, o->url, o->model, o->chat, &err) != BT_OK)
        return bt_options_fail("bench", "--url: %s", err.message);
    if (o->against && bt_server_init(&server, o->against, o->against_model, o->chat, &err) != BT_OK)
        return bt_options_fail("bench", "--against: %s", err.message);
    bt_vocab vocab = {0};
    if (o->token_ids && bt_vocab_range(&vocab, o->token_ids, &err) != BT_OK)
        return bt_options_fail("bench", "--token-ids: %s", err.message);
    bt_vocab_finish(&vocab);
    return check_combinations(o);
}

static void set_defaults(bt_bench_options *o)
{
    if (o->limit == UNSET && o->trace && o->requests != UNSET) o->limit = o->requests;
    if (o->requests == UNSET && o->duration_ns == 0 && !o->trace) o->requests = 100;
    if (o->concurrency == UNSET) o->concurrency = o->open_loop ? 0 : 1;
    if (o->warmup != UNSET) return;
    o->warmup = o->open_loop ? 4 : o->concurrency;
    if (o->warmup > 16) o->warmup = 16;
}

int bt_bench_options_parse(int argc, char **argv, bt_bench_options *ret_options)
{
    bt_bench_options o = {.url = "http://127.0.0.1:8000",
                          .input = "512",
                          .output = "128",
                          .concurrency = UNSET,
                          .requests = UNSET,
                          .warmup = UNSET,
                          .limit = UNSET,
                          .prefixes = 1,
                          .timeout_ns = 600000000000ull,
                          .seed = 1,
                          .burstiness = 1,
                          .speed = 1};
    const bt_option options[] = {
        {"--url", BT_OPTION_TEXT, &o.url, 0, 0},
        {"--model", BT_OPTION_TEXT, &o.model, 0, 0},
        {"--endpoint", BT_OPTION_TEXT, &o.endpoint, 0, 0},
        {"--api-key-file", BT_OPTION_TEXT, &o.api_key_file, 0, 0},
        {"--against", BT_OPTION_TEXT, &o.against, 0, 0},
        {"--against-model", BT_OPTION_TEXT, &o.against_model, 0, 0},
        {"--order", BT_OPTION_TEXT, &o.order, 0, 0},
        {"--blocks", BT_OPTION_U32, &o.blocks, 1, BT_RUN_BLOCKS_MAX},
        {"--concurrency", BT_OPTION_U32, &o.concurrency, 1, BT_RUN_CONCURRENCY_MAX},
        {"--rate", BT_OPTION_DOUBLE, &o.rate, 1e-6, 1e6},
        {"--burstiness", BT_OPTION_DOUBLE, &o.burstiness, 1e-3, 1e6},
        {"--requests", BT_OPTION_U32, &o.requests, 1, BT_LOAD_ARRIVALS_MAX},
        {"--duration", BT_OPTION_DURATION, &o.duration_ns, 0, 0},
        {"--warmup", BT_OPTION_U32, &o.warmup, 0, 100000},
        {"--timeout", BT_OPTION_DURATION, &o.timeout_ns, 0, 0},
        {"--input-tokens", BT_OPTION_TEXT, &o.input, 0, 0},
        {"--output-tokens", BT_OPTION_TEXT, &o.output, 0, 0},
        {"--prefix-tokens", BT_OPTION_U32, &o.prefix_tokens, 1, BT_DRAW_TOKENS_MAX - 1},
        {"--prefixes", BT_OPTION_U32, &o.prefixes, 1, 1000000},
        {"--trace", BT_OPTION_TEXT, &o.trace, 0, 0},
        {"--speed", BT_OPTION_DOUBLE, &o.speed, 1e-6, 1e6},
        {"--limit", BT_OPTION_U32, &o.limit, 1, BT_TRACE_REQUESTS_MAX},
        {"--prompts", BT_OPTION_TEXT, &o.prompts, 0, 0},
        {"--respect-eos", BT_OPTION_FLAG, &o.respect_eos, 0, 0},
        {"--temperature", BT_OPTION_DOUBLE, &o.temperature, 0, 2},
        {"--prompt-form", BT_OPTION_TEXT, &o.prompt_form, 0, 0},
        {"--tokenizer", BT_OPTION_TEXT, &o.tokenizer, 0, 0},
        {"--token-ids", BT_OPTION_TEXT, &o.token_ids, 0, 0},
        {"--seed", BT_OPTION_U64, &o.seed, 0, 0},
        {"--slo", BT_OPTION_TEXT, &o.slo_text, 0, 0},
        {"--metrics", BT_OPTION_TEXTS, &o.metrics, 0, 0},
        {"--json", BT_OPTION_TEXT, &o.json, 0, 0},
        {"--samples", BT_OPTION_FLAG, &o.samples, 0, 0},
        {"--allow-errors", BT_OPTION_FLAG, &o.allow_errors, 0, 0},
        {"--quiet", BT_OPTION_FLAG, &o.quiet, 0, 0},
    };
    int code = bt_options_parse(argc, argv, options, sizeof(options) / sizeof(options[0]));
    if (code == BT_EXIT_OK) code = check_texts(&o);
    if (code != BT_EXIT_OK) return code;
    set_defaults(&o);
    *ret_options = o;
    return BT_EXIT_OK;
}
