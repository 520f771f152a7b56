#include "common/kv/attempts.h"

#include <string.h>

#define WAYS 8u

typedef struct {
    bt_request_id request;
    uint64_t expires_ns; /* 0 = empty */
    uint32_t attempt;
} attempt_entry;

struct bt_attempts {
    uint32_t bucket_count; /* a power of two */
    attempt_entry *entries;
};

bt_attempts *bt_attempts_carve(bt_arena *arena, uint32_t capacity)
{
    uint32_t buckets = 1;
    while (buckets < capacity / (WAYS / 2) + 1 && buckets < (1u << 24)) buckets *= 2;
    bt_attempts *attempts = BT_ARENA_NEW(arena, bt_attempts, 1);
    attempt_entry *entries = BT_ARENA_NEW(arena, attempt_entry, (size_t)buckets * WAYS);
    if (attempts == NULL) return NULL;
    *attempts = (bt_attempts){.bucket_count = buckets, .entries = entries};
    return attempts;
}

static attempt_entry *bucket_of(const bt_attempts *attempts, const bt_request_id *request)
{
    uint64_t word;
    memcpy(&word, request->bytes + 4, sizeof(word));
    word = (word ^ (word >> 29)) * 0x9e3779b97f4a7c15u;
    return attempts->entries + ((word >> 32) & (attempts->bucket_count - 1)) * WAYS;
}

void bt_attempts_raise(bt_attempts *attempts, const bt_request_id *request, uint32_t attempt,
                       uint64_t expires_ns, uint64_t now_ns)
{
    attempt_entry *bucket = bucket_of(attempts, request);
    attempt_entry *chosen = &bucket[0];
    for (uint32_t i = 0; i < WAYS; i++) {
        if (bucket[i].expires_ns != 0 && memcmp(&bucket[i].request, request, 16) == 0) {
            chosen = &bucket[i];
            break;
        }
        if (bucket[i].expires_ns < chosen->expires_ns) chosen = &bucket[i];
    }
    bool known = chosen->expires_ns > now_ns && memcmp(&chosen->request, request, 16) == 0;
    if (known && chosen->attempt > attempt) attempt = chosen->attempt;
    if (known && chosen->expires_ns > expires_ns) expires_ns = chosen->expires_ns;
    *chosen = (attempt_entry){.request = *request, .expires_ns = expires_ns, .attempt = attempt};
}

uint32_t bt_attempts_seen(const bt_attempts *attempts, const bt_request_id *request,
                          uint64_t now_ns)
{
    const attempt_entry *bucket = bucket_of(attempts, request);
    for (uint32_t i = 0; i < WAYS; i++) {
        if (bucket[i].expires_ns > now_ns && memcmp(&bucket[i].request, request, 16) == 0)
            return bucket[i].attempt;
    }
    return 0;
}
