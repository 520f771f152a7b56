#include "common/text/normalizer.h"

#include <stdlib.h>
#include <string.h>

typedef struct bt_normalizer_step step_t;

struct bt_normalizer_kind {
    const char *type;
    bt_status (*read)(const json_t *stage, step_t *step, bt_err *err);
    bt_status (*run)(const step_t *step, const bt_text *from, bt_text *to, bt_err *err);
};

static bt_status reserve(bt_text *text, size_t bytes, bt_err *err)
{
    if (bytes > BT_NORMAL_BYTES_MAX - text->bytes)
        return BT_FAIL(err, BT_ERR_LIMIT, "the normalized text has more than %u bytes",
                       BT_NORMAL_BYTES_MAX);
    if (text->bytes + bytes <= text->capacity) return BT_OK;
    size_t capacity = 2 * (text->bytes + bytes) + 64;
    char *grown = realloc(text->data, capacity);
    if (grown == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for normalized text");
    text->data = grown;
    if (text->marked) {
        uint8_t *marks = realloc(text->marks, capacity);
        if (marks == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for normalized text");
        text->marks = marks;
    }
    text->capacity = capacity;
    return BT_OK;
}

bt_status bt_text_put(bt_text *text, const char *data, size_t bytes, const bt_text *from, size_t at,
                      size_t taken, bt_err *err)
{
    bt_status status = reserve(text, bytes, err);
    if (status != BT_OK || bytes == 0) return status;
    memcpy(text->data + text->bytes, data, bytes);
    if (text->marked) {
        bool mark = from != NULL && from->marked && memchr(from->marks + at, 1, taken) != NULL;
        memset(text->marks + text->bytes, mark, bytes);
    }
    text->bytes += bytes;
    return BT_OK;
}

bt_status bt_text_copy(bt_text *text, const bt_text *from, size_t at, size_t bytes, bt_err *err)
{
    bt_status status = bt_text_put(text, from->data + at, bytes, NULL, 0, 0, err);
    if (status == BT_OK && bytes > 0 && text->marked && from->marked)
        memcpy(text->marks + text->bytes - bytes, from->marks + at, bytes);
    return status;
}

bt_status bt_text_add(bt_text *text, const char *data, size_t bytes, bt_err *err)
{
    return bt_text_put(text, data, bytes, NULL, 0, 0, err);
}

void bt_text_release(bt_text *text)
{
    free(text->data);
    free(text->marks);
    *text = (bt_text){0};
}

static bt_status read_prepend(const json_t *stage, step_t *step, bt_err *err)
{
    const char *text;
    bt_status status = bt_json_member_text(stage, "prepend", &text, err);
    if (status == BT_OK) strcpy(step->content, text);
    return status;
}

static bt_status run_prepend(const step_t *step, const bt_text *from, bt_text *to, bt_err *err)
{
    if (from->bytes == 0) return BT_OK;
    bt_status status = bt_text_put(to, step->content, strlen(step->content), from, 0, 1, err);
    if (status != BT_OK) return status;
    return bt_text_copy(to, from, 0, from->bytes, err);
}

static bt_status read_replace(const json_t *stage, step_t *step, bt_err *err)
{
    const char *pattern;
    bt_status status = bt_json_pattern(stage, &pattern, err);
    if (status != BT_OK) return status;
    const json_t *content = bt_json_member(stage, "content");
    if (!json_is_string(content) || json_string_length(content) > BT_STAGE_TEXT_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "content is not a string of at most %u bytes",
                       BT_STAGE_TEXT_BYTES_MAX);
    strcpy(step->pattern, pattern);
    strcpy(step->content, json_string_value(content));
    return BT_OK;
}

static bt_status run_replace(const step_t *step, const bt_text *from, bt_text *to, bt_err *err)
{
    size_t pattern_bytes = strlen(step->pattern), content_bytes = strlen(step->content), at = 0;
    while (at < from->bytes) {
        const char *found = memmem(from->data + at, from->bytes - at, step->pattern, pattern_bytes);
        size_t plain = found != NULL ? (size_t)(found - from->data) - at : from->bytes - at;
        bt_status status = bt_text_copy(to, from, at, plain, err);
        if (status == BT_OK && found != NULL)
            status =
                bt_text_put(to, step->content, content_bytes, from, at + plain, pattern_bytes, err);
        if (status != BT_OK) return status;
        at += plain + (found != NULL ? pattern_bytes : 0);
    }
    return BT_OK;
}

static const bt_normalizer_kind kinds[] = {
    {"Prepend", read_prepend, run_prepend},
    {"Replace", read_replace, run_replace},
};

static bt_status add_step(const json_t *stage, void *context, bt_err *err)
{
    bt_normalizer *normalizer = context;
    const char *type;
    bt_status status = bt_json_type(stage, "normalizer", &type, err);
    if (status != BT_OK) return status;
    if (normalizer->count == BT_STAGE_STEPS_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "more than %u normalizers", BT_STAGE_STEPS_MAX);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].type, type) != 0) continue;
        step_t *step = &normalizer->steps[normalizer->count++];
        step->kind = &kinds[i];
        return kinds[i].read(stage, step, err);
    }
    return BT_FAIL(err, BT_ERR_ARGUMENT, "normalizer '%s' is not supported",
                   bt_json_show(type).text);
}

bt_status bt_normalizer_read(const json_t *stage, bt_normalizer *ret_normalizer, bt_err *err)
{
    *ret_normalizer = (bt_normalizer){0};
    if (stage == NULL) return BT_OK;
    return bt_json_stages(stage, "normalizer", "normalizers", add_step, ret_normalizer, err);
}

bt_status bt_normalizer_run(const bt_normalizer *normalizer, const char *text, const uint8_t *marks,
                            size_t bytes, bt_text *ret_text, bt_err *err)
{
    bt_text from = {.marked = marks != NULL};
    bt_status status = bt_text_add(&from, text, bytes, err);
    if (status == BT_OK && marks != NULL && bytes > 0) memcpy(from.marks, marks, bytes);
    for (uint32_t i = 0; i < normalizer->count && status == BT_OK; i++) {
        bt_text to = {.marked = from.marked};
        status = normalizer->steps[i].kind->run(&normalizer->steps[i], &from, &to, err);
        bt_text_release(&from);
        from = to;
    }
    if (status != BT_OK) {
        bt_text_release(&from);
        return status;
    }
    *ret_text = from;
    return BT_OK;
}
