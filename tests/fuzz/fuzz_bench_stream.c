/* fuzz_bench_stream.c - any bytes as the streamed answer of a server: whatever the cut, the same is
 * read of it.
 *
 * INPUT  byte 0: how to cut; the rest is fed once whole and once in pieces of pseudo-random lengths
 *        that follow from it. */
#include "common/base/rng.h"
#include "ops/cli/bench/stream.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static bt_status feed(bt_stream *stream, const char *text, size_t bytes, uint64_t seed, bool cut,
                      bt_err *err)
{
    bt_rng rng;
    bt_rng_init(&rng, seed);
    bt_stream_init(stream);
    for (size_t at = 0; at < bytes;) {
        size_t piece = cut ? 1 + bt_rng_below(&rng, 9) : bytes;
        if (piece > bytes - at) piece = bytes - at;
        bt_status status = bt_stream_feed(stream, text + at, piece, 7, err);
        if (status != BT_OK) return status;
        at += piece;
    }
    return bt_stream_end(stream, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0) return 0;
    const char *text = (const char *)data + 1;
    bt_stream whole, pieces;
    bt_err whole_err = {0}, pieces_err = {0};
    bt_status status = feed(&whole, text, bytes - 1, data[0], false, &whole_err);
    assert(feed(&pieces, text, bytes - 1, data[0], true, &pieces_err) == status);
    assert(strcmp(whole_err.message, pieces_err.message) == 0);
    assert(whole.tokens == pieces.tokens && whole.output_tokens == pieces.output_tokens);
    assert(whole.done == pieces.done && whole.refused == pieces.refused);
    assert(whole.gaps.count == pieces.gaps.count && whole.counted == pieces.counted);
    if (status == BT_OK) assert(whole.done && whole.tokens > 0);
    assert(whole.gaps.count == (whole.tokens > 0 ? whole.tokens - 1 : 0));
    bt_stream_finish(&whole);
    bt_stream_finish(&pieces);
    return 0;
}
