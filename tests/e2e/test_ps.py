"""`baton ps` and `baton doctor --url` on fleets that serve, that lack a daemon, and that refuse to pair."""

import http.server
import json
import os
import re
import signal
import threading
import time

from by_hand import by_hand
from conftest import post, run_baton, running_fleet


def test_a_serving_fleet():
    with running_fleet("--prefill", "2", "--kv-dtype", "fp8", "--prefill-kv-dtype", "bf16") as fleet:
        post(fleet.port, "/v1/completions", {"model": "baton-demo", "prompt": "A king", "max_tokens": 4})
        lines = run_baton("ps", "--url", fleet.url).stdout.splitlines()
        assert lines[0].startswith("router ") and f"at {fleet.url}:" in lines[0] and "NOT SERVING" not in lines[0]
        assert lines[1].startswith("0 requests in flight; accepted 1, failed 0,") and lines[1].endswith("tokens 4")
        rows = {line.split()[0]: line.split() for line in lines[2:lines.index("", 3)] if line}
        assert rows["decode-0"][1:3] == ["decode", "up"] and "fp8" in rows["decode-0"]
        assert rows["prefill-1"][1:3] == ["prefill", "up"] and "bf16" in rows["prefill-1"]
        pair = next(line.split() for line in lines if line.startswith("prefill-0") and "decode-0" in line)
        assert pair[2:5] == ["ready", "fp8", "posix/memory"] and float(pair[5]) > 0.1
        # The same as JSON, from the same source.
        told = json.loads(run_baton("ps", "--json", "--url", fleet.url + "/").stdout)
        assert sorted(d["name"] for d in told["daemons"] if d["up"]) == sorted(rows.keys() - {"NAME"})
        assert list(rows) == ["NAME", "prefill-0", "prefill-1", "decode-0"]
        pids = {d["name"]: d["pid"] for d in told["daemons"]}
        assert pids == {d["name"]: d["pid"] for d in fleet.state()["daemons"] if d["role"] != "router"}
        report = json.loads(run_baton("doctor", "--json", "--url", fleet.url).stdout)
        told = [f for f in report["findings"] if f["check"] == "fleet"]
        assert len(told) == 6 and {f["level"] for f in told} == {"ok"}
        assert any("ready over posix/memory" in f["text"] for f in told)


def test_a_daemon_that_died():
    with running_fleet("--no-restart") as fleet:
        victim = next(d for d in fleet.state()["daemons"] if d["role"] == "decode")
        os.kill(victim["pid"], signal.SIGKILL)
        end = time.monotonic() + 10
        while "gone" not in (text := run_baton("ps", "--url", fleet.url).stdout):
            assert time.monotonic() < end, text
            time.sleep(0.05)
        assert "NOT SERVING" in text.splitlines()[0] and "PAIR" not in text
        done = run_baton("doctor", "--url", fleet.url, check=False)
        assert done.returncode == 1 and "no decode daemon is up" in done.stdout


def test_a_refused_pair_and_why(tmp_path):
    tcp_only = {"prefill.transports": "tcp", "decode.transports": "tcp"}
    with by_hand(tmp_path, settings=tcp_only) as (port, daemons):
        daemons[2].wait_log("allow_tcp")
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 10
        while "refused:" not in (text := run_baton("ps", "--url", url).stdout):
            assert time.monotonic() < end, text
            time.sleep(0.05)
        assert "NOT SERVING" in text and re.search(r"^prefill +decode +refused$", text, re.M), text
        assert re.search(r"^refused: prefill and decode: .*allow_tcp", text, re.M), text
        done = run_baton("doctor", "--url", url, check=False)
        assert done.returncode == 1 and re.search(r"problem +prefill, decode +refused: .*allow_tcp", done.stdout)


def test_nobody_there():
    for command in ("ps", "doctor"):
        done = run_baton(command, "--url", "http://127.0.0.1:9", check=False)
        assert done.returncode == 1 and "127.0.0.1:9" in done.stdout + done.stderr


class Stranger(http.server.BaseHTTPRequestHandler):
    """A server that is not a router; path says how."""

    answers = {"/a/fleet": b"<html>", "/b/fleet": b"[]", "/c/fleet": b'{"router": {}, "daemons": [1], "pairs": []}',
               "/d/fleet": b'{"router": {"name": 3}, "daemons": [{"name": "x\\u001b[2J"}], "pairs": [{}]}'}

    def do_GET(self):
        body = self.answers.get(self.path)
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *args):
        pass


def test_a_stranger_at_the_url():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for path in ("", "/a", "/b", "/c"):
            done = run_baton("ps", "--url", url + path, check=False)
            assert done.returncode == 1 and "is not a Baton router" in done.stderr, done.stderr
        # Missing fields and a name that would clear the screen are shown as they are.
        done = run_baton("ps", "--url", url + "/d")
        assert "\x1b" not in done.stdout and "x\\x1b[2J" in done.stdout
        server.shutdown()
