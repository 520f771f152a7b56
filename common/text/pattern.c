#include "common/text/pattern.h"

#include "common/text/unicode.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

/* The text being scanned. */
typedef struct {
    const char *text;
    size_t bytes;
    uint64_t steps;
} scanner;

struct bt_pattern_kind {
    const char *regex;
    /* Where the match that begins at `at` ends; `at` if none begins there. */
    size_t (*end_of)(const bt_pattern_kind *kind, scanner *s, size_t at);
    /* Of a run: so many characters of the set, which is one byte if byte is not 0. */
    bt_char_set set;
    char byte;
    uint32_t count_min, count_max;
    /* Of a word pattern: */
    uint32_t digits_max;     /* numbers are cut after so many digits */
    bt_char_set after_signs; /* taken with the signs before */
    bool slash_after_signs;
    bool contraction_after; /* 's and the like end a word instead of being one */
};

static bt_char_set class_at(scanner *s, size_t at, size_t *ret_end)
{
    s->steps++;
    return bt_char_class_at(s->text, s->bytes, at, ret_end);
}

/* The class of the character at a position, or none at the end of the text. */
static bt_char_set class_or_none(scanner *s, size_t at, size_t *ret_end)
{
    *ret_end = at;
    return at < s->bytes ? class_at(s, at, ret_end) : 0;
}

static size_t end_of_run(scanner *s, size_t at, bt_char_set set)
{
    size_t end;
    while (at < s->bytes && (class_at(s, at, &end) & set) != 0) at = end;
    return at;
}

/* ---- runs: x+, x{2,}, x{1,3} ---- */

static size_t run_end(const bt_pattern_kind *kind, scanner *s, size_t at)
{
    size_t next = at, end;
    uint32_t count = 0;
    for (; count < kind->count_max && next < s->bytes; next = end, count++) {
        bt_char_set class = class_at(s, next, &end);
        if (kind->byte != 0 ? s->text[next] != kind->byte : (class & kind->set) == 0) break;
    }
    return count >= kind->count_min ? next : at;
}

/* ---- (*WORD) ---- */

static size_t word_or_signs_end(const bt_pattern_kind *kind, scanner *s, size_t at)
{
    (void)kind;
    size_t end;
    bt_char_set class = class_at(s, at, &end);
    if ((class & BT_CHAR_WORD) != 0) return end_of_run(s, end, BT_CHAR_WORD);
    if ((class & BT_CHAR_SPACE) != 0) return at;
    return end_of_run(s, end, ~(BT_CHAR_WORD | BT_CHAR_SPACE));
}

/* ---- parts that the word patterns share ---- */

/* Bytes of 's, 't, 're, 've, 'm, 'll or 'd at this position, or 0. */
static size_t contraction_at(const scanner *s, size_t at, bool any_case)
{
    static const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    if (at == s->bytes || s->text[at] != '\'') return 0;
    const char *rest = s->text + at + 1;
    size_t left = s->bytes - at - 1;
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        size_t bytes = strlen(endings[i]);
        if (left < bytes) continue;
        bool same = any_case ? strncasecmp(rest, endings[i], bytes) == 0
                             : memcmp(rest, endings[i], bytes) == 0;
        if (same) return 1 + bytes;
    }
    /* The one other character that folds to one of these letters: the long s. */
    if (any_case && left >= 2 && memcmp(rest, "\xC5\xBF", 2) == 0) return 3;
    return 0;
}

/* \s+(?!\S)|\s+: white space up to the last one before something else, which a word may want. */
static size_t end_of_spaces(scanner *s, size_t at)
{
    size_t last = at, end = at, next;
    while (end < s->bytes && (class_at(s, end, &next) & BT_CHAR_SPACE) != 0) {
        last = end;
        end = next;
    }
    return end < s->bytes && last > at ? last : end;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+: as above, but a run that has newlines ends after the last of them. */
static size_t end_of_lines(scanner *s, size_t at)
{
    size_t last = at, end = at, newline = at, next;
    bt_char_set class;
    while (end < s->bytes && ((class = class_at(s, end, &next)) & BT_CHAR_SPACE) != 0) {
        last = end;
        end = next;
        if (class == BT_CHAR_NEWLINE) newline = end;
    }
    if (newline > at) return newline;
    return end < s->bytes && last > at ? last : end;
}

static size_t digits_end(const bt_pattern_kind *kind, scanner *s, size_t at)
{
    size_t end;
    for (uint32_t i = 0; i < kind->digits_max; i++, at = end)
        if ((class_or_none(s, at, &end) & BT_CHAR_NUMBER) == 0) break;
    return at;
}

/* The rest of a word pattern where no letters and no number begin:
 *   ` ?[^\s\p{L}\p{N}]+[\r\n/]*` and then white space. class is that at `at`, end its end. */
static size_t signs_or_spaces_end(const bt_pattern_kind *kind, scanner *s, size_t at,
                                  bt_char_set class, size_t end)
{
    size_t signs = end;
    if (s->text[at] == ' ') class = class_or_none(s, end, &signs);
    if ((class & BT_CHAR_VISIBLE) == 0) return end_of_lines(s, at);
    signs = end_of_run(s, signs, BT_CHAR_VISIBLE);
    for (; signs < s->bytes; signs++) {
        char c = s->text[signs];
        if (c != '\r' && c != '\n' && !(c == '/' && kind->slash_after_signs)) break;
        s->steps++;
    }
    return signs;
}

/* ---- GPT-2: a word or a number has its space with it ---- */

static size_t gpt2_end(const bt_pattern_kind *kind, scanner *s, size_t at)
{
    (void)kind;
    static const bt_char_set sets[] = {BT_CHAR_LETTER, BT_CHAR_NUMBER, BT_CHAR_VISIBLE};
    size_t contraction = contraction_at(s, at, false), end;
    if (contraction > 0) return at + contraction;
    bt_char_set class = class_at(s, at, &end);
    if (s->text[at] == ' ') class = class_or_none(s, end, &end);
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
        if ((class & sets[i]) != 0) return end_of_run(s, end, sets[i]);
    return end_of_spaces(s, at);
}

/* ---- GPT-4's kind (Llama-3, Qwen2): a word has any one character with it, numbers are short,
 *      newlines end what they follow ---- */

static size_t gpt4_end(const bt_pattern_kind *kind, scanner *s, size_t at)
{
    size_t contraction = contraction_at(s, at, true), end, second;
    if (contraction > 0) return at + contraction;
    bt_char_set class = class_at(s, at, &end);
    if ((class & BT_CHAR_LETTER) != 0) return end_of_run(s, end, BT_CHAR_LETTER);
    if ((class & BT_CHAR_NUMBER) != 0) return digits_end(kind, s, at);
    if (class != BT_CHAR_NEWLINE && (class_or_none(s, end, &second) & BT_CHAR_LETTER) != 0)
        return end_of_run(s, second, BT_CHAR_LETTER);
    return signs_or_spaces_end(kind, s, at, class, end);
}

/* ---- GPT-4o's kind (Tekken, Llama-4): a word ends where capitals begin ---- */

#define HEAD (BT_CHAR_UPPER | BT_CHAR_CASELESS | BT_CHAR_MARK)
#define TAIL (BT_CHAR_LOWER | BT_CHAR_CASELESS | BT_CHAR_MARK)

/* HEAD*TAIL+, or if that fails and alone is set HEAD+TAIL*; `at` if neither matches here. */
static size_t cased_end(scanner *s, size_t at, bool alone)
{
    size_t head = at, end, both = at; /* both: after the last of the heads that is a tail too */
    bt_char_set class = 0;
    while (head < s->bytes && ((class = class_at(s, head, &end)) & HEAD) != 0) {
        head = end;
        if ((class & TAIL) != 0) both = end;
    }
    if (head < s->bytes && (class & TAIL) != 0) return end_of_run(s, end, TAIL);
    if (both > at) return both;
    return alone ? head : at;
}

static size_t gpt4o_end(const bt_pattern_kind *kind, scanner *s, size_t at)
{
    size_t end, word = at;
    bt_char_set class = class_at(s, at, &end);
    if ((class & BT_CHAR_NUMBER) != 0) return digits_end(kind, s, at);
    if ((class & (BT_CHAR_LETTER | BT_CHAR_NEWLINE)) != 0) {
        if (class != BT_CHAR_NEWLINE) word = cased_end(s, at, true);
    } else {
        /* One character before the word; but a mark can be of the word itself. */
        word = cased_end(s, end, false);
        if (word == end) word = cased_end(s, at, false);
        if (word == at) word = cased_end(s, end, true);
        if (word == end && (class & HEAD) == 0) word = at;
    }
    if (word > at) return word + (kind->contraction_after ? contraction_at(s, word, true) : 0);
    return signs_or_spaces_end(kind, s, at, class, end);
}

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define CASED_1                                                                                    \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
#define CASED_2                                                                                    \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
#define SIGNS " ?[^\\s\\p{L}\\p{N}]+"
#define LINES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const bt_pattern_kind kinds[] = {
    {.regex = BT_PATTERN_GPT2, .end_of = gpt2_end},
    /* Llama-3, GPT-4 */
    {.regex = CONTRACTIONS "|" WORD "|\\p{N}{1,3}|" SIGNS "[\\r\\n]*|" LINES,
     .end_of = gpt4_end,
     .digits_max = 3},
    /* the same as GPT-4's own library spells it */
    {.regex = "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}|"
              " ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
     .end_of = gpt4_end,
     .digits_max = 3},
    /* Qwen2, Qwen2.5, Qwen3 */
    {.regex = CONTRACTIONS "|" WORD "|\\p{N}|" SIGNS "[\\r\\n]*|" LINES,
     .end_of = gpt4_end,
     .digits_max = 1},
    /* Mistral's Tekken (Nemo and later) */
    {.regex = CASED_1 "|" CASED_2 "|\\p{N}|" SIGNS "[\\r\\n/]*|" LINES,
     .end_of = gpt4o_end,
     .digits_max = 1,
     .slash_after_signs = true},
    /* GPT-4o, Llama-4 */
    {.regex =
         CASED_1 CONTRACTIONS "?|" CASED_2 CONTRACTIONS "?|\\p{N}{1,3}|" SIGNS "[\\r\\n/]*|" LINES,
     .end_of = gpt4o_end,
     .digits_max = 3,
     .slash_after_signs = true,
     .contraction_after = true},
    {.regex = BT_PATTERN_WORD, .end_of = word_or_signs_end},
#define RUN(text, chars, from, to)                                                                 \
    {                                                                                              \
        .regex = text, .end_of = run_end, .set = chars, .count_min = from, .count_max = to         \
    }
    RUN(BT_PATTERN_PUNCTUATION, BT_CHAR_PUNCT, 1, 1),
    RUN(BT_PATTERN_NUMBER, BT_CHAR_NUMBER, 1, 1),
    RUN("\\p{N}{1,3}", BT_CHAR_NUMBER, 1, 3),
    RUN("\\p{N}+", BT_CHAR_NUMBER, 1, UINT32_MAX),
    RUN("\\d", BT_CHAR_DIGIT, 1, 1),
    RUN(BT_PATTERN_SPACE, BT_CHAR_SPACE, 1, 1),
    RUN("\\s+", BT_CHAR_SPACE, 1, UINT32_MAX),
    RUN("[\\r\\n]", BT_CHAR_NEWLINE, 1, 1),
#undef RUN
    {.regex = " {2,}", .end_of = run_end, .byte = ' ', .count_min = 2, .count_max = UINT32_MAX},
    {.regex = " +", .end_of = run_end, .byte = ' ', .count_min = 1, .count_max = UINT32_MAX},
};

static const bt_pattern_kind *find_kind(const char *regex)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].regex, regex) == 0) return &kinds[i];
    return NULL;
}

bt_pattern bt_pattern_of(const char *regex)
{
    bt_pattern pattern = {.kind = find_kind(regex)};
    assert(pattern.kind != NULL);
    return pattern;
}

bt_pattern bt_pattern_of_string(const char *string)
{
    bt_pattern pattern = {.bytes = (uint32_t)strlen(string)};
    assert(pattern.bytes > 0 && pattern.bytes <= BT_STAGE_TEXT_BYTES_MAX);
    memcpy(pattern.string, string, pattern.bytes + 1);
    return pattern;
}

bt_status bt_pattern_read(const json_t *stage, bt_pattern *ret_pattern, bt_err *err)
{
    const json_t *pattern = bt_json_member(stage, "pattern");
    const char *regex = json_string_value(bt_json_member(pattern, "Regex")), *string;
    if (regex != NULL) {
        *ret_pattern =
            (bt_pattern){.kind = regex[0] != '(' || regex[1] != '*' ? find_kind(regex) : NULL};
        if (ret_pattern->kind != NULL) return BT_OK;
        return BT_FAIL(err, BT_ERR_ARGUMENT, "the regular expression '%s' is not supported",
                       bt_json_show(regex).text);
    }
    string = json_string_value(bt_json_member(pattern, "String"));
    if (string == NULL || string[0] == '\0' || strlen(string) > BT_STAGE_TEXT_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "pattern has no String of 1 to %u bytes and no Regex",
                       BT_STAGE_TEXT_BYTES_MAX);
    *ret_pattern = bt_pattern_of_string(string);
    return BT_OK;
}

static bt_pattern_match find_string(const bt_pattern *pattern, const char *text, size_t bytes,
                                    size_t from)
{
    const char *found = memmem(text + from, bytes - from, pattern->string, pattern->bytes);
    if (found == NULL) return (bt_pattern_match){bytes, bytes};
    size_t begin = (size_t)(found - text);
    return (bt_pattern_match){begin, begin + pattern->bytes};
}

bt_pattern_match bt_pattern_find(const bt_pattern *pattern, const char *text, size_t bytes,
                                 size_t from, uint64_t *steps)
{
    if (pattern->kind == NULL) {
        bt_pattern_match match = find_string(pattern, text, bytes, from);
        *steps += match.end - from;
        return match;
    }
    scanner s = {text, bytes, 0};
    bt_pattern_match match = {bytes, bytes};
    for (size_t at = from, next; at < bytes; at = next) {
        size_t end = pattern->kind->end_of(pattern->kind, &s, at);
        if (end > at) {
            match = (bt_pattern_match){at, end};
            break;
        }
        for (next = at + 1; next < bytes && ((uint8_t)text[next] & 0xC0) == 0x80;) next++;
    }
    *steps += s.steps;
    return match;
}
