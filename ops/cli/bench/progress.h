/* progress.h - one line on stderr that is written over while a run goes on; nothing unless stderr is
 * a terminal. Whoever calls show bounds how often. */
#ifndef BT_OPS_CLI_BENCH_PROGRESS_H
#define BT_OPS_CLI_BENCH_PROGRESS_H

#include "ops/cli/bench/run.h"

typedef struct {
    bool on;
    unsigned servers;
    uint64_t requests, duration_ns; /* 0 = not by that; of one server */
    uint64_t began_ns;
} bt_progress;

void bt_progress_init(bt_progress *progress, unsigned servers, uint64_t requests,
                      uint64_t duration_ns, bool quiet);
void bt_progress_begin(bt_progress *progress, uint64_t now_ns);
/* bt_run_options.on_progress. */
void bt_progress_show(void *progress, const bt_result *results, uint32_t in_flight, bool warmup);
/* Clears the line. */
void bt_progress_end(bt_progress *progress);

/* The line itself, without a terminal's control characters. */
void bt_progress_text(const bt_progress *progress, uint64_t now_ns, uint64_t ended, uint64_t failed,
                      uint32_t in_flight, char *ret_text, size_t capacity);

#endif
