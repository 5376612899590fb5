"""Who waits for the router, and how many may: small requests never stand behind large ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import anyio
from starlette.types import Receive, Scope

from ..lane import Lane
from .request_limits import Limits, RequestError, read_body
from .scorer import Job, Scorer

#: Bodies up to this many bytes take the lane of small requests; 32 prompts of 58 tokens have some 9,000.
SMALL_BODY = 16_384
#: Small requests that are scored together at most.
SMALL_JOBS = 32


class Lanes:
    """Two lanes, each with a thread: small requests are scored together, large ones one after the other.

    Attributes:
        waiting: requests that are being read, wait or are scored.
    """

    def __init__(self, scorer: Scorer, limits: Limits) -> None:
        """Take what works and the limits; the threads start with `open`."""
        self._scorer = scorer
        self._limits = limits
        self._lanes: tuple[Lane[Job, bytes | RequestError], Lane[Job, bytes | RequestError]] | None = None
        self.waiting = 0

    def open(self) -> None:
        """Start the threads, on the running event loop."""
        small = Lane(self._scorer, max_items=SMALL_JOBS, name="routelearn-small")
        self._lanes = small, Lane(self._scorer, max_items=1, name="routelearn-large")

    def close(self) -> None:
        """Let the threads end."""
        for lane in self._lanes or ():
            lane.close()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request as waiting.

        Raises:
            RequestError: 429 too many wait.
        """
        if self.waiting >= self._limits.max_waiting:
            raise RequestError(429, "too_many_requests", f"{self.waiting:,} requests wait; try again later")
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def answer(self, kind: Literal["route", "score"], scope: Scope, receive: Receive) -> bytes:
        """Read a request and answer it: the JSON body of the reply.

        Raises:
            RequestError: whatever is wrong with it; 429 too many wait; 503 it waited too long.
        """
        assert self._lanes is not None
        with self.admitted():
            job = Job(kind, await read_body(scope, receive, self._limits))
            try:
                with anyio.fail_after(self._limits.request_timeout_s):
                    reply = await self._lanes[len(job.body) > SMALL_BODY].submit(job)
            except TimeoutError:
                raise RequestError(
                    503, "timeout", f"not scored within {self._limits.request_timeout_s:g} s; try again later"
                ) from None
        if isinstance(reply, RequestError):
            raise reply
        return reply
