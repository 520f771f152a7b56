/* Block accounting: the rules K1 .. K6 of pool.h, alone and under random use against a model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/kv/pool.h"

#define BLOCKS 64u

static bt_kv_pool *make(void **ret_memory)
{
    bt_arena measure, arena;
    bt_arena_init(&measure, NULL, 0);
    assert_null(bt_kv_pool_carve(&measure, BLOCKS));
    *ret_memory = aligned_alloc(64, measure.used_bytes);
    bt_arena_init(&arena, *ret_memory, measure.used_bytes);
    return bt_kv_pool_carve(&arena, BLOCKS);
}

static void expect(const bt_kv_pool *pool, bt_kv_pool_counts want)
{
    bt_kv_pool_counts got;
    bt_kv_pool_recount(pool, &got);
    assert_int_equal(got.free, want.free);
    assert_int_equal(got.cached, want.cached);
    assert_int_equal(got.held, want.held);
    assert_int_equal(got.quarantined, want.quarantined);
    assert_int_equal(got.own, want.own);
}

static void test_take_all_or_nothing(void **state)
{
    (void)state;
    void *memory;
    bt_kv_pool *pool = make(&memory);
    uint32_t blocks[BLOCKS + 1];
    assert_false(bt_kv_pool_take(pool, BLOCKS + 1, 1, blocks));
    expect(pool, (bt_kv_pool_counts){.free = BLOCKS});
    assert_true(bt_kv_pool_take(pool, BLOCKS, 1, blocks));
    expect(pool, (bt_kv_pool_counts){.held = BLOCKS});
    assert_int_equal(bt_kv_pool_owned(pool, 1), BLOCKS);
    uint64_t seen = 0;
    for (uint32_t i = 0; i < BLOCKS; i++) seen |= 1ull << blocks[i];
    assert_true(seen == UINT64_MAX); /* each once */
    assert_false(bt_kv_pool_take(pool, 1, 1, blocks + BLOCKS));
    for (uint32_t i = 0; i < BLOCKS; i++) bt_kv_pool_unpin(pool, blocks[i]);
    expect(pool, (bt_kv_pool_counts){.free = BLOCKS});
    free(memory);
}

static void test_sealed_is_cached_not_free(void **state)
{
    (void)state;
    void *memory;
    bt_kv_pool *pool = make(&memory);
    uint32_t b[2];
    assert_true(bt_kv_pool_take(pool, 2, 1, b));
    bt_kv_pool_seal(pool, b[0], 7);
    bt_kv_pool_seal(pool, b[1], 8);
    bt_kv_pool_unpin(pool, b[1]);
    bt_kv_pool_unpin(pool, b[0]);
    expect(pool, (bt_kv_pool_counts){.free = BLOCKS - 2, .cached = 2});
    assert_int_equal(bt_kv_pool_oldest(pool), 8); /* K6: unpinned first */
    bt_kv_pool_pin(pool, b[1], 2);
    assert_int_equal(bt_kv_pool_oldest(pool), 7);
    bt_kv_pool_pin(pool, b[1], 3);
    bt_kv_pool_unseal(pool, b[1]); /* forgotten while pinned: free when the last pin goes */
    bt_kv_pool_unpin(pool, b[1]);
    expect(pool, (bt_kv_pool_counts){.free = BLOCKS - 2, .cached = 1, .held = 1});
    bt_kv_pool_unpin(pool, b[1]);
    bt_kv_pool_unseal(pool, b[0]);
    expect(pool, (bt_kv_pool_counts){.free = BLOCKS});
    free(memory);
}

static void test_lent_blocks_are_quarantined(void **state)
{
    (void)state;
    void *memory;
    bt_kv_pool *pool = make(&memory);
    uint32_t b[3];
    assert_true(bt_kv_pool_take(pool, 3, 1, b));
    bt_kv_pool_keep(pool, &b[2], 1);
    bt_kv_pool_seal(pool, b[0], 1);
    bt_kv_pool_pin(pool, b[0], 2);
    bt_kv_pool_lend(pool, b[0]);
    bt_kv_pool_lend(pool, b[1]);
    /* b[0] has another user still; b[1] waits for work in flight only. */
    expect(pool, (bt_kv_pool_counts){.free = BLOCKS - 3, .held = 1, .quarantined = 1, .own = 1});
    bt_kv_pool_return(pool, b[1]);
    bt_kv_pool_return(pool, b[0]);
    bt_kv_pool_unpin(pool, b[0]);
    expect(pool, (bt_kv_pool_counts){.free = BLOCKS - 2, .cached = 1, .own = 1});
    free(memory);
}

/* Random use against references counted here; recount also checks its own lists. */
static void test_random(void **state)
{
    (void)state;
    const unsigned seed = 20261123;
    printf("seed %u\n", seed);
    srand(seed);
    void *memory;
    bt_kv_pool *pool = make(&memory);
    uint32_t pins[BLOCKS] = {0};
    for (uint32_t step = 0; step < 20000; step++) {
        uint32_t block = (uint32_t)rand() % BLOCKS, taken;
        bool sealed = bt_kv_pool_sealed(pool, block);
        switch (rand() % 5) {
        case 0:
            if (bt_kv_pool_take(pool, 1, step, &taken)) {
                assert_int_equal(pins[taken], 0);
                pins[taken] = 1;
            }
            break;
        case 1:
            if (sealed && pins[block] < 5) {
                bt_kv_pool_pin(pool, block, step);
                pins[block]++;
            }
            break;
        case 2:
            if (pins[block] > 0 && !sealed) bt_kv_pool_seal(pool, block, block);
            break;
        case 3:
            if (sealed) bt_kv_pool_unseal(pool, block);
            break;
        default:
            if (pins[block] > 0) {
                bt_kv_pool_unpin(pool, block);
                pins[block]--;
            }
        }
        bt_kv_pool_counts counts;
        bt_kv_pool_recount(pool, &counts);
        uint32_t held = 0;
        for (uint32_t i = 0; i < BLOCKS; i++) held += pins[i] > 0;
        assert_int_equal(counts.held, held);
        assert_int_equal(counts.free + counts.cached + counts.held, BLOCKS);
    }
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take_all_or_nothing),
        cmocka_unit_test(test_sealed_is_cached_not_free),
        cmocka_unit_test(test_lent_blocks_are_quarantined),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
