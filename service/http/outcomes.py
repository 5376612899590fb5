"""What became of decided queries, as callers report it: what calibration and escalation are watched by."""

from __future__ import annotations

import anyio.to_thread
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.types import Receive, Scope

from ...monitoring.decision_log import DecisionLog
from ...monitoring.escalation import EscalationMonitor
from ...monitoring.routing import RouteMonitor
from .lanes import Lanes
from .request_limits import Limits, RequestError, read_body
from .schemas import OUTCOMES, invalid


class OutcomeTaker:
    """Hands what is reported to the monitors."""

    def __init__(
        self,
        monitor: RouteMonitor,
        escalation: EscalationMonitor,
        log: DecisionLog | None,
        lanes: Lanes,
        limits: Limits,
    ) -> None:
        """Take who is told, and what a request may hold."""
        self._monitor = monitor
        self._escalation = escalation
        self._log = log
        self._lanes = lanes
        self._limits = limits

    async def answer(self, scope: Scope, receive: Receive) -> bytes:
        """Read a request and take it in whole: the JSON body of the reply.

        Raises:
            RequestError: whatever is wrong with it; then nothing of it was taken in.
        """
        with self._lanes.admitted():
            return await anyio.to_thread.run_sync(self._take, await read_body(scope, receive, self._limits))

    def _take(self, body: bytes) -> bytes:
        try:
            content = OUTCOMES.validate_json(body)
        except ValidationError as error:
            raise RequestError(*invalid(error)) from None
        outcomes, escalations = content.get("outcomes", []), content.get("escalations", [])
        logged = content.get("logged", [])
        most = self._limits.max_queries
        for name, count in (("outcomes", len(outcomes)), ("escalations", len(escalations)), ("logged", len(logged))):
            if count > most:
                raise RequestError(422, "too_large", f"{count:,} entries in a request; at most {most:,}", name)
        if logged and self._log is None:
            raise RequestError(422, "invalid_request", "there is no decision log: --decision-log FILE", "logged")
        for entry in logged:
            if self._log is not None:
                self._log.write_outcome(entry["id"], entry["outcome"])
        for outcome in outcomes:
            self._monitor.outcome(outcome["score"], outcome["strong_won"])
        for cascade in escalations:
            self._escalation.observe(
                model=cascade["model"],
                escalated=cascade["escalated"],
                use_case=cascade.get("use_case", ""),
                latency_s=cascade.get("latency_s"),
                cost_usd=cascade.get("cost_usd"),
            )
        return to_json({"taken": len(outcomes) + len(escalations) + len(logged)})
