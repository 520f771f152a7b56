#include "common/base/clock.h"

#include <assert.h>
#include <stddef.h>
#include <time.h>

static uint64_t read_clock(clockid_t id)
{
    struct timespec at;
    int rc = clock_gettime(id, &at);
    assert(rc == 0 && at.tv_sec >= 0);
    return (uint64_t)at.tv_sec * BT_NS_PER_S + (uint64_t)at.tv_nsec;
}

static uint64_t real_now(void *ctx)
{
    (void)ctx;
    return bt_monotonic_ns();
}

bt_clock bt_clock_real(void)
{
    return (bt_clock){.now = real_now, .ctx = NULL};
}

uint64_t bt_monotonic_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t bt_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

uint64_t bt_wall_s(void)
{
    return bt_wall_ns() / BT_NS_PER_S;
}
