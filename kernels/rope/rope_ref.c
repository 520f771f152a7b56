/* rope_ref.c - plain loops; the compiler's vectors are enough for a thousandth of a step. */
#include "kernels/rope/rope.h"

#include <math.h>
#include <stddef.h>

void bt_rope_frequencies(double theta, uint32_t head_dim, double *ret_frequencies)
{
    for (uint32_t i = 0; i < head_dim / 2; i++)
        ret_frequencies[i] = pow(theta, -2.0 * i / head_dim);
}

void bt_rope_table(const uint32_t *positions, uint32_t rows, const double *frequencies,
                   uint32_t head_dim, float *ret_table)
{
    uint32_t half = head_dim / 2;
    for (uint32_t row = 0; row < rows; row++) {
        float *cosines = ret_table + (size_t)row * head_dim, *sines = cosines + half;
        for (uint32_t i = 0; i < half; i++) {
            double angle = positions[row] * frequencies[i];
            cosines[i] = (float)cos(angle);
            sines[i] = (float)sin(angle);
        }
    }
}

void bt_rope_apply(const float *table_row, uint32_t heads, uint32_t head_dim, float *x)
{
    uint32_t half = head_dim / 2;
    const float *cosines = table_row, *sines = table_row + half;
    for (uint32_t head = 0; head < heads; head++, x += head_dim) {
        for (uint32_t i = 0; i < half; i++) {
            float a = x[i], b = x[i + half];
            x[i] = a * cosines[i] - b * sines[i];
            x[i + half] = b * cosines[i] + a * sines[i];
        }
    }
}
