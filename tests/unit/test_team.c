/* test_team.c - every chunk of every loop runs exactly once, on any number of threads, also more
 * threads than cores; workers keep to their own scratch. */
#include "common/engine/team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define CHUNKS_MAX 64u
#define LOOPS 3000u

typedef struct {
    _Atomic uint32_t runs[CHUNKS_MAX];
    _Atomic uint32_t inside[8]; /* calls now running on each worker: never two */
    _Atomic uint32_t overlaps;
    uint32_t plain[CHUNKS_MAX]; /* not atomic: run must order it for the caller */
} loop;

static void count_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    loop *at = arg;
    if (atomic_fetch_add(&at->inside[worker], 1) != 0) atomic_fetch_add(&at->overlaps, 1);
    atomic_fetch_add(&at->runs[chunk], 1);
    at->plain[chunk] += chunk + 1;
    atomic_fetch_sub(&at->inside[worker], 1);
}

static void test_every_chunk_runs_once(void **state)
{
    (void)state;
    for (uint32_t threads = 1; threads <= 5; threads++) {
        bt_team *team = NULL;
        bt_err err;
        assert_int_equal(bt_team_create(threads, &team, &err), BT_OK);
        assert_int_equal(bt_team_threads(team), threads);
        for (uint32_t round = 0; round < LOOPS; round++) {
            loop at = {0};
            uint32_t chunks = round * 7 % (CHUNKS_MAX + 1);
            bt_team_run(team, count_chunk, &at, chunks);
            for (uint32_t i = 0; i < CHUNKS_MAX; i++) {
                assert_int_equal(atomic_load(&at.runs[i]), i < chunks ? 1 : 0);
                assert_int_equal(at.plain[i], i < chunks ? i + 1 : 0);
            }
            assert_int_equal(atomic_load(&at.overlaps), 0);
        }
        bt_team_destroy(team);
    }
}

static void test_limits(void **state)
{
    (void)state;
    bt_team *team = NULL;
    bt_err err;
    assert_int_equal(bt_team_create(0, &team, &err), BT_ERR_ARGUMENT);
    assert_int_equal(bt_team_create(BT_TEAM_THREADS_MAX + 1, &team, &err), BT_ERR_ARGUMENT);
    assert_null(team);
    bt_team_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_chunk_runs_once),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
