/* sample_cuda.h - sample.h on a GPU: a token for each sequence of a batch, in one launch.
 *
 * SAME    Weights are bt_sample_exp's bits, the order is that of logits and then of ids, and the random
 *         number is bt_sample_uniform's, so the token is the one that bt_sample gives: greedy always,
 *         and top-k alone keeps exactly the same set. Sums of weights are f64 sums in another order,
 *         which differ by less than 2^-40 of the total: only where top-p's edge or the random number
 *         lies that close to a token's edge may the token be its neighbour. The same launch gives the
 *         same token every time.
 * BROKEN  A sequence with no finite logit, or one of +inf, before or after the processors, gets the id
 *         BT_SAMPLE_BROKEN. */
#ifndef BT_KERNELS_SAMPLE_SAMPLE_CUDA_H
#define BT_KERNELS_SAMPLE_SAMPLE_CUDA_H

#include "common/base/dtype.h"
#include "kernels/cuda.h"
#include "kernels/sample/sample.h"

#define BT_SAMPLE_BROKEN UINT32_MAX

/* One sequence, in device memory: bt_sample_cuda_row_of makes what does not change with the position,
 * the caller sets the rest. Pointers are to device memory. */
typedef struct {
    uint64_t seed;
    double min_p_depth; /* what min_p adds to the highest logit; -inf if off */
    float temperature, top_p;
    float repetition_penalty, presence_penalty, frequency_penalty;
    uint32_t top_k, top_logprobs, logprobs, min_tokens;
    uint32_t ban_count, bias_count;
    const uint32_t *bans;      /* [ban_count] EOS ids and stop_ids, not chosen before min_tokens */
    const bt_logit_bias *bias; /* [bias_count] */
    const uint32_t *history;   /* [position]; NULL unless bt_sampling_needs_history */
    uint32_t position, prompt_count;
} bt_sample_cuda_row;

typedef struct {
    const void *logits; /* [seqs][stride], device, 16-byte aligned; not changed */
    bt_dtype dtype;     /* F32 or BF16 */
    uint32_t seqs, vocab;
    size_t stride; /* logits from row to row: a multiple of 8, at least vocab */
    const bt_sample_cuda_row *rows;
    bt_token *ret_tokens; /* [seqs], device */
    void *work;           /* bt_sample_cuda_work_bytes, device; anything in it */
    bool greedy; /* every row is: no temperature, logprobs, penalties, bias or min_tokens */
    int arch;    /* bt_cuda_arch(): 90 and up have clusters */
} bt_sample_cuda_args;

/* Everything but position, prompt_count, bans, bias and history, which are 0. */
bt_sample_cuda_row bt_sample_cuda_row_of(const bt_sampling *sampling, uint32_t vocab);

size_t bt_sample_cuda_work_bytes(uint32_t seqs, uint32_t vocab, int arch);

bt_status bt_sample_cuda(const bt_sample_cuda_args *op, cudaStream_t stream, bt_err *err);

#endif
