/* trace.h - recorded loads: when requests came, and how long they were.
 *
 * FORMATS  One row each in trace.c; the file's first line tells which:
 *            azure     CSV "TIMESTAMP,ContextTokens,GeneratedTokens", as in Azure's LLM inference
 *                      traces: 2023-11-16 18:15:46.6805900,374,44; the time may end in +00:00 or Z
 *            mooncake  JSON lines {"timestamp": ms, "input_length": n, "output_length": n,
 *                      "hash_ids": [one for each 512 tokens of the input, begun ones too]}, as in
 *                      Mooncake's: equal hashes are equal blocks of prompt. hash_ids may be absent.
 * TIMES    of the result count from the first request. Lines that are not in order of time are
 *          sorted, equal times stay in order of the file. Lengths of 0 become 1.
 * TRUST    Files are hostile. BOUNDS  BT_TRACE_REQUESTS_MAX, BT_TRACE_BYTES_MAX,
 *          BT_DRAW_TOKENS_MAX for each length. */
#ifndef BT_OPS_CLI_BENCH_TRACE_H
#define BT_OPS_CLI_BENCH_TRACE_H

#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define BT_TRACE_REQUESTS_MAX 10000000u
#define BT_TRACE_BYTES_MAX (1ull << 30)
#define BT_TRACE_BLOCK_TOKENS 512u

typedef struct {
    uint64_t at_ns;
    uint32_t input_tokens, output_tokens;
    uint32_t order; /* line of the file, counted without the header */
    uint32_t hash_count;
    size_t first_hash; /* in the trace's hashes */
} bt_trace_request;

typedef struct {
    const char *format; /* static storage */
    bt_trace_request *requests;
    uint32_t count, capacity;
    uint64_t *hashes;
    size_t hash_count, hash_capacity;
} bt_trace;

/* At most limit requests, the first ones of the file. Errors: ERR_OS, ERR_FORMAT (names the line),
 * ERR_LIMIT, ERR_NO_MEMORY. */
bt_status bt_trace_read(const char *path, uint32_t limit, bt_trace *ret_trace, bt_err *err);
/* The same from the file's bytes; label names them in errors. */
bt_status bt_trace_parse(const char *text, size_t bytes, const char *label, uint32_t limit,
                         bt_trace *ret_trace, bt_err *err);
void bt_trace_finish(bt_trace *trace);

/* The bytes of a whole file, NUL-terminated, to be freed. Errors: ERR_OS, ERR_LIMIT,
 * ERR_NO_MEMORY. */
bt_status bt_bench_read_file(const char *path, size_t bytes_max, char **ret_text, size_t *ret_bytes,
                             bt_err *err);

#endif
