#include "decoded/probe_bounds.h"

#define MARGIN 3.0 /* other models than the demo model, other kernels */
#define FLOOR                                                                                      \
    0.02 /* where the demo model errs by nothing: the two sides may compute with other instructions */

/* [prefill pool][wire][decode pool], each f32, bf16, fp8, int8: as bench_probe printed it for ops/model. */
static const double measured[4][4][4] = {
    {{0.00e+00, 3.49e-03, 4.87e-02, 1.27e-02},
     {1.76e-03, 3.49e-03, 4.85e-02, 1.29e-02},
     {2.58e-02, 2.59e-02, 4.87e-02, 2.83e-02},
     {8.38e-03, 8.72e-03, 4.90e-02, 1.27e-02}}, /* f32 */
    {{3.24e-03, 0.00e+00, 4.84e-02, 1.30e-02},
     {3.24e-03, 0.00e+00, 4.84e-02, 1.30e-02},
     {2.59e-02, 2.59e-02, 4.84e-02, 2.84e-02},
     {8.54e-03, 8.47e-03, 4.95e-02, 1.30e-02}}, /* bf16 */
    {{4.43e-02, 4.43e-02, 0.00e+00, 4.58e-02},
     {4.43e-02, 4.43e-02, 2.01e-03, 4.56e-02},
     {4.43e-02, 4.43e-02, 0.00e+00, 4.58e-02},
     {4.48e-02, 4.48e-02, 4.59e-03, 4.58e-02}}, /* fp8 */
    {{1.14e-02, 1.19e-02, 5.03e-02, 0.00e+00},
     {1.15e-02, 1.19e-02, 5.00e-02, 2.12e-03},
     {2.76e-02, 2.79e-02, 5.03e-02, 2.59e-02},
     {1.14e-02, 1.19e-02, 5.03e-02, 0.00e+00}}, /* int8 */
};

static int row(bt_dtype dtype)
{
    switch (dtype) {
    case BT_DTYPE_F32: return 0;
    case BT_DTYPE_BF16: return 1;
    case BT_DTYPE_FP8_E4M3: return 2;
    case BT_DTYPE_INT8: return 3;
    default: return -1;
    }
}

double bt_probe_bound(bt_dtype prefill_pool, bt_dtype wire, bt_dtype decode_pool)
{
    int p = row(prefill_pool), w = row(wire), d = row(decode_pool);
    if (p < 0 || w < 0 || d < 0) return 0; /* formats that do not exist do not pair */
    double bound = MARGIN * measured[p][w][d];
    return bound > FLOOR ? bound : FLOOR;
}
