/* The router's prefix index: what is learnt is found, for that tenant, daemon and path alone; what a
 * daemon denies is not believed; what does not fit is forgotten in the order of use. */
#include "router/prefix_index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RUNS 8u
#define TOKENS (RUNS * BT_RUN_TOKENS)

static bt_prefix_index *make(uint32_t entries, void **ret_memory)
{
    bt_arena arena;
    bt_arena_init(&arena, NULL, 0);
    assert_null(bt_prefix_index_carve(&arena, entries));
    size_t bytes = arena.used_bytes;
    *ret_memory = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    assert_non_null(*ret_memory);
    bt_arena_init(&arena, *ret_memory, bytes);
    return bt_prefix_index_carve(&arena, entries);
}

static uint32_t names_of(uint8_t tenant, uint32_t prompt, bt_prefix_name ret_names[RUNS])
{
    uint8_t salt[BT_SHA256_BYTES] = {tenant};
    uint32_t tokens[TOKENS];
    bt_sha256 chain;
    for (uint32_t i = 0; i < TOKENS; i++) tokens[i] = i < TOKENS / 2 ? i : i + prompt;
    return bt_prefix_names(salt, tokens, TOKENS, 0, &chain, ret_names);
}

static const bt_prefix_owner owner = {.daemon = 3, .path = 9};

static void names_chain(void **state)
{
    (void)state;
    bt_prefix_name a[RUNS], b[RUNS], c[RUNS], grown[RUNS];
    assert_int_equal(names_of(1, 0, a), RUNS);
    names_of(1, 5, b);
    names_of(2, 0, c);
    assert_memory_equal(a, b, RUNS / 2 * sizeof(a[0]));
    for (uint32_t i = RUNS / 2; i < RUNS; i++)
        assert_memory_not_equal(&a[i], &b[i], sizeof(a[0])); /* all that follows a difference */
    for (uint32_t i = 0; i < RUNS; i++) assert_memory_not_equal(&a[i], &c[i], sizeof(a[0]));
    /* A prompt that grows keeps its names. */
    uint8_t salt[BT_SHA256_BYTES] = {1};
    uint32_t tokens[TOKENS];
    bt_sha256 chain;
    for (uint32_t i = 0; i < TOKENS; i++) tokens[i] = i;
    uint32_t count = bt_prefix_names(salt, tokens, 3 * BT_RUN_TOKENS + 5, 0, &chain, grown);
    assert_int_equal(count, 3);
    assert_int_equal(bt_prefix_names(salt, tokens, TOKENS, count, &chain, grown), RUNS);
    assert_memory_equal(a, grown, sizeof(a));
}

static void found_for_its_owner_alone(void **state)
{
    (void)state;
    void *memory;
    bt_prefix_index *index = make(64, &memory);
    bt_prefix_name a[RUNS], b[RUNS], c[RUNS];
    names_of(1, 0, a);
    names_of(1, 5, b);
    names_of(2, 0, c);
    bt_prefix_index_learn(index, owner, a, RUNS);
    assert_int_equal(bt_prefix_index_match(index, owner, a, RUNS), RUNS);
    assert_int_equal(bt_prefix_index_match(index, owner, a, 2), 2);
    assert_int_equal(bt_prefix_index_match(index, owner, b, RUNS), RUNS / 2);
    assert_int_equal(bt_prefix_index_match(index, owner, c, RUNS), 0); /* another tenant */
    bt_prefix_owner other = {.daemon = 4, .path = 9};
    assert_int_equal(bt_prefix_index_match(index, other, a, RUNS), 0);
    other = (bt_prefix_owner){.daemon = 3, .path = 8}; /* KV of another precision */
    assert_int_equal(bt_prefix_index_match(index, other, a, RUNS), 0);
    bt_prefix_index_forget(index, 4);
    assert_int_equal(bt_prefix_index_match(index, owner, a, RUNS), RUNS);
    bt_prefix_index_forget(index, 3);
    assert_int_equal(bt_prefix_index_match(index, owner, a, RUNS), 0);
    bt_prefix_index_learn(index, owner, a, 3); /* its successor */
    assert_int_equal(bt_prefix_index_match(index, owner, a, RUNS), 3);
    free(memory);
}

static void the_oldest_is_forgotten(void **state)
{
    (void)state;
    void *memory;
    bt_prefix_index *index = make(10, &memory);
    bt_prefix_name a[RUNS], b[RUNS];
    names_of(1, 0, a);
    names_of(2, 0, b);
    bt_prefix_index_learn(index, owner, a, RUNS);
    bt_prefix_index_learn(index, owner, b, 4);
    assert_int_equal(bt_prefix_index_entries(index), 10);
    /* Two of a's had to go: its end, as in the daemons. */
    assert_int_equal(bt_prefix_index_match(index, owner, a, RUNS), RUNS - 2);
    assert_int_equal(bt_prefix_index_match(index, owner, b, RUNS), 4);
    for (uint32_t round = 0; round < 1000; round++) {
        names_of((uint8_t)(3 + round), round % 7, a);
        bt_prefix_index_learn(index, owner, a, 1 + round % RUNS);
        assert_int_equal(bt_prefix_index_match(index, owner, a, RUNS), 1 + round % RUNS);
        assert_int_equal(bt_prefix_index_entries(index), 10);
    }
    free(memory);
}

/* The daemon had less than we believed: so what it used even longer ago is gone, too. */
static void corrected(void **state)
{
    (void)state;
    void *memory;
    bt_prefix_index *index = make(64, &memory);
    bt_prefix_name older[RUNS], a[RUNS], newer[RUNS];
    names_of(1, 0, older);
    names_of(2, 0, a);
    names_of(3, 0, newer);
    bt_prefix_index_learn(index, owner, older, RUNS);
    bt_prefix_index_learn(index, owner, a, RUNS);
    bt_prefix_index_learn(index, owner, newer, RUNS);
    uint64_t now = bt_prefix_index_time(index);
    bt_prefix_index_correct(index, owner, a, RUNS, RUNS, now); /* as believed */
    assert_int_equal(bt_prefix_index_match(index, owner, older, RUNS), RUNS);
    bt_prefix_index_correct(index, owner, a, RUNS, 2, now);
    assert_int_equal(bt_prefix_index_match(index, owner, older, RUNS), 0);
    assert_int_equal(bt_prefix_index_match(index, owner, a, RUNS), 2);
    assert_int_equal(bt_prefix_index_match(index, owner, newer, RUNS), RUNS);
    /* What was learnt again after we believed says nothing. */
    now = bt_prefix_index_time(index);
    bt_prefix_index_learn(index, owner, a, RUNS);
    bt_prefix_index_correct(index, owner, a, RUNS, 2, now);
    assert_int_equal(bt_prefix_index_match(index, owner, a, RUNS), RUNS);
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_chain),
        cmocka_unit_test(found_for_its_owner_alone),
        cmocka_unit_test(the_oldest_is_forgotten),
        cmocka_unit_test(corrected),
    };
    return cmocka_run_group_tests_name("prefix_index", tests, NULL, NULL);
}
