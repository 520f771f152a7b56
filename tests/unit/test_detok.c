/* common/text/detok.h: whole characters after every push, U+FFFD for what can be none, and the first
 * space of a text. */
#include "common/text/detok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/base/utf8.h"

#define BAD "\xEF\xBF\xBD"

/* Ids 0 … 255 are the byte tokens, then <s> (special), "▁a", "b", "▁", "▁▁c". */
enum { ID_BOS = 256, ID_SPACE_A, ID_B, ID_SPACE, ID_SPACES_C };

static bt_tokenizer *make(const char *decoder)
{
    static char json[16384];
    size_t at = (size_t)sprintf(json, "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,"
                                      "\"merges\":[],\"vocab\":{");
    for (unsigned i = 0; i < 256; i++) at += (size_t)sprintf(json + at, "\"<0x%02X>\":%u,", i, i);
    sprintf(json + at,
            "\"<s>\":256,\"\\u2581a\":257,\"b\":258,\"\\u2581\":259,\"\\u2581\\u2581c\":260}},"
            "\"added_tokens\":[{\"id\":256,\"content\":\"<s>\",\"special\":true,"
            "\"normalized\":false}],\"decoder\":%s}",
            decoder);
    bt_tokenizer *tokenizer;
    bt_err err;
    if (bt_tokenizer_parse(json, strlen(json), "test", &tokenizer, &err) != BT_OK)
        fail_msg("%s", err.message);
    return tokenizer;
}

#define SENTENCEPIECE                                                                              \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"          \
    "\"\\u2581\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"             \
    "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"
#define METASPACE                                                                                  \
    "{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"always\"}"

static void push(bt_detok *detok, uint32_t id, const char *expected)
{
    char out[BT_DETOK_BYTES_MAX];
    size_t bytes = bt_detok_push(detok, id, out);
    if (bytes != strlen(expected) || memcmp(out, expected, bytes) != 0)
        fail_msg("id %u gave '%.*s', not '%s'", id, (int)bytes, out, expected);
}

static void flush(bt_detok *detok, const char *expected)
{
    char out[BT_DETOK_BYTES_MAX];
    assert_int_equal(bt_detok_flush(detok, out), strlen(expected));
    assert_memory_equal(out, expected, strlen(expected));
}

static void test_characters_are_whole(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer = make(SENTENCEPIECE);
    bt_detok detok;
    bt_detok_init(&detok, tokenizer, 0);
    push(&detok, 0xF0, "");
    push(&detok, 0x9F, "");
    push(&detok, 0xA6, "");
    push(&detok, 0x99, "\xF0\x9F\xA6\x99");
    push(&detok, 0xC3, "");
    push(&detok, 0xA9, "\xC3\xA9");
    push(&detok, ID_B, "b");
    flush(&detok, "");
    bt_tokenizer_close(tokenizer);
}

static void test_what_can_be_no_character_is_replaced_at_once(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer = make(SENTENCEPIECE);
    bt_detok detok;
    bt_detok_init(&detok, tokenizer, 0);
    push(&detok, 0xFF, BAD);
    push(&detok, 0x80, BAD);
    push(&detok, 0xE2, "");
    push(&detok, ID_B, BAD "b"); /* cut short by a character */
    push(&detok, 0xE2, "");
    push(&detok, 0x82, "");
    push(&detok, 0xE2, BAD); /* one for the two bytes that began well; the new one may go on */
    push(&detok, 0x82, "");
    push(&detok, 0xAC, "\xE2\x82\xAC");
    push(&detok, 0xED, "");
    push(&detok, 0xA0, BAD BAD); /* a surrogate */
    push(&detok, 0xF4, "");
    push(&detok, 0x90, BAD BAD); /* above U+10FFFF */
    push(&detok, 0xF0, "");
    flush(&detok, BAD);
    flush(&detok, "");
    bt_tokenizer_close(tokenizer);
}

static void test_the_first_space(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer = make(SENTENCEPIECE);
    bt_detok detok;
    bt_detok_init(&detok, tokenizer, 0);
    push(&detok, ID_BOS, "");
    push(&detok, ID_SPACE_A, "a");
    push(&detok, ID_SPACE_A, " a");
    bt_detok_init(&detok, tokenizer, 0);
    push(&detok, ID_SPACE, "");
    push(&detok, ID_SPACE_A, " a");
    bt_detok_init(&detok, tokenizer, 0);
    push(&detok, ID_SPACES_C, " c");
    bt_detok_init(&detok, tokenizer, 0);
    push(&detok, ID_B, "b");
    push(&detok, ID_SPACE_A, " a");
    bt_detok_init(&detok, tokenizer, BT_DETOK_CONTINUES);
    push(&detok, ID_SPACE_A, " a");
    bt_tokenizer_close(tokenizer);
    tokenizer = make(METASPACE);
    bt_detok_init(&detok, tokenizer, 0);
    push(&detok, ID_SPACES_C, "c");
    push(&detok, ID_SPACES_C, "  c");
    bt_detok_init(&detok, tokenizer, BT_DETOK_CONTINUES);
    push(&detok, ID_SPACES_C, "  c");
    bt_tokenizer_close(tokenizer);
}

static void test_special_and_unknown_ids(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer = make(SENTENCEPIECE);
    bt_detok detok;
    bt_detok_init(&detok, tokenizer, BT_DETOK_SPECIAL);
    push(&detok, ID_BOS, "<s>");
    push(&detok, 100000, "");
    push(&detok, UINT32_MAX, "");
    /* A hidden token does not cut a character in two. */
    bt_detok_init(&detok, tokenizer, 0);
    push(&detok, 0xC3, "");
    push(&detok, ID_BOS, "");
    push(&detok, 0xA9, "\xC3\xA9");
    bt_tokenizer_close(tokenizer);
}

/* Random bytes, one token each: every output is valid UTF-8, and the whole is what decoding all the
 * bytes at once gives. */
static void test_random_bytes(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    printf("seed %u\n", seed);
    srand(seed);
    bt_tokenizer *tokenizer = make("{\"type\":\"ByteFallback\"}");
    static const uint8_t likely[] = {0xC3, 0xE2, 0xED, 0xF0, 0xF4, 0x80, 0x9F, 0xA0, 0xBF, 'a'};
    for (int round = 0; round < 2000; round++) {
        char bytes[24], whole[3 * sizeof(bytes)], pieces[3 * sizeof(bytes)];
        size_t count = (size_t)rand() % sizeof(bytes), whole_bytes = 0, pieces_bytes = 0;
        bt_detok detok;
        bt_detok_init(&detok, tokenizer, 0);
        for (size_t i = 0; i < count; i++) {
            char out[BT_DETOK_BYTES_MAX];
            bytes[i] = (char)(rand() % 4 ? likely[(size_t)rand() % sizeof(likely)] : rand());
            size_t size = bt_detok_push(&detok, (uint8_t)bytes[i], out);
            assert_true(bt_utf8_valid(out, size));
            memcpy(pieces + pieces_bytes, out, size);
            pieces_bytes += size;
        }
        char out[BT_DETOK_BYTES_MAX];
        size_t size = bt_detok_flush(&detok, out);
        memcpy(pieces + pieces_bytes, out, size);
        pieces_bytes += size;
        for (size_t at = 0; at < count;) {
            unsigned length;
            bool good = bt_utf8_probe(bytes + at, count - at, &length) == BT_UTF8_WHOLE;
            memcpy(whole + whole_bytes, good ? bytes + at : BAD, good ? length : 3);
            whole_bytes += good ? length : 3;
            at += length;
        }
        assert_int_equal(pieces_bytes, whole_bytes);
        if (whole_bytes > 0) assert_memory_equal(pieces, whole, whole_bytes);
    }
    bt_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters_are_whole),
        cmocka_unit_test(test_what_can_be_no_character_is_replaced_at_once),
        cmocka_unit_test(test_the_first_space),
        cmocka_unit_test(test_special_and_unknown_ids),
        cmocka_unit_test(test_random_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
