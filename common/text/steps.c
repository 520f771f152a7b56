#include "common/text/steps.h"

#include <string.h>

bt_status bt_steps_add(bt_steps *steps,
                       bt_status (*run)(const bt_step *, const bt_buffer *, bt_buffer *, bt_err *),
                       bt_step **ret_step, bt_err *err)
{
    if (steps->count == BT_STAGE_STEPS_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "a stage has more than %u steps", BT_STAGE_STEPS_MAX);
    *ret_step = &steps->steps[steps->count++];
    **ret_step = (bt_step){.run = run};
    return BT_OK;
}

static bt_status run_replace(const bt_step *step, const bt_buffer *from, bt_buffer *to, bt_err *err)
{
    size_t content_bytes = strlen(step->content);
    uint64_t looked = 0;
    bt_status status = BT_OK;
    for (size_t at = 0; at < from->bytes && status == BT_OK;) {
        bt_pattern_match match =
            bt_pattern_find(&step->pattern, from->data, from->bytes, at, &looked);
        status = bt_buffer_copy(to, from, at, match.begin - at, err);
        if (match.end > match.begin && status == BT_OK)
            status = bt_buffer_put(to, step->content, content_bytes, from, match.begin,
                                   match.end - match.begin, err);
        at = match.end;
    }
    return status;
}

bt_status bt_steps_add_replace(bt_steps *steps, const json_t *stage, bt_err *err)
{
    bt_step *step = NULL;
    bt_status status = bt_steps_add(steps, run_replace, &step, err);
    if (status == BT_OK) status = bt_pattern_read(stage, &step->pattern, err);
    if (status != BT_OK) return status;
    const json_t *content = bt_json_member(stage, "content");
    if (!json_is_string(content) || json_string_length(content) > BT_STAGE_TEXT_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "content is not a string of at most %u bytes",
                       BT_STAGE_TEXT_BYTES_MAX);
    strcpy(step->content, json_string_value(content));
    return BT_OK;
}

bt_status bt_steps_add_exchange(bt_steps *steps, const char *from, const char *to, bt_err *err)
{
    bt_step *step = NULL;
    bt_status status = bt_steps_add(steps, run_replace, &step, err);
    if (status != BT_OK) return status;
    step->pattern = bt_pattern_of_string(from);
    strcpy(step->content, to);
    return BT_OK;
}

bt_status bt_steps_run(const bt_steps *steps, const char *text, const uint8_t *marks, size_t bytes,
                       bt_buffer *ret_text, bt_err *err)
{
    bt_buffer from = {.marked = marks != NULL};
    bt_status status = bt_buffer_add(&from, text, bytes, err);
    if (status == BT_OK && marks != NULL && bytes > 0) memcpy(from.marks, marks, bytes);
    for (uint32_t i = 0; i < steps->count && status == BT_OK; i++) {
        bt_buffer to = {.marked = from.marked};
        status = steps->steps[i].run(&steps->steps[i], &from, &to, err);
        bt_buffer_release(&from);
        from = to;
    }
    if (status != BT_OK) {
        bt_buffer_release(&from);
        return status;
    }
    *ret_text = from;
    return BT_OK;
}
