"""Answers of models, and the back ends that give them: any function, any OpenAI-compatible client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ..routers.errors import InputError
from ..routers.query import Query
from .threads import call, iterate


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call of a model gave.

    Attributes:
        text: the answer; empty when the model said nothing (it only called tools, say).
        input_tokens: tokens that were read, or None when not reported.
        output_tokens: tokens that were written, or None when not reported.
    """

    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None


@runtime_checkable
class Backend(Protocol):
    """Asks one model."""

    async def complete(self, query: Query) -> Answer:
        """The whole answer. Whatever is raised is a failure of the call."""
        ...

    def stream(self, query: Query) -> AsyncIterator[str | Answer]:
        """The answer's text in pieces as they come, and at last an `Answer` with the whole text and the usage."""
        ...


def from_callable(function: Callable[[Query], Any]) -> Backend:
    """A back end out of a function from a query to a string or an `Answer`, sync or async.

    A sync function runs in a thread of its own. A cascade asks about chats and
    prompts as they come; `SelfEvaluation` asks with a prompt.
    """
    return _Function(function)


def from_client(client: Any, model: str, **options: Any) -> Backend:
    """A back end out of anything with ``chat.completions.create``: openai.OpenAI, openai.AsyncOpenAI, look-alikes.

    Set the client's own retries to 0 (``max_retries=0``) where every call must
    be accounted for: a retry inside the client is seen by nobody. An async
    client belongs to one event loop: use its cascade with `Cascade.arun` or with
    `Cascade.run`, not with both.

    Args:
        client: the client; nothing is imported for it.
        model: the model's name at the service.
        **options: passed on to every call (temperature, max_tokens, ...).

    Raises:
        InputError: the client has no ``chat.completions.create``.
    """
    chat = getattr(client, "chat", None)
    create = getattr(getattr(chat, "completions", None), "create", None)
    if not callable(create):
        raise InputError(f"a {type(client).__name__} has no chat.completions.create; expected an OpenAI-like client")
    return _Client(create, {"model": model, **options})


def as_backend(given: object) -> Backend:
    """A back end as it is, or one out of a function.

    Raises:
        InputError: neither.
    """
    if isinstance(given, Backend):
        return given
    if callable(given):
        return from_callable(given)
    raise InputError(f"a back end is {type(given).__name__}; expected a function, or from_client(client, model)")


class _Function:
    """See `from_callable`."""

    def __init__(self, function: Callable[[Query], Any]) -> None:
        self._function = function

    async def complete(self, query: Query) -> Answer:
        result = await call(self._function, query)
        if isinstance(result, str):
            return Answer(result)
        if isinstance(result, Answer):
            return result
        raise InputError(f"a model's function gave {type(result).__name__}; expected a string or an Answer")

    async def stream(self, query: Query) -> AsyncGenerator[str | Answer, None]:
        answer = await self.complete(query)
        yield answer.text
        yield answer


class _Client:
    """See `from_client`."""

    def __init__(self, create: Callable[..., Any], options: dict[str, Any]) -> None:
        self._create = create
        self._options = options

    async def complete(self, query: Query) -> Answer:
        reply = await call(self._create, messages=_messages(query), **self._options)
        return _answer(reply.choices[0].message.content or "", reply.usage)

    async def stream(self, query: Query) -> AsyncGenerator[str | Answer, None]:
        settings = {"stream": True, "stream_options": {"include_usage": True}, **self._options}
        reply = await call(self._create, messages=_messages(query), **settings)
        text, usage = "", None
        async with aclosing(_chunks(reply)) as chunks:
            async for chunk in chunks:
                usage = getattr(chunk, "usage", None) or usage  # the last chunk's, which has no choices
                piece = chunk.choices[0].delta.content if chunk.choices else None
                if piece:
                    text += piece
                    yield piece
        yield _answer(text, usage)


async def _chunks(reply: Any) -> AsyncGenerator[Any, None]:
    """The chunks of an async or a sync stream, which is closed at the end, however that comes."""
    if not hasattr(reply, "__aiter__"):
        async with aclosing(iterate(reply)) as items:
            async for chunk in items:
                yield chunk
        return
    try:
        async for chunk in reply:
            yield chunk
    finally:
        close = getattr(reply, "close", None) or getattr(reply, "aclose", None)
        if close is not None:
            await call(close)


def _messages(query: Query) -> list[Any]:
    return [{"role": "user", "content": query}] if isinstance(query, str) else list(query)


def _answer(text: str, usage: Any) -> Answer:
    return Answer(text, getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None))
