/* The geometry of pool and wire, the check of frames that a peer names, and frames from one pool
 * into another of a different shape. */
#include "common/kv/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
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

static const uint8_t pair_key[BT_KEY_BYTES] = {4, 5, 6};

static uint8_t *take(size_t bytes)
{
    uint8_t *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(memory);
    memset(memory, 0xa5, bytes);
    return memory;
}

/* Every pool has four heads, two layers and 256 tokens; tables run backwards. */
static bt_kv_view pool_make(bt_dtype dtype, uint32_t head_dim, uint32_t block_tokens)
{
    bt_kv_view kv = {.shape = {.dtype = dtype,
                               .layers = 2,
                               .kv_heads = 4,
                               .head_dim = head_dim,
                               .block_tokens = block_tokens,
                               .pool_blocks = 256 / block_tokens}};
    kv.base = take(bt_kv_pool_bytes(&kv.shape));
    return kv;
}

static void table_make(const bt_kv_view *kv, uint32_t ret_table[16])
{
    for (uint32_t i = 0; i < kv->shape.pool_blocks; i++)
        ret_table[i] = kv->shape.pool_blocks - 1 - i;
}

/* Random bytes whose top bits are clear: finite, non-negative values and scales in any dtype. */
static void pool_fill(const bt_kv_view *kv)
{
    uint32_t x = 12345;
    for (size_t i = 0; i < bt_kv_pool_bytes(&kv->shape); i++) {
        x = x * 1664525u + 1013904223u;
        kv->base[i] = (uint8_t)(x >> 24) & 0x3f;
    }
}

typedef struct {
    bt_kv_view kv;
    uint32_t blocks[16];
} pool;

static pool pool_open(bt_dtype dtype, uint32_t head_dim, uint32_t block_tokens)
{
    pool p = {.kv = pool_make(dtype, head_dim, block_tokens)};
    table_make(&p.kv, p.blocks);
    return p;
}

/* Packs the frame of one pool into bytes the caller frees. */
static uint8_t *pack(const pool *p, const bt_wire_shape *wire, const bt_frame *frame,
                     bt_kv_digest *ret_digest)
{
    uint8_t *bytes = take(bt_wire_frame_bytes(wire, frame->run_count, frame->head_count));
    bt_wire_pack(&p->kv, wire, frame, p->blocks, pair_key, bytes, ret_digest);
    return bytes;
}

/* P's pool -> wire -> D's pool -> wire again: the second wire form is the first one, bit for bit,
 * as D stores the wire's own dtype. */
static void check_round_trip(bt_dtype from, bt_dtype to, uint32_t head_dim, uint32_t p_block,
                             uint32_t d_block)
{
    pool p = pool_open(from, head_dim, p_block), d = pool_open(to, head_dim, d_block);
    pool_fill(&p.kv);
    bt_wire_shape wire = {to, head_dim};
    bt_frame frame = {
        .layer = 1, .run_first = 1, .run_count = 3, .head_count = 4, .token_end = 201};
    bt_kv_digest sent, seen, again;
    uint8_t *first = pack(&p, &wire, &frame, &sent);
    bt_wire_unpack(&d.kv, &wire, &frame, d.blocks, pair_key, first, &seen);
    assert_memory_equal(&sent, &seen, sizeof(sent));
    uint8_t *second = pack(&d, &wire, &frame, &again);
    assert_memory_equal(&sent, &again, sizeof(sent));
    assert_memory_equal(first, second, bt_wire_frame_bytes(&wire, 3, 4));

    /* The last run has 9 tokens; row 9 of its first record and all after it are zero. */
    size_t row_bytes = head_dim * bt_dtype_bytes(to);
    const uint8_t *record = first + bt_wire_frame_bytes(&wire, 2, 4);
    bool other = false;
    for (size_t i = 0; i < 9 * row_bytes; i++) other |= record[i] != 0;
    assert_true(other);
    for (size_t i = 9 * row_bytes; i < 64 * row_bytes; i++) assert_int_equal(record[i], 0);
    free(first);
    free(second);
    free(p.kv.base);
    free(d.kv.base);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const uint32_t blocks[] = {16, 32, 64}, dims[] = {8, 64, 96, 128};
    for (size_t p = 0; p < 3; p++) {
        for (size_t d = 0; d < 3; d++) {
            for (size_t h = 0; h < 4; h++) {
                check_round_trip(BT_DTYPE_FP8_E4M3, BT_DTYPE_FP8_E4M3, dims[h], blocks[p],
                                 blocks[d]);
                check_round_trip(BT_DTYPE_F32, BT_DTYPE_BF16, dims[h], blocks[p], blocks[d]);
                check_round_trip(BT_DTYPE_BF16, BT_DTYPE_INT8, dims[h], blocks[p], blocks[d]);
            }
        }
    }
}

/* Heads of two ranks, packed apart and unpacked by one receiver, are the unsharded KV; and the
 * digests of shards, and of frames one after the other, add up to the whole's. */
static void test_shards_add_up(void **state)
{
    (void)state;
    pool p = pool_open(BT_DTYPE_F32, 96, 16);
    pool whole_pool = pool_open(BT_DTYPE_FP8_E4M3, 96, 32);
    pool shard_pool = pool_open(BT_DTYPE_FP8_E4M3, 96, 32);
    pool_fill(&p.kv);
    bt_wire_shape wire = {BT_DTYPE_FP8_E4M3, 96};
    const bt_frame all = {.run_count = 3, .head_count = 4, .token_end = 150};
    bt_kv_digest whole, got;
    uint8_t *bytes = pack(&p, &wire, &all, &whole);
    bt_wire_unpack(&whole_pool.kv, &wire, &all, whole_pool.blocks, pair_key, bytes, &got);
    assert_memory_equal(&whole, &got, sizeof(got));
    free(bytes);

    bt_kv_digest sum = {0};
    for (uint32_t head = 0; head < 4; head += 2) {
        for (uint32_t run = 0; run < 3; run++) {
            bt_frame part = {.run_first = run,
                             .run_count = 1,
                             .head_first = head,
                             .head_count = 2,
                             .token_end = run == 2 ? 150 : 64 * (run + 1)};
            bt_kv_digest sent;
            bytes = pack(&p, &wire, &part, &sent);
            bt_wire_unpack(&shard_pool.kv, &wire, &part, shard_pool.blocks, pair_key, bytes, &got);
            assert_memory_equal(&sent, &got, sizeof(got));
            sum.lane[0] += got.lane[0];
            sum.lane[1] += got.lane[1];
            free(bytes);
        }
    }
    assert_memory_equal(&sum, &whole, sizeof(sum));
    assert_memory_equal(shard_pool.kv.base, whole_pool.kv.base,
                        bt_kv_pool_bytes(&whole_pool.kv.shape));
    free(p.kv.base);
    free(whole_pool.kv.base);
    free(shard_pool.kv.base);
}

/* A frame sealed for one place is not accepted for another. */
static void test_frame_is_tied_to_its_place(void **state)
{
    (void)state;
    pool p = pool_open(BT_DTYPE_INT8, 8, 16), d = pool_open(BT_DTYPE_INT8, 8, 64);
    pool_fill(&p.kv);
    bt_wire_shape wire = {BT_DTYPE_INT8, 8};
    bt_frame frame = {.run_first = 1, .run_count = 1, .head_count = 2, .token_end = 128};
    bt_kv_digest sent, seen;
    uint8_t *bytes = pack(&p, &wire, &frame, &sent);
    bt_frame other = frame;
    other.layer = 1;
    bt_wire_unpack(&d.kv, &wire, &other, d.blocks, pair_key, bytes, &seen);
    assert_memory_not_equal(&sent, &seen, sizeof(sent));
    other = frame;
    other.run_first = 2;
    other.token_end = 192;
    bt_wire_unpack(&d.kv, &wire, &other, d.blocks, pair_key, bytes, &seen);
    assert_memory_not_equal(&sent, &seen, sizeof(sent));
    other = frame;
    other.head_first = 1;
    bt_wire_unpack(&d.kv, &wire, &other, d.blocks, pair_key, bytes, &seen);
    assert_memory_not_equal(&sent, &seen, sizeof(sent));
    free(bytes);
    free(p.kv.base);
    free(d.kv.base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool_geometry), cmocka_unit_test(test_wire_geometry),
        cmocka_unit_test(test_frame_check),   cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_shards_add_up), cmocka_unit_test(test_frame_is_tied_to_its_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
