"""Endpoints of the service in FastAPI's words: what they are called, what they reply, how OpenAPI describes them."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from ...cascade.threads import in_thread
from ...monitoring.savings import Savings
from ...monitoring.savings_report import SavingsReport
from ...routers.errors import RoutelearnError
from ..wire_names import (
    COMPLETIONS,
    HEALTH,
    METRICS,
    MODELS,
    OPENAPI,
    OUTCOMES,
    PAGE,
    RELOAD,
    ROUTE,
    ROUTER,
    SAVINGS,
    SCORE,
    STATUS,
)
from . import status_page
from .openapi import errors, text
from .prometheus import HttpMetrics
from .replies import RequestError
from .schemas import (
    HealthReply,
    OutcomesReply,
    OutcomesRequest,
    RouteReply,
    RouterReply,
    ScoreReply,
    ScoringRequest,
    StatusReply,
)
from .slot import ReloadRunningError, RouterSlot


def describe_body_endpoints(app: FastAPI) -> None:
    """Describe the endpoints that take a body to FastAPI; the middleware answers them."""
    replies = errors(400, 401, 408, 413, 415, 422, 429, 500, 503)

    @app.post(SCORE, response_model=ScoreReply, responses=replies, operation_id="score")
    async def score(request: Annotated[ScoringRequest, Body()]) -> None:
        """Score queries: for each, the expected win rate of the strong model over weak, and the chosen model."""

    @app.post(ROUTE, response_model=RouteReply, responses=replies, operation_id="route")
    async def route(request: Annotated[ScoringRequest, Body()]) -> None:
        """Decide queries: for each the model, ranked candidates, score, threshold, and the reason in words."""

    @app.post(OUTCOMES, response_model=OutcomesReply, responses=replies, operation_id="outcomes")
    async def outcomes(request: Annotated[OutcomesRequest, Body()]) -> None:
        """Report outcomes of decided queries; the service watches calibration and escalation by them."""


def add_router_endpoints(app: FastAPI, slot: RouterSlot) -> None:
    """Add the endpoints that describe and reload the router."""

    @app.get(ROUTER, response_model=RouterReply, responses=errors(401, 500), operation_id="router")
    def router() -> Response:
        """Describe the router in service, and the result of the last reload."""
        return _json(slot.describe())

    @app.post(RELOAD, response_model=RouterReply, responses=errors(401, 403, 409, 500), operation_id="reload")
    async def reload() -> Response:
        """Load the bundle again, verify it and put it in service; needs the admin token."""
        try:
            await in_thread(slot.reload, wait=False)  # a thread that nobody waits for when the service ends
        except ReloadRunningError as error:
            raise RequestError(409, "reload_running", str(error)) from error
        except (RoutelearnError, OSError) as error:
            raise RequestError(409, "bundle_refused", str(error)) from error
        return _json(slot.describe())


def add_monitoring_endpoints(
    app: FastAPI,
    slot: RouterSlot,
    metrics: HttpMetrics,
    status: Callable[[], StatusReply],
    savings: Savings,
) -> None:
    """Add the endpoints for health, status, savings, metrics and the status page."""

    @app.get(HEALTH, response_model=HealthReply, responses=errors(500), operation_id="health")
    async def health() -> Response:
        """Say that the process answers, and what decides queries; needs no token."""
        reply: HealthReply = {"status": "ok", "answers": slot.current.answers}
        return _json(reply)

    @app.get(STATUS, response_model=StatusReply, responses=errors(401, 500), operation_id="status")
    def status_() -> Response:
        """What the status page shows: requests, decisions, drift, the router."""
        return _json(status())

    @app.get(SAVINGS, response_model=SavingsReport, responses=errors(401, 500), operation_id="savings")
    def savings_() -> Response:
        """What the reported calls cost, and what always-strong would have cost on the same requests."""
        return _json(savings.report().as_dict())

    @app.get(
        METRICS, responses={**text("text/plain"), **errors(401, 500)}, response_class=Response, operation_id="metrics"
    )
    def prometheus() -> Response:
        """All metrics, for Prometheus."""
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE_LATEST})

    @app.get(PAGE, responses={**text("text/html"), **errors(500)}, response_class=Response, operation_id="page")
    async def page() -> Response:
        """The status page; it asks the reader for the token, if the service has one."""
        return Response(status_page.HTML, headers=status_page.HEADERS)


def add_proxy_endpoints(app: FastAPI) -> None:
    """Add the endpoints of services that answer queries: they say that this service does not."""

    async def refuse() -> None:
        """Say that the service only decides which model should answer; routelearn proxy answers here."""
        raise RequestError(
            501,
            "not_implemented",
            f"this service decides which model should answer ({ROUTE}), and asks no model; routelearn proxy answers "
            "such requests",
        )

    replies = errors(401, 501)
    for path in COMPLETIONS:
        name = path.removeprefix("/v1/").replace("/", "_")
        app.post(path, status_code=501, responses=replies, operation_id=name, summary="Not answered")(refuse)
    app.get(MODELS, status_code=501, responses=replies, operation_id="models", summary="Not answered")(refuse)


def add_openapi_endpoint(app: FastAPI, document: dict[str, Any]) -> None:
    """Add the endpoint that serves the OpenAPI document."""
    content = to_json(document)

    @app.get(OPENAPI, include_in_schema=False)
    async def openapi() -> Response:
        return Response(content, media_type="application/json")


async def framework_error(request: Request, error: Exception) -> Response:
    """The reply to a request that the framework refuses (unknown path, wrong method), in the shape of all errors."""
    del request
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    kind = phrase.lower().replace(" ", "_")
    detail = {"type": kind, "message": f"{phrase}; {OPENAPI} lists the paths and their methods"}
    return _json({"error": detail}, error.status_code, dict(error.headers or {}))


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(content, inf_nan_mode="null"), status, headers, "application/json")
