#include "router/prefix_index.h"

#include <assert.h>
#include <string.h>

#define NONE UINT32_MAX

typedef struct {
    bt_prefix_name name;
    bt_prefix_owner owner;
    uint64_t learnt;       /* time of the index; 0 = unused */
    uint32_t next;         /* in its bucket */
    uint32_t newer, older; /* in the order of learning */
} index_entry;

struct bt_prefix_index {
    uint64_t time;
    uint64_t
        gone_before[BT_DAEMONS_MAX]; /* what was learnt earlier of this daemon is not believed */
    uint32_t entries_max, used;
    uint32_t newest, oldest;
    uint32_t bucket_mask;
    uint32_t *buckets;
    index_entry *entries;
};

bt_prefix_index *bt_prefix_index_carve(bt_arena *arena, uint32_t entries_max)
{
    assert(entries_max > 0 && entries_max < NONE);
    uint32_t bucket_count = 1;
    while (bucket_count < entries_max && bucket_count < 1u << 30) bucket_count *= 2;
    bt_prefix_index *index = BT_ARENA_NEW(arena, bt_prefix_index, 1);
    uint32_t *buckets = BT_ARENA_NEW(arena, uint32_t, bucket_count);
    index_entry *entries = BT_ARENA_NEW(arena, index_entry, entries_max);
    if (index == NULL) return NULL;
    *index = (bt_prefix_index){.entries_max = entries_max,
                               .newest = NONE,
                               .oldest = NONE,
                               .bucket_mask = bucket_count - 1,
                               .buckets = buckets,
                               .entries = entries};
    for (uint32_t i = 0; i < bucket_count; i++) buckets[i] = NONE;
    return index;
}

uint32_t bt_prefix_names(const uint8_t tenant_salt[BT_SHA256_BYTES], const uint32_t *tokens,
                         uint32_t token_count, uint32_t from, bt_sha256 *chain,
                         bt_prefix_name *ret_names)
{
    static const bt_sha256 any_weights;
    bt_kv_path path = {.tenant_salt = tenant_salt, .weights_digest = &any_weights};
    if (from == 0) bt_kv_prefix_root(&path, chain);
    uint32_t count = token_count / BT_RUN_TOKENS;
    for (uint32_t run = from; run < count; run++) {
        bt_kv_prefix_next(chain, tokens + (size_t)run * BT_RUN_TOKENS, BT_RUN_TOKENS, chain);
        memcpy(ret_names[run].bytes, chain->bytes, sizeof(ret_names[run].bytes));
    }
    return count;
}

static uint32_t *bucket_of(const bt_prefix_index *index, bt_prefix_owner owner,
                           const bt_prefix_name *name)
{
    uint64_t word;
    memcpy(&word, name->bytes, sizeof(word));
    word ^= ((uint64_t)owner.daemon << 32 | owner.path) * UINT64_C(0x9e3779b97f4a7c15);
    word = (word ^ (word >> 29)) * UINT64_C(0xbf58476d1ce4e5b9);
    return &index->buckets[(uint32_t)(word >> 32) & index->bucket_mask];
}

static uint32_t find(const bt_prefix_index *index, bt_prefix_owner owner,
                     const bt_prefix_name *name)
{
    uint32_t i = *bucket_of(index, owner, name);
    for (; i != NONE; i = index->entries[i].next) {
        const index_entry *e = &index->entries[i];
        if (e->owner.daemon == owner.daemon && e->owner.path == owner.path &&
            memcmp(&e->name, name, sizeof(*name)) == 0)
            return i;
    }
    return NONE;
}

static void unlink_entry(bt_prefix_index *index, uint32_t i)
{
    index_entry *e = &index->entries[i];
    *(e->newer == NONE ? &index->newest : &index->entries[e->newer].older) = e->older;
    *(e->older == NONE ? &index->oldest : &index->entries[e->older].newer) = e->newer;
}

static void make_newest(bt_prefix_index *index, uint32_t i)
{
    index_entry *e = &index->entries[i];
    e->newer = NONE;
    e->older = index->newest;
    *(index->newest == NONE ? &index->oldest : &index->entries[index->newest].newer) = i;
    index->newest = i;
    e->learnt = ++index->time;
}

/* An entry out of its bucket and out of the order; the oldest if all are used. */
static uint32_t take(bt_prefix_index *index)
{
    if (index->used < index->entries_max) return index->used++;
    uint32_t i = index->oldest;
    unlink_entry(index, i);
    uint32_t *link = bucket_of(index, index->entries[i].owner, &index->entries[i].name);
    while (*link != i) link = &index->entries[*link].next;
    *link = index->entries[i].next;
    return i;
}

uint32_t bt_prefix_index_match(const bt_prefix_index *index, bt_prefix_owner owner,
                               const bt_prefix_name *names, uint32_t count)
{
    assert(owner.daemon < BT_DAEMONS_MAX);
    uint32_t run = 0;
    for (; run < count; run++) {
        uint32_t i = find(index, owner, &names[run]);
        if (i == NONE || index->entries[i].learnt < index->gone_before[owner.daemon]) break;
    }
    return run;
}

/* From the last run to the first, so that the end of a prefix is forgotten first, as the daemons do
 * (K6 of common/kv/pool.h). */
void bt_prefix_index_learn(bt_prefix_index *index, bt_prefix_owner owner,
                           const bt_prefix_name *names, uint32_t count)
{
    assert(owner.daemon < BT_DAEMONS_MAX);
    for (uint32_t run = count; run-- > 0;) {
        uint32_t i = find(index, owner, &names[run]);
        if (i != NONE) {
            unlink_entry(index, i);
            make_newest(index, i);
            continue;
        }
        i = take(index);
        index_entry *e = &index->entries[i];
        uint32_t *bucket = bucket_of(index, owner, &names[run]);
        *e = (index_entry){.name = names[run], .owner = owner, .next = *bucket};
        *bucket = i;
        make_newest(index, i);
    }
}

void bt_prefix_index_correct(bt_prefix_index *index, bt_prefix_owner owner,
                             const bt_prefix_name *names, uint32_t believed, uint32_t found,
                             uint64_t when)
{
    if (found >= believed) return;
    uint32_t i = find(index, owner, &names[found]);
    if (i == NONE || index->entries[i].learnt > when) return; /* it came back meanwhile */
    uint64_t *gone = &index->gone_before[owner.daemon];
    if (index->entries[i].learnt + 1 > *gone) *gone = index->entries[i].learnt + 1;
}

void bt_prefix_index_forget(bt_prefix_index *index, uint32_t daemon)
{
    assert(daemon < BT_DAEMONS_MAX);
    index->gone_before[daemon] = index->time + 1;
}

uint64_t bt_prefix_index_time(const bt_prefix_index *index)
{
    return index->time;
}

uint32_t bt_prefix_index_entries(const bt_prefix_index *index)
{
    return index->used;
}
