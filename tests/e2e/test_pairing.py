"""Who may pair: the same model with other formats may, other weights, tokenizer or positions may not."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

from conftest import MODEL, generate, run_baton, running_fleet

MAKE = pathlib.Path(__file__).with_name("other_weights.py")
PROMPT = "The old man looked at the sea and"


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="bt-") as path:
        yield pathlib.Path(path) / "other"


def refused(*args):
    """`baton up` ends at once with the pair that was refused; returns its last line."""
    done = run_baton("up", *args, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    assert done.stdout == "", "it was never ready"
    last = done.stderr.splitlines()[-1]
    assert last.startswith("baton up: a pair was refused: "), done.stderr
    return last


def other_model(folder, *args):
    subprocess.run([sys.executable, str(MAKE), str(MODEL), str(folder), *args], check=True)
    return ["--set", f"decode.model={folder}"]


@pytest.mark.parametrize("noise", [[], ["0.3"]])
@pytest.mark.parametrize("formats", [[], ["--prefill-kv-dtype", "bf16", "--kv-dtype", "int8", "--wire", "int8"]])
def test_other_weights_are_refused(folder, noise, formats):
    line = refused(*other_model(folder, *noise), *formats)
    match = re.search(r"prefill-0 and decode-0: probe: layer (\d+) head (\d+) [KV] error (\S+) > bound (\S+)$", line)
    assert match, line
    layer, head, error, bound = int(match[1]), int(match[2]), float(match[3]), float(match[4])
    assert layer < 8 and head < 2
    assert error > 3 * bound, line


def test_half_a_fleet_of_other_weights(folder):
    """The right pair would do, but up promises every pair: it says which is wrong."""
    assert "layer" in refused(*other_model(folder), "--prefill", 2, "--decode", 1)


def copy_model(folder):
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("*.py"))
    return folder


def edit_json(path, edit):
    root = json.loads(path.read_text())
    edit(root)
    path.write_text(json.dumps(root))


FINGERPRINT = r"fingerprint: prefill has ([0-9a-f]{8}) .*decode ([0-9a-f]{8}) "


@pytest.mark.parametrize("role", ["decode", "prefill"])
def test_another_rope_theta_is_refused(folder, role):
    edit_json(copy_model(folder) / "config.json", lambda root: root.update(rope_theta=500000.0))
    match = re.search(FINGERPRINT, refused("--set", f"{role}.model={folder}"))
    assert match and match[1] != match[2]


def test_another_tokenizer_is_refused(folder):
    def swap(root):
        vocab = root["model"]["vocab"]
        first, second = list(vocab)[300:302]
        vocab[first], vocab[second] = vocab[second], vocab[first]
    edit_json(copy_model(folder) / "tokenizer.json", swap)
    match = re.search(FINGERPRINT, refused("--set", f"decode.model={folder}"))
    assert match and match[1] != match[2]


def test_a_pair_that_differs_from_the_router_is_refused(folder):
    """The two agree with each other, but the router's tokenizer would say other ids for the same text."""
    def swap(root):
        vocab = root["model"]["vocab"]
        first, second = list(vocab)[300:302]
        vocab[first], vocab[second] = vocab[second], vocab[first]
    edit_json(copy_model(folder) / "tokenizer.json", swap)
    message = refused("--set", f"decode.model={folder}", "--set", f"prefill.model={folder}")
    match = re.search(r"the router has ([0-9a-f]{8}) and the pair ([0-9a-f]{8}) ", message)
    assert match and match[1] != match[2]


def test_another_shape_is_refused(folder):
    copy_model(folder)
    edit_json(folder / "config.json", lambda root: root.update(num_hidden_layers=4))
    assert re.search(r"layers: prefill has 8, decode 4", refused("--set", f"decode.model={folder}"))


def test_only_tcp_is_refused_unless_allowed():
    """A silent fall-back to TCP is not a pair; asked for, it is, and says the same tokens."""
    tcp = ["--set", "prefill.transports=tcp", "--set", "decode.transports=tcp"]
    assert "allow_tcp" in refused(*tcp)
    with running_fleet(*tcp, "--set", "prefill.allow_tcp=yes", "--set", "decode.allow_tcp=yes") as fleet:
        choice, _ = fleet.complete(PROMPT, max_tokens=12)
        assert choice["token_ids"] == generate("--prompt", PROMPT, "--max-tokens", 12)["ids"]
        assert any('transport="tcp' in key for key in fleet.metrics("prefill"))


@pytest.mark.parametrize("args", [
    ["--prefill-block-size", 16, "--block-size", 32, "--prefill-kv-dtype", "f32", "--kv-dtype", "int8"],
    ["--prefill-block-size", 64, "--block-size", 16, "--prefill-kv-dtype", "fp8", "--kv-dtype", "bf16", "--wire", "f32"],
])
def test_formats_may_differ(args):
    with running_fleet(*args) as fleet:
        assert fleet.metrics("router")["baton_pairs_ready"] == 1
        assert fleet.complete(PROMPT, max_tokens=8)[1]["completion_tokens"] == 8
        assert fleet.metrics("decode")["baton_frames_bad_total"] == 0
        assert fleet.wait_idle() == {}
