#include "router/request/fields.h"

#include <stdio.h>
#include <string.h>

/* ---- the body ---- */

/* Depth and number of containers, before anything is allocated for them. What is no JSON may be
 * miscounted; the parser refuses it. */
bool bt_check_shape(const char *json, size_t bytes, const char *param, uint32_t *containers,
                    bt_api_error *error)
{
    const char *what = param[0] != '\0' ? param : "the body";
    uint32_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < bytes; i++) {
        char c = json[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
            ++*containers;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
        if (depth > BT_BODY_DEPTH_MAX)
            return bt_api_refuse(error, param, "%s's JSON is nested deeper than %u levels", what,
                                 BT_BODY_DEPTH_MAX);
        if (*containers > BT_BODY_CONTAINERS_MAX)
            return bt_api_refuse(error, param, "%s's JSON has more than %u objects and arrays",
                                 what, BT_BODY_CONTAINERS_MAX);
    }
    return true;
}

bool bt_body_parse(const char *body, size_t bytes, json_t **ret_root, bt_api_error *error)
{
    uint32_t containers = 0;
    if (!bt_check_shape(body, bytes, "", &containers, error)) return false;
    json_error_t where;
    json_t *root = json_loadb(body != NULL ? body : "", bytes, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL)
        return bt_api_refuse(error, "", "the body is not valid JSON: line %d: %s", where.line,
                             where.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return bt_api_refuse(error, "", "the body must be a JSON object");
    }
    *ret_root = root;
    return true;
}

/* ---- fields ---- */

bt_field_path bt_path_of(const bt_fields *fields, const char *name)
{
    bt_field_path path;
    snprintf(path.text, sizeof(path.text), "%s%s%s", fields->path,
             fields->path[0] != '\0' ? "." : "", name);
    return path;
}

bt_field_path bt_path_at(const char *path, size_t index)
{
    bt_field_path at;
    snprintf(at.text, sizeof(at.text), "%s[%zu]", path, index);
    return at;
}

const json_t *bt_field(const bt_fields *fields, const char *name)
{
    const json_t *value = json_object_get(fields->object, name);
    return json_is_null(value) ? NULL : value;
}

static bool wrong_type(const bt_fields *fields, const char *name, const char *must)
{
    bt_field_path path = bt_path_of(fields, name);
    return bt_api_refuse(fields->error, path.text, "'%s' must be %s", path.text, must);
}

bool bt_take_number(const bt_fields *fields, const char *name, double min, double max,
                    double *ret_value)
{
    const json_t *value = bt_field(fields, name);
    if (value == NULL) return true;
    if (!json_is_number(value)) return wrong_type(fields, name, "a number");
    double number = json_number_value(value);
    if (!(number >= min && number <= max)) {
        bt_field_path path = bt_path_of(fields, name);
        return bt_api_refuse(fields->error, path.text, "'%s' must be between %g and %g, not %g",
                             path.text, min, max, number);
    }
    *ret_value = number;
    return true;
}

bool bt_take_integer(const bt_fields *fields, const char *name, int64_t min, int64_t max,
                     int64_t *ret_value)
{
    const json_t *value = bt_field(fields, name);
    if (value == NULL) return true;
    if (!json_is_integer(value)) return wrong_type(fields, name, "an integer");
    int64_t number = json_integer_value(value);
    if (number < min || number > max) {
        bt_field_path path = bt_path_of(fields, name);
        return bt_api_refuse(fields->error, path.text,
                             "'%s' must be between %lld and %lld, not %lld", path.text,
                             (long long)min, (long long)max, (long long)number);
    }
    *ret_value = number;
    return true;
}

bool bt_take_bool(const bt_fields *fields, const char *name, bool *ret_value)
{
    const json_t *value = bt_field(fields, name);
    if (value == NULL) return true;
    if (!json_is_boolean(value)) return wrong_type(fields, name, "true or false");
    *ret_value = json_is_true(value);
    return true;
}

bool bt_take_text(const bt_fields *fields, const char *name, const char **ret_text,
                  size_t *ret_bytes)
{
    const json_t *value = bt_field(fields, name);
    if (value == NULL) return true;
    if (!json_is_string(value)) return wrong_type(fields, name, "a string");
    *ret_text = json_string_value(value);
    *ret_bytes = json_string_length(value);
    return true;
}

bool bt_take_object(const bt_fields *fields, const char *name, const json_t **ret_value)
{
    *ret_value = bt_field(fields, name);
    return *ret_value == NULL || json_is_object(*ret_value) ||
           wrong_type(fields, name, "an object");
}

bool bt_take_array(const bt_fields *fields, const char *name, const json_t **ret_value)
{
    *ret_value = bt_field(fields, name);
    return *ret_value == NULL || json_is_array(*ret_value) || wrong_type(fields, name, "an array");
}

static bool is_neutral(const json_t *value, const bt_neutral *neutral)
{
    switch (neutral->kind) {
    case BT_NEUTRAL_FALSE: return json_is_false(value);
    case BT_NEUTRAL_EMPTY_TEXT: return json_is_string(value) && json_string_length(value) == 0;
    case BT_NEUTRAL_EMPTY_ARRAY: return json_is_array(value) && json_array_size(value) == 0;
    case BT_NEUTRAL_EMPTY_OBJECT: return json_is_object(value) && json_object_size(value) == 0;
    case BT_NEUTRAL_NUMBER:
        return json_is_number(value) && json_number_value(value) == neutral->number;
    default: return false;
    }
}

bool bt_refuse_unsupported(const bt_fields *fields, const bt_neutral *neutrals, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const json_t *value = bt_field(fields, neutrals[i].name);
        if (value == NULL || is_neutral(value, &neutrals[i])) continue;
        bt_field_path path = bt_path_of(fields, neutrals[i].name);
        return bt_api_refuse(fields->error, path.text, "'%s' is not supported", path.text);
    }
    return true;
}
