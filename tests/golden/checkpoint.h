/* checkpoint.h - a recorded family's checkpoint made again: the weights of families.py in C, written
 * as the safetensors files, shards and index that reference.json names. */
#ifndef BT_TESTS_GOLDEN_CHECKPOINT_H
#define BT_TESTS_GOLDEN_CHECKPOINT_H

#include "common/base/crypto.h"
#include "kernels/numerics.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline uint64_t checkpoint_seed(const char *family, const char *tensor)
{
    char text[256];
    uint64_t hash = 0xcbf29ce484222325u;
    snprintf(text, sizeof(text), "%s/%s", family, tensor);
    for (const char *c = text; *c; c++) hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    return hash;
}

/* 24 random bits for a counter. */
static inline uint32_t checkpoint_draw(uint64_t seed, uint64_t counter)
{
    uint64_t z = seed + (counter + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 40);
}

static inline bool ends_with(const char *text, const char *end)
{
    size_t bytes = strlen(text), end_bytes = strlen(end);
    return bytes >= end_bytes && strcmp(text + bytes - end_bytes, end) == 0;
}

static inline uint64_t checkpoint_elements(const json_t *shape)
{
    uint64_t elements = 1;
    for (size_t i = 0; i < json_array_size(shape); i++)
        elements *= (uint64_t)json_integer_value(json_array_get(shape, i));
    return elements;
}

/* The bytes of one tensor, malloc'd. */
static inline uint8_t *checkpoint_tensor(const char *family, const char *name, const json_t *shape,
                                         bool bf16, size_t *ret_bytes)
{
    uint64_t elements = checkpoint_elements(shape), seed = checkpoint_seed(family, name);
    double base = 0, scale = 0.5;
    if (json_array_size(shape) > 1) {
        bool wide = strstr(name, "embed_tokens") || strstr(name, "lm_head");
        scale = (wide ? 4.0 : 1.8) / sqrt((double)json_integer_value(json_array_get(shape, 1)));
    } else if (!ends_with(name, ".bias")) {
        base = 1;
        scale = 0.2;
    }
    *ret_bytes = elements * (bf16 ? 2 : 4);
    uint8_t *bytes = malloc(*ret_bytes);
    if (!bytes) abort();
    for (uint64_t i = 0; i < elements; i++) {
        float x = (float)(base + scale * (checkpoint_draw(seed, i) * 0x1p-23 - 1.0));
        uint16_t half = bt_f32_to_bf16(x);
        memcpy(bytes + i * (bf16 ? 2 : 4), bf16 ? (void *)&half : (void *)&x, bf16 ? 2 : 4);
    }
    return bytes;
}

static inline FILE *checkpoint_file(const char *dir, const char *name)
{
    char path[1100];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    if (!file) abort();
    return file;
}

/* The tensors of one shard, in the order of their names. */
static inline void checkpoint_write_shard(const char *dir, const json_t *reference, size_t shard)
{
    const char *family = json_string_value(json_object_get(reference, "family"));
    bool bf16 = strcmp(json_string_value(json_object_get(reference, "dtype")), "bfloat16") == 0;
    const char *name;
    json_t *info, *header = json_object();
    uint64_t at = 0;
    json_object_foreach(json_object_get(reference, "tensors"), name, info)
    {
        if ((size_t)json_integer_value(json_object_get(info, "shard")) != shard) continue;
        json_t *shape = json_object_get(info, "shape");
        uint64_t bytes = checkpoint_elements(shape) * (bf16 ? 2 : 4);
        json_object_set_new(header, name,
                            json_pack("{s:s, s:O, s:[I, I]}", "dtype", bf16 ? "BF16" : "F32",
                                      "shape", shape, "data_offsets", (json_int_t)at,
                                      (json_int_t)(at + bytes)));
        at += bytes;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    uint64_t header_bytes = (strlen(text) + 7) & ~7ull;
    const char *file_name =
        json_string_value(json_array_get(json_object_get(reference, "files"), shard));
    FILE *file = checkpoint_file(dir, file_name);
    fwrite(&header_bytes, 8, 1, file);
    fprintf(file, "%-*s", (int)header_bytes, text);
    json_object_foreach(header, name, info)
    {
        size_t bytes;
        uint8_t *data =
            checkpoint_tensor(family, name, json_object_get(info, "shape"), bf16, &bytes);
        fwrite(data, 1, bytes, file);
        free(data);
    }
    if (fclose(file) != 0) abort();
    free(text);
    json_decref(header);
}

static inline void checkpoint_write_index(const char *dir, const json_t *reference)
{
    const char *name;
    json_t *info, *map = json_object();
    json_object_foreach(json_object_get(reference, "tensors"), name, info)
    {
        size_t shard = (size_t)json_integer_value(json_object_get(info, "shard"));
        json_object_set(map, name, json_array_get(json_object_get(reference, "files"), shard));
    }
    json_t *index = json_pack("{s:{}, s:o}", "metadata", "weight_map", map);
    FILE *file = checkpoint_file(dir, "model.safetensors.index.json");
    json_dumpf(index, file, 0);
    if (fclose(file) != 0) abort();
    json_decref(index);
}

/* All weights of the reference into dir, which exists. */
static inline void checkpoint_write(const char *dir, const json_t *reference)
{
    size_t shards = json_array_size(json_object_get(reference, "files"));
    for (size_t shard = 0; shard < shards; shard++) checkpoint_write_shard(dir, reference, shard);
    if (shards > 1) checkpoint_write_index(dir, reference);
}

static inline int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* SHA-256, as hex, of the bytes of all tensors in the order of their names. */
static inline void checkpoint_digest(const json_t *reference, char ret_hex[65])
{
    const char *names[512], *name,
        *family = json_string_value(json_object_get(reference, "family"));
    bool bf16 = strcmp(json_string_value(json_object_get(reference, "dtype")), "bfloat16") == 0;
    const json_t *tensors = json_object_get(reference, "tensors");
    size_t count = 0;
    json_t *info;
    json_object_foreach((json_t *)tensors, name, info)
    {
        if (count < 512) names[count++] = name;
    }
    qsort(names, count, sizeof(names[0]), compare_names);
    bt_sha256_stream stream;
    bt_sha256 digest;
    bt_sha256_start(&stream);
    for (size_t i = 0; i < count; i++) {
        size_t bytes;
        const json_t *shape = json_object_get(json_object_get(tensors, names[i]), "shape");
        uint8_t *data = checkpoint_tensor(family, names[i], shape, bf16, &bytes);
        bt_sha256_add(&stream, data, bytes);
        free(data);
    }
    bt_sha256_end(&stream, &digest);
    for (size_t i = 0; i < BT_SHA256_BYTES; i++)
        snprintf(ret_hex + 2 * i, 3, "%02x", digest.bytes[i]);
}

#endif
