"""What OpenAPI says of errors, limits and tokens, which FastAPI cannot know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from .request_limits import Limits
from .middleware import OPEN, RELOAD, Tokens
from .schemas import ErrorReply

_WHEN = {
    400: "The body is not JSON, or never came to its end.",
    401: "No bearer token, or a wrong one.",
    403: "The token does not allow this.",
    408: "The body came too slowly.",
    409: "The bundle is refused; the old one goes on answering.",
    413: "The body is too large.",
    415: "The content type is not application/json.",
    422: "The request is not what is described here.",
    429: "Too many requests wait.",
    500: "An unexpected error.",
    503: "Not scored in time, or the service is being shut down.",
}
_RETRY = {"headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}}

Responses = dict[int | str, dict[str, Any]]


def errors(*statuses: int) -> Responses:
    """The error replies of an endpoint."""
    return {
        status: {"model": ErrorReply, "description": _WHEN[status], **(_RETRY if status in {429, 503} else {})}
        for status in statuses
    }


def text(content_type: str) -> Responses:
    """A reply that is no JSON."""
    return {200: {"content": {content_type: {"schema": {"type": "string"}}}}}


def document(app: FastAPI, limits: Limits, tokens: Tokens) -> dict[str, Any]:
    """FastAPI's description of an application, with the limits and the tokens of this service."""
    content: dict[str, Any] = app.openapi()
    queries = content["components"]["schemas"]["ScoringRequest"]["properties"]["queries"]
    queries["maxItems"] = limits.max_queries
    queries["items"]["anyOf"][0]["maxLength"] = limits.max_characters
    for entries in content["components"]["schemas"]["OutcomesRequest"]["properties"].values():
        entries["maxItems"] = limits.max_queries
    if tokens.user is not None or tokens.admin is not None:
        content["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, methods in content["paths"].items():
            if path not in OPEN and (tokens.user is not None or path == RELOAD):
                for operation in methods.values():
                    operation["security"] = [{"token": []}]
    return content
