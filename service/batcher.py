"""Concurrent requests scored as one batch, by a thread of its own: an event loop never waits for a router."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..routers.base import Context, Decision, Policy, Router, decide_by
from ..routers.errors import InputError
from ..routers.query import Query

logger = logging.getLogger(__name__)

#: Why a request got the safe answer: `Decision.cause`.
SafeCause = Literal["busy", "timeout", "error", "closed"]


class OnDecision(Protocol):
    """Told of each decision, by the thread that made it."""

    def __call__(
        self, query: Query, decision: Decision, *, novelty: float | None, vector: Any, latency_s: float
    ) -> object:
        """One decision: what the assessment says of it, and the seconds from request to decision."""
        ...


_REASONS = {
    "busy": "too many requests wait for the router",
    "timeout": "the router took too long",
    "error": "the router failed",
    "closed": "the router is being shut down",
}


def safe_decision(router: Router, cause: SafeCause, detail: str = "") -> Decision:
    """The strong model, in no time: what is answered when nothing can be scored.

    Args:
        router: names strong and the pool.
        cause: becomes `Decision.cause`.
        detail: what went wrong, for the reason.
    """
    others = tuple(name for name in router.models if name != router.strong)
    reason = f"{_REASONS[cause]}{f' ({detail})' if detail else ''}; {router.strong} is the safe answer"
    return Decision(router.strong, 1.0, router.threshold, (router.strong, *others), "default", reason, cause=cause)


@dataclass(eq=False, slots=True)
class _Waiting:
    """One request, from its event loop to the worker and back. Whoever claims it first answers it."""

    query: Query
    context: Context
    policy: Policy | None
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Decision | InputError]
    since: float = field(default_factory=time.perf_counter)
    claimed: bool = False


_Answered = tuple[_Waiting, Decision | InputError]


class Batcher:
    """Routes single requests of any number of event loops and threads, in the batches in which they happen to wait.

    A request that finds the router idle is scored at once; those that arrive while a batch runs form the next one.
    So nothing waits for a batch to fill, and the busier the service, the larger (and cheaper) the batches.

    A request always gets a decision: when too many wait, the router is too slow or fails, the answer is the strong
    model, and the decision's cause says why ("busy", "timeout", "error", "closed").

    Attributes:
        router: used for the next batch; set it to exchange the router while requests run.
        policy: for requests that bring none; None: the router's own threshold.
    """

    def __init__(
        self,
        router: Router,
        policy: Policy | None = None,
        *,
        max_batch: int = 32,
        max_waiting: int = 1000,
        timeout_s: float = 1.0,
        on_decision: OnDecision | None = None,
    ) -> None:
        """Set the limits; the worker starts with the first request.

        Args:
            router: scores the queries.
            policy: for requests that bring none.
            max_batch: most requests in one batch: bounds how long a request waits for those before it, and how
                long the worker holds the interpreter.
            max_waiting: requests beyond it get the safe answer at once.
            timeout_s: longest a request waits, seconds.
            on_decision: told of each decision that was answered, once; what it raises is logged.

        Raises:
            InputError: a limit is not above 0.
        """
        for name, value in (("max_batch", max_batch), ("max_waiting", max_waiting), ("timeout_s", timeout_s)):
            if not value > 0:
                raise InputError(f"{name} is {value}; expected a number above 0")
        self.router = router
        self.policy = policy
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._timeout_s = timeout_s
        self._on_decision = on_decision
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()  # guards the queue, the claims and the two below
        self._worker: threading.Thread | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Requests that wait for a batch."""
        return len(self._queue)

    async def route(self, query: Query, context: Context | None = None, policy: Policy | None = None) -> Decision:
        """The decision for one request; see `Router.route`. A cancelled request is not scored, or its score dropped.

        Raises:
            InputError: the query, or the policy for this router, is unusable.
        """
        loop = asyncio.get_running_loop()
        request = _Waiting(query, context or {}, policy or self.policy, loop, loop.create_future())
        refused = self._enqueue(request)
        if refused is not None:
            return self._safe(request, refused)
        expiry = loop.call_later(self._timeout_s, self._expire, request)
        try:
            found = await request.answer
        except asyncio.CancelledError:
            self._claim(request)
            raise
        finally:
            expiry.cancel()
        if isinstance(found, InputError):
            raise found
        return found

    def close(self) -> None:
        """Answer what waits with the safe answer and stop the worker; later requests get the safe answer."""
        with self._changed:
            self._closed = True
            left = [request for request in self._queue if not request.claimed]
            self._queue.clear()
            for request in left:
                request.claimed = True
            self._changed.notify_all()
            worker = self._worker
        self._deliver([(request, self._safe(request, "closed")) for request in left])
        if worker is not None and worker is not threading.current_thread():
            worker.join(self._timeout_s)

    def _enqueue(self, request: _Waiting) -> SafeCause | None:
        with self._changed:
            if self._closed:
                return "closed"
            if len(self._queue) >= self._max_waiting:
                return "busy"
            if self._worker is None or not self._worker.is_alive():  # also in a process forked after the first request
                self._worker = threading.Thread(target=self._work, name="routelearn-batcher", daemon=True)
                self._worker.start()
            self._queue.append(request)
            self._changed.notify()
        return None

    def _claim(self, request: _Waiting) -> bool:
        with self._changed:
            first = not request.claimed
            request.claimed = True
        return first

    def _expire(self, request: _Waiting) -> None:
        if self._claim(request) and not request.answer.done():
            request.answer.set_result(self._safe(request, "timeout"))

    def _safe(self, request: _Waiting, cause: SafeCause, detail: str = "") -> Decision:
        decision = safe_decision(self.router, cause, detail)
        self._report(request, decision, None, None)
        return decision

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            groups: list[list[_Waiting]] = []  # by policy, mostly one
            for request in batch:
                same = next((group for group in groups if group[0].policy == request.policy), None)
                if same is None:
                    groups.append([request])
                else:
                    same.append(request)
            self._deliver([answer for group in groups for answer in self._answers(group)])

    def _next_batch(self) -> list[_Waiting] | None:
        """The next requests that nobody claimed; None: closed."""
        with self._changed:
            while True:
                batch: list[_Waiting] = []
                while self._queue and len(batch) < self._max_batch:
                    request = self._queue.popleft()
                    if not request.claimed:
                        batch.append(request)
                if batch:
                    return batch
                if self._closed:
                    return None
                self._changed.wait()

    def _answers(self, batch: Sequence[_Waiting]) -> list[_Answered]:
        """Decisions for requests of one policy."""
        router, policy = self.router, batch[0].policy
        try:
            assessment = router.assess([one.query for one in batch], [one.context for one in batch])
            decisions = decide_by(policy, router, assessment, [one.context for one in batch])
        except Exception as error:
            if len(batch) > 1:  # one unusable query must not decide for its neighbours
                return [answer for one in batch for answer in self._answers([one])]
            if isinstance(error, InputError):
                return [(batch[0], error)] if self._claim(batch[0]) else []
            logger.exception("the router failed, the strong model answers")
            return [(batch[0], self._safe(batch[0], "error", type(error).__name__))] if self._claim(batch[0]) else []
        answers: list[_Answered] = []
        for row, (request, decision) in enumerate(zip(batch, decisions, strict=True)):
            if self._claim(request):
                novelty = None if assessment.novelty is None else float(assessment.novelty[row])
                self._report(
                    request, decision, novelty, None if assessment.vectors is None else assessment.vectors[row]
                )
                answers.append((request, decision))
        return answers

    def _report(self, request: _Waiting, decision: Decision, novelty: float | None, vector: Any) -> None:
        if self._on_decision is None:
            return
        try:
            latency_s = time.perf_counter() - request.since
            self._on_decision(request.query, decision, novelty=novelty, vector=vector, latency_s=latency_s)
        except Exception:
            logger.exception("on_decision raised; the request is not affected")

    def _deliver(self, answers: Sequence[_Answered]) -> None:
        for loop in dict.fromkeys(request.loop for request, _ in answers):
            try:
                loop.call_soon_threadsafe(_resolve, [answer for answer in answers if answer[0].loop is loop])
            except RuntimeError:  # the loop is closed: nobody waits there any more
                logger.debug("an event loop was closed before its decisions came")


def _resolve(answers: Sequence[_Answered]) -> None:
    for request, found in answers:
        if not request.answer.done():
            request.answer.set_result(found)
