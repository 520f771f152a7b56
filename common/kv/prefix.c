#include "common/kv/prefix.h"

#include <assert.h>
#include <string.h>

#define BLOCKS_PER_RUN_MAX 4u /* 64 tokens in blocks of 16 */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "names hash tokens as they lie");

typedef struct {
    bt_sha256 name;
    uint32_t next; /* in its bucket, or among the unused */
    uint32_t blocks[BLOCKS_PER_RUN_MAX];
} prefix_entry;

struct bt_kv_prefix {
    bt_kv_pool *pool;
    uint32_t blocks_per_run;
    uint32_t entry_count, unused;
    uint32_t bucket_mask;
    uint32_t *buckets;
    prefix_entry *entries;
};

void bt_kv_prefix_root(const bt_kv_path *path, bt_sha256 *ret_name)
{
    uint32_t numbers[3] = {path->adapter, (uint32_t)path->producer, (uint32_t)path->wire};
    bt_sha256_stream stream;
    bt_sha256_start(&stream);
    bt_sha256_add(&stream, "baton kv prefix 1", 17);
    bt_sha256_add(&stream, path->tenant_salt, BT_SHA256_BYTES);
    bt_sha256_add(&stream, path->weights_digest->bytes, BT_SHA256_BYTES);
    bt_sha256_add(&stream, numbers, sizeof(numbers));
    bt_sha256_end(&stream, ret_name);
}

void bt_kv_prefix_next(const bt_sha256 *name, const uint32_t *tokens, uint32_t token_count,
                       bt_sha256 *ret_name)
{
    assert(token_count <= BT_RUN_TOKENS);
    bt_sha256_stream stream;
    bt_sha256_start(&stream);
    bt_sha256_add(&stream, name->bytes, sizeof(name->bytes));
    bt_sha256_add(&stream, tokens, token_count * sizeof(tokens[0]));
    bt_sha256_end(&stream, ret_name);
}

void bt_kv_prefix_hash(const bt_kv_path *path, const uint32_t *tokens, uint32_t token_count,
                       bt_sha256 *ret_name)
{
    bt_kv_prefix_root(path, ret_name);
    for (uint32_t at = 0; at < token_count; at += BT_RUN_TOKENS) {
        uint32_t left = token_count - at;
        bt_kv_prefix_next(ret_name, tokens + at, left < BT_RUN_TOKENS ? left : BT_RUN_TOKENS,
                          ret_name);
    }
}

bt_kv_prefix *bt_kv_prefix_carve(bt_arena *arena, bt_kv_pool *pool, uint32_t block_count,
                                 uint32_t block_tokens)
{
    assert(block_tokens == 16 || block_tokens == 32 || block_tokens == 64);
    uint32_t blocks_per_run = BT_RUN_TOKENS / block_tokens;
    uint32_t entry_max = block_count / blocks_per_run + 1;
    uint32_t buckets_count = 1;
    while (buckets_count < entry_max && buckets_count < (1u << 30)) buckets_count *= 2;
    bt_kv_prefix *prefix = BT_ARENA_NEW(arena, bt_kv_prefix, 1);
    uint32_t *buckets = BT_ARENA_NEW(arena, uint32_t, buckets_count);
    prefix_entry *entries = BT_ARENA_NEW(arena, prefix_entry, entry_max);
    if (prefix == NULL) return NULL;
    *prefix = (bt_kv_prefix){.pool = pool,
                             .blocks_per_run = blocks_per_run,
                             .bucket_mask = buckets_count - 1,
                             .buckets = buckets,
                             .entries = entries};
    for (uint32_t i = 0; i < buckets_count; i++) buckets[i] = BT_KV_NONE;
    for (uint32_t i = 0; i < entry_max; i++)
        entries[i].next = i + 1 < entry_max ? i + 1 : BT_KV_NONE;
    return prefix;
}

static uint32_t *bucket_of(const bt_kv_prefix *prefix, const bt_sha256 *name)
{
    uint32_t word;
    memcpy(&word, name->bytes, sizeof(word));
    return &prefix->buckets[word & prefix->bucket_mask];
}

static uint32_t find(const bt_kv_prefix *prefix, const bt_sha256 *name)
{
    uint32_t i = *bucket_of(prefix, name);
    while (i != BT_KV_NONE && memcmp(&prefix->entries[i].name, name, sizeof(*name)) != 0)
        i = prefix->entries[i].next;
    return i;
}

/* Forgets an entry; its blocks are free as soon as nobody pins them. */
static void forget(bt_kv_prefix *prefix, uint32_t index)
{
    prefix_entry *entry = &prefix->entries[index];
    uint32_t *link = bucket_of(prefix, &entry->name);
    while (*link != index) link = &prefix->entries[*link].next;
    *link = entry->next;
    for (uint32_t i = prefix->blocks_per_run; i > 0; i--)
        bt_kv_pool_unseal(prefix->pool, entry->blocks[i - 1]);
    entry->next = prefix->unused;
    prefix->unused = index;
    prefix->entry_count--;
}

uint32_t bt_kv_prefix_pin(bt_kv_prefix *prefix, const bt_sha256 *root, const uint32_t *tokens,
                          uint32_t runs_max, uint32_t owner, uint32_t *ret_blocks)
{
    bt_sha256 name = *root;
    uint32_t run = 0;
    for (; run < runs_max; run++) {
        bt_kv_prefix_next(&name, tokens + (size_t)run * BT_RUN_TOKENS, BT_RUN_TOKENS, &name);
        uint32_t index = find(prefix, &name);
        if (index == BT_KV_NONE) break;
        const prefix_entry *entry = &prefix->entries[index];
        for (uint32_t i = 0; i < prefix->blocks_per_run; i++) {
            bt_kv_pool_pin(prefix->pool, entry->blocks[i], owner);
            ret_blocks[run * prefix->blocks_per_run + i] = entry->blocks[i];
        }
    }
    return run;
}

void bt_kv_prefix_insert(bt_kv_prefix *prefix, const bt_sha256 *name, const uint32_t *blocks)
{
    if (find(prefix, name) != BT_KV_NONE) return;
    for (uint32_t i = 0; i < prefix->blocks_per_run; i++)
        if (bt_kv_pool_sealed(prefix->pool, blocks[i])) return;
    /* Every entry names blocks that no other entry does, so there is one left. */
    uint32_t index = prefix->unused;
    assert(index != BT_KV_NONE);
    prefix_entry *entry = &prefix->entries[index];
    prefix->unused = entry->next;
    entry->name = *name;
    uint32_t *bucket = bucket_of(prefix, name);
    entry->next = *bucket;
    *bucket = index;
    for (uint32_t i = 0; i < prefix->blocks_per_run; i++) {
        entry->blocks[i] = blocks[i];
        bt_kv_pool_seal(prefix->pool, blocks[i], index);
    }
    prefix->entry_count++;
}

bool bt_kv_prefix_take(bt_kv_prefix *prefix, uint32_t count, uint32_t owner, uint32_t *ret_blocks)
{
    uint64_t available =
        (uint64_t)bt_kv_pool_free_count(prefix->pool) + bt_kv_pool_cached_count(prefix->pool);
    if (count > available) return false;
    while (bt_kv_pool_free_count(prefix->pool) < count) {
        uint32_t oldest = bt_kv_pool_oldest(prefix->pool);
        assert(oldest != BT_KV_NONE);
        forget(prefix, oldest);
    }
    return bt_kv_pool_take(prefix->pool, count, owner, ret_blocks);
}

uint32_t bt_kv_prefix_entries(const bt_kv_prefix *prefix)
{
    return prefix->entry_count;
}
