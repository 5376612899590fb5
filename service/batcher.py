"""Single requests scored together: a `Lane` whose work is routing, and which gives every request a decision."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..routers.base import Policy, Router, decide_by
from ..routers.call_checks import check_policy
from ..routers.decision import Context, Decision
from ..routers.error_log import log_error
from ..routers.errors import InputError
from ..routers.query import Query
from .defaults import BatchLimits
from .lane import Lane, LaneError

logger = logging.getLogger(__name__)

#: Why a request got the safe answer; stands in `Decision.cause`.
SafeCause = Literal["busy", "timeout", "error", "closed"]


class OnDecision(Protocol):
    """A function that is called with each decision, in the thread that made the decision.

    Example:
        >>> import asyncio, routelearn
        >>> from routelearn.policies import Threshold
        >>> from routelearn.service import Batcher
        >>> def log(query, decision, *, novelty, vector, latency_s):
        ...     print(query, "->", decision.model)
        >>> batcher = Batcher(routelearn.load("router/"), Threshold(0.0), on_decision=log)
        >>> decision = asyncio.run(batcher.route("Say hello to Ana."))
        Say hello to Ana. -> sim-max
        >>> batcher.close()
    """

    def __call__(
        self, query: Query, decision: Decision, *, novelty: float | None, vector: Any, latency_s: float
    ) -> object:
        """Take in one decision.

        Args:
            query: what was asked.
            decision: what was decided.
            novelty: distance of the query from the training queries; None: not measured.
            vector: float32 (k,), sketch of the query's encoding; None: not measured.
            latency_s: seconds from the request to the decision.
        """
        ...


_REASONS = {
    "busy": "too many requests wait for the router",
    "timeout": "the router took too long",
    "error": "the router failed",
    "closed": "the router is being shut down",
}


#: Makes the final decision for a request from the router's.
Adjust = Callable[[Decision], Decision]


def safe_decision(router: Router, cause: SafeCause, detail: str = "") -> Decision:
    """The decision for a request that cannot be scored: the strong model.

    Args:
        router: names the strong model and the pool.
        cause: why the request cannot be scored; becomes `Decision.cause`.
        detail: what went wrong; stands in `Decision.reason`.
    """
    others = tuple(name for name in router.models if name != router.strong)
    reason = f"{_REASONS[cause]}{f' ({detail})' if detail else ''}; {router.strong} is the safe answer"
    return Decision(
        model=router.strong,
        score=1.0,
        threshold=router.threshold,
        candidates=(router.strong, *others),
        source="default",
        reason=reason,
        cause=cause,
    )


@dataclass(eq=False, slots=True)
class _Request:
    """One request, and when it came."""

    query: Query
    context: Context
    policy: Policy | None
    adjust: Adjust | None = None
    since: float = field(default_factory=time.perf_counter)


@dataclass(eq=False, slots=True)
class _Verdict:
    """One decision, and what the assessment says about its query."""

    decision: Decision
    novelty: float | None = None
    vector: Any = None


class Batcher:
    """Routes single requests of any number of event loops and threads, in the batches in which they happen to wait.

    A request that finds the router idle is scored at once. Requests that arrive while a batch runs form the next
    batch. So no request waits for a batch to fill, and the busier the service, the larger (and cheaper) the batches.

    Every request gets a decision. When too many requests wait, or the router is too slow or fails, the answer is the
    strong model, and the decision's cause says why ("busy", "timeout", "error" or "closed").

    Attributes:
        router: used for the next batch; set it to exchange the router while requests run.
        policy: for requests without a policy; None: the router's threshold.

    Example:
        >>> import asyncio, routelearn
        >>> from routelearn.policies import Threshold
        >>> from routelearn.service import Batcher
        >>> batcher = Batcher(routelearn.load("router/"), Threshold(0.0))  # every score goes to the strong model
        >>> asyncio.run(batcher.route("Prove that every group of order 15 is cyclic.")).model
        'sim-max'
        >>> batcher.close()
    """

    def __init__(
        self,
        router: Router,
        policy: Policy | None = None,
        *,
        limits: BatchLimits | None = None,
        on_decision: OnDecision | None = None,
    ) -> None:
        """Set up the queue; the worker thread starts with the first request.

        Args:
            router: scores the queries.
            policy: for requests without a policy; None: the router's threshold.
            limits: size of a batch, length of the queue and longest wait; None: the defaults.
            on_decision: called once with each decision that a request gets; an exception from it is logged.

        Raises:
            InputError: the policy is none.
        """
        check_policy(policy)
        self.router = router
        self.policy = policy
        self._limits = limits or BatchLimits()
        self._on_decision = on_decision
        self._lane: Lane[_Request, _Verdict] = Lane(
            self._work,
            max_items=self._limits.max_batch,
            max_waiting=self._limits.max_waiting,
            name="routelearn-batcher",
            on_result=None if on_decision is None else self._report,
        )

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a batch."""
        return self._lane.waiting

    async def route(
        self,
        query: Query,
        context: Context | None = None,
        policy: Policy | None = None,
        adjust: Adjust | None = None,
    ) -> Decision:
        """The decision for one request; a request that is cancelled is not scored, or its score is dropped.

        Args:
            query: a prompt, or a chat as a list of messages.
            context: facts about the request for routers and policies that use them; see `Router.route`.
            policy: decides this request; None: the batcher's policy.
            adjust: makes the final decision from the router's, before it is reported, such as the model of the
                session; where it fails, the router's decision stands.

        Raises:
            InputError: the query cannot be scored, or the policy does not fit the router.
        """
        request = _Request(query, context or {}, policy or self.policy, adjust)
        try:
            verdict = await self._lane.submit(request, self._limits.timeout_s)
        except InputError:
            raise
        except LaneError as error:
            verdict = _Verdict(await _adjusted_aside(request, safe_decision(self.router, error.cause)))
            self._report(request, verdict)
        except Exception as error:  # noqa: BLE001 - a request is answered, whatever the router does
            log_error(logger, "the batch failed, the strong model answers", error)
            safe = safe_decision(self.router, "error", type(error).__name__)
            verdict = _Verdict(await _adjusted_aside(request, safe))
            self._report(request, verdict)
        return verdict.decision

    def close(self) -> None:
        """Stop the worker thread; requests that still wait, and later ones, get the safe answer."""
        self._lane.close(finish=False, timeout_s=self._limits.timeout_s)

    def _work(self, requests: Sequence[_Request]) -> Sequence[_Verdict | Exception]:
        policy = requests[0].policy
        if all(request.policy is policy or request.policy == policy for request in requests):
            return self._verdicts(requests)
        groups: list[list[_Request]] = []  # by policy
        for request in requests:
            group = next((group for group in groups if group[0].policy == request.policy), None)
            if group is None:
                groups.append([request])
            else:
                group.append(request)
        verdicts = {
            request: verdict for group in groups for request, verdict in zip(group, self._verdicts(group), strict=True)
        }
        return [verdicts[request] for request in requests]

    def _verdicts(self, requests: Sequence[_Request]) -> list[_Verdict | Exception]:
        """Verdicts on requests that have one policy."""
        router, contexts = self.router, [request.context for request in requests]
        try:
            assessment = router.assess([request.query for request in requests], contexts)
            decisions = decide_by(requests[0].policy, router, assessment, contexts)
        except Exception as error:  # noqa: BLE001 - a request is answered, whatever the router does
            if len(requests) > 1:  # one unusable query must not decide for its neighbours
                return [verdict for request in requests for verdict in self._verdicts([request])]
            if isinstance(error, InputError):
                return [error]
            log_error(logger, "the router failed, the strong model answers", error)
            return [_Verdict(_adjusted(requests[0], safe_decision(router, "error", type(error).__name__)))]
        novelty, vectors = assessment.novelty, assessment.vectors
        return [
            _Verdict(
                _adjusted(request, decision),
                novelty=None if novelty is None else float(novelty[row]),
                vector=None if vectors is None else vectors[row],
            )
            for row, (request, decision) in enumerate(zip(requests, decisions, strict=True))
        ]

    def _report(self, request: _Request, verdict: _Verdict | Exception) -> None:
        if self._on_decision is None or isinstance(verdict, Exception):
            return
        try:
            self._on_decision(
                request.query,
                verdict.decision,
                novelty=verdict.novelty,
                vector=verdict.vector,
                latency_s=time.perf_counter() - request.since,
            )
        except Exception as error:  # noqa: BLE001 - an observer must not fail the request
            log_error(logger, "on_decision raised; the request is not affected", error)


async def _adjusted_aside(request: _Request, decision: Decision) -> Decision:
    """The final decision for a request, made in a thread: a store that replicas share may keep its caller waiting."""
    return decision if request.adjust is None else await asyncio.to_thread(_adjusted, request, decision)


def _adjusted(request: _Request, decision: Decision) -> Decision:
    """The final decision for a request."""
    if request.adjust is None:
        return decision
    try:
        return request.adjust(decision)
    except Exception as error:  # noqa: BLE001 - a request is answered, whatever goes wrong
        log_error(logger, "a decision could not be adjusted; the router's stands", error)
        return decision
