"""Every command of `baton help`, by what its own help says: right use works, each wrong use gives one clear line and the exit code
of README's table. A new command is covered with no new test: its help has to say `usage:`, its options as `  --name VALUE  what`,
`Exit codes:`, and an `Example:` that can be run in the root of the repository. http://127.0.0.1:8000 is a running fleet there.
"""

import os
import re
import shlex
import signal
import subprocess

import pytest

from conftest import BIN, ROOT, Fleet, run_baton

URL = "http://127.0.0.1:8000"
NOWHERE = "/nowhere/at/all"
# What stands for the value of an option in the help, and a value that cannot be right.
WRONG = {"N": "x1", "M": "x1", "K": "1.5", "P": "many", "R": "fast", "B": "17x", "F": "f33", "S": "soon", "L": "5-6", "T": "9x9",
         "A-B": "9-5", "1,2,3": "1,,x", "1,2": "1,,x", "5:-100,17:2": "5:x", "ROLE.KEY=VALUE": "decode"}
FILES = {"FILE", "DIR", "FILE.json"}


def commands():
    return re.findall(r"^  (\w+) ", run_baton("help").stdout, re.M)


def help_of(command):
    return run_baton(command, "--help").stdout


def options(command):
    """[(option, what stands for its value or None)] of the help's own lines."""
    found = []
    for line in re.findall(r"^  (--.*)$", help_of(command), re.M):
        said = re.split(r"  +", line)[0]
        found += [(name, value.rstrip(",") or None) for name, value in re.findall(r"(--[\w-]+)(?: (\S+))?", said)]
    return found


def example(command):
    text = re.search(r"^Example: baton (.*)$", help_of(command), re.M).group(1)
    words = shlex.split(text)
    assert words[0] == command
    return words


def run(words, url=URL, timeout=60):
    return subprocess.run([str(BIN / "baton"), *(word.replace(URL, url) for word in words)], cwd=ROOT, capture_output=True, text=True,
                          timeout=timeout, stdin=subprocess.DEVNULL, check=False)


def assert_refused(words, said, codes=(2,)):
    done = run(words)
    assert done.returncode in codes, (words, done.returncode, done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"baton {words[0]}: "), (words, done.stderr)
    assert said in done.stderr and done.stdout == "", (words, done.stdout, done.stderr)


COMMANDS = commands()
OPTIONS = [(command, *option) for command in COMMANDS for option in options(command)]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    done = run_baton(command, "--help")
    text = done.stdout
    assert text.startswith(f"usage: baton {command}") and done.stderr == ""
    assert re.search(r"^Exit codes: 0 .*1 .*2 wrong", text, re.M | re.S), text
    assert re.search(rf"^Example: baton {command}\b", text, re.M)
    assert all(len(line) <= 100 for line in text.splitlines())
    assert run_baton("help", command).stdout == text
    for option in re.findall(r"--[\w-]+", text.split("\n\n")[0]):  # what the usage line shows is explained
        assert option in {name for name, _ in options(command)}, option


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_works(command, shared_fleet):
    words = example(command)
    if command == "up":
        fleet = Fleet([arg for arg in words[1:]])
        try:
            fleet.wait_ready()
        finally:
            assert fleet.stop() == 0
        return
    if ("--url", "URL") in options(command) and "--url" not in words:
        words += ["--url", URL]
    done = run(words, shared_fleet.url)
    assert done.returncode == 0 and done.stdout != "", done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_arguments(command):
    assert_refused([*example(command), "--no-such-option"], "--no-such-option")
    assert_refused([*example(command), "--no-such-option=5"], "--no-such-option")
    assert_refused([*example(command), "stray"], "stray")
    assert_refused([*example(command), "--no-such\x1b[31m"], "\\x1b")


@pytest.mark.parametrize("command, option, value", OPTIONS, ids=[" ".join(map(str, row[:2])) for row in OPTIONS])
def test_options(command, option, value):
    words = example(command)
    if value is None:
        assert_refused([*words, f"{option}=yes"], option)
    else:
        assert_refused([*words, option], f"{option} needs a value")
    assert_refused([*words, option[:-1]], option[:-1])  # no abbreviations
    if value in WRONG:
        assert_refused([*words, option, WRONG[value]], option)
    if value in FILES:
        done = run([*words, option, NOWHERE])
        if done.returncode == 2:  # excludes another option of the example
            return
        assert done.returncode in (1, 3) and done.stdout + done.stderr != ""
        assert NOWHERE in done.stdout + done.stderr, (words, option, done.stdout, done.stderr)


def test_every_kind_of_value_is_known():
    """A new word for a value in a help text goes into one of the lists here."""
    free = {"TEXT", "NAME", "URL", "E", "O", "LIST"}
    assert {value for _, _, value in OPTIONS if value} <= set(WRONG) | FILES | free


def test_no_command():
    for words in (["frobnicate"], ["--frobnicate"], ["\x1b[31m"]):
        done = run(words)
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and "\x1b" not in done.stderr
    assert run([]).returncode == 2
    assert run(["help", "frobnicate"]).returncode == 2
    assert set(commands()) <= set(re.findall(r"\w+", run(["help"]).stdout))


def test_up_leaves_no_secrets_behind(tmp_path):
    """However it is ended: keys are in memory only, and the next `baton up` removes what a kill -9 left."""
    os.environ["TMPDIR"], before = str(tmp_path), os.environ.get("TMPDIR")
    try:
        fleet = Fleet([]).wait_ready()
        folders = list(tmp_path.glob("baton-??????"))
        assert len(folders) == 1
        daemons = [daemon["pid"] for daemon in fleet.state()["daemons"]]
        fleet.process.send_signal(signal.SIGKILL)
        fleet.process.wait(timeout=20)
        left = [path for path in folders[0].iterdir() if path.is_file()]
        assert left and not any("secret=" in path.read_text(encoding="utf-8") for path in left)
        strangers = [tmp_path / "baton-abcdef", tmp_path / "baton-ghijkl"]
        strangers[0].mkdir(mode=0o700)  # no lock in it: not ours
        strangers[1].mkdir(mode=0o755)
        (strangers[1] / "lock").touch()
        other = Fleet([]).wait_ready()
        try:
            assert not folders[0].exists()
            assert all(stranger.exists() for stranger in strangers)
            third = Fleet([]).wait_ready()  # leaves the running one alone
            assert third.stop() == 0
            other.complete("Once", max_tokens=2)
        finally:
            assert other.stop() == 0
        assert sorted(tmp_path.glob("baton-??????")) == sorted(strangers)
        assert not any(os.path.exists(f"/proc/{pid}/exe") for pid in daemons)
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def test_a_daemon_holds_its_own_key_alone(shared_fleet):
    for daemon in shared_fleet.state()["daemons"]:
        fds = f"/proc/{daemon['pid']}/fd"
        secrets = [os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds)]
        assert sum("memfd:baton-key " in link for link in secrets) == 1, secrets
