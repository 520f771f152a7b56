/* common/text/tokenizer.h: every stage by hand-made files, hostile files, a bound on the work, and
 * with outside data the ids that published tokenizers give. */
#include "common/text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/text/detok.h"
#include "common/text/pretokenizer.h"

#define IDS_MAX 4096
#define FUSE "{\"type\":\"Fuse\"}"
#define VOCAB_AB "\"a\":0,\"b\":1,\"ab\":2,\"aba\":3,\" \":4,\"<u>\":5"
#define MERGES_AB "[\"a\",\"b\"],[\"ab\",\"a\"]"

/* A tokenizer.json of these parts; others go before the model, each ended with a comma. */
static const char *file_of(const char *vocab, const char *merges, const char *options,
                           const char *others)
{
    static char json[1 << 16];
    int bytes = snprintf(json, sizeof(json),
                         "{%s\"decoder\":" FUSE ",\"model\":{\"type\":\"BPE\",%s\"vocab\":{%s},"
                         "\"merges\":[%s]}}",
                         others, options, vocab, merges);
    assert_true(bytes > 0 && (size_t)bytes < sizeof(json));
    return json;
}

static bt_tokenizer *make(const char *json)
{
    bt_tokenizer *tokenizer;
    bt_err err;
    if (bt_tokenizer_parse(json, strlen(json), "test", &tokenizer, &err) != BT_OK)
        fail_msg("%s\n%s", err.message, json);
    return tokenizer;
}

/* The text is marked plain up to each '}' from the '{' before it, which are no part of it. */
static void assert_ids_marked(const bt_tokenizer *tokenizer, const char *marked, uint32_t flags,
                              const char *expected)
{
    uint32_t ids[IDS_MAX];
    char got[8 * IDS_MAX] = "", text[1024];
    bt_text_range plain[16] = {0};
    size_t at = 0, bytes = 0, ranges = 0;
    for (; *marked != '\0'; marked++) {
        assert_true(bytes + 1 < sizeof(text) && ranges < 16);
        if (*marked == '{')
            plain[ranges].first = bytes;
        else if (*marked == '}')
            plain[ranges++].end = bytes;
        else
            text[bytes++] = *marked;
    }
    text[bytes] = '\0';
    bt_tokens tokens = {.ids = ids, .capacity = IDS_MAX};
    bt_err err;
    if (bt_tokenizer_encode_marked(tokenizer, text, bytes, plain, ranges, flags, &tokens, &err) !=
        BT_OK)
        fail_msg("'%s': %s", text, err.message);
    for (size_t i = 0; i < tokens.count; i++)
        at += (size_t)sprintf(got + at, "%s%u", i > 0 ? " " : "", ids[i]);
    if (strcmp(got, expected) != 0) fail_msg("'%s' is [%s], not [%s]", text, got, expected);
}

static void assert_ids(const bt_tokenizer *tokenizer, const char *text, uint32_t flags,
                       const char *expected)
{
    assert_ids_marked(tokenizer, text, flags, expected);
}

static void test_merges_go_by_rank_then_place(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer = make(file_of(VOCAB_AB, MERGES_AB, "", ""));
    assert_ids(tokenizer, "", 0, "");
    assert_ids(tokenizer, "abab", 0, "2 2");
    assert_ids(tokenizer, "aba", 0, "3");
    assert_ids(tokenizer, "abaab", 0, "3 2");
    assert_ids(tokenizer, "xay", 0, "0"); /* without an unknown token, x and y are dropped */
    bt_tokenizer_close(tokenizer);
    /* The older spelling of merges; a merge listed twice has its later rank. */
    tokenizer =
        make(file_of("\"a\":0,\"b\":1,\"ab\":2,\"ba\":3", "\"a b\",\"b a\",\"a b\"", "", ""));
    assert_ids(tokenizer, "aba", 0, "0 3");
    bt_tokenizer_close(tokenizer);
    tokenizer = make(file_of("\"a\":0,\"aa\":1,\"aaaa\":2", "\"a a\",\"aa aa\"", "", ""));
    assert_ids(tokenizer, "aaaaaaa", 0, "2 1 0");
    bt_tokenizer_close(tokenizer);
}

static void test_unknown_characters(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer = make(file_of(VOCAB_AB, MERGES_AB, "\"unk_token\":\"<u>\",", ""));
    assert_ids(tokenizer, "xyay", 0, "5 5 0 5");
    bt_tokenizer_close(tokenizer);
    tokenizer = make(file_of(VOCAB_AB, MERGES_AB, "\"unk_token\":\"<u>\",\"fuse_unk\":true,", ""));
    assert_ids(tokenizer, "xyay", 0, "5 0 5");
    bt_tokenizer_close(tokenizer);
    tokenizer = make(file_of(VOCAB_AB ",\"<0xC3>\":6,\"<0xA9>\":7,\"<0x78>\":8", MERGES_AB,
                             "\"unk_token\":\"<u>\",\"byte_fallback\":true,", ""));
    assert_ids(tokenizer, "xa\xC3\xA9", 0, "8 0 6 7");
    assert_ids(tokenizer, "\xC3\xA8", 0, "5"); /* one byte has no token: the character is unknown */
    bt_tokenizer_close(tokenizer);
}

static void test_ignore_merges(void **state)
{
    (void)state;
    const char *vocab = "\"a\":0,\"b\":1,\"aab\":2";
    bt_tokenizer *tokenizer = make(file_of(vocab, "", "", ""));
    assert_ids(tokenizer, "aab", 0, "0 0 1");
    bt_tokenizer_close(tokenizer);
    tokenizer = make(file_of(vocab, "", "\"ignore_merges\":true,", ""));
    assert_ids(tokenizer, "aab", 0, "2");
    assert_ids(tokenizer, "aaba", 0, "0 0 1 0");
    bt_tokenizer_close(tokenizer);
}

static void test_special_tokens_in_text(void **state)
{
    (void)state;
    const char *added =
        "\"added_tokens\":["
        "{\"id\":6,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
        "{\"id\":7,\"content\":\"<s>b\",\"special\":true,\"normalized\":false},"
        "{\"id\":8,\"content\":\"bb\",\"special\":false,\"normalized\":false},"
        "{\"id\":9,\"content\":\"<r>\",\"special\":true,\"rstrip\":true,\"normalized\":false},"
        "{\"id\":10,\"content\":\"<l>\",\"special\":true,\"lstrip\":true,\"normalized\":false}],";
    bt_tokenizer *tokenizer = make(file_of(VOCAB_AB, MERGES_AB, "\"unk_token\":\"<u>\",", added));
    assert_ids(tokenizer, "a<s>a", 0, "0 5 5 5 0");
    assert_ids(tokenizer, "a<s>a", BT_ENCODE_SPECIAL, "0 6 0");
    assert_ids(tokenizer, "<s>ba", BT_ENCODE_SPECIAL, "7 0");
    assert_ids(tokenizer, "abba", 0, "0 8 0"); /* not special: vocabulary */
    assert_ids(tokenizer, "a  <r>  a", BT_ENCODE_SPECIAL, "0 4 4 9 0");
    assert_ids(tokenizer, "a  <l>  a", BT_ENCODE_SPECIAL, "0 10 4 4 0");
    assert_ids(tokenizer, "<s", BT_ENCODE_SPECIAL, "5 5");
    assert_true(bt_tokenizer_special(tokenizer, 6));
    assert_false(bt_tokenizer_special(tokenizer, 8));
    assert_false(bt_tokenizer_special(tokenizer, UINT32_MAX));
    assert_int_equal(bt_tokenizer_vocab(tokenizer), 11);
    assert_int_equal(bt_tokenizer_id(tokenizer, "<s>b", 4), 7);
    assert_int_equal(bt_tokenizer_id(tokenizer, "aba", 3), 3);
    assert_int_equal(bt_tokenizer_id(tokenizer, "zz", 2), UINT32_MAX);
    bt_tokenizer_close(tokenizer);
}

static void test_added_tokens_and_what_is_beside_them(void **state)
{
    (void)state;
    const char *added =
        "\"added_tokens\":["
        "{\"id\":6,\"content\":\"bb\",\"single_word\":true,\"normalized\":false},"
        "{\"id\":7,\"content\":\"  \",\"normalized\":false},"
        "{\"id\":8,\"content\":\"<r>\",\"rstrip\":true,\"normalized\":false},"
        "{\"id\":9,\"content\":\"<w>\",\"single_word\":true,\"lstrip\":true,\"rstrip\":true,"
        "\"normalized\":false}],";
    static const char *const cases[][2] = {
        {"bb", "6"},
        {"a bb a", "0 4 6 4 0"},
        {"abb", "2 1"},
        {"bba", "1 1 0"},
        {"bbbb", "1 1 1 1"},
        {"\xC3\xA9"
         "bb",
         "5 1 1"}, /* a letter of two bytes before it */
        {"!bb?", "5 6 5"},
        {"a <w> a", "0 9 0"},
        {"a<w> a", "0 5 5 5 4 0"},
        {"<r>   a", "8 7 4 0"}, /* the white space it swallowed has a token, and then ends there */
        {"<r> a", "8 0"},
    };
    bt_tokenizer *tokenizer = make(file_of(VOCAB_AB, MERGES_AB, "\"unk_token\":\"<u>\",", added));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_ids(tokenizer, cases[i][0], 0, cases[i][1]);
    bt_tokenizer_close(tokenizer);
}

/* Special tokens of which a byte is the user's are text; all else crosses the borders. */
static void test_special_tokens_in_plain_ranges(void **state)
{
    (void)state;
    const char *added = "\"added_tokens\":["
                        "{\"id\":6,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
                        "{\"id\":7,\"content\":\"<s>b\",\"special\":true,\"normalized\":false},"
                        "{\"id\":8,\"content\":\"b<s>\",\"special\":true,\"normalized\":false},"
                        "{\"id\":9,\"content\":\"bb\",\"special\":false,\"normalized\":false},"
                        "{\"id\":10,\"content\":\"<r>\",\"special\":true,\"rstrip\":true,"
                        "\"normalized\":false}],";
    static const char *const cases[][2] = {
        {"<s>a{<s>}<s>", "6 0 5 5 5 6"},
        {"a{b}a", "3"},           /* merges across two borders */
        {"<s>{}a{}<s>", "6 0 6"}, /* empty ranges mark nothing */
        {"<s{>}", "5 5 5"},       /* completed by the user: text */
        {"{<}s>", "5 5 5"},
        {"<{s}>", "5 5 5"},
        {"<{}s>", "6"},
        {"<s>{b}", "6 1"}, /* the longer token is the user's doing: the shorter stands */
        {"<s>b", "7"},
        {"{b}<s>", "1 6"}, /* … at the other side too */
        {"{b}<s>{b}", "1 6 1"},
        {"{b<s>}", "1 5 5 5"},
        {"{bb}", "9"}, /* not special: vocabulary, whoever wrote it */
        {"b{b}", "9"},
        {"<r>{  a}", "10 0"}, /* swallows the user's white space, as anyone's */
        {"{<r>}  a", "5 5 5 4 4 0"},
    };
    bt_tokenizer *tokenizer = make(file_of(VOCAB_AB, MERGES_AB, "\"unk_token\":\"<u>\",", added));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_ids_marked(tokenizer, cases[i][0], BT_ENCODE_SPECIAL, cases[i][1]);
    assert_ids_marked(tokenizer, "<s>a{<s>}<s>", 0, "5 5 5 0 5 5 5 5 5 5");
    bt_tokenizer_close(tokenizer);
}

/* Special tokens that are looked for in normalized text: the ranges follow it there. */
static void test_plain_ranges_through_a_normalizer(void **state)
{
    (void)state;
    const char *others =
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
        "\"b\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\"ab\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\"yy\"},\"content\":\"<s>\"}]},"
        "\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"special\":true}],";
    const char *vocab = VOCAB_AB ",\"b<s>\":7";
    bt_tokenizer *tokenizer = make(file_of(vocab, MERGES_AB, "\"unk_token\":\"<u>\",", others));
    /* The token's own spelling is normalized too: b<s>. */
    assert_ids_marked(tokenizer, "<s>", BT_ENCODE_SPECIAL, "6");
    assert_ids_marked(tokenizer, "{<s>}", BT_ENCODE_SPECIAL, "1 5 5 5");
    assert_ids_marked(tokenizer, "xx<s>", BT_ENCODE_SPECIAL, "1 3 6");
    assert_ids_marked(tokenizer, "xx{<s>}x<s>", BT_ENCODE_SPECIAL, "1 2 2 5 5 5 0 6");
    assert_ids_marked(tokenizer, "x{x}<s>", BT_ENCODE_SPECIAL, "1 2 2 5 5 5");
    assert_ids_marked(tokenizer, "byy", BT_ENCODE_SPECIAL, "1 6");
    assert_ids_marked(tokenizer, "by{y}", BT_ENCODE_SPECIAL, "1 1 5 5 5");
    bt_tokenizer_close(tokenizer);
}

static void test_ranges_that_are_refused(void **state)
{
    (void)state;
    static const bt_text_range cases[][2] = {
        {{0, 1}, {0, 2}}, {{1, 2}, {1, 3}}, {{2, 1}, {2, 3}}, {{0, 1}, {3, 5}}, {{5, 5}, {5, 5}},
    };
    bt_tokenizer *tokenizer = make(file_of(VOCAB_AB, "", "", ""));
    uint32_t ids[4];
    bt_tokens tokens = {.ids = ids, .capacity = 4};
    bt_err err;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(
            bt_tokenizer_encode_marked(tokenizer, "abab", 4, cases[i], 2, 0, &tokens, &err),
            BT_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "range"));
    }
    const bt_text_range whole[2] = {{0, 4}, {4, 4}};
    assert_int_equal(bt_tokenizer_encode_marked(tokenizer, "abab", 4, whole, 2, 0, &tokens, &err),
                     BT_OK);
    bt_tokenizer_close(tokenizer);
}

static void test_template(void **state)
{
    (void)state;
    const char *template =
        "\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},"
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}},"
        "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"y\"}}],"
        "\"special_tokens\":{\"x\":{\"ids\":[5,4]},\"y\":{\"ids\":[3]}}}]},";
    bt_tokenizer *tokenizer = make(file_of(VOCAB_AB, MERGES_AB, "", template));
    assert_ids(tokenizer, "ab", 0, "5 4 2 3");
    assert_ids(tokenizer, "ab", BT_ENCODE_BARE, "2");
    assert_ids(tokenizer, "", 0, "5 4 3");
    bt_tokenizer_close(tokenizer);
    tokenizer = make(file_of(VOCAB_AB, MERGES_AB, "",
                             "\"post_processor\":{\"type\":\"RobertaProcessing\",\"sep\":[\"x\",4],"
                             "\"cls\":[\"y\",5]},"));
    assert_ids(tokenizer, "ab", 0, "5 2 4");
    bt_tokenizer_close(tokenizer);
}

static void test_normalizers(void **state)
{
    (void)state;
    const char *normalizer =
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
        "\"b\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"ab\"}]},"
        "\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"special\":true,\"normalized\":false}],";
    bt_tokenizer *tokenizer = make(file_of(VOCAB_AB, MERGES_AB, "", normalizer));
    assert_ids(tokenizer, "", 0, "");
    assert_ids(tokenizer, "a  a", 0, "1 0 2 3");
    assert_ids(tokenizer, "a<s>a", BT_ENCODE_SPECIAL, "1 0 6 1 0");
    bt_tokenizer_close(tokenizer);
}

/* The kinds of normalizers one after another; each alone is compared in test_tokenizer_stages.py. */
static void test_normalizers_in_a_row(void **state)
{
    (void)state;
    const char *others =
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKD\"},"
        "{\"type\":\"StripAccents\"},{\"type\":\"Lowercase\"},{\"type\":\"Strip\",\"strip_right\":"
        "false},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\"b\"}]},";
    bt_tokenizer *tokenizer = make(file_of(VOCAB_AB, MERGES_AB, "", others));
    assert_ids(tokenizer, " \n\xC3\x80   \xEF\xBC\xA1\xCC\x81 ", 0, "3 4"); /* aba and a space */
    assert_ids(tokenizer, "  ", 0, "");
    bt_tokenizer_close(tokenizer);
}

/* A text of marks that are all in the wrong order: neighbours exchanged one by one would take
 * hours. What is plain stays so where marks change places and compose. */
static void test_nfc(void **state)
{
    (void)state;
    const char *vocab = "\"a\":0,\"\\u00e1\":1,\"\\u0301\":2,\"\\u0316\":3,\"<s>\":4,\"\\u1ea1\":5,"
                        "\"<\":6,\"s\":7,\">\":8";
    const char *others =
        "\"normalizer\":{\"type\":\"NFC\"},\"added_tokens\":[{\"id\":4,\"content\":"
        "\"<s>\",\"special\":true},{\"id\":1,\"content\":\"\\u00e1\",\"special\":true}],";
    bt_tokenizer *tokenizer = make(file_of(vocab, "", "", others));
    assert_ids(tokenizer, "a\xCC\x81\xCC\x96 a\xCC\x81\xCC\x81", BT_ENCODE_SPECIAL, "1 3 1 2");
    assert_ids(tokenizer, "a\xCC\x81<s>", BT_ENCODE_SPECIAL, "1 4");
    assert_ids_marked(tokenizer, "a{\xCC\x81}<s>{<s>}", BT_ENCODE_SPECIAL, "1 4 6 7 8");
    size_t pairs = 400000, bytes = 1;
    char *text = malloc(1 + 4 * pairs);
    text[0] = 'a';
    for (size_t i = 0; i < pairs; i++, bytes += 4) memcpy(text + bytes, "\xCC\x81\xCC\x96", 4);
    bt_tokens tokens = {.ids = malloc(2 * bytes * sizeof(uint32_t)), .capacity = 2 * bytes};
    assert_int_equal(bt_tokenizer_encode(tokenizer, text, bytes, 0, &tokens, NULL), BT_OK);
    assert_int_equal(tokens.count, 2 * pairs);
    assert_int_equal(tokens.ids[0], 1); /* composed with the first acute, over all graves below */
    assert_int_equal(tokens.ids[pairs], 3);
    assert_int_equal(tokens.ids[pairs + 1], 2);
    free(tokens.ids);
    free(text);
    bt_tokenizer_close(tokenizer);
}

/* ---- the pre-tokenizers, by the words they cut ---- */

typedef struct {
    char text[512];
    size_t bytes;
} words;

static bt_status collect(void *context, bt_span word, bt_err *err)
{
    (void)err;
    words *w = context;
    assert_true(word.bytes > 0);
    w->bytes += (size_t)snprintf(w->text + w->bytes, sizeof(w->text) - w->bytes, "%s%.*s",
                                 w->bytes > 0 ? "|" : "", (int)word.bytes, word.text);
    return BT_OK;
}

static void assert_words(const char *stage, const char *text, const char *expected)
{
    json_t *json = json_loads(stage, 0, NULL);
    bt_pretokenizer pretokenizer;
    words got = {.text = ""};
    bt_word_sink sink = {collect, &got, 0};
    assert_int_equal(bt_pretokenizer_read(json, &pretokenizer, NULL), BT_OK);
    assert_int_equal(
        bt_pretokenizer_run(&pretokenizer,
                            (bt_span){.text = text, .bytes = strlen(text), .first = true}, &sink,
                            NULL),
        BT_OK);
    if (strcmp(got.text, expected) != 0)
        fail_msg("'%s' is cut '%s', not '%s'", text, got.text, expected);
    json_decref(json);
}

static void test_the_gpt2_pattern(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"Hello world", "Hello| world"},
        {"a  b", "a| | b"},
        {"a \n b", "a| \n| b"},
        {"a\nb", "a|\n|b"},
        {"end  ", "end|  "},
        {"   ", "   "},
        {" \t", " \t"},
        {"it's we'll I'd don't they've I'm you're",
         "it|'s| we|'ll| I|'d| don|'t| they|'ve| I|'m| you|'re"},
        {"IT'S", "IT|'|S"},
        {"'sx", "'s|x"},
        {"x''s", "x|''|s"},
        {" 's", " '|s"},
        {"abc123!?", "abc|123|!?"},
        {" 12 !", " 12| !"},
        {"caf\xC3\xA9s \xC2\xBD\xD9\xA3", "caf\xC3\xA9s| \xC2\xBD\xD9\xA3"},
        {"a\xC2\xA0 b", "a|\xC2\xA0| b"},
        {"a \xC2\xA0"
         "b",
         "a| |\xC2\xA0|b"},
        {"e\xCC\x81", "e|\xCC\x81"}, /* a mark is no letter */
        {"\xE6\x97\xA5\xE6\x9C\xAC \xF0\x9F\xA6\x99.",
         "\xE6\x97\xA5\xE6\x9C\xAC| \xF0\x9F\xA6\x99."},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_words("{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", cases[i][0],
                     cases[i][1]);
    assert_words("{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", "a b", " a| b");
    assert_words("{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", " a", " a");
    assert_words("{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}",
                 "a b 's", "a b 's");
}

#define SPLIT(pattern, behavior)                                                                   \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern "\"},\"behavior\":\"" behavior "\"}"
#define SIGNS_AND_LINES(after)                                                                     \
    " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n" after "]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define GPT4(digits)                                                                               \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits                 \
    "|" SIGNS_AND_LINES("")
#define CAPS "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define SMALL "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define TEKKEN                                                                                     \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" CAPS "*" SMALL "+|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" CAPS        \
    "+" SMALL "*|\\\\p{N}|" SIGNS_AND_LINES("/")

static void test_the_gpt4_patterns(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        /* text, Llama-3's words, Qwen2's words */
        {"I'LL say'\xC5\xBFo 1234", "I|'LL| say|'\xC5\xBF|o| |123|4",
         "I|'LL| say|'\xC5\xBF|o| |1|2|3|4"},
        {"(x) .y\tz", "(x|)| .|y|\tz", "(x|)| .|y|\tz"},
        {"a \n\n  b", "a| \n\n| | b", "a| \n\n| | b"},
        {"a  1", "a| | |1", "a| | |1"},
        {"!!\r\n\n x", "!!\r\n\n| x", "!!\r\n\n| x"},
        {"\nx  ", "\n|x|  ", "\n|x|  "},
        {"e\xCC\x81t", "e|\xCC\x81t", "e|\xCC\x81t"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_words(SPLIT(GPT4("\\\\p{N}{1,3}"), "Isolated"), cases[i][0], cases[i][1]);
        assert_words(SPLIT(GPT4("\\\\p{N}"), "Isolated"), cases[i][0], cases[i][2]);
    }
}

static void test_the_tekken_pattern(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"camelCase HTTPServer", "camel|Case| HTTPServer"},
        {"AB\xE6\x97\xA5"
         "CD",
         "AB\xE6\x97\xA5|CD"},
        {"\xCC\x81"
         "AB\xCC\x81"
         "C",
         "\xCC\x81"
         "AB\xCC\x81|C"},
        {"it's", "it|'s"},
        {"\xCC\x81 A", "\xCC\x81| A"},
        {"x //\n/ 12", "x| //\n/| |1|2"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_words(SPLIT(TEKKEN, "Isolated"), cases[i][0], cases[i][1]);
}

static void test_what_becomes_of_a_match(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        /* behavior, words of "--a-b--", words with what matches and what does not exchanged */
        {"Isolated", "-|-|a|-|b|-|-", "-|-|a|-|b|-|-"},
        {"Removed", "a|b", "-|-|-|-|-"},
        {"MergedWithPrevious", "-|-|a-|b-|-", "-|-a|-b|-|-"},
        {"MergedWithNext", "-|-a|-b|-|-", "-|-|a-|b-|-"},
        {"Contiguous", "--|a|-|b|--", "--|a|-|b|--"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int invert = 0; invert < 2; invert++) {
            char stage[256];
            snprintf(stage, sizeof(stage),
                     "{\"type\":\"Split\",\"pattern\":{\"String\":\"-\"},\"behavior\":\"%s\","
                     "\"invert\":%s}",
                     cases[i][0], invert ? "true" : "false");
            assert_words(stage, "--a-b--", cases[i][1 + invert]);
        }
    }
}

static void test_the_other_pretokenizers(void **state)
{
    (void)state;
    assert_words("{\"type\":\"Digits\",\"individual_digits\":true}", "ab12\xC2\xBD c",
                 "ab|1|2|\xC2\xBD| c");
    assert_words("{\"type\":\"Digits\"}", "ab12 3", "ab|12| |3");
    assert_words("{\"type\":\"Punctuation\"}", "a+b, c", "a|+|b|,| c");
    assert_words("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}", "a!?b", "a|!?|b");
    assert_words("{\"type\":\"Whitespace\"}", " a_1  +-b", "a_1|+-|b");
    assert_words("{\"type\":\"WhitespaceSplit\"}", " a_1  +-b", "a_1|+-b");
    assert_words("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
                 "\"individual_digits\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":true}]}",
                 "ab 12", " ab| | 1| 2");
}

static void test_metaspace(void **state)
{
    (void)state;
#define META(rest) "{\"type\":\"Metaspace\",\"replacement\":\"_\"" rest "}"
    assert_words(META(""), "a b", "_a|_b");
    assert_words(META(""), " a  b", "_a|_|_b");
    assert_words(META(""), "_a", "_a");
    assert_words(META(",\"prepend_scheme\":\"never\""), "a b", "a|_b");
    assert_words(META(",\"prepend_scheme\":\"first\""), "a b", "_a|_b");
    assert_words(META(",\"add_prefix_space\":false"), "a b", "a|_b");
    assert_words(META(",\"split\":false"), "a b", "_a_b");
#undef META
}

/* ---- refusals ---- */

static void test_what_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json, *message;
        bt_status status;
    } cases[] = {
#define MODEL "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}"
#define WITH(member) "{\"decoder\":" FUSE "," member "," MODEL "}"
#define ONLY(model) "{\"decoder\":" FUSE ",\"model\":{" model "}}"
        {"", "test: line", BT_ERR_FORMAT},
        {"[]", "not a JSON object", BT_ERR_FORMAT},
        {"{\"a\":1,\"a\":2}", "duplicate", BT_ERR_FORMAT},
        {"{" MODEL "}", "without a decoder", BT_ERR_ARGUMENT},
        {WITH("\"normalizer\":{\"type\":\"Nmt\"}"), "normalizer 'Nmt'", BT_ERR_ARGUMENT},
        {WITH("\"normalizer\":{}"), "no type", BT_ERR_FORMAT},
        {WITH("\"normalizer\":7"), "no type", BT_ERR_FORMAT},
        {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+\"}}"), "'x+'",
         BT_ERR_ARGUMENT},
        {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"}}"), "pattern",
         BT_ERR_FORMAT},
        {WITH("\"pre_tokenizer\":{\"type\":\"CharDelimiterSplit\"}"), "'CharDelimiterSplit'",
         BT_ERR_ARGUMENT},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\"}"), "pattern has no String", BT_ERR_FORMAT},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"}}"), "behavior",
         BT_ERR_FORMAT},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},"
              "\"behavior\":\"Kept\"}"),
         "'Kept'", BT_ERR_FORMAT},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x+y\"},"
              "\"behavior\":\"Isolated\"}"),
         "'x+y'", BT_ERR_ARGUMENT},
        {WITH(
             "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},"
             "{\"type\":\"Digits\"}]}"),
         "'Digits' after ByteLevel", BT_ERR_ARGUMENT},
        {WITH("\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"use_regex\":1}"), "use_regex",
         BT_ERR_FORMAT},
        {WITH("\"post_processor\":{\"type\":\"BertProcessing\"}"), "id out of range",
         BT_ERR_FORMAT},
        {WITH("\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":"
              "\"BertProcessing\","
              "\"cls\":[\"a\",0],\"sep\":[\"a\",0]},{\"type\":\"RobertaProcessing\"}]}"),
         "two templates", BT_ERR_ARGUMENT},
        {WITH("\"post_processor\":{\"type\":\"X\"}"), "post-processor 'X'", BT_ERR_ARGUMENT},
        {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
              "{\"id\":\"x\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"x\":{\"ids\":"
              "[9]}}}"),
         "id 9", BT_ERR_FORMAT},
        {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}"),
         "hold the text", BT_ERR_FORMAT},
        {WITH("\"added_tokens\":[{\"id\":0,\"content\":\"b\"}]"), "id of another", BT_ERR_FORMAT},
        {WITH("\"added_tokens\":[{\"id\":1048576,\"content\":\"b\"}]"), "added token",
         BT_ERR_FORMAT},
        {WITH("\"added_tokens\":[{\"id\":-1,\"content\":\"b\"}]"), "added token", BT_ERR_FORMAT},
        {WITH("\"added_tokens\":[7]"), "added token", BT_ERR_FORMAT},
        {ONLY("\"type\":\"Unigram\""), "'Unigram'", BT_ERR_ARGUMENT},
        {ONLY(""), "vocab", BT_ERR_FORMAT},
        {ONLY("\"vocab\":{},\"merges\":[]"), "vocab", BT_ERR_FORMAT},
        {ONLY("\"vocab\":{\"a\":-1},\"merges\":[]"), "no id", BT_ERR_FORMAT},
        {ONLY("\"vocab\":{\"a\":1.5},\"merges\":[]"), "no id", BT_ERR_FORMAT},
        {ONLY("\"vocab\":{\"a\":1048576},\"merges\":[]"), "no id", BT_ERR_FORMAT},
        {ONLY("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), "two tokens", BT_ERR_FORMAT},
        {ONLY("\"vocab\":{\"a\":0}"), "merges", BT_ERR_FORMAT},
        {ONLY("\"vocab\":{\"a\":0},\"merges\":[\"a\"]"), "merge 0", BT_ERR_FORMAT},
        {ONLY("\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]"), "merge 0", BT_ERR_FORMAT},
        {ONLY("\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\"]]"), "not in the vocabulary",
         BT_ERR_FORMAT},
        {ONLY("\"vocab\":{\"a\":0},\"merges\":[[\"a\",1]]"), "merge 0", BT_ERR_FORMAT},
        {ONLY("\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"<u>\""), "unk_token",
         BT_ERR_FORMAT},
        {ONLY("\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.5"), "dropout", BT_ERR_ARGUMENT},
        {ONLY("\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\""), "end_of_word",
         BT_ERR_ARGUMENT},
        {"{\"decoder\":{\"type\":\"WordPiece\"}}", "decoder 'WordPiece'", BT_ERR_ARGUMENT},
        {"{\"decoder\":{\"type\":\"Strip\",\"content\":\"xy\",\"start\":1,\"stop\":0}}",
         "one character", BT_ERR_FORMAT},
        {"{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":"
         "\"Strip\",\"content\":\"x\",\"start\":1,\"stop\":0}]}}",
         "leading spaces", BT_ERR_ARGUMENT},
        {"{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Sequence\"}]}}",
         "'Sequence'", BT_ERR_ARGUMENT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_tokenizer *tokenizer = NULL;
        bt_err err = {0};
        const char *json = cases[i].json;
        bt_status status = bt_tokenizer_parse(json, strlen(json), "test", &tokenizer, &err);
        if (status != cases[i].status || strstr(err.message, cases[i].message) == NULL)
            fail_msg("%s: status %d, '%s'", json, status, err.message);
        assert_null(tokenizer);
    }
    bt_tokenizer *tokenizer;
    assert_int_equal(bt_tokenizer_open("/nonexistent/tokenizer.json", &tokenizer, NULL), BT_ERR_OS);
    assert_int_equal(bt_tokenizer_open("/dev/null", &tokenizer, NULL), BT_ERR_OS);
}

static void test_a_truncated_file_is_an_error(void **state)
{
    (void)state;
    const char *json = file_of(VOCAB_AB, MERGES_AB, "\"unk_token\":\"<u>\",",
                               "\"pre_tokenizer\":{\"type\":\"ByteLevel\"},");
    size_t whole = strlen(json);
    for (size_t bytes = 0; bytes < whole; bytes++) {
        char *copy = malloc(bytes + 1); /* so that a read beyond the end is seen by ASan */
        memcpy(copy, json, bytes);
        bt_tokenizer *tokenizer;
        assert_int_not_equal(bt_tokenizer_parse(copy, bytes, "test", &tokenizer, NULL), BT_OK);
        free(copy);
    }
}

static void test_limits_of_encode(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer = make(file_of(VOCAB_AB, "", "", ""));
    uint32_t ids[4];
    bt_tokens tokens = {.ids = ids, .capacity = 4};
    bt_err err;
    assert_int_equal(bt_tokenizer_encode(tokenizer, "abab", 4, 0, &tokens, &err), BT_OK);
    assert_int_equal(bt_tokenizer_encode(tokenizer, "ababa", 5, 0, &tokens, &err), BT_ERR_LIMIT);
    assert_int_equal(bt_tokenizer_encode(tokenizer, "a\xFF", 2, 0, &tokens, &err), BT_ERR_ARGUMENT);
    char *text = calloc(1, BT_TEXT_BYTES_MAX + 1);
    assert_int_equal(bt_tokenizer_encode(tokenizer, text, BT_TEXT_BYTES_MAX + 1, 0, &tokens, &err),
                     BT_ERR_LIMIT);
    assert_int_equal(bt_tokenizer_encode(tokenizer, text, BT_TEXT_BYTES_MAX, 0, &tokens, &err),
                     BT_OK); /* NUL is a character like others: here an unknown one */
    assert_int_equal(tokens.count, 0);
    free(text);
    bt_tokenizer_close(tokenizer);
}

/* Replacements that multiply: refused before they fill the memory. */
static void test_a_normalizer_bomb(void **state)
{
    (void)state;
    char others[8192];
    size_t at = (size_t)sprintf(others, "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 8; i++)
        at += (size_t)sprintf(others + at,
                              "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},"
                              "\"content\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
                              i > 0 ? "," : "");
    sprintf(others + at, "]},");
    bt_tokenizer *tokenizer = make(file_of(VOCAB_AB, "", "", others));
    uint32_t ids[4];
    bt_tokens tokens = {.ids = ids, .capacity = 4};
    assert_int_equal(bt_tokenizer_encode(tokenizer, "a", 1, 0, &tokens, NULL), BT_ERR_LIMIT);
    bt_tokenizer_close(tokenizer);
}

/* ---- work ---- */

/* Tokens of 1, 2, 4 … 1,024 times the same character, and merges between them: the deepest merging
 * there is. \u0120 is the space of the byte alphabet. */
static bt_tokenizer *make_doubling(const char *others)
{
    static char vocab[1 << 15], merges[1 << 15];
    const char *const units[] = {"a", "\\u0120", " ", "\\u2581"};
    size_t vocab_at = 0, merges_at = 0;
    unsigned id = 0;
    for (size_t u = 0; u < 4; u++) {
        for (unsigned length = 1; length <= 128; length *= 2, id++) {
            vocab_at += (size_t)sprintf(vocab + vocab_at, "%s\"", id > 0 ? "," : "");
            for (unsigned i = 0; i < length; i++)
                vocab_at += (size_t)sprintf(vocab + vocab_at, "%s", units[u]);
            vocab_at += (size_t)sprintf(vocab + vocab_at, "\":%u", id);
            if (length == 128) continue;
            merges_at += (size_t)sprintf(merges + merges_at, "%s[\"", id > 0 ? "," : "");
            for (unsigned i = 0; i < 2 * length; i++)
                merges_at += (size_t)sprintf(merges + merges_at, "%s%s", units[u],
                                             i + 1 == length ? "\",\"" : "");
            merges_at += (size_t)sprintf(merges + merges_at, "\"]");
        }
    }
    return make(file_of(vocab, merges, "", others));
}

static uint64_t steps_of(const bt_tokenizer *tokenizer, const char *unit, size_t count)
{
    size_t unit_bytes = strlen(unit), bytes = unit_bytes * count;
    char *text = malloc(bytes);
    for (size_t i = 0; i < count; i++) memcpy(text + i * unit_bytes, unit, unit_bytes);
    bt_tokens tokens = {.ids = malloc(4 * bytes * sizeof(uint32_t)), .capacity = 4 * bytes};
    assert_int_equal(bt_tokenizer_encode(tokenizer, text, bytes, BT_ENCODE_SPECIAL, &tokens, NULL),
                     BT_OK);
    free(tokens.ids);
    free(text);
    return tokens.steps;
}

static void test_work_is_linear_but_for_the_heap(void **state)
{
    (void)state;
    static const char *const others[] = {
        "",
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true},",
        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\"},",
        ("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":"
         "\"\\u2581\"},\"added_tokens\":[{\"id\":99,\"content\":\"aaaaaaaaaaaaaaab\"},"
         "{\"id\":98,\"content\":\"\\n\",\"lstrip\":true,\"rstrip\":true},"
         "{\"id\":97,\"content\":\"1\",\"single_word\":true}],"),
        ("\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
         "\"pretokenizers\":[" SPLIT(
             GPT4("\\\\p{N}{1,3}"), "Isolated") ",{\"type\":\"ByteLevel\",\"use_regex\":false}]},"),
        ("\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"}," SPLIT(
            TEKKEN, "MergedWithNext") ",{\"type\":\"Punctuation\"},{\"type\":\"ByteLevel\"}]},"),
        "\"pre_tokenizer\":{\"type\":\"Whitespace\"},",
    };
    static const char *const units[] = {
        "a",  " ",   "\n",  "\xE6\x97\xA5", "\xE2\x96\x81", "\xCC\x81", "\xC2\xA0", "a ",
        " a", "\n ", " \n", "\r",           "\t",           "'",        "'s",       "1",
        "1a", "a1",  "A",   "Aa",           "aA",           "!",        "!\n",      "/",
        "x",
    };
    for (size_t o = 0; o < sizeof(others) / sizeof(others[0]); o++) {
        bt_tokenizer *tokenizer = make_doubling(others[o]);
        for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
            size_t small = 1000, large = u < 3 ? 1000000 : 20000;
            if (large * strlen(units[u]) > BT_TEXT_BYTES_MAX)
                large = BT_TEXT_BYTES_MAX / strlen(units[u]);
            double per_small = (double)steps_of(tokenizer, units[u], small) / (double)small;
            double per_large = (double)steps_of(tokenizer, units[u], large) / (double)large;
            /* log2(1,000,000 / 1,000) is 10: that many more levels of the heap, for at most 3
             * pushes and pops of each symbol. Anything quadratic would be 20 or
             * 1,000 times more. */
            if (per_large > per_small + 10 * 6 * (double)strlen(units[u]))
                fail_msg("file %zu, '%s': %.1f steps each, then %.1f", o, units[u], per_small,
                         per_large);
        }
        bt_tokenizer_close(tokenizer);
    }
}

/* ---- outside data ---- */

static const char *data_folder(void)
{
    const char *data = getenv("BATON_TEST_DATA");
    if (data == NULL) {
        printf("skipped: BATON_TEST_DATA is not set\n");
        skip();
    }
    return data;
}

static bt_tokenizer *open_file(const char *folder, const char *path)
{
    char full[1024];
    snprintf(full, sizeof(full), "%s/%s", folder, path);
    bt_tokenizer *tokenizer;
    bt_err err;
    if (bt_tokenizer_open(full, &tokenizer, &err) != BT_OK) fail_msg("%s", err.message);
    return tokenizer;
}

static json_t *load_file(const char *folder, const char *path)
{
    char full[1024];
    snprintf(full, sizeof(full), "%s/%s", folder, path);
    json_t *json = json_load_file(full, JSON_ALLOW_NUL, NULL);
    assert_non_null(json);
    return json;
}

static bool same_ids(const bt_tokenizer *tokenizer, const json_t *vector)
{
    uint32_t ids[IDS_MAX];
    bt_tokens tokens = {.ids = ids, .capacity = IDS_MAX};
    const json_t *text = json_object_get(vector, "text"),
                 *expected = json_object_get(vector, "ids");
    if (bt_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text),
                            BT_ENCODE_SPECIAL, &tokens, NULL) != BT_OK ||
        tokens.count != json_array_size(expected))
        return false;
    for (size_t i = 0; i < tokens.count; i++)
        if (ids[i] != (uint32_t)json_integer_value(json_array_get(expected, i))) return false;
    return true;
}

static bool same_text(const bt_tokenizer *tokenizer, const json_t *vector, bool clean_up)
{
    char text[16384], out[BT_DETOK_BYTES_MAX];
    size_t at = 0, size;
    const json_t *ids = json_object_get(vector, "ids");
    bt_detok detok;
    bt_detok_init(&detok, tokenizer, BT_DETOK_SPECIAL);
    for (size_t i = 0; i <= json_array_size(ids); i++) {
        if (i < json_array_size(ids))
            size = bt_detok_push(&detok, (uint32_t)json_integer_value(json_array_get(ids, i)), out);
        else
            size = bt_detok_flush(&detok, out);
        assert_true(at + size <= sizeof(text));
        memcpy(text + at, out, size);
        at += size;
    }
    if (clean_up) at = bt_detok_clean_up(text, at);
    const json_t *expected = json_object_get(vector, "decoded");
    return at == json_string_length(expected) && memcmp(text, json_string_value(expected), at) == 0;
}

static void test_stories260k(void **state)
{
    (void)state;
    char folder[900];
    snprintf(folder, sizeof(folder), "%s/models/stories260K", data_folder());
    bt_tokenizer *tokenizer = open_file(folder, "tokenizer.json");
    json_t *reference = load_file(folder, "reference.json"), *prompt;
    size_t index;
    assert_int_equal(bt_tokenizer_vocab(tokenizer), 512);
    json_array_foreach(json_object_get(reference, "prompts"), index, prompt)
    {
        assert_true(same_ids(tokenizer, prompt));
        json_t *greedy = json_pack("{s:O,s:O}", "ids", json_object_get(prompt, "greedy"), "decoded",
                                   json_object_get(prompt, "greedy_text"));
        bt_detok detok;
        char text[4096], out[BT_DETOK_BYTES_MAX];
        size_t at = 0;
        bt_detok_init(&detok, tokenizer, 0);
        for (size_t i = 0; i < json_array_size(json_object_get(greedy, "ids")); i++) {
            json_t *id = json_array_get(json_object_get(greedy, "ids"), i);
            size_t size = bt_detok_push(&detok, (uint32_t)json_integer_value(id), out);
            memcpy(text + at, out, size);
            at += size;
        }
        text[at] = '\0';
        assert_string_equal(text, json_string_value(json_object_get(greedy, "decoded")));
        json_decref(greedy);
    }
    assert_int_equal(index, 5);
    json_decref(reference);
    bt_tokenizer_close(tokenizer);
}

typedef struct {
    unsigned ids, texts;             /* vectors that hold */
    unsigned ids_total, texts_total; /* not every vector says what its ids decode to */
} vector_counts;

/* Adds the vectors of a file: a list, or an object of them. */
static void count_vectors(const bt_tokenizer *tokenizer, json_t *vectors, bool clean_up,
                          vector_counts *counts)
{
    json_t *list = json_is_array(vectors) ? json_incref(vectors) : json_array(), *vector;
    const char *key;
    json_object_foreach(vectors, key, vector) json_array_append(list, vector);
    size_t index;
    json_array_foreach(list, index, vector)
    {
        const char *text = json_string_value(json_object_get(vector, "text"));
        bool same = same_ids(tokenizer, vector);
        if (!same) printf("ids differ: %s\n", text);
        counts->ids += same;
        counts->ids_total++;
        if (json_object_get(vector, "decoded") == NULL) continue;
        same = same_text(tokenizer, vector, clean_up);
        if (!same) printf("text differs: %s\n", text);
        counts->texts += same;
        counts->texts_total++;
    }
    json_decref(list);
}

static void test_published_vectors(void **state)
{
    (void)state;
    char folder[] = "/tmp/baton-test-XXXXXX", command[1024];
    const char *data = data_folder();
    assert_non_null(mkdtemp(folder));
    snprintf(command, sizeof(command), "tar -xJf '%s/tokenizers.tar.xz' -C %s", data, folder);
    assert_int_equal(system(command), 0);
    static const struct {
        const char *tokenizer, *vectors, *name;
        bool clean_up; /* clean_up_tokenization_spaces, which is not in tokenizer.json */
    } files[] = {
        {"gpt2", "gpt-2.json", NULL, false},
        {"gpt2", "test_tokenization_gpt2.json", "Xenova/gpt2", true},
        {"gpt2", "test_tokenization_gpt2.json", "openai-community/gpt2", true},
        {"phi-3", "phi-3.json", NULL, false},
        {"qwen2.5", "qwen2.json", NULL, false},
        {"qwen2.5", "test_tokenization_qwen2.json", "Xenova/Qwen1.5-0.5B-Chat", false},
    };
    vector_counts all = {0};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[128];
        snprintf(path, sizeof(path), "tokenizers/%s/tokenizer.json", files[i].tokenizer);
        bt_tokenizer *tokenizer = open_file(folder, path);
        snprintf(path, sizeof(path), "vectors/%s", files[i].vectors);
        json_t *vectors = load_file(folder, path);
        vector_counts counts = {0};
        count_vectors(tokenizer, files[i].name ? json_object_get(vectors, files[i].name) : vectors,
                      files[i].clean_up, &counts);
        printf("%s, %s: ids %u of %u, text %u of %u\n", files[i].tokenizer, files[i].vectors,
               counts.ids, counts.ids_total, counts.texts, counts.texts_total);
        all.ids += counts.ids;
        all.ids_total += counts.ids_total;
        all.texts += counts.texts;
        all.texts_total += counts.texts_total;
        json_decref(vectors);
        bt_tokenizer_close(tokenizer);
    }
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(all.ids_total, 218);
    assert_int_equal(all.ids, all.ids_total);
    assert_int_equal(all.texts_total, 77);
    assert_int_equal(all.texts, all.texts_total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges_go_by_rank_then_place),
        cmocka_unit_test(test_unknown_characters),
        cmocka_unit_test(test_ignore_merges),
        cmocka_unit_test(test_special_tokens_in_text),
        cmocka_unit_test(test_added_tokens_and_what_is_beside_them),
        cmocka_unit_test(test_special_tokens_in_plain_ranges),
        cmocka_unit_test(test_plain_ranges_through_a_normalizer),
        cmocka_unit_test(test_ranges_that_are_refused),
        cmocka_unit_test(test_template),
        cmocka_unit_test(test_normalizers),
        cmocka_unit_test(test_normalizers_in_a_row),
        cmocka_unit_test(test_nfc),
        cmocka_unit_test(test_the_gpt2_pattern),
        cmocka_unit_test(test_the_gpt4_patterns),
        cmocka_unit_test(test_the_tekken_pattern),
        cmocka_unit_test(test_what_becomes_of_a_match),
        cmocka_unit_test(test_the_other_pretokenizers),
        cmocka_unit_test(test_metaspace),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_a_truncated_file_is_an_error),
        cmocka_unit_test(test_limits_of_encode),
        cmocka_unit_test(test_a_normalizer_bomb),
        cmocka_unit_test(test_work_is_linear_but_for_the_heap),
        cmocka_unit_test(test_stories260k),
        cmocka_unit_test(test_published_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
