"""A model in its own process that bills as providers do: input, cached input and output tokens by a prefix cache.

Run: python -m helpers.billing_upstream NAME PORT INPUT_PRICE CACHED_PRICE OUTPUT_PRICE LEDGER
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from helpers.litellm_proxy import environment, free_port

#: A provider's block of tokens, the least that it caches, and the characters that count as a token here.
BLOCK, LEAST, CHARACTERS = 128, 1024, 4
TTL_S = 300.0


@dataclass
class PrefixCache:
    """Blocks of prompts that were read, by the hash of all text up to their end."""

    seen: dict[bytes, float] = field(default_factory=dict)

    def read(self, text: str, now: float) -> int:
        """The tokens of a prompt that were cached; the prompt is cached from now on."""
        digest, cached, hit = hashlib.blake2b(digest_size=16), 0, True
        size = BLOCK * CHARACTERS
        for start in range(0, len(text) - size + 1, size):
            digest.update(text[start : start + size].encode())
            key = digest.digest()
            hit = hit and now - self.seen.get(key, -TTL_S - 1) <= TTL_S
            cached += BLOCK * hit
            self.seen[key] = now
        return cached if cached >= LEAST else 0


@dataclass
class Billing:
    """Answers chat completions, and writes a line for each into a ledger: what was read, written and charged."""

    name: str
    prices: tuple[float, float, float]
    ledger: Path
    cache: PrefixCache = field(default_factory=PrefixCache)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                if not head.startswith("post "):
                    writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                    continue
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                request = json.loads(await reader.readexactly(length))
                self._answer(request, writer)
                await writer.drain()
        writer.close()

    def _answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        messages = request["messages"]
        # Tools stand before the messages, as providers put them.
        text = json.dumps(request.get("tools") or "") + "".join(json.dumps(message) for message in messages)
        tokens, cached = -(-len(text) // CHARACTERS), self.cache.read(text, time.time())
        last = json.dumps(messages[-1])
        written = 50 + int(hashlib.blake2b((self.name + last).encode(), digest_size=4).hexdigest(), 16) % 400
        full, part, out = self.prices
        usd = ((tokens - cached) * full + cached * part + written * out) / 1e6
        content = json.dumps([message.get("content") for message in messages])
        line = {
            "input": tokens,
            "cached": cached,
            "output": written,
            "usd": usd,
            "image": "image_url" in content,
            "tools": bool(request.get("tools")),
            "began": str(messages[0].get("content"))[:60],
        }
        with self.ledger.open("a") as ledger:
            ledger.write(json.dumps(line) + "\n")
        usage = {
            "prompt_tokens": tokens,
            "completion_tokens": written,
            "total_tokens": tokens + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        message = {"role": "assistant", "content": self.name}
        base = {"id": f"chatcmpl-{os.urandom(8).hex()}", "created": int(time.time()), "model": self.name}
        if not request.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps({**base, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
            head = f"HTTP/1.1 {HTTPStatus.OK.value} OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
            writer.write(f"{head}\r\n\r\n".encode() + body)
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        events: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": message, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ]
        if (request.get("stream_options") or {}).get("include_usage"):
            events.append({"choices": [], "usage": usage})
        for event in [json.dumps({**base, "object": "chat.completion.chunk", **one}) for one in events] + ["[DONE]"]:
            data = f"data: {event}\n\n".encode()
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        writer.write(b"0\r\n\r\n")


@dataclass
class BillingUpstream:
    """The process, which can be killed and started again; its ledger survives, its cache does not.

    Attributes:
        name: of the model; its answers are this name.
        prices: USD for a million input, cached input and output tokens.
    """

    name: str
    prices: tuple[float, float, float]
    port: int = field(default_factory=free_port)

    def __enter__(self) -> BillingUpstream:
        handle, name = tempfile.mkstemp(prefix=f"{self.name}-", suffix=".jsonl")
        os.close(handle)
        self.ledger = Path(name)
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.ledger.unlink()

    def lines(self) -> list[dict[str, Any]]:
        """What was charged since the first start, or since `clear`."""
        return [json.loads(line) for line in self.ledger.read_text().splitlines()]

    def bill(self) -> float:
        """USD of all lines."""
        return float(sum(line["usd"] for line in self.lines()))

    def clear(self) -> None:
        """Begin a new ledger and an empty cache."""
        self.kill()
        self.ledger.write_text("")
        self.start()

    def start(self) -> None:
        """Start, and wait until it listens."""
        arguments = [self.name, str(self.port), *map(str, self.prices), str(self.ledger)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "helpers.billing_upstream", *arguments],
            cwd=Path(__file__).parents[1],
            env=environment(PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])),
        )
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} did not start")

    def kill(self) -> None:
        """Kill it in the midst of whatever it does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


async def _main(name: str, port: str, full: str, cached: str, written: str, ledger: str) -> None:
    billing = Billing(name, (float(full), float(cached), float(written)), Path(ledger))
    server = await asyncio.start_server(billing.serve, "127.0.0.1", int(port), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
