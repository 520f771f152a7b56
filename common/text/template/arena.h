/* arena.h - the memory of one parse or one render: taken piece by piece, given back all at once.
 *
 * Arenas that share a budget stop together. Taking fails (NULL) at the budget or when malloc does;
 * the budget remembers which, for the error. */
#ifndef BT_COMMON_TEXT_TEMPLATE_ARENA_H
#define BT_COMMON_TEXT_TEMPLATE_ARENA_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    size_t used_bytes, max_bytes;
    bool no_memory; /* malloc failed; the budget was not the reason */
} bt_tpl_budget;

typedef struct bt_tpl_chunk bt_tpl_chunk;
typedef struct {
    bt_tpl_budget *budget;
    bt_tpl_chunk *chunks;
    char *at, *end;
} bt_tpl_arena;

void bt_tpl_arena_init(bt_tpl_arena *arena, bt_tpl_budget *budget);
void bt_tpl_arena_finish(bt_tpl_arena *arena);

/* Zeroed, aligned to 16. NULL at a bound, and if count * size overflows. */
void *bt_tpl_arena_take(bt_tpl_arena *arena, size_t count, size_t size);

/* Unaligned bytes, not zeroed. */
char *bt_tpl_arena_text(bt_tpl_arena *arena, size_t bytes);

/* True if the piece that ends at end was the last one taken and now has `bytes` more. */
bool bt_tpl_arena_extend(bt_tpl_arena *arena, const char *end, size_t bytes);

/* Gives back the last bytes of the piece that ends at end, if it was the last one taken. */
void bt_tpl_arena_trim(bt_tpl_arena *arena, const char *end, size_t bytes);

/* Fills err with why taking failed. label names the template. */
bt_status bt_tpl_arena_fail(const bt_tpl_arena *arena, const char *label, bt_err *err);

#endif
