#include "common/text/pretokenizer.h"

#include "common/base/utf8.h"
#include "common/text/unicode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef struct bt_pretokenizer_step step_t;

/* A span on its way through the steps after `step`. */
typedef struct {
    const bt_pretokenizer *pretokenizer;
    uint32_t step;
    bt_word_sink *sink;
} route;

struct bt_pretokenizer_kind {
    const char *type;
    bt_status (*read)(const json_t *stage, bt_pretokenizer *pretokenizer, step_t *step,
                      bt_err *err);
    bt_status (*run)(const step_t *step, bt_span span, const route *next, bt_err *err);
};

static bt_status run_from(const route *at, bt_span span, bt_err *err)
{
    if (span.bytes == 0) return BT_OK;
    if (at->step == at->pretokenizer->count) return at->sink->word(at->sink->context, span, err);
    const step_t *step = &at->pretokenizer->steps[at->step];
    route next = {at->pretokenizer, at->step + 1, at->sink};
    return step->kind->run(step, span, &next, err);
}

/* A copy of the span with a prefix and with every space replaced (NULL: kept). */
static bt_status rewrite(bt_span span, const char *prefix, const char *space, char **ret_text,
                         size_t *ret_bytes, bt_err *err)
{
    size_t space_bytes = space != NULL ? strlen(space) : 1, spaces = 0, at = strlen(prefix);
    for (size_t i = 0; i < span.bytes; i++) spaces += span.text[i] == ' ';
    char *text = malloc(at + span.bytes - spaces + spaces * space_bytes + 1);
    if (text == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for %zu bytes", span.bytes);
    memcpy(text, prefix, at);
    for (size_t i = 0; i < span.bytes; i++) {
        if (span.text[i] == ' ' && space != NULL) {
            memcpy(text + at, space, space_bytes);
            at += space_bytes;
        } else {
            text[at++] = span.text[i];
        }
    }
    *ret_text = text;
    *ret_bytes = at;
    return BT_OK;
}

/* ---- ByteLevel: the GPT-2 pattern
 *   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+             ---- */

/* The span being cut: the class and the end of the character at a position. */
typedef struct {
    const char *text;
    size_t bytes;
    uint64_t steps;
} scanner;

static bt_char_class class_at(scanner *s, size_t at, size_t *ret_end)
{
    uint32_t code = 0;
    size_t length = bt_utf8_char(s->text + at, s->bytes - at, &code);
    assert(length > 0);
    s->steps++;
    *ret_end = at + length;
    return bt_char_class_of(code);
}

/* Bytes of 's, 't, 're, 've, 'm, 'll or 'd at this position, or 0. */
static size_t contraction_at(const scanner *s, size_t at)
{
    const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    if (s->text[at] != '\'') return 0;
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        size_t bytes = strlen(endings[i]);
        if (s->bytes - at - 1 >= bytes && memcmp(s->text + at + 1, endings[i], bytes) == 0)
            return 1 + bytes;
    }
    return 0;
}

static size_t end_of_run(scanner *s, size_t at, bt_char_class class)
{
    size_t end;
    while (at < s->bytes && class_at(s, at, &end) == class) at = end;
    return at;
}

/* White space up to the last one before something else, which a word may want as its own. */
static size_t end_of_spaces(scanner *s, size_t at)
{
    size_t last = at, end = at, next;
    while (end < s->bytes && class_at(s, end, &next) == BT_CHAR_SPACE) {
        last = end;
        end = next;
    }
    return end < s->bytes && last > at ? last : end;
}

static size_t gpt2_word_end(scanner *s, size_t at)
{
    size_t contraction = contraction_at(s, at);
    if (contraction > 0) return at + contraction;
    size_t end, second;
    bt_char_class class = class_at(s, at, &end);
    if (class != BT_CHAR_SPACE) return end_of_run(s, end, class);
    if (s->text[at] == ' ' && end < s->bytes) {
        class = class_at(s, end, &second);
        if (class != BT_CHAR_SPACE) return end_of_run(s, second, class);
    }
    return end_of_spaces(s, at);
}

static bt_status read_byte_level(const json_t *stage, bt_pretokenizer *pretokenizer, step_t *step,
                                 bt_err *err)
{
    bool prefix = true;
    bt_status status = bt_json_flag(stage, "add_prefix_space", true, &prefix, err);
    if (status != BT_OK) return status;
    step->prepend = prefix ? BT_PREPEND_ALWAYS : BT_PREPEND_NEVER;
    pretokenizer->byte_level = true;
    return bt_json_flag(stage, "use_regex", true, &step->split, err);
}

static bt_status cut_byte_level(const step_t *step, bt_span span, const route *next, bt_err *err)
{
    if (!step->split) return run_from(next, span, err);
    scanner s = {span.text, span.bytes, 0};
    bt_status status = BT_OK;
    for (size_t at = 0, end; at < span.bytes && status == BT_OK; at = end) {
        end = gpt2_word_end(&s, at);
        bt_span word = {.text = span.text + at, .bytes = end - at, .first = span.first && at == 0};
        status = run_from(next, word, err);
    }
    next->sink->steps += s.steps;
    return status;
}

static bt_status run_byte_level(const step_t *step, bt_span span, const route *next, bt_err *err)
{
    if (step->prepend == BT_PREPEND_NEVER || span.text[0] == ' ')
        return cut_byte_level(step, span, next, err);
    char *text;
    size_t bytes;
    bt_status status = rewrite(span, " ", NULL, &text, &bytes, err);
    if (status != BT_OK) return status;
    status = cut_byte_level(step, (bt_span){.text = text, .bytes = bytes, .first = span.first},
                            next, err);
    free(text);
    return status;
}

/* ---- Metaspace: spaces become a visible mark, and a word begins at each mark ---- */

bt_status bt_prepend_read(const json_t *stage, bt_prepend *ret_prepend, bt_err *err)
{
    bool prefix = true;
    bt_status status = bt_json_flag(stage, "add_prefix_space", true, &prefix, err);
    if (status != BT_OK) return status;
    const json_t *scheme = bt_json_member(stage, "prepend_scheme");
    const char *name = json_string_value(scheme);
    *ret_prepend = prefix ? BT_PREPEND_ALWAYS : BT_PREPEND_NEVER;
    if (scheme == NULL) return BT_OK;
    if (name != NULL && strcmp(name, "always") == 0)
        *ret_prepend = BT_PREPEND_ALWAYS;
    else if (name != NULL && strcmp(name, "first") == 0)
        *ret_prepend = BT_PREPEND_FIRST;
    else if (name != NULL && strcmp(name, "never") == 0)
        *ret_prepend = BT_PREPEND_NEVER;
    else
        return BT_FAIL(err, BT_ERR_ARGUMENT, "prepend_scheme '%s' is not supported",
                       bt_json_show(name != NULL ? name : "(no string)").text);
    return BT_OK;
}

static bt_status read_metaspace(const json_t *stage, bt_pretokenizer *pretokenizer, step_t *step,
                                bt_err *err)
{
    (void)pretokenizer;
    const char *replacement;
    bt_status status = bt_json_member_text(stage, "replacement", &replacement, err);
    if (status != BT_OK) return status;
    strcpy(step->replacement, replacement);
    status = bt_prepend_read(stage, &step->prepend, err);
    if (status != BT_OK) return status;
    return bt_json_flag(stage, "split", true, &step->split, err);
}

static bt_status cut_metaspace(const step_t *step, bt_span span, const route *next, bt_err *err)
{
    if (!step->split) return run_from(next, span, err);
    size_t mark_bytes = strlen(step->replacement), at = 0;
    while (at < span.bytes) {
        size_t from = at + 1; /* the mark at `at` itself belongs to this word */
        const char *mark =
            memmem(span.text + from, span.bytes - from, step->replacement, mark_bytes);
        size_t end = mark != NULL ? (size_t)(mark - span.text) : span.bytes;
        bt_span word = {.text = span.text + at, .bytes = end - at, .first = span.first && at == 0};
        bt_status status = run_from(next, word, err);
        if (status != BT_OK) return status;
        next->sink->steps += end - at;
        at = end;
    }
    return BT_OK;
}

static bt_status run_metaspace(const step_t *step, bt_span span, const route *next, bt_err *err)
{
    size_t mark_bytes = strlen(step->replacement);
    bool marked = span.text[0] == ' ' || (span.bytes >= mark_bytes &&
                                          memcmp(span.text, step->replacement, mark_bytes) == 0);
    bool wanted =
        step->prepend == BT_PREPEND_ALWAYS || (step->prepend == BT_PREPEND_FIRST && span.first);
    char *text;
    size_t bytes;
    bt_status status = rewrite(span, wanted && !marked ? step->replacement : "", step->replacement,
                               &text, &bytes, err);
    if (status != BT_OK) return status;
    status = cut_metaspace(step, (bt_span){.text = text, .bytes = bytes, .first = span.first}, next,
                           err);
    free(text);
    return status;
}

static const bt_pretokenizer_kind kinds[] = {
    {"ByteLevel", read_byte_level, run_byte_level},
    {"Metaspace", read_metaspace, run_metaspace},
};

static bt_status add_step(const json_t *stage, void *context, bt_err *err)
{
    bt_pretokenizer *pretokenizer = context;
    const char *type;
    bt_status status = bt_json_type(stage, "pre-tokenizer", &type, err);
    if (status != BT_OK) return status;
    if (pretokenizer->count == BT_STAGE_STEPS_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "more than %u pre-tokenizers", BT_STAGE_STEPS_MAX);
    if (pretokenizer->byte_level)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "pre-tokenizer '%s' after ByteLevel is not supported",
                       bt_json_show(type).text);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].type, type) != 0) continue;
        step_t *step = &pretokenizer->steps[pretokenizer->count++];
        step->kind = &kinds[i];
        return kinds[i].read(stage, pretokenizer, step, err);
    }
    return BT_FAIL(err, BT_ERR_ARGUMENT, "pre-tokenizer '%s' is not supported",
                   bt_json_show(type).text);
}

bt_status bt_pretokenizer_read(const json_t *stage, bt_pretokenizer *ret_pretokenizer, bt_err *err)
{
    *ret_pretokenizer = (bt_pretokenizer){0};
    if (stage == NULL) return BT_OK;
    return bt_json_stages(stage, "pre-tokenizer", "pretokenizers", add_step, ret_pretokenizer, err);
}

bt_status bt_pretokenizer_run(const bt_pretokenizer *pretokenizer, bt_span span, bt_word_sink *sink,
                              bt_err *err)
{
    route start = {pretokenizer, 0, sink};
    return run_from(&start, span, err);
}
