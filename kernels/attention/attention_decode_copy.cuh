/* attention_decode_copy.cuh - the warp that copies: goes over the items (split of a sequence, KV head),
 * tile by tile, keeps the ring full and leaves a note beside each tile.
 *
 * ITEMS   Item = (split counted over all sequences) * kv_heads + head, so blocks of threads next to
 *         each other read heads that lie next to each other in the pool.
 * AHEAD   A chunk is up to 8 tiles of an item: as many as the warp can load the table for at once. It is
 *         found, and its piece of the table asked for, while the chunk before it is copied; and the item
 *         after it is claimed then, where items are taken as they come. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_DECODE_COPY_CUH
#define BT_KERNELS_ATTENTION_ATTENTION_DECODE_COPY_CUH

#include "kernels/attention/attention_decode_plan.cuh"

constexpr uint32_t CHUNK_TILES = 32 / PIECES;
constexpr uint32_t NO_BLOCK = ~0u;

struct copy_chunk {
    uint32_t item, seq, head, split, splits;
    uint32_t from, to;
    uint32_t tile, first, end; /* the chunk begins at `tile`; first and end of the item */
    uint32_t block;            /* of the pool, for piece lane % 4 of tile + lane / 4; or NO_BLOCK */
};

struct copy_items {
    uint32_t *starts, *lengths, *spans;
    uint32_t count;
    uint32_t claimed; /* lane 0: the item after the one found last */
};

/* Fills the tables of the block's shared memory and counts the items. */
BT_DEVICE void items_begin(const decode_params &p, copy_items *items)
{
    uint32_t lane = threadIdx.x % 32, total = 0;
#pragma unroll 8
    for (uint32_t seq = lane; seq < p.seqs; seq += 32) items->lengths[seq] = __ldg(p.lengths + seq);
    __syncwarp();
#pragma unroll 1
    for (uint32_t first = 0; first < p.seqs; first += 32) {
        uint32_t seq = first + lane;
        uint32_t tiles = seq < p.seqs ? decode_range_of(p, items->lengths[seq]).tiles : 0;
        uint32_t span = decode_span_of(p, tiles), splits = (tiles + span - 1) / span, sum = splits;
        for (uint32_t step = 1; step < 32; step *= 2) {
            uint32_t other = __shfl_up_sync(~0u, sum, step);
            if (lane >= step) sum += other;
        }
        if (seq < p.seqs) {
            items->starts[seq] = total + sum - splits;
            items->spans[seq] = span;
        }
        total += __shfl_sync(~0u, sum, 31);
    }
    if (lane == 0) items->starts[p.seqs] = total;
    __syncwarp();
    items->count = total * p.kv_heads;
}

/* The last sequence that starts at or before the unit: of every 32nd, then of those after it. */
BT_DEVICE uint32_t sequence_of(const copy_items &items, uint32_t seqs, uint32_t unit)
{
    uint32_t lane = threadIdx.x % 32, stride = (seqs + 31) / 32;
    bool before = lane * stride < seqs && items.starts[lane * stride] <= unit;
    uint32_t seq = (__popc(__ballot_sync(~0u, before)) - 1) * stride;
    before = lane < stride && seq + lane < seqs && items.starts[seq + lane] <= unit;
    return seq + __popc(__ballot_sync(~0u, before)) - 1;
}

/* Asynchronous: the value is waited for where it is used. */
BT_DEVICE void claim_item(const decode_params &p, copy_items *items)
{
    if (!p.dynamic || threadIdx.x % 32 != 0) return;
    asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], 1;"
                 : "=r"(items->claimed)
                 : "l"(p.taken)
                 : "memory");
}

BT_DEVICE void chunk_find(const decode_params &p, const copy_items &items, copy_chunk *c)
{
    uint32_t unit = (uint32_t)(c->item * p.kv_heads_inverse >> 32);
    c->head = c->item - unit * p.kv_heads;
    c->seq = sequence_of(items, p.seqs, unit);
    uint32_t start = items.starts[c->seq], span = items.spans[c->seq];
    decode_range range = decode_range_of(p, items.lengths[c->seq]);
    c->split = unit - start;
    c->splits = items.starts[c->seq + 1] - start;
    c->from = range.from;
    c->to = range.to;
    c->tile = c->first = range.tile + c->split * span;
    c->end = min(c->first + span, range.tile + range.tiles);
}

BT_DEVICE void chunk_load(const decode_params &p, copy_chunk *c)
{
    uint32_t tile = c->tile + threadIdx.x % 32 / PIECES;
    uint32_t token = tile * TILE_TOKENS + threadIdx.x % PIECES * PIECE_TOKENS;
    c->block = NO_BLOCK;
    if (tile < c->end && token < c->to && token + PIECE_TOKENS > c->from)
        asm volatile("ld.global.nc.b32 %0, [%1];"
                     : "=r"(c->block)
                     : "l"(p.tables + (size_t)c->seq * p.blocks_max + (token >> p.block_shift)));
}

/* The chunk that follows; its item is not below items.count if there is none. */
BT_DEVICE copy_chunk chunk_after(const decode_params &p, copy_items *items, const copy_chunk &c)
{
    copy_chunk next = c;
    next.tile += CHUNK_TILES;
    if (next.tile >= c.end) {
        if (items->count > gridDim.x) /* else each block has its one without asking */
            next.item = gridDim.x + (p.dynamic ? __shfl_sync(~0u, items->claimed, 0) : c.item);
        else
            next.item = items->count;
        if (next.item >= items->count) return next;
        claim_item(p, items);
        chunk_find(p, *items, &next);
    }
    chunk_load(p, &next);
    return next;
}

BT_DEVICE copy_chunk chunk_first(const decode_params &p, copy_items *items)
{
    copy_chunk c = {};
    claim_item(p, items); /* answered by the time the lengths are there */
    items_begin(p, items);
    c.item = blockIdx.x;
    if (c.item >= items->count) return c;
    chunk_find(p, *items, &c);
    chunk_load(p, &c);
    return c;
}

/* What this lane copies of one tile after another. Lanes 0 .. 3 and 4 .. 7 have the pieces of K and V; 8
 * .. 15 their scales, where these do not follow the codes at once; lane 16 the queries, once. */
template <int ROW_BYTES, bool SCALED> struct copy_lane {
    static constexpr uint32_t CODES = PIECE_TOKENS * ROW_BYTES, PITCH = CODES + PIECE_GAP;
    static constexpr uint32_t HEAD_DIM = ROW_BYTES / (SCALED ? 1 : 2);

    const uint8_t *base; /* of the chunk's KV head, in block 0 */
    uint32_t to;         /* in a stage */
    uint32_t bytes, row_step;

    BT_DEVICE void begin(const decode_params &p)
    {
        uint32_t lane = threadIdx.x % 32, together = SCALED && p.block_shift == 4;
        bool scales = lane >= 2 * PIECES;
        to = lane % (2 * PIECES) * PITCH + (scales ? CODES : 0);
        bytes = scales ? PIECE_GAP : CODES + (together ? PIECE_GAP : 0);
        row_step = scales ? 2 : ROW_BYTES;
        if (lane >= (SCALED && !together ? 4 : 2) * PIECES) bytes = 0;
        if (lane == 16) to = 2 * PIECES * PITCH;
    }

    BT_DEVICE void take(const decode_params &p, const copy_chunk &c)
    {
        uint32_t lane = threadIdx.x % 32, part = lane / PIECES % 2;
        base = p.kv + (uint64_t)part * p.part_bytes + (uint64_t)c.head * p.head_bytes +
               (lane >= 2 * PIECES ? p.codes_bytes : 0);
        if (lane == 16)
            base = (const uint8_t *)(p.q + (size_t)c.seq * p.q_stride +
                                     (size_t)c.head * p.group * HEAD_DIM);
    }

    BT_DEVICE ring_copy copy(const decode_params &p, const copy_chunk &c, uint32_t tile,
                             uint32_t stage) const
    {
        uint32_t lane = threadIdx.x % 32;
        uint32_t block = __shfl_sync(~0u, c.block, (tile - c.tile) * PIECES + lane % PIECES);
        uint32_t token = tile * TILE_TOKENS + lane % PIECES * PIECE_TOKENS;
        uint32_t row = token & ((1u << p.block_shift) - 1);
        ring_copy copy = {base + block * p.block_bytes + row * row_step, stage + to,
                          block == NO_BLOCK ? 0 : bytes};
        if (lane == 16 && tile == c.first) {
            copy.from = base;
            copy.bytes = p.group * HEAD_DIM * 2;
        }
        return copy;
    }
};

BT_DEVICE tile_note note_of(const copy_chunk &c, uint32_t tile)
{
    uint32_t flags = (tile == c.first ? NOTE_FIRST : 0) | (tile + 1 == c.end ? NOTE_LAST : 0);
    return {c.seq, c.head, c.item, c.split, c.splits, c.from, c.to, tile * TILE_TOKENS | flags};
}

/* The last block of threads to come here leaves the counters as they were. */
BT_DEVICE void release_items(const decode_params &p)
{
    if (!p.dynamic || threadIdx.x % 32 != 0) return;
    __threadfence();
    if (atomicInc(p.taken + 1, gridDim.x - 1) == gridDim.x - 1) *(volatile uint32_t *)p.taken = 0;
}

template <int ROW_BYTES, bool SCALED>
BT_DEVICE void copy_tiles(const decode_params &p, uint8_t *shared, const decode_shared &at,
                          copy_items items, copy_chunk c)
{
    uint32_t lane = threadIdx.x % 32, base = shared_address(shared);
    tile_note *notes = (tile_note *)(shared + at.notes);
    copy_lane<ROW_BYTES, SCALED> own;
    own.begin(p);
    ring_place place = {0, 1};
    while (c.item < items.count) {
        copy_chunk next = chunk_after(p, &items, c);
        own.take(p, c);
        uint32_t end = min(c.tile + CHUNK_TILES, c.end);
        for (uint32_t tile = c.tile; tile < end; tile++, place.step(p.stages)) {
            uint32_t full = base + at.barriers + place.stage * 16;
            ring_copy copy = own.copy(p, c, tile, base + place.stage * p.stage_bytes);
            barrier_wait(full + 8, place.parity);
            if (lane == 0) notes[place.stage] = note_of(c, tile);
            ring_fill(copy, full);
        }
        c = next;
    }
    uint32_t full = base + at.barriers + place.stage * 16;
    barrier_wait(full + 8, place.parity);
    if (lane == 0) notes[place.stage].token = NOTE_END;
    ring_fill({NULL, 0, 0}, full);
    release_items(p);
}

#endif
