"""Random templates, contexts and conversations for test_templates.py, and the reference: jinja2 as Hugging Face's
transformers sets it up for chat templates."""

import copy
import datetime
import json
import warnings

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %}: prints its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def _raise(message):
    raise jinja2.exceptions.TemplateError(message)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                        extensions=[Generation, jinja2.ext.loopcontrols])
    made.filters["tojson"] = _tojson
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = lambda text: datetime.datetime.now().strftime(text)
    return made


def compile_reference(env, template):
    """The compiled template, or what compiling raised."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            return env.from_string(template)
    except Exception as error:  # pylint: disable=broad-except
        return error


def reference(compiled, context):
    """The text, or None if Python raises anything at all, and what it raised."""
    if isinstance(compiled, Exception):
        return None, f"{type(compiled).__name__}: {compiled}"
    try:
        # A copy: the filter indent adds to lists in place before it fails on them.
        return compiled.render(**copy.deepcopy(context)), None
    except Exception as error:  # pylint: disable=broad-except
        return None, f"{type(error).__name__}: {error}"


# ---- expressions ----

CONTEXT = {
    "n": 7, "m": -3, "zero": 0, "f": 2.5, "g": -0.125, "big": 1e22, "yes": True, "no": False, "nil": None,
    "s": "Hello, World", "t": "  déjà vu \n", "u": "straße ΣΑΣ ǆ 日本 👩\u200d👧", "e": "", "html": "<a href='x'>&\"</a>",
    "digits": "42", "words": "the quick  brown\tfox", "lines": "one\ntwo\r\n\nfour\n",
    "l": [3, 1, 2], "names": ["b", "A", "c", "a"], "mixed": [1, "a", None, 2.0, [1], {"k": 1}], "none_at_all": [],
    "d": {"a": 1, "b": [1, 2], "items": "shadow", "c d": None}, "nested": {"x": {"y": {"z": "deep"}}},
    "rows": [{"name": "x", "v": 3, "k": {"q": 1}}, {"name": "Y", "v": 1, "k": {"q": 2}}, {"name": "x", "v": 2}],
}
STRINGS = ["s", "t", "u", "e", "html", "digits", "words", "lines"]
LITERALS = ["0", "1", "2", "-1", "3.5", "1e3", "0x1f", "1_000", "'a'", "\"b\\n\"", "'é\\u00e9\\x41'", "''", "' '", "[]",
            "[1, 2, 3]", "(1,)", "()", "(1, 'x')", "{}", "{'k': 1, 'z': [2]}", "true", "False", "none", "None", "'o'", "'l'"]
BINARY = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
FILTERS = ["length", "upper", "lower", "trim", "title", "capitalize", "list", "first", "last", "reverse|list", "sort", "unique|list",
           "min", "max", "sum", "string", "int", "float", "abs", "round", "tojson", "items|list", "dictsort", "wordcount", "escape",
           "safe", "count", "join", "join(', ')", "join('-', attribute='name')", "default('zz')", "default('zz', true)", "d",
           "replace('l', 'LL')", "replace('', '.')", "replace('o', '0', 1)", "indent", "indent(2, true)", "indent(3, blank=true)",
           "indent('> ')", "truncate(7)", "truncate(9, true, '…', 0)", "batch(2)|list", "batch(2, 'x')|list", "slice(2)|list",
           "slice(3, 'x')|list", "map('upper')|list", "map(attribute='name')|list", "map(attribute='k.q', default=0)|list",
           "select|list", "reject|list", "select('string')|list", "reject('none')|list", "select('gt', 1)|list",
           "selectattr('v', 'gt', 1)|list", "selectattr('k')|list", "rejectattr('name', 'equalto', 'x')|list",
           "selectattr('name', 'in', ['x'])|map(attribute='v')|list", "groupby('name')|list", "sort(attribute='v')",
           "sort(reverse=true)", "sort(case_sensitive=true)", "sort(attribute='name,v')", "round(1)", "round(2, 'floor')",
           "round(method='ceil')", "tojson(indent=2)", "tojson(ensure_ascii=true)", "tojson(separators=(',', ':'))",
           "tojson(sort_keys=true)", "int(5)", "int(base=16)", "float(1.5)", "center(20)", "trim('Hd')", "sum(attribute='v')",
           "sum(start=10)", "max(attribute='v')", "min(case_sensitive=true)", "unique(attribute='name')|list",
           "dictsort(by='value')", "dictsort(reverse=true)", "attr('name')", "format(1)", "map('default', 'q')|list", "length + 1",
           "first|upper", "groupby('name', default='none')|map('first')|list", "string|length", "tojson|length"]
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence", "iterable",
         "callable", "odd", "even", "divisibleby 3", "divisibleby(2)", "eq 1", "ne(1)", "gt 1", "lt(2)", "ge 0", "le 3",
         "equalto 'a'", "in [1, 'a']", "in('abc')", "true", "false", "sameas none", "sameas(true)", "upper", "lower", "escaped"]
METHODS = ["strip()", "lstrip()", "rstrip()", "strip('H ')", "split()", "split(' ')", "split(None, 1)", "rsplit(' ', 1)",
           "split('l', maxsplit=1)", "rsplit()", "rsplit(None, 1)", "splitlines()", "splitlines(true)", "startswith('H')",
           "startswith(('x', 'H'))", "endswith('d', 1, 12)", "upper()", "lower()", "title()", "capitalize()", "swapcase()",
           "replace('l', 'L')", "replace('l', 'L', 1)", "replace('', '-')", "find('o')", "find('o', 5)", "rfind('o')", "find('')",
           "index('o')", "count('l')", "count('')", "join(['a', 'b'])", "join(names)", "isdigit()", "isalpha()", "isalnum()",
           "isspace()", "isupper()", "islower()", "isnumeric()", "isdecimal()", "isascii()", "partition(' ')", "rpartition(' ')",
           "removeprefix('He')", "removesuffix('ld')", "zfill(15)", "ljust(14, '*')", "rjust(14)", "center(15, '-')",
           "format(1, 'x', k=2)", "items()", "keys()", "values()", "get('a')", "get('zz', 9)", "get('zz')", "copy()", "index(1)",
           "count(1)", "append(4)", "pop()", "update({})", "nothing()", "name", "x.y.z",
           "__class__", "__len__"]
SUBSCRIPTS = ["[0]", "[-1]", "[99]", "['a']", "['x']", "[1:]", "[:-1]", "[::2]", "[::-1]", "[1:3]", "[-2:]",
              "[5:1:-1]", "[:0]", "['name']", "[n]", "[none]", "[:none]", "[1:99]", ".0", "[m:]", "['k']['z']", "[0]['name']"]
FORMATS = ["'%s and %r' % (s, u)", "'%5d|%-5d|%05d' % (n, n, n)", "'%.2f %e %g' % (f, f, f)", "'%x %X %o %#x' % (n, n, n, n)",
           "'%s' % s", "'%s' % none", "'%(a)s %(b)r' % d", "'%d%%' % n", "'%c%c' % ('a', 66)", "'%s' % (1, 2)", "'%s %s' % s",
           "'%10s|%-10s|' % (s, s)", "'%.3s' % u", "'%+d % d' % (n, n)", "'%d' % s", "'%5.1f' % n", "'{} {}'.format(s, n)",
           "'{0} {0!r} {1:>8} {k:<4}|'.format(s, n, k='v')", "'{:05d} {:,} {:x} {:#x}'.format(n, 1234567, 255, 255)",
           "'{:.2f} {:10.3f}| {:e} {:%}'.format(f, f, f, g)", "'{{}} {a.b}'.format(a=d)", "'{[k]}'.format({'k': 1})",
           "'{:^9}|{:*^9}|{:<9}|'.format(s[:3], s[:3], s[:3])", "'{} {}'.format(1)", "'{'.format()", "'{:d}'.format(s)",
           "2 ** 10", "2 ** -1", "n ** 2", "m ** 3", "-2 ** 2", "-2 ** n", "f ** n", "zero ** zero", "2 ** 3 ** 2", "zero ** m",
           "d['items']", "d.items()|list", "nested.items is callable", "l['items'] is defined", "s|reverse", "(l|reverse)|list",
           "'{:+} {: } {:-}'.format(n, n, m)", "'{:=+8d}'.format(n)", "'{:.3}'.format(s)", "'{:b}'.format(n)"]


class Expressions:
    """Random expressions over CONTEXT, most of which mean something."""

    def __init__(self, rng):
        self.rng = rng

    def atom(self):
        rng = self.rng
        kind = rng.randrange(10)
        if kind < 6:
            return rng.choice(list(CONTEXT))
        if kind < 9:
            return rng.choice(LITERALS)
        return rng.choice(["missing", "range(5)", "range(3, 0, -1)", "dict(a=1, b='x')", "namespace(q=1).q", "range(0)",
                           "dict(d, z=1)", "dict([('p', 1)])", "cycler('a', 'b').next()", "joiner('|')()"])

    def postfix(self, depth):
        rng = self.rng
        base = self.atom() if rng.randrange(3) else f"({self.make(depth - 1)})"
        for _ in range(rng.choice([1, 1, 2])):
            kind = rng.randrange(3)
            if kind == 0:
                base += rng.choice(SUBSCRIPTS)
            else:
                base += "." + rng.choice(METHODS)
        return base

    def make(self, depth):
        rng = self.rng
        if depth <= 0:
            return self.atom()
        kind = rng.randrange(12)
        if kind < 3:
            return f"{self.make(depth - 1)} {rng.choice(BINARY)} {self.make(depth - 1)}"
        if kind < 6:
            return f"({self.make(depth - 1)})|{rng.choice(FILTERS)}"
        if kind < 8:
            return self.postfix(depth)
        if kind == 8:
            return f"({self.make(depth - 1)}) is {rng.choice(['', 'not '])}{rng.choice(TESTS)}"
        if kind == 9:
            return f"{self.make(depth - 1)} if {self.make(depth - 1)} else {self.make(depth - 1)}"
        if kind == 10:
            return rng.choice([f"not {self.make(depth - 1)}", f"-{self.atom()}", f"+{self.atom()}",
                               f"[{self.make(depth - 1)}, {self.atom()}]", f"({self.make(depth - 1)}, {self.atom()})",
                               f"{{'k': {self.make(depth - 1)}}}", f"{self.atom()} < {self.atom()} < {self.atom()}",
                               f"{self.atom()} if {self.make(depth - 1)}"])
        return rng.choice(FORMATS)


# ---- statements and white space ----

PIECES = ["a", " ", "\n", "  \n", "\t", "\n\n  ", "x y", "<b>", "\r\n", "{", "}", "%", "é", "#", "-", "\u00a0"]
STATEMENTS = [
    "{{ n }}", "{{- s }}", "{{ s -}}", "{{- n -}}", "{# note #}", "{#- note -#}", "{# two\nlines #}", "{#+ x +#}", "{{+ n }}",
    "{% set v = 1 %}", "{%- set v = v %}", "{% set v = v ~ 'x' -%}", "{%+ set w = n %}", "{% set w = 2 +%}", "{{ v }}", "{{ w }}",
    "{% raw %} {{ x }} {% endraw %}", "{%- raw -%} a {%- endraw -%}", "{% raw %}\n  b\n  {% endraw +%}", "{% raw %}{% endraw %}",
    "{% set a, b = 1, 'y' %}{{ a }}{{ b }}", "{% set p = namespace(c=0, d={}) %}", "{% set p.c = p.c + 1 %}{{ p.c }}",
    "{% break %}", "{% continue %}", "{{ loop.index }}", "{{ loop.last }}", "{{ caller() }}", "{{ f1(2) }}", "{{ f1(y=s) }}",
    "{{ f1() }}", "{{ varargs }}", "{{ i }}", "{{ i, loop.index0, loop.revindex }}", "{{ loop.previtem }}", "{{ loop.nextitem }}",
    "{{ loop.cycle('p', 'q') }}", "{% if loop.changed(i) %}!{% endif %}", "{{ loop.depth }}/{{ loop.length }}", "{{ kwargs }}"]
BLOCKS = [
    ("{% if n %}", "{% endif %}"), ("{%- if no -%}", "{%- endif -%}"), ("{% if missing %}", "{% else %}E{% endif %}"),
    ("{% if e %}", "{% elif n > 3 %}L{% else %}M{% endif %}"), ("{% for i in l %}", "{% endfor %}"),
    ("{%- for i in names -%}", "{%- endfor -%}"), ("{% for i in l if i > 1 %}", "{% else %}none{% endfor %}"),
    ("{% for i in none_at_all %}", "{%- else %}empty{% endfor %}"), ("{% for k, i in d.items() %}", "{% endfor %}"),
    ("{% for i in range(3) recursive %}", "{% endfor %}"), ("{% for i in s[:3] %}", "{% endfor +%}"),
    ("{% macro f1(x, y='dy') %}{{ x }}{{ y }}", "{% endmacro %}"), ("{% call f1(1) %}", "{% endcall %}"),
    ("{% macro f2() %}{{ caller() }}{{ varargs }}{{ kwargs }}", "{% endmacro %}{% call f2(1, z=2) %}C{% endcall %}"),
    ("{% filter upper %}", "{% endfilter %}"), ("{% filter trim|replace('x', 'yy') %}", "{% endfilter %}"),
    ("{% set v %}", "{% endset %}"), ("{% set v | upper | trim %}", "{% endset %}"), ("{% with v = n, q = v %}{{ q }}", "{% endwith %}"),
    ("{% generation %}", "{% endgeneration %}"), ("{%- generation -%}", "{%- endgeneration -%}"),
    ("{% for i in rows|groupby('name') %}{{ i.grouper }}{{ i.list|length }}", "{% endfor %}"),
    ("{% for i in [[1, [2]], [3]] recursive %}{{ loop(i) if i is iterable else i }}{{ loop.depth0 }}", "{% endfor %}")]


def random_statements(rng, depth, expressions):
    parts = []
    for _ in range(rng.randrange(1, 6)):
        kind = rng.randrange(9)
        if kind < 3:
            parts.append(rng.choice(PIECES))
        elif kind < 6:
            parts.append(rng.choice(STATEMENTS))
        elif kind == 6:
            parts.append(rng.choice(["{{ %s }}", "{{- %s -}}", "{%% set v = %s %%}"]) % expressions.make(1))
        elif depth > 0:
            begin, end = rng.choice(BLOCKS)
            parts.append(begin + random_statements(rng, depth - 1, expressions) + end)
    return "".join(parts)


# ---- conversations ----

SPECIAL = ["<|im_end|>", "<s>", "</s>", "[INST]", "[/INST]", "<|eot_id|>", "<|user|>", "<bos>", "<｜User｜>", "<|END_OF_TURN_TOKEN|>"]
TEXTS = ["", " ", "Hello!", "  spaced  ", "line one\nline two\n", "{{ not.a.template }}", "{% raw %}", "a\\b\"c'd", "日本語 और 👩‍👩‍👧",
         "<think>hm\n</think>\n\nanswer", "<tool_response>x</tool_response>", "\u2028\u00a0", "'quoted' \"twice\"", "\x7f\x00",
         "a</think>b</think>c"]
ROLES = ["user", "assistant", "system", "tool", "developer", "chatbot"]


def random_text(rng):
    return "".join(rng.choice(TEXTS + SPECIAL) for _ in range(rng.choice([1, 1, 1, 2, 3])))


def random_value(rng, depth=2):
    kind = rng.randrange(9 if depth > 0 else 6)
    if kind == 0:
        return rng.randrange(-1000, 1000)
    if kind == 1:
        return rng.choice([1.5, -0.001, 1e300, 3.0])
    if kind == 2:
        return rng.choice([True, False, None])
    if kind < 6:
        return random_text(rng)
    if kind == 6:
        return [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(["city", "unit", "n", "é", "a b", "type"]) + str(i): random_value(rng, depth - 1)
            for i in range(rng.randrange(4))}


def random_tool(rng, index):
    properties = {}
    for name in rng.sample(["city", "unit", "days", "items", "type"], rng.randrange(4)):
        properties[name] = {"type": rng.choice(["string", "integer", "array", ["string", "null"], "object"]),
                            "description": random_text(rng)}
        if rng.randrange(4) == 0:
            properties[name]["items"] = {"type": "string"}
        if rng.randrange(4) == 0:
            properties[name]["enum"] = [random_text(rng), random_text(rng)]
    return {"type": "function", "function": {
        "name": f"tool_{index}", "description": random_text(rng),
        "parameters": {"type": "object", "properties": properties, "required": list(properties)[:1]}}}


def random_message(rng, role):
    message = {"role": role}
    kind = rng.randrange(8)
    if kind < 6:
        message["content"] = random_text(rng)
    elif kind == 6:
        message["content"] = [{"type": "text", "text": random_text(rng)} for _ in range(rng.randrange(3))]
    else:
        message["content"] = None
    if role == "assistant" and rng.randrange(3) == 0:
        message["tool_calls"] = [{"id": f"call_{i}", "type": "function", "function": {
            "name": f"tool_{i}", "arguments": rng.choice([random_value, lambda r: json.dumps(random_value(r)),
                                                         lambda r: {"city": random_text(r)}])(rng)}}
                                 for i in range(rng.randrange(1, 3))]
    if role == "assistant" and rng.randrange(5) == 0:
        message["reasoning_content"] = random_text(rng)
    if role == "tool":
        message["tool_call_id"] = "call_0"
        message["name"] = "tool_0"
    return message


def random_conversation(rng):
    roles = [rng.choice(ROLES) for _ in range(rng.randrange(1, 7))]
    if rng.randrange(2):
        roles = ["user", "assistant"] * rng.randrange(1, 4) + ["user"]
        if rng.randrange(3) == 0:
            roles = ["system"] + roles
        if rng.randrange(3) == 0:
            roles = roles[:-1] + ["tool", "assistant", "user"]
    context = {"messages": [random_message(rng, role) for role in roles], "bos_token": "<s>", "eos_token": "</s>",
               "add_generation_prompt": bool(rng.randrange(2))}
    kind = rng.randrange(3)
    if kind > 0:
        context["tools"] = [random_tool(rng, i) for i in range(rng.randrange(1, 4))] if kind == 1 else None
    if rng.randrange(3) == 0:
        context["enable_thinking"] = bool(rng.randrange(2))
    return context
