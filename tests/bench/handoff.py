#!/usr/bin/env python3
"""What a handoff costs on this machine: from the last layer computed to the first decode step.

Starts `baton up` with trace files, sends unique prompts of random token ids at each concurrency, joins the traces of both
daemons by request and prints one row for each run:

    raw        prefill: the KV of the last layer is final -> decode: the first step with this sequence is submitted
    put        p50 of one plain UCX put of the bytes that crossed after that event (the last layer's frames), between two
               processes with the same settings over a working set of 320 MiB, before and after the run; the smaller counts
    wait       of raw, the time from Accepted to the end of a step that was running then, which no handoff could shorten
    overhead   raw - wait - put, for each request

and where the time went, one after the other:

    engine     last layer's KV -> end of the prefill batch (attention and MLP of the sampled row, head, sampling)
    wake       -> FirstToken to the router (the loop heard of it)
    manifest   -> Manifest sent (everything packed, put, sealed)
    arrive     -> Manifest at the decode daemon
    accept     -> Accepted (frames unpacked and verified)
    step       -> first step submitted, the wait taken off

All times are of the same monotonic clock of one host. The prompts are unique, so no prefix is cached. Requests whose
Ticket came after their first token (their KV was pinned meanwhile) are left out and counted.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLUMNS = ["raw", "put", "wait", "overhead", "engine", "wake", "manifest", "arrive", "accept", "step"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help="build folder (default: build)")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "ops" / "model")
    parser.add_argument("--requests", type=int, default=200, help="in each run (default: 200)")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--concurrency", default="1,4", help="comma-separated (default: 1,4)")
    parser.add_argument("--runs", type=int, default=3, help="of each concurrency (default: 3)")
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("up", nargs="*", help="more arguments of `baton up`, after --")
    return parser.parse_args()


class Fleet:
    """A running `baton up` whose daemons write traces."""

    def __init__(self, args, folder):
        self.traces = {role: pathlib.Path(folder) / f"{role}.jsonl" for role in ("prefill", "decode")}
        command = [str(args.build / "bin" / "baton"), "up", "--model", str(args.model), *args.up]
        for role, path in self.traces.items():
            command += ["--set", f"{role}.trace_file={path}"]
        self.log = open(pathlib.Path(folder) / "log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log,
                                        text=True)
        for line in self.process.stdout:
            match = re.match(r"ready http://127\.0\.0\.1:(\d+)$", line)
            if match:
                self.port = int(match.group(1))
                return
        self.log.seek(0)
        sys.exit(f"the fleet did not come up:\n{self.log.read()}")

    def complete(self, prompt, args):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = {"model": args.model.name, "prompt": prompt, "max_tokens": args.max_tokens, "temperature": 0,
                "ignore_eos": True}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        if response.status != 200:
            sys.exit(f"HTTP {response.status}: {answer}")

    def stop(self):
        """Traces are complete once the daemons have ended."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)


def plain_put(args, put_bytes):
    """p50 in ms of one put of so many bytes."""
    done = subprocess.run([args.build / "tests" / "bench_xfer", "put", str(put_bytes)], capture_output=True, text=True,
                          check=True, timeout=60)
    return float(done.stdout) / 1e3


def read_traces(fleet):
    """{request: {"last_layer_ns": …, "puts": […], "steps": {token index: …}}}"""
    requests = {}
    for path in fleet.traces.values():
        for line in path.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            entry = requests.setdefault(event.pop("request"), {"puts": [], "steps": {}})
            if "put_layer" in event:
                entry["puts"].append(event)
            elif "token_index" in event:
                entry["steps"][event["token_index"]] = event
            else:
                entry.update(event)
    return requests


def measure(entry, put_ms):
    """The row of one request, in ms; None if a Ticket was late or the probe is meant."""
    if "last_layer_ns" not in entry or 1 not in entry["steps"] or "accepted_ns" not in entry:
        return None
    step = entry["steps"][1]
    wait = max(0, step["step_before_ended_ns"] - entry["accepted_ns"]) if entry["step_running"] else 0
    points = [entry["last_layer_ns"], entry["batch_done_ns"], entry["first_token_ns"], entry["manifest_ns"],
              entry["manifest_arrived_ns"], entry["accepted_ns"], step["step_ns"]]
    spans = [(b - a) / 1e6 for a, b in zip(points, points[1:])]
    spans[-1] -= wait / 1e6
    raw = (points[-1] - points[0]) / 1e6
    return dict(zip(COLUMNS, [raw, put_ms, wait / 1e6, raw - wait / 1e6 - put_ms, *spans]))


def late_bytes(entry):
    return sum(put["bytes"] for put in entry["puts"] if put["pack_ns"] >= entry["last_layer_ns"])


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p / 100))]


def expected_bytes(args):
    """Of the last layer of a prompt, for the put that is timed before the fleet has told: bf16, whole runs."""
    with open(args.model / "config.json", encoding="utf-8") as file:
        config = json.load(file)
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return -(-args.prompt_tokens // 64) * 64 * 2 * config["num_key_value_heads"] * head_dim * 2


def run(args, concurrency, seed):
    """One fleet, one concurrency: rows, bytes after the last layer, plain puts before and after, late tickets."""
    dice = random.Random(seed)
    vocabulary = json.loads((args.model / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    prompts = [[dice.randrange(3, vocabulary) for _ in range(args.prompt_tokens)] for _ in range(args.requests)]
    puts = [plain_put(args, expected_bytes(args))]
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        fleet = Fleet(args, folder)
        try:
            with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
                list(pool.map(lambda prompt: fleet.complete(prompt, args), prompts))
        finally:
            fleet.stop()
        requests = read_traces(fleet)
    measured = [entry for entry in requests.values() if measure(entry, 0) is not None]
    put_bytes = int(statistics.median(late_bytes(entry) for entry in measured))
    puts.append(plain_put(args, put_bytes))
    rows = [measure(entry, min(puts)) for entry in measured]
    return rows, put_bytes, puts, sum("ticket_late" in entry for entry in requests.values())


def main():
    args = arguments()
    print(f"{args.requests} requests of {args.prompt_tokens} tokens, {args.max_tokens} out, model {args.model.name}, "
          f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, seed {args.seed}; ms")
    print(f"{'conc run':>8} {'p':>3} " + " ".join(f"{c:>8}" for c in COLUMNS) + "   bytes  puts before/after us, rest")
    for concurrency in map(int, args.concurrency.split(",")):
        medians = []
        for number in range(args.runs):
            rows, put_bytes, puts, late = run(args, concurrency, args.seed + 100 * concurrency + number)
            for p in (50, 90, 99):
                row = {c: percentile([r[c] for r in rows], p) for c in COLUMNS}
                note = f"{put_bytes:8} {puts[0] * 1e3:.0f}/{puts[1] * 1e3:.0f}, {len(rows)} measured, {late} late" \
                    if p == 50 else ""
                print(f"{concurrency:4} {number + 1:3} {p:3} " + " ".join(f"{row[c]:8.3f}" for c in COLUMNS) + note,
                      flush=True)
                if p == 50:
                    medians.append(row)
        if args.runs > 1:
            for name, pick in (("min", min), ("median", statistics.median)):
                print(f"{concurrency:4} {name:>7} " + " ".join(f"{pick(m[c] for m in medians):8.3f}" for c in COLUMNS)
                      + "   of the p50s", flush=True)


if __name__ == "__main__":
    main()
