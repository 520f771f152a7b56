/* inspect.c - `baton model inspect DIR`: a report of a model folder, as text or JSON. */
#include "common/base/exit_code.h"
#include "common/base/parse.h"
#include "common/net/json_out.h"
#include "common/weights/rope_config.h"
#include "ops/cli/model/report.h"
#include "ops/cli/model/subcommand.h"
#include "ops/cli/options.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_BYTES_MAX (1u << 20)

/* --- text --- */

/* 1234567 as 1,234,567. */
typedef struct {
    char text[32];
} grouped;

static grouped group(uint64_t number)
{
    char digits[24];
    grouped ret;
    int count = snprintf(digits, sizeof(digits), "%" PRIu64, number), at = 0;
    for (int i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0) ret.text[at++] = ',';
        ret.text[at++] = digits[i];
    }
    ret.text[at] = '\0';
    return ret;
}

static grouped size(uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    grouped ret;
    double number = (double)bytes;
    int unit = 0;
    for (; number >= 1024 && unit < 4; unit++) number /= 1024;
    snprintf(ret.text, sizeof(ret.text), unit == 0 ? "%.0f %s" : "%.1f %s", number, units[unit]);
    return ret;
}

__attribute__((format(printf, 2, 3))) static void line(const char *label, const char *fmt, ...)
{
    va_list args;
    printf("%-13s ", label);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
}

static uint32_t layers_with(const bt_model_config *c, uint8_t option)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->layers; i++) count += (c->layer_options[i] & option) != 0;
    return count;
}

static void print_tensors(const bt_report *r)
{
    if (!r->has_tensors) {
        line("weights", "none: %s", r->tensors_reason);
        return;
    }
    line("parameters", "%s in %u tensors", group(r->elements).text, r->tensors);
    printf("%-13s %s in %u file%s:", "weights", size(r->bytes).text, r->shards,
           r->shards == 1 ? "" : "s");
    for (uint32_t i = 0; i < r->dtype_count; i++)
        printf("%s %s %s", i > 0 ? "," : "", r->dtypes[i].name, size(r->dtypes[i].bytes).text);
    putchar('\n');
    if (r->claimed_bytes > 0 && r->claimed_bytes != r->bytes)
        line("", "the index says %s bytes, the tensors have %s", group(r->claimed_bytes).text,
             group(r->bytes).text);
    printf("%-13s", "  by module");
    bool first = true;
    for (int part = 0; part < BT_PART_COUNT; part++) {
        if (r->part_bytes[part] == 0) continue;
        printf("%s %s %s", first ? "" : ",", bt_report_part_names[part],
               size(r->part_bytes[part]).text);
        first = false;
    }
    putchar('\n');
}

static void print_rope(const bt_model_config *c)
{
    const bt_rope *rope = &c->rope;
    printf("%-13s %s, theta %g", "rope", bt_rope_kind_name(rope->kind), rope->theta);
    if (rope->factor > 0) printf(", factor %g", rope->factor);
    if (rope->original_tokens > 0) printf(", original context %.0f", rope->original_tokens);
    if (rope->kind == BT_ROPE_LLAMA3)
        printf(", low_freq_factor %g, high_freq_factor %g", rope->low_freq_factor,
               rope->high_freq_factor);
    if (rope->kind == BT_ROPE_YARN)
        printf(", attention factor %.6g, beta_fast %g, beta_slow %g%s", rope->magnitude,
               rope->beta_fast, rope->beta_slow, rope->truncate ? "" : ", not truncated");
    if (rope->dims != c->head_dim) printf(", %u of %u numbers of a head", rope->dims, c->head_dim);
    uint32_t without = layers_with(c, BT_LAYER_NO_ROPE);
    if (without > 0) printf(", none in %u of %u layers", without, c->layers);
    putchar('\n');
}

/* What only a config that was understood says. */
static void print_options(const bt_model_config *c)
{
    static const char *const biases[] = {"none", "q, k, v",      "o",      "q, k, v, o",
                                         "MLP",  "q, k, v, MLP", "o, MLP", "q, k, v, o and MLP"};
    print_rope(c);
    if (c->window_tokens > 0)
        line("window", "%u tokens in %u of %u layers", c->window_tokens,
             layers_with(c, BT_LAYER_WINDOWED), c->layers);
    else
        line("window", "none");
    line("biases", "%s", biases[c->qkv_bias + 2 * c->o_bias + 4 * c->mlp_bias]);
    line("qk norm", "%s", c->qk_norm ? "yes" : "no");
    line("head", "%s", c->tied_embeddings ? "tied to the embedding" : "its own");
    line("context", "%s tokens", group(c->context_tokens_max).text);
    printf("%-13s ", "tokens");
    if (c->bos_id != UINT32_MAX) printf("bos %u, ", c->bos_id);
    printf("eos");
    for (uint32_t i = 0; i < c->eos_count; i++) printf(" %u", c->eos_ids[i]);
    puts(c->eos_count > 0 ? "" : " none");
}

static void print_sizes(const bt_report *r)
{
    const bt_model_config *c = &r->config;
    if (c->layers > 0) line("layers", "%u, hidden %u, MLP %u", c->layers, c->hidden, c->mlp);
    if (c->q_heads > 0)
        line("attention", "%u query heads, %u KV heads, head_dim %u", c->q_heads, c->kv_heads,
             c->head_dim);
    if (c->vocab > 0) line("vocabulary", "%s", group(c->vocab).text);
    if (r->understood) print_options(c);
    if (bt_report_kv_bytes(r, BT_DTYPE_F32) == 0) return;
    printf("%-13s", "kv per token");
    for (size_t i = 0; i < sizeof(bt_report_kv_dtypes) / sizeof(bt_report_kv_dtypes[0]); i++)
        printf("%s %s %s", i > 0 ? "," : "", bt_dtype_name(bt_report_kv_dtypes[i]),
               size(bt_report_kv_bytes(r, bt_report_kv_dtypes[i])).text);
    putchar('\n');
}

static void print_text(const bt_report *r)
{
    const char *architecture = r->architecture[0] ? r->architecture : "not named";
    line("model", "%s", r->name);
    line("folder", "%s", r->dir);
    if (r->runs)
        line("runs", "yes");
    else
        line("runs", "no: %s", r->reason);
    if (r->model_type[0])
        line("architecture", "%s (%s)", architecture, r->model_type);
    else
        line("architecture", "%s", architecture);
    print_tensors(r);
    print_sizes(r);
    if (r->tokenizer_usable)
        line("tokenizer", "tokenizer.json, %s ids", group(r->tokenizer_ids).text);
    else
        line("tokenizer", "%s", r->tokenizer_there ? r->tokenizer_reason : "no tokenizer.json");
    line("chat template", "%s", r->chat_template ? r->chat_template : "none");
}

/* --- JSON --- */

static void put_text(bt_json_out *json, const char *key, const char *text)
{
    bt_json_key(json, key);
    bt_json_text(json, text && text[0] ? text : NULL);
}

static void put_u64(bt_json_out *json, const char *key, uint64_t value)
{
    bt_json_key(json, key);
    bt_json_u64(json, value);
}

static void put_bool(bt_json_out *json, const char *key, bool value)
{
    bt_json_key(json, key);
    bt_json_bool(json, value);
}

static void put_double(bt_json_out *json, const char *key, double value)
{
    bt_json_key(json, key);
    bt_json_double(json, value);
}

static void put_weights(bt_json_out *json, const bt_report *r)
{
    bt_json_key(json, "weights");
    if (!r->has_tensors) {
        bt_json_null(json);
        return;
    }
    bt_json_begin(json, '{');
    put_u64(json, "parameters", r->elements);
    put_u64(json, "tensors", r->tensors);
    put_u64(json, "shards", r->shards);
    put_u64(json, "bytes", r->bytes);
    bt_json_key(json, "index_total_size");
    if (r->claimed_bytes > 0)
        bt_json_u64(json, r->claimed_bytes);
    else
        bt_json_null(json);
    bt_json_key(json, "dtypes");
    bt_json_begin(json, '{');
    for (uint32_t i = 0; i < r->dtype_count; i++)
        put_u64(json, r->dtypes[i].name, r->dtypes[i].bytes);
    bt_json_end(json, '}');
    bt_json_key(json, "module_bytes");
    bt_json_begin(json, '{');
    for (int part = 0; part < BT_PART_COUNT; part++)
        put_u64(json, bt_report_part_names[part], r->part_bytes[part]);
    bt_json_end(json, '}');
    bt_json_end(json, '}');
}

static void put_rope(bt_json_out *json, const bt_model_config *c)
{
    const bt_rope *rope = &c->rope;
    bt_json_key(json, "rope");
    bt_json_begin(json, '{');
    put_text(json, "type", bt_rope_kind_name(rope->kind));
    put_double(json, "theta", rope->theta);
    put_u64(json, "dims", rope->dims);
    if (rope->factor > 0) put_double(json, "factor", rope->factor);
    if (rope->original_tokens > 0) put_double(json, "original_context", rope->original_tokens);
    if (rope->kind == BT_ROPE_LLAMA3) {
        put_double(json, "low_freq_factor", rope->low_freq_factor);
        put_double(json, "high_freq_factor", rope->high_freq_factor);
    }
    if (rope->kind == BT_ROPE_YARN) {
        put_double(json, "attention_factor", rope->magnitude);
        put_double(json, "beta_fast", rope->beta_fast);
        put_double(json, "beta_slow", rope->beta_slow);
        put_bool(json, "truncate", rope->truncate);
    }
    put_u64(json, "layers_without", layers_with(c, BT_LAYER_NO_ROPE));
    bt_json_end(json, '}');
}

static void put_config(bt_json_out *json, const bt_report *r)
{
    const bt_model_config *c = &r->config;
    const struct {
        const char *key;
        uint32_t value;
    } sizes[] = {{"layers", c->layers},   {"hidden", c->hidden},     {"mlp", c->mlp},
                 {"q_heads", c->q_heads}, {"kv_heads", c->kv_heads}, {"head_dim", c->head_dim},
                 {"vocab", c->vocab}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        put_u64(json, sizes[i].key, sizes[i].value);
    if (r->understood) {
        put_u64(json, "context_tokens", c->context_tokens_max);
        put_rope(json, c);
        put_u64(json, "window_tokens", c->window_tokens);
        put_u64(json, "window_layers", layers_with(c, BT_LAYER_WINDOWED));
        put_bool(json, "qkv_bias", c->qkv_bias);
        put_bool(json, "o_bias", c->o_bias);
        put_bool(json, "mlp_bias", c->mlp_bias);
        put_bool(json, "qk_norm", c->qk_norm);
        put_bool(json, "tied_head", c->tied_embeddings);
        bt_json_key(json, "eos_ids");
        bt_json_begin(json, '[');
        for (uint32_t i = 0; i < c->eos_count; i++) bt_json_u64(json, c->eos_ids[i]);
        bt_json_end(json, ']');
    }
    bt_json_key(json, "kv_bytes_per_token");
    if (bt_report_kv_bytes(r, BT_DTYPE_F32) == 0) {
        bt_json_null(json);
        return;
    }
    bt_json_begin(json, '{');
    for (size_t i = 0; i < sizeof(bt_report_kv_dtypes) / sizeof(bt_report_kv_dtypes[0]); i++)
        put_u64(json, bt_dtype_name(bt_report_kv_dtypes[i]),
                bt_report_kv_bytes(r, bt_report_kv_dtypes[i]));
    bt_json_end(json, '}');
}

static void print_json(const bt_report *r)
{
    bt_json_out json;
    bt_json_init(&json, JSON_BYTES_MAX);
    bt_json_begin(&json, '{');
    put_text(&json, "name", r->name);
    put_text(&json, "folder", r->dir);
    put_bool(&json, "runs", r->runs);
    put_text(&json, "reason", r->reason);
    put_text(&json, "architecture", r->architecture);
    put_text(&json, "model_type", r->model_type);
    put_weights(&json, r);
    put_config(&json, r);
    bt_json_key(&json, "tokenizer");
    bt_json_begin(&json, '{');
    put_bool(&json, "found", r->tokenizer_there);
    put_bool(&json, "usable", r->tokenizer_usable);
    put_u64(&json, "ids", r->tokenizer_ids);
    put_text(&json, "reason", r->tokenizer_reason);
    bt_json_end(&json, '}');
    put_text(&json, "chat_template", r->chat_template);
    bt_json_end(&json, '}');
    fwrite(json.data, 1, json.bytes, stdout);
    putchar('\n');
    bt_json_finish(&json);
}

/* --- the command --- */

static int run_inspect(int argc, char **argv)
{
    const char *dir = NULL;
    bool as_json = false;
    const bt_option table[] = {{.name = "--json", .kind = BT_OPTION_FLAG, .value = &as_json}};
    char *options[64] = {"model"};
    int option_count = 1;
    for (int i = 1; i < argc; i++) {
        bool option = argv[i][0] == '-' && argv[i][1] != '\0';
        if (option && option_count < 64)
            options[option_count++] = argv[i];
        else if (dir)
            return bt_options_fail("model", "inspect takes one folder, and '%s' is a second one",
                                   argv[i]);
        else
            dir = argv[i];
    }
    int code = bt_options_parse(option_count, options, table, 1);
    if (code != BT_EXIT_OK) return code;
    if (!dir) return bt_options_fail("model", "inspect: the folder is missing");
    static bt_report report;
    bt_report_make(dir, &report);
    if (as_json)
        print_json(&report);
    else
        print_text(&report);
    if (fflush(stdout) != 0) return BT_EXIT_FAILURE;
    return report.runs ? BT_EXIT_OK : BT_EXIT_FAILURE;
}

const bt_model_subcommand bt_model_inspect = {.name = "inspect", .run = run_inspect};
