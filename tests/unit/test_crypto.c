/* common/base/crypto.h: published and independently computed vectors. */
#include "common/base/crypto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_hex(const uint8_t *bytes, size_t count, const char *hex)
{
    char text[2 * BT_SHA256_BYTES + 1];
    assert_true(count <= BT_SHA256_BYTES);
    for (size_t i = 0; i < count; i++) snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    assert_string_equal(text, hex);
}

/* FIPS 180-4 examples. */
static void test_sha256(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hex;
    } vectors[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        bt_sha256 hash;
        bt_sha256_of(vectors[i].text, strlen(vectors[i].text), &hash);
        assert_hex(hash.bytes, sizeof(hash.bytes), vectors[i].hex);
    }
}

static void test_sha256_in_pieces(void **state)
{
    (void)state;
    char text[1000];
    memset(text, 'a', sizeof(text));
    bt_sha256_stream stream;
    bt_sha256_start(&stream);
    size_t left = 1000000;
    for (size_t piece = 1; left > 0; piece = piece * 7 % 997 + 1) {
        size_t bytes = piece < left ? piece : left;
        bt_sha256_add(&stream, text, bytes);
        left -= bytes;
    }
    bt_sha256 hash;
    bt_sha256_end(&stream, &hash);
    assert_hex(hash.bytes, sizeof(hash.bytes),
               "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* Vectors: Python's hashlib.blake2b(data, digest_size=16, key=bytes(range(32))). */
static void test_mac(void **state)
{
    (void)state;
    uint8_t key[BT_KEY_BYTES], mac[BT_MAC_BYTES];
    for (unsigned i = 0; i < BT_KEY_BYTES; i++) key[i] = (uint8_t)i;
    bt_mac(key, "abc", 3, mac);
    assert_hex(mac, sizeof(mac), "1a64be47e4729d951c302ee543f97cf3");
    bt_mac(key, "", 0, mac);
    assert_hex(mac, sizeof(mac), "3daf97bce7888fd59773c66bf647459c");
    uint8_t other[BT_MAC_BYTES];
    key[31] ^= 1;
    bt_mac(key, "", 0, other);
    assert_false(bt_equal_ct(mac, other, sizeof(mac)));
}

static void test_equal_ct(void **state)
{
    (void)state;
    uint8_t a[16] = {0}, b[16] = {0};
    assert_true(bt_equal_ct(a, b, sizeof(a)));
    for (unsigned bit = 0; bit < 128; bit++) {
        b[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(bt_equal_ct(a, b, sizeof(a)));
        b[bit / 8] = 0;
    }
    assert_true(bt_equal_ct(a, b, 0));
}

static void test_random_bytes_differ(void **state)
{
    (void)state;
    uint8_t a[32], b[32];
    bt_random_bytes(a, sizeof(a));
    bt_random_bytes(b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a)); /* 1 in 2^256 */
}

static int start(void **state)
{
    (void)state;
    return bt_crypto_start(NULL) == BT_OK && bt_crypto_start(NULL) == BT_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_sha256_in_pieces),
        cmocka_unit_test(test_mac),
        cmocka_unit_test(test_equal_ct),
        cmocka_unit_test(test_random_bytes_differ),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
