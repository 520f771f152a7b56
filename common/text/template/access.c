/* access.c - value.name, value[key], value[a:b:c], value(…). */
#include "common/text/template/eval.h"
#include "common/text/template/native.h"

#include <string.h>

/* Slices. */

static bool slice_part(bt_tpl_run *run, bt_tpl_value part, bool *ret_given, int64_t *ret_number)
{
    *ret_given = part.type != BT_TPL_NONE && part.type != BT_TPL_MISSING;
    (void)run;
    return !*ret_given || bt_tpl_as_int(part, ret_number);
}

/* A bound as Python clips it: negative ones count from the end. */
static int64_t clip(int64_t bound, int64_t length, int64_t lowest, int64_t highest)
{
    if (bound < 0) bound = bound < -length ? lowest : bound + length;
    return bound < lowest ? lowest : bound > highest ? highest : bound;
}

/* *ret_valid is false, without a failure, if a part is no integer (Python's TypeError). */
static bool slice_range(bt_tpl_run *run, const bt_tpl_value parts[3], size_t length,
                        bt_tpl_range *ret_range, bool *ret_valid)
{
    bool given[3];
    int64_t numbers[3] = {0, 0, 1}, size = (int64_t)length;
    *ret_valid = true;
    for (int i = 0; i < 3; i++) *ret_valid &= slice_part(run, parts[i], &given[i], &numbers[i]);
    if (!*ret_valid) return true;
    int64_t step = given[2] ? numbers[2] : 1;
    if (step == 0) return BT_TPL_RAISE(run, "slice step cannot be zero");
    if (step == INT64_MIN) step = -INT64_MAX;
    int64_t lowest = step > 0 ? 0 : -1, highest = step > 0 ? size : size - 1;
    int64_t start = step > 0 ? 0 : size - 1, stop = step > 0 ? size : -1;
    if (given[0]) start = clip(numbers[0], size, lowest, highest);
    if (given[1]) stop = clip(numbers[1], size, lowest, highest);
    size_t count = 0;
    if (step > 0 && stop > start) count = (size_t)((stop - start - 1) / step + 1);
    if (step < 0 && stop < start) count = (size_t)((start - stop - 1) / -step + 1);
    *ret_range = (bt_tpl_range){.start = start, .stop = stop, .step = step, .count = count};
    return true;
}

static bool slice_str(bt_tpl_run *run, bt_tpl_str *str, const bt_tpl_range *range,
                      bt_tpl_value *ret)
{
    if (!bt_tpl_steps_bytes(run, str->bytes)) return false;
    if (range->step == 1 || range->count == 0) {
        size_t first = range->count == 0 ? 0 : bt_tpl_char_offset(str, (size_t)range->start);
        size_t end =
            range->count == 0 ? 0 : bt_tpl_char_offset(str, (size_t)range->start + range->count);
        return bt_tpl_str_slice(run, str, first, end, ret);
    }
    bt_tpl_builder builder;
    bt_tpl_build(run, &builder);
    builder.markup = str->markup;
    size_t at = bt_tpl_char_offset(str, (size_t)range->start), bytes;
    for (size_t i = 0; i < range->count; i++) {
        bt_tpl_char_at(str, at, &bytes);
        if (!bt_tpl_put_slice(run, &builder, str, at, at + bytes)) return false;
        if (i + 1 == range->count) break;
        for (int64_t step = range->step; step > 0; step--) {
            bt_tpl_char_at(str, at, &bytes);
            at += bytes;
        }
        for (int64_t step = range->step; step < 0; step++) {
            bt_tpl_char_before(str, at, &bytes);
            at -= bytes;
        }
    }
    return bt_tpl_built(run, &builder, ret);
}

static bool slice_items(bt_tpl_run *run, const bt_tpl_list *list, bt_tpl_type type,
                        const bt_tpl_range *range, bt_tpl_value *ret)
{
    bt_tpl_list *part;
    if (!bt_tpl_list_new(run, range->count, &part)) return false;
    for (; part->count < range->count; part->count++)
        part->items[part->count] = list->items[range->start + (int64_t)part->count * range->step];
    return bt_tpl_list_value(run, part, type, ret);
}

static bool slice_of_range(bt_tpl_run *run, const bt_tpl_range *whole, const bt_tpl_range *part,
                           bt_tpl_value *ret)
{
    bt_tpl_range *range = BT_TPL_NEW(run, bt_tpl_range);
    if (range == NULL) return false;
    int64_t start, stop;
    if (__builtin_mul_overflow(part->start, whole->step, &start) ||
        __builtin_add_overflow(whole->start, start, &range->start) ||
        __builtin_mul_overflow(part->stop, whole->step, &stop) ||
        __builtin_add_overflow(whole->start, stop, &range->stop) ||
        __builtin_mul_overflow(whole->step, part->step, &range->step))
        return bt_tpl_fail(run, BT_ERR_LIMIT, "an integer does not fit into 64 bits");
    range->count = part->count;
    *ret = (bt_tpl_value){.type = BT_TPL_RANGE, .range = range};
    return true;
}

bool bt_tpl_get_slice(bt_tpl_run *run, bt_tpl_value owner, const bt_tpl_value parts[3],
                      bt_tpl_value *ret)
{
    size_t length;
    bt_tpl_range range = {0};
    bool valid = false;
    if (owner.type == BT_TPL_UNDEFINED) return bt_tpl_undefined_fail(run, owner);
    bool sliceable = owner.type == BT_TPL_STR || owner.type == BT_TPL_LIST ||
                     owner.type == BT_TPL_TUPLE || owner.type == BT_TPL_RANGE;
    if (sliceable && bt_tpl_length(owner, &length) &&
        !slice_range(run, parts, length, &range, &valid))
        return false;
    /* Unlike other subscripts, Jinja leaves slices to Python, which raises. */
    if (!sliceable)
        return BT_TPL_RAISE(run, "'%s' object cannot be sliced", bt_tpl_type_name(owner));
    if (!valid) return BT_TPL_RAISE(run, "slice indices must be integers or None");
    if (owner.type == BT_TPL_STR) return slice_str(run, owner.str, &range, ret);
    if (owner.type == BT_TPL_RANGE) return slice_of_range(run, owner.range, &range, ret);
    return slice_items(run, owner.list, owner.type, &range, ret);
}

/* Attributes. */

static bool loop_attr(bt_tpl_run *run, bt_tpl_loop *loop, const bt_tpl_str *name, bt_tpl_value *ret,
                      bool *ret_found)
{
    int64_t index = (int64_t)loop->index, length = (int64_t)loop->count;
    const struct {
        const char *name;
        bt_tpl_value value;
    } rows[] = {{"index", BT_TPL_V_INT(index + 1)},
                {"index0", BT_TPL_V_INT(index)},
                {"revindex", BT_TPL_V_INT(length - index)},
                {"revindex0", BT_TPL_V_INT(length - index - 1)},
                {"first", BT_TPL_V_BOOL(index == 0)},
                {"last", BT_TPL_V_BOOL(index + 1 == length)},
                {"length", BT_TPL_V_INT(length)},
                {"depth", BT_TPL_V_INT((int64_t)loop->depth + 1)},
                {"depth0", BT_TPL_V_INT(loop->depth)}};
    bt_tpl_value text = BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)name);
    *ret_found = true;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (!bt_tpl_is_text(text, rows[i].name)) continue;
        *ret = rows[i].value;
        return true;
    }
    if (bt_tpl_is_text(text, "previtem")) {
        if (index == 0) return bt_tpl_undefined_hint(run, "there is no previous item", ret);
        return bt_tpl_loop_item(run, loop, -1, ret);
    }
    if (bt_tpl_is_text(text, "nextitem")) {
        if (index + 1 >= length) return bt_tpl_undefined_hint(run, "there is no next item", ret);
        return bt_tpl_loop_item(run, loop, 1, ret);
    }
    *ret_found = false;
    return true;
}

static bool macro_attr(bt_tpl_run *run, const bt_tpl_macro *macro, bt_tpl_value name,
                       bt_tpl_value *ret, bool *ret_found)
{
    const bt_tpl_params *params = macro->node->params;
    *ret_found = true;
    if (bt_tpl_is_text(name, "name")) {
        *ret = macro->name != NULL ? BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)macro->name)
                                   : BT_TPL_V_NONE;
    } else if (bt_tpl_is_text(name, "caller")) {
        *ret = BT_TPL_V_BOOL(params->caller);
    } else if (bt_tpl_is_text(name, "catch_kwargs")) {
        *ret = BT_TPL_V_BOOL(params->kwargs);
    } else if (bt_tpl_is_text(name, "catch_varargs")) {
        *ret = BT_TPL_V_BOOL(params->varargs);
    } else if (bt_tpl_is_text(name, "arguments")) {
        bt_tpl_list *list;
        if (!bt_tpl_list_new(run, params->names.count, &list)) return false;
        for (; list->count < params->names.count; list->count++)
            list->items[list->count] =
                BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)params->names.items[list->count]->name);
        return bt_tpl_list_value(run, list, BT_TPL_LIST, ret);
    } else {
        *ret_found = false;
    }
    return true;
}

/* Python's getattr(). */
static bool own_attr(bt_tpl_run *run, bt_tpl_value owner, const bt_tpl_str *name, bt_tpl_value *ret,
                     bool *ret_found)
{
    *ret_found = false;
    bt_tpl_value text = BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)name);
    if (owner.type == BT_TPL_NAMESPACE) {
        if (!bt_tpl_dict_get(run, owner.dict, text, ret)) return false;
        *ret_found = ret->type != BT_TPL_MISSING;
        return true;
    }
    if (owner.type == BT_TPL_LOOP) {
        if (!loop_attr(run, owner.loop, name, ret, ret_found) || *ret_found)
            return run->status == BT_OK;
    }
    if (owner.type == BT_TPL_MACRO) return macro_attr(run, owner.macro, text, ret, ret_found);
    if (owner.type == BT_TPL_TUPLE && owner.list->group) {
        bool list = bt_tpl_is_text(text, "list");
        *ret_found = list || bt_tpl_is_text(text, "grouper");
        if (*ret_found) *ret = owner.list->items[list];
        if (*ret_found) return true;
    }
    if (owner.type == BT_TPL_RANGE) {
        *ret_found = true;
        if (bt_tpl_is_text(text, "start")) return *ret = BT_TPL_V_INT(owner.range->start), true;
        if (bt_tpl_is_text(text, "stop")) return *ret = BT_TPL_V_INT(owner.range->stop), true;
        if (bt_tpl_is_text(text, "step")) return *ret = BT_TPL_V_INT(owner.range->step), true;
        *ret_found = false;
    }
    bool unsafe;
    const bt_tpl_native *native = bt_tpl_method_of(owner, name->data, name->bytes, &unsafe);
    *ret_found = native != NULL || unsafe;
    if (unsafe) {
        char *copy = bt_tpl_take(run, name->bytes + 1, 1);
        if (copy == NULL) return false;
        memcpy(copy, name->data, name->bytes);
        return bt_tpl_undefined_unsafe(run, owner, copy, ret);
    }
    if (native == NULL) return true;
    bt_tpl_method *method = BT_TPL_NEW(run, bt_tpl_method);
    if (method == NULL) return false;
    *method = (bt_tpl_method){.self = owner, .native = native};
    *ret = (bt_tpl_value){.type = BT_TPL_METHOD, .method = method};
    return true;
}

/* Python's value[key]; not found where it raises TypeError or LookupError. */
static bool own_item(bt_tpl_run *run, bt_tpl_value owner, bt_tpl_value key, bt_tpl_value *ret,
                     bool *ret_found)
{
    *ret_found = false;
    if (owner.type == BT_TPL_DICT) {
        if (!bt_tpl_hashable(key)) return true;
        if (!bt_tpl_dict_get(run, owner.dict, key, ret)) return false;
        *ret_found = ret->type != BT_TPL_MISSING;
        return true;
    }
    int64_t index;
    size_t length;
    bool indexed = owner.type == BT_TPL_STR || owner.type == BT_TPL_LIST ||
                   owner.type == BT_TPL_TUPLE || owner.type == BT_TPL_RANGE;
    if (!indexed || !bt_tpl_as_int(key, &index) || !bt_tpl_length(owner, &length)) return true;
    if (index < 0) index += (int64_t)length;
    if (index < 0 || index >= (int64_t)length) return true;
    *ret_found = true;
    if (owner.type == BT_TPL_RANGE) {
        *ret = BT_TPL_V_INT(owner.range->start + index * owner.range->step);
    } else if (owner.type == BT_TPL_STR) {
        if (!bt_tpl_steps_bytes(run, owner.str->bytes)) return false;
        size_t first = bt_tpl_char_offset(owner.str, (size_t)index), bytes;
        bt_tpl_char_at(owner.str, first, &bytes);
        return bt_tpl_str_slice(run, owner.str, first, first + bytes, ret);
    } else {
        *ret = owner.list->items[index];
    }
    return true;
}

bool bt_tpl_get_attr(bt_tpl_run *run, bt_tpl_value owner, const bt_tpl_str *name, bt_tpl_value *ret)
{
    bool found;
    bt_tpl_value key = BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)name);
    /* Python finds these two on its Undefined itself, and the sandbox hides them. */
    bool private = bt_tpl_is_text(key, "__class__") || bt_tpl_is_text(key, "__len__");
    if (owner.type == BT_TPL_UNDEFINED && !private) return bt_tpl_undefined_fail(run, owner);
    if (!own_attr(run, owner, name, ret, &found)) return false;
    if (!found && !own_item(run, owner, key, ret, &found)) return false;
    return found || bt_tpl_undefined_member(run, owner, key, ret);
}

bool bt_tpl_get_item(bt_tpl_run *run, bt_tpl_value owner, bt_tpl_value key, bt_tpl_value *ret)
{
    bool found;
    if (owner.type == BT_TPL_UNDEFINED) return bt_tpl_undefined_fail(run, owner);
    if (!own_item(run, owner, key, ret, &found)) return false;
    if (!found && key.type == BT_TPL_STR && !own_attr(run, owner, key.str, ret, &found))
        return false;
    return found || bt_tpl_undefined_member(run, owner, key, ret);
}

/* Calls. */

static bool no_arguments(bt_tpl_run *run, const char *what, const bt_tpl_args *args)
{
    if (args->count + args->named_count == 0) return true;
    return BT_TPL_RAISE(run, "%s takes no arguments", what);
}

static bool call_loop(bt_tpl_run *run, const bt_tpl_loop *loop, const bt_tpl_args *args,
                      bt_tpl_value *ret)
{
    if (args->count != 1 || args->named_count != 0)
        return BT_TPL_RAISE(run, "loop() takes one argument");
    return bt_tpl_loop_again(run, loop, args->args[0], ret);
}

static bool call_joiner(bt_tpl_run *run, bt_tpl_joiner *joiner, const bt_tpl_args *args,
                        bt_tpl_value *ret)
{
    if (!no_arguments(run, "a joiner", args)) return false;
    if (!joiner->used) {
        joiner->used = true;
        return bt_tpl_str_text(run, "", ret);
    }
    *ret = BT_TPL_V_STR((bt_tpl_str *)(uintptr_t)joiner->separator);
    return true;
}

bool bt_tpl_call_value(bt_tpl_run *run, bt_tpl_value callee, const bt_tpl_args *args,
                       bt_tpl_value *ret)
{
    switch (callee.type) {
    case BT_TPL_MACRO: return bt_tpl_macro_call(run, callee.macro, args, ret);
    case BT_TPL_METHOD:
        return bt_tpl_native_call(run, callee.method->native, callee.method->self, args, ret);
    case BT_TPL_FUNCTION: return bt_tpl_native_call(run, callee.function, BT_TPL_V_NONE, args, ret);
    case BT_TPL_LOOP: return call_loop(run, callee.loop, args, ret);
    case BT_TPL_JOINER: return call_joiner(run, callee.joiner, args, ret);
    case BT_TPL_UNDEFINED: return bt_tpl_undefined_fail(run, callee);
    default: return BT_TPL_RAISE(run, "'%s' object is not callable", bt_tpl_type_name(callee));
    }
}
