/* logits.c - `baton logits`: the logits after a prompt, to compare with other implementations. */
#include "common/base/crypto.h"
#include "common/engine/generate.h"
#include "ops/cli/command.h"
#include "ops/cli/options.h"
#include "ops/cli/prompt.h"

#include <stdio.h>

static const char help[] =
    "usage: baton logits --model DIR (--ids 1,2,3 | --prompt TEXT) [options]\n\n"
    "Prints the logits of the token after the prompt as a JSON array, one number for each id of\n"
    "the vocabulary.\n\n"
    "  --model DIR      Hugging Face checkpoint folder\n"
    "  --ids 1,2,3      token ids of the prompt, or\n"
    "  --prompt TEXT    its text\n"
    "  --kv-dtype T     KV pool: f32, bf16, fp8, int8 (default: f32 for f32 weights, else bf16)\n"
    "  --compute T      of matrix products: f32, bf16, int8 (default: f32)\n"
    "  --threads N      (default: one for each core)\n\n"
    "Exit codes: 0 done, 1 the model cannot be run or the prompt is too long, 2 wrong usage.\n\n"
    "Example: baton logits --model ops/model --prompt Once\n";

typedef struct {
    const char *model, *prompt, *ids;
    bt_generator_config config;
} options;

static int parse_options(int argc, char **argv, options *o)
{
    bt_err err;
    *o = (options){.config = {.block_tokens = 16}};
    const bt_option table[] = {
        {.name = "--model", .kind = BT_OPTION_TEXT, .value = &o->model},
        {.name = "--prompt", .kind = BT_OPTION_TEXT, .value = &o->prompt},
        {.name = "--ids", .kind = BT_OPTION_TEXT, .value = &o->ids},
        {.name = "--kv-dtype", .kind = BT_OPTION_KV, .value = &o->config.kv_dtype},
        {.name = "--compute", .kind = BT_OPTION_COMPUTE, .value = &o->config.compute},
        {"--threads", BT_OPTION_U32, &o->config.threads, 1, 256},
    };
    int code = bt_options_parse(argc, argv, table, sizeof(table) / sizeof(table[0]));
    if (code != BT_EXIT_OK) return code;
    if (!o->model) return bt_options_fail(argv[0], "--model is missing");
    if (!o->prompt == !o->ids) return bt_options_fail(argv[0], "give one of --prompt and --ids");
    if (o->ids && bt_cli_ids_check(o->ids, &err) != BT_OK)
        return bt_options_fail(argv[0], "--ids: %s", err.message);
    return BT_EXIT_OK;
}

static void print_logits(const float *logits, uint32_t vocab)
{
    for (uint32_t i = 0; i < vocab; i++) printf("%s%.9g", i ? ", " : "[", (double)logits[i]);
    puts("]");
}

static bt_status compute(options *o, bt_err *err)
{
    bt_cli_prompt prompt;
    bt_generator *generator = NULL;
    const float *logits = NULL;
    bt_status status = bt_cli_prompt_open(o->model, o->prompt, o->ids, &prompt, err);
    if (status != BT_OK) return status;
    if (prompt.count <= bt_model_config_of(prompt.model)->context_tokens_max)
        o->config.context_tokens_max = prompt.count;
    status = bt_generator_create(prompt.model, &o->config, &generator, err);
    if (status == BT_OK) {
        const bt_prompt ids = {.ids = prompt.ids, .count = prompt.count};
        status = bt_generate_logits(generator, &ids, &logits, err);
    }
    if (status == BT_OK) print_logits(logits, bt_model_config_of(prompt.model)->vocab);
    bt_generator_destroy(generator);
    bt_cli_prompt_close(&prompt);
    return status;
}

static int run_logits(int argc, char **argv)
{
    options o;
    bt_err err = {0};
    int code = parse_options(argc, argv, &o);
    if (code != BT_EXIT_OK) return code;
    if (bt_crypto_start(&err) != BT_OK || compute(&o, &err) != BT_OK) {
        fprintf(stderr, "baton logits: %s\n", err.message);
        return BT_EXIT_FAILURE;
    }
    return fflush(stdout) == 0 ? BT_EXIT_OK : BT_EXIT_FAILURE;
}

const bt_cli_command bt_cli_logits = {
    .name = "logits",
    .summary = "print the logits after a prompt",
    .help = help,
    .run = run_logits,
};
