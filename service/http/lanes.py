"""The queues of the HTTP service: how many requests may wait, and one lane each for small and for large requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from starlette.types import Receive, Scope

from ..defaults import RequestLimits
from ..lane import Lane, LaneError
from .departure import Departure
from .replies import RequestError
from .request_limits import read_body
from .scorer import Job, Scorer

#: Bodies up to this many bytes take the lane of small requests; 32 prompts of 58 tokens have some 9,000.
SMALL_BODY = 16_384
#: Most small requests that are scored together.
SMALL_JOBS = 32


class Lanes:
    """Two lanes, each with a thread, so that small requests never stand behind large ones.

    Small requests are scored together, large ones one after the other.

    Attributes:
        waiting: requests that are being read, wait or are scored.
    """

    def __init__(self, scorer: Scorer, limits: RequestLimits) -> None:
        """Set what scores the requests, and their limits; the lanes are made by `open`."""
        self._scorer = scorer
        self._limits = limits
        self._small: Lane[Job, bytes] | None = None
        self._large: Lane[Job, bytes] | None = None
        self.waiting = 0

    def open(self) -> None:
        """Make the lanes; each thread starts with the first request of its lane."""
        self._small = Lane(self._scorer, max_items=SMALL_JOBS, name="routelearn-small")
        self._large = Lane(self._scorer, max_items=1, name="routelearn-large")

    def close(self) -> None:
        """Answer the requests that wait, and end the threads."""
        for lane in (self._small, self._large):
            if lane is not None:
                lane.close(finish=True)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request as waiting.

        Raises:
            RequestError: with 429 too many requests wait.
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
            RequestError: the request is wrong; with 429 too many requests wait, with 503 it waited too long,
                with 400 the client left: then it is not scored.
        """
        limit_s = self._limits.request_timeout_s
        with self.admitted():
            job = Job(kind, await read_body(scope, receive, self._limits))
            lane = self._large if len(job.body) > SMALL_BODY else self._small
            assert lane is not None
            departure = Departure(receive)
            try:
                return await lane.submit(job, limit_s)
            except asyncio.CancelledError:
                if not departure.departed:
                    raise
                raise RequestError(400, "disconnected", "the client left before the reply") from None
            except LaneError as error:
                if error.cause == "closed":
                    raise RequestError(503, "closing", "the service is being shut down") from None
                message = f"the request was not scored within {limit_s:g} s; try again later"
                raise RequestError(503, "timeout", message) from None
            finally:
                departure.end()
