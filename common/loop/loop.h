/* loop.h - one libuv loop for each thread: timers, wake-ups from other threads, signals, and
 * sources that must be asked before the loop may sleep.
 *
 * FLOW    bt_loop_create -> timers, wakes, sources, … -> bt_loop_run (until bt_loop_stop) -> every
 *         owner closes what it opened -> bt_loop_destroy, which runs the close callbacks and asserts
 *         that nothing was left open.
 * SOURCE  ZeroMQ and UCX signal by an edge: their descriptor says "look", and any call on them may
 *         swallow that edge. So the descriptor only ends the sleep. Each turn of the loop calls
 *         drain once, after polling, and before_sleep once, as the last thing before polling: it
 *         asks the library itself whether something is waiting. If so the loop polls without
 *         sleeping. Between before_sleep and the sleep nothing else of ours runs.
 * AWAKE   Waking a thread costs tens of microseconds, and asking UCX to wake it costs a launch on the GPU
 *         for each put in flight. Who knows that something is due soon keeps the loop awake until then: its
 *         sources are drained turn after turn without being asked. It burns a core meanwhile.
 * OWNS    Handles belong to who opened them and close asynchronously: after …_close no callback of
 *         theirs comes any more, and the memory goes at the end of that turn. Closing is allowed
 *         inside any callback, a handle's own included. NULL is allowed.
 * THREAD  All of it on the thread that runs the loop, except bt_loop_wake_send.
 * SIGNALS bt_loop_create ignores SIGPIPE for the process, since libuv writes with write(2). */
#ifndef BT_COMMON_LOOP_LOOP_H
#define BT_COMMON_LOOP_LOOP_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct bt_loop bt_loop;
typedef struct bt_loop_timer bt_loop_timer;
typedef struct bt_loop_wake bt_loop_wake;
typedef struct bt_loop_source bt_loop_source;
typedef struct uv_loop_s bt_uv_loop;

typedef void (*bt_loop_fn)(void *arg);

bt_status bt_loop_create(bt_loop **ret_loop, bt_err *err);
/* Every handle must be closed before; a handle that is not asserts. NULL is allowed. */
void bt_loop_destroy(bt_loop *loop);

/* Returns after bt_loop_stop, whatever is still open; may be called again. */
void bt_loop_run(bt_loop *loop);
/* From a callback of this loop; also before run, which then returns after one turn. */
void bt_loop_stop(bt_loop *loop);

/* Until that time of bt_loop_now_ns the loop turns without sleeping; 0 = let it sleep again. Without a
 * source it does nothing. */
void bt_loop_keep_awake(bt_loop *loop, uint64_t until_ns);

/* Monotonic nanoseconds, read now (not the loop's cached time). */
uint64_t bt_loop_now_ns(void);
/* For modules that open libuv handles of their own, as common/net does. */
bt_uv_loop *bt_loop_uv(bt_loop *loop);

/* First after first_ms, then every period_ms; period_ms 0 = once. */
bt_status bt_loop_timer_open(bt_loop *loop, uint64_t first_ms, uint64_t period_ms, bt_loop_fn fn,
                             void *arg, bt_loop_timer **ret_timer, bt_err *err);
/* Starts it anew; also after a one-shot has fired. */
void bt_loop_timer_set(bt_loop_timer *timer, uint64_t first_ms, uint64_t period_ms);
/* No more calls until the next set. */
void bt_loop_timer_stop(bt_loop_timer *timer);
/* Once, at that time of bt_loop_now_ns, not before and up to a millisecond later; UINT64_MAX = never. Cheap to call again
 * with the same deadline, as after every event of a core. */
void bt_loop_timer_at(bt_loop_timer *timer, uint64_t deadline_ns);
void bt_loop_timer_close(bt_loop_timer *timer);

/* fn runs on the loop's thread after bt_loop_wake_send from any thread. Several sends may become
 * one call: pair it with a queue. */
bt_status bt_loop_wake_open(bt_loop *loop, bt_loop_fn fn, void *arg, bt_loop_wake **ret_wake,
                            bt_err *err);
void bt_loop_wake_send(bt_loop_wake *wake);
/* No thread may send any more when this is called. */
void bt_loop_wake_close(bt_loop_wake *wake);

/* on_stop: SIGTERM or SIGINT. on_reload: SIGHUP; NULL = SIGHUP is ignored. They run on the loop's
 * thread. Once for each loop; closed by bt_loop_destroy. */
bt_status bt_loop_signals_open(bt_loop *loop, bt_loop_fn on_stop, bt_loop_fn on_reload, void *arg,
                               bt_err *err);

typedef struct {
    /* Works off at most budget items; what is left comes with the next turn. Called every turn. */
    void (*drain)(void *arg, unsigned budget);
    /* True: nothing waits, and the descriptor becomes readable when something comes. It must not
     * call back into anything but its own library. */
    bool (*before_sleep)(void *arg);
    /* After close, when libuv has let go: the place to free arg. NULL = nothing to do. */
    void (*closed)(void *arg);
} bt_loop_source_ops;

#define BT_LOOP_DRAIN_BUDGET 64u

/* fd is borrowed and stays open until bt_loop_source_close has returned. ops is not copied. */
bt_status bt_loop_source_open(bt_loop *loop, int fd, const bt_loop_source_ops *ops, void *arg,
                              bt_loop_source **ret_source, bt_err *err);
void bt_loop_source_close(bt_loop_source *source);

#endif
