/* ast.h - a parsed template. Every node is of one struct; what its fields mean is said at its kind.
 * Nodes live in the template's arena and never change. */
#ifndef BT_COMMON_TEXT_TEMPLATE_AST_H
#define BT_COMMON_TEXT_TEMPLATE_AST_H

#include "common/text/template.h"
#include "common/text/template/arena.h"
#include "common/text/template/value.h"

typedef enum {
    /* Expressions. */
    BT_TPL_N_CONST,   /* constant */
    BT_TPL_N_NAME,    /* name */
    BT_TPL_N_LIST,    /* items */
    BT_TPL_N_TUPLE,   /* items */
    BT_TPL_N_DICT,    /* items: key, value, key, value, … */
    BT_TPL_N_ATTR,    /* a.name */
    BT_TPL_N_ITEM,    /* a[b] */
    BT_TPL_N_SLICE,   /* b of an ITEM: a:b:c, each may be NULL */
    BT_TPL_N_CALL,    /* a(call) */
    BT_TPL_N_FILTER,  /* a|name(call): native, NULL if unknown; a is NULL in filter blocks */
    BT_TPL_N_TEST,    /* a is name(call): native, NULL if unknown */
    BT_TPL_N_NOT,     /* not a */
    BT_TPL_N_NEG,     /* -a */
    BT_TPL_N_POS,     /* +a */
    BT_TPL_N_BINARY,  /* a op b: op is '+', '-', '*', '/', 'f' for //, '%', 'p' for ** */
    BT_TPL_N_AND,     /* a and b */
    BT_TPL_N_OR,      /* a or b */
    BT_TPL_N_COMPARE, /* a, then items with ops: COMPARE operators */
    BT_TPL_N_CONCAT,  /* items joined by ~ */
    BT_TPL_N_COND,    /* a if b else c; c may be NULL */
    /* Targets, beside NAME and TUPLE. */
    BT_TPL_N_NSREF, /* name.other_name */
    /* Statements. */
    BT_TPL_N_DATA,        /* constant */
    BT_TPL_N_PRINT,       /* items */
    BT_TPL_N_SET,         /* target = a */
    BT_TPL_N_SET_BLOCK,   /* target = body, through a (filters), which may be NULL */
    BT_TPL_N_FOR,         /* target in a, if b; body; other; recursive; uses_loop */
    BT_TPL_N_IF,          /* items: conditions, and bodies[i] for each; other */
    BT_TPL_N_MACRO,       /* name, params, body */
    BT_TPL_N_CALLBLOCK,   /* a is the CALL; params, body */
    BT_TPL_N_FILTERBLOCK, /* a (filters), body */
    BT_TPL_N_WITH,        /* params (names and values), body */
    BT_TPL_N_GENERATION,  /* params (none), body */
    BT_TPL_N_BREAK,
    BT_TPL_N_CONTINUE
} bt_tpl_kind;

typedef enum {
    BT_TPL_EQ,
    BT_TPL_NE,
    BT_TPL_LT,
    BT_TPL_LE,
    BT_TPL_GT,
    BT_TPL_GE,
    BT_TPL_IN,
    BT_TPL_NOT_IN
} bt_tpl_relation;

typedef struct {
    bt_tpl_node **items;
    size_t count, capacity;
} bt_tpl_nodes;

/* The arguments of a call, a filter or a test. */
typedef struct {
    bt_tpl_nodes args;
    bt_tpl_nodes named; /* values of names */
    const bt_tpl_str **names;
    bt_tpl_node *star, *star_star; /* or NULL */
} bt_tpl_call;

/* The parameters of a macro or call block, or the variables of a with block. */
typedef struct {
    bt_tpl_nodes names;           /* NAME, or any target in with */
    bt_tpl_nodes defaults;        /* of the last ones; values in with */
    bool caller, kwargs, varargs; /* the body speaks of these */
    bool explicit_caller;         /* a parameter has this name */
} bt_tpl_params;

struct bt_tpl_node {
    bt_tpl_kind kind;
    uint32_t line, height; /* height: levels below this one */
    char op;
    bool recursive, uses_loop;
    bt_tpl_node *a, *b, *c, *target;
    bt_tpl_nodes items, body, other;
    bt_tpl_nodes *bodies;
    uint8_t *ops; /* bt_tpl_relation */
    bt_tpl_call *call;
    bt_tpl_params *params;
    const bt_tpl_str *name, *other_name;
    const bt_tpl_native *native;
    bt_tpl_value constant;
};

/* For those who ask what a template does with its input (common/text/chat_detect.h). */
const bt_tpl_nodes *bt_template_body(const bt_template *tpl);

#endif
