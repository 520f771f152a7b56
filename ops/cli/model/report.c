#include "ops/cli/model/report.h"

#include "common/base/parse.h"
#include "common/engine/arch.h"
#include "common/text/tokenizer.h"
#include "common/weights/config.h"
#include "common/weights/file.h"
#include "kernels/kv.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKENIZER_CONFIG_BYTES_MAX (16u << 20)
/* Of the pool whose KV bytes are shown: the default of every daemon. */
#define KV_BLOCK_TOKENS 16u

const char *const bt_report_part_names[BT_PART_COUNT] = {
    [BT_PART_EMBEDDING] = "embedding", [BT_PART_ATTENTION] = "attention", [BT_PART_MLP] = "mlp",
    [BT_PART_NORMS] = "norms",         [BT_PART_HEAD] = "head",           [BT_PART_OTHER] = "other",
};

const bt_dtype bt_report_kv_dtypes[4] = {BT_DTYPE_F32, BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3,
                                         BT_DTYPE_INT8};

static void set_text(char *ret_text, size_t capacity, const char *text)
{
    bt_escape(text, strlen(text), ret_text, capacity);
}

static bool join(const char *dir, const char *file, char ret_path[4096])
{
    int bytes = snprintf(ret_path, 4096, "%s/%s", dir, file);
    return bytes > 0 && bytes < 4096;
}

/* --- config.json --- */

static json_t *load_json(const char *dir, const char *file, uint64_t bytes_max)
{
    char path[4096], *text = NULL;
    size_t bytes;
    if (!join(dir, file, path) || bt_file_read(path, bytes_max, &text, &bytes, NULL) != BT_OK)
        return NULL;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    return root;
}

static uint32_t size_of(const json_t *root, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(root, key));
    return value > 0 && value <= UINT32_MAX ? (uint32_t)value : 0;
}

/* Sizes of a config.json that Baton does not understand; of a multimodal one those of its text. */
static void read_sizes(const json_t *root, bt_model_config *config)
{
    const json_t *from = json_object_get(root, "text_config");
    if (!json_is_object(from)) from = root;
    config->hidden = size_of(from, "hidden_size");
    config->mlp = size_of(from, "intermediate_size");
    config->layers = size_of(from, "num_hidden_layers");
    config->q_heads = size_of(from, "num_attention_heads");
    config->kv_heads = size_of(from, "num_key_value_heads");
    config->head_dim = size_of(from, "head_dim");
    config->vocab = size_of(from, "vocab_size");
    if (config->kv_heads == 0) config->kv_heads = config->q_heads;
    if (config->head_dim == 0 && config->q_heads > 0)
        config->head_dim = config->hidden / config->q_heads;
}

static void read_config(const char *dir, bt_report *report)
{
    json_t *root = load_json(dir, "config.json", BT_CONFIG_BYTES_MAX);
    const char *name = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    const char *type = json_string_value(json_object_get(root, "model_type"));
    if (name) set_text(report->architecture, sizeof(report->architecture), name);
    if (type) set_text(report->model_type, sizeof(report->model_type), type);
    if (!report->understood) read_sizes(root, &report->config);
    json_decref(root);
}

/* --- tensors --- */

static bt_report_part part_of(const char *name)
{
    if (strstr(name, "norm")) return BT_PART_NORMS;
    if (strstr(name, "embed_tokens") || strstr(name, "wte")) return BT_PART_EMBEDDING;
    if (strstr(name, "lm_head")) return BT_PART_HEAD;
    if (strstr(name, "attn") || strstr(name, "attention")) return BT_PART_ATTENTION;
    if (strstr(name, "mlp") || strstr(name, "feed_forward")) return BT_PART_MLP;
    return BT_PART_OTHER;
}

static void add_dtype(bt_report *report, const char *name, uint64_t elements, uint64_t bytes)
{
    uint32_t i = 0;
    while (i < report->dtype_count && strcmp(report->dtypes[i].name, name) != 0) i++;
    if (i == BT_REPORT_DTYPES_MAX) return; /* safetensors have fewer */
    if (i == report->dtype_count) report->dtypes[report->dtype_count++].name = name;
    report->dtypes[i].elements += elements;
    report->dtypes[i].bytes += bytes;
}

static int compare_dtypes(const void *a, const void *b)
{
    uint64_t x = ((const bt_report_dtype *)a)->bytes, y = ((const bt_report_dtype *)b)->bytes;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void count_tensors(const bt_checkpoint *checkpoint, bt_report *report)
{
    report->has_tensors = true;
    report->tensors = bt_checkpoint_count(checkpoint);
    report->shards = bt_checkpoint_shards(checkpoint);
    report->claimed_bytes = bt_checkpoint_claimed_bytes(checkpoint);
    for (uint32_t i = 0; i < report->tensors; i++) {
        const bt_safetensors_entry *entry = bt_checkpoint_at(checkpoint, i);
        uint64_t elements = 1; /* cannot wrap: safetensors.h checked it */
        for (uint32_t d = 0; d < entry->rank; d++) elements *= entry->shape[d];
        bt_report_part part = part_of(entry->name);
        report->part_elements[part] += elements;
        report->part_bytes[part] += entry->bytes;
        report->elements += elements;
        report->bytes += entry->bytes;
        add_dtype(report, entry->dtype_name, elements, entry->bytes);
    }
    qsort(report->dtypes, report->dtype_count, sizeof(report->dtypes[0]), compare_dtypes);
}

/* Of a folder that bt_model_open refused. */
static void read_tensors_alone(const char *dir, bt_report *report)
{
    bt_err err = {0};
    bt_checkpoint *checkpoint = NULL;
    if (bt_checkpoint_open(dir, &checkpoint, &err) == BT_OK)
        count_tensors(checkpoint, report);
    else
        set_text(report->tensors_reason, sizeof(report->tensors_reason), err.message);
    bt_checkpoint_close(checkpoint);
}

/* --- the text side --- */

static void read_tokenizer(const char *dir, bt_report *report)
{
    char path[4096];
    bt_tokenizer *tokenizer = NULL;
    bt_err err = {0};
    report->tokenizer_there = join(dir, "tokenizer.json", path) && !bt_file_missing(path);
    if (!report->tokenizer_there) return;
    report->tokenizer_usable = bt_tokenizer_open(path, &tokenizer, &err) == BT_OK;
    if (report->tokenizer_usable)
        report->tokenizer_ids = bt_tokenizer_vocab(tokenizer);
    else
        set_text(report->tokenizer_reason, sizeof(report->tokenizer_reason), err.message);
    bt_tokenizer_close(tokenizer);
}

/* The file that common/text/chat.h takes the template from. */
static const char *find_chat_template(const char *dir)
{
    static const char *const files[] = {"chat_template.jinja", "chat_template.json"};
    char path[4096];
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        if (join(dir, files[i], path) && !bt_file_missing(path)) return files[i];
    json_t *root = load_json(dir, "tokenizer_config.json", TOKENIZER_CONFIG_BYTES_MAX);
    const json_t *text = json_object_get(root, "chat_template");
    bool there = json_is_string(text) || json_array_size(text) > 0;
    json_decref(root);
    return there ? "tokenizer_config.json" : NULL;
}

/* --- the whole --- */

/* What the engine does with a folder before it takes memory. */
static bt_status try_model(const char *dir, bt_report *report, bt_err *err)
{
    bt_model *model = NULL;
    bt_weights weights;
    bt_status status = bt_model_open(dir, &model, err);
    if (status != BT_OK) return status;
    report->understood = true;
    report->config = *bt_model_config_of(model);
    strcpy(report->name, bt_model_name(model));
    count_tensors(bt_model_checkpoint(model), report);
    status = bt_weights_bind(model, &weights, err);
    if (status == BT_OK) bt_weights_release(&weights);
    bt_model_close(model);
    return status;
}

void bt_report_make(const char *dir, bt_report *ret_report)
{
    bt_err err = {0};
    bt_report *report = ret_report;
    *report = (bt_report){0};
    char *real = realpath(dir, NULL);
    set_text(report->dir, sizeof(report->dir), real ? real : dir);
    bt_folder_name(real ? real : dir, report->name);
    report->runs = try_model(dir, report, &err) == BT_OK;
    if (!report->runs) set_text(report->reason, sizeof(report->reason), err.message);
    read_config(dir, report);
    if (!report->has_tensors) read_tensors_alone(dir, report);
    read_tokenizer(dir, report);
    report->chat_template = find_chat_template(dir);
    free(real);
}

uint64_t bt_report_kv_bytes(const bt_report *report, bt_dtype dtype)
{
    const bt_model_config *c = &report->config;
    const bt_kv_shape shape = {.dtype = dtype,
                               .layers = c->layers,
                               .kv_heads = c->kv_heads,
                               .head_dim = c->head_dim,
                               .block_tokens = KV_BLOCK_TOKENS,
                               .pool_blocks = 1};
    bool known = c->layers > 0 && c->layers <= BT_LAYERS_MAX && c->kv_heads > 0 &&
                 c->kv_heads <= BT_KV_HEADS_MAX && c->head_dim > 0 &&
                 c->head_dim <= BT_HEAD_DIM_MAX;
    return known ? bt_kv_token_bytes(&shape) : 0;
}
