"""A queue with one worker thread: what waits is worked off together, and the event loop never waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Lane(Generic[T, R]):
    """Items of one event loop, worked off in the batches in which they happen to wait.

    An item that finds the lane idle starts at once; those that arrive meanwhile form the next batch. So nothing
    waits for a batch to fill, and the busier the service, the larger (and cheaper) the batches.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], *, max_items: int, name: str) -> None:
        """Start the worker.

        Args:
            work: gives one result an item, in order; when it raises, each item of the batch does.
            max_items: most items of one batch.
            name: of the thread.
        """
        self._work = work
        self._max_items = max_items
        self._queue: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._ready = threading.Condition()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def submit(self, item: T) -> R:
        """The result of one item; when the caller is cancelled before its turn, the item is dropped."""
        future: asyncio.Future[R] = self._loop.create_future()
        with self._ready:
            self._queue.append((item, future))
            self._ready.notify()
        return await future

    def close(self) -> None:
        """Let the worker end when its queue is empty, and wait for that."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            found: Sequence[R] | BaseException
            try:
                found = self._work([item for item, _ in batch])
            except BaseException as error:  # noqa: BLE001 - the thread outlives it, and those who wait are told
                found = error
            self._loop.call_soon_threadsafe(_resolve, [future for _, future in batch], found)

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        """The next items that somebody still waits for; none: closed."""
        with self._ready:
            while True:
                batch: list[tuple[T, asyncio.Future[R]]] = []
                while self._queue and len(batch) < self._max_items:
                    item, future = self._queue.popleft()
                    if not future.done():
                        batch.append((item, future))
                if batch or self._closed:
                    return batch
                self._ready.wait()


def _resolve(futures: Sequence[asyncio.Future[R]], found: Sequence[R] | BaseException) -> None:
    for place, future in enumerate(futures):
        if future.done():
            continue
        if isinstance(found, BaseException):
            future.set_exception(found)
        else:
            future.set_result(found[place])
