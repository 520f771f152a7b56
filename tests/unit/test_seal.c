/* Sealed UCX messages: round trip, every forgery refused, directions apart. */
#include "proto/seal.h"
#include "tests/fuzz/msg_random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
/* After the above: cmocka.h needs them. */
#include <cmocka.h>

typedef struct {
    bt_codec *codec;
    bt_seal p, d;
    bt_random_msg random;
    uint8_t bytes[BT_SEAL_BYTES_MAX];
} fixture;

static int start(void **state)
{
    fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    assert_int_equal(bt_crypto_start(NULL), BT_OK);
    f->codec = bt_codec_init(aligned_alloc(64, (bt_codec_bytes() + 63) & ~(size_t)63));
    f->random.state = (uint64_t)time(NULL);
    f->random.tokens_max = 20;
    printf("seed %llu\n", (unsigned long long)f->random.state);
    uint8_t secret[BT_KEY_BYTES];
    random_fill(&f->random, secret, sizeof(secret));
    bt_seal_init(&f->p, secret, BT_ROLE_PREFILL);
    bt_seal_init(&f->d, secret, BT_ROLE_DECODE);
    *state = f;
    return 0;
}

static int finish(void **state)
{
    fixture *f = *state;
    free(f->codec);
    free(f);
    return 0;
}

static size_t write_random(fixture *f, bt_msg_kind kind)
{
    const bt_seal *from = bt_seal_allows(BT_ROLE_PREFILL, kind) ? &f->p : &f->d;
    size_t bytes = 0;
    assert_int_equal(
        bt_seal_write(from, random_msg(&f->random, kind), f->bytes, sizeof(f->bytes), &bytes, NULL),
        BT_OK);
    return bytes;
}

static const bt_seal *reader(fixture *f, bt_msg_kind kind)
{
    return bt_seal_allows(BT_ROLE_PREFILL, kind) ? &f->d : &f->p;
}

static bool on_ucx(bt_msg_kind kind)
{
    return bt_seal_allows(BT_ROLE_PREFILL, kind) || bt_seal_allows(BT_ROLE_DECODE, kind);
}

static void round_trip(void **state)
{
    fixture *f = *state;
    uint32_t kinds = 0;
    for (int k = 1; k < BT_MSG_KIND_END; k++) {
        bt_msg_kind kind = (bt_msg_kind)k;
        if (!on_ucx(kind)) continue;
        kinds++;
        assert_false(bt_seal_allows(BT_ROLE_ROUTER, kind));
        bt_msg back;
        size_t bytes = write_random(f, kind);
        assert_int_equal(bt_seal_open(reader(f, kind), f->bytes, bytes, f->codec, &back, NULL),
                         BT_OK);
        assert_true(bt_msg_equal(&f->random.msg, &back));
        /* Sent back to its author it is refused. */
        const bt_seal *author = reader(f, kind) == &f->p ? &f->d : &f->p;
        assert_int_equal(bt_seal_open(author, f->bytes, bytes, f->codec, &back, NULL),
                         BT_ERR_FORMAT);
    }
    assert_int_equal(kinds, 10);
}

static void every_flip_and_cut(void **state)
{
    fixture *f = *state;
    bt_msg back;
    bt_err err;
    size_t bytes = write_random(f, BT_MSG_SEALED);
    for (size_t i = 0; i < 8 * bytes; i++) {
        f->bytes[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_int_equal(bt_seal_open(&f->d, f->bytes, bytes, f->codec, &back, &err),
                         BT_ERR_FORMAT);
        assert_non_null(strstr(err.message, "MAC"));
        f->bytes[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    for (size_t cut = 0; cut < bytes; cut++)
        assert_int_equal(bt_seal_open(&f->d, f->bytes, cut, f->codec, &back, &err), BT_ERR_FORMAT);
    assert_int_equal(bt_seal_open(&f->d, f->bytes, bytes, f->codec, &back, &err), BT_OK);
}

static void other_secret(void **state)
{
    fixture *f = *state;
    uint8_t secret[BT_KEY_BYTES] = {1};
    bt_seal other;
    bt_msg back;
    bt_seal_init(&other, secret, BT_ROLE_DECODE);
    size_t bytes = write_random(f, BT_MSG_MANIFEST);
    assert_int_equal(bt_seal_open(&other, f->bytes, bytes, f->codec, &back, NULL), BT_ERR_FORMAT);
}

/* A good MAC over a kind that belongs to ZeroMQ, or to the other direction. */
static void wrong_kind(void **state)
{
    fixture *f = *state;
    const bt_msg_kind kinds[] = {BT_MSG_TOKENS, BT_MSG_TICKET, BT_MSG_PAIR_ACCEPT};
    for (size_t i = 0; i < 3; i++) {
        size_t bytes;
        bt_msg back;
        bt_err err;
        random_msg(&f->random, kinds[i]);
        if (kinds[i] == BT_MSG_TOKENS) f->random.msg.tokens.token_count = 1;
        if (kinds[i] == BT_MSG_PAIR_ACCEPT)
            f->random.msg.pair_accept.worker_address_bytes = f->random.msg.pair_accept.rkey_bytes =
                0;
        assert_int_equal(bt_codec_encode(&f->random.msg, f->bytes, sizeof(f->bytes) - BT_MAC_BYTES,
                                         &bytes, NULL),
                         BT_OK);
        bt_mac(f->d.open_key, f->bytes, bytes, f->bytes + bytes);
        assert_int_equal(bt_seal_open(&f->d, f->bytes, bytes + BT_MAC_BYTES, f->codec, &back, &err),
                         BT_ERR_FORMAT);
        assert_non_null(strstr(err.message, "does not belong"));
    }
}

static void no_room(void **state)
{
    fixture *f = *state;
    size_t bytes = write_random(f, BT_MSG_TICKET), got;
    for (size_t room = 0; room < bytes; room++)
        assert_int_equal(bt_seal_write(&f->d, &f->random.msg, f->bytes, room, &got, NULL),
                         BT_ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(round_trip, start, finish),
        cmocka_unit_test_setup_teardown(every_flip_and_cut, start, finish),
        cmocka_unit_test_setup_teardown(other_secret, start, finish),
        cmocka_unit_test_setup_teardown(wrong_kind, start, finish),
        cmocka_unit_test_setup_teardown(no_room, start, finish),
    };
    return cmocka_run_group_tests_name("seal", tests, NULL, NULL);
}
