/* generate.c - `baton generate`: one prompt in one process, the oracle of what a fleet answers. */
#include "common/engine/generate.h"

#include "common/base/crypto.h"
#include "common/text/detok.h"
#include "ops/cli/command.h"
#include "ops/cli/options.h"
#include "ops/cli/prompt.h"
#include "ops/cli/sampling.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: baton generate --model DIR (--prompt TEXT | --ids 1,2,3) [options]\n\n"
    "Generates the continuation of one prompt in this process and prints it. With any of --wire,\n"
    "--prefill-kv-dtype and --prefill-block-size the prompt is computed in one engine and its KV\n"
    "goes through the wire form into another, which decodes: a fleet with the same settings "
    "answers\n"
    "the same, token for token.\n\n"
    "  --model DIR               Hugging Face checkpoint folder\n"
    "  --prompt TEXT             the prompt, or\n"
    "  --ids 1,2,3               its token ids\n"
    "  --max-tokens N            tokens to generate at most (default 16)\n"
    "  --temperature T           0 is greedy (default)\n"
    "  --top-k K                 sample from the K most likely tokens (default 0: all)\n"
    "  --top-p P                 sample from the most likely tokens that reach P (default 1: all)\n"
    "  --min-p P                 sample from tokens at least P times as likely as the first\n"
    "  --seed S                  of the random numbers (default 0)\n"
    "  --repetition-penalty R    divide the logits of tokens that occurred, prompt included, by R\n"
    "                            (multiply negative ones)\n"
    "  --presence-penalty P      take P from the logits of tokens that were generated, once (-2 to "
    "2)\n"
    "  --frequency-penalty F     take F from them for each time (-2 to 2)\n"
    "  --logit-bias 5:-100,17:2  add to the logits of these token ids (-100 to 100)\n"
    "  --ignore-eos              do not stop at an end-of-sequence token\n"
    "  --stop-ids 1,2            stop at these token ids too\n"
    "  --min-tokens N            do not stop before N tokens\n"
    "  --logprobs N              with --json: log-probabilities of each token and of the N most "
    "likely\n"
    "                            (0 to 20), of the model's own distribution\n"
    "  --prompt-logprobs N       the same of the prompt's tokens but the first\n"
    "  --kv-dtype T              KV pool: f32, bf16, fp8, int8 (default: f32 for f32 weights, else "
    "bf16)\n"
    "  --prefill-kv-dtype T      KV pool of the engine that computes the prompt (default: as "
    "--kv-dtype)\n"
    "  --wire T                  KV between the two: raw (what the prefill pool stores), f32, "
    "bf16, "
    "fp8,\n"
    "                            int8 (default: what the decode pool stores)\n"
    "  --block-size B            tokens of a KV block: 16 (default), 32, 64\n"
    "  --prefill-block-size B    the same for the prompt's engine (default: as --block-size)\n"
    "  --compute T               of matrix products: f32 (default), bf16, int8\n"
    "  --threads N               of each engine (default: one for each core)\n"
    "  --json                    print {\"ids\": [...], \"text\": \"...\"}\n\n"
    "ids are the generated tokens, the end-of-sequence or stop token included if it ended them; "
    "text\n"
    "leaves it out, and is null if the folder has no tokenizer.json.\n\n"
    "Exit codes: 0 done, 1 the model cannot be run or the prompt is too long, 2 wrong usage.\n\n"
    "Example: baton generate --model ops/model --prompt \"Once upon a time\" --max-tokens 12\n";

#define LOGPROBS_OFF UINT32_MAX

typedef struct {
    const char *model, *prompt, *ids, *wire, *bias, *stop_ids;
    uint32_t logprobs, prompt_logprobs; /* alternatives; LOGPROBS_OFF = none are asked for */
    bool json;
    bt_logit_bias rows[BT_LOGIT_BIAS_MAX];
    bt_generator_config config;
    bt_generate_options generate;
} options;

static int check_sampling(const char *command, options *o)
{
    bt_err err;
    bt_sampling *s = &o->generate.sampling;
    if (o->bias && bt_cli_bias_parse(o->bias, o->rows, s, &err) != BT_OK)
        return bt_options_fail(command, "--logit-bias: %s", err.message);
    if (o->stop_ids && bt_cli_stop_ids_parse(o->stop_ids, s, &err) != BT_OK)
        return bt_options_fail(command, "--stop-ids: %s", err.message);
    s->logprobs = o->logprobs != LOGPROBS_OFF;
    if (s->logprobs) s->top_logprobs = o->logprobs;
    if (s->logprobs && !o->json) return bt_options_fail(command, "--logprobs needs --json");
    if (o->prompt_logprobs != LOGPROBS_OFF && !o->json)
        return bt_options_fail(command, "--prompt-logprobs needs --json");
    return BT_EXIT_OK;
}

static int check_options(const char *command, options *o)
{
    bt_err err;
    if (!o->model) return bt_options_fail(command, "--model is missing");
    if (!o->prompt == !o->ids) return bt_options_fail(command, "give one of --prompt and --ids");
    if (o->ids && bt_cli_ids_check(o->ids, &err) != BT_OK)
        return bt_options_fail(command, "--ids: %s", err.message);
    bt_generator_config *c = &o->config;
    c->handoff = o->wire || c->prefill_kv_dtype || c->prefill_block_tokens;
    if (c->prefill_block_tokens == 0) c->prefill_block_tokens = c->block_tokens;
    const uint32_t sizes[] = {c->block_tokens, c->prefill_block_tokens};
    for (int i = 0; i < 2; i++)
        if (sizes[i] != 16 && sizes[i] != 32 && sizes[i] != 64)
            return bt_options_fail(command, "a block of %u tokens: allowed are 16, 32 and 64",
                                   sizes[i]);
    if (!o->wire || strcmp(o->wire, "raw") == 0) return BT_EXIT_OK;
    c->wire = bt_dtype_find(o->wire);
    if (c->wire == BT_DTYPE_NONE || c->wire == BT_DTYPE_F16)
        return bt_options_fail(command, "--wire: '%s' is not a value it takes", o->wire);
    return BT_EXIT_OK;
}

static int parse_options(int argc, char **argv, options *o)
{
    bt_sampling *s = &o->generate.sampling;
    bt_generator_config *c = &o->config;
    *o = (options){.config = {.block_tokens = 16},
                   .logprobs = LOGPROBS_OFF,
                   .prompt_logprobs = LOGPROBS_OFF,
                   .generate = {.max_tokens = 16, .sampling = {.top_p = 1}}};
    const bt_option table[] = {
        {.name = "--model", .kind = BT_OPTION_TEXT, .value = &o->model},
        {.name = "--prompt", .kind = BT_OPTION_TEXT, .value = &o->prompt},
        {.name = "--ids", .kind = BT_OPTION_TEXT, .value = &o->ids},
        {"--max-tokens", BT_OPTION_U32, &o->generate.max_tokens, 1, BT_CONTEXT_TOKENS_MAX},
        {"--temperature", BT_OPTION_FLOAT, &s->temperature, 0, BT_TEMPERATURE_MAX},
        {"--top-k", BT_OPTION_U32, &s->top_k, 0, BT_VOCAB_MAX},
        {"--top-p", BT_OPTION_FLOAT, &s->top_p, 1e-9, 1},
        {"--min-p", BT_OPTION_FLOAT, &s->min_p, 0, 1},
        {"--repetition-penalty", BT_OPTION_FLOAT, &s->repetition_penalty, BT_REPETITION_PENALTY_MIN,
         BT_REPETITION_PENALTY_MAX},
        {"--presence-penalty", BT_OPTION_FLOAT, &s->presence_penalty, -BT_PENALTY_MAX,
         BT_PENALTY_MAX},
        {"--frequency-penalty", BT_OPTION_FLOAT, &s->frequency_penalty, -BT_PENALTY_MAX,
         BT_PENALTY_MAX},
        {.name = "--logit-bias", .kind = BT_OPTION_TEXT, .value = &o->bias},
        {.name = "--stop-ids", .kind = BT_OPTION_TEXT, .value = &o->stop_ids},
        {"--min-tokens", BT_OPTION_U32, &s->min_tokens, 0, BT_CONTEXT_TOKENS_MAX},
        {"--logprobs", BT_OPTION_U32, &o->logprobs, 0, BT_TOP_LOGPROBS_MAX},
        {"--prompt-logprobs", BT_OPTION_U32, &o->prompt_logprobs, 0, BT_TOP_LOGPROBS_MAX},
        {.name = "--seed", .kind = BT_OPTION_U64, .value = &s->seed},
        {.name = "--ignore-eos", .kind = BT_OPTION_FLAG, .value = &o->generate.ignore_eos},
        {.name = "--kv-dtype", .kind = BT_OPTION_KV, .value = &c->kv_dtype},
        {.name = "--prefill-kv-dtype", .kind = BT_OPTION_KV, .value = &c->prefill_kv_dtype},
        {.name = "--wire", .kind = BT_OPTION_TEXT, .value = &o->wire},
        {"--block-size", BT_OPTION_U32, &c->block_tokens, 16, 64},
        {"--prefill-block-size", BT_OPTION_U32, &c->prefill_block_tokens, 16, 64},
        {.name = "--compute", .kind = BT_OPTION_COMPUTE, .value = &c->compute},
        {"--threads", BT_OPTION_U32, &c->threads, 1, 256},
        {.name = "--json", .kind = BT_OPTION_FLAG, .value = &o->json},
    };
    int code = bt_options_parse(argc, argv, table, sizeof(table) / sizeof(table[0]));
    if (code == BT_EXIT_OK) code = check_sampling(argv[0], o);
    return code != BT_EXIT_OK ? code : check_options(argv[0], o);
}

static bool is_eos(const bt_model_config *model, uint32_t id)
{
    for (uint32_t i = 0; i < model->eos_count; i++)
        if (model->eos_ids[i] == id) return true;
    return false;
}

/* Bytes of a text, any of which may be NUL: a byte token stands for it. */
typedef struct {
    char *data;
    size_t bytes;
} text;

/* The text of the tokens, without the EOS that ended them; ERR_NO_MEMORY. */
static bt_status text_of(const options *o, const bt_cli_prompt *prompt, const bt_token *tokens,
                         uint32_t count, text *ret_text, bt_err *err)
{
    text out = {.data = malloc((size_t)(count + 1) * BT_DETOK_BYTES_MAX)};
    if (!out.data) return BT_FAIL(err, BT_ERR_NO_MEMORY, "the text of %u tokens", count);
    bt_detok detok;
    bt_detok_init(&detok, prompt->tokenizer, BT_DETOK_CONTINUES);
    bool ended = is_eos(bt_model_config_of(prompt->model), tokens[count - 1].id);
    bool stopped = bt_sampling_stops(&o->generate.sampling, tokens[count - 1].id);
    if ((ended && !o->generate.ignore_eos) || stopped) count--;
    for (uint32_t i = 0; i < count; i++)
        out.bytes += bt_detok_push(&detok, tokens[i].id, out.data + out.bytes);
    out.bytes += bt_detok_flush(&detok, out.data + out.bytes);
    *ret_text = out;
    return BT_OK;
}

static void print_ids(const bt_token *tokens, uint32_t count, const char *between)
{
    for (uint32_t i = 0; i < count; i++) printf("%s%u", i ? between : "", tokens[i].id);
}

typedef struct {
    bt_token *tokens; /* [max_tokens] */
    uint32_t count;
    bt_token *scores; /* [prompt tokens - 1], NULL unless asked for */
    uint32_t score_count;
} result;

/* [{"id": 5, "logprob": -0.1, "top": [[5, -0.1], …]}, …] */
static void print_logprobs(const bt_token *tokens, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const bt_token *token = &tokens[i];
        printf("%s{\"id\": %u, \"logprob\": %.9g, \"top\": [", i ? ", " : "", token->id,
               (double)token->logprob);
        for (uint32_t k = 0; k < token->top_count; k++)
            printf("%s[%u, %.9g]", k ? ", " : "", token->top[k].id, (double)token->top[k].logprob);
        printf("]}");
    }
}

static void print_json(const result *r, const text *text, bool logprobs)
{
    json_t *string = text->data ? json_stringn(text->data, text->bytes) : json_null();
    printf("{\"ids\": [");
    print_ids(r->tokens, r->count, ", ");
    printf("], \"text\": ");
    json_dumpf(string, stdout, JSON_ENCODE_ANY);
    if (logprobs) {
        printf(", \"logprobs\": [");
        print_logprobs(r->tokens, r->count);
        printf("]");
    }
    if (r->scores) {
        printf(", \"prompt_logprobs\": [");
        print_logprobs(r->scores, r->score_count);
        printf("]");
    }
    puts("}");
    json_decref(string);
}

static bt_status print_result(const options *o, const bt_cli_prompt *prompt, const result *r,
                              bt_err *err)
{
    text text = {0};
    if (prompt->tokenizer) {
        bt_status status = text_of(o, prompt, r->tokens, r->count, &text, err);
        if (status != BT_OK) return status;
    }
    if (o->json) {
        print_json(r, &text, o->generate.sampling.logprobs);
    } else if (text.data) {
        fwrite(text.data, 1, text.bytes, stdout);
        putchar('\n');
    } else {
        print_ids(r->tokens, r->count, ",");
        putchar('\n');
    }
    free(text.data);
    return BT_OK;
}

/* "raw" is known by now: what the prefill pool stores. */
static void resolve_raw(options *o, const bt_model_config *model)
{
    if (!o->wire || strcmp(o->wire, "raw") != 0) return;
    bt_dtype stored = o->config.prefill_kv_dtype ? o->config.prefill_kv_dtype : o->config.kv_dtype;
    if (stored == BT_DTYPE_NONE)
        stored = model->dtype == BT_DTYPE_F32 ? BT_DTYPE_F32 : BT_DTYPE_BF16;
    o->config.wire = stored;
}

static bt_status compute(const options *o, const bt_cli_prompt *prompt, bt_generator *generator,
                         result *r, bt_err *err)
{
    const bt_prompt ids = {.ids = prompt->ids, .count = prompt->count};
    r->tokens = calloc(o->generate.max_tokens, sizeof(*r->tokens));
    if (!r->tokens) return BT_FAIL(err, BT_ERR_NO_MEMORY, "tokens");
    if (o->prompt_logprobs != LOGPROBS_OFF) {
        r->score_count = prompt->count - 1;
        r->scores = calloc(prompt->count, sizeof(*r->scores));
        if (!r->scores) return BT_FAIL(err, BT_ERR_NO_MEMORY, "logprobs of the prompt");
        bt_status status = bt_generate_scores(generator, &ids, o->prompt_logprobs, r->scores, err);
        if (status != BT_OK) return status;
    }
    return bt_generate(generator, &ids, &o->generate, r->tokens, &r->count, err);
}

static bt_status generate(options *o, bt_err *err)
{
    bt_cli_prompt prompt;
    bt_generator *generator = NULL;
    result r = {0};
    bt_status status = bt_cli_prompt_open(o->model, o->prompt, o->ids, &prompt, err);
    if (status != BT_OK) return status;
    resolve_raw(o, bt_model_config_of(prompt.model));
    uint32_t context = bt_model_config_of(prompt.model)->context_tokens_max;
    if (o->generate.max_tokens > context) o->generate.max_tokens = context;
    if (prompt.count <= context)
        o->config.context_tokens_max = prompt.count + o->generate.max_tokens;
    status = bt_generator_create(prompt.model, &o->config, &generator, err);
    if (status == BT_OK) status = compute(o, &prompt, generator, &r, err);
    if (status == BT_OK) status = print_result(o, &prompt, &r, err);
    free(r.tokens);
    free(r.scores);
    bt_generator_destroy(generator);
    bt_cli_prompt_close(&prompt);
    return status;
}

static int run_generate(int argc, char **argv)
{
    options o;
    bt_err err = {0};
    int code = parse_options(argc, argv, &o);
    if (code != BT_EXIT_OK) return code;
    if (bt_crypto_start(&err) != BT_OK || generate(&o, &err) != BT_OK) {
        fprintf(stderr, "baton generate: %s\n", err.message);
        return BT_EXIT_FAILURE;
    }
    return fflush(stdout) == 0 ? BT_EXIT_OK : BT_EXIT_FAILURE;
}

const bt_cli_command bt_cli_generate = {
    .name = "generate",
    .summary = "continue one prompt in one process",
    .help = help,
    .run = run_generate,
};
