/* Every variant of kv_pack against an oracle that computes each element alone, over all pairs of
 * dtypes; and what the digest must notice. */
#include "kernels/kv_pack/kv_pack.h"
#include "kernels/numerics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RUN 1u
#define BLOCKS 8u

static const bt_dtype dtypes[] = {BT_DTYPE_F32, BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3, BT_DTYPE_INT8};
static const uint32_t head_dims[] = {8, 64, 96, 128, 5};
static const uint32_t block_sizes[] = {16, 32, 64};
static const uint32_t row_counts[] = {1, 17, 63, 64};
static const uint32_t table[BLOCKS] = {6, 1, 7, 0, 5, 2, 4, 3};
static const uint8_t pair_key[BT_KEY_BYTES] = {1, 2, 3};
static const bt_kv_pack_ops *const variants[] = {&bt_kv_pack_ref, &bt_kv_pack_avx2,
                                                 &bt_kv_pack_avx512};
#define VARIANTS (sizeof(variants) / sizeof(variants[0]))

static uint64_t seed = 20261123;

static uint32_t random_u32(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

static float random_value(void)
{
    uint32_t kind = random_u32() % 64;
    if (kind == 0) return 0.0f;
    if (kind == 1) return bt_f32_of_bits(random_u32() & 0x807fffffu); /* subnormal */
    float sign = random_u32() & 1 ? 1.0f : -1.0f;
    return sign * ldexpf(1.0f + (float)(random_u32() % 4096) / 4096, (int)(random_u32() % 12) - 6);
}

static uint8_t *take(size_t bytes, int fill)
{
    uint8_t *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(memory);
    memset(memory, fill, bytes);
    return memory;
}

static bt_kv_view pool_make(bt_dtype dtype, uint32_t head_dim, uint32_t block_tokens, int fill)
{
    bt_kv_view kv = {.shape = {.dtype = dtype,
                               .layers = 2,
                               .kv_heads = 2,
                               .head_dim = head_dim,
                               .block_tokens = block_tokens,
                               .pool_blocks = BLOCKS}};
    kv.base = take(bt_kv_pool_bytes(&kv.shape), fill);
    return kv;
}

static uint8_t *row_codes(const bt_kv_view *kv, const bt_kv_record *record, uint32_t row)
{
    uint32_t token = record->run * BT_RUN_TOKENS + row;
    uint8_t *head = bt_kv_at(kv, table[token / kv->shape.block_tokens], record->layer, record->part,
                             record->head);
    return head + (size_t)(token % kv->shape.block_tokens) * kv->shape.head_dim *
                      bt_dtype_bytes(kv->shape.dtype);
}

static uint16_t *row_scale(const bt_kv_view *kv, const bt_kv_record *record, uint32_t row)
{
    static uint16_t none;
    if (!bt_dtype_scaled(kv->shape.dtype)) return &none;
    uint32_t token = record->run * BT_RUN_TOKENS + row;
    uint8_t *head = bt_kv_at(kv, table[token / kv->shape.block_tokens], record->layer, record->part,
                             record->head);
    return (uint16_t *)(head + bt_kv_codes_bytes(&kv->shape)) + token % kv->shape.block_tokens;
}

/* Every row of the record's run gets random values, a few rows only zeros. */
static void pool_fill(const bt_kv_view *kv, const bt_kv_record *record)
{
    float values[BT_HEAD_DIM_MAX];
    for (uint32_t row = 0; row < record->rows; row++) {
        bool zero = random_u32() % 8 == 0;
        for (uint32_t d = 0; d < kv->shape.head_dim; d++) values[d] = zero ? 0 : random_value();
        bt_row_encode(kv->shape.dtype, values, kv->shape.head_dim, row_codes(kv, record, row),
                      row_scale(kv, record, row));
    }
}

/* One row of dtype `from` as dtype `to`, the way the header says. */
static void oracle_row(bt_dtype from, const uint8_t *codes, uint16_t scale, bt_dtype to,
                       uint32_t head_dim, uint8_t *ret_codes, uint16_t *ret_scale)
{
    if (from == to) {
        memcpy(ret_codes, codes, head_dim * bt_dtype_bytes(from));
        *ret_scale = scale;
        return;
    }
    float values[BT_HEAD_DIM_MAX];
    bt_row_decode(from, codes, scale, head_dim, values);
    bt_row_encode(to, values, head_dim, ret_codes, ret_scale);
}

static void oracle_pack(const bt_kv_view *kv, const bt_kv_record *record, uint8_t *dst)
{
    size_t row_bytes = kv->shape.head_dim * bt_dtype_bytes(record->wire);
    memset(dst, 0, bt_kv_record_bytes(record->wire, kv->shape.head_dim));
    uint16_t *scales = (uint16_t *)(dst + BT_RUN_TOKENS * row_bytes);
    for (uint32_t row = 0; row < record->rows; row++) {
        uint16_t scale = 0;
        oracle_row(kv->shape.dtype, row_codes(kv, record, row), *row_scale(kv, record, row),
                   record->wire, kv->shape.head_dim, dst + row * row_bytes, &scale);
        if (bt_dtype_scaled(record->wire)) scales[row] = scale;
    }
}

static void oracle_unpack(const bt_kv_view *kv, const bt_kv_record *record, const uint8_t *src)
{
    size_t row_bytes = kv->shape.head_dim * bt_dtype_bytes(record->wire);
    const uint16_t *scales = (const uint16_t *)(src + BT_RUN_TOKENS * row_bytes);
    for (uint32_t row = 0; row < record->rows; row++) {
        uint16_t scale = bt_dtype_scaled(record->wire) ? scales[row] : 0, out = 0;
        oracle_row(record->wire, src + row * row_bytes, scale, kv->shape.dtype, kv->shape.head_dim,
                   row_codes(kv, record, row), &out);
        if (bt_dtype_scaled(kv->shape.dtype)) *row_scale(kv, record, row) = out;
    }
}

/* The digest by its formula, word by word. */
static void oracle_digest(const bt_kv_record *record, const bt_kv_digest_key *key,
                          const uint8_t *wire, uint64_t sum[2])
{
    uint64_t nh[2] = {0, 0};
    for (uint32_t i = 0; i < key->bytes / 4; i += 2) {
        uint32_t w[2];
        memcpy(w, wire + (size_t)4 * i, sizeof(w));
        for (uint32_t lane = 0; lane < 2; lane++)
            nh[lane] += (uint64_t)(uint32_t)(w[0] + key->words[i + 4 * lane]) *
                        (uint32_t)(w[1] + key->words[i + 1 + 4 * lane]);
    }
    uint32_t place[10] = {
        [4] = key->bytes, record->layer, record->head, record->run, (uint32_t)record->part};
    memcpy(place, nh, sizeof(nh));
    uint64_t lanes[2];
    bt_prf128(key->prf, place, sizeof(place), lanes);
    sum[0] += lanes[0];
    sum[1] += lanes[1];
}

static void check_case(const bt_kv_pack_ops *ops, bt_dtype pool, bt_dtype wire, uint32_t head_dim,
                       uint32_t block_tokens, uint32_t rows)
{
    bt_kv_view from = pool_make(pool, head_dim, block_tokens, 0xa5);
    bt_kv_record record = {.kv = &from,
                           .blocks = table,
                           .wire = wire,
                           .layer = 1,
                           .head = 1,
                           .run = RUN,
                           .part = BT_KV_V,
                           .rows = rows};
    pool_fill(&from, &record);
    size_t bytes = bt_kv_record_bytes(wire, head_dim);
    uint8_t *want = take(bytes, 0), *got = take(bytes, 0xff);
    static bt_kv_digest_key key;
    bt_kv_digest_key_make(pair_key, bytes, &key);
    uint64_t want_sum[2] = {7, 9}, got_sum[2] = {7, 9};
    oracle_pack(&from, &record, want);
    oracle_digest(&record, &key, want, want_sum);
    bt_kv_pack(ops, &record, &key, got, got_sum);
    assert_memory_equal(got, want, bytes);
    assert_memory_equal(got_sum, want_sum, sizeof(want_sum));

    /* Back into pools of another block size: what is not a valid row of the record stays. */
    uint32_t other = block_tokens == 64 ? 16 : block_tokens * 2;
    bt_kv_view want_to = pool_make(pool, head_dim, other, 0x5a);
    bt_kv_view got_to = pool_make(pool, head_dim, other, 0x5a);
    oracle_unpack(&want_to, &record, want);
    record.kv = &got_to;
    got_sum[0] = 7, got_sum[1] = 9;
    bt_kv_unpack(ops, &record, &key, want, got_sum);
    assert_memory_equal(got_sum, want_sum, sizeof(want_sum));
    assert_memory_equal(got_to.base, want_to.base, bt_kv_pool_bytes(&got_to.shape));
    free(want);
    free(got);
    free(from.base);
    free(want_to.base);
    free(got_to.base);
}

static void check_variant(const bt_kv_pack_ops *ops, uint32_t head_dim)
{
    for (size_t p = 0; p < 4; p++)
        for (size_t w = 0; w < 4; w++)
            for (size_t b = 0; b < 3; b++)
                for (size_t r = 0; r < 4; r++)
                    check_case(ops, dtypes[p], dtypes[w], head_dim, block_sizes[b], row_counts[r]);
}

static void test_variants_agree_with_oracle(void **state)
{
    (void)state;
    printf("seed %llu, best variant here: %s\n", (unsigned long long)seed, bt_kv_pack_best()->name);
    for (size_t v = 0; v < VARIANTS; v++) {
        if (!variants[v]->runs_here()) continue;
        for (size_t d = 0; d < sizeof(head_dims) / sizeof(head_dims[0]); d++)
            check_variant(variants[v], head_dims[d]);
    }
}

/* Values that are not numbers, infinities, extremes and every sixteenth bit pattern of bf16. */
static void test_variants_agree_on_odd_values(void **state)
{
    (void)state;
    enum { DIM = 64, ROWS = 16 };
    static const uint32_t odd[] = {0x7fc00000, 0xffc12345, 0x7f800001, 0x7f800000,
                                   0xff800000, 0x7f7fffff, 0x80000000, 0x00000001,
                                   0x43e00000, 0x43dfffff, 0x3c7fffff, 0x42fe0000};
    float values[DIM * ROWS], back[VARIANTS][DIM * ROWS];
    for (uint32_t base = 0; base < 65536; base += DIM * ROWS * 4) {
        for (uint32_t i = 0; i < DIM * ROWS; i++) {
            uint32_t bits = (base + 4 * i) << 16 | (random_u32() & 0xffff);
            /* Rows of moderate values beside rows with anything. */
            if (i / DIM % 2 == 0) bits = (bits & 0x80ffffff) | 0x3f000000;
            if (random_u32() % 64 == 0) bits = odd[random_u32() % 12];
            values[i] = bt_f32_of_bits(bits);
        }
        for (size_t d = 0; d < 4; d++) {
            uint8_t codes[VARIANTS][DIM * ROWS * 4] = {{0}};
            uint16_t scales[VARIANTS][ROWS] = {{0}};
            for (size_t v = 0; v < VARIANTS; v++) {
                if (!variants[v]->runs_here()) continue;
                variants[v]->encode(dtypes[d], values, ROWS, DIM, codes[v], scales[v]);
                variants[v]->decode(dtypes[d], codes[0], scales[0], ROWS, DIM, back[v]);
                assert_memory_equal(codes[0], codes[v], sizeof(codes[0]));
                assert_memory_equal(scales[0], scales[v], sizeof(scales[0]));
                assert_memory_equal(back[0], back[v], sizeof(back[0]));
            }
        }
    }
}

/* Scales are rounded up, so that dividing by them never saturates; a zero row is all zero. */
static void test_scales_round_up(void **state)
{
    (void)state;
    bt_kv_view kv = pool_make(BT_DTYPE_F32, 8, 16, 0);
    bt_kv_record record = {.kv = &kv, .blocks = table, .wire = BT_DTYPE_INT8, .rows = 64};
    for (uint32_t row = 1; row < 64; row++)
        ((float *)row_codes(&kv, &record, row))[row % 8] = random_value() + 3;
    uint8_t *wire = take(bt_kv_record_bytes(BT_DTYPE_INT8, 8), 0xff);
    static bt_kv_digest_key key;
    bt_kv_digest_key_make(pair_key, bt_kv_record_bytes(BT_DTYPE_INT8, 8), &key);
    uint64_t sum[2] = {0, 0};
    bt_kv_pack(bt_kv_pack_best(), &record, &key, wire, sum);
    const uint16_t *scales = (const uint16_t *)(wire + 64 * 8);
    static const uint8_t zeros[8];
    assert_memory_equal(wire, zeros, 8);
    assert_int_equal(scales[0], 0);
    for (uint32_t row = 1; row < 64; row++) {
        float x = fabsf(((float *)row_codes(&kv, &record, row))[row % 8]);
        float scale = bt_f16_to_f32(scales[row]);
        assert_true(scale >= x / 127 && scale <= x / 127 * 1.001f);
    }
    free(wire);
    free(kv.base);
}

/* A small record, its bytes and its digest, for the tests of what the digest notices. */
typedef struct {
    bt_kv_view kv;
    bt_kv_record record;
    bt_kv_digest_key key;
    size_t bytes;
    uint8_t *wire[2]; /* K and V */
    uint64_t sum[2];  /* of the K record */
} digest_fixture;

static int digest_setup(void **state)
{
    digest_fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->kv = pool_make(BT_DTYPE_INT8, 8, 16, 0);
    f->record = (bt_kv_record){
        .kv = &f->kv, .blocks = table, .wire = BT_DTYPE_INT8, .run = RUN, .rows = 64};
    f->bytes = bt_kv_record_bytes(BT_DTYPE_INT8, 8);
    bt_kv_digest_key_make(pair_key, f->bytes, &f->key);
    for (int part = 1; part >= 0; part--) {
        f->record.part = (bt_kv_part)part;
        pool_fill(&f->kv, &f->record);
        f->wire[part] = take(f->bytes, 0);
        f->sum[0] = f->sum[1] = 0;
        bt_kv_pack(bt_kv_pack_best(), &f->record, &f->key, f->wire[part], f->sum);
    }
    *state = f;
    return 0;
}

static int digest_teardown(void **state)
{
    digest_fixture *f = *state;
    free(f->wire[0]);
    free(f->wire[1]);
    free(f->kv.base);
    free(f);
    return 0;
}

/* Both lanes differ from the record's own digest: each alone would have noticed. */
static void assert_noticed(const digest_fixture *f, const bt_kv_record *record, const uint8_t *wire)
{
    uint64_t sum[2] = {0, 0};
    bt_kv_unpack(bt_kv_pack_best(), record, &f->key, wire, sum);
    assert_true(sum[0] != f->sum[0] && sum[1] != f->sum[1]);
}

static void test_digest_notices_every_bit(void **state)
{
    digest_fixture *f = *state;
    for (size_t bit = 0; bit < f->bytes * 8; bit++) {
        f->wire[0][bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_noticed(f, &f->record, f->wire[0]);
        f->wire[0][bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    uint64_t sum[2] = {0, 0};
    bt_kv_unpack(bt_kv_pack_best(), &f->record, &f->key, f->wire[0], sum);
    assert_memory_equal(sum, f->sum, sizeof(sum));
}

static void test_digest_notices_moves(void **state)
{
    digest_fixture *f = *state;
    bt_kv_record moved = f->record;
    moved.layer = 1;
    assert_noticed(f, &moved, f->wire[0]);
    moved = f->record;
    moved.head = 1;
    assert_noticed(f, &moved, f->wire[0]);
    moved = f->record;
    moved.run = 0;
    assert_noticed(f, &moved, f->wire[0]);
    moved = f->record;
    moved.part = BT_KV_V;
    assert_noticed(f, &moved, f->wire[0]);

    /* K and V swapped: the sum over both differs although the set of bytes is the same. */
    uint64_t right[2] = {0, 0}, swapped[2] = {0, 0};
    for (int part = 0; part < 2; part++) {
        bt_kv_record record = f->record;
        record.part = (bt_kv_part)part;
        bt_kv_unpack(bt_kv_pack_best(), &record, &f->key, f->wire[part], right);
        bt_kv_unpack(bt_kv_pack_best(), &record, &f->key, f->wire[1 - part], swapped);
    }
    assert_true(right[0] != swapped[0] && right[1] != swapped[1]);

    /* Two rows, and two words, that changed places within the record. */
    uint8_t *copy = take(f->bytes, 0);
    memcpy(copy, f->wire[0], f->bytes);
    memcpy(copy + 8 * 8, f->wire[0] + 9 * 8, 8);
    memcpy(copy + 9 * 8, f->wire[0] + 8 * 8, 8);
    assert_noticed(f, &f->record, copy);
    memcpy(copy, f->wire[0], f->bytes);
    memcpy(copy + 8 * 8, f->wire[0] + 8 * 8 + 4, 4);
    memcpy(copy + 8 * 8 + 4, f->wire[0] + 8 * 8, 4);
    assert_noticed(f, &f->record, copy);
    free(copy);
}

static void test_digest_notices_loss(void **state)
{
    digest_fixture *f = *state;
    uint8_t *copy = take(f->bytes, 0);
    assert_noticed(f, &f->record, copy);
    /* Cut at every 16th byte: what follows never arrived. */
    for (size_t cut = 16; cut < f->bytes; cut += 16) {
        memcpy(copy, f->wire[0], cut);
        assert_noticed(f, &f->record, copy);
    }
    free(copy);
    /* Another pair's key gives another digest. */
    static const uint8_t other[BT_KEY_BYTES] = {1, 2, 4};
    bt_kv_digest_key_make(other, f->bytes, &f->key);
    assert_noticed(f, &f->record, f->wire[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variants_agree_with_oracle),
        cmocka_unit_test(test_variants_agree_on_odd_values),
        cmocka_unit_test(test_scales_round_up),
        cmocka_unit_test_setup_teardown(test_digest_notices_every_bit, digest_setup,
                                        digest_teardown),
        cmocka_unit_test_setup_teardown(test_digest_notices_moves, digest_setup, digest_teardown),
        cmocka_unit_test_setup_teardown(test_digest_notices_loss, digest_setup, digest_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
