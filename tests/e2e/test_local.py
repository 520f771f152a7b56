"""Prompts that the decode daemon computes itself: the same tokens as ever, and only where it should."""

import concurrent.futures
import http.client
import os
import signal
import threading
import time

from conftest import generate, running_fleet

SHORT = [
    "Once upon a time",
    "The old man looked at the sea and",
    "\"Who is there?\" said the king. \"It is",
    "The miller's daughter went to the well, and when she looked down she saw a face that was not her own, and it",
    "A" * 3,
]
# Words that the prompts of other tests do not begin with, so that no cache has them.
LONG = ["{} and the miller went to the town, and on the way he met a man who had a goose under his arm. ".format(name) * 50
        for name in ("Hans", "Gretel", "Joringel", "Catherine", "Frederick")]


def local_fleet(*args):
    return running_fleet("--set", "router.local_prefill_max=100", "--set", "decode.local_chunk=16", *args)


def wait_metric(fleet, role, name, wanted, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        value = fleet.metrics(role).get(name, 0)
        if wanted(value):
            return value
        assert time.monotonic() < deadline, f"{name} is {value}"
        time.sleep(0.005)


def decided(fleet, kind):
    return fleet.metrics("router").get(f'baton_decisions_total{{kind="{kind}"}}', 0)


def wait_measured(fleet):
    """Until the router knows what a batch costs at both daemons: predictions are made only then."""
    deadline = time.monotonic() + 20
    while fleet.metrics("router").get("baton_ttft_predictions_total", 0) == 0:
        assert time.monotonic() < deadline
        fleet.complete("It was", max_tokens=2)


def expect_same(answer, prompt, max_tokens):
    choice, usage = answer
    expected = generate("--prompt", prompt, "--max-tokens", max_tokens)
    assert choice["token_ids"] == expected["ids"], prompt
    assert usage["completion_tokens"] == len(expected["ids"])


def test_short_prompts_do_not_queue_behind_long_ones():
    """While P computes a long prompt, a short one costs less at D; the long ones all go through P."""
    with local_fleet() as fleet:
        wait_measured(fleet)
        before = fleet.metrics()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for short, long in zip(SHORT, LONG):
                pairs = decided(fleet, "pair")
                waiting = pool.submit(fleet.complete, long, max_tokens=4)
                wait_metric(fleet, "router", 'baton_decisions_total{kind="pair"}', lambda v, n=pairs: v > n)
                expect_same(fleet.complete(short, max_tokens=16), short, 16)
                expect_same(waiting.result(), long, 4)
        after = fleet.metrics()
        assert after['baton_decisions_total{kind="local"}'] > before['baton_decisions_total{kind="local"}']
        assert after["baton_decode_local_requests_total"] == after['baton_decisions_total{kind="local"}']
        assert after["baton_decode_prefill_tokens_total"] <= 100 * after["baton_decode_local_requests_total"]
        assert after["baton_frames_total"] > before["baton_frames_total"]
        assert fleet.wait_idle() == {}


def test_off_by_default(shared_fleet):
    shared_fleet.complete(SHORT[0], max_tokens=2)
    assert decided(shared_fleet, "local") == 0
    assert shared_fleet.metrics("decode")["baton_decode_prefill_tokens_total"] == 0


def test_without_prefill_daemons():
    """All prompts, in chunks, by D alone; and the prefix that D computed is found again."""
    with running_fleet("--no-restart", "--set", "router.local_when_no_prefill=yes",
                       "--set", "decode.local_chunk=48") as fleet:
        fleet.complete(SHORT[0], max_tokens=2)
        os.kill(fleet.daemons("prefill")[0]["pid"], signal.SIGKILL)
        wait_metric(fleet, "router", 'baton_daemons{role="prefill"}', lambda v: v == 0)
        connection = http.client.HTTPConnection("127.0.0.1", fleet.port, timeout=20)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()
        for prompt in SHORT + LONG[:2]:
            expect_same(fleet.complete(prompt, max_tokens=12), prompt, 12)
        again, usage = fleet.complete(LONG[0] + " And then", max_tokens=12)
        expect_same((again, usage), LONG[0] + " And then", 12)
        assert usage["prompt_tokens_details"]["cached_tokens"] >= 512
        one, _ = fleet.complete(SHORT[1], max_tokens=1)
        assert len(one["token_ids"]) == 1
        assert fleet.metrics("router")['baton_decisions_total{kind="local_no_prefill"}'] == len(SHORT) + 4


def test_mixed_load():
    """Every policy's fleet-mate: two by two under predicted_ttft, prompts of all lengths at once, clients that leave."""
    prompts = [SHORT[i % len(SHORT)] if i % 3 else LONG[i // 3 % len(LONG)][:200 * (1 + i)] for i in range(24)]
    expected = {}
    with local_fleet("--prefill", 2, "--decode", 2, "--policy", "predicted_ttft") as fleet:
        wait_measured(fleet)
        stop = threading.Event()

        def leave():
            while not stop.is_set():
                for event in fleet.stream(LONG[4], max_tokens=64):
                    if event == "[DONE]" or event["choices"]:
                        break

        with concurrent.futures.ThreadPoolExecutor(9) as pool:
            leaver = pool.submit(leave)
            answers = list(pool.map(lambda p: fleet.complete(p, max_tokens=8), prompts))
            stop.set()
            leaver.result()
        for prompt, (choice, _) in zip(prompts, answers):
            if prompt not in expected:
                expected[prompt] = generate("--prompt", prompt, "--max-tokens", 8)["ids"]
            assert choice["token_ids"] == expected[prompt], prompt
        metrics = fleet.metrics("router")
        assert metrics['baton_decisions_total{kind="pair"}'] > 0
        assert metrics["baton_prefix_entries"] > 0
        assert fleet.wait_idle() == {}


def test_prefix_affinity_returns_to_the_cache():
    """Conversations that grow: with affinity each goes on where it began."""
    with running_fleet("--prefill", 2, "--decode", 2, "--policy", "prefix_affinity") as fleet:
        texts = [LONG[0], LONG[1], LONG[2]]
        for turn in range(3):
            for i, text in enumerate(texts):
                choice, usage = fleet.complete(text, max_tokens=4)
                cached = usage["prompt_tokens_details"]["cached_tokens"]
                assert turn == 0 or cached >= usage["prompt_tokens"] - 128, (turn, i, usage)
                texts[i] = text + choice["text"] + " He went on."
        metrics = fleet.metrics("router")
        assert metrics["baton_prefix_believed_tokens_total"] > 0
