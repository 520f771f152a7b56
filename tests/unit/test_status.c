/* common/base/status.h and dtype.h: the lists, and the one way to fail. */
#include "common/base/dtype.h"
#include "common/base/status.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_groups(void **state)
{
    (void)state;
    assert_int_equal(bt_status_scope(BT_OK), BT_SCOPE_NONE);
    assert_int_equal(bt_status_scope(BT_AGAIN), BT_SCOPE_NONE);
    assert_int_equal(bt_status_scope(BT_ERR_FORMAT), BT_SCOPE_REQUEST);
    assert_int_equal(bt_status_scope(BT_ERR_PEER_LOST), BT_SCOPE_PEER);
    assert_int_equal(bt_status_scope(BT_ERR_DEVICE), BT_SCOPE_DEVICE);
    assert_int_equal(bt_status_scope(BT_ERR_OS), BT_SCOPE_PROCESS);
    /* A number that is no status is the worst: its reader cannot know what is lost. */
    assert_int_equal(bt_status_scope((bt_status)-99), BT_SCOPE_PROCESS);
}

static void test_every_status_has_texts(void **state)
{
    (void)state;
#define X(name, value, scope, text)                                                                \
    assert_string_equal(bt_status_name(BT_##name), "BT_" #name);                                   \
    assert_string_equal(bt_status_text(BT_##name), text);
    BT_STATUS_LIST(X)
#undef X
    assert_string_equal(bt_status_name((bt_status)-99), "BT_?");
    assert_string_equal(bt_status_text((bt_status)-99), "unknown status");
}

static void test_fail(void **state)
{
    (void)state;
    bt_err err;
    memset(&err, 0xff, sizeof(err));
    errno = ENOENT;
    assert_int_equal(BT_FAIL(&err, BT_ERR_FORMAT, "%u of %s", 7u, "nine"), BT_ERR_FORMAT);
    assert_int_equal(err.status, BT_ERR_FORMAT);
    assert_string_equal(err.message, "7 of nine");
    assert_non_null(strstr(err.where, "test_status.c:"));
    assert_int_equal(err.os_errno, 0); /* errno belongs to ERR_OS only */
    assert_int_equal(BT_FAIL(&err, BT_ERR_OS, "open"), BT_ERR_OS);
    assert_int_equal(err.os_errno, ENOENT);
    assert_int_equal(BT_FAIL(NULL, BT_ERR_LIMIT, "nobody reads this"), BT_ERR_LIMIT);
}

static void test_long_message_is_cut(void **state)
{
    (void)state;
    char text[500];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    bt_err err;
    BT_FAIL(&err, BT_ERR_FORMAT, "%s", text);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
}

static void test_dtypes(void **state)
{
    (void)state;
    static const size_t bytes[] = {0, 4, 2, 2, 1, 1};
    for (int i = 0; i < BT_DTYPE_COUNT; i++) {
        bt_dtype dtype = (bt_dtype)i;
        assert_int_equal(bt_dtype_bytes(dtype), bytes[i]);
        /* none is a name to print, not one to ask for: it is found as what it is. */
        assert_int_equal(bt_dtype_find(bt_dtype_name(dtype)), dtype);
        assert_int_equal(bt_dtype_scaled(dtype),
                         dtype == BT_DTYPE_FP8_E4M3 || dtype == BT_DTYPE_INT8);
    }
    assert_int_equal(bt_dtype_find("FP8"), BT_DTYPE_NONE);
    assert_int_equal(bt_dtype_bytes((bt_dtype)200), 0);
    assert_false(bt_dtype_scaled((bt_dtype)200));
    assert_string_equal(bt_dtype_name((bt_dtype)200), "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups), cmocka_unit_test(test_every_status_has_texts),
        cmocka_unit_test(test_fail),   cmocka_unit_test(test_long_message_is_cut),
        cmocka_unit_test(test_dtypes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
