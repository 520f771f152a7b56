#include "common/base/ring.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

void bt_ring_init(bt_ring *ring, void *memory, uint32_t capacity, uint32_t item_bytes)
{
    assert(memory != NULL && item_bytes > 0);
    assert(capacity > 0 && capacity <= BT_RING_CAPACITY_MAX && (capacity & (capacity - 1)) == 0);
    ring->items = memory;
    ring->mask = capacity - 1;
    ring->item_bytes = item_bytes;
    ring->popped_seen = 0;
    ring->pushed_seen = 0;
    atomic_init(&ring->pushed, 0);
    atomic_init(&ring->popped, 0);
}

static uint8_t *item_at(const bt_ring *ring, uint32_t number)
{
    return ring->items + (size_t)(number & ring->mask) * ring->item_bytes;
}

bt_status bt_ring_push(bt_ring *ring, const void *item)
{
    uint32_t pushed = atomic_load_explicit(&ring->pushed, memory_order_relaxed);
    if (pushed - ring->popped_seen > ring->mask) {
        ring->popped_seen = atomic_load_explicit(&ring->popped, memory_order_acquire);
        if (pushed - ring->popped_seen > ring->mask) return BT_AGAIN;
    }
    memcpy(item_at(ring, pushed), item, ring->item_bytes);
    atomic_store_explicit(&ring->pushed, pushed + 1, memory_order_release);
    return BT_OK;
}

bt_status bt_ring_pop(bt_ring *ring, void *ret_item)
{
    uint32_t popped = atomic_load_explicit(&ring->popped, memory_order_relaxed);
    if (popped == ring->pushed_seen) {
        ring->pushed_seen = atomic_load_explicit(&ring->pushed, memory_order_acquire);
        if (popped == ring->pushed_seen) return BT_AGAIN;
    }
    memcpy(ret_item, item_at(ring, popped), ring->item_bytes);
    atomic_store_explicit(&ring->popped, popped + 1, memory_order_release);
    return BT_OK;
}

uint32_t bt_ring_count(const bt_ring *ring)
{
    /* popped first: the other order could see more popped than pushed. */
    uint32_t popped = atomic_load_explicit(&ring->popped, memory_order_acquire);
    uint32_t count = atomic_load_explicit(&ring->pushed, memory_order_acquire) - popped;
    return count <= ring->mask ? count : ring->mask + 1;
}
