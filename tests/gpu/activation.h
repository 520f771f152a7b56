/* activation.h - what kernels write for the next matrix product (kernels/activation_cuda.h), compared with
 * the values of a reference. */
#ifndef BT_TESTS_GPU_ACTIVATION_H
#define BT_TESTS_GPU_ACTIVATION_H

#include "tests/gpu/gpu.h"

extern "C" {
#include "kernels/activation_cuda.h"
}

static const bt_activation_kind activation_kinds[] = {BT_ACTIVATION_BF16, BT_ACTIVATION_FP8_TOKEN,
                                                      BT_ACTIVATION_FP8_TENSOR};

static inline std::string activation_name(bt_activation_kind kind)
{
    static const char *const names[] = {"bf16", "fp8 by token", "fp8 by tensor"};
    return names[kind];
}

static inline size_t activation_bytes(bt_activation_kind kind)
{
    return kind == BT_ACTIVATION_BF16 ? 2 : 1;
}

/* Memory for rows of n. A scale of 0.02 saturates what is beyond 9. */
static inline bt_activation activation_alloc(gpu *g, bt_activation_kind kind, size_t rows, size_t n)
{
    bt_activation out = {kind, gpu_alloc(g, rows * n * activation_bytes(kind)), NULL, 0.02f};
    if (kind == BT_ACTIVATION_FP8_TOKEN) out.scales = (float *)gpu_alloc(g, rows * sizeof(float));
    return out;
}

/* A code is the reference's, or its neighbour where the value is within 1e-5 of halfway between the two:
 * f32 sums in another order and e^x are that far off. Scales to 1e-5. bf16: the most that one value is rounded, 2^-8. */
static inline void activation_expect(gpu *g, const std::string &what, const bt_activation &out,
                                     const std::vector<float> &expected, size_t rows, size_t n)
{
    std::string name = what + ", " + activation_name(out.kind);
    size_t count = rows * n;
    if (out.kind == BT_ACTIVATION_BF16) {
        gpu_expect(g, name, expected, gpu_from_bf16(gpu_download<uint16_t>(g, out.y, count)),
                   0x1p-8);
        return;
    }
    std::vector<uint8_t> codes = gpu_download<uint8_t>(g, out.y, count);
    std::vector<float> scales(rows, out.scale), values(count), clipped(expected);
    bool scales_hold = true;
    if (out.scales) scales = gpu_download<float>(g, out.scales, rows);
    size_t off = 0;
    for (size_t row = 0; row < rows; row++) {
        float amax = 0;
        for (size_t i = row * n; i < (row + 1) * n; i++)
            amax = std::max(amax, std::fabs(expected[i]));
        if (out.scales && !(std::fabs(scales[row] - amax / 448) <= 1e-5 * (amax / 448)))
            scales_hold = false;
        for (size_t i = row * n; i < (row + 1) * n; i++) {
            float scale = scales[row], most = scale * 448;
            clipped[i] = std::min(std::max(expected[i], -most), most);
            float quotient = scale > 0 ? expected[i] / scale : 0;
            uint8_t below = bt_f32_to_e4m3(quotient * (1 - 1e-5f)),
                    above = bt_f32_to_e4m3(quotient * (1 + 1e-5f));
            values[i] = bt_e4m3_to_f32(codes[i]) * scale;
            bool zero = ((codes[i] | above) & 0x7f) == 0; /* of either sign */
            off += codes[i] != below && codes[i] != above && !zero;
        }
    }
    gpu_expect_true(g, name + ": scales are amax / 448", scales_hold);
    gpu_expect_true(g, name + ": " + std::to_string(off) + " codes off", off == 0);
    gpu_expect(g, name, clipped, values, 0x1p-4); /* the most that one value is rounded */
}

#endif
