"""The outermost layer of the service: tokens, errors, counting, and the endpoints that take a body.

The endpoints that take a body are answered here, as bare ASGI: FastAPI's handling of an endpoint takes longer than
scoring a query.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...routers.error_log import log_error
from ..wire_names import AUTHORIZATION, BEARER, OPEN_PATHS, PATHS, RELOAD
from .prometheus import HttpMetrics
from .replies import RequestError, send_error, send_json
from .request_limits import header

logger = logging.getLogger(__name__)

#: Reads a request and returns the JSON body of the reply, or raises a `RequestError`.
BodyEndpoint = Callable[[Scope, Receive], Awaitable[bytes]]

_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The bearer tokens that let callers in.

    Attributes:
        user: allows everything but reloads; None: no token is needed for that.
        admin: allows everything; None: nobody may reload over HTTP.

    Example:
        >>> from routelearn.service import Tokens
        >>> tokens = Tokens(user=b"a-token-for-callers", admin=b"a-token-for-reloads")
    """

    user: bytes | None = None
    admin: bytes | None = None

    def check(self, scope: Scope) -> None:
        """Refuse a request whose token does not allow it.

        Raises:
            RequestError: with 401 the token is missing or wrong, with 403 it does not allow this request.
        """
        path = scope["path"]
        if path in OPEN_PATHS:
            return
        scheme, _, token = header(scope, AUTHORIZATION).partition(b" ")
        token = token.strip() if scheme.lower() == BEARER.lower() else b""
        if self.admin is not None and hmac.compare_digest(token, self.admin):
            return
        if self.user is not None and not hmac.compare_digest(token, self.user):
            problem = "the bearer token is wrong" if token else "the request has no bearer token"
            raise RequestError(401, "unauthorized", f"{problem}; expected the header authorization: Bearer TOKEN")
        if path == RELOAD and self.admin is None:
            raise RequestError(403, "forbidden", "reloads over HTTP are off, because the service has no admin token")
        if path == RELOAD:
            raise RequestError(403, "forbidden", "the token does not allow reloads; expected the admin token")


class Gate:
    """The outermost middleware of the service."""

    def __init__(
        self, app: ASGIApp, endpoints: Mapping[str, BodyEndpoint], metrics: HttpMetrics, tokens: Tokens
    ) -> None:
        """Wrap an application.

        Args:
            app: answers what the gate does not answer itself.
            endpoints: for each path, what answers POST there.
            metrics: counts the requests.
            tokens: decide who may ask.
        """
        self._app = app
        self._endpoints = endpoints
        self._metrics = metrics
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as the ASGI specification says."""
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
            if scope["method"] == "POST" and path in self._endpoints:
                await send_json(send_on, 200, await self._endpoints[path](scope, receive))
            else:
                method = "GET" if scope["method"] == "HEAD" else scope["method"]  # the server leaves out the body
                await self._app({**scope, "method": method}, receive, send_on)
        except RequestError as error:
            await send_error(send_on, error)
        except asyncio.CancelledError:  # the time for a graceful shutdown is over
            if not status:
                await send_error(send_on, RequestError(503, "closing", "the service is being shut down"))
        except Exception as error:  # noqa: BLE001 - a caller gets an answer, and no stack trace
            log_error(logger, "an unexpected error", error)
            if not status:
                message = "an unexpected error; the log of the service says where it happened"
                await send_error(send_on, RequestError(500, "internal", message))
        finally:
            self._metrics.count(path if path in PATHS else "other", status, time.perf_counter() - started)
