#include "common/base/arena.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

void bt_arena_init(bt_arena *arena, void *base, size_t capacity_bytes)
{
    assert(base == NULL || (uintptr_t)base % BT_ARENA_ALIGN == 0);
    *arena = (bt_arena){.base = base, .capacity_bytes = capacity_bytes};
}

void *bt_arena_take(bt_arena *arena, size_t count, size_t size)
{
    size_t bytes, padded;
    bool overflow = __builtin_mul_overflow(count, size, &bytes) ||
                    __builtin_add_overflow(bytes, (size_t)BT_ARENA_ALIGN - 1, &padded);
    assert(!overflow);
    padded &= ~(size_t)(BT_ARENA_ALIGN - 1);
    size_t offset = arena->used_bytes;
    overflow = __builtin_add_overflow(offset, padded, &arena->used_bytes);
    assert(!overflow);
    if (arena->base == NULL) return NULL;
    assert(arena->used_bytes <= arena->capacity_bytes);
    memset(arena->base + offset, 0, padded);
    return arena->base + offset;
}
