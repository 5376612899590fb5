"""The HTTP service as a FastAPI application; docs/serve.md describes it, and `routelearn serve` runs it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from ... import __version__
from ...monitoring.decision_log import DecisionLog
from ...monitoring.escalation import EscalationMonitor
from ...monitoring.prometheus import register
from ...monitoring.routing import RouteMonitor
from ...monitoring.savings import Savings
from ...routers.assessment import Assessment
from ...routers.base import Router
from ...routers.decision import Context, Decision
from ...routers.query import Query
from ..defaults import RequestLimits
from ..request_rules import RequestRules
from ..wire_names import OUTCOMES, ROUTE, SCORE
from .endpoints import (
    add_monitoring_endpoints,
    add_openapi_endpoint,
    add_proxy_endpoints,
    add_router_endpoints,
    describe_body_endpoints,
    framework_error,
)
from .lanes import Lanes
from .middleware import BodyEndpoint, Gate, Tokens
from .openapi import document
from .outcomes import OutcomeReceiver
from .prometheus import HttpMetrics
from .schemas import StatusReply
from .scorer import Scorer
from .slot import RouterSlot, watch
from .usage import UsageReceiver

logger = logging.getLogger(__name__)


class _Service:
    """The parts of one service: queues, monitors, metrics and the decision log."""

    def __init__(
        self,
        slot: RouterSlot,
        limits: RequestLimits,
        decision_log: DecisionLog | None,
        escalation: EscalationMonitor,
        watch_s: float | None,
        rules: RequestRules | None,
        savings: Savings,
        shadow: bool,
    ) -> None:
        self._slot = slot
        self._limits = limits
        self._log = decision_log
        self._escalation = escalation
        self._watch_s = watch_s
        self._started = time.monotonic()
        self._monitor = RouteMonitor(slot.current.router)
        self._rules = rules or RequestRules()
        self._rules.pool_of(slot.current.router)  # refuses what does not fit now, and not at each request
        slot.on_reload = self._follow
        self._lanes = Lanes(Scorer(slot, limits, self._observe, self._rules, shadow=shadow), limits)
        self._usage = UsageReceiver(savings, decision_log, slot)
        self._shadow = shadow
        self.metrics = HttpMetrics(slot, lambda: self._lanes.waiting)
        register(self._monitor, self.metrics.registry)
        register(escalation, self.metrics.registry)
        register(savings, self.metrics.registry)
        self.metrics.say_shadow(shadow)

    def body_endpoints(self) -> dict[str, BodyEndpoint]:
        """What answers POST, by path."""
        receiver = OutcomeReceiver(self._monitor, self._escalation, self._log, self._lanes, self._limits, self._usage)
        return {
            SCORE: partial(self._lanes.answer, "score"),
            ROUTE: partial(self._lanes.answer, "route"),
            OUTCOMES: receiver.answer,
        }

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Open the queues and watch the bundle while the application runs."""
        del app
        self._lanes.open()
        watching = asyncio.create_task(watch(self._slot, self._watch_s)) if self._watch_s else None
        yield
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        self._lanes.close()
        if self._log is not None:
            self._log.close()

    def _follow(self, router: Router) -> None:
        """Heed that another router takes over.

        Raises:
            InputError: the rules describe a model that it does not have; the router is then refused.
        """
        self._rules.pool_of(router)
        self._monitor.follow(router)
        if set(router.models) != set(self._slot.current.router.models):
            logger.warning(
                "the bundle has the models %s; the prices by which sessions and savings count are still those of %s: "
                "start the service anew",
                list(router.models),
                list(self._slot.current.router.models),
            )

    def status(self) -> StatusReply:
        """What the status page shows."""
        return {
            "uptime_s": time.monotonic() - self._started,
            "requests": self.metrics.requests,
            "waiting": self._lanes.waiting,
            "max_waiting": self._limits.max_waiting,
            "router": self._slot.describe(),
            "monitor": self._monitor.as_dict(),
            "escalation": self._escalation.as_dict(),
            "savings": self._usage.savings.report().as_dict(),
            "shadow": self._shadow,
        }

    def _observe(
        self,
        queries: Sequence[Query],
        decisions: Sequence[Decision],
        assessment: Assessment,
        context: Context,
        latency_s: float,
    ) -> list[str]:
        """Count and log decisions: their ids in the decision log."""
        self._monitor.observe_batch(decisions, assessment, latency_s, queries)
        if self._log is None:
            return []
        served = self._slot.current.router.strong if self._shadow else None
        ids = [
            self._log.write(query, decision, latency_s=latency_s, context=context, served=served)
            for query, decision in zip(queries, decisions, strict=True)
        ]
        if not self._shadow:
            self._usage.decided(ids, decisions)
        return ids


def create_app(
    slot: RouterSlot,
    *,
    limits: RequestLimits | None = None,
    tokens: Tokens | None = None,
    decision_log: DecisionLog | None = None,
    escalation: EscalationMonitor | None = None,
    watch_s: float | None = None,
    rules: RequestRules | None = None,
    savings: Savings | None = None,
    shadow: bool = False,
) -> FastAPI:
    """The service as an ASGI application, for any ASGI server that runs it in one process.

    Args:
        slot: holds the router.
        limits: bound the requests; None: the defaults.
        tokens: let callers in; None: everybody may ask, and nobody may reload.
        decision_log: gets every decision, and is closed when the application ends; None: decisions are not logged.
        escalation: the monitor of a cascade in this process; None: the service makes a monitor for the escalations
            that callers report.
        watch_s: seconds between two looks for a newer bundle; None: the service does not look.
        rules: what requests change of the router's decisions, such as sessions; None: what models cannot do, as far as
            the router's pool says it.
        savings: counts the calls that callers report; None: the service makes one with the prices of the router's pool.
        shadow: decisions are logged, and replies name the strong model.
    """
    limits, tokens = limits or RequestLimits(), tokens or Tokens()
    router = slot.current.router
    savings, escalation = savings or Savings(router.pool), escalation or EscalationMonitor(known=router.models)
    service = _Service(slot, limits, decision_log, escalation, watch_s, rules, savings, shadow)
    app = FastAPI(
        title="routelearn",
        version=__version__,
        summary="Scores queries, and chooses a model for each of them.",
        lifespan=service.lifespan,
        openapi_url=None,  # `add_openapi_endpoint` serves a finished document
        redirect_slashes=False,
    )
    app.add_middleware(Gate, endpoints=service.body_endpoints(), metrics=service.metrics, tokens=tokens)
    app.add_exception_handler(HTTPException, framework_error)
    describe_body_endpoints(app)
    add_router_endpoints(app, slot)
    add_monitoring_endpoints(app, slot, service.metrics, service.status, savings)
    add_proxy_endpoints(app)
    add_openapi_endpoint(app, document(app, limits, tokens))
    return app
