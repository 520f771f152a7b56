/* test_kv_append.c - a token lands in its row of its block as bt_row_encode says, and nowhere else. */
#include "kernels/kv_append/kv_append.h"
#include "kernels/kv_pack/kv_pack.h"
#include "tests/kernels/shapes.h"

#define HEADS 2u

static void check(bt_rng *rng, bt_dtype dtype, uint32_t head_dim, uint32_t block_tokens)
{
    bt_kv_view kv = {.shape = {.dtype = dtype,
                               .layers = 2,
                               .kv_heads = HEADS,
                               .head_dim = head_dim,
                               .block_tokens = block_tokens,
                               .pool_blocks = 3}};
    size_t bytes = bt_kv_pool_bytes(&kv.shape), row_bytes = head_dim * bt_dtype_bytes(dtype);
    uint32_t row = block_tokens - 1;
    uint8_t *expected = malloc(bytes);
    kv.base = malloc(bytes);
    assert_non_null(expected);
    assert_non_null(kv.base);
    memset(kv.base, 0xa5, bytes);
    memset(expected, 0xa5, bytes);
    float *k = random_floats(rng, (size_t)HEADS * head_dim);
    float *v = random_floats(rng, (size_t)HEADS * head_dim);

    bt_kv_append(&kv, 1, 2, row, k, v);
    bt_kv_view want = {.shape = kv.shape, .base = expected};
    for (uint32_t head = 0; head < HEADS; head++) {
        for (int part = BT_KV_K; part <= BT_KV_V; part++) {
            uint8_t *codes = bt_kv_at(&want, 2, 1, (bt_kv_part)part, head);
            uint16_t scale = 0;
            bt_row_encode(dtype, (part == BT_KV_K ? k : v) + (size_t)head * head_dim, head_dim,
                          codes + row * row_bytes, &scale);
            if (bt_dtype_scaled(dtype))
                memcpy(codes + bt_kv_codes_bytes(&kv.shape) + row * 2, &scale, 2);
        }
    }
    assert_memory_equal(kv.base, expected, bytes);
    free(kv.base);
    free(expected);
    free(k);
    free(v);
}

static void test_a_token_lands_in_its_row_only(void **state)
{
    (void)state;
    static const uint32_t block_sizes[] = {16, 32, 64};
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t d = 0; d < COUNT(shape_kv_dtypes); d++)
        for (size_t h = 0; h < COUNT(shape_head_dims); h++)
            for (size_t b = 0; b < COUNT(block_sizes); b++)
                check(&rng, shape_kv_dtypes[d], shape_head_dims[h], block_sizes[b]);
}

/* A row for which an encoder may go wrong: any bits, subnormal, huge, ties of the code, zeros. */
static void hard_row(bt_rng *rng, uint32_t head_dim, float *ret_x)
{
    uint32_t kind = (uint32_t)bt_rng_below(rng, 8);
    int exponent = (int)bt_rng_below(rng, 250) - 140;
    for (uint32_t i = 0; i < head_dim; i++) {
        uint32_t bits = (uint32_t)bt_rng_u64(rng);
        float x = ldexpf(random_float(rng), exponent);
        if (kind == 0) x = bt_f32_of_bits(bits); /* NaN and infinities too */
        if (kind == 1) x = bt_f32_of_bits(bits & 0x807fffffu);
        if (kind == 2) x = ldexpf((float)((int)(bits % 511) - 255) / 2, exponent / 8);
        if (kind == 3 && bits % 8) x = 0;
        if (kind == 4 && bits % 16 == 0) x = bits & 16 ? INFINITY : -INFINITY;
        ret_x[i] = x;
    }
    if (kind == 5) memset(ret_x, 0, head_dim * sizeof(float));
}

/* What the engine stores and what a pool of another dtype becomes on its way over the wire are the
 * same codes and scales: an f32 pool packed to T is a T pool. Else a fleet would not equal one
 * process. */
static void test_the_pool_and_the_wire_encode_alike(void **state)
{
    (void)state;
    enum { DIM = 64, RUNS = 500 };
    static const bt_kv_pack_ops *const ops[] = {&bt_kv_pack_ref, &bt_kv_pack_avx2};
    static const uint32_t blocks[] = {0};
    static const uint8_t pair_key[BT_KEY_BYTES] = {9};
    static _Alignas(64) uint8_t pool[4][2 * BT_RUN_TOKENS * (DIM * 4 + 2)];
    static _Alignas(64) uint8_t wire[BT_RUN_TOKENS * (DIM * 4 + 2)];
    static bt_kv_digest_key key;
    bt_kv_view kv[4];
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t d = 0; d < 4; d++)
        kv[d] = (bt_kv_view){.shape = {.dtype = shape_kv_dtypes[d],
                                       .layers = 1,
                                       .kv_heads = 1,
                                       .head_dim = DIM,
                                       .block_tokens = BT_RUN_TOKENS,
                                       .pool_blocks = 1},
                             .base = pool[d]};
    for (int run = 0; run < RUNS; run++) {
        for (uint32_t row = 0; row < BT_RUN_TOKENS; row++) {
            float k[DIM], v[DIM];
            hard_row(&rng, DIM, k);
            hard_row(&rng, DIM, v);
            for (size_t d = 0; d < 4; d++) bt_kv_append(&kv[d], 0, 0, row, k, v);
        }
        for (size_t at = 0; at < 2 * 2 * 4; at++) {
            size_t d = at / 4;
            const bt_kv_record record = {.kv = &kv[0], /* f32: what the engine computed */
                                         .blocks = blocks,
                                         .wire = shape_kv_dtypes[d],
                                         .part = at % 2 ? BT_KV_V : BT_KV_K,
                                         .rows = BT_RUN_TOKENS};
            const bt_kv_pack_ops *variant = ops[at / 2 % 2];
            if (!variant->runs_here()) continue;
            size_t bytes = bt_kv_record_bytes(record.wire, DIM);
            uint64_t sum[2] = {0, 0};
            bt_kv_digest_key_make(pair_key, bytes, &key);
            bt_kv_pack(variant, &record, &key, wire, sum);
            assert_memory_equal(wire, bt_kv_at(&kv[d], 0, 0, record.part, 0), bytes);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_token_lands_in_its_row_only),
                                       cmocka_unit_test(test_the_pool_and_the_wire_encode_alike)};
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
