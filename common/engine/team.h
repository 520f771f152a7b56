/* team.h - a few persistent threads that share the chunks of one loop at a time.
 *
 * FLOW    create -> run* -> destroy. run returns when every chunk is done; the caller takes chunks
 *         too, as worker 0.
 * THREAD  run and destroy: one thread at a time. The function is called with the index of its
 *         worker, 0 .. threads - 1, which names scratch memory that no other call uses.
 * IDEA    Chunks are claimed one by one, and run waits for claimed chunks only. A worker that the
 *         kernel has not scheduled therefore delays nobody: on a crowded machine the caller does
 *         the loop alone. An idle worker spins for some microseconds, since the next loop of a
 *         layer is that close, then sleeps on a futex.
 * VALUES  Which worker takes a chunk is chance; functions must not let it matter. */
#ifndef BT_COMMON_ENGINE_TEAM_H
#define BT_COMMON_ENGINE_TEAM_H

#include "common/base/status.h"

#define BT_TEAM_THREADS_MAX 256u

typedef struct bt_team bt_team;
typedef void bt_team_fn(void *arg, uint32_t chunk, uint32_t worker);

/* threads counts the caller: 1 makes no thread. */
bt_status bt_team_create(uint32_t threads, bt_team **ret_team, bt_err *err);
void bt_team_destroy(bt_team *team);

void bt_team_run(bt_team *team, bt_team_fn *fn, void *arg, uint32_t chunk_count);

uint32_t bt_team_threads(const bt_team *team);

#endif
