#include "common/kv/wire.h"

#include <assert.h>

#define RUNS_MAX (BT_CONTEXT_TOKENS_MAX / BT_RUN_TOKENS)

static size_t pad16(size_t bytes)
{
    return (bytes + 15) & ~(size_t)15;
}

size_t bt_wire_record_bytes(const bt_wire_shape *wire)
{
    size_t codes = pad16((size_t)BT_RUN_TOKENS * wire->head_dim * bt_dtype_bytes(wire->dtype));
    size_t scales = bt_dtype_scaled(wire->dtype) ? BT_RUN_TOKENS * sizeof(uint16_t) : 0;
    return codes + pad16(scales);
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
