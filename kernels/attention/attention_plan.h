/* attention_plan.h - how the prefill attention of a step is cut into tiles. Plain C: the engine makes the
 * plan from what it submits, uploads it with the step's other arrays, and every layer uses it.
 *
 * TILE    BT_ATTENTION_TILE_ROWS packed rows of one sequence. The queries of the `group` heads that share
 *         a KV head are packed: packed row p is query p / group of head p % group, so that a chunk of
 *         few tokens fills the tile's rows all the same.
 * ORDER   Most KV first, since a tile of a late chunk costs many times one of an early chunk: what is
 *         left when the last processors run dry is small.
 * LAYOUT  uint32 tiles, 28 bytes of zeros, then the tiles. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_PLAN_H
#define BT_KERNELS_ATTENTION_ATTENTION_PLAN_H

#include <stddef.h>
#include <stdint.h>

#define BT_ATTENTION_TILE_ROWS 128u

/* One sequence of the batch: `count` queries from `position` on, rows `first`… of q and out. */
typedef struct {
    uint32_t first, count, position;
    uint32_t table; /* where its blocks begin in the step's block table */
} bt_attention_seq;

typedef struct {
    bt_attention_seq seq;
    uint32_t row; /* first packed row of the tile */
    uint32_t zero[3];
} bt_attention_tile;

typedef struct {
    uint32_t tiles;
    uint32_t zero[7];
    bt_attention_tile tile[];
} bt_attention_plan;

/* Bytes that hold the plan of any batch of so many sequences and tokens. */
size_t bt_attention_plan_bytes(uint32_t seqs, uint32_t tokens, uint32_t group);

/* Writes the plan of seqs sequences; those of count 0 have no tile. window as in attention.h. */
void bt_attention_plan_make(const bt_attention_seq *seq, uint32_t seqs, uint32_t group,
                            uint32_t window, bt_attention_plan *ret_plan);

#endif
