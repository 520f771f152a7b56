/* prefix.h - finds KV already computed for the beginning of a prompt.
 *
 * WHAT    An index from the name of a prefix to the blocks of its last run. The name of runs 0 .. r is a chained
 *         SHA-256: root = H(tenant salt, weights digest of the producer, adapter, precision path),
 *         name(r) = H(name(r - 1), tokens of run r). So KV of other weights, tenants or precision is never found, and
 *         no entry needs to know its parent. Whole runs of 64 tokens only.
 * USERS   P for its own KV; D for what was pushed to it (Ticket.run_first). The blocks belong to pool.h, whose rules
 *         K1 .. K6 hold here.
 * BOUNDS  At most one entry for each run that the pool can hold. */
#ifndef BT_COMMON_KV_PREFIX_H
#define BT_COMMON_KV_PREFIX_H

#include "common/kv/pool.h"
#include "proto/msg.h"

typedef struct bt_kv_prefix bt_kv_prefix;

/* Everything but tokens that decides the bytes of a KV block. */
typedef struct {
    const uint8_t *tenant_salt;      /* [BT_SHA256_BYTES] */
    const bt_sha256 *weights_digest; /* of the daemon that computed the KV */
    uint32_t adapter;                /* 0 = none */
    bt_dtype producer;               /* pool dtype it was computed in */
    bt_dtype wire;                   /* dtype it travelled in; NONE if it never did */
} bt_kv_path;

void bt_kv_prefix_root(const bt_kv_path *path, bt_sha256 *ret_name);
/* tokens [token_count], at most BT_RUN_TOKENS. ret_name may be the same as name. */
void bt_kv_prefix_next(const bt_sha256 *name, const uint32_t *tokens, uint32_t token_count,
                       bt_sha256 *ret_name);
/* Name of a whole token list, its partial last run included: Manifest.prefix_hash. */
void bt_kv_prefix_hash(const bt_kv_path *path, const uint32_t *tokens, uint32_t token_count,
                       bt_sha256 *ret_name);

/* NULL while the arena measures. pool is kept; block_tokens divides 64. */
bt_kv_prefix *bt_kv_prefix_carve(bt_arena *arena, bt_kv_pool *pool, uint32_t block_count,
                                 uint32_t block_tokens);

/* Pins the longest known beginning of tokens, at most runs_max runs; returns its runs. ret_blocks
 * holds 64 / block_tokens blocks a run. */
uint32_t bt_kv_prefix_pin(bt_kv_prefix *prefix, const bt_sha256 *root, const uint32_t *tokens,
                          uint32_t runs_max, uint32_t owner, uint32_t *ret_blocks);

/* Seals the blocks of one run, pinned by the caller, under their name (K3). Does nothing if the
 * name is known or a block is sealed already. */
void bt_kv_prefix_insert(bt_kv_prefix *prefix, const bt_sha256 *name, const uint32_t *blocks);

/* Takes blocks from the pool, evicting cached runs as needed (K6); false, and nothing evicted, if
 * even that is not enough. */
bool bt_kv_prefix_take(bt_kv_prefix *prefix, uint32_t count, uint32_t owner, uint32_t *ret_blocks);

uint32_t bt_kv_prefix_entries(const bt_kv_prefix *prefix);

#endif
