#include "common/loop/loop.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

enum { SIGNAL_TERM, SIGNAL_INT, SIGNAL_HUP, SIGNAL_COUNT };

struct bt_loop {
    uv_loop_t uv;
    uint64_t awake_until_ns; /* 0 = it may sleep */
    uv_signal_t signals[SIGNAL_COUNT];
    bool signals_open;
    bt_loop_fn on_stop, on_reload;
    void *signal_arg;
};

struct bt_loop_timer {
    uv_timer_t uv;
    bt_loop_fn fn;
    void *arg;
    uint64_t deadline_ns; /* of timer_at; UINT64_MAX = none */
};

struct bt_loop_wake {
    uv_async_t uv;
    bt_loop_fn fn;
    void *arg;
};

/* The four handles of a source; the memory goes when the last has closed. */
struct bt_loop_source {
    uv_poll_t poll;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle;
    unsigned open_handles;
    bt_loop *loop;
    const bt_loop_source_ops *ops;
    void *arg;
};

static bt_status fail_uv(bt_err *err, const char *what, int rc)
{
    bt_status status = rc == UV_ENOMEM ? BT_ERR_NO_MEMORY : BT_ERR_OS;
    return BT_FAIL(err, status, "%s: %s", what, uv_strerror(rc));
}

bt_status bt_loop_create(bt_loop **ret_loop, bt_err *err)
{
    bt_loop *loop = calloc(1, sizeof(*loop));
    if (loop == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "event loop");
    int rc = uv_loop_init(&loop->uv);
    if (rc != 0) {
        free(loop);
        return fail_uv(err, "event loop", rc);
    }
    signal(SIGPIPE, SIG_IGN);
    *ret_loop = loop;
    return BT_OK;
}

static void assert_closing(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (uv_is_closing(handle)) return;
    fprintf(stderr, "event loop destroyed with an open %s handle\n",
            uv_handle_type_name(uv_handle_get_type(handle)));
    abort();
}

void bt_loop_destroy(bt_loop *loop)
{
    if (loop == NULL) return;
    if (loop->signals_open) {
        for (int i = 0; i < SIGNAL_COUNT; i++) uv_close((uv_handle_t *)&loop->signals[i], NULL);
    }
    uv_walk(&loop->uv, assert_closing, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    int rc = uv_loop_close(&loop->uv);
    assert(rc == 0);
    (void)rc;
    free(loop);
}

void bt_loop_run(bt_loop *loop)
{
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void bt_loop_stop(bt_loop *loop)
{
    uv_stop(&loop->uv);
}

void bt_loop_keep_awake(bt_loop *loop, uint64_t until_ns)
{
    loop->awake_until_ns = until_ns;
}

uint64_t bt_loop_now_ns(void)
{
    return uv_hrtime();
}

bt_uv_loop *bt_loop_uv(bt_loop *loop)
{
    return &loop->uv;
}

static void free_timer(uv_handle_t *handle)
{
    free(handle->data);
}

static void fire_timer(uv_timer_t *uv)
{
    bt_loop_timer *timer = uv->data;
    timer->deadline_ns = UINT64_MAX;
    timer->fn(timer->arg);
}

bt_status bt_loop_timer_open(bt_loop *loop, uint64_t first_ms, uint64_t period_ms, bt_loop_fn fn,
                             void *arg, bt_loop_timer **ret_timer, bt_err *err)
{
    bt_loop_timer *timer = calloc(1, sizeof(*timer));
    if (timer == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "timer");
    timer->fn = fn;
    timer->arg = arg;
    uv_timer_init(&loop->uv, &timer->uv);
    timer->uv.data = timer;
    bt_loop_timer_set(timer, first_ms, period_ms);
    *ret_timer = timer;
    return BT_OK;
}

void bt_loop_timer_set(bt_loop_timer *timer, uint64_t first_ms, uint64_t period_ms)
{
    timer->deadline_ns = UINT64_MAX;
    int rc = uv_timer_start(&timer->uv, fire_timer, first_ms, period_ms);
    assert(rc == 0);
    (void)rc;
}

void bt_loop_timer_stop(bt_loop_timer *timer)
{
    timer->deadline_ns = UINT64_MAX;
    uv_timer_stop(&timer->uv);
}

void bt_loop_timer_at(bt_loop_timer *timer, uint64_t deadline_ns)
{
    if (deadline_ns == timer->deadline_ns) return;
    if (deadline_ns == UINT64_MAX) {
        bt_loop_timer_stop(timer);
        return;
    }
    uint64_t now_ns = bt_loop_now_ns();
    bt_loop_timer_set(timer, deadline_ns > now_ns ? (deadline_ns - now_ns + 999999) / 1000000 : 0,
                      0);
    timer->deadline_ns = deadline_ns;
}

void bt_loop_timer_close(bt_loop_timer *timer)
{
    if (timer != NULL) uv_close((uv_handle_t *)&timer->uv, free_timer);
}

static void free_wake(uv_handle_t *handle)
{
    free(handle->data);
}

static void fire_wake(uv_async_t *uv)
{
    bt_loop_wake *wake = uv->data;
    wake->fn(wake->arg);
}

bt_status bt_loop_wake_open(bt_loop *loop, bt_loop_fn fn, void *arg, bt_loop_wake **ret_wake,
                            bt_err *err)
{
    bt_loop_wake *wake = calloc(1, sizeof(*wake));
    if (wake == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "wake-up");
    wake->fn = fn;
    wake->arg = arg;
    int rc = uv_async_init(&loop->uv, &wake->uv, fire_wake);
    if (rc != 0) {
        free(wake);
        return fail_uv(err, "wake-up", rc);
    }
    wake->uv.data = wake;
    *ret_wake = wake;
    return BT_OK;
}

void bt_loop_wake_send(bt_loop_wake *wake)
{
    uv_async_send(&wake->uv);
}

void bt_loop_wake_close(bt_loop_wake *wake)
{
    if (wake != NULL) uv_close((uv_handle_t *)&wake->uv, free_wake);
}

static void fire_signal(uv_signal_t *uv, int number)
{
    bt_loop *loop = uv->data;
    bt_loop_fn fn = number == SIGHUP ? loop->on_reload : loop->on_stop;
    if (fn != NULL) fn(loop->signal_arg);
}

bt_status bt_loop_signals_open(bt_loop *loop, bt_loop_fn on_stop, bt_loop_fn on_reload, void *arg,
                               bt_err *err)
{
    static const int numbers[SIGNAL_COUNT] = {
        [SIGNAL_TERM] = SIGTERM, [SIGNAL_INT] = SIGINT, [SIGNAL_HUP] = SIGHUP};
    assert(!loop->signals_open && on_stop != NULL);
    loop->on_stop = on_stop;
    loop->on_reload = on_reload;
    loop->signal_arg = arg;
    for (int i = 0; i < SIGNAL_COUNT; i++) {
        int rc = uv_signal_init(&loop->uv, &loop->signals[i]);
        /* The first init makes the process-wide pipe and is the only one that can fail. */
        if (rc != 0) return fail_uv(err, "signal handlers", rc);
        loop->signals[i].data = loop;
        loop->signals_open = i == SIGNAL_COUNT - 1;
    }
    for (int i = 0; i < SIGNAL_COUNT; i++) {
        int rc = uv_signal_start(&loop->signals[i], fire_signal, numbers[i]);
        if (rc != 0) return fail_uv(err, "signal handlers", rc);
    }
    return BT_OK;
}

static void wake_by_poll(uv_poll_t *uv, int status, int events)
{
    /* Only ends the sleep; drain follows in this turn. */
    (void)uv, (void)status, (void)events;
}

static void stay_awake(uv_idle_t *uv)
{
    (void)uv;
}

static void ask_before_sleep(uv_prepare_t *uv)
{
    bt_loop_source *source = uv->data;
    bt_loop *loop = source->loop;
    if (loop->awake_until_ns != 0 && bt_loop_now_ns() >= loop->awake_until_ns)
        loop->awake_until_ns = 0;
    if (loop->awake_until_ns == 0 && source->ops->before_sleep(source->arg))
        uv_idle_stop(&source->idle);
    else
        uv_idle_start(&source->idle, stay_awake);
}

static void drain_source(uv_check_t *uv)
{
    bt_loop_source *source = uv->data;
    source->ops->drain(source->arg, BT_LOOP_DRAIN_BUDGET);
}

static void source_handle_closed(uv_handle_t *handle)
{
    bt_loop_source *source = handle->data;
    assert(source->open_handles > 0);
    if (--source->open_handles > 0) return;
    if (source->ops->closed != NULL) source->ops->closed(source->arg);
    free(source);
}

bt_status bt_loop_source_open(bt_loop *loop, int fd, const bt_loop_source_ops *ops, void *arg,
                              bt_loop_source **ret_source, bt_err *err)
{
    bt_loop_source *source = calloc(1, sizeof(*source));
    if (source == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "loop source");
    source->loop = loop;
    source->ops = ops;
    source->arg = arg;
    int rc = uv_poll_init(&loop->uv, &source->poll, fd);
    if (rc != 0) {
        free(source);
        return fail_uv(err, "watching a descriptor", rc);
    }
    uv_prepare_init(&loop->uv, &source->prepare);
    uv_check_init(&loop->uv, &source->check);
    uv_idle_init(&loop->uv, &source->idle);
    source->open_handles = 4;
    source->poll.data = source->prepare.data = source->check.data = source->idle.data = source;
    uv_poll_start(&source->poll, UV_READABLE, wake_by_poll);
    uv_prepare_start(&source->prepare, ask_before_sleep);
    uv_check_start(&source->check, drain_source);
    *ret_source = source;
    return BT_OK;
}

void bt_loop_source_close(bt_loop_source *source)
{
    if (source == NULL) return;
    uv_close((uv_handle_t *)&source->poll, source_handle_closed);
    uv_close((uv_handle_t *)&source->prepare, source_handle_closed);
    uv_close((uv_handle_t *)&source->check, source_handle_closed);
    uv_close((uv_handle_t *)&source->idle, source_handle_closed);
}
