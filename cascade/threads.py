"""Bridges between threads and event loops: blocking functions in async code, and async code in blocking functions.

Every thread here is a daemon, and no thread belongs to a pool. So a function
that hangs stops neither an event loop nor the interpreter from ending, and it
takes no place that another call needs. Starting a thread costs about 0.1 ms,
far less than a call of a model.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..routers.errors import RoutelearnError

logger = logging.getLogger(__name__)

T = TypeVar("T")


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call of this function returns a coroutine; decorators and callable objects are looked through."""
    plain = inspect.unwrap(function)
    return inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(getattr(plain, "__call__", None))  # noqa: B004


async def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a sync or async function without blocking the event loop."""
    if is_async(function):
        return await function(*arguments, **options)
    result = await in_thread(function, *arguments, **options)
    return await result if inspect.isawaitable(result) else result


def as_exception(error: BaseException) -> Exception:
    """The error itself, or a RuntimeError in its place: SystemExit and its like would end an event loop."""
    return error if isinstance(error, Exception) else RuntimeError(f"the call ended with {type(error).__name__}")


@contextmanager
def contained() -> Iterator[None]:
    """Run code of the user on an event loop. What would end the loop (`sys.exit`) becomes a RuntimeError.

    A KeyboardInterrupt of the main thread is left alone, because it may be a real one.
    """
    try:
        yield
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise
    except KeyboardInterrupt as error:
        if threading.current_thread() is threading.main_thread():
            raise
        raise as_exception(error) from error
    except BaseException as error:
        raise as_exception(error) from error


async def in_thread(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call a blocking function in a thread of its own.

    When the caller is cancelled, the thread goes on and its result is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        try:
            result = function(*arguments, **options)
        except BaseException as error:  # noqa: BLE001 - the caller gets every exception
            _post(loop, _fail, future, as_exception(error))
        else:
            _post(loop, _succeed, future, result)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="routelearn-call", daemon=True).start()
    return await future


async def iterate(items: Iterable[T]) -> AsyncGenerator[T, None]:
    """Yield the items of a blocking iterable, which a thread of its own reads.

    When the caller stops early, the thread stops at the next item and closes the
    iterable, if it has a method `close`.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[T] | Exception | None] = asyncio.Queue()
    stopped = threading.Event()

    def pull() -> None:
        try:
            for item in items:
                if stopped.is_set():
                    break
                _post(loop, queue.put_nowait, (item,))
        except BaseException as error:  # noqa: BLE001 - the caller gets every exception
            _post(loop, queue.put_nowait, as_exception(error))
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
            _post(loop, queue.put_nowait, None)

    threading.Thread(target=pull, name="routelearn-stream", daemon=True).start()
    try:
        while (entry := await queue.get()) is not None:
            if isinstance(entry, Exception):
                raise entry
            yield entry[0]
    finally:
        stopped.set()


def _post(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
    """Run a function on the loop. Do nothing when the loop is closed, since nobody waits for it then."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        # A future refuses StopIteration, so that the caller would wait for ever.
        future.set_exception(
            RuntimeError("the call raised StopIteration") if isinstance(error, StopIteration) else error
        )


class _Background:
    """The event loop that serves all blocking calls of the process, in a daemon thread. It starts when first needed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None

    def running(self) -> asyncio.AbstractEventLoop:
        """Return the loop, and start it if it is not running."""
        with self.lock:
            if self.loop is None:
                self.loop = asyncio.new_event_loop()
                self.thread = threading.Thread(target=_serve, args=(self.loop,), name="routelearn-loop", daemon=True)
                self.thread.start()
            return self.loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop for ever. A task of the user that raises SystemExit stops a loop, so the loop is run again."""
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            logger.error("a task in routelearn's event loop raised %s; the loop goes on", type(error).__name__)
        else:
            return


_background = _Background()


def _forget_background() -> None:
    global _background  # noqa: PLW0603 - a forked child has no threads, so it starts its own
    _background = _Background()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_background)


def run_in_background(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on the background loop and wait for it. This also works inside a running loop.

    Args:
        work: makes the coroutine.

    Returns:
        The result of the coroutine.

    Raises:
        RoutelearnError: this was called on the background loop itself, which would wait for itself.
    """
    loop = _background.running()
    if threading.current_thread() is _background.thread:
        raise RoutelearnError(
            "a blocking method was called inside routelearn's own event loop; expected the async method there"
        )
    future = asyncio.run_coroutine_threadsafe(work(), loop)
    try:
        return future.result()
    except BaseException:  # also after an interrupt, the coroutine that still runs is cancelled
        future.cancel()
        raise
