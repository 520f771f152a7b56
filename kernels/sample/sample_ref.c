/* sample_ref.c - the passes in plain C. */
#include "kernels/sample/exp.h"
#include "kernels/sample/sample.h"

#include <math.h>

static float highest(const float *x, uint32_t n)
{
    float top = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        if (x[i] > top) top = x[i];
    return top;
}

static double exp_sum(const float *x, uint32_t n, float top, float temperature)
{
    double lane[8] = {0};
    for (uint32_t i = 0; i < n; i++)
        lane[i % 8] += (double)bt_sample_exp((x[i] - top) / temperature);
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static uint32_t above(const float *x, uint32_t n, uint32_t from, float bar)
{
    while (from < n && !(x[from] > bar)) from++;
    return from;
}

const bt_sample_passes bt_sample_passes_ref = {
    .highest = highest, .exp_sum = exp_sum, .above = above};
