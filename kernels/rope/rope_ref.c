/* rope_ref.c - plain loops; the compiler's vectors are enough for a thousandth of a step. */
#include "kernels/rope/rope.h"

#include "common/base/limits.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

static double clamp(double x, double min, double max)
{
    return x < min ? min : x > max ? max : x;
}

static void scale_llama3(const bt_rope *rope, double *frequencies)
{
    for (uint32_t i = 0; i < rope->dims / 2; i++) {
        double turns = rope->original_tokens * frequencies[i] / (2 * M_PI);
        double keep = clamp((turns - rope->low_freq_factor) /
                                (rope->high_freq_factor - rope->low_freq_factor),
                            0, 1);
        frequencies[i] *= keep + (1 - keep) / rope->factor;
    }
}

/* The index, not a whole one, of the pair that turns so often in the original context. */
static double pair_of_turns(const bt_rope *rope, double turns)
{
    return rope->dims * log(rope->original_tokens / (turns * 2 * M_PI)) / (2 * log(rope->theta));
}

static void scale_yarn(const bt_rope *rope, double *frequencies)
{
    double first = pair_of_turns(rope, rope->beta_fast);
    double last = pair_of_turns(rope, rope->beta_slow);
    if (rope->truncate) {
        first = floor(first);
        last = ceil(last);
    }
    first = first > 0 ? first : 0;
    last = last < rope->dims - 1 ? last : rope->dims - 1;
    if (first == last) last += 0.001;
    for (uint32_t i = 0; i < rope->dims / 2; i++) {
        double stretch = clamp((i - first) / (last - first), 0, 1);
        frequencies[i] *= stretch / rope->factor + (1 - stretch);
    }
}

void bt_rope_frequencies(const bt_rope *rope, uint32_t position, double *ret_frequencies)
{
    double theta = rope->theta, dims = rope->dims;
    if (rope->kind == BT_ROPE_DYNAMIC && position + 1.0 > rope->original_tokens) {
        double stretch = rope->factor * (position + 1.0) / rope->original_tokens - rope->factor + 1;
        theta *= pow(stretch, dims / (dims - 2));
    }
    double shrink = rope->kind == BT_ROPE_LINEAR ? rope->factor : 1;
    for (uint32_t i = 0; i < rope->dims / 2; i++)
        ret_frequencies[i] = pow(theta, -2.0 * i / dims) / shrink;
    if (rope->kind == BT_ROPE_LLAMA3) scale_llama3(rope, ret_frequencies);
    if (rope->kind == BT_ROPE_YARN) scale_yarn(rope, ret_frequencies);
}

void bt_rope_table(const bt_rope *rope, const double *frequencies, const uint32_t *positions,
                   uint32_t rows, float *ret_table)
{
    uint32_t half = rope->dims / 2;
    double own[BT_HEAD_DIM_MAX / 2];
    assert(half <= BT_HEAD_DIM_MAX / 2);
    for (uint32_t row = 0; row < rows; row++) {
        const double *used = frequencies;
        if (rope->kind == BT_ROPE_DYNAMIC && positions[row] + 1.0 > rope->original_tokens) {
            bt_rope_frequencies(rope, positions[row], own);
            used = own;
        }
        float *cosines = ret_table + (size_t)row * rope->dims, *sines = cosines + half;
        for (uint32_t i = 0; i < half; i++) {
            double angle = positions[row] * used[i];
            cosines[i] = (float)(cos(angle) * rope->magnitude);
            sines[i] = (float)(sin(angle) * rope->magnitude);
        }
    }
}

void bt_rope_apply(const float *table_row, uint32_t dims, uint32_t heads, uint32_t head_dim,
                   float *x)
{
    uint32_t half = dims / 2;
    const float *cosines = table_row, *sines = table_row + half;
    for (uint32_t head = 0; head < heads; head++, x += head_dim) {
        for (uint32_t i = 0; i < half; i++) {
            float a = x[i], b = x[i + half];
            x[i] = a * cosines[i] - b * sines[i];
            x[i + half] = b * cosines[i] + a * sines[i];
        }
    }
}
