/* common/loop/loop.h: timers, wake-ups, signals, sources, orderly shutdown. */
#include "common/loop/loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    bt_loop *loop;
    bt_loop_timer *timer;
    bt_loop_wake *wake;
    bt_loop_source *source;
    unsigned fired, stops, reloads;
    unsigned waiting; /* items of the fake library behind the source */
    unsigned drained, closed;
    int fd;
} fixture;

static int setup(void **state)
{
    static fixture f;
    memset(&f, 0, sizeof(f));
    assert_int_equal(bt_loop_create(&f.loop, NULL), BT_OK);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    bt_loop_destroy(f->loop);
    return 0;
}

static void count_to_five(void *arg)
{
    fixture *f = arg;
    if (++f->fired < 5) return;
    bt_loop_timer_close(f->timer);
    bt_loop_stop(f->loop);
}

static void periodic_timer_fires_until_it_closes_itself(void **state)
{
    fixture *f = *state;
    assert_int_equal(bt_loop_timer_open(f->loop, 1, 1, count_to_five, f, &f->timer, NULL), BT_OK);
    bt_loop_run(f->loop);
    assert_int_equal(f->fired, 5);
}

static void count_and_stop(void *arg)
{
    fixture *f = arg;
    f->fired++;
    bt_loop_stop(f->loop);
}

static void one_shot_fires_once_for_each_set(void **state)
{
    fixture *f = *state;
    assert_int_equal(bt_loop_timer_open(f->loop, 1, 0, count_and_stop, f, &f->timer, NULL), BT_OK);
    bt_loop_run(f->loop);
    assert_int_equal(f->fired, 1);
    bt_loop_timer_set(f->timer, 1, 0);
    bt_loop_run(f->loop);
    assert_int_equal(f->fired, 2);
    bt_loop_timer_close(f->timer);
}

static void *send_wake(void *arg)
{
    fixture *f = arg;
    bt_loop_wake_send(f->wake);
    return NULL;
}

static void wake_comes_from_another_thread(void **state)
{
    fixture *f = *state;
    pthread_t thread;
    assert_int_equal(bt_loop_wake_open(f->loop, count_and_stop, f, &f->wake, NULL), BT_OK);
    assert_int_equal(pthread_create(&thread, NULL, send_wake, f), 0);
    bt_loop_run(f->loop);
    pthread_join(thread, NULL);
    assert_int_equal(f->fired, 1);
    bt_loop_wake_close(f->wake);
}

static void on_stop(void *arg)
{
    fixture *f = arg;
    if (++f->stops == 2) bt_loop_stop(f->loop);
}

static void on_reload(void *arg)
{
    fixture *f = arg;
    f->reloads++;
    kill(getpid(), SIGINT);
}

static void signals_reach_their_callbacks(void **state)
{
    fixture *f = *state;
    assert_int_equal(bt_loop_signals_open(f->loop, on_stop, on_reload, f, NULL), BT_OK);
    kill(getpid(), SIGHUP);
    kill(getpid(), SIGTERM);
    /* Two stops: the SIGTERM above, and the SIGINT that on_reload sends. */
    bt_loop_run(f->loop);
    assert_int_equal(f->stops, 2);
    assert_int_equal(f->reloads, 1);
}

/* A library with an edge: fd tells once, and the count of waiting items is the truth. */
static void drain(void *arg, unsigned budget)
{
    fixture *f = arg;
    eventfd_t value;
    eventfd_read(f->fd, &value);
    for (; budget > 0 && f->waiting > 0; budget--) {
        f->waiting--;
        if (++f->drained < 1000) continue;
        bt_loop_source_close(f->source);
        bt_loop_stop(f->loop);
        return;
    }
}

static bool may_sleep(void *arg)
{
    const fixture *f = arg;
    return f->waiting == 0;
}

static void source_gone(void *arg)
{
    fixture *f = arg;
    f->closed++;
}

static void source_with_one_edge_for_many_items_is_drained(void **state)
{
    static const bt_loop_source_ops ops = {
        .drain = drain, .before_sleep = may_sleep, .closed = source_gone};
    fixture *f = *state;
    f->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_true(f->fd >= 0);
    assert_int_equal(bt_loop_source_open(f->loop, f->fd, &ops, f, &f->source, NULL), BT_OK);
    f->waiting = 1000; /* more than one turn's budget, and a single edge */
    eventfd_write(f->fd, 1);
    bt_loop_run(f->loop);
    assert_int_equal(f->drained, 1000);
    close(f->fd);
}

static void source_memory_goes_after_the_loop_let_go(void **state)
{
    fixture *f = *state;
    source_with_one_edge_for_many_items_is_drained(state);
    bt_loop_destroy(f->loop);
    assert_int_equal(f->closed, 1);
    assert_int_equal(bt_loop_create(&f->loop, NULL), BT_OK);
}

#define AWAKE_NS 20000000u

static void count_turn(void *arg, unsigned budget)
{
    fixture *f = arg;
    (void)budget;
    f->drained++;
}

/* The first time that the loop means to sleep. */
static bool stop_asleep(void *arg)
{
    fixture *f = arg;
    bt_loop_source_close(f->source);
    bt_loop_stop(f->loop);
    return true;
}

static void awake_loop_turns_without_asking(void **state)
{
    static const bt_loop_source_ops ops = {.drain = count_turn, .before_sleep = stop_asleep};
    fixture *f = *state;
    f->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_true(f->fd >= 0);
    assert_int_equal(bt_loop_source_open(f->loop, f->fd, &ops, f, &f->source, NULL), BT_OK);
    uint64_t start_ns = bt_loop_now_ns();
    bt_loop_keep_awake(f->loop, start_ns + AWAKE_NS);
    bt_loop_run(f->loop);
    assert_true(bt_loop_now_ns() - start_ns >= AWAKE_NS);
    assert_true(f->drained > 100);
    close(f->fd);
}

static void closing_nothing_is_allowed(void **state)
{
    (void)state;
    bt_loop_timer_close(NULL);
    bt_loop_wake_close(NULL);
    bt_loop_source_close(NULL);
    bt_loop_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(periodic_timer_fires_until_it_closes_itself, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(one_shot_fires_once_for_each_set, setup, teardown),
        cmocka_unit_test_setup_teardown(wake_comes_from_another_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(signals_reach_their_callbacks, setup, teardown),
        cmocka_unit_test_setup_teardown(source_with_one_edge_for_many_items_is_drained, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(source_memory_goes_after_the_loop_let_go, setup, teardown),
        cmocka_unit_test_setup_teardown(awake_loop_turns_without_asking, setup, teardown),
        cmocka_unit_test_setup_teardown(closing_nothing_is_allowed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
