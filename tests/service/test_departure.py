"""A client that leaves while its request waits is not scored; others are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from routelearn.service.defaults import RequestLimits
from routelearn.service.http.lanes import Lanes
from routelearn.service.http.replies import RequestError
from routelearn.service.http.scorer import Job

SCOPE = {"headers": [(b"content-type", b"application/json")]}


class Scoring:
    """Scores one batch at a time, behind a gate; it notes the bodies."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.gate = threading.Event()

    def __call__(self, jobs: Sequence[Job]) -> list[bytes | Exception]:
        self.bodies += [job.body for job in jobs]
        assert self.gate.wait(20)
        return [job.body.upper() for job in jobs]


class Client:
    """The `receive` of one request."""

    def __init__(self, body: bytes) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._messages.put_nowait({"type": "http.request", "body": body})

    async def __call__(self) -> dict[str, Any]:
        return await self._messages.get()

    def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})


def test_requests_of_departed_clients_are_not_scored() -> None:
    scoring = Scoring()
    lanes = Lanes(scoring, RequestLimits())  # type: ignore[arg-type]
    lanes.open()

    async def run() -> list[bytes | BaseException]:
        clients = [Client(b"body %d" % number) for number in range(10)]
        tasks = [asyncio.create_task(lanes.answer("route", SCOPE, clients[0]))]
        while not scoring.bodies:  # the first request is a batch; the others wait for it
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(lanes.answer("route", SCOPE, client)) for client in clients[1:]]
        for client in clients[5:]:
            client.leave()
        await asyncio.wait(tasks[5:], timeout=20)
        assert lanes.waiting == 5
        scoring.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(run())
    lanes.close()
    assert answers[:5] == [b"BODY %d" % number for number in range(5)]
    assert [answer.kind for answer in answers[5:] if isinstance(answer, RequestError)] == ["disconnected"] * 5
    assert not {b"body %d" % number for number in range(5, 10)} & set(scoring.bodies)
    assert lanes.waiting == 0


def test_a_request_that_is_cancelled_by_the_shutdown_stays_cancelled() -> None:
    scoring = Scoring()
    lanes = Lanes(scoring, RequestLimits())  # type: ignore[arg-type]
    lanes.open()

    async def run() -> None:
        task = asyncio.create_task(lanes.answer("route", SCOPE, Client(b"body")))
        while not scoring.bodies:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        scoring.gate.set()

    asyncio.run(run())
    lanes.close()
    assert lanes.waiting == 0


def test_watchers_end_with_their_requests() -> None:
    scoring = Scoring()
    lanes = Lanes(scoring, RequestLimits())  # type: ignore[arg-type]
    lanes.open()

    async def run() -> int:
        task = asyncio.create_task(lanes.answer("route", SCOPE, Client(b"body")))
        while len(asyncio.all_tasks()) < 3:  # this one, the request and its watcher
            await asyncio.sleep(0.001)
        scoring.gate.set()
        assert await task == b"BODY"
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    assert asyncio.run(run()) == 1
    lanes.close()
