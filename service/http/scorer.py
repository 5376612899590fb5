"""Parses, scores and answers requests in a worker thread; the event loop only moves their raw bytes."""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import ValidationError
from pydantic_core import to_json

from ...monitoring.tracing import annotate
from ...policies.shadow import shadowed
from ...policies.threshold import policy_of
from ...routers.assessment import Assessment
from ...routers.base import Policy, Router, decide_by
from ...routers.decision import Context, Decision
from ...routers.error_log import log_error
from ...routers.errors import InputError
from ...routers.query import Query
from ..defaults import RequestLimits
from ..request_facts import NOTHING_KNOWN, RequestFacts
from ..request_rules import RequestRules
from .replies import RequestError
from .request_limits import check_queries
from .schemas import SCORING_REQUEST, RouteReply, ScoreReply, ScoringRequest, validation_problem
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
    """A parsed job: what is known of its queries, what the router reads of them, and the decisions so far."""

    job: Job
    queries: Sequence[Query]
    context: Context
    policy: Policy | None
    sessions: Sequence[str | None] = ()
    facts: list[RequestFacts] = field(default_factory=list)
    asked: list[Query] = field(default_factory=list)
    parts: list[tuple[list[Decision], Assessment]] = field(default_factory=list)


class Scorer:
    """Answers batches of jobs; the `work` of a `Lane`. Threads may share it."""

    def __init__(
        self,
        slot: RouterSlot,
        limits: RequestLimits,
        observe: Observe,
        rules: RequestRules | None = None,
        *,
        shadow: bool = False,
    ) -> None:
        """Set what decides and who watches.

        Args:
            slot: holds the router.
            limits: bound the queries of a request, and of one run of the router.
            observe: called with the decisions for each request.
            rules: what requests change of the router's decisions; None: what models cannot do, as far as the router's
                pool says it.
            shadow: replies name the strong model, whatever was decided.
        """
        self._rules = rules or RequestRules()
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
            sessions = self._sessions(content)
        except ValidationError as error:
            return RequestError(*validation_problem(error))
        except InputError as error:
            return RequestError(422, "invalid_request", str(error))
        except RequestError as error:
            return error
        context = {key: str(value) for key, value in content.get("context", {}).items()}
        return _Request(job, content["queries"], context, policy or self._slot.policy, sessions)

    def _sessions(self, content: ScoringRequest) -> Sequence[str | None]:
        """The session of each query, as the request says it.

        Raises:
            RequestError: the service keeps no sessions, or there is not one for each query.
        """
        sessions = content.get("sessions")
        if sessions is None:
            return ()
        count = len(content["queries"])
        if self._rules.sessions is None:
            problem = "the service keeps no sessions; expected it to run with --sessions"
        elif len(sessions) != count:
            problem = f"sessions has {len(sessions)} entries for {count} queries; expected one for each"
        else:
            return sessions
        raise RequestError(422, "invalid_request", problem, "sessions")

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
        for request in requests:
            if not request.facts:
                self._read(router, request)
        queries = [query for request in requests for query in request.asked]
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
                    known = request.facts[low - begun : high - begun]
                    decisions = [
                        decision if facts is NOTHING_KNOWN else self._rules.decided(decision, facts, router)
                        for decision, facts in zip(decisions, known, strict=True)
                    ]
                    request.parts.append((decisions, part))

    def _read(self, router: Router, request: _Request) -> None:
        """Read what is known of the queries beside their text, and what the router reads of each."""
        for place, query in enumerate(request.queries):
            facts = self._facts_of(router, request, place)
            request.facts.append(facts)
            request.asked.append(self._rules.routed_query(query, facts))

    def _facts_of(self, router: Router, request: _Request, place: int) -> RequestFacts:
        """What is known of one query beside its text. Prompts have no place in an agent's work."""
        query = request.queries[place]
        routes = request.job.kind == "route"
        is_chat = not isinstance(query, str)
        keeps = routes and self._rules.sessions is not None
        if not (is_chat or keeps or self._rules.reads_needs(router)):
            return NOTHING_KNOWN
        body: dict[str, object] = {"messages": query if is_chat else [{"role": "user", "content": query}]}
        if request.sessions and request.sessions[place]:
            body["session_id"] = request.sessions[place]
        facts = self._rules.facts_of(body, router)
        return facts if keeps else replace(facts, session=None)

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
