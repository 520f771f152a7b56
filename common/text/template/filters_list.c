/* filters_list.c - filters of lists and dicts, and the table of all filters. */
#include "common/text/template/filters.h"

#include "common/text/template/eval.h"
#include "common/text/template/methods.h"

#include <string.h>

/* Keys of items. */

static bool get_part(bt_tpl_run *run, const bt_tpl_str *path, size_t first, size_t end,
                     bt_tpl_value item, bt_tpl_value *ret)
{
    bt_tpl_value part;
    int64_t index = 0;
    bool digits = end > first && end - first < 18;
    for (size_t i = first; i < end; i++) {
        digits &= path->data[i] >= '0' && path->data[i] <= '9';
        if (digits) index = index * 10 + path->data[i] - '0';
    }
    if (!bt_tpl_str_slice(run, path, first, end, &part)) return false;
    return bt_tpl_get_item(run, item, digits ? BT_TPL_V_INT(index) : part, ret);
}

/* "a.b.0": each part in turn. */
static bool get_path(bt_tpl_run *run, const bt_tpl_str *path, bt_tpl_value fallback,
                     bt_tpl_value item, bt_tpl_value *ret)
{
    bool replaces = fallback.type != BT_TPL_MISSING && fallback.type != BT_TPL_NONE;
    for (size_t first = 0; first <= path->bytes;) {
        const char *dot =
            first < path->bytes ? memchr(path->data + first, '.', path->bytes - first) : NULL;
        size_t end = dot != NULL ? (size_t)(dot - path->data) : path->bytes;
        if (!get_part(run, path, first, end, item, &item)) return false;
        if (replaces && item.type == BT_TPL_UNDEFINED) item = fallback;
        first = end + 1;
    }
    *ret = item;
    return true;
}

bool bt_tpl_get_key(bt_tpl_run *run, const bt_tpl_getter *getter, bt_tpl_value item,
                    bt_tpl_value *ret_key)
{
    bt_tpl_value attribute = getter->attribute;
    *ret_key = item;
    if (attribute.type == BT_TPL_STR) {
        if (!get_path(run, attribute.str, getter->fallback, item, ret_key)) return false;
    } else if (attribute.type != BT_TPL_MISSING && attribute.type != BT_TPL_NONE) {
        if (!bt_tpl_get_item(run, item, attribute, ret_key)) return false;
        if (ret_key->type == BT_TPL_UNDEFINED && getter->fallback.type != BT_TPL_MISSING &&
            getter->fallback.type != BT_TPL_NONE)
            *ret_key = getter->fallback;
    }
    if (!getter->ignore_case || ret_key->type != BT_TPL_STR) return true;
    static const bt_tpl_args none = {0};
    return bt_tpl_native_call(run, bt_tpl_str_method("lower", 5), *ret_key, &none, ret_key);
}

/* Sorting: a stable merge sort, because comparing may fail. */

typedef struct {
    bt_tpl_value key, item;
} keyed;

/* Whether b must stand before a. */
static bool before(bt_tpl_run *run, const keyed *b, const keyed *a, bool reverse, bool *ret_before)
{
    int order;
    bool fine = reverse ? bt_tpl_compare(run, a->key, b->key, "<", &order)
                        : bt_tpl_compare(run, b->key, a->key, "<", &order);
    if (fine) *ret_before = order < 0;
    return fine;
}

static bool merge_sort(bt_tpl_run *run, keyed *items, keyed *scratch, size_t count, bool reverse)
{
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t base = 0; base < count; base += 2 * width) {
            size_t middle = base + width < count ? base + width : count;
            size_t end = middle + width < count ? middle + width : count;
            size_t left = base, right = middle;
            for (size_t out = base; out < end; out++) {
                bool right_first = left == middle;
                if (left < middle && right < end &&
                    !before(run, &items[right], &items[left], reverse, &right_first))
                    return false;
                scratch[out] = right_first ? items[right++] : items[left++];
            }
        }
        memcpy(items, scratch, count * sizeof(items[0]));
    }
    return true;
}

static bool sort_keyed(bt_tpl_run *run, keyed *items, size_t count, bool reverse)
{
    keyed *scratch = bt_tpl_take(run, count, sizeof(scratch[0]));
    return scratch != NULL && bt_tpl_steps(run, count) &&
           merge_sort(run, items, scratch, count, reverse);
}

static bool key_items(bt_tpl_run *run, const bt_tpl_list *list, const bt_tpl_getter *getter,
                      keyed **ret_items)
{
    keyed *items = bt_tpl_take(run, list->count, sizeof(items[0]));
    if (items == NULL) return false;
    for (size_t i = 0; i < list->count; i++) {
        items[i].item = list->items[i];
        if (!bt_tpl_get_key(run, getter, list->items[i], &items[i].key)) return false;
    }
    *ret_items = items;
    return true;
}

static bool from_keyed(bt_tpl_run *run, const keyed *items, size_t count, bt_tpl_value *ret)
{
    bt_tpl_list *list;
    if (!bt_tpl_list_new(run, count, &list)) return false;
    for (; list->count < count; list->count++) list->items[list->count] = items[list->count].item;
    return bt_tpl_list_value(run, list, BT_TPL_LIST, ret);
}

/* "a,b": a tuple of keys for each item. */
static bool several_keys(bt_tpl_run *run, const bt_tpl_str *paths, bool ignore_case,
                         bt_tpl_value item, bt_tpl_value *ret_key)
{
    bt_tpl_items keys = {0};
    for (size_t first = 0; first <= paths->bytes;) {
        const char *comma =
            first < paths->bytes ? memchr(paths->data + first, ',', paths->bytes - first) : NULL;
        size_t end = comma != NULL ? (size_t)(comma - paths->data) : paths->bytes;
        bt_tpl_getter getter = {.ignore_case = ignore_case};
        bt_tpl_value key;
        if (!bt_tpl_str_slice(run, paths, first, end, &getter.attribute) ||
            !bt_tpl_get_key(run, &getter, item, &key) || !bt_tpl_items_push(run, &keys, key))
            return false;
        first = end + 1;
    }
    return bt_tpl_items_done(run, &keys, BT_TPL_LIST, ret_key);
}

static bool list_of_one(bt_tpl_run *run, bt_tpl_value item, bt_tpl_value *ret)
{
    bt_tpl_list *list;
    if (!bt_tpl_list_new(run, 1, &list)) return false;
    list->items[list->count++] = item;
    return bt_tpl_list_value(run, list, BT_TPL_LIST, ret);
}

BT_TPL_NATIVE(do_sort)
{
    bt_tpl_list *list;
    keyed *items;
    bool reverse = bt_tpl_true(args[0]), ignore_case = !bt_tpl_true(args[1]);
    bool paths = args[2].type == BT_TPL_STR;
    bt_tpl_getter getter = {.attribute = args[2], .ignore_case = ignore_case};
    if (paths) getter = (bt_tpl_getter){0};
    if (!bt_tpl_walk(run, self, &list) || !key_items(run, list, &getter, &items)) return false;
    /* Jinja's keys are lists, even of one: what is equal is not compared further. */
    for (size_t i = 0; i < list->count; i++) {
        bt_tpl_value *key = &items[i].key;
        bool fine = paths ? several_keys(run, args[2].str, ignore_case, items[i].item, key)
                          : list_of_one(run, *key, key);
        if (!fine) return false;
    }
    return sort_keyed(run, items, list->count, reverse) && from_keyed(run, items, list->count, ret);
}

BT_TPL_NATIVE(do_dictsort)
{
    if (self.type != BT_TPL_DICT)
        return self.type == BT_TPL_UNDEFINED
                   ? bt_tpl_undefined_fail(run, self)
                   : BT_TPL_RAISE(run, "'%s' object has no attribute 'items'",
                                  bt_tpl_type_name(self));
    bool by_value = bt_tpl_is_text(args[1], "value");
    if (args[1].type != BT_TPL_MISSING && !by_value && !bt_tpl_is_text(args[1], "key"))
        return BT_TPL_RAISE(run, "You can only sort by either \"key\" or \"value\"");
    bt_tpl_view view = {.dict = self.dict, .kind = BT_TPL_ITEMS};
    bt_tpl_getter getter = {.attribute = BT_TPL_V_INT(by_value),
                            .ignore_case = !bt_tpl_true(args[0])};
    bt_tpl_list *list;
    keyed *items;
    return bt_tpl_walk(run, (bt_tpl_value){.type = BT_TPL_VIEW, .view = &view}, &list) &&
           key_items(run, list, &getter, &items) &&
           sort_keyed(run, items, list->count, bt_tpl_true(args[2])) &&
           from_keyed(run, items, list->count, ret);
}

static bool make_group(bt_tpl_run *run, bt_tpl_value key, const bt_tpl_items *items,
                       bt_tpl_items *groups)
{
    bt_tpl_list *pair;
    bt_tpl_value value;
    if (!bt_tpl_list_new(run, 2, &pair) ||
        !bt_tpl_items_done(run, items, BT_TPL_LIST, &pair->items[1]))
        return false;
    pair->items[0] = key;
    pair->count = 2;
    pair->group = true;
    return bt_tpl_list_value(run, pair, BT_TPL_TUPLE, &value) &&
           bt_tpl_items_push(run, groups, value);
}

BT_TPL_NATIVE(do_groupby)
{
    bt_tpl_getter getter = {
        .attribute = args[0], .fallback = args[1], .ignore_case = !bt_tpl_true(args[2])};
    bt_tpl_getter shown = getter;
    shown.ignore_case = false;
    bt_tpl_list *list;
    keyed *items;
    bt_tpl_items groups = {0};
    if (!bt_tpl_walk(run, self, &list) || !key_items(run, list, &getter, &items) ||
        !sort_keyed(run, items, list->count, false))
        return false;
    for (size_t i = 0; i < list->count;) {
        bt_tpl_items group = {0};
        bt_tpl_value key;
        if (!bt_tpl_get_key(run, &shown, items[i].item, &key)) return false;
        bool same = true;
        for (size_t first = i; same && i < list->count;) {
            if (!bt_tpl_items_push(run, &group, items[i++].item)) return false;
            if (i < list->count && !bt_tpl_equal(run, items[first].key, items[i].key, &same))
                return false;
        }
        if (!make_group(run, key, &group, &groups)) return false;
    }
    return bt_tpl_items_done(run, &groups, BT_TPL_LIST, ret);
}

BT_TPL_NATIVE(do_unique)
{
    bt_tpl_getter getter = {.attribute = args[1], .ignore_case = !bt_tpl_true(args[0])};
    bt_tpl_list *list;
    bt_tpl_dict *seen;
    bt_tpl_items kept = {0};
    if (!bt_tpl_walk(run, self, &list) || !bt_tpl_dict_new(run, 8, &seen)) return false;
    for (size_t i = 0; i < list->count; i++) {
        bt_tpl_value key, found;
        if (!bt_tpl_get_key(run, &getter, list->items[i], &key)) return false;
        if (!bt_tpl_hashable(key))
            return BT_TPL_RAISE(run, "unhashable type: '%s'", bt_tpl_type_name(key));
        if (!bt_tpl_dict_get(run, seen, key, &found)) return false;
        if (found.type != BT_TPL_MISSING) continue;
        if (!bt_tpl_dict_put(run, seen, key, BT_TPL_V_NONE) ||
            !bt_tpl_items_push(run, &kept, list->items[i]))
            return false;
    }
    return bt_tpl_items_done(run, &kept, BT_TPL_LIST, ret) &&
           bt_tpl_iterator_value(run, ret->list, "generator", ret);
}

static bool extreme(bt_tpl_run *run, bt_tpl_value self, const bt_tpl_value *args, bool greatest,
                    bt_tpl_value *ret)
{
    bt_tpl_getter getter = {.attribute = args[1], .ignore_case = !bt_tpl_true(args[0])};
    bt_tpl_list *list;
    keyed *items;
    if (!bt_tpl_walk(run, self, &list) || !key_items(run, list, &getter, &items)) return false;
    if (list->count == 0)
        return bt_tpl_undefined_hint(run, "No aggregated item, sequence was empty.", ret);
    size_t best = 0;
    for (size_t i = 1; i < list->count; i++) {
        int order;
        if (!bt_tpl_compare(run, items[i].key, items[best].key, greatest ? ">" : "<", &order))
            return false;
        if (greatest ? order > 0 : order < 0) best = i;
    }
    *ret = items[best].item;
    return true;
}

BT_TPL_NATIVE(do_min)
{
    return extreme(run, self, args, false, ret);
}

BT_TPL_NATIVE(do_max)
{
    return extreme(run, self, args, true, ret);
}

BT_TPL_NATIVE(do_sum)
{
    bt_tpl_getter getter = {.attribute = args[0]};
    bt_tpl_list *list;
    *ret = args[1].type == BT_TPL_MISSING ? BT_TPL_V_INT(0) : args[1];
    if (ret->type == BT_TPL_STR)
        return BT_TPL_RAISE(run, "sum() can't sum strings [use ''.join(seq) instead]");
    if (!bt_tpl_walk(run, self, &list)) return false;
    for (size_t i = 0; i < list->count; i++) {
        bt_tpl_value key;
        if (!bt_tpl_get_key(run, &getter, list->items[i], &key) ||
            !bt_tpl_binary(run, '+', *ret, key, ret))
            return false;
    }
    return true;
}

/* Ends. */

BT_TPL_NATIVE(do_first)
{
    bt_tpl_list *list;
    if (self.type == BT_TPL_ITERATOR) {
        bt_tpl_iterator *iterator = self.iterator;
        if (iterator->next < iterator->list->count) {
            *ret = iterator->list->items[iterator->next++];
            return true;
        }
    } else {
        if (!bt_tpl_walk(run, self, &list)) return false;
        if (list->count > 0) {
            *ret = list->items[0];
            return true;
        }
    }
    return bt_tpl_undefined_hint(run, "No first item, sequence was empty.", ret);
}

BT_TPL_NATIVE(do_last)
{
    bt_tpl_list *list;
    if (self.type == BT_TPL_ITERATOR || self.type == BT_TPL_LOOP)
        return BT_TPL_RAISE(run, "'%s' object is not reversible", bt_tpl_type_name(self));
    if (!bt_tpl_walk(run, self, &list)) return false;
    if (list->count == 0)
        return bt_tpl_undefined_hint(run, "No last item, sequence was empty.", ret);
    *ret = list->items[list->count - 1];
    return true;
}

BT_TPL_NATIVE(do_length)
{
    size_t length;
    if (!bt_tpl_length(self, &length))
        return BT_TPL_RAISE(run, "object of type '%s' has no len()", bt_tpl_type_name(self));
    *ret = BT_TPL_V_INT((int64_t)length);
    return true;
}

BT_TPL_NATIVE(do_list)
{
    bt_tpl_list *list;
    return bt_tpl_walk(run, self, &list) && bt_tpl_list_value(run, list, BT_TPL_LIST, ret);
}

BT_TPL_NATIVE(do_reverse)
{
    if (self.type == BT_TPL_STR) {
        const bt_tpl_value parts[3] = {BT_TPL_V_NONE, BT_TPL_V_NONE, BT_TPL_V_INT(-1)};
        return bt_tpl_get_slice(run, self, parts, ret);
    }
    bt_tpl_list *list, *reversed;
    if (!bt_tpl_iterable(self)) return BT_TPL_RAISE(run, "argument must be iterable");
    if (!bt_tpl_walk(run, self, &list) || !bt_tpl_list_new(run, list->count, &reversed))
        return false;
    for (; reversed->count < list->count; reversed->count++)
        reversed->items[reversed->count] = list->items[list->count - 1 - reversed->count];
    /* Python gives a list for what it cannot walk backwards. */
    if (self.type == BT_TPL_ITERATOR) return bt_tpl_list_value(run, reversed, BT_TPL_LIST, ret);
    return bt_tpl_iterator_value(run, reversed, "list_reverseiterator", ret);
}

BT_TPL_NATIVE(do_items)
{
    bt_tpl_list *list;
    bt_tpl_view view = {.dict = self.dict, .kind = BT_TPL_ITEMS};
    if (self.type == BT_TPL_UNDEFINED) {
        if (!bt_tpl_list_new(run, 0, &list)) return false;
    } else {
        if (self.type != BT_TPL_DICT)
            return BT_TPL_RAISE(run, "Can only get item pairs from a mapping.");
        if (!bt_tpl_walk(run, (bt_tpl_value){.type = BT_TPL_VIEW, .view = &view}, &list))
            return false;
    }
    return bt_tpl_iterator_value(run, list, "generator", ret);
}

BT_TPL_NATIVE(do_join)
{
    bt_tpl_getter getter = {.attribute = args[1]};
    bt_tpl_list *list;
    bt_tpl_str *separator = NULL;
    bt_tpl_builder builder;
    if (args[0].type != BT_TPL_MISSING && !bt_tpl_to_str(run, args[0], &separator)) return false;
    if (!bt_tpl_walk(run, self, &list)) return false;
    bt_tpl_build(run, &builder);
    for (size_t i = 0; i < list->count; i++) {
        bt_tpl_value item;
        if (i > 0 && separator != NULL && !bt_tpl_put_str(run, &builder, separator)) return false;
        if (!bt_tpl_get_key(run, &getter, list->items[i], &item) ||
            !bt_tpl_print(run, &builder, item))
            return false;
    }
    return bt_tpl_built(run, &builder, ret);
}

/* Cutting into rows. */

BT_TPL_NATIVE(do_batch)
{
    int64_t size;
    bt_tpl_list *list;
    bt_tpl_items rows = {0};
    bool fills = args[1].type != BT_TPL_MISSING && args[1].type != BT_TPL_NONE;
    if (!bt_tpl_arg_int(run, args[0], 0, &size) || !bt_tpl_walk(run, self, &list)) return false;
    for (size_t i = 0; i < list->count;) {
        bt_tpl_items row = {0};
        bt_tpl_value value;
        do {
            if (!bt_tpl_items_push(run, &row, list->items[i++])) return false;
        } while (i < list->count && (int64_t)row.list.count != size);
        while (fills && i == list->count && (int64_t)row.list.count < size) {
            if (!bt_tpl_steps(run, 1) || !bt_tpl_items_push(run, &row, args[1])) return false;
        }
        if (!bt_tpl_items_done(run, &row, BT_TPL_LIST, &value) ||
            !bt_tpl_items_push(run, &rows, value))
            return false;
    }
    return bt_tpl_items_done(run, &rows, BT_TPL_LIST, ret) &&
           bt_tpl_iterator_value(run, ret->list, "generator", ret);
}

BT_TPL_NATIVE(do_slice)
{
    int64_t slices;
    bt_tpl_list *list;
    bt_tpl_items rows = {0};
    bool fills = args[1].type != BT_TPL_MISSING && args[1].type != BT_TPL_NONE;
    if (!bt_tpl_arg_int(run, args[0], 0, &slices) || !bt_tpl_walk(run, self, &list)) return false;
    if (slices == 0) return BT_TPL_RAISE(run, "integer division or modulo by zero");
    size_t at = 0, count = slices > 0 ? (size_t)slices : 0;
    for (size_t i = 0; i < count; i++) {
        size_t size = list->count / count, extra = list->count % count;
        bt_tpl_items row = {0};
        bt_tpl_value value;
        if (!bt_tpl_steps(run, 1)) return false;
        for (size_t j = 0; j < size + (i < extra); j++) {
            if (!bt_tpl_items_push(run, &row, list->items[at++])) return false;
        }
        if (fills && i >= extra && !bt_tpl_items_push(run, &row, args[1])) return false;
        if (!bt_tpl_items_done(run, &row, BT_TPL_LIST, &value) ||
            !bt_tpl_items_push(run, &rows, value))
            return false;
    }
    return bt_tpl_items_done(run, &rows, BT_TPL_LIST, ret) &&
           bt_tpl_iterator_value(run, ret->list, "generator", ret);
}

/* Filters that apply others. */

static bool take_name(bt_tpl_args *rest, const char *name, bt_tpl_value *ret)
{
    *ret = (bt_tpl_value){.type = BT_TPL_MISSING};
    for (size_t i = 0; i < rest->named_count; i++) {
        if (!bt_tpl_is_text(BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)rest->names[i]), name)) continue;
        *ret = rest->named[i];
        return true;
    }
    return false;
}

/* The filter or test that the first argument names; the others are left for it. */
static bool take_native(bt_tpl_run *run, bt_tpl_args *rest, bool test,
                        const bt_tpl_native **ret_native)
{
    bt_tpl_str *name;
    if (!bt_tpl_arg_str(run, rest->args[0], &name)) return false;
    *ret_native =
        test ? bt_tpl_test(name->data, name->bytes) : bt_tpl_filter(name->data, name->bytes);
    if (*ret_native == NULL)
        return BT_TPL_RAISE(run, "no %s named '%.*s'", test ? "test" : "filter",
                            (int)(name->bytes > 60 ? 60 : name->bytes), name->data);
    rest->args++;
    rest->count--;
    return true;
}

/* Whatever is false gives nothing, even what cannot be walked. */
static bool no_items(bt_tpl_run *run, bt_tpl_value *ret)
{
    bt_tpl_list *list;
    return bt_tpl_list_new(run, 0, &list) && bt_tpl_iterator_value(run, list, "generator", ret);
}

BT_TPL_NATIVE(do_map)
{
    bt_tpl_args left = *rest;
    bt_tpl_getter getter = {0};
    const bt_tpl_native *filter = NULL;
    bt_tpl_list *list;
    bt_tpl_items made = {0};
    if (!bt_tpl_true(self)) return no_items(run, ret);
    if (left.count == 0 && take_name(&left, "attribute", &getter.attribute)) {
        size_t known = 1 + take_name(&left, "default", &getter.fallback);
        if (left.named_count > known) return BT_TPL_RAISE(run, "Unexpected keyword argument");
    } else if (left.count == 0) {
        return BT_TPL_RAISE(run, "map requires a filter argument");
    } else if (!take_native(run, &left, false, &filter)) {
        return false;
    }
    if (!bt_tpl_walk(run, self, &list)) return false;
    for (size_t i = 0; i < list->count; i++) {
        bt_tpl_value item;
        bool fine = filter != NULL ? bt_tpl_native_call(run, filter, list->items[i], &left, &item)
                                   : bt_tpl_get_key(run, &getter, list->items[i], &item);
        if (!fine || !bt_tpl_steps(run, 1) || !bt_tpl_items_push(run, &made, item)) return false;
    }
    return bt_tpl_items_done(run, &made, BT_TPL_LIST, ret) &&
           bt_tpl_iterator_value(run, ret->list, "generator", ret);
}

static bool choose(bt_tpl_run *run, bt_tpl_value self, const bt_tpl_args *rest, bool attribute,
                   bool wanted, bt_tpl_value *ret)
{
    bt_tpl_args left = *rest;
    bt_tpl_getter getter = {0};
    const bt_tpl_native *test = NULL;
    bt_tpl_list *list;
    bt_tpl_items kept = {0};
    if (!bt_tpl_true(self)) return no_items(run, ret);
    if (attribute) {
        if (left.count == 0) return BT_TPL_RAISE(run, "Missing parameter for attribute name");
        getter.attribute = left.args[0];
        left.args++;
        left.count--;
    }
    if (left.count > 0 && !take_native(run, &left, true, &test)) return false;
    if (!bt_tpl_walk(run, self, &list)) return false;
    for (size_t i = 0; i < list->count; i++) {
        bt_tpl_value key, holds;
        if (!bt_tpl_steps(run, 1) || !bt_tpl_get_key(run, &getter, list->items[i], &key))
            return false;
        holds = key;
        if (test != NULL && !bt_tpl_native_call(run, test, key, &left, &holds)) return false;
        if (bt_tpl_true(holds) == wanted && !bt_tpl_items_push(run, &kept, list->items[i]))
            return false;
    }
    return bt_tpl_items_done(run, &kept, BT_TPL_LIST, ret) &&
           bt_tpl_iterator_value(run, ret->list, "generator", ret);
}

BT_TPL_NATIVE(do_select)
{
    return choose(run, self, rest, false, true, ret);
}

BT_TPL_NATIVE(do_reject)
{
    return choose(run, self, rest, false, false, ret);
}

BT_TPL_NATIVE(do_selectattr)
{
    return choose(run, self, rest, true, true, ret);
}

BT_TPL_NATIVE(do_rejectattr)
{
    return choose(run, self, rest, true, false, ret);
}

/* An attribute only, never an item. */
BT_TPL_NATIVE(do_attr)
{
    bt_tpl_str *name;
    if (!bt_tpl_arg_str(run, args[0], &name)) return false;
    if (self.type == BT_TPL_DICT) {
        bool unsafe;
        const bt_tpl_native *native = bt_tpl_method_of(self, name->data, name->bytes, &unsafe);
        if (native == NULL && !unsafe)
            return bt_tpl_undefined_member(run, self, BT_TPL_V_STR(name), ret);
    }
    return bt_tpl_get_attr(run, self, name, ret);
}

const bt_tpl_native bt_tpl_list_filters[] = {
    {"length", "/", do_length},
    {"count", "/", do_length},
    {"first", "", do_first},
    {"last", "", do_last},
    {"list", "", do_list},
    {"reverse", "", do_reverse},
    {"items", "", do_items},
    {"join", "d=,attribute=", do_join},
    {"map", "*", do_map},
    {"select", "*", do_select},
    {"reject", "*", do_reject},
    {"selectattr", "*", do_selectattr},
    {"rejectattr", "*", do_rejectattr},
    {"sort", "reverse=,case_sensitive=,attribute=", do_sort},
    {"dictsort", "case_sensitive=,by=,reverse=", do_dictsort},
    {"groupby", "attribute,default=,case_sensitive=", do_groupby},
    {"unique", "case_sensitive=,attribute=", do_unique},
    {"min", "case_sensitive=,attribute=", do_min},
    {"max", "case_sensitive=,attribute=", do_max},
    {"sum", "attribute=,start=", do_sum},
    {"batch", "linecount,fill_with=", do_batch},
    {"slice", "slices,fill_with=", do_slice},
    {"attr", "name", do_attr},
};
const size_t bt_tpl_list_filter_count = sizeof(bt_tpl_list_filters) / sizeof(bt_tpl_native);

const bt_tpl_native *bt_tpl_filter(const char *name, size_t bytes)
{
    const bt_tpl_native *found =
        bt_tpl_native_find(bt_tpl_text_filters, bt_tpl_text_filter_count, name, bytes);
    if (found != NULL) return found;
    return bt_tpl_native_find(bt_tpl_list_filters, bt_tpl_list_filter_count, name, bytes);
}
