/* ops/cli/bench: trace files (trace.h), prompt files (prompts.h), vocabularies (vocab.h) and the
 * requests that are made of them (load.h). */
#include "ops/cli/bench/load.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bt_status parse(const char *text, uint32_t limit, bt_trace *trace, bt_err *err)
{
    return bt_trace_parse(text, strlen(text), "t", limit, trace, err);
}

static void test_azure(void **state)
{
    (void)state;
    static const char text[] = "\357\273\277TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                               "2023-12-31 23:59:59.5,374,44\r\n"
                               "2024-01-01 00:00:00.2500001,396,109\r\n"
                               "\r\n"
                               "2023-12-31 23:59:59.4,0,0\n"
                               "2024-03-01 00:00:00+00:00,1,2\n"
                               "2024-02-29T00:00:00Z,5,6";
    bt_trace trace;
    bt_err err;
    if (parse(text, UINT32_MAX, &trace, &err) != BT_OK) fail_msg("%s", err.message);
    assert_string_equal(trace.format, "azure");
    assert_int_equal(trace.count, 5);
    static const struct {
        uint64_t at_ns;
        uint32_t input, output;
    } expected[] = {{0, 1, 1},
                    {100000000, 374, 44},
                    {850000100, 396, 109},
                    {(59 * 86400 + 600000000ull / 1000000000) * 1000000000ull + 600000000, 5, 6},
                    {60 * 86400 * 1000000000ull + 600000000, 1, 2}};
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(trace.requests[i].at_ns, expected[i].at_ns);
        assert_int_equal(trace.requests[i].input_tokens, expected[i].input);
        assert_int_equal(trace.requests[i].output_tokens, expected[i].output);
    }
    bt_trace_finish(&trace);
    assert_int_equal(parse(text, 2, &trace, &err), BT_OK);
    assert_int_equal(trace.count, 2);
    bt_trace_finish(&trace);
}

static void test_mooncake(void **state)
{
    (void)state;
    static const char text[] =
        "{\"timestamp\": 27000, \"input_length\": 513, \"output_length\": 9, \"hash_ids\": [0, "
        "7]}\n"
        "{\"timestamp\": 24000.5, \"input_length\": 1, \"output_length\": 0, \"hash_ids\": [-3]}\n"
        "{\"timestamp\": 27000, \"input_length\": 600, \"output_length\": 2}\n";
    bt_trace trace;
    bt_err err;
    if (parse(text, UINT32_MAX, &trace, &err) != BT_OK) fail_msg("%s", err.message);
    assert_string_equal(trace.format, "mooncake");
    assert_int_equal(trace.count, 3);
    assert_int_equal(trace.requests[0].hash_count, 1);
    assert_int_equal(trace.requests[0].output_tokens, 1);
    assert_int_equal(trace.requests[1].at_ns, 2999500000);
    assert_int_equal(trace.requests[1].hash_count, 2); /* equal times stay in order of the file */
    assert_int_equal(trace.hashes[trace.requests[1].first_hash + 1], 7);
    assert_int_equal(trace.requests[2].hash_count, 0);
    bt_trace_finish(&trace);
}

static void test_traces_refused(void **state)
{
    (void)state;
#define HEAD "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    static const char *const bad[] = {
        "",
        "\n",
        "time,in,out\n",
        HEAD,
        HEAD "2023-11-16 18:15:46,374\n",
        HEAD "2023-11-16 18:15:46,374,44,5\n",
        HEAD "2023-11-16 18:15:46,374,-44\n",
        HEAD "2023-11-16 18:15:46,374,44 \n",
        HEAD "2023-11-16 18:15:46,2000001,44\n",
        HEAD "2023-11-16 18:15:46,99999999999999999999,44\n",
        HEAD "2023-13-16 18:15:46,374,44\n",
        HEAD "2023-00-16 18:15:46,374,44\n",
        HEAD "1969-11-16 18:15:46,374,44\n",
        HEAD "2023-11-16 24:15:46,374,44\n",
        HEAD "2023-11-16 18:15:46.,374,44\n",
        HEAD "2023-11-16 18:15:46.1234567890,374,44\n",
        HEAD "2023-11-16 18:15:46+01:00,374,44\n",
        "{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1}\n[]\n",
        "{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1\n",
        "{\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1}\n",
        "{\"timestamp\": 1e300, \"input_length\": 1, \"output_length\": 1}\n",
        "{\"timestamp\": \"1\", \"input_length\": 1, \"output_length\": 1}\n",
        "{\"timestamp\": 1, \"input_length\": 1.5, \"output_length\": 1}\n",
        "{\"timestamp\": 1, \"input_length\": 2000001, \"output_length\": 1}\n",
        "{\"timestamp\": 1, \"input_length\": 1, \"output_length\": -1}\n",
        "{\"timestamp\": 1, \"input_length\": 1, \"input_length\": 1, \"output_length\": 1}\n",
        "{\"timestamp\": 1, \"input_length\": 513, \"output_length\": 1, \"hash_ids\": [1]}\n",
        "{\"timestamp\": 1, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": [1, 2]}\n",
        "{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [0.5]}\n",
        "{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": {}}\n",
    };
    bt_trace trace;
    for (size_t i = 0; i < COUNT(bad); i++) {
        bt_err err = {0};
        if (parse(bad[i], UINT32_MAX, &trace, &err) != BT_ERR_FORMAT)
            fail_msg("'%s' is taken", bad[i]);
        assert_memory_equal(err.message, "t:", 2);
    }
}

static void test_prompt_files(void **state)
{
    (void)state;
    static const char text[] = "{\"prompt\": \"a \\\"b\\\"\", \"max_tokens\": 7}\r\n\n"
                               "{\"prompt\": [1, 2, 3], \"other\": {}}\n";
    static const char chat[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"prompt\": \"x\"}\n"
        "{\"prompt\": \"hello\"}";
    static const struct {
        const char *text;
        bool chat;
    } bad[] = {
        {"", false},
        {"[]", false},
        {"{}", false},
        {"{\"prompt\": \"\"}", false},
        {"{\"prompt\": [1, \"a\"]}", false},
        {"{\"prompt\": [-1]}", false},
        {"{\"prompt\": []}", false},
        {"{\"prompt\": [1]}", true},
        {"{\"prompt\": \"a\", \"max_tokens\": 0}", false},
        {"{\"prompt\": \"a\", \"max_tokens\": \"5\"}", false},
        {"{\"messages\": []}", true},
        {"{\"messages\": [{\"role\": \"user\"}]}", true},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}", false},
    };
    bt_prompts prompts;
    bt_err err;
    assert_int_equal(bt_prompts_parse(text, strlen(text), "p", false, &prompts, &err), BT_OK);
    assert_int_equal(prompts.count, 2);
    assert_string_equal(prompts.lines[0].json, "\"a \\\"b\\\"\"");
    assert_int_equal(prompts.lines[0].output_tokens, 7);
    assert_string_equal(prompts.lines[1].json, "[1,2,3]");
    bt_prompts_finish(&prompts);
    assert_int_equal(bt_prompts_parse(chat, strlen(chat), "p", true, &prompts, &err), BT_OK);
    assert_true(prompts.lines[0].messages && !prompts.lines[1].messages);
    bt_prompts_finish(&prompts);
    for (size_t i = 0; i < COUNT(bad); i++)
        if (bt_prompts_parse(bad[i].text, strlen(bad[i].text), "p", bad[i].chat, &prompts, &err) !=
            BT_ERR_FORMAT)
            fail_msg("'%s' is taken", bad[i].text);
}

/* ---- vocabularies ---- */

/* A tokenizer for which "which" is three tokens and everything else one, with 2 put before. */
static bt_status count_words(void *arg, const char *text, uint32_t *ret_tokens, uint32_t *ids,
                             uint32_t ids_max, uint32_t *ret_ids, bt_err *err)
{
    (void)err;
    ++*(unsigned *)arg;
    *ret_tokens = 2;
    *ret_ids = 0;
    char copy[1024];
    snprintf(copy, sizeof(copy), "%s", text);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        unsigned pieces = strcmp(word, "which") == 0 ? 3 : 1;
        for (unsigned i = 0; i < pieces; i++, ++*ret_tokens)
            if (ids && *ret_ids < ids_max) ids[(*ret_ids)++] = (uint32_t)strlen(word);
    }
    return BT_OK;
}

static bt_status count_badly(void *arg, const char *text, uint32_t *ret_tokens, uint32_t *ids,
                             uint32_t ids_max, uint32_t *ret_ids, bt_err *err)
{
    (void)arg, (void)ids, (void)ids_max, (void)err;
    *ret_tokens = (uint32_t)strlen(text) * 2;
    *ret_ids = 0;
    return BT_OK;
}

static void test_words(void **state)
{
    (void)state;
    bt_vocab vocab = {0};
    bt_err err;
    unsigned calls = 0;
    assert_int_equal(bt_vocab_words(&vocab, count_words, &calls, &err), BT_OK);
    assert_int_equal(vocab.word_count, BT_VOCAB_WORDS_MAX - 1);
    for (uint32_t i = 0; i < vocab.word_count; i++)
        assert_string_not_equal(vocab.words[i], "which");
    assert_int_equal(vocab.id_count, BT_VOCAB_WORDS_MAX - 1);
    for (uint32_t i = 0; i < vocab.id_count; i++)
        assert_int_equal(vocab.ids[i], strlen(vocab.words[i]));
    assert_true(calls <= 2 * (8 + 8)); /* groups, and the halves of one */
    bt_vocab_finish(&vocab);
    assert_int_equal(bt_vocab_words(&vocab, count_badly, NULL, &err), BT_ERR_ARGUMENT);
    bt_vocab_finish(&vocab);
}

static void test_id_range(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "5", "5-", "-5", "9-5", "1-2000000", "a-b", "1-99999999999", "1 - 5"};
    bt_vocab vocab = {0};
    bt_err err;
    for (size_t i = 0; i < COUNT(bad); i++)
        if (bt_vocab_range(&vocab, bad[i], &err) != BT_ERR_ARGUMENT)
            fail_msg("'%s' is taken", bad[i]);
    assert_int_equal(bt_vocab_range(&vocab, "100-103", &err), BT_OK);
    assert_int_equal(vocab.id_count, 4);
    assert_int_equal(vocab.ids[3], 103);
    bt_vocab_finish(&vocab);
}

static void test_tokenizer_folder(void **state)
{
    (void)state;
    bt_vocab vocab = {0};
    bt_err err;
    if (bt_vocab_tokenizer(&vocab, "ops/model", &err) != BT_OK) fail_msg("%s", err.message);
    assert_int_equal(vocab.id_count, 4094); /* 4,096 less the two special ones */
    assert_int_equal(vocab.ids[0], 2);
    assert_true(vocab.word_count > 100);
    bt_vocab_finish(&vocab);
    assert_int_equal(bt_vocab_tokenizer(&vocab, "ops/nothing", &err), BT_ERR_OS);
    bt_vocab_finish(&vocab);
}

/* ---- requests ---- */

static bt_load open_load(const bt_load_options *options, bool open_loop, uint32_t count)
{
    bt_load load;
    bt_err err;
    if (bt_load_open(options, open_loop, count, UINT64_MAX, &load, &err) != BT_OK)
        fail_msg("%s", err.message);
    return load;
}

/* The body of a request, parsed. */
static json_t *body_of(const bt_load *load, bool warmup, uint32_t index, const bt_vocab *vocab,
                       const bt_load_body *body, uint32_t overhead)
{
    bt_json_out json;
    bt_err err;
    json_error_t error;
    bt_json_init(&json, BT_LOAD_BODY_MAX);
    if (bt_load_write(load, warmup, index, vocab, body, overhead, &json, &err) != BT_OK)
        fail_msg("%s", err.message);
    json_t *parsed = json_loadb(json.data, json.bytes, JSON_REJECT_DUPLICATES, &error);
    if (!parsed) fail_msg("%s: %.*s", error.text, (int)json.bytes, json.data);
    bt_json_finish(&json);
    return parsed;
}

static json_int_t id_at(const json_t *body, size_t i)
{
    return json_integer_value(json_array_get(json_object_get(body, "prompt"), i));
}

static size_t prompt_size(const json_t *body)
{
    return json_array_size(json_object_get(body, "prompt"));
}

static size_t equal_ids(const json_t *a, const json_t *b)
{
    size_t equal = 0;
    while (equal < prompt_size(a) && equal < prompt_size(b) && id_at(a, equal) == id_at(b, equal))
        equal++;
    return equal;
}

static const bt_load_options plain = {
    .seed = 9,
    .input = {BT_LENGTH_UNIFORM, 50, 150},
    .output = {BT_LENGTH_UNIFORM, 5, 15},
    .burstiness = 1,
    .speed = 1,
};

static const bt_load_body as_ids = {
    .model = "m", .ids = true, .stream_usage = true, .ignore_eos = true, .token_ids = true};

static void test_ids(void **state)
{
    (void)state;
    bt_vocab vocab = {0};
    bt_vocab_range(&vocab, "1000-1999", NULL);
    bt_load load = open_load(&plain, false, 10);
    for (uint32_t i = 0; i < 20; i++) {
        json_t *body = body_of(&load, false, i, &vocab, &as_ids, 5);
        json_t *again = body_of(&load, false, i, &vocab, &as_ids, 5);
        json_t *warm = body_of(&load, true, i, &vocab, &as_ids, 5);
        bt_load_item item = bt_load_item_of(&load, false, i);
        assert_true(json_equal(body, again));
        assert_int_equal(prompt_size(body), item.input_tokens);
        assert_in_range(item.input_tokens, 50, 150);
        assert_int_equal(prompt_size(warm), item.input_tokens);
        assert_true(equal_ids(body, warm) < 5);
        for (size_t k = 0; k < prompt_size(body); k++) assert_in_range(id_at(body, k), 1000, 1999);
        assert_int_equal(json_integer_value(json_object_get(body, "max_tokens")),
                         item.output_tokens);
        assert_true(json_is_true(json_object_get(body, "stream")));
        assert_true(json_is_true(json_object_get(body, "ignore_eos")));
        assert_true(json_is_true(json_object_get(body, "return_token_ids")));
        assert_string_equal(json_string_value(json_object_get(body, "model")), "m");
        json_decref(body);
        json_decref(again);
        json_decref(warm);
    }
    bt_load_close(&load);
    bt_vocab_finish(&vocab);
}

static void test_shared_prefixes(void **state)
{
    (void)state;
    bt_vocab vocab = {0};
    bt_vocab_range(&vocab, "0-99999", NULL);
    bt_load_options options = plain;
    options.input = (bt_length){BT_LENGTH_FIXED, 100, 100};
    options.prefix_tokens = 60;
    options.prefixes = 3;
    bt_load load = open_load(&options, false, 10);
    enum { N = 30 };
    json_t *bodies[N];
    for (uint32_t i = 0; i < N; i++) bodies[i] = body_of(&load, false, i, &vocab, &as_ids, 0);
    unsigned groups = 0;
    for (uint32_t i = 0; i < N; i++) {
        bool first = true;
        assert_int_equal(prompt_size(bodies[i]), 100);
        for (uint32_t k = 0; k < i; k++) {
            size_t equal = equal_ids(bodies[i], bodies[k]);
            assert_true(equal < 5 || (equal >= 60 && equal < 65));
            first = first && equal < 5;
        }
        groups += first;
    }
    assert_int_equal(groups, 3);
    for (uint32_t i = 0; i < N; i++) json_decref(bodies[i]);
    bt_load_close(&load);
    bt_vocab_finish(&vocab);
}

/* Requests of a trace: equal hashes are equal tokens, also of a block that is only begun. */
static void test_hashed_blocks(void **state)
{
    (void)state;
    static const char text[] = "{\"timestamp\": 0, \"input_length\": 1100, \"output_length\": 3, "
                               "\"hash_ids\": [5, 6, 7]}\n"
                               "{\"timestamp\": 500, \"input_length\": 1030, \"output_length\": 4, "
                               "\"hash_ids\": [5, 6, 7]}\n"
                               "{\"timestamp\": 900, \"input_length\": 1100, \"output_length\": 4, "
                               "\"hash_ids\": [5, 8, 7]}\n";
    bt_trace trace;
    bt_vocab vocab = {0};
    assert_int_equal(parse(text, UINT32_MAX, &trace, NULL), BT_OK);
    bt_vocab_range(&vocab, "0-99999", NULL);
    bt_load_options options = plain;
    options.trace = &trace;
    options.speed = 2;
    bt_load load = open_load(&options, true, UINT32_MAX);
    assert_int_equal(load.arrival_count, 3);
    assert_int_equal(load.at_ns[1], 250000000);
    json_t *bodies[3];
    for (uint32_t i = 0; i < 3; i++) bodies[i] = body_of(&load, false, i, &vocab, &as_ids, 0);
    assert_int_equal(prompt_size(bodies[1]), 1030);
    assert_int_equal(equal_ids(bodies[0], bodies[1]), 1030);
    assert_in_range(equal_ids(bodies[0], bodies[2]), 512, 516);
    for (size_t i = 1024; i < 1100; i++) assert_int_equal(id_at(bodies[0], i), id_at(bodies[2], i));
    for (uint32_t i = 0; i < 3; i++) json_decref(bodies[i]);
    bt_load_close(&load);
    bt_trace_finish(&trace);
    bt_vocab_finish(&vocab);
}

static void test_texts(void **state)
{
    (void)state;
    bt_vocab vocab = {.words = {"aa", "bb", "cc"}, .word_count = 3};
    bt_load_options options = plain;
    options.input = (bt_length){BT_LENGTH_FIXED, 100, 100};
    bt_load load = open_load(&options, false, 10);
    const bt_load_body completions = {.model = "m"}, chat = {.model = "m", .chat = true};
    json_t *body = body_of(&load, false, 0, &vocab, &completions, 7);
    const char *text = json_string_value(json_object_get(body, "prompt"));
    assert_int_equal(strlen(text), 3 * 93); /* the server adds 7 */
    assert_memory_equal(text, " aa ", 4);   /* as the probe's text begins */
    assert_null(json_object_get(body, "ignore_eos"));
    assert_null(json_object_get(body, "stream_options"));
    json_t *message = body_of(&load, false, 0, &vocab, &chat, 7);
    const json_t *first = json_array_get(json_object_get(message, "messages"), 0);
    assert_string_equal(json_string_value(json_object_get(first, "content")), text);
    assert_string_equal(json_string_value(json_object_get(first, "role")), "user");
    json_decref(body);
    json_decref(message);
    bt_load_close(&load);
}

static void test_given_prompts(void **state)
{
    (void)state;
    static const char text[] =
        "{\"prompt\": \"one \\u00e9\", \"max_tokens\": 7}\n{\"prompt\": \"two\"}\n";
    bt_prompts prompts;
    assert_int_equal(bt_prompts_parse(text, strlen(text), "p", true, &prompts, NULL), BT_OK);
    bt_load_options options = plain;
    options.prompts = &prompts;
    bt_load load = open_load(&options, false, 10);
    const bt_load_body completions = {.model = "m"}, chat = {.model = "m", .chat = true};
    bt_vocab none = {0};
    json_t *body = body_of(&load, false, 2, &none, &completions, 0); /* from the beginning again */
    assert_string_equal(json_string_value(json_object_get(body, "prompt")), "one \xc3\xa9");
    assert_int_equal(json_integer_value(json_object_get(body, "max_tokens")), 7);
    assert_int_equal(bt_load_item_of(&load, false, 2).input_tokens, 0);
    json_decref(body);
    body = body_of(&load, false, 1, &none, &chat, 0);
    const json_t *first = json_array_get(json_object_get(body, "messages"), 0);
    assert_string_equal(json_string_value(json_object_get(first, "content")), "two");
    json_decref(body);
    bt_load_close(&load);
    bt_prompts_finish(&prompts);
}

static void test_arrivals_end(void **state)
{
    (void)state;
    bt_load_options options = plain;
    bt_load load;
    bt_err err;
    options.rate = 100;
    assert_int_equal(bt_load_open(&options, true, UINT32_MAX, 10000000000, &load, &err), BT_OK);
    assert_in_range(load.arrival_count, 850, 1150); /* 1,000 expected, sd 32 */
    assert_true(load.at_ns[load.arrival_count - 1] < 10000000000);
    bt_load_close(&load);
    assert_int_equal(bt_load_open(&options, true, UINT32_MAX, 1, &load, &err), BT_ERR_ARGUMENT);
    assert_int_equal(bt_load_open(&options, true, UINT32_MAX, UINT64_MAX, &load, &err),
                     BT_ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_azure),
        cmocka_unit_test(test_mooncake),
        cmocka_unit_test(test_traces_refused),
        cmocka_unit_test(test_prompt_files),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_id_range),
        cmocka_unit_test(test_tokenizer_folder),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_shared_prefixes),
        cmocka_unit_test(test_hashed_blocks),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_given_prompts),
        cmocka_unit_test(test_arrivals_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
