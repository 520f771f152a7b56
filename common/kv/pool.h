/* pool.h - who may use which block of a paged KV pool: accounting only, no KV bytes.
 *
 * WHAT    A free list, a reference count for each block, an owner for whoever asks why a block is held, and the cached
 *         blocks in order of last use. It knows nothing of requests, tokens or time.
 * FLOW    carve -> take, pin, unpin… in any order. All of it is O(1) a block; recount is O(blocks).
 * THREAD  The core's.
 * BOUNDS  Nothing grows; a take that does not fit takes nothing.
 *
 * RULES (cited as K1 .. K6)
 *   K1 free      A block is free when nobody pins it and no index entry names it, and only then.
 *   K2 pin       take and pin each add one reference, undone by exactly one unpin or return. Whoever pins may read;
 *                whoever took may also write, until the block is sealed.
 *   K3 seal      A sealed block is named by an index entry. Its rows are final: nobody writes to it again, so any
 *                number of sequences may pin it.
 *   K4 lease     The pool has no clock. Every pin belongs to an object that has a lease (H3); when that lease ends the
 *                core unpins.
 *   K5 hand off  Blocks of an ended request that puts, unpacks or a batch in flight still touch are lent: the
 *                reference stays, and counts as quarantined, until it is returned.
 *   K6 evict     Only cached blocks (sealed, pinned by nobody) are evicted, least recently used first. Sequences unpin
 *                from their last block to their first, so that the end of a prefix goes before its beginning. */
#ifndef BT_COMMON_KV_POOL_H
#define BT_COMMON_KV_POOL_H

#include "common/base/arena.h"

#include <stdbool.h>
#include <stdint.h>

#define BT_KV_NONE UINT32_MAX

typedef struct bt_kv_pool bt_kv_pool;

/* All blocks free. NULL while the arena measures. */
bt_kv_pool *bt_kv_pool_carve(bt_arena *arena, uint32_t block_count);

/* Takes count free blocks, each with one reference, or none. Never evicts (prefix.h does). */
bool bt_kv_pool_take(bt_kv_pool *pool, uint32_t count, uint32_t owner, uint32_t *ret_blocks);
/* Blocks just taken become the daemon's own for ever; they are counted apart. */
void bt_kv_pool_keep(bt_kv_pool *pool, const uint32_t *blocks, uint32_t count);
/* One more reference to a sealed block. */
void bt_kv_pool_pin(bt_kv_pool *pool, uint32_t block, uint32_t owner);
void bt_kv_pool_unpin(bt_kv_pool *pool, uint32_t block);
/* K5: one of this block's references now only waits for work in flight… */
void bt_kv_pool_lend(bt_kv_pool *pool, uint32_t block);
/* … and here that work is over. */
void bt_kv_pool_return(bt_kv_pool *pool, uint32_t block);
/* K3. The block is pinned and not sealed. */
void bt_kv_pool_seal(bt_kv_pool *pool, uint32_t block, uint32_t entry);
/* The index forgot it: free at once if nobody pins it. */
void bt_kv_pool_unseal(bt_kv_pool *pool, uint32_t block);

bool bt_kv_pool_sealed(const bt_kv_pool *pool, uint32_t block);
/* Index entry of the least recently used cached block, BT_KV_NONE if nothing is cached. */
uint32_t bt_kv_pool_oldest(const bt_kv_pool *pool);
uint32_t bt_kv_pool_free_count(const bt_kv_pool *pool);
uint32_t bt_kv_pool_cached_count(const bt_kv_pool *pool);

typedef struct {
    uint32_t free, cached, held, quarantined;
    uint32_t own; /* kept by the daemon itself */
} bt_kv_pool_counts;

/* Counts every block by its own row of the table, not by running totals, and asserts that both and
 * the lists agree. */
void bt_kv_pool_recount(const bt_kv_pool *pool, bt_kv_pool_counts *ret_counts);
/* Blocks of this owner that are held or quarantined, from the table. */
uint32_t bt_kv_pool_owned(const bt_kv_pool *pool, uint32_t owner);

#endif
