/* ops.c - arithmetic, as Python has it. Integers have 64 bits; what does not fit is an error. */
#include "common/text/template/native.h"

#include <math.h>
#include <string.h>

static bool too_large(bt_tpl_run *run)
{
    return bt_tpl_fail(run, BT_ERR_LIMIT, "an integer does not fit into 64 bits");
}

static bool by_zero(bt_tpl_run *run)
{
    return BT_TPL_RAISE(run, "division by zero");
}

static bool int_power(bt_tpl_run *run, int64_t base, int64_t exponent, bt_tpl_value *ret)
{
    if (exponent < 0) {
        if (base == 0) return by_zero(run);
        *ret = BT_TPL_V_FLOAT(pow((double)base, (double)exponent));
        return true;
    }
    int64_t result = 1;
    for (;;) {
        if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result))
            return too_large(run);
        exponent >>= 1;
        if (exponent == 0) break;
        if (__builtin_mul_overflow(base, base, &base)) return too_large(run);
    }
    *ret = BT_TPL_V_INT(result);
    return true;
}

/* Rounded down, with a remainder of the divisor's sign. */
static bool int_divide(bt_tpl_run *run, char op, int64_t a, int64_t b, bt_tpl_value *ret)
{
    if (b == 0) return by_zero(run);
    if (op == '/') {
        *ret = BT_TPL_V_FLOAT((double)((long double)a / (long double)b));
        return true;
    }
    if (a == INT64_MIN && b == -1) {
        if (op == 'f') return too_large(run);
        *ret = BT_TPL_V_INT(0);
        return true;
    }
    int64_t quotient = a / b, rest = a % b;
    if (rest != 0 && (rest < 0) != (b < 0)) {
        rest += b;
        quotient--;
    }
    *ret = BT_TPL_V_INT(op == 'f' ? quotient : rest);
    return true;
}

static bool int_binary(bt_tpl_run *run, char op, int64_t a, int64_t b, bt_tpl_value *ret)
{
    int64_t result = 0;
    bool overflow = false;
    switch (op) {
    case '+': overflow = __builtin_add_overflow(a, b, &result); break;
    case '-': overflow = __builtin_sub_overflow(a, b, &result); break;
    case '*': overflow = __builtin_mul_overflow(a, b, &result); break;
    case 'p': return int_power(run, a, b, ret);
    default: return int_divide(run, op, a, b, ret);
    }
    *ret = BT_TPL_V_INT(result);
    return !overflow || too_large(run);
}

static double float_mod(double a, double b, double *ret_quotient)
{
    double rest = fmod(a, b), quotient = (a - rest) / b;
    if (rest != 0) {
        if ((b < 0) != (rest < 0)) {
            rest += b;
            quotient -= 1;
        }
    } else {
        rest = copysign(0, b);
    }
    double down = quotient != 0 ? floor(quotient) : copysign(0, a / b);
    if (quotient - down > 0.5) down += 1;
    *ret_quotient = down;
    return rest;
}

static bool float_power(bt_tpl_run *run, double a, double b, double *ret)
{
    if (a == 0 && b < 0) return by_zero(run);
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
        return BT_TPL_RAISE(run, "complex numbers are not supported");
    *ret = pow(a, b);
    if (isinf(*ret) && isfinite(a) && isfinite(b))
        return BT_TPL_RAISE(run, "Numerical result out of range");
    return true;
}

static bool float_binary(bt_tpl_run *run, char op, double a, double b, bt_tpl_value *ret)
{
    double result = 0, quotient;
    switch (op) {
    case '+': result = a + b; break;
    case '-': result = a - b; break;
    case '*': result = a * b; break;
    case 'p':
        if (!float_power(run, a, b, &result)) return false;
        break;
    default:
        if (b == 0) return by_zero(run);
        if (op == '/') {
            result = a / b;
            break;
        }
        result = float_mod(a, b, &quotient);
        if (op == 'f') result = quotient;
    }
    *ret = BT_TPL_V_FLOAT(result);
    return true;
}

/* Markup plus text: the text is escaped. */
static bool escaped(bt_tpl_run *run, bt_tpl_value value, bt_tpl_str **ret)
{
    static const bt_tpl_args none = {0};
    const bt_tpl_native *escape = bt_tpl_filter("escape", 6);
    return bt_tpl_native_call(run, escape, value, &none, &value) && bt_tpl_to_str(run, value, ret);
}

static bool add_strs(bt_tpl_run *run, bt_tpl_value left, bt_tpl_value right, bt_tpl_value *ret)
{
    bt_tpl_str *a = left.str, *b = right.str;
    if (a->markup != b->markup && !(a->markup ? escaped(run, right, &b) : escaped(run, left, &a)))
        return false;
    return bt_tpl_str_concat(run, a, b, ret);
}

static bool add_lists(bt_tpl_run *run, const bt_tpl_list *left, const bt_tpl_list *right,
                      bt_tpl_type type, bt_tpl_value *ret)
{
    bt_tpl_list *list;
    if (!bt_tpl_list_new(run, left->count + right->count, &list)) return false;
    if (left->count > 0) memcpy(list->items, left->items, left->count * sizeof(*ret));
    if (right->count > 0)
        memcpy(list->items + left->count, right->items, right->count * sizeof(*ret));
    list->count = left->count + right->count;
    return bt_tpl_list_value(run, list, type, ret);
}

static bool repeat(bt_tpl_run *run, bt_tpl_value value, int64_t times, bt_tpl_value *ret)
{
    size_t count = times > 0 ? (size_t)times : 0, total;
    if (value.type == BT_TPL_STR) {
        bt_tpl_builder builder;
        bt_tpl_build(run, &builder);
        builder.markup = value.str->markup;
        return bt_tpl_put_repeat(run, &builder, value.str, count) &&
               bt_tpl_built(run, &builder, ret);
    }
    bt_tpl_list *list;
    if (__builtin_mul_overflow(value.list->count, count, &total)) total = SIZE_MAX;
    if (!bt_tpl_list_new(run, total, &list)) return false;
    for (size_t i = 0; i < total; i++) list->items[i] = value.list->items[i % value.list->count];
    list->count = total;
    return bt_tpl_list_value(run, list, value.type, ret);
}

static bool is_sequence(bt_tpl_value value)
{
    return value.type == BT_TPL_STR || value.type == BT_TPL_LIST || value.type == BT_TPL_TUPLE;
}

static bool sequence_binary(bt_tpl_run *run, char op, bt_tpl_value left, bt_tpl_value right,
                            bt_tpl_value *ret, bool *ret_known)
{
    int64_t times;
    *ret_known = true;
    if (op == '+' && left.type == right.type && is_sequence(left)) {
        if (left.type == BT_TPL_STR) return add_strs(run, left, right, ret);
        return add_lists(run, left.list, right.list, left.type, ret);
    }
    if (op == '*' && is_sequence(left) && bt_tpl_as_int(right, &times))
        return repeat(run, left, times, ret);
    if (op == '*' && is_sequence(right) && bt_tpl_as_int(left, &times))
        return repeat(run, right, times, ret);
    if (op == '%' && left.type == BT_TPL_STR) return bt_tpl_percent(run, left.str, right, ret);
    *ret_known = false;
    return true;
}

bool bt_tpl_binary(bt_tpl_run *run, char op, bt_tpl_value left, bt_tpl_value right,
                   bt_tpl_value *ret)
{
    int64_t m, n;
    double x, y;
    bool known;
    /* "…" % undefined prints it. */
    bool percent = op == '%' && left.type == BT_TPL_STR;
    if (left.type == BT_TPL_UNDEFINED) return bt_tpl_undefined_fail(run, left);
    if (right.type == BT_TPL_UNDEFINED && !percent) return bt_tpl_undefined_fail(run, right);
    if (bt_tpl_as_int(left, &m) && bt_tpl_as_int(right, &n)) return int_binary(run, op, m, n, ret);
    if (bt_tpl_as_real(left, &x) && bt_tpl_as_real(right, &y))
        return float_binary(run, op, x, y, ret);
    if (!sequence_binary(run, op, left, right, ret, &known)) return false;
    if (known) return true;
    char word[3] = {op == 'f' ? '/' : op == 'p' ? '*' : op, op == 'f' ? '/' : op == 'p' ? '*' : 0};
    if (op == '+' && left.type == BT_TPL_STR)
        return BT_TPL_RAISE(run, "can only concatenate str (not \"%s\") to str",
                            bt_tpl_type_name(right));
    return BT_TPL_RAISE(run, "unsupported operand type(s) for %s: '%s' and '%s'", word,
                        bt_tpl_type_name(left), bt_tpl_type_name(right));
}
