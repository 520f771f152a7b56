/* attention_decode_copy.cuh - the warp that copies: goes over the items (split of a sequence, KV head),
 * tile by tile, keeps the ring full and leaves a note beside each tile.
 *
 * ITEMS   Item = (split counted over all sequences) * kv_heads + head, so blocks of threads next to
 *         each other read heads that lie next to each other in the pool. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_DECODE_COPY_CUH
#define BT_KERNELS_ATTENTION_ATTENTION_DECODE_COPY_CUH

#include "kernels/attention/attention_decode_plan.cuh"

struct copy_cursor {
    uint32_t item, items;
    uint32_t seq, head, split;
    uint32_t tile, tile_first, tile_end;
    decode_cut cut;
    uint32_t claimed; /* lane 0: the item after this one, if they are taken as they come */
};

/* Fills starts and lengths of the block's shared memory; the count of items. */
BT_DEVICE uint32_t count_items(const decode_params &p, uint32_t *starts, uint32_t *lengths)
{
    constexpr uint32_t AHEAD = 8;
    uint32_t lane = threadIdx.x % 32, total = 0;
    for (uint32_t first = 0; first < p.seqs; first += AHEAD * 32) {
        uint32_t length[AHEAD];
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; i++) {
            uint32_t seq = first + i * 32 + lane;
            length[i] = seq < p.seqs ? __ldg(p.lengths + seq) : 0;
        }
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; i++) {
            uint32_t seq = first + i * 32 + lane;
            if (first + i * 32 >= p.seqs) break;
            uint32_t splits = decode_cut_of(p, length[i]).splits, sum = splits;
            for (uint32_t step = 1; step < 32; step *= 2) {
                uint32_t other = __shfl_up_sync(~0u, sum, step);
                if (lane >= step) sum += other;
            }
            if (seq < p.seqs) {
                starts[seq] = total + sum - splits;
                lengths[seq] = length[i];
            }
            total += __shfl_sync(~0u, sum, 31);
        }
    }
    if (lane == 0) starts[p.seqs] = total;
    __syncwarp();
    return total * p.kv_heads;
}

BT_DEVICE void cursor_find(const decode_params &p, const uint32_t *starts, const uint32_t *lengths,
                           copy_cursor *c)
{
    if (c->item >= c->items) return;
    uint32_t unit = c->item / p.kv_heads;
    c->head = c->item - unit * p.kv_heads;
    uint32_t low = 0, high = p.seqs;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (starts[middle] <= unit)
            low = middle;
        else
            high = middle;
    }
    c->seq = low;
    c->split = unit - starts[low];
    c->cut = decode_cut_of(p, lengths[low]);
    c->tile_first = c->cut.tile + c->split * c->cut.tiles_per_split;
    c->tile_end = min(c->tile_first + c->cut.tiles_per_split, c->cut.tile + c->cut.tiles);
    c->tile = c->tile_first;
    if (p.dynamic && threadIdx.x % 32 == 0) c->claimed = gridDim.x + atomicAdd(p.taken, 1);
}

BT_DEVICE void cursor_step(const decode_params &p, const uint32_t *starts, const uint32_t *lengths,
                           copy_cursor *c)
{
    if (++c->tile < c->tile_end) return;
    c->item = p.dynamic ? __shfl_sync(~0u, c->claimed, 0) : c->item + gridDim.x;
    cursor_find(p, starts, lengths, c);
}

/* The block of the pool that holds this lane's piece of the tile; NONE if the query sees none of it. */
constexpr uint32_t NO_BLOCK = ~0u;

BT_DEVICE uint32_t block_of_piece(const decode_params &p, const copy_cursor &c)
{
    uint32_t token = c.tile * TILE_TOKENS + threadIdx.x % PIECES * PIECE_TOKENS;
    uint32_t block = NO_BLOCK;
    if (c.item < c.items && token < c.cut.to && token + PIECE_TOKENS > c.cut.from)
        asm volatile("ld.global.nc.b32 %0, [%1];"
                     : "=r"(block)
                     : "l"(p.tables + (size_t)c.seq * p.blocks_max + (token >> p.block_shift)));
    return block;
}

/* Lanes 0 .. 3 and 4 .. 7 copy the pieces of K and V; 8 .. 15 their scales, where they do not follow
 * the codes at once; lane 16 the queries with the first tile. */
template <int ROW_BYTES, bool SCALED>
BT_DEVICE ring_copy copy_of_lane(const decode_params &p, const copy_cursor &c, uint32_t block,
                                 uint32_t stage)
{
    constexpr uint32_t CODES = PIECE_TOKENS * ROW_BYTES, PITCH = CODES + PIECE_GAP;
    uint32_t lane = threadIdx.x % 32, piece = lane % PIECES, part = lane / PIECES % 2;
    ring_copy copy = {NULL, stage + (part * PIECES + piece) * PITCH, 0};
    if (lane < 16 && block != NO_BLOCK) {
        uint32_t token = c.tile * TILE_TOKENS + piece * PIECE_TOKENS;
        uint32_t row = token & ((1u << p.block_shift) - 1);
        bool together = SCALED && p.block_shift == 4;
        const uint8_t *rows = p.kv + block * p.block_bytes + part * (uint64_t)p.part_bytes +
                              c.head * (uint64_t)p.head_bytes;
        if (lane < 8) {
            copy.from = rows + row * ROW_BYTES;
            copy.bytes = CODES + (together ? PIECE_GAP : 0);
        } else if (SCALED && !together) {
            copy.from = rows + p.codes_bytes + row * 2;
            copy.to += CODES;
            copy.bytes = PIECE_GAP;
        }
    }
    if (lane == 16 && c.tile == c.tile_first) {
        uint32_t head_dim = ROW_BYTES / (SCALED ? 1 : 2);
        copy.from = p.q + (size_t)c.seq * p.q_stride + (size_t)c.head * p.group * head_dim;
        copy.to = stage + 2 * PIECES * PITCH;
        copy.bytes = p.group * head_dim * 2;
    }
    return copy;
}

BT_DEVICE tile_note note_of(const copy_cursor &c)
{
    uint32_t flags =
        (c.tile == c.tile_first ? NOTE_FIRST : 0) | (c.tile + 1 == c.tile_end ? NOTE_LAST : 0);
    return {c.seq,        c.head,     c.item,   c.split,
            c.cut.splits, c.cut.from, c.cut.to, c.tile * TILE_TOKENS | flags};
}

/* The last block of threads to come here leaves the counters as they were. */
BT_DEVICE void release_items(const decode_params &p)
{
    if (!p.dynamic || threadIdx.x % 32 != 0) return;
    __threadfence();
    if (atomicInc(p.taken + 1, gridDim.x - 1) == gridDim.x - 1) *(volatile uint32_t *)p.taken = 0;
}

template <int ROW_BYTES, bool SCALED>
BT_DEVICE void copy_tiles(const decode_params &p, uint8_t *shared, const decode_shared &at)
{
    uint32_t *starts = (uint32_t *)(shared + at.starts),
             *lengths = (uint32_t *)(shared + at.lengths);
    tile_note *notes = (tile_note *)(shared + at.notes);
    uint32_t base = shared_address(shared), lane = threadIdx.x % 32;
    copy_cursor c = {};
    c.items = count_items(p, starts, lengths);
    c.item = blockIdx.x;
    cursor_find(p, starts, lengths, &c);
    uint32_t block = block_of_piece(p, c);
    ring_place place = {0, 1};
    while (c.item < c.items) {
        copy_cursor next = c;
        cursor_step(p, starts, lengths, &next);
        uint32_t next_block = block_of_piece(p, next); /* a tile ahead of its use */
        uint32_t full = base + at.barriers + place.stage * 16;
        barrier_wait(full + 8, place.parity);
        if (lane == 0) notes[place.stage] = note_of(c);
        ring_fill(copy_of_lane<ROW_BYTES, SCALED>(p, c, block, base + place.stage * p.stage_bytes),
                  full);
        place.step(p.stages);
        c = next;
        block = next_block;
    }
    uint32_t full = base + at.barriers + place.stage * 16;
    barrier_wait(full + 8, place.parity);
    if (lane == 0) notes[place.stage].token = NOTE_END;
    ring_fill({NULL, 0, 0}, full);
    release_items(p);
}

#endif
