/* linear_w4_mma.cu - any rows of x by mma.sync: the path of cards before Hopper, and of shapes that Hopper's own
 * kernels do not take.
 *
 * SHAPE   A block computes 16 or 32 rows of w (A of mma m16n8k16, made in registers) times 8 or 16 tokens (B), all of k.
 *         Its 8 warps take turns at the groups of 128 k and add up through shared memory at the end. Weights go from
 *         memory to registers, DEPTH groups ahead; x through shared memory that is the warp's own, so that warps
 *         meet only at the end.
 * VALUES  Exact up to f32 sums: a group has its own, which are scaled.
 * BYTES   n * k / 2 * (1 + 1 / 16) of weights and m * k * 2 of x, the former for each 16 tokens, the latter for each
 *         tile of rows; m * n * 2 of y. FLOPS 2 * m * n * k.
 * FIGURES none on the card it is for. On an H100 SXM (reading 3106 GB/s, 2026-11-24), x and weights cold:
 *         m 1, n 28672, k 4096 2348 GB/s (76 %); m 16 2216 GB/s (71 %); m 1, n 6144 1998 GB/s (64 %).
 * TRIED   Work cut in equal numbers of groups for each multiprocessor, whatever tiles that cuts, with parts
 *         that the last block of a tile adds: slower but for n 4096, k 14336. 64 rows a warp: spills or too few warps. */
#include "kernels/linear/linear_w4.cuh"

extern "C" {
#include "kernels/linear/linear_w4_kernels.h"
}

namespace
{

using namespace bt_w4_device;

constexpr int WARPS = 8, THREADS = WARPS * 32;
constexpr uint32_t X_ROW = BT_W4_GROUP * 2; /* bytes of one token's group */

struct product {
    const uint8_t *w, *x;
    __nv_bfloat16 *y;
    uint32_t m, n, k, groups;
    float factor; /* of the sums */
};

/* Blocks of one group: TILES times 16 rows. */
template <class F, int TILES> struct group_weights {
    uint4 code[TILES][2];
    typename F::scales scale[TILES];
};

template <class F, int TILES>
__device__ void load_weights(const product &op, group_weights<F, TILES> &w, uint32_t group)
{
    unsigned lane = threadIdx.x % 32;
    if (group >= op.groups) return;
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        const uint8_t *block =
            op.w + ((size_t)(blockIdx.x * TILES + t) * op.groups + group) * F::BLOCK_BYTES;
        w.code[t][0] = load_once(block + lane * 16);
        w.code[t][1] = load_once(block + BT_W4_BLOCK_CODES / 2 + lane * 16);
        w.scale[t] = F::load(block + BT_W4_BLOCK_CODES, lane);
    }
}

/* One group of x of every token to shared memory, 16-byte pieces swizzled by the token. */
__device__ void copy_x(const product &op, uint32_t to, uint32_t group)
{
    unsigned lane = threadIdx.x % 32, piece = lane % 16;
    if (group < op.groups)
        for (uint32_t token = lane / 16; token < op.m; token += 2)
            copy_16(to + token * X_ROW + (piece ^ (token & 7)) * 16,
                    op.x + ((size_t)token * op.k + group * BT_W4_GROUP) * 2 + piece * 16);
    copies_end_group();
}

template <int TILES, int EIGHTS> struct sums {
    float v[TILES][EIGHTS][4];
};

/* part += the group, unscaled if the format has group sums. x at x_rows of each eight tokens. */
template <class F, int TILES, int EIGHTS>
__device__ void multiply_group(sums<TILES, EIGHTS> &part, const group_weights<F, TILES> &w,
                               const uint32_t (&x_rows)[EIGHTS],
                               const unsigned (&x_swizzle)[EIGHTS])
{
    unsigned matrix = threadIdx.x % 32 / 8;
#pragma unroll
    for (int quarter = 0; quarter < 4; quarter++) { /* 32 k */
        uint32_t b[EIGHTS][4];
#pragma unroll
        for (int e = 0; e < EIGHTS; e++)
            load_matrices(b[e], x_rows[e] + ((quarter * 4 + matrix) ^ x_swizzle[e]) * 16);
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            const uint4 &code = w.code[t][quarter / 2];
#pragma unroll
            for (int step = 0; step < 2; step++) {
                uint32_t a[4];
                F::widen(a, quarter % 2 ? (step ? code.w : code.z) : (step ? code.y : code.x),
                         w.scale[t], quarter * 2 + step);
#pragma unroll
                for (int e = 0; e < EIGHTS; e++)
                    mma(part.v[t][e], a, b[e][2 * step], b[e][2 * step + 1]);
            }
        }
    }
}

template <class F, int TILES, int EIGHTS>
__device__ void multiply(sums<TILES, EIGHTS> &sum, const group_weights<F, TILES> &w,
                         const uint32_t (&x_rows)[EIGHTS], const unsigned (&x_swizzle)[EIGHTS])
{
    if constexpr (!F::GROUP_SUMS) {
        multiply_group<F, TILES, EIGHTS>(sum, w, x_rows, x_swizzle);
    } else {
        sums<TILES, EIGHTS> part = {};
        multiply_group<F, TILES, EIGHTS>(part, w, x_rows, x_swizzle);
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            float2 scale = F::group_scale(w.scale[t]);
#pragma unroll
            for (int e = 0; e < EIGHTS; e++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sum.v[t][e][i] += (i / 2 ? scale.y : scale.x) * part.v[t][e][i];
        }
    }
}

/* Shared memory of the sums: [WARPS][tokens][rows + 4]. */
template <int TILES> constexpr uint32_t SUM_STRIDE = TILES * 16 + 4;

template <int TILES, int EIGHTS>
__device__ void leave_sums(float *to, const sums<TILES, EIGHTS> &sum)
{
    unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int e = 0; e < EIGHTS; e++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                to[(e * 8 + lane % 4 * 2 + i % 2) * SUM_STRIDE<TILES> + t * 16 + lane / 4 +
                   i / 2 * 8] = sum.v[t][e][i];
}

/* All warps' sums, added in order of warps, to y: two rows of w and one token at a time. */
template <int TILES, int EIGHTS> __device__ void store_y(const product &op, const float *shared)
{
    constexpr int TOKENS = EIGHTS * 8, ROWS = TILES * 16;
    for (uint32_t at = threadIdx.x * 2; at < ROWS * TOKENS; at += THREADS * 2) {
        uint32_t token = at / ROWS, row = at % ROWS, column = blockIdx.x * ROWS + row;
        if (token >= op.m || column >= op.n) continue;
        float2 total = make_float2(0, 0);
        for (int warp = 0; warp < WARPS; warp++) {
            float2 part =
                *(const float2 *)(shared + (warp * TOKENS + token) * SUM_STRIDE<TILES> + row);
            total.x += part.x, total.y += part.y;
        }
        *(__nv_bfloat162 *)(op.y + (size_t)token * op.n + column) =
            __floats2bfloat162_rn(total.x * op.factor, total.y * op.factor);
    }
}

/* DEPTH: groups of a warp that are on their way, of weights in registers and of x in shared memory. */
template <class F, int TILES, int EIGHTS, int DEPTH, int BLOCKS>
__global__ void __launch_bounds__(THREADS, BLOCKS) multiply_mma(product op)
{
    constexpr int TOKENS = EIGHTS * 8;
    constexpr uint32_t STAGE = TOKENS * X_ROW;
    extern __shared__ __align__(128) uint8_t memory[];
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t x_ring = shared_address(memory) + warp * (DEPTH * STAGE);
    float *shared = (float *)(memory + WARPS * DEPTH * STAGE);
    uint32_t token = blockIdx.y * TOKENS;
    op.x += (size_t)token * op.k * 2, op.y += (size_t)token * op.n;
    op.m = min(op.m - token, TOKENS);

    let_next_begin();
    wait_for_kernel_ahead();
    group_weights<F, TILES> w[DEPTH];
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
        load_weights<F, TILES>(op, w[d], d * WARPS + warp);
        copy_x(op, x_ring + d * STAGE, d * WARPS + warp);
    }
    uint32_t x_rows[EIGHTS];
    unsigned x_swizzle[EIGHTS];
#pragma unroll
    for (int e = 0; e < EIGHTS; e++) { /* tokens beyond m: columns that are not stored */
        uint32_t row = min(e * 8 + lane % 8, op.m - 1);
        x_rows[e] = x_ring + row * X_ROW, x_swizzle[e] = row & 7;
    }
    sums<TILES, EIGHTS> sum = {};
    for (uint32_t first = warp; first < op.groups; first += DEPTH * WARPS) {
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            uint32_t group = first + d * WARPS, ahead = group + DEPTH * WARPS;
            copies_wait<DEPTH - 1>();
            __syncwarp();
            if (group < op.groups) {
                uint32_t rows[EIGHTS];
#pragma unroll
                for (int e = 0; e < EIGHTS; e++) rows[e] = x_rows[e] + d * STAGE;
                multiply<F, TILES, EIGHTS>(sum, w[d], rows, x_swizzle);
            }
            __syncwarp();
            load_weights<F, TILES>(op, w[d], ahead);
            copy_x(op, x_ring + d * STAGE, ahead);
        }
    }
    leave_sums<TILES, EIGHTS>(shared + warp * TOKENS * SUM_STRIDE<TILES>, sum);
    __syncthreads();
    store_y<TILES, EIGHTS>(op, shared);
}

template <class F, int TILES, int EIGHTS, int DEPTH, int BLOCKS>
cudaError_t launch(const product &op, bool overlap, cudaStream_t stream)
{
    auto kernel = multiply_mma<F, TILES, EIGHTS, DEPTH, BLOCKS>;
    constexpr int BYTES =
        WARPS * DEPTH * EIGHTS * 8 * (int)X_ROW + WARPS * EIGHTS * 8 * (int)SUM_STRIDE<TILES> * 4;
    static cudaError_t ready =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (ready != cudaSuccess) return ready;
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(bt_w4_rows(op.n) / (TILES * 16), (op.m + EIGHTS * 8 - 1) / (EIGHTS * 8));
    config.blockDim = dim3(THREADS), config.dynamicSmemBytes = BYTES, config.stream = stream;
    config.attrs = &early, config.numAttrs = overlap; /* only code of sm_90 and later waits */
    return cudaLaunchKernelEx(&config, kernel, op);
}

template <class F> cudaError_t launch_format(const product &op, bool overlap, cudaStream_t stream)
{
    if (op.m > 8) return launch<F, 2, 2, 2, 2>(op, overlap, stream);
    return launch<F, 1, 1, 2, 4>(op, overlap, stream);
}

} // namespace

extern "C" bt_status bt_w4_mma_cuda(const bt_linear_w4_args *args, cudaStream_t stream, bt_err *err)
{
    product op = {(const uint8_t *)args->w,
                  (const uint8_t *)args->x,
                  (__nv_bfloat16 *)args->y,
                  args->m,
                  args->n,
                  args->k,
                  args->k / BT_W4_GROUP,
                  factor_of(args)};
    bool overlap = args->arch >= 90;
    cudaError_t error = args->format == BT_W4_NVFP4
                            ? launch_format<format_nvfp4>(op, overlap, stream)
                            : launch_format<format_w4>(op, overlap, stream);
    return bt_cuda_status(error, "linear_w4", err);
}
