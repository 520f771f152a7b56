/* dispatch.h - one table of kernels for each kind of CPU.
 *
 * ADD ONE a `const bt_kernels` row in dispatch.c and <op>_<arch>.c files; the tests in
 *         tests/kernels run every row this CPU can run against "ref". A row may borrow another
 *         row's function. */
#ifndef BT_KERNELS_DISPATCH_H
#define BT_KERNELS_DISPATCH_H

#include "kernels/attention/attention.h"
#include "kernels/bias/bias.h"
#include "kernels/linear/linear.h"
#include "kernels/matmul/matmul.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/sample/sample.h"
#include "kernels/swiglu/swiglu.h"

#include <stdbool.h>

typedef struct {
    const char *name;        /* "amx", "avx512", "avx2", "ref" */
    bool (*supported)(void); /* by the CPU this runs on */
    const bt_linear_ops *linear[BT_COMPUTE_COUNT];
    bt_matmul_fn *matmul;
    bt_rmsnorm_fn *rmsnorm;
    bt_swiglu_fn *swiglu;
    bt_attention_fn *attention;
    bt_bias_fn *bias;
    const bt_sample_passes *sample;
} bt_kernels;

extern const bt_kernels *const bt_kernels_rows[]; /* best first; "ref" is last */
extern const unsigned bt_kernels_row_count;

/* The best row this CPU supports. Asks the CPU, which a virtual machine makes slow: keep the row. */
const bt_kernels *bt_kernels_best(void);

/* The row of that name, NULL if there is none or this CPU cannot run it. */
const bt_kernels *bt_kernels_find(const char *name);

#endif
