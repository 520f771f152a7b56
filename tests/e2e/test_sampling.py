"""Penalties, biases, min_p and min_tokens: against a plain implementation of their definitions, and the same tokens from
a fleet as from one process, over mixed dtypes and after a decode daemon was killed in the middle."""

import json
import math

import pytest

from conftest import MODEL, generate, run_baton, running_fleet
from test_faults import Client, kill, wait_restarted

PROMPTS = [
    "Once upon a time there was a little",
    "The king said to his daughter, \"You may go to the wood, but you must be home before the sun is down.\" " * 4,
]
EOS = json.loads((MODEL / "config.json").read_text())["eos_token_id"]

# What a request may ask for, beside the default of greedy.
CASES = {
    "repetition": {"repetition_penalty": 1.4},
    "repetition reward": {"repetition_penalty": 0.8},
    "presence": {"presence_penalty": 1.5},
    "frequency": {"frequency_penalty": 0.7},
    "all penalties": {"repetition_penalty": 1.1, "presence_penalty": -0.5, "frequency_penalty": 0.3},
    "bias": {"logit_bias": {"300": 8.5, "280": -100, "13": 3}},
    "min_tokens": {"min_tokens": 12, "logit_bias": {str(EOS): 100}},
    "everything": {"repetition_penalty": 1.2, "presence_penalty": 0.4, "frequency_penalty": 0.2, "min_tokens": 6,
                   "logit_bias": {"300": 4, "263": -5, str(EOS): 9}},
}


def flags(fields):
    """The same as flags of `baton generate`."""
    out = []
    for name, value in fields.items():
        if name == "logit_bias":
            value = ",".join(f"{token}:{bias}" for token, bias in value.items())
        if name == "stop_token_ids":
            name, value = "stop-ids", ",".join(map(str, value))
        out += ["--" + name.replace("_", "-"), value]
    return out


def processed(logits, prompt, output, fields):
    """Logits as the sampler sees them: the order and the formulas of common/base/sampling.h, written once more."""
    logits = list(logits)
    if len(output) < fields.get("min_tokens", 0):
        logits[EOS] = -math.inf
    for token, bias in fields.get("logit_bias", {}).items():
        logits[int(token)] += bias
    repetition = fields.get("repetition_penalty", 1)
    for token in set(prompt) | set(output):
        logits[token] = logits[token] / repetition if logits[token] > 0 else logits[token] * repetition
    for token in set(output):
        logits[token] -= fields.get("frequency_penalty", 0) * output.count(token)
        logits[token] -= fields.get("presence_penalty", 0)
    return logits


@pytest.mark.parametrize("name", CASES)
def test_greedy_equals_the_definition(name):
    prompt = [465, 2366, 304, 1103, 465, 280, 2198]
    steps = 14
    got = generate("--ids", ",".join(map(str, prompt)), "--max-tokens", steps, "--kv-dtype", "f32", *flags(CASES[name]))
    output = []
    while len(output) < steps and output[-1:] != [EOS]:
        ids = ",".join(map(str, prompt + output))
        raw = json.loads(run_baton("logits", "--model", MODEL, "--ids", ids, "--kv-dtype", "f32").stdout)
        logits = processed(raw, prompt, output, CASES[name])
        best = max(range(len(logits)), key=logits.__getitem__)
        margin = logits[best] - max(x for i, x in enumerate(logits) if i != best)
        assert margin > 1e-4, "a tie says nothing: take another prompt"
        output.append(best)
    assert got["ids"] == output


def log_softmax(logits, token):
    top = max(logits)
    return logits[token] - top - math.log(sum(math.exp(x - top) for x in logits))


def test_logprobs_equal_the_definition():
    """Of the prompt's tokens and of the output, of the unmodified distribution whatever the sampler does to it."""
    prompt = [465, 2366, 304, 1103, 465, 280, 2198]
    got = generate("--ids", ",".join(map(str, prompt)), "--max-tokens", 5, "--kv-dtype", "f32", "--logprobs", 4,
                   "--prompt-logprobs", 3, *flags(CASES["everything"]))
    ids = prompt + got["ids"]
    entries = got["prompt_logprobs"] + got["logprobs"]
    assert [entry["id"] for entry in entries] == ids[1:]
    for at, entry in enumerate(entries, 1):
        prefix = ",".join(map(str, ids[:at]))
        raw = json.loads(run_baton("logits", "--model", MODEL, "--ids", prefix, "--kv-dtype", "f32").stdout)
        assert entry["logprob"] == pytest.approx(log_softmax(raw, ids[at]), abs=1e-4)
        best = sorted(range(len(raw)), key=lambda token: (-raw[token], token))[:3 if at < len(prompt) else 4]
        assert [token for token, _ in entry["top"]] == best
        for token, logprob in entry["top"]:
            assert logprob == pytest.approx(log_softmax(raw, token), abs=1e-4)


def check(fleet, prompts, *more):
    for i, prompt in enumerate(prompts):
        for name, case in CASES.items():
            for sampled in ({}, {"temperature": 0.9, "top_p": 0.95, "min_p": 0.02, "top_k": 200, "seed": i}):
                fields = {**case, **sampled}
                want = generate("--prompt", prompt, "--max-tokens", 20, *flags(fields), *more)
                choice, _ = fleet.complete(prompt, max_tokens=20, **fields)
                assert choice["token_ids"] == want["ids"], (name, sampled, prompt)


def test_a_fleet_equals_the_single_process(shared_fleet):
    check(shared_fleet, PROMPTS)
    # Penalties must matter here, or the test says nothing.
    plain = generate("--prompt", PROMPTS[0], "--max-tokens", 20)["ids"]
    assert all(generate("--prompt", PROMPTS[0], "--max-tokens", 20, *flags(CASES[name]))["ids"] != plain
               for name in ("repetition", "presence", "frequency", "bias"))


@pytest.mark.parametrize("prefill, wire, decode", [("f32", "fp8", "fp8"), ("bf16", "raw", "f32"), ("fp8", "raw", "int8")])
def test_mixed_dtypes(prefill, wire, decode):
    with running_fleet("--prefill-kv-dtype", prefill, "--wire", wire, "--kv-dtype", decode) as fleet:
        check(fleet, PROMPTS[:1], "--prefill-kv-dtype", prefill, "--wire", wire, "--kv-dtype", decode)
        assert fleet.wait_idle() == {}


def test_stop_ids_end_the_output(shared_fleet):
    ids = generate("--prompt", PROMPTS[0], "--max-tokens", 20)["ids"]
    stop = ids[7]
    first = ids.index(stop)
    for fields, count in (({}, first + 1), ({"min_tokens": first + 1}, None)):
        fields = {"stop_token_ids": [stop], **fields}
        want = generate("--prompt", PROMPTS[0], "--max-tokens", 20, *flags(fields))["ids"]
        choice, _ = shared_fleet.complete(PROMPTS[0], max_tokens=20, **fields)
        assert choice["token_ids"] == want
        if count is None:
            assert stop not in want[:first + 1] and len(want) > first + 1
        else:
            assert want == ids[:count] and choice["finish_reason"] == "stop"


# Replay: the next attempt begins with committed tokens, and must still count them as output.
@pytest.mark.parametrize("fields", [
    {"presence_penalty": 0.8, "frequency_penalty": 0.4, "repetition_penalty": 1.05},
    {"temperature": 1.1, "frequency_penalty": 0.2, "min_p": 0.01, "min_tokens": 590, "seed": 5,
     "logit_bias": {"300": 2.5}},
])
def test_the_output_goes_on_after_a_death(fields):
    count = 600
    want = generate("--prompt", PROMPTS[0], "--max-tokens", count, "--ignore-eos", *flags(fields))["ids"]
    with running_fleet("--set", "router.retry_wait=20s") as fleet:
        client = Client(fleet, PROMPTS[0], max_tokens=count, **fields)
        client.wait_tokens(60)
        killed = kill(fleet, "decode")
        assert len(client.ids) < count, "it died too late to tell anything"
        wait_restarted(fleet, killed)
        assert client.finish().error is None, client.error
        assert client.ids == want
        assert fleet.metrics("router")["baton_retries_total"] >= 1
        assert fleet.wait_idle() == {}
