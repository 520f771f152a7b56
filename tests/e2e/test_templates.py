"""Chat templates against Python's jinja2 with Hugging Face's settings, byte for byte.

A failing case prints the seed of its run; BATON_TEMPLATE_SEED replays it.
"""

import json
import os
import pathlib
import random
import subprocess

import pytest

from conftest import BIN

SEED = int(os.environ.get("BATON_TEMPLATE_SEED", random.SystemRandom().randrange(2**32)))
CHECK = BIN.parent / "tests" / "render_check"


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


def test_real_templates_give_the_recorded_prompts():
    cases = corpus()
    answers = render_all([{"template": c["chat_template"], "input": c["data"]} for c in cases])
    for case, answer in zip(cases, answers):
        assert answer.get("text") == case["target"], f"{case['name']}: {answer.get('error')}"
    print(f"{len(cases)} of {len(cases)} templates byte for byte")
    assert len(cases) == 27
