/* kv_frame.cuh - a frame as its kernels see it: where records lie, NH and PRF of their digest, and the
 * walk of a block's warps over its records. Private to kernels/kv_pack; kv_pack_cuda.cu says how it goes
 * together. */
#ifndef BT_KERNELS_KV_PACK_KV_FRAME_CUH
#define BT_KERNELS_KV_PACK_KV_FRAME_CUH

extern "C" {
#include "kernels/kv_pack/kv_pack_cuda.h"
}

#include <stdint.h>

namespace
{

constexpr int THREADS = 512, WARPS = THREADS / 32, UNROLL = 4;
constexpr unsigned RUN = BT_RUN_TOKENS, BATCH = 16, TILES_MAX = 32, TILE_ROWS_MAX = 16;
constexpr uint32_t SHARED_BYTES_ALWAYS = 36 * 1024; /* besides the static */
constexpr uint32_t RESIDENT_THREADS = 132 * 1024;   /* of an H100 at 64 registers */

/* A frame as the kernels see it. */
struct frame {
    uint8_t *pool; /* of the layer */
    const uint32_t *blocks;
    uint8_t *records;
    const uint32_t *key;
    bt_kv_pack_cuda_work *work;
    uint64_t *ret_digest;
    uint64_t prf[2];
    size_t block_bytes;                         /* from block to block of the pool */
    uint32_t head_bytes, part_bytes, scales_at; /* of the pool; scales of a head */
    uint32_t count, record_bytes, codes_bytes;  /* of records */
    uint32_t tiles, tiles_reciprocal;           /* of a record */
    uint32_t layer, run_first, head_first, head_count, heads_reciprocal, token_end;
    uint32_t head_dim, block_tokens, tokens_shift;
};

struct record {
    uint32_t head, run, part, rows;
    const uint32_t *blocks; /* of the run; only those of its rows are there */
    uint8_t *pool;          /* its head in block 0 of the pool */
    uint8_t *wire;
};

/* n / d for a reciprocal of d, if n * d < 2^31. */
__device__ __forceinline__ uint32_t divided(uint32_t n, uint32_t reciprocal)
{
    return __umulhi(2 * n, reciprocal);
}

__device__ __forceinline__ record record_at(const frame &f, uint32_t index)
{
    record r;
    uint32_t run = divided(index / 2, f.heads_reciprocal);
    r.part = index % 2;
    r.head = f.head_first + index / 2 - run * f.head_count;
    r.run = f.run_first + run;
    r.rows = min(f.token_end - r.run * RUN, RUN);
    r.blocks = f.blocks + (r.run * RUN >> f.tokens_shift);
    r.pool = f.pool + r.part * (size_t)f.part_bytes + r.head * (size_t)f.head_bytes;
    r.wire = f.records + (size_t)index * f.record_bytes;
    return r;
}

/* The record's head in the i-th block of its run. */
__device__ __forceinline__ uint8_t *head_at(const frame &f, const record &r, uint32_t i)
{
    return r.pool + __ldg(r.blocks + i) * f.block_bytes;
}

/* --- memory --- */

/* Each load happens once: what a hostile peer writes meanwhile is seen by all uses or by none. */
__device__ __forceinline__ uint4 load16(const void *p)
{
    uint4 v;
    asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}

/* WORDS words, 2, 4 or 8, once as above. */
template <int WORDS> __device__ __forceinline__ void load_words(const uint8_t *p, uint32_t *w)
{
    if constexpr (WORDS == 2) {
        asm volatile("ld.relaxed.sys.global.v2.u32 {%0, %1}, [%2];"
                     : "=r"(w[0]), "=r"(w[1])
                     : "l"(p)
                     : "memory");
    } else {
#pragma unroll
        for (int i = 0; i < WORDS; i += 4) {
            uint4 v = load16(p + 4 * i);
            w[i] = v.x, w[i + 1] = v.y, w[i + 2] = v.z, w[i + 3] = v.w;
        }
    }
}

template <int WORDS> __device__ __forceinline__ void store_words(uint8_t *p, const uint32_t *w)
{
    if constexpr (WORDS == 2) {
        *(uint2 *)p = make_uint2(w[0], w[1]);
    } else {
#pragma unroll
        for (int i = 0; i < WORDS; i += 4)
            *(uint4 *)(p + 4 * i) = make_uint4(w[i], w[i + 1], w[i + 2], w[i + 3]);
    }
}

/* --- digest --- */

struct nh_sums {
    uint64_t lane[2];
};

/* A pair of the record's words; key: from its first word on. */
__device__ __forceinline__ void nh_pair(nh_sums &nh, uint32_t low, uint32_t high, uint2 key,
                                        uint2 shifted)
{
    nh.lane[0] += (uint64_t)(low + key.x) * (high + key.y);
    nh.lane[1] += (uint64_t)(low + shifted.x) * (high + shifted.y);
}

/* Word w of the record on: 2, or a multiple of 4 from a multiple of 4. */
template <int WORDS>
__device__ __forceinline__ void nh_add(nh_sums &nh, const uint32_t *v, const uint32_t *key)
{
    if constexpr (WORDS == 2) {
        uint2 a = *(const uint2 *)key, b = *(const uint2 *)(key + 4);
        nh_pair(nh, v[0], v[1], a, b);
    } else {
        uint4 a = *(const uint4 *)key;
#pragma unroll
        for (int i = 0; i < WORDS; i += 4) {
            uint4 b = *(const uint4 *)(key + i + 4);
            nh_pair(nh, v[i], v[i + 1], make_uint2(a.x, a.y), make_uint2(b.x, b.y));
            nh_pair(nh, v[i + 2], v[i + 3], make_uint2(a.z, a.w), make_uint2(b.z, b.w));
            a = b;
        }
    }
}

__device__ __forceinline__ void nh_add16(nh_sums &nh, uint4 v, const uint32_t *key)
{
    uint32_t w[4] = {v.x, v.y, v.z, v.w};
    nh_add<4>(nh, w, key);
}

/* Sums over the lanes of a warp: lane[0] in lanes 0 to 15, lane[1] in the others. */
__device__ __forceinline__ uint64_t lanes_add(nh_sums nh)
{
    bool upper = threadIdx.x & 16;
    uint64_t sum = upper ? nh.lane[1] : nh.lane[0], other = upper ? nh.lane[0] : nh.lane[1];
    sum += __shfl_xor_sync(~0u, other, 16);
#pragma unroll
    for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    return sum;
}

__device__ __forceinline__ uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

struct sip_state {
    uint64_t v[4];
};

__device__ __forceinline__ void sip_rounds(sip_state &s, int count)
{
#pragma unroll 1
    for (int i = 0; i < count; i++) {
        s.v[0] += s.v[1], s.v[2] += s.v[3];
        s.v[1] = rotate(s.v[1], 13) ^ s.v[0], s.v[3] = rotate(s.v[3], 16) ^ s.v[2];
        s.v[0] = rotate(s.v[0], 32);
        s.v[2] += s.v[1], s.v[0] += s.v[3];
        s.v[1] = rotate(s.v[1], 17) ^ s.v[2], s.v[3] = rotate(s.v[3], 21) ^ s.v[0];
        s.v[2] = rotate(s.v[2], 32);
    }
}

/* SipHash-2-4 with 128 bits of the 40 bytes that bt_kv_pack ties to a record. */
__device__ nh_sums place_prf(const frame &f, uint32_t index, nh_sums nh)
{
    record r = record_at(f, index);
    uint64_t words[6] = {nh.lane[0],
                         nh.lane[1],
                         (uint64_t)f.layer << 32 | f.record_bytes,
                         (uint64_t)r.run << 32 | r.head,
                         r.part,
                         40ull << 56};
    sip_state s = {{f.prf[0] ^ 0x736f6d6570736575ull, f.prf[1] ^ 0x646f72616e646f6dull ^ 0xee,
                    f.prf[0] ^ 0x6c7967656e657261ull, f.prf[1] ^ 0x7465646279746573ull}};
#pragma unroll
    for (int i = 0; i < 6; i++) {
        s.v[3] ^= words[i];
        sip_rounds(s, 2);
        s.v[0] ^= words[i];
    }
    nh_sums out;
    s.v[2] ^= 0xee;
    sip_rounds(s, 4);
    out.lane[0] = s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
    s.v[1] ^= 0xdd;
    sip_rounds(s, 4);
    out.lane[1] = s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
    return out;
}

struct digest_memory {
    nh_sums of_tile[BATCH][TILES_MAX];
    uint16_t scales[WARPS][TILE_ROWS_MAX]; /* of a warp's tile */
    uint64_t key_barrier;
};

extern __shared__ __align__(16) uint32_t key_memory[]; /* key_words, behind key_wait */

/* In every thread, once; behind it the launches before this one are done. */
__device__ __forceinline__ void begin(const frame &f, digest_memory &m)
{
#if __CUDA_ARCH__ >= 900
    uint32_t barrier = (uint32_t)__cvta_generic_to_shared(&m.key_barrier);
    uint32_t to = (uint32_t)__cvta_generic_to_shared(key_memory), bytes = f.record_bytes + 16;
    if (threadIdx.x == 0)
        asm volatile(
            "mbarrier.init.shared.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(barrier)
            : "memory");
    __syncthreads();
    asm volatile("griddepcontrol.launch_dependents;\ngriddepcontrol.wait;" ::: "memory");
    if (threadIdx.x == 0)
        asm volatile(
            "mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;\n"
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%2], [%3], "
            "%1, [%0];" ::"r"(barrier),
            "r"(bytes), "r"(to), "l"(f.key)
            : "memory");
#else
    for (uint32_t i = threadIdx.x; i < f.record_bytes / 16 + 1; i += blockDim.x)
        ((uint4 *)key_memory)[i] = ((const uint4 *)f.key)[i];
    __syncthreads();
    (void)m;
#endif
}

__device__ __forceinline__ void key_wait(const digest_memory &m)
{
#if __CUDA_ARCH__ >= 900
    uint32_t barrier = (uint32_t)__cvta_generic_to_shared(&m.key_barrier), there = 0;
    while (!there)
        asm volatile("{\n .reg .pred p;\n"
                     " mbarrier.try_wait.parity.shared.b64 p, [%1], 0;\n"
                     " selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(there)
                     : "r"(barrier)
                     : "memory");
#else
    (void)m;
#endif
}

/* In warp 0: what `count` records from the block's record `turn` on add to the frame. */
__device__ void digest_records(const frame &f, const digest_memory &m, uint32_t turn,
                               uint32_t count, nh_sums &sum)
{
    uint32_t lane = threadIdx.x;
    if (lane >= count) return;
    nh_sums nh = {};
    for (uint32_t tile = 0; tile < f.tiles; tile++) {
        nh.lane[0] += m.of_tile[lane][tile].lane[0];
        nh.lane[1] += m.of_tile[lane][tile].lane[1];
    }
    nh = place_prf(f, blockIdx.x + (turn + lane) * gridDim.x, nh);
    sum.lane[0] += nh.lane[0];
    sum.lane[1] += nh.lane[1];
}

/* In warp 0 of each block, once: the last of all writes the frame's sums. */
__device__ void digest_end(const frame &f, nh_sums sum)
{
    uint64_t of_block = lanes_add(sum);
    unsigned long long *lanes = (unsigned long long *)f.work->lane;
    if (threadIdx.x % 16 == 0) atomicAdd(&lanes[threadIdx.x / 16], of_block);
    __syncwarp();
    if (threadIdx.x != 0) return;
    uint32_t done;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
                 : "=r"(done)
                 : "l"(&f.work->blocks_done)
                 : "memory");
    if (done + 1 < gridDim.x) return;
    uint64_t total[2] = {atomicExch(&lanes[0], 0), atomicExch(&lanes[1], 0)};
    f.work->blocks_done = 0;
    f.ret_digest[0] = total[0];
    f.ret_digest[1] = total[1];
}

/* All tiles of the block's records: work(record, tile) returns a lane's share of NH. */
template <typename W> __device__ __forceinline__ void walk(const frame &f, digest_memory &m, W work)
{
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    uint32_t records = (f.count - blockIdx.x + gridDim.x - 1) / gridDim.x;
    nh_sums sum = {};
    begin(f, m);
    for (uint32_t turn = 0; turn < records; turn += BATCH) {
        uint32_t count = min(records - turn, BATCH);
        for (uint32_t i = warp; i < count * f.tiles; i += warps) {
            uint32_t slot = divided(i, f.tiles_reciprocal), tile = i - slot * f.tiles;
            record r = record_at(f, blockIdx.x + (turn + slot) * gridDim.x);
            uint64_t nh = lanes_add(work(r, tile));
            if (lane % 16 == 0) m.of_tile[slot][tile].lane[lane / 16] = nh;
        }
        __syncthreads();
        if (warp == 0) digest_records(f, m, turn, count, sum);
        __syncthreads();
    }
    if (warp == 0) digest_end(f, sum);
}

} // namespace

#endif
