"""Notices that a client has left, so that nobody scores what nobody waits for."""

from __future__ import annotations

import asyncio
import sys

from starlette.types import Receive

#: A request that is answered sooner is not watched: a watcher takes a task of its own.
WATCH_AFTER_S = 0.02


class Departure:
    """Cancels the current task when the client of its request leaves. `end` must be called when the work is done.

    Attributes:
        departed: the client has left, and the task was cancelled for that reason.
    """

    def __init__(self, receive: Receive) -> None:
        """Watch from now on; the body has been received already."""
        loop = asyncio.get_running_loop()
        self.departed = False
        self._receive = receive
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._timer = loop.call_later(WATCH_AFTER_S, self._start)

    def end(self) -> None:
        """Watch no more."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if sys.version_info >= (3, 11) and self.departed and self._task is not None:
            self._task.uncancel()

    def _start(self) -> None:
        self._watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.departed = True
        if self._task is not None:
            self._task.cancel()
