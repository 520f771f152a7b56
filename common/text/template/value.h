/* value.h - the values a template computes with, as Python has them.
 *
 * A value is small and copied freely; what it points to lives in the render's arenas (or, for
 * constants, in the template's; for the input's strings, in the caller's JSON) and never changes,
 * but for namespaces, iterators, loops, cyclers and joiners. */
#ifndef BT_COMMON_TEXT_TEMPLATE_VALUE_H
#define BT_COMMON_TEXT_TEMPLATE_VALUE_H

#include "common/text/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bt_tpl_run bt_tpl_run;
typedef struct bt_tpl_value bt_tpl_value;
typedef struct bt_tpl_node bt_tpl_node;
typedef struct bt_tpl_scope bt_tpl_scope;

/* UTF-8. marks are the bytes that came from the input: sorted, disjoint, not touching, not empty. */
typedef struct {
    const char *data;
    size_t bytes;
    size_t chars; /* code points; SIZE_MAX: not counted yet */
    const bt_text_range *marks;
    size_t mark_count;
    bool markup; /* Python's Markup: safe for HTML */
} bt_tpl_str;

typedef enum {
    BT_TPL_MISSING, /* no value: an argument that was not given, a name that is not there */
    BT_TPL_UNDEFINED,
    BT_TPL_NONE,
    BT_TPL_BOOL,
    BT_TPL_INT,
    BT_TPL_FLOAT,
    BT_TPL_STR,
    BT_TPL_LIST,
    BT_TPL_TUPLE,
    BT_TPL_DICT,
    BT_TPL_VIEW, /* dict.keys(), values(), items() */
    BT_TPL_RANGE,
    BT_TPL_ITERATOR, /* Python's generators: walked once */
    BT_TPL_NAMESPACE,
    BT_TPL_MACRO,
    BT_TPL_METHOD,   /* a method and the value it belongs to */
    BT_TPL_FUNCTION, /* a global function */
    BT_TPL_LOOP,
    BT_TPL_JOINER,
    BT_TPL_CYCLER
} bt_tpl_type;

typedef struct {
    bt_tpl_value *items;
    size_t count;
    bool group; /* a tuple of groupby: has .grouper and .list */
} bt_tpl_list;

typedef struct bt_tpl_entry bt_tpl_entry;
typedef struct {
    bt_tpl_entry *entries; /* in order of insertion */
    size_t count, capacity;
    uint32_t *sorted; /* entries by key, made when first asked for; only if all keys are strings */
} bt_tpl_dict;

typedef enum { BT_TPL_KEYS, BT_TPL_VALUES, BT_TPL_ITEMS } bt_tpl_view_kind;
typedef struct {
    const bt_tpl_dict *dict;
    bt_tpl_view_kind kind;
} bt_tpl_view;

typedef struct {
    int64_t start, stop, step;
    size_t count;
} bt_tpl_range;

typedef struct {
    bt_tpl_list *list; /* everything it gives, and how far it is */
    size_t next;
    const char *repr;
} bt_tpl_iterator;

/* Says why when it is used. */
typedef struct {
    const char *hint;  /* the whole message, or NULL */
    const char *owner; /* repr of the type that lacks name; NULL: a variable is not there */
    const bt_tpl_value *name;
    bool unsafe;
} bt_tpl_undefined;

typedef struct bt_tpl_macro bt_tpl_macro;
typedef struct bt_tpl_loop bt_tpl_loop;
typedef struct bt_tpl_native bt_tpl_native;

typedef struct bt_tpl_method bt_tpl_method;
typedef struct {
    const bt_tpl_list *items;
    size_t at;
} bt_tpl_cycler;
typedef struct {
    const bt_tpl_str *separator;
    bool used;
} bt_tpl_joiner;

struct bt_tpl_value {
    bt_tpl_type type;
    union {
        bool flag;
        int64_t number;
        double real;
        bt_tpl_str *str;
        bt_tpl_list *list; /* and TUPLE */
        bt_tpl_dict *dict; /* and NAMESPACE */
        const bt_tpl_view *view;
        const bt_tpl_range *range;
        bt_tpl_iterator *iterator;
        const bt_tpl_undefined *undefined;
        const bt_tpl_macro *macro;
        const bt_tpl_method *method;
        const bt_tpl_native *function;
        bt_tpl_loop *loop;
        bt_tpl_joiner *joiner;
        bt_tpl_cycler *cycler;
    };
};

struct bt_tpl_entry {
    bt_tpl_value key, value;
};

struct bt_tpl_method {
    bt_tpl_value self;
    const bt_tpl_native *native;
};

#define BT_TPL_V_NONE ((bt_tpl_value){.type = BT_TPL_NONE})
#define BT_TPL_V_BOOL(b) ((bt_tpl_value){.type = BT_TPL_BOOL, .flag = (b)})
#define BT_TPL_V_INT(n) ((bt_tpl_value){.type = BT_TPL_INT, .number = (n)})
#define BT_TPL_V_FLOAT(x) ((bt_tpl_value){.type = BT_TPL_FLOAT, .real = (x)})
#define BT_TPL_V_STR(s) ((bt_tpl_value){.type = BT_TPL_STR, .str = (s)})

/* Python's name of the type: "str", "int", "list", … */
const char *bt_tpl_type_name(bt_tpl_value value);

bool bt_tpl_true(bt_tpl_value value);
bool bt_tpl_is_text(bt_tpl_value value, const char *text); /* a string of exactly these bytes */

/* bool and int as an int; false for other types. */
bool bt_tpl_as_int(bt_tpl_value value, int64_t *ret_number);
/* bool, int and float as a float. */
bool bt_tpl_as_real(bt_tpl_value value, double *ret_real);

/* The following return false after bt_tpl_fail. */
bool bt_tpl_list_new(bt_tpl_run *run, size_t capacity, bt_tpl_list **ret_list);
bool bt_tpl_list_value(bt_tpl_run *run, bt_tpl_list *list, bt_tpl_type type, bt_tpl_value *ret);
bool bt_tpl_iterator_value(bt_tpl_run *run, bt_tpl_list *list, const char *repr, bt_tpl_value *ret);

/* A list that grows: items[count] is free if count < capacity. */
typedef struct {
    bt_tpl_list list;
    size_t capacity;
} bt_tpl_items;
bool bt_tpl_items_push(bt_tpl_run *run, bt_tpl_items *items, bt_tpl_value value);
bool bt_tpl_items_done(bt_tpl_run *run, const bt_tpl_items *items, bt_tpl_type type,
                       bt_tpl_value *ret);

bool bt_tpl_dict_new(bt_tpl_run *run, size_t capacity, bt_tpl_dict **ret_dict);
/* Puts or replaces. Fails if key cannot be one (lists, dicts). */
bool bt_tpl_dict_put(bt_tpl_run *run, bt_tpl_dict *dict, bt_tpl_value key, bt_tpl_value value);
/* *ret_value is MISSING if the key is not there. */
bool bt_tpl_dict_get(bt_tpl_run *run, const bt_tpl_dict *dict, bt_tpl_value key,
                     bt_tpl_value *ret_value);
/* The same with a key of the template's or of ours. */
bt_tpl_value bt_tpl_dict_find(const bt_tpl_dict *dict, const char *key, size_t bytes);
bool bt_tpl_hashable(bt_tpl_value value);

/* Python's == and its ordering; ret_order is <0, 0, >0. compare fails where Python raises. */
bool bt_tpl_equal(bt_tpl_run *run, bt_tpl_value left, bt_tpl_value right, bool *ret_equal);
bool bt_tpl_compare(bt_tpl_run *run, bt_tpl_value left, bt_tpl_value right, const char *op,
                    int *ret_order);

/* Every item of an iterable as a list; an iterator is empty afterwards. Strings give characters,
 * dicts keys. Fails where Python's iter() does. The list may be the value's own: do not change it. */
bool bt_tpl_walk(bt_tpl_run *run, bt_tpl_value value, bt_tpl_list **ret_list);
bool bt_tpl_iterable(bt_tpl_value value);
/* len(); false without a failure if the type has none. */
bool bt_tpl_length(bt_tpl_value value, size_t *ret_length);
bool bt_tpl_contains(bt_tpl_run *run, bt_tpl_value container, bt_tpl_value item, bool *ret_found);

bool bt_tpl_undefined_name(bt_tpl_run *run, const bt_tpl_str *name, bt_tpl_value *ret);
bool bt_tpl_undefined_hint(bt_tpl_run *run, const char *hint, bt_tpl_value *ret);
bool bt_tpl_undefined_member(bt_tpl_run *run, bt_tpl_value owner, bt_tpl_value name,
                             bt_tpl_value *ret);
bool bt_tpl_undefined_unsafe(bt_tpl_run *run, bt_tpl_value owner, const char *name,
                             bt_tpl_value *ret);
/* Fails with the undefined value's own message. */
bool bt_tpl_undefined_fail(bt_tpl_run *run, bt_tpl_value undefined);

#endif
