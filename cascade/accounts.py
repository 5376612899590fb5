"""The accounting of one request: every call is opened once, before it starts, and closed once, however it ends."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..routers.query import Query, estimate_tokens, transcript
from .backends import Answer
from .budget import Budget
from .tiers import Call, Tier


class CallError(Exception):
    """A call gave no answer, or was not made."""


class OverBudgetError(CallError):
    """A call was not made, because it does not fit into a budget."""


@dataclass(eq=False)
class OpenCall:
    """A call that runs.

    Attributes:
        tier: whom it asks.
        query: what it asks.
        purpose: see `Call`.
        tickets: what is set aside for it.
        task: the running call.
        heard: the pieces that have come, where it is streamed.
        started: when, by the monotonic clock.
        ended: its account, once it is closed.
    """

    tier: Tier
    query: Query
    purpose: Literal["answer", "confidence"]
    tickets: list[tuple[Budget, int]]
    task: asyncio.Task[Answer]
    heard: list[str]
    started: float = field(default_factory=time.monotonic)
    ended: Call | None = None


class Ledger:
    """The calls of one request, running and ended.

    Attributes:
        calls: the ended ones.
    """

    def __init__(self, budgets: Sequence[Budget]) -> None:
        """Start with no calls; every call must fit into all budgets."""
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
        heard: list[str],
        limit_s: float | None,
    ) -> Answer:
        """Make a call: set its expected cost aside, wait for it, and account for whatever has come of it.

        Args:
            tier: whom it asks.
            query: what it asks.
            purpose: see `Call`.
            work: the call itself; cancelled when the caller is, or when the time is over.
            heard: where it leaves the pieces that come, if it is streamed.
            limit_s: longest it may take.

        Raises:
            OverBudgetError: it was not made, because it does not fit.
            CallError: it gave no answer, or the request is over.
        """
        try:
            tickets = self._reserve(tier, query)
        except CallError:
            work.close()
            raise
        opened = OpenCall(tier, query, purpose, tickets, asyncio.ensure_future(work), heard)
        self._open.append(opened)
        stopped = "cancelled"
        try:
            await asyncio.wait({opened.task}, timeout=limit_s)
            stopped = f"no answer within {limit_s:.3g} s" if limit_s is not None else stopped
        finally:
            ended = self._close(opened, stopped)
        if ended.error is not None:
            raise CallError(ended.error)
        return opened.task.result()

    def _reserve(self, tier: Tier, query: Query) -> list[tuple[Budget, int]]:
        if self._over:
            raise CallError("the request is over")
        expected = tier.expected_cost(query) or 0.0
        tickets: list[tuple[Budget, int]] = []
        for budget in self._budgets:
            ticket = budget.reserve(expected)
            if ticket is None:
                for earlier, number in tickets:
                    earlier.settle(number, 0.0)
                raise OverBudgetError(f"{tier.model.name} does not fit into the budget")
            tickets.append((budget, ticket))
        return tickets

    def _close(self, opened: OpenCall, stopped: str) -> Call:
        """Account for a call by what has come of it; one that still runs is cancelled.

        Args:
            opened: the call; closing it again changes nothing (nor is it cancelled a second time, which would
                disturb its cleaning up).
            stopped: what to say of it when it still runs.
        """
        if opened.ended is not None:
            return opened.ended
        error, answer, task = None, None, opened.task
        if not task.done():
            stop(task)
            error = stopped
        elif task.cancelled():  # by its back end, not by us
            error = "the back end cancelled the call"
        elif (raised := task.exception()) is not None:
            error = f"{type(raised).__name__}: {raised}"
        elif not isinstance(answer := task.result(), Answer):
            error, answer = f"the back end gave {type(answer).__name__}; expected an Answer", None
        opened.ended = _account(opened, answer, error)
        self._open.remove(opened)
        for budget, ticket in opened.tickets:
            budget.settle(ticket, opened.ended.cost_usd or 0.0)
        self.calls.append(opened.ended)
        return opened.ended

    def close_all(self, stopped: str) -> None:
        """The request is over: what still runs is cancelled and accounted for, and nothing is opened any more."""
        self._over = True
        for opened in list(self._open):
            self._close(opened, stopped)

    def cost_usd(self) -> float | None:
        """USD of all ended calls, or None when the price of one is not known."""
        costs = [call.cost_usd for call in self.calls if call.cost_usd is not None]
        return math.fsum(costs) if len(costs) == len(self.calls) else None


def _account(opened: OpenCall, answer: Answer | None, error: str | None) -> Call:
    heard = "".join(opened.heard)
    if answer is not None:
        read, written, text = answer.input_tokens, answer.output_tokens, answer.text
    elif heard:  # a stream that broke: what came was read for and written
        read, written, text = None, None, heard
    else:
        read, written, text = 0, 0, ""
    estimated = read is None or written is None
    read = estimate_tokens(transcript(opened.query)) if read is None else read
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
    """Cancel a task, if it still runs, without waiting for it; what it raised is nobody's news any more."""
    task.cancel()
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
