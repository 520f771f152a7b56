#include "common/text/postprocessor.h"

#include "common/base/limits.h"

#include <string.h>

typedef struct {
    const char *type;
    bt_status (*read)(const json_t *stage, bt_postprocessor *postprocessor, bt_err *err);
} kind;

static bt_status add_id(const json_t *id, bool after, bt_postprocessor *p, bt_err *err)
{
    uint32_t *list = after ? p->after : p->before;
    uint32_t *count = after ? &p->after_count : &p->before_count;
    if (!json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= BT_VOCAB_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "a template's special token has an id out of range");
    if (*count == BT_AROUND_IDS_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "a template adds more than %u tokens on a side",
                       BT_AROUND_IDS_MAX);
    list[(*count)++] = (uint32_t)json_integer_value(id);
    return BT_OK;
}

static bt_status add_special(const json_t *ids, bool after, bt_postprocessor *p, bt_err *err)
{
    if (!json_is_array(ids))
        return BT_FAIL(err, BT_ERR_FORMAT, "a template's special token has no ids");
    bt_status status = BT_OK;
    for (size_t i = 0; i < json_array_size(ids) && status == BT_OK; i++)
        status = add_id(json_array_get(ids, i), after, p, err);
    return status;
}

/* {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, …],
 *  "special_tokens": {"<s>": {"ids": [1]}}} */
static bt_status read_template(const json_t *stage, bt_postprocessor *p, bt_err *err)
{
    const json_t *single = bt_json_member(stage, "single");
    const json_t *special = bt_json_member(stage, "special_tokens");
    if (p->templated)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "two templates around a text are not supported");
    if (!json_is_array(single))
        return BT_FAIL(err, BT_ERR_FORMAT, "TemplateProcessing has no list 'single'");
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const char *text =
            json_string_value(bt_json_member(bt_json_member(item, "Sequence"), "id"));
        const char *name =
            json_string_value(bt_json_member(bt_json_member(item, "SpecialToken"), "id"));
        if (text != NULL && strcmp(text, "A") == 0 && !p->templated) {
            p->templated = true;
        } else if (name != NULL) {
            const json_t *ids = bt_json_member(bt_json_member(special, name), "ids");
            bt_status status = add_special(ids, p->templated, p, err);
            if (status != BT_OK) return status;
        } else {
            return BT_FAIL(err, BT_ERR_FORMAT, "item %zu of the template is not understood", i);
        }
    }
    if (!p->templated) return BT_FAIL(err, BT_ERR_FORMAT, "the template does not hold the text");
    return BT_OK;
}

/* Only says how offsets are trimmed, which nobody asks for here. */
static bt_status read_byte_level(const json_t *stage, bt_postprocessor *p, bt_err *err)
{
    (void)stage, (void)p, (void)err;
    return BT_OK;
}

/* {"cls": ["<s>", 0], "sep": ["</s>", 2]}: the one before, the other after. */
static bt_status read_pair(const json_t *stage, bt_postprocessor *p, bt_err *err)
{
    if (p->templated)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "two templates around a text are not supported");
    p->templated = true;
    bt_status status = add_id(json_array_get(bt_json_member(stage, "cls"), 1), false, p, err);
    if (status != BT_OK) return status;
    return add_id(json_array_get(bt_json_member(stage, "sep"), 1), true, p, err);
}

static const kind kinds[] = {
    {"TemplateProcessing", read_template},
    {"ByteLevel", read_byte_level},
    {"RobertaProcessing", read_pair},
    {"BertProcessing", read_pair},
};

static bt_status add_step(const json_t *stage, void *context, bt_err *err)
{
    bt_postprocessor *p = context;
    const char *type;
    bt_status status = bt_json_type(stage, "post-processor", &type, err);
    if (status != BT_OK) return status;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].type, type) == 0) return kinds[i].read(stage, p, err);
    return BT_FAIL(err, BT_ERR_ARGUMENT, "post-processor '%s' is not supported",
                   bt_json_show(type).text);
}

bt_status bt_postprocessor_read(const json_t *stage, bt_postprocessor *ret_postprocessor,
                                bt_err *err)
{
    *ret_postprocessor = (bt_postprocessor){0};
    if (stage == NULL) return BT_OK;
    return bt_json_stages(stage, "post-processor", "processors", add_step, ret_postprocessor, err);
}
