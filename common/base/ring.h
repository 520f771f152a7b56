/* ring.h - a queue of fixed-size items between exactly two threads: one pushes, one pops.
 *
 * OWNER   Whoever creates both threads initialises the ring before they start, and keeps the item
 *         memory alive until both have stopped. There is nothing to finish.
 * THREADS push only from the producer, pop only from the consumer, count from either (a snapshot).
 *         What the producer wrote before a push is seen by the consumer after the pop of that item.
 * BOUNDS  A full ring answers AGAIN to push, an empty one AGAIN to pop; nothing blocks or
 *         allocates. Waking a sleeping consumer is the caller's: uv_async_send after the push.
 *
 *     void *items = bt_arena_take(&arena, 256, sizeof(item));
 *     bt_ring_init(&ring, items, 256, sizeof(item)); */
#ifndef BT_COMMON_BASE_RING_H
#define BT_COMMON_BASE_RING_H

#include "common/base/status.h"

#include <stdatomic.h>
#include <stdint.h>

#define BT_RING_CAPACITY_MAX (1u << 24)

/* The producer's and the consumer's halves lie on cache lines of their own. */
typedef struct {
    uint8_t *items;
    uint32_t mask; /* capacity - 1 */
    uint32_t item_bytes;
    _Alignas(64) _Atomic uint32_t pushed; /* counts for ever, modulo 2^32 */
    uint32_t popped_seen;                 /* the producer's last look at popped */
    _Alignas(64) _Atomic uint32_t popped;
    uint32_t pushed_seen; /* the consumer's last look at pushed */
} bt_ring;

/* memory holds capacity items of item_bytes; capacity is a power of two up to BT_RING_CAPACITY_MAX.
 */
void bt_ring_init(bt_ring *ring, void *memory, uint32_t capacity, uint32_t item_bytes);

/* Copies *item in: OK, or AGAIN if the ring is full. */
bt_status bt_ring_push(bt_ring *ring, const void *item);

/* Copies the oldest item out: OK, or AGAIN if the ring is empty. */
bt_status bt_ring_pop(bt_ring *ring, void *ret_item);

/* Items waiting; exact only while neither thread is in push or pop. */
uint32_t bt_ring_count(const bt_ring *ring);

#endif
