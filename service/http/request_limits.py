"""What one caller may ask of the service at a time, and the reading of a body within it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import anyio
from starlette.types import Receive, Scope

from ...routers.errors import InputError
from ...routers.query import Query, turns


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the service; each is an option of `routelearn serve`.

    Attributes:
        max_body: bytes of a request body; beyond it 413. A MiB is parsed in some 3 ms, for which the
            interpreter, and with it the event loop, stands still.
        max_queries: queries in a request; beyond it 422.
        max_characters: characters of a query, all turns of a chat together; beyond it 422.
        max_waiting: requests that are being read, wait or are scored; beyond it 429.
        max_batch: queries in one run of the router; larger requests take several runs.
        body_timeout_s: longest that a body may take to arrive; beyond it 408.
        request_timeout_s: longest from a read body to the answer; beyond it 503.
    """

    max_body: int = 1 << 20
    max_queries: int = 1_024
    max_characters: int = 100_000
    max_waiting: int = 256
    max_batch: int = 256
    body_timeout_s: float = 10.0
    request_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse a limit that lets nothing through.

        Raises:
            InputError: a limit is not above 0.
        """
        for item in fields(self):
            if not getattr(self, item.name) > 0:
                raise InputError(f"{item.name} is {getattr(self, item.name)}; expected a number above 0")

    def check(self, queries: Sequence[Query]) -> tuple[str, str] | None:
        """What is too much of it, and in which part of the request; None: nothing."""
        if len(queries) > self.max_queries:
            return f"{len(queries):,} queries in a request; at most {self.max_queries:,}", "queries"
        for row, query in enumerate(queries):
            length = len(query) if isinstance(query, str) else sum(map(len, turns(query)))
            if length > self.max_characters:
                return f"a query of {length:,} characters; at most {self.max_characters:,}", f"queries[{row}]"
        return None


class RequestError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status.
        kind: `type` of the error, one word for programs.
        message: one sentence for people; nothing of what was sent.
        param: the part of the request that is meant.
    """

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        """See the attributes."""
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param


def header(scope: Scope, name: bytes) -> bytes:
    """The first value of a header, or nothing."""
    return next((value for key, value in scope["headers"] if key == name), b"")


async def read_body(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """The body of a JSON request.

    Raises:
        RequestError: 415 it is not said to be JSON, 413 too large, 408 too slow, 400 the client left.
    """
    if header(scope, b"content-type").split(b";", 1)[0].strip().lower() != b"application/json":
        # Also keeps foreign web pages out: a browser asks before it sends this type across origins.
        raise RequestError(415, "unsupported_media_type", "expected content-type: application/json")
    too_large = RequestError(413, "too_large", f"the body has more than {limits.max_body:,} bytes")
    length = header(scope, b"content-length")
    if length.isdigit() and (len(length) > 15 or int(length) > limits.max_body):
        raise too_large
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
                    raise too_large
                chunks.append(chunk)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise RequestError(408, "body_timeout", f"the body did not arrive within {limits.body_timeout_s:g} s") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
