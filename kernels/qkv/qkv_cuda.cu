/* qkv_cuda.cu - a head of a row is one group of lanes, 8 values a lane, in one pass.
 *
 * SHAPE   a group of 8, 16 or 32 lanes (head_dim up to 64, 128, 256) has U heads of the same row, so that
 *         the cosines and sines of its lanes serve all of them. A lane holds four values of the first
 *         half of what RoPE turns and their four partners in the second; lanes beyond rope_dims hold 8
 *         values that it leaves alone. The norm of a head and the amax of a KV row are shuffles.
 * BYTES   per row: width * (2 or 4) read, q_heads * head_dim * 2 and 2 kv_heads * (head_dim * code + 0 or
 *         2) written, rope_dims * 4 of the table and 8 to 12 of positions and tables; width = (q_heads +
 *         2 kv_heads) * head_dim.
 * FIGURES H100 SXM, 2026-11-24, gpu-check --only qkv, 32 + 8 heads of 128, qkv bf16, blocks of 16, cold L2,
 *         the card copies 2,843 GB/s: rows 2048 2,561 GB/s into a bf16 pool, 2,439 into fp8; in a graph 1.2
 *         us for 1 row (fp8 1.4), 1.3 (1.4) for 16, 2.2 (2.3) for 64, 3.9 (4.1) for 256.
 * TRIED   U of 2 and 4 for few rows: 0.2 to 0.8 us more; U of 4 for 2048 rows: the same in bf16, a tenth
 *         slower in fp8. Blocks of 256: the same but a tenth slower in fp8 at 2048 rows; of 64: the same.
 *         Letting the next kernel start at the top: 0.3 us more for 256 rows of fp8; after the loads: 0.1
 *         more for 1 row, 0.2 less for 64, 0.4 more for 2048. Without overlapping launches: 0.5 us more
 *         up to 64 rows. */
extern "C" {
#include "kernels/qkv/qkv_cuda.h"
}

#include "kernels/cuda_launch.cuh"

#include <assert.h>

namespace
{

constexpr int THREADS = 128;

/* Where the rows of one layer go, worked out once on the host. */
struct place {
    uint8_t *base; /* K of head 0 of block 0 */
    size_t block_bytes, part_bytes;
    uint32_t head_bytes, codes_bytes, row_bytes, shift, pool_blocks;
    bt_dtype dtype;
    bool scaled;
};

struct eight {
    bt_floats<4> low, high;
};

/* The elements of a head that a lane holds: four from low, four from high. */
struct lane_at {
    unsigned low, high, quad;
    bool active, turns;
};

__device__ __forceinline__ lane_at lane_of(unsigned lane, unsigned head_dim, unsigned dims)
{
    lane_at at;
    at.quad = 4 * lane;
    at.active = lane < head_dim / 8;
    at.turns = lane < dims / 8;
    at.low = at.turns ? 4 * lane : 8 * lane;
    at.high = at.turns ? 4 * lane + dims / 2 : 8 * lane + 4;
    return at;
}

template <typename T> struct raw_eight {
    bt_raw<4, T> low, high;
};

/* Zeros if the head is not there. */
template <typename T>
__device__ __forceinline__ raw_eight<T> load(const T *head, const lane_at &at, bool there)
{
    raw_eight<T> raw = {};
    if (there) raw = {bt_load_raw<4>(head + at.low), bt_load_raw<4>(head + at.high)};
    return raw;
}

template <typename T> __device__ __forceinline__ eight values(const raw_eight<T> &raw)
{
    return {bt_values(raw.low), bt_values(raw.high)};
}

__device__ __forceinline__ void add(eight *x, const eight &y)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x->low.v[i] = __fadd_rn(x->low.v[i], y.low.v[i]);
        x->high.v[i] = __fadd_rn(x->high.v[i], y.high.v[i]);
    }
}

__device__ __forceinline__ void normalize(eight *x, const eight &w, float scale)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x->low.v[i] = x->low.v[i] * scale * w.low.v[i];
        x->high.v[i] = x->high.v[i] * scale * w.high.v[i];
    }
}

/* As bt_rope_apply does it, without contraction. */
__device__ __forceinline__ void turn(eight *x, const eight &table)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float a = x->low.v[i], b = x->high.v[i], c = table.low.v[i], s = table.high.v[i];
        x->low.v[i] = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
        x->high.v[i] = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
    }
}

__device__ __forceinline__ float squares_of(const eight &x)
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) sum += x.low.v[i] * x.low.v[i] + x.high.v[i] * x.high.v[i];
    return sum;
}

__device__ __forceinline__ float amax_of(const eight &x)
{
    float most = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) most = fmaxf(most, fmaxf(fabsf(x.low.v[i]), fabsf(x.high.v[i])));
    return most;
}

/* One head's row at `codes`; amax is of the whole row, for the scaled dtypes. */
__device__ __forceinline__ void append(const place &to, uint8_t *codes, uint32_t row,
                                       const eight &x, const lane_at &at, float amax)
{
    uint16_t *scale = (uint16_t *)(codes + to.codes_bytes) + row;
    codes += row * to.row_bytes;
    switch (to.dtype) {
    case BT_DTYPE_F32:
        bt_store<4>((float *)codes + at.low, x.low);
        bt_store<4>((float *)codes + at.high, x.high);
        return;
    case BT_DTYPE_BF16:
        bt_store<4>((__nv_bfloat16 *)codes + at.low, x.low);
        bt_store<4>((__nv_bfloat16 *)codes + at.high, x.high);
        return;
    default: break;
    }
    bool fp8 = to.dtype == BT_DTYPE_FP8_E4M3;
    uint16_t row_scale = bt_row_scale(amax, fp8 ? 448.0f : 127.0f);
    bt_divider by = bt_divider_of(row_scale);
    *(uint32_t *)(codes + at.low) =
        fp8 ? bt_row_codes_e4m3(x.low.v, by) : bt_row_codes_int8(x.low.v, by);
    *(uint32_t *)(codes + at.high) =
        fp8 ? bt_row_codes_e4m3(x.high.v, by) : bt_row_codes_int8(x.high.v, by);
    if (at.quad == 0) *scale = row_scale;
}

/* K of head 0 in the row's block, or NULL if the row is not to be appended. */
__device__ __forceinline__ uint8_t *block_of(const bt_qkv_cuda_args &op, const place &to,
                                             uint32_t row, uint32_t position)
{
    uint32_t index = position >> to.shift;
    if (position == BT_POSITION_NONE || index >= op.blocks_max) return NULL;
    uint32_t sequence = op.sequences ? op.sequences[row] : row;
    uint32_t block = op.blocks[(size_t)sequence * op.blocks_max + index];
    return block < to.pool_blocks ? to.base + block * to.block_bytes : NULL;
}

template <typename T, int LANES, int U>
__global__ void __launch_bounds__(THREADS)
    qkv(const __grid_constant__ bt_qkv_cuda_args op, const __grid_constant__ place to)
{
    constexpr unsigned GROUPS = THREADS / LANES;
    unsigned row = blockIdx.x, first = blockIdx.y * U * GROUPS + threadIdx.x / LANES;
    unsigned kv_heads = op.kv.shape.kv_heads, head_dim = op.kv.shape.head_dim;
    unsigned heads = op.q_heads + 2 * kv_heads, dims = op.table ? op.rope_dims : 0;
    lane_at at = lane_of(threadIdx.x % LANES, head_dim, dims);
    raw_eight<T> raw[U];
    raw_eight<__nv_bfloat16> raw_bias[U];
    eight table = {};
#pragma unroll
    for (int u = 0; u < U; u++) {
        unsigned head = first + u * GROUPS;
        raw_bias[u] = load((const __nv_bfloat16 *)op.bias + (size_t)head * head_dim, at,
                           at.active && head < heads && op.bias != NULL);
    }
    bt_wait_previous();
    uint32_t position = op.positions[row];
#pragma unroll
    for (int u = 0; u < U; u++) {
        unsigned head = first + u * GROUPS;
        raw[u] = load((const T *)op.qkv + ((size_t)row * heads + head) * head_dim, at,
                      at.active && head < heads);
    }
    if (at.turns) {
        const float *cosines = op.table + (size_t)row * dims + at.quad;
        table.low = bt_load<4>(cosines);
        table.high = bt_load<4>(cosines + dims / 2);
    }
    uint8_t *block = block_of(op, to, row, position);
#pragma unroll
    for (int u = 0; u < U; u++) {
        unsigned head = first + u * GROUPS;
        bool there = at.active && head < heads, is_v = head >= op.q_heads + kv_heads;
        eight x = values(raw[u]);
        if (op.bias) add(&x, values(raw_bias[u]));
        if (op.q_norm || op.k_norm) {
            const void *w = is_v ? NULL : head < op.q_heads ? op.q_norm : op.k_norm;
            float mean = __fdividef(bt_lanes_sum(squares_of(x), LANES), head_dim);
            if (w)
                normalize(&x, values(load((const __nv_bfloat16 *)w, at, at.active)),
                          rsqrtf(mean + op.eps));
        }
        if (at.turns && !is_v) turn(&x, table);
        float amax = to.scaled ? bt_lanes_max(amax_of(x), LANES) : 0;
        if (u == U - 1) bt_start_next();
        if (!there) continue;
        if (head < op.q_heads) {
            __nv_bfloat16 *q = (__nv_bfloat16 *)op.q + ((size_t)row * op.q_heads + head) * head_dim;
            bt_store<4>(q + at.low, x.low);
            bt_store<4>(q + at.high, x.high);
        } else if (block) {
            uint8_t *codes = block + (is_v ? to.part_bytes : 0) +
                             (head - op.q_heads - (is_v ? kv_heads : 0)) * to.head_bytes;
            append(to, codes, position & ((1u << to.shift) - 1), x, at, amax);
        }
    }
}

place place_of(const bt_kv_view *kv, uint32_t layer)
{
    const bt_kv_shape *shape = &kv->shape;
    place to = {};
    to.base = bt_kv_at(kv, 0, layer, BT_KV_K, 0);
    to.block_bytes = bt_kv_block_bytes(shape);
    to.codes_bytes = (uint32_t)bt_kv_codes_bytes(shape);
    to.head_bytes = (uint32_t)(to.codes_bytes + bt_kv_scales_bytes(shape));
    to.part_bytes = (size_t)to.head_bytes * shape->kv_heads;
    to.row_bytes = (uint32_t)(shape->head_dim * bt_dtype_bytes(shape->dtype));
    to.shift = (uint32_t)__builtin_ctz(shape->block_tokens);
    to.pool_blocks = shape->pool_blocks;
    to.dtype = shape->dtype;
    to.scaled = bt_dtype_scaled(shape->dtype);
    return to;
}

template <typename T, int LANES, int U>
void launch_heads(const bt_qkv_cuda_args *op, cudaStream_t stream)
{
    unsigned heads = op->q_heads + 2 * op->kv.shape.kv_heads, per_block = THREADS / LANES * U;
    dim3 grid(op->rows, (heads + per_block - 1) / per_block);
    bt_launch(qkv<T, LANES, U>, grid, THREADS, 1, stream, *op, place_of(&op->kv, op->layer));
}

template <typename T> void launch(const bt_qkv_cuda_args *op, cudaStream_t stream)
{
    bool many = op->rows >= 256;
    uint32_t head_dim = op->kv.shape.head_dim;
    if (head_dim <= 64)
        many ? launch_heads<T, 8, 2>(op, stream) : launch_heads<T, 8, 1>(op, stream);
    else if (head_dim <= 128)
        many ? launch_heads<T, 16, 2>(op, stream) : launch_heads<T, 16, 1>(op, stream);
    else
        many ? launch_heads<T, 32, 2>(op, stream) : launch_heads<T, 32, 1>(op, stream);
}

} // namespace

extern "C" bt_status bt_qkv_cuda(const bt_qkv_cuda_args *op, cudaStream_t stream, bt_err *err)
{
    const bt_kv_shape *shape = &op->kv.shape;
    assert(shape->head_dim > 0 && shape->head_dim % 8 == 0 && shape->head_dim <= 256);
    assert((shape->block_tokens & (shape->block_tokens - 1)) == 0 && shape->block_tokens > 0);
    assert(!op->table || (op->rope_dims % 8 == 0 && op->rope_dims <= shape->head_dim));
    assert(shape->dtype == BT_DTYPE_F32 || shape->dtype == BT_DTYPE_BF16 ||
           bt_dtype_scaled(shape->dtype));
    assert(op->qkv_dtype == BT_DTYPE_F32 || op->qkv_dtype == BT_DTYPE_BF16);
    if (op->rows == 0) return BT_OK;
    if (op->qkv_dtype == BT_DTYPE_F32)
        launch<float>(op, stream);
    else
        launch<__nv_bfloat16>(op, stream);
    return bt_cuda_launched("qkv", err);
}
