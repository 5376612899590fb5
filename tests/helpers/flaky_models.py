"""OpenAI-compatible models that fail as services do: full, broken, cut connections, connections that hang."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from helpers.openai_server import OpenAIServer


@dataclass
class FlakyModels(OpenAIServer):
    """Answers like `OpenAIServer`, with faults drawn by a seed.

    Attributes:
        full: share of requests that get 429 with Retry-After.
        broken: share of requests that get 500.
        cut: share of requests whose connection is cut within the reply.
        hung: share of requests that are never answered.
        seed: of the faults.
        refusals: an error of `answer` becomes a reply with its status.
        served_model: the model that replies name; None: the one that was asked.
        answered: number of whole replies, by model and prompt.
        faults: number of faults, by kind.
    """

    full: float = 0.0
    broken: float = 0.0
    cut: float = 0.0
    hung: float = 0.0
    seed: int = 0
    refusals: bool = False
    served_model: str | None = None
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    async def _respond(
        self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        prompt = request["messages"][-1]["content"]
        # The same request meets another fault at each try, whatever the order of requests.
        self.counts.calls += 1
        chance = random.Random(f"{self.seed} {self.counts.calls}").random()
        kinds = {"full": self.full, "broken": self.broken, "cut": self.cut, "hung": self.hung}
        for kind, share in kinds.items():
            if chance < share:
                self.faults[kind] += 1
                await self._fail(kind, reader, writer)
                return
            chance -= share
        await asyncio.sleep(self.delay_s)
        try:
            text = self.reply(request["model"], prompt)
        except Exception as error:
            if not self.refusals:
                raise
            self._send(writer, getattr(error, "status", 500), {"error": {"message": str(error), "type": "request"}})
            return
        usage = self.tokens(request["model"], prompt, text)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        body = {"id": "c", "object": "chat.completion", "created": 0, "choices": [choice]}
        body["model"] = self.served_model or request["model"]
        self._send(writer, 200, {**body, "usage": usage})
        await writer.drain()
        self.answered[request["model"], prompt] += 1

    def reply(self, model: str, prompt: str) -> str:
        """The text of a model's answer."""
        text = self.answer(prompt)
        assert isinstance(text, str)
        return text

    def tokens(self, model: str, prompt: str, text: str) -> dict[str, Any]:
        """The usage of a call: a token for every four characters, and a part of the prompt from the cache."""
        read, written = len(prompt) // 4 + 7, len(text) // 4 + 1
        cached = {"cached_tokens": read // 3}
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": cached,
        }

    async def _fail(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if kind == "full":
            self._send(writer, 429, {"error": {"message": "slow down", "type": "requests"}}, "retry-after: 0.05\r\n")
        elif kind == "broken":
            self._send(writer, 500, {"error": {"message": "broken", "type": "server"}})
        elif kind == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{")
            await writer.drain()
            raise ConnectionError
        else:
            while not reader.at_eof():  # until the client gives up
                await asyncio.sleep(0.05)
            raise ConnectionError

    def _send(self, writer: asyncio.StreamWriter, status: int, body: dict[str, Any], headers: str = "") -> None:
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\n{headers}"
        writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
