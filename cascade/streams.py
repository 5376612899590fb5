"""A streamed answer: an iterator of text pieces, async or blocking, with the result at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

from ..routers.errors import InputError
from .threads import run_in_background
from .tiers import CascadeResult

Emit = Callable[[str], None]


class AnswerStream:
    """An async iterator of the pieces of an accepted answer.

    The request starts with the first piece asked for. Leaving early: `aclose`,
    or use it as ``async with``; then what still runs is cancelled.
    """

    def __init__(self, work: Callable[[Emit], Coroutine[Any, Any, CascadeResult]]) -> None:
        """Take the request: a function that answers it, and hands every piece to the function it is given."""
        self._work = work
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._task: asyncio.Task[CascadeResult] | None = None
        self._closed = False

    @property
    def result(self) -> CascadeResult:
        """What came of the request.

        Raises:
            InputError: the stream has not come to its end.
            CascadeError: no tier gave an answer.
        """
        if self._task is None or not self._task.done() or self._task.cancelled():
            raise InputError("a stream has its result when it has been read to the end")
        return self._task.result()

    def __aiter__(self) -> AnswerStream:
        """Itself."""
        return self

    async def __anext__(self) -> str:
        """The next piece.

        Raises:
            CascadeError: no tier gave an answer, or the answer broke off.
        """
        if self._closed:
            raise StopAsyncIteration
        if self._task is None:
            self._task = asyncio.create_task(self._work(self._pieces.put_nowait))
            self._task.add_done_callback(self._end)
        try:
            piece = await self._pieces.get()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if piece is not None:
            return piece
        self._closed = True
        if not self._task.cancelled():
            self._task.result()  # raises what the request raised
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leave: a request that still runs is cancelled, and accounted for before this returns."""
        self._closed = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def __aenter__(self) -> AnswerStream:
        """Itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    def _end(self, task: asyncio.Task[CascadeResult]) -> None:
        if not task.cancelled():
            task.exception()  # looked at: a reader who left does not want it logged
        self._pieces.put_nowait(None)


class BlockingAnswerStream:
    """The same as a plain iterator; leave early with `close`, or use it as ``with``."""

    def __init__(self, stream: AnswerStream) -> None:
        """Take the stream, which nobody has read yet."""
        self._stream = stream

    @property
    def result(self) -> CascadeResult:
        """See `AnswerStream.result`."""
        return self._stream.result

    def __iter__(self) -> BlockingAnswerStream:
        """Itself."""
        return self

    def __next__(self) -> str:
        """See `AnswerStream.__anext__`."""
        piece = run_in_background(self._next)
        if piece is None:
            raise StopIteration
        return piece

    async def _next(self) -> str | None:
        return await anext(self._stream, None)

    def close(self) -> None:
        """See `AnswerStream.aclose`."""
        run_in_background(self._stream.aclose)

    def __enter__(self) -> BlockingAnswerStream:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
