"""What clients get wrong, and what they may count on: every answer is OpenAI's shape, and nothing of it harms the fleet."""

import http.client
import json
import socket

import openai
import pytest

from conftest import MODEL, generate, running_fleet

PROMPT = "Once upon a time there was a little"
OTHER = "The old man looked at the sea and"
BODY_BYTES_MAX = 4 << 20


@pytest.fixture(scope="module", autouse=True)
def unharmed(shared_fleet):
    """After all of it the fleet serves as before, with the processes that it had, and holds nothing."""
    before = {d["name"]: d["pid"] for d in shared_fleet.state()["daemons"]}
    yield
    assert {d["name"]: d["pid"] for d in shared_fleet.state()["daemons"]} == before, shared_fleet.log_text()
    choice, _ = shared_fleet.complete(PROMPT, max_tokens=12)
    assert choice["token_ids"] == generate("--prompt", PROMPT, "--max-tokens", 12)["ids"]
    assert shared_fleet.wait_idle() == {}
    assert shared_fleet.metrics("router")["baton_requests_in_flight"] == 0


def body(**fields):
    return {"model": "baton-demo", "prompt": PROMPT, "max_tokens": 4, "temperature": 0, **fields}


def error(fleet, request, status=400, path="/v1/completions"):
    """The error object of a request that must fail with this status."""
    got, answer = fleet.post(path, request)
    assert got == status, answer
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["message"]
    return answer["error"]


# ---- bodies ----

@pytest.mark.parametrize("raw", [
    b"", b"{", b"nonsense", b'{"model": "baton-demo", "prompt": "a"', b'{"model": "baton-demo",}', b"\x00" * 16,
    b'{"model": "baton-demo", "model": "baton-demo", "prompt": "a"}', b"[" * 100000, b'{"a":' * 100000,
    b'{"model": "baton-demo", "prompt": "a", "temperature": 1e999}',
    b'{"model": "baton-demo", "prompt": "a", "seed": 99999999999999999999}',
    b'{"model": "baton-demo", "prompt": "\xff\xfe"}', b'{"model": "baton-demo", "prompt": "\xc3"}',
    b'{"model": "baton-demo", "prompt": "\xed\xa0\x80"}', b'{"model": "baton-demo", "prompt": "\\ud800"}',
    b'{"model": "baton-demo", "prompt": "a\\u0000b"}', b'\xef\xbb\xbf{"model": "baton-demo", "prompt": "a"}',
    b"{} trailing",
])
def test_malformed_json(shared_fleet, raw):
    assert "JSON" in error(shared_fleet, raw)["message"]


@pytest.mark.parametrize("raw", [b"[]", b"7", b'"text"', b"null", b"true"])
def test_body_that_is_no_object(shared_fleet, raw):
    answer = error(shared_fleet, raw)
    assert "object" in answer["message"] or "JSON" in answer["message"]


WRONG = {
    "model": [5, True, [], {}],
    "prompt": [5, 1.5, True, {}, [True], [None], [{}], [1.5], [[1.5]], ["a", 5], [5, "a"], [[5], "a", None], [[[5]]]],
    "max_tokens": ["4", 1.5, True, [], {}, 0, -1, 2**40],
    "temperature": ["0", True, [], {}, -0.1, 2.1],
    "top_p": ["1", True, [], {}, -0.1, 1.1],
    "top_k": ["1", 1.5, True, [], {}, -2],
    "seed": ["1", 1.5, True, [], {}],
    "stop": [5, True, {}, [5], ["a", None], ["a"] * 17],
    "stream": ["true", 1, [], {}],
    "stream_options": ["x", 5, True, []],
    "ignore_eos": ["true", 1, [], {}],
    "return_token_ids": ["true", 1, [], {}],
    "n": ["1", True, [], {}, 0, 33],
    "best_of": ["1", True, [], {}, 0],
    "echo": ["true", 1, [], {}],
    "logprobs": ["1", True, [], {}, -1, 21],
    "stop_token_ids": ["1", 5, {}, [4096], [-1], ["a"], [1] * 17],
    "include_stop_str_in_output": ["true", 1],
    "skip_special_tokens": ["true", 1],
    "cache_salt": [5, ""],
    "response_format": ["text", 5, []],
    "suffix": [5, True, [], {}],
    "logit_bias": ["x", 5, True, [], {"4096": 1}, {"-1": 1}, {"05": 1}, {"": 1}, {" 5": 1}, {"5": "1"}, {"5": None},
                   {"5": 100.1}, {"5": -101}, {str(i): 1 for i in range(301)}],
    "presence_penalty": ["0", True, [], {}, 2.1, -2.1],
    "frequency_penalty": ["0", True, [], {}, 2.1, -2.1],
    "repetition_penalty": ["1", True, 0, -1, 101],
    "min_p": ["0", True, -0.1, 1.1],
    "min_tokens": ["0", True, -1, 1.5, 5],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_type_or_range(shared_fleet, name, value):
    answer = error(shared_fleet, body(**{name: value}))
    assert answer["type"] == "invalid_request_error"
    assert answer["param"] == name
    assert name in answer["message"] or answer["code"] == "context_length_exceeded"


@pytest.mark.parametrize("name, value", [
    ("best_of", 3), ("suffix", "end"), ("response_format", {"type": "json_object"}), ("guided_regex", "a+"),
    ("use_beam_search", True), ("prompt_logprobs", 1),
])
def test_unsupported_is_refused_by_name(shared_fleet, name, value):
    answer = error(shared_fleet, body(**{name: value}))
    assert answer["param"] == name and "not supported" in answer["message"]


def test_missing_fields(shared_fleet):
    assert error(shared_fleet, {"prompt": PROMPT})["param"] == "model"
    assert error(shared_fleet, {"model": "baton-demo"})["param"] == "prompt"


def test_unknown_model(shared_fleet):
    answer = error(shared_fleet, body(model="gpt-\"4\"\n"), 404)
    assert answer["code"] == "model_not_found" and answer["param"] == "model"
    assert "baton-demo" in answer["message"]


@pytest.mark.parametrize("fields", [
    {"prompt": "word " * 5000}, {"prompt": [5] * 2049}, {"prompt": [5] * 2045}, {"max_tokens": 2048},
    {"prompt": [PROMPT, "word " * 5000]}, {"prompt": [[5], [5] * 3000]}, {"prompt": "word " * 500000},
])
def test_too_long(shared_fleet, fields):
    answer = error(shared_fleet, body(**fields))
    assert answer["code"] == "context_length_exceeded"
    assert "maximum context length is 2048 tokens" in answer["message"]


def test_empty_text_is_the_begin_token(shared_fleet):
    """As OpenAI's server: the empty text is a prompt where the tokenizer begins every text with a token."""
    choice, usage = shared_fleet.complete("", max_tokens=4)
    assert usage["prompt_tokens"] == 1
    assert choice["token_ids"] == shared_fleet.complete([0], max_tokens=4)[0]["token_ids"]


@pytest.mark.parametrize("prompt", [[], [[]], [[5], []]])
def test_empty_prompt(shared_fleet, prompt):
    answer = error(shared_fleet, body(prompt=prompt))
    assert answer["param"] == "prompt" and "empty" in answer["message"]


@pytest.mark.parametrize("prompt", [[4096], [-1], [5, 2**32], [5, 2**40], [[5], [4096]], [2**63 - 1]])
def test_token_out_of_range(shared_fleet, prompt):
    assert "not an id below 4096" in error(shared_fleet, body(prompt=prompt))["message"]


def test_text_with_a_token_beyond_the_embeddings(tmp_path):
    """A tokenizer may know added tokens that the weights have no row for: the client's error, not a daemon's."""
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).symlink_to(MODEL / file)
    tokenizer = json.loads((MODEL / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({"id": 4096, "content": "<tool>", "special": False, "normalized": False,
                                      "single_word": False, "lstrip": False, "rstrip": False})
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with running_fleet("--model", tmp_path) as fleet:
        answer = error(fleet, body(model=tmp_path.name, prompt="a <tool> b"))
        assert answer["param"] == "prompt" and "4096" in answer["message"]


def test_too_many_prompts(shared_fleet):
    assert "16 prompts" in error(shared_fleet, body(prompt=["a"] * 17))["message"]


# ---- accepted ----

def test_unknown_and_null_fields_are_ignored(shared_fleet):
    expected, _ = shared_fleet.complete(PROMPT, max_tokens=4)
    nulls = dict.fromkeys(["n", "best_of", "echo", "logprobs", "suffix", "logit_bias", "presence_penalty",
                           "frequency_penalty", "stop", "seed", "top_p", "top_k", "stream", "stream_options", "user"])
    status, answer = shared_fleet.post("/v1/completions", {**body(), **nulls, "no_such_field": {"a": [1, None]}})
    assert status == 200, answer
    assert answer["choices"][0]["text"] == expected["text"]


def test_neutral_values_are_accepted(shared_fleet):
    status, answer = shared_fleet.post("/v1/completions", body(
        n=1, best_of=1, echo=False, suffix="", logit_bias={}, presence_penalty=0, frequency_penalty=0.0, user="me",
        stop=[], top_k=-1, top_p=0, temperature=0.0))
    assert status == 200, answer


def test_max_tokens_defaults_to_16(shared_fleet):
    _, answer = shared_fleet.post("/v1/completions", {"model": "baton-demo", "prompt": PROMPT, "ignore_eos": True})
    assert answer["usage"]["completion_tokens"] == 16
    _, answer = shared_fleet.post("/v1/completions", body(max_tokens=None, ignore_eos=True))
    assert answer["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize("value", ["Bearer sk-anything", "Basic dTpw", "", "\x80\xff"])
def test_any_authorization(shared_fleet, value):
    status, answer = shared_fleet.post("/v1/completions", body(), headers={"Authorization": value})
    assert status == 200, answer


# ---- answers ----

@pytest.mark.parametrize("stream", [False, True])
def test_several_prompts(shared_fleet, stream):
    prompts = [PROMPT, OTHER, PROMPT + " girl"]
    expected = [generate("--prompt", p, "--max-tokens", 8) for p in prompts]
    if stream:
        texts, tokens, reasons = [""] * 3, [[], [], []], [None] * 3
        events = list(shared_fleet.stream(prompts, max_tokens=8))
        assert events.count("[DONE]") == 1 and events[-1] == "[DONE]"
        for event in events[:-1]:
            for choice in event["choices"]:
                i = choice["index"]
                assert reasons[i] is None, "nothing comes after the end"
                texts[i] += choice["text"]
                tokens[i] += choice["token_ids"]
                reasons[i] = choice["finish_reason"]
    else:
        _, answer = shared_fleet.post("/v1/completions", body(prompt=prompts, max_tokens=8, return_token_ids=True))
        assert [c["index"] for c in answer["choices"]] == [0, 1, 2]
        texts, tokens, reasons = ([c[k] for c in answer["choices"]] for k in ("text", "token_ids", "finish_reason"))
        assert answer["usage"]["completion_tokens"] == 24
    assert texts == [e["text"] for e in expected]
    assert tokens == [e["ids"] for e in expected]
    assert reasons == ["length"] * 3


def test_token_prompts(shared_fleet):
    ids = [20 + 7 * i for i in range(30)]
    expected = generate("--ids", ",".join(map(str, ids)), "--max-tokens", 8)["ids"]
    choice, usage = shared_fleet.complete(ids, max_tokens=8)
    assert choice["token_ids"] == expected and usage["prompt_tokens"] == 30
    _, answer = shared_fleet.post("/v1/completions", body(prompt=[ids, ids[:7]], max_tokens=8, return_token_ids=True))
    assert answer["choices"][0]["token_ids"] == expected
    assert answer["usage"]["prompt_tokens"] == 37


def collect(fleet, prompt, **fields):
    text, reason = "", None
    for event in fleet.stream(prompt, **fields):
        if event != "[DONE]" and event["choices"]:
            text += event["choices"][0]["text"]
            reason = event["choices"][0]["finish_reason"] or reason
    return text, reason


def test_stop_strings(shared_fleet):
    """A stop string ends the text before itself, wherever token borders are, streamed or not, at any max_tokens."""
    full = shared_fleet.complete(PROMPT, max_tokens=24)[0]["text"]
    # Pieces of the text that begin and end in the middle of words, so that tokens do not match them.
    stops = [full[10:16], full[20:32], full[3:4], full[-5:-1], full[1:20]]
    for stop in stops + [["no such text", stops[0]], [stops[1], stops[0]]]:
        found = [full.find(s) for s in ([stop] if isinstance(stop, str) else stop) if s in full]
        expected = (full[:min(found)], "stop")
        choice, _ = shared_fleet.complete(PROMPT, max_tokens=24, stop=stop)
        assert (choice["text"], choice["finish_reason"]) == expected, stop
        assert collect(shared_fleet, PROMPT, max_tokens=24, stop=stop) == expected, stop
    choice, _ = shared_fleet.complete(PROMPT, max_tokens=24, stop="no such text")
    assert (choice["text"], choice["finish_reason"]) == (full, "length")


def test_stop_string_with_the_last_token(shared_fleet):
    """Both ends fall on one token: one ending, and the router lives."""
    for n in range(1, 8):
        text = shared_fleet.complete(PROMPT, max_tokens=n)[0]["text"]
        choice, usage = shared_fleet.complete(PROMPT, max_tokens=n, stop=text[-2:])
        assert choice["finish_reason"] == "stop" and text.startswith(choice["text"])
        assert usage["completion_tokens"] <= n
        assert collect(shared_fleet, PROMPT, max_tokens=n, stop=text[-2:]) == (choice["text"], "stop")


def test_seed_decides(shared_fleet):
    def run(**fields):
        return shared_fleet.complete(PROMPT, max_tokens=16, temperature=1.0, ignore_eos=True, **fields)[0]["token_ids"]
    assert run(seed=7) == run(seed=7)
    assert run(seed=-7) == run(seed=-7)
    assert run(seed=7) != run(seed=8)
    assert len({tuple(run()) for _ in range(3)}) == 3, "without a seed each request draws its own"
    assert run(seed=7, top_k=1) == shared_fleet.complete(PROMPT, max_tokens=16, ignore_eos=True)[0]["token_ids"]


def test_include_usage(shared_fleet):
    events = list(shared_fleet.stream(PROMPT, max_tokens=5, stream_options={"include_usage": True}))
    assert all(e["usage"] is None for e in events[:-2])
    assert events[-2]["choices"] == [] and events[-2]["usage"]["completion_tokens"] == 5
    assert all("usage" not in e for e in list(shared_fleet.stream(PROMPT, max_tokens=5))[:-1])
    error(shared_fleet, body(stream_options={"include_usage": True}))


def test_openai_client(shared_fleet):
    client = openai.OpenAI(base_url=shared_fleet.url + "/v1", api_key="sk-any", max_retries=0)
    assert [m.id for m in client.models.list()] == ["baton-demo"]
    expected = generate("--prompt", PROMPT, "--max-tokens", 12)["text"]
    whole = client.completions.create(model="baton-demo", prompt=PROMPT, max_tokens=12, temperature=0)
    assert whole.choices[0].text == expected and whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 12
    chunks = list(client.completions.create(model="baton-demo", prompt=PROMPT, max_tokens=12, temperature=0, stream=True,
                                            stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == expected
    assert chunks[-1].usage.completion_tokens == 12
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="other", prompt=PROMPT)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="baton-demo", prompt=PROMPT, best_of=3)
    assert caught.value.param == "best_of"


# ---- HTTP ----

@pytest.mark.parametrize("method, path, status", [
    ("GET", "/", 404), ("POST", "/v1/embeddings", 404), ("GET", "/v1/chat/completions", 405), ("GET", "/v1/models/other", 404),
    ("GET", "/v1/completions", 405), ("DELETE", "/v1/models", 405), ("POST", "/health", 405), ("PUT", "/metrics", 405),
])
def test_no_such_path_or_method(shared_fleet, method, path, status):
    connection = shared_fleet.connect()
    connection.request(method, path, b"{}" if method in ("POST", "PUT") else None)
    response = connection.getresponse()
    answer = json.loads(response.read())
    assert response.status == status
    assert answer["error"]["type"] == "invalid_request_error"
    if status == 405:
        assert response.headers["Allow"] in ("GET", "POST")
    connection.close()


def test_one_model(shared_fleet):
    connection = shared_fleet.connect()
    connection.request("GET", "/v1/models/baton-demo")
    assert json.loads(connection.getresponse().read())["id"] == "baton-demo"
    connection.close()


class Raw:
    """A socket and the bytes that came of it."""

    def __init__(self, fleet):
        self.socket = socket.create_connection(("127.0.0.1", fleet.port), timeout=20)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def answer(self):
        """Status line, and the body by its Content-Length; None at the end of the connection."""
        line = self.file.readline()
        if not line:
            return None
        headers = http.client.parse_headers(self.file)
        return int(line.split()[1]), self.file.read(int(headers.get("Content-Length", 0)))


def raw_post(request, *headers):
    data = json.dumps(request).encode()
    head = ["POST /v1/completions HTTP/1.1", "Host: x", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n", data


def test_expect_continue(shared_fleet):
    head, data = raw_post(body(), "Expect: 100-continue")
    with Raw(shared_fleet) as raw:
        raw.send(head)
        assert raw.answer() == (100, b"")
        raw.send(data)
        status, answer = raw.answer()
        assert status == 200 and json.loads(answer)["choices"]


def test_expect_continue_of_too_large_a_body(shared_fleet):
    """The final answer comes instead of 100, before the body was sent."""
    with Raw(shared_fleet) as raw:
        raw.send(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5000000\r\n\r\n")
        assert raw.answer()[0] == 413


def test_keep_alive(shared_fleet):
    head, data = raw_post(body(max_tokens=1))
    with Raw(shared_fleet) as raw:
        for _ in range(5):
            raw.send(head + data)
            assert raw.answer()[0] == 200
            raw.send(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            assert raw.answer()[0] == 200
            bad_head, bad_data = raw_post(body(max_tokens="x"))
            raw.send(bad_head + bad_data)
            assert raw.answer()[0] == 400


def test_pipelining(shared_fleet):
    """Answers come in the order of the requests, errors among them."""
    counts = [3, 1, 5, 2]
    with Raw(shared_fleet) as raw:
        for n in counts:
            raw.send(b"".join(raw_post(body(max_tokens=n, ignore_eos=True))))
        raw.send(b"".join(raw_post(body(model="other"))))
        raw.send(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for n in counts:
            status, answer = raw.answer()
            assert status == 200 and json.loads(answer)["usage"]["completion_tokens"] == n
        assert raw.answer()[0] == 404
        assert raw.answer()[0] == 200
        assert raw.answer() is None


def test_body_sizes(shared_fleet):
    """4 MiB are taken, one byte more is 413."""
    frame = json.dumps(body(padding="")).encode()
    largest = json.dumps(body(padding="x" * (BODY_BYTES_MAX - len(frame)))).encode()
    assert len(largest) == BODY_BYTES_MAX
    assert shared_fleet.post("/v1/completions", largest)[0] == 200
    connection = shared_fleet.connect()
    try:
        connection.request("POST", "/v1/completions", largest + b" ")
    except (BrokenPipeError, ConnectionResetError):
        pass # The answer may come, and the connection end, before all was sent.
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize("data", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"\x00" * 100 + b"\n", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 10000 + b"\r\n", b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
])
def test_garbage(shared_fleet, data):
    """An error or a closed connection, at once."""
    with Raw(shared_fleet) as raw:
        try:
            raw.send(data)
            answer = raw.answer()
            assert answer is None or 400 <= answer[0] < 600
            if answer is not None:
                assert raw.answer() is None
        except (BrokenPipeError, ConnectionResetError):
            pass


def test_half_a_request(shared_fleet):
    """A client that leaves in the head or in the body takes nothing with it."""
    head, data = raw_post(body())
    for part in (head[:20], head, head + data[:5]):
        with Raw(shared_fleet) as raw:
            raw.send(part)


def test_chunked_body(shared_fleet):
    data = json.dumps(body()).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(data[i:i + 7]), data[i:i + 7]) for i in range(0, len(data), 7))
    with Raw(shared_fleet) as raw:
        raw.send(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert raw.answer()[0] == 200


def test_health_and_metrics(shared_fleet):
    connection = shared_fleet.connect()
    for path in ("/health", "/metrics"):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == 200
    connection.close()


def test_client_leaves(shared_fleet):
    """Gone in mid-stream, or before the answer: cancelled everywhere, so nothing is held afterwards."""
    before = shared_fleet.metrics("router")["baton_requests_cancelled_total"]
    for _ in range(3):
        stream = shared_fleet.stream(PROMPT, max_tokens=1500, ignore_eos=True)
        next(stream)
        stream.close()
    for _ in range(3):
        with Raw(shared_fleet) as raw:
            raw.send(b"".join(raw_post(body(max_tokens=1500, ignore_eos=True))))
    assert shared_fleet.wait_idle() == {}
    assert shared_fleet.metrics("router")["baton_requests_cancelled_total"] - before >= 3
