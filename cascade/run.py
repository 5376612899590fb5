"""One request on its way through the tiers of a cascade."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..routers.base import Router
from ..routers.query import Query
from .accounts import CallError, Ledger, OverBudgetError, stop
from .backends import Answer
from .budget import Budget
from .streams import Emit
from .threads import in_thread
from .tiers import CascadeError, CascadeResult, Degraded, Tier, UseCase

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What all requests of a cascade share; see `Cascade`."""

    tiers: tuple[Tier, ...]
    router: Router | None
    direct_threshold: float | None
    max_cost_usd: float | None
    budget: Budget | None
    report: Callable[[CascadeResult], None]


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer that there is, and what is known of it."""

    tier: Tier
    answer: Answer
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Which answer is the result, and why."""

    kept: _Kept
    reason: str
    degraded: Degraded | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """At which tier to start, whether to verify, why (empty: nothing special), and whether weaker ones may help out."""

    first: int = 0
    verify: bool = True
    reason: str = ""
    weaker: bool = False


class Request:
    """Answers one query; used once."""

    def __init__(
        self, settings: Settings, query: Query, use_case: str | None, rule: UseCase, deadline_s: float | None
    ) -> None:
        """Take the request; nothing is asked yet."""
        self._settings = settings
        self._tiers = settings.tiers
        self._query = query
        self._use_case = use_case
        self._rule = rule
        self._deadline_s = deadline_s
        own = [Budget(settings.max_cost_usd)] if settings.max_cost_usd is not None else []
        shared = [settings.budget] if settings.budget is not None else []
        self._ledger = Ledger([*own, *shared])
        self._started = 0.0
        self._score: float | None = None
        self._seconds: dict[str, float] = {}  # at each tier
        self._kept: list[_Kept] = []
        self._errors: list[str] = []
        self._emit: Emit | None = None
        self._sent = False

    async def run(self, emit: Emit | None) -> CascadeResult:
        """Answer the query, and report the result, whatever it is, once.

        Args:
            emit: takes the pieces of the accepted answer; None: not streamed.

        Raises:
            CascadeError: no tier gave an answer.
        """
        self._started = time.monotonic()
        self._emit = emit
        try:
            outcome = await self._answer()
            if emit is not None and not self._sent and outcome.kept.answer.text:
                emit(outcome.kept.answer.text)
        except CascadeError as error:
            result = self._result(None, str(error), "failed")
            self._settings.report(result)
            raise CascadeError(str(error), self._errors, result.calls) from error.__cause__
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            reason = "the request was cancelled" if cancelled else f"{type(error).__name__}: {error}"
            self._settings.report(self._result(None, reason, "cancelled" if cancelled else "failed"))
            raise
        result = self._result(outcome, outcome.reason, "answered")
        self._settings.report(result)
        return result

    async def _answer(self) -> _Outcome:
        plan = await self._plan()
        reason = plan.reason
        for index in range(plan.first, len(self._tiers)):
            tier = self._tiers[index]
            name, last = tier.model.name, index == len(self._tiers) - 1
            if self._kept and self._too_late_for(tier):
                return self._best(f"no time is left for {name}", "deadline")
            try:
                with self._time_at(tier):
                    answer = await self._call(tier, self._query, "answer", live=last or not plan.verify)
                    if last or not plan.verify:
                        return _Outcome(_Kept(tier, answer), f"{name} answers" + (f": {reason}" if reason else ""))
                    kept, reason = await self._verify(tier, answer)
            except OverBudgetError:
                self._errors.append(f"{name} does not fit into the budget")
                if self._kept:
                    return self._best(self._errors[-1], "budget")
                return await self._cheapest()
            except CallError as error:
                reason = f"{name} failed ({error})"
                self._errors.append(reason)
                if self._sent:
                    raise CascadeError(f"{name} broke off after part of its answer was sent: {error}") from error
                continue
            threshold = tier.threshold if self._rule.threshold is None else self._rule.threshold
            if kept.confidence is not None and kept.confidence >= threshold:
                return _Outcome(kept, f"confidence in {name} is {kept.confidence:.2f}, at or above {threshold:.2f}")
            self._kept.append(kept)
            if kept.confidence is not None:
                reason = f"confidence in {name} is {kept.confidence:.2f}, below {threshold:.2f}"
        return await self._none_accepted(plan, reason)

    async def _none_accepted(self, plan: _Plan, reason: str) -> _Outcome:
        """The last tier was to answer and did not: what else there is."""
        if plan.weaker and not self._kept and not self._late():
            return await self._instead(self._tiers[plan.first - 1 :: -1], "failure", reason)
        return self._best(self._errors[-1] if self._errors else reason, "deadline" if self._late() else "failure")

    async def _plan(self) -> _Plan:
        """Where the rule of the use case and the router's score send the query."""
        mode, last = self._rule.mode, len(self._tiers) - 1
        if mode in {"strong", "weak"}:
            return _Plan(last if mode == "strong" else 0, False, f"the use case asks for the {mode} model")
        router = self._settings.router
        if router is None:
            return _Plan()
        limit = self._rule.direct_threshold
        if limit is None:
            limit = self._settings.direct_threshold
        if limit is None and mode == "route":
            limit = router.threshold
        self._score = await self._scored(router)
        if self._score is None:
            return _Plan()
        if limit is not None:
            if self._score >= limit and not self._too_late_for(self._tiers[last]):
                return _Plan(last, False, f"its score {self._score:.2f} is at or above {limit:.2f}", weaker=True)
            if self._score < limit and mode == "route":
                return _Plan(0, False, f"its score {self._score:.2f} is below {limit:.2f}")
        return _Plan()

    async def _scored(self, router: Router) -> float | None:
        """The router's score, or None when it fails."""
        try:
            score = float((await self._in_time(in_thread(router.score, [self._query])))[0])
            if not 0 <= score <= 1:
                raise ValueError(f"a score of {score}")
        except Exception as error:  # noqa: BLE001 - without a score the request cascades
            logger.warning("the router of the cascade failed: %s: %s", type(error).__name__, error)
            return None
        return score

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of what is no call of a model.

        Raises:
            TimeoutError: it is not there at the deadline.
        """
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task}, timeout=self._remaining())
            if not task.done():
                raise TimeoutError("not done before the deadline")
            if task.cancelled():  # by itself: our own cancellation does not come here
                raise RuntimeError("it cancelled itself")
            return task.result()
        finally:
            stop(task)

    async def _call(
        self, tier: Tier, query: Query, purpose: Literal["answer", "confidence"], live: bool = False
    ) -> Answer:
        """One call of a model, accounted for whatever comes of it.

        Args:
            tier: whom to ask.
            query: what to ask.
            purpose: see `Call`.
            live: send the pieces on as they come, where the request is streamed.

        Raises:
            CallError: it gave no answer; OverBudgetError: it was not made.
        """
        remaining = self._remaining()
        if remaining is not None and remaining <= 0:
            raise CallError("the deadline has passed")
        limit = min((value for value in (tier.timeout_s, remaining) if value is not None), default=None)
        heard: list[str] = []
        listens = live and self._emit is not None
        work = self._listen(tier, query, heard) if listens else _complete(tier, query)
        return await self._ledger.call(tier, query, purpose, work, heard, limit)

    async def _verify(self, tier: Tier, answer: Answer) -> tuple[_Kept, str]:
        """The answer with the confidence in it, None where that cannot be estimated; and then why."""

        async def ask(query: Query) -> Answer:
            return await self._call(tier, query, "confidence")

        assert tier.confidence is not None  # the cascade checks it
        try:
            estimate = await self._in_time(tier.confidence.estimate(self._query, answer, ask, self._score))
            if not 0 <= estimate.confidence <= 1:
                raise ValueError(f"a confidence of {estimate.confidence}")
        except Exception as error:  # noqa: BLE001 - without a confidence the request escalates
            reason = f"no confidence in {tier.model.name} ({type(error).__name__}: {error})"
            logger.warning("%s", reason)
            self._errors.append(reason)
            return _Kept(tier, answer), reason
        return _Kept(tier, estimate.answer or answer, estimate.confidence), ""

    async def _cheapest(self) -> _Outcome:
        """Ask the cheapest tier that fits into the budget: there is no answer yet, and the one wanted does not fit."""
        untried = [tier for tier in self._tiers if tier.model.name not in self._asked()]
        cheapest = sorted(untried, key=lambda tier: tier.expected_cost(self._query) or 0.0)
        return await self._instead(cheapest, "budget", "the cheapest in the budget")

    async def _instead(self, tiers: Sequence[Tier], degraded: Degraded, reason: str) -> _Outcome:
        """The first of some tiers that answers, unverified: any answer is better than none.

        Raises:
            CascadeError: none of them does.
        """
        for tier in tiers:
            try:
                with self._time_at(tier):
                    answer = await self._call(tier, self._query, "answer", live=True)
            except CallError as error:
                if self._sent:
                    raise CascadeError(f"{tier.model.name} broke off after part of its answer was sent") from error
                self._errors.append(f"{tier.model.name}: {error}")
                continue
            return _Outcome(_Kept(tier, answer), f"{tier.model.name} answers: {reason}", degraded)
        what = "no tier fits into the budget: " if degraded == "budget" else "no tier gave an answer: "
        raise CascadeError(what + "; ".join(self._errors))

    async def _listen(self, tier: Tier, query: Query, heard: list[str]) -> Answer:
        """A streamed call: every piece is heard and sent on; the whole answer at the end."""
        assert self._emit is not None
        whole: Answer | None = None
        async for piece in tier.backend.stream(query):
            if isinstance(piece, Answer):
                whole = piece
            elif piece:
                heard.append(piece)
                self._sent = True
                self._emit(piece)
        return whole if whole is not None else Answer("".join(heard))

    def _best(self, reason: str, degraded: Degraded) -> _Outcome:
        """The earlier answer with the highest confidence, the later of two equal ones.

        Raises:
            CascadeError: there is none.
        """
        if not self._kept:
            raise CascadeError("no tier gave an answer: " + "; ".join(self._errors or [reason]))
        best = max(reversed(self._kept), key=lambda kept: -1.0 if kept.confidence is None else kept.confidence)
        return _Outcome(best, f"{best.tier.model.name} answers: {reason}", degraded)

    @contextmanager
    def _time_at(self, tier: Tier) -> Iterator[None]:
        """Take down the seconds at a tier."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[tier.model.name] = time.monotonic() - started

    def _asked(self) -> list[str]:
        """The models that were asked for an answer, in their order."""
        return list(dict.fromkeys(call.model for call in self._ledger.calls if call.purpose == "answer"))

    def _remaining(self) -> float | None:
        """Seconds until the deadline."""
        return None if self._deadline_s is None else self._started + self._deadline_s - time.monotonic()

    def _late(self) -> bool:
        remaining = self._remaining()
        return remaining is not None and remaining <= 0

    def _too_late_for(self, tier: Tier) -> bool:
        remaining = self._remaining()
        return remaining is not None and remaining <= max(0.0, tier.expected_s or 0.0)

    def _result(
        self, outcome: _Outcome | None, reason: str, what: Literal["answered", "failed", "cancelled"]
    ) -> CascadeResult:
        """Close the accounts, and sum them up."""
        self._ledger.close_all("cut off: the request was over")
        kept = outcome.kept if outcome is not None else None
        asked = self._asked()
        order = [tier.model.name for tier in self._tiers]
        return CascadeResult(
            answer=kept.answer.text if kept else "",
            model=kept.tier.model.name if kept else "",
            confidence=kept.confidence if kept else None,
            escalated=any(order.index(name) > order.index(asked[0]) for name in asked),
            cost_usd=self._ledger.cost_usd(),
            latency_s=time.monotonic() - self._started,
            calls=tuple(self._ledger.calls),
            reason=reason,
            degraded=outcome.degraded if outcome else None,
            outcome=what,
            score=self._score,
            use_case=self._use_case,
            tier_latency_s={name: self._seconds[name] for name in asked},
        )


async def _complete(tier: Tier, query: Query) -> Answer:
    answer: Answer = await tier.backend.complete(query)  # in here, so that all it raises is a failure of the call
    return answer
