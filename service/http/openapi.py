"""Adds errors, limits and tokens to the OpenAPI document, which FastAPI cannot know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from ..defaults import RequestLimits
from ..wire_names import OPEN_PATHS, RELOAD
from .middleware import Tokens
from .schemas import ErrorReply, OutcomesRequest, ScoringRequest

_WHEN = {
    400: "The body is not JSON, or the client left before it was complete.",
    401: "The bearer token is missing or wrong.",
    403: "The token does not allow this request.",
    408: "The body came too slowly.",
    409: "The bundle is refused; the old router stays in service.",
    413: "The body is too large.",
    415: "The content type is not application/json.",
    422: "The request does not fit its schema, or it exceeds a limit.",
    429: "Too many requests wait.",
    500: "An unexpected error.",
    501: "The service only decides; routelearn proxy answers here.",
    503: "The request was not scored in time, or the service is being shut down.",
}
_RETRY = {
    "headers": {"Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}}
}

Responses = dict[int | str, dict[str, Any]]


def errors(*statuses: int) -> Responses:
    """OpenAPI's entries for the error replies of an endpoint, by status."""
    return {
        status: {"model": ErrorReply, "description": _WHEN[status], **(_RETRY if status in {429, 503} else {})}
        for status in statuses
    }


def text(content_type: str) -> Responses:
    """OpenAPI's entry for a reply that is text."""
    return {200: {"content": {content_type: {"schema": {"type": "string"}}}}}


def document(app: FastAPI, limits: RequestLimits, tokens: Tokens) -> dict[str, Any]:
    """FastAPI's document of an application, with the limits and the tokens of this service."""
    content: dict[str, Any] = app.openapi()
    schemas = content["components"]["schemas"]
    queries = schemas[ScoringRequest.__name__]["properties"]["queries"]
    queries["maxItems"] = limits.max_queries
    queries["items"]["anyOf"][0]["maxLength"] = limits.max_characters
    for entries in schemas[OutcomesRequest.__name__]["properties"].values():
        entries["maxItems"] = limits.max_queries
    if tokens.user is not None or tokens.admin is not None:
        content["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, methods in content["paths"].items():
            if path not in OPEN_PATHS and (tokens.user is not None or path == RELOAD):
                for operation in methods.values():
                    operation["security"] = [{"token": []}]
    return content
