/* The geometry of pool and wire, and the check of frames that a peer names. */
#include "common/kv/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const bt_kv_shape pool8 = {.dtype = BT_DTYPE_FP8_E4M3,
                                  .layers = 3,
                                  .kv_heads = 4,
                                  .head_dim = 96,
                                  .block_tokens = 16,
                                  .pool_blocks = 10};

static void test_pool_geometry(void **state)
{
    (void)state;
    assert_int_equal(bt_kv_codes_bytes(&pool8), 16 * 96);
    assert_int_equal(bt_kv_scales_bytes(&pool8), 32);
    assert_int_equal(bt_kv_block_bytes(&pool8), 3 * 2 * 4 * (16 * 96 + 32));
    assert_int_equal(bt_kv_token_bytes(&pool8), bt_kv_block_bytes(&pool8) / 16);
    assert_int_equal(bt_kv_pool_bytes(&pool8), 10 * bt_kv_block_bytes(&pool8));
    bt_kv_shape f32 = pool8;
    f32.dtype = BT_DTYPE_F32;
    assert_int_equal(bt_kv_codes_bytes(&f32), 16 * 96 * 4);
    assert_int_equal(bt_kv_scales_bytes(&f32), 0);
    bt_kv_shape odd = pool8;
    odd.head_dim = 5;
    assert_int_equal(bt_kv_codes_bytes(&odd), 80);
    bt_kv_shape huge = f32;
    huge.layers = huge.kv_heads = huge.head_dim = 256;
    huge.block_tokens = 64;
    huge.pool_blocks = UINT32_MAX;
    assert_int_equal(bt_kv_pool_bytes(&huge), 0);

    uint8_t byte = 0;
    bt_kv_view kv = {.shape = pool8, .base = &byte};
    size_t head = 16 * 96 + 32;
    assert_int_equal(bt_kv_at(&kv, 0, 0, BT_KV_K, 1) - kv.base, head);
    assert_int_equal(bt_kv_at(&kv, 0, 0, BT_KV_V, 0) - kv.base, 4 * head);
    assert_int_equal(bt_kv_at(&kv, 0, 1, BT_KV_K, 0) - kv.base, 8 * head);
    assert_int_equal(bt_kv_at(&kv, 1, 0, BT_KV_K, 0) - kv.base, 24 * head);
    assert_int_equal(bt_kv_at(&kv, 9, 2, BT_KV_V, 3) - kv.base, bt_kv_pool_bytes(&pool8) - head);
}

static void test_wire_geometry(void **state)
{
    (void)state;
    bt_wire_shape fp8 = {BT_DTYPE_FP8_E4M3, 96}, f32 = {BT_DTYPE_F32, 8},
                  bf16 = {BT_DTYPE_BF16, 96};
    assert_int_equal(bt_wire_record_bytes(&fp8), 64 * 96 + 128);
    assert_int_equal(bt_wire_record_bytes(&f32), 64 * 8 * 4);
    assert_int_equal(bt_wire_record_bytes(&bf16), 64 * 96 * 2);
    assert_int_equal(bt_wire_frame_bytes(&fp8, 3, 4), 3 * 4 * 2 * (64 * 96 + 128));
    assert_int_equal(bt_wire_frame_bytes(&f32, UINT32_MAX, UINT32_MAX), 0);
    assert_int_equal(bt_wire_frame_bytes(&fp8, 0, 4), 0);
    size_t run = bt_wire_frame_bytes(&fp8, 1, 4);
    assert_int_equal(bt_wire_runs_per_cell(&fp8, 4, run - 1), 0);
    assert_int_equal(bt_wire_runs_per_cell(&fp8, 4, 3 * run + 7), 3);
    assert_int_equal(bt_wire_runs_per_cell(&fp8, 0, run), 0);
    assert_int_equal(bt_wire_runs_per_cell(&fp8, 4, SIZE_MAX),
                     BT_CONTEXT_TOKENS_MAX / BT_RUN_TOKENS);
}

static void refused(const bt_frame *frame, const char *field)
{
    bt_wire_shape wire = {BT_DTYPE_BF16, 96};
    bt_err err = {0};
    size_t cell_bytes = bt_wire_frame_bytes(&wire, 2, 4);
    assert_int_equal(bt_wire_frame_check(&wire, &pool8, frame, 4, cell_bytes, &err), BT_ERR_FORMAT);
    if (strstr(err.message, field) == NULL) fail_msg("'%s' lacks %s", err.message, field);
}

static void test_frame_check(void **state)
{
    (void)state;
    const bt_frame good = {.frame = 9,
                           .cell = 3,
                           .layer = 2,
                           .run_first = 5,
                           .run_count = 2,
                           .head_first = 1,
                           .head_count = 3,
                           .token_end = 385};
    bt_wire_shape wire = {BT_DTYPE_BF16, 96};
    size_t cell_bytes = bt_wire_frame_bytes(&wire, 2, 4);
    assert_int_equal(bt_wire_frame_check(&wire, &pool8, &good, 4, cell_bytes, NULL), BT_OK);
    bt_frame f = good;
    f.token_end = 448;
    assert_int_equal(bt_wire_frame_check(&wire, &pool8, &f, 4, cell_bytes, NULL), BT_OK);
#define REFUSED(field, value, name)                                                                \
    do {                                                                                           \
        f = good;                                                                                  \
        f.field = (value);                                                                         \
        refused(&f, name);                                                                         \
    } while (0)
    REFUSED(layer, 3, "layer");
    REFUSED(layer, UINT32_MAX, "layer");
    REFUSED(head_count, 0, "head_count");
    REFUSED(head_count, 4, "head_count");
    REFUSED(head_count, UINT32_MAX, "head_count");
    REFUSED(head_first, UINT32_MAX - 1, "head_first");
    REFUSED(run_count, 0, "run_count");
    REFUSED(run_count, UINT32_MAX - 4, "run_count");
    REFUSED(run_first, UINT32_MAX - 1, "run_first");
    REFUSED(run_first, 2047, "run_first");
    REFUSED(token_end, 384, "token_end");
    REFUSED(token_end, 449, "token_end");
    REFUSED(token_end, 0, "token_end");
    REFUSED(cell, 4, "cell");
#undef REFUSED
    f = good;
    f.run_count = 3;
    f.token_end = 512;
    refused(&f, "bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool_geometry),
        cmocka_unit_test(test_wire_geometry),
        cmocka_unit_test(test_frame_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
