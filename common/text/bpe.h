/* bpe.h - the model stage of a tokenizer: a vocabulary, and words to ids by ranked merges.
 *
 * COST    A word of n symbols takes O(n log n): a heap of candidate merges over a linked list of
 *         symbols, each merge pushing two candidates at most. No word is looked at twice.
 * CUT     Without a pre-tokenizer a word is a whole text. It is cut between two characters of the
 *         vocabulary that no merge joins, that is, no merge's left half ends with the one where its
 *         right half begins with the other: what is on the one side cannot change the other.
 * HASH    All tables are keyed with a random seed, so that a file cannot choose its collisions.
 * QUIRK   As in Hugging Face, an unknown character that is waiting to be fused with the next one
 *         comes after byte-fallback tokens in between. */
#ifndef BT_COMMON_TEXT_BPE_H
#define BT_COMMON_TEXT_BPE_H

#include "common/text/json.h"
#include "common/text/tokenizer.h"

#define BT_ID_NONE UINT32_MAX

typedef struct {
    const char *text; /* as the file spells it; NULL: no token has this id */
    uint32_t bytes;
} bt_token;

typedef struct {
    uint64_t key; /* left id << 32 | right id */
    uint32_t rank;
    uint32_t id; /* BT_ID_NONE: the slot is free */
} bt_merge;

typedef struct {
    char *spellings;  /* of all tokens, each with a NUL */
    bt_token *tokens; /* by id */
    uint32_t token_count;
    uint32_t *names; /* hash table of ids by spelling; BT_ID_NONE: the slot is free */
    uint32_t name_slots;
    bt_merge *merges; /* hash table */
    uint32_t merge_slots;
    uint64_t *joints; /* hash table of what merges join: last code point << 32 | first one */
    uint32_t joint_slots;
    uint64_t seed;
    uint32_t token_bytes_max;
    uint32_t byte_ids[256];  /* what a word of bytes, or a byte that falls back, begins as */
    uint32_t ascii_ids[128]; /* of the tokens that are one such character */
    uint32_t unknown_id;     /* or BT_ID_NONE */
    bool fuse_unknown;
    bool byte_fallback;
    bool ignore_merges;
    bool byte_level; /* words are bytes, spelled in the GPT-2 alphabet */
} bt_bpe;

/* The spelling of a byte in the GPT-2 alphabet, as a code point; and back, -1 if it is none. */
uint32_t bt_byte_spelling(uint8_t byte);
int bt_byte_spelled(uint32_t code);

/* model is tokenizer.json's member of that name; nothing of it is kept. Release after an error
 * too. */
bt_status bt_bpe_read(const json_t *model, bool byte_level, bt_bpe *ret_bpe, bt_err *err);
void bt_bpe_release(bt_bpe *bpe);

/* The id of a token by its spelling, or BT_ID_NONE. */
uint32_t bt_bpe_find(const bt_bpe *bpe, const char *text, size_t bytes);

/* Appends the ids of one word. ERR_LIMIT if they do not fit. */
bt_status bt_bpe_encode(const bt_bpe *bpe, const char *word, size_t bytes, bt_tokens *tokens,
                        bt_err *err);

#endif
