"""Before every endpoint: tokens, errors of one shape, counting; and the endpoints that take a body.

These are answered here, as bare ASGI: what surrounds a FastAPI endpoint takes longer than a score.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .request_limits import RequestError, header
from .prometheus import HttpMetrics
from .scorer import log_unexpected

SCORE, ROUTE, OUTCOMES = "/v1/score", "/v1/route", "/v1/outcomes"
RELOAD, STATUS, ROUTER = "/v1/reload", "/v1/status", "/v1/router"
HEALTH, METRICS, PAGE, OPENAPI = "/healthz", "/metrics", "/", "/openapi.json"
PATHS = frozenset({SCORE, ROUTE, OUTCOMES, RELOAD, STATUS, ROUTER, HEALTH, METRICS, PAGE, OPENAPI})
#: Without a token: they say nothing of queries or models.
OPEN = frozenset({HEALTH, PAGE, OPENAPI})

#: Reads a request and gives the JSON body of the reply, or raises a RequestError.
Answer = Callable[[Scope, Receive], Awaitable[bytes]]

_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_EXTRA = {401: [(b"www-authenticate", b"Bearer")], 429: [(b"retry-after", b"1")], 503: [(b"retry-after", b"1")]}


@dataclass(frozen=True, slots=True)
class Tokens:
    """Bearer tokens: `user` for everything but reloads (None: open), `admin` for everything (None: no reloads)."""

    user: bytes | None = None
    admin: bytes | None = None

    def check(self, scope: Scope) -> None:
        """Let a request pass, or not.

        Raises:
            RequestError: 401 no or a wrong token, 403 a token that does not allow this.
        """
        path = scope["path"]
        if path in OPEN:
            return
        scheme, _, given = header(scope, b"authorization").partition(b" ")
        given = given.strip() if scheme.lower() == b"bearer" else b""
        if self.admin is not None and hmac.compare_digest(given, self.admin):
            return
        if self.user is not None and not hmac.compare_digest(given, self.user):
            raise RequestError(401, "unauthorized", "expected the header authorization: Bearer TOKEN")
        if path == RELOAD:
            why = "this takes the admin token" if self.admin else "reloads over HTTP are off: there is no admin token"
            raise RequestError(403, "forbidden", why)


class Gate:
    """The outermost middleware of the service."""

    def __init__(self, app: ASGIApp, answers: Mapping[str, Answer], metrics: HttpMetrics, tokens: Tokens) -> None:
        """Take the application behind it, what answers POST at some paths, and what it uses."""
        self._app = app
        self._answers = answers
        self._metrics = metrics
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        path = scope["path"]
        try:
            self._tokens.check(scope)
            if scope["method"] == "POST" and path in self._answers:
                await send_json(send_on, 200, await self._answers[path](scope, receive))
            else:
                method = "GET" if scope["method"] == "HEAD" else scope["method"]  # the server leaves out the body
                await self._app({**scope, "method": method}, receive, send_on)
        except RequestError as error:
            await send_error(send_on, error)
        except asyncio.CancelledError:  # the time for a graceful shutdown is over
            if not status:
                await send_error(send_on, RequestError(503, "closing", "the service is being shut down"))
        except Exception as error:  # noqa: BLE001 - a caller gets an answer, and no stack trace
            log_unexpected(error)
            if not status:
                await send_error(send_on, RequestError(500, "internal", "an unexpected error; the log says where"))
        finally:
            self._metrics.count(path if path in PATHS else "other", status, time.perf_counter() - started)


async def send_error(send: Send, error: RequestError) -> None:
    """Answer with an error, in its one shape."""
    detail = {"type": error.kind, "message": error.message}
    if error.param is not None:
        detail["param"] = error.param
    extra = [(b"connection", b"close")] if error.status == 408 else _EXTRA.get(error.status, [])
    await send_json(send, error.status, to_json({"error": detail}), extra)


async def send_json(send: Send, status: int, body: bytes, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer with a JSON body."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *(extra or ())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
