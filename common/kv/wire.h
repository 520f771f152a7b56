/* wire.h - the canonical form of KV between machines, independent of either pool's block size,
 * layout and dtype.
 *
 * RECORD  (layer, head, run of 64 tokens, K or V), of fixed stride:
 *             codes  [64][head_dim] of the wire dtype
 *             scales [64] of f16, if the dtype is scaled
 *         both multiples of 16 bytes; rows beyond the sequence's end are zero, so that no other
 *         tenant's bytes travel.
 *
 * FRAME   for run in [run_first, +run_count): for head in [head_first, +head_count): record K,
 *         record V. One frame is one contiguous put of bt_wire_frame_bytes.
 *
 * DIGEST  two 64-bit lanes for each record, tied to its (layer, head, run, part), summed modulo
 *         2^64: frames of one handoff and shards of one frame simply add up. The construction and
 *         its bound are in kernels/kv_pack/kv_pack.h. The key is the pair's, so that a daemon that
 *         cannot read the control plane cannot forge a digest.
 *
 * Pack = gather + quantize + digest in one loop; unpack = digest + convert + scatter in one loop.
 * The same dtype on both sides of a conversion is copied bit for bit, scales included. Both take
 * about 100 KiB of stack. */
#ifndef BT_COMMON_KV_WIRE_H
#define BT_COMMON_KV_WIRE_H

#include "common/base/status.h"
#include "kernels/kv.h"
#include "proto/msg.h"

typedef struct {
    bt_dtype dtype; /* F32, BF16, FP8_E4M3 or INT8 */
    uint32_t head_dim;
} bt_wire_shape;

size_t bt_wire_record_bytes(const bt_wire_shape *wire);
/* 0 on overflow. */
size_t bt_wire_frame_bytes(const bt_wire_shape *wire, uint32_t run_count, uint32_t head_count);
/* Runs of head_count heads that fit in a cell; 0 if not even one. */
uint32_t bt_wire_runs_per_cell(const bt_wire_shape *wire, uint32_t head_count, size_t cell_bytes);

/* Range checks of a frame that a peer names against our own shape and slot: layer, heads, runs,
 * token_end, cell, size in cell_bytes. Errors: ERR_FORMAT naming the field. */
bt_status bt_wire_frame_check(const bt_wire_shape *wire, const bt_kv_shape *pool,
                              const bt_frame *frame, uint32_t cell_count, size_t cell_bytes,
                              bt_err *err);

/* Gathers the frame from the pool into dst [bt_wire_frame_bytes] in wire form and digests it.
 * blocks: table of the sequence, covering token_end tokens. */
void bt_wire_pack(const bt_kv_view *kv, const bt_wire_shape *wire, const bt_frame *frame,
                  const uint32_t *blocks, const uint8_t key[BT_KEY_BYTES], uint8_t *dst,
                  bt_kv_digest *ret_digest);

/* Scatters src into the pool's blocks (which nobody reads yet) and digests what it read. Reads each
 * byte of src exactly once: what was digested is what was stored, even if a hostile peer rewrites
 * src meanwhile. */
void bt_wire_unpack(const bt_kv_view *kv, const bt_wire_shape *wire, const bt_frame *frame,
                    const uint32_t *blocks, const uint8_t key[BT_KEY_BYTES], const uint8_t *src,
                    bt_kv_digest *ret_digest);

#endif
