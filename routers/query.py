"""A query is a prompt or a chat. This file alone knows how a chat becomes the text that a router reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .errors import InputError

Message = Mapping[str, Any]
Query = str | Sequence[Message]

#: The longest text that a tokenizer gets, in characters per token of the budget. A token rarely spans more than 8
#: characters (English has 4 to 5), so the token budget is reached before this limit.
MAX_CHARACTERS_PER_TOKEN = 8
#: Characters per token (English text): for estimates when a model does not report its tokens.
CHARACTERS_PER_TOKEN = 4

_CONVERSATION_ROLES = frozenset({"user", "assistant", "tool", "function", "human", "gpt", "model"})
_SPACE = re.compile(r"\s+")


def query_list(queries: object) -> Sequence[Query]:
    """The queries of a batch as a list: a list or a tuple as it is, the values of a column (pandas, numpy, pyarrow).

    Raises:
        InputError: this is no batch of queries; the message says what to write.
    """
    if isinstance(queries, (list, tuple)):
        return queries
    if isinstance(queries, (str, bytes)):
        raise InputError(f"queries is the text {queries[:40]!r}; expected a list of queries: [{queries[:40]!r}]")
    if isinstance(queries, Mapping):
        raise InputError("queries is a mapping; expected a list of queries; a chat is a list of messages: [messages]")
    kind = type(queries).__name__
    if hasattr(queries, "columns") or getattr(queries, "ndim", 1) != 1:
        raise InputError(f"queries is a {kind} with several columns; expected one of them, such as frame['prompt']")
    if isinstance(queries, (set, frozenset)):
        raise InputError(f"queries is a {kind}, which has no order; expected a list of queries")
    for name in ("to_pylist", "tolist", "to_list"):  # pyarrow; pandas and numpy; polars
        method: Callable[[], Iterable[Query]] | None = getattr(queries, name, None)
        if callable(method):
            return list(method())
    if isinstance(queries, Iterable):
        return list(queries)
    raise InputError(f"queries is a {kind}; expected a list of queries")


class QueryText(NamedTuple):
    """The text of a query, and whether a part of the query was left out."""

    text: str
    truncated: bool


def content_text(content: object) -> str:
    """Take the text out of the content of one message: a string, None, or a list of multimodal parts.

    Parts with text contribute their text; images, audio and files contribute nothing.

    Raises:
        InputError: the content is neither a string, nor None, nor a list of parts.
    """
    if isinstance(content, str):
        return content
    if content is None:  # an assistant message that only calls tools
        return ""
    if isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
        parts: list[str] = []
        for part in content:
            if isinstance(part, str):
                parts.append(part)
            elif isinstance(part, Mapping):
                text = part.get("text", "")
                if isinstance(text, str):
                    parts.append(text)
            else:
                raise InputError(f"a message part is {type(part).__name__}; expected a mapping or a string")
        return "\n".join(part for part in parts if part)
    raise InputError(f"message content is {type(content).__name__}; expected a string or a list of parts")


def transcript(query: Query) -> str:
    """Write the query as one text: a prompt as it is, a chat as lines ``role: content``, with the system messages."""
    if isinstance(query, str):
        return query
    return "\n".join(f"{message.get('role', 'user')}: {content_text(message['content'])}" for message in query)


def estimate_tokens(text: str) -> int:
    """Estimate the number of tokens of a text: its characters divided by `CHARACTERS_PER_TOKEN`, rounded up."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def turns(query: Query) -> list[str]:
    """List the texts of a query's turns, the oldest first; a prompt is one turn.

    System and developer messages are left out, unless the chat has no other messages. They are the same in every
    request of an application, so they would shift every score alike and hide the question.

    Raises:
        InputError: the query is neither a string nor a list of messages.
    """
    if isinstance(query, str):
        return [query]
    if isinstance(query, Mapping):
        raise InputError("a query is a mapping; expected a string or a chat, which is a list of messages: [message]")
    if isinstance(query, (bytes, bytearray)) or not isinstance(query, Sequence):
        raise InputError(f"a query is {type(query).__name__}; expected a string or a list of messages")
    said: list[str] = []
    instructions: list[str] = []
    for number, message in enumerate(query):
        if not isinstance(message, Mapping) or "content" not in message:
            raise InputError(
                f"message {number} of a chat is {type(message).__name__}; expected a mapping with 'role' and 'content'"
            )
        text = content_text(message["content"])
        role = message.get("role", "user")
        try:
            is_turn = role in _CONVERSATION_ROLES
        except TypeError:  # a list or a mapping cannot be looked up
            raise InputError(f"message {number} of a chat has the role {role!r}; expected a text") from None
        (said if is_turn else instructions).append(text)
    return [text for text in (said or instructions) if text]


def query_text(query: Query, max_characters: int, *, both_ends: bool = False) -> QueryText:
    """Make the text that a router reads: the newest turn first, within a budget of characters.

    The whole conversation counts, because a short follow-up ("yes", "do it") means nothing alone. The newest turn
    stands first, so that the budget cuts the oldest turns. A single turn that is longer than the budget keeps its
    start and its end, because a question often stands after a long document.

    Args:
        query: a prompt or a chat.
        max_characters: the longest text that may be returned.
        both_ends: for routers that also read the last tokens of a text: the oldest turn stands first, and the budget
            keeps the start and the end of the chat.

    Raises:
        InputError: the query is neither a string nor a list of messages.
    """
    if isinstance(query, str):  # the hot path of batch scoring
        if len(query) <= max_characters:
            return QueryText(query, False)
        return QueryText(_keep_ends(query, max_characters), True)
    if both_ends:
        text = "\n".join(turns(query))
        return (
            QueryText(text, False) if len(text) <= max_characters else QueryText(_keep_ends(text, max_characters), True)
        )
    newest_first = turns(query)[::-1]
    if newest_first and len(newest_first[0]) > max_characters:
        return QueryText(_keep_ends(newest_first[0], max_characters), True)
    text = "\n".join(newest_first)
    return QueryText(text[:max_characters], len(text) > max_characters)


def _keep_ends(text: str, max_characters: int) -> str:
    head = max_characters // 2
    tail = max_characters - head - 1
    return text[:head] + "\n" + text[len(text) - tail :]


def prompt_key(query: Query) -> str:
    """Normalise a query for grouping and leak checks: case and white space are folded."""
    return _SPACE.sub(" ", "\n".join(turns(query))).strip().casefold()


def parse_messages(value: object) -> Query:
    """Read a chat from a cell of a data file: a list of messages, or the JSON text of such a list.

    Raises:
        InputError: the value is neither of the two.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON ({error}); expected a list of messages") from error
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InputError(f"{type(value).__name__}; expected a list of messages")
    messages = tuple(value)
    turns(messages)
    return messages
