/* activation_cuda.h - the rows that a matrix product takes, as the kernels before it write them.
 *
 *   BF16        y [rows][n] bf16
 *   FP8_TOKEN   y [rows][n] e4m3, scales [rows] f32: amax / 448 of each row, made on the way
 *   FP8_TENSOR  y [rows][n] e4m3 of value / scale; scale is the checkpoint's (input_scale)
 *
 * A code is worth code * scale. What is beyond 448 * scale saturates; NaN stays NaN. A row of zeros has
 * scale 0 and codes 0. y is 16-byte aligned device memory. */
#ifndef BT_KERNELS_ACTIVATION_CUDA_H
#define BT_KERNELS_ACTIVATION_CUDA_H

typedef enum {
    BT_ACTIVATION_BF16,
    BT_ACTIVATION_FP8_TOKEN,
    BT_ACTIVATION_FP8_TENSOR
} bt_activation_kind;

typedef struct {
    bt_activation_kind kind;
    void *y;
    float *scales; /* FP8_TOKEN */
    float scale;   /* FP8_TENSOR; above 0 */
} bt_activation;

#endif
