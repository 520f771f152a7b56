#include "common/weights/members.h"

#include <math.h>

const json_t *bt_member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

bt_status bt_member_count(const json_t *object, const char *key, uint32_t fallback, uint32_t max,
                          uint32_t *ret_value, bt_err *err)
{
    const json_t *value = bt_member(object, key);
    if (value == NULL && fallback == 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is missing", key);
    if (value != NULL && (!json_is_integer(value) || json_integer_value(value) < 1))
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is not a whole number above 0", key);
    long long number = value != NULL ? json_integer_value(value) : fallback;
    if (number > max)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "config.json: %s is %lld, the limit is %u", key,
                       number, max);
    *ret_value = (uint32_t)number;
    return BT_OK;
}

bt_status bt_member_real(const json_t *object, const char *key, bt_member_range range,
                         double *ret_value, bt_err *err)
{
    const json_t *value = bt_member(object, key);
    if (value == NULL && isnan(range.fallback))
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is missing", key);
    if (value != NULL && !json_is_number(value))
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is not a number", key);
    double number = value != NULL ? json_number_value(value) : range.fallback;
    if (!(number >= range.min && number <= range.max))
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is %g, not within %g to %g", key,
                       number, range.min, range.max);
    *ret_value = number;
    return BT_OK;
}

bt_status bt_member_flag(const json_t *object, const char *key, bool fallback, bool *ret_value,
                         bt_err *err)
{
    const json_t *value = bt_member(object, key);
    if (value != NULL && !json_is_boolean(value))
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is not true or false", key);
    *ret_value = value != NULL ? json_is_true(value) : fallback;
    return BT_OK;
}

bt_status bt_member_text(const json_t *object, const char *key, const char **ret_text, bt_err *err)
{
    const json_t *value = bt_member(object, key);
    if (value != NULL && !json_is_string(value))
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is not a string", key);
    *ret_text = json_string_value(value);
    return BT_OK;
}
