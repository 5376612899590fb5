"""A small OpenAI-compatible server with chat completions, plain and streamed; it counts its requests."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from types import SimpleNamespace, TracebackType
from typing import Any


@dataclass
class Counts:
    """Counts of the requests that a server got."""

    calls: int = 0
    failed: int = 0
    dropped: int = 0  # the client went away before its answer
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usd: float = 0.0  # what the server bills
    prompts: list[Any] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)  # the last request

    @property
    def answered(self) -> int:
        return self.calls - self.failed - self.dropped


@dataclass
class OpenAIServer:
    """Serves on a thread of its own, as ``with OpenAIServer(answer=...) as server``.

    Attributes:
        answer: gives the answer to the last message, as a text or as a whole message, which may have a finish_reason;
            when it raises, the reply has the exception's `status`, or 500.
        delay_s: seconds before it answers.
        break_after: number of pieces of a stream after which the connection is dropped; None: it is not dropped.
        usage: report tokens, one for each word that was read or written.
        port: where it listens; 0: anywhere.
        prices: USD of a million tokens that are read, read from the prompt cache, and written; the server then caches
            prefixes as providers do, and bills. None: it does neither.
    """

    answer: Callable[[Any], str | dict[str, Any]] = lambda prompt: f"You said {prompt}"
    delay_s: float = 0.0
    break_after: int | None = None
    usage: bool = True
    port: int = 0
    prices: tuple[float, float, float] | None = None
    counts: Counts = field(default_factory=Counts)
    _cached: set[int] = field(default_factory=set)  # the prefixes that it read, in steps of tokens

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> OpenAIServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=4096), self._loop
        )
        self._server = started.result(10)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def close() -> None:
            self._server.close()
            open_ones = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in open_ones:
                task.cancel()
            await asyncio.gather(*open_ones, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                if not head.startswith("post /"):
                    self._write(
                        writer, HTTPStatus.NOT_FOUND, {"error": {"message": head.split("\r\n")[0], "type": "client"}}
                    )
                    continue
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                await self._respond(json.loads(await reader.readexactly(length)), reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:  # the server closes; raised on, it would be logged
            pass
        finally:
            writer.close()

    async def _respond(
        self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        prompt = request["messages"][-1]["content"]
        self.counts.calls += 1
        self.counts.prompts.append(prompt)
        self.counts.last = request
        waited = 0.0
        while waited < self.delay_s:
            await asyncio.sleep(min(0.01, self.delay_s - waited))
            waited += 0.01
            if reader.at_eof():
                self.counts.dropped += 1
                raise ConnectionError
        try:
            answer = self.answer(prompt)
        except Exception as error:  # noqa: BLE001 - a failure that a test asks for
            self.counts.failed += 1
            status = getattr(error, "status", HTTPStatus.INTERNAL_SERVER_ERROR)
            self._write(writer, status, {"error": {"message": str(error), "type": "server"}})
            return
        message = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
        text = message.get("content") or ""
        words = [word for message in request["messages"] for word in str(message.get("content")).split()]
        read, written = len(words), len(text.split())
        self.counts.input_tokens += read
        self.counts.output_tokens += written
        tokens: dict[str, Any] = {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }
        if self.prices is not None:
            cached, (full, from_cache, output) = self._read(words), self.prices
            tokens["prompt_tokens_details"] = {"cached_tokens": cached}
            self.counts.cached_tokens += cached
            self.counts.usd += ((read - cached) * full + cached * from_cache + written * output) / 1e6
        usage = tokens if self.usage else None
        base = {"id": "chatcmpl-1", "created": 0, "model": request["model"]}
        if request.get("stream"):
            self._stream(writer, text, base, usage if request.get("stream_options", {}).get("include_usage") else None)
            return
        finish = message.get("finish_reason") or ("tool_calls" if message.get("tool_calls") else "stop")
        choice = {"index": 0, "message": message, "finish_reason": finish}
        body = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
        self._write(writer, HTTPStatus.OK, body)

    def _read(self, words: list[str]) -> int:
        """The tokens of a prompt that the cache holds: 1,024 or more, in steps of 128. It then holds all."""
        prefixes = [hash(tuple(words[:end])) for end in range(128, len(words) + 1, 128)]
        held = next((place for place, one in enumerate(prefixes) if one not in self._cached), len(prefixes)) * 128
        self._cached.update(prefixes)
        return held if held >= 1024 else 0

    def _write(self, writer: asyncio.StreamWriter, status: HTTPStatus, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)

    def _stream(
        self, writer: asyncio.StreamWriter, text: str, base: dict[str, Any], usage: dict[str, Any] | None
    ) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())

        def send(event: str) -> None:
            data = f"data: {event}\n\n".encode()
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        def chunk(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> str:
            return json.dumps({**base, "object": "chat.completion.chunk", "choices": choices, "usage": usage})

        words = text.split(" ")
        for number, word in enumerate(words):
            if number == self.break_after:
                raise ConnectionError
            piece = word if number == len(words) - 1 else word + " "
            send(chunk([{"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}]))
        send(chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}]))
        if usage is not None:
            send(chunk([], usage))
        send("[DONE]")
        writer.write(b"0\r\n\r\n")


class StatusError(RuntimeError):
    """A reply with another HTTP status than 200."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class BareClient:
    """A minimal OpenAI client with one connection per call. The real one takes seconds for a thousand calls at once."""

    def __init__(self, url: str) -> None:
        self._port = int(url.split(":")[2].split("/", maxsplit=1)[0])
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    async def _create(self, **options: Any) -> Any:
        body = json.dumps(options).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answered = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            content = await reader.readexactly(int(answered.split("content-length:")[1].split("\r\n")[0]))
        finally:
            writer.close()
        reply = json.loads(content, object_hook=lambda fields: SimpleNamespace(**fields))
        if not answered.startswith("http/1.1 200"):
            raise StatusError(reply.error.message, int(answered.split()[1]))
        return reply
