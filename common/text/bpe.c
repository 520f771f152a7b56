#include "common/text/bpe.h"

#include "common/base/crypto.h"
#include "common/base/limits.h"
#include "common/base/utf8.h"
#include "common/text/unicode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SHORT_WORD_SYMBOLS 64u /* up to here a word's scratch is on the stack */

/* ---- the GPT-2 alphabet: printable Latin-1 bytes spell themselves, the other 68 take the code
 *      points from U+0100 on, in order ---- */

static bool spells_itself(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

uint32_t bt_byte_spelling(uint8_t byte)
{
    if (spells_itself(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    return byte == 0xAD ? 0x143u : 0x100u + 33u + (byte - 0x7Fu);
}

int bt_byte_spelled(uint32_t code)
{
    if (code <= 0xFF) return spells_itself(code) ? (int)code : -1;
    if (code <= 0x120) return (int)(code - 0x100u);
    if (code <= 0x142) return (int)(code - 0x121u + 0x7Fu);
    return code == 0x143 ? 0xAD : -1;
}

/* ---- hash tables ---- */

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    return hash ^ (hash >> 29);
}

static uint64_t hash_text(uint64_t seed, const char *text, size_t bytes)
{
    uint64_t hash = mix(seed, bytes), word;
    for (; bytes >= 8; text += 8, bytes -= 8) {
        memcpy(&word, text, 8);
        hash = mix(hash, word);
    }
    word = 0;
    memcpy(&word, text, bytes);
    return mix(mix(hash, word), seed);
}

static uint32_t slots_for(size_t count)
{
    uint32_t slots = 16;
    while (slots < 2 * count) slots *= 2;
    return slots;
}

/* The slot that has this spelling, or the free one where it belongs. */
static uint32_t name_slot(const bt_bpe *bpe, const char *text, size_t bytes)
{
    uint32_t slot = (uint32_t)hash_text(bpe->seed, text, bytes) & (bpe->name_slots - 1);
    for (;; slot = (slot + 1) & (bpe->name_slots - 1)) {
        uint32_t id = bpe->names[slot];
        if (id == BT_ID_NONE) return slot;
        const bt_token *token = &bpe->tokens[id];
        if (token->bytes == bytes && memcmp(token->text, text, bytes) == 0) return slot;
    }
}

uint32_t bt_bpe_find(const bt_bpe *bpe, const char *text, size_t bytes)
{
    return bpe->names[name_slot(bpe, text, bytes)];
}

static bt_merge *merge_slot(const bt_bpe *bpe, uint64_t key)
{
    uint32_t slot = (uint32_t)mix(mix(bpe->seed, key), bpe->seed) & (bpe->merge_slots - 1);
    while (bpe->merges[slot].id != BT_ID_NONE && bpe->merges[slot].key != key)
        slot = (slot + 1) & (bpe->merge_slots - 1);
    return &bpe->merges[slot];
}

static uint64_t *joint_slot(const bt_bpe *bpe, uint64_t joint)
{
    uint32_t slot = (uint32_t)mix(mix(bpe->seed, joint), bpe->seed) & (bpe->joint_slots - 1);
    while (bpe->joints[slot] != 0 && bpe->joints[slot] != joint)
        slot = (slot + 1) & (bpe->joint_slots - 1);
    return &bpe->joints[slot];
}

/* ---- reading ---- */

/* Checks every id and spelling and finds how much room they take. */
static bt_status measure_vocab(const json_t *vocab, bt_bpe *bpe, size_t *ret_spelling_bytes,
                               bt_err *err)
{
    const char *text;
    json_t *id;
    size_t total = 0;
    json_object_foreach((json_t *)vocab, text, id)
    {
        size_t bytes = strlen(text);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= BT_VOCAB_MAX)
            return BT_FAIL(err, BT_ERR_FORMAT, "token '%s' has no id from 0 to %u",
                           bt_json_show(text).text, BT_VOCAB_MAX - 1);
        if (bytes > BT_PIECE_BYTES_MAX)
            return BT_FAIL(err, BT_ERR_LIMIT, "token %lld has %zu bytes, the limit is %u",
                           (long long)json_integer_value(id), bytes, BT_PIECE_BYTES_MAX);
        if (bytes > bpe->token_bytes_max) bpe->token_bytes_max = (uint32_t)bytes;
        if (json_integer_value(id) >= bpe->token_count)
            bpe->token_count = (uint32_t)json_integer_value(id) + 1;
        total += bytes + 1;
    }
    *ret_spelling_bytes = total;
    return BT_OK;
}

static bt_status read_vocab(const json_t *vocab, bt_bpe *bpe, bt_err *err)
{
    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "model.vocab is not an object with tokens");
    size_t spelling_bytes = 0;
    bt_status status = measure_vocab(vocab, bpe, &spelling_bytes, err);
    if (status != BT_OK) return status;
    bpe->name_slots = slots_for(json_object_size(vocab));
    bpe->spellings = malloc(spelling_bytes);
    bpe->tokens = calloc(bpe->token_count, sizeof(bpe->tokens[0]));
    bpe->names = malloc(bpe->name_slots * sizeof(bpe->names[0]));
    if (bpe->spellings == NULL || bpe->tokens == NULL || bpe->names == NULL)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for %u tokens", bpe->token_count);
    memset(bpe->names, 0xFF, bpe->name_slots * sizeof(bpe->names[0]));

    const char *text;
    json_t *value;
    char *spelling = bpe->spellings;
    json_object_foreach((json_t *)vocab, text, value)
    {
        uint32_t id = (uint32_t)json_integer_value(value), bytes = (uint32_t)strlen(text);
        if (bpe->tokens[id].text != NULL)
            return BT_FAIL(err, BT_ERR_FORMAT, "two tokens have id %u", id);
        memcpy(spelling, text, bytes + 1);
        bpe->tokens[id] = (bt_token){spelling, bytes};
        bpe->names[name_slot(bpe, spelling, bytes)] = id;
        spelling += bytes + 1;
    }
    return BT_OK;
}

/* The two halves of a merge: ["a", "b"], or "a b" in older files. */
static bool split_merge(const json_t *merge, bt_token *ret_left, bt_token *ret_right)
{
    const char *whole = json_string_value(merge);
    if (whole != NULL) {
        const char *space = strchr(whole, ' ');
        if (space == NULL || strchr(space + 1, ' ') != NULL) return false;
        *ret_left = (bt_token){whole, (uint32_t)(space - whole)};
        *ret_right = (bt_token){space + 1, (uint32_t)strlen(space + 1)};
        return true;
    }
    const char *left = json_string_value(json_array_get(merge, 0));
    const char *right = json_string_value(json_array_get(merge, 1));
    if (json_array_size(merge) != 2 || left == NULL || right == NULL) return false;
    *ret_left = (bt_token){left, (uint32_t)strlen(left)};
    *ret_right = (bt_token){right, (uint32_t)strlen(right)};
    return true;
}

/* What a merge joins, if it is characters; neither half is empty then. */
static void add_joint(bt_token left, bt_token right, bt_bpe *bpe)
{
    uint32_t last = 0, first = 0, at = left.bytes;
    while (at > 0 && ((uint8_t)left.text[--at] & 0xC0) == 0x80) continue;
    if (bt_utf8_char(left.text + at, left.bytes - at, &last) == 0 ||
        bt_utf8_char(right.text, right.bytes, &first) == 0)
        return;
    uint64_t joint = (uint64_t)last << 32 | first;
    *joint_slot(bpe, joint) = joint;
}

static bt_status read_merge(const json_t *merge, uint32_t rank, bt_bpe *bpe, bt_err *err)
{
    bt_token left, right;
    if (!split_merge(merge, &left, &right))
        return BT_FAIL(err, BT_ERR_FORMAT, "merge %u is not a pair of tokens", rank);
    char whole[BT_PIECE_BYTES_MAX];
    uint32_t left_id = bt_bpe_find(bpe, left.text, left.bytes);
    uint32_t right_id = bt_bpe_find(bpe, right.text, right.bytes);
    uint32_t whole_id = BT_ID_NONE;
    if (left_id != BT_ID_NONE && right_id != BT_ID_NONE &&
        left.bytes + right.bytes <= sizeof(whole)) {
        memcpy(whole, left.text, left.bytes);
        memcpy(whole + left.bytes, right.text, right.bytes);
        whole_id = bt_bpe_find(bpe, whole, left.bytes + right.bytes);
    }
    if (whole_id == BT_ID_NONE)
        return BT_FAIL(err, BT_ERR_FORMAT, "merge %u has a token that is not in the vocabulary",
                       rank);
    if (!bpe->byte_level) add_joint(left, right, bpe);
    uint64_t key = (uint64_t)left_id << 32 | right_id;
    *merge_slot(bpe, key) = (bt_merge){key, rank, whole_id};
    return BT_OK;
}

static bt_status read_merges(const json_t *merges, bt_bpe *bpe, bt_err *err)
{
    if (!json_is_array(merges) || json_array_size(merges) > BT_VOCAB_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "model.merges is not a list of at most %u",
                       BT_VOCAB_MAX);
    bpe->merge_slots = slots_for(json_array_size(merges));
    bpe->merges = malloc(bpe->merge_slots * sizeof(bpe->merges[0]));
    bpe->joint_slots = bpe->byte_level ? 0 : bpe->merge_slots;
    if (!bpe->byte_level) bpe->joints = calloc(bpe->joint_slots, sizeof(bpe->joints[0]));
    if (bpe->merges == NULL || (!bpe->byte_level && bpe->joints == NULL))
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for %zu merges", json_array_size(merges));
    for (uint32_t i = 0; i < bpe->merge_slots; i++) bpe->merges[i] = (bt_merge){0, 0, BT_ID_NONE};
    for (uint32_t i = 0; i < json_array_size(merges); i++) {
        bt_status status = read_merge(json_array_get(merges, i), i, bpe, err);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

static void find_byte_ids(bt_bpe *bpe)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        char spelling[8];
        unsigned bytes = 6;
        const char digits[] = "0123456789ABCDEF";
        if (bpe->byte_level) {
            bytes = bt_utf8_encode(bt_byte_spelling((uint8_t)byte), spelling);
        } else {
            memcpy(spelling, "<0x00>", bytes);
            spelling[3] = digits[byte >> 4];
            spelling[4] = digits[byte & 15];
        }
        bpe->byte_ids[byte] = bt_bpe_find(bpe, spelling, bytes);
        spelling[0] = (char)byte;
        if (byte < 128) bpe->ascii_ids[byte] = bt_bpe_find(bpe, spelling, 1);
    }
}

static bt_status read_options(const json_t *model, bt_bpe *bpe, bt_err *err)
{
    const struct {
        const char *key;
        bool *value;
    } flags[] = {
        {"fuse_unk", &bpe->fuse_unknown},
        {"byte_fallback", &bpe->byte_fallback},
        {"ignore_merges", &bpe->ignore_merges},
    };
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        bt_status status = bt_json_flag(model, flags[i].key, false, flags[i].value, err);
        if (status != BT_OK) return status;
    }
    if (bpe->byte_fallback && bpe->byte_level)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "byte_fallback with ByteLevel is not supported");
    const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *affix = bt_json_member(model, affixes[i]);
        if (affix != NULL && json_string_length(affix) > 0)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "model.%s is not supported", affixes[i]);
    }
    const json_t *dropout = bt_json_member(model, "dropout");
    if (dropout != NULL && json_number_value(dropout) != 0.0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "model.dropout is not supported");
    return BT_OK;
}

bt_status bt_bpe_read(const json_t *model, bool byte_level, bt_bpe *ret_bpe, bt_err *err)
{
    *ret_bpe = (bt_bpe){.byte_level = byte_level, .unknown_id = BT_ID_NONE};
    const json_t *type = bt_json_member(model, "type");
    if (type != NULL && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "model type '%s' is not supported",
                       bt_json_show(json_is_string(type) ? json_string_value(type) : "?").text);
    bt_status status = bt_crypto_start(err);
    if (status != BT_OK) return status;
    bt_random_bytes(&ret_bpe->seed, sizeof(ret_bpe->seed));
    if ((status = read_options(model, ret_bpe, err)) != BT_OK) return status;
    status = read_vocab(bt_json_member(model, "vocab"), ret_bpe, err);
    if (status != BT_OK) return status;
    status = read_merges(bt_json_member(model, "merges"), ret_bpe, err);
    if (status != BT_OK) return status;
    find_byte_ids(ret_bpe);
    const json_t *unknown = bt_json_member(model, "unk_token");
    if (unknown == NULL) return BT_OK;
    if (json_is_string(unknown))
        ret_bpe->unknown_id =
            bt_bpe_find(ret_bpe, json_string_value(unknown), json_string_length(unknown));
    if (ret_bpe->unknown_id == BT_ID_NONE)
        return BT_FAIL(err, BT_ERR_FORMAT, "model.unk_token is not in the vocabulary");
    return BT_OK;
}

void bt_bpe_release(bt_bpe *bpe)
{
    free(bpe->spellings);
    free(bpe->tokens);
    free(bpe->names);
    free(bpe->merges);
    free(bpe->joints);
    *bpe = (bt_bpe){0};
}

/* ---- encoding ---- */

typedef struct {
    uint32_t id; /* BT_ID_NONE: merged into the symbol before it */
    int32_t prev, next;
} symbol;

typedef struct {
    uint64_t order; /* rank << 32 | position of the left symbol: the lowest goes first */
    uint32_t id;
} candidate;

typedef struct {
    symbol *symbols;
    uint32_t count;
    uint32_t count_max;
    candidate *heap;
    uint32_t heap_count;
    uint64_t steps;
} word_state;

static void add_symbol(word_state *word, uint32_t id)
{
    assert(word->count < word->count_max);
    int32_t at = (int32_t)word->count++;
    word->symbols[at] = (symbol){id, at - 1, at + 1};
}

static void push(word_state *word, candidate added)
{
    uint32_t at = word->heap_count++;
    assert(word->heap_count <= 3 * word->count_max);
    for (; at > 0 && word->heap[(at - 1) / 2].order > added.order; at = (at - 1) / 2) {
        word->heap[at] = word->heap[(at - 1) / 2];
        word->steps++;
    }
    word->heap[at] = added;
}

static candidate pop(word_state *word)
{
    candidate top = word->heap[0], last = word->heap[--word->heap_count];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= word->heap_count) break;
        if (child + 1 < word->heap_count && word->heap[child + 1].order < word->heap[child].order)
            child++;
        if (word->heap[child].order >= last.order) break;
        word->heap[at] = word->heap[child];
        at = child;
        word->steps++;
    }
    word->heap[at] = last;
    return top;
}

/* The merge of the symbol at left and the one after it, or a free slot. */
static const bt_merge *merge_at(const bt_bpe *bpe, const word_state *word, int32_t left)
{
    int32_t right = word->symbols[left].next;
    return merge_slot(bpe, (uint64_t)word->symbols[left].id << 32 | word->symbols[right].id);
}

static void consider(const bt_bpe *bpe, word_state *word, int32_t left)
{
    word->steps++;
    if (left < 0 || word->symbols[left].next >= (int32_t)word->count) return;
    const bt_merge *merge = merge_at(bpe, word, left);
    if (merge->id == BT_ID_NONE) return;
    push(word, (candidate){(uint64_t)merge->rank << 32 | (uint32_t)left, merge->id});
}

static void merge_symbols(const bt_bpe *bpe, word_state *word)
{
    for (uint32_t i = 0; i + 1 < word->count; i++) consider(bpe, word, (int32_t)i);
    while (word->heap_count > 0) {
        candidate best = pop(word);
        int32_t left = (int32_t)(uint32_t)best.order;
        symbol *s = &word->symbols[left];
        if (s->id == BT_ID_NONE || s->next >= (int32_t)word->count) continue;
        if (merge_at(bpe, word, left)->id != best.id) continue; /* a side has changed since */
        symbol *right = &word->symbols[s->next];
        s->id = best.id;
        s->next = right->next;
        right->id = BT_ID_NONE;
        if (s->next < (int32_t)word->count) word->symbols[s->next].prev = left;
        consider(bpe, word, s->prev);
        consider(bpe, word, left);
    }
}

static uint32_t character_id(const bt_bpe *bpe, const char *text, size_t bytes)
{
    return bytes == 1 ? bpe->ascii_ids[(uint8_t)text[0]] : bt_bpe_find(bpe, text, bytes);
}

/* True if each byte of a character has its own token. */
static bool falls_back(const bt_bpe *bpe, const char *text, unsigned bytes)
{
    if (!bpe->byte_fallback) return false;
    for (unsigned i = 0; i < bytes; i++)
        if (bpe->byte_ids[(uint8_t)text[i]] == BT_ID_NONE) return false;
    return true;
}

/* Splits the word into what merging begins with: the token of each byte or character, byte tokens,
 * or the unknown token. Without an unknown token, unknown characters are dropped. */
static void split_symbols(const bt_bpe *bpe, const char *text, size_t bytes, word_state *word)
{
    bool waiting = false; /* an unknown token that the next unknown character may join */
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        size_t length = bpe->byte_level ? 1 : bt_utf8_char(text + at, bytes - at, &code);
        assert(length > 0);
        uint32_t id = bpe->byte_level ? bpe->byte_ids[(uint8_t)text[at]]
                                      : character_id(bpe, text + at, length);
        word->steps++;
        if (id != BT_ID_NONE) {
            if (waiting) add_symbol(word, bpe->unknown_id);
            waiting = false;
            add_symbol(word, id);
        } else if (falls_back(bpe, text + at, length)) {
            for (unsigned i = 0; i < length; i++)
                add_symbol(word, bpe->byte_ids[(uint8_t)text[at + i]]);
        } else if (bpe->unknown_id != BT_ID_NONE) {
            if (waiting && !bpe->fuse_unknown) add_symbol(word, bpe->unknown_id);
            waiting = true;
        }
        at += length;
    }
    if (waiting) add_symbol(word, bpe->unknown_id);
}

static bt_status add_id(bt_tokens *tokens, uint32_t id, bt_err *err)
{
    if (tokens->count == tokens->capacity)
        return BT_FAIL(err, BT_ERR_LIMIT, "the text has more than %zu tokens", tokens->capacity);
    tokens->ids[tokens->count++] = id;
    return BT_OK;
}

/* The id of a whole word, for ignore_merges. */
static uint32_t find_whole(const bt_bpe *bpe, const char *word, size_t bytes)
{
    if (bytes > bpe->token_bytes_max) return BT_ID_NONE;
    if (!bpe->byte_level) return bt_bpe_find(bpe, word, bytes);
    char spelling[2 * BT_PIECE_BYTES_MAX];
    size_t at = 0;
    for (size_t i = 0; i < bytes; i++)
        at += bt_utf8_encode(bt_byte_spelling((uint8_t)word[i]), spelling + at);
    return bt_bpe_find(bpe, spelling, at);
}

static bt_status encode_in(const bt_bpe *bpe, const char *text, size_t bytes, word_state *word,
                           bt_tokens *tokens, bt_err *err)
{
    split_symbols(bpe, text, bytes, word);
    merge_symbols(bpe, word);
    tokens->steps += word->steps;
    bt_status status = BT_OK;
    for (int32_t at = 0; at < (int32_t)word->count && status == BT_OK; at = word->symbols[at].next)
        status = add_id(tokens, word->symbols[at].id, err);
    return status;
}

static bt_status encode_part(const bt_bpe *bpe, const char *word, size_t bytes, bt_tokens *tokens,
                             bt_err *err)
{
    if (bytes <= SHORT_WORD_SYMBOLS) {
        symbol symbols[SHORT_WORD_SYMBOLS];
        candidate heap[3 * SHORT_WORD_SYMBOLS];
        word_state state = {.symbols = symbols, .count_max = SHORT_WORD_SYMBOLS, .heap = heap};
        return encode_in(bpe, word, bytes, &state, tokens, err);
    }
    /* A byte is one symbol at most. */
    word_state state = {.count_max = (uint32_t)bytes};
    state.symbols = malloc(bytes * sizeof(symbol));
    state.heap = malloc(3 * bytes * sizeof(candidate));
    bt_status status = BT_OK;
    if (state.symbols == NULL || state.heap == NULL)
        status = BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for a word of %zu bytes", bytes);
    else
        status = encode_in(bpe, word, bytes, &state, tokens, err);
    free(state.symbols);
    free(state.heap);
    return status;
}

/* Where the part ends that begins at `at`: before a character that no merge joins to the one before
 * it, both being tokens (an unknown one may be fused with its neighbour). */
static size_t part_end(const bt_bpe *bpe, const char *word, size_t bytes, size_t at)
{
    uint32_t before = 0, code = 0;
    bool known_before = false;
    for (size_t length; at < bytes; at += length) {
        length = bt_utf8_char(word + at, bytes - at, &code);
        assert(length > 0);
        bool known = character_id(bpe, word + at, length) != BT_ID_NONE;
        uint64_t joint = (uint64_t)before << 32 | code;
        if (known && known_before && *joint_slot(bpe, joint) == 0) return at;
        known_before = known;
        before = code;
    }
    return bytes;
}

bt_status bt_bpe_encode(const bt_bpe *bpe, const char *word, size_t bytes, bt_tokens *tokens,
                        bt_err *err)
{
    assert(bytes <= INT32_MAX / 4);
    if (bpe->ignore_merges) {
        uint32_t id = find_whole(bpe, word, bytes);
        if (id != BT_ID_NONE) return add_id(tokens, id, err);
    }
    if (bpe->byte_level) return encode_part(bpe, word, bytes, tokens, err);
    bt_status status = BT_OK;
    for (size_t at = 0, end; at < bytes && status == BT_OK; at = end) {
        end = part_end(bpe, word, bytes, at);
        status = encode_part(bpe, word + at, end - at, tokens, err);
    }
    return status;
}
