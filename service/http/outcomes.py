"""Outcomes of decided queries, as callers report them; the monitors of calibration and escalation take them in."""

from __future__ import annotations

import anyio.to_thread
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.types import Receive, Scope

from ...monitoring.decision_log import DecisionLog
from ...monitoring.escalation import EscalationMonitor
from ...monitoring.routing import RouteMonitor
from ..defaults import RequestLimits
from .lanes import Lanes
from .replies import RequestError
from .request_limits import check_count, read_body
from .schemas import OUTCOMES_REQUEST, OutcomesReply, validation_problem
from .usage import UsageReceiver


class OutcomeReceiver:
    """Hands the outcomes that callers report to the monitors and to the decision log."""

    def __init__(
        self,
        monitor: RouteMonitor,
        escalation: EscalationMonitor,
        log: DecisionLog | None,
        lanes: Lanes,
        limits: RequestLimits,
        usage: UsageReceiver,
    ) -> None:
        """Set who gets the outcomes, and the limits of a request.

        Args:
            monitor: compares scores with outcomes.
            escalation: counts the escalations of cascades.
            log: gets the outcomes of logged decisions; None: they are refused.
            lanes: count the requests that are being read.
            limits: bound the body, and the entries of each kind by `max_queries`.
            usage: takes in what calls used.
        """
        self._monitor = monitor
        self._escalation = escalation
        self._log = log
        self._lanes = lanes
        self._limits = limits
        self._usage = usage

    async def answer(self, scope: Scope, receive: Receive) -> bytes:
        """Read a request and take in all of it: the JSON body of the reply.

        Raises:
            RequestError: the request is wrong; then nothing of it is taken in.
        """
        with self._lanes.admitted():
            return await anyio.to_thread.run_sync(self._receive, await read_body(scope, receive, self._limits))

    def _receive(self, body: bytes) -> bytes:
        try:
            content = OUTCOMES_REQUEST.validate_json(body)
        except ValidationError as error:
            raise RequestError(*validation_problem(error)) from None
        outcomes, escalations = content.get("outcomes", []), content.get("escalations", [])
        logged, usage = content.get("logged", []), content.get("usage", [])
        for name, number in (
            ("outcomes", len(outcomes)),
            ("escalations", len(escalations)),
            ("logged", len(logged)),
            ("usage", len(usage)),
        ):
            check_count(name, number, self._limits)
        self._usage.check(usage)
        known = 0
        if logged:
            if self._log is None:
                message = "the service has no decision log; expected it to run with --decision-log FILE"
                raise RequestError(422, "invalid_request", message, "logged")
            known = sum(self._log.write_outcome(entry["id"], entry["outcome"]) for entry in logged)
        for outcome in outcomes:
            self._monitor.outcome(outcome["score"], outcome["strong_won"])
        for cascade in escalations:
            self._escalation.observe(
                model=cascade["model"],
                escalated=cascade["escalated"],
                use_case=cascade.get("use_case", ""),
                latency_s=cascade.get("latency_s"),
                cost_usd=cascade.get("cost_usd"),
                key=cascade.get("key"),
            )
        unknown = len(logged) - known + self._usage.take(usage)
        taken = len(outcomes) + len(escalations) + len(logged) + len(usage)
        reply: OutcomesReply = {"taken": taken, "unknown": unknown}
        return to_json(reply)
