/* team.c - see team.h.
 *
 * state   epoch << 32 | chunks left. Taking a chunk is a compare-and-swap that counts it down, so
 *         it succeeds only for the loop whose fn and arg were read before it: they change only
 *         while nothing is left, and every loop has an epoch of its own.
 * signal  counts loops; workers sleep on it. done counts finished chunks; the caller sleeps on it.
 */
#include "common/engine/team.h"

#include "common/engine/futex.h"

#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* About 3 us on a 3 GHz core: longer than the gap between two loops of a layer. */
#define SPIN_ROUNDS 100

typedef struct {
    bt_team *team;
    pthread_t thread;
    uint32_t index;
} worker;

struct bt_team {
    _Alignas(64) _Atomic uint64_t state;
    _Atomic(bt_team_fn *) fn;
    _Atomic(void *) arg;
    _Alignas(64) _Atomic uint32_t done;
    _Atomic uint32_t waiting; /* the caller sleeps on done */
    _Alignas(64) _Atomic uint32_t signal;
    _Atomic uint32_t sleepers;
    atomic_bool stopping;
    uint32_t epoch;   /* the caller's */
    uint32_t threads; /* the caller included */
    uint32_t started;
    worker workers[];
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Takes chunks of the current loop until none is left. */
static void take_chunks(bt_team *team, uint32_t index)
{
    uint64_t state = atomic_load_explicit(&team->state, memory_order_acquire);
    while ((uint32_t)state > 0) {
        bt_team_fn *fn = atomic_load_explicit(&team->fn, memory_order_relaxed);
        void *arg = atomic_load_explicit(&team->arg, memory_order_relaxed);
        if (!atomic_compare_exchange_weak_explicit(&team->state, &state, state - 1,
                                                   memory_order_acq_rel, memory_order_acquire))
            continue;
        fn(arg, (uint32_t)state - 1, index);
        atomic_fetch_add(&team->done, 1);
        if (atomic_load(&team->waiting)) bt_futex_wake(&team->done, 1);
        state = atomic_load_explicit(&team->state, memory_order_acquire);
    }
}

static void *worker_main(void *arg)
{
    worker *self = arg;
    bt_team *team = self->team;
    uint32_t seen = 0;
    for (;;) {
        for (int round = 0; round < SPIN_ROUNDS; round++) {
            if (atomic_load_explicit(&team->signal, memory_order_acquire) != seen) break;
            pause_cpu();
        }
        while (atomic_load(&team->signal) == seen) {
            atomic_fetch_add(&team->sleepers, 1);
            bt_futex_wait(&team->signal, seen);
            atomic_fetch_sub(&team->sleepers, 1);
        }
        seen = atomic_load(&team->signal);
        if (atomic_load(&team->stopping)) return NULL;
        take_chunks(team, self->index);
    }
}

static void ring(bt_team *team)
{
    atomic_fetch_add(&team->signal, 1);
    if (atomic_load(&team->sleepers) > 0) bt_futex_wake(&team->signal, INT_MAX);
}

void bt_team_run(bt_team *team, bt_team_fn *fn, void *arg, uint32_t chunk_count)
{
    if (team->threads == 1 || chunk_count <= 1) {
        for (uint32_t chunk = 0; chunk < chunk_count; chunk++) fn(arg, chunk, 0);
        return;
    }
    assert((uint32_t)atomic_load(&team->state) == 0);
    atomic_store_explicit(&team->fn, fn, memory_order_relaxed);
    atomic_store_explicit(&team->arg, arg, memory_order_relaxed);
    atomic_store(&team->done, 0);
    uint64_t state = (uint64_t)++team->epoch << 32 | chunk_count;
    atomic_store_explicit(&team->state, state, memory_order_release);
    ring(team);
    take_chunks(team, 0);
    for (int round = 0; round < SPIN_ROUNDS; round++) {
        if (atomic_load_explicit(&team->done, memory_order_acquire) == chunk_count) return;
        pause_cpu();
    }
    atomic_store(&team->waiting, 1);
    for (;;) {
        uint32_t done = atomic_load(&team->done);
        if (done == chunk_count) break;
        bt_futex_wait(&team->done, done);
    }
    atomic_store(&team->waiting, 0);
}

uint32_t bt_team_threads(const bt_team *team)
{
    return team->threads;
}

bt_status bt_team_create(uint32_t threads, bt_team **ret_team, bt_err *err)
{
    if (threads < 1 || threads > BT_TEAM_THREADS_MAX)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%u threads: allowed are 1 to %u", threads,
                       BT_TEAM_THREADS_MAX);
    size_t bytes = (sizeof(bt_team) + threads * sizeof(worker) + 63) & ~(size_t)63;
    bt_team *team = aligned_alloc(64, bytes);
    if (!team) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%zu bytes for a team of threads", bytes);
    memset(team, 0, bytes);
    team->threads = threads;
    for (uint32_t index = 1; index < threads; index++) {
        worker *self = &team->workers[index];
        *self = (worker){.team = team, .index = index};
        int error = pthread_create(&self->thread, NULL, worker_main, self);
        if (error) {
            bt_team_destroy(team);
            return BT_FAIL(err, BT_ERR_OS, "cannot start thread %u of %u: %s", index, threads,
                           strerror(error));
        }
        team->started = index;
    }
    *ret_team = team;
    return BT_OK;
}

void bt_team_destroy(bt_team *team)
{
    if (!team) return;
    atomic_store(&team->stopping, true);
    ring(team);
    for (uint32_t index = 1; index <= team->started; index++)
        pthread_join(team->workers[index].thread, NULL);
    free(team);
}
