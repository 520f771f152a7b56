/* run.h - sends a load to one server or two and notes what came back when. One thread.
 *
 * LOOPS    Closed: `concurrency` requests are in flight, the next is sent as soon as one ends. Open:
 *          requests are sent when they are due, whether others ended or not; only `concurrency`,
 *          if it is set, holds them back. A request's times count from when it was due, so that a
 *          slow server (or a slow client) cannot hide the wait of those it kept from being sent.
 *          In a closed loop a request is due when the one before it in its place ended.
 * BLOCKS   Two servers take turns: the load is cut into blocks, and each block runs on the one and
 *          then on the other (A B, B A, A B, …), each alone, from its first request to the end of
 *          its last answer. Both then meet the same noise of the machine. `together` runs both at
 *          once instead, for servers on machines of their own.
 * READY    While the loop has nothing to do it writes the bodies of the next requests, so that a
 *          request that is due goes out at once.
 * MEMORY   A record for each request, 8 bytes for each token, an answer's buffers for each request
 *          in flight. */
#ifndef BT_OPS_CLI_BENCH_RUN_H
#define BT_OPS_CLI_BENCH_RUN_H

#include "ops/cli/bench/load.h"
#include "ops/cli/bench/samples.h"
#include "ops/cli/bench/server.h"
#include "ops/cli/bench/stream.h"
#include "ops/cli/http.h"

#define BT_RUN_SERVERS_MAX 2u
#define BT_RUN_ERRORS_MAX 16u
#define BT_RUN_BLOCKS_MAX 64u
#define BT_RUN_CONCURRENCY_MAX 10000u

typedef enum {
    BT_OUTCOME_OK,
    BT_OUTCOME_CONNECT,
    BT_OUTCOME_TIMEOUT,
    BT_OUTCOME_DISCONNECT,
    BT_OUTCOME_HTTP,         /* a status other than 200 */
    BT_OUTCOME_STREAM_ERROR, /* an error event after the stream had begun */
    BT_OUTCOME_MALFORMED,    /* not what a server may send, or an answer without an end */
} bt_outcome;

const char *bt_outcome_name(bt_outcome outcome);

/* Times are of the monotonic clock; first and last are 0 without a token. */
typedef struct {
    uint64_t due_ns, sent_ns, first_ns, last_ns, end_ns;
    uint32_t index, block;
    uint32_t input_asked, output_asked;                  /* 0 = not known */
    uint32_t input_tokens, output_tokens, cached_tokens; /* as the server counts; 0 = not said */
    uint32_t token_events;
    uint32_t gap_count;
    size_t first_gap; /* in the result's gaps */
    int http_status;
    bt_outcome outcome;
    bool gaps_inexact;
} bt_record;

typedef struct {
    bt_outcome outcome;
    int http_status;
    uint32_t count;
    char message[160]; /* of the first one */
} bt_run_error;

typedef struct {
    uint64_t begin_ns, end_ns;
    uint32_t first_record, record_count;
} bt_run_block;

/* What one server did. */
typedef struct {
    bt_record *records; /* in order of their ends */
    uint32_t record_count, record_capacity;
    bt_samples gaps; /* of the requests that succeeded, one after the other */
    bt_run_error errors[BT_RUN_ERRORS_MAX];
    uint32_t error_kinds, failed, cancelled, fresh_connections;
    bt_run_block blocks[BT_RUN_BLOCKS_MAX];
    uint32_t block_count;
    bt_stream_counted counted; /* the least exact way that tokens were counted */
} bt_result;

typedef struct {
    bt_server *servers; /* [server_count] */
    unsigned server_count;
    const bt_load *load;
    const bt_vocab *vocab;
    bool open_loop, together;
    uint32_t concurrency; /* 0 = no bound (open loop) */
    uint32_t requests;    /* UINT32_MAX = until duration_ns */
    uint64_t duration_ns; /* of a closed loop without a number of requests */
    uint32_t blocks;      /* at least 1 */
    uint32_t warmup;      /* requests before, to each server */
    uint64_t timeout_ms;
    /* Called now and then, and once at the end of each block. May be NULL. */
    void (*on_progress)(void *arg, const bt_result *results, uint32_t in_flight, bool warmup);
    void *arg;
} bt_run_options;

typedef struct bt_run bt_run;

bt_status bt_run_create(const bt_run_options *options, bt_client *http, bt_run **ret_run,
                        bt_err *err);
void bt_run_destroy(bt_run *run);

/* Warm-up, then (bt_run_measure) the blocks. Both end early, with OK, if the user interrupts: ask
 * bt_client_interrupted. Errors: ERR_LIMIT, ERR_NO_MEMORY, ERR_OS; never a request's. */
bt_status bt_run_warm(bt_run *run, bt_err *err);
bt_status bt_run_measure(bt_run *run, bt_err *err);

const bt_result *bt_run_result(const bt_run *run, unsigned server);

#endif
