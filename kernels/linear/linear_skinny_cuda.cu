/* linear_skinny_cuda.cu - packing, the kernel without a ring, and which plans a product may take.
 *
 * LAUNCH  A thread block for each 16 rows of w; its warps share their k. Each lane reads its fragments of
 *         w and x straight from global memory with 16-byte loads, `depth` blocks of k ahead in registers.
 *         For any card; on Hopper the rival of linear_skinny_sm90.cu, and better from m = 9 to 16.
 * BYTES   n * k * (2 or 1) of w from memory; m * k * (2 or 1) of x for each 16 rows of w, from the L2.
 * FLOPS   2 * m * n * k.
 * FIGURES H100 SXM, 2026-11-24, reading 3.14 TB/s, cold L2, overlapped, best plan (gpu-check --only
 *         linear_skinny --bench), us and share of reading, for n x k
 *                        6144x4096    4096x4096    28672x4096   4096x14336   128256x4096
 *         bf16 m 1       16.4  98 %   10.9  98 %   74.6 100 %   38.1  98 %   332 101 %
 *         bf16 m 16      17.9  90 %   12.1  88 %   76.0  98 %   39.4  95 %   332 101 %
 *         fp8 m 1         9.6  83 %    7.0  76 %   38.7  97 %   19.6  96 %   166 101 %
 *         fp8 x bf16 m 1  9.4  86 %    7.4  72 %   39.1  96 %   19.6  95 %   166 101 %
 *         fp8 m 16       10.3  78 %    7.7  69 %   41.8  89 %   21.3  88 %   173  97 %
 *         fp8 m 64       16.0  50 %   10.3  52 %   48.1  78 %   32.2  58 %   201  83 %
 *         m 1 by the ring but for 6144x4096, the head and fp8 of 4096x4096; m 64 by the ring with wgmma but for
 *         n = 4096. 16 MB of fp8 take 5.3 us to read: there the chain of wait, x, sums and end of a kernel
 *         is what is left. m = 64 without a ring is bound by x: 4 bytes from the L2 for each of w.
 * TRIED   Without the overlap: 10 to 30 % more time for 33 MB and less, 1 to 3 % for the head. 4 warps in a
 *         thread block instead of 8: 5 to 70 % more. 8 blocks of k ahead: more registers, fewer thread
 *         blocks at once, 5 to 35 % more. Addresses clamped instead of loads left out: 10 % more at m = 16. */
#include "kernels/linear/linear_skinny.cuh"

#include <assert.h>

namespace
{

using namespace skinny;

template <typename T, int TOKEN_TILES, int PANELS, int WARPS, int DEEP>
__global__ void __launch_bounds__(WARPS * 32, WARPS == 16 ? 2 : 1) direct(bt_linear_skinny_args op)
{
    constexpr int ROWS = PANELS * 16, STRIDE = sum_stride(ROWS);
    __shared__ __align__(16) float sums[WARPS * TOKEN_TILES * 8 * STRIDE];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    uint32_t blocks = op.k / T::BLOCK_K, panel = blockIdx.x * PANELS;
    uint32_t last = (op.n + 15) / 16 - 1;
    const uint4 *w[PANELS], *x[TOKEN_TILES];
    for (int p = 0; p < PANELS; p++)
        w[p] = (const uint4 *)op.w + (size_t)min(panel + p, last) * blocks * 64 + lane;
    for (int c = 0; c < TOKEN_TILES; c++)
        x[c] = (const uint4 *)((const uint8_t *)op.x +
                               (size_t)min(c * 8u + g, op.m - 1) * op.k * T::X_BYTES) +
               t * T::X_WORDS;
    float acc[PANELS][TOKEN_TILES][4] = {};
    columns mine = load_columns(op, panel * 16 + threadIdx.x % (ROWS / 4) * 4);
    let_next_kernel_start();
    uint4 ws[DEEP][PANELS][2], xs[DEEP][TOKEN_TILES][T::X_WORDS];
    auto load_w = [&](uint32_t b) {
#pragma unroll
        for (int d = 0; d < DEEP; d++) {
            if (b + d * WARPS >= blocks) break;
#pragma unroll
            for (int p = 0; p < PANELS; p++)
                for (int h = 0; h < 2; h++)
                    ws[d][p][h] = __ldcs(w[p] + (b + d * WARPS) * 64 + h * 32);
        }
    };
    load_w(warp);
    wait_for_kernel_before();
    for (uint32_t b = warp; b < blocks;) {
#pragma unroll
        for (int d = 0; d < DEEP; d++) {
            if (b + d * WARPS >= blocks) break;
#pragma unroll
            for (int c = 0; c < TOKEN_TILES; c++)
                for (int i = 0; i < T::X_WORDS; i++)
                    xs[d][c][i] = x[c][(b + d * WARPS) * 4 * T::X_WORDS + i];
        }
#pragma unroll
        for (int d = 0; d < DEEP; d++) {
            if (b + d * WARPS >= blocks) break;
            multiply_block<T, TOKEN_TILES, PANELS>(acc, ws[d], xs[d]);
        }
        b += WARPS * DEEP;
        load_w(b);
    }
    constexpr int ALL = TOKEN_TILES * 8 * STRIDE;
    store_sums<TOKEN_TILES, PANELS>(sums + warp * ALL, STRIDE, 0, op.m, acc);
    __syncthreads();
    for (uint32_t at = threadIdx.x; at < op.m * ROWS / 4; at += WARPS * 32) {
        uint32_t i = at / (ROWS / 4), row = at % (ROWS / 4) * 4;
        float x_scale = x_scale_at(op, i);
        float4 sum = {};
        for (int k = 0; k < WARPS; k++) {
            float4 v = *(const float4 *)(sums + k * ALL + i * STRIDE + row);
            sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
        }
        finish_four(op, i, panel * 16 + row, sum, x_scale, mine);
    }
}

/* One thread for a register, 4 bytes of a row. */
__global__ void pack(uint8_t *packed, const uint8_t *tensor, uint32_t bytes, uint32_t row,
                     uint32_t rows, uint32_t k)
{
    uint32_t blocks = k * bytes / 64;
    /* A block has 16 registers of a row: 4 lanes t of 2 halves h of 2 registers. */
    size_t count = (size_t)rows * blocks * 16;
    for (size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x; at < count;
         at += (size_t)gridDim.x * blockDim.x) {
        uint32_t j = (uint32_t)(at / (blocks * 16)), word = (uint32_t)(at % (blocks * 16));
        uint32_t value = *(const uint32_t *)(tensor + at * 4);
        uint32_t block = word / 16, t = word % 16 / 4, h = word % 4 / 2, high = word % 2;
        uint32_t to = row + j, g = to % 8, q = high * 2 + to % 16 / 8;
        size_t where =
            ((size_t)(to / 16) * blocks + block) * 1024 + h * 512 + (4 * g + t) * 16 + q * 4;
        *(uint32_t *)(packed + where) = value;
    }
}

using kernel = void (*)(bt_linear_skinny_args);

struct variant {
    uint16_t token_tiles, panels, warps_k, depth;
    kernel of[3]; /* bf16 bf16, fp8 fp8, fp8 bf16 */
};

#define VARIANT(c, p, k, d)                                                                        \
    {                                                                                              \
        c, p, k, d,                                                                                \
        {                                                                                          \
            direct<bf16_bf16, c, p, k, d>, direct<fp8_fp8, c, p, k, d>,                            \
                direct<fp8_bf16, c, p, k, d>                                                       \
        }                                                                                          \
    }

const variant variants[] = {
    VARIANT(1, 1, 8, 4), VARIANT(1, 1, 8, 2),  VARIANT(1, 1, 16, 4), VARIANT(2, 1, 8, 4),
    VARIANT(2, 1, 8, 2), VARIANT(2, 1, 16, 2), VARIANT(4, 1, 8, 2),  VARIANT(8, 1, 8, 1),
};

void launch_direct(const bt_linear_skinny_args *op, const bt_linear_skinny_plan *plan,
                   cudaStream_t stream)
{
    int pair = op->w_dtype == BT_DTYPE_BF16 ? 0 : op->x_dtype == BT_DTYPE_BF16 ? 2 : 1;
    kernel k = nullptr;
    for (const variant &v : variants)
        if (v.token_tiles == plan->token_tiles && v.panels == plan->panels &&
            v.warps_k == plan->warps_k && v.depth == plan->depth)
            k = v.of[pair];
    assert(k && op->m <= plan->token_tiles * 8u);
    uint32_t rows = plan->panels * 16;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = plan->overlap;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((op->n + rows - 1) / rows);
    config.blockDim = dim3(plan->warps_k * 32);
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = plan->overlap;
    (void)cudaLaunchKernelEx(&config, k, *op);
}

} // namespace

extern "C" bt_status bt_linear_skinny_pack(void *packed, const void *tensor, bt_dtype w_dtype,
                                           uint32_t row, uint32_t rows, uint32_t k,
                                           cudaStream_t stream, bt_err *err)
{
    assert(k % 64 == 0 && (w_dtype == BT_DTYPE_BF16 || w_dtype == BT_DTYPE_FP8_E4M3));
    if (rows == 0) return BT_OK;
    pack<<<2048, 256, 0, stream>>>((uint8_t *)packed, (const uint8_t *)tensor,
                                   (uint32_t)bt_dtype_bytes(w_dtype), row, rows, k);
    return bt_cuda_launched("linear_skinny pack", err);
}

extern "C" bt_status bt_linear_skinny_init(bt_err *err)
{
    return linear_skinny_ring_init(err);
}

namespace
{

bt_linear_skinny_plan direct_plan(int arch, unsigned token_tiles, unsigned warps, unsigned depth)
{
    bt_linear_skinny_plan plan = {};
    plan.token_tiles = (uint16_t)token_tiles, plan.panels = 1, plan.splits = 1;
    plan.warps_n = 1, plan.warps_k = (uint16_t)warps, plan.depth = (uint16_t)depth;
    plan.overlap = arch >= 90;
    return plan;
}

bt_linear_skinny_plan ring_plan(int sms, unsigned stage_blocks)
{
    bt_linear_skinny_plan plan = {};
    plan.token_tiles = 1, plan.panels = 1, plan.warps_n = 1, plan.warps_k = 8, plan.splits = 1;
    plan.stage_blocks = (uint16_t)stage_blocks, plan.overlap = true;
    plan.grid = 2 * (uint32_t)sms, plan.shared_bytes = 113 << 10;
    return plan;
}

/* As many splits as leave every thread block of n / rows tiles resident at once. */
void split(bt_linear_skinny_plan *plan, uint32_t n, unsigned most)
{
    uint32_t rows = plan->panels * plan->warps_n * 16u, tiles = (n + rows - 1) / rows;
    while (plan->splits < most && tiles * plan->splits * 2 <= plan->grid) plan->splits *= 2;
}

/* By wgmma, for fp8 and fp8. warps: 4 or 8, as many 16 rows of w in a tile. */
bt_linear_skinny_plan groups_plan(const bt_linear_skinny_args *op, int sms, unsigned warps,
                                  bool alone)
{
    bt_linear_skinny_plan plan = ring_plan(sms, 2);
    plan.token_tiles = 8, plan.warps_n = (uint16_t)warps, plan.warps_k = 1, plan.groups = true;
    if (alone) plan.grid = (uint32_t)sms; /* leaves room for the next kernel's thread blocks */
    if (warps == 8) plan.shared_bytes = 220 << 10;
    split(&plan, op->n, 4);
    return plan;
}

/* fp8 and fp8, m above 16, with the ring. */
unsigned plans_of_many(const bt_linear_skinny_args *op, int arch, int sms,
                       bt_linear_skinny_plan *ret)
{
    bt_linear_skinny_plan *end = ret, plan = ring_plan(sms, 2);
    plan.token_tiles = 8, plan.panels = 2, plan.warps_n = 4, plan.warps_k = 1;
    split(&plan, op->n, 4);
    if (arch == 90) {
        bool wide = op->n > 128u * (uint32_t)sms;
        *end++ = groups_plan(op, sms, wide ? 8 : 4, wide);
        *end++ = groups_plan(op, sms, wide ? 4 : 8, !wide);
    }
    *end++ = plan;
    return (unsigned)(end - ret);
}

} // namespace

extern "C" unsigned bt_linear_skinny_plans(const bt_linear_skinny_args *op, int arch, int sms,
                                           bt_linear_skinny_plan *ret_plans)
{
    uint32_t panels = (op->n + 15) / 16, slots = 2 * (uint32_t)sms;
    bool mixed = op->x_dtype != op->w_dtype, fp8 = op->w_dtype == BT_DTYPE_FP8_E4M3 && !mixed;
    bt_linear_skinny_plan *end = ret_plans;
    if (op->m <= 8) {
        /* All thread blocks of the ring at once, or so many in turn that the last does not count. */
        bool even = panels <= slots || panels > 4 * slots;
        bool small = bt_linear_skinny_bytes(op->w_dtype, op->n, op->k) < 20 << 20;
        bool ring = arch >= 90 && op->k >= 512, first = ring && !small && (even || mixed);
        unsigned deep = mixed && op->m > 4 ? 16 : 32; /* blocks of a stage, two of which must fit */
        if (first) *end++ = ring_plan(sms, deep);
        *end++ = direct_plan(arch, 1, 8, mixed ? 2 : 4);
        *end++ = direct_plan(arch, 1, 8, mixed ? 4 : 2);
        *end++ = direct_plan(arch, 1, 16, 4);
        if (ring && !first) *end++ = ring_plan(sms, deep);
        if (ring) *end++ = ring_plan(sms, deep / 2);
    } else if (op->m <= 16) {
        bool shallow = panels > slots && panels <= 3 * (uint32_t)sms;
        if (panels <= slots) *end++ = direct_plan(arch, 2, 16, 2);
        *end++ = direct_plan(arch, 2, 8, shallow ? 2 : 4);
        *end++ = direct_plan(arch, 2, 8, shallow ? 4 : 2);
        if (panels > slots) *end++ = direct_plan(arch, 2, 16, 2);
        if (fp8 && arch == 90 && op->k >= 512) *end++ = groups_plan(op, sms, 4, false);
    } else {
        bool ring_first = panels > slots;
        bt_linear_skinny_plan few = direct_plan(arch, op->m <= 32 ? 4 : 8, 8, op->m <= 32 ? 2 : 1);
        if (!ring_first || !fp8 || arch < 90) *end++ = few;
        if (fp8 && arch >= 90 && op->k >= 512) end += plans_of_many(op, arch, sms, end);
        if (ring_first && fp8 && arch >= 90) *end++ = few;
    }
    assert(end - ret_plans <= BT_SKINNY_PLANS);
    return (unsigned)(end - ret_plans);
}

extern "C" bt_status bt_linear_skinny_cuda(const bt_linear_skinny_args *op,
                                           const bt_linear_skinny_plan *plan, cudaStream_t stream,
                                           bt_err *err)
{
    assert(op->m <= BT_SKINNY_MAX && op->k % 64 == 0 && op->k > 0);
    assert(op->y_dtype == BT_DTYPE_BF16 || op->y_dtype == BT_DTYPE_F32);
    assert(op->x_dtype == op->w_dtype || op->x_dtype == BT_DTYPE_BF16);
    if (op->m == 0 || op->n == 0) return BT_OK;
    if (plan->stage_blocks > 0)
        linear_skinny_ring(op, plan, stream);
    else
        launch_direct(op, plan, stream);
    return bt_cuda_launched("linear_skinny", err);
}
