/* test_numerics.c - conversions against their definitions over all codes, and, with
 * BATON_TEST_DATA, against the tables of an independent implementation (ml_dtypes). */
#include "kernels/numerics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define CASES 255163u /* f32 inputs in the data set */

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

static bool f16_is_nan(uint16_t h)
{
    return (h & 0x7fffu) > 0x7c00u;
}

static bool bf16_is_nan(uint16_t h)
{
    return (h & 0x7fffu) > 0x7f80u;
}

static void test_e4m3_decodes_as_defined(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 256; code++) {
        int exponent = (code >> 3) & 15, mantissa = code & 7;
        double value = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
        if (code & 0x80) value = -value;
        if ((code & 0x7f) == 0x7f) {
            assert_true(isnan(bt_e4m3_to_f32((uint8_t)code)));
        } else {
            assert_true(bt_e4m3_to_f32((uint8_t)code) == (float)value);
            assert_int_equal(bt_f32_to_e4m3((float)value), code);
        }
    }
}

/* Around the middle of every two neighbours: below goes down, above goes up, the tie to even. */
static void test_e4m3_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 0x7e; code++) {
        float low = bt_e4m3_to_f32((uint8_t)code), high = bt_e4m3_to_f32((uint8_t)(code + 1));
        float middle = (low + high) / 2;
        unsigned even = code + (code & 1);
        assert_int_equal(bt_f32_to_e4m3(middle), even);
        assert_int_equal(bt_f32_to_e4m3(-middle), even | 0x80);
        assert_int_equal(bt_f32_to_e4m3(nextafterf(middle, 0)), code);
        assert_int_equal(bt_f32_to_e4m3(nextafterf(middle, 1000)), code + 1);
    }
    assert_int_equal(bt_f32_to_e4m3(449.0f), 0x7e);
    assert_int_equal(bt_f32_to_e4m3(1e30f), 0x7e);
    assert_int_equal(bt_f32_to_e4m3(-INFINITY), 0xfe);
    assert_int_equal(bt_f32_to_e4m3(NAN) & 0x7f, 0x7f);
}

static void test_f16_round_trips_and_rounds(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float x = bt_f16_to_f32((uint16_t)h);
        if (f16_is_nan((uint16_t)h)) {
            assert_true(isnan(x));
            assert_true(f16_is_nan(bt_f32_to_f16(x)));
        } else {
            assert_int_equal(bt_f32_to_f16(x), h);
        }
    }
    for (unsigned h = 0; h < 0x7bff; h++) {
        float low = bt_f16_to_f32((uint16_t)h), high = bt_f16_to_f32((uint16_t)(h + 1));
        float middle = (low + high) / 2;
        assert_int_equal(bt_f32_to_f16(middle), h + (h & 1));
        assert_int_equal(bt_f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(bt_f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(bt_f32_to_f16_up(low), h);
        assert_int_equal(bt_f32_to_f16_up(nextafterf(low, INFINITY)), h + 1);
        assert_int_equal(bt_f32_to_f16_up(high), h + 1);
    }
    assert_int_equal(bt_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(bt_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(bt_f32_to_f16_up(1e9f), 0x7bff);
    assert_int_equal(bt_f32_to_f16_up(1e-30f), 1);
}

static void test_bf16_round_trips_and_rounds(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float x = bt_bf16_to_f32((uint16_t)h);
        if (bf16_is_nan((uint16_t)h))
            assert_true(bf16_is_nan(bt_f32_to_bf16(x)));
        else
            assert_int_equal(bt_f32_to_bf16(x), h);
    }
    assert_int_equal(bt_f32_to_bf16(bt_f32_of_bits(0x3f808000u)), 0x3f80);
    assert_int_equal(bt_f32_to_bf16(bt_f32_of_bits(0x3f818000u)), 0x3f82);
    assert_int_equal(bt_f32_to_bf16(bt_f32_of_bits(0x3f808001u)), 0x3f81);
}

static void test_int8_rounds_and_saturates(void **state)
{
    (void)state;
    for (int i = -127; i < 127; i++) {
        int even = i & 1 ? i + 1 : i;
        assert_int_equal(bt_f32_to_int8((float)i), i);
        assert_int_equal(bt_f32_to_int8((float)i + 0.5f), even);
        assert_int_equal(bt_f32_to_int8((float)i + 0.499f), i);
        assert_int_equal(bt_f32_to_int8((float)i + 0.501f), i + 1);
    }
    assert_int_equal(bt_f32_to_int8(127.4f), 127);
    assert_int_equal(bt_f32_to_int8(1e9f), 127);
    assert_int_equal(bt_f32_to_int8(-INFINITY), -127);
    assert_int_equal(bt_f32_to_int8(NAN), 0);
}

static void check_row(bt_dtype dtype, const float *x, uint32_t count, float largest_code,
                      double relative_error)
{
    uint8_t codes[64];
    uint16_t scale = 0xffff;
    float back[64], amax = 0;
    for (uint32_t i = 0; i < count; i++) amax = fmaxf(amax, fabsf(x[i]));
    bt_row_encode(dtype, x, count, codes, &scale);
    bt_row_decode(dtype, codes, scale, count, back);
    float unit = bt_f16_to_f32(scale);
    assert_true(unit * largest_code >= amax * 0.9999999f);
    assert_true(unit <= amax / largest_code * 1.001f + 0x1p-24f);
    for (uint32_t i = 0; i < count; i++) {
        double bound =
            fmax(fabs(x[i]) * relative_error, unit * (dtype == BT_DTYPE_INT8 ? 0.5 : 0x1p-10));
        assert_true(fabs((double)back[i] - x[i]) <= bound * 1.000001);
    }
}

static void test_rows_stay_within_half_a_code(void **state)
{
    (void)state;
    uint32_t seed = 12345;
    printf("seed %u\n", seed);
    for (int round = 0; round < 500; round++) {
        float x[64];
        float size = ldexpf(1.0f, round % 30 - 20);
        for (int i = 0; i < 64; i++) {
            seed = seed * 1664525u + 1013904223u;
            x[i] = ((float)(seed >> 8) / 8388608.0f - 1.0f) * size;
        }
        check_row(BT_DTYPE_FP8_E4M3, x, 64, BT_E4M3_MAX, 0x1p-4);
        check_row(BT_DTYPE_INT8, x, 64, BT_INT8_MAX, 0);
    }
}

static void test_rows_of_zeros_and_nan(void **state)
{
    (void)state;
    const bt_dtype dtypes[] = {BT_DTYPE_FP8_E4M3, BT_DTYPE_INT8};
    for (int d = 0; d < 2; d++) {
        float zeros[8] = {0}, back[8], mixed[8] = {1, NAN, -1, 0, 0, 0, 0, 0};
        uint8_t codes[8];
        uint16_t scale = 7;
        bt_row_encode(dtypes[d], zeros, 8, codes, &scale);
        assert_int_equal(scale, 0);
        bt_row_decode(dtypes[d], codes, scale, 8, back);
        assert_memory_equal(back, zeros, sizeof(zeros));
        bt_row_encode(dtypes[d], mixed, 8, codes, &scale);
        bt_row_decode(dtypes[d], codes, scale, 8, back);
        assert_true(fabsf(back[0] - 1) < 0.07f && fabsf(back[2] + 1) < 0.07f);
        assert_true(dtypes[d] == BT_DTYPE_INT8 ? back[1] == 0 : isnan(back[1]));
    }
}

static void test_f16_and_bf16_against_ml_dtypes(void **state)
{
    (void)state;
    uint32_t *f32_of_f16 = data_file("fp16_to_f32.f32", 65536 * 4);
    uint16_t *f16_of_bf16 = data_file("bf16_to_fp16.u16", 65536 * 2);
    uint16_t *bf16_of_f16 = data_file("fp16_to_bf16.u16", 65536 * 2);
    for (unsigned h = 0; h < 65536; h++) {
        float of_f16 = bt_f16_to_f32((uint16_t)h), of_bf16 = bt_bf16_to_f32((uint16_t)h);
        if (!f16_is_nan((uint16_t)h)) {
            assert_int_equal(bt_f32_bits(of_f16), f32_of_f16[h]);
            assert_int_equal(bt_f32_to_bf16(of_f16), bf16_of_f16[h]);
        }
        if (!bf16_is_nan((uint16_t)h)) assert_int_equal(bt_f32_to_f16(of_bf16), f16_of_bf16[h]);
    }
    free(f32_of_f16);
    free(f16_of_bf16);
    free(bf16_of_f16);
}

/* What ml_dtypes makes NaN because it overflows, we saturate. */
static void check_e4m3(float x, uint8_t code, uint8_t expected)
{
    if (isnan(x))
        assert_int_equal(code & 0x7f, 0x7f);
    else if ((expected & 0x7f) == 0x7f)
        assert_int_equal(code, (expected & 0x80) | 0x7e);
    else
        assert_int_equal(code, expected);
}

static void test_e4m3_against_ml_dtypes(void **state)
{
    (void)state;
    uint8_t *of_bf16 = data_file("encode_bf16_to_float8_e4m3fn.u8", 65536);
    uint8_t *of_f16 = data_file("encode_fp16_to_float8_e4m3fn.u8", 65536);
    for (unsigned h = 0; h < 65536; h++) {
        float x = bt_bf16_to_f32((uint16_t)h), y = bt_f16_to_f32((uint16_t)h);
        check_e4m3(x, bt_f32_to_e4m3(x), of_bf16[h]);
        check_e4m3(y, bt_f32_to_e4m3(y), of_f16[h]);
    }
    free(of_bf16);
    free(of_f16);
}

static void test_f32_cases_against_ml_dtypes(void **state)
{
    (void)state;
    float *x = data_file("f32_inputs.f32", CASES * 4);
    uint16_t *bf16 = data_file("f32_to_bf16.u16", CASES * 2);
    uint16_t *f16 = data_file("f32_to_fp16.u16", CASES * 2);
    uint8_t *e4m3 = data_file("f32_to_float8_e4m3fn.u8", CASES);
    for (unsigned i = 0; i < CASES; i++) {
        check_e4m3(x[i], bt_f32_to_e4m3(x[i]), e4m3[i]);
        if (isnan(x[i])) {
            assert_true(bf16_is_nan(bt_f32_to_bf16(x[i])) && f16_is_nan(bt_f32_to_f16(x[i])));
        } else {
            assert_int_equal(bt_f32_to_bf16(x[i]), bf16[i]);
            assert_int_equal(bt_f32_to_f16(x[i]), f16[i]);
        }
    }
    free(x);
    free(bf16);
    free(f16);
    free(e4m3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_e4m3_decodes_as_defined),
        cmocka_unit_test(test_e4m3_rounds_to_nearest_even),
        cmocka_unit_test(test_f16_round_trips_and_rounds),
        cmocka_unit_test(test_bf16_round_trips_and_rounds),
        cmocka_unit_test(test_int8_rounds_and_saturates),
        cmocka_unit_test(test_rows_stay_within_half_a_code),
        cmocka_unit_test(test_rows_of_zeros_and_nan),
        cmocka_unit_test(test_f16_and_bf16_against_ml_dtypes),
        cmocka_unit_test(test_e4m3_against_ml_dtypes),
        cmocka_unit_test(test_f32_cases_against_ml_dtypes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
