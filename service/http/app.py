"""The HTTP service as a FastAPI application; docs/serve.md describes it, `routelearn serve` runs it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from ... import __version__
from ...monitoring.decision_log import DecisionLog
from ...monitoring.escalation import EscalationMonitor
from ...monitoring.prometheus import register_metrics
from ...monitoring.route_metrics import register_route_metrics
from ...monitoring.routing import RouteMonitor
from ...routers.base import Assessment, Context, Decision
from ...routers.errors import RoutelearnError
from ...routers.query import Query
from . import status_page
from .lanes import Lanes
from .request_limits import Limits, RequestError
from .middleware import (
    HEALTH,
    METRICS,
    OPENAPI,
    OUTCOMES,
    PAGE,
    RELOAD,
    ROUTE,
    ROUTER,
    SCORE,
    STATUS,
    Answer,
    Gate,
    Tokens,
)
from .openapi import document, errors, text
from .outcomes import OutcomeTaker
from .prometheus import HttpMetrics
from .schemas import Health, OutcomesReply, OutcomesRequest, RouteReply, RouterReply, ScoreReply, ScoringRequest
from .scorer import Scorer
from .slot import RouterSlot, watch

_Request = Annotated[ScoringRequest, Body()]


def create_app(
    slot: RouterSlot,
    *,
    limits: Limits | None = None,
    tokens: Tokens | None = None,
    decision_log: DecisionLog | None = None,
    escalation: EscalationMonitor | None = None,
    watch_s: float | None = None,
) -> FastAPI:
    """The service as an ASGI application, for any ASGI server that runs it in one process.

    Args:
        slot: holds the router.
        limits: of requests; None: the default ones.
        tokens: who may ask; None: everybody, and nobody may reload.
        decision_log: gets every decision; closed with the service.
        escalation: the monitor of a cascade in this process; None: one that knows what callers report.
        watch_s: look for a newer bundle every so many seconds; None: never by itself.
    """
    limits, tokens = limits or Limits(), tokens or Tokens()
    monitor, escalation = RouteMonitor(slot.current.router), escalation or EscalationMonitor()
    slot.on_reload = monitor.follow

    def observe(
        queries: Sequence[Query],
        decisions: Sequence[Decision],
        assessment: Assessment,
        context: Context,
        latency_s: float,
    ) -> list[str]:
        monitor.observe_batch(decisions, assessment, latency_s)
        if decision_log is None:
            return []
        return [
            decision_log.write(query, decision, latency_s=latency_s, context=context)
            for query, decision in zip(queries, decisions, strict=True)
        ]

    lanes = Lanes(Scorer(slot, limits, observe), limits)
    metrics = HttpMetrics(slot, lambda: lanes.waiting)
    register_route_metrics(monitor, metrics.registry)
    register_metrics(escalation, metrics.registry)
    answers: dict[str, Answer] = {
        SCORE: partial(lanes.answer, "score"),
        ROUTE: partial(lanes.answer, "route"),
        OUTCOMES: OutcomeTaker(monitor, escalation, decision_log, lanes, limits).answer,
    }

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        lanes.open()
        watching = asyncio.create_task(watch(slot, watch_s)) if watch_s else None
        yield
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        lanes.close()
        if decision_log is not None:
            decision_log.close()

    app = FastAPI(
        title="routelearn",
        version=__version__,
        summary="Scores queries and chooses a model for each.",
        lifespan=lifespan,
        openapi_url=None,  # served below, ready made
        redirect_slashes=False,
    )
    app.add_middleware(Gate, answers=answers, metrics=metrics, tokens=tokens)
    app.add_exception_handler(HTTPException, _http_error)
    _describe_bodies(app)
    _add_router(app, slot)
    started = time.monotonic()

    def status() -> dict[str, Any]:
        return {
            "uptime_s": time.monotonic() - started,
            "requests": metrics.requests,
            "waiting": lanes.waiting,
            "max_waiting": limits.max_waiting,
            "router": slot.describe(),
            "monitor": monitor.as_dict(),
            "escalation": escalation.as_dict(),
        }

    _add_watching(app, slot, metrics, status)
    api = to_json(document(app, limits, tokens))

    @app.get(OPENAPI, include_in_schema=False)
    async def openapi() -> Response:
        return Response(api, media_type="application/json")

    return app


def _describe_bodies(app: FastAPI) -> None:
    """The endpoints that the gate answers: here FastAPI gets to know them."""
    replies = errors(400, 401, 408, 413, 415, 422, 429, 500, 503)

    @app.post(SCORE, response_model=ScoreReply, responses=replies, operation_id="score")
    async def score(request: _Request) -> None:
        """Score queries: the expected win rate of strong over weak, and the model that follows for each."""

    @app.post(ROUTE, response_model=RouteReply, responses=replies, operation_id="route")
    async def route(request: _Request) -> None:
        """Decide queries: model, ranked candidates, score, threshold, and the reason in words."""

    @app.post(OUTCOMES, response_model=OutcomesReply, responses=replies, operation_id="outcomes")
    async def outcomes(request: Annotated[OutcomesRequest, Body()]) -> None:
        """Report what became of queries: drift of the calibration and escalation follow from it."""


def _add_router(app: FastAPI, slot: RouterSlot) -> None:
    @app.get(ROUTER, response_model=RouterReply, responses=errors(401, 500), operation_id="router")
    def router() -> Response:
        """The router in service, and how the last reload went."""
        return _json(slot.describe())

    @app.post(RELOAD, response_model=RouterReply, responses=errors(401, 403, 409, 500), operation_id="reload")
    def reload() -> Response:
        """Load the bundle again, verify it and let it answer; takes the admin token."""
        try:
            slot.reload()
        except (RoutelearnError, OSError) as error:
            raise RequestError(409, "bundle_refused", str(error)) from error
        return _json(slot.describe())


def _add_watching(app: FastAPI, slot: RouterSlot, metrics: HttpMetrics, found: Callable[[], dict[str, Any]]) -> None:
    @app.get(HEALTH, response_model=Health, responses=errors(500), operation_id="health")
    async def health() -> Response:
        """The process answers, and who decides: needs no token."""
        return _json({"status": "ok", "answers": slot.current.answers})

    @app.get(STATUS, response_model=dict[str, Any], responses=errors(401, 500), operation_id="status")
    def status() -> Response:
        """What the status page shows: requests, the monitor's numbers, the router."""
        return _json(found())

    @app.get(
        METRICS, responses={**text("text/plain"), **errors(401, 500)}, response_class=Response, operation_id="metrics"
    )
    def prometheus() -> Response:
        """All numbers, for Prometheus."""
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE_LATEST})

    @app.get(PAGE, responses={**text("text/html"), **errors(500)}, response_class=Response, operation_id="page")
    async def page() -> Response:
        """The status page; asks for the token where there is one."""
        return Response(status_page.HTML, headers=status_page.HEADERS)


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework itself refuses, in the one shape of errors."""
    del request
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    detail = {"type": phrase.lower().replace(" ", "_"), "message": f"{phrase}; {OPENAPI} says what there is"}
    return _json({"error": detail}, error.status_code, dict(error.headers or {}))


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(content, inf_nan_mode="null"), status, headers, "application/json")
