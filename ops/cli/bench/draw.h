/* draw.h - what a load draws at random: lengths and arrival times. The same seed gives the same
 * load on every machine. Pure. */
#ifndef BT_OPS_CLI_BENCH_DRAW_H
#define BT_OPS_CLI_BENCH_DRAW_H

#include "common/base/rng.h"
#include "common/base/status.h"

#define BT_DRAW_TOKENS_MAX 2000000u

/* How many tokens: always the same, uniform over [a, b], or log-normal with mean a and standard
 * deviation b of the lengths themselves (not of their logarithms). */
typedef struct {
    enum { BT_LENGTH_FIXED, BT_LENGTH_UNIFORM, BT_LENGTH_LOGNORMAL } kind;
    double a, b;
} bt_length;

/* "512", "uniform:100-900", "lognormal:512,200". Errors: ERR_ARGUMENT. */
bt_status bt_length_parse(const char *text, bt_length *ret_length, bt_err *err);
/* 1 to BT_DRAW_TOKENS_MAX. Log-normal lengths are rounded and cut to that. */
uint32_t bt_length_draw(const bt_length *length, bt_rng *rng);
/* The largest that is at all likely, for checks before a run: a, b, or mean + 6 sd. */
uint32_t bt_length_likely_max(const bt_length *length);

/* Times between arrivals are gamma-distributed with mean 1 / rate and shape burstiness: 1 is a
 * Poisson process, less is burstier, more is more regular. */
typedef struct {
    bt_rng rng;
    double rate, burstiness; /* 1/s; both > 0 */
    double at_s;
} bt_arrivals;

void bt_arrivals_init(bt_arrivals *arrivals, double rate, double burstiness, uint64_t seed);
/* The next arrival, in ns since the beginning. */
uint64_t bt_arrivals_next_ns(bt_arrivals *arrivals);

/* A seed of its own for each thing that is drawn: stream says which, index which one of them. */
uint64_t bt_draw_seed(uint64_t seed, uint64_t stream, uint64_t index);

/* Standard normal, mean 0 and variance 1 (Box and Muller's method, one of its two values). */
double bt_draw_normal(bt_rng *rng);

#endif
