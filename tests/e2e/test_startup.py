"""What stops a daemon from starting: one clear line that names file and reason, and an exit code that is not 0. And what
each daemon can do on its own, without `baton up`."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest

from by_hand import DAEMONS, ROLES, Daemon, by_hand, keygen
from conftest import BIN, MODEL, run_baton, generate, post, running_fleet

PROMPT = "The king said to his daughter"


def run(role, *args, timeout=20):
    """Runs a daemon that must end by itself: code, stdout, stderr."""
    done = subprocess.run([str(BIN / DAEMONS[role]), *map(str, args)], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, check=False)
    return done.returncode, done.stdout, done.stderr


def settings(role, **keys):
    """--set arguments that start a daemon on free loopback ports, or with these keys."""
    own = {"http_listen": "127.0.0.1:0"} if role == "router" else {"router": "tcp://127.0.0.1:9"}
    return [a for k, v in {"model": MODEL, **own, **keys}.items() for a in ("--set", f"{role}.{k}={v}")]


def complaint(role, *args, code=1):
    """The last line of a failed start, which is what the daemon died of."""
    got, _, text = run(role, *args)
    assert got == code, text
    lines = [line for line in text.splitlines() if line.startswith(DAEMONS[role] + ": ")]
    assert len(lines) == 1 and text.splitlines()[-1] == lines[0], text
    return lines[0]


# ---- the command line ----

@pytest.mark.parametrize("role", ROLES)
def test_help_version_dump_check(role, tmp_path):
    code, out, _ = run(role, "--help")
    assert code == 0 and "exit codes" in out and f"[{role}]" in out and "--check-config" in out
    code, out, _ = run(role, "--version")
    assert code == 0 and re.fullmatch(rf"{DAEMONS[role]} \d+\.\d+\.\d+\n", out)
    code, out, err = run(role, "--check-config", *settings(role))
    assert code == 0, err
    code, dump, err = run(role, "--dump-config", *settings(role, log_level="warning"))
    assert code == 0 and "log_level=warning" in dump, err
    file = tmp_path / "dumped.conf"
    file.write_text(dump)
    code, again, err = run(role, "--dump-config", "--config", file)
    assert code == 0, err
    assert again == dump, "a dump is a configuration that dumps itself"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("args", [["--bogus"], ["extra"], ["--config"], ["--config", "a", "--config", "b"], ["--set"]])
def test_wrong_flags(role, args):
    assert "--help" in complaint(role, *args, code=2)


@pytest.mark.parametrize("args", [
    ["--bogus"], ["extra"], ["--prefill", "0"], ["--decode", "17"], ["--port", "70000"], ["--port", "x"], ["--model"],
    ["--set", "decode"], ["--set", "other.key=1"], ["--set", "decode.=1"], ["--set", "decode.a=1\nb=2"],
    ["--kv-dtype", "f33"], ["--policy", "fair"], ["--block-size", "17"], ["--wire", "zip"], ["--pre", "2"], ["--no-restart=1"],
])
def test_wrong_flags_of_up(args):
    done = run_baton("up", *args, check=False, timeout=20)
    assert done.returncode == 2 and done.stderr.startswith("baton up: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("role", ROLES)
def test_wrong_configuration(role, tmp_path):
    file = tmp_path / "daemon.conf"
    for text, wanted in [
        (f"[{role}]\nmodel={MODEL}\nno_such_key=1\n", rf"{file}:3: unknown key 'no_such_key'"),
        (f"[{role}]\nmodel={MODEL}\nmodel={MODEL}\n", rf"{file}:3: "),
        ("[other]\nkey=1\n", rf"{file}:2: unknown section"),
        ("key=1\n", rf"{file}:1: "),
        (f"[{role}]\n???\n", rf"{file}:2: "),
        (f"[{role}]\nmodel={MODEL}\nlog_level=loud\n", rf"{file}:3: .*'loud'"),
        (f"[{role}]\nmodel={MODEL}\nheartbeat=5\n", rf"{file}:3: .*heartbeat"),
        (f"[{role}]\n", "'model'"),
    ]:
        file.write_text(text)
        assert re.search(wanted, complaint(role, "--config", file, code=3)), text
        complaint(role, "--config", file, "--check-config", code=3)
    assert str(tmp_path / "absent") in complaint(role, "--config", tmp_path / "absent", code=3)


def test_wrong_values():
    assert "'fair' is none of least_loaded, round_robin" in complaint("router", *settings("router", policy="fair"), code=3)
    assert "'here' is not ADDRESS:PORT" in complaint("router", *settings("router", http_listen="here"), code=3)
    for role in ("prefill", "decode"):
        assert "16, 32 or 64, not 17" in complaint(role, *settings(role, block_size=17), code=3)
        assert "multiple of 64" in complaint(role, *settings(role, pool_tokens=1000), code=3)
        assert "router_key needs" in complaint(role, *settings(role, router_key="k" * 40), code=3)
        assert "expected tcp://" in complaint(role, *settings(role, router="router:5555"))


# ---- the model's folder ----

def huge_header(data):
    return struct.pack("<Q", 2**64 - 1) + data[8:]


def broken_header(data):
    size = struct.unpack("<Q", data[:8])[0]
    return data[:8] + b"[" * size + data[8 + size:]


def edit_header(data, edit):
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    edit(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size:]


def overlap(header):
    header["model.norm.weight"]["data_offsets"] = [0, 512]


def beyond_the_end(header):
    header["model.norm.weight"]["data_offsets"] = [2**40, 2**40 + 512]


def backwards(header):
    header["model.norm.weight"]["data_offsets"] = [512, 0]


def overflow(header):
    header["model.norm.weight"]["shape"] = [2**62, 2**62]


HOSTILE = {
    "truncated": lambda data: data[:1000000],
    "five bytes": lambda data: data[:5],
    "empty": lambda data: b"",
    "huge header": huge_header,
    "broken header": broken_header,
    "overlap": lambda data: edit_header(data, overlap),
    "beyond the end": lambda data: edit_header(data, beyond_the_end),
    "backwards": lambda data: edit_header(data, backwards),
    "overflow": lambda data: edit_header(data, overflow),
    "no norm": lambda data: edit_header(data, lambda header: header.pop("model.norm.weight")),
}


@pytest.fixture
def model(tmp_path):
    """A copy of the demo model, to be broken."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                 "model.safetensors"):
        shutil.copyfile(MODEL / name, folder / name)
    return folder


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_safetensors(model, what):
    file = model / "model.safetensors"
    file.write_bytes(HOSTILE[what](file.read_bytes()))
    for role in ("prefill", "decode"):
        assert str(model) in complaint(role, *settings(role, model=model))
    done = run_baton("generate", "--model", model, "--ids", "5", "--max-tokens", 1, check=False)
    assert done.returncode == 1 and str(model) in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("old, new", [
    ("{", ""), ('"hidden_size": 256', '"hidden_size": -1'), ('"hidden_size": 256', '"hidden_size": "256"'),
    ('"num_hidden_layers": 8', '"num_hidden_layers": 4000000000'), ("LlamaForCausalLM", "OtherForCausalLM"),
    ('"num_key_value_heads": 2', '"num_key_value_heads": 3'), ('"rope_scaling": null', '"rope_scaling": {"type": "x"}'),
    ('"vocab_size": 4096', '"vocab_size": 0'), ('"eos_token_id": 1', '"eos_token_id": "end"'),
])
def test_broken_config_json(model, old, new):
    file = model / "config.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    for role in ROLES:
        assert str(file) in complaint(role, *settings(role, model=model))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": 3}', '{"model": {"type": "Unigram"}}'])
def test_broken_tokenizer(model, text):
    file = model / "tokenizer.json"
    file.write_text(text)
    assert str(file) in complaint("router", *settings("router", model=model))


def test_missing_files(model, tmp_path):
    for role in ROLES:
        assert str(tmp_path / "absent") in complaint(role, *settings(role, model=tmp_path / "absent"))
    (model / "tokenizer.json").unlink()
    assert str(model / "tokenizer.json") in complaint("router", *settings("router", model=model))
    (model / "model.safetensors").unlink()
    for role in ("prefill", "decode"):
        assert str(model) in complaint(role, *settings(role, model=model))
    (model / "config.json").unlink()
    for role in ROLES:
        assert str(model / "config.json") in complaint(role, *settings(role, model=model))


# ---- addresses and keys ----

@contextlib.contextmanager
def taken_port():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_port_in_use():
    with taken_port() as port:
        line = complaint("router", *settings("router", http_listen=f"127.0.0.1:{port}"))
        assert str(port) in line and "in use" in line
        line = complaint("router", *settings("router", control_listen=f"tcp://127.0.0.1:{port}"))
        assert str(port) in line and "in use" in line
        for role in ("prefill", "decode"):
            line = complaint(role, *settings(role, metrics_listen=f"127.0.0.1:{port}"))
            assert str(port) in line and "in use" in line
        line = complaint("decode", *settings("decode", pair_listen=f"tcp://127.0.0.1:{port}"))
        assert str(port) in line and "in use" in line
        done = run_baton("up", "--port", port, check=False, timeout=20)
        assert done.returncode == 1 and f"port {port}" in done.stderr and "in use" in done.stderr


def test_off_loopback_needs_keys():
    """192.0.2.1 is nobody's address: the check speaks before anything is bound or sent."""
    assert "keys are needed" in complaint("router", *settings("router", control_listen="tcp://192.0.2.1:5555"))
    assert "keys are needed" in complaint("decode", *settings("decode", pair_listen="tcp://192.0.2.1:5555"))
    for role in ("prefill", "decode"):
        assert "keys are needed" in complaint(role, *settings(role, router="tcp://192.0.2.1:5555"))
    assert "wildcard" in complaint("router", *settings("router", control_listen="tcp://0.0.0.0:5555"))
    assert "192.0.2.1" in complaint("router", *settings("router", http_listen="192.0.2.1:0"))


def test_wrong_key_files(tmp_path):
    public = keygen(tmp_path / "own.key")
    (tmp_path / "keys").write_text(f"{public} prefill p\n")
    absent = tmp_path / "absent"
    assert str(absent) in complaint("router", *settings("router", key_file=absent, keys_file=tmp_path / "keys"))
    assert str(absent) in complaint("router", *settings("router", key_file=tmp_path / "own.key", keys_file=absent))
    (tmp_path / "bad").write_text(f"# fine\n{public} prefill p\nnot a line\n")
    line = complaint("router", *settings("router", key_file=tmp_path / "own.key", keys_file=tmp_path / "bad"))
    assert f"{tmp_path}/bad:3" in line
    (tmp_path / "own.key").chmod(0o644)
    line = complaint("router", *settings("router", key_file=tmp_path / "own.key", keys_file=tmp_path / "keys"))
    assert str(tmp_path / "own.key") in line


# ---- daemons on their own ----

@pytest.mark.parametrize("keyed", [True, False])
def test_daemons_by_hand(tmp_path, keyed):
    with by_hand(tmp_path, tmp_path if keyed else None) as (port, daemons):
        daemons[2].wait_log("is ready")
        expected = generate("--prompt", PROMPT, "--max-tokens", 8)
        request = {"model": "model", "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
        deadline = time.monotonic() + 10
        while True: # The router hears of the pair a moment later.
            status, answer = post(port, "/v1/completions", request)
            if status != 503 or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        assert status == 200, answer
        assert answer["choices"][0]["text"] == expected["text"]
        log = daemons[1].log.read_text() + daemons[2].log.read_text()
        assert "bytes a token" in log and "tokens in the pool" in log and "GB/s" in log, "what planners count on"
        assert [daemon.stop() for daemon in daemons] == [0, 0, 0]


def test_unknown_key_is_refused(tmp_path):
    with by_hand(tmp_path, tmp_path, known=["router", "decode"]) as (port, daemons):
        _, decode, prefill = daemons
        decode.wait_log("the router knows us")
        prefill.wait_log(r"error prefill the router at tcp://\S+ refuses our key")
        time.sleep(0.5)
        assert prefill.log.read_text().count("\n") < 8, "it is said once, not for every try"
        assert post(port, "/v1/completions", {"model": "model", "prompt": "a"})[0] == 503
        assert prefill.stop() == 0


def test_role_by_key(tmp_path):
    """A daemon whose key says another role than it does itself is not let in."""
    with by_hand(tmp_path, tmp_path) as (_, daemons):
        daemons[1].wait_log("the router knows us")
        known = (tmp_path / "known").read_text()
        assert "prefill prefill-of-test" in known
        daemons[2].stop()
        shutil.copy(tmp_path / "prefill.key", tmp_path / "liar.key")
        config = (tmp_path / "decode.conf").read_text().replace("decode.key", "liar.key")
        lines = dict(line.split("=", 1) for line in config.splitlines() if "=" in line)
        liar = Daemon(tmp_path, "decode", {**lines, "name": "liar"})
        daemons.append(liar)
        daemons[0].wait_log("its key says")


# ---- up ----

@pytest.mark.parametrize("args, wanted", [
    (["--set", "decode.kv_dtype=f33"], "'f33' is none of auto, f32, bf16, fp8, int8"),
    (["--set", "prefill.block_size=17"], "block_size is 16, 32 or 64, not 17"),
    (["--set", "prefill.wire=zip"], "'zip' is none of"),
    (["--set", "router.policy=fair"], "'fair' is none of least_loaded"),
    (["--set", "decode.no_such_key=1"], "unknown key 'no_such_key'"),
    (["--set", "router.requests=0"], "requests"),
    (["--model", "/nonexistent"], "/nonexistent"),
])
def test_up_shows_what_a_daemon_says(args, wanted):
    done = run_baton("up", *args, check=False, timeout=20)
    assert done.returncode == 1 and wanted in done.stderr, done.stderr
    assert done.stdout == "" and done.stderr.splitlines()[-1].startswith("baton up: ")


def test_up_with_a_broken_model(model):
    (model / "model.safetensors").write_bytes(b"\0" * 100)
    done = run_baton("up", "--model", model, check=False, timeout=20)
    assert done.returncode == 1 and str(model / "model.safetensors") in done.stderr


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_reload_takes_the_log_level_and_refuses_the_rest():
    with running_fleet() as fleet:
        decode = fleet.daemons("decode")[0]
        config = pathlib.Path(f"/proc/{decode['pid']}/cmdline").read_text().split("\0")[2]
        original = pathlib.Path(config).read_text()
        pathlib.Path(config).write_text(original + "log_level=debug\n")
        os.kill(decode["pid"], signal.SIGHUP)
        wait_for(lambda: "configuration reloaded" in fleet.log_text())
        pathlib.Path(config).write_text(original + "seqs=7\n")
        os.kill(decode["pid"], signal.SIGHUP)
        wait_for(lambda: "reload refused" in fleet.log_text() and "seqs" in fleet.log_text())
        fleet.complete("Once", max_tokens=2)


def test_streams_open_at_the_end_of_the_drain_hear_of_it():
    with running_fleet("--set", "router.drain_timeout=100ms") as fleet:
        events = fleet.stream("Once upon a time", max_tokens=1500, ignore_eos=True)
        next(events)
        os.kill(fleet.daemons("router")[0]["pid"], signal.SIGTERM)
        errors = [event["error"]["code"] for event in events if "error" in event]
        assert errors == ["shutting_down"]
