"""`baton bench` against servers whose behaviour is known: a stub that says when it wrote each token, and the demo fleet."""

import json
import os
import pty
import re
import signal
import subprocess
import time

import numpy
import pytest

from conftest import BIN, MODEL, ROOT, run_baton, running_fleet
from openai_stub import Plan, Stub


def bench(*args, code=0, timeout=120):
    done = run_baton("bench", *args, check=False, timeout=timeout)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def measure(tmp_path, *args, code=0, timeout=120):
    """The JSON document of a run, with samples."""
    file = tmp_path / "bench.json"
    done = bench("--json", file, "--samples", *args, code=code, timeout=timeout)
    document = json.loads(file.read_text(encoding="utf-8"))
    document["stdout"], document["stderr"] = done.stdout, done.stderr
    return document


def samples(document, server=0):
    return sorted(document["servers"][server]["samples"], key=lambda sample: (sample["block"], sample["index"]))


# ---- what is measured ----


def test_times_are_those_of_the_server(tmp_path):
    """No time can be shorter than what the server did, and the typical one is within 5 ms of it."""
    plan = Plan(first=0.05, gap=0.02)
    with Stub(lambda number, body: plan) as stub:
        document = measure(tmp_path, "--url", stub.url, "--concurrency", 4, "--requests", 20, "--output-tokens", 20)
        seen = stub.seen[-20:]  # after the warm-up
    by_prompt = {json.dumps(request.body["prompt"]): request for request in seen}
    assert len(by_prompt) == 20
    # Requests are matched by the order in which they were sent.
    measured = sorted(samples(document), key=lambda sample: sample["sent_s"])
    off_first, off_gap = [], []
    for sample, request in zip(measured, seen):
        assert sample["outcome"] == "ok" and sample["output_tokens"] == 20 and len(sample["gaps_s"]) == 19
        first = sample["first_token_s"] - sample["sent_s"]
        off_first.append(first - (request.written[0] - request.read))
        gaps = numpy.diff(request.written)
        off_gap += list(numpy.array(sample["gaps_s"]) - gaps)
        # The last token cannot be read before it was written, nor can the request be read before it was sent.
        assert sample["last_token_s"] - sample["sent_s"] >= request.written[-1] - request.read
    assert min(off_first) >= 0
    assert numpy.median(off_first) < 0.005, off_first
    assert numpy.median(numpy.abs(off_gap)) < 0.005, off_gap
    assert document["client"]["cpu_share_of_a_core"] < 0.8


def test_percentiles_are_those_of_the_samples(tmp_path):
    plan = {0: Plan(first=0.03, gap=0.001), 1: Plan(gap=0.004)}
    with Stub(lambda number, body: plan[number % 2]) as stub:
        document = measure(tmp_path, "--url", stub.url, "--concurrency", 3, "--requests", 30, "--output-tokens", "uniform:2-9")
    server = document["servers"][0]
    expected = {
        "ttft": [s["first_token_s"] - s["sent_s"] for s in server["samples"]],
        "itl": [gap for s in server["samples"] for gap in s["gaps_s"]],
        "e2e": [s["last_token_s"] - s["sent_s"] for s in server["samples"]],
        "tpot": [(s["last_token_s"] - s["first_token_s"]) / (s["output_tokens"] - 1) for s in server["samples"]],
        "client_delay": [s["sent_s"] - s["due_s"] for s in server["samples"]],
    }
    for key, values in expected.items():
        assert server[key]["count"] == len(values)
        for p in (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9):
            assert server[key][f"p{p:g}"] == pytest.approx(numpy.percentile(values, p), rel=1e-6, abs=2e-9), (key, p)
        assert server[key]["mean"] == pytest.approx(numpy.mean(values), rel=1e-6, abs=2e-9)
        assert sum(bin["count"] for bin in server[key]["histogram"]) == len(values)
    assert server["output_tokens"] == sum(s["output_tokens"] for s in server["samples"])
    assert server["output_tokens_per_s"] == pytest.approx(server["output_tokens"] / server["window_s"], rel=1e-6)


def test_a_queue_is_part_of_the_time(tmp_path):
    """Requests are due every 20 ms, the server takes 100 ms for each, and one may be in flight: they wait ever longer."""
    with Stub(lambda number, body: Plan(first=0.1)) as stub:
        document = measure(tmp_path, "--url", stub.url, "--rate", 50, "--burstiness", 1000, "--concurrency", 1, "--requests", 10,
                           "--output-tokens", 5, "--warmup", 0)
    server = document["servers"][0]
    assert server["ttft"]["max"] > 0.8 and server["client_delay"]["max"] > 0.7
    assert server["ttft_sent"]["p50"] < 0.4 * server["ttft"]["max"]
    for sample in server["samples"]:
        assert sample["due_s"] <= sample["sent_s"] <= sample["first_token_s"]


def test_goodput_counts_from_when_a_request_was_due(tmp_path):
    with Stub(lambda number, body: Plan(first=0.2 if number % 4 == 3 else 0.0)) as stub:
        document = measure(tmp_path, "--url", stub.url, "--requests", 20, "--output-tokens", 5, "--warmup", 0, "--slo",
                           "ttft=100ms,e2e=10s")
    server = document["servers"][0]
    good = sum(s["first_token_s"] - s["sent_s"] <= 0.1 for s in server["samples"])
    assert good <= 15
    assert server["goodput_requests_per_s"] == pytest.approx(good / server["window_s"], rel=1e-6)


@pytest.mark.parametrize("plan, counted, note", [
    (Plan(), "ids", None),
    (Plan(per_event=4), "ids", "4.00 tokens an event"),
    (Plan(ids=False), "events", None),
    (Plan(ids=False, per_event=4), "events", "only events with text could be counted"),
    (Plan(ids=False, usage=False), "events", "no usage for 4 answers"),
])
def test_tokens_are_counted_as_the_server_allows(tmp_path, plan, counted, note):
    with Stub(lambda number, body: plan) as stub:
        document = measure(tmp_path, "--url", stub.url, "--requests", 4, "--output-tokens", 12)
    server = document["servers"][0]
    # The probe was answered with ids; what the answers really had counts.
    assert server["tokens_counted_by"] == counted
    assert server["output_tokens"] == 48
    if counted == "ids":
        assert server["itl"]["count"] == 44
    if note:
        assert note in document["stdout"]


def test_lengths_that_are_not_honoured_are_said(tmp_path):
    with Stub(lambda number, body: Plan(tokens=9)) as stub:
        document = measure(tmp_path, "--url", stub.url, "--requests", 6, "--output-tokens", 12)
    assert document["servers"][0]["output_lengths_off"] == 6
    assert "WARNING: 6 of 6 answers have another length than was asked (9 to 9 tokens)" in document["stdout"]


# ---- prompts ----


def test_prompts_have_their_length_in_every_form(tmp_path):
    forms = [(["--token-ids", "100-999"], True, False, "ids"), ([], True, True, "ids"), ([], False, False, "text"),
             (["--endpoint", "chat"], True, False, "text"), (["--tokenizer", MODEL], True, False, "ids")]
    for args, takes_ids, tokenize, form in forms:
        with Stub(takes_ids=takes_ids, tokenize=tokenize) as stub:
            document = measure(tmp_path, "--url", stub.url, "--requests", 5, "--input-tokens", "uniform:40-60", "--output-tokens", 5,
                               *args)
            for sample, seen in zip(samples(document), stub.seen[-5:]):
                assert stub.prompt_tokens(seen.body) == sample["input_asked"] == sample["input_tokens"]
                assert 40 <= sample["input_asked"] <= 60
        server = document["servers"][0]
        assert server["prompts"] == form and server["input_lengths_off"] == 0
        assert server["text_overhead_tokens"] == (0 if form == "ids" else 3)


def test_the_seed_decides_the_load(tmp_path):
    bodies = {}
    for seed in (1, 1, 2):
        with Stub() as stub:
            bench("--url", stub.url, "--requests", 8, "--input-tokens", "lognormal:30,10", "--output-tokens", 5, "--seed", seed)
            bodies.setdefault(seed, []).append([seen.body for seen in stub.seen])
    assert bodies[1][0] == bodies[1][1] != bodies[2][0]


def test_prompts_from_a_file(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "one two \\u00e9", "max_tokens": 6}\n{"prompt": "three"}\n', encoding="utf-8")
    with Stub() as stub:
        document = measure(tmp_path, "--url", stub.url, "--prompts", file, "--requests", 4, "--output-tokens", 9, "--warmup", 0,
                           "--respect-eos")
        assert [seen.body["prompt"] for seen in stub.seen] == ["one two é", "three"] * 2
        assert [seen.body["max_tokens"] for seen in stub.seen] == [6, 9] * 2
        assert all("ignore_eos" not in seen.body for seen in stub.seen)
    assert document["servers"][0]["input_tokens"] == 2 * (3 + 3) + 2 * (1 + 3)


def test_a_trace_gives_times_and_lengths(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-02-29 23:59:59.9,30,7\n2024-03-01 00:00:00.3,20,5\n"
                     "2024-03-01 00:00:00.5,25,6\n", encoding="utf-8")
    with Stub() as stub:
        document = measure(tmp_path, "--url", stub.url, "--trace", trace, "--speed", 2)
        taken = [(stub.prompt_tokens(seen.body), seen.body["max_tokens"]) for seen in stub.seen[-3:]]
        reads = [seen.read - stub.seen[-3].read for seen in stub.seen[-3:]]
    assert taken == [(30, 7), (20, 5), (25, 6)]
    assert [s["due_s"] for s in samples(document)] == pytest.approx([0, 0.2, 0.3], abs=1e-4)
    assert reads[1] > 0.1 and reads[2] > reads[1]


def test_published_traces(tmp_path, data_dir):
    """The first requests of the two real traces, far faster than they were."""
    text = subprocess.run(["xz", "-dkc", data_dir / "traces" / "mooncake_conversation.jsonl.xz"], capture_output=True, check=True).stdout
    mooncake = tmp_path / "mooncake.jsonl"
    mooncake.write_bytes(text)
    for trace, speed in ((data_dir / "traces" / "AzureLLMInferenceTrace_conv.csv", 50), (mooncake, 20)):
        with Stub() as stub:
            document = measure(tmp_path, "--url", stub.url, "--trace", trace, "--speed", speed, "--limit", 40, "--warmup", 0)
            assert len(stub.seen) == 40
            if trace == mooncake:  # its first block is the same in every request
                assert len({json.dumps(seen.body["prompt"].split()[:500]) for seen in stub.seen}) == 1
                assert len({json.dumps(seen.body["prompt"].split()[600:]) for seen in stub.seen}) == 40
        server = document["servers"][0]
        assert server["requests_ok"] == 40 and server["input_lengths_off"] == server["output_lengths_off"] == 0


# ---- two servers ----


def test_two_servers_get_the_same_in_turn(tmp_path):
    with Stub(lambda number, body: Plan(first=0.03)) as a, Stub(lambda number, body: Plan(first=0.06)) as b:
        document = measure(tmp_path, "--url", a.url, "--against", b.url, "--concurrency", 2, "--requests", 32, "--output-tokens", 5)
        bodies = [sorted(json.dumps(seen.body, sort_keys=True) for seen in stub.seen) for stub in (a, b)]
        assert bodies[0] == bodies[1] and len(set(bodies[0])) == 34
        # A B, B A, A B, B A, 8 requests each; the first two of each server were the warm-up.
        spans = sorted([(seen.read, "A") for seen in a.seen[2:]] + [(seen.read, "B") for seen in b.seen[2:]])
        turns = "".join(name for _, name in spans)
        assert turns == "A" * 8 + "B" * 16 + "A" * 16 + "B" * 16 + "A" * 8
    assert [len(server["blocks"]) for server in document["servers"]] == [4, 4]
    assert "A / B" in document["stdout"] and "in each block" in document["stdout"]
    ratio = document["servers"][0]["ttft"]["p50"] / document["servers"][1]["ttft"]["p50"]
    assert ratio < 0.9


def test_two_servers_meet_the_same_arrivals(tmp_path):
    for order in ("alternate", "together"):
        with Stub() as a, Stub() as b:
            document = measure(tmp_path, "--url", a.url, "--against", b.url, "--rate", 200, "--requests", 40, "--output-tokens", 5,
                               "--order", order)
        due = [[(s["index"], round(s["due_s"], 3)) for s in samples(document, i)] for i in (0, 1)]
        assert [index for index, _ in due[0]] == [index for index, _ in due[1]] == list(range(40))
        for (_, mine), (_, other) in zip(*due):
            assert mine == pytest.approx(other, abs=0.0021)


# ---- failures ----


@pytest.mark.parametrize("plan, kind, status, message", [
    (Plan(status=429), "http", 429, "not now"),
    (Plan(status=503), "http", 503, "not now"),
    (Plan(fail_after=0, failure="close"), "disconnect", 200, None),
    (Plan(fail_after=3, failure="close"), "disconnect", 200, None),
    (Plan(fail_after=3, failure="error"), "stream_error", 200, "lost a daemon"),
    (Plan(fail_after=3, failure="garbage"), "malformed", 200, "no JSON object"),
    (Plan(fail_after=3, failure="no_done"), "malformed", 200, "without [DONE]"),
    (Plan(fail_after=3, failure="hang"), "timeout", 200, None),
])
def test_failures_are_counted_by_kind(tmp_path, plan, kind, status, message):
    with Stub(lambda number, body: plan if number % 3 == 1 else Plan()) as stub:
        document = measure(tmp_path, "--url", stub.url, "--requests", 9, "--output-tokens", 8, "--warmup", 0, "--timeout", "1s", code=1)
    server = document["servers"][0]
    assert (server["requests_ok"], server["requests_failed"]) == (6, 3)
    assert len(server["errors"]) == 1
    error = server["errors"][0]
    assert (error["kind"], error["http_status"], error["count"]) == (kind, status, 3)
    if message:
        assert message in error["message"]
    assert document["stderr"].endswith("baton bench: 3 of 9 requests failed\n")
    assert server["ttft"]["count"] == 6 and server["itl"]["count"] == 6 * 7  # nothing of those that failed


def test_failures_may_be_allowed(tmp_path):
    with Stub(lambda number, body: Plan(status=429 if number % 2 else 200)) as stub:
        document = measure(tmp_path, "--url", stub.url, "--requests", 8, "--output-tokens", 8, "--warmup", 0, "--allow-errors")
    assert document["servers"][0]["requests_failed"] == 4
    assert "4 x http_429: not now" in document["stdout"]


def test_nothing_but_failures(tmp_path):
    with Stub(lambda number, body: Plan(status=500)) as stub:
        done = bench("--url", stub.url, "--requests", 3, "--output-tokens", 8, "--warmup", 0, "--allow-errors", code=1)
        assert f"{stub.url} answered no request" in done.stderr
        done = bench("--url", stub.url, "--requests", 3, "--output-tokens", 8, code=1)
        assert "a warm-up request failed" in done.stderr
    done = bench("--url", "http://127.0.0.1:1", code=1)
    assert re.search(r"^baton bench: http://127\.0\.0\.1:1/v1/models: .*\n\Z", done.stderr)


def test_a_context_too_small_is_said_before():
    with Stub(context=600) as stub:
        done = bench("--url", stub.url, "--input-tokens", 500, "--output-tokens", 101, code=1)
        assert "601 tokens in and out, but the server's context is 600" in done.stderr
        assert not stub.seen


def test_an_interrupted_run_tells_what_it_has():
    with Stub(lambda number, body: Plan(first=0.05, gap=0.01)) as stub:
        process = subprocess.Popen([BIN / "baton", "bench", "--url", stub.url, "--requests", "100000", "--output-tokens", "8"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while len(stub.seen) < 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "INTERRUPTED" in out and "TTFT" in out and ", 1 cut off by the end" in out
        assert re.search(r"^baton bench: interrupted after \d+ requests$", err, re.M)


def test_a_pipe_without_data_can_be_interrupted(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen([BIN / "baton", "bench", "--trace", pipe], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer, deadline = None, time.monotonic() + 30
    while writer is None and time.monotonic() < deadline:
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # fails until the bench opens the other end
        except OSError:
            time.sleep(0.01)
    assert writer is not None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    os.close(writer)


def test_progress_is_for_terminals():
    with Stub(lambda number, body: Plan(gap=0.02)) as stub:
        command = [BIN / "baton", "bench", "--url", stub.url, "--requests", "12", "--output-tokens", "10"]
        for quiet in (False, True):
            leader, follower = pty.openpty()
            process = subprocess.Popen(command + ["--quiet"] * quiet, stdout=subprocess.DEVNULL, stderr=follower)
            os.close(follower)
            text = b""
            try:
                while piece := os.read(leader, 4096):
                    text += piece
            except OSError:
                pass
            os.close(leader)
            assert process.wait(timeout=30) == 0
            assert (b"in flight" in text) == (not quiet)
            assert quiet or re.search(rb"\[#+\.*\] +\d+ %", text)
        assert run_baton(*command[1:]).stderr == ""


def test_a_thousand_streams(tmp_path):
    with Stub(lambda number, body: Plan(first=1.5, gap=0.3)) as stub:
        document = measure(tmp_path, "--url", stub.url, "--concurrency", 1000, "--requests", 1000, "--input-tokens", 16,
                           "--output-tokens", 5, "--warmup", 0)
        assert stub.most_running == 1000
    server = document["servers"][0]
    assert server["requests_ok"] == 1000 and server["output_tokens"] == 5000


# ---- our own ----


def test_the_demo_fleet(shared_fleet, tmp_path):
    document = measure(tmp_path, "--url", shared_fleet.url, "--concurrency", 2, "--requests", 12, "--input-tokens", "uniform:20-200",
                       "--output-tokens", 16)
    server = document["servers"][0]
    assert server["requests_ok"] == 12 and server["owned_by"] == "baton" and server["tokens_counted_by"] == "ids"
    assert server["output_tokens"] == 12 * 16
    assert server["input_lengths_off"] == server["output_lengths_off"] == 0
    assert document["schema"] == "baton-bench/1"
    histograms = {(h["name"], h["labels"]): h for h in document["server_histograms"]}
    assert histograms["baton_time_to_first_token_seconds", ""]["count"] == 12
    phases = {key[1][len('phase="'):-1]: h for key, h in histograms.items() if key[0] == "baton_handoff_seconds"}
    assert set(phases) == {"pack", "put", "engine", "wake", "manifest", "confirm", "total", "unpack", "accept", "wait", "step"}
    # Every handoff is confirmed, accepted and stepped; one that waited for its Ticket has no total.
    assert [phases[name]["count"] for name in ("confirm", "accept", "wait", "step")] == [12] * 4
    assert 1 <= phases["total"]["count"] == phases["engine"]["count"] == phases["manifest"]["count"] <= 12
    assert phases["pack"]["count"] == phases["put"]["count"] == phases["unpack"]["count"] >= 12
    assert phases["total"]["mean"] > phases["confirm"]["p50"] > 0
    assert "handoff: confirm" in document["stdout"]


def test_chat_with_a_template_that_trims(tmp_path):
    with running_fleet("--set", f"router.chat_template={ROOT}/docs/examples/chatml.jinja") as fleet:
        document = measure(tmp_path, "--url", fleet.url, "--endpoint", "chat", "--requests", 12, "--input-tokens", 64,
                           "--output-tokens", 8)
    server = document["servers"][0]
    assert server["requests_ok"] == 12 and server["tokens_counted_by"] == "ids" and server["text_overhead_tokens"] > 1
    assert server["input_lengths_off"] == server["output_lengths_off"] == 0


def test_a_full_fleet_is_429(shared_fleet, tmp_path):
    document = measure(tmp_path, "--url", shared_fleet.url, "--rate", 2000, "--requests", 200, "--input-tokens", 64,
                       "--output-tokens", 8, "--allow-errors")
    server = document["servers"][0]
    assert server["requests_ok"] + server["requests_failed"] == 200 and server["requests_ok"] > 0
    assert all(error["kind"] == "http" and error["http_status"] == 429 for error in server["errors"])


# ---- the command line ----

WRONG = [
    (["--nonsense"], "unknown argument '--nonsense'"),
    (["--url"], "--url needs a value"),
    (["--url", "localhost:8000"], "--url: 'localhost:8000' is no URL"),
    (["--against", "http://"], "--against: 'http://' is no URL"),
    (["--concurrency", "0"], "--concurrency is a whole number from 1 to 10000, not '0'"),
    (["--rate", "nan"], "--rate is a number from 1e-06 to 1e+06, not 'nan'"),
    (["--rate", "5", "--trace", "x"], "--rate and --trace exclude each other"),
    (["--requests", "5", "--duration", "5s"], "--requests and --duration exclude each other"),
    (["--duration", "5"], "--duration is a time like 10s or 250ms, not '5'"),
    (["--input-tokens", "5-6"], "--input-tokens: '5-6' is no length"),
    (["--burstiness", "2"], "--burstiness needs --rate"),
    (["--speed", "2"], "--speed and --limit need --trace"),
    (["--slo", "ttft=5"], "--slo: 'ttft=5'"),
    (["--endpoint", "embeddings"], "--endpoint is completions or chat, not 'embeddings'"),
    (["--endpoint", "chat", "--prompt-form", "ids"], "--endpoint chat takes no ids"),
    (["--order", "together"], "need --against"),
    (["--token-ids", "9-5"], "--token-ids: '9-5' is no range"),
    (["--samples"], "--samples needs --json"),
]


@pytest.mark.parametrize("args, message", WRONG, ids=[" ".join(args) for args, _ in WRONG])
def test_wrong_use(args, message):
    done = bench(*args, code=2)
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("args", [["--trace", "/nowhere"], ["--prompts", "/nowhere"], ["--api-key-file", "/nowhere"]])
def test_missing_files(args):
    done = bench(*args, code=1)
    assert done.stderr == "baton bench: /nowhere: No such file or directory\n"


def test_the_example_of_the_help_is_right(shared_fleet):
    text = run_baton("bench", "--help").stdout
    example = re.search(r"^Example: baton bench (.*)$", text, re.M).group(1).split()
    example[example.index("--requests") + 1] = "8"
    bench("--url", shared_fleet.url, *example)
