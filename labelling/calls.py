"""Asks models many questions: within rates and a budget, with retries, each answer in a journal as it comes."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from ..cascade.accounts import Budget
from ..cascade.threads import run_in_background
from ..routers.errors import InferenceError, InputError
from .candidates import Candidate
from .client import CandidateClient
from .journal import Journal
from .question import Ask, Reply
from .retries import Fault, fault_in, wait_before

#: Tries of one call.
TRIES = 10
#: Tries after which a service that was never reached is taken for a wrong address.
FIRST_TRIES = 4
#: A model is given up after so many calls in a row that failed in every try.
MOST_FAILURES = 3


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run of calls ended.

    Attributes:
        replies: by key, those of earlier runs included; a reply may be an error.
        missing: keys without a reply.
        stopped: why the run ended before all was asked; None: it did not.
        spent_usd: USD of all replies that were asked for here or earlier.
        failed_calls: calls that failed and were tried again, or given up.
        lost_calls: those among them that were sent and gave no answer; the service may charge for them.
        last_error: the model and the words of the last call that failed; None: none did.

    Example:
        >>> from routelearn.labelling import Outcome, Reply
        >>> replies = {"k1": Reply(candidate="small", text="144", cost_usd=0.0001)}
        >>> outcome = Outcome(
        ...     replies=replies, missing=["k2"], stopped=None, spent_usd=0.0001, failed_calls=1, lost_calls=0
        ... )
        >>> len(outcome.replies), len(outcome.missing)
        (1, 1)
    """

    replies: Mapping[str, Reply]
    missing: Sequence[str]
    stopped: str | None
    spent_usd: float
    failed_calls: int
    lost_calls: int
    last_error: str | None = None


@dataclass
class Progress:
    """How far a run of calls is.

    Attributes:
        total: number of questions.
        done: questions with a reply, those of earlier runs included.
        before: those of earlier runs.
        spent_usd: USD so far, earlier runs included.
        failed_calls: calls that failed.
    """

    total: int
    done: int = 0
    before: int = 0
    spent_usd: float = 0.0
    failed_calls: int = 0


def ask_all(
    asks: Sequence[Ask],
    candidates: Sequence[Candidate],
    journal: Journal,
    *,
    max_usd: float | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Outcome:
    """Ask every question that the journal has no reply to.

    Args:
        asks: questions, with distinct keys.
        candidates: the models that they name.
        journal: gets each reply as it comes.
        max_usd: no call starts that is expected to exceed this sum, which earlier replies to these questions and all
            other lines of the journal count to; None: no limit.
        on_progress: called after each reply.

    Returns:
        The outcome. A budget that is used up ends the run early, which is no error.

    Raises:
        InputError: a key for a service is not set, a service refuses the key or does not know the model, or there is a
            budget and a model without prices.
        InferenceError: a model answers nothing.
        MissingExtraError: openai is not installed.
    """
    return run_in_background(lambda: _Run(asks, candidates, journal, max_usd, on_progress).run())


class _Run:
    """One run of calls, on one event loop."""

    def __init__(
        self,
        asks: Sequence[Ask],
        candidates: Sequence[Candidate],
        journal: Journal,
        max_usd: float | None,
        on_progress: Callable[[Progress], object] | None,
    ) -> None:
        self._candidates = {one.name: one for one in candidates}
        self._asks = {ask.key: ask for ask in asks}
        self._journal = journal
        costs = [entry.get("cost_usd") or 0.0 for entry in journal.entries.values()]
        self._budget = None if max_usd is None else Budget(max_usd)
        self._spent = sum(costs)
        if self._budget is not None:
            ticket = self._budget.reserve(0.0)
            if ticket is not None:
                self._budget.settle(ticket, self._spent)
            unpriced = [one.name for one in candidates if one.cost(1, 1) is None]
            if unpriced:
                raise InputError(
                    f"there is a budget, but no price is known for {unpriced}; expected input_price and output_price"
                )
        self._on_progress = on_progress
        self._queues = {
            name: deque(ask for ask in asks if ask.candidate == name and ask.key not in journal.entries)
            for name in self._candidates
        }
        left = sum(map(len, self._queues.values()))
        done = len(self._asks) - left
        self._progress = Progress(len(self._asks), done, done, self._spent)
        self._lost_calls = 0
        self._last_error: str | None = None
        self._stopped: str | None = None
        self._settled = asyncio.Event()
        self._models = {
            name: CandidateClient(one, journal) for name, one in self._candidates.items() if self._queues[name]
        }

    async def run(self) -> Outcome:
        """Ask all."""
        if self._on_progress is not None:
            self._on_progress(self._progress)
        workers = [
            asyncio.ensure_future(self._work(model, self._queues[name]))
            for name, model in self._models.items()
            for _ in range(min(model.candidate.concurrency, len(self._queues[name])))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            for model in self._models.values():
                await model.close()
        entries = self._journal.entries
        return Outcome(
            replies={key: Reply.from_entry(entries[key]) for key in self._asks if key in entries},
            missing=[key for key in self._asks if key not in entries],
            stopped=self._stopped,
            spent_usd=self._spent,
            failed_calls=self._progress.failed_calls,
            lost_calls=self._lost_calls,
            last_error=self._last_error,
        )

    async def _work(self, model: CandidateClient, queue: deque[Ask]) -> None:
        """Answer questions from a queue until it is empty or the budget is used up."""
        while queue and self._stopped is None:
            ticket = None if self._budget is None else await self._reserve(self._budget, model, queue)
            if self._budget is not None and ticket is None:
                return
            if not queue:  # others took the rest while this one waited
                self._settle(ticket, 0.0)
                return
            ask = queue.popleft()
            cost = 0.0
            model.in_flight += 1
            try:
                reply = await self._ask(model, ask)
                if reply is not None:
                    cost = reply.cost_usd or 0.0
                    self._journal.add(ask.key, asdict(reply))
                    self._progress.done += 1
            finally:
                model.in_flight -= 1
                self._settle(ticket, cost)
            if self._on_progress is not None:
                self._on_progress(self._progress)

    async def _reserve(self, budget: Budget, model: CandidateClient, queue: deque[Ask]) -> int | None:
        """A ticket for a call; None: the budget has less than that left, or there is nothing left to ask."""
        while self._stopped is None and queue:
            if model.may_start:
                reserved = model.reserved_cost(queue[0].query)
                ticket = budget.reserve(reserved)
                if ticket is not None:
                    return ticket
                if budget.reserved_usd == 0 or budget.spent_usd + reserved > budget.max_usd:
                    left = budget.max_usd - budget.spent_usd
                    state = f"has {left:.4f} USD left" if left > 0 else f"is exceeded by {-left:.4f} USD"
                    self._stopped = (
                        f"the budget of {budget.max_usd:g} USD {state}; the next call may cost {reserved:.4f} USD"
                    )
                    self._settled.set()
                    return None
            self._settled.clear()
            await self._settled.wait()
        return None

    def _settle(self, ticket: int | None, cost: float) -> None:
        self._spent += cost
        self._progress.spent_usd = self._spent
        if self._budget is not None and ticket is not None:
            self._budget.settle(ticket, cost)
        self._settled.set()

    async def _ask(self, model: CandidateClient, ask: Ask) -> Reply | None:
        """The reply to a question; None: every try failed, and another run may try again."""
        fault: Fault | None = None
        for number in range(TRIES):
            if number:
                await asyncio.sleep(wait_before(number, fault, random.Random(f"{ask.key}{number}")))
            try:
                reply = await model.call(ask)
            except Exception as error:
                fault = fault_in(error)
                self._last_error = f"{ask.candidate}: {fault}"
                if fault.kind != "question":
                    self._progress.failed_calls += 1
                    self._lost_calls += not fault.uncharged
                if fault.kind == "setup":
                    raise InputError(f"the service of model {ask.candidate!r} refuses every call: {fault}") from error
                if number + 1 >= FIRST_TRIES and not model.answers and fault.unreached:
                    raise InputError(f"the service of model {ask.candidate!r} cannot be reached: {fault}") from error
                if fault.kind == "question":
                    return Reply(candidate=ask.candidate, error=str(fault))
                if fault.pause_s:
                    model.limit.pause(fault.pause_s)
            else:
                model.failures = 0
                return reply
        model.failures += 1
        if model.failures >= MOST_FAILURES:
            raise InferenceError(
                f"model {ask.candidate!r} answered none of {model.failures} questions in {TRIES} tries each; the last "
                f"error: {fault}"
            )
        return None
