#include "common/text/template/eval.h"

#include <string.h>

/* Scopes. */

bool bt_tpl_scope_push(bt_tpl_run *run)
{
    bt_tpl_scope *scope = BT_TPL_NEW(run, bt_tpl_scope);
    if (scope == NULL) return false;
    scope->parent = run->scope;
    run->scope = scope;
    return true;
}

void bt_tpl_scope_pop(bt_tpl_run *run)
{
    run->scope = run->scope->parent;
}

bool bt_tpl_scope_set(bt_tpl_run *run, const bt_tpl_str *name, bt_tpl_value value)
{
    bt_tpl_scope *scope = run->scope;
    for (size_t i = 0; i < scope->count; i++) {
        if (bt_tpl_str_equal(scope->variables[i].name, name)) {
            scope->variables[i].value = value;
            return true;
        }
    }
    if (scope->count == scope->capacity) {
        size_t capacity = scope->capacity == 0 ? 4 : scope->capacity * 2;
        bt_tpl_variable *grown = bt_tpl_take(run, capacity, sizeof(grown[0]));
        if (grown == NULL) return false;
        if (scope->count > 0) memcpy(grown, scope->variables, scope->count * sizeof(grown[0]));
        scope->variables = grown;
        scope->capacity = capacity;
    }
    scope->variables[scope->count++] = (bt_tpl_variable){.name = name, .value = value};
    return true;
}

static bool eval_name(bt_tpl_run *run, const bt_tpl_str *name, bt_tpl_value *ret)
{
    for (const bt_tpl_scope *scope = run->scope; scope != NULL; scope = scope->parent) {
        if (!bt_tpl_steps_items(run, scope->count)) return false;
        for (size_t i = 0; i < scope->count; i++) {
            if (!bt_tpl_str_equal(scope->variables[i].name, name)) continue;
            *ret = scope->variables[i].value;
            return true;
        }
    }
    if (!bt_tpl_dict_get(run, run->context, BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)name), ret))
        return false;
    if (ret->type != BT_TPL_MISSING) return true;
    const bt_tpl_native *function = bt_tpl_function(name->data, name->bytes);
    if (function == NULL) return bt_tpl_undefined_name(run, name, ret);
    *ret = (bt_tpl_value){.type = BT_TPL_FUNCTION, .function = function};
    return true;
}

/* Literals. */

static bool eval_items(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_list *list;
    if (!bt_tpl_list_new(run, node->items.count, &list)) return false;
    for (size_t i = 0; i < node->items.count; i++) {
        if (!bt_tpl_eval(run, node->items.items[i], &list->items[i])) return false;
        list->count++;
    }
    return bt_tpl_list_value(run, list, node->kind == BT_TPL_N_LIST ? BT_TPL_LIST : BT_TPL_TUPLE,
                             ret);
}

static bool eval_dict(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_dict *dict;
    if (!bt_tpl_dict_new(run, node->items.count / 2, &dict)) return false;
    for (size_t i = 0; i < node->items.count; i += 2) {
        bt_tpl_value key, value;
        if (!bt_tpl_eval(run, node->items.items[i], &key) ||
            !bt_tpl_eval(run, node->items.items[i + 1], &value) ||
            !bt_tpl_dict_put(run, dict, key, value))
            return false;
    }
    *ret = (bt_tpl_value){.type = BT_TPL_DICT, .dict = dict};
    return true;
}

/* Access. */

static bool eval_item(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_value owner, key;
    if (!bt_tpl_eval(run, node->a, &owner)) return false;
    if (node->b->kind == BT_TPL_N_SLICE) {
        const bt_tpl_node *parts[3] = {node->b->a, node->b->b, node->b->c};
        bt_tpl_value values[3];
        for (int i = 0; i < 3; i++) {
            values[i] = BT_TPL_V_NONE;
            if (parts[i] != NULL && !bt_tpl_eval(run, parts[i], &values[i])) return false;
        }
        run->line = node->line;
        return bt_tpl_get_slice(run, owner, values, ret);
    }
    if (!bt_tpl_eval(run, node->b, &key)) return false;
    run->line = node->line;
    return bt_tpl_get_item(run, owner, key, ret);
}

static bool eval_slice_alone(bt_tpl_run *run)
{
    return BT_TPL_RAISE(run, "a slice cannot be part of a tuple");
}

/* Calls. */

static bool add_star(bt_tpl_run *run, const bt_tpl_node *star, bt_tpl_args *args)
{
    bt_tpl_value value;
    bt_tpl_list *list, *all;
    if (!bt_tpl_eval(run, star, &value) || !bt_tpl_walk(run, value, &list) ||
        !bt_tpl_list_new(run, args->count + list->count, &all))
        return false;
    if (args->count > 0) memcpy(all->items, args->args, args->count * sizeof(value));
    if (list->count > 0) memcpy(all->items + args->count, list->items, list->count * sizeof(value));
    args->args = all->items;
    args->count += list->count;
    return true;
}

static bool add_star_star(bt_tpl_run *run, const bt_tpl_node *star, bt_tpl_args *args)
{
    bt_tpl_value value;
    if (!bt_tpl_eval(run, star, &value)) return false;
    if (value.type != BT_TPL_DICT)
        return BT_TPL_RAISE(run, "argument after ** must be a mapping, not %s",
                            bt_tpl_type_name(value));
    size_t count = args->named_count + value.dict->count;
    const bt_tpl_str **names = bt_tpl_take(run, count, sizeof(names[0]));
    bt_tpl_value *named = bt_tpl_take(run, count, sizeof(named[0]));
    if (names == NULL || named == NULL || !bt_tpl_steps(run, count)) return false;
    for (size_t i = 0; i < args->named_count; i++) {
        names[i] = args->names[i];
        named[i] = args->named[i];
    }
    for (size_t i = 0; i < value.dict->count; i++) {
        const bt_tpl_entry *entry = &value.dict->entries[i];
        if (entry->key.type != BT_TPL_STR) return BT_TPL_RAISE(run, "keywords must be strings");
        names[args->named_count + i] = entry->key.str;
        named[args->named_count + i] = entry->value;
    }
    args->names = names;
    args->named = named;
    args->named_count = count;
    return true;
}

bool bt_tpl_eval_args(bt_tpl_run *run, const bt_tpl_call *call, bt_tpl_args *ret_args)
{
    *ret_args = (bt_tpl_args){
        .count = call->args.count, .names = call->names, .named_count = call->named.count};
    size_t count = call->args.count + call->named.count;
    ret_args->args = bt_tpl_take(run, count, sizeof(bt_tpl_value));
    if (ret_args->args == NULL) return false;
    ret_args->named = ret_args->args + call->args.count;
    for (size_t i = 0; i < call->args.count; i++) {
        if (!bt_tpl_eval(run, call->args.items[i], &ret_args->args[i])) return false;
    }
    if (call->star != NULL && !add_star(run, call->star, ret_args)) return false;
    for (size_t i = 0; i < call->named.count; i++) {
        if (!bt_tpl_eval(run, call->named.items[i], &ret_args->named[i])) return false;
    }
    return call->star_star == NULL || add_star_star(run, call->star_star, ret_args);
}

static bool eval_call(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_value callee;
    bt_tpl_args args;
    if (!bt_tpl_eval(run, node->a, &callee) || !bt_tpl_eval_args(run, node->call, &args))
        return false;
    run->line = node->line;
    return bt_tpl_call_value(run, callee, &args, ret);
}

static bool eval_filter(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value value,
                        bt_tpl_value *ret)
{
    bt_tpl_args args;
    if (!bt_tpl_eval_args(run, node->call, &args)) return false;
    run->line = node->line;
    if (node->native == NULL)
        return BT_TPL_RAISE(
            run, "no %s named '%.*s'", node->kind == BT_TPL_N_TEST ? "test" : "filter",
            (int)(node->name->bytes > 60 ? 60 : node->name->bytes), node->name->data);
    return bt_tpl_native_call(run, node->native, value, &args, ret);
}

bool bt_tpl_eval_filters(bt_tpl_run *run, const bt_tpl_node *filters, bt_tpl_value value,
                         bt_tpl_value *ret)
{
    if (filters->a != NULL && !bt_tpl_eval_filters(run, filters->a, value, &value)) return false;
    return eval_filter(run, filters, value, ret);
}

/* Operators. */

static bool eval_sign(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_value value;
    int64_t number;
    if (!bt_tpl_eval(run, node->a, &value)) return false;
    if (value.type == BT_TPL_UNDEFINED) return bt_tpl_undefined_fail(run, value);
    bool negative = node->kind == BT_TPL_N_NEG;
    if (value.type == BT_TPL_FLOAT) {
        *ret = BT_TPL_V_FLOAT(negative ? -value.real : value.real);
        return true;
    }
    if (!bt_tpl_as_int(value, &number))
        return BT_TPL_RAISE(run, "bad operand type for unary %c: '%s'", negative ? '-' : '+',
                            bt_tpl_type_name(value));
    if (negative && __builtin_sub_overflow((int64_t)0, number, &number))
        return bt_tpl_fail(run, BT_ERR_LIMIT, "an integer does not fit into 64 bits");
    *ret = BT_TPL_V_INT(number);
    return true;
}

static bool relate(bt_tpl_run *run, bt_tpl_relation relation, bt_tpl_value left, bt_tpl_value right,
                   bool *ret_holds)
{
    static const char *const words[] = {"==", "!=", "<", "<=", ">", ">="};
    int order;
    bool found;
    switch (relation) {
    case BT_TPL_EQ:
    case BT_TPL_NE:
        if (!bt_tpl_equal(run, left, right, &found)) return false;
        *ret_holds = found == (relation == BT_TPL_EQ);
        return true;
    case BT_TPL_IN:
    case BT_TPL_NOT_IN:
        if (!bt_tpl_contains(run, right, left, &found)) return false;
        *ret_holds = found == (relation == BT_TPL_IN);
        return true;
    default: break;
    }
    if (!bt_tpl_compare(run, left, right, words[relation], &order)) return false;
    *ret_holds = relation == BT_TPL_LT   ? order < 0
                 : relation == BT_TPL_LE ? order <= 0
                 : relation == BT_TPL_GT ? order > 0
                                         : order >= 0;
    return true;
}

static bool eval_compare(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_value left, right;
    bool holds = true;
    if (!bt_tpl_eval(run, node->a, &left)) return false;
    for (size_t i = 0; holds && i < node->items.count; i++) {
        if (!bt_tpl_eval(run, node->items.items[i], &right)) return false;
        run->line = node->line;
        if (!relate(run, (bt_tpl_relation)node->ops[i], left, right, &holds)) return false;
        left = right;
    }
    *ret = BT_TPL_V_BOOL(holds);
    return true;
}

static bool eval_concat(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_value value;
    bt_tpl_str *first;
    if (!bt_tpl_eval(run, node->items.items[0], &value) || !bt_tpl_to_str(run, value, &first))
        return false;
    *ret = BT_TPL_V_STR(first);
    for (size_t i = 1; i < node->items.count; i++) {
        bt_tpl_str *next;
        if (!bt_tpl_eval(run, node->items.items[i], &value) || !bt_tpl_to_str(run, value, &next) ||
            !bt_tpl_str_concat(run, ret->str, next, ret))
            return false;
    }
    ret->str->markup = false;
    return true;
}

static bool eval_conditional(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_value condition;
    if (!bt_tpl_eval(run, node->b, &condition)) return false;
    if (bt_tpl_true(condition)) return bt_tpl_eval(run, node->a, ret);
    if (node->c != NULL) return bt_tpl_eval(run, node->c, ret);
    return bt_tpl_undefined_hint(
        run, "the inline if-expression evaluated to false and no else section was defined.", ret);
}

static bool eval_logic(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    if (!bt_tpl_eval(run, node->a, ret)) return false;
    if (node->kind == BT_TPL_N_NOT) {
        *ret = BT_TPL_V_BOOL(!bt_tpl_true(*ret));
        return true;
    }
    if (bt_tpl_true(*ret) != (node->kind == BT_TPL_N_AND)) return true;
    return bt_tpl_eval(run, node->b, ret);
}

static bool is_literal(const bt_tpl_node *node)
{
    while (node->kind == BT_TPL_N_NEG || node->kind == BT_TPL_N_POS) node = node->a;
    return node->kind == BT_TPL_N_CONST;
}

/* -2 ** n is -(2 ** n), although -2 ** 2 is 4: jinja2 writes a literal it has negated as "-2" into
 * the Python that it compiles. */
static bool eval_negated_power(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_value right;
    if (!bt_tpl_eval(run, node->b, &right) ||
        !bt_tpl_binary(run, 'p', node->a->a->constant, right, ret))
        return false;
    return bt_tpl_binary(run, '*', BT_TPL_V_INT(-1), *ret, ret);
}

static bool eval_binary(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_value left, right;
    if (node->op == 'p' && node->a->kind == BT_TPL_N_NEG && is_literal(node->a) &&
        node->a->a->kind == BT_TPL_N_CONST && !is_literal(node->b))
        return eval_negated_power(run, node, ret);
    if (!bt_tpl_eval(run, node->a, &left) || !bt_tpl_eval(run, node->b, &right)) return false;
    run->line = node->line;
    return bt_tpl_binary(run, node->op, left, right, ret);
}

static bool eval_attr(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_value owner;
    if (!bt_tpl_eval(run, node->a, &owner)) return false;
    run->line = node->line;
    return bt_tpl_get_attr(run, owner, node->name, ret);
}

static bool eval_filter_node(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    bt_tpl_value value;
    return bt_tpl_eval(run, node->a, &value) && eval_filter(run, node, value, ret);
}

static bool eval_node(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    switch (node->kind) {
    case BT_TPL_N_CONST: *ret = node->constant; return true;
    case BT_TPL_N_NAME: return eval_name(run, node->name, ret);
    case BT_TPL_N_LIST:
    case BT_TPL_N_TUPLE: return eval_items(run, node, ret);
    case BT_TPL_N_DICT: return eval_dict(run, node, ret);
    case BT_TPL_N_ATTR: return eval_attr(run, node, ret);
    case BT_TPL_N_ITEM: return eval_item(run, node, ret);
    case BT_TPL_N_CALL: return eval_call(run, node, ret);
    case BT_TPL_N_FILTER:
    case BT_TPL_N_TEST: return eval_filter_node(run, node, ret);
    case BT_TPL_N_AND:
    case BT_TPL_N_OR:
    case BT_TPL_N_NOT: return eval_logic(run, node, ret);
    case BT_TPL_N_NEG:
    case BT_TPL_N_POS: return eval_sign(run, node, ret);
    case BT_TPL_N_BINARY: return eval_binary(run, node, ret);
    case BT_TPL_N_COMPARE: return eval_compare(run, node, ret);
    case BT_TPL_N_CONCAT: return eval_concat(run, node, ret);
    case BT_TPL_N_COND: return eval_conditional(run, node, ret);
    default: return eval_slice_alone(run);
    }
}

bool bt_tpl_eval(bt_tpl_run *run, const bt_tpl_node *node, bt_tpl_value *ret)
{
    run->line = node->line;
    if (!bt_tpl_steps(run, 1)) return false;
    if (run->nesting >= 4 * run->limits.depth)
        return bt_tpl_fail(run, BT_ERR_LIMIT, "more than %u levels deep", 4 * run->limits.depth);
    run->nesting++;
    bool fine = eval_node(run, node, ret);
    run->nesting--;
    return fine;
}
