/* vocab.h - what drawn prompts are made of: token ids that are valid and not special, and words that
 * are one token each wherever they stand in a text.
 *
 * IDS    in this order: a range that the user gives, all but the special ones of a tokenizer.json,
 *        or the ids of our words as the server's /tokenize tells them.
 * WORDS  Short common English words, kept if they count as one token each: a group of them said
 *        twice must be longer by as many tokens as it has words than said once. Who counts is a
 *        function: a tokenizer.json, the server's /tokenize, or the usage of a short request. A
 *        group that fails is halved. */
#ifndef BT_OPS_CLI_BENCH_VOCAB_H
#define BT_OPS_CLI_BENCH_VOCAB_H

#include "common/base/status.h"

#include <stdint.h>

#define BT_VOCAB_WORDS_MAX 128u
#define BT_VOCAB_WORDS_MIN 8u
#define BT_VOCAB_WORD_BYTES 16u
#define BT_VOCAB_IDS_MAX (1u << 20)

typedef struct {
    uint32_t *ids;
    uint32_t id_count;                     /* 0 = none are known */
    const char *words[BT_VOCAB_WORDS_MAX]; /* static storage */
    uint32_t word_count;
} bt_vocab;

/* Tokens of a text; ids (may be NULL) gets up to ids_max of them if the counter knows them, and
 * *ret_ids how many. */
typedef bt_status (*bt_vocab_count)(void *arg, const char *text, uint32_t *ret_tokens,
                                    uint32_t *ids, uint32_t ids_max, uint32_t *ret_ids,
                                    bt_err *err);

/* "A-B". Errors: ERR_ARGUMENT, ERR_NO_MEMORY. */
bt_status bt_vocab_range(bt_vocab *vocab, const char *text, bt_err *err);
/* DIR/tokenizer.json: ids, and words if there are enough (else word_count is 0). Errors: what bt_tokenizer_open reports, ERR_NO_MEMORY. */
bt_status bt_vocab_tokenizer(bt_vocab *vocab, const char *dir, bt_err *err);
/* Words, and ids if the counter tells them and none are known yet. Errors: ERR_ARGUMENT (too few
 * words are one token), ERR_NO_MEMORY, the counter's. */
bt_status bt_vocab_words(bt_vocab *vocab, bt_vocab_count count, void *arg, bt_err *err);
void bt_vocab_finish(bt_vocab *vocab);

#endif
