"""Chat templates against Python's jinja2 with Hugging Face's settings, byte for byte.

A failing case prints the seed of its run; BATON_TEMPLATE_SEED replays it.
"""

import json
import os
import pathlib
import random
import re
import subprocess

import pytest

import test_commands
from conftest import BIN, ROOT

cases = pytest.importorskip("template_cases", reason="skipped: jinja2 is not installed")

SEED = int(os.environ.get("BATON_TEMPLATE_SEED", random.SystemRandom().randrange(2**32)))
CHECK = BIN.parent / "tests" / "render_check"


# What Python's numbers have beyond ours; and slices of what has none, which jinja2 forgives if it is a constant.
KNOWN = ["64 bits", "complex numbers", "cannot be sliced"]
EXPRESSIONS = 1200
STATEMENTS = 800
CONVERSATIONS = 500


def corpus():
    """The real templates of the test data: name, chat_template, data, target."""
    if "BATON_TEST_DATA" not in os.environ:
        pytest.skip("skipped: BATON_TEST_DATA is not set")
    path = pathlib.Path(os.environ["BATON_TEST_DATA"]) / "eval" / "chat_templates.json"
    return json.loads(path.read_text())


def render_all(cases):
    """One answer of render_check for each {"template": …, "input": …}."""
    stdin = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run([str(CHECK)], input=stdin.encode(), capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    answers = [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]
    assert len(answers) == len(cases)
    return answers


def assert_same(templates, contexts):
    """Each template gives what jinja2 gives, or fails where it fails. Returns how many gave a text."""
    env = cases.environment()
    texts, compiled = 0, {}
    answers = render_all([{"template": t, "input": c} for t, c in zip(templates, contexts)])
    for template, context, answer in zip(templates, contexts, answers):
        if template not in compiled:
            compiled[template] = cases.compile_reference(env, template)
        expected, error = cases.reference(compiled[template], context)
        if any(known in answer.get("error", "") for known in KNOWN):
            continue
        # Prints of methods and generators show addresses in Python.
        if expected is not None and any(shown in expected for shown in (" at 0x", "<class", "object at")):
            continue
        where = f"seed {SEED}: {template!r}\nwith {json.dumps(context)[:2000]}"
        if expected is None:
            assert "text" not in answer, f"{where}\ngave {answer.get('text')!r}, jinja2 raised {error}"
        else:
            assert answer.get("text") == expected, f"{where}\n{answer.get('error')}"
            texts += 1
    return texts


NAMES = [*cases.CONTEXT, "missing", "range(4)", "(1, 'b')", "d.items()", "d.keys()", "namespace(a=1)"]


def test_random_expressions_are_those_of_jinja2():
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    made = cases.Expressions(rng)
    templates = ["{{ %s }}" % made.make(rng.choice([1, 2, 2, 3])) for _ in range(EXPRESSIONS)]
    templates += ["{{ %s }}" % text for text in cases.FORMATS]
    grid = ["{{ %s|%s }}" % (name, each) for name in NAMES for each in cases.FILTERS]
    grid += ["{{ %s is %s }}" % (name, each) for name in NAMES for each in cases.TESTS]
    grid += ["{{ %s.%s }}" % (name, each) for name in NAMES for each in cases.METHODS]
    grid += ["{{ %s%s }}" % (name, each) for name in NAMES for each in cases.SUBSCRIPTS]
    templates += rng.sample(grid, EXPRESSIONS)
    texts = assert_same(templates, [cases.CONTEXT] * len(templates))
    print(f"{texts} of {len(templates)} expressions gave a text")
    assert texts > len(templates) / 4


def test_random_statements_are_those_of_jinja2():
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    made = cases.Expressions(rng)
    templates = [cases.random_statements(rng, 3, made) for _ in range(STATEMENTS)]
    texts = assert_same(templates, [cases.CONTEXT] * len(templates))
    print(f"{texts} of {len(templates)} templates gave a text")
    assert texts > len(templates) / 4


def test_random_conversations_are_those_of_jinja2():
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    templates, contexts = [], []
    for context in [cases.random_conversation(rng) for _ in range(CONVERSATIONS)]:
        for case in corpus():
            templates.append(case["chat_template"])
            contexts.append(context)
    texts = assert_same(templates, contexts)
    print(f"{texts} of {len(templates)} prompts, the others refused by both")
    assert texts > len(templates) / 4


def test_real_templates_give_the_recorded_prompts():
    real = corpus()
    answers = render_all([{"template": c["chat_template"], "input": c["data"]} for c in real])
    for case, answer in zip(real, answers):
        assert answer.get("text") == case["target"], f"{case['name']}: {answer.get('error')}"
    print(f"{len(real)} of {len(real)} templates byte for byte")
    assert len(real) == 27


def render_command(*args):
    done = subprocess.run([str(BIN / "baton"), "render", *map(str, args)], capture_output=True, timeout=20, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


PAGE = (ROOT / "docs" / "chat-templates.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command, output", test_commands.examples(PAGE), ids=lambda value: str(value)[:60])
def test_documented_examples_print_what_they_say(command, output):
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"})
    assert (done.stdout + done.stderr).splitlines() == output


def test_documented_names_are_all_there_are():
    """The page's filters and tests are those that exist, and what it says is refused is."""
    env = cases.environment()
    rows = {kind: set(re.search(rf"^\| {kind} \| (.*) \|$", PAGE, re.M).group(1).split()) for kind in ("filters", "tests")}
    for kind, known, form in (("filters", env.filters, "{{ 1|%s }}"), ("tests", env.tests, "{{ 1 is %s }}")):
        names = [name for name in known if name.isalpha()]
        refused = {name for name, answer in zip(names, render_all([{"template": form % name, "input": {}} for name in names]))
                   if answer.get("status", "").endswith("ERR_FORMAT")}
        assert rows[kind] == set(names) - refused
        if kind == "filters":
            assert refused == set(re.search(r"filters \(([^)]*)\)", PAGE).group(1).replace("\n", " ").split(", "))


def test_wrong_uses_of_the_command(tmp_path):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('{"messages": [{"role": "user", "content": "hi"}]}')
    bad.write_text('{"messages": [\n{"role": }]}')
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[0].content }}\n{{ missing.field }}\n")
    other = tmp_path / "list.json"
    other.write_text("[]")
    for args, code, message in [
            ([], 2, "--template FILE or --model DIR is missing"), (["--template", template], 2, "--input FILE is missing"),
            (["--template", template, "--input", good, "--nonsense"], 2, "--nonsense"),
            (["--template", template, "--input", bad], 1, "bad.json:2:"),
            (["--template", template, "--input", other], 1, "list.json: is not a JSON object"),
            (["--template", template, "--input", tmp_path / "absent"], 1, "absent: No such file or directory"),
            (["--template", tmp_path / "absent", "--input", good], 1, "absent: No such file or directory"),
            (["--template", template, "--input", good], 1, "t.jinja:2: 'missing' is undefined"),
            (["--model", tmp_path, "--input", good], 1, "there is no chat template in this folder")]:
        done = render_command(*args)
        assert done[:2] == (code, "") and message in done[2] and done[2].count("\n") == 1, (args, done)
