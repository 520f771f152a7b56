/* notice.h - how a thread learns that a stream of the GPU came to a point: the stream raises a number in
 * host memory, and the thread reads it.
 *
 * WHAT    A board of slots, each a line of pinned memory: a counter and 48 bytes that kernels may write
 *         to, as the digest of a frame. mark enqueues "slot becomes value" behind the work of a stream;
 *         whoever reads the value sees what that work wrote before it.
 * WHY     Asking an event (cudaEventQuery) takes the driver's locks, which the thread that launches kernels
 *         holds; a callback of the stream (cudaLaunchHostFunc) stops the stream until a thread of the driver has
 *         run; reading memory costs nothing and is the fastest by far (docs/decisions/0011).
 * THREAD  mark by any thread, one at a time for a slot; read by any thread.
 * LIMITS  BT_NOTICE_SLOTS_MAX. Everything is allocated in create.
 * GRAPHS  mark cannot be captured: it belongs between the launches of a prefill. */
#ifndef BT_KERNELS_NOTICE_H
#define BT_KERNELS_NOTICE_H

#include "kernels/cuda.h"

#define BT_NOTICE_SLOTS_MAX 4096u
#define BT_NOTICE_DATA_BYTES 48u

typedef struct bt_notice bt_notice;

/* All values are 0 at first. Errors: ERR_DEVICE, also if the driver has no stream memory operations. */
bt_status bt_notice_create(uint32_t slots, bt_notice **ret_notice, bt_err *err);
/* No stream may still have a mark to make. NULL is allowed. */
void bt_notice_destroy(bt_notice *notice);

bt_status bt_notice_mark(bt_notice *notice, uint32_t slot, uint32_t value, cudaStream_t stream,
                         bt_err *err);
uint32_t bt_notice_read(const bt_notice *notice, uint32_t slot);
/* BT_NOTICE_DATA_BYTES for kernels to write and the host to read, 16-byte aligned; the same address on both sides. */
void *bt_notice_data(bt_notice *notice, uint32_t slot);

#endif
