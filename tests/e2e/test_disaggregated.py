"""Disaggregated output equals the single process, token for token."""

import pytest

from conftest import generate, running_fleet

PROMPTS = [
    "Once upon a time there was a little",
    "The old man looked at the sea and",
    "A" * 3,
    "The king said to his daughter, \"You may go to the wood, but you must be home before the sun is down.\" " * 8,
]


def sampled(seed):
    return {"temperature": 0.9, "top_p": 0.95, "seed": seed}


def sampled_flags(seed):
    return ["--temperature", 0.9, "--top-p", 0.95, "--seed", seed]


def check(fleet, flags=(), prompts=PROMPTS):
    for i, prompt in enumerate(prompts):
        expected = generate("--prompt", prompt, "--max-tokens", 24, *flags)
        choice, usage = fleet.complete(prompt, max_tokens=24)
        assert choice["token_ids"] == expected["ids"], prompt
        assert choice["text"] == expected["text"]
        assert usage["completion_tokens"] == len(expected["ids"])
        expected = generate("--prompt", prompt, "--max-tokens", 24, *sampled_flags(i), *flags)
        choice, _ = fleet.complete(prompt, max_tokens=24, **sampled(i))
        assert choice["token_ids"] == expected["ids"], f"seed {i}: {prompt}"


def test_raw_wire_equals_single_process(shared_fleet):
    check(shared_fleet)


def test_two_by_two():
    with running_fleet("--prefill", 2, "--decode", 2, "--wire", "raw") as fleet:
        check(fleet)
        assert fleet.wait_idle() == {}


@pytest.mark.parametrize("prefill, wire, decode", [
    ("f32", "fp8", "fp8"),
    ("bf16", "int8", "int8"),
    ("bf16", "raw", "f32"),
    ("fp8", "raw", "int8"),
    ("int8", "bf16", "fp8"),
])
def test_pool_dtypes_differ(prefill, wire, decode):
    flags = ["--prefill-kv-dtype", prefill, "--wire", wire, "--kv-dtype", decode]
    with running_fleet(*flags) as fleet:
        check(fleet, flags)


@pytest.mark.parametrize("prefill, decode", [(16, 64), (64, 16)])
def test_block_sizes_differ(prefill, decode):
    with running_fleet("--prefill-block-size", prefill, "--block-size", decode) as fleet:
        check(fleet)


def test_cached_prefix_on_decode_side(shared_fleet):
    """The second request with the same beginning is sent without the runs that D holds, and says the same."""
    prompt = "The miller had three sons, a mill, an ass and a cat, and when he died the sons divided what he left. " * 8
    frames_before = shared_fleet.metrics("prefill")["baton_frame_bytes_total"]
    first, _ = shared_fleet.complete(prompt, max_tokens=16)
    frames_first = shared_fleet.metrics("prefill")["baton_frame_bytes_total"] - frames_before
    other, _ = shared_fleet.complete(prompt + " came", max_tokens=16)
    frames_other = shared_fleet.metrics("prefill")["baton_frame_bytes_total"] - frames_before - frames_first
    assert frames_other < frames_first
    assert other["token_ids"] == generate("--prompt", prompt + " came", "--max-tokens", 16)["ids"]
    assert first["token_ids"] == generate("--prompt", prompt, "--max-tokens", 16)["ids"]


def test_kv_really_crossed():
    """D refuses to prefill, yet everything decodes; the pair's lane is shared memory."""
    with running_fleet("--set", "decode.refuse_prefill=yes") as fleet:
        check(fleet)
        decode = fleet.metrics("decode")
        assert decode["baton_decode_prefill_tokens_total"] == 0
        assert decode["baton_probe_tokens_total"] == 64
        assert decode["baton_frames_total"] > 0
        lanes = [key for key in fleet.metrics("prefill") if key.startswith("baton_pair_megabytes_per_second{")]
        assert len(lanes) == 1
        assert any(name in lanes[0] for name in ("posix", "sysv", "cma")), lanes


def test_streamed_equals_unstreamed(shared_fleet):
    expected, usage = shared_fleet.complete(PROMPTS[0], max_tokens=20)
    ids, text, finish, last_usage = [], "", None, None
    events = list(shared_fleet.stream(PROMPTS[0], max_tokens=20, stream_options={"include_usage": True}))
    assert events[-1] == "[DONE]"
    for event in events[:-1]:
        if event["choices"]:
            choice = event["choices"][0]
            ids += choice.get("token_ids") or []
            text += choice["text"]
            finish = choice["finish_reason"] or finish
        last_usage = event.get("usage") or last_usage
    assert (ids, text, finish) == (expected["token_ids"], expected["text"], expected["finish_reason"])
    assert last_usage["completion_tokens"] == usage["completion_tokens"]
