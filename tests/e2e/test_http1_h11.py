"""The HTTP/1.1 parser against h11: what we accept, h11 must accept, and read in the same way.

Random requests, valid and mutated, go through build/tests/http1_check in one run. We may be stricter than h11, never
laxer and never of another opinion about where a request ends: that is how requests are smuggled.
"""

import json
import os
import random
import struct
import subprocess

import h11

from conftest import BIN

CHECK = BIN.parent / "tests" / "http1_check"
CASES = 12000

TOKENS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "X-1"]
TARGETS = ["/", "/v1/completions", "/a?b=c&d", "http://h:1/x?y", "*", "/%20", "/" + "a" * 200]
NAMES = ["Accept", "X-A", "x-b", "Content-Type", "Connection", "Expect", "Transfer-Encoding", "Content-Length", "Host",
         "X_Y", "Trailer", "Upgrade"]
VALUES = ["", "a", "a b\tc", "close", "keep-alive", "100-continue", "chunked", "gzip, chunked", "5", "0", "+5", "5, 5",
          "\xe9", "a,b;c"]
SPLINTERS = [b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b";", b",", b"\r\n\r\n", b"0\r\n\r\n", b"\x7f", b"\xff",
             b"_", b"0x", b"+", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"HTTP/1.1", b"HTTP/1.0", b"GET / "]


def chunked(rng, body):
    out = b""
    while body:
        size = rng.randint(1, len(body))
        digits = rng.choice(["%x", "%X", "00%x"]) % size
        out += digits.encode() + rng.choice([b"", b"", b";a", b'; a="b c"']) + b"\r\n" + body[:size] + b"\r\n"
        body = body[size:]
    trailer = rng.choice([b"", b"", b"X-T: 1\r\n", b"X-T:\r\nX-U: \ta\r\n", b"Content-Length: 3\r\n"])
    return out + rng.choice([b"0", b"000", b"0;e"]) + b"\r\n" + trailer + b"\r\n"


def valid(rng):
    """A request that is mostly well-formed."""
    minor = rng.choice([1, 1, 1, 1, 0])
    fields = [("Host", rng.choice(["a", "a:8", "[::1]:80", ""]))] if rng.random() < 0.95 else []
    for _ in range(rng.randint(0, 3)):
        name = rng.choice(NAMES[:6] if rng.random() < 0.8 else NAMES)
        fields.append((name, rng.choice(VALUES[:6] if rng.random() < 0.8 else VALUES)))
    body = bytes(rng.randrange(256) for _ in range(rng.choice([0, 0, 1, 5, 40])))
    framing = rng.random()
    if framing < 0.35:
        fields.append(("Content-Length", str(len(body))))
    elif framing < 0.7 and minor == 1:
        fields.append((rng.choice(["Transfer-Encoding", "transfer-encoding"]), rng.choice(["chunked", "CHUNKED"])))
        body = chunked(rng, body)
    else:
        body = b""
    rng.shuffle(fields)
    head = f"{rng.choice(TOKENS)} {rng.choice(TARGETS)} HTTP/1.{minor}\r\n"
    for name, value in fields:
        head += f"{name}:{rng.choice(['', ' ', '  ', chr(9)])}{value}{rng.choice(['', '', ' '])}\r\n"
    return head.encode("latin-1") + b"\r\n" + body


def mutated(rng, data):
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        kind = rng.random()
        if kind < 0.4:
            data[at:at] = rng.choice(SPLINTERS)
        elif kind < 0.7:
            del data[at:at + rng.randint(1, 3)]
        elif kind < 0.9 and at < len(data):
            data[at] = rng.randrange(256)
        else:
            lines = bytes(data).split(b"\r\n")
            line = rng.randrange(len(lines))
            lines.insert(line, lines[line])
            data = bytearray(b"\r\n".join(lines))
    return bytes(data)


def case(rng):
    data = b"".join(valid(rng) for _ in range(rng.choice([1, 1, 2])))
    return data if rng.random() < 0.3 else mutated(rng, data)


def comparable(name, value):
    """h11 puts the transfer coding into lower case."""
    return (name, value.lower() if name == b"transfer-encoding" else value)


def ours(cases):
    stream = b"".join(struct.pack("<I", len(data)) + data for data in cases)
    done = subprocess.run([str(CHECK)], input=stream, capture_output=True, timeout=100, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(cases)
    return [json.loads(line) for line in lines]


def read_by_h11(data):
    """The next request of data as h11 reads it, and the bytes after it."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    request, body = None, b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return request, body, connection.trailing_data[0]
        else:
            raise AssertionError(f"h11 wants more: {event!r}")


def test_h11_agrees_with_every_request_we_accept():
    seed = int(os.environ.get("BATON_TEST_SEED", random.randrange(1 << 32)))
    print(f"seed {seed}")
    rng = random.Random(seed)
    cases = [case(rng) for _ in range(CASES)]
    accepted = 0
    for data, requests in zip(cases, ours(cases)):
        rest = data
        for request in requests:
            mine = (bytes.fromhex(request["method"]), bytes.fromhex(request["target"]), b"1.%d" % request["minor"],
                    [comparable(*map(bytes.fromhex, field)) for field in request["fields"]],
                    bytes.fromhex(request["body"]))
            try:
                theirs, body, rest = read_by_h11(rest)
            except h11.RemoteProtocolError as error:
                raise AssertionError(f"seed {seed}: we accept what h11 refuses ({error}): {data!r}") from error
            fields = [(bytes(name), bytes(value)) for name, value in theirs.headers]
            assert mine == (theirs.method, theirs.target, theirs.http_version, fields, body), f"seed {seed}: {data!r}"
            accepted += 1
    print(f"{accepted} requests accepted out of {CASES} inputs")
    assert accepted > CASES / 10
