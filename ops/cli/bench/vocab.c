#include "ops/cli/bench/vocab.h"

#include "common/base/parse.h"
#include "common/text/tokenizer.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const all_words[BT_VOCAB_WORDS_MAX] = {
    "the",  "of",    "and",   "to",      "in",     "that",    "was",   "he",     "it",    "his",
    "is",   "with",  "as",    "had",     "for",    "you",     "not",   "be",     "her",   "on",
    "at",   "by",    "which", "have",    "or",     "from",    "this",  "him",    "but",   "all",
    "she",  "they",  "were",  "my",      "are",    "me",      "one",   "their",  "so",    "an",
    "said", "them",  "we",    "who",     "would",  "been",    "will",  "no",     "when",  "there",
    "if",   "more",  "out",   "up",      "into",   "do",      "any",   "your",   "what",  "has",
    "man",  "could", "other", "than",    "our",    "some",    "very",  "time",   "upon",  "about",
    "may",  "its",   "only",  "now",     "like",   "little",  "then",  "can",    "made",  "should",
    "did",  "us",    "such",  "great",   "before", "must",    "two",   "these",  "see",   "know",
    "over", "much",  "down",  "after",   "first",  "good",    "men",   "own",    "never", "old",
    "day",  "where", "those", "came",    "come",   "himself", "way",   "work",   "life",  "without",
    "go",   "make",  "well",  "through", "being",  "long",    "say",   "might",  "how",   "too",
    "even", "again", "many",  "back",    "here",   "think",   "every", "people",
};

static bt_status no_memory(bt_err *err)
{
    return BT_FAIL(err, BT_ERR_NO_MEMORY, "the vocabulary of prompts");
}

void bt_vocab_finish(bt_vocab *vocab)
{
    free(vocab->ids);
    *vocab = (bt_vocab){0};
}

bt_status bt_vocab_range(bt_vocab *vocab, const char *text, bt_err *err)
{
    char low_text[16];
    uint32_t low, high;
    const char *dash = strchr(text, '-');
    size_t bytes = dash ? (size_t)(dash - text) : sizeof(low_text);
    if (bytes < sizeof(low_text)) {
        memcpy(low_text, text, bytes);
        low_text[bytes] = '\0';
    }
    if (bytes >= sizeof(low_text) || bt_parse_u32(low_text, INT32_MAX, &low, NULL) != BT_OK ||
        bt_parse_u32(dash + 1, INT32_MAX, &high, NULL) != BT_OK || low > high ||
        high - low >= BT_VOCAB_IDS_MAX) {
        char shown[48];
        bt_escape(text, strlen(text), shown, sizeof(shown));
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%s' is no range of ids like 100-3999", shown);
    }
    vocab->ids = malloc((size_t)(high - low + 1) * sizeof(*vocab->ids));
    if (!vocab->ids) return no_memory(err);
    for (uint32_t id = low; id <= high; id++) vocab->ids[vocab->id_count++] = id;
    return BT_OK;
}

static bt_status count_local(void *arg, const char *text, uint32_t *ret_tokens, uint32_t *ids,
                             uint32_t ids_max, uint32_t *ret_ids, bt_err *err)
{
    (void)ids, (void)ids_max;
    uint32_t buffer[1024];
    bt_tokens tokens = {.ids = buffer, .capacity = sizeof(buffer) / sizeof(buffer[0])};
    *ret_ids = 0;
    bt_status status = bt_tokenizer_encode(arg, text, strlen(text), BT_ENCODE_BARE, &tokens, err);
    *ret_tokens = (uint32_t)tokens.count;
    return status;
}

bt_status bt_vocab_tokenizer(bt_vocab *vocab, const char *dir, bt_err *err)
{
    char path[4096];
    bt_tokenizer *tokenizer = NULL;
    if (snprintf(path, sizeof(path), "%s/tokenizer.json", dir) >= (int)sizeof(path))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "the path of the tokenizer is too long");
    bt_status status = bt_tokenizer_open(path, &tokenizer, err);
    if (status != BT_OK) return status;
    uint32_t vocabulary = bt_tokenizer_vocab(tokenizer);
    vocab->ids = vocab->ids ? vocab->ids : malloc((size_t)vocabulary * sizeof(*vocab->ids) + 1);
    if (!vocab->ids) status = no_memory(err);
    if (status == BT_OK && vocab->id_count == 0) {
        for (uint32_t id = 0; id < vocabulary; id++) {
            size_t bytes = 0;
            if (!bt_tokenizer_special(tokenizer, id) && bt_tokenizer_piece(tokenizer, id, &bytes) &&
                bytes > 0)
                vocab->ids[vocab->id_count++] = id;
        }
    }
    bt_err none;
    if (status == BT_OK && bt_vocab_words(vocab, count_local, tokenizer, &none) != BT_OK)
        vocab->word_count = 0; /* ids will do where the server takes them */
    bt_tokenizer_close(tokenizer);
    return status;
}

/* ---- words ---- */

typedef struct {
    bt_vocab *vocab;
    bt_vocab_count count;
    void *arg;
    bool keep_ids;
} word_test;

/* " a b c" of the group, so often. */
static void say(const char *const *words, uint32_t count, unsigned times, char *text)
{
    for (unsigned t = 0; t < times; t++)
        for (uint32_t i = 0; i < count; i++) text += sprintf(text, " %s", words[i]);
}

static bt_status add_ids(bt_vocab *vocab, const uint32_t *ids, uint32_t count, bt_err *err)
{
    if (!vocab->ids) vocab->ids = malloc(BT_VOCAB_WORDS_MAX * sizeof(*vocab->ids));
    if (!vocab->ids) return no_memory(err);
    for (uint32_t i = 0; i < count && vocab->id_count < BT_VOCAB_WORDS_MAX; i++)
        vocab->ids[vocab->id_count++] = ids[i];
    return BT_OK;
}

/* Keeps the words of the group, or of its halves. */
static bt_status test_group(word_test *test, const char *const *words, uint32_t count, bt_err *err)
{
    char text[2 * 16 * (BT_VOCAB_WORD_BYTES + 1) + 1];
    uint32_t once, twice, ids[64], id_count = 0;
    say(words, count, 1, text);
    bt_status status = test->count(test->arg, text, &once, NULL, 0, &id_count, err);
    if (status != BT_OK) return status;
    say(words, count, 2, text);
    status = test->count(test->arg, text, &twice, ids, 64, &id_count, err);
    if (status != BT_OK) return status;
    if (twice >= once && twice - once == count) {
        for (uint32_t i = 0; i < count; i++)
            test->vocab->words[test->vocab->word_count++] = words[i];
        /* The second half of the ids is the group's, whatever the tokenizer put before. */
        if (test->keep_ids && id_count >= 2 * count)
            status = add_ids(test->vocab, ids + id_count - count, count, err);
        return status;
    }
    if (count == 1) return BT_OK;
    status = test_group(test, words, count / 2, err);
    return status == BT_OK ? test_group(test, words + count / 2, count - count / 2, err) : status;
}

bt_status bt_vocab_words(bt_vocab *vocab, bt_vocab_count count, void *arg, bt_err *err)
{
    word_test test = {.vocab = vocab, .count = count, .arg = arg, .keep_ids = vocab->id_count == 0};
    vocab->word_count = 0;
    for (uint32_t i = 0; i < BT_VOCAB_WORDS_MAX; i += 16) {
        bt_status status = test_group(&test, all_words + i, 16, err);
        if (status != BT_OK) return status;
    }
    if (vocab->word_count < BT_VOCAB_WORDS_MIN)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "only %u of %u common words are one token each: no text of a given length "
                       "can be made",
                       vocab->word_count, BT_VOCAB_WORDS_MAX);
    return BT_OK;
}
