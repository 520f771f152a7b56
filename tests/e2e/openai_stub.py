"""An OpenAI-compatible server that streams tokens at known times and fails on request, for the tests of `baton bench`.

Every word of a text is one token, and a text costs `overhead` tokens more. What a request gets is a Plan; the stub notes for each
request when it was read and when each token was written, in seconds of the monotonic clock.
"""

import asyncio
import dataclasses
import json
import threading
import time


@dataclasses.dataclass
class Plan:
    first: float = 0.0  # seconds from the request to its first token
    gap: float = 0.0  # between events
    per_event: int = 1  # tokens in one
    status: int = 200
    tokens: int = None  # instead of max_tokens
    fail_after: int = None  # tokens, then `failure`
    failure: str = None  # "close", "error", "garbage", "hang", "no_done"
    ids: bool = True  # honours return_token_ids
    usage: bool = True


@dataclasses.dataclass
class Seen:
    """One measured request."""

    body: dict
    read: float
    written: list
    cut: bool = False


class Stub:
    """plan(number, body) -> Plan; number counts the streams, without the client's probes (at most 32 tokens in, 1 or 4 out)."""

    def __init__(self, plan=lambda number, body: Plan(), takes_ids=True, tokenize=False, overhead=3, context=100000):
        self.plan, self.takes_ids, self.tokenize, self.overhead, self.context = plan, takes_ids, tokenize, overhead, context
        self.seen, self.running, self.most_running = [], 0, 0
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self.thread.start()
        started.wait()

    def _run(self, started):
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=2048))
        self.port = self.server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()
        self.server.close()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.run_until_complete(asyncio.sleep(0))  # transports that were closed
        self.loop.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def _connection(self, reader, writer):
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _request(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split("\r\n")[0].split(" ")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        read = time.monotonic()
        if method == "GET" and path == "/v1/models":
            model = {"id": "stub", "object": "model", "owned_by": "tests", "max_model_len": self.context}
            return self._reply(writer, 200, {"object": "list", "data": [model]})
        if method == "GET" and path == "/version":
            return self._reply(writer, 200, {"version": "1.2.3"})
        if path == "/tokenize" and self.tokenize:
            count = len(json.loads(body)["prompt"].split())
            return self._reply(writer, 200, {"count": count, "tokens": list(range(500, 500 + count))})
        if path in ("/v1/completions", "/v1/chat/completions"):
            return await self._complete(writer, json.loads(body), read)
        return self._reply(writer, 404, {"error": {"message": f"there is no {path}"}})

    @staticmethod
    def _reply(writer, status, answer):
        data = json.dumps(answer).encode()
        writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        return True

    def prompt_tokens(self, body):
        if "messages" in body:
            return sum(len(m["content"].split()) for m in body["messages"]) + self.overhead
        prompt = body["prompt"]
        return len(prompt) if isinstance(prompt, list) else len(prompt.split()) + self.overhead

    async def _complete(self, writer, body, read):
        if isinstance(body.get("prompt"), list) and not self.takes_ids:
            return self._reply(writer, 400, {"error": {"message": "prompt must be a string"}})
        if not body.get("stream"):
            usage = {"prompt_tokens": self.prompt_tokens(body), "completion_tokens": 1, "total_tokens": 0}
            return self._reply(writer, 200, {"choices": [{"text": "x"}], "usage": usage})
        probe = body["max_tokens"] in (1, 4) and self.prompt_tokens(body) <= 32 + self.overhead
        seen = Seen(body, read, [])
        plan = Plan() if probe else self.plan(len(self.seen), body)
        if not probe:
            self.seen.append(seen)
        if plan.status != 200:
            return self._reply(writer, plan.status, {"error": {"message": "not now", "type": "x"}})
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._stream(writer, body, plan, seen)
        finally:
            self.running -= 1

    async def _stream(self, writer, body, plan, seen):
        chat = "messages" in body
        total = body["max_tokens"] if plan.tokens is None else plan.tokens
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

        def send(data):
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        def event(answer):
            send(b"data: " + json.dumps(answer).encode() + b"\n\n")

        sent, due = 0, seen.read + plan.first
        while sent < total:
            if plan.fail_after is not None and sent >= plan.fail_after:
                return await self._fail(writer, plan.failure, send, seen)
            await asyncio.sleep(max(0, due - time.monotonic()))
            if writer.is_closing():
                seen.cut = True
                raise ConnectionError
            count = min(plan.per_event, total - sent)
            choice = {"index": 0, "delta": {"content": " x" * count}} if chat else {"index": 0, "text": " x" * count}
            if plan.ids and body.get("return_token_ids"):
                choice["token_ids"] = [7] * count
            seen.written.append(time.monotonic())
            event({"choices": [choice]})
            sent, due = sent + count, due + plan.gap
        if plan.usage and body.get("stream_options", {}).get("include_usage"):
            event({"choices": [], "usage": {"prompt_tokens": self.prompt_tokens(body), "completion_tokens": sent}})
        send(b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        return True

    async def _fail(self, writer, failure, send, seen):
        if failure == "error":
            send(b'data: {"error": {"message": "lost a daemon"}}\n\n')
        elif failure == "garbage":
            send(b"data: {not json\n\n")
        elif failure == "hang":
            while not writer.is_closing():
                await asyncio.sleep(0.05)
            seen.cut = True
        if failure in ("error", "garbage", "no_done"):
            writer.write(b"0\r\n\r\n")
            return True
        await writer.drain()
        writer.transport.abort()
        return False
