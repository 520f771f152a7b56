#include "common/text/normalizer.h"

#include "common/base/utf8.h"
#include "common/text/forms.h"
#include "common/text/unicode.h"

#include <assert.h>
#include <string.h>

/* ---- Prepend ---- */

static bt_status run_prepend(const bt_step *step, const bt_buffer *from, bt_buffer *to, bt_err *err)
{
    if (from->bytes == 0) return BT_OK;
    /* What is put before a text is as much its writer's as the text's first byte is. */
    bt_status status = bt_buffer_put(to, step->content, strlen(step->content), from, 0, 1, err);
    if (status != BT_OK) return status;
    return bt_buffer_copy(to, from, 0, from->bytes, err);
}

static bt_status read_prepend(const json_t *stage, bt_steps *steps, bt_err *err)
{
    bt_step *step = NULL;
    const char *text;
    bt_status status = bt_steps_add(steps, run_prepend, &step, err);
    if (status == BT_OK) status = bt_json_member_text(stage, "prepend", &text, err);
    if (status == BT_OK) strcpy(step->content, text);
    return status;
}

/* ---- Replace ---- */

static bt_status read_replace(const json_t *stage, bt_steps *steps, bt_err *err)
{
    return bt_steps_add_replace(steps, stage, err);
}

/* ---- Strip: white space at the ends ---- */

static bt_status run_strip(const bt_step *step, const bt_buffer *from, bt_buffer *to, bt_err *err)
{
    size_t begin = 0, end = 0, next;
    bool any = false;
    for (size_t at = 0; at < from->bytes; at = next) {
        bool space = (bt_char_class_at(from->data, from->bytes, at, &next) & BT_CHAR_SPACE) != 0;
        if (space) continue;
        if (!any) begin = at;
        any = true;
        end = next;
    }
    if (!any) begin = end = step->start != 0 ? from->bytes : 0;
    if (step->start == 0) begin = 0;
    if (step->stop == 0) end = from->bytes;
    return bt_buffer_copy(to, from, begin, end - begin, err);
}

static bt_status read_strip(const json_t *stage, bt_steps *steps, bt_err *err)
{
    bt_step *step = NULL;
    bool left = true, right = true;
    bt_status status = bt_steps_add(steps, run_strip, &step, err);
    if (status == BT_OK) status = bt_json_flag(stage, "strip_left", true, &left, err);
    if (status == BT_OK) status = bt_json_flag(stage, "strip_right", true, &right, err);
    if (status != BT_OK) return status;
    step->start = left;
    step->stop = right;
    return BT_OK;
}

/* ---- Lowercase, StripAccents: a character at a time ---- */

static bt_status run_lowercase(const bt_step *step, const bt_buffer *from, bt_buffer *to,
                               bt_err *err)
{
    (void)step;
    bt_status status = BT_OK;
    for (size_t at = 0; at < from->bytes && status == BT_OK;) {
        uint32_t code = 0;
        char lower[8];
        size_t length = bt_utf8_char(from->data + at, from->bytes - at, &code);
        assert(length > 0);
        status = bt_buffer_put(to, lower, bt_utf8_lower(code, lower), from, at, length, err);
        at += length;
    }
    return status;
}

static bt_status read_lowercase(const json_t *stage, bt_steps *steps, bt_err *err)
{
    (void)stage;
    bt_step *step = NULL;
    return bt_steps_add(steps, run_lowercase, &step, err);
}

static bt_status run_strip_accents(const bt_step *step, const bt_buffer *from, bt_buffer *to,
                                   bt_err *err)
{
    (void)step;
    bt_status status = BT_OK;
    for (size_t at = 0, next; at < from->bytes && status == BT_OK; at = next)
        if (bt_char_class_at(from->data, from->bytes, at, &next) != BT_CHAR_MARK)
            status = bt_buffer_copy(to, from, at, next - at, err);
    return status;
}

static bt_status read_strip_accents(const json_t *stage, bt_steps *steps, bt_err *err)
{
    (void)stage;
    bt_step *step = NULL;
    return bt_steps_add(steps, run_strip_accents, &step, err);
}

/* ---- NFC, NFD, NFKC, NFKD ---- */

static bt_status run_form(const bt_step *step, const bt_buffer *from, bt_buffer *to, bt_err *err)
{
    return bt_form_run(step->start, from, to, err);
}

static bt_status read_form(const json_t *stage, bt_steps *steps, bt_err *err)
{
    const char *type = json_string_value(bt_json_member(stage, "type"));
    bt_step *step = NULL;
    bt_status status = bt_steps_add(steps, run_form, &step, err);
    if (status != BT_OK) return status;
    step->start = (strchr(type, 'C') != NULL ? BT_FORM_COMPOSED : 0) |
                  (strchr(type, 'K') != NULL ? BT_FORM_COMPATIBLE : 0);
    return BT_OK;
}

static const struct {
    const char *type;
    bt_status (*read)(const json_t *stage, bt_steps *steps, bt_err *err);
} kinds[] = {
    {"NFC", read_form},
    {"NFD", read_form},
    {"NFKC", read_form},
    {"NFKD", read_form},
    {"Prepend", read_prepend},
    {"Replace", read_replace},
    {"Strip", read_strip},
    {"Lowercase", read_lowercase},
    {"StripAccents", read_strip_accents},
};

static bt_status add_step(const json_t *stage, void *context, bt_err *err)
{
    const char *type;
    bt_status status = bt_json_type(stage, "normalizer", &type, err);
    if (status != BT_OK) return status;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].type, type) == 0) return kinds[i].read(stage, context, err);
    return BT_FAIL(err, BT_ERR_ARGUMENT, "normalizer '%s' is not supported",
                   bt_json_show(type).text);
}

bt_status bt_normalizer_read(const json_t *stage, bt_steps *ret_steps, bt_err *err)
{
    if (stage == NULL) return BT_OK;
    return bt_json_stages(stage, "normalizer", "normalizers", add_step, ret_steps, err);
}
