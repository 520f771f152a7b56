"""ops/demo: the answer alone on stdout, one clear line for a wrong command line, and no process left behind."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

from conftest import ROOT, generate

DEMO = str(ROOT / "ops" / "demo")


def processes_of_session(session):
    """Ids of the live processes of a session; zombies that nobody has reaped yet are dead."""
    ids = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(sid) == session and state != "Z":
            ids.append(int(stat.parent.name))
    return ids


def wait_until_gone(session, seconds=15):
    deadline = time.monotonic() + seconds
    while processes_of_session(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    return processes_of_session(session)


def test_once_prints_the_answer_alone():
    done = subprocess.Popen([DEMO, "--once"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, start_new_session=True)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    expected = generate("--prompt", "Once upon a time", "--max-tokens", 120, "--temperature", 0.7, "--top-p", 0.9,
                        "--seed", 4)
    assert out == expected["text"] + "\n"
    assert wait_until_gone(done.pid) == []


@pytest.mark.parametrize("how, code", [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_stays_until_ended_and_leaves_nothing(how, code, tmp_path):
    terminal, stdin = os.openpty()
    demo = subprocess.Popen([DEMO], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                            start_new_session=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        lines = []
        for line in demo.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        assert lines[0].startswith("Once upon a time")
        assert any("curl" in line for line in lines)
        commands = [line.split() for line in lines if line.startswith("  build/bin/baton ")]
        assert {words[1] for words in commands} == {"ps", "bench"}
        for words in commands if how == signal.SIGTERM else []:  # what it tells to try works
            subprocess.run(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60, check=True)
        assert demo.poll() is None
        demo.send_signal(how)
        assert demo.wait(timeout=20) == code
        assert wait_until_gone(demo.pid) == []
    finally:
        for process in processes_of_session(demo.pid):
            os.kill(process, signal.SIGKILL)
        demo.stdout.close()
        demo.wait()
        os.close(terminal)
        os.close(stdin)


@pytest.mark.parametrize("args, what", [(["--twice"], "--twice"), (["--prompt"], "--prompt"), (["now"], "now"),
                                        (["--prompt", ""], "--prompt")])
def test_wrong_command_line(args, what):
    done = subprocess.run([DEMO, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and what in done.stderr


def test_fleet_that_fails_shows_why():
    done = subprocess.run([DEMO, "--once", "--", "--kv-dtype", "float99"], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "float99" in done.stderr
