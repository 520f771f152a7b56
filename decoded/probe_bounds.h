/* probe_bounds.h - how far a peer's probe KV may lie from ours: relative L2 for each part, layer and head.
 *
 * The bounds are three times what tests/bench/bench_probe.c measured on the demo model, for every triple of (P's pool,
 * wire, D's pool), and 0.02 at least (docs/probe-bounds.md). A pair of other weights must err by three times its bound:
 * layers that changed places err by 9, weights with 30 % of noise by 0.8, and the largest bound is 0.15. */
#ifndef BT_DECODED_PROBE_BOUNDS_H
#define BT_DECODED_PROBE_BOUNDS_H

#include "common/base/dtype.h"

double bt_probe_bound(bt_dtype prefill_pool, bt_dtype wire, bt_dtype decode_pool);

#endif
