"""What openai-python and its users count on: completions whole and streamed, several choices, logprobs, stops, errors as
exceptions, tokenize and detokenize. Greedy answers are those of `baton generate` for the same token ids."""

import asyncio
import json
import math
import os
import signal
import socket
import time

import openai
import pytest

from conftest import MODEL as FOLDER
from conftest import generate, run_baton, running_fleet

PROMPT = "Once upon a time there was a little"
MODEL = "baton-demo"


@pytest.fixture(scope="module")
def client(shared_fleet):
    with openai.OpenAI(base_url=shared_fleet.url + "/v1", api_key="sk-any", max_retries=0) as made:
        yield made


def tokenize(fleet, **body):
    status, answer = fleet.post("/tokenize", body)
    assert status == 200, answer
    assert answer["count"] == len(answer["tokens"])
    return answer["tokens"]


def detokenize(fleet, tokens):
    status, answer = fleet.post("/detokenize", {"tokens": tokens})
    assert status == 200, answer
    return answer["prompt"]


def held_at_the_end(fleet):
    """What the fleet still holds when all of a test's requests have ended: nothing."""
    held = fleet.wait_idle()
    return held, fleet.metrics("router")["baton_requests_in_flight"]


# ---- several choices ----

def test_n_choices(client, shared_fleet):
    """Choice i is what seed + i gives alone; the prompt counts once."""
    answer = client.completions.create(model=MODEL, prompt=PROMPT, n=3, seed=40, max_tokens=12, temperature=1)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    alone = [client.completions.create(model=MODEL, prompt=PROMPT, seed=40 + i, max_tokens=12, temperature=1)
             for i in range(3)]
    assert [c.text for c in answer.choices] == [a.choices[0].text for a in alone]
    assert len({c.text for c in answer.choices}) > 1
    assert answer.usage.prompt_tokens == alone[0].usage.prompt_tokens
    assert answer.usage.completion_tokens == sum(a.usage.completion_tokens for a in alone)
    assert answer.id.startswith("cmpl-") and answer.object == "text_completion"
    assert abs(answer.created - time.time()) < 60 and answer.system_fingerprint.startswith("fp_")


def test_n_choices_of_several_prompts_streamed(client):
    prompts = [PROMPT, "The old man"]
    whole = client.completions.create(model=MODEL, prompt=prompts, n=2, best_of=2, seed=7, max_tokens=10)
    texts, ends = [""] * 4, [None] * 4
    for chunk in client.completions.create(model=MODEL, prompt=prompts, n=2, seed=7, max_tokens=10, stream=True):
        for choice in chunk.choices:
            assert ends[choice.index] is None, "nothing comes after the end"
            texts[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason
    assert texts == [c.text for c in whole.choices]
    assert ends == [c.finish_reason for c in whole.choices]
    alone = client.completions.create(model=MODEL, prompt=prompts[1], seed=8, max_tokens=10)
    assert texts[3] == alone.choices[0].text


def test_without_a_seed_choices_differ(client):
    answer = client.completions.create(model=MODEL, prompt=PROMPT, n=4, max_tokens=16, temperature=1)
    assert len({c.text for c in answer.choices}) > 1


def test_choices_share_their_prompt(client, shared_fleet):
    """The prompt is computed once; of the other choices only what no run of the prefix cache holds."""
    prompt = [2 + (i * i * 31 + 7 * i) % 4000 for i in range(1000)]
    before = shared_fleet.metrics("prefill")
    answer = client.completions.create(model=MODEL, prompt=prompt, n=4, max_tokens=3, seed=1, temperature=1)
    after = shared_fleet.metrics("prefill")
    computed = after["baton_prefill_tokens_total"] - before["baton_prefill_tokens_total"]
    assert 1000 <= computed <= 1000 + 3 * (1000 % 64)
    assert after["baton_cached_tokens_total"] - before["baton_cached_tokens_total"] == 3 * (1000 - 1000 % 64)
    assert answer.usage.prompt_tokens == 1000 and answer.usage.prompt_tokens_details.cached_tokens == 0
    alone = client.completions.create(model=MODEL, prompt=prompt, max_tokens=3, seed=4, temperature=1)
    assert answer.choices[3].text == alone.choices[0].text


def test_choices_that_wait_are_given_up_with_their_client():
    """Their places in the router are free again, however early the client left."""
    prompt = [2 + i % 4000 for i in range(1900)]
    body = json.dumps({"model": MODEL, "prompt": prompt, "n": 4, "max_tokens": 100}).encode()
    with running_fleet("--set", "router.requests=4") as fleet:
        for i in range(12):
            with socket.create_connection(("127.0.0.1", fleet.port)) as leaver:
                leaver.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                time.sleep(0.02 * (i % 6))
        assert held_at_the_end(fleet) == ({}, 0)
        status, answer = fleet.post("/v1/completions", {"model": MODEL, "prompt": prompt, "n": 4, "max_tokens": 2})
        assert status == 200 and len(answer["choices"]) == 4


def test_too_many_choices(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=[PROMPT] * 16, n=3)
    assert caught.value.param == "n" and "32" in caught.value.message


# ---- logprobs ----

def test_logprobs_of_completions(client, shared_fleet):
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12, temperature=0, logprobs=3)
    choice = answer.choices[0]
    assert "".join(choice.logprobs.tokens) == choice.text
    assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs) == 12
    for token, logprob, top, offset in zip(choice.logprobs.tokens, choice.logprobs.token_logprobs,
                                           choice.logprobs.top_logprobs, choice.logprobs.text_offset):
        assert choice.text[offset:offset + len(token)] == token
        assert len(top) == 3 and logprob == max(top.values()) == top[token] <= 0
    sampled = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=40, temperature=2, seed=3, logprobs=0)
    logprobs = sampled.choices[0].logprobs
    assert all(list(top) == [token] for token, top in zip(logprobs.tokens, logprobs.top_logprobs))
    none = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=1, temperature=0)
    assert none.choices[0].logprobs is None


def test_logprobs_are_the_engine_s(client, shared_fleet):
    """The first token's logprobs are the log-softmax of the logits of `baton logits`."""
    ids = tokenize(shared_fleet, prompt=PROMPT)
    answer = client.completions.create(model=MODEL, prompt=ids, max_tokens=1, temperature=0, logprobs=5)
    expected = sorted(log_softmax(ids), reverse=True)[:5]
    got = sorted(answer.choices[0].logprobs.top_logprobs[0].values(), reverse=True)
    assert got == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("stop", [None, "xx no such", "CUT"])
def test_streamed_logprobs_are_the_whole_ones(client, stop):
    """However text is held back for a stop string, each token's logprob comes once, in order and not before its text; what
    the stop string cut off has none."""
    plain = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=20, temperature=0).choices[0].text
    stop = plain[21:26] if stop == "CUT" else stop
    fields = dict(model=MODEL, prompt=PROMPT, max_tokens=20, temperature=0, logprobs=2, stop=stop)
    whole = client.completions.create(**fields).choices[0]
    text, tokens, logprobs, offsets = "", [], [], []
    for chunk in client.completions.create(**fields, stream=True):
        for choice in chunk.choices:
            text += choice.text
            if choice.logprobs is not None:
                tokens += choice.logprobs.tokens
                logprobs += choice.logprobs.token_logprobs
                offsets += choice.logprobs.text_offset
                assert len("".join(tokens[:-1])) <= len(text), "a token comes before its text"
    assert (text, tokens) == (whole.text, whole.logprobs.tokens)
    assert (logprobs, offsets) == (whole.logprobs.token_logprobs, whole.logprobs.text_offset)
    assert all(offset < len(text) for offset in offsets)
    if stop and stop in plain:
        assert text == plain[:plain.find(stop)] and whole.finish_reason == "stop"
        assert whole.stop_reason == stop


# ---- where it ends ----

def test_stop_across_tokens(client):
    full = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0).choices[0].text
    for begin, end in ((3, 9), (10, 24), (17, 19)):
        stop = full[begin:end]
        at = full.find(stop)
        for stops in (stop, ["never that", stop], [stop, stop + full[end:end + 3]]):
            answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0, stop=stops)
            assert (answer.choices[0].text, answer.choices[0].finish_reason) == (full[:at], "stop")
        kept = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0, stop=stop,
                                         extra_body={"include_stop_str_in_output": True})
        assert kept.choices[0].text == full[:at] + stop


def test_stop_token_ids(client, shared_fleet):
    plain, _ = shared_fleet.complete(PROMPT, max_tokens=12)
    token = plain["token_ids"][5]
    first = plain["token_ids"].index(token)
    choice, usage = shared_fleet.complete(PROMPT, max_tokens=12, stop_token_ids=[4095, token])
    assert choice["token_ids"] == plain["token_ids"][:first + 1] and choice["finish_reason"] == "stop"
    assert usage["completion_tokens"] == first + 1 and choice["stop_reason"] == token
    assert choice["text"] == shared_fleet.complete(PROMPT, max_tokens=first)[0]["text"]
    kept, _ = shared_fleet.complete(PROMPT, max_tokens=12, stop_token_ids=[token], include_stop_str_in_output=True)
    assert kept["text"] == shared_fleet.complete(PROMPT, max_tokens=first + 1)[0]["text"]


def test_min_tokens(client, shared_fleet):
    """Before so many tokens no stop string is looked for, nor may EOS or a stop token come."""
    plain, _ = shared_fleet.complete(PROMPT, max_tokens=24)
    early, late = plain["text"][:6], plain["text"][-9:-4]
    assert early not in plain["text"][1:]
    choice, _ = shared_fleet.complete(PROMPT, max_tokens=24, stop=[early], min_tokens=8)
    assert (choice["text"], choice["finish_reason"]) == (plain["text"], "length")
    choice, usage = shared_fleet.complete(PROMPT, max_tokens=24, stop=[early, late], min_tokens=8)
    assert choice["text"] == plain["text"][:plain["text"].index(late)] and usage["completion_tokens"] >= 8
    bias = {"1": 100}
    assert shared_fleet.complete(PROMPT, max_tokens=24, logit_bias=bias)[1]["completion_tokens"] == 1
    choice, usage = shared_fleet.complete(PROMPT, max_tokens=24, logit_bias=bias, min_tokens=9)
    assert usage["completion_tokens"] == 10 and choice["token_ids"][-1] == 1 and 1 not in choice["token_ids"][:-1]


# ---- echo ----

def test_echo(client, shared_fleet):
    plain = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=8, temperature=0).choices[0].text
    ids = tokenize(shared_fleet, prompt=PROMPT)
    for prompt in (PROMPT, ids):
        fields = dict(model=MODEL, prompt=prompt, max_tokens=8, temperature=0, echo=True, n=2)
        whole = client.completions.create(**fields)
        assert [c.text for c in whole.choices] == [PROMPT + plain] * 2
        texts = ["", ""]
        for chunk in client.completions.create(**fields, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
        assert texts == [PROMPT + plain] * 2


def log_softmax(ids):
    logits = json.loads(run_baton("logits", "--model", FOLDER, "--ids", ",".join(map(str, ids))).stdout)
    top = max(logits)
    total = top + math.log(sum(math.exp(x - top) for x in logits))
    return [x - total for x in logits]


@pytest.mark.parametrize("as_ids", [False, True])
def test_echoed_logprobs(client, shared_fleet, as_ids):
    """Each token of the prompt but the first has the logprob that the engine gives it after those before it."""
    ids = tokenize(shared_fleet, prompt=PROMPT)
    fields = dict(model=MODEL, prompt=ids if as_ids else PROMPT, max_tokens=3, temperature=0, echo=True, logprobs=2)
    choice = client.completions.create(**fields).choices[0]
    plain = client.completions.create(**{**fields, "echo": False}).choices[0]
    got = choice.logprobs
    assert choice.text == PROMPT + plain.text
    assert got.tokens[0] == "<|bos|>" and "".join(got.tokens[1:]) == choice.text
    assert got.tokens[len(ids):] == plain.logprobs.tokens
    assert got.token_logprobs[len(ids):] == pytest.approx(plain.logprobs.token_logprobs, abs=1e-3)
    assert got.token_logprobs[0] is None and got.top_logprobs[0] is None
    for i in range(1, len(ids)):
        expected = log_softmax(ids[:i])
        assert got.token_logprobs[i] == pytest.approx(expected[ids[i]], abs=1e-2)
        assert max(got.top_logprobs[i].values()) == pytest.approx(max(expected), abs=1e-2)
        assert got.tokens[i] in got.top_logprobs[i]
    for token, offset in zip(got.tokens[1:], got.text_offset[1:]):
        assert choice.text[offset:offset + len(token)] == token


@pytest.mark.parametrize("n, max_tokens", [(1, 0), (1, 4), (3, 4), (2, 0)])
def test_echoed_logprobs_streamed(client, n, max_tokens):
    """As the whole answer; with max_tokens 0 the prompt alone is scored."""
    fields = dict(model=MODEL, prompt=[PROMPT, "The old man looked at the sea"], max_tokens=max_tokens, temperature=0,
                  echo=True, logprobs=1, n=n)
    whole = client.completions.create(**fields)
    assert whole.usage.completion_tokens == 2 * n * max_tokens
    texts = [""] * 2 * n
    logprobs = [{"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []} for _ in texts]
    for chunk in client.completions.create(**fields, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            for name, values in logprobs[choice.index].items():
                values += getattr(choice.logprobs, name) if choice.logprobs else []
    assert texts == [c.text for c in whole.choices]
    assert logprobs == [c.logprobs.to_dict() for c in whole.choices]
    assert all(c.finish_reason == "length" for c in whole.choices)
    if max_tokens == 0:
        assert texts == [p for p in fields["prompt"] for _ in range(n)]


def test_scoring_many_tokens(client):
    """Again the same, whatever is in the prefix cache."""
    prompt = [2 + (i * i * 17 + 3 * i) % 4000 for i in range(1500)]
    fields = dict(model=MODEL, prompt=prompt, max_tokens=0, echo=True, logprobs=0)
    first, again = (client.completions.create(**fields).choices[0].logprobs for _ in range(2))
    assert first.token_logprobs == again.token_logprobs and len(first.tokens) == 1500
    assert first.token_logprobs.count(None) == 1
    total = client.completions.create(**{**fields, "prompt": prompt[:1400]}).choices[0].logprobs
    assert total.token_logprobs == pytest.approx(first.token_logprobs[:1400], abs=1e-2)


def test_no_tokens_need_an_echo(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=0)
    assert caught.value.param == "max_tokens"
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=0, echo=True)
    assert answer.choices[0].text == PROMPT and answer.usage.completion_tokens == 0


# ---- text ----

SNOWMAN = "\u2603"
SPLIT_PROMPT = [0, 20, 27, 34, 41]


@pytest.fixture(scope="module")
def split_fleet(tmp_path_factory, shared_fleet):
    """The demo model with a tokenizer in which two ids that end SPLIT_PROMPT and the one that follows them greedily are the
    three bytes of a snowman, and so are three that follow in a row later. Gives the fleet and both texts' ids."""
    folder = tmp_path_factory.mktemp("split")
    for file in ("config.json", "model.safetensors"):
        (folder / file).symlink_to(FOLDER / file)
    tokenizer = json.loads((FOLDER / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    names = {i: name for name, i in vocab.items()}
    output = generate("--ids", ",".join(map(str, SPLIT_PROMPT)), "--max-tokens", 40)["ids"]
    row = next(i for i in range(40) if len({*SPLIT_PROMPT, *output[:i], *output[i:i + 3]}) ==
               len({*SPLIT_PROMPT, *output[:i]}) + 3)
    for i, byte in zip(output[row:row + 3], tokenize(shared_fleet, prompt=SNOWMAN, add_special_tokens=False)):
        here = next(i for i, name in names.items() if name == names[byte])
        names[i], names[here] = names[here], names[i]
    tokenizer["model"]["vocab"] = {name: i for i, name in names.items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with running_fleet("--model", folder) as fleet:
        yield fleet, output, row


def test_unicode_split_across_tokens(split_fleet):
    """No event has a part of a character; the tokens that are parts have one offset and their bytes spelled out."""
    fleet, output, row = split_fleet
    fields = dict(max_tokens=40, ignore_eos=True, logprobs=0)
    whole, _ = fleet.complete(SPLIT_PROMPT, **fields)
    assert whole["token_ids"] == output and whole["text"].count(SNOWMAN) == 1 and "\ufffd" not in whole["text"]
    texts = {}
    for event in fleet.stream(SPLIT_PROMPT, **fields):
        for choice in event["choices"] if event != "[DONE]" else ():
            texts.update({len(texts): choice["text"]} if choice["token_ids"] else {})
    assert [texts[i] for i in range(row, row + 3)] == ["", "", SNOWMAN]
    logprobs = whole["logprobs"]
    assert logprobs["tokens"][row:row + 3] == ["bytes:\\xe2", "bytes:\\x98", "bytes:\\x83"]
    assert set(logprobs["text_offset"][row:row + 3]) == {whole["text"].index(SNOWMAN)}
    cut, _ = fleet.complete(SPLIT_PROMPT, **{**fields, "stop": SNOWMAN})
    assert cut["logprobs"]["tokens"] == logprobs["tokens"][:row] and cut["text"] + SNOWMAN in whole["text"]


def test_echo_goes_on_within_a_character(split_fleet):
    fleet, output, row = split_fleet
    prompt = SPLIT_PROMPT + output[:row + 2]
    plain, _ = fleet.complete(prompt, max_tokens=1)
    assert plain["text"] == "\ufffd"
    echoed, _ = fleet.complete(prompt, max_tokens=1, echo=True)
    assert echoed["token_ids"] == output[row + 2:row + 3] and echoed["text"].endswith(SNOWMAN)


# ---- usage, cancellation, errors ----

def test_usage_in_a_stream(client):
    fields = dict(model=MODEL, prompt=PROMPT, max_tokens=6, temperature=0, stream=True, extra_body={"ignore_eos": True})
    last = list(client.completions.create(**fields, stream_options={"include_usage": True}))
    assert last[-1].choices == [] and last[-1].usage.completion_tokens == 6
    assert all(chunk.usage is None for chunk in last[:-1])
    counts = [c.usage.completion_tokens for c in client.completions.create(
        **fields, stream_options={"include_usage": True, "continuous_usage_stats": True})]
    assert counts == sorted(counts) and counts[0] == 1 and counts[-1] == 6


def test_cancelled_in_mid_stream(client, shared_fleet):
    """A client that leaves cancels all of its choices."""
    before = shared_fleet.metrics("router")["baton_requests_cancelled_total"]
    with client.completions.create(model=MODEL, prompt=PROMPT, n=4, max_tokens=1500, stream=True,
                                   extra_body={"ignore_eos": True}) as stream:
        for _ in zip(range(6), stream):
            pass
    assert held_at_the_end(shared_fleet) == ({}, 0)
    assert shared_fleet.metrics("router")["baton_requests_cancelled_total"] - before == 4


def test_slow_reader_of_several_choices(shared_fleet):
    """A client that takes nothing loses its connection when its share of memory is used up, and all its choices end."""
    before = shared_fleet.metrics("router")
    body = json.dumps({"model": MODEL, "prompt": PROMPT, "n": 16, "max_tokens": 2000, "ignore_eos": True, "logprobs": 20,
                       "stream": True}).encode()
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", shared_fleet.port))
        reader.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            now = shared_fleet.metrics("router")
            if now["baton_requests_in_flight"] == 0 and now["baton_requests_accepted_total"] > \
                    before["baton_requests_accepted_total"]:
                break
            time.sleep(0.1)
    assert now["baton_requests_accepted_total"] - before["baton_requests_accepted_total"] == 16
    assert now["baton_requests_cancelled_total"] - before["baton_requests_cancelled_total"] == 16
    assert held_at_the_end(shared_fleet) == ({}, 0)


def unread_echo(fleet):
    """Asks for a prompt of 1,500 tokens back, ten times, with 20 alternatives to each: 6.8 MB, of which the kernel takes up to
    4. Reads nothing until all of it is made, and gives what came then, and whether it came whole."""
    body = json.dumps({"model": MODEL, "prompt": [list(range(5, 1505))], "n": 10, "echo": True, "logprobs": 20, "max_tokens": 2,
                       "ignore_eos": True, "stream": True}).encode()
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", fleet.port))
        before = fleet.metrics("router")["baton_requests_accepted_total"]
        reader.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        deadline = time.monotonic() + 240
        while True:
            now = fleet.metrics("router")
            if now["baton_requests_accepted_total"] == before + 10 and now["baton_requests_in_flight"] == 0:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        reader.settimeout(60)
        answer = b""
        try:
            while not answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
                piece = reader.recv(1 << 20)
                if not piece:
                    return answer, False
                answer += piece
        except ConnectionError:
            return answer, False
    return answer, True


def test_a_slow_reader_may_hold_what_it_asked_to_echo(shared_fleet):
    answer, whole = unread_echo(shared_fleet)
    assert whole and len(answer) > 5_000_000


def test_slow_readers_share_a_budget():
    with running_fleet("--set", "router.streams_bytes=1MiB") as fleet:
        answer, whole = unread_echo(fleet)
        assert not whole and len(answer) > 0
        assert fleet.complete(PROMPT, max_tokens=2)[1]["completion_tokens"] == 2


def wait_healthy(fleet):
    deadline = time.monotonic() + 30
    while True:
        connection = fleet.connect()
        connection.request("GET", "/health")
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            return
        assert time.monotonic() < deadline, fleet.log_text()
        time.sleep(0.05)


def test_failure_in_mid_stream():
    """The decode daemon dies: one error event, which openai-python raises, and nothing after it."""
    with running_fleet("--set", "router.attempts=1", "--set", "router.retry_wait=0") as fleet:
        fields = {"n": 3, "max_tokens": 1500, "ignore_eos": True}
        events = fleet.stream(PROMPT, **fields)
        next(events)
        os.kill(fleet.daemons("decode")[0]["pid"], signal.SIGKILL)
        errors = [event for event in events if event == "[DONE]" or "error" in event]
        assert len(errors) == 1 and errors[0]["error"]["code"] == "upstream_failed"
        assert fleet.metrics("router")["baton_requests_in_flight"] == 0
        wait_healthy(fleet)
        client = openai.OpenAI(base_url=fleet.url + "/v1", api_key="sk-any", max_retries=0)
        with pytest.raises(openai.APIError) as caught:
            with client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=1500, stream=True,
                                           extra_body={"ignore_eos": True}) as stream:
                for i, _ in enumerate(stream):
                    if i == 2:
                        os.kill(fleet.daemons("decode")[0]["pid"], signal.SIGKILL)
        assert caught.value.code == "upstream_failed"
        client.close()


def test_async_clients(shared_fleet):
    async def run():
        async with openai.AsyncOpenAI(base_url=shared_fleet.url + "/v1", api_key="sk-any", max_retries=0) as client:
            async def one(i):
                stream = await client.completions.create(model=MODEL, prompt=f"{PROMPT} {i}", max_tokens=8, temperature=0,
                                                         stream=True)
                return "".join([c.choices[0].text async for c in stream])
            return await asyncio.gather(*map(one, range(6)))
    expected = [generate("--prompt", f"{PROMPT} {i}", "--max-tokens", 8)["text"] for i in range(6)]
    assert asyncio.run(run()) == expected


def test_errors_are_the_client_s_exceptions(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("no/such model")
    assert caught.value.code == "model_not_found"
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=5000)
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "prompt"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=MODEL, input="x")


def test_rate_limit_is_its_exception():
    with running_fleet("--set", "router.requests=2") as fleet:
        client = openai.OpenAI(base_url=fleet.url + "/v1", api_key="sk-any", max_retries=0)
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model=MODEL, prompt=PROMPT, n=3)
        assert caught.value.param == "n"
        fields = dict(model=MODEL, prompt=PROMPT, max_tokens=1500, stream=True, extra_body={"ignore_eos": True})
        with client.completions.create(**fields, n=2) as stream:
            next(iter(stream))
            with pytest.raises(openai.RateLimitError) as caught:
                client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=1)
            assert caught.value.code == "rate_limit_exceeded"
            with pytest.raises(openai.RateLimitError):
                client.completions.create(model=MODEL, prompt=PROMPT, n=2, max_tokens=1)
        assert held_at_the_end(fleet) == ({}, 0)
        client.close()


@pytest.mark.parametrize("headers", [
    {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": ""},
    {"Content-Type": "application/jsonx"}, {"Content-Encoding": "gzip"},
])
@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/detokenize"])
def test_other_media_types_are_415(shared_fleet, path, headers):
    status, answer = shared_fleet.post(path, {"model": MODEL, "prompt": "a", "tokens": [5]}, headers=headers)
    assert status == 415 and answer["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x"])
def test_json_however_it_is_said(shared_fleet, type):
    assert shared_fleet.post("/tokenize", {"prompt": "a"}, headers={"Content-Type": type})[0] == 200


# ---- tokenize ----

def test_tokenize(shared_fleet):
    ids = tokenize(shared_fleet, prompt=PROMPT, model=MODEL)
    assert ids[0] == 0 and detokenize(shared_fleet, ids) == "<|bos|>" + PROMPT
    assert tokenize(shared_fleet, prompt=PROMPT, add_special_tokens=False) == ids[1:]
    _, usage = shared_fleet.complete(PROMPT, max_tokens=1)
    assert usage["prompt_tokens"] == len(ids)
    _, answer = shared_fleet.post("/tokenize", {"prompt": "a\u2603", "return_token_strs": True})
    assert answer["token_strs"] == ["<|bos|>", "a", "\\xe2", "\\x98", "\\x83"]
    assert answer["max_model_len"] == 2048
    assert tokenize(shared_fleet, prompt="", add_special_tokens=False) == []
    assert detokenize(shared_fleet, []) == ""


def test_special_tokens_in_text_stay_text(shared_fleet):
    ids = tokenize(shared_fleet, prompt="a<|eos|>b", add_special_tokens=False)
    assert 1 not in ids and detokenize(shared_fleet, ids) == "a<|eos|>b"
    assert detokenize(shared_fleet, [0, 1]) == "<|bos|><|eos|>"


@pytest.mark.parametrize("path, body, param", [
    ("/tokenize", {}, "prompt"), ("/tokenize", {"prompt": 5}, "prompt"), ("/tokenize", {"prompt": ["a"]}, "prompt"),
    ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "messages"),
    ("/tokenize", {"prompt": "a", "add_special_tokens": 1}, "add_special_tokens"),
    ("/tokenize", {"prompt": "a", "return_token_strs": 1}, "return_token_strs"),
    ("/tokenize", {"prompt": "a" * ((2 << 20) + 1)}, "prompt"),
    ("/detokenize", {}, "tokens"), ("/detokenize", {"tokens": "a"}, "tokens"), ("/detokenize", {"tokens": [4096]}, "tokens"),
    ("/detokenize", {"tokens": [-1]}, "tokens"), ("/detokenize", {"tokens": [1.5]}, "tokens"),
    ("/detokenize", {"tokens": [5] * 131073}, "tokens"),
])
def test_wrong_tokenize(shared_fleet, path, body, param):
    status, answer = shared_fleet.post(path, body)
    assert status == 400 and answer["error"]["param"] == param


def test_tokenize_of_another_model(shared_fleet):
    for path in ("/tokenize", "/detokenize"):
        status, answer = shared_fleet.post(path, {"model": "other", "prompt": "a", "tokens": [5]})
        assert status == 404 and answer["error"]["code"] == "model_not_found"
