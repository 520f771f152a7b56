#include "common/text/tokenizer.h"

#include "common/base/limits.h"
#include "common/base/utf8.h"
#include "common/text/added.h"
#include "common/text/bpe.h"
#include "common/text/decoder.h"
#include "common/text/normalizer.h"
#include "common/text/postprocessor.h"
#include "common/text/pretokenizer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Marks between JSON values that a tokenizer of the largest vocabulary can have; more is refused
 * before the JSON parser turns them into objects of some 100 bytes each. */
#define JSON_MARKS_MAX (8u << 20)

typedef struct {
    const char *text;  /* spelling; points into bpe or added */
    const char *shown; /* what is decoded, as Hugging Face has it: of an added token that is looked
                        * for in normalized text, the normalized spelling */
    uint32_t bytes;
    uint32_t shown_bytes;
    uint32_t piece_bytes;
    uint64_t piece_at; /* in pieces */
    bool special;
} token_entry;

struct bt_tokenizer {
    bt_steps normalizer;
    bt_pretokenizer pretokenizer;
    bt_bpe bpe;
    bt_decoder decoder;
    bt_postprocessor postprocessor;
    bt_added raw;         /* added tokens found in the text as given */
    bt_added normalized;  /* … and in the normalized text */
    char *added_text;     /* spellings of the added tokens */
    token_entry *entries; /* by id */
    uint32_t vocab;
    bt_buffer pieces;
};

/* ---- opening ---- */

/* Grows the table of ids to hold id. */
static bt_status reserve_id(bt_tokenizer *tok, uint32_t id, bt_err *err)
{
    if (id < tok->vocab) return BT_OK;
    token_entry *grown = realloc(tok->entries, ((size_t)id + 1) * sizeof(*grown));
    if (grown == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for %u tokens", id);
    memset(grown + tok->vocab, 0, ((size_t)id + 1 - tok->vocab) * sizeof(*grown));
    tok->entries = grown;
    tok->vocab = id + 1;
    return BT_OK;
}

static bt_status enter_bpe(bt_tokenizer *tok, bt_err *err)
{
    bt_status status = reserve_id(tok, tok->bpe.token_count - 1, err);
    if (status != BT_OK) return status;
    for (uint32_t id = 0; id < tok->bpe.token_count; id++) {
        tok->entries[id].text = tok->bpe.tokens[id].text;
        tok->entries[id].bytes = tok->bpe.tokens[id].bytes;
        tok->entries[id].shown = tok->entries[id].text;
        tok->entries[id].shown_bytes = tok->entries[id].bytes;
    }
    return BT_OK;
}

/* Puts an added token among those to look for; one that is looked for in normalized text is itself
 * normalized first. */
static bt_status enter_pattern(bt_tokenizer *tok, bt_added_token token, bool normalized,
                               bt_err *err)
{
    if (!normalized) return bt_added_add(&tok->raw, token, err);
    bt_buffer text = {0};
    bt_status status = bt_steps_run(&tok->normalizer, token.pattern, NULL, token.bytes, &text, err);
    if (status != BT_OK) return status;
    token.pattern = text.data;
    token.bytes = (uint32_t)text.bytes;
    if (text.bytes > 0 && text.bytes <= BT_ADDED_BYTES_MAX)
        status = bt_added_add(&tok->normalized, token, err);
    else
        status = BT_FAIL(err, BT_ERR_LIMIT, "an added token is empty or too long when normalized");
    if (status == BT_OK) {
        tok->entries[token.id].shown = tok->normalized.tokens[tok->normalized.count - 1].pattern;
        tok->entries[token.id].shown_bytes = token.bytes;
    }
    bt_buffer_release(&text);
    return status;
}

static bt_status read_added_flags(const json_t *item, bt_added_token *token, bool *ret_normalized,
                                  bt_err *err)
{
    *ret_normalized = true;
    const struct {
        const char *key;
        bool *value;
    } flags[] = {
        {"special", &token->special},    {"lstrip", &token->takes_left},
        {"rstrip", &token->takes_right}, {"single_word", &token->alone},
        {"normalized", ret_normalized},
    };
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        bt_status status = bt_json_flag(item, flags[i].key, *flags[i].value, flags[i].value, err);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

static bt_status enter_added(bt_tokenizer *tok, const json_t *item, char *copy, bt_err *err)
{
    const json_t *content = bt_json_member(item, "content"), *id = bt_json_member(item, "id");
    size_t bytes = json_string_length(content);
    if (bytes == 0 || bytes > BT_ADDED_BYTES_MAX || !json_is_integer(id) ||
        json_integer_value(id) < 0 || json_integer_value(id) >= BT_VOCAB_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT,
                       "an added token has no content of 1 to %u bytes or no id below %u",
                       BT_ADDED_BYTES_MAX, BT_VOCAB_MAX);
    memcpy(copy, json_string_value(content), bytes + 1);
    bt_added_token token = {
        .pattern = copy, .bytes = (uint32_t)bytes, .id = (uint32_t)json_integer_value(id)};
    bool normalized;
    bt_status status = read_added_flags(item, &token, &normalized, err);
    if (status == BT_OK) status = reserve_id(tok, token.id, err);
    if (status != BT_OK) return status;
    token_entry *entry = &tok->entries[token.id];
    if (entry->text != NULL && (entry->bytes != bytes || memcmp(entry->text, copy, bytes) != 0))
        return BT_FAIL(err, BT_ERR_FORMAT, "added token '%s' has the id of another token",
                       bt_json_show(copy).text);
    entry->text = copy;
    entry->shown = copy;
    entry->bytes = entry->shown_bytes = (uint32_t)bytes;
    entry->special = token.special;
    return enter_pattern(tok, token, normalized, err);
}

static bt_status read_added(bt_tokenizer *tok, const json_t *list, bt_err *err)
{
    size_t room = 1, at = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        room += json_string_length(bt_json_member(json_array_get(list, i), "content")) + 1;
    tok->added_text = malloc(room);
    if (tok->added_text == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for tokens");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        bt_status status = enter_added(tok, item, tok->added_text + at, err);
        if (status != BT_OK) return status;
        at += json_string_length(bt_json_member(item, "content")) + 1;
    }
    bt_added_sort(&tok->raw);
    bt_added_sort(&tok->normalized);
    return BT_OK;
}

/* Decodes every token once, into one block. */
static bt_status make_pieces(bt_tokenizer *tok, bt_err *err)
{
    for (uint32_t id = 0; id < tok->vocab; id++) {
        token_entry *entry = &tok->entries[id];
        if (entry->text == NULL) continue;
        bt_buffer piece = {0};
        bt_status status =
            bt_decoder_piece(&tok->decoder, entry->shown, entry->shown_bytes, &piece, err);
        if (status != BT_OK) return status;
        entry->piece_at = tok->pieces.bytes;
        entry->piece_bytes = (uint32_t)piece.bytes;
        if (piece.bytes > BT_PIECE_BYTES_MAX)
            status = BT_FAIL(err, BT_ERR_LIMIT, "token %u stands for %zu bytes, the limit is %u",
                             id, piece.bytes, BT_PIECE_BYTES_MAX);
        else
            status = bt_buffer_add(&tok->pieces, piece.data, piece.bytes, err);
        bt_buffer_release(&piece);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

static bt_status check_around(const bt_tokenizer *tok, bt_err *err)
{
    const bt_postprocessor *p = &tok->postprocessor;
    for (uint32_t i = 0; i < p->before_count + p->after_count; i++) {
        uint32_t id = i < p->before_count ? p->before[i] : p->after[i - p->before_count];
        if (id >= tok->vocab || tok->entries[id].text == NULL)
            return BT_FAIL(err, BT_ERR_FORMAT, "the template adds id %u, which is no token", id);
    }
    return BT_OK;
}

static bt_status read_stages(bt_tokenizer *tok, const json_t *root, bt_err *err)
{
    bt_status status =
        bt_normalizer_read(bt_json_member(root, "normalizer"), &tok->normalizer, err);
    if (status != BT_OK) return status;
    status = bt_pretokenizer_read(bt_json_member(root, "pre_tokenizer"), &tok->pretokenizer, err);
    if (status != BT_OK) return status;
    status = bt_decoder_read(bt_json_member(root, "decoder"), &tok->decoder, err);
    if (status != BT_OK) return status;
    status =
        bt_postprocessor_read(bt_json_member(root, "post_processor"), &tok->postprocessor, err);
    if (status != BT_OK) return status;
    status =
        bt_bpe_read(bt_json_member(root, "model"), tok->pretokenizer.byte_level, &tok->bpe, err);
    if (status != BT_OK) return status;
    if ((status = enter_bpe(tok, err)) != BT_OK) return status;
    status = read_added(tok, bt_json_member(root, "added_tokens"), err);
    if (status != BT_OK) return status;
    if ((status = check_around(tok, err)) != BT_OK) return status;
    return make_pieces(tok, err);
}

static bt_status load_json(const char *json, size_t bytes, json_t **ret_root, bt_err *err)
{
    size_t marks = 0;
    if (bytes > BT_TOKENIZER_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "has %zu bytes, the limit is %u", bytes,
                       BT_TOKENIZER_BYTES_MAX);
    for (size_t i = 0; i < bytes; i++)
        marks += json[i] == ',' || json[i] == '[' || json[i] == '{' || json[i] == ':';
    if (marks > JSON_MARKS_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "has more values than %u tokens need", BT_VOCAB_MAX);
    json_error_t problem;
    json_t *root = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &problem);
    if (root == NULL)
        return BT_FAIL(err, BT_ERR_FORMAT, "line %d: %s", problem.line,
                       bt_json_show(problem.text).text);
    if (!json_is_object(root)) {
        json_decref(root);
        return BT_FAIL(err, BT_ERR_FORMAT, "is not a JSON object");
    }
    *ret_root = root;
    return BT_OK;
}

/* Puts the file's name before a message of the stages, which do not know it. */
static bt_status name_file(const char *label, bt_err *err)
{
    if (err == NULL) return BT_ERR_FORMAT;
    size_t label_bytes = strlen(label);
    const char *tail = label_bytes > 60 ? label + label_bytes - 60 : label;
    bt_err cause = *err;
    bt_err_set(err, cause.status, cause.where, "%s: %s", bt_json_show(tail).text, cause.message);
    err->os_errno = cause.os_errno;
    return err->status;
}

bt_status bt_tokenizer_parse(const char *json, size_t bytes, const char *label,
                             bt_tokenizer **ret_tokenizer, bt_err *err)
{
    bt_err detail;
    json_t *root = NULL;
    bt_tokenizer *tok = calloc(1, sizeof(*tok));
    bt_status status = BT_OK;
    if (tok == NULL)
        status = BT_FAIL(&detail, BT_ERR_NO_MEMORY, "no memory");
    else
        status = load_json(json, bytes, &root, &detail);
    if (status == BT_OK) status = read_stages(tok, root, &detail);
    json_decref(root);
    if (status != BT_OK) {
        bt_tokenizer_close(tok);
        status = name_file(label, &detail);
        if (err != NULL) *err = detail;
        return status;
    }
    *ret_tokenizer = tok;
    return BT_OK;
}

static bt_status read_all(int fd, const char *path, char **ret_data, size_t *ret_bytes, bt_err *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return BT_FAIL(err, BT_ERR_OS, "%s: is not a regular file", bt_json_show(path).text);
    if (st.st_size > (off_t)BT_TOKENIZER_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "%s: has more than %u bytes", bt_json_show(path).text,
                       BT_TOKENIZER_BYTES_MAX);
    size_t bytes = (size_t)st.st_size, at = 0;
    char *data = malloc(bytes + 1);
    if (data == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for %zu bytes", bytes);
    while (at < bytes) {
        ssize_t got = read(fd, data + at, bytes - at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            free(data);
            return BT_FAIL(err, BT_ERR_OS, "%s: cannot read: %m", bt_json_show(path).text);
        }
        at += (size_t)got;
    }
    *ret_data = data;
    *ret_bytes = bytes;
    return BT_OK;
}

bt_status bt_tokenizer_open(const char *path, bt_tokenizer **ret_tokenizer, bt_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        int saved = errno;
        bt_status status = BT_FAIL(err, BT_ERR_OS, "%s: cannot open: %s", bt_json_show(path).text,
                                   strerror(saved));
        if (err != NULL) err->os_errno = saved;
        return status;
    }
    char *data = NULL;
    size_t bytes = 0;
    bt_status status = read_all(fd, path, &data, &bytes, err);
    close(fd);
    if (status != BT_OK) return status;
    status = bt_tokenizer_parse(data, bytes, path, ret_tokenizer, err);
    free(data);
    return status;
}

void bt_tokenizer_close(bt_tokenizer *tok)
{
    if (tok == NULL) return;
    bt_bpe_release(&tok->bpe);
    bt_added_release(&tok->raw);
    bt_added_release(&tok->normalized);
    bt_buffer_release(&tok->pieces);
    free(tok->added_text);
    free(tok->entries);
    free(tok);
}

/* ---- encoding ---- */

typedef struct {
    const bt_tokenizer *tok;
    bt_tokens *tokens;
    uint32_t flags;
} encoding;

static bt_status add_id(bt_tokens *tokens, uint32_t id, bt_err *err)
{
    if (tokens->count == tokens->capacity)
        return BT_FAIL(err, BT_ERR_LIMIT, "the text has more than %zu tokens", tokens->capacity);
    tokens->ids[tokens->count++] = id;
    return BT_OK;
}

static bt_status encode_word(void *context, bt_span word, bt_err *err)
{
    encoding *e = context;
    return bt_bpe_encode(&e->tok->bpe, word.text, word.bytes, e->tokens, err);
}

static bt_status encode_plain(encoding *e, bt_span span, bt_err *err)
{
    bt_word_sink sink = {encode_word, e, 0};
    bt_status status = bt_pretokenizer_run(&e->tok->pretokenizer, span, &sink, err);
    e->tokens->steps += sink.steps;
    return status;
}

typedef bt_status (*encode_fn)(encoding *e, bt_span span, bt_err *err);

/* Cuts the span at the added tokens; what lies between goes on to rest. */
static bt_status encode_between(encoding *e, const bt_added *added, bt_span span, encode_fn rest,
                                bt_err *err)
{
    bt_added_search search = {.added = added,
                              .text = span.text,
                              .marks = span.marks,
                              .bytes = span.bytes,
                              .special = (e->flags & BT_ENCODE_SPECIAL) != 0};
    bt_added_match match = {0};
    bt_status status = BT_OK;
    do {
        size_t taken = match.end;
        match = bt_added_next(&search, taken);
        if (match.begin > taken) {
            bt_span plain = {span.text + taken, match.begin - taken, span.first && taken == 0,
                             span.marks != NULL ? span.marks + taken : NULL};
            status = rest(e, plain, err);
        }
        if (status == BT_OK && match.token != NULL)
            status = add_id(e->tokens, match.token->id, err);
    } while (status == BT_OK && match.token != NULL);
    e->tokens->steps += search.steps;
    return status;
}

static bt_status encode_normalized(encoding *e, bt_span span, bt_err *err)
{
    return encode_between(e, &e->tok->normalized, span, encode_plain, err);
}

static bt_status encode_raw(encoding *e, bt_span span, bt_err *err)
{
    if (e->tok->normalizer.count == 0) return encode_normalized(e, span, err);
    bt_buffer text = {0};
    bt_status status =
        bt_steps_run(&e->tok->normalizer, span.text, span.marks, span.bytes, &text, err);
    if (status != BT_OK) return status;
    e->tokens->steps += span.bytes;
    bt_span normalized = {text.data, text.bytes, span.first, text.marks};
    status = encode_normalized(e, normalized, err);
    bt_buffer_release(&text);
    return status;
}

static bt_status add_ids(bt_tokens *tokens, const uint32_t *ids, uint32_t count, bt_err *err)
{
    bt_status status = BT_OK;
    for (uint32_t i = 0; i < count && status == BT_OK; i++) status = add_id(tokens, ids[i], err);
    return status;
}

/* A mark for each byte of the text: 1 in the ranges. NULL if there is none to set. */
static bt_status make_marks(const bt_text_range *plain, size_t count, size_t bytes,
                            uint8_t **ret_marks, bt_err *err)
{
    *ret_marks = NULL;
    size_t marked = 0, at = 0;
    for (size_t i = 0; i < count; i++) {
        if (plain[i].first < at || plain[i].end < plain[i].first || plain[i].end > bytes)
            return BT_FAIL(err, BT_ERR_ARGUMENT,
                           "plain range %zu, bytes %zu to %zu, is out of order or beyond the "
                           "text's %zu bytes",
                           i, plain[i].first, plain[i].end, bytes);
        at = plain[i].end;
        marked += plain[i].end - plain[i].first;
    }
    if (marked == 0) return BT_OK;
    uint8_t *marks = calloc(bytes, 1);
    if (marks == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for %zu bytes", bytes);
    for (size_t i = 0; i < count; i++)
        memset(marks + plain[i].first, 1, plain[i].end - plain[i].first);
    *ret_marks = marks;
    return BT_OK;
}

bt_status bt_tokenizer_encode_marked(const bt_tokenizer *tok, const char *text, size_t bytes,
                                     const bt_text_range *plain, size_t plain_count, uint32_t flags,
                                     bt_tokens *tokens, bt_err *err)
{
    tokens->count = 0;
    tokens->steps = 0;
    if (bytes > BT_TEXT_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "the text has %zu bytes, the limit is %u", bytes,
                       BT_TEXT_BYTES_MAX);
    if (!bt_utf8_valid(text, bytes))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "the text is not valid UTF-8");
    uint8_t *marks;
    bt_status status = make_marks(plain, plain_count, bytes, &marks, err);
    if (status != BT_OK) return status;
    encoding e = {tok, tokens, flags};
    const bt_postprocessor *around = &tok->postprocessor;
    bool bare = (flags & BT_ENCODE_BARE) != 0;
    if (!bare) status = add_ids(tokens, around->before, around->before_count, err);
    if (status == BT_OK)
        status =
            encode_between(&e, &tok->raw, (bt_span){text, bytes, true, marks}, encode_raw, err);
    if (status == BT_OK && !bare) status = add_ids(tokens, around->after, around->after_count, err);
    free(marks);
    return status;
}

bt_status bt_tokenizer_encode(const bt_tokenizer *tok, const char *text, size_t bytes,
                              uint32_t flags, bt_tokens *tokens, bt_err *err)
{
    return bt_tokenizer_encode_marked(tok, text, bytes, NULL, 0, flags, tokens, err);
}

/* ---- looking up ---- */

uint32_t bt_tokenizer_vocab(const bt_tokenizer *tok)
{
    return tok->vocab;
}

bool bt_tokenizer_special(const bt_tokenizer *tok, uint32_t id)
{
    return id < tok->vocab && tok->entries[id].special;
}

uint32_t bt_tokenizer_id(const bt_tokenizer *tok, const char *token, size_t bytes)
{
    uint32_t id = bt_bpe_find(&tok->bpe, token, bytes);
    if (id != BT_ID_NONE) return id;
    for (uint32_t i = 0; i < tok->raw.count + tok->normalized.count; i++) {
        id = i < tok->raw.count ? tok->raw.tokens[i].id
                                : tok->normalized.tokens[i - tok->raw.count].id;
        const token_entry *entry = &tok->entries[id];
        if (entry->bytes == bytes && memcmp(entry->text, token, bytes) == 0) return id;
    }
    return BT_ID_NONE;
}

const char *bt_tokenizer_spelling(const bt_tokenizer *tok, uint32_t id, size_t *ret_bytes)
{
    *ret_bytes = id < tok->vocab ? tok->entries[id].bytes : 0;
    return id < tok->vocab ? tok->entries[id].text : NULL;
}

const char *bt_tokenizer_piece(const bt_tokenizer *tok, uint32_t id, size_t *ret_bytes)
{
    *ret_bytes = 0;
    if (id >= tok->vocab || tok->entries[id].text == NULL) return NULL;
    *ret_bytes = tok->entries[id].piece_bytes;
    return tok->pieces.data != NULL ? tok->pieces.data + tok->entries[id].piece_at : "";
}

bt_text_start bt_tokenizer_text_start(const bt_tokenizer *tok)
{
    return tok->decoder.start;
}
