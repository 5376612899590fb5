"""`routelearn serve`."""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..monitoring.decision_log import DecisionLog
from ..policies.threshold import policy_of
from ..routers.errors import InputError, require
from ..service.defaults import LogLevel, RequestLimits, ServerSettings
from ..service.wire_names import ADMIN_TOKEN_VARIABLE, TOKEN_VARIABLE, USE_CASE, USER_TIER
from .opening import open_router, parse_pairs, policy_by_context

#: Seconds that a thread keeps the interpreter while another wants it. Python's own 5 ms would let a batch that is
#: decided keep the event loop waiting as long.
SWITCH_INTERVAL_S = 0.0005

_LIMITS, _SERVER = RequestLimits(), ServerSettings()


def serve_command(
    router: Annotated[str, typer.Argument(help="A bundle folder, or the word rules.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = _SERVER.host,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = _SERVER.port,
    threshold: Annotated[float | None, typer.Option(help="A score at or above it goes to strong.")] = None,
    strong_share: Annotated[
        float | None, typer.Option(help="Send this share of queries like the calibration's to strong.")
    ] = None,
    guaranteed: Annotated[
        bool, typer.Option("--guaranteed", help="The bundle's guaranteed threshold; refused where it has none.")
    ] = False,
    strong: Annotated[str | None, typer.Option(help="The strong model; needed for rules or with --fallback.")] = None,
    weak: Annotated[str | None, typer.Option(help="The weak model; needed for rules or with --fallback.")] = None,
    rules: Annotated[Path | None, typer.Option(help="TOML file of rules; default: the built-in ones.")] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Answer by rules when the bundle does not load, instead of failing.")
    ] = False,
    tier_share: Annotated[
        list[str] | None, typer.Option(help="Strong share of a tier of users: --tier-share pro=0.8; can be repeated.")
    ] = None,
    use_case_share: Annotated[
        list[str] | None, typer.Option(help="Strong share of a use case: --use-case-share code=0.5; can be repeated.")
    ] = None,
    explore: Annotated[
        float, typer.Option(min=0, max=1, help="Share of queries whose model is drawn, to learn from the decision log.")
    ] = 0.0,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds a run of the router may take before rules answer; default: no limit.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Batches in flight; default: every CPU of this process.")
    ] = None,
    watch: Annotated[
        float | None, typer.Option(help="Look for a newer bundle every so many seconds; default: only on SIGHUP.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the bearer token that callers have to send; or the variable {TOKEN_VARIABLE}."),
    ] = None,
    admin_token_file: Annotated[
        Path | None, typer.Option(help=f"File with the token that also allows reloads; or {ADMIN_TOKEN_VARIABLE}.")
    ] = None,
    insecure_no_token: Annotated[
        bool, typer.Option("--insecure-no-token", help="Listen beyond this machine without a token.")
    ] = False,
    decision_log: Annotated[Path | None, typer.Option(help="Write each decision to this file, prompts hashed.")] = None,
    max_body: Annotated[int, typer.Option(help="Bytes of a request body; beyond it 413.")] = _LIMITS.max_body,
    max_queries: Annotated[int, typer.Option(help="Queries in a request; beyond it 422.")] = _LIMITS.max_queries,
    max_characters: Annotated[int, typer.Option(help="Characters of a query; beyond it 422.")] = _LIMITS.max_characters,
    max_waiting: Annotated[
        int, typer.Option(help="Requests in the service at a time; beyond it 429.")
    ] = _LIMITS.max_waiting,
    max_batch: Annotated[int, typer.Option(help="Queries in one run of the router.")] = _LIMITS.max_batch,
    body_timeout: Annotated[
        float, typer.Option(help="Seconds in which a body has to arrive; beyond it 408.")
    ] = _LIMITS.body_timeout_s,
    request_timeout: Annotated[
        float, typer.Option(help="Seconds in which a request is answered; beyond it 503.")
    ] = _LIMITS.request_timeout_s,
    keep_alive: Annotated[int, typer.Option(help="Seconds that an idle connection is kept.")] = _SERVER.keep_alive_s,
    shutdown_timeout: Annotated[
        int, typer.Option(help="Seconds that requests in flight get on SIGTERM.")
    ] = _SERVER.shutdown_timeout_s,
    log_level: Annotated[LogLevel, typer.Option(help="What to log, on stderr.")] = _SERVER.log_level,
) -> None:
    """Serve a router over HTTP: POST /v1/route and /v1/score, a status page at /, metrics at /metrics.

    One process; SIGTERM lets requests in flight finish, SIGHUP reloads the bundle without dropping one.

    Examples:
      routelearn serve router/ --strong-share 0.3
      curl -s localhost:8000/v1/route -H 'content-type: application/json' -d '{"queries": ["What is 2 plus 2?"]}'
    """
    for module in ("fastapi", "httptools", "uvicorn", "prometheus_client"):
        require(module, "serve")
    from ..service.http.app import create_app
    from ..service.http.middleware import Tokens
    from ..service.http.server import listen, run
    from ..service.http.slot import RouterSlot

    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    tokens = Tokens(_token(token_file, TOKEN_VARIABLE), _token(admin_token_file, ADMIN_TOKEN_VARIABLE))
    if not _is_loopback(host) and tokens.user is None and not insecure_no_token:
        raise InputError(
            f"{host} can be reached from other machines: give --token-file or {TOKEN_VARIABLE}, "
            "or say --insecure-no-token"
        )
    if watch is not None and not watch > 0:
        raise InputError(f"--watch is {watch}; expected seconds above 0")
    limits = RequestLimits(
        max_body=max_body,
        max_queries=max_queries,
        max_characters=max_characters,
        max_waiting=max_waiting,
        max_batch=max_batch,
        body_timeout_s=body_timeout,
        request_timeout_s=request_timeout,
    )
    settings = ServerSettings(
        host=host,
        port=port,
        keep_alive_s=keep_alive,
        shutdown_timeout_s=shutdown_timeout,
        log_level=log_level,
    )
    listening = listen(settings.host, settings.port)
    slot = RouterSlot(
        router,
        lambda: open_router(
            router, strong=strong, weak=weak, rules=rules, fallback=fallback, threads=threads, timeout_s=timeout
        ),
        policy_by_context(
            policy_of(threshold, strong_share, guaranteed),
            parse_pairs(tier_share or [], "--tier-share"),
            parse_pairs(use_case_share or [], "--use-case-share"),
            explore,
        ),
    )
    log = DecisionLog(decision_log, context_keys=(USER_TIER, USE_CASE)) if decision_log else None
    app = create_app(slot, limits=limits, tokens=tokens, decision_log=log, watch_s=watch)
    run(app, listening, slot, settings)


def _token(path: Path | None, variable: str) -> bytes | None:
    """A token from a file or a variable, never from the command line, which every user of the machine can read."""
    try:
        text = path.read_text() if path is not None else os.environ.get(variable)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if text is None:
        return None
    token = text.strip().encode()
    if len(token) < 16 or any(byte <= 32 or byte >= 127 for byte in token):
        where = path if path is not None else variable
        raise InputError(f"{where} holds no token; expected 16 or more printable ASCII characters without blanks")
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
