/* parse_expr.c - expressions, each function one level of precedence. */
#include "common/text/template/native.h"
#include "common/text/template/parser.h"

#include <string.h>

static bt_tpl_node *parse_unary(bt_tpl_parser *parser, bool with_filters);
static bt_tpl_node *parse_primary(bt_tpl_parser *parser, bool with_namespace);

static bool enter(bt_tpl_parser *parser)
{
    if (parser->nesting < BT_TPL_NESTING_MAX) {
        parser->nesting++;
        return true;
    }
    return bt_tpl_parse_fail(parser, "nested more than %u levels deep", BT_TPL_NESTING_MAX);
}

static bt_tpl_node *two(bt_tpl_parser *parser, bt_tpl_kind kind, char op, bt_tpl_node *a,
                        bt_tpl_node *b)
{
    bt_tpl_node *node = a != NULL && b != NULL ? bt_tpl_node_new(parser, kind) : NULL;
    if (node == NULL) return NULL;
    node->op = op;
    node->line = a->line;
    node->a = a;
    node->b = b;
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *one(bt_tpl_parser *parser, bt_tpl_kind kind, bt_tpl_node *a)
{
    bt_tpl_node *node = a != NULL ? bt_tpl_node_new(parser, kind) : NULL;
    if (node == NULL) return NULL;
    node->line = a->line;
    node->a = a;
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *parse_math(bt_tpl_parser *parser);

/* a ** b ** c is (a ** b) ** c, as in Jinja. */
static bt_tpl_node *parse_power(bt_tpl_parser *parser)
{
    bt_tpl_node *left = parse_unary(parser, true);
    while (left != NULL && bt_tpl_skip_operator(parser, "**"))
        left = two(parser, BT_TPL_N_BINARY, 'p', left, parse_unary(parser, true));
    return left;
}

static bt_tpl_node *parse_product(bt_tpl_parser *parser)
{
    static const struct {
        const char *text;
        char op;
    } rows[] = {{"*", '*'}, {"//", 'f'}, {"/", '/'}, {"%", '%'}};
    bt_tpl_node *left = parse_power(parser);
    for (size_t i = 0; left != NULL && i < 4;) {
        if (bt_tpl_skip_operator(parser, rows[i].text)) {
            left = two(parser, BT_TPL_N_BINARY, rows[i].op, left, parse_power(parser));
            i = 0;
        } else {
            i++;
        }
    }
    return left;
}

static bt_tpl_node *parse_concat(bt_tpl_parser *parser)
{
    bt_tpl_node *first = parse_product(parser);
    if (first == NULL || !bt_tpl_at_operator(parser, "~")) return first;
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_CONCAT);
    if (node == NULL || !bt_tpl_nodes_add(parser, &node->items, first)) return NULL;
    while (bt_tpl_skip_operator(parser, "~")) {
        if (!bt_tpl_nodes_add(parser, &node->items, parse_product(parser))) return NULL;
    }
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *parse_math(bt_tpl_parser *parser)
{
    bt_tpl_node *left = parse_concat(parser);
    while (left != NULL) {
        bool minus = bt_tpl_at_operator(parser, "-");
        if (!minus && !bt_tpl_at_operator(parser, "+")) break;
        bt_tpl_token_next(parser);
        left = two(parser, BT_TPL_N_BINARY, minus ? '-' : '+', left, parse_concat(parser));
    }
    return left;
}

/* The relation at the token, stepped over, or -1. */
static int parse_relation(bt_tpl_parser *parser)
{
    static const char *const rows[] = {"==", "!=", "<", "<=", ">", ">="};
    for (int i = 0; i < 6; i++) {
        if (bt_tpl_skip_operator(parser, rows[i])) return i;
    }
    if (bt_tpl_skip_name(parser, "in")) return BT_TPL_IN;
    if (!bt_tpl_at_name(parser, "not")) return -1;
    size_t here = parser->at;
    bt_tpl_token_next(parser);
    if (bt_tpl_skip_name(parser, "in")) return BT_TPL_NOT_IN;
    parser->at = here;
    return -1;
}

static bt_tpl_node *parse_compare(bt_tpl_parser *parser)
{
    bt_tpl_node *first = parse_math(parser);
    int relation = first != NULL ? parse_relation(parser) : -1;
    if (relation < 0) return first;
    bt_tpl_node *node = one(parser, BT_TPL_N_COMPARE, first);
    size_t capacity = 0;
    while (node != NULL && relation >= 0) {
        if (node->items.count == capacity) {
            capacity = capacity == 0 ? 4 : capacity * 2;
            uint8_t *ops = bt_tpl_arena_take(parser->arena, capacity, 1);
            if (ops == NULL) return (void)bt_tpl_parse_fail(parser, "too large"), NULL;
            if (node->ops != NULL) memcpy(ops, node->ops, node->items.count);
            node->ops = ops;
        }
        node->ops[node->items.count] = (uint8_t)relation;
        if (!bt_tpl_nodes_add(parser, &node->items, parse_math(parser))) return NULL;
        relation = parse_relation(parser);
    }
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *parse_not(bt_tpl_parser *parser)
{
    if (!bt_tpl_skip_name(parser, "not")) return parse_compare(parser);
    if (!enter(parser)) return NULL;
    bt_tpl_node *node = one(parser, BT_TPL_N_NOT, parse_not(parser));
    parser->nesting--;
    return node;
}

static bt_tpl_node *parse_and(bt_tpl_parser *parser)
{
    bt_tpl_node *left = parse_not(parser);
    while (left != NULL && bt_tpl_skip_name(parser, "and"))
        left = two(parser, BT_TPL_N_AND, 0, left, parse_not(parser));
    return left;
}

static bt_tpl_node *parse_or(bt_tpl_parser *parser)
{
    bt_tpl_node *left = parse_and(parser);
    while (left != NULL && bt_tpl_skip_name(parser, "or"))
        left = two(parser, BT_TPL_N_OR, 0, left, parse_and(parser));
    return left;
}

static bt_tpl_node *parse_conditional(bt_tpl_parser *parser)
{
    bt_tpl_node *value = parse_or(parser);
    while (value != NULL && bt_tpl_skip_name(parser, "if")) {
        bt_tpl_node *node = two(parser, BT_TPL_N_COND, 0, value, parse_or(parser));
        if (node == NULL) return NULL;
        if (bt_tpl_skip_name(parser, "else")) {
            node->c = enter(parser) ? parse_conditional(parser) : NULL;
            if (node->c == NULL) return NULL;
            parser->nesting--;
        }
        value = bt_tpl_node_done(parser, node);
    }
    return value;
}

bt_tpl_node *bt_tpl_parse_expression(bt_tpl_parser *parser, bool with_conditional)
{
    if (!enter(parser)) return NULL;
    bt_tpl_node *node = with_conditional ? parse_conditional(parser) : parse_or(parser);
    parser->nesting--;
    return node;
}

static bool at_tuple_end(const bt_tpl_parser *parser, const char *end)
{
    const bt_tpl_token *token = bt_tpl_token_now(parser);
    return token->type == BT_TPL_T_PRINT_END || token->type == BT_TPL_T_BLOCK_END ||
           bt_tpl_at_operator(parser, ")") || (end != NULL && bt_tpl_at_name(parser, end));
}

/* What an item of a tuple is. */
typedef struct {
    bool target, with_namespace; /* a name rather than an expression */
    bool with_conditional;
    bool in_brackets; /* () is a tuple */
    const char *end;
} tuple_rules;

static bt_tpl_node *parse_items(bt_tpl_parser *parser, const tuple_rules *rules)
{
    bt_tpl_node *tuple = bt_tpl_node_new(parser, BT_TPL_N_TUPLE);
    bool is_tuple = false;
    while (tuple != NULL) {
        if (tuple->items.count > 0 && !bt_tpl_expect_operator(parser, ",")) return NULL;
        if (at_tuple_end(parser, rules->end)) break;
        bt_tpl_node *item = rules->target
                                ? parse_primary(parser, rules->with_namespace)
                                : bt_tpl_parse_expression(parser, rules->with_conditional);
        if (!bt_tpl_nodes_add(parser, &tuple->items, item)) return NULL;
        if (!bt_tpl_at_operator(parser, ",")) break;
        is_tuple = true;
    }
    if (tuple == NULL) return NULL;
    if (!is_tuple && tuple->items.count > 0) return tuple->items.items[0];
    if (!is_tuple && !rules->in_brackets)
        return (void)bt_tpl_parse_fail(parser, "an expression is missing"), NULL;
    return bt_tpl_node_done(parser, tuple);
}

bt_tpl_node *bt_tpl_parse_tuple(bt_tpl_parser *parser, bool with_conditional, const char *end)
{
    return parse_items(parser, &(tuple_rules){.with_conditional = with_conditional, .end = end});
}

static bool can_assign(const bt_tpl_node *node)
{
    if (node->kind == BT_TPL_N_NSREF) return true;
    if (node->kind == BT_TPL_N_NAME) return true;
    if (node->kind != BT_TPL_N_TUPLE) return false;
    for (size_t i = 0; i < node->items.count; i++) {
        if (!can_assign(node->items.items[i])) return false;
    }
    return true;
}

bt_tpl_node *bt_tpl_parse_target(bt_tpl_parser *parser, const char *end, bool with_namespace)
{
    bt_tpl_node *node = parse_items(
        parser, &(tuple_rules){.target = true, .with_namespace = with_namespace, .end = end});
    if (node != NULL && !can_assign(node))
        return (void)bt_tpl_parse_fail(parser, "this cannot be assigned to"), NULL;
    return node;
}

/* Postfixes. */

static bt_tpl_node *parse_subscribed(bt_tpl_parser *parser)
{
    bt_tpl_node *parts[3] = {NULL};
    bool slice = false;
    for (int i = 0; i < 3; i++) {
        if (!bt_tpl_at_operator(parser, ":") && !bt_tpl_at_operator(parser, "]") &&
            !bt_tpl_at_operator(parser, ",")) {
            parts[i] = bt_tpl_parse_expression(parser, true);
            if (parts[i] == NULL) return NULL;
        }
        if (i == 2 || !bt_tpl_skip_operator(parser, ":")) break;
        slice = true;
    }
    if (!slice && parts[0] == NULL)
        return (void)bt_tpl_parse_fail(parser, "a subscript is missing"), NULL;
    if (!slice) return parts[0];
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_SLICE);
    if (node == NULL) return NULL;
    node->a = parts[0];
    node->b = parts[1];
    node->c = parts[2];
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *parse_brackets(bt_tpl_parser *parser, bt_tpl_node *owner)
{
    bt_tpl_node *first = parse_subscribed(parser);
    if (first == NULL) return NULL;
    if (bt_tpl_at_operator(parser, ",")) {
        bt_tpl_node *tuple = bt_tpl_node_new(parser, BT_TPL_N_TUPLE);
        if (tuple == NULL || !bt_tpl_nodes_add(parser, &tuple->items, first)) return NULL;
        while (bt_tpl_skip_operator(parser, ",") && !bt_tpl_at_operator(parser, "]")) {
            if (!bt_tpl_nodes_add(parser, &tuple->items, parse_subscribed(parser))) return NULL;
        }
        first = bt_tpl_node_done(parser, tuple);
    }
    if (first == NULL || !bt_tpl_expect_operator(parser, "]")) return NULL;
    return two(parser, BT_TPL_N_ITEM, 0, owner, first);
}

static bt_tpl_node *parse_attribute(bt_tpl_parser *parser, bt_tpl_node *owner)
{
    const bt_tpl_token *token = bt_tpl_token_next(parser);
    if (token->type == BT_TPL_T_INT) {
        bt_tpl_node *index = bt_tpl_node_new(parser, BT_TPL_N_CONST);
        if (index != NULL) index->constant = BT_TPL_V_INT(token->number);
        return two(parser, BT_TPL_N_ITEM, 0, owner, index);
    }
    if (token->type != BT_TPL_T_NAME)
        return (void)bt_tpl_parse_fail(parser, "a name or a number must follow the dot"), NULL;
    bt_tpl_node *node = one(parser, BT_TPL_N_ATTR, owner);
    if (node == NULL) return NULL;
    node->line = token->line;
    node->name = bt_tpl_token_str(parser, token);
    return node->name != NULL ? node : NULL;
}

static bool add_named(bt_tpl_parser *parser, bt_tpl_call *call)
{
    size_t count = call->named.count;
    if ((count & (count - 1)) == 0) {
        const bt_tpl_str **grown =
            bt_tpl_arena_take(parser->arena, count == 0 ? 1 : 2 * count, sizeof(grown[0]));
        if (grown == NULL) return bt_tpl_parse_fail(parser, "too large");
        if (count > 0) memcpy(grown, call->names, count * sizeof(grown[0]));
        call->names = grown;
    }
    call->names[count] = bt_tpl_token_str(parser, bt_tpl_token_next(parser));
    bt_tpl_token_next(parser);
    return call->names[count] != NULL &&
           bt_tpl_nodes_add(parser, &call->named, bt_tpl_parse_expression(parser, true));
}

static bool parse_argument(bt_tpl_parser *parser, bt_tpl_call *call)
{
    const bt_tpl_token *token = bt_tpl_token_now(parser);
    bool star = bt_tpl_skip_operator(parser, "*");
    if (star || bt_tpl_skip_operator(parser, "**")) {
        bt_tpl_node **place = star ? &call->star : &call->star_star;
        if (*place != NULL || (star && call->star_star != NULL))
            return bt_tpl_parse_fail(parser, "the arguments of a call are not valid");
        *place = bt_tpl_parse_expression(parser, true);
        return *place != NULL;
    }
    if (token->type == BT_TPL_T_NAME && token[1].type == BT_TPL_T_OPERATOR &&
        strcmp(token[1].text, "=") == 0) {
        if (call->star_star != NULL)
            return bt_tpl_parse_fail(parser, "the arguments of a call are not valid");
        return add_named(parser, call);
    }
    if (call->star != NULL || call->star_star != NULL || call->named.count > 0)
        return bt_tpl_parse_fail(parser, "the arguments of a call are not valid");
    return bt_tpl_nodes_add(parser, &call->args, bt_tpl_parse_expression(parser, true));
}

static bt_tpl_call *no_arguments(bt_tpl_parser *parser)
{
    bt_tpl_call *call = bt_tpl_arena_take(parser->arena, 1, sizeof(*call));
    if (call == NULL) bt_tpl_parse_fail(parser, "too large");
    return call;
}

static bt_tpl_call *parse_arguments(bt_tpl_parser *parser)
{
    bt_tpl_call *call = no_arguments(parser);
    if (call == NULL || !bt_tpl_expect_operator(parser, "(")) return NULL;
    bool more = false;
    while (!bt_tpl_at_operator(parser, ")")) {
        if (more && !bt_tpl_expect_operator(parser, ",")) return NULL;
        if (more && bt_tpl_at_operator(parser, ")")) break;
        if (!parse_argument(parser, call)) return NULL;
        more = true;
    }
    return bt_tpl_expect_operator(parser, ")") ? call : NULL;
}

static bt_tpl_node *with_call(bt_tpl_parser *parser, bt_tpl_node *node, bt_tpl_call *call)
{
    if (node == NULL || call == NULL) return NULL;
    node->call = call;
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *parse_postfix(bt_tpl_parser *parser, bt_tpl_node *node)
{
    while (node != NULL) {
        if (bt_tpl_skip_operator(parser, "."))
            node = parse_attribute(parser, node);
        else if (bt_tpl_skip_operator(parser, "["))
            node = parse_brackets(parser, node);
        else if (bt_tpl_at_operator(parser, "("))
            node = with_call(parser, one(parser, BT_TPL_N_CALL, node), parse_arguments(parser));
        else
            break;
    }
    return node;
}

/* Names with dots are names to Jinja's grammar; none of ours has one. */
static bool skip_dotted(bt_tpl_parser *parser, const bt_tpl_native **native)
{
    while (bt_tpl_skip_operator(parser, ".")) {
        *native = NULL;
        if (bt_tpl_expect_name(parser, "a name") == NULL) return false;
    }
    return true;
}

bt_tpl_node *bt_tpl_parse_filters(bt_tpl_parser *parser, bt_tpl_node *first, bool inline_first)
{
    bt_tpl_node *node = first;
    while (inline_first || bt_tpl_skip_operator(parser, "|")) {
        inline_first = false;
        const bt_tpl_token *token = bt_tpl_expect_name(parser, "the name of a filter");
        bt_tpl_node *filter = token != NULL ? bt_tpl_node_new(parser, BT_TPL_N_FILTER) : NULL;
        if (filter == NULL) return NULL;
        filter->line = token->line;
        filter->a = node;
        filter->name = bt_tpl_token_str(parser, token);
        filter->native = bt_tpl_filter(token->text, token->bytes);
        if (filter->name == NULL || !skip_dotted(parser, &filter->native)) return NULL;
        if (filter->native == NULL && parser->conditional == 0)
            return (void)bt_tpl_parse_fail(parser, "no filter named '%.*s'",
                                           (int)(token->bytes > 60 ? 60 : token->bytes),
                                           token->text),
                   NULL;
        node = with_call(parser, filter,
                         bt_tpl_at_operator(parser, "(") ? parse_arguments(parser)
                                                         : no_arguments(parser));
        if (node == NULL) return NULL;
    }
    return node;
}

/* The one argument of a test without brackets: "is divisibleby 3". */
static bt_tpl_call *parse_test_argument(bt_tpl_parser *parser)
{
    bt_tpl_call *call = no_arguments(parser);
    const bt_tpl_token *token = bt_tpl_token_now(parser);
    bool value = token->type == BT_TPL_T_NAME || token->type == BT_TPL_T_STRING ||
                 token->type == BT_TPL_T_INT || token->type == BT_TPL_T_FLOAT ||
                 bt_tpl_at_operator(parser, "[") || bt_tpl_at_operator(parser, "{");
    if (call == NULL || !value || bt_tpl_at_name(parser, "else") || bt_tpl_at_name(parser, "or") ||
        bt_tpl_at_name(parser, "and"))
        return call;
    if (bt_tpl_at_name(parser, "is"))
        return (void)bt_tpl_parse_fail(parser, "tests cannot be chained with is"), NULL;
    bt_tpl_node *argument = parse_postfix(parser, parse_primary(parser, false));
    return bt_tpl_nodes_add(parser, &call->args, argument) ? call : NULL;
}

static bt_tpl_node *parse_test(bt_tpl_parser *parser, bt_tpl_node *value)
{
    bool negated = bt_tpl_skip_name(parser, "not");
    const bt_tpl_token *token = bt_tpl_expect_name(parser, "the name of a test");
    bt_tpl_node *node = token != NULL ? one(parser, BT_TPL_N_TEST, value) : NULL;
    if (node == NULL) return NULL;
    node->line = token->line;
    node->name = bt_tpl_token_str(parser, token);
    node->native = bt_tpl_test(token->text, token->bytes);
    if (node->name == NULL || !skip_dotted(parser, &node->native)) return NULL;
    if (node->native == NULL && parser->conditional == 0)
        return (void)bt_tpl_parse_fail(parser, "no test named '%.*s'",
                                       (int)(token->bytes > 60 ? 60 : token->bytes), token->text),
               NULL;
    node = with_call(parser, node,
                     bt_tpl_at_operator(parser, "(") ? parse_arguments(parser)
                                                     : parse_test_argument(parser));
    return negated ? one(parser, BT_TPL_N_NOT, node) : node;
}

static bt_tpl_node *parse_filters_and_tests(bt_tpl_parser *parser, bt_tpl_node *node)
{
    while (node != NULL) {
        if (bt_tpl_at_operator(parser, "|"))
            node = bt_tpl_parse_filters(parser, node, false);
        else if (bt_tpl_skip_name(parser, "is"))
            node = parse_test(parser, node);
        else if (bt_tpl_at_operator(parser, "("))
            node = with_call(parser, one(parser, BT_TPL_N_CALL, node), parse_arguments(parser));
        else
            break;
    }
    return node;
}

static bt_tpl_node *parse_unary(bt_tpl_parser *parser, bool with_filters)
{
    bt_tpl_node *node;
    bool minus = bt_tpl_at_operator(parser, "-");
    if (minus || bt_tpl_at_operator(parser, "+")) {
        bt_tpl_token_next(parser);
        if (!enter(parser)) return NULL;
        node = one(parser, minus ? BT_TPL_N_NEG : BT_TPL_N_POS, parse_unary(parser, false));
        parser->nesting--;
    } else {
        node = parse_primary(parser, false);
    }
    node = parse_postfix(parser, node);
    return with_filters ? parse_filters_and_tests(parser, node) : node;
}

/* Primaries. */

static bt_tpl_node *parse_name(bt_tpl_parser *parser, const bt_tpl_token *token,
                               bool with_namespace)
{
    static const struct {
        const char *text;
        bt_tpl_value value;
    } constants[] = {{"true", {.type = BT_TPL_BOOL, .flag = true}},
                     {"True", {.type = BT_TPL_BOOL, .flag = true}},
                     {"false", {.type = BT_TPL_BOOL}},
                     {"False", {.type = BT_TPL_BOOL}},
                     {"none", {.type = BT_TPL_NONE}},
                     {"None", {.type = BT_TPL_NONE}}};
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_NAME);
    if (node == NULL) return NULL;
    node->line = token->line;
    for (size_t i = 0; i < sizeof(constants) / sizeof(constants[0]); i++) {
        if (strlen(constants[i].text) != token->bytes ||
            memcmp(constants[i].text, token->text, token->bytes) != 0)
            continue;
        node->kind = BT_TPL_N_CONST;
        node->constant = constants[i].value;
        return node;
    }
    node->name = bt_tpl_token_str(parser, token);
    if (node->name == NULL) return NULL;
    if (with_namespace && bt_tpl_skip_operator(parser, ".")) {
        const bt_tpl_token *attribute = bt_tpl_expect_name(parser, "a name");
        node->kind = BT_TPL_N_NSREF;
        node->other_name = attribute != NULL ? bt_tpl_token_str(parser, attribute) : NULL;
        return node->other_name != NULL ? node : NULL;
    }
    bt_tpl_value name = BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)node->name);
    if (bt_tpl_is_text(name, "loop")) parser->saw_loop = true;
    if (parser->params != NULL) {
        parser->params->caller |= bt_tpl_is_text(name, "caller");
        parser->params->kwargs |= bt_tpl_is_text(name, "kwargs");
        parser->params->varargs |= bt_tpl_is_text(name, "varargs");
    }
    return node;
}

/* Literals side by side are one. */
static bt_tpl_node *parse_strings(bt_tpl_parser *parser, const bt_tpl_token *token)
{
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_CONST);
    if (node == NULL) return NULL;
    size_t bytes = token->bytes, count = 1;
    for (; token[count].type == BT_TPL_T_STRING; count++) {
        bytes += token[count].bytes;
        bt_tpl_token_next(parser);
    }
    bt_tpl_token whole = *token;
    if (count > 1) {
        char *text = bt_tpl_arena_text(parser->arena, bytes + 1);
        if (text == NULL) return (void)bt_tpl_parse_fail(parser, "too large"), NULL;
        whole.text = text;
        whole.bytes = bytes;
        for (size_t i = 0; i < count; text += token[i++].bytes)
            memcpy(text, token[i].text, token[i].bytes);
    }
    const bt_tpl_str *str = bt_tpl_token_str(parser, &whole);
    node->constant = BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)str);
    return str != NULL ? node : NULL;
}

static bt_tpl_node *parse_list(bt_tpl_parser *parser)
{
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_LIST);
    while (node != NULL && !bt_tpl_at_operator(parser, "]")) {
        if (node->items.count > 0 && !bt_tpl_expect_operator(parser, ",")) return NULL;
        if (bt_tpl_at_operator(parser, "]")) break;
        if (!bt_tpl_nodes_add(parser, &node->items, bt_tpl_parse_expression(parser, true)))
            return NULL;
    }
    if (node == NULL || !bt_tpl_expect_operator(parser, "]")) return NULL;
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *parse_dict(bt_tpl_parser *parser)
{
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_DICT);
    while (node != NULL && !bt_tpl_at_operator(parser, "}")) {
        if (node->items.count > 0 && !bt_tpl_expect_operator(parser, ",")) return NULL;
        if (bt_tpl_at_operator(parser, "}")) break;
        if (!bt_tpl_nodes_add(parser, &node->items, bt_tpl_parse_expression(parser, true)) ||
            !bt_tpl_expect_operator(parser, ":") ||
            !bt_tpl_nodes_add(parser, &node->items, bt_tpl_parse_expression(parser, true)))
            return NULL;
    }
    if (node == NULL || !bt_tpl_expect_operator(parser, "}")) return NULL;
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *parse_primary(bt_tpl_parser *parser, bool with_namespace)
{
    const bt_tpl_token *token = bt_tpl_token_next(parser);
    bt_tpl_node *node;
    switch (token->type) {
    case BT_TPL_T_NAME: return parse_name(parser, token, with_namespace);
    case BT_TPL_T_STRING: return parse_strings(parser, token);
    case BT_TPL_T_INT:
    case BT_TPL_T_FLOAT:
        node = bt_tpl_node_new(parser, BT_TPL_N_CONST);
        if (node != NULL)
            node->constant = token->type == BT_TPL_T_INT ? BT_TPL_V_INT(token->number)
                                                         : BT_TPL_V_FLOAT(token->real);
        return node;
    case BT_TPL_T_OPERATOR:
        if (!enter(parser)) return NULL;
        if (strcmp(token->text, "(") == 0) {
            node =
                parse_items(parser, &(tuple_rules){.with_conditional = true, .in_brackets = true});
            if (node != NULL && !bt_tpl_expect_operator(parser, ")")) node = NULL;
        } else if (strcmp(token->text, "[") == 0) {
            node = parse_list(parser);
        } else if (strcmp(token->text, "{") == 0) {
            node = parse_dict(parser);
        } else {
            bt_tpl_parse_fail(parser, "'%s' is not expected here", token->text);
            return NULL;
        }
        parser->nesting--;
        return node;
    default: bt_tpl_parse_fail(parser, "an expression is missing"); return NULL;
    }
}
