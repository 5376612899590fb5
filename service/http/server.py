"""One process that serves the application: sockets, signals, uvicorn."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ...routers.errors import RoutelearnError
from .protocol import LimitedProtocol
from .slot import RouterSlot

logger = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; nothing is accepted before the router is loaded.

    Raises:
        OSError: the address is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, so that asyncio turns off Nagle's delay for what is accepted: it looks for this number.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    return listening


class _Server(uvicorn.Server):
    """Says where it serves once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            host, port = listening.getsockname()[:2]
            logger.info("serving at http://%s:%d", f"[{host}]" if ":" in host else host, port)


def run(
    app: FastAPI,
    listening: socket.socket,
    slot: RouterSlot,
    *,
    keep_alive_s: int,
    shutdown_timeout_s: int,
    log_level: str,
) -> None:
    """Serve until SIGTERM or SIGINT: requests in flight finish. SIGHUP reloads.

    Args:
        app: what `create_app` gave.
        listening: what `listen` gave.
        slot: holds the router.
        keep_alive_s: an idle connection is closed after so long.
        shutdown_timeout_s: requests in flight get so long.
        log_level: of uvicorn.
    """
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        loop="auto",
        lifespan="on",
        log_config=None,
        log_level="warning" if log_level == "info" else log_level,  # its info is a line a signal
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=shutdown_timeout_s,
    )
    # uvicorn handles both itself, and raises them again when it is done: then that is the end, without complaint.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=_reload, args=(slot,)).start())
    _Server(config).run([listening])


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    sys.exit(0)


def _reload(slot: RouterSlot) -> None:
    try:
        slot.reload()
    except (RoutelearnError, OSError) as error:
        logger.debug("refused: %s", error)  # `reload` said so
