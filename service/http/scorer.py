"""From the raw bytes of requests to the raw bytes of replies, in a worker thread: the event loop only moves them."""

from __future__ import annotations

import contextvars
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ValidationError
from pydantic_core import to_json

from ...monitoring.tracing import annotate
from ...policies.threshold import policy_of
from ...routers.base import Assessment, Context, Decision, Policy, Router, decide_by
from ...routers.errors import InputError
from ...routers.query import Query
from .request_limits import Limits, RequestError
from .schemas import REQUEST, invalid
from .slot import RouterSlot, Served

logger = logging.getLogger(__name__)

#: Told of what was decided for a request: queries, decisions, what was known of them, context, seconds since it came.
#: Gives the ids under which the decisions were logged; none where there is no log.
Observe = Callable[[Sequence[Query], Sequence[Decision], Assessment, Context, float], list[str]]


@dataclass(frozen=True, slots=True)
class Job:
    """One request with its body read.

    Attributes:
        kind: what to reply.
        body: JSON, not yet parsed.
        since: `time.perf_counter` when it came.
        trace: holds the span of the request, where there is a tracer.
    """

    kind: Literal["route", "score"]
    body: bytes
    since: float = field(default_factory=time.perf_counter)
    trace: contextvars.Context = field(default_factory=contextvars.copy_context)


@dataclass(slots=True)
class _Request:
    """A job once it is parsed, and what was decided so far."""

    job: Job
    queries: Sequence[Query]
    context: Context
    policy: Policy | None
    decided: list[tuple[list[Decision], Assessment]] = field(default_factory=list)


class Scorer:
    """Answers batches of jobs; the `work` of a `Lane`. Safe to share between threads."""

    def __init__(self, slot: RouterSlot, limits: Limits, observe: Observe) -> None:
        """Take where the router is, what a request may hold, and who is told of decisions."""
        self._slot = slot
        self._limits = limits
        self._observe = observe

    def __call__(self, jobs: Sequence[Job]) -> list[bytes | RequestError]:
        """One reply a job, in order: a JSON body, or the error that it is answered with."""
        served = self._slot.current
        parsed = [self._parse(job) for job in jobs]
        requests = [one for one in parsed if isinstance(one, _Request)]
        failed: dict[int, RequestError] = {}
        try:
            self._decide(served.router, requests)
        except Exception:  # noqa: BLE001 - one unusable request must not fail its neighbours: each alone, then
            failed = {id(one): error for one in requests if (error := self._decide_alone(served.router, one))}
        return [
            one if isinstance(one, RequestError) else failed.get(id(one)) or self._reply(one, served) for one in parsed
        ]

    def _parse(self, job: Job) -> _Request | RequestError:
        try:
            content = REQUEST.validate_json(job.body)
            policy = policy_of(content.get("threshold"), content.get("strong_share"))
        except ValidationError as error:
            return RequestError(*invalid(error))
        except InputError as error:
            return RequestError(422, "invalid_request", str(error))
        excess = self._limits.check(content["queries"])
        if excess is not None:
            return RequestError(422, "too_large", *excess)
        context = {key: str(value) for key, value in content.get("context", {}).items()}
        return _Request(job, content["queries"], context, policy or self._slot.policy)

    def _decide_alone(self, router: Router, request: _Request) -> RequestError | None:
        try:
            request.decided.clear()
            self._decide(router, [request])
        except InputError as error:
            return RequestError(422, "invalid_request", str(error))
        except Exception as error:  # noqa: BLE001 - a request is answered, whatever the router does
            log_unexpected(error)
            return RequestError(500, "internal", "the router failed")
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
                    request.decided.append((decide_by(request.policy, router, part, contexts[low:high]), part))

    def _reply(self, request: _Request, served: Served) -> bytes:
        decisions = [decision for part, _ in request.decided for decision in part]
        ids = self._tell(request)
        if request.job.kind == "route":
            reply = {"decisions": decisions, "bundle": served.digest, "ids": ids or None}
            return to_json(reply, inf_nan_mode="null")
        content = {
            "scores": [decision.score for decision in decisions],
            "models": [decision.model for decision in decisions],
            "sources": [decision.source for decision in decisions],
            "bundle": served.digest,
        }
        return to_json(content, inf_nan_mode="null")

    def _tell(self, request: _Request) -> list[str]:
        ids: list[str] = []
        latency_s = time.perf_counter() - request.job.since
        first = 0
        for decisions, assessment in request.decided:
            queries = request.queries[first : first + len(decisions)]
            first += len(decisions)
            try:
                ids += self._observe(queries, decisions, assessment, request.context, latency_s)
                if len(request.queries) == 1:  # a span takes one decision
                    request.job.trace.run(annotate, decisions[0], latency_s=latency_s)
            except Exception as error:  # noqa: BLE001 - who watches must not fail the request
                log_unexpected(error)
        return ids


def log_unexpected(error: BaseException) -> None:
    """Log where an error came from; not its message, which may quote a prompt."""
    logger.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
