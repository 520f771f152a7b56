/* test_dispatch.c - the table of kernels: every row is complete, the reference is always there. */
#include "kernels/dispatch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_rows_are_complete_and_found_by_name(void **state)
{
    (void)state;
    for (unsigned i = 0; i < bt_kernels_row_count; i++) {
        const bt_kernels *row = bt_kernels_rows[i];
        for (int c = 0; c < BT_COMPUTE_COUNT; c++) assert_non_null(row->linear[c]);
        assert_true(row->matmul && row->rmsnorm && row->swiglu && row->attention && row->bias &&
                    row->sample);
        assert_ptr_equal(bt_kernels_find(row->name), row->supported() ? row : NULL);
    }
    assert_null(bt_kernels_find("abacus"));
}

static void test_the_reference_is_the_last_resort(void **state)
{
    (void)state;
    const bt_kernels *last = bt_kernels_rows[bt_kernels_row_count - 1];
    assert_string_equal(last->name, "ref");
    assert_true(last->supported());
    assert_true(bt_kernels_best()->supported());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_complete_and_found_by_name),
        cmocka_unit_test(test_the_reference_is_the_last_resort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
