"""Parses, scores and answers requests in a worker thread; the event loop only moves their raw bytes."""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ValidationError
from pydantic_core import to_json

from ...monitoring.tracing import annotate
from ...policies.capabilities import among_able, needs_of, says_something
from ...policies.shadow import shadowed
from ...policies.threshold import policy_of
from ...routers.assessment import Assessment
from ...routers.base import Policy, Router, decide_by
from ...routers.decision import Context, Decision
from ...routers.error_log import log_error
from ...routers.errors import InputError
from ...routers.query import Query
from ..defaults import RequestLimits
from .replies import RequestError
from .request_limits import check_queries
from .schemas import SCORING_REQUEST, RouteReply, ScoreReply, validation_problem
from .slot import ActiveRouter, RouterSlot

logger = logging.getLogger(__name__)

#: Called with the decisions for a request: queries, decisions, the assessment, the context, and the seconds since the
#: request came. It returns the ids of the decisions in the decision log; an empty list when there is no log.
Observe = Callable[[Sequence[Query], Sequence[Decision], Assessment, Context, float], list[str]]


@dataclass(frozen=True, slots=True)
class Job:
    """One request whose body has been read.

    Attributes:
        kind: which reply the caller wants.
        body: JSON, not yet parsed.
        since: `time.perf_counter` when the body was complete.
        trace: holds the span of the request, if there is a tracer.
    """

    kind: Literal["route", "score"]
    body: bytes
    since: float = field(default_factory=time.perf_counter)
    trace: contextvars.Context = field(default_factory=contextvars.copy_context)


@dataclass(slots=True)
class _Request:
    """A parsed job, and the decisions so far with the assessments behind them."""

    job: Job
    queries: Sequence[Query]
    context: Context
    policy: Policy | None
    parts: list[tuple[list[Decision], Assessment]] = field(default_factory=list)


class Scorer:
    """Answers batches of jobs; the `work` of a `Lane`. Threads may share it."""

    def __init__(self, slot: RouterSlot, limits: RequestLimits, observe: Observe, *, shadow: bool = False) -> None:
        """Set what decides and who watches.

        Args:
            slot: holds the router.
            limits: bound the queries of a request, and of one run of the router.
            observe: called with the decisions for each request.
            shadow: replies name the strong model, whatever was decided.
        """
        self._slot = slot
        self._limits = limits
        self._observe = observe
        self._shadow = shadow

    def __call__(self, jobs: Sequence[Job]) -> list[bytes | Exception]:
        """One reply per job, in order: a JSON body, or the `RequestError` that the job is answered with."""
        active = self._slot.current
        parsed = [self._parse(job) for job in jobs]
        requests = [request for request in parsed if isinstance(request, _Request)]
        failed: dict[int, RequestError] = {}
        try:
            self._decide(active.router, requests)
        except Exception:  # noqa: BLE001 - one unusable request must not fail its neighbours: decide each alone
            for request in requests:
                error = self._decide_alone(active.router, request)
                if error is not None:
                    failed[id(request)] = error
        return [
            request if isinstance(request, RequestError) else failed.get(id(request)) or self._reply(request, active)
            for request in parsed
        ]

    def _parse(self, job: Job) -> _Request | RequestError:
        try:
            content = SCORING_REQUEST.validate_json(job.body)
            policy = policy_of(content.get("threshold"), content.get("strong_share"))
            check_queries(content["queries"], self._limits)
        except ValidationError as error:
            return RequestError(*validation_problem(error))
        except InputError as error:
            return RequestError(422, "invalid_request", str(error))
        except RequestError as error:
            return error
        context = {key: str(value) for key, value in content.get("context", {}).items()}
        return _Request(job, content["queries"], context, policy or self._slot.policy)

    def _decide_alone(self, router: Router, request: _Request) -> RequestError | None:
        try:
            request.parts.clear()
            self._decide(router, [request])
        except InputError as error:
            return RequestError(422, "invalid_request", str(error))
        except Exception as error:  # noqa: BLE001 - a request is answered, whatever the router does
            log_error(logger, "the router failed", error)
            return RequestError(500, "internal", "the router failed; the log of the service says where")
        return None

    def _decide(self, router: Router, requests: Sequence[_Request]) -> None:
        """Decide all queries of some requests, at most `max_batch` of them in one run of the router."""
        queries = [query for request in requests for query in request.queries]
        contexts = [request.context for request in requests for _ in request.queries]
        for start in range(0, len(queries), self._limits.max_batch):
            stop = min(start + self._limits.max_batch, len(queries))
            assessment = router.assess(queries[start:stop], contexts[start:stop])
            first = 0
            for request in requests:
                low, high = max(first, start), min(first + len(request.queries), stop)
                first += len(request.queries)
                if low < high:
                    whole = high - low == len(assessment.quality)
                    part = assessment if whole else assessment.rows(range(low - start, high - start))
                    decisions = decide_by(request.policy, router, part, contexts[low:high])
                    begun = first - len(request.queries)
                    decisions = _able(router, request.queries[low - begun : high - begun], decisions)
                    request.parts.append((decisions, part))

    def _reply(self, request: _Request, active: ActiveRouter) -> bytes:
        decisions = [decision for part, _ in request.parts for decision in part]
        ids = self._report(request)
        if self._shadow:
            decisions = [shadowed(decision, active.router.strong) for decision in decisions]
        reply: RouteReply | ScoreReply
        if request.job.kind == "route":
            reply = {"decisions": decisions, "bundle": active.digest, "ids": ids or None}
        else:
            reply = {
                "scores": [decision.score for decision in decisions],
                "models": [decision.model for decision in decisions],
                "sources": [decision.source for decision in decisions],
                "bundle": active.digest,
            }
        return to_json(reply, inf_nan_mode="null")

    def _report(self, request: _Request) -> list[str]:
        """Report the decisions for a request: their ids in the decision log."""
        ids: list[str] = []
        latency_s = time.perf_counter() - request.job.since
        first = 0
        for decisions, assessment in request.parts:
            queries = request.queries[first : first + len(decisions)]
            first += len(decisions)
            try:
                ids += self._observe(queries, decisions, assessment, request.context, latency_s)
                if len(request.queries) == 1:  # a span takes one decision
                    request.job.trace.run(annotate, decisions[0], latency_s=latency_s)
            except Exception as error:  # noqa: BLE001 - an observer must not fail the request
                log_error(logger, "an observer failed; the request is not affected", error)
        return ids


def _able(router: Router, queries: Sequence[Query], decisions: list[Decision]) -> list[Decision]:
    """The decisions among the models that can serve the queries, where the pool says what models cannot do."""
    if not says_something(router.pool):
        return decisions
    return [
        among_able(decision, router.pool, needs_of({"messages": query}), router.strong)
        for query, decision in zip(queries, decisions, strict=True)
    ]
