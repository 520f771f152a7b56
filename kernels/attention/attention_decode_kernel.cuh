/* attention_decode_kernel.cuh - the warps that compute, and what becomes of their results.
 *
 * Two of the four warps take every second tile of an item, 32 tokens each, and each warp keeps its own
 * maximum, sum and output: with two fragments of tokens at once one waits less for either. The warps
 * meet at the end of an item, over shared memory, warp after warp; the results of several splits meet
 * in global memory, split after split, in the block of threads that finishes the last of them. */
#ifndef BT_KERNELS_ATTENTION_ATTENTION_DECODE_KERNEL_CUH
#define BT_KERNELS_ATTENTION_ATTENTION_DECODE_KERNEL_CUH

#include "kernels/attention/attention_decode_copy.cuh"

BT_DEVICE void meet()
{
    asm volatile("bar.sync 1, %0;" ::"n"(DECODE_WARPS * 32) : "memory");
}

/* POOL: bf16_pool, e4m3_pool or int8_pool; NT: fragments of 8 heads. */
template <class POOL, int D, int NT> struct decode_warp {
    static constexpr int ROW_BYTES = D * POOL::CODE_BYTES;
    static constexpr uint32_t CODES = PIECE_TOKENS * ROW_BYTES, PITCH = CODES + PIECE_GAP;
    static constexpr int STEPS = D / 16;
    static constexpr int MT = 2; /* fragments of 16 tokens */
    static constexpr int K_WORDS = ROW_BYTES / 16,
                         V_WORDS = ROW_BYTES / 32; /* of a row, in a lane */
    static constexpr float UNIT = 4096; /* of f16 weights: small ones stay normal numbers */

    float out[NT][STEPS][4];
    uint32_t query[NT][STEPS][2];
    float peak[NT][2], sum[NT][2], factor[NT][2]; /* of heads 2t and 2t + 1 */
    float range;       /* a power of two near the largest scale of V so far */
    tile_note pending; /* of the split counted last; splits is 0 if there is none */
    uint32_t turn;     /* the warp that counts next */

    BT_DEVICE void begin(const decode_params &p, uint32_t queries);
    BT_DEVICE void take(const tile_note &note, uint32_t stage);
    BT_DEVICE void scores(uint32_t stage, uint32_t quarter, float (*ret_c)[4]);
    BT_DEVICE void weigh(const tile_note &note, uint32_t stage, float (*c)[NT][4],
                         uint32_t (*ret_weights)[NT][2]);
    BT_DEVICE void add_values(const tile_note &note, uint32_t stage, uint32_t quarter,
                              const uint32_t (*weights)[2]);
    BT_DEVICE void finish(const decode_params &p, const tile_note &note, uint8_t *shared,
                          const decode_shared &at);
    BT_DEVICE void join_pending(const decode_params &p, uint8_t *shared, const decode_shared &at);
};

/* The queries as fragments, in the order of d in which K's rows are read; heads beyond the group are
 * zero. For f16 each head is scaled by a power of two, so that none overflows. */
template <class POOL, int D, int NT>
BT_DEVICE void decode_warp<POOL, D, NT>::begin(const decode_params &p, uint32_t queries)
{
    uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        bool real = n * DECODE_COLUMNS + g < p.group;
        uint32_t row = queries + (n * DECODE_COLUMNS + g) * D * 2;
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            uint32_t column = row_byte<K_WORDS * 4, 4>(t, i * 4 * POOL::CODE_BYTES);
            query[n][i][0] = query[n][i][1] = 0;
            if (real)
                asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];"
                             : "=r"(query[n][i][0]), "=r"(query[n][i][1])
                             : "r"(row + column / POOL::CODE_BYTES * 2));
        }
        float power = 1;
        if constexpr (POOL::SCALED) {
            float most = 0;
#pragma unroll
            for (int i = 0; i < STEPS * 2; i++) {
                float2 x = __bfloat1622float2(*(__nv_bfloat162 *)&query[n][i / 2][i % 2]);
                most = fmaxf(most, fmaxf(fabsf(x.x), fabsf(x.y)));
            }
            for (int step = 1; step < 4; step *= 2)
                most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
            power = power_below(fminf(fmaxf(most, 0x1p-100f), 0x1p100f));
            float inverse = inverse_power(power);
#pragma unroll
            for (int i = 0; i < STEPS * 2; i++) {
                float2 x = __bfloat1622float2(*(__nv_bfloat162 *)&query[n][i / 2][i % 2]);
                query[n][i / 2][i % 2] = POOL::pack(x.x * inverse, x.y * inverse);
            }
        }
        power *= p.scale * POOL::WORTH;
#pragma unroll
        for (int j = 0; j < 2; j++) {
            factor[n][j] = __shfl_sync(~0u, power, (2 * t + j) * 4);
            peak[n][j] = -INFINITY;
            sum[n][j] = 0;
        }
#pragma unroll
        for (int i = 0; i < STEPS * 4; i++) out[n][i / 4][i % 4] = 0;
    }
    range = 0x1p-24f;
}

/* Of a quarter of the tile, c[n]: (upper token, heads 2t, 2t + 1), (lower token, the same), before any scale. */
template <class POOL, int D, int NT>
BT_DEVICE void decode_warp<POOL, D, NT>::scores(uint32_t stage, uint32_t quarter, float (*c)[4])
{
    uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    uint32_t row = stage + row_piece(g) * PITCH + row_in_piece(quarter, g, 0) * ROW_BYTES;
    uint32_t upper[K_WORDS], lower[K_WORDS];
    row_load<K_WORDS * 4, 4>(row, t, upper);
    row_load<K_WORDS * 4, 4>(row + 2 * ROW_BYTES, t, lower);
    float odd[NT][4];
#pragma unroll
    for (int n = 0; n < NT; n++)
        for (int i = 0; i < 4; i++) c[n][i] = odd[n][i] = 0;
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        uint32_t a[4];
        if constexpr (POOL::SCALED) {
            uint32_t pairs[2];
            POOL::widen(upper[i], pairs);
            a[0] = pairs[0];
            a[2] = pairs[1];
            POOL::widen(lower[i], pairs);
            a[1] = pairs[0];
            a[3] = pairs[1];
        } else {
            a[0] = upper[2 * i];
            a[1] = lower[2 * i];
            a[2] = upper[2 * i + 1];
            a[3] = lower[2 * i + 1];
        }
#pragma unroll
        for (int n = 0; n < NT; n++)
            POOL::mma(i % 2 ? odd[n] : c[n], a[0], a[1], a[2], a[3], query[n][i][0],
                      query[n][i][1]);
    }
#pragma unroll
    for (int n = 0; n < NT; n++)
        for (int i = 0; i < 4; i++) c[n][i] += odd[n][i];
}

/* Scores to weights, as the fragments of the second product; corrects what was summed so far. Index i
 * of what follows is token upper or lower of fragment i / 2. */
template <class POOL, int D, int NT>
BT_DEVICE void decode_warp<POOL, D, NT>::weigh(const tile_note &note, uint32_t stage,
                                               float (*c)[NT][4], uint32_t (*ret_weights)[NT][2])
{
    uint32_t half = threadIdx.x / 32 % 2, g = threadIdx.x % 32 / 4;
    uint32_t piece = row_piece(g), row = row_in_piece(2 * half, g, 0); /* then every second */
    uint32_t first = (note.token & ~NOTE_FLAGS) + piece * PIECE_TOKENS + row;
    bool sees[2 * MT];
    float k[2 * MT], v[2 * MT], growth = 1;
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        sees[i] = first + 2 * i >= note.from && first + 2 * i < note.to;
        k[i] = v[i] = 1;
    }
    if constexpr (POOL::SCALED) {
        uint32_t scales = stage + piece * PITCH + CODES + row * 2;
        float most = 0;
#pragma unroll
        for (int i = 0; i < 2 * MT; i++) {
            k[i] = load_scale(scales + 4 * i);
            v[i] = load_scale(scales + PIECES * PITCH + 4 * i);
            v[i] = sees[i] ? v[i] : 0;
            most = fmaxf(most, v[i]);
        }
        float old = range;
        range = fmaxf(range, power_below(highest_of_tokens(most)));
        float inverse = inverse_power(range);
        growth = old * inverse;
#pragma unroll
        for (int i = 0; i < 2 * MT; i++) v[i] *= UNIT * inverse;
    }
#pragma unroll
    for (int n = 0; n < NT; n++) {
        float w[2 * MT][2], correction[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float most = -INFINITY, added = 0;
#pragma unroll
            for (int i = 0; i < 2 * MT; i++) {
                float score = c[i / 2][n][i % 2 * 2 + j] * (k[i] * factor[n][j]);
                w[i][j] = sees[i] ? score : -INFINITY;
                most = fmaxf(most, w[i][j]);
            }
            most = fmaxf(peak[n][j], highest_of_tokens(most));
            float from = most == -INFINITY ? 0 : most;
            correction[j] = exp2_fast(peak[n][j] - from);
            peak[n][j] = most;
#pragma unroll
            for (int i = 0; i < 2 * MT; i++) added += w[i][j] = exp2_fast(w[i][j] - from);
            sum[n][j] = sum[n][j] * correction[j] + added;
            correction[j] *= growth;
        }
#pragma unroll
        for (int i = 0; i < 2 * MT; i++)
            ret_weights[i / 2][n][i % 2] = turned(POOL::pack(w[i][0] * v[i], w[i][1] * v[i]));
#pragma unroll
        for (int i = 0; i < STEPS * 4; i++) out[n][i / 4][i % 4] *= correction[i % 2];
    }
}

/* The rows of V that this lane reads are tokens 2t and 2t + 1 of the weights' upper and lower half. */
template <class POOL, int D, int NT>
BT_DEVICE void decode_warp<POOL, D, NT>::add_values(const tile_note &note, uint32_t stage,
                                                    uint32_t quarter, const uint32_t (*weights)[2])
{
    uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    uint32_t first = note.token & ~NOTE_FLAGS, row = row_in_piece(quarter, 2 * t, 0);
    uint32_t v[4][V_WORDS]; /* even upper, odd upper, even lower, odd lower */
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t place = row_piece(2 * t + i % 2) * PITCH + (row + i / 2 * 2) * ROW_BYTES;
        row_load<V_WORDS * 4, 8>(stage + PIECES * PITCH + place, g, v[i]);
    }
    if (first < note.from || first + TILE_TOKENS > note.to) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t token = first + row_piece(2 * t + i % 2) * PIECE_TOKENS + row + i / 2 * 2;
            if (token >= note.from && token < note.to) continue;
#pragma unroll
            for (int k = 0; k < V_WORDS; k++) v[i][k] = 0; /* NaN perhaps, and so 0 times it */
        }
    }
#pragma unroll
    for (int k = 0; k < V_WORDS; k++) {
        if constexpr (POOL::SCALED) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                uint32_t upper[2], lower[2], order = half ? 0x7362 : 0x5140;
                POOL::widen(__byte_perm(v[0][k], v[1][k], order), upper);
                POOL::widen(__byte_perm(v[2][k], v[3][k], order), lower);
#pragma unroll
                for (int n = 0; n < NT; n++)
                    POOL::mma(out[n][2 * k + half], upper[0], upper[1], lower[0], lower[1],
                              weights[n][0], weights[n][1]);
            }
        } else {
            uint32_t a0 = __byte_perm(v[0][k], v[1][k], 0x5410);
            uint32_t a1 = __byte_perm(v[0][k], v[1][k], 0x7632);
            uint32_t a2 = __byte_perm(v[2][k], v[3][k], 0x5410);
            uint32_t a3 = __byte_perm(v[2][k], v[3][k], 0x7632);
#pragma unroll
            for (int n = 0; n < NT; n++)
                POOL::mma(out[n][k], a0, a1, a2, a3, weights[n][0], weights[n][1]);
        }
    }
}

template <class POOL, int D, int NT>
BT_DEVICE void decode_warp<POOL, D, NT>::take(const tile_note &note, uint32_t stage)
{
    uint32_t quarter = threadIdx.x / 32 % 2 * MT;
    float c[MT][NT][4];
    uint32_t weights[MT][NT][2];
#pragma unroll
    for (int m = 0; m < MT; m++) scores(stage, quarter + m, c[m]);
    weigh(note, stage, c, weights);
#pragma unroll
    for (int m = 0; m < MT; m++) add_values(note, stage, quarter + m, weights[m]);
}

/* Two elements of the output of one head: written as they are, or as those of a split. */
BT_DEVICE void store_out(const decode_params &p, uint32_t seq, size_t at, float2 value)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(value.x, value.y);
    *(__nv_bfloat162 *)(p.o + (size_t)seq * p.o_stride + at) = pair;
}

/* All splits of (sequence, head), in order: after the last of them is written. */
template <int D, uint32_t AT_ONCE>
BT_DEVICE void join_splits(const decode_params &p, const tile_note &note)
{
    size_t first = note.item - (size_t)note.split * p.kv_heads;
    size_t stride = (size_t)p.kv_heads * p.group; /* of splits */
    for (uint32_t i = threadIdx.x; i < p.group * D / 4; i += DECODE_WARPS * 32) {
        uint32_t head = i / (D / 4), d = i % (D / 4) * 4;
        const float2 *weights = p.weights + first * p.group + head;
        const float *sums = p.sums + (first * p.group + head) * D + d;
        float peak = -INFINITY, total = 0, out[4] = {0, 0, 0, 0};
        for (uint32_t s = 0; s < note.splits; s += AT_ONCE) {
            float4 part[AT_ONCE];
            float2 weight[AT_ONCE];
#pragma unroll
            for (uint32_t k = 0; k < AT_ONCE; k++) {
                bool real = s + k < note.splits;
                weight[k] = real ? __ldcg(&weights[(s + k) * stride]) : make_float2(-INFINITY, 0);
                part[k] = real ? __ldcg((const float4 *)(sums + (s + k) * stride * D))
                               : make_float4(0, 0, 0, 0);
            }
            float before = peak;
#pragma unroll
            for (uint32_t k = 0; k < AT_ONCE; k++) peak = fmaxf(peak, weight[k].x);
            float correction = exp2_fast(before - peak);
            total *= correction;
            for (int j = 0; j < 4; j++) out[j] *= correction;
#pragma unroll
            for (uint32_t k = 0; k < AT_ONCE; k++) {
                float f = exp2_fast(weight[k].x - peak);
                total += weight[k].y * f;
                out[0] += part[k].x * f, out[1] += part[k].y * f;
                out[2] += part[k].z * f, out[3] += part[k].w * f;
            }
        }
        float inverse = 1 / total;
        size_t at = ((size_t)note.head * p.group + head) * D + d;
        store_out(p, note.seq, at, {out[0] * inverse, out[1] * inverse});
        store_out(p, note.seq, at + 2, {out[2] * inverse, out[3] * inverse});
    }
}

/* Counts a split as done, with all that the warps that met here wrote for it; whether it was the last,
 * so that all the others' can be read by those who meet next. */
BT_DEVICE bool arrive_last(const decode_params &p, const tile_note &note)
{
    uint32_t before, *arrived = &p.arrived[note.seq * p.kv_heads + note.head];
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(arrived)
                 : "memory");
    if (before != note.splits - 1) return false;
    *(volatile uint32_t *)arrived = 0;
    return true;
}

/* Heads of one fragment, of all four warps, summed: to the output, or to where the splits meet. */
template <int D>
BT_DEVICE void sum_warps(const decode_params &p, const tile_note &note, const float *meeting,
                         const float2 *peaks, uint32_t first_head)
{
    uint32_t heads = min(DECODE_COLUMNS, p.group - first_head);
    for (uint32_t i = threadIdx.x; i < heads * D / 2; i += DECODE_WARPS * 32) {
        uint32_t head = i / (D / 2), d = i % (D / 2) * 2, row = head / 2 + head % 2 * 4;
        float most = -INFINITY, total = 0;
#pragma unroll
        for (uint32_t w = 0; w < DECODE_WARPS; w++)
            most = fmaxf(most, peaks[w * DECODE_COLUMNS + head].x);
        float2 value = {0, 0};
#pragma unroll
        for (uint32_t w = 0; w < DECODE_WARPS; w++) {
            float2 weight = peaks[w * DECODE_COLUMNS + head];
            const float *part = &meeting[(w * DECODE_COLUMNS + row) * decode_pitch(D) + d];
            float f = exp2_fast(weight.x - most);
            total += weight.y * f;
            value.x += part[0] * f;
            value.y += part[1] * f;
        }
        if (note.splits == 1) {
            float inverse = 1 / total;
            store_out(p, note.seq, ((size_t)note.head * p.group + first_head + head) * D + d,
                      {value.x * inverse, value.y * inverse});
        } else {
            size_t slot = (size_t)note.item * p.group + first_head + head;
            __stcg((float2 *)(p.sums + slot * D + d), value);
            if (d == 0) __stcg(&p.weights[slot], make_float2(most, total));
        }
    }
}

/* The four warps' results to one. Whether a split was the last of its sequence is not waited for: the
 * atomic takes as long as a tile, so it is looked at when the warps meet next. One warp after another
 * counts, since the fence before it holds its warp up. */
template <class POOL, int D, int NT>
BT_DEVICE void decode_warp<POOL, D, NT>::finish(const decode_params &p, const tile_note &note,
                                                uint8_t *shared, const decode_shared &at)
{
    uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float *meeting = (float *)(shared + at.meeting);
    float2 *peaks = (float2 *)(shared + at.peaks);
    float unit = POOL::SCALED ? range * (POOL::WORTH / UNIT) : 1;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        float2 own[2];
#pragma unroll
        for (int j = 0; j < 2; j++) own[j] = make_float2(peak[n][j], sum_of_tokens(sum[n][j]));
        if (g == 0)
            for (int j = 0; j < 2; j++) peaks[warp * DECODE_COLUMNS + 2 * t + j] = own[j];
                /* Head h is row h / 2 + 4 * (h % 2): lanes of different t meet different banks. */
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            uint32_t d = row_byte<V_WORDS * 4, 8>(g, 2 * i * POOL::CODE_BYTES) / POOL::CODE_BYTES;
#pragma unroll
            for (int j = 0; j < 2; j++)
                *(float2 *)&meeting[(warp * DECODE_COLUMNS + t + 4 * j) * decode_pitch(D) + d] =
                    make_float2(out[n][i][j] * unit, out[n][i][j + 2] * unit);
        }
        meet();
        if (n == 0) join_pending(p, shared, at);
        sum_warps<D>(p, note, meeting, peaks, n * DECODE_COLUMNS);
        meet(); /* before the area is written again, and after all is written that is counted next */
    }
    if (note.splits == 1) return;
    pending = note;
    if (threadIdx.x == turn * 32) *(uint32_t *)(shared + at.last) = arrive_last(p, note);
    turn = (turn + 1) % DECODE_WARPS;
}

/* After a meeting: what the last finish left open. */
template <class POOL, int D, int NT>
BT_DEVICE void decode_warp<POOL, D, NT>::join_pending(const decode_params &p, uint8_t *shared,
                                                      const decode_shared &at)
{
    if (pending.splits > 1 && *(uint32_t *)(shared + at.last))
        join_splits<D, (D == 128 && NT == 1 ? 16 : 8)>(p, pending);
    pending.splits = 0;
}

template <class POOL, int D, int NT>
BT_DEVICE void compute_tiles(const decode_params &p, uint8_t *shared, const decode_shared &at)
{
    using warp_state = decode_warp<POOL, D, NT>;
    const tile_note *notes = (const tile_note *)(shared + at.notes);
    uint32_t base = shared_address(shared);
    warp_state state;
    state.turn = state.pending.splits = 0;
    uint32_t pair = threadIdx.x / 64, turn = 0; /* of pairs of warps */
    for (ring_place place = {0, 0};; place.step(p.stages)) {
        uint32_t full = base + at.barriers + place.stage * 16;
        uint32_t stage = base + place.stage * p.stage_bytes;
        barrier_wait(full, place.parity);
        tile_note note = notes[place.stage];
        if (note.token & NOTE_END) break;
        if (note.token & NOTE_FIRST) {
            state.begin(p, stage + 2 * PIECES * warp_state::PITCH);
            turn = 0;
        }
        if (turn++ % 2 == pair) state.take(note, stage);
        barrier_arrive(full + 8); /* every lane for itself: racecheck credits only who arrives */
        if (note.token & NOTE_LAST) state.finish(p, note, shared, at);
    }
    meet();
    state.join_pending(p, shared, at);
}

constexpr int decode_blocks_per_sm(int columns) /* head_dim * fragments */
{
    return columns <= 64 ? 3 : columns <= 128 ? 2 : 1;
}

template <class POOL, int D, int NT>
__global__ void __launch_bounds__(DECODE_THREADS, decode_blocks_per_sm(D *NT))
    decode(const __grid_constant__ decode_params p)
{
    extern __shared__ __align__(128) uint8_t shared[];
    decode_shared at = decode_shared_of(p.stages, p.stage_bytes, D, p.seqs);
    bool copies = threadIdx.x / 32 == DECODE_WARPS;
    copy_items items = {(uint32_t *)(shared + at.starts), (uint32_t *)(shared + at.lengths),
                        (uint32_t *)(shared + at.spans), 0, 0};
    copy_chunk chunk;
    if (copies) {
        chunk = chunk_first(p, &items);
    } else if (threadIdx.x < p.stages) {
        uint32_t full = shared_address(shared) + at.barriers + threadIdx.x * 16;
        barrier_init(full, FULL_ARRIVALS);
        barrier_init(full + 8, DECODE_WARPS * 32);
        barrier_fence();
    }
    __syncthreads();
    if (copies)
        copy_tiles<D * POOL::CODE_BYTES, POOL::SCALED>(p, shared, at, items, chunk);
    else
        compute_tiles<POOL, D, NT>(p, shared, at);
}

template <class POOL> decode_kernel *decode_kernel_of(uint32_t head_dim, uint32_t group)
{
    bool wide = group > DECODE_COLUMNS;
    switch (head_dim) {
    case 64: return wide ? decode<POOL, 64, 2> : decode<POOL, 64, 1>;
    case 96: return wide ? decode<POOL, 96, 2> : decode<POOL, 96, 1>;
    case 128: return wide ? decode<POOL, 128, 2> : decode<POOL, 128, 1>;
    case 256: return wide ? decode<POOL, 256, 2> : decode<POOL, 256, 1>;
    default: return NULL;
    }
}

#endif
