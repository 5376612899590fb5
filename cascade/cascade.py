"""The cascade: ask a weak model, verify, escalate to a stronger one when the confidence is too low.

    cascade = Cascade(
        [
            Tier(Model("small", 0.15, 0.60), from_client(client, "small"), confidence=verifier, threshold=0.7),
            Tier(Model("large", 2.50, 10.0), from_client(client, "large")),
        ],
        router=router, direct_threshold=0.9, deadline_s=20,
    )
    result = cascade.run("Why is the sky blue?")          # or: await cascade.arun(...), or streamed
    result.answer, result.model, result.confidence, result.escalated, result.cost_usd

Expected cost is c_weak + P(escalated) c_strong: cheaper than always strong while
P is below 1 - c_weak / c_strong (after FrugalGPT, arXiv 2305.05176). A router
in front spares the weak call on queries that are plainly hard.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from ..routers.base import Router
from ..routers.checks import check_seconds
from ..routers.errors import InputError
from ..routers.query import Query, turns
from .budget import Budget
from .run import Request, Settings
from .streams import AnswerStream, BlockingAnswerStream
from .threads import run_in_background
from .tiers import CascadeResult, Tier, UseCase

logger = logging.getLogger(__name__)


class Cascade:
    """Two or more tiers, from the weakest to the strongest, asked in that order until an answer is good enough.

    - An answer whose confidence is at or above its tier's threshold is accepted; so is the last tier's, unverified.
    - A tier that raises or is too slow, and a confidence that cannot be estimated, escalate.
    - When the last tier fails, the deadline passes or the budget is used up, the earlier answer with the highest
      confidence is the result, and marked (`CascadeResult.degraded`). When there is none: `CascadeError`. When a
      budget keeps the first tier from being asked, the cheapest tier that fits is.
    - A query that the router scores at or above `direct_threshold` goes straight to the last tier; when that fails,
      the strongest of the others that answers is the result, unverified and marked.
    - Nothing is asked twice, and every call is in `CascadeResult.calls`, also one that failed or was cut off. Such
      a call costs what was reported (mostly nothing); the service may still bill it.
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
            tiers: two or more, the weakest first.
            router: scores the queries: how likely the last tier's answer beats the first's. When it fails, the
                request cascades as if there were none.
            direct_threshold: score at or above it goes straight to the last tier; None: nothing does.
            use_cases: rules by the name of the use case.
            default_use_case: the rule for every other request; None: cascade.
            deadline_s: longest a request may take, seconds.
            max_cost_usd: most that one request may cost, USD.
            budget: a cap that requests share.
            on_result: called once for every request, also a failed or cancelled one; what it raises is logged. It
                must not block: it runs on the event loop.

        Raises:
            InputError: the parts do not fit together.
        """
        if len(tiers) < 2:
            raise InputError(f"a cascade of {len(tiers)} tiers; expected two or more")
        names = [tier.model.name for tier in tiers]
        if len(set(names)) != len(names):
            raise InputError(f"the tiers' models are {names}; expected distinct names")
        for tier in tiers[:-1]:
            if tier.confidence is None:
                raise InputError(f"tier {tier.model.name!r} has no confidence; expected one on every tier but the last")
            if router is None and getattr(tier.confidence, "needs_prior", False):
                raise InputError(
                    f"the verifier of {tier.model.name!r} reads a router's score; give the cascade a router"
                )
        check_seconds("deadline_s", deadline_s)
        if (max_cost_usd is not None or budget is not None) and any(tier.cost(0, 0) is None for tier in tiers):
            raise InputError("a budget needs the prices of every tier's model")
        rules = [*(use_cases or {}).values(), default_use_case or UseCase()]
        if router is None and (direct_threshold is not None or any(rule.mode == "route" for rule in rules)):
            raise InputError("direct_threshold and the mode 'route' need a router")
        if max_cost_usd is not None:
            Budget(max_cost_usd)  # refuses what is no amount
        self.tiers = tuple(tiers)
        self._settings = Settings(self.tiers, router, direct_threshold, max_cost_usd, budget, self._report)
        self._use_cases = dict(use_cases or {})
        self._default_use_case = default_use_case or UseCase()
        self._deadline_s = deadline_s
        self._on_result = on_result

    async def arun(
        self, query: Query, *, use_case: str | None = None, deadline_s: float | None = None
    ) -> CascadeResult:
        """Answer one query. Cancelling it cancels the call that runs, and starts no other.

        Args:
            query: a prompt or a chat.
            use_case: chooses the rule, and is kept in the result.
            deadline_s: in the place of the cascade's own.

        Raises:
            CascadeError: no tier gave an answer.
            InputError: the query or the deadline is not usable.
        """
        return await self._request(query, use_case, deadline_s).run(None)

    def run(self, query: Query, *, use_case: str | None = None, deadline_s: float | None = None) -> CascadeResult:
        """The same, blocking; works in any thread, also one that runs an event loop (and blocks that)."""
        request = self._request(query, use_case, deadline_s)
        return run_in_background(lambda: request.run(None))

    def astream(self, query: Query, *, use_case: str | None = None, deadline_s: float | None = None) -> AnswerStream:
        """The accepted answer in pieces; `AnswerStream.result` at the end. Arguments as for `arun`.

        An answer that must be verified is complete before it is accepted: it comes
        as one piece. One that need not be (the last tier's, a routed one's) comes
        as the model writes it. When such a stream breaks off, or the deadline
        passes, what was sent cannot be taken back: `CascadeError` is raised.
        """
        return AnswerStream(self._request(query, use_case, deadline_s).run)

    def stream(
        self, query: Query, *, use_case: str | None = None, deadline_s: float | None = None
    ) -> BlockingAnswerStream:
        """The same as a plain iterator."""
        return BlockingAnswerStream(self.astream(query, use_case=use_case, deadline_s=deadline_s))

    def _request(self, query: Query, use_case: str | None, deadline_s: float | None) -> Request:
        turns(query)  # a query that is none is the caller's mistake, not a failure of the tiers
        check_seconds("deadline_s", deadline_s)
        rule = self._default_use_case if use_case is None else self._use_cases.get(use_case, self._default_use_case)
        return Request(self._settings, query, use_case, rule, self._deadline_s if deadline_s is None else deadline_s)

    def _report(self, result: CascadeResult) -> None:
        if self._on_result is None:
            return
        try:
            self._on_result(result)
        except Exception:
            logger.exception("on_result raised; the request is not affected")
