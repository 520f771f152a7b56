/* prefix_index.h - what the router believes the daemons' prefix caches hold.
 *
 * WHAT    A bounded table of (name of a run, daemon, path). A name is the chained hash of
 *         common/kv/prefix.h over the tenant's salt and the tokens, so no prefix of a tenant is ever
 *         found for another; 128 bits of it are kept. The path tells KV of different precision in one
 *         daemon apart, as that daemon's own index does.
 * TRUTH   Only what a daemon said is learnt: P has the whole runs of a prompt when its FirstToken
 *         came, D when its Accepted came. What they say was cached corrects us: a run that we
 *         believed in and that was not there is gone, and since their caches forget the longest
 *         unused first, so is everything of that daemon that was learnt before it.
 * BOUNDS  entries_max; the longest unused is forgotten first. A daemon that is down loses all at
 *         once. Pure; memory carved at start. */
#ifndef BT_ROUTER_PREFIX_INDEX_H
#define BT_ROUTER_PREFIX_INDEX_H

#include "common/base/arena.h"
#include "common/kv/prefix.h"

#include <stdint.h>

typedef struct bt_prefix_index bt_prefix_index;

typedef struct {
    uint8_t bytes[16];
} bt_prefix_name;

typedef struct {
    uint32_t daemon; /* < BT_DAEMONS_MAX */
    uint32_t path;
} bt_prefix_owner;

/* NULL while the arena measures. entries_max > 0. */
bt_prefix_index *bt_prefix_index_carve(bt_arena *arena, uint32_t entries_max);

/* Names of the whole runs [from, token_count / 64) of a prompt. *chain is the name of run from - 1
 * in full (from 0: set here from the salt), and after the call of the last one. Returns their count,
 * from included. */
uint32_t bt_prefix_names(const uint8_t tenant_salt[BT_SHA256_BYTES], const uint32_t *tokens,
                         uint32_t token_count, uint32_t from, bt_sha256 *chain,
                         bt_prefix_name *ret_names);

/* Whole runs, from the first on, that the owner is thought to hold. */
uint32_t bt_prefix_index_match(const bt_prefix_index *index, bt_prefix_owner owner,
                               const bt_prefix_name *names, uint32_t count);
void bt_prefix_index_learn(bt_prefix_index *index, bt_prefix_owner owner,
                           const bt_prefix_name *names, uint32_t count);
/* We believed in `believed` runs when the index's time was `when`; `found` were there. */
void bt_prefix_index_correct(bt_prefix_index *index, bt_prefix_owner owner,
                             const bt_prefix_name *names, uint32_t believed, uint32_t found,
                             uint64_t when);
void bt_prefix_index_forget(bt_prefix_index *index, uint32_t daemon);

/* Grows with everything learnt. */
uint64_t bt_prefix_index_time(const bt_prefix_index *index);
uint32_t bt_prefix_index_entries(const bt_prefix_index *index);

#endif
