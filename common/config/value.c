#include "common/config/value.h"
#include "common/base/parse.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CREDENTIALS "${CREDENTIALS_DIRECTORY}"

static const struct {
    const char *name;
    size_t size; /* of the field; 0: any */
} types[] = {
    [BT_CONFIG_STRING] = {"text", 0},
    [BT_CONFIG_PATH] = {"path", 0},
    [BT_CONFIG_SECRET] = {"path of a secret", 0},
    [BT_CONFIG_U32] = {"number", sizeof(uint32_t)},
    [BT_CONFIG_U64] = {"number", sizeof(uint64_t)},
    [BT_CONFIG_BYTES] = {"size", sizeof(uint64_t)},
    [BT_CONFIG_DURATION] = {"duration", sizeof(uint64_t)},
    [BT_CONFIG_DOUBLE] = {"decimal number", sizeof(double)},
    [BT_CONFIG_BOOL] = {"true or false", sizeof(bool)},
    [BT_CONFIG_ENUM] = {"one of", sizeof(uint32_t)},
    [BT_CONFIG_LIST] = {"list of", sizeof(bt_config_list)},
};

static uint64_t max_of(const bt_config_key *key)
{
    if (key->max != 0) return key->max;
    return key->type == BT_CONFIG_U32 ? UINT32_MAX : UINT64_MAX;
}

/* A number as the key's type writes it. */
static const char *number_text(const bt_config_key *key, uint64_t value,
                               char ret_text[BT_UNIT_TEXT_BYTES])
{
    if (key->type == BT_CONFIG_BYTES) return bt_format_bytes(value, ret_text);
    if (key->type == BT_CONFIG_DURATION) return bt_format_duration_ns(value, ret_text);
    snprintf(ret_text, BT_UNIT_TEXT_BYTES, "%" PRIu64, value);
    return ret_text;
}

static bt_status set_number(const bt_config_key *key, const char *text, void *field, bt_err *err)
{
    uint64_t value;
    bt_status status = key->type == BT_CONFIG_BYTES      ? bt_parse_bytes(text, &value, err)
                       : key->type == BT_CONFIG_DURATION ? bt_parse_duration_ns(text, &value, err)
                                                         : bt_parse_u64(text, &value, err);
    if (status != BT_OK) return status;
    if (value < key->min || value > max_of(key)) {
        char low[BT_UNIT_TEXT_BYTES], high[BT_UNIT_TEXT_BYTES];
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%s' is not from %s to %s", text,
                       number_text(key, key->min, low), number_text(key, max_of(key), high));
    }
    if (key->type == BT_CONFIG_U32) {
        *(uint32_t *)field = (uint32_t)value;
    } else {
        *(uint64_t *)field = value;
    }
    return BT_OK;
}

static bt_status set_double(const bt_config_key *key, const char *text, void *field, bt_err *err)
{
    double value;
    bt_status status = bt_parse_double(text, &value, err);
    if (status != BT_OK) return status;
    bool bounded = key->min_double != 0 || key->max_double != 0;
    if (bounded && (value < key->min_double || value > key->max_double))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%s' is not from %g to %g", text, key->min_double,
                       key->max_double);
    *(double *)field = value;
    return BT_OK;
}

static bt_status set_text(const bt_config_key *key, const char *text, const char *credentials_dir,
                          char *field, bt_err *err)
{
    const char *prefix = "";
    if (key->type != BT_CONFIG_STRING && strncmp(text, CREDENTIALS, strlen(CREDENTIALS)) == 0) {
        if (credentials_dir == NULL)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "%s is not set: systemd sets it for services",
                           CREDENTIALS);
        prefix = credentials_dir;
        text += strlen(CREDENTIALS);
    }
    if (key->type != BT_CONFIG_STRING && strstr(text, "${") != NULL)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "only %s at the start is substituted", CREDENTIALS);
    size_t prefix_bytes = strlen(prefix), bytes = strlen(text);
    if (prefix_bytes >= key->size || bytes >= key->size - prefix_bytes)
        return BT_FAIL(err, BT_ERR_LIMIT, "the value is longer than %zu bytes", key->size - 1);
    memset(field, 0, key->size);
    memcpy(field, prefix, prefix_bytes);
    memcpy(field + prefix_bytes, text, bytes);
    return BT_OK;
}

/* The index of text[0..bytes) in choices. */
static bool find_choice(const bt_config_key *key, const char *text, size_t bytes,
                        uint32_t *ret_index)
{
    for (uint32_t i = 0; key->choices[i] != NULL; i++) {
        if (strlen(key->choices[i]) != bytes || memcmp(key->choices[i], text, bytes) != 0) continue;
        *ret_index = i;
        return true;
    }
    return false;
}

/* Appends to a text of capacity, cutting. */
static void append(char *text, size_t capacity, const char *more)
{
    size_t used = strlen(text);
    snprintf(text + used, capacity - used, "%s", more);
}

static void append_choices(const bt_config_key *key, char *text, size_t capacity)
{
    for (uint32_t i = 0; key->choices[i] != NULL; i++) {
        append(text, capacity, i > 0 ? ", " : "");
        append(text, capacity, key->choices[i]);
    }
}

static bt_status refuse_choice(const bt_config_key *key, const char *text, size_t bytes,
                               bt_err *err)
{
    char quoted[40], choices[100];
    bt_escape(text, bytes, quoted, sizeof(quoted));
    choices[0] = '\0';
    append_choices(key, choices, sizeof(choices));
    return BT_FAIL(err, BT_ERR_ARGUMENT, "'%s' is none of %s", quoted, choices);
}

static bt_status set_list(const bt_config_key *key, const char *text, bt_config_list *field,
                          bt_err *err)
{
    bt_config_list list = {0};
    for (const char *at = text;;) {
        at += strspn(at, " \t,");
        size_t bytes = strcspn(at, " \t,");
        if (bytes == 0) break;
        uint32_t index;
        if (!find_choice(key, at, bytes, &index)) return refuse_choice(key, at, bytes, err);
        for (uint32_t i = 0; i < list.count; i++) {
            if (list.index[i] == index)
                return BT_FAIL(err, BT_ERR_ARGUMENT, "'%s' is listed twice", key->choices[index]);
        }
        assert(list.count < BT_CONFIG_CHOICES_MAX); /* there are no more choices than that */
        list.index[list.count++] = index;
        at += bytes;
    }
    if (list.count == 0) return BT_FAIL(err, BT_ERR_ARGUMENT, "the list is empty");
    *field = list;
    return BT_OK;
}

bt_status bt_config_value_set(const bt_config_key *key, const char *text,
                              const char *credentials_dir, void *config, bt_err *err)
{
    assert(types[key->type].size == 0 ? key->size > 1 : key->size == types[key->type].size);
    void *field = (char *)config + key->offset;
    switch (key->type) {
    case BT_CONFIG_STRING:
    case BT_CONFIG_PATH:
    case BT_CONFIG_SECRET: return set_text(key, text, credentials_dir, field, err);
    case BT_CONFIG_U32:
    case BT_CONFIG_U64:
    case BT_CONFIG_BYTES:
    case BT_CONFIG_DURATION: return set_number(key, text, field, err);
    case BT_CONFIG_DOUBLE: return set_double(key, text, field, err);
    case BT_CONFIG_BOOL: return bt_parse_bool(text, field, err);
    case BT_CONFIG_ENUM:
        if (find_choice(key, text, strlen(text), field)) return BT_OK;
        return refuse_choice(key, text, strlen(text), err);
    case BT_CONFIG_LIST: return set_list(key, text, field, err);
    }
    assert(!"a type without a parser");
    return BT_ERR_ARGUMENT;
}

/* The shortest %g that reads back as value. */
static void append_double(char *text, size_t capacity, double value)
{
    char number[BT_UNIT_TEXT_BYTES];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(number, sizeof(number), "%.*g", digits, value);
        if (strtod(number, NULL) == value) break;
    }
    append(text, capacity, number);
}

const char *bt_config_value_text(const bt_config_key *key, const void *config, char *ret_text,
                                 size_t capacity)
{
    const void *field = (const char *)config + key->offset;
    char number[BT_UNIT_TEXT_BYTES];
    ret_text[0] = '\0';
    switch (key->type) {
    case BT_CONFIG_STRING:
    case BT_CONFIG_PATH:
    case BT_CONFIG_SECRET: append(ret_text, capacity, field); break;
    case BT_CONFIG_U32:
        append(ret_text, capacity, number_text(key, *(const uint32_t *)field, number));
        break;
    case BT_CONFIG_U64:
    case BT_CONFIG_BYTES:
    case BT_CONFIG_DURATION:
        append(ret_text, capacity, number_text(key, *(const uint64_t *)field, number));
        break;
    case BT_CONFIG_DOUBLE: append_double(ret_text, capacity, *(const double *)field); break;
    case BT_CONFIG_BOOL: append(ret_text, capacity, *(const bool *)field ? "true" : "false"); break;
    case BT_CONFIG_ENUM: append(ret_text, capacity, key->choices[*(const uint32_t *)field]); break;
    case BT_CONFIG_LIST: {
        const bt_config_list *list = field;
        for (uint32_t i = 0; i < list->count; i++) {
            append(ret_text, capacity, i > 0 ? ", " : "");
            append(ret_text, capacity, key->choices[list->index[i]]);
        }
        break;
    }
    }
    return ret_text;
}

const char *bt_config_value_kind(const bt_config_key *key, char *ret_text, size_t capacity)
{
    char low[BT_UNIT_TEXT_BYTES], high[BT_UNIT_TEXT_BYTES];
    snprintf(ret_text, capacity, "%s", types[key->type].name);
    switch (key->type) {
    case BT_CONFIG_U32:
    case BT_CONFIG_U64:
    case BT_CONFIG_BYTES:
    case BT_CONFIG_DURATION:
        if (key->min == 0 && key->max == 0) break;
        append(ret_text, capacity, ", ");
        append(ret_text, capacity, number_text(key, key->min, low));
        append(ret_text, capacity, key->max != 0 ? " to " : " or more");
        if (key->max != 0) append(ret_text, capacity, number_text(key, key->max, high));
        break;
    case BT_CONFIG_DOUBLE:
        if (key->min_double == 0 && key->max_double == 0) break;
        append(ret_text, capacity, ", ");
        append_double(ret_text, capacity, key->min_double);
        append(ret_text, capacity, " to ");
        append_double(ret_text, capacity, key->max_double);
        break;
    case BT_CONFIG_ENUM:
    case BT_CONFIG_LIST:
        append(ret_text, capacity, " ");
        append_choices(key, ret_text, capacity);
        break;
    default: break;
    }
    return ret_text;
}
