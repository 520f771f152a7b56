#include "common/text/pretokenizer.h"

#include <stdlib.h>
#include <string.h>

typedef struct bt_pretokenizer_step step_t;

/* ---- running ---- */

/* A span on its way through the steps from `step` on. */
typedef struct {
    const bt_pretokenizer *pretokenizer;
    uint32_t step;
    bt_word_sink *sink;
} route;

static bt_status run_from(const route *at, bt_span span, bt_err *err);

/* A cut on its way: the piece that may still grow, if there is one. */
typedef struct {
    const step_t *step;
    const route *next;
    bt_span span;
    bool held, held_match;
    size_t begin, end;
} cutter;

static bt_status emit(const cutter *c, size_t begin, size_t end, bt_err *err)
{
    bt_span word = {
        .text = c->span.text + begin, .bytes = end - begin, .first = c->span.first && begin == 0};
    return run_from(c->next, word, err);
}

/* Takes the next piece of the span. The held piece grows by it or leaves. */
static bt_status take(cutter *c, size_t begin, size_t end, bool match, bt_err *err)
{
    bool grows = false;
    switch (c->step->cut) {
    case BT_CUT_NEVER:
    case BT_CUT_ISOLATED: return emit(c, begin, end, err);
    case BT_CUT_REMOVED: return match ? BT_OK : emit(c, begin, end, err);
    case BT_CUT_WITH_PREVIOUS: grows = match && !c->held_match; break;
    case BT_CUT_WITH_NEXT: grows = !match && c->held_match; break;
    case BT_CUT_CONTIGUOUS: grows = match == c->held_match; break;
    }
    bt_status status = BT_OK;
    if (!c->held || !grows) {
        if (c->held) status = emit(c, c->begin, c->end, err);
        c->begin = begin;
    }
    c->held = true;
    c->held_match = match;
    c->end = end;
    return status;
}

static bt_status cut(const step_t *step, bt_span span, const route *next, bt_err *err)
{
    if (step->cut == BT_CUT_NEVER) return run_from(next, span, err);
    cutter c = {.step = step, .next = next, .span = span};
    bt_status status = BT_OK;
    for (size_t at = 0; at < span.bytes && status == BT_OK;) {
        bt_pattern_match match =
            bt_pattern_find(&step->pattern, span.text, span.bytes, at, &next->sink->steps);
        if (match.begin > at) status = take(&c, at, match.begin, step->invert, err);
        if (match.end > match.begin && status == BT_OK)
            status = take(&c, match.begin, match.end, !step->invert, err);
        at = match.end;
    }
    if (c.held && status == BT_OK) status = emit(&c, c.begin, c.end, err);
    return status;
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

static bt_status run_step(const step_t *step, bt_span span, const route *next, bt_err *err)
{
    size_t prefix_bytes = strlen(step->prefix), bytes = 0;
    bool has = (step->replace && span.text[0] == ' ') ||
               (span.bytes >= prefix_bytes && memcmp(span.text, step->prefix, prefix_bytes) == 0);
    bool wanted =
        step->prepend == BT_PREPEND_ALWAYS || (step->prepend == BT_PREPEND_FIRST && span.first);
    bool prepend = wanted && !has;
    if (!prepend && !step->replace) return cut(step, span, next, err);
    char *text = NULL;
    bt_status status = rewrite(span, prepend ? step->prefix : "",
                               step->replace ? step->prefix : NULL, &text, &bytes, err);
    if (status != BT_OK) return status;
    next->sink->steps += span.bytes;
    status = cut(step, (bt_span){.text = text, .bytes = bytes, .first = span.first}, next, err);
    free(text);
    return status;
}

static bt_status run_from(const route *at, bt_span span, bt_err *err)
{
    if (at->step == at->pretokenizer->count) return at->sink->word(at->sink->context, span, err);
    route next = {at->pretokenizer, at->step + 1, at->sink};
    return run_step(&at->pretokenizer->steps[at->step], span, &next, err);
}

bt_status bt_pretokenizer_run(const bt_pretokenizer *pretokenizer, bt_span span, bt_word_sink *sink,
                              bt_err *err)
{
    route start = {pretokenizer, 0, sink};
    return span.bytes > 0 ? run_from(&start, span, err) : BT_OK;
}

/* ---- reading ---- */

static bt_status read_behavior(const json_t *stage, bt_cut fallback, bt_cut *ret_cut, bt_err *err)
{
    static const struct {
        const char *name;
        bt_cut cut;
    } names[] = {
        {"Isolated", BT_CUT_ISOLATED},
        {"Removed", BT_CUT_REMOVED},
        {"MergedWithPrevious", BT_CUT_WITH_PREVIOUS},
        {"MergedWithNext", BT_CUT_WITH_NEXT},
        {"Contiguous", BT_CUT_CONTIGUOUS},
    };
    const json_t *behavior = bt_json_member(stage, "behavior");
    const char *text = json_string_value(behavior);
    *ret_cut = fallback;
    if (behavior == NULL && fallback != BT_CUT_NEVER) return BT_OK;
    for (size_t i = 0; text != NULL && i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i].name, text) != 0) continue;
        *ret_cut = names[i].cut;
        return BT_OK;
    }
    return BT_FAIL(err, BT_ERR_FORMAT, "behavior '%s' is not one of a pre-tokenizer",
                   bt_json_show(text != NULL ? text : "(no string)").text);
}

static bt_status read_split(const json_t *stage, bt_pretokenizer *p, step_t *step, bt_err *err)
{
    (void)p;
    bt_status status = bt_pattern_read(stage, &step->pattern, err);
    if (status == BT_OK) status = read_behavior(stage, BT_CUT_NEVER, &step->cut, err);
    if (status == BT_OK) status = bt_json_flag(stage, "invert", false, &step->invert, err);
    return status;
}

static bt_status read_byte_level(const json_t *stage, bt_pretokenizer *p, step_t *step, bt_err *err)
{
    bool prefix = true, split = true;
    bt_status status = bt_json_flag(stage, "add_prefix_space", true, &prefix, err);
    if (status == BT_OK) status = bt_json_flag(stage, "use_regex", true, &split, err);
    if (status != BT_OK) return status;
    p->byte_level = true;
    step->prepend = prefix ? BT_PREPEND_ALWAYS : BT_PREPEND_NEVER;
    strcpy(step->prefix, " ");
    step->cut = split ? BT_CUT_ISOLATED : BT_CUT_NEVER;
    step->pattern = bt_pattern_of(BT_PATTERN_GPT2);
    return BT_OK;
}

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

/* Spaces become a visible mark, and a word begins at each mark. */
static bt_status read_metaspace(const json_t *stage, bt_pretokenizer *p, step_t *step, bt_err *err)
{
    (void)p;
    const char *mark;
    bool split = true;
    bt_status status = bt_json_member_text(stage, "replacement", &mark, err);
    if (status == BT_OK) status = bt_prepend_read(stage, &step->prepend, err);
    if (status == BT_OK) status = bt_json_flag(stage, "split", true, &split, err);
    if (status != BT_OK) return status;
    strcpy(step->prefix, mark);
    step->replace = true;
    step->cut = split ? BT_CUT_WITH_NEXT : BT_CUT_NEVER;
    step->pattern = bt_pattern_of_string(mark);
    return BT_OK;
}

static bt_status read_digits(const json_t *stage, bt_pretokenizer *p, step_t *step, bt_err *err)
{
    (void)p;
    bool individual = false;
    bt_status status = bt_json_flag(stage, "individual_digits", false, &individual, err);
    step->cut = individual ? BT_CUT_ISOLATED : BT_CUT_CONTIGUOUS;
    step->pattern = bt_pattern_of(BT_PATTERN_NUMBER);
    return status;
}

static bt_status read_punctuation(const json_t *stage, bt_pretokenizer *p, step_t *step,
                                  bt_err *err)
{
    (void)p;
    step->pattern = bt_pattern_of(BT_PATTERN_PUNCTUATION);
    return read_behavior(stage, BT_CUT_ISOLATED, &step->cut, err);
}

static bt_status read_whitespace(const json_t *stage, bt_pretokenizer *p, step_t *step, bt_err *err)
{
    (void)stage, (void)p, (void)err;
    step->pattern = bt_pattern_of(BT_PATTERN_WORD);
    step->cut = BT_CUT_REMOVED;
    step->invert = true;
    return BT_OK;
}

static bt_status read_whitespace_split(const json_t *stage, bt_pretokenizer *p, step_t *step,
                                       bt_err *err)
{
    (void)stage, (void)p, (void)err;
    step->pattern = bt_pattern_of(BT_PATTERN_SPACE);
    step->cut = BT_CUT_REMOVED;
    return BT_OK;
}

static const struct {
    const char *type;
    bt_status (*read)(const json_t *stage, bt_pretokenizer *pretokenizer, step_t *step,
                      bt_err *err);
} kinds[] = {
    {"Split", read_split},
    {"ByteLevel", read_byte_level},
    {"Metaspace", read_metaspace},
    {"Digits", read_digits},
    {"Punctuation", read_punctuation},
    {"Whitespace", read_whitespace},
    {"WhitespaceSplit", read_whitespace_split},
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
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].type, type) == 0)
            return kinds[i].read(stage, pretokenizer, &pretokenizer->steps[pretokenizer->count++],
                                 err);
    return BT_FAIL(err, BT_ERR_ARGUMENT, "pre-tokenizer '%s' is not supported",
                   bt_json_show(type).text);
}

bt_status bt_pretokenizer_read(const json_t *stage, bt_pretokenizer *ret_pretokenizer, bt_err *err)
{
    *ret_pretokenizer = (bt_pretokenizer){0};
    if (stage == NULL) return BT_OK;
    return bt_json_stages(stage, "pre-tokenizer", "pretokenizers", add_step, ret_pretokenizer, err);
}
