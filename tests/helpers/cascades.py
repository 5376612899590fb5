"""Scripted back ends, confidences and routers, for the tests of cascades."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np

from routelearn.cascade.backends import Answer
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.confidence import Ask, Estimate
from routelearn.cascade.tiers import CascadeError, CascadeResult, Tier
from routelearn.routers.base import Router
from routelearn.routers.decision import Floats, Model
from routelearn.routers.query import Query

PRICES = {"weak": (1.0, 2.0), "middle": (3.0, 6.0), "strong": (10.0, 30.0)}
SLOW = 30.0  # never waited for


class Scripted:
    """A back end that does as it is told, and counts."""

    def __init__(
        self, does: str | Exception = "answer", delay_s: float = 0.0, tokens: tuple[int, int] | None = (100, 10)
    ) -> None:
        self.does = does
        self.delay_s = delay_s
        self.tokens = tokens
        self.asked: list[Query] = []
        self.cancelled = 0

    async def complete(self, query: Query) -> Answer:
        self.asked.append(query)
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)  # cleaning up takes time, and a second cancellation would disturb it
            self.cancelled += 1
            raise
        if isinstance(self.does, Exception):
            raise self.does
        return Answer(self.does, *(self.tokens or ()))

    async def stream(self, query: Query) -> AsyncIterator[str | Answer]:
        answer = await self.complete(query)
        for word in answer.text.split():
            yield word + " "
            await asyncio.sleep(0)
        yield answer


class Sure:
    """Gives the confidence it was made with; an exception is raised, a delay is waited for."""

    def __init__(self, confidence: float | Exception, delay_s: float = 0.0) -> None:
        self.confidence = confidence
        self.delay_s = delay_s
        self.priors: list[float | None] = []
        self.cancelled = threading.Event()

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        self.priors.append(prior)
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if isinstance(self.confidence, Exception):
            raise self.confidence
        return Estimate(self.confidence)


class Scores(Router):
    """A router whose score is the number in the query."""

    def __init__(self) -> None:
        super().__init__([Model("strong"), Model("weak")], "strong", "weak", threshold=0.6)

    def quality(self, queries: Sequence[Query]) -> Floats:
        scores = np.array([float(str(query).split()[-1]) for query in queries], np.float32)
        return np.stack([scores, 1 - scores], axis=1)


def tier(name: str, backend: Any, confidence: Any = None, **settings: Any) -> Tier:
    return Tier(Model(name, *PRICES[name]), backend, confidence, **settings)


def two(
    weak: Any,
    strong: Any,
    confidence: Any = 0.9,
    weak_settings: Any = None,
    strong_settings: Any = None,
    **settings: Any,
) -> Cascade:
    sure = Sure(confidence) if isinstance(confidence, (float, Exception)) else confidence
    return Cascade(
        [tier("weak", weak, sure, **(weak_settings or {})), tier("strong", strong, **(strong_settings or {}))],
        **settings,
    )


def wait_until(true: Callable[[], bool]) -> None:
    """What is cancelled ends soon, but not at once."""
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert true()


def models(result: CascadeResult | CascadeError) -> list[str]:
    return [call.model for call in result.calls]


class OnceQuick(Scripted):
    """Answers the first time at once, then never."""

    async def complete(self, query: Query) -> Answer:
        self.delay_s = SLOW if self.asked else 0
        return await super().complete(query)
