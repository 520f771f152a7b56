/* methods.h - what methods.c and methods_str.c give each other. */
#ifndef BT_COMMON_TEXT_TEMPLATE_METHODS_H
#define BT_COMMON_TEXT_TEMPLATE_METHODS_H

#include "common/text/template/native.h"

const bt_tpl_native *bt_tpl_str_method(const char *name, size_t bytes);
bool bt_tpl_cycler_current(bt_tpl_value cycler, bt_tpl_value *ret);

/* Lines as str.splitlines() has them, without their ends. */
bool bt_tpl_split_lines(bt_tpl_run *run, const bt_tpl_str *str, bool keep_ends,
                        bt_tpl_items *lines);
/* str.replace(); count < 0: all. */
bool bt_tpl_replace(bt_tpl_run *run, const bt_tpl_str *str, const bt_tpl_str *old,
                    const bt_tpl_str *new, int64_t count, bt_tpl_value *ret);

#endif
