"""Replies as bare ASGI messages: a JSON body, or an error in the one shape that all errors have."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import to_json
from starlette.types import Send

from ..wire_names import (
    AUTHENTICATE,
    BEARER,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    JSON,
    RETRY_AFTER,
    SHOULD_RETRY,
    ErrorType,
)
from .schemas import ErrorReply

Headers = Sequence[tuple[bytes, bytes]]

#: Headers that an error reply has, by its status.
_ERROR_HEADERS: dict[int, Headers] = {
    401: [(AUTHENTICATE, BEARER)],
    408: [(CONNECTION, b"close")],
    429: [(RETRY_AFTER, b"1")],
    501: [(SHOULD_RETRY, b"false")],
    503: [(RETRY_AFTER, b"1")],
}


class RequestError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status.
        kind: the `type` of the error, one word for programs.
        message: one sentence for people; it quotes nothing of the queries.
        param: the part of the request that is wrong; None: the error is not about one part.
    """

    def __init__(self, status: int, kind: ErrorType, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param

    def body(self) -> bytes:
        """The JSON body of the reply."""
        reply: ErrorReply = {"error": {"type": self.kind, "message": self.message}}
        if self.param is not None:
            reply["error"]["param"] = self.param
        return to_json(reply)


async def send_error(send: Send, error: RequestError) -> None:
    """Reply with an error."""
    await send_json(send, error.status, error.body(), _ERROR_HEADERS.get(error.status, ()))


async def send_json(send: Send, status: int, body: bytes, more_headers: Headers = ()) -> None:
    """Reply with a JSON body."""
    headers = [(CONTENT_TYPE, JSON), (CONTENT_LENGTH, b"%d" % len(body)), *more_headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
