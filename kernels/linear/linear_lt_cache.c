/* linear_lt_cache.c - see linear_lt_cache.h. */
#include "kernels/linear/linear_lt_cache.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGEST_BYTES 8u
#define CONFIG_NUMBERS 9u

_Static_assert(sizeof(bt_lt_config) == CONFIG_NUMBERS * sizeof(uint32_t), "nine numbers");

static const char magic[8] = {'B', 'T', 'L', 'T', 'A', 'L', 'G', '1'};

const uint32_t bt_lt_bucket_m[BT_LT_BUCKETS] = {
    16,   32,   48,   64,    96,    128,   192,   256,   384,   512,  640,  768,
    896,  1024, 1152, 1280,  1408,  1536,  1664,  1792,  1920,  2048, 2304, 2560,
    2816, 3072, 3328, 3584,  3840,  4096,  4608,  5120,  5632,  6144, 6656, 7168,
    7680, 8192, 9216, 10240, 11264, 12288, 13312, 14336, 15360, 16384};

uint32_t bt_lt_bucket(uint32_t m)
{
    uint32_t bucket = 0;
    while (bucket < BT_LT_BUCKETS - 1 && bt_lt_bucket_m[bucket] < m) bucket++;
    return bucket;
}

bt_lt_cache *bt_lt_cache_create(const bt_lt_card *card)
{
    assert(card->name[BT_LT_CARD_BYTES - 1] == 0);
    bt_lt_cache *cache = calloc(1, sizeof(*cache));
    if (cache) cache->card = *card;
    return cache;
}

static bt_lt_entry *find(const bt_lt_cache *cache, const bt_lt_key *key)
{
    for (uint32_t i = 0; i < cache->count; i++)
        if (memcmp(&cache->entries[i].key, key, sizeof(*key)) == 0)
            return (bt_lt_entry *)&cache->entries[i];
    return NULL;
}

const bt_lt_entry *bt_lt_cache_find(const bt_lt_cache *cache, const bt_lt_key *key)
{
    return find(cache, key);
}

bt_status bt_lt_cache_put(bt_lt_cache *cache, const bt_lt_entry *entry, bt_err *err)
{
    bt_lt_entry *at = find(cache, &entry->key);
    if (!at) {
        if (cache->count == BT_LT_ENTRIES_MAX)
            return BT_FAIL(err, BT_ERR_LIMIT, "the table of algorithms is full: %u entries",
                           cache->count);
        at = &cache->entries[cache->count++];
    }
    *at = *entry;
    return BT_OK;
}

/* ---- file ---- */

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get64(const uint8_t *p)
{
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static void put32(uint8_t *p, uint32_t x)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(x >> 8 * i);
}

static void put64(uint8_t *p, uint64_t x)
{
    put32(p, (uint32_t)x);
    put32(p + 4, (uint32_t)(x >> 32));
}

static void format_head(const bt_lt_cache *cache, uint8_t *p)
{
    memset(p, 0, BT_LT_FILE_HEAD);
    memcpy(p, magic, sizeof(magic));
    put32(p + 8, cache->count);
    put32(p + 12, cache->card.capability);
    put32(p + 16, cache->card.multiprocessors);
    put64(p + 24, cache->card.library);
    memcpy(p + 32, cache->card.name, BT_LT_CARD_BYTES);
}

static void format_entry(const bt_lt_entry *e, uint8_t *p)
{
    const uint32_t key[6] = {e->key.kind, e->key.y, e->key.flags, e->key.m, e->key.n, e->key.k};
    uint32_t config[CONFIG_NUMBERS], us;
    memcpy(config, &e->config, sizeof(config));
    memcpy(&us, &e->us, 4);
    for (uint32_t i = 0; i < 6; i++) put32(p + 4 * i, key[i]);
    put64(p + 24, e->workspace_bytes);
    put32(p + 32, us);
    for (uint32_t i = 0; i < CONFIG_NUMBERS; i++) put32(p + 36 + 4 * i, config[i]);
}

uint64_t bt_lt_cache_digest(const void *data, size_t bytes)
{
    const uint8_t *p = data;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

size_t bt_lt_cache_format(const bt_lt_cache *cache, void *ret_data)
{
    uint8_t *p = ret_data;
    format_head(cache, p);
    size_t bytes = BT_LT_FILE_HEAD;
    for (uint32_t i = 0; i < cache->count; i++, bytes += BT_LT_FILE_ENTRY)
        format_entry(&cache->entries[i], p + bytes);
    put64(p + bytes, bt_lt_cache_digest(p, bytes));
    return bytes + DIGEST_BYTES;
}

static bt_status parse_entry(const uint8_t *p, bt_lt_entry *e, bt_err *err)
{
    uint32_t config[CONFIG_NUMBERS], us = get32(p + 32);
    e->key = (bt_lt_key){get32(p),      get32(p + 4),  get32(p + 8),
                         get32(p + 12), get32(p + 16), get32(p + 20)};
    e->workspace_bytes = get64(p + 24);
    memcpy(&e->us, &us, 4);
    for (uint32_t i = 0; i < CONFIG_NUMBERS; i++) config[i] = get32(p + 36 + 4 * i);
    memcpy(&e->config, config, sizeof(config));
    if (bt_lt_bucket_m[bt_lt_bucket(e->key.m)] != e->key.m)
        return BT_FAIL(err, BT_ERR_FORMAT, "an entry is for %u rows, which is no bucket", e->key.m);
    if (!isfinite(e->us) || e->us <= 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "an entry has a time that is none");
    return BT_OK;
}

/* The head's own fields; ret_count entries are then known to be there. */
static bt_status parse_head(const bt_lt_card *card, const uint8_t *p, size_t bytes,
                            uint32_t *ret_count, bt_err *err)
{
    if (bytes < BT_LT_FILE_HEAD + DIGEST_BYTES || bytes > BT_LT_FILE_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "%zu bytes cannot be a table of algorithms", bytes);
    if (memcmp(p, magic, sizeof(magic)) != 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "does not begin with BTLTALG1");
    if (bt_lt_cache_digest(p, bytes - DIGEST_BYTES) != get64(p + bytes - DIGEST_BYTES))
        return BT_FAIL(err, BT_ERR_FORMAT, "its digest is wrong");
    uint32_t count = get32(p + 8);
    if (count > BT_LT_ENTRIES_MAX || get32(p + 20) != 0 ||
        bytes != BT_LT_FILE_HEAD + (size_t)count * BT_LT_FILE_ENTRY + DIGEST_BYTES)
        return BT_FAIL(err, BT_ERR_FORMAT, "%u entries do not fit its %zu bytes", count, bytes);
    if (get32(p + 12) != card->capability || get32(p + 16) != card->multiprocessors ||
        memcmp(p + 32, card->name, BT_LT_CARD_BYTES) != 0)
        return BT_FAIL(err, BT_ERR_VERSION, "was measured on another card than this %s",
                       card->name);
    if (get64(p + 24) != card->library)
        return BT_FAIL(err, BT_ERR_VERSION, "was measured with cuBLASLt %llu, this is %llu",
                       (unsigned long long)get64(p + 24), (unsigned long long)card->library);
    *ret_count = count;
    return BT_OK;
}

bt_status bt_lt_cache_parse(bt_lt_cache *cache, const void *data, size_t bytes, bt_err *err)
{
    const uint8_t *p = data;
    uint32_t count = 0;
    bt_status status = parse_head(&cache->card, p, bytes, &count, err);
    if (status != BT_OK) return status;
    bt_lt_entry entry;
    for (uint32_t i = 0; i < count; i++) {
        status = parse_entry(p + BT_LT_FILE_HEAD + (size_t)i * BT_LT_FILE_ENTRY, &entry, err);
        if (status != BT_OK) return status;
    }
    for (uint32_t i = 0; i < count; i++)
        parse_entry(p + BT_LT_FILE_HEAD + (size_t)i * BT_LT_FILE_ENTRY, &cache->entries[i], NULL);
    cache->count = count;
    return BT_OK;
}

static bt_status os_error(const char *what, const char *path, bt_err *err)
{
    int number = errno;
    bt_status status = BT_FAIL(err, BT_ERR_OS, "%s %s: %s", what, path, strerror(number));
    if (err) err->os_errno = number;
    return status;
}

/* Up to capacity bytes; a short file is not an error. */
static bt_status read_file(const char *path, uint8_t *buffer, size_t capacity, size_t *ret_bytes,
                           bt_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return os_error("cannot open", path, err);
    struct stat info;
    size_t bytes = 0;
    ssize_t got = 0;
    bt_status status = BT_OK;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = BT_FAIL(err, BT_ERR_FORMAT, "%s is not a regular file", path);
    } else {
        while (bytes < capacity && (got = read(fd, buffer + bytes, capacity - bytes)) > 0)
            bytes += (size_t)got;
        if (got < 0) status = os_error("cannot read", path, err);
    }
    close(fd);
    *ret_bytes = bytes;
    return status;
}

bt_status bt_lt_cache_load(bt_lt_cache *cache, const char *path, bt_err *err)
{
    size_t capacity = BT_LT_FILE_BYTES_MAX + 1, bytes = 0;
    uint8_t *data = malloc(capacity);
    if (!data) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for %s", path);
    bt_status status = read_file(path, data, capacity, &bytes, err);
    if (status == BT_OK) status = bt_lt_cache_parse(cache, data, bytes, err);
    free(data);
    return status;
}

bt_status bt_lt_cache_save(const bt_lt_cache *cache, const char *path, bt_err *err)
{
    char fresh[PATH_MAX];
    if (snprintf(fresh, sizeof(fresh), "%s.new", path) >= (int)sizeof(fresh))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "the path is too long");
    uint8_t *data = malloc(BT_LT_FILE_BYTES_MAX);
    if (!data) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for %s", path);
    size_t bytes = bt_lt_cache_format(cache, data);
    bt_status status = BT_OK;
    FILE *file = fopen(fresh, "we");
    if (!file) {
        status = os_error("cannot write", fresh, err);
    } else {
        bool written = fwrite(data, 1, bytes, file) == bytes;
        written = fflush(file) == 0 && fsync(fileno(file)) == 0 && written;
        written = fclose(file) == 0 && written;
        if (!written || rename(fresh, path) != 0) status = os_error("cannot write", path, err);
        if (status != BT_OK) unlink(fresh);
    }
    free(data);
    return status;
}
