"""The cascade: ask a weak model, verify its answer, and escalate to a stronger model when the confidence is too low.

The expected cost of a query is ``c_weak + P(escalated) c_strong``. That is
cheaper than strong alone while ``P(escalated)`` is below ``1 - c_weak / c_strong``
(after FrugalGPT, arXiv 2305.05176). A router in front of the cascade saves the
weak call on queries that are clearly hard.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

from ..routers.base import Router, check_router
from ..routers.checks import check_number, check_seconds
from ..routers.error_log import log_error
from ..routers.errors import InputError
from ..routers.query import Query, turns
from .accounts import Budget
from .confidence import needs_prior
from .estimates import check_signature
from .run import Request, Settings
from .streams import AnswerStream, BlockingAnswerStream
from .threads import contained, is_async, run_in_background
from .tiers import CascadeResult, Tier, UseCase

logger = logging.getLogger(__name__)


def _check_parts(
    tiers: object, router: object, budget: object, use_cases: object, default_use_case: object, on_result: object
) -> None:
    """Refuse parts of the wrong kind, and say what to write; a router that is a path would fail at every request."""
    if isinstance(tiers, Tier) or not isinstance(tiers, Sequence):
        raise InputError(f"tiers is a {type(tiers).__name__}; expected a list: [Tier(...), Tier(...)]")
    for tier in tiers:
        if not isinstance(tier, Tier):
            raise InputError(f"a tier is {tier!r:.80}; expected Tier(Model(name, ...), backend, confidence)")
    if router is not None:
        check_router(router)
    if budget is not None and not isinstance(budget, Budget):
        raise InputError(f"budget is {budget!r:.80}; expected Budget(max_usd), or max_cost_usd for one request")
    if use_cases is not None and not isinstance(use_cases, Mapping):
        raise InputError(f"use_cases is a {type(use_cases).__name__}; expected {{'name': UseCase(...)}}")
    for rule in [*(use_cases or {}).values(), default_use_case]:
        if rule is not None and not isinstance(rule, UseCase):
            raise InputError(f"a use case is {rule!r:.80}; expected UseCase('cascade'), 'route', 'strong' or 'weak'")
    if on_result is not None and (not callable(on_result) or is_async(on_result)):
        raise InputError(f"on_result is {on_result!r:.80}; expected a plain function of one result (not async)")


def _check_tiers(tiers: Sequence[Tier], router: Router | None) -> None:
    if len(tiers) < 2:
        raise InputError(f"the cascade has {len(tiers)} tiers; expected two or more")
    names = [tier.model.name for tier in tiers]
    if len(set(names)) != len(names):
        raise InputError(f"the tiers' models are {names}; expected distinct names")
    for tier in tiers[:-1]:
        where = f"the confidence of tier {tier.model.name!r}"
        if tier.confidence is None:
            raise InputError(f"tier {tier.model.name!r} has no confidence; expected one on every tier but the last")
        check_signature(tier.confidence, where)
        if router is None and needs_prior(tier.confidence):
            raise InputError(f"{where} needs a router's score; expected a router")


class Cascade:
    """Two or more tiers that are asked from the weakest to the strongest until an answer is good enough.

    - An answer is accepted when its confidence reaches the threshold of its tier. The answer of the last tier is
      accepted without verification.
    - When a tier raises an exception or takes too long, when its answer is empty, refused, filtered or cut off, or when
      the confidence cannot be estimated, the next tier is asked.
    - When the last tier fails, the deadline passes or the budget is used up, the result is the earlier answer with the
      highest confidence, and it is marked (`CascadeResult.degraded`). When there is no earlier answer, `CascadeError`
      is raised.
    - When the budget is too small for the first tier, the cheapest tier that fits is asked.
    - A query with a router's score at or above `direct_threshold` goes straight to the last tier. When that tier fails,
      the result is the unverified answer of the strongest other tier that answers, and it is marked.
    - No call is repeated. `CascadeResult.calls` holds every call, also calls that failed or were cut off. Such a call
      counts with its query and the pieces that came, and a budget keeps what was reserved for it.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.cascade import Cascade, SelfConsistency, Tier
        >>> answers = iter(["It is 144.", "It is 124.", "It is 134."])
        >>> weak = Tier(Model("weak"), lambda query: next(answers), SelfConsistency(samples=3), threshold=0.6)
        >>> cascade = Cascade([weak, Tier(Model("strong"), lambda query: "144")])
        >>> result = cascade.run("How much is 12 * 12?")
        >>> result.answer, result.model, result.escalated
        ('144', 'strong', True)
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        *,
        router: Router | None = None,
        direct_threshold: float | None = None,
        use_cases: Mapping[str, UseCase] | None = None,
        default_use_case: UseCase | None = None,
        deadline_s: float | None = None,
        max_cost_usd: float | None = None,
        budget: Budget | None = None,
        on_result: Callable[[CascadeResult], object] | None = None,
    ) -> None:
        """Check that the parts fit together.

        Args:
            tiers: two or more tiers, the weakest first.
            router: scores each query: the expected win rate of the last tier over the first. When the router fails,
                the request cascades as if there were no router.
            direct_threshold: a query with a score at or above this goes straight to the last tier. None: no query does.
            use_cases: the rules by name of the use case.
            default_use_case: the rule for all other requests. None: cascade.
            deadline_s: longest time that a request may take, seconds. None: no limit.
            max_cost_usd: largest cost of one request, USD. None: no limit.
            budget: a cap on the total cost that requests share. None: no cap.
            on_result: called once for every request, also for a failed or cancelled one. It runs on the event loop, so
                it must not block. An exception that it raises is logged.

        Raises:
            InputError: the parts do not fit together.
        """
        _check_parts(tiers, router, budget, use_cases, default_use_case, on_result)
        _check_tiers(tiers, router)
        check_seconds("deadline_s", deadline_s)
        if direct_threshold is not None:
            check_number("direct_threshold", direct_threshold, "a number from 0 to 1, or None")
        unpriced = [tier.model.name for tier in tiers if tier.cost(0, 0) is None]
        if unpriced and (max_cost_usd is not None or budget is not None):
            raise InputError(f"the models {unpriced} have no prices; a budget needs the prices of every tier's model")
        rules = [*(use_cases or {}).values(), default_use_case or UseCase()]
        if router is None and direct_threshold is not None:
            raise InputError(f"direct_threshold is {direct_threshold}, but router is None; expected a router")
        if router is None and any(rule.mode == "route" for rule in rules):
            raise InputError("a use case has the mode 'route', but router is None; expected a router")
        if max_cost_usd is not None and not (isinstance(max_cost_usd, (int, float)) and 0 <= max_cost_usd < math.inf):
            raise InputError(f"max_cost_usd is {max_cost_usd}; expected a finite number of USD, 0 or more, or None")
        self.tiers = tuple(tiers)
        self._settings = Settings(self.tiers, router, direct_threshold, max_cost_usd, budget, self._report)
        self._use_cases = dict(use_cases or {})
        self._default_use_case = default_use_case or UseCase()
        self._deadline_s = deadline_s
        self._on_result = on_result

    async def arun(
        self, query: Query, *, use_case: str | None = None, deadline_s: float | None = None
    ) -> CascadeResult:
        """Answer one query. Cancelling this coroutine cancels the running call, and no other call is started.

        Args:
            query: a prompt or a chat.
            use_case: name of the use case: it chooses the rule, and stands in the result.
            deadline_s: longest time for this request in seconds. None: the deadline of the cascade.

        Raises:
            CascadeError: no tier gave an answer.
            InputError: the query or the deadline is not usable.
        """
        return await self._request(query, use_case, deadline_s).run(None)

    def run(self, query: Query, *, use_case: str | None = None, deadline_s: float | None = None) -> CascadeResult:
        """Do the same as `arun`, and block. This works in any thread, but it blocks an event loop that runs there."""
        request = self._request(query, use_case, deadline_s)
        return run_in_background(lambda: request.run(None))

    def astream(self, query: Query, *, use_case: str | None = None, deadline_s: float | None = None) -> AnswerStream:
        """Stream the accepted answer in pieces, with the arguments of `arun`; `AnswerStream.result` holds the result.

        An answer that must be verified comes as one piece, since it is complete
        before it is accepted. An answer that is not verified (of the last tier, or
        a routed one) comes as the model writes it. Pieces cannot be taken back.
        When the deadline cuts such a stream, it ends, and its result is the best
        earlier answer with ``degraded="deadline"``: show `result.answer` in place
        of the pieces. `CascadeError` is raised when there is no earlier answer,
        and when such a stream breaks off.
        """
        return AnswerStream(self._request(query, use_case, deadline_s).run)

    def stream(
        self, query: Query, *, use_case: str | None = None, deadline_s: float | None = None
    ) -> BlockingAnswerStream:
        """Do the same as `astream`, as a plain iterator that blocks."""
        return BlockingAnswerStream(self.astream(query, use_case=use_case, deadline_s=deadline_s))

    def _request(self, query: Query, use_case: str | None, deadline_s: float | None) -> Request:
        turns(query)  # an unusable query is the caller's mistake, not a failure of the tiers
        check_seconds("deadline_s", deadline_s)
        if use_case is not None and not isinstance(use_case, str):
            raise InputError(f"use_case is {use_case!r:.80}; expected the name of a use case, or None")
        rule = self._default_use_case if use_case is None else self._use_cases.get(use_case, self._default_use_case)
        return Request(self._settings, query, use_case, rule, self._deadline_s if deadline_s is None else deadline_s)

    def _report(self, result: CascadeResult) -> None:
        if self._on_result is None:
            return
        try:
            with contained():
                self._on_result(result)
        except Exception as error:  # noqa: BLE001 - an observer must not fail the request
            log_error(logger, "on_result raised; the request is not affected", error)
