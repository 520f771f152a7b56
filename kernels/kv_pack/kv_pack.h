/* kv_pack.h - one record between a paged pool and its wire form, digested on the way.
 *
 * WHAT    Pack gathers the 64 rows of (layer, part, head, run) from the pool's blocks, converts
 *         them and digests the wire bytes; unpack digests the wire bytes, converts and scatters.
 *         Both walk the record once, in tiles of 16 rows that stay in the first cache.
 *
 * RECORD  codes [64][head_dim] of the wire dtype, then, if it is scaled, scales [64] of f16.
 *         16 rows are a multiple of 16 bytes whatever head_dim is, so tiles have no seams; every
 *         block size is a multiple of 16 rows, so a tile lies within one block.
 *
 * CONVERT The same dtype on both sides is copied bit for bit, scales included. Anything else goes
 *         through f32 by bt_row_decode and bt_row_encode (kernels/numerics.h). Rows at or beyond
 *         `rows` are zero on the wire and left untouched in the pool.
 *
 * DIGEST  Let w be the record's 32-bit words and k the key's stream. Lane j of the record is
 *
 *             NH_j = sum over pairs i of (w[2i] + k[2i + 4j]) * (w[2i + 1] + k[2i + 1 + 4j])
 *
 *         with additions modulo 2^32, products and sums modulo 2^64: NH of UMAC with its Toeplitz
 *         shift, so two different records of equal size agree in both lanes with probability at
 *         most 2^-64 over the key. What is added to the sums is PRF(NH_0, NH_1, size, layer, head,
 *         run, part), SipHash-2-4 of 128 bits, which ties the value to its place: NH alone would
 *         not see two records swapped. Records, frames and shards then add modulo 2^64, in any
 *         order. Without the key, r records that differ somewhere have the right sums with
 *         probability at most about r 2^-64.
 *
 * ADD ONE A variant is one file with one bt_kv_pack_ops of these loops and a row in kv_pack.c.
 *         Every variant gives bit for bit what kv_pack_ref.c gives. */
#ifndef BT_KERNELS_KV_PACK_KV_PACK_H
#define BT_KERNELS_KV_PACK_KV_PACK_H

#include "common/base/crypto.h"
#include "common/base/limits.h"
#include "kernels/kv.h"

#include <stdalign.h>
#include <stdbool.h>

#define BT_KV_TILE_ROWS 16u
/* The largest record, f32 of head_dim 256, and the shift of the second lane. */
#define BT_KV_DIGEST_WORDS_MAX (BT_RUN_TOKENS * BT_HEAD_DIM_MAX + BT_RUN_TOKENS / 2 + 4)

/* Made once for each frame from the pair's key; 64 KiB at most, so that it may lie on the stack. */
typedef struct {
    uint8_t prf[16];
    uint32_t bytes; /* record size it was made for */
    alignas(32) uint32_t words[BT_KV_DIGEST_WORDS_MAX];
} bt_kv_digest_key;

typedef struct {
    const bt_kv_view *kv;
    const uint32_t *blocks; /* table of the sequence, covering 64 run + rows tokens */
    bt_dtype wire;
    uint32_t layer, head, run;
    bt_kv_part part;
    uint32_t rows; /* tokens of this run that are valid, 1 .. 64 */
} bt_kv_record;

/* The loops that variants differ in. bytes is a multiple of 16; key begins at the word of the
 * record that src begins at; sums are added to ret_nh. */
typedef struct {
    const char *name;
    bool (*runs_here)(void);
    /* dst may not overlap src. Loads each byte of src once: what was summed is what was stored. */
    void (*copy)(const uint8_t *src, size_t bytes, const uint32_t *key, uint8_t *dst,
                 uint64_t ret_nh[2]);
    /* The same for a dst that this thread does not read soon. */
    void (*land)(const uint8_t *src, size_t bytes, const uint32_t *key, uint8_t *dst,
                 uint64_t ret_nh[2]);
    /* After the last record of a frame: makes what land stored visible to other threads. */
    void (*settle)(void);
    void (*sum)(const uint8_t *src, size_t bytes, const uint32_t *key, uint64_t ret_nh[2]);
    /* codes [rows][head_dim] and scales [rows] (NULL if unscaled) to values [rows][head_dim]. */
    void (*decode)(bt_dtype dtype, const uint8_t *codes, const uint16_t *scales, uint32_t rows,
                   uint32_t head_dim, float *ret_values);
    void (*encode)(bt_dtype dtype, const float *values, uint32_t rows, uint32_t head_dim,
                   uint8_t *ret_codes, uint16_t *ret_scales);
} bt_kv_pack_ops;

extern const bt_kv_pack_ops bt_kv_pack_ref;
extern const bt_kv_pack_ops bt_kv_pack_avx2;
extern const bt_kv_pack_ops bt_kv_pack_avx512;

/* The fastest variant that this machine runs. */
const bt_kv_pack_ops *bt_kv_pack_best(void);

/* 64 rows of codes, and of scales, are multiples of 16 bytes as they are: no padding. */
size_t bt_kv_record_bytes(bt_dtype wire, uint32_t head_dim);

void bt_kv_digest_key_make(const uint8_t key[BT_KEY_BYTES], size_t record_bytes,
                           bt_kv_digest_key *ret_key);

/* dst, src: bt_kv_record_bytes, 16-byte aligned. The record's digest is added to sum. */
void bt_kv_pack(const bt_kv_pack_ops *ops, const bt_kv_record *record, const bt_kv_digest_key *key,
                uint8_t *dst, uint64_t sum[2]);
/* Followed by ops->settle before another thread reads the pool. */
void bt_kv_unpack(const bt_kv_pack_ops *ops, const bt_kv_record *record,
                  const bt_kv_digest_key *key, const uint8_t *src, uint64_t sum[2]);

#endif
