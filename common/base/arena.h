/* arena.h - one block of memory cut into pieces at start, never given back piecewise.
 *
 * FLOW    A module says how much it needs (bt_x_bytes), its owner allocates once, the module carves
 *         in x_init. With base == NULL an arena only measures, so the same carving code computes
 *         the size.
 * BOUNDS  Asking beyond the end is a bug in the size computation: it asserts. */
#ifndef BT_COMMON_BASE_ARENA_H
#define BT_COMMON_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *base; /* NULL: measure only */
    size_t capacity_bytes;
    size_t used_bytes;
} bt_arena;

#define BT_ARENA_ALIGN 64u

void bt_arena_init(bt_arena *arena, void *base, size_t capacity_bytes);

/* Zeroed memory aligned to BT_ARENA_ALIGN; NULL while measuring. Overflow of count * size asserts.
 */
void *bt_arena_take(bt_arena *arena, size_t count, size_t size);

#define BT_ARENA_NEW(arena, type, count) ((type *)bt_arena_take((arena), (count), sizeof(type)))

#endif
