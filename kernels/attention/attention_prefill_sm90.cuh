/* attention_prefill_sm90.cuh - the shared memory of the wgmma kernel, and the warps that fill it. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_PREFILL_SM90_CUH
#define BT_KERNELS_ATTENTION_ATTENTION_PREFILL_SM90_CUH

#include "kernels/attention/attention_prefill.cuh"
#include "kernels/attention/attention_sm90.cuh"

#include <cuda.h>

namespace
{

constexpr int THREADS = 384, ROWS = BT_ATTENTION_TILE_ROWS, STAGES = 2;
constexpr int COLUMN = 64, COLUMN_ROW_BYTES = 128; /* bf16 of a swizzled row, and its bytes */
constexpr int Q_WARPS = 3, PRODUCER_WARPS = 4, CONSUMER_WARPS = 8;
constexpr int RAW_SLOTS = 3, SCALE_SLOTS = 4;

template <int D, bool CODES> struct tiling {
    static constexpr int TOKENS = D == 256 ? 64 : 128;
    static constexpr int COLUMNS = D / COLUMN;
    static constexpr int Q_COLUMN = ROWS * COLUMN_ROW_BYTES;
    static constexpr int KV_COLUMN = TOKENS * COLUMN_ROW_BYTES;
    static constexpr int Q_BYTES = COLUMNS * Q_COLUMN;
    static constexpr int KV_BYTES = COLUMNS * KV_COLUMN;
    static constexpr int RAW_AT = Q_BYTES + 2 * STAGES * KV_BYTES, RAW_BYTES = TOKENS * D;
    static constexpr int SCALES_AT = RAW_AT + (CODES ? RAW_SLOTS * RAW_BYTES : 0);
    static constexpr int SCALES_BYTES = TOKENS * 4;
    static constexpr int BARRIERS_AT = SCALES_AT + (CODES ? SCALE_SLOTS * 2 * SCALES_BYTES : 0);
    static constexpr int SHARED_BYTES = BARRIERS_AT + 128 + 1024; /* and to align */
};

/* Addresses in shared memory. */
template <int D, bool CODES> struct places {
    using T = tiling<D, CODES>;
    uint32_t base;
    __device__ uint32_t q() const
    {
        return base;
    }
    __device__ uint32_t kv(int part, uint32_t stage) const
    {
        return base + T::Q_BYTES + (part * STAGES + stage) * T::KV_BYTES;
    }
    /* Codes as they lie in the pool, 16-byte words in the order of the threads that fetch them. */
    __device__ uint32_t raw(uint32_t slot) const
    {
        return base + T::RAW_AT + slot * T::RAW_BYTES;
    }
    /* f32 scales of tile number `count`. */
    __device__ uint32_t scales(uint32_t count, int part) const
    {
        return base + T::SCALES_AT + (count % SCALE_SLOTS * 2 + part) * T::SCALES_BYTES;
    }
    __device__ uint32_t barrier(uint32_t i) const
    {
        return base + T::BARRIERS_AT + i * 8;
    }
    __device__ uint32_t full(int part, uint32_t stage) const
    {
        return barrier(part * STAGES + stage);
    }
    __device__ uint32_t empty(int part, uint32_t stage) const
    {
        return barrier(2 * STAGES + part * STAGES + stage);
    }
    __device__ uint32_t q_full() const
    {
        return barrier(4 * STAGES);
    }
    __device__ uint32_t q_empty() const
    {
        return barrier(4 * STAGES + 1);
    }
    __device__ uint32_t tail() const
    {
        return barrier(4 * STAGES + 2);
    }
    __device__ void init() const
    {
        for (uint32_t i = 0; i < STAGES; i++)
            for (int part = 0; part < 2; part++) {
                sm90::barrier_init(full(part, i), CODES ? PRODUCER_WARPS : 1);
                sm90::barrier_init(empty(part, i), CONSUMER_WARPS);
            }
        sm90::barrier_init(q_full(), CODES ? PRODUCER_WARPS : Q_WARPS);
        sm90::barrier_init(q_empty(), CONSUMER_WARPS);
        sm90::barrier_init(tail(), 1);
        sm90::barriers_seen();
    }
};

/* The i-th item of this block: items are sorted by cost, so every other round goes backwards. */
__device__ uint32_t item_at(uint32_t round)
{
    uint32_t at = round & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
    return round * gridDim.x + at;
}

/* ---- warp 0: K and V ---- */
template <int D> struct kv_warp {
    using T = tiling<D, false>;
    const prefill_op &op;
    const CUtensorMap *map;
    places<D, false> place;
    uint32_t counts[2], tails;
    uint32_t lane, block, column; /* this lane copies one column of one block of a tile */

    __device__ kv_warp(const prefill_op &o, const CUtensorMap *m, places<D, false> p)
        : op(o), map(m), place(p), counts{0, 0}, tails(0), lane(threadIdx.x % 32)
    {
        uint32_t blocks = T::TOKENS >> op.block_shift;
        block = lane % blocks;
        column = lane / blocks;
    }
    /* Tokens of tile n that are in the pool and may be used: [from, to) counted from its first. */
    struct span {
        uint32_t from, to;
    };
    __device__ span tokens(const prefill_tile &tile, uint32_t n) const
    {
        uint32_t first = n * T::TOKENS;
        return {tile.begin > first ? tile.begin - first : 0,
                min(tile.stored - first, (uint32_t)T::TOKENS)};
    }
    __device__ bool mine(span s) const
    {
        uint32_t begin = block << op.block_shift;
        return column < T::COLUMNS && begin < s.to && begin + (1u << op.block_shift) > s.from;
    }
    /* Row of the pool, seen as rows of head_dim, where this lane's block of K begins. */
    __device__ uint32_t row_of(const prefill_tile &tile, uint32_t head, uint32_t n, span s) const
    {
        if (!mine(s)) return 0;
        uint32_t at = tile.table + (n * T::TOKENS >> op.block_shift) + block;
        uint32_t index = (__ldg(op.blocks + at) * op.layers + op.layer) * 2;
        return (index * op.kv_heads + head) << op.block_shift;
    }
    __device__ void copy(int part, uint32_t row, span s)
    {
        uint32_t stage = counts[part] % STAGES, round = counts[part] / STAGES;
        counts[part]++;
        uint32_t full = place.full(part, stage), to = place.kv(part, stage);
        bool whole = part == 0 || (s.from == 0 && s.to == T::TOKENS);
        uint32_t signal = whole ? full : place.tail();
        sm90::wait(place.empty(part, stage), (round & 1) ^ 1);
        if (lane == 0) {
            uint32_t blocks = ((s.to - 1) >> op.block_shift) - (s.from >> op.block_shift) + 1;
            sm90::arrive_expect(signal, (blocks << op.block_shift) * D * 2);
        }
        __syncwarp();
        if (mine(s))
            sm90::copy_box(to + column * T::KV_COLUMN +
                               (block << op.block_shift) * COLUMN_ROW_BYTES,
                           map, column * COLUMN, row, signal);
        if (whole) return;
        sm90::wait(signal, tails++ & 1);
        for (uint32_t i = lane; i < T::TOKENS * (D / 8); i += 32) {
            uint32_t token = i / (D / 8), word = i % (D / 8);
            if (token < s.from || token >= s.to)
                sm90::store_zeros(to + word / 8 * T::KV_COLUMN + token * COLUMN_ROW_BYTES +
                                  word % 8 * 16);
        }
        sm90::fence_async();
        __syncwarp();
        if (lane == 0) sm90::arrive(full);
    }
    __device__ void run(const prefill_tile &tile, uint32_t head)
    {
        int n = (tile.end - 1) / T::TOKENS, last = tile.begin / T::TOKENS;
        span now = tokens(tile, n);
        uint32_t row = row_of(tile, head, n, now), values = op.kv_heads << op.block_shift;
        copy(0, row, now);
        while (--n >= last) {
            span next = tokens(tile, n);
            uint32_t next_row = row_of(tile, head, n, next);
            copy(0, next_row, next);
            copy(1, row + values, now);
            row = next_row;
            now = next;
        }
        copy(1, row + values, now);
    }
};

/* ---- the packed rows of Q, by `threads` threads of which this is number `thread` ---- */
template <int D, bool CODES>
__device__ void load_q(const prefill_op &op, const prefill_tile &tile, uint32_t head,
                       const places<D, CODES> &place, uint32_t round, int thread, int threads)
{
    using T = tiling<D, CODES>;
    sm90::wait(place.q_empty(), (round & 1) ^ 1);
    for (int i = thread; i < ROWS * (D / 8); i += threads) {
        uint32_t row = i / (D / 8), word = i % (D / 8);
        bool exists = tile.row + row < tile.rows;
        const __nv_bfloat16 *from = op.q;
        if (exists) from += prefill_row_at(op, tile, head, tile.row + row, D) + word * 8;
        sm90::copy_16(place.q() + word / 8 * T::Q_COLUMN + row * COLUMN_ROW_BYTES +
                          ((word ^ row) % 8) * 16,
                      from, exists);
    }
    sm90::copies_commit();
    sm90::copies_wait<0>();
    sm90::fence_async();
    __syncwarp();
    if (threadIdx.x % 32 == 0) sm90::arrive(place.q_full());
}

/* ---- warpgroup 0 for pools of codes: K, V and Q ---- */
template <int D, bt_dtype POOL> struct converter {
    using T = tiling<D, true>;
    static constexpr int THREADS_HERE = 128;
    static constexpr int WORDS = D / 16; /* of 16 codes, in a row */
    static constexpr int STRIDE = THREADS_HERE / WORDS, PASSES = T::TOKENS / STRIDE;
    const prefill_op &op;
    places<D, true> place;
    uint32_t counts[2];
    __half2 pending
        [2]; /* scales of K and V of this thread's token, of the next tile and the one after */

    __device__ converter(const prefill_op &o, places<D, true> p) : op(o), place(p), counts{0, 0}
    {
    }
    __device__ const uint8_t *at(const prefill_tile &tile, uint32_t head, int part,
                                 uint32_t token) const
    {
        uint32_t block = __ldg(op.blocks + tile.table + (token >> op.block_shift));
        size_t index = ((size_t)block * op.layers + op.layer) * 2 + part;
        return op.pool + (index * op.kv_heads + head) * op.head_bytes;
    }
    __device__ uint32_t row_of(uint32_t token) const
    {
        return token & ((1u << op.block_shift) - 1);
    }
    __device__ __half2 scales_of(const prefill_tile &tile, uint32_t head, uint32_t token) const
    {
        if (token < tile.begin || token >= tile.stored) return __floats2half2_rn(0, 0);
        const uint8_t *k = at(tile, head, 0, token) + op.codes_bytes;
        const uint8_t *v = k + op.kv_heads * op.head_bytes;
        return __halves2half2(((const __half *)k)[row_of(token)],
                              ((const __half *)v)[row_of(token)]);
    }
    /* The j-th part of an item of `tiles` tiles, in the order K V: K0 K1 V0 K2 V1 … */
    struct part_of {
        int part, tile;
    };
    static __device__ part_of order(int j, int tiles)
    {
        if (j == 0) return {0, 0};
        if (j == 2 * tiles - 1) return {1, tiles - 1};
        return j & 1 ? part_of{0, (j + 1) / 2} : part_of{1, j / 2 - 1};
    }
    __device__ void fetch(const prefill_tile &tile, uint32_t head, int j, int tiles, int first)
    {
        if (j < 2 * tiles) {
            part_of which = order(j, tiles);
            uint32_t begin = (first - which.tile) * T::TOKENS;
            uint32_t to = place.raw(j % RAW_SLOTS) + threadIdx.x * 16;
#pragma unroll 2
            for (int pass = 0; pass < PASSES; pass++) {
                uint32_t token = begin + pass * STRIDE + threadIdx.x / WORDS;
                bool exists = token >= tile.begin && token < tile.stored;
                const uint8_t *from = op.pool;
                if (exists)
                    from = at(tile, head, which.part, token) + row_of(token) * D +
                           threadIdx.x % WORDS * 16;
                sm90::copy_16(to + pass * THREADS_HERE * 16, from, exists);
            }
            if (which.part == 0 && threadIdx.x < T::TOKENS)
                pending[j > 0] = scales_of(tile, head, begin + threadIdx.x);
        }
        sm90::copies_commit();
    }
    __device__ void convert(int j, int tiles)
    {
        int part = order(j, tiles).part;
        uint32_t count = counts[part]++, stage = count % STAGES;
        uint32_t raw = place.raw(j % RAW_SLOTS) + threadIdx.x * 16, to = place.kv(part, stage);
        sm90::wait(place.empty(part, stage), (count / STAGES & 1) ^ 1);
        uint32_t word = threadIdx.x % WORDS * 2, swap = word / 8 & 1;
#pragma unroll 2
        for (int pass = 0; pass < PASSES; pass++) {
            uint32_t row = pass * STRIDE + threadIdx.x / WORDS;
            uint4 codes = sm90::load_16(raw + pass * THREADS_HERE * 16);
            uint4 low = prefill_decode_8<POOL>(codes.x, codes.y);
            uint4 high = prefill_decode_8<POOL>(codes.z, codes.w);
            uint32_t row_at = to + word / 8 * T::KV_COLUMN + row * COLUMN_ROW_BYTES;
            /* Threads of the second column write their odd word first: eight of them meet no bank twice. */
            sm90::store_16(row_at + ((word + swap) ^ row) % 8 * 16, swap ? high : low);
            sm90::store_16(row_at + ((word + 1 - swap) ^ row) % 8 * 16, swap ? low : high);
        }
        if (part == 0) {
            if (threadIdx.x < T::TOKENS) {
                sm90::store_4(place.scales(count, 0) + threadIdx.x * 4, __low2float(pending[0]));
                sm90::store_4(place.scales(count, 1) + threadIdx.x * 4, __high2float(pending[0]));
            }
            pending[0] = pending[1];
        }
        sm90::fence_async();
        __syncwarp();
        if (threadIdx.x % 32 == 0) sm90::arrive(place.full(part, stage));
    }
    __device__ void run(const prefill_tile &tile, uint32_t head, uint32_t round)
    {
        int first = (tile.end - 1) / T::TOKENS, tiles = first - tile.begin / T::TOKENS + 1;
        fetch(tile, head, 0, tiles, first);
        fetch(tile, head, 1, tiles, first);
        for (int j = 0; j < 2 * tiles; j++) {
            fetch(tile, head, j + 2, tiles, first);
            sm90::copies_wait<2>();
            convert(j, tiles);
            if (j == 0) load_q<D, true>(op, tile, head, place, round, threadIdx.x, THREADS_HERE);
        }
    }
};

/* What warpgroup 0 does: for codes all of it together, for bf16 one warp brings K and V, three bring Q. */
template <int D, bt_dtype POOL>
__device__ void produce(const prefill_op &op, const CUtensorMap *map,
                        const places<D, POOL != BT_DTYPE_BF16> &place, uint32_t items)
{
    uint32_t item;
    if constexpr (POOL != BT_DTYPE_BF16) {
        converter<D, POOL> kv(op, place);
        for (uint32_t round = 0; (item = item_at(round)) < items; round++)
            kv.run(prefill_tile_at(op, item / op.kv_heads), item % op.kv_heads, round);
    } else if (threadIdx.x < 32) {
        kv_warp<D> kv(op, map, place);
        for (uint32_t round = 0; (item = item_at(round)) < items; round++)
            kv.run(prefill_tile_at(op, item / op.kv_heads), item % op.kv_heads);
    } else {
        for (uint32_t round = 0; (item = item_at(round)) < items; round++)
            load_q<D, false>(op, prefill_tile_at(op, item / op.kv_heads), item % op.kv_heads, place,
                             round, threadIdx.x - 32, Q_WARPS * 32);
    }
}

} // namespace

#endif
