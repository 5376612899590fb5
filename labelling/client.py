"""Asks one model: its client, its rate limit, and what its answers have been like."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from ..cascade.backends import answer_of, chat_messages
from ..cascade.charges import token_count
from ..policies.cost import query_tokens
from ..routers.errors import InferenceError, require
from ..routers.query import Query, estimate_tokens
from .candidates import Candidate
from .journal import Journal
from .question import Ask, Reply
from .rate_limit import RateLimit

#: Tokens of an answer, until the first one of a model is there and where the model's entry says nothing.
ASSUMED_OUTPUT_TOKENS = 300.0


class CandidateClient:
    """One candidate: its client, its rate limit, and what its answers have been like."""

    def __init__(self, candidate: Candidate, journal: Journal) -> None:
        self.candidate = candidate
        self.limit = RateLimit(candidate.requests_per_minute, candidate.tokens_per_minute)
        self.failures = 0
        self.in_flight = 0
        self.answers, self._written, self._squares = 0, 0.0, 0.0
        for entry in journal.entries.values():
            if entry.get("candidate") == candidate.name and entry.get("error") is None:
                self._count(entry["output_tokens"])
        openai: Any = require("openai", "labels")
        # Retries are ours, because every call is to be counted.
        self._client = openai.AsyncOpenAI(base_url=candidate.base_url, api_key=candidate.key(), max_retries=0)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def expected_tokens(self, query: Query) -> tuple[float, float]:
        """Tokens that the model is expected to read and to write."""
        written = self.candidate.expected_output_tokens or ASSUMED_OUTPUT_TOKENS
        if self.answers:
            written = self._written / self.answers
        return query_tokens(query), min(written, self.candidate.most_output_tokens or written)

    def reserved_cost(self, query: Query) -> float:
        """USD to reserve for a call: for an answer two standard deviations longer than usual. 0: no price is known."""
        read, written = self.expected_tokens(query)
        if self.answers > 1:
            mean = self._written / self.answers
            written += 2 * math.sqrt(max(self._squares / self.answers - mean**2, 0.0))
        return self.candidate.cost(read, min(written, self.candidate.most_output_tokens or written)) or 0.0

    @property
    def may_start(self) -> bool:
        """Whether another call may start within a budget: only so many at once as there are answers to judge by."""
        return self.in_flight < max(self.answers, 1)

    async def call(self, ask: Ask) -> Reply:
        """One try of one call.

        Raises:
            Exception: whatever the client raises; TimeoutError.
        """
        expected = sum(self.expected_tokens(ask.query))
        await self.limit.wait(expected)
        options = {**self.candidate.options, **ask.options}
        started = time.monotonic()
        reply = await asyncio.wait_for(
            self._client.chat.completions.create(
                model=self.candidate.served_as,
                messages=chat_messages(ask.query),
                # A service that knows this header answers a repeated call without charging for it.
                extra_headers={"Idempotency-Key": ask.key},
                timeout=self.candidate.timeout_s,
                **options,
            ),
            self.candidate.timeout_s,
        )
        found = self._read(reply, ask, time.monotonic() - started)
        self.limit.correct(found.input_tokens + found.output_tokens - expected)
        self._count(found.output_tokens)
        return found

    def _count(self, output_tokens: float) -> None:
        self.answers += 1
        self._written += output_tokens
        self._squares += output_tokens**2

    def _read(self, reply: Any, ask: Ask, latency_s: float) -> Reply:
        choices = getattr(reply, "choices", None)
        if not choices:
            raise InferenceError(f"the service replied with no completion, but with {str(reply)[:200]!r}")
        usage = getattr(reply, "usage", None)
        answer = answer_of(choices[0], usage)
        read, written = token_count(answer.input_tokens), token_count(answer.output_tokens)
        if written == 0 and answer.text.strip():  # no answer has no tokens
            written = None
        estimated = read is None or written is None
        read = query_tokens(ask.query) if read is None else read
        written = estimate_tokens(answer.text) if written is None else written
        cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
        served = getattr(reply, "model", None)
        return Reply(
            candidate=self.candidate.name,
            text=answer.text,
            input_tokens=read,
            cached_tokens=min(cached, read),
            output_tokens=written,
            reasoning_tokens=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
            estimated=estimated,
            cost_usd=self.candidate.cost(read, written, min(cached, read)),
            latency_s=round(latency_s, 4),
            finish_reason=answer.finish_reason,
            served_model=served if isinstance(served, str) else None,
        )


def _detail(usage: Any, group: str, name: str) -> int:
    """A number of tokens in a group of the usage; 0 where the service does not report it."""
    return token_count(getattr(getattr(usage, group, None), name, None)) or 0
