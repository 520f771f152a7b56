/* attention_prefill_sm90.cuh - the shared memory of the wgmma kernel, and the warps that fill it. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_PREFILL_SM90_CUH
#define BT_KERNELS_ATTENTION_ATTENTION_PREFILL_SM90_CUH

#include "kernels/attention/attention_prefill.cuh"
#include "kernels/attention/attention_sm90.cuh"

#include <cuda.h>

namespace
{

constexpr int ROWS = BT_ATTENTION_TILE_ROWS, WARPGROUP = 128;
constexpr int COLUMN = 64, ROW_BYTES = 128;    /* bf16 of a swizzled row, and its bytes */
constexpr int SQUARE = 8, SQUARE_BYTES = 1024; /* rows that the swizzle spans */
constexpr int Q_WARPS = 2, CONVERTER_WARPS = 4, CONSUMER_WARPS = 8;
constexpr int SCALE_SLOTS = 4;

/* Shared memory: Q, twice where it fits, so that the next item's comes early; a ring of tiles of K and V;
 * for codes, what was fetched and not yet converted, and scales. */
template <int D, bool CODES> struct tiling {
    static constexpr int TOKENS = D == 256 ? 64 : 128;
    static constexpr int COLUMNS = D / COLUMN;
    static constexpr int RING = CODES ? 4 : 5;
    static constexpr int RAW_SLOTS = D == 256 ? 2 : 3;
    static constexpr int Q_BUFFERS = CODES || D == 256 ? 1 : 2;
    static constexpr int Q_COLUMN = ROWS * ROW_BYTES;
    static constexpr int Q_BYTES = COLUMNS * Q_COLUMN;
    static constexpr int KV_BYTES = TOKENS * D * 2;
    static constexpr int KV_AT = Q_BUFFERS * Q_BYTES;
    static constexpr int RAW_AT = KV_AT + RING * KV_BYTES, RAW_BYTES = TOKENS * (D + 4);
    static constexpr int SCALES_AT = RAW_AT + (CODES ? RAW_SLOTS * RAW_BYTES : 0);
    static constexpr int SCALES_BYTES = TOKENS * 4;
    static constexpr int BARRIERS_AT = SCALES_AT + (CODES ? SCALE_SLOTS * 2 * SCALES_BYTES : 0);
    static constexpr int RAW_FIRST = 2 * RING + 2 * Q_BUFFERS + 1;
    static constexpr int BARRIERS = RAW_FIRST + (CODES ? 2 * RAW_SLOTS : 0);
    static constexpr int SHARED_BYTES = BARRIERS_AT + BARRIERS * 8;
    static_assert(SHARED_BYTES <= 227 * 1024, "shared memory of a block");
};

/* Addresses in shared memory. A tile of K or V has a number, counted from the first of the launch; so has
 * a load of Q. A tile is squares of 8 tokens and 64 columns, the squares of 8 tokens together. */
template <int D, bool CODES> struct places {
    using T = tiling<D, CODES>;
    uint32_t base;
    __device__ uint32_t q(uint32_t number) const
    {
        return base + number % T::Q_BUFFERS * T::Q_BYTES;
    }
    __device__ uint32_t kv(uint32_t number) const
    {
        return base + T::KV_AT + number % T::RING * T::KV_BYTES;
    }
    /* Codes as they lie in the pool: rows of head_dim bytes; after those of K, the tile's f16 scales of K and
     * then of V. */
    __device__ uint32_t raw(uint32_t number) const
    {
        return base + T::RAW_AT + number % T::RAW_SLOTS * T::RAW_BYTES;
    }
    /* f32 scales of K or V of the launch's tile `count`. */
    __device__ uint32_t scales(uint32_t count, int part) const
    {
        return base + T::SCALES_AT + (count % SCALE_SLOTS * 2 + part) * T::SCALES_BYTES;
    }
    __device__ uint32_t barrier(uint32_t i) const
    {
        return base + T::BARRIERS_AT + i * 8;
    }
    __device__ uint32_t raw_full(uint32_t number) const
    {
        return barrier(T::RAW_FIRST + number % T::RAW_SLOTS);
    }
    __device__ uint32_t raw_empty(uint32_t number) const
    {
        return barrier(T::RAW_FIRST + T::RAW_SLOTS + number % T::RAW_SLOTS);
    }
    __device__ uint32_t full(uint32_t number) const
    {
        return barrier(number % T::RING);
    }
    __device__ uint32_t empty(uint32_t number) const
    {
        return barrier(T::RING + number % T::RING);
    }
    __device__ uint32_t q_full(uint32_t number) const
    {
        return barrier(2 * T::RING + number % T::Q_BUFFERS);
    }
    __device__ uint32_t q_empty(uint32_t number) const
    {
        return barrier(2 * T::RING + T::Q_BUFFERS + number % T::Q_BUFFERS);
    }
    __device__ uint32_t tail() const
    {
        return barrier(2 * T::RING + 2 * T::Q_BUFFERS);
    }
    __device__ void init() const
    {
        for (uint32_t i = 0; i < T::RING; i++) {
            sm90::barrier_init(full(i), CODES ? CONVERTER_WARPS : 1);
            sm90::barrier_init(empty(i), CONSUMER_WARPS);
        }
        for (uint32_t i = 0; i < T::Q_BUFFERS; i++) {
            sm90::barrier_init(q_full(i), Q_WARPS);
            sm90::barrier_init(q_empty(i), CONSUMER_WARPS);
        }
        sm90::barrier_init(tail(), 1);
        for (uint32_t i = 0; CODES && i < T::RAW_SLOTS; i++) {
            sm90::barrier_init(raw_full(i), 1);
            sm90::barrier_init(raw_empty(i), CONVERTER_WARPS);
        }
        sm90::barriers_seen();
    }
    __device__ void wait_full(uint32_t number) const
    {
        sm90::wait(full(number), number / T::RING & 1);
    }
    __device__ void wait_empty(uint32_t number) const
    {
        sm90::wait(empty(number), (number / T::RING & 1) ^ 1);
    }
    __device__ void wait_raw_full(uint32_t number) const
    {
        sm90::wait(raw_full(number), number / T::RAW_SLOTS & 1);
    }
    __device__ void wait_raw_empty(uint32_t number) const
    {
        sm90::wait(raw_empty(number), (number / T::RAW_SLOTS & 1) ^ 1);
    }
    __device__ void wait_q_full(uint32_t number) const
    {
        sm90::wait(q_full(number), number / T::Q_BUFFERS & 1);
    }
    __device__ void wait_q_empty(uint32_t number) const
    {
        sm90::wait(q_empty(number), (number / T::Q_BUFFERS & 1) ^ 1);
    }
};

/* The tiles of one item, latest tokens first: numbers in the order of use, K0 K1 V0 K2 V1 … */
struct tile_range {
    int first, tiles; /* tile i has the tokens of tile first - i of the sequence */
    uint32_t number;  /* of K0 */
    __device__ tile_range(const prefill_tile &tile, int tokens, uint32_t from)
        : first((tile.end - 1) / tokens), tiles(first - tile.begin / tokens + 1), number(from)
    {
    }
    __device__ uint32_t k(int i) const
    {
        return i == 0 ? number : number + 2 * i - 1;
    }
    __device__ uint32_t v(int i) const
    {
        return i == tiles - 1 ? number + 2 * tiles - 1 : number + 2 * i + 2;
    }
    __device__ uint32_t after() const
    {
        return number + 2 * tiles;
    }
};

/* The i-th item of this block: items are sorted by cost, so every other round goes backwards. */
__device__ inline uint32_t item_at(uint32_t round)
{
    uint32_t at = round & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
    return round * gridDim.x + at;
}

/* Tokens of tile n that are in the pool and may be used: [from, to) counted from its first. */
struct span {
    uint32_t from, to;
    __device__ span(const prefill_tile &tile, uint32_t n, uint32_t tokens)
    {
        uint32_t first = n * tokens;
        from = tile.begin > first ? tile.begin - first : 0;
        to = min(tile.stored - first, tokens);
    }
    __device__ bool has_block(uint32_t block, uint32_t shift) const
    {
        uint32_t begin = block << shift;
        return begin < to && begin + (1u << shift) > from;
    }
    __device__ uint32_t blocks(uint32_t shift) const
    {
        return ((to - 1) >> shift) - (from >> shift) + 1;
    }
};

/* ---- K and V, each lane a block of the pool ---- */
template <int D, bool CODES> struct copier {
    using T = tiling<D, CODES>;
    const prefill_op &op;
    const CUtensorMap *map;
    places<D, CODES> place;
    uint32_t lane, number, tails;

    __device__ copier(const prefill_op &o, const CUtensorMap *m, places<D, CODES> p)
        : op(o), map(m), place(p), lane(threadIdx.x % 32), number(0), tails(0)
    {
    }
    /* Which (block, layer, part, head) of the pool this lane's block of tile n is. */
    __device__ uint32_t place_in_pool(const prefill_tile &tile, uint32_t head, int part,
                                      uint32_t n) const
    {
        uint32_t at = tile.table + (n * T::TOKENS >> op.block_shift) + lane;
        uint32_t index = (__ldg(op.blocks + at) * op.layers + op.layer) * 2 + part;
        return index * op.kv_heads + head;
    }
    /* The copy engine knows only whole blocks: what V has beyond the span becomes zeros. */
    __device__ void clear_rest(uint32_t to, span s)
    {
        sm90::wait(place.tail(), tails++ & 1);
        for (uint32_t i = lane; i < T::TOKENS * (D / 8); i += 32) {
            uint32_t token = i / (D / 8), word = i % (D / 8);
            if (token < s.from || token >= s.to)
                sm90::store_zeros(to + token / SQUARE * (T::COLUMNS * SQUARE_BYTES) +
                                  word / 8 * SQUARE_BYTES + token % SQUARE * ROW_BYTES +
                                  word % 8 * 16);
        }
        sm90::fence_async();
        __syncwarp();
    }
    __device__ void copy(uint32_t at, int part, uint32_t from, span s)
    {
        uint32_t to = place.kv(at), full = place.full(at);
        bool whole = part == 0 || (s.from == 0 && s.to == T::TOKENS);
        uint32_t signal = whole ? full : place.tail();
        place.wait_empty(at);
        if (lane == 0)
            sm90::arrive_expect(signal, (s.blocks(op.block_shift) << op.block_shift) * D * 2);
        __syncwarp();
        if (s.has_block(lane, op.block_shift))
            sm90::copy_box(to + (lane << op.block_shift) * D * 2, map, 0, 0, 0,
                           from << (op.block_shift - 3), signal);
        if (whole) return;
        clear_rest(to, s);
        if (lane == 0) sm90::arrive(full);
    }
    __device__ void copy_codes(uint32_t at, int part, uint32_t from, span s)
    {
        uint32_t bytes = D << op.block_shift, scale_bytes = 2 << op.block_shift;
        uint32_t to = place.raw(at), full = place.raw_full(at);
        const uint8_t *codes = op.pool + from * op.head_bytes;
        place.wait_raw_empty(at);
        if (lane == 0)
            sm90::arrive_expect(full, s.blocks(op.block_shift) *
                                          (bytes + (part == 0 ? 2 * scale_bytes : 0)));
        __syncwarp();
        if (!s.has_block(lane, op.block_shift)) return;
        sm90::copy_bulk(to + lane * bytes, codes, bytes, full);
        if (part != 0) return;
        const uint8_t *scales = codes + op.codes_bytes;
        to += T::TOKENS * D + lane * scale_bytes;
        sm90::copy_bulk(to, scales, scale_bytes, full);
        sm90::copy_bulk(to + T::TOKENS * 2, scales + op.kv_heads * op.head_bytes, scale_bytes,
                        full);
    }
    __device__ void copy_tile(const prefill_tile &tile, uint32_t head, int part, uint32_t at,
                              uint32_t n)
    {
        span s(tile, n, T::TOKENS);
        uint32_t from = 0;
        if (s.has_block(lane, op.block_shift)) from = place_in_pool(tile, head, part, n);
        if (CODES)
            copy_codes(at, part, from, s);
        else
            copy(at, part, from, s);
        __syncwarp();
    }
    /* Of bf16 one warp copies K, another V: so no tile waits for zeros in another. A slot of the ring is
     * found free by a parity, so a warp must not be a whole turn of the ring ahead of the other: from one
     * of its tiles to the next there are at most 3, of the ring's 5. */
    __device__ void run_part(const prefill_tile &tile, uint32_t head, int part)
    {
        tile_range range(tile, T::TOKENS, number);
        for (int i = 0; i < range.tiles; i++)
            copy_tile(tile, head, part, part == 0 ? range.k(i) : range.v(i), range.first - i);
        number = range.after();
    }
    /* Of codes one warp copies both, in the order of use: their ring is shorter. */
    __device__ void run_both(const prefill_tile &tile, uint32_t head)
    {
        tile_range range(tile, T::TOKENS, number);
        for (int i = 0; i <= range.tiles; i++) {
            if (i < range.tiles) copy_tile(tile, head, 0, range.k(i), range.first - i);
            if (i > 0) copy_tile(tile, head, 1, range.v(i - 1), range.first - i + 1);
        }
        number = range.after();
    }
};

/* ---- two warps for the packed rows of Q ---- */
template <int D, bool CODES>
__device__ void load_q(const prefill_op &op, const prefill_tile &tile, uint32_t head,
                       const places<D, CODES> &place, uint32_t round)
{
    using T = tiling<D, CODES>;
    place.wait_q_empty(round);
    for (int i = threadIdx.x % (Q_WARPS * 32); i < ROWS * (D / 8); i += Q_WARPS * 32) {
        uint32_t row = i / (D / 8), word = i % (D / 8);
        bool exists = tile.row + row < tile.rows;
        const __nv_bfloat16 *from = op.q;
        if (exists) from += prefill_row_at(op, tile, head, tile.row + row, D) + word * 8;
        sm90::copy_16(place.q(round) + word / 8 * T::Q_COLUMN + row * ROW_BYTES +
                          ((word ^ row) % 8) * 16,
                      from, exists);
    }
    sm90::copies_wait();
    sm90::fence_async();
    __syncwarp();
    if (threadIdx.x % 32 == 0) sm90::arrive(place.q_full(round));
}

/* ---- warpgroup 0 ---- */
template <int D, bool CODES>
__device__ void move_all(const prefill_op &op, const CUtensorMap *map,
                         const places<D, CODES> &place, uint32_t items)
{
    uint32_t item, warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
    copier<D, CODES> kv(op, map, place);
    for (uint32_t round = 0; (item = item_at(round)) < items; round++) {
        prefill_tile tile = prefill_tile_at(op, item / op.kv_heads);
        if (CODES && warp == 0)
            kv.run_both(tile, item % op.kv_heads);
        else if (!CODES && warp < 2)
            kv.run_part(tile, item % op.kv_heads, warp);
        else if (warp >= 2)
            load_q<D, CODES>(op, tile, item % op.kv_heads, place, round);
    }
}

/* ---- warpgroup 1 for pools of codes: from codes to the tiles that wgmma reads ---- */
template <int D, bt_dtype POOL> struct converter {
    using T = tiling<D, true>;
    static constexpr int WORDS = D / 8; /* of 8 codes, or of 8 bf16 in 16 bytes: one for a thread */
    static constexpr int STRIDE = WARPGROUP / WORDS, PASSES = T::TOKENS / STRIDE, BATCH = 8;
    const prefill_op &op;
    places<D, true> place;
    uint32_t thread, row, word; /* the thread's word in the first STRIDE rows */

    __device__ converter(const prefill_op &o, places<D, true> p)
        : op(o), place(p), thread(threadIdx.x % WARPGROUP), row(thread / WORDS),
          word(thread % WORDS)
    {
    }
    static __device__ bool in(uint32_t token, span s)
    {
        return token >= s.from && token < s.to;
    }
    __device__ uint32_t swizzled(uint32_t r) const
    {
        return r / SQUARE * (T::COLUMNS * SQUARE_BYTES) + word / 8 * SQUARE_BYTES +
               r % SQUARE * ROW_BYTES + (word ^ r) % 8 * 16;
    }
    /* Codes of tokens outside of the span become zeros. */
    template <bool WHOLE> __device__ void decode(uint32_t raw, uint32_t to, span s) const
    {
        const uint32_t at[2] = {to + swizzled(row), to + swizzled(row + SQUARE / 2)};
#pragma unroll
        for (int first = 0; first < PASSES; first += BATCH) {
            uint2 codes[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; i++) {
                codes[i] = sm90::load_8(raw + ((first + i) * WARPGROUP + thread) * 8);
                if (!WHOLE && !in((first + i) * STRIDE + row, s)) codes[i] = make_uint2(0, 0);
            }
#pragma unroll
            for (int i = 0; i < BATCH; i++) {
                int rows = (first + i) * STRIDE; /* half squares or whole ones */
                sm90::store_16(at[rows / (SQUARE / 2) % 2] +
                                   rows / SQUARE * (T::COLUMNS * SQUARE_BYTES),
                               prefill_decode_8<POOL>(codes[i].x, codes[i].y));
            }
        }
    }
    /* Scales of K and V of the launch's tile `count`. */
    __device__ void convert_scales(uint32_t raw, uint32_t count, span s) const
    {
        if (thread >= T::TOKENS) return;
        for (int part = 0; part < 2; part++) {
            uint32_t from = raw + T::TOKENS * (D + 2 * part) + thread * 2;
            float scale = in(thread, s) ? sm90::load_half(from) : 0;
            sm90::store_4(place.scales(count, part) + thread * 4, scale);
        }
    }
    /* The tile with that number, K (if is_k) or V of the tokens of span s. */
    __device__ void convert(uint32_t number, bool is_k, uint32_t count, span s) const
    {
        uint32_t raw = place.raw(number), to = place.kv(number);
        place.wait_raw_full(number);
        place.wait_empty(number);
        if (s.from == 0 && s.to == T::TOKENS)
            decode<true>(raw, to, s);
        else
            decode<false>(raw, to, s);
        if (is_k) convert_scales(raw, count, s);
        sm90::fence_async();
        __syncwarp();
        if (thread % 32 == 0) {
            sm90::arrive(place.full(number));
            sm90::arrive(place.raw_empty(number));
        }
    }
    __device__ void run(uint32_t items) const
    {
        uint32_t item, number = 0;
        for (uint32_t round = 0; (item = item_at(round)) < items; round++) {
            prefill_tile tile = prefill_tile_at(op, item / op.kv_heads);
            tile_range range(tile, T::TOKENS, number);
            for (int i = 0; i <= range.tiles; i++) { /* K of tile i, V of the one before */
                uint32_t count = range.number / 2 + i;
                if (i < range.tiles)
                    convert(range.k(i), true, count, span(tile, range.first - i, T::TOKENS));
                if (i > 0)
                    convert(range.v(i - 1), false, count,
                            span(tile, range.first - i + 1, T::TOKENS));
            }
            number = range.after();
        }
    }
};

} // namespace

#endif
