/* Templates: marks through every kind of operation, limits, errors that name the line. What they
 * compute is compared with jinja2 in tests/e2e/test_templates.py. */
#include "common/text/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bt_status render(const char *source, const char *trusted, const char *input,
                        const bt_template_limits *limits, bt_template_output *output, bt_err *err)
{
    bt_template *tpl;
    bt_status status = bt_template_parse(source, strlen(source), "t.jinja", &tpl, err);
    if (status != BT_OK) return status;
    json_t *vouched = trusted != NULL ? json_loads(trusted, 0, NULL) : NULL;
    json_t *given = input != NULL ? json_loads(input, 0, NULL) : NULL;
    bt_template_context context = {.trusted = vouched, .input = given, .roles = true};
    status = bt_template_render(tpl, &context, limits, output, err);
    json_decref(vouched);
    json_decref(given);
    bt_template_close(tpl);
    return status;
}

/* The output with « and » around what is marked. */
static void assert_marked(const char *source, const char *input, const char *expected)
{
    bt_template_output output = {0};
    bt_err err;
    if (render(source, "{\"sep\": \"-\", \"word\": \"user\"}", input, NULL, &output, &err) != BT_OK)
        fail_msg("%s: %s", source, err.message);
    char *shown = calloc(1, output.bytes + 4 * output.plain_count + 1);
    size_t at = 0;
    for (size_t i = 0; i < output.plain_count; i++) {
        bt_text_range range = output.plain[i];
        sprintf(shown + strlen(shown), "%.*s«%.*s»", (int)(range.first - at), output.text + at,
                (int)(range.end - range.first), output.text + range.first);
        at = range.end;
    }
    strcat(shown, output.text + at);
    if (strcmp(shown, expected) != 0) fail_msg("%s gave %s, expected %s", source, shown, expected);
    free(shown);
    bt_template_output_finish(&output);
}

static void test_marks_survive(void **state)
{
    (void)state;
    static const struct {
        const char *source, *expected;
    } cases[] = {
        {"<s>{{ u }}</s>", "<s>«aB c»</s>"},
        {"{{ 'x' + u + 'y' + u }}", "x«aB c»y«aB c»"},
        {"{{ 'x' ~ u ~ 1 }}", "x«aB c»1"},
        {"{{ u * 2 }}", "«aB caB c»"},
        {"{{ (sep + u)[1:3] }}{{ (sep + u)[:2] }}", "«aB»-«a»"},
        {"{{ (sep + u)[::-1] }}", "«c Ba»-"},
        {"{{ u[0] }}{{ u[-1] }}", "«ac»"},
        {"{{ (' ' + u + ' ')|trim }}", "«aB c»"},
        {"{{ u|upper }}{{ u|lower }}{{ u|title }}{{ u.swapcase() }}", "«AB Cab cAb CAb C»"},
        {"{{ u|replace('B', sep) }}", "«a»-« c»"},
        {"{{ (sep + 'aB')|replace(sep, u) }}", "«aB c»aB"},
        {"{{ u|tojson }}", "\"«aB c»\""},
        {"{{ {'k': u, u: [1]}|tojson }}", "{\"k\": \"«aB c»\", \"«aB c»\": [1]}"},
        {"{{ quoted|tojson }}", "\"«x\\\"y\\n»\""},
        {"{{ [u, sep] }}", "['«aB c»', '-']"},
        {"{{ u.split() }}", "['«aB»', '«c»']"},
        {"{{ u.split()|join(sep) }}", "«aB»-«c»"},
        {"{{ sep.join([u, u]) }}", "«aB c»-«aB c»"},
        {"{% for c in u %}{{ c }}{{ sep }}{% endfor %}", "«a»-«B»-« »-«c»-"},
        {"{{ u|indent(2, true) }}", "  «aB c»"},
        {"{{ u|truncate(3, true, '.', 0) }}", "«aB»."},
        {"{{ '%s|%5s|%r' % (u, u, u) }}", "«aB c»| «aB c»|'«aB c»'"},
        {"{{ '{}|{:>5}|{k}'.format(u, u, k=u) }}", "«aB c»| «aB c»|«aB c»"},
        {"{{ '<b>'|e }}{{ ('<' + u)|e }}", "&lt;b&gt;&lt;«aB c»"},
        {"{% set v %}[{{ u }}]{% endset %}{{ v }}", "[«aB c»]"},
        {"{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(u) }}", "<«aB c»>"},
        {"{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}{{ u }}{% endcall %}",
         "<«aB c»>"},
        {"{% filter upper %}x{{ u }}{% endfilter %}", "X«AB C»"},
        {"{% set n = namespace(t='') %}{% for i in range(3) %}{% set n.t = n.t ~ i ~ u %}"
         "{% endfor %}{{ n.t }}",
         "0«aB c»1«aB c»2«aB c»"},
        {"{{ l|map('upper')|join }}", "«XYZ»"},
        {"{{ l|sort(reverse=true)|join(sep) }}{{ l|first }}", "«z»-«y»-«xx»"},
        {"{{ d.keys()|list }}{{ d.a }}{{ d['a'] }}{{ d.get('a') }}", "['«a»']«111111»"},
        {"{{ u.partition('B') }}", "('«a»', '«B»', '« c»')"},
        {"{{ u|default('x') }}{{ none_there|default(u) }}", "«aB caB c»"},
        {"{{ u if u == 'aB c' else 'no' }}", "«aB c»"},
        {"{{ word }}{{ 'in' if 'B' in u else 'out' }}{{ u|length }}", "userin4"},
        {"<|{{ m.role }}|><|{{ o.role }}|>", "<|user|><|«im_end»|>"},
        {"{{ u }}{{ u }}", "«aB caB c»"},
        {"{{ u[:0] }}{{ '' + u[:0] }}", ""},
    };
    const char *input = "{\"u\": \"aB c\", \"l\": [\"x\", \"y\", \"z\"], \"d\": {\"a\": \"11\"},"
                        " \"quoted\": \"x\\\"y\\n\", \"m\": {\"role\": \"user\"},"
                        " \"o\": {\"role\": \"im_end\"}}";
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_marked(cases[i].source, input, cases[i].expected);
}

static void assert_fails(const char *source, const bt_template_limits *limits, bt_status expected,
                         const char *message)
{
    bt_template_output output = {0};
    bt_err err = {0};
    bt_status status =
        render(source, NULL, "{\"s\": \"abc\", \"l\": [1, 2]}", limits, &output, &err);
    if (status != expected || strstr(err.message, message) == NULL)
        fail_msg("%.60s gave %s '%s', expected %s '%s'", source, bt_status_name(status),
                 err.message, bt_status_name(expected), message);
    assert_null(output.text);
}

static void test_errors_name_the_line(void **state)
{
    (void)state;
    assert_fails("a\n{{ x.y }}", NULL, BT_ERR_ARGUMENT, "t.jinja:2: 'x' is undefined");
    assert_fails("{{ l.x.y }}", NULL, BT_ERR_ARGUMENT, "'list object' has no attribute 'x'");
    assert_fails("\n\n{% if %}{% endif %}", NULL, BT_ERR_FORMAT, "t.jinja:3: ");
    assert_fails("{% for x in l %}\n", NULL, BT_ERR_FORMAT, "for is not closed");
    assert_fails("{% include 'x' %}", NULL, BT_ERR_FORMAT, "the tag 'include' is not supported");
    assert_fails("{{ l|random }}", NULL, BT_ERR_FORMAT, "no filter named 'random'");
    assert_fails("{{ l is nice }}", NULL, BT_ERR_FORMAT, "no test named 'nice'");
    assert_fails("\n{{ raise_exception('roles must ' + s) }}", NULL, BT_ERR_ARGUMENT,
                 "t.jinja:2: roles must abc");
    assert_fails("{{ l.append(3) }}", NULL, BT_ERR_ARGUMENT, "'append' of 'list' object is unsafe");
    assert_fails("{{ s.__class__.__mro__ }}", NULL, BT_ERR_ARGUMENT, "is unsafe");
    assert_fails("{{ s + 1 }}", NULL, BT_ERR_ARGUMENT, "can only concatenate str");
    assert_fails("{{ 1 // 0 }}", NULL, BT_ERR_ARGUMENT, "division by zero");
    assert_fails("{{ lipsum() }}", NULL, BT_ERR_ARGUMENT, "'lipsum' is undefined");
    assert_fails("{{ '\xff' }}", NULL, BT_ERR_FORMAT, "t.jinja is not UTF-8");
    assert_fails("{{ 'a' ", NULL, BT_ERR_FORMAT, "a tag is not closed");
    assert_fails("{{ 'a }}", NULL, BT_ERR_FORMAT, "a string is not closed");
}

static void test_limits_end_a_render(void **state)
{
    (void)state;
    static const char loop[] =
        "\n{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    const bt_template_limits few = {.steps = 100000};
    assert_fails(loop, &few, BT_ERR_LIMIT, "t.jinja:2: the template takes more than 100000 steps");
    assert_fails(loop, NULL, BT_ERR_LIMIT, "t.jinja:2: the template takes more than");
    assert_fails("{{ range(10 ** 9)|list }}", NULL, BT_ERR_LIMIT, "a range of more than 100000");
    assert_fails("{{ range(1 - 10 ** 18, 10 ** 18) }}", NULL, BT_ERR_LIMIT, "a range of more");
    assert_fails("{{ range(0, 9 * 10 ** 18, 10 ** 18)[::9 * 10 ** 18] }}", NULL, BT_ERR_LIMIT,
                 "does not fit into 64 bits");
    assert_fails("{{ (-9.25e18)|int }}", NULL, BT_ERR_LIMIT, "does not fit into 64 bits");
    assert_fails("{{ 'a' * 10 ** 9 }}", NULL, BT_ERR_LIMIT, "longer than 16777216 bytes");
    assert_fails("{{ [1] * 10 ** 9 }}", NULL, BT_ERR_LIMIT, "a list of more than 100000 items");
    assert_fails("{{ s|center(10 ** 12) }}", NULL, BT_ERR_LIMIT, "longer than");
    assert_fails("{{ '%999999999d' % 1 }}", NULL, BT_ERR_LIMIT, "too wide");
    assert_fails("{{ l|batch(1000000000, 'x')|list }}", NULL, BT_ERR_LIMIT, "more than 100000");
    assert_fails("{{ s|indent(1000000000) }}", NULL, BT_ERR_LIMIT, "longer than");
    assert_fails("{{ 10 ** 10 ** 10 }}", NULL, BT_ERR_LIMIT, "64 bits");
    assert_fails("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}", NULL, BT_ERR_LIMIT,
                 "levels deep");
    assert_fails("{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", NULL, BT_ERR_LIMIT,
                 "levels deep");
    assert_fails("{% set n = namespace(x=[]) %}{% for i in range(1000) %}{% set n.x = [n.x] %}"
                 "{% endfor %}{{ n.x }}",
                 NULL, BT_ERR_LIMIT, "levels deep");
    assert_fails("{% set n = namespace() %}{% set n.n = n %}{{ n }}", NULL, BT_ERR_LIMIT,
                 "levels deep");
    assert_fails("{% set n = namespace(x=[]) %}{% set m = namespace(x=[]) %}{% for i in range(300) "
                 "%}{% set n.x = [n.x] %}{% set m.x = [m.x] %}{% endfor %}{{ n.x == m.x }}",
                 NULL, BT_ERR_LIMIT, "levels deep");
    assert_fails("{% for i in range(10000) %}{{ 'abcdefghij' * 100 }}{% endfor %}", NULL,
                 BT_ERR_LIMIT, "longer than 4194304 bytes");
    assert_fails("{% set n = namespace(s='ab') %}{% for i in range(40) %}{% set n.s = n.s + n.s %}"
                 "{% endfor %}",
                 NULL, BT_ERR_LIMIT, "longer than");
    const bt_template_limits small = {.memory_bytes = 300000};
    assert_fails("{% for i in range(10000) %}{% set x = [i, i] %}{% endfor %}", &small,
                 BT_ERR_LIMIT, "more than 300000 bytes of memory");
}

static void test_source_that_is_nested_deeply_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *before, *again, *between, *end, *after;
    } kinds[] = {{"{{ ", "(", "1", ")", " }}"},       {"{{ ", "[", "1", "]", " }}"},
                 {"{{ ", "not ", "1", "", " }}"},     {"{{ ", "-", "1", "", " }}"},
                 {"{{ ", "{1:", "1", "}", " }}"},     {"", "{% if 1 %}", "", "{% endif %}", ""},
                 {"{{ 1", "+1", "", "", " }}"},       {"{{ s", "|upper", "", "", " }}"},
                 {"{{ s", ".x", "", "", " }}"},       {"{{ 1", " if 1 else 1", "", "", " }}"},
                 {"{{ f", "(1)", "", "", " }}"},      {"{{ s", "[0]", "", "", " }}"},
                 {"{{ f", "(x=[1,", "1", "])", " }}"}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t count = 20000, room = count * 40 + 100;
        char *source = malloc(room), *at = source;
        at += sprintf(at, "%s", kinds[i].before);
        for (size_t j = 0; j < count; j++) at += sprintf(at, "%s", kinds[i].again);
        at += sprintf(at, "%s", kinds[i].between);
        for (size_t j = 0; j < count; j++) at += sprintf(at, "%s", kinds[i].end);
        sprintf(at, "%s", kinds[i].after);
        assert_fails(source, NULL, BT_ERR_FORMAT, "nested");
        free(source);
    }
}

/* The most nested source that is accepted runs in the stack that a daemon's thread has. */
static void test_the_deepest_source_runs(void **state)
{
    (void)state;
    char source[2048] = "{{ ";
    for (int i = 0; i < 45; i++) strcat(source, "([");
    strcat(source, "1");
    for (int i = 0; i < 45; i++) strcat(source, "])");
    strcat(source, " }}");
    bt_template_output output = {0};
    bt_err err;
    assert_int_equal(render(source, NULL, NULL, NULL, &output, &err), BT_OK);
    assert_int_equal(output.bytes, 91);
    bt_template_output_finish(&output);
}

/* Work grows with the text, not with its square. */
static void test_steps_are_linear_in_the_text(void **state)
{
    (void)state;
    uint64_t steps[2];
    for (int round = 0; round < 2; round++) {
        size_t bytes = (size_t)200000 << round;
        char *text = malloc(bytes + 1);
        memset(text, ' ', bytes);
        text[bytes] = '\0';
        json_t *input = json_pack("{s:s}", "s", text);
        const char source[] = "{{ s|trim }}{{ s.split() }}{{ s|replace('  ', '') }}{{ s|tojson }}"
                              "{{ s|indent }}{{ 'x' in s }}{{ s.find('y') }}{{ s|upper|length }}";
        bt_template *tpl;
        bt_err err;
        assert_int_equal(bt_template_parse(source, sizeof(source) - 1, "t", &tpl, &err), BT_OK);
        bt_template_output output = {0};
        bt_template_context context = {.input = input};
        assert_int_equal(bt_template_render(tpl, &context, NULL, &output, &err), BT_OK);
        steps[round] = output.steps;
        bt_template_output_finish(&output);
        bt_template_close(tpl);
        json_decref(input);
        free(text);
    }
    assert_true(steps[1] < 3 * steps[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marks_survive),
        cmocka_unit_test(test_errors_name_the_line),
        cmocka_unit_test(test_limits_end_a_render),
        cmocka_unit_test(test_source_that_is_nested_deeply_is_refused),
        cmocka_unit_test(test_the_deepest_source_runs),
        cmocka_unit_test(test_steps_are_linear_in_the_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
