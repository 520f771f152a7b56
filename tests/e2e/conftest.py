"""What the end-to-end tests share: the built programs, a fleet, a client and the metrics.

Everything runs on loopback against build/bin (BATON_BUILD names another build folder). Tests that need outside data take
its folder from BATON_TEST_DATA and skip without it.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import select
import signal
import subprocess
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BATON_BUILD", ROOT / "build")) / "bin"
MODEL = ROOT / "ops" / "model"
READY_SECONDS = 60
# Sanitizers make daemons several times slower, and keep freed memory.
SANITIZED = b"__asan_init" in (BIN / "baton").read_bytes() or b"__tsan_init" in (BIN / "baton").read_bytes()
# On a machine that does much else such a daemon may miss its heartbeats.
PATIENCE = ["--set", "router.daemon_timeout=20s"] if SANITIZED else []


@pytest.fixture
def tmp_path():
    """Short, since messages show the end of a long path only."""
    with tempfile.TemporaryDirectory(prefix="bt-") as folder:
        yield pathlib.Path(folder)


def run_baton(*args, stdin=None, timeout=120, check=True):
    """Runs `baton ARGS` and returns the finished process (stdout and stderr as text)."""
    done = subprocess.run([str(BIN / "baton"), *map(str, args)], input=stdin, capture_output=True, text=True,
                          timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"baton {' '.join(map(str, args))}: exit {done.returncode}\n{done.stderr}")
    return done


def generate(*args, model=MODEL, **kwargs):
    """Tokens of the single process, the oracle of disaggregated serving."""
    return json.loads(run_baton("generate", "--model", model, "--json", *args, **kwargs).stdout)


def post(port, path, body, timeout=60, headers=None):
    """Status and parsed JSON of one POST; body may be raw bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, raw, {"Content-Type": "application/json", **(headers or {})})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, json.loads(data)


class Fleet:
    """A running `baton up`."""

    def __init__(self, args):
        self.state_file = tempfile.NamedTemporaryFile(prefix="baton-state-", suffix=".json", delete=False).name
        self.log = tempfile.TemporaryFile(mode="w+", prefix="baton-log-")
        self.process = subprocess.Popen([str(BIN / "baton"), "up", "--state", self.state_file, *PATIENCE,
                                         *map(str, args)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.url = None

    def readable(self):
        return bool(select.select([self.process.stdout], [], [], 0.05)[0])

    def wait_ready(self):
        """Reads the `ready URL` line; fails with the log if the fleet does not come up."""
        deadline = time.monotonic() + READY_SECONDS
        text = ""
        while time.monotonic() < deadline:
            text += (os.read(self.process.stdout.fileno(), 4096) if self.readable() else b"").decode()
            match = re.search(r"^ready (http://127\.0\.0\.1:(\d+))$", text, re.M)
            if match:
                self.url, self.port = match.group(1), int(match.group(2))
                return self
            if self.process.poll() is not None:
                break
        raise AssertionError(f"the fleet is not ready (exit {self.process.poll()})\n{self.log_text()}")

    def log_text(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def state(self):
        with open(self.state_file, encoding="utf-8") as file:
            return json.load(file)

    def daemons(self, role):
        return [d for d in self.state()["daemons"] if d["role"] == role]

    def metrics(self, role=None):
        """{name{labels}: value} summed over the daemons of a role (None: all)."""
        sums = {}
        for daemon in self.state()["daemons"]:
            if role is not None and daemon["role"] != role:
                continue
            for key, value in scrape(daemon["metrics"]).items():
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def connect(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def post(self, path, body, timeout=60, headers=None):
        return post(self.port, path, body, timeout, headers)

    def complete(self, prompt, **fields):
        """One choice of /v1/completions, not streamed: text, token_ids, finish_reason; and the usage."""
        status, answer = self.post("/v1/completions", {"model": self.model(), "prompt": prompt, "return_token_ids": True,
                                                       "temperature": 0, **fields})
        assert status == 200, answer
        return answer["choices"][0], answer["usage"]

    def stream(self, prompt, **fields):
        """Yields the parsed events of a streamed completion."""
        connection = self.connect(fields.pop("timeout", 60))
        body = {"model": self.model(), "prompt": prompt, "stream": True, "return_token_ids": True, "temperature": 0,
                **fields}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise AssertionError(response.read())
        try:
            yield from sse(response)
        finally:
            connection.close()

    def model(self):
        connection = self.connect()
        connection.request("GET", "/v1/models")
        name = json.loads(connection.getresponse().read())["data"][0]["id"]
        connection.close()
        return name

    def wait_idle(self, seconds=15):
        """Waits until no daemon holds a block or a landing slot; returns the last figures."""
        deadline = time.monotonic() + seconds
        while True:
            metrics = self.metrics()
            held = {k: v for k, v in metrics.items()
                    if v and re.match(r'baton_(kv_blocks|landing_slots)\{.*state="(held|quarantined)"', k)}
            if not held or time.monotonic() > deadline:
                return held
            time.sleep(0.1)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=20)
        pathlib.Path(self.state_file).unlink(missing_ok=True)
        return code


def sse(response):
    """The data of server-sent events, parsed; [DONE] ends them and is yielded as the string."""
    for line in response:
        line = line.decode().rstrip("\n")
        if not line.startswith("data: "):
            assert line == "", line
            continue
        data = line[len("data: "):]
        yield data if data == "[DONE]" else json.loads(data)
        if data == "[DONE]":
            return


def scrape(url):
    match = re.match(r"http://([^:/]+):(\d+)(/.*)", url)
    connection = http.client.HTTPConnection(match.group(1), int(match.group(2)), timeout=10)
    connection.request("GET", match.group(3))
    text = connection.getresponse().read().decode()
    connection.close()
    values = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            values[name] = float(value)
    return values


@contextlib.contextmanager
def running_fleet(*args):
    fleet = Fleet(args)
    try:
        yield fleet.wait_ready()
    finally:
        code = fleet.stop()
    assert code == 0, fleet.log_text()
    # In a build with sanitizers the daemons report leaks as they end.
    assert not re.search(r"Sanitizer: |runtime error: ", fleet.log_text()), fleet.log_text()


@pytest.fixture(scope="session")
def shared_fleet():
    """One prefill and one decode daemon with the demo model, for tests that leave it as they found it."""
    with running_fleet() as fleet:
        yield fleet


@pytest.fixture(scope="session")
def data_dir():
    path = os.environ.get("BATON_TEST_DATA")
    if not path:
        pytest.skip("skipped: BATON_TEST_DATA is not set (ops/test --data DIR)")
    return pathlib.Path(path)
