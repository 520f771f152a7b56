/* test_linear_skinny.c - the layout of linear_skinny.h: every byte is taken once, and the lanes of an
 * mma.sync m16n8k16 find in their registers what the instruction multiplies. */
#include "kernels/linear/linear_skinny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N 37u
#define K 192u

static void test_every_byte_once(void **state)
{
    (void)state;
    const bt_dtype dtypes[] = {BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3};
    for (int d = 0; d < 2; d++) {
        size_t bytes = bt_linear_skinny_bytes(dtypes[d], 48, K), width = bt_dtype_bytes(dtypes[d]);
        assert_int_equal(bytes, 48 * K * width);
        assert_int_equal(bt_linear_skinny_bytes(dtypes[d], N, K), bytes);
        uint8_t *taken = calloc(bytes, 1);
        for (uint32_t j = 0; j < 48; j++)
            for (uint32_t l = 0; l < K; l++) {
                size_t at = bt_linear_skinny_offset(dtypes[d], K, j, l);
                assert_true(at % width == 0 && at + width <= bytes && !taken[at]);
                taken[at] = 1;
            }
        free(taken);
    }
}

/* Where lane 4 g + t finds the pair of k that register a (0 .. 3) of A holds in step s. */
static size_t pair_at(bt_dtype dtype, uint32_t lane, uint32_t s, uint32_t a)
{
    if (dtype == BT_DTYPE_BF16) return s * 512 + lane * 16 + a * 4;
    return s / 2 * 512 + lane * 16 + (s % 2 * 2 + a % 2) * 4 + a / 2 * 2;
}

static void test_lanes_hold_fragments(void **state)
{
    (void)state;
    const bt_dtype dtypes[] = {BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3};
    for (int d = 0; d < 2; d++) {
        uint32_t block_k = bt_linear_skinny_block_k(dtypes[d]);
        for (uint32_t lane = 0; lane < 32; lane++)
            for (uint32_t s = 0; s < block_k / 16; s++)
                for (uint32_t a = 0; a < 4; a++) {
                    /* A wants row g or g + 8; B, whose lane reads x at t's span, has these k in the
                     * registers of the same step. */
                    uint32_t row = lane / 4 + a % 2 * 8;
                    uint32_t l = lane % 4 * (block_k / 4) + s * 4 + a / 2 * 2;
                    assert_int_equal(bt_linear_skinny_offset(dtypes[d], block_k, row, l),
                                     pair_at(dtypes[d], lane, s, a));
                }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte_once),
        cmocka_unit_test(test_lanes_hold_fragments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
