/* test_attention_plan.c - the plan of a step's prefill attention: every packed row of every sequence in one
 * tile, the dearest tiles first. */
#include "kernels/attention/attention_plan.h"
#include "tests/kernels/shapes.h"

#define SEQS 40u

static uint64_t tokens_seen(const bt_attention_tile *tile, uint32_t group, uint32_t window)
{
    uint64_t rows = (uint64_t)tile->seq.count * group, end = tile->row + BT_ATTENTION_TILE_ROWS;
    uint64_t first = tile->row / group, last = ((end < rows ? end : rows) - 1) / group;
    uint64_t seen = tile->seq.position + last + 1, most = last - first + window;
    return window && most < seen ? most : seen;
}

static uint32_t random_batch(bt_rng *rng, bt_attention_seq *seq)
{
    uint32_t tokens = 0;
    for (uint32_t i = 0; i < SEQS; i++) {
        uint32_t count = (uint32_t)bt_rng_below(rng, i % 3 ? 40 : 900);
        seq[i] = (bt_attention_seq){tokens, count, (uint32_t)bt_rng_below(rng, 3000), i * 100};
        tokens += count;
    }
    seq[7].count = 0;
    return tokens;
}

static void check_plan(const bt_attention_seq *seq, const bt_attention_plan *plan, uint32_t group,
                       uint32_t window)
{
    uint64_t rows = 0, planned = 0;
    for (uint32_t i = 0; i < SEQS; i++) rows += (uint64_t)seq[i].count * group;
    for (uint32_t i = 0; i < plan->tiles; i++) {
        const bt_attention_tile *tile = &plan->tile[i];
        uint64_t left = (uint64_t)tile->seq.count * group - tile->row;
        assert_int_equal(tile->row % BT_ATTENTION_TILE_ROWS, 0);
        assert_true(tile->row < (uint64_t)tile->seq.count * group);
        assert_memory_equal(&tile->seq, &seq[tile->seq.table / 100], sizeof(tile->seq));
        planned += left < BT_ATTENTION_TILE_ROWS ? left : BT_ATTENTION_TILE_ROWS;
        for (uint32_t j = 0; j < i; j++)
            assert_true(tile->seq.table != plan->tile[j].seq.table ||
                        tile->row != plan->tile[j].row);
        if (i > 0)
            assert_true(tokens_seen(tile, group, window) <=
                        tokens_seen(&plan->tile[i - 1], group, window));
    }
    assert_int_equal(rows, planned);
}

static void test_rows_are_covered_once_dearest_first(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (uint32_t group = 1; group <= 8; group++) {
        for (uint32_t window = 0; window < 600; window += 200) {
            bt_attention_seq seq[SEQS];
            uint32_t tokens = random_batch(&rng, seq);
            size_t bytes = bt_attention_plan_bytes(SEQS, tokens, group);
            bt_attention_plan *plan = malloc(bytes);
            assert_non_null(plan);
            bt_attention_plan_make(seq, SEQS, group, window, plan);
            assert_true(sizeof(*plan) + plan->tiles * sizeof(plan->tile[0]) <= bytes);
            check_plan(seq, plan, group, window);
            free(plan);
        }
    }
}

static void test_a_batch_of_nothing_has_no_tiles(void **state)
{
    (void)state;
    bt_attention_seq seq = {0, 0, 5, 0};
    bt_attention_plan plan;
    bt_attention_plan_make(&seq, 1, 4, 0, &plan);
    assert_int_equal(plan.tiles, 0);
    bt_attention_plan_make(&seq, 0, 4, 0, &plan);
    assert_int_equal(plan.tiles, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_covered_once_dearest_first),
        cmocka_unit_test(test_a_batch_of_nothing_has_no_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
