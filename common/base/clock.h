/* clock.h - the two clocks of a daemon, and the seam through which everything else sees time.
 *
 * Deadlines, leases and periods use the monotonic clock only; wall time is for logs and for the
 * `created` field of answers. Cores never read a clock: they are given now_ns. Code that must read
 * one takes a bt_clock, so that the simulator and tests put their own behind it. */
#ifndef BT_COMMON_BASE_CLOCK_H
#define BT_COMMON_BASE_CLOCK_H

#include <stdint.h>

#define BT_NS_PER_US 1000ull
#define BT_NS_PER_MS 1000000ull
#define BT_NS_PER_S 1000000000ull

typedef struct {
    uint64_t (*now)(void *ctx); /* monotonic, in ns; never goes back */
    void *ctx;
} bt_clock;

/* The clock of this machine. */
bt_clock bt_clock_real(void);

static inline uint64_t bt_clock_now_ns(const bt_clock *clock)
{
    return clock->now(clock->ctx);
}

/* Time since an arbitrary moment; stands still while the machine is suspended. */
uint64_t bt_monotonic_ns(void);

/* Time since 1970-01-01 UTC. */
uint64_t bt_wall_ns(void);
uint64_t bt_wall_s(void);

#endif
