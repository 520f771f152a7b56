"""What the documents say is so: paths exist, metrics are named as they are exported, example configurations are right."""

import os
import re
import subprocess

import pytest

from conftest import BIN, ROOT

TEXTS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/model/*.md")])


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_exist(text):
    content = text.read_text(encoding="utf-8")
    folders = "common|decoded|docs|kernels|ops|prefilld|proto|router|tests|\\.ci"
    named = set(re.findall(rf"`((?:{folders})/[\w./-]+)`", content))
    missing = [path for path in sorted(named) if not (ROOT / path).exists()]
    for target in re.findall(r"\]\(([^)#:]+)\)", content):
        if not (text.parent / target).exists():
            missing.append(target)
    assert missing == []


def documented_metrics():
    content = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    names = set()
    for row in content.splitlines():
        if not row.startswith("| `"):
            continue
        first = None
        for name in re.findall(r"`(\w+)(?:\{[^}]*\})?`", row.split("|")[1]):
            if name.startswith("_"):  # short for the row's first name with another ending
                name = re.sub(r"_[a-z]+_total$", name, first)
            first = first or name
            names.add(name)
    return names


def test_metrics_are_documented(shared_fleet):
    shared_fleet.complete("Once upon a time", max_tokens=2)
    exported = {re.sub(r"_(bucket|sum|count)$", "", key.split("{")[0]) for key in shared_fleet.metrics()}
    assert exported - documented_metrics() == set()
    assert documented_metrics() - exported == set()


def test_configuration_reference_is_up_to_date():
    done = subprocess.run([ROOT / "ops" / "reference", "--check"], env={**os.environ, "BATON_BUILD": str(BIN.parent)},
                          capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dump_commands_print_a_configuration():
    content = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    commands = re.findall(r"^build/bin/(baton-\w+) +(--set .* --dump-config)$", content, re.M)
    assert len(commands) == 3
    for program, args in commands:
        done = subprocess.run([BIN / program, *args.split()], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        assert "model=ops/model" in done.stdout


def test_example_configurations_are_right(tmp_path):
    content = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    examples = re.findall(r"```ini\n(\[(\w+)\]\n.*?)```", content, re.S)
    assert [role for _, role in examples] == ["router", "prefill", "decode"]
    programs = {"router": "baton-router", "prefill": "baton-prefilld", "decode": "baton-decoded"}
    for example, role in examples:
        file = tmp_path / f"{role}.conf"
        file.write_text(example, encoding="utf-8")
        done = subprocess.run([BIN / programs[role], "--config", file, "--check-config"], capture_output=True, text=True,
                              timeout=20, check=False)
        assert done.returncode == 0, done.stderr


def test_troubleshooting_quotes_what_programs_print():
    """Every quoted message: its fixed parts stand in the sources, in this order within one string or its neighbours."""
    sources = "".join(path.read_text(encoding="utf-8") for folder in ("common", "proto", "router", "prefilld", "decoded", "ops/cli")
                      for path in (ROOT / folder).rglob("*.[ch]"))
    sources = re.sub(r'"\s*\n\s*"', "", sources)
    content = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| (?:it says|reason of a refused pair) \|.*\n\|[-|]+\n((?:\|.*\n)+)", content, re.M)
    quotes = [quote for rows in tables for row in rows.splitlines() for quote in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(quotes) > 15
    missing = []
    for quote in quotes:
        parts = [re.escape(part) for part in quote.split("…") if part.strip()]
        if not re.search(r'[^"\n]{0,60}'.join(parts), sources):
            missing.append(quote)
    assert missing == []
