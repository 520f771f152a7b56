#include "common/kv/wire.h"

#include "kernels/kv_pack/kv_pack.h"

#include <assert.h>

#define RUNS_MAX (BT_CONTEXT_TOKENS_MAX / BT_RUN_TOKENS)

size_t bt_wire_record_bytes(const bt_wire_shape *wire)
{
    return bt_kv_record_bytes(wire->dtype, wire->head_dim);
}

size_t bt_wire_frame_bytes(const bt_wire_shape *wire, uint32_t run_count, uint32_t head_count)
{
    size_t bytes = bt_wire_record_bytes(wire) * 2;
    if (__builtin_mul_overflow(bytes, (size_t)head_count, &bytes)) return 0;
    if (__builtin_mul_overflow(bytes, (size_t)run_count, &bytes)) return 0;
    return bytes;
}

uint32_t bt_wire_runs_per_cell(const bt_wire_shape *wire, uint32_t head_count, size_t cell_bytes)
{
    size_t run_bytes = bt_wire_frame_bytes(wire, 1, head_count);
    if (run_bytes == 0) return 0;
    size_t runs = cell_bytes / run_bytes;
    return runs < RUNS_MAX ? (uint32_t)runs : RUNS_MAX;
}

bt_status bt_wire_frame_check(const bt_wire_shape *wire, const bt_kv_shape *pool,
                              const bt_frame *frame, uint32_t cell_count, size_t cell_bytes,
                              bt_err *err)
{
    assert(wire->head_dim == pool->head_dim);
    if (frame->layer >= pool->layers)
        return BT_FAIL(err, BT_ERR_FORMAT, "frame layer is %u of %u", frame->layer, pool->layers);
    uint64_t head_end = (uint64_t)frame->head_first + frame->head_count;
    if (frame->head_count == 0 || head_end > pool->kv_heads)
        return BT_FAIL(err, BT_ERR_FORMAT, "frame head_first %u + head_count %u of %u heads",
                       frame->head_first, frame->head_count, pool->kv_heads);
    uint64_t run_end = (uint64_t)frame->run_first + frame->run_count;
    if (frame->run_count == 0 || run_end > RUNS_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "frame run_first %u + run_count %u of %u runs",
                       frame->run_first, frame->run_count, RUNS_MAX);
    if (frame->token_end <= (run_end - 1) * BT_RUN_TOKENS ||
        frame->token_end > run_end * BT_RUN_TOKENS)
        return BT_FAIL(err, BT_ERR_FORMAT, "frame token_end %u is not in its last run %u",
                       frame->token_end, (unsigned)(run_end - 1));
    if (frame->cell >= cell_count)
        return BT_FAIL(err, BT_ERR_FORMAT, "frame cell is %u of %u", frame->cell, cell_count);
    size_t bytes = bt_wire_frame_bytes(wire, frame->run_count, frame->head_count);
    if (bytes == 0 || bytes > cell_bytes)
        return BT_FAIL(err, BT_ERR_FORMAT, "frame bytes %zu do not fit a cell of %zu", bytes,
                       cell_bytes);
    return BT_OK;
}

_Static_assert(sizeof(((bt_kv_digest *)0)->lane) == 2 * sizeof(uint64_t), "two lanes");

/* What walks a frame: pack and unpack differ only in the call for each record. */
typedef struct {
    const bt_kv_pack_ops *ops;
    const bt_frame *frame;
    bt_kv_record record; /* of the first record */
    bt_kv_digest_key key;
    size_t record_bytes;
} frame_walk;

static void walk_init(frame_walk *walk, const bt_kv_view *kv, const bt_wire_shape *wire,
                      const bt_frame *frame, const uint32_t *blocks,
                      const uint8_t key[BT_KEY_BYTES])
{
    assert(wire->head_dim == kv->shape.head_dim);
    walk->ops = bt_kv_pack_best();
    walk->frame = frame;
    walk->record =
        (bt_kv_record){.kv = kv, .blocks = blocks, .wire = wire->dtype, .layer = frame->layer};
    walk->record_bytes = bt_wire_record_bytes(wire);
    bt_kv_digest_key_make(key, walk->record_bytes, &walk->key);
}

/* The index-th record of the frame: runs, then heads, then K before V. */
static bt_kv_record record_at(const frame_walk *walk, size_t index)
{
    const bt_frame *frame = walk->frame;
    bt_kv_record record = walk->record;
    record.part = index % 2 == 0 ? BT_KV_K : BT_KV_V;
    record.head = frame->head_first + (uint32_t)(index / 2 % frame->head_count);
    record.run = frame->run_first + (uint32_t)(index / 2 / frame->head_count);
    record.rows = frame->token_end - record.run * BT_RUN_TOKENS;
    if (record.rows > BT_RUN_TOKENS) record.rows = BT_RUN_TOKENS;
    return record;
}

static size_t record_count(const bt_frame *frame)
{
    return (size_t)frame->run_count * frame->head_count * 2;
}

void bt_wire_pack(const bt_kv_view *kv, const bt_wire_shape *wire, const bt_frame *frame,
                  const uint32_t *blocks, const uint8_t key[BT_KEY_BYTES], uint8_t *dst,
                  bt_kv_digest *ret_digest)
{
    frame_walk walk;
    walk_init(&walk, kv, wire, frame, blocks, key);
    *ret_digest = (bt_kv_digest){0};
    for (size_t i = 0; i < record_count(frame); i++) {
        bt_kv_record record = record_at(&walk, i);
        bt_kv_pack(walk.ops, &record, &walk.key, dst + i * walk.record_bytes, ret_digest->lane);
    }
}

void bt_wire_unpack(const bt_kv_view *kv, const bt_wire_shape *wire, const bt_frame *frame,
                    const uint32_t *blocks, const uint8_t key[BT_KEY_BYTES], const uint8_t *src,
                    bt_kv_digest *ret_digest)
{
    frame_walk walk;
    walk_init(&walk, kv, wire, frame, blocks, key);
    *ret_digest = (bt_kv_digest){0};
    for (size_t i = 0; i < record_count(frame); i++) {
        bt_kv_record record = record_at(&walk, i);
        bt_kv_unpack(walk.ops, &record, &walk.key, src + i * walk.record_bytes, ret_digest->lane);
    }
    walk.ops->settle();
}
