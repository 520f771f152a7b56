#include "common/text/template/value.h"

#include "common/text/template/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SORTED_ABOVE 16u /* entries of a dict that is searched by halves */

const char *bt_tpl_type_name(bt_tpl_value value)
{
    switch (value.type) {
    case BT_TPL_MISSING: return "missing";
    case BT_TPL_UNDEFINED: return "Undefined";
    case BT_TPL_NONE: return "NoneType";
    case BT_TPL_BOOL: return "bool";
    case BT_TPL_INT: return "int";
    case BT_TPL_FLOAT: return "float";
    case BT_TPL_STR: return value.str->markup ? "Markup" : "str";
    case BT_TPL_LIST: return "list";
    case BT_TPL_TUPLE: return "tuple";
    case BT_TPL_DICT: return "dict";
    case BT_TPL_VIEW:
        return value.view->kind == BT_TPL_KEYS     ? "dict_keys"
               : value.view->kind == BT_TPL_VALUES ? "dict_values"
                                                   : "dict_items";
    case BT_TPL_RANGE: return "range";
    case BT_TPL_ITERATOR: return "generator";
    case BT_TPL_NAMESPACE: return "Namespace";
    case BT_TPL_MACRO: return "Macro";
    case BT_TPL_METHOD: return "builtin_function_or_method";
    case BT_TPL_FUNCTION: return "function";
    case BT_TPL_LOOP: return "LoopContext";
    case BT_TPL_JOINER: return "Joiner";
    case BT_TPL_CYCLER: return "Cycler";
    }
    return "object";
}

bool bt_tpl_true(bt_tpl_value value)
{
    size_t length;
    switch (value.type) {
    case BT_TPL_MISSING:
    case BT_TPL_UNDEFINED:
    case BT_TPL_NONE: return false;
    case BT_TPL_BOOL: return value.flag;
    case BT_TPL_INT: return value.number != 0;
    case BT_TPL_FLOAT: return value.real != 0;
    default: return !bt_tpl_length(value, &length) || length > 0;
    }
}

bool bt_tpl_is_text(bt_tpl_value value, const char *text)
{
    return value.type == BT_TPL_STR && value.str->bytes == strlen(text) &&
           memcmp(value.str->data, text, value.str->bytes) == 0;
}

bool bt_tpl_as_int(bt_tpl_value value, int64_t *ret_number)
{
    if (value.type != BT_TPL_INT && value.type != BT_TPL_BOOL) return false;
    *ret_number = value.type == BT_TPL_INT ? value.number : value.flag;
    return true;
}

bool bt_tpl_as_real(bt_tpl_value value, double *ret_real)
{
    int64_t number;
    if (value.type == BT_TPL_FLOAT)
        *ret_real = value.real;
    else if (bt_tpl_as_int(value, &number))
        *ret_real = (double)number;
    else
        return false;
    return true;
}

bool bt_tpl_list_new(bt_tpl_run *run, size_t capacity, bt_tpl_list **ret_list)
{
    if (capacity > run->limits.list_items)
        return bt_tpl_fail(run, BT_ERR_LIMIT, "a list of more than %zu items",
                           run->limits.list_items);
    bt_tpl_list *list = BT_TPL_NEW(run, bt_tpl_list);
    if (list == NULL || !bt_tpl_steps_items(run, capacity)) return false;
    list->items = bt_tpl_take(run, capacity, sizeof(list->items[0]));
    if (list->items == NULL) return false;
    *ret_list = list;
    return true;
}

bool bt_tpl_list_value(bt_tpl_run *run, bt_tpl_list *list, bt_tpl_type type, bt_tpl_value *ret)
{
    (void)run;
    *ret = (bt_tpl_value){.type = type, .list = list};
    return true;
}

bool bt_tpl_iterator_value(bt_tpl_run *run, bt_tpl_list *list, const char *repr, bt_tpl_value *ret)
{
    bt_tpl_iterator *iterator = BT_TPL_NEW(run, bt_tpl_iterator);
    if (iterator == NULL) return false;
    *iterator = (bt_tpl_iterator){.list = list, .repr = repr};
    *ret = (bt_tpl_value){.type = BT_TPL_ITERATOR, .iterator = iterator};
    return true;
}

bool bt_tpl_items_push(bt_tpl_run *run, bt_tpl_items *items, bt_tpl_value value)
{
    if (items->list.count == items->capacity) {
        size_t most = run->limits.list_items;
        if (items->capacity >= most)
            return bt_tpl_fail(run, BT_ERR_LIMIT, "a list of more than %zu items", most);
        size_t capacity = items->capacity == 0 ? 8 : items->capacity * 2;
        if (capacity > most) capacity = most;
        bt_tpl_list *grown;
        if (!bt_tpl_list_new(run, capacity, &grown)) return false;
        if (items->list.count > 0)
            memcpy(grown->items, items->list.items, items->list.count * sizeof(value));
        items->list.items = grown->items;
        items->capacity = capacity;
    }
    items->list.items[items->list.count++] = value;
    return true;
}

bool bt_tpl_items_done(bt_tpl_run *run, const bt_tpl_items *items, bt_tpl_type type,
                       bt_tpl_value *ret)
{
    bt_tpl_list *list = BT_TPL_NEW(run, bt_tpl_list);
    if (list == NULL) return false;
    *list = items->list;
    if (list->items == NULL && (list->items = BT_TPL_NEW(run, bt_tpl_value)) == NULL) return false;
    return bt_tpl_list_value(run, list, type, ret);
}

/* Dicts. */

bool bt_tpl_hashable(bt_tpl_value value)
{
    switch (value.type) {
    case BT_TPL_LIST:
    case BT_TPL_DICT:
    case BT_TPL_VIEW: return false;
    case BT_TPL_TUPLE:
        for (size_t i = 0; i < value.list->count; i++) {
            if (!bt_tpl_hashable(value.list->items[i])) return false;
        }
        return true;
    default: return true;
    }
}

bool bt_tpl_dict_new(bt_tpl_run *run, size_t capacity, bt_tpl_dict **ret_dict)
{
    if (capacity > run->limits.list_items)
        return bt_tpl_fail(run, BT_ERR_LIMIT, "a dict of more than %zu items",
                           run->limits.list_items);
    bt_tpl_dict *dict = BT_TPL_NEW(run, bt_tpl_dict);
    if (dict == NULL || !bt_tpl_steps_items(run, capacity)) return false;
    dict->entries = bt_tpl_take(run, capacity, sizeof(dict->entries[0]));
    if (dict->entries == NULL) return false;
    dict->capacity = capacity;
    *ret_dict = dict;
    return true;
}

static int by_key(const void *left, const void *right, void *context)
{
    const bt_tpl_entry *entries = context;
    return bt_tpl_str_compare(entries[*(const uint32_t *)left].key.str,
                              entries[*(const uint32_t *)right].key.str);
}

/* The index for searching by halves; true without one if some key is not a string. */
static bool sort_keys(bt_tpl_run *run, bt_tpl_dict *dict)
{
    for (size_t i = 0; i < dict->count; i++) {
        if (dict->entries[i].key.type != BT_TPL_STR) return true;
    }
    uint32_t *sorted = bt_tpl_take(run, dict->count, sizeof(sorted[0]));
    if (sorted == NULL || !bt_tpl_steps(run, dict->count)) return false;
    for (size_t i = 0; i < dict->count; i++) sorted[i] = (uint32_t)i;
    qsort_r(sorted, dict->count, sizeof(sorted[0]), by_key, dict->entries);
    dict->sorted = sorted;
    return true;
}

static bt_tpl_entry *search(const bt_tpl_dict *dict, const bt_tpl_str *key)
{
    size_t first = 0, end = dict->count;
    while (first < end) {
        size_t middle = first + (end - first) / 2;
        bt_tpl_entry *entry = &dict->entries[dict->sorted[middle]];
        int order = bt_tpl_str_compare(entry->key.str, key);
        if (order == 0) return entry;
        if (order < 0)
            first = middle + 1;
        else
            end = middle;
    }
    return NULL;
}

static bool find_entry(bt_tpl_run *run, const bt_tpl_dict *dict, bt_tpl_value key,
                       bt_tpl_entry **ret_entry)
{
    *ret_entry = NULL;
    if (key.type == BT_TPL_STR && dict->sorted != NULL) {
        *ret_entry = search(dict, key.str);
        return true;
    }
    if (!bt_tpl_steps_items(run, dict->count)) return false;
    for (size_t i = 0; i < dict->count; i++) {
        bt_tpl_entry *entry = &dict->entries[i];
        bool same = false;
        if (key.type == BT_TPL_STR && entry->key.type == BT_TPL_STR)
            same = bt_tpl_str_equal(key.str, entry->key.str);
        else if (key.type != BT_TPL_STR && !bt_tpl_equal(run, key, entry->key, &same))
            return false;
        if (same) {
            *ret_entry = entry;
            return true;
        }
    }
    return true;
}

bool bt_tpl_dict_put(bt_tpl_run *run, bt_tpl_dict *dict, bt_tpl_value key, bt_tpl_value value)
{
    if (!bt_tpl_hashable(key))
        return BT_TPL_RAISE(run, "unhashable type: '%s'", bt_tpl_type_name(key));
    bt_tpl_entry *entry;
    if (!find_entry(run, dict, key, &entry)) return false;
    if (entry != NULL) {
        entry->value = value;
        return true;
    }
    if (dict->count == dict->capacity) {
        bt_tpl_dict *grown;
        if (!bt_tpl_dict_new(run, dict->capacity < 4 ? 8 : dict->capacity * 2, &grown))
            return false;
        memcpy(grown->entries, dict->entries, dict->count * sizeof(dict->entries[0]));
        dict->entries = grown->entries;
        dict->capacity = grown->capacity;
    }
    dict->sorted = NULL;
    dict->entries[dict->count++] = (bt_tpl_entry){.key = key, .value = value};
    return true;
}

bool bt_tpl_dict_get(bt_tpl_run *run, const bt_tpl_dict *dict, bt_tpl_value key,
                     bt_tpl_value *ret_value)
{
    *ret_value = (bt_tpl_value){.type = BT_TPL_MISSING};
    if (dict->count > SORTED_ABOVE && dict->sorted == NULL && key.type == BT_TPL_STR &&
        !sort_keys(run, (bt_tpl_dict *)(uintptr_t)dict))
        return false;
    bt_tpl_entry *entry;
    if (!find_entry(run, dict, key, &entry)) return false;
    if (entry != NULL) *ret_value = entry->value;
    return true;
}

bt_tpl_value bt_tpl_dict_find(const bt_tpl_dict *dict, const char *key, size_t bytes)
{
    for (size_t i = 0; i < dict->count; i++) {
        const bt_tpl_value *name = &dict->entries[i].key;
        if (name->type == BT_TPL_STR && name->str->bytes == bytes &&
            memcmp(name->str->data, key, bytes) == 0)
            return dict->entries[i].value;
    }
    return (bt_tpl_value){.type = BT_TPL_MISSING};
}

/* Comparing. */

static int compare_numbers(bt_tpl_value left, bt_tpl_value right, bool *ret_ordered)
{
    double a = 0, b = 0;
    int64_t m, n;
    *ret_ordered = true;
    if (bt_tpl_as_int(left, &m) && bt_tpl_as_int(right, &n)) return (m > n) - (m < n);
    bt_tpl_as_real(left, &a);
    bt_tpl_as_real(right, &b);
    *ret_ordered = !isnan(a) && !isnan(b);
    /* long double holds every int64 exactly. */
    long double x = bt_tpl_as_int(left, &m) ? (long double)m : (long double)a;
    long double y = bt_tpl_as_int(right, &n) ? (long double)n : (long double)b;
    return (x > y) - (x < y);
}

static bool is_number(bt_tpl_value value)
{
    return value.type == BT_TPL_INT || value.type == BT_TPL_BOOL || value.type == BT_TPL_FLOAT;
}

static bool equal_lists(bt_tpl_run *run, const bt_tpl_list *left, const bt_tpl_list *right,
                        bool *ret_equal)
{
    *ret_equal = left->count == right->count;
    for (size_t i = 0; *ret_equal && i < left->count; i++) {
        if (!bt_tpl_equal(run, left->items[i], right->items[i], ret_equal)) return false;
    }
    return true;
}

static bool equal_dicts(bt_tpl_run *run, const bt_tpl_dict *left, const bt_tpl_dict *right,
                        bool *ret_equal)
{
    *ret_equal = left->count == right->count;
    for (size_t i = 0; *ret_equal && i < left->count; i++) {
        bt_tpl_value other;
        if (!bt_tpl_dict_get(run, right, left->entries[i].key, &other)) return false;
        if (other.type == BT_TPL_MISSING) *ret_equal = false;
        if (*ret_equal && !bt_tpl_equal(run, left->entries[i].value, other, ret_equal))
            return false;
    }
    return true;
}

static bool equal_ranges(const bt_tpl_range *left, const bt_tpl_range *right)
{
    if (left->count != right->count) return false;
    if (left->count == 0) return true;
    return left->start == right->start && (left->count == 1 || left->step == right->step);
}

bool bt_tpl_equal(bt_tpl_run *run, bt_tpl_value left, bt_tpl_value right, bool *ret_equal)
{
    bool ordered, fine = true;
    *ret_equal = false;
    if (!bt_tpl_steps(run, 1)) return false;
    if (is_number(left) && is_number(right)) {
        *ret_equal = compare_numbers(left, right, &ordered) == 0 && ordered;
        return true;
    }
    if (left.type != right.type) return true;
    if (!bt_tpl_enter(run)) return false;
    switch (left.type) {
    case BT_TPL_MISSING:
    case BT_TPL_UNDEFINED:
    case BT_TPL_NONE: *ret_equal = true; break;
    case BT_TPL_STR: *ret_equal = bt_tpl_str_equal(left.str, right.str); break;
    case BT_TPL_LIST:
    case BT_TPL_TUPLE: fine = equal_lists(run, left.list, right.list, ret_equal); break;
    case BT_TPL_DICT: fine = equal_dicts(run, left.dict, right.dict, ret_equal); break;
    case BT_TPL_RANGE: *ret_equal = equal_ranges(left.range, right.range); break;
    default: *ret_equal = left.dict == right.dict; break; /* the same object */
    }
    bt_tpl_leave(run);
    return fine;
}

static bool compare_lists(bt_tpl_run *run, const bt_tpl_list *left, const bt_tpl_list *right,
                          const char *op, int *ret_order)
{
    for (size_t i = 0; i < left->count && i < right->count; i++) {
        bool same;
        if (!bt_tpl_equal(run, left->items[i], right->items[i], &same)) return false;
        if (!same) return bt_tpl_compare(run, left->items[i], right->items[i], op, ret_order);
    }
    *ret_order = (left->count > right->count) - (left->count < right->count);
    return true;
}

bool bt_tpl_compare(bt_tpl_run *run, bt_tpl_value left, bt_tpl_value right, const char *op,
                    int *ret_order)
{
    if (left.type == BT_TPL_UNDEFINED) return bt_tpl_undefined_fail(run, left);
    if (right.type == BT_TPL_UNDEFINED) return bt_tpl_undefined_fail(run, right);
    if (!bt_tpl_steps(run, 1)) return false;
    if (is_number(left) && is_number(right)) {
        bool ordered;
        *ret_order = compare_numbers(left, right, &ordered);
        /* Nothing is less or greater than NaN: an order for which both are false. */
        if (!ordered) *ret_order = op[0] == '<' ? 2 : -2;
        return true;
    }
    if (left.type == BT_TPL_STR && right.type == BT_TPL_STR) {
        *ret_order = bt_tpl_str_compare(left.str, right.str);
        return bt_tpl_steps_bytes(run, left.str->bytes);
    }
    if (left.type == right.type && (left.type == BT_TPL_LIST || left.type == BT_TPL_TUPLE)) {
        bool fine = bt_tpl_enter(run) && compare_lists(run, left.list, right.list, op, ret_order);
        if (fine) bt_tpl_leave(run);
        return fine;
    }
    return BT_TPL_RAISE(run, "'%s' not supported between instances of '%s' and '%s'", op,
                        bt_tpl_type_name(left), bt_tpl_type_name(right));
}

/* Walking. */

bool bt_tpl_length(bt_tpl_value value, size_t *ret_length)
{
    switch (value.type) {
    case BT_TPL_UNDEFINED: *ret_length = 0; return true;
    case BT_TPL_STR: *ret_length = bt_tpl_chars(value.str); return true;
    case BT_TPL_LIST:
    case BT_TPL_TUPLE: *ret_length = value.list->count; return true;
    case BT_TPL_DICT: *ret_length = value.dict->count; return true;
    case BT_TPL_VIEW: *ret_length = value.view->dict->count; return true;
    case BT_TPL_RANGE: *ret_length = value.range->count; return true;
    default: return false;
    }
}

bool bt_tpl_iterable(bt_tpl_value value)
{
    size_t length;
    return value.type == BT_TPL_ITERATOR || value.type == BT_TPL_LOOP ||
           bt_tpl_length(value, &length);
}

static bool walk_str(bt_tpl_run *run, const bt_tpl_str *str, bt_tpl_list *list)
{
    bt_tpl_marks marks = {.str = str};
    for (size_t at = 0, bytes; at < str->bytes; at += bytes) {
        bt_tpl_char_at(str, at, &bytes);
        bt_tpl_value *item = &list->items[list->count++];
        if (!bt_tpl_str_char(run, str, at, bt_tpl_marked(&marks, at), item)) return false;
    }
    return true;
}

static bool walk_dict(bt_tpl_run *run, const bt_tpl_dict *dict, bt_tpl_view_kind kind,
                      bt_tpl_list *list)
{
    for (size_t i = 0; i < dict->count; i++) {
        const bt_tpl_entry *entry = &dict->entries[i];
        bt_tpl_value *item = &list->items[list->count++];
        if (kind != BT_TPL_ITEMS) {
            *item = kind == BT_TPL_KEYS ? entry->key : entry->value;
            continue;
        }
        bt_tpl_list *pair;
        if (!bt_tpl_list_new(run, 2, &pair)) return false;
        pair->count = 2;
        pair->items[0] = entry->key;
        pair->items[1] = entry->value;
        *item = (bt_tpl_value){.type = BT_TPL_TUPLE, .list = pair};
    }
    return true;
}

static bool walk_iterator(bt_tpl_run *run, bt_tpl_iterator *iterator, bt_tpl_list **ret_list)
{
    bt_tpl_list *list = BT_TPL_NEW(run, bt_tpl_list);
    if (list == NULL) return false;
    *list = *iterator->list;
    list->items += iterator->next;
    list->count -= iterator->next;
    iterator->next = iterator->list->count;
    *ret_list = list;
    return true;
}

bool bt_tpl_walk(bt_tpl_run *run, bt_tpl_value value, bt_tpl_list **ret_list)
{
    if (value.type == BT_TPL_LIST || value.type == BT_TPL_TUPLE) {
        *ret_list = value.list;
        return true;
    }
    if (value.type == BT_TPL_ITERATOR) return walk_iterator(run, value.iterator, ret_list);
    size_t length;
    if (!bt_tpl_length(value, &length))
        return BT_TPL_RAISE(run, "'%s' object is not iterable", bt_tpl_type_name(value));
    if (!bt_tpl_list_new(run, length, ret_list)) return false;
    bt_tpl_list *list = *ret_list;
    switch (value.type) {
    case BT_TPL_STR: return walk_str(run, value.str, list);
    case BT_TPL_DICT: return walk_dict(run, value.dict, BT_TPL_KEYS, list);
    case BT_TPL_VIEW: return walk_dict(run, value.view->dict, value.view->kind, list);
    case BT_TPL_RANGE:
        for (; list->count < length; list->count++)
            list->items[list->count] =
                BT_TPL_V_INT(value.range->start + (int64_t)list->count * value.range->step);
        return true;
    default: return true; /* undefined: nothing */
    }
}

bool bt_tpl_contains(bt_tpl_run *run, bt_tpl_value container, bt_tpl_value item, bool *ret_found)
{
    *ret_found = false;
    if (container.type == BT_TPL_STR) {
        if (item.type != BT_TPL_STR)
            return BT_TPL_RAISE(run, "'in <string>' requires string as left operand, not %s",
                                bt_tpl_type_name(item));
        *ret_found = bt_tpl_find(container.str, item.str, 0, container.str->bytes) != SIZE_MAX;
        return bt_tpl_steps_bytes(run, container.str->bytes);
    }
    if (container.type == BT_TPL_DICT ||
        (container.type == BT_TPL_VIEW && container.view->kind == BT_TPL_KEYS)) {
        bt_tpl_value found;
        if (!bt_tpl_hashable(item))
            return BT_TPL_RAISE(run, "unhashable type: '%s'", bt_tpl_type_name(item));
        const bt_tpl_dict *dict =
            container.type == BT_TPL_DICT ? container.dict : container.view->dict;
        if (!bt_tpl_dict_get(run, dict, item, &found)) return false;
        *ret_found = found.type != BT_TPL_MISSING;
        return true;
    }
    if (!bt_tpl_iterable(container) || container.type == BT_TPL_LOOP)
        return BT_TPL_RAISE(run, "argument of type '%s' is not iterable",
                            bt_tpl_type_name(container));
    bt_tpl_list *list;
    if (!bt_tpl_walk(run, container, &list)) return false;
    for (size_t i = 0; !*ret_found && i < list->count; i++) {
        if (!bt_tpl_equal(run, list->items[i], item, ret_found)) return false;
    }
    return true;
}

/* Undefined. */

static bool make_undefined(bt_tpl_run *run, bt_tpl_undefined what, bt_tpl_value *ret)
{
    bt_tpl_undefined *undefined = BT_TPL_NEW(run, bt_tpl_undefined);
    if (undefined == NULL) return false;
    *undefined = what;
    *ret = (bt_tpl_value){.type = BT_TPL_UNDEFINED, .undefined = undefined};
    return true;
}

static bool keep(bt_tpl_run *run, bt_tpl_value value, const bt_tpl_value **ret)
{
    bt_tpl_value *kept = BT_TPL_NEW(run, bt_tpl_value);
    if (kept == NULL) return false;
    *kept = value;
    *ret = kept;
    return true;
}

bool bt_tpl_undefined_name(bt_tpl_run *run, const bt_tpl_str *name, bt_tpl_value *ret)
{
    bt_tpl_undefined what = {0};
    return keep(run, BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)name), &what.name) &&
           make_undefined(run, what, ret);
}

bool bt_tpl_undefined_hint(bt_tpl_run *run, const char *hint, bt_tpl_value *ret)
{
    return make_undefined(run, (bt_tpl_undefined){.hint = hint}, ret);
}

/* Templates ask for what is not there in loops: the same answer serves again. */
bool bt_tpl_undefined_member(bt_tpl_run *run, bt_tpl_value owner, bt_tpl_value name,
                             bt_tpl_value *ret)
{
    bt_tpl_undefined what = {.owner = owner.type == BT_TPL_NONE ? "None" : bt_tpl_type_name(owner)};
    if (run->last_undefined.type == BT_TPL_UNDEFINED && name.type == BT_TPL_STR) {
        const bt_tpl_undefined *last = run->last_undefined.undefined;
        if (last->owner == what.owner && last->name->type == BT_TPL_STR &&
            last->name->str == name.str) {
            *ret = run->last_undefined;
            return true;
        }
    }
    if (!keep(run, name, &what.name) || !make_undefined(run, what, ret)) return false;
    run->last_undefined = *ret;
    return true;
}

bool bt_tpl_undefined_unsafe(bt_tpl_run *run, bt_tpl_value owner, const char *name,
                             bt_tpl_value *ret)
{
    bt_tpl_undefined what = {.owner = bt_tpl_type_name(owner), .hint = name, .unsafe = true};
    return make_undefined(run, what, ret);
}

bool bt_tpl_undefined_fail(bt_tpl_run *run, bt_tpl_value value)
{
    const bt_tpl_undefined *what = value.undefined;
    if (what->unsafe)
        return BT_TPL_RAISE(run, "access to attribute '%s' of '%s' object is unsafe.", what->hint,
                            what->owner);
    if (what->hint != NULL) return BT_TPL_RAISE(run, "%s", what->hint);
    const char *object = what->owner != NULL && strcmp(what->owner, "None") != 0 ? " object" : "";
    if (what->name->type != BT_TPL_STR) {
        if (what->name->type == BT_TPL_INT)
            return BT_TPL_RAISE(run, "%s%s has no element %lld", what->owner, object,
                                (long long)what->name->number);
        return BT_TPL_RAISE(run, "%s%s has no such element", what->owner, object);
    }
    const bt_tpl_str *name = what->name->str;
    int shown = name->bytes > 60 ? 60 : (int)name->bytes;
    if (what->owner == NULL) return BT_TPL_RAISE(run, "'%.*s' is undefined", shown, name->data);
    return BT_TPL_RAISE(run, "'%s%s' has no attribute '%.*s'", what->owner, object, shown,
                        name->data);
}
