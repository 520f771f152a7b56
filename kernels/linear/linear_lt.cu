/* linear_lt.cu - see linear_lt.h.
 *
 * BYTES   (n * k + m * k) * size of w's elements + m * n * size of y's
 * FLOPS   2 * m * n * k
 * FIGURES TFLOP/s, H100 80GB HBM3 (132 SMs), cuBLASLt 13.1.0, 2026-11-24, `ops/gpu/check --only linear_lt --bench`,
 *         under sustained load, where the power limit holds the clock down; beside each the share of the
 *         best of all that cuBLASLt proposes, timed in turns with ours:
 *                          n x k   6144x4096   4096x4096   28672x4096  4096x14336  8192x8192
 *           bf16       m = 2048     691  99.8   659  98.1   680  97.5   724  99.3   719 100.0
 *                      m = 8192     730  99.8   699  97.4   676  99.3   701  99.9   671  99.9
 *           fp8 tensor m = 2048    1303  99.9  1267  99.8  1325  99.8  1333 100.0  1299 100.1
 *           fast sum   m = 8192    1292  99.9  1303 101.9  1342 101.0  1334 101.6  1327 105.7
 *           fp8 outer  m = 2048    1301 100.0  1179  99.3  1398  99.8  1300  99.8  1190 100.0
 *           fast sum   m = 8192    1376  99.8  1282  99.7  1293 100.4  1333 100.0  1331 100.0
 *         Two other runs gave 97 to 98 % for BF16 with m = 2048, n <= 6144: which tile is best there
 *         depends on the clock. cuBLASLt's first guess is 5 to 15 % below its best in every third of
 *         these. Without BT_LT_FAST_SUM FP8 is slower by a tenth. */
#include <cublasLt.h>

extern "C" {
#include "kernels/linear/linear_lt_problem.h"
}

#include <assert.h>
#include <stdlib.h>
#include <string.h>

namespace
{

bool is_fp8(bt_lt_kind kind)
{
    return kind == BT_LT_FP8_TENSOR || kind == BT_LT_FP8_OUTER;
}

cudaDataType input_type(bt_lt_kind kind)
{
    return kind == BT_LT_BF16 ? CUDA_R_16BF : kind == BT_LT_NVFP4 ? CUDA_R_4F_E2M1 : CUDA_R_8F_E4M3;
}

cudaDataType output_type(bt_dtype y)
{
    return y == BT_DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

template <typename T>
bool set(bt_lt_problem *p, cublasLtMatmulDescAttributes_t attribute, const T &value)
{
    return cublasLtMatmulDescSetAttribute(&p->desc, attribute, &value, sizeof(value)) ==
           CUBLAS_STATUS_SUCCESS;
}

bool set_scales(bt_lt_problem *p, bt_lt_kind kind, const bt_lt_args *op)
{
    int32_t mode = kind == BT_LT_FP8_OUTER ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
                   : kind == BT_LT_NVFP4   ? CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3
                                           : CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
    return set(p, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode) &&
           set(p, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode) &&
           set(p, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, op->w_scale) &&
           set(p, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, op->x_scale);
}

bt_lt_key key_of(const bt_lt_shape *shape, uint32_t m)
{
    return {(uint32_t)shape->kind, (uint32_t)shape->y, shape->flags, m, shape->n, shape->k};
}

bt_status describe_card(bt_lt_card *ret_card, bt_err *err)
{
    int device;
    cudaDeviceProp properties;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaGetDeviceProperties(&properties, device);
    if (error != cudaSuccess) return bt_cuda_status(error, "reading the card's properties", err);
    memset(ret_card, 0, sizeof(*ret_card));
    memcpy(ret_card->name, properties.name, strnlen(properties.name, BT_LT_CARD_BYTES - 1));
    ret_card->capability = (uint32_t)(properties.major * 10 + properties.minor);
    ret_card->multiprocessors = (uint32_t)properties.multiProcessorCount;
    ret_card->library = cublasLtGetVersion();
    return BT_OK;
}

bt_status check_shape(const bt_lt_shape *shape, bt_err *err)
{
    bool fp4 = shape->kind == BT_LT_NVFP4;
    if (shape->n == 0 || shape->k == 0 || shape->n % (fp4 ? 8 : 16) || shape->k % (fp4 ? 32 : 16))
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "a weight of %u x %u: n must be a multiple of %d, k of %d", shape->n,
                       shape->k, fp4 ? 8 : 16, fp4 ? 32 : 16);
    return BT_OK;
}

/* The algorithm of a bucket into the plan: from the table, if cuBLASLt takes it, or measured. */
bt_status fill_bucket(bt_lt *lt, bt_lt_plan *plan, uint32_t bucket, bt_err *err)
{
    const bt_lt_shape *shape = &plan->shape;
    bt_lt_key key = key_of(shape, bt_lt_bucket_m[bucket]);
    bt_lt_args op = {};
    bt_lt_problem problem;
    size_t workspace_bytes;
    op.m = key.m;
    op.w_scale = op.x_scale = op.bias = lt->workspace;
    if (bt_lt_describe(shape, &op, &problem) != CUBLAS_STATUS_SUCCESS)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "cuBLASLt cannot describe products of kind %d, flags %u", (int)shape->kind,
                       shape->flags);
    bt_lt_entry entry;
    const bt_lt_entry *known = bt_lt_cache_find(lt->cache, &key);
    if (known) entry = *known;
    cublasLtMatmulAlgo_t *at = &plan->algorithms[bucket];
    if (!known || !bt_lt_build(lt, &problem, shape, &entry.config, at, &workspace_bytes)) {
        bt_status status = bt_lt_tune(lt, shape, key.m, &entry, err);
        if (status != BT_OK) return status;
        bt_lt_cache_put(lt->cache, &entry,
                        NULL); /* a full table: this one is not kept in the file */
        if (!bt_lt_build(lt, &problem, shape, &entry.config, at, &workspace_bytes))
            return BT_FAIL(err, BT_ERR_DEVICE, "cuBLASLt no longer takes the algorithm measured");
    }
    plan->us[bucket] = entry.us;
    return BT_OK;
}

/* Of the first bucket measured that is not below m, or of the last measured. */
const cublasLtMatmulAlgo_t *algorithm_for(const bt_lt_plan *plan, uint32_t m)
{
    const cublasLtMatmulAlgo_t *last = NULL;
    for (uint32_t i = 0; i < BT_LT_BUCKETS; i++) {
        if (plan->us[i] == 0) continue;
        last = &plan->algorithms[i];
        if (bt_lt_bucket_m[i] >= m) break;
    }
    assert(last);
    return last;
}

/* The plan of that shape, or a new one without buckets. */
bt_lt_plan *plan_of(bt_lt *lt, const bt_lt_shape *shape)
{
    for (uint32_t i = 0; i < lt->plan_count; i++)
        if (memcmp(&lt->plans[i]->shape, shape, sizeof(*shape)) == 0) return lt->plans[i];
    if (lt->plan_count == BT_LT_PLANS_MAX) return NULL;
    bt_lt_plan *plan = (bt_lt_plan *)calloc(1, sizeof(*plan));
    if (!plan) return NULL;
    plan->shape = *shape;
    lt->plans[lt->plan_count++] = plan;
    return plan;
}

} // namespace

extern "C" cublasStatus_t bt_lt_describe(const bt_lt_shape *shape, const bt_lt_args *op,
                                         bt_lt_problem *ret_problem)
{
    bt_lt_problem *p = ret_problem;
    cudaDataType in = input_type(shape->kind), out = output_type(shape->y);
    if (cublasLtMatmulDescInit(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatrixLayoutInit(&p->w, in, shape->k, shape->n, shape->k) !=
            CUBLAS_STATUS_SUCCESS ||
        cublasLtMatrixLayoutInit(&p->x, in, shape->k, op->m, shape->k) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatrixLayoutInit(&p->y, out, shape->n, op->m, shape->n) != CUBLAS_STATUS_SUCCESS)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    bool ok = set(p, CUBLASLT_MATMUL_DESC_TRANSA, (int32_t)CUBLAS_OP_T);
    if (shape->kind != BT_LT_BF16) ok = ok && set_scales(p, shape->kind, op);
    if (is_fp8(shape->kind))
        ok = ok && set(p, CUBLASLT_MATMUL_DESC_FAST_ACCUM,
                       (int8_t)(shape->flags & BT_LT_FAST_SUM ? 1 : 0));
    if (shape->flags & BT_LT_BIAS)
        ok = ok && set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, (uint32_t)CUBLASLT_EPILOGUE_BIAS) &&
             set(p, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, (int32_t)CUDA_R_16BF) &&
             set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, op->bias);
    return ok ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

extern "C" cublasStatus_t bt_lt_run(const bt_lt *lt, bt_lt_problem *problem,
                                    const bt_lt_shape *shape, const bt_lt_args *op,
                                    const cublasLtMatmulAlgo_t *algorithm, cudaStream_t stream)
{
    float alpha = op->global, beta = shape->flags & BT_LT_ADD ? 1.0f : 0.0f;
    return cublasLtMatmul(lt->handle, &problem->desc, &alpha, op->w, &problem->w, op->x,
                          &problem->x, &beta, op->y, &problem->y, op->y, &problem->y, algorithm,
                          lt->workspace, BT_LT_WORKSPACE_BYTES, stream);
}

extern "C" int bt_lt_propose(const bt_lt *lt, bt_lt_problem *problem, const bt_lt_shape *shape,
                             int most, cublasLtMatmulHeuristicResult_t *ret_results)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    uint64_t workspace = BT_LT_WORKSPACE_BYTES;
    uint32_t alignment = BT_LT_ALIGNMENT;
    uint32_t schemes = shape->flags & BT_LT_NO_SPLIT ? CUBLASLT_REDUCTION_SCHEME_NONE
                                                     : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    int count = 0;
    bool ok = cublasLtMatmulPreferenceInit(&preference) == CUBLAS_STATUS_SUCCESS;
    ok = ok && cublasLtMatmulPreferenceSetAttribute(
                   &preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                   sizeof(workspace)) == CUBLAS_STATUS_SUCCESS;
    ok = ok && cublasLtMatmulPreferenceSetAttribute(
                   &preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes,
                   sizeof(schemes)) == CUBLAS_STATUS_SUCCESS;
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (cublasLtMatmulPreferenceAttributes_t which : alignments)
        ok = ok && cublasLtMatmulPreferenceSetAttribute(&preference, which, &alignment,
                                                        sizeof(alignment)) == CUBLAS_STATUS_SUCCESS;
    if (!ok || cublasLtMatmulAlgoGetHeuristic(lt->handle, &problem->desc, &problem->w, &problem->x,
                                              &problem->y, &problem->y, &preference, most,
                                              ret_results, &count) != CUBLAS_STATUS_SUCCESS)
        return 0;
    int usable = 0;
    for (int i = 0; i < count; i++)
        if (ret_results[i].state == CUBLAS_STATUS_SUCCESS) ret_results[usable++] = ret_results[i];
    return usable;
}

/* inner and cluster are 16 bits wide in cuBLASLt, the others 32. */
static const struct {
    cublasLtMatmulAlgoConfigAttributes_t attribute;
    size_t bytes, offset;
} numbers[] = {
    {CUBLASLT_ALGO_CONFIG_TILE_ID, 4, offsetof(bt_lt_config, tile)},
    {CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 4, offsetof(bt_lt_config, splits)},
    {CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 4, offsetof(bt_lt_config, reduction)},
    {CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, 4, offsetof(bt_lt_config, swizzle)},
    {CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, 4, offsetof(bt_lt_config, custom)},
    {CUBLASLT_ALGO_CONFIG_STAGES_ID, 4, offsetof(bt_lt_config, stages)},
    {CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, 2, offsetof(bt_lt_config, inner)},
    {CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 2, offsetof(bt_lt_config, cluster)},
};

extern "C" void bt_lt_config_of(const cublasLtMatmulAlgo_t *algorithm, bt_lt_config *ret_config)
{
    size_t written;
    memset(ret_config, 0, sizeof(*ret_config));
    cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_ID, &ret_config->id, 4,
                                         &written);
    for (const auto &number : numbers) /* little-endian: 2 bytes are the low half */
        cublasLtMatmulAlgoConfigGetAttribute(algorithm, number.attribute,
                                             (char *)ret_config + number.offset, number.bytes,
                                             &written);
}

extern "C" bool bt_lt_build(const bt_lt *lt, bt_lt_problem *problem, const bt_lt_shape *shape,
                            const bt_lt_config *config, cublasLtMatmulAlgo_t *ret_algorithm,
                            size_t *ret_workspace_bytes)
{
    if (config->splits > 1 && ((shape->flags & BT_LT_NO_SPLIT) ||
                               config->reduction != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE))
        return false;
    cudaDataType in = input_type(shape->kind), out = output_type(shape->y);
    if (config->id > INT32_MAX ||
        cublasLtMatmulAlgoInit(lt->handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, in, in, out, out,
                               (int)config->id, ret_algorithm) != CUBLAS_STATUS_SUCCESS)
        return false;
    for (const auto &number : numbers) {
        const uint32_t *value = (const uint32_t *)((const char *)config + number.offset);
        if ((number.bytes == 2 && *value > UINT16_MAX) ||
            cublasLtMatmulAlgoConfigSetAttribute(ret_algorithm, number.attribute, value,
                                                 number.bytes) != CUBLAS_STATUS_SUCCESS)
            return false;
    }
    cublasLtMatmulHeuristicResult_t result;
    if (cublasLtMatmulAlgoCheck(lt->handle, &problem->desc, &problem->w, &problem->x, &problem->y,
                                &problem->y, ret_algorithm, &result) != CUBLAS_STATUS_SUCCESS ||
        result.workspaceSize > BT_LT_WORKSPACE_BYTES)
        return false;
    *ret_workspace_bytes = result.workspaceSize;
    return true;
}

extern "C" bt_status bt_lt_create(void *workspace, bt_lt **ret_lt, bt_err *err)
{
    bt_lt_card card;
    bt_status status = describe_card(&card, err);
    if (status != BT_OK) return status;
    bt_lt *lt = (bt_lt *)calloc(1, sizeof(*lt));
    if (lt) lt->cache = bt_lt_cache_create(&card);
    if (!lt || !lt->cache) {
        bt_lt_destroy(lt);
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for the table of algorithms");
    }
    lt->workspace = workspace;
    cublasStatus_t created = cublasLtCreate(&lt->handle);
    if (created != CUBLAS_STATUS_SUCCESS) {
        lt->handle = NULL;
        bt_lt_destroy(lt);
        return BT_FAIL(err, BT_ERR_DEVICE, "cuBLASLt cannot start: %s",
                       cublasLtGetStatusString(created));
    }
    *ret_lt = lt;
    return BT_OK;
}

extern "C" void bt_lt_destroy(bt_lt *lt)
{
    if (!lt) return;
    if (lt->handle) cublasLtDestroy(lt->handle);
    for (uint32_t i = 0; i < lt->plan_count; i++) free(lt->plans[i]);
    free(lt->cache);
    free(lt);
}

extern "C" bt_status bt_lt_supports(const bt_lt *lt, bt_lt_kind kind, bt_err *err)
{
    const bt_lt_card *card = &lt->cache->card;
    unsigned major = card->capability / 10, minor = card->capability % 10;
    if (is_fp8(kind) && card->capability < 89)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "FP8 products need compute capability 8.9, this %s has %u.%u", card->name,
                       major, minor);
    if (kind == BT_LT_FP8_OUTER && card->capability != 90)
        return BT_FAIL(
            err, BT_ERR_ARGUMENT,
            "cuBLASLt scales FP8 products by token and channel only on compute capability "
            "9.0, this %s has %u.%u",
            card->name, major, minor);
    if (kind == BT_LT_NVFP4 && card->capability < 100)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "NVFP4 products need compute capability 10.0, this %s has %u.%u", card->name,
                       major, minor);
    return BT_OK;
}

extern "C" bt_status bt_lt_load(bt_lt *lt, const char *path, bt_err *err)
{
    return bt_lt_cache_load(lt->cache, path, err);
}

extern "C" bt_status bt_lt_save(const bt_lt *lt, const char *path, bt_err *err)
{
    return bt_lt_cache_save(lt->cache, path, err);
}

extern "C" bt_lt_counts bt_lt_count(const bt_lt *lt)
{
    return lt->counts;
}

extern "C" bt_status bt_lt_prepare(bt_lt *lt, const bt_lt_shape *shape, uint32_t m_min,
                                   uint32_t m_max, const bt_lt_plan **ret_plan, bt_err *err)
{
    assert(shape->y == BT_DTYPE_BF16 || (shape->y == BT_DTYPE_F32 && !(shape->flags & BT_LT_BIAS)));
    bt_status status = bt_lt_supports(lt, shape->kind, err);
    if (status == BT_OK) status = check_shape(shape, err);
    if (status != BT_OK) return status;
    bt_lt_plan *plan = plan_of(lt, shape);
    if (!plan)
        return BT_FAIL(err, BT_ERR_LIMIT, "no room for another shape of product: %u are prepared",
                       lt->plan_count);
    uint32_t last = bt_lt_bucket(m_max);
    for (uint32_t bucket = bt_lt_bucket(m_min); status == BT_OK && bucket <= last; bucket++)
        if (plan->us[bucket] == 0) status = fill_bucket(lt, plan, bucket, err);
    if (status == BT_OK) *ret_plan = plan;
    return status;
}

extern "C" bt_status bt_linear_lt(bt_lt *lt, const bt_lt_args *op, cudaStream_t stream, bt_err *err)
{
    const bt_lt_plan *plan = op->plan;
    assert(((uintptr_t)op->w | (uintptr_t)op->x | (uintptr_t)op->y) % 16 == 0);
    assert(plan->shape.kind == BT_LT_BF16 || (op->w_scale && op->x_scale));
    if (op->m == 0) return BT_OK;
    bt_lt_problem problem;
    cublasStatus_t status = bt_lt_describe(&plan->shape, op, &problem);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = bt_lt_run(lt, &problem, &plan->shape, op, algorithm_for(plan, op->m), stream);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
        cublasLtMatmulHeuristicResult_t result;
        lt->counts.asked_anew++;
        if (bt_lt_propose(lt, &problem, &plan->shape, 1, &result) == 1)
            status = bt_lt_run(lt, &problem, &plan->shape, op, &result.algo, stream);
    }
    if (status != CUBLAS_STATUS_SUCCESS)
        return BT_FAIL(err, BT_ERR_DEVICE, "a product of %u x %u x %u: %s", op->m, plan->shape.n,
                       plan->shape.k, cublasLtGetStatusString(status));
    return BT_OK;
}
