"""Accounts of a cascade: the budget that requests share, and the ledger of the calls of one request.

The ledger opens every call once, before it starts, and closes every call once,
however it ends.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..policies.cost import query_tokens
from ..routers.checks import check_number, check_seconds
from ..routers.errors import InputError
from ..routers.forks import new_lock
from ..routers.query import Query, estimate_tokens
from .backends import Answer, fault_of
from .charges import refused_unread, token_count
from .tiers import Call, Tier


class Budget:
    """A cap on the total cost of calls, for ever or within a rolling window. Safe to share between threads.

    A cascade reserves the expected cost of a call before it starts, and settles
    the true cost afterwards. Reserved money counts as spent, so calls that run
    at the same time cannot all take the last dollar. A call that turns out to
    cost more than expected is still paid: spending can exceed the cap by that
    difference, but no further. A call that was sent and gave no answer may cost
    whatever was expected, so a cascade settles it with the reserve, if not more.

    Example:
        >>> from routelearn.cascade import Budget
        >>> budget = Budget(max_usd=1.0)
        >>> ticket = budget.reserve(0.75)
        >>> print(budget.reserve(0.5))
        None
        >>> budget.settle(ticket, 0.25)
        >>> budget.spent_usd, budget.reserved_usd
        (0.25, 0.0)
    """

    def __init__(
        self, max_usd: float, window_s: float | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start with nothing spent.

        Args:
            max_usd: the cap in USD, 0 or more.
            window_s: only costs that were settled within this many seconds count. None: all costs count.
            clock: returns the time in seconds; it must never fall.

        Raises:
            InputError: a number is out of range.
        """
        check_number("max_usd", max_usd, "a finite number of USD, 0 or more")
        if max_usd < 0:
            raise InputError(f"max_usd is {max_usd}; expected a finite number of USD, 0 or more")
        check_seconds("window_s", window_s)
        self.max_usd = float(max_usd)
        self.window_s = window_s
        self._clock = clock
        self._lock = new_lock()
        self._reserved: dict[int, float] = {}
        self._next = 0
        self._spent = 0.0
        self._settled: deque[tuple[float, float]] = deque()  # (when, USD); only with a window

    def reserve(self, usd: float) -> int | None:
        """Reserve money for a call.

        Args:
            usd: the expected cost of the call, USD.

        Returns:
            A ticket for `settle`, or None when the budget has less than that left.

        Raises:
            InputError: the cost is below 0 or not finite.
        """
        _check_usd(usd)
        with self._lock:
            self._expire()
            if self._spent + math.fsum(self._reserved.values()) + usd > self.max_usd:
                return None
            self._next += 1
            self._reserved[self._next] = usd
            return self._next

    def settle(self, ticket: int, usd: float) -> None:
        """Replace the reserved money by the true cost of the call. A ticket can be settled once.

        Args:
            ticket: a ticket that `reserve` gave.
            usd: the true cost of the call, USD.

        Raises:
            InputError: the ticket is unknown, or was settled before; or the cost is below 0 or not finite, and then the
                money stays reserved.
        """
        _check_usd(usd)
        with self._lock:
            if self._reserved.pop(ticket, None) is None:
                raise InputError(
                    f"ticket {ticket} is not open; expected a ticket that `reserve` gave, to be settled once"
                )
            self._spent += usd
            if self.window_s is not None and usd:
                self._settled.append((self._clock(), usd))

    @property
    def spent_usd(self) -> float:
        """The settled costs in USD; with a window, those within the window."""
        with self._lock:
            self._expire()
            return self._spent

    @property
    def reserved_usd(self) -> float:
        """The money in USD that is reserved for calls that still run."""
        with self._lock:
            return math.fsum(self._reserved.values())

    def _expire(self) -> None:
        if self.window_s is None:
            return
        oldest = self._clock() - self.window_s
        expired = False
        while self._settled and self._settled[0][0] <= oldest:
            self._settled.popleft()
            expired = True
        if expired:  # the sum is computed again, so that no rounding error piles up
            self._spent = math.fsum(usd for _, usd in self._settled)


def _check_usd(usd: float) -> None:
    check_number("the cost", usd, "a finite number of 0 or more USD")
    if usd < 0:  # a sum with NaN in it is below every cap
        raise InputError(f"the cost is {usd} USD; expected a finite number of 0 or more")


class CallError(Exception):
    """A call gave no usable answer, or was never made."""


class CutOffError(CallError):
    """The limit on the length cut an answer off.

    Attributes:
        answer: what there is of it.
    """

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer


class OverBudgetError(CallError):
    """A call was never made, because a budget has too little left for it."""


@dataclass(eq=False)
class OpenCall:
    """A call that is running.

    Attributes:
        tier: the tier that is asked.
        query: the query that is sent.
        purpose: "answer" or "confidence", as in `Call`.
        tickets: the reservations for this call, one for each budget.
        reserved_usd: what each of them holds, USD.
        task: the running task.
        pieces: the pieces of the answer that have come so far, when the call is streamed.
        started: start of the call, in seconds of the monotonic clock.
        ended: the account of the call, once it is closed.
    """

    tier: Tier
    query: Query
    purpose: Literal["answer", "confidence"]
    tickets: list[tuple[Budget, int]]
    reserved_usd: float
    task: asyncio.Task[Answer]
    pieces: list[str]
    started: float = field(default_factory=time.monotonic)
    ended: Call | None = None


class Ledger:
    """The calls of one request, those that run and those that have ended.

    Attributes:
        calls: the calls that have ended, in the order in which they ended.
    """

    def __init__(self, budgets: Sequence[Budget]) -> None:
        """Start without any call.

        Args:
            budgets: a call is made only when each of these budgets has enough left.
        """
        self.calls: list[Call] = []
        self._budgets = budgets
        self._open: list[OpenCall] = []
        self._over = False

    async def call(
        self,
        tier: Tier,
        query: Query,
        purpose: Literal["answer", "confidence"],
        work: Coroutine[Any, Any, Answer],
        pieces: list[str],
        limit_s: float | None,
    ) -> Answer:
        """Make a call: reserve its expected cost, wait for the answer, and account for the outcome.

        Args:
            tier: the tier that is asked.
            query: the query that is sent.
            purpose: "answer" or "confidence", as in `Call`.
            work: the call itself. It is cancelled when the caller is cancelled, or when it takes too long.
            pieces: the list to which `work` appends the pieces of a streamed answer.
            limit_s: longest time in seconds that the call may take. None: no limit.

        Returns:
            The answer.

        Raises:
            OverBudgetError: the call was never made, because a budget has too little left for it.
            CutOffError: the limit on its length cut the answer off.
            CallError: the call gave no usable answer, or the request is over.
        """
        reserved_usd = tier.expected_cost(query) or 0.0
        try:
            tickets = self._reserve(tier, reserved_usd)
        except CallError:
            work.close()
            raise
        opened = OpenCall(tier, query, purpose, tickets, reserved_usd, asyncio.ensure_future(work), pieces)
        self._open.append(opened)
        stopped = "cancelled"
        try:
            await asyncio.wait({opened.task}, timeout=limit_s)
            stopped = f"no answer within {limit_s:.3g} s" if limit_s is not None else stopped
        finally:
            ended = self._close(opened, stopped)
        if ended.error is None:
            return opened.task.result()
        answer = _whole(opened.task)
        if answer is not None and answer.cut:
            raise CutOffError(ended.error, answer)
        raise CallError(ended.error)

    def _reserve(self, tier: Tier, expected_usd: float) -> list[tuple[Budget, int]]:
        if self._over:
            raise CallError("the request has ended")
        tickets: list[tuple[Budget, int]] = []
        for budget in self._budgets:
            ticket = budget.reserve(expected_usd)
            if ticket is None:
                for earlier, number in tickets:
                    earlier.settle(number, 0.0)
                raise OverBudgetError(f"{tier.model.name} does not fit into the budget")
            tickets.append((budget, ticket))
        return tickets

    def _close(self, opened: OpenCall, stopped: str) -> Call:
        """Close a call and account for its outcome; a call that still runs is cancelled.

        Args:
            opened: the call. Closing it again changes nothing. In particular it is not cancelled a second time, which
                would disturb its cleaning up.
            stopped: the error to note when the call still runs.
        """
        if opened.ended is not None:
            return opened.ended
        error, task, sent = None, opened.task, True
        answer = _whole(task)
        if not task.done():
            stop(task)
            error = stopped
        elif task.cancelled():  # the back end cancelled it, not the cascade
            error = "the back end cancelled the call"
        elif (raised := task.exception()) is not None:
            error, sent = f"{type(raised).__name__}: {raised}", not refused_unread(raised)
        elif answer is None:
            error = f"the back end gave {type(task.result()).__name__}; expected an Answer with a text"
        else:
            error = fault_of(answer)
        opened.ended = _account(opened, answer, error, sent)
        self._open.remove(opened)
        # Nobody knows how much a model has written whose answer did not come: up to the reserve, for all we know.
        least_usd = opened.reserved_usd if answer is None and sent else 0.0
        for budget, ticket in opened.tickets:
            budget.settle(ticket, max(least_usd, opened.ended.cost_usd or 0.0))
        self.calls.append(opened.ended)
        return opened.ended

    def close_all(self, stopped: str) -> None:
        """End the request: cancel the calls that still run, account for them, and open no further call."""
        self._over = True
        for opened in list(self._open):
            self._close(opened, stopped)

    def cost_usd(self) -> float | None:
        """USD of all calls that have ended, or None when the price of one is not known."""
        costs = [call.cost_usd for call in self.calls if call.cost_usd is not None]
        return math.fsum(costs) if len(costs) == len(self.calls) else None


def _whole(task: asyncio.Task[Answer]) -> Answer | None:
    """The answer of a call, if there is one."""
    if not task.done() or task.cancelled() or task.exception() is not None:
        return None
    answer: object = task.result()
    return answer if isinstance(answer, Answer) and isinstance(answer.text, str) else None


def _account(opened: OpenCall, answer: Answer | None, error: str | None, sent: bool) -> Call:
    if answer is not None:
        read, written, text = token_count(answer.input_tokens), token_count(answer.output_tokens), answer.text
    elif sent or opened.pieces:  # the model has read the query and written these pieces, if not more
        read, written, text = None, None, "".join(opened.pieces)
    else:
        read, written, text = 0, 0, ""
    estimated = read is None or written is None
    read = query_tokens(opened.query) if read is None else read
    written = estimate_tokens(text) if written is None else written
    return Call(
        model=opened.tier.model.name,
        purpose=opened.purpose,
        latency_s=time.monotonic() - opened.started,
        input_tokens=read,
        output_tokens=written,
        cost_usd=opened.tier.cost(read, written),
        estimated=estimated,
        error=error,
    )


def stop(task: asyncio.Task[Any]) -> None:
    """Cancel a task if it still runs, without waiting for it. Nobody hears of the exception that it may raise."""
    task.cancel()
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
