/* functions.c - the global functions of Hugging Face's environment. */
#include "common/base/clock.h"
#include "common/text/template/methods.h"

#include <string.h>
#include <time.h>

BT_TPL_NATIVE(range)
{
    int64_t numbers[3] = {0, 0, 1};
    for (size_t i = 0; i < 3; i++) {
        if (!bt_tpl_arg_int(run, args[i], numbers[i], &numbers[i])) return false;
    }
    if (args[1].type == BT_TPL_MISSING) {
        numbers[1] = numbers[0];
        numbers[0] = 0;
    }
    int64_t start = numbers[0], stop = numbers[1], step = numbers[2];
    if (step == 0) return BT_TPL_RAISE(run, "range() arg 3 must not be zero");
    __int128 gap = step > 0 ? (__int128)stop - start : (__int128)start - stop;
    __int128 stride = step > 0 ? (__int128)step : -(__int128)step;
    __int128 count = gap > 0 ? (gap - 1) / stride + 1 : 0;
    if (count > (__int128)run->limits.list_items)
        return bt_tpl_fail(run, BT_ERR_LIMIT, "a range of more than %zu numbers",
                           run->limits.list_items);
    bt_tpl_range *made = BT_TPL_NEW(run, bt_tpl_range);
    if (made == NULL) return false;
    *made = (bt_tpl_range){.start = start, .stop = stop, .step = step, .count = (size_t)count};
    *ret = (bt_tpl_value){.type = BT_TPL_RANGE, .range = made};
    return true;
}

/* dict(mapping or pairs, name=value, …). */
static bool fill_dict(bt_tpl_run *run, bt_tpl_dict *dict, const bt_tpl_args *from)
{
    if (from->count > 1)
        return BT_TPL_RAISE(run, "dict expected at most 1 argument, got %zu", from->count);
    if (from->count == 1 && from->args[0].type == BT_TPL_DICT) {
        const bt_tpl_dict *other = from->args[0].dict;
        for (size_t i = 0; i < other->count; i++) {
            if (!bt_tpl_dict_put(run, dict, other->entries[i].key, other->entries[i].value))
                return false;
        }
    } else if (from->count == 1) {
        bt_tpl_list *pairs, *pair;
        if (!bt_tpl_walk(run, from->args[0], &pairs)) return false;
        for (size_t i = 0; i < pairs->count; i++) {
            if (!bt_tpl_walk(run, pairs->items[i], &pair)) return false;
            if (pair->count != 2)
                return BT_TPL_RAISE(run, "dict() needs pairs; element %zu has length %zu", i,
                                    pair->count);
            if (!bt_tpl_dict_put(run, dict, pair->items[0], pair->items[1])) return false;
        }
    }
    for (size_t i = 0; i < from->named_count; i++) {
        bt_tpl_value key = BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)from->names[i]);
        if (!bt_tpl_dict_put(run, dict, key, from->named[i])) return false;
    }
    return true;
}

BT_TPL_NATIVE(dict)
{
    bt_tpl_dict *made;
    if (!bt_tpl_dict_new(run, 4, &made) || !fill_dict(run, made, rest)) return false;
    *ret = (bt_tpl_value){.type = BT_TPL_DICT, .dict = made};
    return true;
}

BT_TPL_NATIVE(namespace)
{
    bt_tpl_dict *made;
    if (!bt_tpl_dict_new(run, 4, &made) || !fill_dict(run, made, rest)) return false;
    *ret = (bt_tpl_value){.type = BT_TPL_NAMESPACE, .dict = made};
    return true;
}

BT_TPL_NATIVE(joiner)
{
    static const bt_tpl_str comma = {.data = ", ", .bytes = 2, .chars = 2};
    bt_tpl_joiner *made = BT_TPL_NEW(run, bt_tpl_joiner);
    bt_tpl_str *separator = (bt_tpl_str *)(uintptr_t)&comma;
    if (made == NULL) return false;
    if (args[0].type != BT_TPL_MISSING && !bt_tpl_arg_str(run, args[0], &separator)) return false;
    *made = (bt_tpl_joiner){.separator = separator};
    *ret = (bt_tpl_value){.type = BT_TPL_JOINER, .joiner = made};
    return true;
}

BT_TPL_NATIVE(cycler)
{
    if (rest->count == 0) return BT_TPL_RAISE(run, "at least one item has to be provided");
    bt_tpl_list *items;
    bt_tpl_cycler *made = BT_TPL_NEW(run, bt_tpl_cycler);
    if (made == NULL || !bt_tpl_list_new(run, rest->count, &items)) return false;
    memcpy(items->items, rest->args, rest->count * sizeof(items->items[0]));
    items->count = rest->count;
    *made = (bt_tpl_cycler){.items = items};
    *ret = (bt_tpl_value){.type = BT_TPL_CYCLER, .cycler = made};
    return true;
}

/* The template's own refusal; its words go to whoever sent the request. */
BT_TPL_NATIVE(raise_exception)
{
    bt_tpl_str *message;
    *ret = BT_TPL_V_NONE;
    if (!bt_tpl_to_str(run, args[0], &message)) return false;
    int shown = (int)(message->bytes > 150 ? 150 : message->bytes);
    return BT_TPL_RAISE(run, "%.*s", shown, message->data);
}

/* datetime.now().strftime(format), in local time. */
BT_TPL_NATIVE(strftime_now)
{
    bt_tpl_str *format;
    if (!bt_tpl_arg_str(run, args[0], &format)) return false;
    char *text = bt_tpl_take(run, format->bytes + 1, 1);
    size_t room = 16 * format->bytes + 64;
    char *out = bt_tpl_take(run, room, 1);
    if (text == NULL || out == NULL) return false;
    memcpy(text, format->data, format->bytes);
    time_t now = (time_t)(bt_wall_ns() / 1000000000u);
    struct tm parts;
    if (localtime_r(&now, &parts) == NULL) return BT_TPL_RAISE(run, "the time is not valid");
    return bt_tpl_str_new(run, out, strftime(out, room, text, &parts), ret);
}

static const bt_tpl_native functions[] = {
    {"range", "/start,stop=,step=", range},
    {"dict", "*", dict},
    {"namespace", "*", namespace},
    {"joiner", "sep=", joiner},
    {"cycler", "*", cycler},
    {"raise_exception", "message", raise_exception},
    {"strftime_now", "format", strftime_now},
};

const bt_tpl_native *bt_tpl_function(const char *name, size_t bytes)
{
    return bt_tpl_native_find(functions, sizeof(functions) / sizeof(functions[0]), name, bytes);
}
