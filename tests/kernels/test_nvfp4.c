/* test_nvfp4.c - linear_nvfp4.h against its definitions and, with BATON_TEST_DATA, its codes against
 * the tables of an independent implementation (ml_dtypes). */
#include "kernels/linear/linear_nvfp4.h"

#include "common/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CASES 255163u /* f32 inputs in the data set */

static const float values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

/* One file of numerics-fp8-fp4.tar.xz, whole; skips the test if the data folder is not given. */
static void *data_file(const char *name, size_t bytes)
{
    const char *dir = getenv("BATON_TEST_DATA");
    if (!dir) {
        printf("skipped: BATON_TEST_DATA is not set\n");
        skip();
    }
    char command[1024];
    snprintf(command, sizeof(command), "tar -xJOf '%s/numerics-fp8-fp4.tar.xz' numerics-fp8-fp4/%s",
             dir, name);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    uint8_t *data = malloc(bytes + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, bytes + 1, pipe), bytes);
    assert_int_equal(pclose(pipe), 0);
    return data;
}

static void test_codes_decode_as_defined(void **state)
{
    (void)state;
    for (uint8_t code = 0; code < 16; code++) {
        float x = bt_e2m1_to_f32(code);
        assert_true(fabsf(x) == values[code & 7] && !!signbit(x) == code >> 3);
        assert_int_equal(bt_f32_to_e2m1(x), code);
        assert_true(bt_e2m1_to_f32((uint8_t)(code | 0xf0)) == x);
    }
}

static void test_codes_round_to_nearest_even(void **state)
{
    (void)state;
    for (uint8_t code = 0; code < 7; code++) {
        float middle = (values[code] + values[code + 1]) / 2;
        uint8_t even = (uint8_t)(code + (code & 1));
        assert_int_equal(bt_f32_to_e2m1(middle), even);
        assert_int_equal(bt_f32_to_e2m1(-middle), even | 8);
        assert_int_equal(bt_f32_to_e2m1(nextafterf(middle, 0)), code);
        assert_int_equal(bt_f32_to_e2m1(nextafterf(middle, 10)), code + 1);
    }
    assert_int_equal(bt_f32_to_e2m1(1e30f), 7);
    assert_int_equal(bt_f32_to_e2m1(-INFINITY), 15);
    assert_int_equal(bt_f32_to_e2m1(NAN), 7);
    assert_int_equal(bt_f32_to_e2m1(-1e-40f), 8);
}

static void test_codes_against_ml_dtypes(void **state)
{
    (void)state;
    uint8_t *of_bf16 = data_file("encode_bf16_to_float4_e2m1fn.u8", 65536);
    uint8_t *of_f16 = data_file("encode_fp16_to_float4_e2m1fn.u8", 65536);
    for (unsigned h = 0; h < 65536; h++) {
        float x = bt_bf16_to_f32((uint16_t)h), y = bt_f16_to_f32((uint16_t)h);
        if (!isnan(x)) assert_int_equal(bt_f32_to_e2m1(x), of_bf16[h]);
        if (!isnan(y)) assert_int_equal(bt_f32_to_e2m1(y), of_f16[h]);
    }
    free(of_bf16);
    free(of_f16);
    float *x = data_file("f32_inputs.f32", CASES * 4);
    uint8_t *codes = data_file("f32_to_float4_e2m1fn.u8", CASES);
    for (unsigned i = 0; i < CASES; i++)
        if (!isnan(x[i])) assert_int_equal(bt_f32_to_e2m1(x[i]), codes[i]);
    free(x);
    free(codes);
}

static float normal(bt_rng *rng)
{
    double u = 1 - bt_rng_double(rng), turn = bt_rng_double(rng);
    return (float)(sqrt(-2 * log(u)) * cos(2 * M_PI * turn));
}

static void seed_rng(bt_rng *rng)
{
    uint64_t seed = 20261124;
    printf("seed %llu\n", (unsigned long long)seed);
    bt_rng_init(rng, seed);
}

/* A code is off by at most half its step: a quarter of the scale below 2, else x / 6 and what the
 * scale's own rounding clips; and no scale is a NaN or negative. */
static void test_groups_stay_within_half_a_code(void **state)
{
    (void)state;
    enum { K = 64, ROWS = 50 };
    bt_rng rng;
    seed_rng(&rng);
    static float x[ROWS * K], back[ROWS * K];
    uint8_t codes[ROWS * K / 2], scales[ROWS * K / 16];
    for (int i = 0; i < ROWS * K; i++) x[i] = normal(&rng) * ldexpf(1, i / K % 12 - 8);
    for (int i = 0; i < 16; i++) x[i] = 0;
    float global = bt_nvfp4_global(x, ROWS * K);
    bt_nvfp4_encode(x, ROWS, K, global, codes, scales);
    bt_nvfp4 tensor = {codes, scales, global, ROWS, K};
    bt_nvfp4_decode(&tensor, back);
    for (int i = 0; i < ROWS * K; i++) {
        assert_true(scales[i / 16] < 0x7f);
        float unit = bt_e4m3_to_f32(scales[i / 16]) * global, most = 0;
        for (int j = i / 16 * 16; j < i / 16 * 16 + 16; j++) most = fmaxf(most, fabsf(x[j]));
        float bound = fmaxf(unit / 4, fabsf(x[i]) / 5) + fmaxf(0, fabsf(x[i]) - 6 * unit);
        assert_true(fabsf(back[i] - x[i]) <= bound * 1.00001f);
        assert_true(fabsf(6 * unit - most) <= most / 16 + 6 * global * 0x1p-10f);
    }
    for (int i = 0; i < 16; i++) assert_true(back[i] == 0);
}

static void test_extremes(void **state)
{
    (void)state;
    float zeros[16] = {0}, x[16] = {3e38f, -3e38f, 1};
    uint8_t codes[8], scale;
    assert_true(bt_nvfp4_global(zeros, 16) == 1);
    bt_nvfp4_encode(zeros, 1, 16, 1, codes, &scale);
    assert_int_equal(scale, 0);
    bt_nvfp4_encode(x, 1, 16, bt_nvfp4_global(x, 16), codes, &scale);
    assert_int_equal(scale, 0x7e);
    assert_int_equal(codes[0], 0xf7);
    x[3] = INFINITY;
    assert_true(bt_nvfp4_global(x, 16) == 3e38f / 2688);
    bt_nvfp4_encode(x, 1, 16, 1, codes, &scale);
    assert_int_equal(scale, 0x7e);
    assert_int_equal(codes[1] >> 4, 7);
}

/* Every (row, group) has its own byte, padding is zero, and the first tile is as documented. */
static void test_tiles_hold_every_scale_once(void **state)
{
    (void)state;
    enum { ROWS = 300, K = 16 * 7 };
    static uint8_t scales[ROWS * 7];
    size_t bytes = bt_nvfp4_tiles_bytes(ROWS, K);
    assert_int_equal(bytes, 384 * 8);
    uint8_t *tiles = malloc(bytes), *used = calloc(bytes, 1);
    assert_non_null(tiles);
    assert_non_null(used);
    for (int i = 0; i < ROWS * 7; i++) scales[i] = (uint8_t)(1 + i % 255);
    bt_nvfp4_tile(scales, ROWS, K, tiles);
    for (uint32_t row = 0; row < ROWS; row++)
        for (uint32_t group = 0; group < 7; group++) {
            size_t at = bt_nvfp4_tiles_at(K, row, group);
            assert_true(at < bytes && !used[at]++);
            assert_int_equal(tiles[at], scales[row * 7 + group]);
        }
    for (size_t i = 0; i < bytes; i++) assert_true(used[i] || tiles[i] == 0);
    assert_int_equal(bt_nvfp4_tiles_at(K, 1, 0), 16);
    assert_int_equal(bt_nvfp4_tiles_at(K, 33, 2), 16 + 4 + 2);
    assert_int_equal(bt_nvfp4_tiles_at(K, 0, 4), 512);
    assert_int_equal(bt_nvfp4_tiles_at(K, 128, 0), 1024);
    free(tiles);
    free(used);
}

/* Against the product of the decoded values in f64. */
static void test_product(void **state)
{
    (void)state;
    enum { M = 5, N = 7, K = 96 };
    bt_rng rng;
    seed_rng(&rng);
    float x[M * K], w[N * K], y[M * N];
    uint8_t x_codes[M * K / 2], x_scales[M * K / 16], w_codes[N * K / 2], w_scales[N * K / 16];
    for (int i = 0; i < M * K; i++) x[i] = normal(&rng);
    for (int i = 0; i < N * K; i++) w[i] = 0.02f * normal(&rng);
    bt_nvfp4 tx = {x_codes, x_scales, bt_nvfp4_global(x, M * K), M, K};
    bt_nvfp4 tw = {w_codes, w_scales, bt_nvfp4_global(w, N * K), N, K};
    bt_nvfp4_encode(x, M, K, tx.global, x_codes, x_scales);
    bt_nvfp4_encode(w, N, K, tw.global, w_codes, w_scales);
    bt_linear_nvfp4_ref(&tx, &tw, y);
    double exact_norm = 0, quantized_error = 0;
    float qx[M * K], qw[N * K];
    bt_nvfp4_decode(&tx, qx);
    bt_nvfp4_decode(&tw, qw);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0, exact = 0, size = 0;
            for (int l = 0; l < K; l++) {
                sum += (double)qx[i * K + l] * qw[j * K + l];
                size += fabs((double)qx[i * K + l] * qw[j * K + l]);
                exact += (double)x[i * K + l] * w[j * K + l];
            }
            assert_true(fabs(y[i * N + j] - sum) <= size * 3e-7);
            exact_norm += exact * exact;
            quantized_error += (y[i * N + j] - exact) * (y[i * N + j] - exact);
        }
    assert_true(sqrt(quantized_error / exact_norm) < 0.2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes_decode_as_defined),
        cmocka_unit_test(test_codes_round_to_nearest_even),
        cmocka_unit_test(test_codes_against_ml_dtypes),
        cmocka_unit_test(test_groups_stay_within_half_a_code),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_tiles_hold_every_scale_once),
        cmocka_unit_test(test_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
