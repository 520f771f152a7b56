#include "kernels/attention/attention_plan.h"

#include <string.h>

_Static_assert(sizeof(bt_attention_tile) == 32, "the kernels read a tile as two 16-byte words");
_Static_assert(offsetof(bt_attention_plan, tile) == 32, "tiles are 16-byte aligned");

size_t bt_attention_plan_bytes(uint32_t seqs, uint32_t tokens, uint32_t group)
{
    size_t tiles = (size_t)tokens * group / BT_ATTENTION_TILE_ROWS + seqs;
    return sizeof(bt_attention_plan) + tiles * sizeof(bt_attention_tile);
}

/* Tokens of KV that the tile's last row sees, within the window of its first. */
static uint64_t cost(const bt_attention_tile *tile, uint32_t group, uint32_t window)
{
    uint64_t rows = (uint64_t)tile->seq.count * group;
    uint64_t last = tile->row + (uint64_t)BT_ATTENTION_TILE_ROWS - 1;
    if (last >= rows) last = rows - 1;
    uint64_t begin = tile->row / group, end = last / group;
    uint64_t seen = tile->seq.position + end + 1;
    uint64_t most = window ? window + end - begin : seen;
    return seen < most ? seen : most;
}

/* Dearer first; equals in the order of the batch, late rows first, so that a plan is a function of its
 * inputs alone. */
static int before(const bt_attention_tile *a, const bt_attention_tile *b, uint32_t group,
                  uint32_t window)
{
    uint64_t x = cost(a, group, window), y = cost(b, group, window);
    if (x != y) return x > y;
    if (a->seq.first != b->seq.first) return a->seq.first < b->seq.first;
    return a->row > b->row;
}

static void sift(bt_attention_tile *tile, uint32_t at, uint32_t count, uint32_t group,
                 uint32_t window)
{
    bt_attention_tile moved = tile[at];
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && before(&tile[child], &tile[child + 1], group, window)) child++;
        if (!before(&moved, &tile[child], group, window)) break;
        tile[at] = tile[child];
    }
    tile[at] = moved;
}

/* A heap sort: no memory of its own, and no bad inputs. */
static void sort(bt_attention_tile *tile, uint32_t count, uint32_t group, uint32_t window)
{
    for (uint32_t at = count / 2; at-- > 0;) sift(tile, at, count, group, window);
    for (uint32_t end = count; end-- > 1;) {
        bt_attention_tile last = tile[end];
        tile[end] = tile[0];
        tile[0] = last;
        sift(tile, 0, end, group, window);
    }
}

void bt_attention_plan_make(const bt_attention_seq *seq, uint32_t seqs, uint32_t group,
                            uint32_t window, bt_attention_plan *ret_plan)
{
    memset(ret_plan, 0, sizeof(*ret_plan));
    uint32_t tiles = 0;
    for (uint32_t i = 0; i < seqs; i++)
        for (uint64_t row = 0; row < (uint64_t)seq[i].count * group; row += BT_ATTENTION_TILE_ROWS)
            ret_plan->tile[tiles++] = (bt_attention_tile){seq[i], (uint32_t)row, {0}};
    ret_plan->tiles = tiles;
    sort(ret_plan->tile, tiles, group, window);
}
