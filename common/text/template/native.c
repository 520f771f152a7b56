#include "common/text/template/native.h"

#include <string.h>

const bt_tpl_native *bt_tpl_native_find(const bt_tpl_native *rows, size_t count, const char *name,
                                        size_t bytes)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(rows[i].name) == bytes && memcmp(rows[i].name, name, bytes) == 0)
            return &rows[i];
    }
    return NULL;
}

/* One name of a list of parameters. */
typedef struct {
    const char *name;
    size_t bytes;
    bool optional, rest;
} param;

typedef struct {
    param params[BT_TPL_PARAMS_MAX];
    size_t count;
    bool rest;            /* takes what is left over */
    bool positional_only; /* names cannot be used */
} signature;

static void read_signature(const char *text, signature *ret)
{
    *ret = (signature){0};
    if (*text == '/') {
        ret->positional_only = true;
        text++;
    }
    while (*text != '\0') {
        size_t bytes = strcspn(text, ",");
        if (*text == '*') {
            ret->rest = true;
        } else {
            param *one = &ret->params[ret->count++];
            one->optional = text[bytes - 1] == '=';
            one->name = text;
            one->bytes = bytes - one->optional;
        }
        text += bytes + (text[bytes] == ',');
    }
}

static size_t find_param(const signature *expected, const bt_tpl_str *name)
{
    size_t i = 0;
    while (i < expected->count && (expected->params[i].bytes != name->bytes ||
                                   memcmp(expected->params[i].name, name->data, name->bytes) != 0))
        i++;
    return i;
}

static bool bind_named(bt_tpl_run *run, const bt_tpl_native *native, const signature *expected,
                       const bt_tpl_args *args, bt_tpl_value *bound)
{
    for (size_t i = 0; i < args->named_count; i++) {
        const bt_tpl_str *name = args->names[i];
        int shown = (int)(name->bytes > 40 ? 40 : name->bytes);
        if (expected->positional_only)
            return BT_TPL_RAISE(run, "%s() takes no keyword arguments", native->name);
        size_t at = find_param(expected, name);
        if (at == expected->count) {
            if (expected->rest) continue;
            return BT_TPL_RAISE(run, "%s() got an unexpected keyword argument '%.*s'", native->name,
                                shown, name->data);
        }
        if (bound[at].type != BT_TPL_MISSING)
            return BT_TPL_RAISE(run, "%s() got multiple values for argument '%.*s'", native->name,
                                shown, name->data);
        bound[at] = args->named[i];
    }
    return true;
}

bool bt_tpl_native_call(bt_tpl_run *run, const bt_tpl_native *native, bt_tpl_value self,
                        const bt_tpl_args *args, bt_tpl_value *ret)
{
    signature expected;
    read_signature(native->params, &expected);
    bt_tpl_value bound[BT_TPL_PARAMS_MAX];
    for (size_t i = 0; i < BT_TPL_PARAMS_MAX; i++)
        bound[i] = (bt_tpl_value){.type = BT_TPL_MISSING};
    size_t taken = args->count < expected.count ? args->count : expected.count;
    for (size_t i = 0; i < taken; i++) bound[i] = args->args[i];
    if (args->count > taken && !expected.rest)
        return BT_TPL_RAISE(run, "%s() takes at most %zu arguments (%zu given)", native->name,
                            expected.count, args->count);
    if (!bind_named(run, native, &expected, args, bound)) return false;
    for (size_t i = 0; i < expected.count; i++) {
        if (bound[i].type == BT_TPL_MISSING && !expected.params[i].optional)
            return BT_TPL_RAISE(run, "%s() missing the argument '%.*s'", native->name,
                                (int)expected.params[i].bytes, expected.params[i].name);
    }
    bt_tpl_args rest = *args;
    if (taken > 0) rest.args += taken;
    rest.count -= taken;
    return native->call(run, self, bound, &rest, ret);
}

bool bt_tpl_arg_int(bt_tpl_run *run, bt_tpl_value value, int64_t fallback, int64_t *ret_number)
{
    *ret_number = fallback;
    if (value.type == BT_TPL_MISSING || bt_tpl_as_int(value, ret_number)) return true;
    if (value.type == BT_TPL_UNDEFINED) return bt_tpl_undefined_fail(run, value);
    return BT_TPL_RAISE(run, "'%s' object cannot be interpreted as an integer",
                        bt_tpl_type_name(value));
}

bool bt_tpl_arg_str(bt_tpl_run *run, bt_tpl_value value, bt_tpl_str **ret_str)
{
    if (value.type != BT_TPL_STR)
        return BT_TPL_RAISE(run, "expected a str, not %s", bt_tpl_type_name(value));
    *ret_str = value.str;
    return true;
}

bool bt_tpl_to_str(bt_tpl_run *run, bt_tpl_value value, bt_tpl_str **ret_str)
{
    if (value.type == BT_TPL_STR) {
        *ret_str = value.str;
        return true;
    }
    bt_tpl_builder builder;
    bt_tpl_value text;
    bt_tpl_build(run, &builder);
    if (!bt_tpl_print(run, &builder, value) || !bt_tpl_built(run, &builder, &text)) return false;
    *ret_str = text.str;
    return true;
}
