"""The page on which a person compares two answers, for a browser on this machine."""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import socket
from importlib import resources
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ..routers.query import messages_of
from .votes import CHOICES, Votes

logger = logging.getLogger(__name__)

_HTML = resources.files(__name__.rpartition(".")[0]).joinpath("label_page.html").read_text("utf-8")
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
#: The names by which a browser on this machine reaches it. Another name may be one that its owner points here.
_NAMES = {"127.0.0.1", "localhost", "[::1]"}
#: Largest body of a request, in bytes.
_MOST_BODY = 1_000


def new_token() -> str:
    """What the address of a page must hold, so that nobody else on the machine can read the page or vote."""
    return secrets.token_urlsafe(24)


def label_app(votes: Votes, token: str) -> FastAPI:
    """The page as an ASGI application; its address is ``/<token>/``.

    The names of the models never leave the application.

    Args:
        votes: get what the person says. The records are written after each vote.
        token: from `new_token`.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        refused = _refusal(request, token)
        response: Response = refused if refused is not None else await call_next(request)
        response.headers.update(_HEADERS)
        return response

    @app.get("/{token}/")
    async def page() -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        html = _HTML.replace("NONCE", nonce)
        return Response(html, media_type="text/html", headers={"content-security-policy": policy})

    @app.get("/{token}/state")
    async def state() -> Response:
        return _reply(_state(votes))

    @app.post("/{token}/vote")
    async def vote(request: Request) -> Response:
        body = _parsed(await request.body())
        if body is None or body.get("choice") not in {*CHOICES, "undo"}:
            return _refused(422, f"expected number, a whole number, and choice, one of {[*CHOICES, 'undo']}")
        number, choice = body["number"], body["choice"]
        try:
            stored = votes.undo(number) if choice == "undo" else votes.vote(number, choice)
        except OSError as error:
            return _refused(507, f"the vote was not stored: {error.strerror}; end the command, and make room for it")
        answer = _reply(_state(votes) | {"stored": stored})
        if stored:
            answer.background = BackgroundTask(_write, votes)
        return answer

    return app


def serve_labels(votes: Votes, listening: socket.socket, token: str) -> None:
    """Serve the page until SIGINT (KeyboardInterrupt) or SIGTERM.

    Args:
        votes: see `label_app`.
        listening: a bound socket.
        token: see `label_app`.
    """
    config = uvicorn.Config(
        label_app(votes, token),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run([listening])


def _refusal(request: Request, token: str) -> Response | None:
    """The reply to a request that is not from the page; None: it may go on."""
    host = request.headers.get("host", "")
    if host.rpartition(":")[0] not in _NAMES and host not in _NAMES:
        return _refused(403, "the header host names another machine; expected 127.0.0.1 or localhost")
    given = request.url.path.lstrip("/").partition("/")[0]
    if not hmac.compare_digest(given.encode(), token.encode()):
        return _refused(404, "there is nothing here; open the whole address that routelearn label printed")
    if request.method not in {"GET", "POST"}:
        return _refused(405, "expected GET or POST")
    return _refusal_of_vote(request, f"http://{host}") if request.method == "POST" else None


def _refusal_of_vote(request: Request, origin: str) -> Response | None:
    if request.headers.get("origin", origin) != origin:
        return _refused(403, "the request is from the page of another site")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _refused(415, "expected the content type application/json")
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > _MOST_BODY:
        return _refused(413, f"expected a body with a content-length of {_MOST_BODY} bytes or less")
    return None


def _refused(status: int, message: str) -> Response:
    return PlainTextResponse(message + "\n", status)


def _reply(content: dict[str, Any]) -> Response:
    # Escapes keep lone surrogates, which UTF-8 cannot hold.
    return Response(json.dumps(content), media_type="application/json")


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or type(content.get("number")) is not int:
        return None
    return content if isinstance(content.get("choice"), str) else None


def _state(votes: Votes) -> dict[str, Any]:
    """What the page shows: never who answered, nor whether the pair was shown before."""
    done, total = votes.progress()
    state: dict[str, Any] = {"done": done, "total": total, "number": votes.number, "can_undo": votes.can_undo}
    showing = votes.showing()
    if showing is not None:
        turns = [{"role": role, "text": text} for role, text in messages_of(showing.pair.prompt.query)]
        return state | {"turns": turns, "left": showing.left, "right": showing.right}
    summary = votes.summary()
    interval = summary.agreement
    return state | {
        "summary": {
            "out": votes.out.name,
            **{name: getattr(summary, name) for name in ("votes", "ties", "both_bad", "skipped", "repeats", "agreed")},
            "agreement": None if interval is None else list(interval),
        }
    }


async def _write(votes: Votes) -> None:
    """Write the records after the reply; on the event loop, so that no vote comes in between."""
    try:
        votes.write()
    except OSError as error:  # the vote itself is in the journal
        logger.warning("%s cannot be written: %s; the votes are in its journal", votes.out, error)
