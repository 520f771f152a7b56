/* linear_skinny.cuh - what the kernels of linear_skinny_cuda.h share: fragments, conversions, products. */
#ifndef BT_KERNELS_LINEAR_LINEAR_SKINNY_CUH
#define BT_KERNELS_LINEAR_LINEAR_SKINNY_CUH

extern "C" {
#include "kernels/linear/linear_skinny_cuda.h"
}

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

/* The kernel with the ring, of linear_skinny_sm90.cu. */
bt_status linear_skinny_ring_init(bt_err *err);
void linear_skinny_ring(const bt_linear_skinny_args *op, const bt_linear_skinny_plan *plan,
                        cudaStream_t stream);

namespace skinny
{

/* Programmatic launches; cards before Hopper have none. */
__device__ inline void let_next_kernel_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ inline void wait_for_kernel_before()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* A pair of dtypes. X_WORDS: 16-byte words of x that a lane needs for a block. */
struct bf16_bf16 {
    static constexpr bool GROUPS = false;
    static constexpr int BLOCK_K = 32, STEPS = 2, X_BYTES = 2, X_WORDS = 1;
};
struct fp8_fp8 {
    static constexpr bool GROUPS = false;
    static constexpr int BLOCK_K = 64, STEPS = 4, X_BYTES = 1, X_WORDS = 1;
};
struct fp8_bf16 {
    static constexpr bool GROUPS = false;
    static constexpr int BLOCK_K = 64, STEPS = 4, X_BYTES = 2, X_WORDS = 2;
};
/* The products by wgmma, for which groups of 4 warps work together; Hopper only, in the ring. */
struct fp8_groups {
    static constexpr bool GROUPS = true;
    static constexpr int BLOCK_K = 64, STEPS = 4, X_BYTES = 1, X_WORDS = 1;
};

/* Two e4m3 codes, the low and the high 16 bits of a register, as f16. Exact. */
__device__ inline uint32_t f16_of_codes(uint32_t codes, int high)
{
#if __CUDA_ARCH__ >= 890
    uint32_t halves;
    uint16_t pair = (uint16_t)(high ? codes >> 16 : codes);
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(pair));
    return halves;
#else
    /* The bits of a code in an f16 are its value times 2^-8, subnormal ones too. NaN becomes 480. */
    uint32_t bytes = __byte_perm(codes, 0, high ? 0x3424 : 0x1404);
    uint32_t bits = (bytes & 0x80008000u) | ((bytes >> 1) & 0x3f803f80u);
    __half2 value = __hmul2(*(__half2 *)&bits, __floats2half2_rn(256, 256));
    return *(uint32_t *)&value;
#endif
}

__device__ inline uint32_t bf16_of_codes(uint32_t codes, int high)
{
    uint32_t halves = f16_of_codes(codes, high);
    float2 values = __half22float2(*(__half2 *)&halves);
    __nv_bfloat162 pair = __floats2bfloat162_rn(values.x, values.y);
    return *(uint32_t *)&pair;
}

__device__ inline uint32_t part(uint4 word, int q)
{
    return q == 0 ? word.x : q == 1 ? word.y : q == 2 ? word.z : word.w;
}

/* The weights of one step of 16 k. */
template <typename T> __device__ inline void a_of(const uint4 *w, int step, uint32_t a[4])
{
    if constexpr (T::STEPS == 2) {
        for (int q = 0; q < 4; q++) a[q] = part(w[step], q);
    } else {
        for (int high = 0; high < 2; high++) {
            for (int row = 0; row < 2; row++) {
                uint32_t codes = part(w[step / 2], 2 * (step % 2) + row);
                a[2 * high + row] =
                    T::X_WORDS == 1 ? f16_of_codes(codes, high) : bf16_of_codes(codes, high);
            }
        }
    }
}

/* The eight rows of x of one step. */
template <typename T> __device__ inline void b_of(const uint4 *x, int step, uint32_t b[2])
{
    for (int j = 0; j < 2; j++) {
        if constexpr (T::X_BYTES == 1)
            b[j] = f16_of_codes(part(x[0], step), j);
        else
            b[j] = part(x[(2 * step + j) / 4], (2 * step + j) % 4);
    }
}

template <typename T>
__device__ inline void multiply(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    if constexpr (T::X_BYTES == 1)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Adds the products of one block. acc[p][c] is column tile c of panel p. */
template <typename T, int TOKEN_TILES, int PANELS>
__device__ inline void multiply_block(float (&acc)[PANELS][TOKEN_TILES][4],
                                      const uint4 (&w)[PANELS][2],
                                      const uint4 (&x)[TOKEN_TILES][T::X_WORDS])
{
    uint32_t a[PANELS][T::STEPS][4];
#pragma unroll
    for (int step = 0; step < T::STEPS; step++)
        for (int p = 0; p < PANELS; p++) a_of<T>(w[p], step, a[p][step]);
#pragma unroll
    for (int c = 0; c < TOKEN_TILES; c++) {
#pragma unroll
        for (int step = 0; step < T::STEPS; step++) {
            uint32_t b[2];
            b_of<T>(x[c], step, b);
#pragma unroll
            for (int p = 0; p < PANELS; p++) multiply<T>(acc[p][c], a[p][step], b);
        }
    }
}

/* Sums of a tile go through shared memory: [column of x][row of w], rows padded so that no two lanes
 * of a store share a bank. */
__host__ __device__ constexpr int sum_stride(int rows)
{
    return rows + 4;
}

template <int TOKEN_TILES, int PANELS>
__device__ inline void store_sums(float *sums, int stride, int row, uint32_t m,
                                  const float (&acc)[PANELS][TOKEN_TILES][4])
{
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int p = 0; p < PANELS; p++) {
#pragma unroll
        for (int c = 0; c < TOKEN_TILES; c++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                unsigned column = c * 8 + 2 * t + i % 2;
                if (column < m) sums[column * stride + row + p * 16 + g + i / 2 * 8] = acc[p][c][i];
            }
        }
    }
}

/* ---- sums of products become y ---- */

__device__ inline float x_scale_at(const bt_linear_skinny_args &op, uint32_t i)
{
    return op.x_scale ? op.x_scale[op.per_token ? i : 0] : 1;
}

/* What four columns of y from j on are multiplied with and shifted by. Neither comes from a kernel before. */
struct columns {
    float4 scale, bias;
};

__device__ inline float4 bf16_four(uint2 bits)
{
    float2 low = __bfloat1622float2(*(__nv_bfloat162 *)&bits.x);
    float2 high = __bfloat1622float2(*(__nv_bfloat162 *)&bits.y);
    return make_float4(low.x, low.y, high.x, high.y);
}

__device__ inline columns load_columns(const bt_linear_skinny_args &op, uint32_t j)
{
    columns c = {{1, 1, 1, 1}, {}};
    if (j >= op.n) return c;
    uint32_t last = op.n - 1; /* n may be ragged: then by ones, and beyond it anything */
    if (op.w_scale && op.per_channel) {
        const float *from = op.w_scale;
        if (op.n % 4 == 0)
            c.scale = *(const float4 *)(from + j);
        else
            c.scale = make_float4(from[j], from[min(j + 1, last)], from[min(j + 2, last)],
                                  from[min(j + 3, last)]);
    } else if (op.w_scale) {
        float one = *op.w_scale;
        c.scale = make_float4(one, one, one, one);
    }
    if (op.bias) {
        const uint16_t *from = (const uint16_t *)op.bias;
        uint2 bits;
        if (op.n % 4 == 0)
            bits = *(const uint2 *)(from + j);
        else
            bits = make_uint2(from[j] | (uint32_t)from[min(j + 1, last)] << 16,
                              from[min(j + 2, last)] | (uint32_t)from[min(j + 3, last)] << 16);
        c.bias = bf16_four(bits);
    }
    return c;
}

/* Four sums of row i of y, from column j on. */
__device__ inline void finish_four(const bt_linear_skinny_args &op, uint32_t i, uint32_t j,
                                   float4 sums, float x_scale, const columns &c)
{
    if (j >= op.n) return;
    size_t at = (size_t)i * op.n + j;
    float4 v = {sums.x * x_scale * c.scale.x + c.bias.x, sums.y * x_scale * c.scale.y + c.bias.y,
                sums.z * x_scale * c.scale.z + c.bias.z, sums.w * x_scale * c.scale.w + c.bias.w};
    if (op.n % 4 != 0) {
#pragma unroll 1
        for (int e = 0; e < 4 && j + e < op.n; e++) {
            float one = e == 0 ? v.x : e == 1 ? v.y : e == 2 ? v.z : v.w;
            if (op.residual) one += op.residual[at + e];
            if (op.y_dtype == BT_DTYPE_F32)
                ((float *)op.y)[at + e] = one;
            else
                ((__nv_bfloat16 *)op.y)[at + e] = __float2bfloat16(one);
        }
        return;
    }
    if (op.residual) {
        float4 add = *(const float4 *)(op.residual + at);
        v.x += add.x, v.y += add.y, v.z += add.z, v.w += add.w;
    }
    if (op.y_dtype == BT_DTYPE_F32) {
        *(float4 *)((float *)op.y + at) = v;
    } else {
        __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(v.x, v.y),
                                   __floats2bfloat162_rn(v.z, v.w)};
        *(uint2 *)((__nv_bfloat16 *)op.y + at) = *(uint2 *)pairs;
    }
}

/* All sums of a warp, sixteen rows of y at a time. row: of w, where the warp's panels begin; scratch: of
 * the warp, 16 * sum_stride(PANELS * 16) floats. */
template <int TOKEN_TILES, int PANELS>
__device__ inline void finish_warp(const bt_linear_skinny_args &op, uint32_t row, float *scratch,
                                   const float (&acc)[PANELS][TOKEN_TILES][4])
{
    constexpr int QUADS = PANELS * 4, STRIDE = sum_stride(PANELS * 16);
    uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    static_assert(TOKEN_TILES % 2 == 0, "rows of y in sixteens");
    uint32_t quad = lane % QUADS * 4;
    columns of_lane = load_columns(op, row + quad);
#pragma unroll
    for (int c = 0; c < TOKEN_TILES; c += 2) {
        __syncwarp();
#pragma unroll
        for (int i = 0; i < PANELS * 8; i++)
            scratch[(i / 4 % 2 * 8 + 2 * t + i % 2) * STRIDE + i / 8 * 16 + g + i % 4 / 2 * 8] =
                acc[i / 8][c + i / 4 % 2][i % 4];
        __syncwarp();
#pragma unroll 1
        for (uint32_t at = lane; at < 16 * QUADS; at += 32) {
            uint32_t i = at / QUADS;
            if (c * 8 + i >= op.m) break;
            finish_four(op, c * 8 + i, row + quad, *(const float4 *)(scratch + i * STRIDE + quad),
                        x_scale_at(op, c * 8 + i), of_lane);
        }
    }
}

} // namespace skinny

#endif
