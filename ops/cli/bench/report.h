/* report.h - what a run gives: a table for people, a JSON document for programs.
 *
 * JSON  "schema": BT_REPORT_SCHEMA; docs/bench.md tells its members. Times are in seconds, rates per
 *       second. A member is added without a new schema number, and removed or changed with one. */
#ifndef BT_OPS_CLI_BENCH_REPORT_H
#define BT_OPS_CLI_BENCH_REPORT_H

#include "ops/cli/bench/scrape.h"
#include "ops/cli/bench/summary.h"

#include <stdio.h>

#define BT_REPORT_SCHEMA "baton-bench/1"

/* What stays the same in the run's two servers, and the client's own figures. */
typedef struct {
    int argc;
    char **argv;           /* the command line */
    const char *load_text; /* "closed loop, 16 in flight; 200 requests of …" */
    uint64_t seed;
    const bt_slo *slo;
    bool open_loop, together, interrupted, samples;
    uint32_t blocks, warmup;
    double client_cpu_share; /* of one core, while measuring */
    bt_client_load client_load;
    double load_before, load_after; /* load averages of this machine */
    uint64_t began_wall_ns;
    const bt_server *servers;
    unsigned server_count;
    const bt_result *results[BT_RUN_SERVERS_MAX];
    bt_summary summaries[BT_RUN_SERVERS_MAX];
    const bt_scrape *handoff;     /* of the first server's fleet while measuring; NULL = none */
    unsigned daemons_unreachable; /* whose metrics are not in it */
} bt_report;

void bt_report_table(bt_report *report, FILE *out);
/* Errors: ERR_OS, ERR_LIMIT, ERR_NO_MEMORY. */
bt_status bt_report_json(bt_report *report, const char *path, bt_err *err);

/* "Intel(R) Xeon(R) …" of this machine, or "unknown". */
void bt_report_cpu(char *ret_text, size_t capacity);

#endif
