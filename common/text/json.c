#include "common/text/json.h"

#include <string.h>

bt_json_shown bt_json_show(const char *name)
{
    bt_json_shown shown;
    size_t at = 0;
    for (; name[at] != '\0' && at < sizeof(shown.text) - 4; at++) {
        unsigned char c = (unsigned char)name[at];
        shown.text[at] = c >= 0x20 && c < 0x7f ? (char)c : '?';
    }
    strcpy(shown.text + at, name[at] != '\0' ? "..." : "");
    return shown;
}

const json_t *bt_json_member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

bt_status bt_json_flag(const json_t *object, const char *key, bool fallback, bool *ret_value,
                       bt_err *err)
{
    const json_t *value = bt_json_member(object, key);
    if (value != NULL && !json_is_boolean(value))
        return BT_FAIL(err, BT_ERR_FORMAT, "%s is not true or false", key);
    *ret_value = value != NULL ? json_is_true(value) : fallback;
    return BT_OK;
}

bt_status bt_json_member_text(const json_t *object, const char *key, const char **ret_text,
                              bt_err *err)
{
    const json_t *value = bt_json_member(object, key);
    if (!json_is_string(value) || json_string_length(value) == 0 ||
        json_string_length(value) > BT_STAGE_TEXT_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s is not a string of 1 to %u bytes", key,
                       BT_STAGE_TEXT_BYTES_MAX);
    *ret_text = json_string_value(value);
    return BT_OK;
}

bt_status bt_json_type(const json_t *stage, const char *what, const char **ret_type, bt_err *err)
{
    *ret_type = json_string_value(bt_json_member(stage, "type"));
    if (*ret_type == NULL) return BT_FAIL(err, BT_ERR_FORMAT, "a %s has no type", what);
    return BT_OK;
}

bt_status bt_json_stages(const json_t *stage, const char *what, const char *key,
                         bt_json_add_stage add, void *context, bt_err *err)
{
    const char *type;
    bt_status status = bt_json_type(stage, what, &type, err);
    if (status != BT_OK) return status;
    if (strcmp(type, "Sequence") != 0) return add(stage, context, err);
    const json_t *list = bt_json_member(stage, key);
    if (!json_is_array(list))
        return BT_FAIL(err, BT_ERR_FORMAT, "a %s Sequence has no %s", what, key);
    for (size_t i = 0; i < json_array_size(list) && status == BT_OK; i++)
        status = add(json_array_get(list, i), context, err);
    return status;
}
