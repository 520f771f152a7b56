"""64 streams at once for a while, a tenth of the clients leaving early: every request ends once, and nothing is held.

BATON_SOAK_SECONDS sets how long (10 s by default, a minute in `ops/test --lanes`); BATON_SOAK_SEED repeats a run."""

import json
import os
import pathlib
import random
import selectors
import socket
import time

from conftest import SANITIZED, generate, running_fleet

STREAMS = 64
SECONDS = float(os.environ.get("BATON_SOAK_SECONDS", "10"))
SEED = int(os.environ.get("BATON_SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
SILENCE_SECONDS = 120 if SANITIZED else 30
PROMPTS = [
    "Once upon a time there was a little",
    "The old man looked at the sea and",
    "The king said to his daughter, \"You may go to the wood.\" " * 12,
    "A fox and a wolf met on the road. " * 25,
]
REFUSED = (429, 503)
RETRY_SECONDS = 1


class Stream:
    """One request on one connection, from sent to ended; several of them share the selector's loop."""

    def __init__(self, port, rng):
        self.prompt = rng.choice(PROMPTS) + " " * rng.randrange(3)
        self.max_tokens = rng.randrange(1, 64)
        self.stop = rng.choice([None, None, " the", "."])
        self.leaves_after = rng.randrange(0, 4000) if rng.random() < 0.1 else None
        self.data = bytearray()
        self.heard = time.monotonic()
        body = json.dumps({"model": "baton-demo", "prompt": self.prompt, "max_tokens": self.max_tokens, "stream": True,
                           "temperature": 0, "stop": self.stop, "return_token_ids": True}).encode()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                            b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self.socket.setblocking(False)

    def read(self):
        """What came of it: None while it goes on, else "left", "refused" or "finished"."""
        self.heard = time.monotonic()
        data = self.socket.recv(65536)
        self.data += data
        if self.leaves_after is not None and (len(self.data) > self.leaves_after or not data):
            return "left"
        return None if data else self.check()

    def check(self):
        """The connection ended: exactly one ending, and it is complete."""
        head, _, body = bytes(self.data).partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status in REFUSED:
            assert b"\r\nRetry-After: " in head, head
            assert json.loads(body)["error"]["message"]
            return "refused"
        assert status == 200, self.data
        events = [line[6:] for line in dechunk(body).decode().split("\n") if line.startswith("data: ")]
        assert events.count("[DONE]") == 1 and events[-1] == "[DONE]", events
        choices = [json.loads(event)["choices"][0] for event in events[:-1]]
        reasons = [choice["finish_reason"] for choice in choices]
        assert reasons[-1] in ("stop", "length") and not any(reasons[:-1]), reasons
        self.ids = [token for choice in choices for token in choice["token_ids"]]
        self.text = "".join(choice["text"] for choice in choices)
        assert 1 <= len(self.ids) <= self.max_tokens
        if reasons[-1] == "length":
            assert len(self.ids) == self.max_tokens
        assert self.stop is None or self.stop not in self.text
        return "finished"


def dechunk(body):
    """The content of chunked coding; fails unless the last chunk is there."""
    out = bytearray()
    while True:
        size, _, body = body.partition(b"\r\n")
        size = int(size, 16)
        if size == 0:
            assert body == b"\r\n", body
            return bytes(out)
        out += body[:size]
        assert body[size:size + 2] == b"\r\n"
        body = body[size + 2:]


def resident(pid):
    """Resident memory of a process in MiB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def memory(fleet):
    return {daemon["name"]: resident(daemon["pid"]) for daemon in fleet.state()["daemons"]}


def load(fleet, rng, seconds, samples):
    """Keeps STREAMS requests in flight for so long, then waits for the last; counts what became of them."""
    counts = {"finished": 0, "left": 0, "refused": 0, "tokens": 0}
    answers = {}
    selector = selectors.DefaultSelector()
    end = time.monotonic() + seconds
    next_sample = 0.0
    retries = [] # When clients that were refused come back.

    def start():
        stream = Stream(fleet.port, rng)
        selector.register(stream.socket, selectors.EVENT_READ, stream)

    for _ in range(STREAMS):
        start()
    while selector.get_map() or retries:
        now = time.monotonic()
        while retries and retries[0] <= now:
            retries.pop(0)
            start()
        if now >= next_sample:
            samples.append(memory(fleet))
            next_sample = now + max(1.0, seconds / 20)
        for key, _ in selector.select(timeout=0.1):
            stream = key.data
            outcome = stream.read()
            if outcome is None:
                continue
            selector.unregister(stream.socket)
            stream.socket.close()
            counts[outcome] += 1
            if outcome == "finished":
                counts["tokens"] += len(stream.ids)
                answer = answers.setdefault((stream.prompt, stream.stop), (stream.ids, stream.text))
                shorter, longer = sorted([answer[0], stream.ids], key=len)
                assert longer[:len(shorter)] == shorter, "greedy answers to one prompt agree"
                if longer is stream.ids:
                    answers[stream.prompt, stream.stop] = (stream.ids, stream.text)
            if outcome == "refused":
                retries.append(now + RETRY_SECONDS)
            elif time.monotonic() < end:
                start()
        silent = [k.data for k in selector.get_map().values() if now - k.data.heard > SILENCE_SECONDS]
        assert not silent, f"{len(silent)} streams are silent, the first after {bytes(silent[0].data[-300:])}"
    return counts, answers


def check_after(fleet, counts, before):
    """Every request that was accepted ended once, and nothing is held anywhere."""
    held = fleet.wait_idle()
    assert held == {}, held
    router = fleet.metrics("router")
    print(counts, {k: v for k, v in router.items() if k.endswith("_total")}, sep="\n")
    assert router["baton_requests_in_flight"] == 0
    ended = sum(router[f"baton_requests_{how}_total"] for how in ("finished", "cancelled", "failed"))
    assert ended == router["baton_requests_accepted_total"]
    # One that found no room for too long is told so before its first byte.
    assert router["baton_requests_failed_total"] <= counts["refused"] + counts["left"]
    assert router["baton_requests_finished_total"] >= counts["finished"]
    for role in ("prefill", "decode"):
        metrics = fleet.metrics(role)
        assert metrics["baton_requests_running"] == metrics["baton_requests_waiting"] == 0
        assert metrics["baton_leases_ended_total"] == 0, "nothing came to an end by waiting for it"
    assert fleet.metrics("decode")["baton_frames_bad_total"] == 0
    assert {d["name"]: d["pid"] for d in fleet.state()["daemons"]} == before, fleet.log_text()


def check_answers(rng, answers):
    for (prompt, stop), (ids, text) in rng.sample(sorted(answers.items(), key=str), min(6, len(answers))):
        alone = generate("--prompt", prompt, "--max-tokens", len(ids))
        assert alone["ids"] == ids
        assert alone["text"].startswith(text) if stop else alone["text"] == text


def soak(seconds, *args):
    """The load on a fleet of two and two; returns what became of the requests and the samples of memory."""
    print(f"seed {SEED}: BATON_SOAK_SEED={SEED} repeats this run")
    rng = random.Random(SEED)
    samples = []
    with running_fleet("--prefill", 2, "--decode", 2, "--set", "prefill.threads=1", "--set", "decode.threads=1",
                       *args) as fleet:
        before = {d["name"]: d["pid"] for d in fleet.state()["daemons"]}
        counts, answers = load(fleet, rng, seconds, samples)
        check_after(fleet, counts, before)
        check_answers(rng, answers)
    return counts, samples


def test_soak():
    counts, samples = soak(SECONDS)
    assert counts["finished"] > 0 and counts["left"] > 0
    if not SANITIZED:
        check_memory(samples)


def test_soak_without_room():
    """Pools, landing slots and the router's own list are too small for the load: clients are refused at once and come
    back, sequences wait or are evicted, and still every request ends once."""
    counts, _ = soak(SECONDS / 3, *(word for key in (
        "router.requests=32", "router.retry_wait=20s", "decode.pool_tokens=2048", "prefill.pool_tokens=2048",
        "decode.slots=3") for word in ("--set", key)))
    assert counts["finished"] > 0 and counts["refused"] > 0


def check_memory(samples):
    """Pools and arenas are touched as they fill, so the first half may grow; the second half has nothing to grow for."""
    print(samples[0], samples[len(samples) // 2], samples[-1], sep="\n")
    for name in samples[0]:
        half, last = samples[len(samples) // 2][name], samples[-1][name]
        assert last - half < 24 + 0.1 * half, f"{name} grew from {half:.0f} to {last:.0f} MiB"
