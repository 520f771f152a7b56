/* linear_skinny_cuda.cu - packing, the kernel for any card, and which kernel a product takes.
 *
 * The kernel here has no ring: each lane reads its fragments of w and x straight from global memory with
 * 16-byte loads, several blocks ahead in registers. One thread block for `panels` panels, its 8 warps
 * share the k of them.
 *
 * BYTES   n * k * (2 or 1) of w, and m * k * (2 or 1) of x for each panel, from the L2.
 * FLOPS   2 * m * n * k.
 * FIGURES none yet. */
#include "kernels/linear/linear_skinny.cuh"

#include <assert.h>

namespace
{

using namespace skinny;

template <typename T, int TOKEN_TILES, int PANELS, int WARPS, int DEEP>
__global__ void __launch_bounds__(WARPS * 32) direct(bt_linear_skinny_args op)
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
    VARIANT(1, 1, 8, 4), VARIANT(1, 1, 8, 2), VARIANT(1, 1, 4, 4), VARIANT(1, 1, 4, 8),
    VARIANT(2, 1, 8, 4), VARIANT(2, 1, 8, 2), VARIANT(2, 1, 4, 4), VARIANT(2, 1, 4, 2),
    VARIANT(4, 1, 8, 2), VARIANT(8, 1, 8, 1), VARIANT(8, 1, 4, 1),
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

/* What won on an H100; FIGURES has by how much. */
extern "C" bt_linear_skinny_plan bt_linear_skinny_choose(const bt_linear_skinny_args *op, int arch,
                                                         int sms)
{
    uint32_t panels = (op->n + 15) / 16, slots = 2 * (uint32_t)sms;
    bool hopper = arch >= 90, mixed = op->x_dtype != op->w_dtype;
    bool bf16 = op->w_dtype == BT_DTYPE_BF16, ring = false;
    bt_linear_skinny_plan plan = {};
    plan.panels = 1, plan.warps_n = 1, plan.warps_k = 8, plan.splits = 1;
    plan.grid = slots, plan.shared_bytes = 113 << 10, plan.overlap = hopper;
    /* All thread blocks at once, or so many in turn that the last turn does not count. */
    bool even = panels <= slots || panels > 4 * slots;
    if (op->m <= 8) {
        bool small = bt_linear_skinny_bytes(op->w_dtype, op->n, op->k) < 20 << 20;
        plan.token_tiles = 1;
        plan.depth = mixed ? 2 : 4;
        ring = hopper && !small && (even || mixed);
        plan.stage_blocks = 32;
    } else if (op->m <= 16) {
        plan.token_tiles = 2;
        plan.depth = panels > slots && panels <= 3 * (uint32_t)sms ? 2 : 4;
    } else if (op->m <= 32) {
        plan.token_tiles = 4;
        plan.depth = 2;
    } else {
        plan.token_tiles = 8;
        plan.depth = 1;
        ring = hopper && !bf16 && !mixed && panels > slots;
        if (ring) plan.panels = 2, plan.warps_n = 4, plan.warps_k = 1;
        plan.splits = ring && panels < 4 * slots ? 4 : 1;
        plan.stage_blocks = 2;
    }
    if (!ring) plan.stage_blocks = 0;
    return plan;
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
