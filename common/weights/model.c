#include "common/weights/model.h"

#include "common/weights/config.h"
#include "common/weights/file.h"
#include "common/weights/quantized.h"
#include "common/weights/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHOW(name) bt_show(name).text
#define SHARDS_MAX 1024u
#define SHARD_NAME_BYTES_MAX 128u
#define INDEX_BYTES_MAX (64u << 20)
#define HASH_CHUNK_BYTES (256u << 10)

struct bt_model {
    char *dir;
    char name[BT_NAME_BYTES_MAX];
    bt_model_config config;
    bt_safetensors **shards;
    char **shard_names; /* as the index spells them */
    uint32_t shard_count;
    const bt_safetensors_entry **tensors; /* of all shards, sorted by name */
    uint32_t tensor_count;
};

/* <dir>/<file> in malloc'd memory. */
static bt_status join_path(const char *dir, const char *file, char **ret_path, bt_err *err)
{
    if (asprintf(ret_path, "%s/%s", dir, file) >= 0) return BT_OK;
    return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory for a path", SHOW(dir));
}

/* Reads a file of the folder. An absent one is *ret_data = NULL if it is optional. */
static bt_status read_member(const bt_model *model, const char *file, bool optional,
                             uint64_t bytes_max, char **ret_data, size_t *ret_bytes, bt_err *err)
{
    char *path;
    bt_status status = join_path(model->dir, file, &path, err);
    if (status != BT_OK) return status;
    *ret_data = NULL;
    *ret_bytes = 0;
    if (!optional || !bt_file_missing(path))
        status = bt_file_read(path, bytes_max, ret_data, ret_bytes, err);
    free(path);
    return status;
}

/* The parser sees bytes and names the file alone; whoever reads the message needs the folder too. */
static bt_status parse_config(bt_model *model, const char *config, size_t config_bytes,
                              const char *generation, size_t generation_bytes, bt_err *err)
{
    bt_err inner = {0};
    bt_status status =
        bt_config_parse(config, config_bytes, generation, generation_bytes, &model->config, &inner);
    if (status == BT_OK) return BT_OK;
    return BT_FAIL(err, status, "%s/%s", model->dir, inner.message);
}

/* ModelOpt's file beside config.json, which older checkpoints have alone. */
static bt_status check_quantized(const bt_model *model, bt_err *err)
{
    char *text = NULL;
    size_t bytes;
    bt_err inner = {0};
    bt_status status =
        read_member(model, "hf_quant_config.json", true, BT_CONFIG_BYTES_MAX, &text, &bytes, err);
    if (status != BT_OK || text == NULL) return status;
    status = bt_quantized_check(text, bytes, &inner);
    free(text);
    if (status == BT_OK) return BT_OK;
    return BT_FAIL(err, status, "%s/%s", model->dir, inner.message);
}

static bt_status load_config(bt_model *model, bt_err *err)
{
    char *config = NULL, *generation = NULL;
    size_t config_bytes, generation_bytes = 0;
    bt_status status =
        read_member(model, "config.json", false, BT_CONFIG_BYTES_MAX, &config, &config_bytes, err);
    if (status != BT_OK) return status;
    status = read_member(model, "generation_config.json", true, BT_CONFIG_BYTES_MAX, &generation,
                         &generation_bytes, err);
    if (status == BT_OK)
        status = parse_config(model, config, config_bytes, generation, generation_bytes, err);
    free(config);
    free(generation);
    if (status == BT_OK) status = check_quantized(model, err);
    return status;
}

/* A shard's name comes from outside: a plain name within the folder, nothing else. */
static bool plain_name(const char *name)
{
    size_t bytes = strlen(name);
    if (bytes == 0 || bytes > SHARD_NAME_BYTES_MAX || name[0] == '.') return false;
    for (const char *c = name; *c != '\0'; c++) {
        bool ok = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                  (*c >= '0' && *c <= '9') || *c == '.' || *c == '_' || *c == '-';
        if (!ok) return false;
    }
    return true;
}

static bt_status open_shard(bt_model *model, const char *name, bt_safetensors **ret_shard,
                            bt_err *err)
{
    for (uint32_t i = 0; i < model->shard_count; i++) {
        if (strcmp(model->shard_names[i], name) != 0) continue;
        *ret_shard = model->shards[i];
        return BT_OK;
    }
    if (model->shard_count == SHARDS_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: more than %u shards", SHOW(model->dir), SHARDS_MAX);
    char *path, *copy = strdup(name);
    if (copy == NULL)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory for a shard", SHOW(model->dir));
    bt_status status = join_path(model->dir, name, &path, err);
    if (status == BT_OK) {
        status = bt_safetensors_open(path, ret_shard, err);
        free(path);
    }
    if (status != BT_OK) {
        free(copy);
        return status;
    }
    model->shards[model->shard_count] = *ret_shard;
    model->shard_names[model->shard_count++] = copy;
    return BT_OK;
}

static bt_status make_table(bt_model *model, size_t tensors, bt_err *err)
{
    if (tensors > BT_SAFETENSORS_TENSORS_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: has %zu tensors, the limit is %u", SHOW(model->dir),
                       tensors, BT_SAFETENSORS_TENSORS_MAX);
    model->tensors = calloc(tensors + 1, sizeof(model->tensors[0]));
    if (model->tensors == NULL)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory for %zu tensors", SHOW(model->dir),
                       tensors);
    return BT_OK;
}

static int compare_tensors(const void *a, const void *b)
{
    return strcmp((*(const bt_safetensors_entry *const *)a)->name,
                  (*(const bt_safetensors_entry *const *)b)->name);
}

/* Takes each tensor that the index names from the shard it names. */
static bt_status follow_index(bt_model *model, const json_t *map, bt_err *err)
{
    if (!json_is_object(map))
        return BT_FAIL(err, BT_ERR_FORMAT,
                       "model.safetensors.index.json: has no weight_map object");
    bt_status status = make_table(model, json_object_size(map), err);
    if (status != BT_OK) return status;
    const char *tensor;
    json_t *file;
    json_object_foreach((json_t *)map, tensor, file)
    {
        const char *name = json_string_value(file);
        if (name == NULL || !plain_name(name))
            return BT_FAIL(err, BT_ERR_FORMAT,
                           "model.safetensors.index.json: %s: '%s' is not a plain file name",
                           SHOW(tensor), SHOW(name != NULL ? name : "(no string)"));
        bt_safetensors *shard;
        if ((status = open_shard(model, name, &shard, err)) != BT_OK) return status;
        const bt_safetensors_entry *entry = bt_safetensors_find(shard, tensor);
        if (entry == NULL)
            return BT_FAIL(err, BT_ERR_FORMAT,
                           "model.safetensors.index.json: %s is not in shard %s", SHOW(tensor),
                           SHOW(name));
        model->tensors[model->tensor_count++] = entry;
    }
    qsort(model->tensors, model->tensor_count, sizeof(model->tensors[0]), compare_tensors);
    return BT_OK;
}

static bt_status load_sharded(bt_model *model, bt_err *err)
{
    char *text;
    size_t bytes;
    bt_status status = read_member(model, "model.safetensors.index.json", false, INDEX_BYTES_MAX,
                                   &text, &bytes, err);
    if (status != BT_OK) return status;
    json_error_t problem;
    json_t *index = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
    free(text);
    if (index == NULL)
        return BT_FAIL(err, BT_ERR_FORMAT, "model.safetensors.index.json: line %d: %s",
                       problem.line, SHOW(problem.text));
    status = follow_index(model, json_object_get(index, "weight_map"), err);
    json_decref(index);
    return status;
}

static bt_status load_single(bt_model *model, bt_err *err)
{
    bt_safetensors *shard;
    bt_status status = open_shard(model, "model.safetensors", &shard, err);
    if (status != BT_OK) return status;
    uint32_t count = bt_safetensors_count(shard);
    if ((status = make_table(model, count, err)) != BT_OK) return status;
    for (uint32_t i = 0; i < count; i++) model->tensors[i] = bt_safetensors_at(shard, i);
    model->tensor_count = count;
    return BT_OK;
}

/* The dtype of most of the bytes: a BF16 checkpoint may keep its norms in F32. */
static bt_dtype main_dtype(const bt_model *model)
{
    uint64_t bytes[BT_DTYPE_COUNT] = {0};
    bt_dtype most = BT_DTYPE_NONE;
    for (uint32_t i = 0; i < model->tensor_count; i++)
        bytes[model->tensors[i]->dtype] += model->tensors[i]->bytes;
    for (int dtype = 0; dtype < BT_DTYPE_COUNT; dtype++)
        if (bytes[dtype] > bytes[most]) most = (bt_dtype)dtype;
    return most;
}

static bt_status load_weights(bt_model *model, bt_err *err)
{
    model->shards = calloc(SHARDS_MAX, sizeof(model->shards[0]));
    model->shard_names = calloc(SHARDS_MAX, sizeof(model->shard_names[0]));
    char *single = NULL, *index = NULL;
    bt_status status = BT_OK;
    if (model->shards == NULL || model->shard_names == NULL)
        status = BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory", SHOW(model->dir));
    if (status == BT_OK) status = join_path(model->dir, "model.safetensors", &single, err);
    if (status == BT_OK)
        status = join_path(model->dir, "model.safetensors.index.json", &index, err);
    if (status == BT_OK) {
        bool sharded = bt_file_missing(single) && !bt_file_missing(index);
        status = sharded ? load_sharded(model, err) : load_single(model, err);
    }
    free(single);
    free(index);
    if (status == BT_OK) model->config.dtype = main_dtype(model);
    return status;
}

static void name_model(bt_model *model)
{
    const char *slash = strrchr(model->dir, '/');
    const char *last = slash != NULL ? slash + 1 : model->dir;
    size_t at = 0;
    for (; *last != '\0' && at < sizeof(model->name) - 1; last++) {
        bool ok = (*last >= 'a' && *last <= 'z') || (*last >= 'A' && *last <= 'Z') ||
                  (*last >= '0' && *last <= '9') || *last == '.' || *last == '_' || *last == '-';
        model->name[at++] = ok ? *last : '_';
    }
    if (at == 0) strcpy(model->name, "model");
}

bt_status bt_model_open(const char *dir, bt_model **ret_model, bt_err *err)
{
    bt_model *model = calloc(1, sizeof(*model));
    if (model == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory", SHOW(dir));
    bt_status status = BT_OK;
    model->dir = realpath(dir, NULL);
    if (model->dir == NULL) {
        int saved = errno;
        status = BT_FAIL(err, BT_ERR_OS, "%s: %s", SHOW(dir), strerror(saved));
        if (err != NULL) err->os_errno = saved;
    }
    if (status == BT_OK) status = load_config(model, err);
    if (status == BT_OK) status = load_weights(model, err);
    if (status != BT_OK) {
        bt_model_close(model);
        return status;
    }
    name_model(model);
    *ret_model = model;
    return BT_OK;
}

void bt_model_close(bt_model *model)
{
    if (model == NULL) return;
    for (uint32_t i = 0; i < model->shard_count; i++) {
        bt_safetensors_close(model->shards[i]);
        free(model->shard_names[i]);
    }
    free(model->shards);
    free(model->shard_names);
    free(model->tensors);
    free(model->dir);
    free(model);
}

const bt_model_config *bt_model_config_of(const bt_model *model)
{
    return &model->config;
}

const char *bt_model_dir(const bt_model *model)
{
    return model->dir;
}

const char *bt_model_name(const bt_model *model)
{
    return model->name;
}

static const bt_safetensors_entry *find_tensor(const bt_model *model, const char *name)
{
    if (model->tensor_count == 0) return NULL;
    bt_safetensors_entry key = {.name = name};
    const bt_safetensors_entry *wanted = &key;
    const bt_safetensors_entry **found = bsearch(&wanted, model->tensors, model->tensor_count,
                                                 sizeof(model->tensors[0]), compare_tensors);
    return found != NULL ? *found : NULL;
}

bt_status bt_model_tensor(const bt_model *model, const char *name, uint32_t rank,
                          const uint64_t shape[4], bt_tensor *ret_tensor, bt_err *err)
{
    assert(rank <= 4);
    const bt_safetensors_entry *entry = find_tensor(model, name);
    if (entry == NULL)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: has no tensor %s", SHOW(model->dir), SHOW(name));
    if (entry->rank != rank)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s has %u dimensions, not %u", SHOW(model->dir),
                       SHOW(name), entry->rank, rank);
    for (uint32_t i = 0; i < rank; i++) {
        if (shape[i] != 0 && entry->shape[i] != shape[i])
            return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s: dimension %u is %llu, not %llu",
                           SHOW(model->dir), SHOW(name), i, (unsigned long long)entry->shape[i],
                           (unsigned long long)shape[i]);
    }
    if (entry->dtype == BT_DTYPE_NONE)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%s: %s: dtype %s is not supported", SHOW(model->dir),
                       SHOW(name), entry->dtype_name);
    if ((uintptr_t)entry->data % bt_dtype_bytes(entry->dtype) != 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s: its bytes are not aligned for %s",
                       SHOW(model->dir), SHOW(name), entry->dtype_name);
    bt_tensor tensor = {.data = entry->data, .dtype = entry->dtype, .rank = rank};
    memcpy(tensor.shape, entry->shape, sizeof(tensor.shape));
    *ret_tensor = tensor;
    return BT_OK;
}

static void hash_u64(bt_sha256_stream *stream, uint64_t value)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < 8; i++) bytes[i] = (uint8_t)(value >> (8 * i));
    bt_sha256_add(stream, bytes, sizeof(bytes));
}

static void hash_text(bt_sha256_stream *stream, const char *text)
{
    hash_u64(stream, strlen(text));
    bt_sha256_add(stream, text, strlen(text));
}

bt_status bt_model_weights_digest(const bt_model *model, bt_sha256 *ret_digest, bt_err *err)
{
    (void)err;
    bt_sha256_stream stream;
    bt_sha256_start(&stream);
    hash_text(&stream, "baton weights 1");
    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const bt_safetensors_entry *entry = model->tensors[i];
        hash_text(&stream, entry->name);
        hash_text(&stream, entry->dtype_name);
        hash_u64(&stream, entry->rank);
        for (uint32_t d = 0; d < entry->rank; d++) hash_u64(&stream, entry->shape[d]);
        bt_sha256_add(&stream, entry->data, entry->bytes);
    }
    bt_sha256_end(&stream, ret_digest);
    return BT_OK;
}

/* SHA-256 of a file's bytes; *ret_present says whether there is one. */
static bt_status hash_file(const char *path, bool *ret_present, bt_sha256 *ret_hash, bt_err *err)
{
    *ret_present = !bt_file_missing(path);
    if (!*ret_present) return BT_OK;
    int fd;
    uint64_t bytes;
    bt_status status = bt_file_open(path, &fd, &bytes, err);
    if (status != BT_OK) return status;
    uint8_t *chunk = malloc(HASH_CHUNK_BYTES);
    if (chunk == NULL) {
        close(fd);
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory to hash it", SHOW(path));
    }
    bt_sha256_stream stream;
    bt_sha256_start(&stream);
    ssize_t got;
    do {
        got = read(fd, chunk, HASH_CHUNK_BYTES);
        if (got > 0) bt_sha256_add(&stream, chunk, (size_t)got);
    } while (got > 0 || (got < 0 && errno == EINTR));
    if (got < 0) status = BT_FAIL(err, BT_ERR_OS, "%s: cannot read: %m", SHOW(path));
    bt_sha256_end(&stream, ret_hash);
    free(chunk);
    close(fd);
    return status;
}

static void hash_double(bt_sha256_stream *stream, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    hash_u64(stream, bits);
}

/* Everything that changes what a layer computes. */
static void hash_config(bt_sha256_stream *stream, const bt_model_config *config)
{
    const bt_rope *rope = &config->rope;
    const uint64_t numbers[] = {
        config->hidden,   config->layers, config->q_heads,  config->kv_heads,
        config->head_dim, config->mlp,    config->vocab,    config->window_tokens,
        config->qkv_bias, config->o_bias, config->mlp_bias, config->qk_norm,
        rope->kind,       rope->dims,     rope->truncate};
    const double reals[] = {config->rms_eps,       rope->theta,           rope->factor,
                            rope->original_tokens, rope->low_freq_factor, rope->high_freq_factor,
                            rope->beta_fast,       rope->beta_slow,       rope->magnitude};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) hash_u64(stream, numbers[i]);
    for (size_t i = 0; i < sizeof(reals) / sizeof(reals[0]); i++) hash_double(stream, reals[i]);
    bt_sha256_add(stream, config->layer_options, config->layers);
}

bt_status bt_model_fingerprint(const bt_model *model, bt_sha256 *ret_fingerprint, bt_err *err)
{
    const bt_model_config *config = &model->config;
    char *path;
    bt_status status = join_path(model->dir, "tokenizer.json", &path, err);
    if (status != BT_OK) return status;
    bool present;
    bt_sha256 tokenizer;
    status = hash_file(path, &present, &tokenizer, err);
    free(path);
    if (status != BT_OK) return status;

    bt_sha256_stream stream;
    bt_sha256_start(&stream);
    hash_text(&stream, "baton fingerprint 2");
    hash_text(&stream, config->architecture);
    hash_config(&stream, config);
    hash_u64(&stream, present);
    if (present) bt_sha256_add(&stream, tokenizer.bytes, sizeof(tokenizer.bytes));
    bt_sha256_end(&stream, ret_fingerprint);
    return BT_OK;
}
