/* linear_lt.h - products of many rows with a weight matrix, by cuBLASLt with algorithms measured on
 * this card.
 *
 *     y[i][j] = (sum over l of x[i][l] * w[j][l]) [* scales] [+ bias[j]] [+ y[i][j]]
 *
 *   w  [n][k]  row-major as checkpoints have it: cuBLAS's A, transposed; its n is cuBLAS's m
 *   x  [m][k]  row-major: cuBLAS's B
 *   y  [m][n]  row-major, bf16 or f32
 *
 * FLOW    bt_lt_create; [bt_lt_load: what an earlier start measured]; bt_lt_prepare for each shape,
 *         which measures what the table does not hold; [bt_lt_save]; then bt_linear_lt in every step.
 * TUNING  For each bucket of m (linear_lt_cache.h) what cuBLASLt proposes for it and for products like it runs
 *         on random inputs that do not fit in the L2 together; those near the best run again, in turns,
 *         under sustained load. A quarter of a second for a bucket, so that a file is worth having. Needs
 *         device memory for the time of the call, a few times the product's operands.
 * SCALES  Kind        w, x    scale of w                scale of x
 *         BF16        bf16    -                         -
 *         FP8_TENSOR  e4m3    one f32                   one f32
 *         FP8_OUTER   e4m3    [n] f32                   [m] f32           compute capability 9.0 only
 *         NVFP4       e2m1    e4m3 for 16 of k, tiled   the same          10.0 and above
 *         all in device memory, multiplied. NVFP4 has two codes to a byte, the even l in the low half;
 *         linear_nvfp4.h says how its scales lie and what global is.
 * SUMS    In f32. FP8 on Hopper adds products in a narrower accumulator: by default its partial sums
 *         are moved to f32 every 128 of k; BT_LT_FAST_SUM leaves them there, a tenth faster and less
 *         exact: 1.3e-3 of y in the mean square at k = 4096, where the default has 1.3e-4.
 *         Splitting of k among blocks is allowed only with f32 partial sums added in a fixed order, and
 *         not at all with BT_LT_NO_SPLIT. The same call gives the same bits in either case.
 * MEMORY  The workspace serves one stream at a time: one bt_lt for each thread that launches.
 * THREAD  One at a time for each bt_lt. bt_linear_lt may be captured in a graph.
 * BOUNDS  n and k are multiples of 16 (NVFP4: n of 8, k of 32); m is any number, in FP8 too; pointers are
 *         16-byte aligned. */
#ifndef BT_KERNELS_LINEAR_LINEAR_LT_H
#define BT_KERNELS_LINEAR_LINEAR_LT_H

#include "common/base/dtype.h"
#include "kernels/cuda.h"

#include <stddef.h>
#include <stdint.h>

#define BT_LT_WORKSPACE_BYTES ((size_t)64 << 20)
#define BT_LT_PLANS_MAX 256u

/* The values stand in files: never renumber. */
typedef enum {
    BT_LT_BF16 = 1,
    BT_LT_FP8_TENSOR = 2,
    BT_LT_FP8_OUTER = 3,
    BT_LT_NVFP4 = 4,
} bt_lt_kind;

enum {
    BT_LT_BIAS = 1,     /* adds bias; y is bf16 */
    BT_LT_ADD = 2,      /* adds to what y holds */
    BT_LT_FAST_SUM = 4, /* see SUMS; only FP8 */
    BT_LT_NO_SPLIT = 8, /* see SUMS */
};

typedef struct {
    bt_lt_kind kind;
    bt_dtype y;     /* BF16 or F32 */
    uint32_t flags; /* BT_LT_… */
    uint32_t n, k;
} bt_lt_shape;

typedef struct bt_lt bt_lt;
typedef struct bt_lt_plan bt_lt_plan;

/* For the current device. workspace: BT_LT_WORKSPACE_BYTES of device memory, 256-byte aligned,
 * borrowed. Errors: ERR_DEVICE, ERR_NO_MEMORY. */
bt_status bt_lt_create(void *workspace, bt_lt **ret_lt, bt_err *err);
void bt_lt_destroy(bt_lt *lt);

/* OK, or ERR_ARGUMENT with the reason why this card cannot do products of this kind. */
bt_status bt_lt_supports(const bt_lt *lt, bt_lt_kind kind, bt_err *err);

/* The table from or to a file (linear_lt_cache.h). A refused file leaves the table as it was: go on
 * without it. */
bt_status bt_lt_load(bt_lt *lt, const char *path, bt_err *err);
bt_status bt_lt_save(const bt_lt *lt, const char *path, bt_err *err);

/* How many algorithms were measured since create, and how many calls had to ask cuBLASLt anew because
 * the bucket's algorithm did not take their m. */
typedef struct {
    uint64_t measured, asked_anew;
} bt_lt_counts;
bt_lt_counts bt_lt_count(const bt_lt *lt);

/* Makes ready for products of this shape: measures the buckets from m_min's to m_max's. Rows outside
 * take the algorithm of the nearest of them. Waits for the device. The plan lives as long as lt; the
 * same shape again gives the same plan, with the buckets of both calls. Errors: ERR_ARGUMENT if the card cannot do this shape, ERR_LIMIT, ERR_NO_MEMORY,
 * ERR_DEVICE. */
bt_status bt_lt_prepare(bt_lt *lt, const bt_lt_shape *shape, uint32_t m_min, uint32_t m_max,
                        const bt_lt_plan **ret_plan, bt_err *err);

typedef struct {
    const bt_lt_plan *plan;
    const void *w, *x;
    const void *w_scale, *x_scale; /* NULL for BF16 */
    const void *bias;              /* [n] bf16 with BT_LT_BIAS, else NULL */
    void *y;
    float global; /* NVFP4: factor of all products, w's times x's; else 1 */
    uint32_t m;
} bt_lt_args;

/* Asynchronous on stream. m may be 0. Errors: ERR_DEVICE. */
bt_status bt_linear_lt(bt_lt *lt, const bt_lt_args *op, cudaStream_t stream, bt_err *err);

#endif
