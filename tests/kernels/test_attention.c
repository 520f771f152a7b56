/* test_attention.c - every row of the kernel table against the reference, over head dims, KV dtypes,
 * block sizes and positions; and the promise that a query's bits do not depend on its chunk, the
 * block size, or what lies in the pool beyond its position. */
#include "kernels/kv_append/kv_append.h"
#include "tests/kernels/shapes.h"

#define TOKENS 75u
#define POOL_BLOCKS 8u
#define KV_HEADS 2u
#define GROUP 3u
#define LAYERS 2u

static const uint32_t block_sizes[] = {16, 32, 64};
/* None, one token, below, at and above a tile, all but one token, all, more than there are. */
static const uint32_t windows[] = {0, 1, 5, 16, 37, TOKENS - 1, TOKENS, 1000};
static const uint32_t table[POOL_BLOCKS] = {6, 1, 7, 0, 5, 2, 4, 3};

typedef struct {
    bt_kv_view kv;
    uint32_t head_dim;
    uint32_t window;
    float *k, *v; /* [TOKENS][KV_HEADS][head_dim] */
    float *q;     /* [TOKENS][KV_HEADS][GROUP][head_dim] */
    float *o, *expected;
    void *scratch;
} fixture;

static size_t query_floats(const fixture *f)
{
    return (size_t)TOKENS * KV_HEADS * GROUP * f->head_dim;
}

/* A pool of NaN, so that a read beyond what was appended shows. */
static void pool_fill(fixture *f, bt_dtype dtype, uint32_t block_tokens)
{
    f->kv.shape = (bt_kv_shape){.dtype = dtype,
                                .layers = LAYERS,
                                .kv_heads = KV_HEADS,
                                .head_dim = f->head_dim,
                                .block_tokens = block_tokens,
                                .pool_blocks = POOL_BLOCKS};
    size_t bytes = bt_kv_pool_bytes(&f->kv.shape);
    free(f->kv.base);
    f->kv.base = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    assert_non_null(f->kv.base);
    memset(f->kv.base, 0xff, bytes);
    for (uint32_t t = 0; t < TOKENS; t++) {
        size_t at = (size_t)t * KV_HEADS * f->head_dim;
        bt_kv_append(&f->kv, 1, table[t / block_tokens], t % block_tokens, f->k + at, f->v + at);
    }
}

static fixture fixture_make(bt_rng *rng, uint32_t head_dim)
{
    fixture f = {.head_dim = head_dim};
    f.k = random_floats(rng, (size_t)TOKENS * KV_HEADS * head_dim);
    f.v = random_floats(rng, (size_t)TOKENS * KV_HEADS * head_dim);
    f.q = random_floats(rng, query_floats(&f));
    f.o = random_floats(rng, query_floats(&f));
    f.expected = random_floats(rng, query_floats(&f));
    for (size_t i = 0; i < query_floats(&f); i++) f.q[i] *= 4;
    size_t bytes = bt_attention_scratch_bytes(GROUP, head_dim);
    f.scratch = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    assert_non_null(f.scratch);
    return f;
}

static void fixture_free(fixture *f)
{
    free(f->k);
    free(f->v);
    free(f->q);
    free(f->o);
    free(f->expected);
    free(f->scratch);
    free(f->kv.base);
}

/* All queries of all heads in chunks of at most `chunk`. */
static void run(const fixture *f, bt_attention_fn *attention, uint32_t chunk, float *ret_o)
{
    uint32_t stride = KV_HEADS * GROUP * f->head_dim;
    for (uint32_t t = 0; t < TOKENS; t += chunk) {
        for (uint32_t head = 0; head < KV_HEADS; head++) {
            size_t at = (size_t)t * stride + (size_t)head * GROUP * f->head_dim;
            const bt_attention op = {.kv = &f->kv,
                                     .blocks = table,
                                     .q = f->q + at,
                                     .o = ret_o + at,
                                     .layer = 1,
                                     .kv_head = head,
                                     .group = GROUP,
                                     .position = t,
                                     .count = TOKENS - t < chunk ? TOKENS - t : chunk,
                                     .window = f->window,
                                     .q_stride = stride,
                                     .o_stride = stride};
            attention(&op, f->scratch);
        }
    }
}

static void compare_rows(const fixture *f)
{
    float *first = NULL; /* all rows but the reference give the same bits */
    run(f, bt_attention_ref, 16, f->expected);
    for (unsigned v = 0; v < bt_kernels_row_count; v++) {
        if (!bt_kernels_rows[v]->supported()) continue;
        run(f, bt_kernels_rows[v]->attention, 16, f->o);
        for (size_t i = 0; i < query_floats(f); i++) assert_near(f->o[i], f->expected[i], 1e-5);
        if (bt_kernels_rows[v]->attention == bt_attention_ref) continue;
        if (first) assert_memory_equal(f->o, first, query_floats(f) * sizeof(float));
        if (!first) first = malloc(query_floats(f) * sizeof(float));
        assert_non_null(first);
        memcpy(first, f->o, query_floats(f) * sizeof(float));
    }
    free(first);
}

static void test_variants_agree_with_the_reference(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t h = 0; h < COUNT(shape_head_dims); h++) {
        fixture f = fixture_make(&rng, shape_head_dims[h]);
        for (size_t d = 0; d < COUNT(shape_kv_dtypes); d++) {
            pool_fill(&f, shape_kv_dtypes[d], block_sizes[(h + d) % 3]);
            for (size_t w = 0; w < COUNT(windows); w++) {
                f.window = windows[w];
                compare_rows(&f);
            }
        }
        fixture_free(&f);
    }
}

static void test_chunks_and_block_sizes_change_no_bit(void **state)
{
    (void)state;
    static const uint32_t chunks[] = {1, 2, 5, 16};
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (size_t h = 0; h < COUNT(shape_head_dims); h++) {
        fixture f = fixture_make(&rng, shape_head_dims[h]);
        for (size_t d = 0; d < COUNT(shape_kv_dtypes); d++) {
            f.window = windows[(h + d) % COUNT(windows)];
            pool_fill(&f, shape_kv_dtypes[d], 16);
            run(&f, bt_kernels_best()->attention, 16, f.expected);
            for (size_t b = 0; b < COUNT(block_sizes); b++) {
                pool_fill(&f, shape_kv_dtypes[d], block_sizes[b]);
                for (size_t c = 0; c < COUNT(chunks); c++) {
                    run(&f, bt_kernels_best()->attention, chunks[c], f.o);
                    assert_memory_equal(f.o, f.expected, query_floats(&f) * sizeof(float));
                }
            }
        }
        fixture_free(&f);
    }
}

/* With one token, attention is its V, whatever the score. */
static void test_the_first_token_sees_itself(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    fixture f = fixture_make(&rng, 64);
    pool_fill(&f, BT_DTYPE_F32, 32);
    run(&f, bt_kernels_best()->attention, 1, f.o);
    for (uint32_t head = 0; head < KV_HEADS * GROUP; head++)
        for (uint32_t i = 0; i < 64; i++)
            assert_near(f.o[head * 64 + i], f.v[head / GROUP * 64 + i], 1e-6);
    fixture_free(&f);
}

/* One token has all the weight, so that its V comes out as it is stored: every 8-bit code, and its
 * scale, by the variant and by bt_row_decode. */
static void test_one_token_gives_its_value(void **state)
{
    (void)state;
    enum { DIM = 256, HEADS = 4 };
    static const uint32_t block = 0;
    static float q[HEADS * DIM], o[HEADS * DIM];
    for (size_t d = 0; d < COUNT(shape_kv_dtypes); d++) {
        bt_kv_view kv = {.shape = {.dtype = shape_kv_dtypes[d],
                                   .layers = 1,
                                   .kv_heads = 1,
                                   .head_dim = DIM,
                                   .block_tokens = 16,
                                   .pool_blocks = 1}};
        kv.base = calloc(1, bt_kv_pool_bytes(&kv.shape));
        void *scratch = aligned_alloc(64, bt_attention_scratch_bytes(HEADS, DIM) / 64 * 64 + 64);
        assert_non_null(kv.base);
        assert_non_null(scratch);
        uint8_t *v = bt_kv_at(&kv, 0, 0, BT_KV_V, 0);
        uint16_t scale = bt_f32_to_f16(0.37f);
        uint32_t row_bytes = DIM * (uint32_t)bt_dtype_bytes(kv.shape.dtype);
        for (uint32_t i = 0; i < row_bytes; i++) v[i] = (uint8_t)i;
        if (bt_dtype_scaled(kv.shape.dtype)) memcpy(v + bt_kv_codes_bytes(&kv.shape), &scale, 2);
        float expected[DIM];
        bt_row_decode(kv.shape.dtype, v, scale, DIM, expected);
        for (unsigned r = 0; r < bt_kernels_row_count; r++) {
            if (!bt_kernels_rows[r]->supported()) continue;
            for (uint32_t group = 1; group <= HEADS; group += HEADS - 1) {
                const bt_attention op = {.kv = &kv,
                                         .blocks = &block,
                                         .q = q,
                                         .o = o,
                                         .group = group,
                                         .count = 1,
                                         .q_stride = HEADS * DIM,
                                         .o_stride = HEADS * DIM};
                bt_kernels_rows[r]->attention(&op, scratch);
                for (uint32_t i = 0; i < group * DIM; i++)
                    if (!(isnan(o[i]) && isnan(expected[i % DIM])))
                        assert_true(o[i] == expected[i % DIM]);
            }
        }
        free(kv.base);
        free(scratch);
    }
}

/* A window of one is like the first token everywhere, and NaN before a window changes nothing. */
static void test_a_window_hides_what_is_before_it(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    fixture f = fixture_make(&rng, 64);
    for (unsigned r = 0; r < bt_kernels_row_count; r++) {
        if (!bt_kernels_rows[r]->supported()) continue;
        pool_fill(&f, BT_DTYPE_F32, 16);
        f.window = 1;
        run(&f, bt_kernels_rows[r]->attention, 16, f.o);
        for (size_t i = 0; i < query_floats(&f); i++) {
            size_t token = i / (KV_HEADS * GROUP * 64), head = i / (GROUP * 64) % KV_HEADS;
            assert_near(f.o[i], f.v[(token * KV_HEADS + head) * 64 + i % 64], 1e-6);
        }
        f.window = 10;
        run(&f, bt_kernels_rows[r]->attention, 16, f.expected);
        for (uint32_t part = 0; part < 2; part++)
            for (uint32_t head = 0; head < KV_HEADS; head++)
                memset(bt_kv_at(&f.kv, table[0], 1, (bt_kv_part)part, head), 0xff, 16 * 64 * 4);
        run(&f, bt_kernels_rows[r]->attention, 1, f.o);
        size_t row = KV_HEADS * GROUP * 64, from = (16 + f.window - 1) * row;
        assert_memory_equal(f.o + from, f.expected + from,
                            (query_floats(&f) - from) * sizeof(float));
    }
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_token_gives_its_value),
        cmocka_unit_test(test_variants_agree_with_the_reference),
        cmocka_unit_test(test_chunks_and_block_sizes_change_no_bit),
        cmocka_unit_test(test_the_first_token_sees_itself),
        cmocka_unit_test(test_a_window_hides_what_is_before_it),
    };
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
