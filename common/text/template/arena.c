#include "common/text/template/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)64 << 10)
#define ALIGN 16u

struct bt_tpl_chunk {
    bt_tpl_chunk *next;
    _Alignas(ALIGN) char bytes[];
};

void bt_tpl_arena_init(bt_tpl_arena *arena, bt_tpl_budget *budget)
{
    *arena = (bt_tpl_arena){.budget = budget};
}

void bt_tpl_arena_finish(bt_tpl_arena *arena)
{
    while (arena->chunks != NULL) {
        bt_tpl_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
    arena->at = arena->end = NULL;
}

static bool add_chunk(bt_tpl_arena *arena, size_t bytes)
{
    bt_tpl_budget *budget = arena->budget;
    size_t left = budget->max_bytes - budget->used_bytes;
    if (bytes > left) return false;
    size_t payload = bytes > CHUNK_BYTES || CHUNK_BYTES > left ? bytes : CHUNK_BYTES;
    size_t whole;
    if (__builtin_add_overflow(payload, sizeof(bt_tpl_chunk), &whole)) return false;
    bt_tpl_chunk *chunk = malloc(whole);
    if (chunk == NULL) {
        budget->no_memory = true;
        return false;
    }
    budget->used_bytes += payload;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    arena->at = chunk->bytes;
    arena->end = chunk->bytes + payload;
    return true;
}

void *bt_tpl_arena_take(bt_tpl_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    /* A text may have ended anywhere. */
    size_t skip = (ALIGN - (uintptr_t)arena->at % ALIGN) % ALIGN;
    if (arena->at == NULL || (size_t)(arena->end - arena->at) < skip + bytes) {
        if (!add_chunk(arena, bytes)) return NULL;
        skip = 0; /* chunks begin aligned */
    }
    char *piece = arena->at + skip;
    arena->at = piece + bytes;
    memset(piece, 0, bytes);
    return piece;
}

char *bt_tpl_arena_text(bt_tpl_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2) return NULL;
    if (((size_t)(arena->end - arena->at) < bytes || arena->at == NULL) && !add_chunk(arena, bytes))
        return NULL;
    char *piece = arena->at;
    arena->at += bytes;
    return piece;
}

bool bt_tpl_arena_extend(bt_tpl_arena *arena, const char *end, size_t bytes)
{
    if (end == NULL || end != arena->at || (size_t)(arena->end - arena->at) < bytes) return false;
    arena->at += bytes;
    return true;
}

void bt_tpl_arena_trim(bt_tpl_arena *arena, const char *end, size_t bytes)
{
    if (end != NULL && end == arena->at) arena->at -= bytes;
}

bt_status bt_tpl_arena_fail(const bt_tpl_arena *arena, const char *label, bt_err *err)
{
    if (arena->budget->no_memory) return BT_FAIL(err, BT_ERR_NO_MEMORY, "out of memory");
    return BT_FAIL(err, BT_ERR_LIMIT, "%.60s takes more than %zu bytes of memory", label,
                   arena->budget->max_bytes);
}
