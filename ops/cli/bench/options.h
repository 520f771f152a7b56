/* options.h - the command line of `baton bench`, checked as far as it can be without a server. */
#ifndef BT_OPS_CLI_BENCH_OPTIONS_H
#define BT_OPS_CLI_BENCH_OPTIONS_H

#include "ops/cli/bench/run.h"
#include "ops/cli/bench/summary.h"
#include "ops/cli/options.h"

typedef struct {
    const char *url, *against, *model, *against_model, *endpoint, *api_key_file;
    const char *tokenizer, *token_ids, *prompt_form, *input, *output, *trace, *prompts, *order;
    const char *slo_text, *json;
    bt_option_texts metrics;
    uint32_t concurrency, requests, warmup, blocks, prefix_tokens, prefixes, limit;
    uint64_t duration_ns, timeout_ns, seed;
    double rate, burstiness, speed, temperature;
    bool samples, quiet, allow_errors, respect_eos;
    /* Made of the above. */
    bool chat, together, open_loop;
    bt_length input_length, output_length;
    bt_slo slo;
} bt_bench_options;

extern const char bt_bench_help[];

/* Returns BT_EXIT_OK, or BT_EXIT_USAGE after one line on stderr. */
int bt_bench_options_parse(int argc, char **argv, bt_bench_options *ret_options);

#endif
