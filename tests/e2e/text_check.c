/* text_check.c - one stage of a tokenizer over many texts, for test_tokenizer_hf.py: `text_check
 * normalizer|pre_tokenizer FILE`, where FILE holds the stage's JSON. stdin holds texts, each ended
 * with a NUL byte; each gives a line of JSON: the normalized text, or the list of words. */
#include "common/text/normalizer.h"
#include "common/text/pretokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *what)
{
    fprintf(stderr, "text_check: %s\n", what);
    exit(1);
}

static bt_status add_word(void *context, bt_span word, bt_err *err)
{
    (void)err;
    json_array_append_new(context, json_stringn(word.text, word.bytes));
    return BT_OK;
}

static json_t *words_of(const bt_pretokenizer *pretokenizer, const char *text, size_t bytes)
{
    bt_err err;
    bt_word_sink sink = {.word = add_word, .context = json_array()};
    bt_span span = {.text = text, .bytes = bytes, .first = true};
    if (bt_pretokenizer_run(pretokenizer, span, &sink, &err) != BT_OK) fail(err.message);
    return sink.context;
}

static json_t *normal_of(const bt_steps *normalizer, const char *text, size_t bytes)
{
    bt_err err;
    bt_buffer out = {0};
    if (bt_steps_run(normalizer, text, NULL, bytes, &out, &err) != BT_OK) fail(err.message);
    json_t *normal = json_stringn(out.bytes > 0 ? out.data : "", out.bytes);
    bt_buffer_release(&out);
    return normal;
}

int main(int argc, char **argv)
{
    static bt_pretokenizer pretokenizer;
    static bt_steps normalizer;
    bt_err err;
    json_t *stage = argc == 3 ? json_load_file(argv[2], 0, NULL) : NULL;
    if (stage == NULL) fail("usage: text_check normalizer|pre_tokenizer FILE < TEXTS");
    bool normalizes = strcmp(argv[1], "normalizer") == 0;
    if ((normalizes ? bt_normalizer_read(stage, &normalizer, &err)
                    : bt_pretokenizer_read(stage, &pretokenizer, &err)) != BT_OK)
        fail(err.message);
    char *text = NULL;
    size_t room = 0;
    ssize_t got;
    while ((got = getdelim(&text, &room, '\0', stdin)) > 0) {
        size_t bytes = (size_t)got - (text[got - 1] == '\0');
        json_t *out =
            normalizes ? normal_of(&normalizer, text, bytes) : words_of(&pretokenizer, text, bytes);
        json_dumpf(out, stdout, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
        putchar('\n');
        json_decref(out);
    }
    free(text);
    json_decref(stage);
    return 0;
}
