"""Refuses requests beyond the limits of the service: bodies that are too large or too slow, too many queries."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from starlette.types import Receive, Scope

from ...routers.errors import InputError
from ...routers.query import Query, turns
from ..defaults import RequestLimits
from ..wire_names import CONTENT_LENGTH, CONTENT_TYPE, JSON
from .replies import RequestError


def header(scope: Scope, name: bytes) -> bytes:
    """The first value of a header; empty when the request does not have the header."""
    return next((value for key, value in scope["headers"] if key == name), b"")


async def read_body(scope: Scope, receive: Receive, limits: RequestLimits) -> bytes:
    """The body of a JSON request.

    Raises:
        RequestError: with 415 the content type is not JSON, with 413 the body is too large, with 408 it comes too
            slowly, with 400 the client left.
    """
    if header(scope, CONTENT_TYPE).split(b";", 1)[0].strip().lower() != JSON:
        # Also keeps foreign web pages out: a browser asks before it sends this type across origins.
        raise RequestError(415, "unsupported_media_type", "the content-type is not JSON; expected application/json")
    length = header(scope, CONTENT_LENGTH)
    if length.isdigit() and (len(length) > 15 or int(length) > limits.max_body):
        raise _too_large(limits)
    chunks: list[bytes] = []
    size = 0
    try:
        with anyio.fail_after(limits.body_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestError(400, "disconnected", "the client left before the body was complete")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limits.max_body:
                    raise _too_large(limits)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise RequestError(
            408, "body_timeout", f"the body is not complete; expected all of it within {limits.body_timeout_s:g} s"
        ) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def check_queries(queries: Sequence[Query], limits: RequestLimits) -> None:
    """Refuse too many queries, queries that are too long, and chats that cannot be read.

    Raises:
        RequestError: with 422 one of the three.
    """
    check_count("queries", len(queries), limits)
    for row, query in enumerate(queries):
        try:
            length = len(query) if isinstance(query, str) else sum(map(len, turns(query)))
        except InputError as error:
            place = f"queries[{row}]"
            raise RequestError(422, "invalid_request", f"{place}: {error}", place) from error
        if length > limits.max_characters:
            message = f"the query has {length:,} characters; expected at most {limits.max_characters:,}"
            raise RequestError(422, "too_large", message, f"queries[{row}]")


def check_count(name: str, count: int, limits: RequestLimits) -> None:
    """Refuse a list with too many entries.

    Raises:
        RequestError: with 422 the list is too long.
    """
    if count > limits.max_queries:
        message = f"{name} has {count:,} entries; expected at most {limits.max_queries:,}"
        raise RequestError(422, "too_large", message, name)


def _too_large(limits: RequestLimits) -> RequestError:
    return RequestError(413, "too_large", f"the body is too large; expected at most {limits.max_body:,} bytes")
