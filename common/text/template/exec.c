/* exec.c - statements, macros and loops. */
#include "common/text/template/eval.h"

#include <string.h>

/* Runs a body whose output is collected apart. */
static bool collect(bt_tpl_run *run, const bt_tpl_nodes *body, bt_tpl_value *ret)
{
    bt_tpl_builder builder, *outer = run->out;
    bt_tpl_build(run, &builder);
    run->out = &builder;
    bool fine = bt_tpl_exec(run, body);
    run->out = outer;
    return fine && bt_tpl_built(run, &builder, ret);
}

/* Assigning. */

static bool assign(bt_tpl_run *run, const bt_tpl_node *target, bt_tpl_value value);

static bool assign_tuple(bt_tpl_run *run, const bt_tpl_nodes *targets, bt_tpl_value value)
{
    bt_tpl_list *list;
    if (!bt_tpl_iterable(value))
        return BT_TPL_RAISE(run, "cannot unpack non-iterable %s object", bt_tpl_type_name(value));
    if (!bt_tpl_walk(run, value, &list)) return false;
    if (list->count < targets->count)
        return BT_TPL_RAISE(run, "not enough values to unpack (expected %zu, got %zu)",
                            targets->count, list->count);
    if (list->count > targets->count)
        return BT_TPL_RAISE(run, "too many values to unpack (expected %zu)", targets->count);
    for (size_t i = 0; i < list->count; i++) {
        if (!assign(run, targets->items[i], list->items[i])) return false;
    }
    return true;
}

static bool find_variable(bt_tpl_run *run, const bt_tpl_node *target, bt_tpl_value *ret)
{
    bt_tpl_node name = {.kind = BT_TPL_N_NAME, .line = target->line, .name = target->name};
    return bt_tpl_eval(run, &name, ret);
}

static bool assign(bt_tpl_run *run, const bt_tpl_node *target, bt_tpl_value value)
{
    if (target->kind == BT_TPL_N_NAME) return bt_tpl_scope_set(run, target->name, value);
    if (target->kind == BT_TPL_N_TUPLE) return assign_tuple(run, &target->items, value);
    bt_tpl_value owner;
    if (!find_variable(run, target, &owner)) return false;
    if (owner.type != BT_TPL_NAMESPACE)
        return BT_TPL_RAISE(run, "cannot assign attribute on non-namespace object");
    return bt_tpl_dict_put(run, owner.dict,
                           BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)target->other_name), value);
}

static bool exec_set(bt_tpl_run *run, const bt_tpl_node *node)
{
    bt_tpl_value value;
    return bt_tpl_eval(run, node->a, &value) && assign(run, node->target, value);
}

static bool exec_set_block(bt_tpl_run *run, const bt_tpl_node *node)
{
    bt_tpl_value value;
    if (!bt_tpl_scope_push(run)) return false;
    bool fine = collect(run, &node->body, &value);
    if (fine && run->flow == BT_TPL_GOES_ON && node->a != NULL)
        fine = bt_tpl_eval_filters(run, node->a, value, &value);
    bt_tpl_scope_pop(run);
    return fine && (run->flow != BT_TPL_GOES_ON || assign(run, node->target, value));
}

/* Loops. */

/* The items for which the loop's "if" holds, in a scope of their own. */
static bool filter_items(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_list **list)
{
    bt_tpl_items kept = {0};
    if (!bt_tpl_scope_push(run)) return false;
    for (size_t i = 0; i < (*list)->count; i++) {
        bt_tpl_value holds;
        run->scope->count = 0;
        if (!assign(run, node->target, (*list)->items[i]) || !bt_tpl_eval(run, node->b, &holds))
            return false;
        if (bt_tpl_true(holds) && !bt_tpl_items_push(run, &kept, (*list)->items[i])) return false;
    }
    bt_tpl_scope_pop(run);
    bt_tpl_value value;
    if (!bt_tpl_items_done(run, &kept, BT_TPL_LIST, &value)) return false;
    *list = value.list;
    return true;
}

static const bt_tpl_str loop_name = {.data = "loop", .bytes = 4, .chars = 4};

bool bt_tpl_loop_item(bt_tpl_run *run, bt_tpl_loop *loop, int which, bt_tpl_value *ret)
{
    if (loop->list != NULL) {
        *ret = loop->list->items[loop->index + (size_t)which];
        return true;
    }
    if (loop->source.type == BT_TPL_RANGE) {
        const bt_tpl_range *range = loop->source.range;
        *ret = BT_TPL_V_INT(range->start + ((int64_t)loop->index + which) * range->step);
        return true;
    }
    const bt_tpl_str *str = loop->source.str;
    size_t at = loop->offset + (which > 0 ? loop->char_bytes : 0), bytes;
    if (which < 0) {
        bt_tpl_char_before(str, at, &bytes);
        at -= bytes;
    }
    bt_tpl_marks marks = {.str = str};
    if (which == 0) return bt_tpl_str_char(run, str, at, bt_tpl_marked(&loop->marks, at), ret);
    return bt_tpl_steps_items(run, str->mark_count) &&
           bt_tpl_str_char(run, str, at, bt_tpl_marked(&marks, at), ret);
}

static bool exec_round(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_loop *loop)
{
    bt_tpl_value item, self = {.type = BT_TPL_LOOP, .loop = loop};
    if (loop->list == NULL && loop->source.type == BT_TPL_STR)
        bt_tpl_char_at(loop->source.str, loop->offset, &loop->char_bytes);
    return bt_tpl_steps(run, 1) && bt_tpl_loop_item(run, loop, 0, &item) &&
           assign(run, node->target, item) &&
           (!node->uses_loop || bt_tpl_scope_set(run, &loop_name, self)) &&
           bt_tpl_exec(run, &node->body);
}

/* Each round has a scope of its own, or the last one's if nothing refers to that.
 * *ret_completed: some round reached the end of its body. As in Jinja, "else" runs unless one did,
 * so that a loop left by break in its first round has an else. */
static bool exec_rounds(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_loop *loop,
                        bool *ret_completed)
{
    *ret_completed = false;
    if (loop->count == 0) return true;
    if (!bt_tpl_scope_push(run)) return false;
    for (loop->index = 0; loop->index < loop->count; loop->index++) {
        if (run->scope->kept) {
            bt_tpl_scope_pop(run);
            if (!bt_tpl_scope_push(run)) return false;
        }
        run->scope->count = 0;
        if (!exec_round(run, node, loop)) return false;
        loop->offset += loop->char_bytes;
        bt_tpl_flow flow = run->flow;
        run->flow = BT_TPL_GOES_ON;
        if (flow == BT_TPL_BREAK) break;
        if (flow == BT_TPL_GOES_ON) *ret_completed = true;
    }
    bt_tpl_scope_pop(run);
    return true;
}

/* What the loop walks: a list, unless the items of a string or range can be had one by one. */
static bool open_loop(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value iterable,
                      bt_tpl_loop *loop)
{
    bool lazy = node->b == NULL && (iterable.type == BT_TPL_STR || iterable.type == BT_TPL_RANGE);
    if (lazy) {
        loop->source = iterable;
        if (iterable.type == BT_TPL_STR) loop->marks.str = iterable.str;
        return bt_tpl_length(iterable, &loop->count);
    }
    if (iterable.type == BT_TPL_LOOP)
        return BT_TPL_RAISE(run, "a loop cannot be walked by another");
    if (!bt_tpl_walk(run, iterable, &loop->list) ||
        (node->b != NULL && !filter_items(run, node, &loop->list)))
        return false;
    loop->count = loop->list->count;
    return true;
}

static bool run_loop(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value iterable,
                     uint32_t depth)
{
    bt_tpl_loop *loop = BT_TPL_NEW(run, bt_tpl_loop);
    if (loop == NULL) return false;
    *loop =
        (bt_tpl_loop){.depth = depth, .node = node->recursive ? node : NULL, .scope = run->scope};
    for (bt_tpl_scope *scope = run->scope; node->recursive && scope != NULL; scope = scope->parent)
        scope->kept = true;
    bool completed;
    if (!open_loop(run, node, iterable, loop) || !exec_rounds(run, node, loop, &completed))
        return false;
    if (completed || node->other.count == 0) return true;
    if (!bt_tpl_scope_push(run)) return false;
    bool fine = bt_tpl_exec(run, &node->other);
    bt_tpl_scope_pop(run);
    return fine;
}

static bool exec_for(bt_tpl_run *run, const bt_tpl_node *node)
{
    bt_tpl_value iterable;
    if (!bt_tpl_eval(run, node->a, &iterable)) return false;
    run->line = node->line;
    return run_loop(run, node, iterable, 0);
}

bool bt_tpl_loop_again(bt_tpl_run *run, const bt_tpl_loop *loop, bt_tpl_value iterable,
                       bt_tpl_value *ret)
{
    if (loop->node == NULL)
        return BT_TPL_RAISE(run,
                            "The loop must have the 'recursive' marker to be called recursively.");
    if (!bt_tpl_enter(run)) return false;
    bt_tpl_builder builder, *outer = run->out;
    bt_tpl_scope *scope = run->scope;
    bt_tpl_build(run, &builder);
    run->out = &builder;
    run->scope = loop->scope;
    bool fine = run_loop(run, loop->node, iterable, loop->depth + 1);
    run->scope = scope;
    run->out = outer;
    bt_tpl_leave(run);
    return fine && bt_tpl_built(run, &builder, ret);
}

/* Macros. */

static bool take_named(bt_tpl_args *args, const bt_tpl_str *name, bt_tpl_value *ret)
{
    for (size_t i = 0; i < args->named_count; i++) {
        if (args->names[i] == NULL || !bt_tpl_str_equal(args->names[i], name)) continue;
        *ret = args->named[i];
        args->names[i] = NULL;
        return true;
    }
    return false;
}

static bool bind_params(bt_tpl_run *run, const bt_tpl_params *params, bt_tpl_args *args)
{
    size_t first_default = params->names.count - params->defaults.count;
    for (size_t i = 0; i < params->names.count; i++) {
        const bt_tpl_str *name = params->names.items[i]->name;
        bt_tpl_value value;
        if (i < args->count) {
            value = args->args[i];
        } else if (!take_named(args, name, &value)) {
            bool fine = i >= first_default
                            ? bt_tpl_eval(run, params->defaults.items[i - first_default], &value)
                            : bt_tpl_undefined_hint(run, "a parameter was not provided", &value);
            if (!fine) return false;
        }
        if (!bt_tpl_scope_set(run, name, value)) return false;
    }
    return true;
}

static const bt_tpl_str caller_name = {.data = "caller", .bytes = 6, .chars = 6};
static const bt_tpl_str kwargs_name = {.data = "kwargs", .bytes = 6, .chars = 6};
static const bt_tpl_str varargs_name = {.data = "varargs", .bytes = 7, .chars = 7};

static bool bind_kwargs(bt_tpl_run *run, const bt_tpl_args *args)
{
    bt_tpl_dict *dict;
    if (!bt_tpl_dict_new(run, args->named_count, &dict)) return false;
    for (size_t i = 0; i < args->named_count; i++) {
        if (args->names[i] == NULL) continue;
        bt_tpl_value key = BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)args->names[i]);
        if (!bt_tpl_dict_put(run, dict, key, args->named[i])) return false;
    }
    return bt_tpl_scope_set(run, &kwargs_name, (bt_tpl_value){.type = BT_TPL_DICT, .dict = dict});
}

/* What a macro takes beyond its parameters: caller, kwargs, varargs, each only if its body speaks
 * of it. */
static bool bind_rest(bt_tpl_run *run, const bt_tpl_macro *macro, bt_tpl_args *args)
{
    const bt_tpl_params *params = macro->node->params;
    bt_tpl_value value;
    if (params->caller && !params->explicit_caller) {
        if (!take_named(args, &caller_name, &value) &&
            !bt_tpl_undefined_hint(run, "No caller defined", &value))
            return false;
        if (!bt_tpl_scope_set(run, &caller_name, value)) return false;
    }
    if (params->kwargs && !bind_kwargs(run, args)) return false;
    for (size_t i = 0; !params->kwargs && i < args->named_count; i++) {
        if (args->names[i] == NULL) continue;
        return BT_TPL_RAISE(run, "macro takes no keyword argument '%.*s'",
                            (int)(args->names[i]->bytes > 40 ? 40 : args->names[i]->bytes),
                            args->names[i]->data);
    }
    size_t taken = params->names.count;
    if (params->varargs) {
        bt_tpl_list *rest;
        size_t count = args->count > taken ? args->count - taken : 0;
        if (!bt_tpl_list_new(run, count, &rest)) return false;
        if (count > 0) memcpy(rest->items, args->args + taken, count * sizeof(rest->items[0]));
        rest->count = count;
        value = (bt_tpl_value){.type = BT_TPL_TUPLE, .list = rest};
        return bt_tpl_scope_set(run, &varargs_name, value);
    }
    if (args->count > taken)
        return BT_TPL_RAISE(run, "macro takes not more than %zu argument(s)", taken);
    return true;
}

bool bt_tpl_macro_call(bt_tpl_run *run, const bt_tpl_macro *macro, const bt_tpl_args *args,
                       bt_tpl_value *ret)
{
    bt_tpl_args left = *args;
    left.names = bt_tpl_take(run, args->named_count, sizeof(left.names[0]));
    if (left.names == NULL || !bt_tpl_enter(run)) return false;
    if (args->named_count > 0)
        memcpy(left.names, args->names, args->named_count * sizeof(left.names[0]));
    bt_tpl_scope *scope = run->scope;
    run->scope = macro->scope;
    bool fine = bt_tpl_scope_push(run) && bind_params(run, macro->node->params, &left) &&
                bind_rest(run, macro, &left) && collect(run, &macro->node->body, ret);
    run->scope = scope;
    bt_tpl_leave(run);
    return fine;
}

static bool make_macro(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_macro *macro = BT_TPL_NEW(run, bt_tpl_macro);
    if (macro == NULL) return false;
    *macro = (bt_tpl_macro){.name = node->name, .node = node, .scope = run->scope};
    /* And what is around it: a macro sees all of it. */
    for (bt_tpl_scope *scope = run->scope; scope != NULL && !scope->kept; scope = scope->parent)
        scope->kept = true;
    *ret = (bt_tpl_value){.type = BT_TPL_MACRO, .macro = macro};
    return true;
}

static bool exec_macro(bt_tpl_run *run, const bt_tpl_node *node)
{
    bt_tpl_value macro;
    return make_macro(run, node, &macro) && bt_tpl_scope_set(run, node->name, macro);
}

/* The call's arguments and, by the name `caller`, the block. */
static bool exec_call_block(bt_tpl_run *run, const bt_tpl_node *node)
{
    bt_tpl_value caller, callee, value;
    bt_tpl_args args;
    if (!make_macro(run, node, &caller) || !bt_tpl_eval(run, node->a->a, &callee) ||
        !bt_tpl_eval_args(run, node->a->call, &args))
        return false;
    const bt_tpl_str **names = bt_tpl_take(run, args.named_count + 1, sizeof(names[0]));
    bt_tpl_value *named = bt_tpl_take(run, args.named_count + 1, sizeof(named[0]));
    if (names == NULL || named == NULL) return false;
    if (args.named_count > 0) {
        memcpy(names, args.names, args.named_count * sizeof(names[0]));
        memcpy(named, args.named, args.named_count * sizeof(named[0]));
    }
    names[args.named_count] = &caller_name;
    named[args.named_count++] = caller;
    args.names = names;
    args.named = named;
    run->line = node->line;
    return bt_tpl_call_value(run, callee, &args, &value) && bt_tpl_print(run, run->out, value);
}

/* The others. */

static bool exec_if(bt_tpl_run *run, const bt_tpl_node *node)
{
    for (size_t i = 0; i < node->items.count; i++) {
        bt_tpl_value condition;
        if (!bt_tpl_eval(run, node->items.items[i], &condition)) return false;
        if (bt_tpl_true(condition)) return bt_tpl_exec(run, &node->bodies[i]);
    }
    return bt_tpl_exec(run, &node->other);
}

static bool exec_filter_block(bt_tpl_run *run, const bt_tpl_node *node)
{
    bt_tpl_value value;
    if (!bt_tpl_scope_push(run)) return false;
    bool fine = collect(run, &node->body, &value);
    if (fine && run->flow == BT_TPL_GOES_ON)
        fine =
            bt_tpl_eval_filters(run, node->a, value, &value) && bt_tpl_print(run, run->out, value);
    bt_tpl_scope_pop(run);
    return fine;
}

/* The values are those of outside, whatever the names are set to. */
static bool exec_with(bt_tpl_run *run, const bt_tpl_node *node)
{
    const bt_tpl_params *params = node->params;
    bt_tpl_value *values = bt_tpl_take(run, params->names.count, sizeof(values[0]));
    if (values == NULL) return false;
    for (size_t i = 0; i < params->names.count; i++) {
        if (!bt_tpl_eval(run, params->defaults.items[i], &values[i])) return false;
    }
    if (!bt_tpl_scope_push(run)) return false;
    bool fine = true;
    for (size_t i = 0; fine && i < params->names.count; i++)
        fine = assign(run, params->names.items[i], values[i]);
    fine = fine && bt_tpl_exec(run, &node->body);
    bt_tpl_scope_pop(run);
    return fine;
}

static bool exec_generation(bt_tpl_run *run, const bt_tpl_node *node)
{
    static const bt_tpl_args none = {0};
    bt_tpl_value body, value;
    return make_macro(run, node, &body) && bt_tpl_macro_call(run, body.macro, &none, &value) &&
           bt_tpl_print(run, run->out, value);
}

static bool exec_print(bt_tpl_run *run, const bt_tpl_node *node)
{
    for (size_t i = 0; i < node->items.count; i++) {
        bt_tpl_value value;
        if (!bt_tpl_eval(run, node->items.items[i], &value)) return false;
        run->line = node->line;
        if (!bt_tpl_print(run, run->out, value)) return false;
    }
    return true;
}

static bool exec_node(bt_tpl_run *run, const bt_tpl_node *node)
{
    switch (node->kind) {
    case BT_TPL_N_DATA: return bt_tpl_put_str(run, run->out, node->constant.str);
    case BT_TPL_N_PRINT: return exec_print(run, node);
    case BT_TPL_N_SET: return exec_set(run, node);
    case BT_TPL_N_SET_BLOCK: return exec_set_block(run, node);
    case BT_TPL_N_FOR: return exec_for(run, node);
    case BT_TPL_N_IF: return exec_if(run, node);
    case BT_TPL_N_MACRO: return exec_macro(run, node);
    case BT_TPL_N_CALLBLOCK: return exec_call_block(run, node);
    case BT_TPL_N_FILTERBLOCK: return exec_filter_block(run, node);
    case BT_TPL_N_WITH: return exec_with(run, node);
    case BT_TPL_N_GENERATION: return exec_generation(run, node);
    case BT_TPL_N_BREAK: run->flow = BT_TPL_BREAK; return true;
    case BT_TPL_N_CONTINUE: run->flow = BT_TPL_CONTINUE; return true;
    default: return BT_TPL_RAISE(run, "an expression is no statement");
    }
}

bool bt_tpl_exec(bt_tpl_run *run, const bt_tpl_nodes *body)
{
    if (run->nesting >= 4 * run->limits.depth)
        return bt_tpl_fail(run, BT_ERR_LIMIT, "more than %u levels deep", 4 * run->limits.depth);
    run->nesting++;
    bool fine = true;
    for (size_t i = 0; fine && i < body->count && run->flow == BT_TPL_GOES_ON; i++) {
        run->line = body->items[i]->line;
        fine = bt_tpl_steps(run, 1) && exec_node(run, body->items[i]);
    }
    run->nesting--;
    return fine;
}
