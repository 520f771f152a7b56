/* parse.c - statements, and what both halves of the parser share. */
#include "common/text/template/native.h"
#include "common/text/template/parser.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool bt_tpl_parse_fail(bt_tpl_parser *parser, const char *fmt, ...)
{
    if (parser->status != BT_OK) return false;
    if (parser->arena->budget->no_memory) {
        parser->status = BT_FAIL(parser->err, BT_ERR_NO_MEMORY, "out of memory");
        return false;
    }
    char message[128];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    parser->status = BT_FAIL(parser->err, BT_ERR_FORMAT, "%.60s:%u: %s", parser->label,
                             bt_tpl_token_now(parser)->line, message);
    return false;
}

bt_tpl_node *bt_tpl_node_new(bt_tpl_parser *parser, bt_tpl_kind kind)
{
    bt_tpl_node *node = bt_tpl_arena_take(parser->arena, 1, sizeof(*node));
    if (node == NULL) {
        bt_tpl_parse_fail(parser, "the template is too large");
        return NULL;
    }
    node->kind = kind;
    node->line = bt_tpl_token_now(parser)->line;
    return node;
}

bool bt_tpl_nodes_add(bt_tpl_parser *parser, bt_tpl_nodes *nodes, bt_tpl_node *node)
{
    if (node == NULL) return false;
    if (nodes->count == nodes->capacity) {
        size_t capacity = nodes->capacity == 0 ? 4 : nodes->capacity * 2;
        bt_tpl_node **grown = bt_tpl_arena_take(parser->arena, capacity, sizeof(grown[0]));
        if (grown == NULL) return bt_tpl_parse_fail(parser, "the template is too large");
        if (nodes->count > 0) memcpy(grown, nodes->items, nodes->count * sizeof(grown[0]));
        nodes->items = grown;
        nodes->capacity = capacity;
    }
    nodes->items[nodes->count++] = node;
    return true;
}

static uint32_t higher(uint32_t height, const bt_tpl_node *node)
{
    return node != NULL && node->height + 1 > height ? node->height + 1 : height;
}

static uint32_t highest(uint32_t height, const bt_tpl_nodes *nodes)
{
    for (size_t i = 0; i < nodes->count; i++) height = higher(height, nodes->items[i]);
    return height;
}

bt_tpl_node *bt_tpl_node_done(bt_tpl_parser *parser, bt_tpl_node *node)
{
    if (node == NULL) return NULL;
    uint32_t height = higher(higher(higher(0, node->a), node->b), node->c);
    height = highest(highest(highest(height, &node->items), &node->body), &node->other);
    for (size_t i = 0; node->bodies != NULL && i < node->items.count; i++)
        height = highest(height, &node->bodies[i]);
    if (node->call != NULL) {
        height = highest(highest(height, &node->call->args), &node->call->named);
        height = higher(higher(height, node->call->star), node->call->star_star);
    }
    if (node->params != NULL) height = highest(height, &node->params->defaults);
    node->height = height;
    if (height <= BT_TPL_HEIGHT_MAX) return node;
    bt_tpl_parse_fail(parser, "nested more than %u levels deep", BT_TPL_HEIGHT_MAX);
    return NULL;
}

const bt_tpl_str *bt_tpl_token_str(bt_tpl_parser *parser, const bt_tpl_token *token)
{
    bt_tpl_str *str = bt_tpl_arena_take(parser->arena, 1, sizeof(*str));
    if (str == NULL) {
        bt_tpl_parse_fail(parser, "the template is too large");
        return NULL;
    }
    *str = (bt_tpl_str){.data = token->text, .bytes = token->bytes};
    /* Counted now: constants are shared by threads. */
    str->chars = bt_tpl_char_index(str, str->bytes);
    return str;
}

const bt_tpl_token *bt_tpl_token_now(const bt_tpl_parser *parser)
{
    return &parser->tokens->tokens[parser->at];
}

const bt_tpl_token *bt_tpl_token_next(bt_tpl_parser *parser)
{
    const bt_tpl_token *token = bt_tpl_token_now(parser);
    if (token->type != BT_TPL_T_EOF) parser->at++;
    return token;
}

bool bt_tpl_at_operator(const bt_tpl_parser *parser, const char *text)
{
    const bt_tpl_token *token = bt_tpl_token_now(parser);
    return token->type == BT_TPL_T_OPERATOR && strcmp(token->text, text) == 0;
}

bool bt_tpl_at_name(const bt_tpl_parser *parser, const char *text)
{
    const bt_tpl_token *token = bt_tpl_token_now(parser);
    return token->type == BT_TPL_T_NAME && token->bytes == strlen(text) &&
           memcmp(token->text, text, token->bytes) == 0;
}

bool bt_tpl_skip_operator(bt_tpl_parser *parser, const char *text)
{
    if (!bt_tpl_at_operator(parser, text)) return false;
    bt_tpl_token_next(parser);
    return true;
}

bool bt_tpl_skip_name(bt_tpl_parser *parser, const char *text)
{
    if (!bt_tpl_at_name(parser, text)) return false;
    bt_tpl_token_next(parser);
    return true;
}

bool bt_tpl_expect_operator(bt_tpl_parser *parser, const char *text)
{
    return bt_tpl_skip_operator(parser, text) || bt_tpl_parse_fail(parser, "'%s' is missing", text);
}

const bt_tpl_token *bt_tpl_expect_name(bt_tpl_parser *parser, const char *what)
{
    if (bt_tpl_token_now(parser)->type == BT_TPL_T_NAME) return bt_tpl_token_next(parser);
    bt_tpl_parse_fail(parser, "%s is missing", what);
    return NULL;
}

/* Statements. */

static bt_tpl_node *parse_statement(bt_tpl_parser *parser, const char *block);

static bool expect_block_end(bt_tpl_parser *parser)
{
    if (bt_tpl_token_now(parser)->type != BT_TPL_T_BLOCK_END)
        return bt_tpl_parse_fail(parser, "the end of the tag is missing");
    bt_tpl_token_next(parser);
    return true;
}

static bool is_one_of(const bt_tpl_parser *parser, const char *const *names)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        if (bt_tpl_at_name(parser, names[i])) return true;
    }
    return false;
}

static bt_tpl_node *parse_data(bt_tpl_parser *parser)
{
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_DATA);
    if (node == NULL) return NULL;
    const bt_tpl_str *str = bt_tpl_token_str(parser, bt_tpl_token_next(parser));
    node->constant = BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)str);
    return str != NULL ? node : NULL;
}

static bt_tpl_node *parse_print(bt_tpl_parser *parser)
{
    bt_tpl_token_next(parser);
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_PRINT);
    if (node == NULL ||
        !bt_tpl_nodes_add(parser, &node->items, bt_tpl_parse_tuple(parser, true, NULL)))
        return NULL;
    if (bt_tpl_token_now(parser)->type != BT_TPL_T_PRINT_END) {
        bt_tpl_parse_fail(parser, "the end of the print tag is missing");
        return NULL;
    }
    bt_tpl_token_next(parser);
    return bt_tpl_node_done(parser, node);
}

/* Text, prints and statements up to a tag with one of the names of ends, at which it stands then;
 * to the end of the template if ends is NULL. block names the statement for messages. */
static bool parse_body(bt_tpl_parser *parser, const char *const *ends, const char *block,
                       bt_tpl_nodes *body)
{
    for (;;) {
        bt_tpl_node *node = NULL;
        switch (bt_tpl_token_now(parser)->type) {
        case BT_TPL_T_EOF:
            return ends == NULL || bt_tpl_parse_fail(parser, "%s is not closed", block);
        case BT_TPL_T_DATA: node = parse_data(parser); break;
        case BT_TPL_T_PRINT_BEGIN: node = parse_print(parser); break;
        default: /* a block: the lexer gives nothing else here */
            bt_tpl_token_next(parser);
            if (ends != NULL && is_one_of(parser, ends)) return true;
            node = parse_statement(parser, ends != NULL ? block : NULL);
            if (node != NULL && !expect_block_end(parser)) return false;
        }
        if (!bt_tpl_nodes_add(parser, body, node)) return false;
    }
}

/* A body that begins after this tag's end, nested one deeper. */
static bool parse_block(bt_tpl_parser *parser, const char *const *ends, const char *block,
                        bt_tpl_nodes *body)
{
    if (parser->nesting >= BT_TPL_NESTING_MAX)
        return bt_tpl_parse_fail(parser, "nested more than %u levels deep", BT_TPL_NESTING_MAX);
    parser->nesting++;
    bt_tpl_skip_operator(parser, ":");
    bool fine = expect_block_end(parser) && parse_body(parser, ends, block, body);
    parser->nesting--;
    return fine;
}

/* The same, with the end tag's name stepped over. */
static bool parse_whole_block(bt_tpl_parser *parser, const char *end, const char *block,
                              bt_tpl_nodes *body)
{
    const char *const ends[] = {end, NULL};
    if (!parse_block(parser, ends, block, body)) return false;
    bt_tpl_token_next(parser);
    return true;
}

static bt_tpl_node *parse_set(bt_tpl_parser *parser)
{
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_SET);
    if (node == NULL) return NULL;
    node->target = bt_tpl_parse_target(parser, NULL, true);
    if (node->target == NULL) return NULL;
    if (bt_tpl_skip_operator(parser, "=")) {
        node->a = bt_tpl_parse_tuple(parser, true, NULL);
        return node->a != NULL ? bt_tpl_node_done(parser, node) : NULL;
    }
    node->kind = BT_TPL_N_SET_BLOCK;
    node->a = bt_tpl_parse_filters(parser, NULL, false);
    if (parser->status != BT_OK || !parse_whole_block(parser, "endset", "set", &node->body))
        return NULL;
    return bt_tpl_node_done(parser, node);
}

/* Names in `loop`s of their own: the body of a macro is no part of the loop around it. */
static bool parse_loop_body(bt_tpl_parser *parser, bt_tpl_node *node)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    bool outer_saw = parser->saw_loop;
    parser->saw_loop = false;
    parser->loops++;
    bool fine = parse_block(parser, ends, "for", &node->body);
    parser->loops--;
    node->uses_loop = parser->saw_loop || node->recursive;
    parser->saw_loop |= outer_saw;
    if (!fine) return false;
    if (bt_tpl_skip_name(parser, "endfor")) return true;
    bt_tpl_token_next(parser);
    return parse_whole_block(parser, "endfor", "for", &node->other);
}

static bool assigns_loop(const bt_tpl_node *target)
{
    if (target->kind == BT_TPL_N_NAME)
        return bt_tpl_is_text(BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)target->name), "loop");
    for (size_t i = 0; target->kind == BT_TPL_N_TUPLE && i < target->items.count; i++) {
        if (assigns_loop(target->items.items[i])) return true;
    }
    return false;
}

static bt_tpl_node *parse_for(bt_tpl_parser *parser)
{
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_FOR);
    if (node == NULL) return NULL;
    node->target = bt_tpl_parse_target(parser, "in", false);
    if (node->target == NULL) return NULL;
    if (assigns_loop(node->target)) {
        bt_tpl_parse_fail(parser, "loop cannot be assigned to");
        return NULL;
    }
    if (!bt_tpl_skip_name(parser, "in")) {
        bt_tpl_parse_fail(parser, "'in' is missing");
        return NULL;
    }
    node->a = bt_tpl_parse_tuple(parser, false, "recursive");
    if (node->a == NULL) return NULL;
    if (bt_tpl_skip_name(parser, "if")) {
        node->b = bt_tpl_parse_expression(parser, true);
        if (node->b == NULL) return NULL;
    }
    node->recursive = bt_tpl_skip_name(parser, "recursive");
    return parse_loop_body(parser, node) ? bt_tpl_node_done(parser, node) : NULL;
}

static bool parse_branches(bt_tpl_parser *parser, bt_tpl_node *node)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    size_t capacity = 0;
    do {
        if (node->items.count == capacity) {
            size_t grown = capacity == 0 ? 2 : capacity * 2;
            bt_tpl_nodes *bodies = bt_tpl_arena_take(parser->arena, grown, sizeof(bodies[0]));
            if (bodies == NULL) return bt_tpl_parse_fail(parser, "the template is too large");
            if (capacity > 0) memcpy(bodies, node->bodies, capacity * sizeof(bodies[0]));
            node->bodies = bodies;
            capacity = grown;
        }
        if (!bt_tpl_nodes_add(parser, &node->items, bt_tpl_parse_tuple(parser, false, NULL)) ||
            !parse_block(parser, ends, "if", &node->bodies[node->items.count - 1]))
            return false;
    } while (bt_tpl_skip_name(parser, "elif"));
    if (bt_tpl_skip_name(parser, "endif")) return true;
    bt_tpl_token_next(parser);
    return parse_whole_block(parser, "endif", "if", &node->other);
}

static bt_tpl_node *parse_if(bt_tpl_parser *parser)
{
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_IF);
    if (node == NULL) return NULL;
    parser->conditional++;
    bool fine = parse_branches(parser, node);
    parser->conditional--;
    return fine ? bt_tpl_node_done(parser, node) : NULL;
}

static bool parse_signature(bt_tpl_parser *parser, bt_tpl_params *params)
{
    if (!bt_tpl_expect_operator(parser, "(")) return false;
    while (!bt_tpl_at_operator(parser, ")")) {
        if (params->names.count > 0 && !bt_tpl_expect_operator(parser, ",")) return false;
        const bt_tpl_token *token = bt_tpl_expect_name(parser, "the name of a parameter");
        bt_tpl_node *name = token != NULL ? bt_tpl_node_new(parser, BT_TPL_N_NAME) : NULL;
        if (name == NULL) return false;
        name->name = bt_tpl_token_str(parser, token);
        if (name->name == NULL || !bt_tpl_nodes_add(parser, &params->names, name)) return false;
        params->explicit_caller |=
            bt_tpl_is_text(BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)name->name), "caller");
        if (bt_tpl_skip_operator(parser, "=")) {
            if (!bt_tpl_nodes_add(parser, &params->defaults, bt_tpl_parse_expression(parser, true)))
                return false;
        } else if (params->defaults.count > 0) {
            return bt_tpl_parse_fail(parser, "a parameter without a default follows one with");
        }
    }
    return bt_tpl_expect_operator(parser, ")");
}

/* The body of a macro or call block: loops around it are not its own. */
static bool parse_macro_body(bt_tpl_parser *parser, bt_tpl_node *node, const char *end,
                             const char *block)
{
    bt_tpl_params *outer = parser->params;
    unsigned loops = parser->loops;
    parser->params = node->params;
    parser->loops = 0;
    bool fine = parse_whole_block(parser, end, block, &node->body);
    parser->loops = loops;
    parser->params = outer;
    if (outer != NULL && fine) {
        outer->caller |= node->params->caller;
        outer->kwargs |= node->params->kwargs;
        outer->varargs |= node->params->varargs;
    }
    return fine;
}

static bt_tpl_node *with_params(bt_tpl_parser *parser, bt_tpl_kind kind)
{
    bt_tpl_node *node = bt_tpl_node_new(parser, kind);
    if (node == NULL) return NULL;
    node->params = bt_tpl_arena_take(parser->arena, 1, sizeof(*node->params));
    if (node->params != NULL) return node;
    bt_tpl_parse_fail(parser, "the template is too large");
    return NULL;
}

static bt_tpl_node *parse_macro(bt_tpl_parser *parser)
{
    bt_tpl_node *node = with_params(parser, BT_TPL_N_MACRO);
    const bt_tpl_token *token =
        node != NULL ? bt_tpl_expect_name(parser, "the name of the macro") : NULL;
    if (token == NULL) return NULL;
    node->name = bt_tpl_token_str(parser, token);
    if (node->name == NULL || !parse_signature(parser, node->params) ||
        !parse_macro_body(parser, node, "endmacro", "macro"))
        return NULL;
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *parse_call(bt_tpl_parser *parser)
{
    bt_tpl_node *node = with_params(parser, BT_TPL_N_CALLBLOCK);
    if (node == NULL) return NULL;
    if (bt_tpl_at_operator(parser, "(") && !parse_signature(parser, node->params)) return NULL;
    node->a = bt_tpl_parse_expression(parser, true);
    if (node->a == NULL) return NULL;
    if (node->a->kind != BT_TPL_N_CALL) {
        bt_tpl_parse_fail(parser, "a call is missing");
        return NULL;
    }
    if (!parse_macro_body(parser, node, "endcall", "call")) return NULL;
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *parse_filter_block(bt_tpl_parser *parser)
{
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_FILTERBLOCK);
    if (node == NULL) return NULL;
    node->a = bt_tpl_parse_filters(parser, NULL, true);
    if (node->a == NULL || !parse_whole_block(parser, "endfilter", "filter", &node->body))
        return NULL;
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *parse_with(bt_tpl_parser *parser)
{
    bt_tpl_node *node = with_params(parser, BT_TPL_N_WITH);
    if (node == NULL) return NULL;
    bt_tpl_params *params = node->params;
    while (bt_tpl_token_now(parser)->type != BT_TPL_T_BLOCK_END) {
        if (params->names.count > 0 && !bt_tpl_expect_operator(parser, ",")) return NULL;
        if (!bt_tpl_nodes_add(parser, &params->names, bt_tpl_parse_target(parser, NULL, false)) ||
            !bt_tpl_expect_operator(parser, "=") ||
            !bt_tpl_nodes_add(parser, &params->defaults, bt_tpl_parse_expression(parser, true)))
            return NULL;
    }
    if (!parse_whole_block(parser, "endwith", "with", &node->body)) return NULL;
    return bt_tpl_node_done(parser, node);
}

/* As in Hugging Face's environment, a call block without a call. */
static bt_tpl_node *parse_generation(bt_tpl_parser *parser)
{
    bt_tpl_node *node = with_params(parser, BT_TPL_N_GENERATION);
    if (node == NULL || !parse_macro_body(parser, node, "endgeneration", "generation")) return NULL;
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *parse_print_tag(bt_tpl_parser *parser)
{
    bt_tpl_node *node = bt_tpl_node_new(parser, BT_TPL_N_PRINT);
    while (node != NULL && bt_tpl_token_now(parser)->type != BT_TPL_T_BLOCK_END) {
        if (node->items.count > 0 && !bt_tpl_expect_operator(parser, ",")) return NULL;
        if (!bt_tpl_nodes_add(parser, &node->items, bt_tpl_parse_expression(parser, true)))
            return NULL;
    }
    return bt_tpl_node_done(parser, node);
}

static bt_tpl_node *parse_jump(bt_tpl_parser *parser, bt_tpl_kind kind)
{
    if (parser->loops > 0) return bt_tpl_node_new(parser, kind);
    bt_tpl_parse_fail(parser, "this tag is for loops");
    return NULL;
}

static bt_tpl_node *parse_break(bt_tpl_parser *parser)
{
    return parse_jump(parser, BT_TPL_N_BREAK);
}

static bt_tpl_node *parse_continue(bt_tpl_parser *parser)
{
    return parse_jump(parser, BT_TPL_N_CONTINUE);
}

static const struct {
    const char *name;
    bt_tpl_node *(*parse)(bt_tpl_parser *parser);
} statements[] = {
    {"set", parse_set},
    {"for", parse_for},
    {"if", parse_if},
    {"macro", parse_macro},
    {"call", parse_call},
    {"filter", parse_filter_block},
    {"with", parse_with},
    {"generation", parse_generation},
    {"print", parse_print_tag},
    {"break", parse_break},
    {"continue", parse_continue},
};

static bt_tpl_node *parse_statement(bt_tpl_parser *parser, const char *block)
{
    const bt_tpl_token *token = bt_tpl_token_now(parser);
    if (token->type != BT_TPL_T_NAME) {
        bt_tpl_parse_fail(parser, "the name of a tag is missing");
        return NULL;
    }
    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
        if (!bt_tpl_at_name(parser, statements[i].name)) continue;
        bt_tpl_token_next(parser);
        return statements[i].parse(parser);
    }
    int shown = (int)(token->bytes > 40 ? 40 : token->bytes);
    if (block != NULL)
        bt_tpl_parse_fail(parser, "the tag '%.*s' is not supported here; '%s' is still open", shown,
                          token->text, block);
    else
        bt_tpl_parse_fail(parser, "the tag '%.*s' is not supported", shown, token->text);
    return NULL;
}

bt_status bt_tpl_parse(const bt_tpl_tokens *tokens, const char *label, bt_tpl_arena *arena,
                       bt_tpl_nodes *ret_body, bt_err *err)
{
    bt_tpl_parser parser = {.tokens = tokens, .label = label, .arena = arena, .err = err};
    *ret_body = (bt_tpl_nodes){0};
    parse_body(&parser, NULL, NULL, ret_body);
    return parser.status;
}
