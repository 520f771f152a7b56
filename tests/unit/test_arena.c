/* common/base/arena.h: measuring and carving agree, and the end is an assert. */
#include "common/base/arena.h"
#include "tests/aborts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What a module's carving code looks like. */
static uint8_t *carve(bt_arena *arena)
{
    uint8_t *first = BT_ARENA_NEW(arena, uint8_t, 3);
    BT_ARENA_NEW(arena, uint64_t, 100);
    bt_arena_take(arena, 0, 8);
    return first;
}

static void test_measure_is_what_carving_takes(void **state)
{
    (void)state;
    bt_arena measure;
    bt_arena_init(&measure, NULL, 0);
    assert_null(carve(&measure));
    assert_int_equal(measure.used_bytes, 64 + 832);

    uint8_t *memory = aligned_alloc(BT_ARENA_ALIGN, measure.used_bytes);
    assert_non_null(memory);
    memset(memory, 0xee, measure.used_bytes);
    bt_arena arena;
    bt_arena_init(&arena, memory, measure.used_bytes);
    uint8_t *first = carve(&arena);
    assert_ptr_equal(first, memory);
    assert_int_equal(arena.used_bytes, measure.used_bytes);
    for (size_t i = 0; i < arena.used_bytes; i++) assert_int_equal(memory[i], 0);
    free(memory);
}

static void test_pieces_are_aligned(void **state)
{
    (void)state;
    _Alignas(BT_ARENA_ALIGN) static uint8_t memory[1024];
    bt_arena arena;
    bt_arena_init(&arena, memory, sizeof(memory));
    for (int i = 0; i < 8; i++) {
        uintptr_t at = (uintptr_t)bt_arena_take(&arena, 1, (size_t)i + 1);
        assert_int_equal(at % BT_ARENA_ALIGN, 0);
    }
}

static void take_beyond_end(void *ctx)
{
    bt_arena_take(ctx, 65, 1);
}

static void take_overflowing(void *ctx)
{
    bt_arena_take(ctx, SIZE_MAX / 2, 3);
}

static void test_bounds(void **state)
{
    (void)state;
    _Alignas(BT_ARENA_ALIGN) static uint8_t memory[64];
    bt_arena arena, measure;
    bt_arena_init(&arena, memory, sizeof(memory));
    assert_true(bt_test_aborts(take_beyond_end, &arena));
    assert_non_null(bt_arena_take(&arena, 64, 1)); /* the last byte is ours */
    bt_arena_init(&measure, NULL, 0);
    assert_true(bt_test_aborts(take_overflowing, &measure));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_measure_is_what_carving_takes),
        cmocka_unit_test(test_pieces_are_aligned),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
