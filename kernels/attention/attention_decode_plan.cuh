/* attention_decode_plan.cuh - what a launch of attention_decode is told, and its cut into splits. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_DECODE_PLAN_CUH
#define BT_KERNELS_ATTENTION_ATTENTION_DECODE_PLAN_CUH

#include "kernels/attention/attention_decode_tile.cuh"

struct decode_params {
    const uint8_t *kv; /* of the layer, in block 0 */
    const uint32_t *tables, *lengths;
    const uint16_t *q;
    uint16_t *o;
    float *sums;       /* [items][group][head_dim]: of each split, in units of its highest score */
    float2 *weights;   /* [items][group]: its highest score, base 2, and its sum of weights */
    uint32_t *arrived; /* [seqs][kv_heads]: splits that are done; 0 between launches */
    uint32_t *taken;   /* items taken so far, then blocks of threads that are done; both as above */
    uint64_t block_bytes;
    uint32_t part_bytes, head_bytes, codes_bytes;
    uint32_t seqs, blocks_max, kv_heads, group, q_stride, o_stride, window;
    uint64_t kv_heads_inverse; /* 2^32 / kv_heads, rounded up */
    uint32_t block_shift;      /* log2(block_tokens) */
    uint32_t stages, stage_bytes;
    uint32_t splits_wanted, split_tiles_min, split_tiles_max;
    uint32_t dynamic;
    float scale; /* of scores, for powers of 2 */
};

typedef void decode_kernel(const decode_params);

/* By dtype, in a file each; NULL for a shape there is none for. */
decode_kernel *decode_kernel_bf16(uint32_t head_dim, uint32_t group);
decode_kernel *decode_kernel_fp8(uint32_t head_dim, uint32_t group);
decode_kernel *decode_kernel_int8(uint32_t head_dim, uint32_t group);

constexpr uint32_t DECODE_WARPS = 4; /* that compute; one more copies */
constexpr uint32_t DECODE_THREADS = (DECODE_WARPS + 1) * 32;
constexpr uint32_t DECODE_COLUMNS = 8; /* heads of one fragment */

/* Floats between the rows of the area where the warps' results meet. */
__host__ __device__ constexpr uint32_t decode_pitch(uint32_t head_dim)
{
    return head_dim + 2;
}

/* What the copying warp writes beside a tile. */
struct __align__(16) tile_note
{
    uint32_t seq, head;
    uint32_t item, split, splits;
    uint32_t from, to; /* tokens that the query sees: [from, to) */
    uint32_t token;    /* first of the tile, and NOTE_ flags */
};
constexpr uint32_t NOTE_FIRST = 1, NOTE_LAST = 2, NOTE_END = 4, NOTE_FLAGS = 63;

/* Shared memory, after the ring's stages (which are 16-byte aligned):
 *   notes    [stages] tile_note
 *   meeting  [warps][8][pitch] f32
 *   peaks    [warps][8] float2
 *   last     u32, 4 of them
 *   barriers [stages][2] u64: full, empty
 *   starts   [seqs + 1] u32: first (split, all heads) of each sequence
 *   lengths  [seqs] u32
 *   spans    [seqs] u32: tiles of a split */
struct decode_shared {
    uint32_t notes, meeting, peaks, last, barriers, starts, lengths, spans, bytes;
};

__host__ __device__ inline decode_shared decode_shared_of(uint32_t stages, uint32_t stage_bytes,
                                                          uint32_t head_dim, uint32_t seqs)
{
    decode_shared s;
    s.notes = stages * stage_bytes;
    s.meeting = s.notes + stages * (uint32_t)sizeof(tile_note);
    s.peaks = s.meeting + DECODE_WARPS * DECODE_COLUMNS * decode_pitch(head_dim) * 4;
    s.last = s.peaks + DECODE_WARPS * DECODE_COLUMNS * 8;
    s.barriers = s.last + 16;
    s.starts = s.barriers + stages * 16;
    s.lengths = s.starts + (seqs + 1) * 4;
    s.spans = s.lengths + seqs * 4;
    s.bytes = s.spans + seqs * 4;
    return s;
}

/* The tokens that the query of a sequence sees; a tile is token / 64. */
struct decode_range {
    uint32_t from, to;
    uint32_t tile, tiles; /* first, and count */
};

BT_DEVICE decode_range decode_range_of(const decode_params &p, uint32_t length)
{
    decode_range r;
    r.to = length;
    r.from = p.window && length > p.window ? length - p.window : 0;
    r.tile = r.from / TILE_TOKENS;
    r.tiles = (length + TILE_TOKENS - 1) / TILE_TOKENS - r.tile;
    return r;
}

/* Tiles of one split, of a sequence of so many. */
BT_DEVICE uint32_t decode_span_of(const decode_params &p, uint32_t tiles)
{
    uint32_t span = (tiles + p.splits_wanted - 1) / p.splits_wanted;
    return min(max(span, p.split_tiles_min), p.split_tiles_max);
}

#endif
