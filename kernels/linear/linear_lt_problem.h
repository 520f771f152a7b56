/* linear_lt_problem.h - what linear_lt.cu and linear_lt_tune.cu share; only they may include it,
 * cublasLt.h before it: in C++ that does not bear extern "C". */
#ifndef BT_KERNELS_LINEAR_LINEAR_LT_PROBLEM_H
#define BT_KERNELS_LINEAR_LINEAR_LT_PROBLEM_H

#include "kernels/linear/linear_lt.h"
#include "kernels/linear/linear_lt_cache.h"

#include <stdbool.h>

#include <cublasLt.h>

#define BT_LT_ALIGNMENT 16u

/* cuBLASLt's descriptors of one product: on the stack, as they are plain memory. */
typedef struct {
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t w, x, y;
} bt_lt_problem;

struct bt_lt_plan {
    bt_lt_shape shape;
    float us[BT_LT_BUCKETS]; /* 0 where none was measured */
    cublasLtMatmulAlgo_t algorithms[BT_LT_BUCKETS];
};

struct bt_lt {
    cublasLtHandle_t handle;
    void *workspace;
    bt_lt_cache *cache;
    bt_lt_counts counts;
    uint32_t plan_count;
    bt_lt_plan *plans[BT_LT_PLANS_MAX];
};

/* op gives m and the addresses of scales and bias, of which heuristics see only the alignment. */
cublasStatus_t bt_lt_describe(const bt_lt_shape *shape, const bt_lt_args *op,
                              bt_lt_problem *ret_problem);

/* Runs one product with that algorithm. */
cublasStatus_t bt_lt_run(const bt_lt *lt, bt_lt_problem *problem, const bt_lt_shape *shape,
                         const bt_lt_args *op, const cublasLtMatmulAlgo_t *algorithm,
                         cudaStream_t stream);

/* Up to most algorithms cuBLASLt proposes, best guess first. */
int bt_lt_propose(const bt_lt *lt, bt_lt_problem *problem, const bt_lt_shape *shape, int most,
                  cublasLtMatmulHeuristicResult_t *ret_results);

/* The numbers of an algorithm. */
void bt_lt_config_of(const cublasLtMatmulAlgo_t *algorithm, bt_lt_config *ret_config);

/* The algorithm of those numbers; false if cuBLASLt does not know or not take it for this problem, it
 * needs more workspace than there is, or it splits k in a way that the shape does not allow. */
bool bt_lt_build(const bt_lt *lt, bt_lt_problem *problem, const bt_lt_shape *shape,
                 const bt_lt_config *config, cublasLtMatmulAlgo_t *ret_algorithm,
                 size_t *ret_workspace_bytes);

/* Measures the bucket's algorithm; the key of *ret_entry is filled too. */
bt_status bt_lt_tune(bt_lt *lt, const bt_lt_shape *shape, uint32_t m, bt_lt_entry *ret_entry,
                     bt_err *err);

#endif
