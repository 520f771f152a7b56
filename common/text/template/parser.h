/* parser.h - a template's tokens to its tree, by Jinja's grammar with the tags of Hugging Face's
 * environment: loop controls and {% generation %}.
 *
 * parse.c has the statements, parse_expr.c the expressions. Both share the state below. Nesting has
 * a limit (BT_TPL_NESTING_MAX), as has the height of the tree, so that neither parsing nor walking
 * the tree can exhaust the stack. */
#ifndef BT_COMMON_TEXT_TEMPLATE_PARSER_H
#define BT_COMMON_TEXT_TEMPLATE_PARSER_H

#include "common/base/status.h"
#include "common/text/template/ast.h"
#include "common/text/template/lexer.h"

#define BT_TPL_NESTING_MAX 200u /* of blocks, and of brackets, which count twice */
#define BT_TPL_HEIGHT_MAX 400u  /* of the tree: long chains of operators are high */

bt_status bt_tpl_parse(const bt_tpl_tokens *tokens, const char *label, bt_tpl_arena *arena,
                       bt_tpl_nodes *ret_body, bt_err *err);

/* Shared by the two files. Functions return NULL or false after bt_tpl_parse_fail. */
typedef struct {
    const bt_tpl_tokens *tokens;
    size_t at;
    const char *label;
    bt_tpl_arena *arena;
    unsigned nesting;
    unsigned conditional;  /* inside if: what is unknown fails only when it is met */
    unsigned loops;        /* for loops around, within this macro */
    bt_tpl_params *params; /* of the innermost macro */
    bool saw_loop;         /* the name `loop` was read */
    bt_status status;
    bt_err *err;
} bt_tpl_parser;

bool bt_tpl_parse_fail(bt_tpl_parser *parser, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
bt_tpl_node *bt_tpl_node_new(bt_tpl_parser *parser, bt_tpl_kind kind);
bool bt_tpl_nodes_add(bt_tpl_parser *parser, bt_tpl_nodes *nodes, bt_tpl_node *node);
/* Sets the node's height from what is below it. NULL if it is too high, or node is NULL. */
bt_tpl_node *bt_tpl_node_done(bt_tpl_parser *parser, bt_tpl_node *node);
const bt_tpl_str *bt_tpl_token_str(bt_tpl_parser *parser, const bt_tpl_token *token);

const bt_tpl_token *bt_tpl_token_now(const bt_tpl_parser *parser);
const bt_tpl_token *bt_tpl_token_next(bt_tpl_parser *parser); /* returns the one it steps over */
bool bt_tpl_at_operator(const bt_tpl_parser *parser, const char *text);
bool bt_tpl_at_name(const bt_tpl_parser *parser, const char *text);
bool bt_tpl_skip_operator(bt_tpl_parser *parser, const char *text);
bool bt_tpl_skip_name(bt_tpl_parser *parser, const char *text);
bool bt_tpl_expect_operator(bt_tpl_parser *parser, const char *text);
const bt_tpl_token *bt_tpl_expect_name(bt_tpl_parser *parser, const char *what);

bt_tpl_node *bt_tpl_parse_expression(bt_tpl_parser *parser, bool with_conditional);
/* end is a name that ends the tuple ("in", "recursive"), or NULL. */
bt_tpl_node *bt_tpl_parse_tuple(bt_tpl_parser *parser, bool with_conditional, const char *end);
/* A name, a tuple of them, or (with_namespace) ns.name. */
bt_tpl_node *bt_tpl_parse_target(bt_tpl_parser *parser, const char *end, bool with_namespace);
/* |name(…)|name…, on first (may be NULL). inline_first: the first "|" is not there. */
bt_tpl_node *bt_tpl_parse_filters(bt_tpl_parser *parser, bt_tpl_node *first, bool inline_first);

#endif
