/* attention_prefill_cuda.cu - the mma.sync kernel: every architecture, head dim and dtype; and the choice
 * between it and the wgmma kernel of attention_prefill_sm90.cu.
 *
 * WORK    One block of 8 warps for a tile of 128 packed rows and one KV head; a warp has 16 rows. K and V
 *         come in tiles of 64 tokens (32 for head_dim 256), two deep, the next one on its way while this
 *         one is multiplied; first the latest tokens, so that the masked tiles come first. bf16 by
 *         cp.async; codes by way of registers, where they become bf16. Rows in shared memory are 16 bytes
 *         longer than their values, an odd number of 16-byte words, so that ldmatrix meets no bank twice.
 * FLOPS   4 * head_dim * q_heads * sum over queries of the tokens they see.
 * BYTES   q and out once; K and V of a sequence once for every tile of it, mostly from L2.
 * FIGURES H100 SXM, 2026-11-24, `gpu-check --only attention_prefill --bench`, blocks of 32, 32 query and 8
 *         KV heads of 128, bf16: 1 x 2048 222 TFLOP/s, 1 x 8192 260; head_dim 96 268. */
#include "kernels/attention/attention_prefill.cuh"

#include <assert.h>
#include <math.h>

namespace
{

constexpr int THREADS = 256, ROWS = BT_ATTENTION_TILE_ROWS;

template <int D> struct tiling {
    static constexpr int TOKENS = D == 256 ? 32 : 64;
    static constexpr int PITCH = D * 2 + 16; /* bytes of a row in shared memory */
    static constexpr int Q_BYTES = ROWS * PITCH;
    static constexpr int TILE_BYTES = TOKENS * PITCH;
    static constexpr int SCALES_AT = Q_BYTES + 4 * TILE_BYTES; /* K, V of stage 0; of stage 1 */
    static constexpr int SHARED_BYTES = SCALES_AT + 4 * TOKENS * (int)sizeof(float);
};

__device__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

__device__ void copy_16(uint32_t to, const void *from, bool exists)
{
    int bytes = exists ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}

__device__ void copies_wait()
{
    asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
}

__device__ void ldmatrix(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ void ldmatrix_turned(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ void mma(float *c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* A tile of K and one of V on their way to shared memory. */
template <int D, bt_dtype POOL> struct loader {
    using T = tiling<D>;
    static constexpr bool CODES = POOL != BT_DTYPE_BF16;
    static constexpr int WIDE = CODES ? 16 : 8; /* values of 16 bytes */
    static constexpr int CHUNKS = T::TOKENS * (D / WIDE);
    static constexpr int EACH = (CHUNKS + THREADS - 1) / THREADS;

    const prefill_op &op;
    const prefill_tile &tile;
    uint32_t head;
    uint8_t *shared;
    uint4 held[2][CODES ? EACH : 1];
    float scale;

    __device__ const uint8_t *at(uint32_t token, int part) const
    {
        uint32_t block = __ldg(op.blocks + tile.table + (token >> op.block_shift));
        size_t index = ((size_t)block * op.layers + op.layer) * 2 + part;
        return op.pool + (index * op.kv_heads + head) * op.head_bytes;
    }
    __device__ bool seen(uint32_t token) const
    {
        return token >= tile.begin && token < tile.end;
    }
    __device__ uint32_t row_of(uint32_t token) const
    {
        return token & ((1u << op.block_shift) - 1);
    }
    __device__ uint8_t *rows(int stage, int part) const
    {
        return shared + T::Q_BYTES + (2 * stage + part) * T::TILE_BYTES;
    }
    __device__ float *scales(int stage, int part) const
    {
        return (float *)(shared + T::SCALES_AT) + (2 * stage + part) * T::TOKENS;
    }

    __device__ void fetch_part(uint32_t begin, int stage, int part)
    {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int chunk = i * THREADS + threadIdx.x;
            if (CHUNKS % THREADS && chunk >= CHUNKS) break;
            uint32_t row = chunk / (D / WIDE), column = chunk % (D / WIDE);
            uint32_t token = begin + row;
            bool exists = seen(token);
            const uint8_t *from = op.pool;
            if (exists) from = at(token, part) + row_of(token) * (CODES ? D : 2 * D) + column * 16;
            if (CODES)
                held[part][i] = exists ? __ldg((const uint4 *)from) : make_uint4(0, 0, 0, 0);
            else
                copy_16(shared_address(rows(stage, part) + row * T::PITCH + column * 16), from,
                        exists);
        }
    }
    __device__ void fetch(uint32_t begin, int stage)
    {
        fetch_part(begin, stage, 0);
        fetch_part(begin, stage, 1);
        if (!CODES || threadIdx.x >= 2 * T::TOKENS) return;
        uint32_t token = begin + threadIdx.x % T::TOKENS;
        scale = 0;
        if (seen(token)) {
            const uint8_t *codes = at(token, threadIdx.x / T::TOKENS);
            scale = __half2float(((const __half *)(codes + op.codes_bytes))[row_of(token)]);
        }
    }
    __device__ void settle_part(int stage, int part)
    {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int chunk = i * THREADS + threadIdx.x;
            if (CHUNKS % THREADS && chunk >= CHUNKS) break;
            uint32_t row = chunk / (D / WIDE), column = chunk % (D / WIDE);
            uint4 *to = (uint4 *)(rows(stage, part) + row * T::PITCH + column * 32);
            to[0] = prefill_decode_8<POOL>(held[part][i].x, held[part][i].y);
            to[1] = prefill_decode_8<POOL>(held[part][i].z, held[part][i].w);
        }
    }
    /* What fetch began is in shared memory for this thread; a barrier makes it so for all. */
    __device__ void settle(int stage)
    {
        if (!CODES) {
            copies_wait();
            return;
        }
        settle_part(stage, 0);
        settle_part(stage, 1);
        if (threadIdx.x < 2 * T::TOKENS)
            scales(stage, threadIdx.x / T::TOKENS)[threadIdx.x % T::TOKENS] = scale;
    }
};

/* The 16 rows of a warp: two of them, a and b = a + 8, in each thread. */
template <int D, bt_dtype POOL> struct rows_of_warp {
    using T = tiling<D>;
    static constexpr int N = T::TOKENS;
    float o[D / 2] = {};
    float highest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    uint32_t position[2]; /* of a and b */
    uint32_t low, high;   /* positions of the warp's first and last row */

    __device__ void scores(uint32_t q, uint32_t k, float (&s)[N / 2])
    {
        uint32_t lane = threadIdx.x % 32;
        uint32_t q_at = q + (lane & 15) * T::PITCH + (lane >> 4) * 16;
        uint32_t k_at = k + ((lane >> 4) * 8 + (lane & 7)) * T::PITCH + (lane >> 3 & 1) * 16;
#pragma unroll
        for (int i = 0; i < N / 2; i++) s[i] = 0;
#pragma unroll
        for (int d = 0; d < D / 16; d++) {
            uint32_t a[4], b[4];
            ldmatrix(a, q_at + d * 32);
#pragma unroll
            for (int j = 0; j < N / 16; j++) {
                ldmatrix(b, k_at + j * 16 * T::PITCH + d * 32);
                mma(s + 8 * j, a, b[0], b[1]);
                mma(s + 8 * j + 4, a, b[2], b[3]);
            }
        }
    }
    __device__ void mask(float (&s)[N / 2], uint32_t begin, uint32_t window)
    {
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            uint32_t token = begin + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
            uint32_t at = position[i % 4 / 2];
            if (token > at || (window && token + window <= at)) s[i] = -INFINITY;
        }
    }
    /* Scores become weights in place; o and sum are brought to the new maximum. */
    __device__ void weigh(float (&s)[N / 2], float scale_log2)
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float most = highest[r];
#pragma unroll
            for (int i = 0; i < N / 8; i++)
                most = fmaxf(most, fmaxf(s[4 * i + 2 * r], s[4 * i + 2 * r + 1]));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
            float base = most == -INFINITY ? 0 : most * scale_log2;
            float shrink = prefill_exp2(highest[r] * scale_log2 - base), total = 0;
            highest[r] = most;
#pragma unroll
            for (int i = 0; i < N / 8; i++)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; e++) {
                    s[4 * i + e] = prefill_exp2(s[4 * i + e] * scale_log2 - base);
                    total += s[4 * i + e];
                }
            sum[r] = sum[r] * shrink + total;
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                o[4 * j + 2 * r] *= shrink;
                o[4 * j + 2 * r + 1] *= shrink;
            }
        }
    }
    __device__ void add_values(uint32_t v, const float (&s)[N / 2])
    {
        uint32_t lane = threadIdx.x % 32;
        uint32_t v_at = v + (lane & 15) * T::PITCH + (lane >> 4) * 16;
#pragma unroll
        for (int k = 0; k < N / 16; k++) {
            const uint32_t a[4] = {
                prefill_pack(s[8 * k], s[8 * k + 1]), prefill_pack(s[8 * k + 2], s[8 * k + 3]),
                prefill_pack(s[8 * k + 4], s[8 * k + 5]), prefill_pack(s[8 * k + 6], s[8 * k + 7])};
#pragma unroll
            for (int d = 0; d < D / 16; d++) {
                uint32_t b[4];
                ldmatrix_turned(b, v_at + k * 16 * T::PITCH + d * 32);
                mma(o + 8 * d, a, b[0], b[1]);
                mma(o + 8 * d + 4, a, b[2], b[3]);
            }
        }
    }
    __device__ void times(float (&s)[N / 2], const float *scales)
    {
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            float2 pair = *(const float2 *)(scales + i * 8 + threadIdx.x % 4 * 2);
            s[4 * i] *= pair.x;
            s[4 * i + 1] *= pair.y;
            s[4 * i + 2] *= pair.x;
            s[4 * i + 3] *= pair.y;
        }
    }
    __device__ void step(const prefill_op &op, uint32_t q, const loader<D, POOL> &kv, int stage,
                         uint32_t begin)
    {
        if (begin > high || (op.window && begin + N + op.window <= low + 1)) return;
        float s[N / 2];
        scores(q, shared_address(kv.rows(stage, 0)), s);
        if (POOL != BT_DTYPE_BF16) times(s, kv.scales(stage, 0));
        if (begin + N - 1 > low || (op.window && begin + op.window <= high))
            mask(s, begin, op.window);
        weigh(s, op.scale_log2);
        if (POOL != BT_DTYPE_BF16) times(s, kv.scales(stage, 1));
        add_values(shared_address(kv.rows(stage, 1)), s);
    }
};

template <int D>
__device__ void load_q(const prefill_op &op, const prefill_tile &tile, uint32_t head,
                       uint8_t *shared)
{
    for (int chunk = threadIdx.x; chunk < ROWS * (D / 8); chunk += THREADS) {
        uint32_t row = chunk / (D / 8), column = chunk % (D / 8);
        bool exists = tile.row + row < tile.rows;
        const __nv_bfloat16 *from = op.q;
        if (exists) from += prefill_row_at(op, tile, head, tile.row + row, D) + column * 8;
        copy_16(shared_address(shared + row * tiling<D>::PITCH + column * 16), from, exists);
    }
}

template <int D, bt_dtype POOL>
__global__ void __launch_bounds__(THREADS, D == 256 ? 1 : 2) prefill_mma(prefill_op op)
{
    extern __shared__ __align__(16) uint8_t shared[];
    using T = tiling<D>;
    uint32_t index = blockIdx.x / op.kv_heads, head = blockIdx.x % op.kv_heads;
    if (index >= __ldg(&op.plan->tiles)) return;
    prefill_tile tile = prefill_tile_at(op, index);
    loader<D, POOL> kv = {op, tile, head, shared};
    rows_of_warp<D, POOL> rows;
    uint32_t warp_row = tile.row + threadIdx.x / 32 * 16, row = warp_row + threadIdx.x % 32 / 4;
    rows.position[0] = prefill_position(op, tile, row);
    rows.position[1] = prefill_position(op, tile, row + 8);
    rows.low = prefill_position(op, tile, warp_row);
    rows.high = prefill_position(op, tile, warp_row + 15);

    int n = (tile.end - 1) / T::TOKENS, last = tile.begin / T::TOKENS;
    load_q<D>(op, tile, head, shared);
    kv.fetch(n * T::TOKENS, 0);
    copies_wait();
    kv.settle(0);
    __syncthreads();
    uint32_t q = shared_address(shared) + threadIdx.x / 32 * 16 * T::PITCH;
    for (int stage = 0; n >= last; n--, stage ^= 1) {
        if (n > last) kv.fetch((n - 1) * T::TOKENS, stage ^ 1);
        rows.step(op, q, kv, stage, n * T::TOKENS);
        if (n > last) kv.settle(stage ^ 1);
        __syncthreads();
    }
    for (int step = 1; step < 4; step *= 2)
        for (int r = 0; r < 2; r++) rows.sum[r] += __shfl_xor_sync(~0u, rows.sum[r], step);
    prefill_store_row<D, 0>(rows.o, 1 / rows.sum[0],
                            op.out + prefill_row_at(op, tile, head, row, D), row < tile.rows);
    prefill_store_row<D, 2>(rows.o, 1 / rows.sum[1],
                            op.out + prefill_row_at(op, tile, head, row + 8, D),
                            row + 8 < tile.rows);
}

template <int D, bt_dtype POOL>
bt_status launch(const prefill_op *op, uint32_t items, cudaStream_t stream, bt_err *err)
{
    cudaError_t error = cudaFuncSetAttribute(
        prefill_mma<D, POOL>, cudaFuncAttributeMaxDynamicSharedMemorySize, tiling<D>::SHARED_BYTES);
    if (error != cudaSuccess) return bt_cuda_status(error, "attention_prefill", err);
    prefill_mma<D, POOL><<<items, THREADS, tiling<D>::SHARED_BYTES, stream>>>(*op);
    return bt_cuda_launched("attention_prefill", err);
}

template <int D>
bt_status launch_dtype(const prefill_op *op, bt_dtype dtype, uint32_t items, cudaStream_t stream,
                       bt_err *err)
{
    switch (dtype) {
    case BT_DTYPE_BF16: return launch<D, BT_DTYPE_BF16>(op, items, stream, err);
    case BT_DTYPE_FP8_E4M3: return launch<D, BT_DTYPE_FP8_E4M3>(op, items, stream, err);
    case BT_DTYPE_INT8: return launch<D, BT_DTYPE_INT8>(op, items, stream, err);
    default: return BT_FAIL(err, BT_ERR_ARGUMENT, "attention_prefill: no pools of this dtype");
    }
}

bt_status launch_mma(const prefill_op *op, const bt_kv_shape *shape, uint32_t items,
                     cudaStream_t stream, bt_err *err)
{
    switch (shape->head_dim) {
    case 64: return launch_dtype<64>(op, shape->dtype, items, stream, err);
    case 96: return launch_dtype<96>(op, shape->dtype, items, stream, err);
    case 128: return launch_dtype<128>(op, shape->dtype, items, stream, err);
    case 256: return launch_dtype<256>(op, shape->dtype, items, stream, err);
    default:
        return BT_FAIL(err, BT_ERR_ARGUMENT, "attention_prefill: head_dim %u", shape->head_dim);
    }
}

} // namespace

extern "C" bt_status bt_attention_prefill_pool_init(const bt_kv_view *kv, int arch,
                                                    bt_attention_prefill_pool *ret_pool,
                                                    bt_err *err)
{
    bt_attention_prefill_pool pool = {};
    bool hopper = arch == 90 && prefill_sm90_takes(&kv->shape);
    pool.arch = hopper ? 90 : 80;
    pool.dtype = kv->shape.dtype;
    if (hopper && pool.dtype == BT_DTYPE_BF16) {
        bt_status status = prefill_sm90_map(kv, pool.map, err);
        if (status != BT_OK) return status;
    }
    *ret_pool = pool;
    return BT_OK;
}

extern "C" bt_status bt_attention_prefill_cuda(const bt_attention_prefill_cuda_args *op,
                                               cudaStream_t stream, bt_err *err)
{
    const bt_kv_shape *shape = &op->kv.shape;
    assert(op->q_heads % shape->kv_heads == 0 && op->layer < shape->layers);
    assert(shape->block_tokens == 16 || shape->block_tokens == 32 || shape->block_tokens == 64);
    if (op->tiles_most == 0) return BT_OK;
    size_t codes_bytes = bt_kv_codes_bytes(shape);
    prefill_op args = {};
    args.pool = op->kv.base;
    args.q = (const __nv_bfloat16 *)op->q;
    args.out = (__nv_bfloat16 *)op->out;
    args.blocks = op->blocks;
    args.plan = op->plan;
    args.codes_bytes = codes_bytes;
    args.head_bytes = codes_bytes + bt_kv_scales_bytes(shape);
    args.layer = op->layer;
    args.layers = shape->layers;
    args.kv_heads = shape->kv_heads;
    args.group = op->q_heads / shape->kv_heads;
    args.window = op->window;
    args.block_shift = shape->block_tokens == 16 ? 4 : shape->block_tokens == 32 ? 5 : 6;
    args.scale_log2 = (float)(M_LOG2E / sqrt((double)shape->head_dim));
    uint32_t items = op->tiles_most * shape->kv_heads;
    if (op->pool->arch == 90)
        return prefill_sm90(&args, op->pool, shape->head_dim, items, op->processors, stream, err);
    return launch_mma(&args, shape, items, stream, err);
}
