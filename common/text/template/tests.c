/* tests.c - what may stand behind "is". */
#include "common/text/template/eval.h"
#include "common/text/template/methods.h"

#include <string.h>

BT_TPL_NATIVE(is_defined)
{
    *ret = BT_TPL_V_BOOL(self.type != BT_TPL_UNDEFINED);
    return true;
}

BT_TPL_NATIVE(is_undefined)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_UNDEFINED);
    return true;
}

BT_TPL_NATIVE(is_none)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_NONE);
    return true;
}

BT_TPL_NATIVE(is_boolean)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_BOOL);
    return true;
}

BT_TPL_NATIVE(is_true)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_BOOL && self.flag);
    return true;
}

BT_TPL_NATIVE(is_false)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_BOOL && !self.flag);
    return true;
}

BT_TPL_NATIVE(is_integer)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_INT);
    return true;
}

BT_TPL_NATIVE(is_float)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_FLOAT);
    return true;
}

BT_TPL_NATIVE(is_number)
{
    double real;
    *ret = BT_TPL_V_BOOL(bt_tpl_as_real(self, &real));
    return true;
}

BT_TPL_NATIVE(is_string)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_STR);
    return true;
}

BT_TPL_NATIVE(is_mapping)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_DICT);
    return true;
}

/* Has a length and can be indexed; undefined counts, views do not. */
BT_TPL_NATIVE(is_sequence)
{
    size_t length;
    *ret = BT_TPL_V_BOOL(self.type != BT_TPL_VIEW && bt_tpl_length(self, &length));
    return true;
}

BT_TPL_NATIVE(is_iterable)
{
    *ret = BT_TPL_V_BOOL(bt_tpl_iterable(self));
    return true;
}

BT_TPL_NATIVE(is_callable)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_MACRO || self.type == BT_TPL_METHOD ||
                         self.type == BT_TPL_FUNCTION || self.type == BT_TPL_LOOP ||
                         self.type == BT_TPL_JOINER || self.type == BT_TPL_UNDEFINED);
    return true;
}

static bool remainder_is(bt_tpl_run *run, bt_tpl_value value, bt_tpl_value divisor,
                         int64_t expected, bt_tpl_value *ret)
{
    bool equal;
    bt_tpl_value rest;
    if (!bt_tpl_binary(run, '%', value, divisor, &rest) ||
        !bt_tpl_equal(run, rest, BT_TPL_V_INT(expected), &equal))
        return false;
    *ret = BT_TPL_V_BOOL(equal);
    return true;
}

BT_TPL_NATIVE(is_odd)
{
    return remainder_is(run, self, BT_TPL_V_INT(2), 1, ret);
}

BT_TPL_NATIVE(is_even)
{
    return remainder_is(run, self, BT_TPL_V_INT(2), 0, ret);
}

BT_TPL_NATIVE(is_divisibleby)
{
    return remainder_is(run, self, args[0], 0, ret);
}

BT_TPL_NATIVE(is_equal)
{
    bool equal;
    if (!bt_tpl_equal(run, self, args[0], &equal)) return false;
    *ret = BT_TPL_V_BOOL(equal);
    return true;
}

BT_TPL_NATIVE(is_unequal)
{
    bool equal;
    if (!bt_tpl_equal(run, self, args[0], &equal)) return false;
    *ret = BT_TPL_V_BOOL(!equal);
    return true;
}

BT_TPL_NATIVE(is_less)
{
    int order;
    if (!bt_tpl_compare(run, self, args[0], "<", &order)) return false;
    *ret = BT_TPL_V_BOOL(order < 0);
    return true;
}

BT_TPL_NATIVE(is_less_or_equal)
{
    int order;
    if (!bt_tpl_compare(run, self, args[0], "<=", &order)) return false;
    *ret = BT_TPL_V_BOOL(order <= 0);
    return true;
}

BT_TPL_NATIVE(is_greater)
{
    int order;
    if (!bt_tpl_compare(run, self, args[0], ">", &order)) return false;
    *ret = BT_TPL_V_BOOL(order > 0);
    return true;
}

BT_TPL_NATIVE(is_greater_or_equal)
{
    int order;
    if (!bt_tpl_compare(run, self, args[0], ">=", &order)) return false;
    *ret = BT_TPL_V_BOOL(order >= 0);
    return true;
}

BT_TPL_NATIVE(is_in)
{
    bool found;
    if (!bt_tpl_contains(run, args[0], self, &found)) return false;
    *ret = BT_TPL_V_BOOL(found);
    return true;
}

/* Python's "is": the same object. Small values are theirs only by value. */
BT_TPL_NATIVE(is_sameas)
{
    bool equal = false;
    if (self.type == args[0].type) {
        if (self.type <= BT_TPL_INT)
            bt_tpl_equal(run, self, args[0], &equal);
        else
            equal = self.dict == args[0].dict;
    }
    *ret = BT_TPL_V_BOOL(equal);
    return run->status == BT_OK;
}

static bool case_is(bt_tpl_run *run, bt_tpl_value self, const char *method, bt_tpl_value *ret)
{
    static const bt_tpl_args none = {0};
    bt_tpl_str *text;
    return bt_tpl_to_str(run, self, &text) &&
           bt_tpl_native_call(run, bt_tpl_str_method(method, strlen(method)), BT_TPL_V_STR(text),
                              &none, ret);
}

BT_TPL_NATIVE(is_lower)
{
    return case_is(run, self, "islower", ret);
}

BT_TPL_NATIVE(is_upper)
{
    return case_is(run, self, "isupper", ret);
}

BT_TPL_NATIVE(is_escaped)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_STR && self.str->markup);
    return true;
}

BT_TPL_NATIVE(is_filter)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_STR &&
                         bt_tpl_filter(self.str->data, self.str->bytes) != NULL);
    return true;
}

BT_TPL_NATIVE(is_test)
{
    *ret = BT_TPL_V_BOOL(self.type == BT_TPL_STR &&
                         bt_tpl_test(self.str->data, self.str->bytes) != NULL);
    return true;
}

static const bt_tpl_native tests[] = {
    {"defined", "", is_defined},
    {"undefined", "", is_undefined},
    {"none", "", is_none},
    {"boolean", "", is_boolean},
    {"true", "", is_true},
    {"false", "", is_false},
    {"integer", "", is_integer},
    {"float", "", is_float},
    {"number", "", is_number},
    {"string", "", is_string},
    {"mapping", "", is_mapping},
    {"sequence", "", is_sequence},
    {"iterable", "", is_iterable},
    {"callable", "", is_callable},
    {"odd", "", is_odd},
    {"even", "", is_even},
    {"divisibleby", "num", is_divisibleby},
    {"eq", "/b", is_equal},
    {"equalto", "/b", is_equal},
    {"==", "/b", is_equal},
    {"ne", "/b", is_unequal},
    {"!=", "/b", is_unequal},
    {"lt", "/b", is_less},
    {"lessthan", "/b", is_less},
    {"<", "/b", is_less},
    {"le", "/b", is_less_or_equal},
    {"<=", "/b", is_less_or_equal},
    {"gt", "/b", is_greater},
    {"greaterthan", "/b", is_greater},
    {">", "/b", is_greater},
    {"ge", "/b", is_greater_or_equal},
    {">=", "/b", is_greater_or_equal},
    {"in", "seq", is_in},
    {"sameas", "other", is_sameas},
    {"lower", "", is_lower},
    {"upper", "", is_upper},
    {"escaped", "", is_escaped},
    {"filter", "", is_filter},
    {"test", "", is_test},
};

const bt_tpl_native *bt_tpl_test(const char *name, size_t bytes)
{
    return bt_tpl_native_find(tests, sizeof(tests) / sizeof(tests[0]), name, bytes);
}
