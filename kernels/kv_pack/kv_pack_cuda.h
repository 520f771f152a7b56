/* kv_pack_cuda.h - kv_pack.h on a GPU: a whole frame in one launch.
 *
 * A frame is one layer, a range of runs and a range of heads of one sequence, records in the order of
 * the wire: for run: for head: K, V. Records and digest are bit for bit those of bt_kv_pack and
 * bt_kv_unpack.
 *
 * KEY     bt_kv_digest_key_make's words, uploaded once for each pair and record size.
 * WORK    A frame's digest is gathered in bt_kv_pack_cuda_work: zeroed by its owner once, left zeroed
 *         by every launch; launches that share one run in stream order.
 * DIGEST  ret_digest is written once, when all else is stored, to device memory or pinned host
 *         memory: a host that waited for an event behind the launch reads it there.
 * H1, H2  Each byte of the source is loaded once, into registers, from where it is both digested and
 *         stored: what was digested is what was stored, even if a hostile peer rewrites src.
 * SCALES  that arrive are taken as finite, as bt_row_encode makes them: with another scale the pool's
 *         codes of that row are not specified (the digest is). */
#ifndef BT_KERNELS_KV_PACK_KV_PACK_CUDA_H
#define BT_KERNELS_KV_PACK_KV_PACK_CUDA_H

#include "kernels/cuda.h"
#include "kernels/kv_pack/kv_pack.h"

typedef struct {
    uint64_t lane[2];
    uint32_t blocks_done, zero;
} bt_kv_pack_cuda_work;

typedef struct {
    bt_kv_view
        kv; /* base in device memory; F32, BF16, FP8_E4M3 or INT8; head_dim a multiple of 16 */
    bt_dtype wire; /* one of the same */
    uint32_t layer;
    uint32_t run_first, run_count;
    uint32_t head_first, head_count;
    uint32_t token_end;     /* of the sequence, in the last run */
    const uint32_t *blocks; /* device: table of the sequence, covering token_end tokens */
    uint8_t *records; /* device, 16-byte aligned: the frame, written by pack, read by unpack */
    const uint32_t *key_words;  /* device: bt_kv_digest_key.words, record bytes + 16 */
    uint8_t key_prf[16];        /* bt_kv_digest_key.prf */
    bt_kv_pack_cuda_work *work; /* device */
    uint64_t *ret_digest;       /* [2], device or pinned host */
    int arch; /* bt_cuda_arch(): from 90 on a launch begins while the last one ends */
} bt_kv_frame_cuda;

bt_status bt_kv_pack_cuda(const bt_kv_frame_cuda *frame, cudaStream_t stream, bt_err *err);
bt_status bt_kv_unpack_cuda(const bt_kv_frame_cuda *frame, cudaStream_t stream, bt_err *err);

#endif
