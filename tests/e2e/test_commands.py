"""docs/commands.md: every command of `baton` is there, and every example prints what it says.

In an example `…` stands for what varies: within a line for some text, alone on a line for any lines. Runs of blanks count as
one, since columns are as wide as their cells. http://127.0.0.1:8000 is a running fleet with the demo model.
"""

import os
import re
import subprocess

import pytest

from conftest import BIN, ROOT, run_baton

PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
URL = "http://127.0.0.1:8000"


def examples(page=PAGE):
    """(command, lines it prints) of every console block."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.M | re.S):
        for command, output in re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block, re.M):
            found.append((command, output.splitlines()))
    return found


def pattern(lines):
    squeezed = [re.sub(r" +", " ", line).strip() for line in lines]
    return "".join(r"(?:.*\n)*?" if line == "…" else ".*?".join(map(re.escape, line.split("…"))) + r"\n"
                   for line in squeezed)


@pytest.mark.parametrize("command, output", examples(), ids=lambda value: value if isinstance(value, str) else "")
def test_example(command, output, shared_fleet):
    done = subprocess.run(["bash", "-c", command.replace(URL, shared_fleet.url)], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=False, env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"})
    printed = (done.stdout + done.stderr).replace(shared_fleet.url, URL)
    squeezed = "".join(re.sub(r" +", " ", line).strip() + "\n" for line in printed.splitlines())
    assert re.fullmatch(pattern(output), squeezed), printed


def commands():
    return re.findall(r"^  (\w+) ", run_baton("help").stdout, re.M)


def test_every_command_is_documented():
    documented = re.findall(r"^## baton (\w+)$", PAGE, re.M)
    assert sorted(documented) == sorted(commands())
    shown = {name for command, _ in examples() for name in re.findall(r"\bbaton (\w+)", command)}
    assert shown >= set(commands()) - {"up"}, "each has an example that is run; up has one by being shared_fleet"
