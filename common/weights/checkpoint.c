#include "common/weights/checkpoint.h"

#include "common/weights/file.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOW(name) bt_show(name).text
#define SHARD_NAME_BYTES_MAX 128u
#define INDEX_BYTES_MAX (64u << 20)
#define INDEX "model.safetensors.index.json"

struct bt_checkpoint {
    const char *dir; /* during open */
    bt_safetensors **shards;
    char **shard_names; /* as the index spells them */
    uint32_t shard_count;
    const bt_safetensors_entry **tensors; /* of all shards, sorted by name */
    uint32_t tensor_count;
    uint64_t claimed_bytes;
};

static bt_status join_path(const char *dir, const char *file, char **ret_path, bt_err *err)
{
    if (asprintf(ret_path, "%s/%s", dir, file) >= 0) return BT_OK;
    return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory for a path", SHOW(dir));
}

static bool has_file(const char *dir, const char *file)
{
    char *path;
    if (join_path(dir, file, &path, NULL) != BT_OK) return false;
    bool there = !bt_file_missing(path);
    free(path);
    return there;
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

static bt_status open_shard(bt_checkpoint *self, const char *name, bt_safetensors **ret_shard,
                            bt_err *err)
{
    for (uint32_t i = 0; i < self->shard_count; i++) {
        if (strcmp(self->shard_names[i], name) != 0) continue;
        *ret_shard = self->shards[i];
        return BT_OK;
    }
    if (self->shard_count == BT_CHECKPOINT_SHARDS_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: more than %u shards", SHOW(self->dir),
                       BT_CHECKPOINT_SHARDS_MAX);
    char *path, *copy = strdup(name);
    if (copy == NULL)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory for a shard", SHOW(self->dir));
    bt_status status = join_path(self->dir, name, &path, err);
    if (status == BT_OK) {
        status = bt_safetensors_open(path, ret_shard, err);
        free(path);
    }
    if (status != BT_OK) {
        free(copy);
        return status;
    }
    self->shards[self->shard_count] = *ret_shard;
    self->shard_names[self->shard_count++] = copy;
    return BT_OK;
}

static bt_status make_table(bt_checkpoint *self, size_t tensors, bt_err *err)
{
    if (tensors > BT_SAFETENSORS_TENSORS_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: has %zu tensors, the limit is %u", SHOW(self->dir),
                       tensors, BT_SAFETENSORS_TENSORS_MAX);
    self->tensors = calloc(tensors + 1, sizeof(self->tensors[0]));
    if (self->tensors == NULL)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory for %zu tensors", SHOW(self->dir),
                       tensors);
    return BT_OK;
}

static int compare_tensors(const void *a, const void *b)
{
    return strcmp((*(const bt_safetensors_entry *const *)a)->name,
                  (*(const bt_safetensors_entry *const *)b)->name);
}

/* Takes each tensor that the index names from the shard it names. */
static bt_status follow_index(bt_checkpoint *self, const json_t *map, bt_err *err)
{
    if (!json_is_object(map))
        return BT_FAIL(err, BT_ERR_FORMAT, INDEX ": has no weight_map object");
    bt_status status = make_table(self, json_object_size(map), err);
    if (status != BT_OK) return status;
    const char *tensor;
    json_t *file;
    json_object_foreach((json_t *)map, tensor, file)
    {
        const char *name = json_string_value(file);
        if (name == NULL || !plain_name(name))
            return BT_FAIL(err, BT_ERR_FORMAT, INDEX ": %s: '%s' is not a plain file name",
                           SHOW(tensor), SHOW(name != NULL ? name : "(no string)"));
        bt_safetensors *shard;
        if ((status = open_shard(self, name, &shard, err)) != BT_OK) return status;
        const bt_safetensors_entry *entry = bt_safetensors_find(shard, tensor);
        if (entry == NULL)
            return BT_FAIL(err, BT_ERR_FORMAT, INDEX ": %s is not in shard %s", SHOW(tensor),
                           SHOW(name));
        self->tensors[self->tensor_count++] = entry;
    }
    qsort(self->tensors, self->tensor_count, sizeof(self->tensors[0]), compare_tensors);
    return BT_OK;
}

/* "total_size" may be a float: some tools wrote it so. */
static void read_claim(bt_checkpoint *self, const json_t *index)
{
    const json_t *size = json_object_get(json_object_get(index, "metadata"), "total_size");
    double claim = json_number_value(size);
    if (json_is_integer(size) && json_integer_value(size) > 0)
        self->claimed_bytes = (uint64_t)json_integer_value(size);
    else if (claim >= 1 && claim < 1e18)
        self->claimed_bytes = (uint64_t)claim;
}

static bt_status load_sharded(bt_checkpoint *self, bt_err *err)
{
    char *text, *path;
    size_t bytes;
    bt_status status = join_path(self->dir, INDEX, &path, err);
    if (status != BT_OK) return status;
    status = bt_file_read(path, INDEX_BYTES_MAX, &text, &bytes, err);
    free(path);
    if (status != BT_OK) return status;
    json_error_t problem;
    json_t *index = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
    free(text);
    if (index == NULL)
        return BT_FAIL(err, BT_ERR_FORMAT, INDEX ": line %d: %s", problem.line, SHOW(problem.text));
    read_claim(self, index);
    status = follow_index(self, json_object_get(index, "weight_map"), err);
    json_decref(index);
    return status;
}

static bt_status load_single(bt_checkpoint *self, bt_err *err)
{
    bt_safetensors *shard;
    bt_status status = open_shard(self, "model.safetensors", &shard, err);
    if (status != BT_OK) return status;
    uint32_t count = bt_safetensors_count(shard);
    if ((status = make_table(self, count, err)) != BT_OK) return status;
    for (uint32_t i = 0; i < count; i++) self->tensors[i] = bt_safetensors_at(shard, i);
    self->tensor_count = count;
    return BT_OK;
}

/* Neither model.safetensors nor an index: says what lies there in their place. */
static bt_status no_weights(const char *dir, bt_err *err)
{
    static const char *const others[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                         "consolidated.safetensors", "consolidated.00.pth"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (has_file(dir, others[i]))
            return BT_FAIL(err, BT_ERR_OS,
                           "%s: has %s, but no model.safetensors or " INDEX
                           ": only safetensors in Hugging Face's layout are read",
                           SHOW(dir), others[i]);
    return BT_FAIL(err, BT_ERR_OS, "%s: has neither model.safetensors nor " INDEX, SHOW(dir));
}

static bt_status load_tensors(bt_checkpoint *self, bt_err *err)
{
    self->shards = calloc(BT_CHECKPOINT_SHARDS_MAX, sizeof(self->shards[0]));
    self->shard_names = calloc(BT_CHECKPOINT_SHARDS_MAX, sizeof(self->shard_names[0]));
    if (self->shards == NULL || self->shard_names == NULL)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory", SHOW(self->dir));
    if (has_file(self->dir, "model.safetensors")) return load_single(self, err);
    if (has_file(self->dir, INDEX)) return load_sharded(self, err);
    return no_weights(self->dir, err);
}

bt_status bt_checkpoint_open(const char *dir, bt_checkpoint **ret_checkpoint, bt_err *err)
{
    bt_checkpoint *self = calloc(1, sizeof(*self));
    if (self == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory", SHOW(dir));
    self->dir = dir;
    bt_status status = load_tensors(self, err);
    if (status != BT_OK) {
        bt_checkpoint_close(self);
        return status;
    }
    self->dir = NULL;
    *ret_checkpoint = self;
    return BT_OK;
}

void bt_checkpoint_close(bt_checkpoint *checkpoint)
{
    if (checkpoint == NULL) return;
    for (uint32_t i = 0; i < checkpoint->shard_count; i++) {
        bt_safetensors_close(checkpoint->shards[i]);
        free(checkpoint->shard_names[i]);
    }
    free(checkpoint->shards);
    free(checkpoint->shard_names);
    free(checkpoint->tensors);
    free(checkpoint);
}

uint32_t bt_checkpoint_count(const bt_checkpoint *checkpoint)
{
    return checkpoint->tensor_count;
}

const bt_safetensors_entry *bt_checkpoint_at(const bt_checkpoint *checkpoint, uint32_t index)
{
    assert(index < checkpoint->tensor_count);
    return checkpoint->tensors[index];
}

const bt_safetensors_entry *bt_checkpoint_find(const bt_checkpoint *self, const char *name)
{
    if (self->tensor_count == 0) return NULL;
    bt_safetensors_entry key = {.name = name};
    const bt_safetensors_entry *wanted = &key;
    const bt_safetensors_entry **found = bsearch(&wanted, self->tensors, self->tensor_count,
                                                 sizeof(self->tensors[0]), compare_tensors);
    return found != NULL ? *found : NULL;
}

uint32_t bt_checkpoint_shards(const bt_checkpoint *checkpoint)
{
    return checkpoint->shard_count;
}

const char *bt_checkpoint_shard_name(const bt_checkpoint *checkpoint, uint32_t index)
{
    assert(index < checkpoint->shard_count);
    return checkpoint->shard_names[index];
}

uint64_t bt_checkpoint_claimed_bytes(const bt_checkpoint *checkpoint)
{
    return checkpoint->claimed_bytes;
}
