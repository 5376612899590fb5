"""Answers of models, and back ends that ask a model: any function, or any client that is compatible with OpenAI's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ..routers.errors import InferenceError, InputError
from ..routers.messages import content_text
from ..routers.query import Query
from .threads import call, iterate


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one call of a model.

    Attributes:
        text: the text; empty when the model wrote none, for instance because it only called tools.
        input_tokens: number of tokens that the model read; None when the back end does not report it.
        output_tokens: number of tokens that the model wrote; None when the back end does not report it.
        finish_reason: why the model stopped, in the words of the service: "stop", "length", "content_filter", ...;
            None when the back end does not report it. `fault_of` says which of these words make a failed call.

    Example:
        >>> from routelearn.cascade import Answer
        >>> answer = Answer("144", input_tokens=9, output_tokens=1)
        >>> answer.text, answer.finish_reason
        ('144', None)
    """

    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None

    @property
    def cut(self) -> bool:
        """Whether there is a text, and the limit on the length cut it off."""
        return bool(self.text.strip()) and _word(self.finish_reason) in _CUT


#: Words of services for an answer that the limit on the length cut off.
_CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"})
#: Words for a reply that is no answer, by what they say.
_NO_ANSWER = {
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), "the model called a tool"),
    **dict.fromkeys(("refusal", "refused"), "the model refused to answer"),
    **dict.fromkeys(
        ("content_filter", "content_filtered", "content_blocked", "guardrail_intervened", "error_toxic", "sensitive"),
        "the answer was filtered",
    ),
    **dict.fromkeys(
        ("safety", "recitation", "blocklist", "prohibited_content", "spii"),
        "the answer was filtered",
    ),
    **dict.fromkeys(
        ("error", "abort", "aborted", "cancelled", "timeout", "network_error", "insufficient_system_resource"),
        "the service broke the answer off",
    ),
}


def _word(finish_reason: object) -> str:
    """A finish reason as the tables spell it; an enum of a client's library counts by its value."""
    return str(getattr(finish_reason, "value", finish_reason)).lower().replace("-", "_")


def fault_of(answer: Answer) -> str | None:
    """Why an answer is a failed call: it is empty, refused, filtered or cut off by the limit on its length; or None.

    Example:
        >>> from routelearn.cascade.backends import Answer, fault_of
        >>> fault_of(Answer("12 * 12 is", finish_reason="length"))
        "the answer was cut off (finish_reason 'length')"
    """
    word = _word(answer.finish_reason)
    what = _NO_ANSWER.get(word)
    if what is None and word in _CUT:
        what = "the answer was cut off" if answer.cut else "the model reached its limit of tokens without an answer"
    if what is not None:
        return f"{what} (finish_reason {word!r})"
    return None if answer.text.strip() else "the answer is empty"


@runtime_checkable
class Backend(Protocol):
    """Asks one model. `from_callable` and `from_client` make back ends; your own class works as well.

    Example:
        >>> from routelearn.cascade import Answer, Backend
        >>> class Echo:
        ...     async def complete(self, query):
        ...         return Answer(str(query))
        ...     async def stream(self, query):
        ...         yield Answer(str(query))
        >>> isinstance(Echo(), Backend)
        True
    """

    async def complete(self, query: Query) -> Answer:
        """Ask the model and return the whole answer. Any exception counts as a failure of the call."""
        ...

    def stream(self, query: Query) -> AsyncIterator[str | Answer]:
        """Yield the answer in pieces as they come, and finally an `Answer` with the whole text and the tokens."""
        ...


def from_callable(function: Callable[[Query], Any]) -> Backend:
    """Make a back end from a function that takes a query and returns a string or an `Answer`.

    The function may be sync or async. A sync function runs in a thread of its
    own. A cascade passes the query as it came, so the function gets chats as
    well as prompts.

    Raises:
        InputError: this is no function.

    Example:
        >>> import asyncio
        >>> from routelearn.cascade import from_callable
        >>> asyncio.run(from_callable(lambda query: "144").complete("How much is 12 * 12?")).text
        '144'
    """
    if not callable(function):
        raise InputError(f"function is {function!r:.80}; expected a function of a query")
    return _Function(function)


def from_client(client: Any, model: str, **options: Any) -> Backend:
    """Make a back end from a client with ``chat.completions.create``, such as openai.OpenAI or openai.AsyncOpenAI.

    Set the retries of the client to 0 (``max_retries=0``) if every call must be
    accounted for, because a cascade cannot see a retry inside the client. An
    async client belongs to one event loop: use its cascade either with
    `Cascade.arun` or with `Cascade.run`, but not with both.

    Args:
        client: the client. routelearn imports no client library.
        model: name of the model at the service.
        **options: options that are passed to every call (temperature, max_tokens, ...).

    Raises:
        InputError: the client has no ``chat.completions.create``.

    Example:
        >>> from types import SimpleNamespace as Namespace
        >>> from routelearn.cascade import Backend, from_client
        >>> client = Namespace(chat=Namespace(completions=Namespace(create=print)))  # or openai.OpenAI()
        >>> isinstance(from_client(client, "gpt-4o-mini", temperature=0), Backend)
        True
    """
    chat = getattr(client, "chat", None)
    create = getattr(getattr(chat, "completions", None), "create", None)
    if not callable(create):
        raise InputError(
            f"client is a {type(client).__name__} without chat.completions.create; expected a client like openai.OpenAI"
        )
    return _Client(create, {"model": model, **options})


def as_backend(given: object) -> Backend:
    """Return a back end as it is, and make one from a function.

    Raises:
        InputError: the value is neither a back end nor a function.
    """
    if isinstance(given, Backend):
        return given
    if callable(given):
        return from_callable(given)
    raise InputError(f"backend is a {type(given).__name__}; expected a function, or from_client(client, model)")


class _Function:
    """The back end of `from_callable`."""

    def __init__(self, function: Callable[[Query], Any]) -> None:
        self._function = function

    async def complete(self, query: Query) -> Answer:
        result = await call(self._function, query)
        if isinstance(result, str):
            return Answer(result)
        if isinstance(result, Answer):
            return result
        raise InputError(f"the function returned a {type(result).__name__}; expected a string or an Answer")

    async def stream(self, query: Query) -> AsyncGenerator[str | Answer, None]:
        answer = await self.complete(query)
        yield answer.text
        yield answer


class _Client:
    """The back end of `from_client`."""

    def __init__(self, create: Callable[..., Any], options: dict[str, Any]) -> None:
        self._create = create
        self._options = options

    async def complete(self, query: Query) -> Answer:
        reply = await call(self._create, messages=chat_messages(query), **self._options)
        choices = getattr(reply, "choices", None)
        if not choices:
            raise InferenceError(f"the service replied with no completion, but with {type(reply).__name__}")
        return answer_of(choices[0], getattr(reply, "usage", None))

    async def stream(self, query: Query) -> AsyncGenerator[str | Answer, None]:
        settings = {"stream": True, "stream_options": {"include_usage": True}, **self._options}
        reply = await call(self._create, messages=chat_messages(query), **settings)
        text, usage, reason = "", None, None
        async with aclosing(_chunks(reply)) as chunks:
            async for chunk in chunks:
                usage = getattr(chunk, "usage", None) or usage  # the last chunk holds the usage, and has no choices
                if not chunk.choices:
                    continue
                choice = chunk.choices[0]
                if reason != "refusal":
                    reason = "refusal" if _refused(choice.delta) else getattr(choice, "finish_reason", None) or reason
                piece = choice.delta.content
                if piece:
                    text += piece
                    yield piece
        yield _answer(text, usage, reason)


async def _chunks(reply: Any) -> AsyncGenerator[Any, None]:
    """The chunks of an async or a sync stream; the stream is closed at the end, also after an error."""
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


def chat_messages(query: Query) -> list[Any]:
    """A query as the messages of a chat completion."""
    return [{"role": "user", "content": query}] if isinstance(query, str) else list(query)


def answer_of(choice: Any, usage: Any) -> Answer:
    """The answer in a choice of a chat completion, with the tokens that the service reports."""
    message = choice.message
    reason = "refusal" if _refused(message) else getattr(choice, "finish_reason", None)
    return _answer(content_text(message.content), usage, reason)


def _refused(message: Any) -> bool:
    """Whether the model refused in the field that OpenAI has for it."""
    refusal = getattr(message, "refusal", None)
    return isinstance(refusal, str) and bool(refusal)


def _answer(text: str, usage: Any, reason: Any) -> Answer:
    read, written = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    return Answer(text, read, written, None if reason is None else _word(reason))
