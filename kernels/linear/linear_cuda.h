/* linear_cuda.h - a weight matrix on a GPU, and its product with any number of rows by whichever kernel
 * is fastest for so many.
 *
 *     y[i][j] = (sum over l of x[i][l] * w[j][l]) * scales [+ bias[j]] [+ y[i][j]]
 *
 * KINDS   kind        x     scales
 *         BF16        bf16  -
 *         FP8_TENSOR  e4m3  one f32 of w, one of x
 *         FP8_OUTER   e4m3  [n] f32 of w, [m] of x
 *         INT4        bf16  in the packed form: linear_w4_cuda.h, for any m
 *         NVFP4       bf16  the same, and factor
 *         Bias and sums with what y holds: not with INT4 and NVFP4, whose y is bf16.
 * FORMS   A matrix lies in memory in one form or two:
 *           rows    [n][k], as checkpoints have it: linear_lt.h, cuBLASLt
 *           packed  fragments of the tensor cores: linear_skinny_cuda.h, for at most 64 rows of x
 *         A pool that only prefills keeps rows. Up to BT_LINEAR_CUDA_FEW rows of x packed is faster, and
 *         from there on rows, by far: a pool that decodes batches keeps both, twice the memory, or
 *         rows alone. With packed alone, many rows go in slabs of 64, each of which reads the matrix.
 * FLOW    at load: fill in a bt_linear_cuda_weight, bt_linear_cuda_prepare; then bt_linear_cuda_run
 * THREAD  One at a time for each bt_linear_cuda; may be captured in a graph. */
#ifndef BT_KERNELS_LINEAR_LINEAR_CUDA_H
#define BT_KERNELS_LINEAR_LINEAR_CUDA_H

#include "kernels/linear/linear_lt.h"
#include "kernels/linear/linear_skinny_cuda.h"
#include "kernels/linear/linear_w4_cuda.h"

typedef enum {
    BT_LINEAR_CUDA_BF16,
    BT_LINEAR_CUDA_FP8_TENSOR,
    BT_LINEAR_CUDA_FP8_OUTER,
    BT_LINEAR_CUDA_INT4,
    BT_LINEAR_CUDA_NVFP4,
} bt_linear_cuda_kind;

/* What all products on one stream share; all borrowed. */
typedef struct {
    bt_lt *lt;    /* NULL if no matrix has rows */
    int arch;     /* bt_cuda_arch() */
    uint32_t sms; /* multiprocessors of the card */
} bt_linear_cuda;

typedef struct {
    bt_linear_cuda_kind kind;
    uint32_t n, k;
    bt_dtype y;       /* BF16, or F32 without bias */
    uint32_t flags;   /* BT_LT_BIAS, BT_LT_ADD (y is f32), BT_LT_FAST_SUM */
    const void *rows; /* NULL if it is not kept; one of the two is */
    const void *packed;
    const float *scale;     /* FP8 */
    float factor;           /* NVFP4 */
    const void *bias;       /* [n] bf16, with BT_LT_BIAS */
    const bt_lt_plan *plan; /* set by prepare, if there are rows */
} bt_linear_cuda_weight;

/* Checks that the products can be done on this card and measures cuBLASLt's algorithms for m_min to
 * m_max rows. Waits for the device. Errors: ERR_ARGUMENT with the reason, and bt_lt_prepare's. */
bt_status bt_linear_cuda_prepare(const bt_linear_cuda *linear, bt_linear_cuda_weight *weight,
                                 uint32_t m_min, uint32_t m_max, bt_err *err);

/* Up to so many rows of x the packed form is used, if both are there. */
#define BT_LINEAR_CUDA_FEW 16u

typedef struct {
    const bt_linear_cuda_weight *weight;
    const void *x;        /* [m][k] */
    const float *x_scale; /* FP8_TENSOR: [1]; FP8_OUTER: [m]; else NULL */
    void *y;              /* [m][n] */
    uint32_t m;
} bt_linear_cuda_args;

/* Asynchronous on stream. m may be 0. Errors: ERR_DEVICE. */
bt_status bt_linear_cuda_run(const bt_linear_cuda *linear, const bt_linear_cuda_args *op,
                             cudaStream_t stream, bt_err *err);

#endif
