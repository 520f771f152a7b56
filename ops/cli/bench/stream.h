/* stream.h - one streamed answer of an OpenAI-compatible server: what it said and when it was read.
 *
 * FLOW    init -> (begin -> feed … -> end)* -> finish
 * TIME    Everything of one feed was read from the socket at one moment, which the caller gives.
 * TOKENS  are counted, in this order of trust, by the ids in an event (token_ids), by the running
 *         usage of an event (continuous_usage_stats), or else by events that carry text; `counted`
 *         says which. The total is the server's usage where it gives one. Where events were counted
 *         and the usage says another number, the gaps are those between events: gaps_inexact.
 * GAPS    of a token is the time since the token before it. Tokens that came in one event came at
 *         one moment: the first has the gap, the others have 0.
 * TRUST   What the server sends is hostile: bounds of sse.h, JSON depth by jansson, numbers checked. */
#ifndef BT_OPS_CLI_BENCH_STREAM_H
#define BT_OPS_CLI_BENCH_STREAM_H

#include "ops/cli/bench/samples.h"
#include "ops/cli/bench/sse.h"

#define BT_STREAM_TOKENS_MAX (1u << 24)

typedef enum { BT_COUNTED_EVENTS, BT_COUNTED_USAGE, BT_COUNTED_IDS } bt_stream_counted;

typedef struct {
    bt_sse sse;
    uint64_t now_ns;            /* of the feed that runs */
    uint64_t first_ns, last_ns; /* of the first and the latest token; 0 = none */
    uint32_t tokens;            /* as counted */
    uint32_t token_events;      /* events that carried any */
    uint32_t prompt_tokens, output_tokens, cached_tokens; /* of the usage, if usage_seen */
    bt_stream_counted counted;
    bool usage_seen, done, gaps_inexact;
    bool refused;    /* the server sent an error event: the message of err is its */
    bt_samples gaps; /* ns, in order of tokens, one fewer than tokens */
} bt_stream;

void bt_stream_init(bt_stream *stream);
void bt_stream_finish(bt_stream *stream);
void bt_stream_begin(bt_stream *stream); /* forgets the answer before */

/* Errors: ERR_FORMAT or ERR_LIMIT (not what a server may send), ERR_PEER_LOST (an error event),
 * ERR_NO_MEMORY. */
bt_status bt_stream_feed(bt_stream *stream, const char *bytes, size_t count, uint64_t now_ns,
                         bt_err *err);
/* The answer is over. Errors: ERR_FORMAT if it is so before [DONE], or without a token. */
bt_status bt_stream_end(bt_stream *stream, bt_err *err);

/* The "message" of an OpenAI error, {"error": {"message": …}} or {"message": …}, escaped into
 * ret_text; the beginning of the bytes themselves if there is none. */
void bt_openai_error_text(const char *bytes, size_t count, char *ret_text, size_t capacity);

#endif
