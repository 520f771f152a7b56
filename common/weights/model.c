#include "common/weights/model.h"

#include "common/weights/checkpoint.h"
#include "common/weights/config.h"
#include "common/weights/file.h"
#include "common/weights/quantized.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHOW(name) bt_show(name).text
#define HASH_CHUNK_BYTES (256u << 10)
#define HUB_REF_BYTES_MAX 256u

struct bt_model {
    char *dir;
    char name[BT_NAME_BYTES_MAX];
    bt_model_config config;
    bt_checkpoint *checkpoint;
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

/* The dtype of most of the bytes: a BF16 checkpoint may keep its norms in F32. */
static bt_dtype main_dtype(const bt_model *model)
{
    uint64_t bytes[BT_DTYPE_COUNT] = {0};
    bt_dtype most = BT_DTYPE_NONE;
    for (uint32_t i = 0; i < bt_checkpoint_count(model->checkpoint); i++) {
        const bt_safetensors_entry *entry = bt_checkpoint_at(model->checkpoint, i);
        bytes[entry->dtype] += entry->bytes;
    }
    for (int dtype = 0; dtype < BT_DTYPE_COUNT; dtype++)
        if (bytes[dtype] > bytes[most]) most = (bt_dtype)dtype;
    return most;
}

/* The part of path before the last `/`, which is at end, that follows the `/` before it. */
static const char *component_before(const char *path, const char *end)
{
    while (end > path && end[-1] != '/') end--;
    return end;
}

void bt_folder_name(const char *dir, char ret_name[BT_NAME_BYTES_MAX])
{
    const char *end = dir + strlen(dir), *last = component_before(dir, end);
    const char *parent = last > dir ? component_before(dir, last - 1) : last;
    if (parent > dir && strncmp(parent, "snapshots/", 10) == 0) {
        const char *hub = component_before(dir, parent - 1);
        if (strncmp(hub, "models--", 8) == 0) {
            end = parent - 1;
            last = hub + 8;
            for (const char *c = last; c + 1 < end; c++)
                if (c[0] == '-' && c[1] == '-') last = c + 2;
        }
    }
    size_t at = 0;
    for (; last < end && at < BT_NAME_BYTES_MAX - 1; last++) {
        bool ok = (*last >= 'a' && *last <= 'z') || (*last >= 'A' && *last <= 'Z') ||
                  (*last >= '0' && *last <= '9') || *last == '.' || *last == '_' || *last == '-';
        ret_name[at++] = ok ? *last : '_';
    }
    ret_name[at] = '\0';
    if (at == 0) strcpy(ret_name, "model");
}

/* models--<org>--<name> of a hub cache is not the model: a snapshot in it is. */
static bt_status refuse_hub_root(const bt_model *model, bt_err *err)
{
    char *config, *text = NULL;
    size_t bytes = 0;
    bt_status status = join_path(model->dir, "config.json", &config, err);
    if (status != BT_OK) return status;
    bool there = !bt_file_missing(config);
    free(config);
    if (there) return BT_OK;
    status = read_member(model, "refs/main", true, HUB_REF_BYTES_MAX, &text, &bytes, NULL);
    if (status == BT_OK && text != NULL)
        status =
            BT_FAIL(err, BT_ERR_OS,
                    "%s: is a folder of the Hugging Face cache; its model is in snapshots/%.72s",
                    model->dir, SHOW(text));
    else
        status = BT_OK; /* load_config says what is missing */
    free(text);
    return status;
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
    if (status == BT_OK) status = refuse_hub_root(model, err);
    if (status == BT_OK) status = load_config(model, err);
    if (status == BT_OK) status = bt_checkpoint_open(model->dir, &model->checkpoint, err);
    if (status != BT_OK) {
        bt_model_close(model);
        return status;
    }
    model->config.dtype = main_dtype(model);
    bt_folder_name(model->dir, model->name);
    *ret_model = model;
    return BT_OK;
}

void bt_model_close(bt_model *model)
{
    if (model == NULL) return;
    bt_checkpoint_close(model->checkpoint);
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

const bt_checkpoint *bt_model_checkpoint(const bt_model *model)
{
    return model->checkpoint;
}

bt_status bt_model_tensor(const bt_model *model, const char *name, uint32_t rank,
                          const uint64_t shape[4], bt_tensor *ret_tensor, bt_err *err)
{
    assert(rank <= 4);
    const bt_safetensors_entry *entry = bt_checkpoint_find(model->checkpoint, name);
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
    bt_tensor tensor = {
        .data = entry->data, .dtype = entry->dtype, .rank = rank, .mapped = entry->mapped};
    memcpy(tensor.shape, entry->shape, sizeof(tensor.shape));
    *ret_tensor = tensor;
    return BT_OK;
}

void bt_tensor_cold(const bt_tensor *tensor, uint64_t first, uint64_t end)
{
    uint64_t row_bytes = bt_dtype_bytes(tensor->dtype);
    for (uint32_t i = 1; i < tensor->rank; i++) row_bytes *= tensor->shape[i];
    bt_safetensors_cold((const uint8_t *)tensor->data + first * row_bytes,
                        (end - first) * row_bytes, tensor->mapped);
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
    for (uint32_t i = 0; i < bt_checkpoint_count(model->checkpoint); i++) {
        const bt_safetensors_entry *entry = bt_checkpoint_at(model->checkpoint, i);
        hash_text(&stream, entry->name);
        hash_text(&stream, entry->dtype_name);
        hash_u64(&stream, entry->rank);
        for (uint32_t d = 0; d < entry->rank; d++) hash_u64(&stream, entry->shape[d]);
        bt_sha256_add(&stream, entry->data, entry->bytes);
        bt_safetensors_cold(entry->data, entry->bytes, entry->mapped);
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
