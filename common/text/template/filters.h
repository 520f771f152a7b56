/* filters.h - the tables of filters, and what they share. */
#ifndef BT_COMMON_TEXT_TEMPLATE_FILTERS_H
#define BT_COMMON_TEXT_TEMPLATE_FILTERS_H

#include "common/text/template/native.h"

extern const bt_tpl_native bt_tpl_text_filters[];
extern const size_t bt_tpl_text_filter_count;
extern const bt_tpl_native bt_tpl_list_filters[];
extern const size_t bt_tpl_list_filter_count;

/* An item's key for sorting, grouping and the like: "a.b.0", an index, or the item itself.
 * fallback stands in for what is not there, unless it is MISSING or NONE. */
typedef struct {
    bt_tpl_value attribute, fallback;
    bool ignore_case;
} bt_tpl_getter;
bool bt_tpl_get_key(bt_tpl_run *run, const bt_tpl_getter *getter, bt_tpl_value item,
                    bt_tpl_value *ret_key);

#endif
