/* run.h - one render: its budgets, its arenas, where it is, and why it ended.
 *
 * Every function of the interpreter returns false once the render has failed; the reason is in the
 * run already, so callers only pass the false on. */
#ifndef BT_COMMON_TEXT_TEMPLATE_RUN_H
#define BT_COMMON_TEXT_TEMPLATE_RUN_H

#include "common/base/status.h"
#include "common/text/template.h"
#include "common/text/template/arena.h"
#include "common/text/template/str.h"
#include "common/text/template/value.h"

typedef enum { BT_TPL_GOES_ON, BT_TPL_BREAK, BT_TPL_CONTINUE } bt_tpl_flow;

struct bt_tpl_run {
    const char *label;
    bt_template_limits limits;
    bt_tpl_budget budget;
    bt_tpl_arena objects, text;
    uint64_t steps_left;
    uint32_t depth, nesting; /* macros and values; nodes */
    uint32_t line;
    bt_status status;
    bt_err *err;

    bool roles; /* of bt_template_context */
    const bt_tpl_dict *context;
    bt_tpl_scope *scope;
    bt_tpl_builder *out; /* where output goes: the prompt, or what a block collects */
    bt_tpl_flow flow;
    bt_tpl_str *ascii[2][128];   /* texts of one character, not marked and marked, made when met */
    bt_tpl_value last_undefined; /* a member that was not there, to be given again */
};

/* Ends the render. Returns false. */
bool bt_tpl_fail(bt_tpl_run *run, bt_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The usual one: what Python would raise. */
#define BT_TPL_RAISE(run, ...) bt_tpl_fail((run), BT_ERR_ARGUMENT, __VA_ARGS__)

/* Takes steps; false at the limit. */
bool bt_tpl_steps(bt_tpl_run *run, uint64_t steps);
/* For moving this much. */
bool bt_tpl_steps_bytes(bt_tpl_run *run, size_t bytes);
bool bt_tpl_steps_items(bt_tpl_run *run, size_t items);

/* Every enter that returned true is followed by a leave. */
bool bt_tpl_enter(bt_tpl_run *run);
void bt_tpl_leave(bt_tpl_run *run);

/* Zeroed memory of the render, or NULL after bt_tpl_fail. */
void *bt_tpl_take(bt_tpl_run *run, size_t count, size_t size);
bool bt_tpl_no_room(bt_tpl_run *run); /* fails for the budget or malloc, whichever it was */
#define BT_TPL_NEW(run, type) ((type *)bt_tpl_take((run), 1, sizeof(type)))

#endif
