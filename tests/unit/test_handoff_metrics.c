/* common/daemon/handoff.h: phases by role, and the table of requests between two of them. */
#include "common/daemon/handoff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static bt_request_id id_of(uint32_t number)
{
    bt_request_id id = {{0}};
    memcpy(id.bytes + 8, &number, sizeof(number)); /* ids may differ in any of their bytes */
    return id;
}

static void test_phases(void **state)
{
    (void)state;
    static bt_handoff handoff;
    unsigned count[2] = {0};
    const bt_role roles[] = {BT_ROLE_PREFILL, BT_ROLE_DECODE};
    for (unsigned r = 0; r < 2; r++) {
        bt_metrics *metrics;
        assert_int_equal(bt_metrics_create(32, &metrics, NULL), BT_OK);
        bt_handoff_open(&handoff, metrics, roles[r]);
        for (unsigned p = 0; p < BT_HANDOFF_PHASES; p++) count[r] += handoff.phases[p] != NULL;
        bt_handoff_phase phase = r == 0 ? BT_HANDOFF_PUT : BT_HANDOFF_UNPACK;
        bt_handoff_observe(&handoff, phase, 1000000, 3000000);
        bt_handoff_observe(&handoff, phase, 5, 3); /* counts as 0 */
        static char text[65536];
        size_t bytes;
        assert_int_equal(bt_metrics_write(metrics, text, sizeof(text) - 1, &bytes, NULL), BT_OK);
        text[bytes] = '\0';
        const char *name = r == 0 ? "put" : "unpack";
        char line[128];
        snprintf(line, sizeof(line), "baton_handoff_seconds_sum{phase=\"%s\"} 0.002\n", name);
        assert_non_null(strstr(text, line));
        snprintf(line, sizeof(line), "baton_handoff_seconds_count{phase=\"%s\"} 2\n", name);
        assert_non_null(strstr(text, line));
        bt_metrics_destroy(metrics);
    }
    assert_int_equal(count[0] + count[1], BT_HANDOFF_PHASES);
    assert_int_equal(count[1], 4);
}

static void test_table(void **state)
{
    (void)state;
    static bt_handoff handoff;
    enum { PLACES = BT_HANDOFF_SETS * BT_HANDOFF_WAYS, MANY = 10 * PLACES };
    bt_request_id none = id_of(7);
    assert_null(bt_handoff_find(&handoff, &none));
    unsigned found = 0, late = 0;
    for (uint32_t i = 1; i <= MANY; i++) {
        bt_request_id id = id_of(i);
        bt_handoff_begin(&handoff, &id)->manifest_ns = i;
        assert_int_equal(bt_handoff_find(&handoff, &id)->manifest_ns, i);
        assert_int_equal(bt_handoff_begin(&handoff, &id)->manifest_ns, i); /* the same one */
        assert_int_equal(bt_handoff_find(&handoff, &id)->accepted_ns, 0);
    }
    for (uint32_t i = 1; i <= MANY; i++) {
        bt_request_id id = id_of(i);
        const bt_handoff_entry *entry = bt_handoff_find(&handoff, &id);
        if (entry == NULL) continue; /* pushed out */
        assert_int_equal(entry->manifest_ns, i);
        found++;
        late += i > MANY - PLACES / 2;
    }
    assert_int_equal(found, PLACES);     /* 80 ids for each set: all are full */
    assert_true(late > PLACES / 2 - 40); /* the latest stay, but for sets that got many of them */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_phases),
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
