"""What became of decided queries, as callers report it: what calibration and escalation are watched by."""

from __future__ import annotations

import anyio.to_thread
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.types import Receive, Scope

from ..routers.monitor import EscalationMonitor
from ..routers.route_monitor import RouteMonitor
from .limits import Limits, RequestError, read_body
from .queueing import Lanes
from .schemas import OUTCOMES, invalid


class OutcomeTaker:
    """Hands what is reported to the monitors."""

    def __init__(self, monitor: RouteMonitor, escalation: EscalationMonitor, lanes: Lanes, limits: Limits) -> None:
        """Take who is told, and what a request may hold."""
        self._monitor = monitor
        self._escalation = escalation
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
        most = self._limits.max_queries
        for name, entries in (("outcomes", outcomes), ("escalations", escalations)):
            if len(entries) > most:
                raise RequestError(422, "too_large", f"{len(entries):,} entries in a request; at most {most:,}", name)
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
        return to_json({"taken": len(outcomes) + len(escalations)})
