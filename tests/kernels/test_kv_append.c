/* test_kv_append.c - a token lands in its row of its block as bt_row_encode says, and nowhere else. */
#include "kernels/kv_append/kv_append.h"
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_token_lands_in_its_row_only)};
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
