/* eval.h - walking the tree: expressions to values, statements to output. */
#ifndef BT_COMMON_TEXT_TEMPLATE_EVAL_H
#define BT_COMMON_TEXT_TEMPLATE_EVAL_H

#include "common/text/template/ast.h"
#include "common/text/template/native.h"
#include "common/text/template/run.h"

/* Names of a block. Scopes are looked through from the innermost to the template's own, then the
 * context, then the global functions. */
typedef struct {
    const bt_tpl_str *name;
    bt_tpl_value value;
} bt_tpl_variable;

struct bt_tpl_scope {
    bt_tpl_scope *parent;
    bt_tpl_variable *variables;
    size_t count, capacity;
    bool kept; /* a macro or a recursive loop refers to it */
};

struct bt_tpl_macro {
    const bt_tpl_str *name; /* NULL: the body of a call block */
    const bt_tpl_node *node;
    bt_tpl_scope *scope; /* where it was defined */
};

/* Items come from a list, or one by one from a string or a range. */
struct bt_tpl_loop {
    bt_tpl_list *list; /* all items, filtered; NULL: from source */
    bt_tpl_value source;
    size_t index, count;       /* of the item at hand; of all */
    size_t offset, char_bytes; /* of the item at hand in a string */
    bt_tpl_marks marks;
    uint32_t depth;
    const bt_tpl_node *node; /* NULL unless it is recursive */
    bt_tpl_scope *scope;     /* around the loop */
    bt_tpl_list *changed;    /* the last arguments of loop.changed() */
};

/* The item at hand (0), the one before (-1) or after it (1), which must be there. */
bool bt_tpl_loop_item(bt_tpl_run *run, bt_tpl_loop *loop, int which, bt_tpl_value *ret);

bool bt_tpl_eval(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret);
bool bt_tpl_exec(bt_tpl_run *run, const bt_tpl_nodes *body);

bool bt_tpl_scope_push(bt_tpl_run *run);
void bt_tpl_scope_pop(bt_tpl_run *run);
bool bt_tpl_scope_set(bt_tpl_run *run, const bt_tpl_str *name, bt_tpl_value value);

bool bt_tpl_eval_args(bt_tpl_run *run, const bt_tpl_call *call, bt_tpl_args *ret_args);
/* value|filters, from the innermost on. */
bool bt_tpl_eval_filters(bt_tpl_run *run, const bt_tpl_node *filters, bt_tpl_value value,
                         bt_tpl_value *ret);
bool bt_tpl_macro_call(bt_tpl_run *run, const bt_tpl_macro *macro, const bt_tpl_args *args,
                       bt_tpl_value *ret);
/* loop(iterable) of a recursive loop. */
bool bt_tpl_loop_again(bt_tpl_run *run, const bt_tpl_loop *loop, bt_tpl_value iterable,
                       bt_tpl_value *ret);

#endif
