/* main.c - baton-sim --seeds FROM-TO: each seed is a world; a failing one prints the line that
 * replays it. */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: baton-sim --seeds FROM-TO [--trace] [--coverage]\n"
    "  Runs the daemons' cores on virtual time with faults drawn from each seed and checks\n"
    "  the handoff's rules after every event. Ends with `N seeds, N failed`.\n"
    "  --trace     prints every message and fault (of few seeds).\n"
    "  --coverage  counts which messages met which faults and which corners were reached;\n"
    "              fails if any of them never was.\n";

static bool parse_seeds(const char *text, uint64_t *ret_from, uint64_t *ret_to)
{
    int end = 0;
    if (sscanf(text, "%" SCNu64 "-%" SCNu64 "%n", ret_from, ret_to, &end) == 2 && text[end] == '\0')
        return *ret_from <= *ret_to;
    if (sscanf(text, "%" SCNu64 "%n", ret_from, &end) == 1 && text[end] == '\0') {
        *ret_to = *ret_from;
        return true;
    }
    return false;
}

typedef struct {
    uint64_t seeds, failed, events, finished, cancelled, lost, retries, quarantines,
        refused_digests, landed, stale;
    sim_tally tally;
} totals;

static void run_seed(uint64_t seed, bool trace, const char *program, totals *sum)
{
    static world w;
    world_init(&w, seed, trace);
    if (trace) scenario_print(&w);
    world_run(&w);
    sum->seeds++;
    sum->events += w.events;
    sum->retries += w.retries;
    sum->quarantines += w.quarantines;
    sum->refused_digests += w.refused_digests;
    sum->landed += w.landed;
    sum->stale += w.stale;
    tally_add(&sum->tally, &w.tally);
    for (uint32_t i = 0; i < w.sc.requests; i++) {
        bt_finish_reason reason = w.requests[i].reason;
        if (reason == BT_FINISH_STOP || reason == BT_FINISH_LENGTH) sum->finished++;
        if (reason == BT_FINISH_CANCELLED) sum->cancelled++;
        if (reason == BT_FINISH_FAILED) sum->lost++;
    }
    if (w.failed) {
        sum->failed++;
        printf("seed %" PRIu64 " failed at %.3f ms: %s\n  replay: %s --seeds %" PRIu64 " --trace\n",
               seed, (double)w.now_ns / 1e6, w.failure, program, seed);
    }
    world_free(&w);
}

int main(int argc, char **argv)
{
    uint64_t from = 0, to = 0;
    bool trace = false, seeds = false, coverage = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return 0;
        }
        if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (strcmp(argv[i], "--coverage") == 0) {
            coverage = true;
        } else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc &&
                   parse_seeds(argv[i + 1], &from, &to)) {
            seeds = true;
            i++;
        } else {
            fprintf(stderr, "baton-sim: '%s' is not understood\n%s", argv[i], usage);
            return 2;
        }
    }
    if (!seeds) {
        fputs(usage, stderr);
        return 2;
    }
    static totals sum;
    for (uint64_t seed = from;; seed++) {
        run_seed(seed, trace, argv[0], &sum);
        if (seed == to) break;
    }
    uint32_t holes = coverage ? tally_print(&sum.tally) : 0;
    printf("%" PRIu64 " events; requests: %" PRIu64 " finished, %" PRIu64 " cancelled, %" PRIu64
           " failed; %" PRIu64 " retried, %" PRIu64 " puts landed, %" PRIu64
           " quarantines, %" PRIu64 " digests refused, %" PRIu64 " stale messages dropped\n",
           sum.events, sum.finished, sum.cancelled, sum.lost, sum.retries, sum.landed,
           sum.quarantines, sum.refused_digests, sum.stale);
    printf("%" PRIu64 " seeds, %" PRIu64 " failed\n", sum.seeds, sum.failed);
    return sum.failed == 0 && holes == 0 ? 0 : 1;
}
