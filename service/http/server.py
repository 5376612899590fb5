"""Runs the application in one process: the socket, the signals and uvicorn."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ...routers.errors import RoutelearnError
from ..defaults import ServerSettings
from .protocol import LimitedProtocol
from .slot import RouterSlot

logger = logging.getLogger(__name__)

#: Seconds beyond the time limit for requests in flight; then the process ends, whatever hangs in it.
GRACE_S = 2.0


class _Server(uvicorn.Server):
    """Logs its address once it serves, and ends in its time."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        last = threading.Timer((self.config.timeout_graceful_shutdown or 0) + GRACE_S, _end)
        last.daemon = True
        last.start()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            host, port = listening.getsockname()[:2]
            logger.info("serving at http://%s:%d", f"[{host}]" if ":" in host else host, port)


def run(app: FastAPI, listening: socket.socket, slot: RouterSlot, settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are finished. SIGHUP reloads the bundle.

    Args:
        app: the application, from `create_app`.
        listening: the socket, from `listen`.
        slot: holds the router.
        settings: connections, shutdown and log; `host` and `port` are those of the socket.
    """
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        loop="auto",
        lifespan="on",
        log_config=None,
        log_level="warning" if settings.log_level == "info" else settings.log_level,  # its info repeats each signal
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )
    # uvicorn handles both signals, and raises them again at its end: then the process ends without a traceback.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=_reload, args=(slot,), daemon=True).start())
    _Server(config).run([listening])


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    sys.exit(0)


def _end() -> None:
    logger.warning("the service does not end by itself; the process ends now")
    os._exit(1)


def _reload(slot: RouterSlot) -> None:
    try:
        slot.reload()
    except (RoutelearnError, OSError) as error:
        logger.debug("SIGHUP: %s", error)  # `reload` has logged the refusal
