/* methods.c - which value has which methods, and those of lists, dicts and loops. Those of strings
 * are in methods_str.c. A method that would change its value is there but may not be used, as in
 * Jinja's immutable sandbox. */
#include "common/text/template/methods.h"

#include "common/text/template/eval.h"

#include <string.h>

/* Dicts. */

static bool view(bt_tpl_run *run, bt_tpl_value self, bt_tpl_view_kind kind, bt_tpl_value *ret)
{
    bt_tpl_view *made = BT_TPL_NEW(run, bt_tpl_view);
    if (made == NULL) return false;
    *made = (bt_tpl_view){.dict = self.dict, .kind = kind};
    *ret = (bt_tpl_value){.type = BT_TPL_VIEW, .view = made};
    return true;
}

BT_TPL_NATIVE(dict_keys)
{
    return view(run, self, BT_TPL_KEYS, ret);
}

BT_TPL_NATIVE(dict_values)
{
    return view(run, self, BT_TPL_VALUES, ret);
}

BT_TPL_NATIVE(dict_items)
{
    return view(run, self, BT_TPL_ITEMS, ret);
}

BT_TPL_NATIVE(dict_get)
{
    if (!bt_tpl_hashable(args[0]))
        return BT_TPL_RAISE(run, "unhashable type: '%s'", bt_tpl_type_name(args[0]));
    if (!bt_tpl_dict_get(run, self.dict, args[0], ret)) return false;
    if (ret->type == BT_TPL_MISSING)
        *ret = args[1].type == BT_TPL_MISSING ? BT_TPL_V_NONE : args[1];
    return true;
}

BT_TPL_NATIVE(same)
{
    *ret = self; /* a copy of what never changes */
    return true;
}

static const bt_tpl_native dict_methods[] = {
    {"keys", "", dict_keys},   {"values", "", dict_values},
    {"items", "", dict_items}, {"get", "/key,default=", dict_get},
    {"copy", "", same},
};

/* Lists and tuples. */

/* Of lists, tuples and ranges. */
BT_TPL_NATIVE(list_index)
{
    if (!bt_tpl_walk(run, self, &self.list)) return false;
    int64_t size = (int64_t)self.list->count, first, end;
    if (!bt_tpl_arg_int(run, args[1], 0, &first) || !bt_tpl_arg_int(run, args[2], size, &end))
        return false;
    if (first < 0) first = first + size < 0 ? 0 : first + size;
    if (end < 0) end += size;
    for (int64_t i = first; i < end && i < size; i++) {
        bool equal;
        if (!bt_tpl_equal(run, self.list->items[i], args[0], &equal)) return false;
        if (!equal) continue;
        *ret = BT_TPL_V_INT(i);
        return true;
    }
    return BT_TPL_RAISE(run, "the value is not in the list");
}

BT_TPL_NATIVE(list_count)
{
    if (!bt_tpl_walk(run, self, &self.list)) return false;
    int64_t count = 0;
    for (size_t i = 0; i < self.list->count; i++) {
        bool equal;
        if (!bt_tpl_equal(run, self.list->items[i], args[0], &equal)) return false;
        count += equal;
    }
    *ret = BT_TPL_V_INT(count);
    return true;
}

static const bt_tpl_native list_methods[] = {
    {"index", "/value,start=,stop=", list_index},
    {"count", "/value", list_count},
    {"copy", "", same}, /* the last row: only lists have it */
};

/* Loops. */

BT_TPL_NATIVE(loop_cycle)
{
    if (rest->count == 0) return BT_TPL_RAISE(run, "no items for cycling given");
    *ret = rest->args[self.loop->index % rest->count];
    return true;
}

BT_TPL_NATIVE(loop_changed)
{
    bt_tpl_list *now;
    if (!bt_tpl_list_new(run, rest->count, &now)) return false;
    if (rest->count > 0) memcpy(now->items, rest->args, rest->count * sizeof(now->items[0]));
    now->count = rest->count;
    bool equal = false;
    bt_tpl_list *before = self.loop->changed;
    if (before != NULL && !bt_tpl_equal(run, (bt_tpl_value){.type = BT_TPL_TUPLE, .list = before},
                                        (bt_tpl_value){.type = BT_TPL_TUPLE, .list = now}, &equal))
        return false;
    if (!equal) self.loop->changed = now;
    *ret = BT_TPL_V_BOOL(!equal);
    return true;
}

static const bt_tpl_native loop_methods[] = {
    {"cycle", "/*", loop_cycle},
    {"changed", "/*", loop_changed},
};

/* Cyclers. */

BT_TPL_NATIVE(cycler_current)
{
    *ret = self.cycler->items->items[self.cycler->at];
    return true;
}

BT_TPL_NATIVE(cycler_next)
{
    cycler_current(run, self, args, rest, ret);
    self.cycler->at = (self.cycler->at + 1) % self.cycler->items->count;
    return true;
}

BT_TPL_NATIVE(cycler_reset)
{
    self.cycler->at = 0;
    *ret = BT_TPL_V_NONE;
    return true;
}

static const bt_tpl_native cycler_methods[] = {
    {"next", "", cycler_next},
    {"reset", "", cycler_reset},
};

static bool is_one_of(const char *name, size_t bytes, const char *const *names)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        if (strlen(names[i]) == bytes && memcmp(names[i], name, bytes) == 0) return true;
    }
    return false;
}

#define ROWS(table) table, sizeof(table) / sizeof((table)[0])

const bt_tpl_native *bt_tpl_method_of(bt_tpl_value self, const char *name, size_t bytes,
                                      bool *ret_unsafe)
{
    static const char *const changes_list[] = {"append", "clear",  "pop",    "reverse", "insert",
                                               "sort",   "extend", "remove", NULL};
    static const char *const changes_dict[] = {"clear",      "pop",    "popitem",
                                               "setdefault", "update", NULL};
    *ret_unsafe = bytes > 4 && memcmp(name, "__", 2) == 0 && memcmp(name + bytes - 2, "__", 2) == 0;
    if (*ret_unsafe) return NULL;
    switch (self.type) {
    case BT_TPL_STR: return bt_tpl_str_method(name, bytes);
    case BT_TPL_LIST:
        *ret_unsafe = is_one_of(name, bytes, changes_list);
        return bt_tpl_native_find(ROWS(list_methods), name, bytes);
    case BT_TPL_TUPLE:
    case BT_TPL_RANGE:
        return bt_tpl_native_find(list_methods, sizeof(list_methods) / sizeof(list_methods[0]) - 1,
                                  name, bytes);
    case BT_TPL_DICT:
        *ret_unsafe = is_one_of(name, bytes, changes_dict);
        return bt_tpl_native_find(ROWS(dict_methods), name, bytes);
    case BT_TPL_LOOP: return bt_tpl_native_find(ROWS(loop_methods), name, bytes);
    case BT_TPL_CYCLER: return bt_tpl_native_find(ROWS(cycler_methods), name, bytes);
    default: return NULL;
    }
}

bool bt_tpl_cycler_current(bt_tpl_value cycler, bt_tpl_value *ret)
{
    return cycler_current(NULL, cycler, NULL, NULL, ret);
}
