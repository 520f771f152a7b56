/* attempts.h - the highest attempt seen, or cancelled, of each request: what makes a late duplicate harmless (the
 * tombstones of HANDOFF).
 *
 * FLOW    carve -> raise when an attempt ends or is refused -> ask before taking a new one.
 * BOUNDS  Entries are forgotten after their expiry, and the one nearest to it sooner when eight ids share a bucket. A
 *         forgotten tombstone costs a grant that its lease ends, never a wrong token, since fences still differ. */
#ifndef BT_COMMON_KV_ATTEMPTS_H
#define BT_COMMON_KV_ATTEMPTS_H

#include "common/base/arena.h"
#include "proto/msg.h"

typedef struct bt_attempts bt_attempts;

/* Room for at least capacity ids. NULL while the arena measures. */
bt_attempts *bt_attempts_carve(bt_arena *arena, uint32_t capacity);

/* Remembers attempt as seen until expires_ns; a lower one than known only extends the time. */
void bt_attempts_raise(bt_attempts *attempts, const bt_request_id *request, uint32_t attempt,
                       uint64_t expires_ns, uint64_t now_ns);
/* The highest attempt known, 0 if none. */
uint32_t bt_attempts_seen(const bt_attempts *attempts, const bt_request_id *request,
                          uint64_t now_ns);

#endif
