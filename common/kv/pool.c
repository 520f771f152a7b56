#include "common/kv/pool.h"

#include <assert.h>

typedef struct {
    uint32_t references;
    uint32_t lent; /* of these references, K5 */
    uint32_t owner;
    uint32_t entry;      /* K3: the index entry that names it, or BT_KV_NONE */
    uint32_t prev, next; /* cached: by last use; free: next only */
    bool own;
} pool_block;

struct bt_kv_pool {
    uint32_t block_count;
    uint32_t free_head, free_count;
    uint32_t oldest, newest, cached_count;
    pool_block *blocks;
};

bt_kv_pool *bt_kv_pool_carve(bt_arena *arena, uint32_t block_count)
{
    assert(block_count > 0 && block_count < BT_KV_NONE);
    bt_kv_pool *pool = BT_ARENA_NEW(arena, bt_kv_pool, 1);
    pool_block *blocks = BT_ARENA_NEW(arena, pool_block, block_count);
    if (pool == NULL) return NULL;
    *pool = (bt_kv_pool){.block_count = block_count,
                         .free_head = 0,
                         .free_count = block_count,
                         .oldest = BT_KV_NONE,
                         .newest = BT_KV_NONE,
                         .blocks = blocks};
    for (uint32_t i = 0; i < block_count; i++) {
        uint32_t next = i + 1 < block_count ? i + 1 : BT_KV_NONE;
        blocks[i] = (pool_block){.owner = BT_KV_NONE, .entry = BT_KV_NONE, .next = next};
    }
    return pool;
}

static pool_block *at(const bt_kv_pool *pool, uint32_t block)
{
    assert(block < pool->block_count);
    return &pool->blocks[block];
}

static void make_free(bt_kv_pool *pool, uint32_t block)
{
    pool_block *b = at(pool, block);
    b->owner = BT_KV_NONE;
    b->next = pool->free_head;
    pool->free_head = block;
    pool->free_count++;
}

static void cached_append(bt_kv_pool *pool, uint32_t block)
{
    pool_block *b = at(pool, block);
    b->owner = BT_KV_NONE;
    b->prev = pool->newest;
    b->next = BT_KV_NONE;
    if (pool->newest == BT_KV_NONE)
        pool->oldest = block;
    else
        at(pool, pool->newest)->next = block;
    pool->newest = block;
    pool->cached_count++;
}

static void cached_remove(bt_kv_pool *pool, uint32_t block)
{
    pool_block *b = at(pool, block);
    if (b->prev == BT_KV_NONE)
        pool->oldest = b->next;
    else
        at(pool, b->prev)->next = b->next;
    if (b->next == BT_KV_NONE)
        pool->newest = b->prev;
    else
        at(pool, b->next)->prev = b->prev;
    pool->cached_count--;
}

bool bt_kv_pool_take(bt_kv_pool *pool, uint32_t count, uint32_t owner, uint32_t *ret_blocks)
{
    if (count > pool->free_count) return false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t block = pool->free_head;
        pool_block *b = at(pool, block);
        assert(b->references == 0 && b->entry == BT_KV_NONE && !b->own);
        pool->free_head = b->next;
        pool->free_count--;
        b->references = 1;
        b->owner = owner;
        ret_blocks[i] = block;
    }
    return true;
}

void bt_kv_pool_keep(bt_kv_pool *pool, const uint32_t *blocks, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        pool_block *b = at(pool, blocks[i]);
        assert(b->references == 1 && b->lent == 0 && b->entry == BT_KV_NONE && !b->own);
        b->own = true;
    }
}

void bt_kv_pool_pin(bt_kv_pool *pool, uint32_t block, uint32_t owner)
{
    pool_block *b = at(pool, block);
    assert(b->entry != BT_KV_NONE && !b->own);
    if (b->references == 0) cached_remove(pool, block);
    b->references++;
    b->owner = owner;
}

void bt_kv_pool_unpin(bt_kv_pool *pool, uint32_t block)
{
    pool_block *b = at(pool, block);
    assert(b->references > b->lent && !b->own);
    if (--b->references > 0) return;
    if (b->entry != BT_KV_NONE)
        cached_append(pool, block);
    else
        make_free(pool, block);
}

void bt_kv_pool_lend(bt_kv_pool *pool, uint32_t block)
{
    pool_block *b = at(pool, block);
    assert(b->references > b->lent && !b->own);
    b->lent++;
}

void bt_kv_pool_return(bt_kv_pool *pool, uint32_t block)
{
    pool_block *b = at(pool, block);
    assert(b->lent > 0);
    b->lent--;
    bt_kv_pool_unpin(pool, block);
}

void bt_kv_pool_seal(bt_kv_pool *pool, uint32_t block, uint32_t entry)
{
    pool_block *b = at(pool, block);
    assert(b->references > 0 && b->entry == BT_KV_NONE && !b->own && entry != BT_KV_NONE);
    b->entry = entry;
}

void bt_kv_pool_unseal(bt_kv_pool *pool, uint32_t block)
{
    pool_block *b = at(pool, block);
    assert(b->entry != BT_KV_NONE);
    b->entry = BT_KV_NONE;
    if (b->references > 0) return;
    cached_remove(pool, block);
    make_free(pool, block);
}

bool bt_kv_pool_sealed(const bt_kv_pool *pool, uint32_t block)
{
    return at(pool, block)->entry != BT_KV_NONE;
}

uint32_t bt_kv_pool_oldest(const bt_kv_pool *pool)
{
    return pool->oldest == BT_KV_NONE ? BT_KV_NONE : at(pool, pool->oldest)->entry;
}

uint32_t bt_kv_pool_free_count(const bt_kv_pool *pool)
{
    return pool->free_count;
}

uint32_t bt_kv_pool_cached_count(const bt_kv_pool *pool)
{
    return pool->cached_count;
}

void bt_kv_pool_recount(const bt_kv_pool *pool, bt_kv_pool_counts *ret_counts)
{
    bt_kv_pool_counts counts = {0};
    for (uint32_t i = 0; i < pool->block_count; i++) {
        const pool_block *b = &pool->blocks[i];
        assert(b->lent <= b->references);
        if (b->own)
            counts.own++;
        else if (b->references > b->lent)
            counts.held++;
        else if (b->references > 0)
            counts.quarantined++;
        else if (b->entry != BT_KV_NONE)
            counts.cached++;
        else
            counts.free++;
    }
    assert(counts.free == pool->free_count && counts.cached == pool->cached_count);
    uint32_t listed = 0;
    for (uint32_t b = pool->free_head; b != BT_KV_NONE && listed <= pool->block_count;
         b = at(pool, b)->next)
        listed++;
    assert(listed == counts.free);
    listed = 0;
    for (uint32_t b = pool->oldest; b != BT_KV_NONE && listed <= pool->block_count;
         b = at(pool, b)->next)
        listed++;
    assert(listed == counts.cached);
    *ret_counts = counts;
}

uint32_t bt_kv_pool_owned(const bt_kv_pool *pool, uint32_t owner)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < pool->block_count; i++) {
        const pool_block *b = &pool->blocks[i];
        count += b->references > 0 && b->owner == owner && !b->own;
    }
    return count;
}
