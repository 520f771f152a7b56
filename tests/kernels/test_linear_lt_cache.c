/* test_linear_lt_cache.c - the table of algorithms and its file: what is written is read again, and
 * every damaged, foreign or senseless file is refused with a reason and changes nothing. */
#include "kernels/linear/linear_lt_cache.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const bt_lt_card card = {"NVIDIA H100 80GB HBM3", 90, 132, 130100};

static bt_lt_cache *filled(uint32_t count)
{
    bt_lt_cache *cache = bt_lt_cache_create(&card);
    assert_non_null(cache);
    for (uint32_t i = 0; i < count; i++) {
        bt_lt_entry entry = {
            .key = {1 + i % 3, 3, i % 16, bt_lt_bucket_m[i % BT_LT_BUCKETS], 4096, 64 * i},
            .config = {66, i, 1, 0, 0, i + 1, 35, 0, ~i},
            .us = 1.5f + (float)i,
            .workspace_bytes = (uint64_t)i << 30};
        assert_int_equal(bt_lt_cache_put(cache, &entry, NULL), BT_OK);
    }
    return cache;
}

static uint8_t *bytes_of(const bt_lt_cache *cache, size_t *ret_bytes)
{
    uint8_t *data = malloc(BT_LT_FILE_BYTES_MAX);
    assert_non_null(data);
    *ret_bytes = bt_lt_cache_format(cache, data);
    return data;
}

static void sign(uint8_t *data, size_t bytes)
{
    uint64_t digest = bt_lt_cache_digest(data, bytes - 8);
    for (int i = 0; i < 8; i++) data[bytes - 8 + i] = (uint8_t)(digest >> 8 * i);
}

static void test_buckets(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < BT_LT_BUCKETS; i++) {
        assert_int_equal(bt_lt_bucket(bt_lt_bucket_m[i]), i);
        assert_int_equal(bt_lt_bucket(bt_lt_bucket_m[i] + 1), i < BT_LT_BUCKETS - 1 ? i + 1 : i);
        if (i > 0) assert_true(bt_lt_bucket_m[i] > bt_lt_bucket_m[i - 1]);
    }
    assert_int_equal(bt_lt_bucket(0), 0);
    assert_int_equal(bt_lt_bucket(UINT32_MAX), BT_LT_BUCKETS - 1);
}

static void test_put_and_find(void **state)
{
    (void)state;
    bt_lt_cache *cache = filled(40);
    bt_lt_entry entry = cache->entries[17];
    assert_ptr_equal(bt_lt_cache_find(cache, &entry.key), &cache->entries[17]);
    entry.us = 7;
    assert_int_equal(bt_lt_cache_put(cache, &entry, NULL), BT_OK);
    assert_int_equal(cache->count, 40);
    assert_true(bt_lt_cache_find(cache, &entry.key)->us == 7);
    entry.key.n = 1;
    assert_null(bt_lt_cache_find(cache, &entry.key));
    free(cache);
}

static void test_full_is_an_answer(void **state)
{
    (void)state;
    bt_lt_cache *cache = filled(BT_LT_ENTRIES_MAX);
    bt_lt_entry entry = cache->entries[0];
    assert_int_equal(bt_lt_cache_put(cache, &entry, NULL), BT_OK);
    entry.key.n = 1;
    bt_err err;
    assert_int_equal(bt_lt_cache_put(cache, &entry, &err), BT_ERR_LIMIT);
    size_t bytes;
    uint8_t *data = bytes_of(cache, &bytes);
    assert_int_equal(bytes, BT_LT_FILE_BYTES_MAX);
    bt_lt_cache *other = filled(0);
    assert_int_equal(bt_lt_cache_parse(other, data, bytes, &err), BT_OK);
    assert_int_equal(other->count, BT_LT_ENTRIES_MAX);
    free(data);
    free(cache);
    free(other);
}

static void test_file_round_trip(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-lt-cache-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    bt_lt_cache *cache = filled(25), *other = filled(3);
    bt_err err = {0};
    assert_int_equal(bt_lt_cache_save(cache, path, &err), BT_OK);
    assert_int_equal(bt_lt_cache_load(other, path, &err), BT_OK);
    assert_int_equal(other->count, 25);
    assert_memory_equal(other, cache, sizeof(*cache));
    unlink(path);
    assert_int_equal(bt_lt_cache_load(other, path, &err), BT_ERR_OS);
    assert_int_equal(err.os_errno, ENOENT);
    assert_int_equal(bt_lt_cache_load(other, "/dev/zero", &err), BT_ERR_FORMAT);
    assert_int_equal(bt_lt_cache_save(cache, "/nowhere/at/all", &err), BT_ERR_OS);
    free(cache);
    free(other);
}

/* Every byte changed, every length cut: refused, and the table is as it was. */
static void test_damage_is_refused(void **state)
{
    (void)state;
    bt_lt_cache *cache = filled(3), *other = filled(5), *before = filled(5);
    size_t bytes;
    uint8_t *data = bytes_of(cache, &bytes);
    for (size_t i = 0; i < bytes; i++) {
        bt_err err = {0};
        data[i] ^= 0x20;
        assert_int_not_equal(bt_lt_cache_parse(other, data, bytes, &err), BT_OK);
        assert_true(err.message[0] != 0);
        data[i] ^= 0x20;
        assert_int_equal(bt_lt_cache_parse(other, data, i, &err), BT_ERR_FORMAT);
    }
    assert_memory_equal(other, before, sizeof(*other));
    assert_int_equal(bt_lt_cache_parse(other, data, bytes, NULL), BT_OK);
    free(data);
    free(cache);
    free(other);
    free(before);
}

/* With a right digest. */
static void test_senseless_is_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
        bt_status status;
    } wrong[] = {
        {8, 4, BT_ERR_FORMAT},                                      /* one entry too many */
        {9, 0x10, BT_ERR_FORMAT},                                   /* 4099 entries */
        {12, 100, BT_ERR_VERSION},                                  /* capability */
        {16, 114, BT_ERR_VERSION},                                  /* multiprocessors */
        {20, 1, BT_ERR_FORMAT},         {24, 0x50, BT_ERR_VERSION}, /* library */
        {33, 'v', BT_ERR_VERSION},                                  /* name */
        {95, 1, BT_ERR_VERSION},                                    /* after the name's end */
        {96 + 12, 17, BT_ERR_FORMAT},                               /* m is no bucket */
        {96 + 35, 0xbf, BT_ERR_FORMAT},                             /* a time below 0 */
    };
    bt_lt_cache *cache = filled(3), *other = filled(5), *before = filled(5);
    size_t bytes;
    uint8_t *data = bytes_of(cache, &bytes);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        bt_err err = {0};
        uint8_t was = data[wrong[i].at];
        assert_int_not_equal(was, wrong[i].value);
        data[wrong[i].at] = wrong[i].value;
        sign(data, bytes);
        assert_int_equal(bt_lt_cache_parse(other, data, bytes, &err), wrong[i].status);
        printf("%s\n", err.message);
        data[wrong[i].at] = was;
    }
    const uint8_t infinity[4] = {0, 0, 0x80, 0x7f};
    memcpy(data + 96 + 32, infinity, 4);
    sign(data, bytes);
    assert_int_equal(bt_lt_cache_parse(other, data, bytes, NULL), BT_ERR_FORMAT);
    assert_memory_equal(other, before, sizeof(*other));
    free(data);
    free(cache);
    free(other);
    free(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets),           cmocka_unit_test(test_put_and_find),
        cmocka_unit_test(test_full_is_an_answer), cmocka_unit_test(test_file_round_trip),
        cmocka_unit_test(test_damage_is_refused), cmocka_unit_test(test_senseless_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
