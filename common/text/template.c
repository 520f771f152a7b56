#include "common/text/template.h"

#include "common/text/template/eval.h"
#include "common/text/template/lexer.h"
#include "common/text/template/parser.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TREE_BYTES_MAX ((size_t)64 << 20) /* tokens and nodes of a template */
#define LABEL_BYTES_MAX 64u

struct bt_template {
    char label[LABEL_BYTES_MAX];
    bt_tpl_budget budget;
    bt_tpl_arena arena;
    bt_tpl_nodes body;
};

bt_status bt_template_parse(const char *text, size_t bytes, const char *label,
                            bt_template **ret_template, bt_err *err)
{
    if (bytes > BT_TEMPLATE_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "%.60s has more than %u bytes", label,
                       BT_TEMPLATE_BYTES_MAX);
    bt_template *tpl = calloc(1, sizeof(*tpl));
    if (tpl == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "out of memory");
    snprintf(tpl->label, sizeof(tpl->label), "%s", label);
    tpl->budget.max_bytes = TREE_BYTES_MAX;
    bt_tpl_arena_init(&tpl->arena, &tpl->budget);
    bt_tpl_tokens tokens;
    bt_status status = bt_tpl_lex(text, bytes, tpl->label, &tpl->arena, &tokens, err);
    if (status == BT_OK) status = bt_tpl_parse(&tokens, tpl->label, &tpl->arena, &tpl->body, err);
    if (status == BT_OK)
        *ret_template = tpl;
    else
        bt_template_close(tpl);
    return status;
}

void bt_template_close(bt_template *tpl)
{
    if (tpl == NULL) return;
    bt_tpl_arena_finish(&tpl->arena);
    free(tpl);
}

const bt_tpl_nodes *bt_template_body(const bt_template *tpl)
{
    return &tpl->body;
}

/* JSON to values. */

static bool from_json(bt_tpl_run *run, const json_t *json, bool marked, bt_tpl_value *ret);

static bool str_from_json(bt_tpl_run *run, const char *data, size_t bytes, bool marked,
                          bt_tpl_value *ret)
{
    if (!bt_tpl_str_new(run, data, bytes, ret)) return false;
    if (!marked || bytes == 0) return true;
    bt_text_range *mark = BT_TPL_NEW(run, bt_text_range);
    if (mark == NULL) return false;
    *mark = (bt_text_range){0, bytes};
    ret->str->marks = mark;
    ret->str->mark_count = 1;
    return true;
}

static bool is_usual_role(const char *key, const json_t *value)
{
    static const char *const roles[] = {"system", "user",      "assistant",
                                        "tool",   "developer", "function"};
    const char *role = json_string_value(value);
    if (role == NULL || strcmp(key, "role") != 0) return false;
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
        if (strcmp(role, roles[i]) == 0) return true;
    }
    return false;
}

static bool dict_from_json(bt_tpl_run *run, const json_t *json, bool marked, bt_tpl_dict **dict)
{
    const char *key;
    json_t *member, *object = (json_t *)(uintptr_t)json; /* jansson's iterators are not const */
    size_t bytes, more = json_object_size(json);
    if (*dict == NULL && !bt_tpl_dict_new(run, more, dict)) return false;
    json_object_keylen_foreach(object, key, bytes, member)
    {
        bt_tpl_dict *into = *dict;
        /* Keys are different already: no search. */
        if (into->count == into->capacity) return BT_TPL_RAISE(run, "an object has changed");
        bt_tpl_entry *entry = &into->entries[into->count];
        if (!str_from_json(run, key, bytes, marked, &entry->key) ||
            !from_json(run, member, marked && !(run->roles && is_usual_role(key, member)),
                       &entry->value))
            return false;
        into->count++;
    }
    return true;
}

static bool list_from_json(bt_tpl_run *run, const json_t *json, bool marked, bt_tpl_value *ret)
{
    bt_tpl_list *list;
    if (!bt_tpl_list_new(run, json_array_size(json), &list)) return false;
    for (size_t i = 0; i < json_array_size(json); i++) {
        if (!from_json(run, json_array_get(json, i), marked, &list->items[i])) return false;
        list->count++;
    }
    return bt_tpl_list_value(run, list, BT_TPL_LIST, ret);
}

static bool nested_from_json(bt_tpl_run *run, const json_t *json, bool marked, bt_tpl_value *ret)
{
    if (!bt_tpl_enter(run)) return false;
    bt_tpl_dict *dict = NULL;
    bool fine = json_is_array(json) ? list_from_json(run, json, marked, ret)
                                    : dict_from_json(run, json, marked, &dict);
    if (fine && dict != NULL) *ret = (bt_tpl_value){.type = BT_TPL_DICT, .dict = dict};
    bt_tpl_leave(run);
    return fine;
}

static bool from_json(bt_tpl_run *run, const json_t *json, bool marked, bt_tpl_value *ret)
{
    switch (json_typeof(json)) {
    case JSON_NULL: *ret = BT_TPL_V_NONE; return true;
    case JSON_TRUE: *ret = BT_TPL_V_BOOL(true); return true;
    case JSON_FALSE: *ret = BT_TPL_V_BOOL(false); return true;
    case JSON_INTEGER: *ret = BT_TPL_V_INT(json_integer_value(json)); return true;
    case JSON_REAL: *ret = BT_TPL_V_FLOAT(json_real_value(json)); return true;
    case JSON_STRING:
        return str_from_json(run, json_string_value(json), json_string_length(json), marked, ret);
    default: return nested_from_json(run, json, marked, ret);
    }
}

/* The context: the input's variables first, so that they are found first. */
static bool make_context(bt_tpl_run *run, const bt_template_context *context)
{
    const json_t *parts[2] = {context->input, context->trusted};
    bt_tpl_dict *dict;
    if (!bt_tpl_dict_new(run, 1 + json_object_size(parts[0]) + json_object_size(parts[1]), &dict))
        return false;
    for (int i = 0; i < 2; i++) {
        const char *key;
        json_t *member, *object = (json_t *)(uintptr_t)parts[i];
        size_t bytes;
        json_object_keylen_foreach(object, key, bytes, member)
        {
            bt_tpl_value name, value;
            if (bt_tpl_dict_find(dict, key, bytes).type != BT_TPL_MISSING) continue;
            if (!str_from_json(run, key, bytes, false, &name) ||
                !from_json(run, member, i == 0, &value))
                return false;
            dict->entries[dict->count++] = (bt_tpl_entry){.key = name, .value = value};
        }
    }
    run->context = dict;
    return true;
}

/* Rendering. */

static bt_template_limits with_defaults(const bt_template_limits *limits)
{
    bt_template_limits all = limits != NULL ? *limits : (bt_template_limits){0};
    if (all.steps == 0) all.steps = 20000000;
    if (all.depth == 0) all.depth = 200;
    if (all.memory_bytes == 0) all.memory_bytes = (size_t)128 << 20;
    if (all.output_bytes == 0) all.output_bytes = (size_t)4 << 20;
    if (all.string_bytes == 0) all.string_bytes = (size_t)16 << 20;
    if (all.list_items == 0) all.list_items = 100000;
    return all;
}

static bt_status take_output(const bt_tpl_run *run, const bt_tpl_builder *out,
                             bt_template_output *ret_output, bt_err *err)
{
    bt_template_output made = {.bytes = out->bytes,
                               .plain_count = out->mark_count,
                               .steps = run->limits.steps - run->steps_left,
                               .memory_bytes = run->budget.used_bytes};
    made.text = malloc(out->bytes + 1);
    made.plain = malloc((out->mark_count + 1) * sizeof(made.plain[0]));
    if (made.text == NULL || made.plain == NULL) {
        bt_template_output_finish(&made);
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "out of memory");
    }
    if (out->bytes > 0) memcpy(made.text, out->data, out->bytes);
    made.text[out->bytes] = '\0';
    if (out->mark_count > 0)
        memcpy(made.plain, out->marks, out->mark_count * sizeof(made.plain[0]));
    bt_template_output_finish(ret_output);
    *ret_output = made;
    return BT_OK;
}

bt_status bt_template_render(const bt_template *tpl, const bt_template_context *context,
                             const bt_template_limits *limits, bt_template_output *ret_output,
                             bt_err *err)
{
    bt_tpl_run run = {.label = tpl->label, .limits = with_defaults(limits), .line = 1, .err = err};
    run.roles = context->roles;
    run.steps_left = run.limits.steps;
    run.budget.max_bytes = run.limits.memory_bytes;
    bt_tpl_arena_init(&run.objects, &run.budget);
    bt_tpl_arena_init(&run.text, &run.budget);
    bt_tpl_builder out = {.bytes_max = run.limits.output_bytes};
    run.out = &out;
    bool fine =
        make_context(&run, context) && bt_tpl_scope_push(&run) && bt_tpl_exec(&run, &tpl->body);
    assert(fine == (run.status == BT_OK));
    bt_status status = fine ? take_output(&run, &out, ret_output, err) : run.status;
    bt_tpl_arena_finish(&run.text);
    bt_tpl_arena_finish(&run.objects);
    return status;
}

void bt_template_output_finish(bt_template_output *output)
{
    free(output->text);
    free(output->plain);
    *output = (bt_template_output){0};
}
