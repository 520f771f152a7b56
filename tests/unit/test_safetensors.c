/* common/weights/safetensors.h: what a good file gives, and that every wrong one is an error that
 * says why. */
#include "common/weights/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define T(name, dtype, shape, begin, end)                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin        \
    "," #end "]}"
#define GOOD                                                                                       \
    "{\"__metadata__\":{\"format\":\"pt\"}," T("b", "F32", "2,2", 0, 16) "," T(                    \
        "a", "BF16", "3", 16, 22) "," T("empty", "F16", "0,7", 22, 22) "," T("scalar", "U8", "",   \
                                                                             22, 23) "}  "
#define GOOD_DATA_BYTES 23u

/* header length, header, data_bytes bytes counting up; malloc'd exactly, so that ASan sees a read
 * beyond the end. */
static uint8_t *build(const char *header, size_t data_bytes, size_t *ret_bytes)
{
    size_t header_bytes = strlen(header);
    uint8_t *file = malloc(8 + header_bytes + data_bytes);
    for (unsigned i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)header_bytes >> (8 * i));
    memcpy(file + 8, header, header_bytes);
    for (size_t i = 0; i < data_bytes; i++) file[8 + header_bytes + i] = (uint8_t)i;
    *ret_bytes = 8 + header_bytes + data_bytes;
    return file;
}

static bt_status parse(const char *header, size_t data_bytes, bt_err *err)
{
    size_t bytes;
    uint8_t *data = build(header, data_bytes, &bytes);
    bt_safetensors *file = NULL;
    bt_status status = bt_safetensors_parse(data, bytes, "test", &file, err);
    assert_int_equal(file != NULL, status == BT_OK);
    bt_safetensors_close(file);
    free(data);
    return status;
}

static void check_good(const bt_safetensors *file)
{
    assert_int_equal(bt_safetensors_count(file), 4);
    assert_string_equal(bt_safetensors_at(file, 0)->name, "a");
    assert_string_equal(bt_safetensors_at(file, 3)->name, "scalar");
    const bt_safetensors_entry *a = bt_safetensors_find(file, "a");
    assert_int_equal(a->dtype, BT_DTYPE_BF16);
    assert_int_equal(a->rank, 1);
    assert_int_equal(a->shape[0], 3);
    assert_int_equal(a->bytes, 6);
    assert_int_equal(((const uint8_t *)a->data)[0], 16);
    const bt_safetensors_entry *scalar = bt_safetensors_find(file, "scalar");
    assert_int_equal(scalar->dtype, BT_DTYPE_NONE);
    assert_string_equal(scalar->dtype_name, "U8");
    assert_int_equal(scalar->rank, 0);
    assert_int_equal(bt_safetensors_find(file, "empty")->bytes, 0);
    assert_null(bt_safetensors_find(file, "__metadata__"));
    assert_null(bt_safetensors_find(file, "c"));
}

static void test_a_good_file(void **state)
{
    (void)state;
    size_t bytes;
    uint8_t *data = build(GOOD, GOOD_DATA_BYTES, &bytes);
    bt_safetensors *file;
    assert_int_equal(bt_safetensors_parse(data, bytes, "test", &file, NULL), BT_OK);
    check_good(file);
    bt_safetensors_close(file);
    free(data);
    assert_int_equal(parse("{}", 0, NULL), BT_OK);
}

/* Whatever is missing at the end: an error, and no byte beyond is read. */
static void test_truncated_at_every_byte(void **state)
{
    (void)state;
    size_t whole;
    uint8_t *data = build(GOOD, GOOD_DATA_BYTES, &whole);
    for (size_t bytes = 0; bytes < whole; bytes++) {
        uint8_t *copy = malloc(bytes + (bytes == 0));
        memcpy(copy, data, bytes);
        bt_safetensors *file = NULL;
        bt_err err = {0};
        assert_int_equal(bt_safetensors_parse(copy, bytes, "test", &file, &err), BT_ERR_FORMAT);
        assert_memory_equal(err.message, "test: ", 6);
        free(copy);
    }
    free(data);
}

/* The header cut short, its length told as it then is. */
static void test_header_truncated_at_every_byte(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes + 2 < strlen(GOOD); bytes++) { /* the last two are white space */
        char header[sizeof(GOOD)];
        memcpy(header, GOOD, bytes);
        header[bytes] = '\0';
        assert_int_equal(parse(header, GOOD_DATA_BYTES, NULL), BT_ERR_FORMAT);
    }
}

static void test_header_lengths(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {0,          sizeof(GOOD) + GOOD_DATA_BYTES,
                                       100000001,  1ull << 32,
                                       1ull << 63, UINT64_MAX - 7,
                                       UINT64_MAX};
    size_t bytes;
    uint8_t *data = build(GOOD, GOOD_DATA_BYTES, &bytes);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        for (unsigned b = 0; b < 8; b++) data[b] = (uint8_t)(lengths[i] >> (8 * b));
        bt_safetensors *file;
        assert_int_equal(bt_safetensors_parse(data, bytes, "test", &file, NULL), BT_ERR_FORMAT);
    }
    free(data);
}

static void test_what_is_refused(void **state)
{
    (void)state;
#define ONE(shape, begin, end) "{" T("t", "F32", shape, begin, end) "}"
    static const struct {
        const char *header, *message;
        size_t data_bytes;
        bt_status status;
    } cases[] = {
        {" {}", "begin with '{'", 0, BT_ERR_FORMAT},
        {"[]", "begin with '{'", 0, BT_ERR_FORMAT},
        {"{} {}", "header byte", 0, BT_ERR_FORMAT},
        {"{\"t\":1}", "not an object", 0, BT_ERR_FORMAT},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", "not an object", 4, BT_ERR_FORMAT},
        {"{\"t\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", "not an object", 4,
         BT_ERR_FORMAT},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,4]}}", "shape is not a list", 4,
         BT_ERR_FORMAT},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "two whole numbers", 4,
         BT_ERR_FORMAT},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0.0,4]}}", "two whole numbers",
         4, BT_ERR_FORMAT},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{}}}", "two whole numbers", 4,
         BT_ERR_FORMAT},
        {"{" T("t", "F31", "1", 0, 4) "}", "unknown dtype 'F31'", 4, BT_ERR_FORMAT},
        {"{" T("t", "f32", "1", 0, 4) "}", "unknown dtype", 4, BT_ERR_FORMAT},
        {"{" T("t", "F4", "3", 0, 2) "}", "whole number of bytes", 2, BT_ERR_FORMAT},
        {ONE("-1", 0, 4), "dimension 0", 4, BT_ERR_FORMAT},
        {ONE("1,1.0", 0, 4), "dimension 1", 4, BT_ERR_FORMAT},
        {ONE("\"1\"", 0, 4), "dimension 0", 4, BT_ERR_FORMAT},
        {ONE("9223372036854775808", 0, 4), "header byte", 4, BT_ERR_FORMAT},
        {ONE("1,1,1,1,1,1,1,1,1", 0, 4), "9 dimensions", 4, BT_ERR_LIMIT},
        {ONE("4294967296,4294967296", 0, 0), "larger than any file", 0, BT_ERR_FORMAT},
        {ONE("4611686018427387904", 0, 0), "whole number of bytes", 0, BT_ERR_FORMAT},
        {ONE("9223372036854775807,3,0", 0, 0), "larger than any file", 0, BT_ERR_FORMAT},
        {ONE("2", 0, 4), "need 8", 4, BT_ERR_FORMAT},
        {"{" T("t", "BF16", "2", 0, 8) "}", "need 4", 8, BT_ERR_FORMAT},
        {ONE("1", 4, 0), "not within", 4, BT_ERR_FORMAT},
        {ONE("1", -4, 0), "not within", 4, BT_ERR_FORMAT},
        {ONE("1", 0, 5), "not within", 4, BT_ERR_FORMAT},
        {ONE("1", 9223372036854775803, 9223372036854775807), "not within", 4, BT_ERR_FORMAT},
        {ONE("1", 4, 8), "hole", 8, BT_ERR_FORMAT},
        {ONE("1", 0, 4), "belong to none", 8, BT_ERR_FORMAT},
        {"{}", "belong to none", 1, BT_ERR_FORMAT},
        {"{" T("t", "F32", "1", 0, 4) "," T("u", "F32", "1", 0, 4) "}", "overlaps", 4,
         BT_ERR_FORMAT},
        {"{" T("t", "F32", "2", 0, 8) "," T("u", "F32", "2", 4, 12) "}", "overlaps", 12,
         BT_ERR_FORMAT},
        {"{" T("t", "F32", "2", 0, 8) "," T("u", "F32", "0", 4, 4) "}", "overlaps", 8,
         BT_ERR_FORMAT},
        {"{" T("t", "F32", "1", 0, 4) "," T("u", "F32", "1", 8, 12) "}", "hole", 12, BT_ERR_FORMAT},
        {"{" T("t", "F32", "1", 0, 4) "," T("t", "F32", "1", 0, 4) "}", "duplicate", 4,
         BT_ERR_FORMAT},
        {"{" T("", "F32", "1", 0, 4) "}", "no name", 4, BT_ERR_FORMAT},
        {"{" T("\\u001b[31m", "F32", "1", 0, 4) "}", "control character", 4, BT_ERR_FORMAT},
        {"{" T("a\\u0000b", "F32", "1", 0, 4) "}", "header byte", 4, BT_ERR_FORMAT},
        {"{\"__metadata__\":[]}", "__metadata__", 0, BT_ERR_FORMAT},
        {"{\"__metadata__\":{\"a\":1}}", "__metadata__.a", 0, BT_ERR_FORMAT},
        {"{\"\xFF\":1}", "header byte", 0, BT_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_err err = {0};
        bt_status status = parse(cases[i].header, cases[i].data_bytes, &err);
        if (status != cases[i].status || strstr(err.message, cases[i].message) == NULL)
            fail_msg("%s: status %d, '%s'", cases[i].header, status, err.message);
    }
}

/* Deep nesting, and more values than any table needs: refused before they cost memory. */
static void test_bombs(void **state)
{
    (void)state;
    size_t bytes = 9 << 20;
    char *header = malloc(bytes + 1);
    memset(header, '[', bytes);
    memcpy(header, "{\"a\":", 5);
    header[bytes] = '\0';
    assert_int_equal(parse(header, 0, NULL), BT_ERR_LIMIT);
    header[1 << 20] = '\0';
    assert_int_equal(parse(header, 0, NULL), BT_ERR_FORMAT);
    char long_name[400];
    memset(long_name, 'n', 256);
    long_name[256] = '\0';
    snprintf(header, bytes, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}",
             long_name);
    assert_int_equal(parse(header, 4, NULL), BT_ERR_LIMIT);
    free(header);
}

static void test_too_many_tensors(void **state)
{
    (void)state;
    char *header = malloc((size_t)(BT_SAFETENSORS_TENSORS_MAX + 1) * 64 + 8);
    size_t at = (size_t)sprintf(header, "{");
    for (unsigned i = 0; i <= BT_SAFETENSORS_TENSORS_MAX; i++) {
        if (i == BT_SAFETENSORS_TENSORS_MAX) {
            strcpy(header + at, "}");
            assert_int_equal(parse(header, 0, NULL), BT_OK);
        }
        at += (size_t)sprintf(header + at,
                              "%s\"%u\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                              i > 0 ? "," : "", i);
    }
    strcpy(header + at, "}");
    assert_int_equal(parse(header, 0, NULL), BT_ERR_LIMIT);
    free(header);
}

static void test_from_a_file(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-test-XXXXXX";
    int fd = mkstemp(path);
    size_t bytes;
    uint8_t *data = build(GOOD, GOOD_DATA_BYTES, &bytes);
    assert_int_equal(write(fd, data, bytes), bytes);
    bt_safetensors *file;
    bt_err err;
    assert_int_equal(bt_safetensors_open(path, &file, &err), BT_OK);
    check_good(file);
    assert_int_equal(ftruncate(fd, 0), 0); /* a small file was read: its end does not matter */
    check_good(file);
    bt_safetensors_close(file);
    assert_int_equal(bt_safetensors_open(path, &file, &err), BT_ERR_FORMAT);
    assert_non_null(strstr(err.message, path));
    close(fd);
    unlink(path);
    free(data);
    assert_int_equal(bt_safetensors_open(path, &file, &err), BT_ERR_OS);
    assert_int_equal(bt_safetensors_open("/dev/null", &file, &err), BT_ERR_OS);
    assert_int_equal(bt_safetensors_open("/tmp", &file, &err), BT_ERR_OS);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(bt_safetensors_open(path, &file, &err), BT_ERR_OS); /* and does not wait */
    unlink(path);
}

/* A file above the reading limit is mapped. It is sparse: no such bytes are written. */
static void test_from_a_large_file(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-test-XXXXXX";
    int fd = mkstemp(path);
    size_t bytes, tensor = BT_SAFETENSORS_READ_BYTES_MAX;
    char header[128];
    snprintf(header, sizeof(header),
             "{\"t\":{\"dtype\":\"U8\",\"shape\":[%zu],"
             "\"data_offsets\":[0,%zu]}}",
             tensor, tensor);
    uint8_t *data = build(header, 0, &bytes);
    assert_int_equal(write(fd, data, bytes), bytes);
    assert_int_equal(ftruncate(fd, (off_t)(bytes + tensor)), 0);
    bt_safetensors *file;
    bt_err err;
    if (bt_safetensors_open(path, &file, &err) != BT_OK) fail_msg("%s", err.message);
    const bt_safetensors_entry *entry = bt_safetensors_find(file, "t");
    assert_int_equal(entry->bytes, tensor);
    assert_int_equal(((const uint8_t *)entry->data)[tensor - 1], 0);
    bt_safetensors_close(file);
    close(fd);
    unlink(path);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_file),
        cmocka_unit_test(test_truncated_at_every_byte),
        cmocka_unit_test(test_header_truncated_at_every_byte),
        cmocka_unit_test(test_header_lengths),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_too_many_tensors),
        cmocka_unit_test(test_from_a_file),
        cmocka_unit_test(test_from_a_large_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
