/* common/base/ring.h: order and bounds, alone and between two threads. */
#include "common/base/ring.h"
#include "tests/aborts.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CAPACITY 8u
#define ITEMS 200000u

typedef struct {
    uint64_t number;
    uint8_t bytes[40]; /* each the low byte of number: a torn item shows */
} item;

static item make_item(uint64_t number)
{
    item made = {.number = number};
    memset(made.bytes, (int)(number & 0xff), sizeof(made.bytes));
    return made;
}

static bool is_item(const item *got, uint64_t number)
{
    item expected = make_item(number);
    return memcmp(got, &expected, sizeof(expected)) == 0;
}

static void test_full_and_empty(void **state)
{
    (void)state;
    item memory[CAPACITY], got;
    bt_ring ring;
    bt_ring_init(&ring, memory, CAPACITY, sizeof(item));
    assert_int_equal(bt_ring_pop(&ring, &got), BT_AGAIN);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < CAPACITY; i++) {
            assert_int_equal(bt_ring_count(&ring), i);
            item pushed = make_item(round * 100 + i);
            assert_int_equal(bt_ring_push(&ring, &pushed), BT_OK);
        }
        item extra = make_item(999);
        assert_int_equal(bt_ring_push(&ring, &extra), BT_AGAIN);
        assert_int_equal(bt_ring_count(&ring), CAPACITY);
        for (uint32_t i = 0; i < CAPACITY; i++) {
            assert_int_equal(bt_ring_pop(&ring, &got), BT_OK);
            assert_true(is_item(&got, round * 100 + i));
        }
        assert_int_equal(bt_ring_pop(&ring, &got), BT_AGAIN);
    }
}

static void test_capacity_one(void **state)
{
    (void)state;
    uint8_t memory, byte;
    bt_ring ring;
    bt_ring_init(&ring, &memory, 1, 1);
    for (uint8_t i = 0; i < 5; i++) {
        assert_int_equal(bt_ring_push(&ring, &i), BT_OK);
        assert_int_equal(bt_ring_push(&ring, &i), BT_AGAIN);
        assert_int_equal(bt_ring_pop(&ring, &byte), BT_OK);
        assert_int_equal(byte, i);
    }
}

/* The counters run for ever: they must survive passing 2^32. */
static void test_counters_wrap(void **state)
{
    (void)state;
    uint32_t memory[CAPACITY], got;
    bt_ring ring;
    bt_ring_init(&ring, memory, CAPACITY, sizeof(uint32_t));
    atomic_store(&ring.pushed, UINT32_MAX - 3);
    atomic_store(&ring.popped, UINT32_MAX - 3);
    ring.pushed_seen = ring.popped_seen = UINT32_MAX - 3;
    for (uint32_t i = 0; i < CAPACITY; i++) assert_int_equal(bt_ring_push(&ring, &i), BT_OK);
    uint32_t extra = 0;
    assert_int_equal(bt_ring_push(&ring, &extra), BT_AGAIN);
    assert_int_equal(bt_ring_count(&ring), CAPACITY);
    for (uint32_t i = 0; i < CAPACITY; i++) {
        assert_int_equal(bt_ring_pop(&ring, &got), BT_OK);
        assert_int_equal(got, i);
    }
    assert_int_equal(bt_ring_pop(&ring, &got), BT_AGAIN);
}

static void init_with(void *ctx)
{
    bt_ring ring;
    uint8_t memory[16];
    bt_ring_init(&ring, memory, *(uint32_t *)ctx, 1);
}

static void test_capacity_is_a_power_of_two(void **state)
{
    (void)state;
    static uint32_t bad[] = {0, 3, 6, BT_RING_CAPACITY_MAX + 1, BT_RING_CAPACITY_MAX << 1};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_true(bt_test_aborts(init_with, &bad[i]));
}

static void *produce(void *arg)
{
    bt_ring *ring = arg;
    for (uint64_t number = 0; number < ITEMS; number++) {
        item made = make_item(number);
        while (bt_ring_push(ring, &made) == BT_AGAIN) sched_yield();
    }
    return NULL;
}

static void test_two_threads(void **state)
{
    (void)state;
    item memory[CAPACITY];
    bt_ring ring;
    bt_ring_init(&ring, memory, CAPACITY, sizeof(item));
    pthread_t producer;
    assert_int_equal(pthread_create(&producer, NULL, produce, &ring), 0);
    uint64_t wrong = 0;
    for (uint64_t number = 0; number < ITEMS; number++) {
        item got;
        while (bt_ring_pop(&ring, &got) == BT_AGAIN) sched_yield();
        wrong += !is_item(&got, number);
        wrong += bt_ring_count(&ring) > CAPACITY;
    }
    assert_int_equal(pthread_join(producer, NULL), 0);
    assert_int_equal(wrong, 0);
    assert_int_equal(bt_ring_count(&ring), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_and_empty), cmocka_unit_test(test_capacity_one),
        cmocka_unit_test(test_counters_wrap),  cmocka_unit_test(test_capacity_is_a_power_of_two),
        cmocka_unit_test(test_two_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
