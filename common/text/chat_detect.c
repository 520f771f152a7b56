#include "common/text/chat_detect.h"

#include "common/text/template/ast.h"

#include <string.h>

typedef struct {
    const char *name;
    bt_chat_use use;
} search;

static void look(search *s, const bt_tpl_node *node);

static void look_all(search *s, const bt_tpl_nodes *nodes)
{
    for (size_t i = 0; i < nodes->count; i++) look(s, nodes->items[i]);
}

static bool has_name(const search *s, const bt_tpl_str *str)
{
    return bt_tpl_is_text(BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)str), s->name);
}

/* The thing itself: x.name, x["name"], name. */
static bool is_it(const search *s, const bt_tpl_node *node)
{
    if (node == NULL) return false;
    if (node->kind == BT_TPL_N_NAME || node->kind == BT_TPL_N_ATTR) return has_name(s, node->name);
    return node->kind == BT_TPL_N_ITEM && node->b->kind == BT_TPL_N_CONST &&
           bt_tpl_is_text(node->b->constant, s->name);
}

/* The thing, or a slice or a filter of it. */
static bool is_made_of_it(const search *s, const bt_tpl_node *node)
{
    while (node != NULL && !is_it(s, node) &&
           (node->kind == BT_TPL_N_FILTER ||
            (node->kind == BT_TPL_N_ITEM && node->b->kind == BT_TPL_N_SLICE)))
        node = node->a;
    return is_it(s, node);
}

static bool is_one_of(const bt_tpl_str *name, const char *const *names)
{
    bt_tpl_value text = BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)name);
    for (; *names != NULL; names++) {
        if (bt_tpl_is_text(text, *names)) return true;
    }
    return false;
}

static void look_at_filter(search *s, const bt_tpl_node *node)
{
    static const char *const texts[] = {"trim",    "upper", "lower",  "replace", "indent",
                                        "replace", "title", "escape", "string",  NULL};
    static const char *const walks[] = {"items", "dictsort", "list", "selectattr", "map", NULL};
    static const char *const dumps[] = {"tojson", NULL};
    s->use.prints |= is_one_of(node->name, texts);
    s->use.walks |= is_one_of(node->name, walks);
    s->use.dumps |= is_one_of(node->name, dumps);
}

static void look_at_test(search *s, const bt_tpl_node *node)
{
    static const char *const asks[] = {"string", "mapping", "sequence", "iterable", NULL};
    s->use.asks |= is_one_of(node->name, asks);
}

/* A method of it: it.items() walks, others are those of texts. */
static void look_at_method(search *s, const bt_tpl_node *node)
{
    static const char *const walks[] = {"items", "keys", "values", "get", NULL};
    if (is_one_of(node->name, walks))
        s->use.walks = true;
    else
        s->use.prints = true;
}

static void look(search *s, const bt_tpl_node *node)
{
    if (node == NULL) return;
    switch (node->kind) {
    case BT_TPL_N_FILTER:
        if (is_it(s, node->a)) look_at_filter(s, node);
        break;
    case BT_TPL_N_TEST:
        if (is_it(s, node->a)) look_at_test(s, node);
        break;
    case BT_TPL_N_CALL:
        if (node->a->kind == BT_TPL_N_ATTR && is_it(s, node->a->a)) look_at_method(s, node->a);
        break;
    case BT_TPL_N_FOR: s->use.walks |= is_made_of_it(s, node->a); break;
    case BT_TPL_N_BINARY: s->use.prints |= is_it(s, node->a) || is_it(s, node->b); break;
    case BT_TPL_N_CONCAT:
    case BT_TPL_N_PRINT:
        for (size_t i = 0; i < node->items.count; i++)
            s->use.prints |= is_it(s, node->items.items[i]);
        break;
    default: break;
    }
    look(s, node->a);
    look(s, node->b);
    look(s, node->c);
    look_all(s, &node->items);
    look_all(s, &node->body);
    look_all(s, &node->other);
    for (size_t i = 0; node->bodies != NULL && i < node->items.count; i++)
        look_all(s, &node->bodies[i]);
    if (node->call != NULL) {
        look_all(s, &node->call->args);
        look_all(s, &node->call->named);
    }
    if (node->params != NULL) look_all(s, &node->params->defaults);
}

bt_chat_use bt_chat_detect(const bt_template *tpl, const char *name)
{
    search s = {.name = name};
    look_all(&s, bt_template_body(tpl));
    return s.use;
}
