"""The run of one request through the tiers of a cascade."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ..routers.base import Router
from ..routers.error_log import log_error
from ..routers.query import Query
from .accounts import Budget, CallError, CutOffError, Ledger, OverBudgetError
from .backends import Answer
from .deadline import Deadline
from .estimates import NoEstimateError, as_estimate, estimated
from .start import Start, choose_start
from .streams import Emit
from .threads import contained
from .tiers import CascadeError, CascadeResult, Degraded, Tier, UseCase

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that all requests of a cascade share; the arguments of `Cascade` explain them."""

    tiers: tuple[Tier, ...]
    router: Router | None
    direct_threshold: float | None
    max_cost_usd: float | None
    budget: Budget | None
    report: Callable[[CascadeResult], None]


@dataclass(frozen=True, slots=True)
class _Reply:
    """The answer of one tier, with the confidence in it; None: not estimated, or the estimate failed."""

    tier: Tier
    answer: Answer
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The reply that becomes the result, with the reason."""

    reply: _Reply
    reason: str
    degraded: Degraded | None = None


class Request:
    """Answers one query. Each object is used once."""

    def __init__(
        self, settings: Settings, query: Query, use_case: str | None, rule: UseCase, deadline_s: float | None
    ) -> None:
        """Prepare the request. No model is asked yet.

        Args:
            settings: the settings of the cascade.
            query: the query.
            use_case: name of the use case, or None.
            rule: the rule of the use case.
            deadline_s: longest time in seconds that the request may take. None: no limit.
        """
        self._settings = settings
        self._tiers = settings.tiers
        self._query = query
        self._use_case = use_case
        self._rule = rule
        self._deadline = Deadline(deadline_s)
        budgets = [] if settings.budget is None else [settings.budget]
        if settings.max_cost_usd is not None:
            budgets.insert(0, Budget(settings.max_cost_usd))
        self._ledger = Ledger(budgets)
        self._score: float | None = None
        self._seconds: dict[str, float] = {}  # seconds spent at each tier
        self._replies: list[_Reply] = []  # replies that were not accepted
        self._errors: list[str] = []
        self._emit: Emit | None = None
        self._sent = False

    async def run(self, emit: Emit | None) -> CascadeResult:
        """Answer the query, and report the result once, whatever it is.

        Args:
            emit: is called with each piece of the accepted answer. None: the answer is not streamed.

        Raises:
            CascadeError: no tier gave an answer.
        """
        self._deadline.start()
        self._emit = emit
        try:
            outcome = await self._answer()
            if emit is not None and not self._sent and outcome.reply.answer.text:
                emit(outcome.reply.answer.text)
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
        settings = self._settings
        start = await choose_start(
            self._query,
            self._rule,
            self._deadline,
            tiers=self._tiers,
            router=settings.router,
            direct_threshold=settings.direct_threshold,
        )
        self._score, reason = start.score, start.reason
        for index in range(start.tier, len(self._tiers)):
            tier = self._tiers[index]
            name, last = tier.model.name, index == len(self._tiers) - 1
            if self._replies and self._deadline.too_late_for(tier):
                return self._best(f"no time is left for {name}", "deadline")
            try:
                with self._time_at(tier):
                    answer = await self._call(tier, self._query, "answer", live=last or not start.verify)
                    if last or not start.verify:
                        return _Outcome(_Reply(tier, answer), f"{name} answers" + (f": {reason}" if reason else ""))
                    reply, reason = await self._verify(tier, answer)
            except OverBudgetError:
                self._errors.append(f"{name} does not fit into the budget")
                return self._best(self._errors[-1], "budget") if self._replies else await self._cheapest()
            except CallError as error:
                reason = f"{name} failed ({error})"
                self._note(tier, error, reason)
                if self._sent:
                    return self._broken_off(tier, error)
                continue
            threshold = tier.threshold if self._rule.threshold is None else self._rule.threshold
            if reply.confidence is not None and reply.confidence >= threshold:
                return _Outcome(reply, f"confidence in {name} is {reply.confidence:.2f}, at or above {threshold:.2f}")
            self._replies.append(reply)
            if reply.confidence is not None:
                reason = f"confidence in {name} is {reply.confidence:.2f}, below {threshold:.2f}"
        return await self._none_accepted(start, reason)

    def _note(self, tier: Tier, error: CallError, reason: str) -> None:
        """Note a failed call; what there is of an answer that was cut off is better than none."""
        self._errors.append(reason)
        if isinstance(error, CutOffError) and not self._sent:
            self._replies.append(_Reply(tier, error.answer))

    def _broken_off(self, tier: Tier, error: CallError) -> _Outcome:
        """The result when an answer fails whose first pieces were sent, which cannot be taken back.

        Raises:
            CascadeError: the answer broke off, or the deadline cut it and there is no earlier answer.
        """
        name = tier.model.name
        if isinstance(error, CutOffError):  # whoever reads the stream has all that there is
            return _Outcome(_Reply(tier, error.answer), f"{name} answers: {error}", "failure")
        if self._replies and self._deadline.passed():
            return self._best(f"the deadline cut {name} off after part of its answer was sent", "deadline")
        raise CascadeError(f"{name} broke off after part of its answer was sent: {error}") from error

    async def _none_accepted(self, start: Start, reason: str) -> _Outcome:
        """Choose another reply when the last tier failed to answer."""
        if start.weaker and not self._deadline.passed():
            try:
                return await self._first_answer(self._tiers[start.tier - 1 :: -1], "failure", reason)
            except CascadeError:
                if not self._replies:
                    raise
        degraded: Degraded = "deadline" if self._deadline.passed() else "failure"
        return self._best(self._errors[-1] if self._errors else reason, degraded)

    async def _call(
        self, tier: Tier, query: Query, purpose: Literal["answer", "confidence"], live: bool = False
    ) -> Answer:
        """Call a model, and account for the call whatever its outcome.

        Args:
            tier: the tier to ask.
            query: the query to send.
            purpose: "answer" or "confidence", as in `Call`.
            live: pass the pieces on as they come, if the request is streamed.

        Raises:
            CallError: the call gave no answer, or the deadline has passed.
            OverBudgetError: the call was never made, because a budget has too little left for it.
        """
        remaining = self._deadline.remaining_s()
        if remaining is not None and remaining <= 0:
            raise CallError("the deadline has passed")
        limit = min((value for value in (tier.timeout_s, remaining) if value is not None), default=None)
        pieces: list[str] = []
        listens = live and self._emit is not None
        work = self._listen(tier, query, pieces) if listens else _complete(tier, query)
        return await self._ledger.call(tier, query, purpose, work, pieces, limit)

    async def _verify(self, tier: Tier, answer: Answer) -> tuple[_Reply, str]:
        """Estimate the confidence in an answer.

        Returns:
            The reply with its confidence, and the reason why there is none ("" when there is one).
        """

        async def ask(query: Query) -> Answer:
            return await self._call(tier, query, "confidence")

        assert tier.confidence is not None  # Cascade.__init__ checks it
        try:
            found = await self._deadline.wait_for(estimated(tier.confidence, self._query, answer, ask, self._score))
            estimate = as_estimate(found, f"tier {tier.model.name!r}")
            if not 0 <= estimate.confidence <= 1:
                raise ValueError(f"the confidence is {estimate.confidence}; expected a number from 0 to 1")
        except NoEstimateError:  # a bug in the caller's confidence, which would escalate every request
            raise
        except Exception as error:  # noqa: BLE001 - without a confidence, the request escalates
            reason = f"no confidence in {tier.model.name} ({type(error).__name__}: {error})"
            log_error(logger, f"no confidence in {tier.model.name}", error, logging.WARNING)
            self._errors.append(reason)
            return _Reply(tier, answer), reason
        return _Reply(tier, estimate.answer or answer, estimate.confidence), ""

    async def _cheapest(self) -> _Outcome:
        """Ask the cheapest tier that fits into the budget: the wanted tier does not fit, and there is no answer yet."""
        untried = [tier for tier in self._tiers if tier.model.name not in self._asked()]
        cheapest = sorted(untried, key=lambda tier: tier.expected_cost(self._query) or 0.0)
        return await self._first_answer(cheapest, "budget", "the cheapest in the budget")

    async def _first_answer(self, tiers: Sequence[Tier], degraded: Degraded, reason: str) -> _Outcome:
        """Ask these tiers in turn and return the first answer, unverified, since any answer is better than none.

        Raises:
            CascadeError: none of them answers.
        """
        for tier in tiers:
            try:
                with self._time_at(tier):
                    answer = await self._call(tier, self._query, "answer", live=True)
            except CallError as error:
                if self._sent:
                    return self._broken_off(tier, error)
                self._note(tier, error, f"{tier.model.name}: {error}")
                continue
            return _Outcome(_Reply(tier, answer), f"{tier.model.name} answers: {reason}", degraded)
        if self._replies:
            return self._best(self._errors[-1], degraded)
        what = "no tier fits into the budget: " if degraded == "budget" else "no tier gave an answer: "
        raise CascadeError(what + "; ".join(self._errors))

    async def _listen(self, tier: Tier, query: Query, pieces: list[str]) -> Answer:
        """Make a streamed call: keep every piece, pass it on, and return the whole answer at the end."""
        assert self._emit is not None
        whole: Answer | None = None
        with contained():
            async for piece in tier.backend.stream(query):
                if isinstance(piece, Answer):
                    whole = piece
                elif piece:
                    pieces.append(piece)
                    self._sent = True
                    self._emit(piece)
        return whole if whole is not None else Answer("".join(pieces))

    def _best(self, reason: str, degraded: Degraded) -> _Outcome:
        """Take the earlier reply with the highest confidence; of two equal ones, the later.

        Raises:
            CascadeError: there is no earlier reply.
        """
        if not self._replies:
            raise CascadeError("no tier gave an answer: " + "; ".join(self._errors or [reason]))
        best = max(reversed(self._replies), key=lambda reply: -1.0 if reply.confidence is None else reply.confidence)
        return _Outcome(best, f"{best.tier.model.name} answers: {reason}", degraded)

    @contextmanager
    def _time_at(self, tier: Tier) -> Iterator[None]:
        """Note the seconds that are spent at a tier."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[tier.model.name] = time.monotonic() - started

    def _asked(self) -> list[str]:
        """Names of the models that were asked for an answer, in the order in which their calls ended."""
        return list(dict.fromkeys(call.model for call in self._ledger.calls if call.purpose == "answer"))

    def _result(
        self, outcome: _Outcome | None, reason: str, what: Literal["answered", "failed", "cancelled"]
    ) -> CascadeResult:
        """Close the accounts and sum them up."""
        self._ledger.close_all("cut off: the request was over")
        reply = outcome.reply if outcome is not None else None
        asked = self._asked()
        order = [tier.model.name for tier in self._tiers]
        return CascadeResult(
            answer=reply.answer.text if reply else "",
            model=reply.tier.model.name if reply else "",
            confidence=reply.confidence if reply else None,
            escalated=any(order.index(name) > order.index(asked[0]) for name in asked),
            cost_usd=self._ledger.cost_usd(),
            latency_s=self._deadline.elapsed_s(),
            calls=tuple(self._ledger.calls),
            reason=reason,
            degraded=outcome.degraded if outcome else None,
            outcome=what,
            score=self._score,
            use_case=self._use_case,
            tier_latency_s={name: self._seconds[name] for name in asked},
        )


async def _complete(tier: Tier, query: Query) -> Answer:
    with contained():
        answer: Answer = await tier.backend.complete(query)  # called in here, so that any exception fails the call
        return answer
