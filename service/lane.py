"""A queue with one worker thread: items that wait are worked off together, and no event loop waits for the work."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

from ..routers.forks import renew_in_child

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

#: Why an item gets no result: too many items wait, its time limit passed, or the lane is closed.
LaneCause = Literal["busy", "timeout", "closed"]


class LaneError(Exception):
    """An item gets no result from its lane.

    Attributes:
        cause: "busy" (too many items wait), "timeout" (the time limit of the item passed) or "closed".

    Example:
        >>> import asyncio
        >>> from routelearn.service import Lane, LaneError
        >>> lane = Lane(lambda texts: [len(text) for text in texts], max_items=32, name="lengths")
        >>> lane.close(finish=True)
        >>> try:
        ...     asyncio.run(lane.submit("four", timeout_s=1.0))
        ... except LaneError as error:
        ...     print(error.cause)
        closed
    """

    def __init__(self, cause: LaneCause) -> None:
        super().__init__(cause)
        self.cause: LaneCause = cause


@dataclass(eq=False, slots=True)
class _Ticket(Generic[T, R]):
    """One item on its way from its event loop to the worker and back. Whoever claims the ticket first answers it."""

    item: T
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[R | Exception]
    claimed: bool = False


_Answer: TypeAlias = tuple[_Ticket[T, R], "R | Exception"]


class Lane(Generic[T, R]):
    """Works off items of any number of event loops and threads, in the batches in which the items happen to wait.

    An item that finds the lane idle starts at once. Items that arrive while a batch runs form the next batch. So no
    item waits for a batch to fill, and the busier the lane, the larger (and cheaper) the batches.

    Example:
        >>> import asyncio
        >>> from routelearn.service import Lane
        >>> lane = Lane(lambda texts: [len(text) for text in texts], max_items=32, name="lengths")
        >>> asyncio.run(lane.submit("four", timeout_s=1.0))
        4
        >>> lane.close(finish=True)
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R | Exception]],
        *,
        max_items: int,
        name: str,
        max_waiting: int | None = None,
        on_result: Callable[[T, R | Exception], None] | None = None,
    ) -> None:
        """Set up the queue; the thread starts with the first item.

        Args:
            work: gives one result per item, in order; a result that is an exception is raised for its item. When
                `work` itself raises an `Exception`, that exception is raised for each item of the batch. Anything
                else that it raises (SystemExit) ends the thread: the items of the batch time out, and the next item
                starts another thread.
            max_items: most items in one batch.
            name: name of the thread.
            max_waiting: most items that wait for a batch; None: no limit.
            on_result: called in the thread with each item and its result, before the item's caller gets the result;
                not called for items whose caller has left. It must not raise.
        """
        self._work = work
        self._max_items = max_items
        self._name = name
        self._max_waiting = max_waiting
        self._on_result = on_result
        self._closed = False
        self._begin()
        renew_in_child(self, Lane._begin)  # the items that wait are the parent's

    def _begin(self) -> None:
        self._queue: deque[_Ticket[T, R]] = deque()
        self._lock = threading.Lock()  # guards the queue, the claims, the worker, and whether the lane is closed
        self._changed = threading.Condition(self._lock)
        self._worker: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Number of items that wait for a batch."""
        return len(self._queue)

    async def submit(self, item: T, timeout_s: float) -> R:
        """The result of one item. When the caller is cancelled, the item is dropped, or its result is.

        Args:
            item: what to work on.
            timeout_s: longest that the caller waits, in seconds.

        Raises:
            LaneError: too many items wait, the time limit passed, or the lane is closed.
            Exception: the exception that `work` raised, or gave as the item's result.
        """
        loop = asyncio.get_running_loop()
        ticket: _Ticket[T, R] = _Ticket(item, loop, loop.create_future())
        self._enqueue(ticket)
        expiry = loop.call_later(timeout_s, self._expire, ticket)
        try:
            result = await ticket.answer
        except asyncio.CancelledError:
            self._claim(ticket)
            raise
        finally:
            expiry.cancel()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self, *, finish: bool, timeout_s: float | None = None) -> None:
        """Take no more items, and wait until the thread ends.

        Args:
            finish: True: the items that wait are worked off; False: their callers get a `LaneError`.
            timeout_s: longest to wait for the thread, in seconds; None: no limit.
        """
        with self._lock:
            self._closed = True
            dropped = [] if finish else list(self._queue)
            if not finish:
                self._queue.clear()
            self._changed.notify_all()
            worker = self._worker
        self._deliver([(ticket, LaneError("closed")) for ticket in dropped if self._claim(ticket)])
        if worker is not None and worker is not threading.current_thread():
            worker.join(timeout_s)

    def _enqueue(self, ticket: _Ticket[T, R]) -> None:
        with self._lock:
            if self._closed:
                raise LaneError("closed")
            if self._max_waiting is not None and len(self._queue) >= self._max_waiting:
                raise LaneError("busy")
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._worker.start()
            self._queue.append(ticket)
            self._changed.notify()

    def _claim(self, ticket: _Ticket[T, R]) -> bool:
        """Claim a ticket; False when somebody else has claimed it."""
        with self._lock:
            unclaimed = not ticket.claimed
            ticket.claimed = True
        return unclaimed

    def _expire(self, ticket: _Ticket[T, R]) -> None:
        if self._claim(ticket) and not ticket.answer.done():
            ticket.answer.set_result(LaneError("timeout"))

    def _run(self) -> None:
        while batch := self._next_batch():
            answers: list[_Answer[T, R]]
            try:
                results = self._work([ticket.item for ticket in batch])
                answers = list(zip(batch, results, strict=True))
            except Exception as error:  # noqa: BLE001 - the callers get it, and the thread goes on
                answers = [(ticket, error) for ticket in batch]
            with self._lock:
                answers = [answer for answer in answers if not answer[0].claimed]
                for ticket, _ in answers:
                    ticket.claimed = True
            if self._on_result is not None:
                for ticket, result in answers:
                    self._on_result(ticket.item, result)
            self._deliver(answers)

    def _next_batch(self) -> list[_Ticket[T, R]]:
        """The next tickets that nobody has claimed; an empty list when the lane is closed."""
        with self._lock:
            while True:
                batch: list[_Ticket[T, R]] = []
                while self._queue and len(batch) < self._max_items:
                    ticket = self._queue.popleft()
                    if not ticket.claimed:
                        batch.append(ticket)
                if batch or self._closed:
                    return batch
                self._changed.wait()

    def _deliver(self, answers: Sequence[_Answer[T, R]]) -> None:
        """Hand the results to the event loops that wait for them, with one call for each loop."""
        for loop in {ticket.loop for ticket, _ in answers}:
            try:
                loop.call_soon_threadsafe(_resolve, loop, answers)
            except RuntimeError:  # the loop is closed: nobody waits there any more
                logger.debug("an event loop was closed before its results came")


def _resolve(loop: asyncio.AbstractEventLoop, answers: Sequence[_Answer[T, R]]) -> None:
    for ticket, result in answers:
        if ticket.loop is loop and not ticket.answer.done():
            ticket.answer.set_result(result)
