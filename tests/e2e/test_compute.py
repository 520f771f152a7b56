"""Daemons that compute in bf16 or int8: the tokens of one process that does, and who pairs with whom."""

import time

import pytest

from by_hand import by_hand
from conftest import generate, post

PROMPT = "Once upon a time there was a little girl who"


def complete(port, tokens):
    """The text of a greedy completion, as soon as the router has heard of the pair."""
    request = {"model": "model", "prompt": PROMPT, "max_tokens": tokens, "temperature": 0}
    deadline = time.monotonic() + 20
    while True:
        status, answer = post(port, "/v1/completions", request)
        if status != 503 or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert status == 200, answer
    return answer["choices"][0]["text"]


@pytest.mark.parametrize("compute", ["bf16", "int8"])
def test_a_fleet_equals_one_process(tmp_path, compute):
    settings = {"decode.compute": compute, "prefill.compute": compute}
    with by_hand(tmp_path, settings=settings) as (port, daemons):
        daemons[2].wait_log("is ready")
        expected = generate("--prompt", PROMPT, "--max-tokens", 24, "--compute", compute)
        assert complete(port, 24) == expected["text"]
        assert f"computed in {compute}" in daemons[1].log.read_text()


def test_bf16_pairs_with_f32(tmp_path):
    with by_hand(tmp_path, settings={"prefill.compute": "bf16"}) as (port, daemons):
        daemons[2].wait_log("is ready")
        assert complete(port, 8) != ""


def test_int8_is_refused_where_both_pools_are_exact(tmp_path):
    """What int8 adds is more than the probe allows between two bf16 pools, and less than between fp8 ones."""
    with by_hand(tmp_path, settings={"prefill.compute": "int8"}) as (port, daemons):
        daemons[2].wait_log(r"error prefill pair with decode refused: .*probe")
        assert "is ready" not in daemons[2].log.read_text()
        assert post(port, "/v1/completions", {"model": "model", "prompt": "a"})[0] == 503


def test_int8_pairs_with_f32_over_fp8(tmp_path):
    settings = {"prefill.compute": "int8", "decode.kv_dtype": "fp8"}
    with by_hand(tmp_path, settings=settings) as (port, daemons):
        daemons[2].wait_log("is ready")
        assert complete(port, 8) != ""
