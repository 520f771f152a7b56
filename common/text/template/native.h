/* native.h - filters, tests, methods and global functions: rows of tables, called one way.
 *
 * ADD ONE  A function and a row in filters_*.c, tests.c, methods_*.c or functions.c.
 * PARAMS   "width=,first=,blank=": names in order; "=" may be left out by the caller, and is then
 *          MISSING. "*" as the last one takes what is left over. A leading "/" means that names
 *          cannot be used. The run has checked all this when the function is called. */
#ifndef BT_COMMON_TEXT_TEMPLATE_NATIVE_H
#define BT_COMMON_TEXT_TEMPLATE_NATIVE_H

#include "common/text/template/run.h"

#define BT_TPL_PARAMS_MAX 8u

/* The arguments of a call once they are values. */
typedef struct {
    bt_tpl_value *args;
    size_t count;
    const bt_tpl_str **names; /* of named[] */
    bt_tpl_value *named;
    size_t named_count;
} bt_tpl_args;

/* self is what stands before the "|", "is" or "."; args are those of params in order. rest has
 * what the row's "*" takes. */
typedef bool (*bt_tpl_native_fn)(bt_tpl_run *run, bt_tpl_value self, const bt_tpl_value *args,
                                 const bt_tpl_args *rest, bt_tpl_value *ret);

/* The head of such a function; what it does not use it does not mention. */
#define BT_TPL_NATIVE(name)                                                                        \
    static bool name(__attribute__((unused)) bt_tpl_run *run,                                      \
                     __attribute__((unused)) bt_tpl_value self,                                    \
                     __attribute__((unused)) const bt_tpl_value *args,                             \
                     __attribute__((unused)) const bt_tpl_args *rest, bt_tpl_value *ret)

struct bt_tpl_native {
    const char *name;
    const char *params;
    bt_tpl_native_fn call;
};

/* NULL if there is none of this name. */
const bt_tpl_native *bt_tpl_filter(const char *name, size_t bytes);
const bt_tpl_native *bt_tpl_test(const char *name, size_t bytes);
const bt_tpl_native *bt_tpl_function(const char *name, size_t bytes);
/* A method of the value's type; *ret_unsafe is true for one that would change it, or is private. */
const bt_tpl_native *bt_tpl_method_of(bt_tpl_value self, const char *name, size_t bytes,
                                      bool *ret_unsafe);
/* The row of a table of `count`, or NULL. */
const bt_tpl_native *bt_tpl_native_find(const bt_tpl_native *rows, size_t count, const char *name,
                                        size_t bytes);

/* Matches args to params and calls. */
bool bt_tpl_native_call(bt_tpl_run *run, const bt_tpl_native *native, bt_tpl_value self,
                        const bt_tpl_args *args, bt_tpl_value *ret);

/* Calls anything that can be called: macros, methods, functions, loop, cycler, joiner. */
bool bt_tpl_call_value(bt_tpl_run *run, bt_tpl_value callee, const bt_tpl_args *args,
                       bt_tpl_value *ret);

/* What filters ask of values. Each fails with Python's words. */
bool bt_tpl_arg_int(bt_tpl_run *run, bt_tpl_value value, int64_t fallback, int64_t *ret_number);
bool bt_tpl_arg_str(bt_tpl_run *run, bt_tpl_value value, bt_tpl_str **ret_str);
/* str(value). */
bool bt_tpl_to_str(bt_tpl_run *run, bt_tpl_value value, bt_tpl_str **ret_str);
/* str(value), and repr(value), into a builder. */
bool bt_tpl_print(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value);
bool bt_tpl_repr(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value);
/* Python's repr of a float; returns the bytes written, at most 31. */
size_t bt_tpl_float_text(double value, char ret_text[32]);

/* value.name and value[key], by Jinja's rules: undefined if it is not there. */
bool bt_tpl_get_attr(bt_tpl_run *run, bt_tpl_value owner, const bt_tpl_str *name,
                     bt_tpl_value *ret);
bool bt_tpl_get_item(bt_tpl_run *run, bt_tpl_value owner, bt_tpl_value key, bt_tpl_value *ret);
/* value[start:stop:step]; MISSING or NONE where nothing is said. */
bool bt_tpl_get_slice(bt_tpl_run *run, bt_tpl_value owner, const bt_tpl_value parts[3],
                      bt_tpl_value *ret);

bool bt_tpl_binary(bt_tpl_run *run, char op, bt_tpl_value left, bt_tpl_value right,
                   bt_tpl_value *ret);

/* "…" % values. */
bool bt_tpl_percent(bt_tpl_run *run, const bt_tpl_str *format, bt_tpl_value values,
                    bt_tpl_value *ret);
/* "…".format(…). */
bool bt_tpl_str_format(bt_tpl_run *run, const bt_tpl_str *format, const bt_tpl_args *args,
                       bt_tpl_value *ret);

/* json.dumps. */
typedef struct {
    bool ascii, sort_keys;
    bool pretty; /* with an indent, which may be empty */
    const bt_tpl_str *indent;
    const bt_tpl_str *item_separator, *key_separator; /* NULL: the usual ones */
} bt_tpl_json_style;
bool bt_tpl_json(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value value,
                 const bt_tpl_json_style *style, unsigned level);

/* Case, as Python has it. */
typedef enum { BT_TPL_UPPER, BT_TPL_LOWER, BT_TPL_TITLE, BT_TPL_SWAP } bt_tpl_case;
bool bt_tpl_put_case(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_str *str, size_t first,
                     size_t end, bt_tpl_case to);

#endif
