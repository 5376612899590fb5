"""Streamed answers: iterators over the pieces of an answer, async or blocking, with the result at the end."""

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
    """An async iterator over the pieces of an accepted answer. `Cascade.astream` makes it.

    The request starts when the first piece is asked for. To leave early, call
    `aclose` or use ``async with``: the request is then cancelled.

    Example:
        >>> import asyncio
        >>> from routelearn import Model
        >>> from routelearn.cascade import Cascade, SelfConsistency, Tier
        >>> weak = Tier(Model("weak"), lambda query: "144", SelfConsistency(samples=2))
        >>> cascade = Cascade([weak, Tier(Model("strong"), lambda query: "144")])
        >>> async def read():
        ...     async with cascade.astream("How much is 12 * 12?") as stream:
        ...         return [piece async for piece in stream], stream.result.model
        >>> asyncio.run(read())
        (['144'], 'weak')
    """

    def __init__(self, work: Callable[[Emit], Coroutine[Any, Any, CascadeResult]]) -> None:
        """Prepare the stream.

        Args:
            work: answers the request, and passes each piece to the function that it is given.
        """
        self._work = work
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._task: asyncio.Task[CascadeResult] | None = None
        self._closed = False

    @property
    def result(self) -> CascadeResult:
        """The result of the request.

        Raises:
            InputError: the stream has not been read to the end.
            CascadeError: no tier gave an answer.
        """
        if self._task is None or not self._task.done() or self._task.cancelled():
            raise InputError("the stream has no result yet; expected that it is read to the end first")
        return self._task.result()

    def __aiter__(self) -> AnswerStream:
        """Return the stream itself."""
        return self

    async def __anext__(self) -> str:
        """Wait for the next piece.

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
            self._task.result()  # raises the exception of the request
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel a request that still runs, and wait until its calls are accounted for."""
        self._closed = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def __aenter__(self) -> AnswerStream:
        """Return the stream itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the stream."""
        await self.aclose()

    def _end(self, task: asyncio.Task[CascadeResult]) -> None:
        if not task.cancelled():
            task.exception()  # marks the exception as seen, so that asyncio does not log it after the reader has left
        self._pieces.put_nowait(None)


class BlockingAnswerStream:
    """A plain iterator over the pieces of an accepted answer. `Cascade.stream` makes it.

    The request starts when the first piece is asked for. To leave early, call
    `close` or use ``with``: the request is then cancelled.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.cascade import Cascade, SelfConsistency, Tier
        >>> weak = Tier(Model("weak"), lambda query: "144", SelfConsistency(samples=2))
        >>> stream = Cascade([weak, Tier(Model("strong"), lambda query: "144")]).stream("How much is 12 * 12?")
        >>> list(stream), stream.result.model
        (['144'], 'weak')
    """

    def __init__(self, stream: AnswerStream) -> None:
        """Wrap a stream that has not been read yet."""
        self._stream = stream

    @property
    def result(self) -> CascadeResult:
        """The result of the request.

        Raises:
            InputError: the stream has not been read to the end.
            CascadeError: no tier gave an answer.
        """
        return self._stream.result

    def __iter__(self) -> BlockingAnswerStream:
        """Return the stream itself."""
        return self

    def __next__(self) -> str:
        """Wait for the next piece.

        Raises:
            CascadeError: no tier gave an answer, or the answer broke off.
        """
        piece = run_in_background(self._next)
        if piece is None:
            raise StopIteration
        return piece

    async def _next(self) -> str | None:
        return await anext(self._stream, None)

    def close(self) -> None:
        """Cancel a request that still runs, and wait until its calls are accounted for."""
        run_in_background(self._stream.aclose)

    def __enter__(self) -> BlockingAnswerStream:
        """Return the stream itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the stream."""
        self.close()
